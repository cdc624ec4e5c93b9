//! Events that the screen's state handles, and effects that it requests. Both are closed enums, like the
//! packets of the protocol.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossterm::event::{KeyEvent, MouseEvent};
use recado_client::{
    ClientError, ClusterId, Code, ConnectionEvent, DeviceId, EnrolmentCode, HistoryRange, Incoming, ListItem,
    Listing, Name, Op, Past, ProfileInfo, Request, ServerStatus, Topic,
};

use super::conversation::Conversation;
use super::saved_state::{Removed, SavedState};
use super::theme::Theme;

/// Time of an event, by both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// Time since the program started. It never goes back.
    pub(crate) since_start: Duration,
    /// Wall-clock time, in ms since 1970.
    pub(crate) unix_ms: u64,
}

/// Id of a request on the screen, until its result arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RequestId {
    /// The request was made by this screen.
    Here(u64),
    /// The request was left by an earlier client, of this screen or of an earlier program.
    Recovered(u64),
}

/// An event for the screen's state.
#[derive(Debug)]
pub(crate) enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// The mouse did something.
    Mouse(MouseEvent),
    /// Text was pasted, in one piece.
    Paste(String),
    /// The terminal changed its size to this many columns and rows.
    Resize(u16, u16),
    /// The terminal window got or lost the focus.
    Focus(bool),
    /// Time has passed.
    Tick,
    /// The client reported something.
    Link(Link),
    /// The requested theme was read, or could not be, for this reason.
    Theme(String, Result<Box<Theme>, String>),
    /// The terminal or the system reported an error, in words.
    Trouble(String),
}

/// A report of the client.
#[derive(Debug)]
pub(crate) enum Link {
    /// No server answered, and no cluster is known from before. The client tries again.
    NoServer(String),
    /// A client was opened.
    Opened(Box<Opened>),
    /// The state of the connection changed.
    Connection(ConnectionEvent),
    /// The stream delivered its next item.
    Incoming(Incoming),
    /// A request has its result.
    Settled(RequestId, Result<Op, Code>),
    /// The first notification to this channel made it. The result of the request has been reported before.
    MadeChannel(Topic),
    /// Whether this client has claimed its name: nobody had it.
    Claimed(bool),
    /// The code for a new machine is valid, or there is none, for this reason.
    Enrolled(Result<EnrolmentCode, String>),
    /// A request was not accepted, for this reason. It has no effect.
    NotTaken(RequestId, String),
    /// A page of a place's past arrived, or could not be read, for this reason.
    Past(Conversation, HistoryRange, Result<Past, String>),
    /// A complete list arrived, or could not be read.
    List(Listing, Result<Vec<ListItem>, String>),
    /// The description of a profile arrived, or could not be read.
    Info(Result<ProfileInfo, String>),
    /// The servers answered STATUS. The list is empty if none answered.
    Pulse(Vec<ServerStatus>),
    /// The client reported an error, in words. It goes on.
    Trouble(String),
    /// Somebody has removed files of the device. The session goes on without them.
    Removed(Removed),
    /// No server of the cluster answers, and one of another cluster does, at its addresses. The reason why
    /// that one is not asked, in words.
    Other(String),
    /// The client ended. None is opened before [`Effect::Open`].
    Ended(Box<ClientError>),
}

/// The client that was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The profile that it acts as.
    pub(crate) profile: Name,
    /// The device that it acts with.
    pub(crate) device: DeviceId,
    /// The cluster that it talks to.
    pub(crate) cluster: ClusterId,
    /// Requests left by the device's last client, which this one settles. No other requests are unanswered.
    pub(crate) recovered: Vec<(RequestId, Request)>,
    /// Directory of its files.
    pub(crate) files: PathBuf,
    /// Saved state of this device's screen.
    pub(crate) saved: SavedState,
}

/// An effect that the screen's state requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Open a client as this profile, with the code of an invitation, if there is one.
    Open(Name, Option<EnrolmentCode>),
    /// Write the profile into the configuration.
    KeepProfile(Name),
    /// Make a numbered request.
    Request(RequestId, Request),
    /// Fetch a page of the past.
    History(Conversation, HistoryRange),
    /// Fetch a list.
    List(Listing),
    /// Ask about a profile.
    Info(Name),
    /// Draw a code with which a new machine joins the profile.
    Enrol,
    /// Query the servers often (true) because the user looks at their state, or seldom (false).
    Watch(bool),
    /// Save the state of the screen. Then take everything of the stream up to the op, if there is one.
    Keep(Arc<SavedState>, Option<Op>),
    /// Copy this text to the clipboard.
    Copy(String),
    /// Open this address in a browser.
    Browse(String),
    /// Read the theme of this name.
    Theme(String),
    /// Ring the terminal's bell.
    Bell,
    /// Show a desktop notification: title and text, in one line each.
    Desktop(String, String),
    /// Draw everything anew.
    Repaint,
    /// Stop the process, as Ctrl+Z does.
    Suspend,
    /// End the program.
    Quit,
}

/// A topic as users write it.
pub(crate) fn written(topic: &Topic) -> String {
    crate::print::written(topic)
}

/// The recipients of a notification to this topic, in words. `None` means the user's own followers.
pub(crate) fn reached(topic: Option<&Topic>) -> String {
    match topic {
        None | Some(Topic::Feed(_)) => "your followers".to_owned(),
        Some(Topic::Inbox(name)) => format!("@{name}'s inbox"),
        Some(topic @ Topic::Channel(_)) => written(topic),
    }
}

/// The recipients of any notification of this topic.
pub(crate) fn reached_by(topic: &Topic) -> String {
    match topic {
        Topic::Feed(name) => format!("the followers of @{name}"),
        Topic::Inbox(name) => format!("@{name}'s inbox"),
        Topic::Channel(_) => written(topic),
    }
}

/// Name of a view's primary, or its address if the view has no primary.
pub(crate) fn server(view: recado_client::View, addr: SocketAddr) -> String {
    view.primary().map_or_else(|| addr.to_string(), |node| node.to_string())
}
