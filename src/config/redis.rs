//! `redis:`: the address of a Redis server. Checks the URL without the client, so that a mistake is
//! told in words that help and without the password.

use std::fmt;
use std::time::Duration;

use super::fields::{Bounds, Fields};
use super::keys;
use super::model::{Redis, Secret};
use super::tree::Node;
use super::walk::Walk;

const TIME: Bounds<Duration> =
    Bounds { default: Duration::from_secs(5), min: Duration::from_millis(100), max: Duration::from_mins(5) };

/// Reads the settings of one Redis upstream.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Redis> {
    let fields = Fields::open(walk, node, keys::REDIS)?;
    let url = fields.required("url", "write it as `redis://HOST:PORT/DB` or, with TLS, `rediss://…`");
    let ping_interval = fields.duration("ping_interval", &TIME).unwrap_or(TIME.default);
    let timeout = fields.duration("timeout", &TIME).unwrap_or(TIME.default);
    let url = walk.scalar(url?, "the URL of a Redis server")?;
    if let Err(what) = Endpoint::parse(&url.text) {
        walk.problem(url.span(), what);
        return None;
    }
    Some(Redis { url: Secret::new(url.text), ping_interval, timeout })
}

/// The part of a Redis URL that may be shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint<'u> {
    scheme: &'u str,
    host: &'u str,
    port: u16,
    database: u32,
}

impl<'u> Endpoint<'u> {
    /// Takes `redis://[user][:password]@host[:port][/db]` apart.
    ///
    /// # Errors
    /// A sentence that quotes nothing of the URL.
    pub fn parse(url: &'u str) -> Result<Self, &'static str> {
        let (scheme, rest) =
            url.split_once("://").ok_or("a Redis URL begins with `redis://` or, with TLS, `rediss://`")?;
        if !matches!(scheme, "redis" | "rediss") {
            return Err("the scheme of a Redis URL is `redis` or, with TLS, `rediss`");
        }
        let (userinfo, place) = rest.rsplit_once('@').map_or(("", rest), |(user, place)| (user, place));
        if userinfo.contains(['/', '?', '#', '@']) {
            return Err(
                "the user or password of this Redis URL holds one of `/ ? # @`; percent-encode it (`%2F %3F %23 %40`)",
            );
        }
        if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("this Redis URL holds a blank or a control character; percent-encode it");
        }
        if place.contains(['?', '#']) {
            return Err(
                "a Redis URL takes no `?` or `#` here; remove it, or percent-encode it (`%3F %23`) if it is part of the password",
            );
        }
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        let (host, port) = split_port(authority)?;
        let database = match database {
            "" => 0,
            digits => parse_number(digits)
                .ok_or("the path of a Redis URL is the number of a database, such as `/0`")?,
        };
        Ok(Self { scheme, host, port, database })
    }
}

impl fmt::Display for Endpoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}/{}", self.scheme, self.host, self.port, self.database)
    }
}

fn split_port(authority: &str) -> Result<(&str, u16), &'static str> {
    let colon = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
    let (host, port) =
        colon.map_or((authority, "6379"), |colon| (&authority[..colon], &authority[colon + 1..]));
    let port = parse_number(port).filter(|port| *port > 0).and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or("the port of this Redis URL is not a number from 1 to 65535 (a password stands before the host: `redis://:PASSWORD@HOST`)")?;
    if !super::hosts::is_host(host) {
        return Err(
            "the host of this Redis URL is not a host name or address; IPv6 addresses stand in brackets",
        );
    }
    Ok((host, port))
}

fn parse_number(digits: &str) -> Option<u32> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamKind;
    use crate::config::testing::{expect, sound};

    #[test]
    fn urls() {
        let shown = |url| Endpoint::parse(url).unwrap().to_string();
        assert_eq!(shown("redis://localhost"), "redis://localhost:6379/0");
        assert_eq!(shown("rediss://:s3cr%40t@redis.internal:6380/2"), "rediss://redis.internal:6380/2");
        assert_eq!(shown("redis://user:pass@10.0.0.1/"), "redis://10.0.0.1:6379/0");
        assert_eq!(shown("redis://[::1]:7000/1"), "redis://[::1]:7000/1");
        assert_eq!(shown("redis://[::1]"), "redis://[::1]:6379/0");
    }

    #[test]
    fn no_urls() {
        for (url, part) in [
            ("", "begins with"),
            ("localhost:6379", "begins with"),
            ("http://h", "scheme"),
            ("redis://", "host"),
            ("redis://h:0", "port"),
            ("redis://h:x", "port"),
            ("redis://h:65536", "port"),
            ("redis://h:", "port"),
            ("redis://u:pa/ss@h", "percent-encode"),
            ("redis://u:pa@ss@h", "percent-encode"),
            ("redis://u:pa ss@h", "blank"),
            ("redis://h/x", "database"),
            ("redis://h/0?protocol=3", "`?`"),
            ("redis://::1", "host"),
            ("redis://a..b", "host"),
        ] {
            let what = Endpoint::parse(url).unwrap_err();
            assert!(what.contains(part), "{url}: {what}");
        }
    }

    fn with(keys: &str) -> String {
        format!(
            "server: {{ tls: none }}\nupstreams:\n  r:\n    redis: {{ {keys} }}\nroutes: [{{ path: /r, from: {{ upstream: r, channel: c }} }}]\n"
        )
    }

    #[test]
    fn settings() {
        let read = |text: &str| match sound(text).upstreams.remove(0).kind {
            UpstreamKind::Redis(redis) => redis,
            other => panic!("{other:?}"),
        };
        let redis = read(&with("url: redis://h"));
        assert_eq!(
            (redis.url.expose(), redis.ping_interval.as_secs(), redis.timeout.as_secs()),
            ("redis://h", 5, 5)
        );
        let redis =
            read(&with("url: 'rediss://:${REDIS_PASSWORD}@h:1/2', ping_interval: 100ms, timeout: 5m"));
        assert_eq!(redis.url.expose(), "rediss://:hunter2@h:1/2");
        assert_eq!((redis.ping_interval.as_millis(), redis.timeout.as_secs()), (100, 300));
        assert!(!format!("{redis:?}").contains("hunter2"));
    }

    #[test]
    fn problems() {
        expect(&with(""), &[(4, 12, "`redis` lacks `url`; write it as `redis://HOST:PORT/DB`")]);
        expect(&with("url: redis://h, ping_interval: 99ms"), &[(4, 45, "it must be from 100ms to 5m")]);
        expect(&with("url: redis://h, timeout: 6m"), &[(4, 39, "it must be from 100ms to 5m")]);
        expect(&with("url: [a]"), &[(4, 19, "expected the URL of a Redis server, found a list")]);
        expect(
            &with("uri: redis://h"),
            &[(4, 12, "lacks `url`"), (4, 14, "unknown key `uri` in `redis`; did you mean `url`?")],
        );
    }

    #[test]
    fn passwords_do_not_show() {
        for url in [
            "redis://:hunter2@h:x",
            "redis://h:hunter2",
            "redis:hunter2@h",
            "'redis://:${HIDDEN}@h:x'",
            "redis://:hunter2/x@h",
        ] {
            expect(&with(&format!("url: {url}")), &[(4, 19, "Redis URL")]);
        }
    }
}
