//! Two Redis streams as one feed: even numbers in one and odd ones in the other, each with an order of its own and ids within
//! one id, whatever happens; some routes keep nearly nothing in memory. To the law each stream is a partition.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use redis::cmd;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::redis_line::Line;
use super::redis_stream::parse;
use crate::proof::faults::{Fault, Kind};
use crate::proof::harm::harm;
use crate::proof::replicas::Replicas;
use crate::proof::source::{Pen, Published, Source, View, all_and_short};
use crate::proof::verdict::placed::{Place, Placed};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;

/// Both on one server, which are two upstreams to ssegate; the first replica reads the second of them through a proxy.
pub struct TwoStreams {
    redis: Redis,
    link: Proxy,
}

/// Of a pipeline that breaks, what is stored is found in the streams.
pub struct StreamsPen(Line);

impl Source for TwoStreams {
    const NAME: &'static str = "two-streams";
    const MENU: &'static [(Kind, usize)] = &[
        (Kind::BrokerKilled, 3),
        (Kind::BrokerStopped, 2),
        (Kind::LinkReset, 4),
        (Kind::LinkSilent, 3),
        (Kind::ReplicaKilled, 5),
    ];
    const NUMBERS: (u64, u64) = (30_000, 800);

    type Pen = StreamsPen;

    async fn start() -> Option<Self> {
        let redis = Redis::start_durable().await;
        let link = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await;
        Some(Self { redis, link })
    }

    fn config(&self, replica: usize) -> String {
        let straight = self.redis.url();
        let other = if replica == 0 { format!("redis://{}", self.link.addr()) } else { straight.clone() };
        // Where a client is cut before it knows its place in one of them, that begins as without an id.
        let from = "from: [{ upstream: one, stream: even, start: earliest }, { upstream: two, stream: odd, start: earliest }]";
        let routes = all_and_short(&format!("{from}, data: \"{{field.n}}\""));
        format!(
            r#"
upstreams:
  one: {{ redis: {{ url: "{straight}", ping_interval: 200ms, timeout: 1s }} }}
  two: {{ redis: {{ url: "{other}", ping_interval: 200ms, timeout: 1s }} }}
{routes}"#
        )
    }

    fn views(&self) -> Vec<View> {
        View::all_and_short(8)
    }

    async fn pen(&self) -> StreamsPen {
        StreamsPen(Line::new(&self.redis))
    }

    async fn suffer(&mut self, fault: Fault, _: &Mutex<StreamsPen>, _: &Replicas) {
        harm(&mut self.redis, &self.link, fault).await;
    }

    async fn until_settled(&self) {}

    async fn conclude(&mut self, _: StreamsPen) -> Published {
        let mut places = HashMap::new();
        for (partition, stream) in STREAMS.into_iter().enumerate() {
            let range = cmd("XRANGE").arg(stream).arg("-").arg("+").take();
            let found: Vec<(String, Vec<(String, u64)>)> = self.redis.command(&range).await;
            for (id, fields) in found {
                let number = fields.into_iter().map(|(_, number)| number).next().expect("a number");
                let place = Place { era: 0, partition: partition as u32, offset: parse(&id) };
                assert_eq!(places.insert(number, place), None, "{number} is stored twice");
            }
        }
        Published::Placed(Placed { places, eras: 1, ..Placed::default() })
    }
}

impl Pen for StreamsPen {
    async fn publish(&mut self, numbers: Range<u64>) {
        let mut batch = redis::pipe();
        for number in numbers {
            batch.cmd("XADD").arg(STREAMS[(number % 2) as usize]).arg("*").arg("n").arg(number).ignore();
        }
        if self.0.query::<()>(&batch).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

const STREAMS: [&str; 2] = ["even", "odd"];
