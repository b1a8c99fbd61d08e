//! Expressions over JSON in CEL, the Common Expression Language: what a route's `filter` and `data.map` are made of. The
//! crate `cel` reads them; what evaluates them is here, since that crate copies each payload into maps of its own and
//! forgets the order of their names, which costs several times what an event may.
//!
//! Its results are that crate's, which tests hold true, but for numbers: JSON does not tell whole ones from others, so that
//! `+ - * /` take all together, and they are compared by all of their digits, as CEL's text has it and that crate does not.
//! Whole ones have 64 bits, with a sign or without. Left out, and refused when the configuration is read, are bytes, types,
//! times, and patterns that are not written out.

mod call;
mod compile;
mod eval;
mod fault;
pub mod json;
mod value;
mod work;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

pub use fault::Fault;
pub use json::{Document, Json};
pub use value::Value;
pub use work::Work;
pub use write::{write, write_text};

use compile::Program;

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
}

/// A compiled expression. Two are the same if their texts are, and what was bound to them.
#[derive(Clone)]
pub struct Expression {
    program: Arc<Program>,
    shown: Arc<str>,
    /// The values of the program's parameters, once they are bound.
    params: Arc<[Arc<str>]>,
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

    /// Whether it names the variable of this place.
    pub fn reads(&self, variable: usize) -> bool {
        self.program.reads.contains(&variable)
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

    /// Its value, where the variables that it reads are these.
    ///
    /// # Errors
    /// Why it has none.
    pub fn evaluate<'v>(&'v self, variables: &[Value<'v>], work: &mut Work) -> Result<Value<'v>, Fault> {
        eval::evaluate(&self.program, &self.params, variables, work)
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn holds<'v>(&'v self, variables: &[Value<'v>], work: &mut Work) -> Result<bool, Fault> {
        self.evaluate(variables, work)?.truth()
    }
}

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
