//! A client that reads a topic from its first record: how fast what only Kafka holds is replayed.

use std::time::Duration;

use crate::args::Options;
use crate::dial::Dial;
use crate::fleet::Fleet;
use crate::report::checked::Checked;
use crate::report::noise::Noise;
use crate::scenario::filled::{Filled, ends, source};
use crate::scenario::replay::Replay;
use crate::scenario::{MIB, SETTLE, note};
use crate::server::usage::Watch;

/// Runs it.
///
/// # Errors
/// Where a server or a client cannot do its work.
pub fn run(options: &Options) -> anyhow::Result<Replay> {
    let (clients, events) = (options.clients.unwrap_or(1), options.events.unwrap_or(1_000_000));
    let partitions = options.partitions.unwrap_or(1);
    note(&format!("history: {clients} clients, {events} events each, {partitions} partitions"));
    let filled = Filled::new(options, partitions, events)?;
    let (kafka, serving) = (&filled.kafka, filled.serve(options)?);
    std::thread::sleep(SETTLE);

    let pid = serving.server.pid();
    let mut fleet = Fleet::new(Dial::new(serving.public, "/all", options)?)?;
    let expected = clients as u64 * events;
    let (before, watch) = (kafka.read_by(pid)?, Watch::begin(pid, &options.server_core)?);
    fleet.open(clients, clients)?;
    fleet.read_until(PATIENCE, |tally| tally.delivered >= expected)?;
    let spent = watch.end()?;
    let ends = ends(events, partitions);
    let lost = fleet.subscribers().map(|one| one.missing(&ends)).sum();
    let seconds = spent.elapsed.as_secs_f64();
    Ok(Replay {
        scenario: "history".to_owned(),
        protocol: fleet.protocol(),
        source: source(options, partitions),
        clients,
        checked: Checked::of(&fleet.tally, lost),
        seconds,
        per_second: fleet.tally.delivered as f64 / seconds,
        per_cpu_second: fleet.tally.delivered as f64 / spent.cpu.as_secs_f64(),
        read_mib: kafka.read_by(pid)?.saturating_sub(before) as f64 / MIB,
        range_mib: filled.topic.bytes as f64 / MIB,
        noise: Noise::of(&spent),
    })
}

/// How long it may take.
pub const PATIENCE: Duration = Duration::from_secs(180);
