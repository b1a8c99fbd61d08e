//! What a process uses, and how much of a core others took meanwhile, by `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident.
    pub rss: u64,
    /// Resident, pages that are shared with other processes counted in part.
    pub pss: u64,
}

impl Memory {
    /// What process `pid` has now.
    ///
    /// # Errors
    /// Where there is no such process, or it is another user's.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let text = read(&format!("/proc/{pid}/smaps_rollup"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024).with_context(|| format!("no {name} in smaps_rollup"))
        };
        Ok(Self { rss: field("Rss:")?, pss: field("Pss:")? })
    }
}

/// User and system time that process `pid` has used in all its threads. The kernel's work on loopback sockets
/// is in it, both directions' as far as sending sets it off.
///
/// # Errors
/// Where there is no such process.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let text = read(&format!("/proc/{pid}/stat"))?;
    // The name before it may hold anything.
    let (_, fields) = text.rsplit_once(')').context("no name in stat")?;
    let mut fields = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let (Some(Ok(user)), Some(Ok(system))) = (fields.next(), fields.next()) else {
        anyhow::bail!("no times in stat");
    };
    Ok(ticks(user + system))
}

/// A stretch of time in which a process is watched.
pub struct Watch {
    pid: u32,
    core: usize,
    began: Instant,
    cpu: Duration,
    busy: Duration,
    own: Duration,
}

/// What a stretch came to.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// How long it was.
    pub elapsed: Duration,
    /// CPU time of the process.
    pub cpu: Duration,
    /// CPU time that others took of its core: noise.
    pub others: Duration,
    /// CPU time of this tool.
    pub own: Duration,
}

impl Watch {
    /// Begins to watch `pid`, which is alone on `core` as far as we know.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn begin(pid: u32, core: usize) -> anyhow::Result<Self> {
        let (began, busy, own) = (Instant::now(), core_busy(core)?, cpu_time(std::process::id())?);
        Ok(Self { pid, core, began, cpu: cpu_time(pid)?, busy, own })
    }

    /// For how long it has watched.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// What was spent since.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn end(&self) -> anyhow::Result<Spent> {
        let cpu = cpu_time(self.pid)? - self.cpu;
        Ok(Spent {
            elapsed: self.began.elapsed(),
            cpu,
            others: (core_busy(self.core)? - self.busy).saturating_sub(cpu),
            own: cpu_time(std::process::id())? - self.own,
        })
    }
}

/// Time in which a core did anything, or was taken by the machine's host.
fn core_busy(core: usize) -> anyhow::Result<Duration> {
    let text = read("/proc/stat")?;
    let name = format!("cpu{core} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)).context("no such core")?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    Ok(ticks(fields.iter().take(8).sum::<u64>() - fields[3] - fields[4]))
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}
