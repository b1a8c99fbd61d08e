//! One consumer of a stream from some place on. AMQP has no questions about streams: where one begins and ends is what a
//! consumer is given that begins there. RabbitMQ answers on a channel after what it has delivered on it, so that any
//! question is a fence: what has not come before its answer was not there.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use tokio::time::timeout;

use crate::upstream::amqp::connection::{Dialer, Unanswered};

/// Where to begin.
#[derive(Debug, Clone, Copy)]
pub(super) enum Begin {
    /// The oldest that there is.
    First,
    /// The newest chunk, some messages that were stored together.
    Last,
    /// This offset, or the first after it that there is.
    Offset(u64),
    /// The chunk that was stored at these seconds of the epoch, or the first after it.
    Time(u64),
}

impl Begin {
    fn argument(self) -> AMQPValue {
        match self {
            Self::First => AMQPValue::LongString("first".into()),
            Self::Last => AMQPValue::LongString("last".into()),
            Self::Offset(offset) => AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX)),
            Self::Time(seconds) => AMQPValue::Timestamp(seconds),
        }
    }
}

/// A consumer, on a channel of its own.
pub(super) struct Place<'d> {
    dialer: &'d Dialer,
    channel: Channel,
    consumer: Consumer,
}

impl<'d> Place<'d> {
    /// Begins to read. At most `prefetch` messages, set for the channel, are under way.
    pub(super) async fn open(
        dialer: &'d Dialer,
        channel: Channel,
        stream: &str,
        from: Begin,
    ) -> Result<Self, Unanswered> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), from.argument());
        let consumed =
            channel.basic_consume(stream.into(), "".into(), BasicConsumeOptions::default(), arguments);
        let consumer = dialer.answer(consumed).await?;
        Ok(Self { dialer, channel, consumer })
    }

    /// What has come by now and was not taken yet.
    pub(super) async fn come(&mut self) -> Result<Vec<Delivery>, Unanswered> {
        self.dialer.answer(self.channel.basic_qos(PREFETCH, Default::default())).await?;
        self.ready(Vec::new())
    }

    /// The same, where something may be on its way: what was just stored is not there before it is committed.
    async fn come_or_settle(&mut self) -> Result<Vec<Delivery>, Unanswered> {
        let come = self.come().await?;
        if !come.is_empty() {
            return Ok(come);
        }
        match timeout(SETTLES, self.consumer.next()).await {
            Ok(Some(Ok(first))) => self.ready(vec![first]),
            Ok(Some(Err(error))) => Err(Unanswered::Broken(self.dialer.lost(&error))),
            Ok(None) => Err(gone()),
            Err(_) => Ok(come),
        }
    }

    /// The next messages, waited for.
    pub(super) async fn next(&mut self) -> Result<Vec<Delivery>, Unanswered> {
        let next = async { self.consumer.next().await.transpose() };
        let first = self.dialer.answer(next).await?.ok_or_else(gone)?;
        self.ready(vec![first])
    }

    /// The same without an end to waiting, but that `every` so often it is asked whether the link still does. May be cancelled.
    pub(super) async fn wait(&mut self, every: Duration) -> Result<Vec<Delivery>, Unanswered> {
        match timeout(every, self.consumer.next()).await {
            Ok(Some(Ok(first))) => self.ready(vec![first]),
            Ok(Some(Err(error))) => Err(Unanswered::Broken(self.dialer.lost(&error))),
            Ok(None) => Err(gone()),
            Err(_) => self.come().await,
        }
    }

    /// With what else is there already.
    fn ready(&mut self, mut come: Vec<Delivery>) -> Result<Vec<Delivery>, Unanswered> {
        while let Some(next) = self.consumer.next().now_or_never() {
            match next {
                Some(Ok(delivery)) => come.push(delivery),
                // What came before is good, and the error comes again.
                Some(Err(_)) | None if !come.is_empty() => break,
                Some(Err(error)) => return Err(Unanswered::Broken(self.dialer.lost(&error))),
                None => return Err(gone()),
            }
        }
        Ok(come)
    }

    /// Lets RabbitMQ send as many more.
    pub(super) async fn done(&self, deliveries: &[Delivery]) -> Result<(), Unanswered> {
        match deliveries.last() {
            Some(last) => {
                let acked = last.acker.ack(BasicAckOptions { multiple: true });
                self.dialer.answer(acked).await.map(drop)
            }
            None => Ok(()),
        }
    }
}

/// The offset of a message.
pub(super) fn offset(delivery: &Delivery) -> Option<u64> {
    match delivery.properties.headers().as_ref()?.inner().get("x-stream-offset")? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        _ => None,
    }
}

/// Where a stream ends: the offset that its next message will have; `None` where it looks empty.
pub(super) async fn end(dialer: &Dialer, channel: Channel, stream: &str) -> Result<Option<u64>, Unanswered> {
    let mut place = Place::open(dialer, channel, stream, Begin::Last).await?;
    let (mut come, mut end) = (place.come_or_settle().await?, None);
    while let Some(last) = come.last().and_then(offset) {
        end = Some(last + 1);
        place.done(&come).await?;
        come = place.come().await?;
    }
    Ok(end)
}

/// The offset of the first message from a place on, if there is one.
pub(super) async fn first(
    dialer: &Dialer,
    channel: Channel,
    stream: &str,
    from: Begin,
) -> Result<Option<u64>, Unanswered> {
    let come = Place::open(dialer, channel, stream, from).await?.come_or_settle().await?;
    Ok(come.first().and_then(offset))
}

/// How long what was stored may take to be committed.
const SETTLES: Duration = Duration::from_millis(250);
/// Messages of one stream that may be under way.
pub(super) const PREFETCH: u16 = 256;

fn gone() -> Unanswered {
    Unanswered::Refused("its consumer was cancelled: it was deleted, or its node went down".to_owned())
}
