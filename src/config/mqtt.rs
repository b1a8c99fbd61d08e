//! `mqtt:`: one MQTT broker, and as whom to enter. Its URL is taken apart here, so that a mistake is told without the
//! password.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::client_tls;
use super::fields::{Bounds, Fields};
use super::hosts;
use super::keys;
use super::model::{Mqtt, MqttVersion, Secret};
use super::redis::TIME;
use super::tree::Node;
use super::walk::Walk;

pub(super) const KEEP_ALIVE: Bounds<Duration> =
    Bounds { default: Duration::from_secs(15), min: Duration::from_secs(1), max: Duration::from_mins(30) };

/// Reads the settings of one MQTT upstream.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Mqtt> {
    let fields = Fields::open(walk, node, keys::MQTT)?;
    let versions = [("5", MqttVersion::V5), ("3.1.1", MqttVersion::V3)];
    let version = fields.choice("version", &versions).unwrap_or(MqttVersion::V5);
    let keep_alive = fields.duration("keep_alive", &KEEP_ALIVE).unwrap_or(KEEP_ALIVE.default);
    let timeout = fields.duration("timeout", &TIME).unwrap_or(TIME.default);
    let tls = fields.node("tls").and_then(|node| client_tls::read(walk, node));
    let client_id = fields.node("client_id").map(|node| read_client_id(walk, node));
    let url = fields.required("url", "write it as `mqtt://HOST:PORT` or, with TLS, `mqtts://…`");
    let url = walk.scalar(url?, "the URL of an MQTT broker")?;
    let place = parse_url(&url.text).map_err(|what| walk.problem(url.span(), what)).ok()?;
    if let Some(entry) = fields.entry("tls")
        && !place.tls
    {
        let text = "`tls` is for `mqtts://`, and the URL does not say so; change its scheme, or remove `tls`";
        walk.problem(entry.key.span, text);
    }
    let client_id = match client_id {
        Some(given) => Some(given?),
        None => None,
    };
    let Place { tls: secure, host, port, user, password } = place;
    Some(Mqtt { secure, host, port, user, password, client_id, version, keep_alive, timeout, tls })
}

struct Place {
    tls: bool,
    host: String,
    port: u16,
    user: Option<String>,
    password: Option<Secret>,
}

/// Takes `mqtt://[user[:password]@]host[:port]` apart; errors quote nothing of it.
fn parse_url(url: &str) -> Result<Place, &'static str> {
    let (scheme, rest) =
        url.split_once("://").ok_or("an MQTT URL begins with `mqtt://` or, with TLS, `mqtts://`")?;
    let (tls, default) = match scheme {
        "mqtt" => (false, 1883),
        "mqtts" => (true, 8883),
        _ => return Err("the scheme of an MQTT URL is `mqtt` or, with TLS, `mqtts`"),
    };
    let (userinfo, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    if userinfo.contains(['/', '?', '#', '@']) {
        return Err(
            "the user or password of this MQTT URL holds one of `/ ? # @`; percent-encode it (`%2F %3F %23 %40`)",
        );
    }
    let place = place.strip_suffix('/').unwrap_or(place);
    let (host, port) = match hosts::host_and_port(place) {
        Some(found) => found,
        None if hosts::is_host(place) => (place, default),
        None => {
            return Err("this MQTT URL does not go on with a host, or a host and a port: `mqtt://HOST:PORT`");
        }
    };
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    Ok(Place {
        tls,
        host: host.trim_matches(['[', ']']).to_owned(),
        port,
        user: decoded(user)?,
        password: decoded(password)?.map(Secret::new),
    })
}

fn decoded(part: &str) -> Result<Option<String>, &'static str> {
    let text = percent_decode_str(part).decode_utf8();
    let text = text.map_err(|_| "the user or password of this MQTT URL is not UTF-8 once it is decoded")?;
    Ok(Some(text.into_owned()).filter(|text| !text.is_empty()))
}

fn read_client_id(walk: &Walk<'_>, node: &Node) -> Option<String> {
    let id = walk.text(node, "the id of a client, as text")?;
    if id.text.is_empty() || id.text.len() > 128 || id.text.chars().any(char::is_control) {
        walk.problem(id.span(), "the id of a client has 1 to 128 bytes and no control character");
        return None;
    }
    Some(id.text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamKind;
    use crate::config::testing::{expect, sound};

    fn with(keys: &str) -> String {
        format!(
            "server: {{ tls: none }}\nupstreams:\n  m:\n    mqtt: {{ {keys} }}\nroutes: [{{ path: /m, from: {{ upstream: m, topic: t }} }}]\n"
        )
    }

    fn mqtt(keys: &str) -> Mqtt {
        match sound(&with(keys)).upstreams.remove(0).kind {
            UpstreamKind::Mqtt(mqtt) => mqtt,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn settings() {
        let plain = mqtt("url: 'mqtt://h'");
        assert_eq!((plain.to_string().as_str(), plain.version), ("mqtt://h:1883", MqttVersion::V5));
        assert_eq!((plain.keep_alive.as_secs(), plain.timeout.as_secs()), (15, 5));
        let full = mqtt(
            "url: 'mqtts://us%3Aer:${REDIS_PASSWORD}@[::1]:1', version: 3.1.1, client_id: gate, keep_alive: 1m, tls: {}",
        );
        assert_eq!((full.to_string().as_str(), full.version), ("mqtts://[::1]:1", MqttVersion::V3));
        assert_eq!((full.user.as_deref(), full.client_id.as_deref()), (Some("us:er"), Some("gate")));
        assert_eq!(full.password.as_ref().unwrap().expose(), "hunter2");
        assert!(!format!("{full:?}").contains("hunter2"));
        assert_eq!(mqtt("url: 'mqtts://h'").to_string(), "mqtts://h:8883");
    }

    #[test]
    fn problems() {
        for (keys, column, text) in [
            ("", 11, "`mqtt` lacks `url`; write it as `mqtt://HOST:PORT`"),
            ("url: h", 18, "an MQTT URL begins with `mqtt://`"),
            ("url: 'tcp://h'", 18, "the scheme of an MQTT URL is `mqtt`"),
            ("url: 'mqtt://u:hunt/er2@h'", 18, "percent-encode it"),
            ("url: 'mqtt://u:hunter2@h:x'", 18, "does not go on with a host"),
            ("url: 'mqtt://h', version: 4", 39, "`version` cannot be `4`; write `5` or `3.1.1`"),
            ("url: 'mqtt://h', client_id: ''", 41, "has 1 to 128 bytes"),
            ("url: 'mqtt://h', tls: {}", 30, "`tls` is for `mqtts://`, and the URL does not say so"),
            ("url: 'mqtt://h', keep_alive: 1h", 42, "it must be from 1s to 30m"),
        ] {
            expect(&with(keys), &[(4, column, text)]);
        }
    }
}
