//! The other forms of a stream on its own path: lines of JSON for scripts, and pages of what there is for who polls.

use std::collections::VecDeque;
use std::sync::Arc;

use http::{Method, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, Link, Reply, build, request};
use crate::support::ports;
use crate::support::redis::Redis;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::wait::{eventually, within};

const PUSH: &str = r#"
upstreams: { lobby: { push: {} } }
routes:
  - { path: /news, from: { upstream: lobby, channel: news } }
  - { path: /quiet, from: { upstream: lobby, channel: quiet }, keepalive: 1s }
  - { path: "/rooms/{room}", from: { upstream: lobby, channel: "{room}" } }
  - { path: /one, from: { upstream: lobby, channel: one }, limits: { streams: 1 }, cors: { origins: "*" } }
  - { path: /over, from: { upstream: lobby, channel: over }, ended: true }
"#;

pub const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json";

/// Lines of a response as they come.
pub struct Lines {
    response: Response<Incoming>,
    bytes: Vec<u8>,
    pending: VecDeque<String>,
    _link: Arc<Link>,
}

impl Lines {
    pub async fn open(url: &str, headers: &[(&str, &str)], connect: &Connect) -> Self {
        let link = Arc::new(Link::open(url, connect).await.unwrap());
        let response = within(url, link.send(build(Method::GET, url, headers, ""))).await.unwrap();
        assert_eq!(response.status(), 200);
        Self { response, bytes: Vec::new(), pending: VecDeque::new(), _link: link }
    }

    fn header(&self, name: &str) -> &str {
        self.response.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The next line; none once the response has ended.
    async fn line(&mut self) -> Option<String> {
        while self.pending.is_empty() {
            let frame = within("a line", self.response.body_mut().frame()).await?.unwrap();
            self.bytes.extend_from_slice(frame.data_ref().unwrap());
            while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                self.pending.push_back(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
        }
        self.pending.pop_front()
    }

    /// The next line that is no keepalive.
    pub async fn next(&mut self) -> Value {
        loop {
            let line = self.line().await.expect("the stream goes on");
            if !line.is_empty() {
                return serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            }
        }
    }

    /// The next line of this name.
    pub async fn next_named(&mut self, name: &str) -> Value {
        loop {
            let line = self.next().await;
            if line["event"] == name {
                return line;
            }
        }
    }
}

pub async fn page(ssegate: &Ssegate, path: &str) -> Reply {
    request(Method::GET, &ssegate.url(path), &[("accept", JSON)], "", &Connect::http1()).await
}

/// The page, once it has so many events: readers are woken a moment after what is published.
pub async fn page_of(ssegate: &Ssegate, path: &str, events: usize) -> Value {
    eventually("the page to be there", async || {
        let page = page(ssegate, path).await.json();
        // While the place of the page before is not free yet there are none.
        let there = page["events"].as_array().map_or(0, Vec::len);
        if there == events { Ok(page) } else { Err(format!("{there} of {events} events")) }
    })
    .await
}

pub fn data(page: &Value) -> Vec<&Value> {
    page["events"].as_array().unwrap().iter().map(|event| &event["data"]).collect()
}

#[tokio::test]
async fn lines_say_what_the_stream_says() {
    let ssegate = Ssegate::start(PUSH).await;
    for connect in [Connect::http1(), Connect::http2()] {
        let mut lines = Lines::open(&ssegate.url("/news"), &[("accept", NDJSON)], &connect).await;
        assert_eq!(lines.header("content-type"), NDJSON);
        assert_eq!(lines.header("cache-control"), "no-store, no-transform");
        let mut events = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
        events.next_named("stream.position").await;
        let retry = lines.next().await;
        assert_eq!(retry["event"], "stream.retry");
        assert!((2250..=3750).contains(&retry["data"]["ms"].as_u64().unwrap()), "{retry}");
        let position = lines.next().await;
        assert_eq!((&position["event"], &position["data"]), (&json!("stream.position"), &json!({})));
        for (payload, data) in [
            (r#"{"a":[1,2.50]}"#, json!({ "a": [1, 2.5] })),
            ("[\n1\n]", json!([1])),
            ("line one\r\nline two", json!("line one\nline two")),
            ("42", json!("42")),
            ("{", json!("{")),
            ("", json!("")),
        ] {
            ssegate.publish("news", payload).await;
            let (line, event) = (lines.next().await, events.next_message().await);
            assert_eq!(line, json!({ "id": event.id, "event": "message", "data": data }));
        }
        ssegate.publish("news?event=sale", "x").await;
        assert_eq!(lines.next().await["event"], "sale");
    }
}

#[tokio::test]
async fn lines_resume_as_streams_do_and_tell_gaps() {
    let ssegate = Ssegate::start(PUSH).await;
    let mut stream = EventSource::connect(ssegate.url("/news"), Options::http1()).await;
    stream.next_named("stream.position").await;
    for n in 0..4 {
        ssegate.publish("news", n.to_string()).await;
    }
    stream.next_data(4).await;
    let id = stream.events()[2].id.clone();
    let by_header = [("accept", NDJSON), ("last-event-id", &*id)];
    let mut lines = Lines::open(&ssegate.url("/news"), &by_header, &Connect::http2()).await;
    assert_eq!(lines.next_named("stream.position").await["id"], *id);
    assert_eq!(lines.next().await["data"], "2");
    let third = lines.next().await;
    assert_eq!(third["data"], "3");

    let url = ssegate.url(&format!("/news?lastEventId={id}"));
    let mut lines = Lines::open(&url, &[("accept", NDJSON)], &Connect::http1()).await;
    assert_eq!(lines.next_named("message").await["data"], "2");
    // An id is the same in all forms.
    let id = third["id"].as_str().unwrap();
    let mut stream = EventSource::connect(ssegate.url("/news"), Options::http1().resume(id)).await;
    stream.next_named("stream.position").await;
    ssegate.publish("news", "4").await;
    assert_eq!(stream.next_data(1).await, ["4"]);

    let unknown = [("accept", NDJSON), ("last-event-id", "nonsense")];
    let mut lines = Lines::open(&ssegate.url("/news"), &unknown, &Connect::http1()).await;
    let gap = lines.next_named("stream.gap").await;
    assert_eq!((&gap["data"]["reason"], &gap["id"]), (&json!("unknown_id"), &Value::Null));
}

#[tokio::test]
async fn silence_is_filled_with_empty_lines_and_a_drain_says_when_to_come_back() {
    let mut ssegate = Ssegate::start(PUSH).await;
    let mut lines =
        Lines::open(&ssegate.url("/quiet"), &[("accept", "application/jsonl")], &Connect::http2()).await;
    assert_eq!(lines.header("content-type"), "application/jsonl");
    lines.next_named("stream.position").await;
    for _ in 0..2 {
        assert_eq!(lines.line().await.as_deref(), Some(""));
    }
    ssegate.terminate().await;
    let last = loop {
        match lines.line().await.expect("last words") {
            line if line.is_empty() => {}
            line => break serde_json::from_str::<Value>(&line).unwrap(),
        }
    };
    assert_eq!(last["event"], "stream.retry");
    assert_eq!(lines.line().await, None, "it has ended as it should");
}

#[tokio::test]
async fn a_page_has_what_there_is_and_its_next_goes_on() {
    let ssegate = Ssegate::start(PUSH).await;
    let first = page(&ssegate, "/news").await;
    assert_eq!((first.status.as_u16(), first.header("content-type")), (200, JSON));
    assert_eq!(first.header("cache-control"), "no-store, no-transform");
    let first = first.json();
    assert_eq!((&first["events"], &first["gaps"]), (&json!([]), &json!([])), "it begins with what comes");
    let next = |page: &Value| format!("/news?lastEventId={}", page["next"].as_str().unwrap());
    for n in 0..5 {
        ssegate.publish("news", json!({ "n": n }).to_string()).await;
    }
    let all = page_of(&ssegate, &next(&first), 5).await;
    assert_eq!(all["events"][4]["id"], all["next"]);
    let two = page_of(&ssegate, &format!("{}&limit=2", next(&first)), 2).await;
    assert_eq!(data(&two), [&json!({ "n": 0 }), &json!({ "n": 1 })]);
    let rest = page_of(&ssegate, &next(&two), 3).await;
    assert_eq!(rest["events"].as_array().unwrap(), &all["events"].as_array().unwrap()[2..]);
    let none = page(&ssegate, &next(&rest)).await.json();
    assert_eq!(none, json!({ "events": [], "next": rest["next"], "gaps": [] }));

    // A stream goes on after a page, and a page after a stream.
    let id = two["next"].as_str().unwrap();
    let mut stream = EventSource::connect(ssegate.url("/news"), Options::http2().resume(id)).await;
    let event = stream.next_message().await;
    assert_eq!(event.data, r#"{"n":2}"#);
    let header = [("accept", JSON), ("last-event-id", &*event.id)];
    let after = request(Method::GET, &ssegate.url("/news"), &header, "", &Connect::http2()).await;
    assert_eq!(after.json()["events"].as_array().unwrap().len(), 2);
    let gone = page(&ssegate, "/news?lastEventId=nonsense").await.json();
    assert_eq!((&gone["gaps"][0]["reason"], &gone["gaps"][0]["at"]), (&json!("unknown_id"), &json!(0)));

    assert_eq!(ssegate.metrics().await.sum("ssegate_client_gaps_total", &[("route", "/news")]), 1.0);
    assert!(ssegate.metrics().await.sum("ssegate_pages_total", &[("route", "/news")]) >= 6.0);
    assert_eq!(page(&ssegate, "/over").await.status, 204);
}

#[tokio::test]
async fn pages_reach_as_far_back_as_the_upstream_does() {
    let redis = Redis::start().await;
    redis.xadd_numbers("audit", 0..350).await;
    let ssegate = Ssegate::start(format!(
        r#"
upstreams: {{ cache: {{ redis: {{ url: "{}" }} }} }}
routes:
  - path: /audit
    from: {{ upstream: cache, stream: audit }}
    data: "{{field.n}}"
    history: {{ events: 3 }}
    buffer: 64KiB
"#,
        redis.url()
    ))
    .await;
    let (mut given, mut path) = (Vec::new(), "/audit?since=1h".to_owned());
    loop {
        let page = page(&ssegate, &path).await.json();
        assert_eq!(page["gaps"], json!([]));
        let events = page["events"].as_array().unwrap();
        if events.is_empty() {
            break;
        }
        assert!(events.len() <= 100, "by default");
        given.extend(events.iter().map(|event| event["data"].as_str().unwrap().parse::<i32>().unwrap()));
        path = format!("/audit?lastEventId={}", page["next"].as_str().unwrap());
    }
    assert_eq!(given, (0..350).collect::<Vec<_>>());
    let all = page(&ssegate, "/audit?since=1h&limit=1000").await.json();
    assert_eq!(all["events"].as_array().unwrap().len(), 350);
}

#[tokio::test]
async fn what_is_no_page_is_a_problem_with_its_status() {
    let closed = ports::free();
    let ssegate = Ssegate::start(format!(
        r#"{}
  - {{ path: /down, from: {{ upstream: cache, channel: x }}, cors: {{ origins: "*" }} }}
  - {{ path: /guarded, from: {{ upstream: lobby, channel: x }}, auth: machines }}
  - {{ path: /unknown, from: {{ upstream: lobby, channel: x }}, auth: app }}
auth: {{ app: {{ forward: {{ url: "http://127.0.0.1:{closed}/" }} }}, machines: {{ api_key: {{ keys: {{ ci: "sha256:e225abbe0ed74ca317fdf5e27bd4994d962e6462756af5eaec627c654c5c439d" }} }} }} }}
"#,
        PUSH.replace("{ lobby:", &format!("{{ cache: {{ redis: {{ url: 'redis://127.0.0.1:{closed}' }} }}, lobby:"))
    ))
    .await;
    for (path, accept, status, problem) in [
        ("/news", "text/html", 406, "not-acceptable"),
        ("/news?limit=0", JSON, 400, "bad-request"),
        ("/news?limit=1001", JSON, 400, "bad-request"),
        ("/news?limit=x", JSON, 400, "bad-request"),
        ("/news?since=x", JSON, 400, "bad-since"),
        ("/guarded", JSON, 401, "no-credential"),
        ("/guarded", NDJSON, 401, "no-credential"),
        ("/unknown", JSON, 503, "undecided"),
        ("/unknown", NDJSON, 503, "undecided"),
        ("/unknown?probe", JSON, 503, "undecided"),
    ] {
        let reply =
            request(Method::GET, &ssegate.url(path), &[("accept", accept)], "", &Connect::http1()).await;
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.json()["type"], format!("urn:ssegate:problem:{problem}"));
        assert_eq!(reply.header("vary"), "accept");
    }
    let key = [("accept", JSON), ("x-api-key", "key of ci")];
    let guarded = request(Method::GET, &ssegate.url("/guarded"), &key, "", &Connect::http2()).await;
    assert_eq!((guarded.status.as_u16(), &guarded.json()["events"]), (200, &json!([])));

    let down = request(
        Method::GET,
        &ssegate.url("/down"),
        &[("accept", JSON), ("origin", "https://a.example")],
        "",
        &Connect::http1(),
    )
    .await;
    assert_eq!((down.status.as_u16(), &down.json()["type"]), (503, &json!("urn:ssegate:problem:unanswered")));
    assert!(down.header("retry-after").parse::<u32>().unwrap() > 0);
    assert_eq!(down.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn whoever_finds_no_room_is_told_by_the_status() {
    let ssegate = Ssegate::start(PUSH).await;
    let mut only = EventSource::connect(ssegate.url("/one"), Options::http1()).await;
    only.next_named("stream.position").await;
    for accept in [JSON, NDJSON] {
        let url = ssegate.url("/one");
        let reply = request(Method::GET, &url, &[("accept", accept)], "", &Connect::http1()).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["type"]),
            (503, &json!("urn:ssegate:problem:overloaded"))
        );
        assert!(reply.header("retry-after").parse::<u32>().unwrap() > 0);
    }
    let labels = [("route", "/one"), ("reason", "streams")];
    ssegate.until_counted("ssegate_streams_shed_total", &labels, 2.0).await;
    only.close();
    // A page has its place only while it lasts.
    for _ in 0..2 {
        eventually("a page", async || match page(&ssegate, "/one").await.status.as_u16() {
            200 => Ok(()),
            status => Err(status),
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_take_its_page_is_ended() {
    let config = PUSH.replacen(
        "upstreams",
        "limits: { write_stall: 5s, max_event: 16MiB }\ndefaults: { history: { bytes: 32MiB } }\nupstreams",
        1,
    );
    let ssegate = Ssegate::start(config).await;
    let id = page(&ssegate, "/one").await.json()["next"].as_str().unwrap().to_owned();
    ssegate.publish("one", vec![b'x'; 16_000_000]).await;
    let path = format!("/one?lastEventId={id}");
    page_of(&ssegate, &path, 1).await;
    for connect in [
        Connect { receive_buffer: Some(8192), ..Connect::http1() },
        Connect { stream_window: Some(16 * 1024), ..Connect::http2() },
    ] {
        let link = Link::open(&ssegate.url(&path), &connect).await.unwrap();
        let head = link.send(build(Method::GET, &ssegate.url(&path), &[("accept", JSON)], "")).await.unwrap();
        assert_eq!(head.status(), 200);
        // The route has one place, which it holds until it is ended, seconds later.
        page_of_next(&ssegate, &path).await;
    }
}

async fn page_of_next(ssegate: &Ssegate, path: &str) {
    let refused = page(ssegate, path).await;
    assert_eq!(refused.status, 503, "the place is taken");
    eventually("the place to be free", async || match page(ssegate, path).await.status.as_u16() {
        200 => Ok(()),
        status => Err(status),
    })
    .await;
}

#[tokio::test]
async fn a_script_of_five_lines_reads_a_stream() {
    let ssegate = Ssegate::start(PUSH).await;
    let mut command = crate::support::child::command("sh");
    let script = "curl -sN --cacert \"$0\" -H 'accept: application/x-ndjson' \"$1\" | python3 -uc 'import json, sys\nfor line in sys.stdin:\n  event = json.loads(line) if line.strip() else None\n  if event: print(event[\"event\"], event[\"data\"])'";
    command.args(["-c", script]).arg(TestCa::shared().cert_path()).arg(ssegate.url("/quiet"));
    command.stdout(std::process::Stdio::piped());
    let mut process = crate::support::child::Child::spawn(command);
    let output = process.take_output().0.unwrap();
    let (sender, mut printed) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        use std::io::BufRead as _;
        for line in std::io::BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let mut next = async || within("a line", printed.recv()).await.expect("it goes on");
    assert!(next().await.starts_with("stream.retry "));
    assert_eq!(next().await, "stream.position {}");
    ssegate.publish("quiet", r#"{"n": 1}"#).await;
    assert_eq!(next().await, "message {'n': 1}");
    ssegate.publish("quiet", "text").await;
    assert_eq!(next().await, "message text");
}
