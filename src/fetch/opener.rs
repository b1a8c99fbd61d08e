//! `GET` of answers that are read as they come. HTTP/2 where the server speaks it, so that many share a connection;
//! redirects are followed, and credentials go to nobody but the server that they are for.

use std::time::Duration;

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;
use url::Url;

use super::seats::Seats;
use super::{cause, tls_config};
use crate::config::ClientTls;

/// A client of one server, and of those to which that sends it on.
#[derive(Clone)]
pub struct Opener {
    client: Client<Seats<HttpsConnector<HttpConnector>>, Empty<Bytes>>,
    /// Whether it shows a certificate, which is for one server as well.
    shows_certificate: bool,
}

/// What is asked for.
pub struct Ask {
    /// Where.
    pub url: Uri,
    /// Header fields for whoever answers.
    pub headers: HeaderMap,
    /// Header fields for the server at `url` alone.
    pub secret: HeaderMap,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// None has come in time.
    Late,
    /// What is in the way, in words for the operator.
    Other(String),
}

impl From<&str> for Failure {
    fn from(why: &str) -> Self {
        Self::Other(why.to_owned())
    }
}

impl Opener {
    /// So many connections at most, each made within `limit`.
    pub fn new(tls: &ClientTls, connections: usize, limit: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(ALIVE));
        connector.set_keepalive_interval(Some(ALIVE));
        connector.set_keepalive_retries(Some(PROBES));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(tls))
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_max_buf_size(BUFFER)
            .http2_initial_stream_window_size(WINDOW)
            .http2_keep_alive_interval(ALIVE)
            .http2_keep_alive_timeout(ALIVE)
            .build(Seats::new(connector, connections, limit));
        Self { client, shows_certificate: tls.certificate.is_some() }
    }

    /// The answer of whoever has it, whatever its status but one that leads elsewhere. Each head comes within `limit`.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn get(&self, ask: &Ask, limit: Duration) -> Result<Response<Incoming>, Failure> {
        let mut url = ask.url.clone();
        for _ in 0..=REDIRECTS {
            let mut request = Request::new(Empty::new());
            request.headers_mut().clone_from(&ask.headers);
            if origin(&url) == origin(&ask.url) {
                request.headers_mut().extend(ask.secret.clone());
            }
            *request.uri_mut() = url.clone();
            let answer = timeout(limit, self.client.request(request)).await;
            let answer = answer
                .map_err(|_| Failure::Late)?
                .map_err(|error| Failure::Other(named(&url, &cause(&error))))?;
            if !leads_elsewhere(answer.status()) {
                return Ok(answer);
            }
            url = self.next(&url, &ask.url, &answer)?;
        }
        Err(Failure::Other(format!("it is redirected more than {REDIRECTS} times")))
    }

    /// Where an answer from `at` leads.
    fn next<B>(&self, at: &Uri, first: &Uri, answer: &Response<B>) -> Result<Uri, Failure> {
        let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let next = location.and_then(|location| {
            let mut next = Url::parse(&at.to_string()).ok()?.join(location).ok()?;
            next.set_fragment(None);
            let plain = next.username().is_empty() && next.password().is_none();
            let next = next.as_str().parse::<Uri>().ok()?;
            (plain && matches!(next.scheme_str(), Some("http" | "https"))).then_some(next)
        });
        let nowhere = || Failure::Other(format!("it answers {} and does not say where to", answer.status()));
        let next = next.ok_or_else(nowhere)?;
        if at.scheme_str() == Some("https") && next.scheme_str() == Some("http") {
            return Err("it redirects from https to http, which is not followed".into());
        }
        if self.shows_certificate && origin(&next) != origin(first) {
            return Err("it redirects to another server, which is not to be shown the certificate".into());
        }
        Ok(next)
    }
}

/// What is in the way, with whose way it is: host and port, and nothing else of a URL.
fn named(url: &Uri, why: &str) -> String {
    origin(url).map_or_else(|| why.to_owned(), |(_, host, port)| format!("{host}:{port}: {why}"))
}

fn leads_elsewhere(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Scheme, host and port (RFC 6454).
fn origin(url: &Uri) -> Option<(String, String, u16)> {
    let scheme = url.scheme_str()?;
    let port = url.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme.to_owned(), url.host()?.to_ascii_lowercase(), port))
}

/// How often an answer may lead elsewhere.
const REDIRECTS: usize = 5;
/// After so much silence the other machine is asked whether it is there, and so often.
const ALIVE: Duration = Duration::from_secs(15);
const PROBES: u32 = 3;
/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(4);
/// Bytes that are read ahead, of HTTP/1.1, and of each stream of HTTP/2.
const BUFFER: usize = 64 * 1024;
const WINDOW: u32 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_has_a_place_and_no_more() {
        let named = |url: &str| named(&url.parse().unwrap(), "refused");
        assert_eq!(named("https://user:secret@a.example/b?key=c"), "a.example:443: refused");
        assert_eq!(named("http://[::1]:80/"), "[::1]:80: refused");
    }

    #[test]
    fn where_redirects_lead() {
        let opener = |certificate| {
            let tls = ClientTls::trusting(Some(&rustls::RootCertStore::empty().into()));
            Opener { shows_certificate: certificate, ..Opener::new(&tls, 1, IDLE) }
        };
        let next = |certificate, from: &str, to: &str| {
            let answer = Response::builder().status(302).header(LOCATION, to).body(()).unwrap();
            let from = from.parse().unwrap();
            opener(certificate).next(&from, &from, &answer).map(|next| next.to_string())
        };
        for (location, expected) in [
            ("/x?y#z", "https://a.example/x?y"),
            ("x", "https://a.example/b/x"),
            ("../x", "https://a.example/x"),
            ("//b.example/", "https://b.example/"),
            ("https://b.example:444/x", "https://b.example:444/x"),
        ] {
            assert_eq!(next(false, "https://a.example/b/c?d", location), Ok(expected.to_owned()));
        }
        assert!(next(false, "https://a.example/", "http://a.example/").is_err(), "in the clear");
        assert!(next(false, "http://a.example/", "ftp://a.example/").is_err());
        assert!(next(false, "http://a.example/", "http://user@a.example/").is_err());
        assert!(next(true, "https://a.example/", "https://a.example:443/x").is_ok());
        assert!(next(true, "https://a.example/", "https://b.example/").is_err());
    }
}
