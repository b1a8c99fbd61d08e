//! Several feeds on one connection. A request names them by their paths, and each is found, and decided on, as a request for
//! it alone would be: nobody reads by this way what its own route would not give him. Credentials are looked at once for all of
//! them. A feed that is not given is told of on the stream, which goes on with the others.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response};
use serde_json::json;
use tokio::time::Instant;

use super::Edge;
use super::accept::{self, Form};
use super::answer::{Visit, asks_to_probe, dress, head, in_query, methods, options, wish};
use super::body::Body;
use super::cors;
use super::filters;
use super::guard::{self, Tries};
use super::lease::Guarded;
use super::limits::Place;
use super::problem::Problem;
use super::router::{Found, Miss, Route};
use super::shed::Why;
use super::site::Site;
use super::stream::{Decision, EventStream, Written};
use super::streams::{Control, End};
use super::supervise::Slot;
use super::traced::Traced;
use crate::auth::{self, Admitted, Asked, Grant, Refusal, Shown, Verdict};
use crate::config;
use crate::hub::{self, Merged, Opens, Part, Reader, Reserved, Tell, Wish, Wishes};

/// The feeds that a request asks for, and what it has shown.
struct Several {
    /// Those that are there, and that it may read as far as is known.
    chosen: Vec<Chosen>,
    refused: Vec<Refused>,
    shown: Shown,
}

/// A feed that a request asks for.
struct Chosen {
    /// Its path as the request names it.
    label: Arc<str>,
    route: Arc<Route>,
    opens: Opens,
    /// Whether what browsers send by themselves counts for it: cookies, and certificates.
    trusts_browser: bool,
    /// Whether it is decided that it may read it.
    is_allowed: bool,
    /// What lets it in, once that is decided and where something has to.
    grant: Option<Arc<Grant>>,
}

/// A feed that it is not given.
struct Refused {
    label: Arc<str>,
    why: No,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum No {
    /// What its own path would be answered with.
    Problem(Problem),
    /// There is no room for one more reader of it.
    Room(Why),
}

/// What came of deciding.
#[derive(Default)]
struct Decided {
    /// Cookies with which it comes back.
    cookies: Vec<HeaderValue>,
    /// Whether there is a feed on which it cannot be decided yet.
    is_undecided: bool,
    /// Whether more tickets were used lately than are remembered.
    is_full: bool,
}

impl Visit {
    /// The answer of a route that gives the feeds of others.
    pub(super) async fn answer_multi(&self, route: &Arc<Route>, request: &Request<()>) -> Response<Body> {
        let form = accept::agree_on_stream(request.headers());
        let mut response = match (request.method(), form) {
            (&Method::OPTIONS, _) => options(route),
            (&Method::GET | &Method::HEAD, None) => Problem::OfOne.response(),
            (&Method::GET | &Method::HEAD, _) if route.config.ended => guard::no_content(),
            (&Method::GET, _) if asks_to_probe(request) => Problem::OfOne.response(),
            (&Method::GET | &Method::HEAD, Some(form)) => self.several(route, form, request).await,
            (&Method::POST, _) if route.is_guarded() && in_query(request, "renew").is_some() => {
                let link = in_query(request, "renew").unwrap_or_default();
                self.renew_several(route, &link, request).await
            }
            _ => Problem::Method(methods(route)).response(),
        };
        dress(&mut response, route, request);
        response
    }

    async fn several(&self, route: &Arc<Route>, form: Form, request: &Request<()>) -> Response<Body> {
        if let Some(answer) = self.sends_away(route, form, request) {
            return answer;
        }
        let most = route.config.multi.as_ref().map_or(0, |multi| multi.max);
        let (wish, labels) = match (wish(request), labels(request.uri().query().unwrap_or_default(), most)) {
            (Ok(wish), Ok(labels)) => (wish, labels),
            (Err(problem), _) | (_, Err(problem)) => return problem.response(),
        };
        let mut several = self.choose(route, labels, request);
        let span = self.trace.as_ref().map(|trace| trace.span("authorize"));
        let decided = several.decide(&self.site, Believed::Configured).await;
        if let Some(mut span) = span {
            span.text("ssegate.auth.outcome", decided.outcome(&several));
        }
        let cookies = decided.cookies.clone();
        let mut response = self.give((route, form), request, (several, decided), wish);
        for cookie in cookies {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }

    /// Finds the feeds that a request names, of those that the route gives.
    fn choose(
        &self,
        route: &Arc<Route>,
        labels: impl IntoIterator<Item = Arc<str>>,
        request: &Request<()>,
    ) -> Several {
        let shown = Shown::by(self.asked_of(route.door(), request));
        let mut several = Several { chosen: Vec::new(), refused: Vec::new(), shown };
        for label in labels {
            match self.find(route, &label, several.shown.request()) {
                Ok((route, opens, _))
                    if several.chosen.iter().any(|feed| feed.is(&label, (&route, &opens))) =>
                {
                    several.refused.push(Refused { label, why: No::Problem(Problem::BadRequest(TWICE)) });
                }
                Ok((route, opens, trusts_browser)) => {
                    let (is_allowed, grant) = (false, None);
                    several.chosen.push(Chosen { label, route, opens, trusts_browser, is_allowed, grant });
                }
                Err(problem) => several.refused.push(Refused { label, why: No::Problem(problem) }),
            }
        }
        several
    }

    /// The route of a feed, what it opens, and whether what browsers send by themselves counts for it.
    fn find(
        &self,
        route: &Arc<Route>,
        label: &str,
        request: &Asked,
    ) -> Result<(Arc<Route>, Opens, bool), Problem> {
        if auth::as_sent(label).is_none_or(|sent| sent != label) {
            return Err(Problem::BadRequest(NO_PATH));
        }
        let (own, feed) = match self.site.router.find(&request.host, label) {
            Some(Found::Route(own, feed)) if route.gives(own) => (own, feed),
            _ => return Err(Problem::NoRoute),
        };
        let opens = feed.map_err(|miss| match miss {
            Miss::Unmatched => Problem::NoRoute,
            Miss::BadParameter => Problem::BadParameter,
        })?;
        if own.config.ended {
            return Err(Problem::Over);
        }
        let (cors, to) = (own.config.cors.as_ref(), (Some(&*request.authority), request.secure));
        if !cors::may_read(cors, &request.headers, to) {
            return Err(Problem::Forbidden);
        }
        // Where they may come along, the browser has its answer read by the page.
        let listed = cors::may_use_cookies(cors.filter(|cors| cors.credentials), &request.headers, to);
        Ok((Arc::clone(own), opens, listed && request.origin_is_listed))
    }

    /// The stream of what a request is let in to, or the answer where that is nothing.
    fn give(
        &self,
        (route, form): (&Arc<Route>, Form),
        request: &Request<()>,
        (several, decided): (Several, Decided),
        wish: Wish,
    ) -> Response<Body> {
        if decided.is_full {
            return self.shed(route, form, request, Why::Tickets);
        }
        if several.chosen.is_empty() {
            return self.give_nothing(route, form, request, &several.refused);
        }
        if *request.method() == Method::HEAD {
            return head(route, form, None, Bytes::new().into());
        }
        if decided.is_undecided && form != Form::Events {
            return Problem::Undecided.response();
        }
        let client = self.client(request);
        let place = match route.kept.places.take(client.addr.ip().into()) {
            Ok(place) => place,
            Err(why) => return self.shed(route, form, request, why),
        };
        let written = if form == Form::Events { Written::Events(None) } else { Written::Lines };
        let traced = self.trace.as_ref().map(|trace| Traced::new(trace, &wish));
        let open = |client| {
            let mut registered = self.edge.streams.open(route, client, Some(place), Slot::current());
            traced.into_iter().for_each(|traced| registered.trace(traced));
            registered
        };
        if decided.is_undecided {
            let Some(held) = Held::new(&self.edge, (&self.site, route), several, wish) else {
                return self.shed(route, form, request, Why::Held);
            };
            let registered = open(client);
            let decision = settle(&self.edge, &registered.control, held);
            return head(route, form, None, EventStream::held(Some(decision), registered, written).into());
        }
        match several.subscribe(&self.edge, client.addr.ip(), wish, route) {
            Err(refused) => self.give_nothing(route, form, request, &refused),
            Ok(Opened { reader, places, guarded }) => {
                let mut registered = open(client);
                registered.takes(places);
                lease(&self.edge, &registered.control, request.uri().path(), guarded);
                head(route, form, None, EventStream::new(reader, registered, written).into())
            }
        }
    }

    /// The answer where every feed is refused. What time or another credential may mend goes before what nothing will.
    fn give_nothing(
        &self,
        route: &Route,
        form: Form,
        request: &Request<()>,
        refused: &[Refused],
    ) -> Response<Body> {
        let lacks_room = refused.iter().find_map(|refused| match refused.why {
            No::Room(why) => Some(why),
            No::Problem(_) => None,
        });
        if let Some(why) = lacks_room {
            return self.shed(route, form, request, why);
        }
        let problems = || refused.iter().map(Refused::problem);
        let asks = |problem: &Problem| matches!(problem, Problem::NoCredential | Problem::BadCredential);
        match problems().find(asks).or_else(|| problems().next()) {
            Some(Problem::Over) => guard::no_content(),
            Some(problem) => problem.response(),
            None => Problem::BadRequest(NO_FEED).response(),
        }
    }

    /// `POST` with a stream's renewal link: the credentials that it brings take the place of those before, in all of its feeds.
    async fn renew_several(&self, route: &Arc<Route>, link: &str, request: &Request<()>) -> Response<Body> {
        let Some(control) = self.edge.streams.renewable(link, request.uri().path()) else {
            return Problem::NoStream.response();
        };
        let before = control.lease.lock().as_ref().map(|lease| lease.feeds.clone()).unwrap_or_default();
        let mut several = self.choose(route, before.iter().map(|feed| Arc::clone(&feed.label)), request);
        let decided = several.decide(&self.site, Believed::Fresh).await;
        if let Some(refused) = several.refused.first() {
            return refused.problem().response();
        }
        if decided.is_undecided {
            return Problem::Undecided.response();
        }
        let guarded: Vec<_> = several.chosen.iter().filter_map(Chosen::guarded).collect();
        if guarded.is_empty() || !guarded.iter().all(|feed| feed.is_known(&before)) {
            // Each feed stays whose it is: what the stream has read of may not be for others, nor what its filter lets pass.
            return Problem::Forbidden.response();
        }
        lease(&self.edge, &control, request.uri().path(), guarded.clone());
        if several.chosen.iter().any(|feed| feed.filters_otherwise(&before)) {
            // It was given what the former said. Its client comes back, and is given what the latter does.
            self.edge.streams.deadlines.end(&control, End::Claims);
        }
        let expires = guarded.iter().filter_map(|feed| feed.grant.expires).min();
        let expires = expires.map(|at| humantime::format_rfc3339_seconds(at).to_string());
        let mut response = guard::answer(&json!({ "expires": expires }));
        // The one that the browser would come back with ends when the stream would have.
        let (auth, names) = (&self.site.auth, &route.config.auth);
        let cookie = guarded.iter().find_map(|feed| auth.cookie(names, &feed.grant, several.shown.request()));
        cookie.map(|cookie| response.headers_mut().append(header::SET_COOKIE, cookie));
        response
    }
}

/// Whom the routes of feeds believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Believed {
    /// The providers that they name.
    Configured,
    /// Those who can renew what these have believed: see [`crate::auth::Auth::renewing`].
    Fresh,
}

impl Several {
    /// Decides on each feed as its own route does, unless that was done before: of many, what is slow may leave time for some
    /// alone.
    async fn decide(&mut self, site: &Site, believed: Believed) -> Decided {
        let (mut decided, began) = (Decided::default(), Instant::now());
        let mut asked = as_for_one(self.shown.request());
        for mut feed in std::mem::take(&mut self.chosen) {
            if feed.is_allowed {
                self.chosen.push(feed);
                continue;
            }
            if feed.route.is_guarded() && began.elapsed() > LONG {
                decided.is_undecided = true;
                self.chosen.push(feed);
                continue;
            }
            let admitted = match feed.verdict(site, believed, (&mut asked, &mut self.shown)).await {
                Verdict::Allowed(admitted) => {
                    feed.is_allowed = true;
                    admitted
                }
                Verdict::Undecided(admitted) => {
                    decided.is_undecided = true;
                    admitted
                }
                Verdict::Refused(why) => {
                    decided.is_full |= why == Refusal::Full;
                    let why = No::Problem(guard::problem(why));
                    self.refused.push(Refused { label: feed.label, why });
                    continue;
                }
            };
            decided.cookies.extend(admitted.cookie.filter(|cookie| !decided.cookies.contains(cookie)));
            feed.grant = admitted.grant;
            self.chosen.push(feed);
        }
        decided
    }

    /// Bytes that its feeds take beside what lets it in to them.
    fn size(&self) -> usize {
        let chosen = self.chosen.iter().map(|feed| feed.label.len() + guard::more_sources(&feed.opens));
        let refused = self.refused.iter().map(|refused| refused.label.len());
        chosen.chain(refused).map(|size| FEED + size).sum()
    }

    /// And those of what does, which several may have in common.
    fn grants_size(&self) -> usize {
        let mut grants: Vec<_> = self.chosen.iter().filter_map(|feed| feed.grant.as_ref()).collect();
        grants.sort_by_key(|grant| Arc::as_ptr(grant));
        grants.dedup_by_key(|grant| Arc::as_ptr(grant));
        grants.iter().map(|grant| grant.size()).sum()
    }

    /// Opens the feeds as far as there is room, for a client with this wish.
    ///
    /// # Errors
    /// All that it is refused, where it is given nothing.
    fn subscribe(
        self,
        edge: &Edge,
        client: IpAddr,
        wish: Wish,
        route: &Route,
    ) -> Result<Opened, Vec<Refused>> {
        let Self { chosen, mut refused, shown } = self;
        let (wishes, mut parts, mut places) = (Wishes::new(wish), Vec::new(), Vec::new());
        let mut guarded = Vec::new();
        for feed in chosen {
            let lets_in = feed.guarded();
            let Chosen { label, route, opens, grant, .. } = feed;
            let filter = match filters::bind(&route, &opens, &shown.request().query, grant.as_deref()) {
                Ok(filter) => filter,
                Err(problem) => {
                    refused.push(Refused { label, why: No::Problem(problem) });
                    continue;
                }
            };
            let opened = route.kept.places.take(client.into()).and_then(|place| {
                let wish = Wish { filter, ..wishes.of(&label) };
                let resumes = wish.id.clone();
                let (policy, terms) = (route.policy(), Arc::clone(&route.terms));
                let reader = edge.hub.subscribe_within(&route.kept.quota, opens, &policy, wish, terms);
                let reader = reader.ok_or(Why::Feeds)?;
                Ok((Part { label: Arc::clone(&label), reader, resumes }, place))
            });
            match opened {
                Ok((part, place)) => {
                    parts.push(part);
                    places.push(place);
                    guarded.extend(lets_in);
                }
                Err(why) => {
                    route.metrics.shed(why.as_str());
                    refused.push(Refused { label, why: No::Room(why) });
                }
            }
        }
        if parts.is_empty() {
            return Err(refused);
        }
        let tell = match route.config.multi.as_ref().map(|multi| multi.tell) {
            Some(config::Tell::Envelope) => Tell::Envelope,
            Some(config::Tell::Event) | None => Tell::Event,
        };
        let told = refused.iter().map(|refused| refused.told(wishes.of(&refused.label).id)).collect();
        let merged = Merged::new(parts, tell, route.control_prefix().into(), told);
        Ok(Opened { reader: Reader::Many(Box::new(merged)), places, guarded })
    }
}

/// What is given of several feeds.
struct Opened {
    reader: Reader,
    /// The places that it takes of their routes.
    places: Vec<Place>,
    /// Those that are not for everybody: what the stream lasts as long as.
    guarded: Vec<Guarded>,
}

impl Chosen {
    /// Whether it is the one of this label, however that is spelled. Parameters may make another of it that opens the same.
    fn is(&self, label: &str, (route, opens): (&Arc<Route>, &Opens)) -> bool {
        let decoded = percent_encoding::percent_decode_str;
        Arc::ptr_eq(&self.route, route) && self.opens == *opens && decoded(&self.label).eq(decoded(label))
    }

    /// With what its client is let in, where something has to do that.
    fn guarded(&self) -> Option<Guarded> {
        let grant = Arc::clone(self.grant.as_ref()?);
        Some(Guarded { label: Arc::clone(&self.label), grant })
    }

    /// Whether its filter is another one by what lets it in now than by what did before.
    fn filters_otherwise(&self, before: &[Guarded]) -> bool {
        let Some(grant) = &self.grant else { return false };
        let mut before = before.iter().filter(|before| before.label == self.label);
        before.any(|before| self.route.filters_otherwise(&before.grant.claims, &grant.claims))
    }

    async fn verdict(
        &self,
        site: &Site,
        believed: Believed,
        (asked, shown): (&mut Asked, &mut Shown),
    ) -> Verdict {
        let (route, config) = (&self.route, &self.route.config);
        if !route.is_guarded() {
            return Verdict::Allowed(Admitted::default());
        }
        asked.path = self.label.to_string();
        asked.params = site.router.params(&asked.host, &self.label);
        asked.origin_is_listed = self.trusts_browser;
        asked.certificate = shown.request().certificate.clone().filter(|_| self.trusts_browser);
        let fresh;
        let providers = match believed {
            Believed::Configured => &config.auth,
            Believed::Fresh => {
                fresh = site.auth.renewing(&config.auth);
                &fresh
            }
        };
        site.auth.decide_too(&route.name, providers, config.allow.as_ref(), (asked, shown)).await
    }
}

impl Refused {
    fn problem(&self) -> Problem {
        match self.why {
            No::Problem(problem) => problem,
            No::Room(why) => why.problem(),
        }
    }

    /// As the stream tells it, of a client that wishes to go on there.
    fn told(&self, resumes: Option<String>) -> hub::Refused {
        let (status, kind, detail) = self.problem().told();
        let (label, status) = (Arc::clone(&self.label), Some(status.as_u16()));
        hub::Refused { label, status, kind: kind.into(), detail, resumes }
    }
}

impl Decided {
    /// In a word, for traces.
    fn outcome(&self, several: &Several) -> &'static str {
        match (self.is_undecided, several.chosen.is_empty(), several.refused.is_empty()) {
            (true, ..) => "undecided",
            (_, true, _) => "refused",
            (_, _, true) => "allowed",
            _ => "partly",
        }
    }
}

/// The stream lasts as long as all that lets its client in.
fn lease(edge: &Edge, control: &Arc<Control>, path: &str, guarded: Vec<Guarded>) {
    // Each once.
    let mut grants: Vec<Arc<Grant>> = Vec::new();
    for Guarded { grant, .. } in &guarded {
        if !grants.contains(grant) {
            grants.push(Arc::clone(grant));
        }
    }
    if !grants.is_empty() {
        control.lease.lock().get_or_insert_default().feeds = guarded;
        guard::lease(edge, control, path, &grants);
    }
}

/// What is kept of a request that cannot be decided on yet, with the room that it takes.
struct Held {
    site: Arc<Site>,
    several: Several,
    wish: Wish,
    /// Bytes that it takes beside the grants.
    size: usize,
    room: Reserved,
}

impl Held {
    /// `None` where there is no room for one more: whoever waits has proven nothing.
    fn new(edge: &Edge, (site, route): (&Arc<Site>, &Route), several: Several, wish: Wish) -> Option<Self> {
        let several = Several { shown: several.shown.kept(&route.reads), ..several };
        let size = guard::room(several.shown.request(), &wish) + several.size();
        let room = edge.held.reserve(size + several.grants_size())?;
        Some(Self { site: Arc::clone(site), several, wish, size, room })
    }
}

/// Decides on a stream that is open already, as soon as that can be done on all of its feeds.
fn settle(edge: &Arc<Edge>, control: &Arc<Control>, held: Held) -> Decision {
    let (edge, control) = (Arc::clone(edge), Arc::clone(control));
    Box::pin(async move {
        // As a whole: of what is only named in parts, the room would stay behind.
        let Held { site, mut several, wish, size, mut room } = held;
        let mut tries = Tries::new(&site, &control);
        while tries.next().await {
            // Boxed, so that it takes room only while it is asked.
            let decided = Box::pin(several.decide(&site, Believed::Configured)).await;
            if several.chosen.is_empty() {
                return Err(End::Refused);
            }
            if decided.is_undecided {
                several.shown.forget();
                room.set(size + several.grants_size());
                continue;
            }
            let path = several.shown.request().path.clone();
            let opened = several.subscribe(&edge, control.client.addr.ip(), wish, &control.route);
            let lacks_room = |refused: &Refused| matches!(refused.why, No::Room(_));
            let why =
                |refused: Vec<_>| if refused.iter().any(lacks_room) { End::NoRoom } else { End::Refused };
            let Opened { reader, places, guarded } = opened.map_err(why)?;
            lease(&edge, &control, &path, guarded);
            return Ok((reader, places));
        }
        Err(End::Undecided)
    })
}

/// The feeds that a query asks for, each once.
fn labels(query: &str, most: usize) -> Result<Vec<Arc<str>>, Problem> {
    let mut labels: Vec<Arc<str>> = Vec::new();
    for (_, label) in form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == FEED_KEY) {
        if labels.iter().any(|known| **known == *label) {
            continue;
        }
        if labels.len() == most {
            return Err(Problem::TooManyFeeds(most));
        }
        labels.push(label.into());
    }
    if labels.is_empty() { Err(Problem::BadRequest(NO_FEED)) } else { Ok(labels) }
}

/// The request as if it were for one feed; for which one is still to be said.
fn as_for_one(request: &Asked) -> Asked {
    let name = |pair: &str| form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name.into_owned());
    let others = request.query.split('&').filter(|pair| name(pair).is_none_or(|name| name != FEED_KEY));
    Asked { query: others.collect::<Vec<_>>().join("&"), ..request.clone() }
}

/// The parameter of the query that names a feed.
const FEED_KEY: &str = "feed";

const NO_FEED: &str = "Name the feeds to read by their paths, one or more: ?feed=/its/path&feed=/another.";
const TWICE: &str = "This is a feed that the request has named before, in another spelling; name each once.";
const NO_PATH: &str =
    "A feed is a path as it stands in its URL: it begins with `/`, is percent-encoded, and has no query.";

/// How long a client waits for its head while endpoints are slow to decide on one feed after the other.
const LONG: Duration = Duration::from_secs(10);

/// Bytes that a feed of a held stream takes beside its path.
const FEED: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::testing::asked;

    #[test]
    fn feeds_are_named_once_each_and_decoded_once() {
        let read = |query: &str, most| labels(query, most).map(|labels| labels.join(" "));
        assert_eq!(read("feed=/a&x=1&feed=%2Fb%252F&f%65ed=/c&feed=/a", 3).unwrap(), "/a /b%2F /c");
        for (query, most) in [("", 3), ("feeds=/a", 3)] {
            assert!(matches!(read(query, most), Err(Problem::BadRequest(_))), "{query}");
        }
        let refused = read("feed=/a&feed=/b&feed=/c", 2).unwrap_err();
        assert!(refused.told().2.contains("on one connection, which are 2;"), "{refused:?}");
        assert_eq!(read("feed=&feed", 1).unwrap(), "", "an empty name is one, which no route has");
    }

    #[test]
    fn what_is_asked_of_a_feed_does_not_name_others() {
        for (query, left) in
            [("feed=/a&token=x%26y&f%65ed=/b", "token=x%26y"), ("", ""), ("a&feed&b=feed", "a&b=feed")]
        {
            assert_eq!(as_for_one(&asked(&[], query)).query, left);
        }
    }
}
