//! UDP sockets, with batches in both directions: bytes and addresses only.
//!
//! Invariant: this module knows no packet, no thread, no clock and no retry policy. A UDP send error is never
//! fatal, because the sender keeps what must arrive and retransmits it; so send errors are counted and
//! reported, not returned.

mod batch;
mod error;
mod peer;
mod socket;
mod waker;

#[cfg(test)]
mod tests;

pub use batch::{Inbox, SendReport};
pub use error::{NetError, NetOp};
pub use peer::PeerSocket;
pub use socket::{BUFFER_WANTED, BoundSocket, Buffers};
pub use waker::Waker;
