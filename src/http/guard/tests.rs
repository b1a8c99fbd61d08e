//! What becomes of streams that are held, and of the room that they take.

use super::super::testing;
use super::*;

/// An endpoint that nobody answers at, a rule that lets in everybody, and room for one feed.
const CONFIG: &str = "\
server: { tls: none }
auth: { app: { forward: { url: 'http://127.0.0.1:1/' } } }
upstreams: { t: { push: {} } }
routes:
  - { path: '/asked/{x}', from: { upstream: t, channel: '{x}' }, auth: app }
  - { path: '/open/{x}', from: { upstream: t, channel: '{x}' }, allow: 'true', limits: { feeds: 1 } }
";

fn held(edge: &Edge, path: &str, header: &str) -> (Arc<Route>, Option<HeldOne>) {
    let site = edge.site();
    let Some(Found::Route(route, Ok(feed))) = site.router.find("h", path) else { panic!("{path}") };
    let request =
        Asked { path: path.into(), ..crate::auth::testing::asked(&[("authorization", header)], "") };
    let held = HeldOne::new((edge, &site), route, request, (feed, Wish::default()));
    (Arc::clone(route), held)
}

/// Why it ends that it waits, and how long it has waited.
async fn ends(edge: &Arc<Edge>, path: &str) -> (Option<End>, Duration) {
    let (route, held) = held(edge, path, "a");
    let stream = testing::open(&edge.streams, &route);
    let began = Instant::now();
    let decision = settle(edge, &stream.control, held.expect("room"));
    assert!(edge.held.used() > 0, "it takes room while it waits");
    let decided = decision.await;
    (decided.err(), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_not_held_for_ever() {
    let edge = testing::edge(CONFIG);
    let (why, after) = ends(&edge, "/asked/a").await;
    assert_eq!(why, Some(End::Undecided));
    assert!((LONGEST.mul_f64(0.75)..LONGEST.mul_f64(1.3)).contains(&after), "{after:?}");
    assert_eq!(edge.held.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_for_which_there_is_no_room_any_more_was_not_refused() {
    let edge = testing::edge(CONFIG);
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
    let edge = testing::edge(CONFIG);
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
