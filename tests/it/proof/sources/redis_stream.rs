//! A Redis stream on a server that keeps what it acknowledged, whatever happens to it; some routes keep nearly nothing
//! in memory. What it holds in the end, or held before some of it was taken away, is what was published.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use redis::cmd;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::redis_line::Line;
use crate::proof::faults::{Fault, Kind};
use crate::proof::harm::harm;
use crate::proof::replicas::Replicas;
use crate::proof::source::{Pen, Published, Source, View, all_and_short};
use crate::proof::verdict::placed::{Offset, Place, Placed};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::wait::eventually;

/// One stream on a server of its own; the first replica reads it through a proxy.
pub struct RedisStream {
    redis: Redis,
    link: Proxy,
    published: Placed,
    /// The newest entry that has been noted.
    read: Offset,
    /// Before what place entries were taken away.
    low: Offset,
    /// Whether what is read next is the first of a new stream.
    anew: bool,
}

/// Of a pipeline that breaks, what is stored is found in the stream.
pub struct StreamPen {
    line: Line,
    /// Whether the stream is to be made anew by what is published next.
    anew: bool,
    /// Where the server said that it had stored a number.
    stored: HashMap<u64, Offset>,
}

impl Source for RedisStream {
    const NAME: &'static str = "redis-stream";
    const MENU: &'static [(Kind, usize)] = &[
        (Kind::BrokerKilled, 4),
        (Kind::BrokerStopped, 3),
        (Kind::LinkReset, 4),
        (Kind::LinkSilent, 3),
        (Kind::ReplicaKilled, 5),
        (Kind::Trimmed, 4),
        (Kind::TrimmedBehind, 3),
        (Kind::Recreated, 3),
    ];
    const NUMBERS: (u64, u64) = (60_000, 800);

    type Pen = StreamPen;

    async fn start() -> Option<Self> {
        let redis = Redis::start_durable().await;
        let link = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await;
        let published = Placed { eras: 1, ..Placed::default() };
        Some(Self { redis, link, published, read: (0, 0), low: (0, 0), anew: false })
    }

    fn config(&self, replica: usize) -> String {
        let url = if replica == 0 { format!("redis://{}", self.link.addr()) } else { self.redis.url() };
        let routes =
            all_and_short(&format!("from: {{ upstream: up, stream: {STREAM} }}, data: \"{{field.n}}\""));
        format!(
            "\nupstreams: {{ up: {{ redis: {{ url: \"{url}\", ping_interval: 200ms, timeout: 1s }} }} }}{routes}"
        )
    }

    fn views(&self) -> Vec<View> {
        View::all_and_short(8)
    }

    async fn pen(&self) -> StreamPen {
        StreamPen { line: Line::new(&self.redis), anew: false, stored: HashMap::new() }
    }

    async fn suffer(&mut self, fault: Fault, pen: &Mutex<StreamPen>, _: &Replicas) {
        match fault {
            Fault::Trimmed(part) => self.trim(part).await,
            Fault::TrimmedBehind => {
                self.link.pause();
                sleep(Duration::from_secs(1)).await;
                self.trim(1.0).await;
                self.link.cut_all();
                self.link.resume();
            }
            Fault::Recreated => self.recreate(pen).await,
            other => harm(&mut self.redis, &self.link, other).await,
        }
    }

    async fn until_settled(&self) {}

    async fn conclude(&mut self, pen: StreamPen) -> Published {
        self.read_on().await;
        for (number, stored) in &pen.stored {
            let place = self.published.places.get(number).map(|place| place.offset);
            assert_eq!(place, Some(*stored), "where {number} was stored");
        }
        // Between what was taken away last and what follows that there is nothing.
        let left = self.published.places.values().map(|place| place.offset).filter(|at| *at >= self.low);
        let low = left.min().unwrap_or(self.low);
        self.published.lows.insert((0, 0), low);
        Published::Placed(std::mem::take(&mut self.published))
    }
}

impl RedisStream {
    /// Takes away this part of what the stream is known to hold.
    async fn trim(&mut self, part: f64) {
        self.read_on().await;
        let mut held: Vec<_> = self.published.places.values().map(|place| place.offset).collect();
        held.retain(|at| *at >= self.low);
        held.sort_unstable();
        let gone = (held.len() as f64 * part) as usize;
        let Some(&last) = gone.checked_sub(1).and_then(|at| held.get(at)) else { return };
        self.low = (last.0, last.1 + 1);
        self.redis.command::<()>(cmd("XTRIM").arg(STREAM).arg("MINID").arg(show(self.low))).await;
    }

    /// What is published next is the first of a new stream, the ids of which go on after those of the old one.
    async fn recreate(&mut self, pen: &Mutex<StreamPen>) {
        let mut held = pen.lock().await;
        self.read_on().await;
        eventually("a later millisecond", async || {
            let (seconds, micros): (u64, u64) = self.redis.say("TIME").await;
            let now = seconds * 1_000 + micros / 1_000;
            if now > self.read.0 { Ok(()) } else { Err(now) }
        })
        .await;
        self.low = (self.read.0, self.read.1 + 1);
        (self.anew, held.anew) = (true, true);
        drop(held);
        eventually("the new stream", async || if pen.lock().await.anew { Err("not yet") } else { Ok(()) })
            .await;
    }

    /// Notes what has been added since this was asked last.
    async fn read_on(&mut self) {
        loop {
            let (from, mut range) = ((self.read.0, self.read.1 + 1), cmd("XRANGE"));
            range.arg(STREAM).arg(show(from)).arg("+").arg("COUNT").arg(AT_ONCE);
            let found: Vec<(String, Vec<(String, u64)>)> = self.redis.command(&range).await;
            let (Some((first, _)), Some((last, _))) = (found.first(), found.last()) else { return };
            if std::mem::take(&mut self.anew) {
                self.published.births.push(parse(first));
            }
            self.read = parse(last);
            for (id, fields) in found {
                let place = Place { era: 0, partition: 0, offset: parse(&id) };
                let number = fields.into_iter().map(|(_, number)| number).next().expect("a number");
                assert_eq!(self.published.places.insert(number, place), None, "{number} is stored twice");
            }
        }
    }
}

impl Pen for StreamPen {
    async fn publish(&mut self, numbers: Range<u64>) {
        let mut batch = redis::pipe();
        if self.anew {
            // At once, so that nobody looks between.
            batch.atomic().del(STREAM).ignore();
        }
        for number in numbers.clone() {
            batch.cmd("XADD").arg(STREAM).arg("*").arg("n").arg(number);
        }
        match self.line.query::<Vec<String>>(&batch).await {
            Ok(ids) => {
                self.anew = false;
                self.stored.extend(numbers.zip(ids.iter().map(|id| parse(id))));
            }
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

fn show((millis, seq): Offset) -> String {
    format!("{millis}-{seq}")
}

/// The place of the entry of this id.
pub fn parse(id: &str) -> Offset {
    let (millis, seq) = id.split_once('-').expect("an id");
    (millis.parse().expect("a number"), seq.parse().expect("a number"))
}

const STREAM: &str = "numbers";
/// How many entries are read at a time.
const AT_ONCE: usize = 10_000;
