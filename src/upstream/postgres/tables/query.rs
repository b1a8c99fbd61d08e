//! The statements about one table. Its name and those of its columns are quoted; all values are parameters. Each is one
//! statement, and so sees one moment: whether the table is still the one that is meant is asked within it.

use crate::config::Table;
use crate::upstream::postgres::connection::quoted;

/// The statements, made once for each session.
pub(super) struct Statements {
    /// Rows after `$1`, `$2` at most, in order; what is larger than `$3` bytes is given as something that is too large.
    pub live: String,
    /// The same of those that `where` means, `$5` and on, up to `$4`.
    pub range: String,
    /// Those up to `$4`, the newest first, but for those older than `$1` milliseconds of the epoch.
    pub range_back: String,
    /// Where the table begins and ends.
    pub bounds: String,
    /// The newest id that was given. Whoever looks at a sequence locks it, so that it is no part of what takes long.
    pub given: String,
    /// The first row at `$1` or after it, with its time.
    pub time: String,
}

/// What the table is, by its quoted name `$1` and the column of its ids `$2`.
pub(super) const DESCRIBE: &str = "\
SELECT c.oid::int8 AS oid, a.attnum IS NOT NULL AS has_id, pg_is_in_recovery() AS standby,
  (SELECT system_identifier::text FROM pg_control_system()) || ' ' ||
    (SELECT oid::text FROM pg_database WHERE datname = current_database()) AS server,
  coalesce((SELECT d.atttypid = 'bytea'::regtype FROM pg_attribute d
    WHERE d.attrelid = c.oid AND d.attname = $3), false) AS binary,
  s.seqrelid::int8 AS sequence, s.seqincrement AS step, s.seqcache AS cache, s.seqcycle AS cycles,
  s.seqstart - s.seqincrement AS begins
FROM (SELECT to_regclass($1)::oid AS oid) c
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $2
LEFT JOIN pg_sequence s ON s.seqrelid IN (
  SELECT d.objid FROM pg_depend d
  WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
    AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
  UNION
  SELECT d.refobjid FROM pg_attrdef f
  JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
  WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum)";

/// Transactions that have taken an id of the sequences `$1` and have not ended.
pub(super) const HOLDERS: &str = "\
SELECT DISTINCT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = ANY($1) AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

impl Statements {
    /// Those of a table whose data is `binary`, or read as text, and whose ids these sequences give.
    pub(super) fn new(table: &Table, binary: bool, sequences: &[u32]) -> Self {
        let (name, id) = (qualified(table), quoted(&table.id));
        let identity = identity(table, sequences);
        let row = row(table, binary);
        let filter: String = (5..)
            .zip(&table.filtered)
            .map(|(parameter, column)| format!(" AND {}::text = ${parameter}", quoted(column)))
            .collect();
        let rows = |condition: &str, order: &str| {
            format!(
                "SELECT i.identity, i.first, r.* FROM ({identity}) i LEFT JOIN LATERAL (SELECT {row} FROM {name} \
                 WHERE {condition} ORDER BY {id} {order} LIMIT $2) r ON true ORDER BY r.id {order}"
            )
        };
        let given = given(sequences);
        let young = table.time.as_ref().map_or("$1::int8 IS NOT NULL".to_owned(), |time| {
            format!("coalesce({} >= $1, true)", millis(time))
        });
        Self {
            live: rows(&format!("{id} > $1"), ""),
            range: rows(&format!("{id} > $1 AND {id} <= $4{filter}"), ""),
            range_back: rows(&format!("{id} > 0 AND {id} <= $4 AND {young}{filter}"), "DESC"),
            bounds: format!(
                "SELECT i.identity, i.first, (SELECT max({id})::int8 FROM {name}) AS last, {given} AS given \
                 FROM ({identity}) i"
            ),
            given: format!("SELECT {given} AS given"),
            time: format!(
                "SELECT i.identity, i.first, r.* FROM ({identity}) i LEFT JOIN LATERAL (SELECT {id}::int8 AS id, {} AS \
                 time FROM {name} WHERE {id} >= $1 ORDER BY {id} LIMIT 1) r ON true",
                table.time.as_ref().map_or("NULL::int8".to_owned(), |time| millis(time)),
            ),
        }
    }
}

/// The table's name as it stands in statements.
pub(super) fn qualified(table: &Table) -> String {
    let schema = table.name.0.as_ref().map(|schema| format!("{}.", quoted(schema)));
    format!("{}{}", schema.unwrap_or_default(), quoted(&table.name.1))
}

/// What tells the table from others that have, or had, its name; and its first row. A sequence that is restarted has another
/// file.
fn identity(table: &Table, sequences: &[u32]) -> String {
    let (name, id) = (qualified(table), quoted(&table.id));
    let sequences = listed(sequences);
    format!(
        "SELECT concat_ws(' ', to_regclass('{}')::oid, (SELECT string_agg(concat(c.oid, '/', c.relfilenode), ' ' ORDER BY \
         c.oid) FROM pg_class c WHERE c.oid IN ({sequences}))) AS identity, (SELECT min({id})::int8 FROM {name} WHERE {id} > 0) AS first",
        name.replace('\'', "''")
    )
}

/// The newest id that a sequence has given, whoever was given it; nothing where it has given none yet, or may not be looked at.
fn given(sequences: &[u32]) -> String {
    format!(
        "(SELECT max(CASE WHEN has_sequence_privilege(s.id, 'SELECT, USAGE') THEN pg_sequence_last_value(s.id) END) \
         FROM unnest(ARRAY[{}]::oid[]) s(id))",
        listed(sequences)
    )
}

fn listed(sequences: &[u32]) -> String {
    sequences.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// What is read of a row.
fn row(table: &Table, binary: bool) -> String {
    let data = quoted(&table.data);
    let (data, filling) = match binary {
        true => (data, "convert_to(repeat('x', $3 + 1), 'UTF8')"),
        false => (format!("{data}::text"), "repeat('x', $3 + 1)"),
    };
    let text = |column: &Option<_>| {
        column.as_ref().map_or("NULL".to_owned(), |column: &std::sync::Arc<str>| quoted(column))
    };
    let mut row = format!(
        "{}::int8 AS id, CASE WHEN octet_length({data}) > $3 THEN {filling} ELSE {data} END AS data, \
         {}::text AS event, {}::text AS key, {} AS time",
        quoted(&table.id),
        text(&table.event),
        text(&table.key),
        table.time.as_ref().map_or("NULL::int8".to_owned(), |time| millis(time)),
    );
    for (at, column) in table.filtered.iter().enumerate() {
        row.push_str(&format!(", {}::text AS w{at}", quoted(column)));
    }
    row
}

/// A time as milliseconds of the epoch; nothing of one that never comes.
fn millis(column: &str) -> String {
    let column = quoted(column);
    format!("CASE WHEN isfinite({column}) THEN (extract(epoch FROM {column}) * 1000)::int8 END")
}
