//! Packets, commands and snapshots to bytes and back: the ONE file that names bincode.
//!
//! bincode's standard configuration: little-endian, integers of variable length. A value is its own
//! end, so packets stand side by side in a datagram without lengths between them.
//!
//! Bytes are bounded before they are read: at most [`PACKET_MAX`] ([`SNAPSHOT_MAX`]) of them, and what
//! they claim to become is bounded by their number. For a list that claims to be long serde reserves
//! at most 1 MiB before its first item is read; lists nest at most two deep, so refusing a packet never
//! costs more than [`ALLOCATION_MAX`], and that only for a moment.

use bincode::config::{self, Config};
use bincode::error::DecodeError as Inner;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::DATAGRAM_MAX;
use super::packet::{Packet, RefusedDatagram, SnapshotChunk};

/// Most bytes of one encoded packet or command: what FRAGMENTs may add up to. Twice the largest
/// entry of the log, so that a cast always fits.
pub const PACKET_MAX: usize = 64 * 1024;

/// What decoding has live at once, at most, whatever the bytes say: two lying lists, and the largest
/// packet full of the shortest items there are (empty tags) while their list grows.
pub const ALLOCATION_MAX: usize = 2 * 1024 * 1024 + 64 * PACKET_MAX;

/// Most bytes of one encoded snapshot: what a peer would take.
pub const SNAPSHOT_MAX: usize = SnapshotChunk::TOTAL_MAX as usize;

/// bincode counts what it decodes at full width: an integer of one byte may count as eight. What any
/// bytes can rightly become is therefore bounded by eight times their number.
const WIDTH_MAX: usize = 8;

/// Why bytes are no packet. Always the sender's fault (or the network's); nothing has changed, the
/// datagram is dropped and counted as [`DecodeError::refused`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before what they hold does. Sender's fault, or cut on the way; state unchanged.
    #[error("cut short")]
    Truncated,
    /// More bytes than a datagram, a packet or a snapshot has, or they claim to become more than
    /// they can. Sender's fault; state unchanged.
    #[error("longer than allowed")]
    Oversized,
    /// Not our magic number: something else talks to this port. Sender's fault; state unchanged.
    #[error("not a datagram of this protocol")]
    Magic,
    /// Another version of the protocol. Nobody's fault; state unchanged.
    #[error("protocol version {0} is not spoken here")]
    Version(u8),
    /// No class of ours. Sender's fault; state unchanged.
    #[error("unknown class {0}")]
    Class(u8),
    /// The seal does not hold: another key, or changed on the way. Sender's fault; state unchanged.
    #[error("the seal does not hold")]
    Seal,
    /// Sealed well but not the encoding of anything. Sender's fault; state unchanged.
    #[error("not the encoding of anything")]
    Malformed,
    /// More bytes after the end. Sender's fault; state unchanged.
    #[error("bytes after the end")]
    TrailingBytes,
    /// Decoded, but a part of it is over its documented limit or out of its documented order.
    /// Sender's fault; state unchanged.
    #[error("a part of it is outside of its bounds")]
    Bounds,
    /// A FRAGMENT that does not fit the others of its packet, or what they add up to is not what
    /// they were named after. Sender's fault; the packet they belong to is dropped.
    #[error("fragments that do not fit together")]
    Fragment,
}

impl DecodeError {
    /// Under which reason the datagram is counted.
    pub fn refused(self) -> RefusedDatagram {
        match self {
            DecodeError::Truncated => RefusedDatagram::Truncated,
            DecodeError::Oversized => RefusedDatagram::Oversized,
            DecodeError::Magic => RefusedDatagram::Magic,
            DecodeError::Version(_) => RefusedDatagram::Version,
            DecodeError::Seal => RefusedDatagram::Seal,
            DecodeError::Class(_)
            | DecodeError::Malformed
            | DecodeError::TrailingBytes
            | DecodeError::Bounds
            | DecodeError::Fragment => RefusedDatagram::Malformed,
        }
    }
}

/// Encodes a packet, a command or a part of one. Ours are bounded where they are made: nothing is
/// refused here.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, config::standard())
        .expect("plain data of known length is always encoded; the only sink is memory")
}

/// Decodes all of `bytes`, at most [`PACKET_MAX`].
///
/// # Errors
/// [`DecodeError`]; the sender's fault, nothing changed.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    all_of(bytes, decode_first(bytes)?)
}

/// Decodes what stands first in `bytes` and tells how long it was.
///
/// # Errors
/// [`DecodeError`]; the sender's fault, nothing changed.
pub fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), DecodeError> {
    if bytes.len() > PACKET_MAX {
        return Err(DecodeError::Oversized);
    }
    if bytes.len() <= DATAGRAM_MAX {
        decode_within(bytes, config::standard().with_limit::<{ WIDTH_MAX * DATAGRAM_MAX }>())
    } else {
        decode_within(bytes, config::standard().with_limit::<{ WIDTH_MAX * PACKET_MAX }>())
    }
}

/// Decodes the packet that stands first in `bytes`, checks its bounds and tells how long it was.
///
/// # Errors
/// [`DecodeError`]; the sender's fault, nothing changed.
pub fn decode_packet(bytes: &[u8]) -> Result<(Packet, usize), DecodeError> {
    let (packet, length) = decode_first::<Packet>(bytes)?;
    packet.check()?;
    Ok((packet, length))
}

/// Encodes what a snapshot holds.
///
/// # Errors
/// [`DecodeError::Oversized`]: it is longer than [`SNAPSHOT_MAX`] and could not be read back. Ours;
/// nothing changed.
pub fn encode_snapshot<T: Serialize>(image: &T) -> Result<Vec<u8>, DecodeError> {
    let bytes = encode(image);
    if bytes.len() > SNAPSHOT_MAX { Err(DecodeError::Oversized) } else { Ok(bytes) }
}

/// Decodes a whole snapshot. Its checksum has been verified before, so its lengths are believed up
/// to [`SNAPSHOT_MAX`].
///
/// # Errors
/// [`DecodeError`]: whoever wrote it is at fault; nothing changed.
pub fn decode_snapshot<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > SNAPSHOT_MAX {
        return Err(DecodeError::Oversized);
    }
    let first = decode_within(bytes, config::standard().with_limit::<{ WIDTH_MAX * SNAPSHOT_MAX }>())?;
    all_of(bytes, first)
}

fn decode_within<T: DeserializeOwned, C: Config>(bytes: &[u8], limits: C) -> Result<(T, usize), DecodeError> {
    bincode::serde::decode_from_slice(bytes, limits).map_err(|error| match error {
        Inner::UnexpectedEnd { .. } => DecodeError::Truncated,
        Inner::LimitExceeded => DecodeError::Oversized,
        _ => DecodeError::Malformed,
    })
}

fn all_of<T>(bytes: &[u8], (value, length): (T, usize)) -> Result<T, DecodeError> {
    if length == bytes.len() { Ok(value) } else { Err(DecodeError::TrailingBytes) }
}
