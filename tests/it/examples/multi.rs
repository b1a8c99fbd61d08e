//! Several feeds on one connection.

use super::start;
use crate::multi::{refused, until_placed};
use crate::support::eventsource::{EventSource, Options};
use crate::support::redis::Redis;

#[tokio::test]
async fn multi() {
    let redis = Redis::start().await;
    let ssegate = start("multi.yaml", &[("redis://localhost:6379", &redis.url())]).await;
    let feeds = "feed=/rooms/a&feed=/rooms/b&feed=/news&feed=/rooms/secret";
    let mut stream = EventSource::connect(ssegate.url(&format!("/events?{feeds}")), Options::http1()).await;
    let expected = ("/rooms/secret".to_owned(), 403, "forbidden".to_owned());
    assert_eq!(refused(&mut stream, 1).await, [expected]);
    until_placed(&mut stream, 3).await;
    redis.publish("room:a", "hello").await;
    let event = stream.next_message().await;
    assert_eq!((&*event.event, &*event.data), ("/rooms/a", "hello"));
    stream.cut();
    redis.publish("room:a", "meanwhile").await;
    redis.xadd("news", "*", &[("headline", "It works")]).await;
    stream.move_to(ssegate.url("/events?feed=/rooms/a&feed=/news&feed=/rooms/c"));
    stream.reconnect().await;
    let mut told =
        [stream.next_message().await, stream.next_message().await].map(|event| (event.event, event.data));
    told.sort();
    let expected = [("/news headline", "It works"), ("/rooms/a", "meanwhile")];
    assert_eq!(told, expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
}
