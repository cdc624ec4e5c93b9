//! Rate limiter for warnings, so that a flood does not multiply log lines.

use std::time::Duration;

use recado_proto::id::Moment;

/// Minimum interval between two warnings of one kind.
const INTERVAL: Duration = Duration::from_secs(10);

/// Rate limiter for one kind of warning. Each thread has its own, so it needs no lock.
#[derive(Debug, Default)]
pub(super) struct LogThrottle {
    last: Option<Moment>,
    suppressed: u64,
}

impl LogThrottle {
    /// Returns the number of warnings suppressed since the last one if a warning may be logged now; otherwise
    /// counts this one as suppressed and returns `None`.
    pub(super) fn allow(&mut self, now: Moment) -> Option<u64> {
        if self.last.is_some_and(|last| now.since(last) < INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_per_interval_with_its_size() {
        let mut throttle = LogThrottle::default();
        let second = |n: u64| Moment(n * 1_000_000);
        assert_eq!(throttle.allow(second(1)), Some(0));
        assert_eq!(throttle.allow(second(2)), None);
        assert_eq!(throttle.allow(second(10)), None);
        assert_eq!(throttle.allow(second(11)), Some(2));
        assert_eq!(throttle.allow(second(22)), Some(0));
    }
}
