//! Lookup tables derived from the state, so that apply and queries need not walk all of it: live receiving
//! sessions by profile, sessions by idle time, pending sessions by age, topics by size and by age, and the
//! counts that the weight of the state is computed from.
//!
//! Invariant: the index always equals `Index::of(&state)`. Replicated state depends on nothing else in it.

use std::collections::{BTreeMap, BTreeSet};

use recado_proto::id::{ChannelName, Name, Op, SessionId, StoreKey, Topic};

use super::capacity::{Counted, all_retained, follow_bound, overhead, value_bound};
use super::state::{State, TopicState, Usage, Value};

/// The index of a state; as bounded as the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// The live receiving sessions of a profile; no empty sets.
    pub(super) receiving: BTreeMap<Name, BTreeSet<SessionId>>,
    /// Live sessions, by the time when their device was last seen.
    pub(super) seen: BTreeSet<(u64, SessionId)>,
    /// Pending sessions, by the time when they were opened.
    pub(super) pending: BTreeSet<(u64, SessionId)>,
    /// Profiles whose names may expire, by the time when they were claimed.
    pub(super) unused: BTreeSet<(u64, Name)>,
    /// Channels whose names may expire, by [`State::idle_since`](super::State::idle_since): the time
    /// of their creation, 0 for an open channel.
    pub(super) idle: BTreeSet<(u64, ChannelName)>,
    /// Deleted channels whose names are still taken, by the time when they were deleted.
    pub(super) deleted: BTreeSet<(u64, ChannelName)>,
    /// The number of channels each profile has made that exist or whose name is still taken; no zeros.
    pub(super) made: BTreeMap<Name, usize>,
    /// Topics that hold notifications, by their number.
    pub(super) counts: BTreeSet<(u64, Topic)>,
    /// The same topics by weight.
    pub(super) bytes: BTreeSet<(u64, Topic)>,
    /// The same topics by the op of their oldest notification.
    pub(super) oldest: BTreeMap<Op, Topic>,
    /// The weight of the values that each profile has written; no zeros.
    pub(super) stored: BTreeMap<Name, u64>,
    /// The counts of what the state holds that are not the length of a map.
    pub(super) counted: Counted,
}

impl Index {
    /// The index of this state.
    pub(super) fn of(state: &State) -> Index {
        let mut index = Index::default();
        for (session, open) in &state.sessions {
            match state.live(*session) {
                Some((_, device)) => {
                    index.add_session(*session, &device.profile, open.receives, device.last_seen_ms);
                }
                None => {
                    index.pending.insert((open.opened_ms, *session));
                }
            }
        }
        for (topic, topic_state) in state.topics.iter() {
            index.add_topic(&topic, topic_state);
        }
        for (name, profile) in &state.profiles {
            if profile.usage < Usage::Used {
                index.unused.insert((profile.claimed_ms, name.clone()));
            }
        }
        for name in state.topics.channels.keys() {
            index.idle.extend(state.idle_since(name).map(|since_ms| (since_ms, name.clone())));
        }
        for (name, owned) in state.topics.owned.iter().filter(|(name, _)| state.topics.is_deleted(name)) {
            index.deleted.insert((owned.created_ms, name.clone()));
        }
        for maker in state.topics.makers.values() {
            *index.made.entry(maker.clone()).or_default() += 1;
        }
        let (profiles, owned) = (state.profiles.values(), state.topics.owned.values());
        index.counted.members = owned.map(|owned| owned.members.len() as u64).sum();
        for profile in profiles {
            index.counted.keys += profile.keys.len() as u64;
            index.counted.follows += profile.follows.keys().map(follow_bound).sum::<u64>();
        }
        state.values.iter().for_each(|(key, value)| index.add_value(key, value));
        index
    }

    pub(super) fn add_value(&mut self, key: &StoreKey, value: &Value) {
        let bytes = value_bound(key, &value.value);
        self.counted.values += bytes;
        *self.stored.entry(value.author.clone()).or_default() += bytes;
    }

    pub(super) fn remove_value(&mut self, key: &StoreKey, value: &Value) {
        let bytes = value_bound(key, &value.value);
        self.counted.values -= bytes;
        if let Some(stored) = self.stored.get_mut(&value.author) {
            *stored -= bytes;
            if *stored == 0 {
                self.stored.remove(&value.author);
            }
        }
    }

    pub(super) fn add_session(&mut self, session: SessionId, profile: &Name, receives: bool, seen_ms: u64) {
        self.seen.insert((seen_ms, session));
        if receives {
            self.receiving.entry(profile.clone()).or_default().insert(session);
        }
    }

    pub(super) fn remove_session(&mut self, session: SessionId, profile: &Name, seen_ms: u64) {
        self.seen.remove(&(seen_ms, session));
        if let Some(sessions) = self.receiving.get_mut(profile) {
            sessions.remove(&session);
            if sessions.is_empty() {
                self.receiving.remove(profile);
            }
        }
    }

    pub(super) fn session_seen(&mut self, session: SessionId, before_ms: u64, now_ms: u64) {
        self.seen.remove(&(before_ms, session));
        self.seen.insert((now_ms, session));
    }

    /// Adds a topic after its contents changed; [`Index::remove_topic`] took it out before the change.
    pub(super) fn add_topic(&mut self, topic: &Topic, topic_state: &TopicState) {
        if let Some(oldest) = topic_state.retained.front() {
            self.counts.insert((topic_state.retained.len() as u64, topic.clone()));
            self.bytes.insert((topic_state.bytes, topic.clone()));
            self.oldest.insert(oldest.op(), topic.clone());
            self.counted.retained += all_retained(topic, topic_state);
        }
    }

    /// Moves a topic to its place after a notification was added to the `(count, weight)` that it had before.
    pub(super) fn add_notification(&mut self, topic: &Topic, topic_state: &TopicState, before: (u64, u64)) {
        let (count, bytes) = before;
        if count == 0 {
            return self.add_topic(topic, topic_state);
        }
        let mut entry = (count, topic.clone());
        self.counts.remove(&entry);
        entry.0 = topic_state.retained.len() as u64;
        self.counts.insert(entry);
        let mut entry = (bytes, topic.clone());
        self.bytes.remove(&entry);
        entry.0 = topic_state.bytes;
        self.bytes.insert(entry);
        self.counted.retained += overhead(topic) + topic_state.bytes - bytes;
    }

    /// Takes a topic out before its contents change.
    pub(super) fn remove_topic(&mut self, topic: &Topic, topic_state: &TopicState) {
        if let Some(oldest) = topic_state.retained.front() {
            self.counts.remove(&(topic_state.retained.len() as u64, topic.clone()));
            self.bytes.remove(&(topic_state.bytes, topic.clone()));
            self.oldest.remove(&oldest.op());
            self.counted.retained -= all_retained(topic, topic_state);
        }
    }
}
