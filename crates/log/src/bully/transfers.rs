//! Which pieces of stored snapshots are read for peers, and the chunks in which they are sent.

use std::collections::BTreeMap;

use recado_proto::id::{Moment, NodeId, Op};
use recado_proto::packet::SnapshotChunk;

use super::Effect;
use crate::journal::SnapshotPiece;

/// A piece of a stored snapshot that a peer requested.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) op: Op,
    pub(super) offset: u64,
    pub(super) blocks: u16,
}

/// The transfers of stored snapshots to peers.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    /// Peers that a stored snapshot is being read for, each with its newest request since.
    reading: BTreeMap<NodeId, Option<Piece>>,
    /// When a piece after the first was last read for a peer. The first is also offered to a peer that does
    /// not answer; a later one only follows a request.
    fetched: Option<Moment>,
}

impl Transfers {
    /// Reads one piece at a time for each peer and keeps only the newest request that arrives meanwhile, so
    /// that the journal's queue does not grow however often a peer asks.
    pub(super) fn read(&mut self, to: NodeId, wanted: Piece) -> Option<Effect> {
        match self.reading.get_mut(&to) {
            // The offer of a snapshot reads fewer blocks than a request, and does not displace one.
            Some(Some(next)) if wanted.blocks < next.blocks => None,
            Some(next) => {
                *next = Some(wanted);
                None
            }
            None => {
                self.reading.insert(to, None);
                let Piece { op, offset, blocks } = wanted;
                Some(Effect::ReadSnapshot { to, op, offset, blocks })
            }
        }
    }

    /// A piece has been read for this peer, or there is none: reads the one that it has requested since.
    pub(super) fn on_read(
        &mut self,
        now: Moment,
        to: NodeId,
        piece: Option<&SnapshotPiece>,
    ) -> Option<Effect> {
        if piece.is_some_and(|piece| piece.offset > 0) {
            self.fetched = Some(now);
        }
        let next = self.reading.remove(&to).flatten()?;
        self.read(to, next)
    }

    /// When a peer last had a piece that it must have requested, as far as is known.
    pub(super) fn fetched(&self) -> Option<Moment> {
        self.fetched
    }
}

/// The chunks in which a piece of a stored snapshot is sent, each as long as `room` bytes for a packet allow.
pub(super) fn chunks(piece: &SnapshotPiece, room: usize) -> impl Iterator<Item = SnapshotChunk> {
    let most = room.saturating_sub(SnapshotChunk::OVERHEAD_MAX).clamp(1, SnapshotChunk::BYTES_MAX);
    piece.bytes.chunks(most).enumerate().map(move |(n, bytes)| {
        let offset = piece.offset + (n * most) as u64;
        let SnapshotPiece { op, view, total, crc, .. } = *piece;
        SnapshotChunk { op, view, offset, total, crc, bytes: bytes.to_vec() }
    })
}
