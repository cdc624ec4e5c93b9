//! The primary: opens its view, beats, and notices when it is isolated.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use recado_proto::entry::{Entry, EntryKind};
use recado_proto::id::{Moment, NodeId, Op};
use recado_proto::packet::{Heartbeat, HeartbeatState, Promise, Reply, RoleName, ToPeer};
use recado_proto::planted::Planted;

use super::cast::Progress;
use super::handover::HandOver;
use super::{Cause, Effect, ReplicaManager, Role};

/// Heartbeats remembered, to find the time at which an echoed heartbeat was sent.
const BEATS_KEPT: usize = 64;

/// The least interval between heartbeats that confirm the lead. As many of them as are remembered take longer
/// than a round trip.
const CONFIRM_EVERY: Duration = Duration::from_millis(2);

/// The primary of a view.
#[derive(Debug)]
pub(super) struct Primary {
    pub(super) state: PrimaryState,
    /// The op of the ViewStart entry: the view is active when it is committed.
    pub(super) start: Op,
    opened: Moment,
    pub(super) backups: BTreeMap<NodeId, Progress>,
    next_beat: Moment,
    /// The number of the latest heartbeat.
    beat: u64,
    /// The latest heartbeats, and when each was sent.
    beats: VecDeque<(u64, Moment)>,
}

/// What a primary may do. In every state it beats, casts its log, and counts what is durable; what differs is
/// in [`PrimaryState::permits`].
#[derive(Debug)]
pub(super) enum PrimaryState {
    /// The first entry of the view is not committed yet.
    Opening,
    /// The view is active.
    Active,
    /// The view is active, and another server is about to lead.
    HandingOver(HandOver),
    /// No majority echoes, or the disk stalls.
    Isolated {
        /// True if the view is active.
        active: bool,
    },
}

/// What a state permits, and what others are told of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permits {
    /// The role of this server. In the role of the primary it answers clients.
    pub(super) role: RoleName,
    /// The state in its heartbeats.
    pub(super) heartbeat: HeartbeatState,
    /// True if the view is active.
    pub(super) active: bool,
    /// True if it accepts commands, unless the server stops.
    pub(super) accepts: bool,
}

impl PrimaryState {
    /// The table of the states.
    pub(super) fn permits(&self) -> Permits {
        let (role, heartbeat, active, accepts) = match self {
            PrimaryState::Opening => (RoleName::Candidate, HeartbeatState::Opening, false, false),
            PrimaryState::Active => (RoleName::Primary, HeartbeatState::Active, true, true),
            PrimaryState::HandingOver(_) => (RoleName::Primary, HeartbeatState::Active, true, false),
            PrimaryState::Isolated { active } => {
                (RoleName::Isolated, HeartbeatState::Isolated, *active, false)
            }
        };
        Permits { role, heartbeat, active, accepts }
    }
}

impl Primary {
    pub(super) fn is_active(&self) -> bool {
        self.state.permits().active
    }

    pub(super) fn is_isolated(&self) -> bool {
        matches!(self.state, PrimaryState::Isolated { .. })
    }

    /// The view is active from now on.
    fn activate(&mut self) {
        self.state = match self.state {
            PrimaryState::Isolated { .. } => PrimaryState::Isolated { active: true },
            _ => PrimaryState::Active,
        };
    }

    /// The isolation begins or ends. It ends a hand-over too.
    fn set_isolated(&mut self, isolated: bool) {
        self.state = match (isolated, self.is_active()) {
            (true, active) => PrimaryState::Isolated { active },
            (false, true) => PrimaryState::Active,
            (false, false) => PrimaryState::Opening,
        };
    }

    pub(super) fn next_beat(&self) -> Moment {
        self.next_beat
    }

    /// The number of the latest heartbeat.
    #[cfg(test)]
    pub(super) fn beat(&self) -> u64 {
        self.beat
    }

    /// A backup has started again: the ops that it acknowledged before may be gone.
    pub(super) fn forget_acks_of(&mut self, peer: NodeId) {
        if let Some(backup) = self.backups.get_mut(&peer) {
            backup.forget_acks();
        }
    }

    /// A backup's port refuses datagrams, so the backup is not running.
    pub(super) fn mark_absent(&mut self, peer: NodeId) {
        if let Some(backup) = self.backups.get_mut(&peer) {
            backup.present_since = None;
        }
    }
}

impl ReplicaManager {
    /// Opens the promised view. The commit of its first entry commits all older entries.
    pub(super) fn open(&mut self, now: Moment, promises: &BTreeMap<NodeId, Promise>, out: &mut Vec<Effect>) {
        let view = self.promised;
        let backups = self
            .members
            .iter()
            .filter(|id| **id != self.me)
            .map(|id| {
                // The cast begins after the last op that a promise showed to be common; without one, at the
                // end of the log, and the backup answers how far back the cast must go.
                let common = promises
                    .get(id)
                    .and_then(|promise| self.log.common(&promise.index, promise.last_op))
                    .unwrap_or(self.log.last());
                (*id, Progress::new(common.next()))
            })
            .collect();
        let start = self.log.last().next();
        let primary = Primary {
            state: PrimaryState::Opening,
            start,
            opened: now,
            backups,
            next_beat: now,
            beat: 0,
            beats: VecDeque::new(),
        };
        self.in_view.matched = self.commit;
        let cause = self.suspicion;
        self.become_role(now, Role::Primary(primary), cause, out);
        self.append(Entry { op: start, view, kind: EntryKind::ViewStart, payload: [].into() });
    }

    pub(super) fn primary_on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        self.judge_isolation(now, out);
        let Role::Primary(primary) = &self.role else { return };
        if now >= primary.next_beat {
            self.beat(now, out);
        }
        self.handover_on_time(now, out);
    }

    /// Sends HEARTBEAT to all peers.
    pub(super) fn beat(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let every = self.timing.heartbeat;
        let Role::Primary(primary) = &mut self.role else { return };
        primary.beat += 1;
        primary.next_beat = now + every;
        primary.beats.push_back((primary.beat, now));
        if primary.beats.len() > BEATS_KEPT {
            primary.beats.pop_front();
        }
        let (state, beat) = (primary.state.permits().heartbeat, primary.beat);
        let heartbeat = self.heartbeat(now, state, beat);
        self.send_to_peers(&ToPeer::Heartbeat(heartbeat), out);
    }

    /// A backup echoed a heartbeat. Whether this primary is still isolated is judged after every input.
    pub(super) fn on_echo(&mut self, now: Moment, from: NodeId, echo: Heartbeat, out: &mut Vec<Effect>) {
        let patience = self.timing.suspect_max;
        let promised = self.promised;
        let Role::Primary(primary) = &mut self.role else {
            return self.answer_outdated(from, echo, out);
        };
        if echo.view != promised {
            return self.answer_outdated(from, echo, out);
        }
        let Some(backup) = primary.backups.get_mut(&from) else { return };
        backup.leaving = echo.leaving;
        if let Some((_, sent)) = primary.beats.iter().find(|(beat, _)| *beat == echo.beat) {
            let broken = backup.echoed.is_none_or(|echoed| sent.since(echoed) > patience);
            if broken || backup.present_since.is_none() {
                backup.present_since = Some(now);
            }
            backup.echoed = backup.echoed.max(Some(*sent));
        }
    }

    /// Tells a backup that pings this server for a lower view which view is active, or refuses that view.
    fn answer_outdated(&mut self, from: NodeId, echo: Heartbeat, out: &mut Vec<Effect>) {
        if echo.view < self.promised && self.active == self.promised {
            self.send(from, self.coordinator(), out);
        } else if echo.view < self.promised {
            self.send(from, ToPeer::Reply(Reply::Refuse { promised: self.promised }), out);
        }
    }

    /// The latest time at which an active primary is known to have led. Of this one that is the time when it
    /// sent the latest heartbeat that a majority has echoed: a server echoes only the view that it has
    /// promised, so none of a higher view was active before.
    pub(crate) fn led(&self) -> Option<Moment> {
        let Role::Primary(primary) = &self.role else { return self.led };
        if !primary.is_active() {
            return self.led;
        }
        let Some(others) = self.quorum.checked_sub(2) else { return self.led };
        let mut echoed: Vec<Option<Moment>> = primary.backups.values().map(|backup| backup.echoed).collect();
        echoed.sort_unstable_by(|one, other| other.cmp(one));
        echoed.get(others).copied().flatten().max(self.led)
    }

    /// Sends a heartbeat soon, whose echoes confirm that this primary leads: at once, unless one was sent
    /// just before.
    pub(crate) fn confirm_lead(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if self.quorum == 1 && self.is_active_primary() {
            self.led = Some(now);
        }
        let Role::Primary(primary) = &mut self.role else { return };
        let at = primary.beats.back().map_or(now, |(_, sent)| *sent + CONFIRM_EVERY);
        if now >= at {
            self.beat(now, out);
        } else {
            primary.next_beat = primary.next_beat.min(at);
        }
    }

    /// Decides if this primary is isolated: no echo from a majority for 2 T_s, or a write waits longer than
    /// T_s while a quorum of other disks is clearly faster. An isolated primary says so in its heartbeats
    /// and serves nobody. Where all disks are slow, another primary would be no better.
    fn judge_isolation(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let alone = self.timing.suspect_max * 2;
        let disk = self.pace.stalls(now);
        let quorum = self.quorum;
        let Role::Primary(primary) = &mut self.role else { return };
        let heard = primary
            .backups
            .values()
            .filter(|backup| now.since(backup.echoed.unwrap_or(primary.opened)) <= alone)
            .count();
        let isolated = heard + 1 < quorum || disk;
        if isolated == primary.is_isolated() {
            return;
        }
        primary.set_isolated(isolated);
        let active = primary.is_active();
        if isolated {
            self.suspected_since = Some(now);
        }
        if active {
            let cause = if isolated { Cause::NoMajority } else { Cause::MajorityBack };
            self.role_changed(now, cause, out);
        }
        if !isolated {
            self.suspected_since = None;
        }
        self.beat(now, out);
    }

    /// Activates the view once its first entry is committed.
    pub(super) fn try_activate(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let (view, commit) = (self.promised, self.commit);
        let early = self.planted.is(Planted::ServesBeforeViewStart);
        let Role::Primary(primary) = &mut self.role else { return };
        if primary.is_active() || (commit < primary.start && !early) {
            return;
        }
        primary.activate();
        self.on_active(view, out);
        self.send_to_peers(&self.coordinator(), out);
        self.role_changed(now, Cause::Elected, out);
        self.suspected_since = None;
        self.suspicion = Cause::TimedOut;
        self.beat(now, out);
    }
}
