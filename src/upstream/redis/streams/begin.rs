//! Beginning with a stream: logs that are new are filled and opened, and those of an earlier session are held against
//! what there is now.

use std::sync::Arc;

use super::Streams;
use super::asker::Unanswered;
use super::fill::Filling;
use super::history::StreamReader;
use super::id::{self, EntryCodec};
use super::info::{Info, Loss};
use super::table::Due;
use crate::hub::{Feed, IdCodec, Mark, Offset, Opening, Position, Reason, Segment};
use crate::upstream::link::Link;

/// What the logs of a stream are to be opened with.
pub(super) struct Begun {
    /// The stream, if it is there.
    found: Option<Info>,
    /// What logs that are not open yet begin with.
    filled: Vec<(Arc<Feed>, Vec<Segment>)>,
}

/// Reads what the logs of a stream are opened with, and changes nothing.
pub(super) async fn begin(streams: &Streams, due: &Due) -> Result<Begun, Unanswered> {
    // Both ways of reading are tried, so that what an ACL forbids is found out now.
    streams.asker.may_read(&due.stream).await?;
    let (_, found) = streams.asker.range(&due.stream, id::END, id::END, 1).await?;
    let mut begun = Begun { found, filled: Vec::new() };
    let end = begun.info().last;
    for feed in due.feeds.iter().filter(|feed| feed.log.position().is_none()) {
        let codec: Arc<dyn IdCodec> = Arc::new(EntryCodec);
        let filling = Filling { asker: &streams.asker, memory: &streams.memory, codec: &codec, feed };
        let segments = filling.read(end).await?;
        begun.filled.push((Arc::clone(feed), segments));
    }
    Ok(begun)
}

impl Begun {
    /// The stream as it was found.
    pub(super) fn info(&self) -> Info {
        self.found.unwrap_or_else(Info::none)
    }

    /// Opens the logs that are not open yet, and holds the others against what was found.
    pub(super) fn open(&self, due: &Due, streams: &Streams, link: &Link) {
        for feed in &due.feeds {
            let filled = self.filled.iter().find(|(other, _)| Arc::ptr_eq(other, feed));
            match (filled, feed.log.position()) {
                (Some((_, segments)), _) => open(streams, &due.stream, feed, segments, self.info().last),
                // What is read on meanwhile is looked after by whoever reads it.
                (None, Some(position)) if !due.read && self.found.is_some() => {
                    mend(feed, position.at(0), None, &self.info(), &[], link);
                }
                (None, _) => {}
            }
        }
    }
}

fn open(streams: &Streams, stream: &Arc<str>, feed: &Feed, segments: &[Segment], end: Offset) {
    let codec: Arc<dyn IdCodec> = Arc::new(EntryCodec);
    let start = segments.first().map_or(end, |first| first.from);
    let reader = StreamReader::new(&streams.asker, stream);
    let history = streams.pool.shelf(reader, &feed.key, &codec);
    let (start, end) = (Position::single(start), Position::single(end));
    feed.log.open_filled(Opening { codec, history, segments, start, end });
}

/// What became of a log that was held against its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mended {
    /// It goes on; so many entries are known to be lost.
    On(u64),
    /// It begins anew.
    Anew,
}

/// Holds a log that stands at `at` against its stream, and tells it what is gone; `held` are the ids of entries that
/// follow and are about to be appended.
pub(super) fn mend(
    feed: &Arc<Feed>,
    at: Offset,
    rank: Option<u64>,
    info: &Info,
    held: &[Offset],
    link: &Link,
) -> Mended {
    if info.is_another(at, rank) {
        // Not the beginning of all ids, which to a replica that has yet to see this is that of the old one.
        let beginning = info.born().unwrap_or(info.beginning());
        if feed.log.restart(Arc::new(EntryCodec), Position::single(beginning)) {
            link.tell_gap(feed, Reason::Recreated);
        }
        return Mended::Anew;
    }
    let lost = match info.lost(at, rank, held) {
        Loss::None => return Mended::On(0),
        Loss::Some(lost) => lost,
        Loss::Maybe => 0,
    };
    let next = held.first().copied().or(info.first);
    let mark = Mark::new(0, next.map_or(info.last, id::before));
    for reason in feed.log.append_missing(Reason::Trimmed, mark).gaps {
        link.tell_gap(feed, reason);
    }
    Mended::On(lost)
}
