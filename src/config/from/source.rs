//! What a key of `from` names: a channel, a topic, a path and the like. Checks what can be checked before the parameters of
//! the path are there.

use http::uri::PathAndQuery;

use super::super::model::{Qos, Source};
use super::super::subject;
use super::super::table;
use super::super::template::{Part, Template};
use super::super::templates;
use super::super::tree::{Entry, Node};
use super::super::upstreams::Kind;
use super::super::walk::{Scalar, Walk};

/// Reads the value of `entry`, which is `node`; `params` are those of the path.
pub(super) fn read(
    walk: &Walk<'_>,
    node: &Node,
    entry: &Entry,
    params: Option<&[String]>,
    kind: Option<Kind>,
) -> Option<Source> {
    if entry.key.text == "jetstream" {
        let scalar = walk.text(node, "the name of a stream, as text")?;
        subject::check_stream(walk, &scalar);
        return Some(Source::Jetstream { stream: (&*scalar.text).into(), subject: None });
    }
    let scalar = walk.text(node, "the name of what to read, as text")?;
    let template = templates::read(walk, &scalar, params, |_| Some(UNKNOWN_YET.to_owned()))?;
    if scalar.text.is_empty() {
        walk.problem(scalar.span(), format!("`{}` is empty; name what to read", entry.key.text));
    }
    match entry.key.text.as_str() {
        "channel" => {
            if kind == Some(Kind::Postgres) {
                check_channel(walk, &scalar, &template);
            }
            Some(Source::Channel(template))
        }
        "pattern" => Some(Source::Pattern(template)),
        "shard_channel" => Some(Source::ShardChannel(template)),
        "stream" => Some(Source::Stream(template)),
        "path" => {
            check_path(walk, &scalar, &template);
            Some(Source::Path(template))
        }
        "subject" => {
            if !scalar.text.is_empty() {
                subject::check_subject(walk, &scalar, &template);
            }
            Some(Source::Subject(template))
        }
        _ if kind == Some(Kind::Mqtt) => {
            subject::check_filter(walk, &scalar, &template);
            Some(Source::Filter { topic: template, qos: Qos::AtMostOnce })
        }
        _ => {
            check_topic(walk, &scalar, &template);
            Some(Source::Topic(template))
        }
    }
}

/// Why a field of a record cannot choose what is read, to follow its name.
pub(super) const UNKNOWN_YET: &str =
    "comes with a record, which is not there yet when the source is chosen; use a parameter of the path";

/// A channel of Postgres is an identifier, of which parameters of the path may make one that is too long: then there is no
/// such channel.
fn check_channel(walk: &Walk<'_>, scalar: &Scalar<'_>, template: &Template) {
    let literals = template.parts().iter().map(|part| match part {
        Part::Literal(text) => text.len(),
        Part::Field(_) => 0,
    });
    if literals.sum::<usize>() > table::IDENTIFIER {
        let text = "is longer than the 63 bytes that Postgres has for a name, and would be cut off; choose a shorter one";
        walk.problem(scalar.span(), format!("{} {text}", scalar.shown()));
    }
}

/// Kafka's own rule for the names of topics, as far as it can be checked without the parameters.
fn check_topic(walk: &Walk<'_>, scalar: &Scalar<'_>, template: &Template) {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let literals = template.parts().iter().filter_map(|part| match part {
        Part::Literal(text) => Some(text),
        Part::Field(_) => None,
    });
    if literals.into_iter().any(|text| text.len() > 249 || !text.chars().all(legal))
        || matches!(&*scalar.text, "." | "..")
    {
        let text = format!(
            "{} cannot name a topic; Kafka allows up to 249 letters, digits, `.`, `_` and `-`",
            scalar.shown()
        );
        walk.problem(scalar.span(), text);
    }
}

/// What an HTTP request can ask for, whatever the parameters are.
fn check_path(walk: &Walk<'_>, scalar: &Scalar<'_>, template: &Template) {
    let filled = template.fill(|_| Some("x".into()));
    let advice = match filled.parse::<PathAndQuery>() {
        _ if scalar.text.is_empty() => return,
        _ if !filled.starts_with('/') => "it begins with `/`",
        _ if filled.contains('#') => "leave out what begins with `#`, which no server sees",
        Ok(path) if path.path().split('/').any(|part| matches!(part, "." | "..")) => {
            "write it without `.` and `..`"
        }
        Ok(_) => return,
        Err(_) => "percent-encode what no URL holds",
    };
    walk.problem(scalar.span(), format!("{} is not the path of a server; {advice}", scalar.shown()));
}
