//! The service: profiles, topics, follows, devices, sessions, results, notifications.
//!
//! A deterministic state machine with one [`Service::apply`] (DESIGN.md sections 1 and 3).
//!
//! Reading order: `state` (what is replicated), `apply` (what requests do), `channels` (who may do
//! what), `keys` (whose a profile is), `claims` (who may claim a name), `administer` (what administrators do),
//! `expiry` and `removal` (how a name is free again), `sessions` (who is let in), `stream` (what is pending for a session, and gaps), `queries`, `retention`,
//! `room` (how much all may be), and `index` (what is derived from the state to find things quickly).
//!
//! Invariants: no clock (the log carries the time), no randomness, no hash-map order. What
//! apply does depends on the state, the command and [`Limits`] alone, so the limits are the same on
//! all servers. Nothing pending is stored: a notification is stored once, in its topic.

mod administer;
mod apply;
mod channels;
mod claims;
mod expiry;
mod index;
mod keys;
mod queries;
mod removal;
mod retention;
mod room;
mod sessions;
mod state;
mod stream;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::sync::Arc;

use self::index::Index;
use self::state::Outcome;
pub use self::state::{EARLIEST_DATE_MS, State};
use crate::config::{Limits, Planted, PlantedBug};
use crate::id::{DeviceId, Name, Op, Seq, SessionId};
use crate::wire::packet::{AdminChange, Code, Notification, QueryId};

/// The state machine.
#[derive(Debug)]
pub struct Service {
    state: State,
    limits: Limits,
    planted: PlantedBug,
    index: Index,
    /// How many questions this replica was asked: what an apply that is not deterministic would
    /// depend on. Read only with that mistake planted.
    asked: Cell<u64>,
}

/// What applying one command brought about, for the outside. Replicated state never depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A session was opened (or the same CONNECT had opened it before). Unless it was confirmed
    /// before, it is pending.
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
    /// A pending session is live from here on.
    SessionConfirmed {
        /// Which one.
        session: SessionId,
    },
    /// A session is over: closed, fenced or replaced by a newer one, never confirmed, or its device
    /// forgotten.
    SessionClosed {
        /// Which one.
        session: SessionId,
        /// Fenced, if a newer one of its device took over; else SessionOver.
        why: Code,
    },
    /// What an administrator asked was done, or was not to be.
    Administered {
        /// Which question it was.
        query: QueryId,
        /// What was asked.
        change: AdminChange,
        /// The op, or the refusal.
        result: Result<Op, Code>,
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
    /// What some profile may read has become less: what is under way to these live receiving sessions,
    /// ascending, may hold some of it.
    Withdrawn {
        /// Which sessions.
        sessions: Vec<SessionId>,
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
    /// The number was applied for another request: this one never had an effect.
    Taken,
    /// Applied, and some client of the device has said since that it knows the result.
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
    /// The op that let its device in.
    pub born: Op,
    /// The last number applied of its device.
    pub last_seq: Seq,
    /// The device's cursor as replicated.
    pub cursor: Op,
}

/// A page of what is pending for a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What retention dropped before it was read lies in `after < op <= gap`. Told before the
    /// notifications; what a later stretch lost is told by a later page.
    pub gap: Option<Op>,
    /// Ascending by op; all above `after` (and above the gap).
    pub notifications: Vec<Arc<Notification>>,
    /// Whether more is pending now.
    pub more: bool,
}

impl Service {
    /// A service with this state (an empty one to begin with). The limits decide what apply
    /// refuses, so they are the same on every server.
    pub fn new(mut state: State, limits: Limits, planted: PlantedBug) -> Service {
        if planted.is(Planted::DigestsNotInSnapshot) {
            state.drop_digests();
        }
        let index = Index::of(&state);
        Service { state, limits, planted, index, asked: Cell::new(0) }
    }

    /// The state now: cheap, immutable, for a snapshot.
    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// The last op applied, ViewStart entries included.
    pub fn applied(&self) -> Op {
        self.state.applied
    }

    /// The last time in the log, in ms since 1970.
    pub fn clock_ms(&self) -> u64 {
        self.state.clock_ms
    }

    /// All sessions, live and pending, ascending: which, whose, and of which CONNECT.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, DeviceId, u64)> + '_ {
        self.state.sessions.iter().map(|(session, open)| (*session, open.device, open.nonce))
    }

    /// Whether a session is live or pending.
    pub fn has_session(&self, session: SessionId) -> bool {
        self.state.sessions.contains_key(&session)
    }

    /// Whether a session waits to be confirmed.
    pub fn is_pending(&self, session: SessionId) -> bool {
        let open = self.state.sessions.get(&session);
        let device = open.and_then(|open| self.state.devices.get(&open.device));
        device.is_some_and(|device| device.pending == Some(session))
    }

    /// The profile of a session, live or pending.
    pub fn owner(&self, session: SessionId) -> Option<&Name> {
        let open = self.state.sessions.get(&session)?;
        Some(&self.state.devices.get(&open.device)?.profile)
    }

    /// A live session; a pending one is none.
    pub fn session(&self, session: SessionId) -> Option<SessionView> {
        let (open, device) = self.state.live(session)?;
        Some(SessionView {
            device: open.device,
            profile: device.profile.clone(),
            receives: open.receives,
            born: device.born,
            last_seq: device.last_seq,
            cursor: device.cursor,
        })
    }

    /// Where the request `seq` of `session` with this digest stands. A session that is not live is SessionOver
    /// whatever ended it; that its device was forgotten is what its next CONNECT is told.
    pub fn standing(&self, session: SessionId, seq: Seq, digest: u64) -> Standing {
        self.asked.set(self.asked.get().wrapping_add(1));
        let Some((_, device)) = self.state.live(session) else {
            return Standing::Refused(Code::SessionOver);
        };
        if seq > device.last_seq {
            return Standing::Ahead(seq.0 - device.last_seq.0);
        }
        let of_number = device.outcome(seq);
        let is_same =
            |outcome: &&Outcome| outcome.digest == digest || self.planted.is(Planted::DigestUnchecked);
        // A copy of the device's files may not know that the request has another number by now.
        let of_request = || device.results.iter().find(|outcome| outcome.digest == digest);
        match (of_number.filter(is_same).or_else(of_request), of_number) {
            (Some(outcome), _) => Standing::Answered(outcome.result),
            (None, Some(_)) => Standing::Taken,
            (None, None) => Standing::Forgotten,
        }
    }
}
