//! One stream, followed across connections as an `EventSource` does (WHATWG HTML 9.2.3): where it stands, when it comes
//! back, and what it says of that.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use super::gap;
use super::options::Options;
use super::show::{Form, Look};
use crate::cli::dial::{self, Trust, cause};
use crate::cli::text::plain;
use crate::sse::{Decoder, Event, Item};

/// A stream that is followed.
pub(super) struct Session {
    options: Options,
    headers: HeaderMap,
    trust: Trust,
    look: Look,
    /// What to resume after; empty for nothing.
    id: String,
    /// How long the server wants clients to wait before they come back.
    retry: Duration,
    /// Attempts in a row that have come to nothing.
    failures: u32,
    /// Whether it has ever been open.
    opened: bool,
    /// Events printed.
    count: u64,
}

/// How a connection ended.
enum End {
    /// There is no more to come, or nobody who wants it.
    Over,
    /// The server does not want this client, and will not another time.
    Refused(anyhow::Error),
    /// It is worth coming back, not before this long if the server says so.
    Lost(String, Option<Duration>),
}

impl Session {
    /// What the options ask for, not begun yet.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(options.header_fields()?);
        let form = match (options.data, options.json) {
            (true, _) => Form::Data,
            (_, true) => Form::Json,
            _ => Form::Lines,
        };
        let trust =
            Trust { cacert: options.cacert.clone(), insecure: options.insecure, http1: options.http1 };
        let colours = coloured(&options, io::stdout().is_terminal());
        let look = Look { form, colours, terminal: io::stdout().is_terminal() };
        let id = options.last_event_id.clone().unwrap_or_default();
        let (retry, failures, opened, count) = (RETRY, 0, false, 0);
        Ok(Self { options, headers, trust, look, id, retry, failures, opened, count })
    }

    /// Prints what comes until there is no more.
    ///
    /// # Errors
    /// Why the server gives nothing.
    pub async fn follow(&mut self) -> anyhow::Result<()> {
        loop {
            match self.once().await {
                End::Over => return Ok(()),
                End::Refused(why) => return Err(why),
                End::Lost(why, least) => {
                    let wait = self.pause().max(least.unwrap_or_default());
                    let place = if self.id.is_empty() { "" } else { ", after the last event" };
                    self.say(&format!("{why}; coming back in {}{place}", humantime::format_duration(wait)));
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// As long as the server says, and longer each time that it does not answer.
    fn pause(&mut self) -> Duration {
        let doubled = 2_u32.saturating_pow(self.failures.saturating_sub(1).min(10));
        let longest = LONGEST.max(self.retry);
        self.retry.saturating_mul(doubled).min(longest)
    }

    /// One connection, from the request to its end.
    async fn once(&mut self) -> End {
        self.failures += 1;
        let (url, headers) = match self.request() {
            Ok(request) => request,
            Err(why) => return End::Refused(why),
        };
        let response = match dial::ask(Method::GET, &url, &headers, &self.trust).await {
            Ok(response) => response,
            Err(why) if self.opened || self.options.retry => return End::Lost(format!("{why:#}"), None),
            Err(why) => return End::Refused(why),
        };
        match response.status() {
            StatusCode::OK => match content_type(&response) {
                Ok(()) => self.read(response).await,
                Err(why) => End::Refused(why),
            },
            StatusCode::NO_CONTENT => {
                self.say("the server says that this stream is over (204)");
                End::Over
            }
            _ => self.refused(response).await,
        }
    }

    fn request(&self) -> anyhow::Result<(Uri, HeaderMap)> {
        let mut headers = self.headers.clone();
        if !self.id.is_empty() {
            // Bytes, since browsers too send an id in UTF-8 as it is.
            let id = HeaderValue::from_bytes(self.id.as_bytes());
            let id = id.context("the last event's id cannot be sent back")?;
            headers.insert("last-event-id", id);
            return Ok((self.options.url.clone(), headers));
        }
        let Some(since) = &self.options.since else { return Ok((self.options.url.clone(), headers)) };
        let since: String = form_urlencoded::byte_serialize(since.as_bytes()).collect();
        let joint = if self.options.url.query().is_some() { '&' } else { '?' };
        Ok((format!("{}{joint}since={since}", self.options.url).parse()?, headers))
    }

    async fn refused(&self, response: Response<Incoming>) -> End {
        let (status, wait) = (response.status(), retry_after(response.headers()));
        let location = response.headers().get("location").and_then(|location| location.to_str().ok());
        let location = location.filter(|_| status.is_redirection()).map(plain);
        let why = match location {
            Some(location) => format!("{status}: it is elsewhere, ask for {location}"),
            None => format!("{status}{}", problem(response).await),
        };
        match status.is_server_error() && self.options.retry {
            true => End::Lost(why, wait),
            false => End::Refused(anyhow!(why)),
        }
    }

    async fn read(&mut self, response: Response<Incoming>) -> End {
        if self.opened || self.options.verbose {
            let place =
                if self.id.is_empty() { String::new() } else { format!(", resuming after {}", self.id) };
            let again = if self.opened { " again" } else { "" };
            self.say(&format!("connected{again} over {:?}{place}", response.version()));
        }
        (self.opened, self.failures) = (true, 0);
        let mut decoder = Decoder::new(&self.id, MOST);
        let mut body = response.into_body();
        loop {
            let frame = match body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    return End::Lost(format!("the connection is lost ({})", cause(&error)), None);
                }
                None => return End::Lost("the stream ended".to_owned(), None),
            };
            let mut items = Vec::new();
            let fed = decoder.feed(frame.data_ref().map_or(&[], |data| data), |item| items.push(item));
            let outcome = self.take(items);
            if let Some(id) = decoder.last_id() {
                id.clone_into(&mut self.id);
            }
            match (outcome, fed) {
                (Ok(true), Ok(())) => {}
                (Ok(false), _) => return End::Over,
                (Err(error), _) if error.kind() == io::ErrorKind::BrokenPipe => return End::Over,
                (Err(error), _) => return End::Refused(anyhow!("cannot write: {error}")),
                (_, Err(large)) => return End::Refused(large.into()),
            }
        }
    }

    /// Prints what has come, and whether more is wanted.
    fn take(&mut self, items: Vec<Item>) -> io::Result<bool> {
        let mut out = String::new();
        for item in items {
            match item {
                Item::Retry(after) => self.retry = after.max(SHORTEST),
                Item::Event(event) => self.event(&mut out, &event),
                Item::Comment(_) | Item::TooLarge(_) => {}
            }
            if self.options.count.is_some_and(|most| self.count >= most) {
                break;
            }
        }
        if !out.is_empty() {
            let mut stdout = io::stdout().lock();
            stdout.write_all(out.as_bytes())?;
            stdout.flush()?;
        }
        Ok(self.options.count.is_none_or(|most| self.count < most))
    }

    fn event(&mut self, out: &mut String, event: &Event) {
        let name = event.name.as_deref().unwrap_or("message");
        let Some(control) = name.strip_prefix(&self.options.control_prefix) else {
            if self.options.events.is_empty() || self.options.events.iter().any(|wanted| wanted == name) {
                self.look.event(out, SystemTime::now(), event);
                self.count += 1;
            }
            return;
        };
        match control {
            "gap" => self.warn(&gap::words(&event.data)),
            "position" if self.options.verbose => self.say(&format!("the position is {}", event.id)),
            "position" => return,
            _ => self.say(&format!("{name}: {}", event.data)),
        }
        if self.look.form == Form::Json {
            self.look.event(out, SystemTime::now(), event);
        }
    }

    fn warn(&self, text: &str) {
        let (yellow, end) = if self.stderr_colours() { ("\x1b[33m", "\x1b[0m") } else { ("", "") };
        // Nobody has to be there to read it.
        let _ = writeln!(io::stderr(), "{yellow}{text}{end}");
    }

    fn say(&self, text: &str) {
        let (dim, end) = if self.stderr_colours() { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        let _ = writeln!(io::stderr(), "{dim}{}{end}", plain(text));
    }

    fn stderr_colours(&self) -> bool {
        coloured(&self.options, io::stderr().is_terminal())
    }
}

/// <https://no-color.org>
fn coloured(options: &Options, terminal: bool) -> bool {
    terminal && !options.no_color && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

fn content_type(response: &Response<Incoming>) -> anyhow::Result<()> {
    let value =
        response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    match essence.eq_ignore_ascii_case("text/event-stream") {
        true => Ok(()),
        false if essence.is_empty() => Err(anyhow!("this is no event stream: it does not say what it is")),
        false => Err(anyhow!("this is no event stream: it is {}", plain(essence))),
    }
}

/// What an answer says of itself: the detail of RFC 9457, or a short text.
async fn problem(response: Response<Incoming>) -> String {
    let body = Limited::new(response.into_body(), PROBLEM).collect();
    let Ok(Ok(body)) = tokio::time::timeout(PROBLEM_TIME, body).await else { return String::new() };
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let detail = serde_json::from_str::<serde_json::Value>(&body).ok();
    let detail = detail.and_then(|problem| Some(problem.get("detail")?.as_str()?.to_owned()));
    let line = detail.or_else(|| Some(body.lines().next()?.to_owned()).filter(|line| line.len() <= 200));
    line.filter(|line| !line.trim().is_empty()).map(|line| format!(": {}", plain(&line))).unwrap_or_default()
}

/// RFC 9110 section 10.2.3; a date is not looked at.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

/// What WHATWG HTML 9.2.2 calls "a few seconds".
const RETRY: Duration = Duration::from_secs(3);
const LONGEST: Duration = Duration::from_secs(60);
/// Whatever a server asks for: one that ends each stream at once is not asked in a loop.
const SHORTEST: Duration = Duration::from_millis(10);
/// Bytes of an event; servers of this kind send 64 MiB at most.
const MOST: usize = 128 << 20;
const PROBLEM: usize = 64 << 10;
const PROBLEM_TIME: Duration = Duration::from_secs(5);
