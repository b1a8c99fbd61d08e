//! A web server: how it is asked, and which of its answers can be read.

use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use hyper::body::Incoming;

use crate::config;
use crate::fetch::{Ask, Failure, Opener};

/// A server as it is configured, and the connections to it.
pub(in crate::upstream) struct Web {
    config: config::HttpServer,
    opener: Opener,
}

/// Why there is nothing to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::upstream) enum Refusal {
    /// 204: there is nothing, and of a stream no more.
    #[error("the server says that there is no more (204)")]
    Over,
    #[error("the server answers {0}")]
    Status(StatusCode),
    #[error("the server does not answer in time")]
    Late,
    #[error("{0}")]
    Other(String),
}

impl Web {
    /// One that is asked on so many connections at most.
    pub(in crate::upstream) fn new(config: &config::HttpServer, connections: usize) -> Self {
        let opener = Opener::new(&config.tls, connections, config.timeout);
        Self { config: config.clone(), opener }
    }

    /// What there is at a path, in one of these media types; its head comes within `limit`.
    pub(in crate::upstream) async fn get(
        &self,
        path: &str,
        accept: &'static str,
        mut headers: HeaderMap,
        limit: Duration,
    ) -> Result<Response<Incoming>, Refusal> {
        for (name, value) in [
            (ACCEPT, accept),
            (ACCEPT_ENCODING, "identity"),
            (CACHE_CONTROL, "no-store"),
            (USER_AGENT, AGENT),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let ask = Ask { url: self.url(path)?, headers, secret: self.config.headers.clone() };
        let answer = self.opener.get(&ask, limit).await.map_err(|failure| match failure {
            Failure::Late => Refusal::Late,
            Failure::Other(why) => Refusal::Other(why),
        })?;
        match answer.status() {
            StatusCode::OK | StatusCode::NOT_MODIFIED => {}
            StatusCode::NO_CONTENT => return Err(Refusal::Over),
            status => return Err(Refusal::Status(status)),
        }
        let coding = answer.headers().get(CONTENT_ENCODING).map_or(&b""[..], HeaderValue::as_bytes);
        if !matches!(coding, b"" | b"identity") {
            return Err(Refusal::Other("the server packs its answer, though it is asked not to".to_owned()));
        }
        Ok(answer)
    }

    /// The URL of a path.
    fn url(&self, path: &str) -> Result<Uri, Refusal> {
        let base = self.config.shown();
        let url = format!("{}{path}", base.trim_end_matches('/')).parse();
        url.map_err(|_| Refusal::Other("its path makes no URL".to_owned()))
    }
}

/// The media type of an answer, without parameters and in lower case.
pub(in crate::upstream) fn media_type<B>(answer: &Response<B>) -> String {
    let field = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    field.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

const AGENT: &str = concat!("ssegate/", env!("CARGO_PKG_VERSION"));
