//! What a residual may come to for one client, whatever the record: a filter that lets everything pass is none, and a client
//! whose own values make it fail is told so when it comes.

use super::compile::Node;
use super::fact::{Fact, Known};

/// What an expression may come to: each thing that is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcomes(u8);

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const OTHER: u8 = 4;
const FAULT: u8 = 8;
const ANY: u8 = TRUE | FALSE | OTHER | FAULT;

impl Outcomes {
    /// Those of a residual for a client of these terms.
    pub(super) fn of(residual: &Node, terms: &[Known]) -> Self {
        Self::with(residual, &terms.iter().map(Self::of_value).collect::<Vec<_>>())
    }

    /// Those of a residual where the terms may come to these.
    pub(super) fn with(residual: &Node, terms: &[Self]) -> Self {
        Self(outcomes(residual, Parts { terms, client: &[] }))
    }

    /// Those of a term, or of a whole expression, where what the client brings may be these; anything where that is not said.
    pub(super) fn of_term(term: &Node, client: &[Self]) -> Self {
        Self(outcomes(term, Parts { terms: &[], client }))
    }

    /// That of a value that is known.
    pub(super) fn of_value(known: &Known) -> Self {
        Self(match known {
            Ok(Fact::Bool(truth)) => of_truth(*truth),
            Ok(_) => OTHER,
            Err(_) => FAULT,
        })
    }

    /// That of a value that a client does not bring.
    pub(super) const NONE: Self = Self(FAULT);

    /// Those of a value of which nothing is known.
    pub(super) const OPEN: Self = Self(ANY);

    /// Whether it may hold.
    pub fn can_hold(self) -> bool {
        self.0 & TRUE != 0
    }

    /// Whether it always holds.
    pub fn always_holds(self) -> bool {
        self.0 == TRUE
    }

    /// Whether it never holds, for a reason that is no answer.
    pub fn always_fails(self) -> bool {
        self.0 & TRUE == 0 && self.0 & (FAULT | OTHER) != 0
    }
}

/// What the parts that stand for values may come to.
#[derive(Clone, Copy)]
struct Parts<'p> {
    terms: &'p [Outcomes],
    client: &'p [Outcomes],
}

fn outcomes(node: &Node, parts: Parts<'_>) -> u8 {
    match node {
        Node::Bool(truth) => of_truth(*truth),
        Node::Null | Node::Int(_) | Node::UInt(_) | Node::Double(_) | Node::Text(_) | Node::Param(_) => OTHER,
        Node::Term(at) => parts.terms.get(*at).copied().unwrap_or(Outcomes::NONE).0,
        Node::Client(at) => parts.client.get(*at).copied().unwrap_or(Outcomes::OPEN).0,
        Node::Brings(at) => match parts.client.get(*at).copied().unwrap_or(Outcomes::OPEN) {
            Outcomes::OPEN => TRUE | FALSE,
            brought => of_truth(brought != Outcomes::NONE),
        },
        Node::Not(of) => each(outcomes(of, parts), |one| match one {
            TRUE => FALSE,
            FALSE => TRUE,
            _ => FAULT,
        }),
        Node::And(pair) => of_pair(pair, parts, FALSE),
        Node::Or(pair) => of_pair(pair, parts, TRUE),
        Node::Choose(three) => {
            let [test, one, other] = &**three;
            each(outcomes(test, parts), |test| match test {
                TRUE => outcomes(one, parts),
                FALSE => outcomes(other, parts),
                _ => FAULT,
            })
        }
        // All that they are of must have a value.
        Node::Select(of, _) | Node::Has(of, _) | Node::Negate(of) | Node::Matches(of, _) => {
            strict([&**of], parts)
        }
        Node::Index(pair) | Node::Operate(_, pair) => strict(pair.iter(), parts),
        Node::Call(_, args) | Node::List(args) => strict(args, parts),
        Node::Map(entries) => strict(entries.iter().flat_map(|(name, value)| [name, value]), parts),
        Node::Fold(fold) => strict([&fold.over], parts),
        Node::Fact(_) | Node::Variable(_) | Node::Local(_) => ANY,
    }
}

fn of_truth(truth: bool) -> u8 {
    if truth { TRUE } else { FALSE }
}

/// What becomes of each thing that is possible.
fn each(possible: u8, becomes: impl Fn(u8) -> u8) -> u8 {
    let things = [TRUE, FALSE, OTHER, FAULT].into_iter().filter(|thing| possible & thing != 0);
    things.map(becomes).fold(0, |all, one| all | one)
}

/// `&&` and `||`, of which one side decides that comes to `decides`.
fn of_pair(pair: &[Node; 2], parts: Parts<'_>, decides: u8) -> u8 {
    let (one, other) = (outcomes(&pair[0], parts), outcomes(&pair[1], parts));
    each(one, |one| {
        each(other, |other| match (one, other) {
            (one, other) if one == decides || other == decides => decides,
            (OTHER | FAULT, _) | (_, OTHER | FAULT) => FAULT,
            _ => (TRUE | FALSE) ^ decides,
        })
    })
}

fn strict<'n>(of: impl IntoIterator<Item = &'n Node>, parts: Parts<'_>) -> u8 {
    let fails = |part| outcomes(part, parts) == FAULT;
    if of.into_iter().any(fails) { FAULT } else { ANY }
}
