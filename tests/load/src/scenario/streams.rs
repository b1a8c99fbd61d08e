//! What one more stream on an HTTP/2 connection holds: connections with one stream each, then as many with a hundred.

use serde::{Deserialize, Serialize};

use crate::args::Options;
use crate::fleet::Fleet;
use crate::peer::Need;
use crate::report::Report;
use crate::report::row::Row;
use crate::scenario::{MIB, SETTLE, Start, each, note};

/// Streams without events that share connections.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Streams {
    pub server: String,
    pub connections: usize,
    pub per_connection: usize,
    /// With one stream a connection.
    pub single_mib: f64,
    /// With all streams.
    pub full_mib: f64,
    /// Of each stream beyond the first on its connection.
    pub kib_per_stream: f64,
}

/// With our server and each peer.
///
/// # Errors
/// Where one, or a client, cannot do its work.
pub fn run_each(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let connections = options.clients.unwrap_or(15_000).div_ceil(MANY.into());
    let sharing = |streams_per_connection| Options {
        h2: true,
        plain: false,
        streams_per_connection,
        ..options.clone()
    };
    let (single, many) = (sharing(1), sharing(MANY));
    // The server is started for each anew: what one round leaves behind is not the other's.
    each(&single, Need::Http2, report, |start| {
        let (server, before) = memory(&single, connections, start)?;
        let (_, after) = memory(&many, connections * usize::from(MANY), start)?;
        let more = (connections * usize::from(MANY - 1)) as f64;
        Ok(Row::Streams(Streams {
            server,
            connections,
            per_connection: MANY.into(),
            single_mib: before / MIB,
            full_mib: after / MIB,
            kib_per_stream: (after - before).max(0.0) / more / 1024.0,
        }))
    })
}

/// The name of the server, and its memory with so many streams.
fn memory(options: &Options, streams: usize, start: Start<'_>) -> anyhow::Result<(String, f64)> {
    let mut target = start()?;
    target.dial.h2 = Some(options.streams_per_connection.into());
    note(&format!("streams: {streams} of {}, {} a connection", target.name, options.streams_per_connection));
    let mut fleet = Fleet::new(target.dial.clone())?;
    fleet.open(streams, options.concurrency)?;
    fleet.read_until(SETTLE, |_| false)?;
    Ok((target.name.clone(), target.processes.memory()?.pss as f64))
}

/// Streams of a connection.
const MANY: u16 = 100;

pub const HEAD: &str = "| HTTP/2 streams | connections × streams | memory with 1 stream each | with all | a stream beyond the first | of nchan's |";

impl Streams {
    /// Its line of the table.
    pub fn line(&self, ratio: &str) -> String {
        let Self { server, connections, per_connection, single_mib, full_mib, kib_per_stream } = self;
        format!(
            "| {server} | {connections} × {per_connection} | {single_mib:.1} MiB | {full_mib:.1} MiB \
             | {kib_per_stream:.2} KiB | {ratio} |"
        )
    }
}
