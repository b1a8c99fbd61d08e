//! A stream that several servers have, of which the one that reads it for consumers is behind: a real one cannot be made to stay
//! so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::sleep;

use super::history::StreamReader;
use super::id::{Incarnation, StreamCodec};
use super::live::Reading;
use super::{Facts, Streams};
use crate::history::{End, Reader as _};
use crate::hub::{Bounds, FeedKey, Hub, IdCodec, Memory, Offset, Policy, Segment, SegmentDraft, Source};
use crate::metrics::Metrics;
use crate::shape::Shape;
use crate::upstream::Histories;
use crate::upstream::doubt::Doubt;
use crate::upstream::link::Link;
use crate::upstream::nats::dial::Entered;
use crate::upstream::nats::line::Line;
use crate::upstream::nats::wire::Info;

/// A stream with messages from 1 on.
#[derive(Default)]
struct Peer {
    /// How many there are.
    leads: AtomicU64,
    /// How many the server has that reads them for consumers.
    reads: AtomicU64,
    /// How many that server had when a consumer was made; it begins no later than behind these.
    had: AtomicU64,
    /// How often a consumer was asked how far it has got.
    looks: AtomicU64,
}

/// What one consumer does.
#[derive(Default)]
struct Given {
    next: u64,
    turn: u64,
}

type Writer = Arc<tokio::sync::Mutex<WriteHalf<DuplexStream>>>;

impl Peer {
    fn of(leads: u64, reads: u64, had: u64) -> Arc<Self> {
        let peer = Self::default();
        for (what, count) in [(&peer.leads, leads), (&peer.reads, reads), (&peer.had, had)] {
            what.store(count, Ordering::Relaxed);
        }
        Arc::new(peer)
    }

    /// A line to it, which is driven.
    fn line(self: &Arc<Self>) -> Arc<Line> {
        let (own, far) = tokio::io::duplex(1 << 20);
        let (reader, writer) = tokio::io::split(far);
        tokio::spawn(Arc::clone(self).serve(BufReader::new(reader), Arc::new(writer.into())));
        let (read, info) = (BytesMut::new(), Info::default());
        let entered = Entered { socket: Box::new(own), read, address: "peer".into(), info };
        let (line, driver) = Line::new(entered, Duration::from_secs(5));
        tokio::spawn(driver.drive(|_| {}));
        line
    }

    async fn serve(self: Arc<Self>, mut reader: BufReader<ReadHalf<DuplexStream>>, writer: Writer) {
        let mut given = Given::default();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).await.unwrap() == 0 {
                return;
            }
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (subject, reply, size) = match words[..] {
                ["PUB", subject, reply, size] => (subject, reply, size),
                ["PUB", subject, size] => (subject, "", size),
                _ => continue,
            };
            let mut question = vec![0; size.parse::<usize>().unwrap() + 2];
            reader.read_exact(&mut question).await.unwrap();
            let question = serde_json::from_slice(&question).unwrap_or_default();
            self.answer(subject, reply, &question, &mut given, &writer).await;
        }
    }

    async fn answer(&self, subject: &str, reply: &str, question: &Value, given: &mut Given, writer: &Writer) {
        let (leads, reads) = (self.leads.load(Ordering::Relaxed), self.reads.load(Ordering::Relaxed));
        let answer = match subject.strip_prefix("$JS.API.").unwrap() {
            "STREAM.INFO.S" => {
                let state = json!({ "first_seq": 1, "last_seq": leads });
                json!({ "config": { "retention": "limits" }, "created": CREATED, "state": state })
            }
            "STREAM.MSG.GET.S" if question["seq"].as_u64().unwrap() <= leads => {
                json!({ "message": { "seq": question["seq"] } })
            }
            "STREAM.MSG.GET.S" => {
                json!({ "error": { "code": 404, "err_code": 10_037, "description": "no message found" } })
            }
            "CONSUMER.CREATE.S" => {
                let wanted = question["config"]["opt_start_seq"].as_u64().unwrap();
                *given = Given { next: wanted.min(self.had.load(Ordering::Relaxed) + 1), turn: 0 };
                json!({ "name": "c", "num_pending": (reads + 1).saturating_sub(given.next) })
            }
            "CONSUMER.INFO.S.c" => {
                self.looks.fetch_add(1, Ordering::Relaxed);
                let delivered = json!({ "consumer_seq": given.turn, "stream_seq": given.next - 1 });
                json!({ "num_pending": (reads + 1).saturating_sub(given.next), "delivered": delivered })
            }
            "CONSUMER.MSG.NEXT.S.c" => return give(reply, question, given, reads, writer).await,
            _ => return,
        };
        let answer = answer.to_string();
        say(writer, format!("MSG {reply} 1 {}\r\n{answer}\r\n", answer.len())).await;
    }
}

/// Gives what there is, and says after a while that there is no more.
async fn give(reply: &str, question: &Value, given: &mut Given, reads: u64, writer: &Writer) {
    let sid = reply.rsplit('.').next().unwrap();
    let (mut left, mut text) = (question["batch"].as_u64().unwrap(), String::new());
    while left > 0 && given.next <= reads {
        given.turn += 1;
        let (number, turn, pending) = (given.next, given.turn, reads - given.next);
        text += &format!("MSG orders.1 {sid} $JS.ACK.S.c.1.{number}.{turn}.0.{pending} 1\r\nx\r\n");
        (given.next, left) = (given.next + 1, left - 1);
    }
    say(writer, text).await;
    if left > 0 {
        let head = "NATS/1.0 408 Request Timeout\r\n\r\n";
        let late = format!("HMSG {reply} {sid} {0} {0}\r\n{head}\r\n", head.len());
        let (expires, writer) = (question["expires"].as_u64().unwrap(), Arc::clone(writer));
        tokio::spawn(async move {
            sleep(Duration::from_nanos(expires)).await;
            say(&writer, late).await;
        });
    }
}

async fn say(writer: &Writer, text: String) {
    // Who asked has gone perhaps.
    let _ = writer.lock().await.write_all(text.as_bytes()).await;
}

const CREATED: &str = "2026-01-01T00:00:00Z";

fn incarnation() -> Incarnation {
    Incarnation { created: CREATED.into(), count: 0 }
}

/// Reads from one place to another: how that ended, and what each segment has.
async fn read(peer: &Arc<Peer>, from: u64, until: u64) -> (Result<End, String>, Vec<(u64, u64, usize)>) {
    let (lines, facts) = (Arc::new(Mutex::new(Some(peer.line()))), Facts::default());
    *facts.lock() = Some(incarnation());
    let reader = StreamReader::new(&lines, &"S".into(), None, &facts);
    let codec: Arc<dyn IdCodec> = Arc::new(StreamCodec::new("S", &incarnation()));
    let memory = Memory::new(usize::MAX);
    let draft = SegmentDraft::new(&Shape::default(), &codec, false, &memory, 0, Offset::from(from));
    let segments = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&segments);
    let keep = move |segment: Segment| {
        own.lock().push((segment.from.major, segment.to.major, segment.entries().len()));
        true
    };
    let end = reader.read(draft, Offset::from(until), keep).await.map_err(|why| why.to_string());
    let segments = segments.lock().clone();
    (end, segments)
}

#[tokio::test(start_paused = true)]
async fn what_the_server_that_reads_does_not_have_yet_is_not_gone_past() {
    let peer = Peer::of(10, 4, 10);
    let (end, segments) = read(&peer, 0, 10).await;
    assert!(matches!(end, Ok(End::Read)), "it is read on");
    assert_eq!(segments, [(0, 4, 4)]);
    let (end, segments) = read(&peer, 4, 10).await;
    assert!(end.is_err_and(|why| why.contains("is behind the one that leads it")) && segments.is_empty());
    peer.reads.store(10, Ordering::Relaxed);
    let (end, segments) = read(&peer, 4, 10).await;
    assert!(matches!(end, Ok(End::Read)));
    assert_eq!(segments, [(4, 10, 6)]);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_begins_before_it_should_gives_nothing_twice() {
    let peer = Peer::of(10, 10, 3);
    let (end, segments) = read(&peer, 6, 10).await;
    assert!(matches!(end, Ok(End::Read)));
    assert_eq!(segments, [(6, 10, 4)]);
}

#[tokio::test(start_paused = true)]
async fn a_log_goes_past_nothing_that_is_on_its_way() {
    let peer = Peer::of(0, 0, 0);
    let hub = Hub::new([Arc::from("u")], Memory::new(usize::MAX));
    let link = Link::new("u".into(), hub.wanted("u").unwrap(), Metrics::new().upstream("u"));
    let (stream, subject): (Arc<str>, Arc<str>) = ("S".into(), "orders.*".into());
    let source = Source::Jetstream(Arc::clone(&stream), Some(Arc::clone(&subject)));
    let bounds = Bounds { events: 100, bytes: 1 << 20, age: Duration::MAX, buffer: 0 };
    let policy = Policy { bounds, linger: Duration::ZERO, idle_timeout: Duration::ZERO };
    let feed = hub.hold(FeedKey { upstream: "u".into(), source, shape: Shape::default() }, &policy);
    let histories = Histories { memory: Memory::new(usize::MAX), concurrency: 1 };
    let streams = Streams::new(&link, &histories);
    let (_wanted, feeds) = watch::channel(vec![Arc::clone(&feed)]);
    let line = peer.line();
    *streams.lines.lock() = Some(Arc::clone(&line));
    let reading = Reading {
        streams,
        link: Arc::clone(&link),
        line,
        stream,
        subject: Some(subject),
        feeds,
        facts: Facts::default(),
        wait: Duration::from_millis(100),
        tried: Default::default(),
        doubt: Doubt::default(),
        trouble: None,
    };
    let task = tokio::spawn(reading.run());
    let at = || feed.log.position().map(|position| position.next(0));
    while at().is_none() {
        sleep(Duration::from_millis(10)).await;
    }
    peer.leads.store(10, Ordering::Relaxed);
    let looks = peer.looks.load(Ordering::Relaxed);
    while peer.looks.load(Ordering::Relaxed) < looks + 4 {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(at(), Some(0));
    assert!(link.health().last_error.is_some_and(|(why, _)| why.contains("is behind")));
    for count in [&peer.had, &peer.reads] {
        count.store(10, Ordering::Relaxed);
    }
    while at() < Some(10) {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(feed.log.held().events, 10);
    task.abort();
}
