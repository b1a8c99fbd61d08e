//! What the tests of this module share: a small configuration to build on, and checks of what is
//! reported where.

use super::{Config, parse};

/// The variables that tests see.
pub(super) fn env(name: &str) -> Option<String> {
    match name {
        "HIDDEN" => Some("s3cr3t-value".to_owned()),
        "EMPTY" => Some(String::new()),
        "PORT" => Some("7000".to_owned()),
        "TICKET_SECRET" | "SERVICES_SECRET" | "BATCH_SECRET" => Some("hunter2 ".repeat(8)),
        "OTLP_TOKEN" | "REDIS_PASSWORD" | "KAFKA_PASSWORD" | "POSTGRES_PASSWORD" | "RABBITMQ_PASSWORD"
        | "APP_TOKEN" | "NATS_PASSWORD" | "NATS_TOKEN" | "MQTT_PASSWORD" | "REGISTRY_PASSWORD"
        | "REGISTRY_TOKEN" => Some("hunter2".to_owned()),
        "ADMIN_TOKEN" => Some("hunter2hunter2hunter2".to_owned()),
        // Of nobody.
        "NATS_NKEY" => Some("SUAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPB6IC5CQ".to_owned()),
        _ => None,
    }
}

/// One upstream of each kind: `r`, `k`, `t`, `p`. Routes follow from line 8 on.
pub(super) const HEAD: &str = "\
server: { tls: none }
upstreams:
  r: { redis: { url: redis://localhost } }
  k: { kafka: { brokers: localhost:9092 } }
  t: { ticker: {} }
  p: { push: }
routes:
";

/// A route to put under sections that need one.
pub(super) const TAIL: &str =
    "upstreams: { t: { ticker: {} } }\nroutes: [{ path: /t, from: { upstream: t } }]\n";

/// What a sound text means.
#[track_caller]
pub(super) fn sound(text: &str) -> Config {
    parse("c.yaml", text, &env).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Line, column and text of every problem, in order. No secret may show.
#[track_caller]
pub(super) fn problems(text: &str) -> Vec<(usize, usize, String)> {
    let drawn = match parse("c.yaml", text, &env) {
        Ok(config) => panic!("no problem in {config:#?}"),
        Err(problems) => problems.to_string(),
    };
    for secret in ["s3cr3t", "hunter2"] {
        assert!(!drawn.contains(secret), "{drawn}");
    }
    let lines: Vec<&str> = drawn.lines().collect();
    let found: Vec<_> = lines.windows(2).filter_map(|pair| read(pair[0], pair[1])).collect();
    let count = format!("{} problem{} in c.yaml", found.len(), if found.len() == 1 { "" } else { "s" });
    assert_eq!(lines.last(), Some(&count.as_str()), "{drawn}");
    found
}

fn read(head: &str, arrow: &str) -> Option<(usize, usize, String)> {
    let text = head.strip_prefix("error: ")?;
    let mut place =
        arrow.trim_start().strip_prefix("--> c.yaml")?.split(':').skip(1).map(|n| n.parse().unwrap());
    Some((place.next().unwrap_or(0), place.next().unwrap_or(0), text.to_owned()))
}

/// Checks that exactly these problems are reported: line, column, and a part of the text.
#[track_caller]
pub(super) fn expect(text: &str, expected: &[(usize, usize, &str)]) {
    let found = problems(text);
    let fits = found.len() == expected.len()
        && found.iter().zip(expected).all(|(f, e)| f.0 == e.0 && f.1 == e.1 && f.2.contains(e.2));
    assert!(fits, "in\n{text}\nexpected {expected:#?}\nfound {found:#?}");
}

/// Checks one problem of one route, written in flow style on line 8 from column 5 on.
#[track_caller]
pub(super) fn expect_route(route: &str, column: usize, text: &str) {
    expect(&format!("{HEAD}  - {route}\n"), &[(8, column, text)]);
}
