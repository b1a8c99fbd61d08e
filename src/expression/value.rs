//! The values that expressions speak of. Those of a payload stay what they are in its text until an operator needs them.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use super::fact::Fact;
use super::fault::Fault;
use super::json::{Json, Kind};
use super::work::Work;

/// A value, borrowed from a payload or made by an expression.
#[derive(Debug, Clone)]
pub enum Value<'v> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Double(f64),
    /// A text.
    Text(Cow<'v, str>),
    /// Any value of a payload.
    Json(Json<'v>),
    /// A list that an expression makes.
    List(Rc<Vec<Value<'v>>>),
    /// A mapping that an expression makes, or what a record brings; in order, each name once.
    Map(Rc<Vec<(Cow<'v, str>, Value<'v>)>>),
    /// A list or a mapping that is known already.
    Kept(&'v Fact),
}

impl<'v> Value<'v> {
    /// The same, where a payload has it as neither list nor mapping.
    pub(super) fn settled(self) -> Self {
        match self {
            Self::Json(json) => match json.kind() {
                Kind::Null => Self::Null,
                Kind::Bool => Self::Bool(json.raw() == "true"),
                Kind::Number => number(json.raw()),
                Kind::Text => Self::Text(json.text().unwrap_or_default()),
                Kind::List | Kind::Map => self,
            },
            other => other,
        }
    }

    /// Whether it is true, of what is true or false.
    pub(super) fn truth(self) -> Result<bool, Fault> {
        match self.settled() {
            Self::Bool(truth) => Ok(truth),
            _ => Err(Fault::Type),
        }
    }

    /// The member of this name.
    pub(super) fn member(&self, name: &str, work: &mut Work) -> Result<Option<Self>, Fault> {
        match self {
            Self::Json(json) if json.kind() == Kind::Map => {
                work.does(json.size() / 16)?;
                Ok(json.member(name).map(Self::Json))
            }
            Self::Map(members) => {
                work.does(members.len())?;
                Ok(members.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone()))
            }
            &Self::Kept(fact @ Fact::Map(members)) => {
                work.does(members.len())?;
                Ok(fact.member(name).map(Fact::value))
            }
            _ => Err(Fault::Type),
        }
    }

    /// What it holds at a place, or under a name.
    pub(super) fn at(&self, index: Self, work: &mut Work) -> Result<Self, Fault> {
        let place = match (index.settled(), self.is_list()) {
            (Self::Text(name), false) => return self.member(&name, work)?.ok_or(Fault::Absent),
            (Self::Int(place), true) => place,
            (Self::Double(place), true) if place.fract() == 0.0 && place.abs() < MOST_EXACT => place as i64,
            _ => return Err(Fault::Type),
        };
        let place = usize::try_from(place).map_err(|_| Fault::Absent)?;
        work.does(place)?;
        let item = match self {
            Self::Json(list) => list.items().nth(place).map(Self::Json),
            Self::List(list) => list.get(place).cloned(),
            &Self::Kept(Fact::List(list)) => list.get(place).map(Fact::value),
            _ => None,
        };
        item.ok_or(Fault::Absent)
    }

    pub(super) fn is_list(&self) -> bool {
        match self {
            Self::List(_) | Self::Kept(Fact::List(_)) => true,
            Self::Json(json) => json.kind() == Kind::List,
            _ => false,
        }
    }

    /// What macros go over: the values of a list, the names of a mapping.
    pub(super) fn items(&self, work: &mut Work) -> Result<Rc<Vec<Self>>, Fault> {
        let items: Rc<Vec<Self>> = match self {
            Self::List(list) => Rc::clone(list),
            Self::Json(json) if json.kind() == Kind::List => {
                work.does(json.size())?;
                Rc::new(json.items().map(Self::Json).collect())
            }
            Self::Json(json) if json.kind() == Kind::Map => {
                work.does(json.size())?;
                Rc::new(json.members().map(|(name, _)| Self::Json(name)).collect())
            }
            Self::Map(map) => Rc::new(map.iter().map(|(name, _)| Self::Text(name.clone())).collect()),
            &Self::Kept(Fact::List(list)) => Rc::new(list.iter().map(Fact::value).collect()),
            &Self::Kept(Fact::Map(map)) => {
                Rc::new(map.iter().map(|(name, _)| Self::Text(Cow::Borrowed(name))).collect())
            }
            _ => return Err(Fault::Type),
        };
        work.does(items.len())?;
        Ok(items)
    }

    /// How many characters, values or names.
    pub(super) fn size(self, work: &mut Work) -> Result<i64, Fault> {
        let size = match self.settled() {
            Self::Text(text) => {
                work.does(text.len())?;
                text.chars().count()
            }
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Kept(Fact::List(list)) => list.len(),
            Self::Kept(Fact::Map(map)) => map.len(),
            Self::Json(json) => {
                work.does(json.size())?;
                if json.kind() == Kind::List { json.items().count() } else { json.members().count() }
            }
            _ => return Err(Fault::Type),
        };
        Ok(size as i64)
    }

    /// Charges for what settling a copy of it makes.
    fn costs(&self, work: &mut Work) -> Result<(), Fault> {
        match self {
            Self::Json(json) if json.kind() == Kind::Text => work.does(json.size() / 4),
            Self::Text(Cow::Owned(text)) => work.does(text.len() / 4),
            _ => Ok(()),
        }
    }

    /// Whether two values are the same; of different types they are not, unless both are numbers.
    pub(super) fn equals(&self, other: &Self, work: &mut Work) -> Result<bool, Fault> {
        work.does(1)?;
        self.costs(work)?;
        other.costs(work)?;
        match (self.clone().settled(), other.clone().settled()) {
            (Self::Null, Self::Null) => Ok(true),
            (Self::Bool(one), Self::Bool(other)) => Ok(one == other),
            (Self::Text(one), Self::Text(other)) => {
                work.does(one.len().min(other.len()) / 16)?;
                Ok(one == other)
            }
            (one, other) if one.is_list() && other.is_list() => {
                let (some, others) = (one.items(work)?, other.items(work)?);
                if some.len() != others.len() {
                    return Ok(false);
                }
                for (one, other) in some.iter().zip(others.iter()) {
                    if !one.equals(other, work)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (
                one @ (Self::Json(_) | Self::Map(_) | Self::Kept(_)),
                other @ (Self::Json(_) | Self::Map(_) | Self::Kept(_)),
            ) if !one.is_list() && !other.is_list() => {
                Ok(one.is_within(&other, work)? && other.is_within(&one, work)?)
            }
            (one, other) => Ok(numbers(&one, &other) == Some(Some(Ordering::Equal))),
        }
    }

    /// Whether another mapping has the same under each of its names, of which the last counts where one comes again.
    fn is_within(&self, other: &Self, work: &mut Work) -> Result<bool, Fault> {
        for name in self.items(work)?.iter() {
            name.costs(work)?;
            let Self::Text(name) = name.clone().settled() else { return Err(Fault::Type) };
            let members = self.member(&name, work)?.zip(other.member(&name, work)?);
            let Some((one, other)) = members else { return Ok(false) };
            if !one.equals(&other, work)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Which of two comes first.
    pub(super) fn compared(self, other: Self, work: &mut Work) -> Result<Ordering, Fault> {
        match (self.settled(), other.settled()) {
            (Self::Bool(one), Self::Bool(other)) => Ok(one.cmp(&other)),
            (Self::Text(one), Self::Text(other)) => {
                work.does(one.len().min(other.len()) / 16)?;
                Ok(one.cmp(&other))
            }
            (one, other) => numbers(&one, &other).flatten().ok_or(Fault::Type),
        }
    }

    /// Whether it holds a value, or has a member of this name.
    pub(super) fn holds(&self, value: Self, work: &mut Work) -> Result<bool, Fault> {
        // What filters ask for each client: no list is made of what is one.
        if let Self::Kept(Fact::List(list)) = self {
            work.does(list.len())?;
            for item in list {
                if item.value().equals(&value, work)? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        if self.is_list() {
            for item in self.items(work)?.iter() {
                if item.equals(&value, work)? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        match value.settled() {
            Self::Text(name) => Ok(self.member(&name, work)?.is_some()),
            // No name is a number.
            Self::Bool(_) | Self::Int(_) | Self::Double(_) => self.member("", work).map(|_| false),
            _ => Err(Fault::Type),
        }
    }
}

/// How two numbers compare; nothing of what is none, and `Some(None)` where one is not comparable.
fn numbers(one: &Value<'_>, other: &Value<'_>) -> Option<Option<Ordering>> {
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => Some(Some(one.cmp(other))),
        (Value::Int(one), Value::Double(other)) => Some((*one as f64).partial_cmp(other)),
        (Value::Double(one), Value::Int(other)) => Some(one.partial_cmp(&(*other as f64))),
        (Value::Double(one), Value::Double(other)) => Some(one.partial_cmp(other)),
        _ => None,
    }
}

/// What digits say: a whole number if it is written as one, and not too large.
fn number<'v>(raw: &str) -> Value<'v> {
    match raw.parse() {
        Ok(whole) => Value::Int(whole),
        Err(_) => raw.parse().map_or(Value::Null, Value::Double),
    }
}

/// Up to here every whole number is one of 64 bits.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;
