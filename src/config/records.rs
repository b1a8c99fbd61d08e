//! What records a route reads, and which fields these have. Where it reads several sources, what is said of its events has to
//! fit the records of each.

use std::fmt;

use super::from::From;
use super::model::Source;
use super::template::Field;
use super::upstreams::Kind;

/// The records of each source of a route, as far as these are known.
#[derive(Debug)]
pub(super) struct AllRecords(Vec<Option<Records>>);

impl AllRecords {
    /// Those of these sources.
    pub fn of(from: &[From]) -> Self {
        Self(from.iter().map(Records::of).collect())
    }

    /// Those of one.
    pub fn only(records: Records) -> Self {
        Self(vec![Some(records)])
    }

    /// Those that are known, in the order of the sources.
    pub fn known(&self) -> impl Iterator<Item = Records> {
        self.0.iter().copied().flatten()
    }

    /// Those of the source at this place.
    pub fn at(&self, place: usize) -> Option<Records> {
        *self.0.get(place)?
    }

    /// Why some of them cannot fill a field, to follow its name.
    pub fn refusal(&self, field: &Field) -> Option<String> {
        self.known().find_map(|records| records.refusal(field))
    }

    /// The first that have no such field.
    pub fn lacking(&self, field: &Field) -> Option<Records> {
        self.known().find(|records| records.refusal(field).is_some())
    }

    /// The first of them, where all are known and none of them are `wanted`.
    pub fn instead_of(&self, wanted: Records) -> Option<Records> {
        let is_none = self.0.iter().all(|records| records.is_some_and(|records| records != wanted));
        self.known().next().filter(|_| is_none)
    }
}

/// What records a source has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Records {
    /// Messages of Redis channels.
    Channel,
    /// Entries of a Redis stream.
    Stream,
    /// Rows of a table.
    Row,
    /// Messages of RabbitMQ, whether of an exchange or of a stream.
    Message,
    /// Those of a kind of upstream that has one sort alone.
    Of(Kind),
}

impl Records {
    /// Those of a source, as far as it is known.
    fn of(from: &From) -> Option<Self> {
        match (from.kind?, &from.source) {
            (Kind::Redis, Some(Source::Stream(_))) => Some(Self::Stream),
            (Kind::Redis, Some(_)) => Some(Self::Channel),
            (Kind::Redis, None) => None,
            (Kind::Postgres, Some(Source::Table { .. })) => Some(Self::Row),
            (Kind::Postgres, None) => None,
            (Kind::Amqp, _) => Some(Self::Message),
            (kind, _) => Some(Self::Of(kind)),
        }
    }

    /// Why they cannot fill a field, to follow its name.
    pub(super) fn refusal(self, field: &Field) -> Option<String> {
        let fits = match field {
            Field::Channel => matches!(self, Self::Channel | Self::Of(Kind::Push | Kind::Postgres)),
            Field::Topic => matches!(self, Self::Of(Kind::Kafka | Kind::Mqtt)),
            Field::Header(_) => {
                matches!(self, Self::Message | Self::Of(Kind::Kafka | Kind::Nats | Kind::Mqtt))
            }
            Field::RoutingKey => self == Self::Message,
            Field::Key => matches!(self, Self::Row | Self::Of(Kind::Kafka)),
            Field::Subject => self == Self::Of(Kind::Nats),
            Field::Stream | Field::Entry(_) => self == Self::Stream,
            Field::Param(_) | Field::Event(_) => true,
        };
        let has = match self {
            Self::Channel | Self::Of(Kind::Push | Kind::Postgres) => "these have `{channel}`",
            Self::Message | Self::Of(Kind::Amqp) => "these have `{routing_key}` and `{header.NAME}`",
            Self::Row => "these have `{key}`, and names of their own by `columns.event`",
            Self::Stream => "these have `{stream}` and `{field.NAME}`",
            Self::Of(Kind::Kafka) => "these have `{topic}`, `{key}` and `{header.NAME}`",
            Self::Of(Kind::Nats) => "these have `{subject}` and `{header.NAME}`",
            Self::Of(Kind::Mqtt) => "these have `{topic}` and `{header.NAME}`",
            Self::Of(Kind::Ticker | Kind::Redis | Kind::File | Kind::Stdin | Kind::Sse | Kind::Http) => {
                "use parameters of the path alone"
            }
        };
        (!fits).then(|| format!("is not in {self}; {has}"))
    }
}

impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel => f.write_str("the messages of a Redis channel"),
            Self::Stream => f.write_str("the entries of a stream"),
            Self::Row => f.write_str("the rows of a table"),
            Self::Message => f.write_str("the messages of RabbitMQ"),
            Self::Of(kind) => write!(f, "the records of a `{}` upstream", kind.name()),
        }
    }
}
