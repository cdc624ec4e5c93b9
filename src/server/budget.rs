//! Token buckets: rate limits with room for a burst.
//!
//! Pure: time is an argument. A full bucket is equivalent to no bucket, so a table of buckets removes only
//! full ones.

use std::collections::BTreeMap;
use std::time::Duration;

use recado_proto::id::Moment;

use crate::config::Rate;

/// A token bucket. One token is a million drops; at one token a second, one drop is added every microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    rate: Rate,
    /// Drops in the bucket; negative for debt.
    drops: i64,
    at: Moment,
}

const TOKEN: i64 = 1_000_000;

impl Budget {
    /// A full bucket.
    pub fn new(rate: Rate) -> Budget {
        Budget { rate, drops: i64::from(rate.burst) * TOKEN, at: Moment(0) }
    }

    /// Takes `n` tokens at `now`.
    ///
    /// # Errors
    /// There are too few: none is taken, and the error is the time until there are enough. A cost above the
    /// burst is charged as one burst, because it could never be paid otherwise.
    pub fn take(&mut self, now: Moment, n: u32) -> Result<(), Duration> {
        self.fill(now);
        let missing = i64::from(n.min(self.rate.burst)) * TOKEN - self.drops;
        if missing <= 0 {
            self.drops = -missing;
            return Ok(());
        }
        Err(Duration::from_micros(missing.unsigned_abs().div_ceil(u64::from(self.rate.per_s.max(1)))))
    }

    /// Takes `n` tokens at `now` whether they are there or not, for work that is done already. The debt is
    /// paid before the next tokens can be taken, and is never more than a burst.
    pub(crate) fn owe(&mut self, now: Moment, n: u32) {
        self.fill(now);
        self.drops = (self.drops - i64::from(n) * TOKEN).max(-self.full());
    }

    fn full(&self) -> i64 {
        i64::from(self.rate.burst) * TOKEN
    }

    fn fill(&mut self, now: Moment) {
        let fallen = now.since(self.at).as_micros().saturating_mul(u128::from(self.rate.per_s));
        let fallen = i64::try_from(fallen).unwrap_or(i64::MAX);
        self.drops = self.drops.saturating_add(fallen).min(self.full());
        self.at = self.at.max(now);
    }

    fn is_full(&mut self, now: Moment) -> bool {
        self.fill(now);
        self.drops == self.full()
    }
}

/// A table with a bucket for each key, of bounded size. When there is no room for one more key, full
/// buckets are removed. If none is full, the new key is told to wait, and the known keys go on.
#[derive(Debug)]
pub(crate) struct Budgets<K> {
    rate: Rate,
    most: usize,
    buckets: BTreeMap<K, Budget>,
    /// Earliest moment of the next search for full buckets.
    sweep_at: Moment,
}

impl<K: Ord + Clone> Budgets<K> {
    /// Creates an empty table of at most `most` buckets.
    pub(crate) fn new(rate: Rate, most: usize) -> Budgets<K> {
        Budgets { rate, most, buckets: BTreeMap::new(), sweep_at: Moment(0) }
    }

    /// Takes `n` tokens from the bucket of `key` at `now`.
    ///
    /// # Errors
    /// The bucket has too few tokens, or the table has no room: the time to wait.
    pub(crate) fn take(&mut self, now: Moment, key: &K, n: u32) -> Result<(), Duration> {
        if let Some(budget) = self.buckets.get_mut(key) {
            return budget.take(now, n);
        }
        if self.buckets.len() >= self.most {
            self.sweep(now);
        }
        if self.buckets.len() >= self.most {
            return Err(self.sweep_at.since(now));
        }
        let mut budget = Budget { at: now, ..Budget::new(self.rate) };
        let taken = budget.take(now, n);
        self.buckets.insert(key.clone(), budget);
        taken
    }

    /// Takes `n` tokens from the bucket of `key` at `now` whether they are there or not ([`Budget::owe`]).
    /// A key without a bucket is not charged.
    pub(crate) fn owe(&mut self, now: Moment, key: &K, n: u32) {
        if let Some(budget) = self.buckets.get_mut(key) {
            budget.owe(now, n);
        }
    }

    /// Removes the bucket of a key that is gone for good.
    pub(crate) fn remove(&mut self, key: &K) {
        self.buckets.remove(key);
    }

    /// Removes the full buckets. It walks all buckets, so it runs at most once in the time that an empty
    /// bucket takes to fill.
    fn sweep(&mut self, now: Moment) {
        if now < self.sweep_at {
            return;
        }
        self.buckets.retain(|_, budget| !budget.is_full(now));
        let fills_in = u64::from(self.rate.burst) * TOKEN.unsigned_abs() / u64::from(self.rate.per_s.max(1));
        self.sweep_at = now + Duration::from_micros(fills_in.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_s: 10, burst: 3 };

    fn ms(ms: u64) -> Moment {
        Moment(ms * 1_000)
    }

    #[test]
    fn a_burst_is_free_and_then_the_rate_holds() {
        let mut budget = Budget::new(RATE);
        let taken = |budget: &mut Budget, at| budget.take(ms(at), 1);
        for _ in 0..3 {
            assert_eq!(taken(&mut budget, 5), Ok(()));
        }
        assert_eq!(taken(&mut budget, 5), Err(Duration::from_millis(100)));
        assert_eq!(taken(&mut budget, 65), Err(Duration::from_millis(40)), "nothing was taken");
        assert_eq!(taken(&mut budget, 105), Ok(()));
        let within = (106..10_106).filter(|at| taken(&mut budget, *at).is_ok()).count();
        assert_eq!(within, 100, "ten a second");
        assert_eq!(budget.take(ms(20_000), 4), Ok(()), "more than a burst costs a burst");
        assert_eq!(budget.take(ms(20_000), 4), Err(Duration::from_millis(300)));
    }

    #[test]
    fn what_is_owed_comes_first_and_is_no_more_than_a_burst() {
        let mut budget = Budget::new(RATE);
        budget.owe(ms(5), 4);
        assert_eq!(budget.take(ms(5), 1), Err(Duration::from_millis(200)), "one is owed");
        assert_eq!(budget.take(ms(205), 1), Ok(()));
        budget.owe(ms(205), u32::MAX);
        assert_eq!(budget.take(ms(205), 1), Err(Duration::from_millis(400)), "three, and the one");
        let mut budgets = Budgets::new(RATE, 2);
        assert_eq!(budgets.take(ms(0), &1, 1), Ok(()));
        budgets.owe(ms(0), &1, 2);
        assert!(budgets.take(ms(0), &1, 1).is_err());
        assert_eq!(budgets.take(ms(0), &2, 1), Ok(()), "of that key only");
    }

    #[test]
    fn a_clock_that_stands_still_or_jumps_far_gives_a_burst_at_most() {
        let mut budget = Budget::new(Rate { per_s: u32::MAX, burst: 2 });
        assert_eq!(budget.take(Moment(u64::MAX), 2), Ok(()));
        assert!(budget.take(Moment(u64::MAX), 1).is_err());
        assert!(budget.take(Moment(0), 1).is_err());
    }

    #[test]
    fn each_key_has_its_own_and_only_full_ones_are_forgotten() {
        let mut budgets = Budgets::new(RATE, 2);
        for key in [1, 2] {
            for _ in 0..3 {
                assert_eq!(budgets.take(ms(0), &key, 1), Ok(()));
            }
            assert!(budgets.take(ms(0), &key, 1).is_err());
        }
        let wait = budgets.take(ms(0), &3, 1).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(300), "{wait:?}");
        assert!(budgets.take(ms(0), &1, 1).is_err(), "who asked too much is not forgotten for it");
        assert_eq!(budgets.take(ms(400), &3, 1), Ok(()));
        assert!(budgets.buckets.len() <= 2);
    }
}
