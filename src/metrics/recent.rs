//! The gaps and errors of late, for people who look: noted where they are counted, the last few of them, and no more room
//! than that whatever happens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// What went wrong of late, each thing once with how often it did.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<Trouble>>);

/// Something that went wrong, and went on for as long as no minute passed without it.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// `gap` or `error`.
    pub kind: &'static str,
    /// The upstream that it happened to.
    pub upstream: Option<Arc<str>>,
    /// The route to a client of which it happened.
    pub route: Option<Arc<str>>,
    /// The reason of a gap, or an error in words.
    pub what: String,
    /// How often.
    pub count: u64,
    /// When it began.
    pub first: SystemTime,
    /// When it was last.
    pub last: SystemTime,
}

/// Whom something happened to.
#[derive(Debug, Clone)]
pub enum Whom {
    /// An upstream.
    Upstream(Arc<str>),
    /// A client of a route.
    Route(Arc<str>),
}

impl Recent {
    /// Notes that something went wrong. What goes on already is counted, so that a thousand of one kind push nothing out.
    pub fn note(&self, kind: &'static str, whom: &Whom, what: &str) {
        let (now, mut noted) = (SystemTime::now(), self.0.lock());
        let goes_on = |other: &Trouble| {
            let pause = now.duration_since(other.last).unwrap_or_default();
            other.kind == kind && other.what == what && other.is_of(whom) && pause < PAUSE
        };
        let trouble = match noted.iter().rposition(goes_on).and_then(|at| noted.remove(at)) {
            Some(trouble) => Trouble { count: trouble.count + 1, last: now, ..trouble },
            None => {
                let (upstream, route) = match whom {
                    Whom::Upstream(name) => (Some(Arc::clone(name)), None),
                    Whom::Route(name) => (None, Some(Arc::clone(name))),
                };
                Trouble { kind, upstream, route, what: what.to_owned(), count: 1, first: now, last: now }
            }
        };
        if noted.len() == KEPT {
            noted.pop_front();
        }
        noted.push_back(trouble);
    }

    /// All that is kept, the newest first.
    pub fn newest(&self) -> Vec<Trouble> {
        self.0.lock().iter().rev().cloned().collect()
    }
}

impl Trouble {
    fn is_of(&self, whom: &Whom) -> bool {
        match whom {
            Whom::Upstream(name) => self.upstream.as_ref() == Some(name),
            Whom::Route(name) => self.route.as_ref() == Some(name),
        }
    }
}

/// How many are kept.
const KEPT: usize = 50;
/// What comes again after that is told anew.
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_counted_and_the_last_are_kept() {
        let (recent, upstream) = (Recent::default(), Whom::Upstream("cache".into()));
        let route = |n: usize| Whom::Route(format!("/{n}").into());
        recent.note("gap", &upstream, "upstream_lost");
        (0..KEPT).for_each(|n| recent.note("gap", &route(n), "lagged"));
        assert_eq!(recent.newest().len(), KEPT);
        assert!(recent.newest().iter().all(|trouble| trouble.upstream.is_none()), "the oldest went");
        (0..1_000).for_each(|_| recent.note("gap", &route(1), "lagged"));
        recent.note("gap", &upstream, "lagged");
        let newest = recent.newest();
        assert_eq!((newest.len(), newest[0].count, newest[1].count), (KEPT, 1, 1_001));
        assert_eq!((newest[0].upstream.as_deref(), newest[1].route.as_deref()), (Some("cache"), Some("/1")));
        assert!(newest[1].first <= newest[1].last);
    }
}
