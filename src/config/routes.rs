//! `routes:`: each entry into a complete [`Route`], with `defaults` applied. Those that name others come last.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::RegexBuilder;

use super::auth::{self, Providers};
use super::data;
use super::decode::{self, Decode};
use super::digest;
use super::event;
use super::expression::{self, Clients};
use super::fields::Fields;
use super::from::{self, From};
use super::hosts;
use super::keys;
use super::mask;
use super::model::{Also, Pattern, Projection, Proxy, Route, Wrap};
use super::multi::{self, Known, Others, What};
use super::paths::{self, RoutePath, Table};
use super::policies::{self, Policies};
use super::proxy;
use super::records::AllRecords;
use super::registries::Registries;
use super::suggest;
use super::tombstone;
use super::tree::{Node, Value};
use super::upstreams::Upstreams;
use super::walk::Walk;

/// What the routes are read against.
pub(super) struct Given<'g> {
    pub upstreams: &'g Upstreams,
    pub defaults: &'g Policies,
    pub auth: &'g Providers,
    /// What the names of control events begin with.
    pub prefix: &'g str,
    /// Bytes of an event that the process takes.
    pub max_event: usize,
    pub registries: &'g Registries,
}

/// Reads `routes`: those that are event streams, and those with `proxy`.
pub(super) fn read(walk: &Walk<'_>, node: &Node, given: &Given<'_>) -> (Vec<Route>, Vec<Proxy>) {
    let (mut routes, mut proxies) = (Vec::new(), Vec::new());
    let Value::List(nodes) = &node.value else {
        walk.wrong_type(node, "a list of routes");
        return (routes, proxies);
    };
    if nodes.is_empty() {
        walk.problem(node.span, "`routes` is empty; it needs at least one route");
    }
    let mut table = Table::new(&given.auth.ticket_paths);
    let (mut known, mut gathering) = (Vec::new(), Vec::new());
    for node in nodes {
        let Some(fields) = Fields::open(walk, node, keys::ROUTE) else { continue };
        let is_proxy = fields.entry("proxy").is_some();
        let rest = if is_proxy { paths::Rest::Allowed } else { paths::Rest::Refused };
        let place = read_place(walk, &fields, rest, &mut table);
        let named = place.0.as_ref().map(|path| (place.1.clone(), Arc::clone(&path.text)));
        let written = fields.entry("path").map(|entry| &entry.value.value);
        let what = if is_proxy {
            proxies.extend(read_proxy(walk, &fields, given, place));
            What::Proxy
        } else if fields.entry("multi").is_some() {
            gathering.push((routes.len(), fields, place));
            What::Multi
        } else {
            let route = read_route(walk, &fields, given, place);
            let at = route.as_ref().map(|_| routes.len());
            routes.extend(route);
            What::Stream(at)
        };
        known.extend(named.map(|(host, path)| {
            let is_shown = matches!(written, Some(Value::Scalar { text, .. }) if **text == *path);
            Known { host, path, is_shown, what }
        }));
    }
    let others = Others { known: &known, routes: &routes };
    let gathering: Vec<(usize, Route)> = gathering
        .into_iter()
        .filter_map(|(at, fields, place)| Some((at, multi::read(walk, &fields, place, given, &others)?)))
        .collect();
    // From the end, so that those before stay where they are.
    gathering.into_iter().rev().for_each(|(at, route)| routes.insert(at, route));
    (routes, proxies)
}

/// Path and host of a route, as far as they are sound.
type Place = (Option<RoutePath>, Option<Arc<str>>);

fn read_proxy(walk: &Walk<'_>, fields: &Fields<'_>, given: &Given<'_>, (path, host): Place) -> Option<Proxy> {
    let to = proxy::read(walk, fields);
    let auth = policies::read_auth(walk, fields, (given.defaults, given.auth));
    let allow = fields.node("allow").map(|node| auth::read_rule(walk, node));
    Some(Proxy { host, path: path?.text, to: to?, auth, allow: allow.flatten() })
}

/// Host and path, by which requests choose.
fn read_place(walk: &Walk<'_>, fields: &Fields<'_>, rest: paths::Rest, table: &mut Table) -> Place {
    let path = fields.required("path", "it is what clients ask for, such as `/events/news`");
    let path =
        path.and_then(|node| paths::read(walk, &walk.text(node, "a path such as `/events/news`")?, rest));
    let host = fields.node("host").map(|node| read_host(walk, node));
    if let (Some(path), Some(host)) =
        (&path, host.as_ref().map_or(Some(None), |host| host.as_ref().map(Some)))
    {
        table.add(walk, host, path);
    }
    (path, host.flatten())
}

fn read_route(walk: &Walk<'_>, fields: &Fields<'_>, given: &Given<'_>, (path, host): Place) -> Option<Route> {
    let names = path.as_ref().map(|path| path.params.as_slice());
    let from = fields.required("from", "it says what to read, such as `{ upstream: cache, channel: news }`");
    let from = from.map(|node| from::read(walk, node, names, given.upstreams)).unwrap_or_default();
    let records = &AllRecords::of(&from);
    let event = fields.node("event").and_then(|node| event::read(walk, node, records, names, given.prefix));
    let policies = policies::read(walk, fields, (given.defaults, given.auth), keys::REPLAY);
    let clients = Clients::of(&policies.auth, given.auth);
    let expected = "an expression such as `event.total > 100`";
    let read = |node| expression::read(walk, node, expected, records, names, Some(&clients));
    let filter = fields.node("filter").and_then(read);
    let data = fields.entry("data").zip(fields.node("data"));
    let data = data.map(|(entry, node)| data::read(walk, entry, node, records, names)).unwrap_or_default();
    let decode =
        fields.entry("decode").map(|entry| decode::read(walk, fields, entry, records, given.registries));
    let wraps =
        [("none", None), ("envelope", Some(Wrap::Envelope)), ("cloudevents", Some(Wrap::CloudEvents))];
    let wrap = fields.choice("wrap", &wraps).flatten();
    let tombstone = fields
        .entry("tombstone")
        .and_then(|entry| tombstone::read(walk, fields, entry, &from, names, given.prefix));
    let digests = digest::read(walk, fields, &from, records);
    let rate = digest::read_rate(walk, fields);
    let keyed = from.iter().any(From::is_keyed);
    policies::check_max_event(walk, fields, &policies, given.max_event);
    data::check_binary(walk, fields.entry("data").map(|entry| entry.key.span), &data, policies.binary);
    auth::check_cors(walk, fields, (&policies.auth, policies.cors.as_ref()), given.auth);
    let is_list = from.len() > 1;
    if let (Some(entry), Some(_), true) = (fields.entry("compress"), &policies.compress, keyed || is_list) {
        let what = if keyed { "those of a topic's keys" } else { "those of several sources" };
        let text = format!(
            "`compress` packs what many clients are sent at once, and {what} are each sent their own; leave it out"
        );
        walk.problem(entry.key.span, text);
    }
    if keyed {
        for (key, name) in [("event", &event), ("tombstone", &tombstone)] {
            if let (Some(entry), Some(name)) = (fields.entry(key), name)
                && name.has_params()
            {
                let text = "the routes of a topic's keys share its events, so that their names cannot hold parameters of the path; `{key}` is the record's own";
                walk.problem(entry.value.span, text);
            }
        }
        let map = data.projection.as_ref().and_then(Projection::expression);
        for (key, expression) in [("filter", filter.as_ref()), ("data", map)] {
            if let (Some(entry), Some(expression)) = (fields.entry(key), expression)
                && !expression.params().is_empty()
            {
                let text = "the routes of a topic's keys share its events, so that `params` differ for none of them; `key` is the record's own";
                walk.problem(entry.value.span, text);
            }
        }
    }
    let params = fields.node("params").map(|node| read_params(walk, node, path.as_ref())).unwrap_or_default();
    let allow = fields.node("allow").map(|node| auth::read_rule(walk, node));
    let ended = fields.flag("ended").unwrap_or(false);
    let mut sources = from.into_iter().zip(digests).map(|(from, digest)| from.sound(digest));
    let Also { upstream, source, start, digest } = sources.next()??;
    let also = sources.collect::<Option<_>>()?;
    Some(Route {
        host,
        path: path?.text,
        upstream,
        source,
        start,
        also,
        params,
        event,
        tombstone,
        filter,
        data: data.field,
        projection: data.projection,
        wrap,
        max_event: policies.max_event,
        binary: policies.binary,
        cors: policies.cors,
        compress: policies.compress.filter(|_| !keyed && !is_list),
        auth: policies.auth,
        allow: allow.flatten(),
        expiring: policies.expiring,
        max_age: policies.max_age,
        ended,
        keepalive: policies.keepalive,
        retry: policies.retry,
        linger: policies.linger,
        buffer: policies.buffer,
        history: policies.history,
        replay: policies.replay,
        idle_timeout: policies.idle_timeout,
        on_lag: policies.on_lag,
        limits: policies.limits,
        decode: decode.unwrap_or(Some(Decode::Text))?,
        digest,
        rate,
        multi: None,
    })
}

fn read_host(walk: &Walk<'_>, node: &Node) -> Option<Arc<str>> {
    let scalar = walk.text(node, "a host name such as `shop.example.com`")?;
    let host = scalar.text.to_ascii_lowercase();
    if hosts::is_host(&host) {
        return Some(host.into());
    }
    let advice = if host.contains("://") {
        "leave out the scheme"
    } else if host.contains('*') {
        "wildcards are not supported; leave `host` out to serve every host"
    } else if hosts::host_and_port(&host).is_some() {
        "leave out the port"
    } else if !host.is_ascii() {
        "write it in punycode (`xn--…`)"
    } else {
        "write a name such as `shop.example.com`"
    };
    walk.problem(scalar.span(), format!("{} is not a host; {advice}", scalar.shown()));
    None
}

fn read_params(walk: &Walk<'_>, node: &Node, path: Option<&RoutePath>) -> BTreeMap<Arc<str>, Pattern> {
    let mut patterns = BTreeMap::new();
    for entry in walk.entries(node, "a mapping of parameters to regular expressions").unwrap_or_default() {
        let name = &entry.key.text;
        if let Some(path) = path
            && !path.params.contains(name)
        {
            let known = path.params.iter().map(String::as_str);
            let hint = if path.params.is_empty() {
                "; it has none".to_owned()
            } else {
                suggest::hint(name, known, "it has")
            };
            walk.problem(entry.key.span, format!("the path has no parameter {}{hint}", mask::quotable(name)));
        }
        if let Some(pattern) = read_pattern(walk, &entry.value) {
            patterns.insert(name.as_str().into(), pattern);
        }
    }
    patterns
}

/// A regular expression that a whole value must match.
pub(super) fn read_pattern(walk: &Walk<'_>, node: &Node) -> Option<Pattern> {
    let scalar = walk.text(node, "a regular expression")?;
    // Alone first: an error should speak of what was written, not of what is put around it.
    let compiled = compile(&scalar.text).and_then(|_| compile(&format!("^(?:{})$", scalar.text)));
    match compiled {
        Ok(regex) => Some(Pattern(regex)),
        Err(why) => {
            let shown = if walk.is_masked(node) { "this value".to_owned() } else { scalar.shown() };
            walk.problem(scalar.span(), format!("{shown} is not a regular expression: {why}"));
            None
        }
    }
}

fn compile(pattern: &str) -> Result<regex::Regex, String> {
    RegexBuilder::new(pattern).size_limit(1 << 20).build().map_err(|error| match error {
        // The parser's report is of several lines and quotes the whole; the last says what is wrong.
        regex::Error::Syntax(report) => {
            let last = report.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
        regex::Error::CompiledTooBig(_) => "it is too large; use smaller repetitions".to_owned(),
        _ => "it cannot be compiled".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{HEAD, expect, expect_route, sound};

    fn one(keys: &str) -> Route {
        sound(&format!("{HEAD}  - {{ path: '/x/{{p}}', from: {{ upstream: t }}, {keys} }}\n"))
            .routes
            .remove(0)
    }

    #[test]
    fn hosts() {
        assert_eq!(one("host: Shop.Example.com").host.as_deref(), Some("shop.example.com"));
        assert_eq!(one("").host, None);
        for (host, text) in [
            ("https://a", "leave out the scheme"),
            ("a:80", "`a:80` is not a host; leave out the port"),
            ("'*.a'", "leave `host` out to serve every host"),
            ("é.example", "punycode"),
            ("a/b", "write a name such as"),
            ("''", "write a name such as"),
        ] {
            expect_route(&format!("{{ path: /x, from: {{ upstream: t }}, host: {host} }}"), 46, text);
        }
    }

    #[test]
    fn params_match_whole_values() {
        let route = one("params: { p: 'a|[b-d]{2}' }");
        let pattern = &route.params["p"];
        for (value, matches) in
            [("a", true), ("bc", true), ("ab", false), ("bcd", false), ("a\n", false), ("xa", false)]
        {
            assert_eq!(pattern.matches(value), matches, "{value:?}");
        }
    }

    #[test]
    fn params_that_are_wrong() {
        for (params, column, text) in [
            ("{ q: x }", 58, "the path has no parameter `q`; it has `p`"),
            ("{ P: x }", 58, "did you mean `p`?"),
            ("{ p: '[' }", 61, "`[` is not a regular expression: unclosed character class"),
            ("{ p: 'a)(b' }", 61, "`a)(b` is not a regular expression: unopened group"),
            ("{ p: '(?x)a#' }", 61, "is not a regular expression"),
            ("{ p: '.{9999}{9999}' }", 61, "it is too large"),
            ("{ p: '^a$' }", 64, "a lone `$` means nothing; write `$$` for a dollar"),
            ("{ p: '${HIDDEN}[' }", 61, "this value is not a regular expression: unclosed character class"),
            ("{ p: [a] }", 61, "expected a regular expression, found a list"),
            ("{ p: a, p: b }", 64, "the key `p` is written twice"),
            ("[p]", 56, "expected a mapping of parameters to regular expressions, found a list"),
        ] {
            expect_route(
                &format!("{{ path: '/xyz/{{p}}', from: {{ upstream: t }}, params: {params} }}"),
                column,
                text,
            );
        }
        expect_route(
            "{ path: /x, from: { upstream: t }, params: { p: x } }",
            50,
            "the path has no parameter `p`; it has none",
        );
    }

    #[test]
    fn the_list() {
        let head = HEAD.strip_suffix("routes:\n").unwrap();
        expect(head, &[(1, 1, "the file lacks `routes`; it needs at least one route")]);
        expect(HEAD, &[(7, 1, "`routes` has no value")]);
        expect(&format!("{head}routes: []\n"), &[(7, 9, "`routes` is empty; it needs at least one route")]);
        expect(
            &format!("{head}routes: {{ path: /x }}\n"),
            &[(7, 9, "expected a list of routes, found a mapping")],
        );
        expect(&format!("{HEAD}  -\n"), &[(8, 4, "expected a mapping, found nothing")]);
        expect_route(
            "{ path: /x, from: { upstream: t }, evnt: x }",
            40,
            "unknown key `evnt` in a route; did you mean `event`?",
        );
        expect_route("{ path: /x, from: { upstream: t }, <<: x }", 40, "merge keys are not supported");
    }
}
