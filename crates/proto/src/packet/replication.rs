//! Replication: entries of the log, and snapshots.

use serde::{Deserialize, Serialize};

use super::QueryId;
use crate::entry::Entry;
use crate::envelope::PACKETS_MAX;
use crate::id::{Op, View};
use crate::{DATAGRAM_BASE, DATAGRAM_MAX};

/// ENTRIES: cast (from the primary), answers to FETCH (from any server) and catch-up alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// The sender's view.
    pub view: View,
    /// The id of the FETCH it answers; none for a cast.
    pub fetch: Option<QueryId>,
    /// The op before the first entry.
    pub prev_op: Op,
    /// The view of the entry at `prev_op`.
    pub prev_view: View,
    /// The op up to which the sender knows the log to be committed.
    pub commit: Op,
    /// The op of the sender's list of members; zero in this version, and not read.
    pub members_op: Op,
    /// The entries: consecutive ops, from `prev_op + 1` on.
    pub entries: Vec<Entry>,
}

impl Entries {
    /// Checks that ops are consecutive, views never fall (see [`Entry::view`]), and payloads are within their
    /// limit.
    pub(super) fn is_bounded(&self) -> bool {
        let mut before = (self.prev_op, self.prev_view);
        self.entries.iter().all(|entry| {
            let (op, view) = std::mem::replace(&mut before, (entry.op, entry.view));
            Some(entry.op.0) == op.0.checked_add(1)
                && entry.view >= view
                && entry.payload.len() <= Entry::PAYLOAD_MAX
        })
    }
}

/// ENTRIES_ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntriesAck {
    /// The view in which the log was matched.
    pub view: View,
    /// The end of the fsynced prefix matched with this view's primary.
    pub durable: Op,
    /// The end of the matched prefix, fsynced or not; the next entry wanted is one more.
    pub matched: Op,
    /// The last op that the sender knows to be committed and has.
    pub commit: Op,
    /// True if the entries received did not follow the matched prefix: continue from `matched + 1`.
    pub rejected: bool,
}

/// FETCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The id, echoed in ENTRIES.
    pub query: QueryId,
    /// The asker's view.
    pub view: View,
    /// The last op that the asker has in common with the log it asks for.
    pub after: Op,
    /// The last op wanted.
    pub upto: Op,
}

/// SNAPSHOT_GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotGet {
    /// The op of the snapshot; zero: the newest one.
    pub op: Op,
    /// The first byte wanted.
    pub offset: u64,
    /// The bytes wanted from there, in blocks of [`SnapshotGet::BLOCK`].
    pub blocks: u16,
}

impl SnapshotGet {
    /// The bytes of a block. A chunk of so many fits a datagram of the base size.
    pub const BLOCK: usize = 1024;
}

/// SNAPSHOT_CHUNK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// The snapshot's op.
    pub op: Op,
    /// The view of the entry at that op.
    pub view: View,
    /// The position of these bytes in the snapshot.
    pub offset: u64,
    /// The length of the snapshot in bytes.
    pub total: u64,
    /// CRC-32C of the whole snapshot.
    pub crc: u32,
    /// The bytes; at most [`SnapshotChunk::BYTES_MAX`].
    #[serde(with = "crate::bulk")]
    pub bytes: Vec<u8>,
}

impl SnapshotChunk {
    /// The most bytes of a snapshot; it is encoded and reassembled in memory.
    pub const TOTAL_MAX: u64 = 1 << 30;
    /// The most bytes of an encoded chunk beside its own: tag, op, view, offset, total, crc, length.
    pub const OVERHEAD_MAX: usize = 1 + 9 + 9 + 5 + 5 + 5 + 3;
    /// The most bytes in a chunk: with its headers it fits into the longest datagram.
    pub const BYTES_MAX: usize = PACKETS_MAX + DATAGRAM_MAX - DATAGRAM_BASE - SnapshotChunk::OVERHEAD_MAX;

    pub(super) fn is_bounded(&self) -> bool {
        self.bytes.len() <= SnapshotChunk::BYTES_MAX
            && self.offset.checked_add(self.bytes.len() as u64).is_some_and(|end| end <= self.total)
    }
}
