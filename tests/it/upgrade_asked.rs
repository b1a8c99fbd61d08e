//! `ssegate upgrade` and `POST /upgrade`: who asks for another process is told how that went.

use std::fs;
use std::sync::Arc;

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::command::run;
use crate::support::eventsource::{EventSource, Options};
use crate::support::http::{Connect, Link, build, request};
use crate::support::ssegate::Ssegate;
use crate::support::wait::{eventually, within};
use crate::upgrade::{NO_UPGRADE, Successor, drains_within};

/// No time to drain, so that nothing but the answer keeps the old process.
#[tokio::test]
async fn the_command_names_both_processes_once_the_new_one_serves() {
    let mut ssegate = Ssegate::start(drains_within("0")).await;
    let config = ssegate.config_path().display().to_string();
    let admin = ssegate.addrs("admin")[0].to_string();
    // The port of the configuration is 0, so that it does not say where the listener is.
    let upgraded = run(&["upgrade", "--admin", &admin]).await;
    assert!(upgraded.status.success(), "{upgraded:?}");
    let [line] = &upgraded.stdout[..] else { panic!("{upgraded:?}") };
    let (new, old) = line
        .strip_prefix("process ")
        .and_then(|line| line.strip_suffix(" drains")?.split_once(" serves; process "))
        .unwrap_or_else(|| panic!("{line}"));
    assert_eq!(old, ssegate.id().to_string());
    let successor = Successor::of(&json!(new.parse::<u32>().unwrap()));
    assert!(ssegate.wait_exit().await.success());
    assert!(fs::read_to_string(format!("/proc/{new}/cmdline")).unwrap().contains(&config));
    assert_eq!(ssegate.admin_get("/readyz").await.status, 200);
    let mut stream = EventSource::connect(ssegate.url("/e"), Options::http1()).await;
    stream.next_named("stream.position").await;
    drop(successor);
}

#[tokio::test]
async fn a_successor_that_does_not_come_up_is_told_with_its_reasons() {
    let ssegate = Ssegate::start(drains_within("0")).await;
    let sound = fs::read_to_string(ssegate.config_path()).unwrap();
    fs::write(ssegate.config_path(), sound.replace("channel: e", "chanel: e, start: 7")).unwrap();
    let admin = ssegate.addrs("admin")[0].to_string();
    let args = ["upgrade", "--admin", &admin];
    let (refused, twin) = tokio::join!(run(&args), run(&args));
    for refused in [refused, twin] {
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0), "{refused:?}");
        let said = refused.stderr.join("\n");
        for expected in ["no upgrade: ", "exit status: 78", "config.yaml:", "unknown key `chanel`"] {
            assert!(said.contains(expected), "no {expected:?} in\n{said}");
        }
    }
    // One after the other, and this one goes on.
    let told = async || match ssegate.log().iter().filter(|line| line["message"] == NO_UPGRADE).count() {
        2 => Ok(()),
        other => Err(other),
    };
    eventually("both to be in the log", told).await;
    let mut stream = EventSource::connect(ssegate.url("/e"), Options::http1()).await;
    stream.next_named("stream.position").await;
    ssegate.publish("e", "still here").await;
    assert_eq!(stream.next_message().await.data, "still here");
}

/// Connections that the old process has already: new ones go to whichever accepts them.
#[tokio::test]
async fn only_one_of_those_who_ask_at_once_is_given_a_successor() {
    let mut ssegate = Ssegate::start(drains_within("0")).await;
    let (one, other) = (post(&ssegate).await, post(&ssegate).await);
    let answers = within("answers", async { [one.await.unwrap(), other.await.unwrap()] }).await;
    let (told, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|(status, _)| *status == StatusCode::OK);
    let [(_, told)] = &told[..] else { panic!("{told:?} {refused:?}") };
    assert_eq!(told["pid"], ssegate.id());
    let _successor = Successor::of(&told["successor"]);
    let [(status, problem)] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!((*status, &problem["type"]), (StatusCode::CONFLICT, &"urn:ssegate:problem:draining".into()));
    assert!(ssegate.wait_exit().await.success());
}

/// Begins to ask for an upgrade on a connection that is open.
async fn post(ssegate: &Ssegate) -> tokio::task::JoinHandle<(StatusCode, Value)> {
    let url = ssegate.admin_url("/upgrade");
    let link = Arc::new(Link::open(&url, &Connect::http1()).await.unwrap());
    // Accepted, for sure: it has answered something.
    let alive = build(Method::GET, &ssegate.admin_url("/healthz"), &[], "");
    link.send(alive).await.unwrap().into_body().collect().await.unwrap();
    tokio::spawn(async move {
        let (head, body) = link.send(build(Method::POST, &url, &[], "")).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, serde_json::from_slice(&body).unwrap())
    })
}

#[tokio::test]
async fn an_upgrade_is_for_operators() {
    let mut ssegate =
        Ssegate::start(drains_within("5s") + "admin: { listen: \"127.0.0.1:0\", token: 0123456789abcdef }\n")
            .await;
    let (url, token) = (ssegate.admin_url("/upgrade"), ("authorization", "Bearer 0123456789abcdef"));
    let ask = async |method: Method, fields: &[(&str, &str)]| {
        request(method, &url, fields, "", &Connect::http1()).await.status.as_u16()
    };
    assert_eq!(ask(Method::POST, &[]).await, 401);
    assert_eq!(ask(Method::GET, &[token]).await, 405);
    assert_eq!(ask(Method::POST, &[token, ("origin", "https://evil.example")]).await, 403);
    let admin = ssegate.addrs("admin")[0].to_string();
    let refused = run(&["upgrade", "--admin", &admin]).await;
    assert!(refused.stderr.join(" ").contains("name a token that it takes"), "{refused:?}");
    // A process that is ending starts no other.
    let _stay = EventSource::connect(ssegate.url("/e"), Options::http1()).await;
    ssegate.signal(Signal::TERM);
    ssegate.wait_log("the drain", |line| line["message"] == "draining").await;
    let file = ssegate.config_path().with_file_name("token");
    fs::write(&file, "0123456789abcdef\n").unwrap();
    let refused = run(&["upgrade", "--admin", &admin, "--token-file", file.to_str().unwrap()]).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = refused.stderr.join(" ");
    assert!(said.contains("no upgrade: This process is ending") || said.contains("no answer from"), "{said}");
}

#[tokio::test]
async fn nobody_there_is_told_as_such() {
    let admin = format!("http://127.0.0.1:{}", crate::support::ports::free());
    let refused = run(&["upgrade", "--admin", &admin]).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.join(" ").contains("no answer from "), "{refused:?}");
}

/// Whose end would be that of all others in there.
#[tokio::test]
async fn the_first_process_of_a_container_has_no_successor() {
    let container = ["unshare", "--pid", "--fork", "--kill-child", "--"];
    let may = std::process::Command::new(container[0]).args(&container[1..]).arg("true").status();
    if !may.is_ok_and(|status| status.success()) {
        println!("skipped: the kernel does not let us have a container");
        return;
    }
    let ssegate = Ssegate::builder().config(drains_within("0")).launcher(&container).start().await;
    let refused = ssegate.admin(Method::POST, "/upgrade", "").await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    let why = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(why.contains("process 1 of a container"), "{why}");
    assert_eq!(ssegate.admin_get("/readyz").await.status, 200);
}
