//! Whatever comes as an event id: it is of no source of ours, or it means a position whose id means the same. Every
//! position comes back, an id means nothing on another route, and a short one costs little.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ssegate::config::Partitioner;
use ssegate::hub::{Decoded, Epoch, EpochCodec, IdCodec, Mark, Offset, Position, Wish, Wishes};
use ssegate::upstream::{
    EntryCodec, Incarnation, KeyedCodec, OffsetCodec, RowCodec, StreamCodec, TopicCodec,
};

/// Takes an id, or what follows in one after that which each id of a source begins with, or the numbers of a position.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let numbers: Vec<u64> = bytes
        .chunks(8)
        .map(|chunk| chunk.iter().fold(0, |number, &b| (number << 8) | u64::from(b)))
        .collect();
    let offsets: Vec<u64> = numbers.iter().map(|number| number & MAX_OFFSET).take(WIDE).collect();

    entries(&text, &numbers);
    epochs(&text, &numbers);
    topics(&text, bytes, &offsets);
    keys(&text, bytes, &offsets);
    numbered(&text, &offsets);
    streams(&text, &numbers);
    several(&text);
}

/// Redis's own ids of entries, of which each has one spelling.
fn entries(text: &str, numbers: &[u64]) {
    if let Decoded::Position(position) = EntryCodec.decode(text) {
        assert_eq!(id(&EntryCodec, &position), text);
    }
    let number = |at| numbers.get(at).copied().unwrap_or(0);
    comes_back(&EntryCodec, &Position::single(Offset { major: number(0), minor: number(1) }));
}

/// Those of tables and of streams of RabbitMQ.
fn numbered(text: &str, offsets: &[u64]) {
    let (row, anew) = (RowCodec::new("outbox", "1"), RowCodec::new("outbox", "2"));
    let (offset, other) = (OffsetCodec::new("orders", 0), OffsetCodec::new("audit", 0));
    let own = id(&row, &Position::default());
    for id in [text, &own.replace("-0", &format!("-{text}")), &own.replace("-0", text)] {
        if settles(&row, id).is_some() {
            assert_eq!(anew.decode(id), Decoded::Recreated);
            assert_eq!(other.decode(id), Decoded::Unknown);
        }
        settles(&offset, id);
    }
    let position = Position::new(vec![offsets.first().copied().unwrap_or(0)]);
    comes_back(&row, &position);
    comes_back(&offset, &position);
}

/// `epoch-seq`.
fn epochs(text: &str, numbers: &[u64]) {
    let (before, now) = (Epoch::random(), Epoch::random());
    let (old, codec) = (EpochCodec::new(before, None), EpochCodec::new(now, Some(before)));
    assert_eq!(codec.decode(text), Decoded::Unknown, "64 random bits cannot be guessed");

    let own = id(&codec, &Position::default());
    settles(&codec, &own.replace("-0", &format!("-{text}")));
    settles(&codec, &own.replace("-0", text));
    let position = Position::new(vec![numbers.first().copied().unwrap_or(0)]);
    comes_back(&codec, &position);
    assert_eq!(codec.decode(&id(&old, &position)), Decoded::Idle);
    assert_eq!(old.decode(&id(&codec, &position)), Decoded::Unknown);
}

/// Those of all partitions of a topic.
fn topics(text: &str, bytes: &[u8], offsets: &[u64]) {
    let incarnation = |count| Incarnation { id: None, count };
    let codec = TopicCodec::new(Some("cluster"), "orders", incarnation(0));
    let anew = TopicCodec::new(Some("cluster"), "orders", incarnation(1));
    let other = TopicCodec::new(Some("cluster"), "audit", incarnation(0));
    for id in [text, &beginning_as(&id(&codec, &Position::default()), bytes)] {
        if let Some(position) = settles(&codec, id) {
            assert!(position.as_slice().len() <= id.len(), "each partition takes a byte at least");
            assert!(position.as_slice().iter().all(|&next| next <= MAX_OFFSET), "Kafka has no such offset");
            assert_eq!(anew.decode(id), Decoded::Recreated);
            assert_eq!(other.decode(id), Decoded::Unknown);
        }
    }
    comes_back(&codec, &Position::new(offsets.to_vec()));
}

/// Those of one key of a topic, whose readers may come with ids of all partitions, too.
fn keys(text: &str, bytes: &[u8], offsets: &[u64]) {
    let topic = TopicCodec::new(Some("cluster"), "orders", Incarnation::default());
    let codec = KeyedCodec::new(topic, Partitioner::Murmur2, PARTITIONS);
    let log = Position::new(vec![1_000; PARTITIONS]);
    let home = codec.home(KEY).unwrap();
    let of_key = |next: u64| {
        let mut id = String::new();
        codec.encode_home(home, next.into(), &mut id);
        id
    };
    for id in [text, &beginning_as(&of_key(0), bytes)] {
        match codec.decode_for(id, KEY, &log) {
            Decoded::Position(position) => {
                assert_eq!(position, Mark::new(home, position.next(home)).into(), "of its partition alone");
                let again = of_key(position.next(home));
                assert_eq!(codec.decode_for(&again, KEY, &log), Decoded::Position(position));
            }
            Decoded::Wide(position) => {
                let room = id.len().max(PARTITIONS) + MOST_ADDED;
                assert!(position.as_slice().len() <= room, "no id makes a position of any size");
                assert_eq!(
                    codec.decode_for(&self::id(&codec, &position), KEY, &log),
                    Decoded::Wide(position)
                );
            }
            decoded => assert!(matches!(decoded, Decoded::Unknown | Decoded::Recreated), "{decoded:?}"),
        }
    }
    let next = offsets.first().copied().unwrap_or(0);
    assert_eq!(codec.decode_for(&of_key(next), KEY, &log), Decoded::Position(Mark::new(home, next).into()));
    comes_back(&codec, &Position::new(offsets.to_vec()));
}

/// Those of a stream of JetStream, of which each has one spelling.
fn streams(text: &str, numbers: &[u64]) {
    let codec = StreamCodec::of("ORDERS", "2026-01-01T00:00:00Z");
    let anew = StreamCodec::of("ORDERS", "2026-01-02T00:00:00Z");
    let other = StreamCodec::of("AUDIT", "2026-01-01T00:00:00Z");
    let own = id(&codec, &Position::default());
    for id in [text, &own.replace("-0", &format!("-{text}"))] {
        if let Some(position) = settles(&codec, id) {
            assert_eq!(self::id(&codec, &position), id);
            assert_eq!(anew.decode(id), Decoded::Recreated);
            assert_eq!(other.decode(id), Decoded::Unknown);
        }
    }
    comes_back(&codec, &Position::new(vec![numbers.first().copied().unwrap_or(0)]));
}

/// Those of several feeds: what one has of a feed is no longer than all of it, and can be handed on. After it stands what
/// else there may be.
fn several(text: &str) {
    for id in [text.to_owned(), format!("m1~{OF_A}{text}"), format!("m1~{OF_A}7{text}")] {
        let wishes = Wishes::new(Wish { id: Some(id.clone()), ..Wish::default() });
        if let Some(own) = wishes.of("/a").id.filter(|own| own != NOWHERE) {
            assert!(own.len() < id.len() && !own.is_empty(), "{own} of {id}");
            assert!(!own.contains(['\0', '\r', '\n']), "{own:?}");
        }
    }
}

/// What `id` means, if that is a position; its own id is no longer, and means the same.
fn settles(codec: &dyn IdCodec, id: &str) -> Option<Position> {
    let Decoded::Position(position) = codec.decode(id) else { return None };
    let again = self::id(codec, &position);
    assert!(again.len() <= id.len(), "{again} is longer than {id}");
    comes_back(codec, &position);
    Some(position)
}

fn comes_back(codec: &dyn IdCodec, position: &Position) {
    assert_eq!(codec.decode(&id(codec, position)), Decoded::Position(position.clone()));
}

/// The id of a position: printable, so that it can stand in a header and in an `id:` line.
fn id(codec: &dyn IdCodec, position: &Position) -> String {
    let mut id = String::new();
    codec.encode(position, &mut id);
    assert!(!id.is_empty() && id.bytes().all(|b| b.is_ascii_graphic()), "{id:?}");
    id
}

/// An id that begins as this one does, with its version and what tells its source, and goes on with these bytes.
fn beginning_as(id: &str, rest: &[u8]) -> String {
    let bytes = BASE64.decode(id).unwrap();
    BASE64.encode([&bytes[..SCOPE], rest].concat())
}

const MAX_OFFSET: u64 = i64::MAX as u64;
/// What ids of several feeds call the feed `/a`.
const OF_A: &str = "alDchYQTTH3l";
/// What each feed is asked for by an id that is none of several.
const NOWHERE: &str = "-";
/// Partitions that are enough to see whether many are all there.
const WIDE: usize = 64;
const KEY: &[u8] = b"21";
const PARTITIONS: usize = 3;
/// How many partitions more than are known an id may speak of.
const MOST_ADDED: usize = 1_000;
/// Bytes of version and hashes.
const SCOPE: usize = 7;
