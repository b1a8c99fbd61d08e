//! HTTP to an authority: a connection for each of the dozen requests in weeks. Follows nothing and keeps nothing.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{ClientTls, Roots};

/// A client that trusts `roots`, or those whom the system trusts.
///
/// # Errors
/// Where the system trusts nobody.
pub(super) fn new(roots: Option<&Roots>) -> anyhow::Result<impl HttpClient + use<>> {
    let config = ClientTls::trusting(roots).config().map_err(anyhow::Error::msg)?;
    Ok(Client(TlsConnector::from(Arc::new(config))))
}

struct Client(TlsConnector);

type Answer = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl HttpClient for Client {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer {
        let connector = self.0.clone();
        Box::pin(async move {
            let url = request.uri().clone();
            let exchanged = timeout(EXCHANGE, exchange(connector, request)).await;
            let response = exchanged.context("no answer in time").flatten();
            let response = response.with_context(|| format!("`{url}`"));
            response
                .map(BytesResponse::from)
                .map_err(|e| Error::Other(io::Error::other(format!("{e:#}")).into()))
        })
    }
}

async fn exchange(
    connector: TlsConnector,
    mut request: Request<BodyWrapper<Bytes>>,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let url = std::mem::take(request.uri_mut());
    let authority = url.authority().context("a URL without a host")?;
    anyhow::ensure!(url.scheme_str() == Some("https"), "a URL that is not https");
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse()?;
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(authority.as_str())?);
    let host = authority.host().trim_matches(['[', ']']);
    let socket = TcpStream::connect((host, authority.port_u16().unwrap_or(443))).await?;
    let stream = connector.connect(ServerName::try_from(host.to_owned())?, socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // What it ends with shows in the answer.
    let connection = async {
        let _ = connection.await;
        std::future::pending().await
    };
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(anyhow::Error::from_boxed)?;
        Ok(Response::from_parts(head, body.to_bytes().into()))
    };
    tokio::select! {
        answer = answer => answer,
        () = connection => unreachable!("it waits for ever"),
    }
}

/// For one request and its whole answer.
const EXCHANGE: Duration = Duration::from_secs(30);
/// Bytes of an answer; a chain of certificates has some thousands.
const LARGEST: usize = 1 << 20;
