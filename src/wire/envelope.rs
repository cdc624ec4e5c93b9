//! The outer header, in clear but covered by the seal, and what stands first inside it.

use crate::id::{ClusterId, Incarnation, NodeId, SessionId, View};

use super::codec::DecodeError;
use super::packet::Packet;

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A client without a session, and the answers to it.
    Handshake,
    /// A client with a session, and what is sent on it.
    Client,
    /// Between servers.
    Peer,
}

/// The outer header. Fixed size; what does not apply is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Who talks to whom.
    pub class: Class,
    /// Which cluster; zero from a client that does not know it yet (Handshake only).
    pub cluster: ClusterId,
    /// Which session; zero outside of one.
    pub session: SessionId,
    /// The server that sends; none from a client.
    pub node: Option<NodeId>,
    /// Its incarnation: numbers start again with a higher one. Zero from a client.
    pub incarnation: Incarnation,
    /// The packet number; never used twice by this sender on this link.
    pub number: u64,
}

/// Which packet numbers the sender of this header has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ack {
    /// The highest.
    pub largest: u64,
    /// Bit `i`: `largest - 1 - i` was received too.
    pub bits: u64,
}

/// The inner header: first inside the seal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Header {
    /// What the sender has received on this link.
    pub ack: Option<Ack>,
    /// To clients: the highest active view the server knows. Between peers: the sender's view.
    pub view: View,
}

/// A datagram, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The outer header.
    pub envelope: Envelope,
    /// The inner one.
    pub header: Header,
    /// What it carries.
    pub packets: Vec<Packet>,
}

/// Seals `header` and `packets` (already encoded, each) under `envelope`.
pub fn seal(_envelope: &Envelope, _header: &Header, _packets: &[Vec<u8>]) -> Vec<u8> {
    todo!()
}

/// Checks and opens a datagram.
///
/// # Errors
/// [`DecodeError`]; the sender's fault, nothing changed.
pub fn open(_datagram: &[u8]) -> Result<Opened, DecodeError> {
    todo!()
}
