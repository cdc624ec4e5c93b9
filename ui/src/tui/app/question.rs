//! Questions: a popup with answers to choose from, which stays until one is chosen.

use recado_client::{Name, Request};

use super::{App, Effect, Input, Popup};
use crate::tui::keys::Action;

/// A question with its answers.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) title: String,
    /// Explanation above the answers.
    pub(crate) text: String,
    /// Each answer in words, and what it does. The last one is no: it does nothing.
    pub(crate) answers: Vec<(String, Option<Yes>)>,
    /// Index of the marked answer.
    pub(crate) marked: usize,
    /// True once something was typed that is no answer. Then no letter is one: it may be in the middle of a
    /// text.
    pub(super) strayed: bool,
}

/// What an answer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Yes {
    Effect(Effect),
    /// Open another session.
    Connect,
    /// Begin as this profile.
    Begin(Name),
    /// Make this request for the text that is being written.
    Request(Request),
}

impl Question {
    /// A question with one answer besides no. It is marked.
    pub(super) fn new(title: String, text: String, yes: (String, Yes), no: &str) -> Question {
        let (words, yes) = yes;
        Question::of(title, text, vec![(words, Some(yes)), (no.to_owned(), None)])
    }

    /// A question with these answers, the last of which is no. The first is marked.
    pub(super) fn of(title: String, text: String, answers: Vec<(String, Option<Yes>)>) -> Question {
        Question { title, text, answers, marked: 0, strayed: false }
    }

    /// Marks the no, for what cannot be undone.
    pub(super) fn careful(mut self) -> Question {
        self.marked = self.answers.len().saturating_sub(1);
        self
    }

    fn step(&mut self, down: bool) {
        let count = self.answers.len().max(1);
        self.marked = if down { self.marked + 1 } else { self.marked + count - 1 } % count;
    }

    fn marked(&self) -> Option<Yes> {
        self.answers.get(self.marked)?.1.clone()
    }

    /// The first answer besides no.
    pub(super) fn first(&self) -> Option<Yes> {
        self.answers.first()?.1.clone()
    }
}

impl App {
    pub(super) fn ask(&mut self, question: Question) {
        self.popup = Some(Popup::Question(question));
    }

    pub(super) fn act_question(&mut self, action: Action) {
        let Some(Popup::Question(question)) = &mut self.popup else { return };
        let chosen = match action {
            Action::Up | Action::Down => return question.step(action == Action::Down),
            Action::Accept => question.marked(),
            Action::Yes => question.first(),
            Action::No => None,
            _ => return,
        };
        let first = question.first();
        self.popup = None;
        self.notice = None;
        match (chosen, first) {
            (Some(Yes::Connect), _) => self.connect(),
            (Some(Yes::Begin(name)), _) => self.begin(name),
            (Some(Yes::Request(request)), _) => self.confirmed(request),
            (Some(Yes::Effect(Effect::Quit)), _) => self.leave_screen(),
            (Some(Yes::Effect(effect)), _) => self.effects.push(effect),
            // Without a name there is nothing but the question for one.
            (None, Some(Yes::Begin(name))) => {
                let mut input = Input::default();
                input.paste(name.as_str());
                self.popup = Some(Popup::Welcome { input, wrong: None });
            }
            (None, _) => {}
        }
    }

    /// Says that the open question takes no text. It is neither answered nor closed by what is typed or
    /// pasted on, nor by the Enter behind it: the no is marked then.
    pub(super) fn tell_of_question(&mut self) {
        if let Some(Popup::Question(question)) = &mut self.popup {
            question.strayed = true;
            question.marked = question.answers.len().saturating_sub(1);
        }
        self.trouble("answer the question first: Up and Down mark an answer, Enter takes it, Esc is no");
    }

    /// Goes on with a text whose channel turns out to exist, without an answer to the question whether it is
    /// to be made.
    pub(super) fn drop_needless_question(&mut self) {
        let Some(Popup::Question(question)) = &self.popup else { return };
        let Some(Yes::Request(request @ Request::Send { .. })) = question.first() else { return };
        if self.unknown_channel(&request).is_none() {
            self.popup = None;
            self.confirmed(request);
        }
    }

    /// Returns true if a letter is no answer to the open question any more.
    pub(super) fn is_letter_stray(&self) -> bool {
        matches!(&self.popup, Some(Popup::Question(question)) if question.strayed)
    }

    pub(super) fn asks_whether_to_leave(&self) -> bool {
        let Some(Popup::Question(asked)) = &self.popup else { return false };
        asked.first() == Some(Yes::Effect(Effect::Quit))
    }
}
