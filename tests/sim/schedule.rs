//! The events to come, in the order of their times; those of one time in the order in which they were added.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::network::Micros;
use crate::world::Event;

/// An event to come. Boxed, because a heap moves its items.
struct Scheduled {
    at: Micros,
    sequence: u64,
    event: Box<Event>,
}

impl Scheduled {
    fn key(&self) -> (Micros, u64) {
        (self.at, self.sequence)
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// The events to come.
#[derive(Default)]
pub struct Schedule {
    heap: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
}

impl Schedule {
    pub fn add(&mut self, at: Micros, event: Event) {
        self.sequence += 1;
        self.heap.push(Reverse(Scheduled { at, sequence: self.sequence, event: Box::new(event) }));
    }

    /// The time of the next event.
    pub fn next_at(&self) -> Option<Micros> {
        self.heap.peek().map(|Reverse(next)| next.at)
    }

    /// Removes the next event.
    pub fn pop(&mut self) -> Option<(Micros, Event)> {
        self.heap.pop().map(|Reverse(next)| (next.at, *next.event))
    }
}
