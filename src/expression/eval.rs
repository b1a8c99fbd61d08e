//! Evaluating a compiled expression, or a part of one, on the variables of a record and what a client brings, or on what is
//! known of them already.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

use super::compile::{Fold, Node, Operator, What};
use super::fact::{Fact, Known};
use super::fault::Fault;
use super::value::Value;
use super::work::Work;

/// What an expression is evaluated on: as much of it as what is evaluated names.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Given<'v, 'e> {
    /// The parameters of the path.
    pub params: &'v [Arc<str>],
    /// Those of the record.
    pub variables: &'e [Value<'v>],
    /// What the client brings.
    pub client: &'v [Option<Fact>],
    /// What is known of the record,
    pub facts: &'v [Known],
    /// and of the client.
    pub terms: &'v [Known],
}

/// The value of `node`.
pub(super) fn evaluate<'v>(
    node: &'v Node,
    given: Given<'v, '_>,
    work: &mut Work,
) -> Result<Value<'v>, Fault> {
    Evaluation { given, locals: Vec::new(), work }.value(node)
}

struct Evaluation<'v, 'e> {
    given: Given<'v, 'e>,
    /// What macros go over at present, the innermost last.
    locals: Vec<Value<'v>>,
    work: &'e mut Work,
}

impl<'v> Evaluation<'v, '_> {
    fn value(&mut self, node: &'v Node) -> Result<Value<'v>, Fault> {
        self.work.steps()?;
        Ok(match node {
            Node::Null => Value::Null,
            Node::Bool(truth) => Value::Bool(*truth),
            Node::Int(whole) => Value::Int(*whole),
            Node::UInt(whole) => Value::UInt(*whole),
            Node::Double(double) => Value::Double(*double),
            Node::Text(text) => Value::Text(Cow::Borrowed(text)),
            Node::Fact(at) => known(self.given.facts, *at)?,
            Node::Term(at) => known(self.given.terms, *at)?,
            Node::Variable(at) => self.given.variables.get(*at).ok_or(Fault::Absent)?.copied(self.work)?,
            Node::Param(at) => Value::Text(Cow::Borrowed(self.given.params.get(*at).ok_or(Fault::Absent)?)),
            Node::Client(at) => self.brought(*at).map(Fact::value).ok_or(Fault::Absent)?,
            Node::Brings(at) => Value::Bool(self.brought(*at).is_some()),
            Node::Local(at) => self.locals.get(*at).ok_or(Fault::Absent)?.copied(self.work)?,
            Node::Select(of, name) => self.member(of, name)?.ok_or(Fault::Absent)?,
            Node::Has(of, name) => Value::Bool(self.member(of, name)?.is_some()),
            Node::Index(pair) => {
                let [of, index] = self.pair(pair)?;
                of.at(index, self.work)?
            }
            Node::Not(of) => Value::Bool(!self.value(of)?.truth()?),
            Node::Negate(of) => match self.settled(of)? {
                Value::Int(whole) => Value::Int(whole.checked_neg().ok_or(Fault::Overflow)?),
                Value::Double(double) => Value::Double(-double),
                _ => return Err(Fault::Type),
            },
            Node::And(pair) => self.both(pair, false)?,
            Node::Or(pair) => self.both(pair, true)?,
            Node::Choose(of) => {
                let [test, one, other] = &**of;
                return if self.value(test)?.truth()? { self.value(one) } else { self.value(other) };
            }
            Node::Operate(operator, pair) => {
                let [one, other] = self.pair(pair)?;
                operate(*operator, one, other, self.work)?
            }
            Node::Call(function, args) => {
                let args = args.iter().map(|arg| self.settled(arg)).collect::<Result<Vec<_>, _>>()?;
                function.call(args, self.work)?
            }
            Node::Matches(text, pattern) => match self.settled(text)? {
                Value::Text(text) => {
                    self.work.does(text.len().saturating_mul(4))?;
                    Value::Bool(pattern.is_match(&text))
                }
                _ => return Err(Fault::Type),
            },
            Node::List(items) => {
                self.work.makes(items.len())?;
                let items = items.iter().map(|item| self.value(item)).collect::<Result<Vec<_>, _>>()?;
                Value::List(Rc::new(items))
            }
            Node::Map(entries) => self.map(entries)?,
            Node::Fold(fold) => self.fold(fold)?,
        })
    }

    fn settled(&mut self, node: &'v Node) -> Result<Value<'v>, Fault> {
        self.value(node)?.settled(self.work)
    }

    /// A member of a value, which need not be copied for that where it has a name.
    fn member(&mut self, of: &'v Node, name: &str) -> Result<Option<Value<'v>>, Fault> {
        match of {
            Node::Variable(at) => self.given.variables.get(*at).ok_or(Fault::Absent)?.member(name, self.work),
            Node::Local(at) => self.locals.get(*at).ok_or(Fault::Absent)?.member(name, self.work),
            of => self.value(of)?.member(name, self.work),
        }
    }

    /// What the client brings here, if it does.
    fn brought(&self, at: usize) -> Option<&'v Fact> {
        self.given.client.get(at)?.as_ref()
    }

    fn pair(&mut self, pair: &'v [Node; 2]) -> Result<[Value<'v>; 2], Fault> {
        Ok([self.value(&pair[0])?, self.value(&pair[1])?])
    }

    /// `&&` and `||`: one side that decides does so, whatever fails on the other.
    fn both(&mut self, [one, other]: &'v [Node; 2], decides: bool) -> Result<Value<'v>, Fault> {
        let first = self.value(one).and_then(Value::truth);
        if first == Ok(decides) {
            return Ok(Value::Bool(decides));
        }
        let second = self.value(other)?.truth()?;
        if second == decides { Ok(Value::Bool(decides)) } else { first.map(|_| Value::Bool(!decides)) }
    }

    fn map(&mut self, entries: &'v [(Node, Node)]) -> Result<Value<'v>, Fault> {
        self.work.makes(2 * entries.len())?;
        let mut map: Vec<(Cow<'v, str>, Value<'v>)> = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            let Value::Text(name) = self.settled(name)? else { return Err(Fault::Type) };
            let value = self.value(value)?;
            self.work.does(map.len() * (1 + name.len() / 16))?;
            if map.iter().any(|(other, _)| *other == name) {
                return Err(Fault::Twice);
            }
            map.push((name, value));
        }
        Ok(Value::Map(Rc::new(map)))
    }

    fn fold(&mut self, fold: &'v Fold) -> Result<Value<'v>, Fault> {
        let items = self.value(&fold.over)?.items(self.work)?;
        let depth = self.locals.len();
        let folded = self.folded(&fold.what, &items, depth);
        self.locals.truncate(depth);
        folded
    }

    fn folded(&mut self, what: &'v What, items: &[Value<'v>], depth: usize) -> Result<Value<'v>, Fault> {
        match what {
            What::All(test) => self.one_decides(test, items, depth, false),
            What::Exists(test) => self.one_decides(test, items, depth, true),
            What::ExistsOne(test) => {
                let mut found = 0;
                for item in items {
                    found += usize::from(self.with(item, depth, test)?.truth()?);
                }
                Ok(Value::Bool(found == 1))
            }
            What::Map { only, each } => {
                let mut made = Vec::new();
                for item in items {
                    let taken = match only {
                        Some(only) => self.with(item, depth, only)?.truth()?,
                        None => true,
                    };
                    if taken {
                        self.work.makes(1)?;
                        made.push(self.with(item, depth, each)?);
                    }
                }
                Ok(Value::List(Rc::new(made)))
            }
        }
    }

    /// As for `&&` and `||`: a later item may decide, whatever fails before it.
    fn one_decides(
        &mut self,
        test: &'v Node,
        items: &[Value<'v>],
        depth: usize,
        decides: bool,
    ) -> Result<Value<'v>, Fault> {
        let mut failed = None;
        for item in items {
            match self.with(item, depth, test).and_then(Value::truth) {
                Ok(truth) if truth == decides => return Ok(Value::Bool(decides)),
                Ok(_) => {}
                // What is left of the work cannot be made up for.
                Err(Fault::Work) => return Err(Fault::Work),
                Err(fault) => failed = Some(fault),
            }
        }
        failed.map_or(Ok(Value::Bool(!decides)), Err)
    }

    /// The value of a macro's expression on one item.
    fn with(&mut self, item: &Value<'v>, depth: usize, node: &'v Node) -> Result<Value<'v>, Fault> {
        self.locals.truncate(depth);
        self.locals.push(item.copied(self.work)?);
        self.value(node)
    }
}

fn known(known: &[Known], at: usize) -> Result<Value<'_>, Fault> {
    match known.get(at).ok_or(Fault::Absent)? {
        Ok(fact) => Ok(fact.value()),
        Err(fault) => Err(*fault),
    }
}

fn operate<'v>(
    operator: Operator,
    one: Value<'v>,
    other: Value<'v>,
    work: &mut Work,
) -> Result<Value<'v>, Fault> {
    Ok(Value::Bool(match operator {
        Operator::Equals => one.equals(&other, work)?,
        Operator::Differs => !one.equals(&other, work)?,
        Operator::Less => one.compared(other, work)? == Ordering::Less,
        Operator::AtMost => one.compared(other, work)? != Ordering::Greater,
        Operator::Greater => one.compared(other, work)? == Ordering::Greater,
        Operator::AtLeast => one.compared(other, work)? != Ordering::Less,
        Operator::In => other.holds(one, work)?,
        _ => return arithmetic(operator, one.settled(work)?, other.settled(work)?, work),
    }))
}

fn arithmetic<'v>(
    operator: Operator,
    one: Value<'v>,
    other: Value<'v>,
    work: &mut Work,
) -> Result<Value<'v>, Fault> {
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => {
            let made = whole(operator, one.into(), other.into())?;
            i64::try_from(made).map(Value::Int).map_err(|_| Fault::Overflow)
        }
        (Value::UInt(one), Value::UInt(other)) => {
            let made = whole(operator, one.into(), other.into())?;
            u64::try_from(made).map(Value::UInt).map_err(|_| Fault::Overflow)
        }
        (Value::Text(one), Value::Text(other)) if matches!(operator, Operator::Add) => {
            work.does(one.len() + other.len())?;
            Ok(Value::Text(Cow::Owned([&*one, &*other].concat())))
        }
        (one, other) if matches!(operator, Operator::Add) && one.is_list() && other.is_list() => {
            let (some, others) = (one.items(work)?, other.items(work)?);
            work.makes(some.len() + others.len())?;
            let both = some.iter().chain(others.iter()).map(|item| item.copied(work));
            Ok(Value::List(Rc::new(both.collect::<Result<_, _>>()?)))
        }
        (one, other) => match (one.whole(), other.whole()) {
            (Some(one), Some(other)) => {
                let made = whole(operator, one, other)?;
                let int = i64::try_from(made).map(Value::Int);
                int.or_else(|_| u64::try_from(made).map(Value::UInt)).map_err(|_| Fault::Overflow)
            }
            _ => double(operator, one.double()?, other.double()?),
        },
    }
}

/// Whole numbers of 64 bits; the caller knows which of them the result may be.
fn whole(operator: Operator, one: i128, other: i128) -> Result<i128, Fault> {
    let made = match operator {
        Operator::Add => one.checked_add(other),
        Operator::Subtract => one.checked_sub(other),
        Operator::Multiply => one.checked_mul(other),
        Operator::Divide | Operator::Remainder if other == 0 => return Err(Fault::Zero),
        Operator::Divide => one.checked_div(other),
        Operator::Remainder => one.checked_rem(other),
        _ => return Err(Fault::Type),
    };
    made.ok_or(Fault::Overflow)
}

fn double<'v>(operator: Operator, one: f64, other: f64) -> Result<Value<'v>, Fault> {
    Ok(Value::Double(match operator {
        Operator::Add => one + other,
        Operator::Subtract => one - other,
        Operator::Multiply => one * other,
        Operator::Divide => one / other,
        _ => return Err(Fault::Type),
    }))
}
