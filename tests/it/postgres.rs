//! Postgres on a real server: channels of NOTIFY, and tables whose rows are read by their ids, however late transactions
//! commit.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use crate::support::eventsource::{EventSource, Options};
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;
use crate::support::ssegate::{Ssegate, field};
use crate::support::tls::TestCa;
use crate::support::wait::eventually;

/// Routes for a table and for channels.
pub fn config(url: &str) -> String {
    format!(
        r#"
upstreams: {{ db: {{ postgres: {{ url: "{url}", ping_interval: 200ms, timeout: 5s }} }} }}
defaults: {{ keepalive: 1s }}
routes:
  - {{ path: "/rooms/{{room}}", from: {{ upstream: db, channel: "rooms:{{room}}" }}, event: "{{channel}}" }}
  - path: /outbox
    from: {{ upstream: db, table: outbox, columns: {{ event: type, key: who, time: added }}, every: 20ms }}
  - path: /outbox/{{room}}
    from: {{ upstream: db, table: public.outbox, where: {{ room: "{{room}}" }}, every: 20ms }}
    event: "{{key}}"
  - path: /short
    from: {{ upstream: db, table: outbox, every: 20ms }}
    event: short
    history: {{ events: 10 }}
    buffer: 64KiB
  - path: /since
    from: {{ upstream: db, table: outbox, columns: {{ time: added }}, start: {{ since: 1h }}, every: 20ms }}
    event: since
    history: {{ events: 10 }}
  - path: /earliest
    from: {{ upstream: db, table: outbox, start: earliest, every: 20ms }}
    event: earliest
    history: {{ events: 10 }}
  - path: /told
    from: {{ upstream: db, table: outbox, notify: News, every: 1h }}
    event: told
"#
    )
}

pub const OUTBOX: &str = "CREATE TABLE outbox (id bigserial PRIMARY KEY, room text, type text, who text, payload text, \
                      added timestamptz DEFAULT now())";

pub async fn started() -> (Postgres, Ssegate) {
    let postgres = Postgres::start().await;
    postgres.run(OUTBOX).await;
    let ssegate = Ssegate::start(config(&postgres.url())).await;
    (postgres, ssegate)
}

pub async fn open(ssegate: &Ssegate, path: &str) -> EventSource {
    EventSource::ready(ssegate.url(path), Options::http2()).await
}

/// Adds rows with these numbers, in one statement.
pub fn adds(from: i32, to: i32) -> String {
    format!("INSERT INTO outbox (payload) SELECT n FROM generate_series({from}, {}) n", to - 1)
}

pub fn numbers(from: i32, to: i32) -> Vec<String> {
    (from..to).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn channels_are_identifiers_whatever_is_in_them() {
    let (postgres, ssegate) = started().await;
    let mut plain = open(&ssegate, "/rooms/a").await;
    let mut odd = open(&ssegate, "/rooms/A%22;%20DROP%20TABLE%20outbox;--").await;
    postgres.run("NOTIFY \"rooms:a\", 'one'; NOTIFY \"rooms:A\"\"; DROP TABLE outbox;--\", 'two'").await;
    postgres.run("NOTIFY \"rooms:a\"; NOTIFY \"rooms:other\", 'nobody'; NOTIFY \"rooms:a\", 'three'").await;
    let (one, two) = (plain.next().await, odd.next().await);
    assert_eq!((&*one.event, &*one.data), ("rooms:a", "one"));
    assert_eq!((&*two.event, &*two.data), ("rooms:A\"; DROP TABLE outbox;--", "two"));
    assert_eq!(plain.next_data(2).await, ["", "three"]);
    assert_eq!(postgres.number("SELECT count(*) FROM outbox").await, 0, "it is still there");
    // Postgres would cut it off, and listen to something else.
    let long = "x".repeat(63 - "rooms:".len());
    open(&ssegate, &format!("/rooms/{long}")).await;
    let longer = EventSource::request(ssegate.url(&format!("/rooms/{long}x")), Options::http1()).await;
    assert_eq!(longer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_lost_link_is_told_with_its_span_and_ids_of_before_are_good() {
    let postgres = Postgres::start().await;
    let link = Proxy::start(([127, 0, 0, 1], postgres.port()).into()).await;
    let ssegate = Ssegate::start(config(&postgres.url_at("postgres", link.addr().port()))).await;
    let mut room = open(&ssegate, "/rooms/a").await;
    postgres.run("NOTIFY \"rooms:a\", 'before'").await;
    let before = room.next_message().await;
    link.cut_all();
    let gap = room.next_gap().await;
    assert_eq!(gap["reason"], "upstream_lost");
    assert!(gap["since"].as_str() <= gap["until"].as_str(), "{gap}");
    postgres.run("NOTIFY \"rooms:a\", 'after'").await;
    assert_eq!(room.next_message().await.data, "after");
    let mut back = EventSource::connect(ssegate.url("/rooms/a"), Options::http1().resume(&before.id)).await;
    back.next_named("stream.position").await;
    assert_eq!(back.next_gap().await, gap);
    assert_eq!(back.next_message().await.data, "after");
}

#[tokio::test]
async fn rows_are_given_once_in_order_with_their_names_and_keys() {
    let (postgres, ssegate) = started().await;
    let (mut all, mut room) = (open(&ssegate, "/outbox").await, open(&ssegate, "/outbox/a").await);
    postgres
        .run(
            "INSERT INTO outbox (room, type, who, payload) VALUES ('a', 'made', 'me', 'one'), ('b', NULL, 'you', 'two'), \
             ('a', 'gone', 'me', NULL), ('a', 'moved', NULL, 'three')",
        )
        .await;
    for (event, data) in [("made", "one"), ("message", "two"), ("moved", "three")] {
        let next = all.next_message().await;
        assert_eq!((&*next.event, &*next.data), (event, data));
    }
    assert_eq!(room.next_data(2).await, ["one", "three"]);
    // The ids are those of the rows, of whichever feed.
    let last = |source: &EventSource| source.last_event_id().split_once('-').unwrap().1.to_owned();
    assert_eq!((last(&all), last(&room)), ("4".into(), "4".into()));
}

#[tokio::test]
async fn a_row_of_a_slow_transaction_is_given_before_those_that_came_after_it() {
    let (postgres, ssegate) = started().await;
    let mut all = open(&ssegate, "/outbox").await;
    // One that inserts, one that takes an id first and inserts later, and one that is rolled back in the end.
    let (inserts, takes, fails) =
        (postgres.connect().await, postgres.connect().await, postgres.connect().await);
    inserts.batch_execute("BEGIN; INSERT INTO outbox (payload) VALUES ('1')").await.unwrap();
    takes.batch_execute("BEGIN; SELECT nextval('outbox_id_seq')").await.unwrap();
    fails.batch_execute("BEGIN; INSERT INTO outbox (payload) VALUES ('never')").await.unwrap();
    postgres.run("INSERT INTO outbox (payload) VALUES ('4')").await;
    let is_held = async || {
        eventually("the row to be held back", async || {
            let status = ssegate.status().await;
            let records = status["upstreams"][0]["lag"]["records"].as_u64().unwrap_or_default();
            if records > 0 { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    };
    is_held().await;
    inserts.batch_execute("COMMIT").await.unwrap();
    assert_eq!(all.next_message().await.data, "1");
    is_held().await;
    takes.batch_execute("INSERT INTO outbox (id, payload) VALUES (2, '2'); COMMIT").await.unwrap();
    assert_eq!(all.next_message().await.data, "2");
    is_held().await;
    fails.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(all.next_message().await.data, "4", "a hole that stays holds nobody up");
    assert!(all.events().iter().all(|event| event.event != "stream.gap"), "{all}");
}

#[tokio::test]
async fn whoever_comes_while_a_transaction_is_open_is_given_its_rows() {
    let postgres = Postgres::start().await;
    postgres.run(OUTBOX).await;
    postgres.run(&adds(1, 11)).await;
    let slow = postgres.connect().await;
    slow.batch_execute("BEGIN; INSERT INTO outbox (payload) VALUES ('11')").await.unwrap();
    postgres.run(&adds(12, 14)).await;
    let ssegate = Ssegate::start(config(&postgres.url())).await;
    // Where it begins cannot be told yet.
    let mut all = EventSource::connect(ssegate.url("/earliest"), Options::http2()).await;
    all.until_comments(2).await;
    slow.batch_execute("COMMIT").await.unwrap();
    all.next_named("stream.position").await;
    assert_eq!(all.next_data(13).await, numbers(1, 14));
}

#[tokio::test]
async fn ids_are_good_on_every_replica_and_beyond_memory() {
    let (postgres, ssegate) = started().await;
    let other = Ssegate::start(config(&postgres.url())).await;
    let mut short = open(&ssegate, "/short").await;
    postgres.run(&adds(0, 5_000)).await;
    postgres.run("BEGIN; INSERT INTO outbox (payload) VALUES ('never'); ROLLBACK").await;
    postgres.run(&adds(5_000, 6_000)).await;
    let mut ids = Vec::new();
    for number in 0..6_000 {
        let event = short.next_message().await;
        assert_eq!(event.data, number.to_string());
        ids.push(event.id);
    }
    for (replica, at) in [(&ssegate, 3), (&other, 0), (&other, 4_999), (&ssegate, 5_000), (&other, 5_998)] {
        let mut back = EventSource::connect(replica.url("/short"), Options::http1().resume(&ids[at])).await;
        assert_eq!(back.next_named("stream.position").await.id, ids[at]);
        assert_eq!(back.next_data(5_999 - at).await, numbers(at as i32 + 1, 6_000));
        assert_eq!(back.last_event_id(), ids[5_999]);
    }
    assert!(ssegate.metrics().await.sum("ssegate_history_reads_total", &[]) > 0.0);
}

#[tokio::test]
async fn a_client_begins_where_it_is_told_to() {
    let (postgres, ssegate) = started().await;
    postgres.run(&adds(0, 100)).await;
    postgres.run("UPDATE outbox SET added = now() - interval '2 hours' WHERE id <= 40").await;
    postgres.run("UPDATE outbox SET added = now() - interval '30 minutes' WHERE id > 40 AND id <= 70").await;
    for (path, from) in [("/earliest", 0), ("/since", 40), ("/outbox?since=15m", 70), ("/outbox?since=1d", 0)]
    {
        let mut source = open(&ssegate, path).await;
        assert_eq!(source.next_data(100 - from as usize).await, numbers(from, 100), "{path}");
    }
}

#[tokio::test]
async fn what_was_deleted_before_it_was_read_is_a_gap() {
    let (postgres, ssegate) = started().await;
    let mut short = open(&ssegate, "/short").await;
    postgres.run(&adds(0, 1_000)).await;
    let mut ids = Vec::new();
    for _ in 0..1_000 {
        ids.push(short.next_message().await.id);
    }
    postgres.run("DELETE FROM outbox WHERE id <= 500").await;
    let mut back = EventSource::connect(ssegate.url("/short"), Options::http1().resume(&ids[99])).await;
    let gap = back.next_gap().await;
    assert_eq!((&gap["reason"], &gap["from"], &gap["to"]), (&"trimmed".into(), &101.into(), &501.into()));
    back.next_named("stream.position").await;
    assert_eq!(back.next_data(500).await, numbers(500, 1_000));
    // And while nobody reads.
    drop(ssegate);
    postgres.run(&adds(1_000, 1_010)).await;
    postgres.run("DELETE FROM outbox WHERE id <= 1005").await;
    let ssegate = Ssegate::start(config(&postgres.url())).await;
    let mut back = EventSource::connect(ssegate.url("/short"), Options::http1().resume(&ids[999])).await;
    let gap = back.next_gap().await;
    assert_eq!((&gap["reason"], &gap["from"], &gap["to"]), (&"trimmed".into(), &1_001.into(), &1_006.into()));
    back.next_named("stream.position").await;
    assert_eq!(back.next_data(5).await, numbers(1_005, 1_010));
}

#[tokio::test]
async fn a_table_whose_ids_begin_anew_is_another_one() {
    let (postgres, ssegate) = started().await;
    let mut all = open(&ssegate, "/outbox").await;
    postgres.run(&adds(0, 10)).await;
    assert_eq!(all.next_data(10).await, numbers(0, 10));
    let old = all.last_event_id().to_owned();
    for (nth, anew) in [
        "BEGIN; TRUNCATE outbox RESTART IDENTITY; INSERT INTO outbox (payload) SELECT 'new' FROM generate_series(1, 20); COMMIT",
        &format!("BEGIN; DROP TABLE outbox; {OUTBOX}; INSERT INTO outbox (payload) VALUES ('new'); COMMIT"),
    ]
    .into_iter()
    .enumerate()
    {
        postgres.run(anew).await;
        assert_eq!(all.next_gap().await["reason"], "recreated");
        all.next_named("stream.position").await;
        for _ in 0..[20, 1][nth] {
            assert_eq!(all.next_message().await.data, "new");
        }
        let mut back = EventSource::connect(ssegate.url("/outbox"), Options::http1().resume(&old)).await;
        assert_eq!(back.next_gap().await["reason"], "recreated");
        back.next_named("stream.position").await;
        assert_eq!(back.next_message().await.data, "new");
    }
    // What holds the rows may well be written anew.
    postgres.run("VACUUM FULL outbox").await;
    postgres.run(&adds(0, 1)).await;
    assert_eq!(all.next_message().await.data, "0");
}

#[tokio::test]
async fn a_notification_wakes_who_reads_a_table() {
    let (postgres, ssegate) = started().await;
    let mut told = open(&ssegate, "/told").await;
    for number in 0..3 {
        postgres.run(&format!("BEGIN; {}; NOTIFY \"News\"; COMMIT", adds(number, number + 1))).await;
        // It looks once an hour without being told.
        assert_eq!(told.next_message().await.data, number.to_string());
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_told_in_its_place() {
    let postgres = Postgres::start().await;
    postgres
        .run("CREATE TABLE outbox (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload bytea)")
        .await;
    let yaml = format!(
        "limits: {{ max_event: 1KiB }}
upstreams: {{ db: {{ postgres: {{ url: '{}' }} }} }}
routes:
  - {{ path: /outbox, from: {{ upstream: db, table: outbox, every: 20ms }} }}
  - {{ path: /base64, from: {{ upstream: db, table: outbox, every: 20ms }}, binary: base64 }}
",
        postgres.url()
    );
    let ssegate = Ssegate::start(yaml).await;
    let (mut text, mut base64) = (open(&ssegate, "/outbox").await, open(&ssegate, "/base64").await);
    postgres
        .run(
            "INSERT INTO outbox (payload) VALUES ('\\xff'), (convert_to(repeat('x', 100000), 'UTF8')), ('a')",
        )
        .await;
    let (undecodable, large) = (text.next_gap().await, text.next_gap().await);
    assert_eq!((&undecodable["reason"], &large["reason"]), (&"undecodable".into(), &"too_large".into()));
    assert_eq!((&large["missed"], &large["from"], &large["to"]), (&1.into(), &2.into(), &3.into()));
    text.next_named("stream.position").await;
    assert_eq!(text.next_message().await.data, "a");
    assert_eq!(base64.next_message().await.data, "/w==");
    assert_eq!(base64.next_gap().await["reason"], "too_large");
}

/// With no more rights than the documentation asks for.
#[tokio::test]
async fn a_role_that_may_only_read_the_table() {
    let postgres = Postgres::start().await;
    postgres.run(OUTBOX).await;
    postgres.run("CREATE ROLE gate LOGIN; GRANT SELECT ON outbox TO gate").await;
    let ssegate = Ssegate::start(config(&postgres.url_at("gate", postgres.port()))).await;
    let mut short = open(&ssegate, "/short").await;
    postgres.run(&adds(0, 2_000)).await;
    assert_eq!(short.next_data(2_000).await, numbers(0, 2_000));
    let first = short.events().iter().find(|event| event.event == "short").unwrap().id.clone();
    let mut back = EventSource::connect(ssegate.url("/short"), Options::http1().resume(&first)).await;
    back.next_named("stream.position").await;
    assert_eq!(back.next_data(1_999).await, numbers(1, 2_000));
    let mut room = open(&ssegate, "/rooms/a").await;
    postgres.run("NOTIFY \"rooms:a\", 'one'").await;
    assert_eq!(room.next_message().await.data, "one");
    let status = ssegate.status().await;
    assert!(status["upstreams"][0]["last_error"].is_null(), "{status}");
}

#[tokio::test]
async fn what_stands_in_the_way_of_one_table_is_said_and_concerns_no_other_source() {
    for (table, right, told) in [
        ("SELECT 1", "", "there is no such table"),
        (OUTBOX, "", "permission denied for table outbox"),
        (
            "CREATE TABLE outbox (id bigint PRIMARY KEY, payload text)",
            "GRANT SELECT ON outbox TO gate",
            "no sequence gives its ids",
        ),
        (
            "CREATE TABLE outbox (id bigserial PRIMARY KEY, payload text); ALTER SEQUENCE outbox_id_seq CACHE 20",
            "GRANT SELECT ON outbox TO gate",
            "does not give them in order",
        ),
        (
            "CREATE TABLE outbox (id bigserial PRIMARY KEY)",
            "GRANT SELECT ON outbox TO gate",
            "column \"payload\" does not exist",
        ),
    ] {
        let postgres = Postgres::start().await;
        postgres.run(table).await;
        postgres.run(&format!("CREATE ROLE gate LOGIN; {right}")).await;
        let ssegate = Ssegate::start(config(&postgres.url_at("gate", postgres.port()))).await;
        let is_it = |line: &Value| {
            let cause = field(line, "cause").unwrap_or_default();
            field(line, "message") == Some("trouble with an upstream")
                && cause.starts_with("reading table outbox was refused: ")
                && cause.contains(told)
        };
        ssegate.wait_log(told, is_it).await;
        let mut room = open(&ssegate, "/rooms/a").await;
        postgres.run("NOTIFY \"rooms:a\", 'one'").await;
        assert_eq!(room.next_message().await.data, "one");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_told_with_the_way_in() {
    let postgres = Postgres::start().await;
    let config = over_tls(postgres.port(), "secret", "{}").replace(", tls: {}", "");
    let ssegate = Ssegate::start(config).await;
    let cause = ssegate.cause().await;
    assert!(cause.contains("does not support TLS") && cause.contains("`?sslmode=disable`"), "{cause}");
}

fn over_tls(port: u16, password: &str, tls: &str) -> String {
    format!(
        "upstreams: {{ db: {{ postgres: {{ url: 'postgres://gate@localhost:{port}/postgres?sslmode=verify-full', password: {password}, tls: {tls} }} }} }}
routes: [ {{ path: /news, from: {{ upstream: db, channel: news }} }} ]
"
    )
}

#[tokio::test]
async fn tls_and_a_password() {
    let ca = TestCa::new();
    let postgres = Postgres::start_tls(ca.leaf()).await;
    postgres.run("CREATE ROLE gate LOGIN PASSWORD 's3cr3t-pw'").await;
    let own = format!("{{ ca: {} }}", ca.cert_path().display());
    let ssegate = Ssegate::start(over_tls(postgres.port(), "s3cr3t-pw", &own)).await;
    let mut news = open(&ssegate, "/news").await;
    postgres.run("NOTIFY news, 'over TLS'").await;
    assert_eq!(news.next_message().await.data, "over TLS");
    assert_eq!(postgres.number("SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE s.ssl AND a.usename = 'gate'").await, 1);

    let wrong = Ssegate::start(over_tls(postgres.port(), "n0t-it", &own)).await;
    let told = wrong.cause().await;
    assert!(
        told.contains("password authentication failed") && told.contains(&postgres.port().to_string()),
        "{told}"
    );
    wrong.assert_told_once_without("n0t-it").await;

    let strange = format!("{{ ca: {} }}", TestCa::shared().cert_path().display());
    let told = Ssegate::start(over_tls(postgres.port(), "s3cr3t-pw", &strange)).await.cause().await;
    assert!(told.contains("certificate"), "{told}");
}

#[tokio::test]
async fn a_unix_socket() {
    let postgres = Postgres::start().await;
    let url =
        format!("postgres://postgres@:{}/postgres?host={}", postgres.port(), postgres.socket().display());
    let ssegate = Ssegate::start(config(&url)).await;
    let mut room = open(&ssegate, "/rooms/a").await;
    postgres.run("NOTIFY \"rooms:a\", 'one'").await;
    assert_eq!(room.next_message().await.data, "one");
}

#[tokio::test]
async fn a_server_that_comes_back_loses_no_row() {
    let (mut postgres, ssegate) = started().await;
    let mut all = open(&ssegate, "/outbox").await;
    postgres.run(&adds(0, 10)).await;
    assert_eq!(all.next_data(10).await, numbers(0, 10));
    postgres.restart().await;
    postgres.run(&adds(10, 20)).await;
    assert_eq!(all.next_data(10).await, numbers(10, 20));
    postgres.pause();
    // How long it is away is the fault itself.
    tokio::time::sleep(Duration::from_millis(200)).await;
    postgres.resume();
    postgres.run(&adds(20, 30)).await;
    assert_eq!(all.next_data(10).await, numbers(20, 30));
}
