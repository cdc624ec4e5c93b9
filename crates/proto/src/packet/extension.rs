//! EXTENSION, which later versions of the protocol add packets with.

use serde::{Deserialize, Serialize};

use super::Answers;
use crate::fnv::fnv1a;

/// EXTENSION: a packet of a kind that this version does not have. No kind is defined, no program of this
/// version sends one, and a later one defines its kinds for each direction.
///
/// A packet has no length on the wire, so a receiver can step over one that it does not know only if its
/// frame is known. This is the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// The kind.
    pub kind: u16,
    /// The request or the query that the packet is: a server that does not know the kind refuses it with
    /// Unsupported. Without one, and always to clients and between servers, a receiver that does not know the
    /// kind steps over it.
    pub answers: Option<Answers>,
    /// The content. That of a request begins with its nonce, as 8 bytes.
    #[serde(with = "crate::bulk")]
    pub bytes: Vec<u8>,
}

impl Extension {
    /// A hash of the kind and the content, by which a server tells a request from another one under the same
    /// number, and finds it under another number, as
    /// [`Request::digest`](crate::command::Request::digest) does.
    pub fn digest(&self) -> u64 {
        fnv1a(self.kind.to_le_bytes().into_iter().chain(self.bytes.iter().copied()))
    }
}
