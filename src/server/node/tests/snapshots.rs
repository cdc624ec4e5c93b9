//! When a snapshot is taken, how often a stored one is read for a peer, and which one a server starts on.

use recado_log::journal::StoredSnapshot;
use recado_proto::id::Epoch;
use recado_service::State;

use super::*;
use crate::server::node::snapshots::{members, restore};

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

#[test]
fn a_server_starts_on_a_stored_snapshot_only_if_it_holds_the_state_of_its_op_and_view() {
    let config = config();
    let view = View::new(1, NodeId(3));
    let mut service = Service::new(State::default(), config.limits, config.planted);
    service.apply(Op(1), None, &mut Vec::new());
    let start = |stored_op, stored_view, image_op, image_view| {
        let (op, view, state) = (image_op, image_view, service.state());
        let (cluster, members_op, members) = (ClusterId(7), Op::ZERO, members(&config));
        let image = Image { cluster, members_op, members, op, view, state };
        let bytes = codec::encode_snapshot(&image).unwrap();
        let restored = restore(&config, Some(&StoredSnapshot { op: stored_op, view: stored_view, bytes }));
        restored.map(|(base, service)| (base, service.applied()))
    };
    assert_eq!(start(Op(1), view, Op(1), view).unwrap(), ((view, Op(1)), Op(1)));
    for (stored_op, stored_view, image_op, image_view) in [
        (Op(2), view, Op(1), view),
        (Op(1), View::new(2, NodeId(3)), Op(1), view),
        // The state itself is that of op 1.
        (Op(2), view, Op(2), view),
    ] {
        let started = start(stored_op, stored_view, image_op, image_view);
        assert!(matches!(started, Err(StartError::OtherState(op)) if op == stored_op), "{started:?}");
    }
}

#[test]
fn a_snapshot_of_other_members_or_of_another_epoch_is_refused_and_other_addresses_are_none() {
    let config = config();
    let (op, view) = (Op(0), View::ZERO);
    let refusal = |change: &dyn Fn(&mut Image)| {
        let (cluster, members_op, state) = (ClusterId(7), Op::ZERO, State::default());
        let mut image = Image { cluster, members_op, members: members(&config), op, view, state };
        change(&mut image);
        let bytes = codec::encode_snapshot(&image).unwrap();
        restore(&config, Some(&StoredSnapshot { op, view, bytes })).err()
    };
    assert!(refusal(&|_| ()).is_none());
    assert!(refusal(&|image| image.members.list[0].client.set_port(7)).is_none());
    let foreign: [&dyn Fn(&mut Image); 4] = [
        &|image| image.cluster = ClusterId(8),
        &|image| image.members_op = Op(1),
        &|image| image.members.epoch = Epoch(1),
        &|image| {
            image.members.list.truncate(2);
            image.members.tie_holder = NodeId(2);
        },
    ];
    for change in foreign {
        let refused = refusal(change);
        assert!(matches!(refused, Some(StartError::Foreign(_))), "{refused:?}");
    }
    let refused = refusal(&|image| image.members.list.swap(0, 1));
    assert!(
        matches!(refused, Some(StartError::Snapshot(_, recado_proto::DecodeError::Bounds))),
        "{refused:?}"
    );
}
