//! The stream: notifications and gaps as they come.

use std::sync::Arc;

use recado_client::{Notification, Op, Topic};

use super::{App, Conversation, Effect, GAPS_MAX, KEEP_EVERY, REFRESH_LEAST};
use crate::tui::event::written;

impl App {
    pub(super) fn on_notification(&mut self, notification: Arc<Notification>) {
        self.cluster.delivered(self.now);
        let topic = notification.topic.clone();
        let place = Conversation::Topic(topic.clone());
        self.follow_what_came(&topic);
        let is_new = self.places.came(&notification);
        let mine = self.profile.as_ref() == Some(&notification.author);
        let seen = self.sees(&place);
        if self.follows_end() && self.shows(&place) {
            self.position.anchor = None;
        }
        self.insert(notification.clone());
        self.hold_selection();
        if let Some(search) =
            self.search.as_mut().filter(|_| self.here == Conversation::All || self.here == place)
        {
            search.came(&notification);
        }
        if is_new && seen {
            self.places.read(&topic, notification.op);
        } else if is_new && !mine && notification.notice().is_none() && !self.places.is_muted(&topic) {
            self.ring(&notification);
        }
        self.keep.came += 1;
        self.keep.upto = Some(notification.op);
        self.must_keep();
        if self.keep.came >= KEEP_EVERY {
            self.write_down();
        }
    }

    /// Lists the topic of what has come. It is followed, perhaps since a moment ago and from elsewhere; the
    /// servers' list tells.
    fn follow_what_came(&mut self, topic: &Topic) {
        if !self.places.follows(topic) && !matches!(topic, Topic::Inbox(_)) {
            self.places.follow(topic.clone());
            self.refresh_places(REFRESH_LEAST);
        }
    }

    /// Inserts a notification into the list of everything, and into the list of its place if that has been
    /// shown.
    pub(super) fn insert(&mut self, notification: Arc<Notification>) {
        let place = self.stands_in(&notification.topic);
        if let Some(log) = self.logs.get_mut(&place) {
            log.insert(notification.clone());
        }
        self.log_mut(&Conversation::All).insert(notification);
    }

    /// Inserts a notification that the user has sent. Of a channel that is not followed the stream carries
    /// nothing, so what others have sent there since is fetched.
    pub(super) fn insert_own(&mut self, notification: Arc<Notification>) {
        let place = Conversation::Topic(notification.topic.clone());
        if place.is_channel()
            && !self.places.follows(&notification.topic)
            && let Some(log) = self.logs.get_mut(&place)
        {
            log.insert_apart(notification.clone());
            self.renew(place);
        }
        self.insert(notification);
    }

    /// The place, besides that of everything, that lists a notification of this topic.
    pub(super) fn stands_in(&self, topic: &Topic) -> Conversation {
        match (topic, &self.profile) {
            // The user's inbox also lists copies of what the user sends to other inboxes.
            (Topic::Inbox(_), Some(me)) => Conversation::Topic(Topic::Inbox(me.clone())),
            (topic, _) => Conversation::Topic(topic.clone()),
        }
    }

    pub(super) fn ring(&mut self, notification: &Notification) {
        let content = &notification.content;
        if self.settings.rings(content.priority) {
            self.effects.push(Effect::Bell);
        }
        if self.settings.shows(content.priority) {
            let place = written(&notification.topic);
            let title = match &content.title {
                Some(title) => format!("@{} {place} {title}", notification.author),
                None => format!("@{} {place}", notification.author),
            };
            self.effects.push(Effect::Desktop(title, content.body.to_string()));
        }
    }

    pub(super) fn on_gap(&mut self, after: Op, upto: Op) {
        self.gaps.push((after, upto));
        if self.gaps.len() > GAPS_MAX {
            self.gaps.remove(0);
        }
        self.keep.upto = Some(upto);
        self.must_keep();
        self.trouble("older notifications were dropped by the servers before you read them");
    }
}
