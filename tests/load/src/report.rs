//! The figures, as Markdown for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::tally::Tally;
use crate::usage::Spent;

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    rows: Vec<Row>,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    server: String,
}

/// One measurement.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Row {
    /// Of `sparse`, `dense` and the floor.
    Fanout(Fanout),
    /// Of `idle`.
    Idle(Idle),
    /// Of `connect`.
    Connect(Connect),
    /// Of `resume` and `history`.
    Replay(Replay),
    /// Of `herd`.
    Herd(Herd),
    /// Of `keyed`.
    Keyed(Keyed),
}

/// Events to many clients.
#[derive(Debug, Serialize)]
pub struct Fanout {
    pub scenario: String,
    pub server: String,
    pub protocol: String,
    pub via: String,
    pub clients: usize,
    pub rate: u32,
    pub seconds: f64,
    pub linger_ms: u32,
    pub expected: u64,
    pub delivered: u64,
    pub lost: u64,
    pub announced: u64,
    pub repeated: u64,
    pub disordered: u64,
    pub gaps: BTreeMap<String, u64>,
    pub ended: BTreeMap<String, u64>,
    pub cpu_us_per_delivery: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub publisher_late_ms: f64,
    pub noise: Noise,
}

/// Clients that get no events.
#[derive(Debug, Serialize)]
pub struct Idle {
    pub server: String,
    pub protocol: String,
    pub clients: usize,
    pub rounds: u32,
    pub empty_mib: f64,
    pub pss_kib_per_client: f64,
    pub rss_kib_per_client: f64,
    pub left_mib: f64,
    pub again_kib_per_client: f64,
    pub cpu_us_per_client_second: f64,
    pub ended: BTreeMap<String, u64>,
    pub noise: Noise,
}

/// Connections one after the other.
#[derive(Debug, Serialize)]
pub struct Connect {
    pub server: String,
    pub protocol: String,
    pub key_exchange: String,
    pub connects: usize,
    pub resumed: usize,
    pub per_second: f64,
    pub cpu_us_per_connect: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub ended: BTreeMap<String, u64>,
    pub noise: Noise,
}

/// Clients that read what was there before they came.
#[derive(Debug, Serialize)]
pub struct Replay {
    pub scenario: String,
    pub protocol: String,
    pub source: String,
    pub clients: usize,
    pub checked: Checked,
    pub seconds: f64,
    pub per_second: f64,
    pub per_cpu_second: f64,
    /// What the server received from Kafka meanwhile, and how large what was sent to it was.
    pub read_mib: f64,
    pub range_mib: f64,
    pub noise: Noise,
}

/// The return of many clients.
#[derive(Debug, Serialize)]
pub struct Herd {
    pub protocol: String,
    pub source: String,
    pub clients: usize,
    pub checked: Checked,
    pub seconds: f64,
    pub per_second: f64,
    pub read_mib: f64,
    /// What was sent before they came, and what came to it meanwhile.
    pub range_mib: f64,
    pub grown_mib: f64,
    pub live: usize,
    /// Of the others, before and while the many come back.
    pub quiet_ms: [f64; 3],
    pub meanwhile_ms: [f64; 3],
    pub base_mib: f64,
    pub peak_mib: f64,
    pub noise: Noise,
}

/// Streams of one key each.
#[derive(Debug, Serialize)]
pub struct Keyed {
    pub protocol: String,
    pub streams: usize,
    pub partitions: u32,
    pub rate: u32,
    pub opened_in_s: f64,
    /// Of the second half of the streams, before anything was sent.
    pub pss_kib_per_stream: f64,
    pub pss_mib: f64,
    pub live: Checked,
    pub live_ms: [f64; 3],
    pub cpu_share: f64,
    pub publisher_late_ms: f64,
    pub back: Back,
    pub noise: Noise,
}

/// The return of all streams after the server was killed.
#[derive(Debug, Serialize)]
pub struct Back {
    /// Of the server, after its start.
    pub listens_s: f64,
    pub all_told_s: f64,
    pub all_live_s: f64,
    /// What the server received from Kafka by then, and the size of all that was ever sent to it.
    pub read_mib: f64,
    pub topic_mib: f64,
    pub pss_mib: f64,
    pub checked: Checked,
}

/// What arrived, and what did not.
#[derive(Debug, Serialize)]
pub struct Checked {
    pub delivered: u64,
    pub lost: u64,
    pub repeated: u64,
    pub disordered: u64,
    pub gaps: BTreeMap<String, u64>,
    pub ended: BTreeMap<String, u64>,
}

impl Checked {
    /// What a tally says, and what was missing.
    pub fn of(tally: &Tally, lost: u64) -> Self {
        Self {
            delivered: tally.delivered,
            lost,
            repeated: tally.repeated,
            disordered: tally.disordered,
            gaps: tally.gaps.clone(),
            ended: tally.ended.clone(),
        }
    }

    fn cells(&self) -> String {
        let Self { delivered, lost, repeated, disordered, .. } = self;
        let told: u64 = self.gaps.values().chain(self.ended.values()).sum();
        format!("{delivered} | {lost} | {repeated} | {disordered} | {told}")
    }
}

/// How far a figure can be trusted: shares of the time that it was taken over.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Noise {
    /// Of the server's core, by the server.
    pub server: f64,
    /// Of the server's core, by anything else.
    pub others: f64,
    /// Of a core, by the tool; near 1, latencies are the tool's own.
    pub tool: f64,
}

impl Noise {
    /// From what was spent.
    pub fn of(spent: &Spent) -> Self {
        let share = |time: std::time::Duration| time.as_secs_f64() / spent.elapsed.as_secs_f64();
        Self { server: share(spent.cpu), others: share(spent.others), tool: share(spent.own) }
    }
}

impl Machine {
    fn this(server: Option<&Path>) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let version = server.and_then(|path| Command::new(path).arg("--version").output().ok());
        Self {
            cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
            cores: info.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: kernel.trim().to_owned(),
            server: version
                .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
                .unwrap_or_default(),
        }
    }
}

impl Report {
    /// Nothing yet, of this machine and the server at this path.
    pub fn new(server: Option<&Path>) -> Self {
        Self { machine: Machine::this(server), rows: Vec::new() }
    }

    /// Adds a row, and shows it.
    pub fn add(&mut self, row: Row) {
        eprintln!("  {}", serde_json::to_string(&row).unwrap_or_default());
        self.rows.push(row);
    }

    /// As JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// As tables.
    pub fn markdown(&self) -> String {
        let Machine { cpu, cores, kernel, server } = &self.machine;
        let mut out = format!("{server}; {cores} cores of {cpu}, Linux {kernel}\n");
        for head in [FANOUT, IDLE, CONNECT, REPLAY, HERD, KEYED] {
            let rows: Vec<_> = self.rows.iter().map(Row::cells).filter(|(of, _)| *of == head).collect();
            if !rows.is_empty() {
                let rule = "|---".repeat(head.matches('|').count() - 1);
                let _ = writeln!(out, "\n{head}\n{rule}|");
                rows.iter().for_each(|(_, cells)| out.extend([cells.as_str(), "\n"]));
            }
        }
        out
    }
}

impl Row {
    /// The head of its table, and its line in it.
    fn cells(&self) -> (&'static str, String) {
        match self {
            Self::Fanout(row) => (FANOUT, row.cells()),
            Self::Idle(row) => (IDLE, row.cells()),
            Self::Connect(row) => (CONNECT, row.cells()),
            Self::Replay(row) => (REPLAY, row.cells()),
            Self::Herd(row) => (HERD, row.cells()),
            Self::Keyed(row) => (KEYED, row.cells()),
        }
    }
}

const FANOUT: &str = "| scenario | server | protocol | via | clients × events/s × s | linger | CPU per delivery | p50 | p99 | max | delivered | lost | announced | repeated | disordered | ended | core: server / others | tool |";
const IDLE: &str = "| idle | protocol | clients | empty process | PSS per client | RSS per client | after they left | PSS per client, last round | CPU per client and second | ended | core: server / others |";
const CONNECT: &str = "| connect | protocol | key exchange | connections | resumed | per second | CPU per connection | p50 | p99 | failed | core: server / others | tool |";

const REPLAY: &str = "| replay | protocol | source | clients | delivered | lost | repeated | disordered | gaps, ends | events/s | events per CPU second | read / range | core: server / others | tool |";
const HERD: &str = "| herd | source | clients | delivered | lost | repeated | disordered | gaps, ends | took | read / range | live clients | p50, p99, max quiet | meanwhile | memory before, peak | core: server / others | tool |";
const KEYED: &str = "| keyed | streams | records/s | opened in | PSS per stream | delivered | lost | repeated | disordered | gaps, ends | p50, p99, max | server's CPU | tool | killed: listens, told, live again | read / range | delivered | lost | repeated | disordered | gaps, ends |";

impl Replay {
    fn cells(&self) -> String {
        let Self { scenario, protocol, source, clients, checked, per_second, per_cpu_second, .. } = self;
        let Self { read_mib, range_mib, noise, .. } = self;
        format!(
            "| {scenario} | {protocol} | {source} | {clients} | {} | {per_second:.0} | {per_cpu_second:.0} \
             | {read_mib:.1} / {range_mib:.1} MiB | {} |",
            checked.cells(),
            noise.cells(true)
        )
    }
}

impl Herd {
    fn cells(&self) -> String {
        let Self { protocol, source, clients, checked, seconds, read_mib, range_mib, live, .. } = self;
        let Self { quiet_ms, meanwhile_ms, base_mib, peak_mib, noise, .. } = self;
        format!(
            "| {protocol} | {source} | {clients} | {} | {seconds:.1} s | {read_mib:.1} / {range_mib:.1} MiB | {live} \
             | {} | {} | {base_mib:.0}, {peak_mib:.0} MiB | {} |",
            checked.cells(),
            millis(quiet_ms),
            millis(meanwhile_ms),
            noise.cells(true)
        )
    }
}

impl Keyed {
    fn cells(&self) -> String {
        let Self { protocol, streams, rate, opened_in_s, pss_kib_per_stream, live, live_ms, .. } = self;
        let Self { cpu_share, noise, back, .. } = self;
        let Back { listens_s, all_told_s, all_live_s, topic_mib, read_mib, checked, .. } = back;
        format!(
            "| {protocol} | {streams} | {rate} | {opened_in_s:.1} s | {pss_kib_per_stream:.2} KiB | {} | {} | {:.0} % \
             | {:.0} % | {listens_s:.1}, {all_told_s:.1}, {all_live_s:.1} s | {read_mib:.1} / {topic_mib:.1} MiB | {} |",
            live.cells(),
            millis(live_ms),
            cpu_share * 100.0,
            noise.tool * 100.0,
            checked.cells(),
        )
    }
}

fn millis([p50, p99, max]: &[f64; 3]) -> String {
    format!("{p50:.1}, {p99:.1}, {max:.0} ms")
}

impl Fanout {
    fn cells(&self) -> String {
        let Self { scenario, server, protocol, via, clients, rate, seconds, linger_ms, .. } = self;
        let Self { cpu_us_per_delivery, p50_ms, p99_ms, max_ms, .. } = self;
        let Self { delivered, lost, announced, repeated, disordered, noise, .. } = self;
        let ended: u64 = self.ended.values().sum();
        format!(
            "| {scenario} | {server} | {protocol} | {via} | {clients} × {rate} × {seconds:.0} | {linger_ms} ms \
             | {cpu_us_per_delivery:.2} µs | {p50_ms:.1} ms | {p99_ms:.1} ms | {max_ms:.0} ms | {delivered} \
             | {lost} | {announced} | {repeated} | {disordered} | {ended} | {} |",
            noise.cells(true)
        )
    }
}

impl Idle {
    fn cells(&self) -> String {
        let Self { server, protocol, clients, rounds, empty_mib, left_mib, noise, .. } = self;
        let Self { pss_kib_per_client, rss_kib_per_client, again_kib_per_client, .. } = self;
        let ended: u64 = self.ended.values().sum();
        format!(
            "| {server} | {protocol} | {clients} | {empty_mib:.1} MiB | {pss_kib_per_client:.2} KiB \
             | {rss_kib_per_client:.2} KiB | {left_mib:.1} MiB | {again_kib_per_client:.2} KiB (round {rounds}) \
             | {:.1} µs | {ended} | {} |",
            self.cpu_us_per_client_second,
            noise.cells(false)
        )
    }
}

impl Connect {
    fn cells(&self) -> String {
        let Self { server, protocol, key_exchange, connects, resumed, per_second, .. } = self;
        let Self { cpu_us_per_connect, p50_ms, p99_ms, noise, .. } = self;
        let ended: u64 = self.ended.values().sum();
        format!(
            "| {server} | {protocol} | {key_exchange} | {connects} | {resumed} | {per_second:.0} \
             | {cpu_us_per_connect:.0} µs | {p50_ms:.1} ms | {p99_ms:.1} ms | {ended} | {} |",
            noise.cells(true)
        )
    }
}

impl Noise {
    fn cells(&self, tool: bool) -> String {
        let Self { server, others, tool: own } = self.map(|share| share * 100.0);
        let core = format!("{server:.0} % / {others:.0} %");
        if tool { format!("{core} | {own:.0} %") } else { core }
    }

    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self { server: f(self.server), others: f(self.others), tool: f(self.tool) }
    }
}
