//! Drafts: what is being written at each place, and for whom.
//!
//! A draft stays at its place when another one is shown, so that no text is sent to others than those for
//! whom it was begun. In the inbox, its recipient is fixed with its first letter: neither an arrival nor
//! another selection changes it. Once something is sent, no arrival changes the recipient of the next text.

use recado_client::{Name, Topic};

use super::{App, Conversation};
use crate::tui::conversation::Group;
use crate::tui::options::Fields;

/// What was being written at a place that is not shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    text: String,
    fields: Fields,
    addressee: Option<Name>,
}

impl App {
    /// Leaves the draft at the place shown, and takes up that of `place`. Must be called before the place
    /// changes.
    pub(super) fn exchange_draft(&mut self, place: &Conversation) {
        if *place == self.here {
            return;
        }
        self.partner = None;
        let next = self.drafts.remove(place).unwrap_or_default();
        let left = Draft {
            text: self.compose.exchange(next.text),
            fields: std::mem::replace(&mut self.fields, next.fields),
            addressee: std::mem::replace(&mut self.addressee, next.addressee),
        };
        if !left.text.trim().is_empty() || !left.fields.is_empty() {
            self.drafts.insert(self.here.clone(), left);
        }
    }

    /// The places of the list: the followed ones, the one shown, and those with a draft.
    pub(crate) fn rows(&self) -> Vec<(Group, Conversation)> {
        self.places.rows(self.drafts.keys().chain([&self.here]))
    }

    pub(crate) fn has_draft(&self, place: &Conversation) -> bool {
        self.drafts.contains_key(place)
    }

    /// Texts of all places that would be lost if the program ended now.
    pub(super) fn unsent_drafts(&self) -> Vec<String> {
        let elsewhere = self.drafts.values().map(|draft| draft.text.clone());
        let texts = self.compose.draft().into_iter().chain(elsewhere);
        texts.filter(|text| !text.trim().is_empty()).collect()
    }

    /// The recipient of a text that would be begun now, if this is the inbox.
    pub(super) fn correspondent_here(&self) -> Option<Name> {
        matches!(self.here, Conversation::Topic(Topic::Inbox(_))).then(|| self.correspondent())?
    }

    /// Fixes the recipient of a draft that this event began: the one before the event, which the prompt
    /// showed.
    pub(super) fn fix_addressee(&mut self, before: Option<Name>) {
        if !self.compose.has_draft() {
            (self.addressee, self.begun_for, self.by_keys) = (None, None, false);
        } else if self.addressee.is_none() {
            self.addressee = before.or_else(|| self.correspondent_here());
        }
    }

    /// The recipient of what is written in the inbox.
    pub(super) fn addressee(&self) -> Option<Name> {
        self.addressee.clone().or_else(|| self.correspondent())
    }
}
