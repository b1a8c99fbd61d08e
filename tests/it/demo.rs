//! `ssegate demo` as a newcomer meets it: what it prints is served, and nothing of it outlives it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use http::Method;
use rustix::process::Signal;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::Value;

use crate::support::child::{self, Child};
use crate::support::eventsource::{End, EventSource, Options};
use crate::support::http::{Connect, Link, Reply, build, request};
use crate::support::scratch;
use crate::support::ssegate::Ssegate;
use crate::support::wait::{eventually, within};

#[tokio::test]
async fn every_url_that_it_prints_is_served() {
    let demo = Demo::start().await;
    let page = demo.get("/").await;
    assert!(page.header("content-type").starts_with("text/html"), "{:?}", page.headers);
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    for part in ["/demo.css", "/demo.js"] {
        assert!(page.text().contains(part) && demo.get(part).await.status == 200, "{part}");
    }
    let streams = demo.urls_after("curl -kN ");
    assert_eq!(streams.len(), if program("redis-server").is_some() { 6 } else { 4 }, "{}", demo.text);
    for url in streams {
        let stream = EventSource::connect(url, options()).await;
        assert_eq!(stream.header("content-type"), "text/event-stream");
        let path = url.strip_prefix(&demo.url("")).unwrap();
        assert!(page.text().contains(&format!("\"path\":\"{path}\"")), "the page lacks {path}");
    }
    for url in demo.urls_after("Status and metrics") {
        assert_eq!(request(Method::GET, url, &[], "", &Connect::http1()).await.status, 200, "{url}");
    }
    // HTTP/2 leaves it to the server to send no body (RFC 9113 section 8.1).
    for (path, status) in [("/", 200), ("/nowhere", 404)] {
        let head = request(Method::HEAD, &demo.url(path), &[], "", &connect()).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (status, 0), "{path}");
    }
}

#[tokio::test]
async fn events_is_what_the_simplest_page_expects() {
    let demo = Demo::start().await;
    let mut events = demo.open("/events").await;
    for _ in 0..2 {
        let event = events.next_message().await;
        assert_eq!((&*event.event, &*event.data), ("message", "This is a server-sent event"));
    }
}

#[tokio::test]
async fn orders_flow_and_resume_after_a_cut() {
    let demo = Demo::start().await;
    let mut named = demo.open("/events/orders/named").await;
    let link = Arc::new(Link::open(&demo.url("/"), &connect()).await.unwrap());
    let mut orders = EventSource::connect_on(Arc::clone(&link), demo.url("/events/orders"), options()).await;
    let mut numbers = BTreeSet::from([number(&orders.next_message().await.data)]);

    let cut = link.send(build(Method::POST, &demo.url("/cut?route=/events/orders"), &[], "")).await;
    assert_eq!(cut.unwrap().status(), 200);
    assert!(matches!(orders.until_end().await, End::Broken(_)), "{orders}");
    let event = named.next_message().await;
    assert_eq!(event.event, serde_json::from_str::<Value>(&event.data).unwrap()["status"], "{event:?}");
    orders.reconnect().await;

    // Of two orders in two partitions either may come first, so none is missing once the numbers are closed.
    while numbers.len() < 4 || numbers.last().unwrap() - numbers.first().unwrap() >= numbers.len() as u64 {
        assert!(numbers.len() < 40, "some are missing for good: {numbers:?}");
        let next = number(&orders.next_message().await.data);
        assert!(numbers.insert(next), "{next} came twice, after {numbers:?}");
    }
}

#[tokio::test]
async fn a_room_carries_what_is_published_and_what_the_page_says() {
    let demo = Demo::start().await;
    let mut room = demo.open("/events/rooms/lobby").await;
    room.next_named("stream.position").await;
    let publish = demo.urls_after("curl -d hello ")[0];
    assert_eq!(request(Method::POST, publish, &[], "hello", &Connect::http1()).await.status, 200);
    assert_eq!(room.next_message().await.data, "hello");
    assert_eq!(demo.post("/say?room=lobby&text=hi%20%E2%9C%93", &[]).await.status, 200);
    assert_eq!(room.next_message().await.data, "hi ✓");

    assert_eq!(demo.post("/say?room=lobby", &[]).await.status, 400);
    let foreign = [("sec-fetch-site", "cross-site")];
    assert_eq!(demo.post("/say?room=lobby&text=no", &foreign).await.status, 400);
    assert_eq!(demo.get("/cut").await.status, 405);
}

#[tokio::test]
async fn metrics_flow_where_there_is_a_redis() {
    let demo = Demo::start().await;
    if program("redis-server").is_none() {
        return assert!(demo.text.contains("redis-server is not installed"), "{}", demo.text);
    }
    let mut metrics = demo.open("/events/metrics").await;
    for name in ["metrics.cpu", "metrics.memory"] {
        number(&metrics.next_named(name).await.data);
    }
    let cpu = demo.open("/events/metrics/cpu").await.next_message().await;
    assert_eq!(
        (&*cpu.event, &serde_json::from_str::<Value>(&cpu.data).unwrap()["metric"]),
        ("message", &"cpu".into())
    );
}

#[tokio::test]
async fn without_a_redis_it_says_so_and_serves_the_rest() {
    let folder = scratch::dir("path");
    for starts in ["env", "setpriv"] {
        let found = program(starts).expect("what starts every child of the tests");
        symlink(found, folder.path().join(starts)).unwrap();
    }
    let mut command = command();
    command.env("PATH", folder.path());
    let demo = Demo::start_as(command).await;
    assert!(demo.text.contains("redis-server is not installed"), "{}", demo.text);
    assert_eq!(demo.urls_after("curl -kN ").len(), 4);
    assert!(demo.get("/").await.text().contains("redis-server is not installed"));
}

#[tokio::test]
async fn sigterm_ends_it_and_its_children_in_spite_of_open_streams() {
    let mut demo = Demo::start().await;
    let mut events = demo.open("/events").await;
    events.next().await;
    let below = demo.descendants();
    assert_eq!(below.is_empty(), program("redis-server").is_none());
    demo.process.signal(Signal::TERM);
    assert_eq!(events.until_end().await, End::Complete);
    assert!(demo.process.wait_exit("the demo to end").await.success());
    // It waits for its children, so there is nothing to wait for here.
    assert!(living(&below).is_empty(), "{:?}", living(&below));
}

#[tokio::test]
async fn sigkill_leaves_no_child_behind() {
    let mut demo = Demo::start().await;
    let below = demo.descendants();
    demo.process.kill();
    eventually("the children to be gone", async || match living(&below) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?} are left")),
    })
    .await;
}

#[tokio::test]
async fn ports_that_are_taken_are_told_with_their_options() {
    let taken = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [listen, admin] = [0, 1].map(|n| taken[n].local_addr().unwrap().to_string());
    let mut command = child::command(env!("CARGO_BIN_EXE_ssegate"));
    command.args(["demo", "--listen", &listen, "--admin", &admin]).stderr(Stdio::piped());
    let mut process = Child::spawn(command);
    let stderr = process.take_output().1.expect("piped");
    let status = process.wait_exit("the demo to give up").await;
    let told = std::io::read_to_string(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{told}");
    for (addr, option) in [(listen, "--listen"), (admin, "--admin")] {
        let line = told.lines().find(|line| line.contains(&addr)).expect("a line for each");
        assert!(line.contains("another process listens there") && line.contains(option), "{line}");
    }
}

#[tokio::test]
async fn the_configuration_that_it_prints_is_sound() {
    let mut command = child::command(env!("CARGO_BIN_EXE_ssegate"));
    command.args(["demo", "--print-config"]).stdout(Stdio::piped());
    let mut process = Child::spawn(command);
    let printed = std::io::read_to_string(process.take_output().0.expect("piped")).unwrap();
    let checked = Ssegate::builder()
        .config(printed)
        .env("KAFKA_BROKER", "kafka.internal:9092")
        .env("REDIS_URL", "redis://redis.internal/0")
        .check()
        .await;
    assert!(checked.status.success(), "{checked:?}");
}

/// A running demo, and what it has printed.
struct Demo {
    process: Child,
    text: String,
}

impl Demo {
    async fn start() -> Self {
        Self::start_as(command()).await
    }

    async fn start_as(command: Command) -> Self {
        let mut process = Child::spawn(command);
        let stdout = process.take_output().0.expect("piped");
        let reading = tokio::task::spawn_blocking(|| {
            let mut text = String::new();
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                text.extend([&line, "\n"]);
                if line.contains("Ctrl-C") {
                    break;
                }
            }
            text
        });
        let text = within("the demo to say that it runs", reading).await.expect("no panic");
        assert!(text.contains("Ctrl-C"), "the demo ended, having said only {text:?}");
        Self { process, text }
    }

    /// The URLs that follow `lead` in a line.
    fn urls_after(&self, lead: &str) -> Vec<&str> {
        let lines = self.text.lines().filter_map(|line| Some(line.split_once(lead)?.1));
        lines.flat_map(str::split_whitespace).filter(|word| word.starts_with("http")).collect()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.urls_after("Page")[0].trim_end_matches('/'))
    }

    async fn open(&self, path: &str) -> EventSource {
        EventSource::connect(self.url(path), options()).await
    }

    async fn get(&self, path: &str) -> Reply {
        request(Method::GET, &self.url(path), &[], "", &connect()).await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        request(Method::POST, &self.url(path), headers, "", &connect()).await
    }

    /// Every process below it.
    fn descendants(&self) -> Vec<u32> {
        let parents: BTreeMap<u32, u32> = processes().into_iter().collect();
        let is_below = |&id: &u32| {
            let mut above = std::iter::successors(parents.get(&id), |parent| parents.get(parent));
            above.any(|&parent| parent == self.process.id())
        };
        parents.keys().copied().filter(is_below).collect()
    }
}

fn command() -> Command {
    let mut command = child::command(env!("CARGO_BIN_EXE_ssegate"));
    command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).stdout(Stdio::piped());
    command
}

/// Every process that has not ended, with its parent. Who has ended may wait for long to be reaped, once its
/// parent is gone.
fn processes() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let parsed = stats.filter_map(|stat| {
        // proc_pid_stat(5): the name, in parentheses, may hold anything.
        let (id, rest) = (stat.split(' ').next()?, stat.rsplit_once(')')?.1);
        let mut rest = rest.split_whitespace();
        let (state, parent) = (rest.next()?, rest.next()?);
        (state != "Z").then_some((id.parse().ok()?, parent.parse().ok()?))
    });
    parsed.collect()
}

/// Those of the processes that have not ended.
fn living(of: &[u32]) -> Vec<u32> {
    processes().into_iter().map(|(id, _)| id).filter(|id| of.contains(id)).collect()
}

/// Where the search path has a program.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program: &PathBuf| Path::is_file(program))
}

fn number(data: &str) -> u64 {
    let data: Value = serde_json::from_str(data).expect("JSON");
    data["number"].as_u64().unwrap_or_else(|| panic!("no number in {data}"))
}

fn options() -> Options {
    Options::default().connect(connect())
}

/// As `curl -k` connects.
fn connect() -> Connect {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    Connect { tls: Some(Arc::new(config)), ..Connect::http2() }
}

/// Trusts every certificate: the demo's is made by itself, at each start.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
