//! The congestion window: additive increase, multiplicative decrease, in bytes (RFC 8085 section
//! 3.1, as RFC 5681 does it), with slow start.

use crate::wire::DATAGRAM_MAX;

/// The window of a fresh link. A primary that just took over has to reach many at once.
const WINDOW_INITIAL: usize = 16 * DATAGRAM_MAX;
/// The window is at least this, so that something always moves.
pub(super) const WINDOW_MIN: usize = 2 * DATAGRAM_MAX;
/// The window is at most this: a socket's buffer holds hardly more.
const WINDOW_MAX: usize = 512 * DATAGRAM_MAX;

/// The window of a link.
#[derive(Debug)]
pub(super) struct Congestion {
    window: usize,
    /// Above it, growth is linear.
    threshold: usize,
    /// Losses up to this number belong to a round trip that has had its decrease.
    settled: u64,
    /// Bytes acknowledged since the last linear step.
    credit: usize,
}

impl Default for Congestion {
    fn default() -> Self {
        Congestion { window: WINDOW_INITIAL, threshold: WINDOW_MAX, settled: 0, credit: 0 }
    }
}

impl Congestion {
    /// The window, in bytes.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// A datagram of `bytes` arrived, while `flight` bytes were under way. A window that is not half
    /// used has not been tried and does not grow (RFC 9002 section 7.8).
    pub(super) fn on_acked(&mut self, number: u64, bytes: usize, flight: usize) {
        if number <= self.settled || flight.saturating_mul(2) < self.window {
            return;
        }
        if self.window < self.threshold {
            self.window += bytes;
        } else {
            self.credit += bytes;
            if self.credit >= self.window {
                self.credit -= self.window;
                self.window += DATAGRAM_MAX;
            }
        }
        self.window = self.window.min(WINDOW_MAX);
    }

    /// A datagram was lost, when `last` was the last number sent: halves, once a round trip.
    pub(super) fn on_lost(&mut self, number: u64, last: u64) {
        if number > self.settled {
            self.threshold = (self.window / 2).max(WINDOW_MIN);
            self.window = self.threshold;
            self.settled = last;
            self.credit = 0;
        }
    }

    /// A time-out: everything up to `last` was lost, start again from the minimum.
    pub(super) fn collapse(&mut self, last: u64) {
        self.on_lost(last, last);
        self.window = WINDOW_MIN;
        self.settled = last;
    }
}
