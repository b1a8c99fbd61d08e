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
    /// A whole number that is too large for that; or what is made of such.
    UInt(u64),
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
    pub(super) fn settled(self, work: &mut Work) -> Result<Self, Fault> {
        Ok(match self {
            Self::Json(json) => match json.kind() {
                Kind::Null => Self::Null,
                Kind::Bool => Self::Bool(json.raw() == "true"),
                Kind::Number => {
                    work.does(json.size() / 4)?;
                    number(json.raw())
                }
                Kind::Text => {
                    let text = json.text().unwrap_or_default();
                    if let Cow::Owned(_) = text {
                        work.does(json.size())?;
                    }
                    Self::Text(text)
                }
                Kind::List | Kind::Map => self,
            },
            other => other,
        })
    }

    /// A copy of it. Texts that are not of a payload are copied as a whole.
    pub(super) fn copied(&self, work: &mut Work) -> Result<Self, Fault> {
        if let Self::Text(Cow::Owned(text)) = self {
            work.does(text.len())?;
        }
        Ok(self.clone())
    }

    /// Whether it is true, of what is true or false.
    pub(super) fn truth(self) -> Result<bool, Fault> {
        match self {
            Self::Bool(truth) => Ok(truth),
            Self::Json(json) if json.kind() == Kind::Bool => Ok(json.raw() == "true"),
            _ => Err(Fault::Type),
        }
    }

    /// The member of this name.
    pub(super) fn member(&self, name: &str, work: &mut Work) -> Result<Option<Self>, Fault> {
        match self {
            Self::Json(json) if json.kind() == Kind::Map => {
                let (member, took) = json.find(name);
                work.does(took)?;
                Ok(member.map(Self::Json))
            }
            Self::Map(members) => {
                work.does(members.len() * (1 + name.len() / 16))?;
                let member = members.iter().find(|(own, _)| own == name);
                member.map(|(_, value)| value.copied(work)).transpose()
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
        let place = match (index.settled(work)?, self.is_list()) {
            (Self::Text(name), false) => return self.member(&name, work)?.ok_or(Fault::Absent),
            (Self::Double(place), true) if place.fract() == 0.0 && place.abs() < MOST_EXACT => place as i128,
            (place, true) => place.whole().ok_or(Fault::Type)?,
            _ => return Err(Fault::Type),
        };
        let place = usize::try_from(place).map_err(|_| Fault::Absent)?;
        match self {
            Self::Json(list) => {
                work.does(place.min(list.size()))?;
                list.items().nth(place).map(Self::Json).ok_or(Fault::Absent)
            }
            Self::List(list) => list.get(place).ok_or(Fault::Absent)?.copied(work),
            &Self::Kept(Fact::List(list)) => list.get(place).map(Fact::value).ok_or(Fault::Absent),
            _ => Err(Fault::Type),
        }
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
        let items: Vec<Self> = match self {
            Self::List(list) => {
                work.does(list.len())?;
                return Ok(Rc::clone(list));
            }
            Self::Json(json) if json.kind() == Kind::List => json.items().map(Self::Json).collect(),
            Self::Json(json) if json.kind() == Kind::Map => {
                json.members().map(|(name, _)| Self::Json(name)).collect()
            }
            Self::Map(map) => {
                work.does(map.iter().map(|(name, _)| name.len()).sum())?;
                map.iter().map(|(name, _)| Self::Text(name.clone())).collect()
            }
            &Self::Kept(Fact::List(list)) => list.iter().map(Fact::value).collect(),
            &Self::Kept(Fact::Map(map)) => {
                map.iter().map(|(name, _)| Self::Text(Cow::Borrowed(name))).collect()
            }
            _ => return Err(Fault::Type),
        };
        work.makes(items.len())?;
        Ok(Rc::new(items))
    }

    /// How many characters, values or names.
    pub(super) fn size(self, work: &mut Work) -> Result<i64, Fault> {
        let size = match self.settled(work)? {
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

    /// Whether two values are the same; of different types they are not, unless both are numbers.
    pub(super) fn equals(&self, other: &Self, work: &mut Work) -> Result<bool, Fault> {
        work.does(1)?;
        if let (Self::Text(one), Self::Text(other)) = (self, other) {
            // What filters ask for each client: nothing of it is copied.
            return same(one, other, work);
        }
        match (self.copied(work)?.settled(work)?, other.copied(work)?.settled(work)?) {
            (Self::Null, Self::Null) => Ok(true),
            (Self::Bool(one), Self::Bool(other)) => Ok(one == other),
            (Self::Text(one), Self::Text(other)) => same(&one, &other, work),
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
            (one, other) => Ok(numbers(&one, &other) == Some(Ordering::Equal)),
        }
    }

    /// Whether another mapping has the same under each of its names, of which the last counts where one comes again.
    fn is_within(&self, other: &Self, work: &mut Work) -> Result<bool, Fault> {
        for name in self.items(work)?.iter() {
            let Self::Text(name) = name.copied(work)?.settled(work)? else { return Err(Fault::Type) };
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
        match (self.settled(work)?, other.settled(work)?) {
            (Self::Bool(one), Self::Bool(other)) => Ok(one.cmp(&other)),
            (Self::Text(one), Self::Text(other)) => {
                work.does(one.len().min(other.len()) / 16)?;
                Ok(one.cmp(&other))
            }
            (one, other) => numbers(&one, &other).ok_or(Fault::Type),
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
        match value.settled(work)? {
            Self::Text(name) => Ok(self.member(&name, work)?.is_some()),
            // No name is a number.
            Self::Bool(_) | Self::Int(_) | Self::UInt(_) | Self::Double(_) => {
                self.member("", work).map(|_| false)
            }
            _ => Err(Fault::Type),
        }
    }

    /// It as a whole number, if it is one.
    pub(super) fn whole(&self) -> Option<i128> {
        match self {
            Self::Int(whole) => Some((*whole).into()),
            Self::UInt(whole) => Some((*whole).into()),
            _ => None,
        }
    }

    /// It as the double that is next to it, if it is a number.
    pub(super) fn double(&self) -> Result<f64, Fault> {
        match self {
            Self::Int(whole) => Ok(*whole as f64),
            Self::UInt(whole) => Ok(*whole as f64),
            Self::Double(double) => Ok(*double),
            _ => Err(Fault::Type),
        }
    }
}

fn same(one: &str, other: &str, work: &mut Work) -> Result<bool, Fault> {
    work.does(one.len().min(other.len()) / 16)?;
    Ok(one == other)
}

/// How two numbers compare, by all of their digits; `None` where one is none, or not comparable.
fn numbers(one: &Value<'_>, other: &Value<'_>) -> Option<Ordering> {
    match (one, other) {
        (Value::Double(one), Value::Double(other)) => one.partial_cmp(other),
        (Value::Double(double), whole) => Some(against(whole.whole()?, *double)?.reverse()),
        (whole, Value::Double(double)) => against(whole.whole()?, *double),
        _ => Some(one.whole()?.cmp(&other.whole()?)),
    }
}

/// How a whole number compares to any: as a double it would lose digits.
fn against(whole: i128, double: f64) -> Option<Ordering> {
    // What is beyond the range counts as its end, and what is behind the point decides where the rest is the same.
    let behind = 0.0_f64.partial_cmp(&double.fract()).unwrap_or(Ordering::Equal);
    (!double.is_nan()).then(|| whole.cmp(&(double as i128)).then(behind))
}

/// What digits say: a whole number if it is written as one, and not too large.
fn number<'v>(raw: &str) -> Value<'v> {
    let whole = raw.parse().map(Value::Int).or_else(|_| raw.parse().map(Value::UInt));
    whole.unwrap_or_else(|_| raw.parse().map_or(Value::Null, Value::Double))
}

/// Up to here every whole number is one of 64 bits.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;
