//! Timers: every reason to call the replica without an input, what is done then, and which time-outs move
//! with its own lateness.
//!
//! The table stores nothing. Each timer follows from state that lives with its role or its module, so a timer
//! cannot outlive the role that it belongs to.

use recado_proto::id::Moment;

use super::{Effect, ReplicaManager, Role};

/// A reason to call the replica.
#[derive(Clone, Copy, Debug)]
enum Timer {
    /// A heartbeat has passed since the last call. A longer gap shows this server its own lateness. Waits
    /// without a timer are judged at each call, so this one ends them too: those of a probe, a view without
    /// progress, a fetch, a snapshot transfer, an isolation, a stalled disk, a hand-over and a stop.
    Idle,
    /// A learner: LEARN is sent again.
    Learn,
    /// A backup that awaits a candidate: the candidate is given up.
    Awaited,
    /// A backup: the heartbeat of the primary is missing, and the pings begin.
    Late,
    /// A backup: a late primary is pinged again.
    Ping,
    /// A backup: the primary was silent for T_s and is suspected.
    Silent,
    /// A candidate: PROBE or PREPARE is sent again.
    Candidate,
    /// A primary: the next HEARTBEAT is sent.
    Heartbeat,
}

impl Timer {
    const ALL: [Timer; 8] = [
        Timer::Idle,
        Timer::Learn,
        Timer::Awaited,
        Timer::Late,
        Timer::Ping,
        Timer::Silent,
        Timer::Candidate,
        Timer::Heartbeat,
    ];
}

impl ReplicaManager {
    /// The latest time for an [`Input::Deadline`](super::Input::Deadline). It is never further away than a
    /// heartbeat, so that this server notices its own lateness.
    pub(crate) fn next_deadline(&self) -> Moment {
        // `Idle` always runs.
        Timer::ALL.into_iter().filter_map(|timer| self.deadline(timer)).min().unwrap_or(self.handled)
    }

    /// When `timer` ends, if it runs.
    fn deadline(&self, timer: Timer) -> Option<Moment> {
        match (timer, &self.role) {
            (Timer::Idle, _) => Some(self.handled + self.timing.heartbeat),
            (Timer::Learn, Role::Learner(learner)) => Some(learner.next_ask()),
            (Timer::Candidate, Role::Candidate(candidate)) => Some(candidate.next_send()),
            (Timer::Heartbeat, Role::Primary(primary)) => Some(primary.next_beat()),
            (Timer::Awaited, Role::Backup(_)) => {
                self.in_view.waiting_for.map(|awaited| self.waits_until(self.handled, awaited))
            }
            // While another candidate is awaited, the detector does not count.
            (_, Role::Backup(_)) if self.in_view.waiting_for.is_some() => None,
            (Timer::Late, Role::Backup(_)) => self.is_on_time().then_some(self.detector.late_at()),
            (Timer::Ping, Role::Backup(backup)) => {
                (!self.is_on_time() && self.known_primary().is_some()).then_some(backup.next_ping())
            }
            (Timer::Silent, Role::Backup(_)) => Some(self.detector.silent_at()),
            // The timers of another role.
            _ => None,
        }
    }

    /// Returns true if no heartbeat of the primary was missing at the last call.
    fn is_on_time(&self) -> bool {
        self.handled < self.detector.late_at()
    }

    /// Does everything that depends on time alone.
    pub(super) fn on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        match self.role {
            Role::Learner(_) => self.learner_on_time(now, out),
            Role::Backup(_) => self.backup_on_time(now, out),
            Role::Candidate(_) => self.candidate_on_time(now, out),
            Role::Primary(_) => self.primary_on_time(now, out),
        }
        self.receiving_on_time(now, out);
        self.stopping_on_time(now, out);
    }

    /// "Blame yourself first": a late replica moves every time-out by which it judges another server by its
    /// own delay (DESIGN.md section 6). A primary's time-out for its own isolation does not move: while it
    /// was late, the others may have elected another.
    pub(super) fn forgive_own_lateness(&mut self, now: Moment) {
        let gap = now.since(self.handled);
        if gap < self.timing.heartbeat * 3 {
            return;
        }
        self.detector.forgive(gap);
        self.pace.forgive(gap);
        if let Some(awaited) = &mut self.in_view.waiting_for {
            awaited.forgive(gap);
        }
        if let Some(receiving) = &mut self.receiving {
            receiving.forgive(gap);
        }
        if let Some(opening) = &mut self.opening {
            opening.progressed = opening.progressed + gap;
        }
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.forgive(gap);
        }
    }
}
