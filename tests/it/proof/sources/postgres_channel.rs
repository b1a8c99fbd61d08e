//! A channel of Postgres: no history, so that it is judged by times.

use std::ops::Range;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::proof::client::now;
use crate::proof::faults::{Fault, Kind};
use crate::proof::harm::harm;
use crate::proof::replicas::Replicas;
use crate::proof::source::{Pen, Published, Source, View};
use crate::proof::verdict::timed::{Sent, Timed};
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;

/// One channel; the first replica reads it through a proxy.
pub struct PostgresChannel {
    postgres: Postgres,
    link: Proxy,
}

/// One connection by the server's own socket; what was notified in one transaction when it broke, nobody knows.
pub struct ChannelPen {
    config: tokio_postgres::Config,
    connection: Option<Client>,
    sent: Timed,
}

impl Source for PostgresChannel {
    const NAME: &'static str = "postgres-channel";
    const MENU: &'static [(Kind, usize)] = &[
        (Kind::BrokerKilled, 2),
        (Kind::BrokerStopped, 2),
        (Kind::LinkReset, 4),
        (Kind::LinkSilent, 3),
        (Kind::ReplicaKilled, 4),
    ];
    const NUMBERS: (u64, u64) = (50_000, 1_500);

    type Pen = ChannelPen;

    async fn start() -> Option<Self> {
        let postgres = Postgres::start().await;
        let link = Proxy::start(([127, 0, 0, 1], postgres.port()).into()).await;
        Some(Self { postgres, link })
    }

    fn config(&self, replica: usize) -> String {
        let port = if replica == 0 { self.link.addr().port() } else { self.postgres.port() };
        let url = self.postgres.url_at("postgres", port);
        format!(
            r#"
upstreams: {{ up: {{ postgres: {{ url: "{url}", ping_interval: 200ms, timeout: 1s }} }} }}
defaults: {{ history: {{ events: 100000, bytes: 64MiB }} }}
routes: [ {{ path: /all, from: {{ upstream: up, channel: {CHANNEL} }} }} ]
"#
        )
    }

    fn views(&self) -> Vec<View> {
        vec![View::all("/all"); 8]
    }

    async fn pen(&self) -> ChannelPen {
        ChannelPen { config: self.postgres.config(), connection: None, sent: Timed::default() }
    }

    async fn suffer(&mut self, fault: Fault, _: &Mutex<ChannelPen>, _: &Replicas) {
        harm(&mut self.postgres, &self.link, fault).await;
    }

    async fn until_settled(&self) {
        self.postgres.until_listening(2).await;
    }

    async fn conclude(&mut self, pen: ChannelPen) -> Published {
        Published::Timed(pen.sent)
    }
}

impl Pen for ChannelPen {
    async fn publish(&mut self, numbers: Range<u64>) {
        let (first, last) = (numbers.start, numbers.end - 1);
        let statement =
            format!("SELECT count(pg_notify('{CHANNEL}', n::text)) FROM generate_series({first}, {last}) n");
        let began = now();
        let done = self.run(&statement).await;
        let sent = Sent { began, ended: now(), acknowledged: done.is_ok() };
        self.sent.0.extend(numbers.map(|number| (number, sent)));
        if done.is_err() {
            self.connection = None;
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl ChannelPen {
    async fn run(&mut self, statement: &str) -> Result<(), tokio_postgres::Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Postgres::enter(&self.config).await?),
        };
        connection.batch_execute(statement).await
    }
}

const CHANNEL: &str = "numbers";
