//! FRAGMENT.

use serde::{Deserialize, Serialize};

use crate::codec::PACKET_MAX;
use crate::fragment::PIECE_MIN;

/// FRAGMENT: a piece of an encoded packet that is too large for one datagram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// The number of the datagram that first carried the packet's first piece. It identifies the packet, also
    /// when it is sent again.
    pub first: u64,
    /// Where this piece begins in the encoded packet.
    pub offset: u32,
    /// The length of the encoded packet.
    pub total: u32,
    /// The piece.
    #[serde(with = "crate::bulk")]
    pub bytes: Vec<u8>,
}

impl Fragment {
    /// Returns true if it is a part of a packet of possible length, and long enough unless it is its end.
    pub(crate) fn is_bounded(&self) -> bool {
        let (offset, total, length) = (self.offset as usize, self.total as usize, self.bytes.len());
        let end = offset.saturating_add(length);
        let least = if end == total { 1 } else { PIECE_MIN };
        total <= PACKET_MAX && end <= total && (least..total).contains(&length)
    }
}
