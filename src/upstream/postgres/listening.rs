//! LISTEN on one connection: keeps it equal to the wanted channels, hands notifications over, and tries the link now and
//! then. Postgres keeps nothing of what it notified, so a lost link is a gap.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_postgres::{AsyncMessage, Client, Notification};

use super::connection::{Dialer, Messages, quoted};
use crate::hub::{Feeds, Source};
use crate::shape::Record;
use crate::upstream::link::Link;
use crate::upstream::turns::Turns;
use crate::upstream::{Broken, Unanswered};

/// The channels of one session.
pub(super) struct Listening {
    link: Arc<Link>,
    channels: Mutex<HashMap<Arc<str>, State>>,
    /// Rung by what comes on channels that tell of new rows.
    bells: Mutex<HashMap<Arc<str>, watch::Sender<()>>>,
    /// When the link was last known to be good: what was notified before has come in.
    alive: Mutex<SystemTime>,
    /// Rung once what was wanted at first stands.
    pub settled: Notify,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Asked for. A notification proves that it stands just as well as the answer.
    Asked,
    Stands,
}

impl Listening {
    pub(super) fn new(link: &Arc<Link>) -> Self {
        Self {
            link: Arc::clone(link),
            channels: Mutex::default(),
            bells: Mutex::default(),
            alive: Mutex::new(SystemTime::now()),
            settled: Notify::new(),
        }
    }

    /// What is rung by notifications on a channel.
    pub(super) fn bell(&self, channel: &Arc<str>) -> watch::Receiver<()> {
        self.bells.lock().entry(Arc::clone(channel)).or_default().subscribe()
    }

    /// The link has ended: the feeds of all channels have lost it.
    pub(super) fn lose_all(&self) {
        let alive = *self.alive.lock();
        self.link.wanted().for_each(|feed| feed.lose(alive));
    }

    /// Listens until the link ends.
    pub(super) async fn run(
        &self,
        client: Client,
        messages: Messages,
        dialer: &Dialer,
        every: Duration,
    ) -> Broken {
        tokio::select! {
            // What has come in counts first.
            biased;
            broken = self.hear(messages, dialer) => broken,
            result = self.follow(&client, dialer, every) => match result {
                Ok(never) => match never {},
                Err(Unanswered::Broken(broken)) => broken,
                Err(Unanswered::Refused(why)) => Broken(format!("listening was refused: {why}")),
            },
        }
    }

    async fn hear(&self, messages: Messages, dialer: &Dialer) -> Broken {
        let (mut messages, mut turns) = (messages.ready_chunks(AT_ONCE), Turns::default());
        while let Some(chunk) = messages.next().await {
            let mut notified = Vec::with_capacity(chunk.len());
            for message in chunk {
                match message {
                    Ok(AsyncMessage::Notification(notification)) => notified.push(notification),
                    Ok(_) => {}
                    Err(error) => {
                        self.take(&notified);
                        return dialer.lost(&error);
                    }
                }
            }
            self.take(&notified);
            turns.count();
            turns.pass().await;
        }
        dialer.ended()
    }

    fn take(&self, notified: &[Notification]) {
        for run in notified.chunk_by(|a, b| a.channel() == b.channel()) {
            let channel: Arc<str> = run[0].channel().into();
            // Of one that is being left, it is nobody's.
            if !self.stands(&channel) {
                continue;
            }
            for feed in self.link.wanted().of(&Source::Channel(Arc::clone(&channel))) {
                self.link.deliver(&feed, run.iter().map(|notification| (None, Notified(notification))));
            }
            if let Some(bell) = self.bells.lock().get(&channel) {
                bell.send_replace(());
            }
        }
    }

    /// Confirms a channel by which something came; whether it is one of ours.
    fn stands(&self, channel: &Arc<str>) -> bool {
        let asked = {
            let mut channels = self.channels.lock();
            let Some(state) = channels.get_mut(channel) else { return false };
            std::mem::replace(state, State::Stands) == State::Asked
        };
        if asked {
            self.confirm(channel);
        }
        true
    }

    fn confirm(&self, channel: &Arc<str>) {
        let feeds = self.link.wanted().of(&Source::Channel(Arc::clone(channel)));
        feeds.iter().for_each(|feed| self.link.confirm(feed));
    }

    /// Keeps what is listened to equal to what is wanted, and tries the link.
    async fn follow(
        &self,
        client: &Client,
        dialer: &Dialer,
        every: Duration,
    ) -> Result<Infallible, Unanswered> {
        let mut changes = self.link.changes().and_now();
        let mut ping = Instant::now() + every;
        loop {
            tokio::select! {
                changed = changes.next() => changed.map_err(Unanswered::Broken)?,
                () = sleep_until(ping) => {
                    // Postgres tells what was notified before it answers what was asked after.
                    let sent = SystemTime::now();
                    dialer.answer(client.check_connection()).await?;
                    *self.alive.lock() = sent;
                    ping = Instant::now() + every;
                    continue;
                }
            }
            let wanted = changes.look(|| self.link.wanted().with(channels));
            self.leave(client, dialer, &wanted).await?;
            self.enter(client, dialer, wanted).await?;
            self.settled.notify_one();
        }
    }

    async fn leave(
        &self,
        client: &Client,
        dialer: &Dialer,
        wanted: &HashSet<Arc<str>>,
    ) -> Result<(), Unanswered> {
        let leaving = {
            let mut channels = self.channels.lock();
            let leaving: Vec<_> = channels.extract_if(|channel, _| !wanted.contains(channel)).collect();
            self.bells.lock().retain(|channel, bell| wanted.contains(channel) || bell.receiver_count() > 0);
            leaving
        };
        for channels in leaving.chunks(AT_ONCE) {
            let statements = channels.iter().map(|(channel, _)| format!("UNLISTEN {};", quoted(channel)));
            dialer.answer(client.batch_execute(&statements.collect::<String>())).await?;
        }
        Ok(())
    }

    async fn enter(
        &self,
        client: &Client,
        dialer: &Dialer,
        wanted: HashSet<Arc<str>>,
    ) -> Result<(), Unanswered> {
        let (standing, entering): (Vec<_>, Vec<_>) = {
            let channels = self.channels.lock();
            wanted.into_iter().partition(|channel| channels.get(channel) == Some(&State::Stands))
        };
        // Feeds that have joined since.
        standing.iter().for_each(|channel| self.confirm(channel));
        for channels in entering.chunks(AT_ONCE) {
            self.channels.lock().extend(channels.iter().map(|channel| (Arc::clone(channel), State::Asked)));
            let statements = channels.iter().map(|channel| format!("LISTEN {};", quoted(channel)));
            dialer.answer(client.batch_execute(&statements.collect::<String>())).await?;
            for channel in channels {
                self.stands(channel);
                // Rows may have been added before.
                if let Some(bell) = self.bells.lock().get(channel) {
                    bell.send_replace(());
                }
            }
        }
        Ok(())
    }
}

/// The channels that feeds read, and those that tell of rows which feeds read.
fn channels(feeds: &Feeds) -> HashSet<Arc<str>> {
    let channel = |source: &Source| match source {
        Source::Channel(name) => Some(Arc::clone(name)),
        Source::Table(rows) => rows.table.notify.clone(),
        _ => None,
    };
    feeds.keys().filter_map(channel).collect()
}

/// A notification as a record.
struct Notified<'n>(&'n Notification);

impl Record for Notified<'_> {
    fn payload(&self) -> Option<&[u8]> {
        Some(self.0.payload().as_bytes())
    }

    fn name(&self) -> &str {
        self.0.channel()
    }
}

/// The most channels that are asked for in one go, and notifications that are taken in.
const AT_ONCE: usize = 512;
