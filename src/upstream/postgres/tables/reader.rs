//! The reader of one table: looks again and again at what follows the logs of its feeds, appends what nothing more can come
//! before, and between two looks opens the logs of feeds that joined.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::asker::Asker;
use super::begin;
use super::horizon::{self, Horizon};
use super::known::{Asked, Failed, Known, Read, Which, unsigned};
use super::row::{Item, Row};
use super::{Facts, RowCodec, Tables};
use crate::config::Table;
use crate::hub::{Feed, Feeds, Mark, Offset, Position, Reason, Rows, Source};
use crate::schema::Pins;
use crate::upstream::begun::Begins;
use crate::upstream::changes::Changes;
use crate::upstream::lag::Behind;
use crate::upstream::link::Link;
use crate::upstream::pace::Pace;
use crate::upstream::{Broken, Unanswered, schemas};

pub(super) struct TableReader {
    tables: Arc<Tables>,
    table: Arc<Table>,
    /// As messages name it.
    name: String,
    facts: Arc<Facts>,
    asker: Arc<Asker>,
    link: Arc<Link>,
    changes: Changes,
    bell: Option<watch::Receiver<()>>,
    /// The feeds, by what they are filtered by.
    feeds: HashMap<Rows, Vec<Arc<Feed>>>,
    /// What the table is, as far as this session has asked.
    known: Option<Arc<Known>>,
    horizon: Horizon,
    /// Since when rows are held back.
    held: Option<(Instant, SystemTime)>,
    pace: Pace,
}

/// When to look again.
enum Look {
    Now,
    /// Unless something comes in between.
    In(Duration),
}

impl TableReader {
    pub(super) fn new(
        tables: &Arc<Tables>,
        table: Arc<Table>,
        facts: Arc<Facts>,
        asker: Arc<Asker>,
        link: &Arc<Link>,
        bell: Option<watch::Receiver<()>>,
    ) -> Self {
        Self {
            tables: Arc::clone(tables),
            name: table.to_string(),
            table,
            facts,
            asker,
            link: Arc::clone(link),
            changes: link.changes().and_now(),
            bell,
            feeds: HashMap::new(),
            known: None,
            horizon: Horizon::default(),
            held: None,
            pace: Pace::new(),
        }
    }

    /// Reads until the link ends; says when it has begun.
    pub(super) async fn run(mut self, mut begins: Begins) -> Broken {
        loop {
            if self.changes.are_due() {
                self.feeds = self.changes.look(|| self.link.wanted().with(|feeds| of(&self.table, feeds)));
            }
            let turn = self.turn().await;
            // Whenever it rings, the same rows would be read in vain.
            let hears = !matches!(turn, Err(Failed::Waits(_)));
            let look = match turn {
                Ok(look) => look,
                Err(Failed::Anew) => {
                    self.known = None;
                    Look::Now
                }
                Err(Failed::Waits(why)) => {
                    self.cannot_read(&why);
                    Look::In(WAITS)
                }
                Err(Failed::Unanswered(Unanswered::Broken(broken))) => return broken,
                // The table waits alone.
                Err(Failed::Unanswered(Unanswered::Refused(why))) => {
                    self.link.trouble(&format!("reading table {} was refused: {why}", self.name));
                    self.known = None;
                    Look::In(REFUSED)
                }
            };
            begins.now();
            if let Look::In(wait) = look
                && let Err(gone) = self.wait(wait, hears).await
            {
                return gone;
            }
        }
    }

    async fn turn(&mut self) -> Result<Look, Failed> {
        if self.feeds.is_empty() {
            return Ok(Look::In(self.table.every));
        }
        let asker = Arc::clone(&self.asker);
        let asked = asker.asked();
        let known = self.begin(asked).await?;
        self.open(&known, asked).await?;
        let Some(at) = self.position() else { return Ok(Look::In(HELD)) };
        // In this order: who is not listed has ended, and what it added is read.
        let holders = if self.horizon.waits() { Some(known.holders(asked).await?) } else { None };
        let read = known.read(asked, Which::After(at), self.pace.count(), self.max_event());
        // One after the other, though both are asked at once.
        let (read, given) = tokio::join!(read, known.given(asked));
        let (read, given) = (read?, given?);
        if self.facts.went_back(read.rows.last().map(|row| row.id), given) {
            return Err(Failed::Anew);
        }
        self.pace.note(read.rows.iter().map(Row::size).sum());
        let _pins = match self.have_schemas(&read.rows).await {
            Ok(pins) => pins,
            Err(why) => {
                self.tell_lag(&read, at);
                return Err(Failed::Waits(why));
            }
        };
        let ids: Vec<u64> = read.rows.iter().map(|row| row.id).collect();
        let settled = self.horizon.settle(at, &ids, read.more, holders);
        self.append(at, &read, settled);
        self.facts.settles(settled);
        self.tell_lag(&read, settled);
        self.make_way().await;
        Ok(if settled > at || (self.horizon.waits() && !self.horizon.is_held()) {
            Look::Now
        } else if self.horizon.is_held() {
            Look::In(HELD.min(self.table.every))
        } else {
            Look::In(self.table.every)
        })
    }

    /// Asks what the table is, if this session has not. The logs of one that had its name begin anew.
    async fn begin(&mut self, asked: Asked<'_>) -> Result<Arc<Known>, Failed> {
        if let Some(known) = &self.known {
            return Ok(Arc::clone(known));
        }
        let known = Arc::new(Known::of(&self.table, self.facts.count(), asked).await?);
        let before = self.facts.known.lock().replace(Arc::clone(&known));
        (self.horizon, self.held) = (Horizon::default(), None);
        if before.is_some_and(|before| before.named() != known.named()) {
            self.facts.begins_anew(known.begins);
            let codec = Arc::new(RowCodec::new(&self.name, &known.named()));
            for feed in self.feeds.values().flatten() {
                if feed.log.restart(Arc::clone(&codec) as _, Position::single(Offset::from(known.begins))) {
                    self.link.tell_gap(feed, Reason::Recreated);
                }
            }
        }
        self.known = Some(Arc::clone(&known));
        self.link.tells_lag();
        Ok(known)
    }

    /// Opens the logs that are not open yet, where the others stand. One whose rows cannot be decoded yet holds up none of them.
    async fn open(&mut self, known: &Arc<Known>, asked: Asked<'_>) -> Result<(), Failed> {
        let is_open = |feed: &Arc<Feed>| feed.log.position().is_some();
        if self.feeds.values().flatten().all(is_open) {
            return Ok(());
        }
        let end = match self.position() {
            Some(at) => at,
            None => self.end(known, asked).await?,
        };
        let mut waits = None;
        for (rows, feeds) in &self.feeds {
            for feed in feeds.iter().filter(|feed| !is_open(feed)) {
                match begin::open(&self.tables, &self.facts, known, asked, (feed, rows), end).await {
                    Err(Failed::Waits(why)) => waits = Some(why),
                    opened => opened?,
                }
            }
        }
        match waits {
            Some(why) if self.position().is_none() => Err(Failed::Waits(why)),
            Some(why) => {
                self.cannot_read(&why);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn cannot_read(&self, why: &str) {
        self.link.trouble(&format!("table {} cannot be read now: {why}", self.name));
    }

    /// Up to where nothing more can come, at a time after this was asked: whoever has an id by now is waited for.
    async fn end(&mut self, known: &Known, asked: Asked<'_>) -> Result<u64, Failed> {
        let end = known.bounds(asked).await?.last;
        let mut holders = known.holders(asked).await?;
        while !holders.is_empty() {
            self.is_held();
            tokio::time::sleep(HELD).await;
            let now = known.holders(asked).await?;
            holders = horizon::left(&holders, &now);
        }
        self.held = None;
        self.facts.settles(end);
        Ok(end)
    }

    /// Where to read on: from the log that is furthest behind.
    fn position(&self) -> Option<u64> {
        let logs = self.feeds.values().flatten().filter_map(|feed| feed.log.position());
        logs.map(|position| position.next(0)).min()
    }

    /// It is the same for all.
    fn max_event(&self) -> usize {
        self.feeds.values().flatten().map(|feed| feed.key.shape.max_event).max().unwrap_or_default()
    }

    /// Waits until these rows can be decoded, for whichever of the feeds they are. What they take stays at hand with what is
    /// returned.
    async fn have_schemas(&self, rows: &[Row]) -> Result<Pins, String> {
        let shapes = self.feeds.values().flatten().map(|feed| &feed.key.shape);
        let items = rows.iter().map(|row| Item { table: &self.name, row: Some(row) });
        schemas::have(shapes, items).await
    }

    /// Appends to each log its own of the rows up to `settled`.
    fn append(&self, at: u64, read: &Read, settled: u64) {
        if settled == at {
            return;
        }
        let rows = &read.rows[..read.rows.partition_point(|row| row.id <= settled)];
        let trimmed = trimmed(at, read, settled);
        let mut sorted: HashMap<Vec<Option<&str>>, Vec<&Row>> = HashMap::new();
        for row in rows {
            sorted.entry(row.values.iter().map(Option::as_deref).collect()).or_default().push(row);
        }
        for (filter, feeds) in &self.feeds {
            let values: Vec<_> = filter.values.iter().map(|value| Some(&**value)).collect();
            let own = sorted.get(&values).map_or(&[][..], Vec::as_slice);
            for feed in feeds {
                if let Some(to) = trimmed {
                    for reason in feed.log.append_missing(Reason::Trimmed, Mark::new(0, to)).gaps {
                        self.link.tell_gap(feed, reason);
                    }
                }
                let item = |row| Item { table: &self.name, row };
                let rows = own.iter().map(|&row| (Some(Mark::new(0, row.id)), item(Some(row))));
                self.link.deliver(feed, rows.chain([(Some(Mark::new(0, settled)), item(None))]));
            }
        }
    }

    /// Tells how far it is behind what was there when it was read.
    fn tell_lag(&mut self, read: &Read, settled: u64) {
        let last = read.rows.last().map_or(settled, |row| row.id);
        let mut behind = Behind { records: last.saturating_sub(settled), since: None };
        if self.horizon.is_held() {
            behind.since = Some(self.is_held());
        } else {
            self.held = None;
            if read.more {
                behind.records = behind.records.max(1);
                let time = read.rows.last().and_then(|row| row.time).map(unsigned);
                let time =
                    time.and_then(|time| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(time)));
                behind.since = Some(time.unwrap_or_else(SystemTime::now));
            }
        }
        let name = self.feeds.keys().next().map(|rows| Arc::from(rows.name()));
        name.iter().for_each(|name| self.link.is_behind(name, behind));
    }

    /// Rows are held back. Where that goes on it is told. Returns since when.
    fn is_held(&mut self) -> SystemTime {
        let (since, at) = *self.held.get_or_insert_with(|| (Instant::now(), SystemTime::now()));
        if since.elapsed() > LONG {
            self.link.trouble(&format!(
                "rows of table {} wait for a transaction that has taken an id before theirs and does not end",
                self.name
            ));
        }
        at
    }

    /// Lets readers that are behind catch up a little, since this source can wait.
    async fn make_way(&self) {
        let until = Instant::now() + PAUSE;
        let congested = || self.feeds.values().flatten().any(|feed| feed.log.congested());
        while congested() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits for so long, or until there is something else to do; who does not hear is not woken by notifications.
    async fn wait(&mut self, wait: Duration, hears: bool) -> Result<(), Broken> {
        let until = Instant::now() + wait;
        let rung = async {
            if hears
                && let Some(bell) = &mut self.bell
                && bell.changed().await.is_ok()
            {
                return;
            }
            std::future::pending().await
        };
        tokio::select! {
            changed = self.changes.next() => {
                changed?;
                self.feeds = self.changes.look(|| self.link.wanted().with(|feeds| of(&self.table, feeds)));
                Ok(())
            }
            () = rung => Ok(()),
            () = sleep_until(until) => Ok(()),
        }
    }
}

/// The feeds of a table.
fn of(table: &Arc<Table>, feeds: &Feeds) -> HashMap<Rows, Vec<Arc<Feed>>> {
    let own = |(source, feeds): (&Source, &Vec<Arc<Feed>>)| match source {
        Source::Table(rows) if rows.table == *table => Some((rows.clone(), feeds.clone())),
        _ => None,
    };
    feeds.iter().filter_map(own).collect()
}

/// Up to where rows that follow `at` were deleted before they were read, as far as it cannot be told that there were none: all
/// that is left follows a hole.
fn trimmed(at: u64, read: &Read, settled: u64) -> Option<u64> {
    let to = match read.first {
        Some(first) => first.saturating_sub(1).min(settled),
        None => settled,
    };
    (to > at).then_some(to)
}

/// The pause between two looks while rows are held back.
const HELD: Duration = Duration::from_millis(20);
/// After this long it is told that rows are held back.
const LONG: Duration = Duration::from_secs(10);
/// The longest pause for readers that are behind.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a table waits whose rows cannot be decoded yet, before it is tried again.
const WAITS: Duration = Duration::from_millis(500);
/// How long a table that Postgres refused waits before it is tried again.
const REFUSED: Duration = Duration::from_secs(5);
