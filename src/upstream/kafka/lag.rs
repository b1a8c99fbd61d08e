//! How far reading is behind the ends of partitions, by what librdkafka's statistics say of them: it learns the ends with
//! what it fetches, so that nobody has to ask.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::hub::{Mark, Position};
use crate::upstream::lag::Behind;

/// The ends of partitions at one moment, by topic.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Ends(HashMap<String, Vec<End>>);

/// The end of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    partition: u32,
    /// Behind the last record that consumers may see, once that is known.
    end: Option<u64>,
    /// Whether all up to there was handed over: what is left are the marks of transactions, say.
    drained: bool,
    /// When the broker that leads it was heard of last, if there is a link to it.
    heard: Option<SystemTime>,
}

impl End {
    /// Of a topic that is held: what was fetched ahead of it was not handed over.
    pub(super) fn undrained(self) -> Self {
        Self { drained: false, ..self }
    }
}

impl Ends {
    /// Reads librdkafka's statistics, which are as of now. `None` where they are not as they should be.
    pub(super) fn parse(statistics: &[u8]) -> Option<Self> {
        let Statistics { brokers, topics } = serde_json::from_slice(statistics).ok()?;
        let now = SystemTime::now();
        let heard = |broker: &Broker| {
            let idle = Duration::from_micros(u64::try_from(broker.rxidle).ok()?);
            now.checked_sub(idle).filter(|_| broker.state == "UP").map(|at| (broker.nodeid, at))
        };
        // One may stand for several links to the same.
        let mut newest = HashMap::<i32, SystemTime>::new();
        for (broker, at) in brokers.values().filter_map(heard) {
            newest.entry(broker).and_modify(|newest| *newest = at.max(*newest)).or_insert(at);
        }
        let end = |partition: &Partition| {
            let end = u64::try_from(partition.ls_offset).or(u64::try_from(partition.hi_offset)).ok();
            let next = u64::try_from(partition.next_offset).ok();
            Some(End {
                partition: u32::try_from(partition.partition).ok()?,
                end,
                drained: partition.fetchq_cnt == 0 && next.zip(end).is_none_or(|(next, end)| next >= end),
                heard: newest.get(&partition.leader).copied(),
            })
        };
        let ends = |topic: Topic| topic.partitions.values().filter_map(end).collect();
        Some(Self(topics.into_iter().map(|(name, topic)| (name, ends(topic))).collect()))
    }

    /// Those of a topic.
    pub(super) fn of(&self, topic: &str) -> &[End] {
        self.0.get(topic).map_or(&[], Vec::as_slice)
    }
}

/// How reading the partitions of one topic goes on.
#[derive(Debug)]
pub(super) struct Progress {
    began: SystemTime,
    partitions: Vec<At>,
}

#[derive(Debug, Clone, Copy)]
struct At {
    /// When the newest record that was read was published.
    published: SystemTime,
    /// When its broker was heard of last.
    heard: SystemTime,
}

impl Progress {
    /// Nothing was read so far.
    pub(super) fn begins() -> Self {
        Self { began: SystemTime::now(), partitions: Vec::new() }
    }

    /// A record was read that was published then.
    pub(super) fn read(&mut self, mark: Mark, published: Option<SystemTime>) {
        if let Some(published) = published {
            self.at(mark.partition).published = published;
        }
    }

    fn at(&mut self, partition: u32) -> &mut At {
        let (index, first) = (partition as usize, At { published: self.began, heard: self.began });
        if self.partitions.len() <= index {
            self.partitions.resize(index + 1, first);
        }
        &mut self.partitions[index]
    }

    /// How far the topic is behind that was read up to `next`.
    pub(super) fn behind(&mut self, next: &Position, ends: &[End], now: SystemTime) -> Behind {
        let mut behind = Behind::default();
        for end in ends.iter().filter(|end| (end.partition as usize) < next.as_slice().len()) {
            let at = self.at(end.partition);
            at.heard = end.heard.unwrap_or(at.heard);
            let left = end.end.unwrap_or(0).saturating_sub(next.next(end.partition));
            let since = match left {
                1.. if !end.drained => {
                    behind.records += left;
                    Some(at.published)
                }
                _ => Some(at.heard).filter(|heard| *heard + SILENT < now),
            };
            behind.since = [behind.since, since].into_iter().flatten().min();
        }
        behind
    }
}

/// How long a broker that has nothing to tell may say nothing: it answers each fetch within half a second.
const SILENT: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: HashMap<String, Broker>,
    #[serde(default)]
    topics: HashMap<String, Topic>,
}

#[derive(Deserialize)]
struct Broker {
    nodeid: i32,
    state: String,
    rxidle: i64,
}

#[derive(Deserialize)]
struct Topic {
    partitions: HashMap<String, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    partition: i64,
    leader: i32,
    fetchq_cnt: i64,
    next_offset: i64,
    hi_offset: i64,
    ls_offset: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(rxidle: i64, partitions: &str) -> Ends {
        let text = format!(
            r#"{{ "name": "x", "brokers": {{ "k:1/1": {{ "nodeid": 1, "state": "UP", "rxidle": {rxidle}, "tx": 5 }} }},
                "topics": {{ "t": {{ "topic": "t", "partitions": {{ {partitions} }} }} }} }}"#
        );
        Ends::parse(text.as_bytes()).unwrap()
    }

    fn partition(id: i64, (fetchq_cnt, next, end): (i64, i64, i64)) -> String {
        format!(
            r#""{id}": {{ "partition": {id}, "leader": 1, "fetchq_cnt": {fetchq_cnt}, "next_offset": {next},
                "hi_offset": {end}, "ls_offset": {end}, "desired": true }}"#
        )
    }

    #[test]
    fn records_and_time_behind_the_end() {
        let now = SystemTime::now();
        let ago = |seconds| now - Duration::from_secs(seconds);
        let mut progress = Progress::begins();
        for (partition, seconds) in [(0, 40), (1, 90)] {
            progress.read(Mark::new(partition, 10), Some(ago(seconds)));
        }
        let next = Position::new(vec![10, 10]);
        let mut behind = |rxidle, first, second| {
            // Internal ones have the number -1.
            let all = [partition(-1, (0, -1001, -1001)), partition(0, first), partition(1, second)];
            progress.behind(&next, statistics(rxidle, &all.join(",")).of("t"), now)
        };
        let is = |records, since| Behind { records, since };
        assert_eq!(behind(0, (0, 10, 10), (0, 10, 10)), is(0, None));
        assert_eq!(behind(0, (3, 13, 15), (0, 10, 10)), is(5, Some(ago(40))));
        assert_eq!(behind(0, (3, 13, 15), (1, 11, 11)), is(6, Some(ago(90))), "the longest time of any");
        assert_eq!(
            behind(0, (0, 11, 11), (0, 10, 10)),
            is(0, None),
            "what is left is the mark of a transaction"
        );
        assert_eq!(behind(0, (0, 10, 12), (0, 10, 10)).records, 2, "not even fetched");
        assert_eq!(behind(0, (0, -1001, -1001), (0, 10, 10)), is(0, None), "its end is not known yet");
        assert!(
            behind(30_000_000, (0, 10, 10), (0, 10, 10)).since.unwrap() < ago(29),
            "a broker that says nothing"
        );
        assert!(behind(-1, (0, 10, 10), (0, 10, 10)).since.unwrap() < ago(29), "or is not linked to");
        assert_eq!(behind(0, (0, 10, 10), (0, 10, 10)), is(0, None));
        assert_eq!(Ends::parse(b"{"), None);
        assert!(Ends::parse(b"{}").unwrap().of("t").is_empty());
    }
}
