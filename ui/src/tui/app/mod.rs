//! State of the screen: events go in, effects come out, and the view draws it. It uses no clock, no file,
//! and no socket.
//!
//! `session` begins and ends sessions, `stream` takes what comes, `past` fetches what came before, and
//! `answers` handles what the servers say to requests; `input` takes keys and text, `commands` runs typed
//! commands, and `question` asks before some of them; `drafts` keeps what is being written at each place;
//! `list` moves through the notifications, and `search` finds some; `moves` waits for the servers before it
//! shows a place; `mode` says what the keys do.

mod answers;
mod commands;
mod drafts;
mod input;
mod list;
pub(crate) mod mode;
mod moves;
mod past;
mod question;
mod search;
mod session;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use recado_client::{DeviceId, EnrolmentCode, Incoming, Listing, Name, Op, Topic};
use recado_proto::id::ClusterId;

use super::cluster::Cluster;
use super::command::in_commands_of_here;
use super::connection::{CONNECTING, Connection, READY, State};
use super::conversation::{Channel, Conversation, Places};
use super::event::{Effect, Event, Link, Now};
use super::input::{Compose, Input};
use super::log::Log;
use super::options::Fields;
use super::outbox::Outbox;
use super::palette::Palette;
use super::saved_state::Removed;
use super::settings::Settings;
use super::view;
use crate::wording::{described, named};

use self::answers::{Asked, Denied};
use self::commands::Completing;
pub(crate) use self::commands::Target;
use self::drafts::Draft;
use self::moves::Move;
pub(crate) use self::question::{Question, Yes};
use self::search::Search;

/// Time for which a notice is shown.
const NOTICE: Duration = Duration::from_secs(6);

/// Time after the last key for which the user counts as present.
const PRESENT: Duration = Duration::from_secs(60);

/// Received notifications are saved and taken after this many of them, or after this time. The servers send
/// at most 256 notifications beyond the last one taken.
const KEEP_EVERY: usize = 64;
const KEEP_AFTER: Duration = Duration::from_millis(500);

/// Time after which the number of followers that is shown is asked for again.
const COUNTED_FOR: Duration = Duration::from_secs(30);

/// Interval at which a screen that is looked at asks what is followed, and the least interval otherwise.
const REFRESH_EVERY: Duration = Duration::from_secs(60);
const REFRESH_LEAST: Duration = Duration::from_secs(3);

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
    Question(Question),
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
            Popup::Palette(_) | Popup::Question(_) | Popup::Welcome { .. } | Popup::Invitation { .. } => None,
        }
    }
}

/// A message that is shown for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) text: String,
    pub(crate) is_trouble: bool,
    /// True if it says what is wrong with the text in the line. It goes with that text.
    about_line: bool,
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
    /// Path of the configuration, for messages.
    pub(crate) config_path: String,
    /// Addresses at which servers are looked for.
    pub(crate) servers: Vec<SocketAddr>,
    /// This installation's device, once there is a client.
    device: Option<DeviceId>,
    /// Directory of that device's files.
    pub(crate) files: Option<PathBuf>,
    /// What somebody has removed of these files.
    removed: Option<Removed>,
    /// Result of the last search for a server, while there is no client.
    pub(crate) no_server: Option<String>,
    pub(crate) profile: Option<Name>,
    /// False if no name may be claimed.
    pub(crate) may_claim: bool,
    /// False if no channel may be created.
    pub(crate) may_create: bool,
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
    /// The profile that the draft in the inbox is for, from its first letter on.
    addressee: Option<Name>,
    /// The profile to which the last text went from the inbox, since it is shown.
    partner: Option<Name>,
    /// Drafts of the other places.
    drafts: BTreeMap<Conversation, Draft>,
    /// Index of the chosen completion.
    pub(crate) completion: usize,
    /// The completion that was inserted last.
    completing: Option<Completing>,
    /// True if the text was begun where keys move through a list or a page.
    by_keys: bool,
    /// A text that is probably not meant as one, and was not sent when it was entered once.
    doubted: Option<String>,
    pub(crate) search: Option<Search>,
    pub(crate) popup: Option<Popup>,
    /// Popup that asks for a name or a code, while the help is read over it.
    under: Option<Popup>,
    pub(crate) outbox: Outbox,
    pub(crate) cluster: Cluster,
    pub(crate) people: Vec<Name>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) notice: Option<Notice>,
    /// True if the terminal window has the focus, as far as the terminal reports it.
    window_focused: bool,
    last_key: Duration,
    first_run: bool,
    /// True if there was a session of this profile and cluster.
    let_in: bool,
    /// True between the begin of another client after a session, and its own session.
    reopened: bool,
    /// True while the state of the servers is shown.
    watches: bool,
    /// Number of keys pressed so far.
    keys: u64,
    /// Place to show once the servers have answered.
    moving: Option<Move>,
    /// The place for which the text was begun, if it is not shown after all.
    begun_for: Option<Conversation>,
    /// Time at which the list of what is followed was asked for last.
    refreshed: Option<Duration>,
    /// Time at which the list of channels, with their followers, was asked for last.
    listed: Option<Duration>,
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
        servers: Vec<SocketAddr>,
        now: Now,
    ) -> App {
        let mut app = App {
            now,
            size: (80, 24),
            settings,
            account: None,
            config_path: "config.toml".to_owned(),
            servers,
            device: None,
            files: None,
            removed: None,
            no_server: None,
            profile: None,
            may_claim: true,
            may_create: true,
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
            addressee: None,
            partner: None,
            drafts: BTreeMap::new(),
            completion: 0,
            completing: None,
            by_keys: false,
            doubted: None,
            search: None,
            popup: None,
            under: None,
            outbox: Outbox::default(),
            cluster: Cluster::default(),
            people: Vec::new(),
            channels: Vec::new(),
            notice: None,
            window_focused: true,
            last_key: now.since_start,
            first_run: profile.is_none(),
            let_in: false,
            reopened: false,
            watches: false,
            keys: 0,
            moving: None,
            begun_for: None,
            refreshed: None,
            listed: None,
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
        let before = self.correspondent_here();
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
        self.fix_addressee(before);
        if self.compose.is_empty() {
            self.notice.take_if(|notice| notice.about_line);
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

    /// What a user who leaves is to know: which notifications no server has acknowledged and what becomes of
    /// them, and whether files of the device were removed. `None` if there is nothing.
    pub(crate) fn unsent(&self, removed: Option<Removed>) -> Option<String> {
        let (texts, me) = (self.outbox.texts(), self.profile.as_ref()?);
        let counted = crate::wording::counted(texts as u64, "notification");
        let is = if texts == 1 { "is" } else { "are" };
        if let Some(removed) = removed {
            let lost = match texts {
                0 => String::new(),
                _ => format!("; {counted} not acknowledged {is} lost with them"),
            };
            let cure = match removed {
                Removed::Key => {
                    format!(". Another machine of @{me} can let this one in again: `recado device add` there")
                }
                Removed::Device => String::new(),
            };
            return Some(format!("{}{lost}{cure}", self.removed_in_words(removed)));
        }
        if texts == 0 {
            return None;
        }
        let then = if self.connection.other.is_some() {
            "the servers that answer at the addresses of its cluster are those of another one, and get none of it".to_owned()
        } else if self.connection.forgotten {
            "the servers no longer know this device: the next `recado` says what can be done".to_owned()
        } else {
            format!("the next `recado` as @{me} settles it, without sending it twice")
        };
        Some(format!("{counted} {is} saved and not acknowledged yet; {then}"))
    }

    fn removed_in_words(&self, removed: Removed) -> String {
        let me = self.profile.as_ref().map(Name::to_string).unwrap_or_default();
        let device = self.files.as_deref().unwrap_or(Path::new(""));
        match removed {
            Removed::Key => {
                let place = device.parent().unwrap_or(device).display();
                format!("the files of @{me} in {place} were removed, and its key with them")
            }
            Removed::Device => format!("the files of this device in {} were removed", device.display()),
        }
    }

    /// A message that stays while what it says is so.
    pub(crate) fn banner(&self) -> Option<String> {
        let removed = self.removed.map(|removed| {
            let cure = match removed {
                Removed::Key => {
                    "while this screen is open, /device add draws a code with which this machine joins again"
                }
                Removed::Device => "what is not acknowledged when this screen ends is lost",
            };
            format!("{}; {cure}", self.removed_in_words(removed))
        });
        let banners: Vec<String> = removed.into_iter().chain(self.connection.banner(self.now)).collect();
        (!banners.is_empty()).then(|| banners.join("\n"))
    }

    /// Records that the screen was drawn.
    pub(crate) fn drawn(&mut self) {
        self.change = Change::Nothing;
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

    /// The channel of this topic, if the servers have listed it.
    pub(crate) fn channel(&self, topic: &Topic) -> Option<&Channel> {
        let Topic::Channel(name) = topic else { return None };
        self.channels.iter().find(|channel| channel.name == *name)
    }

    fn notice(&mut self, text: impl Into<String>) {
        self.tell(&text.into(), false);
    }

    fn trouble(&mut self, text: impl Into<String>) {
        self.tell(&text.into(), true);
    }

    fn tell(&mut self, text: &str, is_trouble: bool) {
        let until = self.now.since_start + NOTICE;
        let text = in_commands_of_here(text);
        self.notice = Some(Notice { text, is_trouble, about_line: false, until });
    }

    /// The addresses at which servers are looked for, in words.
    pub(crate) fn servers_in_words(&self) -> String {
        self.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// State of the connection, in the one word that the whole screen uses for it. A client whose servers
    /// answer is not offline, however long its session takes or its user thinks about a name.
    pub(crate) fn connection_word(&self) -> &'static str {
        match self.connection.state {
            // No session is looked for before there is a name.
            State::Connecting { .. } if self.cluster.answering() > 0 && self.profile.is_none() => READY,
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
        self.ask_for_followers();
        if self.is_present() {
            self.refresh_places(REFRESH_EVERY);
        }
        if self.keep.since.is_some_and(|since| self.now.since_start.saturating_sub(since) >= KEEP_AFTER) {
            self.write_down();
        }
    }

    /// Asks for the numbers of followers again while one is shown to somebody: others follow without a word.
    fn ask_for_followers(&mut self) {
        let is_old = self.listed.is_none_or(|listed| self.now.since_start - listed >= COUNTED_FOR);
        if is_old && self.here.is_channel() && self.is_present() && self.connection.is_served() {
            self.list_channels();
        }
    }

    /// Asks what is followed, if that was asked longer ago: another screen or a command may have changed it.
    fn refresh_places(&mut self, ago: Duration) {
        let is_old = self.refreshed.is_none_or(|last| self.now.since_start.saturating_sub(last) >= ago);
        if is_old && self.connection.is_served() {
            self.refreshed = Some(self.now.since_start);
            self.effects.push(Effect::List(Listing::Following));
        }
    }

    fn list_channels(&mut self) {
        self.listed = Some(self.now.since_start);
        self.effects.push(Effect::List(Listing::Channels));
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
            Link::Claimed(true) => self.on_claimed(),
            Link::Claimed(false) => {}
            Link::Enrolled(code) => self.on_enrolled(code),
            Link::NotTaken(id, why) => {
                self.give_up_join(id);
                self.outbox.refused(id, &why);
                self.trouble(why);
            }
            Link::Past(place, range, past) => self.on_past(&place, range, past),
            Link::List(listing, items) => self.on_list(listing, items),
            Link::Info(Ok(of)) => {
                let lines = described(&of.info).to_vec();
                self.popup = Some(Popup::Text { title: named(&of), lines, scroll: 0 });
            }
            Link::Info(Err(why)) => self.trouble(why),
            Link::Pulse(servers) if servers.is_empty() => {
                self.cluster.silence(self.now);
                self.connection.round_trip = None;
            }
            Link::Pulse(servers) => {
                self.connection.other = None;
                self.cluster.pulse(self.now, servers);
                self.connection.round_trip =
                    self.connection.primary.and_then(|(_, addr)| self.cluster.round_trip(addr));
            }
            Link::Trouble(why) => self.trouble(why),
            Link::Removed(removed) => self.removed = Some(removed),
            Link::Other(why) => self.connection.other = Some(why),
            Link::Ended(error) => self.on_ended(&error),
        }
    }
}
