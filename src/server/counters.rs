//! Counters of datagrams, those refused, by reason, and those that the system did not send; and what tells
//! whether a server is alive: the replica thread's turns, and how slow its disk is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use recado_proto::id::Moment;
use recado_proto::packet::RefusedDatagram;

/// Counters of one server, shared by its threads. They only grow and are read one by one: no counter
/// depends on another, so relaxed ordering is enough.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// By the number of the reason.
    refused: [AtomicU64; RefusedDatagram::ALL.len()],
    unsent: AtomicU64,
    turns: AtomicU64,
    catches_up: AtomicBool,
    /// A recent slow sync of the journal in us: the slowest, of which each later one takes an eighth away.
    sync_us: AtomicU64,
    /// When the sync that is under way began, in us of the server's clock, plus one; zero without one.
    syncs_since: AtomicU64,
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

    /// Counts a turn of the replica thread, which has one a second at least, and tells whether the server
    /// catches up.
    pub(super) fn turn(&self, catches_up: bool) {
        self.catches_up.store(catches_up, Ordering::Relaxed);
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the server was catching up at the end of the last turn.
    pub(super) fn catches_up(&self) -> bool {
        self.catches_up.load(Ordering::Relaxed)
    }

    /// The journal thread begins a sync.
    pub(super) fn sync_begins(&self, now: Moment) {
        self.syncs_since.store(now.0.saturating_add(1), Ordering::Relaxed);
    }

    /// The sync has ended. Only the journal thread writes these.
    pub(super) fn sync_ends(&self, now: Moment) {
        let took = self.sync_under_way(now);
        let before = self.sync_us.load(Ordering::Relaxed);
        self.sync_us.store(took.max(before - before / 8), Ordering::Relaxed);
        self.syncs_since.store(0, Ordering::Relaxed);
    }

    /// How long a recent slow sync took, that under way too.
    pub(super) fn slow_sync(&self, now: Moment) -> Duration {
        Duration::from_micros(self.sync_us.load(Ordering::Relaxed).max(self.sync_under_way(now)))
    }

    fn sync_under_way(&self, now: Moment) -> u64 {
        let since = self.syncs_since.load(Ordering::Relaxed);
        since.checked_sub(1).map_or(0, |since| now.0.saturating_sub(since))
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
    fn a_slow_sync_counts_while_it_is_under_way_and_is_forgotten_after_many_quick_ones() {
        let counters = Counters::default();
        let sync = |from, to| {
            counters.sync_begins(Moment(from));
            counters.sync_ends(Moment(to));
        };
        let slow = |now| counters.slow_sync(Moment(now)).as_micros();
        assert_eq!(slow(0), 0);
        counters.sync_begins(Moment(0));
        assert_eq!((slow(0), slow(8_000)), (0, 8_000), "under way");
        counters.sync_ends(Moment(8_000));
        assert_eq!(slow(1_000_000), 8_000);
        sync(9_000, 9_100);
        assert_eq!(slow(9_200), 7_000);
        (0..100).for_each(|n| sync(10_000 + n * 1_000, 10_000 + n * 1_000 + 100));
        assert!(slow(200_000) <= 107, "{}", slow(200_000));
    }

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
