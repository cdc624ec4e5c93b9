//! The journal on the real file system.

use std::path::Path;

use super::*;
use crate::entry::EntryKind;

const VIEW: View = View(1 << 16 | 1);

fn expected() -> Expected {
    Expected { cluster: ClusterId(9), node: NodeId(1), members: vec![NodeId(1), NodeId(2), NodeId(3)] }
}

fn meta() -> Meta {
    let Expected { cluster, node, members } = expected();
    Meta {
        cluster,
        node,
        members,
        voter: true,
        incarnation: Incarnation(0),
        promised: View::ZERO,
        known: Vec::new(),
    }
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
fn the_floor_lifts_the_life_of_a_server_without_a_vote_and_of_no_other() {
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

    let newest = dir.path().join(snapshot_name(50));
    let mut bytes = std::fs::read(&newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let seen = inspect(dir.path()).unwrap();
    assert_eq!(seen.snapshots.iter().map(|snapshot| snapshot.good).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!((seen.last, seen.lost, seen.damaged), (Op(53), None, true));

    let (_, recovered) = open(dir.path());
    assert_eq!(recovered.snapshot.unwrap().bytes, b"state 4");
    assert_eq!(recovered.entries, entries(41..=53, VIEW));
    assert_eq!(recovered.lost, None);
}

#[test]
fn damage_is_lost_until_a_higher_view_has_gone_beyond_it() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    journal.promise(VIEW).unwrap();
    journal.append(&entries(1..=10, VIEW), Op(0)).unwrap();
    journal.append(&entries(11..=20, VIEW), Op(5)).unwrap();
    journal.sync().unwrap();
    journal.mark().unwrap();
    assert!(!journal.needs_mark());
    drop(journal);
    let log = dir.path().join(log_name(1));
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[88 + 15 * 96 + 60] ^= 1;
    std::fs::write(&log, bytes).unwrap();

    let lost = Some(Unknown { first: Op(6), last: Op(20), view_max: VIEW });
    assert_eq!(inspect(dir.path()).unwrap().lost, lost);
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

/// The digit of the next version.
const OTHER_DIGIT: u8 = super::format::DIGIT + 1;

#[test]
fn a_directory_of_another_version_is_refused_and_nothing_in_it_is_touched() {
    let resealed = |name: &str, bytes: &mut [u8]| match name {
        "meta" => {
            for slot in [0, 4096] {
                bytes[slot + 7] = OTHER_DIGIT;
                let crc = crc32c::crc32c(&bytes[slot..slot + 508]);
                bytes[slot + 508..slot + 512].copy_from_slice(&crc.to_le_bytes());
            }
        }
        "log" => {
            bytes[55] = OTHER_DIGIT;
            let len = 56 + u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
            let crc = crc32c::crc32c(&1u64.to_le_bytes());
            let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &bytes[..4]), &bytes[8..len]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        _ => {
            bytes[7] = OTHER_DIGIT;
            let crc = crc32c::crc32c(&bytes[..36]);
            bytes[36..40].copy_from_slice(&crc.to_le_bytes());
        }
    };
    for (kind, file) in [("meta", "meta".to_owned()), ("log", log_name(1)), ("snap", snapshot_name(5))] {
        let dir = tempfile::tempdir().unwrap();
        with_a_snapshot(dir.path());
        let path = dir.path().join(&file);
        let mut bytes = std::fs::read(&path).unwrap();
        resealed(kind, &mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let before = content(dir.path());
        let disk = Directory::lock(dir.path()).unwrap();
        let refused = Journal::open(disk, &expected(), Options::default()).err().unwrap();
        for error in [refused, inspect(dir.path()).unwrap_err()] {
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
        assert!(content(dir.path()) == before, "{kind}: nothing is touched");
    }
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
        |at, _| crate::durable::tests::pipe(at),
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
