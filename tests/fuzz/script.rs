//! Reads a fuzz input as numbers and strings, one after another, and as zeros after its end.

/// The rest of the input.
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn of(input: &'a [u8]) -> Script<'a> {
        Script(input)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn number<const BYTES: usize>(&mut self) -> u64 {
        self.bytes(BYTES).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Returns a number below `limit`, which must not be zero.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.number::<2>() as usize % limit
    }

    pub(crate) fn pick<'b, T>(&mut self, among: &'b [T]) -> &'b T {
        &among[self.below(among.len())]
    }

    /// Changes `bytes` in up to seven places, or not at all.
    pub(crate) fn corrupt(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.number::<1>() % 8 {
            let at = self.below(bytes.len() + 1);
            let after = bytes.len() - at;
            match self.number::<1>() % 7 {
                0 if after > 0 => bytes[at] ^= 1 << (self.number::<1>() % 8),
                1 if after > 0 => bytes[at] = self.number::<1>() as u8,
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..at + self.below(after + 1).min(8))),
                4 => {
                    let more = self.number::<1>() as usize % 16;
                    let more = self.bytes(more).to_vec();
                    drop(bytes.splice(at..at, more));
                }
                // Lengths and numbers at their maximum, with the codec's markers of wide integers.
                5 => {
                    let mark = 0xfb + (self.number::<1>() % 4) as u8;
                    let wide = [mark, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
                    drop(bytes.splice(at..at + after.min(1), wide));
                }
                6 => {
                    let piece = bytes[at..at + after.min(16)].to_vec();
                    drop(bytes.splice(at..at, piece));
                }
                _ => {}
            }
        }
    }
}
