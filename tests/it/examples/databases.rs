//! Postgres and RabbitMQ.

use lapin::ExchangeKind;

use super::start;
use crate::support::eventsource::{EventSource, Options};
use crate::support::postgres::Postgres;
use crate::support::rabbitmq::{RabbitMq, unique};

const DATABASE: &str = "postgres://postgres@127.0.0.1:5432/shop?sslmode=disable";

#[tokio::test]
async fn postgres_notify() {
    let postgres = Postgres::start().await;
    let ssegate = start("postgres-notify.yaml", &[(DATABASE, &postgres.url())]).await;
    let mut lobby = EventSource::connect(ssegate.url("/rooms/lobby"), Options::http1()).await;
    lobby.next_named("stream.position").await;
    postgres.run("NOTIFY \"rooms:lobby\", 'hello'").await;
    assert_eq!(lobby.next_message().await.data, "hello");
}

#[tokio::test]
async fn postgres_outbox() {
    let postgres = Postgres::start().await;
    postgres
        .run(
            "CREATE TABLE outbox (id bigserial PRIMARY KEY, customer text, type text, payload jsonb,
             created_at timestamptz NOT NULL DEFAULT now()); CREATE INDEX ON outbox (customer, id);
             INSERT INTO outbox (customer, type, payload) VALUES ('bob', 'placed', '{\"order\": 6}')",
        )
        .await;
    let ssegate = start("postgres-outbox.yaml", &[(DATABASE, &postgres.url())]).await;
    let mut orders = EventSource::connect(ssegate.url("/orders"), Options::http1()).await;
    let mut ann = EventSource::connect(ssegate.url("/customers/ann"), Options::http1()).await;
    ann.next_named("stream.position").await;
    let placed = orders.next_message().await;
    assert_eq!((&*placed.event, &*placed.data), ("placed", "{\"order\": 6}"));
    postgres
        .run("INSERT INTO outbox (customer, type, payload) VALUES ('ann', 'paid', '{\"order\": 7}'); NOTIFY outbox")
        .await;
    for source in [&mut orders, &mut ann] {
        let paid = source.next_message().await;
        assert_eq!((&*paid.event, &*paid.data), ("paid", "{\"order\": 7}"));
    }
}

const BROKER: &str = "amqp://guest:guest@127.0.0.1:5672";

#[tokio::test]
async fn amqp() {
    let mq = RabbitMq::shared().await;
    let (publisher, events) = (mq.publisher().await, unique("events"));
    publisher.declare_exchange(&events, ExchangeKind::Topic).await;
    let places = [(BROKER, &*mq.url()), ("exchange: events", &*format!("exchange: {events}"))];
    let ssegate = start("amqp.yaml", &places).await;
    let mut lobby = EventSource::connect(ssegate.url("/rooms/lobby"), Options::http1()).await;
    lobby.next_named("stream.position").await;
    publisher.publish(&events, "rooms.lobby.chat", "hello").await;
    let hello = lobby.next_message().await;
    assert_eq!((&*hello.event, &*hello.data), ("rooms.lobby.chat", "hello"));
}

#[tokio::test]
async fn amqp_stream() {
    let mq = RabbitMq::shared().await;
    let (publisher, orders) = (mq.publisher().await, unique("orders"));
    publisher.declare_stream(&orders, &[]).await;
    publisher.publish("", &orders, "{\"order\": 6}").await;
    let places = [(BROKER, &*mq.url()), ("stream: orders", &*format!("stream: {orders}"))];
    let ssegate = start("amqp-stream.yaml", &places).await;
    let mut stream = EventSource::connect(ssegate.url("/orders"), Options::http1()).await;
    stream.next_named("stream.position").await;
    publisher.publish("", &orders, "{\"order\": 7}").await;
    assert_eq!(stream.next_data(2).await, ["{\"order\": 6}", "{\"order\": 7}"]);
}
