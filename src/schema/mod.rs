//! Schemas: from the bytes of a payload to JSON text, in one step, before anything else looks at it. Some formats need no
//! schema, some one of a file, and some the one that a registry has under the id which producers put before the payload.
//!
//! Decoding waits for nobody. Who can pause asks first whether the schemas of some records are at hand, and waits for
//! them at their [`Registry`]; what is then decoded without its schema cannot be.
//!
//! A file for each format: `msgpack`, `avro`, `protobuf`, all of which write `json` as they read `input`. `framing` is
//! how producers tell the schema, and `registry` who knows it.

mod avro;
mod confluent;
mod framing;
mod input;
mod json;
mod msgpack;
mod nesting;
mod protobuf;
mod registry;
mod time;

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::IgnoredAny;

pub use self::framing::{HEADER, SchemaId};
pub use self::registry::{Pins, Registries, Registry, Standing};

use self::avro::Avro;
use self::framing::Framed;
use self::json::Json;
use self::protobuf::Message;
use crate::config::Decode;

/// What payloads are decoded by. Part of what tells two feeds apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Decoder {
    /// By nothing: they are text, or what `binary` makes of them.
    Text,
    /// They must be JSON.
    Json,
    /// They are MessagePack.
    MsgPack,
    /// They are Avro, by a schema of a file.
    Avro(Arc<Avro>),
    /// They are a Protobuf message, by the description of a file.
    Protobuf(Message),
    /// They are what a registry says.
    Registry(Arc<Registry>),
}

/// Why a payload has no JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecoded {
    /// It is not what it is said to be, or nobody knows what that is.
    Malformed,
    /// Its text would be longer than it may be.
    TooLarge,
}

/// A schema that a registry has.
#[derive(Debug)]
pub(crate) enum Schema {
    Avro(Avro),
    /// The messages of a file: the payload tells which of them it is.
    Protobuf(prost_reflect::FileDescriptor),
    /// JSON Schema. What it asks for is the producer's matter.
    Json,
}

impl Decoder {
    /// As a route has it; `registries` are those of the same configuration.
    pub fn new(decode: &Decode, registries: &Registries) -> Self {
        match decode {
            Decode::Text => Self::Text,
            Decode::Json => Self::Json,
            Decode::MsgPack => Self::MsgPack,
            Decode::Avro(schema) => Self::Avro(Arc::new(Avro::of_file(schema))),
            Decode::Protobuf(message) => Self::Protobuf(Message::of_file(message)),
            Decode::Registry(name) => Self::Registry(registries.of(name)),
        }
    }

    /// The JSON text of a payload, of `limit` bytes at most. `header` is what the record has as [`HEADER`].
    ///
    /// # Errors
    /// There is none.
    pub fn decode<'p>(
        &self,
        payload: &'p [u8],
        header: Option<&'p [u8]>,
        limit: usize,
    ) -> Result<Cow<'p, [u8]>, Undecoded> {
        // What is written is hardly ever shorter.
        if payload.len() > limit {
            return Err(Undecoded::TooLarge);
        }
        match self {
            Self::Text => Ok(Cow::Borrowed(payload)),
            Self::Json => json(payload),
            Self::MsgPack => written(limit, |out| msgpack::write(payload, out)),
            Self::Avro(avro) => written(limit, |out| avro.write(payload, out)),
            Self::Protobuf(message) => written(limit, |out| message.write(payload, out)),
            Self::Registry(registry) => {
                let framed = Framed::of(payload, header)?;
                let schema = registry.find(framed.id).ok_or(Undecoded::Malformed)?;
                match &*schema {
                    Schema::Avro(avro) => written(limit, |out| avro.write(framed.body(), out)),
                    Schema::Protobuf(file) => written(limit, |out| {
                        let (path, body) = framed.message()?;
                        protobuf::write(&protobuf::message_at(file, &path)?, body, out)
                    }),
                    Schema::Json => json(framed.body()),
                }
            }
        }
    }

    /// The schema that a payload cannot be decoded without, if it takes one of a registry.
    pub fn needs(&self, payload: &[u8], header: Option<&[u8]>) -> Option<(&Arc<Registry>, SchemaId)> {
        match self {
            Self::Registry(registry) => Some((registry, Framed::of(payload, header).ok()?.id)),
            _ => None,
        }
    }

    /// Whether it asks a registry.
    pub fn asks(&self) -> bool {
        matches!(self, Self::Registry(_))
    }
}

fn written<'p>(
    limit: usize,
    write: impl FnOnce(&mut Json) -> Result<(), Undecoded>,
) -> Result<Cow<'p, [u8]>, Undecoded> {
    let mut out = Json::new(limit);
    write(&mut out)?;
    Ok(Cow::Owned(out.into_text()))
}

/// JSON is sent as it is, once it is known to be JSON.
fn json(payload: &[u8]) -> Result<Cow<'_, [u8]>, Undecoded> {
    // What is skipped is not looked at for that.
    let text = str::from_utf8(payload).map_err(|_| Undecoded::Malformed)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| Undecoded::Malformed)?;
    if nesting::depth(payload) > DEPTH { Err(Undecoded::Malformed) } else { Ok(Cow::Borrowed(payload)) }
}

/// How deep values may lie within each other, in every format: JSON that is nested deeper few readers take.
const DEPTH: usize = 100;
