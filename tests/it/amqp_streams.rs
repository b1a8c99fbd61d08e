//! Streams of RabbitMQ that are not what they seem: made anew while nobody could look, or full of large messages.

use lapin::BasicProperties;

use crate::support::eventsource::{EventSource, Options};
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::{RabbitMq, unique};
use crate::support::ssegate::{Ssegate, field};

fn config(url: &str) -> String {
    format!(
        r#"
upstreams: {{ mq: {{ amqp: {{ url: "{url}", ping_interval: 200ms, timeout: 5s }} }} }}
defaults: {{ keepalive: 1s }}
routes:
  - {{ path: "/s/{{name}}", from: {{ upstream: mq, stream: "{{name}}" }} }}
  - {{ path: "/short/{{name}}", from: {{ upstream: mq, stream: "{{name}}" }}, event: short, history: {{ events: 10 }}, buffer: 64KiB }}
"#
    )
}

fn numbers(from: i32, to: i32) -> Vec<String> {
    (from..to).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn a_stream_made_anew_while_the_link_was_down_is_told_once_it_is_sure() {
    let mq = RabbitMq::shared().await;
    let (publisher, name) = (mq.publisher().await, unique("anew"));
    publisher.declare_stream(&name, &[]).await;
    let mut link = Proxy::start(([127, 0, 0, 1], mq.port()).into()).await;
    let ssegate = Ssegate::start(config(&mq.url_at(link.addr().port()))).await;
    let path = format!("/s/{name}");
    let mut source = EventSource::ready(ssegate.url(&path), Options::http2()).await;
    publisher.publish_numbers(&name, 0..50).await;
    assert_eq!(source.next_data(50).await, numbers(0, 50));
    let old = source.last_event_id().to_owned();
    link.refuse().await;
    link.cut_all();
    publisher.delete(&name).await;
    publisher.declare_stream(&name, &[]).await;
    publisher.publish_numbers(&name, 100..110).await;
    link.accept().await;
    // A node that is behind would look like that.
    let words = format!("stream {name} ends before what has been read of it");
    ssegate.wait_log(&words, |line| field(line, "cause").unwrap_or_default().starts_with(&words)).await;
    assert_eq!(source.next_gap().await["reason"], "recreated");
    source.next_named("stream.position").await;
    assert_eq!(source.next_data(10).await, numbers(100, 110));
    let mut back = EventSource::connect(ssegate.url(&path), Options::http1().resume(&old)).await;
    assert_eq!(back.next_gap().await["reason"], "recreated");
    back.next_named("stream.position").await;
    assert_eq!(back.next_data(10).await, numbers(100, 110));
}

#[tokio::test]
async fn messages_of_all_sizes_are_given_live_and_from_the_stream() {
    let mq = RabbitMq::shared().await;
    let (publisher, name) = (mq.publisher().await, unique("sizes"));
    publisher.declare_stream(&name, &[]).await;
    let ssegate = Ssegate::start(config(&mq.url())).await;
    let path = format!("/short/{name}");
    let mut live = EventSource::ready(ssegate.url(&path), Options::http2()).await;
    let begin = live.last_event_id().to_owned();
    // Many that are small, then few that are large, and back again: another number may be under way each time.
    let sizes = |n: usize| match n {
        400..430 => 900_000,
        _ => 10,
    };
    let payload = |n: usize| format!("{n} {}", "x".repeat(sizes(n)));
    for chunk in (0..800).collect::<Vec<_>>().chunks(50) {
        let messages = chunk.iter().map(|n| (name.clone(), payload(*n), BasicProperties::default()));
        publisher.publish_all("", messages).await.unwrap();
    }
    let mut back = EventSource::connect(ssegate.url(&path), Options::http1().resume(&begin)).await;
    for stream in [&mut live, &mut back] {
        for n in 0..800 {
            let data = stream.next_message().await.data;
            assert_eq!((data.split(' ').next(), data.len()), (Some(&*n.to_string()), payload(n).len()));
            stream.forget();
        }
    }
}
