//! Encoding of one record of the log.
//!
//! ```text
//!  0 len u32      of the payload            32 op u64      last op of the log, with this record
//!  4 crc u32      CRC-32C, see below        40 view u64    that op's view
//!  8 serial u64   dense in the directory    48 kind u8     start, entry
//! 16 durable u64  durable when written      49 entry u8    kind of an entry
//! 24 commit u64   committed when written    50 magic       5 bytes, and the version, one byte
//! 56 payload, then zeros to a multiple of 8
//! ```
//! A segment begins with a start record, its header. The payload of a start record:
//!
//! ```text
//!  0 prev u64  8 epoch u64  16 group u16  18 lost u8 (1: some)  24 lost: first u64, last u64, view max u64
//! 48 owner: cluster u64, node u16         64 end
//! ```
//! Epoch and group are zero: a start refuses others, because their log is another history. A segment names
//! its owner, so that one that was copied from another server's directory is refused; all zero names none, as
//! segments of early versions do. The bytes between the fields are zero; a reader ignores them.
//!
//! All numbers are little-endian. The CRC covers the first serial of the segment and everything in the
//! record but the CRC itself. A client may send any bytes, so a payload may contain the bytes of a record;
//! the serial keeps a scan past damage from taking them for one. Length, CRC, magic and version are at the
//! same place in every version.

use std::sync::Arc;

use recado_proto::entry::{Entry, EntryKind, Unknown};
use recado_proto::id::{ClusterId, Epoch, NodeId, Op, View};

use super::format::{self, Stamp};

/// Bytes before the payload.
pub(super) const HEADER: usize = 56;
/// Records begin at multiples of this.
pub(super) const ALIGN: usize = 8;
const START_PAYLOAD: usize = 64;
const EPOCH: usize = 8;
const GROUP: usize = 16;
const LOST: usize = 18;
const LOST_RANGE: usize = 24;
const OWNER: usize = 48;

/// The server whose log a segment is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) serial: u64,
    pub(super) durable: u64,
    pub(super) commit: Op,
    pub(super) op: Op,
    pub(super) view: View,
    pub(super) body: Body,
}

/// The content of a record, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// The first record of a segment: the log ends at (op, view), and serials between `prev` and this
    /// record's are void.
    Start { prev: u64, lost: Option<Unknown>, owner: Option<Owner> },
    /// An entry of the log.
    Entry { kind: EntryKind, payload: Arc<[u8]> },
}

/// The reason why bytes are not read as a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// They are damaged, or no record was written there.
    Damaged,
    /// The checksum is good, and a later program wrote what this one does not follow.
    Unsupported,
}

impl Record {
    /// Returns true if it is an entry of the log.
    pub(super) fn is_entry(&self) -> bool {
        matches!(self.body, Body::Entry { .. })
    }

    /// Appends its bytes to `out`, for the segment that begins with serial `segment`.
    pub(super) fn encode(&self, segment: u64, out: &mut Vec<u8>) {
        let start;
        let (kind, entry, payload): (u8, u8, &[u8]) = match &self.body {
            Body::Start { prev, lost, owner } => {
                start = start_payload(*prev, *lost, *owner);
                (1, 0, &start)
            }
            Body::Entry { kind, payload } => (2, entry_tag(*kind), payload),
        };
        let at = out.len();
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for number in [self.serial, self.durable, self.commit.0, self.op.0, self.view.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&[kind, entry]);
        out.extend_from_slice(format::RECORD);
        out.push(format::DIGIT);
        out.extend_from_slice(payload);
        let crc = checksum(segment, &out[at..]);
        out[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        out.resize(at + padded(payload.len()), 0);
    }

    /// Decodes the record at the beginning of `bytes` and returns it with its padded length. Payloads of
    /// entries up to `skip` are left empty, because a snapshot covers them.
    ///
    /// # Errors
    /// [`Unread`].
    pub(super) fn decode(segment: u64, bytes: &[u8], skip: Op) -> Result<(Record, usize), Unread> {
        let header = bytes.get(..HEADER).ok_or(Unread::Damaged)?;
        if format::read(format::RECORD, &header[50..56]) != Stamp::Ours {
            return Err(Unread::Damaged);
        }
        let len = u32_at(header, 0) as usize;
        if len > Entry::PAYLOAD_MAX || !checks(segment, bytes, len) {
            return Err(Unread::Damaged);
        }
        let payload = &bytes[HEADER..HEADER + len];
        let op = Op(u64_at(header, 32));
        let body = match (header[48], header[49]) {
            (1, 0) => parse_start(payload),
            (2, tag) => {
                let payload = if op <= skip { &[][..] } else { payload };
                entry_kind(tag).map(|kind| Body::Entry { kind, payload: payload.into() })
            }
            _ => None,
        };
        let record = Record {
            serial: u64_at(header, 8),
            durable: u64_at(header, 16),
            commit: Op(u64_at(header, 24)),
            op,
            view: View(u64_at(header, 40)),
            body: body.ok_or(Unread::Unsupported)?,
        };
        Ok((record, padded(len)))
    }
}

/// The version of the record at the beginning of `bytes`, if it is a good record of another version.
pub(super) fn other_version(segment: u64, bytes: &[u8]) -> Option<u8> {
    let header = bytes.get(..HEADER)?;
    match format::read(format::RECORD, &header[50..56]) {
        Stamp::Other(version) => checks(segment, bytes, u32_at(header, 0) as usize).then_some(version),
        Stamp::Ours | Stamp::None => None,
    }
}

fn checks(segment: u64, bytes: &[u8], payload: usize) -> bool {
    bytes.get(..HEADER + payload).is_some_and(|record| u32_at(record, 4) == checksum(segment, record))
}

fn padded(payload: usize) -> usize {
    (HEADER + payload).next_multiple_of(ALIGN)
}

fn checksum(segment: u64, record: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&segment.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &record[..4]);
    crc32c::crc32c_append(crc, &record[8..])
}

/// The number of a kind, from 1. The highest stands for all kinds that have no number here; it is none that
/// this program follows.
fn entry_tag(kind: EntryKind) -> u8 {
    u8::try_from(u16::from(kind).saturating_add(1)).unwrap_or(u8::MAX)
}

/// Returns `None` for a kind that this program does not follow.
fn entry_kind(tag: u8) -> Option<EntryKind> {
    let kind = EntryKind::from(u16::from(tag.checked_sub(1)?));
    kind.is_followed().then_some(kind)
}

fn start_payload(prev: u64, lost: Option<Unknown>, owner: Option<Owner>) -> [u8; START_PAYLOAD] {
    let mut payload = [0; START_PAYLOAD];
    payload[..8].copy_from_slice(&prev.to_le_bytes());
    if let Some(lost) = lost {
        let range = [lost.first.0, lost.last.0, lost.view_max.0].map(u64::to_le_bytes);
        payload[LOST] = 1;
        payload[LOST_RANGE..LOST_RANGE + 24].copy_from_slice(range.as_flattened());
    }
    if let Some(Owner { cluster, node }) = owner {
        payload[OWNER..OWNER + 8].copy_from_slice(&cluster.0.to_le_bytes());
        payload[OWNER + 8..OWNER + 10].copy_from_slice(&node.0.to_le_bytes());
    }
    payload
}

/// Returns `None` for a start record that this program does not follow.
fn parse_start(payload: &[u8]) -> Option<Body> {
    if payload.len() != START_PAYLOAD
        || u64_at(payload, EPOCH) != Epoch::FIRST.0
        || payload[GROUP..GROUP + 2] != [0; 2]
    {
        return None;
    }
    let lost = match payload[LOST] {
        0 => None,
        1 => Some(Unknown {
            first: Op(u64_at(payload, LOST_RANGE)),
            last: Op(u64_at(payload, LOST_RANGE + 8)),
            view_max: View(u64_at(payload, LOST_RANGE + 16)),
        }),
        _ => return None,
    };
    let (cluster, node) =
        (u64_at(payload, OWNER), u16::from_le_bytes([payload[OWNER + 8], payload[OWNER + 9]]));
    let owner = Owner { cluster: ClusterId(cluster), node: NodeId(node) };
    let owner = (owner != Owner { cluster: ClusterId(0), node: NodeId(0) }).then_some(owner);
    Some(Body::Start { prev: u64_at(payload, 0), lost, owner })
}

/// The u32 at `at`. Panics if it is not inside `bytes`, which the caller excludes.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// The u64 at `at`. Panics if it is not inside `bytes`, which the caller excludes.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: View = View(0x0a0b << 16 | 0x0102);

    fn record(op: u64, body: Body) -> Record {
        Record { serial: 1 << 40, durable: 1 << 33, commit: Op(3), op: Op(op), view: VIEW, body }
    }

    /// An entry with a payload of this length.
    fn entry(op: u64, len: usize) -> Record {
        record(op, Body::Entry { kind: EntryKind::Command, payload: vec![7; len].into() })
    }

    fn encoded(record: &Record) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(1, &mut bytes);
        bytes
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let lost = Unknown { first: Op(0x0102_0304_0506), last: Op(1 << 50), view_max: VIEW };
        let owner = Owner { cluster: ClusterId(1 << 60 | 7), node: NodeId(0x0102) };
        let bodies = [
            Body::Start { prev: 1 << 35, lost: None, owner: None },
            Body::Start { prev: 1 << 35, lost: Some(lost), owner: None },
            Body::Start { prev: 1 << 35, lost: Some(lost), owner: Some(owner) },
            Body::Entry { kind: EntryKind::ViewStart, payload: Arc::default() },
            Body::Entry { kind: EntryKind::Command, payload: vec![1, 2, 3].into() },
        ];
        for body in bodies {
            let written = record(5, body);
            let bytes = encoded(&written);
            assert_eq!(Record::decode(1, &bytes, Op::ZERO), Ok((written, bytes.len())));
        }
    }

    #[test]
    fn a_good_record_that_this_program_does_not_follow_is_no_damage_and_a_rotten_one_is() {
        let start = encoded(&record(5, Body::Start { prev: 4, lost: None, owner: None }));
        let entry = encoded(&entry(5, 3));
        let members = entry_tag(EntryKind::Members);
        for (what, written, at, to) in [
            ("the kind of a record", &entry, 48, 9),
            ("the kind of an entry", &entry, 49, 9),
            ("a list of members", &entry, 49, members),
            ("the epoch", &start, HEADER + EPOCH, 9),
            ("the group", &start, HEADER + GROUP + 1, 9),
            ("what is lost", &start, HEADER + LOST, 9),
        ] {
            let mut bytes = written.clone();
            bytes[at] = to;
            assert_eq!(Record::decode(1, &bytes, Op::ZERO), Err(Unread::Damaged), "{what}");
            let len = HEADER + u32_at(&bytes, 0) as usize;
            let crc = checksum(1, &bytes[..len]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(Record::decode(1, &bytes, Op::ZERO), Err(Unread::Unsupported), "{what}");
        }
    }

    #[test]
    fn a_record_ends_in_zeros_at_a_multiple_of_eight() {
        for len in 0..=16 {
            let bytes = encoded(&entry(5, len));
            assert!(bytes.len().is_multiple_of(ALIGN) && bytes.len() - HEADER - len < ALIGN, "{len}");
            assert!(bytes[HEADER + len..].iter().all(|byte| *byte == 0), "{len}: {bytes:?}");
        }
    }

    #[test]
    fn a_payload_of_the_greatest_length_is_read_and_a_longer_one_is_no_record() {
        for (len, is_read) in [(Entry::PAYLOAD_MAX, true), (Entry::PAYLOAD_MAX + 1, false)] {
            let bytes = encoded(&entry(5, len));
            assert_eq!(Record::decode(1, &bytes, Op::ZERO).is_ok(), is_read, "{len}");
        }
    }

    #[test]
    fn a_payload_is_left_empty_up_to_the_op_that_a_snapshot_covers() {
        let bytes = encoded(&entry(5, 3));
        for (covered, len) in [(4, 3), (5, 0), (6, 0)] {
            let (read, used) = Record::decode(1, &bytes, Op(covered)).unwrap();
            assert_eq!((read, used), (entry(5, len), bytes.len()), "covered up to {covered}");
        }
    }
}
