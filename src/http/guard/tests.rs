//! What becomes of streams that are held, and of the room that they take.

use super::super::client::Client;
use super::super::supervise::Slot;
use super::super::{Admission, Patience, Router, Streams};
use super::*;
use crate::auth::Auth;
use crate::config::parse;
use crate::hub::{Hub, Memory};
use crate::metrics::Metrics;
use crate::tls::Terminator;
use parking_lot::RwLock;

/// An endpoint that nobody answers at, a rule that lets in everybody, and room for one feed.
fn edge() -> Arc<Edge> {
    let text = "\
server: { tls: none }
auth: { app: { forward: { url: 'http://127.0.0.1:1/' } } }
upstreams: { t: { push: {} } }
routes:
  - { path: '/asked/{x}', from: { upstream: t, channel: '{x}' }, auth: app }
  - { path: '/open/{x}', from: { upstream: t, channel: '{x}' }, allow: 'true', limits: { feeds: 1 } }
";
    let config = parse("c.yaml", text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
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

fn held(edge: &Edge, path: &str, header: &str) -> (Arc<Route>, Option<Held>) {
    let site = edge.site();
    let Some(Found::Route(route, Ok(feed))) = site.router.find("h", path) else { panic!("{path}") };
    let request =
        Asked { path: path.into(), ..crate::auth::testing::asked(&[("authorization", header)], "") };
    let held = Held::new((edge, &site), route, request, (feed, Wish::default()));
    (Arc::clone(route), held)
}

/// Why it ends that it waits, and how long it has waited.
async fn ends(edge: &Arc<Edge>, path: &str) -> (Option<End>, Duration) {
    let (route, held) = held(edge, path, "a");
    let client = Client { addr: ([127, 0, 0, 1], 1).into(), certificate: None };
    let stream = edge.streams.open(&route, client, None, Arc::<Slot>::default());
    let began = Instant::now();
    let decision = settle(edge, &stream.control, held.expect("room"));
    assert!(edge.held.used() > 0, "it takes room while it waits");
    let decided = decision.await;
    (decided.err(), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_not_held_for_ever() {
    let edge = edge();
    let (why, after) = ends(&edge, "/asked/a").await;
    assert_eq!(why, Some(End::Undecided));
    assert!((LONGEST.mul_f64(0.75)..LONGEST.mul_f64(1.3)).contains(&after), "{after:?}");
    assert_eq!(edge.held.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_for_which_there_is_no_room_any_more_was_not_refused() {
    let edge = edge();
    let (route, first) = held(&edge, "/open/a", "a");
    let feed = first.expect("room").feed;
    let _stays = edge.hub.subscribe_within(
        &route.kept.quota,
        feed,
        &route.policy(),
        Wish::default(),
        Arc::clone(&route.terms),
    );
    assert_eq!(ends(&edge, "/open/b").await.0, Some(End::NoRoom));
    assert_eq!(ends(&edge, "/open/a").await.0, None);
}

#[tokio::test]
async fn what_is_held_has_a_bound_in_bytes() {
    let edge = edge();
    let long = "x".repeat(3_000);
    let mut all: Vec<_> = std::iter::from_fn(|| held(&edge, "/asked/a", &long).1).take(10).collect();
    assert_eq!(all.len(), 1, "{} of 10,000 bytes", edge.held.used());
    assert!(held(&edge, "/asked/a", "short").1.is_some());
    assert!(edge.hub.memory().used() > 5_000, "it counts in limits.memory");
    all.clear();
    assert_eq!((edge.held.used(), edge.hub.memory().used()), (0, 0));
    // This route's rule looks at nothing: the field is not kept.
    assert!(held(&edge, "/open/a", &"x".repeat(50_000)).1.is_some());
}
