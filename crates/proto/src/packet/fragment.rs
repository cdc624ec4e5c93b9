//! FRAGMENT.

use serde::{Deserialize, Serialize};

use crate::codec::PACKET_MAX;
use crate::fragment::{PIECE_MAX, PIECES_MAX};

/// FRAGMENT. Its `id` depends only on the packet's content, so the fragments of a retransmission complete
/// those of the first transmission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// A hash of the whole encoded packet.
    pub id: u64,
    /// The index of this fragment, from 0.
    pub index: u16,
    /// The number of fragments.
    pub count: u16,
    /// The bytes of this fragment.
    #[serde(with = "crate::bulk")]
    pub bytes: Vec<u8>,
}

impl Fragment {
    /// Returns true if the index, the count and the length are possible.
    pub(crate) fn is_bounded(&self) -> bool {
        (2..=PIECES_MAX).contains(&self.count)
            && self.index < self.count
            && (1..=PIECE_MAX).contains(&self.bytes.len())
    }
}

const _: () = assert!(PIECES_MAX as usize * PIECE_MAX >= PACKET_MAX);
