//! What arrived: every event checked against the numbers that were published.

use std::collections::BTreeMap;
use std::ops::Range;

use hdrhistogram::Histogram;

/// Counts over all clients.
pub struct Tally {
    /// Numbered events that came for the first time.
    pub delivered: u64,
    /// Bytes that were read off the sockets.
    pub bytes: u64,
    /// Bytes of bodies, as they came.
    pub body: u64,
    /// Bytes of bodies, once their coding was undone.
    pub plain: u64,
    /// Numbered events that came again.
    pub repeated: u64,
    /// Numbered events that came after a later one.
    pub disordered: u64,
    /// Events that carry no number of ours.
    pub foreign: u64,
    /// Gap events by reason.
    pub gaps: BTreeMap<String, u64>,
    /// Events that gap events said were missed.
    pub announced: u64,
    /// Connections that ended before they were meant to, by reason.
    pub ended: BTreeMap<String, u64>,
    /// From publishing to arrival, in microseconds.
    pub latency: Histogram<u64>,
    /// The number of each event and when it arrived, if that is to be kept.
    pub arrivals: Option<Vec<(u64, u64)>>,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, 120_000_000, 3).expect("the bounds are valid");
        Self {
            delivered: 0,
            bytes: 0,
            body: 0,
            plain: 0,
            repeated: 0,
            disordered: 0,
            foreign: 0,
            gaps: BTreeMap::new(),
            announced: 0,
            ended: BTreeMap::new(),
            latency,
            arrivals: None,
        }
    }

    /// Counts deliveries and their latency anew: what came before was for warming up.
    pub fn begin(&mut self) {
        (self.delivered, self.bytes, self.body, self.plain) = (0, 0, 0, 0);
        self.latency.reset();
        self.arrivals.iter_mut().for_each(Vec::clear);
    }

    /// An event that was published at `at` arrived at `now`, both in nanoseconds since the epoch.
    pub fn arrived(&mut self, seq: u64, at: u64, now: u64) {
        self.delivered += 1;
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.push((seq, now));
        }
        self.latency.saturating_record(now.saturating_sub(at) / 1_000);
    }

    /// A gap event came, with this JSON as its data.
    pub fn gap(&mut self, data: &[u8]) {
        let data: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
        let reason = data["reason"].as_str().unwrap_or("unreadable").to_owned();
        *self.gaps.entry(reason).or_default() += 1;
        self.announced += data["missed"].as_u64().unwrap_or(0);
    }
}

/// The numbers that one client has seen: all below `next` but those in `holes`.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    next: u64,
    holes: Vec<Range<u64>>,
}

/// How a number stands to those seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// New, and later than all others.
    InOrder,
    /// New, but a later one was seen before.
    Late,
    /// Seen before.
    Repeated,
}

impl Seen {
    /// All numbers below this one.
    pub fn below(next: u64) -> Self {
        Self { next, holes: Vec::new() }
    }

    /// Takes note of a number.
    pub fn note(&mut self, seq: u64) -> Fresh {
        if seq >= self.next {
            if seq > self.next {
                self.holes.push(self.next..seq);
            }
            self.next = seq + 1;
            return Fresh::InOrder;
        }
        let Some(at) = self.holes.iter().position(|hole| hole.contains(&seq)) else { return Fresh::Repeated };
        let hole = self.holes.swap_remove(at);
        self.holes.extend([hole.start..seq, seq + 1..hole.end].into_iter().filter(|part| !part.is_empty()));
        Fresh::Late
    }

    /// How many of the numbers below `end` were not seen.
    pub fn missing(&self, end: u64) -> u64 {
        let holes: u64 = self.holes.iter().map(|hole| hole.end - hole.start).sum();
        holes + end.saturating_sub(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_repeats_and_disorder_are_told_apart() {
        let mut seen = Seen::default();
        let noted: Vec<_> = [0, 1, 4, 3, 3, 4, 9].map(|seq| seen.note(seq)).to_vec();
        use Fresh::{InOrder, Late, Repeated};
        assert_eq!(noted, [InOrder, InOrder, InOrder, Late, Repeated, Repeated, InOrder]);
        // 2, 5, 6, 7, 8 and 10, 11.
        assert_eq!(seen.missing(12), 7);
    }
}
