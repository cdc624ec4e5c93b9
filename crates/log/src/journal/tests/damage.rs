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

/// Opens the directory of a cluster with these members.
fn open_of(dir: &Path, members: &[u16]) -> Result<(Journal<Directory>, Recovered), JournalError> {
    let members = members.iter().copied().map(NodeId).collect();
    let options = Options { step: 16 * 1024, ..Options::default() };
    Journal::open(Directory::lock(dir).unwrap(), &Expected { members, ..expected() }, options)
}

/// What the files of a directory held at some moment.
struct Files {
    meta: Vec<u8>,
    log: Vec<u8>,
}

impl Files {
    fn of(dir: &Path) -> Files {
        let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
        Files { meta: read("meta"), log: read(&log_name(1)) }
    }

    /// The end of the last record.
    fn end(&self) -> usize {
        self.log.iter().rposition(|byte| *byte != 0).unwrap() + 1
    }
}

/// The files after op 7 was marked, after op 8 was synced and not marked, and after it was marked; the last
/// log ends in op 9, which was not synced.
fn three_moments(members: &[u16]) -> [Files; 3] {
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<NodeId> = members.iter().copied().map(NodeId).collect();
    Journal::init(&Directory::lock(dir.path()).unwrap(), &meta_of(&ids)).unwrap();
    let (mut journal, _) = open_of(dir.path(), members).unwrap();
    journal.promise(VIEW).unwrap();
    journal.append(&entries(1..=7, VIEW), Op(0)).unwrap();
    journal.sync().unwrap();
    journal.mark().unwrap();
    let seven = Files::of(dir.path());
    journal.append(&entries(8..=8, VIEW), Op(0)).unwrap();
    journal.sync().unwrap();
    let eight = Files::of(dir.path());
    assert!(eight.meta == seven.meta && journal.needs_mark());
    journal.mark().unwrap();
    assert!(!journal.needs_mark());
    let marked = Files::of(dir.path());
    journal.append(&entries(9..=9, VIEW), Op(0)).unwrap();
    [seven, eight, Files { log: Files::of(dir.path()).log, ..marked }]
}

/// A slot of meta as a start finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// As the mark at op 7 left it.
    Seven,
    /// As the mark at op 8 left it.
    Eight,
    /// Some of its bytes are those of op 7, some those of op 8: a write that the disk did not complete.
    Torn,
    Garbled,
    Zeroed,
}

impl Slot {
    fn bytes(self, seven: &[u8], eight: &[u8]) -> Vec<u8> {
        match self {
            Slot::Seven => seven.to_vec(),
            Slot::Eight => eight.to_vec(),
            Slot::Torn => [&eight[..60], &seven[60..]].concat(),
            Slot::Garbled => eight.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 20)).collect(),
            Slot::Zeroed => vec![0; eight.len()],
        }
    }
}

/// The table in the documentation of `meta`, with damage to the log and without.
#[test]
fn whatever_one_slot_of_meta_has_come_to_what_the_mark_covers_is_never_absent() {
    use Slot::*;
    // The slot that a write sets first, then the other one; and the op of the mark that a start finds.
    let states = [
        ([Seven, Seven], 7),
        ([Torn, Seven], 7),
        ([Eight, Seven], 8),
        ([Eight, Torn], 8),
        ([Eight, Eight], 8),
        ([Garbled, Eight], 8),
        ([Eight, Garbled], 8),
        ([Zeroed, Eight], 8),
        ([Eight, Zeroed], 8),
        ([Garbled, Seven], 7),
        ([Seven, Garbled], 7),
    ];
    for members in [&[1][..], &[1, 2, 3]] {
        let [seven, eight, marked] = three_moments(members);
        let seq = |slot: usize| u64::from_le_bytes(marked.meta[slot + 8..slot + 16].try_into().unwrap());
        let [first, second] = if seq(0) < seq(4096) { [0, 4096] } else { [4096, 0] };
        for (slots, op) in states {
            let mut meta = marked.meta.clone();
            for (at, slot) in [first, second].into_iter().zip(slots) {
                let at = at..at + 512;
                meta[at.clone()].copy_from_slice(&slot.bytes(&seven.meta[at.clone()], &marked.meta[at]));
            }
            // The power cut has torn the write of op 9, which no sync had covered.
            let mut torn = marked.log.clone();
            torn[marked.end() - 1] ^= 1;
            let mut last = torn.clone();
            last[eight.end() - 1] ^= 1;
            let mut earlier = torn.clone();
            earlier[seven.end() - 1] ^= 1;
            let told = |upto| Some(Unknown { first: Op(1), last: Op(upto), view_max: VIEW });
            for (what, log, whole, lost) in [
                ("no damage", torn, 8, None),
                (
                    "op 8 is damaged, and the mark covers it",
                    last,
                    if op == 8 { 0 } else { 7 },
                    told(8).filter(|_| op == 8),
                ),
                ("op 7 is damaged", earlier, 0, told(8)),
            ] {
                let what = format!("{members:?}, {slots:?}, {what}");
                let dir = tempfile::tempdir().unwrap();
                std::fs::write(dir.path().join("meta"), &meta).unwrap();
                std::fs::write(dir.path().join(log_name(1)), &log).unwrap();
                assert_eq!(inspect(dir.path()).unwrap().lost, lost, "{what}");
                match (open_of(dir.path(), members), lost) {
                    (Err(JournalError::Irreparable(refused)), Some(lost)) if members.len() == 1 => {
                        assert_eq!(refused, lost, "{what}");
                    }
                    (Ok((_, recovered)), lost) if members.len() > 1 || lost.is_none() => {
                        assert_eq!(
                            (recovered.entries, recovered.lost),
                            (entries(1..=whole, VIEW), lost),
                            "{what}"
                        );
                        assert_eq!((recovered.meta.voter, recovered.meta.promised), (true, VIEW), "{what}");
                    }
                    (opened, lost) => {
                        panic!("{what}: {lost:?}, {:?}", opened.map(|(_, recovered)| recovered))
                    }
                }
            }
        }
    }
}

/// Nothing in `init` leaves a slot that was never written.
#[test]
fn a_directory_that_init_has_made_has_two_slots_and_may_lose_either() {
    for slot in [0, 4096] {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path());
        let path = dir.path().join("meta");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[slot..slot + 512].fill(0);
        std::fs::write(&path, bytes).unwrap();
        let (_, recovered) = open(dir.path());
        assert!(recovered.meta.voter && recovered.lost.is_none());
    }
}
