//! What travels before there is a session. Four kinds of datagram, behind the outer header of class
//! Handshake:
//!
//! ```text
//! HELLO   0 | echo u64 | zeros                                 to a server, as long as its answer
//! RETRY   1 | echo u64 | cookie | life | cluster key           from it, keeping nothing
//! KNOCK   2 | cookie | first message of the handshake          to it, filled up to a whole datagram
//! ANSWER  3 | second message | header, packets, tag            from it
//! ```
//!
//! HELLO asks for what is needed to knock: a cookie, which shows that the sender receives at its address,
//! the server's life, and the cluster's key for those who do not know it yet. RETRY is not sealed: whoever
//! forges one (and sees the HELLO it must echo) can only cause a KNOCK that nobody answers. KNOCK
//! carries CONNECT or another question; ANSWER, under the key that only the knocker and a holder of the
//! cluster's key can have, its answer. No answer is longer than its question.

use super::codec::DecodeError;
use super::envelope::{self, Class, Envelope, HEADER_MAX, Header, OUTER_LEN, Opened, take};
use super::noise::{KNOCK_OVERHEAD, OPENING_LEN, Reply};
use super::packet::Packet;
use super::seal::{Key, TAG_LEN};
use super::{DATAGRAM_MAX, codec};
use crate::id::BootId;

const HELLO: u8 = 0;
const RETRY: u8 = 1;
const KNOCK: u8 = 2;
const ANSWER: u8 = 3;

/// Bytes of a RETRY, and of a HELLO.
const HELLO_LEN: usize = OUTER_LEN + 1 + 8 + COOKIE_LEN + 16 + 32;
/// Bytes of a cookie.
pub const COOKIE_LEN: usize = 16;
/// Bytes that a KNOCK carries, with their length before them.
const LOAD_LEN: usize = DATAGRAM_MAX - OUTER_LEN - 1 - COOKIE_LEN - KNOCK_OVERHEAD;
/// Bytes of packets in a KNOCK.
pub const KNOCK_MAX: usize = LOAD_LEN - 2 - HEADER_MAX;
/// Bytes of packets in an ANSWER.
pub const ANSWER_MAX: usize = DATAGRAM_MAX - OUTER_LEN - 1 - OPENING_LEN - HEADER_MAX - TAG_LEN;

/// Shows that whoever sends it received what was sent to its address.
pub type Cookie = [u8; COOKIE_LEN];

/// RETRY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Of the HELLO.
    pub echo: u64,
    /// For the KNOCK.
    pub cookie: Cookie,
    /// The server's.
    pub life: BootId,
    /// What the server claims to be the cluster's key.
    pub cluster_key: [u8; 32],
}

/// A datagram of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake<'a> {
    /// HELLO, with what is to be echoed.
    Hello(u64),
    /// RETRY.
    Retry(Retry),
    /// KNOCK.
    Knock {
        /// From a RETRY.
        cookie: Cookie,
        /// The first message.
        message: &'a [u8],
    },
    /// ANSWER: the second message. What follows is read by [`open_answer`].
    Answer(&'a [u8; OPENING_LEN]),
}

impl Handshake<'_> {
    /// Reads a datagram of the class Handshake.
    ///
    /// # Errors
    /// [`DecodeError`]; the sender's fault, nothing changed.
    pub fn read(datagram: &[u8]) -> Result<(Envelope, Handshake<'_>), DecodeError> {
        let envelope = Envelope::peek(datagram)?;
        if envelope.class != Class::Handshake {
            return Err(DecodeError::Malformed);
        }
        let mut rest = datagram.get(OUTER_LEN..).unwrap_or_default();
        let [kind] = take(&mut rest)?;
        let handshake = match kind {
            HELLO | RETRY if datagram.len() != HELLO_LEN => return Err(DecodeError::Truncated),
            HELLO => Handshake::Hello(u64::from_be_bytes(take(&mut rest)?)),
            RETRY => Handshake::Retry(Retry {
                echo: u64::from_be_bytes(take(&mut rest)?),
                cookie: take(&mut rest)?,
                life: BootId(take(&mut rest)?),
                cluster_key: take(&mut rest)?,
            }),
            // Shorter than a whole datagram, its answer could be longer than it is.
            KNOCK if datagram.len() != DATAGRAM_MAX => return Err(DecodeError::Truncated),
            KNOCK => Handshake::Knock { cookie: take(&mut rest)?, message: rest },
            ANSWER => Handshake::Answer(rest.first_chunk().ok_or(DecodeError::Truncated)?),
            _ => return Err(DecodeError::Malformed),
        };
        Ok((envelope, handshake))
    }
}

/// HELLO.
pub fn hello(envelope: &Envelope, echo: u64) -> Vec<u8> {
    let mut datagram = begin(envelope, HELLO);
    datagram.extend_from_slice(&echo.to_be_bytes());
    datagram.resize(HELLO_LEN, 0);
    datagram
}

/// RETRY.
pub fn retry(envelope: &Envelope, retry: &Retry) -> Vec<u8> {
    let mut datagram = begin(envelope, RETRY);
    datagram.extend_from_slice(&retry.echo.to_be_bytes());
    datagram.extend_from_slice(&retry.cookie);
    datagram.extend_from_slice(&retry.life.0);
    datagram.extend_from_slice(&retry.cluster_key);
    datagram
}

/// KNOCK, around the first message, which carries a load of [`load`].
pub fn knock(envelope: &Envelope, cookie: &Cookie, message: &[u8]) -> Vec<u8> {
    let mut datagram = begin(envelope, KNOCK);
    datagram.extend_from_slice(cookie);
    datagram.extend_from_slice(message);
    debug_assert_eq!(datagram.len(), DATAGRAM_MAX, "a KNOCK fills its datagram");
    datagram
}

/// What a KNOCK carries: packets of at most [`KNOCK_MAX`] bytes, filled up with zeros.
pub fn load(packets: &[Packet]) -> Vec<u8> {
    let mut inside = codec::encode(&Header::default());
    packets.iter().for_each(|packet| inside.extend_from_slice(&codec::encode(packet)));
    debug_assert!(inside.len() <= LOAD_LEN - 2, "{} bytes of packets in a KNOCK", inside.len());
    let mut load = (inside.len() as u16).to_be_bytes().to_vec();
    load.extend_from_slice(&inside);
    load.resize(LOAD_LEN, 0);
    load
}

/// Reads what [`load`] made.
///
/// # Errors
/// [`DecodeError`]; the sender's fault, nothing changed.
pub fn unload(mut load: &[u8]) -> Result<Vec<Packet>, DecodeError> {
    let length = u16::from_be_bytes(take(&mut load)?);
    let inside = load.get(..usize::from(length)).ok_or(DecodeError::Truncated)?;
    Ok(envelope::read(inside)?.1)
}

/// ANSWER: `packets` (already encoded, each; at most [`ANSWER_MAX`] bytes together), sealed for whoever
/// knocked. A [`Reply`] is used once.
pub fn answer(envelope: &Envelope, reply: &Reply, header: &Header, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut datagram = begin(envelope, ANSWER);
    datagram.extend_from_slice(&reply.opening);
    let clear = datagram.len();
    datagram.extend_from_slice(&codec::encode(header));
    packets.iter().for_each(|packet| datagram.extend_from_slice(packet));
    reply.key.seal(envelope.number, clear, &mut datagram);
    datagram
}

/// Opens the rest of an ANSWER, with the key that its second message gave.
///
/// # Errors
/// [`DecodeError`]; the sender's fault, nothing changed.
pub fn open_answer(key: &Key, datagram: &[u8]) -> Result<Opened, DecodeError> {
    let envelope = Envelope::peek(datagram)?;
    let inside = key.open(envelope.number, OUTER_LEN + 1 + OPENING_LEN, datagram)?;
    let (header, packets) = envelope::read(&inside)?;
    Ok(Opened { envelope, header, packets })
}

fn begin(envelope: &Envelope, kind: u8) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(DATAGRAM_MAX);
    envelope.write(&mut datagram);
    datagram.push(kind);
    datagram
}
