//! How fast one reader is given events, where a route caps that: in each window of time so many, and the others are left
//! out for it. It is no gap, as the route wants it so; what happened to the source itself is never left out.

use bytes::Bytes;
use tokio::time::Instant;

use super::chunk::Seq;
use super::cursor::{Read, View};
use crate::config::EventRate;

/// One reader's share.
#[derive(Debug)]
pub struct Pace {
    rate: EventRate,
    /// When the window began, and how many events were given in it.
    window: Option<(Instant, u64)>,
    /// Events that were left out, and not counted yet.
    left_out: u64,
}

impl Pace {
    /// That of a reader that has been given nothing.
    pub fn new(rate: EventRate) -> Self {
        Self { rate, window: None, left_out: 0 }
    }

    /// How many events it may be given now.
    pub fn room(&mut self, now: Instant) -> u64 {
        let (began, given) = *self.window.get_or_insert((now, 0));
        if now.duration_since(began) >= self.rate.every {
            self.window = Some((now, 0));
            return self.rate.events;
        }
        self.rate.events.saturating_sub(given)
    }

    /// Whether it may be given one more now; else that is left out.
    pub fn admits(&mut self, now: Instant) -> bool {
        let admits = self.room(now) > 0;
        self.left_out += u64::from(!admits);
        admits
    }

    /// It was given so many.
    pub fn gave(&mut self, events: usize) {
        self.window.iter_mut().for_each(|(_, given)| *given += events as u64);
    }

    /// What the reader before entry `next` is given, where that is not all there is: a part of it, or nothing, and it goes
    /// past the rest. `None` if it may have the next `events`.
    pub fn limit(&mut self, next: &mut Seq, events: usize, view: &mut View<'_>, max: usize) -> Option<Read> {
        let room = self.room(view.now);
        if events as u64 <= room {
            self.gave(events);
            return None;
        }
        if room == 0 {
            return Some(self.pass(next, view));
        }
        let (chunk, place) = view.ring.find(*next)?;
        let end = chunk.entries.len().min(place + usize::try_from(room).unwrap_or(usize::MAX));
        let end = end.min((view.reached - chunk.first) as usize);
        let end = chunk.fitting(place, end, max).max(place + 1);
        let bytes = chunk.bytes.slice(chunk.offset(place)..chunk.offset(end));
        let (events, times, taken) = (end - place, Some(chunk.times()), chunk.taken_before(end));
        view.ring.passed(taken);
        *next += events as Seq;
        self.gave(events);
        Some(Read::Slice { bytes, events, times, forms: None })
    }

    /// Goes past all that readers have been woken for, but for gaps of the source.
    fn pass(&mut self, next: &mut Seq, view: &mut View<'_>) -> Read {
        let mut notes: Vec<Bytes> = Vec::new();
        let from = *next;
        while *next < view.reached
            && let Some((chunk, place)) = view.ring.find(*next)
        {
            let end = chunk.entries.len().min((view.reached - chunk.first) as usize);
            let told = (place..end).filter(|&at| chunk.entries[at].note);
            notes.extend(told.map(|at| chunk.event(at)));
            *next = chunk.first + end as Seq;
            let taken = chunk.taken_before(end);
            view.ring.passed(taken);
        }
        let left_out = *next - from - notes.len() as Seq;
        if notes.is_empty() {
            return Read::LeftOut(left_out);
        }
        self.leave_out(left_out);
        Read::Pieces { events: notes.len(), bytes: notes, times: None }
    }

    /// So many were left out for it, to be counted with the next read.
    pub fn leave_out(&mut self, events: u64) {
        self.left_out += events;
    }

    /// Events that were left out, and are to be counted now.
    pub fn take_left_out(&mut self) -> Option<Read> {
        (self.left_out > 0).then(|| Read::LeftOut(std::mem::take(&mut self.left_out)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::super::cursor::{Cursor, Terms, Wish};
    use super::super::gap::Reason;
    use super::super::id::{Epoch, EpochCodec};
    use super::super::position::Position;
    use super::super::testing::{ROOM, TERMS, Text, log};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_beyond_the_rate_is_left_out_and_gaps_of_the_source_are_not() {
        let log = log(ROOM);
        log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        let rate = Some(EventRate { events: 3, every: Duration::from_secs(1) });
        let mut cursor = Cursor::new(Wish::default(), Terms { rate, ..TERMS });
        let mut read = |max| log.read(&mut cursor, max);
        assert!(matches!(read(1_000), Read::Control { .. }));
        let append = |events: usize| _ = log.append((0..events).map(|_| (None, Text("text"))));
        append(5);
        let lost = log.append_link_lost((SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH));
        assert_eq!(lost.gaps, [Reason::UpstreamLost]);
        append(2);
        let Read::Slice { bytes, events: 3, .. } = read(1_000) else { panic!("three of five") };
        assert!(str::from_utf8(&bytes).unwrap().ends_with("-3\n\n"));
        let Read::Pieces { bytes, events: 1, .. } = read(1_000) else { panic!("the gap alone") };
        assert!(str::from_utf8(&bytes[0]).unwrap().contains("upstream_lost"));
        assert!(matches!(read(1_000), Read::LeftOut(4)));
        assert!(matches!(read(1_000), Read::Pending));
        append(1);
        assert!(matches!(read(1_000), Read::LeftOut(1)));
        let told = log.moved_on(&mut cursor).expect("its position has moved");
        assert!(str::from_utf8(&told).unwrap().ends_with("-9\n\n"));

        tokio::time::advance(Duration::from_secs(1)).await;
        append(2);
        assert!(matches!(log.read(&mut cursor, 1_000), Read::Slice { events: 2, .. }));
        append(1);
        let one = log.read(&mut cursor, 1_000);
        assert!(
            matches!(one, Read::Slice { events: 1, forms: Some(_), .. }),
            "shared with all others: {one:?}"
        );
    }
}
