//! URLs of servers that are entered with a user and a password, and have a path: taken apart without a client's help, so
//! that a mistake is told in words that help and without the password.

use percent_encoding::percent_decode_str;

use super::hosts;
use super::model::Secret;

/// How the URLs of one kind of server are written.
pub(super) struct Dialect {
    /// What messages call them: "a NAME URL".
    pub name: &'static str,
    /// The schemes, each with the port that holds where none is written.
    pub schemes: &'static [(&'static str, u16)],
    /// The whole of it, for who has written something else.
    pub form: &'static str,
}

/// A URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceUrl {
    /// One of those of its dialect.
    pub scheme: &'static str,
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// A host name or address, IPv6 without its brackets; `None` where nothing stands there.
    pub host: Option<String>,
    pub port: u16,
    /// What follows the slash after the host, if there is one.
    pub path: Option<String>,
    /// Names and values, in order.
    pub query: Vec<(String, String)>,
}

impl Dialect {
    /// Takes `scheme://[user][:password]@host[:port][/path][?name=value&…]` apart.
    ///
    /// # Errors
    /// A sentence that quotes nothing of the URL.
    pub fn parse(&self, url: &str) -> Result<ServiceUrl, String> {
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| self.wrong(&format!("is written as {}", self.form)))?;
        let known = self.schemes.iter().find(|(known, _)| *known == scheme);
        let &(scheme, port) = known.ok_or_else(|| self.wrong(&format!("is written as {}", self.form)))?;
        if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(self.wrong("holds a blank or a control character; percent-encode it"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (userinfo, place) = rest.rsplit_once('@').unwrap_or(("", rest));
        if userinfo.contains(['/', '#', '@']) || place.contains('#') {
            return Err(self.wrong(
                "holds one of `/ # @` in its user or password, or a `#`; percent-encode it (`%2F %23 %40`)",
            ));
        }
        let (authority, path) = match place.split_once('/') {
            Some((authority, path)) => (authority, Some(self.decoded(path)?)),
            None => (place, None),
        };
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let (host, port) = self.host_and_port(authority, port)?;
        Ok(ServiceUrl {
            scheme,
            user: Some(self.decoded(user)?).filter(|user| !user.is_empty()),
            password: Some(self.decoded(password)?).filter(|password| !password.is_empty()).map(Secret::new),
            host,
            port,
            path,
            query: self.query(query)?,
        })
    }

    fn host_and_port(&self, authority: &str, default: u16) -> Result<(Option<String>, u16), String> {
        let colon = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
        let (host, port) = match colon {
            Some(colon) => (&authority[..colon], number(&authority[colon + 1..])),
            None => (authority, Some(default)),
        };
        let port = port.ok_or_else(|| {
            self.wrong("has a port that is no number from 1 to 65535 (a password stands before the host: `USER:PASSWORD@HOST`)")
        })?;
        if host.is_empty() {
            return Ok((None, port));
        }
        if host.contains(',') {
            return Err(self.wrong("names several hosts; name the one that is to be read"));
        }
        if !hosts::is_host(host) {
            return Err(
                self.wrong("has a host that is no host name or address; IPv6 addresses stand in brackets")
            );
        }
        Ok((Some(host.trim_matches(['[', ']']).to_owned()), port))
    }

    fn query(&self, query: &str) -> Result<Vec<(String, String)>, String> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((self.decoded(name)?, self.decoded(value)?))
            })
            .collect()
    }

    fn decoded(&self, part: &str) -> Result<String, String> {
        let text = percent_decode_str(part).decode_utf8();
        let text = text.map_err(|_| self.wrong("is not UTF-8 once it is decoded"))?;
        if text.contains('\0') {
            return Err(self.wrong("holds a NUL once it is decoded; remove it"));
        }
        Ok(text.into_owned())
    }

    /// A sentence about such a URL.
    pub fn wrong(&self, what: &str) -> String {
        format!("this {} URL {what}", self.name)
    }
}

/// `host:port`, as messages name it.
pub(super) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn number(digits: &str) -> Option<u16> {
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?;
    number.filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALECT: Dialect = Dialect { name: "X", schemes: &[("x", 1), ("xs", 2)], form: "`x://HOST`" };

    #[test]
    fn its_parts() {
        let url = DIALECT.parse("xs://me%40:s%2F@[::1]:9/a%2Fb?c=d%20&e").unwrap();
        assert_eq!((url.scheme, url.user.as_deref()), ("xs", Some("me@")));
        assert_eq!(url.password.as_ref().map(Secret::expose), Some("s/"));
        assert_eq!((url.host.as_deref(), url.port, url.path.as_deref()), (Some("::1"), 9, Some("a/b")));
        assert_eq!(url.query, [("c".into(), "d ".into()), ("e".into(), String::new())]);
        let url = DIALECT.parse("x://h").unwrap();
        assert_eq!((url.user, url.password, url.port, url.path), (None, None, 1, None));
        assert_eq!(DIALECT.parse("x://u@/p").unwrap().host, None);
        assert_eq!((address("h", 1), address("::1", 2)), ("h:1".into(), "[::1]:2".into()));
    }

    #[test]
    fn what_is_wrong() {
        for (url, text) in [
            ("h", "is written as `x://HOST`"),
            ("y://h", "is written as `x://HOST`"),
            ("x://s3cr3t/@h", "percent-encode it"),
            ("x://h#s3cr3t", "percent-encode it"),
            ("x://a b@h", "holds a blank"),
            ("x://h:0", "no number from 1 to 65535"),
            ("x://me:s3cr3t", "no number from 1 to 65535"),
            ("x://h,i", "names several hosts"),
            ("x://-", "no host name or address"),
            ("x://%ff@h", "is not UTF-8"),
            ("x://h/%00", "holds a NUL"),
        ] {
            let what = DIALECT.parse(url).unwrap_err();
            assert!(what.starts_with("this X URL ") && what.contains(text), "{url}: {what}");
            assert!(!what.contains("s3cr3t"), "{what}");
        }
    }
}
