//! Hand-over (TRANSFER): a primary that stops, or sees that a higher id has returned, gives the lead to
//! another server without a pause. It stops accepting commands, waits until the target has everything
//! durable, and permits the target to skip the probe; no more. If the target does not take over in time, it
//! continues as primary.

use std::time::Duration;

use recado_proto::id::{Moment, NodeId, Op, View};
use recado_proto::packet::{ToPeer, Transfer, WaitsFor};

use super::primary::PrimaryState;
use super::{Cause, Effect, ReplicaManager, Role};
use crate::config::Preempt;

/// The time that a stopping server waits for another primary. It waits longer if a successor exists and the
/// disks of others are slow: as long as the hand-over and the election may take. It does not wait for its
/// own disk, which may be full and then writes nothing more.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// A hand-over in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandOver {
    target: NodeId,
    since: Moment,
    transfer_sent: Option<Moment>,
}

/// The state of a server that was asked to stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopping {
    since: Moment,
    /// The promised view at that time; a higher active view means that another primary leads.
    view: View,
}

impl ReplicaManager {
    pub(super) fn on_stop(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Stopping { since: now, view: self.promised });
        self.pace.stop();
        if !self.is_active_primary() || self.members.len() == 1 {
            out.push(Effect::Stopped);
        }
    }

    /// Stops once another primary is active, or when the wait is over.
    pub(super) fn stopping_on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some(stopping) = self.stopping else { return };
        let heir = !self.is_active_primary() || self.hands_over() || self.target(now, true).is_some();
        let patience =
            if heir { STOP_PATIENCE.max(self.pace.patience_with_others(now) * 2) } else { STOP_PATIENCE };
        if now.since(stopping.since) >= patience || (self.active > stopping.view && !self.is_active_primary())
        {
            out.push(Effect::Stopped);
        }
    }

    /// Returns true while this primary hands over.
    pub(super) fn hands_over(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if matches!(primary.state, PrimaryState::HandingOver(_)))
    }

    pub(super) fn handover_on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let (timing, last, promised) = (self.timing, self.log.last(), self.promised);
        let patience = self.patience_for(now, WaitsFor::Promises, timing.coordinator);
        let stopping = self.stopping.is_some();
        let target = self.target(now, stopping);
        let Role::Primary(primary) = &mut self.role else { return };
        let handover = match &mut primary.state {
            PrimaryState::Opening | PrimaryState::Isolated { .. } => return,
            PrimaryState::Active => {
                if let Some(target) = target {
                    let handover = HandOver { target, since: now, transfer_sent: None };
                    primary.state = PrimaryState::HandingOver(handover);
                }
                return;
            }
            PrimaryState::HandingOver(handover) => handover,
        };
        if now.since(handover.since) >= patience {
            // The hand-over failed: continue, and watch the target from the start before the next try.
            let failed = handover.target;
            primary.state = PrimaryState::Active;
            if let Some(backup) = primary.backups.get_mut(&failed) {
                backup.present_since = None;
            }
            return;
        }
        let ready = primary.backups.get(&handover.target).is_some_and(|backup| backup.durable >= last);
        if ready && handover.transfer_sent.is_none_or(|told| now.since(told) >= timing.heartbeat) {
            handover.transfer_sent = Some(now);
            let to = handover.target;
            self.send(to, ToPeer::Transfer(Transfer { view: promised, last }), out);
        }
    }

    /// The server that should lead instead: for a stopping primary the best placed backup, otherwise a
    /// higher id that has been present long enough.
    fn target(&self, now: Moment, stopping: bool) -> Option<NodeId> {
        let Role::Primary(primary) = &self.role else { return None };
        let fresh = primary.backups.iter().filter(|(id, backup)| {
            !backup.leaving
                && !self.pace.lags(**id, now)
                && backup.durable > Op::ZERO
                && backup.echoed.is_some_and(|echoed| now.since(echoed) < self.timing.suspect_max)
        });
        if stopping {
            return fresh
                .filter(|(_, backup)| backup.present_since.is_some())
                .max_by_key(|(id, backup)| (backup.durable, **id))
                .map(|(id, _)| *id);
        }
        if self.preempt == Preempt::Off {
            return None;
        }
        let stable = |since: Moment| now.since(since) >= self.timing.preempt_after;
        fresh
            .filter(|(id, backup)| {
                **id > self.me
                    && backup.present_since.is_some_and(stable)
                    && backup.durable.0 + 64 >= self.log.last().0
            })
            .map(|(id, _)| *id)
            .max()
    }

    /// The primary permits this server to skip the probe.
    pub(super) fn on_transfer(
        &mut self,
        now: Moment,
        from: NodeId,
        transfer: Transfer,
        out: &mut Vec<Effect>,
    ) {
        let current = transfer.view == self.promised && transfer.view.primary() == Some(from);
        let holds = self.in_view.matched >= transfer.last && self.journaling.durable >= transfer.last;
        if current && holds && matches!(self.role, Role::Backup(_)) && self.stopping.is_none() {
            self.suspicion = Cause::Transfer;
            self.prepare(now, Cause::Transfer, out);
        }
    }
}
