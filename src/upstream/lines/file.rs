//! The lines that are appended to a file, as `tail -F` follows them: through rotation by rename, where the file that was
//! renamed is read to its end, and by truncation. A file that is not there is waited for. What it held before is read once,
//! from its end back, for the logs to begin with.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{Instant, sleep};

use super::super::link::Link;
use super::super::{Broken, Upstream};
use super::splitter::Splitter;
use super::{CHUNK, deliver, longest, records};
use crate::hub::{Feed, Mark, Reason};
use crate::watch::Watch;

/// Follows one file.
pub(in super::super) struct File {
    path: PathBuf,
    /// How messages for the operator call it.
    name: String,
    /// How its lines do: where it lies is not for clients.
    own_name: String,
    /// Where it is read on; through all sessions, so that nothing is lost or read twice between two.
    place: Mutex<Place>,
}

/// How far it was read.
#[derive(Default)]
struct Place {
    open: Option<Open>,
    splitter: Splitter,
    /// Since when there has been no file of that name any more.
    gone: Option<Instant>,
    /// Whether there has been none so far: what it will hold is all new.
    was_absent: bool,
}

/// A file that is read, whatever its name is by now.
#[derive(Clone)]
struct Open {
    file: Arc<fs::File>,
    /// Up to where it was read.
    read: u64,
    /// Where the line begins that was not whole at that time.
    line: u64,
}

/// What there is under the name of a file that was read to its end.
enum Seen {
    Same,
    /// The same, with less in it than was read.
    Truncated,
    Another(Open),
}

impl File {
    pub(in super::super) fn new(path: &Path) -> Arc<Self> {
        let own_name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Arc::new(Self {
            path: path.to_owned(),
            name: path.display().to_string(),
            own_name,
            place: Mutex::default(),
        })
    }
}

impl Upstream for File {
    // What was written stays in the file.
    const LOSSY: bool = false;

    async fn session(self: Arc<Self>, link: Arc<Link>) -> Broken {
        let mut place = self.place.lock().await;
        let (mut watch, mut changes, mut looked) = (Watch::new(), link.changes(), None::<Instant>);
        loop {
            if looked.is_none_or(|at| at.elapsed() >= LOOK) {
                watch.follow([&*self.path]);
                looked = Some(Instant::now());
            }
            while match self.follow(&mut place, &link).await {
                Ok(goes_on) => goes_on,
                Err(error) => return Broken::new(&format!("read {}", self.name), error),
            } {
                yield_now().await;
            }
            link.settled();
            tokio::select! {
                changed = changes.next() => if let Err(broken) = changed { return broken },
                () = watch.touched() => {}
                () = sleep(LOOK) => {}
            }
        }
    }
}

impl File {
    /// Reads on. Whether there may be more at once.
    async fn follow(&self, place: &mut Place, link: &Link) -> io::Result<bool> {
        if place.open.is_none() {
            match open(&self.path).await {
                // What is there already is history, unless it has come since it was waited for.
                Ok((file, length)) => {
                    let history = if std::mem::take(&mut place.was_absent) { 0 } else { length };
                    place.open = Some(Open::at_end(file, history, longest(link)).await?);
                }
                Err(error) => {
                    place.was_absent = true;
                    link.trouble(&format!("open {}: {error}; it is waited for", self.name));
                    return Ok(false);
                }
            }
        }
        let Some(open) = &mut place.open else { return Ok(false) };
        link.up();
        self.begin(open, link).await?;
        for _ in 0..CHUNKS {
            if !self.read_on(open, &mut place.splitter, link).await? {
                return self.look(place, link).await;
            }
        }
        Ok(true)
    }

    /// Opens the logs of feeds that are new, with what the file holds before the line that is read.
    async fn begin(&self, open: &Open, link: &Link) -> io::Result<()> {
        let mut new: Vec<Arc<Feed>> = Vec::new();
        link.wanted().for_each(|feed| new.extend(feed.log.position().is_none().then(|| Arc::clone(feed))));
        let Some(bytes) = new.iter().map(|feed| feed.log.bounds().bytes).max() else { return Ok(()) };
        let lines = open.before(bytes.min(BEFORE) as u64, longest(link)).await?;
        new.iter().for_each(|feed| link.begin(feed, records(&lines, &self.own_name)));
        Ok(())
    }

    /// Reads and delivers the next chunk; false at the end.
    async fn read_on(&self, open: &mut Open, splitter: &mut Splitter, link: &Link) -> io::Result<bool> {
        let bytes = open.read_at(open.read, CHUNK).await?;
        if let Some(end) = memchr::memrchr(b'\n', &bytes) {
            open.line = open.read + end as u64 + 1;
        }
        open.read += bytes.len() as u64;
        let lines = splitter.feed(&bytes, longest(link));
        deliver(link, &lines, &self.own_name).await;
        Ok(!bytes.is_empty())
    }

    /// Looks whether the file that was read to its end still is the one of that name, and goes on with what is. Whether
    /// there may be more in it.
    async fn look(&self, place: &mut Place, link: &Link) -> io::Result<bool> {
        let Some(open) = &mut place.open else { return Ok(false) };
        match self.seen(open, &mut place.gone, link).await? {
            Seen::Same => return Ok(false),
            Seen::Truncated => {
                // What was not read of it by then is gone, and whatever copied it cannot be known.
                link.wanted().for_each(|feed| tell_truncated(feed, link));
                place.splitter.end();
                (open.read, open.line) = (0, 0);
            }
            Seen::Another(next) => {
                // What was still written to the one before.
                while self.read_on(open, &mut place.splitter, link).await? {}
                let last: Vec<_> = place.splitter.end().into_iter().collect();
                deliver(link, &last, &self.own_name).await;
                *open = next;
                tracing::debug!(upstream = %link.name(), "the file was replaced, and the new one is read");
            }
        }
        Ok(true)
    }

    async fn seen(&self, open: &Open, gone: &mut Option<Instant>, link: &Link) -> io::Result<Seen> {
        let own = open.file.metadata()?;
        if own.len() < open.read {
            return Ok(Seen::Truncated);
        }
        let cause = match tokio::fs::metadata(&self.path).await {
            // One that is empty waits: whoever writes has yet to move there.
            Ok(named) if is_same(&named, &own) || named.len() == 0 => {
                *gone = None;
                return Ok(Seen::Same);
            }
            Ok(_) => match self::open(&self.path).await {
                Ok((file, _)) => {
                    *gone = None;
                    return Ok(Seen::Another(Open { file, read: 0, line: 0 }));
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        // A rotation takes a moment.
        if gone.get_or_insert_with(Instant::now).elapsed() >= LOOK {
            link.trouble(&format!("open {}: {cause}; the file that had its name is still read", self.name));
        }
        Ok(Seen::Same)
    }
}

impl Open {
    /// To be read on from its end, or from where the line begins that has not ended there.
    async fn at_end(file: Arc<fs::File>, length: u64, most: usize) -> io::Result<Self> {
        let from = length.saturating_sub(most as u64 + 1);
        let open = Self { file, read: from, line: from };
        let last = open.read_at(from, (length - from) as usize).await?;
        let line = from + memchr::memrchr(b'\n', &last).map_or(0, |end| end as u64 + 1);
        Ok(Self { read: line, line, ..open })
    }

    /// The lines before the one that is read, of at most so many bytes.
    async fn before(&self, bytes: u64, most: usize) -> io::Result<Vec<Bytes>> {
        // The byte before tells whether a line begins there.
        let from = self.line.saturating_sub(bytes.saturating_add(1));
        let mut held = self.read_at(from, (self.line - from) as usize).await?;
        if from > 0 {
            let first = memchr::memchr(b'\n', &held).map_or(held.len(), |end| end + 1);
            held = held.slice(first..);
        }
        Ok(Splitter::default().feed(&held, most))
    }

    /// What stands there, of at most so many bytes.
    async fn read_at(&self, at: u64, most: usize) -> io::Result<Bytes> {
        let file = Arc::clone(&self.file);
        let read = move || {
            let (mut bytes, mut length) = (vec![0; most], 0);
            while length < most {
                match file.read_at(&mut bytes[length..], at + length as u64) {
                    Ok(0) => break,
                    Ok(read) => length += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            bytes.truncate(length);
            Ok(bytes.into())
        };
        spawn_blocking(read).await.map_err(io::Error::other)?
    }
}

/// The file of that name, and its length.
async fn open(path: &Path) -> io::Result<(Arc<fs::File>, u64)> {
    let path = path.to_owned();
    let open = move || {
        // Opening a pipe would wait for whoever writes to it.
        if !fs::metadata(&path)?.is_file() {
            return Err(io::Error::other("this is no regular file"));
        }
        let file = fs::File::open(&path)?;
        let length = file.metadata()?.len();
        Ok((Arc::new(file), length))
    };
    spawn_blocking(open).await.map_err(io::Error::other)?
}

fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn tell_truncated(feed: &Feed, link: &Link) {
    let Some(position) = feed.log.position() else { return };
    let mark = Mark::new(0, position.next(0) + 1);
    for reason in feed.log.append_missing(Reason::Trimmed, mark).gaps {
        link.tell_gap(feed, reason);
    }
}

/// How often it is looked for another file anyway, for file systems that tell of nothing.
const LOOK: Duration = Duration::from_secs(1);
/// Chunks that are read before others have their turn.
const CHUNKS: usize = 16;
/// Bytes of what was there before that a log begins with at most.
const BEFORE: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this text that is read from its end on.
    async fn opened(text: &str, most: usize) -> (tempfile::TempDir, Open) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), text).unwrap();
        let (file, length) = open(&dir.path().join("file")).await.unwrap();
        (dir, Open::at_end(file, length, most).await.unwrap())
    }

    #[tokio::test]
    async fn reading_begins_with_the_line_that_has_not_ended() {
        for (text, line) in [("", 0), ("one\n", 4), ("one\ntwo", 4), ("one", 0), ("one\n\n", 5)] {
            let (_dir, open) = opened(text, 100).await;
            assert_eq!((open.read, open.line), (line, line), "{text:?}");
        }
        // Of one that is too long so much is read that this is seen.
        let (_dir, open) = opened("one\n0123456789", 8).await;
        assert_eq!((open.read, open.line), (5, 5));
    }

    #[tokio::test]
    async fn what_was_before_is_whole_lines_of_at_most_so_many_bytes() {
        let text = "one\ntwo\nthree\nhal";
        let (_dir, open) = opened(text, 100).await;
        let before = async |bytes| open.before(bytes, 100).await.unwrap();
        for (bytes, lines) in [
            (0, &[][..]),
            (5, &[]),
            (6, &["three"]),
            (9, &["three"]),
            (10, &["two", "three"]),
            (14, &["one", "two", "three"]),
            (u64::MAX, &["one", "two", "three"]),
        ] {
            assert_eq!(before(bytes).await, lines, "{bytes}");
        }
    }

    #[tokio::test]
    async fn what_is_no_file_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(dir.path()).await.unwrap_err().to_string().contains("no regular file"));
        assert_eq!(open(&dir.path().join("x")).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
