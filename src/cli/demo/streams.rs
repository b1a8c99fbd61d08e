//! The streams that the demo shows, as its page and its lines on the terminal tell of them.

use serde_json::{Value, json};

use crate::config::Config;

/// The upstream that the demo does without where no `redis-server` is installed.
pub(super) const REDIS: &str = "cache";

/// One stream.
#[derive(Debug)]
pub(super) struct Shown {
    /// What to open.
    pub(super) path: &'static str,
    /// The path as configured.
    pub(super) route: &'static str,
    /// What it is.
    pub(super) title: &'static str,
    /// Where its events come from.
    about: &'static str,
    /// The names that its events have; without any, `onmessage` fires.
    names: &'static [&'static str],
    /// Whether each message carries a number, by which the page sees that none is missing.
    numbered: Numbered,
    /// The channel that can be written to.
    pub(super) room: Option<&'static str>,
}

/// How the messages of a stream are numbered.
#[derive(Debug, Clone, Copy)]
enum Numbered {
    No,
    /// All in one sequence.
    Together,
    /// Those of each event name on their own.
    ByName,
}

impl Shown {
    /// Whether a configuration has it.
    pub(super) fn is_served(&self, config: &Config) -> bool {
        config.routes.iter().any(|route| &*route.path == self.route)
    }

    /// What the page needs to know.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "path": self.path,
            "route": self.route,
            "title": self.title,
            "about": self.about,
            "names": self.names,
            "numbered": match self.numbered {
                Numbered::No => None,
                Numbered::Together => Some("together"),
                Numbered::ByName => Some("by name"),
            },
            "room": self.room,
        })
    }
}

/// Every stream of `config.yaml`.
pub(super) const ALL: [Shown; 6] = [
    Shown {
        path: "/events",
        route: "/events",
        title: "A text every 3 seconds",
        about: "The built-in ticker",
        names: &[],
        numbered: Numbered::No,
        room: None,
    },
    Shown {
        path: "/events/rooms/lobby",
        route: "/events/rooms/{room}",
        title: "A room to write to",
        about: "What is published to the room, here or with curl",
        names: &[],
        numbered: Numbered::No,
        room: Some("lobby"),
    },
    Shown {
        path: "/events/orders",
        route: "/events/orders",
        title: "Orders",
        about: "Kafka topic orders, 6 partitions",
        names: &[],
        numbered: Numbered::Together,
        room: None,
    },
    Shown {
        path: "/events/orders/named",
        route: "/events/orders/named",
        title: "Orders, as named events",
        about: "The same topic, named by a message header",
        names: &["created", "paid", "packed", "shipped"],
        numbered: Numbered::Together,
        room: None,
    },
    Shown {
        path: "/events/metrics",
        route: "/events/metrics",
        title: "This machine",
        about: "Redis pattern metrics.*, named by the channel",
        names: &["metrics.cpu", "metrics.memory"],
        numbered: Numbered::ByName,
        room: None,
    },
    Shown {
        path: "/events/metrics/cpu",
        route: "/events/metrics/{name}",
        title: "Its processors alone",
        about: "Redis channel metrics.cpu, chosen by the path",
        names: &[],
        numbered: Numbered::Together,
        room: None,
    },
];
