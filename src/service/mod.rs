//! The service: profiles, topics, follows, devices, sessions, results, notifications.
//!
//! A deterministic state machine with one [`Service::apply`]. Pure: no clock (the log carries the
//! primary's), no randomness, no hash-map order.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{Limits, Retention};
use crate::id::{DeviceId, Name, Op, Seq, SessionId};
use crate::wire::command::{Command, Stamped};
use crate::wire::packet::{Code, History, HistoryOk, Info, List, ListOk, Notification, RequestUserInfo};

/// Everything that is replicated. Persistent maps: a clone costs nothing, so a snapshot is written
/// from one by another thread while the replica thread goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {}

/// The state machine.
#[derive(Debug)]
pub struct Service {}

/// What applying one command brought about, for the outside. Replicated state never depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A session was opened (or the same CONNECT had opened it before).
    SessionOpened {
        /// Its id.
        session: SessionId,
        /// Whose.
        device: DeviceId,
        /// Of which CONNECT.
        nonce: u64,
    },
    /// A session was not opened.
    SessionRefused {
        /// Whose.
        device: DeviceId,
        /// Of which CONNECT.
        nonce: u64,
        /// Why.
        code: Code,
    },
    /// A session is over: closed, fenced by a newer one, or its device forgotten.
    SessionClosed {
        /// Which one.
        session: SessionId,
    },
    /// A numbered request has its result.
    Answered {
        /// By which session it was asked.
        session: SessionId,
        /// Its number.
        seq: Seq,
        /// The op, or the refusal.
        result: Result<Op, Code>,
    },
    /// A notification was stored.
    Notified {
        /// It.
        notification: Arc<Notification>,
        /// The live receiving sessions it is addressed to, ascending.
        sessions: Vec<SessionId>,
    },
}

/// Where a numbered request stands against the committed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Applied, with this result.
    Answered(Result<Op, Code>),
    /// Applied so long ago that the client has said it knows the result.
    Forgotten,
    /// Not applied; it is so many ahead of the last applied one (1: the next).
    Ahead(u64),
    /// The session is over or unknown, and why.
    Refused(Code),
}

/// A live session, as the primary needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its device.
    pub device: DeviceId,
    /// Its profile.
    pub profile: Name,
    /// Whether it receives.
    pub receives: bool,
    /// The last number applied of its device.
    pub last_seq: Seq,
    /// The device's cursor as replicated.
    pub cursor: Op,
}

/// A page of what is pending for a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What was dropped by retention before it was read: everything in `after < op <= gap`.
    pub gap: Option<Op>,
    /// Ascending by op; all above `after` (and above the gap).
    pub notifications: Vec<Arc<Notification>>,
    /// Whether more is pending now.
    pub more: bool,
}

impl Service {
    /// A service with this state (an empty one to begin with).
    pub fn new(_state: State, _limits: Limits, _planted: crate::config::PlantedBug) -> Service {
        todo!()
    }

    /// The state now: cheap, immutable, for a snapshot.
    pub fn state(&self) -> State {
        todo!()
    }

    /// The last op applied, ViewStart entries included.
    pub fn applied(&self) -> Op {
        todo!()
    }

    /// Applies the entry at `op`; none for a ViewStart. Ops come without a hole.
    pub fn apply(&mut self, _op: Op, _stamped: Option<&Stamped>, _out: &mut Vec<Applied>) {
        todo!()
    }

    /// A live session.
    pub fn session(&self, _session: SessionId) -> Option<SessionView> {
        todo!()
    }

    /// Where the request `seq` of `session` stands.
    pub fn standing(&self, _session: SessionId, _seq: Seq) -> Standing {
        todo!()
    }

    /// What is pending for `session` beyond `after`: at most `count` notifications and about
    /// `bytes` bytes, at least one if there is any.
    pub fn page(&self, _session: SessionId, _after: Op, _count: usize, _bytes: usize) -> Page {
        todo!()
    }

    /// HISTORY, asked by `asker`.
    ///
    /// # Errors
    /// A typed refusal.
    pub fn history(&self, _asker: &Name, _query: &History) -> Result<HistoryOk, Code> {
        todo!()
    }

    /// LIST, asked by `asker`.
    ///
    /// # Errors
    /// A typed refusal.
    pub fn list(&self, _asker: &Name, _query: &List) -> Result<ListOk, Code> {
        todo!()
    }

    /// REQUEST_USER_INFO, asked by `asker`.
    ///
    /// # Errors
    /// A typed refusal.
    pub fn info(&self, _asker: &Name, _query: &RequestUserInfo) -> Result<Info, Code> {
        todo!()
    }

    /// Housekeeping the primary should log now: trims by retention, closes of sessions idle since
    /// before `idle_before_ms`, devices to forget. At most `most` commands.
    pub fn housekeeping(&self, _unix_ms: u64, _retention: &Retention, _most: usize) -> Vec<Command> {
        todo!()
    }
}
