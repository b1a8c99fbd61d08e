//! Route paths: their syntax, their parameters, and whether two of them can be told apart. The
//! router that serves them has the last word, by being asked.

use std::collections::HashMap;
use std::sync::Arc;

use super::interpolate::is_name;
use super::place::Span;
use super::walk::{Scalar, Walk};

/// A path that may be served.
#[derive(Debug)]
pub(super) struct RoutePath {
    /// The path in the router's syntax.
    pub text: Arc<str>,
    /// The names of its parameters.
    pub params: Vec<String>,
    /// Where it stands.
    pub span: Span,
}

/// Names that records give a meaning to in templates.
const RECORD_FIELDS: [&str; 4] = ["channel", "topic", "key", "stream"];

const LONGEST: usize = 1024;

/// Whether the last segment may be `{*name}`, which stands for any rest of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Allowed,
    Refused,
}

/// Reads a path, reporting every fault of it.
pub(super) fn read(walk: &Walk<'_>, scalar: &Scalar<'_>, rest: Rest) -> Option<RoutePath> {
    let text = &*scalar.text;
    let span = scalar.span();
    if !text.starts_with('/') {
        walk.problem(span, format!("{} is not a path; it must start with `/`", scalar.shown()));
        return None;
    }
    if text.len() > LONGEST {
        walk.problem(span, format!("this path is longer than {LONGEST} bytes; shorten it"));
        return None;
    }
    let mut params: Vec<String> = Vec::new();
    let mut sound = true;
    let mut at = 1;
    for segment in text[1..].split('/') {
        let place = walk.part(scalar, at, segment.len().max(1));
        at += segment.len() + 1;
        if rest == Rest::Allowed && at > text.len() && is_rest(segment) {
            continue;
        }
        match read_segment(segment) {
            Ok(Some(name)) if params.iter().any(|known| known == name) => {
                sound = false;
                walk.problem(
                    place,
                    format!("the parameter `{name}` stands in this path twice; rename one of them"),
                );
            }
            Ok(name) => params.extend(name.map(str::to_owned)),
            Err(what) => {
                sound = false;
                walk.problem(place, what);
            }
        }
    }
    sound.then(|| RoutePath { text: text.into(), params, span })
}

/// `{*name}`
fn is_rest(segment: &str) -> bool {
    let name = segment.strip_prefix("{*").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(is_name)
}

/// The parameter of a segment, if it has one: `{name}`, with literal text before or after it.
fn read_segment(segment: &str) -> Result<Option<&str>, String> {
    let (before, name, after) = match segment.split_once('{') {
        None => (segment, None, ""),
        Some((before, rest)) => {
            let (name, after) = rest
                .split_once('}')
                .ok_or("`{` has no `}` in this segment; a parameter is written `{name}`")?;
            (before, Some(name), after)
        }
    };
    if after.contains('{') {
        return Err("a segment holds one parameter at most; put a `/` between them".to_owned());
    }
    if before.contains('}') || after.contains('}') {
        return Err("`}` has no `{` in this segment; a parameter is written `{name}`".to_owned());
    }
    check_literal(before).and_then(|()| check_literal(after))?;
    if name.is_none() && matches!(segment, "." | "..") {
        return Err(format!("`{segment}` never reaches a server, browsers resolve it; leave it out"));
    }
    name.map_or(Ok(()), check_param)?;
    Ok(name)
}

/// RFC 3986 3.3: what a path may hold as it stands on the wire, which is what is matched.
fn check_literal(text: &str) -> Result<(), String> {
    let pchar = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%".contains(c);
    match text.chars().find(|c| !pchar(*c)) {
        None => Ok(()),
        Some(c @ ('?' | '#')) => Err(format!("a path ends before `{c}`; remove it and what follows")),
        Some(c) => Err(format!("a path cannot hold `{}`; write it percent-encoded", c.escape_debug())),
    }
}

fn check_param(name: &str) -> Result<(), String> {
    if name.starts_with('*') {
        return Err(
            "a parameter that takes several segments ends the path of a route with `proxy`, such as `/{*rest}`; name each segment, such as `{a}/{b}`"
                .to_owned(),
        );
    }
    if RECORD_FIELDS.contains(&name) {
        return Err(format!(
            "`{{{name}}}` means a field of the record in templates; name the parameter otherwise, such as `{{{name}_name}}`"
        ));
    }
    if !is_name(name) {
        return Err(
            "the name of a parameter is made of letters, digits and `_`, and does not start with a digit"
                .to_owned(),
        );
    }
    Ok(())
}

/// The routes so far, by host: what a new one must be told apart from.
#[derive(Default)]
pub(super) struct Table {
    hosts: HashMap<Option<Arc<str>>, Paths>,
    /// Paths that answer for every host, before any route does.
    reserved: Vec<(Arc<str>, Span)>,
}

#[derive(Default)]
struct Paths {
    router: matchit::Router<()>,
    taken: HashMap<Arc<str>, Span>,
}

impl Table {
    /// No routes yet, and paths that are none's.
    pub fn new(reserved: &[(Arc<str>, Span)]) -> Self {
        Self { reserved: reserved.to_vec(), ..Self::default() }
    }

    /// Adds a route, reporting a path that is there already or that requests could not choose between.
    pub fn add(&mut self, walk: &Walk<'_>, host: Option<&Arc<str>>, path: &RoutePath) {
        if let Some((_, taken)) = self.reserved.iter().find(|(reserved, _)| *reserved == path.text) {
            let text = "tickets are asked for at this path, on every host, so that nothing would reach the route; change one of them";
            walk.conflict(path.span, text, *taken, "the path of the tickets");
            return;
        }
        let paths = self.hosts.entry(host.cloned()).or_default();
        if let Some(earlier) = paths.taken.get(&path.text) {
            let text = "another route has this host and path already; change one of them or remove it";
            walk.conflict(path.span, text, *earlier, "the other route");
            return;
        }
        match paths.router.insert(&*path.text, ()) {
            Ok(()) => {
                paths.taken.insert(path.text.clone(), path.span);
            }
            Err(error) => match paths.rival(&path.text, &error) {
                Some(rival) => {
                    let text = "a request could match this path and that of another route equally; make a fixed part differ, or give one a `host`";
                    walk.conflict(path.span, text, rival, "the other route");
                }
                None => walk.problem(path.span, format!("the router cannot tell this path apart: {error}")),
            },
        }
    }
}

impl Paths {
    /// Where the route stands that the router named, or that alone is enough for a refusal.
    fn rival(&self, path: &str, error: &matchit::InsertError) -> Option<Span> {
        let excludes = |other: &str| {
            let mut pair = matchit::Router::new();
            pair.insert(other, ()).is_ok() && pair.insert(path, ()).is_err()
        };
        // The router's own idea of the culprit is right in the common cases only.
        if let matchit::InsertError::Conflict { with } = error
            && let Some(span) = self.taken.get(with.as_str())
            && excludes(with)
        {
            return Some(*span);
        }
        // The map's order is random; the first in the file is the one to name.
        let rivals = self.taken.iter().filter(|(other, _)| excludes(other));
        rivals.map(|(_, span)| *span).min()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{HEAD, expect, expect_route, sound};

    fn routes(paths: &[&str]) -> String {
        let lines: String =
            paths.iter().map(|path| format!("  - {{ path: '{path}', from: {{ upstream: t }} }}\n")).collect();
        format!("{HEAD}{lines}")
    }

    #[test]
    fn paths() {
        let paths = [
            "/",
            "/a",
            "/a/",
            "/a/{b}",
            "/a/{b}/c",
            "/img-{n}",
            "/files/{n}.png",
            "/a%20b/~x;y=1,2",
            "/a/{b}/{c_1}",
        ];
        let config = sound(&routes(&paths));
        assert!(config.routes.iter().map(|route| &*route.path).eq(paths));
    }

    #[test]
    fn bad_paths() {
        // The column is that of the segment.
        for (path, column, text) in [
            ("a", 13, "`a` is not a path; it must start with `/`"),
            ("", 13, "it must start with `/`"),
            ("/a/{b", 17, "`{` has no `}`"),
            ("/a/b}", 17, "`}` has no `{`"),
            ("/a/{b}{c}", 17, "one parameter at most"),
            ("/a/{}", 17, "letters, digits and `_`"),
            ("/a/{1}", 17, "does not start with a digit"),
            ("/a/{b-c}", 17, "letters, digits and `_`"),
            ("/a/{*rest}", 17, "takes several segments ends the path of a route"),
            ("/{{a}}", 15, "`}` has no `{`"),
            ("/{a}/{a}", 19, "the parameter `a` stands in this path twice"),
            (
                "/{channel}",
                15,
                "`{channel}` means a field of the record in templates; name the parameter otherwise, such as `{channel_name}`",
            ),
            ("/a?b", 15, "a path ends before `?`"),
            ("/a b", 15, "a path cannot hold ` `; write it percent-encoded"),
            ("/é", 15, "a path cannot hold `é`"),
            ("/a/../b", 17, "`..` never reaches a server"),
        ] {
            expect_route(&format!("{{ path: '{path}', from: {{ upstream: t }} }}"), column, text);
        }
        expect_route(
            &format!("{{ path: /{}, from: {{ upstream: t }} }}", "x".repeat(2000)),
            13,
            "longer than 1024 bytes",
        );
        expect_route(
            "{ path: [a], from: { upstream: t } }",
            13,
            "expected a path such as `/events/news`, found a list",
        );
        expect_route("{ path: true, from: { upstream: t } }", 13, "found `true`");
        expect_route("{ from: { upstream: t } }", 5, "a route lacks `path`");
        expect_route("{ path: , from: { upstream: t } }", 7, "`path` has no value");
    }

    #[test]
    fn several_faults_of_one_path() {
        expect(
            &routes(&["/a b/{x/{1}"]),
            &[(8, 15, "cannot hold"), (8, 19, "has no `}`"), (8, 22, "does not start with a digit")],
        );
    }

    #[test]
    fn the_same_path_twice() {
        expect(&routes(&["/a", "/b", "/a"]), &[(10, 13, "another route has this host and path already")]);
        expect(&routes(&["/a", "/a", "/a"]), &[(9, 13, "already"), (10, 13, "already")]);
    }

    #[test]
    fn ambiguous_paths() {
        let equally = "could match this path and that of another route equally";
        for (first, second) in
            [("/a/{b}", "/a/{c}"), ("/a/{b}/x", "/a/{c}/x"), ("/x{a}y", "/x{b}"), ("/{a}.png", "/i-{b}")]
        {
            let text = routes(&["/other", first, "/more/{x}", second]);
            expect(&text, &[(11, 13, equally)]);
            let drawn = crate::config::parse("c.yaml", &text, &|_| None).unwrap_err().to_string();
            assert!(drawn.contains("::: c.yaml:9:13\n"), "{drawn}");
        }
        expect(&routes(&["/a/{b}", "/a/{c}"]), &[(9, 13, equally)]);
    }

    #[test]
    fn hosts_keep_paths_apart() {
        let route =
            |host: &str| format!("  - {{ path: '/a/{{b}}', host: {host}, from: {{ upstream: t }} }}\n");
        sound(&format!(
            "{HEAD}{}{}{}",
            route("a.example"),
            route("b.example"),
            route("a.example").replace("{b}", "c")
        ));
        let text = format!("{HEAD}{}{}", route("a.example"), route("A.Example"));
        expect(&text, &[(9, 13, "another route has this host and path already")]);
    }
}
