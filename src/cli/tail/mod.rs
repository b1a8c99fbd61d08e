//! `ssegate tail`: an `EventSource` on the terminal. Events go to standard output, all that is about them (gaps,
//! reconnects) to standard error.

mod gap;
mod options;
mod session;
mod show;

use std::process::ExitCode;

pub(super) use options::Options;

use session::Session;

/// Follows a stream until it is over for good.
pub(super) fn run(options: Options) -> anyhow::Result<ExitCode> {
    // One stream needs one thread. Ctrl-C ends the process as it does any other: with nothing said, and 130 in a shell.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(Session::new(options)?.follow());
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}
