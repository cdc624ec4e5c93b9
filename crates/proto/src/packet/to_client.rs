//! The packets of a server to a client.

use serde::{Deserialize, Serialize};

use super::{
    AcceptConn, AdminOk, Answer, Coordinator, Delivered, Extension, Fragment, OptionalFields, Refused,
    RejectConn, ResumeOk, SendAck, direction,
};

/// A packet of a server to a client. ACCEPT_CONN, REJECT_CONN and ADMIN_OK travel in an ANSWER alone;
/// COORDINATOR, ERROR and QUERY_OK in an ANSWER or on a session; all others on a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToClient {
    /// ACCEPT_CONN: the session is committed, and pending until RESUME.
    AcceptConn(AcceptConn),
    /// REJECT_CONN: no session was opened, and the reason.
    RejectConn(RejectConn),
    /// RESUME_OK: this primary serves the session from the cursor on.
    ResumeOk(ResumeOk),
    /// COORDINATOR: the announced primary.
    Coordinator(Coordinator),
    /// DELIVERED: one item of a session's stream.
    Delivered(Delivered),
    /// SEND_ACK: a numbered request was applied, and its op.
    SendAck(SendAck),
    /// ERROR: the refusal of a session, a request or a query, with a typed code.
    Error(Refused),
    /// QUERY_OK: the answer to a query.
    Answer(Answer),
    /// ADMIN_OK: the change was made.
    AdminOk(AdminOk),
    /// PATH_CHALLENGE: asks a session's client to prove that it receives at this address. The number is
    /// echoed.
    PathChallenge(u64),
    /// FRAGMENT: a piece of a packet too large for one datagram.
    Fragment(Fragment),
    /// EXTENSION: a packet of a kind that this version does not have.
    Extension(Extension),
    /// PADDING: ends the packets of a datagram, whose rest has no content and is not read. Links append
    /// [`PADDING_LEN`](crate::link::PADDING_LEN) bytes to it.
    Padding,
    /// PING: no content and no answer but the acknowledgement of its datagram. With PADDING it probes whether
    /// longer datagrams arrive.
    Ping,
}

impl ToClient {
    /// The tag of DELIVERED, the place of its variant.
    pub(super) const DELIVERED: u8 = 4;

    fn is_bounded(&self) -> bool {
        match self {
            ToClient::AcceptConn(accept) => accept.coordinator.is_bounded_with(&accept.options),
            ToClient::ResumeOk(resumed) => resumed.coordinator.is_bounded_with(&resumed.options),
            ToClient::Coordinator(coordinator) => coordinator.is_bounded_with(&OptionalFields::NONE),
            ToClient::Delivered(delivered) => delivered.item.is_bounded(),
            ToClient::SendAck(ack) => ack.data.is_bounded(),
            ToClient::RejectConn(reject) => reject.data.is_bounded(),
            ToClient::Error(refused) => refused.data.is_bounded(),
            ToClient::AdminOk(ok) => ok.data.is_bounded(),
            ToClient::Answer(answer) => answer.is_bounded(),
            ToClient::Fragment(piece) => piece.is_bounded(),
            // These have a fixed size, or parts whose types are their own limit.
            ToClient::PathChallenge(_) | ToClient::Extension(_) | ToClient::Padding | ToClient::Ping => true,
        }
    }
}

direction!(ToClient);
