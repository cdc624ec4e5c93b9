//! Places that the screen can show, and their unread counts.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use recado_client::{Access, ChannelName, Name, Notification, Op, Topic};

use super::event::written;
use super::saved_state::{KeptTopic, SavedState};

/// A channel that the servers list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Channel {
    pub(crate) name: ChannelName,
    pub(crate) followers: u64,
    pub(crate) access: Access,
}

/// A list of notifications that the screen can show.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Conversation {
    /// All received notifications.
    All,
    /// The notifications of one topic.
    Topic(Topic),
}

impl Conversation {
    /// Label in the list of places and in the header.
    pub(crate) fn label(&self, me: Option<&Name>) -> String {
        match self {
            Conversation::All => "Everything".to_owned(),
            Conversation::Topic(Topic::Inbox(_)) => "Inbox".to_owned(),
            Conversation::Topic(Topic::Feed(name)) if Some(name) == me => format!("@{name} (you)"),
            Conversation::Topic(topic) => written(topic),
        }
    }

    pub(crate) fn topic(&self) -> Option<&Topic> {
        match self {
            Conversation::All => None,
            Conversation::Topic(topic) => Some(topic),
        }
    }

    pub(crate) fn is_channel(&self) -> bool {
        matches!(self, Conversation::Topic(Topic::Channel(_)))
    }

    pub(crate) fn is_feed(&self) -> bool {
        matches!(self, Conversation::Topic(Topic::Feed(_)))
    }
}

/// Groups of the list of places, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    Everything,
    Channels,
    Feeds,
}

impl Group {
    /// Heading of the group. Everything and the inbox have none.
    pub(crate) fn heading(self) -> Option<&'static str> {
        match self {
            Group::Everything => None,
            Group::Channels => Some("Channels"),
            Group::Feeds => Some("Feeds"),
        }
    }

    fn of(place: &Conversation) -> Group {
        match place {
            Conversation::All | Conversation::Topic(Topic::Inbox(_)) => Group::Everything,
            Conversation::Topic(Topic::Channel(_)) => Group::Channels,
            Conversation::Topic(Topic::Feed(_)) => Group::Feeds,
        }
    }
}

/// Compares names as people do, who count: 2 stands before 10.
fn as_people_count(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        let (digits, other_digits) = (leading_digits(one), leading_digits(other));
        if !digits.is_empty() && !other_digits.is_empty() {
            let (a, b) = (digits.trim_start_matches('0'), other_digits.trim_start_matches('0'));
            let order = a.len().cmp(&b.len()).then(a.cmp(b)).then(digits.len().cmp(&other_digits.len()));
            if order.is_ne() {
                return order;
            }
            (one, other) = (&one[digits.len()..], &other[other_digits.len()..]);
            continue;
        }
        let (mut chars, mut other_chars) = (one.chars(), other.chars());
        match (chars.next(), other_chars.next()) {
            (Some(a), Some(b)) if a == b => (one, other) = (chars.as_str(), other_chars.as_str()),
            (a, b) => return a.cmp(&b),
        }
    }
}

fn leading_digits(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())]
}

/// Read state of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Read {
    upto: Op,
    /// The newest notification that was counted, so that none is counted twice.
    newest: Op,
    unread: u64,
    muted: bool,
    /// The newest notification that the user sent there, if it is a channel.
    wrote: Op,
}

/// Number of channels that are not followed, and from which the user's own texts are shown.
const WRITTEN_TO_MAX: usize = 16;

/// Followed topics, with their unread counts and mutes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    me: Option<Name>,
    followed: BTreeSet<Topic>,
    read: BTreeMap<Topic, Read>,
}

impl Places {
    /// Places of a profile, from the saved state of its screen. The saved followed topics are shown at
    /// once, until the servers' list replaces them.
    pub(crate) fn new(me: Name, saved: &SavedState) -> Places {
        let mut places = Places { me: Some(me), ..Places::default() };
        for topic in &saved.topics {
            if topic.followed {
                places.followed.insert(topic.topic.clone());
            }
            let KeptTopic { read: upto, newest, unread, muted, wrote, .. } = *topic;
            let read = Read { upto, newest, unread, muted, wrote };
            places.read.insert(topic.topic.clone(), read);
        }
        places
    }

    /// State to save.
    pub(crate) fn saved_state(&self) -> SavedState {
        let mut topics: BTreeSet<&Topic> = self.followed.iter().collect();
        topics.extend(self.read.keys());
        let topics = topics.into_iter().map(|topic| {
            let read = self.read.get(topic).copied().unwrap_or_default();
            KeptTopic {
                topic: topic.clone(),
                followed: self.followed.contains(topic),
                read: read.upto,
                newest: read.newest,
                unread: read.unread,
                muted: read.muted,
                wrote: read.wrote,
            }
        });
        SavedState { topics: topics.collect() }
    }

    pub(crate) fn set_followed(&mut self, followed: BTreeSet<Topic>) {
        self.followed = followed;
    }

    pub(crate) fn follow(&mut self, topic: Topic) {
        self.followed.insert(topic);
    }

    pub(crate) fn unfollow(&mut self, topic: &Topic) {
        self.followed.remove(topic);
    }

    pub(crate) fn follows(&self, topic: &Topic) -> bool {
        self.followed.contains(topic) || self.is_mine(topic)
    }

    /// Returns true for the user's own inbox and feed, which are always listed.
    fn is_mine(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Feed(name) | Topic::Inbox(name) => Some(name) == self.me.as_ref(),
            Topic::Channel(_) => false,
        }
    }

    /// Every place with its group, in order. Those of `visited` are included even if they are not followed.
    pub(crate) fn rows<'a>(
        &self,
        visited: impl IntoIterator<Item = &'a Conversation>,
    ) -> Vec<(Group, Conversation)> {
        let mut rows: BTreeSet<(Group, Conversation)> = BTreeSet::new();
        rows.insert((Group::Everything, Conversation::All));
        let own = self.me.iter().flat_map(|me| [Topic::Inbox(me.clone()), Topic::Feed(me.clone())]);
        let listed = own.chain(self.followed.iter().cloned()).map(Conversation::Topic);
        for place in listed.chain(visited.into_iter().cloned()) {
            rows.insert((Group::of(&place), place));
        }
        let mut rows: Vec<(Group, Conversation)> = rows.into_iter().collect();
        rows.sort_by(|(group, place), (other_group, other)| {
            let names = |place: &Conversation| place.topic().map(written);
            let as_read = match (names(place), names(other)) {
                (Some(one), Some(other)) => as_people_count(&one, &other),
                (one, other) => one.is_some().cmp(&other.is_some()),
            };
            group.cmp(other_group).then(as_read)
        });
        rows
    }

    /// Takes a notification of the stream. It counts as unread unless the user sent it or it was counted
    /// before. Returns true if it is new to this screen.
    pub(crate) fn came(&mut self, notification: &Notification) -> bool {
        let mine = Some(&notification.author) == self.me.as_ref();
        let read = self.read.entry(notification.topic.clone()).or_default();
        if notification.op <= read.newest {
            return false;
        }
        read.newest = notification.op;
        if !mine && notification.op > read.upto {
            read.unread += 1;
        }
        true
    }

    /// Records that the user sent this to a topic. Returns true if it is one to remember.
    pub(crate) fn wrote(&mut self, topic: &Topic, op: Op) -> bool {
        if !matches!(topic, Topic::Channel(_)) {
            return false;
        }
        let read = self.read.entry(topic.clone()).or_default();
        read.wrote = read.wrote.max(op);
        true
    }

    /// Channels that the user does not follow and has sent to, the last ones.
    pub(crate) fn written_to(&self) -> Vec<Topic> {
        let wrote = self.read.iter().filter(|(topic, read)| read.wrote > Op::ZERO && !self.follows(topic));
        let mut wrote: Vec<(Op, &Topic)> = wrote.map(|(topic, read)| (read.wrote, topic)).collect();
        wrote.sort_unstable_by(|one, other| other.cmp(one));
        wrote.into_iter().take(WRITTEN_TO_MAX).map(|(_, topic)| topic.clone()).collect()
    }

    /// Marks everything of a topic up to `upto` as read. Returns true if anything was unread.
    pub(crate) fn read(&mut self, topic: &Topic, upto: Op) -> bool {
        let read = self.read.entry(topic.clone()).or_default();
        let changed = read.unread > 0;
        read.upto = read.upto.max(upto);
        read.unread = 0;
        changed
    }

    pub(crate) fn read_upto(&self, topic: &Topic) -> Op {
        self.read.get(topic).map_or(Op::ZERO, |read| read.upto)
    }

    /// Number of unread notifications of a place. The sum for everything excludes muted topics.
    pub(crate) fn unread(&self, place: &Conversation) -> u64 {
        match place {
            Conversation::Topic(topic) => self.read.get(topic).map_or(0, |read| read.unread),
            Conversation::All => self.read.values().filter(|read| !read.muted).map(|read| read.unread).sum(),
        }
    }

    pub(crate) fn is_muted(&self, topic: &Topic) -> bool {
        self.read.get(topic).is_some_and(|read| read.muted)
    }

    /// Mutes or unmutes a topic. Returns true if it is muted then.
    pub(crate) fn toggle_mute(&mut self, topic: &Topic) -> bool {
        let read = self.read.entry(topic.clone()).or_default();
        read.muted = !read.muted;
        read.muted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::samples::{name, notification};

    #[test]
    fn what_came_counts_once_and_ones_own_never() {
        let mut places = Places::new(name("alice"), &SavedState::default());
        let ops = Topic::to_send("#ops").unwrap();
        let place = Conversation::Topic(ops.clone());
        assert!(places.came(&notification(5, &ops, "bob", "x")));
        assert!(!places.came(&notification(5, &ops, "bob", "x")), "again after a crash");
        places.came(&notification(6, &ops, "alice", "mine"));
        assert_eq!((places.unread(&place), places.unread(&Conversation::All)), (1, 1));
        assert!(places.read(&ops, Op(6)));
        assert_eq!(places.unread(&place), 0);
    }

    #[test]
    fn a_muted_topic_counts_for_itself_only_and_all_of_it_is_remembered() {
        let ops = Topic::to_send("#ops").unwrap();
        let mut places = Places::new(name("alice"), &SavedState::default());
        places.follow(ops.clone());
        assert!(places.toggle_mute(&ops));
        places.came(&notification(5, &ops, "bob", "x"));
        let again = Places::new(name("alice"), &places.saved_state());
        for places in [places, again] {
            assert_eq!(places.unread(&Conversation::Topic(ops.clone())), 1);
            assert_eq!(places.unread(&Conversation::All), 0);
            assert!(places.is_muted(&ops) && places.follows(&ops));
        }
    }

    #[test]
    fn the_rows_are_grouped_and_show_the_place_visited() {
        let mut places = Places::new(name("alice"), &SavedState::default());
        places.follow(Topic::to_follow("@bob").unwrap());
        places.follow(Topic::to_follow("#ops").unwrap());
        let visited = Conversation::Topic(Topic::to_follow("#zoo").unwrap());
        let labels: Vec<String> =
            places.rows([&visited]).iter().map(|(_, place)| place.label(Some(&name("alice")))).collect();
        assert_eq!(labels, ["Everything", "Inbox", "#ops", "#zoo", "@alice (you)", "@bob"]);
        for topic in ["#chan-10", "#chan-2", "#chan-02", "#chan"] {
            places.follow(Topic::to_follow(topic).unwrap());
        }
        let rows = places.rows([]).into_iter().filter(|(group, _)| *group == Group::Channels);
        let labels: Vec<String> = rows.map(|(_, place)| place.label(None)).collect();
        assert_eq!(labels, ["#chan", "#chan-2", "#chan-02", "#chan-10", "#ops"]);
    }
}
