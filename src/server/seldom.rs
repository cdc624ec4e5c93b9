//! Warnings that a flood must not multiply.

use std::time::Duration;

use crate::id::Moment;

/// Between two warnings of one kind.
const INTERVAL: Duration = Duration::from_secs(10);

/// Says when one kind of warning may be logged again. Each thread has its own: no lock.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last: Option<Moment>,
    withheld: u64,
}

impl Seldom {
    /// If it may be logged now: how many were withheld since the last.
    pub(super) fn now(&mut self, now: Moment) -> Option<u64> {
        if self.last.is_some_and(|last| now.since(last) < INTERVAL) {
            self.withheld += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_per_interval_with_its_size() {
        let mut seldom = Seldom::default();
        let second = |n: u64| Moment(n * 1_000_000);
        assert_eq!(seldom.now(second(1)), Some(0));
        assert_eq!(seldom.now(second(2)), None);
        assert_eq!(seldom.now(second(10)), None);
        assert_eq!(seldom.now(second(11)), Some(2));
        assert_eq!(seldom.now(second(22)), Some(0));
    }
}
