//! `some-command | ssegate pipe`: serves the lines of standard input at once, on a URL that an `EventSource` reads and on a
//! [`page`] that shows them. What serves is the product itself, by a configuration of a few lines.

mod page;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use super::demo::{has_ipv6_loopback, try_addresses};
use super::{logs, serve, text};
use crate::app::{App, Start};
use crate::config::{self, Config};
use crate::http::Streams;
use crate::upstream;

/// What the command line says.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Serve here; may be given again [default: port 8443 of 127.0.0.1 and ::1, or 8080 with --plain]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// The path of the stream
    #[arg(long, value_name = "PATH", default_value = "/events")]
    path: String,
    /// Let pages of this origin read it, such as http://localhost:3000; may be given again
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<String>,
    /// Speak plain HTTP instead of TLS with a self-signed certificate, on this machine alone
    #[arg(long)]
    plain: bool,
    /// Go on serving when the input has ended
    #[arg(long)]
    keep: bool,
}

/// Serves standard input until that has ended and everybody was given it, or until SIGTERM or SIGINT.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let config = configure(options)?;
    logs::init(&config.log);
    serve::block_on(async {
        try_addresses(&config)?;
        let stop = serve::stop_signal();
        tokio::pin!(stop);
        let app = App::start(&config, Start::default(), Some(page::fallback(&options.path))).await?;
        text::print(&welcome(options, &app.addrs()))?;
        let over = async {
            upstream::stdin_ended().await;
            // Who comes for what was there must have the time to.
            let _ = timeout(GIVEN, given(app.streams())).await;
        };
        tokio::select! {
            stopped = stop => stopped?,
            () = over, if !options.keep => {}
        }
        serve::shutdown(app, serve::stop_signal()).await
    })
}

/// Ends once all that are open have given all there is.
async fn given(streams: &Streams) {
    while !streams.page(None, 1, |stream| !stream.has_given_all()).await.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
}

/// The configuration that these options are: JSON is YAML.
fn configure(options: &Options) -> anyhow::Result<Config> {
    let listen = listen(options);
    let is_here = listen.iter().all(|addr| addr.ip().is_loopback());
    anyhow::ensure!(
        is_here || !options.plain,
        "--plain is for this machine alone: leave it out, or listen on 127.0.0.1"
    );
    anyhow::ensure!(options.path.starts_with('/'), "--path begins with `/`, such as --path /events");
    anyhow::ensure!(!options.path.contains(['{', '}']), "--path is one path, without parameters");
    let mut route = json!({ "path": options.path, "from": { "upstream": "input", "start": "earliest" } });
    if !options.origin.is_empty() {
        route["cors"] = json!({ "origins": options.origin });
    }
    let config = json!({
        "server": { "listen": listen, "tls": if options.plain { "none" } else { "self_signed" }, "drain": "1s" },
        "admin": { "listen": "none" },
        "log": { "level": "warn" },
        "upstreams": { "input": { "stdin": {} } },
        "defaults": { "retry": "1s", "history": { "events": 10_000, "age": "1d" } },
        "routes": [route],
    });
    // Dollars of a path are no variables.
    let text = config.to_string().replace('$', "$$");
    Ok(config::parse("the options", &text, &|_| None)?)
}

fn listen(options: &Options) -> Vec<SocketAddr> {
    if !options.listen.is_empty() {
        return options.listen.clone();
    }
    let port = if options.plain { 8080 } else { 8443 };
    let v6 = has_ipv6_loopback().then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let all = [IpAddr::V4(Ipv4Addr::LOCALHOST)].into_iter().chain(v6);
    all.map(|ip| SocketAddr::new(ip, port)).collect()
}

/// Where it is, for the terminal.
fn welcome(options: &Options, addrs: &[SocketAddr]) -> String {
    let (scheme, curl) = if options.plain { ("http", "curl -N") } else { ("https", "curl -kN") };
    let host = addrs.first().map(|&addr| super::demo::host(addr)).unwrap_or_default();
    let origin = format!("{scheme}://{host}");
    let certificate =
        if options.plain { "" } else { "          The certificate is self-signed: the browser asks once.\n" };
    let page =
        if options.path == "/" { String::new() } else { format!("  Page    {origin}/\n{certificate}") };
    let end = if options.keep { "Ctrl-C ends it." } else { "It ends with its input; Ctrl-C ends it before." };
    let path = &options.path;
    format!("  ssegate pipe\n\n{page}  Stream  {curl} {origin}{path}\n\n  {end}\n")
}

/// How long those who are behind may take for the rest; who takes nothing is ended by then.
const GIVEN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{Origins, Source, Start, UpstreamKind};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(args: &[&str]) -> Options {
        Line::parse_from([&["pipe"], args].concat()).options
    }

    #[test]
    fn options_become_a_configuration() {
        let config = configure(&options(&[])).unwrap();
        assert!(config.server.listen.iter().all(|addr| addr.port() == 8443 && addr.ip().is_loopback()));
        assert_eq!(config.upstreams[0].kind, UpstreamKind::Stdin);
        let route = &config.routes[0];
        assert_eq!((&*route.path, &route.source, route.start), ("/events", &Source::Lines, Start::Earliest));
        assert!(route.cors.is_none() && config.admin.listen.is_none());
        let config = configure(&options(&["--plain", "--path", "/a$b", "--origin", "http://localhost:3000"]));
        let route = &config.unwrap().routes[0];
        assert_eq!(&*route.path, "/a$b");
        assert!(matches!(&route.cors.as_ref().unwrap().origins, Origins::List(list) if list.len() == 1));
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (args, told) in [
            (&["--plain", "--listen", "0.0.0.0:8080"][..], "--plain is for this machine alone"),
            (&["--path", "/{x}"], "without parameters"),
            (&["--path", "events"], "--path begins with `/`"),
            (&["--origin", "localhost"], "origin"),
        ] {
            let error = configure(&options(args)).map(drop).unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
        }
    }

    #[test]
    fn the_terminal_is_told_where_it_is() {
        let addrs = ["127.0.0.1:8443".parse().unwrap()];
        let text = welcome(&options(&[]), &addrs);
        assert!(text.contains("  Page    https://localhost:8443/\n"), "{text}");
        assert!(text.contains("  Stream  curl -kN https://localhost:8443/events\n"), "{text}");
        let text = welcome(&options(&["--plain", "--path", "/"]), &addrs);
        assert!(text.contains("curl -N http://localhost:8443/\n") && !text.contains("Page"), "{text}");
    }
}
