//! Clients that come back with the id of before everything, within what the log holds: how fast memory is replayed.

use std::time::Duration;

use anyhow::Context as _;

use crate::args::Options;
use crate::dial::Dial;
use crate::fleet::Fleet;
use crate::publish::road::Road;
use crate::publish::{Pace, Publisher};
use crate::report::checked::Checked;
use crate::report::noise::Noise;
use crate::scenario::replay::Replay;
use crate::scenario::{LOOK, SETTLE, note};
use crate::server::scratch::Scratch;
use crate::server::ssegate::{PATH, Serving};
use crate::server::start::CHANNEL;
use crate::server::usage::Watch;
use crate::sse::Subscriber;

/// Runs it.
///
/// # Errors
/// Where a server or a client cannot do its work.
pub fn run(options: &Options) -> anyhow::Result<Replay> {
    let (clients, events) = (options.clients.unwrap_or(20), options.events.unwrap_or(200_000));
    note(&format!("resume: {clients} clients, {events} events each"));
    let scratch = Scratch::new()?;
    let rest = format!(
        "limits: {{ memory: 4GiB }}
upstreams: {{ source: {{ push: {{}} }} }}
routes:
  - path: {PATH}
    from: {{ upstream: source, channel: {CHANNEL} }}
    history: {{ events: {events}, bytes: 4GiB, age: 1d }}
    replay: {{ max_events: {events} }}
"
    );
    let serving = Serving::start(options, scratch.path()?, &rest)?;
    let dial = Dial::new(serving.public, PATH, options)?;
    let mut first = Fleet::new(dial.clone())?;
    first.open(1, 1)?;
    let (_, before) = first.into_subscribers();
    let id = before.into_iter().next().context("no client")?.id;
    let road = Road::Post { addr: serving.admin, path: "/publish/{}".to_owned() };
    let rate = events.min(1_000_000) as u32;
    let publisher =
        Publisher::start(road, Pace { rate, first: 0, events, feeds: 1, payload: options.payload });
    while !publisher.is_over() {
        std::thread::sleep(LOOK);
    }
    publisher.end()?;
    std::thread::sleep(SETTLE);

    let mut fleet = Fleet::new(dial)?;
    let back = (0..clients).map(|_| Subscriber::after((id.clone(), Vec::new()))).collect();
    let expected = clients as u64 * events;
    let watch = Watch::begin(serving.server.pid(), &options.server_core)?;
    fleet.open_for(back, clients)?;
    fleet.read_until(PATIENCE, |tally| tally.delivered >= expected)?;
    let spent = watch.end()?;
    let seconds = spent.elapsed.as_secs_f64();
    Ok(Replay {
        scenario: "resume".to_owned(),
        protocol: fleet.protocol(),
        source: "push".to_owned(),
        clients,
        checked: Checked::of(&fleet.tally, fleet.missing(events)),
        seconds,
        per_second: fleet.tally.delivered as f64 / seconds,
        per_cpu_second: fleet.tally.delivered as f64 / spent.cpu.as_secs_f64(),
        read_mib: 0.0,
        range_mib: 0.0,
        noise: Noise::of(&spent),
    })
}

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(120);
