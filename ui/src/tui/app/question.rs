//! Questions: a popup with answers to choose from, which stays until one is chosen.

use std::time::Duration;

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
    /// True for the question whether to create a channel, which has no object once there is the channel.
    pub(super) creates: bool,
    /// Time at which something was typed that is no answer. For [`PAUSE`] after it neither a letter nor Enter
    /// is one: it may be in the middle of a text.
    pub(super) strayed: Option<Duration>,
}

/// Time without a key after which what is typed is no text that goes on.
const PAUSE: Duration = Duration::from_secs(1);

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
        Question { title, text, answers, marked: 0, creates: false, strayed: None }
    }

    /// Marks the no, for what cannot be undone.
    pub(super) fn careful(mut self) -> Question {
        self.marked = self.answers.len().saturating_sub(1);
        self
    }

    /// Makes it the question whether to create a channel.
    pub(super) fn of_creation(mut self) -> Question {
        self.creates = true;
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
            Action::Up | Action::Down => {
                question.strayed = None;
                return question.step(action == Action::Down);
            }
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
    /// pasted on, nor by the Enter behind it.
    pub(super) fn tell_of_question(&mut self) {
        if let Some(Popup::Question(question)) = &mut self.popup {
            question.strayed = Some(self.now.since_start);
        }
        self.trouble(
            "answer the question first: Esc is no; after a second without a key, y is yes and Enter takes the marked \
             answer",
        );
    }

    /// Goes on with a text whose channel turns out to exist, without an answer to the question whether it is
    /// to be made.
    pub(super) fn drop_needless_question(&mut self) {
        let Some(Popup::Question(question)) = self.popup.as_ref() else { return };
        if !question.creates {
            return;
        }
        let Some(Yes::Request(request @ Request::Send { .. })) = question.first() else { return };
        if self.unknown_channel(&request).is_none() {
            self.popup = None;
            self.confirmed(request);
        }
    }

    /// Returns true if a letter or Enter is no answer to the open question, because a text was typed on just
    /// before.
    pub(super) fn is_stray(&self) -> bool {
        let Some(Popup::Question(question)) = &self.popup else { return false };
        question.strayed.is_some_and(|at| self.now.since_start.saturating_sub(at) < PAUSE)
    }

    pub(crate) fn asks_whether_to_leave(&self) -> bool {
        let Some(Popup::Question(asked)) = &self.popup else { return false };
        asked.first() == Some(Yes::Effect(Effect::Quit))
    }
}
