//! Making the data of an event of a payload in JSON: some of its fields, all but some, or what an expression makes of it.

use super::scope::Scope;
use crate::config::{Branch, Projection};
use crate::expression::json::Kind;
use crate::expression::{Fault, Json, write};

/// What `projection` makes of the payload, which is `event`, as JSON of so many bytes at most.
pub(super) fn project(
    projection: &Projection,
    event: Json<'_>,
    scope: &Scope<'_>,
    room: usize,
) -> Result<String, Fault> {
    let mut out = Vec::with_capacity(event.raw().len().min(room));
    match projection {
        Projection::Keep(paths) => kept(event, &paths.tree, &mut out),
        Projection::Drop(paths) => rest(event, &paths.tree, &mut out),
        Projection::Map(expression) => write(&scope.evaluate(expression)?, &mut out, room)?,
    }
    if out.len() > room {
        return Err(Fault::TooLarge);
    }
    // All of it are pieces of texts, cut where their structure is.
    String::from_utf8(out).map_err(|_| Fault::Type)
}

/// Writes what the paths lead to, in their order, and the mappings and lists around it. A list stands for all of its values.
fn kept(value: Json<'_>, paths: &[Branch], out: &mut Vec<u8>) {
    if value.kind() == Kind::List {
        let items = value.items().filter(|item| is_nested(*item));
        return list(items, out, |item, out| kept(item, paths, out));
    }
    out.push(b'{');
    let begun = out.len();
    for branch in paths {
        let Some(member) = value.member(&branch.name) else { continue };
        if !branch.below.is_empty() && !is_nested(member) {
            continue;
        }
        if out.len() > begun {
            out.push(b',');
        }
        crate::expression::write_text(&branch.name, out);
        out.push(b':');
        match &*branch.below {
            [] => out.extend_from_slice(member.raw().as_bytes()),
            below => kept(member, below, out),
        }
    }
    out.push(b'}');
}

/// Writes all that the paths do not lead to: of members of the same name they mean each.
fn rest(value: Json<'_>, paths: &[Branch], out: &mut Vec<u8>) {
    match value.kind() {
        Kind::List => list(value.items(), out, |item, out| rest(item, paths, out)),
        Kind::Map => {
            out.push(b'{');
            let begun = out.len();
            for (name, member) in value.members() {
                let branch = paths.iter().find(|branch| name.says(&branch.name));
                if branch.is_some_and(|branch| branch.below.is_empty()) {
                    continue;
                }
                if out.len() > begun {
                    out.push(b',');
                }
                out.extend_from_slice(name.raw().as_bytes());
                out.push(b':');
                match branch {
                    Some(branch) => rest(member, &branch.below, out),
                    None => out.extend_from_slice(member.raw().as_bytes()),
                }
            }
            out.push(b'}');
        }
        _ => out.extend_from_slice(value.raw().as_bytes()),
    }
}

fn list<'j>(items: impl Iterator<Item = Json<'j>>, out: &mut Vec<u8>, each: impl Fn(Json<'j>, &mut Vec<u8>)) {
    out.push(b'[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        each(item, out);
    }
    out.push(b']');
}

fn is_nested(value: Json<'_>) -> bool {
    matches!(value.kind(), Kind::List | Kind::Map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::Document;

    fn paths() -> Vec<Branch> {
        let branch = |name: &str, below: Vec<Branch>| Branch { name: name.into(), below };
        vec![
            branch("a", vec![]),
            branch("b", vec![branch("c", vec![]), branch("d", vec![branch("e", vec![])])]),
        ]
    }

    fn both(text: &str) -> (String, String) {
        let document = Document::parse(text).unwrap();
        let (mut keeps, mut drops) = (Vec::new(), Vec::new());
        kept(document.root(), &paths(), &mut keeps);
        rest(document.root(), &paths(), &mut drops);
        (String::from_utf8(keeps).unwrap(), String::from_utf8(drops).unwrap())
    }

    #[test]
    fn fields_are_kept_and_dropped_where_they_are() {
        for (text, keeps, drops) in [
            (r#"{"x":1,"b":{"c":2,"f":3},"a":[4]}"#, r#"{"a":[4],"b":{"c":2}}"#, r#"{"x":1,"b":{"f":3}}"#),
            (r#"{ "a" : 1 }"#, r#"{"a":1}"#, "{}"),
            (r#"{"b":{"d":{"e":1,"f":2}}}"#, r#"{"b":{"d":{"e":1}}}"#, r#"{"b":{"d":{"f":2}}}"#),
            // A path that goes on where the value does not leads to nothing.
            (r#"{"b":7}"#, "{}", r#"{"b":7}"#),
            (r#"{"b":{"d":null}}"#, r#"{"b":{}}"#, r#"{"b":{"d":null}}"#),
            ("7", "{}", "7"),
            ("{}", "{}", "{}"),
        ] {
            assert_eq!(both(text), (keeps.to_owned(), drops.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_list_stands_for_each_of_its_values() {
        let (keeps, drops) = both(r#"[{"a":1,"x":2},3,[{"a":4,"b":[{"c":5},{"f":6}]}]]"#);
        assert_eq!(keeps, r#"[{"a":1},[{"a":4,"b":[{"c":5},{}]}]]"#);
        assert_eq!(drops, r#"[{"x":2},3,[{"b":[{},{"f":6}]}]]"#);
    }

    #[test]
    fn no_spelling_and_no_repetition_hides_what_is_dropped() {
        let (keeps, drops) = both(r#"{"a":1,"\u0061":2,"b":{"c":3},"b":{"\u0063":4,"z":5},"A":6}"#);
        assert_eq!(keeps, r#"{"a":2,"b":{"c":4}}"#);
        assert_eq!(drops, r#"{"b":{},"b":{"z":5},"A":6}"#);
    }
}
