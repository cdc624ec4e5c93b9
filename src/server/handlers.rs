//! Handlers: a fixed pool of threads that open clients' datagrams ([`handshake`](super::handshake)),
//! reassemble fragments, and pass each packet to the thread that handles it. They decide nothing else, and
//! know nothing of a session but its keys. They send RETRY and VERSION themselves, so that a flood of HELLOs
//! fills no queue that others need.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use recado_sys::sync::channel::{Receiver, TryRecvError};
use recado_sys::sync::signal::{Sender, Signal};
use recado_sys::sync::{BoundSocket, Mutex};

use recado_proto::envelope::{Class, Envelope, Opened};
use recado_proto::fragment::Reassembler;
use recado_proto::id::{Moment, SessionId};
use recado_proto::packet::{
    Answers, Code, Extension, Fragment, Packet, Refused, RefusedDatagram, ToClient, ToServer,
};
use recado_proto::{DecodeError, version};
use recado_sys::clock::MachineClock;

use super::counters::Counters;
use super::engine;
use super::handshake::{HandshakeEvent, HandshakeServer, Keyring};
use super::listener::Received;
use super::node::RETRY_MS;
use super::request_channel::RequestSender;
use crate::delivery;
use crate::fair::{Network, Shares};

/// Names of a server's handlers. Opening a datagram costs microseconds; two handlers keep up with the one
/// replica thread behind them.
pub(super) const HANDLERS: [&str; 2] = ["handler-1", "handler-2"];

/// Maximum wait for a datagram; nothing depends on it.
const IDLE: Duration = Duration::from_secs(60);

/// Maximum number of sessions of one handler with fragments in progress. A further one displaces, in the
/// network that has the most, the session that has waited longest for its next fragment. A session holds at
/// most `fragment::PARTIAL_MAX` packets of 64 KiB each.
const REASSEMBLERS_MAX: usize = 64;

/// Maximum number of packets in one datagram of a client. Clients put at most 16 requests and a few other
/// packets into one; a datagram full of the shortest packets would fill the replica thread's queue by itself.
const PACKETS_MAX: usize = 32;

/// Index of a session's handler. It is always the same one, so that the session's datagrams keep their order.
pub(super) fn lane_of(session: SessionId) -> usize {
    (session.0.0 % HANDLERS.len() as u64) as usize
}

pub(super) struct Handler {
    /// Set by the listener.
    pub(super) signal: Signal,
    pub(super) datagrams: Receiver<Received>,
    pub(super) responder: HandshakeServer,
    /// Keys of this handler's sessions. The replica thread adds new sessions and removes those that have
    /// ended.
    pub(super) keyring: Arc<Mutex<Keyring>>,
    pub(super) socket: Arc<BoundSocket>,
    /// To the pending worker. A full channel drops the datagram and counts it.
    pub(super) to_delivery: Sender<delivery::Input>,
    /// To the replica thread. If the network gets no place, the packet is dropped and counted, and a
    /// numbered request is answered Busy.
    pub(super) requests: RequestSender,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: MachineClock,
}

impl Handler {
    /// Runs until the listener has ended.
    pub(super) fn run(mut self) {
        let mut partial = Partial::default();
        loop {
            let datagram = match self.datagrams.try_recv() {
                Ok(datagram) => datagram,
                Err(TryRecvError::Empty) => {
                    self.signal.wait(IDLE, || false);
                    continue;
                }
                Err(TryRecvError::Disconnected) => return,
            };
            let from = datagram.from;
            if let Err(reason) = self.take(&mut partial, datagram) {
                tracing::debug!(%from, ?reason, "datagram refused");
                self.counters.refuse(reason);
            }
        }
    }

    fn take(&mut self, partial: &mut Partial, datagram: Received) -> Result<(), RefusedDatagram> {
        let Received { from, bytes } = datagram;
        let envelope = Envelope::peek(&bytes).map_err(|error| {
            if let DecodeError::Version(_) = error {
                self.name_version(from, &bytes);
            }
            error.refused()
        })?;
        match envelope.class {
            Class::Handshake => self.on_handshake(from, &bytes),
            Class::Client => self.on_session(partial, from, &bytes),
            Class::Peer | Class::PeerHello => Err(RefusedDatagram::Malformed),
        }
    }

    /// Answers a handshake of another version, which is counted as refused.
    fn name_version(&self, from: SocketAddr, bytes: &[u8]) {
        if let Some(answer) = version::answer(bytes) {
            let report = self.socket.send(&[(from, answer)]);
            self.counters.unsent(report.failed);
        }
    }

    fn on_handshake(&mut self, from: SocketAddr, bytes: &[u8]) -> Result<(), RefusedDatagram> {
        match self.responder.receive(self.clock.now(), from, bytes)? {
            HandshakeEvent::Retry(answer) => {
                // A RETRY that the system does not take counts as lost: the client repeats its HELLO.
                let report = self.socket.send(&[(from, answer)]);
                self.counters.unsent(report.failed);
                Ok(())
            }
            HandshakeEvent::Initiation { reply_to, key, packet } => {
                let initiation = engine::Input::Initiation { reply_to, key, packet };
                let taken = self.requests.try_send(Network::of(from.ip()), initiation);
                if taken { Ok(()) } else { Err(RefusedDatagram::QueueFull) }
            }
        }
    }

    fn on_session(
        &mut self,
        partial: &mut Partial,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), RefusedDatagram> {
        let (opened, key) = self.keyring.lock().open(bytes)?;
        let Opened { envelope, header, packets } = opened;
        if packets.len() > PACKETS_MAX {
            return Err(RefusedDatagram::Malformed);
        }
        let (session, number, ack) = (envelope.session, envelope.number, header.ack);
        // The datagram is reported before its packets, so that an answer finds the session's address.
        self.deliver(delivery::Input::DatagramReceived {
            session,
            from,
            number,
            ack,
            length: bytes.len(),
            key,
        })?;
        for packet in packets {
            let whole = match packet.into_fragment() {
                Ok(piece) => partial.accept(self.clock.now(), session, from, piece)?,
                Err(whole) => Some(whole),
            };
            if let Some(packet) = whole {
                self.route(session, from, packet)?;
            }
        }
        Ok(())
    }

    fn route(&self, session: SessionId, from: SocketAddr, packet: ToServer) -> Result<(), RefusedDatagram> {
        let packet = match packet {
            ToServer::Ping
            | ToServer::Extension(Extension { answers: None | Some(Answers::Session), .. }) => {
                return Ok(());
            }
            ToServer::PathResponse(token) => {
                return self.deliver(delivery::Input::PathResponse { session, from, token });
            }
            ToServer::ClientAck(ack) => return self.deliver(delivery::Input::ClientAck(session, ack)),
            // CONNECT and ADMIN travel in an INITIATION alone; PADDING is dropped when its datagram is
            // opened.
            ToServer::Connect(_) | ToServer::Admin(_) | ToServer::Padding => {
                return Err(RefusedDatagram::Malformed);
            }
            packet => packet,
        };
        let seq = packet.seq();
        if self.requests.try_send(Network::of(from.ip()), engine::Input::Client { session, packet }) {
            return Ok(());
        }
        if let Some(seq) = seq {
            let busy = Refused::new(Code::Busy, Answers::Request(seq), RETRY_MS);
            self.deliver(delivery::Input::Answer { session, packet: ToClient::Error(busy) })?;
        }
        Err(RefusedDatagram::QueueFull)
    }

    fn deliver(&self, input: delivery::Input) -> Result<(), RefusedDatagram> {
        self.to_delivery.try_send(input).map_err(|_| RefusedDatagram::QueueFull)
    }
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
