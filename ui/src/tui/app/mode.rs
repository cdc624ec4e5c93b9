//! Mode of the screen: which part has the focus, and what the keys do in it. The view draws it as one line.

use super::{App, Focus, Popup};
use crate::tui::keys::{self, Action, Scope};

/// The mode, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) name: String,
    /// Keys and what they do, the most important first.
    pub(crate) keys: Vec<(String, &'static str)>,
}

/// What typing does where the focus is not in the text.
const LETTERS: &str = "letters";

impl App {
    /// The mode of the screen. Its keys are those of the table, so that the line never says another key than
    /// the one that works.
    pub(crate) fn mode(&self) -> Mode {
        let scope = self.scope();
        let searching = self.search.as_ref().map(|_| self.search_in_words());
        let (name, letters, actions): (String, Option<&'static str>, &[(Action, &'static str)]) =
            match (&self.popup, self.focus) {
                (Some(Popup::Welcome { .. }), _) => {
                    ("NAME".into(), None, &[(Action::Accept, "takes it"), (Action::Quit, "leaves")])
                }
                (Some(Popup::Invitation { .. }), _) => {
                    ("CODE".into(), None, &[(Action::Accept, "takes it"), (Action::Leave, "cancels")])
                }
                (Some(Popup::Palette(_)), _) => (
                    "CHOOSING".into(),
                    Some("narrow it"),
                    &[(Action::Accept, "goes there"), (Action::Leave, "closes"), (Action::Down, "next")],
                ),
                (Some(Popup::Question(_)), _) => (
                    "QUESTION".into(),
                    None,
                    &[
                        (Action::Accept, "takes the marked answer"),
                        (Action::Down, "next"),
                        (Action::Yes, "yes"),
                        (Action::No, "no"),
                    ],
                ),
                (Some(Popup::Help { .. } | Popup::Servers { .. } | Popup::Text { .. }), _) => (
                    "READING".into(),
                    Some("go to your text"),
                    &[(Action::Leave, "closes"), (Action::PageDown, "scrolls")],
                ),
                (None, _) if scope == Scope::Asking => (
                    searching.unwrap_or_default(),
                    None,
                    &[
                        (Action::Up, "next above"),
                        (Action::Down, "next below"),
                        (Action::Accept, "stays there"),
                        (Action::Leave, "ends it"),
                    ],
                ),
                (None, Focus::Writing) if self.compose.command().is_some() => (
                    "COMMAND".into(),
                    None,
                    &[
                        (Action::Send, "runs it"),
                        (Action::Complete, "completes"),
                        (Action::Leave, "puts it away"),
                    ],
                ),
                (None, Focus::Writing) => (
                    "WRITING".into(),
                    None,
                    &[
                        (Action::Send, "sends"),
                        (Action::Complete, "notifications"),
                        (Action::Command, "command"),
                        (Action::Search, "search"),
                        (Action::Palette, "jump"),
                    ],
                ),
                (None, Focus::List) => (
                    searching.unwrap_or_else(|| "LIST".into()),
                    Some("write"),
                    &[
                        (Action::Leave, "to writing"),
                        (Action::Open, "opens"),
                        (Action::Reply, "answers"),
                        (Action::Search, "search"),
                        (Action::Copy, "copies"),
                        (Action::Browse, "link"),
                        (Action::Mute, "mutes"),
                    ],
                ),
                (None, Focus::Places) => (
                    "PLACES".into(),
                    Some("write"),
                    &[(Action::Leave, "to writing"), (Action::Down, "next"), (Action::Mute, "mutes")],
                ),
            };
        let name = match self.compose.area().lines().len() {
            // The line shows a part of them.
            lines @ 2.. if matches!(scope, Scope::Writing) => format!("{name} ({lines} lines)"),
            _ => name,
        };
        let named = |(action, word): &(Action, &'static str)| Some((keys::key_in(scope, *action)?, *word));
        let letters = letters.map(|word| (LETTERS.to_owned(), word));
        Mode { name, keys: letters.into_iter().chain(actions.iter().filter_map(named)).collect() }
    }

    /// Where the search stands, in words.
    fn search_in_words(&self) -> String {
        let Some(search) = self.search.as_ref() else { return String::new() };
        match (self.wanted(), search.rank(self.position.selected), search.hits()) {
            (None, ..) => "SEARCH".to_owned(),
            (Some(_), _, 0) => "SEARCH: nothing found".to_owned(),
            (Some(_), Some(rank), hits) => format!("SEARCH: {rank} of {hits}"),
            (Some(_), None, hits) => format!("SEARCH: {hits} found"),
        }
    }
}
