//! Facts: values that are known before a filter is asked for a client. Those of an event are kept with the event, those of a
//! client with its stream, so that nothing is read anew and nothing is copied when it is asked.

use std::borrow::Cow;

use super::fault::Fault;
use super::json::Kind;
use super::value::Value;
use super::work::Work;

/// A value with memory of its own.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// One that is too large for that.
    UInt(u64),
    /// Any other number.
    Double(f64),
    /// A text.
    Text(Box<str>),
    /// A list.
    List(Box<[Self]>),
    /// A mapping; where a name comes again, its last value counts.
    Map(Box<[(Box<str>, Self)]>),
}

/// What was found where a value was looked for.
pub type Known = Result<Fact, Fault>;

impl Fact {
    /// A text.
    pub fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// What a value says. It takes its bytes from `room`, and what there is to do for it from `work`.
    ///
    /// # Errors
    /// There is too little of either.
    pub(super) fn of(value: &Value<'_>, room: &mut usize, work: &mut Work) -> Known {
        take(room, size_of::<Self>())?;
        Ok(match value.copied(work)?.settled(work)? {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Bool(truth),
            Value::Int(whole) => Self::Int(whole),
            Value::UInt(whole) => Self::UInt(whole),
            Value::Double(double) => Self::Double(double),
            Value::Text(text) => Self::Text(boxed(&text, room)?),
            Value::List(items) => Self::list(items.iter().cloned(), room, work)?,
            Value::Map(members) => Self::map(members.iter().cloned(), room, work)?,
            Value::Json(json) if json.kind() == Kind::List => {
                Self::list(json.items().map(Value::Json), room, work)?
            }
            Value::Json(json) => {
                let members = json.members();
                let named =
                    members.map(|(name, value)| (name.text().unwrap_or_default(), Value::Json(value)));
                Self::map(named, room, work)?
            }
            Value::Kept(fact) => {
                take(room, fact.size())?;
                fact.clone()
            }
        })
    }

    fn list<'v>(items: impl Iterator<Item = Value<'v>>, room: &mut usize, work: &mut Work) -> Known {
        take(room, ALLOCATED)?;
        items.map(|item| Self::of(&item, room, work)).collect::<Result<_, _>>().map(Self::List)
    }

    fn map<'v>(
        members: impl Iterator<Item = (Cow<'v, str>, Value<'v>)>,
        room: &mut usize,
        work: &mut Work,
    ) -> Known {
        take(room, ALLOCATED)?;
        let member = |(name, value): (Cow<'v, str>, _)| {
            take(room, size_of::<Box<str>>())?;
            Ok((boxed(&name, room)?, Self::of(&value, room, work)?))
        };
        members.map(member).collect::<Result<_, _>>().map(Self::Map)
    }

    /// The same, to be looked at.
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Bool(*truth),
            Self::Int(whole) => Value::Int(*whole),
            Self::UInt(whole) => Value::UInt(*whole),
            Self::Double(double) => Value::Double(*double),
            Self::Text(text) => Value::Text(Cow::Borrowed(text)),
            Self::List(_) | Self::Map(_) => Value::Kept(self),
        }
    }

    /// The member of this name.
    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        let Self::Map(members) = self else { return None };
        members.iter().rfind(|(own, _)| **own == *name).map(|(_, value)| value)
    }

    /// Bytes that it takes, its own and the allocator's included.
    pub fn size(&self) -> usize {
        let within = match self {
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::UInt(_) | Self::Double(_) => 0,
            Self::Text(text) => ALLOCATED + text.len(),
            Self::List(items) => ALLOCATED + items.iter().map(Self::size).sum::<usize>(),
            Self::Map(members) => {
                let member = |(name, value): &(Box<str>, Self)| {
                    size_of::<Box<str>>() + ALLOCATED + name.len() + value.size()
                };
                ALLOCATED + members.iter().map(member).sum::<usize>()
            }
        };
        size_of::<Self>() + within
    }
}

impl From<&serde_json::Value> for Fact {
    fn from(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(truth) => Self::Bool(*truth),
            serde_json::Value::Number(number) => {
                let whole = number.as_i64().map(Self::Int).or_else(|| number.as_u64().map(Self::UInt));
                whole.or_else(|| number.as_f64().map(Self::Double)).unwrap_or(Self::Null)
            }
            serde_json::Value::String(text) => Self::text(text),
            serde_json::Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            serde_json::Value::Object(members) => {
                let member = |(name, value): (&String, _)| (name.as_str().into(), Self::from(value));
                Self::Map(members.iter().map(member).collect())
            }
        }
    }
}

fn boxed(text: &str, room: &mut usize) -> Result<Box<str>, Fault> {
    take(room, ALLOCATED + text.len())?;
    Ok(text.into())
}

fn take(room: &mut usize, bytes: usize) -> Result<(), Fault> {
    *room = room.checked_sub(bytes).ok_or(Fault::TooLarge)?;
    Ok(())
}

/// What the allocator takes for a piece of memory beside its bytes.
const ALLOCATED: usize = 16;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Document;
    use super::*;

    fn of(text: &str, mut room: usize) -> Known {
        let document = Document::parse(text).unwrap();
        Fact::of(&Value::Json(document.root()), &mut room, &mut Work::for_payload(text.len()))
    }

    #[test]
    fn a_fact_says_what_the_payload_does_and_takes_what_it_says_that_it_takes() {
        let text = r#"{"a":[1,2.5,null,true,"\u00e9"],"b":{"c":{}},"a":[],"n":12345678901234567890}"#;
        let fact = of(text, usize::MAX).unwrap();
        assert_eq!(of(text, fact.size()), Ok(fact.clone()));
        assert_eq!(of(text, fact.size() - 1), Err(Fault::TooLarge));
        assert_eq!(fact.member("a"), Some(&Fact::List(Box::default())), "the last of a name counts");
        assert_eq!(fact.member("n"), Some(&Fact::UInt(12_345_678_901_234_567_890)));
        let Some(Fact::Map(nested)) = fact.member("b") else { panic!("a mapping: {fact:?}") };
        assert_eq!(**nested, [("c".into(), Fact::Map(Box::default()))]);
    }

    #[test]
    fn claims_are_facts_as_payloads_are() {
        let claims = json!({ "n": 1, "d": 0.5, "far": u64::MAX, "l": [null, true, "x"], "m": { "k": "v" } });
        assert_eq!(Fact::from(&claims), of(&claims.to_string(), usize::MAX).unwrap());
    }
}
