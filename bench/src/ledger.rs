//! Every message from its intended send time until all have seen it: the counts, the latencies, and what was
//! lost, repeated or reordered.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;
use recado_proto::id::Moment;

use crate::broker::{Number, Observed};
use crate::failure::Failure;

/// The longest latency that a histogram holds, in us; a longer one counts as this.
const LATENCY_MAX: u64 = 600_000_000;
/// Most missing messages that are remembered, so that one of them that comes late is known as reordered.
const MISSING_MAX: usize = 100_000;

/// Most pairs of a sender and a follower: for each there is the number that comes next.
const PAIRS_MAX: usize = 10_000_000;

/// A histogram of times in us, from 1 us to 10 min with three digits.
pub(crate) fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).map_err(|error| Failure::Other(error.to_string()))
}

/// Adds a time to a histogram.
pub(crate) fn record(histogram: &mut Histogram<u64>, time: Duration) {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    histogram.saturating_record(us.max(1));
}

/// A message that some have not seen yet.
#[derive(Clone, Copy, Debug)]
struct Entry {
    intended: Moment,
    acked: bool,
    /// Followers that have not got it.
    missing: usize,
}

/// The messages of one sender.
#[derive(Debug)]
struct Sent {
    /// The index of the first entry.
    first: u64,
    /// From the first message that some have not seen.
    entries: VecDeque<Entry>,
    /// Entries that some have not seen.
    outstanding: usize,
    /// The index that each follower is to get next.
    expected: Vec<u64>,
}

/// The longest time between two events of each of several participants.
#[derive(Debug, Default)]
struct Gaps {
    last: Vec<Option<Moment>>,
    longest: Duration,
}

impl Gaps {
    fn note(&mut self, who: usize, now: Moment) {
        if self.last.len() <= who {
            self.last.resize(who + 1, None);
        }
        if let Some(last) = self.last.get_mut(who) {
            self.longest = self.longest.max(last.map_or(Duration::ZERO, |last| now.since(last)));
            *last = Some(now);
        }
    }
}

/// What was lost, repeated or reordered: nothing, for recado.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checks {
    /// Messages that were never acknowledged, and deliveries that never came.
    pub(crate) lost: u64,
    /// Deliveries that came again.
    pub(crate) repeated: u64,
    /// Deliveries that came after a later one of the same sender.
    pub(crate) reordered: u64,
}

/// The messages of a run.
#[derive(Debug)]
pub(crate) struct Ledger {
    followers: usize,
    acknowledged: bool,
    sent: Vec<Sent>,
    missing: BTreeSet<(usize, Number)>,
    measured: Range<Moment>,
    /// Acknowledgements within the measured time.
    pub(crate) acks: u64,
    /// Deliveries within the measured time.
    pub(crate) deliveries: u64,
    /// Times from the intended send to the acknowledgement, of messages meant for the measured time.
    pub(crate) ack_latency: Histogram<u64>,
    /// The same to each delivery.
    pub(crate) delivery_latency: Histogram<u64>,
    /// The part of `ack_latency` whose messages were under way while the run was marked.
    pub(crate) marked_latency: Histogram<u64>,
    /// The other part.
    pub(crate) unmarked_latency: Histogram<u64>,
    marked_at: Option<Moment>,
    checks: Checks,
    ack_gaps: Gaps,
    delivery_gaps: Gaps,
    /// All observations, so that a run that has come to a halt is noticed.
    pub(crate) observations: u64,
}

impl Ledger {
    /// A ledger of messages from `senders` to `followers`; `acknowledged` if senders learn of acceptance.
    pub(crate) fn new(
        senders: u16,
        followers: usize,
        acknowledged: bool,
        measured: Range<Moment>,
    ) -> Result<Ledger, Failure> {
        if usize::from(senders).saturating_mul(followers) > PAIRS_MAX {
            return Err(Failure::Usage(format!("more than {PAIRS_MAX} pairs of a sender and a follower")));
        }
        let sent =
            || Sent { first: 0, entries: VecDeque::new(), outstanding: 0, expected: vec![0; followers] };
        Ok(Ledger {
            followers,
            acknowledged,
            sent: std::iter::repeat_with(sent).take(senders.into()).collect(),
            missing: BTreeSet::new(),
            measured,
            acks: 0,
            deliveries: 0,
            ack_latency: histogram()?,
            delivery_latency: histogram()?,
            marked_latency: histogram()?,
            unmarked_latency: histogram()?,
            marked_at: None,
            checks: Checks::default(),
            ack_gaps: Gaps::default(),
            delivery_gaps: Gaps::default(),
            observations: 0,
        })
    }

    /// The number of a sender's next message.
    pub(crate) fn next(&self, sender: u16) -> Number {
        let sent = self.sent.get(usize::from(sender));
        Number { sender, index: sent.map_or(0, |sent| sent.first + sent.entries.len() as u64) }
    }

    /// Notes that the sender's next message was sent, and when it was meant to be.
    pub(crate) fn sent(&mut self, sender: u16, intended: Moment) {
        if let Some(sent) = self.sent.get_mut(usize::from(sender)) {
            sent.entries.push_back(Entry { intended, acked: !self.acknowledged, missing: self.followers });
            sent.outstanding += 1;
        }
    }

    /// The number of a sender's messages that some have not seen.
    pub(crate) fn outstanding(&self, sender: u16) -> usize {
        self.sent.get(usize::from(sender)).map_or(0, |sent| sent.outstanding)
    }

    /// Returns true if all have seen everything.
    pub(crate) fn is_settled(&self) -> bool {
        self.sent.iter().all(|sent| sent.outstanding == 0)
    }

    /// Notes what was observed at `now`.
    pub(crate) fn observe(&mut self, now: Moment, observed: Observed) {
        self.observations += 1;
        match observed {
            Observed::Acked(number) => self.on_ack(now, number),
            // Its latency goes on.
            Observed::Deferred(_) => {}
            Observed::Delivered { follower, number } => self.on_delivery(now, follower, number),
        }
    }

    fn on_ack(&mut self, now: Moment, number: Number) {
        let Some(sent) = self.sent.get_mut(usize::from(number.sender)) else { return };
        let Some(entry) = sent.entry(number.index).filter(|entry| !entry.acked) else { return };
        entry.acked = true;
        let intended = entry.intended;
        sent.settle(number.index);
        self.ack_gaps.note(usize::from(number.sender), now);
        if self.measured.contains(&now) {
            self.acks += 1;
        }
        if self.measured.contains(&intended) {
            record(&mut self.ack_latency, now.since(intended));
            let marked = self.marked_at.is_some_and(|at| at >= intended);
            let part = if marked { &mut self.marked_latency } else { &mut self.unmarked_latency };
            record(part, now.since(intended));
        }
    }

    /// Marks the run at `now`: the messages that are under way, and no others.
    pub(crate) fn mark(&mut self, now: Moment) {
        self.marked_at = Some(now);
    }

    fn on_delivery(&mut self, now: Moment, follower: usize, number: Number) {
        let Some(sent) = self.sent.get_mut(usize::from(number.sender)) else { return };
        let Some(expected) = sent.expected.get(follower).copied() else { return };
        if number.index < expected {
            if self.missing.remove(&(follower, number)) {
                self.checks.lost -= 1;
                self.checks.reordered += 1;
            } else {
                self.checks.repeated += 1;
            }
            return;
        }
        for index in expected..number.index {
            self.checks.lost += 1;
            if self.missing.len() < MISSING_MAX {
                self.missing.insert((follower, Number { sender: number.sender, index }));
            }
            sent.delivered(index);
        }
        let intended = sent.delivered(number.index);
        if let Some(expected) = sent.expected.get_mut(follower) {
            *expected = number.index + 1;
        }
        self.delivery_gaps.note(follower, now);
        if self.measured.contains(&now) {
            self.deliveries += 1;
        }
        if let Some(intended) = intended.filter(|intended| self.measured.contains(intended)) {
            record(&mut self.delivery_latency, now.since(intended));
        }
    }

    /// What was lost, repeated or reordered, once no more is waited for.
    pub(crate) fn checks(&self) -> Checks {
        let entries = self.sent.iter().flat_map(|sent| &sent.entries);
        let unseen: usize = entries.map(|entry| entry.missing + usize::from(!entry.acked)).sum();
        Checks { lost: self.checks.lost + unseen as u64, ..self.checks }
    }

    /// The longest times between two acknowledgements of one sender, and between two deliveries to one
    /// follower, that have ended since the last call.
    pub(crate) fn take_pauses(&mut self) -> (Duration, Duration) {
        (std::mem::take(&mut self.ack_gaps.longest), std::mem::take(&mut self.delivery_gaps.longest))
    }
}

impl Sent {
    fn entry(&mut self, index: u64) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// Notes one delivery of a message, and returns when the message was meant to be sent.
    fn delivered(&mut self, index: u64) -> Option<Moment> {
        let entry = self.entry(index)?;
        entry.missing = entry.missing.saturating_sub(1);
        let intended = entry.intended;
        self.settle(index);
        Some(intended)
    }

    fn settle(&mut self, index: u64) {
        if self.entry(index).is_some_and(|entry| entry.acked && entry.missing == 0) {
            self.outstanding -= 1;
        }
        while self.entries.front().is_some_and(|entry| entry.acked && entry.missing == 0) {
            self.entries.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(followers: usize) -> Ledger {
        let mut ledger = Ledger::new(1, followers, true, Moment(0)..Moment(1_000)).unwrap();
        for index in 0..4 {
            assert_eq!(ledger.next(0), Number { sender: 0, index });
            ledger.sent(0, Moment(index));
        }
        ledger
    }

    fn acked(index: u64) -> Observed {
        Observed::Acked(Number { sender: 0, index })
    }

    fn delivered(follower: usize, index: u64) -> Observed {
        Observed::Delivered { follower, number: Number { sender: 0, index } }
    }

    #[test]
    fn a_message_is_settled_once_it_is_acknowledged_and_all_have_it() {
        let mut ledger = ledger(2);
        assert_eq!(ledger.outstanding(0), 4);
        for observed in [delivered(0, 0), acked(0)] {
            ledger.observe(Moment(10), observed);
            assert_eq!(ledger.outstanding(0), 4, "{observed:?}");
        }
        ledger.observe(Moment(20), delivered(1, 0));
        assert_eq!(ledger.outstanding(0), 3);
        assert_eq!((ledger.acks, ledger.deliveries), (1, 2));
        assert_eq!((ledger.delivery_latency.min(), ledger.delivery_latency.max()), (10, 20));
    }

    #[test]
    fn messages_may_be_settled_in_any_order() {
        let mut ledger = ledger(0);
        for (index, left) in [(2, 3), (0, 2), (3, 1), (1, 0)] {
            ledger.observe(Moment(10), acked(index));
            assert_eq!(ledger.outstanding(0), left);
        }
        assert!(ledger.is_settled());
        assert_eq!(ledger.next(0).index, 4);
        assert_eq!(ledger.checks(), Checks::default());
    }

    #[test]
    fn what_is_lost_repeated_or_reordered_is_counted() {
        let mut ledger = ledger(1);
        (0..4).for_each(|index| ledger.observe(Moment(1), acked(index)));
        for index in [0, 0, 2, 1, 1] {
            ledger.observe(Moment(5), delivered(0, index));
        }
        assert_eq!(ledger.checks(), Checks { lost: 1, repeated: 2, reordered: 1 }, "3 never came");
        ledger.observe(Moment(5), delivered(0, 3));
        assert_eq!(ledger.checks(), Checks { lost: 0, repeated: 2, reordered: 1 });
        assert!(ledger.is_settled());
    }

    #[test]
    fn only_what_was_meant_for_the_measured_time_is_in_the_latencies() {
        let mut ledger = Ledger::new(1, 0, true, Moment(100)..Moment(200)).unwrap();
        for intended in [50, 150, 250] {
            ledger.sent(0, Moment(intended));
        }
        (0..3).for_each(|index| ledger.observe(Moment(900), acked(index)));
        assert_eq!((ledger.acks, ledger.ack_latency.len()), (0, 1));
        assert_eq!(ledger.ack_latency.max(), 750, "also if its answer came later");
    }

    #[test]
    fn the_longest_pause_is_of_one_participant() {
        let mut ledger = ledger(2);
        for (at, follower, index) in [(10, 0, 0), (11, 1, 0), (30, 0, 1), (40, 1, 1)] {
            ledger.observe(Moment(at), delivered(follower, index));
        }
        assert_eq!(ledger.take_pauses(), (Duration::ZERO, Duration::from_micros(29)));
        ledger.observe(Moment(45), delivered(0, 2));
        assert_eq!(ledger.take_pauses(), (Duration::ZERO, Duration::from_micros(15)));
    }
}
