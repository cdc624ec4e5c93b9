//! Fair shares of a bounded table: decides which place gives way when the table is full.
//!
//! A table that is open to everybody would be filled by whoever asks the most. So each place has a holder (a
//! network, a profile), and the holder of the most places makes room for a newcomer: with an idle place
//! before one in use, and of these with the one that was not used for the longest. A newcomer whose holder
//! has at least two places fewer than the largest holder always gets in. Any other newcomer takes an idle
//! place or none: if it took a place in use, its holder would have as many as the one that lost it had, and
//! the two would alternate. A newcomer of the holder that has the most takes an idle place of its own holder
//! or none.
//!
//! Pure: times are arguments. [`Shares`] is kept beside the table whose places it counts; [`Table`] is a
//! table whose places are all in use.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use recado_proto::id::Moment;

/// The network of an address, an IPv4 /24 or an IPv6 /56: about what a provider gives to one customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// The network of `ip`.
    pub fn of(ip: IpAddr) -> Network {
        Network(match ip.to_canonical() {
            IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & !0xff).into()),
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 72 << 72).into()),
        })
    }

    /// Returns true for this machine's own network. The /56 of ::1 has no other address in use.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.0 {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_unspecified(),
        }
    }
}

/// Rank of a place, whether it is in use and when it was last used. The lowest gives way first: idle before
/// in use, then the one not used for longer.
type Rank = (bool, Moment);

/// The places of a table, by holder. As bounded as the table.
#[derive(Debug)]
pub(crate) struct Shares<H, K> {
    places: BTreeMap<K, (H, Rank)>,
    /// The places of each holder, lowest rank first; no empty sets.
    by_holder: BTreeMap<H, BTreeSet<(Rank, K)>>,
    /// Each holder once, ordered by its number of places, then by how low its lowest rank is.
    largest: BTreeSet<(usize, Reverse<Rank>, H)>,
}

impl<H, K> Default for Shares<H, K> {
    fn default() -> Self {
        Shares { places: BTreeMap::new(), by_holder: BTreeMap::new(), largest: BTreeSet::new() }
    }
}

impl<H: Ord + Clone, K: Ord + Clone> Shares<H, K> {
    /// Gives a place to `holder`, in use or idle, last used at `at`.
    pub(crate) fn put(&mut self, key: K, holder: H, of_use: bool, at: Moment) {
        let worth = (of_use, at);
        match self.places.get(&key) {
            Some(before) if *before == (holder.clone(), worth) => return,
            Some(_) => self.remove(&key),
            None => {}
        }
        self.change(&holder, |places| {
            places.insert((worth, key.clone()));
        });
        self.places.insert(key, (holder, worth));
    }

    /// Frees a place.
    pub(crate) fn remove(&mut self, key: &K) {
        if let Some((holder, worth)) = self.places.remove(key) {
            self.change(&holder, |places| {
                places.remove(&(worth, key.clone()));
            });
        }
    }

    /// Returns the place that makes room for one more of `newcomer`. A place in use counts as idle if it
    /// was not used after `idle_since`. `None` if all places of the largest holder are in use and the
    /// newcomer's holder would come to hold as many.
    pub(crate) fn gives_way(&self, newcomer: &H, idle_since: Moment) -> Option<K> {
        let own = self.by_holder.get(newcomer).map_or(0, BTreeSet::len);
        let (most, _, largest) = self.largest.last()?;
        let holder = if own >= *most { newcomer } else { largest };
        let ((of_use, at), key) = self.by_holder.get(holder)?.first()?;
        let idle = !of_use || *at <= idle_since;
        (idle || *most > own + 1).then(|| key.clone())
    }

    fn change(&mut self, holder: &H, act: impl FnOnce(&mut BTreeSet<(Rank, K)>)) {
        let places = self.by_holder.entry(holder.clone()).or_default();
        if let Some((worth, _)) = places.first() {
            self.largest.remove(&(places.len(), Reverse(*worth), holder.clone()));
        }
        act(places);
        match places.first() {
            Some((worth, _)) => {
                self.largest.insert((places.len(), Reverse(*worth), holder.clone()));
            }
            None => {
                self.by_holder.remove(holder);
            }
        }
    }
}

/// A table of at most `MOST` places that are never idle. When it is full, the holder of the most loses its
/// oldest place to a newcomer whose holder has at least two fewer; any other newcomer gets none.
#[derive(Debug)]
pub(crate) struct Table<H, K, V, const MOST: usize> {
    values: BTreeMap<K, V>,
    shares: Shares<H, K>,
}

impl<H, K, V, const MOST: usize> Default for Table<H, K, V, MOST> {
    fn default() -> Self {
        Table { values: BTreeMap::new(), shares: Shares::default() }
    }
}

impl<H: Ord + Clone, K: Ord + Clone, V, const MOST: usize> Table<H, K, V, MOST> {
    /// Makes room for one more of `holder`, if need be by removing a place of another. Returns false if there
    /// is none.
    pub(crate) fn make_room(&mut self, holder: &H) -> bool {
        if self.values.len() < MOST {
            return true;
        }
        let Some(key) = self.shares.gives_way(holder, Moment(0)) else { return false };
        self.remove(&key).is_some()
    }

    /// Inserts `value` for `holder` at `now`, in place of a value with the same key. Drops it if there is no
    /// room.
    pub(crate) fn insert(&mut self, now: Moment, holder: H, key: K, value: V) {
        if self.values.contains_key(&key) || self.make_room(&holder) {
            self.shares.put(key.clone(), holder, true, now);
            self.values.insert(key, value);
        }
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.values.get_mut(key)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.shares.remove(key);
        self.values.remove(key)
    }

    /// The keys within `range`, in order.
    pub(crate) fn keys(&self, range: RangeInclusive<K>) -> impl Iterator<Item = &K> {
        self.values.range(range).map(|(key, _)| key)
    }

    /// The number of places taken.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert_eq!(self.shares.places.len(), self.values.len());
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NEVER: Moment = Moment(0);

    fn full(places: &[(u32, &str, bool, u64)]) -> Shares<String, u32> {
        let mut shares = Shares::default();
        for (key, holder, of_use, at) in places {
            shares.put(*key, (*holder).to_owned(), *of_use, Moment(*at));
        }
        shares
    }

    fn gives_way(shares: &Shares<String, u32>, newcomer: &str) -> Option<u32> {
        shares.gives_way(&newcomer.to_owned(), NEVER)
    }

    #[test]
    fn the_holder_of_the_most_gives_way_its_idle_ones_first() {
        let shares =
            full(&[(1, "many", true, 1), (2, "many", false, 9), (3, "many", true, 3), (4, "few", false, 2)]);
        assert_eq!(gives_way(&shares, "new"), Some(2), "idle, though used later than the others");
        assert_eq!(gives_way(&shares, "few"), Some(2));
        assert_eq!(gives_way(&shares, "many"), Some(2), "one of its own");
    }

    #[test]
    fn a_place_in_use_gives_way_to_a_holder_of_fewer_and_never_to_the_same_holder() {
        let shares = full(&[(1, "many", true, 2), (2, "many", true, 1), (3, "few", false, 0)]);
        assert_eq!(gives_way(&shares, "new"), Some(2));
        assert_eq!(gives_way(&shares, "many"), None);
        assert_eq!(shares.gives_way(&"many".to_owned(), Moment(1)), Some(2), "it was not used for long");
    }

    #[test]
    fn among_equals_only_an_idle_one_gives_way_and_the_longest_idle() {
        let shares = full(&[(1, "a", false, 5), (2, "b", false, 4), (3, "c", true, 1)]);
        assert_eq!(gives_way(&shares, "new"), Some(2));
        let shares = full(&[(1, "a", true, 5), (2, "b", true, 4)]);
        assert_eq!(gives_way(&shares, "new"), None);
    }

    #[test]
    fn a_table_filled_by_one_holder_gives_others_its_oldest_places_until_all_have_as_many() {
        let mut table: Table<&str, u64, u64, 8> = Table::default();
        (0..20).for_each(|n| table.insert(Moment(1 + n), "many", n, n));
        assert!(table.keys(0..=u64::MAX).eq(&[0, 1, 2, 3, 4, 5, 6, 7]), "it displaces none of its own");
        table.insert(Moment(30), "many", 7, 70);
        assert_eq!(table.get_mut(&7), Some(&mut 70), "the same key takes no further place");
        (100..110).for_each(|n| table.insert(Moment(n), "few", n, n));
        assert!(table.keys(0..=u64::MAX).eq(&[4, 5, 6, 7, 100, 101, 102, 103]));
        assert_eq!((table.remove(&100), table.remove(&100), table.len()), (Some(100), None, 7));
        assert!(table.make_room(&"many"));
    }

    #[test]
    fn networks_are_a_slash_24_and_a_slash_56() {
        let same =
            |one: &str, other: &str| Network::of(one.parse().unwrap()) == Network::of(other.parse().unwrap());
        assert!(same("192.0.2.1", "192.0.2.255") && !same("192.0.2.1", "192.0.3.1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.9"));
        assert!(same("2001:db8:0:1::1", "2001:db8:0:ff::1") && !same("2001:db8:0:1::1", "2001:db8:0:100::1"));
        for own in ["127.0.7.3", "::1", "::ffff:127.0.0.1"] {
            assert!(Network::of(own.parse().unwrap()).is_loopback(), "{own}");
        }
        assert!(!Network::of("10.0.0.1".parse().unwrap()).is_loopback());
    }

    proptest! {
        /// Whichever holder floods a table of 8 places: one with fewer than an even share never loses a
        /// place in use to one that has more, and always gets in.
        #[test]
        fn no_holder_is_shut_out_by_one_that_holds_more(
            steps in prop::collection::vec((0u8..4, any::<bool>(), any::<bool>()), 1..200),
        ) {
            let mut shares: Shares<u8, usize> = Shares::default();
            let mut table: BTreeMap<usize, (u8, bool)> = BTreeMap::new();
            let held = |table: &BTreeMap<usize, (u8, bool)>, of: u8| {
                table.values().filter(|(holder, _)| *holder == of).count()
            };
            for (key, (holder, of_use, ends)) in steps.into_iter().enumerate() {
                if ends && let Some((gone, _)) = table.pop_first() {
                    shares.remove(&gone);
                }
                if table.len() >= 8 {
                    let most = (0..4).map(|of| held(&table, of)).max().unwrap_or(0);
                    let own = held(&table, holder);
                    match shares.gives_way(&holder, NEVER) {
                        Some(victim) => {
                            let (whose, useful) = table.remove(&victim).expect("it is in the table");
                            shares.remove(&victim);
                            prop_assert_eq!(held(&table, whose) + 1, most, "of the largest");
                            prop_assert!(whose == holder || own < most);
                            prop_assert!(!useful || own + 1 < most);
                        }
                        None => {
                            prop_assert!(own + 1 >= most, "{own} of {most}, and refused");
                            continue;
                        }
                    }
                }
                table.insert(key, (holder, of_use));
                // Later than NEVER, so no place counts as unused for long.
                shares.put(key, holder, of_use, Moment(1 + key as u64));
                prop_assert_eq!(shares.places.len(), table.len());
            }
        }
    }
}
