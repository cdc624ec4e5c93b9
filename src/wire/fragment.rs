//! Packets too large for one datagram: cut into FRAGMENTs and put together again.

use super::codec::DecodeError;
use super::packet::{Fragment, Packet};
use crate::id::Moment;

/// Puts fragments together: at most `PARTIAL_MAX` packets at a time, the oldest goes first.
#[derive(Debug, Default)]
pub struct Reassembler {}

impl Reassembler {
    /// Takes one piece; gives the packet when it was the last one missing.
    ///
    /// # Errors
    /// [`DecodeError`]; the sender's fault, the packet it belongs to is dropped.
    pub fn accept(&mut self, _now: Moment, _piece: Fragment) -> Result<Option<Packet>, DecodeError> {
        todo!()
    }
}
