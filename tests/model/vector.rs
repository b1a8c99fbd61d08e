//! Ids of a source with several partitions, as plain as can be: `v3.0.7`.

use ssegate::hub::{Decoded, IdCodec, Position};

/// Portable, and without a single order, like Kafka's.
#[derive(Debug)]
pub struct VectorCodec;

impl VectorCodec {
    /// The id of a position.
    pub fn id(next: &[u64]) -> String {
        let mut id = String::new();
        Self.encode(&Position::new(next.to_vec()), &mut id);
        id
    }

    /// The position that `id` says.
    pub fn position(id: &str) -> Option<Position> {
        let parts = id.strip_prefix('v')?.split('.').filter(|part| !part.is_empty());
        parts.map(|next| next.parse().ok()).collect::<Option<_>>().map(Position::new)
    }
}

impl IdCodec for VectorCodec {
    fn encode(&self, position: &Position, out: &mut String) {
        let parts: Vec<_> = position.as_slice().iter().map(u64::to_string).collect();
        out.push('v');
        out.push_str(&parts.join("."));
    }

    fn decode(&self, id: &str) -> Decoded {
        Self::position(id).map_or(Decoded::Unknown, Decoded::Position)
    }

    fn single_order(&self) -> bool {
        false
    }
}
