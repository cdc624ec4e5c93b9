//! The tracked datagrams of a link that are neither acknowledged nor believed lost, and the tokens that they
//! were sent under.
//!
//! Numbers and, with most callers, tokens rise, and both leave about in their order. So the two lists are
//! ring buffers, which allocate nothing once they have found their length.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};

use crate::id::Moment;

/// A datagram in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) at: Moment,
    pub(super) bytes: usize,
    pub(super) token: u64,
}

/// The datagrams of a token: consecutive numbers, and how many of them are still in flight.
#[derive(Clone, Copy, Debug)]
struct Tracked {
    token: u64,
    first: u64,
    last: u64,
    left: u64,
}

/// The datagrams in flight. Each is of a token that is tracked.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// By number; none in the place of one that has left. The first place is never empty.
    datagrams: VecDeque<(u64, Option<Sent>)>,
    /// The bytes of all of them.
    bytes: usize,
    /// By token.
    tokens: VecDeque<Tracked>,
}

impl Flight {
    /// The bytes in flight.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// The places from the oldest datagram in flight to the newest, with those of datagrams between them that
    /// have left.
    pub(super) fn places(&self) -> usize {
        self.datagrams.len()
    }

    /// Adds a datagram, whose number is above those of all before.
    pub(super) fn push(&mut self, number: u64, sent: Sent) {
        self.datagrams.push_back((number, Some(sent)));
        self.bytes += sent.bytes;
    }

    /// Tracks a token, which is not tracked yet, with the datagrams of these numbers.
    pub(super) fn track(&mut self, token: u64, numbers: RangeInclusive<u64>) {
        let (first, last) = numbers.into_inner();
        let at = self.tokens.partition_point(|tracked| tracked.token < token);
        self.tokens.insert(at, Tracked { token, first, last, left: last + 1 - first });
    }

    /// The oldest datagram.
    pub(super) fn oldest(&self) -> Option<(u64, Sent)> {
        self.iter().next()
    }

    /// The datagram with this number.
    pub(super) fn get(&self, number: u64) -> Option<Sent> {
        let at = self.datagrams.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.datagrams.get(at)?.1
    }

    /// The datagrams, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Sent)> + '_ {
        self.datagrams.iter().filter_map(|(number, sent)| Some((*number, (*sent)?)))
    }

    /// Removes the datagrams with these numbers, and gives each to `arrived`, with its number and whether it
    /// was the last one of its token in flight.
    pub(super) fn acknowledge(
        &mut self,
        numbers: RangeInclusive<u64>,
        mut arrived: impl FnMut(u64, Sent, bool),
    ) {
        for at in self.within(numbers) {
            let Some((number, Some(sent))) = self.take(at) else { continue };
            let tracked = self.find(sent.token).and_then(|at| Some((at, self.tokens.get_mut(at)?)));
            let mut is_last = false;
            if let Some((at, tracked)) = tracked {
                tracked.left -= 1;
                is_last = tracked.left == 0;
                if is_last {
                    self.tokens.remove(at);
                }
            }
            arrived(number, sent, is_last);
        }
        self.trim();
    }

    /// Removes a token and its datagrams; false if it is not in flight.
    pub(super) fn forget(&mut self, token: u64) -> bool {
        let Some(tracked) = self.find(token).and_then(|at| self.tokens.remove(at)) else { return false };
        for at in self.within(tracked.first..=tracked.last) {
            self.take(at);
        }
        self.trim();
        true
    }

    /// The place of a token.
    fn find(&self, token: u64) -> Option<usize> {
        self.tokens.binary_search_by_key(&token, |tracked| tracked.token).ok()
    }

    /// The places of these numbers.
    fn within(&self, numbers: RangeInclusive<u64>) -> Range<usize> {
        let below = |bound: u64| self.datagrams.partition_point(|(number, _)| *number < bound);
        let end = numbers.end().checked_add(1).map_or(self.datagrams.len(), below);
        below(*numbers.start())..end
    }

    /// Empties a place.
    fn take(&mut self, at: usize) -> Option<(u64, Option<Sent>)> {
        let (number, place) = self.datagrams.get_mut(at)?;
        let sent = place.take();
        self.bytes -= sent.map_or(0, |sent| sent.bytes);
        Some((*number, sent))
    }

    /// Removes the empty places before the oldest datagram.
    fn trim(&mut self) {
        while self.datagrams.pop_front_if(|(_, sent)| sent.is_none()).is_some() {}
    }
}
