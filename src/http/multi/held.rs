//! A stream of several feeds that is open before it is decided what its client may read.

use std::sync::Arc;

use super::super::Edge;
use super::super::guard::{self, Tries};
use super::super::router::Route;
use super::super::shed::Why;
use super::super::site::Site;
use super::super::stream::Decision;
use super::super::streams::{Control, End};
use super::lease;
use super::opened::Opened;
use super::several::{Believed, No, Several, Ungiven};
use crate::hub::{Reserved, Wish};

/// What is kept of a request that cannot be decided on yet, with the room that it takes.
pub(super) struct HeldSeveral {
    site: Arc<Site>,
    several: Several,
    wish: Wish,
    /// Bytes that it takes beside the grants.
    size: usize,
    room: Reserved,
}

impl HeldSeveral {
    /// `None` where there is no room for one more: whoever waits has proven nothing.
    pub fn new(
        edge: &Edge,
        (site, route): (&Arc<Site>, &Route),
        several: Several,
        wish: Wish,
    ) -> Option<Self> {
        let several = Several { shown: several.shown.kept(&route.reads), ..several };
        let size = guard::room(several.shown.request(), &wish) + several.size();
        let room = edge.held.reserve(size + several.grants_size())?;
        Some(Self { site: Arc::clone(site), several, wish, size, room })
    }
}

/// Decides on a stream that is open already, as soon as that can be done on all of its feeds.
pub(super) fn settle(edge: &Arc<Edge>, control: &Arc<Control>, held: HeldSeveral) -> Decision {
    let (edge, control) = (Arc::clone(edge), Arc::clone(control));
    Box::pin(async move {
        // As a whole: of what is only named in parts, the room would stay behind.
        let HeldSeveral { site, mut several, wish, size, mut room } = held;
        let mut tries = Tries::new(&site, &control);
        while tries.next().await {
            // Boxed, so that it takes room only while it is asked.
            let decided = Box::pin(several.decide(&site, Believed::Configured)).await;
            if several.chosen.is_empty() {
                return Err(End::Refused);
            }
            if decided.is_undecided {
                several.shown.forget();
                if !room.fit(size + several.grants_size()) {
                    control.route.metrics.shed(Why::Held.as_str());
                    return Err(End::NoRoom);
                }
                continue;
            }
            let path = several.shown.request().path.clone();
            let opened = several.subscribe(&edge, control.client.addr.ip(), wish, &control.route);
            let lacks_room = |refused: &Ungiven| matches!(refused.why, No::Room(_));
            let why =
                |refused: Vec<_>| if refused.iter().any(lacks_room) { End::NoRoom } else { End::Refused };
            let Opened { reader, places, guarded } = opened.map_err(why)?;
            lease(&edge, &control, &path, guarded);
            return Ok((reader, places));
        }
        Err(End::Undecided)
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::router::Found;
    use super::super::super::testing;
    use super::super::several::Chosen;
    use super::*;
    use crate::auth::Shown;
    use crate::auth::testing::asked;

    /// The key `one` is good for one feed. On the other nobody decides.
    const CONFIG: &str = "\
server: { tls: none }
auth:
  keys: { api_key: { keys: { ci: 'sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed' } } }
  app: { forward: { url: 'http://127.0.0.1:1/' } }
upstreams: { t: { push: {} } }
routes:
  - { path: /mine, from: { upstream: t, channel: a }, auth: keys }
  - { path: /asked, from: { upstream: t, channel: b }, auth: app }
  - { path: /all, multi: { of: [/mine, /asked] } }
";

    fn held(edge: &Edge) -> (Arc<Route>, HeldSeveral) {
        let site = edge.site();
        let Some(Found::Multi(all)) = site.router.find("h", "/all") else { panic!("/all") };
        let chosen = |label: &str| {
            let Some(Found::Route(route, Ok(opens))) = site.router.find("h", label) else {
                panic!("{label}")
            };
            let (route, trusts_browser, is_allowed) = (Arc::clone(route), false, false);
            Chosen { label: label.into(), route, opens, trusts_browser, is_allowed, grant: None }
        };
        let shown = Shown::by(asked(&[("x-api-key", "one")], ""));
        let several = Several { chosen: ["/mine", "/asked"].map(chosen).into(), refused: Vec::new(), shown };
        let held = HeldSeveral::new(edge, (&site, all), several, Wish::default());
        (Arc::clone(all), held.expect("room"))
    }

    /// What it is let in with is found after it was given its room, and was kept beyond any bound.
    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_any_more_ends() {
        let edge = testing::edge(CONFIG);
        for (is_full, ends) in [(false, End::Undecided), (true, End::NoRoom)] {
            let (route, held) = held(&edge);
            let stream = testing::open(&edge.streams, &route);
            let left = if is_full { edge.held.limit() - edge.held.used() } else { 0 };
            let others = edge.held.reserve(left);
            assert!(others.is_some());
            assert_eq!(settle(&edge, &stream.control, held).await.err(), Some(ends));
            assert_eq!(edge.held.used(), left);
        }
    }
}
