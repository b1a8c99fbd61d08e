//! What the processes of a server use, and how much of their cores others took meanwhile, by `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// The processes of a server: those that were started, and all that these have started.
#[derive(Debug, Clone)]
pub struct Processes(Vec<u32>);

impl From<u32> for Processes {
    fn from(pid: u32) -> Self {
        Self(vec![pid])
    }
}

impl FromIterator<u32> for Processes {
    fn from_iter<T: IntoIterator<Item = u32>>(pids: T) -> Self {
        Self(pids.into_iter().collect())
    }
}

impl Processes {
    /// The numbers of those that were started by the first of them, or by those in turn.
    pub fn started(&self) -> Vec<u32> {
        self.pids().split_off(self.0.len())
    }

    /// The number of each.
    fn pids(&self) -> Vec<u32> {
        let mut pids = self.0.clone();
        let mut at = 0;
        while let Some(&pid) = pids.get(at) {
            pids.extend(children(pid).into_iter().filter(|child| !self.0.contains(child)));
            at += 1;
        }
        pids
    }

    /// What they hold in memory now.
    ///
    /// # Errors
    /// Where there is no such process, or it is another user's.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let mut sum = Memory { rss: 0, pss: 0 };
        for pid in self.pids() {
            let Memory { rss, pss } = Memory::of(pid)?;
            sum = Memory { rss: sum.rss + rss, pss: sum.pss + pss };
        }
        Ok(sum)
    }

    /// User and system time that they have used in all their threads, and that those used which they have waited for.
    /// The kernel's work on loopback sockets is in it, both directions' as far as sending sets it off.
    fn cpu_time(&self) -> anyhow::Result<Duration> {
        self.pids().into_iter().map(cpu_time).sum()
    }
}

/// Memory of processes, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident.
    pub rss: u64,
    /// Resident, pages that are shared with other processes counted in part.
    pub pss: u64,
}

impl Memory {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let text = read(&format!("/proc/{pid}/smaps_rollup"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024).with_context(|| format!("no {name} in smaps_rollup"))
        };
        Ok(Self { rss: field("Rss:")?, pss: field("Pss:")? })
    }
}

/// The processes that a process has started itself, in any of its threads.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let numbers =
        |list: String| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>();
    lists.flat_map(numbers).collect()
}

fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let text = read(&format!("/proc/{pid}/stat"))?;
    // The name before it may hold anything.
    let (_, fields) = text.rsplit_once(')').context("no name in stat")?;
    // utime stime cutime cstime
    let fields = fields.split_whitespace().skip(11).take(4);
    let times = fields.map(str::parse).collect::<Result<Vec<u64>, _>>().context("no times in stat")?;
    Ok(ticks(times.iter().sum()))
}

/// A stretch of time in which a server is watched.
pub struct Watch {
    server: Processes,
    cores: Vec<usize>,
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
    /// CPU time of the server.
    pub cpu: Duration,
    /// CPU time that others took of its cores: noise.
    pub others: Duration,
    /// CPU time of this tool.
    pub own: Duration,
}

impl Watch {
    /// Begins to watch a server, which is alone on these cores as far as we know.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn begin(server: impl Into<Processes>, cores: &[usize]) -> anyhow::Result<Self> {
        let (server, cores) = (server.into(), cores.to_vec());
        let (busy, own) = (cores_busy(&cores)?, cpu_time(std::process::id())?);
        Ok(Self { began: Instant::now(), cpu: server.cpu_time()?, server, cores, busy, own })
    }

    /// For how long it has watched.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// What was spent since.
    ///
    /// # Errors
    /// Where the server is gone.
    pub fn end(&self) -> anyhow::Result<Spent> {
        let cpu = self.server.cpu_time()?.saturating_sub(self.cpu);
        Ok(Spent {
            elapsed: self.began.elapsed(),
            cpu,
            others: (cores_busy(&self.cores)? - self.busy).saturating_sub(cpu),
            own: cpu_time(std::process::id())?.saturating_sub(self.own),
        })
    }
}

/// Time in which these cores did anything, or were taken by the machine's host.
fn cores_busy(cores: &[usize]) -> anyhow::Result<Duration> {
    let text = read("/proc/stat")?;
    let busy = |core: &usize| {
        let name = format!("cpu{core} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).context("no such core")?;
        let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal
        Ok(ticks(fields.iter().take(8).sum::<u64>() - fields[3] - fields[4]))
    };
    cores.iter().map(busy).sum()
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}
