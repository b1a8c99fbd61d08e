//! Which records of a feed are kept, where a route wants one in so many. What its upstream numbers is judged by its place
//! there, so that every replica keeps the same, in its log and of history; other logs count.

use super::position::Mark;
use crate::config::{BILLION, Sample};

/// Whether the record that carries `mark` is kept.
pub fn keeps(sample: Sample, mark: Mark) -> bool {
    let place = mark.next.major ^ mark.next.minor.rotate_left(40) ^ u64::from(mark.partition).rotate_left(52);
    let part = (u128::from(scattered(place)) * u128::from(BILLION)) >> 64;
    part < u128::from(sample.of_billion)
}

/// Counts the records of a log that numbers them itself.
#[derive(Debug, Default)]
pub struct Count(u32);

impl Count {
    /// Whether the next is kept: as evenly as can be.
    pub fn keeps(&mut self, sample: Sample) -> bool {
        self.0 += sample.of_billion;
        let keeps = self.0 >= BILLION;
        self.0 -= if keeps { BILLION } else { 0 };
        keeps
    }
}

/// Numbers that look like any, of numbers in a row: the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn scattered(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Offset;

    fn sample(percent: u32) -> Sample {
        Sample { of_billion: BILLION / 100 * percent }
    }

    #[test]
    fn the_part_that_is_kept_is_the_part_that_is_wanted() {
        for percent in [1, 10, 50, 99] {
            let expected = 100_000 / 100 * percent as usize;
            let offsets = (1..=100_000).filter(|&next| keeps(sample(percent), Mark::new(3, next))).count();
            // Entries of a Redis stream, ten in each millisecond.
            let entry = |n: u64| Mark {
                partition: 0,
                next: Offset { major: 1_700_000_000_000 + n / 10, minor: n % 10 },
            };
            let entries = (0..100_000).filter(|&n| keeps(sample(percent), entry(n))).count();
            for kept in [offsets, entries] {
                assert!(kept.abs_diff(expected) < 700, "{kept} and not {expected}");
            }
            let mut count = Count::default();
            assert_eq!((0..100_000).filter(|_| count.keeps(sample(percent))).count(), expected);
        }
        assert!((0..1_000).all(|next| keeps(sample(100), Mark::new(0, next))));
        let mut third = Count::default();
        let kept: Vec<_> = (0..9).filter(|_| third.keeps(Sample { of_billion: BILLION / 3 + 1 })).collect();
        assert_eq!(kept, [2, 5, 8]);
    }
}
