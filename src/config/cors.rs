//! `cors:`: which pages of other origins may read a route.

use super::fields::Fields;
use super::hosts;
use super::keys;
use super::model::{Cors, Origin, Origins};
use super::routes;
use super::tree::{Node, Value};
use super::walk::{Scalar, Walk};

/// Reads `cors`; `Some(None)` is `cors: none`, which takes a default back.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Option<Cors>> {
    if let Value::Scalar { .. } = &node.value {
        let scalar = walk.scalar(node, EXPECTED)?;
        if &*scalar.text == "none" {
            return Some(None);
        }
    }
    if !matches!(node.value, Value::Map(_)) {
        walk.wrong_type(node, EXPECTED);
        return None;
    }
    let fields = Fields::open(walk, node, keys::CORS)?;
    let origins = fields.required("origins", "list those that may read, or write `\"*\"` for all");
    let credentials = fields.flag("credentials").unwrap_or(false);
    let origins = read_origins(walk, origins?)?;
    if credentials && matches!(origins, Origins::Any) {
        let at = fields.entry("credentials").map_or(node.span, |entry| entry.key.span);
        walk.problem(at, "`credentials` cannot go with `origins: \"*\"`, browsers refuse it; list the origins or leave it out");
    }
    Some(Some(Cors { origins, credentials }))
}

const EXPECTED: &str = "a mapping of `origins` and `credentials`, or `none`";

fn read_origins(walk: &Walk<'_>, node: &Node) -> Option<Origins> {
    if let Value::Map(_) = &node.value {
        return read_regex(walk, node).map(|origin| Origins::List(vec![origin]));
    }
    let nodes = walk.one_or_more(node, ORIGIN)?;
    if let Value::Scalar { .. } = &node.value {
        let scalar = walk.scalar(node, ORIGIN)?;
        return match &*scalar.text {
            "*" => Some(Origins::Any),
            _ => read_origin(walk, &scalar).map(|origin| Origins::List(vec![origin])),
        };
    }
    let origins = nodes.iter().filter_map(|node| match &node.value {
        Value::Map(_) => read_regex(walk, node),
        _ => read_origin(walk, &walk.scalar(node, ORIGIN)?),
    });
    Some(Origins::List(origins.collect()))
}

fn read_regex(walk: &Walk<'_>, node: &Node) -> Option<Origin> {
    let fields = Fields::open(walk, node, keys::ORIGIN)?;
    let regex = fields
        .required("regex", "it must match an origin as a whole, such as `https://[a-z]+\\.example\\.com`");
    routes::read_pattern(walk, regex?).map(Origin::Regex)
}

const ORIGIN: &str = "an origin such as `https://shop.example.com`";

fn read_origin(walk: &Walk<'_>, scalar: &Scalar<'_>) -> Option<Origin> {
    match origin(&scalar.text) {
        Ok(origin) => Some(origin),
        Err(advice) => {
            let text = format!("{} is not an origin as browsers send it; {advice}", scalar.shown());
            walk.problem(scalar.span(), text);
            None
        }
    }
}

/// RFC 6454 7: scheme, host, and a port that is not the scheme's own.
fn origin(text: &str) -> Result<Origin, &'static str> {
    match text {
        "*" => return Err("`\"*\"` stands alone, not in a list"),
        "null" => return Err("any sandboxed page can be `null`, so it is never allowed"),
        _ => {}
    }
    let text = text.to_ascii_lowercase();
    let (scheme, authority) =
        text.split_once("://").ok_or("write scheme and host, such as `https://shop.example.com`")?;
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"+.-".contains(&b);
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(letters) {
        return Err("its scheme is not one such as `https`");
    }
    if authority.contains(['/', '?', '#']) {
        return Err("it has no path and no `/` at its end");
    }
    if let Some(below) = authority.strip_prefix("*.") {
        let host = exact(scheme, below)?;
        return Ok(Origin::Below { scheme: format!("{scheme}://"), host: format!(".{host}") });
    }
    exact(scheme, authority).map(|authority| Origin::Exact(format!("{scheme}://{authority}")))
}

fn exact<'a>(scheme: &str, authority: &'a str) -> Result<&'a str, &'static str> {
    if authority.contains('*') {
        return Err("`*.` stands for the first labels of a host alone; write a `regex` for other patterns");
    }
    if !authority.is_ascii() {
        return Err("write its host in punycode (`xn--…`)");
    }
    let own =
        matches!(scheme, "http" | "ws").then_some(80).or(matches!(scheme, "https" | "wss").then_some(443));
    match hosts::host_and_port(authority) {
        Some((_, port)) if Some(port) == own => Err("browsers leave out the scheme's own port; remove it"),
        Some(_) => Ok(authority),
        None if hosts::is_host(authority) => Ok(authority),
        None => Err("write scheme, host and, if need be, port, such as `https://shop.example.com:8443`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::expect_route;

    #[test]
    fn origins() {
        for text in [
            "https://shop.example.com",
            "http://localhost:3000",
            "https://[::1]:8443",
            "capacitor://localhost",
        ] {
            assert_eq!(origin(text).unwrap().to_string(), text);
        }
        assert_eq!(origin("HTTPS://Shop.Example.com").unwrap().to_string(), "https://shop.example.com");
    }

    #[test]
    fn what_origins_stand_for() {
        let below = origin("https://*.Example.com:8443").unwrap();
        assert_eq!(below.to_string(), "https://*.example.com:8443");
        for yes in ["https://a.example.com:8443", "https://a-1.b_2.example.com:8443"] {
            assert!(below.matches(yes), "{yes}");
        }
        for no in [
            "https://example.com:8443",
            "https://.example.com:8443",
            "https://a.example.com",
            "http://a.example.com:8443",
            "https://evil.net/.example.com:8443",
            "https://evil.net#.example.com:8443",
            "https://u@a.example.com:8443",
            "https://aexample.com:8443",
        ] {
            assert!(!below.matches(no), "{no}");
        }
    }

    #[test]
    fn no_origins() {
        for (text, part) in [
            ("*", "stands alone"),
            ("null", "sandboxed"),
            ("shop.example.com", "scheme and host"),
            ("https://shop.example.com/", "no `/` at its end"),
            ("https://shop.example.com/a", "no path"),
            ("https://a.*.example.com", "first labels"),
            ("https://*.*.example.com", "first labels"),
            ("https://*", "first labels"),
            ("https://*.a:443", "own port"),
            ("https://bücher.example", "punycode"),
            ("https://a:443", "own port"),
            ("http://a:80", "own port"),
            ("https://a:x", "if need be, port"),
            ("https://u@a", "if need be, port"),
            ("https://", "if need be, port"),
            ("1://a", "scheme is not one"),
        ] {
            let what = origin(text).unwrap_err();
            assert!(what.contains(part), "{text}: {what}");
        }
    }

    #[test]
    fn problems() {
        // The value of `cors` begins in column 46.
        for (value, column, text) in [
            ("{ origins: '*', credentials: true }", 62, "`credentials` cannot go with `origins: \"*\"`"),
            ("{ credentials: true }", 46, "`cors` lacks `origins`"),
            ("{ origins: [] }", 57, "this list is empty; it needs an origin"),
            (
                "{ origins: [https://a, https://b/] }",
                69,
                "`https://b/` is not an origin as browsers send it; it has no path",
            ),
            ("{ origins: [https://a, '*'] }", 69, "stands alone, not in a list"),
            ("{ origins: 'null' }", 57, "any sandboxed page can be `null`"),
            ("{ origins: ['${HIDDEN}'] }", 58, "this value is not an origin"),
            ("{ origins: '*', credentials: yes }", 75, "`yes` is neither `true` nor `false`"),
            ("{ origins: '*', credentials: 'false' }", 75, "`false` is text; write it without quotes"),
            (
                "{ origins: '*', methods: GET }",
                62,
                "unknown key `methods` in `cors`; it takes `origins` and `credentials`",
            ),
            ("{ origins: [{ regex: '[' }] }", 67, "`[` is not a regular expression: unclosed"),
            ("{ origins: { } }", 57, "an origin lacks `regex`"),
            ("{ origins: { regex: x, flags: i } }", 69, "unknown key `flags` in an origin"),
            ("'*'", 46, "expected a mapping of `origins` and `credentials`, or `none`, found `*`"),
            ("true", 46, "or `none`, found `true`"),
        ] {
            expect_route(&format!("{{ path: /x, from: {{ upstream: t }}, cors: {value} }}"), column, text);
        }
    }
}
