//! The packets: plain data, no behaviour. `Packet` is the one enum of everything that travels.
//!
//! WARNING: append only. The order of variants and fields is the protocol, pinned by golden bytes
//! in `tests/it/golden`.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::seal::Key;
use crate::entry::{Entry, Unknown};
use crate::id::{DeviceId, DeviceKey, Incarnation, Name, NodeId, Op, Priority, Seq, SessionId, Topic, View};

/// Everything that travels. Several share a datagram; one too large for it goes as FRAGMENTs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packet {
    /// CONNECT: a device asks for a session.
    Connect(Connect),
    /// DISCONNECT: the client ends its session.
    Disconnect(Disconnect),
    /// ACCEPT_CONN: the session is in the log and committed; pending until RESUME.
    AcceptConn(AcceptConn),
    /// REJECT_CONN: no session, and why.
    RejectConn(RejectConn),
    /// FOLLOW: numbered; add or remove.
    Follow(Follow),
    /// SEND: numbered; a notification for a topic.
    Send(Send),
    /// NOTIFICATION: one notification of a session's stream.
    Notification(Delivered),
    /// ERROR: a typed refusal of what it names.
    Error(Refused),
    /// INFO: answers REQUEST_USER_INFO.
    Info(Info),
    /// REQUEST_USER_INFO: asks about a profile.
    RequestUserInfo(RequestUserInfo),
    /// HEARTBEAT: the primary lives; also from backups, who then only echo.
    Heartbeat(Heartbeat),
    /// ELECTION: Probe or Prepare.
    Election(Election),
    /// REPLY: the answer to ELECTION.
    Reply(Reply),
    /// COORDINATOR: the announced primary.
    Coordinator(Coordinator),
    /// SEND_ACK: a numbered request is applied, and at which op.
    SendAck(SendAck),
    /// CLIENT_ACK: what a session has delivered to its application.
    ClientAck(ClientAck),
    /// ENTRIES: cast, fetch answer and catch-up alike.
    Entries(Entries),
    /// ENTRIES_ACK: how far a backup holds and has fsynced what it matched with this view's primary.
    EntriesAck(EntriesAck),
    /// FETCH: asks a peer for entries.
    Fetch(Fetch),
    /// SNAPSHOT_GET: asks a peer for a piece of its newest snapshot.
    SnapshotGet(SnapshotGet),
    /// SNAPSHOT_CHUNK: a piece of it.
    SnapshotChunk(SnapshotChunk),
    /// RESUME: a session comes to this primary, or asks it to go on. The first one confirms it.
    Resume(Resume),
    /// RESUME_OK: this primary serves the session from here.
    ResumeOk(ResumeOk),
    /// TRANSFER: permission to skip the probe, no more.
    Transfer(Transfer),
    /// STATUS: asks a server how it is; answered by any server, also without a session.
    Status(QueryId),
    /// STATUS_OK: how it is.
    StatusOk(StatusOk),
    /// HISTORY: asks for a page of a topic's notifications.
    History(History),
    /// LIST: asks for one of the lists.
    List(List),
    /// FRAGMENT: a piece of a packet too large for one datagram.
    Fragment(Fragment),
    /// KEEPALIVE: a client lives, on a session; answered with COORDINATOR.
    Keepalive,
    /// HISTORY_OK: a page of notifications.
    HistoryOk(HistoryOk),
    /// LIST_OK: a page of a list.
    ListOk(ListOk),
    /// GAP: notifications of this stream that retention dropped before they were read.
    Gap(Gap),
    /// LEARN: a server without a vote asks what was promised.
    Learn(Learn),
    /// LEARN_OK: the answer to LEARN.
    LearnOk(LearnOk),
    /// PATH_CHALLENGE: does this session's client receive at this address? The number is echoed.
    PathChallenge(u64),
    /// PATH_RESPONSE: it does.
    PathResponse(u64),
    /// PADDING: nothing; makes a question as long as its answer.
    Padding(#[serde(with = "crate::bulk")] Vec<u8>),
    /// CHANNEL: numbered; makes an owned channel, changes its members, or deletes it.
    Channel(Channel),
    /// KEYS: numbered; opens an enrolment of a further device key, or revokes a key.
    Keys(Keys),
    /// ADMIN: what only an administrator asks.
    Admin(Admin),
    /// ADMIN_OK: it is done.
    AdminOk(AdminOk),
}

impl Packet {
    /// PADDING that makes any datagram at least as long as a PATH_CHALLENGE: what may be the first word
    /// from an address carries it, for nothing longer is sent to one that has not answered yet.
    pub fn padding() -> Packet {
        Packet::Padding(vec![0; 48])
    }
}

/// Chosen by the asker, echoed in the answer; unique among what it has outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueryId(pub u64);

/// What a person or a program writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// At most [`Content::TITLE_MAX`] bytes.
    pub title: Option<String>,
    /// How urgent.
    pub priority: Priority,
    /// At most [`Content::TAGS_MAX`], each at most [`Content::TAG_MAX`] bytes.
    pub tags: Vec<String>,
    /// At most [`Content::BODY_MAX`] bytes.
    pub body: String,
}

impl Content {
    /// Longest title, in bytes.
    pub const TITLE_MAX: usize = 256;
    /// Most tags.
    pub const TAGS_MAX: usize = 8;
    /// Longest tag, in bytes.
    pub const TAG_MAX: usize = 32;
    /// Longest body, in bytes.
    pub const BODY_MAX: usize = 16 * 1024;

    /// Whether every part is within its limit.
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
    /// Its id, and its place in the one order.
    pub op: Op,
    /// Where it was sent.
    pub topic: Topic,
    /// Who sent it.
    pub author: Name,
    /// When the primary took it, in ms since 1970; never falls with `op`.
    pub unix_ms: u64,
    /// What was sent.
    pub content: Content,
}

/// Why something was refused. Typed, never a string; the client words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Code {
    /// A queue is full or a rate exceeded; try again after `retry_ms`. Takes no number.
    Busy,
    /// This server is primary but reaches no majority; try again. Takes no number.
    NoQuorum,
    /// This server is not the primary. Takes no number.
    NotPrimary,
    /// No such profile.
    UnknownProfile,
    /// No such channel.
    UnknownChannel,
    /// The device was forgotten, or never known: its numbers mean nothing here.
    UnknownDevice,
    /// The session is closed, or a newer one of the same device fenced it.
    SessionOver,
    /// The profile belongs to another device key.
    NotYours,
    /// It takes a right that the profile does not have: only the owner sends to a feed and reads an
    /// inbox, and of an owned channel its members do what their roles allow.
    NotAllowed,
    /// Already following it.
    AlreadyFollowing,
    /// Not following it.
    NotFollowing,
    /// One cannot follow oneself, nor unfollow one's own inbox.
    Yourself,
    /// A part of it is over its limit.
    TooLarge,
    /// A cap on profiles, devices, keys, follows, channels or their members is reached.
    LimitReached,
    /// The number is further ahead than the window. Takes no number.
    TooFarAhead,
    /// There is a channel of this name already.
    NameTaken,
    /// No member of the channel.
    NotMember,
    /// The last owner of a channel, or the last key of a profile, cannot be removed.
    LastOne,
    /// No enrolment is open that this code fits: wrong, used already, too old, or tried too often.
    WrongCode,
    /// RESUME: the client stands behind the end of the log. Its cursor is none of this log's.
    BeyondEnd,
    /// The channel was deleted; its name is taken for `Limits::deleted` more.
    ChannelDeleted,
    /// Another request of this device has the number: there is a copy of the device's files. Nothing
    /// changed, and the request never had an effect; its client numbers it anew.
    NumberTaken,
    /// The number was applied, and its result is no longer held: some client of this device has said that
    /// it knows it. Nothing changed, and nothing will.
    NumberForgotten,
    /// A newer session of the same device took over: a copy of the device's files is in use elsewhere.
    Fenced,
    /// New names need an invitation, and none was given.
    InviteNeeded,
    /// No invitation has this code: wrong, used up, too old, or for another name.
    WrongInvite,
    /// New names need a key that an administrator has allowed, and this one is not.
    KeyNotAllowed,
    /// Too many new names from one network, or new channels by one profile, in the last hours.
    TooManyNames,
}

/// What an ERROR answers.
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
    /// Why.
    pub code: Code,
    /// Of what.
    pub answers: Answers,
    /// When to try again, in ms; 0: do not.
    pub retry_ms: u32,
}

/// CONNECT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Who asks.
    pub device: DeviceId,
    /// As which profile.
    pub profile: Name,
    /// Whether it receives.
    pub receives: bool,
    /// Unique to this CONNECT and its repetitions.
    pub nonce: u64,
    /// The device was never let in before as far as the client knows. If not and the service does
    /// not know it, it was forgotten: UnknownDevice, never silently restarted.
    pub fresh: bool,
    /// What proves that the profile wants this device's key, if the key is not one of its keys yet.
    pub code: Option<CodeHash>,
    /// Of an invitation, for a name that nobody has yet.
    pub invite: Option<CodeHash>,
}

/// A hash of an enrolment's code and the profile's name: the code itself stays with people. Until it is
/// used the hash is as good as the code, so it is never shown.
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
    /// Everything of the stream up to here has been taken by the application: the last word on it.
    pub upto: Op,
}

/// ACCEPT_CONN: the session waits for its RESUME, and is served from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptConn {
    /// Which CONNECT it answers.
    pub nonce: u64,
    /// The session's id.
    pub session: SessionId,
    /// The primary and its view, and where all servers are.
    pub coordinator: Coordinator,
    /// The session's secret, which its keys come from.
    pub secret: Key,
}

/// REJECT_CONN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectConn {
    /// Which CONNECT it answers.
    pub nonce: u64,
    /// Why.
    pub code: Code,
    /// When to try again, in ms; 0: do not.
    pub retry_ms: u32,
}

/// Start or stop.
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
    /// What to follow.
    pub topic: Topic,
    /// Start or stop.
    pub change: FollowChange,
    /// Drawn at random when the request was numbered, and repeated with it: the same text asked twice is
    /// two requests.
    pub nonce: u64,
}

/// SEND.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// The request's number.
    pub seq: Seq,
    /// The client's lowest unanswered number.
    pub answered_below: Seq,
    /// Where to; none: the sender's own feed.
    pub topic: Option<Topic>,
    /// What.
    pub content: Content,
    /// Drawn at random when the request was numbered, and repeated with it: the same text asked twice is
    /// two requests.
    pub nonce: u64,
}

/// CHANNEL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// The request's number.
    pub seq: Seq,
    /// The client's lowest unanswered number.
    pub answered_below: Seq,
    /// Which channel.
    pub channel: Name,
    /// What to do.
    pub change: ChannelChange,
    /// Drawn at random when the request was numbered, and repeated with it: the same text asked twice is
    /// two requests.
    pub nonce: u64,
}

/// What happens to an owned channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelChange {
    /// It is made, and belongs to whoever asks. There must be no channel of this name.
    Create {
        /// Whether only members follow and read it; else anyone does. Either way only writers and
        /// owners send.
        private: bool,
    },
    /// A profile becomes a member, or a member gets another role. Only an owner asks for it.
    Add {
        /// Who.
        member: Name,
        /// As what.
        role: Role,
    },
    /// A member is none any more. An owner asks for it, or the member itself.
    Remove {
        /// Who.
        member: Name,
    },
    /// It is gone, with all it holds and everybody's follow of it. Only an owner asks for it.
    Delete,
}

/// What a member of an owned channel may do; each includes the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Follows and reads.
    Reader,
    /// Sends.
    Writer,
    /// Adds and removes members, and deletes the channel.
    Owner,
}

/// Whom a channel is open to.
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
    /// What to do.
    pub change: KeyChange,
    /// Drawn at random when the request was numbered, and repeated with it: the same text asked twice is
    /// two requests.
    pub nonce: u64,
}

/// What happens to the keys of the asker's profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyChange {
    /// Whoever connects with this code soon adds its key, once. An enrolment that was open is not any
    /// more.
    Enrol {
        /// Of the code.
        code: CodeHash,
    },
    /// A key is none of the profile's any more; its devices are forgotten.
    Revoke {
        /// Which.
        key: DeviceKey,
    },
}

/// ADMIN. Asked again under the same `query` until it is answered, it is done once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admin {
    /// Echoed; drawn at random.
    pub query: QueryId,
    /// What is asked.
    pub change: AdminChange,
}

/// What only an administrator may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminChange {
    /// Takes a name from the keys that have it: its devices are forgotten, and who comes first claims it
    /// anew, with what it follows and its inbox.
    Release {
        /// Which name.
        name: Name,
    },
    /// Removes a profile, with its devices, its feed, its inbox, its follows and its roles. What it sent
    /// elsewhere stays. The name is free.
    RemoveProfile {
        /// Which.
        name: Name,
    },
    /// Removes a channel with all it holds. The name is free, also one of a channel that was deleted.
    RemoveChannel {
        /// Which.
        channel: Name,
    },
    /// Makes an invitation: while new names need one, its code lets so many claim one.
    Invite {
        /// Of the code.
        code: CodeHash,
        /// How many names; at least 1.
        uses: u32,
        /// For how long, in ms by the log's clock.
        lasts_ms: u64,
        /// Only this name.
        name: Option<Name>,
    },
    /// While new names need a key that is allowed, this one is.
    Allow {
        /// Which.
        key: DeviceKey,
    },
    /// A key is not allowed any more; the names it has stay its own.
    Disallow {
        /// Which.
        key: DeviceKey,
    },
}

/// ADMIN_OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminOk {
    /// Which ADMIN it answers.
    pub query: QueryId,
    /// Where it stands in the log.
    pub op: Op,
}

/// SEND_ACK: answers every numbered request that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendAck {
    /// Which request.
    pub seq: Seq,
    /// Where it stands in the log.
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
    /// What was dropped lies in `prev < op <= upto`.
    pub upto: Op,
}

/// CLIENT_ACK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAck {
    /// Everything of the stream up to here has been handed to the application.
    pub upto: Op,
    /// Ops held beyond it that wait for one in between; at most [`ClientAck::HELD_MAX`].
    pub held: Vec<Op>,
    /// How many more notifications the client takes beyond `upto`.
    pub credit: u32,
}

impl ClientAck {
    /// Most ops named in `held`.
    pub const HELD_MAX: usize = 64;
}

/// RESUME.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Where the client stands; the replicated cursor if it does not know.
    pub cursor: Option<Op>,
    /// How many notifications it takes beyond.
    pub credit: u32,
}

/// RESUME_OK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeOk {
    /// The op that let the device in. One that was removed and let in again has another: its numbers began anew,
    /// and what it asked before may have been done.
    pub born: Op,
    /// The last number the service applied of this device; the next is one more.
    pub last_seq: Seq,
    /// The primary and its view, and where all servers are.
    pub coordinator: Coordinator,
    /// The device's cursor as replicated: where the stream begins if the client did not say.
    pub cursor: Op,
}

/// REQUEST_USER_INFO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestUserInfo {
    /// Echoed.
    pub query: QueryId,
    /// About whom; none: oneself.
    pub profile: Option<Name>,
}

/// INFO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Which question.
    pub query: QueryId,
    /// About whom.
    pub profile: Name,
    /// The op of its birth.
    pub since: Op,
    /// How many profiles follow its feed.
    pub followers: u64,
    /// How many topics it follows, its inbox not counted.
    pub following: u64,
    /// How many devices it has.
    pub devices: u64,
    /// Its live sessions.
    pub sessions: u64,
    /// Notifications not yet read by its least advanced device.
    pub pending: u64,
    /// The op up to which this answer is true.
    pub applied: Op,
}

/// HISTORY: one's own inbox, the feeds and channels of anyone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Echoed.
    pub query: QueryId,
    /// Which topic; none: everything the asker follows, as its stream would have it.
    pub topic: Option<Topic>,
    /// From where, and in which direction.
    pub range: HistoryRange,
    /// Most notifications; the server takes at most [`History::LIMIT_MAX`].
    pub limit: u32,
}

impl History {
    /// Most notifications of one page.
    pub const LIMIT_MAX: u32 = 256;
    /// Most bytes of notifications of one page, unless a single one is larger.
    pub const BYTES_MAX: usize = 24 * 1024;
}

/// Where a page of history lies. Pages are in ascending order of `op` whichever the direction.
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
    /// Which question.
    pub query: QueryId,
    /// Ascending by op.
    pub notifications: Vec<Arc<Notification>>,
    /// Whether there is more in the asked direction.
    pub more: bool,
    /// Retention dropped everything of the topic up to here.
    pub trimmed_upto: Op,
    /// The op up to which this answer is true.
    pub applied: Op,
}

/// LIST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Echoed.
    pub query: QueryId,
    /// Which list.
    pub what: Listing,
    /// Only items after this one in the list's order; for the next page.
    pub after: Option<String>,
}

impl List {
    /// Most items of one page.
    pub const ITEMS_MAX: usize = 200;
}

/// The lists there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listing {
    /// Topics I follow.
    Following,
    /// Profiles that follow my feed.
    Followers,
    /// My devices.
    Devices,
    /// All channels, private ones only if one is a member.
    Channels,
    /// All profiles.
    People,
    /// The members of a channel; of a private one to its members only.
    Members(Name),
    /// My keys: installations that may come in as me.
    Keys,
}

/// LIST_OK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListOk {
    /// Which question.
    pub query: QueryId,
    /// In ascending order of [`ListItem::key`].
    pub items: Vec<ListItem>,
    /// Whether more follow.
    pub more: bool,
    /// The op up to which this answer is true.
    pub applied: Op,
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListItem {
    /// A topic and the op of the follow.
    Following {
        /// What is followed.
        topic: Topic,
        /// Since when.
        since: Op,
    },
    /// A profile.
    Profile {
        /// Its name.
        name: Name,
        /// The op of its birth, or of its follow.
        since: Op,
    },
    /// One of my devices.
    Device {
        /// Its id.
        device: DeviceId,
        /// Where it stands.
        cursor: Op,
        /// Its live session.
        session: Option<SessionId>,
        /// When it was last let in or read something, in ms since 1970.
        last_seen_ms: u64,
    },
    /// A channel.
    Channel {
        /// Its name.
        name: Name,
        /// How many follow it.
        followers: u64,
        /// Its newest notification.
        last_op: Op,
        /// Whom it is open to.
        access: Access,
    },
    /// A member of a channel.
    Member {
        /// Who.
        name: Name,
        /// As what.
        role: Role,
    },
    /// One of my keys.
    Key {
        /// Which.
        key: DeviceKey,
        /// Its devices.
        slots: Vec<u8>,
        /// When any of them was seen last, in ms since 1970; zero: none is known.
        last_seen_ms: u64,
    },
}

/// STATUS_OK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusOk {
    /// Which question.
    pub query: QueryId,
    /// Which server.
    pub node: NodeId,
    /// What it is now.
    pub role: RoleName,
    /// Its view.
    pub view: View,
    /// Its last applied op.
    pub applied: Op,
    /// Its last fsynced op.
    pub durable: Op,
    /// Ops it holds that it has not applied: not committed yet as far as it knows, or under way.
    pub lag: u64,
    /// Its process id.
    pub pid: u32,
    /// How often it has started.
    pub incarnation: Incarnation,
    /// Ms since it started.
    pub uptime_ms: u64,
    /// Where all servers are for clients.
    pub members: Vec<(NodeId, SocketAddr)>,
    /// Datagrams refused, by reason, as counted since the start.
    pub refused: Vec<(RefusedDatagram, u64)>,
}

/// Why a datagram was not taken; each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RefusedDatagram {
    /// Shorter than a header or cut within.
    Truncated,
    /// Longer than a datagram of this protocol.
    Oversized,
    /// Not our magic number.
    Magic,
    /// Another version of the protocol.
    Version,
    /// Another cluster's, or an unknown server's.
    Cluster,
    /// The seal does not hold, or there is no key to open it with.
    Seal,
    /// Sealed well but no packet.
    Malformed,
    /// No such session here.
    Session,
    /// Its number was seen before.
    Repeated,
    /// A queue was full.
    QueueFull,
    /// A handshake beyond the budget of its address, or of all.
    Budget,
    /// A handshake whose cookie is not valid (any more).
    Cookie,
}

impl RefusedDatagram {
    /// Every reason there is.
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

/// What a server is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RoleName {
    /// Holds a copy and votes.
    Backup,
    /// In an election.
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
    /// The active view as far as the sender knows; [`View::ZERO`]: none yet.
    pub view: View,
    /// Where all servers are for clients, by id; the primary is `view.primary()`.
    pub members: Vec<(NodeId, SocketAddr)>,
}

/// HEARTBEAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender's view.
    pub view: View,
    /// Whether the sender is the primary of that view, and how it is.
    pub state: HeartbeatState,
    /// The sender's commit.
    pub commit: Op,
    /// The sender's last op.
    pub last: Op,
    /// Counted up by each heartbeat of a primary; a backup echoes the highest it heard.
    pub beat: u64,
    /// What the sender has promised.
    pub promised: View,
    /// Whether the sender is about to stop: no target for a hand-over.
    pub leaving: bool,
    /// The sender's incarnation.
    pub incarnation: Incarnation,
    /// The digest of the sender's members list.
    pub members: u64,
    /// The slowest turn of the sender's journal lately, the one under way too, in ms.
    pub disk_ms: u32,
}

/// What the sender of a HEARTBEAT is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeartbeatState {
    /// An echo: the sender is no primary.
    Backup,
    /// Primary; the view is not active yet.
    Opening,
    /// Primary.
    Active,
    /// Primary without a majority; does not count as hearing from one.
    Isolated,
}

/// ELECTION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Election {
    /// Do you suspect the primary of `view` too? Nothing durable changes.
    Probe {
        /// The view whose primary is suspected.
        view: View,
        /// The prober's last op, for fitness.
        last: (View, Op),
        /// As in HEARTBEAT.
        disk_ms: u32,
    },
    /// Promise me `view`.
    Prepare {
        /// The candidate's view.
        view: View,
        /// Goes up while the candidate makes progress; resets others' patience.
        progress: u64,
        /// What the candidate waits for.
        waits_for: WaitsFor,
        /// As in HEARTBEAT.
        disk_ms: u32,
    },
}

/// What a candidate waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitsFor {
    /// Its own disk: its promise is not durable yet.
    Disk,
    /// The promises of others, and so their disks.
    Promises,
    /// Entries of a better log than its own, from this op on: no disk.
    Fetch(Op),
}

/// REPLY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// I suspect it too.
    Agree {
        /// The view whose primary is suspected.
        view: View,
        /// As in HEARTBEAT.
        disk_ms: u32,
    },
    /// Not yet: I hear from the primary of this view.
    Alive {
        /// The view I am in.
        view: View,
        /// As in HEARTBEAT.
        disk_ms: u32,
    },
    /// I rank higher, suspect it too, and am fit: mine now.
    Bully {
        /// The view whose primary is suspected.
        view: View,
        /// As in HEARTBEAT.
        disk_ms: u32,
    },
    /// I promise to accept nothing below the view, and this is what I hold.
    Promise(Promise),
    /// I have promised a higher one.
    Refuse {
        /// Which one.
        promised: View,
    },
    /// I have promised it as well, and say so when it is durable: my disk is at it.
    Writing {
        /// The view promised.
        view: View,
        /// As in HEARTBEAT.
        disk_ms: u32,
    },
}

/// What a promise shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The view promised.
    pub view: View,
    /// The view of the last entry held.
    pub last_view: View,
    /// The op of the last entry held.
    pub last_op: Op,
    /// Known to be committed.
    pub commit: Op,
    /// The first op of each view in the log still held, ascending: where logs part.
    pub index: Vec<(View, Op)>,
    /// What damage on the disk may have taken; never the same as absent.
    pub unknown: Option<Unknown>,
    /// The newest life that the promiser has heard of, of each other server: what an earlier one
    /// promised does not count.
    pub lives: Vec<(NodeId, Incarnation)>,
    /// As in HEARTBEAT.
    pub disk_ms: u32,
}

/// ENTRIES: cast (from the primary), answer to FETCH (from anyone) and catch-up alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// The view the sender is in.
    pub view: View,
    /// Which FETCH it answers; none: a cast.
    pub fetch: Option<QueryId>,
    /// The op before the first.
    pub prev_op: Op,
    /// Its view.
    pub prev_view: View,
    /// The sender's commit.
    pub commit: Op,
    /// Consecutive, from `prev_op + 1`.
    pub entries: Vec<Entry>,
}

/// ENTRIES_ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntriesAck {
    /// The view in which this was matched.
    pub view: View,
    /// The end of the fsynced prefix matched with this view's primary.
    pub durable: Op,
    /// The end of the matched prefix, fsynced or not: the next wanted is one more.
    pub matched: Op,
    /// What the sender has applied.
    pub applied: Op,
    /// What came did not join on: go on from `matched + 1`.
    pub rejected: bool,
}

/// FETCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Echoed in ENTRIES.
    pub query: QueryId,
    /// The asker's view.
    pub view: View,
    /// The last op it holds in common.
    pub after: Op,
    /// The last op it wants.
    pub upto: Op,
}

/// SNAPSHOT_GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotGet {
    /// Which snapshot; zero: your newest.
    pub op: Op,
    /// From which byte.
    pub offset: u64,
    /// How many chunks from there.
    pub chunks: u16,
}

/// SNAPSHOT_CHUNK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// The snapshot's op.
    pub op: Op,
    /// The view of the entry at that op.
    pub view: View,
    /// Where these bytes stand.
    pub offset: u64,
    /// How many bytes the whole has.
    pub total: u64,
    /// CRC-32C of the whole.
    pub crc: u32,
    /// At most [`SnapshotChunk::BYTES_MAX`].
    #[serde(with = "crate::bulk")]
    pub bytes: Vec<u8>,
}

impl SnapshotChunk {
    /// Most bytes of a whole snapshot: it is encoded, and put together, in memory.
    pub const TOTAL_MAX: u64 = 1 << 30;
    /// Bytes in a chunk: with its header, one datagram.
    pub const BYTES_MAX: usize = 1024;
}

/// TRANSFER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The view of the primary that hands over.
    pub view: View,
    /// Its last op, which the target holds durably.
    pub last: Op,
}

/// LEARN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learn {
    /// Fresh, random.
    pub nonce: u64,
}

/// LEARN_OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnOk {
    /// Of the LEARN.
    pub nonce: u64,
    /// What this server has promised.
    pub promised: View,
    /// What it has committed, if it is the active primary of `promised`. It counts nothing any more
    /// that the asker acknowledged before it lost its disk.
    pub active: Option<Op>,
}

/// FRAGMENT: `id` names the content, so the pieces of a packet sent again fill what was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// A hash of the whole encoded packet.
    pub id: u64,
    /// Which piece, from 0.
    pub index: u16,
    /// How many pieces.
    pub count: u16,
    /// The piece.
    #[serde(with = "crate::bulk")]
    pub bytes: Vec<u8>,
}
