//! Random numbers for the pure modules, which use no global source.

use std::fmt;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A ChaCha20 generator: the only source of random numbers in a pure module. With a seed of the system's
/// randomness its output is fit for keys.
#[derive(Clone)]
pub struct Entropy(ChaCha20Rng);

impl Entropy {
    /// A generator from a seed, which must be secret and random where keys are drawn.
    pub fn new(seed: [u8; 32]) -> Entropy {
        Entropy(ChaCha20Rng::from_seed(seed))
    }

    /// A generator from a number, for uses where nothing is secret, such as jitter.
    pub fn from_number(seed: u64) -> Entropy {
        Entropy(ChaCha20Rng::seed_from_u64(seed))
    }

    /// The next 64 bits.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// Fills `bytes` with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

/// Prints nothing of the state, because keys are drawn from it.
impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entropy").finish_non_exhaustive()
    }
}
