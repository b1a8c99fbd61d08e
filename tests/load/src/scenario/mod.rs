//! The scenarios: each starts its server, opens its clients, does its work, and gives rows of the report.

pub mod attack;
pub mod connect;
pub mod delay;
pub mod fanout;
pub mod filled;
pub mod filters;
pub mod herd;
pub mod history;
pub mod idle;
pub mod keyed;
pub mod replay;
pub mod resume;
pub mod return_storm;
pub mod scale;
pub mod slow;
pub mod snapshots;
pub mod streams;
pub mod workers;

use std::time::Duration;

use anyhow::bail;

use crate::args::{Args, Coding, Command, Options};
use crate::peer::Need;
use crate::report::Report;
use crate::report::row::Row;
use crate::scenario::scale::point::Size;
use crate::server::target::Target;
use crate::simulate;

/// Runs what the command line asks for, and adds to the report what it finds.
///
/// # Errors
/// Where a server or a client cannot do its work. Losses are no errors: they are reported.
pub fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let options = &args.options;
    if options.coding != Coding::Identity
        && !matches!(args.command, Command::Sparse | Command::Dense | Command::Rooms)
    {
        bail!("--coding is for sparse, dense and rooms");
    }
    for _ in 0..options.runs.max(1) {
        match &args.command {
            Command::Sparse => fanout::run_each(options, "sparse", &fanout::sparse(options), report)?,
            Command::Dense => fanout::run_each(options, "dense", &fanout::dense(options), report)?,
            Command::Rooms => fanout::run_each(options, "rooms", &fanout::rooms(options), report)?,
            Command::Floor => fanout::floors(options, report)?,
            Command::Idle => {
                each(options, Need::Live, report, |start| Ok(Row::Idle(idle::run(options, start()?)?)))?;
            }
            Command::Streams => streams::run_each(options, report)?,
            Command::Connect => {
                each(options, Need::Live, report, |start| {
                    Ok(Row::Connect(connect::run(options, start()?)?))
                })?;
            }
            Command::Return => each(options, Need::Return, report, |start| {
                Ok(Row::Return(return_storm::run(options, start()?)?))
            })?,
            Command::Slow => {
                each(options, Need::Live, report, |start| Ok(Row::Slow(slow::run(options, start()?)?)))?;
            }
            Command::Attack(attacks) => attack::run_each(options, &attacks.kinds, report)?,
            Command::AttackPart(order) => attack::attacker::serve(order, options)?,
            Command::Delay => report.add(Row::Delay(delay::run(options)?)),
            Command::Workers => workers::run_each(options, report)?,
            Command::Resume => report.add(Row::Replay(resume::run(options)?)),
            Command::History => report.add(Row::Replay(history::run(options)?)),
            Command::Herd => report.add(Row::Herd(herd::run(options)?)),
            Command::Keyed => report.add(Row::Keyed(keyed::run(options)?)),
            Command::Filters => report.add(Row::Filters(filters::run(options)?)),
            Command::Snapshots => report.add(Row::Snapshots(snapshots::run(options)?)),
            Command::Scale(parts) => scale::run_each(options, &parts.parts, report)?,
            Command::Simulate(simulate) => simulate::run(simulate, options, report)?,
            Command::ScalePart => {
                let (clients, rate) = (options.clients.unwrap_or(1_000), options.rate.unwrap_or(1));
                scale::point::serve(options, &Size { part: "servers", clients, feeds: 1, rate })?;
            }
            Command::Suite(_) | Command::FloorServe(_) => {}
        }
    }
    Ok(())
}

/// Starts a server; as often as asked.
pub type Start<'a> = &'a dyn Fn() -> anyhow::Result<Target>;

/// Does something with our server, in each way that it is fed, and with each peer that can do it. One that fails is
/// noted, and keeps nobody else from being measured.
///
/// # Errors
/// Where one cannot do its work.
pub fn each(
    options: &Options,
    need: Need,
    report: &mut Report,
    run: impl Fn(Start<'_>) -> anyhow::Result<Row>,
) -> anyhow::Result<()> {
    each_with(options, need, LINGER, report, run)
}

/// The same with routes of another linger, in milliseconds.
///
/// # Errors
/// As above.
pub fn each_with(
    options: &Options,
    need: Need,
    linger: u32,
    report: &mut Report,
    run: impl Fn(Start<'_>) -> anyhow::Result<Row>,
) -> anyhow::Result<()> {
    let mut failed = Ok(());
    let mut take = |name: &str, report: &mut Report, row: anyhow::Result<Row>| match row {
        Ok(row) => report.add(row),
        Err(error) => {
            let error = error.context(name.to_owned());
            report.note(format!("{error:#}"));
            failed = Err(error);
        }
    };
    if options.server.is_some() || options.url.is_some() || options.peer.is_empty() {
        for &via in &options.via {
            take("ssegate", report, run(&|| Target::new(options, via, linger)));
        }
    }
    for &peer in &options.peer {
        let http2 = options.h2.then(|| peer.lacks(Need::Http2)).flatten();
        match peer.lacks(need).or(http2).or(peer.lacks_coding(options.coding)) {
            Some(why) => report.note(why.to_owned()),
            None => take(peer.name(), report, run(&|| Target::peer(options, peer, need, linger))),
        }
    }
    failed
}

/// Says what is going on, since a run takes a while.
pub fn note(text: &str) {
    eprintln!("… {text}");
}

/// How long a server is left alone before it is measured.
pub const SETTLE: Duration = Duration::from_secs(2);

/// How long the last events may take.
pub const GRACE: Duration = Duration::from_secs(5);

/// Between two looks whether all have everything.
pub const LOOK: Duration = Duration::from_millis(200);

/// Of the route, in milliseconds: the product's default.
const LINGER: u32 = 10;

/// Bytes of a MiB.
pub const MIB: f64 = 1024.0 * 1024.0;
