//! What a route reads: a source of an upstream, or several where its `from:` is a list.

use std::sync::Arc;
use std::time::Duration;

use super::{Digest, Route, Table, Template};

/// One more entry of a `from:` that is a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Also {
    /// `upstream`: the name of an upstream that exists.
    pub upstream: Arc<str>,
    /// What is read from it.
    pub source: Source,
    /// `start`: where a client without an id begins in it. Default `latest`.
    pub start: Start,
    /// What of its records is kept.
    pub digest: Arc<Digest>,
}

/// One source of a route.
#[derive(Debug, Clone, Copy)]
pub struct OneSource<'r> {
    /// The name of its upstream.
    pub upstream: &'r Arc<str>,
    /// What is read from it.
    pub source: &'r Source,
    /// Where a client without an id begins in it.
    pub start: Start,
    /// What of its records is kept.
    pub digest: &'r Arc<Digest>,
}

impl Route {
    /// Its sources, in the order of the file. There is one at least.
    pub fn sources(&self) -> impl Iterator<Item = OneSource<'_>> {
        let Self { upstream, source, start, digest, .. } = self;
        let first = OneSource { upstream, source, start: *start, digest };
        let also = self.also.iter().map(|Also { upstream, source, start, digest }| OneSource {
            upstream,
            source,
            start: *start,
            digest,
        });
        std::iter::once(first).chain(also)
    }
}

/// What a route reads: `from:` without the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `channel`: of a `redis`, `push` or `postgres` upstream; may hold path parameters.
    Channel(Template),
    /// `pattern`: of a `redis` upstream, as for PSUBSCRIBE; parameters have their glob characters escaped.
    Pattern(Template),
    /// `topic`: of a `kafka` upstream; may hold path parameters.
    Topic(Template),
    /// `shard_channel`: of a `redis` upstream, as for SSUBSCRIBE; may hold path parameters.
    ShardChannel(Template),
    /// `topic` and `key`: of a `kafka` upstream; both may hold path parameters. Each client sees the records of one
    /// key.
    Keyed {
        /// The topic.
        topic: Template,
        /// The key.
        key: Template,
        /// `partitioner`: which partition holds it.
        partitioner: Partitioner,
    },
    /// `stream`: of a `redis` or `amqp` upstream; may hold path parameters.
    Stream(Template),
    /// Nothing to name: a `ticker` upstream.
    Ticker,
    /// Nothing to name: a `file` or `stdin` upstream.
    Lines,
    /// `table`: of a `postgres` upstream.
    Table {
        /// The table.
        table: Arc<Table>,
        /// What the columns that `where` names are to be; may hold path parameters.
        values: Vec<Template>,
    },
    /// `exchange`: of an `amqp` upstream; all of it may hold path parameters, without wildcards.
    Exchange {
        /// The exchange.
        exchange: Template,
        /// `routing_key`: empty where it is left out.
        routing_key: Template,
        /// `arguments`: names and values.
        arguments: Vec<(Arc<str>, Template)>,
    },
    /// `path`: of an `sse` or `http` upstream, below its URL, with a query perhaps; may hold path parameters, which are
    /// percent-encoded.
    Path(Template),
    /// `subject`: of a `nats` upstream, wildcards included; each parameter is one token.
    Subject(Template),
    /// `jetstream`: of a `nats` upstream, which keeps it; with `subject` that part of it alone.
    Jetstream {
        /// The stream's name.
        stream: Arc<str>,
        /// Of which subjects; all without it.
        subject: Option<Template>,
    },
    /// `topic`: of an `mqtt` upstream, wildcards included; each parameter is one level.
    Filter {
        /// The topic filter.
        topic: Template,
        /// `qos`: how surely the broker hands messages over. Default 0.
        qos: Qos,
    },
}

/// `from.qos:`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Qos {
    /// `0`: at most once.
    AtMostOnce,
    /// `1`: at least once.
    AtLeastOnce,
}

/// `from.partitioner:`, what the topic's producers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Partitioner {
    /// `murmur2`: what Kafka's own clients do by default, librdkafka's `murmur2` and `murmur2_random` too.
    Murmur2,
    /// `crc32`: librdkafka's `consistent` and `consistent_random`, its default.
    Crc32,
    /// `any`: a key may be in any partition.
    Any,
}

/// `from.start:`, of sources whose upstream keeps history, and of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// `latest`: with what comes next.
    Latest,
    /// `earliest`: with the oldest that the upstream still holds; of lines, with the oldest that memory does.
    Earliest,
    /// `{ since: 1h }`: with what is not older than this when the client comes. At most 365 days.
    Since(Duration),
}
