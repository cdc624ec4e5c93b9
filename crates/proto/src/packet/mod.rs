//! The packets: plain data without behaviour. What a datagram may hold depends on who sends it to whom, and
//! each direction has an enum of its own:
//!
//! | enum | sender and receiver | channel |
//! |---|---|---|
//! | [`ToServer`] | a client, to a server | the load of an INITIATION, or a session |
//! | [`ToClient`] | a server, to a client | the ANSWER to an INITIATION, or a session |
//! | [`ToPeer`] | a server, to another server | class Peer |
//!
//! A packet of another direction has no encoding in a datagram, so no receiver has to refuse it. The bounds
//! that types do not express are checked once, when a packet is decoded ([`Packet::check`]), so that no other
//! code has to.
//!
//! WARNING: the order of variants and fields is the protocol, pinned by golden bytes in `tests/it/golden`.
//! Variants may be appended, fields never: any change of a struct's fields needs another
//! [`VERSION`](crate::envelope::VERSION). What may come later travels in the optional fields.

mod admin;
mod body;
mod content;
mod coordinator;
mod display_name;
mod election;
mod extension;
mod fragment;
mod heartbeat;
mod options;
mod position;
mod query;
mod refusal;
mod replication;
mod request;
mod selection;
mod session;
mod status;
mod store;
mod stream;
mod to_client;
mod to_peer;
mod to_server;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, DecodeError};

pub use self::admin::{Admin, AdminChange, AdminOk};
pub use self::body::Body;
pub use self::content::{Content, Notice, Notification};
pub use self::coordinator::Coordinator;
pub use self::display_name::{DisplayName, DisplayNameError};
pub use self::election::{Election, Learn, LearnOk, Promise, Reply, WaitsFor};
pub use self::extension::{Extension, ExtensionRequest};
pub use self::fragment::Fragment;
pub use self::heartbeat::{Heartbeat, HeartbeatState, Transfer};
pub use self::options::{OptionalField, OptionalFields};
pub use self::position::{Home, Position};
pub use self::query::{
    Access, Answer, AnswerKind, History, HistoryPage, HistoryRange, Info, List, ListItem, ListPage, Listing,
    Query, QueryId, QueryKind,
};
pub use self::refusal::{Answers, Code, Refused};
pub use self::replication::{Entries, EntriesAck, Fetch, SnapshotChunk, SnapshotGet};
pub use self::request::{Channel, ChannelChange, Follow, FollowChange, KeyChange, Keys, Role, Send, SendAck};
pub use self::selection::{Selection, SelectionTooLong};
pub use self::session::{AcceptConn, CodeHash, Connect, Disconnect, Keepalive, RejectConn, Resume, ResumeOk};
pub use self::status::{RefusedDatagram, RoleName, Status};
pub use self::store::{Condition, StoredValue};
pub use self::stream::{ClientAck, Delivered, Item};
pub use self::to_client::ToClient;
pub use self::to_peer::ToPeer;
pub use self::to_server::ToServer;

/// A packet of one direction. Several share a datagram; one too large for a datagram is sent as FRAGMENTs,
/// which every direction has.
pub trait Packet: Serialize + DeserializeOwned {
    /// The FRAGMENT with this piece.
    fn from_fragment(piece: Fragment) -> Self;

    /// The piece of a FRAGMENT.
    ///
    /// # Errors
    /// The packet itself: it is not a FRAGMENT.
    fn into_fragment(self) -> Result<Fragment, Self>;

    /// PADDING, which ends the packets of a datagram.
    fn padding() -> Self;

    /// Returns true if it is PADDING.
    fn is_padding(&self) -> bool;

    /// PING, which has no effect but the acknowledgement of its datagram.
    fn ping() -> Self;

    /// Checks that every part is within the bounds that its documentation gives.
    ///
    /// # Errors
    /// [`DecodeError::Bounds`]; the sender's fault, nothing changed.
    fn check(&self) -> Result<(), DecodeError>;
}

/// What a link sends: a packet, or the encoding of one.
pub trait Outgoing {
    /// The direction of the packets.
    type Direction: Packet;

    /// Appends the packet's encoding.
    fn encode_onto(&self, bytes: &mut Vec<u8>);

    /// Returns true if it is PADDING.
    fn is_padding(&self) -> bool;
}

impl<P: Packet> Outgoing for P {
    type Direction = P;

    fn encode_onto(&self, bytes: &mut Vec<u8>) {
        codec::encode_onto(self, bytes);
    }

    fn is_padding(&self) -> bool {
        Packet::is_padding(self)
    }
}

/// Implements [`Packet`] for the packets of a direction, with the bounds that `is_bounded` checks.
macro_rules! direction {
    ($set:ident) => {
        impl super::Packet for $set {
            fn from_fragment(piece: super::Fragment) -> $set {
                $set::Fragment(piece)
            }

            fn into_fragment(self) -> Result<super::Fragment, $set> {
                match self {
                    $set::Fragment(piece) => Ok(piece),
                    other => Err(other),
                }
            }

            fn padding() -> $set {
                $set::Padding
            }

            fn is_padding(&self) -> bool {
                matches!(self, $set::Padding)
            }

            fn ping() -> $set {
                $set::Ping
            }

            fn check(&self) -> Result<(), crate::DecodeError> {
                if self.is_bounded() { Ok(()) } else { Err(crate::DecodeError::Bounds) }
            }
        }
    };
}
use direction;
