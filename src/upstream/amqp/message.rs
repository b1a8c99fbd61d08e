//! Messages of RabbitMQ as records.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::message::Delivery;
use lapin::types::AMQPValue;

use crate::shape::Record;

/// A message.
pub(super) struct Message<'d> {
    /// The exchange or the stream that it is of.
    name: &'d str,
    delivery: &'d Delivery,
    /// Those that can be written as text.
    headers: Vec<(&'d str, Vec<u8>)>,
}

impl<'d> Message<'d> {
    /// Of the source of this name.
    pub(super) fn new(name: &'d str, delivery: &'d Delivery) -> Self {
        let table = delivery.properties.headers().as_ref().map(|table| table.inner());
        let headers =
            table.into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), text(value)?)));
        Self { name, delivery, headers: headers.collect() }
    }
}

impl Record for Message<'_> {
    fn payload(&self) -> Option<&[u8]> {
        Some(&self.delivery.data)
    }

    fn name(&self) -> &str {
        self.name
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.delivery.routing_key.as_str().as_bytes())
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_slice())
    }

    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        self.headers.iter().for_each(|(name, value)| each(name, Some(value)));
    }

    fn timestamp(&self) -> Option<SystemTime> {
        let seconds = self.delivery.properties.timestamp().as_ref()?;
        UNIX_EPOCH.checked_add(Duration::from_secs(*seconds))
    }

    fn routing_key(&self) -> Option<&str> {
        Some(self.delivery.routing_key.as_str())
    }
}

/// A header's value as text; `None` for what is made of others.
fn text(value: &AMQPValue) -> Option<Vec<u8>> {
    Some(match value {
        AMQPValue::LongString(text) => text.as_bytes().to_vec(),
        AMQPValue::ShortString(text) => text.as_str().as_bytes().to_vec(),
        AMQPValue::ByteArray(bytes) => bytes.as_slice().to_vec(),
        AMQPValue::Boolean(flag) => flag.to_string().into_bytes(),
        AMQPValue::ShortShortInt(number) => number.to_string().into_bytes(),
        AMQPValue::ShortShortUInt(number) => number.to_string().into_bytes(),
        AMQPValue::ShortInt(number) => number.to_string().into_bytes(),
        AMQPValue::ShortUInt(number) => number.to_string().into_bytes(),
        AMQPValue::LongInt(number) => number.to_string().into_bytes(),
        AMQPValue::LongUInt(number) => number.to_string().into_bytes(),
        AMQPValue::LongLongInt(number) => number.to_string().into_bytes(),
        AMQPValue::Timestamp(number) => number.to_string().into_bytes(),
        AMQPValue::Float(number) => number.to_string().into_bytes(),
        AMQPValue::Double(number) => number.to_string().into_bytes(),
        AMQPValue::DecimalValue(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::Void => {
            return None;
        }
    })
}
