//! Lines as events: those that are appended to a [`mod@file`], and those of standard input ([`stdin`]). Whoever writes them can
//! wait, or has written them to where they stay; so nothing is lost with a session, and reading pauses a little for readers
//! that are behind. Lines have no numbers that others could know: ids are those of the log's incarnation.

mod file;
mod splitter;
mod stdin;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

pub(super) use file::File;
pub(super) use stdin::Stdin;
pub use stdin::ended as stdin_ended;

use super::link::Link;
use crate::hub::Feed;
use crate::shape::Record;

/// One line.
struct Line<'l> {
    text: &'l [u8],
    /// What it is a line of.
    of: &'l str,
}

impl Record for Line<'_> {
    fn payload(&self) -> Option<&[u8]> {
        Some(self.text)
    }

    fn name(&self) -> &str {
        self.of
    }
}

fn records<'l>(lines: &'l [Bytes], of: &'l str) -> impl Iterator<Item = Line<'l>> {
    lines.iter().map(move |text| Line { text, of })
}

/// Hands lines to every feed, and then lets readers catch up a little.
async fn deliver(link: &Link, lines: &[Bytes], of: &str) {
    link.wanted().for_each(|feed| link.deliver(feed, records(lines, of).map(|line| (None, line))));
    let until = Instant::now() + PAUSE;
    while is_congested(link) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn is_congested(link: &Link) -> bool {
    link.wanted().with(|feeds| feeds.values().flatten().any(|feed| feed.log.congested()))
}

/// Bytes that a line may have, of the feed that takes the longest.
fn longest(link: &Link) -> usize {
    let of_each = |feed: &Arc<Feed>| feed.key.shape.max_event;
    link.wanted().with(|feeds| feeds.values().flatten().map(of_each).max().unwrap_or(0))
}

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;
/// The longest pause for readers that are behind.
const PAUSE: Duration = Duration::from_millis(50);
