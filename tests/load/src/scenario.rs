//! The scenarios: each starts its server, opens its clients, does its work, and gives a row of the report.

use std::thread;
use std::time::Duration;

use crate::args::{Args, Command, KeyExchange, Options, Plan, Via};
use crate::fleet::Fleet;
use crate::report::{Connect, Fanout, Idle, Noise, Report, Row};
use crate::target::Target;
use crate::usage::{Memory, Watch};
use crate::{herd, history, keyed, resume};

/// Runs what the command line asks for, and adds to the report what it finds.
///
/// # Errors
/// Where a server or a client cannot do its work. Losses are no errors: they are reported.
pub fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let options = &args.options;
    for _ in 0..options.runs.max(1) {
        match &args.command {
            Command::Sparse => fan_out_each(options, "sparse", &sparse(options), report)?,
            Command::Dense => fan_out_each(options, "dense", &dense(options), report)?,
            Command::Idle => each(options, report, idle)?,
            Command::Connect => each(options, report, connect)?,
            Command::Floor => floors(options, report)?,
            Command::Resume => report.add(Row::Replay(resume::run(options)?)),
            Command::History => report.add(Row::Replay(history::run(options)?)),
            Command::Herd => report.add(Row::Herd(herd::run(options)?)),
            Command::Keyed => report.add(Row::Keyed(keyed::run(options)?)),
            Command::All => all(options, report)?,
            Command::FloorServe(_) => {}
        }
    }
    Ok(())
}

fn all(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    for (name, plan) in [("sparse", sparse(options)), ("dense", dense(options))] {
        report.add(fan_out(options, name, &plan, Target::floor(options, &plan)?)?);
        fan_out_each(options, name, &plan, report)?;
    }
    each(options, report, idle)?;
    for (kx, resume) in
        [(KeyExchange::X25519, false), (KeyExchange::Hybrid, false), (KeyExchange::Hybrid, true)]
    {
        each(&Options { kx, resume, ..options.clone() }, report, connect)?;
    }
    Ok(())
}

fn sparse(options: &Options) -> Plan {
    plan(options, Plan { clients: 5_000, rate: 10, seconds: 20, linger: 10, payload: options.payload })
}

fn dense(options: &Options) -> Plan {
    plan(options, Plan { clients: 200, rate: 1_000, seconds: 15, linger: 20, payload: options.payload })
}

fn plan(options: &Options, scenario: Plan) -> Plan {
    Plan {
        clients: options.clients.unwrap_or(scenario.clients),
        rate: options.rate.unwrap_or(scenario.rate).max(1),
        seconds: options.seconds.unwrap_or(scenario.seconds),
        linger: options.linger.unwrap_or(scenario.linger),
        payload: scenario.payload,
    }
}

fn floors(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    for (name, plan) in [("sparse", sparse(options)), ("dense", dense(options))] {
        report.add(fan_out(options, name, &plan, Target::floor(options, &plan)?)?);
    }
    Ok(())
}

fn fan_out_each(options: &Options, name: &str, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    for &via in &options.via {
        report.add(fan_out(options, name, plan, Target::new(options, via, plan.linger)?)?);
    }
    if let Some(peer) = options.peer {
        report.add(fan_out(options, name, plan, Target::peer(options, peer)?)?);
    }
    Ok(())
}

/// Does something with our server and, if there is one, with the peer.
fn each(
    options: &Options,
    report: &mut Report,
    run: impl Fn(&Options, Target) -> anyhow::Result<Row>,
) -> anyhow::Result<()> {
    report.add(run(options, Target::new(options, Via::Push, LINGER)?)?);
    if let Some(peer) = options.peer {
        report.add(run(options, Target::peer(options, peer)?)?);
    }
    Ok(())
}

/// Every event to every client.
fn fan_out(options: &Options, name: &str, plan: &Plan, mut target: Target) -> anyhow::Result<Row> {
    let source = target.source()?;
    note(&format!("{name}: {} clients of {}", plan.clients, target.name));
    let mut fleet = Fleet::new(target.dial.clone())?;
    fleet.open(plan.clients, options.concurrency)?;
    fleet.read_until(SETTLE, |_| false)?;

    let watch = Watch::begin(target.pid, options.server_core)?;
    let expected = plan.events() * fleet.streams() as u64;
    let load = *plan;
    let publisher = thread::spawn(move || source.publish(&load));
    // It ends by itself, late or with an error.
    fleet.read_until(Duration::MAX, |_| publisher.is_finished())?;
    let published = publisher.join().expect("the publisher does not panic")?;
    fleet.read_until(GRACE, |tally| tally.delivered >= expected)?;
    let spent = watch.end()?;

    let tally = &fleet.tally;
    let cost = spent.cpu.as_secs_f64() * 1e6 / tally.delivered.max(1) as f64;
    let latency = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Row::Fanout(Fanout {
        scenario: name.to_owned(),
        server: target.name.clone(),
        protocol: target.dial.protocol(),
        via: target.via.to_owned(),
        clients: fleet.streams(),
        rate: plan.rate,
        seconds: published.took.as_secs_f64(),
        linger_ms: plan.linger,
        expected,
        delivered: tally.delivered,
        lost: fleet.missing(published.events),
        announced: tally.announced,
        repeated: tally.repeated,
        disordered: tally.disordered,
        gaps: tally.gaps.clone(),
        ended: tally.ended.clone(),
        cpu_us_per_delivery: cost,
        p50_ms: latency(0.5),
        p99_ms: latency(0.99),
        max_ms: tally.latency.max() as f64 / 1e3,
        publisher_late_ms: published.late.as_secs_f64() * 1e3,
        noise: Noise::of(&spent),
    }))
}

/// Clients that get nothing but keepalives. They come several times, so that what stays behind shows.
fn idle(options: &Options, target: Target) -> anyhow::Result<Row> {
    let (clients, hold) = (options.clients.unwrap_or(5_000), options.seconds.unwrap_or(20));
    note(&format!("idle: {clients} clients of {}", target.name));
    let mut fleet = Fleet::new(target.dial.clone())?;
    thread::sleep(SETTLE);
    let empty = Memory::of(target.pid)?;
    fleet.open(clients, options.concurrency)?;
    fleet.read_until(SETTLE, |_| false)?;
    let full = Memory::of(target.pid)?;
    let streams = fleet.streams();
    let watch = Watch::begin(target.pid, options.server_core)?;
    fleet.read_until(Duration::from_secs(hold.into()), |_| false)?;
    let spent = watch.end()?;
    let (mut left, mut again) = (full, full);
    for _ in 1..options.rounds {
        fleet.close();
        thread::sleep(LEFT);
        left = Memory::of(target.pid)?;
        fleet.open(clients, options.concurrency)?;
        fleet.read_until(SETTLE, |_| false)?;
        again = Memory::of(target.pid)?;
    }
    let each = |bytes: u64| bytes.saturating_sub(empty.pss) as f64 / streams.max(1) as f64 / 1024.0;
    Ok(Row::Idle(Idle {
        server: target.name.clone(),
        protocol: target.dial.protocol(),
        clients: streams,
        rounds: options.rounds.max(1),
        empty_mib: empty.pss as f64 / MIB,
        pss_kib_per_client: each(full.pss),
        rss_kib_per_client: (full.rss.saturating_sub(empty.rss)) as f64 / streams.max(1) as f64 / 1024.0,
        left_mib: left.pss as f64 / MIB,
        again_kib_per_client: each(again.pss),
        cpu_us_per_client_second: spent.cpu.as_secs_f64() * 1e6
            / streams.max(1) as f64
            / spent.elapsed.as_secs_f64(),
        ended: fleet.tally.ended.clone(),
        noise: Noise::of(&spent),
    }))
}

/// Connections that live until their stream stands.
fn connect(options: &Options, target: Target) -> anyhow::Result<Row> {
    note(&format!("connect: {} connections to {}", options.connects, target.name));
    let mut fleet = Fleet::new(target.dial.clone())?;
    // What is done once: pages touched first, and tickets to resume with.
    // rustls keeps 8 tickets for a server.
    let concurrency = if options.resume { options.concurrency.min(8) } else { options.concurrency };
    fleet.cycle(WARM_UP.min(options.connects), concurrency)?;
    fleet.tally.latency.reset();
    thread::sleep(SETTLE);
    let watch = Watch::begin(target.pid, options.server_core)?;
    let cycled = fleet.cycle(options.connects, concurrency)?;
    let took = watch.end()?.elapsed;
    // The server has connections to put away still.
    thread::sleep(Duration::from_millis(500));
    let spent = watch.end()?;
    let latency = |quantile| fleet.tally.latency.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Row::Connect(Connect {
        server: target.name.clone(),
        protocol: target.dial.protocol(),
        key_exchange: cycled.key_exchange,
        connects: cycled.connects,
        resumed: cycled.resumed,
        per_second: cycled.connects as f64 / took.as_secs_f64(),
        cpu_us_per_connect: spent.cpu.as_secs_f64() * 1e6 / cycled.connects.max(1) as f64,
        p50_ms: latency(0.5),
        p99_ms: latency(0.99),
        ended: fleet.tally.ended.clone(),
        noise: Noise::of(&spent),
    }))
}

/// Says what is going on, since a run takes a while.
pub fn note(text: &str) {
    eprintln!("… {text}");
}

/// How long a server is left alone before it is measured.
pub const SETTLE: Duration = Duration::from_secs(2);

/// How long it gets to put away clients that left.
const LEFT: Duration = Duration::from_secs(4);

/// How long the last events may take.
const GRACE: Duration = Duration::from_secs(5);

/// Connections made before the measured ones.
const WARM_UP: usize = 200;

/// Of the route, in milliseconds, where no events are sent.
const LINGER: u32 = 10;

/// Bytes of a MiB.
pub const MIB: f64 = 1024.0 * 1024.0;
