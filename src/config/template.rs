//! Templates such as `room:{room}` or `{header.type}`: text with fields that a path parameter or a
//! record fills. Parsed once, here; filled by `shape` and `http`.

use std::fmt;
use std::sync::Arc;

/// Text with fields. `{{` and `}}` stand for a brace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    parts: Vec<Part>,
}

/// One stretch of a template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    /// Text that stands for itself.
    Literal(Arc<str>),
    /// What a field's value replaces.
    Field(Field),
}

/// What a template can name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Field {
    /// `{channel}`: the channel that a Redis or push message came on.
    Channel,
    /// `{topic}`: the record's topic, of Kafka or MQTT.
    Topic,
    /// `{stream}`: the entry's Redis stream.
    Stream,
    /// `{key}`: the record's Kafka key.
    Key,
    /// `{header.NAME}`: the last header of that name, of Kafka or NATS; of MQTT the user property.
    Header(Arc<str>),
    /// `{field.NAME}`: the last field of that name in a Redis stream's entry.
    Entry(Arc<str>),
    /// `{event.PATH}`: what names, and places in lists, lead to in a payload in JSON, such as `{event.items.0.id}`.
    Event(Arc<str>),
    /// `{routing_key}`: the routing key of a message of RabbitMQ.
    RoutingKey,
    /// Any other name: a parameter of the route's path.
    Param(Arc<str>),
    /// `{subject}`: the subject that a NATS message came on.
    Subject,
}

/// Why a text is no template; `at` is a byte offset into it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct TemplateError {
    /// Where in the text.
    pub at: usize,
    /// What is wrong, and the way out.
    pub what: String,
}

impl Template {
    /// Parses `text`.
    ///
    /// # Errors
    /// A brace without its partner, an empty field, or a field with characters other than
    /// letters, digits, `_`, `-` and `.`.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let here = text.len() - rest.len() + at;
            let brace = &rest[at..];
            rest = if brace.starts_with("{{") || brace.starts_with("}}") {
                literal.push_str(&brace[..1]);
                &brace[2..]
            } else if let Some(inner) = brace.strip_prefix('{') {
                let close = inner.find('}').ok_or_else(|| TemplateError {
                    at: here,
                    what: "`{` has no `}`; write `{{` for a brace".to_owned(),
                })?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal).into()));
                }
                parts.push(Part::Field(Field::parse(&inner[..close], here)?));
                &inner[close + 1..]
            } else {
                return Err(TemplateError {
                    at: here,
                    what: "`}` has no `{`; write `}}` for a brace".to_owned(),
                });
            };
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self { parts })
    }

    /// A field alone.
    pub(super) fn of(field: Field) -> Self {
        Self { parts: vec![Part::Field(field)] }
    }

    /// The stretches in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The fields in order, repeats included.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(field) => Some(field),
            Part::Literal(_) => None,
        })
    }

    /// Whether it names a parameter of the path.
    pub fn has_params(&self) -> bool {
        self.fields().any(|field| matches!(field, Field::Param(_)))
    }

    /// The text when every field is replaced by what `value` gives for it; a field without a value
    /// becomes nothing.
    pub fn fill<'v>(&self, mut value: impl FnMut(&Field) -> Option<std::borrow::Cow<'v, str>>) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Field(field) => text.push_str(value(field).as_deref().unwrap_or_default()),
            }
        }
        text
    }

    /// The same template with some fields turned into text: those for which `value` gives one.
    pub fn bind(&self, mut value: impl FnMut(&Field) -> Option<String>) -> Self {
        let parts = self.parts.iter().map(|part| match part {
            Part::Field(field) => {
                value(field).map_or_else(|| part.clone(), |text| Part::Literal(text.into()))
            }
            Part::Literal(_) => part.clone(),
        });
        Self { parts: parts.collect() }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Literal(literal) => f.write_str(&literal.replace('{', "{{").replace('}', "}}"))?,
                Part::Field(field) => field.fmt(f)?,
            }
        }
        Ok(())
    }
}

/// As it stands in a template, braces included.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel => f.write_str("{channel}"),
            Self::Topic => f.write_str("{topic}"),
            Self::Stream => f.write_str("{stream}"),
            Self::Key => f.write_str("{key}"),
            Self::Header(name) => write!(f, "{{header.{name}}}"),
            Self::Entry(name) => write!(f, "{{field.{name}}}"),
            Self::Event(path) => write!(f, "{{event.{path}}}"),
            Self::RoutingKey => f.write_str("{routing_key}"),
            Self::Param(name) => write!(f, "{{{name}}}"),
            Self::Subject => f.write_str("{subject}"),
        }
    }
}

impl Field {
    fn parse(name: &str, at: usize) -> Result<Self, TemplateError> {
        let plain = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        match name {
            "channel" => Ok(Self::Channel),
            "topic" => Ok(Self::Topic),
            "stream" => Ok(Self::Stream),
            "key" => Ok(Self::Key),
            "routing_key" => Ok(Self::RoutingKey),
            "subject" => Ok(Self::Subject),
            _ if !plain(name) => Err(TemplateError {
                at,
                what: format!(
                    "`{{{name}}}` is no field; fields are {{channel}}, {{topic}}, {{key}}, {{header.NAME}}, {{stream}}, {{field.NAME}}, {{event.NAME}}, {{routing_key}}, {{subject}} and path parameters"
                ),
            }),
            _ => Ok(match name.split_once('.') {
                Some(("header", header)) if !header.is_empty() => Self::Header(header.into()),
                Some(("field", field)) if !field.is_empty() => Self::Entry(field.into()),
                Some(("event", path)) if !path.is_empty() => Self::Event(path.into()),
                _ => Self::Param(name.into()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_braces() {
        let template = Template::parse("a{{b}}:{room}/{header.type}{key}").unwrap();
        let filled = template.fill(|field| match field {
            Field::Param(name) => Some(name.to_uppercase().into()),
            Field::Header(name) => Some(format!("<{name}>").into()),
            _ => None,
        });
        assert_eq!(filled, "a{b}:ROOM/<type>");
        assert_eq!(template.to_string(), "a{{b}}:{room}/{header.type}{key}");
        assert!(template.has_params());
        let text = "{stream}{field.a.b}{field.}{fields.a}";
        let entry = Template::parse(text).unwrap();
        let [stream, field, rest @ ..] = &entry.fields().collect::<Vec<_>>()[..] else { panic!() };
        assert_eq!((*stream, *field), (&Field::Stream, &Field::Entry("a.b".into())));
        assert!(rest.iter().all(|field| matches!(field, Field::Param(_))));
        assert_eq!(entry.to_string(), text);
    }

    #[test]
    fn errors_name_their_place() {
        assert_eq!(Template::parse("ab{c").unwrap_err().at, 2);
        assert_eq!(Template::parse("ab}c").unwrap_err().at, 2);
        assert_eq!(Template::parse("x{a b}").unwrap_err().at, 1);
        assert_eq!(Template::parse("{}").unwrap_err().at, 0);
    }
}
