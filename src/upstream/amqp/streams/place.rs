//! One consumer of a stream from some place on. AMQP has no questions about streams: where one begins and ends is what a
//! consumer is given that begins there. RabbitMQ answers on a channel after what it has delivered on it, so that any
//! question is a fence: what has not come before its answer was not there.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use tokio::time::timeout;

use super::prefetch::Prefetch;
use crate::upstream::Unanswered;
use crate::upstream::amqp::connection::{Connection, Dialer};

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

/// A stream, by the connection on which it is asked and read.
#[derive(Clone, Copy)]
pub(super) struct Stream<'s> {
    pub dialer: &'s Dialer,
    pub connection: &'s Connection,
    pub name: &'s str,
}

impl<'s> Stream<'s> {
    /// Begins to read, with so many messages under way at first.
    pub(super) async fn read(self, from: Begin, prefetch: Prefetch) -> Result<Place<'s>, Unanswered> {
        let channel = self.dialer.channel(self.connection, prefetch.count()).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), from.argument());
        let options = BasicConsumeOptions::default();
        let consumed = channel.basic_consume(self.name.into(), "".into(), options, arguments);
        let consumer = self.dialer.answer(consumed).await?;
        Ok(Place { stream: self, channel, consumer, prefetch, is_new: true })
    }

    /// Where it ends: the offset that its next message will have; `None` where it looks empty.
    pub(super) async fn end(self) -> Result<Option<u64>, Unanswered> {
        let mut place = self.read(Begin::Last, Prefetch::new()).await?;
        let (mut come, mut end) = (place.come().await?, None);
        while let Some(last) = come.last().and_then(offset) {
            end = Some(last + 1);
            place.acknowledge(&come).await?;
            come = place.come().await?;
        }
        Ok(end)
    }

    /// The offset of the first message from a place on, if there is one.
    pub(super) async fn first(self, from: Begin) -> Result<Option<u64>, Unanswered> {
        let come = self.read(from, Prefetch::one()).await?.come().await?;
        Ok(come.first().and_then(offset))
    }

    /// How many offsets there are of it, from its first on, at the node that leads it: as that noted seconds ago, or 0 where it
    /// cannot be asked. The node that is asked may be behind.
    pub(super) async fn counted(self) -> Result<u64, Unanswered> {
        let channel = self.dialer.channel(self.connection, Prefetch::one().count()).await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(self.name.into(), passive, FieldTable::default());
        Ok(self.dialer.answer(declared).await?.message_count().into())
    }
}

/// A consumer, on a channel of its own.
pub(super) struct Place<'s> {
    stream: Stream<'s>,
    channel: Channel,
    consumer: Consumer,
    prefetch: Prefetch,
    /// Whether nothing was waited for yet.
    is_new: bool,
}

impl Place<'_> {
    /// What has come by now and was not taken yet. What a consumer begins with, and what was just stored and is yet to be
    /// committed, is waited for a little.
    pub(super) async fn come(&mut self) -> Result<Vec<Delivery>, Unanswered> {
        let fence = self.channel.basic_qos(self.prefetch.count(), Default::default());
        self.stream.dialer.answer(fence).await?;
        let come = self.ready(Vec::new())?;
        if !std::mem::take(&mut self.is_new) || !come.is_empty() {
            return Ok(come);
        }
        match timeout(SETTLES, self.consumer.next()).await {
            Ok(Some(Ok(first))) => self.ready(vec![first]),
            Ok(Some(Err(error))) => Err(Unanswered::Broken(self.stream.dialer.lost(&error))),
            Ok(None) => Err(gone()),
            Err(_) => Ok(come),
        }
    }

    /// The next messages, waited for.
    pub(super) async fn next(&mut self) -> Result<Vec<Delivery>, Unanswered> {
        let next = async { self.consumer.next().await.transpose() };
        let first = self.stream.dialer.answer(next).await?.ok_or_else(gone)?;
        self.ready(vec![first])
    }

    /// The same without an end to waiting, but that `every` so often it is asked whether the link still does. May be cancelled.
    pub(super) async fn wait(&mut self, every: Duration) -> Result<Vec<Delivery>, Unanswered> {
        match timeout(every, self.consumer.next()).await {
            Ok(Some(Ok(first))) => self.ready(vec![first]),
            Ok(Some(Err(error))) => Err(Unanswered::Broken(self.stream.dialer.lost(&error))),
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
                Some(Err(error)) => return Err(Unanswered::Broken(self.stream.dialer.lost(&error))),
                None => return Err(gone()),
            }
        }
        Ok(come)
    }

    /// Lets RabbitMQ send more: as many, or, by another consumer that goes on here, as many as their size allows.
    pub(super) async fn done(&mut self, come: &[Delivery]) -> Result<(), Unanswered> {
        if self.prefetch.note(come.iter().map(|delivery| delivery.data.len()))
            && let Some(last) = come.last().and_then(offset)
        {
            *self = self.stream.read(Begin::Offset(last + 1), self.prefetch).await?;
            return Ok(());
        }
        self.acknowledge(come).await
    }

    async fn acknowledge(&self, come: &[Delivery]) -> Result<(), Unanswered> {
        let Some(last) = come.last() else { return Ok(()) };
        let acknowledged = last.acker.ack(BasicAckOptions { multiple: true });
        self.stream.dialer.answer(acknowledged).await.map(drop)
    }

    /// How many may be under way.
    pub(super) fn prefetch(&self) -> Prefetch {
        self.prefetch
    }
}

/// The offset of a message.
pub(super) fn offset(delivery: &Delivery) -> Option<u64> {
    match delivery.properties.headers().as_ref()?.inner().get("x-stream-offset")? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        _ => None,
    }
}

/// Whether offsets are missing between a place and messages that follow it, or between these: not every offset is that of a
/// message, or they were let go of.
pub(super) fn has_hole(at: u64, come: &[Delivery]) -> bool {
    is_broken(at, come.iter().filter_map(offset))
}

fn is_broken(at: u64, offsets: impl Iterator<Item = u64>) -> bool {
    let mut next = at;
    // It begins with a whole chunk.
    offsets.filter(|offset| *offset >= at).any(|offset| std::mem::replace(&mut next, offset + 1) != offset)
}

/// How long what was stored may take to be committed.
const SETTLES: Duration = Duration::from_millis(250);

fn gone() -> Unanswered {
    Unanswered::Refused("its consumer was cancelled: it was deleted, or its node went down".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_seen_wherever_it_is() {
        let is_broken = |offsets: &[u64]| is_broken(5, offsets.iter().copied());
        for (offsets, expected) in [
            (&[][..], false),
            (&[5, 6, 7], false),
            (&[3, 4, 5, 6], false),
            (&[1, 2, 4], false),
            (&[6, 7], true),
            (&[3, 6], true),
            (&[5, 6, 8], true),
            (&[2, 5, 7, 8], true),
        ] {
            assert_eq!(is_broken(offsets), expected, "{offsets:?}");
        }
    }
}
