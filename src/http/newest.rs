//! Where a feed stands, without a stream: `HEAD` tells it in `last-event-id`, and `GET ?probe` in a JSON document. Whoever
//! comes with that id is given what came after.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, Response};
use serde_json::json;

use super::accept::Form;
use super::answer::{LAST_EVENT_ID, Visit, head, query, with_cookie};
use super::body::Body;
use super::coding;
use super::filters;
use super::guard;
use super::page::{PATIENCE, Reader};
use super::problem::Problem;
use super::router::Route;
use super::shed::{Why, later};
use crate::auth::Verdict;
use crate::config::Start;
use crate::hub::{Opens, Terms, Wish};

impl Visit {
    /// `HEAD`: what `GET` would begin with, and the newest id if it is known at once, or nearly.
    pub(super) async fn head(
        &self,
        route: &Route,
        form: Form,
        feed: Opens,
        request: &Request<()>,
    ) -> Response<Body> {
        let asked = self.question(route.door(), request);
        let (admitted, is_decided) = match self.admit(route.door(), asked.as_ref()).await {
            Verdict::Refused(why) => return guard::refused(why),
            Verdict::Allowed(admitted) => (admitted, true),
            Verdict::Undecided(admitted) => (admitted, false),
        };
        if is_decided
            && let Err(problem) = filters::bind(route, &feed, query(request), admitted.grant.as_deref())
        {
            return with_cookie(problem.response(), admitted);
        }
        let encoding = coding::agree(route.config.compress.as_ref(), request.headers());
        let mut response = head(route, form, encoding.filter(|_| form == Form::Events), Bytes::new().into());
        // It says what a stream would say, which is open while its upstream is down.
        // Without a place it is not asked for: a crowd of these would open as many feeds as they like.
        let place = route.kept.places.take(self.client(request).addr.ip().into());
        if is_decided
            && self.has_room()
            && place.is_ok()
            && let Ok(Some(id)) = self.newest(route, feed, AT_ONCE).await
            && let Ok(id) = HeaderValue::try_from(id)
        {
            response.headers_mut().insert(LAST_EVENT_ID, id);
        }
        with_cookie(response, admitted)
    }

    /// `GET ?probe`.
    pub(super) async fn probe(&self, route: &Route, feed: Opens, request: &Request<()>) -> Response<Body> {
        let (admitted, _place) = match self.let_in(route, request).await {
            Ok(let_in) => let_in,
            Err(answer) => return *answer,
        };
        if let Err(problem) = filters::bind(route, &feed, query(request), admitted.grant.as_deref()) {
            return with_cookie(problem.response(), admitted);
        }
        let response = match self.newest(route, feed, PATIENCE).await {
            Ok(Some(id)) => guard::answer(&json!({ "id": id })),
            Ok(None) => later(Problem::Unanswered, route.config.retry),
            Err(why) => self.shed(route, Form::Page, request, why),
        };
        with_cookie(response, admitted)
    }

    /// The id from which a stream would go on that begins now; `None` where that is not known after `patience`.
    async fn newest(&self, route: &Route, feed: Opens, patience: Duration) -> Result<Option<String>, Why> {
        let terms = Arc::new(Terms { start: Start::Latest, ..route.page_terms() });
        let (hub, policy) = (&self.edge.hub, route.policy());
        let feed = hub.subscribe_within(&route.kept.quota, feed.by_terms(), &policy, Wish::default(), terms);
        let reader = Reader::new(0, route.control_prefix());
        let content = reader.read(feed.ok_or(Why::Feeds)?, &self.edge.streams, patience, |_| ()).await;
        Ok(content.and_then(|content| content.into_next()))
    }
}

/// How long `HEAD` waits.
const AT_ONCE: Duration = Duration::from_secs(2);
