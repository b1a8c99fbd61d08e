//! NATS and MQTT.

use super::start;
use crate::support::eventsource::{EventSource, Options};
use crate::support::mqtt::Mosquitto;
use crate::support::nats::{self, Nats};

const NATS: &str = "nats://127.0.0.1:4222";

#[tokio::test]
async fn nats() {
    let nats = Nats::start().await;
    let ssegate = start("nats.yaml", &[(NATS, &nats.url())]).await;
    let mut lobby = EventSource::connect(ssegate.url("/rooms/lobby"), Options::http1()).await;
    lobby.next_named("stream.position").await;
    nats::publish(&nats.client().await, [("rooms.attic.chat", "not here"), ("rooms.lobby.chat", "hello")])
        .await;
    let hello = lobby.next_message().await;
    assert_eq!((&*hello.event, &*hello.data), ("rooms.lobby.chat", "hello"));
}

#[tokio::test]
async fn jetstream() {
    let nats = Nats::start_jetstream().await;
    nats.create_stream("ORDERS", &["orders.>"]).await;
    let orders = [("orders.7.placed", "{\"order\": 7}"), ("orders.8.placed", "{\"order\": 8}")];
    nats::store(&nats.jetstream().await, orders).await;
    let ssegate = start("jetstream.yaml", &[(NATS, &nats.url())]).await;
    let mut all = EventSource::connect(ssegate.url("/orders"), Options::http1()).await;
    let mut seven = EventSource::connect(ssegate.url("/orders/7"), Options::http1()).await;
    all.next_named("stream.position").await;
    nats::store(&nats.jetstream().await, [("orders.7.paid", "{}")]).await;
    let paid = all.next_message().await;
    assert_eq!((&*paid.event, &*paid.data), ("orders.7.paid", "{}"));
    assert_eq!(seven.next_data(2).await, ["{\"order\": 7}", "{}"]);
}

#[tokio::test]
async fn mqtt() {
    let broker = Mosquitto::start().await;
    let mut publisher = broker.publisher().await;
    publisher.retain("sensors/attic/heat", "21").await.unwrap();
    let ssegate = start("mqtt.yaml", &[("mqtt://127.0.0.1:1883", &broker.url())]).await;
    let mut attic = EventSource::connect(ssegate.url("/sensors/attic"), Options::http1()).await;
    assert_eq!(attic.next_message().await.data, "21");
    publisher.publish([("sensors/cellar/heat", "12"), ("sensors/attic/heat", "22")]).await.unwrap();
    let heat = attic.next_message().await;
    assert_eq!((&*heat.event, &*heat.data), ("sensors/attic/heat", "22"));
}
