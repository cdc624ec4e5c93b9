//! Token buckets: so much at once, so much a second from then on.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::Moment;

/// One bucket. It holds micro-tokens, so that a slow rate loses nothing to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    rate: u32,
    burst: u32,
    micro: u64,
    at: Moment,
}

const MICRO: u64 = 1_000_000;

impl Budget {
    /// A full bucket of `burst` tokens that is filled by `rate` a second.
    pub fn new(rate: u32, burst: u32, now: Moment) -> Budget {
        Budget { rate, burst, micro: u64::from(burst) * MICRO, at: now }
    }

    /// Takes `tokens`.
    ///
    /// # Errors
    /// There are not so many: when there will be, if nobody else takes any. Nothing is taken.
    pub fn take(&mut self, now: Moment, tokens: u32) -> Result<(), Duration> {
        self.fill(now);
        let wanted = u64::from(tokens) * MICRO;
        match self.micro.checked_sub(wanted) {
            Some(left) => {
                self.micro = left;
                Ok(())
            }
            None => Err(Duration::from_micros((wanted - self.micro).div_ceil(u64::from(self.rate.max(1))))),
        }
    }

    fn fill(&mut self, now: Moment) {
        // A token a second is a micro-token a microsecond.
        let gained = now.0.saturating_sub(self.at.0).saturating_mul(u64::from(self.rate));
        self.micro = self.micro.saturating_add(gained).min(u64::from(self.burst) * MICRO);
        self.at = self.at.max(now);
    }

    fn is_full(&mut self, now: Moment) -> bool {
        self.fill(now);
        self.micro == u64::from(self.burst) * MICRO
    }
}

/// A bucket for each key, all alike. Full ones are forgotten, for they say nothing. When all places
/// are taken by keys that spend, new keys share one more bucket among them.
#[derive(Debug)]
pub struct Budgets<K> {
    rate: u32,
    burst: u32,
    most: usize,
    buckets: BTreeMap<K, Budget>,
    others: Option<Budget>,
}

impl<K: Ord + Copy> Budgets<K> {
    /// Buckets for at most so many keys.
    pub fn new(rate: u32, burst: u32, most: usize) -> Budgets<K> {
        Budgets { rate, burst, most, buckets: BTreeMap::new(), others: None }
    }

    /// Takes `tokens` of this key's.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub fn take(&mut self, now: Moment, key: K, tokens: u32) -> Result<(), Duration> {
        let fresh = Budget::new(self.rate, self.burst, now);
        if !self.buckets.contains_key(&key) && self.buckets.len() >= self.most {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            if self.buckets.len() >= self.most {
                return self.others.get_or_insert(fresh).take(now, tokens);
            }
        }
        self.buckets.entry(key).or_insert(fresh).take(now, tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000)
    }

    #[test]
    fn a_burst_then_the_rate_and_the_wait_is_told() {
        let mut budget = Budget::new(10, 3, at(0));
        assert_eq!((0..3).map(|_| budget.take(at(0), 1)).collect::<Vec<_>>(), vec![Ok(()); 3]);
        assert_eq!(budget.take(at(0), 1), Err(Duration::from_millis(100)));
        assert_eq!(budget.take(at(60), 1), Err(Duration::from_millis(40)));
        assert_eq!(budget.take(at(100), 1), Ok(()));
        assert_eq!(budget.take(at(60_000), 3), Ok(()));
        assert_eq!(budget.take(at(60_000), 1), Err(Duration::from_millis(100)));
    }

    #[test]
    fn one_key_that_spends_leaves_the_others_theirs() {
        let mut budgets = Budgets::new(1, 1, 2);
        assert!(budgets.take(at(0), 'a', 1).is_ok());
        assert!(budgets.take(at(0), 'a', 1).is_err());
        assert!(budgets.take(at(0), 'b', 1).is_ok());
        // No place left: the rest share one.
        assert!(budgets.take(at(0), 'c', 1).is_ok());
        assert!(budgets.take(at(0), 'd', 1).is_err());
        // Those that are full again make room.
        assert!(budgets.take(at(5_000), 'd', 1).is_ok());
        assert!(budgets.take(at(5_000), 'd', 1).is_err());
    }
}
