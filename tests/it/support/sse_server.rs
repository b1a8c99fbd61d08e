//! A server of event streams whose every byte the test decides, over HTTP/1.1 or, with TLS, HTTP/2 as well. What is
//! published with an id it keeps, and gives again to who asks for what follows one; other bytes are gone once they are sent.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::origin::Answer;
use super::tls::TestCa;
use super::wait::eventually;

/// The server. Dropping it ends it with its connections.
pub struct SseServer {
    addr: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    paths: Mutex<HashMap<String, Path>>,
    connections: Mutex<usize>,
    refuses: Mutex<bool>,
}

/// One path, its query included.
#[derive(Default)]
struct Path {
    /// What was published with an id.
    kept: Vec<(String, Bytes)>,
    open: Vec<UnboundedSender<Bytes>>,
    requests: Vec<HeaderMap>,
    /// What is answered instead of a stream.
    answer: Option<Answer>,
    /// Whether `Last-Event-ID` is passed over.
    forgets: bool,
    /// Whether each stream begins with the id that was published last, and a short `retry`.
    greets: bool,
    /// What each stream begins with.
    begins: Bytes,
}

impl SseServer {
    /// Listens on a free port.
    pub async fn start() -> Self {
        Self::listen(0, None).await
    }

    /// The same over TLS, with a certificate of this authority, for these protocols.
    pub async fn start_tls(ca: &TestCa, alpn: &[&str]) -> Self {
        Self::listen(0, Some(TlsAcceptor::from(ca.server_config(alpn)))).await
    }

    async fn listen(port: u16, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Arc::<State>::default();
        let server = tokio::spawn(serve(listener, tls, Arc::clone(&state)));
        Self { addr, scheme, state, server }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}://localhost:{}{path}", self.scheme, self.addr.port())
    }

    /// Sends these bytes on every open stream of a path.
    pub fn send(&self, path: &str, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.with(path, |path| path.open.retain(|stream| stream.send(bytes.clone()).is_ok()));
    }

    /// Publishes an event with an id, on every open stream of a path and for those who come back.
    pub fn publish(&self, path: &str, id: &str, data: &str) {
        let block = Bytes::from(format!("data: {data}\nid: {id}\n\n"));
        self.with(path, |path| {
            path.kept.push((id.to_owned(), block.clone()));
            path.open.retain(|stream| stream.send(block.clone()).is_ok());
        });
    }

    /// Ends every open stream of a path in order.
    pub fn end(&self, path: &str) {
        self.with(path, |path| path.open.clear());
    }

    /// Breaks off every stream and has no other (503), or has them again.
    pub fn refuse(&self, refuses: bool) {
        *self.state.refuses.lock() = refuses;
        self.state.paths.lock().values_mut().for_each(|path| path.open.clear());
    }

    /// From now on a path is answered like this, or with streams again.
    pub fn answer(&self, path: &str, answer: Option<Answer>) {
        self.with(path, |path| path.answer = answer);
    }

    /// From now on a path passes over `Last-Event-ID`.
    pub fn forget_ids(&self, path: &str) {
        self.with(path, |path| path.forgets = true);
    }

    /// From now on each stream of a path begins with the id that was published last, and a short `retry`.
    pub fn greet(&self, path: &str) {
        self.with(path, |path| path.greets = true);
    }

    /// From now on each stream of a path begins with these bytes, which come with the head of its answer.
    pub fn begin(&self, path: &str, bytes: &'static str) {
        self.with(path, |path| path.begins = bytes.into());
    }

    /// The header fields of all requests of a path.
    pub fn requests(&self, path: &str) -> Vec<HeaderMap> {
        self.with(path, |path| path.requests.clone())
    }

    /// What all requests of a path asked to go on after; empty where they did not.
    pub fn asked_after(&self, path: &str) -> Vec<String> {
        let after = |headers: &HeaderMap| {
            let id =
                headers.get("last-event-id").map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
            id.unwrap_or_default()
        };
        self.requests(path).iter().map(after).collect()
    }

    /// How many streams of a path are open.
    pub fn open(&self, path: &str) -> usize {
        self.with(path, |path| {
            path.open.retain(|stream| !stream.is_closed());
            path.open.len()
        })
    }

    /// Waits until so many streams of a path are open.
    pub async fn until_open(&self, path: &str, count: usize) {
        let open = async || match self.open(path) {
            open if open == count => Ok(()),
            open => Err(format!("{open} are open")),
        };
        eventually(&format!("{count} streams of {path}"), open).await;
    }

    /// Waits until a path has been asked for so often in all.
    pub async fn until_asked(&self, path: &str, count: usize) {
        let asked = async || match self.requests(path).len() {
            seen if seen >= count => Ok(()),
            seen => Err(format!("asked {seen} times")),
        };
        eventually(&format!("{count} requests of {path}"), asked).await;
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        *self.state.connections.lock()
    }

    fn with<T>(&self, path: &str, look: impl FnOnce(&mut Path) -> T) -> T {
        look(self.state.paths.lock().entry(path.to_owned()).or_default())
    }
}

impl Drop for SseServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            *state.connections.lock() += 1;
            let (tls, state) = (tls.clone(), Arc::clone(&state));
            connections.spawn(async move {
                let Some(tls) = tls else { return connection(stream, false, state).await };
                // Who does not trust it leaves.
                if let Ok(stream) = tls.accept(stream).await {
                    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    connection(stream, h2, state).await;
                }
            });
        }
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, h2: bool, state: Arc<State>) {
    let (stream, service) = (TokioIo::new(stream), service_fn(|request| answer(request, Arc::clone(&state))));
    // How it ends is the client's business.
    let _ = match h2 {
        true => http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await,
        false => http1::Builder::new().serve_connection(stream, service).await,
    };
}

/// The id of a stream of which nothing was published yet.
const BEGINNING: &str = "beginning";

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Reply, Infallible> {
    let name = request.uri().path_and_query().expect("a path").to_string();
    let mut paths = state.paths.lock();
    let path = paths.entry(name).or_default();
    path.requests.push(request.headers().clone());
    if *state.refuses.lock() {
        let response = Response::builder().status(503);
        return Ok(response.body(Full::new(Bytes::new()).boxed_unsync()).expect("a response"));
    }
    if let Some(answer) = &path.answer {
        let mut response = Response::builder().status(answer.status);
        for (name, value) in &answer.headers {
            response = response.header(name, value);
        }
        return Ok(response.body(Full::new(answer.body.clone().into()).boxed_unsync()).expect("a response"));
    }
    let after = request.headers().get("last-event-id").filter(|_| !path.forgets);
    let after = after.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let from = after.and_then(|id| match &*id {
        BEGINNING => Some(0),
        id => path.kept.iter().rposition(|(kept, _)| kept == id).map(|at| at + 1),
    });
    let mut again: Vec<Bytes> = Vec::from_iter(Some(path.begins.clone()).filter(|bytes| !bytes.is_empty()));
    if path.greets {
        let newest = path.kept.last().map_or(BEGINNING, |(id, _)| id.as_str());
        again.push(Bytes::from_static(b"retry: 100\n\n"));
        again.extend(from.is_none().then(|| Bytes::from(format!("id: {newest}\n\n"))));
    }
    again.extend(from.into_iter().flat_map(|from| path.kept[from..].iter().map(|(_, block)| block.clone())));
    let (stream, comes) = mpsc::unbounded_channel();
    path.open.push(stream);
    let comes = stream::unfold(comes, |mut comes| async move { Some((comes.recv().await?, comes)) });
    let body = StreamBody::new(stream::iter(again).chain(comes).map(|bytes| Ok(Frame::data(bytes))));
    let response = Response::builder().header("content-type", "text/event-stream;charset=utf-8");
    Ok(response.body(BodyExt::boxed_unsync(body)).expect("a response"))
}
