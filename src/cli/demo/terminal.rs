//! What the demo says on the terminal.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::streams::Shown;

/// Where everything is, once it is served.
pub(super) fn welcome(
    addrs: &[SocketAddr],
    admin: Option<SocketAddr>,
    shown: &[&Shown],
    no_redis: Option<&anyhow::Error>,
) -> String {
    let origin = addrs.first().map(|&addr| format!("https://{}", host(addr))).unwrap_or_default();
    let admin = admin.map(|addr| format!("http://{addr}")).unwrap_or_default();
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<width$}{value}", width = WIDTH);
    };
    line("ssegate demo", "");
    line("", "");
    line("Page", &format!("{origin}/"));
    line("", "The certificate is self-signed: the browser asks once.");
    line("", "");
    for shown in shown {
        line(shown.title, &format!("curl -kN {origin}{}", shown.path));
    }
    if let Some(why) = no_redis {
        line("No Redis streams:", &format!("{why:#}"));
    }
    line("", "");
    for room in shown.iter().filter_map(|shown| shown.room) {
        line("To publish to a room", &format!("curl -d hello {admin}/publish/{room}"));
    }
    line("Status and metrics", &format!("{admin}/status  {admin}/metrics"));
    line("Its configuration", "ssegate demo --print-config");
    line("", "");
    line("Ctrl-C ends it.", "");
    // Padding is for what follows it.
    text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

/// How a browser on this machine calls an address.
pub(in super::super) fn host(addr: SocketAddr) -> String {
    if addr.ip().is_loopback() || addr.ip().is_unspecified() {
        format!("localhost:{}", addr.port())
    } else {
        addr.to_string()
    }
}

/// Of the first column.
const WIDTH: usize = 26;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::streams;

    #[test]
    fn every_stream_has_its_line() {
        let addrs = ["127.0.0.1:8443".parse().unwrap(), "[::1]:8443".parse().unwrap()];
        let shown: Vec<_> = streams::ALL.iter().collect();
        let text = welcome(&addrs, Some("127.0.0.1:9090".parse().unwrap()), &shown, None);
        for shown in shown {
            assert!(text.contains(&format!("curl -kN https://localhost:8443{}\n", shown.path)));
        }
        assert!(text.contains("curl -d hello http://127.0.0.1:9090/publish/lobby\n"));
        assert!(text.lines().all(|line| line.len() <= 100 && !line.ends_with(' ')));
        let why = anyhow::anyhow!("it is not there");
        assert!(welcome(&addrs, None, &[], Some(&why)).contains("it is not there\n"));
    }

    #[test]
    fn addresses_of_this_machine_are_localhost() {
        for (addr, name) in
            [("0.0.0.0:1", "localhost:1"), ("[::1]:2", "localhost:2"), ("192.0.2.1:3", "192.0.2.1:3")]
        {
            assert_eq!(host(addr.parse().unwrap()), name);
        }
    }
}
