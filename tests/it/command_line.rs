//! The command line as an operator meets it: `check`, `serve` that cannot start, `--version`.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::support::ssegate::Ssegate;
use crate::support::tls::TestCa;

const BAD: &str = r#"server:
  listen: "127.0.0.1:notaport"
  tls: { cert: /nowhere/cert.pem, key: /nowhere/key.pem }
  drian: 5s
upstreams:
  cache: { redis: { url: "redis://:${UNSET_PASSWORD}@localhost" } }
routes:
  - path: /a
    from: { upstream: cahce, channel: "x:{room}" }
  - path: /a
    from: { upstream: cache, topic: t }
    cors: { origins: "*", credentials: true }
    keepalive: 1ms
"#;

#[tokio::test]
async fn check_lists_every_problem_with_its_place_and_exits_78() {
    let exit = Ssegate::builder().config(BAD).check().await;
    assert_eq!(exit.status.code(), Some(78), "{exit:?}");
    for expected in [
        "config.yaml:2:",
        "config.yaml:3:",
        "config.yaml:4:3",
        "`drain`",
        "config.yaml:6:",
        "UNSET_PASSWORD",
        "config.yaml:9:",
        "`cache`",
        "config.yaml:10:",
        "config.yaml:11:",
        "config.yaml:12:",
        "config.yaml:13:",
        "keepalive: 1ms",
    ] {
        assert!(exit.stderr.contains(expected), "no {expected:?} in\n{}", exit.stderr);
    }
    assert!(exit.stdout.is_empty());
}

#[tokio::test]
async fn serve_does_not_start_with_problems() {
    let exit = Ssegate::builder().config(BAD).serve_to_exit().await;
    assert_eq!(exit.status.code(), Some(78), "{exit:?}");
    assert!(exit.stderr.contains("config.yaml:13:"), "{}", exit.stderr);
}

#[tokio::test]
async fn check_says_what_would_be_served_and_binds_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        r#"
server: {{ listen: "{}", tls: self_signed }}
upstreams: {{ cache: {{ redis: {{ url: "rediss://user:hunter2@redis.internal:6380/3" }} }} }}
routes: [ {{ path: /news, host: a.example, from: {{ upstream: cache, channel: news }}, event: extra }} ]
"#,
        taken.local_addr().unwrap()
    );
    let exit = Ssegate::builder().config(&config).check().await;
    assert!(exit.status.success(), "{exit:?}");
    for expected in ["a.example/news", "redis.internal:6380", "channel news", "extra"] {
        assert!(exit.stdout.contains(expected), "no {expected:?} in\n{}", exit.stdout);
    }
    assert!(!exit.stdout.contains("hunter2"));

    let exit = Ssegate::builder().config(&config).serve_to_exit().await;
    assert_eq!(exit.status.code(), Some(1));
    let addr = taken.local_addr().unwrap().to_string();
    assert!(exit.stderr.contains(&format!("cannot listen on {addr}")), "{}", exit.stderr);
    assert!(exit.stderr.contains("another process listens there"), "{}", exit.stderr);
    assert!(exit.stderr.contains("`server.listen`"), "{}", exit.stderr);
}

#[tokio::test]
async fn what_may_not_be_meant_is_told_and_served() {
    let config = r#"
auth:
  users: { jwt: { secret: "a secret of 32 bytes or more than that" } }
  tickets: { ticket: { path: /tickets, of: users } }
upstreams: { t: { ticker: {} } }
routes: [ { path: /t, from: { upstream: t }, auth: [users, tickets] } ]
"#;
    let exit = Ssegate::builder().config(config).check().await;
    assert!(exit.status.success() && exit.stdout.contains("auth users, tickets"), "{exit:?}");
    let text = "the tickets of `tickets` are signed with a secret that is made at each start";
    assert!(exit.stderr.starts_with(&format!("warning: {text}")), "{}", exit.stderr);
    let ssegate = Ssegate::start(config).await;
    let line = ssegate.wait_log("the warning", |line| line.to_string().contains(text)).await;
    assert_eq!(line["level"], "WARN");
}

#[tokio::test]
async fn a_key_of_another_certificate_is_a_problem() {
    let ca = TestCa::new();
    let (one, other) = (ca.issue(&["localhost"]), ca.issue(&["other.example"]));
    let config = format!(
        "server: {{ listen: \"127.0.0.1:0\", tls: {{ cert: \"{}\", key: \"{}\" }} }}\nupstreams: {{ c: {{ ticker: {{}} }} }}\nroutes: [ {{ path: /e, from: {{ upstream: c }} }} ]\n",
        one.cert.display(),
        other.key.display()
    );
    let exit = Ssegate::builder().config(config).check().await;
    assert_eq!(exit.status.code(), Some(78));
    assert!(exit.stderr.contains("does not belong to the certificate"), "{}", exit.stderr);
}

#[tokio::test]
async fn a_property_that_librdkafka_does_not_know_is_a_problem_with_its_line() {
    let config = r#"upstreams:
  bus:
    kafka:
      brokers: ["localhost:9092"]
      properties:
        security.protocl: SSL
        fetch.wait.max.ms: soon
routes: [ { path: /e, from: { upstream: bus, topic: t } } ]
"#;
    let exit = Ssegate::builder().config(config).check().await;
    assert_eq!(exit.status.code(), Some(78), "{exit:?}");
    assert!(exit.stderr.contains("config.yaml:6:9"), "{}", exit.stderr);
    assert!(exit.stderr.contains("config.yaml:7:"), "{}", exit.stderr);
}

#[test]
fn version_and_help() {
    let run = |arg: &str| Command::new(env!("CARGO_BIN_EXE_ssegate")).arg(arg).output().unwrap();
    let version = run("--version");
    assert_eq!(String::from_utf8_lossy(&version.stdout), format!("ssegate {}\n", env!("CARGO_PKG_VERSION")));
    let help = String::from_utf8_lossy(&run("--help").stdout).into_owned();
    for command in ["serve", "check", "demo"] {
        assert!(help.contains(command), "{help}");
    }
}

/// As in `ssegate schema | head -1`, and on a disk that is full.
#[test]
fn output_that_nobody_takes_is_no_trouble_and_one_that_finds_no_room_is() {
    let print =
        |stdout: Stdio| Command::new(env!("CARGO_BIN_EXE_ssegate")).arg("schema").stdout(stdout).output();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let unread = print(writer.into()).unwrap();
    assert!(unread.status.success() && unread.stderr.is_empty(), "{unread:?}");
    let full = print(File::options().write(true).open("/dev/full").unwrap().into()).unwrap();
    assert_eq!(full.status.code(), Some(1));
    let said = String::from_utf8_lossy(&full.stderr);
    assert!(said.contains("cannot write to standard output: No space left on device"), "{said}");
}
