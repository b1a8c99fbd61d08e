//! Inputs near to those of a corpus, always the same ones: what libFuzzer does first, without its eye for new ways taken.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// Makes inputs of seeds.
pub struct Mutator<'s> {
    seeds: &'s [Vec<u8>],
    random: StdRng,
}

impl<'s> Mutator<'s> {
    /// Of these seeds, of which there is one at least.
    pub fn new(seeds: &'s [Vec<u8>]) -> Self {
        Self { seeds, random: StdRng::seed_from_u64(0) }
    }

    /// The next one: a seed with one change or a few.
    pub fn input(&mut self) -> Vec<u8> {
        let mut input = self.seed().to_vec();
        for _ in 0..self.random.random_range(1..=4) {
            self.change(&mut input);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.random_range(0..=input.len());
        let end = at + self.random.random_range(0..=SPAN.min(input.len() - at));
        match self.random.random_range(0..6) {
            0 => drop(input.drain(at..end)),
            1 => {
                let twice = input[at..end].to_vec();
                input.splice(at..at, twice);
            }
            2 => {
                let other = self.seed();
                let from = self.random.random_range(0..=other.len());
                let piece = &other[from..(from + SPAN).min(other.len())];
                input.splice(at..end, piece.iter().copied());
            }
            3 => input.insert(at, self.byte()),
            4 if at < input.len() => input[at] = self.byte(),
            _ if at < input.len() => input[at] ^= 1 << self.random.random_range(0..8),
            _ => input.push(self.byte()),
        }
    }

    fn seed(&mut self) -> &'s [u8] {
        self.seeds.choose(&mut self.random).expect("a corpus is not empty")
    }

    /// Any, though more often one that means something somewhere.
    fn byte(&mut self) -> u8 {
        if self.random.random() {
            *SIGNS.choose(&mut self.random).expect("there are some")
        } else {
            self.random.random()
        }
    }
}

/// Bytes that are taken away or copied at a time.
const SPAN: usize = 16;
const SIGNS: &[u8] = b"\0\t\n\r !\"#$%&'*+,-./0129:;=?@AZ[\\]^_`az{|}~\x7f\x80\xc3\xff";
