//! The congestion window: additive increase, multiplicative decrease, in bytes (RFC 8085 section
//! 3.1, as RFC 5681 does it), with slow start.

use crate::DATAGRAM_BASE;

/// The window of a new link. A new primary has to reach many peers and clients at once.
const WINDOW_INITIAL: usize = 16 * DATAGRAM_BASE;
/// The smallest window; it lets something be sent at any time.
pub(super) const WINDOW_MIN: usize = 2 * DATAGRAM_BASE;
/// The largest window; a socket's buffer holds hardly more.
const WINDOW_MAX: usize = 512 * DATAGRAM_BASE;

/// The window of a link.
#[derive(Debug)]
pub(super) struct Congestion {
    window: usize,
    /// The slow-start threshold: above it, growth is linear.
    threshold: usize,
    /// Losses of numbers up to this one belong to a round trip for which the window has been decreased.
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

    /// A datagram of `bytes` was acknowledged while `flight` bytes were in flight. A window of which less
    /// than half was used does not grow, because it was not tried (RFC 9002 section 7.8).
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
                self.window += DATAGRAM_BASE;
            }
        }
        self.window = self.window.min(WINDOW_MAX);
    }

    /// A datagram was lost when `last` was the last number sent: the window is halved, once per round trip.
    pub(super) fn on_lost(&mut self, number: u64, last: u64) {
        if number > self.settled {
            self.threshold = (self.window / 2).max(WINDOW_MIN);
            self.window = self.threshold;
            self.settled = last;
            self.credit = 0;
        }
    }

    /// A retransmission time-out: everything up to `last` is lost, and the window restarts from its minimum.
    pub(super) fn collapse(&mut self, last: u64) {
        self.on_lost(last, last);
        self.window = WINDOW_MIN;
        self.settled = last;
    }
}
