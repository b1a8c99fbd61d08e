//! The configuration as a JSON Schema (draft 2020-12), for editors: made of the table of keys. It is no stricter than
//! the parser, and less strict where a value's sense depends on others.

use serde_json::{Map, Value, json};

use super::example::Shown;
use super::keys::{self, Key, Section, Shape, Unset, join};
use super::reference;

/// The schema.
pub fn schema() -> Value {
    let shown = Shown::read();
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A configuration of ssegate",
    });
    let root = section(&shown, keys::ROOT, "");
    merge(&mut schema, root);
    schema["$defs"] = json!({
        "elsewhere": {
            "description": "A value that stands in a variable of the environment or in a file.",
            "type": "string",
            "pattern": ELSEWHERE,
        },
        "duration": {
            "anyOf": [
                { "type": "string", "pattern": format!("^(0|([0-9]+(d|h|m|s|ms))+)$|{ELSEWHERE}") },
                { "const": 0 },
            ],
        },
        "size": {
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": format!("^[0-9]+([KMGT]i?B|B)?$|{ELSEWHERE}") },
            ],
        },
        "flag": { "anyOf": [{ "type": "boolean" }, { "$ref": "#/$defs/elsewhere" }] },
        "text": { "type": ["string", "number"] },
        "scalar": { "type": ["string", "number", "boolean"] },
    });
    schema
}

fn section(shown: &Shown, section: &'static Section, path: &str) -> Value {
    let mut properties = Map::new();
    for key in section.entries() {
        properties.insert(key.name.to_owned(), described(shown, key, &join(path, key.name)));
    }
    let required: Vec<&str> =
        section.entries().filter(|key| matches!(key.unset, Unset::Required)).map(|key| key.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if !section.one_of.is_empty() {
        schema["oneOf"] = section.one_of.iter().map(|key| json!({ "required": [key] })).collect();
    }
    schema
}

fn described(shown: &Shown, key: &'static Key, path: &str) -> Value {
    let mut schema = json!({ "description": reference::doc(shown, path, key).replace('\n', " ") });
    merge(&mut schema, shape(shown, &key.shape, path));
    // What a route does not say, `defaults` does.
    if let Some(default) = key.default().filter(|_| reference::in_defaults(path).is_none()) {
        schema["default"] =
            match (key.shape, default.strip_prefix('[').and_then(|list| list.strip_suffix(']'))) {
                (Shape::Count(_) | Shape::Ratio(_) | Shape::Flag(_), _) => {
                    default.parse().unwrap_or(Value::String(default))
                }
                (_, Some(list)) => list.split(", ").map(Value::from).collect(),
                _ => Value::String(default),
            };
    }
    schema
}

fn shape(shown: &Shown, value: &'static Shape, path: &str) -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
    match value {
        Shape::Duration(_) => reference("duration"),
        Shape::Size(_) => reference("size"),
        Shape::Flag(_) => reference("flag"),
        Shape::Text(_) => reference("text"),
        Shape::Scalar(_) => reference("scalar"),
        Shape::Count(bounds) => any(vec![
            json!({ "type": "integer", "minimum": bounds.min, "maximum": bounds.max }),
            reference("elsewhere"),
        ]),
        Shape::Ratio(bounds) => any(vec![
            json!({ "type": "number", "minimum": bounds.min, "maximum": bounds.max }),
            reference("elsewhere"),
        ]),
        Shape::Words(words) => {
            // One that reads like a number is one to YAML.
            let numbers = words.iter().filter_map(|word| word.parse::<u64>().ok()).map(Value::from);
            let words: Vec<Value> = words.iter().copied().map(Value::from).chain(numbers).collect();
            any(vec![json!({ "enum": words }), reference("elsewhere")])
        }
        Shape::Section(of) => section(shown, of, path),
        Shape::Sections(of) => {
            let one = section(shown, of, path);
            any(vec![one.clone(), json!({ "type": "array", "minItems": 1, "items": one })])
        }
        Shape::Named(_, of) => {
            json!({ "type": "object", "additionalProperties": shape(shown, of, &join(path, "*")) })
        }
        Shape::List(of) => {
            json!({ "type": "array", "minItems": 1, "items": shape(shown, of, &join(path, "[]")) })
        }
        Shape::OneOrMore(of) => {
            let one = shape(shown, of, &join(path, "[]"));
            any(vec![one.clone(), json!({ "type": "array", "minItems": 1, "items": one })])
        }
        Shape::Either(shapes) => any(shapes.iter().map(|of| shape(shown, of, path)).collect()),
        Shape::Empty => json!({ "type": "null" }),
    }
}

/// One of several; those that are such themselves are not nested.
fn any(schemas: Vec<Value>) -> Value {
    let mut flat: Vec<Value> = Vec::new();
    for schema in schemas {
        let each = match schema.get("anyOf") {
            Some(Value::Array(each)) => each.clone(),
            _ => vec![schema],
        };
        for schema in each {
            if !flat.contains(&schema) {
                flat.push(schema);
            }
        }
    }
    json!({ "anyOf": flat })
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

const ELSEWHERE: &str = "^file:|\\$\\{";
