//! Which pieces of stored snapshots are read for peers, and the chunks in which they are sent.

use std::collections::BTreeMap;

use recado_proto::id::{NodeId, Op};
use recado_proto::packet::SnapshotChunk;

use super::Effect;
use crate::journal::SnapshotPiece;

/// A piece of a stored snapshot that a peer requested.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) op: Op,
    pub(super) offset: u64,
    pub(super) chunks: u16,
}

/// The peers that a stored snapshot is being read for, each with its newest request since.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    reading: BTreeMap<NodeId, Option<Piece>>,
}

impl Transfers {
    /// Reads one piece at a time for each peer and keeps only the newest request that arrives meanwhile, so
    /// that the journal's queue does not grow however often a peer asks.
    pub(super) fn read(&mut self, to: NodeId, wanted: Piece) -> Option<Effect> {
        match self.reading.get_mut(&to) {
            // The offer of a snapshot reads fewer chunks than a request, and does not displace one.
            Some(Some(next)) if wanted.chunks < next.chunks => None,
            Some(next) => {
                *next = Some(wanted);
                None
            }
            None => {
                self.reading.insert(to, None);
                let Piece { op, offset, chunks } = wanted;
                Some(Effect::ReadSnapshot { to, op, offset, chunks })
            }
        }
    }

    /// A piece has been read for this peer: reads the one that it has requested since.
    pub(super) fn on_read(&mut self, to: NodeId) -> Option<Effect> {
        let next = self.reading.remove(&to).flatten()?;
        self.read(to, next)
    }
}

/// The chunks in which a piece of a stored snapshot is sent.
pub(super) fn chunks(piece: &SnapshotPiece) -> impl Iterator<Item = SnapshotChunk> {
    piece.bytes.chunks(SnapshotChunk::BYTES_MAX).enumerate().map(move |(n, bytes)| {
        let offset = piece.offset + (n * SnapshotChunk::BYTES_MAX) as u64;
        let SnapshotPiece { op, view, total, crc, .. } = *piece;
        SnapshotChunk { op, view, offset, total, crc, bytes: bytes.to_vec() }
    })
}
