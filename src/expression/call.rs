//! The functions of expressions, which are CEL's own.

use std::borrow::Cow;

use super::fault::Fault;
use super::value::Value;
use super::work::Work;

/// A function, or method, of values; `matches` is an operator of its own, since its pattern is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Bool,
    Int,
    Double,
    Text,
}

impl Function {
    /// The function of this name, called on a value or not, with so many arguments in all; or why it cannot be called so.
    pub fn of(name: &str, on_value: bool, args: usize) -> Result<Self, String> {
        let (function, fits) = match name {
            "size" => (Self::Size, args == 1),
            "contains" => (Self::Contains, on_value && args == 2),
            "startsWith" => (Self::StartsWith, on_value && args == 2),
            "endsWith" => (Self::EndsWith, on_value && args == 2),
            "bool" => (Self::Bool, !on_value && args == 1),
            "int" => (Self::Int, !on_value && args == 1),
            "double" => (Self::Double, !on_value && args == 1),
            "string" => (Self::Text, !on_value && args == 1),
            "matches" => return Err("`matches` takes a text and a pattern".to_owned()),
            _ => return Err(format!("there is no function `{name}` here; {KNOWN}")),
        };
        if fits { Ok(function) } else { Err(format!("`{name}` is not called so; {KNOWN}")) }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Contains => "contains",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Double => "double",
            Self::Text => "string",
        }
    }

    /// Whether its value is `true` or `false`.
    pub fn tells(self) -> bool {
        matches!(self, Self::Contains | Self::StartsWith | Self::EndsWith | Self::Bool)
    }

    /// Whether it is called on its first argument.
    pub fn is_method(self) -> bool {
        matches!(self, Self::Contains | Self::StartsWith | Self::EndsWith)
    }

    /// Its value for these arguments, which are settled, and as many as it takes.
    pub fn call<'v>(self, args: Vec<Value<'v>>, work: &mut Work) -> Result<Value<'v>, Fault> {
        let mut args = args.into_iter();
        let one = args.next().ok_or(Fault::Type)?;
        if let (Self::Int | Self::Double, Value::Text(digits)) = (self, &one) {
            work.does(digits.len())?;
        }
        match self {
            Self::Size => Ok(Value::Int(one.size(work)?)),
            Self::Bool => to_bool(one),
            Self::Int => to_int(one),
            Self::Double => to_double(one),
            Self::Text => to_text(one),
            Self::Contains | Self::StartsWith | Self::EndsWith => {
                let (Value::Text(text), Some(Value::Text(part))) = (one, args.next()) else {
                    return Err(Fault::Type);
                };
                work.does(text.len() / 4)?;
                Ok(Value::Bool(match self {
                    Self::StartsWith => text.starts_with(&*part),
                    Self::EndsWith => text.ends_with(&*part),
                    _ => text.contains(&*part),
                }))
            }
        }
    }
}

const KNOWN: &str = "there are size(x), has(x.y), x.contains(y), x.startsWith(y), x.endsWith(y), x.matches('pattern'), \
     bool(x), int(x), double(x), string(x), and x.all(y, …), exists, exists_one, filter and map";

fn to_bool(value: Value<'_>) -> Result<Value<'_>, Fault> {
    match value {
        Value::Bool(_) => Ok(value),
        Value::Text(text) => match &*text {
            "1" | "t" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err(Fault::Conversion),
        },
        _ => Err(Fault::Type),
    }
}

fn to_int(value: Value<'_>) -> Result<Value<'_>, Fault> {
    match value {
        Value::Int(_) => Ok(value),
        Value::UInt(whole) => whole.try_into().map(Value::Int).map_err(|_| Fault::Overflow),
        Value::Double(double) if double > i64::MIN as f64 && double < i64::MAX as f64 => {
            Ok(Value::Int(double as i64))
        }
        Value::Double(_) => Err(Fault::Overflow),
        Value::Text(text) => text.parse().map(Value::Int).map_err(|_| Fault::Conversion),
        _ => Err(Fault::Type),
    }
}

fn to_double(value: Value<'_>) -> Result<Value<'_>, Fault> {
    match value {
        Value::Text(text) => {
            // `NaN` compares with nothing, and no payload in JSON has what is infinite.
            let number = text.parse().ok().filter(|number: &f64| number.is_finite());
            number.map(Value::Double).ok_or(Fault::Conversion)
        }
        number => number.double().map(Value::Double),
    }
}

fn to_text(value: Value<'_>) -> Result<Value<'_>, Fault> {
    let text = match value {
        Value::Text(_) => return Ok(value),
        Value::Bool(truth) => truth.to_string(),
        Value::Int(whole) => whole.to_string(),
        Value::UInt(whole) => whole.to_string(),
        Value::Double(double) => double.to_string(),
        _ => return Err(Fault::Type),
    };
    Ok(Value::Text(Cow::Owned(text)))
}
