//! The packets of a client to a server.

use serde::{Deserialize, Serialize};

use super::{
    Admin, Answers, Channel, ClientAck, Connect, Disconnect, Extension, Follow, Fragment, Keepalive, Keys,
    Query, Resume, Send, direction,
};
use crate::id::Seq;

/// A packet of a client to a server. CONNECT and ADMIN travel in an INITIATION alone, QUERY, and an EXTENSION
/// that is a query, in an INITIATION or on a session, all others on a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToServer {
    /// CONNECT: a device asks for a session.
    Connect(Connect),
    /// RESUME: asks this primary to serve a session from a cursor on. The first one confirms the session.
    Resume(Resume),
    /// KEEPALIVE: a client is present on a session; answered with COORDINATOR.
    Keepalive(Keepalive),
    /// DISCONNECT: the client ends its session.
    Disconnect(Disconnect),
    /// CLIENT_ACK: the op up to which a session has delivered to its application.
    ClientAck(ClientAck),
    /// FOLLOW: a numbered request to follow a topic or to stop following it.
    Follow(Follow),
    /// SEND: a numbered request to send a notification to a topic.
    Send(Send),
    /// CHANNEL: a numbered request to create an owned channel, change its members, or delete it.
    Channel(Channel),
    /// KEYS: a numbered request to open an enrolment of a further device key, or to revoke a key.
    Keys(Keys),
    /// QUERY: asks for something that changes nothing.
    Query(Query),
    /// ADMIN: a change that only an administrator may ask for.
    Admin(Admin),
    /// PATH_RESPONSE: echoes the number of a PATH_CHALLENGE.
    PathResponse(u64),
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

impl ToServer {
    /// KEEPALIVE of a session that is served by the primary.
    pub fn keepalive() -> ToServer {
        ToServer::Keepalive(Keepalive::default())
    }

    /// The packet of a query: a QUERY, or an EXTENSION with one that the first programs of this version do
    /// not know.
    pub fn query(query: Query) -> ToServer {
        match query.is_extension() {
            true => ToServer::Extension(Extension::of_query(&query)),
            false => ToServer::Query(query),
        }
    }

    /// The number of a numbered request; none of other packets.
    pub fn seq(&self) -> Option<Seq> {
        match self {
            ToServer::Follow(follow) => Some(follow.seq),
            ToServer::Send(send) => Some(send.seq),
            ToServer::Channel(channel) => Some(channel.seq),
            ToServer::Keys(keys) => Some(keys.seq),
            ToServer::Extension(Extension { answers: Some(Answers::Request(seq)), .. }) => Some(*seq),
            _ => None,
        }
    }

    fn is_bounded(&self) -> bool {
        match self {
            ToServer::ClientAck(ack) => ack.is_bounded(),
            ToServer::Connect(connect) => connect.options.is_bounded(),
            ToServer::Resume(resume) => resume.options.is_bounded(),
            ToServer::Keepalive(keepalive) => keepalive.options.is_bounded(),
            ToServer::Follow(follow) => follow.options.is_bounded(),
            ToServer::Send(send) => send.content.within_limits() && send.options.is_bounded(),
            ToServer::Channel(channel) => channel.options.is_bounded(),
            ToServer::Keys(keys) => keys.options.is_bounded(),
            ToServer::Query(query) => query.is_bounded(),
            ToServer::Fragment(piece) => piece.is_bounded(),
            // These have a fixed size, or parts whose types are their own limit.
            ToServer::Disconnect(_)
            | ToServer::Admin(_)
            | ToServer::PathResponse(_)
            | ToServer::Extension(_)
            | ToServer::Padding
            | ToServer::Ping => true,
        }
    }
}

direction!(ToServer);
