//! `multi:` of a route: the routes whose feeds it gives, several at a time on one connection. They may stand anywhere in the
//! file, so that this is read when all others have been.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::auth::{self, AuthKind, AuthProvider};
use super::composite;
use super::decode::Decode;
use super::fields::{Bounds, Fields};
use super::keys;
use super::longest::{OF_SERVER, PARTITIONS};
use super::model::{Also, Digest, Multi, OneSource, Partitioner, Route, Source, Tell};
use super::paths::RoutePath;
use super::place::Span;
use super::policies::{self, Policies};
use super::routes::Given;
use super::suggest;
use super::tree::Node;
use super::upstreams::Kind;
use super::walk::{Scalar, Walk};

pub(super) const MAX: Bounds<usize> = Bounds { default: 50, min: 1, max: 200 };

/// The keys of a route that a route with `multi` can have.
const BESIDE: [&str; 10] =
    ["path", "host", "multi", "cors", "limits", "keepalive", "retry", "expiring", "max_age", "ended"];

const PATH: &str = "the path of a route of this file";

/// A route that the file has, sound or not, as far as others can name it.
pub(super) struct Known {
    /// Its host, if it names one.
    pub host: Option<Arc<str>>,
    /// Its path.
    pub path: Arc<str>,
    /// Whether the file itself says that, so that it may be shown.
    pub is_shown: bool,
    /// What it is.
    pub what: What,
}

/// What a route is.
pub(super) enum What {
    /// An event stream: where it stands among those that are sound, if it is.
    Stream(Option<usize>),
    /// One with `multi`.
    Multi,
    /// One with `proxy`.
    Proxy,
}

/// What the file has besides.
pub(super) struct Others<'o> {
    /// Every route.
    pub known: &'o [Known],
    /// Those that are sound event streams.
    pub routes: &'o [Route],
}

/// Reads a route with `multi`.
pub(super) fn read(
    walk: &Walk<'_>,
    fields: &Fields<'_>,
    (path, host): (Option<RoutePath>, Option<Arc<str>>),
    given: &Given<'_>,
    others: &Others<'_>,
) -> Option<Route> {
    check_beside(walk, fields);
    if let Some(path) = path.as_ref().filter(|path| !path.params.is_empty()) {
        let text = "clients name the feeds of a `multi` in `?feed=`, so that its path has no parameters; write it without";
        walk.problem(path.span, text);
    }
    let policies = policies::read(walk, fields, (given.defaults, given.auth), keys::REPLAY);
    let ended = fields.flag("ended").unwrap_or(false);
    let of = Fields::open(walk, fields.node("multi")?, keys::MULTI)?;
    let max = of.count("max", &MAX);
    let tell = of.choice("tell", &[("event", Tell::Event), ("envelope", Tell::Envelope)]);
    let named = of.required("of", "list the paths of routes, such as `[/events/news, \"/rooms/{room}\"]`")?;
    if fields.entry("host").is_some() && host.is_none() {
        // It is in doubt, and so is which routes are meant.
        return None;
    }
    let members = read_members(walk, named, host.as_ref(), others)?;
    for (_, span) in members.iter().filter(|(route, _)| tell == Some(Tell::Envelope) && route.wrap.is_none())
    {
        let text = "`tell: envelope` says the feed in what `wrap` puts around data, and this route has none; give it `wrap: envelope`, or write `tell: event`";
        walk.problem(*span, text);
    }
    let members: Vec<_> = members.into_iter().map(|(route, _)| route).collect();
    let at = of.entry("max").map_or(named.span, |entry| entry.value.span);
    check_ids(walk, at, max.unwrap_or(MAX.default), &members, given);
    let auth = all_of(&members, |route| &route.auth);
    auth::check_cors(walk, fields, (&auth, policies.cors.as_ref()), given.auth);
    check_tickets(walk, named.span, &auth, &given.auth.usable);
    let multi = Multi {
        of: members.iter().map(|route| route.name().into()).collect(),
        max: max.unwrap_or(MAX.default),
        tell: tell.unwrap_or(Tell::Event),
    };
    gathering(Place { host, path: path?.text }, multi, &members, Policies { auth, ..policies }, ended)
}

/// Host and path.
struct Place {
    host: Option<Arc<str>>,
    path: Arc<str>,
}

/// The route: what its streams go by is its own, and what they read that of its members.
fn gathering(
    place: Place,
    multi: Multi,
    members: &[&Route],
    policies: Policies,
    ended: bool,
) -> Option<Route> {
    let mut sources = members.iter().flat_map(|route| route.sources()).map(|own| Also {
        upstream: Arc::clone(own.upstream),
        source: own.source.clone(),
        start: own.start,
        digest: Arc::new(Digest::default()),
    });
    let Also { upstream, source, start, digest } = sources.next()?;
    // What holds for feeds is their routes', and nothing of it may look as if it had changed with `defaults`.
    let nothing = Policies::default();
    Some(Route {
        host: place.host,
        path: place.path,
        upstream,
        source,
        start,
        also: sources.collect(),
        params: BTreeMap::new(),
        event: None,
        tombstone: None,
        filter: None,
        data: None,
        projection: None,
        wrap: None,
        max_event: nothing.max_event,
        binary: nothing.binary,
        cors: policies.cors,
        compress: None,
        auth: policies.auth,
        allow: None,
        expiring: policies.expiring,
        // Nobody outlasts by way of it what the route of a feed allows.
        max_age: members.iter().filter_map(|route| route.max_age).chain(policies.max_age).min(),
        ended,
        keepalive: policies.keepalive,
        retry: policies.retry,
        linger: nothing.linger,
        buffer: nothing.buffer,
        history: nothing.history,
        replay: nothing.replay,
        idle_timeout: nothing.idle_timeout,
        on_lag: nothing.on_lag,
        limits: policies.limits,
        decode: Decode::Text,
        digest,
        rate: None,
        multi: Some(multi),
    })
}

fn check_beside(walk: &Walk<'_>, route: &Fields<'_>) {
    for entry in route.present().filter(|entry| !BESIDE.contains(&entry.key.text.as_str())) {
        let why = match entry.key.text.as_str() {
            "auth" | "allow" => "is said by the routes in `multi.of`, each for its own feeds; say it there",
            "compress" => {
                "packs what many clients are sent at once, and what a `multi` gives is each client's own; leave it out"
            }
            _ => {
                "is of routes that read something themselves, and `multi` gives what others read; remove one of them"
            }
        };
        walk.problem(entry.key.span, format!("`{}` {why}", entry.key.text));
    }
    if let Some(feeds) = route.entry("limits").and_then(|limits| limits.value.child("feeds")) {
        let text = "feeds count in `limits` of the routes in `multi.of`; say it there";
        walk.problem(feeds.span, text);
    }
}

/// The routes that are named, and where; nothing where one of them is not sound.
fn read_members<'o>(
    walk: &Walk<'_>,
    node: &Node,
    host: Option<&Arc<str>>,
    others: &Others<'o>,
) -> Option<Vec<(&'o Route, Span)>> {
    let (mut members, mut whole) = (Vec::<(usize, Span)>::new(), true);
    for node in walk.one_or_more(node, PATH)? {
        let found = walk.text(node, PATH).and_then(|scalar| find(walk, &scalar, host, others.known));
        let Some(found) = found else {
            whole = false;
            continue;
        };
        match members.iter().find(|(member, _)| *member == found) {
            Some((_, first)) => {
                walk.conflict(
                    node.span,
                    "this route is listed twice; keep one of them",
                    *first,
                    "the first time",
                );
            }
            None => members.push((found, node.span)),
        }
    }
    whole.then(|| members.into_iter().map(|(at, span)| (&others.routes[at], span)).collect())
}

/// Where the route stands that is named: of this host, or else of every host, as requests find it.
fn find(walk: &Walk<'_>, scalar: &Scalar<'_>, host: Option<&Arc<str>>, known: &[Known]) -> Option<usize> {
    let here = |route: &&Known| route.host.is_none() || route.host.as_ref() == host;
    let of_path = || known.iter().filter(|route| *route.path == *scalar.text);
    let found = of_path().filter(here).max_by_key(|route| route.host.is_some());
    let problem = match found.map(|route| &route.what) {
        Some(What::Stream(at)) => return *at,
        Some(What::Multi) => "has `multi` itself; name the routes that it names".to_owned(),
        Some(What::Proxy) => "has `proxy`, and no events; name a route with `from`".to_owned(),
        None => match of_path().next() {
            Some(_) => "is a route of another host; give both the same `host`, or that one none".to_owned(),
            None if scalar.is_indirect() => "is the path of no route of this file".to_owned(),
            None => {
                let is_meant = |route: &&Known| route.is_shown && matches!(route.what, What::Stream(_));
                let streams = known.iter().filter(here).filter(is_meant);
                let hint = suggest::hint(&scalar.text, streams.map(|route| &*route.path), "there are");
                format!("is the path of no route of this file{hint}")
            }
        },
    };
    walk.problem(scalar.span(), format!("{} {problem}", scalar.shown()));
    None
}

/// Who comes back names the place in each feed.
fn check_ids(walk: &Walk<'_>, at: Span, max: usize, members: &[&Route], given: &Given<'_>) {
    let ids: Vec<usize> = longest_ids(max, members, given);
    let most = composite::LONGEST;
    let length = |some: usize| composite::longest(ids[..some].iter().copied());
    if length(ids.len()) <= most {
        return;
    }
    let advice = match (1..ids.len()).rev().find(|&some| length(some) <= most) {
        Some(fitting) => format!("write `max: {fitting}`, or less"),
        None => "leave out the routes whose ids are that long".to_owned(),
    };
    let text = format!(
        "the event ids of {} feeds may come to {} bytes{}, and more than {most} are not sure to get back through servers and proxies; {advice}",
        ids.len(),
        length(ids.len()),
        assumed(members, given),
    );
    walk.problem(at, text);
}

/// What the estimate takes for granted.
fn assumed(members: &[&Route], given: &Given<'_>) -> String {
    let sources = || members.iter().flat_map(|route| route.sources());
    let names_partitions = |own: OneSource<'_>| {
        matches!(own.source, Source::Topic(_) | Source::Keyed { partitioner: Partitioner::Any, .. })
    };
    let is_of_server = |own: OneSource<'_>| kind(given, own.upstream) == Some(Kind::Sse);
    let mut text = String::new();
    if sources().any(names_partitions) {
        text += &format!(", with {PARTITIONS} partitions a topic");
    }
    if sources().any(is_of_server) {
        text += &format!(", with {OF_SERVER} bytes for an id of a server");
    }
    text
}

/// The longest id of each feed that a client may ask for at once, the longest first.
fn longest_ids(max: usize, members: &[&Route], given: &Given<'_>) -> Vec<usize> {
    let mut ids = Vec::new();
    for route in members {
        let own = route.sources().filter_map(|own| Some(own.source.longest_id(kind(given, own.upstream)?)));
        let own: Vec<usize> = own.collect();
        // An id of several sources is written within another one with two bytes more for each.
        let longest =
            if let [one] = own[..] { one } else { composite::longest(own.into_iter().map(|own| own + 2)) };
        // Without parameters it is one feed.
        let times = if route.path.contains('{') { max } else { 1 };
        ids.extend(std::iter::repeat_n(longest, times));
    }
    ids.sort_unstable_by(|one, other| other.cmp(one));
    ids.truncate(max);
    ids
}

fn kind(given: &Given<'_>, upstream: &Arc<str>) -> Option<Kind> {
    given.upstreams.known.iter().find(|(known, _)| known == upstream)?.1
}

/// What the endpoint says whom a ticket's owner was known by, it says of the ticket's path, and not of each feed.
fn check_tickets(walk: &Walk<'_>, at: Span, auth: &[Arc<str>], providers: &[AuthProvider]) {
    let asks = |name: &Arc<str>| {
        providers.iter().any(|own| own.name == *name && matches!(own.kind, AuthKind::Forward(_)))
    };
    for provider in providers.iter().filter(|provider| auth.contains(&provider.name)) {
        if let AuthKind::Ticket(ticket) = &provider.kind
            && let Some(endpoint) = ticket.of.iter().find(|of| asks(of))
        {
            let text = format!(
                "a ticket of `{}` is for the path of this route, for which the endpoint of `{endpoint}` is asked, and not for each feed; leave out the routes that take it, or have it `of` another provider",
                provider.name
            );
            walk.problem(at, text);
        }
    }
}

/// What the routes have, each once.
fn all_of<'r, T: Clone + PartialEq + 'r>(
    members: &[&'r Route],
    own: impl Fn(&'r Route) -> &'r Vec<T>,
) -> Vec<T> {
    let mut all = Vec::new();
    for one in members.iter().flat_map(|route| own(route)) {
        if !all.contains(one) {
            all.push(one.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::testing::{HEAD, expect, sound};

    const ROUTES: &str =
        "  - { path: '/rooms/{room}', from: { upstream: r, channel: '{room}' }, wrap: envelope, max_age: 2h }
  - { path: /news, from: { upstream: t }, max_age: 1h }
  - { path: /here, host: h, from: { upstream: t } }
  - { path: /app, proxy: 'http://a' }
";

    /// The routes above, and `multi` on line 12, where its value begins in column 26.
    fn with(multi: &str, more: &str) -> String {
        format!("{HEAD}{ROUTES}  - {{ path: /all, multi: {multi}{more} }}\n")
    }

    fn of(route: &Route) -> Vec<&str> {
        route.multi.as_ref().unwrap().of.iter().map(|name| &**name).collect()
    }

    fn upstreams(route: &Route) -> Vec<&str> {
        route.sources().map(|own| &**own.upstream).collect()
    }

    #[test]
    fn routes_are_named_wherever_they_stand() {
        let line = "  - { path: /all, multi: { of: [/news, '/rooms/{room}'], max: 3, tell: event }, keepalive: 1m }\n";
        for (routes, place) in [(format!("{line}{ROUTES}"), 0), (format!("{ROUTES}{line}"), 3)] {
            let config = sound(&format!("{HEAD}{routes}"));
            assert_eq!(config.routes.iter().position(|route| &*route.path == "/all"), Some(place));
            let found = &config.routes[place];
            assert_eq!(of(found), ["/news", "/rooms/{room}"]);
            let multi = found.multi.as_ref().unwrap();
            assert_eq!((multi.max, multi.tell, upstreams(found)), (3, Tell::Event, vec!["t", "r"]));
            assert_eq!((found.keepalive.as_secs(), found.max_age), (60, Some(Duration::from_hours(1))));
        }
        let config = sound(&with("{ of: /news }", ""));
        assert_eq!(config.routes[3].multi.as_ref().map(|multi| multi.max), Some(50));
        let config = sound(&with("{ of: [/here, /news] }", ", host: H, max_age: 3s"));
        let found = &config.routes[3];
        assert_eq!(of(found), ["h/here", "/news"]);
        assert_eq!(found.max_age, Some(Duration::from_secs(3)));
        sound(&with("{ of: '/rooms/{room}', tell: envelope }", ""));
    }

    #[test]
    fn a_host_has_routes_of_its_own() {
        let own = "  - { path: /news, host: h, from: { upstream: p, channel: a } }\n";
        let config = sound(&format!("{}{own}", with("{ of: /news }", ", host: h")));
        assert_eq!((of(&config.routes[3]), upstreams(&config.routes[3])), (vec!["h/news"], vec!["p"]));
    }

    #[test]
    fn who_may_come_is_said_by_the_routes() {
        let auth = "auth:
  users: { jwt: { secret: 0123456789abcdef0123456789abcdef } }
  asked: { forward: { url: 'http://localhost' } }
  tickets: { ticket: { path: /tickets, of: [users], secret: 0123456789abcdef0123456789abcdef } }
  others: { ticket: { path: /others, of: [users, asked], secret: 0123456789abcdef0123456789abcdef } }
";
        let routes = |of: &str, more: &str| {
            format!(
                "{HEAD}  - {{ path: /a, from: {{ upstream: t }}, auth: [users, tickets] }}
  - {{ path: /b, from: {{ upstream: t }}, auth: [asked, users], allow: 'true' }}
  - {{ path: /c, from: {{ upstream: t }}, auth: others }}
  - {{ path: /all, multi: {{ of: {of} }}{more} }}\n{auth}"
            )
        };
        let config = sound(&routes("[/a, /b]", ""));
        let auth: Vec<_> = config.routes[3].auth.iter().map(|name| &**name).collect();
        assert_eq!(auth, ["users", "tickets", "asked"]);
        assert!(config.routes[3].allow.is_none());
        expect(&routes("[/b, /c]", ""), &[(11, 32, "a ticket of `others` is for the path of this route")]);
        expect(
            &routes("[/a]", ", cors: { origins: https://a }"),
            &[(11, 40, "`tickets` leaves a cookie to come back with")],
        );
        expect(
            &routes("[/b]", ", auth: users, allow: 'true'"),
            &[
                (11, 40, "`auth` is said by the routes in `multi.of`"),
                (11, 53, "`allow` is said by the routes"),
            ],
        );
    }

    #[test]
    fn problems() {
        for (multi, more, column, text) in [
            ("{ of: [/new] }", "", 33, "`/new` is the path of no route of this file; did you mean `/news`?"),
            ("{ of: [/nowhere] }", "", 33, "of this file; there are `/rooms/{room}` and `/news`"),
            ("{ of: ['${HIDDEN}'] }", "", 33, "this value is the path of no route of this file"),
            ("{ of: [/here] }", "", 33, "`/here` is a route of another host; give both the same `host`"),
            ("{ of: [/app] }", "", 33, "`/app` has `proxy`, and no events"),
            ("{ of: [/all] }", "", 33, "`/all` has `multi` itself"),
            ("{ of: [/news, /news] }", "", 40, "this route is listed twice"),
            ("{ of: [] }", "", 32, "this list is empty"),
            ("{ of: [[/news]] }", "", 33, "expected the path of a route of this file, found a list"),
            ("{ max: 3 }", "", 26, "`multi` lacks `of`"),
            ("{ of: /news, max: 0 }", "", 44, "it must be from 1 to 200"),
            ("{ of: /news, max: 201 }", "", 44, "it must be from 1 to 200"),
            ("{ of: /news, tell: id }", "", 45, "`tell` cannot be `id`; write `event` or `envelope`"),
            (
                "{ of: [/news, '/rooms/{room}'], tell: envelope }",
                "",
                33,
                "`tell: envelope` says the feed in what `wrap` puts around data, and this route has none",
            ),
            ("[/news]", "", 26, "expected a mapping, found a list"),
            (
                "{ of: /news }",
                ", from: { upstream: t }",
                41,
                "`from` is of routes that read something themselves",
            ),
            ("{ of: /news }", ", history: { events: 1 }", 41, "`history` is of routes that read something"),
            ("{ of: /news }", ", event: a", 41, "`event` is of routes"),
            ("{ of: /news }", ", linger: 1s", 41, "`linger` is of routes"),
            ("{ of: /news }", ", compress: zstd", 41, "`compress` packs what many clients are sent"),
            (
                "{ of: /news }",
                ", limits: { streams: 1, feeds: 1 }",
                70,
                "feeds count in `limits` of the routes",
            ),
        ] {
            expect(&with(multi, more), &[(12, column, text)]);
        }
        let text = with("{ of: /news }", "").replace("/all", "'/all/{p}'");
        expect(&text, &[(12, 13, "clients name the feeds of a `multi` in `?feed=`")]);
    }

    #[test]
    fn a_route_with_problems_of_its_own_is_there() {
        let text = with("{ of: [/news] }", "")
            .replace("/news, from: { upstream: t }", "/news, from: { upstream: zz }");
        expect(&text, &[(9, 38, "no upstream is called `zz`")]);
        expect(&with("{ of: [/here] }", ", host: 'a b'"), &[(12, 49, "`a b` is not a host")]);
    }

    #[test]
    fn what_stands_elsewhere_is_not_shown() {
        let text = with("{ of: [/nowhere] }", "").replace("/news", "'/${HIDDEN}'");
        expect(&text, &[(12, 33, "is the path of no route of this file; there are `/rooms/{room}`")]);
    }

    #[test]
    fn ids_get_back_whatever_the_feeds() {
        let route = |path: &str, from: &str| format!("  - {{ path: '{path}', from: {{ {from} }} }}\n");
        let with = |routes: &[String], max: &str| {
            let head = HEAD.replace("ticker: {}", "sse: { url: 'http://h' }");
            let of = routes.iter().map(|route| route.split('\'').nth(1).unwrap());
            let of: Vec<_> = of.map(|path| format!("'{path}'")).collect();
            format!(
                "{head}{}  - {{ path: /all, multi: {{ of: [{}]{max} }} }}\n",
                routes.concat(),
                of.join(", ")
            )
        };
        let rooms = route("/r/{a}", "upstream: r, channel: '{a}'");
        let topics = route("/k/{a}", "upstream: k, topic: '{a}'");
        let servers = route("/s/{a}", "upstream: t, path: '/{a}'");
        let one = |path: &str| route(path, "upstream: k, topic: o");
        sound(&with(std::slice::from_ref(&rooms), ""));
        sound(&with(&[rooms.clone(), one("/o"), one("/p")], ""));
        for (routes, words) in [
            (vec![topics.clone()], "with 12 partitions a topic"),
            (vec![rooms, topics], "with 12 partitions a topic"),
            (vec![servers], "the event ids of 50 feeds may come to"),
        ] {
            let line = 8 + routes.len();
            let text = with(&routes, "");
            let found = crate::config::testing::problems(&text);
            assert!(found.len() == 1 && found[0].0 == line && found[0].2.contains(words), "{found:?}");
            let fitting = found[0].2.split_once("`max: ").unwrap().1.split_once('`').unwrap().0;
            let fitting: usize = fitting.parse().unwrap();
            sound(&with(&routes, &format!(", max: {fitting}")));
            crate::config::testing::problems(&with(&routes, &format!(", max: {}", fitting + 1)));
        }
    }
}
