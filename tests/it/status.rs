//! `ssegate status` and `ssegate top` beside a running server, and one that is not there.

use std::process::Stdio;

use serde_json::Value;

use crate::support::child::{self, Child};
use crate::support::command::run;
use crate::support::ports;
use crate::support::ssegate::Ssegate;
use crate::support::wait::eventually;

const CONFIG: &str = r#"
upstreams: { t: { ticker: { every: 20ms } } }
routes: [ { path: /ticks, from: { upstream: t } } ]
"#;

#[tokio::test]
async fn a_running_server_is_shown_as_a_table_and_as_json() {
    let ssegate = Ssegate::start(CONFIG).await;
    let admin = format!("http://{}", ssegate.addrs("admin")[0]);
    // The ticker is down until it has begun.
    let status = eventually("a well server", async || {
        let status = run(&["status", "--admin", &admin]).await;
        if status.status.success() { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await;
    let text = status.stdout.join("\n");
    assert!(text.starts_with(&format!("ssegate {}, up ", env!("CARGO_PKG_VERSION"))), "{text}");
    for expected in [
        "\n  subscribers  0\n",
        "\n  memory ",
        " of 512 MiB\n",
        "\nUPSTREAM ",
        "\nt  ",
        "  ticker  up",
        "\n/ticks  ",
    ] {
        assert!(text.contains(expected), "no {expected:?} in\n{text}");
    }
    let json = run(&["status", "--json", "--admin", &admin]).await;
    let document: Value = serde_json::from_str(&json.stdout.join("\n")).unwrap();
    assert_eq!(document["upstreams"][0]["name"], "t");
}

#[tokio::test]
async fn an_upstream_that_is_down_is_status_2() {
    let config = r#"
upstreams: { gone: { redis: { url: "redis://127.0.0.1:1" } } }
routes: [ { path: /x, from: { upstream: gone, channel: x } } ]
"#;
    let ssegate = Ssegate::start(config).await;
    let admin = ssegate.addrs("admin")[0].to_string();
    let status = run(&["status", "--admin", &admin]).await;
    assert_eq!(status.status.code(), Some(2), "{status:?}");
    assert!(
        status.stdout.iter().any(|line| line.starts_with("gone") && line.contains(" DOWN ")),
        "{status:?}"
    );
}

#[tokio::test]
async fn nobody_there_is_status_1_with_what_to_do() {
    let admin = format!("http://127.0.0.1:{}", ports::free());
    for args in [&["status", "--admin", &admin][..], &["status", "--admin", "unix:/nowhere/admin.sock"]] {
        let status = run(args).await;
        assert_eq!((status.status.code(), status.stdout.len()), (Some(1), 0), "{status:?}");
        let said = status.stderr.join(" ");
        assert!(said.contains("no answer from ") && said.contains("`admin.listen`"), "{said}");
    }
}

#[tokio::test]
async fn the_listener_is_taken_from_the_configuration() {
    let port = ports::free();
    let ssegate =
        Ssegate::start(format!("{CONFIG}admin: {{ listen: \"0.0.0.0:{port}\", token: 0123456789abcdef }}\n"))
            .await;
    let config = ssegate.config_path().display().to_string();
    let status = run(&["status", "--config", &config]).await;
    assert!(status.stdout.iter().any(|line| line.starts_with("/ticks")), "{status:?}");
}

/// `script` gives it a terminal, and its standard input says when to end.
#[tokio::test]
async fn top_draws_on_a_terminal_and_leaves_it_as_it_was() {
    let none = run(&["top"]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(none.stderr[0].contains("`top` draws on a terminal"), "{none:?}");

    let ssegate = Ssegate::start(CONFIG).await;
    let shown = ssegate.config_path().with_file_name("shown");
    let top = format!("{} top --admin {}", env!("CARGO_BIN_EXE_ssegate"), ssegate.addrs("admin")[0]);
    let mut command = child::command("script");
    command.args(["--quiet", "--flush", "--return", "--command", &top]).arg(&shown);
    command.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut script = Child::spawn(command);
    let read = || std::fs::read_to_string(&shown).unwrap_or_default();
    // Its second look, which has rates, and in each look the route.
    eventually("two looks", async || {
        let text = read();
        let looks = text.matches("/ticks").count();
        if looks >= 2 && text.contains("EVENTS/S") {
            Ok(())
        } else {
            Err(format!("{looks} looks in {text:?}"))
        }
    })
    .await;
    script.type_in(b"q");
    let status = script.wait_exit("top to end").await;
    assert!(status.success(), "{status:?} {:?}", read());
    let text = read();
    let (enter, leave) = (text.find("\x1b[?1049h").unwrap(), text.find("\x1b[?25h\x1b[?1049l").unwrap());
    assert!(enter < leave, "{text:?}");
}
