//! `kafka:`: brokers, and librdkafka's properties but those that ssegate must own. Which properties there
//! are, and which values they take, librdkafka itself is asked.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::fields::Fields;
use super::hosts;
use super::interpolate;
use super::kafka_files;
use super::keys;
use super::mask;
use super::model::{Kafka, Secret};
use super::tree::{Entry, Node, Value};
use super::walk::Walk;

/// Reads the settings of one Kafka upstream.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Kafka> {
    let fields = Fields::open(walk, node, keys::KAFKA)?;
    let brokers = fields.required("brokers", "list them as `host:port`");
    let properties = fields.node("properties").map(|node| read_properties(walk, node)).unwrap_or_default();
    let nodes = walk.one_or_more(brokers?, "a broker such as `kafka-1:9092`")?;
    let brokers: Vec<String> = nodes.iter().filter_map(|node| read_broker(walk, node)).collect();
    Some(Kafka { brokers, properties })
}

fn read_broker(walk: &Walk<'_>, node: &Node) -> Option<String> {
    let scalar = walk.scalar(node, "a broker such as `kafka-1:9092`")?;
    if hosts::host_and_port(&scalar.text).is_some() {
        return Some(scalar.text.into_owned());
    }
    let advice = if scalar.text.contains("://") {
        "write `host:port` alone, and choose TLS or SASL with the property `security.protocol`"
    } else if scalar.text.contains(',') {
        "write several brokers as a list"
    } else if hosts::is_host(&scalar.text) {
        "add its port, such as `:9092`"
    } else {
        "write `host:port`, such as `kafka-1:9092`"
    };
    walk.problem(scalar.span(), format!("{} is not a broker; {advice}", scalar.shown()));
    None
}

fn read_properties(walk: &Walk<'_>, node: &Node) -> BTreeMap<String, Secret> {
    let entries = walk.entries(node, "a mapping of librdkafka's properties").unwrap_or_default();
    let properties: BTreeMap<_, _> = entries.iter().filter_map(|entry| read_property(walk, entry)).collect();
    if properties.len() == entries.len() {
        judge(walk, node, &entries, &properties);
    }
    properties
}

fn read_property(walk: &Walk<'_>, entry: &Entry) -> Option<(String, Secret)> {
    let name = entry.key.text.as_str();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'_';
    let why = if name.is_empty() || !name.bytes().all(plain) {
        Some(
            "is not the name of a property; these are lower-case words joined by dots, such as `security.protocol`",
        )
    } else {
        refusal(name)
    };
    if let Some(why) = why {
        walk.problem(entry.key.span, format!("{} {why}", mask::quotable(name)));
        return None;
    }
    if entry.value.value == Value::Null {
        walk.problem(entry.key.span, format!("`{name}` has no value; give it one or remove the property"));
        return None;
    }
    if kafka_files::is_path(name) {
        return Some((name.to_owned(), Secret::new(kafka_files::read(walk, &entry.value, name)?)));
    }
    let value = walk.scalar(&entry.value, "a value: text, a number, `true` or `false`")?;
    if !is_known(name) {
        let advice = "is no property of librdkafka; its CONFIGURATION.md lists them all";
        walk.problem(entry.key.span, format!("{} {advice}", mask::quotable(name)));
        return None;
    }
    if name == "group.id" && value.text.is_empty() {
        walk.problem(
            value.span(),
            "`group.id` cannot be empty: librdkafka reads nothing without one; remove it for `ssegate`",
        );
        return None;
    }
    if ClientConfig::new().set(name, &*value.text).create_native_config().is_err() {
        let shown = if mask::names_secret(name) { "this value".to_owned() } else { value.shown() };
        let advice = "librdkafka's CONFIGURATION.md tells which values it takes";
        walk.problem(value.span(), format!("{shown} is no value of `{name}`; {advice}"));
        return None;
    }
    Some((name.to_owned(), Secret::new(value.text)))
}

/// Whether librdkafka has a property of this name.
pub(super) fn is_known(name: &str) -> bool {
    let made = ClientConfig::new().set(name, "").create_native_config();
    !matches!(made, Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)))
}

/// Properties that are sound one by one can make no sense together, and what files hold is seen only now.
fn judge(walk: &Walk<'_>, node: &Node, entries: &[&Entry], properties: &BTreeMap<String, Secret>) {
    let mut config = ClientConfig::new();
    for (name, value) in properties {
        config.set(name, value.expose());
    }
    // Without brokers it connects to nobody.
    if let Err(error) = config.create::<BaseConsumer>() {
        let mut why = match error {
            KafkaError::ClientCreation(why) => why,
            other => other.to_string(),
        };
        if why.contains("GSSAPI") {
            why = "Kerberos is not built in; set `sasl.mechanism` to SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN"
                .to_owned();
        }
        for entry in entries.iter().filter(|entry| is_hidden(entry)) {
            let value = properties.get(&entry.key.text).map_or("", Secret::expose);
            why = if value.is_empty() { why } else { why.replace(value, "…") };
        }
        walk.problem(node.span, format!("librdkafka does not take these properties: {why}"));
    }
}

/// Whether a value is never quoted.
fn is_hidden(entry: &Entry) -> bool {
    let indirect = matches!(&entry.value.value, Value::Scalar { text, .. } if interpolate::is_indirect(text));
    indirect || mask::names_secret(&entry.key.text)
}

/// Why a property cannot be set, to follow its name.
fn refusal(name: &str) -> Option<&'static str> {
    let owned = OWNED.iter().find(|(names, _)| names.contains(&name));
    owned.map(|(_, why)| *why).or(is_callback(name).then_some("is set by programs only; remove it"))
}

/// Properties whose values are no text.
fn is_callback(name: &str) -> bool {
    name.ends_with("_cb") || OBJECTS.contains(&name)
}

const OBJECTS: &[&str] = &[
    "opaque",
    "default_topic_conf",
    "interceptors",
    "msg_order_cmp",
    "ssl_ca",
    "ssl_certificate",
    "ssl_engine_callback_data",
    "ssl_key",
];

/// Properties that ssegate sets itself, or that would break what it promises.
const OWNED: &[(&[&str], &str)] = &[
    (
        &["bootstrap.servers", "metadata.broker.list", "test.mock.num.brokers"],
        "is not set here; use `brokers`",
    ),
    (
        &[
            "enable.auto.commit",
            "auto.commit.enable",
            "auto.commit.interval.ms",
            "enable.auto.offset.store",
            "offset.store.method",
            "offset.store.path",
            "offset.store.sync.interval.ms",
        ],
        "cannot be set: ssegate commits no offsets, each client's place is in its event id; remove it",
    ),
    (
        &["auto.offset.reset"],
        "cannot be set: it would skip lost records silently, where ssegate tells clients of a gap; remove it",
    ),
    (
        &["enable.partition.eof"],
        "cannot be set: ssegate needs it to know when history has been read; remove it",
    ),
    (
        &[
            "group.instance.id",
            "group.protocol",
            "group.protocol.type",
            "group.remote.assignor",
            "partition.assignment.strategy",
        ],
        "cannot be set: ssegate reads every partition by itself, a consumer group would share them out; remove it",
    ),
    (
        &["allow.auto.create.topics"],
        "cannot be set: a client could then create topics by asking for them; create topics at the broker and remove it",
    ),
    (
        &["plugin.library.paths", "log.queue", "enabled_events", "internal.termination.signal"],
        "cannot be set: it changes how ssegate itself works with librdkafka; remove it",
    ),
];

#[cfg(test)]
mod tests {
    use crate::config::UpstreamKind;
    use crate::config::testing::{expect, sound};

    fn with(keys: &str) -> String {
        format!(
            "server: {{ tls: none }}\nupstreams:\n  k:\n    kafka:\n{keys}routes: [{{ path: /k, from: {{ upstream: k, topic: t }} }}]\n"
        )
    }

    fn properties(lines: &str) -> String {
        with(&format!("      brokers: a:1\n      properties:\n{lines}"))
    }

    #[test]
    fn settings() {
        let text = properties(
            "        sasl.password: ${KAFKA_PASSWORD}\n        check.crcs: true\n        client.rack: 'true'\n        fetch.wait.max.ms: 10\n",
        );
        let UpstreamKind::Kafka(kafka) = sound(&text).upstreams.remove(0).kind else { panic!("{text}") };
        assert_eq!(kafka.brokers, ["a:1"]);
        let values: Vec<(&str, &str)> =
            kafka.properties.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        let expected = [
            ("check.crcs", "true"),
            ("client.rack", "true"),
            ("fetch.wait.max.ms", "10"),
            ("sasl.password", "hunter2"),
        ];
        assert_eq!(values, expected);
        assert!(!format!("{kafka:?}").contains("hunter2"));
        sound(&with("      brokers: ['kafka-1:9092', '[::1]:9092', '10.0.0.1:${PORT}']\n"));
    }

    #[test]
    fn brokers() {
        for (value, column, text) in [
            ("kafka-1", 16, "`kafka-1` is not a broker; add its port, such as `:9092`"),
            ("a:1,b:2", 16, "write several brokers as a list"),
            ("'SSL://a:1'", 16, "`security.protocol`"),
            ("a:0", 16, "write `host:port`, such as"),
            ("'${HIDDEN}:1x'", 16, "this value is not a broker"),
            ("[]", 16, "this list is empty; it needs a broker"),
            ("[a:1, {b: 2}]", 22, "expected a broker such as `kafka-1:9092`, found a mapping"),
        ] {
            expect(&with(&format!("      brokers: {value}\n")), &[(5, column, text)]);
        }
        expect(
            &with("      properties: {}\n"),
            &[(5, 7, "`kafka` lacks `brokers`; list them as `host:port`")],
        );
    }

    #[test]
    fn properties_that_ssegate_owns() {
        for (name, text) in [
            ("bootstrap.servers", "is not set here; use `brokers`"),
            ("metadata.broker.list", "is not set here; use `brokers`"),
            ("enable.auto.commit", "cannot be set: ssegate commits no offsets"),
            ("enable.auto.offset.store", "cannot be set: ssegate commits no offsets"),
            ("auto.offset.reset", "cannot be set: it would skip lost records silently"),
            ("enable.partition.eof", "cannot be set: ssegate needs it to know"),
            ("group.instance.id", "cannot be set: ssegate reads every partition by itself"),
            ("partition.assignment.strategy", "cannot be set: ssegate reads every partition by itself"),
            ("group.protocol", "cannot be set: ssegate reads every partition by itself"),
            ("allow.auto.create.topics", "cannot be set: a client could then create topics"),
            ("plugin.library.paths", "cannot be set: it changes how ssegate itself works"),
            ("test.mock.num.brokers", "is not set here; use `brokers`"),
            ("rebalance_cb", "is set by programs only"),
            ("ssl_key", "is set by programs only"),
            ("opaque", "is set by programs only"),
            ("Security Protocol", "is not the name of a property"),
        ] {
            let text = format!("`{name}` {text}");
            expect(&properties(&format!("        {name}: x\n")), &[(7, 9, &text)]);
        }
    }

    #[test]
    fn what_librdkafka_does_not_know() {
        expect(
            &properties("        security.protocl: SSL\n        fetch.wait.max.ms: soon\n"),
            &[
                (7, 9, "`security.protocl` is no property of librdkafka"),
                (8, 28, "`soon` is no value of `fetch.wait.max.ms`"),
            ],
        );
        expect(&properties("        group.id: ''\n"), &[(7, 19, "`group.id` cannot be empty")]);
    }

    #[test]
    fn what_makes_no_sense_together() {
        for (lines, text) in [
            ("        security.protocol: SASL_SSL\n", "Kerberos is not built in; set `sasl.mechanism` to"),
            (
                "        security.protocol: SASL_SSL\n        sasl.mechanism: ${HIDDEN}\n",
                "take these properties: Unsupported SASL mechanism: …",
            ),
            (
                "        security.protocol: SSL\n        ssl.ca.pem: hunter2\n",
                "failed to read certificate #0 from ssl.ca.pem",
            ),
        ] {
            expect(&properties(lines), &[(7, 9, text)]);
        }
    }

    #[test]
    fn secrets_are_not_shown_however_they_are_written() {
        // A NUL is what librdkafka takes nowhere.
        let text = properties("        sasl.password: \"hunter2\\0\"\n");
        expect(&text, &[(7, 24, "this value is no value of `sasl.password`")]);
        for name in ["sasl.pasword", "sasl.psswd", "saslpassword", "ssl.key.pwd", "sasl.credentials"] {
            let text = properties(&format!("        {name}: hunter2\n"));
            expect(&text, &[(7, 9, &format!("`{name}` is no property of librdkafka"))]);
        }
    }

    #[test]
    fn properties_of_the_wrong_shape() {
        expect(
            &with("      brokers: a:1\n      properties: [a]\n"),
            &[(6, 19, "expected a mapping of librdkafka's properties, found a list")],
        );
        expect(
            &properties("        debug: [a]\n"),
            &[(7, 16, "expected a value: text, a number, `true` or `false`, found a list")],
        );
        expect(&properties("        debug:\n"), &[(7, 9, "`debug` has no value")]);
        expect(
            &properties("        debug: all\n        debug: msg\n"),
            &[(8, 9, "the key `debug` is written twice")],
        );
        expect(&properties("        sasl: { password: hunter2 }\n"), &[(7, 15, "found a mapping")]);
        expect(&properties("        sasl.password: [hunter2]\n"), &[(7, 24, "found a list")]);
        expect(
            &properties("        sasl.password:hunter2:\n"),
            &[(7, 9, "`sasl.password:…` is not the name of a property")],
        );
    }
}
