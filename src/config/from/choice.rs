//! Which keys of `from` name a source of which kind of upstream, and which of them is meant.

use super::super::fields::Fields;
use super::super::model::Source;
use super::super::suggest;
use super::super::tree::Entry;
use super::super::upstreams::Kind;
use super::super::walk::Walk;

/// The keys that name a source.
const SOURCES: [&str; 10] = [
    "channel",
    "pattern",
    "shard_channel",
    "topic",
    "stream",
    "table",
    "exchange",
    "path",
    "subject",
    "jetstream",
];

/// The entries of `from` that name a source.
pub(super) fn named<'n>(fields: &Fields<'n>) -> Vec<&'n Entry> {
    // Beside `jetstream`, `subject` says which part of it.
    let part = fields.entry("jetstream").and(fields.entry("subject"));
    fields
        .present()
        .filter(|entry| SOURCES.contains(&entry.key.text.as_str()))
        .filter(|entry| part.is_none_or(|part| part.key.text != entry.key.text))
        .collect()
}

/// Reports sources that do not fit the upstream, several of them, and none.
pub(super) fn check(walk: &Walk<'_>, fields: &Fields<'_>, kind: Option<Kind>, sources: &[&Entry]) {
    let takes = takes(kind);
    let fits = |entry: &Entry| kind.is_none_or(|kind| kind.sources().contains(&entry.key.text.as_str()));
    for misfit in sources.iter().filter(|entry| !fits(entry)) {
        let (key, kind) = (&misfit.key, kind.map_or("", Kind::name));
        walk.problem(key.span, format!("{} upstream has no `{}`; {takes}", suggest::one(kind), key.text));
    }
    let mut fitting = sources.iter().copied().filter(|entry| fits(entry));
    if let Some(chosen) = fitting.next() {
        for other in fitting {
            let text = format!(
                "a route reads one source, this one has `{}` already; keep one of them",
                chosen.key.text
            );
            walk.conflict(other.key.span, text, chosen.key.span, "the other source");
        }
    } else if sources.is_empty() && kind.is_some_and(|kind| kind.only_source().is_none()) {
        walk.problem(fields.span(), format!("`from` does not say what to read; {takes}"));
    }
}

fn takes(kind: Option<Kind>) -> String {
    match kind {
        Some(kind) if !kind.sources().is_empty() => {
            format!("it takes {}", suggest::list(kind.sources(), "or"))
        }
        _ => "it takes nothing but `upstream`".to_owned(),
    }
}

impl Kind {
    /// The keys that name a source of this kind.
    fn sources(self) -> &'static [&'static str] {
        match self {
            Self::Redis => &["channel", "pattern", "shard_channel", "stream"],
            Self::Kafka => &["topic"],
            Self::Push => &["channel"],
            Self::Ticker | Self::File | Self::Stdin => &[],
            Self::Postgres => &["channel", "table"],
            Self::Amqp => &["exchange", "stream"],
            Self::Sse | Self::Http => &["path"],
            Self::Nats => &["subject", "jetstream"],
            Self::Mqtt => &["topic"],
        }
    }

    /// What there is to read without naming it.
    pub(super) fn only_source(self) -> Option<Source> {
        match self {
            Self::Ticker => Some(Source::Ticker),
            Self::File | Self::Stdin => Some(Source::Lines),
            _ => None,
        }
    }
}
