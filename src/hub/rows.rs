//! Rows of a table: all of them, or those in which some columns have these values.

use std::sync::Arc;

use crate::config::Table;

/// What a feed reads of a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rows {
    /// The table, and what its columns mean.
    pub table: Arc<Table>,
    /// What the columns that it filters by are to be, in its order.
    pub values: Arc<[Arc<str>]>,
    /// As operators know them.
    name: Arc<str>,
}

impl Rows {
    /// The rows that have these values.
    pub fn new(table: &Arc<Table>, values: Arc<[Arc<str>]>) -> Self {
        let filtered = table.filtered.iter().zip(values.iter());
        let filtered: Vec<_> = filtered.map(|(column, value)| format!("{column}={value}")).collect();
        let name =
            if filtered.is_empty() { table.to_string() } else { format!("{table}[{}]", filtered.join(",")) };
        Self { table: Arc::clone(table), values, name: name.into() }
    }

    /// As operators know them.
    pub fn name(&self) -> &str {
        &self.name
    }
}
