//! What a server promises, acknowledges and believes of a view.

use super::*;

#[test]
fn a_promise_is_sent_only_when_it_is_durable() {
    let mut one = One::new(boot());
    assert_eq!(promises(&one.packet(2, prepare(View::new(1, NodeId(2))))), 0);
    assert_eq!(promises(&one.sync()), 1);
}

#[test]
fn a_promise_raised_by_a_packet_of_its_view_is_sent_only_when_it_is_durable() {
    let view = View::new(1, NodeId(2));
    let mut one = One::new(boot());
    one.packet(2, ToPeer::Coordinator(Coordinator::new(view, Vec::new())));
    assert_eq!(one.replica.promised(), view);
    assert_eq!(promises(&one.packet(2, prepare(view))), 0, "a PREPARE that was late");
    assert_eq!(promises(&one.sync()), 1);
}

#[test]
fn what_is_below_the_promise_is_refused() {
    let mut one = One::new(boot());
    one.packet(3, prepare(View::new(5, NodeId(3))));
    one.sync();
    let old = View::new(4, NodeId(2));
    let effects = one.packet(2, cast(old, 0, View::ZERO, 0, vec![entry(1, 4, 2)]));
    assert_eq!(one.replica.last(), Op(0));
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Send { packet: ToPeer::Reply(Reply::Refuse { .. }), .. }))
    );
    assert_eq!(promises(&one.packet(2, prepare(old))), 0);
}

#[test]
fn an_entry_is_acknowledged_only_when_fsynced_and_matched() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    let effects = one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 1, 3), entry(2, 1, 3)]));
    assert_eq!(acked(&effects).map(|(durable, ..)| durable).unwrap_or_default(), Op(0));
    assert_eq!(acked(&one.sync()), Some((Op(2), Op(2), false)));
}

#[test]
fn what_an_older_primary_left_is_not_acknowledged_to_the_new_one_before_it_matched() {
    let old =
        Boot { entries: vec![entry(1, 1, 2), entry(2, 1, 2)], promised: View::new(1, NodeId(2)), ..boot() };
    let mut one = One::new(old);
    let view = View::new(2, NodeId(3));
    one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 1, 2)]));
    assert_eq!(acked(&one.sync()).map(|(durable, ..)| durable).unwrap_or(Op(1)), Op(1));
    let effects = one.packet(3, cast(view, 1, View::new(1, NodeId(2)), 0, vec![entry(2, 2, 3)]));
    assert!(
        acked(&effects).is_none_or(|(durable, ..)| durable <= Op(1)),
        "the new entry 2 is not durable yet"
    );
    assert_eq!(acked(&one.sync()), Some((Op(2), Op(2), false)));
}

#[test]
fn a_cast_that_does_not_join_on_is_rejected_with_the_match_point() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    let effects = one.packet(3, cast(view, 4, view, 0, vec![entry(5, 1, 3)]));
    assert_eq!(acked(&effects), Some((Op(0), Op(0), true)));
}

#[test]
fn a_cast_sent_again_cuts_nothing() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    let three = vec![entry(1, 1, 3), entry(2, 1, 3), entry(3, 1, 3)];
    one.packet(3, cast(view, 0, View::ZERO, 0, three));
    one.sync();
    one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 1, 3)]));
    assert_eq!((one.replica.last(), one.replica.durable()), (Op(3), Op(3)));
}

#[test]
fn a_different_view_at_an_op_replaces_the_suffix_and_what_was_durable_of_it() {
    let (old, view) = (View::new(1, NodeId(2)), View::new(2, NodeId(3)));
    let entries = vec![entry(1, 1, 2), entry(2, 1, 2), entry(3, 1, 2)];
    let mut one = One::new(Boot { entries, promised: old, ..boot() });
    one.packet(3, cast(view, 1, old, 0, vec![entry(2, 2, 3)]));
    assert_eq!((one.replica.last(), one.replica.durable()), (Op(2), Op(1)));
    one.sync();
    assert_eq!(one.replica.durable(), Op(2));
}

/// The entries on the disk beyond an installed snapshot belong to another log: an entry after the snapshot
/// is acknowledged only when that entry itself is on the disk.
#[test]
fn what_was_durable_beyond_an_installed_snapshot_counts_for_nothing_that_follows_it() {
    let (old, view) = (View::new(1, NodeId(2)), View::new(2, NodeId(3)));
    for unsynced in [false, true] {
        let held = if unsynced { 2 } else { 6 };
        let entries = (1..=held).map(|op| entry(op, 1, 2)).collect();
        let mut one = One::new(Boot { entries, promised: old, commit: Op(2), ..boot() });
        if unsynced {
            // The journal still writes them when the snapshot comes.
            one.packet(2, cast(old, 2, old, 2, (3..=6).map(|op| entry(op, 1, 2)).collect()));
        }
        let appended = one.replica.journaling.tasks;
        one.packet(3, heartbeat(view, HeartbeatState::Active, 4, digest(&[NodeId(1), NodeId(2), NodeId(3)])));
        let mut effects = Vec::new();
        assert!(one.install_arrived(4, view, &mut effects));
        let install = one.replica.journaling.tasks;
        effects.extend(one.packet(3, cast(view, 4, view, 4, vec![entry(5, 2, 3)])));
        effects.extend(one.input(Input::Journaled(appended)));
        assert_eq!((one.replica.last(), one.replica.durable()), (Op(5), Op(2)));
        effects.extend(one.input(Input::Journaled(install)));
        assert_eq!(one.replica.durable(), Op(4));
        let told = effects.iter().filter_map(|effect| acked(std::slice::from_ref(effect)));
        assert_eq!(told.map(|(durable, ..)| durable).max(), Some(Op(4)), "entry 5 is not on the disk yet");
        assert_eq!(acked(&one.sync()), Some((Op(5), Op(5), false)));
    }
}

/// Casts that arrived early belong to the primary that sent them: the next one may have other entries
/// there.
#[test]
fn a_cast_that_came_too_early_in_one_view_is_gone_in_the_next() {
    let (old, view) = (View::new(1, NodeId(3)), View::new(2, NodeId(2)));
    let mut one = One::new(boot());
    one.packet(3, cast(old, 0, View::ZERO, 0, vec![entry(1, 1, 3), entry(2, 1, 3)]));
    // The casts of ops 3 and 4 are lost here, but the next primary has them.
    let effects = one.packet(3, cast(old, 4, old, 0, vec![entry(5, 1, 3)]));
    assert_eq!(acked(&effects).map(|(.., rejected)| rejected), Some(false), "it is kept");
    one.sync();
    one.packet(2, cast(view, 2, old, 0, vec![entry(3, 1, 3), entry(4, 1, 3)]));
    assert_eq!(one.replica.last(), Op(4), "entry 5 is none of this view's");
    assert_eq!(acked(&one.sync()), Some((Op(4), Op(4), false)));
    one.packet(2, cast(view, 4, old, 0, vec![entry(5, 2, 2)]));
    assert_eq!(one.replica.log.view_at(Op(5)), Some(view));
    assert_eq!(acked(&one.sync()), Some((Op(5), Op(5), false)));
}

#[test]
fn the_commit_never_passes_what_is_matched() {
    let old = View::new(1, NodeId(2));
    let mut one = One::new(Boot { entries: vec![entry(1, 1, 2), entry(2, 1, 2)], promised: old, ..boot() });
    let view = View::new(2, NodeId(3));
    one.packet(3, cast(view, 0, View::ZERO, 2, Vec::new()));
    assert_eq!(one.replica.commit(), Op(0));
}

#[test]
fn a_heartbeat_from_other_members_is_not_believed() {
    let mut one = One::new(boot());
    one.packet(3, heartbeat(View::new(9, NodeId(3)), HeartbeatState::Active, 0, 7));
    assert_eq!(one.replica.promised(), View::ZERO);
}

#[test]
fn a_heartbeat_of_a_primary_whose_members_an_entry_named_is_not_believed() {
    let view = View::new(9, NodeId(3));
    for (members_op, promised) in [(Op(5), View::ZERO), (Op::ZERO, view)] {
        let mut one = One::new(boot());
        let beat = heartbeat(view, HeartbeatState::Active, 0, one.replica.digest);
        let ToPeer::Heartbeat(beat) = beat else { unreachable!() };
        one.packet(3, ToPeer::Heartbeat(Heartbeat { members_op, ..beat }));
        assert_eq!(one.replica.promised(), promised, "members of {members_op}");
    }
}

#[test]
fn a_primary_that_lacks_committed_entries_is_reported_and_not_followed() {
    let entries: Vec<Entry> = (1..=6).map(|op| entry(op, 1, 2)).collect();
    let old = View::new(1, NodeId(2));
    let known = Boot { entries, commit: Op(5), promised: old, ..boot() };
    let view = View::new(4, NodeId(3));

    // The leader's log is shorter than the ops committed here.
    let mut one = One::new(known.clone());
    let beat = heartbeat(view, HeartbeatState::Active, 2, digest(&[NodeId(1), NodeId(2), NodeId(3)]));
    let ToPeer::Heartbeat(beat) = beat else { unreachable!() };
    let effects = one.packet(3, ToPeer::Heartbeat(Heartbeat { last: Op(3), ..beat.clone() }));
    let found = Contradiction { view, op: Op(4), commit: Op(5), count: 1 };
    assert_eq!((contradiction(&effects), acked(&effects)), (Some(found), None));

    // The leader has another entry at a committed op.
    let mut one = One::new(known.clone());
    let effects = one.packet(3, cast(view, 3, old, 3, vec![entry(4, 4, 3), entry(5, 4, 3), entry(6, 4, 3)]));
    assert_eq!(contradiction(&effects), Some(found));
    assert_eq!(
        (acked(&one.sync()), one.replica.log.view_at(Op(5))),
        (None, Some(old)),
        "it keeps what it has"
    );

    // The leader supersedes only an op that was never committed, and that is reported.
    let mut one = One::new(known.clone());
    let effects = one.packet(3, cast(view, 5, old, 5, vec![entry(6, 4, 3)]));
    assert_eq!(contradiction(&effects), None);
    assert!(effects.contains(&Effect::Report(Report::Overwritten { view, first: Op(6), last: Op(6) })));
    assert_eq!(acked(&one.sync()), Some((Op(6), Op(6), false)));

    // In its next view the leader is not believed before its entries were compared.
    let mut one = One::new(known);
    one.packet(3, ToPeer::Heartbeat(Heartbeat { last: Op(3), ..beat.clone() }));
    let next = View::new(5, NodeId(3));
    let effects = one.packet(3, ToPeer::Heartbeat(Heartbeat { view: next, last: Op(7), ..beat.clone() }));
    assert_eq!((acked(&effects), acked(&one.sync())), (None, None));
    one.packet(3, cast(next, 5, old, 5, vec![entry(6, 5, 3)]));
    assert_eq!(acked(&one.sync()), Some((Op(6), Op(6), false)));
}
