//! What a source has to be for the proof: this is where a new one plugs in.
//!
//! A source is a type of some hundred lines that starts a broker of its own, says what ssegate is to serve of it and
//! what each view of it is to be given, has a [`Pen`] that publishes numbers, does the faults of its menu, and in the
//! end says what was published: with places ([`Placed`]), or with times ([`Timed`]). Then it needs a test in
//! [`super`] that calls `prove` with it.

use super::faults::{Fault, Kind};
use super::replicas::Replicas;
use super::verdict::placed::Placed;
use super::verdict::timed::Timed;
use super::verdict::{Entry, Violation};

/// One source, with its broker.
pub trait Source: Sized {
    /// Its name, for files.
    const NAME: &'static str;
    /// How many faults of each kind a run has.
    const MENU: &'static [(Kind, usize)];
    /// How many numbers are published in a run, at least, and how many in a second.
    const NUMBERS: (u64, u64);

    /// What publishes.
    type Pen: Pen;

    /// Starts the broker, with an empty source; `None` where there is none that can do the faults.
    async fn start() -> Option<Self>;

    /// Upstreams and routes of a replica.
    fn config(&self, replica: usize) -> String;

    /// What clients read; there is one client for each.
    fn views(&self) -> Vec<View>;

    /// The pen that all is published with.
    async fn pen(&self) -> Self::Pen;

    /// Does one fault of the menu. When it returns, the broker is well again. Holding the pen holds publishing.
    async fn suffer(&mut self, fault: Fault, pen: &tokio::sync::Mutex<Self::Pen>, replicas: &Replicas);

    /// Waits until what is published from now on reaches every replica that is connected.
    async fn until_settled(&self);

    /// What was published, once no more is.
    async fn conclude(&mut self, pen: Self::Pen) -> Published;
}

/// Publishes numbers, and records what became of them.
pub trait Pen: Send + 'static {
    /// Publishes these in order, and returns when it is known of each what can be known.
    fn publish(&mut self, numbers: std::ops::Range<u64>) -> impl Future<Output = ()> + Send;
}

/// Two routes of a source that keeps what it gave, and what holds for all: one has it all in memory, the other nearly nothing.
/// `route` is what both read, and how.
pub fn all_and_short(route: &str) -> String {
    format!(
        "
defaults: {{ history: {{ events: 100000, bytes: 64MiB }}, replay: {{ timeout: 5m }}, keepalive: 1s }}
routes:
  - {{ path: /all, {route} }}
  - {{ path: /short, {route}, {SHORT} }}
"
    )
}

/// How little a route has in memory that has nearly nothing.
pub const SHORT: &str = "event: short, history: { events: 10 }, buffer: 64KiB";

/// A route, and what of the source it gives.
#[derive(Debug, Clone)]
pub struct View {
    /// Its path.
    pub path: String,
    /// Out of so many numbers in a row, the one that is given; all are where it is `None`.
    pub share: Option<(u64, u64)>,
}

/// What was published, and by which law clients are judged.
pub enum Published {
    /// With places.
    Placed(Placed),
    /// With times.
    Timed(Timed),
}

impl View {
    /// A route that gives everything.
    pub fn all(path: impl Into<String>) -> Self {
        Self { path: path.into(), share: None }
    }

    /// So many clients, of these two routes in turn: see [`all_and_short`].
    pub fn all_and_short(clients: usize) -> Vec<Self> {
        ["/all", "/short"].into_iter().cycle().take(clients).map(Self::all).collect()
    }

    /// Whether a number is given.
    pub fn concerns(&self, number: u64) -> bool {
        self.share.is_none_or(|(of, rest)| number % of == rest)
    }
}

impl Published {
    /// What is wrong with a record of this view.
    pub fn judge(&self, view: &View, record: &[Entry]) -> Vec<Violation> {
        match self {
            Self::Placed(placed) => placed.judge(|number| view.concerns(number), record),
            Self::Timed(timed) => timed.judge(record),
        }
    }
}
