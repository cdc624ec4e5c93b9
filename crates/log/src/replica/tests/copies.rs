//! How a backup takes what the primary casts, how the primary casts it, and how a server that is behind
//! catches up.

use super::*;

/// The ops in the casts to `peer`.
fn tracked(effects: &[Effect], peer: u16) -> Vec<(Op, Op)> {
    let ranges = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, tracked, .. } if *to == NodeId(peer) => *tracked,
        _ => None,
    });
    ranges.collect()
}

// ---- the backup

#[test]
fn a_backup_without_progress_requests_another_cast_once_in_the_least_patience() {
    let mut one = One::new(boot());
    let beat = heartbeat(View::new(1, NodeId(3)), HeartbeatState::Active, 0, one.replica.digest);
    let mut asked = Vec::new();
    for elapsed in (0..=400).step_by(40) {
        let effects = one.packet(3, beat.clone());
        if acked(&effects).is_some_and(|(.., rejected)| rejected) {
            asked.push(elapsed);
        }
        one.now = one.now + MS * 39;
    }
    assert_eq!(asked, vec![200, 400]);
}

#[test]
fn uneven_heartbeats_of_the_primary_that_is_followed_buy_it_patience() {
    let mut one = One::new(boot());
    for _ in 0..4 {
        hear_unsynced(&mut one, View::new(1, NodeId(3)));
        one.now = one.now + MS * 109;
    }
    let patience = one.replica.detector.patience();
    assert!(patience > Timing::DEFAULT.suspect_min, "{patience:?}");
}

#[test]
fn the_wait_for_the_first_heartbeat_is_no_gap_between_two() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    one.packet(3, prepare(view));
    one.sync();
    one.now = one.now + MS * 108;
    hear_unsynced(&mut one, view);
    assert_eq!(one.replica.detector.patience(), Timing::DEFAULT.suspect_min);
}

#[test]
fn a_coordinator_can_name_only_another_member() {
    for primary in [1, 9] {
        let mut one = One::new(boot());
        one.packet(2, coordinator(View::new(5, NodeId(primary))));
        let known = (one.replica.promised(), one.replica.active_view());
        assert_eq!(known, (View::ZERO, View::ZERO), "server {primary}");
    }
}

#[test]
fn a_coordinator_makes_a_view_active_that_was_promised_before() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    one.packet(3, prepare(view));
    one.sync();
    assert!(one.packet(3, coordinator(view)).contains(&Effect::Active(view)));
}

#[test]
fn the_last_committed_op_is_compared_with_the_leaders_too() {
    let (old, other, view) = (View::new(1, NodeId(2)), View::new(2, NodeId(3)), View::new(4, NodeId(3)));
    let entries = (1..=5).map(|op| entry(op, 1, 2)).collect();
    let mut one = One::new(Boot { entries, commit: Op(5), promised: old, ..boot() });
    let effects = one.packet(3, cast(view, 5, other, 5, vec![entry(6, 4, 3)]));
    let found = Contradiction { view, op: Op(5), commit: Op(5), count: 1 };
    assert_eq!(contradiction(&effects), Some(found));
    assert_eq!(one.replica.last(), Op(5), "it keeps its log");
}

#[test]
fn a_contradiction_is_reported_once_in_each_view() {
    let old = View::new(1, NodeId(2));
    let entries = (1..=6).map(|op| entry(op, 1, 2)).collect();
    let mut one = One::new(Boot { entries, commit: Op(5), promised: old, ..boot() });
    let mut counts = Vec::new();
    for round in [4, 4, 5] {
        let entries = (4..=6).map(|op| entry(op, round, 3)).collect();
        let effects = one.packet(3, cast(View::new(round, NodeId(3)), 3, old, 3, entries));
        counts.push(contradiction(&effects).map(|found| found.count));
    }
    assert_eq!(counts, vec![Some(1), None, Some(2)]);
}

#[test]
fn a_cast_that_arrives_early_and_finds_no_room_is_requested_again() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 1, 3)]));
    let mut rejected = |prev: u64| {
        let effects = one.packet(3, cast(view, prev, view, 0, vec![entry(prev + 1, 1, 3)]));
        acked(&effects).map(|(.., rejected)| rejected)
    };
    for prev in 2..66 {
        assert_eq!(rejected(prev), Some(false), "after op {prev}");
    }
    assert_eq!(rejected(66), Some(true), "there is no room");
    assert_eq!(rejected(65), Some(false), "it is kept already");
}

#[test]
fn nothing_of_a_packet_with_an_entry_that_is_not_followed_is_taken_and_that_is_reported() {
    let view = View::new(1, NodeId(3));
    for kind in NOT_FOLLOWED {
        let mut one = One::new(boot());
        one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 1, 3)]));
        one.sync();
        let other = Entry { kind, ..entry(3, 1, 3) };
        let effects = one.packet(3, cast(view, 1, view, 1, vec![entry(2, 1, 3), other, entry(4, 1, 3)]));
        assert_eq!(refusals(&effects), [Report::EntryRefused { view, op: Op(3), kind }]);
        assert_eq!((acked(&effects), one.replica.last()), (None, Op(1)), "{kind:?}");
    }
}

#[test]
fn an_entry_that_is_not_followed_is_reported_only_of_the_primary_or_of_the_donor() {
    let (old, view) = (View::new(1, NodeId(3)), View::new(2, NodeId(3)));
    let entries = || vec![Entry { kind: EntryKind::Members, ..entry(1, 1, 3) }];
    let unasked = |view| {
        let ToPeer::Entries(cast) = cast(view, 0, View::ZERO, 0, entries()) else { unreachable!() };
        ToPeer::Entries(Entries { fetch: Some(QueryId(1)), ..cast })
    };
    for (what, from, packet, reported) in [
        ("of the view", 3, cast(view, 0, View::ZERO, 0, entries()), 1),
        ("of an older view", 3, cast(old, 0, View::ZERO, 0, entries()), 0),
        ("of another server", 2, cast(view, 0, View::ZERO, 0, entries()), 0),
        ("an answer to no request", 3, unasked(view), 0),
    ] {
        let mut one = One::new(boot());
        hear(&mut one, view);
        assert_eq!(refusals(&one.packet(from, packet)).len(), reported, "{what}");
    }
}

#[test]
fn a_candidate_does_not_lead_with_an_entry_that_it_does_not_follow() {
    for kind in NOT_FOLLOWED {
        let (mut one, view) = preparing(3);
        let asks = fetches(&one.packet(3, promise_of_log(view, 1, 2)));
        let answer = vec![entry(1, 3, 3), Entry { kind, ..entry(2, 3, 3) }];
        let effects = one.packet(3, fetched(view, asks[0].query, 0, answer));
        assert_eq!(refusals(&effects), [Report::EntryRefused { view, op: Op(2), kind }]);
        assert_eq!((one.replica.last(), one.replica.role()), (Op::ZERO, RoleName::Candidate), "{kind:?}");
    }
}

const NOT_FOLLOWED: [EntryKind; 3] =
    [EntryKind::Members, EntryKind::Unknown(3), EntryKind::Unknown(u16::MAX)];

/// The reports of entries whose kind is refused.
fn refusals(effects: &[Effect]) -> Vec<Report> {
    let reports = effects.iter().filter_map(|effect| match effect {
        Effect::Report(report @ Report::EntryRefused { .. }) => Some(report.clone()),
        _ => None,
    });
    reports.collect()
}

fn tasks(effects: &[Effect]) -> Vec<Task> {
    let tasks = effects.iter().filter_map(|effect| match effect {
        Effect::Journal { task, .. } => Some(task.clone()),
        _ => None,
    });
    tasks.collect()
}

#[test]
fn what_is_known_of_incarnations_is_written_once() {
    let (first, second) = (View::new(1, NodeId(3)), View::new(2, NodeId(3)));
    let mut one = One::new(boot());
    let known = Task::Know(vec![(NodeId(3), Incarnation(1).into())]);
    assert_eq!(tasks(&one.packet(3, prepare(first))), vec![known, Task::Promise(first)]);
    assert_eq!(tasks(&one.packet(3, prepare(second))), vec![Task::Promise(second)]);
}

#[test]
fn the_boot_id_of_an_incarnation_is_written_with_the_next_promise_and_only_once() {
    let boot = |id: u8| KnownBoot { incarnation: Incarnation(1), boot_id: Some(BootId([id; 16])) };
    let mut one = One::new(super::boot());
    let promises: Vec<View> = (1..=4).map(|round| View::new(round, NodeId(3))).collect();
    // The incarnation was heard first, and its boot id only afterwards.
    let known = Task::Know(vec![(NodeId(3), Incarnation(1).into())]);
    assert_eq!(tasks(&one.packet(3, prepare(promises[0]))), vec![known, Task::Promise(promises[0])]);
    one.input(Input::BootAdopted { peer: NodeId(3), boot: boot(7) });
    let known = Task::Know(vec![(NodeId(3), boot(7))]);
    assert_eq!(tasks(&one.packet(3, prepare(promises[1]))), vec![known, Task::Promise(promises[1])]);
    // Another boot id of that incarnation is no news, nor is the incarnation without an id.
    one.input(Input::BootAdopted { peer: NodeId(3), boot: boot(8) });
    assert_eq!(tasks(&one.packet(3, prepare(promises[2]))), vec![Task::Promise(promises[2])]);
    // What the journal held at the start is not written again.
    let mut again = One::new(Boot { known: vec![(NodeId(3), boot(7))], ..super::boot() });
    again.input(Input::BootAdopted { peer: NodeId(3), boot: boot(7) });
    assert_eq!(tasks(&again.packet(3, prepare(promises[0]))), vec![Task::Promise(promises[0])]);
}

#[test]
fn other_lists_of_members_have_other_digests() {
    assert_ne!(digest(&[NodeId(1), NodeId(2)]), digest(&[NodeId(1), NodeId(3)]));
}

// ---- the primary

#[test]
fn an_echo_of_an_older_view_gets_a_refusal_or_the_active_view() {
    let (old, view) = (View::new(4, NodeId(1)), View::new(5, NodeId(3)));
    let mut one = One::new(boot());
    let members = one.replica.digest;
    let echo = |promised: View| heartbeat(promised, HeartbeatState::Backup, 0, members);
    one.packet(3, prepare(view));
    let refused = vec![ToPeer::Reply(Reply::Refuse { promised: view })];
    assert_eq!(said(&one.packet(2, echo(old)), 2), refused, "the view may never open");
    one.packet(3, coordinator(view));
    assert_eq!(said(&one.packet(2, echo(old)), 2), vec![coordinator(view)]);
    assert!(said(&one.packet(2, echo(view)), 2).is_empty(), "it knows");
}

#[test]
fn a_view_that_becomes_active_is_announced_to_everyone() {
    let mut one = One::new(boot());
    let view = one.prepare();
    one.sync();
    one.packet(2, promise(view));
    one.sync();
    let effects = one.packet(2, acknowledgement(view));
    for peer in [2, 3] {
        assert!(said(&effects, peer).contains(&coordinator(view)), "server {peer}");
    }
}

#[test]
fn a_backup_that_lacks_the_last_op_of_the_snapshot_is_offered_the_snapshot() {
    let old = View::new(1, NodeId(2));
    let (base, entries) = ((old, Op(5)), vec![entry(6, 1, 2)]);
    let mut one = One::new(Boot { base, entries, commit: Op(6), promised: old, ..boot() });
    let view = one.prepare();
    one.sync();
    one.packet(2, promise(view));
    let behind = |matched: u64| {
        let (durable, matched, applied) = (Op(0), Op(matched), Op(0));
        ToPeer::EntriesAck(EntriesAck { view, durable, matched, commit: applied, rejected: true })
    };
    let offer = Effect::ReadSnapshot { to: NodeId(2), op: Op::ZERO, offset: 0, blocks: 1 };
    assert!(one.packet(2, behind(4)).contains(&offer));
    let effects = one.packet(3, behind(5));
    assert_eq!(tracked(&effects, 3), vec![(Op(6), Op(7))], "the entries that it lacks are held");
}

/// Server 1 leads and has cast ops 2 to 4.
fn casting() -> One {
    let mut one = One::leading();
    for _ in 0..3 {
        one.replica.propose([].into());
    }
    let effects = one.input(Input::Deadline);
    assert_eq!(tracked(&effects, 2), vec![(Op(2), Op(4))]);
    one
}

#[test]
fn what_is_believed_lost_is_cast_again_as_far_as_there_is_room() {
    let mut one = casting();
    let lost = Input::Lost { peer: NodeId(2), ops: (Op(2), Op(4)) };
    one.replica.handle(one.now, lost, &mut Vec::new());
    let steps = [
        (0, Vec::new()),
        (1, vec![(Op(2), Op(2))]),
        (AMPLE.window, vec![(Op(3), Op(4))]),
        (AMPLE.window, Vec::new()),
    ];
    for (window, wanted) in steps {
        let mut effects = Vec::new();
        one.replica.flush(one.now, |_| Room { window, ..AMPLE }, &mut effects);
        assert_eq!(tracked(&effects, 2), wanted, "with room for {window} bytes");
    }
}

#[test]
fn entries_share_a_packet_up_to_the_size_that_the_link_takes() {
    for packet in [PACKETS_MAX, 1_359, 8_859] {
        let casts = |size: usize| {
            let mut one = One::leading();
            for _ in 0..2 {
                one.replica.propose(vec![0; size].into());
            }
            let mut effects = Vec::new();
            one.replica.flush(one.now, |_| Room { packet, ..AMPLE }, &mut effects);
            said(&effects, 2)
                .into_iter()
                .filter(|said| matches!(said, ToPeer::Entries(_)))
                .collect::<Vec<_>>()
        };
        let size = (0..packet / 2).rev().find(|size| casts(*size).len() == 1).unwrap();
        let length = codec::encoded_len(&casts(size)[0]);
        // Room for a longer count of entries, and two entries of one size.
        assert!((packet - 3..=packet).contains(&length), "{length} of {packet} bytes");
        assert_eq!(casts(size + 1).len(), 2);
    }
}

#[test]
fn rejections_of_one_hole_move_the_cast_back_once() {
    let mut one = casting();
    let view = one.replica.promised();
    let (durable, matched, applied) = (Op(1), Op(1), Op(1));
    let rejected = EntriesAck { view, durable, matched, commit: applied, rejected: true };
    // The second rejection comes 1 ms after the first, the third 5 ms after it: an eighth of a heartbeat.
    for (wait, again) in [(0, true), (0, false), (3, true)] {
        one.now = one.now + MS * wait;
        let effects = one.packet(2, ToPeer::EntriesAck(rejected));
        assert_eq!(!tracked(&effects, 2).is_empty(), again, "after {wait} ms");
    }
}

// ---- catching up

#[test]
fn a_fetch_is_answered_with_a_snapshot_or_with_entries_and_their_end() {
    let (old, view) = (View::new(1, NodeId(2)), View::new(4, NodeId(3)));
    let entries = (6..=8).map(|op| entry(op, 1, 2)).collect();
    let mut one = One::new(Boot { base: (old, Op(5)), entries, commit: Op(6), promised: old, ..boot() });
    one.packet(3, prepare(view));
    one.sync();
    let fetch = |after: u64| ToPeer::Fetch(Fetch { query: QueryId(7), view, after: Op(after), upto: Op(7) });
    let read = Effect::ReadSnapshot { to: NodeId(3), op: Op::ZERO, offset: 0, blocks: 1 };
    assert!(one.packet(3, fetch(4)).contains(&read), "op 5 is only in the snapshot");
    let effects = one.packet(3, fetch(5));
    assert!(!effects.contains(&read));
    let pieces: Vec<(Op, usize)> = said(&effects, 3)
        .into_iter()
        .filter_map(|packet| match packet {
            ToPeer::Entries(entries) => Some((entries.prev_op, entries.entries.len())),
            _ => None,
        })
        .collect();
    assert_eq!(pieces, vec![(Op(5), 2), (Op(7), 0)]);
}

pub(super) fn chunk(op: u64, view: View, offset: u64, whole: &[u8]) -> SnapshotChunk {
    let bytes = whole.iter().skip(offset as usize).take(SnapshotGet::BLOCK).copied().collect();
    SnapshotChunk { op: Op(op), view, offset, total: whole.len() as u64, crc: crc32c::crc32c(whole), bytes }
}

fn asks_on(effects: &[Effect]) -> bool {
    sent(effects, |packet| matches!(packet, ToPeer::SnapshotGet(_)))
}

#[test]
fn a_snapshot_is_taken_only_from_the_primary_beyond_the_commit_and_up_to_the_largest_size() {
    let (old, view) = (View::new(1, NodeId(2)), View::new(2, NodeId(3)));
    let first = chunk(10, old, 0, &[1; 2_048]);
    let largest = SnapshotChunk { total: SnapshotChunk::TOTAL_MAX, ..first.clone() };
    let larger = SnapshotChunk { total: SnapshotChunk::TOTAL_MAX + 1, ..first.clone() };
    let committed = SnapshotChunk { op: Op(5), ..first.clone() };
    let cases = [
        ("from the primary", 3, first.clone(), true),
        ("from another backup", 2, first, false),
        ("an older snapshot", 3, committed, false),
        ("the largest", 3, largest, true),
        ("larger", 3, larger, false),
    ];
    for (what, from, chunk, taken) in cases {
        let mut one = One::new(Boot { base: (old, Op(8)), commit: Op(8), promised: old, ..boot() });
        hear_unsynced(&mut one, view);
        let effects = one.packet(from, ToPeer::SnapshotChunk(chunk));
        assert_eq!(asks_on(&effects), taken, "{what}");
    }
}

#[test]
fn the_pieces_of_two_snapshots_are_never_put_together() {
    let view = View::new(1, NodeId(3));
    let whole: Vec<u8> = [[1; 1_024], [2; 1_024]].concat();
    let last = chunk(10, view, 1_024, &whole);
    let mut one = One::new(boot());
    hear_unsynced(&mut one, view);
    one.packet(3, ToPeer::SnapshotChunk(chunk(10, view, 0, &whole)));
    let other_bytes = SnapshotChunk { crc: last.crc ^ 1, bytes: vec![9; 1_024], ..last.clone() };
    let other_op = SnapshotChunk { op: Op(11), bytes: vec![9; 1_024], ..last.clone() };
    one.packet(3, ToPeer::SnapshotChunk(other_bytes));
    one.packet(3, ToPeer::SnapshotChunk(other_op));
    one.packet(3, ToPeer::SnapshotChunk(last));
    assert!(one.holds_whole(10, view, &whole));
}

#[test]
fn a_transfer_of_an_older_view_is_not_continued() {
    let (old, view) = (View::new(1, NodeId(3)), View::new(2, NodeId(3)));
    for changed in [false, true] {
        let mut one = One::new(boot());
        hear_unsynced(&mut one, old);
        one.packet(3, ToPeer::SnapshotChunk(chunk(10, old, 0, &[1; 2_048])));
        if changed {
            hear_unsynced(&mut one, view);
        }
        let effects = one.packet(3, ToPeer::SnapshotChunk(chunk(10, old, 1_024, &[1; 2_048])));
        assert_eq!(received(&effects), !changed);
    }
}

#[test]
fn a_snapshot_whose_entries_came_by_the_cast_is_no_longer_requested() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    hear_unsynced(&mut one, view);
    assert!(asks_on(&one.packet(3, ToPeer::SnapshotChunk(chunk(3, view, 0, &[1; 4_096])))));
    one.packet(3, cast(view, 0, View::ZERO, 0, (1..=3).map(|op| entry(op, 1, 3)).collect()));
    one.packet(3, ToPeer::SnapshotChunk(chunk(3, view, 1_024, &[1; 4_096])));
    assert_eq!(one.replica.commit(), Op(3), "a snapshot has only committed ops");
    assert!(!asks_on(&one.idle(MS * 160)));
}

#[test]
fn a_window_that_does_not_arrive_is_requested_again_after_two_heartbeats_and_not_at_once() {
    let view = View::new(1, NodeId(3));
    let mut one = One::new(boot());
    hear_unsynced(&mut one, view);
    assert!(asks_on(&one.packet(3, ToPeer::SnapshotChunk(chunk(3, view, 0, &[1; 4_096])))));
    // Every input comes 1 ms after the wait: 79, 80 and 81 ms after the chunk.
    for (wait, asked) in [(78, false), (0, true), (0, false)] {
        one.now = one.now + MS * wait;
        assert_eq!(asks_on(&one.input(Input::Deadline)), asked, "after {wait} ms more");
    }
}

#[test]
fn entries_that_an_installed_snapshot_replaces_are_reported() {
    let (old, view) = (View::new(1, NodeId(2)), View::new(2, NodeId(3)));
    let entries = (1..=6).map(|op| entry(op, 1, 2)).collect();
    let mut one = One::new(Boot { entries, promised: old, commit: Op(2), ..boot() });
    hear_unsynced(&mut one, view);
    let mut effects = Vec::new();
    assert!(one.install_arrived(4, view, &mut effects));
    assert!(effects.contains(&Effect::Report(Report::Overwritten { view, first: Op(5), last: Op(6) })));
}
