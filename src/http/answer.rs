//! From a request to a response: the contract with clients, step by step.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use super::Edge;
use super::accept::{self, Form};
use super::body::Body;
use super::client::Client;
use super::coding;
use super::connection::Begun;
use super::cors;
use super::filters;
use super::forwarded;
use super::guard::{self, HeldOne};
use super::handover::Handover;
use super::limits::Place;
use super::problem::Problem;
use super::router::{Found, Miss, Route};
use super::shed::{Why, later};
use super::site::Site;
use super::socket::Socket;
use super::stream::{self, EventStream, Written};
use super::supervise::Slot;
use super::traced::{self, Traced};
use crate::auth::{self, Admitted, Refusal, Verdict};
use crate::compress::Encoding;
use crate::config::{RealIpHeader, Shed};
use crate::hub::{self, Opens, Wish};
use crate::traces::{Span, Trace};

/// Answers the requests of one connection.
#[derive(Clone)]
pub struct Service {
    edge: Arc<Edge>,
    client: Client,
    /// Whether the peer is who `client` says, and not one whom a proxy has named.
    direct: bool,
    secure: bool,
    /// Why there is no room for this connection, so that it is only told to come back.
    surplus: Option<Why>,
    handover: Option<Arc<Handover>>,
}

/// One request, and what it is answered by.
pub(super) struct Visit {
    pub(super) edge: Arc<Edge>,
    /// As it was when the request came.
    pub(super) site: Arc<Site>,
    client: Client,
    /// Whether the client is a trusted proxy, whose requests name the clients that they are of.
    pub(super) proxied: bool,
    secure: bool,
    surplus: Option<Why>,
    pub(super) handover: Option<Arc<Handover>>,
    /// Of the request that it answers, if that is traced.
    pub(super) trace: Option<Arc<Trace>>,
}

impl Service {
    /// For a connection that has begun; all that one which is `surplus` asks for is sent away.
    pub fn new(edge: Arc<Edge>, begun: &Begun, surplus: Option<Why>) -> Self {
        let (client, direct) = (begun.client.clone(), begun.direct);
        let secure = matches!(begun.socket, Socket::Tls(_));
        Self { edge, client, direct, secure, surplus, handover: None }
    }

    /// Hands streams over instead of giving them to hyper.
    pub fn handing_over(self, handover: &Arc<Handover>) -> Self {
        Self { handover: Some(Arc::clone(handover)), ..self }
    }

    fn visit(&self) -> Visit {
        let Self { edge, client, direct, secure, surplus, handover } = self.clone();
        let site = edge.site();
        let proxied = direct && site.proxies.protocol.is_none() && site.proxies.trusts(client.addr.ip());
        Visit { edge, site, client, proxied, secure, surplus, handover, trace: None }
    }
}

impl Visit {
    /// The whole response. Nothing is done before it is polled: hyper calls the service in the connection's task, but
    /// polls this in the task that will serve the stream, and it is that task's [`Slot`] that the stream needs.
    async fn respond(mut self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (is_head, version) = (request.method() == Method::HEAD, request.version());
        let mut span = self.begin_span(&request);
        self.trace = span.as_ref().map(|span| Arc::clone(span.trace()));
        let entry = self.site.access.as_ref().map(|log| {
            let trace_id = self.trace.as_ref().map(|trace| trace.id());
            Box::new(log.entry(&request, self.client(&request).addr.ip(), trace_id))
        });
        let response = self.answer(request, span.as_deref_mut()).await;
        let mut response = if is_head { head_only(response) } else { response };
        self.site.secure.apply(response.headers_mut());
        if let Body::Events(events) = response.body() {
            events.begins();
        }
        if let Some(entry) = entry {
            entry.answered(&response);
        }
        if let Some(mut span) = span {
            traced::answered(&mut span, response.status());
            if let Body::Passed(answer) = response.body_mut() {
                answer.ends(span);
            }
        }
        Ok(match &self.handover {
            Some(handover) => handover.keep(response, version, self.surplus.is_some()),
            None => response,
        })
    }

    async fn answer(&self, mut request: Request<Incoming>, span: Option<&mut Span>) -> Response<Body> {
        join_cookies(request.headers_mut());
        if let Some(tickets) = self.site.auth.tickets_at(request.uri().path()) {
            if let Some(why) = self.surplus {
                return self.no_room(why, &request);
            }
            return Box::pin(self.ticket(tickets, &request.map(drop))).await;
        }
        let found = authority(&request).and_then(|asked| {
            let found = self.site.router.find(asked.host(), request.uri().path());
            found.map(|found| (asked, found)).ok_or(Problem::NoRoute)
        });
        if let (Some(span), Ok((_, found))) = (span, &found) {
            traced::routed(span, request.method(), found.door().name);
        }
        match found {
            Ok((_, Found::Route(route, feed))) => {
                // Nothing of ours reads a body.
                let form = accept::agree(request.headers());
                let request = request.map(drop);
                if route.is_guarded() || waits(&request, form) {
                    return Box::pin(self.answer_of(route, feed, &request, form)).await;
                }
                let answer = self.answer_of(route, feed, &request, form).now_or_never();
                answer.expect("an open route asks nobody")
            }
            Ok((_, Found::Multi(route))) => Box::pin(self.answer_multi(route, &request.map(drop))).await,
            Ok((asked, Found::App(app))) => match self.surplus {
                // It could keep the connection for as long as it takes.
                Some(why) => self.no_room(why, &request),
                None => Box::pin(self.pass_on(app, &asked, request)).await,
            },
            Err(problem) => self.fall_back(&request).unwrap_or_else(|| problem.response()),
        }
    }

    async fn answer_of(
        &self,
        route: &Arc<Route>,
        feed: Result<Opens, Miss>,
        request: &Request<()>,
        form: Option<Form>,
    ) -> Response<Body> {
        let mut response = match feed {
            Ok(feed) => self.answer_route(route, feed, request, form).await,
            Err(Miss::Unmatched) => Problem::NoRoute.response(),
            Err(Miss::BadParameter) => Problem::BadParameter.response(),
        };
        dress(&mut response, route, request);
        response
    }

    async fn answer_route(
        &self,
        route: &Arc<Route>,
        feed: Opens,
        request: &Request<()>,
        form: Option<Form>,
    ) -> Response<Body> {
        let is_probe = *request.method() == Method::GET && asks_to_probe(request);
        let form = form.or(is_probe.then_some(Form::Page));
        match (request.method(), form) {
            (&Method::OPTIONS, _) => options(route),
            (&Method::GET | &Method::HEAD, None) => Problem::NotAcceptable.response(),
            (&Method::GET | &Method::HEAD, _) if route.config.ended => guard::no_content(),
            (&Method::GET, _) if is_probe => Box::pin(self.probe(route, feed, request)).await,
            (&Method::GET, Some(Form::Page)) => Box::pin(self.page(route, feed, request)).await,
            (&Method::GET, Some(form)) => self.stream(route, form, feed, request).await,
            (&Method::HEAD, Some(form)) => Box::pin(self.head(route, form, feed, request)).await,
            (&Method::POST, _) if route.is_guarded() && in_query(request, "renew").is_some() => {
                let link = in_query(request, "renew").unwrap_or_default();
                self.renew(route, &link, request).await
            }
            _ => Problem::Method(methods(route)).response(),
        }
    }

    fn fall_back(&self, request: &Request<Incoming>) -> Option<Response<Body>> {
        self.edge.fallback.as_ref().and_then(|answer| answer(request, self.client(request).addr))
    }

    /// Whether the client has come over TLS: to us, or to a proxy that is trusted and tells.
    pub(super) fn is_secure<B>(&self, request: &Request<B>) -> bool {
        let told = |header| forwarded::is_secure(request.headers(), header, &self.site.proxies);
        self.believed().and_then(told).unwrap_or(self.secure)
    }

    /// Whom the request comes from.
    pub(super) fn client<B>(&self, request: &Request<B>) -> Client {
        let told = |header| forwarded::client(request.headers(), header, &self.site.proxies);
        let named = self.believed().and_then(told);
        named.map_or_else(|| self.client.clone(), |addr| Client { addr, certificate: None })
    }

    /// The header that is believed when it says whom a request comes from.
    fn believed(&self) -> Option<RealIpHeader> {
        self.site.proxies.header.filter(|_| self.proxied)
    }

    async fn stream(
        &self,
        route: &Arc<Route>,
        form: Form,
        feed: Opens,
        request: &Request<()>,
    ) -> Response<Body> {
        if let Some(answer) = self.sends_away(route, form, request) {
            return answer;
        }
        let mut wish = match wish(request) {
            Ok(wish) => wish,
            Err(problem) => return problem.response(),
        };
        let asked = self.question(route.door(), request);
        let client = self.client(request);
        let (admitted, is_decided) = match self.admit(route.door(), asked.as_ref()).await {
            Verdict::Refused(Refusal::Full) => return self.shed(route, form, request, Why::Tickets),
            Verdict::Refused(why) => return guard::refused(why),
            Verdict::Allowed(admitted) => (admitted, true),
            Verdict::Undecided(admitted) if form != Form::Events => {
                return with_cookie(Problem::Undecided.response(), admitted);
            }
            Verdict::Undecided(admitted) => (admitted, false),
        };
        if is_decided {
            wish.filter = match filters::bind(route, &feed, query(request), admitted.grant.as_deref()) {
                Ok(filter) => filter,
                Err(problem) => return with_cookie(problem.response(), admitted),
            };
        }
        let place = match route.kept.places.take(client.addr.ip().into()) {
            Ok(place) => place,
            // From here on a ticket is used, and its client has nothing but the cookie to come back with.
            Err(why) => return with_cookie(self.shed(route, form, request, why), admitted),
        };
        let encoding = coding::agree(route.config.compress.as_ref(), request.headers());
        let (encoding, written) = match form {
            Form::Events => (encoding, Written::Events(encoding)),
            Form::Lines(_) | Form::Page => (None, Written::Lines),
        };
        let traced = self.trace.as_ref().map(|trace| Traced::new(trace, &wish));
        if !is_decided {
            // An error status would end an EventSource for good, for what may be over in a second.
            let asked = asked.map(|asked| auth::Asked { proven: admitted.grant.clone(), ..asked });
            let held =
                asked.and_then(|asked| HeldOne::new((&self.edge, &self.site), route, asked, (feed, wish)));
            let Some(held) = held else {
                return with_cookie(self.shed(route, form, request, Why::Held), admitted);
            };
            let mut registered = self.edge.streams.open(route, client, Some(place), Slot::current());
            traced.into_iter().for_each(|traced| registered.trace(traced));
            let decision = guard::settle(&self.edge, &registered.control, held);
            let stream = EventStream::held(Some(decision), registered, written);
            return with_cookie(head(route, form, encoding, stream.into()), admitted);
        }
        let (hub, policy, terms) = (&self.edge.hub, route.policy(), Arc::clone(&route.terms));
        let Some(subscription) = hub.subscribe_within(&route.kept.quota, feed, &policy, wish, terms) else {
            return with_cookie(self.shed(route, form, request, Why::Feeds), admitted);
        };
        let mut registered = self.edge.streams.open(route, client, Some(place), Slot::current());
        traced.into_iter().for_each(|traced| registered.trace(traced));
        if let Some(grant) = &admitted.grant {
            guard::lease(&self.edge, &registered.control, request.uri().path(), std::slice::from_ref(grant));
        }
        let stream = EventStream::new(subscription, registered, written);
        with_cookie(head(route, form, encoding, stream.into()), admitted)
    }

    /// Lets in a request that is answered as a whole, to a place that it has for as long as that takes.
    pub(super) async fn let_in(
        &self,
        route: &Route,
        request: &Request<()>,
    ) -> Result<(Admitted, Place), Box<Response<Body>>> {
        if let Some(answer) = self.sends_away(route, Form::Page, request) {
            return Err(answer.into());
        }
        let asked = self.question(route.door(), request);
        let admitted = match self.admit(route.door(), asked.as_ref()).await {
            Verdict::Refused(Refusal::Full) => {
                return Err(self.shed(route, Form::Page, request, Why::Tickets).into());
            }
            Verdict::Refused(why) => return Err(guard::refused(why).into()),
            Verdict::Undecided(admitted) => {
                return Err(with_cookie(Problem::Undecided.response(), admitted).into());
            }
            Verdict::Allowed(admitted) => admitted,
        };
        match route.kept.places.take(self.client(request).addr.ip().into()) {
            Ok(place) => Ok((admitted, place)),
            Err(why) => Err(with_cookie(self.shed(route, Form::Page, request, why), admitted).into()),
        }
    }

    /// Whether the process and the connection are for more than to be sent away.
    pub(super) fn has_room(&self) -> bool {
        !self.edge.streams.draining() && self.surplus.is_none()
    }

    /// The answer where they are not.
    pub(super) fn sends_away(
        &self,
        route: &Route,
        form: Form,
        request: &Request<()>,
    ) -> Option<Response<Body>> {
        if self.edge.streams.draining() {
            return Some(match form {
                // An error status would end an EventSource for good; this one comes back, to another process.
                Form::Events => head(route, form, None, stream::opening(route.config.retry).into()),
                Form::Lines(_) | Form::Page => later(Problem::Overloaded, route.config.retry),
            });
        }
        self.surplus.map(|why| self.shed(route, form, request, why))
    }

    /// Tells a client to come back later with what is no stream.
    fn no_room<B>(&self, why: Why, request: &Request<B>) -> Response<Body> {
        why.reject(self.edge.patience.wait(self.client(request).addr.ip().into(), COME_BACK))
    }

    /// Sends a client away, to come back later.
    pub(super) fn shed(&self, route: &Route, form: Form, request: &Request<()>, why: Why) -> Response<Body> {
        let client = self.client(request).addr;
        route.metrics.shed(why.as_str());
        tracing::debug!(route = route.name, client = %client.ip(), why = why.as_str(), "no room for a stream");
        if let Some(trace) = &self.trace {
            trace.span_since_request("subscribe").text("ssegate.shed", why.as_str());
        }
        let wait = self.edge.patience.wait(client.ip().into(), route.config.retry);
        match (self.site.limits.shed, form) {
            (Shed::Retry, Form::Events) => head(route, form, None, stream::opening(wait).into()),
            // Scripts go by the status.
            (Shed::Retry | Shed::Reject, _) => why.reject(wait),
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    /// Boxed, as on HTTP/2 hyper keeps the room for it as long as the stream is open. What takes much room of its own, and
    /// is not for every request, is boxed within: many requests at once leave holes of that size between their streams.
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(self.visit().respond(request))
    }
}

/// Adds what is told with every answer of a route.
pub(super) fn dress(response: &mut Response<Body>, route: &Route, request: &Request<()>) {
    let reads = route.is_guarded().then_some(&route.reads);
    cors::apply(route.config.cors.as_ref(), reads, request.headers(), response.headers_mut());
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    }
}

/// The answer to HEAD. hyper leaves the body away by itself on HTTP/1.1, but not on HTTP/2.
fn head_only(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|&length| length > 0) {
        head.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Response::from_parts(head, Bytes::new().into())
}

/// The head of what this route has, in this form.
pub(super) fn head(route: &Route, form: Form, encoding: Option<Encoding>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // nginx in front would otherwise gather the stream in its buffers.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    coding::tell(route.config.compress.as_ref(), encoding, headers);
    response
}

/// A ticket that was used leaves a cookie in its place.
pub(super) fn with_cookie(mut response: Response<Body>, admitted: Admitted) -> Response<Body> {
    if let Some(cookie) = admitted.cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

pub(super) fn options(route: &Route) -> Response<Body> {
    let mut response = Response::new(Bytes::new().into());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods(route)));
    response
}

/// What a route answers; streams that not everybody may read are renewed with POST.
pub(super) fn methods(route: &Route) -> &'static str {
    if route.is_guarded() { "GET, HEAD, POST, OPTIONS" } else { "GET, HEAD, OPTIONS" }
}

/// Host and port that the request is for (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
pub(super) fn authority<B>(request: &Request<B>) -> Result<Authority, Problem> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.clone(),
        None => {
            let mut named = request.headers().get_all(header::HOST).iter();
            let (Some(host), None) = (named.next(), named.next()) else { return Err(Problem::NoHost) };
            host.to_str().ok().and_then(|host| host.parse().ok()).ok_or(Problem::NoHost)?
        }
    };
    // Not everybody who reads it would see where the host begins.
    (!authority.as_str().contains('@')).then_some(authority).ok_or(Problem::NoHost)
}

/// One `cookie` of all: on HTTP/2 they may come in pieces, which nobody beyond would put together (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let pieces: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if pieces.len() > 1 {
        let joined = HeaderValue::from_bytes(&pieces.join(&b"; "[..]));
        headers.insert(header::COOKIE, joined.expect("pieces of values make a value"));
    }
}

/// What the client brings: the id to go on after, from the header, which a reconnecting EventSource sends, before the
/// query, which polyfills and first page loads use; and how far back to begin without one. The header is UTF-8 (WHATWG
/// HTML 9.2.3); what is not names no event of ours.
pub(super) fn wish(request: &Request<()>) -> Result<Wish, Problem> {
    let header = request.headers().get(LAST_EVENT_ID);
    let header = header.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let in_query = |name| in_query(request, name).map(Cow::into_owned);
    let id = header.or_else(|| in_query("lastEventId")).filter(|id| !id.is_empty());
    let since = in_query("since").filter(|since| !since.is_empty());
    let since = since.map(|since| parse_since(&since).ok_or(Problem::BadSince)).transpose()?;
    Ok(Wish { id, since, filter: None })
}

/// The first value of a parameter of the query.
pub(super) fn in_query<'r>(request: &'r Request<()>, name: &str) -> Option<Cow<'r, str>> {
    auth::in_query(query(request), name)
}

/// The query as it came; empty where there is none.
pub(super) fn query(request: &Request<()>) -> &str {
    request.uri().query().unwrap_or_default()
}

/// Whether the answer may have to be waited for, though everybody is let in.
fn waits(request: &Request<()>, form: Option<Form>) -> bool {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    is_read && (*request.method() == Method::HEAD || form == Some(Form::Page) || asks_to_probe(request))
}

/// Whether a request wants to know where the feed stands, whatever form it would have the events in.
pub(super) fn asks_to_probe(request: &Request<()>) -> bool {
    in_query(request, "probe").is_some()
}

/// A time of RFC 3339, or a duration back from now.
fn parse_since(text: &str) -> Option<SystemTime> {
    let time = humantime::parse_rfc3339(text).ok();
    time.or_else(|| hub::back(SystemTime::now(), humantime::parse_duration(text).ok()?))
}

/// The field in which an id is brought, and told.
pub(super) const LAST_EVENT_ID: &str = "last-event-id";

/// When to come back, for the first time, with what no route's `retry` is for.
const COME_BACK: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_stands_alone() {
        let of = |uri: &str, host: &str| {
            let request = Request::get(uri).header(header::HOST, host).body(()).unwrap();
            authority(&request).map(|authority| authority.to_string())
        };
        assert_eq!(of("/x", "a.example:8443").unwrap(), "a.example:8443");
        assert_eq!(of("https://a.example/x", "b.example").unwrap(), "a.example");
        for (uri, host) in [("/x", "a@b.example"), ("https://a@b.example/x", "b.example"), ("/x", "a b")] {
            assert_eq!(of(uri, host), Err(Problem::NoHost), "{uri} {host}");
        }
    }
}
