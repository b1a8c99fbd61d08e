//! `ssegate tail` against the real server: what it prints, that it comes back and resumes, that it tells gaps, and how it
//! ends.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::command::{Running, run};
use crate::support::ports;
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::wait::eventually;

const PUSH: &str = r#"
upstreams: { p: { push: {} } }
defaults: { retry: 100ms }
auth: { users: { jwt: { secret: "a secret of 32 bytes or more than that" } } }
routes:
  - { path: /e, from: { upstream: p, channel: e } }
  - { path: /named, from: { upstream: p, channel: e }, event: "n-{channel}" }
  - { path: /over, from: { upstream: p, channel: e }, ended: true }
  - { path: /mine, from: { upstream: p, channel: e }, auth: users }
"#;

fn ca() -> String {
    TestCa::shared().cert_path().display().to_string()
}

/// Starts `tail` and waits until its stream has begun.
async fn tail(args: &[&str]) -> Running {
    let ca = ca();
    let running = Running::start(&[&["tail", "-v", "--cacert", &ca], args].concat());
    running.told("the position is", 1).await;
    running
}

#[tokio::test]
async fn events_are_lines_data_or_json() {
    let ssegate = Ssegate::start(PUSH).await;
    let (plain, named) = (ssegate.url("/e"), ssegate.url("/named"));
    let lines = tail(&[&plain, "-n", "2"]).await;
    let data = tail(&[&plain, "--data", "--http1", "-n", "2"]).await;
    let json = tail(&[&named, "--json", "-n", "2"]).await;
    let other = tail(&[&named, "--event", "other", "--event", "n-e", "--data", "-n", "1"]).await;
    assert!(lines.told("connected", 1).await.contains("HTTP/2"));
    assert!(data.told("connected", 1).await.contains("HTTP/1.1"));
    ssegate.publish("e", "one\ntwo").await;
    ssegate.publish("e", "\x1b[2Jthree").await;

    let lines = lines.ended().await;
    assert!(lines.status.success(), "{lines:?}");
    let [first, second, third] = &lines.stdout[..] else { panic!("{lines:?}") };
    assert!(first.contains("Z message ") && first.ends_with(" one"), "{first}");
    assert!(second == "    two" && third.ends_with(" \\u{1b}[2Jthree"), "{lines:?}");

    let data = data.ended().await;
    assert_eq!(
        (data.status.code(), data.stdout),
        (Some(0), ["one", "two", "\x1b[2Jthree"].map(String::from).to_vec())
    );
    assert_eq!(other.ended().await.stdout, ["one", "two"]);

    let json = json.ended().await.stdout;
    let json: Vec<Value> = json.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&Value> = json.iter().filter(|event| event["event"] == "n-e").collect();
    assert_eq!((&events[0]["data"], &events[1]["data"]), (&"one\ntwo".into(), &"\x1b[2Jthree".into()));
    assert!(events.iter().all(|event| event["id"].as_str().is_some_and(|id| id.contains('-'))));
    assert!(json.iter().any(|event| event["event"] == "stream.position"), "-v shows them, too");
}

/// A stream of Redis, whose ids mean the same to the next process.
fn stream(redis: &Redis, port: u16) -> String {
    let leaf = TestCa::shared().leaf();
    format!(
        r#"
server: {{ listen: "127.0.0.1:{port}", tls: {{ cert: "{}", key: "{}" }} }}
upstreams: {{ r: {{ redis: {{ url: "{}" }} }}, p: {{ push: {{}} }} }}
defaults: {{ retry: 100ms }}
routes:
  - {{ path: /s, from: {{ upstream: r, stream: s }}, data: "{{field.n}}" }}
  - {{ path: /p, from: {{ upstream: p, channel: p }} }}
"#,
        leaf.cert.display(),
        leaf.key.display(),
        redis.url()
    )
}

#[tokio::test]
async fn it_comes_back_to_a_server_that_is_started_again_and_misses_nothing() {
    let redis = Redis::start().await;
    let config = stream(&redis, ports::free());
    let mut ssegate = Ssegate::start(&config).await;
    redis.xadd_numbers("s", 0..3).await;
    let tail = tail(&[&ssegate.url("/s"), "--since", "1h", "--data"]).await;
    assert_eq!(tail.lines(3).await, ["0", "1", "2"]);

    ssegate.terminate().await;
    tail.told("coming back in", 1).await;
    redis.xadd_numbers("s", 3..6).await;
    let again = Ssegate::start(&config).await;
    assert!(tail.told("connected again", 1).await.contains("resuming after"));
    redis.xadd_numbers("s", 6..8).await;
    assert_eq!(tail.lines(8).await, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    drop(again);
}

#[tokio::test]
async fn a_gap_is_told_in_words() {
    let redis = Redis::start().await;
    let config = stream(&redis, ports::free());
    let mut ssegate = Ssegate::start(&config).await;
    let tail = tail(&[&ssegate.url("/p"), "--json"]).await;
    ssegate.publish("p", "before").await;
    tail.lines(2).await;
    ssegate.terminate().await;
    let again = Ssegate::start(&config).await;
    assert_eq!(tail.told("gap: ", 1).await, "gap: events missing (unknown_id)");
    again.publish("p", "after").await;
    // A position, the event, the gap, a position again, the event.
    let lines = tail.lines(5).await;
    let gap = lines.iter().find(|line| line.contains("stream.gap")).expect("a gap");
    let gap: Value = serde_json::from_str(gap).unwrap();
    assert!(gap["data"].as_str().unwrap().contains("unknown_id"), "{gap}");
}

#[tokio::test]
async fn it_ends_where_there_is_no_more_to_come() {
    let ssegate = Ssegate::start(PUSH).await;
    let ca = ca();
    let over = run(&["tail", "--cacert", &ca, &ssegate.url("/over")]).await;
    assert_eq!((over.status.code(), over.stdout.len()), (Some(0), 0), "{over:?}");
    assert!(over.stderr[0].contains("over (204)"), "{over:?}");

    let refused = run(&["tail", "--cacert", &ca, &ssegate.url("/mine")]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr[0].contains("401 Unauthorized: This is not for everybody"), "{refused:?}");
    let nowhere = run(&["tail", "--retry", "--cacert", &ca, &ssegate.url("/nowhere")]).await;
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(nowhere.stderr[0].starts_with("ssegate: 404 Not Found: "), "{nowhere:?}");

    let status = format!("http://{}/status", ssegate.addrs("admin")[0]);
    let other = run(&["tail", &status]).await;
    assert_eq!(other.status.code(), Some(1));
    assert!(other.stderr[0].contains("406") || other.stderr[0].contains("application/json"), "{other:?}");
}

#[tokio::test]
async fn certificates_are_checked_unless_told_otherwise() {
    let ssegate = Ssegate::start(PUSH).await;
    let url = ssegate.url("/e");
    let other = TestCa::new();
    let other = other.cert_path().display().to_string();
    let distrusted = run(&["tail", "--cacert", &other, &url]).await;
    assert_eq!(distrusted.status.code(), Some(1), "{distrusted:?}");
    assert!(distrusted.stderr[0].contains("TLS with localhost"), "{distrusted:?}");
    let told = &distrusted.stderr[0];
    assert!(told.contains("`-k`") && told.contains("invalid peer certificate"), "{told}");
    let trusted = Running::start(&["tail", "-v", "--insecure", &url]);
    trusted.told("the position is", 1).await;
}

#[tokio::test]
async fn nobody_there_is_told_at_once_or_waited_for() {
    let url = format!("http://127.0.0.1:{}/e", ports::free());
    let gone = run(&["tail", &url]).await;
    assert_eq!(gone.status.code(), Some(1));
    assert!(gone.stderr[0].contains("cannot connect to 127.0.0.1"), "{gone:?}");
    let waiting = Running::start(&["tail", "--retry", &url]);
    waiting.told("coming back in 3s", 1).await;
}

async fn publish_on(ssegate: &Ssegate) -> ! {
    loop {
        ssegate.publish("e", "more").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn it_ends_quietly_when_interrupted_and_when_nobody_reads() {
    let ssegate = Ssegate::start(PUSH).await;
    let (ca, url) = (ca(), ssegate.url("/e"));
    let mut interrupted = Running::start(&["tail", "--cacert", &ca, &url]);
    let head = Running::start_reading(&["tail", "--cacert", &ca, "--data", &url], 1);
    // What both print tells nothing of when they have begun.
    eventually("two streams", async || {
        let open = ssegate.metrics().await.sum("ssegate_subscribers", &[("route", "/e")]);
        if open == 2.0 { Ok(()) } else { Err(format!("{open} are open")) }
    })
    .await;
    interrupted.signal(Signal::INT);
    let interrupted = interrupted.ended().await;
    assert_eq!((interrupted.status.signal(), interrupted.stderr.len()), (Some(2), 0), "a shell says 130");

    ssegate.publish("e", "one").await;
    assert_eq!(head.lines(1).await, ["one"]);
    // Its reader leaves soon after that line, and the next that is written finds nobody.
    let ended = tokio::select! {
        ended = head.ended() => ended,
        never = publish_on(&ssegate) => never,
    };
    assert_eq!((ended.status.code(), ended.stderr.len()), (Some(0), 0), "{ended:?}");
}
