//! What of a record is its payload, and what of that its event carries.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::scope::Scope;
use super::{Record, Shape, Shaped, entry, field, project};
use crate::config::Binary;
use crate::expression::{Document, Fault};
use crate::schema::{self, Decoder, Undecoded};

/// The payload of a record.
pub(super) struct Payload<'r> {
    /// Nothing of a tombstone.
    bytes: Option<Cow<'r, [u8]>>,
    /// Whether they are JSON made here: of an entry's fields, whose values are encoded already, or by decoding.
    made: bool,
}

/// What an event carries.
pub(super) enum Data<'p> {
    /// Nothing: the record is a tombstone.
    Nothing,
    /// A text that is known to be JSON.
    Json(Cow<'p, str>),
    /// Any other text.
    Text(Cow<'p, str>),
    /// Bytes, as such a text.
    Base64(String),
}

impl<'r> Payload<'r> {
    /// That of `record`, unless the shape has no use for it. What payloads are decoded from is turned into JSON here.
    pub fn of(shape: &Shape, record: &'r impl Record) -> Result<Self, Shaped> {
        let (bytes, made) = match (record.fields(), record.payload()) {
            (Some(fields), _) => match &shape.data {
                None => {
                    let json = entry::json(fields, shape.binary).ok_or(Shaped::Undecodable)?;
                    (Cow::Owned(json.into_bytes()), true)
                }
                Some(name) => decoded(shape, field(fields, name).ok_or(Shaped::Skipped)?, record)?,
            },
            (None, Some(payload)) => decoded(shape, payload, record)?,
            // What it deletes is all that it says. Data may be empty: WHATWG HTML 9.2.6 drops an event without a
            // `data:` line, and not one whose line is empty.
            (None, None) if shape.tombstone.is_some() => return Ok(Self { bytes: None, made: false }),
            (None, None) => return Err(Shaped::Skipped),
        };
        Ok(Self { bytes: Some(bytes), made })
    }

    /// Whether the record says that its key is gone.
    pub fn is_tombstone(&self) -> bool {
        self.bytes.is_none()
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, |bytes| bytes.len())
    }

    /// What it says as JSON, if it is that.
    pub fn document(&self) -> Option<Document<'_>> {
        Document::parse(str::from_utf8(self.bytes.as_deref()?).ok()?)
    }

    /// What of it is sent, in so many bytes at most, before they are encoded.
    pub fn data<'p>(&'p self, shape: &'p Shape, scope: &Scope<'p>, room: usize) -> Result<Data<'p>, Shaped> {
        let Some(bytes) = &self.bytes else { return Ok(Data::Nothing) };
        if let Some(projection) = &shape.projection {
            let event = scope.event().ok_or(Shaped::Undecodable)?;
            return match project::project(projection, event, scope, room) {
                Ok(json) => Ok(Data::Json(json.into())),
                Err(Fault::TooLarge) => Err(Shaped::TooLarge),
                Err(fault) => Err(Shaped::Unmade(fault)),
            };
        }
        let binary = if self.made { Binary::Gap } else { shape.binary };
        if binary == Binary::Base64 {
            return text(bytes, binary, room).map(|text| Data::Base64(text.into_owned()));
        }
        let text = text(bytes, binary, room)?;
        Ok(if scope.event().is_some() { Data::Json(text) } else { Data::Text(text) })
    }
}

/// A payload as JSON, and whether that was made of it; as it is where it is the matter of `binary`.
fn decoded<'r>(
    shape: &Shape,
    payload: &'r [u8],
    record: &'r impl Record,
) -> Result<(Cow<'r, [u8]>, bool), Shaped> {
    match shape.decode.decode(payload, record.header(schema::HEADER), shape.max_event) {
        Ok(bytes) => Ok((bytes, shape.decode != Decoder::Text)),
        Err(Undecoded::Malformed) => Err(Shaped::Undecodable),
        Err(Undecoded::TooLarge) => Err(Shaped::TooLarge),
    }
}

/// Bytes as the text that is sent.
pub(super) fn text(bytes: &[u8], binary: Binary, room: usize) -> Result<Cow<'_, str>, Shaped> {
    if bytes.len() > room {
        return Err(Shaped::TooLarge);
    }
    match binary {
        Binary::Base64 => Ok(BASE64.encode(bytes).into()),
        Binary::Gap => str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Shaped::Undecodable),
    }
}
