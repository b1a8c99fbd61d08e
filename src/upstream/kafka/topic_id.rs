//! The ids that brokers give to topics: a topic that was deleted and created again has another one, however fast
//! that went and whatever its offsets are now. librdkafka tells them, its safe bindings do not (rust-rdkafka #614),
//! so this file calls the C functions itself. Only `headers` does so, too.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;
use std::slice;
use std::time::Duration;

use rdkafka::bindings::{
    rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new, rd_kafka_AdminOptions_set_broker,
    rd_kafka_AdminOptions_set_request_timeout, rd_kafka_AdminOptions_t, rd_kafka_DescribeTopics,
    rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
    rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicCollection_t, rd_kafka_TopicDescription_error,
    rd_kafka_TopicDescription_name, rd_kafka_TopicDescription_t, rd_kafka_TopicDescription_topic_id,
    rd_kafka_Uuid_least_significant_bits, rd_kafka_Uuid_most_significant_bits, rd_kafka_admin_op_t,
    rd_kafka_error_code, rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy, rd_kafka_event_error,
    rd_kafka_event_t, rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll, rd_kafka_queue_t,
};
use rdkafka::client::{Client, ClientContext, NativeClient};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What a broker calls a topic from its creation to its deletion, and no other topic ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicId(pub(super) [u8; 16]);

impl TopicId {
    /// Of its two halves, which are both zero where a broker has none to tell.
    fn new(most: i64, least: i64) -> Option<Self> {
        let bits = (u128::from(most.cast_unsigned()) << 64) | u128::from(least.cast_unsigned());
        (bits != 0).then(|| Self(bits.to_be_bytes()))
    }
}

/// What is known of a topic's id. `None` is a broker that has none to tell (before Kafka 2.8), or one whose ACLs
/// forbid us to describe the topic.
pub(super) type Answer = Result<Option<TopicId>, KafkaError>;

/// Asks for the ids of all `topics` in one request. Never creates a topic. Blocks, for twice `timeout` and
/// a little at most.
///
/// # Errors
/// The outer one concerns them all, such as a timeout. A topic's own is `UnknownTopicOrPartition` where it does
/// not exist, and whatever else the broker says of it.
pub(super) fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<HashMap<String, Answer>, KafkaError> {
    let Some(first) = topics.first() else { return Ok(HashMap::new()) };
    ask(client, topics, any_broker(client, first, timeout)?, timeout)?.answers()
}

/// A question that has been sent.
pub(super) struct Asked {
    queue: Queue,
    topics: Vec<String>,
    timeout: Duration,
}

impl Asked {
    /// The answers, as [`topic_ids`] gives them.
    pub(super) fn answers(self) -> Result<HashMap<String, Answer>, KafkaError> {
        // librdkafka gives up by itself at the timeout, with an answer that says so.
        match self.queue.answer(self.timeout + GRACE) {
            Ok(answer) => answer.topics(self.topics),
            Err(error) if tells_none(&error) => {
                Ok(self.topics.into_iter().map(|topic| (topic, Ok(None))).collect())
            }
            Err(error) => Err(error),
        }
    }
}

/// The broker that answers, or else any. Left to itself, librdkafka would wait for the cluster's controller, which
/// need not be reachable (and which its mock cluster does not have).
pub(super) fn any_broker<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<i32, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), timeout)?;
    let ids = || metadata.brokers().iter().map(|broker| broker.id());
    let answering = ids().find(|id| *id == metadata.orig_broker_id());
    answering.or_else(|| ids().next()).ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerNotAvailable))
}

/// Asks a broker for the ids of `topics`, and waits for nothing.
pub(super) fn ask<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    broker: i32,
    timeout: Duration,
) -> Result<Asked, KafkaError> {
    let (client, names) = (client.native_client(), Topics::new(topics)?);
    let options = Options::new(client, broker, timeout)?;
    let queue = Queue::new(client)?;
    // SAFETY: the client, the collection, the options and the queue are alive; librdkafka copies from the
    // collection and the options, and counts its own reference to the queue.
    unsafe { rd_kafka_DescribeTopics(client.ptr(), names.0.as_ptr(), options.0.as_ptr(), queue.0.as_ptr()) };
    Ok(Asked { queue, topics: topics.iter().map(|topic| (*topic).to_owned()).collect(), timeout })
}

/// Whether the broker has no ids to tell, or must not tell us.
fn tells_none(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{TopicAuthorizationFailed, UnsupportedFeature, UnsupportedVersion};
    let code = error.rdkafka_error_code();
    matches!(code, Some(UnsupportedFeature | UnsupportedVersion | TopicAuthorizationFailed))
}

/// The names of topics, as librdkafka takes them.
struct Topics(NonNull<rd_kafka_TopicCollection_t>);

impl Topics {
    fn new(names: &[&str]) -> Result<Self, KafkaError> {
        let names: Vec<CString> = names.iter().map(|name| CString::new(*name)).collect::<Result<_, _>>()?;
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: there are as many pointers to living C strings as is said; librdkafka copies the strings.
        let made = unsafe { rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()) };
        NonNull::new(made).map(Self).ok_or_else(out_of_memory)
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        // SAFETY: it is ours, alive, and dropped once.
        unsafe { rd_kafka_TopicCollection_destroy(self.0.as_ptr()) };
    }
}

/// How the request is to be made.
struct Options(NonNull<rd_kafka_AdminOptions_t>);

impl Options {
    fn new(client: &NativeClient, broker: i32, timeout: Duration) -> Result<Self, KafkaError> {
        let kind = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        // SAFETY: the client is alive.
        let made = unsafe { rd_kafka_AdminOptions_new(client.ptr(), kind) };
        let options = NonNull::new(made).map(Self).ok_or_else(out_of_memory)?;
        let mut why: [c_char; 256] = [0; 256];
        let (made, why, room) = (options.0.as_ptr(), why.as_mut_ptr(), why.len());
        // SAFETY: the options are alive, and `why` has the room that is said.
        let set = unsafe {
            [
                rd_kafka_AdminOptions_set_request_timeout(made, millis(timeout), why, room),
                rd_kafka_AdminOptions_set_broker(made, broker, why, room),
            ]
        };
        set.into_iter().find_map(|code| failed(code.into())).map_or(Ok(options), Err)
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: they are ours, alive, and dropped once.
        unsafe { rd_kafka_AdminOptions_destroy(self.0.as_ptr()) };
    }
}

/// Where the answer to one request comes in.
struct Queue(NonNull<rd_kafka_queue_t>);

impl Queue {
    fn new(client: &NativeClient) -> Result<Self, KafkaError> {
        // SAFETY: the client is alive.
        let made = unsafe { rd_kafka_queue_new(client.ptr()) };
        NonNull::new(made).map(Self).ok_or_else(out_of_memory)
    }

    fn answer(&self, timeout: Duration) -> Result<Described, KafkaError> {
        // SAFETY: the queue is alive, and nobody else polls it.
        let event = unsafe { rd_kafka_queue_poll(self.0.as_ptr(), millis(timeout)) };
        let timed_out = KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut);
        let event = NonNull::new(event).map(Event).ok_or(timed_out)?;
        // SAFETY: the event is alive.
        let error = unsafe { rd_kafka_event_error(event.0.as_ptr()) };
        failed(error.into()).map_or(Ok(Described(event)), Err)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: it is ours, alive, and dropped once; an answer that comes later finds librdkafka's own reference.
        unsafe { rd_kafka_queue_destroy(self.0.as_ptr()) };
    }
}

/// What came in on a queue.
struct Event(NonNull<rd_kafka_event_t>);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it is ours, alive, and dropped once.
        unsafe { rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}

/// An answer without an error of its own.
struct Described(Event);

impl Described {
    fn topics(&self, asked: Vec<String>) -> Result<HashMap<String, Answer>, KafkaError> {
        // SAFETY: the event is alive.
        let result = unsafe { rd_kafka_event_DescribeTopics_result(self.0.0.as_ptr()) };
        if result.is_null() {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::BadMessage));
        }
        let mut count = 0;
        // SAFETY: the result is part of the event, and so is the array, whose length is told.
        let topics = unsafe {
            let topics = rd_kafka_DescribeTopics_result_topics(result, &mut count);
            if topics.is_null() { &[] } else { slice::from_raw_parts(topics, count) }
        };
        // A topic that the broker left out of its answer is a null pointer.
        let described = topics.iter().filter(|topic| !topic.is_null());
        // SAFETY: the descriptions are part of the event.
        let mut answers: HashMap<String, Answer> =
            described.map(|&topic| unsafe { (name(topic), answer(topic)) }).collect();
        for topic in asked {
            let unknown = || Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
            answers.entry(topic).or_insert_with(unknown);
        }
        Ok(answers)
    }
}

/// # Safety
/// The description must be part of a living event.
unsafe fn name(topic: *const rd_kafka_TopicDescription_t) -> String {
    // SAFETY: the description is alive, and its name is a C string in it.
    unsafe { CStr::from_ptr(rd_kafka_TopicDescription_name(topic)) }.to_string_lossy().into_owned()
}

/// # Safety
/// The description must be part of a living event.
unsafe fn answer(topic: *const rd_kafka_TopicDescription_t) -> Answer {
    // SAFETY: the description is alive, and so are its error, null where there is none, and its id.
    let (code, most, least) = unsafe {
        let (error, id) = (rd_kafka_TopicDescription_error(topic), rd_kafka_TopicDescription_topic_id(topic));
        let code = (!error.is_null()).then(|| rd_kafka_error_code(error));
        (code, rd_kafka_Uuid_most_significant_bits(id), rd_kafka_Uuid_least_significant_bits(id))
    };
    match code.and_then(|code| failed(code.into())) {
        Some(error) if tells_none(&error) => Ok(None),
        Some(error) => Err(error),
        None => Ok(TopicId::new(most, least)),
    }
}

fn failed(code: RDKafkaErrorCode) -> Option<KafkaError> {
    (code != RDKafkaErrorCode::NoError).then_some(KafkaError::MetadataFetch(code))
}

fn out_of_memory() -> KafkaError {
    KafkaError::MetadataFetch(RDKafkaErrorCode::CriticalSystemResource)
}

/// As librdkafka takes it.
fn millis(duration: Duration) -> i32 {
    duration.as_millis().min(LONGEST) as i32
}

/// How much longer than asked for an answer is waited for.
const GRACE: Duration = Duration::from_millis(500);
/// The longest timeout of a request that librdkafka takes, in milliseconds.
const LONGEST: u128 = 3_600_000;

#[cfg(test)]
mod tests {
    use rdkafka::config::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::mocking::MockCluster;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn consumer(brokers: &str) -> BaseConsumer {
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "g").create().unwrap()
    }

    #[test]
    fn each_topic_has_its_own_and_keeps_it() {
        let cluster = MockCluster::new(2).unwrap();
        cluster.create_topic("a", 3, 1).unwrap();
        cluster.create_topic("b", 1, 1).unwrap();
        let consumer = consumer(&cluster.bootstrap_servers());
        let ask = || topic_ids(consumer.client(), &["none", "b", "a"], LONG).unwrap();
        let answers = ask();
        let id = |topic: &str| *answers[topic].as_ref().unwrap();
        assert!(id("a").is_some() && id("b").is_some() && id("a") != id("b"), "{answers:?}");
        let unknown = answers["none"].as_ref().unwrap_err().rdkafka_error_code();
        assert_eq!(unknown, Some(RDKafkaErrorCode::UnknownTopicOrPartition));
        assert_eq!(ask()["a"], answers["a"]);
        assert!(topic_ids(consumer.client(), &[], LONG).unwrap().is_empty());
    }

    #[test]
    fn halves() {
        assert_eq!(TopicId::new(0, 0), None);
        let id = TopicId::new(0x0001_0203_0405_0607, -1).unwrap();
        assert_eq!(id.0, [0, 1, 2, 3, 4, 5, 6, 7, 255, 255, 255, 255, 255, 255, 255, 255]);
    }

    #[test]
    fn questions_that_make_no_sense_or_find_nobody() {
        let cluster = MockCluster::new(1).unwrap();
        let there = consumer(&cluster.bootstrap_servers());
        for wrong in [&["a", "a"][..], &["a", ""]] {
            let error = topic_ids(there.client(), wrong, LONG).unwrap_err();
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::InvalidArgument));
        }
        assert!(matches!(topic_ids(there.client(), &["a", "b\0"], LONG), Err(KafkaError::Nul(_))));
        let nobody = consumer("127.0.0.1:1");
        topic_ids(nobody.client(), &["a"], Duration::from_millis(50)).unwrap_err();
    }
}
