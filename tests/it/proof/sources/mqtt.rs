//! An MQTT topic: no history, so that it is judged by times.

use std::io;
use std::ops::Range;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::proof::client::now;
use crate::proof::faults::{Fault, Kind};
use crate::proof::harm::harm;
use crate::proof::replicas::Replicas;
use crate::proof::source::{Pen, Published, Source, View};
use crate::proof::verdict::timed::{Sent, Timed};
use crate::support::mqtt::{Mosquitto, Publisher};
use crate::support::proxy::Proxy;

/// One topic; the first replica reads it through a proxy and by MQTT 5, the other by 3.1.1.
pub struct MqttTopic {
    broker: Mosquitto,
    link: Proxy,
}

/// One connection to the broker itself, which acknowledges each message.
pub struct MqttPen {
    port: u16,
    connection: Option<Publisher>,
    sent: Timed,
}

impl Source for MqttTopic {
    const NAME: &'static str = "mqtt";
    const MENU: &'static [(Kind, usize)] = &[
        (Kind::BrokerKilled, 3),
        (Kind::BrokerStopped, 3),
        (Kind::LinkReset, 4),
        (Kind::LinkSilent, 4),
        (Kind::ReplicaKilled, 4),
    ];
    const NUMBERS: (u64, u64) = (50_000, 1_000);

    type Pen = MqttPen;

    async fn start() -> Option<Self> {
        let broker = Mosquitto::start().await;
        let link = Proxy::start(([127, 0, 0, 1], broker.port()).into()).await;
        Some(Self { broker, link })
    }

    fn config(&self, replica: usize) -> String {
        let entry = match replica {
            0 => format!("url: \"mqtt://{}\"", self.link.addr()),
            _ => format!("url: \"{}\", version: 3.1.1", self.broker.url()),
        };
        format!(
            r#"
upstreams: {{ up: {{ mqtt: {{ {entry}, keep_alive: 1s, timeout: 1s }} }} }}
defaults: {{ history: {{ events: 100000, bytes: 64MiB }} }}
routes:
  - {{ path: /all, from: {{ upstream: up, topic: {TOPIC} }} }}
  - {{ path: /wild, from: {{ upstream: up, topic: "proof/+" }} }}
  - {{ path: /sure, from: {{ upstream: up, topic: "proof/#", qos: 1 }} }}
"#
        )
    }

    fn views(&self) -> Vec<View> {
        ["/all", "/wild", "/sure"].into_iter().cycle().take(9).map(View::all).collect()
    }

    async fn pen(&self) -> MqttPen {
        MqttPen { port: self.broker.port(), connection: None, sent: Timed::default() }
    }

    async fn suffer(&mut self, fault: Fault, _: &Mutex<MqttPen>, _: &Replicas) {
        harm(&mut self.broker, &self.link, fault).await;
    }

    async fn until_settled(&self) {}

    async fn conclude(&mut self, pen: MqttPen) -> Published {
        Published::Timed(pen.sent)
    }
}

impl Pen for MqttPen {
    async fn publish(&mut self, numbers: Range<u64>) {
        let began = now();
        let done = self.try_publish(numbers.clone()).await;
        let sent = Sent { began, ended: now(), acknowledged: done.is_ok() };
        self.sent.0.extend(numbers.map(|number| (number, sent)));
        if done.is_err() {
            self.connection = None;
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl MqttPen {
    async fn try_publish(&mut self, numbers: Range<u64>) -> io::Result<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Publisher::connect(self.port, None).await?),
        };
        connection.publish(numbers.map(|number| (TOPIC, number.to_string()))).await
    }
}

const TOPIC: &str = "proof/numbers";
