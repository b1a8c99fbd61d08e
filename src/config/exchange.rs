//! `exchange:` of a route's `from`: an exchange of RabbitMQ, and by what a queue of ssegate's own is bound to it.

use std::sync::Arc;

use super::amqp::SHORT_STRING;
use super::fields::Fields;
use super::mask;
use super::model::Source;
use super::template::{Part, Template};
use super::templates;
use super::tree::Node;
use super::walk::Walk;

/// Keys of `from` that say more of an exchange.
pub(super) const COMPANIONS: [&str; 2] = ["routing_key", "arguments"];

/// Reads `exchange` and its companions; `params` are those of the path.
pub(super) fn read(walk: &Walk<'_>, from: &Fields<'_>, params: Option<&[String]>) -> Option<Source> {
    let exchange = from.node("exchange").and_then(|node| read_name(walk, node, params));
    let key = from.node("routing_key").map(|node| read_name(walk, node, params));
    let entries =
        from.node("arguments").and_then(|node| walk.entries(node, "a mapping of headers to values"));
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for entry in entries.unwrap_or_default() {
        if entry.key.text.is_empty() || entry.key.text.len() > SHORT_STRING {
            let text =
                format!("{} is no header: its name has 1 to 255 bytes", mask::quotable(&entry.key.text));
            walk.problem(entry.key.span, text);
        }
        names.push(Arc::<str>::from(entry.key.text.as_str()));
        let value = walk.text(&entry.value, "a value, as text");
        values.extend(
            value.and_then(|value| templates::read(walk, &value, params, |_| Some(NO_RECORD.into()))),
        );
    }
    let routing_key = match key {
        Some(key) => key?,
        None => Template::parse("").ok()?,
    };
    let arguments: Vec<_> = names.into_iter().zip(values).collect();
    Some(Source::Exchange { exchange: exchange?, routing_key, arguments })
}

const NO_RECORD: &str = "comes with a message, which is not there yet when it is chosen what is read; use a parameter of the path";

fn read_name(walk: &Walk<'_>, node: &Node, params: Option<&[String]>) -> Option<Template> {
    let scalar = walk.text(node, "a name, as text")?;
    let template = templates::read(walk, &scalar, params, |_| Some(NO_RECORD.to_owned()))?;
    let literals = template.parts().iter().map(|part| match part {
        Part::Literal(text) => text.len(),
        Part::Field(_) => 0,
    });
    if literals.sum::<usize>() > SHORT_STRING {
        let text = format!(
            "{} is longer than the 255 bytes that AMQP has for it; choose a shorter one",
            scalar.shown()
        );
        walk.problem(scalar.span(), text);
    }
    Some(template)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{expect, sound};

    fn with(keys: &str) -> String {
        format!(
            "server: {{ tls: none }}\nupstreams: {{ mq: {{ amqp: {{ url: 'amqp://h' }} }} }}\nroutes: [{{ path: '/x/{{p}}', from: {{ upstream: mq, {keys} }} }}]\n"
        )
    }

    fn one(keys: &str) -> (String, String, Vec<(String, String)>) {
        match sound(&with(keys)).routes.remove(0).source {
            Source::Exchange { exchange, routing_key, arguments } => {
                let arguments = arguments.iter().map(|(name, value)| (name.to_string(), value.to_string()));
                (exchange.to_string(), routing_key.to_string(), arguments.collect())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn by_a_routing_key_or_by_headers() {
        assert_eq!(one("exchange: news"), ("news".into(), String::new(), vec![]));
        let (_, key, _) = one("exchange: events, routing_key: 'rooms.{p}.#'");
        assert_eq!(key, "rooms.{p}.#");
        let (_, _, arguments) = one("exchange: events, arguments: { x-match: all, room: '{p}' }");
        assert_eq!(arguments, [("x-match".into(), "all".into()), ("room".into(), "{p}".into())]);
    }

    #[test]
    fn what_is_wrong() {
        // What follows the upstream begins in column 50.
        let long = "x".repeat(256);
        for (keys, column, text) in [
            (format!("exchange: {long}"), 60, "longer than the 255 bytes"),
            (format!("exchange: e, routing_key: {long}"), 76, "longer than the 255 bytes"),
            ("exchange: e, routing_key: '{q}'".into(), 77, "the path has no parameter `q`"),
            ("exchange: e, arguments: { '': x }".into(), 76, "its name has 1 to 255 bytes"),
            ("exchange: e, stream: s".into(), 63, "this one has `exchange` already"),
            ("exchange: e, start: earliest".into(), 63, "an `exchange` has no `start`"),
            ("stream: s, routing_key: x".into(), 61, "`routing_key` says more of an `exchange`"),
            ("topic: a".into(), 50, "an `amqp` upstream has no `topic`"),
        ] {
            expect(&with(&keys), &[(3, column, text)]);
        }
    }
}
