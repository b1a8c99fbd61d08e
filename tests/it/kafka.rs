//! Kafka on a real broker: partitions, names from keys and headers, transactions, trimming, and topics that
//! come, grow and are made anew.

use rustix::process::Signal;

use crate::support::eventsource::{EventSource, Options};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::ssegate::Ssegate;

fn config(bootstrap: &str, topic: &str) -> String {
    format!(
        r#"
upstreams: {{ bus: {{ kafka: {{ brokers: ["{bootstrap}"], properties: {{ topic.metadata.refresh.interval.ms: 1000 }} }} }} }}
routes:
  - {{ path: /t, from: {{ upstream: bus, topic: {topic} }}, keepalive: 1s }}
  - {{ path: /typed, from: {{ upstream: bus, topic: {topic} }}, event: "{{topic}}:{{key}}:{{header.type}}" }}
  - {{ path: "/compacted/{{list}}", from: {{ upstream: bus, topic: {topic} }}, tombstone: {{ event: "gone:{{list}}" }} }}
  - {{ path: "/topics/{{topic_name}}", from: {{ upstream: bus, topic: "{{topic_name}}" }} }}
"#
    )
}

async fn start(partitions: i32) -> (&'static Kafka, String, Ssegate) {
    let kafka = Kafka::shared().await;
    let topic = unique("t");
    kafka.create_topic(&topic, partitions).await;
    let ssegate = Ssegate::start(config(&kafka.bootstrap(), &topic)).await;
    (kafka, topic, ssegate)
}

#[tokio::test]
async fn records_of_every_partition_come_in_per_partition_order() {
    let (kafka, topic, ssegate) = start(6).await;
    let mut stream = EventSource::connect(ssegate.url("/t"), Options::http2()).await;
    stream.next_named("stream.position").await;
    let records = (0..600).map(|n| Record::to(&topic).partition(n % 6).payload(format!("{}:{n}", n % 6)));
    kafka.produce_all(records).await;
    let data = stream.next_data(600).await;
    for partition in 0..6 {
        let own: Vec<_> = data.iter().filter(|data| data.starts_with(&format!("{partition}:"))).collect();
        let expected: Vec<_> =
            (0..600).filter(|n| n % 6 == partition).map(|n| format!("{partition}:{n}")).collect();
        assert_eq!(own, expected.iter().collect::<Vec<_>>());
    }
    let ids: std::collections::HashSet<_> = stream.events().iter().map(|event| &event.id).collect();
    assert_eq!(ids.len(), 601, "every event has an id of its own");
}

#[tokio::test]
async fn names_come_from_topic_key_and_header() {
    let (kafka, topic, ssegate) = start(1).await;
    let mut stream = EventSource::connect(ssegate.url("/typed"), Options::http1()).await;
    stream.next_named("stream.position").await;
    kafka.produce(Record::to(&topic).key("k1").header("type", "created").payload("x")).await;
    assert_eq!(stream.next().await.event, format!("{topic}:k1:created"));
}

#[tokio::test]
async fn a_topic_may_come_from_the_path_and_be_created_later() {
    let kafka = Kafka::shared().await;
    let (existing, later) = (unique("existing"), unique("later"));
    kafka.create_topic(&existing, 1).await;
    let ssegate = Ssegate::start(config(&kafka.bootstrap(), &existing)).await;
    let mut stream = EventSource::connect(ssegate.url(&format!("/topics/{later}")), Options::http1()).await;
    ssegate.wait_log("the trouble", |line| line["cause"].as_str().unwrap_or_default().contains(&later)).await;
    let mut other = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    other.next_named("stream.position").await;
    kafka.create_topic(&later, 2).await;
    stream.next_named("stream.position").await;
    kafka.produce(Record::to(&later).payload("there it is")).await;
    assert_eq!(stream.next_message().await.data, "there it is");
}

#[tokio::test]
async fn only_committed_transactions_are_sent() {
    let (kafka, topic, ssegate) = start(1).await;
    if kafka.is_mock() {
        return eprintln!("skipped on the mock cluster: it does not hide aborted records");
    }
    let mut stream = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    stream.next_named("stream.position").await;
    let producer = kafka.transactional(&unique("tx")).await;
    for (data, commit) in [("kept 1", true), ("dropped", false), ("kept 2", true)] {
        producer.begin().await;
        producer.send(Record::to(&topic).payload(data)).await;
        if commit { producer.commit().await } else { producer.abort().await }
    }
    assert_eq!(stream.next_data(2).await, ["kept 1", "kept 2"]);
    // The markers between them are holes in the offsets, and no gaps.
    let first = stream.events()[1].id.clone();
    let mut again = EventSource::connect(ssegate.url("/t"), Options::http1().resume(&first)).await;
    again.next_named("stream.position").await;
    assert_eq!(again.next().await.data, "kept 2");
}

#[tokio::test]
async fn tombstones_make_no_event_but_move_the_position() {
    let (kafka, topic, ssegate) = start(1).await;
    let mut stream = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    let start = stream.next_named("stream.position").await.id;
    kafka.produce(Record::to(&topic).key("k")).await;
    let moved = stream.next().await;
    assert_eq!(moved.event, "stream.position", "told when a comment would be due");
    assert_ne!(moved.id, start);
    kafka.produce(Record::to(&topic).key("k").payload("alive")).await;
    assert_eq!(stream.next_message().await.data, "alive");
}

#[tokio::test]
async fn tombstones_become_events_where_a_route_names_them() {
    let (kafka, topic, ssegate) = start(1).await;
    let mut stream = EventSource::connect(ssegate.url("/compacted/orders"), Options::http1()).await;
    let start = stream.next_named("stream.position").await.id;
    kafka.produce(Record::to(&topic).key("7").payload("new")).await;
    kafka.produce(Record::to(&topic).key("7")).await;
    kafka.produce(Record::to(&topic)).await;
    let events = [stream.next().await, stream.next().await, stream.next().await];
    let told: Vec<_> = events.iter().map(|event| (&*event.event, &*event.data)).collect();
    assert_eq!(told, [("message", "new"), ("gone:orders", "7"), ("gone:orders", "")]);
    let resume = Options::http1().resume(&events[0].id);
    let mut again = EventSource::connect(ssegate.url("/compacted/orders"), resume).await;
    again.next_named("stream.position").await;
    assert_eq!(again.next().await, events[1], "they are resumed as any other");
    assert_ne!(start, events[2].id);
}

#[tokio::test]
async fn an_id_means_the_same_on_another_replica() {
    let (kafka, topic, first) = start(3).await;
    let second = Ssegate::start(config(&kafka.bootstrap(), &topic)).await;
    let mut stream = EventSource::connect(first.url("/t"), Options::http1()).await;
    EventSource::connect(second.url("/t"), Options::http1()).await.next_named("stream.position").await;
    stream.next_named("stream.position").await;
    let send = async |from: i32, to: i32| {
        let records = (from..to).map(|n| Record::to(&topic).partition(n % 3).payload(n.to_string()));
        kafka.produce_all(records).await;
    };
    send(0, 30).await;
    stream.next_data(17).await;
    stream.cut();
    let received = stream.events().iter().filter(|event| event.event == "message");
    let mut seen: Vec<String> = received.map(|event| event.data.clone()).collect();
    send(30, 60).await;
    let id = stream.last_event_id().to_owned();
    let mut moved = EventSource::connect(second.url("/t"), Options::http2().resume(&id)).await;
    assert_eq!(moved.next_named("stream.position").await.id, id);
    seen.extend(moved.next_data(60 - seen.len()).await);
    let mut numbers: Vec<i32> = seen.iter().map(|data| data.parse().unwrap()).collect();
    for partition in 0..3 {
        let own: Vec<_> = numbers.iter().filter(|n| *n % 3 == partition).collect();
        assert!(own.is_sorted(), "partition {partition}: {own:?}");
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..60).collect::<Vec<_>>(), "nothing is missing, nothing comes twice");
}

#[tokio::test]
async fn ids_from_before_the_start_are_honoured_and_those_of_another_topic_are_not() {
    let (kafka, topic, first) = start(2).await;
    let mut stream = EventSource::connect(first.url("/t"), Options::http1()).await;
    let early = stream.next_named("stream.position").await.id;
    kafka.produce_all((0..10).map(|n| Record::to(&topic).partition(n % 2).payload(n.to_string()))).await;
    stream.next_data(10).await;
    let second = Ssegate::start(config(&kafka.bootstrap(), &topic)).await;
    let mut late = EventSource::connect(second.url("/t"), Options::http1().resume(&early)).await;
    assert_eq!(late.next_named("stream.position").await.id, early);
    assert_eq!(late.next_data(10).await.len(), 10);

    // Another topic's id is none of this one's.
    let other = unique("other");
    kafka.create_topic(&other, 2).await;
    let mut foreign = EventSource::connect(first.url(&format!("/topics/{other}")), Options::http1()).await;
    let foreign = foreign.next_named("stream.position").await.id;
    let mut told = EventSource::connect(first.url("/t"), Options::http1().resume(&foreign)).await;
    assert_eq!(told.next_gap().await["reason"], "unknown_id");
}

#[tokio::test]
async fn added_partitions_are_read_from_their_first_record_on() {
    let (kafka, topic, ssegate) = start(1).await;
    if kafka.is_mock() {
        return eprintln!("skipped on the mock cluster: it cannot add partitions");
    }
    let mut stream = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    let before = stream.next_named("stream.position").await.id;
    kafka.add_partitions(&topic, 3).await;
    kafka.produce_all((0..3).map(|n| Record::to(&topic).partition(n).payload(n.to_string()))).await;
    let mut data = stream.next_data(3).await;
    data.sort();
    assert_eq!(data, ["0", "1", "2"]);
    let mut again = EventSource::connect(ssegate.url("/t"), Options::http1().resume(&before)).await;
    again.next_named("stream.position").await;
    assert_eq!(again.next_data(3).await.len(), 3, "an id from before means offset 0 in what was added");
}

/// Deletes the topic and creates it again, once ssegate knows that it is gone.
async fn make_anew(kafka: &Kafka, topic: &str, ssegate: &Ssegate) {
    kafka.delete_topic(topic).await;
    let gone = format!("topic {topic} is gone");
    ssegate
        .wait_log("that it is gone", |line| line["cause"].as_str().unwrap_or_default().contains(&gone))
        .await;
    kafka.create_topic(topic, 1).await;
}

#[tokio::test]
async fn a_topic_made_anew_is_told_and_read_from_its_first_record_on() {
    if Kafka::shared().await.is_mock() {
        return eprintln!("skipped on the mock cluster: it cannot delete topics");
    }
    for new in [1, 20] {
        let (kafka, topic, ssegate) = start(1).await;
        let mut stream = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
        stream.next_named("stream.position").await;
        kafka.produce_all((0..5).map(|n| Record::to(&topic).payload(n.to_string()))).await;
        stream.next_data(5).await;
        let mut away = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
        let old = away.next_named("stream.position").await.id;
        away.close();
        make_anew(kafka, &topic, &ssegate).await;
        let numbers: Vec<_> = (0..new).map(|n| format!("new {n}")).collect();
        kafka.produce_all(numbers.iter().map(|data| Record::to(&topic).payload(data))).await;
        assert_eq!(stream.next_gap().await["reason"], "recreated");
        assert_eq!(stream.next_data(new).await, numbers);
        // An offset of before means nothing now, whether or not there is such a one again.
        let mut back = EventSource::connect(ssegate.url("/t"), Options::http1().resume(&old)).await;
        assert_eq!(back.next_gap().await["reason"], "recreated");
        assert_eq!(back.next_data(new).await, numbers);
        let counted = ssegate.metrics().await.sum("ssegate_source_gaps_total", &[("reason", "recreated")]);
        assert_eq!(counted, 2.0, "one for each feed");
    }
}

/// Its offsets tell nothing by then: there are as many records as before, and more.
#[tokio::test]
async fn a_topic_made_anew_and_filled_again_at_once_is_known_by_its_id() {
    let (kafka, topic, mut ssegate) = start(1).await;
    if kafka.is_mock() {
        return eprintln!("skipped on the mock cluster: it cannot delete topics");
    }
    let mut stream = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    let old = stream.next_named("stream.position").await.id;
    kafka.produce_all((0..5).map(|n| Record::to(&topic).payload(n.to_string()))).await;
    stream.next_data(5).await;
    ssegate.signal(Signal::STOP);
    kafka.delete_topic(&topic).await;
    kafka.create_topic(&topic, 1).await;
    let numbers: Vec<_> = (0..20).map(|n| format!("new {n}")).collect();
    kafka.producer().send_all(numbers.iter().map(|data| Record::to(&topic).payload(data))).await;
    ssegate.signal(Signal::CONT);
    assert_eq!(stream.next_gap().await["reason"], "recreated");
    assert_eq!(stream.next_data(20).await, numbers);

    // Nor does a process that has never seen the old one take its ids for the new one's.
    let other = Ssegate::start(config(&kafka.bootstrap(), &topic)).await;
    let mut back = EventSource::connect(other.url("/t"), Options::http1().resume(&old)).await;
    assert_eq!(back.next_gap().await["reason"], "recreated");
    assert_eq!(back.next_data(20).await, numbers);
}

#[tokio::test]
async fn what_retention_took_while_the_broker_was_away_is_told() {
    let (kafka, topic, ssegate) = start(2).await;
    if kafka.is_mock() {
        return eprintln!("skipped on the mock cluster: it cannot trim topics");
    }
    let proxy = kafka.link().await;
    let behind = Ssegate::start(config(&kafka.link_bootstrap(), &topic)).await;
    let mut stream = EventSource::connect(behind.url("/t"), Options::http1()).await;
    let mut other = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    stream.next_named("stream.position").await;
    other.next_named("stream.position").await;
    proxy.pause();
    kafka.produce_all((0..20).map(|n| Record::to(&topic).partition(n % 2).payload(n.to_string()))).await;
    other.next_data(20).await;
    kafka.delete_records(&topic, 0, 7).await;
    proxy.cut_all();
    proxy.resume();
    let gap = stream.next_gap().await;
    assert_eq!(gap["reason"], "trimmed");
    let (from, to) = (gap["from"]["0"].as_u64().unwrap(), gap["to"]["0"].as_u64().unwrap());
    assert_eq!(to, 7);
    let own = |data: &String| data.parse::<u64>().unwrap() % 2 == 0;
    let received =
        stream.events().iter().filter(|event| event.event == "message").map(|event| event.data.clone());
    let mut data: Vec<_> = received.collect();
    data.extend(stream.next_data(20 - (to - from) as usize - data.len()).await);
    assert_eq!(data.iter().filter(|data| own(data)).count() as u64, 10 - (to - from));
    assert_eq!(data.iter().filter(|data| !own(data)).count(), 10);
}

#[tokio::test]
async fn a_topic_that_is_gone_holds_up_no_other() {
    let (kafka, topic, ssegate) = start(1).await;
    if kafka.is_mock() {
        return eprintln!("skipped on the mock cluster: it cannot delete topics");
    }
    let doomed = unique("a-doomed");
    kafka.create_topic(&doomed, 1).await;
    let mut of_doomed =
        EventSource::connect(ssegate.url(&format!("/topics/{doomed}")), Options::http1()).await;
    let mut alive = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    of_doomed.next_named("stream.position").await;
    alive.next_named("stream.position").await;
    kafka.delete_topic(&doomed).await;
    kafka.add_partitions(&topic, 3).await;
    kafka.produce_all((0..3).map(|n| Record::to(&topic).partition(n).payload(n.to_string()))).await;
    assert_eq!(alive.next_data(3).await.len(), 3, "its new partitions are found all the same");
}

#[tokio::test]
async fn a_broker_that_is_down_at_the_start_is_waited_for() {
    let mut kafka = Kafka::start().await;
    kafka.create_topic("late", 2).await;
    kafka.stop().await;
    let ssegate = Ssegate::start(config(&kafka.bootstrap(), "late")).await;
    let mut stream = EventSource::connect(ssegate.url("/t"), Options::http1()).await;
    let down = ssegate
        .wait_log("that it is down", |line| line["message"].as_str().unwrap_or_default().contains("is down"))
        .await;
    assert!(down["cause"].as_str().unwrap().contains("no broker answers"), "{down}");
    kafka.restart().await;
    stream.next_named("stream.position").await;
    kafka.produce(Record::to("late").payload("x")).await;
    assert_eq!(stream.next_message().await.data, "x");
}
