//! The packets: plain data without behaviour. [`Packet`] is the one enum of everything that is sent in a
//! datagram.
//!
//! WARNING: append only. The order of variants and fields is the protocol, pinned by golden bytes
//! in `tests/it/golden`.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::seal::{Aead, Key};
use crate::entry::{Entry, Unknown};
use crate::id::{DeviceId, DeviceKey, Incarnation, Name, NodeId, Op, Priority, Seq, SessionId, Topic, View};

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
    /// PADDING: ends the packets of a datagram, whose rest has no content and is not read. Links append
    /// [`PADDING_LEN`](super::link::PADDING_LEN) bytes to it.
    Padding,
    /// CHANNEL: a numbered request to create an owned channel, change its members, or delete it.
    Channel(Channel),
    /// KEYS: a numbered request to open an enrolment of a further device key, or to revoke a key.
    Keys(Keys),
    /// ADMIN: a change that only an administrator may ask for.
    Admin(Admin),
    /// ADMIN_OK: the change was made.
    AdminOk(AdminOk),
    /// PING: no content and no answer but the acknowledgement of its datagram. Reserved: with PADDING it will
    /// probe whether longer datagrams arrive.
    Ping,
}

/// The id of a query, chosen by the asker and echoed in the answer. The asker uses none twice on a session:
/// while the answer to one is outstanding, another query of this id counts as the same one, asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueryId(pub u64);

/// The content of a notification, as its author writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The title; at most [`Content::TITLE_MAX`] bytes.
    pub title: Option<String>,
    /// The urgency.
    pub priority: Priority,
    /// The tags; at most [`Content::TAGS_MAX`], each at most [`Content::TAG_MAX`] bytes.
    pub tags: Vec<String>,
    /// The body; at most [`Content::BODY_MAX`] bytes.
    pub body: String,
}

impl Content {
    /// The longest title, in bytes.
    pub const TITLE_MAX: usize = 256;
    /// The most tags.
    pub const TAGS_MAX: usize = 8;
    /// The longest tag, in bytes.
    pub const TAG_MAX: usize = 32;
    /// The longest body, in bytes.
    pub const BODY_MAX: usize = 16 * 1024;

    /// Returns true if every part is within its limit.
    pub fn within_limits(&self) -> bool {
        self.title.as_ref().is_none_or(|title| title.len() <= Self::TITLE_MAX)
            && self.tags.len() <= Self::TAGS_MAX
            && self.tags.iter().all(|tag| tag.len() <= Self::TAG_MAX)
            && self.body.len() <= Self::BODY_MAX
    }
}

/// A notification as it is stored and delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Its op: its id, and its position in the order of all notifications.
    pub op: Op,
    /// The topic it was sent to.
    pub topic: Topic,
    /// The profile that sent it.
    pub author: Name,
    /// The log's time when it was applied, in ms since 1970; never falls from one op to the next.
    pub unix_ms: u64,
    /// The content.
    pub content: Content,
}

/// The reason of a refusal. A code and never a string: the client chooses the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Code {
    /// A queue is full or a rate is exceeded; try again after `retry_ms`. Takes no number.
    Busy,
    /// This server is primary and does not reach a majority; try again. Takes no number.
    NoQuorum,
    /// This server is not the primary. Takes no number.
    NotPrimary,
    /// No such profile.
    UnknownProfile,
    /// No such channel.
    UnknownChannel,
    /// The device was forgotten or never admitted, so its numbers mean nothing here; or a key to revoke is
    /// not the profile's.
    UnknownDevice,
    /// The session has ended or is unknown.
    SessionOver,
    /// The profile belongs to another device key.
    NotYours,
    /// The profile lacks the right: only the owner sends to a feed and reads an inbox, and the members of an
    /// owned channel do what their roles allow.
    NotAllowed,
    /// The profile follows the topic already.
    AlreadyFollowing,
    /// The profile does not follow the topic.
    NotFollowing,
    /// A profile cannot follow or unfollow its own feed and its own inbox.
    Yourself,
    /// A part of the request is over its limit. Servers do not send this code, because they drop such a
    /// request when they decode it (`check.rs`). recado's client library refuses the request
    /// before it sends anything.
    TooLarge,
    /// A limit is reached: on profiles, devices, sessions, keys, follows, channels or their members, on
    /// invitations or allowed keys, or on the size of all records.
    LimitReached,
    /// The number is more than `Limits::outstanding` above the last one applied; the client sends the lower
    /// numbers first. Takes no number.
    TooFarAhead,
    /// A channel of this name exists.
    NameTaken,
    /// The profile is not a member of the channel.
    NotMember,
    /// The last owner of a channel, or the last key of a profile, cannot be removed.
    LastOne,
    /// No open enrolment has this code: it is wrong, was used, has expired, or was tried too often.
    WrongCode,
    /// The cursor of a RESUME is beyond the end of the log, so it is not a cursor of this log.
    BeyondEnd,
    /// The channel was deleted; its name stays taken for `Limits::deleted`.
    ChannelDeleted,
    /// Another request of this device has the number, because the device's files were copied. Nothing
    /// changed, and this request never had an effect; the client gives it a new number.
    NumberTaken,
    /// The number was applied and its result is not held, because a client of this device has acknowledged
    /// it. Nothing changed, and nothing will.
    NumberForgotten,
    /// A newer session of the same device took over: a copy of the device's files is in use elsewhere.
    Fenced,
    /// A new name needs an invitation, and none was given.
    InviteNeeded,
    /// No invitation with this code can be used: it is wrong, used up, expired, or for another name.
    WrongInvite,
    /// A new name needs a key that an administrator has allowed, and this one is not.
    KeyNotAllowed,
    /// Too many new names or channels from one network, or new channels of one profile, in the last hours.
    TooManyNames,
}

/// The question that an ERROR answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answers {
    /// The session as a whole, or a CONNECT.
    Session,
    /// A numbered request.
    Request(Seq),
    /// A query.
    Query(QueryId),
}

/// ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The reason.
    pub code: Code,
    /// The question it answers.
    pub answers: Answers,
    /// The time to wait before trying again, in ms.
    ///
    /// In the answer to a request or a query, 0 means that the refusal is final; only after NumberTaken the
    /// client sends the request again, under another number. In an answer about the session 0 does not mean
    /// that: the code decides. Busy means that the primary does not serve the session for now, and the client
    /// sends RESUME after this time, soon if it is 0.
    pub retry_ms: u32,
}

/// CONNECT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// The device that asks.
    pub device: DeviceId,
    /// The profile to connect as.
    pub profile: Name,
    /// True if the session receives notifications.
    pub receives: bool,
    /// The nonce of this CONNECT; the same in its retransmissions, different in every other CONNECT.
    pub nonce: u64,
    /// True if the device was never admitted before, as far as the client knows. If false and the service
    /// does not know the device, it was forgotten: the answer is UnknownDevice, and the device is never
    /// silently restarted.
    pub fresh: bool,
    /// The code of an enrolment, which adds the device's key to the profile if it is not one of its keys yet.
    pub code: Option<CodeHash>,
    /// The code of an invitation, for a name that is unclaimed.
    pub invite: Option<CodeHash>,
    /// The AEADs that the client has beside ChaCha20-Poly1305: see [`Aead::OFFERED`].
    pub aeads: u8,
}

/// The hash of an enrolment's code and the profile's name, or of an invitation's code. The code itself stays
/// with people. Until the code is used its hash is as good as the code, so it is never shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CodeHash(pub [u8; 32]);

impl std::fmt::Debug for CodeHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CodeHash(..)")
    }
}

/// DISCONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// The final cursor: the application has taken everything of the stream up to this op.
    pub upto: Op,
}

/// ACCEPT_CONN: the session is pending, and is served after its RESUME.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptConn {
    /// The nonce of the CONNECT it answers.
    pub nonce: u64,
    /// The session's id.
    pub session: SessionId,
    /// The primary and its view, and where all servers are.
    pub coordinator: Coordinator,
    /// The session's secret, from which its keys are derived.
    pub secret: Key,
    /// The AEAD of the session's datagrams, among those that the CONNECT offered.
    pub aead: Aead,
}

/// REJECT_CONN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectConn {
    /// The nonce of the CONNECT it answers.
    pub nonce: u64,
    /// The reason.
    pub code: Code,
    /// The time to wait before trying again, in ms; 0 with a final code. Another value does not mean that the
    /// client tries again: with TooManyNames it is the time until the network may claim one more name, and
    /// recado's client reports that refusal as final.
    pub retry_ms: u32,
}

/// The change that a FOLLOW makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FollowChange {
    /// Start to follow.
    Add,
    /// Stop following.
    Remove,
}

/// FOLLOW.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// The request's number.
    pub seq: Seq,
    /// The client's lowest unanswered number.
    pub answered_below: Seq,
    /// The topic.
    pub topic: Topic,
    /// Follow or stop following.
    pub change: FollowChange,
    /// A random number drawn when the request got its number and repeated in every retransmission. It makes
    /// the same content asked for twice two requests.
    pub nonce: u64,
}

/// SEND.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// The request's number.
    pub seq: Seq,
    /// The client's lowest unanswered number.
    pub answered_below: Seq,
    /// The topic; none: the sender's own feed.
    pub topic: Option<Topic>,
    /// The content.
    pub content: Content,
    /// A random number drawn when the request got its number and repeated in every retransmission. It makes
    /// the same content asked for twice two requests.
    pub nonce: u64,
}

/// CHANNEL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// The request's number.
    pub seq: Seq,
    /// The client's lowest unanswered number.
    pub answered_below: Seq,
    /// The channel.
    pub channel: Name,
    /// The change.
    pub change: ChannelChange,
    /// A random number drawn when the request got its number and repeated in every retransmission. It makes
    /// the same content asked for twice two requests.
    pub nonce: u64,
}

/// A change of an owned channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelChange {
    /// Creates the channel, owned by the asker. No channel of this name may exist.
    Create {
        /// True if only members may follow and read it, false if anyone may. In both cases only writers and
        /// owners send.
        private: bool,
    },
    /// Makes a profile a member, or gives a member another role. Only an owner may ask for it.
    Add {
        /// The profile.
        member: Name,
        /// Its role.
        role: Role,
    },
    /// Removes a member. An owner or the member itself may ask for it.
    Remove {
        /// The profile.
        member: Name,
    },
    /// Deletes the channel with all it holds and all follows of it. Only an owner may ask for it.
    Delete,
}

/// The role of a member of an owned channel; each includes the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Follows and reads.
    Reader,
    /// Sends.
    Writer,
    /// Adds and removes members, and deletes the channel.
    Owner,
}

/// The access that a channel gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Anyone sends, follows and reads.
    Open,
    /// Anyone follows and reads; writers and owners send.
    Owned,
    /// Members follow and read; writers and owners send.
    Private,
}

/// KEYS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The request's number.
    pub seq: Seq,
    /// The client's lowest unanswered number.
    pub answered_below: Seq,
    /// The change.
    pub change: KeyChange,
    /// A random number drawn when the request got its number and repeated in every retransmission. It makes
    /// the same content asked for twice two requests.
    pub nonce: u64,
}

/// A change of the keys of the asker's profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyChange {
    /// Opens an enrolment: a device that soon connects with this code adds its key, once. Replaces an
    /// enrolment that is open.
    Enrol {
        /// The hash of the code.
        code: CodeHash,
    },
    /// Removes a key from the profile and forgets the key's devices.
    Revoke {
        /// The key.
        key: DeviceKey,
    },
}

/// ADMIN. The client retransmits it under the same `query` until it is answered; the change is made once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admin {
    /// The id, echoed in the answer; drawn at random.
    pub query: QueryId,
    /// The change.
    pub change: AdminChange,
}

/// A change that only an administrator may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminChange {
    /// Takes a name from its keys: its devices are forgotten, and the next device that connects claims it,
    /// with its follows and its inbox.
    Release {
        /// The name.
        name: Name,
    },
    /// Removes a profile with its devices, feed, inbox, follows and roles. Its notifications elsewhere stay.
    /// The name becomes free.
    RemoveProfile {
        /// The profile.
        name: Name,
    },
    /// Removes a channel with all it holds. The name becomes free, except that of a private channel, which
    /// stays taken as after a deletion. For a channel that was deleted this frees the name.
    RemoveChannel {
        /// The channel.
        channel: Name,
    },
    /// Makes an invitation: while new names need one, its code permits `uses` claims.
    Invite {
        /// The hash of the code.
        code: CodeHash,
        /// The number of names that may be claimed; at least 1.
        uses: u32,
        /// The time until it expires, in ms by the log's clock.
        lasts_ms: u64,
        /// The only name it is valid for; none: any name.
        name: Option<Name>,
    },
    /// Allows a key to claim names while new names need an allowed key.
    Allow {
        /// The key.
        key: DeviceKey,
    },
    /// Withdraws the permission of a key; it keeps the names it has.
    Disallow {
        /// The key.
        key: DeviceKey,
    },
}

/// ADMIN_OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminOk {
    /// The id of the ADMIN it answers.
    pub query: QueryId,
    /// The op of its log entry.
    pub op: Op,
}

/// SEND_ACK: answers every numbered request that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendAck {
    /// The number of the request.
    pub seq: Seq,
    /// The op of its log entry.
    pub op: Op,
}

/// NOTIFICATION: deliver only if `prev <= cursor < notification.op`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// The op before it in this session's stream.
    pub prev: Op,
    /// The notification.
    pub notification: Arc<Notification>,
}

/// GAP: deliver only if `prev <= cursor < upto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The op before it in this session's stream.
    pub prev: Op,
    /// The end of the gap: the dropped notifications are in `prev < op <= upto`.
    pub upto: Op,
}

/// CLIENT_ACK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAck {
    /// The cursor: everything of the stream up to this op was handed to the application.
    pub upto: Op,
    /// The ops held after the cursor that wait for an earlier one; at most [`ClientAck::HELD_MAX`].
    pub held: Vec<Op>,
    /// The number of notifications after `upto` that the client accepts.
    pub credit: u32,
}

impl ClientAck {
    /// The most ops in `held`.
    pub const HELD_MAX: usize = 64;
}

/// RESUME.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The client's cursor; none if it does not know one, then the replicated cursor is used.
    pub cursor: Option<Op>,
    /// The number of notifications after the cursor that the client accepts.
    pub credit: u32,
}

/// RESUME_OK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeOk {
    /// The op that admitted the device. A device that was removed and admitted again has another one: its
    /// numbers start anew, and requests from before may have been applied.
    pub created_op: Op,
    /// The last request number applied for this device; the next is one more.
    pub last_seq: Seq,
    /// The primary and its view, and where all servers are.
    pub coordinator: Coordinator,
    /// The device's replicated cursor. The stream begins there if the client named none.
    pub cursor: Op,
}

/// REQUEST_USER_INFO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestUserInfo {
    /// The id, echoed in the answer.
    pub query: QueryId,
    /// The profile; none: the asker's own.
    pub profile: Option<Name>,
}

/// INFO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The id of the query it answers.
    pub query: QueryId,
    /// The profile.
    pub profile: Name,
    /// The op that claimed it.
    pub since: Op,
    /// The number of profiles that follow its feed.
    pub followers: u64,
    /// The number of topics it follows, not counting its inbox.
    pub following: u64,
    /// The number of its devices.
    pub devices: u64,
    /// The number of its devices with a live session.
    pub sessions: u64,
    /// The number of notifications pending for the least advanced of its devices that receive; of all its
    /// devices if none receives.
    pub pending: u64,
    /// The op up to which this answer is true.
    pub applied: Op,
}

/// HISTORY: of one's own inbox, or of anyone's feeds and of channels that one may read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The id, echoed in the answer.
    pub query: QueryId,
    /// The topic; none: all that the asker follows, merged as in its stream.
    pub topic: Option<Topic>,
    /// The start of the page and its direction.
    pub range: HistoryRange,
    /// The most notifications wanted; the server sends at most [`History::LIMIT_MAX`].
    pub limit: u32,
}

impl History {
    /// The most notifications in one page.
    pub const LIMIT_MAX: u32 = 256;
    /// The most bytes of notifications in one page, unless a single one is larger.
    pub const BYTES_MAX: usize = 24 * 1024;
}

/// The position of a page of history. A page is in ascending order of `op` whatever the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HistoryRange {
    /// The newest below this op; `Op(u64::MAX)`: the newest of all.
    Before(Op),
    /// The oldest above this op.
    After(Op),
    /// The oldest stamped at or after this time, in ms since 1970.
    SinceMs(u64),
}

/// HISTORY_OK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryOk {
    /// The id of the query it answers.
    pub query: QueryId,
    /// The notifications, ascending by op.
    pub notifications: Vec<Arc<Notification>>,
    /// True if there is more in the direction asked for.
    pub more: bool,
    /// The newest op that was dropped from the topic; without a topic, of all that was dropped after the
    /// asker's follow of its topic. Zero if none was.
    pub trimmed_upto: Op,
    /// The op up to which this answer is true.
    pub applied: Op,
}

/// LIST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The id, echoed in the answer.
    pub query: QueryId,
    /// The list.
    pub what: Listing,
    /// The key of the last item of the page before ([`ListItem::key`]); none: the first page.
    pub after: Option<String>,
}

impl List {
    /// The most items in one page.
    pub const ITEMS_MAX: usize = 200;
}

/// The lists there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listing {
    /// The topics that the asker follows.
    Following,
    /// The profiles that follow the asker's feed.
    Followers,
    /// The asker's devices.
    Devices,
    /// All channels, private ones only for their members.
    Channels,
    /// All profiles.
    People,
    /// The members of a channel; those of a private one only for its members.
    Members(Name),
    /// The keys of the asker's profile, each of one installation.
    Keys,
}

/// LIST_OK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListOk {
    /// The id of the query it answers.
    pub query: QueryId,
    /// The items, in ascending order of [`ListItem::key`].
    pub items: Vec<ListItem>,
    /// True if more items follow.
    pub more: bool,
    /// The op up to which this answer is true.
    pub applied: Op,
}

/// One item of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListItem {
    /// A topic that the asker follows.
    Following {
        /// The topic.
        topic: Topic,
        /// The op of the follow.
        since: Op,
    },
    /// A profile.
    Profile {
        /// Its name.
        name: Name,
        /// The op that claimed it; in a list of followers, the op of the follow.
        since: Op,
    },
    /// A device of the asker.
    Device {
        /// Its id.
        device: DeviceId,
        /// Its cursor.
        cursor: Op,
        /// Its live session.
        session: Option<SessionId>,
        /// The log's time when it was last admitted or had a session confirmed, a request applied or its
        /// cursor reported, in ms since 1970.
        last_seen_ms: u64,
    },
    /// A channel.
    Channel {
        /// Its name.
        name: Name,
        /// The number of its followers.
        followers: u64,
        /// The op of its newest notification.
        last_op: Op,
        /// The access it gives.
        access: Access,
    },
    /// A member of a channel.
    Member {
        /// The profile.
        name: Name,
        /// Its role.
        role: Role,
    },
    /// A key of the asker.
    Key {
        /// The key.
        key: DeviceKey,
        /// The slots of its devices.
        slots: Vec<u8>,
        /// The latest time when any of its devices was seen, in ms since 1970; zero if it has none.
        last_seen_ms: u64,
    },
}

impl ListItem {
    /// The item's position in its list, which [`List::after`] names to ask for the next page: a topic as
    /// people write it in a follow, a key in full, a device as its key and slot, otherwise the name.
    pub fn key(&self) -> String {
        match self {
            ListItem::Following { topic, .. } => topic.to_string(),
            ListItem::Profile { name, .. }
            | ListItem::Channel { name, .. }
            | ListItem::Member { name, .. } => name.to_string(),
            ListItem::Device { device, .. } => format!("{}/{:03}", device.key.in_full(), device.slot),
            ListItem::Key { key, .. } => key.in_full(),
        }
    }
}

/// STATUS_OK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusOk {
    /// The id of the query it answers.
    pub query: QueryId,
    /// The server.
    pub node: NodeId,
    /// Its role.
    pub role: RoleName,
    /// Its view.
    pub view: View,
    /// Its last applied op.
    pub applied: Op,
    /// Its last fsynced op.
    pub durable: Op,
    /// The number of ops it holds and has not applied: not known to be committed, or about to be applied.
    pub lag: u64,
    /// Its process id.
    pub pid: u32,
    /// The number of its starts.
    pub incarnation: Incarnation,
    /// The time since its start, in ms.
    pub uptime_ms: u64,
    /// The addresses of all servers for clients.
    pub members: Vec<(NodeId, SocketAddr)>,
    /// The number of datagrams refused since the start, by reason.
    pub refused: Vec<(RefusedDatagram, u64)>,
}

/// The reason why a datagram was refused; each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RefusedDatagram {
    /// Shorter than its headers or its contents, or not of the length that its kind has.
    Truncated,
    /// Longer than a datagram of this protocol.
    Oversized,
    /// Another magic number.
    Magic,
    /// Another version of the protocol.
    Version,
    /// The cluster is another one, or the server is unknown.
    Cluster,
    /// The authentication fails, or there is no key to open it with.
    Seal,
    /// Authentic, but not a valid packet.
    Malformed,
    /// The session is not known here.
    Session,
    /// Its packet number was received before, or is older than the replay window.
    Repeated,
    /// A queue was full.
    QueueFull,
    /// A handshake beyond the budget of its network, or of all networks.
    Budget,
    /// A handshake whose cookie is not valid or has expired.
    Cookie,
}

impl RefusedDatagram {
    /// All reasons.
    pub const ALL: [RefusedDatagram; 12] = [
        RefusedDatagram::Truncated,
        RefusedDatagram::Oversized,
        RefusedDatagram::Magic,
        RefusedDatagram::Version,
        RefusedDatagram::Cluster,
        RefusedDatagram::Seal,
        RefusedDatagram::Malformed,
        RefusedDatagram::Session,
        RefusedDatagram::Repeated,
        RefusedDatagram::QueueFull,
        RefusedDatagram::Budget,
        RefusedDatagram::Cookie,
    ];
}

/// The role of a server, as shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RoleName {
    /// Holds a copy and votes.
    Backup,
    /// It is in an election.
    Candidate,
    /// Takes writes.
    Primary,
    /// Primary without a majority: acknowledges nothing.
    Isolated,
    /// Holds a copy, has no vote yet.
    Learner,
}

/// COORDINATOR: to servers and to clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinator {
    /// The active view as far as the sender knows; [`View::ZERO`] if it knows none.
    pub view: View,
    /// The addresses of all servers for clients, by id; the primary is `view.primary()`.
    pub members: Vec<(NodeId, SocketAddr)>,
}

/// HEARTBEAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender's view.
    pub view: View,
    /// The sender's state: primary of that view or not, and whether that view is active.
    pub state: HeartbeatState,
    /// The sender's commit.
    pub commit: Op,
    /// The sender's last op.
    pub last: Op,
    /// A counter that the primary raises with each heartbeat; a backup echoes the highest one it heard.
    pub beat: u64,
    /// The highest view that the sender has promised.
    pub promised: View,
    /// True if the sender is about to stop, and so is no target of a TRANSFER.
    pub leaving: bool,
    /// The sender's incarnation.
    pub incarnation: Incarnation,
    /// The digest of the sender's members list.
    pub members: u64,
    /// The slowest recent turn of the sender's journal, including the one under way, in ms.
    pub disk_ms: u32,
}

/// The state of the sender of a HEARTBEAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeartbeatState {
    /// Not primary: this heartbeat is an echo.
    Backup,
    /// Primary of a view that is not active yet.
    Opening,
    /// Primary of an active view.
    Active,
    /// Primary without a majority; its heartbeats do not count as hearing from a primary.
    Isolated,
}

/// ELECTION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Election {
    /// Asks whether the receiver suspects the primary of `view` too. Changes nothing durable.
    Probe {
        /// The view whose primary is suspected.
        view: View,
        /// The prober's last view and op, from which its fitness is judged.
        last: (View, Op),
        /// The slowest recent turn of the sender's journal, as in HEARTBEAT.
        disk_ms: u32,
    },
    /// Asks for a promise of `view`.
    Prepare {
        /// The candidate's view.
        view: View,
        /// A counter that rises while the candidate makes progress; a rise restarts the time-outs of others.
        progress: u64,
        /// The step that the candidate waits for.
        waits_for: WaitsFor,
        /// The slowest recent turn of the sender's journal, as in HEARTBEAT.
        disk_ms: u32,
    },
}

/// The step that a candidate waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitsFor {
    /// Its own disk: its promise is not durable yet.
    Disk,
    /// The promises of others, and therefore their disks.
    Promises,
    /// Entries of a better log than its own, from this op on. This waits for no disk.
    Fetch(Op),
}

/// REPLY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The sender suspects the primary too.
    Agree {
        /// The view whose primary is suspected.
        view: View,
        /// The slowest recent turn of the sender's journal, as in HEARTBEAT.
        disk_ms: u32,
    },
    /// Not yet: the sender hears from the primary of this view.
    Alive {
        /// The sender's view.
        view: View,
        /// The slowest recent turn of the sender's journal, as in HEARTBEAT.
        disk_ms: u32,
    },
    /// The sender has a higher id, suspects the primary too, and is fit: it will be the candidate.
    Bully {
        /// The view whose primary is suspected.
        view: View,
        /// The slowest recent turn of the sender's journal, as in HEARTBEAT.
        disk_ms: u32,
    },
    /// The sender promises to accept nothing below the view, and says what its log holds.
    Promise(Promise),
    /// The sender has promised a higher view.
    Refuse {
        /// The view it has promised.
        promised: View,
    },
    /// The sender has promised the view too, but the promise is not durable yet; a Promise follows when it
    /// is.
    Writing {
        /// The view promised.
        view: View,
        /// The slowest recent turn of the sender's journal, as in HEARTBEAT.
        disk_ms: u32,
    },
}

/// A promise, and the state of the promiser's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The view promised.
    pub view: View,
    /// The view of the last entry held.
    pub last_view: View,
    /// The op of the last entry held.
    pub last_op: Op,
    /// The highest op that the promiser knows to be committed.
    pub commit: Op,
    /// The first op of each view in the log still held, ascending. It shows where two logs diverge.
    pub index: Vec<(View, Op)>,
    /// The ops that damage on the disk may have taken. Unknown is never the same as absent.
    pub unknown: Option<Unknown>,
    /// The highest incarnation that the promiser knows of each other server. Promises of earlier incarnations
    /// do not count.
    pub incarnations: Vec<(NodeId, Incarnation)>,
    /// The slowest recent turn of the promiser's journal, as in HEARTBEAT.
    pub disk_ms: u32,
}

/// ENTRIES: cast (from the primary), answers to FETCH (from any server) and catch-up alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// The sender's view.
    pub view: View,
    /// The id of the FETCH it answers; none for a cast.
    pub fetch: Option<QueryId>,
    /// The op before the first entry.
    pub prev_op: Op,
    /// The view of the entry at `prev_op`.
    pub prev_view: View,
    /// The op up to which the sender knows the log to be committed.
    pub commit: Op,
    /// The entries: consecutive ops, from `prev_op + 1` on.
    pub entries: Vec<Entry>,
}

/// ENTRIES_ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntriesAck {
    /// The view in which the log was matched.
    pub view: View,
    /// The end of the fsynced prefix matched with this view's primary.
    pub durable: Op,
    /// The end of the matched prefix, fsynced or not; the next entry wanted is one more.
    pub matched: Op,
    /// The sender's last applied op.
    pub applied: Op,
    /// True if the entries received did not follow the matched prefix: continue from `matched + 1`.
    pub rejected: bool,
}

/// FETCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The id, echoed in ENTRIES.
    pub query: QueryId,
    /// The asker's view.
    pub view: View,
    /// The last op that the asker has in common with the log it asks for.
    pub after: Op,
    /// The last op wanted.
    pub upto: Op,
}

/// SNAPSHOT_GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotGet {
    /// The op of the snapshot; zero: the newest one.
    pub op: Op,
    /// The first byte wanted.
    pub offset: u64,
    /// The number of chunks wanted from there.
    pub chunks: u16,
}

/// SNAPSHOT_CHUNK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// The snapshot's op.
    pub op: Op,
    /// The view of the entry at that op.
    pub view: View,
    /// The position of these bytes in the snapshot.
    pub offset: u64,
    /// The length of the snapshot in bytes.
    pub total: u64,
    /// CRC-32C of the whole snapshot.
    pub crc: u32,
    /// The bytes; at most [`SnapshotChunk::BYTES_MAX`].
    #[serde(with = "crate::bulk")]
    pub bytes: Vec<u8>,
}

impl SnapshotChunk {
    /// The most bytes of a snapshot; it is encoded and reassembled in memory.
    pub const TOTAL_MAX: u64 = 1 << 30;
    /// The most bytes in a chunk: with its headers it fits into one datagram.
    pub const BYTES_MAX: usize = 1024;
}

/// TRANSFER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The view of the primary that hands over.
    pub view: View,
    /// The primary's last op, which the target holds durably.
    pub last: Op,
}

/// LEARN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learn {
    /// A fresh random number.
    pub nonce: u64,
}

/// LEARN_OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnOk {
    /// The nonce of the LEARN.
    pub nonce: u64,
    /// The view that this server has promised.
    pub promised: View,
    /// The commit of this server if it is the active primary of `promised`, else none. From this answer on,
    /// the primary counts no ack that the asker sent before it lost its disk.
    pub active: Option<Op>,
}

/// FRAGMENT: a piece of an encoded packet that is too large for one datagram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// The number of the datagram that carries the packet's first piece. It identifies the packet.
    pub first: u64,
    /// Where this piece begins in the encoded packet.
    pub offset: u32,
    /// The length of the encoded packet.
    pub total: u32,
    /// The piece.
    #[serde(with = "crate::bulk")]
    pub bytes: Vec<u8>,
}
