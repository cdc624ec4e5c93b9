//! Queries, which change nothing, and their answers.
//!
//! [`Query`] and [`Answer`] are the frames of all kinds; the kinds follow.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{DisplayName, Notification, OptionalFields, Position, Role, Status, StoredValue};
use crate::id::{ChannelName, DeviceId, DeviceKey, Name, Op, SessionId, StoreKey, Topic};

/// The id of a query, chosen by the client and echoed in the answer. A client uses none twice on a session:
/// while the answer to one is outstanding, another query of this id counts as the same one, sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueryId(pub u64);

/// QUERY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The id, echoed in the answer.
    pub id: QueryId,
    /// The client's token: the answer is of a state that is at least so late. None: of any state.
    pub at_least: Option<Position>,
    /// What is asked.
    pub kind: QueryKind,
    /// The optional fields.
    pub options: OptionalFields,
}

impl Query {
    /// A query without token and optional fields.
    pub const fn new(id: QueryId, kind: QueryKind) -> Query {
        Query { id, at_least: None, kind, options: OptionalFields::NONE }
    }

    pub(super) fn is_bounded(&self) -> bool {
        let kind = match &self.kind {
            QueryKind::List(list) => list.is_bounded(),
            QueryKind::Status
            | QueryKind::Info { .. }
            | QueryKind::History(_)
            | QueryKind::WhoAmI
            | QueryKind::Get { .. } => true,
        };
        kind && self.options.is_bounded()
    }

    /// Returns true if it asks for something that the first programs of this version did not have. Such a
    /// query travels in an EXTENSION ([`ToServer::query`](super::ToServer::query)), so that they refuse it.
    pub(super) fn is_extension(&self) -> bool {
        match &self.kind {
            QueryKind::Get { .. } => true,
            QueryKind::List(list) => matches!(list.what, Listing::Stored { .. }),
            QueryKind::Status | QueryKind::Info { .. } | QueryKind::History(_) | QueryKind::WhoAmI => false,
        }
    }
}

/// What a query asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryKind {
    /// The status of the server that receives it; answered by any server, also without a session.
    Status,
    /// About a profile.
    Info {
        /// The profile; none: the asker's own.
        profile: Option<Name>,
    },
    /// A page of a topic's notifications.
    History(History),
    /// A page of a list.
    List(List),
    /// The profile of the device key that the handshake has proved. Refused with Unsupported.
    WhoAmI,
    /// The value of a key of the store.
    Get {
        /// The key.
        key: StoreKey,
    },
}

/// QUERY_OK: the answer to a query that was not refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The id of the query.
    pub id: QueryId,
    /// The position up to which the answer is true. It raises the client's token.
    pub applied: Position,
    /// The answer.
    pub kind: AnswerKind,
    /// The optional fields.
    pub options: OptionalFields,
}

impl Answer {
    /// Returns true if it is sent until its client has acknowledged it, because the query costs much. A
    /// status is sent once: its client asks again.
    pub fn is_tracked(&self) -> bool {
        !matches!(self.kind, AnswerKind::Status(_))
    }

    pub(super) fn is_bounded(&self) -> bool {
        let kind = match &self.kind {
            AnswerKind::Status(status) => status.is_bounded(),
            AnswerKind::History(page) => page.is_bounded(),
            AnswerKind::List(page) => page.is_bounded(),
            AnswerKind::Value(value) => value.as_ref().is_none_or(StoredValue::is_bounded),
            AnswerKind::Info(_) | AnswerKind::WhoAmI(_) => true,
        };
        kind && self.options.is_bounded()
    }
}

/// The answer to each kind of query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerKind {
    /// A server's status.
    Status(Status),
    /// About a profile.
    Info(Info),
    /// A page of notifications.
    History(HistoryPage),
    /// A page of a list.
    List(ListPage),
    /// The profile of a device key; none if it has none.
    WhoAmI(Option<Name>),
    /// The value of a key; none: the key has none.
    Value(Option<StoredValue>),
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

/// What a profile is and does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
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
}

/// The query for a page of history: of one's own inbox, or of anyone's feeds and of channels that one may
/// read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
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
    /// The most bytes of the contents of a page, unless it has a single notification. Each notification
    /// counts 64 bytes more, whatever its names: with the longest ones a page still fits into a packet.
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

/// A page of notifications.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// The notifications, ascending by op.
    pub notifications: Vec<Arc<Notification>>,
    /// True if there is more in the direction asked for.
    pub more: bool,
    /// The newest op that was dropped from the topic; without a topic, of all that was dropped after the
    /// asker's follow of its topic. Zero if none was.
    pub trimmed_upto: Op,
}

impl HistoryPage {
    pub(super) fn is_bounded(&self) -> bool {
        self.notifications.len() <= History::LIMIT_MAX as usize
            && self.notifications.iter().all(|notification| notification.is_bounded())
            && self.notifications.is_sorted_by(|one, next| one.op < next.op)
    }
}

/// The query for a page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The list.
    pub what: Listing,
    /// The key of the last item of the page before ([`ListItem::key`]); none: the first page.
    pub after: Option<String>,
}

impl List {
    /// The most items in one page.
    pub const ITEMS_MAX: usize = 200;
    /// The longest key of an item, in bytes: a key of the store.
    const KEY_MAX: usize = StoreKey::LEN_MAX;

    pub(super) fn is_bounded(&self) -> bool {
        let prefix = match &self.what {
            Listing::Stored { prefix } => prefix.len() <= List::KEY_MAX,
            _ => true,
        };
        prefix && self.after.as_ref().is_none_or(|key| key.len() <= List::KEY_MAX)
    }
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
    Members(ChannelName),
    /// The keys of the asker's profile, each of one installation.
    Keys,
    /// The keys of the store that begin with a text, those of private channels only for their members.
    Stored {
        /// The beginning; at most 256 bytes. Empty: all keys.
        prefix: String,
    },
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPage {
    /// The items, in ascending order of [`ListItem::key`].
    pub items: Vec<ListItem>,
    /// True if more items follow.
    pub more: bool,
}

impl ListPage {
    pub(super) fn is_bounded(&self) -> bool {
        self.items.len() <= List::ITEMS_MAX
    }
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
        name: ChannelName,
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
        #[serde(with = "crate::bulk")]
        slots: Vec<u8>,
        /// The latest time when any of its devices was seen, in ms since 1970; zero if it has none.
        last_seen_ms: u64,
    },
    /// A profile with a display name; only if the query asks for them ([`OptionalFields::DISPLAY`]), and else
    /// [`ListItem::Profile`].
    Displayed {
        /// Its name.
        name: Name,
        /// As in [`ListItem::Profile`].
        since: Op,
        /// Its display name.
        display: DisplayName,
    },
    /// A key of the store.
    Stored {
        /// The key.
        key: StoreKey,
        /// The timestamp of its value.
        timestamp: Op,
        /// The number of bytes of its value.
        bytes: u64,
        /// The profile that wrote it.
        author: Name,
    },
}

impl ListItem {
    /// The item's position in its list, which [`List::after`] names to ask for the next page: a topic as
    /// people write it in a follow, a key in full, a device as its key and slot, otherwise the name.
    pub fn key(&self) -> String {
        match self {
            ListItem::Following { topic, .. } => topic.to_string(),
            ListItem::Profile { name, .. }
            | ListItem::Displayed { name, .. }
            | ListItem::Member { name, .. } => name.to_string(),
            ListItem::Channel { name, .. } => name.to_string(),
            ListItem::Device { device, .. } => format!("{}/{:03}", device.key.in_full(), device.slot),
            ListItem::Key { key, .. } => key.in_full(),
            ListItem::Stored { key, .. } => key.to_string(),
        }
    }
}
