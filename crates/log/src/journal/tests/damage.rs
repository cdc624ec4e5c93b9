//! Damage: what a start calls unknown, and the mark by which it knows.

use super::*;

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
            install(&mut journal, 8, higher, b"state at 8").unwrap();
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
