//! An exchange of RabbitMQ: no history, so that it is judged by times.

use std::ops::Range;
use std::time::Duration;

use lapin::{BasicProperties, ExchangeKind};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::proof::client::now;
use crate::proof::faults::{Fault, Kind};
use crate::proof::harm::harm;
use crate::proof::replicas::Replicas;
use crate::proof::source::{Pen, Published, Source, View};
use crate::proof::verdict::timed::{Sent, Timed};
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::{Publisher, RabbitMq};

/// One exchange; the first replica reads it through a proxy.
pub struct RabbitMqExchange {
    mq: RabbitMq,
    link: Proxy,
}

/// One connection to the broker itself; what was published when it broke, nobody knows.
pub struct ExchangePen {
    url: String,
    publisher: Option<Publisher>,
    sent: Timed,
}

impl Source for RabbitMqExchange {
    const NAME: &'static str = "rabbitmq-exchange";
    const MENU: &'static [(Kind, usize)] = &[
        (Kind::BrokerKilled, 1),
        (Kind::BrokerStopped, 2),
        (Kind::LinkReset, 4),
        (Kind::LinkSilent, 3),
        (Kind::ReplicaKilled, 4),
    ];
    const NUMBERS: (u64, u64) = (50_000, 1_500);

    type Pen = ExchangePen;

    async fn start() -> Option<Self> {
        let mq = RabbitMq::start().await;
        mq.publisher().await.declare_exchange(EXCHANGE, ExchangeKind::Topic).await;
        let link = Proxy::start(([127, 0, 0, 1], mq.port()).into()).await;
        Some(Self { mq, link })
    }

    fn config(&self, replica: usize) -> String {
        let port = if replica == 0 { self.link.addr().port() } else { self.mq.port() };
        let url = self.mq.url_at(port);
        format!(
            r##"
upstreams: {{ up: {{ amqp: {{ url: "{url}", ping_interval: 200ms, timeout: 2s }} }} }}
defaults: {{ history: {{ events: 100000, bytes: 64MiB }} }}
routes: [ {{ path: /all, from: {{ upstream: up, exchange: {EXCHANGE}, routing_key: "n.#" }} }} ]
"##
        )
    }

    fn views(&self) -> Vec<View> {
        vec![View::all("/all"); 8]
    }

    async fn pen(&self) -> ExchangePen {
        ExchangePen { url: self.mq.url(), publisher: None, sent: Timed::default() }
    }

    async fn suffer(&mut self, fault: Fault, _: &Mutex<ExchangePen>, _: &Replicas) {
        harm(&mut self.mq, &self.link, fault).await;
    }

    async fn until_settled(&self) {
        self.mq.until_consumed(2).await;
    }

    async fn conclude(&mut self, pen: ExchangePen) -> Published {
        Published::Timed(pen.sent)
    }
}

impl Pen for ExchangePen {
    async fn publish(&mut self, numbers: Range<u64>) {
        let began = now();
        let done = self.try_publish(numbers.clone()).await;
        let sent = Sent { began, ended: now(), acknowledged: done.is_ok() };
        self.sent.0.extend(numbers.map(|number| (number, sent)));
        if done.is_err() {
            self.publisher = None;
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl ExchangePen {
    async fn try_publish(&mut self, numbers: Range<u64>) -> lapin::Result<()> {
        let publisher = match &mut self.publisher {
            Some(publisher) => publisher,
            none => none.insert(Publisher::enter(&self.url).await?),
        };
        let message = |number: u64| (format!("n.{number}"), number.to_string(), BasicProperties::default());
        publisher.publish_all(EXCHANGE, numbers.map(message)).await
    }
}

const EXCHANGE: &str = "numbers";
