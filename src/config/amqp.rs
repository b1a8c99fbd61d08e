//! `amqp:`: one virtual host of one RabbitMQ.

use std::fmt;
use std::time::Duration;

use super::client_tls;
use super::fields::Fields;
use super::keys;
use super::model::{ClientTls, Secret};
use super::redis::TIME;
use super::service_url::{Dialect, address};
use super::tree::Node;
use super::walk::Walk;

/// A RabbitMQ, and as whom to enter. What it displays is neither user nor password.
#[derive(Debug, Clone, PartialEq)]
pub struct Amqp {
    /// A host name or address, IPv6 without its brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The virtual host; `/` by default.
    pub vhost: String,
    /// The user; `guest` by default, as of AMQP.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// `tls`: whom to trust and what to show, where that is not the usual. `None` for `amqp://`.
    pub tls: Option<ClientTls>,
    /// `ping_interval`: how often the link is tried. Default 5 s, 100 ms to 5 min.
    pub ping_interval: Duration,
    /// `timeout`: for connecting, and for an answer. Default 5 s, 100 ms to 5 min.
    pub timeout: Duration,
}

impl fmt::Display for Amqp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virtual host {} at {}", self.vhost, address(&self.host, self.port))
    }
}

const DIALECT: Dialect = Dialect {
    name: "RabbitMQ",
    schemes: &[("amqp", 5672), ("amqps", 5671)],
    form: "`amqp://USER:PASSWORD@HOST:PORT/VHOST` or, with TLS, `amqps://…`",
};

/// The most bytes of the names that AMQP has: of exchanges and queues, and routing keys.
pub(super) const SHORT_STRING: usize = 255;

/// Reads the settings of one RabbitMQ upstream.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Amqp> {
    let fields = Fields::open(walk, node, keys::AMQP)?;
    let ping_interval = fields.duration("ping_interval", &TIME).unwrap_or(TIME.default);
    let timeout = fields.duration("timeout", &TIME).unwrap_or(TIME.default);
    let tls = fields.node("tls").and_then(|node| client_tls::read(walk, node));
    let url = fields
        .required("url", "write it as `amqp://USER:PASSWORD@HOST:PORT/VHOST` or, with TLS, `amqps://…`")?;
    let scalar = walk.scalar(url, "the URL of a RabbitMQ")?;
    let problem = |what: String| walk.problem(scalar.span(), what);
    let url = DIALECT.parse(&scalar.text).map_err(problem).ok()?;
    if !url.query.is_empty() {
        problem(DIALECT.wrong("takes no parameters here; remove the `?` and what follows it"));
    }
    let encrypted = url.scheme == "amqps";
    if let (Some(entry), false) = (fields.entry("tls"), encrypted) {
        let text = "`tls` is for `amqps://`, and the URL does not say so; change its scheme, or remove `tls`";
        walk.problem(entry.key.span, text);
    }
    let Some(host) = url.host else {
        problem(DIALECT.wrong("names no host; write it before the path"));
        return None;
    };
    Some(Amqp {
        host,
        port: url.port,
        // As in RabbitMQ's own clients: without a path the default one, and with a slash alone that is called "".
        vhost: url.path.filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned()),
        user: url.user.unwrap_or_else(|| GUEST.to_owned()),
        password: url.password.unwrap_or_else(|| Secret::new(GUEST)),
        tls: encrypted.then(|| tls.unwrap_or_default()),
        ping_interval,
        timeout,
    })
}

/// Who enters where nobody is named; RabbitMQ lets in that user from its own machine alone.
const GUEST: &str = "guest";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamKind;
    use crate::config::testing::{expect, sound};

    fn with(settings: &str) -> String {
        format!(
            "server: {{ tls: none }}\nupstreams:\n  mq: {{ amqp: {{ {settings} }} }}\nroutes: [{{ path: /t, from: {{ upstream: mq, exchange: e }} }}]\n"
        )
    }

    fn one(settings: &str) -> Amqp {
        match sound(&with(settings)).upstreams.remove(0).kind {
            UpstreamKind::Amqp(amqp) => amqp,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn where_it_is_and_as_whom_to_enter() {
        let mq = one("url: 'amqps://me:p%2Fw@mq.internal/shop', timeout: 1s");
        assert_eq!(mq.to_string(), "virtual host shop at mq.internal:5671");
        assert_eq!((mq.user.as_str(), mq.password.expose()), ("me", "p/w"));
        assert_eq!((mq.tls, mq.timeout.as_secs()), (Some(ClientTls::default()), 1));
        let mq = one("url: 'amqp://[::1]:1'");
        assert_eq!((mq.to_string().as_str(), mq.tls), ("virtual host / at [::1]:1", None));
        assert_eq!((mq.user.as_str(), mq.password.expose()), ("guest", "guest"));
        assert_eq!(one("url: 'amqp://h/%2F'").vhost, "/");
    }

    #[test]
    fn what_is_wrong() {
        // `url` begins in column 17, its value in column 22.
        for (settings, column, text) in [
            ("url: 'http://h'", 22, "is written as `amqp://USER:PASSWORD@HOST:PORT/VHOST`"),
            ("url: 'amqp:///v'", 22, "names no host"),
            ("url: 'amqp://h?heartbeat=1'", 22, "takes no parameters"),
            ("tls: {}, url: 'amqp://h'", 17, "`tls` is for `amqps://`"),
            ("timeout: 1s", 15, "`amqp` lacks `url`"),
        ] {
            expect(&with(settings), &[(3, column, text)]);
        }
    }
}
