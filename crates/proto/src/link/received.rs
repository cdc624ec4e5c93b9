//! The packet numbers received: the replay window (RFC 6479's ring of words) and the ack made from it.

use crate::envelope::{Ack, AckRange};

/// The words of the ring; one of them is always partly ahead of the window.
const WORDS: u64 = 32;

/// The length of the replay window: a number this far or further below the highest is refused.
pub(super) const WINDOW: u64 = (WORDS - 1) * u64::BITS as u64;

/// The numbers received.
#[derive(Debug, Default)]
pub struct Received {
    ring: [u64; WORDS as usize],
    largest: u64,
    unacknowledged: u32,
}

impl Received {
    /// Records a number; false if it came before, is below the replay window, or is zero, which is not used.
    pub fn accept(&mut self, number: u64) -> bool {
        if number == 0 || self.largest.saturating_sub(number) >= WINDOW || self.holds(number) {
            return false;
        }
        if number > self.largest {
            let stale = (number / 64).saturating_sub(self.largest / 64).min(WORDS);
            for word in 0..stale {
                self.ring[slot(number / 64 - word)] = 0;
            }
            self.largest = number;
        }
        self.ring[slot(number / 64)] |= 1 << (number % 64);
        self.unacknowledged = self.unacknowledged.saturating_add(1);
        true
    }

    /// The current ack, with the highest ranges; none before the first number.
    pub fn ack(&self) -> Option<Ack> {
        let largest = (self.largest != 0).then_some(self.largest)?;
        let mut ranges = self.ranges();
        let (_, first) = ranges.next()?;
        let further = ranges.take(Ack::RANGES_MAX - 1).map(|(gap, length)| AckRange { gap: gap - 1, length });
        Some(Ack { largest, first, further: further.collect() })
    }

    /// The ranges of numbers received that the ring has, from the highest down: the count of numbers between
    /// the range above and this one, and the count of numbers in it, less one.
    fn ranges(&self) -> impl Iterator<Item = (u16, u16)> {
        let mut next = Some(self.largest);
        std::iter::from_fn(move || {
            let from = next?;
            let gap = self.run(from, false);
            let last = from.checked_sub(gap)?;
            let length = self.run(last, true);
            next = last.checked_sub(length);
            Some((gap as u16, length.checked_sub(1)? as u16))
        })
    }

    /// The length of the run of numbers from `from` downwards that were all received, or all not received. It
    /// ends where the ring ends.
    fn run(&self, from: u64, received: bool) -> u64 {
        let mut length = 0;
        loop {
            let at = from.checked_sub(length).filter(|at| self.largest / 64 - at / 64 < WORDS);
            let Some(at) = at else { return length };
            let above = self.ring[slot(at / 64)] << (63 - at % 64);
            let same = if received { above.leading_ones() } else { above.leading_zeros() };
            let left = at % 64 + 1;
            length += u64::from(same).min(left);
            if u64::from(same) < left {
                return length;
            }
        }
    }

    /// The number of datagrams received since the last [`Received::acknowledged`].
    pub fn unacknowledged(&self) -> u32 {
        self.unacknowledged
    }

    /// Records that an ack is being sent.
    pub fn acknowledged(&mut self) {
        self.unacknowledged = 0;
    }

    /// Returns true if a number within the window was received.
    fn holds(&self, number: u64) -> bool {
        number <= self.largest && self.ring[slot(number / 64)] >> (number % 64) & 1 == 1
    }
}

fn slot(word: u64) -> usize {
    (word % WORDS) as usize
}
