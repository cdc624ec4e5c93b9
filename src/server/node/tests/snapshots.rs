//! When a snapshot is taken, how often a stored one is read for a peer, and which one a server starts on.

use std::ops::RangeInclusive;

use recado_log::bully;
use recado_log::journal::SnapshotPiece;
use recado_proto::codec::encode;
use recado_proto::id::Epoch;
use recado_service::State;

use super::*;
use crate::server::node::snapshots::{members, own_turn};

#[test]
fn a_snapshot_is_read_once_at_a_time_for_each_peer() {
    let mut rig = Rig::new(true);
    rig.around.owes = true;
    for offset in 0..10_000 {
        rig.peer(3, vec![ToPeer::SnapshotGet(SnapshotGet { op: Op(1), offset, blocks: 64 })]);
    }
    assert_eq!(rig.around.reads, 1);
    rig.input(Input::Log(bully::Input::SnapshotRead { to: NodeId(3), piece: None }));
    assert_eq!(rig.around.reads, 2, "the newest request is still answered");
    rig.input(Input::Log(bully::Input::SnapshotRead { to: NodeId(3), piece: None }));
    assert_eq!(rig.around.reads, 2);
}

/// A turn of server 2 begins at this time, in ms of the wall clock: of each minute it has the second third.
const TURN: u64 = 20_000;

/// A server in its turn, after the snapshot that the turn begins with: that of op 1.
fn in_turn() -> Rig<Peers> {
    let mut rig = Rig::new(true);
    rig.node.config.snapshot_bytes = 10_000;
    rig.clock.unix_ms = TURN;
    cast(&mut rig, 1..=2);
    assert_eq!((rig.node.applied(), rig.snapshots), (Op(1), 1));
    rig
}

#[test]
fn a_snapshot_is_taken_when_the_log_since_the_last_one_is_long_and_no_sooner() {
    let mut rig = in_turn();
    cast(&mut rig, 3..=11);
    assert_eq!(rig.snapshots, 1);
    cast(&mut rig, 12..=12);
    assert_eq!(rig.snapshots, 2);
    cast(&mut rig, 13..=102);
    assert_eq!((rig.node.applied(), rig.snapshots), (Op(101), 11));
}

#[test]
fn outside_its_turn_a_server_takes_a_snapshot_when_the_log_is_twice_as_long() {
    for unix_ms in [1, TURN - 1, 2 * TURN, 4 * TURN - 1] {
        let mut rig = Rig::new(true);
        rig.node.config.snapshot_bytes = 10_000;
        rig.clock.unix_ms = unix_ms;
        cast(&mut rig, 1..=19);
        assert_eq!(rig.snapshots, 0, "{unix_ms}");
        cast(&mut rig, 20..=101);
        assert_eq!((rig.node.applied(), rig.snapshots), (Op(100), 5), "{unix_ms}");
    }
}

#[test]
fn each_turn_of_a_server_has_a_snapshot_of_what_is_new() {
    let mut rig = Rig::new(true);
    let at = |rig: &mut Rig<Peers>, unix_ms| {
        rig.clock.unix_ms = unix_ms;
        rig.input(Input::Deadline);
        rig.flush();
        rig.snapshots
    };
    cast(&mut rig, 1..=2);
    assert_eq!(at(&mut rig, TURN - 1), 0);
    assert_eq!(at(&mut rig, TURN), 1);
    cast(&mut rig, 3..=3);
    // Neither later in the same turn, nor in those of the others, nor in the next one if it is over.
    assert_eq!([2 * TURN - 1, 2 * TURN, 3 * TURN, 6 * TURN].map(|unix_ms| at(&mut rig, unix_ms)), [1; 4]);
    assert_eq!(at(&mut rig, 7 * TURN + 5_000), 2);
    assert_eq!(at(&mut rig, 10 * TURN), 2, "nothing is new");
    cast(&mut rig, 4..=4);
    assert_eq!(rig.snapshots, 3, "the turn is under way");
    cast(&mut rig, 5..=5);
    assert_eq!(at(&mut rig, TURN), 4, "a clock that was set back");
}

/// By the same clock exactly one server has its turn at any time, and each has as many as the others.
#[test]
fn the_turns_of_the_servers_do_not_overlap() {
    for count in [1, 2, 3, 5, 9] {
        let mut config = config();
        let member = config.cluster.members[0];
        config.cluster.members = (1..=count).map(|id| Member { id: NodeId(id), ..member }).collect();
        let mut turns: BTreeMap<u16, u64> = BTreeMap::new();
        for unix_ms in (0..600_000).step_by(250) {
            let mut having = (1..=count).filter(|id| {
                config.cluster.me = NodeId(*id);
                own_turn(Clock { now: Moment(0), unix_ms }, &config).is_some()
            });
            *turns.entry(having.next().unwrap()).or_default() += 1;
            assert_eq!(having.next(), None, "{count} servers, {unix_ms}");
        }
        let (least, most) = (turns.values().min().unwrap(), turns.values().max().unwrap());
        assert!(turns.len() == count.into() && most - least <= 10, "{turns:?}");
    }
}

#[test]
fn while_a_peer_reads_a_snapshot_none_is_begun_before_the_log_is_four_times_as_long() {
    let mut rig = in_turn();
    let read = |rig: &mut Rig<Peers>, offset| {
        let bytes = vec![0; SnapshotGet::BLOCK];
        let piece = SnapshotPiece { op: Op(9), view: View::ZERO, offset, total: 1 << 20, crc: 0, bytes };
        rig.input(Input::Log(bully::Input::SnapshotRead { to: NodeId(1), piece: Some(piece) }));
    };
    cast(&mut rig, 3..=12);
    assert_eq!(rig.snapshots, 2);
    // What was only offered, and what is not stored any more, is not being read.
    read(&mut rig, 0);
    rig.input(Input::Log(bully::Input::SnapshotRead { to: NodeId(1), piece: None }));
    cast(&mut rig, 13..=22);
    assert_eq!(rig.snapshots, 3);
    read(&mut rig, 65_536);
    cast(&mut rig, 23..=61);
    assert_eq!(rig.snapshots, 3, "the peer may need the log and the snapshots that another would remove");
    cast(&mut rig, 62..=62);
    assert_eq!(rig.snapshots, 4, "the log has a bound also while a peer reads");
    cast(&mut rig, 63..=72);
    assert_eq!(rig.snapshots, 4);
    rig.pass(rig.node.config.timing.coordinator * 2);
    assert_eq!(rig.snapshots, 4);
    rig.clock.now = rig.clock.now + Duration::from_micros(1);
    rig.input(Input::Deadline);
    rig.flush();
    assert_eq!(rig.snapshots, 5, "a peer that asks no more delays nothing");
}

/// The primary casts entries of 1,000 bytes, one at a time, and each commits the one before it.
fn cast(rig: &mut Rig<Peers>, ops: RangeInclusive<u64>) {
    let view = View::new(1, NodeId(3));
    for op in ops {
        let entry = Entry { op: Op(op), view, kind: EntryKind::Command, payload: command_of(1_000) };
        let prev_view = if op == 1 { View::ZERO } else { view };
        rig.peer(3, vec![members::cast(view, (op - 1, prev_view), op - 1, vec![entry])]);
        rig.flush();
    }
}

/// A peer that lacks a little of what the newest snapshot holds is sent entries, and no snapshot.
#[test]
fn the_log_is_kept_from_the_snapshot_before_the_newest_one_on() {
    let mut rig = in_turn();
    let (mut before, mut newest) = (Op::ZERO, Op(1));
    for op in 3..=52 {
        let written = rig.snapshots;
        cast(&mut rig, op..=op);
        if rig.snapshots > written {
            // It holds what the entry has committed.
            (before, newest) = (newest, Op(op - 1));
        }
        let first = (1..=op).find(|op| rig.node.log.entry(Op(*op)).is_some());
        assert_eq!(first, Some(before.0 + 1), "the newest one is that of {newest:?}");
    }
    assert_eq!(rig.snapshots, 6);
}

#[test]
fn a_server_starts_on_a_stored_snapshot_only_if_it_holds_the_state_of_its_op_and_view() {
    let config = config();
    let view = View::new(1, NodeId(3));
    let mut service = Service::new(State::default(), config.limits, config.planted);
    service.apply(Op(1), None, &mut Vec::new());
    let start = |stored_op, stored_view, image_op, image_view| {
        let (op, view, state) = (image_op, image_view, service.state());
        let (format, cluster) = (Image::FORMAT, ClusterId(7));
        let (members_op, members) = (Op::ZERO, members(&config));
        let image = Image { format, cluster, members_op, members, op, view, state };
        let bytes = encode(&image);
        open_whole(&config, stored_op, stored_view, &bytes).map(|service| service.applied())
    };
    assert_eq!(start(Op(1), view, Op(1), view).unwrap(), Op(1));
    for (stored_op, stored_view, image_op, image_view) in [
        (Op(2), view, Op(1), view),
        (Op(1), View::new(2, NodeId(3)), Op(1), view),
        // The state itself is that of op 1.
        (Op(2), view, Op(2), view),
    ] {
        let started = start(stored_op, stored_view, image_op, image_view);
        assert!(matches!(started, Err(SnapshotError::OtherState(op)) if op == stored_op), "{started:?}");
    }
}

#[test]
fn a_snapshot_of_other_members_or_of_another_epoch_is_refused_and_other_addresses_are_none() {
    let config = config();
    let (op, view) = (Op(0), View::ZERO);
    let refusal = |change: &dyn Fn(&mut Image)| {
        let (format, cluster) = (Image::FORMAT, ClusterId(7));
        let (members_op, members, state) = (Op::ZERO, members(&config), State::default());
        let mut image = Image { format, cluster, members_op, members, op, view, state };
        change(&mut image);
        let bytes = encode(&image);
        open_whole(&config, op, view, &bytes).err()
    };
    assert!(refusal(&|_| ()).is_none());
    assert!(refusal(&|image| image.members.list[0].client.set_port(7)).is_none());
    let foreign: [&dyn Fn(&mut Image); 5] = [
        &|image| image.cluster = ClusterId(8),
        &|image| image.members_op = Op(1),
        &|image| image.members.epoch = Epoch(1),
        &|image| image.members.tie_holder = NodeId(2),
        &|image| {
            image.members.list.truncate(2);
            image.members.tie_holder = NodeId(2);
        },
    ];
    for change in foreign {
        let refused = refusal(change);
        assert!(matches!(refused, Some(SnapshotError::Foreign(_))), "{refused:?}");
    }
    let refused = refusal(&|image| image.members.list.swap(0, 1));
    assert!(
        matches!(refused, Some(SnapshotError::Unreadable(_, recado_proto::DecodeError::Bounds))),
        "{refused:?}"
    );
}

#[test]
fn a_snapshot_of_another_format_is_known_as_such_whatever_follows() {
    let found = Image::FORMAT + 1;
    let refused = |bytes: Vec<u8>| open_whole(&config(), Op(5), View::ZERO, &bytes).err();
    let expected = Some(SnapshotError::OtherFormat { op: Op(5), found });
    assert_eq!(refused([encode(&found), b"what this version cannot read".to_vec()].concat()), expected);
    assert_eq!(refused(encode(&found)), expected);
    assert!(matches!(refused(Vec::new()), Some(SnapshotError::Unreadable(..))));
}

/// Server 3 leads, and has cast nothing yet.
fn following() -> Rig<Peers> {
    let mut rig = Rig::new(true);
    rig.peer(3, vec![members::cast(View::new(1, NodeId(3)), (0, View::ZERO), 0, Vec::new())]);
    rig
}

/// The first chunk of a snapshot of server 3.
fn first_chunk(op: u64, whole: &[u8]) -> ToPeer {
    let (op, view, total, crc) = (Op(op), View::new(1, NodeId(3)), whole.len() as u64, crc32c::crc32c(whole));
    let bytes = whole.iter().take(SnapshotGet::BLOCK).copied().collect();
    ToPeer::SnapshotChunk(SnapshotChunk { op, view, offset: 0, total, crc, bytes })
}

#[test]
fn a_snapshot_of_another_server_that_is_not_taken_is_reported_once_for_each_that_is_offered() {
    let mut rig = following();
    let found = Image::FORMAT + 1;
    for op in [9, 9, 9, 10] {
        rig.peer(3, vec![first_chunk(op, &encode(&found))]);
    }
    assert_eq!(rig.refused, [9, 10].map(|op| SnapshotError::OtherFormat { op: Op(op), found }));
    assert_eq!(rig.node.applied(), Op::ZERO);
}

#[test]
fn a_snapshot_whose_checksum_is_wrong_is_reported_with_its_sender_and_counted_each_time() {
    let mut rig = following();
    for _ in 0..2 {
        let ToPeer::SnapshotChunk(mut chunk) = first_chunk(9, b"a short state") else { unreachable!() };
        chunk.crc ^= 1;
        rig.peer(3, vec![ToPeer::SnapshotChunk(chunk)]);
    }
    assert_eq!(rig.around.damaged, [(NodeId(3), Op(9)); 2]);
    assert_eq!(rig.around.refused, [RefusedDatagram::Snapshot; 2]);
}

#[test]
fn a_snapshot_of_another_format_is_refused_by_its_first_chunk_and_not_requested_again() {
    let found = Image::FORMAT + 1;
    for (format, refused) in [(Image::FORMAT, false), (found, true)] {
        let mut rig = following();
        let whole = [encode(&format), vec![0; 8 * SnapshotGet::BLOCK]].concat();
        rig.peer(3, vec![first_chunk(9, &whole)]);
        rig.flush();
        rig.around.sent.clear();
        for _ in 0..4 {
            rig.pass(Duration::from_millis(40));
            rig.peer(3, vec![first_chunk(9, &whole)]);
            rig.flush();
        }
        let sent = rig.around.sent.iter().flat_map(|(_, opened)| &opened.packets);
        let requests = sent.filter(|packet| matches!(packet, ToPeer::SnapshotGet(_))).count();
        assert_eq!(requests == 0, refused, "{requests} requests");
        let expected = refused.then_some(SnapshotError::OtherFormat { op: Op(9), found });
        assert_eq!(rig.refused, Vec::from_iter(expected));
    }
}

/// The chunks of a snapshot of server 3 that has applied this many ops, with this change.
fn chunks_of(op: u64, change: impl Fn(&mut Image)) -> Vec<ToPeer> {
    let mut service = Service::new(State::default(), config().limits, config().planted);
    (1..=op).for_each(|op| service.apply(Op(op), None, &mut Vec::new()));
    let (format, cluster, members_op, members) = (Image::FORMAT, ClusterId(7), Op::ZERO, members(&config()));
    let (op, view, state) = (Op(op), View::new(1, NodeId(3)), service.state());
    let mut image = Image { format, cluster, members_op, members, op, view, state };
    change(&mut image);
    let whole = encode(&image);
    let (total, crc) = (whole.len() as u64, crc32c::crc32c(&whole));
    let chunks = whole.chunks(40).enumerate().map(|(n, bytes)| {
        let (offset, bytes) = (40 * n as u64, bytes.to_vec());
        ToPeer::SnapshotChunk(SnapshotChunk { op, view, offset, total, crc, bytes })
    });
    chunks.collect()
}

#[test]
fn the_state_of_a_peers_snapshot_takes_the_place_of_the_present_one_which_is_given_away() {
    let mut rig = following();
    for chunk in chunks_of(9, |_| ()) {
        assert_eq!((rig.node.applied(), rig.discarded), (Op::ZERO, 0));
        rig.peer(3, vec![chunk]);
        rig.flush();
    }
    assert_eq!((rig.node.applied(), rig.node.commit(), rig.last()), (Op(9), Op(9), Op(9)));
    assert_eq!((rig.discarded, rig.refused.len()), (1, 0));
}

#[test]
fn a_peers_snapshot_that_is_none_of_this_cluster_is_refused_and_not_requested_again() {
    let mut rig = following();
    let chunks = chunks_of(9, |image| image.cluster = ClusterId(8));
    for _ in 0..2 {
        for chunk in &chunks {
            rig.peer(3, vec![chunk.clone()]);
            rig.flush();
        }
        assert_eq!(rig.refused, [SnapshotError::Foreign(Op(9))]);
        rig.around.sent.clear();
    }
    let sent = rig.around.sent.iter().flat_map(|(_, opened)| &opened.packets);
    assert_eq!(sent.filter(|packet| matches!(packet, ToPeer::SnapshotGet(_))).count(), 0);
    assert_eq!((rig.node.applied(), rig.discarded), (Op::ZERO, 0));
}

#[test]
fn the_state_of_a_transfer_that_has_ended_is_given_away_and_its_refusal_is_reported_to_nobody() {
    let mut rig = following();
    let state = Service::new(State::default(), config().limits, config().planted);
    rig.input(Input::SnapshotOpened { transfer: 7, opened: Ok(Box::new(state)) });
    assert_eq!((rig.node.applied(), rig.discarded), (Op::ZERO, 1));
    rig.input(Input::SnapshotOpened { transfer: 7, opened: Err(SnapshotError::Foreign(Op(9))) });
    assert_eq!((rig.discarded, rig.refused.len()), (1, 0));
}
