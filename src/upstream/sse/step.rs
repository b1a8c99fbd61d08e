//! What the stream of a server says, step by step: events, and where it went on without one. Of an ssegate the control
//! events are understood; of any other server they are events like all others, so that nobody forges them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::hub::{Gap, Reason};
use crate::shape::Record;
use crate::sse::{Decoder, Event, Item};

/// A step of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub what: What,
    /// The id that holds after it.
    pub id: Option<Arc<str>>,
}

/// What a step is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// An event.
    Event(Event),
    /// An event that was larger than may be.
    TooLarge,
    /// A gap of which an ssegate tells.
    Gap(Gap),
    /// Another id.
    Moved,
}

impl Step {
    pub(super) fn is_event(&self) -> bool {
        matches!(self.what, What::Event(_))
    }
}

/// What has been heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub steps: Vec<Step>,
    /// How long to wait before coming back.
    pub retry: Option<Duration>,
    /// What is odd about it, in words for the operator.
    pub odd: Option<String>,
}

/// The reader of one stream.
pub(super) struct Steps {
    decoder: Decoder,
    /// What the control events of an ssegate begin with.
    relay: Option<Arc<str>>,
    /// Gaps that were told, and not yet where the stream goes on.
    gaps: Vec<Gap>,
    /// The id as it came, and the one that is passed on.
    raw: String,
    id: Option<Arc<str>>,
}

impl Steps {
    /// Of a stream that was asked to go on after `id`. No event may have more than `most` bytes.
    pub(super) fn new(id: Option<&Arc<str>>, most: usize, relay: Option<Arc<str>>) -> Self {
        let raw = id.map_or("", |id| id);
        Self {
            decoder: Decoder::passing_over(raw, most + BESIDE),
            relay,
            gaps: Vec::new(),
            raw: raw.to_owned(),
            id: id.cloned(),
        }
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Heard {
        let (mut items, mut heard) = (Vec::new(), Heard::default());
        let fed = self.decoder.feed(bytes, |item| items.push(item));
        debug_assert!(fed.is_ok(), "it passes over what is too large");
        for item in items {
            match item {
                Item::Event(event) => self.event(event, &mut heard),
                Item::TooLarge(id) => {
                    self.set_id(&id, &mut heard);
                    self.step(What::TooLarge, &mut heard);
                }
                Item::Retry(after) => heard.retry = Some(after),
                Item::Comment(_) => {}
            }
        }
        let bare = self.decoder.last_id().filter(|id| **id != self.raw).map(str::to_owned);
        if let Some(id) = bare
            && self.set_id(&id, &mut heard)
        {
            self.step(What::Moved, &mut heard);
        }
        heard
    }

    fn event(&mut self, event: Event, heard: &mut Heard) {
        let name = event.name.as_deref().unwrap_or_default();
        let control = self.relay.as_ref().and_then(|prefix| name.strip_prefix(&**prefix));
        match control {
            Some("position") => self.position(&event.id, heard),
            Some("gap") => self.gaps.push(told(&event.data)),
            // Its end is one like any other.
            Some("expiring") => {}
            Some(_) => heard.odd = Some(format!("sends {name:?}, which is not understood and not passed on")),
            None => {
                if self.relay.is_none() && name == "stream.position" {
                    heard.odd = Some("sends stream.position; if it is an ssegate, set `relay: true`".into());
                }
                self.set_id(&event.id, heard);
                self.step(What::Event(event), heard);
            }
        }
    }

    /// Where an ssegate says that the stream stands. Until the last of several gaps the id before it holds.
    fn position(&mut self, id: &str, heard: &mut Heard) {
        let mut gaps = std::mem::take(&mut self.gaps);
        let last = gaps.pop();
        gaps.into_iter().for_each(|gap| self.step(What::Gap(gap), heard));
        let moved = self.set_id(id, heard);
        match last {
            Some(gap) => self.step(What::Gap(gap), heard),
            // Even if it is the same, so that it is known where a stream begins.
            None if moved || self.id.is_some() => self.step(What::Moved, heard),
            None => {}
        }
    }

    fn step(&self, what: What, heard: &mut Heard) {
        heard.steps.push(Step { what, id: self.id.clone() });
    }

    /// Whether that is another one.
    fn set_id(&mut self, raw: &str, heard: &mut Heard) -> bool {
        if raw == self.raw {
            return false;
        }
        raw.clone_into(&mut self.raw);
        if !raw.is_empty() && !is_sound(raw) {
            heard.odd = Some(format!(
                "gives ids that cannot be passed on, of more than {LONGEST} bytes or with blanks at an end"
            ));
            return false;
        }
        self.id = (!raw.is_empty()).then(|| raw.into());
        true
    }
}

/// Whether an id can be passed on as it is, and come back in a header field.
pub(super) fn is_sound(id: &str) -> bool {
    (1..=LONGEST).contains(&id.len()) && id.trim() == id && !id.chars().any(char::is_control)
}

/// The gap that an ssegate tells of. A reason that is not known is that of one which is newer.
fn told(data: &str) -> Gap {
    let told: Value = serde_json::from_str(data).unwrap_or_default();
    let reason = told["reason"].as_str().and_then(Reason::named).unwrap_or(Reason::UpstreamLost);
    let time = |name: &str| -> Option<SystemTime> { humantime::parse_rfc3339(told[name].as_str()?).ok() };
    Gap {
        missed: told["missed"].as_u64(),
        span: time("since").zip(time("until")),
        told: Some(Box::new((told["from"].clone(), told["to"].clone()))),
        ..Gap::of(reason)
    }
}

/// An event as a record, of this path.
pub(super) struct Message<'e> {
    pub path: &'e str,
    pub event: &'e Event,
}

impl Record for Message<'_> {
    fn payload(&self) -> Option<&[u8]> {
        Some(self.event.data.as_bytes())
    }

    fn name(&self) -> &str {
        self.path
    }

    fn event(&self) -> Option<&str> {
        self.event.name.as_deref()
    }
}

/// Bytes that an event may have beside its data and its name.
const BESIDE: usize = 8 * 1024;
/// Bytes of an id.
const LONGEST: usize = crate::config::longest::OF_SERVER;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: Option<&str>, data: &str, id: &str) -> What {
        What::Event(Event { name: name.map(str::to_owned), data: data.to_owned(), id: id.to_owned() })
    }

    fn steps(relay: bool, stream: &str) -> (Vec<(What, Option<String>)>, Option<String>) {
        let mut steps = Steps::new(None, 100, relay.then(|| "stream.".into()));
        let heard = steps.feed(stream.as_bytes());
        let owned = |step: Step| (step.what, step.id.map(|id| id.to_string()));
        (heard.steps.into_iter().map(owned).collect(), heard.odd)
    }

    #[test]
    fn an_id_holds_for_what_follows_and_can_be_taken_back() {
        let some = |id: &str| Some(id.to_owned());
        let (found, odd) = steps(false, "data: a\n\ndata: b\nid: 1\n\ndata: c\n\nid\ndata: d\n\nid: 2\n\n");
        let expected = [
            (event(None, "a", ""), None),
            (event(None, "b", "1"), some("1")),
            (event(None, "c", "1"), some("1")),
            (event(None, "d", ""), None),
            (What::Moved, some("2")),
        ];
        assert_eq!((found, odd), (Vec::from(expected), None));
    }

    #[test]
    fn an_id_that_cannot_come_back_is_none() {
        let long = "x".repeat(513);
        for bad in [&*long, "a\u{7}", "a ", "\u{a0}a"] {
            let (found, odd) = steps(false, &format!("data: a\nid: 1\n\ndata: b\nid: {bad}\n\n"));
            assert_eq!(found[1].1.as_deref(), Some("1"), "{bad:?}");
            assert!(odd.is_some_and(|odd| odd.contains("cannot be passed on")), "{bad:?}");
        }
        for good in ["a b", "ä", "2026-11-30T09:00:00Z", &long[1..]] {
            assert_eq!(steps(false, &format!("data: a\nid: {good}\n\n")).0[0].1.as_deref(), Some(good));
        }
    }

    #[test]
    fn an_ssegate_tells_where_it_stands_and_what_is_missing() {
        let gap = |reason: &str, more: &str| {
            format!("event: stream.gap\ndata: {{\"reason\":\"{reason}\",\"missed\":null{more}}}\n\n")
        };
        let position = "event: stream.position\ndata: {}\nid: 7\n\n";
        let span = ",\"since\":\"1970-01-01T00:00:01.000Z\",\"until\":\"1970-01-01T00:00:02Z\"";
        let stream = format!(
            "retry: 5\n\n{position}{}{}event: stream.position\ndata: {{}}\nid: 8\n\ndata: x\nid: 9\n\n",
            gap("trimmed", ",\"from\":\"1-0\",\"to\":\"2-0\""),
            gap("upstream_lost", span)
        );
        let (found, odd) = steps(true, &stream);
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let told = |from: Value, to: Value| Some(Box::new((from, to)));
        let trimmed = Gap { told: told("1-0".into(), "2-0".into()), ..Gap::of(Reason::Trimmed) };
        let told = told(Value::Null, Value::Null);
        let lost = Gap { span: Some((at(1), at(2))), told, ..Gap::of(Reason::UpstreamLost) };
        let some = |id: &str| Some(id.to_owned());
        let expected = [
            (What::Moved, some("7")),
            (What::Gap(trimmed), some("7")),
            (What::Gap(lost), some("8")),
            (event(None, "x", "9"), some("9")),
        ];
        assert_eq!((found, odd), (Vec::from(expected), None));
        let (found, odd) = steps(true, "event: stream.news\ndata: x\n\n");
        assert!(found.is_empty() && odd.is_some_and(|odd| odd.contains("stream.news")));
    }

    #[test]
    fn nobody_else_speaks_as_an_ssegate() {
        let (found, odd) = steps(false, "event: stream.position\ndata: {}\nid: 7\n\n");
        assert_eq!(found, [(event(Some("stream.position"), "{}", "7"), Some("7".to_owned()))]);
        assert!(odd.is_some_and(|odd| odd.contains("`relay: true`")));
    }
}
