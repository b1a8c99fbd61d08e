//! The feeds that a request asks for, and what is decided on each of them: as its own route decides. Credentials are looked at
//! once for all.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use tokio::time::Instant;

use super::super::guard;
use super::super::lease::Guarded;
use super::super::problem::Problem;
use super::super::router::Route;
use super::super::shed::Why;
use super::super::site::Site;
use super::choose::FEED_KEY;
use crate::auth::{Admitted, Asked, Grant, Refusal, Shown, Verdict};
use crate::hub::{Opens, Refused};

/// The feeds that a request asks for, and what it has shown.
pub(super) struct Several {
    /// Those that are there, and that it may read as far as is known.
    pub chosen: Vec<Chosen>,
    pub refused: Vec<Ungiven>,
    pub shown: Shown,
}

/// A feed that a request asks for.
pub(super) struct Chosen {
    /// Its path as the request names it.
    pub label: Arc<str>,
    pub route: Arc<Route>,
    pub opens: Opens,
    /// Whether what browsers send by themselves counts for it: cookies, and certificates.
    pub trusts_browser: bool,
    /// Whether it is decided that it may read it.
    pub is_allowed: bool,
    /// What lets it in, once that is decided and where something has to.
    pub grant: Option<Arc<Grant>>,
}

/// A feed that it is not given.
pub(super) struct Ungiven {
    pub label: Arc<str>,
    pub why: No,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum No {
    /// What its own path would be answered with.
    Problem(Problem),
    /// There is no room for one more reader of it.
    Room(Why),
}

/// What came of deciding.
#[derive(Default)]
pub(super) struct Decided {
    /// Cookies with which it comes back.
    pub cookies: Vec<HeaderValue>,
    /// Whether there is a feed on which it cannot be decided yet.
    pub is_undecided: bool,
    /// Whether more tickets were used lately than are remembered.
    pub is_full: bool,
}

/// Whom the routes of feeds believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Believed {
    /// The providers that they name.
    Configured,
    /// Those who can renew what these have believed: see [`crate::auth::Auth::renewing`].
    Fresh,
}

impl Several {
    /// Decides on each feed as its own route does, unless that was done before: of many, what is slow may leave time for some
    /// alone.
    pub async fn decide(&mut self, site: &Site, believed: Believed) -> Decided {
        let (mut decided, began) = (Decided::default(), Instant::now());
        let mut asked = as_for_one(self.shown.request());
        for mut feed in std::mem::take(&mut self.chosen) {
            if feed.is_allowed {
                self.chosen.push(feed);
                continue;
            }
            if feed.route.is_guarded() && began.elapsed() > LONG {
                decided.is_undecided = true;
                self.chosen.push(feed);
                continue;
            }
            let admitted = match feed.verdict(site, believed, (&mut asked, &mut self.shown)).await {
                Verdict::Allowed(admitted) => {
                    feed.is_allowed = true;
                    admitted
                }
                Verdict::Undecided(admitted) => {
                    decided.is_undecided = true;
                    admitted
                }
                Verdict::Refused(why) => {
                    decided.is_full |= why == Refusal::Full;
                    let why = No::Problem(guard::problem(why));
                    self.refused.push(Ungiven { label: feed.label, why });
                    continue;
                }
            };
            decided.cookies.extend(admitted.cookie.filter(|cookie| !decided.cookies.contains(cookie)));
            feed.grant = admitted.grant;
            self.chosen.push(feed);
        }
        decided
    }

    /// Bytes that its feeds take beside what lets it in to them.
    pub fn size(&self) -> usize {
        let chosen = self.chosen.iter().map(|feed| feed.label.len() + guard::more_sources(&feed.opens));
        let refused = self.refused.iter().map(|refused| refused.label.len());
        chosen.chain(refused).map(|size| FEED + size).sum()
    }

    /// And those of what does, which several may have in common.
    pub fn grants_size(&self) -> usize {
        let mut grants: Vec<_> = self.chosen.iter().filter_map(|feed| feed.grant.as_ref()).collect();
        grants.sort_by_key(|grant| Arc::as_ptr(grant));
        grants.dedup_by_key(|grant| Arc::as_ptr(grant));
        grants.iter().map(|grant| grant.size()).sum()
    }
}

impl Chosen {
    /// Whether it is the one of this label, however that is spelled. Parameters may make another of it that opens the same.
    pub fn is(&self, label: &str, (route, opens): (&Arc<Route>, &Opens)) -> bool {
        let decoded = percent_encoding::percent_decode_str;
        Arc::ptr_eq(&self.route, route) && self.opens == *opens && decoded(&self.label).eq(decoded(label))
    }

    /// With what its client is let in, where something has to do that.
    pub fn guarded(&self) -> Option<Guarded> {
        let grant = Arc::clone(self.grant.as_ref()?);
        Some(Guarded { label: Arc::clone(&self.label), grant })
    }

    /// Whether its filter is another one by what lets it in now than by what did before.
    pub fn filters_otherwise(&self, before: &[Guarded]) -> bool {
        let Some(grant) = &self.grant else { return false };
        let mut before = before.iter().filter(|before| before.label == self.label);
        before.any(|before| self.route.filters_otherwise(&before.grant.claims, &grant.claims))
    }

    async fn verdict(
        &self,
        site: &Site,
        believed: Believed,
        (asked, shown): (&mut Asked, &mut Shown),
    ) -> Verdict {
        let (route, config) = (&self.route, &self.route.config);
        if !route.is_guarded() {
            return Verdict::Allowed(Admitted::default());
        }
        asked.path = self.label.to_string();
        asked.params = site.router.params(&asked.host, &self.label);
        asked.origin_is_listed = self.trusts_browser;
        asked.certificate = shown.request().certificate.clone().filter(|_| self.trusts_browser);
        let fresh;
        let providers = match believed {
            Believed::Configured => &config.auth,
            Believed::Fresh => {
                fresh = site.auth.renewing(&config.auth);
                &fresh
            }
        };
        site.auth.decide_too(&route.name, providers, config.allow.as_ref(), (asked, shown)).await
    }
}

impl Ungiven {
    /// What it is told, or would be alone.
    pub fn problem(&self) -> Problem {
        match self.why {
            No::Problem(problem) => problem,
            No::Room(why) => why.problem(),
        }
    }

    /// As the stream tells it, of a client that wishes to go on there.
    pub fn told(&self, resumes: Option<String>) -> Refused {
        let (status, kind, detail) = self.problem().told();
        let (label, status) = (Arc::clone(&self.label), Some(status.as_u16()));
        Refused { label, status, kind: kind.into(), detail, resumes }
    }
}

impl Decided {
    /// In a word, for traces.
    pub fn outcome(&self, several: &Several) -> &'static str {
        match (self.is_undecided, several.chosen.is_empty(), several.refused.is_empty()) {
            (true, ..) => "undecided",
            (_, true, _) => "refused",
            (_, _, true) => "allowed",
            _ => "partly",
        }
    }
}

/// The request as if it were for one feed; for which one is still to be said.
fn as_for_one(request: &Asked) -> Asked {
    let name = |pair: &str| form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name.into_owned());
    let others = request.query.split('&').filter(|pair| name(pair).is_none_or(|name| name != FEED_KEY));
    Asked { query: others.collect::<Vec<_>>().join("&"), ..request.clone() }
}

/// How long a client waits for its head while endpoints are slow to decide on one feed after the other.
const LONG: Duration = Duration::from_secs(10);

/// Bytes that a feed of a held stream takes beside its path.
const FEED: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::testing::asked;

    #[test]
    fn what_is_asked_of_a_feed_does_not_name_others() {
        for (query, left) in
            [("feed=/a&token=x%26y&f%65ed=/b", "token=x%26y"), ("", ""), ("a&feed&b=feed", "a&b=feed")]
        {
            assert_eq!(as_for_one(&asked(&[], query)).query, left);
        }
    }
}
