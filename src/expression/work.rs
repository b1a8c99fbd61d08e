//! How much work an expression may be: macros within macros, on a list that a publisher made long, would keep the reader
//! of a whole upstream busy.

use super::fault::Fault;
use super::value::Value;

/// What is left of the work that one evaluation may be. A unit is about a nanosecond, and a byte that is made.
#[derive(Debug)]
pub struct Work(usize);

impl Work {
    /// For a payload of so many bytes: macros may go over it a few times, and small ones over each other.
    pub fn for_payload(bytes: usize) -> Self {
        Self(BASE + bytes.saturating_mul(A_BYTE))
    }

    /// For one of many clients, whose number and values are not ours to choose.
    pub fn for_client() -> Self {
        Self(A_CLIENT)
    }

    /// How much of what one client may be is done.
    pub fn spent(&self) -> usize {
        A_CLIENT.saturating_sub(self.0)
    }

    /// Some of it is done.
    pub(super) fn does(&mut self, units: usize) -> Result<(), Fault> {
        let left = self.0.checked_sub(units);
        self.0 = left.unwrap_or(0);
        left.map(drop).ok_or(Fault::Work)
    }

    /// So many values are made.
    pub(super) fn makes(&mut self, values: usize) -> Result<(), Fault> {
        self.does(values.saturating_mul(size_of::<Value<'_>>()))
    }

    /// An operator, or a step of a macro.
    pub(super) fn steps(&mut self) -> Result<(), Fault> {
        self.does(STEP)
    }
}

const BASE: usize = 2 << 20;
const A_BYTE: usize = 64;
const A_CLIENT: usize = 1 << 16;
const STEP: usize = 8;
