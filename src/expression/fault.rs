//! What can go wrong while an expression is evaluated. It tells nothing of the values, which may be secret.

/// Why an expression has no value for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// A field, a key or a place in a list.
    #[error("a field that it names is not there")]
    Absent,
    /// An operator, function or macro does not take what it is given.
    #[error("a value is of a type that does not fit")]
    Type,
    /// The result of an operator has no room in 64 bits.
    #[error("a number is too large")]
    Overflow,
    /// Or a remainder of it.
    #[error("a division by zero")]
    Zero,
    /// A text that is not what it is to be converted to.
    #[error("a text cannot be converted")]
    Conversion,
    /// A mapping would have a name twice.
    #[error("a name of a mapping comes twice")]
    Twice,
    /// Neither a number nor anything else of JSON.
    #[error("a number is infinite, or none")]
    NoNumber,
    /// More work than the size of the payload allows for.
    #[error("it takes too much work on this payload")]
    Work,
    /// What it makes is larger than an event may be.
    #[error("what it makes is too large")]
    TooLarge,
}
