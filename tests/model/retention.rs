//! Retention that passes a reader while it asks where it begins.

use std::sync::Arc;
use std::time::Duration;

use ssegate::config::Replay;
use ssegate::hub::{Bounds, IdCodec, Memory, Opening, Position, Read, Reason, SegmentDraft, Terms};

use crate::past::Past;
use crate::record::{self, Kind, Message};
use crate::vector::VectorCodec;
use crate::{ANY_AGE, ROOM, TERMS, cursor};

#[tokio::test]
async fn what_retention_takes_between_two_answers_is_trimmed_and_no_limit_of_ours() {
    let (log, past) = (record::log(ROOM, &Memory::new(usize::MAX)), Past::new(1));
    let end = Position::new(vec![9]);
    let (codec, history) = (Arc::new(VectorCodec), Arc::clone(&past) as _);
    log.open_filled(Opening { codec, history, segments: &[], start: end.clone(), end });
    let replay = Replay { max_age: Duration::from_secs(3600), ..ANY_AGE };
    let mut cursor = cursor(Some(VectorCodec::id(&[2])), Terms { replay, ..TERMS });

    for low in [0, 5] {
        assert!(matches!(log.read(&mut cursor, 1_000), Read::Wait(_)), "it asks");
        past.trim(&[low]);
        past.serve::<Message>(&[9], &|_| Vec::new(), 1);
    }
    let Read::Control { bytes, gaps } = log.read(&mut cursor, 1_000) else { panic!("it is told") };
    assert_eq!(gaps, [Reason::Trimmed]);
    let text = str::from_utf8(&bytes).unwrap();
    assert!(text.contains("v5"), "it goes on with what is left: {text}");
}

/// Not every source tells when a record was published. Those of which that is not known are not the oldest there are.
#[tokio::test]
async fn what_a_log_begins_with_is_as_new_as_the_log_where_it_has_no_time() {
    let hour = Bounds { age: Duration::from_secs(3600), ..ROOM };
    let memory = Memory::new(usize::MAX);
    let codec: Arc<dyn IdCodec> = Arc::new(VectorCodec);
    for (millis, held) in [(0, 1), (1, 0)] {
        let (log, history) = (record::log(hour, &memory), Past::new(1));
        let mut draft = SegmentDraft::new(&record::shape(), &codec, false, &memory, 0, 0.into());
        draft.push(1.into(), &Message::at(Kind::Event(9), "a", millis));
        let (segments, end) = ([draft.finish(1.into())], Position::new(vec![1]));
        let codec = Arc::clone(&codec);
        log.open_filled(Opening { codec, history, segments: &segments, start: Position::default(), end });
        assert_eq!(log.held().events, held, "{millis} ms");
    }
}
