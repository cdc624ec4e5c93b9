//! UDP sockets, batches in and out: bytes and addresses only.
//!
//! Invariant: this module knows no packet, no thread, no clock and no retry policy. A UDP error on
//! the way out is never fatal (whoever sends keeps what must arrive and sends it again), so it is
//! counted and told, not returned.

mod batch;
mod error;
mod peer;
mod socket;

#[cfg(test)]
mod tests;

pub use batch::{Inbox, SendReport};
pub use error::{NetError, NetOp};
pub use peer::{PeerSocket, SendOutcome};
pub use socket::{BUFFER_WANTED, BoundSocket, Buffers};
