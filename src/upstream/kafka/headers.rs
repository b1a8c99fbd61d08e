//! The headers of a message. A publisher may give them any bytes for a name, and rdkafka's own way to read them panics where
//! these are no UTF-8: so this file asks librdkafka itself.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::CStr;
use std::{ptr, slice};

use rdkafka::Message as _;
use rdkafka::bindings::{rd_kafka_header_get_all, rd_kafka_headers_t, rd_kafka_resp_err_t};
use rdkafka::message::BorrowedMessage;

/// Those of a message in order, each with its value if it has one.
pub(super) fn of<'m>(
    message: &'m BorrowedMessage<'_>,
) -> impl Iterator<Item = (Cow<'m, str>, Option<&'m [u8]>)> {
    let headers = message.headers().map(ptr::from_ref);
    (0..).map_while(move |at| {
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: rdkafka hands over librdkafka's own pointer to the headers as a reference to an empty type. They belong to
        // the message, which is borrowed for as long as what is read here.
        let answer = unsafe {
            let headers = headers?.cast::<rd_kafka_headers_t>();
            rd_kafka_header_get_all(headers, at, &mut name, &mut value, &mut size)
        };
        if answer != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        // SAFETY: with this answer librdkafka has set `name` to a text that ends with a NUL, and `value` to `size` bytes, or to
        // nothing. Both are the message's.
        let (name, value) = unsafe {
            let value = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), size));
            (CStr::from_ptr(name), value)
        };
        Some((name.to_string_lossy(), value))
    })
}
