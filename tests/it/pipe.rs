//! `some-command | ssegate pipe`: what is piped is served, at the pace of those who read, and to its end.

use std::fs;
use std::process::Stdio;

use http::Method;

use crate::support::child::{self, Child};
use crate::support::command::run;
use crate::support::devtools::Page;
use crate::support::eventsource::{End, EventSource, Options};
use crate::support::http::{Connect, get, request};
use crate::support::ports;
use crate::support::scratch;
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

/// `ssegate pipe` with something to type in to.
struct Pipe {
    process: Child,
    port: u16,
}

impl Pipe {
    async fn start(args: &[&str]) -> Self {
        let (mut command, port) = (child::command(env!("CARGO_BIN_EXE_ssegate")), ports::free());
        command.args(["pipe", "--plain", "--listen", &format!("127.0.0.1:{port}")]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let pipe = Self { process: Child::spawn(command), port };
        until_served(port).await;
        pipe
    }

    fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }

    async fn open(&self) -> EventSource {
        EventSource::connect(self.url("/events"), Options::http1()).await
    }
}

async fn until_served(port: u16) {
    let addr = ("127.0.0.1", port);
    eventually("it to listen", async || tokio::net::TcpStream::connect(addr).await.map(drop)).await;
}

#[tokio::test]
async fn lines_are_events_for_those_who_are_there_and_those_who_come_later() {
    let mut pipe = Pipe::start(&[]).await;
    let mut stream = pipe.open().await;
    pipe.process.type_in(b"one\ntw");
    assert_eq!(stream.next_data(1).await, ["one"]);
    pipe.process.type_in(b"o\n");
    assert_eq!(stream.next_data(1).await, ["two"]);
    let mut late = pipe.open().await;
    assert_eq!(late.next_data(2).await, ["one", "two"]);
    let page = get(&pipe.url("/")).await;
    assert!(
        page.text().contains("data-path=\"/events\"") && page.header("content-type").starts_with("text/html")
    );
    assert_eq!(get(&pipe.url("/pipe.js")).await.status, 200);
}

#[tokio::test]
async fn it_ends_with_its_input_once_everybody_was_given_it() {
    let port = ports::free();
    let go = scratch::dir("pipe");
    let go = go.path().join("go");
    let script = "(until test -e \"$3\"; do sleep 0.05; done; seq 1 5000; printf last) | \"$1\" pipe --plain --listen \"$2\"";
    let mut command = child::command("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_ssegate"), &format!("127.0.0.1:{port}")]).arg(&go);
    command.stdout(Stdio::null());
    let mut process = Child::spawn(command);
    until_served(port).await;
    let url = format!("http://localhost:{port}/events");
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut stream = EventSource::connect(&url, Options::http1()).await;
        readers.push(tokio::spawn(async move {
            for n in 1..=5_000 {
                assert_eq!(stream.next_message().await.data, n.to_string());
            }
            assert_eq!(stream.next_message().await.data, "last", "also without a line end");
            assert_eq!(stream.until_end().await, End::Complete);
        }));
    }
    fs::write(&go, "").unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(process.wait_exit("the pipe to end").await.success());
}

#[tokio::test]
async fn with_keep_it_serves_what_there_was() {
    let (dir, port) = (scratch::dir("pipe"), ports::free());
    fs::write(dir.path().join("input"), "a\nb\n").unwrap();
    let mut command = child::command(env!("CARGO_BIN_EXE_ssegate"));
    command.args(["pipe", "--keep", "--plain", "--path", "/lines", "--listen", &format!("127.0.0.1:{port}")]);
    command.stdin(fs::File::open(dir.path().join("input")).unwrap()).stdout(Stdio::null());
    let mut process = Child::spawn(command);
    until_served(port).await;
    for _ in 0..2 {
        let url = format!("http://localhost:{port}/lines");
        let mut stream = EventSource::connect(url, Options::http1()).await;
        assert_eq!(stream.next_data(2).await, ["a", "b"]);
    }
    process.signal(rustix::process::Signal::INT);
    assert_eq!(process.wait_exit("Ctrl-C to end it").await.code(), Some(0));
}

/// A command that writes for ever is held up by a reader who is slow, and by none who is not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_never_ends_is_read_in_bounds() {
    let port = ports::free();
    let script = "yes 0123456789 | \"$0\" pipe --plain --listen \"$1\"";
    let mut command = child::command("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_ssegate"), &format!("127.0.0.1:{port}")]);
    command.stdout(Stdio::null());
    let _process = Child::spawn(command);
    until_served(port).await;
    let mut stream = EventSource::connect(format!("http://localhost:{port}/events"), Options::http1()).await;
    for _ in 0..100 {
        for _ in 0..1_000 {
            let event = stream.next().await;
            assert!(matches!(&*event.event, "message" | "stream.gap" | "stream.position"), "{event:?}");
        }
        stream.forget();
    }
}

#[tokio::test]
async fn pages_of_other_origins_read_it_only_where_they_are_named() {
    let pipe = Pipe::start(&["--origin", "http://localhost:3000"]).await;
    for (origin, allowed) in [("http://localhost:3000", "http://localhost:3000"), ("http://evil.example", "")]
    {
        let head =
            request(Method::HEAD, &pipe.url("/events"), &[("origin", origin)], "", &Connect::http1()).await;
        assert_eq!(head.header("access-control-allow-origin"), allowed);
    }
}

#[tokio::test]
async fn options_that_cannot_be_are_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (args, told) in [
        (&["pipe", "--plain", "--listen", "0.0.0.0:0"][..], "this machine alone"),
        (&["pipe", "--listen", &taken], "--listen ADDR"),
        (&["pipe", "--path", "x"], "path"),
    ] {
        let ended = run(args).await;
        assert!(!ended.status.success());
        assert!(ended.stderr.join("\n").contains(told), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_page_shows_the_lines() {
    let mut pipe = Pipe::start(&[]).await;
    pipe.process.type_in(b"before\n<b>&\n");
    let mut page = Page::open(&pipe.url("/")).await;
    page.until("what was there", "document.querySelector('pre').innerText === 'before\\n<b>&\\n'").await;
    pipe.process.type_in(b"live\n");
    page.until("what comes", "document.querySelector('pre').innerText.endsWith('live\\n')").await;
    assert!(page.complaints().await.is_empty(), "{:?}", page.complaints().await);
}

#[tokio::test]
async fn a_configuration_may_read_standard_input_as_well() {
    // Of what the rig starts it is empty, and so has ended: streams stay open all the same.
    let ssegate = Ssegate::start(
        "upstreams: { input: { stdin: {} } }\nroutes: [ { path: /in, from: { upstream: input } } ]\n",
    )
    .await;
    ssegate
        .wait_log("that it has ended", |line| {
            line["message"].as_str().is_some_and(|text| text.starts_with("standard input has ended"))
        })
        .await;
    let mut stream = EventSource::connect(ssegate.url("/in"), Options::http2()).await;
    stream.next_named("stream.position").await;
    assert_eq!(ssegate.admin_get("/readyz").await.status, 200);
}
