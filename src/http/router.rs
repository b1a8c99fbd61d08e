//! From host and path to a route, and from a route and its parameters to the feed it opens; or to an application.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use tokio::sync::watch;

use super::app::{App, Asked};
use super::guard::Door;
use super::limits::{Places, Said};
use super::shed::Why;
use super::streams::End;
use crate::config::{self, Brought, Config, Field, Reads, Template};
use crate::hub::{Binding, Bounds, FeedKey, Opens, Policy, Quota, Rows, Source, Terms};
use crate::metrics::{Metrics, RouteMetrics};
use crate::schema::{Decoder, Registries};
use crate::shape::{Member, Shape, Wrap};

const SOUND: &str = "the configuration has neither bad nor ambiguous paths";

/// The most bytes that a path parameter may have once decoded.
const PARAM: usize = 256;

/// Every route, by host and path.
pub struct Router {
    hosts: HashMap<Arc<str>, Paths>,
    any_host: Paths,
    routes: Vec<Arc<Route>>,
    apps: Vec<Arc<App>>,
    /// Each request that an application is to answer, also of a configuration before this one, listens.
    asked: watch::Sender<()>,
}

/// The paths of a host, or of any.
#[derive(Default)]
struct Paths {
    all: matchit::Router<Target>,
    /// Those of applications once more, for what no stream has.
    apps: matchit::Router<Arc<App>>,
}

/// What has a path.
#[derive(Clone)]
enum Target {
    Route(Arc<Route>),
    App(Arc<App>),
    /// An application, to a path that it has as a rest.
    Rest(Arc<App>),
}

/// What answers a request.
#[expect(clippy::large_enum_variant, reason = "there is one for a request, and nothing keeps it")]
pub enum Found<'r> {
    /// A route, and the feed that it opens.
    Route(&'r Arc<Route>, Result<Opens, Miss>),
    /// An application.
    App(&'r Arc<App>),
}

/// A route while it is served.
pub struct Route {
    /// Its configuration.
    pub config: config::Route,
    /// Host and path as configured, which is how logs and metrics call it.
    pub name: String,
    /// What is counted for it.
    pub metrics: RouteMetrics,
    /// What stays through reloads.
    pub kept: Arc<Kept>,
    /// What of a request decides whether it is let in.
    pub reads: Reads,
    /// What it grants subscribers.
    pub terms: Arc<Terms>,
    /// The kind of its upstream, as the configuration calls it.
    pub system: &'static str,
    /// The most bytes that what it reads may have in its name.
    longest_name: usize,
    shape: Shape,
}

/// What a route has for as long as it reads the same, whatever else of it changes. So it also tells one route from another.
pub struct Kept {
    /// Its open streams.
    pub places: Arc<Places>,
    /// Its feeds, where they depend on the path.
    pub quota: Arc<Quota>,
    /// That filters of its clients cannot tell.
    pub said: Said,
    over: AtomicBool,
}

impl Kept {
    /// Whether no configuration has the route any more.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// No configuration has the route any more: streams that come too late are sent away.
    pub fn ends(&self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

impl Found<'_> {
    /// Who is let in to it.
    pub(super) fn door(&self) -> Door<'_> {
        match self {
            Self::Route(route, _) => route.door(),
            Self::App(app) => app.door(),
        }
    }
}

/// Why there is no feed for a path that has a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// A parameter does not match the route's pattern.
    Unmatched,
    /// A parameter is too long, not UTF-8, empty or holds control characters.
    BadParameter,
}

impl Router {
    /// The routes of a configuration, in which no two are the same or ambiguous, with schema registries of their own. Its
    /// applications share so many connections to them, if they want more.
    pub fn new(config: &Config, metrics: &Arc<Metrics>, to_applications: usize) -> Self {
        let registries = Registries::default();
        registries.follow(config);
        Self::following(None, config, metrics, to_applications, &registries)
    }

    /// The same with these registries, and where it takes the place of another one: routes go on as those of before that
    /// [`crate::config::continued`] names, and applications that are asked in the same way keep their connections.
    pub fn following(
        before: Option<(&Self, &[Option<usize>])>,
        config: &Config,
        metrics: &Arc<Metrics>,
        to_applications: usize,
        registries: &Registries,
    ) -> Self {
        let known_apps = before.map_or(&[][..], |(before, _)| &before.apps);
        let mut router = Self {
            hosts: HashMap::new(),
            any_host: Paths::default(),
            routes: Vec::new(),
            apps: Vec::new(),
            asked: before.map(|(before, _)| before.asked.clone()).unwrap_or_default(),
        };
        for (at, route) in config.routes.iter().enumerate() {
            let before = before.and_then(|(before, continued)| before.routes.get(continued[at]?));
            let kept = before.map(|before| Arc::clone(&before.kept));
            let route = Arc::new(Route::new(route, config, metrics, kept, registries));
            let paths = router.paths(route.config.host.as_ref());
            paths.all.insert(&*route.config.path, Target::Route(Arc::clone(&route))).expect(SOUND);
            router.routes.push(route);
        }
        let wanted: usize = config.connections_to_applications();
        for proxy in &config.proxies {
            let connections = proxy.to.connections * to_applications.min(wanted) / wanted;
            let terms = Asked {
                proxy: proxy.clone(),
                stall: config.limits.write_stall,
                connections: connections.max(1),
            };
            let known = known_apps.iter().find(|app| *app.asked() == terms).cloned();
            let app = known.unwrap_or_else(|| Arc::new(App::new(terms, &router.asked, metrics)));
            let target = match before_rest(&proxy.path) {
                Some(_) => Target::Rest(Arc::clone(&app)),
                None => Target::App(Arc::clone(&app)),
            };
            let paths = router.paths(proxy.host.as_ref());
            paths.all.insert(&*proxy.path, target).expect(SOUND);
            paths.apps.insert(&*proxy.path, Arc::clone(&app)).expect(SOUND);
            router.apps.push(app);
        }
        // To the router a rest is never empty. Where another has the path without it, that one goes first.
        let apps = router.apps.clone();
        for (proxy, app) in config.proxies.iter().zip(apps) {
            if let Some(before) = before_rest(&proxy.path) {
                let paths = router.paths(proxy.host.as_ref());
                let _ = paths.all.insert(before, Target::Rest(Arc::clone(&app)));
                let _ = paths.apps.insert(before, app);
            }
        }
        router
    }

    fn paths(&mut self, host: Option<&Arc<str>>) -> &mut Paths {
        match host {
            Some(host) => self.hosts.entry(Arc::clone(host)).or_default(),
            None => &mut self.any_host,
        }
    }

    /// Every route, in the order of the file.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Ends once no application answers anybody.
    pub async fn applications_rest(&self) {
        self.asked.closed().await;
    }

    /// What answers for a host (without port) and a path, if anything does. A route that names the host goes before one
    /// that does not; but a rest is what no stream has, on any host or with these parameters.
    pub fn find(&self, host: &str, path: &str) -> Option<Found<'_>> {
        self.resolve(host, path).map(|(found, _)| found)
    }

    fn resolve<'r, 'p>(&'r self, host: &str, path: &'p str) -> Option<(Found<'r>, matchit::Params<'r, 'p>)> {
        let matchit::Match { value, params } = self.at(host, path)?;
        let route = match value {
            Target::App(app) | Target::Rest(app) => return Some((Found::App(app), params)),
            Target::Route(route) => route,
        };
        let feed = route.checked_feed(params.iter());
        if matches!(feed, Err(Miss::Unmatched))
            && let Some(app) = self.on(host).find_map(|paths| paths.apps.at(path).ok())
        {
            return Some((Found::App(app.value), app.params));
        }
        Some((Found::Route(route, feed), params))
    }

    /// The paths of a host, and then those of any. A host is the same in capitals, and with the dot at its end that the root
    /// of all names is (RFC 3986 section 3.2.2).
    fn on<'r>(&'r self, host: &str) -> impl Iterator<Item = &'r Paths> + use<'r> {
        let named = self.hosts.get(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase().as_str());
        named.into_iter().chain([&self.any_host])
    }

    fn at<'r, 'p>(&'r self, host: &str, path: &'p str) -> Option<matchit::Match<'r, 'p, &'r Target>> {
        let mut found = self.on(host).filter_map(|paths| paths.all.at(path).ok());
        let first = found.next()?;
        let other = found.next().filter(|other| matches!(other.value, Target::Route(_)));
        Some(if matches!(first.value, Target::Rest(_)) { other.unwrap_or(first) } else { first })
    }

    /// The parameters of the path, decoded, of the route that [`Self::find`] finds.
    pub fn params(&self, host: &str, path: &str) -> Vec<(String, String)> {
        let Some((_, params)) = self.resolve(host, path) else { return Vec::new() };
        let decoded = |(name, value): (&str, &str)| Some((name.to_owned(), decode(value).ok()?.into_owned()));
        params.iter().filter_map(decoded).collect()
    }
}

impl Route {
    fn new(
        route: &config::Route,
        config: &Config,
        metrics: &Arc<Metrics>,
        kept: Option<Arc<Kept>>,
        registries: &Registries,
    ) -> Self {
        let name = format!("{}{}", route.host.as_deref().unwrap_or_default(), route.path);
        let shape = Shape {
            event: route.event.clone(),
            tombstone: route.tombstone.clone(),
            filter: route.filter.clone(),
            data: route.data.clone(),
            projection: route.projection.clone(),
            wrap: route.wrap.map(|wrap| match (wrap, &route.source) {
                (config::Wrap::CloudEvents, _) => Wrap::CloudEvent(Arc::clone(&route.upstream)),
                (_, config::Source::Topic(_) | config::Source::Keyed { .. }) => Wrap::Envelope("topic"),
                (_, config::Source::Stream(_)) => Wrap::Envelope("stream"),
                _ => Wrap::Envelope("channel"),
            }),
            binary: route.binary,
            // The process's own takes a restart, and the route's may not.
            max_event: route.max_event.unwrap_or(usize::MAX).min(config.limits.max_event),
            control_prefix: Arc::clone(&config.server.control_prefix),
            digest: Arc::clone(&route.digest),
            decode: Decoder::new(&route.decode, registries),
        };
        let kept = kept.unwrap_or_else(|| {
            let quota = Arc::new(Quota::new(route.limits.feeds));
            let (places, said, over) = (Places::new(route.limits), Said::default(), AtomicBool::new(false));
            Arc::new(Kept { places, quota, said, over })
        });
        kept.places.limit(route.limits);
        kept.quota.set_most(route.limits.feeds);
        let mut reads = Reads::of(&config.auth, &route.auth, route.allow.as_ref());
        let by_query = |member: &Member| member.mapping == Brought::Query as usize;
        reads.query |= route.filter.iter().flat_map(|filter| filter.client()).any(by_query);
        route.auth.iter().for_each(|provider| metrics.auth_begins(&name, provider));
        let upstream = config.upstreams.iter().find(|upstream| upstream.name == route.upstream);
        let config::Route { start, replay, on_lag, rate, .. } = *route;
        let terms = Arc::new(Terms { start, replay, on_lag, rate, snapshots: true });
        Self {
            config: route.clone(),
            metrics: metrics.route(&name, End::all().map(End::as_str), Why::all().map(Why::as_str)),
            kept,
            reads,
            terms,
            system: upstream.map_or("", |upstream| upstream.kind.as_str()),
            longest_name: upstream.and_then(|upstream| upstream.kind.longest_name()).unwrap_or(usize::MAX),
            name,
            shape,
        }
    }

    /// The feed of a route whose source and shape have no parameters: held always. `None` for any other.
    pub fn held_feed(&self) -> Option<FeedKey> {
        let in_source = match &self.config.source {
            config::Source::Channel(name)
            | config::Source::Pattern(name)
            | config::Source::ShardChannel(name)
            | config::Source::Topic(name)
            | config::Source::Path(name)
            | config::Source::Stream(name)
            | config::Source::Subject(name)
            | config::Source::Jetstream { subject: Some(name), .. }
            | config::Source::Filter { topic: name, .. } => name.has_params(),
            config::Source::Keyed { topic, .. } => topic.has_params(),
            config::Source::Ticker
            | config::Source::Lines
            | config::Source::Jetstream { subject: None, .. } => false,
            config::Source::Table { values, .. } => values.iter().any(Template::has_params),
            config::Source::Exchange { exchange, routing_key, arguments } => {
                let names = [exchange, routing_key].into_iter();
                names.chain(arguments.iter().map(|(_, value)| value)).any(Template::has_params)
            }
        };
        let names = [&self.config.event, &self.config.tombstone];
        let in_event = names.into_iter().flatten().any(Template::has_params);
        let in_data = self.config.expressions().any(|expression| !expression.params().is_empty());
        (!in_source && !in_event && !in_data && !self.config.ended).then(|| self.feed(&HashMap::new()).feed)
    }

    /// What the names of control events begin with.
    pub fn control_prefix(&self) -> &str {
        &self.shape.control_prefix
    }

    /// Who may read it.
    pub(super) fn door(&self) -> Door<'_> {
        let config::Route { auth, allow, cors, .. } = &self.config;
        let (allow, cors, reads) = (allow.as_ref(), cors.as_ref(), Some(&self.reads));
        Door { name: &self.name, auth, allow, cors, reads, has_pages: false }
    }

    /// Whether not everybody may read it.
    pub fn is_guarded(&self) -> bool {
        self.door().is_guarded()
    }

    /// What it grants to who asks for a page: all that came, since what a page leaves out is not told later, and no snapshot,
    /// which has no ids to go on from where a page is full.
    pub fn page_terms(&self) -> Terms {
        Terms { rate: None, snapshots: false, ..*self.terms }
    }

    /// How its feeds are kept.
    pub fn policy(&self) -> Policy {
        let config::History { events, bytes, age } = self.config.history;
        let bounds = Bounds { events, bytes, age, buffer: self.config.buffer };
        Policy { bounds, linger: self.config.linger, idle_timeout: self.config.idle_timeout }
    }

    /// The feed for these parameters as they stand in the path, unless one of them is not what it must be.
    fn checked_feed<'p>(&self, raw: impl Iterator<Item = (&'p str, &'p str)>) -> Result<Opens, Miss> {
        let mut params = HashMap::new();
        for (name, value) in raw {
            let value = decode(value)?;
            if self.config.params.get(name).is_some_and(|pattern| !pattern.matches(&value)) {
                return Err(Miss::Unmatched);
            }
            if self.config.source.refuses(name, &value) {
                return Err(Miss::BadParameter);
            }
            params.insert(name, value);
        }
        let opens = self.feed(&params);
        // Servers take these for the way to another path.
        if let Source::Path(path) = &opens.feed.source
            && path.split(['/', '?']).any(|part| matches!(part, "." | ".."))
        {
            return Err(Miss::BadParameter);
        }
        // What the upstream would cut off is something else then.
        match opens.feed.source.longest_part() > self.longest_name {
            true => Err(Miss::BadParameter),
            false => Ok(opens),
        }
    }

    fn feed(&self, params: &HashMap<&str, Cow<'_, str>>) -> Opens {
        let param = |field: &Field| match field {
            Field::Param(name) => params.get(&**name).cloned(),
            _ => None,
        };
        let source = match &self.config.source {
            config::Source::Channel(name) => Source::Channel(name.fill(param).into()),
            config::Source::ShardChannel(name) => Source::ShardChannel(name.fill(param).into()),
            config::Source::Topic(name) => Source::Topic(name.fill(param).into()),
            config::Source::Keyed { topic, partitioner, .. } => {
                Source::Keyed(topic.fill(param).into(), *partitioner)
            }
            config::Source::Stream(name) => Source::Stream(name.fill(param).into()),
            config::Source::Pattern(name) => Source::Pattern(
                name.fill(|field| param(field).map(|value| Cow::Owned(escape_glob(&value)))).into(),
            ),
            config::Source::Ticker => Source::Ticker,
            config::Source::Lines => Source::Lines,
            config::Source::Table { table, values } => {
                let values = values.iter().map(|value| value.fill(param).into());
                Source::Table(Rows::new(table, values.collect()))
            }
            config::Source::Exchange { exchange, routing_key, arguments } => {
                let arguments =
                    arguments.iter().map(|(name, value)| (Arc::clone(name), value.fill(param).into()));
                let (exchange, key) = (exchange.fill(param).into(), routing_key.fill(param).into());
                Source::Exchange(Binding::new(exchange, key, arguments.collect()))
            }
            config::Source::Path(path) => Source::Path(
                path.fill(|field| param(field).map(|value| Cow::Owned(percent_encoded(&value)))).into(),
            ),
            config::Source::Subject(subject) => Source::Subject(subject.fill(param).into()),
            config::Source::Jetstream { stream, subject } => {
                let subject = subject.as_ref().map(|subject| subject.fill(param).into());
                Source::Jetstream(Arc::clone(stream), subject)
            }
            config::Source::Filter { topic, qos } => Source::Filter(topic.fill(param).into(), *qos),
        };
        let key = match &self.config.source {
            config::Source::Keyed { key, .. } => Some(key.fill(param).into_bytes().into()),
            _ => None,
        };
        let bound = |name: &Option<Template>| {
            name.as_ref().map(|name| name.bind(|field| param(field).map(Cow::into_owned)))
        };
        let (event, tombstone) = (bound(&self.shape.event), bound(&self.shape.tombstone));
        let value = |name: &str| params.get(name).map(|value| value.clone().into_owned());
        let filter = self.shape.filter.as_ref().map(|filter| filter.bind(value));
        let projection = self.shape.projection.as_ref().map(|projection| projection.bind(value));
        let shape = Shape { event, tombstone, filter, projection, ..self.shape.clone() };
        Opens { feed: FeedKey { upstream: Arc::clone(&self.config.upstream), source, shape }, key }
    }
}

/// What stands before `{*rest}`, in a path that ends with one.
fn before_rest(path: &str) -> Option<&str> {
    path.split_once("{*").map(|(before, _)| before)
}

/// One path segment, percent-decoded.
fn decode(segment: &str) -> Result<Cow<'_, str>, Miss> {
    let value =
        percent_encoding::percent_decode_str(segment).decode_utf8().map_err(|_| Miss::BadParameter)?;
    let fitting = !value.is_empty() && value.len() <= PARAM && !value.chars().any(char::is_control);
    fitting.then_some(value).ok_or(Miss::BadParameter)
}

/// The value as a part of a URL's path or query: nothing in it ends that part (RFC 3986 2.3).
fn percent_encoded(value: &str) -> String {
    const ALL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(value, ALL).to_string()
}

/// The value as a Redis pattern that matches nothing but it.
fn escape_glob(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_bounded() {
        assert_eq!(decode("a%2Fb%C3%A9").unwrap(), "a/bé");
        for bad in ["%00", "%0a", "%ff", "%c0%80", ""] {
            assert_eq!(decode(bad), Err(Miss::BadParameter), "{bad}");
        }
        assert_eq!(decode(&"a".repeat(256)).unwrap().len(), 256);
        assert_eq!(decode(&"a".repeat(257)), Err(Miss::BadParameter));
    }

    /// Where requests go, by the names of routes.
    fn found(router: &Router, host: &str, path: &str) -> String {
        match router.find(host, path) {
            Some(Found::Route(route, Ok(_))) => route.name.clone(),
            Some(Found::Route(_, Err(miss))) => format!("{miss:?}"),
            Some(Found::App(app)) => app.name().to_owned(),
            None => String::new(),
        }
    }

    fn router(routes: &str) -> Router {
        let text =
            format!("server: {{ tls: none }}\nupstreams: {{ t: {{ ticker: {{}} }} }}\nroutes:\n{routes}");
        let config =
            config::parse("c.yaml", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        Router::new(&config, &Metrics::new(), usize::MAX)
    }

    #[test]
    fn a_rest_is_what_no_stream_has() {
        let streams = "  - { path: /events, from: { upstream: t } }
  - { path: '/rooms/{room}', params: { room: '[0-9]+' }, from: { upstream: t } }
";
        let alone = router(streams);
        assert_eq!(found(&alone, "h", "/rooms/new"), "Unmatched");
        let any = router(&format!("{streams}  - {{ path: '/{{*rest}}', proxy: 'http://a' }}\n"));
        let of_host = router(&format!(
            "{streams}  - {{ host: h, path: '/{{*rest}}', proxy: 'http://a' }}
  - {{ host: h, path: '/rooms/7', proxy: 'http://a' }}
  - {{ path: '/{{*rest}}', proxy: 'http://b' }}
"
        ));
        for (path, on_any, on_h) in [
            ("/events", "/events", "/events"),
            ("/rooms/5", "/rooms/{room}", "/rooms/{room}"),
            ("/rooms/new", "/{*rest}", "h/{*rest}"),
            ("/rooms/%ff", "BadParameter", "BadParameter"),
            ("/rooms/7", "/rooms/{room}", "h/rooms/7"),
            ("/", "/{*rest}", "h/{*rest}"),
            ("/a/b", "/{*rest}", "h/{*rest}"),
        ] {
            assert_eq!((&*found(&any, "h", path), &*found(&of_host, "H", path)), (on_any, on_h), "{path}");
            assert_eq!(found(&of_host, "other", path), on_any, "{path}");
        }
    }

    #[test]
    fn glob_characters_stand_for_themselves() {
        assert_eq!(escape_glob("a*b?[c-d]\\"), r"a\*b\?\[c\-d\]\\");
    }
}
