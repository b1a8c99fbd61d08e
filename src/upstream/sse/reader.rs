//! One feed of a path: its log and its ids, and how steps become entries.

use std::sync::Arc;
use std::time::SystemTime;

use super::ids::{FIRST, Ids, Takes};
use super::step::{Message, Step, What};
use crate::hub::{Feed, Gap, History, IdCodec, Mark, Opening, Position, Reason};
use crate::upstream::link::Link;

/// A feed whose log is open.
pub(super) struct Reader {
    pub feed: Arc<Feed>,
    pub ids: Arc<Ids>,
}

impl Reader {
    /// Opens the log of a feed, which begins here.
    pub(super) fn open(feed: &Arc<Feed>, ids: Arc<Ids>, takes: Takes) -> Self {
        let start = Position::new(vec![FIRST]);
        if takes == Takes::None {
            feed.log.open(Arc::clone(&ids) as Arc<dyn IdCodec>, start);
        } else {
            let (codec, history) =
                (Arc::clone(&ids) as Arc<dyn IdCodec>, Arc::clone(&ids) as Arc<dyn History>);
            feed.log.open_filled(Opening { codec, history, segments: &[], start: start.clone(), end: start });
        }
        Self { feed: Arc::clone(feed), ids }
    }

    /// Appends what came.
    pub(super) fn take_in(&self, steps: &[Step], link: &Link) {
        let Some(mut number) = self.number() else { return };
        // Their ids are written with them.
        self.ids.learn(number + 1, steps);
        for run in steps.chunk_by(|a, b| a.is_event() && b.is_event()) {
            let first = number + 1;
            number += run.len() as u64;
            match &run[0].what {
                What::Event(_) => {
                    let numbered = (first..).zip(run).filter_map(|(number, step)| match &step.what {
                        What::Event(event) => {
                            Some((Some(Mark::new(0, number)), Message { path: &self.ids.path, event }))
                        }
                        _ => None,
                    });
                    link.deliver(&self.feed, numbered);
                }
                What::TooLarge => {
                    self.gap(Gap { missed: Some(1), ..Gap::of(Reason::TooLarge) }, number, link);
                }
                What::Gap(gap) => self.gap(gap.clone(), number, link),
                What::Moved => self.feed.log.move_on(Mark::new(0, number)),
            }
        }
    }

    /// What was published since then is lost.
    pub(super) fn lose(&self, since: SystemTime, id: Option<Arc<str>>, link: &Link) {
        let gap = Gap { span: Some((since, SystemTime::now())), ..Gap::of(Reason::UpstreamLost) };
        self.take_in(&[Step { what: What::Gap(gap), id }], link);
    }

    fn gap(&self, gap: Gap, number: u64, link: &Link) {
        let at = |number| Position::new(vec![number]);
        let range = Some((at(number - 1), at(number)));
        link.deliver_gap(&self.feed, &Gap { range, ..gap }, Mark::new(0, number));
    }

    fn number(&self) -> Option<u64> {
        self.feed.log.position().map(|position| position.next(0))
    }
}
