//! One source of a route: with which parameters of the path it can be read, and which feed that is.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

use super::router::Miss;
use crate::config::{self, Config, Field, OneSource, Start, Template};
use crate::hub::{Binding, FeedKey, Opens, Rows, Source};
use crate::schema::{Decoder, Registries};
use crate::shape::{Shape, Wrap};

/// The parameters of a path, decoded.
pub(super) type Params<'p> = HashMap<&'p str, Cow<'p, str>>;

/// One source of a route, and what the route makes of its records.
pub(super) struct RouteSource {
    upstream: Arc<str>,
    source: config::Source,
    start: Start,
    /// The most bytes that what it reads may have in its name.
    longest_name: usize,
    shape: Shape,
}

impl RouteSource {
    /// One of `route`'s.
    pub fn new(route: &config::Route, own: OneSource<'_>, config: &Config, registries: &Registries) -> Self {
        let upstream = config.upstreams.iter().find(|upstream| upstream.name == *own.upstream);
        let is_topic = matches!(own.source, config::Source::Topic(_) | config::Source::Keyed { .. });
        let is_stream = matches!(own.source, config::Source::Stream(_));
        let shape = Shape {
            event: route.event.clone(),
            // Of what others than this one have, nothing tells its feed from that of another route.
            tombstone: route.tombstone.clone().filter(|_| is_topic),
            filter: route.filter.clone(),
            data: route.data.clone().filter(|_| is_stream),
            projection: route.projection.clone(),
            wrap: route.wrap.map(|wrap| match wrap {
                config::Wrap::CloudEvents => Wrap::CloudEvent(Arc::clone(own.upstream)),
                config::Wrap::Envelope if is_topic => Wrap::Envelope("topic"),
                config::Wrap::Envelope if is_stream => Wrap::Envelope("stream"),
                config::Wrap::Envelope => Wrap::Envelope("channel"),
            }),
            binary: route.binary,
            // The process's own takes a restart, and the route's may not.
            max_event: route.max_event.unwrap_or(usize::MAX).min(config.limits.max_event),
            control_prefix: Arc::clone(&config.server.control_prefix),
            digest: Arc::clone(own.digest),
            decode: Decoder::new(&route.decode, registries),
        };
        Self {
            upstream: Arc::clone(own.upstream),
            source: own.source.clone(),
            start: own.start,
            longest_name: upstream.and_then(|upstream| upstream.kind.longest_name()).unwrap_or(usize::MAX),
            shape,
        }
    }

    /// Whether its feed is another one for other parameters, of what is read alone.
    pub fn has_params(&self) -> bool {
        match &self.source {
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
        }
    }

    /// The feed for these parameters, unless it cannot be read with one of them.
    pub fn checked(&self, params: &Params<'_>) -> Result<Opens, Miss> {
        if params.iter().any(|(name, value)| self.source.refuses(name, value)) {
            return Err(Miss::BadParameter);
        }
        let opens = self.opens(params);
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

    /// The feed for these parameters.
    pub fn opens(&self, params: &Params<'_>) -> Opens {
        let param = |field: &Field| match field {
            Field::Param(name) => params.get(&**name).cloned(),
            _ => None,
        };
        let source = match &self.source {
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
        let key = match &self.source {
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
        let feed = FeedKey { upstream: Arc::clone(&self.upstream), source, shape };
        Opens { feed, key, start: Some(self.start), also: Vec::new() }
    }
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
    fn glob_characters_stand_for_themselves() {
        assert_eq!(escape_glob("a*b?[c-d]\\"), r"a\*b\?\[c\-d\]\\");
    }
}
