//! Waker: ends a thread's wait for a socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// What other threads end a [`BoundSocket::wait`](super::BoundSocket::wait) with; an eventfd.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// Creates a waker.
    ///
    /// # Errors
    /// The process may open no more files.
    pub fn new() -> io::Result<Waker> {
        Ok(Waker(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Ends the wait that is in progress, or else the next one.
    pub fn wake(&self) {
        // It fails only if the waker was set 2^64 - 2 times since the last wait, and so is set.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// From now on the next wait is not ended by what was before.
    pub(super) fn clear(&self) {
        // It fails only if there was nothing to clear.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
