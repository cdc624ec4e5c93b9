//! What the loops of a measurement need of whatever they measure: one trait for recado and its peers.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use recado_proto::id::Moment;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::failure::Failure;

/// The bytes of a body that hold the message's number, so the smallest body.
pub(crate) const SIZE_MIN: usize = 16;

/// The number of a message: its sender and its place among that sender's messages, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number {
    pub(crate) sender: u16,
    pub(crate) index: u64,
}

impl Number {
    /// A printable body of `size` bytes that begins with the number.
    pub(crate) fn body(self, size: usize) -> String {
        format!("{:04x}{:012x}{:.>rest$}", self.sender, self.index, "", rest = size.saturating_sub(SIZE_MIN))
    }

    /// The number of a body; none if the body is not of this program.
    pub(crate) fn of(body: &[u8]) -> Option<Number> {
        let digits = |range| u64::from_str_radix(std::str::from_utf8(body.get(range)?).ok()?, 16).ok();
        Some(Number { sender: u16::try_from(digits(0..4)?).ok()?, index: digits(4..SIZE_MIN)? })
    }
}

/// What a participant observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observed {
    /// The sender knows that its message is accepted.
    Acked(Number),
    /// A server had no time for the message, which is sent again.
    Deferred(Number),
    /// A follower got a message.
    Delivered {
        /// The follower.
        follower: usize,
        /// The message.
        number: Number,
    },
}

/// Senders and followers of one topic, connected to what is measured.
pub(crate) trait Broker {
    /// Sends a message, without waiting. Returns false if the sender has no room for it now.
    fn send(&mut self, number: Number, size: usize) -> Result<bool, Failure>;

    /// Waits at most `wait` for something to happen, does what is due, and adds what was observed.
    fn turn(&mut self, wait: Duration, observed: &mut Vec<(Moment, Observed)>) -> Result<(), Failure>;

    /// Returns true if senders learn that a message is accepted. Otherwise deliveries alone show it.
    fn acknowledges(&self) -> bool;
}

/// Many sockets, of which one thread waits for any.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    pub(crate) fn new() -> Result<Poll, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Failure::io("epoll"))?;
        Ok(Poll { epoll, events: Vec::with_capacity(256) })
    }

    /// Adds a socket under an index.
    pub(crate) fn add(&self, socket: impl AsFd, index: usize) -> Result<(), Failure> {
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)
            .map_err(Failure::io("epoll"))
    }

    /// Removes a socket, which is read no more.
    pub(crate) fn remove(&self, socket: impl AsFd) -> Result<(), Failure> {
        epoll::delete(&self.epoll, socket).map_err(Failure::io("epoll"))
    }

    /// Chooses whether a socket's room to write counts too.
    pub(crate) fn want_to_write(&self, socket: impl AsFd, index: usize, wanted: bool) -> Result<(), Failure> {
        let write = if wanted { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        let data = epoll::EventData::new_u64(index as u64);
        epoll::modify(&self.epoll, socket, data, epoll::EventFlags::IN | write).map_err(Failure::io("epoll"))
    }

    /// Waits at most `wait`, and returns the indices of the sockets that are ready.
    pub(crate) fn wait(&mut self, wait: Duration) -> Result<Vec<usize>, Failure> {
        self.events.clear();
        let wait = Timespec::try_from(wait).map_err(|_| Failure::Other("a wait too long".into()))?;
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::io("epoll")(error)),
        }
        Ok(self.events.iter().filter_map(|event| usize::try_from(event.data.u64()).ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_its_size_and_its_number() {
        let number = Number { sender: 3, index: 0x1234_5678_9abc };
        for size in [16, 17, 128, 1_000] {
            let body = number.body(size);
            assert_eq!(body.len(), size);
            assert_eq!(Number::of(body.as_bytes()), Some(number));
        }
        assert_eq!(Number::of(b"hello"), None);
        assert_eq!(Number::of(b"hello, world, it is me"), None);
    }
}
