//! Tables of Postgres that are not what they seem: whose ids go back, whose transactions are prepared, and whose texts are none.

use crate::postgres::{OUTBOX, adds, config, numbers, open, started};
use crate::support::eventsource::{EventSource, Options};
use crate::support::postgres::Postgres;
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

#[tokio::test]
async fn a_sequence_that_is_set_back_makes_another_table() {
    let (postgres, ssegate) = started().await;
    let mut all = open(&ssegate, "/outbox").await;
    postgres.run(&adds(0, 10)).await;
    assert_eq!(all.next_data(10).await, numbers(0, 10));
    let old = all.last_event_id().to_owned();
    // To some row of before, and to the beginning, of which Postgres tells once an id is given.
    for (back, adds, expected) in [
        ("DELETE FROM outbox WHERE id > 5; SELECT setval('outbox_id_seq', 5)", adds(5, 8), numbers(0, 8)),
        ("DELETE FROM outbox; SELECT setval('outbox_id_seq', 1, false)", adds(20, 23), numbers(20, 23)),
    ] {
        postgres.run(back).await;
        postgres.run(&adds).await;
        assert_eq!(all.next_gap().await["reason"], "recreated");
        all.next_named("stream.position").await;
        assert_eq!(all.next_data(expected.len()).await, expected);
        let mut gone = EventSource::connect(ssegate.url("/outbox"), Options::http1().resume(&old)).await;
        assert_eq!(gone.next_gap().await["reason"], "recreated");
        gone.next_named("stream.position").await;
        assert_eq!(gone.next_data(expected.len()).await, expected);
    }
    // One that is set to where it stands, or further on, is the same.
    let id = all.last_event_id().to_owned();
    postgres.run("SELECT setval('outbox_id_seq', 3), setval('outbox_id_seq', 100, false)").await;
    postgres.run(&adds(30, 33)).await;
    assert_eq!(all.next_data(3).await, numbers(30, 33));
    let mut back = EventSource::connect(ssegate.url("/outbox"), Options::http1().resume(&id)).await;
    assert_eq!(back.next_data(3).await, numbers(30, 33));
    assert!(back.events().iter().all(|event| event.event != "stream.gap"), "{back}");
}

#[tokio::test]
async fn a_server_that_takes_over_and_has_less_has_another_table() {
    let mut postgres = Postgres::start().await;
    postgres.run(OUTBOX).await;
    postgres.run(&adds(0, 10)).await;
    let replica = postgres.copy().await;
    let ssegate = Ssegate::start(config(&postgres.url())).await;
    let mut short = open(&ssegate, "/short").await;
    // More than a sequence is ahead of what it wrote down.
    postgres.run(&adds(10, 210)).await;
    assert_eq!(short.next_data(200).await, numbers(10, 210));
    let old = short.last_event_id().to_owned();
    postgres.restart_as(replica).await;
    assert_eq!(short.next_gap().await["reason"], "recreated");
    short.next_named("stream.position").await;
    postgres.run(&adds(1_000, 1_003)).await;
    let expected = [numbers(0, 10), numbers(1_000, 1_003)].concat();
    assert_eq!(short.next_data(13).await, expected);
    let mut back = EventSource::connect(ssegate.url("/short"), Options::http1().resume(&old)).await;
    assert_eq!(back.next_gap().await["reason"], "recreated");
    back.next_named("stream.position").await;
    assert_eq!(back.next_data(13).await, expected);
    // One that has all of it is the same.
    postgres.restart().await;
    postgres.run(&adds(2_000, 2_003)).await;
    assert_eq!(short.next_data(3).await, numbers(2_000, 2_003));
}

#[tokio::test]
async fn rows_of_a_transaction_that_is_prepared_are_waited_for() {
    let postgres = Postgres::start_with(&["max_prepared_transactions=4"]).await;
    postgres.run(OUTBOX).await;
    let ssegate = Ssegate::start(config(&postgres.url())).await;
    let mut all = open(&ssegate, "/outbox").await;
    let is_held = async || {
        eventually("a row to be held back", async || {
            let status = ssegate.status().await;
            let records = status["upstreams"][0]["lag"]["records"].as_u64().unwrap_or_default();
            if records > 0 { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    };
    let slow = postgres.connect().await;
    slow.batch_execute("BEGIN; INSERT INTO outbox (payload) VALUES ('1')").await.unwrap();
    postgres.run("INSERT INTO outbox (payload) VALUES ('2')").await;
    is_held().await;
    slow.batch_execute("PREPARE TRANSACTION 'slow'").await.unwrap();
    // Its connection goes on, and so does who reads.
    slow.batch_execute("BEGIN; INSERT INTO outbox (payload) VALUES ('3'); COMMIT").await.unwrap();
    is_held().await;
    postgres.run("COMMIT PREPARED 'slow'").await;
    assert_eq!(all.next_data(3).await, ["1", "2", "3"]);
    assert!(all.events().iter().all(|event| event.event != "stream.gap"), "{all}");
}

#[tokio::test]
async fn one_row_that_is_no_text_stops_no_table() {
    let postgres = Postgres::start().await;
    postgres.run("CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0").await;
    let mut config_of_rig = postgres.config();
    config_of_rig.dbname("bytes");
    let client = Postgres::enter(&config_of_rig).await.unwrap();
    client.batch_execute(OUTBOX).await.unwrap();
    let ssegate = Ssegate::start(config(&postgres.url().replace("/postgres?", "/bytes?"))).await;
    let (mut all, mut room) = (open(&ssegate, "/outbox").await, open(&ssegate, "/outbox/a").await);
    let mut short = open(&ssegate, "/short").await;
    let begin = short.last_event_id().to_owned();
    let rows = "INSERT INTO outbox (room, type, payload) VALUES ('a', 'first', 'one'), ('a', 'x', E'\\xff'), \
                ('b', E'caf\\xe9', 'two'), (E'a\\xff', 'third', 'three'), ('a', 'last', E'gr\\xc3\\xbc\\xc3\\x9fe')";
    client.batch_execute(rows).await.unwrap();
    for (event, data) in [("first", "one"), ("caf\u{fffd}", "two"), ("third", "three"), ("last", "grüße")] {
        if data == "two" {
            let gap = all.next_gap().await;
            assert_eq!((&gap["reason"], &gap["from"]), (&"undecodable".into(), &2.into()), "{gap}");
        }
        let next = all.next_message().await;
        assert_eq!((&*next.event, &*next.data), (event, data));
    }
    assert_eq!(room.next_message().await.data, "one");
    assert_eq!(room.next_gap().await["reason"], "undecodable");
    room.next_named("stream.position").await;
    assert_eq!(room.next_message().await.data, "grüße");
    // And from the table.
    client.batch_execute(&adds(0, 20)).await.unwrap();
    short.next_gap().await;
    assert_eq!(short.next_data(23).await.last().unwrap(), "19");
    let mut back = EventSource::connect(ssegate.url("/short"), Options::http1().resume(&begin)).await;
    assert_eq!(back.next_message().await.data, "one");
    assert_eq!(back.next_gap().await["reason"], "undecodable");
    assert_eq!(back.next_data(23).await.last().unwrap(), "19");
}
