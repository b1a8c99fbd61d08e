//! `ssegate schema`: the JSON Schema of configurations, for editors.

use super::text;
use crate::config;

/// Prints it as it stands in `config.schema.json`.
pub(super) fn run() -> anyhow::Result<()> {
    text::print(&format!("{:#}\n", config::schema()))
}
