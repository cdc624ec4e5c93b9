//! The history of a run: what clients did and saw, in the one format in which the simulation and the tests
//! with real processes are checked.

use std::collections::BTreeMap;

use recado_proto::id::{ChannelName, Name, Op, StoreKey, Topic};
use recado_proto::packet::{ChannelChange, Code, Condition, Notice, QueryId};

/// A client: one device of one profile, over all runs of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u8);

/// The number of a request of one client, in its own order of asking. It is never used twice, unlike the
/// numbers on the wire, which a client that lost its files may use for other content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskId(pub u32);

/// The facts about a client that do not change.
#[derive(Clone, Debug)]
pub struct Facts {
    pub profile: Name,
    pub receives: bool,
}

/// One event at a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The client is admitted, and its stream goes on after this op.
    Connected { cursor: Op },
    /// The client sends a text, which is unique in the whole history.
    Sent { ask: AskId, topic: Topic, text: String },
    /// The client follows a topic.
    Followed { ask: AskId, topic: Topic },
    /// The client unfollows a topic.
    Unfollowed { ask: AskId, topic: Topic },
    /// A request is acknowledged.
    Acked { ask: AskId, op: Op },
    /// A request is refused.
    Refused { ask: AskId, code: Code },
    /// A request is answered again: it was answered before, or another client made it, and this client has a
    /// copy of that client's files.
    AnsweredAgain { of: ClientId, ask: AskId, result: Result<Op, Code> },
    /// The client's files are restored from an older copy, and the cursor with them.
    PutBack { cursor: Option<Op> },
    /// The client crashed and lost its unanswered requests, so their outcome is unknown to it.
    Forgot { asks: Vec<AskId> },
    /// The client's files hold these requests no longer, and it heard no result of them. They are its own, or
    /// of the client that its files were copied from. Another copy of the files may still complete them.
    GaveUp { requests: Vec<(ClientId, AskId)> },
    /// A notification was handed to the application, and the cursor stored with it.
    Delivered { op: Op, author: Name, topic: Topic, text: String },
    /// A notification without a text was handed to the application, and the cursor stored with it.
    Told { op: Op, author: Name, topic: Topic, notice: Notice },
    /// A gap was reported to the application: notifications that were dropped unread.
    Gap { after: Op, upto: Op },
    /// The client changes an owned channel.
    ChangedChannel { ask: AskId, channel: ChannelName, change: ChannelChange },
    /// The client changes its profile: its keys, or its display name.
    ChangedProfile { ask: AskId },
    /// The client retracts the notification of this op.
    Retracted { ask: AskId, of: Op },
    /// The client writes a key of the store, or deletes it.
    Wrote { ask: AskId, key: StoreKey, value: Option<String> },
    /// The client queries a value.
    AskedValue { query: QueryId },
    /// The answer to a query for a value: the value with its timestamp, if there is one, and the op of the
    /// state that was read. Without an id it is that of the reader that shares the client's files.
    Got { query: Option<QueryId>, key: StoreKey, value: Option<(String, Op)>, applied: Op },
    /// The client queries a topic's history.
    Asked { query: QueryId, topic: Topic },
    /// The answer to a query: the newest op that the topic holds, if any, the op up to which retention
    /// dropped everything, and the op of the state that was read.
    Read { query: QueryId, newest: Option<Op>, trimmed_upto: Op, applied: Op },
    /// The service forgot the device: it must be admitted again, and the outcome of these requests is unknown
    /// to it.
    Disowned { asks: Vec<AskId> },
}

/// One action in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogAction {
    pub op: Op,
    /// The profile that acted or was removed; none if a channel was removed.
    pub by: Option<Name>,
    /// The client that acted, if it is known. Two clients whose files are copies act as the same device.
    pub client: Option<ClientId>,
    pub deed: LoggedAction,
}

/// An action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoggedAction {
    Sent {
        topic: Topic,
        text: String,
    },
    Followed(Topic),
    Unfollowed(Topic),
    Changed(ChannelName, ChannelChange),
    /// The text of this notification is taken away.
    Retracted {
        topic: Topic,
        of: Op,
    },
    /// A channel is removed with its content, by an administrator or because it expired. Its name is free,
    /// unless it was private; the name of a channel that was deleted earlier is free in any case.
    ChannelGone(ChannelName),
    /// A profile is removed in the same way.
    ProfileGone,
}

/// What one op did to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreDeed {
    /// A write or, without a value, a deletion was done or refused.
    Wrote { key: StoreKey, condition: Condition, value: Option<String>, result: Result<(), Code> },
    /// The profile or the channel of these keys is gone.
    Gone(Topic),
}

/// All events, in the order of (virtual or monotonic) time.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub clients: BTreeMap<ClientId, Facts>,
    pub events: Vec<(ClientId, ClientEvent)>,
    /// The op up to which retention dropped notifications of each topic, as the servers report it.
    pub trimmed: BTreeMap<Topic, Op>,
    /// The actions in the log, in op order, if the log can be read. Without it, the checkers use the clients'
    /// knowledge.
    pub log: Option<Vec<LogAction>>,
    /// What the log did to the store, in op order.
    pub values: Vec<(Op, StoreDeed)>,
}

impl History {
    /// Appends an event.
    pub fn note(&mut self, client: ClientId, happened: ClientEvent) {
        self.events.push((client, happened));
    }

    /// Returns the events of one client.
    pub fn of(&self, client: ClientId) -> impl Iterator<Item = &ClientEvent> + '_ {
        self.events.iter().filter(move |(of, _)| *of == client).map(|(_, happened)| happened)
    }
}
