//! When something is sent again.

use std::time::Duration;

use recado_proto::id::Moment;

/// Bounds of the wait before a request that was refused for a passing reason is sent again, in ms, whatever
/// wait the server names: not shorter than a useful round trip, not longer than the election of a new primary
/// takes.
const RETRY: std::ops::RangeInclusive<u64> = 10..=1_000;

/// The wait before a request that was refused for a passing reason is sent again.
pub(super) fn retry_wait(retry_ms: u32) -> Duration {
    Duration::from_millis(u64::from(retry_ms).clamp(*RETRY.start(), *RETRY.end()))
}

/// CONNECT, RESUME, DISCONNECT and queries are sent again after this wait, which grows by half each time
/// (a query not while pieces of a large packet come) ...
pub(super) const ASK_AGAIN_MIN: Duration = Duration::from_millis(100);

/// ... up to this.
pub(super) const ASK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// The time of the next transmission, and the wait that follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Again {
    pub(super) at: Moment,
    pub(super) wait: Duration,
}

impl Again {
    pub(super) fn now(now: Moment) -> Again {
        Again { at: now, wait: ASK_AGAIN_MIN }
    }

    pub(super) fn due(&self, now: Moment) -> bool {
        now >= self.at
    }

    pub(super) fn sent(&mut self, now: Moment, noise: u64) {
        let jitter = self.wait.as_micros() as u64 / 4;
        self.at = now + self.wait + Duration::from_micros(noise % jitter.max(1));
        self.wait = (self.wait * 3 / 2).min(ASK_AGAIN_MAX);
    }
}
