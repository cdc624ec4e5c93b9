//! EXTENSION, which later versions of the protocol add packets with.

use serde::{Deserialize, Serialize};

use super::Answers;
use crate::codec;
use crate::fnv::fnv1a;

/// EXTENSION: a packet of a kind that this version does not have. No kind is defined, no program of this
/// version sends one, and a later one defines its kinds for each direction.
///
/// A packet has no length on the wire, so a receiver can step over one that it does not know only if its frame
/// is known. This is the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// The kind.
    pub kind: u16,
    /// What the packet is, if it needs an answer: a server that does not know the kind refuses that with
    /// Unsupported. None, and in packets to clients and between servers always: a receiver that does not know
    /// the kind steps over it.
    pub answers: Option<Answers>,
    /// The content.
    #[serde(with = "crate::bulk")]
    pub bytes: Vec<u8>,
}

impl Extension {
    /// A hash that tells it from another request under the same number, as
    /// [`Request::digest`](crate::command::Request::digest) does.
    pub fn digest(&self) -> u64 {
        fnv1a(codec::encode(self))
    }
}
