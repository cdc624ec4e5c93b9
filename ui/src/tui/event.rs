//! What reaches the screen's state, and what it wants done: closed lists, like the protocol's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crossterm::event::{KeyEvent, MouseEvent};
use recado::client::{
    Ask, ClientError, ClusterId, Code, ConnectionEvent, EnrolmentCode, HistoryRange, Incoming, Info,
    ListItem, Listing, Name, Op, Past, ServerStatus, Topic,
};

use super::kept::Kept;
use super::place::Place;
use super::theme::Theme;

/// When something happened, by both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// Since the program started; never goes back.
    pub(crate) since_start: Duration,
    /// In ms since 1970, as people tell time.
    pub(crate) unix_ms: u64,
}

/// Which request, until the service has numbered and answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AskId {
    /// Made by this screen.
    Here(u64),
    /// Left by a client before this one, of this screen or an earlier one.
    Carried(u64),
}

/// What happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// The mouse did something.
    Mouse(MouseEvent),
    /// Text was pasted, in one piece.
    Paste(String),
    /// The terminal has this many columns and rows now.
    Resize(u16, u16),
    /// The terminal window got or lost the focus.
    Focus(bool),
    /// Time has passed.
    Tick,
    /// Something came from the client.
    Link(Link),
    /// The theme that was asked for, or why there is none.
    Theme(String, Result<Box<Theme>, String>),
    /// Something the terminal or the system could not do, worded.
    Trouble(String),
}

/// What comes from the client.
#[derive(Debug)]
pub(crate) enum Link {
    /// No server answered, and none is known from before; it is tried again.
    NoServer(String),
    /// There is a client: whose, and what its last life left.
    Opened(Box<Opened>),
    /// What happened to the connection.
    Connection(ConnectionEvent),
    /// The next of the stream.
    Incoming(Incoming),
    /// How a request ended.
    Settled(AskId, Result<Op, Code>),
    /// A request was not taken, worded; it has no effect.
    NotTaken(AskId, String),
    /// A page of a place's past, or why there is none.
    Past(Place, HistoryRange, Result<Past, String>),
    /// A whole list.
    List(Listing, Result<Vec<ListItem>, String>),
    /// About a profile.
    Info(Name, Result<Info, String>),
    /// How the servers are; nobody answered: empty.
    Pulse(Vec<ServerStatus>),
    /// Something the client could not do, worded; it goes on.
    Trouble(String),
    /// There is no client any more, and there will be none before it is asked for.
    Ended(Box<ClientError>),
}

/// Whose client was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// As whom.
    pub(crate) profile: Name,
    /// Which cluster.
    pub(crate) cluster: ClusterId,
    /// Requests that the device's last client left, and this one settles: none else is on its way.
    pub(crate) carried: Vec<(AskId, Ask)>,
    /// What this device's screen remembers.
    pub(crate) kept: Kept,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Open a client as this profile, with the code of an invitation, if there is one.
    Open(Name, Option<EnrolmentCode>),
    /// Write the profile into the configuration.
    KeepProfile(Name),
    /// Make a numbered request.
    Ask(AskId, Ask),
    /// Fetch a page of the past.
    History(Place, HistoryRange),
    /// Fetch a list.
    List(Listing),
    /// Ask about a profile.
    Info(Name),
    /// Somebody looks at the servers now, or no longer.
    Watch(bool),
    /// Write down what the screen remembers; then everything up to the op, if there is one, is read.
    Keep(Arc<Kept>, Option<Op>),
    /// Put this on the clipboard.
    Copy(String),
    /// Open this address in a browser.
    Browse(String),
    /// Read the theme of this name.
    Theme(String),
    /// Ring.
    Bell,
    /// Show a desktop notification: title and text, in one line each.
    Desktop(String, String),
    /// Draw everything anew.
    Repaint,
    /// Stop the process, as Ctrl+Z does.
    Suspend,
    /// End.
    Quit,
}

/// A topic as somebody types it.
pub(crate) fn written(topic: &Topic) -> String {
    crate::print::written(topic)
}

/// Whom what is sent there reaches, in words; none: one's own followers.
pub(crate) fn reached(topic: Option<&Topic>) -> String {
    match topic {
        None | Some(Topic::Feed(_)) => "your followers".to_owned(),
        Some(Topic::Inbox(name)) => format!("@{name}'s inbox"),
        Some(topic @ Topic::Channel(_)) => written(topic),
    }
}

/// The primary of a view by its name, or else by its address.
pub(crate) fn server(view: recado::client::View, addr: SocketAddr) -> String {
    view.primary().map_or_else(|| addr.to_string(), |node| node.to_string())
}
