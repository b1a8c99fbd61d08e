//! Gaps: what a subscriber can no longer be given, and why. Always told, never silent.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::id::IdCodec;
use super::position::{Mark, Position};
use crate::sse;

/// Why events are missing. The text of each stands in `data:`, in the metrics and in the docs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The log no longer holds what follows the client's id.
    Evicted,
    /// The upstream no longer holds what was to be read next.
    Trimmed,
    /// The source was deleted and created again.
    Recreated,
    /// The client read so slowly that the log went past it.
    Lagged,
    /// The id is further back than `replay` allows.
    ReplayLimit,
    /// The link to the upstream was lost, and the upstream keeps no history.
    UpstreamLost,
    /// A payload is not UTF-8, not what its route decodes, or not JSON from which that can make the data.
    Undecodable,
    /// A payload is larger than `max_event`.
    TooLarge,
    /// The id is malformed, of another route, or of another process.
    UnknownId,
    /// The feed was let go for want of clients since the id was given.
    FeedIdle,
    /// The source has more keys than `snapshot` has room for.
    SnapshotLimit,
}

impl Reason {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Trimmed => "trimmed",
            Self::Recreated => "recreated",
            Self::Lagged => "lagged",
            Self::ReplayLimit => "replay_limit",
            Self::UpstreamLost => "upstream_lost",
            Self::Undecodable => "undecodable",
            Self::TooLarge => "too_large",
            Self::UnknownId => "unknown_id",
            Self::FeedIdle => "feed_idle",
            Self::SnapshotLimit => "snapshot_limit",
        }
    }

    /// Every reason there is.
    pub const ALL: [Self; 11] = [
        Self::Evicted,
        Self::Trimmed,
        Self::Recreated,
        Self::Lagged,
        Self::ReplayLimit,
        Self::UpstreamLost,
        Self::Undecodable,
        Self::TooLarge,
        Self::UnknownId,
        Self::FeedIdle,
        Self::SnapshotLimit,
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// One gap. Ranges are half-open: `from` is the first position missing, `to` the first one not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: Reason,
    /// How many events are missing, where that can be known.
    pub missed: Option<u64>,
    /// Which positions are missing, where that can be known.
    pub range: Option<(Position, Position)>,
    /// When the missing events were published, where only the time is known.
    pub span: Option<(SystemTime, SystemTime)>,
    /// The range as the upstream tells it, where it does so itself.
    pub told: Option<Box<(Value, Value)>>,
}

impl Gap {
    /// A gap of which nothing but the reason is known.
    pub fn of(reason: Reason) -> Self {
        Self { reason, missed: None, range: None, span: None, told: None }
    }

    /// A gap from `position` up to `mark`, in its partition.
    pub fn up_to(reason: Reason, position: &Position, mark: Mark, missed: Option<u64>) -> Self {
        let mut to = position.clone();
        to.advance(mark);
        Self { missed, range: Some((position.clone(), to)), ..Self::of(reason) }
    }

    /// Appends the body of the control event that tells it.
    pub fn encode(&self, prefix: &str, codec: &dyn IdCodec, out: &mut Vec<u8>) {
        let time = |time: SystemTime| humantime::format_rfc3339_millis(time).to_string();
        let range = self.range.as_ref();
        let range = range.map(|(from, to)| (codec.bound(from, to), codec.bound(to, from)));
        let (from, to) = self.told.as_deref().cloned().or(range).unzip();
        let data = json!({
            "reason": self.reason.as_str(),
            "missed": self.missed,
            "from": from,
            "to": to,
            "since": self.span.map(|(since, _)| time(since)),
            "until": self.span.map(|(_, until)| time(until)),
        });
        sse::control_body(out, prefix, "gap", &data.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::id::{Epoch, EpochCodec};

    #[test]
    fn the_data_is_one_line_of_json_with_every_member() {
        let gap = Gap {
            missed: Some(3),
            range: Some((Position::new(vec![4]), Position::new(vec![7]))),
            ..Gap::of(Reason::Evicted)
        };
        let mut out = Vec::new();
        gap.encode("stream.", &EpochCodec::new(Epoch::random(), None), &mut out);
        let text = String::from_utf8(out).unwrap();
        let data = text.strip_prefix("event: stream.gap\ndata: ").unwrap();
        let expected =
            json!({"reason": "evicted", "missed": 3, "from": 4, "to": 7, "since": null, "until": null});
        assert_eq!(serde_json::from_str::<serde_json::Value>(data).unwrap(), expected);
    }
}
