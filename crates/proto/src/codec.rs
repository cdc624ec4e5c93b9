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
use bincode::de::read::Reader;
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

/// The reason why a snapshot was not encoded to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unencoded<E> {
    /// It is longer than [`SnapshotChunk::TOTAL_MAX`] and could not be read back. The caller's fault.
    Oversized,
    /// A piece was not taken.
    NotTaken(E),
}

/// Encodes the contents of a snapshot. `take` gets the bytes in pieces of this length, of which the last one
/// is shorter: a state of any size is encoded with the memory for one piece.
///
/// # Errors
/// [`Unencoded`]: `take` has got a part of the bytes.
pub fn encode_snapshot<T: Serialize, E>(
    image: &T,
    piece: usize,
    take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), Unencoded<E>> {
    encode_within(image, piece, SNAPSHOT_MAX, take)
}

fn encode_within<T: Serialize, E>(
    image: &T,
    length: usize,
    most: usize,
    take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), Unencoded<E>> {
    let piece = Vec::with_capacity(length);
    let mut pieces = Pieces { piece, length, left: most, take, failed: None };
    let encoded = bincode::serde::encode_into_writer(image, &mut pieces, config::standard());
    let ended = encoded.and_then(|()| pieces.end());
    match (ended, pieces.failed) {
        (_, Some(failed)) => Err(failed),
        (ended, None) => {
            ended.expect("plain data of known length is encoded unless a piece is not taken");
            Ok(())
        }
    }
}

/// Gathers an encoding into pieces.
struct Pieces<F, E> {
    piece: Vec<u8>,
    /// The length of a piece.
    length: usize,
    /// The bytes that the encoding may still have beyond those given to `take`.
    left: usize,
    take: F,
    failed: Option<Unencoded<E>>,
}

impl<E, F: FnMut(&[u8]) -> Result<(), E>> Pieces<F, E> {
    /// Gives what was gathered to `take`.
    fn end(&mut self) -> Result<(), EncodeError> {
        let taken = match self.left.checked_sub(self.piece.len()) {
            None => Err(Unencoded::Oversized),
            Some(left) => {
                self.left = left;
                (self.take)(&self.piece).map_err(Unencoded::NotTaken)
            }
        };
        self.piece.clear();
        taken.map_err(|failed| {
            self.failed = Some(failed);
            EncodeError::Other("a piece was not taken")
        })
    }
}

impl<E, F: FnMut(&[u8]) -> Result<(), E>> Writer for Pieces<F, E> {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), EncodeError> {
        while self.piece.len() + bytes.len() >= self.length {
            let (fits, rest) = bytes.split_at(self.length - self.piece.len());
            self.piece.extend_from_slice(fits);
            self.end()?;
            bytes = rest;
        }
        self.piece.extend_from_slice(bytes);
        Ok(())
    }
}

/// The reason why a snapshot was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecoded<E> {
    /// Its bytes are no snapshot. The fault of the server that wrote it.
    Refused(DecodeError),
    /// A piece was not given.
    NotGiven(E),
}

/// Decodes a whole snapshot of `length` bytes with the memory for one piece beside the decoded value. `give`
/// puts the next piece into an empty buffer, and leaves it empty after the last one. The caller has verified
/// the checksum, so the lengths in it are trusted up to [`SnapshotChunk::TOTAL_MAX`].
///
/// # Errors
/// [`Undecoded`].
pub fn decode_snapshot_in_pieces<T: DeserializeOwned, E>(
    length: u64,
    give: impl FnMut(&mut Vec<u8>) -> Result<(), E>,
) -> Result<T, Undecoded<E>> {
    let Some(left) = usize::try_from(length).ok().filter(|length| *length <= SNAPSHOT_MAX) else {
        return Err(Undecoded::Refused(DecodeError::Oversized));
    };
    let mut given = Given { piece: Vec::new(), at: 0, left, give, failed: None };
    let limits = config::standard().with_limit::<{ WIDTH_MAX * SNAPSHOT_MAX }>();
    let decoded = bincode::serde::decode_from_reader(&mut given, limits);
    match (decoded, given.failed, given.left) {
        (_, Some(failed), _) => Err(Undecoded::NotGiven(failed)),
        (Ok(_), None, 1..) => Err(Undecoded::Refused(DecodeError::TrailingBytes)),
        (decoded, None, _) => decoded.map_err(|error| Undecoded::Refused(refusal(&error))),
    }
}

/// Hands out an encoding that is given in pieces.
struct Given<F, E> {
    piece: Vec<u8>,
    /// How much of the piece was handed out.
    at: usize,
    /// The bytes that were not handed out yet, of this piece and of those that follow.
    left: usize,
    give: F,
    failed: Option<E>,
}

impl<E, F: FnMut(&mut Vec<u8>) -> Result<(), E>> Given<F, E> {
    /// The rest of the piece, or the next piece after its end. Empty if no more is given.
    fn rest(&mut self) -> Result<&[u8], Inner> {
        if self.at == self.piece.len() {
            self.piece.clear();
            self.at = 0;
            if let Err(failed) = (self.give)(&mut self.piece) {
                self.failed = Some(failed);
                return Err(Inner::Other("a piece was not given"));
            }
        }
        Ok(&self.piece[self.at..])
    }
}

impl<E, F: FnMut(&mut Vec<u8>) -> Result<(), E>> Reader for Given<F, E> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Inner> {
        let ends = |missing| Inner::UnexpectedEnd { additional: missing };
        // What lies about its length is refused before anything of it is read.
        self.left = self.left.checked_sub(bytes.len()).ok_or_else(|| ends(bytes.len()))?;
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = self.rest()?;
            let taken = rest.len().min(bytes.len() - filled);
            if taken == 0 {
                return Err(ends(bytes.len() - filled));
            }
            bytes[filled..filled + taken].copy_from_slice(&rest[..taken]);
            (self.at, filled) = (self.at + taken, filled + taken);
        }
        Ok(())
    }

    fn peek_read(&mut self, count: usize) -> Option<&[u8]> {
        if count > self.left {
            return None;
        }
        self.piece.get(self.at..self.at + count)
    }

    fn consume(&mut self, count: usize) {
        (self.at, self.left) = (self.at + count, self.left - count);
    }
}

/// Decodes the value at the start of `bytes`, whatever follows it.
///
/// # Errors
/// [`DecodeError`]; nothing changed.
pub fn decode_start<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_first(bytes).map(|(value, _)| value)
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
    bincode::serde::decode_from_slice(bytes, limits).map_err(|error| refusal(&error))
}

fn refusal(error: &Inner) -> DecodeError {
    match error {
        Inner::UnexpectedEnd { .. } => DecodeError::Truncated,
        Inner::LimitExceeded => DecodeError::Oversized,
        _ => DecodeError::Malformed,
    }
}

fn all_of<T>(bytes: &[u8], (value, length): (T, usize)) -> Result<T, DecodeError> {
    if length == bytes.len() { Ok(value) } else { Err(DecodeError::TrailingBytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 1_000;

    /// A value with texts that end within a piece, at its end and far beyond it.
    fn image() -> Vec<String> {
        let lengths = [0, 1, PIECE - 20, 3, PIECE, 5, 3 * PIECE + 7, 250];
        lengths.iter().zip('a'..).map(|(length, letter)| letter.to_string().repeat(*length)).collect()
    }

    #[test]
    fn a_snapshot_is_encoded_in_pieces_of_one_length_which_together_are_its_encoding() {
        for image in [image(), vec!["x".repeat(PIECE - 4)], Vec::new()] {
            let mut pieces: Vec<Vec<u8>> = Vec::new();
            let taken = encode_snapshot(&image, PIECE, |piece| {
                pieces.push(piece.to_vec());
                Ok::<_, ()>(())
            });
            assert_eq!(taken, Ok(()));
            let (last, full) = pieces.split_last().unwrap();
            assert!(full.iter().all(|piece| piece.len() == PIECE), "{}", full.len());
            assert!(last.len() < PIECE, "{}", last.len());
            assert!(pieces.concat() == encode(&image));
        }
    }

    #[test]
    fn a_snapshot_beyond_the_limit_is_not_encoded_to_its_end() {
        let length = encode(&image()).len();
        for (most, fits) in [(length, true), (length - 1, false), (PIECE - 1, false), (0, false)] {
            let mut taken = 0;
            let ended = encode_within(&image(), PIECE, most, |piece| {
                taken += piece.len();
                Ok::<_, ()>(())
            });
            assert_eq!(ended, if fits { Ok(()) } else { Err(Unencoded::Oversized) }, "{most}");
            assert!(taken <= most, "{taken} of {most}");
        }
    }

    #[test]
    fn nothing_is_encoded_after_a_piece_that_was_not_taken() {
        let mut taken = 0;
        let ended = encode_snapshot(&image(), PIECE, |_| {
            taken += 1;
            if taken == 2 { Err("full") } else { Ok(()) }
        });
        assert_eq!((ended, taken), (Err(Unencoded::NotTaken("full")), 2));
    }

    /// Decodes what is given in pieces of this length.
    fn in_pieces<T: DeserializeOwned>(bytes: &[u8], length: usize) -> Result<T, Undecoded<()>> {
        let mut pieces = bytes.chunks(length);
        decode_snapshot_in_pieces(bytes.len() as u64, |piece| {
            assert!(piece.is_empty() && piece.capacity() <= 2 * length.max(8), "one piece is held at a time");
            piece.extend_from_slice(pieces.next().unwrap_or_default());
            Ok(())
        })
    }

    #[test]
    fn a_snapshot_is_decoded_in_pieces_as_it_is_decoded_whole_wherever_a_piece_ends() {
        let whole = encode(&image());
        for length in [1, 2, 3, 7, PIECE, whole.len() - 1, whole.len()] {
            assert_eq!(in_pieces(&whole, length), Ok(image()), "{length}");
        }
        for cut in [0, 1, PIECE, whole.len() - 1] {
            let refused = Err(Undecoded::Refused(DecodeError::Truncated));
            assert_eq!(in_pieces::<Vec<String>>(&whole[..cut], PIECE), refused, "{cut}");
        }
        let longer = [whole.as_slice(), &[0]].concat();
        let refused = Err(Undecoded::Refused(DecodeError::TrailingBytes));
        assert_eq!(in_pieces::<Vec<String>>(&longer, PIECE), refused);
        let no_text = [[1, 2].as_slice(), &[0xff; 2]].concat();
        let refused = Err(Undecoded::Refused(DecodeError::Malformed));
        assert_eq!(in_pieces::<Vec<String>>(&no_text, PIECE), refused);
    }

    #[test]
    fn a_snapshot_that_is_too_long_or_of_which_less_is_given_than_was_said_is_refused() {
        let asked = |length: u64| {
            let mut given = Some(encode(&image()));
            decode_snapshot_in_pieces::<Vec<String>, ()>(length, |piece| {
                piece.extend(given.take().unwrap_or_default());
                Ok(())
            })
        };
        let length = encode(&image()).len() as u64;
        assert_eq!(asked(length), Ok(image()));
        assert_eq!(asked(length + 1), Err(Undecoded::Refused(DecodeError::TrailingBytes)));
        assert_eq!(asked(length - 1), Err(Undecoded::Refused(DecodeError::Truncated)));
        assert_eq!(asked(SNAPSHOT_MAX as u64 + 1), Err(Undecoded::Refused(DecodeError::Oversized)));
        let empty = decode_snapshot_in_pieces::<Vec<String>, ()>(length, |_| Ok(()));
        assert_eq!(empty, Err(Undecoded::Refused(DecodeError::Truncated)));
    }

    #[test]
    fn nothing_is_decoded_after_a_piece_that_was_not_given() {
        let (whole, mut given) = (encode(&image()), 0);
        let ended = decode_snapshot_in_pieces::<Vec<String>, _>(whole.len() as u64, |piece| {
            given += 1;
            piece.extend_from_slice(&whole[..PIECE]);
            if given == 2 { Err("unreadable") } else { Ok(()) }
        });
        assert_eq!((ended, given), (Err(Undecoded::NotGiven("unreadable")), 2));
    }
}
