//! How many connections there may be, in all and for one client, and what becomes of those who come when it is full.

use std::fs;
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::net::TcpStream;

use crate::support::app::App;
use crate::support::eventsource::{End, EventSource, Options};
use crate::support::http::{Connect, Link, Version, get, request};
use crate::support::ssegate::Ssegate;
use crate::support::wait::{eventually, within};

const ROUTES: &str = r#"
upstreams: { lobby: { push: {} } }
routes: [ { path: /e, from: { upstream: lobby, channel: e } } ]
"#;

async fn stream(ssegate: &Ssegate, connect: Connect) -> EventSource {
    let mut stream = EventSource::connect(ssegate.url("/e"), Options::default().connect(connect)).await;
    stream.next_named("stream.position").await;
    stream
}

/// Opens a stream that ends at once and says when to come back.
async fn told(ssegate: &Ssegate, connect: Connect) -> EventSource {
    let mut one = EventSource::connect(ssegate.url("/e"), Options::default().connect(connect)).await;
    assert_eq!((one.until_end().await, one.events().len()), (End::Complete, 0));
    assert!(one.retry().is_some());
    one
}

/// Whether there is room for a stream of this client. Where there is none it is told so, or closed if it asks too often.
async fn comes_in(ssegate: &Ssegate) -> Result<(), String> {
    let mut one = EventSource::new(ssegate.url("/e"), Options::http1());
    one.try_open().await.map_err(|error| error.to_string())?;
    one.try_next().await.map(drop).ok_or_else(|| "it is told to come back".to_owned())
}

async fn shed(ssegate: &Ssegate, reason: &str) -> f64 {
    ssegate.metrics().await.sum(SHED, &[("reason", reason)])
}

const SHED: &str = "ssegate_connections_shed_total";

#[tokio::test]
async fn one_client_has_its_share_and_others_theirs() {
    let ssegate = Ssegate::start(format!("limits: {{ connections_per_client: 2 }}\n{ROUTES}")).await;
    let mut open = vec![stream(&ssegate, Connect::http1()).await, stream(&ssegate, Connect::http2()).await];
    for connect in [Connect::http1(), Connect::http2()] {
        told(&ssegate, connect).await;
    }
    ssegate.until_counted(SHED, &[("reason", "client_connections")], 2.0).await;
    let mut other = stream(&ssegate, Connect::http1().from("127.0.0.2")).await;
    ssegate.publish("e", "1").await;
    for stream in open.iter_mut().chain([&mut other]) {
        assert_eq!(stream.next_message().await.data, "1");
    }
    // Those that were sent away may take a moment to be gone.
    eventually("three connections of two clients", async || {
        let status = ssegate.status().await["connections"].clone();
        assert_eq!(status["limit_per_client"], 2);
        if status["open"] == 3 && status["clients"] == 2 { Ok(()) } else { Err(status) }
    })
    .await;
    open.pop();
    eventually("the place of the one that left", async || comes_in(&ssegate).await).await;
}

/// Who has more than his share gets a word, but neither pages nor WebSockets, and a crowd of his gets nothing.
#[tokio::test]
async fn who_has_his_share_is_told_so_and_cannot_make_work_of_it() {
    let app = App::start().await;
    let ssegate = Ssegate::start(format!(
        r#"
limits: {{ connections_per_client: 1 }}
upstreams: {{ lobby: {{ push: {{}} }} }}
routes:
  - {{ path: /e, from: {{ upstream: lobby, channel: e }}, cors: {{ origins: "*" }} }}
  - {{ path: "/{{*rest}}", proxy: "http://{}" }}
"#,
        app.addr
    ))
    .await;
    let mut first = stream(&ssegate, Connect::http1()).await;
    for connect in [Connect::http1(), Connect::http2()] {
        let one = told(&ssegate, connect.clone()).await;
        assert_eq!(one.header("access-control-allow-origin"), "*", "pages of other origins read it, too");
        let upgrade = [("connection", "upgrade"), ("upgrade", "echo")];
        let headers = if connect.version == Version::One { &upgrade[..] } else { &[] };
        let page = request(Method::GET, &ssegate.url("/switch"), headers, "", &connect).await;
        assert_eq!(
            (page.status.as_u16(), &page.json()["type"]),
            (429, &"urn:ssegate:problem:too-many-streams".into())
        );
        assert!(page.header("retry-after").parse::<u32>().unwrap() >= 1);
    }
    assert_eq!(app.connections(), 0);
    let crowd = (0..100).map(|_| async { Link::open(&ssegate.url("/"), &Connect::http1()).await.is_ok() });
    let seen = within("a crowd", futures_util::future::join_all(crowd)).await;
    let answered = seen.iter().filter(|seen| **seen).count();
    assert!(answered < 100, "all of them had a handshake");
    ssegate.until_counted(SHED, &[("reason", "client_connections")], 104.0).await;
    ssegate.publish("e", "1").await;
    assert_eq!(first.next_message().await.data, "1");
    stream(&ssegate, Connect::http1().from("127.0.0.2")).await;
}

#[tokio::test]
async fn one_client_opens_them_no_faster_than_it_may() {
    let limits = "limits: { connection_rate_per_client: { rate: 1, burst: 3 } }";
    let ssegate = Ssegate::start(format!("{limits}\n{ROUTES}")).await;
    let mut refused = 0;
    for _ in 0..6 {
        refused += u32::from(comes_in(&ssegate).await.is_err());
    }
    // A second may have passed meanwhile on a busy machine, and not three.
    assert!((1..=3).contains(&refused), "{refused}");
    ssegate.until_counted(SHED, &[("reason", "client_rate")], f64::from(refused)).await;
    stream(&ssegate, Connect::http1().from("127.0.0.2")).await;
    eventually("a token to be back", async || comes_in(&ssegate).await).await;
}

/// With 128 descriptors there is room for 95 connections, and one more to be sent away.
#[tokio::test]
async fn when_it_is_full_one_is_sent_away_and_others_wait() {
    let config = format!("limits: {{ handshake_timeout: 5m }}\n{ROUTES}");
    let ssegate = Ssegate::builder().config(config).descriptors(128).start().await;
    let status = ssegate.status().await;
    assert_eq!((&status["connections"]["limit"], &status["connections"]["surplus"]), (&95.into(), &1.into()));
    let mut open = Vec::new();
    for _ in 0..95 {
        open.push(stream(&ssegate, Connect::http1()).await);
    }
    for options in [Options::http1(), Options::http2()] {
        let mut one = EventSource::connect(ssegate.url("/e"), options).await;
        one.until_end().await;
        assert_eq!((one.end(), one.events().len()), (Some(&End::Complete), 0));
        assert!(one.retry().is_some());
        eventually("it to be gone", async || match ssegate.status().await["connections"]["open"].as_u64() {
            Some(95) => Ok(()),
            n => Err(format!("{n:?}")),
        })
        .await;
    }
    assert!(shed(&ssegate, "connections").await >= 2.0);

    // One who holds the surplus, so that the next is not accepted.
    let silent = TcpStream::connect(ssegate.addr()).await.unwrap();
    eventually("accepting to pause", async || {
        match ssegate.metrics().await.sum("ssegate_accept_pauses_total", &[("reason", "connections")]) {
            0.0 => Err("it does not"),
            _ => Ok(()),
        }
    })
    .await;
    let (url, options) = (ssegate.url("/e"), Options::http1());
    let waiting = tokio::spawn(async move { EventSource::connect(url, options).await });
    ssegate.publish("e", "1").await;
    for stream in &mut open {
        assert_eq!(stream.next_message().await.data, "1");
    }
    assert!(!waiting.is_finished());
    open.pop();
    drop(silent);
    let mut next = waiting.await.unwrap();
    // Whether it came in before or after the silent one was gone.
    if next.try_next().await.is_none() {
        assert!(next.retry().is_some());
    }
    assert!(ssegate.log().iter().all(|line| !line.to_string().contains("cannot accept")));
}

#[tokio::test]
async fn a_limit_that_descriptors_do_not_allow_is_told() {
    let config = format!("limits: {{ connections: 1000 }}\n{ROUTES}");
    let ssegate = Ssegate::builder().config(config).descriptors(128).start().await;
    let told = |line: &serde_json::Value| line.to_string().contains("more than the descriptor limit allows");
    ssegate.wait_log("what is possible", told).await;
    assert_eq!(ssegate.status().await["connections"]["limit"], 95);
}

/// Processor time of a process, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn descriptors_of(pid: u32, limit: u64) {
    let (pid, maximum) = (Pid::from_raw(pid as i32), Some(4096));
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(limit), maximum }).unwrap();
}

#[tokio::test]
async fn running_out_of_descriptors_is_waited_out() {
    let ssegate = Ssegate::builder().config(ROUTES).descriptors(4096).start().await;
    let mut good = stream(&ssegate, Connect::http1()).await;
    let open = fs::read_dir(format!("/proc/{}/fd", ssegate.id())).unwrap().count() as u64;
    descriptors_of(ssegate.id(), open + 3);
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(TcpStream::connect(ssegate.addr()).await.unwrap());
    }
    let lack = |line: &serde_json::Value| line.to_string().contains("cannot accept connections");
    ssegate.wait_log("the lack", lack).await;
    let (before, began) = (ticks(ssegate.id()), Instant::now());
    // The time over which the processor is watched.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = ticks(ssegate.id()) - before;
    assert!(used < 40, "it spins: {used} of 200");
    assert_eq!(ssegate.log().iter().filter(|line| lack(line)).count(), 1, "once for all of them");
    descriptors_of(ssegate.id(), 4096);
    drop(waiting);
    stream(&ssegate, Connect::http2()).await;
    ssegate.publish("e", "1").await;
    assert_eq!(good.next_message().await.data, "1");
    let pauses = ssegate.metrics().await.sum("ssegate_accept_pauses_total", &[("reason", "error")]);
    // A quarter of a second lies between two attempts.
    let most = began.elapsed().as_secs_f64() * 4.0 + 2.0;
    assert!(pauses > 1.0 && pauses <= most, "{pauses} attempts, at most {most}");
    assert_eq!(get(&ssegate.url("/nowhere")).await.status, 404);
}
