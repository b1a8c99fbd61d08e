//! The admin listener: health, readiness, metrics, status, what operators can do, and the entry of `push` upstreams. For
//! operators, on loopback by default; plain HTTP/1.1.
//!
//! `listen` says where, and `door` for whom it is; `reload` has the configuration read again, `upgrade` another process take
//! over. `status` is the document, `clients` and `feeds` are what there may be very many of, page by page (`query`), and
//! `page` is the same for people, kept up to date by `live`.

mod clients;
mod door;
mod feeds;
mod listen;
mod live;
mod metrics;
mod page;
mod query;
mod reload;
mod status;
mod upgrade;

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use parking_lot::RwLock;
use serde_json::json;
use socket2::SockRef;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::door::Door;
use self::listen::Accepted;
pub use self::listen::{Bound, SocketFile, bind};
pub use self::live::Live;
pub use self::reload::{AskReload, Reloaded, Reloads};
pub use self::upgrade::AskUpgrade;
use crate::http::{Body, Edge, Problem, SecurityHeaders, serve_http1};
use crate::metrics::Format;
use crate::upstream::{Link, Push};

/// What the admin listener shows.
pub struct Admin {
    /// The public side.
    pub edge: Arc<Edge>,
    /// The links to the upstreams, each with its kind.
    pub links: RwLock<Links>,
    /// Where published messages go.
    pub push: Arc<Push>,
    /// Bytes that a published message may have.
    pub max_event: usize,
    /// Whether the listeners are bound and the first subscriptions have been tried.
    pub ready: AtomicBool,
    /// What those see who watch.
    pub live: Live,
    /// Who may enter.
    pub door: Door,
    /// What every answer tells browsers.
    pub secure: SecurityHeaders,
    /// When the process started.
    pub started: SystemTime,
    /// The same, by the clock that only goes forward.
    pub began: Instant,
    /// Whether it was asked to drain and to end.
    pub leave: watch::Sender<bool>,
    /// Where reloads are asked for.
    pub reloads: Reloads,
    /// Where an upgrade is asked for, if this process can have one.
    pub upgrades: Option<mpsc::Sender<AskUpgrade>>,
}

/// Links to upstreams, each with its kind.
pub type Links = Arc<Vec<(&'static str, Arc<Link>)>>;

/// Serves the admin listener until `stop` is true, which it becomes when another process serves it. What is being answered
/// then still is, for a moment.
pub async fn serve(bound: Bound, admin: Arc<Admin>, stop: watch::Receiver<bool>) {
    // Connections end with this task at the latest: whoever looks is served until the process goes.
    let mut connections = JoinSet::new();
    let mut live = pin!(admin.live.run(&admin));
    let mut told = stop.clone();
    loop {
        tokio::select! {
            _ = told.wait_for(|stopped| *stopped) => break,
            never = &mut live => match never {},
            Some(_) = connections.join_next() => {}
            accepted = bound.accept(), if connections.len() < MOST => {
                let (service, stop) = (Service(Arc::clone(&admin)), stop.clone());
                match accepted {
                    Accepted::Tcp(socket) => {
                        // One that takes nothing of its answers ends. Failures are ignored: it works without.
                        let _ = SockRef::from(&socket).set_tcp_user_timeout(Some(STALL));
                        connections.spawn(serve_http1(socket, service, stop))
                    }
                    Accepted::Unix(socket) => connections.spawn(serve_http1(socket, service, stop)),
                };
            }
        }
    }
    drop(bound);
    let _ = timeout(LEAVE, async { while connections.join_next().await.is_some() {} }).await;
}

/// How long those have who are being answered. Who only looks on comes back to the other process.
const LEAVE: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Service(Arc<Admin>);

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let admin = Arc::clone(&self.0);
        Box::pin(async move {
            let mut response = admin.answer(request).await.unwrap_or_else(Problem::response);
            admin.secure.apply(response.headers_mut());
            Ok(response)
        })
    }
}

impl Admin {
    /// The links to the upstreams, each with its kind.
    pub fn links(&self) -> Links {
        Arc::clone(&self.links.read())
    }

    /// These are the links from now on.
    pub fn show_links(&self, links: Vec<(&'static str, Arc<Link>)>) {
        *self.links.write() = Arc::new(links);
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        self.door.enter(&request)?;
        let path = request.uri().path();
        if let Some(channel) = path.strip_prefix("/publish/") {
            acts(&request, &Method::POST, "POST")?;
            let channel = channel.to_owned();
            return self.publish(&channel, request).await;
        }
        if let Some(id) = path.strip_prefix("/clients/") {
            acts(&request, &Method::DELETE, "DELETE")?;
            return self.end_stream(id);
        }
        if path == "/reload" {
            acts(&request, &Method::POST, "POST")?;
            return Ok(self.reload().await);
        }
        if path == "/drain" {
            acts(&request, &Method::POST, "POST")?;
            return Ok(self.drain());
        }
        if path == "/upgrade" {
            acts(&request, &Method::POST, "POST")?;
            return self.upgrade().await;
        }
        let (query, json) = (request.uri().query(), "application/json");
        let answer = match path {
            "/healthz" => text(StatusCode::OK, "alive\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics(&request).await,
            "/status" => typed(json, status::text(self)),
            "/status/clients" => typed(json, clients::text(self, query).await?),
            "/status/feeds" => typed(json, feeds::text(self, query)?),
            "/status/routes" => typed(json, feeds::routes(self, query)?),
            "/status/live" => self.watched(),
            _ => page::file(path).ok_or(Problem::NoAdminPath)?,
        };
        match *request.method() {
            Method::GET | Method::HEAD => Ok(answer),
            _ => Err(Problem::Method("GET, HEAD")),
        }
    }

    fn readiness(&self) -> Response<Body> {
        if self.edge.streams.draining() {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        } else if !self.is_ready() {
            text(StatusCode::SERVICE_UNAVAILABLE, "starting\n")
        } else {
            text(StatusCode::OK, "ready\n")
        }
    }

    /// Made on a thread that may wait, since with many routes and descriptors it takes milliseconds.
    async fn metrics(self: &Arc<Self>, request: &Request<Incoming>) -> Response<Body> {
        let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let (format, admin) = (Format::asked(accept.unwrap_or_default()), Arc::clone(self));
        match tokio::task::spawn_blocking(move || metrics::text(&admin, format)).await {
            Ok(text) => typed(format.content_type(), text),
            // It has panicked, and the log says where. Nobody is to take this for figures.
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "no metrics: see the log\n"),
        }
    }

    fn watched(&self) -> Response<Body> {
        let mut response = Response::new(Body::Made(Box::new(Box::pin(self.live.watch()))));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // nginx in front would otherwise gather the stream in its buffers.
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        response
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Ends one stream, whose client is told to come back.
    fn end_stream(&self, id: &str) -> Result<Response<Body>, Problem> {
        let ended = id.parse().is_ok_and(|id| self.edge.streams.end(id));
        if !ended {
            return Err(Problem::NoClient);
        }
        tracing::info!(id, "a stream is ended by the admin listener");
        let mut response = Response::new(Body::from(Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    /// Begins what SIGTERM begins. Asked again, it is under way.
    fn drain(&self) -> Response<Body> {
        // Whoever asks for readiness after this answer is told.
        self.edge.streams.refuse_new();
        let streams = self.edge.streams.count();
        if !self.leave.send_replace(true) {
            tracing::info!("told to drain by the admin listener");
        }
        let mut response =
            typed("application/json", format!("{{\"draining\":true,\"streams\":{streams}}}\n"));
        *response.status_mut() = StatusCode::ACCEPTED;
        response
    }

    async fn publish(&self, channel: &str, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let channel = percent_encoding::percent_decode_str(channel).decode_utf8();
        let channel = channel.ok().filter(|channel| !channel.is_empty());
        let channel = channel.ok_or(Problem::BadRequest("Name a channel: POST /publish/<channel>."))?;
        let query = request.uri().query().unwrap_or_default().to_owned();
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let event = pairs.find(|(name, _)| name == "event").map(|(_, event)| event);
        let body = Limited::new(request.into_body(), self.max_event).collect().await;
        let payload = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(_) => Problem::BadRequest("The body ended too early."),
            Err(_) => Problem::TooLarge,
        })?;
        let feeds = self.push.publish(&channel, event.as_deref(), &payload.to_bytes());
        let feeds = feeds.ok_or(Problem::NoPush)?;
        Ok(typed("application/json", format!("{{\"feeds\":{feeds}}}\n")))
    }
}

/// Whether a request may act: by the method that it takes, and not for a page. Any page that an operator opens could
/// otherwise act on a listener on loopback.
fn acts<B>(request: &Request<B>, by: &Method, allow: &'static str) -> Result<(), Problem> {
    if request.method() != by {
        return Err(Problem::Method(allow));
    }
    if request.headers().contains_key(header::ORIGIN) { Err(Problem::CrossSite) } else { Ok(()) }
}

/// RFC 9457, with what it is about, which is for operators alone.
fn problem(status: StatusCode, name: &str, detail: &str, problems: &[String]) -> Response<Body> {
    let problem = json!({
        "type": format!("urn:ssegate:problem:{name}"),
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
        "problems": problems,
    });
    let mut response = typed("application/problem+json", status::pretty(&problem));
    *response.status_mut() = status;
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = typed("text/plain; charset=utf-8", text.to_owned());
    *response.status_mut() = status;
    response
}

fn typed(content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from(text)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Connections at once. They are of the descriptors that are kept for what is no client.
const MOST: usize = 64;
/// How long one may take nothing of what it has asked for.
const STALL: Duration = Duration::from_mins(1);
