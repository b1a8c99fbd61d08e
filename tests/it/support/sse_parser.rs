//! A parser of event streams, written from the text of WHATWG HTML 9.2.5 and 9.2.6 and nothing else.
//!
//! It shares no code with ssegate's encoder, so that the tests can hold one against the other. It is
//! incremental (bytes may be cut anywhere, also inside a character), uses `std` alone, and can be
//! included by `#[path]` wherever a second opinion on the wire format is wanted.

/// What a stream says, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An event that `EventSource` would dispatch.
    Event(Event),
    /// The text after the colon of a comment line. `EventSource` ignores it; tests do not.
    Comment(String),
    /// A valid `retry` field, in milliseconds.
    Retry(u64),
}

/// A dispatched event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The type a listener is registered for: `message` where the stream names none.
    pub event: String,
    /// The data, its lines joined by LF.
    pub data: String,
    /// `lastEventId`: the last event ID string at the time of dispatch.
    pub id: String,
}

/// The state of one stream.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    past_bom: bool,
    data: String,
    event_type: String,
    id_buffer: String,
    last_event_id: Option<String>,
}

impl Parser {
    /// A parser to the letter of the text: each stream starts with an empty last event ID buffer, so
    /// that an event without id, first on a resumed stream, resets the last event ID string.
    pub fn new() -> Self {
        Self::default()
    }

    /// A parser as browsers have it: on a resumed stream the buffer starts as the id resumed from.
    pub fn resuming(last_event_id: &str) -> Self {
        Self { id_buffer: last_event_id.into(), ..Self::default() }
    }

    /// The last event ID string that this stream has set, which a blank line does; `None` before the
    /// first one, where the string is still what it was before the stream.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Takes the next bytes of the stream and returns what they complete. What is pending when the
    /// stream ends is to be discarded: drop the parser.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Item> {
        let mut items = Vec::new();
        for &byte in bytes {
            self.byte(byte, &mut items);
        }
        items
    }

    /// Lines end by CR LF, LF or CR. A CR ends its line at once; the LF of a pair is then swallowed.
    /// Neither byte occurs inside a UTF-8 sequence, so lines can be split before they are decoded.
    fn byte(&mut self, byte: u8, items: &mut Vec<Item>) {
        let second_of_pair = std::mem::replace(&mut self.after_cr, byte == b'\r') && byte == b'\n';
        match byte {
            _ if second_of_pair => {}
            b'\r' | b'\n' => self.end_line(items),
            _ => self.line.push(byte),
        }
    }

    /// Decodes one line (9.2.5: UTF-8 decode, which strips one leading BOM from the stream and
    /// replaces what is malformed) and processes it (9.2.6).
    fn end_line(&mut self, items: &mut Vec<Item>) {
        let bytes = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.past_bom, true);
        let bytes = if first { bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes) } else { &bytes };
        let line = String::from_utf8_lossy(bytes);
        match line.split_once(':') {
            _ if line.is_empty() => self.dispatch(items),
            Some(("", comment)) => items.push(Item::Comment(comment.into())),
            Some((field, value)) => self.field(field, value.strip_prefix(' ').unwrap_or(value), items),
            None => self.field(&line, "", items),
        }
    }

    /// "The steps to process the field." Names are compared literally.
    fn field(&mut self, name: &str, value: &str, items: &mut Vec<Item>) {
        match name {
            "event" => self.event_type = value.into(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id_buffer = value.into(),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                items.push(Item::Retry(value.parse().unwrap_or(u64::MAX)));
            }
            _ => {}
        }
    }

    /// "When the user agent is required to dispatch the event": the id counts even where the data is
    /// empty and no event is dispatched.
    fn dispatch(&mut self, items: &mut Vec<Item>) {
        self.last_event_id = Some(self.id_buffer.clone());
        let event_type = std::mem::take(&mut self.event_type);
        let mut data = std::mem::take(&mut self.data);
        if data.is_empty() {
            return;
        }
        if data.ends_with('\n') {
            data.pop();
        }
        let event = if event_type.is_empty() { "message".into() } else { event_type };
        items.push(Item::Event(Event { event, data, id: self.id_buffer.clone() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event: &str, data: &str, id: &str) -> Item {
        Item::Event(Event { event: event.into(), data: data.into(), id: id.into() })
    }

    fn message(data: &str) -> Item {
        event("message", data, "")
    }

    /// Parses `stream` whole, and again cut at every place: the cuts must make no difference.
    fn parse(stream: impl AsRef<[u8]>) -> Vec<Item> {
        let stream = stream.as_ref();
        let whole = Parser::new().feed(stream);
        for cut in 0..=stream.len() {
            let mut parser = Parser::new();
            let mut items = parser.feed(&stream[..cut]);
            items.extend(parser.feed(&stream[cut..]));
            assert_eq!(items, whole, "cut at {cut}");
        }
        whole
    }

    #[test]
    fn joins_the_lines_of_one_event() {
        assert_eq!(parse("data: YHOO\ndata: +2\ndata: 10\n\n"), [message("YHOO\n+2\n10")]);
    }

    #[test]
    fn follows_the_example_with_ids() {
        let stream =
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        let expected = [
            Item::Comment(" test stream".into()),
            event("message", "first event", "1"),
            event("message", "second event", ""),
            event("message", " third event", ""),
        ];
        assert_eq!(parse(stream), expected);
    }

    #[test]
    fn follows_the_example_with_empty_data() {
        assert_eq!(parse("data\n\ndata\ndata\n\ndata:"), [message(""), message("\n")]);
    }

    #[test]
    fn removes_one_leading_space() {
        assert_eq!(parse("data:test\n\ndata: test\n\n"), [message("test"), message("test")]);
    }

    #[test]
    fn takes_the_type_from_the_last_event_field_of_its_block() {
        let stream =
            "event: add\ndata: 1\n\ndata: 2\n\nevent: a\nevent: b\ndata: 3\n\nevent: a\nevent\ndata: 4\n\n";
        let expected = [event("add", "1", ""), message("2"), event("b", "3", ""), message("4")];
        assert_eq!(parse(stream), expected);
    }

    #[test]
    fn ends_lines_by_cr_lf_or_both() {
        let expected = [event("a", "x\ny", "1")];
        assert_eq!(parse("event:a\rdata:x\rdata:y\rid:1\r\r"), expected);
        assert_eq!(parse("event:a\ndata:x\ndata:y\nid:1\n\n"), expected);
        assert_eq!(parse("event:a\r\ndata:x\r\ndata:y\r\nid:1\r\n\r\n"), expected);
        assert_eq!(parse("event:a\r\ndata:x\rdata:y\nid:1\n\r"), expected);
        assert_eq!(parse("data:x\r\n\ndata:y\n\r\n"), [message("x"), message("y")]);
    }

    #[test]
    fn strips_one_bom_and_only_at_the_start() {
        assert_eq!(parse("\u{feff}data:x\n\n"), [message("x")]);
        assert_eq!(parse("\u{feff}\u{feff}data:x\n\n"), []);
        assert_eq!(parse("data:x\n\n\u{feff}data:y\n\n"), [message("x")]);
        assert_eq!(parse("data:\u{feff}x\n\n"), [message("\u{feff}x")]);
    }

    #[test]
    fn replaces_malformed_utf8() {
        assert_eq!(parse(b"data:a\xFFb\xE2\x82\n\n"), [message("a\u{fffd}b\u{fffd}")]);
        assert_eq!(parse("data:€\n\n"), [message("€")]);
    }

    #[test]
    fn an_id_counts_at_the_blank_line_even_without_data() {
        let mut parser = Parser::new();
        assert_eq!(parser.feed(b"id: 7\n"), []);
        assert_eq!(parser.last_event_id(), None);
        assert_eq!(parser.feed(b"event: x\n\n"), []);
        assert_eq!(parser.last_event_id(), Some("7"));
        assert_eq!(parser.feed(b"data\n\n"), [event("message", "", "7")]);
    }

    #[test]
    fn ignores_an_id_with_nul() {
        assert_eq!(
            parse("id:1\ndata:a\n\nid:2\0\ndata:b\n\n"),
            [event("message", "a", "1"), event("message", "b", "1")]
        );
    }

    #[test]
    fn keeps_nul_in_data() {
        assert_eq!(parse("data:a\0b\n\n"), [message("a\0b")]);
    }

    #[test]
    fn retry_is_digits_only() {
        let stream = "retry:3000\nretry: 0\nretry:-1\nretry:1.5\nretry:\nretry\nretry:9 \nretry:٣\n";
        assert_eq!(parse(stream), [Item::Retry(3000), Item::Retry(0)]);
    }

    #[test]
    fn ignores_other_fields_and_compares_names_literally() {
        assert_eq!(parse("Data:x\n data:x\nfoo:bar\nfoo\ndata :x\n\n"), []);
    }

    #[test]
    fn keeps_colons_of_the_value() {
        assert_eq!(parse("data:a:b: c\n\n"), [message("a:b: c")]);
        assert_eq!(parse("data::\n\n"), [message(":")]);
    }

    #[test]
    fn discards_what_no_blank_line_completes() {
        let mut parser = Parser::new();
        assert_eq!(parser.feed(b"data:x\nid:1\n"), []);
        assert_eq!(parser.last_event_id(), None);
    }

    #[test]
    fn a_resumed_stream_differs_only_in_its_first_id() {
        let first_has_no_id = b"data:x\n\n";
        assert_eq!(Parser::new().feed(first_has_no_id), [message("x")]);
        assert_eq!(Parser::resuming("9").feed(first_has_no_id), [event("message", "x", "9")]);
    }
}
