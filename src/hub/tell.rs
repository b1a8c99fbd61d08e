//! How what several feeds give is written on one stream: bodies as they are, shared, and around them which feed it is of.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::sse::{self, Block, EventName};

/// How a client is told which feed an event is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// Not at all: to the outside it is one feed.
    Nothing,
    /// By its name: the feed's label and, if it has a name of its own, a space and that.
    Event,
    /// By members of its data, which is an object of JSON: `feed` and, if it has a name, `event`. It has no name then, so
    /// that `onmessage` is called. An event whose data is anything else is told by its name.
    Envelope,
}

/// A feed that a client has asked for and is not given.
#[derive(Debug, Clone)]
pub struct Refused {
    /// What the client calls it.
    pub label: Arc<str>,
    /// The status that it would be answered with alone, if there is one for it.
    pub status: Option<u16>,
    /// Why, as a URI that stays what it is.
    pub kind: Cow<'static, str>,
    /// The same for people.
    pub detail: Cow<'static, str>,
    /// The id after which it was to go on. Ids of the others keep it, so that its client may come back for it later.
    pub resumes: Option<String>,
}

impl Refused {
    /// Appends the event that tells it.
    pub fn write(&self, tell: Tell, prefix: &str, out: &mut Vec<u8>) {
        let mut data = serde_json::Map::new();
        if tell != Tell::Nothing {
            data.insert("feed".into(), (&*self.label).into());
        }
        data.extend(self.status.map(|status| ("status".into(), status.into())));
        data.insert("type".into(), (&*self.kind).into());
        data.insert("detail".into(), (&*self.detail).into());
        sse::control_body(out, prefix, "refused", &serde_json::Value::Object(data).to_string());
        out.push(b'\n');
    }
}

impl Tell {
    /// Writes an event of the feed that is called `label`. What ends its block is to follow.
    pub fn event(self, label: &str, prefix: &str, block: &Block, out: &mut Pieces) {
        let (name, data) = (block.name(), block.data_at());
        match self {
            Self::Nothing => out.share(block.body.clone()),
            Self::Envelope if add_members(block, data, label, name, out) => {}
            Self::Event | Self::Envelope => {
                if let Some(called) = EventName::new(label).map(|label| label.outside(prefix)) {
                    let own = out.own();
                    own.extend_from_slice(b"event: ");
                    own.extend_from_slice(called.as_str().as_bytes());
                    name.into_iter().for_each(|name| {
                        own.push(b' ');
                        own.extend_from_slice(name);
                    });
                    own.push(b'\n');
                }
                out.share(block.body.slice(data..));
            }
        }
    }

    /// Writes a control event of that feed, which keeps its name.
    pub fn control(self, label: &str, block: &Block, out: &mut Pieces) {
        if self == Self::Nothing || !add_members(block, 0, label, None, out) {
            out.share(block.body.clone());
        }
    }
}

/// Writes the body of a block from `from` on with more members in its data. They stand last, since it is the last of several of a
/// name that readers take: whatever a publisher has put there, the feed is ours. False, and nothing written, if the data is no
/// object.
fn add_members(block: &Block, from: usize, label: &str, name: Option<&[u8]>, out: &mut Pieces) -> bool {
    let Some(Range { start, end }) = object(&block.body, block.data_at()) else { return false };
    out.share(block.body.slice(from..end));
    let is_empty = block.body[start + 1..end].split(|&byte| byte == b'\n').all(|line| {
        // What a line of data within it begins with is none of its content.
        line.strip_prefix(DATA).unwrap_or(line).trim_ascii().is_empty()
    });
    let own = out.own();
    let mut member = |key: &str, value: &str| {
        own.extend_from_slice(key.as_bytes());
        serde_json::to_writer(&mut *own, value).expect("writing to memory cannot fail");
    };
    member(if is_empty { "\"feed\":" } else { ",\"feed\":" }, label);
    name.into_iter().for_each(|name| member(",\"event\":", &String::from_utf8_lossy(name)));
    own.extend_from_slice(&block.body[end..]);
    true
}

/// From the first brace to before the last of the object that the data of a body is, which begins at `data`.
fn object(body: &[u8], data: usize) -> Option<Range<usize>> {
    let text = body[data..].strip_prefix(DATA)?;
    let start = data + DATA.len() + text.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let end = memchr::memrchr(b'}', body)?;
    (body[start] == b'{' && start < end).then_some(start..end)
}

/// What is written in turns: bytes that are shared, and a reader's own between them.
#[derive(Debug, Default)]
pub struct Pieces {
    /// Each with the length that the reader's own has before it.
    shared: Vec<(usize, Bytes)>,
    own: Vec<u8>,
    size: usize,
}

impl Pieces {
    /// Adds bytes that others are given, too.
    pub fn share(&mut self, bytes: Bytes) {
        self.size += bytes.len();
        self.shared.push((self.own.len(), bytes));
    }

    /// What is written next of the reader's own.
    pub fn own(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// How many bytes there are.
    pub fn size(&self) -> usize {
        self.size + self.own.len()
    }

    /// All of them, in order. The reader's own are one allocation.
    pub fn finish(self) -> Vec<Bytes> {
        let (own, mut from) = (Bytes::from(self.own), 0);
        let mut pieces = Vec::with_capacity(2 * self.shared.len() + 1);
        for (to, shared) in self.shared {
            pieces.extend((from < to).then(|| own.slice(from..to)));
            pieces.push(shared);
            from = to;
        }
        pieces.extend((from < own.len()).then(|| own.slice(from..)));
        pieces
    }
}

const DATA: &[u8] = b"data: ";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::sse::Blocks;

    /// What is written of a body.
    fn told(tell: Tell, label: &str, body: &str) -> String {
        let mut pieces = Pieces::default();
        let block = Blocks::new(vec![format!("{body}\n").into()]).next().unwrap();
        match block.name().is_some_and(|name| name.starts_with(b"stream.")) {
            true => tell.control(label, &block, &mut pieces),
            false => tell.event(label, "stream.", &block, &mut pieces),
        }
        let size = pieces.size();
        let bytes = pieces.finish().concat();
        assert_eq!(bytes.len(), size);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_name_tells_the_feed_and_then_what_it_was() {
        let event = |label, body| told(Tell::Event, label, body);
        assert_eq!(event("/rooms/a", "data: x\ndata: y\n"), "event: /rooms/a\ndata: x\ndata: y\n");
        assert_eq!(event("/rooms/a", "event: created\ndata: x\n"), "event: /rooms/a created\ndata: x\n");
        assert_eq!(event("/a\nid: 7\0", "data: x\n"), "event: /a id: 7 \ndata: x\n");
        assert_eq!(event("stream.gap", "data: x\n"), "event: _stream.gap\ndata: x\n");
        assert_eq!(told(Tell::Nothing, "/a", "event: created\ndata: x\n"), "event: created\ndata: x\n");
    }

    #[test]
    fn an_envelope_tells_the_feed_within_and_has_no_name() {
        for (body, expected) in [
            (r#"data: {"data":1}"#, r#"data: {"data":1,"feed":"/a"}"#),
            ("event: new\ndata: {\"data\":1}", r#"data: {"data":1,"feed":"/a","event":"new"}"#),
            (r#"data: {"feed":"/b","event":"x"}"#, r#"data: {"feed":"/b","event":"x","feed":"/a"}"#),
            ("event: \"\\\ndata: {}", r#"data: {"feed":"/a","event":"\"\\"}"#),
            ("data: { \ndata: \ndata: }", "data: { \ndata: \ndata: \"feed\":\"/a\"}"),
            (
                "data:  {\ndata: \"a\": {}\ndata: } \ndata: ",
                "data:  {\ndata: \"a\": {}\ndata: ,\"feed\":\"/a\"} \ndata: ",
            ),
        ] {
            let written = told(Tell::Envelope, "/a", &format!("{body}\n"));
            assert_eq!(written, format!("{expected}\n"));
            let data: String = written.lines().map(|line| line.strip_prefix("data: ").unwrap()).collect();
            assert_eq!(serde_json::from_str::<Value>(&data).unwrap()["feed"], "/a");
        }
    }

    #[test]
    fn data_that_is_no_object_is_told_by_its_name() {
        for data in ["[{}]", "\"{}\"", "3", "", "}", "{"] {
            let written = told(Tell::Envelope, "/a", &format!("event: new\ndata: {data}\n"));
            assert_eq!(written, format!("event: /a new\ndata: {data}\n"));
        }
    }

    #[test]
    fn control_events_keep_their_names_and_say_of_which_feed_they_are() {
        let gap = "event: stream.gap\ndata: {\"reason\":\"lagged\",\"from\":{\"0\":1}}\n";
        for tell in [Tell::Event, Tell::Envelope] {
            let expected = gap.replace("}}", "},\"feed\":\"/a\"}");
            assert_eq!(told(tell, "/a", gap), expected);
            assert_eq!(
                told(tell, "/\"", "event: stream.snapshot-end\ndata: {}\n"),
                "event: stream.snapshot-end\ndata: {\"feed\":\"/\\\"\"}\n"
            );
        }
        assert_eq!(told(Tell::Nothing, "/a", gap), gap);
    }

    #[test]
    fn who_is_refused_is_told_why() {
        let refused = Refused {
            label: "/rooms/\"\n".into(),
            status: Some(403),
            kind: "urn:ssegate:problem:forbidden".into(),
            detail: "No.".into(),
            resumes: None,
        };
        let data = |refused: &Refused, tell| {
            let mut out = Vec::new();
            refused.write(tell, "stream.", &mut out);
            let text = String::from_utf8(out).unwrap();
            let data =
                text.strip_prefix("event: stream.refused\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
            serde_json::from_str::<Value>(data.unwrap()).unwrap()
        };
        let (kind, detail) = (&*refused.kind, &*refused.detail);
        let expected = json!({ "feed": "/rooms/\"\n", "status": 403, "type": kind, "detail": detail });
        assert_eq!(data(&refused, Tell::Event), expected);
        let of_one = Refused { status: None, ..refused.clone() };
        assert_eq!(data(&of_one, Tell::Nothing), json!({ "type": kind, "detail": detail }));
    }

    #[test]
    fn what_is_shared_is_not_copied() {
        let body = Bytes::from_static(b"data: x\n");
        let mut pieces = Pieces::default();
        pieces.share(body.clone());
        pieces.own().extend_from_slice(b"id: 1\n\n");
        pieces.share(body.clone());
        pieces.share(body.clone());
        let pieces = pieces.finish();
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [8, 7, 8, 8]);
        assert!([0, 2, 3].iter().all(|&at| pieces[at].as_ptr() == body.as_ptr()));
    }
}
