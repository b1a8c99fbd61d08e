//! What librdkafka says went wrong, in words that help: which broker, what, and what to do about it. The same
//! trouble always gets the same words, without the times and places in code that librdkafka adds, so that it is
//! told as news once and not at each attempt.

use std::sync::LazyLock;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use regex::Regex;

/// Why an attempt at a broker failed, of librdkafka's own text.
pub(super) fn of_attempt(text: &str) -> String {
    let text =
        text.split_once("]: ").filter(|(thread, _)| thread.starts_with("[thrd:")).map_or(text, |(_, t)| t);
    let (text, state) = text.split_once(" (after ").unwrap_or((text, ""));
    let Some((broker, what)) = text.split_once(": ") else { return text.to_owned() };
    let broker = broker.split_once("://").map_or(broker, |(_, address)| address);
    let broker = broker.rsplit_once('/').map_or(broker, |(address, _)| address);
    let what = PLACE.replace_all(what, "");
    let what = CONNECT.replace(&what, "connecting failed");
    let fits = |needles: &[&str]| needles.is_empty() || needles.iter().any(|needle| what.contains(needle));
    let advice = ADVICE.iter().find(|(needles, during, _)| fits(needles) && state.contains(during));
    match advice {
        Some((.., Advice::Instead(words))) => format!("{broker}: {words}"),
        Some((.., Advice::Also(words))) => format!("{broker}: {what}; {words}"),
        None => format!("{broker}: {what}"),
    }
}

/// Why a question about a topic, or reading it, failed.
pub(super) fn of_topic(error: &KafkaError) -> String {
    use RDKafkaErrorCode::{
        OperationTimedOut, TopicAuthorizationFailed, UnknownPartition, UnknownTopic, UnknownTopicOrPartition,
    };
    match error.rdkafka_error_code() {
        Some(TopicAuthorizationFailed) => {
            "the broker's ACLs forbid it; allow the user `Read` on the topic".to_owned()
        }
        Some(UnknownTopic | UnknownTopicOrPartition | UnknownPartition) => {
            "there is no such topic; create it, or wait for it to be created".to_owned()
        }
        Some(OperationTimedOut) => "the broker did not answer in time".to_owned(),
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}

/// That a topic must not be read: one of `read`, since rdkafka does not tell which.
pub(super) fn of_forbidden<'t>(read: impl Iterator<Item = &'t str>) -> String {
    let mut names: Vec<&str> = read.take(NAMED + 1).collect();
    names.sort_unstable();
    let more = if names.len() > NAMED { ", …" } else { "" };
    names.truncate(NAMED);
    let topics = names.join(", ");
    format!("the broker's ACLs forbid reading; allow the user `Read` on the topic, one of: {topics}{more}")
}

/// Whether an error is about the consumer group, which ssegate names and never uses: it needs no coordinator, and
/// no ACL for the group.
pub(super) fn is_of_group(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        CoordinatorLoadInProgress, CoordinatorNotAvailable, GroupAuthorizationFailed, NotCoordinator,
    };
    matches!(
        error.rdkafka_error_code(),
        Some(GroupAuthorizationFailed | CoordinatorNotAvailable | CoordinatorLoadInProgress | NotCoordinator)
    )
}

/// The most topics named in one message.
const NAMED: usize = 8;

enum Advice {
    /// Says it all.
    Instead(&'static str),
    /// Follows what librdkafka says.
    Also(&'static str),
}

/// What to do, by what librdkafka's text holds (any of these) and by the state in which the link was; the first that
/// fits.
const ADVICE: &[(&[&str], &str, Advice)] = &[
    (
        &["certificate verify failed"],
        "",
        Advice::Instead(
            "the broker's certificate is not trusted, or is for another name; set `ssl.ca.location` to the PEM file of the authority that issued it",
        ),
    ),
    (
        &["alert bad certificate", "alert certificate required", "alert unknown ca", "unexpected message"],
        "",
        Advice::Instead(
            "the broker wants a client certificate that it trusts; set `ssl.certificate.location` and `ssl.key.location`",
        ),
    ),
    (
        &["closed by peer"],
        "state SSL_HANDSHAKE",
        Advice::Instead(
            "the broker ended the TLS handshake; it may speak no TLS there: check `security.protocol` and the port",
        ),
    ),
    (&["SASL"], "AUTH", Advice::Also("check `sasl.mechanism`, `sasl.username` and `sasl.password`")),
    (
        &[],
        "state APIVERSION_QUERY",
        Advice::Also("check `security.protocol`: the broker's listener may want TLS or SASL"),
    ),
];

// Where in OpenSSL's code.
static PLACE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\S+\.c:\d+:\S* error:[0-9A-F]+:"));
// Which of the host's addresses was tried changes from attempt to attempt.
static CONNECT: LazyLock<Regex> = LazyLock::new(|| pattern(r"^Connect to \S+ failed"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant, compiled by the tests")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts() {
        for (text, words) in [
            (
                "localhost:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT, 3 identical error(s) suppressed)",
                "localhost:9092: connecting failed: Connection refused",
            ),
            (
                "[thrd:ssl://k:1/bootstrap]: ssl://k:1/12: SSL handshake failed: ssl/statem/statem_clnt.c:2125:tls_post_process_server_certificate error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified, verify (after 6ms in state SSL_HANDSHAKE)",
                "k:1: the broker's certificate is not trusted, or is for another name; set `ssl.ca.location` to the PEM file of the authority that issued it",
            ),
            (
                "ssl://k:1/bootstrap: Receive failed: ssl/record/rec_layer_s3.c:918:ssl3_read_bytes error:0A000412:SSL routines::ssl/tls alert bad certificate: SSL alert number 42 (after 1ms in state APIVERSION_QUERY)",
                "k:1: the broker wants a client certificate that it trusts; set `ssl.certificate.location` and `ssl.key.location`",
            ),
            (
                "ssl://k:1/bootstrap: SSL handshake failed: a/b.c:9:f error:0A00010B:SSL routines::wrong version number (after 1ms in state SSL_HANDSHAKE)",
                "k:1: SSL handshake failed: SSL routines::wrong version number",
            ),
            (
                "ssl://k:1/bootstrap: Disconnected: SSL connection closed by peer (after 1ms in state SSL_HANDSHAKE)",
                "k:1: the broker ended the TLS handshake; it may speak no TLS there: check `security.protocol` and the port",
            ),
            (
                "ssl://k:1/1: Disconnected: SSL connection closed by peer (after 1ms in state UP)",
                "k:1: Disconnected: SSL connection closed by peer",
            ),
            (
                "sasl_ssl://k:1/bootstrap: SASL authentication error: Authentication failed (after 333ms in state AUTH_REQ)",
                "k:1: SASL authentication error: Authentication failed; check `sasl.mechanism`, `sasl.username` and `sasl.password`",
            ),
            (
                "k:1/bootstrap: Disconnected: connection closed by peer (after 31ms in state APIVERSION_QUERY)",
                "k:1: Disconnected: connection closed by peer; check `security.protocol`: the broker's listener may want TLS or SASL",
            ),
            ("1/1 brokers are down", "1/1 brokers are down"),
        ] {
            assert_eq!(of_attempt(text), words);
        }
    }

    #[test]
    fn topics_and_groups() {
        let error = |code| KafkaError::MetadataFetch(code);
        let forbidden = of_topic(&error(RDKafkaErrorCode::TopicAuthorizationFailed));
        assert!(forbidden.contains("allow the user `Read`"), "{forbidden}");
        assert!(of_forbidden(["b", "a"].into_iter()).ends_with("one of: a, b"));
        assert!(of_forbidden(["a"; 9].into_iter()).ends_with("a, a, …"));
        let other = of_topic(&error(RDKafkaErrorCode::LeaderNotAvailable));
        assert_eq!(other, "LeaderNotAvailable (Broker: Leader not available)");
        assert!(is_of_group(&error(RDKafkaErrorCode::GroupAuthorizationFailed)));
        assert!(!is_of_group(&error(RDKafkaErrorCode::TopicAuthorizationFailed)));
    }
}
