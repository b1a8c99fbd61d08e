//! The admin listener as `status`, `top`, `reload` and `upgrade` ask it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use tokio::time::timeout;

use super::dial::{self, Trust};
use super::status::no_answer;
use crate::config::{self, Admin, AdminListen, Secret};

/// Which listener is asked, and as whom.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// Where the admin listener is: http://HOST:PORT or unix:PATH [default: http://127.0.0.1:9090]
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    admin: Option<String>,
    /// Take `admin.listen` and `admin.token` of this configuration file
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file that holds a token for it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// An admin listener.
pub(super) struct Operator {
    place: Place,
    headers: HeaderMap,
}

enum Place {
    Http(Uri),
    Unix(PathBuf),
}

impl Operator {
    /// Who is meant.
    pub fn new(options: &Options) -> anyhow::Result<Self> {
        let (given, configured) = match (&options.admin, &options.config) {
            (Some(admin), _) => (admin.clone(), None),
            (None, Some(file)) => of_config(file)?,
            (None, None) => (DEFAULT.to_owned(), None),
        };
        let token = match &options.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file);
                Some(Secret::new(text.with_context(|| format!("cannot read {}", file.display()))?))
            }
            None => configured,
        };
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose().trim()))
                .context("the token has characters that no token has")?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Self { place: place(&given)?, headers })
    }

    /// What it is called.
    pub fn name(&self) -> String {
        match &self.place {
            Place::Http(url) => url.to_string().trim_end_matches('/').to_owned(),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// `GET /status`.
    pub async fn status(&self) -> anyhow::Result<Value> {
        soon(async { self.ask(Method::GET, "/status").await?.document() }).await
    }

    /// `GET /readyz`: whether it is, and in a word how it is.
    pub async fn ready(&self) -> anyhow::Result<(bool, String)> {
        let answer = soon(self.ask(Method::GET, "/readyz")).await?;
        Ok((answer.status == StatusCode::OK, String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// `POST /reload`: the status of the answer, and the answer.
    pub async fn reload(&self) -> anyhow::Result<(StatusCode, Value)> {
        // A process that has just started has some seconds for its upstreams, and the file may be anywhere.
        let answer = timeout(RELOAD, self.ask(Method::POST, "/reload")).await;
        let answer = answer.unwrap_or_else(|_| Err(anyhow!("no answer within {} s", RELOAD.as_secs())))?;
        match answer.status {
            // They are told of by what they are about.
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::CONFLICT => {
                Ok((answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()))
            }
            status => Ok((status, answer.document()?)),
        }
    }

    /// `POST /upgrade`: the ids of the process that was asked and of the one that serves in its place. It takes as long as
    /// that one needs to start.
    pub async fn upgrade(&self) -> anyhow::Result<(u64, u64)> {
        let answer = self.ask(Method::POST, "/upgrade").await.with_context(|| no_answer(self))?;
        if matches!(answer.status, StatusCode::INTERNAL_SERVER_ERROR | StatusCode::CONFLICT)
            && let Ok(problem) = serde_json::from_slice::<Value>(&answer.body)
            && let Some(why) = problem["detail"].as_str()
        {
            bail!("no upgrade: {why}");
        }
        let document = answer.document()?;
        let pid = |name: &str| document[name].as_u64().with_context(|| format!("it does not tell `{name}`"));
        Ok((pid("pid")?, pid("successor")?))
    }

    async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Answer> {
        let response = match &self.place {
            Place::Http(url) => {
                let url: Uri = format!("{}{path}", url.to_string().trim_end_matches('/')).parse()?;
                dial::ask(method, &url, &self.headers, &Trust::default()).await?
            }
            Place::Unix(socket) => {
                let url: Uri = format!("http://localhost{path}").parse()?;
                dial::ask_unix(method, socket, &url, &self.headers).await?
            }
        };
        let status = response.status();
        let body =
            Limited::new(response.into_body(), MOST).collect().await.map_err(|error| anyhow!(error))?;
        Ok(Answer { status, body: body.to_bytes() })
    }
}

async fn soon<T>(asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let asked = timeout(PATIENCE, asked).await;
    asked.unwrap_or_else(|_| Err(anyhow!("no answer within {} s", PATIENCE.as_secs())))
}

struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl Answer {
    /// The JSON that it is, if it is a good one.
    fn document(&self) -> anyhow::Result<Value> {
        match self.status {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                bail!("it answers {status}; name a token that it takes with --token-file")
            }
            status => bail!("it answers {status}; is this the admin listener of ssegate?"),
        }
        let document = serde_json::from_slice(&self.body);
        document.context("what it answers is no JSON; is this the admin listener of ssegate?")
    }
}

fn place(given: &str) -> anyhow::Result<Place> {
    if let Some(path) = given.strip_prefix("unix:") {
        return Ok(Place::Unix(path.into()));
    }
    let given = if given.contains("://") { given.to_owned() } else { format!("http://{given}") };
    let url: Uri = given.parse().with_context(|| format!("{given} is no URL; write http://HOST:PORT"))?;
    match url.authority() {
        Some(_) => Ok(Place::Http(url)),
        None => bail!("{given} names no host; write http://HOST:PORT"),
    }
}

/// Where it listens, and the token that it wants.
fn of_config(file: &std::path::Path) -> anyhow::Result<(String, Option<Secret>)> {
    let Admin { listen, token } = config::load(file)?.admin;
    let admin = listen.context("`admin.listen` is `none` there, so that there is nobody to ask")?;
    let AdminListen::Tcp(mut admin) = admin else { return Ok((admin.to_string(), token)) };
    if admin.ip().is_unspecified() {
        admin.set_ip(if admin.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    Ok((format!("http://{admin}"), token))
}

const DEFAULT: &str = "http://127.0.0.1:9090";
const PATIENCE: Duration = Duration::from_secs(10);
const RELOAD: Duration = Duration::from_mins(1);
/// Bytes of the document.
const MOST: usize = 256 << 20;
