//! Packets from peers: the checks that hold for all of them, and the module that each goes to.

use recado_proto::id::{Incarnation, Moment, NodeId, View};
use recado_proto::packet::{Election, Heartbeat, Packet, Promise, Reply};

use super::{Cause, Effect, ReplicaManager};

/// The highest round accepted from a peer. A round must always exist above it for the next election.
pub(super) const ROUND_ACCEPTED_MAX: u64 = View::ROUND_MAX / 2;

/// Returns true if the views that a peer names leave room for later elections.
fn leaves_rounds(packet: &Packet) -> bool {
    let view = match packet {
        Packet::Heartbeat(heartbeat) => heartbeat.view.max(heartbeat.promised),
        Packet::Election(Election::Probe { view, .. } | Election::Prepare { view, .. }) => *view,
        Packet::Reply(Reply::Refuse { promised }) => *promised,
        Packet::Coordinator(coordinator) => coordinator.view,
        Packet::Entries(entries) => entries.view,
        Packet::LearnOk(answer) => answer.promised,
        _ => View::ZERO,
    };
    view.round() <= ROUND_ACCEPTED_MAX
}

/// The sender's disk turn in ms, if the packet reports it.
fn disk_told(packet: &Packet) -> Option<u32> {
    match packet {
        Packet::Heartbeat(Heartbeat { disk_ms, .. })
        | Packet::Election(Election::Probe { disk_ms, .. } | Election::Prepare { disk_ms, .. })
        | Packet::Reply(
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
        packet: Packet,
        out: &mut Vec<Effect>,
    ) {
        if from == self.me || !self.members.contains(&from) || !leaves_rounds(&packet) {
            return;
        }
        if !self.heard_from(now, from, incarnation, out) {
            return;
        }
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
            Packet::Heartbeat(heartbeat) => self.on_heartbeat(now, from, incarnation, heartbeat, out),
            Packet::Election(election) => self.on_election(now, from, election, out),
            Packet::Reply(reply) => self.on_reply(now, from, reply, out),
            Packet::Coordinator(coordinator) => self.on_coordinator(now, coordinator.view, out),
            Packet::Entries(entries) => self.on_entries(now, from, incarnation, entries, out),
            Packet::EntriesAck(ack) => self.on_entries_ack(now, from, ack, out),
            Packet::Fetch(fetch) => self.on_fetch(from, fetch, out),
            Packet::SnapshotGet(get) => self.on_snapshot_get(from, get, out),
            Packet::SnapshotChunk(chunk) => self.on_snapshot_chunk(now, from, chunk, out),
            Packet::Transfer(transfer) => self.on_transfer(now, from, transfer, out),
            Packet::Learn(learn) => self.on_learn(now, from, incarnation, learn, out),
            Packet::LearnOk(answer) => self.on_learn_ok(from, answer),
            // Servers ignore the packets of clients.
            _ => {}
        }
    }
}
