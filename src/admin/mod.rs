//! The admin listener: health, readiness, metrics, status, and the entry of `push` upstreams. For operators,
//! on loopback by default; plain HTTP/1.1.

mod status;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::http::{Body, Bound, Edge, Problem, serve_http1};
use crate::upstream::{Link, Push};

/// What the admin listener shows.
pub struct Admin {
    /// The public side.
    pub edge: Arc<Edge>,
    /// The links to the upstreams, each with its kind.
    pub links: Vec<(&'static str, Arc<Link>)>,
    /// Where published messages go.
    pub push: Arc<Push>,
    /// Bytes that a published message may have.
    pub max_event: usize,
    /// Whether the listeners are bound and the first subscriptions have been tried.
    pub ready: AtomicBool,
    /// When the process started.
    pub started: SystemTime,
}

/// Serves the admin listener for as long as it runs.
pub async fn serve(bound: Bound, admin: Arc<Admin>) {
    // Connections end with this task: whoever looks is served until the process goes.
    let (_stop, never) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            (socket, _) = bound.accept() => {
                connections.spawn(serve_http1(socket, Service(Arc::clone(&admin)), never.clone()));
            }
        }
    }
}

#[derive(Clone)]
struct Service(Arc<Admin>);

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let admin = Arc::clone(&self.0);
        Box::pin(async move { Ok(admin.answer(request).await.unwrap_or_else(Problem::response)) })
    }
}

impl Admin {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let path = request.uri().path();
        if let Some(channel) = path.strip_prefix("/publish/") {
            let channel = channel.to_owned();
            return match *request.method() {
                // Any page that an operator opens could otherwise publish to a listener on loopback.
                Method::POST if request.headers().contains_key(header::ORIGIN) => Err(Problem::CrossSite),
                Method::POST => self.publish(&channel, request).await,
                _ => Err(Problem::Method("POST")),
            };
        }
        let answer = match path {
            "/healthz" => text(StatusCode::OK, "alive\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics(),
            "/status" => typed("application/json", status::text(self)),
            _ => return Err(Problem::NoAdminPath),
        };
        match *request.method() {
            Method::GET | Method::HEAD => Ok(answer),
            _ => Err(Problem::Method("GET, HEAD")),
        }
    }

    fn readiness(&self) -> Response<Body> {
        if self.edge.streams.draining() {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        } else if !self.ready.load(Ordering::Relaxed) {
            text(StatusCode::SERVICE_UNAVAILABLE, "starting\n")
        } else {
            text(StatusCode::OK, "ready\n")
        }
    }

    fn metrics(&self) -> Response<Body> {
        let (hub, metrics) = (&self.edge.hub, &self.edge.metrics);
        let encoded = metrics.encode(hub.memory().used(), hub.memory().limit(), hub.feeds().len());
        typed("application/openmetrics-text; version=1.0.0; charset=utf-8", encoded)
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
