//! From one leader to the next: the stop of a primary and its hand-over, the vote of a learner, the promise,
//! the leader whose log lacks an op, the ports that refuse, and the order of the journal's tasks.

use recado_proto::packet::Transfer;

use super::*;
use crate::replica::promise::PROMISES_MAX;

fn transfer(view: View) -> ToPeer {
    ToPeer::Transfer(Transfer { view, last: Op(2) })
}

/// Server 1 follows primary 3 of the view that is returned, and has its two entries on the disk.
fn following() -> (One, View) {
    let view = View::new(2, NodeId(3));
    let mut one = One::new(boot());
    one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 2, 3), entry(2, 2, 3)]));
    one.sync();
    (one, view)
}

/// Server 1, which has just begun to probe because it has heard nobody since its start.
fn probing() -> One {
    let mut one = One::new(boot());
    let began = one.now;
    while one.replica.role() == RoleName::Backup {
        assert!(one.now.since(began) < SECOND, "it suspects nobody");
        one.idle(MS * 9);
    }
    one
}

/// Primary 1 has just begun to hand over to server 3, whose disk takes `disk_ms`.
fn handing_over(disk_ms: u32) -> One {
    let mut one = One::leading();
    let began = one.now;
    while one.replica.accepts() {
        assert!(one.now.since(began) < SECOND * 11, "it hands nothing over");
        one.pass(MS * 10, |one| one.echo(3, disk_ms));
    }
    one
}

fn stopped(effects: &[Effect]) -> bool {
    effects.contains(&Effect::Stopped)
}

/// The servers that were sent a TRANSFER.
fn transfers(effects: &[Effect]) -> Vec<NodeId> {
    let receivers = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, packet: ToPeer::Transfer(_), .. } => Some(*to),
        _ => None,
    });
    receivers.collect()
}

/// The heartbeats sent, echoes included.
fn heartbeats(effects: &[Effect]) -> Vec<Heartbeat> {
    let heartbeats = effects.iter().filter_map(|effect| match effect {
        Effect::Send { packet: ToPeer::Heartbeat(heartbeat), .. } => Some(heartbeat.clone()),
        _ => None,
    });
    heartbeats.collect()
}

fn tasks(effects: &[Effect]) -> Vec<Task> {
    let tasks = effects.iter().filter_map(|effect| match effect {
        Effect::Journal { task, .. } => Some(task.clone()),
        _ => None,
    });
    tasks.collect()
}

// ---- the stop

#[test]
fn a_stopping_primary_of_one_ends_at_once_and_one_of_two_hands_over_first() {
    let mut one = One::among(1, boot());
    one.prepare();
    one.sync();
    one.sync();
    assert!(one.replica.accepts());
    assert!(stopped(&one.input(Input::Stop)));

    let mut one = One::among(2, boot());
    let view = one.prepare();
    one.sync();
    one.packet(2, promise(view));
    one.sync();
    one.packet(2, acknowledgement(view));
    assert!(one.replica.accepts());
    assert!(!stopped(&one.input(Input::Stop)));
}

#[test]
fn a_stopping_primary_without_a_successor_ends_after_one_second() {
    let mut one = One::leading();
    one.input(Input::Stop);
    one.now = one.now + MS * 998;
    assert!(!stopped(&one.input(Input::Deadline)), "after 999 ms");
    assert!(stopped(&one.input(Input::Deadline)), "after 1 s");
}

#[test]
fn a_stopping_primary_that_is_deposed_waits_for_the_next_one_as_long_as_the_disks_may_take() {
    let mut one = One::leading();
    one.input(Input::Stop);
    let view = View::new(one.replica.promised().round() + 1, NodeId(2));
    let waits_for = WaitsFor::Promises;
    let prepare = ToPeer::Election(Election::Prepare {
        view,
        progress: 0,
        waits_for,
        disk_ms: 500,
        members_op: Op::ZERO,
    });
    one.packet(2, prepare.clone());
    one.sync();
    let early = one.pass(MS * 3_900, |one| one.packet(2, prepare.clone()));
    assert!(!stopped(&early), "a hand-over and an election of four turns each");
    assert!(stopped(&one.pass(MS * 200, |one| one.packet(2, prepare.clone()))));
}

#[test]
fn a_stopping_primary_no_longer_reports_the_write_that_its_disk_has_not_ended() {
    let slowest = |effects: &[Effect]| heartbeats(effects).iter().map(|heartbeat| heartbeat.disk_ms).max();
    let mut one = One::leading();
    one.replica.propose([].into());
    let reported = slowest(&one.idle(MS * 100));
    assert!(reported.is_some_and(|ms| ms >= 50), "{reported:?}");
    one.input(Input::Stop);
    let reported = slowest(&one.idle(MS * 100));
    assert!(reported.is_some_and(|ms| ms < 10), "{reported:?}");
}

// ---- the hand-over

#[test]
fn a_primary_whose_hand_over_fails_goes_on_and_watches_the_target_from_the_start() {
    let mut one = handing_over(0);
    assert_eq!(one.replica.propose([].into()), None, "the target is to get everything");
    one.pass(MS * 200, |one| one.echo(3, 0));
    one.pass(MS * 9_500, |one| {
        assert!(one.replica.accepts());
        one.echo(3, 0)
    });
    let effects = one.pass(SECOND, |one| one.echo(3, 0));
    assert_eq!(transfers(&effects).first(), Some(&NodeId(3)));
}

#[test]
fn a_primary_that_was_isolated_in_a_hand_over_accepts_again_with_its_majority() {
    let mut one = handing_over(500);
    let began = one.now;
    while one.replica.role() != RoleName::Isolated {
        assert!(one.now.since(began) < MS * 1_500, "it hears nobody");
        one.idle(MS * 10);
    }
    one.echo(2, 500);
    assert!(one.replica.accepts(), "the hand-over, which may take 2 s, has ended");
}

#[test]
fn a_transfer_is_sent_again_after_a_heartbeat() {
    let mut one = One::leading();
    one.echo(2, 0);
    one.input(Input::Stop);
    assert_eq!(transfers(&one.input(Input::Deadline)), vec![NodeId(2)]);
    for wait in 1..=40 {
        let again = !transfers(&one.input(Input::Deadline)).is_empty();
        assert_eq!(again, wait == 40, "after {wait} ms");
    }
}

#[test]
fn a_higher_server_is_handed_the_lead_once_it_has_been_present_for_ten_seconds() {
    let mut one = One::leading();
    let since = one.now + MS;
    one.pass(MS * 9_700, |one| one.echo(3, 0));
    one.now = since + MS * 9_998;
    one.input(Input::Deadline);
    assert!(!one.replica.hands_over(), "after 9,999 ms");
    one.input(Input::Deadline);
    assert!(one.replica.hands_over(), "after 10 s");
}

#[test]
fn a_higher_server_that_lacks_more_than_64_ops_is_handed_nothing() {
    for (lacking, handed) in [(64, true), (65, false)] {
        let mut one = One::leading();
        for _ in 0..lacking {
            one.replica.propose([].into());
        }
        one.input(Input::Deadline);
        one.sync();
        let mut paused = false;
        one.pass(SECOND * 11, |one| {
            one.echo(3, 0);
            paused |= !one.replica.accepts();
        });
        assert_eq!(paused, handed, "{lacking} ops");
    }
}

/// A learner acknowledges nothing, because it may have broken a promise.
#[test]
fn a_higher_server_that_acknowledges_nothing_is_handed_nothing() {
    let mut one = One::leading();
    let (view, members) = (one.replica.promised(), one.replica.digest);
    one.pass(SECOND * 11, |one| {
        let Role::Primary(primary) = &one.replica.role else { unreachable!() };
        let beat = primary.beat();
        let ToPeer::Heartbeat(echo) = heartbeat(view, HeartbeatState::Backup, 0, members) else {
            unreachable!()
        };
        one.packet(3, ToPeer::Heartbeat(Heartbeat { beat, ..echo.clone() }));
        assert!(one.replica.accepts());
    });
}

#[test]
fn a_server_that_has_not_echoed_for_t_s_is_no_successor() {
    for (wait, handed) in [(599, true), (600, false)] {
        let mut one = One::leading();
        // The latest heartbeat was sent now.
        let sent = one.now;
        one.echo(2, 0);
        one.now = sent + MS * (wait - 1);
        one.input(Input::Stop);
        assert_eq!(one.replica.hands_over(), handed, "after {wait} ms");
    }
}

#[test]
fn a_server_whose_port_refuses_is_no_successor() {
    let mut one = One::leading();
    one.echo(2, 0);
    one.echo(3, 0);
    one.input(Input::PortRefused(NodeId(3)));
    one.input(Input::Stop);
    assert_eq!(transfers(&one.input(Input::Deadline)), vec![NodeId(2)]);
}

#[test]
fn a_transfer_counts_only_from_the_primary_of_the_promised_view() {
    let (mut one, view) = following();
    one.packet(2, transfer(view));
    assert_eq!(one.replica.role(), RoleName::Backup, "of another server");
    one.packet(3, transfer(View::new(1, NodeId(3))));
    assert_eq!(one.replica.role(), RoleName::Backup, "of an older view");
    one.packet(3, transfer(view));
    assert!(one.replica.tries_to_lead());
}

#[test]
fn a_candidate_after_a_transfer_that_gives_way_names_the_transfer() {
    let (mut one, view) = following();
    one.packet(3, transfer(view));
    let refuse = ToPeer::Reply(Reply::Refuse { promised: View::new(9, NodeId(2)) });
    assert_eq!(changes(&one.packet(2, refuse)), vec![(RoleName::Backup, Cause::Transfer)]);
}

#[test]
fn a_hand_over_that_nobody_takes_up_ends_at_t_coord() {
    let mut one = One::leading();
    one.pass(MS * 9_900, |one| one.echo(3, 0));
    let mut accepts = || {
        one.input(Input::Deadline);
        one.replica.accepts()
    };
    assert!((0..1_000).any(|_| !accepts()), "it hands over");
    let ended = (1..=1_000).find(|_| accepts());
    assert_eq!(ended.map(|ms| MS * ms), Some(T_COORD));
}

// ---- learners

#[test]
fn a_learner_that_repeats_learn_gets_one_answer_with_its_latest_nonce() {
    let mut one = One::new(boot());
    for (peer, nonce) in [(2, 1), (3, 2), (2, 3)] {
        one.packet_of_incarnation(2, peer, ToPeer::Learn(Learn { nonce }));
    }
    let effects = one.sync();
    let answers = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, packet: ToPeer::LearnOk(answer), .. } => Some((*to, answer.nonce)),
        _ => None,
    });
    let mut answers: Vec<(NodeId, u64)> = answers.collect();
    answers.sort();
    assert_eq!(answers, vec![(NodeId(2), 3), (NodeId(3), 2)]);
}

/// A learner that has reached the commit of primary 3, and what it did then.
fn voting() -> (One, Vec<Effect>) {
    let (mut one, answer) = learner();
    one.packet(2, answer(None));
    one.packet(3, answer(Some(0)));
    let effects = one.packet(3, coordinator(View::new(4, NodeId(3))));
    (one, effects)
}

#[test]
fn a_learner_gives_its_vote_to_the_journal_once() {
    let (mut one, mut effects) = voting();
    for _ in 0..3 {
        effects.extend(one.input(Input::Deadline));
    }
    let mut votes = tasks(&effects);
    votes.retain(|task| matches!(task, Task::Vote(_)));
    assert_eq!(votes, vec![Task::Vote(View::new(4, NodeId(3)))]);
}

#[test]
fn a_learner_that_votes_again_begins_to_wait_for_the_primary_then() {
    let (mut one, _) = voting();
    one.idle(MS * 300);
    one.sync();
    assert_eq!(one.replica.role(), RoleName::Backup);
    one.idle(MS * 150);
    assert_eq!(one.replica.role(), RoleName::Backup, "the primary has all of T_s");
    one.idle(MS * 60);
    assert_eq!(one.replica.role(), RoleName::Candidate);
}

// ---- the log and the commit

#[test]
fn what_the_disk_knows_to_be_committed_is_applied_at_the_start() {
    let entries: Vec<Entry> = (1..=3).map(|op| entry(op, 1, 2)).collect();
    let boot = Boot { entries, commit: Op(2), promised: View::new(1, NodeId(2)), ..boot() };
    let mut effects = Vec::new();
    ReplicaManager::new(&config(1, 3), boot, 1, Moment(1_000_000), &mut effects);
    let commit = |effect: &&Effect| matches!(effect, Effect::Commit(_));
    assert_eq!(effects.iter().filter(commit).collect::<Vec<_>>(), [&Effect::Commit(Op(2))]);
}

#[test]
fn an_entry_that_is_held_can_be_read() {
    let (one, _) = following();
    assert_eq!(one.replica.entry(Op(2)), Some(&entry(2, 2, 3)));
    assert_eq!(one.replica.entry(Op(3)), None);
}

#[test]
fn a_leader_that_lacks_what_was_committed_since_the_start_is_a_contradiction() {
    let (old, view) = (View::new(1, NodeId(3)), View::new(2, NodeId(2)));
    let mut one = One::new(boot());
    one.packet(3, cast(old, 0, View::ZERO, 3, (1..=3).map(|op| entry(op, 1, 3)).collect()));
    let beat = heartbeat(view, HeartbeatState::Active, 0, one.replica.digest);
    let ToPeer::Heartbeat(beat) = beat else { unreachable!() };
    let effects = one.packet(2, ToPeer::Heartbeat(Heartbeat { last: Op(2), ..beat.clone() }));
    let found = Contradiction { view, op: Op(3), commit: Op(3), count: 1 };
    assert_eq!(contradiction(&effects), Some(found));
}

#[test]
fn a_contradiction_ends_the_acknowledgements_to_a_leader_whose_log_was_joined_before() {
    let (old, view) = (View::new(1, NodeId(2)), View::new(4, NodeId(3)));
    let entries = (1..=6).map(|op| entry(op, 1, 2)).collect();
    let mut one = One::new(Boot { entries, commit: Op(5), promised: old, ..boot() });
    one.packet(3, cast(view, 5, old, 5, vec![entry(6, 4, 3)]));
    assert_eq!(acked(&one.sync()), Some((Op(6), Op(6), false)));
    let effects = one.packet(3, cast(view, 3, old, 3, vec![entry(4, 4, 3)]));
    assert!(contradiction(&effects).is_some());
    assert_eq!(acked(&effects), None);
}

#[test]
fn a_leader_after_a_contradiction_is_acknowledged_only_once_the_entries_of_its_own_view_are_compared() {
    let old = View::new(1, NodeId(2));
    let entries = (1..=6).map(|op| entry(op, 1, 2)).collect();
    let mut one = One::new(Boot { entries, commit: Op(5), promised: old, ..boot() });
    one.packet(3, cast(View::new(2, NodeId(3)), 5, old, 5, vec![entry(6, 2, 3)]));
    let members = one.replica.digest;
    let mut hear = |round: u64, last: u64| {
        let beat = heartbeat(View::new(round, NodeId(3)), HeartbeatState::Active, 0, members);
        let ToPeer::Heartbeat(beat) = beat else { unreachable!() };
        one.packet(3, ToPeer::Heartbeat(Heartbeat { last: Op(last), ..beat.clone() }))
    };
    assert!(contradiction(&hear(4, 3)).is_some());
    assert_eq!(acked(&hear(5, 7)), None, "only the entries of view 2 were compared");
    assert_eq!(acked(&one.sync()), None);
}

#[test]
fn no_snapshot_of_a_contradicted_leader_replaces_the_log() {
    let (old, view) = (View::new(1, NodeId(2)), View::new(4, NodeId(3)));
    let chunk = |at: u64| {
        let bytes = vec![7; 8];
        let crc = crc32c::crc32c(&bytes);
        ToPeer::SnapshotChunk(SnapshotChunk { op: Op(at), view, offset: 0, total: 8, crc, bytes })
    };
    let following = || {
        let entries = (1..=6).map(|op| entry(op, 1, 2)).collect();
        let mut one = One::new(Boot { entries, commit: Op(5), promised: old, ..boot() });
        one.packet(3, cast(view, 5, old, 5, vec![entry(6, 4, 3)]));
        one
    };
    let contradict = |one: &mut One| {
        let effects = one.packet(3, cast(view, 3, old, 3, vec![entry(4, 4, 3)]));
        assert!(contradiction(&effects).is_some());
    };
    let mut one = following();
    assert!(received(&one.packet(3, chunk(20))), "before");
    contradict(&mut one);
    let mut effects = Vec::new();
    assert!(!one.replica.install(one.now, 1, &mut effects), "one that arrived before");
    assert_eq!(effects, [Effect::DropSnapshot(1)]);
    assert!(!received(&one.packet(3, chunk(30))), "one that is offered after");
    assert_eq!(one.replica.last(), Op(6));
}

// ---- the promise

#[test]
fn a_disk_with_too_many_promises_to_write_takes_no_higher_view_and_goes_on_in_the_promised_one() {
    let most = PROMISES_MAX as u64;
    let view = View::new(most, NodeId(3));
    let mut one = One::new(boot());
    for round in 1..=most + 1 {
        one.packet(3, prepare(View::new(round, NodeId(3))));
    }
    assert_eq!(one.replica.promised(), view);
    one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, most, 3)]));
    assert_eq!(one.replica.last(), Op(1));
}

#[test]
fn a_promise_is_sent_only_to_the_candidate_of_its_view() {
    let mut one = One::new(boot());
    one.packet(3, prepare(View::new(1, NodeId(3))));
    one.packet(2, coordinator(View::new(2, NodeId(2))));
    assert_eq!(promises(&one.sync()), 0, "server 3 asked for view 1");
}

#[test]
fn a_promise_is_written_after_the_entries_taken_before_it() {
    let mut one = One::leading();
    one.replica.propose([].into());
    let tasks = tasks(&one.packet(2, prepare(View::new(9, NodeId(2)))));
    let appended = tasks.iter().position(|task| matches!(task, Task::Append { .. }));
    let promised = tasks.iter().position(|task| matches!(task, Task::Promise(_)));
    assert!(appended.is_some() && appended < promised, "{tasks:?}");
}

#[test]
fn each_task_of_the_journal_has_the_next_number() {
    let mut one = One::new(boot());
    let mut numbers: Vec<u64> = Vec::new();
    for round in 1..=3 {
        let effects = one.packet(3, prepare(View::new(round, NodeId(3))));
        numbers.extend(effects.iter().filter_map(|effect| match effect {
            Effect::Journal { number, .. } => Some(*number),
            _ => None,
        }));
    }
    assert!(numbers.len() >= 3 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
fn a_disk_that_has_more_to_write_is_in_its_next_turn() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    one.packet(3, prepare(view));
    // What is known of incarnations is durable, the promise is not.
    one.input(Input::Journaled(1));
    one.idle(MS * 90);
    let effects = one.packet(3, prepare(view));
    assert!(sent(
        &effects,
        |packet| matches!(packet, ToPeer::Reply(Reply::Writing { disk_ms, .. }) if *disk_ms >= 80)
    ));
}

// ---- whom a server waits for

#[test]
fn a_view_that_becomes_active_ends_the_wait_for_an_earlier_candidate() {
    let mut one = One::new(boot());
    one.packet(3, prepare(View::new(1, NodeId(3))));
    one.sync();
    one.packet(2, coordinator(View::new(2, NodeId(2))));
    one.sync();
    one.idle(MS * 180);
    assert_eq!(one.replica.role(), RoleName::Backup, "the primary has all of T_s");
    one.idle(MS * 30);
    assert_eq!(one.replica.role(), RoleName::Candidate);
}

#[test]
fn a_view_that_becomes_active_ends_the_patience_that_failed_views_added() {
    let mut one = One::new(boot());
    one.prepare();
    one.sync();
    one.idle(Timing::DEFAULT.coordinator * 3);
    assert_eq!(one.replica.failed_views, 1);
    one.packet(2, coordinator(View::new(9, NodeId(2))));
    one.sync();
    one.packet(3, prepare(View::new(10, NodeId(3))));
    one.sync();
    one.idle(MS * 140);
    assert_eq!(one.replica.role(), RoleName::Backup);
    one.idle(MS * 20);
    assert_eq!(one.replica.role(), RoleName::Candidate, "T_coord has passed once");
}

#[test]
fn a_primary_that_has_started_again_is_waited_for_as_any_higher_server() {
    let mut one = One::new(boot());
    hear(&mut one, View::new(1, NodeId(3)));
    one.packet_of_incarnation(2, 3, LEARN);
    let suspected = one.replica.promised();
    one.packet(2, agree(suspected));
    assert!(!one.replica.tries_to_lead(), "server 3 may want to lead");
    one.idle(Timing::DEFAULT.bully);
    assert!(one.replica.tries_to_lead());
}

#[test]
fn a_higher_server_whose_port_refused_is_waited_for_once_it_is_heard_again() {
    for heard in [false, true] {
        let mut one = probing();
        one.input(Input::PortRefused(NodeId(3)));
        if heard {
            one.packet(3, LEARN);
        }
        one.packet(2, agree(View::ZERO));
        assert_eq!(one.replica.tries_to_lead(), !heard);
    }
}

#[test]
fn a_primary_whose_port_refuses_twice_is_suspected_as_soon_as_a_heartbeat_is_missing() {
    for (peer, suspected) in [(3, true), (2, false)] {
        let mut one = One::new(boot());
        hear(&mut one, View::new(1, NodeId(3)));
        for _ in 0..2 {
            one.input(Input::PortRefused(NodeId(peer)));
        }
        let wanted = if suspected { vec![(RoleName::Candidate, Cause::PortRefused)] } else { Vec::new() };
        assert_eq!(changes(&one.idle(MS * 60)), wanted, "server {peer}");
    }
}

#[test]
fn a_late_primary_whose_port_refuses_is_pinged_again_at_once() {
    let mut one = One::new(boot());
    hear(&mut one, View::new(1, NodeId(3)));
    assert!(!heartbeats(&one.idle(MS * 60)).is_empty());
    assert!(heartbeats(&one.input(Input::Deadline)).is_empty(), "it was pinged 1 ms ago");
    assert!(!heartbeats(&one.input(Input::PortRefused(NodeId(3)))).is_empty());
}

#[test]
fn a_ping_before_the_first_heartbeat_of_a_view_echoes_none() {
    let mut one = One::new(boot());
    hear(&mut one, View::new(1, NodeId(3)));
    one.packet(3, cast(View::new(2, NodeId(3)), 0, View::ZERO, 0, Vec::new()));
    let pings = heartbeats(&one.idle(MS * 80));
    assert!(!pings.is_empty() && pings.iter().all(|ping| ping.beat == 0), "{pings:?}");
}

#[test]
fn a_packet_in_the_name_of_this_server_or_of_no_member_is_not_believed() {
    for from in [1, 9] {
        let mut one = One::new(boot());
        one.packet(from, prepare(View::new(5, NodeId(from))));
        assert_eq!(one.replica.promised(), View::ZERO, "server {from}");
    }
}

// ---- one's own lateness

#[test]
fn a_server_counts_as_late_itself_from_three_heartbeats_on() {
    for (gap, excluded) in [(119, 0), (120, 120)] {
        let mut one = One::new(boot());
        let silent_at = one.replica.detector.silent_at();
        one.now = one.now + MS * (gap - 1);
        one.input(Input::Deadline);
        assert_eq!(one.replica.detector.silent_at().since(silent_at), MS * excluded, "{gap} ms");
    }
}

#[test]
fn a_server_that_was_late_itself_excludes_that_time_once() {
    let mut one = One::new(boot());
    hear(&mut one, View::new(1, NodeId(3)));
    one.now = one.now + SECOND * 5;
    for _ in 0..3 {
        one.replica.handle(one.now, Input::Deadline, &mut Vec::new());
    }
    one.idle(MS * 220);
    assert_eq!(one.replica.role(), RoleName::Candidate);
}
