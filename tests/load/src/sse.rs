//! Reads events from the bytes of a stream, no more than the tool needs to know: the number and the time in
//! each payload, gaps, the first position, and the id to go on after.

use memchr::{memchr, memmem};

use crate::decode::Decoder;
use crate::payload::Stamp;
use crate::tally::{Fresh, Seen, Tally};

/// One client of a stream.
#[derive(Default)]
pub struct Subscriber {
    /// What it asks for, where that is not what all do.
    pub path: Option<Box<str>>,
    /// The number of the feed that it reads, where there are several.
    pub feed: u64,
    /// The id of the last event that came whole; sent along when it connects.
    pub id: Vec<u8>,
    /// What it has seen, in each lane.
    pub seen: Vec<Seen>,
    /// Whether anything of the body has come.
    pub begun: bool,
    /// Whether the server has told where the stream begins: what is published from now on has to arrive.
    pub joined: bool,
    /// Places that it came past, if they are to be noted.
    pub trail: Option<Box<Trail>>,
    /// Undoes the coding that it asked for.
    pub decoder: Decoder,
    /// The id of the event that is coming in.
    coming: Vec<u8>,
    /// The line that is not complete yet.
    part: Vec<u8>,
    event: Event,
}

/// Every so many events, where one could go on after them.
#[derive(Debug)]
pub struct Trail {
    /// How many events lie between two places.
    pub stride: u64,
    /// The ids, and what was seen by then.
    pub places: Vec<Place>,
    /// Events that came.
    pub events: u64,
}

/// An id, and what one who has it has seen.
pub type Place = (Vec<u8>, Vec<Seen>);

/// The event whose lines are coming in.
#[derive(Debug, Default)]
enum Event {
    #[default]
    None,
    Message(Stamp),
    Foreign,
    Named,
    Position,
    Gap(Vec<u8>),
}

impl Subscriber {
    /// One that asks for this, the feed with this number.
    pub fn of(feed: u64, path: String) -> Self {
        Self { path: Some(path.into()), feed, ..Self::default() }
    }

    /// One that has seen this, and goes on after the event with this id.
    pub fn after((id, seen): Place) -> Self {
        Self { id, seen, ..Self::default() }
    }

    /// The same client, about to connect again.
    pub fn again(self) -> Self {
        Self { path: self.path, feed: self.feed, ..Self::after((self.id, self.seen)) }
    }

    /// How many of the numbers below `ends`, one for each lane, it has not seen.
    pub fn missing(&self, ends: &[u64]) -> u64 {
        let lanes = ends.iter().enumerate();
        lanes.map(|(lane, &end)| self.seen.get(lane).map_or(end, |seen| seen.missing(end))).sum()
    }

    /// Takes in a piece of the body that arrived at `now`, in nanoseconds since the epoch.
    ///
    /// # Errors
    /// Where it is not in the coding that was asked for.
    pub fn receive(&mut self, piece: &[u8], now: u64, tally: &mut Tally) -> anyhow::Result<()> {
        tally.body += piece.len() as u64;
        let mut decoder = std::mem::take(&mut self.decoder);
        let outcome = decoder.feed(piece, |plain| self.feed(plain, now, tally));
        self.decoder = decoder;
        outcome
    }

    /// Takes in what a piece stands for.
    fn feed(&mut self, mut bytes: &[u8], now: u64, tally: &mut Tally) {
        self.begun = true;
        tally.plain += bytes.len() as u64;
        if !self.part.is_empty() {
            let Some(end) = memchr(b'\n', bytes) else { return self.part.extend_from_slice(bytes) };
            let mut line = std::mem::take(&mut self.part);
            line.extend_from_slice(&bytes[..end]);
            self.line(&line, now, tally);
            bytes = &bytes[end + 1..];
        }
        while let Some(end) = memchr(b'\n', bytes) {
            self.line(&bytes[..end], now, tally);
            bytes = &bytes[end + 1..];
        }
        self.part.extend_from_slice(bytes);
    }

    fn line(&mut self, line: &[u8], now: u64, tally: &mut Tally) {
        if line.is_empty() || line == b"\r" {
            return self.dispatch(now, tally);
        }
        if let Some(name) = line.strip_prefix(b"event: ") {
            self.event = if name.ends_with(b".gap") {
                Event::Gap(Vec::new())
            } else if name.ends_with(b".position") {
                Event::Position
            } else {
                Event::Named
            };
        } else if let Some(id) = line.strip_prefix(b"id: ") {
            self.coming.clear();
            self.coming.extend_from_slice(id);
        } else if let Some(data) = line.strip_prefix(b"data: ") {
            match &mut self.event {
                Event::None => self.event = Stamp::read(data).map_or(Event::Foreign, Event::Message),
                Event::Gap(gap) => gap.extend_from_slice(data),
                _ => {}
            }
        }
    }

    fn dispatch(&mut self, now: u64, tally: &mut Tally) {
        if !self.coming.is_empty() {
            std::mem::swap(&mut self.id, &mut self.coming);
            self.coming.clear();
        }
        match std::mem::take(&mut self.event) {
            Event::None | Event::Named => {}
            Event::Position => self.joined = true,
            Event::Foreign => tally.foreign += 1,
            Event::Gap(data) => tally.gap(&data),
            Event::Message(stamp) => self.note(stamp, now, tally),
        }
    }

    fn note(&mut self, stamp: Stamp, now: u64, tally: &mut Tally) {
        let lane = (stamp.seq / LANE) as usize;
        if self.seen.len() <= lane {
            self.seen.resize_with(lane + 1, Seen::default);
        }
        match self.seen[lane].note(stamp.seq % LANE) {
            Fresh::InOrder => tally.arrived(stamp.seq, stamp.at, now),
            Fresh::Late => {
                tally.disordered += 1;
                tally.arrived(stamp.seq, stamp.at, now);
            }
            Fresh::Repeated => tally.repeated += 1,
        }
        if let Some(trail) = &mut self.trail {
            trail.events += 1;
            if trail.events.is_multiple_of(trail.stride) {
                trail.places.push((self.id.clone(), self.seen.clone()));
            }
        }
    }
}

/// Numbers of one lane, which have an order: those of one partition, say. Lane 1 begins with this number.
pub const LANE: u64 = 1 << 40;

/// Where the blank line that ends a head ends.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::payload;

    #[test]
    fn events_are_found_however_they_are_cut() {
        let stream = format!(
            ":\n\nretry: 3000\n\nevent: stream.position\ndata: {{}}\nid: a-0\n\ndata: {}\nid: a-1\n\n\
             event: stream.gap\ndata: {{\"reason\":\"lagged\",\"missed\":2}}\n\ndata: {}\nid: a-4\n\ndata: hi\n\n",
            payload(0, 1_000, 200),
            payload(3, 2_000, 200),
        );
        for cut in 0..stream.len() {
            let (mut subscriber, mut tally) = (Subscriber::default(), Tally::new());
            let (first, second) = stream.as_bytes().split_at(cut);
            subscriber.feed(first, 5_000, &mut tally);
            subscriber.feed(second, 5_000, &mut tally);
            assert!(subscriber.joined);
            assert_eq!((tally.delivered, tally.repeated, tally.foreign, tally.announced), (2, 0, 1, 2));
            assert_eq!((tally.gaps["lagged"], subscriber.missing(&[4])), (1, 2));
            assert_eq!(subscriber.id, b"a-4", "what follows has none");
        }
    }
}
