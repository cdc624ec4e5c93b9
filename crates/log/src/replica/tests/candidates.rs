//! Candidates: when a server prepares a view, which answers it counts, how long it and the others wait, and
//! how it fetches the log that it lacks.

use recado_proto::packet::Transfer;

use super::copies::chunk;
use super::*;

const T_BULLY: Duration = Timing::DEFAULT.bully;

fn server(me: u16, servers: u16, seed: u64, boot: Boot) -> One {
    let now = Moment(1_000_000);
    One::of(ReplicaManager::new(&config(me, servers), boot, seed, now, &mut Vec::new()), now)
}

/// Passes time up to this moment, in steps of a heartbeat at most.
fn reach(one: &mut One, moment: Moment) -> Vec<Effect> {
    let mut effects = Vec::new();
    while one.now < moment {
        // Every input comes 1 ms later.
        one.now = one.now + moment.since(one.now).min(Timing::DEFAULT.heartbeat) - MS;
        effects.extend(one.input(Input::Deadline));
    }
    effects
}

/// Passes time until the server probes.
fn wait_for_probe(one: &mut One) -> Vec<Effect> {
    let (began, mut effects) = (one.now, Vec::new());
    while one.replica.role() != RoleName::Candidate {
        effects.extend(one.input(Input::Deadline));
        assert!(one.now.since(began) < SECOND, "it is still {:?}", one.replica.role());
    }
    effects
}

/// Server 1, which has just begun to probe because the active primary, the highest server, is silent.
fn probing(servers: u16) -> One {
    let mut one = One::among(servers, boot());
    hear(&mut one, View::new(1, NodeId(servers)));
    wait_for_probe(&mut one);
    one
}

/// A turn of this server's journal takes 2 s.
fn pass_slow_turn(one: &mut One) {
    one.replica.pace.task_given(one.now);
    one.now = one.now + SECOND * 2;
    one.replica.pace.turn_ended(one.now, false);
}

fn bully(view: View, disk_ms: u32) -> ToPeer {
    ToPeer::Reply(Reply::Bully { view, disk_ms })
}

fn writing(view: View, disk_ms: u32) -> ToPeer {
    ToPeer::Reply(Reply::Writing { view, disk_ms })
}

fn bullies(effects: &[Effect]) -> bool {
    sent(effects, |packet| matches!(packet, ToPeer::Reply(Reply::Bully { .. })))
}

/// The time that the role change of this cause took.
fn took(effects: &[Effect], cause: Cause) -> Option<Duration> {
    effects.iter().find_map(|effect| match effect {
        Effect::Report(Report::Role(change)) if change.cause == cause => Some(change.took),
        _ => None,
    })
}

// ---- the reason and the time of an election

#[test]
fn a_candidate_that_never_saw_an_active_view_gives_way_because_it_started() {
    let mut one = One::new(boot());
    wait_for_probe(&mut one);
    one.input(Input::PortRefused(NodeId(3)));
    one.packet(2, agree(View::ZERO));
    assert!(one.replica.tries_to_lead());
    one.sync();
    let effects = one.packet(2, refuse(View::new(9, NodeId(2))));
    assert_eq!(changes(&effects), vec![(RoleName::Backup, Cause::Started)]);
}

#[test]
fn an_election_after_a_transfer_took_the_time_since_it() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    hear(&mut one, view);
    one.packet(3, ToPeer::Transfer(Transfer { view, last: Op::ZERO }));
    assert!(one.replica.tries_to_lead());
    let (began, view) = (one.now, one.replica.promised());
    reach(&mut one, began + MS * 50);
    one.sync();
    one.packet(2, promise(view));
    one.sync();
    let effects = one.packet(2, acknowledgement(view));
    assert_eq!(took(&effects, Cause::Elected), Some(one.now.since(began)));
}

#[test]
fn an_election_that_another_server_began_took_the_time_since_its_prepare() {
    let mut one = One::new(boot());
    hear(&mut one, View::new(1, NodeId(3)));
    one.packet(2, prepare(View::new(2, NodeId(2))));
    let began = one.now;
    one.sync();
    let effects = wait_for_probe(&mut one);
    assert_eq!(took(&effects, Cause::TimedOut), Some(one.now.since(began)));
}

// ---- the round

#[test]
fn a_candidate_takes_a_round_beyond_that_of_a_probe() {
    let mut one = One::new(boot());
    one.packet(2, probe(View::new(7, NodeId(2)), 0));
    assert_eq!(one.prepare(), View::new(8, NodeId(1)));
}

#[test]
fn a_server_that_lost_its_disk_takes_a_round_beyond_a_prepare_that_it_could_not_promise() {
    let (mut one, answer) = learner();
    one.packet(2, prepare(View::new(9, NodeId(2))));
    let view = View::new(4, NodeId(3));
    one.packet(2, answer(None));
    one.packet(3, answer(Some(16)));
    let members = one.replica.digest;
    one.packet(3, heartbeat(view, HeartbeatState::Active, 16, members));
    one.packet(3, cast(view, 0, View::ZERO, 16, (1..=16).map(|op| entry(op, 4, 3)).collect()));
    one.sync();
    one.sync();
    assert_eq!(one.replica.role(), RoleName::Backup, "it votes again");
    assert_eq!(one.prepare(), View::new(10, NodeId(1)));
}

// ---- the probe

#[test]
fn a_higher_server_that_is_silent_is_waited_for_until_t_bully() {
    let mut one = probing(5);
    let (since, view) = (one.now, one.replica.promised());
    for peer in [2, 3] {
        one.packet(peer, agree(view));
    }
    reach(&mut one, since + T_BULLY - MS);
    assert!(!one.replica.tries_to_lead(), "server 4 may answer");
    reach(&mut one, since + T_BULLY);
    assert!(one.replica.tries_to_lead());
}

#[test]
fn a_higher_server_that_wants_to_lead_is_waited_for_until_t_coord() {
    // It is heard all the time, and its disk is quick.
    let mut one = probing(3);
    let view = one.replica.promised();
    one.packet(2, bully(view, 0));
    let first = one.now;
    reach(&mut one, first + MS * 99);
    one.packet(2, bully(view, 0));
    reach(&mut one, first + T_COORD - MS);
    assert!(!one.replica.tries_to_lead());
    reach(&mut one, first + T_COORD);
    assert!(one.replica.tries_to_lead(), "it does not prepare");

    // Its disk may take 2 s, but it is not heard again.
    let mut one = probing(3);
    let view = one.replica.promised();
    one.packet(2, bully(view, 500));
    let heard = one.now;
    reach(&mut one, heard + T_COORD - MS);
    assert!(!one.replica.tries_to_lead());
    reach(&mut one, heard + T_COORD);
    assert!(one.replica.tries_to_lead(), "it is silent");
}

#[test]
fn a_candidate_that_was_late_itself_waits_for_a_higher_server_as_long_as_before() {
    let mut one = probing(3);
    let view = one.replica.promised();
    one.packet(2, bully(view, 0));
    let late = Duration::from_secs(5);
    one.now = one.now + late;
    one.input(Input::Deadline);
    let heard = one.now;
    reach(&mut one, heard + T_COORD - MS);
    assert!(!one.replica.tries_to_lead());
    reach(&mut one, heard + T_COORD);
    assert!(one.replica.tries_to_lead());
}

#[test]
fn a_server_that_lacks_what_it_could_not_fetch_prepares_after_t_coord() {
    let mut one = probing(3);
    let (since, view) = (one.now, one.replica.promised());
    one.replica.unfetched_end = Some(Op(1));
    one.packet(2, agree(view));
    reach(&mut one, since + T_COORD - MS);
    assert!(!one.replica.tries_to_lead());
    reach(&mut one, since + T_COORD);
    assert!(one.replica.tries_to_lead());
}

#[test]
fn a_server_whose_disk_lags_prepares_after_t_coord() {
    let mut one = One::among(5, boot());
    pass_slow_turn(&mut one);
    hear(&mut one, View::new(1, NodeId(5)));
    wait_for_probe(&mut one);
    let (since, view) = (one.now, one.replica.promised());
    for peer in [2, 3, 4] {
        one.packet(peer, agree(view));
    }
    reach(&mut one, since + T_COORD - MS);
    assert!(!one.replica.tries_to_lead());
    reach(&mut one, since + T_COORD);
    assert!(one.replica.tries_to_lead());
}

#[test]
fn a_server_that_agreed_and_then_hears_the_primary_is_not_counted() {
    let mut one = probing(5);
    let (since, view) = (one.now, one.replica.promised());
    one.packet(2, agree(view));
    one.packet(2, ToPeer::Reply(Reply::Alive { view, disk_ms: 0 }));
    one.packet(3, agree(view));
    reach(&mut one, since + T_BULLY * 2);
    assert!(!one.replica.tries_to_lead(), "two of five");
    one.packet(4, agree(view));
    assert!(one.replica.tries_to_lead());
}

#[test]
fn a_server_bullies_only_if_it_heard_a_majority_within_the_longest_t_s() {
    for (wait, fit) in [(599, true), (600, false)] {
        let mut one = server(5, 5, 1, boot());
        wait_for_probe(&mut one);
        one.packet(2, writing(View::ZERO, 0));
        let heard = one.now;
        reach(&mut one, heard + MS * (wait - 1));
        assert_eq!(bullies(&one.packet(1, probe(View::ZERO, 0))), fit, "server 2 was heard {wait} ms ago");
    }
}

#[test]
fn a_server_that_a_promise_showed_a_log_too_far_ahead_does_not_bully() {
    for (last, fit) in [(8_192, true), (8_193, false)] {
        let mut one = server(3, 3, 1, boot());
        wait_for_probe(&mut one);
        one.packet(2, promise_of_log(View::new(1, NodeId(3)), 1, last));
        assert_eq!(bullies(&one.packet(1, probe(View::ZERO, 0))), fit, "{last} entries");
    }
}

// ---- how long a candidate goes on

#[test]
fn a_candidate_whose_promise_is_durable_sends_that_it_waits_for_promises() {
    let mut one = One::new(boot());
    one.prepare();
    one.sync();
    let end = one.now + MS * 50;
    let packets = said(&reach(&mut one, end), 2);
    let waits = packets.iter().filter_map(|packet| match packet {
        ToPeer::Election(Election::Prepare { waits_for, .. }) => Some(*waits_for),
        _ => None,
    });
    assert_eq!(waits.collect::<Vec<_>>(), vec![WaitsFor::Promises]);
}

#[test]
fn a_candidate_goes_on_for_four_turns_of_its_disk_after_its_promise_is_durable() {
    let mut one = One::new(boot());
    let began = one.now;
    one.prepare();
    reach(&mut one, began + MS * 99);
    one.sync();
    reach(&mut one, began + MS * 500);
    assert!(one.replica.tries_to_lead());
    reach(&mut one, began + MS * 501);
    assert!(!one.replica.tries_to_lead());
}

#[test]
fn a_promise_gives_a_candidate_its_time_again() {
    let mut one = One::among(5, boot());
    let view = one.prepare();
    one.sync();
    let durable = one.now;
    reach(&mut one, durable + MS * 249);
    one.packet(2, promise(view));
    reach(&mut one, durable + MS * 250 + T_COORD * 2);
    assert!(one.replica.tries_to_lead());
    reach(&mut one, durable + MS * 251 + T_COORD * 2);
    assert!(!one.replica.tries_to_lead());
}

#[test]
fn a_candidate_whose_disk_lags_waits_for_its_own_promise_all_the_same() {
    let mut one = One::new(boot());
    pass_slow_turn(&mut one);
    for peer in [2, 3] {
        one.packet(peer, writing(View::ZERO, 1));
    }
    let began = one.now;
    one.prepare();
    reach(&mut one, began + MS * 500);
    assert!(one.replica.tries_to_lead(), "twice T_coord is over, four turns of its disk are not");
}

#[test]
fn a_candidate_whose_disk_stalls_before_its_promise_is_durable_gives_way() {
    let mut one = One::new(boot());
    let (began, view) = (one.now, one.prepare());
    reach(&mut one, began + MS * 300);
    for peer in [2, 3] {
        one.packet(peer, writing(view, 1));
    }
    reach(&mut one, began + MS * 600);
    assert!(one.replica.tries_to_lead(), "a disk is given T_s");
    let effects = reach(&mut one, began + MS * 601);
    assert_eq!(changes(&effects), vec![(RoleName::Backup, Cause::SlowDisk)]);
}

#[test]
fn a_refusal_that_names_no_higher_view_deposes_nobody() {
    let mut one = One::leading();
    let view = one.replica.promised();
    one.packet(2, refuse(view));
    assert!(one.replica.accepts());
    assert_eq!(one.replica.promised(), view);
}

#[test]
fn a_view_counts_as_failed_only_if_it_never_was_active() {
    let mut one = One::leading();
    one.packet(2, refuse(View::new(9, NodeId(2))));
    assert_eq!(one.replica.failed_views, 0, "it was active");

    let mut one = One::new(boot());
    let view = one.prepare();
    one.sync();
    one.packet(2, promise(view));
    assert!(matches!(one.replica.role, Role::Primary(_)));
    one.packet(2, refuse(View::new(9, NodeId(2))));
    assert_eq!(one.replica.failed_views, 1, "it was opening");
}

// ---- how long others wait for a candidate

#[test]
fn each_failed_view_adds_t_coord_to_the_wait_for_a_silent_candidate_up_to_eight_times_t_coord() {
    for (failed, times) in [(0, 1), (1, 2), (7, 8), (8, 8), (100, 8)] {
        let mut one = One::new(boot());
        one.replica.failed_views = failed;
        one.packet(3, prepare(View::new(1, NodeId(3))));
        let heard = one.now;
        one.sync();
        reach(&mut one, heard + T_COORD * times - MS);
        assert_eq!(one.replica.role(), RoleName::Backup, "{failed} failed views");
        reach(&mut one, heard + T_COORD * times);
        assert_eq!(one.replica.role(), RoleName::Candidate, "{failed} failed views");
    }
}

#[test]
fn a_candidate_that_makes_progress_is_waited_for_as_long_as_it_does() {
    let (view, waits_for) = (View::new(1, NodeId(3)), WaitsFor::Fetch(Op(1)));
    let mut one = One::new(boot());
    for progress in 1..=6 {
        one.packet(
            3,
            ToPeer::Election(Election::Prepare {
                view,
                progress,
                waits_for,
                disk_ms: 0,
                members_op: Op::ZERO,
            }),
        );
        let heard = one.now;
        one.sync();
        reach(&mut one, heard + MS * 99);
        assert_eq!(one.replica.role(), RoleName::Backup, "progress {progress}");
    }
}

#[test]
fn a_candidate_that_is_heard_again_is_waited_for_only_before_its_time_is_over() {
    let (view, waits_for) = (View::new(1, NodeId(3)), WaitsFor::Disk);
    // Four turns of its disk take 400 ms.
    let prepare = ToPeer::Election(Election::Prepare {
        view,
        progress: 0,
        waits_for,
        disk_ms: 100,
        members_op: Op::ZERO,
    });
    for (wait, change) in [(399, Some((RoleName::Backup, Cause::HeardAgain))), (400, None)] {
        let mut one = One::new(boot());
        one.packet(3, prepare.clone());
        let began = one.now;
        one.sync();
        reach(&mut one, began + MS * (wait - 1));
        assert_eq!(one.replica.role(), RoleName::Candidate, "it was silent for T_coord");
        let effects = one.packet(3, prepare.clone());
        assert_eq!(changes(&effects), change.into_iter().collect::<Vec<_>>(), "after {wait} ms");
    }
}

// ---- the fetch

/// The ranges that are asked for: the op before the first, and the last.
fn asked(effects: &[Effect]) -> Vec<(u64, u64)> {
    fetches(effects).iter().map(|fetch| (fetch.after.0, fetch.upto.0)).collect()
}

/// Candidate 1 of three, which fetches the ops up to `last` from server 3.
fn fetching(last: u64) -> (One, View, QueryId) {
    let (mut one, view) = preparing(3);
    let fetches = fetches(&one.packet(3, promise_of_log(view, 1, last)));
    assert_eq!(fetches.len(), 1);
    (one, view, fetches[0].query)
}

fn leads(one: &One) -> bool {
    matches!(one.replica.role, Role::Primary(_))
}

#[test]
fn a_fetch_goes_on_while_a_majority_of_the_promises_still_counts() {
    let (mut one, view) = preparing(5);
    one.packet(2, promise(view));
    let fetches = fetches(&one.packet(3, promise_of_log(view, 1, 2)));
    one.packet(4, promise(view));
    assert!(asked(&one.packet_of_incarnation(2, 4, LEARN)).is_empty());
    one.packet(3, fetched(view, fetches[0].query, 0, entries(1, 2)));
    assert!(leads(&one));
}

#[test]
fn a_candidate_whose_donor_has_started_again_fetches_the_next_best_log() {
    let (mut one, view) = preparing(5);
    one.packet(4, promise(view));
    one.packet(3, promise_of_log(view, 1, 3));
    one.packet(2, promise_of_log(view, 1, 2));
    let effects = one.packet_of_incarnation(2, 3, LEARN);
    assert!(said(&effects, 2).iter().any(|packet| matches!(packet, ToPeer::Fetch(_))));
    one.packet(2, fetched(view, fetches(&effects)[0].query, 0, entries(1, 2)));
    assert!(leads(&one));
}

#[test]
fn a_candidate_that_has_the_next_best_log_already_does_not_fetch_it() {
    let (mut one, view) = preparing(5);
    one.packet(4, promise(view));
    let fetches = fetches(&one.packet(3, promise_of_log(view, 1, 3)));
    one.packet(2, promise_of_log(view, 1, 2));
    one.packet(3, fetched(view, fetches[0].query, 0, entries(1, 2)));
    assert!(!leads(&one), "op 3 is lacking");
    one.packet_of_incarnation(2, 3, LEARN);
    assert!(leads(&one));
}

#[test]
fn a_fetch_that_brought_nothing_is_sent_again_after_a_heartbeat() {
    for (wait, again) in [(39, false), (40, true)] {
        let (mut one, view) = preparing(3);
        // The next PREPARE is due before this FETCH is a heartbeat old, whatever is drawn for it.
        one.now = one.now + MS * 8;
        one.packet(3, promise_of_log(view, 1, 10));
        one.now = one.now + MS * (wait - 1);
        assert_eq!(!asked(&one.input(Input::Deadline)).is_empty(), again, "after {wait} ms");
    }
}

#[test]
fn a_fetch_is_not_sent_twice_within_a_heartbeat() {
    for seed in 0..8 {
        let mut one = server(1, 3, seed, Boot { promised: held(), ..boot() });
        let view = one.prepare();
        one.sync();
        one.packet(3, promise_of_log(view, 1, 10));
        let mut sent = vec![one.now];
        for _ in 0..250 {
            if !asked(&one.input(Input::Deadline)).is_empty() {
                sent.push(one.now);
            }
        }
        let waits: Vec<Duration> = sent.windows(2).map(|pair| pair[1].since(pair[0])).collect();
        let heartbeat = Timing::DEFAULT.heartbeat;
        assert!(waits.len() > 1 && waits.iter().all(|wait| *wait >= heartbeat), "seed {seed}: {waits:?}");
    }
}

#[test]
fn no_entry_is_fetched_again_while_entries_arrive() {
    let (mut one, view, query) = fetching(20);
    let mut effects = Vec::new();
    for op in 1..20 {
        one.now = one.now + MS * 9;
        effects.extend(one.packet(3, fetched(view, query, op - 1, entries(op, op))));
    }
    assert_eq!(one.replica.last(), Op(19));
    assert!(asked(&effects).is_empty());
}

#[test]
fn only_the_donors_answer_to_the_fetch_is_taken_and_nothing_beyond_the_log_that_was_chosen() {
    let (mut one, view, query) = fetching(4);
    let cases = [
        ("another server", 2, query, 4),
        ("another query", 3, QueryId(query.0 + 1), 4),
        ("an op beyond the log", 3, query, 5),
    ];
    for (what, from, query, last) in cases {
        one.packet(from, fetched(view, query, 0, entries(1, last)));
        assert_eq!(one.replica.last(), Op::ZERO, "{what}");
    }
    one.packet(3, fetched(view, query, 0, entries(1, 4)));
    assert!(leads(&one));
}

#[test]
fn the_pieces_of_an_answer_may_arrive_in_any_order() {
    let (mut one, view, query) = fetching(100);
    one.packet(3, fetched(view, query, 64, Vec::new()));
    for op in (2..=64).rev() {
        one.packet(3, fetched(view, query, op - 1, entries(op, op)));
    }
    assert_eq!(one.replica.last(), Op::ZERO);
    one.packet(3, fetched(view, query, 0, entries(1, 1)));
    assert_eq!(one.replica.last(), Op(64));
}

#[test]
fn a_piece_beyond_the_fetched_range_is_dropped() {
    let (mut one, view, query) = fetching(100);
    one.packet(3, fetched(view, query, 65, entries(66, 66)));
    one.packet(3, fetched(view, query, 0, entries(1, 65)));
    assert_eq!(one.replica.last(), Op(65));
}

#[test]
fn each_part_of_a_log_is_fetched_once_with_the_last_entry_of_the_part_before() {
    let (mut one, view, query) = fetching(150);
    for (prev, last, next) in [(0, 64, 128), (64, 128, 150)] {
        let effects = one.packet(3, fetched(view, query, prev, entries(prev + 1, last)));
        assert_eq!(asked(&effects), vec![(last, next)]);
        let effects = one.packet(3, fetched(view, query, last, Vec::new()));
        assert!(asked(&effects).is_empty(), "the end of a complete answer");
    }
}

#[test]
fn the_end_of_an_answer_is_followed_by_a_fetch_only_if_all_of_the_answer_came_and_brought_entries() {
    let (mut one, view, query) = fetching(4);
    let end = |prev: u64| fetched(view, query, prev, Vec::new());
    assert!(asked(&one.packet(3, end(0))).is_empty(), "it brought nothing");
    one.packet(3, fetched(view, query, 0, entries(1, 2)));
    assert!(asked(&one.packet(3, end(1))).is_empty(), "of an answer to an older FETCH");
    assert_eq!(asked(&one.packet(3, end(2))), vec![(2, 4)]);
}

#[test]
fn entries_that_come_again_are_no_progress() {
    let (mut one, view, query) = fetching(10);
    let piece = fetched(view, query, 0, entries(1, 2));
    one.packet(3, piece.clone());
    let came = one.now;
    reach(&mut one, came + MS * 279);
    one.packet(3, piece);
    assert!(one.replica.tries_to_lead());
    reach(&mut one, came + T_COORD * 2 + MS);
    assert!(!one.replica.tries_to_lead());
}

#[test]
fn a_donor_whose_snapshot_fails_its_checksum_again_and_again_makes_no_progress() {
    let (mut one, ..) = fetching(105);
    let whole = chunk(100, held(), 0, &[7; SnapshotGet::BLOCK]);
    let damaged = ToPeer::SnapshotChunk(SnapshotChunk { crc: whole.crc ^ 1, ..whole });
    one.packet(3, damaged.clone());
    let first = one.now;
    for n in 1..=7 {
        reach(&mut one, first + MS * (40 * n - 1));
        one.packet(3, damaged.clone());
    }
    assert!(one.replica.tries_to_lead());
    reach(&mut one, first + T_COORD * 2 + MS);
    assert!(!one.replica.tries_to_lead());
}
