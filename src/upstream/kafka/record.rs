//! A message of librdkafka as a record.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use super::headers;
use crate::hub::Mark;
use crate::shape::Record;

/// A message as a record.
#[derive(Clone, Copy)]
pub(super) struct Message<'m>(pub(super) &'m BorrowedMessage<'m>);

impl Message<'_> {
    /// The step that reading it takes.
    pub(super) fn mark(&self) -> Mark {
        Mark::new(self.0.partition() as u32, self.0.offset() as u64 + 1)
    }
}

impl Record for Message<'_> {
    fn payload(&self) -> Option<&[u8]> {
        self.0.payload()
    }

    fn name(&self) -> &str {
        self.0.topic()
    }

    fn key(&self) -> Option<&[u8]> {
        self.0.key()
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        headers::of(self.0).filter(|(own, _)| own == name).last()?.1
    }

    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        headers::of(self.0).for_each(|(name, value)| each(&name, value));
    }

    fn timestamp(&self) -> Option<SystemTime> {
        let millis = self.0.timestamp().to_millis()?;
        Some(UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).ok()?))
    }

    fn id(&self) -> Option<String> {
        Some(format!("{}-{}", self.0.partition(), self.0.offset()))
    }
}
