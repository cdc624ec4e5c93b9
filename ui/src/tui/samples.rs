//! Test data: profiles, notifications, servers.

use std::sync::Arc;
use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use recado_client::{
    Access, ClusterId, ConnectionEvent, Content, DeviceId, DeviceKey, HistoryRange, Incoming, ListItem,
    Listing, Name, NodeId, Notification, Op, Past, Request, RoleName, ServerStatus, SessionId, Status, Topic,
    View,
};

use super::app::App;
use super::conversation::Conversation;
use super::event::{Effect, Event, Link, Now, Opened, RequestId};
use super::saved_state::SavedState;
use super::settings::{ScreenFile, Settings};
use super::theme::Depth;
use super::view;

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn content(body: &str) -> Content {
    Content::of(body)
}

/// A notification whose time is `op` minutes after 2026-03-02 09:00 UTC.
pub(crate) fn notification(op: u64, topic: &Topic, author: &str, body: &str) -> Notification {
    let unix_ms = 1_772_442_000_000 + op * 60_000;
    Notification {
        op: Op(op),
        topic: topic.clone(),
        author: name(author),
        unix_ms,
        content: content(body),
        options: recado_proto::packet::OptionalFields::NONE,
    }
}

/// The time `seconds` after the start, which is 2026-03-02 12:00 UTC.
pub(crate) fn at(seconds: u64) -> Now {
    Now { since_start: Duration::from_secs(seconds), unix_ms: 1_772_452_800_000 + seconds * 1_000 }
}

pub(crate) fn status(node: u16, role: Option<RoleName>, applied: u64) -> ServerStatus {
    let addr = format!("127.0.0.1:{}", 10_096 + node).parse().unwrap();
    let answer = role.map(|role| Status {
        node: NodeId(node),
        role,
        view: View::new(4, NodeId(3)),
        applied: Op(applied),
        durable: Op(applied),
        lag: 0,
        pid: 4_000 + u32::from(node),
        incarnation: recado_proto::id::Incarnation(1),
        uptime_ms: 60_000,
        members: vec![],
        refused: vec![],
    });
    ServerStatus { node: NodeId(node), addr, answer, round_trip: role.map(|_| Duration::from_micros(640)) }
}

/// A screen of this profile, in a terminal of many colours, in UTC.
pub(crate) fn app(profile: Option<&str>) -> App {
    let mut settings = Settings::new(&ScreenFile::default(), Depth::Many, "themes".as_ref()).unwrap();
    settings.zone = TimeZone::UTC;
    App::new(settings, profile.map(name), None, vec!["127.0.0.1:10097".parse().unwrap()], at(0))
}

/// The screen of alice in a session with server-3, with the first lists that the servers send.
pub(crate) fn connected() -> App {
    let mut app = app(Some("alice"));
    app.begin_effects();
    link(&mut app, 0, opened(vec![]));
    link(&mut app, 0, let_in());
    let following = ["@bob", "#ops", "#deploys"]
        .map(|topic| ListItem::Following { topic: Topic::to_follow(topic).unwrap(), since: Op(1) });
    link(&mut app, 0, Link::List(Listing::Following, Ok(following.into())));
    let people =
        ["alice", "bob", "carol", "dora"].map(|one| ListItem::Profile { name: name(one), since: Op(1) });
    link(&mut app, 0, Link::List(Listing::People, Ok(people.into())));
    let channels = [("deploys", 2), ("ops", 14), ("zoo", 1)].map(|(one, followers)| ListItem::Channel {
        name: one.parse().unwrap(),
        followers,
        last_op: Op(1),
        access: Access::Open,
    });
    link(&mut app, 0, Link::List(Listing::Channels, Ok(channels.into())));
    link(&mut app, 0, Link::Pulse(pulse(Some(RoleName::Primary))));
    app
}

/// A device key of this byte alone.
pub(crate) fn key(byte: u8) -> DeviceKey {
    format!("{byte:02x}").repeat(32).parse().unwrap()
}

pub(crate) fn opened(recovered: Vec<(RequestId, Request)>) -> Link {
    let (profile, cluster) = (name("alice"), ClusterId(7));
    let device = DeviceId { key: key(0xab), slot: 0 };
    let (files, saved) = ("/state/recado/7/alice/slot-0".into(), SavedState::default());
    Link::Opened(Box::new(Opened { profile, device, cluster, recovered, files, saved }))
}

pub(crate) fn let_in() -> Link {
    Link::Connection(ConnectionEvent::Connected {
        session: SessionId(Op(9)),
        view: View::new(4, NodeId(3)),
        addr: "127.0.0.1:10099".parse().unwrap(),
    })
}

/// Statuses of three servers; `third` is the role of the last one, or `None` if it does not answer.
pub(crate) fn pulse(third: Option<RoleName>) -> Vec<ServerStatus> {
    let backup = Some(RoleName::Backup);
    vec![status(1, backup, 12_345), status(2, backup, 12_344), status(3, third, 12_345)]
}

pub(crate) fn link(app: &mut App, second: u64, link: Link) -> Vec<Effect> {
    app.update(at(second), Event::Link(link))
}

/// Delivers a page of the past, as the answer to any request for one.
pub(crate) fn past(app: &mut App, place: Conversation, page: Vec<Notification>, more: bool) -> Vec<Effect> {
    let past = Past {
        notifications: page.into_iter().map(Arc::new).collect(),
        more,
        trimmed_upto: Op::ZERO,
        applied: Op(1),
    };
    link(app, 1, Link::Past(place, HistoryRange::Before(Op(u64::MAX)), Ok(past)))
}

/// Delivers a notification of the stream.
pub(crate) fn came(app: &mut App, second: u64, notification: Notification) -> Vec<Effect> {
    link(app, second, Link::Incoming(Incoming::Notification(Arc::new(notification))))
}

/// Presses a key, given by its name in the help, without a change of the time.
pub(crate) fn press(app: &mut App, key: &str) -> Vec<Effect> {
    let mut modifiers = KeyModifiers::NONE;
    let mut rest = key;
    for (prefix, modifier) in [("Ctrl+", KeyModifiers::CONTROL), ("Alt+", KeyModifiers::ALT)] {
        if let Some(stripped) = rest.strip_prefix(prefix) {
            modifiers |= modifier;
            rest = stripped;
        }
    }
    let code = match rest {
        "Enter" => KeyCode::Enter,
        "Esc" => KeyCode::Esc,
        "Tab" => KeyCode::Tab,
        "Up" => KeyCode::Up,
        "Down" => KeyCode::Down,
        "Right" => KeyCode::Right,
        "Backspace" => KeyCode::Backspace,
        "Home" => KeyCode::Home,
        "End" => KeyCode::End,
        "PgUp" => KeyCode::PageUp,
        "PgDn" => KeyCode::PageDown,
        "F1" => KeyCode::F(1),
        "F2" => KeyCode::F(2),
        one => KeyCode::Char(one.chars().next().unwrap().to_ascii_lowercase()),
    };
    let now = app.now;
    app.update(now, Event::Key(KeyEvent::new(code, modifiers)))
}

/// Types a text, key by key.
pub(crate) fn type_in(app: &mut App, text: &str) {
    for c in text.chars() {
        let now = app.now;
        app.update(now, Event::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE)));
    }
}

/// Types a text or a command, and Enter.
pub(crate) fn enter(app: &mut App, text: &str) -> Vec<Effect> {
    type_in(app, text);
    press(app, "Enter")
}

/// The screen as a terminal of this size shows it.
pub(crate) fn drawn(app: &mut App, width: u16, height: u16) -> TestBackend {
    app.update(app.now, Event::Resize(width, height));
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(app, frame)).unwrap();
    terminal.backend().clone()
}

/// The screen of [`drawn`] as text, without the blanks at the ends of lines.
pub(crate) fn text(app: &mut App, width: u16, height: u16) -> String {
    let drawn = drawn(app, width, height).to_string();
    let lines = drawn.lines().map(|line| line.trim_matches('"').trim_end());
    lines.collect::<Vec<_>>().join("\n")
}
