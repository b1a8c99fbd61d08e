//! Where a log begins: with the newest of its part of a stream, as many as it is to keep.

use std::sync::Arc;
use std::time::SystemTime;

use super::api::{Info, Since, Unanswered};
use super::consumer::Consumer;
use super::history;
use crate::hub::Bounds;
use crate::upstream::nats::line::Line;

/// The place from which on a log of these bounds is to be filled, up to the end of the stream.
pub(super) async fn beginning(
    line: &Arc<Line>,
    stream: &Arc<str>,
    subject: Option<&str>,
    bounds: &Bounds,
    info: &Info,
) -> Result<u64, Unanswered> {
    let (oldest, end) = (info.beginning(), info.end());
    if bounds.events == 0 || bounds.bytes == 0 || oldest >= end {
        return Ok(end);
    }
    let by_age = match SystemTime::now().checked_sub(bounds.age) {
        Some(since) => {
            history::first_at(line, stream, since).await?.map_or(end, |first| first.saturating_sub(1))
        }
        None => oldest,
    };
    let (from, events) = (by_age.clamp(oldest, end), bounds.events as u64);
    let Some(subject) = subject else { return Ok(from.max(end.saturating_sub(events))) };
    // Nobody says where the newest of one subject begin: it is guessed from how many there are.
    let mut from = from;
    for _ in 0..GUESSES {
        let there = Consumer::make(line, stream, Some(subject), Since::After(from), true).await?.pending;
        if there <= 2 * events {
            break;
        }
        let share = 1.5 * events as f64 / there as f64;
        let guess = end - ((end - from) as f64 * share) as u64;
        if Consumer::make(line, stream, Some(subject), Since::After(guess), true).await?.pending < events {
            break;
        }
        from = guess;
    }
    Ok(from)
}

/// How often it is guessed at most.
const GUESSES: usize = 3;
