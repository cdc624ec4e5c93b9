//! The outer header and the inner header of a datagram. The outer header is in clear. The seal of a datagram
//! of class Client, Peer or PeerHello, and of an ANSWER, authenticates all of it. Of an INITIATION's outer
//! header only the cluster's id is authenticated, by the prologue of its Noise message; those of HELLO and
//! RETRY are not authenticated.
//!
//! ```text
//! magic u16 | version u8 | class u8 | cluster u64 | group u16 | session u64 | node u16
//! incarnation u64 | number u64
//! header, packet, packet, ...        each determines its own length (see codec); encrypted
//! tag, 16 bytes                      authenticates everything before it
//! ```
//!
//! Integers of the outer header are big-endian. The rest of a [`Class::Handshake`] datagram is described in
//! [`handshake`](super::handshake). A [`Class::PeerHello`] holds two boot ids and the sender's epoch:
//!
//! ```text
//! outer header | sender's boot id, 16 bytes | receiver's, if known, 16 bytes | AEADs u8 | epoch u64 | tag
//! ```

use std::ops::RangeInclusive;

use crate::id::{BootId, ClusterId, Epoch, Incarnation, NodeId, Op, SessionId, View};

use super::codec::{self, DecodeError};
use super::packet::Packet;
use super::seal::{Key, PacketKeys, TAG_LEN};
use super::{DATAGRAM_BASE, DATAGRAM_MAX};

/// The first two bytes of every datagram: "re".
pub const MAGIC: u16 = 0x7265;
/// The version of the protocol: envelope, keys and packets.
pub const VERSION: u8 = 1;
/// The only group. A cluster of several groups, each with its own log, would number them.
pub const GROUP: u16 = 0;
/// The bytes of the outer header.
pub const OUTER_LEN: usize = 2 + 1 + 1 + 8 + 2 + 8 + 2 + 8 + 8;
/// The most bytes of the inner header: a view, and an ack with all ranges, none of the further ones and none
/// of the gaps longer than 251 numbers. The lowest ranges are left out of a header that would be longer, so
/// that the bytes left for packets do not depend on what was lost.
pub const HEADER_MAX: usize = 1 + 9 + 3 + 1 + 2 * (Ack::RANGES_MAX - 1) + 9;
/// The bytes left for packets in a datagram of the base size, whatever its headers hold. Packets that are
/// longer travel as fragments.
pub const PACKETS_MAX: usize = DATAGRAM_BASE - OUTER_LEN - HEADER_MAX - TAG_LEN;

/// The bytes of a peer hello, in which servers tell each other their boot ids.
const PEER_HELLO_LEN: usize = OUTER_LEN + 16 + 16 + 1 + 8 + TAG_LEN;

/// The class of a datagram: its two parties, and with them its kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// From a client without a session, and the answers to it.
    Handshake,
    /// On a session, in either direction.
    Client,
    /// Between servers that know each other's boot id.
    Peer,
    /// Between servers of which one at least does not know the other's boot id.
    PeerHello,
}

impl Class {
    pub(super) fn to_byte(self) -> u8 {
        match self {
            Class::Handshake => 0,
            Class::Client => 1,
            Class::Peer => 2,
            Class::PeerHello => 3,
        }
    }

    fn from_byte(byte: u8) -> Result<Class, DecodeError> {
        match byte {
            0 => Ok(Class::Handshake),
            1 => Ok(Class::Client),
            2 => Ok(Class::Peer),
            3 => Ok(Class::PeerHello),
            other => Err(DecodeError::Class(other)),
        }
    }
}

/// The outer header. It has a fixed size; fields that do not apply are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The class.
    pub class: Class,
    /// The cluster; zero from a client that does not know it yet (Handshake only).
    pub cluster: ClusterId,
    /// The session; zero outside of one.
    pub session: SessionId,
    /// The server that sends; none from a client.
    pub node: Option<NodeId>,
    /// The incarnation of the server that sends: its packet numbers start again with a higher one. Zero from
    /// a client.
    pub incarnation: Incarnation,
    /// The packet number; the sender never uses it twice on this link.
    pub number: u64,
}

impl Envelope {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.push(VERSION);
        out.push(self.class.to_byte());
        out.extend_from_slice(&self.cluster.0.to_be_bytes());
        out.extend_from_slice(&GROUP.to_be_bytes());
        out.extend_from_slice(&self.session.0.0.to_be_bytes());
        out.extend_from_slice(&self.node.map_or(0, |node| node.0).to_be_bytes());
        out.extend_from_slice(&self.incarnation.0.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
    }

    /// Reads the outer header without opening the datagram. It is enough to choose the key to open it with,
    /// and is not authentic before that.
    ///
    /// # Errors
    /// [`DecodeError`]: wrong length, magic, version, class or group. The sender's fault, nothing changed.
    pub fn peek(datagram: &[u8]) -> Result<Envelope, DecodeError> {
        if datagram.len() > DATAGRAM_MAX {
            return Err(DecodeError::Oversized);
        }
        if datagram.len() < OUTER_LEN + TAG_LEN {
            return Err(DecodeError::Truncated);
        }
        let mut rest = datagram;
        if u16::from_be_bytes(take(&mut rest)?) != MAGIC {
            return Err(DecodeError::Magic);
        }
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let [class] = take(&mut rest)?;
        let class = Class::from_byte(class)?;
        let cluster = ClusterId(u64::from_be_bytes(take(&mut rest)?));
        let group = u16::from_be_bytes(take(&mut rest)?);
        if group != GROUP {
            return Err(DecodeError::Group(group));
        }
        let session = SessionId(Op(u64::from_be_bytes(take(&mut rest)?)));
        let node = u16::from_be_bytes(take(&mut rest)?);
        let incarnation = Incarnation(u64::from_be_bytes(take(&mut rest)?));
        let number = u64::from_be_bytes(take(&mut rest)?);
        let node = (node != 0).then_some(NodeId(node));
        Ok(Envelope { class, cluster, session, node, incarnation, number })
    }
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
    *rest = after;
    Ok(*taken)
}

/// The packet numbers that the sender of this header has received, as ranges from the highest down (RFC 9000
/// section 19.3.1). Numbers below the lowest range may have been received too.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ack {
    /// The highest number.
    pub largest: u64,
    /// How many numbers directly below `largest` were received too.
    pub first: u16,
    /// The further ranges, downwards; fewer than [`Ack::RANGES_MAX`].
    pub further: Vec<AckRange>,
}

/// A further range of an [`Ack`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AckRange {
    /// The count of numbers between the range above and this one, less one.
    pub gap: u16,
    /// The count of numbers in this range, less one.
    pub length: u16,
}

impl Ack {
    /// The most ranges, with the first.
    pub const RANGES_MAX: usize = 8;

    /// The ranges, from the highest down. They end before one that would reach below number 0.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> {
        let below = |last: u64, length: u16| Some(last.checked_sub(u64::from(length))?..=last);
        let mut further = self.further.iter();
        std::iter::successors(below(self.largest, self.first), move |above| {
            let range = further.next()?;
            below(above.start().checked_sub(u64::from(range.gap) + 2)?, range.length)
        })
    }

    fn check(&self) -> Result<(), DecodeError> {
        let count = 1 + self.further.len();
        let well = count <= Ack::RANGES_MAX && self.ranges().count() == count;
        if well { Ok(()) } else { Err(DecodeError::Bounds) }
    }
}

/// The inner header: the first value inside the seal.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Header {
    /// The packet numbers that the sender has received on this link.
    pub ack: Option<Ack>,
    /// To clients: the highest active view that the server knows, and [`View::ZERO`] beside a PATH_CHALLENGE.
    /// From clients: the highest view that the client knows; servers do not read it. Between servers: the
    /// view that the sender has promised.
    pub view: View,
}

impl Header {
    /// Encodes it in at most [`HEADER_MAX`] bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode_onto(&mut bytes);
        bytes
    }

    /// Appends its encoding, of at most [`HEADER_MAX`] bytes.
    pub(super) fn encode_onto(&self, bytes: &mut Vec<u8>) {
        let at = bytes.len();
        codec::encode_onto(self, bytes);
        if bytes.len() - at > HEADER_MAX {
            let mut shorter = self.clone();
            if shorter.ack.as_mut().and_then(|ack| ack.further.pop()).is_some() {
                bytes.truncate(at);
                shorter.encode_onto(bytes);
            }
        }
    }
}

/// An opened datagram, with the packets of its direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened<P> {
    /// The outer header.
    pub envelope: Envelope,
    /// The inner header.
    pub header: Header,
    /// The packets.
    pub packets: Vec<P>,
}

/// Seals `header` and `packets` (each already encoded) under `envelope`. The packets have at most
/// [`PACKETS_MAX`] bytes together: more is the caller's mistake, and no receiver would open the datagram.
pub fn seal(keys: &mut PacketKeys, envelope: &Envelope, header: &Header, packets: &[Vec<u8>]) -> Vec<u8> {
    let length: usize = packets.iter().map(Vec::len).sum();
    debug_assert!(length <= PACKETS_MAX, "{length} bytes of packets in one datagram");
    let mut datagram = Vec::new();
    begin_in(&mut datagram, envelope, &header.encode());
    for packet in packets {
        datagram.extend_from_slice(packet);
    }
    keys.seal(envelope.number, OUTER_LEN, &mut datagram);
    datagram
}

/// Begins a datagram in an empty buffer with its headers, the inner one already encoded. Packets are
/// appended, and it is sealed in place from [`OUTER_LEN`] on.
pub(super) fn begin_in(datagram: &mut Vec<u8>, envelope: &Envelope, header: &[u8]) {
    datagram.reserve(DATAGRAM_BASE);
    envelope.write(datagram);
    datagram.extend_from_slice(header);
}

/// Opens a datagram that was sealed with `keys`.
///
/// # Errors
/// [`DecodeError`]; the sender's fault, nothing changed.
pub fn open<P: Packet>(keys: &mut PacketKeys, datagram: &[u8]) -> Result<Opened<P>, DecodeError> {
    let envelope = Envelope::peek(datagram)?;
    let inside = keys.open(envelope.number, OUTER_LEN, datagram)?;
    let (header, packets) = read(&inside)?;
    Ok(Opened { envelope, header, packets })
}

/// Decodes the inner header and the packets, up to the end or to PADDING.
pub(super) fn read<P: Packet>(inside: &[u8]) -> Result<(Header, Vec<P>), DecodeError> {
    let (header, length) = codec::decode_first::<Header>(inside)?;
    header.ack.as_ref().map_or(Ok(()), Ack::check)?;
    let mut rest = inside.get(length..).unwrap_or_default();
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let (packet, length) = codec::decode_packet::<P>(rest)?;
        if packet.is_padding() {
            break;
        }
        packets.push(packet);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok((header, packets))
}

/// The boot ids of two servers, as one sends them to the other, with the epoch of the sender's log and the
/// AEADs that it offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// The sender's boot id.
    pub mine: BootId,
    /// The receiver's boot id, if the sender knows it.
    pub yours: Option<BootId>,
    /// The epoch of the sender's log. Servers of two epochs hold two histories, and are no peers.
    pub epoch: Epoch,
    /// What the sender offers beside ChaCha20-Poly1305 ([`Ciphers::offered`](super::seal::Ciphers::offered)).
    pub aeads: u8,
}

impl PeerHello {
    /// A hello in the first epoch that offers nothing more.
    pub const fn new(mine: BootId, yours: Option<BootId>) -> PeerHello {
        PeerHello { mine, yours, epoch: Epoch::FIRST, aeads: 0 }
    }

    /// Seals it with the sender's key for peer hellos.
    pub fn seal(&self, key: &Key, envelope: &Envelope) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(PEER_HELLO_LEN);
        envelope.write(&mut datagram);
        datagram.extend_from_slice(&self.mine.0);
        datagram.extend_from_slice(&self.yours.unwrap_or(BootId([0; 16])).0);
        datagram.push(self.aeads);
        datagram.extend_from_slice(&self.epoch.0.to_be_bytes());
        key.seal(envelope.number, OUTER_LEN + 16, &mut datagram);
        datagram
    }

    /// The sender's boot id, which the key is bound to. It is not authentic before the datagram is opened.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`]: the datagram has the wrong length. The sender's fault.
    pub fn peek(datagram: &[u8]) -> Result<BootId, DecodeError> {
        if datagram.len() != PEER_HELLO_LEN {
            return Err(DecodeError::Truncated);
        }
        let mut rest = datagram.get(OUTER_LEN..).unwrap_or_default();
        Ok(BootId(take(&mut rest)?))
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`DecodeError`]: its sender is not a server of this cluster. The sender's fault.
    pub fn open(key: &Key, datagram: &[u8]) -> Result<PeerHello, DecodeError> {
        let mine = PeerHello::peek(datagram)?;
        let number = Envelope::peek(datagram)?.number;
        let inside = key.open(number, OUTER_LEN + 16, datagram)?;
        let mut rest = &inside[..];
        let yours = BootId(take(&mut rest)?);
        let [aeads] = take(&mut rest)?;
        let epoch = Epoch(u64::from_be_bytes(take(&mut rest)?));
        Ok(PeerHello { mine, yours: (yours.0 != [0; 16]).then_some(yours), epoch, aeads })
    }
}
