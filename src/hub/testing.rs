//! What the tests of this folder have in common. What readers see of a log as a whole is tested in `tests/model`.

use std::sync::Arc;
use std::time::Duration;

use super::{Bounds, Linger, Log, Memory, Terms, Wake};
use crate::config::{OnLag, Replay, Start};
use crate::shape::{Record, Shape};

/// A record with this payload.
#[derive(Debug, Clone, Copy)]
pub struct Text(pub &'static str);

impl Record for Text {
    fn payload(&self) -> Option<&[u8]> {
        Some(self.0.as_bytes())
    }

    fn name(&self) -> &str {
        "test"
    }
}

/// Bounds that are never reached, and no lag room.
pub const ROOM: Bounds = Bounds { events: usize::MAX, bytes: usize::MAX, age: Duration::MAX, buffer: 0 };

/// Every id is honoured.
pub const ANY_AGE: Replay = Replay {
    max_events: usize::MAX,
    max_age: Duration::MAX,
    max_bytes: usize::MAX,
    timeout: Duration::from_secs(30),
};

/// Begin at the head, honour every id.
pub const TERMS: Terms =
    Terms { start: Start::Latest, replay: ANY_AGE, on_lag: OnLag::Gap, rate: None, snapshots: true };

/// Records as they come.
pub fn shape() -> Shape {
    Shape::default()
}

/// That of a route whose clients have this filter, and are sent the member `n` alone if it is to be so.
pub fn filtering(filter: &str, sends_little: bool) -> Shape {
    let data = if sends_little { ", data: { keep: [n] }" } else { "" };
    let text = format!(
        "server: {{ tls: none }}\nupstreams: {{ r: {{ redis: {{ url: redis://h }} }} }}\nroutes: [ {{ path: /x, from: {{ upstream: r, channel: c }}, filter: '{filter}'{data} }} ]\n"
    );
    let config =
        crate::config::parse("c.yaml", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
    let route = config.routes.into_iter().next().unwrap();
    Shape { filter: route.filter, projection: route.projection, ..shape() }
}

/// A log that is not open yet.
pub fn log(bounds: Bounds) -> Arc<Log> {
    Log::new(shape(), false, bounds, &Memory::new(usize::MAX), Wake::new(Duration::ZERO, Linger::new()))
}
