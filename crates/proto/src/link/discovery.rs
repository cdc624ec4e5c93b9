//! Discovery of the longest datagram that a path carries, by probes (DPLPMTUD, RFC 8899). Sizes are those of
//! UDP payloads.
//!
//! A link begins at [`DATAGRAM_BASE`]. Once it has more to send at once than fits a datagram, it tries the
//! sizes of [`LADDER`] upwards with one probe at a time: a datagram of that size with PING and PADDING. One
//! that is acknowledged raises the size. If [`PROBES_MAX`] of a size are lost, the search rests for
//! [`RAISE_EVERY`]. What ICMP says is not believed, because anybody can send it (section 4.6.1).
//!
//! Probes are sent beside the link's other datagrams, are not among those in flight, and set no timer. They
//! count for no congestion: the path may not carry them, whatever its load (section 3, point 7). One is lost
//! once it is overtaken as other datagrams are, or is not acknowledged for [`PROBE_TIMEOUT`].

use std::time::Duration;

use super::REORDER_MAX;
use crate::envelope::Ack;
use crate::id::Moment;
use crate::{DATAGRAM_BASE, DATAGRAM_MAX};

/// The sizes to try: what remains of an Ethernet frame behind PPPoE and a tunnel, of one without these
/// (1,500 bytes, less the headers of IPv6 and UDP), of half and of all of a jumbo frame of 9,000 bytes.
const LADDER: [usize; 4] = [1_372, 1_452, 4_452, DATAGRAM_MAX];
/// Probes of one size that are lost before the search rests (MAX_PROBES of RFC 8899 section 5.1.2).
const PROBES_MAX: u32 = 3;
/// The time after which a probe that was not acknowledged is lost (PROBE_TIMER of RFC 8899 section 5.1.1).
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The rest after a search that has come to its end (PMTU_RAISE_TIMER of RFC 8899 section 5.1.1).
const RAISE_EVERY: Duration = Duration::from_secs(600);
/// Times in a row that datagrams longer than the base were lost and none arrived, after which the path is
/// taken for one that does not carry them any more (RFC 8899 section 4.3: a black hole).
const BLACK_HOLE: u32 = 2;
/// The rest after a black hole. It is short, because a peer that is silent for a moment, or whose journal is
/// behind, looks like one; where it is one, the probes of the next search are lost and end it.
const BLACK_HOLE_REST: Duration = Duration::from_secs(2);

/// A probe in flight.
#[derive(Clone, Copy, Debug)]
struct Probe {
    number: u64,
    size: usize,
    at: Moment,
}

/// The probes of a link since it began, on whichever paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCounts {
    /// Those that were sent.
    pub sent: u64,
    /// Those of them that were lost.
    pub lost: u64,
}

/// The state of the search on one path.
#[derive(Debug)]
pub(super) struct Discovery {
    size: usize,
    /// The link has had more to send at once than fits a datagram.
    wanted: bool,
    probe: Option<Probe>,
    /// Probes of the next size that were lost.
    tried: u32,
    /// No probe is sent before.
    rests_until: Moment,
    /// Times in a row that long datagrams were lost.
    lost: u32,
    counts: ProbeCounts,
}

impl Default for Discovery {
    fn default() -> Discovery {
        let (size, wanted, probe) = (DATAGRAM_BASE, false, None);
        let counts = ProbeCounts::default();
        Discovery { size, wanted, probe, tried: 0, rests_until: Moment(0), lost: 0, counts }
    }
}

impl Discovery {
    /// The longest datagram that the path carries, as far as it is known.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn counts(&self) -> ProbeCounts {
        self.counts
    }

    /// Returns true if no search is under way.
    pub(super) fn rests(&self, now: Moment) -> bool {
        now < self.rests_until || LADDER.iter().all(|size| *size <= self.size)
    }

    /// The link has more to send at once than fits a datagram.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// The size to probe now, if any.
    pub(super) fn next_probe(&mut self, now: Moment) -> Option<usize> {
        if self.probe.take_if(|probe| probe.at + PROBE_TIMEOUT <= now).is_some() {
            self.on_probe_lost(now);
        }
        let rests = !self.wanted || self.probe.is_some() || now < self.rests_until;
        LADDER.into_iter().find(|size| *size > self.size).filter(|_| !rests)
    }

    pub(super) fn on_probe_sent(&mut self, number: u64, size: usize, at: Moment) {
        self.counts.sent += 1;
        self.probe = Some(Probe { number, size, at });
    }

    /// An ack came, which may name the probe or a datagram that has overtaken it.
    pub(super) fn on_ack(&mut self, now: Moment, ack: &Ack) {
        let Some(probe) = self.probe else { return };
        if ack.ranges().any(|range| range.contains(&probe.number)) {
            self.probe = None;
            self.size = probe.size;
            (self.tried, self.lost) = (0, 0);
        } else if probe.number + REORDER_MAX <= ack.largest {
            self.probe = None;
            self.on_probe_lost(now);
        }
    }

    /// A datagram of `bytes` arrived.
    pub(super) fn on_arrived(&mut self, bytes: usize) {
        if bytes > DATAGRAM_BASE {
            self.lost = 0;
        }
    }

    fn on_probe_lost(&mut self, now: Moment) {
        self.counts.lost += 1;
        self.tried += 1;
        if self.tried >= PROBES_MAX {
            self.tried = 0;
            self.rests_until = now + RAISE_EVERY;
        }
    }

    /// Datagrams are believed lost, of which the longest has so many bytes.
    pub(super) fn on_lost(&mut self, now: Moment, longest: usize) {
        if longest <= DATAGRAM_BASE || longest > self.size {
            return;
        }
        self.lost += 1;
        if self.lost >= BLACK_HOLE {
            self.on_new_path();
            self.rests_until = now + BLACK_HOLE_REST;
        }
    }

    /// The path is another one, of which nothing is known. A probe in flight says nothing about it.
    pub(super) fn on_new_path(&mut self) {
        let (wanted, counts) = (self.wanted, self.counts);
        *self = Discovery { wanted, counts, ..Discovery::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes on a path that carries so many bytes, until the search rests; the sizes tried.
    fn search(discovery: &mut Discovery, now: Moment, carries: usize) -> Vec<usize> {
        let mut tried = Vec::new();
        while let Some(size) = discovery.next_probe(now) {
            tried.push(size);
            let number = 10 * tried.len() as u64;
            discovery.on_probe_sent(number, size, now);
            assert_eq!(discovery.next_probe(now), None, "one at a time");
            discovery.on_ack(now, &ack(number - 1));
            discovery.on_ack(now, &ack(number + 2));
            assert_eq!(discovery.next_probe(now), None, "it may have been overtaken");
            discovery.on_ack(now, &ack(if size <= carries { number } else { number + 3 }));
        }
        tried
    }

    /// An ack of this number alone.
    fn ack(largest: u64) -> Ack {
        Ack { largest, first: 0, further: Vec::new() }
    }

    fn wanting() -> Discovery {
        let mut discovery = Discovery::default();
        discovery.want();
        discovery
    }

    #[test]
    fn a_link_with_little_to_send_probes_nothing() {
        assert_eq!(search(&mut Discovery::default(), Moment(0), usize::MAX), []);
    }

    #[test]
    fn the_search_goes_up_until_a_size_is_lost_three_times_and_rests_then() {
        let mut discovery = wanting();
        assert_eq!(search(&mut discovery, Moment(0), 1_472), [1_372, 1_452, 4_452, 4_452, 4_452]);
        assert_eq!(discovery.size(), 1_452);
        assert_eq!(search(&mut discovery, Moment(0) + RAISE_EVERY, usize::MAX), [4_452, DATAGRAM_MAX]);
        assert_eq!(discovery.size(), DATAGRAM_MAX);
    }

    #[test]
    fn long_datagrams_that_are_lost_twice_in_a_row_end_their_use() {
        let mut discovery = wanting();
        search(&mut discovery, Moment(0), 1_472);
        discovery.on_lost(Moment(1), 1_452);
        discovery.on_arrived(1_452);
        discovery.on_lost(Moment(2), 1_452);
        assert_eq!(discovery.size(), 1_452, "one arrived between");
        discovery.on_lost(Moment(3), 1_200);
        assert_eq!(discovery.size(), 1_452, "that one is no longer than the base");
        discovery.on_arrived(1_200);
        discovery.on_lost(Moment(4), 1_300);
        assert_eq!(discovery.size(), DATAGRAM_BASE);
        assert_eq!(search(&mut discovery, Moment(5), usize::MAX), []);
        assert_eq!(search(&mut discovery, Moment(4) + BLACK_HOLE_REST, 1_400)[0], 1_372);
    }

    #[test]
    fn a_probe_without_any_ack_is_lost_after_a_second() {
        let mut discovery = wanting();
        let mut now = Moment(0);
        for _ in 0..PROBES_MAX {
            assert_eq!(discovery.next_probe(now), Some(1_372));
            discovery.on_probe_sent(7, 1_372, now);
            now = now + PROBE_TIMEOUT;
        }
        assert_eq!(discovery.next_probe(now), None, "the search rests");
        let counts = ProbeCounts { sent: PROBES_MAX.into(), lost: PROBES_MAX.into() };
        assert_eq!((discovery.counts(), discovery.rests(now)), (counts, true));
        assert!(!discovery.rests(now + RAISE_EVERY));
        discovery.on_new_path();
        assert_eq!(discovery.counts(), counts, "they are those of the link");
    }

    #[test]
    fn another_path_begins_at_the_base_and_a_probe_of_the_old_one_raises_nothing() {
        let mut discovery = wanting();
        search(&mut discovery, Moment(0), 1_472);
        let mut discovery = Discovery { rests_until: Moment(0), ..discovery };
        discovery.on_probe_sent(50, 4_452, Moment(0));
        discovery.on_new_path();
        assert_eq!(discovery.size(), DATAGRAM_BASE);
        discovery.on_ack(Moment(0), &ack(50));
        assert_eq!(discovery.size(), DATAGRAM_BASE);
        assert_eq!(discovery.next_probe(Moment(1)), Some(1_372));
    }
}
