//! Failure detector: decides from arrival times and refused ports whether the primary is suspected.
//!
//! The signs of a failed primary (DESIGN.md section 4) are silence for T_s, a port that refuses datagrams
//! while a heartbeat is missing, and packets that say that the primary is isolated or has a new
//! incarnation. This module judges the first two. A suspicion only starts a probe; safety does not depend
//! on it.
//!
//! T_s follows the jitter of the heartbeats as the time-out of RFC 6298 follows that of round trips:
//! smoothed gap plus four deviations plus two heartbeats, within `suspect_min ..= suspect_max`.

use std::time::Duration;

use recado_proto::id::Moment;

use crate::config::Timing;

/// Refusals of a port before they count: a single one may be left over from earlier.
const REFUSALS: u32 = 2;

/// The judgement of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A heartbeat was heard in time.
    Alive,
    /// A heartbeat is missing: the primary is pinged.
    Late,
    /// Suspected by silence.
    Silent,
    /// Suspected because its port refuses.
    Refused,
}

/// The arrival times of one primary, and the judgement from them.
#[derive(Debug)]
pub(super) struct FailureDetector {
    timing: Timing,
    heard: Moment,
    gap: Duration,
    deviation: Duration,
    refusals: u32,
}

impl FailureDetector {
    pub(super) fn new(timing: Timing, now: Moment) -> FailureDetector {
        let (gap, deviation) = (timing.heartbeat, timing.heartbeat / 4);
        FailureDetector { timing, heard: now, gap, deviation, refusals: 0 }
    }

    /// The current T_s.
    pub(super) fn patience(&self) -> Duration {
        (self.gap + self.deviation * 4 + self.timing.heartbeat * 2)
            .clamp(self.timing.suspect_min, self.timing.suspect_max)
    }

    /// A valid packet of the primary arrived.
    pub(super) fn heard(&mut self, now: Moment) {
        let gap = now.since(self.heard).min(self.timing.suspect_max);
        // Several packets in a burst do not measure the gap between heartbeats.
        if gap > self.timing.heartbeat / 4 {
            self.deviation = (self.deviation * 3 + self.gap.abs_diff(gap)) / 4;
            self.gap = (self.gap * 7 + gap) / 8;
        }
        self.heard = now;
        self.refusals = 0;
    }

    /// Another primary is watched: the silence and the refusals of the former one do not count.
    pub(super) fn restart(&mut self, now: Moment) {
        self.heard = now;
        self.refusals = 0;
    }

    pub(super) fn refused(&mut self) {
        self.refusals += 1;
    }

    /// Excludes `gap` from the silence, because this process itself was late by it.
    pub(super) fn forgive(&mut self, gap: Duration) {
        self.heard = self.heard + gap;
    }

    /// When a missing heartbeat makes the verdict late.
    pub(super) fn late_at(&self) -> Moment {
        self.heard + self.timing.heartbeat * 5 / 4
    }

    /// When silence makes the primary suspected.
    pub(super) fn silent_at(&self) -> Moment {
        self.heard + self.patience()
    }

    pub(super) fn verdict(&self, now: Moment) -> Verdict {
        if now >= self.silent_at() {
            Verdict::Silent
        } else if now < self.late_at() {
            Verdict::Alive
        } else if self.refusals >= REFUSALS {
            Verdict::Refused
        } else {
            Verdict::Late
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: Duration = Timing::DEFAULT.heartbeat;

    fn beating(jitter: &[u64]) -> (FailureDetector, Moment) {
        let mut now = Moment(1_000_000);
        let mut detector = FailureDetector::new(Timing::DEFAULT, now);
        for n in 0..100 {
            now = now + H + Duration::from_millis(jitter[n % jitter.len()]);
            detector.heard(now);
        }
        (detector, now)
    }

    #[test]
    fn a_steady_primary_is_suspected_after_the_least_patience() {
        let (detector, now) = beating(&[0]);
        assert_eq!(detector.patience(), Timing::DEFAULT.suspect_min);
        assert_eq!(detector.verdict(now + Timing::DEFAULT.suspect_min), Verdict::Silent);
        assert_eq!(detector.verdict(now + H), Verdict::Alive);
    }

    #[test]
    fn jitter_buys_patience_up_to_the_limit() {
        let (calm, _) = beating(&[0]);
        let (rough, _) = beating(&[0, 150]);
        assert!(rough.patience() > calm.patience());
        let (wild, _) = beating(&[0, 5_000]);
        assert_eq!(wild.patience(), Timing::DEFAULT.suspect_max);
    }

    #[test]
    fn a_refused_port_counts_only_with_a_missing_heartbeat_and_only_twice() {
        let (mut detector, now) = beating(&[0]);
        detector.refused();
        assert_eq!(detector.verdict(now + H * 2), Verdict::Late);
        detector.refused();
        assert_eq!(detector.verdict(now + H), Verdict::Alive);
        assert_eq!(detector.verdict(now + H * 2), Verdict::Refused);
    }

    #[test]
    fn ones_own_lateness_is_not_the_primarys() {
        let (mut detector, now) = beating(&[0]);
        let stopped = Duration::from_secs(5);
        detector.forgive(stopped);
        assert_eq!(detector.verdict(now + stopped), Verdict::Alive);
    }

    #[test]
    fn what_refused_before_another_primary_was_watched_does_not_count() {
        let (mut detector, now) = beating(&[0]);
        detector.refused();
        detector.restart(now);
        detector.refused();
        assert_eq!(detector.verdict(now + H * 2), Verdict::Late);
        detector.refused();
        assert_eq!(detector.verdict(now + H * 2), Verdict::Refused);
    }

    #[test]
    fn a_single_refusal_counts_for_nothing_before_the_first_heartbeat_too() {
        let now = Moment(1_000_000);
        let mut detector = FailureDetector::new(Timing::DEFAULT, now);
        detector.refused();
        assert_eq!(detector.verdict(now + H * 2), Verdict::Late);
    }

    #[test]
    fn what_refused_before_a_heartbeat_does_not_count_after_it() {
        let (mut detector, now) = beating(&[0]);
        detector.refused();
        detector.heard(now + H);
        detector.refused();
        assert_eq!(detector.verdict(now + H * 3), Verdict::Late);
    }

    /// A detector that has heard nothing yet, and whose patience may be short.
    fn impatient() -> (FailureDetector, Moment) {
        let now = Moment(1_000_000);
        (FailureDetector::new(Timing { suspect_min: H * 2, ..Timing::DEFAULT }, now), now)
    }

    #[test]
    fn patience_is_the_smoothed_gap_plus_four_deviations_plus_two_heartbeats() {
        let (mut detector, now) = impatient();
        assert_eq!(detector.patience(), Duration::from_millis(40 + 4 * 10 + 80));
        // A gap of two heartbeats counts for an eighth of the smoothed gap, which becomes 45 ms. Its
        // difference to the smoothed gap counts for a quarter of the deviation, which becomes 17.5 ms.
        detector.heard(now + H * 2);
        assert_eq!(detector.patience(), Duration::from_millis(45 + 70 + 80));
    }

    #[test]
    fn packets_up_to_a_quarter_of_a_heartbeat_apart_measure_no_gap() {
        for (apart, measured) in [(H / 4, false), (H / 4 + Duration::from_micros(1), true)] {
            let (mut detector, now) = impatient();
            let before = detector.patience();
            detector.heard(now + apart);
            assert_eq!(detector.patience() != before, measured, "{apart:?}");
        }
    }
}
