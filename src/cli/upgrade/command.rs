//! `ssegate upgrade`: asks a running ssegate to have another process take its place, and waits for how that ends.

use clap::Args;

use crate::cli::operator::{self, Operator};
use crate::cli::text;

/// The arguments of `upgrade`.
#[derive(Debug, Args)]
#[command(after_help = ABOUT)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    operator: operator::Options,
}

const ABOUT: &str = "The new process is given the listening sockets, fills its logs, and serves; then the old one drains. \
If the new one does not come up, the old one goes on, and this says why. SIGUSR2 does the same, without an answer.\n\n\
Exit status: 0 when the new process serves, 1 otherwise.";

/// Asks once, and prints who serves now.
///
/// # Errors
/// Why there was no upgrade.
pub(in crate::cli) fn run(options: &Options) -> anyhow::Result<()> {
    let operator = Operator::new(&options.operator)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (old, new) = runtime.block_on(operator.upgrade())?;
    text::print(&format!("process {new} serves; process {old} drains\n"))
}
