//! Sends typed text, and runs typed commands.

use std::time::Duration;

use recado_client::{ChannelChange, ChannelName, FollowChange, Listing, Request, Topic};

use super::answers::Asked;
use super::search::Search;
use super::{App, Conversation, Effect, Popup, Question, Yes};
use crate::tui::command::{self, Argument, Command, Completion};
use crate::tui::doubt::doubt;
use crate::tui::event::{reached, written};
use crate::tui::options::Fields;
use crate::tui::outbox::{UNANSWERED_MAX, stands_at};
use crate::tui::{palette, theme};
use crate::wording::{not_created, too_large};

/// A completion that was inserted, with the others that there were.
#[derive(Clone, Debug)]
pub(super) struct Completing {
    /// The command with it.
    typed: String,
    completion: Completion,
    /// Index of the one inserted.
    at: usize,
}

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
            Conversation::Topic(Topic::Inbox(_)) => match self.addressee() {
                Some(name) => Target::Topic(Some(Topic::Inbox(name))),
                None => Target::Nowhere("to whom? write /dm @name text"),
            },
        }
    }

    /// Takes what is typed out of the line. The earlier texts of its destination keep it.
    pub(super) fn take_line(&mut self) {
        let to = self.target();
        self.compose.take(to);
    }

    /// Sends the text in the line, or runs the command.
    pub(super) fn on_enter(&mut self) {
        // The notice about the previous line is out of date, or is shown again below.
        self.notice = None;
        self.send_or_run();
        if let Some(notice) = &mut self.notice {
            notice.about_line = notice.is_trouble && !self.compose.is_empty();
        }
    }

    fn send_or_run(&mut self) {
        if let Some(typed) = self.compose.command() {
            let typed = self.chosen_command(&typed);
            match command::parse(&typed, &self.here) {
                // A command that is not carried out stays as well, because a text may be part of it.
                Ok(command) => {
                    self.completion = 0;
                    if self.run(command) {
                        self.take_line();
                    }
                }
                // A wrong command stays in the compose line, where it can be corrected.
                Err(why) => self.trouble(why),
            }
            return;
        }
        let text = self.compose.text();
        if text.trim().is_empty() && self.fields.title.is_none() {
            return self.show_newest();
        }
        if let Some(moving) = self.moving_in_words() {
            let then = "your text stays here until the servers have answered; Enter sends it then";
            return self.trouble(format!("{moving}: {then}"));
        }
        if self.is_doubtful(&text) {
            return;
        }
        let text = text.strip_prefix("//").map(|rest| format!("/{rest}")).unwrap_or(text);
        match self.target() {
            Target::Topic(topic) => {
                let fields = self.fields.clone();
                if self.send(topic, fields, text.trim().to_owned()) {
                    self.take_line();
                    self.fields = Fields::default();
                }
            }
            Target::Nowhere(why) => self.trouble(why),
        }
    }

    /// Returns true if the text is not to be sent before its writer has said that it is meant so.
    fn is_doubtful(&mut self, text: &str) -> bool {
        let before = self.doubted.take();
        if let Some(why) = doubt(text, self.by_keys)
            .or_else(|| self.begun_elsewhere())
            .filter(|_| before.as_deref() != Some(text))
        {
            self.doubted = Some(text.to_owned());
            self.trouble(format!("{why}; Enter again sends it"));
            return true;
        }
        let text = text.trim();
        let request = |topic, body: &str| {
            let content = self.fields.clone().content(body.to_owned());
            Request::Send { topic, content }
        };
        let Some((topic, rest)) = addressed(text).filter(|_| self.target() == Target::Topic(None)) else {
            return false;
        };
        let (to_it, as_it_is) = (request(Some(topic.clone()), rest), request(None, text));
        if !self.can_request() {
            return true;
        }
        self.ask_to_whom(&topic, to_it, as_it_is);
        true
    }

    /// Why a text is not sent that was begun for a place which is not shown after all.
    fn begun_elsewhere(&self) -> Option<String> {
        let place = self.begun_for.as_ref()?.label(self.profile.as_ref());
        let Target::Topic(topic) = self.target() else { return None };
        let whom = reached(topic.as_ref());
        Some(format!("not sent: it was begun for {place}, and this line goes to {whom}"))
    }

    /// Asks for whom a text is that begins with a name, and would go to the user's followers.
    fn ask_to_whom(&mut self, topic: &Topic, to_it: Request, as_it_is: Request) {
        if let Request::Send { content, .. } = &as_it_is
            && let Some(why) = too_large(content)
        {
            return self.trouble(format!("{why}; Ctrl+U clears the text before the cursor"));
        }
        let whom = reached(Some(topic));
        let creates = self.unknown_channel(&to_it).is_some();
        let mut answers = Vec::new();
        if self.may_create || !creates {
            let makes = if creates { ", which creates it" } else { "" };
            answers
                .push((format!("To {whom}, without the name before it{makes}"), Some(Yes::Request(to_it))));
        }
        answers.push(("To your followers, as it is".to_owned(), Some(Yes::Request(as_it_is))));
        answers.push(("Do not send".to_owned(), None));
        let text = format!("The text begins with {}, and this line goes to your followers.", written(topic));
        let question = Question::of(format!("To {whom}, or to your followers?"), text, answers);
        self.ask(if creates { question.careful() } else { question });
    }

    /// Sends a text. Returns true if the request was accepted. If its channel may not exist yet, this asks,
    /// and the text stays until the answer is yes.
    fn send(&mut self, topic: Option<Topic>, fields: Fields, body: String) -> bool {
        let content = fields.content(body);
        if let Some(why) = too_large(&content) {
            self.trouble(format!("{why}; Ctrl+U clears the text before the cursor"));
            return false;
        }
        let request = Request::Send { topic, content };
        let channel = self.unknown_channel(&request).filter(|_| self.can_request());
        let Some(channel) = channel else { return self.request(request) };
        // The list may be older than the channel. If so, the question goes with the newer one.
        self.list_channels();
        if !self.may_create {
            self.trouble(not_created(&channel));
            return false;
        }
        let text = format!(
            "No channel #{channel} is known here. Sending creates it: open to everyone, and only you can delete it."
        );
        let yes = (format!("Create #{channel} and send"), Yes::Request(request));
        // The name may be mistyped, and the shell's command asks for a yes as well.
        self.ask(
            Question::new(format!("Create #{channel}?"), text, yes, "Do not send").careful().of_creation(),
        );
        false
    }

    /// The profile or channel whose name is the first word of a text, without its sign, and the words behind
    /// it.
    fn named_without_sign(&self, text: &str) -> Option<(Topic, String)> {
        let (first, rest) = text.split_once(char::is_whitespace)?;
        let person = self.people.iter().find(|name| name.as_str() == first);
        let person = person.filter(|name| Some(*name) != self.profile.as_ref()).cloned().map(Topic::Inbox);
        let channel = self.channels.iter().find(|channel| channel.name.as_str() == first);
        let topic = person.or_else(|| channel.map(|channel| Topic::Channel(channel.name.clone())))?;
        let rest = rest.trim();
        (!rest.is_empty()).then(|| (topic, rest.to_owned()))
    }

    /// The channel that this text would create, as far as is known.
    pub(super) fn unknown_channel(&self, request: &Request) -> Option<ChannelName> {
        match request {
            Request::Send { topic: Some(Topic::Channel(name)), .. } if !self.knows_channel(name) => {
                Some(name.clone())
            }
            _ => None,
        }
    }

    /// Returns true if this channel is known to exist.
    fn knows_channel(&self, name: &ChannelName) -> bool {
        let topic = Topic::Channel(name.clone());
        self.channels.iter().any(|known| known.name == *name)
            || self.places.follows(&topic)
            || self.log(&Conversation::Topic(topic)).is_some_and(|log| !log.is_empty())
    }

    /// Makes the request that a yes has confirmed, and takes its text if the request was accepted.
    pub(super) fn confirmed(&mut self, request: Request) {
        let is_text = matches!(request, Request::Send { .. });
        let is_plain = self.compose.command().is_none();
        if self.request(request) && is_text {
            self.take_line();
            if is_plain {
                self.fields = Fields::default();
            }
        }
    }

    /// Returns true if a request can be made now, and says otherwise why not.
    fn can_request(&mut self) -> bool {
        if self.cluster_id.is_none() && !self.remembered {
            self.trouble(
                "connecting: before a server has answered nothing can be saved; your text stays here",
            );
        } else if self.connection.is_over() {
            self.trouble("there is no session; /connect tries again; your text stays here");
        } else if !self.outbox.has_room() {
            self.trouble(format!("{UNANSWERED_MAX} requests wait for the servers; your text stays here"));
        } else {
            return true;
        }
        false
    }

    /// Makes a numbered request. Returns true if it was accepted.
    pub(super) fn request(&mut self, request: Request) -> bool {
        if !self.can_request() {
            return false;
        }
        let id = self.outbox.next_id();
        self.outbox.add(id, &request);
        if let (Conversation::Topic(Topic::Inbox(_)), Request::Send { topic: Some(Topic::Inbox(to)), .. }) =
            (&self.here, &request)
        {
            self.partner = Some(to.clone());
        }
        self.effects.push(Effect::Request(id, request));
        self.position.anchor = None;
        true
    }

    fn follow(&mut self, topic: Topic, change: FollowChange) -> bool {
        self.request(Request::Follow { topic, change })
    }

    /// Makes a request with which a topic is joined, and shows it once it is.
    fn join(&mut self, topic: Topic, request: Request) -> bool {
        let accepted = self.request(request);
        if accepted {
            self.move_later(Conversation::Topic(topic), true);
        }
        accepted
    }

    /// Runs a command. Returns false if it was not carried out, or not yet, and is to stay in the line.
    fn run(&mut self, command: Command) -> bool {
        match command {
            // The place decides where typed text goes, so only commands with this purpose change the place.
            Command::Follow(topic) => return self.follow(topic, FollowChange::Add),
            Command::Join(topic) => {
                let request = Request::Follow { topic: topic.clone(), change: FollowChange::Add };
                return self.join(topic, request);
            }
            Command::Unfollow(topic) => return self.follow(topic, FollowChange::Remove),
            Command::Send(None, fields, text) if self.named_without_sign(&text).is_some() => {
                if let Some((topic, rest)) = self.named_without_sign(&text).filter(|_| self.can_request()) {
                    let send = |topic, body: &str| {
                        let content = fields.clone().content(body.to_owned());
                        Request::Send { topic, content }
                    };
                    self.ask_to_whom(&topic, send(Some(topic.clone()), &rest), send(None, &text));
                }
                return false;
            }
            Command::Send(topic, fields, text) => {
                let stands_here =
                    self.profile.as_ref().is_some_and(|me| stands_at(&self.here, me, topic.as_ref()));
                let whom = reached(topic.as_ref());
                let accepted = self.send(topic, fields, text);
                if accepted && !stands_here {
                    self.notice(format!("on its way to {whom}"));
                }
                return accepted;
            }
            Command::Title(title) => self.fields.title = title,
            Command::Priority(priority) => self.fields.priority = priority,
            Command::Tags(tags) if tags.is_empty() => self.fields.tags.clear(),
            Command::Tags(tags) => self.fields.tags.extend(tags),
            Command::Go(place) => self.visit(place),
            Command::Inbox => {
                if let Some(me) = self.profile.clone() {
                    self.go(Conversation::Topic(Topic::Inbox(me)));
                }
            }
            Command::History(None) => self.go(Conversation::All),
            Command::History(Some(Topic::Feed(name))) if Some(&name) == self.profile.as_ref() => {
                self.go(Conversation::Topic(Topic::Inbox(name)));
            }
            Command::History(Some(topic)) => self.visit(Conversation::Topic(topic)),
            Command::List(listing) => {
                return self.query(Effect::List(listing.clone()), Some(Asked::Show(listing)));
            }
            Command::DeviceAdd => return self.query(Effect::Enrol, None),
            Command::DeviceRemove(key) => {
                return self.query(Effect::List(Listing::Keys), Some(Asked::Revoke(key)));
            }
            Command::Channel(channel, ChannelChange::Delete) => {
                let members = Effect::List(Listing::Members(channel.clone()));
                return self.query(members, Some(Asked::Delete(channel)));
            }
            Command::Channel(channel, change @ ChannelChange::Create { .. }) => {
                let topic = Topic::Channel(channel.clone());
                return self.join(topic, Request::Channel { channel, change });
            }
            Command::Channel(channel, change) => return self.request(Request::Channel { channel, change }),
            Command::Channels => self.open_palette(palette::CHANNELS, Conversation::is_channel),
            Command::People => self.open_palette(palette::PEOPLE, Conversation::is_feed),
            Command::Info(name) => return self.query(Effect::Info(name), None),
            Command::Mute(topic) => match topic.or_else(|| self.here.topic().cloned()) {
                Some(topic) => self.toggle_mute(&topic),
                None => {
                    self.trouble("everything cannot be muted; name a topic: /mute #channel");
                    return false;
                }
            },
            Command::Search(words) => {
                self.focus_list();
                self.search = Some(Search::of(Some(&words)));
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
        true
    }

    /// Asks the servers. Returns false if there is no session that could.
    fn query(&mut self, effect: Effect, asked: Option<Asked>) -> bool {
        if !self.connection.is_served() {
            self.trouble(format!("{}: no server can be asked now", self.connection_word()));
            return false;
        }
        self.asked = asked.or(self.asked.take());
        self.effects.push(effect);
        true
    }

    /// Opens another session if the last one is over.
    pub(super) fn connect(&mut self) {
        match self.profile.clone().filter(|_| self.connection.is_over()) {
            Some(profile) => {
                self.connection.opened(self.now);
                self.effects.push(Effect::Open(profile, self.invite));
            }
            None => {
                self.refresh_places(Duration::ZERO);
                self.notice("the session is open, or the client is connecting already");
            }
        }
    }

    // ---- completion

    /// Completions of the command being typed. `None` if the text is no command.
    pub(crate) fn completions(&self) -> Option<Completion> {
        let typed = self.compose.command()?;
        if let Some(completing) = self.completing.as_ref().filter(|completing| completing.typed == typed) {
            return Some(completing.completion.clone());
        }
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
                let rows = self.places.rows([]).into_iter();
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
            Argument::Channel => self.names(false, true),
            Argument::JoinedChannel => filtered(self.names(false, true), &followed(true)),
            Argument::Words(words) => words.iter().map(|word| (*word).to_owned()).collect(),
            Argument::Theme => theme::NAMES.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// Returns true if the arrow keys go through completions. At an earlier text they go to others.
    pub(super) fn steps_completion(&self) -> bool {
        !self.compose.is_recalled()
            && self.completions().is_some_and(|completion| !completion.choices.is_empty())
    }

    pub(super) fn step_completion(&mut self, down: bool) {
        let count = self.completions().map_or(0, |completion| completion.choices.len()).max(1);
        self.completion =
            if down { (self.completion + 1) % count } else { (self.completion + count - 1) % count };
    }

    /// Inserts the chosen completion, and the next one if it was inserted just before. Moves the focus to the
    /// list if the text is no command.
    pub(super) fn complete(&mut self) {
        let Some(completion) = self.completions() else { return self.focus_list() };
        let typed = self.compose.command();
        let stands_there = |one: &Completing| Some(&one.typed) == typed.as_ref() && one.at == self.completion;
        if self.completing.as_ref().is_some_and(stands_there) {
            self.step_completion(true);
        }
        self.completing = None;
        if let Some((with, _)) = completion.choices.get(self.completion) {
            self.compose.complete(completion.from, with);
            match self.compose.command() {
                Some(typed) if completion.choices.len() > 1 => {
                    self.completing = Some(Completing { typed, completion, at: self.completion });
                }
                _ => self.completion = 0,
            }
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

/// The topic that is the first word of a text, and the words behind it.
fn addressed(text: &str) -> Option<(Topic, &str)> {
    let (first, rest) = text.split_once(char::is_whitespace)?;
    let topic =
        first.starts_with(['@', '#']).then(|| Topic::to_send(first.trim_end_matches([',', ':'])).ok())??;
    let rest = rest.trim_start();
    (!rest.is_empty()).then_some((topic, rest))
}
