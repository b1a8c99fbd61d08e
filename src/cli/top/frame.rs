//! What `top` shows: the process, its upstreams, and its routes with what they send a second. Pure.

use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use serde_json::Value;

use crate::cli::status::{entries, head, titles, upstreams, word};
use crate::cli::text::{bytes, columns, plain};

/// What was seen last, and before.
pub(super) struct Look {
    /// What the listener is called.
    pub name: String,
    pub document: Value,
    /// When that was.
    pub at: Instant,
    pub before: Option<(Value, Instant)>,
    /// Why there has been no answer since.
    pub trouble: Option<String>,
}

impl Look {
    /// Takes a new answer.
    pub fn next(&mut self, document: Value, at: Instant) {
        let before = std::mem::replace(&mut self.document, document);
        self.before = Some((before, std::mem::replace(&mut self.at, at)));
        self.trouble = None;
    }

    /// Each route as it was before, by its name.
    fn earlier(&self) -> HashMap<&str, &Value> {
        let before = self.before.iter().flat_map(|(before, _)| entries(before, "routes"));
        before.filter_map(|route| Some((route["route"].as_str()?, route))).collect()
    }

    /// How fast a number of a route has grown; nothing where there is no other to compare, or the process is another.
    fn rate(&self, route: &Value, earlier: Option<&Value>, field: &str) -> Option<f64> {
        let (_, then) = self.before.as_ref()?;
        let grown = route[field].as_u64()?.checked_sub(earlier?[field].as_u64()?)?;
        let seconds = self.at.duration_since(*then).as_secs_f64();
        (seconds > 0.0).then(|| grown as f64 / seconds)
    }
}

/// The lines of a screen of so many columns and rows.
pub(super) fn frame(look: &Look, now: SystemTime, (width, height): (usize, usize)) -> Vec<String> {
    let mut lines = head(&look.document, now);
    if let Some(first) = lines.first_mut() {
        first.push_str(&format!("  ({}, q ends)", look.name));
    }
    let trouble = look.trouble.as_ref().map(|why| format!("NO ANSWER: {}", plain(why).replace('\n', " ")));
    lines.splice(1..1, trouble);
    for table in [upstreams(&look.document, now), routes(look)] {
        lines.push(String::new());
        lines.extend(columns(&table));
    }
    if lines.len() > height {
        let hidden = lines.len() - height + 1;
        lines.truncate(height.saturating_sub(1));
        lines.push(format!("… {hidden} more"));
    }
    lines.iter().map(|line| line.chars().take(width).collect()).collect()
}

/// Those that send most come first.
fn routes(look: &Look) -> Vec<Vec<String>> {
    let earlier = look.earlier();
    let mut routes: Vec<_> = entries(&look.document, "routes")
        .map(|route| {
            let earlier = route["route"].as_str().and_then(|name| earlier.get(name).copied());
            let rate = |field| look.rate(route, earlier, field);
            (rate("events_out"), rate("bytes_out"), route)
        })
        .collect();
    routes.sort_by(|(a, _, x), (b, _, y)| {
        let subscribers = |route: &Value| route["subscribers"].as_u64();
        b.unwrap_or(0.0).total_cmp(&a.unwrap_or(0.0)).then_with(|| subscribers(y).cmp(&subscribers(x)))
    });
    let mut rows =
        vec![titles(&["ROUTE", "UPSTREAM", "SUBSCRIBERS", "EVENTS/S", "BYTES/S", "EVENTS", "SENT"])];
    let or_none = |shown: Option<String>| shown.unwrap_or_else(|| "-".to_owned());
    rows.extend(routes.into_iter().map(|(events, sent, route)| {
        vec![
            word(&route["route"]),
            word(&route["upstream"]),
            word(&route["subscribers"]),
            or_none(events.map(|rate| format!("{rate:.0}"))),
            or_none(sent.map(|rate| bytes(rate as u64))),
            word(&route["events_out"]),
            or_none(route["bytes_out"].as_u64().map(bytes)),
        ]
    }));
    rows
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::json;

    use super::*;

    fn document(events: [u64; 2]) -> Value {
        json!({
            "version": "1", "subscribers": 3,
            "routes": [
                { "route": "/a", "upstream": "u", "subscribers": 1, "events_out": events[0], "bytes_out": 2 * events[0] },
                { "route": "/b", "upstream": "u", "subscribers": 2, "events_out": events[1], "bytes_out": 2 * events[1] },
            ],
        })
    }

    fn look(document: Value) -> Look {
        Look { name: "http://x".into(), document, at: Instant::now(), before: None, trouble: None }
    }

    fn line(lines: &[String], begins: &str) -> (usize, Vec<String>) {
        let at = lines.iter().position(|line| line.starts_with(begins)).unwrap();
        (at, lines[at].split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn rates_are_what_has_come_since() {
        let mut look = look(document([10, 10]));
        let lines = frame(&look, UNIX_EPOCH, (80, 24));
        assert_eq!(line(&lines, "/a").1, ["/a", "u", "1", "-", "-", "10", "20", "B"]);
        look.next(document([110, 510]), look.at + Duration::from_secs(2));
        let lines = frame(&look, UNIX_EPOCH, (80, 24));
        let ((a, first), (b, second)) = (line(&lines, "/a"), line(&lines, "/b"));
        assert_eq!(first, ["/a", "u", "1", "50", "100", "B", "110", "220", "B"]);
        assert_eq!(second[3], "250");
        assert!(b < a, "{lines:#?}");
        // Another process counts from the beginning.
        look.next(document([5, 5]), look.at + Duration::from_secs(1));
        assert_eq!(line(&frame(&look, UNIX_EPOCH, (80, 24)), "/a").1[3], "-");
    }

    #[test]
    fn it_fits_the_screen() {
        let mut look = look(document([1, 1]));
        look.trouble = Some("gone\x1b[2J".to_owned());
        for (width, height) in [(80, 24), (20, 5), (1, 1), (3, 2)] {
            let lines = frame(&look, UNIX_EPOCH, (width, height));
            assert!(
                lines.len() <= height && lines.iter().all(|line| line.chars().count() <= width),
                "{lines:?}"
            );
        }
        let lines = frame(&look, UNIX_EPOCH, (80, 5));
        assert!(lines[4].starts_with('…') && lines[1].starts_with("NO ANSWER: gone\\u{1b}"), "{lines:#?}");
    }
}
