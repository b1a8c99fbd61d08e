//! What the tests of this folder have in common: what all connections share, streams, and feeds, one of them with a past that
//! memory does not hold.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::Client;
use super::router::Route;
use super::streams::Registered;
use super::supervise::Slot;
use super::{Admission, Edge, Patience, Router, Site, Streams};
use crate::auth::Auth;
use crate::config::{Config, Start, parse};
use crate::hub::testing::TERMS;
pub use crate::hub::testing::Text;
use crate::hub::{
    Answer, Bounds, Feed, FeedKey, Found, History, Hub, IdCodec, Memory, Offset, Opening, Opens, Policy,
    Position, Question, SegmentDraft, Sought, Source, Table, Terms,
};
use crate::metrics::Metrics;
use crate::shape::Shape;
use crate::tls::Terminator;

/// What this configuration is served with, of one upstream `t` and little room for what is held.
pub fn edge(text: &str) -> Arc<Edge> {
    let config = config(text);
    let metrics = Metrics::new();
    let hub = Arc::new(Hub::new(["t".into()], Memory::new(1 << 20)));
    let router = Router::new(&config, &metrics, 0);
    let terminator = Terminator::new(&config.server.tls, &[], &metrics, None).unwrap();
    let site = Site::new(&config, router, Auth::new(&config, &metrics, None), terminator);
    Arc::new(Edge {
        site: RwLock::new(site),
        held: hub.memory().part(10_000),
        read: hub.memory().part(10_000),
        hub,
        streams: Streams::new(Duration::from_secs(30)),
        admission: Admission::new(&config.limits, 1_000, 0, 1, &metrics),
        patience: Patience::default(),
        metrics,
        traces: None,
        fallback: None,
        succeeded: Default::default(),
        registries: Arc::default(),
    })
}

fn config(text: &str) -> Config {
    parse("c.yaml", text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Streams, and one of a route with these settings.
pub fn stream(settings: &str) -> (Arc<Streams>, Registered) {
    let text = format!(
        "server: {{ tls: none }}\nupstreams: {{ t: {{ ticker: {{}} }} }}\nroutes: [{{ path: /t, from: {{ upstream: t }}, {settings} }}]\n"
    );
    let router = Router::new(&config(&text), &Metrics::new(), 0);
    let streams = Streams::new(Duration::from_secs(30));
    let registered = open(&streams, &router.routes()[0]);
    (streams, registered)
}

/// A stream of this route.
pub fn open(streams: &Arc<Streams>, route: &Arc<Route>) -> Registered {
    let client = Client { addr: ([127, 0, 0, 1], 1).into(), certificate: None };
    streams.open(route, client, None, Arc::<Slot>::default())
}

/// Room for more than any test has.
pub const POLICY: Policy = Policy {
    bounds: Bounds { events: 100_000, bytes: 64 << 20, age: Duration::from_secs(60), buffer: 0 },
    linger: Duration::ZERO,
    idle_timeout: Duration::from_secs(600),
};

/// Terms by which a client may have all there is.
pub fn terms(start: Start) -> Arc<Terms> {
    Arc::new(Terms { start, snapshots: false, ..TERMS })
}

/// A hub with an upstream that has what follows.
pub fn hub() -> Hub {
    Hub::new([Arc::from("u")], Memory::new(usize::MAX))
}

/// A channel whose subscription does not stand yet.
pub fn channel(hub: &Hub, name: &str) -> Arc<Feed> {
    hub.hold(key(Source::Channel(name.into())), &POLICY)
}

/// A topic whose log begins at an offset, and what is before it.
pub fn topic(hub: &Hub, begin: u64, before: Before) -> Arc<Feed> {
    let feed = hub.hold(key(Source::Topic("t".into())), &POLICY);
    let codec: Arc<dyn IdCodec> = Arc::new(feed.own_ids());
    let history = Arc::new(Past { codec: Arc::clone(&codec), begin, before, wake: Arc::default() });
    let start = Position::new(vec![begin]);
    feed.log.open_filled(Opening { codec, history, segments: &[], end: start.clone(), start });
    feed
}

fn key(source: Source) -> FeedKey {
    FeedKey { upstream: "u".into(), source, shape: Shape::default() }
}

/// What opens these feeds as one.
pub fn opens(feeds: &[&Arc<Feed>]) -> Opens {
    let [first, also @ ..] = feeds else { panic!("there is one") };
    let also = also.iter().map(|feed| opens(&[*feed])).collect();
    Opens { feed: first.key.clone(), key: None, start: None, also }
}

/// What the upstream of a topic gives of what lies before its log.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    /// So much, and then no more.
    pub gives: u64,
    /// The event that the last of each thousand makes; no other makes one.
    pub last: Option<Text>,
}

struct Past {
    codec: Arc<dyn IdCodec>,
    begin: u64,
    before: Before,
    wake: Arc<Notify>,
}

impl History for Past {
    fn segment(&self, partition: u32, from: Offset, until: Offset) -> Found<Sought> {
        if from.major >= self.before.gives {
            return Found::Wait(Arc::clone(&self.wake).notified_owned());
        }
        let memory = Memory::new(usize::MAX);
        let mut draft = SegmentDraft::new(&Shape::default(), &self.codec, false, &memory, partition, from);
        let to = until.min(Offset::from(from.major + 1_000));
        if let Some(last) = &self.before.last {
            draft.push(to, last);
        }
        Found::Here(Sought::Segment(Arc::new(draft.finish(to))))
    }

    fn ask(&self, _: &Question, _: Instant) -> Found<Answer> {
        let (none, end) = (Position::default(), Position::new(vec![self.begin]));
        Found::Here(Answer { from: none.clone(), oldest: none, end, born: None })
    }

    fn answers_since(&self) -> Option<Instant> {
        Some(Instant::now())
    }

    fn counts(&self) -> bool {
        true
    }

    fn scan(&self, _: &Position, _: Arc<Table>) {}

    fn reset(&self) {}
}
