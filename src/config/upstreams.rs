//! `upstreams:`: their names and kinds. Knows which kinds there are; what a kind's settings mean is
//! in the kind's own file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::fields::{Bounds, Fields};
use super::keys::{self, Section};
use super::mask;
use super::model::{Ticker, Upstream, UpstreamKind};
use super::place::Span;
use super::tree::{Entry, Node, Value};
use super::walk::Walk;
use super::{amqp, http_server, kafka, mqtt, nats, postgres, redis, suggest};

/// Declares the kinds: each with what the file and messages call it, and with the setting that it cannot do without.
macro_rules! kinds {
    ($($kind:ident = $name:literal $(needs $needed:literal)?;)*) => {
        /// The kinds, without their settings.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Kind {
            $($kind,)*
        }

        impl Kind {
            const ALL: &[Self] = &[$(Self::$kind),*];
            /// What they are called, in the order in which they are told.
            const NAMES: &[&str] = &[$($name),*];

            /// What the file and messages call it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            fn needs(self) -> Option<&'static str> {
                match self {
                    $(Self::$kind => [$($needed)?].first().copied(),)*
                }
            }
        }
    };
}

kinds! {
    Redis = "redis" needs "url";
    Kafka = "kafka" needs "brokers";
    Ticker = "ticker";
    Push = "push";
    File = "file" needs "path";
    Stdin = "stdin";
    Postgres = "postgres" needs "url";
    Amqp = "amqp" needs "url";
    Sse = "sse" needs "url";
    Http = "http" needs "url";
    Nats = "nats" needs "servers";
    Mqtt = "mqtt" needs "url";
}

/// What `upstreams` holds: names even where the settings had problems, so that routes to them are
/// not blamed.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    /// Those that can be used.
    pub usable: Vec<Upstream>,
    /// Every name, with its kind where that is known.
    pub known: Vec<(Arc<str>, Option<Kind>)>,
}

/// Reads `upstreams`; `admin` says whether there is a listener to push through.
pub(super) fn read(walk: &Walk<'_>, node: &Node, admin: bool) -> Upstreams {
    let mut upstreams = Upstreams::default();
    let (mut push, mut stdin): (Option<Span>, Option<Span>) = (None, None);
    let entries = walk.entries(node, "a mapping of names to upstreams");
    if entries.as_ref().is_some_and(Vec::is_empty) {
        walk.problem(node.span, "`upstreams` is empty; it needs at least one");
    }
    for entry in entries.unwrap_or_default() {
        let name: Arc<str> = entry.key.text.as_str().into();
        check_name(walk, entry);
        let kind = read_kind(walk, &entry.value, &entry.key.text, entry.key.span);
        if let Some((Kind::Push, span)) = kind {
            check_push(walk, span, push, admin);
            push = push.or(Some(span));
        }
        if let Some((Kind::Stdin, span)) = kind {
            check_stdin(walk, span, stdin);
            stdin = stdin.or(Some(span));
        }
        let settings = kind.and_then(|(kind, _)| read_settings(walk, &entry.value, kind));
        upstreams.usable.extend(settings.map(|kind| Upstream { name: name.clone(), kind }));
        upstreams.known.push((name, kind.map(|(kind, _)| kind)));
    }
    upstreams
}

fn check_name(walk: &Walk<'_>, entry: &Entry) {
    let name = &entry.key.text;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        let text = format!(
            "{} cannot name an upstream; use 1 to 64 letters, digits, `_` and `-`",
            mask::quotable(name)
        );
        walk.problem(entry.key.span, text);
    }
}

/// The kind and where it is named.
fn read_kind(walk: &Walk<'_>, node: &Node, name: &str, at: Span) -> Option<(Kind, Span)> {
    if node.value == Value::Null {
        no_kind(walk, at, name);
        return None;
    }
    let fields = Fields::open(walk, node, keys::KINDS)?;
    let mut kinds = fields.present();
    let Some(first) = kinds.next() else {
        // An unknown kind has been reported, with the list of those there are.
        if fields.is_empty() {
            no_kind(walk, fields.span(), name);
        }
        return None;
    };
    for second in kinds {
        let text = format!(
            "an upstream is of one kind, this one is `{}` already; give each a name of its own",
            first.key.text
        );
        walk.conflict(second.key.span, text, first.key.span, "its first kind");
    }
    let kind = Kind::ALL.iter().find(|kind| kind.name() == first.key.text)?;
    Some((*kind, first.key.span))
}

fn no_kind(walk: &Walk<'_>, at: Span, name: &str) {
    let (name, kinds) = (mask::quotable(name), suggest::list(Kind::NAMES, "or"));
    walk.problem(at, format!("the upstream {name} has no kind; give it one of {kinds}"));
}

fn check_push(walk: &Walk<'_>, span: Span, earlier: Option<Span>, admin: bool) {
    if let Some(earlier) = earlier {
        walk.conflict(
            span,
            "there can be one `push` upstream; its channels keep uses apart",
            earlier,
            "the first one",
        );
    } else if !admin {
        walk.problem(
            span,
            "a `push` upstream is fed through the admin listener, which is off; set `admin.listen`",
        );
    }
}

fn check_stdin(walk: &Walk<'_>, span: Span, earlier: Option<Span>) {
    if let Some(earlier) = earlier {
        let text = "a process has one standard input; let the routes read this upstream's";
        walk.conflict(span, text, earlier, "the first `stdin`");
    }
}

fn read_settings(walk: &Walk<'_>, upstream: &Node, kind: Kind) -> Option<UpstreamKind> {
    let Value::Map(entries) = &upstream.value else { return None };
    let entry = entries.iter().find(|entry| entry.key.text == kind.name())?;
    let node = &entry.value;
    if let (Value::Null, Some(needed)) = (&node.value, kind.needs()) {
        let text = format!("`{}` has no settings; it needs at least `{needed}`", kind.name());
        walk.problem(entry.key.span, text);
        return None;
    }
    match kind {
        Kind::Redis => redis::read(walk, node).map(UpstreamKind::Redis),
        Kind::Kafka => kafka::read(walk, node).map(UpstreamKind::Kafka),
        Kind::Ticker => read_ticker(walk, node).map(UpstreamKind::Ticker),
        Kind::Push => open_optional(walk, node, keys::PUSH).map(|_| UpstreamKind::Push),
        Kind::File => read_file(walk, node).map(UpstreamKind::File),
        Kind::Stdin => open_optional(walk, node, keys::STDIN).map(|_| UpstreamKind::Stdin),
        Kind::Postgres => postgres::read(walk, node).map(UpstreamKind::Postgres),
        Kind::Amqp => amqp::read(walk, node).map(UpstreamKind::Amqp),
        Kind::Sse => http_server::read_sse(walk, node).map(UpstreamKind::Sse),
        Kind::Http => http_server::read_http(walk, node).map(UpstreamKind::Http),
        Kind::Nats => nats::read(walk, node).map(UpstreamKind::Nats),
        Kind::Mqtt => mqtt::read(walk, node).map(UpstreamKind::Mqtt),
    }
}

fn read_file(walk: &Walk<'_>, node: &Node) -> Option<PathBuf> {
    let fields = Fields::open(walk, node, keys::FILE)?;
    let path = fields.required("path", "name the file whose lines are events")?;
    walk.path(path, "the path of a file such as `/var/log/app.log`").map(|(_, path)| path)
}

fn read_ticker(walk: &Walk<'_>, node: &Node) -> Option<Ticker> {
    let fields = open_optional(walk, node, keys::TICKER)?;
    let every = fields.as_ref().and_then(|fields| fields.duration("every", &EVERY)).unwrap_or(EVERY.default);
    let data = fields.as_ref().and_then(|fields| walk.text(fields.node("data")?, "text"));
    Some(Ticker { every, data: data.map_or_else(|| TICK.into(), |data| data.text.into()) })
}

/// What a ticker says by default.
pub(super) const TICK: &str = "tick";

pub(super) const EVERY: Bounds<Duration> = Bounds {
    default: Duration::from_secs(1),
    min: Duration::from_millis(1),
    max: Duration::from_secs(86_400),
};

/// Opens settings that may be left out altogether, as in `push:`; `None` if they are of the wrong type.
fn open_optional<'n>(
    walk: &'n Walk<'n>,
    node: &'n Node,
    section: &'static Section,
) -> Option<Option<Fields<'n>>> {
    if node.value == Value::Null {
        return Some(None);
    }
    Fields::open(walk, node, section).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{HEAD, expect, sound};

    /// One route to `t`; upstreams from line 4 on.
    fn with(upstreams: &str) -> String {
        format!(
            "server: {{ tls: none }}\nroutes: [{{ path: /t, from: {{ upstream: t }} }}]\nupstreams:\n{upstreams}  t: {{ ticker: }}\n"
        )
    }

    #[test]
    fn kinds() {
        let config = sound(&format!("{HEAD}  - {{ path: /t, from: {{ upstream: t }} }}\n"));
        let names: Vec<&str> = config.upstreams.iter().map(|upstream| &*upstream.name).collect();
        assert_eq!(names, ["r", "k", "t", "p"]);
        assert!(
            matches!(&config.upstreams[2].kind, UpstreamKind::Ticker(t) if t.every.as_secs() == 1 && &*t.data == "tick")
        );
        assert!(matches!(config.upstreams[3].kind, UpstreamKind::Push));
    }

    #[test]
    fn every_kind_has_its_key() {
        assert_eq!(keys::KINDS.one_of, Kind::NAMES);
    }

    #[test]
    fn tickers() {
        let config = sound(&with("  u: { ticker: { every: 1ms, data: \"a\\nb\" } }\n"));
        assert!(
            matches!(&config.upstreams[0].kind, UpstreamKind::Ticker(t) if t.every.as_millis() == 1 && &*t.data == "a\nb")
        );
        expect(&with("  u: { ticker: { every: 0 } }\n"), &[(4, 25, "it must be from 1ms to 1d")]);
        expect(
            &with("  u: { ticker: { data: true } }\n"),
            &[(4, 24, "expected text, found `true`; put it in quotes")],
        );
        expect(&with("  u: { ticker: 1s }\n"), &[(4, 16, "expected a mapping, found `1s`")]);
    }

    #[test]
    fn kinds_that_are_wrong() {
        expect(
            &with("  u: {}\n"),
            &[(4, 6, "the upstream `u` has no kind; give it one of `redis`, `kafka`")],
        );
        expect(&with("  u:\n"), &[(4, 3, "the upstream `u` has no kind")]);
        expect(
            &with("  u: { reddis: {} }\n"),
            &[(4, 8, "unknown key `reddis` in an upstream; did you mean `redis`?")],
        );
        expect(&with("  u: { zeromq: {} }\n"), &[(4, 8, "it takes `redis`, `kafka`, `ticker`, `push`")]);
        expect(&with("  u: { ticker: {}, push: {} }\n"), &[(4, 20, "this one is `ticker` already")]);
        expect(&with("  u: { redis: }\n"), &[(4, 8, "`redis` has no settings; it needs at least `url`")]);
        expect(&with("  u: { kafka: }\n"), &[(4, 8, "`kafka` has no settings; it needs at least `brokers`")]);
        expect(&with("  u: redis\n"), &[(4, 6, "expected a mapping, found `redis`")]);
    }

    #[test]
    fn push() {
        expect(&with("  a: { push: }\n  b: { push: {} }\n"), &[(5, 8, "there can be one `push` upstream")]);
        expect(&with("  a: { push: { x: y } }\n"), &[(4, 16, "unknown key `x` in `push`; it takes no keys")]);
        let off = "a `push` upstream is fed through the admin listener, which is off";
        expect(&format!("admin: {{ listen: none }}\n{}", with("  a: { push: }\n")), &[(5, 8, off)]);
    }

    #[test]
    fn lines() {
        let config = sound(&with("  a: { file: { path: /var/log/a.log } }\n  b: { stdin: }\n"));
        assert!(
            matches!(&config.upstreams[0].kind, UpstreamKind::File(path) if path.ends_with("var/log/a.log"))
        );
        assert_eq!(config.upstreams[1].kind, UpstreamKind::Stdin);
        expect(&with("  a: { file: }\n"), &[(4, 8, "`file` has no settings; it needs at least `path`")]);
        expect(&with("  a: { file: {} }\n"), &[(4, 14, "`file` lacks `path`; name the file")]);
        expect(&with("  a: { file: { path: '' } }\n"), &[(4, 22, "this is not a path")]);
        expect(&with("  a: { stdin: { x: y } }\n"), &[(4, 17, "unknown key `x` in `stdin`")]);
        expect(&with("  a: { stdin: }\n  b: { stdin: {} }\n"), &[(5, 8, "a process has one standard input")]);
    }

    #[test]
    fn names() {
        expect(&with("  a.b: { push: }\n"), &[(4, 3, "`a.b` cannot name an upstream; use 1 to 64 letters")]);
        expect(&with("  '': { push: }\n"), &[(4, 3, "cannot name an upstream")]);
        expect(&with(&format!("  {}: {{ push: }}\n", "x".repeat(65))), &[(4, 3, "cannot name an upstream")]);
        expect(&with("  a: { push: }\n  a: { ticker: }\n"), &[(5, 3, "the key `a` is written twice")]);
        sound(&with("  A-b_9: { push: }\n"));
    }

    #[test]
    fn none_at_all() {
        let with = |upstreams: &str| {
            format!("server: {{ tls: none }}\nroutes: [{{ path: /t, from: {{ upstream: t }} }}]\n{upstreams}")
        };
        // Said once, not again for each route.
        expect(&with(""), &[(1, 1, "the file lacks `upstreams`; it names the systems")]);
        expect(&with("upstreams: {}\n"), &[(3, 12, "`upstreams` is empty; it needs at least one")]);
        expect(
            &with("upstreams: [t]\n"),
            &[(3, 12, "expected a mapping of names to upstreams, found a list")],
        );
    }
}
