//! The journal on the real file system.

mod faults;
mod golden;

use std::path::Path;

use recado_proto::entry::EntryKind;
use recado_proto::id::{BootId, MEMBERS_MAX};

use super::meta::{MetaFile, Read};
use super::*;

const VIEW: View = View(1 << 16 | 1);

fn expected() -> Expected {
    Expected { cluster: ClusterId(9), node: NodeId(1), members: vec![NodeId(1), NodeId(2), NodeId(3)] }
}

fn meta() -> Meta {
    meta_of(&expected().members)
}

/// The meta of a new cluster with these members.
fn meta_of(members: &[NodeId]) -> Meta {
    let Expected { cluster, node, .. } = expected();
    Meta::new(cluster, node, members.iter().copied())
}

fn init(dir: &Path) {
    Journal::init(&Directory::lock(dir).unwrap(), &meta()).unwrap();
}

fn open(dir: &Path) -> (Journal<Directory>, Recovered) {
    let options = Options { step: 16 * 1024, ..Options::default() };
    Journal::open(Directory::lock(dir).unwrap(), &expected(), options).unwrap()
}

fn entries(ops: std::ops::RangeInclusive<u64>, view: View) -> Vec<Entry> {
    ops.map(|op| {
        let payload = op.to_le_bytes().repeat(5).into();
        Entry { op: Op(op), view, kind: EntryKind::Command, payload }
    })
    .collect()
}

fn with_payload(op: u64, len: usize) -> Entry {
    Entry { op: Op(op), view: VIEW, kind: EntryKind::Command, payload: vec![7; len].into() }
}

fn store_snapshot<D: Disk>(journal: &mut Journal<D>, op: u64, state: &[u8]) {
    let job = journal.begin_snapshot(Op(op)).unwrap();
    journal.finish_snapshot(job.write(VIEW, state)).unwrap();
}

/// The names of the log files, ascending.
fn logs(dir: &Path) -> Vec<String> {
    let names = Directory::read_only(dir).unwrap().list().unwrap();
    names.into_iter().filter(|name| name.starts_with("log.")).collect()
}

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
fn the_floor_raises_the_incarnation_of_a_server_without_a_vote_and_of_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let open = |floor| {
        let options =
            Options { step: 16 * 1024, incarnation_floor: Incarnation(floor), ..Options::default() };
        Journal::open(Directory::lock(dir.path()).unwrap(), &expected(), options).unwrap()
    };
    assert_eq!(open(10).1.meta.incarnation, Incarnation(11));
    let (mut journal, recovered) = open(100);
    assert_eq!(recovered.meta.incarnation, Incarnation(101));
    journal.vote(VIEW).unwrap();
    drop(journal);
    assert_eq!(open(1_000).1.meta.incarnation, Incarnation(102));
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
fn a_snapshot_that_cannot_be_read_is_offered_no_more_and_an_older_one_is() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    for op in [10u64, 20] {
        journal.append(&entries(op - 9..=op, VIEW), Op(0)).unwrap();
        let job = journal.begin_snapshot(Op(op)).unwrap();
        journal.finish_snapshot(job.write(VIEW, b"a state")).unwrap();
    }
    let newest = std::fs::OpenOptions::new().write(true).open(dir.path().join(snapshot_name(20))).unwrap();
    newest.set_len(43).unwrap();
    assert!(journal.read_snapshot(Op::ZERO, 0, 9).is_err());
    let piece = journal.read_snapshot(Op::ZERO, 0, 9).unwrap().unwrap();
    assert_eq!((piece.op, piece.bytes.as_slice()), (Op(10), b"a state".as_slice()));
    assert_eq!(journal.read_snapshot(Op(20), 0, 9).unwrap(), None);
    // Stored anew, it is offered again.
    let job = journal.begin_snapshot(Op(20)).unwrap();
    journal.finish_snapshot(job.write(VIEW, b"a new one")).unwrap();
    let piece = journal.read_snapshot(Op::ZERO, 0, 9).unwrap().unwrap();
    assert_eq!((piece.op, piece.bytes.as_slice()), (Op(20), b"a new one".as_slice()));
}

#[test]
fn a_snapshot_that_cannot_be_read_is_still_not_offered_when_an_older_one_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    for op in [10u64, 20, 30] {
        journal.append(&entries(op - 9..=op, VIEW), Op(0)).unwrap();
        store_snapshot(&mut journal, op, b"a state");
    }
    let second = std::fs::OpenOptions::new().write(true).open(dir.path().join(snapshot_name(20))).unwrap();
    second.set_len(43).unwrap();
    assert!(journal.read_snapshot(Op(20), 0, 9).is_err());
    journal.append(&entries(31..=40, VIEW), Op(0)).unwrap();
    store_snapshot(&mut journal, 40, b"a state");
    assert_eq!(journal.read_snapshot(Op(10), 0, 9).unwrap(), None, "it is removed");
    assert_eq!(journal.read_snapshot(Op(20), 0, 9).unwrap(), None, "it is not read again");
}

#[test]
fn the_newest_snapshot_is_the_one_of_the_highest_op_whatever_its_name() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    journal.append(&entries(1..=11, VIEW), Op(0)).unwrap();
    store_snapshot(&mut journal, 10, b"state at 10");
    store_snapshot(&mut journal, 11, b"state at 11");
    drop(journal);
    // The name that the older one has if damaged files held the names before it.
    std::fs::rename(dir.path().join(snapshot_name(10)), dir.path().join(snapshot_name(12))).unwrap();
    let (mut journal, recovered) = open(dir.path());
    assert_eq!(recovered.snapshot.unwrap().bytes, b"state at 11");
    let piece = journal.read_snapshot(Op::ZERO, 0, 99).unwrap().unwrap();
    assert_eq!((piece.op, piece.bytes.as_slice()), (Op(11), b"state at 11".as_slice()));
}

#[test]
fn three_snapshots_are_kept_and_the_newest_good_one_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    for snapshot in 1..=5u64 {
        journal.append(&entries(snapshot * 10 - 9..=snapshot * 10, VIEW), Op(0)).unwrap();
        let job = journal.begin_snapshot(Op(snapshot * 10)).unwrap();
        let written = job.write(VIEW, format!("state {snapshot}").as_bytes());
        journal.finish_snapshot(written).unwrap();
    }
    journal.append(&entries(51..=53, VIEW), Op(50)).unwrap();
    journal.sync().unwrap();
    let piece = journal.read_snapshot(Op::ZERO, 2, 3).unwrap().unwrap();
    assert_eq!((piece.op, piece.total, piece.bytes.as_slice()), (Op(50), 7, b"ate".as_slice()));
    assert_eq!(journal.read_snapshot(Op(10), 0, 9).unwrap(), None);
    drop(journal);

    let spoil = |op: u64| {
        let path = dir.path().join(snapshot_name(op));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
    };
    spoil(50);
    let seen = inspect(dir.path()).unwrap();
    assert_eq!(seen.snapshots.iter().map(|snapshot| snapshot.bytes).collect::<Vec<_>>(), [7, 7, 0]);
    assert_eq!(seen.snapshots.iter().map(|snapshot| snapshot.good).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!((seen.last, seen.lost, seen.damaged), (Op(53), None, true));

    let (_, recovered) = open(dir.path());
    assert_eq!(recovered.snapshot.unwrap().bytes, b"state 4");
    assert_eq!(recovered.entries, entries(41..=53, VIEW));
    assert_eq!(recovered.lost, None);

    spoil(40);
    let (_, recovered) = open(dir.path());
    assert_eq!(recovered.snapshot.unwrap().bytes, b"state 3");
    assert_eq!(
        (recovered.entries, recovered.lost),
        (entries(31..=53, VIEW), None),
        "the log is kept for the oldest"
    );
}

/// Makes a directory with twenty ops, five of them committed, and damages the 16th: the rest is unknown.
fn with_damage(dir: &Path) {
    init(dir);
    let (mut journal, _) = open(dir);
    journal.promise(VIEW).unwrap();
    journal.append(&entries(1..=10, VIEW), Op(0)).unwrap();
    journal.append(&entries(11..=20, VIEW), Op(5)).unwrap();
    journal.sync().unwrap();
    journal.mark().unwrap();
    assert!(!journal.needs_mark());
    drop(journal);
    let log = dir.join(log_name(1));
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[96 + 15 * 96 + 52] ^= 1;
    std::fs::write(&log, bytes).unwrap();
}

#[test]
fn damage_is_lost_until_a_higher_view_has_gone_beyond_it() {
    let dir = tempfile::tempdir().unwrap();
    with_damage(dir.path());
    let lost = Some(Unknown { first: Op(6), last: Op(20), view_max: VIEW });
    let seen = inspect(dir.path()).unwrap();
    assert_eq!((seen.lost, seen.commit), (lost, Op(5)));
    let bytes = std::fs::read(dir.path().join(log_name(1))).unwrap();
    let bad = bytes[96 + 15 * 96..][..96].iter().filter(|byte| **byte != 0).count() as u64;
    assert_eq!((seen.log[0].records, seen.log[0].bad_bytes), (20, bad), "all but the damaged one");
    for _ in 0..2 {
        let (_, recovered) = open(dir.path());
        assert_eq!((recovered.entries, recovered.lost), (entries(1..=5, VIEW), lost));
    }
    let (mut journal, _) = open(dir.path());
    journal.append(&entries(6..=8, VIEW), Op(5)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let (mut journal, recovered) = open(dir.path());
    assert_eq!(recovered.lost, Some(Unknown { first: Op(9), last: Op(20), view_max: VIEW }));
    journal.append(&entries(9..=9, View(VIEW.0 + 1)), Op(5)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let (_, recovered) = open(dir.path());
    assert_eq!((recovered.entries.len(), recovered.lost), (9, None));
}

#[test]
fn a_directory_is_opened_by_one_process_of_its_own_server_only() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let held = Directory::lock(dir.path()).unwrap();
    assert!(matches!(Directory::lock(dir.path()), Err(JournalError::Locked)));
    assert!(matches!(Journal::init(&held, &meta()), Err(JournalError::NotEmpty(_))));
    let with = |expected: &Expected| Journal::open(held.clone(), expected, Options::default()).err();
    let other = Expected { cluster: ClusterId(1), ..expected() };
    assert!(matches!(with(&other), Some(JournalError::OtherCluster { .. })));
    let other = Expected { node: NodeId(2), ..expected() };
    assert!(matches!(with(&other), Some(JournalError::OtherNode { .. })));
    let other = Expected { members: vec![NodeId(1)], ..expected() };
    assert!(matches!(with(&other), Some(JournalError::OtherMembers { .. })));
    assert!(inspect(dir.path()).unwrap().to_string().contains("server-1 of [1 2 3]"));
}

#[test]
fn an_empty_directory_makes_a_learner() {
    let dir = tempfile::tempdir().unwrap();
    let (_, recovered) = open(dir.path());
    assert!(!recovered.meta.voter);
    assert_eq!(recovered.meta.incarnation, Incarnation(1));
}

#[test]
fn a_log_that_has_rotted_as_a_whole_is_unknown_and_not_empty() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    journal.promise(VIEW).unwrap();
    journal.append(&entries(1..=9, VIEW), Op(0)).unwrap();
    journal.sync().unwrap();
    journal.mark().unwrap();
    drop(journal);
    let log = dir.path().join(log_name(1));
    let len = std::fs::read(&log).unwrap().len();
    std::fs::write(&log, vec![0; len]).unwrap();
    assert!(inspect(dir.path()).unwrap().damaged);
    let (_, recovered) = open(dir.path());
    assert!(recovered.meta.voter, "it knows what it has promised");
    let lost = Unknown { first: Op(1), last: Op(9), view_max: VIEW };
    assert_eq!((recovered.entries, recovered.lost), (Vec::new(), Some(lost)), "and that it held something");
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

/// Makes a directory with five ops, and a snapshot of them.
fn with_a_snapshot(dir: &std::path::Path) {
    init(dir);
    let (mut journal, _) = open(dir);
    journal.append(&entries(1..=5, VIEW), Op(0)).unwrap();
    let job = journal.begin_snapshot(Op(5)).unwrap();
    journal.finish_snapshot(job.write(VIEW, b"state")).unwrap();
}

/// The reason why a start refuses this directory. It touches nothing in it.
fn refusal(dir: &Path) -> JournalError {
    let before = content(dir);
    let disk = Directory::lock(dir).unwrap();
    let refused = Journal::open(disk, &expected(), Options::default()).err().unwrap();
    assert!(content(dir) == before, "{refused}: nothing is touched");
    refused
}

/// The digit of the next version.
const OTHER_DIGIT: u8 = super::format::DIGIT + 1;

/// A change of a file's bytes.
type Change = fn(&mut [u8]);

#[test]
fn a_directory_of_another_version_is_refused_and_nothing_in_it_is_touched() {
    let changes: [(String, Change); 3] = [
        ("meta".into(), |meta| change_meta(meta, 7, OTHER_DIGIT)),
        (log_name(1), |log| change_record(log, 0, 55, OTHER_DIGIT)),
        (snapshot_name(5), |snapshot| change_snapshot(snapshot, 7, OTHER_DIGIT)),
    ];
    for (file, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        with_a_snapshot(dir.path());
        let path = dir.path().join(&file);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        for error in [refusal(dir.path()), inspect(dir.path()).unwrap_err()] {
            assert!(
                matches!(
                    &error,
                    JournalError::OtherVersion { file: named, found, reads: super::format::VERSION }
                        if *named == file && *found == OTHER_DIGIT - b'0'
                ),
                "{error}"
            );
            assert!(error.is_wrong_directory(), "exit code 78");
        }
    }
}

#[test]
fn a_log_with_an_entry_that_names_members_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    let members = Entry { kind: EntryKind::Members, ..with_payload(1, 3) };
    journal.append(&[members], Op(0)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let refused = refusal(dir.path());
    assert!(matches!(refused, JournalError::Unsupported), "{refused}");
}

#[test]
fn what_a_later_program_of_this_version_has_written_is_refused_and_nothing_is_touched() {
    // The first segment has a start record of 120 bytes and five entries of 96.
    let changes: [(&str, String, Change); 8] = [
        ("a member that joined", "meta".into(), |meta| change_meta(meta, 112 + 8, 1)),
        ("a tie holder", "meta".into(), |meta| change_meta(meta, 92, 1)),
        ("the epoch of a segment", log_name(1), |log| change_record(log, 0, 56 + 8, 1)),
        ("the group of a segment", log_name(1), |log| change_record(log, 0, 56 + 16, 1)),
        ("the kind of the last record", log_name(1), |log| change_record(log, 120 + 4 * 96, 48, 9)),
        ("the kind of the last entry", log_name(1), |log| change_record(log, 120 + 4 * 96, 49, 9)),
        ("the epoch of a snapshot", snapshot_name(5), |snapshot| change_snapshot(snapshot, 40, 1)),
        ("the group of a snapshot", snapshot_name(5), |snapshot| change_snapshot(snapshot, 36, 1)),
    ];
    for (what, file, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        with_a_snapshot(dir.path());
        std::fs::write(dir.path().join("tmp.meta"), "unfinished").unwrap();
        let path = dir.path().join(&file);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let refused = refusal(dir.path());
        assert!(matches!(refused, JournalError::Unsupported), "{what}: {refused}");
        assert!(refused.is_wrong_directory(), "exit code 78");
    }
}

/// A client chooses the bytes of a payload, so they may be those of a record.
#[test]
fn what_looks_like_a_record_of_a_later_program_behind_damage_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    journal.append(&entries(1..=5, VIEW), Op(0)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let path = dir.path().join(log_name(1));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[120 + 2 * 96 + 60] ^= 1;
    change_record(&mut bytes, 120 + 3 * 96, 48, 9);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(open(dir.path()).1.entries, entries(1..=2, VIEW));
}

/// Changes a byte of both slots of meta, under good checksums.
fn change_meta(bytes: &mut [u8], at: usize, to: u8) {
    for slot in [0, 4096] {
        bytes[slot + at] = to;
        let crc = crc32c::crc32c(&bytes[slot..slot + 508]);
        bytes[slot + 508..slot + 512].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Changes a byte of the record at `record` in the first segment, under a good checksum.
fn change_record(bytes: &mut [u8], record: usize, at: usize, to: u8) {
    let record = &mut bytes[record..];
    record[at] = to;
    let len = 56 + u32::from_le_bytes(record[..4].try_into().unwrap()) as usize;
    let crc = crc32c::crc32c(&1u64.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &record[..4]), &record[8..len]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Changes a byte of the header of a snapshot, under a good checksum.
fn change_snapshot(bytes: &mut [u8], at: usize, to: u8) {
    bytes[at] = to;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_slot_of_meta_whose_version_is_damaged_is_bad_and_the_other_one_serves() {
    for slot in [0, 4096] {
        let dir = tempfile::tempdir().unwrap();
        with_a_snapshot(dir.path());
        let path = dir.path().join("meta");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[slot + 7] = OTHER_DIGIT;
        std::fs::write(&path, bytes).unwrap();
        let seen = inspect(dir.path()).unwrap();
        assert!(matches!(seen.meta, MetaState::Good { whole: false, .. }), "{seen}");
        let (_, recovered) = open(dir.path());
        assert!(recovered.meta.voter);
        assert_eq!(recovered.snapshot.unwrap().op, Op(5));
    }
}

#[test]
fn inspection_says_what_a_start_without_meta_will_set_aside_and_what_one_has_set_aside_and_why() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    journal.append(&entries(1..=5, VIEW), Op(5)).unwrap();
    store_snapshot(&mut journal, 5, b"a state");
    drop(journal);
    let seen = inspect(dir.path()).unwrap();
    assert!(seen.aside.is_empty() && seen.to_string().contains("damage     none"), "{seen}");
    let log = logs(dir.path()).into_iter().map(|name| format!("old.{name}"));
    let aside: Vec<String> = log.chain(["old.meta".into(), format!("old.{}", snapshot_name(5))]).collect();
    std::fs::write(dir.path().join("meta"), [0xa5_u8; 4608]).unwrap();
    let seen = inspect(dir.path()).unwrap();
    assert!(seen.damaged && seen.aside.is_empty(), "{seen}");
    assert!(seen.to_string().contains("the next start sets it aside"), "{seen}");

    drop(open(dir.path()));
    let seen = inspect(dir.path()).unwrap();
    assert_eq!((&seen.aside, seen.damaged), (&aside, false));
    let text = seen.to_string();
    for line in
        ["old.meta  neither slot of it could be read", "its meta was missing", "copy it elsewhere now"]
    {
        assert!(text.contains(line), "{text}");
    }
    assert!(aside.iter().all(|name| text.contains(name)), "{text}");
}

#[test]
fn a_slot_of_meta_that_names_more_members_than_a_cluster_has_is_bad() {
    for (count, bad) in [(MEMBERS_MAX, false), (MEMBERS_MAX + 1, true)] {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path());
        let path = dir.path().join("meta");
        let mut bytes = std::fs::read(&path).unwrap();
        change_meta(&mut bytes, 43, count as u8);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(inspect(dir.path()).unwrap().meta == MetaState::Rotten, bad, "{count} members");
    }
}

/// A later program of the same version may store something there.
#[test]
fn the_bytes_of_meta_between_its_fields_are_zero_and_ignored() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let path = dir.path().join("meta");
    let mut bytes = std::fs::read(&path).unwrap();
    let unused = (94..112).chain(472..508).chain((0..9).flat_map(|n| 112 + 40 * n + 2..112 + 40 * n + 8));
    let unused: Vec<usize> = unused.flat_map(|at| [at, 4096 + at]).collect();
    for at in unused {
        assert_eq!(std::mem::replace(&mut bytes[at], 0xff), 0, "at {at}");
    }
    for slot in [0, 4096] {
        let crc = crc32c::crc32c(&bytes[slot..slot + 508]);
        bytes[slot + 508..slot + 512].copy_from_slice(&crc.to_le_bytes());
    }
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(open(dir.path()).1.meta, Meta { incarnation: Incarnation(1), ..meta() });
}

/// Everything in a directory: a link as its target, a file as its bytes.
fn content(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let of = |path: std::path::PathBuf| {
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        let bytes = match (kind.is_file(), std::fs::read_link(&path)) {
            (true, _) => std::fs::read(&path).unwrap(),
            (false, Ok(link)) => link.into_os_string().into_encoded_bytes(),
            (false, Err(_)) => Vec::new(),
        };
        (path, bytes)
    };
    let mut all: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| of(entry.unwrap().path())).collect();
    all.sort();
    all
}

#[test]
fn a_name_of_the_journals_that_is_no_file_is_refused_and_nothing_is_touched() {
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("moved");
    let kinds: [fn(&Path, &Path); 4] = [
        |at, moved| std::os::unix::fs::symlink(moved, at).unwrap(),
        |at, _| std::os::unix::fs::symlink("nowhere", at).unwrap(),
        |at, _| std::fs::create_dir(at).unwrap(),
        |at, _| rustix::fs::mkfifoat(rustix::fs::CWD, at, rustix::fs::Mode::RWXU).unwrap(),
    ];
    for name in ["meta".to_owned(), log_name(1), snapshot_name(5), "reserve".into(), "tmp.meta".into()] {
        for make in kinds {
            let dir = tempfile::tempdir().unwrap();
            with_a_snapshot(dir.path());
            let at = dir.path().join(&name);
            if at.exists() {
                std::fs::rename(&at, &moved).unwrap();
            }
            make(&at, &moved);
            // A name that the journal does not use may be anything.
            std::fs::create_dir(dir.path().join("lost+found")).unwrap();
            std::os::unix::fs::symlink(&moved, dir.path().join("log.txt")).unwrap();
            let before = content(dir.path());
            let disk = Directory::lock(dir.path()).unwrap();
            let refused = Journal::open(disk.clone(), &expected(), Options::default()).err().unwrap();
            let init = Journal::init(&disk, &meta()).unwrap_err();
            let (check, inspect) =
                (check(dir.path(), &expected()).unwrap_err(), inspect(dir.path()).unwrap_err());
            for error in [refused, init, check, inspect] {
                assert!(
                    matches!(&error, JournalError::NotRegular(named) if *named == name),
                    "{name}: {error}"
                );
                assert!(error.is_wrong_directory(), "exit code 78");
            }
            assert!(content(dir.path()) == before, "{name}: nothing is touched");
            drop(disk);
            if std::fs::remove_file(&at).is_err() {
                std::fs::remove_dir(&at).unwrap();
            }
            if moved.exists() {
                std::fs::rename(&moved, &at).unwrap();
            }
            let (_, recovered) = open(dir.path());
            assert!(
                recovered.meta.voter && recovered.lost.is_none(),
                "{name}: with the file itself all is well"
            );
        }
    }
}

#[test]
fn no_file_of_the_journals_is_opened_or_made_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    std::fs::write(&outside, "kept").unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::os::unix::fs::symlink(&outside, dir.path().join("data/meta")).unwrap();
    let disk = Directory::lock(&dir.path().join("data")).unwrap();
    assert!(disk.open("meta").is_err() && disk.create("meta").is_err());
    assert_eq!(std::fs::read(&outside).unwrap(), b"kept");
}

/// The mark that is in meta.
fn mark_in(dir: &Path) -> Mark {
    match inspect(dir).unwrap().meta {
        MetaState::Good { mark, .. } => mark,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_mark_names_what_is_unknown_until_the_log_has_gone_beyond_it() {
    for installed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        with_damage(dir.path());
        let (mut journal, _) = open(dir.path());
        let mark = mark_in(dir.path());
        assert_eq!((mark.op, mark.view), (Op(20), VIEW), "the last op that may have been there");
        let higher = View(VIEW.0 + 1);
        if installed {
            journal.install(Op(8), higher, b"state at 8").unwrap();
        } else {
            journal.append(&entries(6..=8, higher), Op(5)).unwrap();
            journal.sync().unwrap();
            journal.mark().unwrap();
        }
        let mark = mark_in(dir.path());
        assert_eq!((mark.op, mark.view), (Op(8), higher), "installed {installed}");
        drop(journal);
        let (_, recovered) = open(dir.path());
        assert_eq!(recovered.lost, None, "installed {installed}");
    }
}

#[test]
fn what_an_installed_snapshot_covers_stays_committed_although_the_snapshot_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    journal.append(&entries(1..=30, VIEW), Op(0)).unwrap();
    journal.install(Op(20), VIEW, b"state at 20").unwrap();
    drop(journal);
    std::fs::remove_file(dir.path().join(snapshot_name(20))).unwrap();
    let (_, recovered) = open(dir.path());
    assert_eq!((recovered.snapshot, recovered.lost), (None, None));
    assert_eq!((recovered.entries, recovered.commit), (entries(1..=20, VIEW), Op(20)));
}

#[test]
fn a_snapshot_stored_again_takes_the_place_of_the_first_and_an_older_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    journal.append(&entries(1..=40, VIEW), Op(0)).unwrap();
    for (op, state) in [(10, "first"), (10, "again"), (20, "second"), (30, "third")] {
        let job = journal.begin_snapshot(Op(op)).unwrap();
        assert_eq!(job.op(), Op(op));
        let written = job.write(VIEW, state.as_bytes());
        assert_eq!(written.as_ref().unwrap().op(), Op(op));
        journal.finish_snapshot(written).unwrap();
    }
    let held =
        |journal: &mut Journal<Directory>, op| journal.read_snapshot(Op(op), 0, 99).unwrap().unwrap().bytes;
    for (op, state) in [(10, "again"), (20, "second"), (30, "third")] {
        assert_eq!(held(&mut journal, op), state.as_bytes(), "all three are kept");
    }
    journal.install(Op(30), VIEW, b"a peer's").unwrap();
    assert_eq!(held(&mut journal, 30), b"a peer's");
    assert!(matches!(journal.install(Op(29), VIEW, b"older"), Err(JournalError::Misplaced { .. })));
}

#[test]
fn an_older_snapshot_that_has_lost_its_end_is_not_offered() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    journal.append(&entries(1..=20, VIEW), Op(0)).unwrap();
    for op in [10, 20] {
        let job = journal.begin_snapshot(Op(op)).unwrap();
        journal.finish_snapshot(job.write(VIEW, b"a state")).unwrap();
    }
    drop(journal);
    let older = std::fs::OpenOptions::new().write(true).open(dir.path().join(snapshot_name(10))).unwrap();
    older.set_len(older.metadata().unwrap().len() - 1).unwrap();
    let (mut journal, recovered) = open(dir.path());
    assert_eq!(recovered.snapshot.unwrap().op, Op(20));
    assert_eq!(journal.read_snapshot(Op(10), 0, 9).unwrap(), None);
    assert!(dir.path().join(format!("old.{}", snapshot_name(10))).exists(), "it is set aside");
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
    journal.install(Op(20), VIEW, b"a peer's").unwrap();
    journal.install(Op(30), VIEW, b"a peer's").unwrap();
    // The first segment has eleven records; each of the others has its start record.
    assert_eq!(logs(dir.path()), [log_name(13), log_name(14)], "they begin at 20 and at 30");
    journal.install(Op(40), VIEW, b"a peer's").unwrap();
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

#[test]
fn meta_is_read_as_it_was_written_whatever_the_ids() {
    let dir = tempfile::tempdir().unwrap();
    let known = |incarnation, boot_id| KnownBoot { incarnation: Incarnation(incarnation), boot_id };
    let written = Meta {
        cluster: ClusterId(0x0102_0304_0506_0708),
        node: NodeId(0x0102),
        epoch: Epoch(0x1112_1314_1516_1718),
        members_op: Op(0x2122_2324),
        tie_holder: Some(NodeId(0xfffe)),
        members: vec![
            Member { id: NodeId(1), joined: Incarnation(0), known: known(7, Some(BootId([0x31; 16]))) },
            Member { id: NodeId(0x0102), joined: Incarnation(3), known: KnownBoot::default() },
            Member { id: NodeId(0xfffe), joined: Incarnation(1 << 41), known: known(u64::MAX - 1, None) },
        ],
        voter: true,
        incarnation: Incarnation(1 << 40),
        promised: View(0x0a0b << 16 | 0x0102),
    };
    let disk = Directory::lock(dir.path()).unwrap();
    Journal::init(&disk, &written).unwrap();
    match MetaFile::read(&disk).unwrap() {
        Read::Good(read) => assert_eq!((read.meta, read.mark, read.whole), (written, Mark::default(), true)),
        Read::Absent | Read::Bad => panic!("it is good"),
    }
}

#[test]
fn an_epoch_or_a_list_of_members_that_this_program_cannot_follow_is_refused_and_nothing_is_touched() {
    for written in [Meta { epoch: Epoch(1), ..meta() }, Meta { members_op: Op(1), ..meta() }] {
        let dir = tempfile::tempdir().unwrap();
        Journal::init(&Directory::lock(dir.path()).unwrap(), &written).unwrap();
        let refused = refusal(dir.path());
        assert!(matches!(refused, JournalError::Unsupported), "{refused}");
        assert!(refused.is_wrong_directory(), "exit code 78");
    }
}

#[test]
fn a_cluster_has_as_many_members_as_meta_can_name_and_no_more() {
    for (count, fits) in [(MEMBERS_MAX, true), (MEMBERS_MAX + 1, false)] {
        let dir = tempfile::tempdir().unwrap();
        let members: Vec<NodeId> = (1..=count as u16).map(NodeId).collect();
        let disk = Directory::lock(dir.path()).unwrap();
        let made = Journal::init(&disk, &meta_of(&members));
        assert_eq!(made.is_ok(), fits, "{count}: {made:?}");
        let opened = Journal::open(disk, &Expected { members, ..expected() }, Options::default());
        match opened {
            Ok((journal, _)) => {
                assert!(fits && journal.meta().members.len() == count);
                assert!(journal.meta().voter, "{count}: what init wrote is read");
            }
            Err(error) => assert!(matches!(error, JournalError::TooManyMembers(n) if !fits && n == count)),
        }
    }
}

#[test]
fn an_empty_directory_is_refused_only_where_there_is_no_other_server_to_learn_from() {
    for (count, learns) in [(1, false), (2, true)] {
        let dir = tempfile::tempdir().unwrap();
        let expected = Expected { members: (1..=count).map(NodeId).collect(), ..expected() };
        match Journal::open(Directory::lock(dir.path()).unwrap(), &expected, Options::default()) {
            Ok((_, recovered)) => assert!(learns && !recovered.meta.voter, "{count}"),
            Err(error) => assert!(!learns && matches!(error, JournalError::Forgotten), "{count}: {error}"),
        }
    }
}

#[test]
fn a_server_without_a_vote_is_refused_where_there_is_no_other_server_to_learn_from() {
    let dir = tempfile::tempdir().unwrap();
    let members = vec![NodeId(1)];
    let disk = Directory::lock(dir.path()).unwrap();
    Journal::init(&disk, &Meta { voter: false, ..meta_of(&members) }).unwrap();
    let before = content(dir.path());
    let refused = Journal::open(disk, &Expected { members, ..expected() }, Options::default()).err();
    assert!(matches!(refused, Some(JournalError::Forgotten)), "{refused:?}");
    assert!(content(dir.path()) == before, "nothing is touched");
}

#[test]
fn a_directory_that_has_lost_its_meta_is_left_alone_where_there_is_no_other_server_to_learn_from() {
    for rotten in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let members = vec![NodeId(1)];
        let disk = Directory::lock(dir.path()).unwrap();
        Journal::init(&disk, &meta_of(&members)).unwrap();
        let expected = Expected { members, ..expected() };
        let open = || Journal::open(disk.clone(), &expected, Options::default());
        let (mut journal, _) = open().unwrap();
        journal.append(&entries(1..=5, VIEW), Op(0)).unwrap();
        journal.sync().unwrap();
        drop(journal);
        let path = dir.path().join("meta");
        if rotten {
            let len = std::fs::read(&path).unwrap().len();
            std::fs::write(&path, vec![0xa5; len]).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        let before = content(dir.path());
        let refused = open().err();
        assert!(matches!(refused, Some(JournalError::Forgotten)), "rotten {rotten}: {refused:?}");
        assert!(content(dir.path()) == before, "rotten {rotten}: nothing is touched");
    }
}

#[test]
fn a_path_that_is_no_directory_is_another_error_than_a_missing_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for open in [Directory::lock as fn(&Path) -> _, Directory::read_only] {
        let of = |path: &Path| open(path).err();
        assert!(matches!(of(&dir.path().join("none")), Some(JournalError::Missing)));
        assert!(matches!(of(&file), Some(JournalError::NotADirectory)));
        let below = of(&file.join("below"));
        assert!(matches!(below, Some(JournalError::Io { op: IoOp::OpenDirectory, .. })), "{below:?}");
    }
}

#[test]
fn what_the_journal_stores_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    with_a_snapshot(dir.path());
    for (path, _) in content(dir.path()) {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn a_file_grows_to_the_length_asked_for_and_never_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = Directory::lock(dir.path()).unwrap().create("file").unwrap();
    for (asked, len) in [(100, 100), (300, 300), (300, 300), (10, 300)] {
        file.allocate(asked).unwrap();
        assert_eq!(file.len().unwrap(), len, "asked for {asked}");
    }
}

#[test]
fn a_failed_removal_is_forgiven_only_for_a_file_that_the_disk_cannot_open() {
    let dir = tempfile::tempdir().unwrap();
    with_a_snapshot(dir.path());
    let disk = Directory::lock(dir.path()).unwrap();
    let failed = || Err(rustix::io::Errno::IO.into());
    let result = super::log::judge_removal(&disk, &snapshot_name(5), failed());
    assert!(matches!(result, Err(JournalError::Io { op: IoOp::Directory, .. })), "{result:?}");
}

#[test]
fn a_number_that_no_journal_reaches_makes_a_name_of_somebody_else() {
    let highest = u64::MAX / 2 - 1;
    assert_eq!(numbered(&log_name(highest), "log."), Some(highest));
    assert_eq!(numbered(&log_name(highest + 1), "log."), None);
    assert_eq!(numbered("log.12", "log."), None, "twenty digits");
}

#[test]
fn a_file_of_another_kind_is_neither_ours_nor_of_another_version() {
    use super::format::{META, SNAPSHOT, Stamp, VERSION, read};
    let with = |kind: &[u8], version: u8| [kind, &[b'0' + version]].concat();
    assert_eq!(read(META, &with(META, VERSION)), Stamp::Ours);
    assert_eq!(read(META, &with(META, VERSION + 1)), Stamp::Other(VERSION + 1));
    assert_eq!(read(META, &with(SNAPSHOT, VERSION)), Stamp::None);
    assert_eq!(read(META, &with(SNAPSHOT, VERSION + 1)), Stamp::None);
}
