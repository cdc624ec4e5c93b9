//! Changes that only an administrator may ask for.

use serde::{Deserialize, Serialize};

use super::{CodeHash, OptionalFields, QueryId};
use crate::id::{ChannelName, DeviceKey, Name, Op};

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
        channel: ChannelName,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminOk {
    /// The id of the ADMIN it answers.
    pub query: QueryId,
    /// The op of its log entry.
    pub op: Op,
    /// What the change results in beyond its op; nothing in this version.
    pub data: OptionalFields,
}

impl AdminOk {
    /// An answer that tells nothing beyond the op.
    pub const fn new(query: QueryId, op: Op) -> AdminOk {
        AdminOk { query, op, data: OptionalFields::NONE }
    }
}
