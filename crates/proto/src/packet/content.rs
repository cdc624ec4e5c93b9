//! Contents of notifications, and notifications as they are stored and delivered.

use serde::{Deserialize, Serialize};

use crate::id::{Name, Op, Priority, Topic};

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
