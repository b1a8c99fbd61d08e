//! Redis URLs, taken apart without the client's help, so that a mistake is told in words that help and without
//! the password.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::model::Secret;

/// Where a Redis server is, and as whom to enter. What it displays is neither user nor password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether to speak TLS: `rediss://`.
    pub tls: bool,
    /// A host name or address, IPv6 without its brackets; with sentinels the name of a master.
    pub host: String,
    /// The port; 0 where `host` is the name of a master.
    pub port: u16,
    /// The number of the database.
    pub database: u32,
    /// The ACL user, if it is not the default one.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
}

/// What a URL stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// A server; port 6379 by default.
    Server,
    /// The master that sentinels know by this name: no port.
    Master,
    /// A sentinel; port 26379 by default, and no database.
    Sentinel,
}

impl Endpoint {
    /// Takes `redis://[user][:password]@host[:port][/db]` apart.
    ///
    /// # Errors
    /// A sentence that quotes nothing of the URL.
    pub(super) fn parse(url: &str, names: Names) -> Result<Self, &'static str> {
        let (scheme, rest) =
            url.split_once("://").ok_or("a Redis URL begins with `redis://` or, with TLS, `rediss://`")?;
        if !matches!(scheme, "redis" | "rediss") {
            return Err("the scheme of a Redis URL is `redis` or, with TLS, `rediss`");
        }
        let (userinfo, place) = rest.rsplit_once('@').map_or(("", rest), |(user, place)| (user, place));
        check_characters(url, userinfo, place)?;
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        let (host, port) = match names {
            Names::Server => split_port(authority, 6379)?,
            Names::Sentinel => split_port(authority, 26379)?,
            Names::Master => (master(authority)?, 0),
        };
        let database = match database {
            "" => 0,
            digits => parse_number(digits)
                .ok_or("the path of a Redis URL is the number of a database, such as `/0`")?,
        };
        if names == Names::Sentinel && database != 0 {
            return Err("a sentinel has no databases; this Redis URL ends with its port");
        }
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        Ok(Self {
            tls: scheme == "rediss",
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            database,
            user: decoded(user)?,
            password: decoded(password)?.map(Secret::new),
        })
    }

    /// The same entry to another server.
    pub fn at(&self, host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, ..self.clone() }
    }

    /// `host:port`, as messages name it.
    pub fn address(&self) -> String {
        match (self.host.contains(':'), self.port) {
            (false, 0) => self.host.clone(),
            (false, port) => format!("{}:{port}", self.host),
            (true, port) => format!("[{}]:{port}", self.host),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        write!(f, "{scheme}://{}/{}", self.address(), self.database)
    }
}

fn check_characters(url: &str, userinfo: &str, place: &str) -> Result<(), &'static str> {
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
    Ok(())
}

fn split_port(authority: &str, default: u16) -> Result<(&str, u16), &'static str> {
    let colon = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
    let (host, port) = match colon {
        Some(colon) => (&authority[..colon], parse_number(&authority[colon + 1..])),
        None => (authority, Some(default.into())),
    };
    let port = port.filter(|port| *port > 0).and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or("the port of this Redis URL is not a number from 1 to 65535 (a password stands before the host: `redis://:PASSWORD@HOST`)")?;
    if !super::hosts::is_host(host) {
        return Err(
            "the host of this Redis URL is not a host name or address; IPv6 addresses stand in brackets",
        );
    }
    Ok((host, port))
}

/// Sentinel's own rule for the names of masters.
fn master(authority: &str) -> Result<&str, &'static str> {
    if authority.contains(':') {
        return Err("with `sentinels` the host of this Redis URL is the name of a master, which has no port");
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if authority.is_empty() || !authority.chars().all(legal) {
        return Err(
            "with `sentinels` the host of this Redis URL is the name of a master: letters, digits, `.`, `_` and `-`",
        );
    }
    Ok(authority)
}

fn decoded(part: &str) -> Result<Option<String>, &'static str> {
    let text = percent_decode_str(part).decode_utf8();
    let text = text.map_err(|_| "the user or password of this Redis URL is not UTF-8 once it is decoded")?;
    Ok(Some(text.into_owned()).filter(|text| !text.is_empty()))
}

fn parse_number(digits: &str) -> Option<u32> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let shown = |url| Endpoint::parse(url, Names::Server).unwrap().to_string();
        assert_eq!(shown("redis://localhost"), "redis://localhost:6379/0");
        assert_eq!(shown("rediss://:s3cr%40t@redis.internal:6380/2"), "rediss://redis.internal:6380/2");
        assert_eq!(shown("redis://user:pass@10.0.0.1/"), "redis://10.0.0.1:6379/0");
        assert_eq!(shown("redis://[::1]:7000/1"), "redis://[::1]:7000/1");
        assert_eq!(shown("redis://[::1]"), "redis://[::1]:6379/0");
        let sentinel = Endpoint::parse("redis://s1", Names::Sentinel).unwrap();
        assert_eq!(sentinel.to_string(), "redis://s1:26379/0");
        let master = Endpoint::parse("redis://:pw@my_master.1/3", Names::Master).unwrap();
        assert_eq!(master.to_string(), "redis://my_master.1/3");
    }

    #[test]
    fn users_and_passwords() {
        let entry = |url| {
            let endpoint = Endpoint::parse(url, Names::Server).unwrap();
            (endpoint.user, endpoint.password.map(|password| password.expose().to_owned()))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(entry("redis://h"), (None, None));
        assert_eq!(entry("redis://:s3cr%40t@h"), (None, some("s3cr@t")));
        assert_eq!(entry("redis://us%3Aer:a:b@h"), (some("us:er"), some("a:b")));
        assert_eq!(entry("redis://user@h"), (some("user"), None));
        let elsewhere = Endpoint::parse("rediss://u:p@h/0", Names::Server).unwrap().at("::1", 7);
        assert_eq!((elsewhere.address().as_str(), elsewhere.user.as_deref()), ("[::1]:7", Some("u")));
        assert!(!format!("{elsewhere:?}").contains("\"p\""));
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
            ("redis://:%ff@h", "UTF-8"),
            ("redis://h/x", "database"),
            ("redis://h/0?protocol=3", "`?`"),
            ("redis://::1", "host"),
            ("redis://a..b", "host"),
        ] {
            let what = Endpoint::parse(url, Names::Server).unwrap_err();
            assert!(what.contains(part), "{url}: {what}");
        }
        for (url, names, part) in [
            ("redis://name:6379", Names::Master, "no port"),
            ("redis://", Names::Master, "name of a master"),
            ("redis://s1/1", Names::Sentinel, "no databases"),
        ] {
            let what = Endpoint::parse(url, names).unwrap_err();
            assert!(what.contains(part), "{url}: {what}");
        }
    }
}
