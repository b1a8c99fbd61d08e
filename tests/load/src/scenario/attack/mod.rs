//! Well-behaved clients while somebody attacks: what they lose, how late events reach them, in peace and then under the
//! attack, and what that costs the server, which is started anew for each attack.
//!
//! Whether a latency is the server's can be told only where those who measure it get their time. The machine has two
//! cores, of which the server has one, so that the attacker shares the other one with the clients that are measured and
//! the publisher. It is a process of its own that runs in the system's idle class (`chrt --idle`): it gets what the
//! others leave, and makes way whenever one of them wakes up. Its rates are such that this is enough. What it used of the
//! core is told beside what the tool used, and so is how late the publisher was at most, which sleeps and wakes up like the
//! clients: where that is much, latencies are those of this machine.

pub mod attacker;
mod counters;
mod foe;
pub mod kind;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use crate::args::Options;
use crate::dial::Dial;
use crate::fleet::Fleet;
use crate::publish::road::Road;
use crate::publish::{Pace, Publisher};
use crate::report::Report;
use crate::report::checked::{Checked, millis, quantiles};
use crate::report::noise::Noise;
use crate::report::row::Row;
use crate::scenario::attack::attacker::Fought;
use crate::scenario::attack::counters::Counters;
use crate::scenario::attack::kind::Kind;
use crate::scenario::{GRACE, MIB, note};
use crate::server::child::Child;
use crate::server::scratch::Scratch;
use crate::server::ssegate::{PATH, Serving};
use crate::server::start::CHANNEL;
use crate::server::usage::{Processes, Watch};

/// Clients during an attack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attack {
    pub attack: Kind,
    pub protocol: String,
    pub clients: usize,
    pub rate: u32,
    pub seconds: f64,
    /// Connections that the attacker was to begin at least.
    pub due: u64,
    pub fought: Fought,
    /// What the server counted meanwhile, where it was anything.
    pub counted: BTreeMap<String, u64>,
    pub peace_ms: [f64; 3],
    pub attack_ms: [f64; 3],
    /// How late an event was sent at most: that is the tool's, and no server's.
    pub publisher_late_ms: f64,
    /// Of the clients, from the attack's beginning on; what is lost, from their own beginning on.
    pub checked: Checked,
    /// The server's memory: what `limits.memory` says, what logs held of that at the attack's end, and what the whole
    /// process had (proportional set size) before the attack and at its peak.
    pub limit_mib: f64,
    pub logs_mib: f64,
    pub before_mib: f64,
    pub peak_mib: f64,
    pub peace: Noise,
    pub noise: Noise,
    /// Of a core, by the attacker.
    pub attacker: f64,
}

/// These, or all where none is named. One that cannot be run is noted, and the rest goes on.
///
/// # Errors
/// Where one could not be run.
pub fn run_each(options: &Options, kinds: &[Kind], report: &mut Report) -> anyhow::Result<()> {
    if options.plain {
        bail!("attack: there is no --plain, since most attacks are on TLS and HTTP/2");
    }
    let mut failed = Ok(());
    for &kind in if kinds.is_empty() { Kind::value_variants() } else { kinds } {
        match run(options, kind) {
            Ok(row) => {
                if !row.took_place() {
                    let (name, begun, due) = (kind.name(), row.fought.begun, row.due);
                    report.note(format!(
                        "{name}: no attack to speak of: {begun} connections where there were to be {due}; the core is busy"
                    ));
                }
                report.add(Row::Attack(row));
            }
            Err(error) => {
                let error = error.context(kind.name());
                report.note(format!("{error:#}"));
                failed = Err(error);
            }
        }
    }
    failed
}

fn run(options: &Options, kind: Kind) -> anyhow::Result<Attack> {
    let (clients, rate) = (options.clients.unwrap_or(200), options.rate.unwrap_or(100));
    let plan = kind.plan();
    let seconds = options.seconds.unwrap_or(plan.seconds);
    let attack = Duration::from_secs(seconds.into());
    note(&format!("attack: {clients} clients, {}", kind.name()));
    let scratch = Scratch::new()?;
    let linger = options.linger.unwrap_or(10);
    let serving = Serving::start(options, scratch.path()?, &configuration(linger))?;
    let server = Processes::from(serving.server.pid());
    let mut fleet = Fleet::new(Dial::new(serving.public, PATH, options)?)?;
    fleet.open(clients, options.concurrency)?;
    let road = Road::Post { addr: serving.admin, path: "/publish/{}".to_owned() };
    let pace = Pace { rate, first: 0, events: u64::MAX, feeds: 1, payload: options.payload };
    let publisher = Publisher::start(road, pace);
    fleet.read_until(WARM_UP, |_| false)?;

    fleet.tally.begin();
    let watch = Watch::begin(server.clone(), &options.server_core)?;
    let before = peak(&mut fleet, &server, &publisher, attack.min(PEACE))?;
    let (peace, peace_ms) = (watch.end()?, quantiles(&fleet.tally.latency));

    fleet.tally.begin();
    let counters = Counters::of(serving.admin)?;
    let watch = Watch::begin(server.clone(), &options.server_core)?;
    let attacker = Attacker::start(options, kind, serving.public)?;
    let peak = peak(&mut fleet, &server, &publisher, attack)?;
    let (spent, share) = (watch.end()?, attacker.share()?);
    let attack_ms = quantiles(&fleet.tally.latency);
    let after = Counters::of(serving.admin)?;
    let fought = attacker.end(&mut fleet)?;

    let published = publisher.end()?;
    let (mut lost, began) = (u64::MAX, Instant::now());
    while lost > 0 && began.elapsed() < GRACE {
        fleet.read_until(MOMENT, |_| false)?;
        lost = fleet.missing(published.events);
    }
    Ok(Attack {
        attack: kind,
        protocol: fleet.protocol(),
        clients,
        rate,
        seconds: spent.elapsed.as_secs_f64(),
        due: plan.due(seconds),
        fought,
        counted: after.since(&counters),
        peace_ms,
        attack_ms,
        publisher_late_ms: published.late.as_secs_f64() * 1e3,
        checked: Checked::of(&fleet.tally, lost),
        limit_mib: MEMORY_MIB.into(),
        logs_mib: after.logs / MIB,
        before_mib: before as f64 / MIB,
        peak_mib: peak as f64 / MIB,
        peace: Noise::of(&peace),
        noise: Noise::of(&spent),
        attacker: share,
    })
}

/// Lets clients read for so long. Returns the most that the server held meanwhile.
fn peak(
    fleet: &mut Fleet,
    server: &Processes,
    publisher: &Publisher,
    length: Duration,
) -> anyhow::Result<u64> {
    let (began, mut peak) = (Instant::now(), 0);
    while began.elapsed() < length && !publisher.is_over() {
        fleet.read_until(LOOK.min(length.saturating_sub(began.elapsed())), |_| false)?;
        peak = peak.max(server.memory()?.pss);
    }
    Ok(peak)
}

/// Times are shorter than by default, so that what a client may do is over within an attack, and it comes again.
fn configuration(linger: u32) -> String {
    format!(
        "limits: {{ memory: {MEMORY_MIB}MiB, handshake_timeout: 5s, head_timeout: 5s, write_stall: 5s }}
upstreams: {{ source: {{ push: {{}} }} }}
defaults: {{ linger: {linger}ms }}
routes: [{{ path: {PATH}, from: {{ upstream: source, channel: {CHANNEL} }} }}]
"
    )
}

/// The process that attacks.
struct Attacker {
    child: Child,
    watch: Watch,
}

impl Attacker {
    fn start(options: &Options, kind: Kind, at: SocketAddr) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let own = own.to_str().context("the tool's own path is not UTF-8")?;
        let (kind, at, core) = (kind.name(), at.to_string(), options.load_core.to_string());
        let mut arguments = vec!["chrt", "--idle", "0", own, "attack-part", "--kind", &kind, "--at", &at];
        arguments.extend(["--load-core", &core]);
        if options.no_pin {
            arguments.push("--no-pin");
        }
        let child =
            Child::start(&arguments, &[], |command| command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let watch = Watch::begin(child.pid(), options.load_cores())?;
        Ok(Self { child, watch })
    }

    /// What it has used of a core so far.
    fn share(&self) -> anyhow::Result<f64> {
        let spent = self.watch.end().context("the attacker has ended before it was to")?;
        Ok(Noise::of(&spent).server)
    }

    /// Ends it, which may take it a while. Clients that did not read meanwhile would be ended by the server.
    fn end(mut self, fleet: &mut Fleet) -> anyhow::Result<Fought> {
        let process = self.child.process();
        drop(process.stdin.take());
        let mut pipe = process.stdout.take().context("no pipe")?;
        let reading = thread::spawn(move || {
            let mut told = String::new();
            pipe.read_to_string(&mut told).map(|_| told)
        });
        fleet.read_until(PATIENCE, |_| reading.is_finished())?;
        if !reading.is_finished() {
            self.child.kill()?;
        }
        let told = reading.join().expect("reading does not panic")?;
        serde_json::from_str(&told)
            .context("the attacker does not tell what it did; is its core busy with others?")
    }
}

/// `limits.memory`.
const MEMORY_MIB: u32 = 256;

/// Events that are not counted.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long there is peace, at most.
const PEACE: Duration = Duration::from_secs(3);

/// Between two looks at the server's memory, which take a moment of the clients' time.
const LOOK: Duration = Duration::from_secs(1);

/// How long the attacker may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks whether all have everything.
const MOMENT: Duration = Duration::from_millis(50);

pub const HEAD: &str = "| attack | by | clients × events/s | attacker: connections, at a time, ended by the server | the server counted | p50, p99, max in peace | under attack | publisher late | memory before, peak, limit; of it logs | delivered | wrong | core in peace: server / others / tool | under attack | attacker |";

impl Attack {
    /// Whether the attacker had time to attack.
    pub fn took_place(&self) -> bool {
        self.fought.begun >= self.due / 2
    }

    /// Of the limit, the share that the process had at its peak.
    pub fn memory_share(&self) -> f64 {
        self.peak_mib / self.limit_mib
    }

    /// Its line of the table.
    pub fn line(&self) -> String {
        let Self { attack, protocol, clients, rate, fought, counted, peace_ms, attack_ms, .. } = self;
        let Self { publisher_late_ms, before_mib, peak_mib, limit_mib, logs_mib, checked, .. } = self;
        let Fought { begun, most, ended } = fought;
        let counted: Vec<_> = counted.iter().map(|(what, count)| format!("{what}: {count}")).collect();
        format!(
            "| {} | {protocol} | {clients} × {rate} | {begun}, {most}, {ended} | {} | {} | {} | {publisher_late_ms:.0} ms \
             | {before_mib:.0}, {peak_mib:.0}, {limit_mib:.0} MiB; {logs_mib:.0} | {} | {} | {} | {:.0} % |",
            attack.name(),
            counted.join(", "),
            millis(peace_ms),
            millis(attack_ms),
            checked.cells(),
            self.peace.cells(),
            self.noise.cells(),
            self.attacker * 100.0
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_has_as_many_cells_as_the_head() {
        let noise = json!({ "server": 0.5, "others": 0.0, "tool": 0.2 });
        let checked = json!({
            "delivered": 1, "lost": 0, "announced": 0, "repeated": 0, "disordered": 0, "gaps": {}, "ended": {},
        });
        let row = json!({
            "attack": "rapid-reset", "protocol": "TLS", "clients": 200, "rate": 100, "seconds": 6.0,
            "fought": { "begun": 9, "ended": 8, "most": 7 }, "due": 20, "counted": { "accepted": 9 },
            "peace_ms": [1.0, 2.0, 3.0], "attack_ms": [1.0, 2.0, 3.0], "publisher_late_ms": 0.0, "checked": checked,
            "limit_mib": 256.0, "logs_mib": 1.0, "before_mib": 10.0, "peak_mib": 64.0, "peace": noise, "noise": noise,
            "attacker": 0.1,
        });
        let row: Attack = serde_json::from_value(row).expect("it has every field");
        let line = row.line();
        assert_eq!(line.matches('|').count(), HEAD.matches('|').count(), "{line}");
        assert!(line.contains("| rapid-reset |"), "{line}");
        assert_eq!((row.memory_share(), row.took_place()), (0.25, false));
    }
}
