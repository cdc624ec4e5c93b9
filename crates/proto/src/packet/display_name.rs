//! The display name of a profile.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Content;

/// What a profile calls itself beside its name, such as `Alice B.`: one line of 1 to 64 bytes with something
/// to see, without control characters, and without spaces at its ends. Two profiles may have the same
/// one, so it identifies nobody and never stands without the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct DisplayName(String);

impl DisplayName {
    /// The longest, in bytes.
    pub const LEN_MAX: usize = 64;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The reason why a text is no display name. The caller's fault; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DisplayNameError {
    /// It is too long.
    #[error("a display name has at most 64 bytes, not {0}")]
    TooLong(usize),
    /// It has nothing to see, or begins or ends with a space.
    #[error("a display name has something to see, and no space at its ends")]
    Blank,
    /// It has a control character or a line break, or one that changes the direction of what follows.
    #[error("a display name is one line without control characters")]
    Control,
}

impl FromStr for DisplayName {
    type Err = DisplayNameError;

    fn from_str(text: &str) -> Result<DisplayName, DisplayNameError> {
        let turns = |c: char| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if text.len() > DisplayName::LEN_MAX {
            return Err(DisplayNameError::TooLong(text.len()));
        }
        if text.chars().any(|c| c.is_control() || turns(c)) {
            return Err(DisplayNameError::Control);
        }
        if text.trim() != text || text.chars().all(Content::is_blank_char) {
            return Err(DisplayNameError::Blank);
        }
        Ok(DisplayName(text.into()))
    }
}

impl fmt::Display for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for DisplayName {
    type Error = DisplayNameError;

    fn try_from(text: String) -> Result<DisplayName, DisplayNameError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn a_display_name_is_one_short_line_that_can_be_seen() {
        let long = "x".repeat(64);
        for good in ["A", "Alice B.", "Ålice", "\u{2764}\u{fe0f}", "@bob", &long] {
            let name: DisplayName = good.parse().unwrap();
            assert_eq!(codec::decode::<DisplayName>(&codec::encode(&name)), Ok(name));
        }
        for (bad, why) in [
            ("", DisplayNameError::Blank),
            (" A", DisplayNameError::Blank),
            ("A ", DisplayNameError::Blank),
            ("\u{200b}", DisplayNameError::Blank),
            ("a\nb", DisplayNameError::Control),
            ("a\u{1b}[2J", DisplayNameError::Control),
            ("a\u{202e}b", DisplayNameError::Control),
            (&format!("{long}x"), DisplayNameError::TooLong(65)),
        ] {
            assert_eq!(bad.parse::<DisplayName>(), Err(why), "{bad:?}");
            assert!(codec::decode::<DisplayName>(&codec::encode(&bad.to_owned())).is_err(), "{bad:?}");
        }
    }
}
