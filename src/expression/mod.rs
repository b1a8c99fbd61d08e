//! Expressions over JSON in CEL, the Common Expression Language: what a route's `filter` and `data.map` are made of. The
//! crate `cel` reads them; what evaluates them is here, since that crate copies each payload into maps of its own and
//! forgets the order of their names, which costs several times what an event may.
//!
//! Its results are that crate's, which tests hold true, but for numbers: JSON does not tell whole ones from others, so that
//! `+ - * /` take all together, and they are compared by all of their digits, as CEL's text has it and that crate does not.
//! Whole ones have 64 bits, with a sign or without. Left out, and refused when the configuration is read, are bytes, types,
//! times, and patterns that are not written out.
//!
//! An expression that names what clients bring is split, so that what is asked for each client takes a hundred nanoseconds
//! and less.

mod call;
mod compile;
mod eval;
mod fact;
mod fault;
pub mod json;
mod outcomes;
mod show;
mod slips;
mod split;
mod value;
mod work;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

pub use compile::Member;
pub use fact::{Fact, Known};
pub use fault::Fault;
pub use json::{Document, Json};
pub use outcomes::Outcomes;
pub use value::Value;
pub use work::Work;
pub use write::{write, write_text};

use compile::Program;
use eval::Given;

/// Bytes of an expression.
pub const LONGEST: usize = 4096;

/// What an expression may speak of.
pub trait Names {
    /// The place of a variable in what [`Expression::evaluate`] is given.
    ///
    /// # Errors
    /// Why it cannot be named, in a sentence.
    fn variable(&self, name: &str) -> Result<usize, String>;

    /// What must be written as `params.NAME`: a text that is bound before anything is evaluated.
    ///
    /// # Errors
    /// Why it cannot be named, in a sentence.
    fn param(&self, name: &str) -> Result<(), String>;

    /// The place of a mapping that each client brings, if one is called so. Its members must be named, as `NAME.MEMBER` or
    /// `NAME['MEMBER']`.
    fn mapping(&self, _name: &str) -> Option<usize> {
        None
    }

    /// A member of such a mapping.
    ///
    /// # Errors
    /// Why it cannot be named, in a sentence.
    fn member(&self, _mapping: usize, _name: &str) -> Result<(), String> {
        Ok(())
    }
}

/// A compiled expression. Two are the same if their texts are, and what was bound to them.
#[derive(Clone)]
pub struct Expression {
    program: Arc<Program>,
    shown: Arc<str>,
    /// The values of the program's parameters, once they are bound.
    params: Arc<[Arc<str>]>,
}

/// How often which part of an expression is work, where it names what clients bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is done once for each record: the conditions that name no client, and the values that are kept for the others.
    /// Nothing where the text is no one's business.
    pub once: Option<(String, Vec<String>)>,
    /// What is done for each record and client.
    pub each: Option<String>,
    /// About how many nanoseconds the latter takes.
    pub cost: usize,
}

/// What is wrong with the text of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Where in the text, in bytes.
    pub at: Range<usize>,
    /// What is wrong, and the way out.
    pub what: String,
}

impl Expression {
    /// Compiles `text`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn compile(text: &str, names: &(impl Names + Sync)) -> Result<Self, Vec<Flaw>> {
        let program = Arc::new(Program::compile(text, names)?);
        Ok(Self { program, shown: text.into(), params: Arc::default() })
    }

    /// The same, to be shown as this: some of its text may come from elsewhere, and be no one's business.
    pub fn shown_as(self, shown: &str) -> Self {
        Self { shown: shown.into(), ..self }
    }

    /// How it is shown.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether it may come to `true` or `false`, as far as its outermost operators tell.
    pub fn is_condition(&self) -> bool {
        self.program.is_condition
    }

    /// Whether it names the variable of this place.
    pub fn reads(&self, variable: usize) -> bool {
        self.program.reads.iter().any(|(read, _)| *read == variable)
    }

    /// The parameters that it names; they must be bound before it is evaluated.
    pub fn params(&self) -> &[Arc<str>] {
        &self.program.params
    }

    /// The same, where these parameters are what `value` gives for them.
    pub fn bind(&self, value: impl Fn(&str) -> Option<String>) -> Self {
        let bound = self.program.params.iter().map(|name| value(name).unwrap_or_default().into());
        Self { params: bound.collect(), ..self.clone() }
    }

    /// What it names of what a client brings. If that is something, [`Self::evaluate`] is of what does without.
    pub fn client(&self) -> &[Member] {
        &self.program.client
    }

    /// Its value, where the variables that it reads are these.
    ///
    /// # Errors
    /// Why it has none.
    pub fn evaluate<'v>(&'v self, variables: &[Value<'v>], work: &mut Work) -> Result<Value<'v>, Fault> {
        eval::evaluate(
            &self.program.root,
            Given { params: &self.params, variables, ..Given::default() },
            work,
        )
    }

    /// What has to be known of a record to tell whether a client is to have it.
    pub fn facts(&self, variables: &[Value<'_>], work: &mut Work) -> Vec<Known> {
        let given = Given { params: &self.params, variables, ..Given::default() };
        let nodes = self.program.split.as_ref().map(|split| &split.facts);
        let mut room = KEPT;
        nodes.into_iter().flatten().map(|node| known(node, given, &mut room, work)).collect()
    }

    /// The same of a client, which brings these values, and what that lets the expression come to.
    pub fn terms(&self, brought: impl Fn(&Member) -> Option<Fact>) -> (Vec<Known>, Outcomes) {
        let client: Vec<_> = self.program.client.iter().map(brought).collect();
        let given = Given { params: &self.params, client: &client, ..Given::default() };
        let Some(split) = &self.program.split else {
            return (Vec::new(), Outcomes::of(&compile::Node::Bool(true), &[]));
        };
        let mut room = KEPT;
        let term = |node| known(node, given, &mut room, &mut Work::for_client());
        let terms: Vec<_> = split.terms.iter().map(term).collect();
        let outcomes = Outcomes::of(&split.residual, &terms);
        (terms, outcomes)
    }

    /// Whether it can hold for a client that brings these values, whatever those are that are open.
    pub fn can_hold(
        &self,
        brought: impl Fn(&Member) -> Option<Fact>,
        is_open: impl Fn(&Member) -> bool,
    ) -> bool {
        let (Some(split), members) = (&self.program.split, &self.program.client) else { return true };
        let client: Vec<_> = members.iter().map(brought).collect();
        let is_open = |at: usize| members.get(at).is_some_and(&is_open);
        let values: Vec<_> = client
            .iter()
            .enumerate()
            .map(|(at, value)| match value {
                _ if is_open(at) => Outcomes::OPEN,
                Some(value) => Outcomes::of_value(&Ok(value.clone())),
                None => Outcomes::NONE,
            })
            .collect();
        let given = Given { params: &self.params, client: &client, ..Given::default() };
        let mut room = KEPT;
        let term = |node: &compile::Node| match node.names(&is_open) {
            true => Outcomes::of_term(node, &values),
            false => Outcomes::of_value(&known(node, given, &mut room, &mut Work::for_client())),
        };
        let terms: Vec<_> = split.terms.iter().map(term).collect();
        Outcomes::with(&split.residual, &terms).can_hold()
    }

    /// Whether the rest of it holds for a record and a client, of which this is known.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn holds_for(&self, facts: &[Known], terms: &[Known], work: &mut Work) -> Result<bool, Fault> {
        let Some(split) = &self.program.split else { return Ok(true) };
        let given = Given { params: &self.params, facts, terms, ..Given::default() };
        eval::evaluate(&split.residual, given, work)?.truth()
    }

    /// How often which part of it is work, if it names what clients bring.
    pub fn plan(&self) -> Option<Plan> {
        let (split, is_open) = (self.program.split.as_ref()?, *self.shown == *self.program.text);
        let show = |node| show::show(node, &self.program);
        let once = || (show(&self.program.root), split.facts.iter().map(show).collect());
        let each = || show(&split.residual);
        Some(Plan {
            once: is_open.then(once),
            each: is_open.then(each),
            cost: BESIDE + split.residual.cost(),
        })
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn holds<'v>(&'v self, variables: &[Value<'v>], work: &mut Work) -> Result<bool, Fault> {
        self.evaluate(variables, work)?.truth()
    }
}

/// What `node` comes to, to be kept. What does not fit into `room` takes nothing of it.
fn known<'v>(node: &'v compile::Node, given: Given<'v, '_>, room: &mut usize, work: &mut Work) -> Known {
    let value = eval::evaluate(node, given, work)?;
    let mut left = *room;
    let fact = Fact::of(&value, &mut left, work)?;
    *room = left;
    Ok(fact)
}

/// Bytes of what is kept of one record, or of one client.
const KEPT: usize = 64 << 10;

/// Nanoseconds that asking takes, whatever is asked.
const BESIDE: usize = 15;

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.program.text == other.program.text && self.params == other.params
    }
}

impl Eq for Expression {}

impl Hash for Expression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.program.text.hash(state);
        self.params.hash(state);
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}
