//! Meta: its fields, and the members that it can name.

use super::*;

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

#[test]
fn meta_is_read_as_it_was_written_whatever_the_ids() {
    let dir = tempfile::tempdir().unwrap();
    let known = |incarnation, boot_id| KnownBoot { incarnation: Incarnation(incarnation), boot_id };
    let written = Meta {
        cluster: ClusterId(0x0102_0304_0506_0708),
        node: NodeId(0x0102),
        epoch: Epoch(0x1112_1314_1516_1718),
        members_op: Op(0x2122_2324),
        tie_holder: NodeId(0xfffe),
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
