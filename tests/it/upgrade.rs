//! Another process takes over: nobody is refused, nothing is lost, and those who come back do so spread over a while.

use std::fs;
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixDatagram, UnixStream};
use tokio::task::JoinSet;

use crate::support::child::raise_descriptor_limit;
use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, request};
use crate::support::kafka::{Kafka, Record, unique};
use crate::support::redis::Redis;
use crate::support::scratch;
use crate::support::ssegate::{Builder, Ssegate};
use crate::support::tls::TestCa;
use crate::support::wait::{eventually, within};
use crate::tls::pair;

/// A process that another one has started. Ends with this.
pub struct Successor(Pid);

impl Successor {
    /// The process of this id.
    pub fn of(pid: &Value) -> Self {
        Self(pid.as_i64().and_then(|pid| Pid::from_raw(pid as i32)).expect("a pid"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.0, signal).expect("it runs");
    }

    fn runs(&self) -> bool {
        // What has ended and was not reaped yet does not.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.as_raw_nonzero())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Has the process replaced, and waits until the other one serves.
pub async fn upgrade(ssegate: &mut Ssegate) -> Successor {
    let before = ssegate.log().len();
    ssegate.signal(Signal::USR2);
    served(ssegate, before).await
}

/// The process that a line of the log after the first so many says to serve.
pub async fn served(ssegate: &Ssegate, before: usize) -> Successor {
    eventually("a successor to serve", async || {
        let said = ssegate.log().split_off(before);
        assert!(!said.iter().any(|line| line["message"] == NO_UPGRADE), "{said:?}");
        let line = said.iter().find(|line| line["message"] == SERVES).ok_or("none yet")?;
        Ok::<_, &str>(Successor::of(&line["pid"]))
    })
    .await
}

const SERVES: &str = "the successor serves; this process drains";
pub const NO_UPGRADE: &str = "no upgrade; this process goes on";

const PUSH: &str = "upstreams: { lobby: { push: {} } }
routes: [ { path: /e, from: { upstream: lobby, channel: e }, retry: 100ms } ]
";

/// A `server` on this port, 0 for a free one, that drains for so long.
pub fn server(port: u16, drain: &str) -> String {
    let tls = pair(TestCa::shared().leaf());
    format!("server: {{ listen: \"127.0.0.1:{port}\", drain: {drain}, tls: {{ {tls} }} }}\n")
}

pub fn drains_within(drain: &str) -> String {
    server(0, drain) + PUSH
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_while_one_process_follows_another() {
    let redis = Redis::start().await;
    let mut ssegate = Ssegate::start(format!(
        "{}upstreams: {{ cache: {{ redis: {{ url: \"{}\" }} }} }}
routes: [ {{ path: /s, from: {{ upstream: cache, stream: s }}, data: \"{{field.n}}\", retry: 100ms }} ]
",
        server(0, "1s"),
        redis.url()
    ))
    .await;
    let mut clients = JoinSet::new();
    for n in 0..20 {
        let options = if n % 2 == 0 { Options::http1() } else { Options::http2() };
        let mut stream = EventSource::connect(ssegate.url("/s"), options).await;
        stream.next_named("stream.position").await;
        clients.spawn(follow(stream));
    }
    // Each of them begins a connection of its own, again and again, all the time.
    let mut visitors = JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for how in [Connect::http1(), Connect::http2(), Connect::http1()] {
        let (url, stopped) = (ssegate.url("/s"), stopped.clone());
        visitors.spawn(async move {
            let mut visits = 0;
            while !*stopped.borrow() {
                assert_eq!(request(Method::HEAD, &url, &[], "", &how).await.status, 200);
                visits += 1;
            }
            visits
        });
    }
    redis.xadd_numbers("s", 0..10).await;
    let successor = upgrade(&mut ssegate).await;
    redis.xadd_numbers("s", 10..20).await;
    assert!(ssegate.wait_exit().await.success(), "the old one has drained");
    redis.xadd_numbers("s", 20..30).await;
    assert_eq!(
        ssegate.admin_get("/readyz").await.status,
        200,
        "operators are answered where they were before"
    );

    // And once more, by the one that took over, which all are with by now.
    eventually("all to be back", async || match &ssegate.status().await["subscribers"] {
        all if *all == 20 => Ok(()),
        some => Err(some.clone()),
    })
    .await;
    let before = ssegate.log().len();
    successor.signal(Signal::USR2);
    let last = served(&ssegate, before).await;
    eventually("the first successor to end", async || if successor.runs() { Err("runs") } else { Ok(()) })
        .await;
    redis.xadd_numbers("s", 30..40).await;
    redis.xadd("s", "*", &[("n", "end")]).await;
    while let Some(client) = within("a client to have it all", clients.join_next()).await {
        let told = client.expect("no panic");
        assert_eq!(told.numbers, (0..40).collect::<Vec<_>>());
        assert_eq!((told.came_back.len(), told.refused), (2, vec![]));
    }
    stop.send_replace(true);
    while let Some(visits) = within("visitors to leave", visitors.join_next()).await {
        assert!(visits.expect("nobody was refused") > 0);
    }
    assert!(last.runs());
}

/// What one client lived through.
pub struct Told {
    /// What it was given, in order.
    pub numbers: Vec<i32>,
    /// When it opened a stream again.
    pub came_back: Vec<Instant>,
    /// Why it could not.
    pub refused: Vec<String>,
}

/// Reads numbers until the end is told, and comes back like an `EventSource` whenever its stream ends.
pub async fn follow(mut stream: EventSource) -> Told {
    let mut told = Told { numbers: Vec::new(), came_back: Vec::new(), refused: Vec::new() };
    loop {
        while let Some(event) = stream.try_next().await {
            stream.forget();
            match (&*event.event, &*event.data) {
                ("message", "end") => return told,
                ("message", number) => told.numbers.push(number.parse().expect("a number")),
                ("stream.position", _) => {}
                _ => panic!("{event:?}"),
            }
        }
        tokio::time::sleep(stream.retry().expect("a time to come back")).await;
        match stream.try_open().await {
            Ok(()) => {
                assert_eq!(stream.status(), 200);
                told.came_back.push(Instant::now());
            }
            Err(error) => told.refused.push(error.to_string()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_streams_lose_nothing_and_come_back_spread_over_the_window() {
    raise_descriptor_limit();
    let (redis, kafka) = (Redis::start().await, Kafka::shared().await);
    let topic = unique("upgrade");
    kafka.create_topic(&topic, 1).await;
    let mut ssegate = Ssegate::start(format!(
        "upstreams:
  cache: {{ redis: {{ url: \"{}\" }} }}
  bus: {{ kafka: {{ brokers: [\"{}\"] }} }}
routes:
  - {{ path: /s, from: {{ upstream: cache, stream: s }}, data: \"{{field.n}}\" }}
  - {{ path: /t, from: {{ upstream: bus, topic: {topic} }} }}
",
        redis.url(),
        kafka.bootstrap()
    ))
    .await;
    let mut clients = JoinSet::new();
    for n in 0..STREAMS {
        let path = if n % 2 == 0 { "/s" } else { "/t" };
        let options = if n % 5 == 0 { Options::http2() } else { Options::http1() };
        let mut stream = EventSource::connect(ssegate.url(path), options).await;
        stream.next_named("stream.position").await;
        clients.spawn(follow(stream));
    }
    let publish = async |number: String| {
        redis.xadd("s", "*", &[("n", &number)]).await;
        kafka.produce(Record::to(&topic).partition(0).payload(number)).await;
    };
    let mut published = 0;
    let mut successor = None;
    let mut upgrading = Box::pin(upgrade(&mut ssegate));
    while successor.is_none() {
        publish(published.to_string()).await;
        published += 1;
        // A pace.
        tokio::select! {
            new = &mut upgrading => successor = Some(new),
            () = tokio::time::sleep(PACE) => {}
        }
    }
    drop(upgrading);
    // The pace goes on until all have been sent away.
    let drained = async { ssegate.wait_exit().await };
    tokio::pin!(drained);
    loop {
        publish(published.to_string()).await;
        published += 1;
        tokio::select! {
            status = &mut drained => break assert!(status.success()),
            () = tokio::time::sleep(PACE) => {}
        }
    }
    publish("end".into()).await;
    let mut returns = Vec::new();
    while let Some(client) = within("a client to have it all", clients.join_next()).await {
        let told = client.expect("no panic");
        assert_eq!(told.numbers, (0..published).collect::<Vec<_>>());
        assert_eq!((told.came_back.len(), told.refused), (1, vec![]));
        returns.extend(told.came_back);
    }
    are_spread(returns, STREAMS);
}

/// No more than a tenth of so many clients came back a second. Over three of them, since a busy machine may stand still for
/// one or two, and all who would have come then come after it.
pub fn are_spread(mut returns: Vec<Instant>, clients: usize) {
    returns.sort_unstable();
    for (at, first) in returns.iter().enumerate() {
        let crowd =
            returns[at..].iter().take_while(|other| **other - *first < Duration::from_secs(3)).count();
        assert!(crowd <= 3 * clients / 10, "{crowd} of {clients} came back within three seconds");
    }
}

const STREAMS: usize = 2_000;
/// Between two events.
const PACE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_successor_that_does_not_come_up_changes_nothing() {
    let mut ssegate = Ssegate::start(drains_within("100ms")).await;
    let mut stream = EventSource::connect(ssegate.url("/e"), Options::http1()).await;
    stream.next_named("stream.position").await;
    let sound = fs::read_to_string(ssegate.config_path()).unwrap();
    fs::write(ssegate.config_path(), sound.replace("channel: e", "chanel: e")).unwrap();
    ssegate.signal(Signal::USR2);
    let line = ssegate.wait_log("why", |line| line["message"] == NO_UPGRADE).await;
    assert!(line["error"].as_str().unwrap().contains("exit status: 78"), "{line}");
    // Its log is on the same standard error.
    ssegate.wait_log("the problem", |line| line.to_string().contains("unknown key `chanel`")).await;
    ssegate.publish("e", "still here").await;
    assert_eq!(stream.next_message().await.data, "still here");
    assert_eq!(ssegate.admin_get("/readyz").await.status, 200);

    fs::write(ssegate.config_path(), sound).unwrap();
    let successor = upgrade(&mut ssegate).await;
    assert!(ssegate.wait_exit().await.success());
    let mut stream = EventSource::connect(ssegate.url("/e"), Options::http1()).await;
    stream.next_named("stream.position").await;
    // It ends in order as well.
    successor.signal(Signal::TERM);
    stream.until_end().await;
    eventually("its end", async || if successor.runs() { Err("it runs") } else { Ok(()) }).await;
}

#[tokio::test]
async fn a_successor_that_is_stopped_before_it_serves_takes_nothing_away() {
    // Whom a successor waits for, since it never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = scratch::dir("upgrade");
    let path = folder.path().join("admin.sock");
    let mut ssegate = Ssegate::start(format!(
        "{}admin: {{ listen: \"unix:{}\" }}
upstreams: {{ cache: {{ redis: {{ url: \"redis://{}\", timeout: 5m }} }} }}
routes: [ {{ path: /s, from: {{ upstream: cache, channel: s }} }} ]
",
        server(0, "1s"),
        path.display(),
        silent.local_addr().unwrap()
    ))
    .await;
    let _first = silent.accept().await.unwrap();
    for _ in 0..2 {
        let before = ssegate.log().len();
        ssegate.signal(Signal::USR2);
        let said = |message: &'static str| {
            let ssegate = &ssegate;
            eventually(message, async move || {
                ssegate
                    .log()
                    .split_off(before)
                    .into_iter()
                    .find(|line| line["message"] == message)
                    .ok_or("not said")
            })
        };
        let pid = said("a successor starts").await["pid"].as_i64().unwrap();
        // Its own connection shows that it is past what a signal would have ended by itself.
        let _second = silent.accept().await.unwrap();
        kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::TERM).unwrap();
        let error = said(NO_UPGRADE).await["error"].to_string();
        assert!(error.contains("exit status: 0"), "{error}");
        let mut admin = UnixStream::connect(&path).await.expect("the one that goes on is there");
        admin.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        admin.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("alive\n"), "{answer}");
    }
    ssegate.signal(Signal::TERM);
    assert!(ssegate.wait_exit().await.success());
    assert!(!path.exists(), "the file was its own");
}

/// Where systemd's messages go, and what comes next of them.
pub struct Notified {
    socket: UnixDatagram,
    path: String,
    _dir: tempfile::TempDir,
}

impl Notified {
    /// Nothing has been said yet.
    pub fn bind() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path: path.to_str().unwrap().to_owned(), _dir: dir }
    }

    /// Has it told there.
    pub fn told(&self, builder: Builder) -> Builder {
        builder.env("NOTIFY_SOCKET", &self.path)
    }

    /// The next message.
    pub async fn next(&self) -> String {
        let mut message = [0; 1024];
        let length = within("a message to systemd", self.socket.recv(&mut message)).await.unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    }
}

#[tokio::test]
async fn systemd_is_told_which_process_is_the_main_one() {
    let systemd = Notified::bind();
    let mut ssegate = systemd.told(Ssegate::builder().config(drains_within("0"))).start().await;
    assert_eq!(systemd.next().await.trim(), "READY=1");
    let successor = upgrade(&mut ssegate).await;
    let told = systemd.next().await;
    let pid = successor.0.as_raw_nonzero();
    assert_eq!(told.lines().collect::<Vec<_>>(), [&*format!("MAINPID={pid}"), "READY=1"]);
    assert!(ssegate.wait_exit().await.success());
    successor.signal(Signal::TERM);
    assert_eq!(systemd.next().await.trim(), "STOPPING=1", "the old one has not said so");
}

/// As systemd does it, but that it also kills.
#[tokio::test]
async fn the_watchdog_is_fed_by_what_serves_and_by_nothing_else() {
    let systemd = Notified::bind();
    let builder = systemd.told(Ssegate::builder().config(PUSH)).env("WATCHDOG_USEC", "400000");
    let mut ssegate = builder.env("SSEGATE_FAULT", "deadlock").start().await;
    let mut pings = 0;
    while pings < 5 {
        let told = systemd.next().await;
        pings += usize::from(told.trim() == "WATCHDOG=1");
    }
    // From here on no task of the process goes on.
    ssegate.signal(Signal::USR1);
    ssegate.wait_log("the fault", |line| line["message"] == "deadlocked on purpose").await;
    let silent =
        async { while tokio::time::timeout(Duration::from_secs(2), systemd.next()).await.is_ok() {} };
    within("the pings to cease", silent).await;
    ssegate.kill();
}

#[tokio::test]
async fn sockets_that_are_passed_are_served() {
    let port = crate::support::ports::free();
    let yaml = server(port, "0") + PUSH;
    let builder = Ssegate::builder().config(&*yaml).launcher(&["python3", "-c", PASSES, &port.to_string()]);
    let ssegate = builder.start().await;
    assert_eq!(ssegate.addr().port(), port);
    let stray = ssegate
        .wait_log("what nobody wants", |line| line["message"].to_string().contains("it is closed"))
        .await;
    assert!(stray["place"].as_str().unwrap().starts_with("127.0.0.2:"), "{stray}");
    let mut stream = EventSource::connect(ssegate.url("/e"), Options::http1()).await;
    stream.next_named("stream.position").await;
    drop(ssegate);

    // A datagram socket is of no use.
    let exit = Ssegate::builder().config(yaml).launcher(&["python3", "-c", PASSES_UDP]).serve_to_exit().await;
    assert_eq!(exit.status.code(), Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains("socket 1 of those that were passed (LISTEN_FDS)"), "{}", exit.stderr);
}

/// Becomes the command that follows, with a socket that listens on this port and one that nobody wants, as systemd does it.
const PASSES: &str = r#"
import os, socket, sys
for at, address in enumerate([("127.0.0.1", int(sys.argv[1])), ("127.0.0.2", 0)]):
    os.dup2(socket.create_server(address).detach(), 50 + at)
for number in [3, 4]:
    os.dup2(47 + number, number)
    os.close(47 + number)
os.environ.update(LISTEN_FDS="2", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"#;

const PASSES_UDP: &str = r#"
import os, socket, sys
os.dup2(socket.socket(type=socket.SOCK_DGRAM).detach(), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])
"#;
