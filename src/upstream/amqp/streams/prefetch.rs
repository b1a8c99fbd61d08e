//! How many messages of a stream may be under way: RabbitMQ counts them and not their bytes, so what came tells how large they
//! are. Pure.

/// The messages that may be under way, and how large they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefetch {
    count: u16,
    /// Bytes of the largest of late.
    largest: usize,
}

impl Prefetch {
    /// Few, since nothing is known yet.
    pub(super) fn new() -> Self {
        Self { count: FEW, largest: 0 }
    }

    /// For who wants one alone.
    pub(super) fn one() -> Self {
        Self { count: 1, largest: 0 }
    }

    /// So many.
    pub(super) fn count(self) -> u16 {
        self.count
    }

    /// Takes note of the sizes of messages that came. Returns whether it is another number now: it follows sizes from afar,
    /// since a consumer has to be replaced for it.
    pub(super) fn note(&mut self, sizes: impl Iterator<Item = usize>) -> bool {
        self.largest = sizes.fold(self.largest - self.largest / 8, usize::max);
        let fit = (BYTES / self.largest.max(1)).clamp(1, usize::from(MOST)) as u16;
        let is_far = fit > self.count.saturating_mul(2) || fit < self.count / 2;
        if is_far {
            self.count = fit;
        }
        is_far
    }
}

const FEW: u16 = 16;
const MOST: u16 = 256;
/// Bytes that may be under way, or twice as many; more only where messages are suddenly larger than those before.
const BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_few_where_messages_are_large() {
        let mut prefetch = Prefetch::new();
        let mut came = |size: usize| (prefetch.note([size / 2, size].into_iter()), prefetch.count());
        assert_eq!(came(100), (true, MOST));
        assert_eq!(came(20_000), (false, MOST));
        assert_eq!(came(64 << 10), (true, 64));
        assert_eq!(came(16 << 20), (true, 1));
        assert_eq!(came(4 << 20), (false, 1));
        let mut counts = Vec::new();
        for _ in 0..100 {
            if let (true, count) = came(100) {
                counts.push(count);
            }
        }
        assert!(counts.is_sorted() && counts.len() < 10, "by and by: {counts:?}");
        assert!(counts.last().is_some_and(|count| *count > MOST / 2));
    }

    #[test]
    fn what_is_under_way_has_a_bound() {
        for size in [1, 1_000, 30_000, 100_000, 1 << 20, 3 << 20] {
            let mut prefetch = Prefetch::new();
            prefetch.note(std::iter::once(size));
            prefetch.note(std::iter::once(size));
            assert!(usize::from(prefetch.count()) * size <= 2 * BYTES + size, "{size}");
        }
    }
}
