//! Expressions as values: `filter` and `data.map` of a route. What is wrong with one is told where it stands, and what it
//! speaks of is held against what the records of the source have.

use super::event::Records;
use super::model::Variable;
use super::suggest;
use super::template::Field;
use super::tree::Node;
use super::walk::Walk;
use crate::expression::{Expression, Names};

/// Reads an expression; `params` are those of the path, missing where the path itself is in doubt.
pub(super) fn read(
    walk: &Walk<'_>,
    node: &Node,
    expected: &str,
    records: Option<Records>,
    params: Option<&[String]>,
) -> Option<Expression> {
    // A lone `true` or `false` is an expression, too.
    let scalar = walk.scalar(node, expected)?;
    match Expression::compile(&scalar.text, &Spoken { records, params }) {
        Ok(expression) => Some(expression.shown_as(scalar.raw())),
        // What is wrong may quote the text, and the text may be what a variable holds.
        Err(_) if scalar.is_indirect() || walk.is_masked(node) => {
            walk.problem(scalar.span(), "this is not an expression in CEL that can be used here");
            None
        }
        Err(flaws) => {
            for flaw in flaws {
                walk.problem(walk.part(&scalar, flaw.at.start, flaw.at.len()), flaw.what);
            }
            None
        }
    }
}

/// What an expression of a route may speak of.
struct Spoken<'s> {
    records: Option<Records>,
    params: Option<&'s [String]>,
}

impl Spoken<'_> {
    fn refuses(&self, name: &str) -> bool {
        let field = match name {
            "topic" => Field::Topic,
            "stream" => Field::Stream,
            "key" => Field::Key,
            "headers" => Field::Header("".into()),
            "fields" => Field::Entry("".into()),
            _ => return false,
        };
        self.records.is_some_and(|records| records.refusal(&field).is_some())
    }

    fn known(&self) -> Vec<&'static str> {
        let names = Variable::NAMES.into_iter().map(|(name, _)| name);
        names.filter(|name| !self.refuses(name)).chain(["params"]).collect()
    }
}

impl Names for Spoken<'_> {
    fn variable(&self, name: &str) -> Result<usize, String> {
        let known = self.known();
        if let Some((_, variable)) = Variable::NAMES.iter().find(|(known, _)| *known == name) {
            return match self.records.filter(|_| self.refuses(name)) {
                Some(records) => {
                    Err(format!("`{name}` is not in {records}; these have {}", suggest::list(&known, "and")))
                }
                None => Ok(*variable as usize),
            };
        }
        Err(match name {
            "claims" | "query" => format!(
                "`{name}` is another one for each client, and this is done once for all of them, which is not supported yet; name `params` of the path, or decide who may listen in `allow`"
            ),
            _ => {
                let hint = suggest::hint(name, known, "it knows");
                format!("an expression knows nothing called `{name}`{hint}")
            }
        })
    }

    fn param(&self, name: &str) -> Result<(), String> {
        let Some(params) = self.params.filter(|params| !params.iter().any(|param| param == name)) else {
            return Ok(());
        };
        let hint = match params {
            [] => "; it has none".to_owned(),
            _ => suggest::hint(name, params.iter().map(String::as_str), "it has"),
        };
        Err(format!("the path has no parameter `{name}`{hint}"))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{HEAD, expect, expect_route, sound};

    fn filter(from: &str, filter: &str) -> String {
        format!("{{ path: '/{{p}}', from: {{ upstream: {from} }}, filter: {filter} }}")
    }

    #[test]
    fn what_filters_speak_of() {
        for (from, text) in [
            ("r, channel: x", "event.a > 1 && channel == params.p"),
            ("k, topic: x", "headers.a == key && topic == channel && timestamp > '2026'"),
            ("r, stream: x", "fields.a == stream"),
            ("t", "true"),
        ] {
            let config = sound(&format!("{HEAD}  - {}\n", filter(from, &format!("\"{text}\""))));
            assert_eq!(config.routes[0].filter.as_ref().unwrap().shown(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_told_where_it_stands() {
        // The value of `filter` begins in column 64.
        for (from, text, column, problem) in [
            ("r, channel: x", "event.a ==", 74, "this is not an expression in CEL"),
            (
                "r, channel: x",
                "evnt.a == 1",
                64,
                "an expression knows nothing called `evnt`; did you mean `event`?",
            ),
            (
                "r, channel: x",
                "1 == key",
                69,
                "`key` is not in the messages of a Redis channel; these have `event`, `channel`, `timestamp` and `params`",
            ),
            ("k, topic: xyz", "fields.a == ''", 64, "`fields` is not in the records of a `kafka` upstream"),
            ("k, topic: xyz", "params.q == ''", 71, "the path has no parameter `q`; it has `p`"),
            ("k, topic: xyz", "event.a == query.b", 75, "which is not supported yet; name `params`"),
            ("k, topic: xyz", "'claims.sub == key'", 65, "`claims` is another one for each client"),
            ("k, topic: xyz", "event.b.now() == 1", 72, "there is no function `now` here; there are size(x)"),
            (
                "k, topic: xyz",
                "[event.a]",
                64,
                "expected an expression such as `event.total > 100`, found a list",
            ),
            ("k, topic: xyz", "'${HIDDEN}('", 64, "this is not an expression in CEL that can be used here"),
        ] {
            expect_route(&filter(from, text), column, problem);
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_on_its_line() {
        let route = "  - path: /x
    from: { upstream: r, channel: x }
    filter: |
      event.a > 0 &&
      evnt.b == b'1'
";
        expect(
            &format!("{HEAD}{route}"),
            &[(12, 7, "nothing called `evnt`"), (12, 17, "bytes are not supported")],
        );
    }

    #[test]
    fn routes_of_a_topics_keys_have_no_parameters_in_them() {
        let text = "params.p == '1'";
        expect_route(&filter("k, topic: x, key: '{p}'", &format!("\"{text}\"")), 74, "share its events");
    }
}
