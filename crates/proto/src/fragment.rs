//! Fragmentation of packets that are too large for one datagram, and their reassembly.
//!
//! The number of the datagram that first carried the first piece identifies a packet among those of its link.
//! A sender that sends the same bytes again keeps that number ([`cut`]), so that the pieces of all
//! transmissions complete each other.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::codec::{self, DecodeError, PACKET_MAX};
use super::envelope::PACKETS_MAX;
use super::packet::{Fragment, Packet};
use crate::id::Moment;

/// The most bytes of an encoded FRAGMENT without its piece: tag, first, offset, total, length.
const OVERHEAD_MAX: usize = 1 + 9 + 3 + 5 + 3;

/// The bytes of a piece, such that a FRAGMENT fills a datagram of the base size; only the last piece of a
/// packet is shorter.
pub const PIECE_MAX: usize = PACKETS_MAX - OVERHEAD_MAX;

/// The fewest bytes of a piece that is not the last one of its packet. A receiver takes pieces of any length
/// from this on, so that datagrams of other lengths need no other protocol; and a packet has a bounded number
/// of them.
pub const PIECE_MIN: usize = 512;

/// The most packets that are reassembled at a time. When one more begins, one is dropped: of those that were
/// complete before, if there are any, the one that has waited longest for its next piece.
pub const PARTIAL_MAX: usize = 8;

/// How many of the packets that were completed last are remembered: twice as many as are reassembled at a
/// time.
const COMPLETED_MAX: usize = 16;

/// A packet that received no piece for this long is dropped.
pub const PARTIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Cuts an encoded packet of at most [`PACKET_MAX`] bytes into pieces. `first` is the number of the datagram
/// that carries the first piece when the packet is first sent.
pub fn split(first: u64, encoded: &[u8]) -> Vec<Fragment> {
    split_for(PACKETS_MAX, first, encoded)
}

/// As [`split`], for datagrams with this room for packets, at least [`PACKETS_MAX`].
pub(super) fn split_for(room: usize, first: u64, encoded: &[u8]) -> Vec<Fragment> {
    debug_assert!(encoded.len() <= PACKET_MAX, "a packet of {} bytes", encoded.len());
    let most = room.max(PACKETS_MAX) - OVERHEAD_MAX;
    (0..encoded.len().div_ceil(most)).map(|index| nth_piece(most, first, encoded, index)).collect()
}

/// As [`split`], into pieces of which each is the only packet in a place of `room` bytes, at least
/// [`PIECE_MIN`] more than a FRAGMENT needs for itself.
pub(super) fn split_to_fit(room: usize, first: u64, encoded: &[u8]) -> impl Iterator<Item = Fragment> {
    let most = room - OVERHEAD_MAX;
    (0..encoded.len().div_ceil(most)).map(move |index| nth_piece(most, first, encoded, index))
}

/// One of the pieces that [`split`] cuts; without bytes beyond the last one.
pub fn piece(first: u64, encoded: &[u8], index: usize) -> Fragment {
    nth_piece(PIECE_MAX, first, encoded, index)
}

fn nth_piece(most: usize, first: u64, encoded: &[u8], index: usize) -> Fragment {
    let bytes = encoded.chunks(most).nth(index).unwrap_or_default().to_vec();
    Fragment { first, offset: (index * most) as u32, total: encoded.len() as u32, bytes }
}

/// The packets that carry `packet`: the packet itself if a datagram has room for it, otherwise its FRAGMENTs.
/// `first` is as in [`split`]; it stays the same when the packet is sent again, as long as its encoding does.
pub fn cut<P: Packet>(packet: P, first: u64) -> Vec<P> {
    let encoded = codec::encode(&packet);
    if encoded.len() <= PACKETS_MAX {
        return vec![packet];
    }
    split(first, &encoded).into_iter().map(P::from_fragment).collect()
}

/// Reassembles packets from fragments: at most [`PARTIAL_MAX`] packets at a time, each of at most
/// [`PACKET_MAX`] bytes. A packet that was complete before is dropped first, then the one that has waited
/// longest for its next piece.
///
/// Pieces of a packet that was complete before are not ignored: its sender sends it again under the same
/// number when it was refused, as a request by Busy or an item of a stream by a client without room, and then
/// it has to come out again. But most such pieces are late copies, which no others follow, and they must not
/// keep the place of a packet that has yet to arrive.
///
/// A receiver has one reassembler beside each link, because links do not look into packets.
#[derive(Debug, Default)]
pub struct Reassembler {
    /// By the number that identifies the packet.
    partial: BTreeMap<u64, Partial>,
    /// The numbers of the packets that were completed last, the latest at the back; at most
    /// [`COMPLETED_MAX`].
    completed: VecDeque<u64>,
}

/// A packet of which pieces are missing.
#[derive(Debug)]
struct Partial {
    total: u32,
    /// The pieces by their offsets; no two overlap.
    pieces: BTreeMap<u32, Vec<u8>>,
    /// The time when it received its last piece.
    touched: Moment,
    /// True if it was complete before.
    again: bool,
}

impl Partial {
    /// Returns true if the piece is of a packet of this length and overlaps no other piece, unless it is one
    /// that came before.
    fn fits(&self, piece: &Fragment) -> bool {
        let end = |offset: u32, bytes: &[u8]| offset as usize + bytes.len();
        let before = self.pieces.range(..piece.offset).next_back();
        let from = self.pieces.range(piece.offset..).next();
        piece.total == self.total
            && before.is_none_or(|(offset, bytes)| end(*offset, bytes) <= piece.offset as usize)
            && from.is_none_or(|(offset, bytes)| {
                (*offset, bytes) == (piece.offset, &piece.bytes)
                    || end(piece.offset, &piece.bytes) <= *offset as usize
            })
    }

    fn is_whole(&self) -> bool {
        self.pieces.values().map(Vec::len).sum::<usize>() == self.total as usize
    }
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
        let first = piece.first;
        if !self.partial.contains_key(&first) {
            self.make_room();
        }
        let partial = self.partial.entry(first).or_insert_with(|| Partial {
            total: piece.total,
            pieces: BTreeMap::new(),
            touched: now,
            again: self.completed.contains(&first),
        });
        if !partial.fits(&piece) {
            self.partial.remove(&first);
            return Err(DecodeError::Fragment);
        }
        partial.touched = now;
        partial.pieces.insert(piece.offset, piece.bytes);
        if !partial.is_whole() {
            return Ok(None);
        }
        let pieces = self.partial.remove(&first).map(|whole| whole.pieces).unwrap_or_default();
        let encoded: Vec<u8> = pieces.into_values().flatten().collect();
        let packet = join(&encoded)?;
        self.note_completed(first);
        Ok(Some(packet))
    }

    fn note_completed(&mut self, first: u64) {
        self.completed.retain(|completed| *completed != first);
        if self.completed.len() >= COMPLETED_MAX {
            self.completed.pop_front();
        }
        self.completed.push_back(first);
    }

    /// The number of packets that wait for pieces.
    pub fn waiting(&self) -> usize {
        self.partial.len()
    }

    fn make_room(&mut self) {
        while self.partial.len() >= PARTIAL_MAX {
            let order = |(first, partial): (&u64, &Partial)| (!partial.again, partial.touched, *first);
            let Some((.., first)) = self.partial.iter().map(order).min() else { return };
            self.partial.remove(&first);
        }
    }
}

fn join<P: Packet>(encoded: &[u8]) -> Result<P, DecodeError> {
    let (packet, length) = codec::decode_packet::<P>(encoded)?;
    if length != encoded.len() {
        return Err(DecodeError::TrailingBytes);
    }
    match packet.into_fragment() {
        Ok(_) => Err(DecodeError::Fragment),
        Err(whole) => Ok(whole),
    }
}
