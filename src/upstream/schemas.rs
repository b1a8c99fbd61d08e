//! Whether records can be decoded now, and waiting until they can. Sources that can pause ask this before they append
//! records, or read them into a segment, and hand over those up to the first that has to wait. What cannot pause is kept
//! by [`super::waiting`].

use std::sync::Arc;
use std::time::Duration;

use crate::schema::{Pins, Registry, SchemaId};
use crate::shape::{Record, Shape};

/// What became of the question.
pub(super) struct Ready {
    /// How many records, from the first on, can be appended now.
    pub records: usize,
    /// What the others wait for.
    pub missing: Missing,
    /// Keeps the schemas at hand until that is done.
    pub pins: Pins,
}

/// Schemas that are not at hand.
#[derive(Default)]
pub(super) struct Missing(Vec<(Arc<Registry>, SchemaId)>);

/// Looks how many of these records can be decoded for feeds of these shapes.
pub(super) fn look<'s, R: Record>(
    shapes: impl Iterator<Item = &'s Shape> + Clone,
    records: impl Iterator<Item = R>,
) -> Ready {
    let mut ready = Ready { records: 0, missing: Missing::default(), pins: Pins::default() };
    let asking = shapes.filter(|shape| shape.decode.asks());
    for record in records {
        for (registry, id) in asking.clone().filter_map(|shape| shape.needs(&record)) {
            if !registry.has(id, &mut ready.pins) {
                ready.missing.add(registry, id);
            }
        }
        if ready.missing.is_empty() {
            ready.records += 1;
        } else if ready.missing.0.len() >= AT_ONCE {
            break;
        }
    }
    ready
}

/// Whether a record can be decoded now. What it takes then stays at hand with `pins`.
pub(super) fn is_ready(shape: &Shape, record: &impl Record, pins: &mut Pins) -> bool {
    shape.needs(record).is_none_or(|(registry, id)| registry.has(id, pins))
}

/// Waits until all of these records can be decoded. What they take stays at hand with what is returned. Where nobody asks for
/// schemas no record is looked at.
///
/// # Errors
/// Why they cannot for now. It is tried on, as long as somebody comes back for it.
pub(super) async fn have<'s, R: Record>(
    shapes: impl Iterator<Item = &'s Shape> + Clone,
    records: impl Iterator<Item = R> + Clone,
) -> Result<Pins, String> {
    if !shapes.clone().any(|shape| shape.decode.asks()) {
        return Ok(Pins::default());
    }
    loop {
        let ready = look(shapes.clone(), records.clone());
        if ready.missing.is_empty() {
            return Ok(ready.pins);
        }
        ready.missing.learn(PATIENCE).await?;
    }
}

impl Missing {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether none of them is missing any more.
    pub fn is_over(&self) -> bool {
        let mut pins = Pins::default();
        self.0.iter().all(|(registry, id)| registry.has(*id, &mut pins))
    }

    /// Asks for all of them.
    ///
    /// # Errors
    /// Why one is still missing.
    pub async fn learn(&self, patience: Duration) -> Result<(), String> {
        for one in self.0.chunk_by(|(a, _), (b, _)| a == b) {
            let ids: Vec<_> = one.iter().map(|(_, id)| *id).collect();
            one[0].0.learn(&ids, patience).await?;
        }
        Ok(())
    }

    fn add(&mut self, registry: &Arc<Registry>, id: SchemaId) {
        if !self.0.iter().any(|(other, known)| *known == id && other == registry) {
            self.0.push((Arc::clone(registry), id));
        }
    }
}

/// The most schemas that are asked for in one go.
const AT_ONCE: usize = 64;
/// How long an answer is waited for, by those who hold nothing up but what needs it.
const PATIENCE: Duration = Duration::from_secs(1);
