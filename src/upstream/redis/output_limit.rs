//! `client-output-buffer-limit`: a subscriber that reads too slowly is cut off by Redis without a word. What gives it
//! away is how much was left to read when the link ended and, on newer servers, a counter in INFO.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What is left to read when Redis cuts a subscriber is at least what the kernel's buffer holds.
const BACKLOG: u64 = 32 * 1024;

/// For so long after a backlog a link's end may belong to it: what Redis's kernel still has to send follows once ours
/// has room again, which may take a moment in which there is nothing to read.
const TAIL: Duration = Duration::from_secs(1);

/// How much of a link could be read without a pause.
#[derive(Default)]
pub(super) struct Run {
    /// Bytes since there was last nothing to read.
    bytes: u64,
    /// The last backlog before that, and when it was read.
    before: Option<(u64, Instant)>,
}

impl Run {
    /// So many bytes were there.
    pub fn read(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// There was nothing more to read.
    pub fn pause(&mut self) {
        if self.bytes >= BACKLOG {
            self.before = Some((self.bytes, Instant::now()));
        }
        self.bytes = 0;
    }

    /// Why the link, which has ended, did so probably.
    pub fn backlog(&self) -> Option<String> {
        let before = self.before.filter(|(_, read)| read.elapsed() < TAIL).map_or(0, |(bytes, _)| bytes);
        let bytes = self.bytes.max(before);
        (bytes >= BACKLOG).then(|| format!("with {} KiB of it still to be read; {ADVICE}", bytes / 1024))
    }
}

const ADVICE: &str = "probably ssegate fell behind Redis's client-output-buffer-limit; to allow more: CONFIG SET \
                      client-output-buffer-limit \"pubsub 64mb 16mb 60\"";

/// How many clients each server has cut off for their output, as far as it tells.
#[derive(Default)]
pub(super) struct Disconnections(Mutex<HashMap<String, u64>>);

impl Disconnections {
    /// Takes what INFO says at the beginning of a link to `address`. The explanation of how the one before ended, if
    /// the number has grown meanwhile.
    pub fn note(&self, address: &str, info: &str) -> Option<String> {
        let count = info.lines().find_map(|line| line.strip_prefix(COUNTER)?.trim().parse::<u64>().ok())?;
        let before = self.0.lock().insert(address.to_owned(), count)?;
        (count > before).then(|| {
            let times = count - before;
            format!("Redis at {address} cut {times} clients off for their output since the link before began; {ADVICE}")
        })
    }
}

const COUNTER: &str = "client_output_buffer_limit_disconnections:";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_backlog_is_a_sign() {
        let mut run = Run::default();
        run.read(100);
        assert_eq!(run.backlog(), None);
        run.read(3 << 20);
        let explained = run.backlog().unwrap();
        assert!(explained.starts_with("with 3072 KiB of it still to be read; probably"), "{explained}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_backlog_may_come_in_two_parts() {
        let mut run = Run::default();
        run.read(3 << 20);
        run.pause();
        run.read(100);
        run.pause();
        assert!(run.backlog().unwrap().contains("3072 KiB"));
        tokio::time::advance(TAIL).await;
        assert_eq!(run.backlog(), None, "the link went on");
    }

    #[test]
    fn only_growth_on_the_same_server_is_a_sign() {
        let noted = Disconnections::default();
        let info = |count: u64| format!("# Stats\r\nexpired_keys:7\r\n{COUNTER}{count}\r\nx:9\r\n");
        assert_eq!(noted.note("a:1", &info(3)), None, "before our time");
        assert_eq!(noted.note("a:1", &info(3)), None);
        assert_eq!(noted.note("b:1", &info(9)), None, "another server");
        let explained = noted.note("a:1", &info(5)).unwrap();
        assert!(explained.starts_with("Redis at a:1 cut 2 clients off"), "{explained}");
        assert_eq!(noted.note("a:1", &info(0)), None, "started anew");
        assert_eq!(noted.note("a:1", "# Stats\r\n"), None, "a version that does not count");
    }
}
