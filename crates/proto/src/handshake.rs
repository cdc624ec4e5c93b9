//! The datagrams of the handshake, which precede a session. There are four kinds, after the outer header of
//! class Handshake:
//!
//! ```text
//! HELLO      0 | echo u64 | zeros                             to a server, as long as its answer
//! RETRY      1 | echo u64 | cookie | boot id | cluster key    from the server, which keeps no state
//! INITIATION 2 | cookie | first message of the handshake      to the server, padded to a whole datagram
//! ANSWER     3 | second message | header, packets, tag        from the server
//! ```
//!
//! HELLO asks for the inputs of an INITIATION: a cookie, which proves that the client receives at its
//! address, the server's boot id, and the cluster's key for clients that do not know it yet. RETRY is not
//! sealed: an attacker that sees the HELLO, whose number RETRY must echo, can forge one. The forgery can only
//! make the client send an INITIATION that no server answers, or a datagram on a session that no server can
//! open.
//!
//! INITIATION is the client's first authenticated message. It carries CONNECT, ADMIN or a query, and
//! ANSWER carries the answer, under a key that only the client and a holder of the cluster's key can compute.
//! No datagram is longer than the one that it answers. The answer to a query may be longer than a datagram:
//! then it comes in pieces, each in an ANSWER of its own with the same second message ([`pieces`]).
//! INITIATION has proved that its sender receives at its address. To another version a server answers with
//! [`VERSION`](super::version).

use super::codec::DecodeError;
use super::envelope::{self, Class, Envelope, HEADER_MAX, Header, OUTER_LEN, Opened, take};
use super::noise::{INITIATION_OVERHEAD, OPENING_LEN, Reply};
use super::packet::{ToClient, ToServer};
use super::seal::{Key, TAG_LEN};
use super::{DATAGRAM_BASE, codec, fragment};
use crate::id::BootId;

const HELLO: u8 = 0;
const RETRY: u8 = 1;
const INITIATION: u8 = 2;
const ANSWER: u8 = 3;

/// The bytes of a RETRY, and of a HELLO.
const HELLO_LEN: usize = OUTER_LEN + 1 + 8 + COOKIE_LEN + 16 + 32;
/// The bytes of a cookie.
pub const COOKIE_LEN: usize = 16;
/// The bytes of the load of an INITIATION, including the two bytes of its length.
const LOAD_LEN: usize = DATAGRAM_BASE - OUTER_LEN - 1 - COOKIE_LEN - INITIATION_OVERHEAD;
/// The most bytes of packets in an INITIATION.
const INITIATION_MAX: usize = LOAD_LEN - 2 - HEADER_MAX;
/// The most bytes of packets in an ANSWER.
pub const ANSWER_MAX: usize = DATAGRAM_BASE - OUTER_LEN - 1 - OPENING_LEN - HEADER_MAX - TAG_LEN;

const _: () = assert!(ANSWER_MAX >= fragment::PIECE_MIN + 64);

/// A proof that its sender received a datagram at its address.
pub type Cookie = [u8; COOKIE_LEN];

/// RETRY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The number of the HELLO, echoed.
    pub echo: u64,
    /// The cookie for the INITIATION.
    pub cookie: Cookie,
    /// The server's boot id.
    pub boot_id: BootId,
    /// The key that the server claims to be the cluster's.
    pub cluster_key: [u8; 32],
}

/// A datagram of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake<'a> {
    /// HELLO, with the number to be echoed.
    Hello(u64),
    /// RETRY.
    Retry(Retry),
    /// INITIATION.
    Initiation {
        /// The cookie from a RETRY.
        cookie: Cookie,
        /// The first handshake message.
        message: &'a [u8],
    },
    /// ANSWER, with the second handshake message. The rest is opened by [`open_answer`].
    Answer(&'a [u8; OPENING_LEN]),
}

impl Handshake<'_> {
    /// Reads a datagram of class Handshake.
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
                boot_id: BootId(take(&mut rest)?),
                cluster_key: take(&mut rest)?,
            }),
            // A shorter INITIATION could be shorter than its answer.
            INITIATION if datagram.len() != DATAGRAM_BASE => return Err(DecodeError::Truncated),
            INITIATION => Handshake::Initiation { cookie: take(&mut rest)?, message: rest },
            ANSWER => Handshake::Answer(rest.first_chunk().ok_or(DecodeError::Truncated)?),
            _ => return Err(DecodeError::Malformed),
        };
        Ok((envelope, handshake))
    }
}

/// Makes a HELLO.
pub fn hello(envelope: &Envelope, echo: u64) -> Vec<u8> {
    let mut datagram = begin(envelope, HELLO);
    datagram.extend_from_slice(&echo.to_be_bytes());
    datagram.resize(HELLO_LEN, 0);
    datagram
}

/// Makes a RETRY.
pub fn retry(envelope: &Envelope, retry: &Retry) -> Vec<u8> {
    let mut datagram = begin(envelope, RETRY);
    datagram.extend_from_slice(&retry.echo.to_be_bytes());
    datagram.extend_from_slice(&retry.cookie);
    datagram.extend_from_slice(&retry.boot_id.0);
    datagram.extend_from_slice(&retry.cluster_key);
    datagram
}

/// Makes an INITIATION around the first handshake message, whose load was made by [`load`].
pub fn initiation(envelope: &Envelope, cookie: &Cookie, message: &[u8]) -> Vec<u8> {
    let mut datagram = begin(envelope, INITIATION);
    datagram.extend_from_slice(cookie);
    datagram.extend_from_slice(message);
    debug_assert_eq!(datagram.len(), DATAGRAM_BASE, "an INITIATION fills its datagram");
    datagram
}

/// Makes the load of an INITIATION: packets of at most `INITIATION_MAX` bytes, padded with zeros.
pub fn load(packets: &[ToServer]) -> Vec<u8> {
    let mut inside = Header::default().encode();
    packets.iter().for_each(|packet| inside.extend_from_slice(&codec::encode(packet)));
    debug_assert!(
        inside.len() <= HEADER_MAX + INITIATION_MAX,
        "{} bytes of packets in an INITIATION",
        inside.len()
    );
    let mut load = (inside.len() as u16).to_be_bytes().to_vec();
    load.extend_from_slice(&inside);
    load.resize(LOAD_LEN, 0);
    load
}

/// Reads a load made by [`load`].
///
/// # Errors
/// [`DecodeError`]; the sender's fault, nothing changed.
pub fn unload(mut load: &[u8]) -> Result<Vec<ToServer>, DecodeError> {
    let length = u16::from_be_bytes(take(&mut load)?);
    let inside = load.get(..usize::from(length)).ok_or(DecodeError::Truncated)?;
    Ok(envelope::read(inside)?.1)
}

/// Cuts an encoded packet that is longer than [`ANSWER_MAX`] into encoded FRAGMENTs, each for an ANSWER of
/// its own. `first` is the number of the first of them.
pub fn pieces(first: u64, encoded: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    fragment::split_to_fit(ANSWER_MAX, first, encoded).map(|piece| codec::encode(&ToClient::Fragment(piece)))
}

/// Makes an ANSWER: `packets` (each already encoded; at most [`ANSWER_MAX`] bytes together), sealed for the
/// sender of the INITIATION. The caller uses a [`Reply`] for one answer only, and gives each of its datagrams
/// another number.
pub fn answer(envelope: &Envelope, reply: &Reply, header: &Header, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut datagram = begin(envelope, ANSWER);
    datagram.extend_from_slice(&reply.opening);
    let clear = datagram.len();
    datagram.extend_from_slice(&header.encode());
    packets.iter().for_each(|packet| datagram.extend_from_slice(packet));
    reply.key.seal(envelope.number, clear, &mut datagram);
    datagram
}

/// Opens the sealed part of an ANSWER, with the key from its second handshake message.
///
/// # Errors
/// [`DecodeError`]; the sender's fault, nothing changed.
pub fn open_answer(key: &Key, datagram: &[u8]) -> Result<Opened<ToClient>, DecodeError> {
    let envelope = Envelope::peek(datagram)?;
    let inside = key.open(envelope.number, OUTER_LEN + 1 + OPENING_LEN, datagram)?;
    let (header, packets) = envelope::read(&inside)?;
    Ok(Opened { envelope, header, packets })
}

fn begin(envelope: &Envelope, kind: u8) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(DATAGRAM_BASE);
    envelope.write(&mut datagram);
    datagram.push(kind);
    datagram
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddr};

    use proptest::prelude::*;

    use super::*;
    use crate::entropy::Entropy;
    use crate::envelope::{Ack, AckRange};
    use crate::id::{
        ChannelName, ClusterId, DeviceId, DeviceKey, Epoch, Incarnation, MEMBERS_MAX, NodeId, Op, SessionId,
        View,
    };
    use crate::noise::{self, Initiation, Prologue};
    use crate::packet::{
        AcceptConn, Answer, AnswerKind, CodeHash, Connect, Coordinator, Fragment, List, Listing,
        OptionalField, OptionalFields, Packet, Position, Query, QueryId, QueryKind, RefusedDatagram,
        RoleName, Status,
    };
    use crate::seal::Aead;

    const SAID: Retry =
        Retry { echo: 9, cookie: [3; COOKIE_LEN], boot_id: BootId([4; 16]), cluster_key: [5; 32] };

    fn envelope() -> Envelope {
        Envelope {
            class: Class::Handshake,
            cluster: ClusterId(7),
            session: SessionId::default(),
            node: Some(NodeId(2)),
            incarnation: Incarnation(1),
            number: 8,
        }
    }

    fn cluster() -> Key {
        Key::new([9; 32])
    }

    /// An INITIATION with these packets: the client's state, the datagram, the server's reply, and the
    /// packets it read.
    fn initiated(packets: &[ToServer]) -> (Initiation, Vec<u8>, Reply, Vec<ToServer>) {
        let entropy = &mut Entropy::new([1; 32]);
        let prologue = Prologue { cluster: ClusterId(7), server: NodeId(2), boot_id: SAID.boot_id };
        let (public, private) = (noise::public(&cluster()), Key::new([6; 32]));
        let (initiation, message) =
            Initiation::new(prologue, &public, &private, &load(packets), entropy).unwrap();
        let (_, load, reply) = noise::answer(prologue, &cluster(), &message, entropy).unwrap();
        let packets = unload(&load).unwrap();
        (initiation, super::initiation(&envelope(), &SAID.cookie, &message), reply, packets)
    }

    /// A packet whose encoding has this many bytes.
    fn filling(bytes: usize) -> ToServer {
        let piece = |length| {
            ToServer::Fragment(Fragment { first: 1, offset: 0, total: 60_000, bytes: vec![0; length] })
        };
        let empty = codec::encode(&piece(600)).len() - 600;
        let packet = piece(bytes - empty);
        assert_eq!(codec::encode(&packet).len(), bytes);
        packet
    }

    #[test]
    fn hello_and_retry_are_read_as_they_were_sent() {
        let hello = hello(&envelope(), 9);
        assert_eq!(Handshake::read(&hello), Ok((envelope(), Handshake::Hello(9))));
        let retry = retry(&envelope(), &SAID);
        assert_eq!(Handshake::read(&retry), Ok((envelope(), Handshake::Retry(SAID))));
    }

    #[test]
    fn an_initiation_and_its_answer_are_read_as_they_were_sent() {
        let asked = [ToServer::Query(Query::new(QueryId(3), QueryKind::Status)), ToServer::keepalive()];
        let (mut initiation, datagram, reply, packets) = initiated(&asked);
        assert_eq!(packets, asked);
        let Ok((_, Handshake::Initiation { cookie, .. })) = Handshake::read(&datagram) else {
            panic!("no initiation")
        };
        assert_eq!(cookie, SAID.cookie);

        let header = Header { ack: None, view: View(5) };
        let answered = ToClient::PathChallenge(7);
        let datagram = answer(&envelope(), &reply, &header, &[codec::encode(&answered)]);
        let Ok((_, Handshake::Answer(opening))) = Handshake::read(&datagram) else { panic!("no answer") };
        let key = initiation.read_response(opening).unwrap();
        let opened = Opened { envelope: envelope(), header, packets: vec![answered] };
        assert_eq!(open_answer(&key, &datagram), Ok(opened));
        let mut changed = datagram;
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(open_answer(&key, &changed), Err(DecodeError::Seal));
    }

    /// A client sends an INITIATION whole, so the optional fields must leave room for the rest.
    #[test]
    fn the_largest_connect_and_query_fit_into_an_initiation() {
        let options = most_options();
        let mut at_least = Position::of(Op(u64::MAX));
        (at_least.group, at_least.epoch, at_least.generation) = (u16::MAX, Epoch(u64::MAX), u32::MAX);
        let at_least = Some(at_least);
        let after = Some("k".repeat(ChannelName::LEN_MAX + 1));
        let what = Listing::Members("m".repeat(ChannelName::LEN_MAX).parse().unwrap());
        let kind = QueryKind::List(List { what, after });
        let largest = [
            ToServer::Connect(Connect {
                device: DeviceId { key: DeviceKey([0xff; 32]), slot: u8::MAX },
                profile: "p".repeat(32).parse().unwrap(),
                receives: true,
                nonce: u64::MAX,
                fresh: true,
                code: Some(CodeHash([0xff; 32])),
                invite: Some(CodeHash([0xff; 32])),
                aeads: u8::MAX,
                options: options.clone(),
            }),
            ToServer::Query(Query { id: QueryId(u64::MAX), at_least, kind, options }),
        ];
        for packet in largest {
            assert_eq!(packet.check(), Ok(()));
            assert!(codec::encode(&packet).len() <= INITIATION_MAX, "{packet:?}");
        }
    }

    /// As many optional fields as a packet may have, with the longest tags.
    fn most_options() -> OptionalFields {
        let bytes = OptionalFields::BYTES_MAX / OptionalFields::FIELDS_MAX;
        let field = |at: usize| OptionalField { tag: u16::MAX - at as u16, bytes: vec![0xff; bytes] };
        OptionalFields((0..OptionalFields::FIELDS_MAX).rev().map(field).collect())
    }

    #[test]
    fn the_largest_accept_conn_and_status_fit_into_an_answer() {
        let member = |id: usize| (NodeId(u16::MAX - id as u16), (Ipv6Addr::from(u128::MAX), u16::MAX).into());
        let members: Vec<(NodeId, SocketAddr)> = (0..MEMBERS_MAX).map(member).collect();
        let roles = vec![u8::MAX; MEMBERS_MAX];
        let coordinator = Coordinator { roles, ..Coordinator::new(View(u64::MAX), members.clone()) };
        let accept = |announced: OptionalFields, own: OptionalFields| AcceptConn {
            nonce: u64::MAX,
            session: SessionId(Op(u64::MAX)),
            coordinator: Coordinator { options: announced, ..coordinator.clone() },
            secret: Key::new([0xff; 32]),
            aead: Aead::default(),
            options: own,
        };
        let status = Status {
            node: NodeId(u16::MAX),
            role: RoleName::Unknown(u16::MAX),
            view: View(u64::MAX),
            applied: Op(u64::MAX),
            durable: Op(u64::MAX),
            lag: u64::MAX,
            pid: u32::MAX,
            incarnation: Incarnation(u64::MAX),
            uptime_ms: u64::MAX,
            members,
            refused: RefusedDatagram::ALL.iter().map(|reason| (*reason, u64::MAX)).collect(),
        };
        let (id, applied) = (QueryId(u64::MAX), Position::of(Op(u64::MAX)));
        let status = Answer { id, applied, kind: AnswerKind::Status(status), options: OptionalFields::NONE };
        let (most, none) = (most_options, || OptionalFields::NONE);
        for packet in [
            ToClient::AcceptConn(accept(most(), none())),
            ToClient::AcceptConn(accept(none(), most())),
            ToClient::Answer(status),
        ] {
            assert_eq!(packet.check(), Ok(()));
            assert!(codec::encode(&packet).len() <= ANSWER_MAX, "{packet:?}");
        }
        let twice = ToClient::AcceptConn(accept(most(), most()));
        assert_eq!(twice.check(), Err(DecodeError::Bounds), "both lists count together");
    }

    #[test]
    fn no_answer_is_longer_than_the_datagram_that_it_answers() {
        assert!(retry(&envelope(), &SAID).len() <= hello(&envelope(), 9).len());
        let (_, initiation, reply, _) = initiated(&[filling(INITIATION_MAX)]);
        assert_eq!(initiation.len(), DATAGRAM_BASE);
        let further = vec![AckRange { gap: 250, length: 250 }; Ack::RANGES_MAX - 1];
        let ack = Ack { largest: u64::MAX, first: 251, further };
        let header = Header { ack: Some(ack), view: View(u64::MAX) };
        let full = answer(&envelope(), &reply, &header, &[codec::encode(&filling(ANSWER_MAX))]);
        assert_eq!(full.len(), initiation.len());
    }

    #[test]
    fn a_datagram_of_another_length_is_none_of_the_handshake() {
        let (_, initiation, _, _) = initiated(&[ToServer::keepalive()]);
        for whole in [hello(&envelope(), 9), retry(&envelope(), &SAID), initiation] {
            let shorter = &whole[..whole.len() - 1];
            assert_eq!(Handshake::read(shorter), Err(DecodeError::Truncated));
            let longer = [&whole[..], &[0]].concat();
            assert!(Handshake::read(&longer).is_err());
        }
        let mut unknown = hello(&envelope(), 9);
        unknown[OUTER_LEN] = 4;
        assert_eq!(Handshake::read(&unknown), Err(DecodeError::Malformed));
        let mut session = hello(&Envelope { class: Class::Client, ..envelope() }, 9);
        assert_eq!(Handshake::read(&session), Err(DecodeError::Malformed));
        session.truncate(OUTER_LEN);
        assert_eq!(Handshake::read(&session), Err(DecodeError::Truncated));
    }

    #[test]
    fn a_load_that_claims_more_than_there_is_is_refused() {
        let mut lying = load(&[ToServer::keepalive()]);
        lying[..2].copy_from_slice(&(LOAD_LEN as u16 - 1).to_be_bytes());
        assert_eq!(unload(&lying), Err(DecodeError::Truncated));
        assert_eq!(unload(&[0]), Err(DecodeError::Truncated));
        let session = ToServer::PathResponse(1);
        assert_eq!(unload(&load(std::slice::from_ref(&session))), Ok(vec![session]));
    }

    proptest! {
        /// Everything that is parsed before anything is authenticated.
        #[test]
        fn whatever_comes_is_read_or_refused(
            kind: u8, length in 0..=DATAGRAM_BASE + 1, mut bytes in prop::collection::vec(any::<u8>(), DATAGRAM_BASE + 1),
            class in 0..4u8, ours: bool, exact in prop::option::of(prop::sample::select(vec![HELLO_LEN, DATAGRAM_BASE])),
        ) {
            if ours {
                bytes[..4].copy_from_slice(&[0x72, 0x65, envelope::VERSION, class]);
                bytes[OUTER_LEN] = kind % 5;
            }
            bytes.truncate(exact.unwrap_or(length));
            if Handshake::read(&bytes).is_ok() {
                prop_assert_eq!((bytes[2], bytes[3]), (envelope::VERSION, 0));
            }
            prop_assert!(open_answer(&cluster(), &bytes).is_err());
            let _ = unload(&bytes);
        }
    }
}
