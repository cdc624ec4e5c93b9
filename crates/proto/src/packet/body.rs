//! The body of a notification: text, or other bytes that a gateway carries.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The body of a notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// True if the bytes are UTF-8.
    text: bool,
    #[serde(with = "crate::bulk")]
    bytes: Vec<u8>,
}

impl Body {
    /// A body of text.
    pub fn text(text: impl Into<String>) -> Body {
        Body { text: true, bytes: text.into().into_bytes() }
    }

    /// A body of bytes that are no text.
    pub fn binary(bytes: Vec<u8>) -> Body {
        Body { text: false, bytes }
    }

    /// Returns true if it is text.
    pub fn is_text(&self) -> bool {
        self.text
    }

    /// The bytes, of text its UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The text. Of a body that is no text, whatever is UTF-8 in it, with a replacement character for the
    /// rest.
    pub fn as_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns true if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns true if it is what it says: bytes that are called text are UTF-8.
    pub(super) fn is_well_formed(&self) -> bool {
        !self.text || std::str::from_utf8(&self.bytes).is_ok()
    }
}

/// Empty text.
impl Default for Body {
    fn default() -> Body {
        Body::text("")
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body::text(text)
    }
}

impl From<&str> for Body {
    fn from(text: &str) -> Body {
        Body::text(text)
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_text())
    }
}
