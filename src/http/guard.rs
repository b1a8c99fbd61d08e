//! The door: what a request to a guarded route is let in with, what becomes of it while that cannot be told, and the two
//! places where clients bring credentials anew: the path of tickets, and a stream's renewal link.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Edge;
use super::answer::{Visit, authority, in_query, with_cookie};
use super::body::Body;
use super::cors;
use super::filters;
use super::problem::Problem;
use super::router::{Found, Route};
use super::shed::Why;
use super::site::Site;
use super::stream::{Decision, jittered};
use super::streams::{Control, End};
use crate::auth::{Admitted, Asked, Grant, Refusal, Tickets, Unticketed, Verdict, as_sent};
use crate::config::{Cors, Reads, Rule};
use crate::hub::{Opens, Reserved, Wish};

/// Who is let in to a stream or an application.
#[derive(Clone, Copy)]
pub(super) struct Door<'r> {
    /// Its route, as logs and metrics call it.
    pub name: &'r str,
    /// The providers that it believes, in order.
    pub auth: &'r [Arc<str>],
    /// Its rule.
    pub allow: Option<&'r Rule>,
    /// Which pages of other origins may read what is behind it.
    pub cors: Option<&'r Cors>,
    /// What these may send to be let in, where there are such pages.
    pub reads: Option<&'r Reads>,
    /// Whether pages are behind it: links of other sites lead there, and cookies come along.
    pub has_pages: bool,
}

impl Door<'_> {
    /// Whether not everybody is let in.
    pub fn is_guarded(&self) -> bool {
        !self.auth.is_empty() || self.allow.is_some()
    }
}

impl Visit {
    /// Whether the request is let in.
    pub(super) async fn admit(&self, door: Door<'_>, asked: Option<&Asked>) -> Verdict {
        match asked {
            None => Verdict::Allowed(Admitted::default()),
            Some(asked) => {
                let span = self.trace.as_ref().map(|trace| trace.span("authorize"));
                let verdict = decide(&self.site, door, asked).await;
                if let Some(mut span) = span {
                    span.text("ssegate.auth.outcome", verdict.as_str());
                }
                verdict
            }
        }
    }

    /// What there is to decide on; nothing where everybody is let in.
    pub(super) fn question<B>(&self, door: Door<'_>, request: &Request<B>) -> Option<Asked> {
        door.is_guarded().then(|| self.asked_of(door, request))
    }

    pub(super) fn asked_of<B>(&self, door: Door<'_>, request: &Request<B>) -> Asked {
        let (uri, headers) = (request.uri(), request.headers());
        let authority = uri.authority().map(http::uri::Authority::as_str);
        let authority = authority.or_else(|| headers.get(header::HOST)?.to_str().ok());
        let host = host(request).to_ascii_lowercase();
        let client = self.client(request);
        Asked {
            params: self.site.router.params(&host, uri.path()),
            method: request.method().clone(),
            secure: self.is_secure(request),
            host,
            authority: authority.unwrap_or_default().to_owned(),
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
            headers: headers.clone(),
            client: client.addr.ip().to_canonical(),
            certificate: client.certificate,
            origin_is_listed: cors::may_use_cookies(door.cors, headers, (authority, self.is_secure(request)))
                || (door.has_pages && cors::is_visit(request.method(), headers)),
            came: Instant::now(),
            proven: None,
        }
    }

    /// `POST` with a stream's renewal link: the credential that it brings takes the place of the one before.
    pub(super) async fn renew(&self, route: &Route, link: &str, request: &Request<()>) -> Response<Body> {
        let asked = self.asked_of(route.door(), request);
        let Some(control) = self.edge.streams.renewable(link, &asked.path) else {
            return Problem::NoStream.response();
        };
        let (auth, config) = (&self.site.auth, &route.config);
        let believed = auth.renewing(&config.auth);
        let grant = match auth.decide(&route.name, &believed, config.allow.as_ref(), &asked).await {
            Verdict::Allowed(Admitted { grant: Some(grant), .. }) => grant,
            Verdict::Allowed(_) => return Problem::NoStream.response(),
            Verdict::Refused(why) => return refused(why),
            Verdict::Undecided(_) => return Problem::Undecided.response(),
        };
        let before = control.lease.lock().as_ref().and_then(|lease| lease.grant.clone());
        if !before.as_ref().is_some_and(|before| before.is_of_the_same(&grant)) {
            // A stream stays whose it is: what it has read of may not be for others.
            return Problem::Forbidden.response();
        }
        lease(&self.edge, &control, &asked.path, std::slice::from_ref(&grant));
        if before.is_some_and(|before| control.route.filters_otherwise(&before.claims, &grant.claims)) {
            // It was given what the former said. Its client comes back, and is given what the latter does.
            self.edge.streams.deadlines.end(&control, End::Claims);
        }
        let expires = grant.expires.map(|at| humantime::format_rfc3339_seconds(at).to_string());
        // The one that the browser would come back with ends when the stream would have.
        let cookie = auth.cookie(&config.auth, &grant, &asked);
        with_cookie(answer(&json!({ "expires": expires })), Admitted { grant: Some(grant), cookie })
    }

    /// The path of tickets: `POST ?path=/rooms/a` gives one for what is there, to who brings what it takes.
    pub(super) async fn ticket(&self, tickets: &Tickets, request: &Request<()>) -> Response<Body> {
        let path = in_query(request, "path").and_then(|path| as_sent(&path)).unwrap_or_default();
        let found = self.site.router.find(&host(request), &path);
        let door = found.as_ref().map(Found::door).filter(|door| tickets.are_for(door.auth));
        let mut response = match door {
            None if path.is_empty() => Problem::BadRequest(NO_PATH).response(),
            // Whether one is there that takes others is nobody's business.
            None => Problem::BadRequest(NOT_THERE).response(),
            Some(_) if request.method() == Method::OPTIONS => no_content(),
            Some(door) if request.method() == Method::POST => self.issue(tickets, door, &path, request).await,
            Some(_) => Problem::Method("POST, OPTIONS").response(),
        };
        let (cors, reads) = door.map(|door| (door.cors, door.reads)).unwrap_or_default();
        cors::apply(cors, reads, request.headers(), response.headers_mut());
        response
    }

    async fn issue(
        &self,
        tickets: &Tickets,
        door: Door<'_>,
        path: &str,
        request: &Request<()>,
    ) -> Response<Body> {
        // Whoever decides is asked about what the ticket leads to.
        let asked = Asked {
            method: Method::GET,
            params: self.site.router.params(&host(request), path),
            path: path.to_owned(),
            query: String::new(),
            ..self.asked_of(door, request)
        };
        let grant = match self.site.auth.decide(door.name, tickets.of(), None, &asked).await {
            Verdict::Allowed(Admitted { grant: Some(grant), .. }) => grant,
            Verdict::Allowed(_) => return Problem::NoCredential.response(),
            Verdict::Refused(why) => return refused(why),
            Verdict::Undecided(_) => return Problem::Undecided.response(),
        };
        match tickets.issue(&grant, &asked) {
            Ok(ticket) => answer(&json!({
                "url": format!("{path}?ticket={ticket}"),
                "ticket": ticket,
                "expires_in": tickets.ttl().as_secs(),
            })),
            Err(Unticketed::TooLarge) => Problem::BadRequest(
                "The token's claims are too large for a ticket, which has to fit into a cookie.",
            )
            .response(),
        }
    }
}

const NO_PATH: &str = "Name what the ticket is for by its path alone: POST ?path=/its/path.";
const NOT_THERE: &str = "Nothing that takes these tickets is at this `path`.";

/// The host that the request is for, without a port.
pub(super) fn host<B>(request: &Request<B>) -> String {
    authority(request).map(|authority| authority.host().to_owned()).unwrap_or_default()
}

async fn decide(site: &Site, door: Door<'_>, asked: &Asked) -> Verdict {
    site.auth.decide(door.name, door.auth, door.allow, asked).await
}

/// The answer to who is not let in.
pub(super) fn refused(why: Refusal) -> Response<Body> {
    problem(why).response()
}

/// What it says.
pub(super) fn problem(why: Refusal) -> Problem {
    match why {
        Refusal::Missing => Problem::NoCredential,
        Refusal::Full => Problem::Overloaded,
        why if why.is_forbidden() => Problem::Forbidden,
        _ => Problem::BadCredential,
    }
}

/// Nothing to say. It tells a native `EventSource` to stop for good.
pub(super) fn no_content() -> Response<Body> {
    let mut response = Response::new(Bytes::new().into());
    *response.status_mut() = http::StatusCode::NO_CONTENT;
    response
}

/// A JSON document of its own.
pub(super) fn answer(json: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from(json.to_string())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The stream lasts as long as all that its client was let in with. What was withdrawn since the decision ends it: whoever
/// looked for such streams in between has not found this one.
pub(super) fn lease(edge: &Edge, control: &Arc<Control>, path: &str, grants: &[Arc<Grant>]) {
    edge.streams.deadlines.grant(control, path, grants);
    if !grants.iter().all(|grant| edge.site().auth.stands(grant)) {
        edge.streams.deadlines.end(control, End::Revoked);
    }
}

/// What is kept of a request that cannot be decided on yet, with the room that it takes.
pub(super) struct HeldOne {
    site: Arc<Site>,
    asked: Asked,
    feed: Opens,
    wish: Wish,
    _room: Reserved,
}

impl HeldOne {
    /// `None` where there is no room for one more: whoever waits has proven nothing.
    pub fn new(
        (edge, site): (&Edge, &Arc<Site>),
        route: &Route,
        asked: Asked,
        (feed, wish): (Opens, Wish),
    ) -> Option<Self> {
        let asked = asked.kept(&route.reads);
        let room = room(&asked, &wish) + more_sources(&feed);
        Some(Self { site: Arc::clone(site), asked, feed, wish, _room: edge.held.reserve(room)? })
    }
}

/// Bytes that a held stream takes of which this is kept.
pub(super) fn room(asked: &Asked, wish: &Wish) -> usize {
    STREAM + asked.size() + wish.id.as_ref().map_or(0, String::len)
}

/// And for the sources that it is to read beside the first.
pub(super) fn more_sources(feed: &Opens) -> usize {
    feed.also.len() * SOURCE
}

/// When to try again to decide on a stream that is held.
pub(super) struct Tries {
    changed: watch::Receiver<u64>,
    wait: Duration,
    latest: Instant,
}

impl Tries {
    /// On this one.
    pub fn new(site: &Site, control: &Control) -> Self {
        let (changed, latest) = (site.auth.changed(), control.opened + jittered(LONGEST));
        Self { changed, wait: PATIENCE.start, latest }
    }

    /// Waits until it is time for the next one; false where it has been held for long enough.
    pub async fn next(&mut self) -> bool {
        if Instant::now() >= self.latest {
            return false;
        }
        // The keys may be there at once, or the endpoint answer again, which nobody tells.
        let told = tokio::time::timeout(jittered(self.wait), self.changed.changed()).await.is_ok();
        self.wait = if told { PATIENCE.start } else { (self.wait * 2).min(PATIENCE.end) };
        if told {
            // All that are held are told at once.
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..CROWD))).await;
        }
        true
    }
}

/// Decides on a stream that is open already, as soon as that can be done.
pub(super) fn settle(edge: &Arc<Edge>, control: &Arc<Control>, held: HeldOne) -> Decision {
    let (edge, control) = (Arc::clone(edge), Arc::clone(control));
    Box::pin(async move {
        // As a whole: of what is only named in parts, the room would stay behind.
        let HeldOne { site, asked, feed, mut wish, _room } = held;
        let mut tries = Tries::new(&site, &control);
        while tries.next().await {
            let route = &control.route;
            // Boxed, so that it takes room only while it is asked.
            match Box::pin(decide(&site, route.door(), &asked)).await {
                Verdict::Undecided(_) => {}
                Verdict::Refused(_) => return Err(End::Refused),
                Verdict::Allowed(admitted) => {
                    if let Some(grant) = &admitted.grant {
                        lease(&edge, &control, &asked.path, std::slice::from_ref(grant));
                    }
                    let bound = filters::bind(route, &feed, &asked.query, admitted.grant.as_deref());
                    wish.filter = bound.map_err(|_| End::Refused)?;
                    let (policy, terms) = (route.policy(), Arc::clone(&route.terms));
                    let subscribed = edge.hub.subscribe_within(&route.kept.quota, feed, &policy, wish, terms);
                    return subscribed.map(|reader| (reader, Vec::new())).ok_or_else(|| {
                        route.metrics.shed(Why::Feeds.as_str());
                        End::NoRoom
                    });
                }
            }
        }
        Err(End::Undecided)
    })
}

/// Ends when the grant does, by itself or because it was withdrawn; without one never.
pub(super) async fn end_of(edge: Arc<Edge>, grant: Option<Arc<Grant>>) {
    let Some(grant) = grant else { return std::future::pending().await };
    let expiry = async {
        match grant.expires {
            Some(at) => tokio::time::sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await,
            None => std::future::pending().await,
        }
    };
    let withdrawal = async {
        let mut changed = edge.site().auth.changed();
        while edge.site().auth.stands(&grant) && changed.changed().await.is_ok() {}
    };
    tokio::select! { () = expiry => {}, () = withdrawal => {} }
}

/// Ends the streams of those whose credential was withdrawn, when that happens; never returns.
pub async fn withdraw(edge: Arc<Edge>) {
    let mut changed = edge.site().auth.changed();
    while changed.changed().await.is_ok() {
        let site = edge.site();
        let ended = edge.streams.revoke(|grant| !site.auth.stands(grant));
        if ended > 0 {
            tracing::info!(streams = ended, "credentials were withdrawn");
        }
    }
}

/// How long a stream is held at the longest; then its client comes back, and begins anew.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// Bytes that a held stream takes beside what is kept of its request.
const STREAM: usize = 2 << 10;
/// And for each source that it is to read beside the first.
const SOURCE: usize = 1 << 10;
/// Between two attempts to decide.
const PATIENCE: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(10);
/// Milliseconds within which those who were held are decided on.
const CROWD: u64 = 500;

#[cfg(test)]
mod tests;
