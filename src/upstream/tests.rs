//! What holds for upstreams of every kind.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Histories, Link, Push, Running};
use crate::config;
use crate::hub::Memory;
use crate::metrics::Metrics;

/// None of them is there, but for those within the process.
const CONFIG: &str = "\
server: { tls: none }
upstreams:
  redis: { redis: { url: 'redis://127.0.0.1:1' } }
  sentinels: { redis: { url: 'redis://main', sentinels: ['redis://127.0.0.1:1'] } }
  cluster: { redis: { url: ['redis://127.0.0.1:1'], cluster: true } }
  kafka: { kafka: { brokers: ['127.0.0.1:1'] } }
  ticker: { ticker: {} }
  push: { push: {} }
  file: { file: { path: /nowhere/at/all } }
  postgres: { postgres: { url: 'postgres://me@127.0.0.1:1/db' } }
  amqp: { amqp: { url: 'amqp://127.0.0.1:1' } }
  sse: { sse: { url: 'http://127.0.0.1:1' } }
  http: { http: { url: 'http://127.0.0.1:1' } }
  nats: { nats: { servers: 'nats://127.0.0.1:1' } }
  mqtt: { mqtt: { url: 'mqtt://127.0.0.1:1' } }
routes: [ { path: /t, from: { upstream: ticker } } ]
";

/// Whatever keeps a link keeps what is counted of its upstream, and its feeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_keeps_the_link_of_an_upstream_that_is_served_no_more() {
    let config = config::parse("c.yaml", CONFIG, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
    let (metrics, push) = (Metrics::new(), Arc::<Push>::default());
    for upstream in &config.upstreams {
        let link = Link::new(Arc::clone(&upstream.name), Arc::default(), metrics.upstream(&upstream.name));
        let histories = Histories { memory: Memory::new(usize::MAX), concurrency: 4 };
        let running = Running::start(upstream, &link, &push, &histories, usize::MAX);
        link.tried().await;
        let kept = Arc::downgrade(&link);
        drop((running, link));
        let gone = async {
            while kept.strong_count() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(60), gone).await.unwrap_or_else(|_| panic!("{} is kept", upstream.name));
    }
}
