//! What is sound and yet may not be what was meant: `ssegate check` tells it, and so does the log at the start.

use http::Uri;

use super::auth::{AuthKind, AuthProvider, Jwt, JwtKeys};
use super::composite;
use super::hosts;
use super::model::{Config, Multi, Origins, Route, Source, Traces, Variable};
use super::registries::SchemaRegistry;
use super::same::reads_the_same;
use super::template::Field;
use super::units::show_size;
use crate::expression::Expression;

/// A sentence for each, with what to do about it.
pub fn warnings(config: &Config) -> Vec<String> {
    let plain = config.auth.iter().filter_map(in_the_open);
    let traces = config.traces.iter().filter_map(told_in_the_open);
    let secrets = config.auth.iter().filter_map(no_secret);
    let cookies = config.routes.iter().flat_map(|route| unsent_cookies(config, route));
    let looks = config.routes.iter().filter_map(looks_at_each_record);
    let asks = config.routes.iter().filter_map(asks_much_for_each_client);
    let missed = config.routes.iter().flat_map(hides_what_is_newest);
    let registries = config.schema_registries.iter().filter_map(entered_in_the_open);
    let all = plain.chain(traces).chain(secrets).chain(cookies).chain(looks).chain(asks);
    let heads = config.routes.iter().filter_map(|route| outgrows_heads(config, route));
    let unread = config.routes.iter().filter_map(|route| keeps_pages_out(config, route));
    let kept = config.routes.iter().filter_map(keeps_deleted_keys);
    let all = all.chain(missed).chain(registries).chain(heads).chain(unread).chain(kept);
    all.chain(snapshots(config)).collect()
}

/// Snapshots of which each may have more than there is room for all. Routes that differ in nothing but the path share one.
fn snapshots(config: &Config) -> Option<String> {
    let mut of: Vec<&Route> = Vec::new();
    for route in config.routes.iter().filter(|route| route.digest.snapshot.is_some()) {
        if !of.iter().any(|other| reads_the_same(other, route)) {
            of.push(route);
        }
    }
    let most: usize = of.iter().filter_map(|route| Some(route.digest.snapshot.as_ref()?.max_bytes)).sum();
    (most > config.limits.memory / 2).then(|| {
        format!(
            "the snapshots of routes may take up {}, and there is room for {} of all of them, a half of `limits.memory`: beyond that keys leave, and clients are told; raise that, or lower `snapshot.max_bytes`",
            show_size(most),
            show_size(config.limits.memory / 2)
        )
    })
}

/// Who decides is asked where others can answer in his place.
fn in_the_open(provider: &AuthProvider) -> Option<String> {
    let (key, url) = match &provider.kind {
        AuthKind::Jwt(Jwt { keys: JwtKeys::Jwks { url, .. }, .. }) => ("jwt.jwks", url),
        AuthKind::Forward(forward) => ("forward.url", &forward.url),
        _ => return None,
    };
    is_open(url).then(|| {
        format!(
            "`auth.{}.{key}` is asked over plain HTTP: whoever is on the way there can let in anybody; use https, and `ca` for an authority of your own",
            provider.name
        )
    })
}

fn told_in_the_open(traces: &Traces) -> Option<String> {
    let text = "`traces.endpoint` is told over plain HTTP: whoever is on the way there reads paths, addresses and `headers`; use https, and `ca` for an authority of your own";
    is_open(&traces.endpoint).then(|| text.to_owned())
}

fn entered_in_the_open(registry: &SchemaRegistry) -> Option<String> {
    (registry.auth.is_some() && is_open(&registry.url)).then(|| {
        format!(
            "`schema_registries.{}` is shown its `auth` over plain HTTP: whoever is on the way there reads it; use https, and `tls` for an authority of your own",
            registry.name
        )
    })
}

/// Whether others may be on the way.
fn is_open(url: &Uri) -> bool {
    url.scheme_str() == Some("http") && !url.host().is_some_and(hosts::is_loopback)
}

fn no_secret(provider: &AuthProvider) -> Option<String> {
    let AuthKind::Ticket(ticket) = &provider.kind else { return None };
    ticket.secret.is_none().then(|| {
        format!(
            "the tickets of `{}` are signed with a secret that is made at each start: after a restart, and on another replica, browsers that come back are refused, and stay away; give it a `secret`, made with `openssl rand -base64 32`",
            provider.name
        )
    })
}

/// Cookies of pages that a route's `cors` lists: those of the page's own origin come in any case.
fn unsent_cookies(config: &Config, route: &Route) -> Vec<String> {
    let listed = |cors: &super::Cors| !cors.credentials && matches!(cors.origins, Origins::List(_));
    if !route.cors.as_ref().is_some_and(listed) {
        return Vec::new();
    }
    let taken = config.auth.iter().filter(|provider| route.auth.contains(&provider.name));
    let cookie = |provider: &AuthProvider| match &provider.kind {
        AuthKind::Jwt(jwt) => Some((provider.name.clone(), jwt.cookie.clone()?)),
        _ => None,
    };
    let told = taken.filter_map(cookie).map(|(name, cookie)| {
        format!(
            "{}{} takes the cookie `{cookie}` for `{name}`, which browsers do not send from the pages that its `cors` lists; add `credentials: true` if they should",
            route.host.as_deref().unwrap_or_default(),
            route.path,
        )
    });
    told.collect()
}

/// Who comes back to several feeds names all of them, and brings an id of all.
fn outgrows_heads(config: &Config, route: &Route) -> Option<String> {
    let multi = route.multi.as_ref()?;
    let mut feeds: Vec<usize> = Vec::new();
    for Route { path, .. } in members(config, multi) {
        // Each slash is written as three bytes, and without parameters it is one feed.
        let params = path.matches('{').count();
        let length = "&feed=".len() + path.len() + 2 * path.matches('/').count() + params * PARAMETER;
        feeds.extend(std::iter::repeat_n(length, if params > 0 { multi.max } else { 1 }));
    }
    feeds.sort_unstable_by(|one, other| other.cmp(one));
    let most = feeds.iter().take(multi.max).sum::<usize>() + composite::LONGEST + OTHERS;
    (most > config.limits.head).then(|| {
        format!(
            "a request for {} feeds of {}{}, with an event id of {}, may come to {}, and `limits.head` lets it have {}; raise that, or lower `multi.max`",
            feeds.len().min(multi.max),
            route.host.as_deref().unwrap_or_default(),
            route.path,
            show_size(composite::LONGEST),
            show_size(most.next_multiple_of(1 << 10)),
            show_size(config.limits.head)
        )
    })
}

/// The routes whose feeds are given by one of several.
fn members<'c>(config: &'c Config, multi: &'c Multi) -> impl Iterator<Item = &'c Route> {
    config.routes.iter().filter(|member| multi.of.iter().any(|name| **name == *member.name()))
}

/// Pages of other origins may read each feed, and not on one connection.
fn keeps_pages_out(config: &Config, route: &Route) -> Option<String> {
    let multi = route.multi.as_ref().filter(|_| route.cors.is_none())?;
    let open = members(config, multi).find(|member| member.cors.is_some())?;
    Some(format!(
        "{} gives feeds of {}, which has `cors`, and has none itself: pages of other origins cannot read it; give it the same",
        place(route),
        place(open),
    ))
}

/// A key that was deleted stays in the state of whoever was given it.
fn keeps_deleted_keys(route: &Route) -> Option<String> {
    let is_topic = matches!(route.source, Source::Topic(_));
    let by_key = route
        .digest
        .snapshot
        .as_ref()
        .is_some_and(|snapshot| snapshot.by.fields().any(|field| matches!(field, Field::Key)));
    (is_topic && by_key && route.tombstone.is_none()).then(|| {
        format!(
            "{} begins with a snapshot by `key`, and makes no events of tombstones: nobody is told that a key is gone; add `tombstone: {{ event: gone }}`",
            place(route)
        )
    })
}

/// A route as its URLs begin.
fn place(route: &Route) -> String {
    format!("{}{}", route.host.as_deref().unwrap_or_default(), route.path)
}

/// Bytes of a parameter of a path, as of a number of 128 bits, and of all that a head has beside feeds and id.
const PARAMETER: usize = 36;
const OTHERS: usize = 1 << 10;

/// A feed for each value of a parameter, all of the same source: whoever asks for many makes each record much work.
fn looks_at_each_record(route: &Route) -> Option<String> {
    let feeds = route.limits.feeds;
    let named = route.expressions().any(|expression| !expression.params().is_empty());
    (named && feeds > MANY_FEEDS).then(|| {
        format!(
            "{}{} has `params` in its expressions, so that each record is looked at once for each of up to {feeds} feeds: {} ms of CPU a record, at a microsecond each; set `limits.feeds` to what the route needs, {MANY_FEEDS} or less",
            route.host.as_deref().unwrap_or_default(),
            route.path,
            feeds / 1_000
        )
    })
}

/// A millisecond for each record.
const MANY_FEEDS: usize = 1_000;

/// A filter that is dear where many clients ask it.
fn asks_much_for_each_client(route: &Route) -> Option<String> {
    let cost = route.filter.as_ref()?.plan()?.cost;
    (cost > DEAR).then(|| {
        format!(
            "the filter of {}{} is asked for each client, which takes about {cost} ns with lists of 4 and short texts: {cost} µs of CPU for an event and 1,000 clients; put what names neither `query` nor `claims` together, so that it is done once",
            route.host.as_deref().unwrap_or_default(),
            route.path,
        )
    })
}

/// Nanoseconds. 1,000 events a second for 1,000 clients are half a core then, and what wakes the clients comes on top.
const DEAR: usize = 500;

/// What is kept of a key is the same for all clients, whichever of them may see it.
fn hides_what_is_newest(route: &Route) -> Vec<String> {
    let Some(filter) = route.filter.as_ref().filter(|filter| !filter.client().is_empty()) else {
        return Vec::new();
    };
    let path = format!("{}{}", route.host.as_deref().unwrap_or_default(), route.path);
    let mut told = Vec::new();
    if route.digest.conflate.is_some() {
        told.push(format!(
            "{path} keeps of each key the newest event in `conflate.every`, before its filter asks for a client: where the events of a key are not all for the same clients, one may never be given its own; conflate by what the filter names as well"
        ));
    }
    let deletes = route.digest.snapshot.is_some() && route.tombstone.is_some();
    if deletes && filter.reads(Variable::Event as usize) && !speaks_of_null(filter) {
        told.push(format!(
            "{path} has a filter that reads `event`, which is null of a tombstone: nobody is told that a key is gone; let it begin with `event == null ||`"
        ));
    }
    told
}

fn speaks_of_null(filter: &Expression) -> bool {
    filter.shown().contains("null")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{HEAD, sound};

    #[test]
    fn many_feeds_that_each_look_at_all_records_are_told_of() {
        let warned = |keys: &str| {
            let route = format!("{{ path: '/x/{{p}}', from: {{ upstream: t }}, {keys} }}");
            warnings(&sound(&format!("{HEAD}  - {route}\n")))
        };
        let told = warned("filter: event.a == params.p");
        assert!(told.len() == 1 && told[0].contains("up to 10000 feeds: 10 ms of CPU"), "{told:?}");
        assert_eq!(warned("data: { map: params.p }").len(), 1);
        assert_eq!(warned("filter: event.a == params.p, limits: { feeds: 1000 }"), [""; 0]);
        assert_eq!(warned("filter: event.a == 1"), [""; 0]);
    }

    #[test]
    fn heads_that_are_too_small_for_all_feeds_are_told_of() {
        let warned = |head: &str, max: usize| {
            let routes = format!(
                "  - {{ path: '/rooms/{{room}}', from: {{ upstream: r, channel: '{{room}}' }} }}\n  - {{ path: /all, multi: {{ of: '/rooms/{{room}}', max: {max} }} }}\n"
            );
            warnings(&sound(&format!("limits: {{ head: {head} }}\n{HEAD}{routes}")))
        };
        let told = warned("8KiB", 80);
        assert!(told.len() == 1 && told[0].starts_with("a request for 80 feeds of /all"), "{told:?}");
        assert_eq!(warned("8KiB", 20), [""; 0]);
        assert_eq!(warned("72KiB", 80), [""; 0]);
    }

    #[test]
    fn feeds_that_pages_can_read_one_by_one_alone_are_told_of() {
        let warned = |of_one: &str, of_all: &str| {
            let routes = format!(
                "  - {{ path: /a, from: {{ upstream: t }}{of_one} }}\n  - {{ path: /all, multi: {{ of: /a }}{of_all} }}\n"
            );
            warnings(&sound(&format!("{HEAD}{routes}")))
        };
        let cors = ", cors: { origins: https://a.example }";
        let told = warned(cors, "");
        assert!(
            told.len() == 1 && told[0].starts_with("/all gives feeds of /a, which has `cors`"),
            "{told:?}"
        );
        assert_eq!(warned(cors, cors), [""; 0]);
        assert_eq!(warned("", ""), [""; 0]);
    }

    #[test]
    fn keys_of_whose_end_nobody_is_told_are_told_of() {
        let warned = |keys: &str| {
            let route = format!("{{ path: /x, from: {{ upstream: k, topic: t }}, {keys} }}");
            warnings(&sound(&format!("{HEAD}  - {route}\n")))
        };
        let told = warned("snapshot: true");
        assert!(told.len() == 1 && told[0].starts_with("/x begins with a snapshot by `key`"), "{told:?}");
        assert_eq!(warned("snapshot: true, tombstone: { event: gone }"), [""; 0]);
        assert_eq!(warned("snapshot: { by: '{event.id}' }"), [""; 0]);
    }

    #[test]
    fn filters_that_are_dear_for_many_clients_are_told_of() {
        let warned = |filter: &str| {
            let route = format!("{{ path: /x, from: {{ upstream: t }}, filter: '{filter}' }}");
            warnings(&sound(&format!("{HEAD}  - {route}\n")))
        };
        assert_eq!(warned("event.a == query.a"), [""; 0]);
        let told = warned("event.a.exists(a, event.b.exists(b, event.c.exists(c, a + b + c == query.a)))");
        assert!(
            told.len() == 1 && told[0].starts_with("the filter of /x is asked for each client"),
            "{told:?}"
        );
    }

    #[test]
    fn filters_of_clients_on_what_is_kept_of_keys_are_told_of() {
        let warned = |keys: &str| {
            let route = format!("{{ path: /x, from: {{ upstream: k, topic: t }}, {keys} }}");
            warnings(&sound(&format!("{HEAD}  - {route}\n")))
        };
        let conflate = "conflate: { by: key, every: 1s }";
        let told = warned(&format!("filter: event.a == query.a, {conflate}"));
        assert!(told.len() == 1 && told[0].starts_with("/x keeps of each key the newest event"), "{told:?}");
        assert_eq!(warned(&format!("filter: event.a == 1, {conflate}")), [""; 0], "the same for all");
        let deletes = "snapshot: true, tombstone: { event: gone }";
        let told = warned(&format!("filter: event.a == query.a, {deletes}"));
        assert!(told.len() == 1 && told[0].contains("nobody is told that a key is gone"), "{told:?}");
        assert_eq!(warned(&format!("filter: event == null || event.a == query.a, {deletes}")), [""; 0]);
        assert_eq!(warned(&format!("filter: key == query.a, {deletes}")), [""; 0]);
    }

    fn warned(tickets: &str, cors: &str) -> Vec<String> {
        let secret = "a secret of 32 bytes or more than that";
        warnings(&sound(&format!(
            "server: {{ tls: none }}
auth:
  users: {{ jwt: {{ secret: {secret}, cookie: session }} }}
  tickets: {{ ticket: {{ path: /tickets, of: users{tickets} }} }}
upstreams: {{ t: {{ ticker: {{}} }} }}
routes: [{{ path: /t, from: {{ upstream: t }}, auth: users{cors} }}]
"
        )))
    }

    #[test]
    fn what_strands_browsers_is_told() {
        let secret = ", secret: another secret of 32 bytes or more";
        assert_eq!(warned(secret, ""), Vec::<String>::new());
        assert_eq!(warned(secret, ", cors: { origins: https://a, credentials: true }").len(), 0);
        assert_eq!(warned(secret, ", cors: { origins: '*' }").len(), 0, "they bring no cookies in any case");
        let told = warned("", "");
        assert!(
            told.len() == 1 && told[0].contains("of `tickets` are signed with a secret that"),
            "{told:?}"
        );
        let told = warned(secret, ", cors: { origins: https://a }");
        assert!(told.len() == 1 && told[0].starts_with("/t takes the cookie `session`"), "{told:?}");
    }

    #[test]
    fn snapshots_have_half_of_the_room() {
        let warned =
            |routes: &str| warnings(&sound(&format!("limits: {{ memory: 200MiB }}\n{HEAD}{routes}")));
        let one =
            "  - { path: /a, from: { upstream: k, topic: a }, snapshot: true, tombstone: { event: gone } }\n";
        assert_eq!(
            warned(&format!("{one}{}", one.replace("/a", "/b"))),
            Vec::<String>::new(),
            "they share one"
        );
        let two = format!("{one}{}", one.replace("/a", "/b").replace("topic: a", "topic: b"));
        let told = warned(&two);
        assert!(
            told.len() == 1 && told[0].contains("may take up 128MiB, and there is room for 100MiB of all"),
            "{told:?}"
        );
    }

    #[test]
    fn who_decides_is_not_to_be_asked_in_the_open() {
        let warned = |auth: &str| {
            let config = sound(&format!(
                "{HEAD}  - {{ path: /x, from: {{ upstream: t }} }}\nauth: {{ a: {{ {auth} }} }}\n"
            ));
            warnings(&config)
        };
        for host in ["login.example.com", "10.0.0.1", "[2001:db8::1]:80", "localhost.example.com"] {
            let text = warned(&format!("forward: {{ url: 'http://{host}/auth' }}"));
            assert!(
                text.len() == 1 && text[0].starts_with("`auth.a.forward.url` is asked over plain"),
                "{text:?}"
            );
            assert_eq!(warned(&format!("forward: {{ url: 'https://{host}/auth' }}")), [""; 0]);
            let text = warned(&format!("jwt: {{ jwks: 'http://{host}/keys' }}"));
            assert!(text.len() == 1 && text[0].starts_with("`auth.a.jwt.jwks`"), "{text:?}");
        }
        for host in ["localhost:3000", "127.0.0.2", "[::1]:80", "app.localhost"] {
            assert_eq!(warned(&format!("forward: {{ url: 'http://{host}/auth' }}")), [""; 0], "{host}");
        }
        assert_eq!(warned("client_cert: {}"), [""; 0]);
    }
}
