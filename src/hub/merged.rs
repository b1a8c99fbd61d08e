//! Several feeds read as one stream: a layer above what each of them is given, which knows nothing of logs. It takes apart
//! what a feed's own reader gives, shares the bodies, and ends each event with an id that says where the client stands in all
//! feeds.
//!
//! The feeds take turns, and one that has nothing to give is not asked again before it is woken.

use std::iter::Peekable;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::futures::OwnedNotified;

use super::chunk::Times;
use super::composite::Tag;
use super::cursor::Read;
use super::feed::Feed;
use super::gap::Reason;
use super::note;
use super::reader::Reader;
use super::sieve::Withheld;
use super::tell::{Pieces, Refused, Tell};
use crate::config::composite::{LONGEST, PREFIX};
use crate::sse::{self, Block, Blocks};

/// One of several feeds.
pub struct Part {
    /// What clients, and ids, know it by. No other part has the same.
    pub label: Arc<str>,
    /// Its reader. One of several feeds itself tells nothing.
    pub reader: Reader,
    /// The id after which it was asked to go on. Until it has been told another place, a client that is cut comes back with this.
    pub resumes: Option<String>,
}

/// A reader of several feeds.
pub struct Merged {
    /// By their names in ids.
    parts: Vec<Slot>,
    /// The part whose turn is next.
    turn: usize,
    tell: Tell,
    prefix: Arc<str>,
    /// What is told before all else.
    opening: Bytes,
    /// What has been read and not been given.
    rest: Option<Rest>,
    /// Whether a part has got on, or lost its place, without an id that told it.
    is_untold: bool,
    /// Whether one lagged whose clients are to be sent away for that.
    leaves: bool,
}

struct Slot {
    label: Arc<str>,
    tag: Tag,
    reader: Reader,
    /// What ids say of it: its name and its own id; empty where it has none.
    place: String,
    /// What it waits for; `None` if it is of several feeds itself.
    wake: Option<Pin<Box<OwnedNotified>>>,
    /// Whether it may have something to give.
    is_ready: bool,
    /// Whether it has been told where it begins.
    has_begun: bool,
    /// Whether a gap was told, which a position is to follow.
    owes_position: bool,
}

/// What a part gave at once. More than that is never read ahead: it keeps alive what it is sliced out of.
struct Rest {
    part: usize,
    blocks: Peekable<Blocks>,
    times: Option<Times>,
}

/// The part has no room in the id any more.
struct Ended;

impl Merged {
    /// A reader of `parts`, which tells first what it was `refused`. Names of control events begin with `prefix`.
    pub fn new(parts: Vec<Part>, tell: Tell, prefix: Arc<str>, refused: Vec<Refused>) -> Self {
        let mut slots: Vec<_> = parts.into_iter().map(Slot::new).collect();
        slots.sort_by_key(|part| part.tag);
        slots.dedup_by_key(|part| part.tag);
        let mut opening = Vec::new();
        refused.iter().for_each(|refused| refused.write(tell, &prefix, &mut opening));
        Self {
            parts: slots,
            turn: 0,
            tell,
            prefix,
            opening: opening.into(),
            rest: None,
            is_untold: false,
            leaves: false,
        }
    }

    /// Reads on, about `max` bytes at most unless a single event is larger.
    pub fn read(&mut self, max: usize) -> Read {
        if !self.opening.is_empty() {
            return Read::Control { bytes: std::mem::take(&mut self.opening), gaps: Vec::new() };
        }
        if let Some(rest) = self.rest.take() {
            return self.give(rest, max);
        }
        while let Some(part) = self.next_ready() {
            let (bytes, times) = match self.parts[part].reader.read(max) {
                Read::Pending => {
                    self.parts[part].is_ready = false;
                    continue;
                }
                Read::Wait(wake) => {
                    self.parts[part].wait(wake);
                    continue;
                }
                Read::Control { bytes, gaps } => match self.control(part, bytes, gaps) {
                    Some(read) => return read,
                    None => continue,
                },
                Read::Slice { bytes, times, .. } => (vec![bytes], times),
                Read::Pieces { bytes, times, .. } => (bytes, times),
                left_out @ Read::LeftOut(_) => return left_out,
            };
            return self.give(Rest { part, blocks: Blocks::new(bytes).peekable(), times }, max);
        }
        let mut bytes = Vec::new();
        self.write_news(&mut bytes);
        if bytes.is_empty() { Read::Pending } else { Read::Control { bytes: bytes.into(), gaps: Vec::new() } }
    }

    /// The part that reads next, of those that may have something.
    fn next_ready(&mut self) -> Option<usize> {
        let mut turns = (self.turn..self.parts.len()).chain(0..self.turn);
        let next = turns.find(|&part| self.parts[part].is_ready)?;
        self.turn = next + 1;
        Some(next)
    }

    /// Gives events that a part has read; what is too much is kept.
    fn give(&mut self, mut rest: Rest, max: usize) -> Read {
        let (mut out, mut events) = (Pieces::default(), 0);
        // What is added to a block.
        let own = self.id_length() + 2 * self.parts[rest.part].label.len() + MARKS;
        let fits = |block: &Block, written: usize| written == 0 || written + block.body.len() + own <= max;
        while let Some(block) = rest.blocks.next_if(|block| fits(block, out.size())) {
            match self.pass_on(rest.part, &block, &mut out) {
                Ok(passed) => events += passed,
                Err(Ended) => return Read::Pieces { bytes: out.finish(), events, times: rest.times },
            }
        }
        let times = rest.times;
        if rest.blocks.peek().is_some() {
            self.rest = Some(rest);
        }
        Read::Pieces { bytes: out.finish(), events, times }
    }

    /// What a part is told beside events. Nothing where that is its position alone: the next id says that, too.
    fn control(&mut self, part: usize, bytes: Bytes, gaps: Vec<Reason>) -> Option<Read> {
        self.leaves |= gaps.contains(&Reason::Lagged) && self.parts[part].reader.leaves();
        let mut out = Pieces::default();
        self.pass_on_all(part, bytes, &mut out);
        let is_news = out.size() > 0 || !gaps.is_empty();
        is_news.then(|| Read::Control { bytes: out.finish().concat().into(), gaps })
    }

    /// Writes what a part gave, unless it ends in between.
    fn pass_on_all(&mut self, part: usize, bytes: Bytes, out: &mut Pieces) {
        for block in Blocks::new(vec![bytes]) {
            if self.pass_on(part, &block, out).is_err() {
                break;
            }
        }
    }

    /// Writes a block that a part gave, and notes where that stands now. Returns how many events it counts for.
    fn pass_on(&mut self, part: usize, block: &Block, out: &mut Pieces) -> Result<usize, Ended> {
        match &block.id {
            Some(id) => self.moves(part, id, out)?,
            // Who is cut after it comes back to where all began.
            None => self.write_news(out.own()),
        }
        let slot = &mut self.parts[part];
        let control = block.name().and_then(|name| name.strip_prefix(self.prefix.as_bytes()));
        let events = match control {
            Some(b"position") if !slot.owes_position => {
                self.is_untold = true;
                return Ok(0);
            }
            Some(b"position") => {
                slot.owes_position = false;
                sse::control_body(out.own(), &self.prefix, "position", "{}");
                0
            }
            Some(name) => {
                let is_gap = name == b"gap";
                slot.owes_position |= is_gap;
                self.tell.control(&slot.label, block, out);
                usize::from(is_gap)
            }
            None => {
                self.tell.event(&slot.label, &self.prefix, block, out);
                1
            }
        };
        if block.id.is_some() {
            sse::id_block(out.own(), &self.id());
            self.is_untold = false;
        } else {
            out.own().push(b'\n');
        }
        Ok(events)
    }

    /// A part has got to `id`. One whose id leaves no room for the others' ends here: its client could not come back with such
    /// an id, and the others are to be resumed.
    fn moves(&mut self, part: usize, id: &[u8], out: &mut Pieces) -> Result<(), Ended> {
        let slot = &mut self.parts[part];
        slot.has_begun = true;
        slot.place.clear();
        slot.tag.write(id, &mut slot.place);
        if self.id_length() <= LONGEST {
            return Ok(());
        }
        let Slot { label, .. } = self.parts.remove(part);
        self.turn -= usize::from(self.turn > part);
        self.is_untold = true;
        tracing::warn!(feed = %label, "a feed of several was ended: with its id theirs is too long to come back");
        let kind = "urn:ssegate:problem:id-too-long".into();
        let detail =
            "With the event id of this feed the id of all of them is too long to be sent back.".into();
        Refused { label, status: None, kind, detail }.write(self.tell, &self.prefix, out.own());
        Err(Ended)
    }

    /// Where the client stands in all feeds. The order is that of the tags, so that equal places make equal ids.
    fn id(&self) -> String {
        let mut id = String::with_capacity(self.id_length());
        id.push_str(PREFIX);
        id.extend(self.parts.iter().map(|part| &*part.place));
        id
    }

    fn id_length(&self) -> usize {
        PREFIX.len() + self.parts.iter().map(|part| part.place.len()).sum::<usize>()
    }

    /// Tells the position, if that is news and there is one.
    fn write_news(&mut self, out: &mut Vec<u8>) {
        let is_news = std::mem::take(&mut self.is_untold);
        if is_news && self.id_length() > PREFIX.len() {
            note::write_position(&self.id(), &self.prefix, out);
        }
    }

    /// Ready when a part may have something to give.
    pub fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut woken = Poll::Pending;
        for part in &mut self.parts {
            if part.poll_ready(cx).is_ready() {
                woken = Poll::Ready(());
            }
        }
        woken
    }

    /// The control event that tells positions which moved on without an event, if that is news.
    pub fn moved_on(&mut self) -> Option<Bytes> {
        if self.rest.is_some() {
            return None;
        }
        let mut out = Pieces::default();
        // From behind, since one may end.
        for part in (0..self.parts.len()).rev() {
            // As in a silence a reader of one feed, it looks at what nothing but time has changed.
            self.parts[part].is_ready = true;
            if let Some(bytes) = self.parts[part].reader.moved_on() {
                self.pass_on_all(part, bytes, &mut out);
            }
        }
        self.write_news(out.own());
        (out.size() > 0).then(|| out.finish().concat().into())
    }

    /// What filters of the client have withheld since this was asked last.
    pub fn take_withheld(&mut self) -> Option<Withheld> {
        self.parts.iter_mut().filter_map(|part| part.reader.take_withheld()).reduce(Withheld::and)
    }

    /// Whether what one of them read last was much work for a filter of the client.
    pub fn is_tired(&self) -> bool {
        self.parts.iter().any(|part| part.reader.is_tired())
    }

    /// Whether one of them reads what only its upstream still holds.
    pub fn replays(&self) -> bool {
        self.parts.iter().any(|part| part.reader.replays())
    }

    /// The sum of the numbers of the entries before which they stand, if they all do.
    pub fn stands(&self) -> Option<u64> {
        self.parts.iter().map(|part| part.reader.stands()).sum()
    }

    /// Whether one of them has not been told yet where it begins.
    pub fn is_deciding(&self) -> bool {
        self.parts.iter().any(|part| !part.has_begun || part.reader.is_deciding())
    }

    /// Whether ids say nothing of one of them, which has not been told yet where it begins. Who came back with one would miss what
    /// that had meanwhile.
    pub fn lacks_place(&self) -> bool {
        self.parts.iter().any(|part| !part.has_begun && part.place.is_empty())
    }

    /// Whether one lagged whose clients are to be sent away for that.
    pub fn leaves(&self) -> bool {
        self.leaves
    }

    /// Their feeds.
    pub fn feeds(&self) -> Vec<Arc<Feed>> {
        self.parts.iter().flat_map(|part| part.reader.feeds()).collect()
    }
}

impl Slot {
    fn new(part: Part) -> Self {
        let Part { label, reader, resumes } = part;
        let (tag, mut place) = (Tag::of(&label), String::new());
        tag.write(resumes.unwrap_or_default().as_bytes(), &mut place);
        let wake = reader.wake().map(Box::pin);
        Self { label, tag, reader, place, wake, is_ready: true, has_begun: false, owes_position: false }
    }

    /// It has nothing to give before this.
    fn wait(&mut self, wake: OwnedNotified) {
        self.is_ready = false;
        match &mut self.wake {
            Some(pinned) => pinned.set(wake),
            None => self.wake = Some(Box::pin(wake)),
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_ready {
            return Poll::Ready(());
        }
        let woken = match &mut self.wake {
            Some(wake) => wake.as_mut().poll(cx),
            None => self.reader.poll_wake(cx),
        };
        if woken.is_ready() {
            self.is_ready = true;
            // From before it reads, so that nothing is missed.
            if let (Some(wake), Some(next)) = (&mut self.wake, self.reader.wake()) {
                wake.set(next);
            }
        }
        woken
    }
}

/// Bytes that a block has for its name, its id and members of its data beside what these say.
const MARKS: usize = 64;

#[cfg(test)]
mod tests;
