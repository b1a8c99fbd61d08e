//! A small HTTP server whose answers the test decides: an issuer that serves keys, an endpoint that decides, either of
//! them out of order.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::serve::serve;
use super::tls::TestCa;
use super::wait::eventually;

/// The server. Dropping it closes it.
pub struct Origin {
    base: String,
    state: Arc<State>,
    server: JoinHandle<()>,
}

/// What a path answers.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Its status; 0 never answers.
    pub status: u16,
    /// Its header fields.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

#[derive(Default)]
struct State {
    answers: Mutex<HashMap<String, Answer>>,
    requests: Mutex<Vec<(String, HeaderMap)>>,
}

impl Origin {
    /// Listens on a free port. Every path is 404 at first.
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    /// The same over TLS, with a certificate of this authority.
    pub async fn start_tls(ca: &TestCa) -> Self {
        Self::listen(Some(TlsAcceptor::from(ca.server_config(&["http/1.1"])))).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (base, state) = (format!("{scheme}://{addr}"), Arc::<State>::default());
        let asked = Arc::clone(&state);
        let server = tokio::spawn(serve(listener, tls, move |request| answer(request, Arc::clone(&asked))));
        Self { base, state, server }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// From now on a path has this answer.
    pub fn set(&self, path: &str, answer: Answer) {
        self.state.answers.lock().insert(path.into(), answer);
    }

    /// From now on a path has this status and body.
    pub fn say(&self, path: &str, status: u16, body: impl Into<String>) {
        self.set(path, Answer { status, headers: Vec::new(), body: body.into() });
    }

    /// The header fields of all requests of a path.
    pub fn requests(&self, path: &str) -> Vec<HeaderMap> {
        let requests = self.state.requests.lock();
        requests.iter().filter(|(other, _)| other == path).map(|(_, headers)| headers.clone()).collect()
    }

    /// Waits until a path has been asked for so often in all.
    pub async fn wait_requests(&self, path: &str, count: usize) {
        let asked = async || match self.requests(path).len() {
            seen if seen >= count => Ok(()),
            seen => Err(format!("asked {seen} times")),
        };
        eventually(&format!("{count} requests of {path}"), asked).await;
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let answer = state.answers.lock().get(&path).cloned();
    state.requests.lock().push((path, request.headers().clone()));
    let answer = answer.unwrap_or(Answer { status: 404, ..Answer::default() });
    if answer.status == 0 {
        std::future::pending::<()>().await;
    }
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    response.body(Full::new(answer.body.into())).expect("a response")
}
