//! Several feeds on one connection. A request names them by their paths, and each is found, and decided on, as a request for
//! it alone would be: nobody reads by this way what its own route would not give him. Credentials are looked at once for all of
//! them. A feed that is not given is told of on the stream, which goes on with the others.
//!
//! Reading order: `choose` finds the feeds, `several` is what is decided on them, and `opened` what is given of them; `held`
//! waits where it cannot be decided yet.

mod choose;
mod held;
mod opened;
mod several;

use std::sync::Arc;

use bytes::Bytes;
use http::header;
use http::{Method, Request, Response};
use serde_json::json;

use self::choose::{NO_FEED, labels};
use self::held::{HeldSeveral, settle};
use self::opened::Opened;
use self::several::{Believed, Chosen, Decided, No, Several, Ungiven};
use super::Edge;
use super::accept::{self, Form};
use super::answer::{Visit, asks_to_probe, dress, head, in_query, methods, options, wish};
use super::body::Body;
use super::guard;
use super::lease::Guarded;
use super::problem::Problem;
use super::router::Route;
use super::shed::Why;
use super::stream::{EventStream, Written};
use super::streams::{Control, End};
use super::supervise::Slot;
use super::traced::Traced;
use crate::auth::Grant;
use crate::hub::Wish;

impl Visit {
    /// The answer of a route that gives the feeds of others.
    pub(super) async fn answer_multi(&self, route: &Arc<Route>, request: &Request<()>) -> Response<Body> {
        let form = accept::agree_on_stream(request.headers());
        let mut response = match (request.method(), form) {
            (&Method::OPTIONS, _) => options(route),
            (&Method::GET | &Method::HEAD, None) => Problem::OfOne.response(),
            (&Method::GET | &Method::HEAD, _) if route.config.ended => guard::no_content(),
            (&Method::GET, _) if asks_to_probe(request) => Problem::OfOne.response(),
            (&Method::GET | &Method::HEAD, Some(form)) => self.several(route, form, request).await,
            (&Method::POST, _) if route.is_guarded() && in_query(request, "renew").is_some() => {
                let link = in_query(request, "renew").unwrap_or_default();
                self.renew_several(route, &link, request).await
            }
            _ => Problem::Method(methods(route)).response(),
        };
        dress(&mut response, route, request);
        response
    }

    async fn several(&self, route: &Arc<Route>, form: Form, request: &Request<()>) -> Response<Body> {
        if let Some(answer) = self.sends_away(route, form, request) {
            return answer;
        }
        let most = route.config.multi.as_ref().map_or(0, |multi| multi.max);
        let (wish, labels) = match (wish(request), labels(request.uri().query().unwrap_or_default(), most)) {
            (Ok(wish), Ok(labels)) => (wish, labels),
            (Err(problem), _) | (_, Err(problem)) => return problem.response(),
        };
        let mut several = self.choose(route, labels, request);
        let span = self.trace.as_ref().map(|trace| trace.span("authorize"));
        let decided = several.decide(&self.site, Believed::Configured).await;
        if let Some(mut span) = span {
            span.text("ssegate.auth.outcome", decided.outcome(&several));
        }
        let cookies = decided.cookies.clone();
        let mut response = self.give((route, form), request, (several, decided), wish);
        for cookie in cookies {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }

    /// The stream of what a request is let in to, or the answer where that is nothing.
    fn give(
        &self,
        (route, form): (&Arc<Route>, Form),
        request: &Request<()>,
        (several, decided): (Several, Decided),
        wish: Wish,
    ) -> Response<Body> {
        if decided.is_full {
            return self.shed(route, form, request, Why::Tickets);
        }
        if several.chosen.is_empty() {
            return self.give_nothing(route, form, request, &several.refused);
        }
        if *request.method() == Method::HEAD {
            return head(route, form, None, Bytes::new().into());
        }
        if decided.is_undecided && form != Form::Events {
            return Problem::Undecided.response();
        }
        let client = self.client(request);
        let place = match route.kept.places.take(client.addr.ip().into()) {
            Ok(place) => place,
            Err(why) => return self.shed(route, form, request, why),
        };
        let written = if form == Form::Events { Written::Events(None) } else { Written::Lines };
        let traced = self.trace.as_ref().map(|trace| Traced::new(trace, &wish));
        let open = |client| {
            let mut registered = self.edge.streams.open(route, client, Some(place), Slot::current());
            traced.into_iter().for_each(|traced| registered.trace(traced));
            registered
        };
        if decided.is_undecided {
            let Some(held) = HeldSeveral::new(&self.edge, (&self.site, route), several, wish) else {
                return self.shed(route, form, request, Why::Held);
            };
            let registered = open(client);
            let decision = settle(&self.edge, &registered.control, held);
            return head(route, form, None, EventStream::held(Some(decision), registered, written).into());
        }
        match several.subscribe(&self.edge, client.addr.ip(), wish, route) {
            Err(refused) => self.give_nothing(route, form, request, &refused),
            Ok(Opened { reader, places, guarded }) => {
                let mut registered = open(client);
                registered.takes(places);
                lease(&self.edge, &registered.control, request.uri().path(), guarded);
                head(route, form, None, EventStream::new(reader, registered, written).into())
            }
        }
    }

    /// The answer where every feed is refused. What time or another credential may mend goes before what nothing will.
    fn give_nothing(
        &self,
        route: &Route,
        form: Form,
        request: &Request<()>,
        refused: &[Ungiven],
    ) -> Response<Body> {
        let lacks_room = refused.iter().find_map(|refused| match refused.why {
            No::Room(why) => Some(why),
            No::Problem(_) => None,
        });
        if let Some(why) = lacks_room {
            return self.shed(route, form, request, why);
        }
        let problems = || refused.iter().map(Ungiven::problem);
        let asks = |problem: &Problem| matches!(problem, Problem::NoCredential | Problem::BadCredential);
        match problems().find(asks).or_else(|| problems().next()) {
            Some(Problem::Over) => guard::no_content(),
            Some(problem) => problem.response(),
            None => Problem::BadRequest(NO_FEED).response(),
        }
    }

    /// `POST` with a stream's renewal link: the credentials that it brings take the place of those before, in all of its feeds.
    async fn renew_several(&self, route: &Arc<Route>, link: &str, request: &Request<()>) -> Response<Body> {
        let Some(control) = self.edge.streams.renewable(link, request.uri().path()) else {
            return Problem::NoStream.response();
        };
        let before = control.lease.lock().as_ref().map(|lease| lease.feeds.clone()).unwrap_or_default();
        let mut several = self.choose(route, before.iter().map(|feed| Arc::clone(&feed.label)), request);
        let decided = several.decide(&self.site, Believed::Fresh).await;
        if let Some(refused) = several.refused.first() {
            return refused.problem().response();
        }
        if decided.is_undecided {
            return Problem::Undecided.response();
        }
        let guarded: Vec<_> = several.chosen.iter().filter_map(Chosen::guarded).collect();
        if guarded.is_empty() || !guarded.iter().all(|feed| feed.is_known(&before)) {
            // Each feed stays whose it is: what the stream has read of may not be for others, nor what its filter lets pass.
            return Problem::Forbidden.response();
        }
        lease(&self.edge, &control, request.uri().path(), guarded.clone());
        if several.chosen.iter().any(|feed| feed.filters_otherwise(&before)) {
            // It was given what the former said. Its client comes back, and is given what the latter does.
            self.edge.streams.deadlines.end(&control, End::Claims);
        }
        let expires = guarded.iter().filter_map(|feed| feed.grant.expires).min();
        let expires = expires.map(|at| humantime::format_rfc3339_seconds(at).to_string());
        let mut response = guard::answer(&json!({ "expires": expires }));
        // The one that the browser would come back with ends when the stream would have.
        let (auth, names) = (&self.site.auth, &route.config.auth);
        let cookie = guarded.iter().find_map(|feed| auth.cookie(names, &feed.grant, several.shown.request()));
        cookie.map(|cookie| response.headers_mut().append(header::SET_COOKIE, cookie));
        response
    }
}

/// The stream lasts as long as all that lets its client in.
fn lease(edge: &Edge, control: &Arc<Control>, path: &str, guarded: Vec<Guarded>) {
    // Each once.
    let mut grants: Vec<Arc<Grant>> = Vec::new();
    for Guarded { grant, .. } in &guarded {
        if !grants.contains(grant) {
            grants.push(Arc::clone(grant));
        }
    }
    if !grants.is_empty() {
        control.lease.lock().get_or_insert_default().feeds = guarded;
        guard::lease(edge, control, path, &grants);
    }
}
