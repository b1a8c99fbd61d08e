//! Requests that an application answers: passed on over HTTP/1.1 with connections that are kept, and its answers as
//! they come, in both directions. What is for one connection alone stays there (RFC 9110 section 7.6.1), and who asked
//! is told in `forwarded` (RFC 7239) and the `x-forwarded-…` of practice, whatever the client said of itself.
//!
//! Reading order: `pass_on` says who is let in, [`App`] passes on with the `provenance`, an `exchange` is a request while it
//! lasts, and a `tunnel` what has switched protocols.

mod exchange;
mod pass_on;
mod provenance;
mod tunnel;

pub use exchange::Passed;
pub use tunnel::Tunnel;

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use self::exchange::{Broken, Exchange, Upload};
use self::provenance::Provenance;
use super::body::Body;
use super::guard::Door;
use super::handover::Handover;
use super::listen::{KEEPALIVE, KEEPALIVE_INTERVAL};
use super::problem::Problem;
use super::shed::Why;
use crate::config;
use crate::fetch::Absence;
use crate::metrics::{ApplicationMetrics, Metrics};

/// An application, and the connections to it.
pub struct App {
    asked: Asked,
    pool: Pool<HttpConnector, Upload>,
    /// For requests that it may be answering at a time, which is its connections.
    seats: Arc<Semaphore>,
    /// Each of them listens.
    open: watch::Sender<()>,
    /// Host and path as configured, which is how logs and metrics call it.
    name: String,
    absence: Absence,
    metrics: ApplicationMetrics,
}

/// How it is asked.
#[derive(Debug, PartialEq)]
pub struct Asked {
    /// As configured.
    pub proxy: config::Proxy,
    /// How long clients may neither take nor send anything.
    pub stall: Duration,
    /// Connections to it.
    pub connections: usize,
}

impl App {
    /// The application of a route. Each request to it listens to `open`.
    pub fn new(asked: Asked, open: &watch::Sender<()>, metrics: &Arc<Metrics>) -> Self {
        let proxy = &asked.proxy;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(proxy.to.connect_timeout));
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(KEPT)
            .http1_max_buf_size(BUFFER)
            .build(connector);
        let name = format!("{}{}", proxy.host.as_deref().unwrap_or_default(), proxy.path);
        Self {
            pool,
            seats: Arc::new(Semaphore::new(asked.connections)),
            open: open.clone(),
            metrics: metrics.application(&name),
            name,
            absence: Absence::default(),
            asked,
        }
    }

    /// How it is asked.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// What is counted for it.
    pub fn metrics(&self) -> &ApplicationMetrics {
        &self.metrics
    }

    fn to(&self) -> &config::ProxyTo {
        &self.asked.proxy.to
    }

    /// Who is let in to it.
    pub(super) fn door(&self) -> Door<'_> {
        let config::Proxy { auth, allow, .. } = &self.asked.proxy;
        let allow = allow.as_ref();
        Door { name: &self.name, auth, allow, cors: None, reads: None, has_pages: true }
    }

    /// Host and path as configured.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the application answers. `handover` is that of an HTTP/1.1 connection, which can become a tunnel, until
    /// `end`.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        from: &Provenance,
        handover: Option<&Arc<Handover>>,
        end: tunnel::End,
    ) -> Response<Body> {
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Problem::Method(METHODS).response();
        }
        let upgrade = handover.and_then(|handover| Some((handover, upgrade(&request)?)));
        let Some(exchange) = self.begin().await else { return no_room() };
        let (handover, protocol) = upgrade.unzip();
        let request = self
            .inbound(request, from, protocol.as_ref())
            .map(|body| Upload::new(body, &exchange, self.asked.stall));
        match exchange.within(self.to().timeout, self.pool.request(request)).await {
            Some(Ok(response)) => {
                if let Some(failed) = self.absence.answered() {
                    tracing::info!(route = self.name, app = %self.to().to, failed, "an application answers again");
                }
                self.outbound(response, exchange, handover.map(|handover| (handover, end)))
            }
            Some(Err(error)) => {
                let error = anyhow::Error::new(error);
                if let Some(broken) = error.chain().find_map(|cause| cause.downcast_ref::<Broken>()) {
                    return broken.problem().response();
                }
                self.failed(&format!("{error:#}"));
                Problem::BadGateway.response()
            }
            None => {
                self.failed(&format!("no answer within {:?}", self.to().timeout));
                Problem::GatewayTimeout.response()
            }
        }
    }

    /// An exchange, once there is a connection for it.
    async fn begin(&self) -> Option<Arc<Exchange>> {
        let seat = timeout(self.to().connect_timeout, Arc::clone(&self.seats).acquire_owned()).await;
        Some(Exchange::new(seat.ok()?.ok()?, self.open.subscribe()))
    }

    fn failed(&self, error: &str) {
        match self.absence.failed() {
            Some(failed) => {
                tracing::warn!(route = self.name, app = %self.to().to, failed, error, "an application does not answer");
            }
            None => {
                tracing::debug!(route = self.name, app = %self.to().to, error, "an application does not answer")
            }
        }
    }

    /// The request as the application gets it.
    fn inbound(
        &self,
        request: Request<Incoming>,
        from: &Provenance,
        upgrade: Option<&HeaderValue>,
    ) -> Request<Incoming> {
        let (mut head, body) = request.into_parts();
        let trailers = listed(&head.headers, header::TE).any(|item| item.eq_ignore_ascii_case("trailers"));
        remove_hop_by_hop(&mut head.headers);
        for name in FOR_US {
            head.headers.remove(name);
        }
        if let Some(protocol) = upgrade {
            head.headers.insert(header::UPGRADE, protocol.clone());
            head.headers.append(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        if trailers {
            head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
            head.headers.append(header::CONNECTION, HeaderValue::from_static("te"));
        }
        if !body.is_end_stream() && body.size_hint().exact().is_none() {
            // Else hyper takes it that GET has no body.
            head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        // hyper has answered it, as it does when somebody reads the body.
        head.headers.remove(header::EXPECT);
        from.tell(&mut head.headers);
        if let Ok(host) = HeaderValue::from_str(&from.authority) {
            head.headers.insert(header::HOST, host);
        }
        head.headers.append(header::VIA, via(head.version));
        let mut to = Uri::builder().scheme(Scheme::HTTP).authority(self.to().to.clone());
        to = to.path_and_query(head.uri.path_and_query().map_or("/", |path| path.as_str()));
        head.uri = to.build().expect("parts of addresses that were parsed make an address");
        head.version = Version::HTTP_11;
        Request::from_parts(head, body)
    }

    /// The answer as the client gets it; with 101 the connection becomes a tunnel, until what ends it.
    fn outbound(
        &self,
        response: Response<Incoming>,
        exchange: Arc<Exchange>,
        upgrade: Option<(&Arc<Handover>, tunnel::End)>,
    ) -> Response<Body> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (mut head, body) = response.into_parts();
            remove_hop_by_hop(&mut head.headers);
            // How the client is spoken to has nothing to do with how the application speaks.
            head.version = Version::HTTP_11;
            let passed = Passed::new(body, exchange, self.asked.stall);
            return Response::from_parts(head, Body::Passed(Box::new(passed)));
        }
        // An application that switches unasked, or to somebody who cannot, is wrong.
        let Some((handover, end)) = upgrade else { return Problem::BadGateway.response() };
        let mut switch = Response::new(Body::from(bytes::Bytes::new()));
        *switch.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *switch.headers_mut() = response.headers().clone();
        handover.tunnel(Tunnel::new(response, exchange, self.to().tunnel_timeout, end));
        switch
    }
}

/// The answer where there is no connection to the application.
fn no_room() -> Response<Body> {
    Why::Connections.reject(RETRY)
}

/// Whether the client asks to switch to WebSocket (RFC 9110 section 7.8, RFC 6455), and nothing else: in a tunnel to an
/// application that speaks HTTP/2 (`h2c`) or TLS, requests would pass by everything that is decided here.
fn upgrade(request: &Request<Incoming>) -> Option<HeaderValue> {
    let asks = request.version() == Version::HTTP_11
        && listed(request.headers(), header::CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"))
        && listed(request.headers(), header::UPGRADE).all(|name| name.eq_ignore_ascii_case("websocket"));
    request.headers().get(header::UPGRADE).filter(|_| asks).cloned()
}

/// The items of a header that is a list.
fn listed(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        listed(headers, header::CONNECTION).filter_map(|name| name.parse().ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// Of a request: what is for the next proxy, and what goes with an upgrade to `h2c`.
const FOR_US: [HeaderName; 2] = [header::PROXY_AUTHORIZATION, HeaderName::from_static("http2-settings")];

fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2 ssegate",
        Version::HTTP_10 => "1.0 ssegate",
        _ => "1.1 ssegate",
    })
}

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/// How long a connection is kept that nobody uses: shorter than the servers of common frameworks do (5 s in Node.js), so
/// that a request seldom meets one that is being closed.
const IDLE: Duration = Duration::from_secs(4);
/// How many such connections are kept for each application.
const KEPT: usize = 64;
/// Bytes of an answer that are read ahead of the client, and of its head at most.
const BUFFER: usize = 64 * 1024;
/// When to come back if there was no connection.
const RETRY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_one_connection_alone_is_removed() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Own"),
            ("connection", "x-other, bad name"),
            ("keep-alive", "timeout=5"),
            ("x-own", "1"),
            ("x-other", "2"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("accept", "*/*"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut headers);
        let left: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(left, [("accept", "*/*")]);
    }
}
