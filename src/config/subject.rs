//! Subjects of NATS and topic filters of MQTT: what of them can be checked before the parameters are there, and which
//! values of parameters would have a route read more than it says.

use super::model::Source;
use super::template::{Field, Part, Template};
use super::walk::{Scalar, Walk};

/// Reports what is no subject, wherever that does not depend on parameters.
pub(super) fn check_subject(walk: &Walk<'_>, scalar: &Scalar<'_>, template: &Template) {
    let text = any(template);
    let tokens: Vec<&str> = text.split('.').collect();
    let last = tokens.len() - 1;
    let sound = |(at, token): (usize, &&str)| match *token {
        "*" => true,
        ">" => at == last,
        token => !token.is_empty() && !token.contains(['*', '>']),
    };
    let why = if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        "has no blanks"
    } else if !tokens.iter().enumerate().all(sound) {
        "is tokens with a `.` between, of which one may be `*`, and the last `>`"
    } else {
        return;
    };
    walk.problem(scalar.span(), format!("{} is not a subject, which {why}", scalar.shown()));
}

/// Reports what is no topic filter, wherever that does not depend on parameters.
pub(super) fn check_filter(walk: &Walk<'_>, scalar: &Scalar<'_>, template: &Template) {
    let text = any(template);
    let levels: Vec<&str> = text.split('/').collect();
    let last = levels.len() - 1;
    let sound = |(at, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => at == last,
        level => !level.contains(['+', '#']),
    };
    let why = if levels[0] == "$share" {
        "is read for all clients, and shared subscriptions give each message to one; leave `$share/GROUP/` out"
    } else if text.chars().any(char::is_control) {
        "has no control characters"
    } else if !levels.iter().enumerate().all(sound) {
        "is levels with a `/` between, of which one may be `+`, and the last `#`"
    } else {
        return;
    };
    walk.problem(scalar.span(), format!("{} is not a topic filter, which {why}", scalar.shown()));
}

/// The name of a stream; parameters have no place in it.
pub(super) fn check_stream(walk: &Walk<'_>, scalar: &Scalar<'_>) {
    let legal = |c: char| !c.is_whitespace() && !c.is_control() && !".*>/\\{}".contains(c);
    if scalar.text.is_empty() || scalar.text.len() > 255 || !scalar.text.chars().all(legal) {
        let text = format!(
            "{} cannot name a stream of JetStream: no blanks and none of `. * > / \\`, and no parameters; \
             these stand in `subject`",
            scalar.shown()
        );
        walk.problem(scalar.span(), text);
    }
}

/// The template with something in the place of each parameter.
fn any(template: &Template) -> String {
    template.fill(|_| Some("x".into()))
}

impl Source {
    /// Whether a parameter of the path cannot have this value: it is to stand for one token of a subject, or one level
    /// of a topic, and for none that a server keeps for itself.
    pub fn refuses(&self, param: &str, value: &str) -> bool {
        let (template, forbidden): (_, &[char]) = match self {
            Self::Subject(subject) | Self::Jetstream { subject: Some(subject), .. } => {
                (subject, &['.', '*', '>'])
            }
            Self::Filter { topic, .. } => (topic, &['/', '+', '#']),
            // An exchange of the kind topic has no way to escape them.
            Self::Exchange { routing_key, .. } => (routing_key, &['*', '#']),
            _ => return false,
        };
        let is_it = |field: &Field| matches!(field, Field::Param(name) if **name == *param);
        if !template.fields().any(is_it) {
            return false;
        }
        if matches!(self, Self::Exchange { .. }) {
            return value.contains(forbidden);
        }
        let blank = !matches!(self, Self::Filter { .. }) && value.contains(char::is_whitespace);
        let first = matches!(template.parts().first(), Some(Part::Field(field)) if is_it(field));
        blank
            || value.contains(forbidden)
            || (first && (value.starts_with('$') || value.starts_with("_INBOX")))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Source;
    use crate::config::testing::{problems as told, sound};

    fn with(from: &str) -> String {
        format!(
            "server: {{ tls: none }}\nupstreams:\n  n: {{ nats: {{ servers: 'nats://h' }} }}\n  m: {{ mqtt: {{ url: 'mqtt://h' }} }}\nroutes:\n  - {{ path: '/{{a}}/{{b}}', from: {{ {from} }} }}\n"
        )
    }

    fn source(from: &str) -> Source {
        sound(&with(from)).routes.remove(0).source
    }

    #[test]
    fn sources() {
        assert!(matches!(source("upstream: n, subject: 'rooms.{a}.*.>'"), Source::Subject(_)));
        let stream = source("upstream: n, jetstream: ORDERS, start: earliest");
        assert!(matches!(stream, Source::Jetstream { stream, subject: None } if &*stream == "ORDERS"));
        let filtered = source("upstream: n, jetstream: ORDERS, subject: 'orders.{a}'");
        assert!(matches!(filtered, Source::Jetstream { subject: Some(_), .. }));
        assert!(matches!(source("upstream: m, topic: 'rooms/{a}/+/#', qos: 1"), Source::Filter { .. }));
    }

    #[test]
    fn problems() {
        for (from, column, text) in [
            ("upstream: n", 31, "it takes `subject` or `jetstream`"),
            ("upstream: n, subject: 'a..b'", 55, "`a..b` is not a subject, which is tokens"),
            ("upstream: n, subject: 'a.>.b'", 55, "is tokens with a `.` between"),
            ("upstream: n, subject: 'a{a}*'", 55, "is tokens with a `.` between"),
            ("upstream: n, subject: 'a b'", 55, "which has no blanks"),
            ("upstream: n, subject: ''", 55, "`subject` is empty"),
            (
                "upstream: n, subject: s, start: earliest",
                58,
                "a `subject` without `jetstream` has no `start`",
            ),
            ("upstream: n, jetstream: 'a.b'", 57, "cannot name a stream of JetStream"),
            ("upstream: n, jetstream: 'a{a}'", 57, "no parameters"),
            ("upstream: n, topic: t", 46, "a `nats` upstream has no `topic`"),
            ("upstream: m, subject: s", 46, "a `mqtt` upstream has no `subject`; it takes `topic`"),
            ("upstream: m, topic: 'a/#/b'", 53, "is not a topic filter, which is levels"),
            ("upstream: m, topic: 'a/{a}+'", 53, "is not a topic filter"),
            ("upstream: m, topic: '$$share/g/a'", 53, "shared subscriptions give each message to one"),
            ("upstream: m, topic: t, start: earliest", 56, "a `mqtt` upstream has no `start`"),
            ("upstream: m, topic: t, qos: 2", 61, "`qos` cannot be `2`; write `0` or `1`"),
            ("upstream: n, subject: s, qos: 1", 58, "`qos` is of the `topic` of an `mqtt` upstream"),
        ] {
            let found = told(&with(from));
            let fits = found.iter().any(|(_, at, what)| *at == column && what.contains(text));
            assert!(fits && found.len() == 1, "{from}: {found:?}");
        }
    }

    #[test]
    fn a_parameter_is_one_token_or_level_and_nothing_that_is_the_servers() {
        let subject = source("upstream: n, subject: '{a}.rooms.{b}'");
        let filter = source("upstream: m, topic: '{a}/rooms/{b}'");
        for value in ["a.b", "*", ">", "a b"] {
            assert!(subject.refuses("b", value), "{value}");
        }
        for value in ["a/b", "+", "#"] {
            assert!(filter.refuses("b", value), "{value}");
        }
        for value in ["$SYS", "$JS", "_INBOX"] {
            assert!(subject.refuses("a", value) && !subject.refuses("b", value), "{value}");
        }
        assert!(filter.refuses("a", "$SYS") && !filter.refuses("b", "a.b c"));
        assert!(!subject.refuses("c", "a.b"), "it is for something else");
        assert!(!subject.refuses("a", "a-b_c") && !filter.refuses("a", "a.b"));
    }
}
