//! State of the screen: events go in, effects come out, and the view draws it. It uses no clock, no file,
//! and no socket.
//!
//! `mod.rs` handles the events of the client, and `input` those of the user; `commands` runs typed
//! commands, and `answers` handles what the servers say to them; `list` moves through the notifications, and
//! `search` finds some; `mode` says what the keys do.

mod answers;
mod commands;
mod input;
mod list;
pub(crate) mod mode;
mod search;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use recado_client::{
    ChannelName, ClientError, Code, ConnectionEvent, DeviceId, DeviceKey, EnrolmentCode, HistoryRange,
    Incoming, Listing, Name, Notification, Op, Past, Request, Topic,
};
use recado_proto::id::ClusterId;

use super::cluster::Cluster;
use super::connection::{CONNECTING, Connection, State};
use super::conversation::{Conversation, Places};
use super::event::{Effect, Event, Link, Now, Opened, written};
use super::input::{Compose, Input};
use super::log::{Before, Log};
use super::options::Fields;
use super::outbox::Outbox;
use super::palette::Palette;
use super::saved_state::SavedState;
use super::settings::Settings;
use super::view;

use self::answers::{Asked, Denied};
pub(crate) use self::commands::Target;
use self::search::Search;

/// Time for which a notice is shown.
const NOTICE: Duration = Duration::from_secs(6);

/// Time after the last key for which the user counts as present.
const PRESENT: Duration = Duration::from_secs(60);

/// Received notifications are saved and taken after this many of them, or after this time. The servers send
/// at most 256 notifications beyond the last one taken.
const KEEP_EVERY: usize = 64;
const KEEP_AFTER: Duration = Duration::from_millis(500);

/// Number of gaps that are kept. Beyond it the oldest are dropped.
const GAPS_MAX: usize = 64;

/// Part of the screen that receives keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Focus {
    Writing,
    List,
    Places,
}

/// Popup over the screen.
#[derive(Clone, Debug)]
pub(crate) enum Popup {
    Help {
        scroll: usize,
    },
    Servers {
        scroll: usize,
    },
    Text {
        title: String,
        lines: Vec<String>,
        scroll: usize,
    },
    Palette(Palette),
    Confirmation(Confirmation),
    /// The first start. It asks for a name, and shows what was wrong with the last one.
    Welcome {
        input: Input,
        wrong: Option<String>,
    },
    /// The prompt for the code of an invitation, which a new name needs. It shows what was wrong with the
    /// last code.
    Invitation {
        input: Input,
        wrong: Option<String>,
    },
}

impl Popup {
    /// Scroll position of a popup that shows text.
    fn scroll_mut(&mut self) -> Option<&mut usize> {
        match self {
            Popup::Help { scroll } | Popup::Servers { scroll } | Popup::Text { scroll, .. } => Some(scroll),
            Popup::Palette(_) | Popup::Confirmation(_) | Popup::Welcome { .. } | Popup::Invitation { .. } => {
                None
            }
        }
    }
}

/// A confirmation, given with yes or denied with no, possibly of one of several choices.
#[derive(Clone, Debug)]
pub(crate) struct Confirmation {
    pub(crate) title: String,
    /// Text of each choice, and what a yes does. There is at least one choice.
    pub(crate) choices: Vec<(String, Yes)>,
    pub(crate) at: usize,
}

/// What a yes does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Yes {
    Effect(Effect),
    /// Open another session.
    Connect,
    /// Make this request for the text that is being written.
    Request(Request),
}

/// A message that is shown for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) text: String,
    pub(crate) is_trouble: bool,
    until: Duration,
}

/// Position in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The notification at the lower edge, and the number of its rows below the edge. `None` keeps the
    /// newest notification at the edge.
    pub(crate) anchor: Option<(Op, usize)>,
    pub(crate) selected: Option<Op>,
}

/// State of the screen.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) now: Now,
    pub(crate) size: (u16, u16),
    pub(crate) settings: Settings,
    /// Name of the account, if one was chosen.
    pub(crate) account: Option<String>,
    /// Addresses at which servers are looked for, as text.
    pub(crate) servers: String,
    /// This installation's device, once there is a client.
    device: Option<DeviceId>,
    /// Result of the last search for a server, while there is no client.
    pub(crate) no_server: Option<String>,
    pub(crate) profile: Option<Name>,
    /// Code of the invitation for a name that nobody has claimed.
    invite: Option<EnrolmentCode>,
    pub(crate) cluster_id: Option<ClusterId>,
    /// True if a client is opened even if no server answers, because the cluster is known from before.
    /// Requests made before then wait for this client.
    pub(crate) remembered: bool,
    pub(crate) connection: Connection,
    pub(crate) places: Places,
    logs: BTreeMap<Conversation, Log>,
    /// Ranges of ops that retention dropped before they were read: after, up to.
    pub(crate) gaps: Vec<(Op, Op)>,
    pub(crate) here: Conversation,
    pub(crate) position: Position,
    pub(crate) focus: Focus,
    pub(crate) compose: Compose,
    /// Title, priority and tags of the next text.
    pub(crate) fields: Fields,
    /// Index of the chosen completion.
    pub(crate) completion: usize,
    pub(crate) search: Option<Search>,
    pub(crate) popup: Option<Popup>,
    pub(crate) outbox: Outbox,
    pub(crate) cluster: Cluster,
    pub(crate) people: Vec<Name>,
    /// Channels with their numbers of followers.
    pub(crate) channels: Vec<(ChannelName, u64)>,
    pub(crate) notice: Option<Notice>,
    /// True if the terminal window has the focus, as far as the terminal reports it.
    window_focused: bool,
    last_key: Duration,
    first_run: bool,
    /// True if there was a session of this profile and cluster.
    let_in: bool,
    /// True while the state of the servers is shown.
    watches: bool,
    /// Channel to show once it is followed.
    joining: Option<Topic>,
    /// List that a command asked for.
    asked: Option<Asked>,
    /// Refusals whose reason waits for the names of a channel's owners.
    denied: Vec<Denied>,
    keep: Keep,
    effects: Vec<Effect>,
    /// Change since the last drawing.
    change: Change,
}

/// Reason to draw the screen again. It decides how soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    Nothing,
    /// The client reported something, or time has passed.
    Came,
    /// The user did something and expects to see it.
    Done,
}

/// State that is not saved yet.
#[derive(Clone, Copy, Debug, Default)]
struct Keep {
    since: Option<Duration>,
    came: usize,
    upto: Option<Op>,
}

impl App {
    /// A screen of 80 by 24 before any event. Without a profile it asks for one.
    pub(crate) fn new(
        settings: Settings,
        profile: Option<Name>,
        invite: Option<EnrolmentCode>,
        servers: String,
        now: Now,
    ) -> App {
        let mut app = App {
            now,
            size: (80, 24),
            settings,
            account: None,
            servers,
            device: None,
            no_server: None,
            profile: None,
            invite,
            cluster_id: None,
            remembered: false,
            connection: Connection::default(),
            places: Places::default(),
            logs: BTreeMap::new(),
            gaps: Vec::new(),
            here: Conversation::All,
            position: Position::default(),
            focus: Focus::Writing,
            compose: Compose::default(),
            fields: Fields::default(),
            completion: 0,
            search: None,
            popup: None,
            outbox: Outbox::default(),
            cluster: Cluster::default(),
            people: Vec::new(),
            channels: Vec::new(),
            notice: None,
            window_focused: true,
            last_key: now.since_start,
            first_run: profile.is_none(),
            let_in: false,
            watches: false,
            joining: None,
            asked: None,
            denied: Vec::new(),
            keep: Keep::default(),
            effects: Vec::new(),
            change: Change::Done,
        };
        match profile {
            Some(profile) => app.begin(profile),
            None => app.popup = Some(Popup::Welcome { input: Input::default(), wrong: None }),
        }
        app.watch();
        app
    }

    /// Handles an event, and returns the effects to carry out.
    pub(crate) fn update(&mut self, now: Now, event: Event) -> Vec<Effect> {
        self.now = now;
        match event {
            Event::Tick => self.on_tick(),
            other => {
                let change = match other {
                    Event::Link(_) | Event::Trouble(_) => Change::Came,
                    _ => Change::Done,
                };
                self.change = self.change.max(change);
                match other {
                    Event::Key(key) => self.on_key(key),
                    Event::Mouse(mouse) => self.on_mouse(mouse),
                    Event::Paste(text) => self.on_paste(&text),
                    Event::Resize(width, height) => self.on_resize(width, height),
                    Event::Focus(focused) => self.on_focus(focused),
                    Event::Link(link) => self.on_link(link),
                    Event::Theme(name, Ok(theme)) => {
                        self.settings.theme = theme.at(self.settings.depth);
                        self.notice(format!(
                            "the theme is {name} now; set `theme` in the configuration to keep it"
                        ));
                    }
                    Event::Theme(_, Err(why)) | Event::Trouble(why) => self.trouble(why),
                    Event::Tick => {}
                }
            }
        }
        if view::hides_what_fits(self) {
            self.compose.rescroll();
        }
        self.watch();
        std::mem::take(&mut self.effects)
    }

    /// Has the servers queried more often while their state is shown.
    fn watch(&mut self) {
        let watches = matches!(self.popup, Some(Popup::Servers { .. } | Popup::Welcome { .. }));
        if std::mem::replace(&mut self.watches, watches) != watches {
            self.effects.push(Effect::Watch(watches));
        }
    }

    /// Takes the effects of the start, before any event.
    pub(crate) fn begin_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn change(&self) -> Change {
        self.change
    }

    /// Message about the notifications that no server has acknowledged, for a user who leaves. `None` if
    /// there are none.
    pub(crate) fn unsent(&self) -> Option<String> {
        let (texts, me) = (self.outbox.texts(), self.profile.as_ref()?);
        let texts = match texts {
            0 => return None,
            1 => "1 notification is saved and not acknowledged yet".to_owned(),
            n => format!("{n} notifications are saved and not acknowledged yet"),
        };
        Some(format!("{texts}; the next `recado` as @{me} settles it, without sending it twice"))
    }

    /// Records that the screen was drawn.
    pub(crate) fn drawn(&mut self) {
        self.change = Change::Nothing;
    }

    fn begin(&mut self, profile: Name) {
        self.profile = Some(profile.clone());
        self.places = Places::new(profile.clone(), &SavedState::default());
        self.effects.push(Effect::Open(profile, self.invite));
    }

    pub(crate) fn log(&self, place: &Conversation) -> Option<&Log> {
        self.logs.get(place)
    }

    fn log_mut(&mut self, place: &Conversation) -> &mut Log {
        self.logs.entry(place.clone()).or_default()
    }

    #[cfg(test)]
    pub(crate) fn log_at(&mut self, place: &Conversation) -> &mut Log {
        self.log_mut(place)
    }

    fn notice(&mut self, text: impl Into<String>) {
        self.notice =
            Some(Notice { text: text.into(), is_trouble: false, until: self.now.since_start + NOTICE });
    }

    fn trouble(&mut self, text: impl Into<String>) {
        self.notice =
            Some(Notice { text: text.into(), is_trouble: true, until: self.now.since_start + NOTICE });
    }

    /// State of the connection, in the one word that the whole screen uses for it. A client whose servers
    /// answer is not offline, however long its session takes or its user thinks about a name.
    pub(crate) fn connection_word(&self) -> &'static str {
        match self.connection.state {
            State::Connecting { .. } if self.cluster.answering() > 0 => CONNECTING,
            _ => self.connection.word(self.now),
        }
    }

    // ---- time

    fn on_tick(&mut self) {
        let second_over = self.cluster.on_time(self.now);
        if self.notice.as_ref().is_some_and(|notice| notice.until <= self.now.since_start) {
            self.notice = None;
            self.change = self.change.max(Change::Came);
        }
        // Counters of seconds and banners that expire need a drawing only once a second.
        if second_over {
            self.change = self.change.max(Change::Came);
        }
        if self.keep.since.is_some_and(|since| self.now.since_start.saturating_sub(since) >= KEEP_AFTER) {
            self.write_down();
        }
    }

    fn must_keep(&mut self) {
        self.keep.since.get_or_insert(self.now.since_start);
    }

    fn write_down(&mut self) {
        if self.cluster_id.is_some() {
            self.effects.push(Effect::Keep(Arc::new(self.places.saved_state()), self.keep.upto.take()));
        }
        self.keep = Keep::default();
    }

    // ---- events of the client

    fn on_link(&mut self, link: Link) {
        match link {
            Link::NoServer(why) => {
                self.no_server = Some(why);
                self.remembered = false;
            }
            Link::Opened(opened) => self.on_opened(*opened),
            Link::Connection(event) => self.on_connection(event),
            Link::Incoming(Incoming::Notification(notification)) => self.on_notification(notification),
            Link::Incoming(Incoming::Gap { after, upto }) => self.on_gap(after, upto),
            Link::Settled(id, result) => self.on_settled(id, result),
            Link::MadeChannel(topic) => self.on_made_channel(&topic),
            Link::Enrolled(code) => self.on_enrolled(code),
            Link::NotTaken(id, why) => {
                self.outbox.refused(id, &why);
                self.trouble(why);
            }
            Link::Past(place, range, past) => self.on_past(&place, range, past),
            Link::List(listing, items) => self.on_list(listing, items),
            Link::Info(name, Ok(info)) => {
                let lines = vec![
                    format!("followers   {}", info.followers),
                    format!("following   {}", info.following),
                    format!("devices     {}, {} connected", info.devices, info.sessions),
                    format!("pending     {}", info.pending),
                ];
                self.popup = Some(Popup::Text { title: format!("@{name}"), lines, scroll: 0 });
            }
            Link::Info(name, Err(why)) => self.trouble(format!("@{name}: {why}")),
            Link::Pulse(servers) if servers.is_empty() => {
                self.cluster.silence(self.now);
                self.connection.round_trip = None;
            }
            Link::Pulse(servers) => {
                self.cluster.pulse(self.now, servers);
                self.connection.round_trip =
                    self.connection.primary.and_then(|(_, addr)| self.cluster.round_trip(addr));
            }
            Link::Trouble(why) => self.trouble(why),
            Link::Ended(error) => self.on_ended(&error),
        }
    }

    fn on_opened(&mut self, opened: Opened) {
        self.no_server = None;
        self.device = Some(opened.device);
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
            if self.let_in {
                self.notice("a new session is open; nothing was lost");
            }
            return;
        }
        self.let_in = false;
        self.cluster_id = Some(opened.cluster);
        self.profile = Some(opened.profile.clone());
        self.logs.clear();
        self.gaps.clear();
        (self.here, self.position) = (Conversation::All, Position::default());
        self.places = Places::new(opened.profile, &opened.saved);
        // In the list of everything, notifications that are newer than the saved state are marked as new.
        let newest = opened.saved.topics.iter().map(|topic| topic.newest).max();
        self.log_mut(&Conversation::All).seen_upto = newest.filter(|op| *op > Op::ZERO);
    }

    fn on_connection(&mut self, event: ConnectionEvent) {
        self.connection.event(self.now, event, self.outbox.first_unanswered());
        match event {
            ConnectionEvent::Connected { .. } => {
                self.let_in = true;
                for listing in [Listing::Following, Listing::Channels, Listing::People] {
                    self.effects.push(Effect::List(listing));
                }
                self.need_past(&Conversation::All);
                if let Some(me) = self.profile.clone() {
                    // The stream does not carry what the user sends to their feed or to an inbox.
                    self.need_past(&Conversation::Topic(Topic::Feed(me.clone())));
                    self.need_past(&Conversation::Topic(Topic::Inbox(me.clone())));
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

    fn on_ended(&mut self, error: &ClientError) {
        match error {
            ClientError::Ended(Code::NotYours) if self.first_run => self.ask_name_again(),
            error => {
                self.connection.over(error);
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
    fn ask_code(&mut self) {
        let wrong = self.invite.take();
        let wrong = wrong.map(|code| format!("{code} is mistyped, used up, expired, or for another name"));
        self.popup = Some(Popup::Invitation { input: Input::default(), wrong });
    }

    /// Tells the user to have the key allowed. Nobody has the name, and only keys that an administrator has
    /// allowed may claim it.
    fn ask_whether_allowed(&mut self, profile: &Name, key: &DeviceKey) {
        let command = format!("recadod admin allow {} --config FILE", key.in_full());
        let what = format!("with the recado.toml of any server as FILE, lets this device claim @{profile}.");
        let again =
            format!("{command}\n{what} Ask an administrator to run it. Is it done? A yes tries again.");
        let copy = format!("{command}\n{what} Copy this command?");
        let choices = vec![(again, Yes::Connect), (copy, Yes::Effect(Effect::Copy(command)))];
        self.popup =
            Some(Popup::Confirmation(Confirmation { title: "Not allowed yet".to_owned(), choices, at: 0 }));
    }

    /// Asks for another name, because this one belongs to somebody else.
    fn ask_name_again(&mut self) {
        let taken = self.profile.as_ref().map(Name::to_string).unwrap_or_default();
        self.ask_name(Some(format!("@{taken} belongs to somebody else here; take another name")));
    }

    /// Forgets the name, and asks for one as at the first start.
    fn ask_name(&mut self, wrong: Option<String>) {
        self.profile = None;
        (self.places, self.here) = (Places::default(), Conversation::All);
        self.connection.opened(self.now);
        self.outbox.recovered(Vec::new());
        self.cluster_id = None;
        self.popup = Some(Popup::Welcome { input: Input::default(), wrong });
    }

    fn on_notification(&mut self, notification: Arc<Notification>) {
        self.cluster.delivered(self.now);
        let topic = notification.topic.clone();
        let place = Conversation::Topic(topic.clone());
        let is_new = self.places.came(&notification);
        let mine = self.profile.as_ref() == Some(&notification.author);
        let seen = self.sees(&place);
        if self.follows_end() && self.shows(&place) {
            self.position.anchor = None;
        }
        self.insert(notification.clone());
        if let Some(search) =
            self.search.as_mut().filter(|_| self.here == Conversation::All || self.here == place)
        {
            search.came(&notification);
        }
        if is_new && seen {
            self.places.read(&topic, notification.op);
        } else if is_new && !mine && !self.places.is_muted(&topic) {
            self.ring(&notification);
        }
        self.keep.came += 1;
        self.keep.upto = Some(notification.op);
        self.must_keep();
        if self.keep.came >= KEEP_EVERY {
            self.write_down();
        }
    }

    /// Inserts a notification into the list of everything, and into the list of its place if that has been
    /// shown.
    fn insert(&mut self, notification: Arc<Notification>) {
        let place = self.stands_in(&notification.topic);
        if let Some(log) = self.logs.get_mut(&place) {
            log.insert(notification.clone());
        }
        self.log_mut(&Conversation::All).insert(notification);
    }

    /// The place, besides that of everything, that lists a notification of this topic.
    fn stands_in(&self, topic: &Topic) -> Conversation {
        match (topic, &self.profile) {
            // The user's inbox also lists copies of what the user sends to other inboxes.
            (Topic::Inbox(_), Some(me)) => Conversation::Topic(Topic::Inbox(me.clone())),
            (topic, _) => Conversation::Topic(topic.clone()),
        }
    }

    fn ring(&mut self, notification: &Notification) {
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

    fn on_gap(&mut self, after: Op, upto: Op) {
        self.gaps.push((after, upto));
        if self.gaps.len() > GAPS_MAX {
            self.gaps.remove(0);
        }
        self.keep.upto = Some(upto);
        self.must_keep();
        self.trouble("older notifications were dropped by the servers before you read them");
    }

    // ---- pages of the past

    /// Requests the newest notifications of a place, unless they are here or requested already.
    fn need_past(&mut self, place: &Conversation) {
        let queried = self.cluster_id.is_some();
        let log = self.log_mut(place);
        if queried && log.before == Before::Unknown {
            log.before = Before::Loading;
            self.effects.push(Effect::History(place.clone(), HistoryRange::Before(Op(u64::MAX))));
        }
    }

    /// Requests notifications that are older than the oldest here.
    fn need_older(&mut self, place: &Conversation) {
        let log = self.log_mut(place);
        if log.before == Before::More
            && let Some(oldest) = log.oldest().map(|oldest| oldest.op)
        {
            log.before = Before::Loading;
            self.effects.push(Effect::History(place.clone(), HistoryRange::Before(oldest)));
        }
    }

    fn on_past(&mut self, place: &Conversation, range: HistoryRange, past: Result<Past, String>) {
        let log = self.log_mut(place);
        match past {
            Ok(past) => {
                log.prepend(past.notifications, past.more);
            }
            Err(why) => {
                let first = range == HistoryRange::Before(Op(u64::MAX));
                log.before = if first { Before::Unknown } else { Before::More };
                log.goal_ms = None;
                self.trouble(format!("no history: {why}"));
            }
        }
        self.merge_own();
        self.toward_goal(place);
        if let Some(search) = self.search.as_mut().filter(|_| *place == self.here) {
            search.is_stale();
        }
        if *place == self.here {
            self.after_move();
            if let (Conversation::Topic(topic), true) = (place, self.sees(place)) {
                self.read_here(&topic.clone());
            }
        }
    }

    /// Copies what the user sent to their feed or to an inbox into the list of everything, as far back as
    /// that list goes, because the stream does not carry it.
    fn merge_own(&mut self) {
        let Some(me) = self.profile.clone() else { return };
        let all = self.log_mut(&Conversation::All);
        let from = match (all.before, all.oldest()) {
            (Before::Nothing, _) => Op::ZERO,
            (_, Some(oldest)) => oldest.op,
            (_, None) => return,
        };
        let mut own = Vec::new();
        for topic in [Topic::Feed(me.clone()), Topic::Inbox(me)] {
            let log = self.logs.get(&Conversation::Topic(topic));
            let newer = log.into_iter().flat_map(Log::iter).rev().take_while(|one| one.op >= from);
            own.extend(newer.cloned());
        }
        let all = self.log_mut(&Conversation::All);
        for notification in own {
            all.insert(notification);
        }
    }
}
