//! From host and path to a route, and from a route and its parameters to the feed it opens.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{self, Config, Field, Template};
use crate::hub::{Bounds, FeedKey, Opens, Policy, Source, Terms};
use crate::metrics::{Metrics, RouteMetrics};
use crate::shape::Shape;

/// The most bytes that a path parameter may have once decoded.
const PARAM: usize = 256;

/// Every route, by host and path.
pub struct Router {
    hosts: HashMap<Arc<str>, matchit::Router<Arc<Route>>>,
    any_host: matchit::Router<Arc<Route>>,
    routes: Vec<Arc<Route>>,
}

/// A route while it is served.
pub struct Route {
    /// Its configuration.
    pub config: config::Route,
    /// Host and path as configured, which is how logs and metrics call it.
    pub name: String,
    /// What is counted for it.
    pub metrics: RouteMetrics,
    shape: Shape,
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
    /// The routes of a configuration, in which no two are the same or ambiguous.
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        let mut router = Self { hosts: HashMap::new(), any_host: matchit::Router::new(), routes: Vec::new() };
        for route in &config.routes {
            let route = Arc::new(Route::new(route, config, metrics));
            let paths = match &route.config.host {
                Some(host) => router.hosts.entry(Arc::clone(host)).or_default(),
                None => &mut router.any_host,
            };
            let inserted = paths.insert(&*route.config.path, Arc::clone(&route));
            inserted.expect("the configuration has neither bad nor ambiguous paths");
            router.routes.push(route);
        }
        router
    }

    /// Every route, in the order of the file.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route for a host (without port) and a path, if there is one, and the feed that it opens. A route that
    /// names the host goes before one that does not.
    pub fn find(&self, host: &str, path: &str) -> Option<(&Arc<Route>, Result<Opens, Miss>)> {
        let named = self.hosts.get(host.to_ascii_lowercase().as_str()).and_then(|paths| paths.at(path).ok());
        let found = named.or_else(|| self.any_host.at(path).ok())?;
        Some((found.value, found.value.checked_feed(found.params.iter())))
    }
}

impl Route {
    fn new(route: &config::Route, config: &Config, metrics: &Metrics) -> Self {
        let name = format!("{}{}", route.host.as_deref().unwrap_or_default(), route.path);
        let shape = Shape {
            event: route.event.clone(),
            tombstone: route.tombstone.clone(),
            data: route.data.clone(),
            binary: route.binary,
            max_event: config.limits.max_event,
            control_prefix: Arc::clone(&config.server.control_prefix),
        };
        Self { config: route.clone(), metrics: metrics.route(&name), name, shape }
    }

    /// The feed of a route whose source and shape have no parameters: held always. `None` for any other.
    pub fn held_feed(&self) -> Option<FeedKey> {
        let in_source = match &self.config.source {
            config::Source::Channel(name)
            | config::Source::Pattern(name)
            | config::Source::ShardChannel(name)
            | config::Source::Topic(name)
            | config::Source::Stream(name) => name.has_params(),
            config::Source::Keyed { topic, .. } => topic.has_params(),
            config::Source::Ticker => false,
        };
        let names = [&self.config.event, &self.config.tombstone];
        let in_event = names.into_iter().flatten().any(Template::has_params);
        (!in_source && !in_event).then(|| self.feed(&HashMap::new()).feed)
    }

    /// How its feeds are kept.
    pub fn policy(&self) -> Policy {
        let config::History { events, bytes, age } = self.config.history;
        let bounds = Bounds { events, bytes, age, buffer: self.config.buffer };
        Policy { bounds, linger: self.config.linger, idle_timeout: self.config.idle_timeout }
    }

    /// What it grants subscribers.
    pub fn terms(&self) -> Terms {
        Terms { start: self.config.start, replay: self.config.replay, on_lag: self.config.on_lag }
    }

    /// The feed for these parameters as they stand in the path, unless one of them is not what it must be.
    fn checked_feed<'p>(&self, raw: impl Iterator<Item = (&'p str, &'p str)>) -> Result<Opens, Miss> {
        let mut params = HashMap::new();
        for (name, value) in raw {
            let value = decode(value)?;
            if self.config.params.get(name).is_some_and(|pattern| !pattern.matches(&value)) {
                return Err(Miss::Unmatched);
            }
            params.insert(name, value);
        }
        Ok(self.feed(&params))
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
        };
        let key = match &self.config.source {
            config::Source::Keyed { key, .. } => Some(key.fill(param).into_bytes().into()),
            _ => None,
        };
        let bound = |name: &Option<Template>| {
            name.as_ref().map(|name| name.bind(|field| param(field).map(Cow::into_owned)))
        };
        let (event, tombstone) = (bound(&self.shape.event), bound(&self.shape.tombstone));
        let shape = Shape { event, tombstone, ..self.shape.clone() };
        Opens { feed: FeedKey { upstream: Arc::clone(&self.config.upstream), source, shape }, key }
    }
}

/// One path segment, percent-decoded.
fn decode(segment: &str) -> Result<Cow<'_, str>, Miss> {
    let value =
        percent_encoding::percent_decode_str(segment).decode_utf8().map_err(|_| Miss::BadParameter)?;
    let fitting = !value.is_empty() && value.len() <= PARAM && !value.chars().any(char::is_control);
    fitting.then_some(value).ok_or(Miss::BadParameter)
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

    #[test]
    fn glob_characters_stand_for_themselves() {
        assert_eq!(escape_glob("a*b?[c-d]\\"), r"a\*b\?\[c\-d\]\\");
    }
}
