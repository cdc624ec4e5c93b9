//! Encoding of packets, commands and snapshots: the ONE file that names bincode.
//!
//! The encoding is bincode's standard configuration: little-endian, integers of variable length. A value
//! determines its own length, so packets stand side by side in a datagram without lengths between them.
//!
//! Input is bounded before it is decoded: it has at most [`PACKET_MAX`] bytes (a snapshot,
//! [`SnapshotChunk::TOTAL_MAX`]), and the size of the decoded value is bounded by that length. For a list
//! that claims to be long, serde reserves at most 1 MiB before it reads the first item. Lists nest at most
//! two deep (a page of history has notifications, and each of them has lists). Texts and bytes are no lists:
//! each is read as one block, which is reserved only within the limit of the decoded value. So refusing a
//! packet never allocates more than [`ALLOCATION_MAX`], and frees it at once.

use bincode::config::{self, Config};
use bincode::enc::write::{SizeWriter, Writer};
use bincode::error::{DecodeError as Inner, EncodeError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::DATAGRAM_BASE;
use super::packet::{Packet, RefusedDatagram, SnapshotChunk};

/// The most bytes of one encoded packet or command, and so of a reassembled one. It is twice the largest
/// entry of the log, so that a cast always fits.
pub const PACKET_MAX: usize = 64 * 1024;

/// The most bytes allocated at a time while decoding any packet: two lists with false lengths, one in the
/// other, in them a block with a false length, and the largest packet full of the shortest items (empty tags)
/// while their list grows.
pub const ALLOCATION_MAX: usize = 2 * 1024 * 1024 + WIDTH_MAX * PACKET_MAX + 64 * PACKET_MAX;

/// The most bytes of one encoded snapshot, which is what a peer accepts.
const SNAPSHOT_MAX: usize = SnapshotChunk::TOTAL_MAX as usize;

/// bincode counts a decoded value at full width against its limit: an integer of one byte may count as eight.
/// The limit is therefore eight times the number of input bytes.
const WIDTH_MAX: usize = 8;

/// The reason why bytes were not decoded. The fault is the sender's or the network's. Nothing changed; the
/// datagram is dropped and counted under [`DecodeError::refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early, or a handshake datagram has the wrong length. Sender's fault, or cut on the
    /// way; state unchanged.
    #[error("cut short")]
    Truncated,
    /// More bytes than a datagram, a packet or a snapshot may have, or a decoded size beyond the limit.
    /// Sender's fault; state unchanged.
    #[error("longer than allowed")]
    Oversized,
    /// Another magic number: another protocol uses this port. Sender's fault; state unchanged.
    #[error("not a datagram of this protocol")]
    Magic,
    /// Another version of the protocol. Nobody's fault; state unchanged.
    #[error("protocol version {0} is not supported")]
    Version(u8),
    /// An unknown class. Sender's fault; state unchanged.
    #[error("unknown class {0}")]
    Class(u8),
    /// Another group than the only one. Sender's fault; state unchanged.
    #[error("unknown group {0}")]
    Group(u16),
    /// The authentication failed: another key or number, or changed on the way. Sender's fault; state
    /// unchanged.
    #[error("authentication failed")]
    Seal,
    /// Authentic, but not a valid encoding. Sender's fault; state unchanged.
    #[error("not a valid encoding")]
    Malformed,
    /// More bytes after the end of the value. Sender's fault; state unchanged.
    #[error("bytes after the end")]
    TrailingBytes,
    /// Decoded, but a part of it is over its documented limit or out of its documented order. Sender's fault;
    /// state unchanged.
    #[error("a value is out of bounds")]
    Bounds,
    /// A FRAGMENT that does not match the others of its packet, or one within another. Sender's fault; the
    /// packet is dropped.
    #[error("fragments that do not belong together")]
    Fragment,
}

impl DecodeError {
    /// The reason under which the datagram is counted.
    pub fn refused(self) -> RefusedDatagram {
        match self {
            DecodeError::Truncated => RefusedDatagram::Truncated,
            DecodeError::Oversized => RefusedDatagram::Oversized,
            DecodeError::Magic => RefusedDatagram::Magic,
            DecodeError::Version(_) => RefusedDatagram::Version,
            DecodeError::Group(_) => RefusedDatagram::Cluster,
            DecodeError::Seal => RefusedDatagram::Seal,
            DecodeError::Class(_)
            | DecodeError::Malformed
            | DecodeError::TrailingBytes
            | DecodeError::Bounds
            | DecodeError::Fragment => RefusedDatagram::Malformed,
        }
    }
}

/// Encodes a packet, a command or a part of one. Refuses nothing: what this server encodes is bounded where
/// it is made.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, config::standard())
        .expect("plain data of known length is always encoded; the only sink is memory")
}

/// Appends the encoding of a packet to `bytes`. As [`encode`], it refuses nothing.
pub fn encode_onto<T: Serialize>(value: &T, bytes: &mut Vec<u8>) {
    struct Onto<'a>(&'a mut Vec<u8>);

    impl Writer for Onto<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }

    bincode::serde::encode_into_writer(value, Onto(bytes), config::standard())
        .expect("plain data of known length is always encoded; the only sink is memory");
}

/// The length of the encoding of a packet, a command or a part of one, in bytes.
pub fn encoded_len<T: Serialize>(value: &T) -> usize {
    let mut size = SizeWriter::default();
    bincode::serde::encode_into_writer(value, &mut size, config::standard())
        .expect("plain data of known length is always encoded; bytes that are only counted find room");
    size.bytes_written
}

/// Decodes all of `bytes`, at most [`PACKET_MAX`].
///
/// # Errors
/// [`DecodeError`]; the sender's fault, nothing changed.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    all_of(bytes, decode_first(bytes)?)
}

/// Decodes the value at the start of `bytes` and returns it with its length.
///
/// # Errors
/// [`DecodeError`]; the sender's fault, nothing changed.
pub(crate) fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), DecodeError> {
    if bytes.len() > PACKET_MAX {
        return Err(DecodeError::Oversized);
    }
    if bytes.len() <= DATAGRAM_BASE {
        decode_within(bytes, config::standard().with_limit::<{ WIDTH_MAX * DATAGRAM_BASE }>())
    } else {
        decode_within(bytes, config::standard().with_limit::<{ WIDTH_MAX * PACKET_MAX }>())
    }
}

/// Decodes the packet at the start of `bytes`, checks its bounds and returns it with its length.
///
/// # Errors
/// [`DecodeError`]; the sender's fault, nothing changed.
pub fn decode_packet<P: Packet>(bytes: &[u8]) -> Result<(P, usize), DecodeError> {
    let (packet, length) = decode_first::<P>(bytes)?;
    packet.check()?;
    Ok((packet, length))
}

/// Encodes the contents of a snapshot.
///
/// # Errors
/// [`DecodeError::Oversized`]: it is longer than [`SnapshotChunk::TOTAL_MAX`] and could not be read back. The
/// caller's fault; nothing changed.
pub fn encode_snapshot<T: Serialize>(image: &T) -> Result<Vec<u8>, DecodeError> {
    let bytes = encode(image);
    if bytes.len() > SNAPSHOT_MAX { Err(DecodeError::Oversized) } else { Ok(bytes) }
}

/// Decodes a whole snapshot. The caller has verified its checksum, so its lengths are trusted up to
/// [`SnapshotChunk::TOTAL_MAX`].
///
/// # Errors
/// [`DecodeError`]; the fault of the server that wrote it, nothing changed.
pub fn decode_snapshot<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > SNAPSHOT_MAX {
        return Err(DecodeError::Oversized);
    }
    let first = decode_within(bytes, config::standard().with_limit::<{ WIDTH_MAX * SNAPSHOT_MAX }>())?;
    all_of(bytes, first)
}

/// Decodes the value at the start of a snapshot, whatever follows it.
///
/// # Errors
/// [`DecodeError`]; the fault of the server that wrote it, nothing changed.
pub fn decode_snapshot_start<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let limits = config::standard().with_limit::<{ WIDTH_MAX * SNAPSHOT_MAX }>();
    decode_within(bytes, limits).map(|(value, _)| value)
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
