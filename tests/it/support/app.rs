//! An application behind ssegate, in this process: a web server that tells what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// A running application. Dropping it ends it with its connections.
pub struct App {
    /// Where it listens.
    pub addr: SocketAddr,
    connections: Arc<Mutex<usize>>,
    /// Each that is open has another of it.
    open: Arc<()>,
    seen: Arc<Mutex<Option<String>>>,
    _tasks: JoinSet<()>,
}

impl App {
    /// `/echo` answers with the request's body as it comes, `/switch` switches to what is asked for and echoes, `/never`
    /// does not answer, the answer of `/endless` has no end, `/page` is a web page that opens an EventSource on `/events`; any other path tells the request as
    /// JSON.
    pub async fn start() -> Self {
        Self::start_on(0).await
    }

    /// The same on this port.
    pub async fn start_on(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let (connections, seen) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(None)));
        let (counted, noted, mut tasks) = (Arc::clone(&connections), Arc::clone(&seen), JoinSet::new());
        let alive = Arc::new(());
        let another = Arc::clone(&alive);
        tasks.spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                *counted.lock() += 1;
                let (noted, open) = (Arc::clone(&noted), Arc::clone(&another));
                tasks.spawn(async move {
                    let _open = open;
                    let service = service_fn(|request: Request<Incoming>| {
                        if request.uri().path() == "/seen" {
                            *noted.lock() = Some(request.uri().to_string());
                        }
                        answer(request)
                    });
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                    let _ = connection.with_upgrades().await;
                });
            }
        });
        Self { addr, connections, open: alive, seen, _tasks: tasks }
    }

    /// What came last under `/seen`.
    pub fn seen(&self) -> Option<String> {
        self.seen.lock().clone()
    }

    /// How many connections are open; those that have switched are not counted.
    pub fn open(&self) -> usize {
        Arc::strong_count(&self.open) - 2
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        *self.connections.lock()
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Answer, Infallible> {
    match request.uri().path() {
        "/echo" => Ok(Response::new(request.into_body().boxed())),
        "/never" => std::future::pending().await,
        "/endless" => {
            let frames = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024]))));
            Ok(Response::new(BodyExt::boxed(StreamBody::new(frames))))
        }
        "/page" => {
            let mut page = Response::new(full(PAGE));
            page.headers_mut().insert(header::CONTENT_TYPE, "text/html".parse().unwrap());
            page.headers_mut().insert(header::SET_COOKIE, "session=s1; Path=/; HttpOnly".parse().unwrap());
            Ok(page)
        }
        "/switch" => {
            let switched = hyper::upgrade::on(&mut request);
            let protocol = request.headers()[header::UPGRADE].clone();
            tokio::spawn(async move {
                let mut io = TokioIo::new(switched.await.expect("switched"));
                let mut room = [0; 1024];
                while let Ok(read @ 1..) = io.read(&mut room).await {
                    io.write_all(&room[..read]).await.expect("the other side reads");
                }
                io.shutdown().await.expect("closed in order");
            });
            let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
            Ok(response.header("connection", "upgrade").header("upgrade", protocol).body(full("")).unwrap())
        }
        _ => Ok(told(request).await),
    }
}

async fn told(request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let headers: serde_json::Map<_, _> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let told = json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    let response = Response::builder()
        .status(if head.uri.path() == "/gone" { 410 } else { 200 })
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("x-app", "1");
    response.body(full(told.to_string())).unwrap()
}

fn full(bytes: impl Into<Bytes>) -> BoxBody<Bytes, hyper::Error> {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

const PAGE: &str = "<!doctype html><meta charset=utf-8><script>
const events = new EventSource('/events');
events.onmessage = event => fetch('/seen?' + event.data + '&' + document.cookie);
</script>";
