//! What `ssegate check` prints: the configuration as it would be served, in a few aligned lines.
//! Shows no user, no password and no property.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::auth::Rule;
use super::decode::Decode;
use super::endpoint::Endpoint;
use super::model::{
    Certificate, ClientTls, Config, Deployment, Digest, HttpServer, Mqtt, MqttVersion, Multi, Nats, NatsAuth,
    OneSource, Origins, Projection, Proxies, Proxy, ProxyProtocol, Qos, RealIpHeader, Redis, Route,
    ServerTls, Source, Sse, Tell, Tls, UpstreamKind, Wrap,
};
use super::registries::{RegistryAuth, SchemaRegistry};
use super::units::show_duration;
use crate::expression::{Expression, Plan};

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
    if !config.schema_registries.is_empty() {
        section(&mut text, "schema registries", config.schema_registries.iter().map(registry));
    }
    let routes = config.routes.iter().map(|route| match &route.multi {
        Some(multi) => gathering(route, multi),
        None => row(config, route),
    });
    section(&mut text, "routes", routes.chain(config.proxies.iter().map(proxy)));
    let shapes: Vec<_> = config.routes.iter().flat_map(shape).collect();
    if !shapes.is_empty() {
        section(&mut text, "shapes", shapes);
    }
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
        UpstreamKind::File(path) => ("file", path.display().to_string()),
        UpstreamKind::Stdin => ("stdin", "standard input".to_owned()),
        UpstreamKind::Postgres(postgres) => ("postgres", entered(postgres, postgres.tls.as_ref())),
        UpstreamKind::Amqp(amqp) => ("amqp", entered(amqp, amqp.tls.as_ref())),
        UpstreamKind::Sse(sse) => ("sse", sse_endpoint(sse)),
        UpstreamKind::Http(http) if http.stream => {
            ("http", format!("{}, stream of lines", http_endpoint(&http.server)))
        }
        UpstreamKind::Http(http) => {
            ("http", format!("{} every {}", http_endpoint(&http.server), show_duration(http.every)))
        }
        UpstreamKind::Nats(nats) => ("nats", nats_servers(nats)),
        UpstreamKind::Mqtt(mqtt) => ("mqtt", mqtt_broker(mqtt)),
    }
}

fn sse_endpoint(sse: &Sse) -> String {
    let mut text = http_endpoint(&sse.server);
    text.push_str(if sse.relay.is_some() { ", relay" } else { "" });
    text.push_str(if sse.resume { "" } else { ", does not resume" });
    text
}

fn http_endpoint(server: &HttpServer) -> String {
    server.shown() + &secured(Some(&server.tls))
}

fn nats_servers(nats: &Nats) -> String {
    let servers: Vec<_> = nats.servers.iter().map(ToString::to_string).collect();
    let way = match nats.auth {
        NatsAuth::None => "",
        NatsAuth::User { .. } => ", by user",
        NatsAuth::Token(_) => ", by token",
        NatsAuth::Nkey(_) => ", by nkey",
        NatsAuth::Credentials { .. } => ", by credentials",
    };
    format!("{}{way}{}", servers.join(", "), secured(nats.tls.as_ref()))
}

fn mqtt_broker(mqtt: &Mqtt) -> String {
    let version = match mqtt.version {
        MqttVersion::V5 => "5",
        MqttVersion::V3 => "3.1.1",
    };
    format!("{mqtt}, version {version}{}", secured(mqtt.tls.as_ref()))
}

fn secured(tls: Option<&ClientTls>) -> String {
    let mut text = String::new();
    if let Some(tls) = tls {
        text.push_str(if tls.roots.is_some() { ", own CA" } else { "" });
        text.push_str(if tls.certificate.is_some() { ", client certificate" } else { "" });
    }
    text
}

fn redis_endpoint(redis: &Redis) -> String {
    let list =
        |endpoints: &[Endpoint]| endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = match &redis.deployment {
        Deployment::Single(endpoint) => endpoint.to_string(),
        Deployment::Sentinel { master, sentinels } => format!("{master} by sentinels {}", list(sentinels)),
        Deployment::Cluster(nodes) => format!("cluster {}", list(nodes)),
    };
    text + &secured(redis.tls.as_ref())
}

fn entered(place: &impl fmt::Display, tls: Option<&ClientTls>) -> String {
    let encrypted = if tls.is_some() { ", TLS" } else { ", no TLS" };
    format!("{place}{encrypted}{}", secured(tls))
}

fn registry(registry: &SchemaRegistry) -> Vec<String> {
    let auth = match &registry.auth {
        None => String::new(),
        Some(RegistryAuth::Basic { .. }) => "with a password".to_owned(),
        Some(RegistryAuth::Bearer(_)) => "with a token".to_owned(),
    };
    vec![registry.name.to_string(), registry.place(), auth]
}

/// What payloads are, where they are not sent as they are.
fn decode(decode: &Decode) -> String {
    match decode {
        Decode::Text => String::new(),
        Decode::Json => ", decode json".to_owned(),
        Decode::MsgPack => ", decode msgpack".to_owned(),
        Decode::Avro(_) => ", decode avro".to_owned(),
        Decode::Protobuf(message) => format!(", decode protobuf {}", message.message.full_name()),
        Decode::Registry(name) => format!(", decode by {name}"),
    }
}

/// What is read of an upstream, and of which.
fn read(config: &Config, own: OneSource<'_>) -> String {
    let upstream = config.upstreams.iter().find(|upstream| upstream.name == *own.upstream);
    let kind = upstream.map_or("", |upstream| endpoint(&upstream.kind).0);
    let source = match own.source {
        Source::Channel(name) => format!("channel {}", quiet(name)),
        Source::Pattern(name) => format!("pattern {}", quiet(name)),
        Source::ShardChannel(name) => format!("shard channel {}", quiet(name)),
        Source::Topic(name) => format!("topic {}", quiet(name)),
        Source::Keyed { topic, key, .. } => format!("topic {} key {}", quiet(topic), quiet(key)),
        Source::Stream(name) => format!("stream {}", quiet(name)),
        Source::Ticker | Source::Lines => String::new(),
        Source::Table { table, values } => {
            let filtered = table.filtered.iter().zip(values);
            let filtered = filtered.map(|(column, value)| format!(" {column} = {}", quiet(value)));
            format!("table {table}{}", filtered.collect::<Vec<_>>().join(","))
        }
        Source::Exchange { exchange, routing_key, arguments } => {
            let arguments = arguments.iter().map(|(name, value)| format!(", {name} = {}", quiet(value)));
            let bound = quiet(routing_key) + &arguments.collect::<String>();
            format!("exchange {} {bound}", quiet(exchange)).trim_end().to_owned()
        }
        Source::Path(path) => format!("path {}", quiet(path)),
        Source::Subject(subject) => format!("subject {}", quiet(subject)),
        Source::Jetstream { stream, subject: None } => format!("stream {stream}"),
        Source::Jetstream { stream, subject: Some(subject) } => {
            format!("stream {stream} subject {}", quiet(subject))
        }
        Source::Filter { topic, qos: Qos::AtMostOnce } => format!("topic {}", quiet(topic)),
        Source::Filter { topic, qos: Qos::AtLeastOnce } => format!("topic {} qos 1", quiet(topic)),
    };
    format!("{kind} {} {source}", own.upstream).trim_end().to_owned()
}

fn row(config: &Config, route: &Route) -> Vec<String> {
    let from: Vec<_> = route.sources().map(|own| read(config, own)).collect();
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
        from.join(" + "),
        event + &data + &decode(&route.decode),
        cors(route),
        compress(route),
        match route.ended {
            true => "ended".to_owned(),
            false => auth(&route.auth, route.allow.as_ref()),
        },
        digest(route),
    ]
}

/// A route that gives the feeds of others.
fn gathering(route: &Route, multi: &Multi) -> Vec<String> {
    let told = match multi.tell {
        Tell::Event => "told by event",
        Tell::Envelope => "told by envelope",
    };
    vec![
        route.name(),
        "<-".to_owned(),
        format!("feeds of {}", multi.of.join(", ")),
        format!("{} at most, {told}", multi.max),
        cors(route),
        String::new(),
        if route.ended { "ended" } else { "auth of each feed" }.to_owned(),
    ]
}

/// Which records are kept.
fn digest(route: &Route) -> String {
    let Digest { conflate, snapshot, sample } = &*route.digest;
    // What a source calls a key may not be what another does.
    let by = || {
        let by: BTreeSet<_> =
            route.sources().filter_map(|own| Some(quiet(&own.digest.conflate.as_ref()?.by))).collect();
        Vec::from_iter(by).join(" or ")
    };
    let told = [
        sample.map(|sample| format!("sample {sample}")),
        conflate.as_ref().map(|own| format!("conflate by {} every {}", by(), show_duration(own.every))),
        snapshot.as_ref().map(|own| format!("snapshot by {}", quiet(&own.by))),
        route.rate.map(|rate| format!("rate {} every {}", rate.events, show_duration(rate.every))),
    ];
    told.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What is made of the records of a route, and how often that is work; nothing where they are sent as they are.
fn shape(route: &Route) -> Vec<Vec<String>> {
    let mut steps = Vec::new();
    let of_clients = route.filter.as_ref().and_then(|filter| Some((filter, filter.plan()?)));
    match &of_clients {
        Some((filter, plan)) => steps.extend(done_once(filter, plan)),
        None => {
            let filter = route.filter.as_ref();
            steps.extend(filter.map(|filter| format!("filter {}", one_line(filter.shown()))));
        }
    }
    steps.extend(route.projection.as_ref().map(|projection| match projection {
        Projection::Keep(paths) => format!("keep {}", paths.texts.join(", ")),
        Projection::Drop(paths) => format!("drop {}", paths.texts.join(", ")),
        Projection::Map(map) => format!("map {}", one_line(map.shown())),
    }));
    steps.extend(route.wrap.map(|wrap| match wrap {
        Wrap::Envelope => "wrap envelope".to_owned(),
        Wrap::CloudEvents => "wrap cloudevents".to_owned(),
    }));
    let names: BTreeSet<&str> =
        route.expressions().flat_map(Expression::params).map(|name| &**name).collect();
    let plan = match names.is_empty() {
        true => "once per event".to_owned(),
        false => {
            let names = Vec::from_iter(names).join(", ");
            format!("once per event and {names}, {} feeds at most", route.limits.feeds)
        }
    };
    let path = format!("{}{}", route.host.as_deref().unwrap_or_default(), route.path);
    let mut rows = Vec::new();
    if !steps.is_empty() {
        rows.push(vec![path.clone(), plan, steps.join("; ")]);
    }
    rows.extend(of_clients.map(|(_, plan)| {
        // Nanoseconds for one are microseconds for a thousand.
        let cost = plan.cost;
        let each = plan.each.map_or_else(|| "the rest of it".to_owned(), |each| one_line(&each));
        let costs = format!(
            "about {cost} ns with lists of 4 and short texts, {cost} µs of CPU for an event and 1,000 clients"
        );
        vec![path, "once per event and client".to_owned(), format!("filter {each}; {costs}")]
    }));
    rows
}

/// What of a filter that names what clients bring is done once for each event.
fn done_once(filter: &Expression, plan: &Plan) -> Vec<String> {
    let Some((condition, facts)) = &plan.once else {
        return vec![format!("filter {}, as far as it names no client", one_line(filter.shown()))];
    };
    let mut steps = Vec::new();
    if condition != "true" {
        steps.push(format!("filter {}", one_line(condition)));
    }
    if !facts.is_empty() {
        let facts: Vec<_> = facts.iter().map(|fact| one_line(fact)).collect();
        steps.push(format!("for filters {}", facts.join(", ")));
    }
    steps
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
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
  app: { sse: { url: 'https://app.internal/v1', bearer: '${HIDDEN}', resume: false } }
  n: { nats: { servers: ['nats://a', 'tls://b:1'], user: me, password: hunter2, tls: {} } }
  m: { mqtt: { url: 'mqtts://me:hunter2@h', version: 3.1.1 } }
routes:
  - { path: '/a/{x}', from: { upstream: cache, channel: 'c:{x}' } }
  - { path: '/s/{x}', from: { upstream: shards, shard_channel: 'c:{x}' } }
  - { path: /b, host: shop.example, from: { upstream: bus, topic: o }, event: '{key}', tombstone: { event: gone }, cors: { origins: '*' } }
  - { path: /t, from: { upstream: t }, event: \"a\", cors: { origins: https://a, credentials: true } }
  - { path: /s, from: { upstream: cache, stream: s }, data: '{field.d}', compress: [zstd, gzip] }
  - { path: /p, from: { upstream: p, channel: \"c\\nd\" } }
  - { path: /q, from: { upstream: bus, topic: q }, conflate: { by: key, every: 250ms }, snapshot: true }
  - { path: '/e/{x}', from: { upstream: app, path: '/e/{x}' } }
  - { path: '/{*rest}', proxy: 'http://127.0.0.1:3000' }
  - { path: '/n/{x}', from: { upstream: n, subject: 'a.{x}.>' } }
  - { path: '/j/{x}', from: { upstream: n, jetstream: S, subject: 'a.{x}' } }
  - { path: '/m/{x}', from: { upstream: m, topic: 'a/{x}/#', qos: 1 } }
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
  app     sse     https://app.internal/v1, does not resume
  n       nats    nats://a:4222, tls://b:1, by user
  m       mqtt    mqtts://h:8883, version 3.1.1
routes
  /a/{x}          <-  redis cache channel c:{x}         no event name                  no cors
  /s/{x}          <-  redis shards shard channel c:{x}  no event name                  no cors
  shop.example/b  <-  kafka bus topic o                 event {key}, tombstones gone   cors *
  /t              <-  ticker t                          event a                        cors https://a, with credentials
  /s              <-  redis cache stream s              no event name, data {field.d}  no cors                           compress zstd, gzip, level 3
  /p              <-  push p channel c\u{fffd}d                no event name                  no cors
  /q              <-  kafka bus topic q                 no event name                  no cors                                                           conflate by {key} every 250ms, snapshot by {key}
  /e/{x}          <-  sse app path /e/{x}               no event name                  no cors
  /n/{x}          <-  nats n subject a.{x}.>            no event name                  no cors
  /j/{x}          <-  nats n stream S subject a.{x}     no event name                  no cors
  /m/{x}          <-  mqtt m topic a/{x}/# qos 1        no event name                  no cors
  /{*rest}        ->  http://127.0.0.1:3000
"
        );
    }

    #[test]
    fn a_route_tells_of_each_source() {
        let text = "\
server: { tls: none }
upstreams: { bus: { kafka: { brokers: 'a:1' } }, cache: { redis: { url: 'redis://h' } } }
routes: [ { path: /a, from: [ { upstream: bus, topic: o }, { upstream: cache, pattern: 'o.*' } ], conflate: { by: key, every: 1s } } ]
";
        let shown = summary(&sound(text));
        assert!(
            shown.contains("  /a  <-  kafka bus topic o + redis cache pattern o.*  no event name"),
            "{shown}"
        );
        assert!(shown.ends_with("  conflate by {channel} or {key} every 1s\n"), "{shown}");
    }

    #[test]
    fn a_route_tells_whose_feeds_it_gives() {
        let text = "\
server: { tls: none }
upstreams: { p: { push: } }
routes:
  - { path: '/r/{x}', host: h.example, from: { upstream: p, channel: '{x}' }, wrap: envelope }
  - { path: /all, host: h.example, multi: { of: '/r/{x}', max: 9, tell: envelope } }
";
        let shown = summary(&sound(text));
        let row = "  h.example/all    <-  feeds of h.example/r/{x}  9 at most, told by envelope  no cors    auth of each feed\n";
        assert!(shown.contains(row), "{shown}");
        assert!(shown.ends_with("shapes\n  h.example/r/{x}  once per event  wrap envelope\n"), "{shown}");
    }

    #[test]
    fn what_is_made_of_records_and_how_often() {
        let text = "\
server: { tls: none }
upstreams: { bus: { kafka: { brokers: 'a:1' } } }
routes:
  - { path: /plain, from: { upstream: bus, topic: o } }
  - { path: /big, host: h, from: { upstream: bus, topic: o }, filter: event.total > 100, data: { keep: [id, a.b] }, wrap: envelope }
  - path: /of/{who}
    from: { upstream: bus, topic: o }
    filter: |
      event.who ==
      params.who
    data: { map: \"{'who': params.who}\" }
";
        let shown = summary(&sound(text));
        let shapes = shown.split_once("shapes\n").unwrap().1;
        assert_eq!(
            shapes,
            "  h/big      once per event                               filter event.total > 100; keep id, a.b; wrap envelope
  /of/{who}  once per event and who, 10000 feeds at most  filter event.who == params.who; map {'who': params.who}
"
        );
    }

    #[test]
    fn what_is_done_for_each_client_is_told_with_what_it_costs() {
        let text = "\
server: { tls: none }
auth: { users: { jwt: { secret: 'a secret of 32 bytes or more than that' } } }
upstreams: { bus: { kafka: { brokers: 'a:1' } } }
routes:
  - { path: /quotes, from: { upstream: bus, topic: o }, filter: 'event.price > 0 && event.symbol == query.symbol' }
  - { path: /own, from: { upstream: bus, topic: o }, auth: users, filter: claims.admin, wrap: envelope }
  - { path: /hidden, from: { upstream: bus, topic: o }, filter: 'event.a == query.a && event.b == \"${HIDDEN}\"' }
";
        let shown = summary(&sound(text));
        let shapes = shown.split_once("shapes\n").unwrap().1;
        let costs = |cost: usize| {
            format!(
                "about {cost} ns with lists of 4 and short texts, {cost} µs of CPU for an event and 1,000 clients"
            )
        };
        let expected = [
            "  /quotes  once per event             filter event.price > 0; for filters event.symbol".to_owned(),
            format!("  /quotes  once per event and client  filter event.symbol == query.symbol; {}", costs(50)),
            "  /own     once per event             wrap envelope".to_owned(),
            format!("  /own     once per event and client  filter claims.admin; {}", costs(25)),
            "  /hidden  once per event             filter event.a == query.a && event.b == \"${HIDDEN}\", as far as it names no client".to_owned(),
            format!("  /hidden  once per event and client  filter the rest of it; {}", costs(50)),
        ];
        assert_eq!(shapes.lines().collect::<Vec<_>>(), expected);
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
