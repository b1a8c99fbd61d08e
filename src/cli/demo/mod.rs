//! `ssegate demo`: every kind of upstream, on one page, without anything to configure. What it serves is the
//! product itself with [`config.yaml`](CONFIG); what stands around it here is a Kafka within the process
//! ([`kafka`]), a Redis as a child ([`redis`]), something to say on them ([`orders`], [`machine`]), and a page
//! ([`page`]) and a few lines on the terminal ([`terminal`]) that show the [`streams`].

mod kafka;
mod machine;
mod orders;
mod page;
mod redis;
mod streams;
mod terminal;

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::task::JoinSet;

pub(super) use self::page::read;
pub(super) use self::terminal::host;

use self::kafka::Kafka;
use self::page::Page;
use self::redis::Redis;
use self::streams::Shown;
use super::{logs, serve, text};
use crate::app::{App, Start};
use crate::config::{self, AdminListen, Config};
use crate::http::{self, Inherited};

/// What the command line says.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Serve the page and the streams here; may be given again [default: port 8443 of 127.0.0.1 and ::1]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// Serve health, metrics, status and publishing here
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// Print the demo's configuration instead, to begin your own with
    #[arg(long)]
    print_config: bool,
}

/// Serves the demo until SIGTERM or SIGINT.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    if options.print_config {
        return text::print(CONFIG);
    }
    serve::block_on(async {
        // Noticed from here on, so that an impatient Ctrl-C leaves no child behind either.
        let stop = serve::stop_signal();
        tokio::pin!(stop);
        let demo = tokio::select! {
            demo = Demo::start(options) => demo?,
            stopped = &mut stop => return stopped,
        };
        text::print(&demo.welcome())?;
        tokio::select! {
            stopped = stop => stopped?,
            () = demo.app.asked_to_leave() => {}
        }
        demo.end().await
    })
}

/// A running demo. Its parts end with it.
struct Demo {
    app: App,
    shown: Vec<&'static Shown>,
    redis: anyhow::Result<Redis>,
    _kafka: Kafka,
    _publishers: JoinSet<()>,
}

impl Demo {
    async fn start(options: &Options) -> anyhow::Result<Self> {
        let kafka = Kafka::start()?;
        let redis = Redis::start().await;
        let config = configure(options, kafka.brokers(), redis.as_ref().ok().map(Redis::url))?;
        logs::init(&config.log);
        try_addresses(&config)?;
        let shown: Vec<_> = streams::ALL.iter().filter(|shown| shown.is_served(&config)).collect();
        let page = Arc::new(Page::default());
        let app = App::start(&config, Start::default(), Some(page.fallback())).await?;
        page.open(&app, &shown, redis.as_ref().err());
        let mut publishers = JoinSet::new();
        if let Ok(redis) = &redis {
            publishers.spawn(machine::publish(redis.connection()));
        }
        app.ready().await;
        kafka.produce();
        Ok(Self { app, shown, redis, _kafka: kafka, _publishers: publishers })
    }

    fn welcome(&self) -> String {
        terminal::welcome(&self.app.addrs(), self.app.admin_addr(), &self.shown, self.redis.as_ref().err())
    }

    /// Streams first, then what feeds them.
    async fn end(self) -> anyhow::Result<()> {
        serve::shutdown(self.app, serve::stop_signal()).await
    }
}

/// The demo's configuration, with what is known only now: addresses, and whether there is a Redis.
fn configure(options: &Options, broker: &str, redis: Option<&str>) -> Result<Config, config::Problems> {
    let env = |name: &str| match name {
        "KAFKA_BROKER" => Some(broker.to_owned()),
        "REDIS_URL" => Some(redis.unwrap_or("redis://127.0.0.1").to_owned()),
        _ => None,
    };
    let mut config = config::parse("demo.yaml", CONFIG, &env)?;
    if redis.is_none() {
        config.upstreams.retain(|upstream| &*upstream.name != streams::REDIS);
        config.routes.retain(|route| &*route.upstream != streams::REDIS);
    }
    if !options.listen.is_empty() {
        config.server.listen.clone_from(&options.listen);
    } else if !has_ipv6_loopback() {
        config.server.listen.retain(SocketAddr::is_ipv4);
    }
    config.admin.listen = Some(AdminListen::Tcp(options.admin));
    Ok(config)
}

/// Browsers try `::1` first for `localhost`.
pub(super) fn has_ipv6_loopback() -> bool {
    std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Tells every address that cannot be had, and by which option to choose another.
pub(super) fn try_addresses(config: &Config) -> anyhow::Result<()> {
    let server = config.server.listen.iter().map(|&addr| (addr, "--listen"));
    let admin = config.admin.listen.iter().filter_map(|listen| match listen {
        AdminListen::Tcp(addr) => Some((*addr, "--admin")),
        AdminListen::Unix(_) => None,
    });
    // Kept until all have been tried, so that two options cannot ask for the same one.
    let tried: Vec<_> = server
        .chain(admin)
        .map(|(addr, option)| (option, http::bind(addr, &mut Inherited::default())))
        .collect();
    let problems: Vec<_> = tried
        .iter()
        .filter_map(|(option, bound)| Some(format!("{:#} (with {option} ADDR)", bound.as_ref().err()?)))
        .collect();
    anyhow::ensure!(problems.is_empty(), problems.join("\nssegate: "));
    Ok(())
}

const CONFIG: &str = include_str!("config.yaml");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Found, Router};
    use crate::metrics::Metrics;

    fn options() -> Options {
        Options { listen: Vec::new(), admin: "127.0.0.1:9090".parse().unwrap(), print_config: false }
    }

    #[test]
    fn what_is_shown_is_what_is_served() {
        for redis in [None, Some("redis://127.0.0.1:1")] {
            let config = configure(&options(), "127.0.0.1:1", redis).unwrap();
            let router = Router::new(&config, &Metrics::new(), 0);
            let served: Vec<_> = streams::ALL.iter().filter(|shown| shown.is_served(&config)).collect();
            assert_eq!(served.len(), if redis.is_some() { 6 } else { 4 });
            for shown in &served {
                let Some(Found::Route(route, _)) = router.find("localhost", shown.path) else {
                    panic!("{}", shown.path)
                };
                assert_eq!(route.name, shown.route);
            }
            assert_eq!(router.routes().len(), served.len(), "every route is shown");
        }
    }
}
