//! A stream of RabbitMQ; some routes keep nearly nothing in memory. What it holds in the end is what was published.

use std::ops::Range;
use std::time::Duration;

use lapin::BasicProperties;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::proof::faults::{Fault, Kind};
use crate::proof::harm::harm;
use crate::proof::replicas::Replicas;
use crate::proof::source::{Pen, Published, Source, View, all_and_short};
use crate::proof::verdict::placed::{Place, Placed};
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::{Publisher, RabbitMq};

/// One stream; the first replica reads it through a proxy.
pub struct RabbitMqStream {
    mq: RabbitMq,
    link: Proxy,
}

/// One connection to the broker itself; of what was published when it broke, the stream tells.
pub struct StreamPen {
    url: String,
    publisher: Option<Publisher>,
}

impl Source for RabbitMqStream {
    const NAME: &'static str = "rabbitmq-stream";
    const MENU: &'static [(Kind, usize)] = &[
        (Kind::BrokerKilled, 1),
        (Kind::BrokerStopped, 2),
        (Kind::LinkReset, 4),
        (Kind::LinkSilent, 3),
        (Kind::ReplicaKilled, 5),
    ];
    const NUMBERS: (u64, u64) = (50_000, 1_500);

    type Pen = StreamPen;

    async fn start() -> Option<Self> {
        let mq = RabbitMq::start().await;
        mq.publisher().await.declare_stream(STREAM, &[]).await;
        let link = Proxy::start(([127, 0, 0, 1], mq.port()).into()).await;
        Some(Self { mq, link })
    }

    fn config(&self, replica: usize) -> String {
        let port = if replica == 0 { self.link.addr().port() } else { self.mq.port() };
        let url = self.mq.url_at(port);
        let routes = all_and_short(&format!("from: {{ upstream: up, stream: {STREAM} }}"));
        format!(
            "\nupstreams: {{ up: {{ amqp: {{ url: \"{url}\", ping_interval: 200ms, timeout: 2s }} }} }}{routes}"
        )
    }

    fn views(&self) -> Vec<View> {
        View::all_and_short(8)
    }

    async fn pen(&self) -> StreamPen {
        StreamPen { url: self.mq.url(), publisher: None }
    }

    async fn suffer(&mut self, fault: Fault, _: &Mutex<StreamPen>, _: &Replicas) {
        harm(&mut self.mq, &self.link, fault).await;
    }

    async fn until_settled(&self) {}

    async fn conclude(&mut self, _: StreamPen) -> Published {
        let stored = self.mq.publisher().await.read_stream(STREAM).await;
        let mut published = Placed { eras: 1, ..Placed::default() };
        for (offset, payload) in stored {
            let (number, place) =
                (payload.parse().expect("a number"), Place { era: 0, partition: 0, offset: (offset, 0) });
            assert_eq!(published.places.insert(number, place), None, "{number} is stored twice");
        }
        Published::Placed(published)
    }
}

impl Pen for StreamPen {
    async fn publish(&mut self, numbers: Range<u64>) {
        if self.try_publish(numbers).await.is_err() {
            self.publisher = None;
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl StreamPen {
    async fn try_publish(&mut self, numbers: Range<u64>) -> lapin::Result<()> {
        let publisher = match &mut self.publisher {
            Some(publisher) => publisher,
            none => none.insert(Publisher::enter(&self.url).await?),
        };
        let message = |number: u64| (STREAM.to_owned(), number.to_string(), BasicProperties::default());
        publisher.publish_all("", numbers.map(message)).await
    }
}

const STREAM: &str = "numbers";
