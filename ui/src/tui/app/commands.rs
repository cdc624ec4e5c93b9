//! Sends typed text, and runs typed commands.

use recado_client::{Content, FollowChange, Request, Topic};

use super::{App, Conversation, Effect, Popup, Search};
use crate::tui::command::{self, Argument, Command, Completion};
use crate::tui::event::{reached, written};
use crate::tui::outbox::{UNANSWERED_MAX, stands_at};
use crate::tui::theme;

/// Destination of typed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Topic(Option<Topic>),
    /// Text cannot be sent from here, for this reason.
    Nowhere(&'static str),
}

impl App {
    /// Destination of text that is typed at the place shown.
    pub(crate) fn target(&self) -> Target {
        match &self.here {
            Conversation::All => Target::Topic(None),
            Conversation::Topic(Topic::Feed(name)) if Some(name) == self.profile.as_ref() => {
                Target::Topic(None)
            }
            Conversation::Topic(Topic::Feed(name)) => Target::Topic(Some(Topic::Inbox(name.clone()))),
            Conversation::Topic(topic @ Topic::Channel(_)) => Target::Topic(Some(topic.clone())),
            Conversation::Topic(Topic::Inbox(_)) => match self.correspondent() {
                Some(name) => Target::Topic(Some(Topic::Inbox(name))),
                None => Target::Nowhere("to whom? write :dm @name text"),
            },
        }
    }

    pub(super) fn send_or_run(&mut self) {
        // The notice about the previous line is out of date, or is shown again below.
        self.notice = None;
        if let Some(typed) = self.compose.command() {
            let typed = self.chosen_command(&typed);
            match command::parse(&typed, &self.here) {
                Ok(command) => {
                    self.compose.take();
                    self.completion = 0;
                    self.run(command);
                }
                // A wrong command stays in the compose line, where it can be corrected.
                Err(why) => self.trouble(why),
            }
            return;
        }
        let text = self.compose.text();
        let text = text.strip_prefix("//").map(|rest| format!("/{rest}")).unwrap_or(text);
        if text.trim().is_empty() {
            return self.show_newest();
        }
        match self.target() {
            Target::Topic(topic) => {
                if self.send(topic, text.trim().to_owned()) {
                    self.compose.take();
                }
            }
            Target::Nowhere(why) => self.trouble(why),
        }
    }

    /// Sends a text. Returns true if the request was accepted.
    fn send(&mut self, topic: Option<Topic>, body: String) -> bool {
        let content = Content::of(body);
        if !content.within_limits() {
            let size = content.body.len();
            self.trouble(format!("too long: {size} bytes, and a text has at most {}", Content::BODY_MAX));
            return false;
        }
        self.request(Request::Send { topic, content })
    }

    /// Makes a numbered request. Returns true if it was accepted.
    fn request(&mut self, request: Request) -> bool {
        if self.cluster_id.is_none() && !self.remembered {
            self.trouble("no server has answered yet, so the request cannot be saved; your text stays here");
            return false;
        }
        if self.connection.is_over() {
            self.trouble("there is no session; :connect tries again; your text stays here");
            return false;
        }
        if !self.outbox.has_room() {
            self.trouble(format!("{UNANSWERED_MAX} requests wait for the servers; your text stays here"));
            return false;
        }
        let id = self.outbox.next_id();
        self.outbox.add(id, &request);
        self.effects.push(Effect::Request(id, request));
        self.position.anchor = None;
        true
    }

    fn follow(&mut self, topic: Topic, change: FollowChange) {
        self.request(Request::Follow { topic, change });
    }

    fn run(&mut self, command: Command) {
        match command {
            // The place decides where typed text goes, so only commands with this purpose change the place.
            Command::Follow(topic) => self.follow(topic, FollowChange::Add),
            Command::Join(topic) => {
                self.joining = Some(topic.clone());
                self.follow(topic, FollowChange::Add);
            }
            Command::Unfollow(topic) => self.follow(topic, FollowChange::Remove),
            Command::Send(topic, text) => {
                let stands_here =
                    self.profile.as_ref().is_some_and(|me| stands_at(&self.here, me, topic.as_ref()));
                let whom = reached(topic.as_ref());
                if self.send(topic, text) && !stands_here {
                    self.notice(format!("on its way to {whom}"));
                }
            }
            Command::Go(place) => self.go(place),
            Command::Channels => self.open_palette("Channels", Conversation::is_channel),
            Command::People => self.open_palette("People", Conversation::is_feed),
            Command::Info(name) => self.effects.push(Effect::Info(name)),
            Command::Mute(topic) => match topic.or_else(|| self.here.topic().cloned()) {
                Some(topic) => self.toggle_mute(&topic),
                None => self.trouble("everything cannot be muted; name a topic: :mute #channel"),
            },
            Command::Search(words) => {
                let mut search = Search::default();
                search.input.paste(&words);
                self.focus_list();
                self.search = Some(search);
                self.find_or_tell(true, true);
            }
            Command::Since(ago) => {
                let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
                self.go_back_to(self.now.unix_ms.saturating_sub(ago));
            }
            Command::Theme(name) => self.effects.push(Effect::Theme(name)),
            Command::Connect => self.connect(),
            Command::Servers => self.popup = Some(Popup::Servers { scroll: 0 }),
            Command::Clear => {
                self.outbox.clear_refused();
            }
            Command::Help => self.popup = Some(Popup::Help { scroll: 0 }),
            Command::Quit => self.quit(),
        }
    }

    /// Opens another session if the last one is over.
    pub(super) fn connect(&mut self) {
        match self.profile.clone().filter(|_| self.connection.is_over()) {
            Some(profile) => {
                self.connection.opened(self.now);
                self.effects.push(Effect::Open(profile, self.invite));
            }
            None => self.notice("the session is open, or the client is connecting already"),
        }
    }

    // ---- completion

    /// Completions of the command being typed. `None` if the text is no command.
    pub(crate) fn completions(&self) -> Option<Completion> {
        let typed = self.compose.command()?;
        Some(command::complete(&typed, |argument| self.arguments(argument)))
    }

    fn arguments(&self, argument: Argument) -> Vec<String> {
        let followed = |wanted: bool| {
            move |app: &App, name: &String| {
                Topic::to_follow(name).is_ok_and(|topic| app.places.follows(&topic) == wanted)
            }
        };
        let filtered = |names: Vec<String>, keep: &dyn Fn(&App, &String) -> bool| {
            names.into_iter().filter(|name| keep(self, name)).collect()
        };
        match argument {
            Argument::Nothing | Argument::Free => Vec::new(),
            Argument::Followable => filtered(self.names(true, true), &followed(false)),
            Argument::Followed => {
                let rows = self.places.rows(&Conversation::All).into_iter();
                rows.filter_map(|(_, place)| match place {
                    Conversation::Topic(topic @ Topic::Channel(_)) => Some(written(&topic)),
                    Conversation::Topic(Topic::Feed(name)) if Some(&name) != self.profile.as_ref() => {
                        Some(format!("@{name}"))
                    }
                    Conversation::Topic(_) | Conversation::All => None,
                })
                .collect()
            }
            Argument::Sendable => self.names(true, true),
            Argument::Person => self.names(true, false),
            Argument::Channel => filtered(self.names(false, true), &followed(false)),
            Argument::JoinedChannel => filtered(self.names(false, true), &followed(true)),
            Argument::Theme => theme::NAMES.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    pub(super) fn is_completing(&self) -> bool {
        self.completions().is_some_and(|completion| !completion.choices.is_empty())
    }

    pub(super) fn step_completion(&mut self, down: bool) {
        let count = self.completions().map_or(0, |completion| completion.choices.len()).max(1);
        self.completion =
            if down { (self.completion + 1) % count } else { (self.completion + count - 1) % count };
    }

    /// Inserts the chosen completion. Moves the focus to the list if the text is no command.
    pub(super) fn complete(&mut self) {
        let Some(completion) = self.completions() else { return self.focus_list() };
        if let Some((with, _)) = completion.choices.get(self.completion) {
            self.compose.complete(completion.from, with);
            self.completion = 0;
        }
    }

    /// Returns the typed command, with a completion that was chosen by the arrow keys filled in.
    fn chosen_command(&self, typed: &str) -> String {
        let chosen = self.completions().filter(|_| self.completion > 0);
        let chosen = chosen.and_then(|completion| {
            let (with, _) = completion.choices.get(self.completion)?;
            Some(format!("{}{with}", typed.get(..completion.from)?))
        });
        chosen.unwrap_or_else(|| typed.to_owned())
    }
}
