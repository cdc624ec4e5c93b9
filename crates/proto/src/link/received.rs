//! The packet numbers received: the replay window (RFC 6479's ring of words) and the ack made from it.

use crate::envelope::Ack;

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

    /// The current ack; none before the first number.
    pub fn ack(&self) -> Option<Ack> {
        let largest = (self.largest != 0).then_some(self.largest)?;
        let bits = (0..u64::from(u64::BITS)).filter(|bit| largest > bit + 1 && self.holds(largest - 1 - bit));
        Some(Ack { largest, bits: bits.fold(0, |bits, bit| bits | 1 << bit) })
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
