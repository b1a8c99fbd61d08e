//! Whatever a payload says: it is JSON where another library takes it for that, with the same values; what is made of it is
//! JSON, and what is dropped is not in it. Nothing panics, recurses without end, or works without end.

use std::sync::LazyLock;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use ssegate::config::{Branch, Brought, Paths, Projection, Variable};
use ssegate::expression::json::{DEPTH, Kind};
use ssegate::expression::{Document, Expression, Json, Names};
use ssegate::shape::{ClientFilter, Fact, Member, Record, Shape, Shaped, Wrap};

/// Takes a payload.
pub fn check(bytes: &[u8]) {
    let text = str::from_utf8(bytes).ok();
    let document = text.and_then(Document::parse);
    let theirs = text.is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    let brackets = bytes.iter().filter(|byte| b"[{".contains(byte)).count();
    assert!(document.is_none() || theirs, "what is no JSON is taken for that");
    assert!(!theirs || document.is_some() || brackets > DEPTH, "what is JSON is not taken for that");
    // Half a surrogate pair, or a number beyond all bounds, is none of that library's values.
    let value = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    if let (Some(document), Some(value)) = (&document, &value) {
        assert_eq!(plain(document.root()), *value);
    }
    for shape in &*SHAPES {
        shaped(shape, bytes, value.as_ref());
    }
}

struct Message<'a>(&'a [u8]);

impl Record for Message<'_> {
    fn payload(&self) -> Option<&[u8]> {
        Some(self.0)
    }

    fn name(&self) -> &str {
        "channel"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(&self.0[..self.0.len().min(8)])
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        (name == "content-type").then(|| &self.0[..self.0.len().min(40)])
    }

    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        each("ce_tenant", self.key());
        each("none", None);
    }
}

fn shaped(shape: &Shape, bytes: &[u8], value: Option<&Value>) {
    let mut out = Vec::new();
    let (made, _, facts) = shape.encode(&Message(bytes), &|| "id".to_owned(), &mut out);
    assert_eq!(facts.are_for_all(), made != Shaped::Event || !shape.sifts());
    if let Some(filter) = shape.filter.as_ref().filter(|_| shape.sifts()) {
        // Of a client that brings this very payload.
        let brought =
            |_: &Member| Some(value.map_or_else(|| Fact::text(&String::from_utf8_lossy(bytes)), Fact::from));
        if let Ok(Some(filter)) = ClientFilter::bind(filter, brought) {
            let mut spent = 0;
            _ = filter.passes(&facts, &mut spent);
            assert!(spent <= 1 << 17, "{spent} units of work");
        }
    }
    if made != Shaped::Event {
        return assert!(out.is_empty(), "{made:?} leaves something");
    }
    let body = String::from_utf8(out).expect("a stream is UTF-8");
    let data: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let data = data.join("\n");
    if shape.projection.is_none() && shape.wrap.is_none() {
        return;
    }
    serde_json::from_str::<IgnoredAny>(&data).unwrap_or_else(|error| panic!("{error}: {data}"));
    // Where values are none of the library's, that it is JSON is all that can be told.
    let (Some(value), Ok(sent)) = (value, serde_json::from_str::<Value>(&data)) else { return };
    match &shape.projection {
        Some(Projection::Drop(paths)) => assert_eq!(sent, rest(value, &paths.tree)),
        Some(Projection::Keep(paths)) => assert_eq!(sent, kept(value, &paths.tree)),
        _ => {}
    }
}

/// What is left without some fields, of a tree of values.
fn rest(value: &Value, paths: &[Branch]) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| rest(item, paths)).collect(),
        Value::Object(members) => {
            let left = members.iter().filter_map(|(name, member)| {
                let branch = paths.iter().find(|branch| *branch.name == **name);
                match branch {
                    Some(branch) if branch.below.is_empty() => None,
                    Some(branch) => Some((name.clone(), rest(member, &branch.below))),
                    None => Some((name.clone(), member.clone())),
                }
            });
            Value::Object(left.collect())
        }
        other => other.clone(),
    }
}

fn kept(value: &Value, paths: &[Branch]) -> Value {
    let is_nested = |value: &&Value| value.is_array() || value.is_object();
    if let Value::Array(items) = value {
        return items.iter().filter(is_nested).map(|item| kept(item, paths)).collect();
    }
    let mut left = Map::new();
    for branch in paths {
        match value.get(&*branch.name) {
            Some(member) if branch.below.is_empty() => {
                _ = left.insert(branch.name.to_string(), member.clone())
            }
            Some(member) if is_nested(&member) => {
                left.insert(branch.name.to_string(), kept(member, &branch.below));
            }
            _ => {}
        }
    }
    Value::Object(left)
}

fn plain(json: Json<'_>) -> Value {
    match json.kind() {
        Kind::Text => Value::String(json.text().expect("it is text").into_owned()),
        Kind::List => json.items().map(plain).collect(),
        Kind::Map => {
            let member = |(name, value): (Json<'_>, Json<'_>)| {
                (name.text().expect("a name").into_owned(), plain(value))
            };
            Value::Object(json.members().map(member).collect())
        }
        Kind::Null | Kind::Bool | Kind::Number => {
            serde_json::from_str(json.raw()).expect("that library has taken it")
        }
    }
}

/// Compiled once: that takes longer than all else here.
static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(shapes);

fn shapes() -> Vec<Shape> {
    let plain = || Shape { max_event: 1 << 16, ..Shape::default() };
    let branch = |name: &str, below: Vec<Branch>| Branch { name: name.into(), below };
    let paths = || Paths {
        texts: Vec::new(),
        tree: vec![branch("a", vec![]), branch("b", vec![branch("c", vec![])])],
    };
    let mut shapes = vec![
        Shape { projection: Some(Projection::Drop(paths())), ..plain() },
        Shape { projection: Some(Projection::Keep(paths())), ..plain() },
        Shape { wrap: Some(Wrap::Envelope("channel")), ..plain() },
        Shape { wrap: Some(Wrap::CloudEvent("upstream".into())), ..plain() },
    ];
    for text in FILTERS {
        shapes.push(Shape { filter: Some(compiled(text)), ..plain() });
    }
    for text in MAPS {
        shapes.push(Shape { projection: Some(Projection::Map(compiled(text))), ..plain() });
    }
    shapes
}

struct Known;

impl Names for Known {
    fn variable(&self, name: &str) -> Result<usize, String> {
        let known = Variable::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, variable)| *variable as usize).ok_or_else(|| name.to_owned())
    }

    fn param(&self, _name: &str) -> Result<(), String> {
        Ok(())
    }

    fn mapping(&self, name: &str) -> Option<usize> {
        Brought::NAMES.iter().find(|(known, _)| *known == name).map(|(_, brought)| *brought as usize)
    }
}

fn compiled(text: &str) -> Expression {
    Expression::compile(text, &Known).unwrap_or_else(|flaws| panic!("{text}: {flaws:?}"))
}

const FILTERS: &[&str] = &[
    "event == event && event.a != null",
    "event.a.all(x, event.a.all(y, event.a.exists(z, x == y && y == z)))",
    "event.a + event.a == event.b || string(event.a).matches('(a*)*b')",
    "event.a in event.b || event.b[event.a] == 0 || size(event.a) > size(key)",
    "event.a == claims.a || query.a in event.b || event.b.exists(x, x == claims.b)",
    "claims.a.all(x, event.a.all(y, claims.b.all(z, x == y && y == z)))",
    "claims.a.b + event.a.b == string(query.a) || (event.a + event.b).contains(claims.a)",
];

const MAPS: &[&str] = &[
    "event",
    "{'a': event.a, 'b': [event.b, key, headers, channel, timestamp, fields]}",
    "event.map(x, event.map(y, [x, y, event]))",
    "event.a + event.b * event.a - -event.b / event.a",
];
