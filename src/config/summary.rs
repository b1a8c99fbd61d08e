//! What `ssegate check` prints: the configuration as it would be served, in a few aligned lines.
//! Shows no user, no password and no property.

use std::fmt::Write as _;
use std::sync::Arc;

use super::auth::Rule;
use super::endpoint::Endpoint;
use super::model::{
    Certificate, Config, Deployment, Digest, Origins, Proxies, Proxy, ProxyProtocol, RealIpHeader, Redis,
    Route, ServerTls, Source, Tls, UpstreamKind,
};
use super::units::show_duration;

/// Describes what would be served, one thing a line.
pub fn summary(config: &Config) -> String {
    let mut text = String::new();
    let listen =
        config.server.listen.iter().map(|address| vec![address.to_string(), tls(&config.server.tls)]);
    section(&mut text, "listen", listen);
    let proxies = &config.server.proxies;
    if !proxies.trusted.is_empty() {
        let trusted =
            proxies.trusted.iter().map(|network| vec![network.to_string(), spoken(proxies).to_owned()]);
        section(&mut text, "trusted proxies", trusted);
    }
    let admin = config.admin.listen.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    let token = config.admin.token.as_ref().map(|_| "with a token".to_owned());
    section(&mut text, "admin", [[admin].into_iter().chain(token).collect()]);
    if let Some(traces) = &config.traces {
        let sampled = format!("{} of requests", traces.sample);
        section(&mut text, "traces", [vec![traces.collector(), sampled]]);
    }
    section(
        &mut text,
        "upstreams",
        config.upstreams.iter().map(|upstream| {
            let (kind, endpoint) = endpoint(&upstream.kind);
            vec![upstream.name.to_string(), kind.to_owned(), endpoint]
        }),
    );
    let routes = config.routes.iter().map(|route| row(config, route));
    section(&mut text, "routes", routes.chain(config.proxies.iter().map(proxy)));
    text
}

fn section(text: &mut String, title: &str, rows: impl IntoIterator<Item = Vec<String>>) {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0).min(WIDEST)).collect();
    text.push_str(title);
    text.push('\n');
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        _ = writeln!(text, "  {}", line.trim_end());
    }
}

/// What is wider sticks out, and what stands below does not follow it.
const WIDEST: usize = 120;

fn tls(tls: &Tls) -> String {
    match tls {
        Tls::None => "plain HTTP".to_owned(),
        Tls::SelfSigned => "TLS, self-signed".to_owned(),
        Tls::Certificates(tls) => certificates(tls),
    }
}

/// How trusted proxies name clients.
fn spoken(proxies: &Proxies) -> &'static str {
    match (proxies.protocol, proxies.header) {
        (Some(ProxyProtocol::V1), _) => "PROXY protocol v1",
        (Some(ProxyProtocol::V2), _) => "PROXY protocol v2",
        (Some(ProxyProtocol::Any), _) => "PROXY protocol",
        (None, Some(RealIpHeader::XForwardedFor)) => "x-forwarded-for",
        (None, Some(RealIpHeader::Forwarded)) => "forwarded",
        (None, None) => "",
    }
}

fn certificates(tls: &ServerTls) -> String {
    let names = |certificate: &Certificate| match &*certificate.identity.names {
        [] => "no DNS name".to_owned(),
        names => names.join(" "),
    };
    let mut text = vec!["TLS".to_owned()];
    text.extend(tls.certificates.iter().map(names));
    text.extend(tls.acme.as_ref().map(|acme| format!("{} by ACME", acme.domains.join(" "))));
    text.extend(tls.client.as_ref().map(|client| match client.required {
        true => "client certificates required".to_owned(),
        false => "client certificates optional".to_owned(),
    }));
    text.extend(tls.tickets.as_ref().map(|_| "shared ticket keys".to_owned()));
    text.join(", ")
}

fn endpoint(kind: &UpstreamKind) -> (&'static str, String) {
    match kind {
        UpstreamKind::Redis(redis) => ("redis", redis_endpoint(redis)),
        UpstreamKind::Kafka(kafka) => ("kafka", kafka.brokers.join(", ")),
        UpstreamKind::Ticker(ticker) => ("ticker", format!("every {}", show_duration(ticker.every))),
        UpstreamKind::Push => ("push", "POST /publish/<channel> on the admin listener".to_owned()),
    }
}

fn redis_endpoint(redis: &Redis) -> String {
    let list =
        |endpoints: &[Endpoint]| endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut text = match &redis.deployment {
        Deployment::Single(endpoint) => endpoint.to_string(),
        Deployment::Sentinel { master, sentinels } => format!("{master} by sentinels {}", list(sentinels)),
        Deployment::Cluster(nodes) => format!("cluster {}", list(nodes)),
    };
    if let Some(tls) = &redis.tls {
        text.push_str(if tls.roots.is_some() { ", own CA" } else { "" });
        text.push_str(if tls.certificate.is_some() { ", client certificate" } else { "" });
    }
    text
}

fn row(config: &Config, route: &Route) -> Vec<String> {
    let upstream = config.upstreams.iter().find(|upstream| upstream.name == route.upstream);
    let kind = upstream.map_or("", |upstream| endpoint(&upstream.kind).0);
    let source = match &route.source {
        Source::Channel(name) => format!("channel {}", quiet(name)),
        Source::Pattern(name) => format!("pattern {}", quiet(name)),
        Source::ShardChannel(name) => format!("shard channel {}", quiet(name)),
        Source::Topic(name) => format!("topic {}", quiet(name)),
        Source::Keyed { topic, key, .. } => format!("topic {} key {}", quiet(topic), quiet(key)),
        Source::Stream(name) => format!("stream {}", quiet(name)),
        Source::Ticker => String::new(),
    };
    let from = format!("{kind} {} {source}", route.upstream);
    let event = route
        .event
        .as_ref()
        .map_or_else(|| "no event name".to_owned(), |name| format!("event {}", quiet(name)));
    let tombstone = route.tombstone.as_ref().map(|name| format!(", tombstones {}", quiet(name)));
    let event = event + &tombstone.unwrap_or_default();
    let data = route.data.as_ref().map(|field| format!(", data {{field.{field}}}")).unwrap_or_default();
    vec![
        format!("{}{}", route.host.as_deref().unwrap_or_default(), route.path),
        "<-".to_owned(),
        from.trim_end().to_owned(),
        event + &data,
        cors(route),
        compress(route),
        match route.ended {
            true => "ended".to_owned(),
            false => auth(&route.auth, route.allow.as_ref()),
        },
        digest(route),
    ]
}

/// Which records are kept.
fn digest(route: &Route) -> String {
    let Digest { conflate, snapshot, sample } = &*route.digest;
    let told = [
        sample.map(|sample| format!("sample {sample}")),
        conflate
            .as_ref()
            .map(|own| format!("conflate by {} every {}", quiet(&own.by), show_duration(own.every))),
        snapshot.as_ref().map(|own| format!("snapshot by {}", quiet(&own.by))),
        route.rate.map(|rate| format!("rate {} every {}", rate.events, show_duration(rate.every))),
    ];
    told.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn proxy(proxy: &Proxy) -> Vec<String> {
    let path = format!("{}{}", proxy.host.as_deref().unwrap_or_default(), proxy.path);
    vec![path, "->".to_owned(), format!("http://{}", proxy.to.to), auth(&proxy.auth, proxy.allow.as_ref())]
}

/// On one line, whatever it holds.
fn quiet(name: &super::template::Template) -> String {
    name.to_string().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn cors(route: &Route) -> String {
    let Some(cors) = &route.cors else { return "no cors".to_owned() };
    let origins = match &cors.origins {
        Origins::Any => "*".to_owned(),
        Origins::List(origins) => origins.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    format!("cors {origins}{}", if cors.credentials { ", with credentials" } else { "" })
}

fn compress(route: &Route) -> String {
    let Some(compress) = &route.compress else { return String::new() };
    let codings: Vec<_> = compress.codings.iter().map(|coding| coding.as_str()).collect();
    format!("compress {}, level {}", codings.join(", "), compress.level)
}

fn auth(names: &[Arc<str>], rule: Option<&Rule>) -> String {
    let mut text = match names {
        [] => String::new(),
        names => format!("auth {}", names.join(", ")),
    };
    if let Some(rule) = rule {
        let rule: String = rule.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let gap = if text.is_empty() { "" } else { ", " };
        _ = write!(text, "{gap}allow {rule}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::sound;

    #[test]
    fn what_would_be_served() {
        let text = "\
server: { listen: ['127.0.0.1:8443', '[::1]:0'], tls: self_signed, trusted_proxies: [10.0.0.0/8, '::1'], proxy_protocol: v2 }
upstreams:
  cache: { redis: { url: 'rediss://me:${HIDDEN}@redis.internal:6380/2' } }
  ha: { redis: { url: 'redis://:hunter2@main', sentinels: ['redis://:hunter2@s1', 'redis://s2:1'] } }
  shards: { redis: { url: ['redis://:hunter2@n1:7000', 'redis://:hunter2@n2:7000'], cluster: true } }
  bus: { kafka: { brokers: ['a:1', 'b:2'], properties: { sasl.password: hunter2 } } }
  t: { ticker: { every: 90s } }
  p: { push: }
routes:
  - { path: '/a/{x}', from: { upstream: cache, channel: 'c:{x}' } }
  - { path: '/s/{x}', from: { upstream: shards, shard_channel: 'c:{x}' } }
  - { path: /b, host: shop.example, from: { upstream: bus, topic: o }, event: '{key}', tombstone: { event: gone }, cors: { origins: '*' } }
  - { path: /t, from: { upstream: t }, event: \"a\", cors: { origins: https://a, credentials: true } }
  - { path: /s, from: { upstream: cache, stream: s }, data: '{field.d}', compress: [zstd, gzip] }
  - { path: /p, from: { upstream: p, channel: \"c\\nd\" } }
  - { path: /q, from: { upstream: bus, topic: q }, conflate: { by: key, every: 250ms }, snapshot: true }
  - { path: '/{*rest}', proxy: 'http://127.0.0.1:3000' }
";
        assert_eq!(
            summary(&sound(text)),
            "\
listen
  127.0.0.1:8443  TLS, self-signed
  [::1]:0         TLS, self-signed
trusted proxies
  10.0.0.0/8  PROXY protocol v2
  ::1/128     PROXY protocol v2
admin
  127.0.0.1:9090
upstreams
  cache   redis   rediss://redis.internal:6380/2
  ha      redis   redis://main/0 by sentinels redis://s1:26379/0, redis://s2:1/0
  shards  redis   cluster redis://n1:7000/0, redis://n2:7000/0
  bus     kafka   a:1, b:2
  t       ticker  every 1m30s
  p       push    POST /publish/<channel> on the admin listener
routes
  /a/{x}          <-  redis cache channel c:{x}         no event name                  no cors
  /s/{x}          <-  redis shards shard channel c:{x}  no event name                  no cors
  shop.example/b  <-  kafka bus topic o                 event {key}, tombstones gone   cors *
  /t              <-  ticker t                          event a                        cors https://a, with credentials
  /s              <-  redis cache stream s              no event name, data {field.d}  no cors                           compress zstd, gzip, level 3
  /p              <-  push p channel c\u{fffd}d                no event name                  no cors
  /q              <-  kafka bus topic q                 no event name                  no cors                                                           conflate by {key} every 250ms, snapshot by {key}
  /{*rest}        ->  http://127.0.0.1:3000
"
        );
    }

    #[test]
    fn what_is_very_long_moves_nothing_else() {
        let text = format!(
            "server: {{ tls: none }}\nupstreams: {{ p: {{ push: }} }}\nroutes:\n  - {{ path: /a, from: {{ upstream: p, channel: {} }} }}\n  - {{ path: /b, from: {{ upstream: p, channel: b }} }}\n",
            "a".repeat(70_000)
        );
        let shown = summary(&sound(&text));
        assert!(
            shown.lines().any(|line| line.starts_with("  /b  <-  push p channel b ") && line.len() < 200)
        );
    }

    #[test]
    fn how_connections_are_secured() {
        let tls = |tls: &str| {
            let text = format!("server: {{ tls: {tls} }}\n{}", crate::config::testing::TAIL);
            summary(&sound(&text)).lines().nth(1).unwrap().trim().to_owned()
        };
        let acme = "{ acme: { domains: [a.example, b.example], cache: /nowhere } }";
        assert_eq!(tls(acme), "0.0.0.0:8443  TLS, a.example b.example by ACME");
        assert_eq!(tls("none"), "0.0.0.0:8443  plain HTTP");
    }
}
