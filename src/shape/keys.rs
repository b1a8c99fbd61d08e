//! The keys of a record: what `by` makes of it, for a route that keeps the newest of each key.

use std::borrow::Cow;

use super::{Record, field, value};
use crate::config::{Digest, Field, Part, Template};
use crate::expression::Json;

/// The keys of a record; none where nobody asks for one, or the record lacks a field of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Keys<'r> {
    /// That by which it is conflated.
    pub conflate: Option<Cow<'r, [u8]>>,
    /// That by which it is in snapshots.
    pub snapshot: Option<Cow<'r, [u8]>>,
}

impl<'r> Keys<'r> {
    /// Those of `record`, whose payload says `event` if it is JSON, and was read as that.
    pub(super) fn of(digest: &Digest, record: &'r impl Record, event: Option<Json<'_>>) -> Self {
        let key = |by: &Template| key(by, record, event);
        Self {
            conflate: digest.conflate.as_ref().and_then(|conflate| key(&conflate.by)),
            snapshot: digest.snapshot.as_ref().and_then(|snapshot| key(&snapshot.by)),
        }
    }
}

/// Whether keys are made of what payloads say as JSON.
pub(super) fn read_json(digest: &Digest) -> bool {
    let by = [digest.conflate.as_ref().map(|own| &own.by), digest.snapshot.as_ref().map(|own| &own.by)];
    by.into_iter().flatten().flat_map(Template::fields).any(|field| matches!(field, Field::Event(_)))
}

fn key<'r>(by: &Template, record: &'r impl Record, event: Option<Json<'_>>) -> Option<Cow<'r, [u8]>> {
    // A field alone as it is: what is no text may be a key.
    match by.parts() {
        [Part::Field(Field::Key)] => return record.key().map(Cow::Borrowed),
        [Part::Field(Field::Header(name))] => return record.header(name).map(Cow::Borrowed),
        [Part::Field(Field::Entry(name))] => return field(record.fields()?, name).map(Cow::Borrowed),
        _ => {}
    }
    let mut is_whole = true;
    let text = by.fill(|field| {
        let value = value(field, record, event);
        is_whole &= value.is_some();
        value
    });
    is_whole.then(|| Cow::Owned(text.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::{Fields, Shape, Shaped};
    use super::*;
    use crate::config::Conflate;

    /// A record of some kind.
    #[derive(Default)]
    struct Of {
        payload: Option<&'static [u8]>,
        key: Option<&'static [u8]>,
        fields: Option<Fields>,
    }

    impl Record for Of {
        fn payload(&self) -> Option<&[u8]> {
            self.payload
        }
        fn name(&self) -> &str {
            "orders"
        }
        fn key(&self) -> Option<&[u8]> {
            self.key
        }
        fn header(&self, name: &str) -> Option<&[u8]> {
            (name == "type" && self.payload.is_some()).then_some(b"sold\nout")
        }
        fn routing_key(&self) -> Option<&str> {
            Some("eu.sold")
        }
        fn fields(&self) -> Option<&Fields> {
            self.fields.as_ref()
        }
    }

    /// The key of a record, and what became of it.
    fn keyed(by: &str, record: &Of) -> (Shaped, Option<Vec<u8>>) {
        let conflate = Conflate { by: Template::parse(by).unwrap(), every: std::time::Duration::ZERO };
        let digest = Digest { conflate: Some(conflate), ..Digest::default() };
        let shape = Shape { digest: digest.into(), max_event: 32, ..Shape::default() };
        let (shaped, keys, _) = shape.encode(record, &String::new, &mut Vec::new());
        assert_eq!(keys.snapshot, None);
        (shaped, keys.conflate.map(Cow::into_owned))
    }

    #[test]
    fn a_key_is_whole_or_there_is_none() {
        let (named, nameless) = (Of { key: Some(b"\xff"), ..Of::default() }, Of::default());
        let key = |by: &str, record: &Of| keyed(by, record).1;
        assert_eq!(key("{key}", &named), Some(b"\xff".to_vec()), "as it is, text or not");
        assert_eq!(keyed("{key}", &nameless), (Shaped::Skipped, None));
        assert_eq!(
            keyed("{topic}/{key}", &Of { key: Some(b"7"), ..Of::default() }),
            (Shaped::Skipped, Some(b"orders/7".to_vec())),
            "that of a tombstone as well"
        );
        assert_eq!(key("{topic}/{key}", &nameless), None);
        assert_eq!(key("{header.type}", &named), None);
        let message = Of { payload: Some(b"x"), ..Of::default() };
        assert_eq!(key("{header.type}", &message).as_deref(), Some(&b"sold\nout"[..]));
        assert_eq!(key("{subject}:{routing_key}", &message).as_deref(), Some(&b"orders:eu.sold"[..]));
        let entry = Of { fields: Some(vec![(b"id".to_vec(), b"a".to_vec())]), ..Of::default() };
        assert_eq!(key("{field.id}", &entry).as_deref(), Some(&b"a"[..]));
        assert!(named.deletes() && !entry.deletes() && !message.deletes());
    }

    #[test]
    fn a_key_within_a_payload() {
        let of = |payload| keyed("{event.id}/{event.at.0}", &Of { payload: Some(payload), ..Of::default() });
        assert_eq!(of(br#"{"id":"a","at":[2.50]}"#), (Shaped::Event, Some(b"a/2.50".to_vec())));
        for payload in [&br#"{"id":"a"}"#[..], br#"{"id":null,"at":[1]}"#, b"no json"] {
            assert_eq!(of(payload), (Shaped::Event, None));
        }
        assert_eq!(of(b"{\"id\":\"\xff\",\"at\":[1]}"), (Shaped::Undecodable, None));
        assert_eq!(of(br#"{"id":"a","at":[1],"more":"than is sent"}"#), (Shaped::TooLarge, None));
    }
}
