//! Whether costs grow in a straight line: more and more clients of one server, then of several, then on HTTP/2, and more
//! and more feeds of one client each.

pub mod fit;
pub mod point;
pub mod several;

use anyhow::Context as _;

use crate::args::{Options, Part, Via};
use crate::report::Report;
use crate::report::row::Row;
use crate::scenario::scale::fit::fits;
use crate::scenario::scale::point::{Point, Size, stand};

/// What is asked for, up to the options' number of clients a process.
///
/// # Errors
/// Where a server or a client cannot do its work.
pub fn run_each(options: &Options, parts: &[Part], report: &mut Report) -> anyhow::Result<()> {
    for part in parts {
        match part {
            Part::Clients => clients(options, report)?,
            Part::Servers => servers(options, report)?,
            Part::Streams => streams(options, report)?,
            Part::Feeds => feeds(options, report)?,
        }
    }
    Ok(())
}

fn clients(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let mut line = Vec::new();
    for share in CLIENTS {
        let clients = most(options) * share / 15;
        let size = Size { part: "clients", clients, feeds: 1, rate: options.rate.unwrap_or(2) };
        line.push(add(report, stand(options, first(options)?, &size)?.live()?));
    }
    conclude(report, "clients", &line);
    Ok(())
}

/// Beyond the descriptors of a process.
fn servers(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let mut line = Vec::new();
    for servers in SERVERS {
        let rate = options.rate.unwrap_or(1);
        line.push(add(report, several::run(options, servers, most(options), rate)?));
    }
    conclude(report, "servers", &line);
    Ok(())
}

fn streams(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let sharing = Options { h2: true, plain: false, streams_per_connection: STREAMS, ..options.clone() };
    let mut line = Vec::new();
    for tenth in [1, 3, 10] {
        let clients = most(options) * 2 / 3 * tenth;
        let size = Size { part: "streams", clients, feeds: 1, rate: options.rate.unwrap_or(1) };
        line.push(add(report, stand(&sharing, first(options)?, &size)?.live()?));
    }
    conclude(report, "streams", &line);
    Ok(())
}

fn feeds(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    for &via in &options.via {
        let mut line = Vec::new();
        for share in FEEDS {
            let feeds = most(options) * share / 15;
            let size = Size { part: "feeds", clients: feeds, feeds: feeds as u64, rate: EVENTS };
            line.push(add(report, stand(options, via, &size)?.live()?));
        }
        conclude(report, "feeds", &line);
    }
    Ok(())
}

/// Clients of a process, at most.
fn most(options: &Options) -> usize {
    options.clients.unwrap_or(15_000)
}

/// How events reach the servers, where one way suffices.
fn first(options: &Options) -> anyhow::Result<Via> {
    options.via.first().copied().context("--via names how events reach the server")
}

fn add(report: &mut Report, point: Point) -> Point {
    report.add(Row::Scale(point.clone()));
    point
}

fn conclude(report: &mut Report, part: &str, points: &[Point]) {
    fits(part, points).into_iter().for_each(|fit| report.add(Row::Fit(fit)));
}

/// Of the most clients of a process, in fifteenths: 1,000 to 15,000.
const CLIENTS: [usize; 5] = [1, 2, 4, 8, 15];

/// The same for feeds.
const FEEDS: [usize; 4] = [1, 2, 5, 10];

/// Servers at a time.
const SERVERS: [usize; 3] = [1, 2, 3];

/// Streams of a connection on HTTP/2.
const STREAMS: u16 = 100;

/// Events a second over all feeds.
const EVENTS: u32 = 2_000;
