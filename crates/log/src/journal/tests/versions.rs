//! Files of other versions and later programs, which are refused before anything is touched.

use super::*;

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
fn a_log_with_an_entry_that_is_not_followed_is_refused_and_nothing_in_it_is_touched() {
    for kind in [EntryKind::Members, EntryKind::Unknown(3), EntryKind::Unknown(u16::MAX)] {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path());
        let (mut journal, _) = open(dir.path());
        journal.append(&[Entry { kind, ..with_payload(1, 3) }], Op(0)).unwrap();
        journal.sync().unwrap();
        drop(journal);
        let refused = refusal(dir.path());
        assert!(matches!(refused, JournalError::Unsupported), "{kind:?}: {refused}");
        assert!(refused.is_wrong_directory(), "exit code 78");
    }
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
fn a_file_of_another_kind_is_neither_ours_nor_of_another_version() {
    use super::format::{META, SNAPSHOT, Stamp, VERSION, read};
    let with = |kind: &[u8], version: u8| [kind, &[b'0' + version]].concat();
    assert_eq!(read(META, &with(META, VERSION)), Stamp::Ours);
    assert_eq!(read(META, &with(META, VERSION + 1)), Stamp::Other(VERSION + 1));
    assert_eq!(read(META, &with(SNAPSHOT, VERSION)), Stamp::None);
    assert_eq!(read(META, &with(SNAPSHOT, VERSION + 1)), Stamp::None);
}
