//! Entries as Redis sends them, and as records.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::Value;

use super::id;
use crate::hub::Offset;
use crate::shape::{Fields, Record};

/// One entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its id.
    pub id: Offset,
    /// Its fields with their values, in order.
    fields: Fields,
    /// Bytes of all of them.
    size: usize,
}

/// An answer that is not what Redis documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Redis gave an answer that is not understood")]
pub(super) struct Malformed;

/// The entries of each stream in the answer to XREAD, which is pairs, or a map over RESP3; none where it waited in
/// vain.
pub(super) fn streams(answer: Value) -> Result<Vec<(String, Vec<Entry>)>, Malformed> {
    let streams = match answer {
        Value::Nil => return Ok(Vec::new()),
        Value::Map(streams) => streams,
        other => array(other)?
            .into_iter()
            .map(|value| Ok(pair(value)?.into()))
            .collect::<Result<_, Malformed>>()?,
    };
    let stream =
        |(name, found)| Ok((String::from_utf8(bytes(name)?).map_err(|_| Malformed)?, entries(found)?));
    streams.into_iter().map(stream).collect()
}

/// The entries in the answer to XRANGE or XREVRANGE, in its order.
pub(super) fn entries(answer: Value) -> Result<Vec<Entry>, Malformed> {
    array(answer)?.into_iter().map(Entry::parse).collect()
}

/// Bytes of their fields and values.
pub(super) fn size(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.size).sum()
}

impl Entry {
    fn parse(value: Value) -> Result<Self, Malformed> {
        let [own, found] = pair(value)?;
        let own = bytes(own)?;
        let id = str::from_utf8(&own).ok().and_then(id::parse).ok_or(Malformed)?;
        let mut found = array(found)?.into_iter();
        let (mut fields, mut size) = (Fields::new(), 0);
        while let Some(name) = found.next() {
            let (name, value) = (bytes(name)?, bytes(found.next().ok_or(Malformed)?)?);
            size += name.len() + value.len();
            fields.push((name, value));
        }
        Ok(Self { id, fields, size })
    }
}

fn array(value: Value) -> Result<Vec<Value>, Malformed> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(Malformed),
    }
}

fn pair(value: Value) -> Result<[Value; 2], Malformed> {
    array(value)?.try_into().map_err(|_| Malformed)
}

fn bytes(value: Value) -> Result<Vec<u8>, Malformed> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err(Malformed),
    }
}

/// An entry as a record.
#[derive(Clone, Copy)]
pub(super) struct Item<'e> {
    /// The stream's name.
    pub stream: &'e str,
    /// The entry.
    pub entry: &'e Entry,
}

impl Record for Item<'_> {
    fn payload(&self) -> Option<&[u8]> {
        None
    }

    fn name(&self) -> &str {
        self.stream
    }

    fn fields(&self) -> Option<&Fields> {
        Some(&self.entry.fields)
    }

    fn timestamp(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.entry.id.major))
    }

    fn id(&self) -> Option<String> {
        Some(super::id::show(self.entry.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn list(values: impl Into<Vec<Value>>) -> Value {
        Value::Array(values.into())
    }

    #[test]
    fn answers() {
        let entry = list([bulk("5-1"), list([bulk("a"), bulk("1"), bulk("b"), bulk("22")])]);
        let read = streams(list([list([bulk("s"), list([entry.clone()])])])).unwrap();
        let fields = vec![(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"22".to_vec())];
        let expected = Entry { id: Offset { major: 5, minor: 1 }, fields, size: 5 };
        assert_eq!(read, [("s".to_owned(), vec![expected.clone()])]);
        assert_eq!(streams(Value::Map(vec![(bulk("s"), list([entry.clone()]))])).unwrap(), read);
        assert_eq!(entries(list([entry])).unwrap(), [expected]);
        assert_eq!(streams(Value::Nil).unwrap(), []);
    }

    #[test]
    fn what_is_no_answer_is_no_crash() {
        for value in [
            Value::Okay,
            list([Value::Nil]),
            list([list([bulk("5-1")])]),
            list([list([bulk("5"), list([])])]),
            list([list([bulk("5-1"), list([bulk("lonely")])])]),
            list([list([bulk("5-1"), Value::Nil])]),
        ] {
            assert!(entries(value.clone()).is_err(), "{value:?}");
            assert!(streams(list([list([bulk("s"), value.clone()])])).is_err(), "{value:?}");
        }
    }
}
