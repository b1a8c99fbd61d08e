//! Attacks on the cost of connections: HTTP/2 frames that lead to nothing (made by hand), half-open handshakes, heads that
//! do not end. Each costs the attacker his connection, or a bounded amount; meanwhile good clients lose nothing and the
//! process stays small.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::child::raise_descriptor_limit;
use crate::support::eventsource::{EventSource, Options};
use crate::support::frames::{self, Raw, frame, get, stream_id};
use crate::support::ssegate::Ssegate;
use crate::support::wait::{eventually, within};
use crate::support::witness::{Witness, resident};

/// `idle_connection` is short so that the witness shows that it is not for connections with streams.
const CONFIG: &str = r#"
limits: { idle_connection: 1s, write_stall: 2s }
upstreams: { lobby: { push: {} } }
routes:
  - { path: /good, from: { upstream: lobby, channel: good } }
  - { path: /e, from: { upstream: lobby, channel: e } }
"#;

/// What the process may grow by during an attack, besides what it takes in any case.
const GROWTH: usize = 32 << 20;

/// Runs the attack on a few connections, of which each has to end before it was sent `most` times. It is counted, and does not
/// fill the log.
async fn floods(attack: impl AsyncFn(Raw) -> usize, settings: &[(u16, u32)], most: usize) {
    let ssegate = Ssegate::start(CONFIG).await;
    let witness = Witness::of(&ssegate, "/good", "good").await;
    let before = resident(ssegate.id());
    for _ in 0..5 {
        let raw = Raw::open(ssegate.addr(), settings).await;
        let sent = within("the connection to be ended", attack(raw)).await;
        assert!(sent < most, "it went on and on: {sent}");
    }
    let after = resident(ssegate.id());
    assert!(after < before + GROWTH, "{before} to {after}");
    eventually("all to be counted", async || {
        match ssegate.metrics().await.sum("ssegate_http2_floods_total", &[]) {
            5.0 => Ok(()),
            n => Err(format!("{n}")),
        }
    })
    .await;
    let trouble = |line: &&serde_json::Value| line["level"] != "INFO";
    assert_eq!(ssegate.log().iter().find(trouble), None);
    witness.unharmed(&ssegate).await;
}

/// More than the sockets between the two hold.
const MANY: usize = 200_000;
/// The same, of a hundred pairs each.
const BATCHES: usize = 10_000;

#[tokio::test]
async fn requests_that_are_taken_back_at_once() {
    let pair =
        |n| [get("/e", stream_id(n)), frame(frames::RST_STREAM, 0, stream_id(n), &[0, 0, 0, 8])].concat();
    floods(async |raw| raw.flood_with(pair, MANY).await, &[], MANY).await;
    // Many at a time, so that none of them is looked at before it is taken back.
    let many_from = |first: usize| (first..first + 100).flat_map(pair).collect::<Vec<u8>>();
    let many = |n: usize| many_from(100 * n);
    floods(async |raw| raw.flood_with(many, MANY).await, &[], BATCHES).await;
    // Nor does it help to have some of them answered.
    let some = |n: usize| [get("/nowhere", stream_id(101 * n)), many_from(101 * n + 1)].concat();
    floods(async |raw| raw.flood_with(some, MANY).await, &[], BATCHES).await;
}

/// CVE-2025-8671: a window that overflows has the server reset the stream, for which it may have begun to work.
#[tokio::test]
async fn requests_that_the_server_is_made_to_take_back() {
    let overflow = |n| {
        let window = frame(frames::WINDOW_UPDATE, 0, stream_id(n), &0x7fff_ffff_u32.to_be_bytes());
        [get("/e", stream_id(n)), window].concat()
    };
    floods(async |raw| raw.flood_with(overflow, MANY).await, &[], MANY).await;
}

#[tokio::test]
async fn heads_that_go_on_and_on() {
    for length in [0, 100, 16_000] {
        // A field `x` of 15 bytes, again and again.
        let field = [&[0x00, 1, b'x', 11][..], b"aaaaaaaaaaa"].concat();
        let junk: Vec<u8> = field.iter().copied().cycle().take(length / field.len() * field.len()).collect();
        let begin = frame(frames::HEADERS, frames::END_STREAM, 1, &frames::block("/e"));
        let more = frame(frames::CONTINUATION, 0, 1, &junk);
        floods(
            async |mut raw: Raw| {
                raw.send(&begin).await.unwrap();
                raw.flood(&more, MANY).await
            },
            &[],
            MANY,
        )
        .await;
    }
}

#[tokio::test]
async fn frames_that_must_be_answered() {
    let ping = frame(frames::PING, 0, 0, b"12345678");
    floods(async |raw| raw.flood(&ping, MANY).await, &[], MANY).await;
    let settings = frame(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]);
    floods(async |raw| raw.flood(&settings, MANY).await, &[], MANY).await;
}

#[tokio::test]
async fn frames_that_mean_nothing() {
    let priority = frame(frames::PRIORITY, 0, 1, &[0, 0, 0, 0, 10]);
    floods(async |raw| raw.flood(&priority, MANY).await, &[], MANY).await;
    let post =
        frame(frames::HEADERS, frames::END_HEADERS, 1, &[&[0x83][..], &frames::block("/e")[1..]].concat());
    let empty = frame(frames::DATA, 0, 1, b"");
    floods(
        async |mut raw: Raw| {
            raw.send(&post).await.unwrap();
            raw.flood(&empty, MANY).await
        },
        &[],
        MANY,
    )
    .await;
}

#[tokio::test]
async fn windows_that_open_by_a_byte() {
    let byte = frame(frames::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    floods(async |raw| raw.flood(&byte, MANY).await, &[], MANY).await;
    // And of streams that could send a byte each time.
    let of_stream = frame(frames::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
    floods(
        async |mut raw: Raw| {
            raw.send(&get("/e", 1)).await.unwrap();
            raw.flood(&of_stream, MANY).await
        },
        &[(4, 0)],
        MANY,
    )
    .await;
}

/// A page with thousands of parts, or a load balancer with many users on one connection: requests as fast as they are
/// answered, and streams that are opened and closed again, while another stream of the connection goes on.
#[tokio::test]
async fn a_connection_that_is_busy_is_no_flood() {
    let ssegate = Ssegate::start(CONFIG).await;
    let mut raw = Raw::open(ssegate.addr(), &[]).await;
    raw.send(&frame(frames::WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes())).await.unwrap();
    raw.send(&get("/e", 1)).await.unwrap();
    within("the stream", raw.reader.next_of(frames::HEADERS, 1)).await.expect("its head");
    let mut ids = (1..).map(stream_id);
    for path in ["/nowhere", "/e"] {
        for _ in 0..30 {
            let crowd: Vec<u32> = ids.by_ref().take(100).collect();
            let requests: Vec<u8> = crowd.iter().flat_map(|&id| get(path, id)).collect();
            raw.send(&requests).await.unwrap();
            let mut answers = 0;
            while answers < crowd.len() {
                let frame = within("answers", raw.reader.next()).await.expect("the connection goes on");
                assert_ne!(frame.kind, frames::GOAWAY);
                answers += usize::from(frame.kind == frames::HEADERS && crowd.contains(&frame.stream));
            }
            if path == "/e" {
                let closed = |&id| frame(frames::RST_STREAM, 0, id, &[0, 0, 0, 8]);
                raw.send(&crowd.iter().flat_map(closed).collect::<Vec<u8>>()).await.unwrap();
            }
        }
    }
    ssegate.publish("e", "still here").await;
    let told = |payload: &[u8]| payload.windows(10).any(|part| part == b"still here");
    while !told(&within("an event", raw.reader.next_of(frames::DATA, 1)).await.expect("it goes on").payload) {
    }
    assert_eq!(ssegate.metrics().await.sum("ssegate_http2_floods_total", &[]), 0.0);
}

#[tokio::test]
async fn windows_that_never_open() {
    let ssegate = Ssegate::start(CONFIG).await;
    let witness = Witness::of(&ssegate, "/good", "good").await;
    let before = resident(ssegate.id());
    let mut raws = Vec::new();
    for _ in 0..10 {
        let mut raw = Raw::open(ssegate.addr(), &[(4, 0)]).await;
        for n in 0..250 {
            raw.send(&get("/e", stream_id(n))).await.unwrap();
        }
        raws.push(raw);
    }
    for n in 0..20 {
        ssegate.publish("e", format!("{n} {}", "x".repeat(64 * 1024))).await;
    }
    eventually("all streams to be ended as stalled", async || {
        let ended = [("route", "/e"), ("reason", "stalled")];
        match ssegate.metrics().await.sum("ssegate_streams_ended_total", &ended) {
            2500.0 => Ok(()),
            n => Err(format!("{n}")),
        }
    })
    .await;
    let after = resident(ssegate.id());
    assert!(after < before + GROWTH, "{before} to {after}");
    witness.unharmed(&ssegate).await;
}

/// Connections that say nothing, or half of something, and one whose only stream is over.
#[tokio::test]
async fn http2_connections_without_a_stream_are_ended() {
    let ssegate = Ssegate::start(CONFIG.replace("write_stall", "head_timeout: 5s, write_stall")).await;
    let witness = Witness::of(&ssegate, "/good", "good").await;
    let mut silent = Raw::silent(ssegate.addr()).await;
    assert!(within("one without a preface to end", silent.reader.next_of(frames::GOAWAY, 0)).await.is_none());
    let mut idle = Raw::open(ssegate.addr(), &[]).await;
    within("one without a request", idle.reader.next_of(frames::GOAWAY, 0)).await.expect("a goodbye");
    let mut half = Raw::open(ssegate.addr(), &[]).await;
    half.send(&frame(frames::HEADERS, 0, 1, &frames::block("/e"))).await.unwrap();
    while within("one with half a head", half.reader.next()).await.is_some() {}
    let mut over = Raw::open(ssegate.addr(), &[]).await;
    over.send(&get("/nowhere", 1)).await.unwrap();
    within("an answer", over.reader.next_of(frames::HEADERS, 1)).await.expect("404");
    within("one whose stream is over", over.reader.next_of(frames::GOAWAY, 0)).await.expect("a goodbye");
    witness.unharmed(&ssegate).await;
}

#[tokio::test]
async fn ten_thousand_handshakes_that_are_never_finished() {
    let hard = raise_descriptor_limit();
    let count = hard.map_or(10_000, |hard| (hard as usize / 2).saturating_sub(1_000)).min(10_000);
    let config = CONFIG.replace("write_stall", "handshake_timeout: 5m, write_stall");
    let ssegate = Ssegate::start(config).await;
    let witness = Witness::of(&ssegate, "/good", "good").await;
    let before = resident(ssegate.id());
    let mut open = Vec::new();
    for n in 0..count {
        let mut socket = TcpStream::connect(ssegate.addr()).await.unwrap();
        if n % 2 == 0 {
            socket.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await.unwrap();
        }
        open.push(socket);
    }
    eventually("all to be accepted", async || match ssegate.status().await["connections"]["open"].as_u64() {
        Some(n) if n >= count as u64 => Ok(()),
        n => Err(format!("{n:?}")),
    })
    .await;
    let after = resident(ssegate.id());
    assert!(after < before + count * 12 * 1024, "{} each", (after - before) / count);
    let mut late = EventSource::connect(ssegate.url("/e"), Options::http2()).await;
    late.next_named("stream.position").await;
    drop(open);
    witness.unharmed(&ssegate).await;
}

#[tokio::test]
async fn a_thousand_heads_that_come_slowly() {
    let config = CONFIG.replace("limits: {", "limits: { head_timeout: 3s,");
    let ssegate = Ssegate::start(format!("server: {{ listen: \"127.0.0.1:0\", tls: none }}\n{config}")).await;
    let witness = Witness::reading(&ssegate, "/good", "good", [Options::http1(), Options::http1()]).await;
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let addr = ssegate.addr();
        slow.spawn(async move {
            let mut socket = TcpStream::connect(addr).await.unwrap();
            socket.write_all(b"GET /e HTTP/1.1\r\nhost: localhost\r\nx: ").await.unwrap();
            let (mut reader, mut writer) = socket.split();
            // The attack itself: a byte at a time, for as long as it is taken.
            let mut pace = tokio::time::interval(Duration::from_millis(250));
            let drip = async {
                while writer.write_all(b"a").await.is_ok() {
                    pace.tick().await;
                }
            };
            let mut answer = Vec::new();
            tokio::select! { () = drip => {}, _ = reader.read_to_end(&mut answer) => {} }
        });
    }
    within("all of them to be ended", async { while slow.join_next().await.is_some() {} }).await;
    assert!(witness.growth(&ssegate) < GROWTH, "{}", witness.growth(&ssegate));
    let mut next = EventSource::connect(ssegate.url("/e"), Options::http1()).await;
    next.next_named("stream.position").await;
    witness.unharmed(&ssegate).await;
}
