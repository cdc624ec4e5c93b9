//! Snapshots and entries on their way to a server that is behind: what is asked for, what is taken, and when
//! a transfer ends.

use super::copies::chunk;
use super::*;

const CHUNK: usize = SnapshotGet::BLOCK;

/// The view of primary 3.
fn view() -> View {
    View::new(1, NodeId(3))
}

/// Backup 1, which has an empty log and hears primary 3.
fn following() -> One {
    let mut one = One::new(boot());
    hear_unsynced(&mut one, view());
    one
}

/// `len` bytes of `whole`, the snapshot at op 10, from `offset` on.
fn piece(whole: &[u8], offset: usize, len: usize) -> SnapshotChunk {
    let (total, crc) = (whole.len() as u64, crc32c::crc32c(whole));
    let bytes = whole[offset..offset + len].to_vec();
    SnapshotChunk { op: Op(10), view: view(), offset: offset as u64, total, crc, bytes }
}

/// The chunk arrives from primary 3.
fn receive(one: &mut One, chunk: SnapshotChunk) -> Vec<Effect> {
    one.packet(3, ToPeer::SnapshotChunk(chunk))
}

/// The windows that are asked for: the snapshot's op, the offset and the number of blocks.
fn asked(effects: &[Effect]) -> Vec<(Op, usize, u16)> {
    let asked = effects.iter().filter_map(|effect| match effect {
        Effect::Send { packet: ToPeer::SnapshotGet(get), .. } => {
            Some((get.op, get.offset as usize, get.blocks))
        }
        _ => None,
    });
    asked.collect()
}

/// Candidate 1 has these entries, with its own promise durable. The second is its view.
fn preparing_with(entries: Vec<Entry>) -> (One, View) {
    let mut one = One::new(Boot { entries, promised: held(), ..boot() });
    let view = one.prepare();
    one.sync();
    (one, view)
}

/// The promise of a server that holds `held` from `first` to `last`, and names no earlier views.
fn promise_of_held_alone(view: View, first: u64, last: u64) -> ToPeer {
    let ToPeer::Reply(Reply::Promise(empty)) = promise(view) else { unreachable!() };
    let index = vec![(held(), Op(first))];
    ToPeer::Reply(Reply::Promise(Promise { last_view: held(), last_op: Op(last), index, ..empty }))
}

/// The answer to a FETCH, with the entries of `held` from `first` to `last`.
fn fetched_from(view: View, query: QueryId, prev_view: View, first: u64, last: u64) -> ToPeer {
    let entries = (first..=last).map(|op| entry(op, 3, 3)).collect();
    let (fetch, prev_op, commit) = (Some(query), Op(first - 1), Op::ZERO);
    ToPeer::Entries(Entries { view, fetch, prev_op, prev_view, commit, entries, members_op: Op::ZERO })
}

// ---- the donor

#[test]
fn a_fetch_is_answered_only_to_the_candidate_of_the_promised_view() {
    let (old, promised) = (View::new(1, NodeId(2)), View::new(4, NodeId(3)));
    let cases = [
        ("the candidate", 3, promised, true),
        ("another server, of the same view", 2, promised, false),
        ("the candidate of an older view", 2, View::new(3, NodeId(2)), false),
    ];
    for (who, from, view, answered) in cases {
        let entries = (1..=3).map(|op| entry(op, 1, 2)).collect();
        let mut one = One::new(Boot { entries, promised: old, ..boot() });
        one.packet(3, prepare(promised));
        one.sync();
        let fetch = Fetch { query: QueryId(7), view, after: Op(1), upto: Op(3) };
        let packets = said(&one.packet(from, ToPeer::Fetch(fetch)), from);
        assert_eq!(packets.iter().any(|packet| matches!(packet, ToPeer::Entries(_))), answered, "{who}");
    }
}

#[test]
fn a_request_reads_as_many_blocks_as_it_names_from_1_to_64() {
    for (wanted, read) in [(0, 1), (1, 1), (2, 2), (64, 64), (65, 64)] {
        let mut one = One::new(boot());
        let get = SnapshotGet { op: Op(10), offset: 2_048, blocks: wanted };
        let effects = one.packet(2, ToPeer::SnapshotGet(get));
        let reading = Effect::ReadSnapshot { to: NodeId(2), op: Op(10), offset: 2_048, blocks: read };
        assert!(effects.contains(&reading), "{wanted} blocks");
    }
}

// ---- the snapshots that are taken

#[test]
fn a_snapshot_of_the_last_committed_op_is_neither_taken_nor_acknowledged() {
    let old = View::new(1, NodeId(2));
    for of in [old, view()] {
        let mut one = One::new(Boot { base: (old, Op(8)), commit: Op(8), promised: old, ..boot() });
        hear_unsynced(&mut one, view());
        let effects = receive(&mut one, chunk(8, of, 0, &[1; 4_096]));
        assert_eq!(acked(&effects), None, "of {of:?}");
        assert!(asked(&effects).is_empty(), "of {of:?}");
    }
}

#[test]
fn a_snapshot_is_taken_only_if_ops_can_follow_it_and_its_view_was_promised() {
    let (most, higher) = (u64::MAX / 2, View::new(2, NodeId(2)));
    for (op, of, taken) in [(most, view(), true), (most + 1, view(), false), (10, higher, false)] {
        let mut one = following();
        let effects = receive(&mut one, chunk(op, of, 0, &[1; 4_096]));
        assert_eq!(!asked(&effects).is_empty(), taken, "op {op} of {of:?}");
    }
}

#[test]
fn a_transfer_begins_with_the_first_chunk() {
    let mut one = following();
    receive(&mut one, piece(&[7; 4 * CHUNK], CHUNK, CHUNK));
    assert!(asked(&one.idle(MS * 160)).is_empty());
}

#[test]
fn a_transfer_that_is_abandoned_ends_and_the_same_snapshot_is_taken_when_it_is_offered_again() {
    let whole = [7; 4 * CHUNK];
    // While it arrives, and the journal takes nothing more of it.
    let mut one = following();
    one.stores = false;
    receive(&mut one, piece(&whole, 0, CHUNK));
    one.idle(SECOND * 5);
    assert_eq!(asked(&receive(&mut one, piece(&whole, 0, CHUNK))), [], "it waits for the journal");
    one.stores = true;
    let ended = one.input(Input::SnapshotAbandoned(one.file.0));
    assert!(ended.contains(&Effect::DropSnapshot(1)), "{ended:?}");
    let again = receive(&mut one, piece(&whole, 0, 4 * CHUNK));
    assert!(one.holds_whole(10, view(), &whole), "{again:?}");
    assert_eq!(one.file.0, 2, "another transfer");

    // While it is read back.
    assert_eq!(one.input(Input::SnapshotAbandoned(1)), [], "that one has ended before");
    assert!(one.holds_whole(10, view(), &whole));
    let ended = one.input(Input::SnapshotAbandoned(2));
    assert!(ended.contains(&Effect::DropSnapshot(2)), "{ended:?}");
    receive(&mut one, piece(&whole, 0, 4 * CHUNK));
    assert!(one.holds_whole(10, view(), &whole));
    assert_eq!(one.file.0, 3);
    assert!(one.install(&mut Vec::new()));
}

#[test]
fn a_snapshot_with_a_wrong_checksum_is_reported_with_its_donor_each_time_and_fetched_again() {
    let whole = [7; 2 * CHUNK];
    let mut one = following();
    for time in 1..=2 {
        let rotten = SnapshotChunk { crc: 5, ..piece(&whole, 0, 2 * CHUNK) };
        let effects = receive(&mut one, rotten);
        let damaged = Report::SnapshotDamaged { donor: NodeId(3), op: Op(10) };
        assert!(effects.contains(&Effect::Report(damaged)), "{time}: {effects:?}");
        assert!(effects.contains(&Effect::DropSnapshot(time)));
        assert!(one.replica.opening.is_none());
    }
    receive(&mut one, piece(&whole, 0, 2 * CHUNK));
    assert!(one.holds_whole(10, view(), &whole));
}

#[test]
fn bytes_beyond_the_end_of_a_snapshot_are_not_taken() {
    let whole = [7; CHUNK + 8];
    let mut one = following();
    receive(&mut one, piece(&whole, 0, CHUNK));
    let last = piece(&whole, CHUNK, 8);
    let longer = SnapshotChunk { total: last.total + 1, bytes: vec![7; 9], ..last.clone() };
    receive(&mut one, longer);
    assert!(received(&receive(&mut one, last)), "the transfer goes on");
}

// ---- the windows

#[test]
fn the_next_window_is_requested_at_once_with_the_last_chunk_of_this_one() {
    let whole = vec![7; 66 * CHUNK];
    let (mut one, mut asks, mut effects) = (following(), Vec::new(), Vec::new());
    for n in 0..66 {
        effects = receive(&mut one, piece(&whole, n * CHUNK, CHUNK));
        asks.extend(asked(&effects).into_iter().map(|ask| (n, ask)));
    }
    assert_eq!(asks, vec![(0, (Op(10), CHUNK, 64)), (64, (Op(10), 65 * CHUNK, 64))]);
    assert!(received(&effects));
}

#[test]
fn a_chunk_that_overtook_others_is_buffered_only_if_it_was_requested() {
    // The first window has the chunks 1 to 64.
    for (last, kept) in [(64, true), (65, false)] {
        let whole = vec![7; (last + 1) * CHUNK];
        let mut one = following();
        receive(&mut one, piece(&whole, 0, CHUNK));
        receive(&mut one, piece(&whole, last * CHUNK, CHUNK));
        let mut effects = Vec::new();
        for n in 1..last {
            effects = receive(&mut one, piece(&whole, n * CHUNK, CHUNK));
        }
        assert_eq!(received(&effects), kept, "chunk {last}");
    }
}

#[test]
fn no_more_than_64_chunks_are_kept_that_overtook_others() {
    for (early, kept) in [(64, true), (65, false)] {
        let whole = vec![7; early + 2];
        let mut one = following();
        receive(&mut one, piece(&whole, 0, 1));
        for offset in 2..early + 2 {
            receive(&mut one, piece(&whole, offset, 1));
        }
        assert_eq!(received(&receive(&mut one, piece(&whole, 1, 1))), kept, "{early} chunks");
    }
}

#[test]
fn what_came_behind_a_lost_chunk_is_kept_when_the_window_is_requested_again() {
    let whole: Vec<u8> = (0..66).collect();
    let mut one = following();
    receive(&mut one, piece(&whole, 0, 1));
    for offset in 2..66 {
        receive(&mut one, piece(&whole, offset, 1));
    }
    one.now = one.now + MS * 79;
    assert_eq!(asked(&one.input(Input::Deadline)), vec![(Op(10), 1, 64)]);
    hear_unsynced(&mut one, view());
    assert!(received(&receive(&mut one, piece(&whole, 1, 1))), "the lost chunk alone was missing");
}

/// The donor's path carries less than before.
#[test]
fn a_chunk_that_ends_within_one_that_came_early_completes_the_bytes_with_it() {
    let whole: Vec<u8> = (0..=255).cycle().take(30_000).collect();
    let mut one = following();
    receive(&mut one, piece(&whole, 0, CHUNK));
    receive(&mut one, piece(&whole, 15_000, 8_000));
    receive(&mut one, piece(&whole, 23_000, 7_000));
    let mut at = CHUNK;
    while at < 15_000 {
        receive(&mut one, piece(&whole, at, CHUNK));
        at += CHUNK;
    }
    assert!(one.holds_whole(10, view(), &whole));
}

#[test]
fn chunks_that_arrive_put_off_the_next_request() {
    let whole = [7; 8 * CHUNK];
    let mut one = following();
    receive(&mut one, piece(&whole, 0, CHUNK));
    one.now = one.now + MS * 49;
    receive(&mut one, piece(&whole, CHUNK, CHUNK));
    // 50 and 80 ms after the last chunk, 100 and 130 ms after the request.
    one.now = one.now + MS * 49;
    assert!(asked(&one.input(Input::Deadline)).is_empty());
    one.now = one.now + MS * 29;
    assert_eq!(asked(&one.input(Input::Deadline)), vec![(Op(10), 2 * CHUNK, 64)]);
}

#[test]
fn a_chunk_that_brings_nothing_new_does_not_put_off_the_next_request() {
    let whole = [7; 8 * CHUNK];
    let cases = [
        ("the first chunk again", piece(&whole, 0, CHUNK)),
        ("a kept chunk again", piece(&whole, 3 * CHUNK, CHUNK)),
        ("no bytes", piece(&whole, CHUNK, 0)),
    ];
    for (what, chunk) in cases {
        let mut one = following();
        receive(&mut one, piece(&whole, 0, CHUNK));
        receive(&mut one, piece(&whole, 3 * CHUNK, CHUNK));
        one.now = one.now + MS * 78;
        receive(&mut one, chunk);
        assert_eq!(asked(&one.input(Input::Deadline)), vec![(Op(10), CHUNK, 64)], "{what}");
    }
}

// ---- the pieces that the journal takes

/// As [`following`], with a journal that has not taken anything yet.
fn following_behind_a_slow_journal() -> One {
    One { stores: false, ..following() }
}

/// The journal has taken the bytes of the first transfer up to here.
fn stored(one: &mut One, upto: usize) -> Vec<Effect> {
    one.input(Input::SnapshotStored { transfer: 1, upto: upto as u64 })
}

#[test]
fn the_next_window_is_requested_when_the_journal_has_taken_this_one_and_no_sooner() {
    let whole = vec![7; 200 * CHUNK];
    let mut one = following_behind_a_slow_journal();
    assert!(asked(&receive(&mut one, piece(&whole, 0, CHUNK))).is_empty());
    assert!(asked(&one.idle(MS * 160)).is_empty(), "it waits for the journal");
    assert_eq!(asked(&stored(&mut one, CHUNK)), vec![(Op(10), CHUNK, 64)]);
    for n in 1..=64 {
        assert!(asked(&receive(&mut one, piece(&whole, n * CHUNK, CHUNK))).is_empty(), "{n}");
    }
    assert!(asked(&stored(&mut one, 64 * CHUNK)).is_empty(), "one chunk is not taken yet");
    assert_eq!(asked(&stored(&mut one, 65 * CHUNK)), vec![(Op(10), 65 * CHUNK, 64)]);
}

/// The donor sends far more than it was asked for, and the journal takes nothing.
#[test]
fn no_more_of_a_snapshot_than_two_windows_is_held_in_memory_whatever_its_size() {
    const LARGEST: usize = SnapshotChunk::BYTES_MAX;
    let chunk_at = |offset: usize| {
        let bytes = vec![7; LARGEST];
        SnapshotChunk { op: Op(10), view: view(), offset: offset as u64, total: 1 << 30, crc: 1, bytes }
    };
    let held = |one: &One| one.replica.receiving.as_ref().map_or(0, |receiving| receiving.held());
    for stores in [false, true] {
        let mut one = One { stores, ..following() };
        let (mut most, mut piece_max, mut given) = (0, 0, 0);
        for n in 0..2_000 {
            let effects = receive(&mut one, chunk_at(n * LARGEST));
            for effect in &effects {
                if let Effect::StoreSnapshot { piece, .. } = effect {
                    piece_max = piece_max.max(piece.bytes.len());
                    given += piece.bytes.len();
                }
            }
            one.file.1.clear();
            most = most.max(held(&one));
            hear_unsynced(&mut one, view());
        }
        assert!(most <= 2 * 64 * CHUNK && piece_max <= 2 * 64 * CHUNK, "{most}, {piece_max}");
        assert!(stores == (given > 1_000 * LARGEST), "{given} given to a journal that stores: {stores}");
    }
}

/// Where datagrams are lost, what came of a window is given to the journal before the rest is asked for.
fn lossy(planted: Option<Planted>) -> (One, Vec<u8>) {
    let whole: Vec<u8> = (0..=255).cycle().take(150 * CHUNK).collect();
    let mut one = following();
    one.replica.planted = PlantedBug(planted);
    let mut at = 0;
    while one.replica.opening.is_none() {
        receive(&mut one, piece(&whole, at * CHUNK, CHUNK));
        at += 1;
        // The rest of the window is lost.
        if at % 10 == 0 {
            one.now = one.now + MS * 79;
            one.input(Input::Deadline);
            one.now = one.now + MS;
            hear_unsynced(&mut one, view());
        }
        assert!(at < 1_000);
    }
    (one, whole)
}

#[test]
fn the_journal_is_given_each_byte_once_and_in_order_where_datagrams_are_lost() {
    let (one, whole) = lossy(None);
    assert!(one.holds_whole(10, view(), &whole));
}

#[test]
fn a_piece_that_is_given_twice_is_found() {
    let (one, whole) = lossy(Some(Planted::PieceTwice));
    assert!(!one.holds_whole(10, view(), &whole));
}

// ---- the end of a transfer

/// Passes `heartbeats` heartbeats of primary 3, 40 ms each.
fn hear_on(one: &mut One, heartbeats: u32) {
    for _ in 0..heartbeats {
        one.now = one.now + MS * 39;
        hear_unsynced(one, view());
    }
}

/// The first chunk of a snapshot at op 11.
fn other() -> SnapshotChunk {
    SnapshotChunk { op: Op(11), ..piece(&[2; 8 * CHUNK], 0, CHUNK) }
}

#[test]
fn another_snapshot_is_begun_once_nothing_came_of_the_first_for_twice_t_coord() {
    for (heartbeats, begun) in [(0, false), (7, false), (8, true)] {
        let mut one = following();
        receive(&mut one, piece(&[1; 8 * CHUNK], 0, CHUNK));
        hear_on(&mut one, heartbeats);
        let asks = asked(&receive(&mut one, other()));
        assert_eq!(asks.contains(&(Op(11), CHUNK, 64)), begun, "after {heartbeats} heartbeats");
    }
}

#[test]
fn another_snapshot_is_begun_only_later_than_twice_t_coord_after_the_last_chunk() {
    for (after, begun) in [(T_COORD * 2, false), (T_COORD * 2 + MS, true)] {
        let mut one = following();
        receive(&mut one, piece(&[1; 8 * CHUNK], 0, CHUNK));
        let progressed = one.now;
        hear_on(&mut one, 7);
        // The next packet is handled a millisecond later.
        one.now = progressed + after - MS;
        let asks = asked(&receive(&mut one, other()));
        assert_eq!(asks.contains(&(Op(11), CHUNK, 64)), begun, "after {after:?}");
    }
}

#[test]
fn a_transfer_is_not_replaced_because_its_receiver_was_late_itself() {
    let mut one = following();
    receive(&mut one, piece(&[1; 8 * CHUNK], 0, CHUNK));
    one.now = one.now + Duration::from_secs(5);
    one.input(Input::Deadline);
    let asks = asked(&receive(&mut one, other()));
    assert!(!asks.contains(&(Op(11), CHUNK, 64)), "{asks:?}");
}

#[test]
fn a_transfer_that_makes_progress_is_not_replaced() {
    let whole = [1; 3 * CHUNK];
    let mut one = following();
    receive(&mut one, piece(&whole, 0, CHUNK));
    hear_on(&mut one, 7);
    receive(&mut one, piece(&whole, CHUNK, CHUNK));
    hear_on(&mut one, 1);
    receive(&mut one, other());
    assert!(received(&receive(&mut one, piece(&whole, 2 * CHUNK, CHUNK))));
}

#[test]
fn a_transfer_ends_when_its_donor_has_started_again() {
    let (mut one, view) = preparing_with(Vec::new());
    let promised = promise_of_held_alone(view, 100, 105);
    one.packet(3, promised.clone());
    let effects = receive(&mut one, chunk(100, held(), 0, &[1; 4_096]));
    assert_eq!(asked(&effects), vec![(Op(100), CHUNK, 64)]);
    one.packet_of_incarnation(2, 3, LEARN);
    one.packet_of_incarnation(2, 3, promised);
    // It may have another snapshot now.
    let first = ToPeer::SnapshotChunk(chunk(101, held(), 0, &[2; 4_096]));
    let effects = one.packet_of_incarnation(2, 3, first);
    assert_eq!(asked(&effects), vec![(Op(101), CHUNK, 64)]);
}

#[test]
fn a_snapshot_is_no_longer_requested_once_its_op_is_committed_here() {
    let mut one = following();
    assert!(!asked(&receive(&mut one, chunk(3, view(), 0, &[1; 4_096]))).is_empty());
    one.packet(3, cast(view(), 0, View::ZERO, 3, (1..=3).map(|op| entry(op, 1, 3)).collect()));
    assert_eq!(one.replica.commit(), Op(3));
    assert!(asked(&one.idle(MS * 160)).is_empty());
}

#[test]
fn a_candidate_that_holds_the_donors_snapshot_fetches_what_follows_it() {
    let old = View::new(1, NodeId(2));
    let (mut one, view) = preparing_with((1..=100).map(|op| entry(op, 1, 2)).collect());
    let asks = fetches(&one.packet(3, promise_of_held_alone(view, 101, 105)));
    assert_eq!(asks.iter().map(|fetch| fetch.after).collect::<Vec<_>>(), vec![Op::ZERO]);
    let effects = receive(&mut one, chunk(100, old, 0, &[1; 4_096]));
    assert!(asked(&effects).is_empty());
    let asks = fetches(&effects);
    assert_eq!(asks.iter().map(|fetch| fetch.after).collect::<Vec<_>>(), vec![Op(100)]);
    one.packet(3, fetched_from(view, asks[0].query, old, 101, 105));
    assert!(matches!(one.replica.role, Role::Primary(_)));
}

#[test]
fn a_snapshot_that_arrived_and_was_not_installed_is_fetched_from_nobody_until_another_is_offered() {
    let whole = [7; 2 * CHUNK];
    let mut one = following();
    receive(&mut one, piece(&whole, 0, CHUNK));
    assert!(received(&receive(&mut one, piece(&whole, CHUNK, CHUNK))));
    hear_on(&mut one, 20);
    assert!(asked(&receive(&mut one, piece(&whole, 0, CHUNK))).is_empty(), "from the same server");
    hear_unsynced(&mut one, View::new(2, NodeId(2)));
    let again = ToPeer::SnapshotChunk(piece(&whole, 0, CHUNK));
    assert!(asked(&one.packet(2, again.clone())).is_empty(), "from another one");
    let (other_op, other_bytes) = (other(), piece(&[8; 2 * CHUNK], 0, CHUNK));
    for offered in [other_op, other_bytes] {
        let mut one = following();
        receive(&mut one, piece(&whole, 0, CHUNK));
        receive(&mut one, piece(&whole, CHUNK, CHUNK));
        let op = offered.op;
        assert!(asked(&receive(&mut one, offered.clone())).is_empty(), "while the first is read");
        assert!(one.replica.refuse_snapshot(1, &mut Vec::new()));
        assert!(asked(&receive(&mut one, piece(&whole, 0, CHUNK))).is_empty(), "it was refused");
        assert_eq!(asked(&receive(&mut one, offered)), vec![(op, CHUNK, 64)]);
    }
}

#[test]
fn a_snapshot_with_a_wrong_checksum_is_fetched_again() {
    let good = piece(&[7; CHUNK + 8], 0, CHUNK);
    let damaged = SnapshotChunk { bytes: vec![9; 8], ..piece(&[7; CHUNK + 8], CHUNK, 8) };
    let mut one = following();
    receive(&mut one, good.clone());
    assert!(!received(&receive(&mut one, damaged)));
    assert_eq!(asked(&receive(&mut one, good)), vec![(Op(10), CHUNK, 64)], "it may be read rightly now");
}

#[test]
fn a_transfer_that_is_refused_at_its_start_ends_and_does_not_begin_again() {
    let whole: Vec<u8> = (0..=255).cycle().take(2 * CHUNK).collect();
    for (refused, ends) in [(1, true), (2, false)] {
        let mut one = following();
        let effects = receive(&mut one, piece(&whole, 0, CHUNK));
        let begun = Effect::SnapshotBegun { transfer: 1, op: Op(10), start: whole[..CHUNK].to_vec() };
        assert!(effects.contains(&begun), "{effects:?}");
        let mut dropped = Vec::new();
        assert_eq!(one.replica.refuse_snapshot(refused, &mut dropped), ends);
        assert_eq!(dropped, Vec::from_iter(ends.then_some(Effect::DropSnapshot(1))));
        receive(&mut one, piece(&whole, 0, CHUNK));
        assert_eq!(asked(&one.idle(MS * 160)).is_empty(), ends, "transfer {refused} was refused");
        assert_eq!(received(&receive(&mut one, piece(&whole, CHUNK, CHUNK))), !ends);
    }
}

// ---- the installation

#[test]
fn a_snapshot_that_is_of_no_use_any_more_is_not_installed() {
    let old = View::new(1, NodeId(2));
    let cases = [
        ("the committed op", 4, view()),
        ("an older op", 3, view()),
        ("a view that was never promised", 10, View::new(2, NodeId(2))),
        ("an op that came by the cast meanwhile, with others after it", 5, old),
    ];
    for (what, op, of) in cases {
        let entries = (1..=6).map(|op| entry(op, 1, 2)).collect();
        let mut one = One::new(Boot { entries, commit: Op(4), promised: old, ..boot() });
        hear_unsynced(&mut one, view());
        let mut effects = Vec::new();
        assert!(!one.install_arrived(op, of, &mut effects), "{what}");
        assert_eq!(effects, [Effect::DropSnapshot(1)], "{what}");
        assert_eq!((one.replica.last(), one.replica.commit()), (Op(6), Op(4)), "{what}");
    }
}

#[test]
fn a_primary_installs_no_snapshot() {
    let mut one = One::leading();
    let (view, last) = (one.replica.promised(), one.replica.last());
    let mut effects = Vec::new();
    assert!(!one.install_arrived(50, view, &mut effects));
    assert_eq!(effects, [Effect::DropSnapshot(1)]);
    assert_eq!(one.replica.last(), last);
}

/// The journal writes the entries first, and then the snapshot that replaces them.
#[test]
fn entries_that_the_journal_gets_with_the_snapshot_make_no_op_of_it_durable() {
    let (mut one, view) = preparing_with(Vec::new());
    let asks = fetches(&one.packet(3, promise_of_held_alone(view, 1, 10)));
    let (from, incarnation) = (NodeId(3), Incarnation(1));
    let packet = fetched_from(view, asks[0].query, View::ZERO, 1, 2);
    let (mut effects, given) = (Vec::new(), one.replica.journaling.tasks);
    // No flush comes before the installation.
    one.replica.handle(one.now, Input::Packet { from, incarnation, packet }, &mut effects);
    assert_eq!(one.replica.last(), Op(2));
    assert!(one.install_arrived(8, held(), &mut effects));
    one.input(Input::Journaled(given + 1));
    assert_eq!(one.replica.durable(), Op::ZERO, "the snapshot is not on the disk yet");
    one.input(Input::Journaled(given + 2));
    assert_eq!(one.replica.durable(), Op(8));
}

#[test]
fn a_transfer_that_ends_or_is_replaced_has_its_file_dropped_before_another_is_made() {
    let first = |one: &mut One| receive(one, piece(&[1; 8 * CHUNK], 0, CHUNK));
    let dropped = |effects: &[Effect]| {
        let dropped = effects.iter().filter_map(|effect| match effect {
            Effect::DropSnapshot(transfer) => Some(*transfer),
            _ => None,
        });
        dropped.collect::<Vec<_>>()
    };
    let mut one = following();
    first(&mut one);
    hear_on(&mut one, 8);
    let effects = receive(&mut one, other());
    let at = |wanted: fn(&Effect) -> bool| effects.iter().position(wanted).unwrap();
    assert_eq!(dropped(&effects), [1]);
    assert!(
        at(|effect| matches!(effect, Effect::DropSnapshot(_)))
            < at(|effect| matches!(effect, Effect::StoreSnapshot { .. }))
    );

    let mut one = following();
    first(&mut one);
    let higher = View::new(2, NodeId(2));
    let effects = one.packet(2, heartbeat(higher, HeartbeatState::Active, 0, one.replica.digest));
    assert_eq!(dropped(&effects), [1], "another primary");

    let mut one = following();
    receive(&mut one, piece(&[7; 2 * CHUNK], 0, CHUNK));
    let damaged = SnapshotChunk { bytes: vec![9; CHUNK], ..piece(&[7; 2 * CHUNK], CHUNK, CHUNK) };
    assert_eq!(dropped(&receive(&mut one, damaged)), [1], "a wrong checksum");
    assert_eq!(one.replica.opening, None);
}

/// Backup 1 has received the snapshot at op 10, and the primary casts entries while it is read back.
fn overtaken_by_the_cast(planted: Option<Planted>) -> One {
    let mut one = following();
    receive(&mut one, piece(&[7; CHUNK], 0, CHUNK));
    one.packet(3, cast(view(), 0, View::ZERO, 0, (1..=12).map(|op| entry(op, 1, 3)).collect()));
    one.replica.planted = PlantedBug(planted);
    one
}

/// The primary counts what was acknowledged beyond the snapshot, though its commit has not been heard of.
#[test]
fn a_log_that_has_come_further_while_the_snapshot_was_read_is_kept() {
    let mut one = overtaken_by_the_cast(None);
    let mut effects = Vec::new();
    assert!(!one.install(&mut effects));
    assert_eq!(effects, [Effect::DropSnapshot(1)]);
    assert_eq!(one.replica.last(), Op(12));
    let later = SnapshotChunk { op: Op(20), ..other() };
    assert!(!asked(&receive(&mut one, later)).is_empty(), "another one is taken");
}

#[test]
fn an_installation_that_is_not_checked_again_loses_entries_and_is_found() {
    let mut one = overtaken_by_the_cast(Some(Planted::InstallUnchecked));
    assert!(one.install(&mut Vec::new()) && one.replica.last() == Op(10), "what was acknowledged is gone");
}

#[test]
fn a_candidate_that_collects_promises_keeps_the_log_that_it_has_promised() {
    let mut one = following();
    receive(&mut one, piece(&[7; CHUNK], 0, CHUNK));
    one.prepare();
    one.sync();
    let mut effects = Vec::new();
    assert!(!one.install(&mut effects));
    assert_eq!((effects, one.replica.last()), (vec![Effect::DropSnapshot(1)], Op::ZERO));
}

#[test]
fn the_state_of_another_transfer_than_the_last_is_not_installed() {
    let mut one = following();
    receive(&mut one, piece(&[7; CHUNK], 0, CHUNK));
    for other in [0, 2] {
        assert!(!one.replica.install(one.now, other, &mut Vec::new()));
        assert!(!one.replica.refuse_snapshot(other, &mut Vec::new()));
    }
    assert!(one.install(&mut Vec::new()));
    assert!(!one.replica.install(one.now, 1, &mut Vec::new()), "it is installed once");
}
