//! The store: values by key, beside the notifications.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Body, Content};
use crate::id::{Name, Op};

/// What has to be so for a PUT to change its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing.
    Always,
    /// The key has no value; else KeyExists.
    Absent,
    /// The key has a value; else UnknownKey.
    Present,
    /// The key has a value with this timestamp; else UnknownKey or StaleTimestamp.
    At(Op),
}

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredValue {
    /// The value; at most [`StoredValue::LEN_MAX`] bytes.
    pub value: Arc<Body>,
    /// The op of the PUT that wrote it.
    pub timestamp: Op,
    /// The profile that wrote it.
    pub author: Name,
}

impl StoredValue {
    /// The most bytes of a value: as many as a notification's body has.
    pub const LEN_MAX: usize = Content::BODY_MAX;

    pub(super) fn is_bounded(&self) -> bool {
        may_be_value(&self.value)
    }
}

/// Returns true if a value may be so long, and is the text that it says.
pub(super) fn may_be_value(value: &Body) -> bool {
    value.len() <= StoredValue::LEN_MAX && value.is_well_formed()
}
