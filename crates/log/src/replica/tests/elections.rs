//! Elections step by step: the suspicion, the probe, the choice of the log, the fetch, the refusal, and the
//! hand-over.

use recado_proto::packet::Transfer;

use super::copies::chunk;
use super::*;
use crate::replica::dispatch::ROUND_ACCEPTED_MAX;

fn server(me: u16, servers: u16, seed: u64) -> One {
    let now = Moment(1_000_000);
    let replica = ReplicaManager::new(&config(me, servers), boot(), seed, now, &mut Vec::new());
    One::of(replica, now)
}

/// Passes time until the server has this role.
fn wait_for(one: &mut One, role: RoleName) -> Vec<Effect> {
    let (began, mut effects) = (one.now, Vec::new());
    while one.replica.role() != role {
        effects.extend(one.idle(MS * 9));
        assert!(one.now.since(began) < SECOND * 3, "it is still {:?}", one.replica.role());
    }
    effects
}

/// Server 1, which has just begun to probe because active primary 3 is silent.
fn probing() -> One {
    let mut one = One::new(boot());
    hear(&mut one, View::new(1, NodeId(3)));
    wait_for(&mut one, RoleName::Candidate);
    assert!(!one.replica.tries_to_lead());
    one
}

// ---- the suspicion

#[test]
fn an_election_took_the_time_since_the_first_suspicion() {
    let mut one = probing();
    one.idle(MS * 50);
    let suspected = one.replica.promised();
    one.packet(2, agree(suspected));
    assert!(one.replica.tries_to_lead());
    let view = one.replica.promised();
    one.sync();
    one.packet(2, promise(view));
    one.sync();
    let changes = role_changes(&one.packet(2, acknowledgement(view)));
    let took = changes.iter().find(|change| change.cause == Cause::Elected).map(|change| change.took);
    assert!(took.is_some_and(|took| (MS * 50..MS * 70).contains(&took)), "{took:?}");
}

#[test]
fn a_candidate_that_gives_way_reports_why_it_suspected_the_primary() {
    let mut one = probing();
    let suspected = one.replica.promised();
    one.packet(2, agree(suspected));
    one.sync();
    let changes = role_changes(&one.packet(2, refuse(View::new(9, NodeId(2)))));
    let changes: Vec<_> = changes.iter().map(|change| (change.role, change.cause)).collect();
    assert_eq!(changes, vec![(RoleName::Backup, Cause::TimedOut)]);
}

#[test]
fn a_primary_that_has_started_again_is_suspected_at_once() {
    let mut one = One::new(boot());
    hear(&mut one, View::new(1, NodeId(3)));
    let changes = role_changes(&one.packet_of_incarnation(2, 3, LEARN));
    let changes: Vec<_> = changes.iter().map(|change| (change.role, change.cause)).collect();
    assert_eq!(changes, vec![(RoleName::Candidate, Cause::PrimaryRestarted)]);
}

#[test]
fn a_server_that_was_late_itself_suspects_nobody_for_that() {
    let late = Duration::from_secs(5);
    let mut one = One::new(boot());
    hear(&mut one, View::new(1, NodeId(3)));
    one.now = one.now + late;
    one.input(Input::Deadline);
    assert_eq!(one.replica.role(), RoleName::Backup, "a primary");

    let mut one = One::new(boot());
    one.packet(3, prepare(View::new(1, NodeId(3))));
    one.sync();
    one.now = one.now + late;
    one.input(Input::Deadline);
    one.idle(MS * 100);
    assert_eq!(one.replica.role(), RoleName::Backup, "a candidate has all of T_coord");
    one.idle(MS * 100);
    assert_eq!(one.replica.role(), RoleName::Candidate);

    let mut one = One::new(boot());
    one.prepare();
    one.now = one.now + late;
    one.input(Input::Deadline);
    let turn = one.replica.pace.own_turn_ms(one.now);
    assert!(turn < 10, "its own disk, which took {turn} ms");
}

#[test]
fn a_candidate_that_was_late_itself_gives_the_others_the_same_time_as_before() {
    let late = Duration::from_secs(5);
    let mut one = One::new(boot());
    let view = one.prepare();
    one.sync();
    one.now = one.now + late;
    one.input(Input::Deadline);
    assert!(one.replica.tries_to_lead(), "nobody had the time to promise");
    one.packet(2, promise(view));
    one.sync();
    one.packet(2, acknowledgement(view));
    assert_eq!(one.replica.role(), RoleName::Primary);

    let mut one = One::among(5, boot());
    let members = one.replica.digest;
    one.packet(5, heartbeat(View::new(1, NodeId(5)), HeartbeatState::Active, 0, members));
    one.sync();
    wait_for(&mut one, RoleName::Candidate);
    let suspected = one.replica.promised();
    one.now = one.now + late;
    for peer in [2, 3] {
        one.packet(peer, agree(suspected));
    }
    assert!(!one.replica.tries_to_lead(), "server 4 had no time to answer");
    one.idle(Timing::DEFAULT.bully);
    assert!(one.replica.tries_to_lead());
}

// ---- the probe

#[test]
fn an_agreement_about_another_view_counts_for_nothing() {
    let mut one = probing();
    let suspected = one.replica.promised();
    one.packet(2, agree(View::new(7, NodeId(2))));
    assert!(!one.replica.tries_to_lead());
    one.packet(2, agree(suspected));
    assert!(one.replica.tries_to_lead());
}

#[test]
fn a_higher_server_that_wants_to_lead_is_waited_for_while_it_is_heard_and_not_for_ever() {
    let bully = |view: View, disk_ms: u32| ToPeer::Reply(Reply::Bully { view, disk_ms });
    // With a disk that may take 2 s, but then silent: T_coord.
    let mut one = probing();
    let view = one.replica.promised();
    one.packet(2, bully(view, 500));
    one.idle(MS * 140);
    assert!(!one.replica.tries_to_lead());
    one.idle(MS * 20);
    assert!(one.replica.tries_to_lead(), "it is silent");

    // Heard all the time, with a quick disk: T_coord.
    let mut one = probing();
    one.pass(MS * 140, |one| one.packet(2, bully(view, 0)));
    assert!(!one.replica.tries_to_lead());
    one.pass(MS * 80, |one| one.packet(2, bully(view, 0)));
    assert!(one.replica.tries_to_lead(), "it does not prepare");
}

#[test]
fn a_higher_server_whose_port_refuses_is_not_waited_for() {
    let mut one = One::new(boot());
    wait_for(&mut one, RoleName::Candidate);
    one.packet(2, agree(View::ZERO));
    assert!(!one.replica.tries_to_lead(), "server 3 may want to lead");
    one.input(Input::PortRefused(NodeId(3)));
    assert!(one.replica.tries_to_lead());
}

#[test]
fn a_lower_server_never_bullies() {
    let mut one = probing();
    let suspected = one.replica.promised();
    let answer = one.packet(2, probe(suspected, 0));
    assert!(sent(&answer, |packet| matches!(packet, ToPeer::Reply(Reply::Agree { .. }))));
    assert!(!sent(&answer, |packet| matches!(packet, ToPeer::Reply(Reply::Bully { .. }))));
}

#[test]
fn a_higher_server_bullies_only_if_it_can_lead_soon() {
    let cases = [
        ("a log that is near enough", 3, 8_192, None, true),
        ("a log that is too far behind", 3, 8_193, None, false),
        ("no majority in reach", 5, 0, None, false),
        ("what it could not fetch is there", 3, 0, Some(0), true),
        ("what it could not fetch is lacking", 3, 0, Some(1), false),
    ];
    for (what, servers, last, unfetched, bullies) in cases {
        let mut one = server(3, servers, 1);
        wait_for(&mut one, RoleName::Candidate);
        one.replica.unfetched_end = unfetched.map(Op);
        let answer = one.packet(1, probe(View::ZERO, last));
        let bullied = sent(&answer, |packet| matches!(packet, ToPeer::Reply(Reply::Bully { .. })));
        assert_eq!(bullied, bullies, "{what}");
    }
}

#[test]
fn a_backup_answers_a_probe_of_an_older_view_with_the_active_view() {
    let (old, view) = (View::new(1, NodeId(2)), View::new(2, NodeId(3)));
    let mut one = One::new(boot());
    hear(&mut one, view);
    let answered = |one: &mut One, seen: View| {
        sent(&one.packet(2, probe(seen, 0)), |packet| matches!(packet, ToPeer::Coordinator(_)))
    };
    assert!(answered(&mut one, old));
    assert!(!answered(&mut one, view), "it knows");
    one.packet(2, prepare(View::new(3, NodeId(2))));
    assert!(!answered(&mut one, old), "a higher view is promised");
}

#[test]
fn a_view_that_leaves_no_rounds_is_not_believed() {
    for (round, taken) in [(ROUND_ACCEPTED_MAX, true), (ROUND_ACCEPTED_MAX + 1, false)] {
        let view = View::new(round, NodeId(3));
        let mut one = One::new(boot());
        one.packet(3, prepare(view));
        assert_eq!(one.replica.promised() == view, taken, "round {round}");
    }
}

// ---- the choice of the log, and the fetch

/// Candidate 1 of three, which fetches the ops up to `last` from server 3.
fn fetching(last: u64) -> (One, View, Fetch) {
    let (mut one, view) = preparing(3);
    let asked = fetches(&one.packet(3, promise_of_log(view, 1, last)));
    assert_eq!(asked.len(), 1);
    (one, view, asked[0])
}

#[test]
fn a_candidate_whose_committed_op_differs_in_the_best_log_gives_up_and_reports_it() {
    let old = View::new(1, NodeId(2));
    let log = (1..=6).map(|op| entry(op, 1, 2)).collect();
    let mut one = One::new(Boot { entries: log, commit: Op(5), promised: held(), ..boot() });
    let view = one.prepare();
    one.sync();
    let effects = one.packet(3, promise_of_log(view, 1, 6));
    let found = Contradiction { view, op: Op(5), commit: Op(5), count: 1 };
    assert_eq!(contradiction(&effects), Some(found));
    assert_eq!(fetches(&effects), Vec::<Fetch>::new());
    assert_eq!(one.replica.role(), RoleName::Backup);
    assert_eq!(one.replica.log.view_at(Op(6)), Some(old), "it keeps its log");
}

#[test]
fn a_choice_ends_when_too_few_of_the_promises_that_it_was_made_from_still_count() {
    let (mut one, view) = preparing(5);
    one.packet(2, promise(view));
    let asked = fetches(&one.packet(3, promise_of_log(view, 1, 2)));
    one.packet_of_incarnation(2, 2, LEARN);
    one.packet(3, fetched(view, asked[0].query, 0, entries(1, 2)));
    assert!(matches!(one.replica.role, Role::Candidate(_)), "two of five promises");
    let asked = fetches(&one.packet(4, promise(view)));
    one.packet(3, fetched(view, asked[0].query, 0, entries(1, 2)));
    assert!(matches!(one.replica.role, Role::Primary(_)));
}

#[test]
fn a_fetch_that_brings_nothing_is_sent_again_once_a_heartbeat() {
    let (mut one, ..) = fetching(10);
    let mut asked = vec![one.now];
    for _ in 0..20 {
        if !fetches(&one.idle(MS * 9)).is_empty() {
            asked.push(one.now);
        }
    }
    let waits: Vec<Duration> = asked.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    let heartbeat = Timing::DEFAULT.heartbeat;
    assert!(!waits.is_empty() && waits.iter().all(|wait| *wait >= heartbeat), "{waits:?}");
}

#[test]
fn the_end_of_an_answer_that_is_too_short_is_followed_by_the_next_fetch() {
    let (mut one, view, fetch) = fetching(4);
    assert_eq!(fetches(&one.packet(3, fetched(view, fetch.query, 0, entries(1, 2)))), Vec::<Fetch>::new());
    let asked = fetches(&one.packet(3, fetched(view, fetch.query, 2, Vec::new())));
    let asked: Vec<_> = asked.iter().map(|fetch| (fetch.after, fetch.upto)).collect();
    assert_eq!(asked, vec![(Op(2), Op(4))]);
}

#[test]
fn a_candidate_goes_on_while_entries_arrive_and_remembers_what_it_could_not_fetch() {
    let (mut one, view, fetch) = fetching(10);
    for op in 1..=6 {
        one.idle(MS * 150);
        one.packet(3, fetched(view, fetch.query, op - 1, entries(op, op)));
        assert!(one.replica.tries_to_lead(), "op {op} has come");
    }
    one.idle(MS * 320);
    assert!(!one.replica.tries_to_lead(), "nothing comes any more");
    assert_eq!(one.replica.unfetched_end, Some(Op(10)));
    let active = Coordinator::new(View::new(9, NodeId(3)), Vec::new());
    one.packet(3, ToPeer::Coordinator(active));
    assert_eq!(one.replica.unfetched_end, None, "another leads, and casts it");
}

#[test]
fn a_candidate_goes_on_while_a_snapshot_arrives_and_fetches_what_follows_it() {
    let (mut one, view) = preparing(3);
    let ToPeer::Reply(Reply::Promise(far)) = promise_of_log(view, 1, 105) else { unreachable!() };
    let far = Promise { commit: Op(100), index: vec![(held(), Op(100))], ..far };
    let asked = fetches(&one.packet(3, ToPeer::Reply(Reply::Promise(far))));
    assert_eq!(asked.len(), 1);
    let whole = vec![7; 25 * SnapshotGet::BLOCK];
    let mut effects = Vec::new();
    for n in 0..25 {
        one.now = one.now + MS * 34;
        let chunk = chunk(100, held(), n * SnapshotGet::BLOCK as u64, &whole);
        effects.extend(one.packet(3, ToPeer::SnapshotChunk(chunk)));
        assert!(one.replica.tries_to_lead(), "chunk {n} has come");
    }
    assert_eq!(fetches(&effects), Vec::<Fetch>::new(), "the donor answers already");
    assert!(one.holds_whole(100, held(), &whole));

    for _ in 0..40 {
        // It is read back.
        one.now = one.now + MS * 34;
        one.packet(3, promise_of_log(view, 1, 105));
        one.input(Input::SnapshotOpening(one.file.0));
        assert!(one.replica.tries_to_lead());
    }
    let mut effects = Vec::new();
    assert!(one.install(&mut effects));
    let asked = fetches(&effects);
    assert_eq!(asked.iter().map(|fetch| fetch.after).collect::<Vec<_>>(), vec![Op(100)]);
    one.packet(3, fetched(view, asked[0].query, 100, entries(101, 105)));
    assert!(matches!(one.replica.role, Role::Primary(_)));
}

/// Server 1 prepares the view that is returned, and the snapshot at op 100 that it lacks has arrived of
/// server 3, whose log ends at `last`.
fn reading_back(last: u64) -> (One, View) {
    let (mut one, view) = preparing(3);
    let ToPeer::Reply(Reply::Promise(far)) = promise_of_log(view, 1, last) else { unreachable!() };
    let far = Promise { commit: Op(100), index: vec![(held(), Op(100))], ..far };
    one.packet(3, ToPeer::Reply(Reply::Promise(far)));
    one.packet(3, ToPeer::SnapshotChunk(chunk(100, held(), 0, &[7; 500])));
    assert!(one.holds_whole(100, held(), &[7; 500]));
    (one, view)
}

/// The progress that the last PREPARE among the effects tells, if there is one.
fn told_progress(effects: &[Effect]) -> Option<u64> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Send { packet: ToPeer::Election(Election::Prepare { progress, .. }), .. } => Some(*progress),
        _ => None,
    })
}

/// The donor answers each PREPARE with its promise.
fn answers(view: View, last: u64) -> impl Fn(&mut One) -> Vec<Effect> {
    move |one| one.packet(3, promise_of_log(view, 1, last))
}

#[test]
fn a_candidate_goes_on_and_tells_so_while_a_step_of_reading_a_snapshot_takes_many_times_t_coord() {
    let (mut one, view) = reading_back(105);
    let mut before = 0;
    for _ in 0..60 {
        // No step of it ends meanwhile.
        let effects = one.pass(T_COORD - MS * 10, answers(view, 105));
        assert!(one.replica.tries_to_lead());
        let told = told_progress(&effects).expect("PREPARE");
        assert!(told > before, "those that wait for it learn that it is not stuck");
        before = told;
    }
    assert!(one.install(&mut Vec::new()));
    assert_eq!(one.replica.failed_views, 0);
}

#[test]
fn a_candidate_gives_up_a_snapshot_of_which_it_reads_nothing_for_ten_seconds() {
    let (mut one, view) = reading_back(105);
    one.pass(SECOND * 9, answers(view, 105));
    assert!(one.replica.tries_to_lead());
    one.input(Input::SnapshotOpening(one.file.0));
    one.pass(SECOND * 9, answers(view, 105));
    assert!(one.replica.tries_to_lead(), "a step has ended since");
    one.pass(SECOND * 3 / 2, answers(view, 105));
    assert!(!one.replica.tries_to_lead());
    assert_eq!(one.replica.unfetched_end, Some(Op(105)), "others that can lead go first");
}

#[test]
fn a_candidate_leaves_its_view_after_a_minute_of_fetching_however_well_that_goes_on() {
    let (mut one, view) = reading_back(105);
    let goes_on = |one: &mut One| {
        one.packet(3, promise_of_log(view, 1, 105));
        one.input(Input::SnapshotOpening(one.file.0));
    };
    one.pass(SECOND * 59, goes_on);
    assert!(one.replica.tries_to_lead());
    one.pass(SECOND * 2, goes_on);
    assert!(!one.replica.tries_to_lead());
    // What it has read is not lost: as a backup it takes the snapshot all the same.
    one.packet(2, prepare(View::new(99, NodeId(2))));
    assert!(one.install(&mut Vec::new()));
}

#[test]
fn a_donor_that_dies_while_its_snapshot_is_read_is_given_up_as_one_that_sends_no_entries() {
    let (mut one, view) = reading_back(105);
    one.pass(SECOND, answers(view, 105));
    assert!(one.replica.tries_to_lead());
    one.pass(T_COORD * 2 + MS * 60, |one| one.input(Input::SnapshotOpening(one.file.0)));
    assert!(!one.replica.tries_to_lead(), "entries up to op 105 would still have to come");

    // Nothing is wanted of it any more if the snapshot is all that was lacking.
    let (mut one, _) = reading_back(100);
    one.idle(SECOND * 3);
    assert!(one.replica.tries_to_lead());
    assert!(one.install(&mut Vec::new()));
    assert!(matches!(one.replica.role, Role::Primary(_)));
}

#[test]
fn a_candidate_late_by_itself_does_not_give_up_the_donor_that_it_had_no_time_to_hear() {
    let (mut one, view) = reading_back(105);
    one.pass(SECOND, answers(view, 105));
    one.now = one.now + SECOND * 2;
    one.input(Input::SnapshotOpening(one.file.0));
    assert!(one.replica.tries_to_lead());
    one.pass(SECOND, answers(view, 105));
    assert!(one.replica.tries_to_lead());
}

#[test]
fn a_candidate_waits_for_its_journal_to_store_what_has_arrived() {
    let (mut one, view) = preparing(3);
    one.stores = false;
    let ToPeer::Reply(Reply::Promise(far)) = promise_of_log(view, 1, 105) else { unreachable!() };
    let far = Promise { commit: Op(100), index: vec![(held(), Op(100))], ..far };
    one.packet(3, ToPeer::Reply(Reply::Promise(far)));
    one.packet(3, ToPeer::SnapshotChunk(chunk(100, held(), 0, &[7; 5_000])));
    one.pass(SECOND * 9, answers(view, 105));
    assert!(one.replica.tries_to_lead(), "the disk is at work");
    one.pass(SECOND * 3 / 2, answers(view, 105));
    assert!(!one.replica.tries_to_lead(), "it hangs");
}

// ---- refused, deposed, isolated

#[test]
fn a_primary_that_is_outbid_takes_a_round_beyond_the_bid_and_serves_nobody() {
    let mut one = One::leading();
    let effects = one.packet(2, refuse(View::new(9, NodeId(2))));
    assert_eq!(one.replica.promised(), View::new(10, NodeId(1)));
    assert!(effects.contains(&Effect::Deposed));
    let mut backup = One::new(boot());
    let effects = wait_for(&mut backup, RoleName::Candidate);
    assert!(!effects.contains(&Effect::Deposed), "it never served");
}

#[test]
fn a_refused_candidate_leaves_the_other_one_at_least_its_time() {
    for seed in 0..8 {
        let mut one = server(1, 3, seed);
        one.prepare();
        one.sync();
        one.packet(2, refuse(View::new(9, NodeId(2))));
        // Twice T_coord after one failed view, and up to half of that at random.
        one.idle(MS * 290);
        assert_eq!(one.replica.role(), RoleName::Backup, "seed {seed}");
        one.idle(MS * 170);
        assert_eq!(one.replica.role(), RoleName::Candidate, "seed {seed}");
    }
}

#[test]
fn an_isolated_primary_reports_afterwards_how_long_it_was() {
    let mut one = One::leading();
    wait_for(&mut one, RoleName::Isolated);
    one.idle(MS * 500);
    let changes = role_changes(&one.echo(2, 0));
    let took = changes.iter().find(|change| change.cause == Cause::MajorityBack).map(|change| change.took);
    assert!(took.is_some_and(|took| took >= MS * 500), "{took:?}");
    assert_eq!(one.replica.role(), RoleName::Primary);
}

/// A heartbeat sent before the primary judges itself would say for 40 ms more what holds no longer.
#[test]
fn a_heartbeat_that_is_due_when_a_primary_loses_or_regains_its_majority_says_so_and_is_the_only_one() {
    // The states in the heartbeats to server 2.
    let states = |effects: &[Effect]| -> Vec<HeartbeatState> {
        let states = said(effects, 2).into_iter().filter_map(|packet| match packet {
            ToPeer::Heartbeat(heartbeat) => Some(heartbeat.state),
            _ => None,
        });
        states.collect()
    };
    let mut one = One::leading();
    // The latest heartbeat was sent now.
    let sent = one.now;
    one.echo(2, 0);
    one.idle(MS * 1_180);
    assert_eq!(one.replica.role(), RoleName::Primary);
    // More than twice T_s since that heartbeat, and more than 40 ms since the last one.
    one.now = sent + MS * 1_240;
    let effects = one.input(Input::Deadline);
    assert_eq!(one.replica.role(), RoleName::Isolated);
    assert_eq!(states(&effects), [HeartbeatState::Isolated]);
    one.now = one.now + MS * 50;
    let effects = one.echo(2, 0);
    assert_eq!(one.replica.role(), RoleName::Primary);
    assert_eq!(states(&effects), [HeartbeatState::Active]);
}

#[test]
fn a_primary_that_is_probed_sends_a_heartbeat_at_once_unless_it_is_isolated() {
    let beats = |one: &mut One| {
        let effects = one.packet(2, probe(one.replica.promised(), 0));
        assert!(sent(&effects, |packet| matches!(packet, ToPeer::Reply(Reply::Alive { .. }))));
        sent(&effects, |packet| matches!(packet, ToPeer::Heartbeat(_)))
    };
    let mut one = One::leading();
    assert!(beats(&mut one));
    wait_for(&mut one, RoleName::Isolated);
    assert!(!beats(&mut one), "it has just sent one that says so");
}

// ---- the hand-over

#[test]
fn an_isolated_primary_hands_nothing_over() {
    let mut one = One::leading();
    one.replica.propose([].into());
    one.pass(MS * 900, |one| {
        one.echo(2, 1);
        one.echo(3, 1);
    });
    assert_eq!(one.replica.role(), RoleName::Isolated, "its disk stalls");
    one.input(Input::Stop);
    assert!(!one.replica.hands_over());
}

#[test]
fn a_transfer_is_followed_only_with_everything_durable_and_matched() {
    let (old, view) = (View::new(1, NodeId(2)), View::new(2, NodeId(3)));
    let transfer = ToPeer::Transfer(Transfer { view, last: Op(2) });
    let log = vec![entry(1, 1, 2), entry(2, 1, 2)];
    let mut one = One::new(Boot { entries: log, promised: old, ..boot() });
    hear(&mut one, view);
    one.packet(3, transfer.clone());
    assert_eq!(one.replica.role(), RoleName::Backup, "durable, but perhaps not the primary's entries");

    let mut one = One::new(boot());
    one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 2, 3), entry(2, 2, 3)]));
    one.packet(3, transfer.clone());
    assert_eq!(one.replica.role(), RoleName::Backup, "not durable yet");
    one.sync();
    one.packet(3, transfer);
    assert!(one.replica.tries_to_lead());
}
