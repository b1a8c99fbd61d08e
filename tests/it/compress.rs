//! Compressed streams: decoded event by event as they arrive, by a decoder of the tests', curl, Node, Python and
//! browsers; and all that a stream is otherwise holds for them too.

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::Duration;

use http::Method;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

use crate::support::browser::Browser;
use crate::support::child::{self, Child};
use crate::support::collector::Collector;
use crate::support::eventsource::{End, EventSource, Options};
use crate::support::http::{Connect, request};
use crate::support::proxy::Proxy;
use crate::support::recorder::{Habits, Recorder};
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::wait::{DEADLINE, eventually};

const CONFIG: &str = r#"
limits: { write_stall: 10m }
upstreams: { lobby: { push: {} } }
defaults: { compress: { min_length: 0 } }
routes:
  - { path: /news, from: { upstream: lobby, channel: news }, retry: 200ms }
  - { path: /gzip, from: { upstream: lobby, channel: news }, retry: 200ms, compress: { codings: gzip, level: 6, min_length: 0 }, cors: { origins: "*" } }
  - { path: /zstd, from: { upstream: lobby, channel: news }, retry: 200ms, compress: zstd, cors: { origins: "*" } }
  - { path: /plain, from: { upstream: lobby, channel: news }, compress: none }
  - { path: /quiet, from: { upstream: lobby, channel: quiet }, keepalive: 1s }
  - { path: /gap, from: { upstream: lobby, channel: gap }, history: { events: 10, bytes: 256KiB }, buffer: 256KiB }
  - { path: /leave, from: { upstream: lobby, channel: leave }, history: { events: 10, bytes: 256KiB }, buffer: 256KiB, on_lag: disconnect }
"#;

const CODINGS: [&str; 2] = ["gzip", "zstd"];

fn accepting(coding: &str, options: Options) -> Options {
    options.header("accept-encoding", coding)
}

/// A stream in this coding whose start has been told.
async fn open(ssegate: &Ssegate, path: &str, coding: &str, options: Options) -> EventSource {
    let mut stream = EventSource::connect(ssegate.url(path), accepting(coding, options)).await;
    assert_eq!(stream.header("content-encoding"), coding);
    stream.next_named("stream.position").await;
    stream
}

/// Text that gets shorter, and another each time.
fn event(n: usize) -> String {
    format!("{n} {}", format!("this event is number {n}; ").repeat(10))
}

/// Text that does not get shorter by much.
fn noise(n: usize, length: usize) -> String {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(n as u64 + 1);
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + (state % 93) as u8)
    };
    (0..length).map(|_| letter()).collect()
}

#[tokio::test]
async fn each_event_is_there_as_soon_as_it_is_published() {
    let ssegate = Ssegate::start(CONFIG).await;
    for coding in CODINGS {
        for options in [Options::http1(), Options::http2()] {
            let mut stream = open(&ssegate, "/news", coding, options).await;
            assert_eq!(stream.header("vary"), "accept-encoding");
            assert!(stream.retry().is_some() && stream.comments().len() == 1);
            for n in 0..20 {
                let payload = if n == 7 { String::new() } else { event(n) };
                ssegate.publish("news", &payload).await;
                assert_eq!(stream.next_message().await.data, payload, "{coding}");
            }
        }
    }
    let metrics = ssegate.metrics().await;
    let [sent, plain] = ["ssegate_sent_bytes_total", "ssegate_sent_plain_bytes_total"]
        .map(|name| metrics.sum(name, &[("route", "/news")]));
    assert!(sent < plain * 0.7, "{sent} of {plain}");
}

#[tokio::test]
async fn many_and_large_events_arrive_in_either_coding() {
    let ssegate = Ssegate::start(CONFIG).await;
    let mut streams = Vec::new();
    for coding in CODINGS {
        for options in [Options::http1(), Options::http2()] {
            streams.push(open(&ssegate, "/news", coding, options).await);
        }
    }
    streams.push(EventSource::connect(ssegate.url("/plain"), Options::http2()).await);
    for round in 0..15 {
        let payload = |n: usize| match n {
            17 => noise(n, 1 << 20),
            24 => "x".repeat(1_000_000),
            31 => noise(n, 1_000_000),
            46 => noise(n, 70_000),
            n => event(n),
        };
        let published: Vec<_> = (round * 4..round * 4 + 4).map(payload).collect();
        for payload in &published {
            ssegate.publish("news", payload).await;
        }
        for stream in &mut streams {
            assert!(stream.next_data(4).await == published, "{}", stream.header("content-encoding"));
            stream.forget();
        }
    }
}

#[tokio::test]
async fn the_client_chooses_and_is_told() {
    let ssegate = Ssegate::start(CONFIG).await;
    for connect in [Connect::http1(), Connect::http2()] {
        for (path, accept, coding, vary) in [
            ("/news", "gzip, deflate, br, zstd", "zstd", "accept-encoding"),
            ("/news", "zstd;q=0.1, gzip", "gzip", "accept-encoding"),
            ("/news", "br", "", "accept-encoding"),
            ("/news", "", "", "accept-encoding"),
            ("/gzip", "zstd", "", "accept-encoding"),
            ("/plain", "gzip, zstd", "", "accept"),
        ] {
            let headers = [("accept", "text/event-stream"), ("accept-encoding", accept)];
            let head = request(Method::HEAD, &ssegate.url(path), &headers, "", &connect).await;
            assert_eq!(
                (head.header("content-encoding"), head.header("vary")),
                (coding, vary),
                "{path} {accept}"
            );
            let options = Options::http1().connect(connect.clone());
            let stream = EventSource::connect(ssegate.url(path), accepting(accept, options)).await;
            assert_eq!((stream.header("content-encoding"), stream.header("vary")), (coding, vary));
        }
        let headers = [("accept", "text/html"), ("accept-encoding", "gzip")];
        let refused = request(Method::GET, &ssegate.url("/news"), &headers, "", &connect).await;
        assert_eq!((refused.status.as_u16(), refused.header("content-encoding")), (406, ""));
        assert_eq!(refused.json()["type"], "urn:ssegate:problem:not-acceptable");
    }
    let silent = request(Method::HEAD, &ssegate.url("/news"), &[], "", &Connect::http1()).await;
    assert_eq!((silent.header("content-encoding"), silent.header("vary")), ("", "accept-encoding"));
}

#[tokio::test]
async fn silence_and_gaps_are_told_in_the_coding() {
    let ssegate = Ssegate::start(CONFIG).await;
    for coding in CODINGS {
        let mut quiet = open(&ssegate, "/quiet", coding, Options::http1()).await;
        quiet.until_comments(3).await;
        let foreign = accepting(coding, Options::http2().resume("nonsense"));
        let mut stream = EventSource::connect(ssegate.url("/news"), foreign).await;
        assert_eq!(stream.next_gap().await["reason"], "unknown_id");
        stream.next_named("stream.position").await;
    }
}

/// The streams' bytes are cut anywhere, in the middle of a block or a frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_resumes_exactly() {
    let ssegate = Ssegate::start(CONFIG).await;
    let mut clients = Vec::new();
    for (seed, coding) in (0..).zip(CODINGS.into_iter().cycle().take(8)) {
        let options = if seed % 4 < 2 { Options::http1() } else { Options::http2() };
        let options = accepting(coding, options);
        clients.push(Recorder::start(ssegate.url("/news"), options, Habits::cut(200..6_000, seed)));
        clients.last().unwrap().wait_opened(1).await;
    }
    for client in &clients {
        client.until_begun().await;
    }
    let mut pace = interval(Duration::from_millis(2));
    for n in 0..500 {
        if n % 10 == 0 {
            pace.tick().await;
        }
        ssegate.publish("news", noise(n, 200)).await;
    }
    clients.iter().for_each(Recorder::stop_cutting);
    let expected: Vec<_> = (0..500).map(|n| noise(n, 200)).collect();
    for client in clients {
        client.wait_messages(500).await;
        assert!(client.opened() > 3, "it was cut");
        let data: Vec<_> = client.messages().into_iter().map(|event| event.data).collect();
        assert!(data == expected && client.gaps().is_empty());
    }
}

/// Opens a stream that is not read, and publishes more than can be kept for it.
async fn lag(ssegate: &Ssegate, channel: &str, coding: &str) -> EventSource {
    let connect = Connect { receive_buffer: Some(4096), ..Connect::http1() };
    let slow = open(ssegate, &format!("/{channel}"), coding, Options::http1().connect(connect)).await;
    for n in 0..200 {
        ssegate.publish(channel, format!("{n} {}", noise(n, 16 * 1024))).await;
    }
    slow
}

fn number(data: &str) -> usize {
    data.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_client_that_fell_behind_is_told_and_goes_on() {
    let ssegate = Ssegate::start(CONFIG).await;
    for coding in CODINGS {
        let mut slow = lag(&ssegate, "gap", coding).await;
        let (mut next, mut gaps) = (None, 0);
        while next != Some(200) {
            let event = slow.next().await;
            match &*event.event {
                "message" => {
                    let number = number(&event.data);
                    assert_eq!(next.unwrap_or(number), number);
                    next = Some(number + 1);
                }
                "stream.gap" => {
                    let gap: serde_json::Value = serde_json::from_str(&event.data).unwrap();
                    assert_eq!(gap["reason"], "lagged");
                    next = next.map(|next| next + gap["missed"].as_u64().unwrap() as usize);
                    gaps += 1;
                }
                other => assert_eq!(other, "stream.position"),
            }
        }
        assert!(gaps > 0, "it was to fall behind");
    }
}

/// What is completed is complete in its coding, which the client looks at: gzip has its checksum.
#[tokio::test]
async fn a_stream_that_is_ended_is_whole() {
    for coding in CODINGS {
        let mut ssegate = Ssegate::start(CONFIG).await;
        let mut left = lag(&ssegate, "leave", coding).await;
        assert_eq!(left.until_end().await, End::Complete);
        let mut drained = Vec::new();
        for options in [Options::http1(), Options::http2()] {
            let mut stream = open(&ssegate, "/news", coding, options).await;
            ssegate.publish("news", event(1)).await;
            ssegate.publish("news", noise(1, 100_000)).await;
            stream.next_data(2).await;
            drained.push(stream);
        }
        ssegate.signal(rustix::process::Signal::TERM);
        for stream in &mut drained {
            assert_eq!(stream.until_end().await, End::Complete, "{stream}");
        }
        assert!(ssegate.wait_exit().await.success());
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_is_ended() {
    let ssegate = Ssegate::start(CONFIG.replace("write_stall: 10m", "write_stall: 5s")).await;
    for (ended, coding) in (1..).zip(CODINGS) {
        let connect = Connect { receive_buffer: Some(8192), ..Connect::http1() };
        let _stalled = open(&ssegate, "/news", coding, Options::http1().connect(connect)).await;
        let mut n = 0;
        eventually("the stalled stream to be ended", async || {
            n += 1;
            ssegate.publish("news", noise(n, 64 * 1024)).await;
            let labels = [("route", "/news"), ("reason", "stalled")];
            match ssegate.metrics().await.sum("ssegate_streams_ended_total", &labels) {
                count if count >= f64::from(ended) => Ok(()),
                _ => Err("it is still open"),
            }
        })
        .await;
    }
}

/// What another program prints, line by line.
struct Lines {
    _process: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Lines {
    fn of(mut command: Command) -> Self {
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::inherit());
        let mut process = Child::spawn(command);
        let output = process.take_output().0.expect("it is piped");
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { _process: process, lines }
    }

    /// The next line that begins so, without that.
    async fn next(&mut self, prefix: &str) -> String {
        loop {
            let line = timeout(DEADLINE, self.lines.recv()).await.expect("a line").expect("the program runs");
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.to_owned();
            }
        }
    }
}

/// Publishes one event after the other, each when the program has printed the one before.
async fn prints_each_event_at_once(ssegate: &Ssegate, command: Command, coding: &str) {
    let mut lines = Lines::of(command);
    assert_eq!(lines.next("content-encoding: ").await.trim_end(), coding);
    lines.next("event: stream.position").await;
    assert_eq!(lines.next("data: ").await, "{}");
    for n in 0..10 {
        ssegate.publish("news", event(n)).await;
        assert_eq!(lines.next("data: ").await, event(n));
    }
}

#[tokio::test]
async fn curl_prints_each_event_at_once() {
    let ssegate = Ssegate::start(CONFIG).await;
    for coding in CODINGS {
        for version in ["--http1.1", "--http2"] {
            let mut curl = child::command("curl");
            curl.args(["-sSNi", "--compressed", version, "--cacert"]).arg(TestCa::shared().cert_path());
            curl.arg(ssegate.url(&format!("/{coding}")));
            prints_each_event_at_once(&ssegate, curl, coding).await;
        }
    }
}

#[tokio::test]
async fn node_prints_each_event_at_once() {
    const FETCH: &str = "
        const response = await fetch(process.argv[1]);
        console.log('content-encoding: ' + response.headers.get('content-encoding'));
        const text = new TextDecoder();
        for await (const bytes of response.body) process.stdout.write(text.decode(bytes, { stream: true }));
    ";
    const HTTPS: &str = "
        import https from 'node:https';
        import zlib from 'node:zlib';
        const headers = { 'accept-encoding': process.argv[2] };
        https.get(process.argv[1], { headers }, response => {
            console.log('content-encoding: ' + response.headers['content-encoding']);
            const flush = zlib.constants.Z_SYNC_FLUSH;
            const decoder = process.argv[2] === 'gzip' ? zlib.createGunzip({ flush }) : zlib.createZstdDecompress();
            response.pipe(decoder).pipe(process.stdout);
        });
    ";
    let ssegate = Ssegate::start(CONFIG).await;
    let node = |script: &str, coding: &str| {
        let mut node = child::command("node");
        node.args(["--input-type=module", "-e", script, &ssegate.url(&format!("/{coding}")), coding]);
        node.env("NODE_EXTRA_CA_CERTS", TestCa::shared().cert_path());
        node
    };
    prints_each_event_at_once(&ssegate, node(FETCH, "gzip"), "gzip").await;
    prints_each_event_at_once(&ssegate, node(HTTPS, "gzip"), "gzip").await;
    let mut asked = Command::new("node");
    asked.args(["-p", "typeof require('zlib').createZstdDecompress"]);
    // Node has zstd from 22.15 on.
    if asked.output().expect("node is installed").stdout.starts_with(b"function") {
        prints_each_event_at_once(&ssegate, node(HTTPS, "zstd"), "zstd").await;
    }
}

#[tokio::test]
async fn python_prints_each_event_at_once() {
    const URLLIB: &str = "
import ssl, sys, urllib.request, zlib
request = urllib.request.Request(sys.argv[1], headers={'Accept-Encoding': 'gzip'})
response = urllib.request.urlopen(request, context=ssl.create_default_context(cafile=sys.argv[2]))
print('content-encoding:', response.headers['content-encoding'], flush=True)
decoder = zlib.decompressobj(31)
while piece := response.read1(65536):
    print(decoder.decompress(piece).decode(), end='', flush=True)
";
    let ssegate = Ssegate::start(CONFIG).await;
    let mut python = child::command("python3");
    python.args(["-c", URLLIB, &ssegate.url("/gzip")]).arg(TestCa::shared().cert_path());
    prints_each_event_at_once(&ssegate, python, "gzip").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_reads_either_coding_and_resumes() {
    let ca = TestCa::shared();
    read_through_cuts(async |page| Browser::chromium(ca, page).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firefox_reads_either_coding_and_resumes() {
    let ca = TestCa::shared();
    read_through_cuts(async |page| Browser::firefox(ca, page).await).await;
}

/// One event after the other, each when the page has the one before; then many at once, and cuts.
async fn read_through_cuts(open: impl AsyncFn(&str) -> Browser) {
    for coding in CODINGS {
        let ssegate = Ssegate::start(CONFIG).await;
        let proxy = Proxy::start(ssegate.addr()).await;
        let mut collector = Collector::start(TestCa::shared()).await;
        let stream = format!("https://localhost:{}/{coding}", proxy.addr().port());
        let _browser = open(&collector.page_url(&stream)).await;
        collector.wait_count("position", 1).await;
        for n in 0..10 {
            ssegate.publish("news", event(n)).await;
            collector.wait_count("message", n + 1).await;
        }
        let mut pace = interval(Duration::from_millis(20));
        for n in 10..200 {
            if n % 60 == 40 {
                // A browser that is cut while it connects tries again by itself, and may take its time.
                collector.wait_count("message", n).await;
                proxy.cut_all();
            }
            if n % 4 == 0 {
                pace.tick().await;
            }
            ssegate.publish("news", event(n)).await;
        }
        collector.wait_count("message", 200).await;
        let data: Vec<_> = collector.of_kind("message").into_iter().map(|report| report.data).collect();
        assert_eq!(data, (0..200).map(event).collect::<Vec<_>>(), "all of them, once and in order");
        assert_eq!(collector.of_kind("gap").len(), 0);
        let errors = collector.of_kind("error");
        assert!(errors.iter().all(|error| error.ready_state == Some(0)), "it never gave up: {errors:?}");
        let (metrics, route) = (ssegate.metrics().await, format!("/{coding}"));
        let [sent, plain] = ["ssegate_sent_bytes_total", "ssegate_sent_plain_bytes_total"]
            .map(|name| metrics.sum(name, &[("route", &route)]));
        assert!(sent < plain * 0.7, "it was sent {coding}: {sent} bytes of {plain}");
    }
}
