//! The client machine: finds the primary, keeps a session through failovers, numbers requests and
//! re-sends them until they are answered, and hands out notifications once and in order.
//!
//! Pure: `handle(now, input, &mut effects)` and `next_deadline()`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::id::Topic;
use crate::id::{ClusterId, DeviceId, Moment, Name, Op, Seq, SessionId, View};
use crate::wire::packet::{
    Code, Content, FollowChange, HistoryOk, HistoryRange, Info, ListOk, Listing, Notification, QueryId,
    StatusOk,
};

/// What a client machine is told at its birth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Addresses of servers; any one is enough.
    pub servers: Vec<SocketAddr>,
    /// The cluster, if known.
    pub cluster: Option<ClusterId>,
    /// The device.
    pub device: DeviceId,
    /// Never let in before, as far as is known.
    pub fresh: bool,
    /// The profile.
    pub profile: Name,
    /// Whether it receives.
    pub receives: bool,
    /// Where the application stands, if it knows.
    pub cursor: Option<Op>,
    /// Requests taken over from an earlier life of this device, with their numbers.
    pub outbox: Vec<(Seq, Ask)>,
    /// Seed for nonces and jitter.
    pub seed: u64,
}

/// A numbered request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Start or stop following.
    Follow {
        /// What.
        topic: Topic,
        /// Which of the two.
        change: FollowChange,
    },
    /// Notify a topic's followers; none: one's own.
    Send {
        /// Where to.
        topic: Option<Topic>,
        /// What.
        content: Content,
    },
}

/// A question; it takes no number and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A page of notifications.
    History {
        /// Of which topic; none: all one follows.
        topic: Option<Topic>,
        /// Where.
        range: HistoryRange,
        /// How many.
        limit: u32,
    },
    /// A page of a list.
    List {
        /// Which.
        what: Listing,
        /// After which item.
        after: Option<String>,
    },
    /// About a profile; none: oneself.
    Info {
        /// Whom.
        profile: Option<Name>,
    },
    /// How the server at this address is. Needs no session.
    Status {
        /// Which server.
        server: SocketAddr,
    },
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To History.
    History(HistoryOk),
    /// To List.
    List(ListOk),
    /// To Info.
    Info(Info),
    /// To Status.
    Status(StatusOk),
    /// Refused.
    Refused(Code),
}

/// What happens to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A datagram came.
    Datagram {
        /// From where.
        from: SocketAddr,
        /// Its bytes, not to be trusted.
        bytes: Vec<u8>,
    },
    /// The port of a server refused what was sent: its process is gone.
    PortRefused(SocketAddr),
    /// The application asks; the number is given by [`Event::Numbered`] at once.
    Ask(Ask),
    /// The application asks a question, under an id of its choice.
    Question(QueryId, Question),
    /// The application has taken everything up to here (at-least-once); moves the cursor.
    Taken(Op),
    /// End the session.
    Disconnect,
    /// A deadline may have passed.
    Deadline,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send these bytes to a server.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Tell the application.
    Event(Event),
}

/// What the application is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session is open, for the first time or again after UnknownDevice never.
    Connected {
        /// Its id.
        session: SessionId,
        /// Which view serves it.
        view: View,
        /// The primary's address.
        primary: SocketAddr,
        /// The cluster.
        cluster: ClusterId,
        /// The last number the service has applied of this device.
        last_seq: Seq,
        /// Where the stream goes on.
        cursor: Op,
    },
    /// Another server serves the session now.
    PrimaryChanged {
        /// In which view.
        view: View,
        /// Where.
        primary: SocketAddr,
        /// From the last word of the old to the first of the new.
        pause: Duration,
    },
    /// Nothing has been heard of the primary for a while; it is being looked for.
    Searching,
    /// The session ended, or was never let in, for good.
    Ended(Code),
    /// The session ended because the application asked.
    Disconnected,
    /// The last [`Input::Ask`] has this number.
    Numbered(Seq),
    /// No room for another request: this one was not taken (256 are outstanding).
    NotTaken,
    /// A numbered request has its result.
    Answered {
        /// Which.
        seq: Seq,
        /// The op, or the refusal.
        result: Result<Op, Code>,
    },
    /// The answer to a question.
    Answer(QueryId, Answer),
    /// The next notification of the stream.
    Notification(Arc<Notification>),
    /// Notifications up to here were dropped by retention before they were read.
    Gap {
        /// The cursor before.
        after: Op,
        /// The cursor now.
        upto: Op,
    },
}

/// The machine.
#[derive(Debug)]
pub struct Machine {}

impl Machine {
    /// Starts to look for the primary.
    pub fn new(_now: Moment, _start: Start, _out: &mut Vec<Effect>) -> Machine {
        todo!()
    }

    /// Takes one input at `now`, pushing what is to be done.
    pub fn handle(&mut self, _now: Moment, _input: Input, _out: &mut Vec<Effect>) {
        todo!()
    }

    /// When a [`Input::Deadline`] is wanted at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        todo!()
    }
}
