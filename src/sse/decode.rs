//! Reading events, as WHATWG HTML 9.2.5 and 9.2.6 have it: bytes in, cut anywhere, and what they say out. Holds one
//! event that is not whole yet and no more, which has a bound.

use std::time::Duration;

use thiserror::Error;

/// What a stream says, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An event that `EventSource` would dispatch.
    Event(Event),
    /// The text of a comment, which `EventSource` passes over.
    Comment(String),
    /// How long to wait before coming back.
    Retry(Duration),
    /// An event that is larger than may be was passed over; the last event id after it. Only where that is wanted.
    TooLarge(String),
}

/// An event as its reader gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name; `None` is a `message`.
    pub name: Option<String>,
    /// Its data, the lines joined by LF.
    pub data: String,
    /// The last event id at its time, which an event before it may have set. Empty where there is none.
    pub id: String,
}

/// More bytes than a reader wants to hold have come without the end of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an event is larger than {0} bytes")]
pub struct Oversized(pub usize);

/// The reader of one stream, from its first byte on. What is not whole when the stream ends is no event: drop it.
#[derive(Debug)]
pub struct Decoder {
    most: usize,
    line: Vec<u8>,
    /// The last byte was a CR, so that an LF now belongs to it.
    after_cr: bool,
    past_bom: bool,
    data: String,
    name: String,
    id: String,
    last_id: Option<String>,
    passes_over: bool,
    /// What it passes over at present.
    over: Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Nothing,
    /// The rest of a block, of which an id still counts.
    Block,
    /// The rest of a line that is too long to have one, and then of its block.
    Line,
}

impl Decoder {
    /// Of a stream that was asked for with `last_id`, empty for none. No event, and no comment, may have more bytes than
    /// `most`. Until the stream has said another id, its events have that one, as in browsers.
    pub fn new(last_id: &str, most: usize) -> Self {
        Self {
            most,
            line: Vec::new(),
            after_cr: false,
            past_bom: false,
            data: String::new(),
            name: String::new(),
            id: last_id.to_owned(),
            last_id: None,
            passes_over: false,
            over: Over::Nothing,
        }
    }

    /// The same, which passes over what is larger, says so, and reads on.
    pub fn passing_over(last_id: &str, most: usize) -> Self {
        Self { passes_over: true, ..Self::new(last_id, most) }
    }

    /// What to resume from: the id that the last whole event, or a block with an id alone, has set. `None` before the
    /// first one.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Takes the next bytes, and hands over what they complete.
    ///
    /// # Errors
    /// What is pending is larger than may be. The stream cannot be read on.
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Item)) -> Result<(), Oversized> {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(at) = memchr::memchr2(b'\r', b'\n', rest) else { return self.push(rest) };
            self.push(&rest[..at])?;
            self.after_cr = rest[at] == b'\r';
            rest = &rest[at + 1..];
            self.end_line(&mut take)?;
        }
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Oversized> {
        match self.over {
            Over::Line => return Ok(()),
            Over::Block if self.line.len() + bytes.len() > ID_LINE => {
                self.line.clear();
                self.over = Over::Line;
                return Ok(());
            }
            Over::Block => {}
            Over::Nothing => self.check(bytes.len(), Over::Line)?,
        }
        if self.over != Over::Line {
            self.line.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Whether there is room for so many bytes more. Where there is not, and that is no end, this is passed over from now on.
    fn check(&mut self, more: usize, over: Over) -> Result<(), Oversized> {
        let pending = self.line.len() + self.data.len() + self.name.len() + self.id.len();
        if pending + more <= self.most {
            return Ok(());
        }
        if !self.passes_over {
            return Err(Oversized(self.most));
        }
        self.over = over;
        [&mut self.data, &mut self.name].into_iter().for_each(|part| *part = String::new());
        self.line = Vec::new();
        Ok(())
    }

    /// Neither CR nor LF is part of a longer UTF-8 sequence, so that a line is whole before it is decoded.
    fn end_line(&mut self, take: &mut impl FnMut(Item)) -> Result<(), Oversized> {
        if self.over == Over::Line {
            self.over = Over::Block;
            return Ok(());
        }
        let line = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.past_bom, true);
        let text = line.strip_prefix("\u{feff}".as_bytes()).filter(|_| first).unwrap_or(&line);
        let text = String::from_utf8_lossy(text);
        match text.split_once(':') {
            _ if text.is_empty() => self.end_block(take),
            Some(("", comment)) => take(Item::Comment(comment.to_owned())),
            Some((name, _)) if self.over == Over::Block && name != "id" => {}
            Some((name, value)) => self.field(name, value.strip_prefix(' ').unwrap_or(value), take),
            None => self.field(&text, "", take),
        }
        // What is malformed becomes longer.
        self.check(0, Over::Block)
    }

    fn field(&mut self, name: &str, value: &str, take: &mut impl FnMut(Item)) {
        match name {
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "event" => value.clone_into(&mut self.name),
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                take(Item::Retry(Duration::from_millis(value.parse().unwrap_or(u64::MAX))));
            }
            _ => {}
        }
    }

    /// A blank line: the id counts even where there is no data and so no event.
    fn end_block(&mut self, take: &mut impl FnMut(Item)) {
        if self.last_id.as_ref() != Some(&self.id) {
            self.last_id = Some(self.id.clone());
        }
        if self.over == Over::Block {
            self.over = Over::Nothing;
            return take(Item::TooLarge(self.id.clone()));
        }
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        if data.pop().is_some() {
            let name = Some(name).filter(|name| !name.is_empty());
            take(Item::Event(Event { name, data, id: self.id.clone() }));
        }
    }
}

/// Bytes of a line that may have an id, of a block that is passed over.
const ID_LINE: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str, id: &str) -> Item {
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        Item::Event(Event { name, data: data.into(), id: id.into() })
    }

    fn message(data: &str) -> Item {
        event("", data, "")
    }

    fn feed(decoder: &mut Decoder, bytes: &[u8]) -> Vec<Item> {
        let mut items = Vec::new();
        decoder.feed(bytes, |item| items.push(item)).unwrap();
        items
    }

    /// What `stream` says: whole, and again cut at every place, which must make no difference.
    fn decode(stream: impl AsRef<[u8]>) -> Vec<Item> {
        let stream = stream.as_ref();
        let whole = feed(&mut Decoder::new("", 1 << 10), stream);
        for cut in 0..=stream.len() {
            let mut decoder = Decoder::new("", 1 << 10);
            let mut items = feed(&mut decoder, &stream[..cut]);
            items.extend(feed(&mut decoder, &stream[cut..]));
            assert_eq!(items, whole, "cut at {cut}");
        }
        whole
    }

    #[test]
    fn the_examples_of_the_standard() {
        let stocks = "data: YHOO\ndata: +2\ndata: 10\n\n";
        assert_eq!(decode(stocks), [message("YHOO\n+2\n10")]);
        let ids =
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        let expected = [
            Item::Comment(" test stream".into()),
            event("", "first event", "1"),
            message("second event"),
            message(" third event"),
        ];
        assert_eq!(decode(ids), expected);
        assert_eq!(decode("data\n\ndata\ndata\n\ndata:"), [message(""), message("\n")]);
        assert_eq!(decode("data:test\n\ndata: test\n\n"), [message("test"), message("test")]);
    }

    #[test]
    fn a_name_is_the_last_of_its_block_and_of_no_other() {
        let stream =
            "event: add\ndata: 1\n\ndata: 2\n\nevent: a\nevent: b\ndata: 3\n\nevent: a\nevent\ndata: 4\n\n";
        assert_eq!(decode(stream), [event("add", "1", ""), message("2"), event("b", "3", ""), message("4")]);
        assert_eq!(decode("event: gone\n\ndata: x\n\n"), [message("x")]);
    }

    #[test]
    fn lines_end_by_cr_lf_or_both() {
        let expected = [event("a", "x\ny", "1")];
        assert_eq!(decode("event:a\rdata:x\rdata:y\rid:1\r\r"), expected);
        assert_eq!(decode("event:a\ndata:x\ndata:y\nid:1\n\n"), expected);
        assert_eq!(decode("event:a\r\ndata:x\r\ndata:y\r\nid:1\r\n\r\n"), expected);
        assert_eq!(decode("event:a\r\ndata:x\rdata:y\nid:1\n\r"), expected);
        assert_eq!(decode("data:x\r\n\ndata:y\n\r\n"), [message("x"), message("y")]);
    }

    #[test]
    fn one_bom_goes_and_only_at_the_start() {
        assert_eq!(decode("\u{feff}data:x\n\n"), [message("x")]);
        assert_eq!(decode("\u{feff}\u{feff}data:x\n\n"), []);
        assert_eq!(decode("data:x\n\n\u{feff}data:y\n\n"), [message("x")]);
        assert_eq!(decode("data:\u{feff}x\n\n"), [message("\u{feff}x")]);
    }

    #[test]
    fn malformed_utf8_is_replaced() {
        assert_eq!(decode(b"data:a\xFFb\xE2\x82\n\n"), [message("a\u{fffd}b\u{fffd}")]);
        assert_eq!(decode("data:€\n\n"), [message("€")]);
    }

    #[test]
    fn an_id_counts_at_the_blank_line_even_without_data() {
        let mut decoder = Decoder::new("", 1 << 10);
        assert_eq!((feed(&mut decoder, b"id: 7\n"), decoder.last_id()), (vec![], None));
        assert_eq!((feed(&mut decoder, b"event: x\n\n"), decoder.last_id()), (vec![], Some("7")));
        assert_eq!(feed(&mut decoder, b"data\n\n"), [event("", "", "7")]);
        assert_eq!(decode("id:1\ndata:a\n\nid:2\0\ndata:b\n\n"), [event("", "a", "1"), event("", "b", "1")]);
    }

    #[test]
    fn a_resumed_stream_begins_with_the_id_that_it_resumes_from() {
        let mut decoder = Decoder::new("9", 1 << 10);
        assert_eq!(decoder.last_id(), None);
        assert_eq!(feed(&mut decoder, b"data:x\n\n"), [event("", "x", "9")]);
        assert_eq!(decoder.last_id(), Some("9"));
    }

    #[test]
    fn what_no_blank_line_ends_is_no_event() {
        let mut decoder = Decoder::new("", 1 << 10);
        assert_eq!((feed(&mut decoder, b"data:x\nid:1\n"), decoder.last_id()), (vec![], None));
    }

    #[test]
    fn retry_is_digits_alone() {
        let stream = "retry:3000\nretry: 0\nretry:-1\nretry:1.5\nretry:\nretry\nretry:9 \nretry:٣\n";
        assert_eq!(decode(stream), [Item::Retry(Duration::from_secs(3)), Item::Retry(Duration::ZERO)]);
        let most = Item::Retry(Duration::from_millis(u64::MAX));
        assert_eq!(decode("retry:99999999999999999999\n"), [most]);
    }

    #[test]
    fn other_fields_are_passed_over_and_names_are_literal() {
        assert_eq!(decode("Data:x\n data:x\nfoo:bar\nfoo\ndata :x\n\n"), []);
        assert_eq!(decode("data:a:b: c\n\ndata::\n\n"), [message("a:b: c"), message(":")]);
        assert_eq!(decode("data:a\0b\n\n"), [message("a\0b")]);
    }

    #[test]
    fn what_is_too_large_is_passed_over_and_its_id_counts() {
        let long = "x".repeat(100_000);
        let stream = format!(
            "data: a\nid: 1\n\nevent: b\ndata: {long}\nid: 2\ndata: {long}\n\nid: 3\ndata: {long}\n\ndata: c\n\n:{long}\n\n"
        );
        for cut in [1, 7, 1_000, 65_536] {
            let (mut decoder, mut items) = (Decoder::passing_over("", 64), Vec::new());
            for part in stream.as_bytes().chunks(cut) {
                decoder.feed(part, |item| items.push(item)).unwrap();
            }
            let too_large = |id: &str| Item::TooLarge(id.to_owned());
            let expected =
                [event("", "a", "1"), too_large("2"), too_large("3"), event("", "c", "3"), too_large("3")];
            assert_eq!(items, expected, "cut into {cut}");
            assert_eq!(decoder.last_id(), Some("3"));
        }
        let (mut decoder, mut items) = (Decoder::passing_over("", 16), Vec::new());
        let lines = "data: 12345\n".repeat(3);
        decoder.feed(format!("{lines}id: 9\n\n").as_bytes(), |item| items.push(item)).unwrap();
        assert_eq!(items, [Item::TooLarge("9".into())], "lines that are too much together");
    }

    #[test]
    fn what_is_pending_has_a_bound() {
        let decode = |stream: &[u8]| Decoder::new("", 16).feed(stream, |_| {});
        assert_eq!(decode(b"data: 123456789\n\ndata: 123456789\n\n"), Ok(()));
        assert_eq!(decode(b"data: 1234567890"), Ok(()));
        for stream in [
            &b"data: 12345678901"[..],
            b":2345678901234567",
            b"data: 123456789\ndata: 1",
            b"id: 1234567890\nid: 12345678",
            b"event: 123456789\ndata: 12",
            b"data: \xFF\xFF\xFF\xFF\xFF\xFF\n",
        ] {
            assert_eq!(decode(stream), Err(Oversized(16)), "{}", stream.escape_ascii());
        }
        let mut decoder = Decoder::new("", 16);
        let outcome = (0..10).try_for_each(|_| decoder.feed(b"da", |_| {}));
        assert_eq!(outcome, Err(Oversized(16)));
    }
}
