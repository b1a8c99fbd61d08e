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
        Self(outcomes(residual, terms))
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

fn outcomes(node: &Node, terms: &[Known]) -> u8 {
    match node {
        Node::Bool(truth) => of_truth(*truth),
        Node::Null | Node::Int(_) | Node::UInt(_) | Node::Double(_) | Node::Text(_) | Node::Param(_) => OTHER,
        Node::Term(at) => match terms.get(*at) {
            Some(Ok(Fact::Bool(truth))) => of_truth(*truth),
            Some(Ok(_)) => OTHER,
            Some(Err(_)) | None => FAULT,
        },
        Node::Not(of) => each(outcomes(of, terms), |one| match one {
            TRUE => FALSE,
            FALSE => TRUE,
            _ => FAULT,
        }),
        Node::And(pair) => of_pair(pair, terms, FALSE),
        Node::Or(pair) => of_pair(pair, terms, TRUE),
        Node::Choose(three) => {
            let [test, one, other] = &**three;
            each(outcomes(test, terms), |test| match test {
                TRUE => outcomes(one, terms),
                FALSE => outcomes(other, terms),
                _ => FAULT,
            })
        }
        // All that they are of must have a value.
        Node::Select(of, _) | Node::Has(of, _) | Node::Negate(of) | Node::Matches(of, _) => {
            strict([&**of], terms)
        }
        Node::Index(pair) | Node::Operate(_, pair) => strict(pair.iter(), terms),
        Node::Call(_, parts) | Node::List(parts) => strict(parts, terms),
        Node::Map(entries) => strict(entries.iter().flat_map(|(name, value)| [name, value]), terms),
        Node::Fold(fold) => strict([&fold.over], terms),
        Node::Fact(_) | Node::Variable(_) | Node::Local(_) | Node::Client(_) | Node::Brings(_) => ANY,
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
fn of_pair(pair: &[Node; 2], terms: &[Known], decides: u8) -> u8 {
    let (one, other) = (outcomes(&pair[0], terms), outcomes(&pair[1], terms));
    each(one, |one| {
        each(other, |other| match (one, other) {
            (one, other) if one == decides || other == decides => decides,
            (OTHER | FAULT, _) | (_, OTHER | FAULT) => FAULT,
            _ => (TRUE | FALSE) ^ decides,
        })
    })
}

fn strict<'n>(parts: impl IntoIterator<Item = &'n Node>, terms: &[Known]) -> u8 {
    let fails = |part| outcomes(part, terms) == FAULT;
    if parts.into_iter().any(fails) { FAULT } else { ANY }
}
