//! Random numbers for the pure modules, which draw on no global source.

use std::fmt;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Random numbers from a seed: a pure module's only source of them. Seeded from the system's, they
/// are as good as those (ChaCha20).
#[derive(Clone)]
pub struct Entropy(ChaCha20Rng);

impl Entropy {
    /// From a seed, which must be secret and random where keys are drawn.
    pub fn new(seed: [u8; 32]) -> Entropy {
        Entropy(ChaCha20Rng::from_seed(seed))
    }

    /// From a number, where nothing is secret: jitter.
    pub fn from_number(seed: u64) -> Entropy {
        Entropy(ChaCha20Rng::seed_from_u64(seed))
    }

    /// A number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// So many bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

/// Without what it holds: keys are drawn from it.
impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entropy").finish_non_exhaustive()
    }
}
