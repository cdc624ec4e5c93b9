//! The handlers: a fixed pool that opens datagrams of clients, puts fragments together, and passes
//! each packet to the thread it is for. They decide nothing and know no session's state.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender};

use super::clock::MachineClock;
use super::counters::Counters;
use super::listener::Received;
use crate::delivery;
use crate::id::{Moment, Op, Seq, SessionId};
use crate::wire::DecodeError;
use crate::wire::envelope::{self, Class, Opened};
use crate::wire::fragment::Reassembler;
use crate::wire::packet::{Answers, Code, Packet, Refused, RefusedDatagram};

/// The handlers of a server, by name. Opening a datagram costs microseconds; two keep up with the
/// one replica thread behind them.
pub(super) const HANDLERS: [&str; 2] = ["handler-1", "handler-2"];

/// Sessions of one handler with fragments under way; one more, and the one that waited longest for
/// its next piece goes. A session holds at most `fragment::PARTIAL_MAX` packets of 64 KiB each.
const REASSEMBLERS_MAX: usize = 64;

/// When a client that met a full queue may ask again, in ms.
const BUSY_RETRY_MS: u32 = 50;

/// A packet for the replica thread.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) session: SessionId,
    pub(super) from: SocketAddr,
    pub(super) packet: Packet,
}

pub(super) struct Handler {
    pub(super) datagrams: Receiver<Received>,
    /// To the pending worker; a full one drops the datagram and counts it.
    pub(super) heard: Sender<delivery::Input>,
    /// To the replica thread; a full one drops the packet, counts it, and answers Busy to a
    /// numbered request.
    pub(super) requests: Sender<Request>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: MachineClock,
}

impl Handler {
    /// Until the listener ends.
    pub(super) fn run(self) {
        let mut partial = Partial::default();
        for datagram in &self.datagrams {
            let from = datagram.from;
            if let Err(reason) = self.take(&mut partial, datagram) {
                tracing::debug!(%from, ?reason, "datagram refused");
                self.counters.refuse(reason);
            }
        }
    }

    fn take(&self, partial: &mut Partial, datagram: Received) -> Result<(), RefusedDatagram> {
        let Received { from, bytes } = datagram;
        let Opened { envelope, header, packets } = envelope::open(&bytes).map_err(DecodeError::refused)?;
        let session = match envelope.class {
            Class::Client if envelope.session.0 != Op::ZERO => envelope.session,
            Class::Handshake => SessionId(Op::ZERO),
            Class::Client => return Err(RefusedDatagram::Session),
            Class::Peer => return Err(RefusedDatagram::Malformed),
        };
        if envelope.class == Class::Client {
            // Before what it carries, so that an answer finds the session's address.
            self.tell(delivery::Input::Heard { session, from, number: envelope.number, ack: header.ack })?;
        }
        for packet in packets {
            let whole = match packet {
                Packet::Fragment(piece) if envelope.class == Class::Client => {
                    partial.accept(self.clock.now(), session, piece)?
                }
                other => Some(other),
            };
            if let Some(packet) = whole {
                self.route(session, from, packet)?;
            }
        }
        Ok(())
    }

    fn route(&self, session: SessionId, from: SocketAddr, packet: Packet) -> Result<(), RefusedDatagram> {
        match audience(&packet) {
            Audience::Anyone => {}
            Audience::Session if session.0 != Op::ZERO => {}
            Audience::Session => return Err(RefusedDatagram::Session),
            Audience::NoClient => return Err(RefusedDatagram::Malformed),
        }
        if let Packet::ClientAck(ack) = packet {
            return self.tell(delivery::Input::ClientAck(session, ack));
        }
        let numbered = number(&packet);
        if self.requests.try_send(Request { session, from, packet }).is_ok() {
            return Ok(());
        }
        if let Some(seq) = numbered {
            let busy = Refused { code: Code::Busy, answers: Answers::Request(seq), retry_ms: BUSY_RETRY_MS };
            self.tell(delivery::Input::Answer { session, packet: Packet::Error(busy) })?;
        }
        Err(RefusedDatagram::QueueFull)
    }

    fn tell(&self, input: delivery::Input) -> Result<(), RefusedDatagram> {
        self.heard.try_send(input).map_err(|_| RefusedDatagram::QueueFull)
    }
}

/// Who may send a packet to a server's client port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    /// Any client.
    Anyone,
    /// A client on its session.
    Session,
    /// No client: servers send it.
    NoClient,
}

fn audience(packet: &Packet) -> Audience {
    match packet {
        Packet::Connect(_) | Packet::Status(_) => Audience::Anyone,
        Packet::Disconnect(_)
        | Packet::Follow(_)
        | Packet::Send(_)
        | Packet::Channel(_)
        | Packet::Keys(_)
        | Packet::RequestUserInfo(_)
        | Packet::ClientAck(_)
        | Packet::Resume(_)
        | Packet::History(_)
        | Packet::List(_)
        | Packet::Keepalive => Audience::Session,
        Packet::AcceptConn(_)
        | Packet::RejectConn(_)
        | Packet::Notification(_)
        | Packet::Error(_)
        | Packet::Info(_)
        | Packet::Heartbeat(_)
        | Packet::Election(_)
        | Packet::Reply(_)
        | Packet::Coordinator(_)
        | Packet::SendAck(_)
        | Packet::Entries(_)
        | Packet::EntriesAck(_)
        | Packet::Fetch(_)
        | Packet::SnapshotGet(_)
        | Packet::SnapshotChunk(_)
        | Packet::ResumeOk(_)
        | Packet::Transfer(_)
        | Packet::StatusOk(_)
        // Fragments on a session have been put together before; nobody else's are taken.
        | Packet::Fragment(_)
        | Packet::HistoryOk(_)
        | Packet::ListOk(_)
        | Packet::Gap(_)
        | Packet::Learn(_)
        | Packet::LearnOk(_)
        // Clients of the client port are no administrators.
        | Packet::Admin(_)
        | Packet::AdminOk(_) => Audience::NoClient,
    }
}

/// The number of a numbered request.
fn number(packet: &Packet) -> Option<Seq> {
    if let Packet::Follow(follow) = packet {
        Some(follow.seq)
    } else if let Packet::Send(send) = packet {
        Some(send.seq)
    } else if let Packet::Channel(channel) = packet {
        Some(channel.seq)
    } else if let Packet::Keys(keys) = packet {
        Some(keys.seq)
    } else {
        None
    }
}

/// Packets in pieces, by session.
#[derive(Debug, Default)]
struct Partial {
    sessions: BTreeMap<SessionId, (Moment, Reassembler)>,
}

impl Partial {
    fn accept(
        &mut self,
        now: Moment,
        session: SessionId,
        piece: crate::wire::packet::Fragment,
    ) -> Result<Option<Packet>, RefusedDatagram> {
        if !self.sessions.contains_key(&session) && self.sessions.len() >= REASSEMBLERS_MAX {
            let oldest = self.sessions.iter().min_by_key(|(_, (last, _))| *last).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.sessions.remove(&oldest);
            }
        }
        let (last, reassembler) = self.sessions.entry(session).or_default();
        *last = now;
        reassembler.accept(now, piece).map_err(DecodeError::refused)
    }
}

#[cfg(test)]
mod tests;
