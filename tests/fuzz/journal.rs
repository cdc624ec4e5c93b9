//! Fuzz target for the data directory of a server, with arbitrary changes to its bytes.

use bolero::check;
use recado_log::journal::{Disk, DiskFile, Expected, Journal, Meta, Options, inspect_disk};
use recado_proto::entry::{Entry, EntryKind};
use recado_proto::id::{ClusterId, Incarnation, NodeId, Op, View};

use crate::disk::MemDisk;
use crate::script::Script;

const VIEW: View = View(1 << 16 | 1);

/// Small steps keep the files small, so that damage hits used bytes.
fn options() -> Options {
    Options { step: 4 * 1024, ..Options::default() }
}

fn expected() -> Expected {
    Expected { cluster: ClusterId(9), node: NodeId(1), members: vec![NodeId(1), NodeId(2), NodeId(3)] }
}

fn entry(op: u64) -> Entry {
    Entry { op: Op(op), view: VIEW, kind: EntryKind::Command, payload: op.to_le_bytes().repeat(5).into() }
}

fn snapshot(op: u64) -> Vec<u8> {
    op.to_le_bytes().repeat(20)
}

/// Returns a directory that a server has used in two runs: two snapshots, and a log after them.
fn used_directory() -> Vec<(String, Vec<u8>)> {
    let disk = MemDisk::new();
    let Expected { cluster, node, members } = expected();
    Journal::init(&disk, &Meta::new(cluster, node, members)).unwrap();
    for life in 0..2 {
        let (mut journal, _) = Journal::open(disk.clone(), &expected(), options()).unwrap();
        journal.promise(VIEW).unwrap();
        for batch in 0..4 {
            let first = life * 40 + batch * 10 + 1;
            let entries: Vec<Entry> = (first..first + 10).map(entry).collect();
            journal.append(&entries, Op(first - 1)).unwrap();
            journal.sync().unwrap();
        }
        let op = life * 40 + 20;
        let job = journal.begin_snapshot(Op(op)).unwrap();
        let written = job.write(VIEW, &snapshot(op));
        journal.finish_snapshot(written).unwrap();
        journal.mark().unwrap();
    }
    let read = |name: String| {
        let file = disk.open(&name).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        (name, bytes)
    };
    disk.list().unwrap().into_iter().map(read).collect()
}

/// The journal opens or returns an error. The entries that it finds have no hole and are those that were
/// written. It then goes on: an entry appended to it is found at the next start.
#[test]
fn a_damaged_directory_gives_nothing_that_was_not_written() {
    let lived = used_directory();
    assert!(lived.len() >= 4, "{lived:?}");
    check!().for_each(|input: &[u8]| {
        let mut script = Script::of(input);
        let mut files = lived.clone();
        for _ in 0..1 + script.number::<1>() % 3 {
            let which = script.below(files.len());
            match script.number::<1>() % 8 {
                0 => drop(files.remove(which)),
                1 => {
                    let other = script.pick(&lived).1.clone();
                    files[which].1 = other;
                }
                2 => files[which].1 = script.bytes(600).to_vec(),
                _ => script.corrupt(&mut files[which].1),
            }
        }
        let disk = MemDisk::new();
        for (name, bytes) in &files {
            disk.create(name).unwrap().write_at(0, bytes).unwrap();
        }
        let _ = inspect_disk(&disk).is_ok();
        let Ok((mut journal, found)) = Journal::open(disk.clone(), &expected(), options()) else { return };
        let base = found.snapshot.as_ref().map_or(0, |stored| stored.op.0);
        if let Some(stored) = &found.snapshot {
            let newest = journal.read_snapshot(Op::ZERO, 0, 1 << 20).unwrap().unwrap();
            assert_eq!((stored.view, newest.op, newest.bytes), (VIEW, stored.op, snapshot(base)));
        }
        for (op, stored) in (base + 1..).zip(&found.entries) {
            assert_eq!(stored, &entry(op));
        }
        let last = base + found.entries.len() as u64;
        assert_eq!(journal.last().0, Op(last));
        journal.append(&[entry(last + 1)], Op(last)).unwrap();
        journal.sync().unwrap();
        drop(journal);
        let (journal, again) = Journal::open(disk, &expected(), options()).unwrap();
        assert_eq!(journal.last().0, Op(last + 1));
        assert_eq!(again.entries.last(), Some(&entry(last + 1)));
        assert_eq!(again.meta.incarnation, Incarnation(found.meta.incarnation.0 + 1));
        assert_eq!(again.lost, found.lost.and_then(|lost| lost.beyond(Op(last + 1), VIEW)));
    });
}
