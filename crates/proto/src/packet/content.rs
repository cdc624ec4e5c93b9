//! Contents of notifications, and notifications as they are stored and delivered.

use serde::{Deserialize, Serialize};

use super::{Body, OptionalFields};
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
    pub body: Body,
    /// What gateways carry beside it, by short keys: at most [`Content::EXTRA_ENTRIES_MAX`], ascending by
    /// key, each key once and of at most [`Content::KEY_MAX`] bytes; at most [`Content::EXTRA_MAX`] bytes of
    /// keys and values together.
    #[serde(deserialize_with = "crate::bulk::pairs")]
    pub extra: Vec<(String, Vec<u8>)>,
}

impl Content {
    /// The longest title, in bytes.
    pub const TITLE_MAX: usize = 1024;
    /// The most tags.
    pub const TAGS_MAX: usize = 16;
    /// The longest tag, in bytes.
    pub const TAG_MAX: usize = 64;
    /// The longest body, in bytes.
    pub const BODY_MAX: usize = 16 * 1024;
    /// The most entries in `extra`. In memory each takes far more than its bytes.
    pub const EXTRA_ENTRIES_MAX: usize = 32;
    /// The longest key in `extra`, in bytes.
    pub const KEY_MAX: usize = 32;
    /// The most bytes of all keys and values in `extra`.
    pub const EXTRA_MAX: usize = 4 * 1024;

    /// A body and nothing else, at the usual priority.
    pub fn of(body: impl Into<Body>) -> Content {
        let (title, priority, tags, extra) = Default::default();
        Content { title, priority, tags, body: body.into(), extra }
    }

    /// The bytes of all keys and values in `extra`.
    pub fn extra_len(&self) -> usize {
        self.extra.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// Returns true if nothing of the notification can be seen: there is nothing but characters that are
    /// blank ([`Content::is_blank_char`]) in its body and its title, and nothing in `extra`. Clients refuse
    /// to send such a notification.
    pub fn is_blank(&self) -> bool {
        let is_blank = |text: &str| text.chars().all(Content::is_blank_char);
        let shows_no_bytes = self.body.is_text() || self.body.is_empty();
        self.extra.is_empty()
            && shows_no_bytes
            && is_blank(&self.body.as_text())
            && self.title.as_deref().is_none_or(is_blank)
    }

    /// Returns true if a terminal or a browser shows nothing for the character: Unicode's White_Space,
    /// control characters, Default_Ignorable_Code_Point, and the empty Braille pattern.
    pub fn is_blank_char(c: char) -> bool {
        c.is_whitespace()
            || c.is_control()
            || matches!(c,
                '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
                | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}')
    }

    /// Returns true if every part is within its limit.
    pub fn within_limits(&self) -> bool {
        self.title.as_ref().is_none_or(|title| title.len() <= Self::TITLE_MAX)
            && self.tags.len() <= Self::TAGS_MAX
            && self.tags.iter().all(|tag| tag.len() <= Self::TAG_MAX)
            && self.body.len() <= Self::BODY_MAX
            && self.body.is_well_formed()
            && self.extra.len() <= Self::EXTRA_ENTRIES_MAX
            && self.extra.iter().all(|(key, _)| (1..=Self::KEY_MAX).contains(&key.len()))
            && self.extra.is_sorted_by(|(one, _), (next, _)| one < next)
            && self.extra_len() <= Self::EXTRA_MAX
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
    /// The optional fields.
    pub options: OptionalFields,
}

impl Notification {
    /// The change that it reports, if it is no text of its author.
    pub fn notice(&self) -> Option<Notice> {
        Notice::of(&self.options)
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.content.within_limits() && self.options.is_bounded()
    }
}

/// A change that a notification reports in place of a text. Its content is empty, and the servers have set
/// its optional field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Its text was retracted, and is gone: it has its op, topic, author and time alone.
    Retracted,
    /// The notification of this op, an earlier one of the same topic, was retracted by the author of this
    /// one.
    Retracts(Op),
    /// The author of this one has deleted the channel with all that it held.
    ChannelDeleted,
}

impl Notice {
    /// The optional fields of a notification that reports it.
    pub fn options(self) -> OptionalFields {
        let (tag, bytes) = match self {
            Notice::Retracted => (OptionalFields::RETRACTED, Vec::new()),
            Notice::Retracts(op) => (OptionalFields::RETRACTS, op.0.to_be_bytes().to_vec()),
            Notice::ChannelDeleted => (OptionalFields::CHANNEL_DELETED, Vec::new()),
        };
        OptionalFields::NONE.with(tag, bytes)
    }

    fn of(options: &OptionalFields) -> Option<Notice> {
        let retracts = || options.get(OptionalFields::RETRACTS)?.try_into().ok().map(u64::from_be_bytes);
        if options.get(OptionalFields::RETRACTED).is_some() {
            Some(Notice::Retracted)
        } else if options.get(OptionalFields::CHANNEL_DELETED).is_some() {
            Some(Notice::ChannelDeleted)
        } else {
            retracts().map(|op| Notice::Retracts(Op(op)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_survives_its_optional_field_and_nothing_else_is_one() {
        for notice in [Notice::Retracted, Notice::Retracts(Op(300)), Notice::ChannelDeleted] {
            assert_eq!(Notice::of(&notice.options()), Some(notice));
            assert!(notice.options().may_be_ignored(), "an older client steps over it");
        }
        let short = OptionalFields::NONE.with(OptionalFields::RETRACTS, vec![1]);
        assert_eq!((Notice::of(&short), Notice::of(&OptionalFields::NONE)), (None, None));
    }

    #[test]
    fn a_text_that_shows_nothing_is_blank_in_any_alphabet() {
        for blank in [
            "",
            " \n\t",
            "\u{200b}\u{feff}",
            "\u{a0}\u{3000}",
            "\u{2800}",
            "\u{3164}",
            "\u{e0020}\u{ad}",
            "\u{0}",
        ] {
            assert!(Content::of(blank).is_blank(), "{blank:?}");
            assert!(Content { title: Some(blank.to_owned()), ..Content::of(blank) }.is_blank(), "{blank:?}");
        }
        // Joiners between visible characters, a variation selector, a body that is no text.
        for seen in ["x", ".", "\u{1f469}\u{200d}\u{1f680}", "\u{2764}\u{fe0f}", "\u{301}"] {
            assert!(!Content::of(seen).is_blank(), "{seen:?}");
        }
        assert!(!Content { title: Some("x".into()), ..Content::of("") }.is_blank());
        assert!(!Content { extra: vec![("k".into(), Vec::new())], ..Content::of("") }.is_blank());
        assert!(!Content::of(Body::binary(vec![0])).is_blank());
    }
}
