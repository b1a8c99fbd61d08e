//! Processes that the tool starts. None outlives it: they are ended when dropped, and by the kernel when the
//! tool dies without dropping anything.

use std::process::{Child as Process, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

/// A process, ended when dropped.
pub struct Child {
    process: Process,
    name: String,
}

impl Child {
    /// Starts what `arguments` say, on these cores alone if there are any. `setup` sets environment and streams.
    ///
    /// # Errors
    /// Where there is no such program. setpriv and taskset are part of util-linux.
    pub fn start(
        arguments: &[&str],
        cores: &[usize],
        setup: impl FnOnce(&mut Command) -> &mut Command,
    ) -> anyhow::Result<Self> {
        // Both replace themselves by what they start, so that the process is the program's own.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if !cores.is_empty() {
            let list: Vec<_> = cores.iter().map(usize::to_string).collect();
            command.args(["taskset", "-c", &list.join(",")]);
        }
        command.args(arguments);
        let name = arguments.first().copied().unwrap_or_default().to_owned();
        let process = setup(&mut command).spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { process, name })
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// What was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process, for its streams.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.process.try_wait()?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + LEAVE;
        while Instant::now() < deadline {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        eprintln!("{} did not end within {LEAVE:?} of SIGTERM; killed", self.name);
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Keeps this process, threads to come included, on one core.
///
/// # Errors
/// Where there is no such core for us.
pub fn pin_self(core: usize) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("cannot move to core {core}; try --no-pin"))
}

/// How long a process may take to end.
const LEAVE: Duration = Duration::from_secs(10);
