//! Several feeds read as one stream: a layer above what each of them is given, which knows nothing of logs. It takes apart
//! what a feed's own reader gives, shares the bodies, and ends each event with an id that says where the client stands in all
//! feeds.
//!
//! The feeds take turns, and one that has nothing to give is not asked again before it is woken. Those that read what only an
//! upstream still holds are read when their stream has its turn for that, and do not hold up the others.

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
    parts: Vec<Strand>,
    /// What clients call those that have ended, until that is asked.
    ended: Vec<Arc<str>>,
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
    /// Whether what was read last was much work for a filter of the client.
    is_tired: bool,
    /// Whether one lagged whose clients are to be sent away for that.
    leaves: bool,
    /// Whether none is read on before ids say something of all.
    begins_together: bool,
}

/// One of the feeds as it is read, or was.
struct Strand {
    label: Arc<str>,
    tag: Tag,
    /// `None` where its client is not given it, or not any more: it is here for its place alone.
    reader: Option<Reader>,
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
        let kept = |refused: &Refused| Strand::kept(&refused.label, refused.resumes.as_deref());
        let mut parts: Vec<_> = parts.into_iter().map(Strand::new).chain(refused.iter().map(kept)).collect();
        parts.sort_by_key(|part| part.tag);
        // Labels differ. Should the tags of two be the same against all odds, ids could not tell them apart: the one that is
        // read is left, of two that are read the first.
        parts.dedup_by_key(|part| part.tag);
        let mut opening = Vec::new();
        refused.iter().for_each(|refused| refused.write(tell, &prefix, &mut opening));
        Self {
            parts,
            ended: Vec::new(),
            turn: 0,
            tell,
            prefix,
            opening: opening.into(),
            rest: None,
            is_untold: false,
            is_tired: false,
            leaves: false,
            begins_together: false,
        }
    }

    /// None is read on before ids say something of all.
    pub fn begin_together(&mut self) {
        self.begins_together = true;
    }

    /// Reads on, about `max` bytes at most unless a single event is larger: of the parts that read `history`, which is what only
    /// their upstreams still hold, or else of the others.
    pub fn read_in(&mut self, history: bool, max: usize) -> Read {
        self.is_tired = false;
        if !self.opening.is_empty() {
            return Read::Control { bytes: std::mem::take(&mut self.opening), gaps: Vec::new() };
        }
        if let Some(rest) = self.rest.take() {
            return self.give(rest, max);
        }
        while let Some(part) = self.next_ready(history) {
            self.turn = part + 1;
            if let Some(read) = self.read_part(part, history, max) {
                return read;
            }
            if self.is_tired {
                // Each of the others may be as much work.
                return Read::Pieces { bytes: Vec::new(), events: 0, times: None };
            }
        }
        let mut bytes = Vec::new();
        self.write_news(&mut bytes);
        if bytes.is_empty() { Read::Pending } else { Read::Control { bytes: bytes.into(), gaps: Vec::new() } }
    }

    /// The part that reads next, of those that may have something there.
    fn next_ready(&self, history: bool) -> Option<usize> {
        let awaits = self.awaits_places();
        let mut turns = (self.turn..self.parts.len()).chain(0..self.turn);
        turns.find(|&part| self.parts[part].may_give(history, awaits))
    }

    /// Whether it may find something in `history`, or else in memory. There it also gives what it has read already, and finds that
    /// there is nothing.
    pub fn is_ready(&self, history: bool) -> bool {
        if self.rest.is_some() || !self.opening.is_empty() {
            return !history;
        }
        let is_history = self.next_ready(true).is_some();
        if history { is_history } else { !is_history || self.next_ready(false).is_some() }
    }

    /// Whether those of which ids say something wait for the others.
    fn awaits_places(&self) -> bool {
        self.begins_together && self.lacks_place()
    }

    /// What a part gives, if it has something.
    fn read_part(&mut self, part: usize, history: bool, max: usize) -> Option<Read> {
        let reader = self.parts[part].reader.as_mut()?;
        let read = reader.read_in(history, max);
        self.is_tired = reader.is_tired();
        let (bytes, times) = match read {
            Read::Pending => {
                self.parts[part].is_ready = false;
                return None;
            }
            Read::Wait(wake) => {
                self.parts[part].wait(wake);
                return None;
            }
            Read::Control { bytes, gaps } => return self.control(part, bytes, gaps),
            Read::Slice { bytes, times, .. } => (vec![bytes], times),
            Read::Pieces { bytes, times, .. } => (joined(bytes), times),
            left_out @ Read::LeftOut(_) => return Some(left_out),
        };
        Some(self.give(Rest { part, blocks: Blocks::new(bytes).peekable(), times }, max))
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
        let leaves = self.parts[part].reader.as_ref().is_some_and(Reader::leaves);
        self.leaves |= leaves && gaps.contains(&Reason::Lagged);
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
            // It tells no place. Who is cut after it comes back with the last that he was told: were that none of all, he would
            // begin anew, and miss of the others what came meanwhile.
            None => self.write_news(out.own()),
        }
        let strand = &mut self.parts[part];
        let control = block.name().and_then(|name| name.strip_prefix(self.prefix.as_bytes()));
        let events = match control {
            Some(b"position") if !strand.owes_position => {
                self.is_untold = true;
                return Ok(0);
            }
            Some(b"position") => {
                strand.owes_position = false;
                sse::control_body(out.own(), &self.prefix, "position", "{}");
                0
            }
            Some(name) => {
                let is_gap = name == b"gap";
                strand.owes_position |= is_gap;
                self.tell.control(&strand.label, block, out);
                usize::from(is_gap)
            }
            None => {
                self.tell.event(&strand.label, &self.prefix, block, out);
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

    /// A part has got to `id`. Where the places of all have no room in one id then, with which no client could come back, the
    /// longest of them have to go.
    fn moves(&mut self, part: usize, id: &[u8], out: &mut Pieces) -> Result<(), Ended> {
        let strand = &mut self.parts[part];
        strand.has_begun = true;
        let mut before = std::mem::take(&mut strand.place);
        strand.tag.write(id, &mut strand.place);
        while self.id_length() > LONGEST {
            // Those of what is not read go first, if that is enough.
            let unread = self.parts.iter().filter(|part| part.reader.is_none());
            let is_enough = self.id_length() - unread.map(|part| part.place.len()).sum::<usize>() <= LONGEST;
            let length = |part: &Strand| (part.reader.is_none() == is_enough, part.place.len());
            let with_place = (0..self.parts.len()).filter(|&part| !self.parts[part].place.is_empty());
            let Some(longest) = with_place.max_by_key(|&part| length(&self.parts[part])) else { break };
            // The part that moved has been told the place before, which may have room.
            self.parts[longest].place =
                if longest == part { std::mem::take(&mut before) } else { String::new() };
            self.end(longest, out);
        }
        if self.parts[part].reader.is_some() { Ok(()) } else { Err(Ended) }
    }

    /// A part is not read any more, if it was, for want of room in the id.
    fn end(&mut self, part: usize, out: &mut Pieces) {
        let strand = &mut self.parts[part];
        if strand.reader.take().is_none() {
            return;
        }
        (strand.wake, strand.is_ready, strand.owes_position) = (None, false, false);
        let label = Arc::clone(&strand.label);
        self.ended.push(Arc::clone(&label));
        self.rest.take_if(|rest| rest.part == part);
        self.is_untold = true;
        let kind = "urn:ssegate:problem:id-too-long".into();
        let detail =
            "With the event id of this feed the id of all of them is too long to be sent back.".into();
        let refused = Refused { label, status: None, kind, detail, resumes: None };
        refused.write(self.tell, &self.prefix, out.own());
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
        let is_news = !self.awaits_places() && std::mem::take(&mut self.is_untold);
        if is_news && self.id_length() > PREFIX.len() {
            note::write_position(&self.id(), &self.prefix, out);
        }
    }

    /// Ready when a part may have something to give. Each of the others wakes the task when it has.
    pub fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (awaits, mut woken) = (self.awaits_places(), Poll::Pending);
        for part in &mut self.parts {
            if part.poll_ready(cx).is_ready() && (!awaits || part.lacks_place()) {
                woken = Poll::Ready(());
            }
        }
        woken
    }

    /// The control event that tells positions which moved on without an event, if that is news.
    pub fn moved_on(&mut self) -> Option<Bytes> {
        // Of a part that has given more than was passed on, the place is behind that.
        let waits = self.rest.as_ref().map(|rest| rest.part);
        if waits.is_some_and(|part| self.parts[part].owes_position) {
            return None;
        }
        let mut out = Pieces::default();
        for part in (0..self.parts.len()).filter(|&part| waits != Some(part)) {
            let strand = &mut self.parts[part];
            let Some(reader) = &mut strand.reader else { continue };
            // As in a silence a reader of one feed, it looks at what nothing but time has changed.
            strand.is_ready = true;
            if let Some(bytes) = reader.moved_on() {
                self.pass_on_all(part, bytes, &mut out);
            }
        }
        self.write_news(out.own());
        (out.size() > 0).then(|| out.finish().concat().into())
    }

    /// What filters of the client have withheld since this was asked last.
    pub fn take_withheld(&mut self) -> Option<Withheld> {
        let has_names = self.tell != Tell::Nothing;
        let of_part = |part: &mut Strand| {
            let withheld = part.reader.as_mut()?.take_withheld()?;
            let feed = (has_names && withheld.why.is_some()).then(|| Arc::clone(&part.label));
            Some(Withheld { feed, ..withheld })
        };
        self.parts.iter_mut().filter_map(of_part).reduce(Withheld::and)
    }

    /// What clients call the feeds that have ended since this was asked last.
    pub fn take_ended(&mut self) -> Vec<Arc<str>> {
        let mut ended = std::mem::take(&mut self.ended);
        let readers = self.parts.iter_mut().filter_map(|part| part.reader.as_mut());
        readers.for_each(|reader| ended.append(&mut reader.take_ended()));
        ended
    }

    /// Whether nothing follows, since no feed is left.
    pub fn is_over(&self) -> bool {
        self.opening.is_empty() && self.readers().all(Reader::is_over)
    }

    /// Whether what was read last was so much work for filters of the client that others are to have their turn.
    pub fn is_tired(&self) -> bool {
        self.is_tired
    }

    /// Whether one of them reads what only its upstream still holds.
    pub fn replays(&self) -> bool {
        self.readers().any(Reader::replays)
    }

    /// The sum of the numbers of the entries before which they stand, if they all do.
    pub fn stands(&self) -> Option<u64> {
        self.readers().map(Reader::stands).sum()
    }

    /// Whether one of them has not been told yet where it begins.
    pub fn is_deciding(&self) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| part.reader.as_ref().is_some_and(|reader| !part.has_begun || reader.is_deciding()))
    }

    /// Whether ids say nothing of one of them, which has not been told yet where it begins. Who came back with one would miss what
    /// that had meanwhile.
    pub fn lacks_place(&self) -> bool {
        self.parts.iter().any(Strand::lacks_place)
    }

    /// Whether one lagged whose clients are to be sent away for that.
    pub fn leaves(&self) -> bool {
        self.leaves
    }

    /// Their feeds.
    pub fn feeds(&self) -> Vec<Arc<Feed>> {
        self.readers().flat_map(Reader::feeds).collect()
    }

    /// Those of the parts that are left.
    fn readers(&self) -> impl Iterator<Item = &Reader> {
        self.parts.iter().filter_map(|part| part.reader.as_ref())
    }
}

impl Strand {
    fn new(part: Part) -> Self {
        let kept = Self::kept(&part.label, part.resumes.as_deref());
        let wake = part.reader.wake().map(Box::pin);
        Self { reader: Some(part.reader), wake, is_ready: true, ..kept }
    }

    /// Of a feed that is not read, after this id.
    fn kept(label: &Arc<str>, resumes: Option<&str>) -> Self {
        let (tag, mut place) = (Tag::of(label), String::new());
        tag.write(resumes.unwrap_or_default().as_bytes(), &mut place);
        Self {
            label: Arc::clone(label),
            tag,
            reader: None,
            place,
            wake: None,
            is_ready: false,
            has_begun: false,
            owes_position: false,
        }
    }

    /// Whether ids say nothing of it, which has not been told yet where it begins.
    fn lacks_place(&self) -> bool {
        self.reader.is_some() && !self.has_begun && self.place.is_empty()
    }

    /// Whether it may have something to give there. Where those with places await the others, only if it is one of these.
    fn may_give(&self, history: bool, awaits: bool) -> bool {
        let may_read = self.is_ready && (!awaits || self.lacks_place());
        may_read && self.reader.as_ref().is_some_and(|reader| reader.is_ready(history))
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
        let Some(reader) = &mut self.reader else { return Poll::Pending };
        if self.is_ready {
            // Of several feeds itself it may have some that are not.
            let _ = reader.poll_wake(cx);
            return Poll::Ready(());
        }
        let woken = match &mut self.wake {
            Some(wake) => wake.as_mut().poll(cx),
            None => reader.poll_wake(cx),
        };
        if woken.is_ready() {
            self.is_ready = true;
            // From before it reads, so that nothing is missed.
            if let (Some(wake), Some(next)) = (&mut self.wake, reader.wake()) {
                wake.set(next);
            }
        }
        woken
    }
}

/// The same bytes, of pieces of which none keeps alive much more than itself: what a client that takes nothing has of one key
/// would pin the whole of each chunk in which there is an event of it.
fn joined(pieces: Vec<Bytes>) -> Vec<Bytes> {
    let (mut joined, mut small) = (Vec::with_capacity(pieces.len()), Vec::new());
    for piece in pieces {
        if piece.len() < SMALL {
            small.extend_from_slice(&piece);
            continue;
        }
        joined.extend((!small.is_empty()).then(|| std::mem::take(&mut small).into()));
        joined.push(piece);
    }
    joined.extend((!small.is_empty()).then(|| small.into()));
    joined
}

/// Pieces below this size are copied.
const SMALL: usize = 4 * 1024;

/// Bytes that a block has for its name, its id and members of its data beside what these say.
const MARKS: usize = 64;

#[cfg(test)]
mod tests;
