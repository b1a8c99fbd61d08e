//! Turns of streams that have much to catch up with. A runtime serves its tasks in the order in which they are ready:
//! were a thousand streams with a history to send all ready at once, each live event would wait for a slice of every
//! one of them. So such a stream reads on when it has its turn, and only a few have it at a time.

use std::collections::VecDeque;
use std::num::NonZero;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread::available_parallelism;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;

/// Who waits for a turn, first come first served.
#[derive(Debug)]
pub struct Turns {
    /// How many streams have a turn at a time.
    at_a_time: usize,
    waiting: Mutex<VecDeque<oneshot::Sender<()>>>,
    bell: Notify,
}

/// The turns of one stream.
#[derive(Debug, Default)]
pub struct Turn {
    /// For what memory holds.
    memory: Option<Waited>,
    /// For what only an upstream still holds. Of several feeds some may wait for this, and the others go on.
    history: Option<Waited>,
    /// Bytes read since the last turn, or since there was nothing to read.
    read: usize,
}

/// A turn that was asked for. Boxed, since most streams wait for none.
type Waited = Box<oneshot::Receiver<()>>;

impl Turns {
    /// As many turns at a time as there are cores.
    pub fn on_all_cores() -> Self {
        Self::new(cores())
    }

    /// As many turns at a time as keep half of the cores busy: the others are for what is live.
    pub fn on_half_the_cores() -> Self {
        Self::new(cores().div_ceil(2))
    }

    fn new(at_a_time: usize) -> Self {
        Self { at_a_time, waiting: Mutex::default(), bell: Notify::new() }
    }

    /// How many wait, those included that have left since.
    pub fn waiting(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Hands out turns; never returns. Those who got one run before the next get theirs.
    pub async fn run(&self) {
        loop {
            if !self.hand_out() {
                self.bell.notified().await;
            }
            yield_now().await;
        }
    }

    /// False when nobody waits.
    fn hand_out(&self) -> bool {
        let mut waiting = self.waiting.lock();
        let mut left = self.at_a_time;
        while left > 0
            && let Some(next) = waiting.pop_front()
        {
            // One that has left needs no turn.
            left -= usize::from(next.send(()).is_ok());
        }
        left < self.at_a_time
    }

    fn queue(&self) -> Waited {
        let (turn, waited) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.push_back(turn);
        let first = waiting.len() == 1;
        drop(waiting);
        if first {
            self.bell.notify_one();
        }
        Box::new(waited)
    }
}

impl Turn {
    /// Ready when a stream may read on that has something to read in memory, in history or in both, with whether it is to read
    /// history then. In memory it may do so without a turn until it has read for one.
    pub fn poll(
        &mut self,
        (turns, replay_turns): (&Turns, &Turns),
        (memory, history): (bool, bool),
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        if history && wait(&mut self.history, replay_turns, cx).is_ready() {
            self.read = 0;
            return Poll::Ready(true);
        }
        if !memory {
            return Poll::Pending;
        }
        if self.memory.is_some() || self.read >= LENGTH {
            ready!(wait(&mut self.memory, turns, cx));
            self.read = 0;
        }
        Poll::Ready(false)
    }

    /// The next read takes another turn.
    pub fn end(&mut self) {
        self.read = LENGTH;
    }

    /// Counts what was read.
    pub fn count(&mut self, bytes: usize) {
        self.read += bytes;
    }

    /// There was nothing left to read.
    pub fn over(&mut self) {
        self.read = 0;
    }
}

/// Ready when the turn has come that is waited for from now on, if it was not before.
fn wait(waited: &mut Option<Waited>, turns: &Turns, cx: &mut Context<'_>) -> Poll<()> {
    // An error means that nobody hands out turns any more: the process is going away.
    let come = Pin::new(&mut **waited.get_or_insert_with(|| turns.queue())).poll(cx);
    come.map(|_| *waited = None)
}

fn cores() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

/// Bytes that a stream may read without a turn.
const LENGTH: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;

    use super::*;

    async fn next(turn: &mut Turn, turns: &Turns, history: bool) {
        let read = std::future::poll_fn(|cx| turn.poll((turns, turns), (!history, history), cx)).await;
        assert_eq!(read, history);
    }

    #[tokio::test]
    async fn only_those_who_read_much_wait_for_their_turn() {
        let (turns, mut turn) = (Turns::new(4), Turn::default());
        for read in [1, LENGTH - 2] {
            assert!(next(&mut turn, &turns, false).now_or_never().is_some());
            turn.count(read);
        }
        turn.over();
        turn.count(LENGTH);
        assert!(next(&mut turn, &turns, false).now_or_never().is_none());
        assert!(turns.hand_out());
        assert!(next(&mut turn, &turns, false).now_or_never().is_some(), "its turn has come");
        assert!(next(&mut turn, &turns, false).now_or_never().is_some(), "it has not read since");
        assert!(next(&mut turn, &turns, true).now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_few_at_a_time_get_theirs_in_order_and_those_who_left_none() {
        let turns = Turns::new(4);
        let mut waiting: Vec<_> = (0..8).map(|_| Turn::default()).collect();
        for turn in &mut waiting {
            assert!(next(turn, &turns, true).now_or_never().is_none());
        }
        drop(waiting.remove(1));
        assert!(turns.hand_out());
        let mut ready = Vec::new();
        for turn in &mut waiting {
            ready.push(next(turn, &turns, true).now_or_never().is_some());
        }
        assert_eq!(ready, [true, true, true, true, false, false, false]);
        assert!(turns.hand_out());
        assert!(!turns.hand_out(), "nobody is left");
    }

    /// They were one, and what was live waited with what was not.
    #[tokio::test]
    async fn who_waits_for_a_turn_in_history_may_read_memory_meanwhile() {
        let (turns, replay_turns, mut turn) = (Turns::new(1), Turns::new(1), Turn::default());
        let poll = |turn: &mut Turn, ready| {
            std::future::poll_fn(|cx| turn.poll((&turns, &replay_turns), ready, cx)).now_or_never()
        };
        assert_eq!(poll(&mut turn, (false, true)), None);
        assert_eq!(poll(&mut turn, (true, true)), Some(false));
        turn.count(LENGTH);
        assert_eq!(poll(&mut turn, (true, true)), None, "it has read for a turn");
        assert_eq!((turns.waiting(), replay_turns.waiting()), (1, 1), "once in each");
        assert!(turns.hand_out());
        assert_eq!(poll(&mut turn, (true, true)), Some(false));
        assert!(replay_turns.hand_out());
        assert_eq!(poll(&mut turn, (true, true)), Some(true), "however much there is in memory");
        assert_eq!(poll(&mut turn, (true, true)), Some(false));
        assert_eq!((turns.waiting(), replay_turns.waiting()), (0, 1));
    }

    #[test]
    fn a_stream_that_waits_for_no_turn_has_three_words_for_them() {
        assert_eq!(size_of::<Turn>(), 3 * size_of::<usize>());
    }

    #[tokio::test]
    async fn everyone_gets_on() {
        let turns = Arc::new(Turns::new(4));
        let hands = Arc::clone(&turns);
        let running = tokio::spawn(async move { hands.run().await });
        let streams = (0..100).map(|_| {
            let turns = Arc::clone(&turns);
            tokio::spawn(async move {
                let mut turn = Turn::default();
                for _ in 0..50 {
                    next(&mut turn, &turns, true).await;
                }
            })
        });
        let streams: Vec<_> = streams.collect();
        for stream in streams {
            tokio::time::timeout(std::time::Duration::from_secs(10), stream).await.unwrap().unwrap();
        }
        running.abort();
    }
}
