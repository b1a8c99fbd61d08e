//! The demo's page, and the two things that its buttons ask for: to publish to a room, and to cut streams. They
//! stand where no route does; the product itself has neither.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use serde_json::json;

use super::streams::Shown;
use crate::app::App;
use crate::http::{Body, Fallback, Problem, Streams, built_in};
use crate::upstream::Push;

/// The page, once the app runs that it is about.
#[derive(Default)]
pub(super) struct Page(OnceLock<Live>);

/// The page's text, and what its buttons act on.
struct Live {
    html: Bytes,
    streams: Arc<Streams>,
    push: Arc<Push>,
}

impl Page {
    /// From now on the page shows these streams of `app`, or tells why there are none of Redis.
    pub(super) fn open(&self, app: &App, shown: &[&Shown], no_redis: Option<&anyhow::Error>) {
        let known = json!({
            "streams": shown.iter().map(|shown| shown.to_json()).collect::<Vec<_>>(),
            "admin": app.admin_addr().map(|addr| format!("http://{addr}")),
            "noRedis": no_redis.map(|why| format!("{why:#}")),
        });
        // Within a script element only `<` could end the text.
        let known = known.to_string().replace('<', "\\u003c");
        let html = HTML.replace("{{known}}", &known).into();
        let (streams, push) = (Arc::clone(app.streams()), Arc::clone(app.push()));
        self.0.get_or_init(|| Live { html, streams, push });
    }

    /// What answers requests that no route has.
    pub(super) fn fallback(self: &Arc<Self>) -> Fallback {
        let page = Arc::clone(self);
        Box::new(move |request, client| page.answer(request, client))
    }

    fn answer(&self, request: &Request<Incoming>, client: SocketAddr) -> Option<Response<Body>> {
        let live = self.0.get()?;
        let answer = match request.uri().path() {
            "/" => read(request, "text/html; charset=utf-8", live.html.clone()),
            "/demo.css" => read(request, "text/css; charset=utf-8", [built_in::STYLE, CSS].concat().into()),
            "/demo.js" => read(request, "text/javascript; charset=utf-8", JS.into()),
            "/say" => act(request, || live.say(request)),
            "/cut" => act(request, || Ok(live.cut(request, client))),
            _ => return None,
        };
        Some(answer.unwrap_or_else(Problem::response))
    }
}

impl Live {
    /// Publishes `text` to `room`; the number of feeds that it reached.
    fn say(&self, request: &Request<Incoming>) -> Result<usize, Problem> {
        let missing = Problem::BadRequest("Name a room and a text: POST /say?room=lobby&text=hello.");
        let (room, text) = parameter(request, "room").zip(parameter(request, "text")).ok_or(missing)?;
        self.push.publish(&room, None, text.as_bytes()).ok_or(Problem::NoPush)
    }

    /// Cuts the streams of `route`, or of all routes, that the client's connection carries; where it carries
    /// none, as with HTTP/1.1, those of its address. The number of those that were cut.
    fn cut(&self, request: &Request<Incoming>, client: SocketAddr) -> usize {
        let route = parameter(request, "route");
        let chosen = |path: &str| route.as_ref().is_none_or(|route| route == path);
        let cut =
            self.streams.cut(|stream| stream.client.addr == client && chosen(&stream.route.config.path));
        if cut > 0 {
            return cut;
        }
        let near = |addr: SocketAddr| addr.ip() == client.ip();
        self.streams.cut(|stream| near(stream.client.addr) && chosen(&stream.route.config.path))
    }
}

fn parameter<'r>(request: &'r Request<Incoming>, name: &str) -> Option<Cow<'r, str>> {
    let mut pairs = form_urlencoded::parse(request.uri().query()?.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Answers who reads with something that is part of a page.
pub(in super::super) fn read(
    request: &Request<Incoming>,
    content_type: &'static str,
    content: Bytes,
) -> Result<Response<Body>, Problem> {
    match *request.method() {
        Method::GET | Method::HEAD => Ok(built_in::part(content_type, content)),
        _ => Err(Problem::Method("GET, HEAD")),
    }
}

/// Does what a button asks for, and answers with its number.
fn act(
    request: &Request<Incoming>,
    act: impl FnOnce() -> Result<usize, Problem>,
) -> Result<Response<Body>, Problem> {
    if request.method() != Method::POST {
        return Err(Problem::Method("POST"));
    }
    // Another site's page could post here, too; browsers say where a request comes from.
    let from = request.headers().get("sec-fetch-site");
    if from.is_some_and(|from| from != "same-origin") {
        return Err(Problem::BadRequest("Only the demo's own page may ask for this."));
    }
    Ok(built_in::part("application/json", format!("{}\n", act()?)))
}

const HTML: &str = include_str!("page.html");
const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");
