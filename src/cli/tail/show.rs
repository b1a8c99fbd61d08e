//! How events look: for people with time, name and id, as bare data, or as JSON. Pure.

use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::json;

use crate::cli::text::{plain, plain_json};
use crate::sse::Event;

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Time, name, id and data.
    Lines,
    /// The data alone.
    Data,
    /// A JSON object a line.
    Json,
}

/// How they look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub form: Form,
    pub colours: bool,
    /// Whether a terminal reads along, which data must not command.
    pub terminal: bool,
}

impl Look {
    /// Appends an event that has come at `time`.
    pub fn event(self, out: &mut String, time: SystemTime, event: &Event) {
        let name = event.name.as_deref().unwrap_or("message");
        let time = humantime::format_rfc3339_millis(time).to_string();
        match self.form {
            Form::Data if self.terminal => out.push_str(&plain(&event.data)),
            Form::Data => out.push_str(&event.data),
            Form::Json => {
                let object = json!({ "time": time, "event": name, "id": event.id, "data": event.data });
                out.push_str(&plain_json(&object.to_string()));
            }
            Form::Lines => self.line(out, &time, name, event),
        }
        out.push('\n');
    }

    fn line(self, out: &mut String, time: &str, name: &str, event: &Event) {
        let (dim, accent, end) = if self.colours { (DIM, CYAN, RESET) } else { ("", "", "") };
        let clock = time.split_once('T').map_or(time, |(_, clock)| clock);
        let _ = write!(out, "{dim}{clock}{end} {accent}{}{end}", plain(name));
        if !event.id.is_empty() {
            let _ = write!(out, " {dim}{}{end}", plain(&event.id));
        }
        // What follows the first line stands further in, so that it is not taken for the next event.
        let _ = write!(out, " {}", plain(&event.data).replace('\n', "\n    "));
    }
}

const DIM: &str = "\x1b[2m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn shown(look: Look, name: Option<&str>, id: &str, data: &str) -> String {
        let event = Event { name: name.map(str::to_owned), id: id.into(), data: data.into() };
        let mut out = String::new();
        look.event(&mut out, UNIX_EPOCH + Duration::from_millis(45_296_789), &event);
        out
    }

    #[test]
    fn lines() {
        let look = Look { form: Form::Lines, colours: false, terminal: true };
        assert_eq!(shown(look, None, "7-1", "hello"), "12:34:56.789Z message 7-1 hello\n");
        assert_eq!(shown(look, Some("price"), "", "a\nb"), "12:34:56.789Z price a\n    b\n");
        let coloured = Look { colours: true, ..look };
        let text = "\x1b[2m12:34:56.789Z\x1b[0m \x1b[36mprice\x1b[0m \x1b[2m1\x1b[0m a\n";
        assert_eq!(shown(coloured, Some("price"), "1", "a"), text);
    }

    #[test]
    fn nothing_commands_a_terminal() {
        let bad = "\x1b]0;x\x07\u{9b}2J\r";
        let escaped = "\\u{1b}]0;x\\u{7}\\u{9b}2J\\u{d}";
        for colours in [true, false] {
            let look = Look { form: Form::Lines, colours, terminal: true };
            assert!(shown(look, Some(bad), bad, bad).matches(escaped).count() == 3);
            let look = Look { form: Form::Data, ..look };
            assert_eq!(shown(look, None, "", bad), format!("{escaped}\n"));
            let json = shown(Look { form: Form::Json, ..look }, None, "", bad);
            assert!(!json.trim_end().contains(char::is_control), "{json}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["data"], bad);
        }
    }

    #[test]
    fn data_in_a_pipe_is_as_it_came() {
        let look = Look { form: Form::Data, colours: false, terminal: false };
        assert_eq!(shown(look, Some("x"), "1", "\x1b[0m\nb"), "\x1b[0m\nb\n");
    }

    #[test]
    fn json() {
        let look = Look { form: Form::Json, colours: true, terminal: false };
        let expected = r#"{"time":"1970-01-01T12:34:56.789Z","event":"message","id":"1","data":"a\nb"}"#;
        assert_eq!(shown(look, None, "1", "a\nb"), format!("{expected}\n"));
    }
}
