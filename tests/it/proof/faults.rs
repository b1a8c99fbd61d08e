//! The script: which faults, in which order, with which pauses. All of it comes from one seed.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// SIGKILL for the broker, which is down for so long, and then started again.
    BrokerKilled(Duration),
    /// The broker is stopped for so long: its connections stay open.
    BrokerStopped(Duration),
    /// Every connection of one replica to the broker is reset.
    LinkReset,
    /// Nothing gets through between one replica and the broker for so long.
    LinkSilent(Duration),
    /// SIGKILL for this replica, which is down for so long, and then started again on the same port.
    ReplicaKilled(usize, Duration),
    /// The oldest records of each partition are deleted: this part of what it holds.
    Trimmed(f64),
    /// All that the source holds is deleted, while one replica is cut off from the broker and has not read the newest.
    TrimmedBehind,
    /// Retention takes everything that the source holds.
    Expired,
    /// Retention is shortened for a while, and takes the oldest segments.
    Shortened,
    /// The source gets one more partition.
    Widened,
    /// The source is deleted and created again.
    Recreated,
}

/// A kind of fault, to be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    BrokerKilled,
    BrokerStopped,
    LinkReset,
    LinkSilent,
    ReplicaKilled,
    Trimmed,
    TrimmedBehind,
    Expired,
    Shortened,
    Widened,
    Recreated,
}

/// One fault of a script, and how long all is well before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The pause before.
    pub pause: Duration,
    /// The fault.
    pub fault: Fault,
}

/// Draws a script with so many faults of each kind.
pub fn script(seed: u64, menu: &[(Kind, usize)]) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut kinds: Vec<_> = menu.iter().flat_map(|&(kind, count)| std::iter::repeat_n(kind, count)).collect();
    kinds.shuffle(&mut random);
    kinds
        .into_iter()
        .map(|kind| Step { pause: millis(&mut random, 200, 1_500), fault: kind.draw(&mut random) })
        .collect()
}

impl Kind {
    fn draw(self, random: &mut StdRng) -> Fault {
        match self {
            Self::BrokerKilled => Fault::BrokerKilled(millis(random, 0, 1_000)),
            Self::BrokerStopped => Fault::BrokerStopped(millis(random, 100, 3_000)),
            Self::LinkReset => Fault::LinkReset,
            Self::LinkSilent => Fault::LinkSilent(millis(random, 100, 3_000)),
            Self::ReplicaKilled => Fault::ReplicaKilled(random.random_range(0..2), millis(random, 0, 1_500)),
            Self::Trimmed => Fault::Trimmed([0.5, 0.9, 1.0][random.random_range(0..3)]),
            Self::TrimmedBehind => Fault::TrimmedBehind,
            Self::Expired => Fault::Expired,
            Self::Shortened => Fault::Shortened,
            Self::Widened => Fault::Widened,
            Self::Recreated => Fault::Recreated,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {:?}: {:?}", self.pause, self.fault)
    }
}

fn millis(random: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.random_range(from..to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_script() {
        let menu = [(Kind::ReplicaKilled, 9), (Kind::LinkReset, 9), (Kind::Recreated, 1)];
        assert_eq!(script(1, &menu), script(1, &menu));
        assert_ne!(script(1, &menu), script(2, &menu));
        assert_eq!(script(1, &menu).len(), 19);
    }
}
