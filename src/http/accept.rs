//! In which form a client is given what a route has: content negotiation by `accept` (RFC 9110 section 12.5.1).

use http::header::{ACCEPT, HeaderMap};

/// A form in which a route's events can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As Server-Sent Events.
    Events,
    /// What there is at the moment, as one JSON document.
    Page,
    /// As lines of JSON, under the name that the client has for them.
    Lines(&'static str),
}

impl Form {
    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Page => "application/json",
            Self::Lines(name) => name,
        }
    }
}

/// The form that the client likes best: of those that it likes as much the one that it names more closely, and of these
/// the first of [`FORMS`]. `None` if it wants none of them.
pub fn agree(request: &HeaderMap) -> Option<Form> {
    agree_on(&FORMS, request)
}

/// The same where it can only be a stream.
pub fn agree_on_stream(request: &HeaderMap) -> Option<Form> {
    let forms: Vec<_> = FORMS.into_iter().filter(|form| *form != Form::Page).collect();
    agree_on(&forms, request)
}

fn agree_on(forms: &[Form], request: &HeaderMap) -> Option<Form> {
    let values = request.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<_> = values.flat_map(|value| value.split(',')).filter_map(Range::parse).collect();
    if ranges.is_empty() {
        return Some(Form::Events);
    }
    // Of equals `max_by_key` takes the last.
    let weighed = forms.iter().rev().map(|form| (weigh(form.media_type(), &ranges), *form));
    weighed.filter(|((weight, _), _)| *weight > 0).max_by_key(|(weight, _)| *weight).map(|(_, form)| form)
}

/// How much a media type is wanted, in thousandths, and how closely it is named; the range that names it most closely
/// decides.
fn weigh(media_type: &str, ranges: &[Range]) -> (u16, usize) {
    let fitting = ranges.iter().filter_map(|range| Some((range.fits(media_type)?, range.weight)));
    fitting.max_by_key(|(closeness, _)| *closeness).map_or((0, 0), |(closeness, weight)| (weight, closeness))
}

/// A media range and its weight.
struct Range {
    name: String,
    weight: u16,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(|part| part.trim().to_ascii_lowercase());
        let name = parts.next().filter(|name| !name.is_empty())?;
        let weight = parts.find_map(|parameter| parameter.strip_prefix("q=")?.trim().parse().ok());
        let weight = weight.filter(|q| (0.0..=1.0).contains(q)).unwrap_or(1.0_f32);
        Some(Self { name, weight: (weight * 1_000.0).round() as u16 })
    }

    /// How closely it names this media type, if it does at all.
    fn fits(&self, media_type: &str) -> Option<usize> {
        match self.name.strip_suffix("/*") {
            Some("*") => Some(0),
            Some(kind) => (media_type.split('/').next() == Some(kind)).then_some(1),
            None => (self.name == media_type).then_some(2),
        }
    }
}

/// All there are, the first one for clients to which it is the same. Lines of JSON have no name that is registered.
const FORMS: [Form; 5] = [
    Form::Events,
    Form::Page,
    Form::Lines("application/x-ndjson"),
    Form::Lines("application/ndjson"),
    Form::Lines("application/jsonl"),
];

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn agreed(accept: &'static str) -> Option<&'static str> {
        let request = [(ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
        agree(&request).map(Form::media_type)
    }

    #[test]
    fn whoever_has_no_preference_is_given_events() {
        const EVENTS: Option<&str> = Some("text/event-stream");
        assert_eq!(agree(&HeaderMap::new()), Some(Form::Events));
        for accept in [
            "",
            " , ",
            "*/*",
            "text/event-stream",
            "text/event-stream;charset=utf-8",
            "text/html, Text/*;q=0.5",
            "application/json, text/event-stream",
            "application/json;q=0.9, */*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ] {
            assert_eq!(agreed(accept), EVENTS, "{accept}");
        }
    }

    #[test]
    fn what_is_wanted_more_or_named_more_closely_goes_first() {
        for (accept, expected) in [
            ("application/json", "application/json"),
            ("application/json, text/plain, */*", "application/json"),
            ("application/*", "application/json"),
            ("application/x-ndjson", "application/x-ndjson"),
            ("Application/JSONL", "application/jsonl"),
            ("application/ndjson, application/json;q=0.5", "application/ndjson"),
            ("text/event-stream;q=0.1, application/x-ndjson;q=0.2", "application/x-ndjson"),
            ("text/event-stream;q=0, */*", "application/json"),
            ("text/event-stream;q=0, application/json;q=0, */*;q=0.1", "application/x-ndjson"),
            ("application/json; q=0.001", "application/json"),
        ] {
            assert_eq!(agreed(accept), Some(expected), "{accept}");
        }
    }

    #[test]
    fn a_stream_is_what_is_liked_best_but_for_pages() {
        for (accept, expected) in [
            ("application/json, text/plain, */*", Some("text/event-stream")),
            ("application/json, application/jsonl;q=0.1", Some("application/jsonl")),
            ("application/json", None),
        ] {
            let request = [(ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(agree_on_stream(&request).map(Form::media_type), expected, "{accept}");
        }
        assert_eq!(agree_on_stream(&HeaderMap::new()), Some(Form::Events));
    }

    #[test]
    fn whoever_wants_something_else_is_given_nothing() {
        for accept in ["text/html", "*/*; q=0.0", "text/event-stream;q=0", "text/html, */*;q=0", "json"] {
            assert_eq!(agreed(accept), None, "{accept}");
        }
    }
}
