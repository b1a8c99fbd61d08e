//! The little of Kafka's protocol that filling a topic takes: CreateTopics, Produce, and record batches of version 2,
//! in versions of the requests that brokers from 2.1 to 4.x know. A client library would cost more CPU than the
//! measured server leaves.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// A connection to the only broker of a cluster.
pub struct Wire {
    socket: TcpStream,
    correlation: i32,
}

/// A record to be sent.
pub struct Record {
    /// Its partition.
    pub partition: u32,
    /// Its key, if it has one.
    pub key: Option<String>,
    /// Its payload.
    pub value: String,
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// Where nobody listens.
    pub fn connect(addr: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(addr).with_context(|| format!("no Kafka at {addr}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, correlation: 0 })
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// Where the broker refuses, or has it already.
    pub fn create_topic(&mut self, topic: &str, partitions: u32) -> anyhow::Result<()> {
        let mut body = Vec::new();
        put_i32(&mut body, 1);
        put_string(&mut body, topic);
        put_i32(&mut body, partitions as i32);
        // One replica; neither places nor settings.
        put_i16(&mut body, 1);
        put_i32(&mut body, 0);
        put_i32(&mut body, 0);
        put_i32(&mut body, PATIENCE.as_millis() as i32);
        body.push(0);
        let answer = self.ask(CREATE_TOPICS, &body)?;
        // Throttle time, one topic, its name, the error.
        let at = 4 + 4 + 2 + topic.len();
        match take_i16(&answer, at)? {
            0 => Ok(()),
            code => bail!("Kafka does not create a topic: error {code}"),
        }
    }

    /// Sends records of one partition, and waits until they are stored. Returns the size of that.
    ///
    /// # Errors
    /// Where the broker does not take them.
    pub fn produce(&mut self, topic: &str, records: &[Record], at: u64) -> anyhow::Result<usize> {
        let Some(first) = records.first() else { return Ok(0) };
        let mut body = Vec::new();
        put_i16(&mut body, -1);
        // The leader's word suffices: it is the only one.
        put_i16(&mut body, 1);
        put_i32(&mut body, PATIENCE.as_millis() as i32);
        put_i32(&mut body, 1);
        put_string(&mut body, topic);
        put_i32(&mut body, 1);
        put_i32(&mut body, first.partition as i32);
        let batch = batch(records, (at / 1_000_000) as i64);
        put_i32(&mut body, batch.len() as i32);
        body.extend_from_slice(&batch);
        let answer = self.ask(PRODUCE, &body)?;
        // One topic, its name, one partition, its number, the error.
        match take_i16(&answer, 4 + 2 + topic.len() + 4 + 4)? {
            0 => Ok(batch.len()),
            code => bail!("Kafka does not take records: error {code}"),
        }
    }

    fn ask(&mut self, (api, version): (i16, i16), body: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.correlation += 1;
        let mut request = vec![0; 4];
        put_i16(&mut request, api);
        put_i16(&mut request, version);
        put_i32(&mut request, self.correlation);
        put_string(&mut request, "ssegate-load");
        request.extend_from_slice(body);
        let length = (request.len() - 4) as i32;
        request[..4].copy_from_slice(&length.to_be_bytes());
        self.socket.write_all(&request).context("Kafka takes no request")?;
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).context("Kafka does not answer")?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.socket.read_exact(&mut answer).context("Kafka does not answer")?;
        Ok(answer.split_off(4.min(answer.len())))
    }
}

/// A batch as it is stored.
fn batch(records: &[Record], millis: i64) -> Vec<u8> {
    let mut body = Vec::with_capacity(records.len() * 300);
    put_i16(&mut body, 0);
    put_i32(&mut body, records.len() as i32 - 1);
    put_i64(&mut body, millis);
    put_i64(&mut body, millis);
    // No producer with an id: nothing is idempotent or in a transaction.
    put_i64(&mut body, -1);
    put_i16(&mut body, -1);
    put_i32(&mut body, -1);
    put_i32(&mut body, records.len() as i32);
    let mut one = Vec::new();
    for (at, record) in (0..).zip(records) {
        one.clear();
        one.push(0);
        put_varint(&mut one, 0);
        put_varint(&mut one, at);
        match &record.key {
            None => put_varint(&mut one, -1),
            Some(key) => put_text(&mut one, key),
        }
        put_text(&mut one, &record.value);
        put_varint(&mut one, 0);
        put_varint(&mut body, one.len() as i64);
        body.extend_from_slice(&one);
    }
    let mut batch = Vec::with_capacity(body.len() + 21);
    put_i64(&mut batch, 0);
    put_i32(&mut batch, body.len() as i32 + 9);
    put_i32(&mut batch, -1);
    batch.push(2);
    batch.extend_from_slice(&crc32c(&body).to_be_bytes());
    batch.extend_from_slice(&body);
    batch
}

/// Where Kafka's own clients put a key.
pub fn partition_of(key: &str, partitions: u32) -> u32 {
    (murmur2(key.as_bytes()) & 0x7fff_ffff) % partitions
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in words.by_ref() {
        let mut word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    let rest = words.remainder();
    for (at, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * at);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Castagnoli's, by one table.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| (crc >> 8) ^ CRC[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

const CRC: [u32; 256] = {
    let (mut table, mut at) = ([0; 256], 0);
    while at < 256 {
        let (mut crc, mut bit) = (at as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

fn put_i16(out: &mut Vec<u8>, value: i16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_i16(out, text.len() as i16);
    out.extend_from_slice(text.as_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn take_i16(bytes: &[u8], at: usize) -> anyhow::Result<i16> {
    let bytes = bytes.get(at..at + 2).context("Kafka's answer is cut")?;
    Ok(i16::from_be_bytes([bytes[0], bytes[1]]))
}

const PRODUCE: (i16, i16) = (0, 3);
const CREATE_TOPICS: (i16, i16) = (19, 2);

/// How long the broker may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_where_kafkas_clients_put_them() {
        // From the tests of Kafka's own Utils.murmur2.
        let known =
            [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)];
        for (key, hash) in known {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn checksums_are_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
