//! Snapshots of peers: received in pieces, read back, installed, and dropped.

use super::*;

/// The names of the files that are not the log, `meta` or the reserve.
fn others(dir: &Path) -> Vec<String> {
    let names = Directory::read_only(dir).unwrap().list().unwrap();
    names.into_iter().filter(|name| name.starts_with("snap.") || name.starts_with("tmp.")).collect()
}

fn file_of(transfer: u64) -> String {
    format!("tmp.received.{:020}", 8 * transfer)
}

fn upto(receipt: Receipt<Directory>) -> Option<u64> {
    match receipt {
        Receipt::Upto(upto) => Some(upto),
        Receipt::LeftOut => None,
        Receipt::Whole(_) => panic!("it is whole"),
    }
}

#[test]
fn pieces_are_taken_in_their_order_and_each_once() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    let pieces = pieces(9, VIEW, b"abcdefghij", 2);
    let taken = [(2, None), (0, Some(2)), (0, None), (2, None), (1, Some(4)), (1, None), (2, Some(6))];
    for (at, expected) in taken {
        assert_eq!(upto(journal.receive(1, &pieces[at]).unwrap()), expected, "piece {at}");
    }
    assert_eq!(upto(journal.receive(2, &pieces[3]).unwrap()), None, "of another transfer");
    assert_eq!(upto(journal.receive(1, &pieces[3]).unwrap()), Some(8));
    let Receipt::Whole(received) = journal.receive(1, &pieces[4]).unwrap() else { panic!("it is not whole") };
    assert_eq!((received.transfer(), received.op(), received.view(), received.len()), (1, Op(9), VIEW, 10));
    let (mut read, mut piece) = (received.read(), Vec::new());
    read.read_piece(&mut piece).unwrap();
    assert_eq!(piece, b"abcdefghij");
    assert_eq!(others(dir.path()), [file_of(1)]);
}

#[test]
fn a_received_snapshot_is_installed_only_after_it_was_read_back_and_only_that_of_the_transfer() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    journal.append(&entries(1..=3, VIEW), Op(0)).unwrap();
    let received = receive(&mut journal, 4, 9, VIEW, b"state at 9").unwrap();
    let misplaced = |result: Result<Option<Removal<Directory>>, JournalError>| {
        matches!(result, Err(JournalError::Misplaced { .. }))
    };
    assert!(misplaced(journal.install(4, Op(9))), "nobody has read it");
    assert!(journal.add_received(Ok(received)).unwrap().is_none());
    assert!(misplaced(journal.install(3, Op(9))), "another transfer");
    assert!(misplaced(journal.install(4, Op(8))), "another op");
    journal.install(4, Op(9)).unwrap();
    assert_eq!(others(dir.path()), [snapshot_name(9)]);
    assert_eq!(journal.last(), (Op(9), VIEW));
    assert!(misplaced(journal.install(4, Op(9))), "it is installed");
}

#[test]
fn the_file_of_a_transfer_that_ends_is_removed_wherever_the_snapshot_is_at_that_time() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    let some = |op| pieces(op, VIEW, b"a state", 2)[0].clone();
    journal.receive(1, &some(9)).unwrap();
    assert_eq!(others(dir.path()), [file_of(1)]);
    assert!(journal.drop_received(2).is_none());
    assert!(journal.drop_received(1).is_some());
    assert!(others(dir.path()).is_empty(), "amid the transfer");
    journal.receive(2, &some(9)).unwrap();
    journal.receive(3, &some(10)).unwrap();
    assert_eq!(others(dir.path()), [file_of(3)], "another transfer begins");

    let away = receive(&mut journal, 4, 11, VIEW, b"a state").unwrap();
    assert!(journal.drop_received(4).is_none());
    let back = journal.add_received(Ok(away)).unwrap();
    assert_eq!(back.as_ref().map(ReceivedSnapshot::transfer), Some(4), "it was dropped meanwhile");
    drop(back);
    assert!(others(dir.path()).is_empty());

    let received = receive(&mut journal, 5, 11, VIEW, b"a state").unwrap();
    assert!(journal.add_received(Ok(received)).unwrap().is_none());
    assert!(journal.drop_received(5).is_some());
    assert!(others(dir.path()).is_empty(), "after it was read back");

    journal.receive(6, &some(12)).unwrap();
    drop(journal);
    std::fs::write(dir.path().join(file_of(7)), "of a process that was killed").unwrap();
    open(dir.path());
    assert!(others(dir.path()).is_empty(), "a start removes it");
}

#[test]
fn bytes_that_are_not_those_of_the_checksum_are_never_whole() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    let mut pieces = pieces(9, VIEW, b"abcdef", 3);
    pieces[1].bytes = b"xyz".to_vec();
    journal.receive(1, &pieces[0]).unwrap();
    assert!(matches!(journal.receive(1, &pieces[1]), Err(JournalError::Io { .. })));
    assert!(matches!(journal.append(&entries(1..=1, VIEW), Op(0)), Err(JournalError::Poisoned)));
}

#[test]
fn a_received_snapshot_that_does_not_read_as_it_was_written_ends_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let (mut journal, _) = open(dir.path());
    let received = receive(&mut journal, 1, 9, VIEW, b"a state").unwrap();
    let path = dir.path().join(file_of(1));
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let failed = received.read().read_piece(&mut Vec::new()).unwrap_err();
    assert_eq!(failed.kind(), std::io::ErrorKind::InvalidData);
    assert!(failed.to_string().contains(&file_of(1)), "{failed}");
    assert!(matches!(journal.add_received(Err(failed)), Err(JournalError::Io { .. })));
    assert!(matches!(journal.append(&entries(1..=1, VIEW), Op(0)), Err(JournalError::Poisoned)));
}
