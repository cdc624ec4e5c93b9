//! Counters of datagrams, those refused, by reason, and those that the system did not send; and of the
//! replica thread's turns.

use std::sync::atomic::{AtomicU64, Ordering};

use recado_proto::packet::RefusedDatagram;

/// Counters of one server, shared by its threads. They only grow and are read one by one: no counter
/// depends on another, so relaxed ordering is enough.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// By the number of the reason.
    refused: [AtomicU64; RefusedDatagram::ALL.len()],
    unsent: AtomicU64,
    turns: AtomicU64,
}

impl Counters {
    /// Counts a refused datagram.
    pub(super) fn refuse(&self, reason: RefusedDatagram) {
        if let Some(count) = self.refused.get(usize::from(u16::from(reason))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts datagrams that the system did not take for sending.
    pub(super) fn unsent(&self, datagrams: usize) {
        self.unsent.fetch_add(datagrams as u64, Ordering::Relaxed);
    }

    /// The number of datagrams that the system did not take so far.
    pub(super) fn unsent_so_far(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }

    /// Counts a turn of the replica thread, which has one a second at least.
    pub(super) fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of turns so far.
    pub(super) fn turns_so_far(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// The datagrams refused so far, for the status: only the reasons that occurred.
    pub(super) fn refused_so_far(&self) -> Vec<(RefusedDatagram, u64)> {
        let counts = self.refused.iter().map(|count| count.load(Ordering::Relaxed));
        RefusedDatagram::ALL.iter().copied().zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_in_its_own_slot() {
        let counters = Counters::default();
        for (times, reason) in (1u64..).zip(RefusedDatagram::ALL) {
            (0..times).for_each(|_| counters.refuse(*reason));
        }
        let expected: Vec<_> = RefusedDatagram::ALL.iter().copied().zip(1u64..).collect();
        assert_eq!(counters.refused_so_far(), expected);
    }
}
