//! What the primary logs of its own accord, and when: batches of cursors, which also say that a session is
//! alive, and rounds of what the service finds due.
//!
//! Nothing here knows if this server may log: the caller says so, and proposes the commands.

use std::collections::BTreeMap;
use std::time::Duration;

use recado_log::ordered::Ticket;
use recado_proto::command::Command;
use recado_proto::id::{Moment, Op, SessionId, millis};
use recado_service::Service;

use crate::config::Retention;

/// Interval between batches of cursors in the log; one batch covers all devices (DESIGN.md section 3).
const CURSORS_EVERY: Duration = Duration::from_secs(1);

/// Maximum number of cursors in one batch; the rest waits for the next.
const CURSORS_MAX: usize = 1_000;

/// Interval at which the primary looks for notifications to trim and idle sessions to close.
const ROUND_EVERY: Duration = Duration::from_secs(1);

/// Maximum number of commands logged by one round of housekeeping.
const ROUND_MAX: usize = 64;

/// What waits for the next batch or round, and when they are due.
#[derive(Debug)]
pub(super) struct Housekeeping {
    /// Cursors that moved since the last batch.
    cursors: BTreeMap<SessionId, Op>,
    /// Log time in ms at which each session was last logged as alive. This keeps a session that reads
    /// nothing from counting as idle.
    alive: BTreeMap<SessionId, u64>,
    cursors_at: Moment,
    round_at: Moment,
    /// The last command of the round in progress; the next round waits until it is applied or void.
    housekept: Option<Ticket>,
}

impl Housekeeping {
    pub(super) fn new(now: Moment) -> Housekeeping {
        Housekeeping {
            cursors: BTreeMap::new(),
            alive: BTreeMap::new(),
            cursors_at: now + CURSORS_EVERY,
            round_at: now + ROUND_EVERY,
            housekept: None,
        }
    }

    /// Records that a session has delivered everything up to this op.
    pub(super) fn on_cursor(&mut self, session: SessionId, upto: Op) {
        let cursor = self.cursors.entry(session).or_default();
        *cursor = upto.max(*cursor);
    }

    /// Logs once in a long while that a session is alive although it may have nothing to read, so that it
    /// does not count as idle. An entry in the next batch of cursors does that. `log_ms` is the log's time,
    /// because idle sessions are closed by it, and `idle` the time after which they are.
    pub(super) fn on_alive(&mut self, session: SessionId, log_ms: u64, idle: Duration) {
        let every_ms = millis(idle) / 4;
        let noted = self.alive.get(&session);
        if noted.is_none_or(|noted| log_ms.saturating_sub(*noted) >= every_ms) {
            self.alive.insert(session, log_ms);
            self.cursors.entry(session).or_default();
        }
    }

    /// Drops the cursor of a session whose last cursor is logged by itself.
    pub(super) fn drop_cursor(&mut self, session: SessionId) {
        self.cursors.remove(&session);
    }

    /// Forgets a session that has ended.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.cursors.remove(&session);
        self.alive.remove(&session);
    }

    /// Forgets everything but the times, because this server has lost its role.
    pub(super) fn discard(&mut self) {
        self.cursors.clear();
        self.alive.clear();
        self.housekept = None;
    }

    /// Removes and returns the batch of cursors that is due, if there is one and this server `accepts`
    /// commands. The next one is due an interval later in any case.
    pub(super) fn take_batch(&mut self, now: Moment, accepts: bool) -> Option<Command> {
        if now < self.cursors_at {
            return None;
        }
        self.cursors_at = now + CURSORS_EVERY;
        if !accepts || self.cursors.is_empty() {
            return None;
        }
        let batch: Vec<(SessionId, Op)> =
            self.cursors.iter().take(CURSORS_MAX).map(|(session, op)| (*session, *op)).collect();
        for (session, _) in &batch {
            self.cursors.remove(session);
        }
        Some(Command::Cursors(batch))
    }

    /// Returns true if a round is due now, this server `accepts` commands, and none of the last round is
    /// under way. The next one is due an interval later in any case.
    pub(super) fn begin_round(&mut self, now: Moment, accepts: bool) -> bool {
        if now < self.round_at {
            return false;
        }
        self.round_at = now + ROUND_EVERY;
        accepts && self.housekept.is_none()
    }

    /// The commands of a round at the log's time `log_ms`.
    pub(super) fn round(service: &Service, retention: &Retention, log_ms: u64) -> Vec<Command> {
        service.housekeeping(log_ms, retention, ROUND_MAX)
    }

    /// Records that a command of the round in progress was proposed.
    pub(super) fn on_proposed(&mut self, ticket: Ticket) {
        self.housekept = Some(ticket);
    }

    /// Records that what was proposed under this ticket is applied.
    pub(super) fn on_committed(&mut self, ticket: Ticket) {
        self.housekept = self.housekept.filter(|last| *last > ticket);
    }

    /// Records that this ticket and all after it are void.
    pub(super) fn on_lost(&mut self, from: Ticket) {
        self.housekept = self.housekept.filter(|last| *last < from);
    }
}
