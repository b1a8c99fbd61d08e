//! The reader of one place: it waits for entries of the streams in its table, appends what comes, and between two waits
//! opens the logs of those that joined and looks whether some were trimmed or created anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{RedisError, RedisResult, Value};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::asker::{self, Redirect, Unanswered};
use super::begin::{self, Begun};
use super::reply::{self, Entry, Item};
use super::stream::Reading;
use super::table::Due;
use super::turns::Turns;
use super::wait::Waiter;
use super::{Place, Streams, Way};
use crate::schema::Pins;
use crate::upstream::Broken;
use crate::upstream::link::Link;
use crate::upstream::pace::Pace;
use crate::upstream::redis::slots;
use crate::upstream::redis::subscriber::News;
use crate::upstream::schemas;

/// Reads until the link ends.
pub(super) async fn run(
    streams: &Arc<Streams>,
    place: &Place,
    link: &Arc<Link>,
    tell: impl Fn(News),
) -> Broken {
    let waiter = match Waiter::connect(place).await {
        Ok(waiter) => waiter,
        Err(broken) => return broken,
    };
    tell(News::Up);
    let mut reader = Reader {
        streams: Arc::clone(streams),
        link: Arc::clone(link),
        place,
        waiter,
        tell,
        begins: JoinSet::new(),
        begun: Vec::new(),
        pace: Pace::new(),
        turns: Turns::new(),
        rest: Instant::now(),
        looked: Instant::now(),
        settled: false,
    };
    loop {
        if let Err(broken) = reader.turn().await {
            return broken;
        }
    }
}

struct Reader<'p, T> {
    streams: Arc<Streams>,
    link: Arc<Link>,
    place: &'p Place,
    waiter: Waiter,
    tell: T,
    /// Streams whose logs are being opened, and those where that has ended.
    begins: JoinSet<Opened>,
    begun: Vec<Result<Opened, JoinError>>,
    pace: Pace,
    turns: Turns,
    /// Until when there is no use in reading.
    rest: Instant,
    looked: Instant,
    /// Whether all that could be read was.
    settled: bool,
}

type Opened = (Due, Result<Begun, Unanswered>);

/// What to read next: streams that one command can name are a group.
struct Turn {
    groups: Vec<Vec<Reading>>,
    /// When.
    begins: Instant,
    /// Of each stream.
    count: usize,
    /// How long to wait for something, where Redis does the waiting.
    wait: Option<Duration>,
}

impl<T: Fn(News)> Reader<'_, T> {
    async fn turn(&mut self) -> Result<(), Broken> {
        self.take_begun()?;
        self.begin_due();
        let was_settled = std::mem::replace(&mut self.settled, self.place.table.is_settled());
        if self.settled && !was_settled {
            (self.tell)(News::Settled);
        }
        let turn = self.next_turn();
        if let Some(answers) = self.wait(&turn).await? {
            let mut came = Vec::new();
            for (group, answer) in turn.groups.iter().zip(answers) {
                came.extend(self.sort_out(group, answer, turn.count).await?);
            }
            self.note(&came, turn.count);
            self.take_in(&came).await?;
        }
        self.look().await
    }

    /// Opens the logs of streams whose turn it is, so many at a time, while the others are read on.
    fn begin_due(&mut self) {
        for due in self.place.table.take_due(BEGIN_AT_ONCE.saturating_sub(self.begins.len())) {
            let streams = Arc::clone(&self.streams);
            self.begins.spawn(async move {
                let begun = begin::begin(&streams, &due).await;
                (due, begun)
            });
        }
    }

    fn take_begun(&mut self) -> Result<(), Broken> {
        while let Some(begun) = self.begins.try_join_next() {
            self.begun.push(begun);
        }
        for begun in std::mem::take(&mut self.begun) {
            let (due, begun) = begun.map_err(|panic| Broken::new("a defect in ssegate", panic))?;
            match begun {
                Ok(begun) => self.place.table.begun(&due, &begun, &self.streams, &self.link),
                Err(why) => self.refuse(&due.stream, due.term, why)?,
            }
        }
        Ok(())
    }

    /// A stream that Redis refuses waits alone, and that is said once.
    fn refuse(&mut self, stream: &str, term: u64, why: Unanswered) -> Result<(), Broken> {
        let (wait, what) = match why {
            Unanswered::Broken(broken) if self.place.way == Way::All => return Err(broken),
            // Of another node perhaps, to which a slot is on its way. What is wrong with this one its own link shows.
            Unanswered::Broken(broken) => (BUSY, format!("stream {stream} cannot be read now: {broken}")),
            Unanswered::Refused(error) => (REFUSED, format!("reading stream {stream} was refused: {error}")),
            Unanswered::Busy(cause) => (BUSY, format!("stream {stream} cannot be read now: {cause}")),
        };
        if self.place.table.refuse(stream, term, wait) {
            self.link.trouble(&what);
        } else {
            self.link.trouble_goes_on();
        }
        Ok(())
    }

    fn next_turn(&mut self) -> Turn {
        let reading = self.place.table.reading();
        let ping_interval = self.streams.ping_interval();
        let (begins, groups, wait) = match self.place.way {
            // The link alone is tried.
            _ if reading.is_empty() => (Instant::now() + ping_interval, Vec::new(), None),
            Way::All => (self.rest, vec![reading], Some(ping_interval)),
            Way::Slot => (self.rest, vec![reading], Some(ping_interval.min(SLOT_WAIT))),
            Way::Slots => {
                let mut slots = BTreeMap::<u16, Vec<Reading>>::new();
                for reading in reading {
                    slots.entry(slots::slot(&reading.stream)).or_default().push(reading);
                }
                let (begins, groups) = self.turns.take(slots);
                (begins.max(self.rest), groups, None)
            }
        };
        let count = self.pace.of_each(groups.iter().map(Vec::len).sum());
        Turn { groups, begins, count, wait }
    }

    /// Waits for answers, or until there is something else to do.
    async fn wait(&mut self, turn: &Turn) -> Result<Option<Vec<RedisResult<Value>>>, Broken> {
        let table = &self.place.table;
        // Where no more can be begun now, the end of one that is being begun comes first.
        let again = if self.begins.len() < BEGIN_AT_ONCE { table.again() } else { None };
        let (begins, begun) = (&mut self.begins, &mut self.begun);
        let news = async {
            tokio::select! {
                () = table.changed() => {}
                Some(one) = begins.join_next() => begun.push(one),
                () = until(again) => {}
            }
        };
        tokio::pin!(news);
        if self.place.way == Way::Slots && !turn.groups.is_empty() {
            // One of many turns, which is taken and not given up, or none came to an end where streams join all the time.
            sleep_until(turn.begins).await;
        } else if turn.begins > Instant::now() {
            tokio::select! {
                () = &mut news => return Ok(None),
                () = sleep_until(turn.begins) => {}
            }
        }
        if turn.groups.is_empty() {
            self.waiter.ping().await?;
            return Ok(None);
        }
        let answers = self.waiter.read(&turn.groups, turn.count, turn.wait);
        tokio::pin!(answers);
        if turn.wait.is_some() {
            tokio::select! {
                answers = &mut answers => return answers.map(Some),
                () = news => {}
            }
            tokio::select! {
                answers = &mut answers => return answers.map(Some),
                // Then it ends by itself, a little later.
                why = self.waiter.unblock(&self.streams.asker) => {
                    self.link.trouble(&format!("waking the reader of streams failed: {why}"));
                }
            }
        }
        answers.await.map(Some)
    }

    /// What came of one group of streams.
    async fn sort_out<'r>(
        &mut self,
        group: &'r [Reading],
        answer: RedisResult<Value>,
        count: usize,
    ) -> Result<Vec<Came<'r>>, Broken> {
        let error = match answer {
            Ok(answer) => return came(group, answer),
            Err(error) => error,
        };
        if asker::is_refusal(&error) {
            self.find_refused(group, error).await?;
            return Ok(Vec::new());
        }
        let redirect = Redirect::of(&error, &self.place.endpoint.host).filter(|_| self.place.way != Way::All);
        match redirect {
            Some(Redirect::Moved(slot, to)) => {
                self.rest(SOON);
                (self.tell)(News::Moved(slot, to));
                Ok(Vec::new())
            }
            // A slot on its way: some of its streams are here, and some there.
            Some(Redirect::Ask(_)) => self.read_each(group, count).await,
            None if error.code() == Some("TRYAGAIN") => self.read_each(group, count).await,
            None if asker::will_pass(&error) => {
                self.rest(BUSY);
                let address = self.place.endpoint.address();
                self.link.trouble(&format!("streams at {address} cannot be read now: {error}"));
                Ok(Vec::new())
            }
            None => Err(self.broken(error)),
        }
    }

    /// Reads streams one by one, each where it is.
    async fn read_each<'r>(&mut self, group: &'r [Reading], count: usize) -> Result<Vec<Came<'r>>, Broken> {
        self.rest(SOON);
        let asker = &self.streams.asker;
        let answers =
            join_all(group.iter().map(|reading| asker.read(&reading.stream, reading.at, count))).await;
        let mut came = Vec::new();
        for (reading, answer) in group.iter().zip(answers) {
            match answer {
                Ok(entries) if entries.is_empty() => {}
                Ok(entries) => came.push((reading, entries)),
                Err(why) => self.refuse(&reading.stream, reading.term, why)?,
            }
        }
        Ok(came)
    }

    fn rest(&mut self, wait: Duration) {
        self.rest = self.rest.max(Instant::now() + wait);
    }

    /// Notes how much came, so that what is asked for next is neither little nor too much.
    fn note(&mut self, came: &[Came<'_>], count: usize) {
        if !came.is_empty() {
            self.pace.note(came.iter().map(|(_, entries)| reply::size(entries)).sum());
        }
        let full = came.iter().filter(|(_, entries)| entries.len() >= count);
        self.turns.note(!came.is_empty(), full.map(|(reading, _)| slots::slot(&reading.stream)));
    }

    /// Appends what came, once it is known whether something was trimmed before it could be read.
    async fn take_in(&mut self, came: &[Came<'_>]) -> Result<(), Broken> {
        if came.is_empty() {
            return Ok(());
        }
        let infos = join_all(came.iter().map(|(reading, _)| self.streams.asker.info(&reading.stream))).await;
        for ((reading, entries), info) in came.iter().zip(infos) {
            match info {
                Ok(info) => match ready(reading, entries).await {
                    Ok(_pins) => self.place.table.take_in(reading, entries, info.as_ref(), &self.link),
                    Err(why) => self.refuse(&reading.stream, reading.term, why)?,
                },
                // Its entries are read again when it is not refused any more.
                Err(why) => self.refuse(&reading.stream, reading.term, why)?,
            }
        }
        make_way(came.iter().map(|(reading, _)| *reading)).await;
        Ok(())
    }

    /// Redis refuses all streams for one of them: finds out which.
    async fn find_refused(&mut self, reading: &[Reading], why: RedisError) -> Result<(), Broken> {
        let asked = reading.iter().map(|reading| self.streams.asker.may_read(&reading.stream));
        let mut found = false;
        for (reading, answer) in reading.iter().zip(join_all(asked).await) {
            if let Err(why) = answer {
                self.refuse(&reading.stream, reading.term, why)?;
                found = true;
            }
        }
        if found { Ok(()) } else { Err(self.broken(why)) }
    }

    fn broken(&self, error: RedisError) -> Broken {
        Broken::new(&format!("reading streams of Redis at {} failed", self.place.endpoint.address()), error)
    }

    /// Looks now and then at streams of which nothing came: if one was created anew, nobody waits for its ids.
    async fn look(&mut self) -> Result<(), Broken> {
        let every = self.streams.ping_interval();
        if self.looked.elapsed() < every {
            return Ok(());
        }
        self.looked = Instant::now();
        let unseen = self.place.table.unseen(every, LOOK_AT_ONCE);
        let infos = join_all(unseen.iter().map(|reading| self.streams.asker.info(&reading.stream))).await;
        for (reading, info) in unseen.iter().zip(infos) {
            match info {
                Ok(info) => self.place.table.take_in(reading, &[], info.as_ref(), &self.link),
                Err(why) => self.refuse(&reading.stream, reading.term, why)?,
            }
        }
        Ok(())
    }
}

/// Entries of one stream.
type Came<'r> = (&'r Reading, Vec<Entry>);

fn came(group: &[Reading], answer: Value) -> Result<Vec<Came<'_>>, Broken> {
    let answer = reply::streams(answer).map_err(|malformed| Broken(malformed.to_string()))?;
    let found = |(name, entries): (String, Vec<Entry>)| {
        let reading = group.iter().find(|reading| *reading.stream == *name)?;
        (!entries.is_empty()).then_some((reading, entries))
    };
    Ok(answer.into_iter().filter_map(found).collect())
}

/// Waits until entries can be decoded.
async fn ready(reading: &Reading, entries: &[Entry]) -> Result<Pins, Unanswered> {
    let shapes = reading.feeds.iter().map(|feed| &feed.key.shape);
    let items = entries.iter().map(|entry| Item { stream: &reading.stream, entry });
    schemas::have(shapes, items).await.map_err(Unanswered::Busy)
}

/// Lets readers that are behind catch up a little, since this source can wait.
async fn make_way(reading: impl Iterator<Item = &Reading> + Clone) {
    let until = Instant::now() + PAUSE;
    let congested = || reading.clone().flat_map(|reading| &reading.feeds).any(|feed| feed.log.congested());
    while congested() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The most streams whose logs are opened at a time.
const BEGIN_AT_ONCE: usize = 16;
/// The most streams that are looked at in one go: the answers hold an entry or two of each.
const LOOK_AT_ONCE: usize = 100;
/// The longest pause for readers that are behind.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest wait for one slot: where that is being moved, a stream leaves while it is waited for, and nobody says so.
const SLOT_WAIT: Duration = Duration::from_secs(1);
/// How long a stream that Redis refused waits before it is tried again.
const REFUSED: Duration = Duration::from_secs(5);
/// The same where Redis said that it will pass.
const BUSY: Duration = Duration::from_millis(500);
/// The pause between two looks at streams whose slot is on its way.
const SOON: Duration = Duration::from_millis(20);
