//! Expressions as values: `filter` and `data.map` of a route. What is wrong with one is told where it stands, and what it
//! speaks of is held against what the records of the source have, and what the clients of the route bring.

use std::sync::Arc;

use super::auth::{AuthKind, Providers};
use super::model::{Brought, Variable};
use super::records::{AllRecords, Records};
use super::suggest;
use super::template::Field;
use super::tree::Node;
use super::walk::Walk;
use crate::expression::{Expression, Names};

/// What the clients of a route bring, for an expression that may be another one for each of them.
pub(super) struct Clients<'c> {
    /// The providers of which one must know a client.
    auth: &'c [Arc<str>],
    /// Parameters of the query that carry credentials.
    credentials: Vec<&'c str>,
}

impl<'c> Clients<'c> {
    /// Those that prove who they are by some of these providers.
    pub fn of(auth: &'c [Arc<str>], providers: &'c Providers) -> Self {
        let named = providers.usable.iter().filter(|provider| auth.contains(&provider.name));
        let in_query = named.filter_map(|provider| match &provider.kind {
            AuthKind::Jwt(jwt) => jwt.query.as_deref(),
            _ => None,
        });
        Self { auth, credentials: in_query.collect() }
    }
}

/// Reads an expression; `params` are those of the path, missing where the path itself is in doubt, and `clients` those that it
/// is asked for, if it is asked for each.
pub(super) fn read(
    walk: &Walk<'_>,
    node: &Node,
    expected: &str,
    records: &AllRecords,
    params: Option<&[String]>,
    clients: Option<&Clients<'_>>,
) -> Option<Expression> {
    // A lone `true` or `false` is an expression, too.
    let scalar = walk.scalar(node, expected)?;
    match Expression::compile(&scalar.text, &Spoken { records, params, clients }) {
        Ok(expression) if clients.is_some() && !expression.is_condition() => {
            walk.problem(scalar.span(), NO_CONDITION);
            None
        }
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
    records: &'s AllRecords,
    params: Option<&'s [String]>,
    clients: Option<&'s Clients<'s>>,
}

impl Spoken<'_> {
    /// The records that have nothing of this name.
    fn lacking(&self, name: &str) -> Option<Records> {
        let field = match name {
            "topic" => Field::Topic,
            "stream" => Field::Stream,
            "key" => Field::Key,
            "headers" => Field::Header("".into()),
            "fields" => Field::Entry("".into()),
            _ => return None,
        };
        self.records.lacking(&field)
    }

    fn known(&self) -> Vec<&'static str> {
        let names = Variable::NAMES.into_iter().map(|(name, _)| name);
        names.filter(|name| self.lacking(name).is_none()).chain(["params"]).collect()
    }
}

impl Names for Spoken<'_> {
    fn variable(&self, name: &str) -> Result<usize, String> {
        let known = self.known();
        if let Some((_, variable)) = Variable::NAMES.iter().find(|(known, _)| *known == name) {
            return match self.lacking(name) {
                Some(records) => {
                    Err(format!("`{name}` is not in {records}; these have {}", suggest::list(&known, "and")))
                }
                None => Ok(*variable as usize),
            };
        }
        Err(match name {
            "query" if self.clients.is_some() => {
                "name one parameter of the query, such as `query.symbol`".to_owned()
            }
            "claims" if self.clients.is_some() => {
                "name one of the claims, such as `claims.tenant`".to_owned()
            }
            "query" | "claims" => format!(
                "`{name}` is another one for each client, and data is made once for all of them; name it in `filter`, or name `params` of the path"
            ),
            _ => {
                let brought = self.clients.map(|_| Brought::NAMES.map(|(name, _)| name));
                let known = known.into_iter().chain(brought.into_iter().flatten());
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

    fn mapping(&self, name: &str) -> Option<usize> {
        let known = Brought::NAMES.iter().find(|(known, _)| *known == name);
        known.filter(|_| self.clients.is_some()).map(|(_, brought)| *brought as usize)
    }

    fn member(&self, mapping: usize, name: &str) -> Result<(), String> {
        let Some(clients) = self.clients else { return Ok(()) };
        if mapping == Brought::Claims as usize {
            return match clients.auth {
                [] => Err("`claims` are of clients that prove who they are, and this route asks nobody to; add `auth`".to_owned()),
                _ => Ok(()),
            };
        }
        match OWN.contains(&name) || clients.credentials.contains(&name) {
            true => Err(format!("`{name}` in the query is not for filters to see; choose another name")),
            false => Ok(()),
        }
    }
}

const NO_CONDITION: &str = "this is neither true nor false, so that no event would pass; compare it with something, as in `event.total > 100`";

/// Parameters of the query that have a meaning, or carry a credential.
const OWN: [&str; 7] = ["access_token", "lastEventId", "limit", "probe", "renew", "since", "ticket"];

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
            ("r, channel: x", "event.a == query.b && 'b c' in query"),
        ] {
            let config = sound(&format!("{HEAD}  - {}\n", filter(from, &format!("\"{text}\""))));
            assert_eq!(config.routes[0].filter.as_ref().unwrap().shown(), text);
        }
    }

    #[test]
    fn filters_are_true_or_false() {
        for text in [
            "5",
            "'x'",
            "null",
            "[event.a]",
            "{'a': event.a}",
            "event.a + 1",
            "-event.a",
            "size(event.a)",
            "params.p",
            "event.a.map(b, b)",
            "event.a && 5",
            "!'x'",
            "event.a ? 1 : 2",
        ] {
            expect_route(
                &filter("r, channel: x", &format!("\"{text}\"")),
                64,
                "this is neither true nor false",
            );
        }
        for text in
            ["event.a", "true", "event.a ? event.b : false", "event.a.exists(b, b)", "event.a.contains('x')"]
        {
            sound(&format!("{HEAD}  - {}\n", filter("r, channel: x", &format!("\"{text}\""))));
        }
        sound(&format!("{HEAD}  - {{ path: /x, from: {{ upstream: t }}, data: {{ map: '5' }} }}\n"));
    }

    #[test]
    fn slips_are_told_with_what_to_write() {
        for (text, at, told) in [
            ("event.a = 1", 8, "`=` compares nothing in CEL; write `==`"),
            ("event.a == 1 and event.b == 2", 13, "write `&&` for `and`"),
            ("event.a == 1 or event.b == 2", 13, "write `||` for `or`"),
            ("not event.a", 0, "write `!` for `not`"),
            ("event.a == 1 & event.b", 13, "write `&&` for `&`"),
            ("event.a <> 1", 8, "write `!=` for `<>`"),
            ("event.a === 1", 8, "write `==` for `===`"),
            ("event.and == ' = ' or 1", 19, "write `||` for `or`"),
            ("event.a == 1)) + (", 12, "this is not an expression in CEL"),
        ] {
            expect_route(&filter("r, channel: x", &format!("\"{text}\"")), 65 + at, told);
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
            (
                "k, topic: xyz",
                "event.a in query",
                75,
                "name one parameter of the query, such as `query.symbol`",
            ),
            ("k, topic: xyz", "claims == 1", 64, "name one of the claims, such as `claims.tenant`"),
            ("k, topic: xyz", "'claims.sub == key'", 72, "this route asks nobody to; add `auth`"),
            ("k, topic: xyz", "event.a == query.since", 81, "`since` in the query is not for filters to see"),
            (
                "k, topic: xyz",
                "\"event.a == query['ticket']\"",
                82,
                "`ticket` in the query is not for filters",
            ),
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
    fn claims_are_of_routes_that_ask_who_it_is() {
        let route = |filter: &str| {
            format!(
                "{HEAD}  - {{ path: /x, from: {{ upstream: t }}, filter: \"{filter}\", auth: users }}\nauth: {{ users: {{ jwt: {{ secret: 'a secret of 32 bytes or more than that', query: sso }} }} }}\n"
            )
        };
        let config = sound(&route("event.a in claims.regions && claims['b c'] == query.b"));
        let named = config.routes[0].filter.as_ref().unwrap().client();
        assert_eq!(named.iter().map(|member| member.mapping).collect::<Vec<_>>(), [1, 1, 0]);
        expect(&route("query.sso == 'a'"), &[(8, 55, "`sso` in the query is not for filters to see")]);
        let data = "{ path: '/{p}', from: { upstream: r, channel: x }, data: { map: query.a } }";
        expect_route(data, 69, "`query` is another one for each client, and data is made once for all");
    }

    #[test]
    fn routes_of_a_topics_keys_have_no_parameters_in_them() {
        let text = "params.p == '1'";
        expect_route(&filter("k, topic: x, key: '{p}'", &format!("\"{text}\"")), 74, "share its events");
    }
}
