//! The log: its records, and the segments that hold them.

use super::*;

#[test]
fn what_was_synced_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, recovered) = open(dir.path());
    assert!(recovered.meta.voter);
    assert_eq!(recovered.entries, []);
    journal.promise(VIEW).unwrap();
    journal.append(&entries(1..=500, VIEW), Op(0)).unwrap();
    assert_eq!(journal.durable(), Op(0));
    journal.sync().unwrap();
    assert_eq!(journal.durable(), Op(500));
    drop(journal);
    let (_, recovered) = open(dir.path());
    assert_eq!(recovered.entries, entries(1..=500, VIEW));
    assert_eq!((recovered.meta.promised, recovered.meta.incarnation), (VIEW, Incarnation(2)));
}

#[test]
fn what_is_written_over_is_durable_no_longer_until_it_is_synced_again() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    journal.append(&entries(1..=9, View(5)), Op(0)).unwrap();
    journal.sync().unwrap();
    assert_eq!(journal.durable(), Op(9));
    journal.append(&entries(6..=7, View(6)), Op(0)).unwrap();
    assert_eq!((journal.last(), journal.durable()), ((Op(7), View(6)), Op(5)));
    journal.append(&entries(8..=8, View(6)), Op(0)).unwrap();
    assert_eq!(journal.durable(), Op(5), "what follows makes nothing durable");
    journal.sync().unwrap();
    assert_eq!(journal.durable(), Op(8));
}

#[test]
fn a_later_record_supersedes_whatever_its_view() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    journal.append(&entries(1..=9, View(5)), Op(0)).unwrap();
    journal.append(&entries(9..=9, View(4)), Op(0)).unwrap();
    journal.append(&entries(10..=10, View(6)), Op(0)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let (_, recovered) = open(dir.path());
    let views: Vec<View> = recovered.entries[7..].iter().map(|entry| entry.view).collect();
    assert_eq!(views, [View(5), View(4), View(6)]);
}

#[test]
fn a_start_that_writes_nothing_takes_little() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let open =
        || Journal::open(Directory::lock(dir.path()).unwrap(), &expected(), Options::default()).unwrap();
    (0..10).for_each(|_| drop(open()));
    let logs = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap());
    let logs = logs.filter(|entry| entry.file_name().to_string_lossy().starts_with("log."));
    let bytes: u64 = logs.map(|entry| entry.metadata().unwrap().len()).sum();
    assert_eq!(bytes, 10 * 64 * 1024);
}

#[test]
fn an_entry_that_leaves_a_hole_is_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    assert!(matches!(journal.append(&entries(2..=2, VIEW), Op(0)), Err(JournalError::Misplaced { .. })));
    journal.append(&entries(1..=1, VIEW), Op(0)).unwrap();
    assert_eq!(journal.last(), (Op(1), VIEW));
}

#[test]
fn an_entry_at_the_op_of_the_newest_snapshot_is_refused_and_the_next_one_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    with_a_snapshot(dir.path());
    let (mut journal, _) = open(dir.path());
    let covered = journal.append(&entries(5..=5, VIEW), Op(5));
    assert!(matches!(covered, Err(JournalError::Misplaced { op: Op(5), last: Op(5) })), "{covered:?}");
    journal.append(&entries(6..=6, VIEW), Op(5)).unwrap();
    assert_eq!(journal.last(), (Op(6), VIEW));
}

#[test]
fn the_longest_payload_is_found_again_and_a_longer_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    let refused = journal.append(&[with_payload(1, Entry::PAYLOAD_MAX + 1)], Op(0));
    assert!(matches!(refused, Err(JournalError::Misplaced { .. })), "{refused:?}");
    let longest = [with_payload(1, Entry::PAYLOAD_MAX)];
    journal.append(&longest, Op(0)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    assert_eq!(open(dir.path()).1.entries, longest);
}

#[test]
fn a_log_of_many_blocks_is_read_as_it_was_written_and_holes_cost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    let long: Vec<Entry> = (1..=300)
        .map(|op| {
            let payload = (op as u32).to_le_bytes().repeat(op * 7919 % 8000).into();
            Entry { op: Op(op as u64), view: VIEW, kind: EntryKind::Command, payload }
        })
        .collect();
    journal.append(&long, Op(0)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let log = dir.path().join(log_name(1));
    assert!(std::fs::metadata(&log).unwrap().len() > 4 << 20, "several blocks");
    // More than the memory of many a machine, and all of it a hole.
    std::fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(64 << 30).unwrap();
    let seen = inspect(dir.path()).unwrap();
    assert_eq!((seen.log[0].records, seen.log[0].bad_bytes, seen.damaged), (301, 0, false));
    assert_eq!((seen.log[0].first, seen.log[0].last), (Some(Op(1)), Some(Op(300))));
    assert_eq!(open(dir.path()).1.entries, long);
}

#[test]
fn the_segments_of_earlier_starts_are_removed_with_the_snapshots_that_needed_them() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    for round in 1..=5u64 {
        let (mut journal, _) = open(dir.path());
        journal.append(&entries(round * 10 - 9..=round * 10, VIEW), Op(0)).unwrap();
        let job = journal.begin_snapshot(Op(round * 10)).unwrap();
        journal.finish_snapshot(job.write(VIEW, b"a state")).unwrap();
        // The first start's segment begins with serial 1, the second start's with serial 13.
        let there = [1, 13].map(|serial| dir.path().join(log_name(serial)).exists());
        assert_eq!(there, [round < 3, (2..=3).contains(&round)], "round {round}: three snapshots are kept");
    }
}

#[test]
fn a_segment_is_removed_once_a_running_server_keeps_no_snapshot_that_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    for round in 1..=5u64 {
        journal.append(&entries(round * 10 - 9..=round * 10, VIEW), Op(0)).unwrap();
        store_snapshot(&mut journal, round * 10, b"a state");
        // Each segment has a start record and ten entries. The oldest of three snapshots needs the two after
        // it, and the one that is being written.
        let kept: Vec<String> =
            (round.saturating_sub(2)..=round).map(|index| log_name(1 + 11 * index)).collect();
        assert_eq!(logs(dir.path()), kept, "round {round}");
    }
}

#[test]
fn a_segment_without_an_entry_is_kept_until_the_op_at_which_it_begins_is_that_of_the_oldest_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    journal.append(&entries(1..=10, VIEW), Op(0)).unwrap();
    store_snapshot(&mut journal, 10, b"a state");
    install(&mut journal, 20, VIEW, b"a peer's").unwrap();
    install(&mut journal, 30, VIEW, b"a peer's").unwrap();
    // The first segment has eleven records; each of the others has its start record.
    assert_eq!(logs(dir.path()), [log_name(13), log_name(14)], "they begin at 20 and at 30");
    install(&mut journal, 40, VIEW, b"a peer's").unwrap();
    assert_eq!(logs(dir.path()), [log_name(14), log_name(15)], "they begin at 30 and at 40");
}

#[test]
fn serials_are_dense_from_one_segment_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    with_a_snapshot(dir.path());
    let logs: Vec<String> = inspect(dir.path()).unwrap().log.into_iter().map(|range| range.name).collect();
    assert_eq!(logs, [log_name(1), log_name(7)], "a start record and five entries are before it");
}

#[test]
fn a_record_without_a_payload_counts_at_the_very_end_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    // A start record of 120 bytes, and entries with a header of 56: together one step.
    let filling: Vec<Entry> = [8032, 8064, 0]
        .into_iter()
        .zip(1..)
        .map(|(len, op)| Entry {
            op: Op(op),
            view: VIEW,
            kind: EntryKind::Command,
            payload: vec![7; len].into(),
        })
        .collect();
    journal.append(&filling, Op(0)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let seen = inspect(dir.path()).unwrap();
    assert_eq!((seen.log[0].used, seen.log[0].bytes), (16 * 1024, 16 * 1024));
    assert_eq!(open(dir.path()).1.entries, filling);
}
