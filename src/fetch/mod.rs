//! The HTTP clients by which others are asked and told. [`Http`] is for issuers, endpoints that decide, a collector of
//! traces: pooled, bounded in time and size, redirects not followed. [`Opener`] is for servers whose answers are read as
//! they come, and may never end. `absence` is what is said of one that does not answer.

mod absence;
mod opener;
mod seats;

pub use absence::Absence;
pub use opener::{Ask, Failure, Opener};

use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use crate::config::{ClientTls, Roots};

/// One for all who trust the same.
#[derive(Debug, Clone)]
pub struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Http {
    /// Trusts these, or else the system's authorities.
    pub fn new(roots: Option<&Roots>) -> Self {
        Self::presenting(&ClientTls::trusting(roots))
    }

    /// The same, and shows a certificate to those who ask for one.
    pub fn presenting(tls: &ClientTls) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(tls))
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector);
        Self(client)
    }

    /// `GET` with these header fields. The whole exchange takes `limit` at most, and its body 1 MiB.
    ///
    /// # Errors
    /// Why there is no whole answer, whatever its status.
    pub async fn get(&self, url: Uri, headers: HeaderMap, limit: Duration) -> Result<(Parts, Bytes), String> {
        whole(self.exchange(Method::GET, url, headers, Bytes::new(), limit, BODY).await)
    }

    /// The same, where the body has `most` bytes at most; `None` is one that has more.
    ///
    /// # Errors
    /// Why there is no answer, whatever its status.
    pub async fn get_up_to(
        &self,
        most: usize,
        url: Uri,
        headers: HeaderMap,
        limit: Duration,
    ) -> Result<(Parts, Option<Bytes>), String> {
        self.exchange(Method::GET, url, headers, Bytes::new(), limit, most).await
    }

    /// As [`Self::get`], with `POST` and this body.
    ///
    /// # Errors
    /// Why there is no whole answer, whatever its status.
    pub async fn post(
        &self,
        url: Uri,
        headers: HeaderMap,
        body: Bytes,
        limit: Duration,
    ) -> Result<(Parts, Bytes), String> {
        whole(self.exchange(Method::POST, url, headers, body, limit, BODY).await)
    }

    async fn exchange(
        &self,
        method: Method,
        url: Uri,
        headers: HeaderMap,
        body: Bytes,
        limit: Duration,
        most: usize,
    ) -> Result<(Parts, Option<Bytes>), String> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = url;
        *request.headers_mut() = headers;
        let exchange = async {
            let response = self.0.request(request).await.map_err(|error| cause(&error))?;
            let (head, body) = response.into_parts();
            match Limited::new(body, most).collect().await {
                Ok(body) => Ok((head, Some(body.to_bytes()))),
                Err(error) if error.is::<LengthLimitError>() => Ok((head, None)),
                Err(error) => Err(error.to_string()),
            }
        };
        timeout(limit, exchange).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }
}

fn whole(answer: Result<(Parts, Option<Bytes>), String>) -> Result<(Parts, Bytes), String> {
    let (head, body) = answer?;
    Ok((head, body.ok_or_else(|| format!("the answer has more than {} MiB", BODY >> 20))?))
}

/// What handshakes go by. Who is asked over plain HTTP needs no authorities.
fn tls_config(tls: &ClientTls) -> ClientConfig {
    let config = tls.config().inspect_err(|why| tracing::warn!(why, "nobody can be asked over https"));
    let config =
        config.or_else(|_| ClientTls { roots: Some(RootCertStore::empty().into()), ..tls.clone() }.config());
    config.expect("no authority is looked for")
}

/// The client's errors tell the reason at their end.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let last = std::iter::successors(Some(error), |error| error.source()).last();
    last.unwrap_or(error).to_string()
}

/// Bytes of an answer, where nothing else is said.
const BODY: usize = 1 << 20;
const CONNECT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(30);
const MAX_IDLE: usize = 16;
