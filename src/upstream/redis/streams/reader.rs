//! The reader: one connection that waits for entries of all wanted streams at once (XREAD BLOCK), appends what comes,
//! and between two waits follows the wanted set and looks whether streams were trimmed or created anew.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value, cmd};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use super::asker::{self, Unanswered};
use super::begin::{self, Mended};
use super::connect::{self, Connection};
use super::info::Info;
use super::pace::Pace;
use super::reply::{self, Entry, Item};
use super::table::{Rank, Reading, Table};
use super::{Streams, id};
use crate::config::{self, Endpoint};
use crate::hub::{Mark, Offset};
use crate::upstream::Broken;
use crate::upstream::link::Link;
use crate::upstream::redis::connection::Dialer;

/// Reads until the link ends.
pub(super) async fn run(
    streams: &Arc<Streams>,
    dialer: &Dialer,
    endpoint: &Endpoint,
    link: &Arc<Link>,
) -> Broken {
    let mut reader = match Reader::connect(streams, dialer, endpoint, link).await {
        Ok(reader) => reader,
        Err(broken) => return broken,
    };
    link.up();
    loop {
        if let Err(broken) = reader.turn().await {
            return broken;
        }
    }
}

struct Reader {
    streams: Arc<Streams>,
    link: Arc<Link>,
    connection: Connection,
    /// How Redis calls that connection.
    client: i64,
    table: Table,
    changes: watch::Receiver<()>,
    /// Streams whose logs are being opened, and those where that has ended.
    begins: JoinSet<Begun>,
    begun: Vec<Result<Begun, JoinError>>,
    pace: Pace,
    looked: Instant,
}

type Begun = (Arc<str>, Result<Option<Rank>, Unanswered>);

/// How a wait ended.
enum Waited {
    /// With an answer.
    Answer(Value),
    /// There is something else to do.
    News,
    /// Redis refused one of the streams, and with it all.
    Refused(RedisError),
}

impl Reader {
    async fn connect(
        streams: &Arc<Streams>,
        dialer: &Dialer,
        endpoint: &Endpoint,
        link: &Arc<Link>,
    ) -> Result<Self, Broken> {
        let connection = connect::open(dialer, endpoint, None).await?;
        let mut who = cmd("CLIENT");
        let mut asking = connection.asked.clone();
        let asked = timeout(streams.config.timeout, who.arg("ID").query_async(&mut asking));
        let client = asked.await.map_err(|_| late(&streams.config))?;
        let client =
            client.map_err(|error| Broken::new("asking Redis for the id of a link failed", error))?;
        Ok(Self {
            streams: Arc::clone(streams),
            link: Arc::clone(link),
            connection,
            client,
            table: Table::default(),
            changes: link.wanted().changes(),
            begins: JoinSet::new(),
            begun: Vec::new(),
            pace: Pace::new(),
            looked: Instant::now(),
        })
    }

    async fn turn(&mut self) -> Result<(), Broken> {
        self.changes.mark_unchanged();
        self.table.follow(self.link.wanted().snapshot());
        self.take_begun()?;
        self.begin_due();
        if self.table.is_settled() {
            self.link.settled();
        }
        let reading = self.table.reading();
        match self.wait(&reading).await? {
            Waited::Answer(answer) => self.take_in(&reading, answer).await?,
            Waited::Refused(why) => self.find_refused(&reading, why).await?,
            Waited::News => {}
        }
        self.look().await
    }

    /// Opens the logs of streams whose turn it is, so many at a time, while the others are read on.
    fn begin_due(&mut self) {
        for due in self.table.take_due(BEGIN_AT_ONCE.saturating_sub(self.begins.len())) {
            let (streams, link) = (Arc::clone(&self.streams), Arc::clone(&self.link));
            self.begins.spawn(async move {
                let begun = begin::begin(&streams, &due, &link).await;
                (due.stream, begun)
            });
        }
    }

    fn take_begun(&mut self) -> Result<(), Broken> {
        while let Some(begun) = self.begins.try_join_next() {
            self.begun.push(begun);
        }
        for begun in std::mem::take(&mut self.begun) {
            let (stream, begun) = begun.map_err(|panic| Broken::new("a defect in ssegate", panic))?;
            match begun {
                Ok(rank) => self.table.begun(&stream, rank),
                Err(why) => self.refuse(&stream, why)?,
            }
        }
        Ok(())
    }

    /// A stream that Redis refuses waits alone, and that is said once.
    fn refuse(&mut self, stream: &str, why: Unanswered) -> Result<(), Broken> {
        match why {
            Unanswered::Broken(broken) => Err(broken),
            Unanswered::Refused(error) => {
                if self.table.refuse(stream) {
                    self.link.trouble(&format!("reading stream {stream} was refused: {error}"));
                }
                Ok(())
            }
        }
    }

    /// Waits for entries, or until there is something else to do.
    async fn wait(&mut self, reading: &[Reading]) -> Result<Waited, Broken> {
        let (streams, pace, again) = (Arc::clone(&self.streams), self.pace, self.table.again());
        let mut connection = self.connection.asked.clone();
        let answer = read(&mut connection, &streams.config, reading, pace);
        tokio::pin!(answer);
        let news = async {
            tokio::select! {
                _ = self.changes.changed() => {}
                Some(begun) = self.begins.join_next() => self.begun.push(begun),
                () = until(again) => {}
            }
        };
        tokio::select! {
            answer = &mut answer => return answer,
            () = news => {}
        }
        if reading.is_empty() {
            return Ok(Waited::News);
        }
        tokio::select! {
            answer = &mut answer => answer,
            never = self.unblock() => match never {},
        }
    }

    /// Ends the reader's wait; again and again, since Redis may not have come to it yet.
    async fn unblock(&self) -> Infallible {
        loop {
            if let Err(why) = self.streams.asker.unblock(self.client).await {
                // Then it ends by itself, a little later.
                self.link.trouble(&format!("waking the reader of streams failed: {why}"));
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(UNBLOCK_AGAIN).await;
        }
    }

    /// Appends what came, once it is known whether something was trimmed before it could be read.
    async fn take_in(&mut self, reading: &[Reading], answer: Value) -> Result<(), Broken> {
        let answer = reply::streams(answer).map_err(|malformed| Broken(malformed.to_string()))?;
        let found = |(name, entries): (String, Vec<Entry>)| {
            let reading = reading.iter().find(|reading| *reading.stream == *name)?;
            (!entries.is_empty()).then_some((reading, entries))
        };
        let came: Vec<_> = answer.into_iter().filter_map(found).collect();
        if came.is_empty() {
            return Ok(());
        }
        self.pace.note(came.iter().map(|(_, entries)| reply::size(entries)).sum());
        let infos = join_all(came.iter().map(|(reading, _)| self.streams.asker.info(&reading.stream))).await;
        for ((reading, entries), info) in came.iter().zip(infos) {
            match info {
                Ok(info) => self.append(reading, entries, info.as_ref()),
                // Its entries are read again when it is not refused any more.
                Err(why) => self.refuse(&reading.stream, why)?,
            }
        }
        make_way(came.iter().map(|(reading, _)| *reading)).await;
        Ok(())
    }

    fn append(&mut self, reading: &Reading, entries: &[Entry], info: Option<&Info>) {
        let held: Vec<Offset> = entries.iter().map(|entry| entry.id).collect();
        let mut lost = 0;
        for feed in &reading.feeds {
            let Some(at) = feed.log.position().map(|position| position.at(0)) else { continue };
            if let Some(info) = info {
                match begin::mend(feed, at, reading.rank(at), info, &held, &self.link) {
                    Mended::Anew => continue,
                    Mended::On(some) => lost = lost.max(some),
                }
            }
            let records = entries.iter().map(|entry| {
                (Some(Mark { partition: 0, next: entry.id }), Item { stream: &reading.stream, entry })
            });
            self.link.deliver(feed, records);
        }
        self.table.note(reading, entries, lost, info);
    }

    /// Redis refuses all streams for one of them: finds out which.
    async fn find_refused(&mut self, reading: &[Reading], why: RedisError) -> Result<(), Broken> {
        let asked = reading.iter().map(|reading| self.streams.asker.may_read(&reading.stream));
        let mut found = false;
        for (reading, answer) in reading.iter().zip(join_all(asked).await) {
            if let Err(why) = answer {
                self.refuse(&reading.stream, why)?;
                found = true;
            }
        }
        if found { Ok(()) } else { Err(Broken::new("reading streams failed", why)) }
    }

    /// Looks now and then at streams of which nothing came: if one was created anew, nobody waits for its ids.
    async fn look(&mut self) -> Result<(), Broken> {
        let every = self.streams.config.ping_interval;
        if self.looked.elapsed() < every {
            return Ok(());
        }
        self.looked = Instant::now();
        let unseen = self.table.unseen(every, LOOK_AT_ONCE);
        let infos = join_all(unseen.iter().map(|reading| self.streams.asker.info(&reading.stream))).await;
        for (reading, info) in unseen.iter().zip(infos) {
            match info {
                Ok(info) => self.append(reading, &[], info.as_ref()),
                Err(why) => self.refuse(&reading.stream, why)?,
            }
        }
        Ok(())
    }
}

/// Reads on, waiting until there is something. Without streams it tries the link. A peer that vanished says nothing,
/// so no wait is longer than the time after which a link is to be tried.
async fn read(
    connection: &mut MultiplexedConnection,
    config: &config::Redis,
    reading: &[Reading],
    pace: Pace,
) -> Result<Waited, Broken> {
    let mut patience = config.timeout;
    if reading.is_empty() {
        tokio::time::sleep(config.ping_interval).await;
    } else {
        patience += config.ping_interval;
    }
    let command = command(config.ping_interval, reading, pace);
    let answer = timeout(patience, command.query_async::<Value>(connection)).await;
    match answer.map_err(|_| late(config))? {
        Ok(_) if reading.is_empty() => Ok(Waited::News),
        Ok(answer) => Ok(Waited::Answer(answer)),
        Err(error) if asker::is_refusal(&error) => Ok(Waited::Refused(error)),
        Err(error) => Err(Broken::new("reading streams failed", error)),
    }
}

fn command(wait: Duration, reading: &[Reading], pace: Pace) -> Cmd {
    if reading.is_empty() {
        return cmd("PING");
    }
    let mut command = cmd("XREAD");
    command
        .arg("COUNT")
        .arg(pace.of_each(reading.len()))
        .arg("BLOCK")
        .arg(wait.as_millis() as u64)
        .arg("STREAMS");
    reading.iter().for_each(|reading| _ = command.arg(&*reading.stream));
    reading.iter().for_each(|reading| _ = command.arg(id::show(reading.at)));
    command
}

fn late(config: &config::Redis) -> Broken {
    Broken(format!("Redis did not answer the reader of streams within {:?}", config.timeout))
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
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The most streams whose logs are opened at a time.
const BEGIN_AT_ONCE: usize = 16;
/// The most streams that are looked at in one go: the answers hold an entry or two of each.
const LOOK_AT_ONCE: usize = 100;
/// The wait before an attempt to wake the reader is made again.
const UNBLOCK_AGAIN: Duration = Duration::from_millis(5);
/// The longest pause for readers that are behind.
const PAUSE: Duration = Duration::from_millis(50);
