//! A reader with an id that the log does not hold, from its first read to the log: what it is given and in which order,
//! without a network.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::ids::{FIRST, Ids, Job, Takes};
use super::past::Reading;
use super::reader::Reader;
use super::step::{Step, What};
use super::stretches::End;
use crate::config::{OnLag, Replay, Start};
use crate::hub::{self, Bounds, FeedKey, Gap, Hub, Memory, Opens, Policy, Read, Reason, Source, Terms, Wish};
use crate::metrics::Metrics;
use crate::shape::Shape;
use crate::sse::Event;
use crate::upstream::link::Link;

struct Rig {
    hub: Hub,
    link: Arc<Link>,
    reader: Reader,
    jobs: UnboundedReceiver<Job>,
}

impl Rig {
    /// A log that keeps so many events and begins where `id` holds.
    fn new(events: usize, id: Option<&str>) -> Self {
        let hub = Hub::new([Arc::from("u")], Memory::new(usize::MAX));
        let link = Link::new("u".into(), hub.wanted("u").unwrap(), Metrics::new().upstream("u"));
        let feed = hub.hold(key(), &policy(events));
        let (sender, jobs) = mpsc::unbounded_channel();
        let ids = Ids::new(&feed, &"/p".into(), Takes::Own, id, &Memory::new(usize::MAX), &sender);
        let reader = Reader::open(&feed, ids, Takes::Own);
        Self { hub, link, reader, jobs }
    }

    fn publish(&self, numbers: Range<u32>) {
        numbers.for_each(|number| self.reader.take_in(&[event(number)], &self.link));
    }

    fn client(&self, id: &str) -> hub::Reader {
        self.subscribe(Wish { id: Some(id.to_owned()), ..Wish::default() })
    }

    fn subscribe(&self, wish: Wish) -> hub::Reader {
        let opens = Opens { feed: key(), key: None, start: None, also: Vec::new() };
        self.hub.subscribe(opens, &policy(1), wish, TERMS)
    }

    /// The stretch that is wanted now came, with these steps.
    fn bring(&mut self, steps: impl IntoIterator<Item = Step>, end: End) {
        let (ids, number) = self.jobs.try_recv().expect("a stretch is wanted");
        let after = ids.is_waited_for(number).expect("by somebody");
        let reading = Reading { ids: &ids, after, taken: steps.into_iter().collect(), size: 0 };
        ids.arrived(number, reading.came(number, end));
    }
}

fn key() -> FeedKey {
    FeedKey { upstream: "u".into(), source: Source::Path("/p".into()), shape: Shape::default() }
}

fn policy(events: usize) -> Policy {
    let bounds = Bounds { events, bytes: 1 << 20, age: Duration::MAX, buffer: 0 };
    Policy { bounds, linger: Duration::ZERO, idle_timeout: Duration::ZERO }
}

const TERMS: Terms = Terms {
    start: Start::Latest,
    replay: Replay {
        max_events: usize::MAX,
        max_age: Duration::MAX,
        max_bytes: usize::MAX,
        timeout: Duration::from_secs(30),
    },
    on_lag: OnLag::Replay,
    rate: None,
    snapshots: true,
};

fn event(number: u32) -> Step {
    let event = Event { name: None, data: number.to_string(), id: format!("id-{number}") };
    Step { id: Some(format!("id-{number}").into()), what: What::Event(event) }
}

fn after(number: u32) -> End {
    End::After(format!("id-{number}").into())
}

/// What a client is given until it has to wait: data and ids, or the reasons of gaps.
fn given(client: &mut hub::Reader) -> Vec<String> {
    let (mut text, mut gaps) = (Vec::new(), Vec::new());
    let mut idle = 0;
    while idle < 3 {
        match client.read(1 << 20) {
            Read::Pending | Read::Wait(_) | Read::LeftOut(_) => break,
            Read::Control { gaps: told, .. } => gaps.extend(told.iter().map(|gap| gap.as_str().to_owned())),
            Read::Slice { bytes, .. } => text.extend_from_slice(&bytes),
            Read::Pieces { bytes, .. } if bytes.is_empty() => idle += 1,
            Read::Pieces { bytes, .. } => bytes.iter().for_each(|bytes| text.extend_from_slice(bytes)),
        }
    }
    let text = String::from_utf8(text).unwrap();
    let told = text.lines().filter_map(|line| line.strip_prefix("id: "));
    gaps.into_iter().chain(told.map(str::to_owned)).collect()
}

/// What it waits for is held, as a stream does.
fn waits(client: &mut hub::Reader) -> tokio::sync::futures::OwnedNotified {
    loop {
        match client.read(1 << 20) {
            Read::Wait(wake) => return wake,
            Read::Control { gaps, .. } if gaps.is_empty() => {}
            Read::Pieces { .. } => {}
            other => panic!("it waits for nothing: {other:?}"),
        }
    }
}

fn ids(numbers: Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("id-{number}")).collect()
}

#[tokio::test]
async fn a_stretch_leads_to_the_log_and_is_there_for_the_next_one() {
    let mut rig = Rig::new(100, Some("id-4"));
    rig.publish(5..10);
    let (mut one, mut other) = (rig.client("id-1"), rig.client("id-1"));
    let held = (waits(&mut one), waits(&mut other));
    rig.bring((2..6).map(event), after(5));
    drop(held);
    assert_eq!(given(&mut one), ids(2..10));
    assert_eq!(given(&mut other), ids(2..10));
    assert_eq!(given(&mut rig.client("id-3")), ids(4..10), "an id within a stretch");
    assert!(rig.jobs.try_recv().is_err(), "the server was asked once");
    rig.publish(10..11);
    assert_eq!(given(&mut one), ids(10..11));
}

#[tokio::test]
async fn one_stretch_follows_another_and_the_last_waits_for_the_log() {
    let mut rig = Rig::new(100, None);
    let mut client = rig.client("id-0");
    let held = waits(&mut client);
    rig.bring((1..3).map(event), after(2));
    drop(held);
    assert_eq!(given(&mut client), ids(1..3));
    let held = waits(&mut client);
    rig.publish(3..6);
    rig.bring((3..5).map(event), after(4));
    drop(held);
    assert_eq!(given(&mut client), ids(3..6));
    rig.publish(6..7);
    assert_eq!(given(&mut client), ids(6..7));
}

#[tokio::test]
async fn a_reader_that_the_log_leaves_behind_asks_for_what_follows_its_id() {
    let mut rig = Rig::new(3, Some("id-0"));
    let mut client = rig.client("id-0");
    rig.publish(1..3);
    assert_eq!(given(&mut client), ids(1..3));
    // Each event is a chunk of its own, and the log keeps three.
    rig.publish(3..20);
    let held = waits(&mut client);
    rig.bring((3..18).map(event), after(17));
    drop(held);
    assert_eq!(given(&mut client), ids(3..20));
}

#[tokio::test]
async fn what_cannot_be_had_is_a_gap_and_the_log_follows() {
    let mut rig = Rig::new(100, Some("id-4"));
    rig.publish(5..7);
    let mut client = rig.client("gone");
    let held = waits(&mut client);
    rig.bring([], End::Gap(Reason::UnknownId));
    drop(held);
    assert_eq!(given(&mut client), [vec!["unknown_id".to_owned()], ids(5..7)].concat());
    // A gap of the server's own is passed on, with the id behind it.
    let mut client = rig.client("early");
    let held = waits(&mut client);
    let gap = Step { what: What::Gap(Gap::of(Reason::Trimmed)), id: Some("id-4".into()) };
    rig.bring([gap], after(4));
    drop(held);
    assert_eq!(given(&mut client), ids(4..7));
}

#[tokio::test]
async fn ids_of_its_own_lead_within_the_log_until_there_are_others() {
    let rig = Rig::new(100, None);
    let plain = |data: &str| Step {
        what: What::Event(Event { name: None, data: data.to_owned(), id: String::new() }),
        id: None,
    };
    let mut live = rig.subscribe(Wish::default());
    assert!(given(&mut live).is_empty());
    rig.reader.take_in(&[plain("a"), plain("b"), event(1), plain("c")], &rig.link);
    let seen = given(&mut live);
    let own = seen[0].strip_suffix("-1").expect("an id of the log's own").to_owned();
    assert_eq!(seen[1], format!("{own}-2"));
    let position = rig.reader.feed.log.position().unwrap();
    assert_eq!(position.next(0), FIRST + 4);
    assert_eq!(given(&mut rig.client(&seen[0])), seen[1..]);
    let mut stranger = rig.client("0123456789abcdef-1");
    assert_eq!(given(&mut stranger), ["unknown_id"], "nobody else knows what it means");
}
