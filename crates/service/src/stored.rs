//! A stored notification, in its encoding.
//!
//! A state holds very many notifications and looks into few of them. So each is one piece of memory: the few
//! numbers that the service asks for, and its encoding as an item of a stream, which pages and deliveries
//! share and send as it is.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use recado_proto::codec;
use recado_proto::id::{Name, Op, Topic};
use recado_proto::packet::{Content, Item, Notification, OptionalFields};

use super::state::weight;

/// A notification as it is stored. Clones share their bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored(
    /// Op, time in ms since 1970 and weight, 8 bytes each, little-endian; then the encoding of the item.
    Arc<[u8]>,
);

/// The bytes before the item.
const NUMBERS: usize = 3 * 8;

/// [`Item`], borrowed, and with the notification alone: it has the same encoding.
#[derive(Serialize)]
enum BorrowedItem<'a> {
    Notification(Parts<'a>),
}

/// The fields of a [`Notification`].
#[derive(Serialize)]
pub(super) struct Parts<'a> {
    pub(super) op: Op,
    pub(super) topic: &'a Topic,
    pub(super) author: &'a Name,
    pub(super) unix_ms: u64,
    pub(super) content: &'a Content,
    pub(super) options: &'a OptionalFields,
}

impl Stored {
    /// Encodes a notification.
    pub fn new(notification: &Notification) -> Stored {
        let Notification { op, topic, author, unix_ms, content, options } = notification;
        Stored::of(Parts { op: *op, topic, author, unix_ms: *unix_ms, content, options })
    }

    /// Encodes the notification with these fields.
    pub(super) fn of(parts: Parts<'_>) -> Stored {
        let numbers = [parts.op.0, parts.unix_ms, weight(parts.content, parts.options)];
        let mut bytes = Vec::with_capacity(NUMBERS + parts.content.body.len() + 128);
        numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        codec::encode_onto(&BorrowedItem::Notification(parts), &mut bytes);
        Stored(bytes.into())
    }

    fn number(&self, at: usize) -> u64 {
        let bytes = self.0.get(8 * at..8 * at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    }

    /// Its op.
    pub fn op(&self) -> Op {
        Op(self.number(0))
    }

    /// The log's time when it was applied, in ms since 1970.
    pub fn unix_ms(&self) -> u64 {
        self.number(1)
    }

    /// Its weight against the limits of its topic, in bytes: its texts and a constant.
    pub fn weight(&self) -> u64 {
        self.number(2)
    }

    /// The encoding of [`Item::Notification`] with it.
    pub fn item(&self) -> &[u8] {
        self.0.get(NUMBERS..).unwrap_or_default()
    }

    /// The profile that sent it.
    pub(super) fn author(&self) -> Option<Name> {
        // The variant of the item, and the fields before the author.
        let (_, _, _, author) = codec::decode_start::<(u32, Op, Topic, Name)>(self.item()).ok()?;
        Some(author)
    }

    /// The notification.
    pub fn notification(&self) -> Option<Arc<Notification>> {
        match codec::decode(self.item()) {
            Ok(Item::Notification(notification)) => Some(notification),
            // It holds nothing else.
            Ok(Item::Gap { .. }) | Err(_) => None,
        }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.notification().fmt(f)
    }
}

/// As the notification: a snapshot does not show how a server holds it.
impl Serialize for Stored {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let notification = self.notification().ok_or_else(|| serde::ser::Error::custom("no notification"))?;
        notification.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Stored, D::Error> {
        Ok(Stored::new(&Notification::deserialize(deserializer)?))
    }
}
