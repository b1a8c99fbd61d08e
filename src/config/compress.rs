//! `compress:`: the content codings in which clients may have a route's stream.

use super::fields::{Bounds, Fields};
use super::keys;
use super::model::{Coding, Compress};
use super::tree::{Node, Value};
use super::walk::Walk;

/// Reads `compress`, a mapping or its `codings` alone; `Some(None)` is `compress: none`, which takes a default back.
pub(super) fn read(walk: &Walk<'_>, node: &Node) -> Option<Option<Compress>> {
    if let Value::Map(_) = &node.value {
        let fields = Fields::open(walk, node, keys::COMPRESS)?;
        let codings = fields.node("codings");
        let codings = codings.map_or(Some(vec![Coding::Zstd, Coding::Gzip]), |node| read_codings(walk, node));
        let level = fields.count("level", &LEVEL).unwrap_or(LEVEL.default) as u32;
        let min_length = fields.size("min_length", &MIN_LENGTH).unwrap_or(MIN_LENGTH.default);
        return Some(Some(Compress { codings: codings?, level, min_length }));
    }
    if let Value::Scalar { .. } = &node.value
        && &*walk.scalar(node, EXPECTED)?.text == "none"
    {
        return Some(None);
    }
    let codings = read_codings(walk, node)?;
    Some(Some(Compress { codings, level: LEVEL.default as u32, min_length: MIN_LENGTH.default }))
}

fn read_codings(walk: &Walk<'_>, node: &Node) -> Option<Vec<Coding>> {
    let (mut codings, mut whole) = (Vec::new(), true);
    for node in walk.one_or_more(node, EXPECTED)? {
        let scalar = walk.scalar(node, EXPECTED)?;
        let coding = [Coding::Zstd, Coding::Gzip].into_iter().find(|coding| coding.as_str() == scalar.text);
        let problem = match coding {
            Some(coding) if !codings.contains(&coding) => {
                codings.push(coding);
                continue;
            }
            Some(_) => "is listed twice; keep one of them",
            None => "is no coding that ssegate has; write `zstd`, `gzip` or both",
        };
        whole = false;
        walk.problem(scalar.span(), format!("{} {problem}", scalar.shown()));
    }
    whole.then_some(codings)
}

const EXPECTED: &str = "`zstd` or `gzip`";

pub(super) const LEVEL: Bounds<usize> = Bounds { default: 3, min: 1, max: 9 };
pub(super) const MIN_LENGTH: Bounds<usize> = Bounds { default: 128, min: 0, max: 1 << 20 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{HEAD, expect_route, sound};

    fn read(defaults: &str, route: &str) -> Option<Compress> {
        let text = format!(
            "defaults: {{ {defaults} }}\n{HEAD}  - {{ path: /x, from: {{ upstream: t }}, {route} }}\n"
        );
        sound(&text).routes.remove(0).compress
    }

    #[test]
    fn a_mapping_or_codings_alone() {
        let both = vec![Coding::Zstd, Coding::Gzip];
        let built_in = Compress { codings: both.clone(), level: 3, min_length: 128 };
        assert_eq!(read("", ""), None);
        assert_eq!(read("", "compress: {}"), Some(built_in.clone()));
        assert_eq!(read("", "compress: [zstd, gzip]"), Some(built_in.clone()));
        assert_eq!(read("compress: [zstd, gzip]", ""), Some(built_in.clone()));
        assert_eq!(read("compress: {}", "compress: none"), None);
        let gzip = Compress { codings: vec![Coding::Gzip], ..built_in };
        assert_eq!(read("compress: {}", "compress: gzip"), Some(gzip.clone()));
        let own = read("", "compress: { codings: gzip, level: 9, min_length: 1KiB }");
        assert_eq!(own, Some(Compress { level: 9, min_length: 1_024, ..gzip }));
    }

    #[test]
    fn what_is_wrong() {
        for (compress, column, text) in [
            ("br", 50, "`br` is no coding that ssegate has; write `zstd`, `gzip` or both"),
            ("[gzip, gzip]", 57, "`gzip` is listed twice; keep one of them"),
            ("[]", 50, "this list is empty; it needs `zstd` or `gzip`"),
            ("{ codings: [zstd, none] }", 68, "`none` is no coding"),
            ("{ level: 10 }", 59, "is out of bounds; it must be from 1 to 9"),
            ("{ min_length: 2MiB }", 64, "is out of bounds; it must be from 0 to 1MiB"),
            ("{ minimum_length: 1 }", 52, "unknown key `minimum_length` in `compress`"),
        ] {
            let route = format!("{{ path: /x, from: {{ upstream: t }}, compress: {compress} }}");
            expect_route(&route, column, text);
        }
    }
}
