//! The ids of one log, which are the upstream's own, and what the upstream has to say to those that the log does not
//! hold. Numbers from [`FIRST`] on are the log's; below are those of stretches. Until the upstream gives an id, there are
//! ids of the log's own.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::time::Instant;

use super::step::{Step, What, is_sound};
use super::stretches::{Came, End, Place, Stretches};
use super::table::{Table, text};
use crate::hub::{
    Answer, Decoded, EpochCodec, Feed, Found, History, IdCodec, Memory, Offset, Position, Question, Reason,
    Reclaim, Sought, Table as Newest,
};
use crate::shape::Shape;

/// The number at which a log begins.
pub(super) const FIRST: u64 = 1 << 62;

/// A stretch to be read, of the log with these ids.
pub(super) type Job = (Arc<Ids>, u64);

/// What is known of the ids of one log.
pub(super) struct Ids {
    own: EpochCodec,
    /// The path that is read.
    pub path: Arc<str>,
    /// How events are made of what comes.
    pub shape: Shape,
    /// How the upstream takes ids.
    takes: Takes,
    /// For what is read of stretches.
    pub memory: Arc<Memory>,
    jobs: UnboundedSender<Job>,
    /// How many events there have been.
    news: watch::Sender<u64>,
    this: Weak<Self>,
    known: Mutex<Known>,
}

/// A stretch that waits for the log to go on.
pub(super) struct Parked(Arc<Ids>);

impl Drop for Parked {
    fn drop(&mut self) {
        self.0.known.lock().parked -= 1;
    }
}

/// What the upstream does with an id that it is asked to go on after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// It goes on after its own.
    Own,
    /// It goes on after any, or says what is missing: it is an ssegate.
    Any,
    /// It does not go by them.
    None,
}

struct Known {
    table: Table,
    stretches: Stretches,
    /// Since when the upstream gives what it is asked for.
    answers: Option<Instant>,
    /// How many stretches wait for the log to go on.
    parked: usize,
}

impl Ids {
    /// Of the log of a feed that begins where the upstream has given this id last. What is read of stretches counts in `read`.
    pub(super) fn new(
        feed: &Feed,
        path: &Arc<str>,
        takes: Takes,
        id: Option<&str>,
        read: &Arc<Memory>,
        jobs: &UnboundedSender<Job>,
    ) -> Arc<Self> {
        let known = Known {
            table: Table::new(feed.log.memory(), FIRST, id),
            stretches: Stretches::default(),
            answers: Some(Instant::now()),
            parked: 0,
        };
        let ids = Arc::new_cyclic(|this| Self {
            own: feed.own_ids(),
            path: Arc::clone(path),
            shape: feed.key.shape.clone(),
            takes,
            memory: Arc::clone(read),
            jobs: jobs.clone(),
            news: watch::Sender::new(0),
            this: this.clone(),
            known: Mutex::new(known),
        });
        let holder: Arc<dyn Reclaim> = ids.clone();
        read.register(Arc::downgrade(&holder));
        ids
    }

    /// These steps are about to be appended, the first of them at this number.
    pub(super) fn learn(&self, first: u64, steps: &[Step]) {
        let (mut known, mut events) = (self.known.lock(), 0);
        for (number, step) in (first..).zip(steps) {
            let event = !matches!(step.what, What::Moved);
            known.table.push(number, step.id.as_deref(), event);
            events += u64::from(event);
        }
        drop(known);
        self.news.send_modify(|all| *all += events);
    }

    /// How many events there have been, and when it is more, or another id is known.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// A stretch waits for that, until what is returned is dropped: its readers have all that there is.
    pub(super) fn park(self: &Arc<Self>) -> Parked {
        self.known.lock().parked += 1;
        Parked(Arc::clone(self))
    }

    /// Whether the log has this id, or had it lately.
    pub(super) fn holds(&self, id: &str) -> bool {
        self.known.lock().table.number(id).is_some()
    }

    /// The id after which a stretch begins, if somebody waits for it.
    pub(super) fn is_waited_for(&self, stretch: u64) -> Option<Bytes> {
        self.known.lock().stretches.is_waited_for(stretch)
    }

    /// This came of a stretch.
    pub(super) fn arrived(&self, stretch: u64, came: Came) {
        let mut known = self.known.lock();
        known.answers.get_or_insert_with(Instant::now);
        let wake = known.stretches.arrived(stretch, came);
        drop(known);
        wake.iter().for_each(|wake| wake.notify_waiters());
        self.memory.settle();
    }

    /// The upstream does not say what it is asked.
    pub(super) fn failed(&self) {
        self.known.lock().answers = None;
    }

    /// Whether the upstream may know an id that the log does not hold. One that is written as those of logs are was given by
    /// another process, if not by an ssegate behind.
    fn asks_for(&self, id: &str) -> bool {
        match self.takes {
            Takes::None => false,
            Takes::Any => is_sound(id),
            Takes::Own => is_sound(id) && !is_of_a_log(id),
        }
    }

    fn leads(&self, known: &mut Known, id: &str, until: Offset) -> Sought {
        let number = known.table.number(id).or_else(|| known.stretches.place(id, &self.memory));
        match number {
            Some(number) => Sought::Leads { to: number.into(), gap: None },
            None => Sought::Leads { to: until, gap: Some(Reason::ReplayLimit) },
        }
    }
}

impl IdCodec for Ids {
    fn encode(&self, position: &Position, out: &mut String) {
        let number = position.next(0);
        let known = self.known.lock();
        match known.id_at(number) {
            Some(id) => out.push_str(id),
            None => self.own.encode(&Position::new(vec![number.saturating_sub(FIRST)]), out),
        }
    }

    fn decode(&self, id: &str) -> Decoded {
        let mut known = self.known.lock();
        let mut number = known.table.number(id);
        if number.is_none() {
            match self.own.decode(id) {
                Decoded::Position(own) => number = Some(FIRST.saturating_add(own.next(0))),
                Decoded::Unknown if self.asks_for(id) => number = known.stretches.place(id, &self.memory),
                other => return other,
            }
        }
        number.map_or(Decoded::Unknown, |number| Decoded::Position(Position::new(vec![number])))
    }

    fn forgets(&self, floor: &Position) {
        let mut known = self.known.lock();
        known.table.let_go(floor.next(0), Instant::now());
    }

    fn single_order(&self) -> bool {
        true
    }

    /// Not where the upstream tells that it went on without an event.
    fn counts(&self) -> bool {
        self.takes == Takes::None
    }

    /// Ids as the upstream gives them, that of the event before; or numbers of the log's own.
    fn bound(&self, position: &Position, _: &Position) -> Value {
        let (number, known) = (position.next(0), self.known.lock());
        match known.id_at(number) {
            Some(id) => json!(id),
            None => json!(number.checked_sub(FIRST)),
        }
    }
}

impl History for Ids {
    fn segment(&self, _: u32, from: Offset, until: Offset) -> Found<Sought> {
        let mut known = self.known.lock();
        let gap = |reason| Found::Here(Sought::Leads { to: until, gap: Some(reason) });
        if from.major >= FIRST {
            // Of what the log has let go.
            let id = known.table.id_at(from.major).filter(|id| self.asks_for(id)).map(str::to_owned);
            return match id {
                Some(id) => Found::Here(self.leads(&mut known, &id, until)),
                None => gap(Reason::Evicted),
            };
        }
        match known.stretches.at(from.major) {
            Place::Segment(segment) => Found::Here(Sought::Segment(segment)),
            Place::End(End::After(id)) => Found::Here(self.leads(&mut known, text(&id), until)),
            Place::End(End::Gap(reason)) => gap(reason),
            Place::Gone => gap(Reason::ReplayLimit),
            Place::Wait(wake, ask) => {
                if ask && let Some(ids) = self.this.upgrade() {
                    // It fails when the upstream is served no more, and so are its readers.
                    let _ = self.jobs.send((ids, from.major));
                }
                Found::Wait(wake)
            }
        }
    }

    /// Nobody can be asked where the source begins and where it ends: only what follows an id.
    fn ask(&self, _: &Question, _: Instant) -> Found<Answer> {
        let unknown = Position::default();
        Found::Here(Answer { from: unknown.clone(), oldest: unknown.clone(), end: unknown, born: None })
    }

    fn is_asked(&self) -> bool {
        false
    }

    fn answers_since(&self) -> Option<Instant> {
        let known = self.known.lock();
        known.answers.filter(|_| known.parked == 0)
    }

    fn counts(&self) -> bool {
        false
    }

    /// Nor can all of it be read that lies before.
    fn scan(&self, _: &Position, into: Arc<Newest>) {
        into.is_whole();
    }

    fn reset(&self) {}
}

impl Reclaim for Ids {
    fn held(&self) -> usize {
        let known = self.known.lock();
        known.table.spare() + known.stretches.held()
    }

    fn reclaim(&self, bytes: usize) -> usize {
        let mut known = self.known.lock();
        let given = known.table.reclaim();
        given + known.stretches.reclaim(bytes.saturating_sub(given))
    }
}

impl Known {
    fn id_at(&self, number: u64) -> Option<&str> {
        if number < FIRST { self.stretches.id_at(number) } else { self.table.id_at(number) }
    }
}

impl std::fmt::Debug for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ids").field("path", &self.path).field("takes", &self.takes).finish_non_exhaustive()
    }
}

/// Whether it is written as the ids of logs without any of their upstream's: `epoch-seq`.
fn is_of_a_log(id: &str) -> bool {
    id.split_once('-').is_some_and(|(epoch, seq)| {
        epoch.len() == 16
            && epoch.bytes().all(|b| b.is_ascii_hexdigit())
            && !seq.is_empty()
            && seq.bytes().all(|b| b.is_ascii_digit())
    })
}
