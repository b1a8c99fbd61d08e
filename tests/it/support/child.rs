//! Child processes that never outlive the tests: not after a panic, a leak, a static or a SIGKILL.
//!
//! Each child leads a process group of its own, and dropping it kills the group and reaps it. For
//! what is never dropped, `setpriv --pdeathsig` asks the kernel to kill the child with its parent.
//! The kernel means the parent *thread*, and libtest's threads end with each test: so one thread that
//! never ends starts every child.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt;
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, mpsc};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, kill_process, kill_process_group, setrlimit,
};

use super::wait::eventually;

/// A command for [`Child::spawn`]: `program` that dies with this process, with no stdin. SIGINT ends it, as it would not
/// where the tests are run in the background of a script: shells have that ignored there, and children take it over.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", "setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
    command.stdin(Stdio::null()).process_group(0);
    command
}

/// Lets this process, and with it those that it starts, open as many files as the system allows. Returns how many.
pub fn raise_descriptor_limit() -> Option<u64> {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).expect("below the hard limit");
    hard
}

/// A running child process, the leader of its own group.
pub struct Child {
    process: process::Child,
    group: Pid,
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts what [`command`] made.
    pub fn spawn(command: Command) -> Self {
        let (reply, started) = mpsc::sync_channel(1);
        NURSERY.lock().unwrap().send((command, reply)).expect("the nursery thread");
        let process = started.recv().expect("the nursery thread").expect("setpriv starts the child");
        Self { group: Pid::from_child(&process), process, status: None }
    }

    /// The process's standard output or error, where the command piped it; can be taken once.
    pub fn take_output(&mut self) -> (Option<process::ChildStdout>, Option<process::ChildStderr>) {
        (self.process.stdout.take(), self.process.stderr.take())
    }

    /// Writes to its standard input, which the command piped, and keeps that open.
    pub fn type_in(&mut self, bytes: &[u8]) {
        self.process.stdin.as_mut().expect("stdin is piped").write_all(bytes).expect("it reads");
    }

    /// The process id of the leader.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it answers as the server called so; `None` where it has ended before, as one does whose port is taken.
    pub async fn once_up<E: Display>(
        mut self,
        name: &str,
        mut probe: impl AsyncFnMut() -> Result<(), E>,
    ) -> Option<Self> {
        let up = eventually(&format!("{name} to answer"), async || {
            if self.try_wait().is_some() {
                return Ok(false);
            }
            probe().await.map(|()| true)
        })
        .await;
        up.then_some(self)
    }

    /// Sends a signal to the leader alone; panics where it has ended.
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.try_wait().is_none(), "the child has ended: {:?}", self.status);
        kill_process(self.group, signal).expect("signal");
    }

    /// Sends a signal to the whole group; panics where the leader has ended.
    pub fn signal_group(&mut self, signal: Signal) {
        assert!(self.try_wait().is_none(), "the child has ended: {:?}", self.status);
        kill_process_group(self.group, signal).expect("signal");
    }

    /// Its exit status, once it has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.process.try_wait().expect("waitpid");
        }
        self.status
    }

    /// Waits until it has ended by itself.
    pub async fn wait_exit(&mut self, what: &str) -> ExitStatus {
        eventually(what, async || self.try_wait().ok_or("still running")).await
    }

    /// Kills the group with SIGKILL and reaps the leader. Does nothing the second time.
    pub fn kill(&mut self) {
        if self.status.is_none() {
            // The group may be gone already; its id cannot have been reused before the leader is reaped.
            let _ = kill_process_group(self.group, Signal::KILL);
            self.status = Some(self.process.wait().expect("waitpid"));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

type Order = (Command, mpsc::SyncSender<io::Result<process::Child>>);

static NURSERY: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
    let (orders, inbox) = mpsc::channel::<Order>();
    let work = move || {
        for (mut command, reply) in inbox {
            let _ = reply.send(command.spawn());
        }
    };
    std::thread::Builder::new().name("nursery".into()).spawn(work).expect("a thread");
    Mutex::new(orders)
});
