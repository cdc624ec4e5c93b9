//! Queries that wait: until this server has applied what their tokens ask for, or until a majority has
//! confirmed that it leads. They wait for a bounded time, and their number is bounded.

use std::collections::VecDeque;
use std::time::Duration;

use recado_proto::id::{DeviceKey, Moment, Op, SessionId};
use recado_proto::packet::{Query, QueryId};

use crate::delivery::ReplyTo;

/// The longest wait for entries that are on their way. After that another server is likely to answer sooner.
pub(super) const BEHIND_MAX: Duration = Duration::from_millis(50);

/// The most queries that wait at a time. One more is refused as if it had waited in vain: its client asks
/// another server.
const WAITING_MAX: usize = 1_024;

/// Who asks, and the way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// The client of a session.
    Session(SessionId),
    /// The holder of a key, without a session.
    Key {
        /// The key, which the handshake has proved.
        key: DeviceKey,
        /// The sender of the INITIATION.
        reply_to: ReplyTo,
    },
}

/// What a query waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// This op is applied here.
    pub(super) applied: Op,
    /// This server is known to have led at this time.
    pub(super) led: Option<Moment>,
}

impl Needs {
    /// Returns true if they are met by a server that has applied this op, and is known to have led at that
    /// time.
    pub(super) fn are_met(self, applied: Op, led: Option<Moment>) -> bool {
        self.applied <= applied && self.led.is_none_or(|at| led.is_some_and(|led| at <= led))
    }
}

/// A query that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WaitingQuery {
    pub(super) needs: Needs,
    /// When it is refused.
    pub(super) until: Moment,
    pub(super) asker: Asker,
    pub(super) query: Query,
}

/// The queries that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// In the order in which they were asked; at most [`WAITING_MAX`].
    queries: VecDeque<WaitingQuery>,
}

impl Waiting {
    /// Takes a query, or gives it back if there is no room.
    pub(super) fn push(&mut self, waits: WaitingQuery) -> Option<WaitingQuery> {
        if self.queries.len() >= WAITING_MAX {
            return Some(waits);
        }
        self.queries.push_back(waits);
        None
    }

    /// Returns true if this query of a session waits.
    pub(super) fn contains(&self, session: SessionId, id: QueryId) -> bool {
        let asked = Asker::Session(session);
        self.queries.iter().any(|waits| waits.query.id == id && waits.asker == asked)
    }

    /// Removes and returns the queries whose needs are met, or whose time is over.
    pub(super) fn take(&mut self, now: Moment, applied: Op, led: Option<Moment>) -> Vec<WaitingQuery> {
        let is_over = |waits: &WaitingQuery| waits.until <= now || waits.needs.are_met(applied, led);
        if !self.queries.iter().any(is_over) {
            return Vec::new();
        }
        let (over, left) = std::mem::take(&mut self.queries).into_iter().partition(is_over);
        self.queries = left;
        Vec::from(over)
    }

    /// Returns true if one waits for the confirmation that this server led at `now`.
    pub(super) fn wants_lead(&self, led: Option<Moment>) -> bool {
        self.queries.iter().any(|waits| waits.needs.led.is_some_and(|at| led.is_none_or(|led| led < at)))
    }

    /// When the first one is refused.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.queries.iter().map(|waits| waits.until).min()
    }
}
