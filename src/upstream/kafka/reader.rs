//! The thread that reads a cluster: polls the consumer, appends what comes, and between two polls follows the
//! wanted set, looks for new partitions and answers questions of the logs.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::cause;
use super::client::{self, ASK, Consumer, News};
use super::fill::Past;
use super::record::Message;
use super::topics::Topics;
use crate::config;
use crate::shape::Record as _;
use crate::upstream::Broken;
use crate::upstream::changes::Changes;
use crate::upstream::link::Link;

/// Reads until `stop` is set or the consumer is of no more use; tells why, and gives up its turn, before it lets go of the
/// consumer, which may take long.
pub(super) fn run(
    config: &config::Kafka,
    past: Past,
    link: &Link,
    (turn, stop): (OwnedMutexGuard<()>, &AtomicBool),
    told: oneshot::Sender<Broken>,
) {
    let (consumer, asker) = match client::consumer(config).and_then(|one| Ok((one, client::asker(config)?))) {
        Ok(both) => both,
        Err(broken) => return drop((turn, told.send(broken))),
    };
    let cluster = match connect(&asker) {
        Ok(cluster) => cluster,
        Err(broken) => return drop((turn, told.send(broken))),
    };
    if stop.load(Ordering::Relaxed) {
        return drop(turn);
    }
    link.up();
    let topics = Topics::new(asker, cluster, past);
    let mut reader = Reader::new(consumer, link, topics, config);
    let broken = reader.read(stop);
    drop(turn);
    // The receiver is gone when the session was dropped.
    let _ = told.send(broken);
}

/// Waits for any broker, and asks it for the cluster's id.
fn connect(asker: &Consumer) -> Result<Option<String>, Broken> {
    // Serves the errors that say why, while the answer is awaited.
    let answered = asker.fetch_metadata(Some(PROBE), ASK);
    client::serve(asker);
    match answered {
        Ok(_) => Ok(asker.client().fetch_cluster_id(ASK)),
        Err(error) => {
            let why = asker.context().news().error.unwrap_or_else(|| error.to_string());
            Err(Broken::new("no broker answers", why))
        }
    }
}

struct Reader<'s> {
    consumer: Rc<Consumer>,
    config: &'s config::Kafka,
    link: &'s Link,
    topics: Topics,
    changes: Changes,
    up: bool,
    look_at: Instant,
    look_every: Duration,
}

impl<'s> Reader<'s> {
    fn new(consumer: Consumer, link: &'s Link, topics: Topics, config: &'s config::Kafka) -> Self {
        let look_every = client::refresh_interval(config);
        let changes = link.changes().and_now();
        let now = Instant::now();
        let consumer = Rc::new(consumer);
        Self { consumer, config, link, topics, changes, up: true, look_at: now + look_every, look_every }
    }

    fn read(&mut self, stop: &AtomicBool) -> Broken {
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = self.turn() {
                return Broken::new("reading Kafka failed", error);
            }
            if self.topics.take_outdated()
                && let Err(broken) = self.renew()
            {
                return broken;
            }
        }
        Broken("stopped".to_owned())
    }

    fn turn(&mut self) -> Result<(), KafkaError> {
        if self.changes.are_due() {
            let (topics, link, consumer) = (&mut self.topics, self.link, &self.consumer);
            self.changes.look(|| topics.follow(consumer, link.wanted().snapshot()))?;
            self.topics.open_joined();
        }
        if self.up {
            self.begin()?;
            self.look()?;
            self.topics.release(&self.consumer, |cause| self.link.trouble(cause))?;
        }
        self.make_way();
        self.take_in()?;
        self.measure();
        self.watch_health();
        Ok(())
    }

    /// Goes on with new clients, from where it stands: see [`client::let_go`].
    fn renew(&mut self) -> Result<(), Broken> {
        let (consumer, asker) = (client::consumer(self.config)?, client::asker(self.config)?);
        self.topics
            .renew(&consumer, asker)
            .map_err(|error| Broken::new("reading Kafka with a new consumer failed", error))?;
        let old = std::mem::replace(&mut self.consumer, Rc::new(consumer));
        // Nobody else has it between two turns.
        Rc::into_inner(old).into_iter().for_each(client::let_go);
        Ok(())
    }

    /// Begins the topics that wait, now and then.
    fn begin(&mut self) -> Result<(), KafkaError> {
        self.topics.begin_waiting().iter().for_each(|trouble| self.link.trouble(trouble));
        let told = self.topics.begin_filled(&self.consumer)?;
        told.iter().for_each(|(feed, reason)| self.link.tell_gap(feed, *reason));
        if !self.topics.are_filling() {
            self.link.settled();
        }
        Ok(())
    }

    /// Looks for new partitions and for topics that are gone, now and then.
    fn look(&mut self) -> Result<(), KafkaError> {
        if self.look_at <= Instant::now() {
            self.look_at = Instant::now() + self.look_every;
            self.topics.let_go();
            self.topics.look(&self.consumer)?.iter().for_each(|trouble| self.link.trouble(trouble));
        }
        Ok(())
    }

    /// Lets readers that are behind catch up a little, since this source can wait.
    fn make_way(&self) {
        let until = Instant::now() + PAUSE;
        while self.topics.all_feeds().any(|feed| feed.log.congested()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Appends what there is, as much at a time as is there.
    fn take_in(&mut self) -> Result<(), KafkaError> {
        // Messages borrow it.
        let consumer = Rc::clone(&self.consumer);
        let mut messages = Vec::new();
        let mut wait = POLL;
        let mut refused = None;
        while messages.len() < AT_ONCE {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => messages.push(message),
                Some(Err(error)) => {
                    refused = Some(error);
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        self.append(&messages)?;
        refused.map_or(Ok(()), |error| self.refused(error))
    }

    fn append(&mut self, messages: &[BorrowedMessage<'_>]) -> Result<(), KafkaError> {
        for run in messages.chunk_by(|a, b| a.topic() == b.topic()) {
            let topic = run[0].topic();
            // They come again when it is read on.
            if self.topics.is_held(topic) {
                continue;
            }
            let ready = self.topics.ready(topic, run);
            let (run, missing) = (&run[..ready.records], ready.missing);
            for feed in self.topics.feeds(topic) {
                let records = run.iter().map(Message);
                self.link.deliver(feed, records.map(|message| (Some(message.mark()), message)));
            }
            run.iter().map(Message).for_each(|message| {
                self.topics.advance(topic, message.mark(), message.timestamp());
            });
            if !missing.is_empty() {
                self.topics.hold(&self.consumer, topic, missing)?;
            }
        }
        if !messages.is_empty() {
            self.came_back();
        }
        Ok(())
    }

    /// Tells how far reading is behind, where there is news of that.
    fn measure(&mut self) {
        if let Some(ends) = self.consumer.context().take_ends() {
            let link = self.link;
            self.topics.behind(&ends, |topic, behind| link.is_behind(topic, behind));
        }
    }

    fn refused(&mut self, error: KafkaError) -> Result<(), KafkaError> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                for (feed, reason) in self.topics.mend(&self.consumer)? {
                    self.link.tell_gap(&feed, reason);
                }
                Ok(())
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => Err(error),
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ) => {
                self.look_at = self.look_at.min(Instant::now() + LOOK_SOON);
                Ok(())
            }
            // What librdkafka mends by itself is shown by `watch_health`; the rest may pass, too.
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) => Ok(()),
            _ if cause::is_of_group(&error) => Ok(()),
            // Others of its brokers may be fine.
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL | RDKafkaErrorCode::Resolve) => {
                self.consumer.context().error().iter().for_each(|cause| self.link.trouble(cause));
                Ok(())
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                self.link.trouble(&cause::of_forbidden(self.topics.names()));
                Ok(())
            }
            _ => {
                self.link.trouble(&error.to_string());
                Ok(())
            }
        }
    }

    /// librdkafka connects again by itself, and goes on at the exact offset; this only tells how it stands.
    fn watch_health(&mut self) {
        // The asker's own events are served, so that they do not pile up; what they say, the consumer's say too.
        while self.topics.asker().poll(Duration::ZERO).is_some() {}
        let News { error, all_down } = self.consumer.context().news();
        if self.up && !all_down {
            return;
        }
        // What the consumer says of its links may be over, and a broker that comes back has it said dozens of times.
        let probe = self.topics.any().map_or(PROBE, |topic| topic);
        let answers = self.topics.asker().fetch_metadata(Some(probe), PROBE_WAIT).is_ok();
        if answers {
            self.came_back();
        } else if self.up {
            self.up = false;
            self.link.down(&error.unwrap_or_else(|| "no broker is left".to_owned()));
        }
    }

    fn came_back(&mut self) {
        if !self.up {
            self.up = true;
            self.consumer.context().clear();
            self.link.up();
            self.link.reconnecting();
        }
    }
}

/// A topic name asked for where none is known yet: only that a broker answers counts.
const PROBE: &str = "__ssegate_probe";
/// How soon to look for topics that are gone, once one seems to be.
const LOOK_SOON: Duration = Duration::from_millis(250);
/// How long to wait for that answer when the cluster was lost.
const PROBE_WAIT: Duration = Duration::from_millis(500);
/// How long a poll waits for the first message.
const POLL: Duration = Duration::from_millis(50);
/// The most messages appended in one go.
const AT_ONCE: usize = 1000;
/// The longest pause for readers that are behind.
const PAUSE: Duration = Duration::from_millis(50);
