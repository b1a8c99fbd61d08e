use std::ops::Range;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use super::super::cursor::{Cursor, Terms, Wish};
use super::super::gap::Reason;
use super::super::history::{Answer, Found, History, Question, Sought};
use super::super::id::{Epoch, EpochCodec, IdCodec};
use super::super::log::{Log, Opening};
use super::super::position::{Offset, Position};
use super::super::ring::Bounds;
use super::super::segment::{Segment, SegmentDraft};
use super::super::table::Table;
use super::super::testing::{ROOM, TERMS, Text, filtering};
use super::super::wake::{Linger, Wake};
use super::*;
use crate::config::{Digest, Snapshot, Start, Template};
use crate::shape::{Fact, Record, Shape};

/// A log of which each client wants one colour, or all.
struct Colours {
    log: Arc<Log>,
    shape: Shape,
    memory: Arc<Memory>,
}

impl Colours {
    fn new(bounds: Bounds) -> Self {
        Self::of(false, bounds)
    }

    fn shape() -> Shape {
        filtering(r#"query.c == "" || event.c == query.c"#, false)
    }

    /// One of which each reader sees a single key, perhaps.
    fn of(keyed: bool, bounds: Bounds) -> Self {
        Self::shaped(Self::shape(), keyed, bounds)
    }

    fn shaped(shape: Shape, keyed: bool, bounds: Bounds) -> Self {
        let memory = Memory::new(usize::MAX);
        let wake = Wake::new(Duration::ZERO, Linger::new());
        let log = Log::new(shape.clone(), keyed, bounds, &memory, wake);
        log.open(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
        Self { log, shape, memory }
    }

    /// A reader that wants this colour, and has been told where it stands.
    fn wants(&self, colour: &str, terms: Terms) -> Cursor {
        self.wants_of(None, colour, terms)
    }

    fn wants_of(&self, key: Option<&str>, colour: &str, terms: Terms) -> Cursor {
        let filter = self.shape.filter.as_ref().unwrap();
        let filter = ClientFilter::bind(filter, |_| Some(Fact::text(colour))).unwrap();
        assert_eq!(filter.is_none(), colour.is_empty(), "who wants all has no filter");
        let key = key.map(|key| key.as_bytes().into());
        let mut cursor = Cursor::of_key(key, Wish { filter, ..Wish::default() }, terms.into());
        assert!(matches!(self.read(&mut cursor), Read::Control { .. }));
        cursor
    }

    fn read(&self, cursor: &mut Cursor) -> Read {
        self.log.read(cursor, 1_000)
    }

    /// Appends events of these colours, together.
    fn append(&self, colours: &[&'static str]) {
        self.log.append(colours.iter().map(|colour| (None, Text(colour))));
    }

    fn lose_link(&self) {
        self.log.append_link_lost((SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH));
    }
}

/// A record of this key with this payload.
struct Of<T>(T, T);

impl<T: AsRef<str>> Record for Of<T> {
    fn payload(&self) -> Option<&[u8]> {
        Some(self.1.as_ref().as_bytes())
    }

    fn name(&self) -> &str {
        "test"
    }

    fn key(&self) -> Option<&[u8]> {
        Some(self.0.as_ref().as_bytes())
    }
}

const RED: &str = r#"{"c":"red"}"#;
const BLUE: &str = r#"{"c":"blue"}"#;

/// Where these bytes lie.
fn span(bytes: &Bytes) -> Range<usize> {
    let Range { start, end } = bytes.as_ptr_range();
    start as usize..end as usize
}

fn pieces(read: Read) -> (Vec<Bytes>, usize) {
    match read {
        Read::Pieces { bytes, events, .. } => (bytes, events),
        other => panic!("not pieces: {other:?}"),
    }
}

/// The number in the only id of these bytes.
fn number(told: &Bytes) -> &str {
    let (_, id) = str::from_utf8(told).unwrap().split_once("\nid: ").unwrap();
    id.trim_end().split_once('-').unwrap().1
}

#[tokio::test]
async fn what_passes_in_a_row_is_one_piece_of_the_bytes_that_all_share() {
    let colours = Colours::new(ROOM);
    let [mut all, mut red, mut blue] = ["", "red", "blue"].map(|colour| colours.wants(colour, TERMS));
    colours.append(&[RED, RED, BLUE]);
    colours.append(&[BLUE, RED]);
    let Read::Slice { bytes, events: 5, .. } = colours.read(&mut all) else { panic!("all of it") };
    let whole = span(&bytes);
    let (red_ones, events) = pieces(colours.read(&mut red));
    assert_eq!((red_ones.len(), events), (2, 3));
    let (blue_ones, events) = pieces(colours.read(&mut blue));
    assert_eq!((blue_ones.len(), events), (1, 2), "also across what was appended together");
    let parts = [&red_ones[0], &blue_ones[0], &red_ones[1]].map(span);
    assert_eq!((parts[0].start, parts[2].end), (whole.start, whole.end));
    assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start), "{parts:?} of {whole:?}");

    colours.append(&[RED]);
    let Read::Slice { bytes, forms: Some(forms), .. } = colours.read(&mut all) else { panic!("a slice") };
    match colours.read(&mut red) {
        Read::Slice { bytes: same, events: 1, forms: Some(packed), .. } => {
            assert_eq!((span(&same), Arc::as_ptr(&packed)), (span(&bytes), Arc::as_ptr(&forms)));
        }
        other => panic!("what passes as a whole is what all are given: {other:?}"),
    }
    assert!(matches!(colours.read(&mut blue), Read::Pending));
    assert_eq!(blue.take_withheld().map(|withheld| withheld.events), Some(4));
    assert_eq!((blue.take_withheld(), all.take_withheld()), (None, None));
}

#[tokio::test]
async fn what_is_withheld_moves_the_position_on_and_that_is_told_once() {
    let colours = Colours::new(ROOM);
    let [mut red, mut blue] = ["red", "blue"].map(|colour| colours.wants(colour, TERMS));
    colours.append(&[RED, RED]);
    assert_eq!(colours.log.moved_on(&mut blue), None, "there is something to look at first");
    assert!(matches!(colours.read(&mut blue), Read::Pending));
    assert_eq!(number(&colours.log.moved_on(&mut blue).unwrap()), "2");
    assert_eq!(colours.log.moved_on(&mut blue), None);
    assert!(matches!(colours.read(&mut red), Read::Slice { events: 2, .. }));
    assert_eq!(colours.log.moved_on(&mut red), None, "the ids of its events say where it is");
    colours.append(&[RED, BLUE]);
    assert_eq!(pieces(colours.read(&mut red)).1, 1);
    assert_eq!(number(&colours.log.moved_on(&mut red).unwrap()), "4");
    colours.append(&[BLUE, RED]);
    assert_eq!(pieces(colours.read(&mut red)).1, 1);
    assert_eq!(colours.log.moved_on(&mut red), None);
}

#[tokio::test]
async fn what_happened_to_the_source_passes_every_filter() {
    let colours = Colours::new(ROOM);
    let mut red = colours.wants("red", TERMS);
    colours.append(&[BLUE]);
    colours.lose_link();
    colours.append(&[BLUE]);
    let (told, events) = pieces(colours.read(&mut red));
    let [told] = &told[..] else { panic!("one piece: {told:?}") };
    assert!(str::from_utf8(told).unwrap().contains("upstream_lost") && events == 1);
    let appended = colours.log.append([(None, Text("no JSON")), (None, Text(BLUE))]);
    assert!(appended.gaps.is_empty(), "{appended:?}");
    assert!(matches!(colours.read(&mut red), Read::Pending), "it has no colour");
}

#[tokio::test]
async fn what_a_filter_cannot_tell_is_withheld_and_said_once() {
    let colours = Colours::new(ROOM);
    let mut red = colours.wants("red", TERMS);
    colours.append(&["{}", RED, "{}"]);
    assert_eq!(pieces(colours.read(&mut red)).1, 1);
    let withheld = red.take_withheld().unwrap();
    assert_eq!((withheld.events, withheld.why), (2, Some(Fault::Absent)));
    assert!(withheld.bytes > 4);
    colours.append(&["{}"]);
    assert!(matches!(colours.read(&mut red), Read::Pending));
    let withheld = red.take_withheld().unwrap();
    assert_eq!((withheld.events, withheld.why), (1, None));
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_a_route_counts_what_passes() {
    let colours = Colours::new(ROOM);
    let rate = Some(EventRate { events: 2, every: Duration::from_secs(1) });
    let mut red = colours.wants("red", Terms { rate, ..TERMS });
    colours.append(&[BLUE, RED, BLUE, RED, RED, BLUE]);
    colours.lose_link();
    let (told, events) = pieces(colours.read(&mut red));
    assert_eq!((told.len(), events), (3, 3), "two, and what happened to the source");
    assert!(matches!(colours.read(&mut red), Read::LeftOut(1)));
    assert!(matches!(colours.read(&mut red), Read::Pending));
    colours.append(&[RED, BLUE, RED]);
    assert!(matches!(colours.read(&mut red), Read::LeftOut(2)));
    assert_eq!(red.take_withheld().map(|withheld| withheld.events), Some(4));
    assert_eq!(number(&colours.log.moved_on(&mut red).unwrap()), "10");
    tokio::time::advance(Duration::from_secs(1)).await;
    colours.append(&[RED, BLUE]);
    assert_eq!(pieces(colours.read(&mut red)).1, 1);
}

#[tokio::test]
async fn how_much_of_what_it_wants_a_reader_missed_is_not_known() {
    let colours = Colours::new(Bounds { events: 2, ..ROOM });
    let [mut all, mut red] = ["", "red"].map(|colour| colours.wants(colour, TERMS));
    (0..5).for_each(|_| colours.append(&[RED]));
    for (cursor, missed) in [(&mut all, "\"missed\":3"), (&mut red, "\"missed\":null")] {
        let Read::Control { bytes, gaps } = colours.read(cursor) else { panic!("it has lagged") };
        assert_eq!(gaps, [Reason::Lagged]);
        assert!(str::from_utf8(&bytes).unwrap().contains(missed), "{bytes:?}");
    }
    assert!(matches!(colours.read(&mut red), Read::Slice { events: 2, .. }));
}

#[tokio::test]
async fn a_reader_looks_at_no_more_than_it_asks_for_whatever_passes() {
    let colours = Colours::new(ROOM);
    let mut red = colours.wants("red", TERMS);
    for _ in 0..100 {
        colours.append(&[BLUE]);
    }
    let (mut reads, mut withheld) = (0, 0);
    loop {
        let read = colours.log.read(&mut red, 200);
        let looked_at = red.take_withheld().unwrap();
        assert!(looked_at.bytes <= 400, "twice what was asked for, at most");
        withheld += looked_at.events;
        match read {
            Read::Pieces { bytes, events: 0, .. } => assert!(bytes.is_empty()),
            Read::Pending => break,
            other => panic!("nothing passes: {other:?}"),
        }
        reads += 1;
    }
    assert!(reads > 5 && withheld == 100, "the others have their turn: {reads}");
    assert_eq!(number(&colours.log.moved_on(&mut red).unwrap()), "100");
}

#[tokio::test]
async fn what_is_known_of_events_counts_as_memory() {
    let colours = Colours::new(ROOM);
    let empty = colours.memory.used();
    let wide: &'static str = format!(r#"{{"c":"{}"}}"#, "x".repeat(10_000)).leak();
    colours.append(&[wide]);
    let one = colours.memory.used() - empty;
    assert!(one > 20_000, "the text is in the event, and kept beside it: {one}");
    let mut red = colours.wants("red", TERMS);
    colours.append(&[RED, BLUE]);
    colours.append(&[RED]);
    drop(pieces(colours.read(&mut red)));
    assert_eq!(colours.memory.used(), colours.log.held().bytes);
    let Colours { log, memory, .. } = colours;
    drop((log, red));
    assert_eq!(memory.used(), 0);
}

/// Events of which much is known and little is sent.
#[tokio::test]
async fn what_is_known_of_events_closes_chunks_and_segments_too() {
    let shape = filtering("event.c == query.c", true);
    let wide: &'static str = format!(r#"{{"c":"{}","n":1}}"#, "x".repeat(30_000)).leak();
    let colours = Colours::shaped(shape.clone(), false, Bounds { events: 1, ..ROOM });
    colours.append(&[wide; 100]);
    assert_eq!(colours.log.held().events, 1, "each is a chunk, and they are let go one by one");
    let codec: Arc<dyn IdCodec> = Arc::new(EpochCodec::new(Epoch::random(), None));
    let (mut draft, before) =
        (SegmentDraft::new(&shape, &codec, false, &colours.memory, 0, 0.into()), colours.memory.used());
    for n in 1..100 {
        if draft.is_full() {
            break;
        }
        draft.push(n.into(), &Text(wide));
        let counted = colours.memory.used() - before;
        assert!(counted + 60_000 > 30_000 * n as usize, "{counted} bytes of {n} are counted");
    }
    assert!(draft.is_full() && draft.at().major < 20, "half a MiB: {}", draft.at().major);
}

#[tokio::test]
async fn a_filter_that_is_much_work_is_asked_for_a_part_at_a_time() {
    let shape = filtering("event.l.exists(x, x * 1 == double(query.c))", false);
    let colours = Colours::shaped(shape, false, ROOM);
    let of = |last: u8| -> &'static str { format!(r#"{{"l":[{}{last}]}}"#, "1,".repeat(1_000)).leak() };
    let (mut twos, others) = (colours.wants("2", TERMS), of(3));
    let payloads: Vec<_> = [others; 10].into_iter().chain([of(2)]).collect();
    colours.append(&payloads);
    let (mut reads, mut given, mut was_tired) = (0, 0, false);
    while given == 0 {
        assert_eq!(colours.log.moved_on(&mut twos), None, "it does not stand there yet");
        (_, given) = pieces(colours.log.read(&mut twos, 32 * 1024));
        assert!(twos.take_withheld().is_none_or(|withheld| withheld.events < 8));
        was_tired |= twos.is_tired();
        reads += 1;
    }
    assert!(reads > 1 && was_tired, "the others have their turn");
    assert!(matches!(colours.read(&mut twos), Read::Pending) && !twos.is_tired());
    assert_eq!(colours.log.moved_on(&mut twos), None, "the id of its event says where it is");
}

/// What the upstream holds of the only partition: a segment, of which nobody knows how it goes on.
struct Past(Arc<Segment>, Arc<Notify>);

impl History for Past {
    fn segment(&self, _: u32, from: Offset, _: Offset) -> Found<Sought> {
        match from < self.0.to {
            true => Found::Here(Sought::Segment(Arc::clone(&self.0))),
            false => Found::Wait(Arc::clone(&self.1).notified_owned()),
        }
    }

    fn ask(&self, _: &Question, _: Instant) -> Found<Answer> {
        let (from, end) = (Position::default(), Position::new(vec![9]));
        Found::Here(Answer { oldest: from.clone(), from, end, born: None })
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

#[tokio::test]
async fn who_replays_is_told_how_far_it_came_unless_that_was_in_another_source() {
    let (shape, memory) = (Colours::shape(), Memory::new(usize::MAX));
    let wake = Wake::new(Duration::ZERO, Linger::new());
    let log = Log::new(shape.clone(), false, ROOM, &memory, wake);
    let codec: Arc<dyn IdCodec> = Arc::new(EpochCodec::new(Epoch::random(), None));
    let mut draft = SegmentDraft::new(&shape, &codec, false, &memory, 0, 0.into());
    (1..4_u64).for_each(|next| draft.push(next.into(), &Text(BLUE)));
    let history = Arc::new(Past(Arc::new(draft.finish(3.into())), Arc::default()));
    let start = Position::new(vec![9]);
    log.open_filled(Opening { codec, history, segments: &[], start: start.clone(), end: start });
    let colours = Colours { log, shape, memory };
    let terms = Terms { start: Start::Earliest, ..TERMS };
    let mut readers = [0, 1].map(|_| colours.wants("red", terms));
    for red in &mut readers {
        assert!(matches!(colours.read(red), Read::Wait(_)));
        assert!(red.replays());
    }
    let [one, other] = &mut readers;
    assert_eq!(number(&colours.log.moved_on(one).unwrap()), "3");
    assert_eq!(colours.log.moved_on(one), None);
    colours.log.restart(Arc::new(EpochCodec::new(Epoch::random(), None)), Position::default());
    assert_eq!(colours.log.moved_on(other), None, "the new source has no such place");
    assert!(matches!(colours.read(other), Read::Control { gaps, .. } if gaps == [Reason::Recreated]));
}

#[tokio::test]
async fn a_reader_of_a_key_is_given_what_passes_of_that() {
    let colours = Colours::of(true, ROOM);
    let mut red = colours.wants_of(Some("k"), "red", TERMS);
    let append = |records: &[(&'static str, &'static str)]| {
        colours.log.append(records.iter().map(|&(key, payload)| (None, Of(key, payload))));
    };
    append(&[("k", RED), ("j", RED), ("k", BLUE), ("k", RED)]);
    let (told, events) = pieces(colours.read(&mut red));
    let told = told.concat();
    assert_eq!((events, str::from_utf8(&told).unwrap().matches("data: ").count()), (2, 2));
    append(&[("k", BLUE)]);
    assert!(matches!(colours.read(&mut red), Read::Pending | Read::Wait(_)));
    assert_eq!(red.take_withheld().map(|withheld| withheld.events), Some(2));
    assert_eq!(number(&colours.log.moved_on(&mut red).unwrap()), "5");
    colours.lose_link();
    let lost = pieces(colours.read(&mut red)).0.concat();
    assert!(str::from_utf8(&lost).unwrap().contains("upstream_lost"));
}

/// A table of which each client wants one colour, or all.
fn table_of_colours(bounds: Bounds) -> Colours {
    let by = Template::parse("{key}").unwrap();
    let snapshot = Snapshot { by, max_keys: 10_000, max_bytes: 64 << 20 };
    let digest = Digest { snapshot: Some(snapshot), ..Digest::default() };
    Colours::shaped(Shape { digest: digest.into(), ..Colours::shape() }, false, bounds)
}

/// Changes these keys, of which every other is red and the rest blue, together.
fn change(colours: &Colours, keys: Range<usize>, value: &str) {
    let record = |key: usize| {
        let colour = ["red", "blue"][key % 2];
        (None, Of(format!("k{key}"), format!(r#"{{"c":"{colour}","k":{key},"v":"{value}"}}"#)))
    };
    colours.log.append(keys.map(record));
}

/// What one read gives; nothing where there is no more.
fn told(colours: &Colours, cursor: &mut Cursor) -> Option<String> {
    let pieces = match colours.read(cursor) {
        Read::Slice { bytes, .. } | Read::Control { bytes, .. } => vec![bytes],
        Read::Pieces { bytes, .. } => bytes,
        Read::Pending => return None,
        other => panic!("nobody waits, or is bounded: {other:?}"),
    };
    Some(String::from_utf8(pieces.concat()).unwrap())
}

#[tokio::test]
async fn who_is_given_a_snapshot_is_given_what_passes_of_that_and_of_what_changed_meanwhile() {
    let colours = table_of_colours(Bounds { events: 10, ..ROOM });
    change(&colours, 0..2_000, "old");
    let (mut red, mut all) = (colours.wants("red", TERMS), colours.wants("", TERMS));
    let begun = told(&colours, &mut red).unwrap();
    assert!(begun.contains(r#""k":0,"#) && !begun.contains(r#""k":1998,"#), "a page of it");
    // In pages that were made, in such as were not, and of none that the log still has.
    change(&colours, 0..50, "new");
    change(&colours, 1_000..1_950, "new");
    change(&colours, 1_950..2_000, "new");
    let rest: String = std::iter::from_fn(|| told(&colours, &mut red)).collect();
    let given = begun + &rest;
    assert!(!given.contains("blue") && given.matches("event: stream.snapshot-end\n").count() == 1);
    for key in (0..2_000).step_by(2) {
        let value = if (50..1_000).contains(&key) { "old" } else { "new" };
        let newest = given.rfind(&format!(r#""k":{key},"#)).map(|at| &given[at..]);
        assert!(newest.unwrap().starts_with(&format!(r#""k":{key},"v":"{value}""#)), "{key}");
    }
    let withheld = red.take_withheld().unwrap().events;
    assert_eq!(withheld, 1_000 + 525, "the blue ones of the snapshot, and what changed of them");
    let given: String = std::iter::from_fn(|| told(&colours, &mut all)).collect();
    assert_eq!(given.matches("data: {\"c\":\"blue\"").count(), 1_000 + 525);
    drop((red, all));
    let Colours { log, memory, .. } = colours;
    log.sweep(Instant::now() + Duration::from_secs(60));
    assert_eq!(memory.used(), log.held().bytes + log.tabled().unwrap().bytes);
    drop(log);
    assert_eq!(memory.used(), 0);
}

#[tokio::test]
async fn who_is_outrun_within_a_snapshot_is_told_so_and_goes_on_with_what_passes() {
    let colours = table_of_colours(Bounds { events: 10, ..ROOM });
    change(&colours, 0..2_000, "old");
    let mut red = colours.wants("red", TERMS);
    let (mut given, mut changes) = (String::new(), 0);
    while !given.contains("event: stream.gap\n") {
        given.push_str(&told(&colours, &mut red).expect("there is always more"));
        // All of it, faster than it reads.
        change(&colours, 0..2_000, "new");
        changes += 1;
        assert!(changes < 1_000, "it would never end");
    }
    let (snapshot, gap) = given.split_once("event: stream.gap\n").unwrap();
    assert!(!snapshot.contains("event: stream.position\n"), "it has not been told where it stands before");
    assert!(gap.contains("\"lagged\",\"missed\":null") && gap.contains("event: stream.position\n"), "{gap}");
    let rest: String = std::iter::from_fn(|| told(&colours, &mut red)).collect();
    assert!(!given.contains("blue") && !rest.contains("blue"));
    assert!(rest.contains(r#""k":1998,"v":"new""#), "the newest of all");
}

/// Pages outlast what they were made of: what is known of their events counts as long as they do.
#[tokio::test]
async fn what_is_known_of_keys_counts_in_the_table_and_in_pages() {
    let colours = table_of_colours(Bounds { events: 1, ..ROOM });
    let wide: &'static str = format!(r#"{{"c":"{}"}}"#, "x".repeat(10_000)).leak();
    colours.log.append([(None, Of("k", wide))]);
    let table = colours.log.tabled().unwrap().bytes;
    assert!(table > 20_000, "the text is in the event, and kept beside it: {table}");
    let (mut red, before) = (colours.wants("red", TERMS), colours.memory.used());
    assert_eq!(told(&colours, &mut red).unwrap(), "", "it is withheld");
    let page = colours.memory.used() - before;
    assert!(page > 20_000, "{page}");
}
