//! What `ssegate check` prints: the configuration as it would be served, in a few aligned lines.
//! Shows no user, no password and no property.

use std::fmt::Write as _;

use super::endpoint::Endpoint;
use super::model::{Config, Deployment, Origins, Redis, Route, Source, Tls, UpstreamKind};
use super::units::show_duration;

/// Describes what would be served, one thing a line.
pub fn summary(config: &Config) -> String {
    let mut text = String::new();
    let listen =
        config.server.listen.iter().map(|address| vec![address.to_string(), tls(&config.server.tls)]);
    section(&mut text, "listen", listen);
    let admin = config.admin.listen.map_or_else(|| "none".to_owned(), |address| address.to_string());
    section(&mut text, "admin", [vec![admin]]);
    section(
        &mut text,
        "upstreams",
        config.upstreams.iter().map(|upstream| {
            let (kind, endpoint) = endpoint(&upstream.kind);
            vec![upstream.name.to_string(), kind.to_owned(), endpoint]
        }),
    );
    section(&mut text, "routes", config.routes.iter().map(|route| row(config, route)));
    text
}

fn section(text: &mut String, title: &str, rows: impl IntoIterator<Item = Vec<String>>) {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    text.push_str(title);
    text.push('\n');
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        _ = writeln!(text, "  {}", line.trim_end());
    }
}

fn tls(tls: &Tls) -> String {
    match tls {
        Tls::None => "plain HTTP".to_owned(),
        Tls::SelfSigned => "TLS, self-signed".to_owned(),
        Tls::Certificate(key) => match key.cert.len() {
            1 => "TLS, 1 certificate".to_owned(),
            several => format!("TLS, chain of {several} certificates"),
        },
    }
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
    ]
}

/// On one line, whatever it holds.
fn quiet(name: &super::template::Template) -> String {
    name.to_string().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn cors(route: &Route) -> String {
    let Some(cors) = &route.cors else { return "no cors".to_owned() };
    let origins = match &cors.origins {
        Origins::Any => "*".to_owned(),
        Origins::List(origins) => origins.join(", "),
    };
    format!("cors {origins}{}", if cors.credentials { ", with credentials" } else { "" })
}

fn compress(route: &Route) -> String {
    let Some(compress) = &route.compress else { return String::new() };
    let codings: Vec<_> = compress.codings.iter().map(|coding| coding.as_str()).collect();
    format!("compress {}, level {}", codings.join(", "), compress.level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::sound;

    #[test]
    fn what_would_be_served() {
        let text = "\
server: { listen: ['127.0.0.1:8443', '[::1]:0'], tls: self_signed }
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
";
        assert_eq!(
            summary(&sound(text)),
            "\
listen
  127.0.0.1:8443  TLS, self-signed
  [::1]:0         TLS, self-signed
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
"
        );
    }
}
