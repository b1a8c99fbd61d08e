//! Several sources in one feed.

use serde_json::Value;

use super::start;
use crate::support::eventsource::{EventSource, Options};
use crate::support::redis::Redis;

#[tokio::test]
async fn merge() {
    let redis = Redis::start().await;
    let ssegate = start("merge.yaml", &[("redis://localhost:6379", &redis.url())]).await;
    let mut desk = EventSource::connect(ssegate.url("/desk"), Options::http1()).await;
    redis.until_subscribed("notices", 1).await;
    let publish = async |n: usize| {
        redis.xadd("orders", "*", &[("payload", &format!(r#"{{"order":{n}}}"#))]).await;
        redis.publish("notices", format!("notice {n}")).await;
    };
    publish(1).await;
    let mut data = desk.next_data(2).await;
    desk.close();
    publish(2).await;
    desk.reconnect().await;
    data.extend(desk.next_data(2).await);
    let mut told: Vec<String> = data
        .iter()
        .map(|data| serde_json::from_str(data).unwrap())
        .map(|said: Value| format!("{} {} {}", said["stream"], said["channel"], said["data"]))
        .collect();
    told.sort();
    let expected = [
        r#""orders" null {"order":1}"#,
        r#""orders" null {"order":2}"#,
        r#"null "notices" "notice 1""#,
        r#"null "notices" "notice 2""#,
    ];
    assert_eq!(told, expected);
}
