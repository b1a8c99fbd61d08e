//! From the text of an expression to what is evaluated. Names become places, macros what they mean, patterns are compiled.
//! What names its clients' values is split by [`super::split`].

use std::ops::Range;
use std::sync::Arc;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, SelectExpr,
    operators,
};

use super::call::Function;
use super::slips;
use super::split::{self, Split};
use super::{Flaw, LONGEST, Names};

/// How deep an expression may be nested, each operator counted: evaluating it recurses so deep.
const DEEPEST: usize = 100;

/// An expression, compiled.
pub(super) struct Program {
    pub text: Box<str>,
    /// What is evaluated for each record; where clients' values are named, what does without them.
    pub root: Node,
    /// The rest of it.
    pub split: Option<Box<Split>>,
    /// Whether it may be true or false.
    pub is_condition: bool,
    /// The places of the variables that it names, and what it calls them.
    pub reads: Vec<(usize, Box<str>)>,
    /// The parameters that it names.
    pub params: Vec<Arc<str>>,
    /// What it names of what a client brings.
    pub client: Vec<Member>,
}

/// A value that a client brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The place of the mapping that it is in; see [`Names::mapping`].
    pub mapping: usize,
    /// What the mapping is called.
    pub of: Arc<str>,
    /// Its name there.
    pub name: Arc<str>,
}

/// What is evaluated.
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Box<str>),
    Variable(usize),
    Param(usize),
    /// What a macro goes over, by how many others it is within.
    Local(usize),
    /// A value that the client brings, and whether it does.
    Client(usize),
    Brings(usize),
    /// What is known of the record, and what of the client.
    Fact(usize),
    Term(usize),
    Select(Box<Node>, Box<str>),
    Has(Box<Node>, Box<str>),
    Index(Box<[Node; 2]>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Choose(Box<[Node; 3]>),
    Operate(Operator, Box<[Node; 2]>),
    Call(Function, Vec<Node>),
    Matches(Box<Node>, Box<regex::Regex>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Fold(Box<Fold>),
}

/// An operator of two values.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equals,
    Differs,
    Less,
    AtMost,
    Greater,
    AtLeast,
    In,
}

/// A macro that goes over a list, or over the names of a mapping.
pub(super) struct Fold {
    pub over: Node,
    /// What it calls each of them.
    pub item: Box<str>,
    pub what: What,
}

/// What it makes of that.
pub(super) enum What {
    All(Node),
    Exists(Node),
    ExistsOne(Node),
    Map { only: Option<Node>, each: Node },
}

impl Program {
    /// Compiles `text`, or tells all that is wrong with it. The parser recurses as deep as the text is long, so that it has
    /// a thread with a stack of its own.
    pub fn compile<N: Names + Sync>(text: &str, names: &N) -> Result<Self, Vec<Flaw>> {
        let flaw = |what: String| Err(vec![Flaw { at: 0..text.len(), what }]);
        if text.len() > LONGEST {
            return flaw(format!("an expression has {LONGEST} bytes at most; shorten it"));
        }
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().name("expression".to_owned()).stack_size(STACK);
            let compiling = builder.spawn_scoped(scope, || Self::whole(text, names).map(Self::split));
            match compiling.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(compiled)) => compiled,
                _ => flaw(
                    "this cannot be compiled as an expression in CEL; write it in another way".to_owned(),
                ),
            }
        })
    }

    /// The same in one piece, on this thread's stack.
    pub fn whole(text: &str, names: &impl Names) -> Result<Self, Vec<Flaw>> {
        let parsed = cel::Program::compile(text).map_err(|errors| {
            let flaw = |error: &cel::ParseError| {
                let what = error.msg.lines().next().unwrap_or_default();
                Flaw { at: place(text, error.pos), what: format!("this is not an expression in CEL: {what}") }
            };
            // What follows the first is mostly its consequence.
            slips::first(text).or_else(|| errors.errors.first().map(flaw)).into_iter().collect::<Vec<_>>()
        })?;
        let mut compiler = Compiler {
            text,
            parsed: &parsed,
            names,
            scope: Vec::new(),
            depth: 0,
            reads: Vec::new(),
            params: Vec::new(),
            client: Vec::new(),
            flaws: Vec::new(),
        };
        let root = compiler.node(parsed.expression());
        let Compiler { reads, params, client, mut flaws, .. } = compiler;
        if !flaws.is_empty() {
            flaws.sort_by_key(|flaw| flaw.at.start);
            return Err(flaws);
        }
        let is_condition = root.is_condition();
        Ok(Self { text: text.into(), root, split: None, is_condition, reads, params, client })
    }

    fn split(mut self) -> Self {
        if !self.client.is_empty() {
            let (root, split) = split::split(std::mem::replace(&mut self.root, Node::Null), &self);
            (self.root, self.split) = (root, Some(Box::new(split)));
        }
        self
    }
}

impl Node {
    /// Whether it may come to `true` or `false`, as far as the outermost operators tell. Of `&&` and `||` both sides must.
    fn is_condition(&self) -> bool {
        match self {
            Self::Null
            | Self::Int(_)
            | Self::UInt(_)
            | Self::Double(_)
            | Self::Text(_)
            | Self::Param(_)
            | Self::Negate(_)
            | Self::List(_)
            | Self::Map(_) => false,
            Self::Operate(operator, _) => operator.compares(),
            Self::Call(function, _) => function.tells(),
            Self::Fold(fold) => !matches!(fold.what, What::Map { .. }),
            Self::Not(of) => of.is_condition(),
            Self::And(pair) | Self::Or(pair) => pair.iter().all(Self::is_condition),
            Self::Choose(three) => three[0].is_condition() && three[1..].iter().any(Self::is_condition),
            _ => true,
        }
    }
}

impl Operator {
    /// Whether what it makes is `true` or `false`.
    fn compares(self) -> bool {
        !matches!(self, Self::Add | Self::Subtract | Self::Multiply | Self::Divide | Self::Remainder)
    }
}

/// Goes through the tree that the parser made. Where something is wrong it notes that, and goes on with a `null`.
struct Compiler<'c, N> {
    text: &'c str,
    parsed: &'c cel::Program,
    names: &'c N,
    /// The names that macros bind, the innermost last.
    scope: Vec<&'c str>,
    depth: usize,
    reads: Vec<(usize, Box<str>)>,
    params: Vec<Arc<str>>,
    client: Vec<Member>,
    flaws: Vec<Flaw>,
}

impl<'c, N: Names> Compiler<'c, N> {
    fn node(&mut self, expression: &'c IdedExpr) -> Node {
        self.depth += 1;
        let node = if self.depth > DEEPEST {
            self.flaw(expression, "this is nested too deeply; write it in a simpler way")
        } else {
            self.inner(expression)
        };
        self.depth -= 1;
        node
    }

    fn inner(&mut self, expression: &'c IdedExpr) -> Node {
        match &expression.expr {
            Expr::Literal(literal) => self.literal(expression, literal),
            Expr::Ident(name) => self.name(expression, name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(expression, call),
            Expr::List(list) => Node::List(list.elements.iter().map(|item| self.node(item)).collect()),
            Expr::Map(map) => Node::Map(map.entries.iter().filter_map(|entry| self.entry(entry)).collect()),
            Expr::Comprehension(fold) => self.fold(expression, fold),
            Expr::Struct(_) | Expr::Unspecified => self.flaw(
                expression,
                "messages of a type cannot be made here; write a mapping such as {'id': event.id}",
            ),
        }
    }

    fn boxed(&mut self, expression: &'c IdedExpr) -> Box<Node> {
        Box::new(self.node(expression))
    }

    fn literal(&mut self, expression: &'c IdedExpr, literal: &LiteralValue) -> Node {
        match literal {
            LiteralValue::Null => Node::Null,
            LiteralValue::Boolean(value) => Node::Bool(*value.inner()),
            LiteralValue::Int(value) => Node::Int(*value.inner()),
            LiteralValue::Double(value) => Node::Double(*value.inner()),
            LiteralValue::String(value) => Node::Text(value.inner().into()),
            LiteralValue::UInt(value) => {
                i64::try_from(*value.inner()).map_or(Node::UInt(*value.inner()), Node::Int)
            }
            LiteralValue::Bytes(_) => self.flaw(expression, "bytes are not supported; write a text"),
        }
    }

    fn name(&mut self, expression: &'c IdedExpr, name: &str) -> Node {
        if let Some(at) = self.scope.iter().rposition(|bound| *bound == name) {
            return Node::Local(at);
        }
        if name == PARAMS {
            return self.flaw(expression, "name one parameter of the path, such as `params.room`");
        }
        match self.names.variable(name) {
            Ok(at) => {
                if !self.reads.iter().any(|(known, _)| *known == at) {
                    self.reads.push((at, name.into()));
                }
                Node::Variable(at)
            }
            Err(what) => self.flaw_at(self.word(expression, name), what),
        }
    }

    fn select(&mut self, select: &'c SelectExpr) -> Node {
        if let Some(of) = self.mapping(&select.operand) {
            let at = self.word(&select.operand, &select.field);
            return self.member(of, &select.field, select.test, at);
        }
        match &select.operand.expr {
            Expr::Ident(name) if name == PARAMS && !self.scope.contains(&PARAMS) => {
                if let Err(what) = self.names.param(&select.field) {
                    return self.flaw_at(self.word(&select.operand, &select.field), what);
                }
                if select.test {
                    return Node::Bool(true);
                }
                let known = self.params.iter().position(|param| **param == *select.field);
                Node::Param(known.unwrap_or_else(|| {
                    self.params.push(select.field.as_str().into());
                    self.params.len() - 1
                }))
            }
            _ => {
                let of = self.boxed(&select.operand);
                let field = select.field.as_str().into();
                if select.test { Node::Has(of, field) } else { Node::Select(of, field) }
            }
        }
    }

    /// The mapping that a client brings, and its name, if this is that.
    fn mapping(&self, expression: &'c IdedExpr) -> Option<(usize, &'c str)> {
        let Expr::Ident(name) = &expression.expr else { return None };
        let is_bound = self.scope.contains(&name.as_str());
        self.names.mapping(name).filter(|_| !is_bound).map(|mapping| (mapping, name.as_str()))
    }

    /// A member of that, or whether there is one, named at this place of the text.
    fn member(&mut self, (mapping, of): (usize, &str), name: &str, test: bool, at: Range<usize>) -> Node {
        if let Err(what) = self.names.member(mapping, name) {
            return self.flaw_at(at, what);
        }
        let is_it = |known: &Member| known.mapping == mapping && *known.name == *name;
        let place = self.client.iter().position(is_it).unwrap_or_else(|| {
            self.client.push(Member { mapping, of: of.into(), name: name.into() });
            self.client.len() - 1
        });
        if test { Node::Brings(place) } else { Node::Client(place) }
    }

    /// The same where the name stands in quotes.
    fn quoted(&mut self, operator: &str, one: &'c IdedExpr, other: &'c IdedExpr) -> Option<Node> {
        let (of, name, test) = match operator {
            operators::INDEX => (one, other, false),
            operators::IN => (other, one, true),
            _ => return None,
        };
        let (of, Expr::Literal(LiteralValue::String(text))) = (self.mapping(of)?, &name.expr) else {
            return None;
        };
        let at = self.span(name);
        Some(self.member(of, text.inner(), test, at))
    }

    fn call(&mut self, expression: &'c IdedExpr, call: &'c CallExpr) -> Node {
        let name = call.func_name.as_str();
        if let (None, [one, other]) = (&call.target, call.args.as_slice())
            && let Some(member) = self.quoted(name, one, other)
        {
            return member;
        }
        match (&call.target, call.args.as_slice()) {
            (None, [one]) if name == operators::LOGICAL_NOT => Node::Not(self.boxed(one)),
            (None, [one]) if name == operators::NEGATE => Node::Negate(self.boxed(one)),
            (None, [one, other]) if name == operators::LOGICAL_AND => Node::And(self.pair(one, other)),
            (None, [one, other]) if name == operators::LOGICAL_OR => Node::Or(self.pair(one, other)),
            (None, [one, other]) if name == operators::INDEX => Node::Index(self.pair(one, other)),
            (None, [one, other]) if operator(name).is_some() => {
                let operator = operator(name).unwrap_or(Operator::Equals);
                Node::Operate(operator, self.pair(one, other))
            }
            (None, [test, one, other]) if name == operators::CONDITIONAL => {
                Node::Choose(Box::new([self.node(test), self.node(one), self.node(other)]))
            }
            (target, args) => {
                let args: Vec<_> = target.as_deref().into_iter().chain(args).collect();
                self.function(expression, call, &args)
            }
        }
    }

    fn pair(&mut self, one: &'c IdedExpr, other: &'c IdedExpr) -> Box<[Node; 2]> {
        Box::new([self.node(one), self.node(other)])
    }

    /// A call by name, as a function or as a method of its first argument.
    fn function(&mut self, expression: &'c IdedExpr, call: &'c CallExpr, args: &[&'c IdedExpr]) -> Node {
        let name = call.func_name.as_str();
        if let ("matches", [text, pattern]) = (name, args) {
            let Expr::Literal(LiteralValue::String(pattern_text)) = &pattern.expr else {
                return self.flaw(pattern, "a pattern must be written out, so that it is compiled once");
            };
            let compiled = regex::RegexBuilder::new(pattern_text.inner()).size_limit(1 << 20).build();
            return match compiled {
                Ok(regex) => Node::Matches(self.boxed(text), Box::new(regex)),
                Err(_) => self.flaw(pattern, "this is not a regular expression, or too large a one"),
            };
        }
        let nodes: Vec<Node> = args.iter().map(|arg| self.node(arg)).collect();
        match Function::of(name, call.target.is_some(), args.len()) {
            Ok(function) => Node::Call(function, nodes),
            Err(what) => self.flaw_at(self.word(expression, name), what),
        }
    }

    fn entry(&mut self, entry: &'c IdedEntryExpr) -> Option<(Node, Node)> {
        let EntryExpr::MapEntry(entry) = &entry.expr else { return None };
        match &entry.key.expr {
            Expr::Literal(LiteralValue::String(_)) => {}
            Expr::Literal(_) => {
                self.flaw(&entry.key, "the names of a mapping are texts, as in JSON; put it in quotes");
            }
            _ => {}
        }
        Some((self.node(&entry.key), self.node(&entry.value)))
    }

    /// A macro, known by what the parser makes of it.
    fn fold(&mut self, expression: &'c IdedExpr, fold: &'c ComprehensionExpr) -> Node {
        let over = self.node(&fold.iter_range);
        self.scope.push(&fold.iter_var);
        let step = match &fold.loop_step.expr {
            Expr::Call(call) => Some((call.func_name.as_str(), call.args.as_slice())),
            _ => None,
        };
        let what = match (&fold.accu_init.expr, step) {
            (Expr::Literal(LiteralValue::Boolean(_)), Some((operators::LOGICAL_AND, [_, test]))) => {
                Some(What::All(self.node(test)))
            }
            (Expr::Literal(LiteralValue::Boolean(_)), Some((operators::LOGICAL_OR, [_, test]))) => {
                Some(What::Exists(self.node(test)))
            }
            (Expr::Literal(LiteralValue::Int(_)), Some((operators::CONDITIONAL, [test, ..]))) => {
                Some(What::ExistsOne(self.node(test)))
            }
            (Expr::List(_), Some((operators::CONDITIONAL, [only, step, _]))) => {
                let only = Some(self.node(only));
                appended(step).map(|each| What::Map { only, each: self.node(each) })
            }
            (Expr::List(_), Some(_)) => {
                appended(&fold.loop_step).map(|each| What::Map { only: None, each: self.node(each) })
            }
            _ => None,
        };
        self.scope.pop();
        match what {
            Some(what) => Node::Fold(Box::new(Fold { over, item: fold.iter_var.as_str().into(), what })),
            None => self.flaw(expression, "this macro is not supported"),
        }
    }

    fn flaw(&mut self, expression: &IdedExpr, what: impl Into<String>) -> Node {
        let at = self.span(expression);
        self.flaw_at(at, what)
    }

    fn flaw_at(&mut self, at: Range<usize>, what: impl Into<String>) -> Node {
        self.flaws.push(Flaw { at, what: what.into() });
        Node::Null
    }

    /// Where an expression stands, as bytes: the parser counts characters.
    fn span(&self, expression: &IdedExpr) -> Range<usize> {
        let byte = |at: u32| self.text.char_indices().nth(at as usize).map_or(self.text.len(), |(at, _)| at);
        let (start, stop) = self.parsed.source_info().offset_for(expression.id).unwrap_or_default();
        let start = byte(start);
        start..byte(stop.saturating_add(1)).max(start)
    }

    /// Where a name stands that an expression begins with or holds.
    fn word(&self, expression: &IdedExpr, name: &str) -> Range<usize> {
        let letter = |c: char| c.is_alphanumeric() || c == '_';
        let is_whole = |at: usize| {
            let (before, after) = (&self.text[..at], &self.text[at + name.len()..]);
            !before.ends_with(letter) && !after.starts_with(letter)
        };
        let found = |from: usize| {
            let mut places = self.text.get(from..)?.match_indices(name).map(|(at, _)| from + at);
            places.find(|&at| is_whole(at))
        };
        let at = found(self.span(expression).start).or_else(|| found(0)).unwrap_or(0);
        at..at + name.len()
    }
}

/// What `@result + [each]` appends.
fn appended(step: &IdedExpr) -> Option<&IdedExpr> {
    let Expr::Call(call) = &step.expr else { return None };
    let [_, list] = call.args.as_slice() else { return None };
    let Expr::List(list) = &list.expr else { return None };
    list.elements.first()
}

fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        operators::ADD => Operator::Add,
        operators::SUBSTRACT => Operator::Subtract,
        operators::MULTIPLY => Operator::Multiply,
        operators::DIVIDE => Operator::Divide,
        operators::MODULO => Operator::Remainder,
        operators::EQUALS => Operator::Equals,
        operators::NOT_EQUALS => Operator::Differs,
        operators::LESS => Operator::Less,
        operators::LESS_EQUALS => Operator::AtMost,
        operators::GREATER => Operator::Greater,
        operators::GREATER_EQUALS => Operator::AtLeast,
        operators::IN => Operator::In,
        _ => return None,
    })
}

/// Line and column of the parser, both from 1, as bytes of the text.
fn place(text: &str, (line, column): (isize, isize)) -> Range<usize> {
    let from_zero = |number: isize| usize::try_from(number).unwrap_or(1).max(1) - 1;
    let begin: usize = text.split_inclusive('\n').take(from_zero(line)).map(str::len).sum();
    let rest = text.get(begin..).unwrap_or_default();
    let at = begin + rest.char_indices().nth(from_zero(column)).map_or(rest.len(), |(at, _)| at);
    at..at + text[at..].chars().next().map_or(0, char::len_utf8)
}

/// For the parser: some KiB for each byte of the longest text.
const STACK: usize = 64 << 20;

/// What parameters of the path are members of.
const PARAMS: &str = "params";
