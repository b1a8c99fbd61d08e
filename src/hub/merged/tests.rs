//! Several feeds as one stream, block by block. That nothing is lost or repeated, whatever comes in between, is tested in
//! `tests/model`.

use std::task::Waker;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::poll_fn;
use tokio::time::Instant;

use super::super::testing::{ROOM, TERMS, Text, filtering, shape};
use super::super::walk::NOWHERE;
use super::super::{
    Answer, Bounds, FeedKey, Found, History, Hub, IdCodec, Mark, Memory, Offset, Opening, Opens, Policy,
    Position, Question, SegmentDraft, Sought, Source, Table, Terms, Wish, Wishes,
};
use super::*;
use crate::config::{Digest, OnLag, Snapshot, Start, Template};
use crate::shape::{ClientFilter, Fact, Record, Shape};

struct Rig {
    hub: Hub,
    policy: Policy,
}

/// A record with a name.
struct Named(&'static str, &'static str);

impl Record for Named {
    fn payload(&self) -> Option<&[u8]> {
        Some(self.1.as_bytes())
    }

    fn name(&self) -> &str {
        "test"
    }

    fn event(&self) -> Option<&str> {
        Some(self.0)
    }
}

/// A record that is the newest of a key of the same text.
struct Newest(&'static str);

impl Record for Newest {
    fn payload(&self) -> Option<&[u8]> {
        Some(self.0.as_bytes())
    }

    fn name(&self) -> &str {
        "test"
    }

    fn key(&self) -> Option<&[u8]> {
        self.payload()
    }
}

impl Rig {
    fn new() -> Self {
        let policy = Policy { bounds: ROOM, linger: Duration::ZERO, idle_timeout: Duration::from_secs(60) };
        Self { hub: Hub::new([Arc::from("up")], Memory::new(usize::MAX)), policy }
    }

    /// A channel that is open.
    fn channel(&self, name: &str) -> Arc<Feed> {
        let feed = self.closed(name);
        feed.confirm();
        feed
    }

    /// A topic of which memory holds nothing, and its upstream so many events.
    fn topic(&self, name: &str, events: u64) -> Arc<Feed> {
        let source = Source::Topic(name.into());
        let feed = self.hub.hold(FeedKey { source, ..key(name) }, &self.policy);
        let codec: Arc<dyn IdCodec> = Arc::new(feed.own_ids());
        let (history, start) = (Arc::new(Past(Arc::clone(&codec), events)), Position::new(vec![events]));
        feed.log.open_filled(Opening { codec, history, segments: &[], start: start.clone(), end: start });
        feed
    }

    /// One that reads all there is of these, as one.
    fn all_of(&self, feeds: &[&Arc<Feed>]) -> Reader {
        let opens =
            |feed: &&Arc<Feed>| Opens { feed: feed.key.clone(), key: None, start: None, also: Vec::new() };
        let also = feeds[1..].iter().map(opens).collect();
        let terms = Terms { start: Start::Earliest, ..TERMS };
        self.hub.subscribe(Opens { also, ..opens(&feeds[0]) }, &self.policy, Wish::default(), terms)
    }

    fn closed(&self, name: &str) -> Arc<Feed> {
        self.hub.hold(key(name), &self.policy)
    }

    fn part(&self, name: &str, wishes: &Wishes, terms: Terms) -> Part {
        let label: Arc<str> = format!("/{name}").into();
        let wish = wishes.of(&label);
        let resumes = wish.id.clone();
        let opens = Opens { feed: key(name), key: None, start: None, also: Vec::new() };
        Part { label, reader: self.hub.subscribe(opens, &self.policy, wish, terms), resumes }
    }

    fn merged(&self, names: &[&str], id: Option<&str>, tell: Tell) -> Merged {
        let wishes = Wishes::new(Wish { id: id.map(str::to_owned), ..Wish::default() });
        let parts = names.iter().map(|name| self.part(name, &wishes, TERMS)).collect();
        Merged::new(parts, tell, "stream.".into(), Vec::new())
    }
}

fn key(name: &str) -> FeedKey {
    FeedKey { upstream: "up".into(), source: Source::Channel(name.into()), shape: shape() }
}

/// What an upstream holds before so much: an event at each offset, in segments of one.
struct Past(Arc<dyn IdCodec>, u64);

impl History for Past {
    fn segment(&self, partition: u32, from: Offset, _: Offset) -> Found<Sought> {
        let (memory, to) = (Memory::new(usize::MAX), Offset::from(from.major + 1));
        let mut draft = SegmentDraft::new(&shape(), &self.0, false, &memory, partition, from);
        draft.push(to, &Text("past"));
        Found::Here(Sought::Segment(Arc::new(draft.finish(to))))
    }

    fn ask(&self, _: &Question, _: Instant) -> Found<Answer> {
        let (none, end) = (Position::default(), Position::new(vec![self.1]));
        Found::Here(Answer { from: none.clone(), oldest: none, end, born: None })
    }

    fn answers_since(&self) -> Option<Instant> {
        Some(Instant::now())
    }

    fn counts(&self) -> bool {
        true
    }

    fn scan(&self, _: &Position, _: Arc<Table>) {}

    fn reset(&self) {}
}

/// What is read until there is nothing more: blocks without their ids, and the last id.
fn told(merged: &mut Merged) -> (Vec<String>, Option<String>) {
    let (mut blocks, mut id) = (Vec::new(), None);
    while let Some(pieces) = read(merged, 1 << 20) {
        for block in Blocks::new(vec![pieces.concat().into()]) {
            blocks.push(String::from_utf8(block.body.to_vec()).unwrap());
            id = block.id.map(|id| String::from_utf8(id.to_vec()).unwrap()).or(id);
        }
    }
    (blocks, id)
}

/// One read, as a stream does it: it waits where there is nothing, and reads again when it is woken.
fn read(merged: &mut Merged, max: usize) -> Option<Vec<Bytes>> {
    match read_in(merged, !merged.is_ready(false), max) {
        None if poll(merged).is_ready() => read(merged, max),
        given => given,
    }
}

/// The same of history or memory alone, without a wait.
fn read_in(merged: &mut Merged, history: bool, max: usize) -> Option<Vec<Bytes>> {
    match merged.read_in(history, max) {
        Read::Pending => None,
        Read::Control { bytes, .. } => Some(vec![bytes]),
        Read::Pieces { bytes, .. } => Some(bytes),
        other => panic!("{other:?}"),
    }
}

fn poll(merged: &mut Merged) -> Poll<()> {
    merged.poll_wake(&mut Context::from_waker(Waker::noop()))
}

/// The id of a part within one of all.
fn part_of(id: &str, label: &str) -> Option<String> {
    Wishes::new(Wish { id: Some(id.to_owned()), ..Wish::default() }).of(label).id
}

/// Bytes of a read that takes all there is.
const MAX: usize = 1 << 20;

const POSITION: &str = "event: stream.position\ndata: {}\n";

#[tokio::test]
async fn what_each_is_given_says_of_which_feed_it_is_and_where_all_of_them_stand() {
    let rig = Rig::new();
    let (a, b) = (rig.channel("a"), rig.channel("b"));
    let mut merged = rig.merged(&["a", "b"], None, Tell::Event);
    let (begin, id) = told(&mut merged);
    assert_eq!(begin, [POSITION], "one position tells where all begin");
    let begun = id.unwrap();
    a.log.append([(None, Text("1"))]);
    b.log.append([(None, Named("created", "2"))]);
    let (mut events, id) = told(&mut merged);
    events.sort();
    assert_eq!(events, ["event: /a\ndata: 1\n", "event: /b created\ndata: 2\n"]);
    let id = id.unwrap();
    for label in ["/a", "/b"] {
        let (before, now) = (part_of(&begun, label).unwrap(), part_of(&id, label).unwrap());
        assert_eq!(before.strip_suffix("-0"), now.strip_suffix("-1"));
    }
    a.log.append([(None, Text("3"))]);
    let (events, _) = told(&mut rig.merged(&["b", "a", "c"], Some(&id), Tell::Nothing));
    assert_eq!(events, ["data: 3\n"], "on from there, also with another feed, which is not open yet");
}

#[tokio::test]
async fn bodies_are_those_of_the_log() {
    let rig = Rig::new();
    let a = rig.channel("a");
    let mut single = rig.merged(&["a"], None, Tell::Nothing).parts.remove(0).reader.unwrap();
    let mut merged = [Tell::Nothing, Tell::Event].map(|tell| rig.merged(&["a"], None, tell));
    single.read(1_000);
    merged.iter_mut().for_each(|merged| _ = told(merged));
    a.log.append([(None, Text("body")), (None, Text("and another"))]);
    let Read::Slice { bytes: shared, .. } = single.read(1_000) else { panic!("a slice") };
    for merged in &mut merged {
        let pieces = read(merged, 1_000).unwrap();
        let bodies = pieces.iter().filter(|piece| piece.starts_with(b"data: "));
        let bodies: Vec<_> = bodies.map(|body| body.as_ptr()).collect();
        let second = memchr::memmem::find(&shared, b"data: and another\n").unwrap();
        assert_eq!(bodies, [shared.as_ptr(), shared[second..].as_ptr()]);
    }
}

#[tokio::test]
async fn before_it_is_known_where_one_begins_ids_say_what_it_was_asked_for() {
    let rig = Rig::new();
    rig.channel("a");
    let b = rig.closed("b");
    let mut first = rig.merged(&["a", "b"], None, Tell::Event);
    let (begin, id) = told(&mut first);
    let id = id.unwrap();
    assert_eq!((begin.len(), part_of(&id, "/b")), (1, None));
    assert!(first.is_deciding());
    b.confirm();
    let (begin, id) = told_when_woken(&mut first).await;
    assert_eq!(begin, [POSITION]);
    assert!(!first.is_deciding());
    let id = id.unwrap();
    assert!(part_of(&id, "/b").is_some());

    let other = Rig::new();
    other.closed("b");
    other.channel("a");
    let mut elsewhere = other.merged(&["a", "b"], Some(&id), Tell::Event);
    let (begin, told) = told(&mut elsewhere);
    let expected = r#"{"reason":"unknown_id","missed":null,"from":null,"to":null,"since":null,"until":null,"feed":"/a"}"#;
    assert_eq!(begin, [format!("event: stream.gap\ndata: {expected}\n"), POSITION.to_owned()]);
    let told = told.unwrap();
    assert_eq!(part_of(&told, "/b"), part_of(&id, "/b"), "until it is known");
    assert_ne!(part_of(&told, "/a"), part_of(&id, "/a"));
}

/// The same, once it is woken.
async fn told_when_woken(merged: &mut Merged) -> (Vec<String>, Option<String>) {
    poll_fn(|cx| merged.poll_wake(cx)).await;
    told(merged)
}

#[tokio::test]
async fn who_waits_is_woken_by_each_of_them_and_by_nothing_else() {
    let rig = Rig::new();
    let feeds = ["a", "b"].map(|name| rig.channel(name));
    let mut merged = rig.merged(&["a", "b"], None, Tell::Event);
    told(&mut merged);
    for feed in feeds.iter().cycle().take(6) {
        let mut wake = poll_fn(|cx| merged.poll_wake(cx)).boxed_local();
        assert!((&mut wake).now_or_never().is_none());
        feed.log.append([(None, Text("x"))]);
        wake.await;
        assert_eq!(told(&mut merged).0.len(), 1);
    }
    // What comes before it is waited for again is not missed.
    feeds[0].log.append([(None, Text("y"))]);
    assert_eq!(told_when_woken(&mut merged).await.0, ["event: /a\ndata: y\n"]);
}

#[tokio::test]
async fn a_gap_is_followed_by_the_position_of_all() {
    let rig = Rig::new();
    let (a, b) = (rig.channel("a"), rig.channel("b"));
    let mut merged = rig.merged(&["a", "b"], None, Tell::Envelope);
    told(&mut merged);
    let time = std::time::SystemTime::UNIX_EPOCH;
    a.log.append_link_lost((time, time));
    a.log.append([(None, Text("{\"x\":1}"))]);
    b.log.append([(None, Named("new", "{}"))]);
    let (blocks, id) = told(&mut merged);
    let gap = blocks.iter().position(|block| block.starts_with("event: stream.gap\n")).unwrap();
    assert!(blocks[gap].ends_with(",\"feed\":\"/a\"}\n"), "{}", blocks[gap]);
    assert_eq!(blocks[gap + 1..][..2], [POSITION, "data: {\"x\":1,\"feed\":\"/a\"}\n"]);
    assert!(blocks.contains(&"data: {\"feed\":\"/b\",\"event\":\"new\"}\n".to_owned()));
    assert_eq!(blocks.len(), 4, "and no other position: {blocks:?}");
    assert!(part_of(&id.unwrap(), "/a").unwrap().ends_with("-2"));
}

#[tokio::test]
async fn in_a_silence_positions_that_moved_are_told_together() {
    let rig = Rig::new();
    let feeds = ["a", "b", "c"].map(|name| rig.channel(name));
    let mut merged = rig.merged(&["a", "b", "c"], None, Tell::Event);
    let (_, before) = told(&mut merged);
    assert_eq!(merged.moved_on(), None);
    feeds[..2].iter().for_each(|feed| feed.log.move_on(Mark::new(0, 7)));
    let bytes = merged.moved_on().unwrap();
    let blocks: Vec<_> = Blocks::new(vec![bytes]).collect();
    assert_eq!((blocks.len(), &blocks[0].body[..]), (1, POSITION.as_bytes()));
    let id = String::from_utf8(blocks[0].id.clone().unwrap().to_vec()).unwrap();
    let ends =
        ["/a", "/b", "/c"].map(|label| part_of(&id, label).unwrap().split_once('-').unwrap().1.to_owned());
    assert_eq!(ends, ["7", "7", "0"]);
    assert_eq!(merged.moved_on(), None, "once");
    assert_ne!(before, Some(id));
}

#[tokio::test]
async fn a_flood_of_one_leaves_the_others_their_turn_and_what_is_given_is_bounded() {
    let rig = Rig::new();
    let (flood, other) = (rig.channel("flood"), rig.channel("other"));
    let mut merged = rig.merged(&["flood", "other"], None, Tell::Event);
    told(&mut merged);
    for round in 0..20 {
        flood.log.append((0..1_000).map(|_| (None, Text("x"))));
        other.log.append([(None, Text("y"))]);
        let (mut reads, mut given) = (0, String::new());
        while !given.contains("data: y\n") {
            let pieces = read(&mut merged, 4_096).unwrap();
            let bytes = pieces.concat();
            assert!(bytes.len() <= 4_096 + MARKS, "{} bytes", bytes.len());
            given.push_str(str::from_utf8(&bytes).unwrap());
            reads += 1;
        }
        // A run of the flood has about a hundred and thirty of its events, each of them with an id of both feeds.
        assert!(reads < 20, "{reads} reads in round {round}");
    }
}

#[tokio::test]
async fn the_one_with_the_longest_id_ends_where_there_is_no_room_and_the_others_go_on() {
    let rig = Rig::new();
    // As a server of events may give them.
    let (long, news) = ("x".repeat(LONGEST - 40), rig.channel("news"));
    let mut parts = vec![rig.part("news", &Wishes::new(Wish::default()), TERMS)];
    parts.push(Part { resumes: Some(long), ..rig.part("long", &Wishes::new(Wish::default()), TERMS) });
    let mut merged = Merged::new(parts, Tell::Event, "stream.".into(), Vec::new());
    let (blocks, id) = told(&mut merged);
    assert_eq!(blocks.len(), 2);
    let refused = &blocks[0];
    assert!(refused.starts_with("event: stream.refused\ndata: {\"feed\":\"/long\",\"type\":"), "{refused}");
    assert!(refused.contains("urn:ssegate:problem:id-too-long"));
    let id = id.unwrap();
    assert!(id.len() <= LONGEST && part_of(&id, "/news").is_some() && part_of(&id, "/long").is_none());
    assert_eq!((merged.feeds().len(), news.log.readers()), (1, 1), "it reads no more");
    assert_eq!(merged.take_ended(), [Arc::from("/long")]);
    assert_eq!((merged.take_ended().len(), merged.is_over(), merged.is_deciding()), (0, false, false));
    rig.channel("long");
    news.log.append([(None, Text("on"))]);
    assert_eq!(told_when_woken(&mut merged).await.0, ["event: /news\ndata: on\n"]);
    assert_eq!(merged.stands(), Some(1), "of what is left");
}

#[tokio::test]
async fn one_that_moves_too_far_keeps_its_last_place_and_nothing_follows_the_last_one() {
    let rig = Rig::new();
    let [a, b] = ["a", "b"].map(|name| rig.channel(name));
    let mut merged = rig.merged(&["a", "b"], None, Tell::Event);
    let (_, before) = told(&mut merged);
    let before = before.unwrap();
    let position = |id: &str| format!("event: stream.position\ndata: {{}}\nid: {id}\n\n");
    let (far, mut ended) = ("x".repeat(LONGEST), Vec::new());
    for part in 0..2 {
        assert!(!merged.is_over());
        let mut out = Pieces::default();
        merged.pass_on_all(part, position(&far).into(), &mut out);
        assert!(out.finish().concat().starts_with(b"event: stream.refused\n"));
        ended.append(&mut merged.take_ended());
        assert_eq!(merged.id(), before, "from there its client goes on");
    }
    ended.sort();
    assert_eq!((ended, merged.is_over()), (vec!["/a".into(), "/b".into()], true));
    assert_eq!((a.log.readers(), b.log.readers()), (0, 0));
    assert_eq!(told(&mut merged), (vec![POSITION.to_owned()], Some(before)));
}

#[tokio::test]
async fn what_it_was_refused_is_told_first_and_nothing_else_if_that_is_all() {
    let refused = |label: &str| Refused {
        label: label.into(),
        status: Some(403),
        kind: "urn:ssegate:problem:forbidden".into(),
        detail: "Not for you.".into(),
        resumes: None,
    };
    let refused = vec![refused("/x"), refused("/y")];
    let mut merged = Merged::new(Vec::new(), Tell::Event, "stream.".into(), refused);
    let (blocks, id) = told(&mut merged);
    assert!(blocks.iter().all(|block| block.starts_with("event: stream.refused\n")));
    assert_eq!((blocks.len(), id), (2, None));
    assert!(poll_fn(|cx| merged.poll_wake(cx)).now_or_never().is_none());
    assert_eq!((merged.moved_on(), merged.stands(), merged.replays()), (None, Some(0), false));
}

#[tokio::test]
async fn where_a_client_stood_in_what_it_is_refused_is_kept_while_there_is_room() {
    let rig = Rig::new();
    let (a, refused) = (rig.channel("a"), |resumes: String| Refused {
        label: "/busy".into(),
        status: Some(503),
        kind: "urn:ssegate:problem:no-room".into(),
        detail: "Later.".into(),
        resumes: Some(resumes),
    });
    let merged = |resumes| {
        let parts = vec![rig.part("a", &Wishes::new(Wish::default()), TERMS)];
        Merged::new(parts, Tell::Event, "stream.".into(), vec![refused(resumes)])
    };
    let mut kept = merged("7 ~".into());
    let (_, id) = told(&mut kept);
    assert_eq!(part_of(&id.unwrap(), "/busy").as_deref(), Some("7 ~"));
    a.log.append([(None, Text("x"))]);
    let (_, id) = told_when_woken(&mut kept).await;
    let id = id.unwrap();
    assert_eq!(part_of(&id, "/busy").as_deref(), Some("7 ~"));
    assert!(part_of(&id, "/a").unwrap().ends_with("-1"));
    assert_eq!((kept.feeds().len(), kept.is_deciding(), kept.stands()), (1, false, Some(1)));

    let mut too_long = merged("x".repeat(LONGEST - 20));
    let (blocks, id) = told(&mut too_long);
    let id = id.unwrap();
    assert!(part_of(&id, "/busy").is_none() && part_of(&id, "/a").is_some());
    assert_eq!((blocks.len(), too_long.take_ended().len()), (2, 0), "no feed ends for it: {blocks:?}");
}

#[tokio::test]
async fn one_that_moved_is_told_while_another_has_more_to_give() {
    let rig = Rig::new();
    let feeds = ["a", "b"].map(|name| rig.channel(name));
    let mut merged = rig.merged(&["a", "b"], None, Tell::Event);
    told(&mut merged);
    feeds[0].log.append((0..10).map(|_| (None, Text("x"))));
    let given = Blocks::new(vec![read(&mut merged, 200).unwrap().concat().into()]).count();
    assert!(merged.rest.is_some() && given < 10, "{given}");
    feeds[1].log.move_on(Mark::new(0, 7));
    let mut reader = Reader::Many(Box::new(merged));
    let bytes = reader.moved_on_beside().unwrap();
    let block = Blocks::new(vec![bytes]).next().unwrap();
    let id = String::from_utf8(block.id.unwrap().to_vec()).unwrap();
    let ends = ["/a", "/b"].map(|label| part_of(&id, label).unwrap().split_once('-').unwrap().1.to_owned());
    assert_eq!(ends, [&*given.to_string(), "7"], "of the busy one what was passed on");
    assert_eq!(reader.moved_on_beside(), None, "once");
    let Reader::Many(mut merged) = reader else { panic!() };
    assert_eq!(told(&mut merged).0.len(), 10 - given);
    let mut one = rig.merged(&["a"], None, Tell::Event).parts.remove(0).reader.unwrap();
    one.read(1_000);
    feeds[0].log.move_on(Mark::new(0, 20));
    assert_eq!(one.moved_on_beside(), None, "its next event tells it");
    assert!(one.moved_on().is_some());
}

#[tokio::test]
async fn a_filter_that_is_much_work_ends_the_read_of_all() {
    let rig = Rig::new();
    let shape = filtering("event.l.exists(x, x * 1 == double(query.c))", false);
    let filter = ClientFilter::bind(shape.filter.as_ref().unwrap(), |_| Some(Fact::text("2"))).unwrap();
    let keys = ["a", "b"].map(|name| FeedKey { shape: shape.clone(), ..key(name) });
    let feeds = keys.each_ref().map(|key| rig.hub.hold(key.clone(), &rig.policy));
    feeds.iter().for_each(|feed| drop(feed.confirm()));
    let reader = |key: &FeedKey| {
        let wish = Wish { filter: filter.clone(), ..Wish::default() };
        let opens = Opens { feed: key.clone(), key: None, start: None, also: Vec::new() };
        rig.hub.subscribe(opens, &rig.policy, wish, TERMS)
    };
    let events: &'static str = format!(r#"{{"l":[{}3]}}"#, "1,".repeat(1_000)).leak();
    let append = |feed: &Feed, count| drop(feed.log.append((0..count).map(|_| (None, Text(events)))));
    // So many are just too much for one read, which sees that after the last of them.
    let mut alone = reader(&keys[0]);
    alone.read(MAX);
    let tires = |&count: &usize| {
        append(&feeds[0], count);
        matches!(alone.read(MAX), Read::Pending) && alone.is_tired()
    };
    let much = (1..10).find(tires).unwrap();
    let parts = ["/a", "/b"].into_iter().zip(&keys);
    let parts = parts.map(|(label, key)| Part { label: label.into(), reader: reader(key), resumes: None });
    let mut merged = Merged::new(parts.collect(), Tell::Event, "stream.".into(), Vec::new());
    told(&mut merged);
    feeds.iter().for_each(|feed| append(feed, much));
    poll_fn(|cx| merged.poll_wake(cx)).await;
    for _ in &feeds {
        let read = merged.read_in(false, MAX);
        assert!(matches!(&read, Read::Pieces { bytes, .. } if bytes.is_empty()), "{read:?}");
        assert!(merged.is_tired());
        let withheld = merged.take_withheld().unwrap().events;
        assert_eq!(withheld, much as u64, "of one part");
    }
    assert!(read(&mut merged, MAX).is_none());
    assert!(!merged.is_tired(), "nothing was work since");
}

#[test]
fn small_pieces_are_copied_and_large_ones_shared() {
    let chunk = Bytes::from(vec![b'x'; 24 * 1024]);
    let cut = |range| chunk.slice(range);
    let pieces = vec![cut(0..140), cut(200..340), cut(0..SMALL), cut(1..2), cut(2..5)];
    let joined = joined(pieces.clone());
    assert_eq!(joined.iter().map(Bytes::len).collect::<Vec<_>>(), [280, SMALL, 4]);
    assert_eq!(joined.concat(), pieces.concat());
    let is_shared = |piece: &Bytes| chunk.as_ptr_range().contains(&piece.as_ptr());
    assert_eq!(joined.iter().map(is_shared).collect::<Vec<_>>(), [false, true, false]);
}

#[tokio::test]
async fn who_is_cut_within_a_snapshot_begins_it_anew_and_goes_on_in_the_others() {
    let rig = Rig::new();
    let snapshot = Snapshot { by: Template::parse("{key}").unwrap(), max_keys: 10, max_bytes: 1 << 20 };
    let digest = Digest { snapshot: Some(snapshot), ..Digest::default() };
    let key = FeedKey { shape: Shape { digest: digest.into(), ..shape() }, ..key("state") };
    let (state, news) = (rig.hub.hold(key.clone(), &rig.policy), rig.channel("news"));
    state.confirm();
    state.log.append(["k1", "k2"].map(|key| (None, Newest(key))));
    let both = |id: Option<String>| {
        let wishes = Wishes::new(Wish { id, ..Wish::default() });
        let wish = wishes.of("/state");
        let resumes = wish.id.clone();
        let opens = Opens { feed: key.clone(), key: None, start: None, also: Vec::new() };
        let reader = rig.hub.subscribe(opens, &rig.policy, wish, TERMS);
        let parts = vec![Part { label: "/state".into(), reader, resumes }, rig.part("news", &wishes, TERMS)];
        Merged::new(parts, Tell::Event, "stream.".into(), Vec::new())
    };
    let whole = [
        "event: stream.snapshot-start\ndata: {\"feed\":\"/state\"}\n",
        "event: /state\ndata: k1\n",
        "event: /state\ndata: k2\n",
        "event: stream.snapshot-end\ndata: {\"feed\":\"/state\"}\n",
        POSITION,
    ];
    let mut cut = both(None);
    let begun = read(&mut cut, 1 << 20).unwrap().concat();
    assert!(begun.starts_with(whole[0].as_bytes()));
    news.log.append([(None, Text("1"))]);
    let (blocks, id) = told(&mut cut);
    assert!(blocks.contains(&"event: /news\ndata: 1\n".to_owned()));
    assert!(part_of(&id.unwrap(), "/state").unwrap().ends_with("-2"));

    let start = Blocks::new(vec![begun.into()]).next().unwrap();
    let id = String::from_utf8(start.id.unwrap().to_vec()).unwrap();
    assert_eq!(part_of(&id, "/state").as_deref(), Some(NOWHERE));
    let (blocks, _) = told(&mut both(Some(id)));
    let of_state: Vec<_> = blocks.iter().filter(|block| !block.contains("/news")).collect();
    assert_eq!(of_state, whole.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn who_lags_in_one_leaves_if_that_ones_route_says_so() {
    let rig = Rig::new();
    let bounds = Bounds { events: 1, ..ROOM };
    let rig = Rig { policy: Policy { bounds, ..rig.policy }, ..rig };
    let feeds = ["a", "b"].map(|name| rig.channel(name));
    let wishes = Wishes::new(Wish::default());
    let terms = [("a", OnLag::Gap), ("b", OnLag::Disconnect)];
    let parts = terms.map(|(name, on_lag)| rig.part(name, &wishes, Terms { on_lag, ..TERMS }));
    let mut merged = Merged::new(parts.into(), Tell::Event, "stream.".into(), Vec::new());
    told(&mut merged);
    for (feed, leaves) in feeds.iter().zip([false, true]) {
        (0..10).for_each(|_| drop(feed.log.append([(None, Text("x"))])));
        let (blocks, _) = told_when_woken(&mut merged).await;
        assert!(blocks[0].contains("\"lagged\""), "{blocks:?}");
        assert_eq!(merged.leaves(), leaves);
    }
}

/// Whoever has no turn for history reads what is live all the same, also within a list of sources.
#[tokio::test]
async fn those_that_memory_serves_do_not_wait_with_one_that_replays() {
    let rig = Rig::new();
    let part = |label: &str, feeds: &[&Arc<Feed>]| Part {
        label: label.into(),
        reader: rig.all_of(feeds),
        resumes: None,
    };
    for (name, is_listed) in [("alone", false), ("listed", true)] {
        let (topic, news) = (rig.topic(name, 5), rig.channel(name));
        let parts = match is_listed {
            false => vec![part("/old", &[&topic]), part("/live", &[&news])],
            true => vec![part("/live", &[&topic, &news]), part("/more", &[&rig.channel("more")])],
        };
        let mut merged = Merged::new(parts, Tell::Event, "stream.".into(), Vec::new());
        let begun = read_in(&mut merged, false, MAX).unwrap().concat();
        assert!(begun.starts_with(POSITION.as_bytes()), "it is told where all begin");
        for n in 0..5 {
            // As a stream does while it waits for its turn.
            let _ = poll(&mut merged);
            assert_eq!(
                (merged.is_ready(false), merged.is_ready(true), merged.replays()),
                (false, true, true)
            );
            news.log.append([(None, Text("new"))]);
            assert!(poll(&mut merged).is_ready() && merged.is_ready(false));
            let live = read_in(&mut merged, false, MAX).unwrap().concat();
            assert!(live.starts_with(b"event: /live\ndata: new\n"), "{live:?}");
            assert!(read_in(&mut merged, false, MAX).is_none(), "of memory that is all");
            let _ = poll(&mut merged);
            // A turn in history is for what replays.
            news.log.append([(None, Text("new"))]);
            let _ = poll(&mut merged);
            let past = read_in(&mut merged, true, 1).unwrap().concat();
            assert_eq!(str::from_utf8(&past).unwrap().matches("data: past\n").count(), 1, "round {n}");
            let live = read_in(&mut merged, false, MAX).unwrap().concat();
            assert!(live.starts_with(b"event: /live\ndata: new\n"), "{live:?}");
            assert!(read_in(&mut merged, false, MAX).is_none());
        }
        topic.log.append([(None, Text("joined"))]);
        let (blocks, _) = told(&mut merged);
        assert_eq!((blocks.len(), merged.replays()), (1, false), "{blocks:?}");
        assert!(blocks[0].ends_with("\ndata: joined\n"));
    }
}

#[tokio::test]
async fn those_that_are_to_begin_together_are_read_when_ids_say_something_of_all() {
    let rig = Rig::new();
    let (a, b) = (rig.channel("a"), rig.closed("b"));
    let mut merged = rig.merged(&["a", "b"], None, Tell::Event);
    merged.begin_together();
    assert_eq!(told(&mut merged), (Vec::new(), None));
    a.log.append([(None, Text("1"))]);
    assert!(poll(&mut merged).is_pending() && merged.lacks_place());
    b.confirm();
    let (blocks, id) = told_when_woken(&mut merged).await;
    let id = id.unwrap();
    assert_eq!(blocks, ["event: /a\ndata: 1\n"]);
    assert!(part_of(&id, "/a").is_some_and(|id| id.ends_with("-1")));
    assert!(part_of(&id, "/b").is_some_and(|id| id.ends_with("-0")));

    // Who comes back to one that is away is given the others: ids say where it was.
    let other = Rig::new();
    let a = other.channel("a");
    other.closed("b");
    let mut back = other.merged(&["a", "b"], Some(&id), Tell::Event);
    back.begin_together();
    a.log.append([(None, Text("2"))]);
    let (blocks, _) = told(&mut back);
    assert!(blocks[0].contains("unknown_id") && back.is_deciding(), "{blocks:?}");
}

#[tokio::test]
async fn one_of_several_feeds_may_be_several_itself() {
    let rig = Rig::new();
    let feeds = ["a", "b", "c"].map(|name| rig.channel(name));
    let opens = |name| Opens { feed: key(name), key: None, start: None, also: Vec::new() };
    let merged = |id: Option<String>| {
        let wishes = Wishes::new(Wish { id, ..Wish::default() });
        let wish = wishes.of("/list");
        let resumes = wish.id.clone();
        let list = Opens { also: vec![opens("b")], ..opens("a") };
        let reader = rig.hub.subscribe(list, &rig.policy, wish, TERMS);
        let parts = vec![Part { label: "/list".into(), reader, resumes }, rig.part("c", &wishes, TERMS)];
        Merged::new(parts, Tell::Event, "stream.".into(), Vec::new())
    };
    let mut first = merged(None);
    let (begin, _) = told(&mut first);
    assert_eq!(begin, [POSITION]);
    assert_eq!((first.feeds().len(), first.stands(), first.is_deciding()), (3, Some(0), false));
    feeds[1].log.append([(None, Named("n", "b1"))]);
    feeds[1].log.append([(None, Text("b2"))]);
    let (events, id) = told_when_woken(&mut first).await;
    assert_eq!(events, ["event: /list n\ndata: b1\n", "event: /list\ndata: b2\n"]);
    feeds.iter().for_each(|feed| drop(feed.log.append([(None, Text("meanwhile"))])));
    let (mut events, _) = told(&mut merged(id));
    events.sort();
    let list = "event: /list\ndata: meanwhile\n";
    assert_eq!(events, ["event: /c\ndata: meanwhile\n", list, list]);
}
