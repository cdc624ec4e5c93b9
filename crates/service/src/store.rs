//! The store: small values by key, each with the op of the PUT that wrote it as its timestamp.
//!
//! A key that begins with a profile or a channel has the rights of its feed or of the channel
//! ([`StoreKey::owner`]): who may read the topic reads the key, and who may send to it changes the key. Its
//! values go with the profile or the channel, when that is removed or deleted. Any other key is open to
//! anyone, as an open channel is.
//!
//! Values are not dropped to make room, so they have a room of their own, `Limits::store_bytes`, and each
//! profile a part of it, `Limits::store_bytes_of_one`: a PUT beyond either is refused. A value counts for the
//! profile that wrote it.

use std::ops::Bound;
use std::sync::Arc;

use recado_proto::command::Request;
use recado_proto::id::{Name, Op, StoreKey, Topic};
use recado_proto::packet::{Body, Code, Condition, List, ListItem, StoredValue};
use recado_proto::planted::Planted;

use super::capacity::value_bound;
use super::state::{State, Value};
use super::{Service, Tells};

impl Service {
    /// Checks that `name` may read a key.
    fn may_get(&self, name: &Name, key: &StoreKey) -> Result<(), Code> {
        key.owner().map_or(Ok(()), |topic| self.may_read(name, &topic))
    }

    /// Checks that `name` may change a key. It makes no channel.
    fn may_put(&self, name: &Name, key: &StoreKey) -> Result<(), Code> {
        self.may_get(name, key)?;
        key.owner().map_or(Ok(()), |topic| self.may_send(name, &topic))
    }

    pub(super) fn put(
        &mut self,
        op: Op,
        author: &Name,
        key: &StoreKey,
        value: &Body,
        condition: Condition,
    ) -> Result<Op, Code> {
        if value.len() > StoredValue::LEN_MAX {
            return Err(Code::TooLarge);
        }
        self.may_put(author, key)?;
        self.meets(key, condition)?;
        let bytes = value_bound(key, value);
        let before = self.state.values.get(key);
        let all = self.index.counted.values - before.map_or(0, |before| value_bound(key, &before.value));
        let own = before.filter(|before| before.author == *author);
        let own = self.index.stored.get(author).copied().unwrap_or(0)
            - own.map_or(0, |before| value_bound(key, &before.value));
        if all + bytes > self.limits.store_bytes || own + bytes > self.limits.store_bytes_of_one {
            return Err(Code::LimitReached);
        }
        self.remove_value(key);
        self.make_room(bytes);
        let value = Value { value: Arc::new(value.clone()), timestamp: op, author: author.clone() };
        self.index.add_value(key, &value);
        self.state.values.insert(key.clone(), value);
        self.note_owner(key);
        Ok(op)
    }

    pub(super) fn delete(
        &mut self,
        op: Op,
        author: &Name,
        key: &StoreKey,
        at: Option<Op>,
    ) -> Result<Op, Code> {
        self.may_put(author, key)?;
        self.meets(key, at.map_or(Condition::Present, Condition::At))?;
        if !self.planted.is(Planted::DeletedValueStays) {
            self.remove_value(key);
            self.note_owner(key);
        }
        Ok(op)
    }

    fn meets(&self, key: &StoreKey, condition: Condition) -> Result<(), Code> {
        let timestamp = self.state.values.get(key).map(|value| value.timestamp);
        match (condition, timestamp) {
            (Condition::Always, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => Ok(()),
            (Condition::Absent, Some(_)) => Err(Code::KeyExists),
            (Condition::Present | Condition::At(_), None) => Err(Code::UnknownKey),
            (Condition::At(wanted), Some(timestamp)) => {
                let passes = wanted < timestamp && self.planted.is(Planted::StaleTimestampPasses);
                if wanted == timestamp || passes { Ok(()) } else { Err(Code::StaleTimestamp) }
            }
        }
    }

    fn remove_value(&mut self, key: &StoreKey) {
        if let Some(value) = self.state.values.remove(key) {
            self.index.remove_value(key, &value);
        }
    }

    /// Removes the values of a profile or a channel that is removed.
    pub(super) fn remove_values_of(&mut self, topic: &Topic) {
        let keys: Vec<StoreKey> = self.state.keys_of(topic).cloned().collect();
        keys.iter().for_each(|key| self.remove_value(key));
    }

    /// A channel with a value does not expire.
    fn note_owner(&mut self, key: &StoreKey) {
        key.owner().iter().for_each(|topic| self.note_channel(topic));
    }

    /// The value of a key, for `asker`.
    ///
    /// # Errors
    /// UnknownProfile, UnknownChannel, ChannelDeleted, or NotAllowed.
    pub fn value(&self, asker: &Name, key: &StoreKey) -> Result<Option<StoredValue>, Code> {
        self.profile(asker)?;
        self.may_get(asker, key)?;
        Ok(self.state.values.get(key).map(|Value { value, timestamp, author }| StoredValue {
            value: Arc::clone(value),
            timestamp: *timestamp,
            author: author.clone(),
        }))
    }

    /// Returns true if the key has a value, whoever may read it.
    pub fn has_value(&self, key: &StoreKey) -> bool {
        self.state.values.contains_key(key)
    }

    /// A page of the keys that begin with `prefix`, and one item more if there is one. The keys of a private
    /// channel are passed over at once where `asker` is not a member.
    pub(super) fn stored(
        &self,
        asker: &Name,
        prefix: &str,
        after: Option<&str>,
        passed_over: &mut usize,
    ) -> Vec<ListItem> {
        let mut items = Vec::new();
        let mut from = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after.to_owned()),
            None => Bound::Included(prefix.to_owned()),
        };
        while items.len() <= List::ITEMS_MAX {
            let mut hidden = None;
            let range = (from.as_ref().map(String::as_str), Bound::Unbounded);
            for (key, value) in self.state.values.range::<_, str>(range) {
                if !key.as_str().starts_with(prefix) || items.len() > List::ITEMS_MAX {
                    return items;
                }
                if self.may_get(asker, key).is_err() {
                    hidden = key.owner();
                    break;
                }
                items.push(ListItem::Stored {
                    key: key.clone(),
                    timestamp: value.timestamp,
                    bytes: value.value.len() as u64,
                    author: value.author.clone(),
                });
            }
            let Some(topic) = hidden else { break };
            *passed_over += 1;
            from = Bound::Included(ends_of(&topic).1);
        }
        items
    }

    /// What the answer to a request with this result tells beyond it, as of now.
    pub fn tells(&self, author: &Name, request: &Request, result: Result<Op, Code>) -> Tells {
        match (request, result) {
            (
                Request::Put { key, .. } | Request::Delete { key, .. },
                Err(Code::KeyExists | Code::UnknownKey | Code::StaleTimestamp),
            ) if self.may_get(author, key).is_ok() => {
                Tells::Timestamp(self.state.values.get(key).map(|value| value.timestamp))
            }
            _ if self.made_channel(request, result) => Tells::MadeChannel,
            _ => Tells::Nothing,
        }
    }
}

/// What all keys of a topic lie between.
fn ends_of(topic: &Topic) -> (String, String) {
    // '0' follows '/'.
    (format!("{topic}/"), format!("{topic}0"))
}

impl State {
    /// The keys of a profile's feed or of a channel.
    pub(super) fn keys_of<'a>(&'a self, topic: &Topic) -> impl Iterator<Item = &'a StoreKey> + use<'a> {
        let (first, end) = ends_of(topic);
        let range = (Bound::Included(first.as_str()), Bound::Unbounded);
        let from = self.values.range::<_, str>(range).map(|(key, _)| key);
        from.take_while(move |key| key.as_str() < end.as_str())
    }
}
