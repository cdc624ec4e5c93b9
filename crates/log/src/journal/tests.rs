//! The journal on the real file system.

mod damage;
mod directory;
mod faults;
mod golden;
mod meta;
mod receive;
mod records;
mod snapshots;
mod starts;
mod versions;

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

/// Receives a whole snapshot of a peer, in pieces of three bytes, reads it back and installs it.
/// The bytes of the newest snapshot.
fn newest<D: Disk>(journal: &mut Journal<D>) -> Vec<u8> {
    journal.read_snapshot(Op::ZERO, 0, 1 << 20).unwrap().unwrap().bytes
}

fn install<D: Disk>(journal: &mut Journal<D>, op: u64, view: View, bytes: &[u8]) -> Result<(), JournalError> {
    let received = receive(journal, op, op, view, bytes)?;
    let mut reading = received.read();
    let mut piece = Vec::new();
    while {
        reading.read_piece(&mut piece).unwrap();
        !piece.is_empty()
    } {}
    assert!(journal.add_received(Ok(received))?.is_none());
    match journal.install(op, Op(op))? {
        Some(removal) => journal.finish_removal(removal.run()),
        None => Ok(()),
    }
}

/// Receives a whole snapshot of a peer, in pieces of three bytes.
fn receive<D: Disk>(
    journal: &mut Journal<D>,
    transfer: u64,
    op: u64,
    view: View,
    bytes: &[u8],
) -> Result<ReceivedSnapshot<D>, JournalError> {
    for piece in pieces(op, view, bytes, 3) {
        if let Receipt::Whole(received) = journal.receive(transfer, &piece)? {
            return Ok(received);
        }
    }
    panic!("it is not whole");
}

/// A snapshot in pieces of this length.
fn pieces(op: u64, view: View, bytes: &[u8], length: usize) -> Vec<SnapshotPiece> {
    let (op, total, crc) = (Op(op), bytes.len() as u64, crc32c::crc32c(bytes));
    let piece = |(n, bytes): (usize, &[u8])| {
        let offset = (n * length) as u64;
        SnapshotPiece { op, view, total, crc, offset, bytes: bytes.to_vec() }
    };
    bytes.chunks(length).enumerate().map(piece).collect()
}

/// The names of the log files, ascending.
fn logs(dir: &Path) -> Vec<String> {
    let names = Directory::read_only(dir).unwrap().list().unwrap();
    names.into_iter().filter(|name| name.starts_with("log.")).collect()
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

/// The mark that is in meta.
fn mark_in(dir: &Path) -> Mark {
    match inspect(dir).unwrap().meta {
        MetaState::Good { mark, .. } => mark,
        other => panic!("{other:?}"),
    }
}
