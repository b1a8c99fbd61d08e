//! The client module in `contrib/js`, in Node and in Chromium.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::auth::SECRET;
use crate::multi::until_reading;
use crate::support::child::{self, Child};
use crate::support::devtools::Page;
use crate::support::ports;
use crate::support::proxy::Proxy;
use crate::support::scratch;
use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;
use crate::support::token::{hs256, now};
use crate::support::wait::within;

const PUSH: &str = r#"
log: { format: json, access: true }
defaults: { retry: 100ms, cors: { origins: "*" } }
upstreams: { lobby: { push: {} } }
routes:
  - { path: /m, from: { upstream: lobby, channel: m } }
  - { path: /over, from: { upstream: lobby, channel: m }, ended: true }
"#;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/js")
}

/// The module in Node, reading one stream.
struct Node {
    process: Child,
    said: mpsc::UnboundedReceiver<Value>,
}

impl Node {
    fn start(url: &str, options: &Value) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/client.mjs");
        let mut command = child::command("node");
        command.arg(script).arg(folder().join("ssegate.js")).arg(url).arg(options.to_string());
        command.env("NODE_EXTRA_CA_CERTS", TestCa::shared().cert_path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Child::spawn(command);
        let output = process.take_output().0.unwrap();
        let (sender, said) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            use std::io::BufRead as _;
            for line in std::io::BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { process, said }
    }

    async fn next(&mut self) -> Value {
        within("the client to say something", self.said.recv()).await.expect("it goes on")
    }

    /// The next of this kind; others are passed over.
    async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let said = self.next().await;
            if said[0] == kind {
                return said;
            }
        }
    }

    async fn until_open(&mut self) {
        while self.next().await != json!(["state", "open", null]) {}
    }

    async fn data(&mut self) -> String {
        self.next_of("event").await[1]["data"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn it_reads_comes_back_and_resumes() {
    let ssegate = Ssegate::start(PUSH).await;
    let proxy = Proxy::start(ssegate.addr()).await;
    let mut node = Node::start(&format!("https://localhost:{}/m", proxy.addr().port()), &json!({}));
    assert_eq!(node.next().await, json!(["state", "connecting", null]));
    node.until_open().await;
    ssegate.publish("m?event=sale", "a\nb €").await;
    let event = node.next_of("event").await[1].clone();
    assert_eq!(
        (&event["event"], &event["data"], &event["snapshot"]),
        (&json!("sale"), &json!("a\nb €"), &json!(false))
    );
    assert!(event["id"].as_str().unwrap().ends_with("-1"));
    for n in 0..200 {
        ssegate.publish("m", n.to_string()).await;
        if n % 50 == 25 {
            proxy.cut_all();
        }
    }
    for n in 0..200 {
        assert_eq!(node.data().await, n.to_string());
    }
    node.process.type_in(b"\n");
    assert_eq!(node.next_of("state").await, json!(["state", "closed", null]));
}

#[tokio::test]
async fn it_tells_gaps_and_what_is_for_good() {
    let ssegate = Ssegate::start(PUSH).await;
    let mut node = Node::start(&ssegate.url("/m"), &json!({ "lastEventId": "nonsense" }));
    assert_eq!(node.next_of("gap").await, json!(["gap", "unknown_id"]));
    let nowhere = "There is no event stream at this host and path.";
    for (path, status, why) in [("/over", 204, "204"), ("/nowhere", 404, nowhere)] {
        let mut node = Node::start(&ssegate.url(path), &json!({}));
        assert_eq!(node.next().await[1], "connecting");
        assert_eq!(node.next().await, json!(["state", "closed", status]));
        assert_eq!(node.next().await, json!(["why", why]));
    }
    let mut ended = Node::start(&format!("https://localhost:{}/", ports::free()), &json!({}));
    for state in ["connecting", "waiting", "connecting", "waiting"] {
        assert_eq!(ended.next().await[1], state, "nobody is there yet");
    }
}

/// They are known by their names alone; here a publisher has them.
#[tokio::test]
async fn snapshots_and_other_control_events_are_told() {
    let config =
        format!("server: {{ listen: \"127.0.0.1:0\", tls: self_signed, control_prefix: 'own.' }}{PUSH}");
    let config = config.replace("tls: self_signed", "tls: none");
    let ssegate = Ssegate::start(config).await;
    let mut node = Node::start(&ssegate.url("/m"), &json!({}));
    let position = node.next_of("event").await;
    assert_eq!(position[1]["event"], "own.position", "the prefix is another one");
    for (event, data) in [
        ("stream.snapshot-start", "{}"),
        ("x", "state"),
        ("stream.snapshot-end", "{}"),
        ("x", "change"),
        ("stream.refused", r#"{"feed":"/b"}"#),
    ] {
        ssegate.publish(&format!("m?event={event}"), data).await;
    }
    assert_eq!(node.next().await, json!(["snapshot", "start"]));
    let of = |said: Value| (said[1]["data"].clone(), said[1]["snapshot"].clone());
    assert_eq!(of(node.next().await), (json!("state"), json!(true)));
    assert_eq!(node.next().await, json!(["snapshot", "end"]));
    assert_eq!(of(node.next().await), (json!("change"), json!(false)));
    assert_eq!(node.next().await, json!(["control", "refused", { "feed": "/b" }]));
}

#[tokio::test]
async fn several_feeds_have_handlers_and_come_and_go() {
    let multi = "  - { path: '/rooms/{room}', from: { upstream: lobby, channel: '{room}' }, params: { room: '[a-z]+' } }
  - { path: /all, multi: { of: ['/rooms/{room}', /m] } }\n";
    let ssegate = Ssegate::start(format!("{PUSH}{multi}")).await;
    let mut node = Node::start(&ssegate.url("/all"), &json!({ "handled": ["/rooms/a", "/rooms/b"] }));
    until_reading(&ssegate, "/all", 2).await;
    let told = |said: &Value| {
        let field = |name: &str| said[1][name].as_str().unwrap().to_owned();
        (said[0].as_str().unwrap().to_owned(), field("feed"), field("event"), field("data"))
    };
    let of = |kind: &str, feed: &str, event: &str, data: &str| {
        (kind.to_owned(), feed.to_owned(), event.to_owned(), data.to_owned())
    };
    ssegate.publish("a", "1").await;
    assert_eq!(told(&node.next_of("handled").await), of("handled", "/rooms/a", "message", "1"));
    ssegate.publish("b?event=sale+of+b", "2").await;
    assert_eq!(told(&node.next_of("handled").await), of("handled", "/rooms/b", "sale of b", "2"));

    // One goes, one stays, and two come of which one is not given; what is published meanwhile is not lost.
    for line in [r#"{"remove":"/rooms/a"}"#, r#"{"add":"/m"}"#, r#"{"add":"/rooms/7"}"#] {
        node.process.type_in(format!("{line}\n").as_bytes());
    }
    ssegate.publish("b", "3").await;
    let (mut event, mut refused) = (None, None);
    while event.is_none() || refused.is_none() {
        let said = node.next().await;
        match said[0].as_str() {
            Some("handled") => event = Some(told(&said)),
            Some("control") => refused = Some(said),
            _ => assert_ne!(said[1], "waiting", "nothing has failed"),
        }
    }
    assert_eq!(event, Some(of("handled", "/rooms/b", "message", "3")));
    let refused = refused.unwrap();
    assert_eq!((&refused[1], &refused[2]["feed"]), (&json!("refused"), &json!("/rooms/7")));
    assert_eq!(refused[2]["status"], 404);
    until_reading(&ssegate, "/all", 2).await;
    node.process.type_in(b"[\"/m\",\"/rooms/c\"]\n");
    let asked =
        |line: &Value| line["uri"].to_string().contains("?feed=%2Fm&feed=%2Frooms%2Fc&lastEventId=m1%7E");
    ssegate.wait_log("both", asked).await;
    until_reading(&ssegate, "/all", 2).await;
    ssegate.publish("m", "4").await;
    let event = told(&node.next_of("handled").await);
    assert_eq!(event, of("handled", "/m", "message", "4"), "it has kept its handler");
    ssegate.publish("c", "5").await;
    assert_eq!(told(&node.next_of("event").await), of("event", "/rooms/c", "message", "5"), "it has none");

    // Without feeds it waits, and is not refused.
    node.process.type_in(b"[]\n");
    node.process.type_in(b"{\"add\":\"/rooms/d\"}\n");
    until_reading(&ssegate, "/all", 1).await;
    ssegate.publish("d", "6").await;
    assert_eq!(told(&node.next_of("handled").await), of("handled", "/rooms/d", "message", "6"));
    let mut gone =
        Node::start(&ssegate.url("/all"), &json!({ "feeds": ["/rooms/a"], "lastEventId": "nonsense" }));
    assert_eq!(gone.next_of("gap").await, json!(["gap", "unknown_id", "/rooms/a"]));
}

#[tokio::test]
async fn a_token_goes_along_is_renewed_and_asked_for_again() {
    let ssegate = Ssegate::start(format!(
        r#"
auth: {{ users: {{ jwt: {{ secret: "{SECRET}", leeway: 0s }} }} }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes: [ {{ path: /m, from: {{ upstream: lobby, channel: m }}, auth: users, expiring: 1h, retry: 100ms }} ]
"#
    ))
    .await;
    let token = |expires_in| hs256(SECRET, json!({ "sub": "alice", "exp": now() + expires_in }));
    // Refused, then good for less than what is told ahead, so that it is to be renewed at once, and again; and then for long.
    let tokens = json!({ "tokens": ["none", token(600), token(1_200), token(10_800)] });
    let mut node = Node::start(&ssegate.url("/m"), &tokens);
    assert_eq!(node.next().await, json!(["state", "connecting", null]));
    assert_eq!(node.next().await, json!(["token", false]));
    assert_eq!(node.next().await, json!(["state", "waiting", 401]));
    node.until_open().await;
    for _ in 0..2 {
        assert_eq!(node.next().await, json!(["token", true]), "it is renewed, and the stream goes on");
    }
    ssegate.publish("m", "still here").await;
    assert_eq!(node.data().await, "still here");
    assert_eq!(ssegate.metrics().await.sum("ssegate_streams_ended_total", &[("reason", "expired")]), 0.0);

    let mut refused = Node::start(&ssegate.url("/m"), &json!({ "tokens": ["none"] }));
    for state in ["connecting", "waiting", "connecting", "closed"] {
        assert_eq!(refused.next_of("state").await[1], state);
    }
}

#[tokio::test]
async fn a_token_that_never_comes_is_given_up_and_asked_for_again() {
    let ssegate = Ssegate::start(PUSH).await;
    let options = json!({ "tokens": [null, null, "any"], "silence": 2000 });
    let mut node = Node::start(&ssegate.url("/m"), &options);
    for _ in 0..2 {
        assert_eq!(node.next().await, json!(["state", "connecting", null]));
        assert_eq!(node.next().await, json!(["token", false]));
        assert_eq!(node.next().await, json!(["state", "waiting", null]));
    }
    node.until_open().await;

    let mut closed = Node::start(&ssegate.url("/m"), &json!({ "tokens": [null] }));
    assert_eq!(closed.next_of("token").await, json!(["token", false]));
    closed.process.type_in(b"\n");
    assert_eq!(closed.next().await, json!(["state", "closed", null]), "who waits for one can close");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_given_up() {
    let ssegate = Ssegate::start(PUSH).await;
    let proxy = Proxy::start(ssegate.addr()).await;
    let url = format!("https://localhost:{}/m", proxy.addr().port());
    let mut node = Node::start(&url, &json!({ "silence": 3000 }));
    node.until_open().await;
    assert_eq!(node.next_of("state").await[1], "waiting", "it is given up");
    node.until_open().await;
    ssegate.publish("m", "after").await;
    assert_eq!(node.data().await, "after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_reads_with_it() {
    let ssegate = Ssegate::start(format!("server: {{ listen: \"127.0.0.1:0\", tls: none }}{PUSH}")).await;
    let proxy = Proxy::start(ssegate.addr()).await;
    // A page of the stream's own origin; which one does not matter.
    let mut page = Page::open(&format!("http://localhost:{}/nowhere", proxy.addr().port())).await;
    let module = BASE64_STANDARD.encode(fs::read(folder().join("ssegate.js")).unwrap());
    page.until("the page", "document.readyState === 'complete' && location.pathname === '/nowhere'").await;
    let script = format!(
        "import('data:text/javascript;base64,{module}').then(({{ subscribe }}) => {{
            globalThis.data = []; globalThis.states = [];
            globalThis.stream = subscribe('/m', {{
                onEvent: event => data.push(event.data),
                onState: state => states.push(state),
            }});
        }})"
    );
    page.eval(&script).await;
    page.until("the stream", "states.at(-1) === 'open' && stream.lastEventId !== ''").await;
    for n in 0..100 {
        ssegate.publish("m", n.to_string()).await;
        if n == 50 {
            proxy.cut_all();
        }
    }
    page.until("all of them", "data.length >= 100").await;
    assert_eq!(page.eval("data.join()").await, (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    assert_eq!(page.eval("states.filter(state => state === 'open').length").await, 2);
    page.eval("stream.close()").await;
    page.until("its end", "states.at(-1) === 'closed'").await;
}

/// What a minifier leaves is less than the text without comments and indentation.
#[test]
fn it_is_small() {
    let text = fs::read_to_string(folder().join("ssegate.js")).unwrap();
    let (mut code, mut rest) = (String::new(), &*text);
    while let Some(at) = rest.find("/**") {
        code.push_str(&rest[..at]);
        rest = &rest[at + rest[at..].find("*/").unwrap() + 2..];
    }
    code.push_str(rest);
    let lines = code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut packed, code.as_bytes()).unwrap();
    let size = packed.finish().unwrap().len();
    assert!(size < 2_048, "{size} bytes");
}

/// TypeScript comes from npm, once.
#[tokio::test]
async fn its_types_are_those_of_its_comments() {
    let scratch = scratch::dir("js");
    for file in ["package.json", "package-lock.json", "tsconfig.json", "ssegate.js"] {
        fs::copy(folder().join(file), scratch.path().join(file)).unwrap();
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("npm");
    for (program, args) in [
        ("npm", &["ci", "--no-audit", "--no-fund", "--prefer-offline"][..]),
        ("npx", &["--no-install", "tsc"]),
    ] {
        let mut command = child::command(program);
        command.args(args).current_dir(scratch.path()).env("npm_config_cache", &cache);
        let status = Child::spawn(command).wait_exit(program).await;
        assert!(status.success(), "{program}: {status}");
    }
    let made = fs::read_to_string(scratch.path().join("ssegate.d.ts")).unwrap();
    let kept = fs::read_to_string(folder().join("ssegate.d.ts")).unwrap();
    assert!(made == kept, "run `npm ci && npm run types` in contrib/js");
}
