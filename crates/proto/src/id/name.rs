//! The names of profiles and channels, the keys of stored values, and the topics that are named after
//! profiles and channels.
//!
//! Invariant: every constructor of a name validates it, also for a name from the network or a file.

use std::borrow::Borrow;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// The name of a profile: `[a-z0-9_.-]{2,32}`, with a letter or a digit at both ends, so that no name passes
/// for another one with a full stop after it, and none is a directory such as `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Fewest characters of a name.
    const LEN_MIN: usize = 2;
    /// Most characters of a name.
    pub const LEN_MAX: usize = 32;
}

/// The name of a channel: `[-_.~A-Za-z0-9]{1,128}`, the unreserved characters of a URL (RFC 3986 section
/// 2.3), so that it stands in one as it is, with neither `.` nor `~` at an end: the path of a URL loses `.`
/// and `..` (section 5.2.4), and a full stop after a channel's name is not part of it. Names that differ
/// by case are different names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelName(Arc<str>);

impl ChannelName {
    /// Fewest characters of a channel's name.
    const LEN_MIN: usize = 1;
    /// Most characters of a channel's name.
    pub const LEN_MAX: usize = 128;
}

/// The key of a stored value: 1 to 256 visible characters of ASCII, from `!` to `~`. A key that begins with
/// `@name/` or `#channel/` belongs to that profile or channel ([`StoreKey::owner`]); any other one begins
/// with neither `@` nor `#`, and is open to anyone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKey(Arc<str>);

impl StoreKey {
    /// Fewest characters of a key.
    const LEN_MIN: usize = 1;
    /// Most characters of a key, which has as many bytes.
    pub const LEN_MAX: usize = 256;

    /// The topic whose rights the key has: the feed of the profile, or the channel, that it begins with. Who
    /// may read the topic may read the key, and who may send to it may change it. None: anyone may do both.
    pub fn owner(&self) -> Option<Topic> {
        owner_of(&self.0)?
    }
}

/// The first part of a key, if it begins as that of a profile or of a channel does: `Some(None)` if the rest
/// is not as it has to be.
fn owner_of(key: &str) -> Option<Option<Topic>> {
    let owned = key.starts_with(['@', '#']);
    let parts = key.split_once('/').filter(|(_, rest)| !rest.is_empty());
    owned.then(|| parts.and_then(|(topic, _)| Topic::to_follow(topic).ok()))
}

/// By its text, so that all keys with the same beginning are found.
impl Borrow<str> for StoreKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The kinds of names, which differ in their lengths and alphabets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// A [`Name`].
    Profile,
    /// A [`ChannelName`].
    Channel,
    /// A [`StoreKey`].
    Key,
}

impl NameKind {
    fn lengths(self) -> RangeInclusive<usize> {
        match self {
            NameKind::Profile => Name::LEN_MIN..=Name::LEN_MAX,
            NameKind::Channel => ChannelName::LEN_MIN..=ChannelName::LEN_MAX,
            NameKind::Key => StoreKey::LEN_MIN..=StoreKey::LEN_MAX,
        }
    }

    fn has(self, character: char) -> bool {
        match character {
            '!'..='~' if self == NameKind::Key => true,
            'a'..='z' | '0'..='9' | '_' | '.' | '-' => true,
            'A'..='Z' | '~' => self == NameKind::Channel,
            _ => false,
        }
    }

    fn alphabet(self) -> &'static str {
        match self {
            NameKind::Profile => "a-z, 0-9, '_', '.' and '-'",
            NameKind::Channel => "A-Z, a-z, 0-9, '-', '_', '.' and '~'",
            NameKind::Key => "visible characters of ASCII, and no spaces",
        }
    }

    /// Checks the alphabet first, so that the length in bytes is the number of characters.
    fn check(self, text: &str) -> Result<(), NameError> {
        if let Some(other) = text.chars().find(|character| !self.has(*character)) {
            return Err(NameError::Character(self, shortened(text), other));
        }
        if !self.lengths().contains(&text.len()) {
            return Err(NameError::Length(self, shortened(text), text.len()));
        }
        if self == NameKind::Key && owner_of(text) == Some(None) {
            return Err(NameError::Owner(shortened(text)));
        }
        let ends = [text.chars().next(), text.chars().next_back()];
        if !ends.into_iter().flatten().all(|end| self.may_end(end)) {
            return Err(NameError::Ends(self, shortened(text)));
        }
        Ok(())
    }

    /// Returns true if a name may begin and end with this character of its alphabet. Topics of other services
    /// do with `-` and `_`, and are to be names of channels as they are.
    fn may_end(self, end: char) -> bool {
        match self {
            NameKind::Profile => end.is_ascii_alphanumeric(),
            NameKind::Channel => end.is_ascii_alphanumeric() || matches!(end, '-' | '_'),
            NameKind::Key => true,
        }
    }

    fn ends(self) -> &'static str {
        match self {
            NameKind::Profile => "a letter or a digit",
            NameKind::Channel => "a letter, a digit, '-' or '_'",
            NameKind::Key => "any of its characters",
        }
    }
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameKind::Profile => "a profile's name",
            NameKind::Channel => "a channel's name",
            NameKind::Key => "a key",
        })
    }
}

/// The part of a refused text that its error shows.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The reason why a text is no name or topic. The caller's fault; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Too short or too long.
    #[error("{0} has {least} to {most} characters, {1:?} has {2}", least = .0.lengths().start(), most = .0.lengths().end())]
    Length(NameKind, String, usize),
    /// A character outside the alphabet.
    #[error("{0} has only {alphabet}, {1:?} has {2:?}", alphabet = .0.alphabet())]
    Character(NameKind, String, char),
    /// A mark at an end that a name may not begin or end with.
    #[error("{0} begins and ends with {ends}, {1:?} does not", ends = .0.ends())]
    Ends(NameKind, String),
    /// No `@` or `#` in front.
    #[error("{0:?} is neither a profile (@name) nor a channel (#name)")]
    Sigil(String),
    /// A key that begins with `@` or `#`, and not with a profile or a channel and a `/`.
    #[error("a key that begins with @ or # is @NAME/REST or #CHANNEL/REST, {0:?} is not")]
    Owner(String),
}

macro_rules! checked_name {
    ($name:ident, $kind:expr) => {
        impl $name {
            /// The text, of a name without any sigil.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<$name, NameError> {
                $kind.check(text).map(|()| $name(text.into()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        /// From a text that is not copied before it is checked.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                struct Text;

                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "{}", $kind)
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

checked_name!(Name, NameKind::Profile);
checked_name!(ChannelName, NameKind::Channel);
checked_name!(StoreKey, NameKind::Key);

/// A thing to follow or to send to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Topic {
    /// The notifications that a profile publishes: only the profile sends, anyone follows. Written `@name`
    /// in a follow.
    Feed(Name),
    /// A shared topic: anyone sends and follows. Written `#name`.
    Channel(ChannelName),
    /// The notifications for one profile: anyone sends, only the profile receives. The profile follows it
    /// from its creation. Written `@name` in a send.
    Inbox(Name),
}

impl Topic {
    /// Reads the target of a follow: `@name` is a feed, `#name` a channel.
    ///
    /// # Errors
    /// [`NameError`] if it is neither.
    pub fn to_follow(text: &str) -> Result<Topic, NameError> {
        match text.split_at_checked(1) {
            Some(("@", name)) => Ok(Topic::Feed(name.parse()?)),
            Some(("#", name)) => Ok(Topic::Channel(name.parse()?)),
            _ => Err(NameError::Sigil(shortened(text))),
        }
    }

    /// Reads the target of a send: `@name` is an inbox, `#name` a channel.
    ///
    /// # Errors
    /// [`NameError`] if it is neither.
    pub fn to_send(text: &str) -> Result<Topic, NameError> {
        match Topic::to_follow(text)? {
            Topic::Feed(name) => Ok(Topic::Inbox(name)),
            other => Ok(other),
        }
    }

    /// The name of the profile or channel that the topic is named after, without any sigil.
    pub fn name(&self) -> &str {
        match self {
            Topic::Feed(name) | Topic::Inbox(name) => name.as_str(),
            Topic::Channel(name) => name.as_str(),
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Topic::Feed(name) => write!(f, "@{name}"),
            Topic::Channel(name) => write!(f, "#{name}"),
            Topic::Inbox(name) => write!(f, "@{name} (inbox)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn a_profiles_name_outside_the_alphabet_or_length_is_refused() {
        let refused = |text: &str| text.parse::<Name>().unwrap_err().to_string();
        assert_eq!(refused("a"), r#"a profile's name has 2 to 32 characters, "a" has 1"#);
        assert_eq!(
            refused("Alice"),
            r#"a profile's name has only a-z, 0-9, '_', '.' and '-', "Alice" has 'A'"#
        );
        for text in ["", "a b", "a~b", &"x".repeat(33)] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
        assert_eq!("al-ice_0.9".parse::<Name>().unwrap().as_str(), "al-ice_0.9");
        assert_eq!("x".repeat(32).parse::<Name>().unwrap().as_str(), "x".repeat(32));
    }

    #[test]
    fn a_channels_name_has_1_to_128_unreserved_characters_and_keeps_its_case() {
        for text in ["x", "Ops", "a-b_c.d~e", "0", "a..Z", &"A-b~c9.Z".repeat(16)] {
            let name: ChannelName = text.parse().unwrap();
            assert_eq!((name.as_str(), name.to_string()), (text, text.to_owned()));
            assert_eq!(codec::decode(&codec::encode(&text)), Ok(name), "from the network");
        }
        assert_ne!("Ops".parse::<ChannelName>(), "ops".parse::<ChannelName>());
        let all = (0..=u8::MAX).map(char::from);
        let allowed: String = all.filter(|one| format!("a{one}a").parse::<ChannelName>().is_ok()).collect();
        assert_eq!(allowed, "-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~");
    }

    #[test]
    fn a_channels_name_outside_the_alphabet_or_length_is_refused() {
        let refused = |text: &str| text.parse::<ChannelName>().unwrap_err().to_string();
        assert_eq!(refused(""), r#"a channel's name has 1 to 128 characters, "" has 0"#);
        assert_eq!(
            refused("a b"),
            r#"a channel's name has only A-Z, a-z, 0-9, '-', '_', '.' and '~', "a b" has ' '"#
        );
        for text in ["#ops", "a/b", "a%20b", "é", "a\nb", "a\0", &"x".repeat(129), &"é".repeat(64)] {
            assert!(text.parse::<ChannelName>().is_err(), "{text:?}");
            assert!(codec::decode::<ChannelName>(&codec::encode(&text)).is_err(), "from the network");
        }
        let long = "x".repeat(100_000).parse::<ChannelName>().unwrap_err();
        assert!(long.to_string().len() < 200, "an error shows a part of it");
    }

    #[test]
    fn a_profiles_name_is_a_channels_name_too() {
        for text in ["ops", "al-ice_0.9", &"x".repeat(32)] {
            let (profile, channel): (Name, ChannelName) = (text.parse().unwrap(), text.parse().unwrap());
            assert_eq!(profile.as_str(), channel.as_str());
            assert_eq!(crate::codec::encode(&profile), crate::codec::encode(&channel));
        }
    }

    /// A profile's files are in a folder with its name, and a path of a URL may have a channel's name. And
    /// `alice.` is not to pass for `alice`.
    #[test]
    fn names_that_begin_or_end_with_a_mark_are_refused() {
        for name in ["..", "...", &".".repeat(32), ".alice", "alice.", "_alice", "alice-", "--"] {
            assert!(matches!(name.parse::<Name>(), Err(NameError::Ends(NameKind::Profile, _))), "{name}");
            assert!(codec::decode::<Name>(&codec::encode(&name)).is_err(), "from the network");
        }
        for name in [".", "..", &".".repeat(128), "~", "Ops.", ".ops", "ops~"] {
            assert!(
                matches!(name.parse::<ChannelName>(), Err(NameError::Ends(NameKind::Channel, _))),
                "{name}"
            );
            assert!(codec::decode::<ChannelName>(&codec::encode(&name)).is_err(), "from the network");
        }
        assert_eq!("a..a".parse::<Name>().unwrap().as_str(), "a..a");
        assert_eq!("_-a-".parse::<ChannelName>().unwrap().as_str(), "_-a-");
    }

    #[test]
    fn a_key_has_1_to_256_visible_characters_and_one_of_a_profile_or_channel_names_it_first() {
        let owner = |text: &str| text.parse::<StoreKey>().map(|key| key.owner());
        for text in ["k", "a/b", "~!%", "x@y#z", &"k".repeat(256)] {
            assert_eq!(owner(text), Ok(None), "{text}");
            let key: StoreKey = text.parse().unwrap();
            assert_eq!(codec::decode(&codec::encode(&text)), Ok(key), "from the network");
        }
        assert_eq!(owner("@alice/x/y"), Ok(Some(Topic::to_follow("@alice").unwrap())));
        assert_eq!(owner("#Ops/x"), Ok(Some(Topic::to_follow("#Ops").unwrap())));
        for text in
            ["", "a b", "é", "a\nb", "@alice", "@alice/", "#/x", "@Alice/x", "@", "#a b/x", &"k".repeat(257)]
        {
            assert!(owner(text).is_err(), "{text}");
            assert!(codec::decode::<StoreKey>(&codec::encode(&text)).is_err(), "from the network");
        }
        let refused = |text: &str| text.parse::<StoreKey>().unwrap_err().to_string();
        assert_eq!(
            refused("@x"),
            "a key that begins with @ or # is @NAME/REST or #CHANNEL/REST, \"@x\" is not"
        );
        assert_eq!(
            refused("a b"),
            "a key has only visible characters of ASCII, and no spaces, \"a b\" has ' '"
        );
    }

    #[test]
    fn an_at_sign_means_the_feed_to_a_follower_and_the_inbox_to_a_sender() {
        let alice: Name = "alice".parse().unwrap();
        assert_eq!(Topic::to_follow("@alice"), Ok(Topic::Feed(alice.clone())));
        assert_eq!(Topic::to_send("@alice"), Ok(Topic::Inbox(alice)));
        assert_eq!(Topic::to_send("#Ops"), Topic::to_follow("#Ops"));
        assert_eq!(Topic::to_send("#Ops"), Ok(Topic::Channel("Ops".parse().unwrap())));
        assert!(Topic::to_follow("@Ops").is_err(), "a profile's name is narrower");
        assert!(Topic::to_send("ops").is_err());
        assert!(Topic::to_send("é").is_err());
    }
}
