//! Fragmentation of packets that are too large for one datagram, and their reassembly.
//!
//! A fragment's id is a hash of its packet's content, so fragments of a retransmission complete those of the
//! first transmission.

use std::collections::BTreeMap;
use std::time::Duration;

use super::codec::{self, DecodeError, PACKET_MAX};
use super::envelope::PACKETS_MAX;
use super::packet::{Fragment, Packet};
use crate::fnv::fnv1a;
use crate::id::Moment;

/// The most bytes of an encoded FRAGMENT without its piece: tag, id, index, count, length.
const OVERHEAD_MAX: usize = 1 + 9 + 3 + 3 + 3;

/// The bytes of a piece, such that a FRAGMENT fills a datagram; only the last piece of a packet is shorter.
pub const PIECE_MAX: usize = PACKETS_MAX - OVERHEAD_MAX;

/// The most pieces of a packet.
pub const PIECES_MAX: u16 = PACKET_MAX.div_ceil(PIECE_MAX) as u16;

/// The most packets that are reassembled at a time. When one more begins, the one that has waited longest for
/// its next piece is dropped.
pub const PARTIAL_MAX: usize = 8;

/// A packet that received no piece for this long is dropped.
pub const PARTIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Cuts an encoded packet of at most [`PACKET_MAX`] bytes into pieces.
pub fn split(encoded: &[u8]) -> Vec<Fragment> {
    debug_assert!(encoded.len() <= PACKET_MAX, "a packet of {} bytes", encoded.len());
    let id = content_id(encoded);
    let count = encoded.len().div_ceil(PIECE_MAX) as u16;
    (0..count)
        .zip(encoded.chunks(PIECE_MAX))
        .map(|(index, piece)| Fragment { id, index, count, bytes: piece.to_vec() })
        .collect()
}

/// The id of a packet, unique with high probability among those in flight on one link.
fn content_id(encoded: &[u8]) -> u64 {
    fnv1a(encoded.iter().copied())
}

/// Reassembles packets from fragments: at most [`PARTIAL_MAX`] packets at a time, each of at most
/// [`PACKET_MAX`] bytes. The packet that has waited longest for its next piece is dropped first.
///
/// A receiver has one reassembler beside each link, because links do not look into packets.
#[derive(Debug, Default)]
pub struct Reassembler {
    partial: BTreeMap<u64, Partial>,
}

/// A packet of which pieces are missing.
#[derive(Debug)]
struct Partial {
    count: u16,
    pieces: BTreeMap<u16, Vec<u8>>,
    /// The time when it received its last piece.
    touched: Moment,
}

impl Reassembler {
    /// Adds one piece; returns the packet if it was the last one missing.
    ///
    /// # Errors
    /// [`DecodeError`]; the sender's fault, the packet it belongs to is dropped.
    pub fn accept<P: Packet>(&mut self, now: Moment, piece: Fragment) -> Result<Option<P>, DecodeError> {
        self.partial.retain(|_, partial| now.since(partial.touched) < PARTIAL_TIMEOUT);
        if !piece.is_bounded() {
            return Err(DecodeError::Bounds);
        }
        let id = piece.id;
        if !self.partial.contains_key(&id) {
            self.make_room();
        }
        let partial = self.partial.entry(id).or_insert_with(|| Partial {
            count: piece.count,
            pieces: BTreeMap::new(),
            touched: now,
        });
        let fits = partial.count == piece.count
            && partial.pieces.get(&piece.index).is_none_or(|held| *held == piece.bytes);
        if !fits {
            self.partial.remove(&id);
            return Err(DecodeError::Fragment);
        }
        partial.touched = now;
        partial.pieces.insert(piece.index, piece.bytes);
        if partial.pieces.len() < usize::from(partial.count) {
            return Ok(None);
        }
        let pieces = self.partial.remove(&id).map(|whole| whole.pieces).unwrap_or_default();
        let encoded: Vec<u8> = pieces.into_values().flatten().collect();
        join(id, &encoded).map(Some)
    }

    /// The number of packets that wait for pieces.
    pub fn waiting(&self) -> usize {
        self.partial.len()
    }

    fn make_room(&mut self) {
        while self.partial.len() >= PARTIAL_MAX {
            let oldest = self.partial.iter().min_by_key(|(id, partial)| (partial.touched, **id));
            let Some((id, _)) = oldest else { return };
            let id = *id;
            self.partial.remove(&id);
        }
    }
}

fn join<P: Packet>(id: u64, encoded: &[u8]) -> Result<P, DecodeError> {
    if content_id(encoded) != id {
        return Err(DecodeError::Fragment);
    }
    let (packet, length) = codec::decode_packet::<P>(encoded)?;
    if length != encoded.len() {
        return Err(DecodeError::TrailingBytes);
    }
    match packet.into_fragment() {
        Ok(_) => Err(DecodeError::Fragment),
        Err(whole) => Ok(whole),
    }
}
