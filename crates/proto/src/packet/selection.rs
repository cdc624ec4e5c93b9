//! What a history query selects from its range.

use serde::{Deserialize, Serialize};

use super::{Content, Notification, OptionalFields};
use crate::codec;
use crate::id::{Name, Op, Priority};

/// Which notifications of a range a history query asks for. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Those of this author.
    pub author: Option<Name>,
    /// Those with this text in the title or the body, whatever the case. In lower case, as
    /// [`str::to_lowercase`] gives it.
    pub text: Option<String>,
    /// Those with every one of these tags; at most [`Content::TAGS_MAX`].
    pub tags: Vec<String>,
    /// Those of this priority and higher ones.
    pub least: Option<Priority>,
    /// Those below this op.
    pub before: Option<Op>,
}

impl Selection {
    /// The most bytes of its encoding: a third less than what the optional fields of a QUERY may have.
    pub const BYTES_MAX: usize = 352;

    /// Returns true if it leaves nothing out.
    pub fn is_all(&self) -> bool {
        *self == Selection::default()
    }

    /// Returns true if it depends on more than the op of a notification.
    pub fn reads(&self) -> bool {
        let Selection { author, text, tags, least, before: _ } = self;
        author.is_some() || text.is_some() || !tags.is_empty() || least.is_some()
    }

    /// Returns true if it asks for this notification.
    pub fn has(&self, notification: &Notification) -> bool {
        let content = &notification.content;
        let contains = |text: &str, wanted: &str| text.to_lowercase().contains(wanted);
        let has_text = |wanted: &String| {
            contains(&content.body.as_text(), wanted)
                || content.title.as_ref().is_some_and(|title| contains(title, wanted))
        };
        self.before.is_none_or(|before| notification.op < before)
            && self.author.as_ref().is_none_or(|author| *author == notification.author)
            && self.least.is_none_or(|least| content.priority >= least)
            && self.tags.iter().all(|tag| content.tags.contains(tag))
            && self.text.as_ref().is_none_or(has_text)
    }

    /// Checks that a query can ask for it.
    ///
    /// # Errors
    /// [`SelectionTooLong`].
    pub fn check(&self) -> Result<(), SelectionTooLong> {
        let fits = self.is_bounded() && codec::encoded_len(self) <= Selection::BYTES_MAX;
        fits.then_some(()).ok_or(SelectionTooLong)
    }

    /// The optional fields of a query with it, which must have passed the [check](Selection::check):
    /// [`OptionalFields::SELECTION`], unless it leaves nothing out.
    pub fn onto(&self, options: OptionalFields) -> OptionalFields {
        if self.is_all() { options } else { options.with(OptionalFields::SELECTION, codec::encode(self)) }
    }

    /// The selection of a query with these optional fields; none if it cannot be read.
    pub fn of(options: &OptionalFields) -> Option<Selection> {
        let Some(bytes) = options.get(OptionalFields::SELECTION) else { return Some(Selection::default()) };
        if bytes.len() > Selection::BYTES_MAX {
            return None;
        }
        codec::decode(bytes).ok().filter(Selection::is_bounded)
    }

    fn is_bounded(&self) -> bool {
        self.tags.len() <= Content::TAGS_MAX
    }
}

/// A selection that is too long for a query. The caller's fault; nothing was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the text, the tags and the author that are searched for have more than {} bytes together, or the tags are more than {}: search for less",
    Selection::BYTES_MAX,
    Content::TAGS_MAX
)]
pub struct SelectionTooLong;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Topic;

    fn notification(body: &str, title: Option<&str>, tags: &[&str], priority: u8) -> Notification {
        Notification {
            op: Op(7),
            topic: Topic::Channel("ops".parse().unwrap()),
            author: "alice".parse().unwrap(),
            unix_ms: 1,
            content: Content {
                title: title.map(str::to_owned),
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                priority: priority.try_into().unwrap(),
                ..Content::of(body)
            },
            options: OptionalFields::NONE,
        }
    }

    #[test]
    fn each_part_leaves_out_what_it_does_not_ask_for() {
        let one = notification("The Disk is FULL", Some("Größe"), &["disk", "prod"], 4);
        let all = Selection::default();
        let text = |text: &str| Selection { text: Some(text.to_owned()), ..all.clone() };
        let tags = |tags: &[&str]| Selection {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..all.clone()
        };
        let least = |least: u8| Selection { least: Some(least.try_into().unwrap()), ..all.clone() };
        let author = |name: &str| Selection { author: Some(name.parse().unwrap()), ..all.clone() };
        let before = |op| Selection { before: Some(Op(op)), ..all.clone() };
        for asks in [all.clone(), text("disk is"), text("größe"), tags(&["prod", "disk"]), least(4)] {
            assert!(asks.has(&one), "{asks:?}");
        }
        assert!(author("alice").has(&one) && before(8).has(&one));
        for does_not in [text("empty"), tags(&["prod", "test"]), least(5), author("bob"), before(7)] {
            assert!(!does_not.has(&one), "{does_not:?}");
        }
    }

    #[test]
    fn a_selection_survives_its_field_and_one_that_is_too_long_is_not_asked() {
        let some = Selection {
            author: Some("alice".parse().unwrap()),
            text: Some("x".repeat(300)),
            tags: vec!["disk".to_owned()],
            least: Some(5.try_into().unwrap()),
            before: Some(Op(u64::MAX)),
        };
        assert_eq!(some.check(), Ok(()));
        let fields = some.onto(OptionalFields::NONE);
        assert!(fields.is_bounded() && !fields.may_be_ignored());
        assert_eq!(Selection::of(&fields), Some(some));
        assert_eq!(Selection::default().onto(OptionalFields::NONE), OptionalFields::NONE);
        let long = Selection { text: Some("x".repeat(Selection::BYTES_MAX)), ..Selection::default() };
        assert_eq!(long.check(), Err(SelectionTooLong));
        let many = Selection { tags: vec![String::new(); Content::TAGS_MAX + 1], ..Selection::default() };
        assert_eq!(many.check(), Err(SelectionTooLong));
        let raw = OptionalFields::NONE.with(OptionalFields::SELECTION, codec::encode(&many));
        assert_eq!(Selection::of(&raw), None);
        let damaged = OptionalFields::NONE.with(OptionalFields::SELECTION, vec![9; 5]);
        assert_eq!(Selection::of(&damaged), None);
    }
}
