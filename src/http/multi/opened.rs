//! What a client is given of several feeds: a reader of those for which there is room, and places of their routes.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::Edge;
use super::super::filters;
use super::super::lease::Guarded;
use super::super::router::Route;
use super::super::shed::Why;
use super::super::streams::OfFeed;
use super::several::{Chosen, No, Several, Ungiven};
use crate::config;
use crate::hub::{Merged, Part, Reader, Tell, Wish, Wishes};

/// What is given of several feeds.
pub(super) struct Opened {
    pub reader: Reader,
    /// The places that it takes of their routes.
    pub places: Vec<OfFeed>,
    /// Those that are not for everybody: what the stream lasts as long as.
    pub guarded: Vec<Guarded>,
}

impl Several {
    /// Opens the feeds as far as there is room, for a client with this wish.
    ///
    /// # Errors
    /// All that it is refused, where it is given nothing.
    pub fn subscribe(
        self,
        edge: &Edge,
        client: IpAddr,
        wish: Wish,
        route: &Route,
    ) -> Result<Opened, Vec<Ungiven>> {
        let Self { chosen, mut refused, shown } = self;
        let (wishes, mut parts, mut places) = (Wishes::new(wish), Vec::new(), Vec::new());
        let mut guarded = Vec::new();
        for feed in chosen {
            let lets_in = feed.guarded();
            let Chosen { label, route, opens, grant, .. } = feed;
            let filter = match filters::bind(&route, &opens, &shown.request().query, grant.as_deref()) {
                Ok(filter) => filter,
                Err(problem) => {
                    refused.push(Ungiven { label, why: No::Problem(problem) });
                    continue;
                }
            };
            let opened = route.kept.places.take(client.into()).and_then(|place| {
                let wish = Wish { filter, ..wishes.of(&label) };
                let resumes = wish.id.clone();
                let (policy, terms) = (route.policy(), Arc::clone(&route.terms));
                let reader = edge.hub.subscribe_within(&route.kept.quota, opens, &policy, wish, terms);
                let reader = reader.ok_or(Why::Feeds)?;
                Ok((Part { label: Arc::clone(&label), reader, resumes }, place))
            });
            match opened {
                Ok((part, place)) => {
                    parts.push(part);
                    places.push((label, place));
                    guarded.extend(lets_in);
                }
                Err(why) => {
                    route.metrics.shed(why.as_str());
                    refused.push(Ungiven { label, why: No::Room(why) });
                }
            }
        }
        if parts.is_empty() {
            return Err(refused);
        }
        let tell = match route.config.multi.as_ref().map(|multi| multi.tell) {
            Some(config::Tell::Envelope) => Tell::Envelope,
            Some(config::Tell::Event) | None => Tell::Event,
        };
        let told = refused.iter().map(|refused| refused.told(wishes.of(&refused.label).id)).collect();
        let merged = Merged::new(parts, tell, route.control_prefix().into(), told);
        Ok(Opened { reader: Reader::Many(Box::new(merged)), places, guarded })
    }
}
