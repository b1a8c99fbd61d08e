//! What readers of one log wait for: places to read on from, and answers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use crate::hub::{Answer, Offset, Question};

/// The places that are wanted, and the partitions that are being read.
#[derive(Default)]
pub(super) struct Places {
    wanted: BTreeMap<(u32, Offset), Place>,
    busy: HashSet<u32>,
    /// Where the newest read of a partition ended: the next goes on from there, as a lift does, so that a range that
    /// many want is read once from its beginning to its end.
    ended: HashMap<u32, Offset>,
    turn: u32,
}

struct Place {
    until: Offset,
    arrived: Arc<Notify>,
}

impl Places {
    /// Notes that somebody wants to read on from here. Returns what to wait for, and whether that is news.
    pub(super) fn want(&mut self, partition: u32, from: Offset, until: Offset) -> (OwnedNotified, bool) {
        let news = !self.wanted.contains_key(&(partition, from));
        let place =
            self.wanted.entry((partition, from)).or_insert_with(|| Place { until, arrived: Arc::default() });
        place.until = place.until.max(until);
        (Arc::clone(&place.arrived).notified_owned(), news)
    }

    /// Takes the next place to read from: the partitions take turns, and each is read by one at a time.
    pub(super) fn take(&mut self) -> Option<(u32, Offset, Offset)> {
        let partition = self.idle_from(self.turn).or_else(|| self.idle_from(0))?;
        self.turn = partition + 1;
        let of_it = (partition, Offset::default())..(partition + 1, Offset::default());
        let ended = self.ended.get(&partition).copied().unwrap_or_default();
        let onward = (partition, ended)..(partition + 1, Offset::default());
        let (&(_, from), place) =
            self.wanted.range(onward).next().or_else(|| self.wanted.range(of_it).next())?;
        self.busy.insert(partition);
        Some((partition, from, place.until))
    }

    /// The first partition from `first` on that is wanted and not being read.
    fn idle_from(&self, first: u32) -> Option<u32> {
        let mut at = first;
        loop {
            let (&(partition, _), _) = self.wanted.range((at, Offset::default())..).next()?;
            if !self.busy.contains(&partition) {
                return Some(partition);
            }
            at = partition + 1;
        }
    }

    /// A read has ended.
    pub(super) fn done(&mut self, partition: u32) {
        self.busy.remove(&partition);
    }

    /// How many partitions were read so far.
    pub(super) fn partitions(&self) -> usize {
        self.ended.len()
    }

    /// Whether more is wanted of a partition.
    pub(super) fn is_wanted(&self, partition: u32) -> bool {
        self.wanted.range((partition, Offset::default())..(partition + 1, Offset::default())).next().is_some()
    }

    /// What lies between `from` and `to` is there, and the next read is to go on after it. Whether anybody waits for it.
    pub(super) fn arrived(&mut self, partition: u32, from: Offset, to: Offset) -> bool {
        let there: Vec<_> =
            self.wanted.range((partition, from)..(partition, to)).map(|(place, _)| *place).collect();
        for place in &there {
            if let Some(place) = self.wanted.remove(place) {
                place.arrived.notify_waiters();
            }
        }
        self.ended.insert(partition, to);
        !there.is_empty()
    }

    /// Nothing that was wanted can be read any more.
    pub(super) fn clear(&mut self) {
        std::mem::take(&mut self.wanted).values().for_each(|place| place.arrived.notify_waiters());
        *self = Self::default();
    }
}

/// Questions, and the newest answer to each.
#[derive(Default)]
pub(super) struct Questions(HashMap<Question, Asked>);

#[derive(Default)]
struct Asked {
    waiting: bool,
    told: Option<(Instant, Answer)>,
    arrived: Arc<Notify>,
}

impl Questions {
    /// The answer, if there is one that was asked for at `after` or later. Otherwise what to wait for, and whether the
    /// question is news.
    pub(super) fn ask(
        &mut self,
        question: Question,
        after: Instant,
    ) -> Result<Answer, (OwnedNotified, bool)> {
        let asked = self.0.entry(question).or_default();
        match &asked.told {
            Some((at, answer)) if *at >= after => Ok(answer.clone()),
            _ => {
                let news = !std::mem::replace(&mut asked.waiting, true);
                Err((Arc::clone(&asked.arrived).notified_owned(), news))
            }
        }
    }

    /// Takes a question that waits for its answer, and forgets those of readers that have left.
    pub(super) fn take(&mut self) -> Option<Question> {
        self.0.retain(|_, asked| !asked.waiting || Arc::strong_count(&asked.arrived) > 1);
        let (question, asked) = self.0.iter_mut().find(|(_, asked)| asked.waiting)?;
        asked.waiting = false;
        Some(*question)
    }

    /// The question could not be answered, and waits again.
    pub(super) fn put_back(&mut self, question: &Question) {
        if let Some(asked) = self.0.get_mut(question) {
            asked.waiting = true;
        }
    }

    /// The answer to a question that was asked at this time.
    pub(super) fn told(&mut self, question: &Question, at: Instant, answer: Answer) {
        if let Some(asked) = self.0.get_mut(question) {
            asked.told = Some((at, answer));
            asked.arrived.notify_waiters();
        }
        if self.0.len() > REMEMBERED {
            self.0.retain(|_, asked| match &asked.told {
                Some((told, _)) => asked.waiting || at.saturating_duration_since(*told) < FORGOTTEN,
                None => true,
            });
        }
    }

    /// No answer holds any more.
    pub(super) fn clear(&mut self) {
        std::mem::take(&mut self.0).values().for_each(|asked| asked.arrived.notify_waiters());
    }
}

/// Answers beyond so many are forgotten after a while.
const REMEMBERED: usize = 256;
const FORGOTTEN: Duration = Duration::from_secs(10);
