//! A relay tier over a Redis stream: the replicas are edges, and read an inner ssegate, which has the faults of brokers as
//! well. What is published, and the law, are those of the stream.

use tokio::sync::Mutex;
use tokio::time::sleep;

use super::redis_stream::{RedisStream, StreamPen};
use crate::proof::faults::{Fault, Kind};
use crate::proof::harm::harm_link;
use crate::proof::replicas::Replicas;
use crate::proof::source::{Published, Source, View, all_and_short};
use crate::support::proxy::Proxy;
use crate::support::ssegate::Ssegate;

/// The inner tier, which reads a stream through a proxy; the first edge reads it through another one.
pub struct Relay {
    stream: RedisStream,
    core: Option<Ssegate>,
    /// All go to it through these, since it comes back on another port.
    links: [Proxy; 2],
    /// How often something was killed or stopped: in turn the server of the stream and the inner tier.
    turns: usize,
}

impl Source for Relay {
    const NAME: &'static str = "relay";
    const MENU: &'static [(Kind, usize)] = &[
        (Kind::BrokerKilled, 4),
        (Kind::LinkReset, 3),
        (Kind::LinkSilent, 2),
        (Kind::ReplicaKilled, 3),
        (Kind::Trimmed, 2),
        (Kind::Recreated, 2),
    ];
    const NUMBERS: (u64, u64) = (25_000, 800);

    type Pen = StreamPen;

    async fn start() -> Option<Self> {
        let stream = RedisStream::start().await?;
        let core = start_core(&stream).await;
        let links = [Proxy::start(core.addr()).await, Proxy::start(core.addr()).await];
        Some(Self { stream, core: Some(core), links, turns: 0 })
    }

    fn config(&self, replica: usize) -> String {
        let url = format!("http://{}", self.links[replica].addr());
        let routes = all_and_short("from: { upstream: up, path: /all }");
        format!(
            "\nupstreams: {{ up: {{ sse: {{ url: \"{url}\", relay: true, timeout: 1s, idle: 3s }} }} }}{routes}"
        )
    }

    fn views(&self) -> Vec<View> {
        self.stream.views()
    }

    async fn pen(&self) -> StreamPen {
        self.stream.pen().await
    }

    async fn suffer(&mut self, fault: Fault, pen: &Mutex<StreamPen>, replicas: &Replicas) {
        match fault {
            Fault::LinkReset | Fault::LinkSilent(_) => harm_link(&self.links[0], fault).await,
            Fault::BrokerKilled(down) => {
                self.turns += 1;
                if self.turns.is_multiple_of(2) {
                    return self.stream.suffer(fault, pen, replicas).await;
                }
                self.core = None;
                sleep(down).await;
                let core = start_core(&self.stream).await;
                self.links.iter().for_each(|link| link.set_target(core.addr()));
                self.core = Some(core);
            }
            other => self.stream.suffer(other, pen, replicas).await,
        }
    }

    async fn until_settled(&self) {}

    async fn conclude(&mut self, pen: StreamPen) -> Published {
        self.stream.conclude(pen).await
    }
}

/// The inner tier, which nobody reaches but through the links.
async fn start_core(stream: &RedisStream) -> Ssegate {
    let config = stream.config(0).replace("keepalive: 1s", "keepalive: 1s, retry: 100ms");
    Ssegate::start(format!("{config}server: {{ listen: \"127.0.0.1:0\", tls: none }}\n")).await
}
