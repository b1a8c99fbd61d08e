//! Which feeds a request asks for: it names them by their paths, and each is found as a request for it alone would find it.

use std::sync::Arc;

use http::Request;

use super::super::answer::Visit;
use super::super::cors;
use super::super::problem::Problem;
use super::super::router::{Found, Miss, Route};
use super::several::{Chosen, No, Several, Ungiven};
use crate::auth::{self, Asked, Shown};
use crate::hub::Opens;

impl Visit {
    /// Finds the feeds that a request names, of those that the route gives.
    pub(super) fn choose(
        &self,
        route: &Arc<Route>,
        labels: impl IntoIterator<Item = Arc<str>>,
        request: &Request<()>,
    ) -> Several {
        let shown = Shown::by(self.asked_of(route.door(), request));
        let mut several = Several { chosen: Vec::new(), refused: Vec::new(), shown };
        for label in labels {
            match self.find(route, &label, several.shown.request()) {
                Ok((route, opens, _))
                    if several.chosen.iter().any(|feed| feed.is(&label, (&route, &opens))) =>
                {
                    several.refused.push(Ungiven { label, why: No::Problem(Problem::BadRequest(TWICE)) });
                }
                Ok((route, opens, trusts_browser)) => {
                    let (is_allowed, grant) = (false, None);
                    several.chosen.push(Chosen { label, route, opens, trusts_browser, is_allowed, grant });
                }
                Err(problem) => several.refused.push(Ungiven { label, why: No::Problem(problem) }),
            }
        }
        several
    }

    /// The route of a feed, what it opens, and whether what browsers send by themselves counts for it.
    fn find(
        &self,
        route: &Arc<Route>,
        label: &str,
        request: &Asked,
    ) -> Result<(Arc<Route>, Opens, bool), Problem> {
        if auth::as_sent(label).is_none_or(|sent| sent != label) {
            return Err(Problem::BadRequest(NO_PATH));
        }
        let (own, feed) = match self.site.router.find(&request.host, label) {
            Some(Found::Route(own, feed)) if route.gives(own) => (own, feed),
            _ => return Err(Problem::NoRoute),
        };
        let opens = feed.map_err(|miss| match miss {
            Miss::Unmatched => Problem::NoRoute,
            Miss::BadParameter => Problem::BadParameter,
        })?;
        if own.config.ended {
            return Err(Problem::Over);
        }
        let (cors, to) = (own.config.cors.as_ref(), (Some(&*request.authority), request.secure));
        if !cors::may_read(cors, &request.headers, to) {
            return Err(Problem::Forbidden);
        }
        // Where they may come along, the browser has its answer read by the page.
        let listed = cors::may_use_cookies(cors.filter(|cors| cors.credentials), &request.headers, to);
        Ok((Arc::clone(own), opens, listed && request.origin_is_listed))
    }
}

/// The feeds that a query asks for, each once.
pub(super) fn labels(query: &str, most: usize) -> Result<Vec<Arc<str>>, Problem> {
    let mut labels: Vec<Arc<str>> = Vec::new();
    for (_, label) in form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == FEED_KEY) {
        if labels.iter().any(|known| **known == *label) {
            continue;
        }
        if labels.len() == most {
            return Err(Problem::TooManyFeeds(most));
        }
        labels.push(label.into());
    }
    if labels.is_empty() { Err(Problem::BadRequest(NO_FEED)) } else { Ok(labels) }
}

/// The parameter of the query that names a feed.
pub(super) const FEED_KEY: &str = "feed";

/// What is told where it names none.
pub(super) const NO_FEED: &str =
    "Name the feeds to read by their paths, one or more: ?feed=/its/path&feed=/another.";
const TWICE: &str = "This is a feed that the request has named before, in another spelling; name each once.";
const NO_PATH: &str =
    "A feed is a path as it stands in its URL: it begins with `/`, is percent-encoded, and has no query.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feeds_are_named_once_each_and_decoded_once() {
        let read = |query: &str, most| labels(query, most).map(|labels| labels.join(" "));
        assert_eq!(read("feed=/a&x=1&feed=%2Fb%252F&f%65ed=/c&feed=/a", 3).unwrap(), "/a /b%2F /c");
        for (query, most) in [("", 3), ("feeds=/a", 3)] {
            assert!(matches!(read(query, most), Err(Problem::BadRequest(_))), "{query}");
        }
        let refused = read("feed=/a&feed=/b&feed=/c", 2).unwrap_err();
        assert!(refused.told().2.contains("on one connection, which are 2;"), "{refused:?}");
        assert_eq!(read("feed=&feed", 1).unwrap(), "", "an empty name is one, which no route has");
    }
}
