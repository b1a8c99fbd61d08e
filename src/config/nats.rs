//! `nats:`: the servers of one NATS, and as whom to enter.

use super::client_tls;
use super::fields::Fields;
use super::hosts;
use super::keys;
use super::model::{Nats, NatsAuth, NatsServer, Secret};
use super::nkey::{self, Nkey};
use super::redis::TIME;
use super::tree::Node;
use super::walk::Walk;

/// Reads the settings of one NATS upstream.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Nats> {
    let fields = Fields::open(walk, node, keys::NATS)?;
    let ping_interval = fields.duration("ping_interval", &TIME).unwrap_or(TIME.default);
    let timeout = fields.duration("timeout", &TIME).unwrap_or(TIME.default);
    let tls = fields.node("tls").and_then(|node| client_tls::read(walk, node));
    let auth = read_auth(walk, &fields);
    let servers = fields.required("servers", "list them as `nats://HOST:PORT` or, with TLS, `tls://…`");
    let nodes = walk.one_or_more(servers?, SERVER)?;
    let servers: Vec<_> = nodes.iter().map(|node| read_server(walk, node)).collect();
    let servers: Option<Vec<_>> = servers.into_iter().collect();
    Some(Nats { servers: servers?, auth: auth?, tls, ping_interval, timeout })
}

const SERVER: &str = "a server such as `nats://nats-1:4222`";

fn read_server(walk: &Walk<'_>, node: &Node) -> Option<NatsServer> {
    let url = walk.scalar(node, SERVER)?;
    parse_server(&url.text).map_err(|what| walk.problem(url.span(), what)).ok()
}

/// Takes `nats://host[:port]` apart; errors quote nothing of it.
fn parse_server(url: &str) -> Result<NatsServer, &'static str> {
    let (scheme, place) =
        url.split_once("://").ok_or("a NATS URL begins with `nats://` or, with TLS, `tls://`")?;
    let tls = match scheme {
        "nats" => false,
        "tls" => true,
        _ => return Err("the scheme of a NATS URL is `nats` or, with TLS, `tls`"),
    };
    if place.contains('@') {
        return Err(
            "user, password and token stand in keys of their own beside `servers`, not in this NATS URL",
        );
    }
    let place = place.strip_suffix('/').unwrap_or(place);
    let (host, port) = match hosts::host_and_port(place) {
        Some(found) => found,
        None if hosts::is_host(place) => (place, 4222),
        None => {
            return Err("this NATS URL does not go on with a host, or a host and a port: `nats://HOST:PORT`");
        }
    };
    Ok(NatsServer { tls, host: host.trim_matches(['[', ']']).to_owned(), port })
}

/// As whom to enter: in one way at most.
fn read_auth(walk: &Walk<'_>, fields: &Fields<'_>) -> Option<NatsAuth> {
    let secret = |key: &str| {
        let node = fields.node(key)?;
        Some(Secret::new(walk.scalar(node, "text, or `file:PATH`")?.text))
    };
    let ways: Vec<_> =
        ["user", "token", "nkey", "credentials"].iter().filter_map(|key| fields.entry(key)).collect();
    if let [first, second, ..] = &ways[..] {
        let text =
            format!("one enters in one way, here it is `{}` already; keep one of them", first.key.text);
        walk.conflict(second.key.span, text, first.key.span, "the first way");
        return None;
    }
    let password = fields.entry("password").map(|_| secret("password"));
    match (ways.first().map(|entry| entry.key.text.as_str()), password) {
        (Some("user"), Some(password)) => {
            let user = walk.scalar(fields.node("user")?, "the name of a user")?.text.into_owned();
            Some(NatsAuth::User { user, password: password? })
        }
        (Some("user"), None) => {
            fields.required("password", "it goes with `user`");
            None
        }
        (_, Some(_)) => {
            let span = fields.entry("password").map_or(fields.span(), |entry| entry.key.span);
            walk.problem(span, "a `password` goes with `user`; add that, or remove it");
            None
        }
        (Some("token"), _) => secret("token").map(NatsAuth::Token),
        (Some("nkey"), _) => {
            let node = fields.node("nkey")?;
            let seed = walk.scalar(node, "the seed of an nkey, or `file:PATH`")?;
            Nkey::of_seed(&seed.text).map_err(|what| walk.problem(node.span, what)).ok().map(NatsAuth::Nkey)
        }
        (Some(_), _) => {
            let node = fields.node("credentials")?;
            let file = walk.file(node, "the path of a file of credentials")?;
            let read = nkey::read_credentials(&String::from_utf8_lossy(&file));
            let (jwt, key) = read.map_err(|what| walk.problem(node.span, what)).ok()?;
            Some(NatsAuth::Credentials { jwt, key })
        }
        (None, None) => Some(NatsAuth::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamKind;
    use crate::config::testing::{expect, sound};

    fn with(keys: &str) -> String {
        format!(
            "server: {{ tls: none }}\nupstreams:\n  n:\n    nats: {{ {keys} }}\nroutes: [{{ path: /n, from: {{ upstream: n, subject: s }} }}]\n"
        )
    }

    fn nats(keys: &str) -> Nats {
        match sound(&with(keys)).upstreams.remove(0).kind {
            UpstreamKind::Nats(nats) => nats,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn settings() {
        let plain = nats("servers: 'nats://h'");
        assert_eq!((plain.ping_interval.as_secs(), plain.timeout.as_secs()), (5, 5));
        assert_eq!(plain.auth, NatsAuth::None);
        let list = nats("servers: ['nats://a:1', 'tls://[::1]:2', 'tls://c/'], tls: {}");
        let shown: Vec<_> = list.servers.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["nats://a:1", "tls://[::1]:2", "tls://c:4222"]);
        let user = nats("servers: 'nats://h', user: me, password: '${REDIS_PASSWORD}', timeout: 1s");
        let NatsAuth::User { user: name, password } = &user.auth else { panic!("{user:?}") };
        assert_eq!((name.as_str(), password.expose()), ("me", "hunter2"));
        assert!(!format!("{user:?}").contains("hunter2"));
        assert!(matches!(nats("servers: 'nats://h', token: x").auth, NatsAuth::Token(_)));
        let seed = "SUAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPB6IC5CQ";
        assert!(matches!(nats(&format!("servers: 'nats://h', nkey: {seed}")).auth, NatsAuth::Nkey(_)));
    }

    #[test]
    fn problems() {
        for (keys, column, text) in [
            ("", 11, "`nats` lacks `servers`; list them as `nats://HOST:PORT`"),
            ("servers: []", 22, "this list is empty; it needs a server such as"),
            ("servers: 'h:4222'", 22, "a NATS URL begins with `nats://`"),
            ("servers: 'http://h'", 22, "the scheme of a NATS URL is `nats`"),
            ("servers: 'nats://me:hunter2@h'", 22, "stand in keys of their own"),
            ("servers: 'nats://h:x'", 22, "does not go on with a host"),
            ("servers: 'nats://h', user: a", 11, "`nats` lacks `password`; it goes with `user`"),
            ("servers: 'nats://h', password: a", 34, "a `password` goes with `user`"),
            (
                "servers: 'nats://h', token: a, nkey: b",
                44,
                "one enters in one way, here it is `token` already",
            ),
            ("servers: 'nats://h', nkey: hunter2", 40, "is not the seed of an nkey"),
            ("servers: 'nats://h', credentials: /none", 47, "cannot read `/none`"),
            ("servers: 'nats://h', ping_interval: 1ms", 49, "it must be from 100ms to 5m"),
        ] {
            expect(&with(keys), &[(4, column, text)]);
        }
    }
}
