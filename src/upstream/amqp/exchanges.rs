//! Exchanges: for each source a queue of ssegate's own, which nobody else reads and which goes with the connection. What is
//! published while there is none is lost, so that a lost link is a gap.
//!
//! One channel consumes. Another one declares and binds, since RabbitMQ closes a channel on which it says no.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer, Error};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};

use super::connection::{Connection, Dialer};
use super::message::Message;
use crate::hub::{Binding, Source};
use crate::upstream::link::Link;
use crate::upstream::{Broken, Unanswered};

/// The exchanges of one session.
pub(super) struct Exchanges {
    link: Arc<Link>,
    dialer: Dialer,
    every: Duration,
    /// Messages of one source that may be under way.
    prefetch: u16,
    sources: Mutex<HashMap<Binding, State>>,
    /// Rung once what was wanted at first stands, or was refused.
    pub settled: Notify,
}

/// How far a source has got.
enum State {
    /// It is read.
    Stands {
        reader: AbortHandle,
        /// When all that had been published before had come in.
        alive: Arc<Mutex<SystemTime>>,
    },
    /// RabbitMQ refused it; to be tried again at this time.
    Refused(Instant),
}

/// Why a source is read no more.
enum Ended {
    /// Its queue is gone, and nothing else.
    Cancelled(Binding),
    Broken(Broken),
}

impl Exchanges {
    pub(super) fn new(link: &Arc<Link>, dialer: &Dialer, every: Duration) -> Self {
        Self {
            link: Arc::clone(link),
            dialer: dialer.clone(),
            every,
            prefetch: prefetch(dialer.max_event()),
            sources: Mutex::default(),
            settled: Notify::new(),
        }
    }

    /// The link has ended: all feeds have lost it.
    pub(super) fn lose_all(&self) {
        for (binding, state) in self.sources.lock().iter() {
            if let State::Stands { alive, .. } = state {
                self.lose(binding, *alive.lock());
            }
        }
    }

    fn lose(&self, binding: &Binding, since: SystemTime) {
        let feeds = self.link.wanted().of(&Source::Exchange(binding.clone()));
        feeds.iter().for_each(|feed| feed.lose(since));
    }

    /// Reads what is wanted until the link ends.
    pub(super) async fn run(self: &Arc<Self>, connection: &Connection) -> Broken {
        match self.follow(connection).await {
            Ok(never) => match never {},
            Err(Unanswered::Broken(broken)) => broken,
            Err(Unanswered::Refused(why)) => Broken(format!("RabbitMQ closed a channel: {why}")),
        }
    }

    async fn follow(self: &Arc<Self>, connection: &Connection) -> Result<Infallible, Unanswered> {
        let consumes = self.dialer.channel(connection, self.prefetch).await?;
        let (mut declares, mut readers) = (None, JoinSet::new());
        let mut changes = self.link.changes().and_now();
        let mut pings = tokio::time::interval_at(Instant::now() + self.every, self.every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let again = self.again();
            tokio::select! {
                changed = changes.next() => changed.map_err(Unanswered::Broken)?,
                _ = pings.tick() => {
                    // Any question does. Without a source nobody else asks one.
                    self.dialer.answer(consumes.basic_qos(self.prefetch, Default::default())).await?;
                    continue;
                }
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
                Some(ended) = readers.join_next() => match ended {
                    Ok(Ended::Cancelled(binding)) => self.cancelled(&binding),
                    Ok(Ended::Broken(broken)) => return Err(Unanswered::Broken(broken)),
                    // It was not wanted any more.
                    Err(ended) if ended.is_cancelled() => continue,
                    Err(panic) => return Err(Unanswered::Broken(Broken::new("a defect in ssegate", panic))),
                },
            }
            let wanted: Vec<Binding> = changes.look(|| {
                self.link.wanted().with(|feeds| {
                    let binding = |source: &Source| match source {
                        Source::Exchange(binding) => Some(binding.clone()),
                        _ => None,
                    };
                    feeds.keys().filter_map(binding).collect()
                })
            });
            for binding in self.missing(&wanted) {
                match self.enter(connection, &consumes, &mut declares, &binding).await {
                    Ok((consumer, queue)) => {
                        let alive = Arc::new(Mutex::new(SystemTime::now()));
                        let reader = Reader {
                            link: Arc::clone(&self.link),
                            dialer: self.dialer.clone(),
                            binding: binding.clone(),
                            channel: consumes.clone(),
                            queue,
                            prefetch: self.prefetch,
                            alive: Arc::clone(&alive),
                        };
                        let reader = readers.spawn(reader.run(consumer, self.every));
                        self.sources.lock().insert(binding.clone(), State::Stands { reader, alive });
                        self.confirm(&binding);
                    }
                    Err(Unanswered::Refused(why)) => {
                        self.sources.lock().insert(binding.clone(), State::Refused(Instant::now() + REFUSED));
                        self.link
                            .trouble(&format!("binding to exchange {} was refused: {why}", binding.name()));
                    }
                    Err(broken) => return Err(broken),
                }
            }
            self.settled.notify_one();
        }
    }

    /// Lets go of what is not wanted, confirms what stands for feeds that have joined, and returns what is to be entered.
    fn missing(&self, wanted: &[Binding]) -> Vec<Binding> {
        let mut sources = self.sources.lock();
        for (_, state) in sources.extract_if(|binding, _| !wanted.contains(binding)) {
            if let State::Stands { reader, .. } = state {
                // The consumer goes with it, and the queue with that.
                reader.abort();
            }
        }
        let now = Instant::now();
        let (mut missing, mut standing) = (Vec::new(), Vec::new());
        for binding in wanted {
            match sources.get(binding) {
                Some(State::Stands { .. }) => standing.push(binding),
                Some(State::Refused(again)) if *again > now => {}
                Some(State::Refused(_)) | None => missing.push(binding.clone()),
            }
        }
        drop(sources);
        standing.into_iter().for_each(|binding| self.confirm(binding));
        missing
    }

    /// When the first source that was refused is to be tried again.
    fn again(&self) -> Option<Instant> {
        let again = |state: &State| match state {
            State::Refused(again) => Some(*again),
            State::Stands { .. } => None,
        };
        self.sources.lock().values().filter_map(again).min()
    }

    fn confirm(&self, binding: &Binding) {
        let feeds = self.link.wanted().of(&Source::Exchange(binding.clone()));
        feeds.iter().for_each(|feed| self.link.confirm(feed));
    }

    /// The queue of a source was deleted: it is tried again.
    fn cancelled(&self, binding: &Binding) {
        let state = self.sources.lock().insert(binding.clone(), State::Refused(Instant::now() + CANCELLED));
        if let Some(State::Stands { alive, .. }) = state {
            self.lose(binding, *alive.lock());
        }
        self.link.trouble(&format!("the queue that is bound to exchange {} was deleted", binding.name()));
    }

    /// Declares a queue, binds it, and consumes.
    async fn enter(
        &self,
        connection: &Connection,
        consumes: &Channel,
        declares: &mut Option<Channel>,
        binding: &Binding,
    ) -> Result<(Consumer, ShortString), Unanswered> {
        let channel = match declares.take() {
            Some(channel) => channel,
            None => self.dialer.channel(connection, self.prefetch).await?,
        };
        let own =
            QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let queue = self.dialer.answer(channel.queue_declare("".into(), own, FieldTable::default())).await?;
        let queue = queue.name().clone();
        let mut arguments = FieldTable::default();
        for (name, value) in binding.arguments.iter() {
            arguments.insert((&**name).into(), AMQPValue::LongString((&**value).into()));
        }
        let (exchange, key) = ((&*binding.exchange).into(), (&*binding.routing_key).into());
        let bound = channel.queue_bind(queue.clone(), exchange, key, Default::default(), arguments);
        if let Err(why) = self.dialer.answer(bound).await {
            // Nobody will ever consume from it. The channel is closed as well.
            let channel = self.dialer.channel(connection, self.prefetch).await?;
            self.dialer.answer(channel.queue_delete(queue, Default::default())).await?;
            *declares = Some(channel);
            return Err(why);
        }
        *declares = Some(channel);
        let consumed = consumes.basic_consume(
            queue.clone(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        Ok((self.dialer.answer(consumed).await?, queue))
    }
}

/// Reads one queue.
struct Reader {
    link: Arc<Link>,
    dialer: Dialer,
    binding: Binding,
    channel: Channel,
    queue: ShortString,
    prefetch: u16,
    alive: Arc<Mutex<SystemTime>>,
}

impl Reader {
    async fn run(self, consumer: Consumer, every: Duration) -> Ended {
        let mut deliveries = consumer.ready_chunks(usize::from(self.prefetch));
        let mut looks = tokio::time::interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let taken = tokio::select! {
                // A look takes what has come in, too. Who never pauses would otherwise have none.
                biased;
                _ = looks.tick() => self.look(&mut deliveries).await,
                chunk = deliveries.next() => match chunk {
                    Some(chunk) => self.take(chunk).await,
                    None => return Ended::Cancelled(self.binding),
                },
            };
            match taken {
                Ok(()) => {}
                Err(broken) => return Ended::Broken(broken),
            }
        }
    }

    /// Finds out whether all that was published before has come in. On the channel that consumes, RabbitMQ answers after what
    /// it has delivered.
    async fn look(
        &self,
        deliveries: &mut (impl futures_util::Stream<Item = Vec<Result<Delivery, Error>>> + Unpin),
    ) -> Result<(), Broken> {
        let sent = SystemTime::now();
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = self.channel.queue_declare(self.queue.clone(), passive, FieldTable::default());
        let queue = self.dialer.answer(asked).await.map_err(|why| match why {
            Unanswered::Broken(broken) => broken,
            Unanswered::Refused(why) => Broken(format!("RabbitMQ closed a channel: {why}")),
        })?;
        while let Some(Some(chunk)) = deliveries.next().now_or_never() {
            self.take(chunk).await?;
        }
        if queue.message_count() == 0 {
            *self.alive.lock() = sent;
        }
        Ok(())
    }

    /// Appends what came, and lets RabbitMQ send more.
    async fn take(&self, chunk: Vec<Result<Delivery, Error>>) -> Result<(), Broken> {
        let (mut came, mut failed) = (Vec::with_capacity(chunk.len()), None);
        for delivery in chunk {
            match delivery {
                Ok(delivery) => came.push(delivery),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let feeds = self.link.wanted().of(&Source::Exchange(self.binding.clone()));
        for feed in &feeds {
            let records = came.iter().map(|delivery| (None, Message::new(&self.binding.exchange, delivery)));
            self.link.deliver(feed, records);
        }
        if let Some(error) = failed {
            return Err(self.dialer.lost(&error));
        }
        let until = Instant::now() + PAUSE;
        while feeds.iter().any(|feed| feed.log.congested()) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for delivery in &came {
            let acked = delivery.acker.ack(BasicAckOptions::default()).await;
            acked.map_err(|error| self.dialer.lost(&error))?;
        }
        Ok(())
    }
}

/// How many messages of one source may be under way, of which `max_event` bytes come in at most. RabbitMQ counts them, and not
/// their bytes.
fn prefetch(max_event: usize) -> u16 {
    let fit = u16::try_from(UNDER_WAY / max_event.max(1)).unwrap_or(u16::MAX);
    fit.clamp(FEWEST, MOST)
}

/// Bytes of one source that may be under way, where that many messages are not larger than this.
const UNDER_WAY: usize = 16 << 20;
/// So many are under way however large they may be: with fewer each would wait for the one before it to be acknowledged.
const FEWEST: u16 = 4;
const MOST: u16 = 64;
/// How long a source that RabbitMQ refused waits before it is tried again.
const REFUSED: Duration = Duration::from_secs(5);
/// The same where its queue was deleted.
const CANCELLED: Duration = Duration::from_millis(500);
/// The longest pause for readers that are behind.
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_of_a_source_has_a_bound_in_bytes() {
        for (max_event, expected) in [(1, 64), (256 << 10, 64), (1 << 20, 16), (3 << 20, 5), (64 << 20, 4)] {
            let count = prefetch(max_event);
            assert_eq!(count, expected, "{max_event}");
            assert!(usize::from(count) * max_event <= UNDER_WAY.max(4 * max_event), "{max_event}");
        }
    }
}
