//! What clients did and saw: the one format that simulation and processes are judged by.

use std::collections::BTreeMap;

use recado::id::{Name, Op, Topic};
use recado::wire::packet::{ChannelChange, Code, QueryId};

/// A client: one device of one profile, through all its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u8);

/// The number of a request of one client in its own order of asking; never used twice, unlike the
/// numbers on the wire, which a client that lost its memory may use for other content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskId(pub u32);

/// What is known of a client beforehand.
#[derive(Clone, Debug)]
pub struct Facts {
    pub profile: Name,
    pub receives: bool,
}

/// One thing that happened at a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// Let in: its stream goes on beyond this op.
    Connected { cursor: Op },
    /// Asked to send; the text is unique in the whole history.
    Sent { ask: AskId, topic: Topic, text: String },
    /// Asked to follow.
    Followed { ask: AskId, topic: Topic },
    /// Asked to unfollow.
    Unfollowed { ask: AskId, topic: Topic },
    /// A request is acknowledged.
    Acked { ask: AskId, op: Op },
    /// A request is refused.
    Refused { ask: AskId, code: Code },
    /// A request that was answered before, or that another client asked, is heard of again by whoever has a
    /// copy of that client's files.
    AnsweredAgain { of: ClientId, ask: AskId, result: Result<Op, Code> },
    /// The client's files are those of an earlier time: it stands there again, at the latest.
    PutBack { cursor: Option<Op> },
    /// The client died and forgot its unanswered requests: their outcome is unknown to it.
    Forgot { asks: Vec<AskId> },
    /// A notification was handed to the application, and the cursor stored with it.
    Delivered { op: Op, author: Name, topic: Topic, text: String },
    /// The application was told of notifications dropped unread.
    Gap { after: Op, upto: Op },
    /// Asked to change an owned channel.
    ChangedChannel { ask: AskId, channel: Name, change: ChannelChange },
    /// Asked to change its profile's keys.
    ChangedKeys { ask: AskId },
    /// Asked what a topic holds.
    Asked { query: QueryId, topic: Topic },
    /// The answer: the newest that it holds, if anything, up to where retention dropped everything, and of
    /// which state that is true.
    Read { query: QueryId, newest: Option<Op>, trimmed_upto: Op, applied: Op },
    /// The device was forgotten by the service: it comes in anew, and these requests have an outcome
    /// that it does not know.
    Disowned { asks: Vec<AskId> },
}

/// One thing that the log says was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub op: Op,
    /// By whom; of what is gone, its name.
    pub by: Name,
    pub deed: Deed,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    Sent {
        topic: Topic,
        text: String,
    },
    Followed(Topic),
    Unfollowed(Topic),
    Changed(Name, ChannelChange),
    /// A channel is gone with all it held: removed by an administrator, or of no use. Its name is free, unless it
    /// was private; of one that was deleted, the name is.
    ChannelGone,
    /// So it is with a profile.
    ProfileGone,
}

/// Everything that happened, in the order of (virtual or monotonic) time.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub clients: BTreeMap<ClientId, Facts>,
    pub events: Vec<(ClientId, Happened)>,
    /// Up to where retention dropped notifications of each topic, as the servers say.
    pub trimmed: BTreeMap<Topic, Op>,
    /// What the log says was done, in the order of ops, where somebody can read it. Else what clients were
    /// told has to do.
    pub log: Option<Vec<Done>>,
}

impl History {
    /// Writes down.
    pub fn note(&mut self, client: ClientId, happened: Happened) {
        self.events.push((client, happened));
    }

    /// What happened at one client.
    pub fn of(&self, client: ClientId) -> impl Iterator<Item = &Happened> + '_ {
        self.events.iter().filter(move |(of, _)| *of == client).map(|(_, happened)| happened)
    }
}
