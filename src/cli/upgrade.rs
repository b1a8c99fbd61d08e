//! Upgrading in place: another process of the same command, and so of whatever binary and configuration are there by now,
//! is given the listening sockets. Only when it serves does this one drain; if it does not come up, this one goes on.

mod command;

use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

pub(super) use command::{Options, run};

/// Whether this process was started to take the place of another one.
pub(super) fn is_successor() -> bool {
    std::env::var_os(SUCCESSOR).is_some()
}

/// Tells the predecessor that this process serves.
pub(super) fn tell_predecessor() {
    // If it is gone, nobody waits to be told.
    let _ = writeln!(std::io::stdout(), "{READY}");
}

/// Tells the predecessor, if there is one, why this process does not come up.
pub(super) fn tell_why_not(error: &anyhow::Error) {
    if is_successor() {
        let _ = write!(std::io::stdout(), "{error:#}");
    }
}

/// Starts the successor, which takes over these sockets, and waits until it serves. It goes on by itself then.
///
/// # Errors
/// Why it did not come up. It is gone then.
pub(super) async fn succeed(sockets: Vec<OwnedFd>) -> anyhow::Result<u32> {
    if std::process::id() == 1 {
        bail!(
            "with process 1 of a container all others end, the new one too; start another container instead"
        );
    }
    let mut successor =
        Successor { process: start(&sockets).context("starting another process failed")?, serves: false };
    let pid = successor.process.id().context("it ended at once")?;
    tracing::info!(pid, "a successor starts");
    let said = successor.process.stdout.take().map(BufReader::new).context("its output cannot be read")?;
    let outcome = timeout(PATIENCE, successor.outcome(said)).await;
    outcome.unwrap_or_else(|_| bail!("it was not ready within {PATIENCE:?}, and was ended"))?;
    successor.serves = true;
    Ok(pid)
}

/// The other process, and whether it serves: until then it ends with this.
struct Successor {
    process: Child,
    serves: bool,
}

impl Successor {
    /// Waits until it serves, or has ended with what it said of why.
    async fn outcome(&mut self, said: impl AsyncBufRead + Unpin) -> anyhow::Result<()> {
        let mut said = said.take(MOST);
        let mut why = String::new();
        said.read_line(&mut why).await?;
        if why.trim_end() == READY {
            return Ok(());
        }
        said.read_to_string(&mut why).await?;
        let status = self.process.wait().await?;
        match why.trim() {
            "" => bail!("it ended before it was ready ({status}); its log says why"),
            why => bail!("it ended before it was ready ({status}): {why}"),
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if !self.serves {
            // One that has ended already cannot be killed.
            let _ = self.process.start_kill();
        }
    }
}

/// The sockets stand in a row there, as the protocol wants it.
fn start(sockets: &[OwnedFd]) -> anyhow::Result<Child> {
    let row = in_a_row(sockets)?;
    for socket in &row.sockets {
        fcntl_setfd(socket, FdFlags::empty())?;
    }
    let mut args = std::env::args_os();
    // Not /proc/self/exe: that is the old binary, also once another one stands in its place.
    let program = args.next().context("this process has no name")?;
    let child = Command::new(program)
        .args(args)
        .env(SUCCESSOR, "1")
        .env("LISTEN_FDS", row.sockets.len().to_string())
        .env("LISTEN_FDS_FIRST_FD", row.first.to_string())
        .env_remove("LISTEN_PID")
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    Ok(child)
}

struct Row {
    first: i32,
    sockets: Vec<OwnedFd>,
}

/// Copies of the sockets, with numbers that follow each other.
fn in_a_row(sockets: &[OwnedFd]) -> anyhow::Result<Row> {
    use std::os::fd::AsRawFd as _;
    let mut first = FIRST;
    loop {
        let copies =
            (first..).zip(sockets).map(|(number, socket)| fcntl_dupfd_cloexec(socket.as_fd(), number));
        let copies = copies.collect::<Result<Vec<_>, _>>()?;
        let stray = (first..).zip(&copies).find(|(number, copy)| copy.as_raw_fd() != *number);
        match stray {
            None => return Ok(Row { first, sockets: copies }),
            // Somebody has a number between. Beyond the one that was free there is room, sooner or later.
            Some((_, copy)) => first = copy.as_raw_fd() + 1,
        }
    }
}

/// Set for a successor.
const SUCCESSOR: &str = "SSEGATE_SUCCESSOR";
/// What a successor says on its standard output; anything else there is why it cannot.
const READY: &str = "ready";
/// Bytes that it may say.
const MOST: u64 = 1 << 20;
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Beyond standard input, output and error.
const FIRST: i32 = 3;
