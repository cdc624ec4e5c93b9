//! A move to another place that waits for the servers: to a channel that is joined or created, or to a place
//! of which it is not known whether it exists.
//!
//! Meanwhile the prompt names that place. A text that is begun is for it, and goes along; Enter does not send
//! it before the place is shown.

use recado_client::Topic;

use super::{App, Conversation, Focus};
use crate::tui::event::RequestId;
use crate::tui::log::Before;

/// A place that is to be shown once the servers have answered.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub(super) to: Conversation,
    /// True if it is followed first.
    joins: bool,
    /// Number of keys that were pressed before.
    keys: u64,
    /// True if a text was being written already. It stays where it was begun.
    over_draft: bool,
}

impl App {
    /// Shows `to` once it is followed (`joins`), or once the servers have said that there is one.
    pub(super) fn move_later(&mut self, to: Conversation, joins: bool) {
        let over_draft = self.compose.has_draft() || !self.fields.is_empty();
        self.moving = Some(Move { to, joins, keys: self.keys, over_draft });
    }

    /// What the screen waits for before it shows another place, in words.
    pub(crate) fn moving_in_words(&self) -> Option<String> {
        let moving = self.moving.as_ref()?;
        let place = moving.to.label(self.profile.as_ref());
        let (word, waits) = match &moving.to {
            Conversation::Topic(topic) if moving.joins => ("joining", self.outbox.is_joining(topic)),
            to => ("going to", self.log(to).is_some_and(|log| log.before == Before::Loading)),
        };
        waits.then(|| format!("{word} {place}"))
    }

    /// Takes the move that waits until this topic is followed.
    pub(super) fn take_join(&mut self, topic: &Topic) -> Option<Move> {
        self.moving.take_if(|moving| moving.joins && moving.to.topic() == Some(topic))
    }

    /// Ends the move that waits for this request, which has no effect.
    pub(super) fn give_up_join(&mut self, id: RequestId) {
        let topic = self.outbox.joins(id);
        if let Some(moved) = topic.and_then(|topic| self.take_join(&topic)) {
            self.stay(moved);
        }
    }

    /// Takes the move that waits until it is known that there is this place.
    pub(super) fn take_visit(&mut self, place: &Conversation) -> Option<Move> {
        self.moving.take_if(|moving| !moving.joins && moving.to == *place)
    }

    /// Shows the place of a move, with a text that was begun meanwhile. Returns false if the user does
    /// something else by now.
    pub(super) fn arrive(&mut self, moved: Move) -> bool {
        let writes = self.focus == Focus::Writing && self.popup.is_none() && self.search.is_none();
        if moved.keys == self.keys {
            self.go(moved.to);
        } else if writes && !moved.over_draft && !self.has_draft(&moved.to) {
            // What was said about the text is no longer so.
            self.notice = None;
            self.go_with_draft(moved.to);
        } else {
            self.stay(moved);
            return false;
        }
        true
    }

    /// Remembers for which place a text was begun that is not shown.
    pub(super) fn stay(&mut self, moved: Move) {
        if !moved.over_draft {
            self.begun_for = Some(moved.to);
        }
    }
}
