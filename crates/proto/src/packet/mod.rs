//! The packets: plain data without behaviour. [`Packet`] is the one enum of everything that is sent in a
//! datagram.
//!
//! WARNING: append only. The order of variants and fields is the protocol, pinned by golden bytes
//! in `tests/it/golden`.

mod admin;
mod content;
mod coordinator;
mod election;
mod fragment;
mod heartbeat;
mod query;
mod refusal;
mod replication;
mod request;
mod session;
mod status;
mod stream;

use serde::{Deserialize, Serialize};

pub use self::admin::{Admin, AdminChange, AdminOk};
pub use self::content::{Content, Notification};
pub use self::coordinator::Coordinator;
pub use self::election::{Election, Learn, LearnOk, Promise, Reply, WaitsFor};
pub use self::fragment::Fragment;
pub use self::heartbeat::{Heartbeat, HeartbeatState, Transfer};
pub use self::query::{
    Access, History, HistoryOk, HistoryRange, Info, List, ListItem, ListOk, Listing, QueryId, RequestUserInfo,
};
pub use self::refusal::{Answers, Code, Refused};
pub use self::replication::{Entries, EntriesAck, Fetch, SnapshotChunk, SnapshotGet};
pub use self::request::{Channel, ChannelChange, Follow, FollowChange, KeyChange, Keys, Role, Send, SendAck};
pub use self::session::{AcceptConn, CodeHash, Connect, Disconnect, RejectConn, Resume, ResumeOk};
pub use self::status::{RefusedDatagram, RoleName, StatusOk};
pub use self::stream::{ClientAck, Delivered, Gap};

/// A packet. Several share a datagram; one too large for a datagram is sent as FRAGMENTs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packet {
    /// CONNECT: a device asks for a session.
    Connect(Connect),
    /// DISCONNECT: the client ends its session.
    Disconnect(Disconnect),
    /// ACCEPT_CONN: the session is committed, and pending until RESUME.
    AcceptConn(AcceptConn),
    /// REJECT_CONN: no session was opened, and the reason.
    RejectConn(RejectConn),
    /// FOLLOW: a numbered request to follow a topic or to stop following it.
    Follow(Follow),
    /// SEND: a numbered request to send a notification to a topic.
    Send(Send),
    /// NOTIFICATION: one notification of a session's stream.
    Notification(Delivered),
    /// ERROR: the refusal of a session, a request or a query, with a typed code.
    Error(Refused),
    /// INFO: answers REQUEST_USER_INFO.
    Info(Info),
    /// REQUEST_USER_INFO: asks about a profile.
    RequestUserInfo(RequestUserInfo),
    /// HEARTBEAT: the state of the primary; backups answer it with an echo.
    Heartbeat(Heartbeat),
    /// ELECTION: Probe or Prepare.
    Election(Election),
    /// REPLY: the answer to ELECTION.
    Reply(Reply),
    /// COORDINATOR: the announced primary.
    Coordinator(Coordinator),
    /// SEND_ACK: a numbered request was applied, and its op.
    SendAck(SendAck),
    /// CLIENT_ACK: the op up to which a session has delivered to its application.
    ClientAck(ClientAck),
    /// ENTRIES: entries of the log, for cast, answers to FETCH and catch-up alike.
    Entries(Entries),
    /// ENTRIES_ACK: the prefix that a backup has matched with this view's primary, and its fsynced part.
    EntriesAck(EntriesAck),
    /// FETCH: asks a peer for entries.
    Fetch(Fetch),
    /// SNAPSHOT_GET: asks a peer for chunks of a snapshot.
    SnapshotGet(SnapshotGet),
    /// SNAPSHOT_CHUNK: one chunk of a snapshot.
    SnapshotChunk(SnapshotChunk),
    /// RESUME: asks this primary to serve a session from a cursor on. The first one confirms the session.
    Resume(Resume),
    /// RESUME_OK: this primary serves the session from the cursor on.
    ResumeOk(ResumeOk),
    /// TRANSFER: permission for a backup to skip the probe, no more.
    Transfer(Transfer),
    /// STATUS: asks for a server's status; answered by any server, also without a session.
    Status(QueryId),
    /// STATUS_OK: a server's status.
    StatusOk(StatusOk),
    /// HISTORY: asks for a page of a topic's notifications.
    History(History),
    /// LIST: asks for one of the lists.
    List(List),
    /// FRAGMENT: a fragment of a packet too large for one datagram.
    Fragment(Fragment),
    /// KEEPALIVE: a client is present on a session; answered with COORDINATOR.
    Keepalive,
    /// HISTORY_OK: a page of notifications.
    HistoryOk(HistoryOk),
    /// LIST_OK: a page of a list.
    ListOk(ListOk),
    /// GAP: notifications of this stream that retention dropped before they were read.
    Gap(Gap),
    /// LEARN: a server without a vote asks which view a peer has promised.
    Learn(Learn),
    /// LEARN_OK: the answer to LEARN.
    LearnOk(LearnOk),
    /// PATH_CHALLENGE: asks a session's client to prove that it receives at this address. The number is
    /// echoed.
    PathChallenge(u64),
    /// PATH_RESPONSE: echoes the number of a PATH_CHALLENGE.
    PathResponse(u64),
    /// PADDING: no content; makes a datagram as long as its answer may be.
    Padding(#[serde(with = "crate::bulk")] Vec<u8>),
    /// CHANNEL: a numbered request to create an owned channel, change its members, or delete it.
    Channel(Channel),
    /// KEYS: a numbered request to open an enrolment of a further device key, or to revoke a key.
    Keys(Keys),
    /// ADMIN: a change that only an administrator may ask for.
    Admin(Admin),
    /// ADMIN_OK: the change was made.
    AdminOk(AdminOk),
}

impl Packet {
    /// PADDING that makes any datagram at least as long as a PATH_CHALLENGE. Packets that may be the first
    /// from a new address are sent with it, because nothing longer is sent to an address that is not
    /// validated.
    pub fn padding() -> Packet {
        Packet::Padding(vec![0; 48])
    }
}
