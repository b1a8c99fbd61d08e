//! `cors:`: which pages of other origins may read a route.

use super::fields::Fields;
use super::hosts;
use super::keys::Section;
use super::model::{Cors, Origins};
use super::tree::{Node, Value};
use super::walk::{Scalar, Walk};

/// Reads `cors`; `Some(None)` is `cors: none`, which takes a default back.
pub(super) fn read(walk: &Walk<'_>, node: &Node, section: &'static Section) -> Option<Option<Cors>> {
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
    let fields = Fields::open(walk, node, section)?;
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
    let nodes = walk.one_or_more(node, ORIGIN)?;
    if let Value::Scalar { .. } = &node.value {
        let scalar = walk.scalar(node, ORIGIN)?;
        return match &*scalar.text {
            "*" => Some(Origins::Any),
            _ => read_origin(walk, &scalar).map(|origin| Origins::List(vec![origin])),
        };
    }
    let origins = nodes.iter().filter_map(|node| read_origin(walk, &walk.scalar(node, ORIGIN)?));
    Some(Origins::List(origins.collect()))
}

const ORIGIN: &str = "an origin such as `https://shop.example.com`";

fn read_origin(walk: &Walk<'_>, scalar: &Scalar<'_>) -> Option<String> {
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
fn origin(text: &str) -> Result<String, &'static str> {
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
    if authority.contains('*') {
        return Err("wildcards are not supported; list each origin");
    }
    if !authority.is_ascii() {
        return Err("write its host in punycode (`xn--…`)");
    }
    let own =
        matches!(scheme, "http" | "ws").then_some(80).or(matches!(scheme, "https" | "wss").then_some(443));
    match hosts::host_and_port(authority) {
        Some((_, port)) if Some(port) == own => Err("browsers leave out the scheme's own port; remove it"),
        Some(_) => Ok(text),
        None if hosts::is_host(authority) => Ok(text),
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
            assert_eq!(origin(text).unwrap(), text);
        }
        assert_eq!(origin("HTTPS://Shop.Example.com").unwrap(), "https://shop.example.com");
    }

    #[test]
    fn no_origins() {
        for (text, part) in [
            ("*", "stands alone"),
            ("null", "sandboxed"),
            ("shop.example.com", "scheme and host"),
            ("https://shop.example.com/", "no `/` at its end"),
            ("https://shop.example.com/a", "no path"),
            ("https://*.example.com", "wildcards"),
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
            ("'*'", 46, "expected a mapping of `origins` and `credentials`, or `none`, found `*`"),
            ("true", 46, "or `none`, found `true`"),
        ] {
            expect_route(&format!("{{ path: /x, from: {{ upstream: t }}, cors: {value} }}"), column, text);
        }
    }
}
