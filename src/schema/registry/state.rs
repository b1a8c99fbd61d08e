//! What is known of the schemas of a registry, and what is wanted. Every part has a bound: of schemas those that nobody
//! has needed for the longest go, unless they are pinned; of ids that are of no use the oldest; and only so many are wanted
//! at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::ask::{Fetched, Found};
use crate::schema::{Schema, SchemaId};

/// Of one registry.
#[derive(Debug)]
pub(super) struct State {
    /// How many schemas are kept.
    room: usize,
    kept: HashMap<SchemaId, Kept>,
    /// Bytes of their text.
    bytes: usize,
    /// All that are in use by somebody, whether or not they are kept.
    pinned: HashMap<SchemaId, Weak<Schema>>,
    uses: u64,
    useless: HashMap<SchemaId, Instant>,
    /// In the order in which that was found out.
    found_useless: VecDeque<(SchemaId, Instant)>,
    wants: HashMap<SchemaId, Want>,
    /// Since nothing is answered: why, and when it is tried again.
    away: Option<Away>,
    last_error: Option<(String, SystemTime)>,
}

#[derive(Debug)]
struct Kept {
    schema: Arc<Schema>,
    size: usize,
    used: u64,
}

/// A schema that somebody waits for.
#[derive(Debug)]
struct Want {
    /// When somebody last asked.
    asked: Instant,
    /// When it is to be asked for.
    due: Instant,
    /// How long it then rests.
    pause: Duration,
    /// Why there is no answer.
    cause: Option<String>,
}

#[derive(Debug)]
struct Away {
    cause: String,
    again: Instant,
}

impl State {
    pub fn new(room: usize) -> Self {
        Self {
            room,
            kept: HashMap::new(),
            bytes: 0,
            pinned: HashMap::new(),
            uses: 0,
            useless: HashMap::new(),
            found_useless: VecDeque::new(),
            wants: HashMap::new(),
            away: None,
            last_error: None,
        }
    }

    /// The registry is entered in another way, and what had no answer may have one at once. `is_another` where it is not
    /// the same: its ids mean something else.
    pub fn begin_anew(&mut self, room: usize, is_another: bool) {
        let wants = std::mem::take(&mut self.wants);
        let before = std::mem::replace(self, Self::new(room));
        if !is_another {
            (self.kept, self.bytes) = (before.kept, before.bytes);
            (self.pinned, self.uses) = (before.pinned, before.uses);
            self.make_room();
        }
        let now = Instant::now();
        let fresh = |want: Want| Want { asked: want.asked, ..Want::new(now, now) };
        self.wants = wants.into_iter().map(|(id, want)| (id, fresh(want))).collect();
    }

    pub fn find(&mut self, id: SchemaId) -> Option<Arc<Schema>> {
        self.uses += 1;
        match self.kept.get_mut(&id) {
            Some(kept) => {
                kept.used = self.uses;
                Some(Arc::clone(&kept.schema))
            }
            None => self.pinned.get(&id)?.upgrade(),
        }
    }

    pub fn is_useless(&self, id: SchemaId) -> bool {
        self.useless.get(&id).is_some_and(|found| found.elapsed() < FORGOTTEN)
    }

    /// Wants these, but for those of which there is nothing to be learned. Returns whether there are others.
    pub fn want(&mut self, ids: &[SchemaId]) -> bool {
        let (now, mut left) = (Instant::now(), false);
        for &id in ids {
            if self.find(id).is_some() || self.is_useless(id) {
                continue;
            }
            left = true;
            // What keeps one from being answered may be its own matter.
            let due = self.away.as_ref().map_or(now, |away| away.again.min(now + OTHERS));
            let is_full = self.wants.len() >= MOST_WANTED;
            match self.wants.get_mut(&id) {
                Some(want) => want.asked = now,
                // Whoever wants it comes back.
                None if is_full => {}
                None => _ = self.wants.insert(id, Want::new(now, due)),
            }
        }
        left
    }

    /// Why any of these has no answer for now.
    pub fn trouble(&self, ids: &[SchemaId]) -> Option<String> {
        let own = ids.iter().find_map(|id| self.wants.get(id)?.cause.clone());
        own.or_else(|| Some(self.away.as_ref()?.cause.clone()))
    }

    /// At most `most` that are to be asked for now, and when the next one is if there is none. Forgets what nobody has come
    /// back for.
    pub fn due(&mut self, now: Instant, most: usize) -> (Vec<SchemaId>, Option<Instant>) {
        self.wants.retain(|_, want| now.saturating_duration_since(want.asked) < ABANDONED);
        let mut all: Vec<_> = self.wants.iter().map(|(&id, want)| (want.due, id)).collect();
        all.sort_by_key(|(due, _)| *due);
        let next = all.first().map(|(due, _)| *due);
        let due = all.into_iter().filter(|(due, _)| *due <= now).take(most).map(|(_, id)| id);
        (due.collect(), next)
    }

    /// What the registry said of a schema, or why it said nothing.
    pub fn took(&mut self, id: SchemaId, found: Result<Found, String>, now: Instant) {
        match found {
            Ok(found) => {
                self.wants.remove(&id);
                self.away = None;
                match found {
                    Found::Schema(fetched) => self.keep(id, fetched),
                    Found::Useless(_) => self.is_of_no_use(id, now),
                }
            }
            Err(cause) => {
                let Some(want) = self.wants.get_mut(&id) else { return };
                want.due = now + want.pause.mul_f64(rand::random_range(0.5..1.0));
                want.pause = (want.pause * 2).min(PAUSE.1);
                want.cause = Some(cause.clone());
                self.last_error = Some((cause.clone(), SystemTime::now()));
                self.away = Some(Away { cause, again: want.due });
            }
        }
    }

    fn keep(&mut self, id: SchemaId, Fetched { schema, size }: Fetched) {
        self.uses += 1;
        let schema = Arc::new(schema);
        self.pinned.insert(id, Arc::downgrade(&schema));
        self.bytes += size;
        if let Some(before) = self.kept.insert(id, Kept { schema, size, used: self.uses }) {
            self.bytes -= before.size;
        }
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.kept.len() > 1 && (self.kept.len() > self.room || self.bytes > MOST_BYTES) {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(&id, _)| id);
            let Some(gone) = oldest.and_then(|id| self.kept.remove(&id)) else { return };
            self.bytes -= gone.size;
        }
        if self.pinned.len() > 2 * self.kept.len() {
            self.pinned.retain(|_, schema| schema.strong_count() > 0);
        }
    }

    fn is_of_no_use(&mut self, id: SchemaId, now: Instant) {
        self.useless.insert(id, now);
        self.found_useless.push_back((id, now));
        while let Some(&(id, found)) = self.found_useless.front()
            && (self.found_useless.len() > MOST_USELESS || now.duration_since(found) >= FORGOTTEN)
        {
            self.found_useless.pop_front();
            if self.useless.get(&id) == Some(&found) {
                self.useless.remove(&id);
            }
        }
    }

    /// How many schemas are kept.
    pub fn count(&self) -> usize {
        self.kept.len()
    }

    /// How many are waited for.
    pub fn wanted(&self) -> usize {
        self.wants.len()
    }

    pub fn last_error(&self) -> Option<(&str, SystemTime)> {
        self.last_error.as_ref().map(|(error, at)| (error.as_str(), *at))
    }
}

impl Want {
    fn new(asked: Instant, due: Instant) -> Self {
        Self { asked, due, pause: PAUSE.0, cause: None }
    }
}

/// Before a question without an answer is asked again, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Before one that is new is asked for, while others have no answer.
const OTHERS: Duration = Duration::from_secs(1);
/// How long an id is of no use. It may be given out one day, and a schema be mended.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// After this time without anybody coming back for it a schema is wanted no more.
const ABANDONED: Duration = Duration::from_secs(60);
const MOST_USELESS: usize = 10_000;
const MOST_WANTED: usize = 1_000;
/// Bytes of the text of all schemas that are kept.
const MOST_BYTES: usize = 64 << 20;
