//! The smoothed round trip and the retransmission time-out computed from it (RFC 6298), with bounds for a
//! service that must detect a dead primary within a fraction of a second.

use std::time::Duration;

/// The time-out before the first sample.
const TIMEOUT_INITIAL: Duration = Duration::from_millis(200);
/// The smallest time-out: an endpoint may acknowledge late by a turn of its loop.
const TIMEOUT_MIN: Duration = Duration::from_millis(20);
/// The largest time-out, also after back-off, so that a healed path is soon detected.
const TIMEOUT_MAX: Duration = Duration::from_secs(2);
/// G of RFC 6298: no clock or timer is believed to be finer.
const GRANULARITY: Duration = Duration::from_millis(1);
/// The most doublings; more would change nothing within the bounds.
const BACK_OFF_MAX: u32 = 7;

/// The state of RFC 6298, from the samples so far.
#[derive(Clone, Copy, Debug)]
struct Smoothed {
    mean: Duration,
    variation: Duration,
    latest: Duration,
}

/// The round trip of a link.
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Option<Smoothed>,
    back_off: u32,
}

impl RoundTrip {
    /// Adds a sample: a datagram was acknowledged this long after it was sent. No datagram is sent twice
    /// under one number, so every sample is unambiguous (Karn's problem does not arise).
    pub(super) fn sample(&mut self, latest: Duration) {
        self.smoothed = Some(match self.smoothed {
            None => Smoothed { mean: latest, variation: latest / 2, latest },
            Some(old) => Smoothed {
                variation: (old.variation * 3 + old.mean.abs_diff(latest)) / 4,
                mean: (old.mean * 7 + latest) / 8,
                latest,
            },
        });
    }

    /// A new datagram was acknowledged, so the path works: ends the back-off.
    pub(super) fn progress(&mut self) {
        self.back_off = 0;
    }

    /// A time-out passed: doubles the next one.
    pub(super) fn back_off(&mut self) {
        self.back_off = (self.back_off + 1).min(BACK_OFF_MAX);
    }

    /// The smoothed round trip; none before the first sample.
    #[cfg(test)]
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(|smoothed| smoothed.mean)
    }

    /// The retransmission time-out.
    pub(super) fn timeout(&self) -> Duration {
        let base = self.smoothed.map_or(TIMEOUT_INITIAL, |smoothed| {
            smoothed.mean.saturating_add(GRANULARITY.max(smoothed.variation.saturating_mul(4)))
        });
        base.clamp(TIMEOUT_MIN, TIMEOUT_MAX).saturating_mul(1 << self.back_off).min(TIMEOUT_MAX)
    }

    /// The time after sending at which an overtaken datagram is believed lost: 9/8 of the round trip (RFC
    /// 9002 section 6.1.2).
    pub(super) fn patience(&self) -> Duration {
        let round_trip = self.smoothed.map_or(TIMEOUT_INITIAL, |smoothed| smoothed.mean.max(smoothed.latest));
        (round_trip.saturating_mul(9) / 8).max(GRANULARITY)
    }
}
