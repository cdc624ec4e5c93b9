//! When a snapshot is taken, and how often a stored one is read for a peer.

use super::*;

#[test]
fn a_snapshot_is_read_once_at_a_time_for_each_peer() {
    let mut rig = Rig::new(true);
    rig.owes = true;
    for offset in 0..10_000 {
        rig.peer(3, vec![Packet::SnapshotGet(SnapshotGet { op: Op(1), offset, chunks: 64 })]);
    }
    assert_eq!(rig.reads, 1);
    rig.input(Input::SnapshotRead { to: NodeId(3), piece: None });
    assert_eq!(rig.reads, 2, "the newest question is still answered");
    rig.input(Input::SnapshotRead { to: NodeId(3), piece: None });
    assert_eq!(rig.reads, 2);
}

#[test]
fn a_snapshot_is_taken_when_the_log_since_the_last_one_is_long_and_no_sooner() {
    let mut rig = Rig::new(true);
    rig.node.config.snapshot_bytes = 10_000;
    let view = View::new(1, NodeId(3));
    for op in 1..=101 {
        let entry = Entry { op: Op(op), view, kind: EntryKind::Command, payload: vec![1; 1_000].into() };
        let prev_view = if op == 1 { View::ZERO } else { view };
        let (prev_op, commit) = (Op(op - 1), Op(op - 1));
        let cast = Entries { view, fetch: None, prev_op, prev_view, commit, entries: vec![entry] };
        rig.peer(3, vec![Packet::Entries(cast)]);
        rig.flush();
    }
    assert_eq!((rig.node.applied(), rig.snapshots), (Op(100), 10));
}
