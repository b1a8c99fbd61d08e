//! Whatever the path of a request: it finds what the documented rules say, its parameters are those of the path, and what
//! they may not hold gets nowhere. A parameter is one segment, percent-decoded, of 1 to 256 bytes of UTF-8 without control
//! characters; in a Redis pattern it stands for itself alone.

use std::sync::LazyLock;

use http::uri::PathAndQuery;
use ssegate::config::parse;
use ssegate::http::{Found, Miss, Router};
use ssegate::hub::Source;
use ssegate::metrics::Metrics;

/// Takes a path as a request line has it, or a parameter's value.
pub fn check(bytes: &[u8]) {
    // What hyper lets through.
    if let Ok(target) = PathAndQuery::try_from(bytes) {
        for host in ["any.example", "SHOP.example.com"] {
            finds(host, target.path());
        }
    }
    let encoded: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
    for before in ["/watch/", "/rooms/", "/pair/a/x-"] {
        finds("any.example", &format!("{before}{encoded}"));
    }
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
enum Leads {
    Nowhere,
    ToApp,
    Amiss(Miss),
    /// To this source, by these parameters.
    ToFeed(String, Option<Vec<u8>>, Vec<(String, String)>),
}

fn finds(host: &str, path: &str) {
    let found = match ROUTER.find(host, path) {
        None => Leads::Nowhere,
        Some(Found::Multi(_)) => panic!("{path}: no route gives the feeds of others"),
        Some(Found::App(_)) => Leads::ToApp,
        Some(Found::Route(_, Err(miss))) => Leads::Amiss(miss),
        Some(Found::Route(_, Ok(opens))) => {
            let source = match &opens.feed.source {
                Source::Pattern(glob) => matched_alone(glob),
                source => source.name().to_owned(),
            };
            Leads::ToFeed(source, opens.key.map(|key| key.to_vec()), ROUTER.params(host, path))
        }
    };
    assert_eq!(found, expected(host, path), "{host}{path}");
}

/// What the rules say, by looking at one route after the other.
fn expected(host: &str, path: &str) -> Leads {
    if path.starts_with("/app/") {
        return Leads::ToApp;
    }
    let on_host = |only: &str| only.is_empty() || host.eq_ignore_ascii_case(only);
    let mut fitting = ROUTES.iter().filter(|route| on_host(route.0));
    let found = fitting.find_map(|(_, route, source, key)| Some((matched(route, path)?, source, key)));
    let Some((raw, source, key)) = found else { return Leads::Nowhere };
    let mut params = Vec::new();
    for (name, value) in raw {
        let Some(value) = decoded(value) else { return Leads::Amiss(Miss::BadParameter) };
        let is_room = value.len() <= 64 && value.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-'));
        if name == "room" && !is_room {
            return Leads::Amiss(Miss::Unmatched);
        }
        params.push((name.to_owned(), value));
    }
    let filled = |template: &str| -> String {
        // In one go, since a value may look like a field.
        let parts = template.split('{').map(|part| match part.split_once('}') {
            Some((name, rest)) => params.iter().find(|(other, _)| other == name).unwrap().1.clone() + rest,
            None => part.to_owned(),
        });
        parts.collect()
    };
    Leads::ToFeed(filled(source), key.map(|key| filled(key).into_bytes()), params)
}

/// The parameters of a path that fits a route.
fn matched<'p>(route: &'static str, path: &'p str) -> Option<Vec<(&'static str, &'p str)>> {
    let (route, path): (Vec<_>, Vec<_>) = (route.split('/').collect(), path.split('/').collect());
    if route.len() != path.len() {
        return None;
    }
    let mut params = Vec::new();
    for (fixed, segment) in route.into_iter().zip(path) {
        match fixed.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
            None if fixed != segment => return None,
            None => {}
            Some((before, (name, after))) => {
                let value = segment.strip_prefix(before)?.strip_suffix(after)?;
                params.push((name, Some(value).filter(|value| !value.is_empty())?));
            }
        }
    }
    Some(params)
}

/// RFC 3986 2.1; a lone `%` stands for itself.
fn decoded(segment: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), segment.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|two| byte == b'%' && two.iter().all(u8::is_ascii_hexdigit));
        bytes.push(digits.map_or(byte, |two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()));
        rest = &after[if digits.is_some() { 2 } else { 0 }..];
    }
    let text = String::from_utf8(bytes).ok()?;
    ((1..=256).contains(&text.len()) && !text.chars().any(char::is_control)).then_some(text)
}

/// The only text that a Redis pattern matches, but for the star at its end.
fn matched_alone(glob: &str) -> String {
    let (mut text, mut chars) = (String::new(), glob.strip_suffix('*').unwrap().chars());
    while let Some(c) = chars.next() {
        assert!(!matches!(c, '*' | '?' | '[' | ']'), "{glob} matches more than one channel");
        text.push(if c == '\\' { chars.next().unwrap() } else { c });
    }
    text + "*"
}

/// Host, path, source and key; those go first that are more definite.
const ROUTES: [(&str, &str, &str, Option<&str>); 8] = [
    ("shop.example.com", "/orders/{id}", "shop-orders", Some("{id}")),
    ("", "/events/news", "news", None),
    ("", "/rooms/lobby", "lobby", None),
    ("", "/rooms/{room}", "room:{room}", None),
    ("", "/rooms/{room}/log", "log:{room}", None),
    ("", "/pair/{a}/x-{b}.json", "{a}/{b}", None),
    ("", "/watch/{name}", "metrics.{name}.*", None),
    ("", "/orders/{id}", "orders", Some("{id}")),
];

static ROUTER: LazyLock<Router> = LazyLock::new(|| {
    let text = r#"
server: { tls: none }
upstreams:
  r: { redis: { url: redis://localhost } }
  k: { kafka: { brokers: "localhost:9092" } }
routes:
  - { path: "/orders/{id}", from: { upstream: k, topic: orders, key: "{id}" } }
  - { path: "/orders/{id}", host: shop.example.com, from: { upstream: k, topic: shop-orders, key: "{id}" } }
  - { path: "/watch/{name}", from: { upstream: r, pattern: "metrics.{name}.*" } }
  - { path: "/pair/{a}/x-{b}.json", from: { upstream: r, stream: "{a}/{b}" } }
  - { path: "/rooms/{room}/log", from: { upstream: r, stream: "log:{room}" }, params: { room: "[a-z0-9-]{1,64}" } }
  - { path: "/rooms/{room}", from: { upstream: r, channel: "room:{room}" }, params: { room: "[a-z0-9-]{1,64}" } }
  - { path: /rooms/lobby, from: { upstream: r, channel: lobby } }
  - { path: /events/news, from: { upstream: r, channel: news } }
  - { path: "/app/{*rest}", proxy: "http://127.0.0.1:3000" }
"#;
    let config = parse("c.yaml", text, &|_| None).unwrap();
    let named = |route: &&(&str, &str, &str, Option<&str>)| {
        config
            .routes
            .iter()
            .any(|other| *other.path == *route.1 && other.host.as_deref().unwrap_or_default() == route.0)
    };
    assert_eq!(ROUTES.iter().filter(named).count(), config.routes.len());
    Router::new(&config, &Metrics::new(), 0)
});
