//! The service: profiles, topics, follows, devices, sessions, results, notifications.
//!
//! A deterministic state machine with one [`Service::apply`] (DESIGN.md sections 1 and 3).
//!
//! It may not know that it is replicated (no view, no server, no vote), where a client is, or what time it is
//! except for the log's. It is pure, and depends on `recado-proto` alone.
//!
//! Reading order: `state` (the replicated records), `apply` (entries of the log), `channels` (rights in
//! topics), `keys` (the keys of a profile), `claims` (the claiming of names), `administer` (changes by
//! administrators), `expiry` and `removal` (the release of names), `sessions` (devices and their sessions),
//! `stored` (a notification as it is held), `stream` (pending notifications and gaps of a session),
//! `queries`, [`limits`], `store` (values by key), `retention`, `retraction`, `capacity` (the size of the
//! whole state), and `index` (lookup tables derived from the state).
//!
//! Invariants: apply reads no clock (the log carries the time), no randomness and no hash-map order. Its
//! result depends only on the state, the command and [`Limits`], so those that it reads are the same on all
//! servers.
//! Pending notifications are derived, not stored: a notification is stored once, in its topic.

#![forbid(unsafe_code)]

mod administer;
mod apply;
mod capacity;
mod channels;
mod claims;
mod expiry;
mod index;
mod keys;
pub mod limits;
mod queries;
mod removal;
mod retention;
mod retraction;
mod sessions;
mod state;
mod store;
mod stored;
mod stream;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use recado_proto::id::{DeviceId, Name, Op, Seq, SessionId, Topic};
use recado_proto::packet::{AdminChange, Code, QueryId};
use recado_proto::planted::{Planted, PlantedBug};
use recado_proto::seal::Aead;

use self::index::Index;
pub use self::queries::SelectedPage;
pub use self::retention::TRIM_MOST;
use self::state::Outcome;
pub use self::state::{EARLIEST_DATE_MS, State};
pub use self::stored::Stored;
use crate::limits::Limits;

/// The state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    state: State,
    limits: Limits,
    planted: PlantedBug,
    index: Index,
    /// The sessions that notifications of each topic are for, as far as they were asked for since the last
    /// command that may have changed them: of each topic that was sent to, 8 bytes for each session that
    /// follows it.
    audiences: RefCell<BTreeMap<Topic, Arc<[SessionId]>>>,
    /// The number of calls of [`Service::standing`] and [`Service::page`] on this replica. Apply reads it
    /// only with `Planted::ApplyNotDeterministic`, as an example of something that differs between servers.
    reads: Cell<u64>,
}

/// An effect of one command that others must hear of. Replicated state never depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A session was opened, or the same CONNECT had opened it before. It is pending unless it was confirmed
    /// before.
    SessionOpened {
        /// The session's id.
        session: SessionId,
        /// The device of the session.
        device: DeviceId,
        /// The nonce of the CONNECT.
        nonce: u64,
        /// The AEAD of the session.
        aead: Aead,
    },
    /// A session was not opened.
    SessionRefused {
        /// The device that asked.
        device: DeviceId,
        /// The nonce of the CONNECT.
        nonce: u64,
        /// The reason.
        code: Code,
    },
    /// A pending session became live.
    SessionConfirmed {
        /// The session.
        session: SessionId,
    },
    /// A session ended: it was closed, fenced or replaced by a newer one, it was never confirmed, or its
    /// device was forgotten.
    SessionClosed {
        /// The session.
        session: SessionId,
        /// Fenced if a newer session of the same device took over, else SessionOver.
        why: Code,
    },
    /// A change that an administrator asked for was made or refused.
    Administered {
        /// The id of the ADMIN.
        query: QueryId,
        /// The change asked for.
        change: AdminChange,
        /// The op, or the reason of the refusal.
        result: Result<Op, Code>,
    },
    /// A numbered request has its result.
    Answered {
        /// The session that sent it.
        session: SessionId,
        /// The request's number.
        seq: Seq,
        /// The op, or the reason of the refusal.
        result: Result<Op, Code>,
        /// See [`Service::tells`].
        tells: Tells,
    },
    /// Some profiles may read less than before, or follow less. Packets queued or in flight to these sessions
    /// may hold notifications that are no longer for them.
    Withdrawn {
        /// The live receiving sessions concerned, ascending.
        sessions: Vec<SessionId>,
    },
    /// All that a topic held was removed. Answers to queries may hold it.
    Emptied {
        /// The topic.
        topic: Topic,
    },
    /// The text of a notification was taken away. Packets queued or in flight, and answers to queries, may
    /// hold it.
    Retracted {
        /// Its topic.
        topic: Topic,
        /// Its op.
        op: Op,
    },
    /// A notification was stored.
    Notified {
        /// Its topic; [`Service::addressed`] has the sessions that it is for.
        topic: Topic,
        /// The notification.
        notification: Stored,
    },
}

/// What the answer to a numbered request tells beyond its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// Nothing.
    Nothing,
    /// The notification made the channel that it went to; see [`Service::made_channel`].
    MadeChannel,
    /// A condition did not hold: the timestamp of the value that the key has now, if it has one.
    Timestamp(Option<Op>),
}

/// The standing of a numbered request against the committed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Applied, with this result.
    Answered(Result<Op, Code>),
    /// The number was applied for another request; this request never had an effect.
    Taken,
    /// Applied, but the result is not held: a client of the device has acknowledged it since.
    Forgotten,
    /// Not applied. Its number is this far ahead of the last one applied (1: it is the next).
    Ahead(u64),
    /// The session is not live; the code is SessionOver.
    Refused(Code),
}

/// A live session, as the primary needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its device.
    pub device: DeviceId,
    /// Its profile.
    pub profile: Name,
    /// True if it receives notifications.
    pub receives: bool,
    /// The op that admitted its device.
    pub created_op: Op,
    /// The last request number applied for its device.
    pub last_seq: Seq,
    /// The device's cursor as replicated.
    pub cursor: Op,
}

/// A page of the notifications that are pending for a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The end of a gap: retention dropped unread notifications in `after < op <= gap`. The gap precedes the
    /// notifications of this page; a later gap is in a later page.
    pub gap: Option<Op>,
    /// The notifications, ascending by op, all above `after` and above the gap.
    pub notifications: Vec<Stored>,
    /// True if more is pending.
    pub more: bool,
}

impl Service {
    /// Creates a service with this state, which is empty for a new cluster. The limits decide what apply
    /// refuses, so they are the same on every server.
    pub fn new(mut state: State, limits: Limits, planted: PlantedBug) -> Service {
        if planted.is(Planted::DigestsNotInSnapshot) {
            state.drop_digests();
        }
        let index = Index::of(&state);
        Service { state, limits, planted, index, audiences: RefCell::default(), reads: Cell::new(0) }
    }

    /// A copy of the state, for a snapshot. It is cheap (persistent maps) and does not change later.
    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// The last op applied, ViewStart entries included.
    pub fn applied(&self) -> Op {
        self.state.applied
    }

    /// The highest stamp in the log so far, in ms since 1970.
    pub fn clock_ms(&self) -> u64 {
        self.state.clock_ms
    }

    /// All sessions, live and pending, ascending by id, each with its device, the nonce of its CONNECT and
    /// its AEAD.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, DeviceId, u64, Aead)> + '_ {
        self.state.sessions.iter().map(|(session, open)| (*session, open.device, open.nonce, open.aead))
    }

    /// Those of [`Service::sessions`] with a higher id.
    pub fn sessions_after(
        &self,
        after: SessionId,
    ) -> impl Iterator<Item = (SessionId, DeviceId, u64, Aead)> + '_ {
        let sessions = self.state.sessions.range((Bound::Excluded(after), Bound::Unbounded));
        sessions.map(|(session, open)| (*session, open.device, open.nonce, open.aead))
    }

    /// The number of sessions, live and pending.
    pub fn session_count(&self) -> usize {
        self.state.sessions.len()
    }

    /// Returns true if the session is live or pending.
    pub fn has_session(&self, session: SessionId) -> bool {
        self.state.sessions.contains_key(&session)
    }

    /// Returns true if the session is pending: opened, and not yet confirmed.
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

    /// A live session; none if it is pending.
    pub fn session(&self, session: SessionId) -> Option<SessionView> {
        let (open, device) = self.state.live(session)?;
        Some(SessionView {
            device: open.device,
            profile: device.profile.clone(),
            receives: open.receives,
            created_op: device.created_op,
            last_seq: device.last_seq,
            cursor: device.cursor,
        })
    }

    /// The standing of the request `seq` of `session` with this digest. A session that is not live is
    /// SessionOver, whatever ended it; a device that was forgotten learns of it from the answer to its next
    /// CONNECT.
    pub fn standing(&self, session: SessionId, seq: Seq, digest: u64) -> Standing {
        self.reads.set(self.reads.get().wrapping_add(1));
        let Some((_, device)) = self.state.live(session) else {
            return Standing::Refused(Code::SessionOver);
        };
        if seq > device.last_seq {
            return Standing::Ahead(seq.0 - device.last_seq.0);
        }
        let of_number = device.outcome(seq);
        let is_same =
            |outcome: &&Outcome| outcome.digest == digest || self.planted.is(Planted::DigestUnchecked);
        // A client with a copy of the device's files may send the request under an older number than the one
        // it was applied under.
        let of_request = || device.results.iter().find(|outcome| outcome.digest == digest);
        match (of_number.filter(is_same).or_else(of_request), of_number) {
            (Some(outcome), _) => Standing::Answered(outcome.result),
            (None, Some(_)) => Standing::Taken,
            (None, None) => Standing::Forgotten,
        }
    }
}
