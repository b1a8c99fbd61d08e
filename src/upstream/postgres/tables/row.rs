//! Rows as Postgres sends them, and as records.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_postgres::Row as Answer;
use tokio_postgres::types::{FromSql, Type};

use super::known::{get, unsigned};
use crate::shape::Record;
use crate::upstream::Unanswered;

/// One row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Its id.
    pub id: u64,
    data: Option<Vec<u8>>,
    event: Option<String>,
    key: Option<Vec<u8>>,
    /// When it was added, in milliseconds of the epoch.
    pub time: Option<i64>,
    /// What the filtered columns are, in order; nothing where one is no text, as no parameter of a path is.
    pub values: Vec<Option<String>>,
}

impl Row {
    /// The row of an answer, if there was one to answer with.
    pub(super) fn of(answer: &Answer) -> Result<Option<Self>, Unanswered> {
        let Some(id) = get::<Option<i64>>(answer, "id")? else { return Ok(None) };
        let bytes = |name: &str| {
            let value = get::<Option<Raw<'_>>>(answer, name)?;
            Ok::<_, Unanswered>(value.map(|Raw(bytes)| bytes.to_vec()))
        };
        let text = |at: usize| {
            let value = bytes(&format!("w{at}"))?;
            Ok(value.and_then(|value| String::from_utf8(value).ok()))
        };
        Ok(Some(Self {
            id: unsigned(id),
            data: bytes("data")?,
            event: bytes("event")?.map(|name| String::from_utf8_lossy(&name).into_owned()),
            key: bytes("key")?,
            time: get(answer, "time")?,
            values: (0..answer.len() - FIXED).map(text).collect::<Result<_, Unanswered>>()?,
        }))
    }

    /// Bytes of what is sent of it.
    pub(super) fn size(&self) -> usize {
        self.data.as_ref().map_or(0, Vec::len)
    }
}

/// Columns before those that are filtered: identity, first, id, data, event, key, time.
const FIXED: usize = 7;

/// Text or bytes, as they come.
struct Raw<'r>(&'r [u8]);

impl<'r> FromSql<'r> for Raw<'r> {
    fn from_sql(_: &Type, raw: &'r [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A row as a record.
pub(super) struct Item<'r> {
    /// The table's name.
    pub table: &'r str,
    /// The row; without one the place alone is told, up to which there is nothing else.
    pub row: Option<&'r Row>,
}

impl Record for Item<'_> {
    fn payload(&self) -> Option<&[u8]> {
        self.row?.data.as_deref()
    }

    fn name(&self) -> &str {
        self.table
    }

    fn key(&self) -> Option<&[u8]> {
        self.row?.key.as_deref()
    }

    fn timestamp(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.row?.time.map(unsigned)?))
    }

    fn event(&self) -> Option<&str> {
        self.row?.event.as_deref()
    }
}
