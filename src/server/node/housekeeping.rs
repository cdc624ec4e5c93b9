//! What the primary logs of its own accord, and when: batches of cursors, which also say that a session is
//! alive, batches of the sessions that clients have left, and rounds of what the service finds due.
//!
//! Nothing here knows if this server may log: the caller says so, and proposes the commands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use recado_log::ordered::Ticket;
use recado_proto::command::Command;
use recado_proto::id::{Moment, Op, SessionId, millis};
use recado_service::Service;

use crate::config::Retention;

/// Interval between batches in the log; one batch covers all devices (DESIGN.md section 3).
const BATCH_EVERY: Duration = Duration::from_secs(1);

/// Maximum number of sessions in one batch; the rest waits for the next.
const BATCH_MAX: usize = 1_000;

/// Interval at which the primary looks for notifications to trim and idle sessions to close.
const ROUND_EVERY: Duration = Duration::from_secs(1);

/// Maximum number of commands logged by one round of housekeeping.
const ROUND_MAX: usize = 64;

/// The part of a topic that the first round of a primary may drop as a matter of course: what has come in
/// since the last round of the primary before it.
const USUAL: usize = 10;

/// What the first round of a primary drops by retention, beyond what is usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropping {
    /// The number of notifications.
    pub notifications: usize,
    /// The topics that hold them.
    pub topics: usize,
    /// True if the next rounds drop more.
    pub more: bool,
}

/// What waits for the next batch or round, and when they are due.
#[derive(Debug)]
pub(super) struct Housekeeping {
    /// Cursors that moved since the last batch.
    cursors: BTreeMap<SessionId, Op>,
    /// Live sessions that only sent, and that their clients have left since the last batch.
    left: BTreeSet<SessionId>,
    /// Log time in ms at which each session was last logged as alive. This keeps a session that reads
    /// nothing from counting as idle.
    alive: BTreeMap<SessionId, u64>,
    batch_at: Moment,
    round_at: Moment,
    /// The last command of the round in progress; the next round waits until it is applied or void.
    housekept: Option<Ticket>,
    /// The next round is the first one of this server as this view's primary.
    is_first: bool,
}

impl Housekeeping {
    pub(super) fn new(now: Moment) -> Housekeeping {
        Housekeeping {
            cursors: BTreeMap::new(),
            left: BTreeSet::new(),
            alive: BTreeMap::new(),
            batch_at: now + BATCH_EVERY,
            round_at: now + ROUND_EVERY,
            housekept: None,
            is_first: false,
        }
    }

    /// This server has become primary.
    pub(super) fn on_primary(&mut self) {
        self.is_first = true;
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
        if !self.left.contains(&session)
            && noted.is_none_or(|noted| log_ms.saturating_sub(*noted) >= every_ms)
        {
            self.alive.insert(session, log_ms);
            self.cursors.entry(session).or_default();
        }
    }

    /// Records that a session was logged as alive at the log's time `log_ms`, by another entry.
    pub(super) fn on_logged(&mut self, session: SessionId, log_ms: u64) {
        self.alive.insert(session, log_ms);
    }

    /// Drops the cursor of a session whose last cursor is logged by itself.
    pub(super) fn drop_cursor(&mut self, session: SessionId) {
        self.cursors.remove(&session);
    }

    /// Records that its client has left a session that only sends, which the next batch ends.
    pub(super) fn on_left(&mut self, session: SessionId) {
        self.cursors.remove(&session);
        self.left.insert(session);
    }

    /// Forgets a session that has ended.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.cursors.remove(&session);
        self.left.remove(&session);
        self.alive.remove(&session);
    }

    /// Forgets everything but the times, because this server has lost its role. A session that its client has
    /// left ends when its device's next one fences it, or when it is idle for too long.
    pub(super) fn discard(&mut self) {
        self.cursors.clear();
        self.left.clear();
        self.alive.clear();
        self.housekept = None;
    }

    /// Removes and returns the batches that are due, if there are any and this server `accepts` commands: of
    /// cursors, and of sessions to end. The next ones are due an interval later, or at once if these are
    /// full.
    pub(super) fn take_batches(&mut self, now: Moment, accepts: bool) -> Vec<Command> {
        if now < self.batch_at {
            return Vec::new();
        }
        self.batch_at = now + BATCH_EVERY;
        let mut batches = Vec::new();
        if accepts && !self.cursors.is_empty() {
            let firsts = std::iter::from_fn(|| self.cursors.pop_first());
            batches.push(Command::Cursors(firsts.take(BATCH_MAX).collect()));
        }
        if accepts && !self.left.is_empty() {
            let firsts = std::iter::from_fn(|| self.left.pop_first());
            batches.push(Command::SessionsClose(firsts.take(BATCH_MAX).collect()));
        }
        // What does not fit goes in the next turn.
        let more = !self.cursors.is_empty() || !self.left.is_empty();
        if more && !batches.is_empty() {
            self.batch_at = now;
        }
        batches
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

    /// What these commands of a round drop, if it is the first one of this primary and that is more than one
    /// in [`USUAL`] of a topic: then the primary before it retained more, or all servers were off for long.
    pub(super) fn drops(&mut self, service: &Service, round: &[Command]) -> Option<Dropping> {
        if !std::mem::take(&mut self.is_first) {
            return None;
        }
        let mut trims = BTreeMap::new();
        for command in round {
            if let Command::Trim { topic, upto } = command {
                let last = trims.entry(topic).or_insert(Op::ZERO);
                *last = (*last).max(*upto);
            }
        }
        let counts = trims.into_iter().map(|(topic, upto)| service.retained(topic, upto));
        let unusual: Vec<usize> =
            counts.filter(|(dropped, held)| dropped * USUAL > *held).map(|(dropped, _)| dropped).collect();
        let (notifications, topics) = (unusual.iter().sum(), unusual.len());
        (topics > 0).then_some(Dropping { notifications, topics, more: round.len() >= ROUND_MAX })
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
