//! Pseudo-random numbers from a seed, for jitter and nonces of no secrecy.

/// SplitMix64: the same seed gives the same numbers, everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    /// The numbers of this seed.
    pub(crate) fn new(seed: u64) -> Noise {
        Noise(seed)
    }

    /// 64 bits.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
