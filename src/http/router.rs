//! From host and path to a route, and from a route and its parameters to the feed it opens; or to an application.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::app::{App, Asked};
use super::guard::Door;
use super::limits::{Places, Said};
use super::shed::Why;
use super::source::{Params, RouteSource};
use super::streams::End;
use crate::config::{self, Brought, Config, Reads, Template};
use crate::hub::{Bounds, FeedKey, Opens, Policy, Quota, Terms};
use crate::metrics::{Metrics, RouteMetrics};
use crate::schema::Registries;
use crate::shape::Member;

const SOUND: &str = "the configuration has neither bad nor ambiguous paths";
const ONE: &str = "a route has a source";

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
    /// One that gives the feeds of others.
    Multi(Arc<Route>),
    App(Arc<App>),
    /// An application, to a path that it has as a rest.
    Rest(Arc<App>),
}

/// What answers a request.
#[expect(clippy::large_enum_variant, reason = "there is one for a request, and nothing keeps it")]
pub enum Found<'r> {
    /// A route, and the feed that it opens.
    Route(&'r Arc<Route>, Result<Opens, Miss>),
    /// A route that gives the feeds of others, which a request names.
    Multi(&'r Arc<Route>),
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
    /// The names of its upstreams, each once, with commas between.
    pub upstreams: String,
    /// The same of their kinds, as the configuration calls them.
    pub system: String,
    control_prefix: Arc<str>,
    source: RouteSource,
    /// The others that it reads.
    also: Vec<RouteSource>,
    /// Whose feeds it gives, where it opens none itself.
    of: Vec<Arc<Self>>,
}

/// What a route has for as long as it reads the same, whatever else of it changes. So it also tells one route from another.
pub struct Kept {
    /// Its open streams.
    pub places: Arc<Places>,
    /// Its feeds, where they depend on the path.
    pub quota: Arc<Quota>,
    /// That filters of its clients cannot tell.
    pub said: Said,
    /// That ids of several feeds became too long.
    pub too_long: Said,
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
            Self::Route(route, _) | Self::Multi(route) => route.door(),
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
        let mut routes: Vec<Option<Arc<Route>>> = vec![None; config.routes.len()];
        let (mut order, multis): (Vec<_>, Vec<_>) =
            config.routes.iter().enumerate().partition(|(_, route)| route.multi.is_none());
        // Last, as they have others.
        order.extend(multis);
        for (at, route) in order {
            let before = before.and_then(|(before, continued)| before.routes.get(continued[at]?));
            let kept = before.map(|before| Arc::clone(&before.kept));
            let of = gathered(route, &routes);
            let route = Arc::new(Route::new(route, config, metrics, kept, registries).gathering(of));
            let target = match route.of[..] {
                [] => Target::Route(Arc::clone(&route)),
                _ => Target::Multi(Arc::clone(&route)),
            };
            let paths = router.paths(route.config.host.as_ref());
            paths.all.insert(&*route.config.path, target).expect(SOUND);
            routes[at] = Some(route);
        }
        router.routes = routes.into_iter().flatten().collect();
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
            Target::Multi(route) => return Some((Found::Multi(route), params)),
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
        let is_stream = |target: &Target| matches!(target, Target::Route(_) | Target::Multi(_));
        let other = found.next().filter(|other| is_stream(other.value));
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
        let mut sources = route.sources().map(|own| RouteSource::new(route, own, config, registries));
        let source = sources.next().expect(ONE);
        let also = sources.collect();
        let kept = kept.unwrap_or_else(|| {
            let quota = Arc::new(Quota::new(route.limits.feeds));
            let (said, too_long) = (Said::default(), Said::default());
            let (places, over) = (Places::new(route.limits), AtomicBool::new(false));
            Arc::new(Kept { places, quota, said, too_long, over })
        });
        kept.places.limit(route.limits);
        kept.quota.set_most(route.limits.feeds);
        let mut reads = Reads::of(&config.auth, &route.auth, route.allow.as_ref());
        let by_query = |member: &Member| member.mapping == Brought::Query as usize;
        reads.query |= route.filter.iter().flat_map(|filter| filter.client()).any(by_query);
        route.auth.iter().for_each(|provider| metrics.auth_begins(&name, provider));
        let config::Route { start, replay, on_lag, rate, .. } = *route;
        let terms = Arc::new(Terms { start, replay, on_lag, rate, snapshots: true });
        Self {
            config: route.clone(),
            metrics: metrics.route(&name, End::all().map(End::as_str), Why::all().map(Why::as_str)),
            kept,
            reads,
            terms,
            upstreams: joined(route.sources().map(|own| &**own.upstream)),
            system: joined(route.sources().map(|own| kind(config, own.upstream))),
            control_prefix: Arc::clone(&config.server.control_prefix),
            name,
            source,
            also,
            of: Vec::new(),
        }
    }

    /// The same, where it gives the feeds of these.
    fn gathering(self, of: Vec<Arc<Self>>) -> Self {
        let mut reads = self.reads;
        of.iter().for_each(|route| reads.merge(&route.reads));
        Self { reads, of, ..self }
    }

    /// Whether the feeds of this route are given by it.
    pub(super) fn gives(&self, route: &Arc<Self>) -> bool {
        self.of.iter().any(|own| Arc::ptr_eq(own, route))
    }

    /// Its feeds whose source and shape have no parameters: held always.
    pub fn held_feeds(&self) -> Vec<FeedKey> {
        let names = [&self.config.event, &self.config.tombstone];
        let in_event = names.into_iter().flatten().any(Template::has_params);
        let in_data = self.config.expressions().any(|expression| !expression.params().is_empty());
        if in_event || in_data || self.config.ended || self.config.multi.is_some() {
            return Vec::new();
        }
        let held = self.sources().filter(|source| !source.has_params());
        held.map(|source| source.opens(&Params::new()).feed).collect()
    }

    fn sources(&self) -> impl Iterator<Item = &RouteSource> {
        std::iter::once(&self.source).chain(&self.also)
    }

    /// What the names of control events begin with.
    pub fn control_prefix(&self) -> &str {
        &self.control_prefix
    }

    /// Who may read it.
    pub(super) fn door(&self) -> Door<'_> {
        let config::Route { auth, allow, cors, .. } = &self.config;
        let (allow, cors, reads) = (allow.as_ref(), cors.as_ref(), Some(&self.reads));
        Door { name: &self.name, auth, allow, cors, reads, has_pages: false }
    }

    /// Whether not everybody may read it.
    pub fn is_guarded(&self) -> bool {
        self.door().is_guarded() || self.of.iter().any(|route| route.is_guarded())
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
        let mut params = Params::new();
        for (name, value) in raw {
            let value = decode(value)?;
            if self.config.params.get(name).is_some_and(|pattern| !pattern.matches(&value)) {
                return Err(Miss::Unmatched);
            }
            params.insert(name, value);
        }
        let mut opens = self.source.checked(&params)?;
        for source in &self.also {
            let other = source.checked(&params)?;
            // With these parameters it may be one of those before it.
            let is_it = |own: &Opens| (&own.feed, &own.key) == (&other.feed, &other.key);
            if !is_it(&opens) && !opens.also.iter().any(is_it) {
                opens.also.push(other);
            }
        }
        Ok(opens)
    }
}

/// The routes whose feeds `route` gives, of those that have been made.
fn gathered(route: &config::Route, made: &[Option<Arc<Route>>]) -> Vec<Arc<Route>> {
    let names = route.multi.iter().flat_map(|multi| &multi.of);
    names.filter_map(|name| made.iter().flatten().find(|route| route.name == **name).cloned()).collect()
}

/// Each once, with commas between.
fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut each: Vec<&str> = Vec::new();
    for name in names {
        if !each.contains(&name) {
            each.push(name);
        }
    }
    each.join(",")
}

fn kind(config: &Config, upstream: &str) -> &'static str {
    let upstream = config.upstreams.iter().find(|known| &*known.name == upstream);
    upstream.map_or("", |upstream| upstream.kind.as_str())
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
            Some(Found::Multi(route)) => format!("several of {}", route.of.len()),
            Some(Found::App(app)) => app.name().to_owned(),
            None => String::new(),
        }
    }

    fn router(routes: &str) -> Router {
        let upstreams = "{ t: { ticker: {} }, p: { push: {} } }";
        let text = format!("server: {{ tls: none }}\nupstreams: {upstreams}\nroutes:\n{routes}");
        let config =
            config::parse("c.yaml", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        Router::new(&config, &Metrics::new(), usize::MAX)
    }

    #[test]
    fn several_feeds_are_those_of_other_routes() {
        let router = router(
            "  - { path: /all, multi: { of: [/b, '/a/{a}'] } }
  - { path: '/a/{a}', from: { upstream: t }, allow: \"query.a == '1'\" }
  - { path: /b, from: { upstream: t } }
  - { path: /c, from: { upstream: t } }
  - { host: h, path: '/{*rest}', proxy: 'http://a' }
",
        );
        let order: Vec<_> = router.routes().iter().map(|route| &*route.name).collect();
        assert_eq!(order, ["/all", "/a/{a}", "/b", "/c"]);
        let [all, a, b, c] = router.routes() else { panic!("four routes") };
        assert!(all.gives(a) && all.gives(b) && !all.gives(c) && !all.gives(all));
        assert!(all.held_feeds().is_empty() && !b.held_feeds().is_empty());
        assert!(all.is_guarded() && all.reads.query, "as one of them is");
        for host in ["h", "other"] {
            assert_eq!(found(&router, host, "/all"), "several of 2");
        }
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
    fn a_list_opens_each_of_its_sources() {
        let each = "{ upstream: t }, { upstream: p, channel: 'x{a}' }, { upstream: p, channel: '{b}' }";
        let router = router(&format!("  - {{ path: '/{{a}}/{{b}}', from: [{each}] }}\n"));
        let opened = |path: &str| {
            let Some(Found::Route(_, Ok(opens))) = router.find("h", path) else { panic!("{path} is a feed") };
            let all = std::iter::once(&opens).chain(&opens.also);
            all.map(|opens| opens.feed.source.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(opened("/1/2"), ["ticker", "x1", "2"]);
        assert_eq!(opened("/1/x1"), ["ticker", "x1"], "with these parameters two of them are one");
        let route = &router.routes()[0];
        let held = route.held_feeds();
        assert_eq!(held.iter().map(|feed| feed.source.name()).collect::<Vec<_>>(), ["ticker"]);
        assert_eq!((&*route.upstreams, &*route.system), ("t,p", "ticker,push"));
    }
}
