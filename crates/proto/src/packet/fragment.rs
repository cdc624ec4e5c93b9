//! FRAGMENT.

use serde::{Deserialize, Serialize};

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
