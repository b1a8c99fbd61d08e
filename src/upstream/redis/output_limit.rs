//! `client-output-buffer-limit`: a subscriber that reads too slowly is cut off by Redis without a word. What gives it
//! away is how much was left to read when the link ended and, on newer servers, a counter in INFO.

use std::collections::HashMap;

use parking_lot::Mutex;

/// What is left to read when Redis cuts a subscriber is at least what the kernel's buffer holds.
const BACKLOG: u64 = 32 * 1024;

/// Why a link ended probably, if `run` bytes could be read without a pause before its end.
pub(super) fn backlog(run: u64) -> Option<String> {
    (run >= BACKLOG).then(|| format!("with {} KiB of it still to be read; {ADVICE}", run / 1024))
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

    #[test]
    fn only_a_backlog_is_a_sign() {
        assert_eq!(backlog(100), None);
        assert!(backlog(3 << 20).unwrap().starts_with("with 3072 KiB of it still to be read; probably"));
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
