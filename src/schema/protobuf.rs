//! Protobuf as JSON, by the mapping that protobuf.dev gives for it ("ProtoJSON Format"): names in lowerCamelCase, fields
//! that are not set left out, 64-bit numbers as strings, bytes as base64, well-known types as they have it.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Message as _;
use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{DynamicMessage, FileDescriptor, MessageDescriptor, SerializeOptions};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use serde_json::ser::Formatter;

use super::json::Json;
use super::{DEPTH, Undecoded, confluent, nesting};
use crate::config::ProtobufMessage;

/// A message that a file describes.
#[derive(Debug, Clone)]
pub struct Message(ProtobufMessage);

impl Message {
    pub(super) fn of_file(message: &ProtobufMessage) -> Self {
        Self(message.clone())
    }

    pub(super) fn write(&self, payload: &[u8], out: &mut Json) -> Result<(), Undecoded> {
        write(&self.0.message, payload, out)
    }
}

/// Messages of files that say the same are the same.
impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Message {}

impl Hash for Message {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// The message that stands at these places, each within the one before. As in Confluent's own reader, which goes by what a
/// file says, what maps are made of counts for nothing.
pub(super) fn message_at(file: &FileDescriptor, path: &[usize]) -> Result<MessageDescriptor, Undecoded> {
    let (first, within) = path.split_first().ok_or(Undecoded::Malformed)?;
    let mut message = file.messages().nth(*first).ok_or(Undecoded::Malformed)?;
    for &at in within {
        let child = message.child_messages().filter(|child| !child.is_map_entry()).nth(at);
        message = child.ok_or(Undecoded::Malformed)?;
    }
    Ok(message)
}

/// One message, which is all of the payload.
pub(super) fn write(message: &MessageDescriptor, payload: &[u8], out: &mut Json) -> Result<(), Undecoded> {
    let write = || {
        let decoded = DynamicMessage::decode(message.clone(), payload).map_err(|_| Undecoded::Malformed)?;
        let mut json = serde_json::Serializer::with_formatter(out, Nesting(0));
        let written = decoded.serialize_with_options(&mut json, &SerializeOptions::new());
        written.map_err(|error| match error.io_error_kind() {
            Some(io::ErrorKind::FileTooLarge) => Undecoded::TooLarge,
            _ => Undecoded::Malformed,
        })
    };
    // Whoever may write to a registry may describe a well-known type as something else, which the library, that knows them
    // by name, does not expect.
    catch_unwind(AssertUnwindSafe(write)).unwrap_or(Err(Undecoded::Malformed))
}

/// How deep the text has got. What is in an `Any` is decoded when it is written, each time with a fresh count, so that a
/// payload is not bounded by that of the decoder.
struct Nesting(usize);

impl Nesting {
    fn enter(&mut self) -> io::Result<()> {
        self.0 += 1;
        if self.0 > DEPTH { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
    }
}

impl Formatter for Nesting {
    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.enter()?;
        out.write_all(b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0 -= 1;
        out.write_all(b"}")
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.enter()?;
        out.write_all(b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0 -= 1;
        out.write_all(b"]")
    }
}

/// Compiles what a registry tells: a `.proto`, and those that it imports by their names.
///
/// # Errors
/// What is wrong with one of them.
pub(super) fn parse(schema: &str, mut others: HashMap<String, String>) -> Result<FileDescriptor, String> {
    others.insert(MAIN.to_owned(), schema.to_owned());
    if others.values().any(|text| nesting::depth(text.as_bytes()) > DEPTH) {
        return Err(format!("it is nested more than {DEPTH} deep"));
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(Texts(others));
    resolver.add(Texts(confluent::FILES.map(|(name, text)| (name.to_owned(), text.to_owned())).into()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.open_file(MAIN).map_err(|error| error.to_string())?;
    compiler.descriptor_pool().get_file_by_name(MAIN).ok_or_else(|| "it is empty".to_owned())
}

/// Files that are no files.
struct Texts(HashMap<String, String>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(text) => match serialized(text) {
                Some(file) => {
                    let file = FileDescriptorProto { name: Some(name.to_owned()), ..file };
                    Ok(File::from_file_descriptor_proto(file))
                }
                None => File::from_source(name, text),
            },
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// Not all producers register a `.proto`: some have its descriptor alone, which is base64 then.
fn serialized(text: &str) -> Option<FileDescriptorProto> {
    FileDescriptorProto::decode(BASE64.decode(text.trim_ascii()).ok()?.as_slice()).ok()
}

/// What a schema itself is called, by which nobody imports it.
const MAIN: &str = "__ssegate_schema.proto";

#[cfg(test)]
mod tests {
    use super::*;

    fn file(schema: &str) -> FileDescriptor {
        parse(schema, HashMap::new()).unwrap()
    }

    fn decoded(message: &MessageDescriptor, payload: &[u8]) -> Result<String, Undecoded> {
        let mut out = Json::new(10_000);
        write(message, payload, &mut out)?;
        Ok(String::from_utf8(out.into_text()).unwrap())
    }

    const ORDER: &str = r#"
        syntax = "proto3";
        package shop; // }}}
        import "google/protobuf/timestamp.proto";
        import "item.proto";
        message Order {
            int64 order_id = 1;
            repeated Item items = 2;
            google.protobuf.Timestamp at = 3;
            map<string, double> rates = 4;
            bytes raw = 5;
            Kind kind = 6;
            message Line { string text = 1; message Part { bool whole = 1; } }
        }
        enum Kind { UNKNOWN = 0; SOLD = 1; }
    "#;

    #[test]
    fn a_message_by_the_canonical_mapping() {
        let item = r#"syntax = "proto3"; package shop; message Item { string name = 1; }"#.to_owned();
        let file = parse(ORDER, HashMap::from([("item.proto".to_owned(), item)])).unwrap();
        let order = message_at(&file, &[0]).unwrap();
        let payload = b"\x08\x87\xad\x4b\x12\x03\x0a\x01a\x1a\x04\x08\x01\x10\x00\x22\x0c\x0a\x01x\x11\0\0\0\0\0\0\xf8\x7f\x2a\x01\xff\x30\x01";
        assert_eq!(
            decoded(&order, payload).as_deref(),
            Ok(
                r#"{"orderId":"1234567","items":[{"name":"a"}],"at":"1970-01-01T00:00:01Z","rates":{"x":"NaN"},"raw":"/w==","kind":"SOLD"}"#
            )
        );
        let texts = file.file_descriptor_proto().clone();
        let texts = BASE64
            .encode(FileDescriptorProto { name: Some("else.proto".to_owned()), ..texts }.encode_to_vec());
        let item = file.dependencies().find(|file| file.name() == "item.proto").unwrap();
        let item = BASE64.encode(item.file_descriptor_proto().encode_to_vec());
        let same = parse(&texts, HashMap::from([("item.proto".to_owned(), item)])).unwrap();
        let order = message_at(&same, &[0]).unwrap();
        assert_eq!(decoded(&order, b"\x08\x01").as_deref(), Ok(r#"{"orderId":"1"}"#));
        let names = |path: &[usize]| message_at(&file, path).map(|message| message.full_name().to_owned());
        // What `rates` is made of would be the first within an order.
        assert_eq!(names(&[0, 0]).as_deref(), Ok("shop.Order.Line"));
        assert_eq!(names(&[0, 0, 0]).as_deref(), Ok("shop.Order.Line.Part"));
        for path in [&[][..], &[1], &[0, 1], &[0, 0, 0, 0], &[usize::MAX]] {
            assert_eq!(names(path), Err(Undecoded::Malformed), "{path:?}");
        }
    }

    #[test]
    fn what_is_not_sound_has_no_text() {
        let file = file("syntax = \"proto3\"; message A { A a = 1; string s = 2; repeated bool b = 3; }");
        let message = message_at(&file, &[0]).unwrap();
        for payload in [&b"\x0a"[..], b"\x0a\xff\xff\xff\xff\x07", b"\x12\x01\xff", b"\x08\x01", b"\x0b"] {
            assert_eq!(decoded(&message, payload), Err(Undecoded::Malformed), "{payload:?}");
        }
        let nested = |depth: usize| {
            (0..depth).fold(Vec::new(), |inner: Vec<u8>, _| {
                let mut outer = vec![0x0a];
                prost::encoding::encode_varint(inner.len() as u64, &mut outer);
                outer.extend(inner);
                outer
            })
        };
        assert!(decoded(&message, &nested(90)).is_ok());
        assert_eq!(decoded(&message, &nested(20_000)), Err(Undecoded::Malformed));
        let groups = [0x0b; 100_000];
        assert_eq!(decoded(&message, &groups), Err(Undecoded::Malformed));
        let many = [&b"\x1a\x90\x4e"[..], &[1; 10_000]].concat();
        assert_eq!(decoded(&message, &many), Err(Undecoded::TooLarge));
    }

    #[test]
    fn an_any_within_an_any_has_an_end() {
        let file = file(
            "syntax = \"proto3\"; import \"google/protobuf/any.proto\"; message A { google.protobuf.Any a = 1; }",
        );
        let message = message_at(&file, &[0]).unwrap();
        let field = |number: u8, bytes: &[u8]| {
            let mut field = vec![number << 3 | 2];
            prost::encoding::encode_varint(bytes.len() as u64, &mut field);
            field.extend_from_slice(bytes);
            field
        };
        let any = |inner: Vec<u8>| [field(1, b"/google.protobuf.Any"), field(2, &inner)].concat();
        let nested = |depth: usize| field(1, &(0..depth).fold(any(Vec::new()), |inner, _| any(inner)));
        assert_eq!(decoded(&message, &nested(2_000)), Err(Undecoded::Malformed));
        let plain = [field(1, b"type.googleapis.com/A"), field(2, b"")].concat();
        assert_eq!(
            decoded(&message, &field(1, &plain)).as_deref(),
            Ok(r#"{"a":{"@type":"type.googleapis.com/A"}}"#)
        );
    }

    #[test]
    fn schemas_that_are_nested_too_deep_are_not_compiled() {
        let deep = format!("syntax = \"proto3\"; {}{}", "message A {".repeat(100_000), "}".repeat(100_000));
        assert!(parse(&deep, HashMap::new()).unwrap_err().contains("nested more than"));
        let option = format!("option (x) = {{ {} }};", "a <".repeat(100_000));
        assert!(parse(&option, HashMap::new()).is_err());
    }

    #[test]
    fn what_confluents_schemas_import_is_there() {
        let file = file(
            "syntax = \"proto3\"; import \"confluent/meta.proto\"; import \"confluent/types/decimal.proto\";
             message A { option (confluent.message_meta).doc = \"x\"; confluent.type.Decimal d = 1 [(confluent.field_meta) = { tags: [\"PII\"] }]; }",
        );
        let message = message_at(&file, &[0]).unwrap();
        assert_eq!(
            decoded(&message, b"\x0a\x04\x0a\x02\x04\xd2").as_deref(),
            Ok(r#"{"d":{"value":"BNI="}}"#)
        );
    }

    #[test]
    fn what_cannot_be_compiled_says_why() {
        for (schema, why) in [
            ("message A {", "expected"),
            ("import \"gone.proto\";", "gone.proto"),
            ("syntax = \"proto3\"; message A { B b = 1; }", "B"),
        ] {
            let told = parse(schema, HashMap::new()).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
