//! An HTTPS server in the test process that serves `page.html` and collects what the page reports.
//!
//! The page's origin is the collector's, so the stream is cross-origin to it: its route needs CORS.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::serve::serve;
use super::tls::TestCa;
use super::wait::DEADLINE;

const PAGE: &str = include_str!("page.html");

/// One thing that the page's `EventSource` did.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// `open`, `error`, `message`, `gap`, `position`, `snapshot-start`, `snapshot-end`, `ticket`, `renewed` or `protocol`.
    pub kind: String,
    /// The event's data, or the protocol (`h2`).
    #[serde(default)]
    pub data: String,
    /// `lastEventId` of the event.
    #[serde(default)]
    pub id: String,
    /// For `open` and `error`: 0 connecting, 1 open, 2 given up.
    #[serde(rename = "readyState")]
    pub ready_state: Option<u8>,
    /// Milliseconds since the page was opened.
    pub at: u64,
}

/// The server, and all reports so far.
pub struct Collector {
    addr: SocketAddr,
    inbox: mpsc::UnboundedReceiver<Vec<Report>>,
    reports: Vec<Report>,
    server: JoinHandle<()>,
}

impl Collector {
    /// Listens on a free port with the certificate of `ca`.
    pub async fn start(ca: &TestCa) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let (outbox, inbox) = mpsc::unbounded_channel();
        let acceptor = TlsAcceptor::from(ca.server_config(&["http/1.1"]));
        let server = serve(listener, Some(acceptor), move |request| answer(request, outbox.clone()));
        let server = tokio::spawn(server);
        Self { addr, inbox, reports: Vec::new(), server }
    }

    /// The page's origin, as in the `Origin` header.
    pub fn origin(&self) -> String {
        format!("https://localhost:{}", self.addr.port())
    }

    /// The page that opens an `EventSource` on `stream`.
    pub fn page_url(&self, stream: &str) -> String {
        format!("{}/page?stream={}", self.origin(), utf8_percent_encode(stream, NON_ALPHANUMERIC))
    }

    /// The page that asks for a ticket with `token` and opens an `EventSource` with it.
    pub fn ticket_page_url(&self, tickets: &str, token: &str) -> String {
        let [tickets, token] = [tickets, token].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
        format!("{}/page?tickets={tickets}&token={token}", self.origin())
    }

    /// All reports so far.
    pub fn reports(&mut self) -> &[Report] {
        while let Ok(batch) = self.inbox.try_recv() {
            self.reports.extend(batch);
        }
        &self.reports
    }

    /// The reports of one kind so far.
    pub fn of_kind(&mut self, kind: &str) -> Vec<Report> {
        self.reports().iter().filter(|report| report.kind == kind).cloned().collect()
    }

    /// Waits until the reports satisfy `enough`, and panics where [`DEADLINE`] passes without a new one.
    pub async fn wait_for(&mut self, what: &str, enough: impl Fn(&[Report]) -> bool) {
        while !enough(self.reports()) {
            match timeout(DEADLINE, self.inbox.recv()).await {
                Ok(batch) => self.reports.extend(batch.expect("the server runs")),
                Err(_) => panic!("the page reports nothing new while waiting for {what}: {}", self.summary()),
            }
        }
    }

    /// Waits until `count` reports of `kind` have come in all.
    pub async fn wait_count(&mut self, kind: &str, count: usize) {
        let what = format!("{count} × {kind}");
        self.wait_for(&what, |all| all.iter().filter(|report| report.kind == kind).count() >= count).await;
    }

    fn summary(&self) -> String {
        let last: Vec<String> =
            self.reports.iter().rev().take(10).rev().map(|r| format!("  {r:.300?}")).collect();
        format!("{} reports, the last are\n{}", self.reports.len(), last.join("\n"))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Outbox = mpsc::UnboundedSender<Vec<Report>>;

async fn answer(request: Request<Incoming>, outbox: Outbox) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/page") => (200, "text/html", PAGE),
        (&Method::POST, "/report") => match take(request, &outbox).await {
            Some(()) => (200, "text/plain", "noted"),
            None => (400, "text/plain", "not a list of reports"),
        },
        _ => (404, "text/plain", "no such page"),
    };
    let response = Response::builder().status(status).header("content-type", kind);
    response.body(Full::new(body.into())).expect("a response")
}

async fn take(request: Request<Incoming>, outbox: &Outbox) -> Option<()> {
    let body = request.into_body().collect().await.ok()?.to_bytes();
    outbox.send(serde_json::from_slice(&body).ok()?).ok()
}
