//! Records of sources that cannot pause, while the schema of the first of them is asked for. They are appended in their
//! order as soon as that is there. There is room for so many of an upstream; those that come when it is full are counted,
//! and told as one gap in their place.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::link::Link;
use super::schemas::{self, Missing};
use crate::hub::{Feed, Reason};
use crate::schema::Pins;
use crate::shape::Record;

/// Those of one upstream.
#[derive(Default)]
pub(super) struct Waiting {
    rooms: Mutex<Rooms>,
}

/// One for each feed that waits.
#[derive(Default)]
struct Rooms {
    of: HashMap<u64, Room>,
    bytes: usize,
    /// For each of them one that empties it.
    tasks: JoinSet<()>,
}

struct Room {
    feed: Arc<Feed>,
    queue: VecDeque<Item>,
}

/// What is to be appended to a feed, in its turn.
enum Item {
    Record(Kept),
    /// So many records for which there was no room.
    Lost(u64),
    /// The subscription stands again.
    Confirmed,
}

/// A copy of a record, with what its feed needs of it.
struct Kept {
    payload: Option<Vec<u8>>,
    name: String,
    key: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    routing_key: Option<String>,
    id: Option<String>,
    timestamp: Option<SystemTime>,
    event: Option<String>,
}

impl Waiting {
    /// Appends records that the log numbers, up to the first that has to wait; it and all that follow are kept.
    pub(super) fn deliver<R: Record>(&self, link: &Link, feed: &Arc<Feed>, records: impl Iterator<Item = R>) {
        let mut rooms = self.rooms.lock();
        let mut records = records.peekable();
        if !rooms.of.contains_key(&feed.number()) {
            let (mut ready, mut pins) = (Vec::new(), Pins::default());
            let shape = &feed.key.shape;
            while let Some(record) = records.next_if(|record| schemas::is_ready(shape, record, &mut pins)) {
                ready.push((None, record));
            }
            link.append(feed, ready);
        }
        for record in records {
            let kept = Kept::of(&record);
            rooms.put(link, feed, Item::Record(kept));
        }
    }

    /// The subscription of a feed stands again. Returns whether that is told in its turn, and not now.
    pub(super) fn confirm(&self, feed: &Arc<Feed>) -> bool {
        let mut rooms = self.rooms.lock();
        let Some(room) = rooms.of.get_mut(&feed.number()) else { return false };
        if feed.is_lost() && !matches!(room.queue.back(), Some(Item::Confirmed)) {
            room.queue.push_back(Item::Confirmed);
        }
        true
    }

    /// Appends what can be. Returns what the feed still waits for, if it does.
    fn advance(&self, link: &Link, number: u64) -> Option<Missing> {
        let mut guard = self.rooms.lock();
        let rooms = &mut *guard;
        let room = rooms.of.get_mut(&number)?;
        // Nobody else has the feed: it was let go.
        let is_gone = Arc::strong_count(&room.feed) == 1;
        while let Some(item) = room.queue.front().filter(|_| !is_gone) {
            match item {
                Item::Record(kept) => {
                    let ready = schemas::look([&room.feed.key.shape].into_iter(), [kept].into_iter());
                    if !ready.missing.is_empty() {
                        return Some(ready.missing);
                    }
                    link.append(&room.feed, [(None, kept)]);
                    rooms.bytes -= kept.size();
                }
                Item::Lost(count) => {
                    link.count(&room.feed.log.append_lost(Reason::Undecodable, *count), &room.feed)
                }
                Item::Confirmed => link.count(&room.feed.confirm(), &room.feed),
            }
            room.queue.pop_front();
        }
        if let Some(gone) = rooms.of.remove(&number) {
            rooms.bytes -= gone.queue.iter().map(Item::size).sum::<usize>();
        }
        None
    }
}

impl Rooms {
    fn put(&mut self, link: &Link, feed: &Arc<Feed>, item: Item) {
        let number = feed.number();
        let room = self.of.entry(number).or_insert_with(|| {
            while self.tasks.try_join_next().is_some() {}
            self.tasks.spawn(empty(link.own(), number));
            Room { feed: Arc::clone(feed), queue: VecDeque::new() }
        });
        // Once something was lost there has to be room for more than one, or each would be a gap of its own.
        let was_full = matches!(room.queue.back(), Some(Item::Lost(_)));
        let limit = if was_full { MOST / 2 } else { MOST };
        if self.bytes + item.size() <= limit {
            self.bytes += item.size();
            room.queue.push_back(item);
        } else if let Some(Item::Lost(count)) = room.queue.back_mut() {
            *count += 1;
        } else {
            room.queue.push_back(Item::Lost(1));
        }
    }
}

/// Empties a room, and ends with it.
async fn empty(link: Weak<Link>, number: u64) {
    loop {
        let missing = link.upgrade().and_then(|link| link.waiting().advance(&link, number));
        let Some(missing) = missing else { return };
        if let Err(cause) = missing.learn(PATIENCE).await {
            let Some(link) = link.upgrade() else { return };
            link.trouble(&cause);
            drop(link);
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Item {
    fn size(&self) -> usize {
        match self {
            Self::Record(kept) => kept.size(),
            Self::Lost(_) | Self::Confirmed => 0,
        }
    }
}

impl Kept {
    fn of(record: &impl Record) -> Self {
        let mut headers = Vec::new();
        record.headers(&mut |name, value| headers.push((name.to_owned(), value.map(<[u8]>::to_vec))));
        Self {
            payload: record.payload().map(<[u8]>::to_vec),
            name: record.name().to_owned(),
            key: record.key().map(<[u8]>::to_vec),
            headers,
            timestamp: record.timestamp(),
            event: record.event().map(str::to_owned),
            routing_key: record.routing_key().map(str::to_owned),
            id: record.id(),
        }
    }

    fn size(&self) -> usize {
        let optional = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + optional(value)).sum();
        let texts = [&self.event, &self.routing_key, &self.id].into_iter().flatten();
        let texts: usize = texts.map(String::len).sum();
        size_of::<Item>() + self.name.len() + headers + optional(&self.payload) + optional(&self.key) + texts
    }
}

impl Record for &Kept {
    fn payload(&self) -> Option<&[u8]> {
        self.payload.as_deref()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().rfind(|(own, _)| own == name);
        found.and_then(|(_, value)| value.as_deref())
    }

    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        self.headers.iter().for_each(|(name, value)| each(name, value.as_deref()));
    }

    fn routing_key(&self) -> Option<&str> {
        self.routing_key.as_deref()
    }

    fn id(&self) -> Option<String> {
        self.id.clone()
    }

    fn timestamp(&self) -> Option<SystemTime> {
        self.timestamp
    }

    fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }
}

/// Bytes that the records of one upstream may take while they wait.
const MOST: usize = 16 << 20;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after one that did not come.
const AGAIN: Duration = Duration::from_millis(250);
