//! What is known of one table, and the questions that are asked about it, on whatever connection.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Row as Answer};

use super::horizon::Holder;
use super::query::{self, Statements};
use super::row::Row;
use crate::config::Table;
use crate::upstream::Unanswered;
use crate::upstream::postgres::connection::Dialer;

/// One incarnation of a table.
pub(super) struct Known {
    /// How often its ids went back before, as far as this process knows.
    count: u32,
    /// The server and the database.
    server: String,
    /// The table and its sequences, as each statement about it says.
    pub identity: String,
    /// The id before the first that there can be.
    pub begins: u64,
    sequences: Vec<u32>,
    statements: Statements,
}

/// A connection, and how its answers are waited for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'c> {
    pub client: &'c Client,
    pub dialer: &'c Dialer,
}

/// Where a table begins and ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Its first row.
    pub first: Option<u64>,
    /// The newest id that may have been given.
    pub last: u64,
}

/// Rows, and what the table was when they were read.
pub(super) struct Read {
    /// In the order that was asked for.
    pub rows: Vec<Row>,
    /// Whether there may be more than was read.
    pub more: bool,
    /// The first row of all that the table holds.
    pub first: Option<u64>,
}

/// Which rows to read.
pub(super) enum Which<'w> {
    /// All that follow.
    After(u64),
    /// Those that follow, up to the second, in which the filtered columns have these values.
    Between(u64, u64, &'w [Arc<str>]),
    /// Those up to this one that are not older than these milliseconds of the epoch, the newest first.
    Back(u64, i64, &'w [Arc<str>]),
}

/// Why a question about a table has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// There is another table of that name now.
    #[error("it was created anew, or its ids begin anew")]
    Anew,
    /// The schema of some of its rows is not there yet. The connection is as good as before.
    #[error("{0}")]
    Waits(String),
    /// As the server says.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

impl Known {
    /// Asks what the table is, whose ids went back so often.
    pub(super) async fn of(table: &Table, count: u32, asked: Asked<'_>) -> Result<Self, Unanswered> {
        let name = query::qualified(table);
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&name, Type::TEXT), (&&*table.id, Type::TEXT), (&&*table.data, Type::TEXT)];
        let found = asked.dialer.answer(asked.client.query_typed(query::DESCRIBE, &params)).await?;
        let refused = |why: &str| Unanswered::Refused(why.to_owned());
        let first = found.first().ok_or_else(|| refused(NONE))?;
        if get::<Option<i64>>(first, "oid")?.is_none() {
            return Err(refused(NONE));
        }
        if !get::<bool>(first, "has_id")? {
            return Err(refused(&format!("it has no column {}", table.id)));
        }
        if get(first, "standby")? {
            return Err(refused(STANDBY));
        }
        let mut sequences = Vec::new();
        for row in &found {
            let Some(sequence) = get::<Option<i64>>(row, "sequence")? else {
                return Err(refused(NO_SEQUENCE));
            };
            let in_order = get::<i64>(row, "step")? > 0
                && get::<i64>(row, "cache")? == 1
                && !get::<bool>(row, "cycles")?;
            if !in_order {
                return Err(refused(DISORDERLY));
            }
            sequences.push(u32::try_from(sequence).unwrap_or_default());
        }
        let statements = Statements::new(table, get(first, "binary")?, &sequences);
        let begins = found.iter().map(|row| get::<i64>(row, "begins")).collect::<Result<Vec<_>, _>>()?;
        let mut known = Self {
            count,
            server: get(first, "server")?,
            identity: String::new(),
            begins: begins.into_iter().min().map_or(0, unsigned),
            sequences,
            statements,
        };
        let (identity, _) = known.ask_bounds(asked).await?;
        known.identity = identity;
        Ok(known)
    }

    /// What tells it from all others, for ids.
    pub(super) fn named(&self) -> String {
        let Self { server, identity, count, .. } = self;
        match count {
            0 => format!("{server} {identity}"),
            _ => format!("{server} {identity} {count}"),
        }
    }

    /// Those who may still add rows with ids that were given before now.
    pub(super) async fn holders(&self, asked: Asked<'_>) -> Result<HashSet<Holder>, Unanswered> {
        let params: [(&(dyn ToSql + Sync), Type); 1] = [(&self.sequences, Type::OID_ARRAY)];
        let found = asked.dialer.answer(asked.client.query_typed(query::HOLDERS, &params)).await?;
        found.iter().map(|row| get(row, "virtualtransaction")).collect()
    }

    /// Where it begins and ends.
    pub(super) async fn bounds(&self, asked: Asked<'_>) -> Result<Bounds, Failed> {
        let (identity, bounds) = self.ask_bounds(asked).await?;
        self.check(&identity)?;
        Ok(bounds)
    }

    /// The newest id that was given; `None` where that cannot be known, or none was.
    pub(super) async fn given(&self, asked: Asked<'_>) -> Result<Option<u64>, Unanswered> {
        let row = asked.dialer.answer(asked.client.query_typed_one(&self.statements.given, &[])).await?;
        Ok(get::<Option<i64>>(&row, "given")?.map(unsigned))
    }

    async fn ask_bounds(&self, asked: Asked<'_>) -> Result<(String, Bounds), Unanswered> {
        let row = asked.dialer.answer(asked.client.query_typed_one(&self.statements.bounds, &[])).await?;
        let number = |name: &str| Ok::<_, Unanswered>(get::<Option<i64>>(&row, name)?.map(unsigned));
        // Who may not look at the sequence knows of the rows alone.
        let last = number("last")?.max(number("given")?).unwrap_or(self.begins);
        Ok((get(&row, "identity")?, Bounds { first: number("first")?, last }))
    }

    /// The first row at `id` or after it, with its time in milliseconds of the epoch.
    pub(super) async fn time(&self, asked: Asked<'_>, id: u64) -> Result<Option<(u64, Option<i64>)>, Failed> {
        let params: [(&(dyn ToSql + Sync), Type); 1] = [(&signed(id), Type::INT8)];
        let row = asked.dialer.answer(asked.client.query_typed_one(&self.statements.time, &params)).await?;
        self.check(&get::<String>(&row, "identity")?)?;
        let found = get::<Option<i64>>(&row, "id")?;
        Ok(found.map(|id| Ok::<_, Unanswered>((unsigned(id), get(&row, "time")?))).transpose()?)
    }

    /// Reads at most `count` rows, and no more bytes than one answer may have; what is larger than `max_event` is given as
    /// something that is too large.
    pub(super) async fn read(
        &self,
        asked: Asked<'_>,
        which: Which<'_>,
        count: usize,
        max_event: usize,
    ) -> Result<Read, Failed> {
        let (statement, from, to, values) = match which {
            Which::After(at) => (&self.statements.live, signed(at), None, &[][..]),
            Which::Between(at, to, values) => (&self.statements.range, signed(at), Some(signed(to)), values),
            Which::Back(at, since, values) => (&self.statements.range_back, since, Some(signed(at)), values),
        };
        let (limit, max_event) = (count as i64, i32::try_from(max_event).unwrap_or(i32::MAX - 1));
        let mut params: Vec<(&(dyn ToSql + Sync), Type)> =
            vec![(&from, Type::INT8), (&limit, Type::INT8), (&max_event, Type::INT4)];
        params.extend(to.as_ref().map(|to| (to as &(dyn ToSql + Sync), Type::INT8)));
        let values: Vec<&str> = values.iter().map(|value| &**value).collect();
        params.extend(values.iter().map(|value| (value as &(dyn ToSql + Sync), Type::TEXT)));
        asked.dialer.answer(async { Ok(self.take(asked, statement, params, count).await) }).await?
    }

    async fn take(
        &self,
        asked: Asked<'_>,
        statement: &str,
        params: Vec<(&(dyn ToSql + Sync), Type)>,
        count: usize,
    ) -> Result<Read, Failed> {
        let answers = asked.client.query_typed_raw(statement, params).await;
        let mut answers = std::pin::pin!(asked.dialer.said(answers)?);
        let (mut read, mut bytes) = (Read { rows: Vec::new(), more: false, first: None }, 0);
        while let Some(answer) = asked.dialer.said(answers.try_next().await)? {
            self.check(&get::<String>(&answer, "identity")?)?;
            read.first = get::<Option<i64>>(&answer, "first")?.map(unsigned);
            let Some(row) = Row::of(&answer)? else { break };
            bytes += row.size();
            read.rows.push(row);
            if bytes > MOST_BYTES {
                read.more = true;
                return Ok(read);
            }
        }
        read.more = read.rows.len() >= count;
        Ok(read)
    }

    fn check(&self, identity: &str) -> Result<(), Failed> {
        if self.identity == identity { Ok(()) } else { Err(Failed::Anew) }
    }
}

/// A column of an answer.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Answer, name: &str) -> Result<T, Unanswered> {
    row.try_get(name).map_err(|error| Unanswered::Refused(format!("an answer is not understood: {error}")))
}

/// Ids count from 1; what a table has before that is not read.
pub(super) fn unsigned(id: i64) -> u64 {
    u64::try_from(id).unwrap_or(0)
}

fn signed(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

const NONE: &str = "there is no such table in the schemas that this role may use";
const STANDBY: &str =
    "this server is a standby, which does not know of transactions that are open; name the primary";
const NO_SEQUENCE: &str = "no sequence gives its ids, so that their order tells nothing; make the column an identity, or a bigserial";
const DISORDERLY: &str = "the sequence of its ids does not give them in order; set it to CACHE 1, NO CYCLE and an INCREMENT above 0";
/// Bytes of one answer: rows beyond them are read anew.
const MOST_BYTES: usize = 4 << 20;
