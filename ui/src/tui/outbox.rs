//! Outbox: requests that are not acknowledged, and refused texts.
//!
//! The outbox only serves the display. The library stores every request on disk before it leaves, with its
//! number once it has one. The stored requests outlive this program.

use std::collections::{BTreeMap, VecDeque};

use recado_client::{ChannelChange, Content, FollowChange, Name, Request, Topic};

use super::conversation::Conversation;
use super::event::RequestId;
use crate::wording::{FOLLOW_MOST, KEYS_MOST, SEND_MOST, limits_of};

/// Limit of unanswered requests. The library keeps 256 on disk. A request beyond that would be lost with
/// this program, so it is not accepted.
pub(crate) const UNANSWERED_MAX: usize = 200;

/// Number of refused texts that are shown. Beyond it the oldest are dropped.
const REFUSED_MAX: usize = 20;

/// A notification that is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) id: RequestId,
    /// `None` addresses the user's own followers.
    pub(crate) topic: Option<Topic>,
    pub(crate) content: Content,
    /// Reason of the refusal, if it was refused.
    pub(crate) refused: Option<String>,
}

/// Unanswered requests, and refused texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    next: u64,
    sends: VecDeque<Pending>,
    changes: BTreeMap<RequestId, Request>,
}

impl Outbox {
    /// Id of the next request.
    pub(crate) fn next_id(&mut self) -> RequestId {
        self.next += 1;
        RequestId::Here(self.next)
    }

    /// Returns true if another request is accepted.
    pub(crate) fn has_room(&self) -> bool {
        self.unanswered() < UNANSWERED_MAX
    }

    pub(crate) fn add(&mut self, id: RequestId, request: &Request) {
        match request {
            Request::Send { topic, content } => self.sends.push_back(Pending {
                id,
                topic: topic.clone(),
                content: content.clone(),
                refused: None,
            }),
            Request::Follow { .. }
            | Request::Channel { .. }
            | Request::Keys { .. }
            | Request::Retract { .. }
            | Request::Display { .. }
            | Request::Put { .. }
            | Request::Delete { .. } => {
                self.changes.insert(id, request.clone());
            }
        }
    }

    /// Topic that a request concerns.
    pub(crate) fn topic_of(&self, id: RequestId) -> Option<Topic> {
        match self.changes.get(&id) {
            Some(Request::Channel { channel, .. }) => Some(Topic::Channel(channel.clone())),
            Some(Request::Follow { topic, .. }) => Some(topic.clone()),
            Some(
                Request::Send { .. }
                | Request::Keys { .. }
                | Request::Retract { .. }
                | Request::Display { .. }
                | Request::Put { .. }
                | Request::Delete { .. },
            ) => None,
            None => self.sends.iter().find(|pending| pending.id == id)?.topic.clone(),
        }
    }

    /// Topic that a request creates or follows.
    pub(crate) fn joins(&self, id: RequestId) -> Option<Topic> {
        joined(self.changes.get(&id)?)
    }

    /// Returns true if a request is unanswered that creates or follows this topic.
    pub(crate) fn is_joining(&self, topic: &Topic) -> bool {
        self.changes.values().any(|change| joined(change).as_ref() == Some(topic))
    }

    /// The limit that a request may reach, in words.
    pub(crate) fn limit_of(&self, id: RequestId) -> Option<&'static str> {
        match self.changes.get(&id) {
            Some(Request::Channel { change, .. }) => Some(limits_of(change)),
            Some(Request::Follow { .. }) => Some(FOLLOW_MOST),
            Some(Request::Keys { .. }) => Some(KEYS_MOST),
            Some(
                Request::Send { .. }
                | Request::Retract { .. }
                | Request::Display { .. }
                | Request::Put { .. }
                | Request::Delete { .. },
            ) => None,
            None => {
                let makes = |one: &Pending| one.id == id && matches!(one.topic, Some(Topic::Channel(_)));
                self.sends.iter().any(makes).then_some(SEND_MOST)
            }
        }
    }

    /// Replaces the unanswered requests after a new client was opened, by those that it carries over.
    /// Refused texts stay.
    pub(crate) fn recovered(&mut self, recovered: Vec<(RequestId, Request)>) {
        self.sends.retain(|pending| pending.refused.is_some());
        self.changes.clear();
        for (id, request) in recovered {
            self.add(id, &request);
        }
    }

    /// Puts the requests that the first client carries over before those made since.
    pub(crate) fn carried_first(&mut self, recovered: Vec<(RequestId, Request)>) {
        let since = std::mem::take(&mut self.sends);
        for (id, request) in recovered {
            self.add(id, &request);
        }
        self.sends.extend(since);
    }

    /// Removes an acknowledged request and returns it.
    pub(crate) fn answered(&mut self, id: RequestId) -> Option<Request> {
        if let Some(request) = self.changes.remove(&id) {
            return Some(request);
        }
        let at = self.sends.iter().position(|pending| pending.id == id)?;
        self.sends.remove(at).map(|pending| Request::Send { topic: pending.topic, content: pending.content })
    }

    /// Records a refusal. A refused text stays, with the reason; a refused change is removed and returned.
    pub(crate) fn refused(&mut self, id: RequestId, why: &str) -> Option<Request> {
        if let Some(pending) = self.sends.iter_mut().find(|pending| pending.id == id) {
            pending.refused = Some(why.to_owned());
        }
        let excess = self.refused_count().saturating_sub(REFUSED_MAX);
        for _ in 0..excess {
            if let Some(at) = self.sends.iter().position(|pending| pending.refused.is_some()) {
                self.sends.remove(at);
            }
        }
        self.changes.remove(&id)
    }

    /// Drops the refused texts. Returns true if there were any.
    pub(crate) fn clear_refused(&mut self) -> bool {
        let had = self.refused_count() > 0;
        self.sends.retain(|pending| pending.refused.is_none());
        had
    }

    fn refused_count(&self) -> usize {
        self.sends.iter().filter(|pending| pending.refused.is_some()).count()
    }

    /// Number of unanswered requests.
    pub(crate) fn unanswered(&self) -> usize {
        self.texts() + self.changes.len()
    }

    /// Number of notifications that are neither acknowledged nor refused.
    pub(crate) fn texts(&self) -> usize {
        self.sends.len() - self.refused_count()
    }

    /// Texts to show at the end of a place.
    pub(crate) fn at<'a>(
        &'a self,
        place: &'a Conversation,
        me: &'a Name,
    ) -> impl Iterator<Item = &'a Pending> {
        self.sends.iter().filter(move |pending| stands_at(place, me, pending.topic.as_ref()))
    }
}

/// Topic that a request creates or follows.
fn joined(request: &Request) -> Option<Topic> {
    match request {
        Request::Follow { topic, change: FollowChange::Add } => Some(topic.clone()),
        Request::Channel { channel, change: ChannelChange::Create { .. } } => {
            Some(Topic::Channel(channel.clone()))
        }
        _ => None,
    }
}

/// Returns true if a text to `topic` (`None`: the user's own followers) is shown at the end of this place.
/// A text to an inbox is written at the recipient's feed, so it is shown there too.
pub(crate) fn stands_at(place: &Conversation, me: &Name, topic: Option<&Topic>) -> bool {
    match (place, topic) {
        (Conversation::All, _) => true,
        (Conversation::Topic(Topic::Feed(name)), None) => name == me,
        (Conversation::Topic(Topic::Feed(name)), Some(Topic::Inbox(to))) => name == to,
        (Conversation::Topic(Topic::Inbox(name)), Some(Topic::Inbox(_))) => name == me,
        (Conversation::Topic(here), Some(topic)) => here == topic,
        (Conversation::Topic(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::samples::{content, name};

    fn send(topic: Option<&str>) -> Request {
        let topic = topic.map(|topic| Topic::to_send(topic).unwrap());
        Request::Send { topic, content: content("x") }
    }

    #[test]
    fn a_text_stands_at_its_place_until_it_is_answered() {
        let mut outbox = Outbox::default();
        let (me, ops) = (name("alice"), Conversation::Topic(Topic::to_send("#ops").unwrap()));
        let (one, two) = (outbox.next_id(), outbox.next_id());
        outbox.add(one, &send(Some("#ops")));
        outbox.add(two, &send(None));
        assert_eq!(outbox.at(&ops, &me).count(), 1);
        assert_eq!(outbox.at(&Conversation::Topic(Topic::Feed(me.clone())), &me).count(), 1);
        assert_eq!(outbox.at(&Conversation::All, &me).count(), 2);
        assert_eq!(outbox.answered(one), Some(send(Some("#ops"))));
        assert_eq!((outbox.at(&ops, &me).count(), outbox.unanswered()), (0, 1));
    }

    #[test]
    fn a_refused_text_stays_with_its_reason_until_it_is_dropped() {
        let mut outbox = Outbox::default();
        let id = outbox.next_id();
        outbox.add(id, &send(Some("@nobody")));
        assert_eq!(outbox.refused(id, "there is no such profile"), None);
        assert_eq!(outbox.unanswered(), 0);
        let refused = outbox.at(&Conversation::All, &name("alice")).next().unwrap().refused.clone();
        assert_eq!(refused.as_deref(), Some("there is no such profile"));
        assert!(outbox.clear_refused() && !outbox.clear_refused());
    }

    #[test]
    fn what_another_client_carries_over_stands_once_beside_what_was_refused() {
        let mut outbox = Outbox::default();
        let (refused, waiting) = (outbox.next_id(), outbox.next_id());
        outbox.add(refused, &send(None));
        outbox.refused(refused, "no");
        outbox.add(waiting, &send(Some("#ops")));
        outbox.recovered(vec![(RequestId::Recovered(1), send(Some("#ops")))]);
        assert_eq!((outbox.at(&Conversation::All, &name("alice")).count(), outbox.unanswered()), (2, 1));
        assert_eq!(outbox.answered(waiting), None);
        assert_eq!(outbox.answered(RequestId::Recovered(1)), Some(send(Some("#ops"))));
        assert_eq!(outbox.next_id(), RequestId::Here(3));
    }
}
