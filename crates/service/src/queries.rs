//! The answers to queries: pages of history and of lists, and information about profiles.

use std::ops::Bound;
use std::str::FromStr;

use imbl::OrdMap;

use recado_proto::id::{DeviceId, DeviceKey, Name, Op, Topic};
use recado_proto::packet::{
    Code, DisplayName, History, HistoryPage, HistoryRange, Info, List, ListItem, ListPage, Listing, Selection,
};

use super::Service;
use super::state::Profile;
use super::stream::{Merge, MergeSource, followed, lost_upto};

/// The most notifications that are looked at for one page of a selection. They are decoded, which takes
/// 0.7 us each for 200 bytes.
const LOOKED_MAX: usize = 1_024;
/// The most that these may weigh, in bytes: a text is put into lower case before it is searched.
const LOOKED_BYTES_MAX: u64 = 256 * 1024;

/// A page of a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedPage {
    /// The page. It may be empty although there is more.
    pub page: HistoryPage,
    /// The op of the last notification that was looked at, in the direction of the range: the next page is
    /// that from there.
    pub reached: Option<Op>,
    /// The number of notifications that were looked at and left out.
    pub passed_over: usize,
}

impl Service {
    /// A page of history for `asker`: at most [`History::LIMIT_MAX`] notifications and this many bytes, of
    /// which
    /// [`History::BYTES_MAX`] is the most, and at least one notification if there is any.
    ///
    /// # Errors
    /// UnknownProfile, UnknownChannel, ChannelDeleted, or NotAllowed.
    pub fn history(&self, asker: &Name, query: &History, bytes: usize) -> Result<HistoryPage, Code> {
        Ok(self.select(asker, query, &Selection::default(), bytes)?.page)
    }

    /// As [`Service::history`], of a selection: no more than 1,024 notifications are looked at, or 256 KiB of
    /// them.
    ///
    /// # Errors
    /// As [`Service::history`].
    pub fn select(
        &self,
        asker: &Name,
        query: &History,
        selection: &Selection,
        bytes: usize,
    ) -> Result<SelectedPage, Code> {
        let profile = self.profile(asker)?;
        let topics = &self.state.topics;
        let (sources, trimmed_upto) = match &query.topic {
            None => {
                let sources = followed(&self.state, asker, profile, Op::ZERO);
                (sources, lost_upto(&self.state, asker, profile, Op::ZERO))
            }
            Some(topic) => {
                self.may_read(asker, topic)?;
                let topic_state = topics.get(topic);
                let mut sources: Vec<MergeSource<'_>> = topic_state
                    .map(|topic_state| MergeSource::retained(&topic_state.retained))
                    .into_iter()
                    .collect();
                if let Topic::Inbox(_) = topic {
                    sources.push(MergeSource::sent(&profile.sent, topics));
                }
                (sources, self.trimmed_upto(topic))
            }
        };
        let sources = sources.into_iter().map(|source| {
            let source = source.before(selection.before.unwrap_or(Op(u64::MAX)));
            match query.range {
                HistoryRange::Before(op) => source.before(op),
                HistoryRange::After(op) => source.after(op),
                HistoryRange::SinceMs(unix_ms) => source.since(unix_ms),
            }
        });
        let sources = sources.collect();
        let newest_first = matches!(query.range, HistoryRange::Before(_));
        let merge = if newest_first { Merge::backward(sources) } else { Merge::forward(sources) };

        let limit = query.limit.clamp(1, History::LIMIT_MAX) as usize;
        let mut answer = HistoryPage { notifications: Vec::new(), more: false, trimmed_upto };
        let (mut weighs, mut looked, mut looked_at, mut reached) = (0, 0, 0, None);
        for stored in merge {
            let found = answer.notifications.len();
            let full = found > 0 && (found >= limit || weighs + stored.weight() > bytes as u64);
            if full || looked >= LOOKED_MAX || looked_at > LOOKED_BYTES_MAX {
                answer.more = true;
                break;
            }
            reached = Some(stored.op());
            let notification = stored.notification();
            if selection.reads() {
                looked += 1;
                looked_at += stored.weight();
                if !notification.as_ref().is_some_and(|notification| selection.has(notification)) {
                    continue;
                }
            }
            weighs += stored.weight();
            answer.notifications.extend(notification);
        }
        if newest_first {
            answer.notifications.reverse();
        }
        let passed_over = looked.saturating_sub(answer.notifications.len());
        Ok(SelectedPage { page: answer, reached, passed_over })
    }

    /// The op of the newest notification that retention dropped from a topic; zero if none was.
    pub fn trimmed_upto(&self, topic: &Topic) -> Op {
        self.state.topics.get(topic).map_or(Op::ZERO, |topic_state| topic_state.trimmed_upto)
    }

    /// A page of a list for `asker`: at most [`List::ITEMS_MAX`] items, and the number of channels passed
    /// over, in a list of channels or of keys, that the asker may not see, at most
    /// [`Limits::channels`](crate::limits::Limits). With `displays`, profiles are listed with their display
    /// names.
    ///
    /// # Errors
    /// UnknownProfile, UnknownChannel, ChannelDeleted, or NotAllowed for the members of a private channel.
    pub fn list(&self, asker: &Name, query: &List, displays: bool) -> Result<(ListPage, usize), Code> {
        let profile = self.profile(asker)?;
        let listed = |name: &Name, since| match self.display(name).filter(|_| displays) {
            Some(display) => ListItem::Displayed { name: name.clone(), since, display: display.clone() },
            None => ListItem::Profile { name: name.clone(), since },
        };
        let after = query.after.as_deref();
        let mut passed_over = 0;
        let mut items: Vec<ListItem> = match &query.what {
            Listing::Following => {
                let follows = profile.follows.iter();
                sorted(
                    after,
                    follows.map(|(topic, since)| ListItem::Following { topic: topic.clone(), since: *since }),
                )
            }
            Listing::Devices => {
                let devices = self.state.devices_of(asker, profile);
                sorted(
                    after,
                    devices.map(|(id, device)| ListItem::Device {
                        device: *id,
                        cursor: device.cursor,
                        session: device.session,
                        last_seen_ms: device.last_seen_ms,
                    }),
                )
            }
            Listing::Followers => match self.state.topics.feeds.get(asker) {
                Some(feed) => page_of(&feed.followers, after, |name, since| Some(listed(name, *since))),
                None => Vec::new(),
            },
            Listing::People => {
                page_of(&self.state.profiles, after, |name, profile| Some(listed(name, profile.claimed_op)))
            }
            Listing::Channels => page_of(&self.state.topics.channels, after, |name, channel| {
                let sees = self.sees(asker, name);
                passed_over += usize::from(!sees);
                sees.then(|| ListItem::Channel {
                    name: name.clone(),
                    followers: channel.followers.len() as u64,
                    last_op: channel.last_op,
                    access: self.access(name),
                })
            }),
            Listing::Keys => sorted(
                after,
                profile.keys.iter().map(|key| {
                    let devices = self.state.devices_of(asker, profile).filter(|(id, _)| id.key == *key);
                    let (slots, seen): (Vec<u8>, Vec<u64>) =
                        devices.map(|(id, device)| (id.slot, device.last_seen_ms)).unzip();
                    ListItem::Key { key: *key, slots, last_seen_ms: seen.into_iter().max().unwrap_or(0) }
                }),
            ),
            Listing::Stored { prefix } => self.stored(asker, prefix, after, &mut passed_over),
            Listing::Members(channel) => {
                self.may_read(asker, &Topic::Channel(channel.clone()))?;
                match self.state.topics.owned.get(channel) {
                    Some(owned) => page_of(&owned.members, after, |name, role| {
                        Some(ListItem::Member { name: name.clone(), role: *role })
                    }),
                    None => Vec::new(),
                }
            }
        };
        let more = items.len() > List::ITEMS_MAX;
        items.truncate(List::ITEMS_MAX);
        Ok((ListPage { items, more }, passed_over))
    }

    /// The information about a profile. `pending` is counted from the lowest cursor of the
    /// devices that receive; if the profile has none, from the lowest cursor of all its devices.
    ///
    /// # Errors
    /// UnknownProfile.
    pub fn info(&self, name: &Name) -> Result<Info, Code> {
        let profile = self.profile(name)?;
        let devices = || self.state.devices_of(name, profile).map(|(_, device)| device);
        let receiving = devices().filter(|device| device.receives).map(|device| device.cursor).min();
        let cursor = receiving.or_else(|| devices().map(|device| device.cursor).min());
        let pending =
            |cursor| followed(&self.state, name, profile, cursor).iter().map(MergeSource::len).sum::<usize>();
        Ok(Info {
            profile: name.clone(),
            since: profile.claimed_op,
            followers: self.state.topics.feeds.get(name).map_or(0, |feed| feed.followers.len() as u64),
            following: profile.follows.len() as u64,
            devices: devices().count() as u64,
            sessions: devices().filter(|device| device.session.is_some()).count() as u64,
            pending: cursor.map_or(0, pending) as u64,
        })
    }

    /// The display name of a profile.
    pub fn display(&self, name: &Name) -> Option<&DisplayName> {
        self.state.profiles.get(name)?.display.as_ref()
    }

    /// The profile of a key: of its devices the one with the lowest slot decides, since nothing keeps a key
    /// from being in use by two profiles. None: no device of the key was admitted, or the key was revoked.
    pub fn profile_of(&self, key: DeviceKey) -> Option<&Name> {
        let slot = |slot| DeviceId { key, slot };
        let mut devices = self.state.devices.range(slot(u8::MIN)..=slot(u8::MAX));
        devices.next().map(|(_, device)| &device.profile)
    }

    /// Returns true if the key is one of the profile's.
    pub fn is_key_of(&self, key: DeviceKey, name: &Name) -> bool {
        self.state.profiles.get(name).is_some_and(|profile| profile.keys.contains(&key))
    }

    /// The number of topics a profile follows, not counting its inbox.
    pub fn follows(&self, name: &Name) -> usize {
        self.state.profiles.get(name).map_or(0, |profile| profile.follows.len())
    }

    /// The most profiles walked to find the sessions that a notification of `topic` is addressed to: its
    /// followers, or all profiles with receiving sessions, whichever are fewer.
    pub fn fan_out(&self, topic: &Topic) -> usize {
        let followers = self.state.topics.get(topic).map_or(0, |topic_state| topic_state.followers.len());
        followers.min(self.index.receiving.len())
    }

    pub(super) fn profile(&self, name: &Name) -> Result<&Profile, Code> {
        self.state.profiles.get(name).ok_or(Code::UnknownProfile)
    }
}

/// One page of a list that is short enough to sort, and one item more if there is one.
fn sorted(after: Option<&str>, items: impl Iterator<Item = ListItem>) -> Vec<ListItem> {
    let mut items: Vec<(String, ListItem)> = items.map(|item| (item.key(), item)).collect();
    items.retain(|(key, _)| after.is_none_or(|after| key.as_str() > after));
    items.sort_by(|(one, _), (other, _)| one.cmp(other));
    items.into_iter().map(|(_, item)| item).take(List::ITEMS_MAX + 1).collect()
}

/// One page of a long list by name, and one item more if there is one. `item` returns none for an entry that
/// the asker may not see. The page is empty if `after` is not a valid name.
fn page_of<K: Clone + Ord + FromStr, V: Clone>(
    map: &OrdMap<K, V>,
    after: Option<&str>,
    mut item: impl FnMut(&K, &V) -> Option<ListItem>,
) -> Vec<ListItem> {
    let from = match after.map(str::parse::<K>) {
        None => Bound::Unbounded,
        Some(Ok(name)) => Bound::Excluded(name),
        Some(Err(_)) => return Vec::new(),
    };
    let range = map.range((from, Bound::Unbounded));
    range.filter_map(|(name, value)| item(name, value)).take(List::ITEMS_MAX + 1).collect()
}
