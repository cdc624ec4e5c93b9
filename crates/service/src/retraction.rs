//! Retraction: the text of one notification is taken away, and its topic is told.
//!
//! The notification keeps its op, topic, author and time, so that nothing that counts ops or reads by them
//! meets a hole. The report is a notification of its own at the op of the retraction: so a device that was
//! beyond the text finds it in its stream, as any other.

use recado_proto::id::{Name, Op, Topic};
use recado_proto::packet::{Code, Content, Notice, Notification, Role};
use recado_proto::planted::Planted;

use super::state::TopicState;
use super::stored::Parts;
use super::{Applied, Service, Stored};

impl Service {
    /// The topic that holds the notification of this op, among all that `asker` has written or may read, and
    /// the number of topics that were searched: its own ones, then all channels, then all feeds.
    pub fn topic_of(&self, asker: &Name, op: Op) -> (Option<Topic>, usize) {
        let topics = &self.state.topics;
        let Some(profile) = self.state.profiles.get(asker) else { return (None, 0) };
        let mut searched = 0;
        let mut holds = |of: &TopicState| {
            searched += 1;
            of.place(op).is_some()
        };
        let sent = profile.sent.binary_search_by_key(&op, |sent| sent.op).ok();
        let sent = sent.and_then(|at| profile.sent.get(at)).map(|sent| Topic::Inbox(sent.to.clone()));
        let own = [Topic::Feed(asker.clone()), Topic::Inbox(asker.clone())];
        let found = own.into_iter().chain(sent).find(|topic| topics.get(topic).is_some_and(&mut holds));
        let found = found.or_else(|| {
            let held = topics.channels.iter().find(|(_, channel)| holds(channel));
            held.map(|(name, _)| Topic::Channel(name.clone()))
        });
        let found = found.or_else(|| {
            let held = topics.feeds.iter().find(|(_, feed)| holds(feed));
            held.map(|(name, _)| Topic::Feed(name.clone()))
        });
        (found, searched)
    }

    pub(super) fn retract(
        &mut self,
        op: Op,
        asker: &Name,
        retracted: Op,
        topic: Option<&Topic>,
        out: &mut Vec<Applied>,
    ) -> Result<Op, Code> {
        let topic = topic.ok_or(Code::UnknownNotification)?;
        let held = self.state.topics.get(topic).and_then(|of| of.retained.get(of.place(retracted)?));
        let notification = held.and_then(Stored::notification).ok_or(Code::UnknownNotification)?;
        self.may_retract(asker, &notification)?;
        match notification.notice() {
            None => {}
            Some(Notice::Retracted) => return Ok(op),
            Some(Notice::Retracts(_) | Notice::ChannelDeleted) => return Err(Code::UnknownNotification),
        }
        self.take_text(&notification);
        out.push(Applied::Retracted { topic: topic.clone(), op: retracted });
        if !self.planted.is(Planted::RetractionUntold) {
            self.report(op, asker, topic, Notice::Retracts(retracted), out);
        }
        Ok(op)
    }

    /// Checks that a profile may retract a notification: its author, or an owner of the channel that it is
    /// in. Who may not even read it is told that there is none.
    fn may_retract(&self, asker: &Name, notification: &Notification) -> Result<(), Code> {
        let profile = self.state.profiles.get(asker).ok_or(Code::UnknownProfile)?;
        // A profile that had the name before is another one.
        let is_author = notification.author == *asker && profile.claimed_op < notification.op;
        let owns = match &notification.topic {
            Topic::Channel(channel) => {
                let owned = self.state.topics.owned.get(channel);
                owned.is_some_and(|owned| owned.members.get(asker) == Some(&Role::Owner))
            }
            Topic::Feed(_) | Topic::Inbox(_) => false,
        };
        if is_author || owns || self.planted.is(Planted::AnybodyRetracts) {
            return Ok(());
        }
        let may_read = self.may_read(asker, &notification.topic).is_ok();
        Err(if may_read { Code::NotAllowed } else { Code::UnknownNotification })
    }

    /// Replaces a notification by one without a text, which weighs no more.
    fn take_text(&mut self, Notification { op, topic, author, unix_ms, .. }: &Notification) {
        if self.planted.is(Planted::RetractedTextStays) {
            return;
        }
        let (content, options) = (&Content::of(""), &Notice::Retracted.options());
        let without = Stored::of(Parts { op: *op, topic, author, unix_ms: *unix_ms, content, options });
        let Some(topic_state) = self.state.topics.get_mut(topic) else { return };
        let Some(at) = topic_state.place(*op) else { return };
        self.index.remove_topic(topic, topic_state);
        topic_state.replace(at, without);
        self.index.add_topic(topic, topic_state);
    }
}
