//! Intake of clients' datagrams: opens them ([`handshake`](super::handshake)), reassembles fragments, and
//! says for whom each packet is. It decides nothing else, and knows nothing of a session but its keys.
//!
//! Pure: a [shard](super::shard) drives it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use recado_proto::envelope::{Class, Envelope, Opened};
use recado_proto::fragment::Reassembler;
use recado_proto::id::{Moment, SessionId};
use recado_proto::packet::{
    Answers, Code, Extension, Fragment, Packet, Refused, RefusedDatagram, ToClient, ToServer,
};
use recado_proto::{DecodeError, version};

use super::engine;
use super::handshake::{HandshakeEvent, HandshakeServer, Keyring};
use super::node::RETRY_MS;
use crate::delivery;
use crate::fair::{Network, Shares};

/// Maximum number of sessions of one shard with fragments in progress. A further one displaces, in the
/// network that has the most, the session that has waited longest for its next fragment. A session holds at
/// most `fragment::PARTIAL_MAX` packets of 64 KiB each.
const REASSEMBLERS_MAX: usize = 64;

/// Maximum number of packets in one datagram of a client. Clients put at most 16 requests and a few other
/// packets into one; a datagram full of the shortest packets would fill the replica thread's queue by itself.
const PACKETS_MAX: usize = 32;

/// What came of a datagram, beside the requests in it.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Datagrams to be sent at once: RETRY and VERSION, which no session and no queue stands behind.
    pub(super) replies: Vec<(SocketAddr, Vec<u8>)>,
    /// Inputs of the delivery. A datagram is reported before its packets, so that an answer finds the
    /// session's address.
    pub(super) heard: Vec<delivery::Input>,
}

/// The intake of one shard.
#[derive(Debug)]
pub(super) struct Intake {
    handshakes: HandshakeServer,
    /// Keys of this shard's sessions.
    pub(super) keyring: Keyring,
    partial: Partial,
}

impl Intake {
    pub(super) fn new(handshakes: HandshakeServer, keyring: Keyring) -> Intake {
        Intake { handshakes, keyring, partial: Partial::default() }
    }

    /// Takes a datagram. `ask` passes a request, with the address that it came from, to the replica thread,
    /// and returns false if it has no room: then a numbered request is answered Busy.
    ///
    /// # Errors
    /// The reason why the datagram, or a part of it, was refused.
    pub(super) fn receive(
        &mut self,
        now: Moment,
        from: SocketAddr,
        bytes: &[u8],
        ask: &mut impl FnMut(SocketAddr, engine::Input) -> bool,
        taken: &mut Taken,
    ) -> Result<(), RefusedDatagram> {
        let envelope = match Envelope::peek(bytes) {
            Ok(envelope) => envelope,
            // A handshake of another version is answered, and refused all the same; but a probe of the path
            // asks for that answer alone.
            Err(error @ DecodeError::Version(other)) => {
                let answer = version::answer(bytes);
                let is_probe = other == version::PROBE && answer.is_some();
                taken.replies.extend(answer.map(|answer| (from, answer)));
                return if is_probe { Ok(()) } else { Err(error.refused()) };
            }
            Err(error) => return Err(error.refused()),
        };
        match envelope.class {
            Class::Handshake => match self.handshakes.receive(now, from, bytes)? {
                HandshakeEvent::Retry(answer) => {
                    taken.replies.push((from, answer));
                    Ok(())
                }
                HandshakeEvent::Initiation { reply_to, key, packet } => {
                    let asked = ask(from, engine::Input::Initiation { reply_to, key, packet });
                    if asked { Ok(()) } else { Err(RefusedDatagram::QueueFull) }
                }
            },
            Class::Client => self.on_session(now, from, bytes, ask, taken),
            Class::Peer | Class::PeerHello => Err(RefusedDatagram::Malformed),
        }
    }

    fn on_session(
        &mut self,
        now: Moment,
        from: SocketAddr,
        bytes: &[u8],
        ask: &mut impl FnMut(SocketAddr, engine::Input) -> bool,
        taken: &mut Taken,
    ) -> Result<(), RefusedDatagram> {
        let (opened, keys) = self.keyring.open(bytes)?;
        let Opened { envelope, header, packets } = opened;
        if packets.len() > PACKETS_MAX {
            return Err(RefusedDatagram::Malformed);
        }
        let (session, number, ack) = (envelope.session, envelope.number, header.ack);
        let length = bytes.len();
        taken.heard.push(delivery::Input::DatagramReceived { session, from, number, ack, length, keys });
        let mut received = Ok(());
        for packet in packets {
            let whole = match packet.into_fragment() {
                Ok(piece) => self.partial.accept(now, session, from, piece)?,
                Err(whole) => Some(whole),
            };
            if let Some(packet) = whole {
                match route(session, from, packet, ask, taken) {
                    // Each of the requests behind it is asked too, and answered Busy if there is no room.
                    Err(RefusedDatagram::QueueFull) => received = Err(RefusedDatagram::QueueFull),
                    routed => routed?,
                }
            }
        }
        received
    }
}

fn route(
    session: SessionId,
    from: SocketAddr,
    packet: ToServer,
    ask: &mut impl FnMut(SocketAddr, engine::Input) -> bool,
    taken: &mut Taken,
) -> Result<(), RefusedDatagram> {
    let packet = match packet {
        ToServer::Ping | ToServer::Extension(Extension { answers: None | Some(Answers::Session), .. }) => {
            return Ok(());
        }
        ToServer::PathResponse(token) => {
            taken.heard.push(delivery::Input::PathResponse { session, from, token });
            return Ok(());
        }
        ToServer::ClientAck(ack) => {
            taken.heard.push(delivery::Input::ClientAck(session, ack));
            return Ok(());
        }
        // CONNECT and ADMIN travel in an INITIATION alone; PADDING is dropped when its datagram is opened.
        ToServer::Connect(_) | ToServer::Admin(_) | ToServer::Padding => {
            return Err(RefusedDatagram::Malformed);
        }
        packet => packet,
    };
    let seq = packet.seq();
    if ask(from, engine::Input::Client { session, packet }) {
        return Ok(());
    }
    if let Some(seq) = seq {
        let busy = Refused::new(Code::Busy, Answers::Request(seq), RETRY_MS);
        taken.heard.push(delivery::Input::Answer { session, packet: ToClient::Error(busy) });
    }
    Err(RefusedDatagram::QueueFull)
}

/// Packets being reassembled, by session.
#[derive(Debug, Default)]
struct Partial {
    sessions: BTreeMap<SessionId, Reassembler>,
    shares: Shares<Network, SessionId>,
}

impl Partial {
    fn accept(
        &mut self,
        now: Moment,
        session: SessionId,
        from: SocketAddr,
        piece: Fragment,
    ) -> Result<Option<ToServer>, RefusedDatagram> {
        let network = Network::of(from.ip());
        if !self.sessions.contains_key(&session) && self.sessions.len() >= REASSEMBLERS_MAX {
            // Incomplete packets count as idle, so there is always one that gives way.
            let least = self.shares.gives_way(&network, now).ok_or(RefusedDatagram::QueueFull)?;
            self.free(least);
        }
        self.shares.put(session, network, false, now);
        let reassembler = self.sessions.entry(session).or_default();
        let whole = reassembler.accept(now, piece).map_err(DecodeError::refused);
        if reassembler.waiting() == 0 {
            self.free(session);
        }
        whole
    }

    fn free(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.shares.remove(&session);
    }
}

#[cfg(test)]
mod tests;
