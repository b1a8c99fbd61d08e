//! `decode:` of a route, what its payloads are. Schemas of files are read and compiled here, so that a mistake is told before
//! anything is served.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apache_avro::Schema;
use prost_reflect::{DescriptorPool, MessageDescriptor};

use super::fields::Fields;
use super::keys;
use super::records::{AllRecords, Records};
use super::registries::Registries;
use super::tree::{Entry, Node, Value};
use super::upstreams::Kind;
use super::walk::Walk;

/// `decode:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decode {
    /// `text`: they are sent as they are; what is not UTF-8 is the matter of `binary`. The default.
    Text,
    /// `json`: the same, but what is not JSON is a gap.
    Json,
    /// `msgpack`: MessagePack, sent as JSON.
    MsgPack,
    /// `{ avro: { schema } }`: Avro, sent as JSON.
    Avro(AvroSchema),
    /// `{ protobuf: { file, message, include } }`: Protobuf, sent as JSON.
    Protobuf(ProtobufMessage),
    /// `{ registry: NAME }`: what one of `schema_registries` says, sent as JSON.
    Registry(Arc<str>),
}

/// A schema that stands in files. It is the same as another one that says the same.
#[derive(Debug, Clone)]
pub struct AvroSchema {
    texts: Vec<String>,
    /// The schema.
    pub schema: Arc<Schema>,
    /// Those that it names.
    pub others: Arc<[Schema]>,
}

/// A message that a file describes. It is the same as another one that is described in the same way.
#[derive(Debug, Clone)]
pub struct ProtobufMessage {
    /// Every file that has to do with it.
    described: Arc<[u8]>,
    /// The message.
    pub message: MessageDescriptor,
}

/// Reads `decode`, an entry of a route that reads these records.
pub(super) fn read(
    walk: &Walk<'_>,
    route: &Fields<'_>,
    entry: &Entry,
    records: &AllRecords,
    registries: &Registries,
) -> Option<Decode> {
    let decode = read_format(walk, route.node("decode")?, registries)?;
    let has_fields = records.known().any(|records| records == Records::Stream);
    if has_fields && decode != Decode::Text && route.entry("data").is_none() {
        let text =
            "an entry of a stream has many fields; name the one to decode by `data`, as `{field.NAME}`";
        walk.problem(entry.key.span, text);
    }
    let are_text = |records: Records| records == Records::Of(Kind::Sse);
    if matches!(decode, Decode::Registry(_)) && records.known().any(are_text) {
        let text = "events of another server are text, which what names a schema of a registry is not; decode where that server has it from, and write `json` or nothing here";
        walk.problem(entry.key.span, text);
    }
    Some(decode)
}

fn read_format(walk: &Walk<'_>, node: &Node, registries: &Registries) -> Option<Decode> {
    if let Value::Map(_) = &node.value {
        return read_by_schema(walk, node, registries);
    }
    let scalar = walk.scalar(node, EXPECTED)?;
    let word = FORMATS.iter().find(|(word, _)| *word == scalar.text);
    if word.is_none() {
        walk.problem(scalar.span(), format!("`decode` cannot be {}; write {EXPECTED}", scalar.shown()));
    }
    word.map(|(_, decode)| decode.clone())
}

fn read_by_schema(walk: &Walk<'_>, node: &Node, registries: &Registries) -> Option<Decode> {
    let fields = Fields::open(walk, node, keys::DECODE)?;
    let mut formats = fields.present();
    let Some(first) = formats.next() else {
        if fields.is_empty() {
            walk.problem(node.span, "`decode` is empty; it needs `avro`, `protobuf` or `registry`");
        }
        return None;
    };
    for second in formats {
        let text = format!("payloads are decoded in one way, and that is `{}` already", first.key.text);
        walk.conflict(second.key.span, text, first.key.span, "the first one");
    }
    let node = fields.node(&first.key.text)?;
    match first.key.text.as_str() {
        "avro" => read_avro(walk, node).map(Decode::Avro),
        "protobuf" => read_protobuf(walk, node).map(Decode::Protobuf),
        _ => registries.read_name(walk, node).map(Decode::Registry),
    }
}

fn read_avro(walk: &Walk<'_>, node: &Node) -> Option<AvroSchema> {
    let fields = Fields::open(walk, node, keys::AVRO)?;
    let node = fields.required("schema", "it is the file of the schema, such as `order.avsc`")?;
    let nodes = walk.one_or_more(node, AVRO_FILE)?;
    let mut texts = Vec::new();
    for node in nodes {
        let text = String::from_utf8(walk.file(node, AVRO_FILE)?);
        texts.push(
            text.map_err(|_| walk.problem(node.span, "this file is not UTF-8 text; name a schema in JSON"))
                .ok()?,
        );
    }
    let parsed = Schema::parse_str_with_list(texts.first()?, &texts[1..]);
    let failed = |error| walk.problem(node.span, format!("this is not a schema of Avro: {error}"));
    let (schema, others) = parsed.map_err(failed).ok()?;
    Some(AvroSchema { texts, schema: Arc::new(schema), others: others.into() })
}

fn read_protobuf(walk: &Walk<'_>, node: &Node) -> Option<ProtobufMessage> {
    let fields = Fields::open(walk, node, keys::PROTOBUF)?;
    let file = fields.required("file", "it is what describes the message, such as `order.proto`");
    let name = fields.required("message", "it is the message with its package, such as `shop.Order`");
    let name = name.and_then(|node| Some((node, walk.text(node, "the name of a message")?)));
    let include = fields.node("include").map(|node| read_include(walk, node));
    let (file, include) = (file?, include.unwrap_or(Some(Vec::new()))?);
    let content = walk.file(file, PROTOBUF_FILE)?;
    let (_, path) = walk.path(file, PROTOBUF_FILE)?;
    let pool = describe(&path, content, include);
    let pool =
        pool.map_err(|why| walk.problem(file.span, format!("this file describes no message: {why}"))).ok()?;
    let (at, name) = name?;
    let Some(message) = pool.get_message_by_name(name.text.trim_start_matches('.')) else {
        walk.problem(at.span, format!("the file describes no message {}", name.shown()));
        return None;
    };
    Some(ProtobufMessage { described: pool.encode_to_vec().into(), message })
}

fn read_include(walk: &Walk<'_>, node: &Node) -> Option<Vec<PathBuf>> {
    let nodes = walk.one_or_more(node, FOLDER)?;
    nodes.iter().map(|node| Some(walk.path(node, FOLDER)?.1)).collect()
}

/// A `.proto`, whose imports are looked for in `include` or beside it, or what `protoc --descriptor_set_out` writes of one.
fn describe(path: &Path, content: Vec<u8>, mut include: Vec<PathBuf>) -> Result<DescriptorPool, String> {
    if path.extension().is_none_or(|extension| extension != "proto") {
        return DescriptorPool::decode(content.as_slice()).map_err(|error| {
            format!(
                "{error}; write it with `protoc --include_imports --descriptor_set_out`, or name a `.proto`"
            )
        });
    }
    if include.is_empty() {
        include.extend(path.parent().map(Path::to_owned));
    }
    let compiled = protox::Compiler::new(include).and_then(|mut compiler| {
        compiler.open_file(path)?;
        Ok(compiler.descriptor_pool())
    });
    compiled.map_err(|error| error.to_string())
}

impl PartialEq for AvroSchema {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl Eq for AvroSchema {}

impl Hash for AvroSchema {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.texts.hash(state);
    }
}

impl PartialEq for ProtobufMessage {
    fn eq(&self, other: &Self) -> bool {
        self.described == other.described && self.message.full_name() == other.message.full_name()
    }
}

impl Eq for ProtobufMessage {}

impl Hash for ProtobufMessage {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.described.hash(state);
        self.message.full_name().hash(state);
    }
}

/// The formats that need no schema.
const FORMATS: &[(&str, Decode)] =
    &[("text", Decode::Text), ("json", Decode::Json), ("msgpack", Decode::MsgPack)];
const EXPECTED: &str = "`text`, `json`, `msgpack`, or a mapping with `avro`, `protobuf` or `registry`";
const AVRO_FILE: &str = "the path of a schema such as `order.avsc`";
const PROTOBUF_FILE: &str = "the path of a file such as `order.proto`";
const FOLDER: &str = "the path of a folder";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{HEAD, expect, expect_route, sound};
    use crate::config::{Config, parse, summary};

    /// A folder with schemas; removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ssegate-decode-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("shop")).unwrap();
            for (name, text) in [
                (
                    "order.avsc",
                    r#"{"type":"record","name":"Order","fields":[{"name":"item","type":"Item"}]}"#,
                ),
                ("item.avsc", r#"{"type":"fixed","name":"Item","size":2}"#),
                ("shop/item.proto", "syntax = \"proto3\"; package shop; message Item { string name = 1; }"),
                (
                    "order.proto",
                    "syntax = \"proto3\"; package shop; import \"shop/item.proto\"; message Order { Item item = 1; }",
                ),
                ("broken", "}"),
            ] {
                std::fs::write(path.join(name), text).unwrap();
            }
            let set = describe(&path.join("order.proto"), Vec::new(), Vec::new()).unwrap().encode_to_vec();
            std::fs::write(path.join("order.pb"), set).unwrap();
            Self(path)
        }

        fn parse(&self, decode: &str) -> Result<Config, String> {
            let text =
                format!("{HEAD}  - {{ path: /k, from: {{ upstream: k, topic: t }}, decode: {decode} }}\n");
            let file = self.0.join("c.yaml").display().to_string();
            parse(&file, &text, &|_| None).map_err(|problems| problems.to_string())
        }

        fn read(&self, decode: &str) -> Decode {
            self.parse(decode).unwrap_or_else(|problems| panic!("{problems}")).routes.remove(0).decode
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn formats() {
        let folder = Folder::new("formats");
        assert_eq!(
            sound(&format!("{HEAD}  - {{ path: /t, from: {{ upstream: t }} }}\n")).routes[0].decode,
            Decode::Text
        );
        for (word, decode) in FORMATS {
            assert_eq!(folder.read(word), *decode);
        }
        let avro = folder.read("{ avro: { schema: [order.avsc, item.avsc] } }");
        assert_eq!(avro, folder.read("{ avro: { schema: [./order.avsc, ./item.avsc] } }"));
        assert_ne!(avro, folder.read("{ avro: { schema: item.avsc } }"));
        let protobuf = folder.read("{ protobuf: { file: order.proto, message: shop.Order } }");
        assert_eq!(protobuf, folder.read("{ protobuf: { file: order.pb, message: .shop.Order } }"));
        assert_ne!(protobuf, folder.read("{ protobuf: { file: order.proto, message: shop.Item } }"));
        let included = "{ protobuf: { file: shop/item.proto, message: shop.Item, include: . } }";
        assert!(matches!(folder.read(included), Decode::Protobuf(_)));
    }

    #[test]
    fn what_is_wrong_with_them() {
        let folder = Folder::new("wrong");
        for (decode, text) in [
            ("{ avro: {} }", "`avro` lacks `schema`"),
            ("{ avro: { schema: order.avsc } }", "this is not a schema of Avro: "),
            ("{ avro: { schema: broken } }", "this is not a schema of Avro: "),
            ("{ avro: { schema: none.avsc } }", "cannot read `"),
            ("{ protobuf: { file: order.proto } }", "`protobuf` lacks `message`"),
            ("{ protobuf: { message: a } }", "`protobuf` lacks `file`"),
            (
                "{ protobuf: { file: order.proto, message: shop.Ordre } }",
                "the file describes no message `shop.Ordre`",
            ),
            ("{ protobuf: { file: broken, message: a } }", "this file describes no message: "),
            (
                "{ protobuf: { file: order.proto, message: a, include: shop } }",
                "this file describes no message: ",
            ),
        ] {
            let told = folder.parse(decode).unwrap_err();
            assert!(told.contains(text) && told.contains("1 problem in"), "{decode}: {told}");
        }
        for (decode, column, text) in [
            ("avro", 58, "`decode` cannot be `avro`; write `text`, `json`, `msgpack`, or a mapping"),
            ("{}", 58, "`decode` is empty; it needs `avro`, `protobuf` or `registry`"),
            ("{ json: }", 60, "unknown key `json` in `decode`"),
            (
                "{ registry: main }",
                70,
                "no schema registry is called `main`; `schema_registries` at the top of the file names none",
            ),
            ("[json]", 58, "found a list"),
        ] {
            expect_route(
                &format!("{{ path: /k, from: {{ upstream: k, topic: t }}, decode: {decode} }}"),
                column,
                text,
            );
        }
        expect_route(
            "{ path: /s, from: { upstream: r, stream: t }, decode: json }",
            51,
            "an entry of a stream has many fields; name the one to decode by `data`",
        );
    }

    #[test]
    fn a_registry_is_for_all_that_are_no_text() {
        let config = |upstream: &str, from: &str| {
            format!(
                "server: {{ tls: none }}
schema_registries: {{ main: {{ url: 'http://r' }} }}
upstreams: {{ u: {{ {upstream} }} }}
routes:
  - {{ path: /x, from: {{ upstream: u, {from} }}, decode: {{ registry: main }} }}
"
            )
        };
        let (nats, amqp) = ("nats: { servers: 'nats://h' }", "amqp: { url: 'amqp://u:p@h' }");
        for (upstream, from) in [
            (nats, "subject: a"),
            (nats, "jetstream: S"),
            (amqp, "exchange: e"),
            (amqp, "stream: s"),
            ("postgres: { url: 'postgres://u:p@h/d' }", "table: t"),
            ("mqtt: { url: 'mqtt://h' }", "topic: a"),
        ] {
            let decode = &sound(&config(upstream, from)).routes[0].decode;
            assert_eq!(*decode, Decode::Registry("main".into()), "{upstream} {from}");
        }
        let text = "events of another server are text, which what names a schema of a registry is not";
        expect(&config("sse: { url: 'https://h' }", "path: /e"), &[(5, 50, text)]);
    }

    #[test]
    fn check_shows_what_is_decoded() {
        let text = "server: { tls: none }
schema_registries: { main: { url: 'http://r' } }
upstreams: { r: { redis: { url: redis://localhost } } }
routes:
  - { path: /a, from: { upstream: r, stream: s }, data: '{field.d}', decode: msgpack }
  - { path: /b, from: { upstream: r, channel: c }, decode: { registry: main } }
";
        let shown = summary(&sound(text));
        assert!(shown.contains("no event name, data {field.d}, decode msgpack"), "{shown}");
        assert!(shown.contains("no event name, decode by main"), "{shown}");
    }
}
