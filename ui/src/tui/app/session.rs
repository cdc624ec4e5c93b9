//! The session: the name, code or key that it needs, its begin and its end.

use std::time::Duration;

use recado_client::{ClientError, Code, ConnectionEvent, DeviceKey, EnrolmentCode, Listing, Name, Op, Topic};

use super::{App, Conversation, Effect, Input, Places, Popup, Position, Question, Yes};
use crate::tui::event::Opened;
use crate::tui::keys::{Action, key_for};
use crate::tui::saved_state::SavedState;
use crate::wording::not_claimed;

impl App {
    pub(super) fn begin(&mut self, profile: Name) {
        self.profile = Some(profile.clone());
        self.places = Places::new(profile.clone(), &SavedState::default());
        self.effects.push(Effect::Open(profile, self.invite));
    }

    pub(super) fn on_opened(&mut self, opened: Opened) {
        self.no_server = None;
        self.device = Some(opened.device);
        (self.files, self.removed) = (Some(opened.files), None);
        // A notice about the missing client is out of date.
        self.notice = None;
        self.connection.opened(self.now);
        match self.cluster_id {
            Some(_) => self.outbox.recovered(opened.recovered),
            // Requests made before there was a client go behind those that this one carries over.
            None => self.outbox.carried_first(opened.recovered),
        }
        let same = self.cluster_id == Some(opened.cluster) && self.profile.as_ref() == Some(&opened.profile);
        // The next session of the same profile and cluster continues from the state here. Another cluster
        // knows none of it, also if it replaces the old one at the same addresses.
        if same {
            self.reopened = self.let_in;
            return;
        }
        self.let_in = false;
        self.moving = None;
        self.cluster_id = Some(opened.cluster);
        self.profile = Some(opened.profile.clone());
        self.logs.clear();
        self.gaps.clear();
        self.exchange_draft(&Conversation::All);
        (self.here, self.position) = (Conversation::All, Position::default());
        self.places = Places::new(opened.profile, &opened.saved);
        // In the list of everything, notifications that are newer than the saved state are marked as new.
        let newest = opened.saved.topics.iter().map(|topic| topic.newest).max();
        self.log_mut(&Conversation::All).seen_upto = newest.filter(|op| *op > Op::ZERO);
    }

    pub(super) fn on_connection(&mut self, event: ConnectionEvent) {
        self.connection.event(self.now, event);
        match event {
            ConnectionEvent::Connected { .. } => {
                self.let_in = true;
                if std::mem::take(&mut self.reopened) {
                    self.notice("a new session is open; it goes on where the last one ended");
                }
                self.refresh_places(Duration::ZERO);
                self.list_channels();
                self.effects.push(Effect::List(Listing::People));
                self.need_past(&Conversation::All);
                if let Some(me) = self.profile.clone() {
                    // The stream does not carry what the user sends to their feed or to an inbox.
                    self.need_past(&Conversation::Topic(Topic::Feed(me.clone())));
                    self.need_past(&Conversation::Topic(Topic::Inbox(me.clone())));
                    for topic in self.places.written_to() {
                        self.need_past(&Conversation::Topic(topic));
                    }
                    if std::mem::take(&mut self.first_run) {
                        self.effects.push(Effect::KeepProfile(me));
                    }
                }
                self.need_past(&self.here.clone());
            }
            ConnectionEvent::SetBack { .. }
            | ConnectionEvent::Copied(_)
            | ConnectionEvent::ServersSetBack { .. }
            | ConnectionEvent::Renumbered { .. } => {
                crate::print::about_device(&event).into_iter().for_each(|message| self.trouble(message));
            }
            ConnectionEvent::Searching
            | ConnectionEvent::PrimaryFound { .. }
            | ConnectionEvent::PrimaryChanged { .. }
            | ConnectionEvent::Ended(_) => {}
        }
    }

    pub(super) fn on_ended(&mut self, error: &ClientError) {
        self.reopened = false;
        match error {
            ClientError::Ended(Code::NotYours) if self.first_run => self.ask_name_again(),
            ClientError::NotClaimed { profile, cluster } if self.first_run => {
                self.ask_name(Some(not_claimed(profile, *cluster)));
            }
            error => {
                self.connection.over(error);
                if let ClientError::Ended(Code::NotYours) = error {
                    let words =
                        format!("another name: `profile` in {}, or `recado --as NAME`", self.config_path);
                    self.connection.over_also(&words);
                }
                match error {
                    ClientError::Ended(Code::InviteNeeded | Code::WrongInvite) => self.ask_code(),
                    ClientError::KeyNotAllowed { profile, key } => self.ask_whether_allowed(profile, key),
                    _ => {}
                }
            }
        }
    }

    /// Asks for the code of an invitation. Nobody has the name, and claiming it needs a code: there was
    /// none, or it was wrong.
    pub(super) fn ask_code(&mut self) {
        let wrong = self.invite.take();
        let wrong = wrong.map(|code| format!("{code} is mistyped, used up, expired, or for another name"));
        self.popup = Some(Popup::Invitation { input: Input::default(), wrong });
    }

    /// Tells the user to have the key allowed. Nobody has the name, and only keys that an administrator has
    /// allowed may claim it.
    pub(super) fn ask_whether_allowed(&mut self, profile: &Name, key: &DeviceKey) {
        let command = format!("recadod admin allow {} --config FILE", key.in_full());
        let text = format!(
            "{command}\nwith the recado.toml of any server as FILE, lets this device claim @{profile}. Ask an administrator \
             to run it."
        );
        let answers = vec![
            ("It is done: try again".to_owned(), Some(Yes::Connect)),
            ("Copy this command".to_owned(), Some(Yes::Effect(Effect::Copy(command)))),
            ("Not now".to_owned(), None),
        ];
        self.ask(Question::of("Not allowed yet".to_owned(), text, answers));
    }

    /// Asks for another name, because this one belongs to somebody else.
    pub(super) fn ask_name_again(&mut self) {
        let taken = self.profile.as_ref().map(Name::to_string).unwrap_or_default();
        self.ask_name(Some(format!(
            "@{taken} belongs to another key here. If it is your name: `recado device add` on your other machine shows a \
             code; leave here with {}, and run `recado device enrol CODE --as {taken}`. Otherwise take another name.",
            key_for(Action::Quit)
        )));
    }

    /// Forgets the name, and asks for one as at the first start.
    pub(super) fn ask_name(&mut self, wrong: Option<String>) {
        self.profile = None;
        self.moving = None;
        self.exchange_draft(&Conversation::All);
        (self.places, self.here) = (Places::default(), Conversation::All);
        self.connection.opened(self.now);
        self.outbox.recovered(Vec::new());
        self.cluster_id = None;
        self.popup = Some(Popup::Welcome { input: Input::default(), wrong });
    }

    pub(super) fn accept_name(&mut self) {
        let Some(Popup::Welcome { input, wrong }) = &mut self.popup else { return };
        match crate::cli::profile(input.text().trim()) {
            Ok(name) => self.ask_whether_to_begin(name),
            Err(error) => *wrong = Some(error),
        }
    }

    /// Asks before a name is claimed: it may be mistyped. Where none may be claimed, it can only be a profile
    /// of this machine.
    pub(super) fn ask_whether_to_begin(&mut self, name: Name) {
        if !self.may_claim {
            self.popup = None;
            return self.begin(name);
        }
        let text = format!(
            "If nobody has the name @{name} yet, it becomes yours. Once the servers have let you in, the screen opens as \
             @{name} each time."
        );
        let yes = (format!("Be @{name}"), Yes::Begin(name.clone()));
        self.ask(Question::new(format!("Be @{name}?"), text, yes, "Another name"));
    }

    pub(super) fn accept_code(&mut self) {
        let Some(Popup::Invitation { input, wrong }) = &mut self.popup else { return };
        match input.text().parse::<EnrolmentCode>() {
            Ok(code) => {
                self.popup = None;
                self.invite = Some(code);
                self.connect();
            }
            Err(error) => *wrong = Some(error.to_string()),
        }
    }

    /// Closes the popup for the code. Without a code there is no session, as the banner says. A user who
    /// has just chosen the name may choose another one.
    pub(super) fn leave_invitation(&mut self) {
        self.popup = None;
        if self.first_run {
            self.ask_name(None);
        }
    }
}
