//! Client backoff: bounds how much is asked at once, and when, while the primary refuses for a passing
//! reason.
//!
//! Before the first refusal, only the outbox and the table of queries bound what is under way. When the
//! primary refuses (the session's budget is exhausted, a queue is full, nothing can be committed), the client
//! asks nothing for the time that the refusal names, doubled with each refusal in a row, plus jitter, so that
//! clients refused together do not come back together. Then it sends one request and one query, and each
//! answer admits one more of each, as in TCP's slow start after a loss (RFC 5681, section 3.1). So any number
//! of waiting requests proceeds at the rate of the budget, and few of them are refused.

use std::time::Duration;

use recado_proto::id::Moment;

/// The longest wait, without jitter: no longer than the election of a new primary takes.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// How often the wait is doubled: the shortest that a server may name, 10 ms, reaches the longest then.
const DOUBLED_MAX: u32 = 7;

/// The backoff of a session, with the primary that serves it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// The number of the oldest requests, and of the oldest queries, that may be under way.
    window: usize,
    /// The number of refusals in a row.
    refusals: u32,
    /// The time before which nothing is asked.
    until: Moment,
    /// The wait that the last refusal named.
    hint: Duration,
}

impl Backoff {
    /// The state before any refusal.
    pub(super) fn none() -> Backoff {
        Backoff { window: usize::MAX, refusals: 0, until: Moment(0), hint: Duration::ZERO }
    }

    /// The number of the oldest requests, and of the oldest queries, that may be under way.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// Returns true if nothing may be asked at `now`.
    pub(super) fn waits(&self, now: Moment) -> bool {
        now < self.until
    }

    /// The time at which a request that is due at `at` may be sent.
    pub(super) fn earliest(&self, at: Moment) -> Moment {
        at.max(self.until)
    }

    /// A request or query was refused for `wait`. `place` is its position among those of its kind, the
    /// oldest at 0. Among refusals of requests that were under way together only the first counts.
    pub(super) fn refused(&mut self, now: Moment, place: usize, wait: Duration, noise: u64) {
        if self.waits(now) || place >= self.window {
            return;
        }
        self.hint = wait.min(WAIT_MAX);
        let wait = (wait * (1 << self.refusals.min(DOUBLED_MAX))).min(WAIT_MAX);
        let jitter = noise % (wait.as_micros() as u64 / 4).max(1);
        self.until = now + wait + Duration::from_micros(jitter);
        self.refusals += 1;
        self.window = 1;
    }

    /// The request at this position is too far ahead of the oldest for the server.
    pub(super) fn too_far(&mut self, place: usize) {
        self.window = self.window.min(place.max(1));
    }

    /// An answer came. So the primary serves, and only its last hint remains to be waited for: if a request
    /// used up the budget that a query needed, the budget is full again by then. An answer to a request
    /// asked before the last refusal does not widen the window.
    pub(super) fn answered(&mut self, now: Moment) {
        self.refusals = 0;
        if self.waits(now) {
            self.until = self.until.min(now + self.hint);
        } else {
            self.window = self.window.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HINT: Duration = Duration::from_millis(20);

    fn ms(ms: u64) -> Moment {
        Moment(ms * 1_000)
    }

    #[test]
    fn refusals_of_what_was_under_way_together_count_once() {
        let mut backoff = Backoff::none();
        for place in [7, 0, 3] {
            backoff.refused(ms(100), place, HINT, 0);
        }
        assert_eq!((backoff.window(), backoff.earliest(ms(0))), (1, ms(120)), "as long as the server says");
        for place in [3, 1] {
            backoff.refused(ms(120), place, HINT, 0);
            assert!(!backoff.waits(ms(120)), "one that was asked before, at {place}");
        }
        backoff.refused(ms(120), 0, HINT, 0);
        assert_eq!(backoff.earliest(ms(0)), ms(160), "in a row");
    }

    #[test]
    fn a_client_that_is_always_refused_retries_once_a_second_and_not_with_others() {
        let (mut backoff, mut now, mut noise) = (Backoff::none(), ms(0), 0);
        for _ in 0..100 {
            noise += 77_777;
            backoff.refused(now, 0, HINT * 10, noise);
            let next = backoff.earliest(now);
            assert!(next > now && next.since(now) < WAIT_MAX * 5 / 4);
            now = next;
        }
        let mut other = backoff;
        backoff.refused(now, 0, HINT, 1_000);
        other.refused(now, 0, HINT, 2_000);
        assert_ne!(backoff.earliest(now), other.earliest(now));
    }

    #[test]
    fn each_answer_after_the_wait_lets_one_more_go() {
        let mut backoff = Backoff::none();
        backoff.answered(ms(1));
        assert_eq!(backoff.window(), usize::MAX);
        backoff.refused(ms(2), 5, HINT, 0);
        backoff.answered(ms(3));
        assert_eq!(backoff.window(), 1, "of what was asked before");
        backoff.answered(ms(22));
        backoff.answered(ms(22));
        assert_eq!(backoff.window(), 3);
        backoff.refused(ms(23), 2, HINT, 0);
        assert_eq!((backoff.window(), backoff.earliest(ms(0))), (1, ms(43)), "not in a row any more");
    }

    #[test]
    fn a_query_refused_beside_an_answered_request_waits_no_longer_than_its_retry_ms() {
        let mut backoff = Backoff::none();
        let mut now = ms(0);
        for _ in 0..10 {
            backoff.refused(now, 0, HINT, 0);
            backoff.answered(now + Duration::from_millis(1));
            assert_eq!(backoff.earliest(now), now + HINT);
            now = backoff.earliest(now);
        }
    }

    #[test]
    fn an_answer_after_any_number_of_refusals_leaves_only_the_last_retry_ms() {
        let mut backoff = Backoff::none();
        for _ in 0..4 {
            backoff.refused(backoff.earliest(ms(0)), 0, HINT, 0);
        }
        let refused = backoff.earliest(ms(0)) - HINT * 8;
        assert_eq!(refused, ms(20 + 40 + 80), "twice as long each time");
        backoff.answered(refused + Duration::from_millis(1));
        assert_eq!(backoff.earliest(ms(0)), refused + Duration::from_millis(21));
    }

    #[test]
    fn a_request_too_far_ahead_is_sent_after_the_requests_before_it() {
        let mut backoff = Backoff::none();
        backoff.too_far(9);
        backoff.too_far(8);
        backoff.too_far(12);
        assert_eq!((backoff.window(), backoff.waits(ms(0))), (8, false));
        backoff.too_far(0);
        assert_eq!(backoff.window(), 1, "something may always go");
    }
}
