//! A Redis channel: no history, so that it is judged by times.

use std::ops::Range;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;

use super::redis_line::Line;
use crate::proof::client::now;
use crate::proof::faults::{Fault, Kind};
use crate::proof::harm::harm;
use crate::proof::replicas::Replicas;
use crate::proof::source::{Pen, Published, Source, View};
use crate::proof::verdict::timed::{Sent, Timed};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;

/// One channel; the first replica reads it through a proxy.
pub struct RedisChannel {
    redis: Redis,
    link: Proxy,
}

/// What was published in one pipeline when it broke, nobody knows.
pub struct RedisPen {
    line: Line,
    sent: Timed,
}

impl Source for RedisChannel {
    const NAME: &'static str = "redis";
    const MENU: &'static [(Kind, usize)] = &[
        (Kind::BrokerKilled, 4),
        (Kind::BrokerStopped, 4),
        (Kind::LinkReset, 5),
        (Kind::LinkSilent, 5),
        (Kind::ReplicaKilled, 6),
    ];
    const NUMBERS: (u64, u64) = (60_000, 800);

    type Pen = RedisPen;

    async fn start() -> Option<Self> {
        let redis = Redis::start().await;
        let link = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await;
        Some(Self { redis, link })
    }

    fn config(&self, replica: usize) -> String {
        let url = if replica == 0 { format!("redis://{}", self.link.addr()) } else { self.redis.url() };
        format!(
            r#"
upstreams: {{ up: {{ redis: {{ url: "{url}", ping_interval: 200ms, timeout: 1s }} }} }}
defaults: {{ history: {{ events: 100000, bytes: 64MiB }} }}
routes: [ {{ path: /all, from: {{ upstream: up, channel: {CHANNEL} }} }} ]
"#
        )
    }

    fn views(&self) -> Vec<View> {
        vec![View::all("/all"); 8]
    }

    async fn pen(&self) -> RedisPen {
        RedisPen { line: Line::new(&self.redis), sent: Timed::default() }
    }

    async fn suffer(&mut self, fault: Fault, _: &Mutex<RedisPen>, _: &Replicas) {
        harm(&mut self.redis, &self.link, fault).await;
    }

    async fn until_settled(&self) {
        self.redis.until_subscribed(CHANNEL, 2).await;
    }

    async fn conclude(&mut self, pen: RedisPen) -> Published {
        Published::Timed(pen.sent)
    }
}

impl Pen for RedisPen {
    async fn publish(&mut self, numbers: Range<u64>) {
        let mut batch = redis::pipe();
        for number in numbers.clone() {
            batch.cmd("PUBLISH").arg(CHANNEL).arg(number).ignore();
        }
        let began = now();
        let done = self.line.query::<()>(&batch).await;
        let sent = Sent { began, ended: now(), acknowledged: done.is_ok() };
        self.sent.0.extend(numbers.map(|number| (number, sent)));
        if done.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

const CHANNEL: &str = "numbers";
