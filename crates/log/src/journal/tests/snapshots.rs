//! Snapshots: which are kept, offered, installed, and taken at a start.

use super::*;

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
    assert_eq!(
        (newest(&mut journal).as_slice(), recovered.snapshot.unwrap().op),
        (&b"state at 11"[..], Op(11))
    );
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

    let (mut journal, recovered) = open(dir.path());
    assert_eq!(newest(&mut journal), b"state 4");
    drop(journal);
    assert_eq!(recovered.entries, entries(41..=53, VIEW));
    assert_eq!(recovered.lost, None);

    spoil(40);
    let (mut journal, recovered) = open(dir.path());
    assert_eq!(newest(&mut journal), b"state 3");
    drop(journal);
    assert_eq!(
        (recovered.entries, recovered.lost),
        (entries(31..=53, VIEW), None),
        "the log is kept for the oldest"
    );
}

#[test]
fn what_an_installed_snapshot_covers_stays_committed_although_the_snapshot_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    journal.append(&entries(1..=30, VIEW), Op(0)).unwrap();
    install(&mut journal, 20, VIEW, b"state at 20").unwrap();
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
    install(&mut journal, 30, VIEW, b"a peer's").unwrap();
    assert_eq!(held(&mut journal, 30), b"a peer's");
    assert!(matches!(install(&mut journal, 29, VIEW, b"older"), Err(JournalError::Misplaced { .. })));
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
