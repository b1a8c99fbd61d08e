//! A message of librdkafka as a record.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};

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
        let headers = self.0.headers()?;
        headers.iter().filter(|header| header.key == name).last()?.value
    }

    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        for header in self.0.headers().into_iter().flat_map(|headers| headers.iter()) {
            each(header.key, header.value);
        }
    }

    fn timestamp(&self) -> Option<SystemTime> {
        let millis = self.0.timestamp().to_millis()?;
        Some(UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).ok()?))
    }

    fn id(&self) -> Option<String> {
        Some(format!("{}-{}", self.0.partition(), self.0.offset()))
    }
}
