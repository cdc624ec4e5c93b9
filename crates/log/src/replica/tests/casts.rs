//! What a backup makes of the primary's heartbeats and casts, what a primary casts again, which backups are
//! present, and how long an election took.

use super::*;

/// The role changes: the new role, the reason, and the time it took.
fn timed_changes(effects: &[Effect]) -> Vec<(RoleName, Cause, Duration)> {
    role_changes(effects).iter().map(|change| (change.role, change.cause, change.took)).collect()
}

// ---- the backup and the heartbeats

#[test]
fn a_candidate_takes_a_round_beyond_every_promise_in_a_heartbeat() {
    let mut one = One::new(boot());
    let members = one.replica.digest;
    one.packet(2, heartbeat(View::new(9, NodeId(3)), HeartbeatState::Backup, 0, members));
    assert_eq!(one.replica.promised(), View::ZERO, "it has promised nothing itself");
    assert_eq!(one.prepare(), View::new(10, NodeId(1)));
}

#[test]
fn an_isolated_primary_gets_an_ack_of_the_durable_entries() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 1, 3)]));
    one.sync();
    let members = one.replica.digest;
    let effects = one.packet(3, heartbeat(view, HeartbeatState::Isolated, 0, members));
    assert_eq!(acked(&effects), Some((Op(1), Op(1), false)));
    assert_eq!(one.replica.role(), RoleName::Candidate, "it is suspected all the same");
}

#[test]
fn the_disk_of_a_primary_that_is_silent_is_not_waited_for() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    let ToPeer::Heartbeat(beat) = heartbeat(view, HeartbeatState::Active, 0, one.replica.digest) else {
        unreachable!()
    };
    one.packet(3, ToPeer::Heartbeat(Heartbeat { disk_ms: 500, ..beat.clone() }));
    one.sync();
    one.idle(MS * 250);
    one.packet(2, ToPeer::Reply(Reply::Agree { view, disk_ms: 0 }));
    assert!(one.replica.tries_to_lead());
    one.sync();
    one.idle(MS * 400);
    assert!(!one.replica.tries_to_lead(), "twice T_coord is over, four turns of that disk are not");
}

// ---- the backup and the casts

#[test]
fn a_primary_whose_casts_arrive_is_not_suspected() {
    let again = cast(View::new(1, NodeId(3)), 0, View::ZERO, 0, vec![entry(1, 1, 3)]);
    let mut one = One::new(boot());
    one.pass(SECOND, |one| one.packet(3, again.clone()));
    assert_eq!(one.replica.role(), RoleName::Backup);
}

#[test]
fn a_suspicion_that_a_cast_ended_does_not_count_into_the_time_of_the_next_one() {
    let again = cast(View::new(1, NodeId(3)), 0, View::ZERO, 0, vec![entry(1, 1, 3)]);
    let mut one = One::new(boot());
    one.packet(3, again.clone());
    one.idle(MS * 300);
    assert_eq!(one.replica.role(), RoleName::Candidate);
    one.packet(3, again);
    assert_eq!(one.replica.role(), RoleName::Backup);
    let changes = timed_changes(&one.idle(SECOND));
    assert_eq!(changes, vec![(RoleName::Candidate, Cause::TimedOut, Duration::ZERO)]);
}

/// A server that holds the durable ops 1 to 3 of `old`.
fn holding_three(old: View) -> One {
    let entries = (1..=3).map(|op| Entry { view: old, ..entry(op, 0, 0) }).collect();
    One::new(Boot { entries, promised: old, ..boot() })
}

#[test]
fn an_acknowledgement_calls_durable_only_what_is_matched_too() {
    let (old, view) = (View::new(1, NodeId(2)), View::new(2, NodeId(3)));
    let mut one = holding_three(old);
    let effects = one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 1, 2)]));
    assert_eq!(one.replica.durable(), Op(3));
    assert_eq!(acked(&effects), Some((Op(1), Op(1), false)));
}

#[test]
fn a_cast_after_an_op_that_differs_here_is_rejected_and_one_after_an_op_that_has_yet_to_come_is_kept() {
    let (old, view) = (View::new(1, NodeId(2)), View::new(2, NodeId(3)));
    let mut one = holding_three(old);
    one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 1, 2)]));
    for (prev, rejected) in [(3, true), (4, false)] {
        let effects = one.packet(3, cast(view, prev, view, 0, vec![entry(prev + 1, 2, 3)]));
        assert_eq!(acked(&effects), Some((Op(1), Op(1), rejected)), "after op {prev}");
    }
}

#[test]
fn a_cast_with_an_op_out_of_order_or_a_view_above_its_own_is_not_taken() {
    let (old, view) = (View::new(1, NodeId(2)), View::new(2, NodeId(3)));
    for (what, wrong) in [("op 3 for op 1", entry(3, 1, 2)), ("a later view", entry(1, 3, 3))] {
        let mut one = holding_three(old);
        let effects = one.packet(3, cast(view, 0, View::ZERO, 0, vec![wrong]));
        assert_eq!(acked(&effects), Some((Op(0), Op(0), false)), "{what}");
        assert_eq!((one.replica.last(), one.replica.log.view_at(Op(1))), (Op(3), Some(old)), "{what}");
    }
}

#[test]
fn an_entry_is_given_to_the_journal_before_it_is_applied() {
    let mut one = One::new(boot());
    let effects = one.packet(3, cast(View::new(1, NodeId(3)), 0, View::ZERO, 1, vec![entry(1, 1, 3)]));
    let append = |effect: &Effect| matches!(effect, Effect::Journal { task: Task::Append { .. }, .. });
    let given = effects.iter().position(append);
    let applied = effects.iter().position(|effect| matches!(effect, Effect::Commit(_)));
    assert!(given.is_some() && given < applied, "{given:?} and {applied:?}");
}

#[test]
fn a_committed_entry_is_not_replaced_by_a_fetched_one() {
    let (old, other) = (View::new(1, NodeId(2)), View::new(3, NodeId(3)));
    let entries = (1..=5).map(|op| entry(op, 1, 2)).collect();
    let mut one = One::new(Boot { entries, commit: Op(5), promised: other, ..boot() });
    let view = one.prepare();
    one.sync();
    let ToPeer::Reply(Reply::Promise(empty)) = promise(view) else { unreachable!() };
    let index = vec![(View::ZERO, Op::ZERO), (old, Op(1)), (other, Op(6))];
    let longer = Promise { last_view: other, last_op: Op(7), index, ..empty };
    let asked = said(&one.packet(3, ToPeer::Reply(Reply::Promise(longer))), 3);
    let fetch = asked.iter().find_map(|packet| match packet {
        ToPeer::Fetch(fetch) => Some(fetch.query),
        _ => None,
    });
    assert!(fetch.is_some(), "ops 6 and 7 are lacking");
    // The answer has another entry at op 5 than the promise of the same server named.
    let entries = (5..=7).map(|op| entry(op, 3, 3)).collect();
    let (prev_op, prev_view, commit) = (Op(4), old, Op::ZERO);
    one.packet(
        3,
        ToPeer::Entries(Entries { view, fetch, prev_op, prev_view, commit, entries, members_op: Op::ZERO }),
    );
    assert_eq!((one.replica.log.view_at(Op(5)), one.replica.log.view_at(Op(6))), (Some(old), Some(other)));
}

// ---- the primary casts

/// The first and the last op of each cast to server 2.
fn casts(effects: &[Effect]) -> Vec<(u64, u64)> {
    let casts = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to: NodeId(2), tracked: Some((first, last)), .. } => Some((first.0, last.0)),
        _ => None,
    });
    casts.collect()
}

/// Server 1 leads and has cast as many ops as each number says, from op 2 on, one cast for each number.
fn casting(numbers: &[u64]) -> One {
    let mut one = One::leading();
    for number in numbers {
        for _ in 0..*number {
            one.replica.propose([].into());
        }
        assert_eq!(casts(&one.input(Input::Deadline)).len(), 1);
    }
    one
}

/// Server 2 has matched and fsynced the ops up to `matched`.
fn ack(one: &One, matched: u64, rejected: bool) -> ToPeer {
    let (view, durable, matched, applied) = (one.replica.promised(), Op(matched), Op(matched), Op(1));
    ToPeer::EntriesAck(EntriesAck { view, durable, matched, commit: applied, rejected })
}

/// Takes an input at this time, without a flush.
fn handle(one: &mut One, input: Input) {
    one.replica.handle(one.now, input, &mut Vec::new());
}

/// A cast of these ops to server 2 is believed lost.
fn lose(one: &mut One, first: u64, last: u64) {
    handle(one, Input::Lost { peer: NodeId(2), ops: (Op(first), Op(last)) });
}

/// The casts to server 2 of a flush at this time.
fn flush(one: &mut One, window: usize) -> Vec<(u64, u64)> {
    let mut effects = Vec::new();
    one.replica.flush(one.now, |_| Room { window, ..AMPLE }, &mut effects);
    casts(&effects)
}

#[test]
fn what_was_lost_and_what_is_new_share_the_room_of_the_link() {
    let mut one = casting(&[1, 1, 1]);
    lose(&mut one, 2, 2);
    lose(&mut one, 4, 4);
    one.replica.propose([].into());
    assert_eq!(flush(&mut one, 1), vec![(2, 2)]);
    assert_eq!(flush(&mut one, AMPLE.window), vec![(4, 4), (5, 5)]);
}

#[test]
fn what_finds_no_room_is_cast_later_whatever_was_lost_before_it() {
    let mut one = casting(&[3, 2]);
    let rejected = ack(&one, 1, true);
    assert_eq!(casts(&one.packet(2, rejected)), vec![(2, 6)], "all of them again, in one cast");
    lose(&mut one, 2, 4);
    assert_eq!(flush(&mut one, AMPLE.window), vec![(2, 4)]);
    lose(&mut one, 2, 6);
    let empty = codec::encoded_len(one.replica.entry(Op(2)).unwrap());
    assert_eq!(flush(&mut one, 3 * empty), vec![(2, 4)]);
    assert_eq!(flush(&mut one, AMPLE.window), vec![(5, 6)]);
}

#[test]
fn a_rejection_moves_the_cast_back_to_the_matched_op_whatever_was_lost_beyond_it() {
    let mut one = casting(&[1, 2]);
    lose(&mut one, 3, 4);
    let rejected = ack(&one, 1, true);
    assert_eq!(casts(&one.packet(2, rejected)), vec![(2, 4)]);
}

#[test]
fn a_rejection_moves_the_cast_back_an_eighth_of_a_heartbeat_after_the_last_one_did_and_no_earlier() {
    let mut one = casting(&[1]);
    let packet = ack(&one, 1, true);
    assert_eq!(casts(&one.packet(2, packet.clone())), vec![(2, 2)]);
    let (moved, pause) = (one.now, Timing::DEFAULT.heartbeat / 8);
    for (wait, wanted) in [(pause - Duration::from_micros(1), vec![]), (pause, vec![(2, 2)])] {
        one.now = moved + wait;
        let (from, incarnation, packet) = (NodeId(2), Incarnation(1), packet.clone());
        handle(&mut one, Input::Packet { from, incarnation, packet });
        assert_eq!(flush(&mut one, AMPLE.window), wanted, "after {wait:?}");
    }
}

#[test]
fn what_a_backup_has_matched_is_not_cast_again_when_the_cast_is_believed_lost() {
    let mut one = casting(&[3]);
    let three = ack(&one, 3, false);
    one.packet(2, three);
    lose(&mut one, 2, 4);
    assert_eq!(flush(&mut one, AMPLE.window), vec![(4, 4)]);

    // Not even if the backup then starts again: it asks for what it lacks.
    let mut one = casting(&[3]);
    let four = ack(&one, 4, false);
    one.packet(2, four);
    lose(&mut one, 2, 4);
    assert!(casts(&one.packet_of_incarnation(2, 2, LEARN)).is_empty());
}

#[test]
fn a_loss_of_what_the_cast_has_yet_to_reach_again_changes_nothing() {
    let mut one = casting(&[1, 2]);
    let (from, incarnation, packet) = (NodeId(2), Incarnation(1), ack(&one, 1, true));
    handle(&mut one, Input::Packet { from, incarnation, packet });
    lose(&mut one, 2, 2);
    assert_eq!(flush(&mut one, AMPLE.window), vec![(2, 4)], "in one cast");
}

#[test]
fn of_two_losses_that_begin_at_one_op_the_longer_one_is_cast_again() {
    for losses in [[(2, 2), (2, 4)], [(2, 4), (2, 2)]] {
        let mut one = casting(&[3]);
        for (first, last) in losses {
            lose(&mut one, first, last);
        }
        assert_eq!(flush(&mut one, AMPLE.window), vec![(2, 4)], "{losses:?}");
    }
}

#[test]
fn a_snapshot_is_offered_once_a_heartbeat() {
    let old = View::new(1, NodeId(2));
    let (base, entries) = ((old, Op(5)), vec![entry(6, 1, 2)]);
    let mut one = One::new(Boot { base, entries, commit: Op(6), promised: old, ..boot() });
    let view = one.prepare();
    one.sync();
    one.packet(2, promise(view));
    let offer = Effect::ReadSnapshot { to: NodeId(2), op: Op::ZERO, offset: 0, blocks: 1 };
    let behind = ack(&one, 4, true);
    assert!(one.packet(2, behind).contains(&offer));
    let offered: Vec<u64> = (1..=100).filter(|_| one.input(Input::Deadline).contains(&offer)).collect();
    assert_eq!(offered, vec![40, 80], "in ms");
}

// ---- the backups of a primary

/// Server `from` echoes the heartbeat `beat` of this primary.
fn echo(one: &mut One, from: u16, beat: u64, leaving: bool) {
    let (view, members) = (one.replica.promised(), one.replica.digest);
    let ToPeer::Heartbeat(echo) = heartbeat(view, HeartbeatState::Backup, 0, members) else { unreachable!() };
    one.packet(from, ToPeer::Heartbeat(Heartbeat { beat, leaving, ..echo.clone() }));
}

fn beat(one: &One) -> u64 {
    let Role::Primary(primary) = &one.replica.role else { unreachable!() };
    primary.beat()
}

/// Passes time until this primary sends the heartbeat `number`. Returns that time.
fn until_beat(one: &mut One, number: u64) -> Moment {
    assert!(beat(one) < number);
    while beat(one) < number {
        one.input(Input::Deadline);
    }
    one.now
}

/// The time since which server 2 is present, and when the newest heartbeat that it echoed was sent.
fn presence(one: &One) -> (Option<Moment>, Option<Moment>) {
    let Role::Primary(primary) = &one.replica.role else { unreachable!() };
    let backup = &primary.backups[&NodeId(2)];
    (backup.present_since, backup.echoed)
}

#[test]
fn a_primary_knows_when_it_sent_its_last_64_heartbeats() {
    let mut one = One::leading();
    let sent_at = until_beat(&mut one, 10);
    until_beat(&mut one, 73);
    echo(&mut one, 2, 9, false);
    assert_eq!(presence(&one), (None, None), "the 65th last");
    echo(&mut one, 2, 10, false);
    assert_eq!(presence(&one), (Some(one.now), Some(sent_at)));
}

#[test]
fn a_backup_is_present_without_a_break_while_the_heartbeats_that_it_echoes_are_600_ms_apart_or_less() {
    let mut one = One::leading();
    until_beat(&mut one, 5);
    echo(&mut one, 2, 5, false);
    let since = one.now;
    // Heartbeats are sent every 40 ms.
    until_beat(&mut one, 20);
    echo(&mut one, 2, 20, false);
    assert_eq!(presence(&one).0, Some(since), "600 ms");
    until_beat(&mut one, 36);
    echo(&mut one, 2, 36, false);
    assert_eq!(presence(&one).0, Some(one.now), "640 ms");
}

#[test]
fn a_stopping_primary_hands_over_to_no_server_that_does_not_run_or_stops_too() {
    for (refused, leaving, heir) in [(false, false, 3), (true, false, 2), (false, true, 2)] {
        let mut one = One::leading();
        one.echo(2, 0);
        one.echo(3, 0);
        if refused {
            one.input(Input::PortRefused(NodeId(3)));
        }
        if leaving {
            let latest = beat(&one);
            echo(&mut one, 3, latest, true);
        }
        one.input(Input::Stop);
        let effects = one.idle(MS * 20);
        for peer in [2, 3] {
            let permitted = said(&effects, peer).iter().any(|packet| matches!(packet, ToPeer::Transfer(_)));
            assert_eq!(permitted, peer == heir, "server {peer}, refused: {refused}, leaving: {leaving}");
        }
    }
}

// ---- the time and the reason of an election

#[test]
fn neither_ones_own_election_nor_an_isolation_counts_into_the_time_of_the_next_election() {
    for isolated in [false, true] {
        let mut one = One::leading();
        if isolated {
            one.idle(MS * 1_300);
            assert_eq!(one.replica.role(), RoleName::Isolated);
            one.echo(2, 0);
            assert_eq!(one.replica.role(), RoleName::Primary);
        }
        let changes = timed_changes(&one.packet(2, refuse(View::new(9, NodeId(2)))));
        let outbid = (RoleName::Candidate, Cause::Outbid, Duration::ZERO);
        assert_eq!(changes, vec![outbid], "isolated before: {isolated}");
    }
}

#[test]
fn a_primary_that_is_outbid_and_gives_way_does_not_name_the_cause_of_its_own_election() {
    let mut one = One::leading();
    let effects = one.packet(2, refuse(View::new(9, NodeId(2))));
    assert!(sent(&effects, |packet| matches!(packet, ToPeer::Election(Election::Prepare { .. }))));
    let effects = one.packet(2, refuse(View::new(20, NodeId(2))));
    assert_eq!(changes(&effects), vec![(RoleName::Backup, Cause::TimedOut)]);
}
