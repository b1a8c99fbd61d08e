//! Event ids of a table: the id of the row that was read last.

use serde_json::{Value, json};

use crate::hub::{Decoded, IdCodec, Position};
use crate::upstream::numbered::Tag;

/// `TAG-ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowCodec(Tag);

impl RowCodec {
    /// The codec of the table of this name that is called `identity`: server, database, table, and the sequence that gives its
    /// ids, as it was restarted last.
    pub fn new(table: &str, identity: &str) -> Self {
        Self(Tag::new(table, identity))
    }
}

impl IdCodec for RowCodec {
    fn encode(&self, position: &Position, out: &mut String) {
        self.0.write(position, out);
    }

    fn decode(&self, id: &str) -> Decoded {
        self.0.read(id)
    }

    fn single_order(&self) -> bool {
        true
    }

    /// Transactions that were rolled back leave holes.
    fn counts(&self) -> bool {
        false
    }

    /// Ranges are half-open: `from` is the first that is missing, `to` the first that is not.
    fn bound(&self, position: &Position, _: &Position) -> Value {
        json!(position.next(0).saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open() {
        let codec = RowCodec::new("outbox", "7 16384 16390 16391/16392");
        assert_eq!(codec.bound(&Position::new(vec![7]), &Position::default()), json!(8));
    }
}
