//! From a request to a response: the contract with clients, step by step.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::watch;

use super::Edge;
use super::body::Body;
use super::coding;
use super::cors;
use super::handover::Handover;
use super::problem::Problem;
use super::router::{Miss, Route};
use super::stream::{self, EventStream};
use super::supervise::Slot;
use crate::compress::Encoding;
use crate::hub::{self, Opens, Wish};

/// Answers the requests of one connection.
#[derive(Clone)]
pub struct Service {
    edge: Arc<Edge>,
    client: SocketAddr,
    asked: watch::Sender<bool>,
    handover: Option<Arc<Handover>>,
}

impl Service {
    /// For a connection from `client`.
    pub fn new(edge: Arc<Edge>, client: SocketAddr) -> Self {
        Self { edge, client, asked: watch::Sender::new(false), handover: None }
    }

    /// Hands streams over instead of giving them to hyper.
    pub fn handing_over(self, handover: &Arc<Handover>) -> Self {
        Self { handover: Some(Arc::clone(handover)), ..self }
    }

    /// Ends once the connection has had a request.
    pub fn asked(&self) -> impl Future<Output = ()> + use<> {
        let mut asked = self.asked.subscribe();
        async move {
            let _ = asked.wait_for(|asked| *asked).await;
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let found = host(request)
            .and_then(|host| self.edge.router.find(&host, request.uri().path()).ok_or(Problem::NoRoute));
        let (route, feed) = match found {
            Ok(found) => found,
            Err(problem) => return self.fall_back(request).unwrap_or_else(|| problem.response()),
        };
        let mut response = match feed {
            Ok(feed) => self.answer_route(route, feed, request),
            Err(Miss::Unmatched) => Problem::NoRoute.response(),
            Err(Miss::BadParameter) => Problem::BadParameter.response(),
        };
        cors::apply(route.config.cors.as_ref(), request.headers(), response.headers_mut());
        response
    }

    fn answer_route(&self, route: &Arc<Route>, feed: Opens, request: &Request<Incoming>) -> Response<Body> {
        match *request.method() {
            Method::OPTIONS => options(),
            Method::GET | Method::HEAD if !accepts_events(request.headers()) => {
                Problem::NotAcceptable.response()
            }
            Method::GET => self.stream(route, feed, request),
            Method::HEAD => {
                let encoding = coding::agree(route.config.compress.as_ref(), request.headers());
                head(route, encoding, Bytes::new().into())
            }
            _ => Problem::Method(METHODS).response(),
        }
    }

    fn fall_back(&self, request: &Request<Incoming>) -> Option<Response<Body>> {
        self.edge.fallback.as_ref().and_then(|answer| answer(request, self.client))
    }

    fn stream(&self, route: &Arc<Route>, feed: Opens, request: &Request<Incoming>) -> Response<Body> {
        if self.edge.streams.draining() {
            // An error status would end an EventSource for good; this one comes back, to another process.
            return head(route, None, stream::opening(route).into());
        }
        let wish = match wish(request) {
            Ok(wish) => wish,
            Err(problem) => return problem.response(),
        };
        let subscription = self.edge.hub.subscribe(feed, &route.policy(), wish, route.terms());
        let registered = self.edge.streams.open(route, self.client, Slot::current());
        let encoding = coding::agree(route.config.compress.as_ref(), request.headers());
        head(route, encoding, EventStream::new(subscription, registered, encoding).into())
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        self.asked.send_if_modified(|asked| !std::mem::replace(asked, true));
        Answer { service: self.clone(), request: Box::new(request) }
    }
}

/// A response to come. Nothing is done before it is polled: hyper calls the service in the connection's task, but
/// polls this in the task that will serve the stream, and it is that task's [`Slot`] that the stream needs.
pub struct Answer {
    service: Service,
    /// Boxed, as on HTTP/2 hyper keeps the room for it as long as the stream is open.
    request: Box<Request<Incoming>>,
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let response = self.service.answer(&self.request);
        let is_head = self.request.method() == Method::HEAD;
        let response = if is_head { head_only(response) } else { response };
        Poll::Ready(Ok(match &self.service.handover {
            Some(handover) => handover.keep(response, self.request.version()),
            None => response,
        }))
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

/// The head of a stream of this route.
fn head(route: &Route, encoding: Option<Encoding>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // nginx in front would otherwise gather the stream in its buffers.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    coding::tell(route.config.compress.as_ref(), encoding, headers);
    response
}

fn options() -> Response<Body> {
    let mut response = Response::new(Bytes::new().into());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
    response
}

/// The host that the request is for, without a port (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
fn host(request: &Request<Incoming>) -> Result<Cow<'_, str>, Problem> {
    if let Some(host) = request.uri().host() {
        return Ok(host.into());
    }
    let mut named = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (named.next(), named.next()) else { return Err(Problem::NoHost) };
    let host = host.to_str().map_err(|_| Problem::NoHost)?;
    let authority = host.parse::<http::uri::Authority>().map_err(|_| Problem::NoHost)?;
    Ok(authority.host().to_owned().into())
}

/// Whether `accept` (RFC 9110 section 12.5.1) leaves `text/event-stream` possible; the most specific range that
/// fits it decides.
fn accepts_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges =
        values.flat_map(|value| value.split(',')).filter(|range| !range.trim().is_empty()).peekable();
    ranges.peek().is_none()
        || ranges
            .filter_map(specificity)
            .max_by_key(|(specific, _)| *specific)
            .is_some_and(|(_, wanted)| wanted)
}

/// How closely a media range fits `text/event-stream`, and whether it is wanted; `None` where it does not fit.
fn specificity(range: &str) -> Option<(usize, bool)> {
    let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
    let range = parts.next()?;
    let specific = ["*/*", "text/*", "text/event-stream"].iter().position(|fitting| *fitting == range)?;
    let refused = parts.any(|parameter| {
        parameter.strip_prefix("q=").is_some_and(|q| q.parse().is_ok_and(|q: f32| q == 0.0))
    });
    Some((specific, !refused))
}

/// What the client brings: the id to go on after, from the header, which a reconnecting EventSource sends, before the
/// query, which polyfills and first page loads use; and how far back to begin without one. The header is UTF-8 (WHATWG
/// HTML 9.2.3); what is not names no event of ours.
fn wish(request: &Request<Incoming>) -> Result<Wish, Problem> {
    let header = request.headers().get("last-event-id");
    let header = header.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let query = request.uri().query().unwrap_or_default();
    let asked = |name| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(other, _)| other == name).map(|(_, value)| value.into_owned())
    };
    let id = header.or_else(|| asked("lastEventId")).filter(|id| !id.is_empty());
    let since = asked("since").filter(|since| !since.is_empty());
    let since = since.map(|since| parse_since(&since).ok_or(Problem::BadSince)).transpose()?;
    Ok(Wish { id, since })
}

/// A time of RFC 3339, or a duration back from now.
fn parse_since(text: &str) -> Option<SystemTime> {
    let time = humantime::parse_rfc3339(text).ok();
    time.or_else(|| hub::back(SystemTime::now(), humantime::parse_duration(text).ok()?))
}

const METHODS: &str = "GET, HEAD, OPTIONS";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_is_read_as_ranges() {
        let accepts = |value: &'static str| {
            accepts_events(&[(header::ACCEPT, HeaderValue::from_static(value))].into_iter().collect())
        };
        assert!(accepts_events(&HeaderMap::new()));
        for yes in ["text/event-stream", "*/*", "text/html, Text/*;q=0.5", "text/event-stream;charset=utf-8"]
        {
            assert!(accepts(yes), "{yes}");
        }
        for no in ["application/json", "text/html", "text/event-stream;q=0, */*", "*/*; q=0.0"] {
            assert!(!accepts(no), "{no}");
        }
    }
}
