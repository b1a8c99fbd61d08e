//! `postgres:`: one database of one server.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::client_tls;
use super::fields::Fields;
use super::keys;
use super::model::{ClientTls, Secret};
use super::redis::TIME;
use super::service_url::{Dialect, ServiceUrl, address};
use super::tree::Node;
use super::walk::Walk;

/// A Postgres database, and as whom to enter. What it displays is neither user nor password.
#[derive(Debug, Clone, PartialEq)]
pub struct Postgres {
    /// Where the server is.
    pub server: PostgresServer,
    /// The database; by default it is called as the user is.
    pub database: String,
    /// The role.
    pub user: String,
    /// `password`, or that of the URL.
    pub password: Option<Secret>,
    /// `tls`: whom to trust and what to show, where that is not the usual. `None` where TLS is not spoken.
    pub tls: Option<ClientTls>,
    /// `ping_interval`: how often the listening link is tried. Default 5 s, 100 ms to 5 min.
    pub ping_interval: Duration,
    /// `timeout`: for connecting, and for an answer. Default 5 s, 100 ms to 5 min.
    pub timeout: Duration,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostgresServer {
    /// A host name or address, IPv6 without its brackets, and a port.
    Tcp(String, u16),
    /// The folder of its Unix socket, and the port that the socket's name has.
    Socket(PathBuf, u16),
}

impl fmt::Display for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => f.write_str(&address(host, *port)),
            Self::Socket(folder, port) => write!(f, "{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}

impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "database {} at {}", self.database, self.server)
    }
}

const DIALECT: Dialect = Dialect {
    name: "Postgres",
    schemes: &[("postgres", 5432), ("postgresql", 5432)],
    form: "`postgres://USER@HOST:PORT/DATABASE`",
};

/// Reads the settings of one Postgres upstream.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Postgres> {
    let fields = Fields::open(walk, node, keys::POSTGRES)?;
    let ping_interval = fields.duration("ping_interval", &TIME).unwrap_or(TIME.default);
    let timeout = fields.duration("timeout", &TIME).unwrap_or(TIME.default);
    let tls = fields.node("tls").and_then(|node| client_tls::read(walk, node));
    let password = fields.node("password").and_then(|node| walk.text(node, "a password"));
    let password = password.map(|password| Secret::new(password.text));
    let url = fields.required("url", "write it as `postgres://USER@HOST:PORT/DATABASE`")?;
    let scalar = walk.scalar(url, "the URL of a Postgres database")?;
    let problem = |what: String| walk.problem(scalar.span(), what);
    let url = DIALECT.parse(&scalar.text).map_err(problem).ok()?;
    let modes = Modes::of(&url).map_err(problem).ok()?;
    let server = match (url.host, modes.socket) {
        (Some(host), None) => PostgresServer::Tcp(host, url.port),
        (None, Some(folder)) => PostgresServer::Socket(folder, url.port),
        _ => {
            let text = "names no server, or two; write a host, or for a Unix socket `?host=` with its folder";
            problem(DIALECT.wrong(text));
            return None;
        }
    };
    if let (Some(entry), Some(_)) = (fields.entry("password"), &url.password) {
        let text = "the URL has a password already; keep one of the two";
        walk.conflict(entry.key.span, text, scalar.span(), "the URL");
    }
    let encrypted = modes.encrypted.unwrap_or(matches!(server, PostgresServer::Tcp(..)));
    if let (Some(entry), false) = (fields.entry("tls"), encrypted) {
        let text =
            "`tls` has no use: the URL says `sslmode=disable`, or names a Unix socket; remove one of the two";
        walk.problem(entry.key.span, text);
    }
    let Some(user) = url.user else {
        problem(DIALECT.wrong("names no user; write it before the host, as in `postgres://USER@HOST`"));
        return None;
    };
    Some(Postgres {
        server,
        database: url.path.filter(|path| !path.is_empty()).unwrap_or_else(|| user.clone()),
        user,
        password: url.password.or(password),
        tls: encrypted.then(|| tls.unwrap_or_default()),
        ping_interval,
        timeout,
    })
}

/// What the query of a URL says.
struct Modes {
    encrypted: Option<bool>,
    socket: Option<PathBuf>,
}

impl Modes {
    fn of(url: &ServiceUrl) -> Result<Self, String> {
        let mut modes = Self { encrypted: None, socket: None };
        for (name, value) in &url.query {
            match (name.as_str(), value.as_str()) {
                ("sslmode", "verify-full") => modes.encrypted = Some(true),
                ("sslmode", "disable") => modes.encrypted = Some(false),
                // Those between either speak in the clear or with whoever answers.
                ("sslmode", _) => {
                    return Err(DIALECT.wrong(
                        "has an `sslmode` that proves nothing; write `verify-full`, with `tls: { ca: … }` for an authority of your own, or `disable`",
                    ));
                }
                ("host", folder) if folder.starts_with('/') => modes.socket = Some(folder.into()),
                ("host", _) => {
                    return Err(DIALECT.wrong(
                        "has a `host` that is no folder of a Unix socket; write a host before the path",
                    ));
                }
                _ => {
                    return Err(DIALECT.wrong(
                        "has a parameter that is not known here; it takes `sslmode`, and `host` for a Unix socket",
                    ));
                }
            }
        }
        if modes.socket.is_some() && modes.encrypted == Some(true) {
            return Err(DIALECT.wrong("names a Unix socket, over which no TLS is spoken; remove `sslmode`"));
        }
        Ok(modes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamKind;
    use crate::config::testing::{expect, sound};

    fn with(settings: &str) -> String {
        format!(
            "server: {{ tls: none }}\nupstreams:\n  db: {{ postgres: {{ {settings} }} }}\nroutes: [{{ path: /t, from: {{ upstream: db, channel: c }} }}]\n"
        )
    }

    fn one(settings: &str) -> Postgres {
        match sound(&with(settings)).upstreams.remove(0).kind {
            UpstreamKind::Postgres(postgres) => postgres,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn where_it_is_and_as_whom_to_enter() {
        let db = one("url: 'postgres://me:pw@db.internal/shop', ping_interval: 1s");
        assert_eq!(db.to_string(), "database shop at db.internal:5432");
        assert_eq!((db.user.as_str(), db.password.as_ref().map(Secret::expose)), ("me", Some("pw")));
        assert_eq!((db.tls, db.ping_interval.as_secs()), (Some(ClientTls::default()), 1));
        let db = one("url: 'postgresql://me@[::1]:6000?sslmode=disable', password: '${HIDDEN}'");
        assert_eq!((db.to_string().as_str(), db.tls), ("database me at [::1]:6000", None));
        assert_eq!(db.password.as_ref().map(Secret::expose), Some("s3cr3t-value"));
        let db = one("url: 'postgres://me@/shop?host=/run/postgresql'");
        assert_eq!(db.to_string(), "database shop at /run/postgresql/.s.PGSQL.5432");
        assert_eq!(db.tls, None);
    }

    #[test]
    fn what_is_wrong() {
        // `url` begins in column 21, its value in column 26.
        for (settings, column, text) in [
            ("url: 'mysql://h'", 26, "is written as `postgres://USER@HOST:PORT/DATABASE`"),
            ("url: 'postgres://h/db'", 26, "names no user"),
            ("url: 'postgres://me@/db'", 26, "names no server, or two"),
            ("url: 'postgres://me@h?host=/run'", 26, "names no server, or two"),
            ("url: 'postgres://me@h?sslmode=require'", 26, "has an `sslmode` that proves nothing"),
            ("url: 'postgres://me@h?host=x'", 26, "no folder of a Unix socket"),
            ("url: 'postgres://me@h?options=x'", 26, "takes `sslmode`, and `host`"),
            ("url: 'postgres://me@/?host=/a&sslmode=verify-full'", 26, "no TLS is spoken"),
            ("password: s3cr3t, url: 'postgres://me:hunter2@h'", 21, "the URL has a password already"),
            ("tls: {}, url: 'postgres://me@h?sslmode=disable'", 21, "`tls` has no use"),
            ("timeout: 1s", 19, "`postgres` lacks `url`"),
        ] {
            expect(&with(settings), &[(3, column, text)]);
        }
        expect(
            &with("").replace("{  }", ""),
            &[(3, 9, "`postgres` has no settings; it needs at least `url`")],
        );
    }
}
