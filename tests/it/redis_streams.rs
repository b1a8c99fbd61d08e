//! Redis Streams on a real server: ids that are the entries' own, resuming across restarts and replicas, history beyond
//! memory, and what is told when entries were removed.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::cmd;
use serde_json::{Value, json};

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::Link;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

/// `/audit` keeps what is usual, `/short` next to nothing.
fn config(url: &str) -> String {
    format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{url}", ping_interval: 200ms, timeout: 2s }} }} }}
routes:
  - {{ path: /audit, from: {{ upstream: cache, stream: audit }}, data: "{{field.n}}" }}
  - {{ path: /short, from: {{ upstream: cache, stream: audit }}, data: "{{field.n}}", event: short, history: {{ events: 3 }}, buffer: 64KiB }}
  - {{ path: /few, from: {{ upstream: cache, stream: audit }}, data: "{{field.n}}", event: few, history: {{ events: 3 }}, buffer: 64KiB, replay: {{ max_events: 40 }} }}
  - {{ path: /earliest, from: {{ upstream: cache, stream: audit, start: earliest }}, data: "{{field.n}}", event: short, history: {{ events: 3 }}, buffer: 64KiB }}
  - {{ path: /since, from: {{ upstream: cache, stream: audit, start: {{ since: 1h }} }}, data: "{{field.n}}", event: short, history: {{ events: 3 }}, buffer: 64KiB }}
"#
    )
}

async fn connect(ssegate: &Ssegate, path: &str, options: Options) -> EventSource {
    let mut stream = EventSource::connect(ssegate.url(path), options).await;
    stream.next_named("stream.position").await;
    stream
}

/// The next numbers, and the id of the last.
pub async fn numbers(stream: &mut EventSource, count: usize) -> (Vec<i32>, String) {
    let (mut numbers, mut id) = (Vec::new(), String::new());
    while numbers.len() < count {
        let event = stream.next_message().await;
        numbers.push(event.data.parse().unwrap());
        id = event.id;
    }
    (numbers, id)
}

/// What they are to be.
pub fn all(from: i32, to: i32) -> Vec<i32> {
    (from..to).collect()
}

/// The id that follows, as gaps tell it.
fn after(id: &str) -> String {
    let (millis, seq) = id.split_once('-').unwrap();
    format!("{millis}-{}", seq.parse::<u64>().unwrap() + 1)
}

fn millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A client can order no more of the upstream's history than that.
#[tokio::test]
async fn one_stream_is_given_so_much_of_history_and_no_more() {
    let redis = Redis::start().await;
    let pad = "x".repeat(1_000);
    let mut ids = Vec::new();
    for n in 0..500 {
        ids.push(redis.xadd("long", "*", &[("n", &format!("{n} {pad}"))]).await);
    }
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - path: /long
    from: {{ upstream: cache, stream: long }}
    data: "{{field.n}}"
    history: {{ events: 3 }}
    buffer: 64KiB
    replay: {{ max_bytes: 64KiB }}
"#,
        redis.url()
    ))
    .await;
    let mut stream = EventSource::connect(ssegate.url("/long"), Options::http1().resume(&ids[9])).await;
    let mut given = Vec::new();
    let gap = loop {
        let event = stream.next().await;
        match &*event.event {
            "message" => given.push(event.data.split(' ').next().unwrap().parse::<i32>().unwrap()),
            "stream.gap" => break event.data,
            _ => {}
        }
    };
    let gap: Value = serde_json::from_str(&gap).unwrap();
    assert_eq!(gap["reason"], "replay_limit");
    assert!((60..=100).contains(&given.len()), "64 KiB, and at most one read of 32 more: {}", given.len());
    assert_eq!(given, all(10, 10 + given.len() as i32));
    assert_eq!(gap["from"], after(&ids[9 + given.len()]));
    let next = stream.next_message().await;
    assert!(next.data.starts_with("497 "), "the newest that memory holds: {}", &next.data[..5]);
    redis.xadd("long", "*", &[("n", "500 ")]).await;
    assert_eq!(stream.next_data(3).await[2], "500 ");
}

#[tokio::test]
async fn entries_arrive_with_their_own_ids_and_are_resumed_exactly() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let mut http1 = connect(&ssegate, "/audit", Options::http1()).await;
    let mut http2 = connect(&ssegate, "/audit", Options::http2()).await;
    assert_eq!(http1.events()[0].id, "0-0", "the stream is not there yet");
    let ids = redis.xadd_numbers("audit", 0..10).await;
    for stream in [&mut http1, &mut http2] {
        for (n, id) in ids.iter().enumerate() {
            let event = stream.next_message().await;
            assert_eq!((&*event.data, &event.id), (&*n.to_string(), id));
        }
    }
    let mut again = EventSource::connect(ssegate.url("/audit"), Options::http2().resume(&ids[4])).await;
    assert_eq!(again.next_named("stream.position").await.id, ids[4]);
    assert_eq!(numbers(&mut again, 5).await, (all(5, 10), ids[9].clone()));
    redis.xadd_numbers("audit", [10]).await;
    assert_eq!(numbers(&mut again, 1).await.0, [10]);
    let new = connect(&ssegate, "/audit", Options::http1()).await;
    assert_eq!(new.events()[0].id, again.last_event_id(), "without an id a client begins at the end");
}

/// Ids go over the whole range that Redis has.
#[tokio::test]
async fn the_largest_ids_are_ids_like_others() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let mut stream = connect(&ssegate, "/audit", Options::http1()).await;
    let ids = ["0-1", "1-18446744073709551615", "2-0", "18446744073709551615-18446744073709551615"];
    for id in ids {
        redis.xadd("audit", id, &[("n", "7")]).await;
        assert_eq!(stream.next_message().await.id, id);
    }
    for (at, id) in ids.iter().enumerate() {
        let mut stream = EventSource::connect(ssegate.url("/audit"), Options::http1().resume(id)).await;
        assert_eq!(stream.next_named("stream.position").await.id, *id);
        for id in &ids[at + 1..] {
            assert_eq!(stream.next_message().await.id, *id);
        }
    }
}

#[tokio::test]
async fn a_log_is_filled_at_the_start_so_that_a_client_resumes_after_a_deploy() {
    let redis = Redis::start().await;
    let mut first = Ssegate::start(config(&redis.url())).await;
    let mut stream = connect(&first, "/audit", Options::http1()).await;
    redis.xadd_numbers("audit", 0..30).await;
    let id = numbers(&mut stream, 17).await.1;
    first.kill();
    redis.xadd_numbers("audit", 30..2_000).await;

    let second = Ssegate::start(config(&redis.url())).await;
    let mut stream = EventSource::connect(second.url("/audit"), Options::http2().resume(&id)).await;
    assert_eq!(stream.next_named("stream.position").await.id, id);
    assert_eq!(numbers(&mut stream, 1_983).await.0, all(17, 2_000));
    let feeds = second.status().await["feeds"].clone();
    let feed = feeds.as_array().unwrap().iter().find(|feed| feed["event"].is_null()).unwrap().clone();
    let held = feed["history"]["events"].as_u64().unwrap();
    assert!((1_000..2_000).contains(&held), "the newest thousand, in whole chunks: {held}");
}

#[tokio::test]
async fn what_memory_no_longer_holds_is_read_from_redis() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let mut live = EventSource::connect(ssegate.url("/short"), Options::http1()).await;
    let start = live.next_named("stream.position").await.id;
    redis.xadd_numbers("audit", 0..9_000).await;
    // By then the log has let go of nearly all.
    assert_eq!(numbers(&mut live, 9_000).await.0, all(0, 9_000));
    let mut count = 9_000;
    for options in [Options::http1(), Options::http2()] {
        let mut stream = connect(&ssegate, "/short", options.clone().resume(&start)).await;
        // Somewhere in the middle, then live.
        let (seen, id) = numbers(&mut stream, 4_000).await;
        assert_eq!(seen, all(0, 4_000));
        stream.close();
        let mut stream = connect(&ssegate, "/short", options.resume(&id)).await;
        assert_eq!(numbers(&mut stream, (count - 4_000) as usize).await.0, all(4_000, count));
        redis.xadd_numbers("audit", count..count + 30).await;
        assert_eq!(numbers(&mut stream, 30).await.0, all(count, count + 30));
        count += 30;
    }
}

#[tokio::test]
async fn earliest_since_and_the_query_begin_in_the_past() {
    let redis = Redis::start().await;
    // Three hours ago and so on.
    for (n, minutes) in [(0, 180), (1, 170), (2, 50), (3, 10)] {
        redis.xadd("audit", &format!("{}-0", millis() - minutes * 60_000), &[("n", &n.to_string())]).await;
    }
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let hour_ago = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis() - 3_600_000));
    for (path, from) in [
        ("/earliest".to_owned(), 0),
        ("/since".to_owned(), 2),
        ("/short?since=15m".to_owned(), 3),
        (format!("/short?since={hour_ago}"), 2),
        ("/earliest?since=15m".to_owned(), 3),
    ] {
        let mut stream = connect(&ssegate, &path, Options::http1()).await;
        assert_eq!(numbers(&mut stream, 4 - from as usize).await.0, all(from, 4), "{path}");
        // Cut before anything came, a client still resumes what it asked for.
        let start = stream.events()[0].id.clone();
        let mut stream = connect(&ssegate, &path, Options::http2().resume(&start)).await;
        assert_eq!(numbers(&mut stream, 4 - from as usize).await.0, all(from, 4), "{path}");
    }
}

#[tokio::test]
async fn what_was_trimmed_or_goes_beyond_max_events_is_told_with_its_range() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let mut live = EventSource::connect(ssegate.url("/short"), Options::http1()).await;
    let start = live.next_named("stream.position").await.id;
    let ids = redis.xadd_numbers("audit", 0..3_000).await;
    numbers(&mut live, 3_000).await;
    let mut few = connect(&ssegate, "/few", Options::http1().resume(&start)).await;
    assert_eq!(numbers(&mut few, 40).await.0, all(0, 40));
    let gap = few.next_gap().await;
    assert_eq!((&gap["reason"], &gap["missed"]), (&json!("replay_limit"), &Value::Null));
    assert_eq!(gap["from"], after(&ids[39]));

    redis.command::<()>(cmd("XTRIM").arg("audit").arg("MAXLEN").arg(2_900)).await;
    for from in [&start, &ids[50]] {
        let mut stream = EventSource::connect(ssegate.url("/short"), Options::http2().resume(from)).await;
        let gap = stream.next_gap().await;
        assert_eq!((&gap["reason"], &gap["missed"]), (&json!("trimmed"), &Value::Null));
        assert_eq!((&gap["from"], &gap["to"]), (&json!(after(from)), &json!(ids[100])));
        stream.next_named("stream.position").await;
        assert_eq!(numbers(&mut stream, 2_900).await.0, all(100, 3_000));
    }
    let mut stream = connect(&ssegate, "/short", Options::http1().resume(&ids[100])).await;
    assert_eq!(numbers(&mut stream, 2_899).await.0, all(101, 3_000), "its own entry is there");
}

/// What was answered to one who came while the stream was gone says nothing of the stream that came after it.
#[tokio::test]
async fn a_stream_made_anew_just_after_somebody_asked_is_told() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes: [ {{ path: "/rooms/{{room}}", from: {{ upstream: cache, stream: "room:{{room}}" }}, data: "{{field.n}}" }} ]
"#,
        redis.url()
    ))
    .await;
    // Nobody reads it so far.
    let ids = redis.xadd_numbers("room:a", 0..2).await;
    redis.command::<u64>(cmd("DEL").arg("room:a")).await;
    let mut early = EventSource::connect(ssegate.url("/rooms/a"), Options::http1().resume(&ids[0])).await;
    assert_eq!(early.next_gap().await["reason"], "unknown_id");
    early.next_named("stream.position").await;
    redis.xadd_numbers("room:a", [2]).await;
    assert_eq!(numbers(&mut early, 1).await.0, [2]);
    let mut late = EventSource::connect(ssegate.url("/rooms/a"), Options::http1().resume(&ids[0])).await;
    assert_eq!(late.next_gap().await["reason"], "recreated");
    assert_eq!(numbers(&mut late, 1).await.0, [2]);
}

#[tokio::test]
async fn deleted_entries_are_holes_and_no_gaps() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let mut live = EventSource::connect(ssegate.url("/short"), Options::http1()).await;
    let start = live.next_named("stream.position").await.id;
    let ids = redis.xadd_numbers("audit", 0..9_000).await;
    numbers(&mut live, 9_000).await;
    let odd: Vec<_> = ids.iter().skip(1).step_by(2).collect();
    redis.command::<u64>(cmd("XDEL").arg("audit").arg(&odd)).await;
    // What was read lately memory still has, with what was deleted since.
    let even: Vec<_> = all(0, 2_000).into_iter().filter(|n| n % 2 == 0).collect();
    // After an entry that is there, and after one that is gone.
    for id in &ids[..2] {
        let mut stream = connect(&ssegate, "/short", Options::http1().resume(id)).await;
        assert_eq!(numbers(&mut stream, 999).await.0, even[1..], "{id}");
    }
    // Before all of them there may have been others.
    let mut stream = EventSource::connect(ssegate.url("/short"), Options::http1().resume(&start)).await;
    assert_eq!(stream.next().await.event, "stream.gap");
    stream.next_named("stream.position").await;
    assert_eq!(numbers(&mut stream, 1_000).await.0, even);
}

#[tokio::test]
async fn ids_that_no_entry_has_had_are_unknown() {
    let redis = Redis::start().await;
    redis.xadd_numbers("audit", 0..3).await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    connect(&ssegate, "/audit", Options::http1()).await;
    for id in [
        "garbage",
        "5",
        "05-1",
        "5-1-1",
        "5f0c2a9e4b1d7e63-1",
        "99999999999999-0",
        "18446744073709551616-0",
        "AUZHu9gBAA",
    ] {
        let mut stream = EventSource::connect(ssegate.url("/audit"), Options::http1().resume(id)).await;
        assert_eq!(stream.next_gap().await["reason"], "unknown_id", "{id}");
        redis.xadd_numbers("audit", [7]).await;
        stream.next_named("stream.position").await;
        assert_eq!(numbers(&mut stream, 1).await.0, [7], "new events follow");
    }
}

#[tokio::test]
async fn fields_make_names_and_data() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - {{ path: /all, from: {{ upstream: cache, stream: audit }}, event: "{{stream}}.{{field.type}}" }}
  - {{ path: /one, from: {{ upstream: cache, stream: audit }}, event: "{{field.type}}", data: "{{field.payload}}" }}
  - {{ path: /base64, from: {{ upstream: cache, stream: audit }}, binary: base64 }}
  - {{ path: /stream-gap, from: {{ upstream: cache, stream: audit }}, event: "stre{{field.type}}", data: "{{field.payload}}" }}
"#,
        redis.url()
    ))
    .await;
    let mut streams = Vec::new();
    for path in ["/all", "/one", "/base64", "/stream-gap"] {
        streams.push(connect(&ssegate, path, Options::http2()).await);
    }
    let [whole, one, base64, forged] = &mut streams[..] else { panic!() };
    redis.xadd("audit", "*", &[("type", "sold"), ("payload", "a\nb"), ("type", "am.gap")]).await;
    let without = redis.xadd("audit", "*", &[("type", "bare")]).await;
    redis.command::<String>(cmd("XADD").arg("audit").arg("*").arg("payload").arg(b"\xff\x00")).await;
    let last = redis.xadd("audit", "*", &[("payload", "end")]).await;

    let event = whole.next().await;
    assert_eq!((&*event.event, &*event.data), ("audit.am.gap", r#"{"type":"am.gap","payload":"a\nb"}"#));
    let event = whole.next().await;
    assert_eq!((&*event.event, &*event.data, &event.id), ("audit.bare", r#"{"type":"bare"}"#, &without));
    let gap = whole.next_gap().await;
    assert_eq!(
        (&gap["reason"], &gap["missed"], &gap["from"]),
        (&json!("undecodable"), &json!(1), &json!(after(&without)))
    );
    whole.next_named("stream.position").await;
    assert_eq!(whole.next().await.data, r#"{"payload":"end"}"#);

    let event = one.next().await;
    assert_eq!((&*event.event, &*event.data), ("am.gap", "a\nb"));
    // The entry without the field is passed over, and its id with it.
    let gap = one.next_gap().await;
    assert_eq!((&gap["reason"], &gap["from"]), (&json!("undecodable"), &json!(after(&without))));
    one.next_named("stream.position").await;
    let event = one.next().await;
    assert_eq!((&*event.event, &*event.data, &event.id), ("message", "end", &last));

    let data = base64.next_data(4).await;
    assert_eq!(data[2..], [r#"{"payload":"/wA="}"#, r#"{"payload":"ZW5k"}"#]);
    assert_eq!(forged.next().await.event, "_stream.gap");
}

#[tokio::test]
async fn a_thousand_streams_are_read_on_one_connection_and_new_ones_at_once() {
    let redis = Redis::start().await;
    // A wait of a minute would show if it were not ended for those that join.
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}", ping_interval: 1m }} }} }}
routes: [ {{ path: "/rooms/{{room}}", from: {{ upstream: cache, stream: "room:{{room}}" }}, data: "{{field.n}}", idle_timeout: 0 }} ]
"#,
        redis.url()
    ))
    .await;
    let (mut rooms, mut link) = (Vec::new(), None);
    for room in 0..1_000 {
        if room % 50 == 0 {
            link = Some(Arc::new(Link::open(&ssegate.url("/"), &Options::http2().connect).await.unwrap()));
        }
        let url = ssegate.url(&format!("/rooms/{room}"));
        rooms.push(EventSource::connect_on(link.clone().unwrap(), url, Options::http2()).await);
    }
    for (room, stream) in rooms.iter_mut().enumerate() {
        stream.next_named("stream.position").await;
        redis.xadd_numbers(&format!("room:{room}"), [room as i32]).await;
    }
    for (room, stream) in rooms.iter_mut().enumerate() {
        assert_eq!(numbers(stream, 1).await.0, [room as i32]);
    }
    let connections = redis.connections().await;
    assert_eq!(connections, 3, "to wait on, to ask with, and the one from before anything was wanted");
    // Rooms that are left are not read any more, and the others are.
    rooms.truncate(10);
    eventually("the others to be let go", async || {
        let feeds = ssegate.status().await["feeds"].as_array().unwrap().len();
        if feeds == 10 { Ok(()) } else { Err(format!("{feeds} feeds")) }
    })
    .await;
    redis.xadd_numbers("room:9", [70]).await;
    assert_eq!(numbers(&mut rooms[9], 1).await.0, [70]);
}

#[tokio::test]
async fn no_pubsub_connection_is_made_where_only_streams_are_read() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let mut stream = connect(&ssegate, "/audit", Options::http1()).await;
    redis.xadd_numbers("audit", [1]).await;
    numbers(&mut stream, 1).await;
    assert_eq!((redis.pubsub_connections().await, redis.connections().await), (0, 2));
    assert_eq!(ssegate.status().await["upstreams"][0]["up"], true);
}

#[tokio::test]
async fn a_key_that_is_no_stream_waits_alone() {
    let redis = Redis::start().await;
    redis.command::<()>(cmd("SET").arg("s:bad").arg("text")).await;
    let ssegate = Ssegate::start(rooms(&redis.url())).await;
    let mut good = connect(&ssegate, "/s/good", Options::http2()).await;
    let mut bad = EventSource::connect(ssegate.url("/s/bad"), Options::http2()).await;
    refused(&ssegate, "s:bad").await;
    redis.xadd_numbers("s:good", [1]).await;
    assert_eq!(numbers(&mut good, 1).await.0, [1]);
    // One that is read and becomes something else does not stop the others either.
    let mut turned = connect(&ssegate, "/s/turned", Options::http2()).await;
    redis.command::<()>(cmd("SET").arg("s:turned").arg("text")).await;
    refused(&ssegate, "s:turned").await;
    redis.xadd_numbers("s:good", [2]).await;
    assert_eq!(numbers(&mut good, 1).await.0, [2]);
    for (name, stream) in [("bad", &mut bad), ("turned", &mut turned)] {
        redis.command::<()>(cmd("DEL").arg(format!("s:{name}"))).await;
        redis.xadd_numbers(&format!("s:{name}"), [3]).await;
        if name == "bad" {
            stream.next_named("stream.position").await;
            redis.xadd_numbers("s:bad", [3]).await;
        }
        assert_eq!(numbers(stream, 1).await.0, [3]);
    }
    let said = |line: &&Value| line["cause"].as_str().unwrap_or_default().contains("s:bad");
    assert_eq!(ssegate.log().iter().filter(said).count(), 1, "said once");
}

#[tokio::test]
async fn a_stream_that_an_acl_forbids_waits_alone() {
    let redis = Redis::start().await;
    let allow = |keys: &str| {
        let mut command = cmd("ACL");
        command.arg("SETUSER").arg("gate").arg("on").arg("nopass").arg("+@all").arg("resetkeys").arg(keys);
        command
    };
    redis.command::<()>(&allow("~s:open*")).await;
    let ssegate = Ssegate::start(rooms(&format!("redis://gate:any@127.0.0.1:{}", redis.port()))).await;
    let mut open = connect(&ssegate, "/s/open", Options::http2()).await;
    let mut closed = EventSource::connect(ssegate.url("/s/closed"), Options::http2()).await;
    refused(&ssegate, "s:closed").await;
    let mut other = connect(&ssegate, "/s/open2", Options::http2()).await;
    for (stream, name) in [(&mut open, "s:open"), (&mut other, "s:open2")] {
        redis.xadd_numbers(name, [1]).await;
        assert_eq!(numbers(stream, 1).await.0, [1]);
    }
    redis.command::<()>(&allow("~*")).await;
    closed.next_named("stream.position").await;
    redis.xadd_numbers("s:closed", [1]).await;
    assert_eq!(numbers(&mut closed, 1).await.0, [1]);
}

#[tokio::test]
async fn without_leave_to_wake_the_reader_new_streams_are_read_a_little_later() {
    let redis = Redis::start().await;
    let mut allow = cmd("ACL");
    allow.arg("SETUSER").arg("gate").arg("on").arg("nopass").arg("~*");
    redis.command::<()>(allow.arg("+@read").arg("+xread").arg("+client|id").arg("+ping")).await;
    let ssegate = Ssegate::start(rooms(&format!("redis://gate:any@127.0.0.1:{}", redis.port()))).await;
    let mut streams = Vec::new();
    for name in ["a", "b"] {
        streams.push(connect(&ssegate, &format!("/s/{name}"), Options::http1()).await);
    }
    for (stream, name) in streams.iter_mut().zip(["s:a", "s:b"]) {
        redis.xadd_numbers(name, [1]).await;
        assert_eq!(numbers(stream, 1).await.0, [1]);
    }
    let said = |line: &&Value| line["cause"].as_str().unwrap_or_default().contains("waking the reader");
    let said = ssegate.log().iter().filter(said).count();
    assert!(said <= 1, "said once, if the reader's own time did not come first: {said}");
}

fn rooms(url: &str) -> String {
    format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{url}", ping_interval: 200ms }} }} }}
routes: [ {{ path: "/s/{{name}}", from: {{ upstream: cache, stream: "s:{{name}}" }}, data: "{{field.n}}" }} ]
"#
    )
}

/// Waits until it is shown that `stream` was refused. Not everything is logged where much happens in a second.
async fn refused(ssegate: &Ssegate, stream: &str) {
    eventually("the refusal", async || {
        let error = ssegate.status().await["upstreams"][0]["last_error"]["error"].to_string();
        if error.contains(&format!("{stream} was refused")) { Ok(()) } else { Err(error) }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_killed_and_restarted_loses_nothing() {
    let mut redis = Redis::start_durable().await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let mut http1 = connect(&ssegate, "/audit", Options::http1()).await;
    let mut http2 = connect(&ssegate, "/short", Options::http2()).await;
    for round in 0..3 {
        redis.xadd_numbers("audit", round * 100..(round + 1) * 100).await;
        redis.kill();
        redis.restart().await;
    }
    redis.xadd_numbers("audit", 300..400).await;
    for stream in [&mut http1, &mut http2] {
        assert_eq!(numbers(stream, 400).await.0, all(0, 400));
        assert!(stream.events().iter().all(|event| event.event != "stream.gap"));
    }
}

#[tokio::test]
async fn a_lost_link_is_told_for_channels_and_not_for_streams() {
    let redis = Redis::start_durable().await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await;
    let url = format!("redis://{}", proxy.addr());
    let ssegate = Ssegate::start(format!(
        "{}  - {{ path: /news, from: {{ upstream: cache, channel: news }} }}\n",
        config(&url)
    ))
    .await;
    let mut stream = connect(&ssegate, "/audit", Options::http1()).await;
    let mut news = connect(&ssegate, "/news", Options::http1()).await;
    redis.xadd_numbers("audit", 0..10).await;
    proxy.cut_all();
    redis.xadd_numbers("audit", 10..20).await;
    assert_eq!(numbers(&mut stream, 20).await.0, all(0, 20));
    assert_eq!(news.next_gap().await["reason"], "upstream_lost");
    redis.publish("news", "after").await;
    news.next_named("stream.position").await;
    assert_eq!(news.next().await.data, "after");
}

/// Redis closes links that are idle, if it is told to.
#[tokio::test]
async fn the_link_for_questions_is_made_anew_and_nobody_notices() {
    let redis = Redis::start().await;
    let config = config(&redis.url()).replace("200ms", "1m");
    let news = "  - { path: /news, from: { upstream: cache, channel: news } }\n";
    let ssegate = Ssegate::start(config + news).await;
    let mut stream = connect(&ssegate, "/audit", Options::http1()).await;
    let mut news = connect(&ssegate, "/news", Options::http1()).await;
    for n in 0..5 {
        let clients: String = redis.command(cmd("CLIENT").arg("LIST")).await;
        let asker = clients.lines().find(|line| {
            ["cmd=xinfo", "cmd=xrange", "cmd=xrevrange", "cmd=client|unblock"]
                .iter()
                .any(|cmd| line.contains(cmd))
        });
        let id = asker.and_then(|line| line.strip_prefix("id=")?.split(' ').next()).expect("one that asks");
        assert_eq!(redis.command::<u64>(cmd("CLIENT").arg("KILL").arg("ID").arg(id)).await, 1);
        redis.xadd_numbers("audit", [n]).await;
        assert_eq!(numbers(&mut stream, 1).await.0, [n]);
        redis.publish("news", n.to_string()).await;
        assert_eq!(news.next_message().await.data, n.to_string());
    }
    assert_eq!(ssegate.status().await["upstreams"][0]["reconnects"], 0);
}

#[tokio::test]
async fn a_link_that_hangs_is_noticed_and_nothing_is_lost() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await;
    let ssegate = Ssegate::start(config(&format!("redis://{}", proxy.addr()))).await;
    let mut stream = connect(&ssegate, "/audit", Options::http2()).await;
    redis.xadd_numbers("audit", 0..10).await;
    assert_eq!(numbers(&mut stream, 10).await.0, all(0, 10));
    proxy.pause();
    redis.xadd_numbers("audit", 10..20).await;
    let down = |line: &Value| line["message"].as_str().unwrap_or_default().contains("is down");
    ssegate.wait_log("the loss", down).await;
    redis.xadd_numbers("audit", 20..30).await;
    proxy.resume();
    assert_eq!(numbers(&mut stream, 20).await.0, all(10, 30));
}

#[tokio::test]
async fn a_client_hops_between_two_replicas() {
    let redis = Redis::start().await;
    let replicas = [Ssegate::start(config(&redis.url())).await, Ssegate::start(config(&redis.url())).await];
    let mut id = connect(&replicas[0], "/short", Options::http1()).await.events()[0].id.clone();
    let mut seen = Vec::new();
    for round in 0..6 {
        redis.xadd_numbers("audit", round * 500..(round + 1) * 500).await;
        for (replica, options) in replicas.iter().zip([Options::http1(), Options::http2()]) {
            // At once, so that the replica may not have read yet what the other has given.
            let mut stream = EventSource::connect(replica.url("/short"), options.resume(&id)).await;
            assert_eq!(stream.next_named("stream.position").await.id, id);
            let (numbers, last) = numbers(&mut stream, 250).await;
            seen.extend(numbers);
            id = last;
        }
    }
    assert_eq!(seen, all(0, 3_000));
}

/// Nothing older is left of such streams when an entry has come, and yet nothing was lost.
#[tokio::test]
async fn streams_that_hold_next_to_nothing_give_no_false_gaps() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let mut stream = connect(&ssegate, "/audit", Options::http1()).await;
    for n in 0..50 {
        let mut add = cmd("XADD");
        add.arg("audit").arg("MAXLEN").arg(1).arg("*").arg("n").arg(n);
        redis.command::<String>(&add).await;
        let (seen, id) = numbers(&mut stream, 1).await;
        assert_eq!(seen, [n]);
        if n % 3 == 0 {
            redis.command::<u64>(cmd("XDEL").arg("audit").arg(id)).await;
        }
    }
}

#[tokio::test]
async fn what_is_trimmed_before_it_could_be_read_is_told() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port()).into()).await;
    let url = format!("redis://{}", proxy.addr());
    let patient = config(&url).replace("timeout: 2s", "timeout: 5m");
    for (config, ends) in [(patient, false), (config(&url), true)] {
        redis.command::<()>(cmd("DEL").arg("audit")).await;
        let ssegate = Ssegate::start(config).await;
        let mut stream = connect(&ssegate, "/audit", Options::http1()).await;
        let first = redis.xadd_numbers("audit", 0..5).await;
        assert_eq!(numbers(&mut stream, 5).await.0, all(0, 5));
        proxy.pause();
        let ids = redis.xadd_numbers("audit", 5..1_000).await;
        redis.command::<()>(cmd("XTRIM").arg("audit").arg("MAXLEN").arg(10)).await;
        if ends {
            let down = |line: &Value| line["message"].as_str().unwrap_or_default().contains("is down");
            ssegate.wait_log("the loss", down).await;
        }
        proxy.resume();
        let gap = stream.next_gap().await;
        assert_eq!(
            (&gap["reason"], &gap["missed"], &gap["to"]),
            (&json!("trimmed"), &Value::Null, &json!(ids[985]))
        );
        stream.next_named("stream.position").await;
        assert_eq!(numbers(&mut stream, 10).await.0, all(990, 1_000));
        let metrics = ssegate.metrics().await;
        assert!(metrics.sum("ssegate_source_gaps_total", &[("reason", "trimmed")]) >= 1.0);

        // Whoever replays is told it as well.
        let mut again = EventSource::connect(ssegate.url("/audit"), Options::http2().resume(&first[4])).await;
        again.next_named("stream.position").await;
        let mut seen = Vec::new();
        while seen.last() != Some(&999) {
            let event = again.next().await;
            match event.event.as_str() {
                "stream.gap" => seen.push(-1),
                "stream.position" => {}
                _ => seen.push(event.data.parse().unwrap()),
            }
        }
        let gap = seen.iter().position(|n| *n == -1).expect("the gap");
        assert_eq!(seen[gap + 1..], all(990, 1_000));
    }
}

#[tokio::test]
async fn a_stream_that_was_created_anew_is_told_and_read_from_its_beginning() {
    let redis = Redis::start().await;
    let ssegate = Ssegate::start(config(&redis.url())).await;
    let mut live = connect(&ssegate, "/audit", Options::http1()).await;
    redis.xadd_numbers("audit", 0..5).await;
    let id = numbers(&mut live, 5).await.1;
    redis.command::<()>(cmd("DEL").arg("audit")).await;
    redis.xadd("audit", "5-1", &[("n", "100")]).await;
    redis.xadd("audit", "5-2", &[("n", "101")]).await;
    assert_eq!(live.next_gap().await["reason"], "recreated");
    live.next_named("stream.position").await;
    assert_eq!(numbers(&mut live, 2).await, (vec![100, 101], "5-2".to_owned()));
    let mut back = EventSource::connect(ssegate.url("/audit"), Options::http1().resume(&id)).await;
    assert_eq!(back.next_gap().await["reason"], "unknown_id", "an id that the new one has not come to");
}
