//! Packets from peers: the checks that hold for all of them, and the module that each goes to.

use recado_proto::id::{Incarnation, Moment, NodeId, View};
use recado_proto::packet::{Election, Heartbeat, Promise, Reply, ToPeer};

use super::{Cause, Effect, ReplicaManager};

/// The highest round accepted from a peer. A round must always exist above it for the next election.
pub(super) const ROUND_ACCEPTED_MAX: u64 = View::ROUND_MAX / 2;

/// Returns true if the views that a peer names leave room for later elections.
fn leaves_rounds(packet: &ToPeer) -> bool {
    let view = match packet {
        ToPeer::Heartbeat(heartbeat) => heartbeat.view,
        ToPeer::Election(Election::Probe { view, .. } | Election::Prepare { view, .. }) => *view,
        ToPeer::Reply(Reply::Refuse { promised }) => *promised,
        ToPeer::Coordinator(coordinator) => coordinator.view,
        ToPeer::Entries(entries) => entries.view,
        ToPeer::LearnOk(answer) => answer.promised,
        _ => View::ZERO,
    };
    view.round() <= ROUND_ACCEPTED_MAX
}

/// The sender's disk turn in ms, if the packet reports it.
fn disk_told(packet: &ToPeer) -> Option<u32> {
    match packet {
        ToPeer::Heartbeat(Heartbeat { disk_ms, .. })
        | ToPeer::Election(Election::Probe { disk_ms, .. } | Election::Prepare { disk_ms, .. })
        | ToPeer::Reply(
            Reply::Agree { disk_ms, .. }
            | Reply::Alive { disk_ms, .. }
            | Reply::Bully { disk_ms, .. }
            | Reply::Writing { disk_ms, .. }
            | Reply::Promise(Promise { disk_ms, .. }),
        ) => Some(*disk_ms),
        _ => None,
    }
}

impl ReplicaManager {
    pub(super) fn on_packet(
        &mut self,
        now: Moment,
        from: NodeId,
        incarnation: Incarnation,
        packet: ToPeer,
        out: &mut Vec<Effect>,
    ) {
        if from == self.me || !self.members.contains(&from) || !leaves_rounds(&packet) {
            return;
        }
        if !self.heard_from(now, from, incarnation, out) {
            return;
        }
        self.donor_heard(now, from);
        if let Some(turn_ms) = disk_told(&packet) {
            self.pace.on_report(now, from, turn_ms);
        }
        if self.promised.primary() == Some(from)
            && self.in_view.primary.is_some_and(|known| incarnation > known)
        {
            self.in_view.primary = None;
            self.suspect(now, Cause::PrimaryRestarted, out);
        }
        match packet {
            ToPeer::Heartbeat(heartbeat) => self.on_heartbeat(now, from, incarnation, heartbeat, out),
            ToPeer::Election(election) => self.on_election(now, from, election, out),
            ToPeer::Reply(reply) => self.on_reply(now, from, reply, out),
            ToPeer::Coordinator(coordinator) => self.on_coordinator(now, coordinator.view, out),
            ToPeer::Entries(entries) => self.on_entries(now, from, incarnation, entries, out),
            ToPeer::EntriesAck(ack) => self.on_entries_ack(now, from, ack, out),
            ToPeer::Fetch(fetch) => self.on_fetch(from, fetch, out),
            ToPeer::SnapshotGet(get) => self.on_snapshot_get(from, get, out),
            ToPeer::SnapshotChunk(chunk) => self.on_snapshot_chunk(now, from, chunk, out),
            ToPeer::Transfer(transfer) => self.on_transfer(now, from, transfer, out),
            ToPeer::Learn(learn) => self.on_learn(now, from, incarnation, learn, out),
            ToPeer::LearnOk(answer) => self.on_learn_ok(from, answer),
            // The links put fragments together.
            ToPeer::Fragment(_) => {}
            // A later version's, which this one steps over.
            ToPeer::Extension(_) => {}
            // The link acknowledges a probe, and padding has no content.
            ToPeer::Padding | ToPeer::Ping => {}
        }
    }
}
