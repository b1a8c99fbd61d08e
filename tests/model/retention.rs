//! Retention that passes a reader while it asks where it begins.

use std::sync::Arc;
use std::time::Duration;

use ssegate::config::Replay;
use ssegate::hub::{Memory, Opening, Position, Read, Reason, Terms};

use crate::past::Past;
use crate::record;
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
        past.serve(&[9], &|_| Vec::new(), 1);
    }
    let Read::Control { bytes, gaps } = log.read(&mut cursor, 1_000) else { panic!("it is told") };
    assert_eq!(gaps, [Reason::Trimmed]);
    let text = str::from_utf8(&bytes).unwrap();
    assert!(text.contains("v5"), "it goes on with what is left: {text}");
}
