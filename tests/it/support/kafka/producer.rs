//! Producing: plain and in transactions.

use std::ptr;

use rdkafka::ClientConfig;
use rdkafka::bindings::{rd_kafka_header_add, rd_kafka_headers_t, rd_kafka_resp_err_t};
use rdkafka::error::KafkaResult;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};

use crate::support::wait::{DEADLINE, within};

/// What to send.
#[derive(Debug, Clone, Default)]
pub struct Record {
    topic: String,
    partition: Option<i32>,
    key: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    payload: Option<Vec<u8>>,
    timestamp: Option<i64>,
}

/// Where a record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

impl Record {
    /// A record without key, headers and payload (a tombstone), on a partition of the client's choice.
    pub fn to(topic: &str) -> Self {
        Self { topic: topic.into(), ..Self::default() }
    }

    /// On this partition.
    pub fn partition(self, partition: i32) -> Self {
        Self { partition: Some(partition), ..self }
    }

    /// With this key, which decides on the partition unless that is set.
    pub fn key(self, key: impl AsRef<[u8]>) -> Self {
        Self { key: Some(key.as_ref().into()), ..self }
    }

    /// With one more header; its name may be any bytes.
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    /// With this payload.
    pub fn payload(self, payload: impl AsRef<[u8]>) -> Self {
        Self { payload: Some(payload.as_ref().into()), ..self }
    }

    /// With this time, in milliseconds since 1970.
    pub fn timestamp(self, millis: i64) -> Self {
        Self { timestamp: Some(millis), ..self }
    }

    fn native(&self) -> FutureRecord<'_, Vec<u8>, Vec<u8>> {
        let headers = OwnedHeaders::new();
        self.headers.iter().for_each(|(name, value)| add_header(&headers, name, value));
        FutureRecord {
            topic: &self.topic,
            partition: self.partition,
            payload: self.payload.as_ref(),
            key: self.key.as_ref(),
            timestamp: self.timestamp,
            headers: (!self.headers.is_empty()).then_some(headers),
        }
    }
}

/// A client that produces.
#[derive(Clone)]
pub struct Producer {
    client: FutureProducer,
}

impl Producer {
    /// An idempotent producer, so that its order survives a broker that is killed meanwhile.
    pub(super) fn new(config: &ClientConfig) -> Self {
        let mut config = config.clone();
        config.set("enable.idempotence", "true").set("linger.ms", "1");
        Self { client: config.create().expect("a producer") }
    }

    /// Sends one record and waits until it is stored, also over a restart of the broker.
    pub async fn send(&self, record: Record) -> Placed {
        let sent = self.enqueue(&record);
        delivered(sent).await
    }

    /// Sends many and waits until all are stored. Within a partition they keep this order.
    pub async fn send_all(&self, records: impl IntoIterator<Item = Record>) -> Vec<Placed> {
        let mut sent = Vec::new();
        for record in records {
            sent.push(self.enqueue(&record));
        }
        let mut placed = Vec::with_capacity(sent.len());
        for sent in sent {
            placed.push(delivered(sent).await);
        }
        placed
    }

    /// The same, where the broker may be in such a state that some are not stored, or nobody can tell.
    pub async fn try_send_all(&self, records: impl IntoIterator<Item = Record>) -> Vec<KafkaResult<Placed>> {
        let sent: Vec<_> = records.into_iter().map(|record| self.enqueue(&record)).collect();
        let mut outcomes = Vec::with_capacity(sent.len());
        for sent in sent {
            outcomes.push(try_delivered(sent).await);
        }
        outcomes
    }

    /// Its queue holds 100,000 records, more than any test has under way.
    fn enqueue(&self, record: &Record) -> DeliveryFuture {
        self.client.send_result(record.native()).map_err(|(error, _)| error).expect("room in the queue")
    }
}

/// A producer whose records become visible by transaction.
pub struct Transactional {
    producer: Producer,
}

impl Transactional {
    /// A producer by this id; whatever another one by the same id has begun is aborted.
    pub async fn new(config: &ClientConfig, id: &str) -> Self {
        let mut config = config.clone();
        config.set("transactional.id", id);
        let transactional = Self { producer: Producer::new(&config) };
        transactional.call(|client| client.init_transactions(DEADLINE)).await;
        transactional
    }

    /// Begins a transaction.
    pub async fn begin(&self) {
        self.call(|client| client.begin_transaction()).await;
    }

    /// Sends one record as part of it and waits until it is stored (not: visible).
    pub async fn send(&self, record: Record) -> Placed {
        self.producer.send(record).await
    }

    /// Sends many as part of it.
    pub async fn send_all(&self, records: impl IntoIterator<Item = Record>) -> Vec<Placed> {
        self.producer.send_all(records).await
    }

    /// Makes the transaction's records visible.
    pub async fn commit(&self) {
        self.call(|client| client.commit_transaction(DEADLINE)).await;
    }

    /// Hides the transaction's records for ever.
    pub async fn abort(&self) {
        self.call(|client| client.abort_transaction(DEADLINE)).await;
    }

    /// Sends many in a transaction of their own, and commits or aborts it. On an error the transaction may or may
    /// not have been committed, and the producer is of no more use.
    pub async fn try_transaction(
        &self,
        records: impl IntoIterator<Item = Record>,
        commit: bool,
    ) -> KafkaResult<Vec<Placed>> {
        self.try_call(|client| client.begin_transaction()).await?;
        let outcomes = self.producer.try_send_all(records).await;
        let placed = outcomes.into_iter().collect::<KafkaResult<Vec<_>>>()?;
        match commit {
            true => self.try_call(|client| client.commit_transaction(DEADLINE)).await?,
            false => self.try_call(|client| client.abort_transaction(DEADLINE)).await?,
        }
        Ok(placed)
    }

    async fn call(&self, call: impl FnOnce(&FutureProducer) -> KafkaResult<()> + Send + 'static) {
        self.try_call(call).await.expect("the transaction's step");
    }

    /// These calls block in librdkafka.
    async fn try_call(
        &self,
        call: impl FnOnce(&FutureProducer) -> KafkaResult<()> + Send + 'static,
    ) -> KafkaResult<()> {
        let client = self.producer.client.clone();
        tokio::task::spawn_blocking(move || call(&client)).await.expect("no panic")
    }
}

/// Adds a header. rdkafka's own way takes no name that is not UTF-8, and other publishers do.
#[allow(unsafe_code)]
fn add_header(headers: &OwnedHeaders, name: &[u8], value: &[u8]) {
    let native = ptr::from_ref(headers.as_borrowed()).cast_mut().cast::<rd_kafka_headers_t>();
    // SAFETY: what rdkafka lends is librdkafka's own pointer to headers that belong to no message yet, and so can be added to;
    // name and value are as long as is said, and are copied.
    let answer = unsafe {
        let (name_size, value_size) = (name.len() as isize, value.len() as isize);
        rd_kafka_header_add(native, name.as_ptr().cast(), name_size, value.as_ptr().cast(), value_size)
    };
    assert!(answer == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "a header is added");
}

async fn delivered(sent: DeliveryFuture) -> Placed {
    within("a record to be stored", try_delivered(sent)).await.expect("the record is stored")
}

/// librdkafka gives up after five minutes.
async fn try_delivered(sent: DeliveryFuture) -> KafkaResult<Placed> {
    let outcome = sent.await.expect("the producer lives");
    let delivery = outcome.map_err(|(error, _)| error)?;
    Ok(Placed { partition: delivery.partition, offset: delivery.offset })
}
