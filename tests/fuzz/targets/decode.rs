//! Whatever a payload holds: it becomes JSON, of a bounded length and depth, or it does not. What is cut off, or followed by
//! something, is no payload of a format that knows where it ends. For MessagePack another implementation says what it is.

use std::collections::HashMap;
use std::fs;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rmpv::Value as MsgPack;
use serde_json::{Map, Number, Value};
use ssegate::config::{Decode, parse};
use ssegate::schema::{Decoder, Registries, Undecoded};

/// Takes what names a format, and a payload.
pub fn check(bytes: &[u8]) {
    let Some((format, payload)) = bytes.split_first() else { return };
    let named = DECODERS.iter().find(|(name, _)| name.as_bytes()[0] == *format);
    let (name, decoder) = named.unwrap_or(&DECODERS[usize::from(*format) % DECODERS.len()]);
    let decoded = decoder.decode(payload, None, LIMIT);
    let text = match &decoded {
        Ok(text) => text,
        Err(Undecoded::TooLarge | Undecoded::Malformed) => {
            // The other takes the byte that is reserved for nil.
            let is_told = *name == "msgpack" && !payload.contains(&RESERVED);
            if is_told && decoded == Err(Undecoded::Malformed) {
                assert_eq!(model(payload), None);
            }
            return;
        }
    };
    assert!(text.len() <= LIMIT);
    let value: Value = serde_json::from_slice(text).expect("JSON that is not nested too deep");
    if matches!(*name, "avro" | "msgpack") {
        for other in [&payload[..payload.len().saturating_sub(1)], &[payload, &[0]].concat()] {
            assert!(other == payload || decoder.decode(other, None, LIMIT).is_err(), "{other:?}");
        }
    }
    if *name == "msgpack" {
        // Read as the other was, which is not exact in the last digit.
        let read = |value: Value| serde_json::from_str(&value.to_string()).expect("JSON");
        assert_eq!(Some(value), model(payload).map(read));
    }
}

/// What a payload of MessagePack is, if it is one and JSON has it.
fn model(mut payload: &[u8]) -> Option<Value> {
    // An array or a map takes two of its levels, and what is within a few more: how deep it is, is looked at below.
    let value = rmpv::decode::read_value_with_max_depth(&mut payload, 2 * DEPTH + 8).ok()?;
    if payload.is_empty() { json(&value, DEPTH) } else { None }
}

fn json(value: &MsgPack, depth: usize) -> Option<Value> {
    let float = |number: f64| match Number::from_f64(number) {
        Some(number) => Value::Number(number),
        None if number.is_nan() => "NaN".into(),
        None if number > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    };
    Some(match value {
        MsgPack::Nil => Value::Null,
        MsgPack::Boolean(flag) => Value::Bool(*flag),
        MsgPack::Integer(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (None, number) => number?.into(),
        },
        // The shortest that means it.
        MsgPack::F32(number) if number.is_finite() => float(format!("{number:?}").parse().ok()?),
        MsgPack::F32(number) => float((*number).into()),
        MsgPack::F64(number) => float(*number),
        MsgPack::String(text) => text.as_str()?.into(),
        MsgPack::Binary(bytes) => BASE64.encode(bytes).into(),
        MsgPack::Array(values) => {
            let values = values.iter().map(|value| json(value, depth.checked_sub(1)?));
            depth.checked_sub(1)?;
            Value::Array(values.collect::<Option<_>>()?)
        }
        MsgPack::Map(entries) => {
            depth.checked_sub(1)?;
            let mut object = Map::new();
            for (key, value) in entries {
                let key = match key {
                    MsgPack::String(text) => text.as_str()?.to_owned(),
                    MsgPack::Integer(number) => number.to_string(),
                    _ => return None,
                };
                object.insert(key, json(value, depth - 1)?);
            }
            Value::Object(object)
        }
        MsgPack::Ext(-1, data) => timestamp(data)?.into(),
        MsgPack::Ext(kind, data) => Value::Object(Map::from_iter([
            ("type".to_owned(), (*kind).into()),
            ("data".to_owned(), BASE64.encode(data).into()),
        ])),
    })
}

/// The length alone decides whether it is one; what is said of times is tested elsewhere, and taken as it is.
fn timestamp(data: &[u8]) -> Option<String> {
    let decoder = &DECODERS.iter().find(|(name, _)| *name == "msgpack").expect("it is there").1;
    let head = match data.len() {
        4 => vec![0xd6, 0xff],
        8 => vec![0xd7, 0xff],
        12 => vec![0xc7, 12, 0xff],
        _ => return None,
    };
    let payload = [&head, data].concat();
    let text = decoder.decode(&payload, None, LIMIT).ok()?;
    serde_json::from_slice(&text).ok()
}

static DECODERS: LazyLock<Vec<(&'static str, Decoder)>> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("ssegate-fuzz-decode-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("a.avsc"), AVRO).expect("a file");
    fs::write(folder.join("p.proto"), PROTOBUF).expect("a file");
    let text = format!(
        "{HEAD}{}",
        FORMATS
            .map(|(name, decode)| format!(
                "  - {{ path: /{name}, from: {{ upstream: t }}, decode: {decode} }}\n"
            ))
            .concat()
    );
    let config = parse(&folder.join("c.yaml").display().to_string(), &text, &|_| None);
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    fs::remove_dir_all(folder).expect("it was there");
    let decodes: HashMap<&str, &Decode> =
        config.routes.iter().map(|route| (route.path.trim_start_matches('/'), &route.decode)).collect();
    let registries = Registries::default();
    FORMATS.iter().map(|(name, _)| (*name, Decoder::new(decodes[name], &registries))).collect()
});

const HEAD: &str = "server: { tls: none }\nupstreams: { t: { ticker: {} } }\nroutes:\n";
/// By their first letters.
const FORMATS: [(&str, &str); 4] = [
    ("protobuf", "{ protobuf: { file: p.proto, message: Node } }"),
    ("avro", "{ avro: { schema: a.avsc } }"),
    ("json", "json"),
    ("msgpack", "msgpack"),
];

/// Of every type, and within itself.
const AVRO: &str = r#"{ "type": "record", "name": "Node", "fields": [
    { "name": "next", "type": ["null", "Node"] },
    { "name": "nodes", "type": { "type": "array", "items": "Node" } },
    { "name": "map", "type": { "type": "map", "values": ["null", "boolean", "int", "long", "float", "double", "string", "bytes"] } },
    { "name": "nothing", "type": { "type": "array", "items": "null" } },
    { "name": "kind", "type": { "type": "enum", "name": "Kind", "symbols": ["A", "B"] } },
    { "name": "times", "type": [
        { "type": "long", "logicalType": "timestamp-micros" },
        { "type": "bytes", "logicalType": "decimal", "precision": 40, "scale": 3 },
        { "type": "fixed", "name": "Span", "size": 12, "logicalType": "duration" },
        { "type": "int", "logicalType": "time-millis" }
    ] }
] }"#;

const PROTOBUF: &str = r#"
syntax = "proto3";
import "google/protobuf/any.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/wrappers.proto";
message Node {
  repeated Node nodes = 1;
  map<int32, Node> map = 2;
  google.protobuf.Any any = 3;
  google.protobuf.Value value = 4;
  google.protobuf.Timestamp at = 5;
  google.protobuf.Duration span = 6;
  google.protobuf.FieldMask mask = 7;
  google.protobuf.BytesValue bytes = 8;
  repeated sint64 numbers = 9;
  oneof one { double number = 10; string text = 11; Kind kind = 12; }
}
enum Kind { A = 0; B = 1; }
"#;

const LIMIT: usize = 10_000;
const DEPTH: usize = 100;
/// A marker that no value has.
const RESERVED: u8 = 0xc1;
