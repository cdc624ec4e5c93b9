//! The machine's inputs and effects, and the types in them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use recado_proto::entropy::Entropy;
use recado_proto::id::{ChannelName, DeviceId, Name, Op, Seq, SessionId, StoreKey, Topic, View};
use recado_proto::packet::{
    Body, ChannelChange, Code, CodeHash, Condition, Content, DisplayName, FollowChange, HistoryPage,
    HistoryRange, Info, KeyChange, ListPage, Listing, Notification, QueryId, Selection, Status, StoredValue,
};
use recado_proto::planted::PlantedBug;
use recado_proto::seal::Ciphers;

use super::handshake::{HandshakeClient, Identity};

/// The parameters of a client machine.
#[derive(Debug)]
pub struct Start {
    /// Addresses of servers. Any one is enough.
    pub servers: Vec<SocketAddr>,
    /// Handshakes with some of them that have begun, from the same address and on the same clock.
    pub handshakes: BTreeMap<SocketAddr, HandshakeClient>,
    /// The cluster with its key, and the device's private key, whose public half is the device's key.
    pub identity: Identity,
    /// The device.
    pub device: DeviceId,
    /// The op that admitted the device, from its files; none if it was never admitted.
    pub created_op: Option<Op>,
    /// The profile.
    pub profile: Name,
    /// The hash of an enrolment code, if the device's key is to be added to the profile's keys.
    pub code: Option<CodeHash>,
    /// The hash of an invitation's code, for a name that nobody has yet.
    pub invite: Option<CodeHash>,
    /// True if the device receives notifications.
    pub receives: bool,
    /// The application's cursor, if it knows it.
    pub cursor: Option<Op>,
    /// Unanswered requests of an earlier run of this device, ascending by number.
    pub outbox: Vec<Numbered>,
    /// The highest number in the device's files: given by the device, or reported by the service. None if the
    /// device has no files: then numbers are given from the first [`Event::Connected`] on, and continue from
    /// the last one that the service has applied.
    pub highest_seq: Option<Seq>,
    /// The source of keys, nonces and jitter; its seed is random and secret.
    pub entropy: Entropy,
    /// What datagrams may be sealed with.
    pub ciphers: Ciphers,
    /// For the simulator only.
    pub planted: PlantedBug,
}

/// A numbered request, before it has its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start or stop following.
    Follow {
        /// The topic.
        topic: Topic,
        /// Start or stop.
        change: FollowChange,
    },
    /// Notify a topic's followers; without a topic, the profile's own.
    Send {
        /// The topic.
        topic: Option<Topic>,
        /// The notification's content.
        content: Content,
    },
    /// Create an owned channel, change its members, or delete it.
    Channel {
        /// The channel.
        channel: ChannelName,
        /// The change.
        change: ChannelChange,
    },
    /// Open an enrolment of a further key of the profile, or revoke one.
    Keys {
        /// The change.
        change: KeyChange,
    },
    /// Take the text of a notification away.
    Retract {
        /// The notification.
        op: Op,
    },
    /// Give the profile a display name, or take it away.
    Display {
        /// The display name.
        name: Option<DisplayName>,
    },
    /// Give a key of the store a value.
    Put {
        /// The key.
        key: StoreKey,
        /// The value.
        value: Body,
        /// What has to be so before.
        condition: Condition,
    },
    /// Take the value of a key away.
    Delete {
        /// The key.
        key: StoreKey,
        /// The timestamp that its value has to have; none: any.
        at: Option<Op>,
    },
}

/// A request with its number, as it is stored in the device's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Its number.
    pub seq: Seq,
    /// Distinguishes the request from any other with this number: see
    /// [`Send::nonce`](recado_proto::packet::Send::nonce).
    pub nonce: u64,
    /// The request.
    pub request: Request,
}

/// A sign that there is, or was, a copy of the device's files, and that the copy or these files are out of
/// date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopySign {
    /// The device has used numbers that are not in these files.
    Numbers {
        /// The highest number in these files.
        given: Seq,
        /// The last number that the service has applied.
        last: Seq,
    },
    /// The device's replicated cursor is beyond the one in these files. The notifications between them are
    /// handed out again.
    Cursor {
        /// The cursor in these files.
        here: Op,
        /// The cursor that the servers remember for the device.
        read: Op,
    },
}

/// A query; it takes no number and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// A page of notifications.
    History {
        /// The topic; none for all topics that the profile follows.
        topic: Option<Topic>,
        /// The range.
        range: HistoryRange,
        /// The number of notifications.
        limit: u32,
        /// What is asked for of the range.
        selection: Selection,
    },
    /// A page of a list.
    List {
        /// The list.
        what: Listing,
        /// The item before the page.
        after: Option<String>,
    },
    /// About a profile; none for the client's own.
    Info {
        /// The profile.
        profile: Option<Name>,
    },
    /// The value of a key of the store.
    Get {
        /// The key.
        key: StoreKey,
    },
    /// The status of the server at this address. Needs no session.
    Status {
        /// The server.
        server: SocketAddr,
    },
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The answer to History.
    History {
        /// The page.
        page: HistoryPage,
        /// The op up to which the server has looked, if it looks no further for one page of a selection.
        reached: Option<Op>,
        /// The op up to which it is true.
        applied: Op,
    },
    /// The answer to List.
    List(ListPage),
    /// The answer to Info.
    Info {
        /// What was asked.
        info: Info,
        /// The profile's display name.
        display: Option<DisplayName>,
        /// The op up to which it is true.
        applied: Op,
    },
    /// The answer to Get.
    Value {
        /// The value; none: the key has none.
        value: Option<StoredValue>,
        /// The op up to which it is true.
        applied: Op,
    },
    /// The answer to Status.
    Status(Status),
    /// The query was refused.
    Refused(Code),
}

/// An input of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A datagram arrived.
    Datagram {
        /// The sender's address.
        from: SocketAddr,
        /// Its bytes, which are not trusted.
        bytes: Vec<u8>,
    },
    /// The port of a server refused a datagram (ICMP port unreachable): its process has ended.
    PortRefused(SocketAddr),
    /// The application asks a request. The machine answers at once with [`Event::Numbered`], which gives the
    /// number, or with [`Event::NotTaken`]. Before the first [`Event::Connected`] numbering continues from
    /// [`Start::highest_seq`]; without that, no request is taken.
    Request(Request),
    /// The application asks a query, under an id of its choice.
    Query(QueryId, Query),
    /// The application no longer waits for the answer to a query.
    GiveUp(QueryId),
    /// The application has taken everything up to this op (at-least-once delivery); moves the cursor.
    Taken(Op),
    /// End the session.
    Disconnect,
}

/// An action that the machine requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send these bytes to a server.
    Datagram {
        /// The destination.
        to: SocketAddr,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Pass this event to the application.
    Event(Event),
}

/// An event for the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session is confirmed and served.
    Connected {
        /// The session's id.
        session: SessionId,
        /// The view that serves it.
        view: View,
        /// The primary's address.
        primary: SocketAddr,
        /// The op that admitted the device.
        created_op: Op,
        /// The last number that the service has applied for this device.
        last_seq: Seq,
        /// The op after which the stream continues.
        cursor: Op,
        /// The device's own cursor, if it does not belong to the servers' log: they were restored from an
        /// older copy, or the cursor was given wrongly. Then `cursor` is the one that they remember.
        lost: Option<Op>,
        /// The addresses of all servers.
        members: Vec<SocketAddr>,
    },
    /// Another server serves the session, or the same one in a new view.
    PrimaryChanged {
        /// The new view.
        view: View,
        /// The new primary's address.
        primary: SocketAddr,
        /// How long the client missed answers: until the RESUME_OK of the new primary, from the first
        /// request, query or keepalive that the old one left unanswered. It is short if nothing was asked.
        pause: Duration,
    },
    /// After [`Event::Searching`], the session is served again in the same view.
    PrimaryFound {
        /// The primary's address.
        primary: SocketAddr,
        /// How long the client missed answers: until its RESUME_OK, from the first request, query or
        /// keepalive that it left unanswered.
        pause: Duration,
    },
    /// The primary has been silent for a while; all servers are asked for it.
    Searching,
    /// The session has ended for good, or was refused for good.
    Ended(Code),
    /// The client has ended: this server says that it speaks another version of the protocol, and for a while
    /// no server has given another answer.
    OtherVersion {
        /// The server's address.
        server: SocketAddr,
        /// The version that it speaks. It is not authenticated.
        version: u8,
    },
    /// The session ended because the application asked.
    Disconnected,
    /// Sent after [`Event::Connected`], once for each sign.
    Copied(CopySign),
    /// Sent after [`Event::Connected`]: the servers have lost requests that they had answered, because they
    /// were restored from an older copy.
    ServersSetBack {
        /// The highest number that was answered.
        answered: Seq,
        /// The highest number that they have applied.
        last: Seq,
    },
    /// The request of the last [`Input::Request`] has got this number.
    Numbered {
        /// Its number.
        seq: Seq,
        /// Its nonce: see [`Numbered`].
        nonce: u64,
    },
    /// Requests have new numbers. Each pair is (before, after), in ascending order. Another request has the
    /// number of one of them, or the servers were restored from an older copy. None of them was ever applied
    /// before.
    Renumbered(Vec<(Seq, Seq)>),
    /// No room for another request: this one was not taken (see
    /// [`Machine::has_room`](super::Machine::has_room)).
    NotTaken,
    /// A server has refused a numbered request for a passing reason, such as Busy. It is sent again later.
    Deferred {
        /// The request's number.
        seq: Seq,
        /// The reason.
        code: Code,
    },
    /// Sent before [`Event::Answered`]: the notification made the channel that it went to.
    MadeChannel {
        /// The request's number.
        seq: Seq,
    },
    /// Sent before [`Event::Answered`]: a condition of the request did not hold.
    Timestamp {
        /// The request's number.
        seq: Seq,
        /// The timestamp of the value that its key has, if it has one.
        timestamp: Option<Op>,
    },
    /// A numbered request has its result.
    Answered {
        /// The request's number.
        seq: Seq,
        /// The op, or the refusal. With [`Code::NumberForgotten`] the outcome can no longer be known, and the
        /// request is not sent again.
        result: Result<Op, Code>,
    },
    /// The answer to a query.
    Answer(QueryId, Answer),
    /// The next notification of the stream.
    Notification(Arc<Notification>),
    /// Notifications up to here were dropped by retention before the device read them.
    Gap {
        /// The cursor before the gap.
        after: Op,
        /// The cursor after the gap.
        upto: Op,
    },
}
