//! A shard: the sessions that one handler owns, in both directions: their keys and replay windows, what is
//! reassembled of their packets, and their [delivery](crate::delivery). No state of a session is anywhere
//! else but in the replica thread's node, which knows sessions from the log.
//!
//! What the replica thread tells a shard comes in one order, through one channel: the keys of a session
//! before anything that is sent to its client, and notifications among the pages and answers as the log has
//! them.
//!
//! Pure: [`Shard::receive`], [`Shard::tell`], [`Shard::flush`] once a turn, and [`Shard::next_deadline`]. The
//! handlers and the simulator drive it.

use std::net::SocketAddr;

use recado_proto::DecodeError;
use recado_proto::entropy::Entropy;
use recado_proto::envelope::{Class, Envelope};
use recado_proto::id::{ClusterId, DeviceKey, Moment, SessionId};
use recado_proto::packet::{RefusedDatagram, ToClient};
use recado_proto::seal::Aead;

use super::engine;
use super::handshake::{HandshakeConfig, HandshakeServer, Keyring};
use super::intake::{Intake, Taken};
use crate::config::Config;
use crate::delivery::{Delivery, Input};

pub use crate::delivery::Effect;

/// What the replica thread tells a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A session is in the log: its datagrams may be opened.
    Known {
        /// The session.
        session: SessionId,
        /// The key of its device.
        device: DeviceKey,
        /// The nonce of its CONNECT.
        nonce: u64,
        /// The AEAD of its datagrams.
        aead: Aead,
    },
    /// A session has ended.
    Gone(SessionId),
    /// An input of the delivery.
    Delivery(Input),
}

/// Index of the shard that owns a session, of `shards`; at least one. The id is the op that opened the
/// session, and clients that connect or send one after another take a few ops each, so its remainder would
/// be the same for most. It is multiplied first (Fibonacci hashing, Knuth, The Art of Computer Programming
/// 6.4).
pub fn shard_of(session: SessionId, shards: usize) -> usize {
    let mixed = session.0.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (mixed % shards.max(1) as u64) as usize
}

/// Selects the shard that takes a client's datagram, of `shards`: by its session, or by its sender's port if
/// it has none. It decrypts nothing.
///
/// # Errors
/// The reason why the datagram is plainly invalid.
pub fn shard_for(
    from: SocketAddr,
    bytes: &[u8],
    cluster: ClusterId,
    shards: usize,
) -> Result<usize, RefusedDatagram> {
    let by_port = usize::from(from.port()) % shards.max(1);
    let envelope = match Envelope::peek(bytes) {
        // The shard answers it.
        Err(DecodeError::Version(_)) => return Ok(by_port),
        peeked => peeked.map_err(DecodeError::refused)?,
    };
    match envelope.class {
        Class::Handshake if envelope.cluster == cluster || envelope.cluster.0 == 0 => Ok(by_port),
        Class::Client if envelope.cluster == cluster => Ok(shard_of(envelope.session, shards)),
        Class::Handshake | Class::Client => Err(RefusedDatagram::Cluster),
        // Servers send to the peer port.
        Class::Peer | Class::PeerHello => Err(RefusedDatagram::Malformed),
    }
}

/// Passes what the replica thread tells to the shards that it concerns, of `shards`.
pub fn distribute(told: Told, shards: usize, mut to: impl FnMut(usize, Told)) {
    let input = match told {
        Told::Known { session, .. } | Told::Gone(session) => return to(shard_of(session, shards), told),
        Told::Delivery(input) => input,
    };
    let mut to = |shard, input| to(shard, Told::Delivery(input));
    match input {
        Input::Applied { notification, sessions } if shards == 1 => {
            to(0, Input::Applied { notification, sessions });
        }
        Input::Applied { notification, sessions } => {
            for (shard, sessions) in by_shard(&sessions, shards) {
                to(shard, Input::Applied { notification: notification.clone(), sessions: sessions.into() });
            }
        }
        Input::Withdrawn(sessions) => {
            by_shard(&sessions, shards).for_each(|(shard, sessions)| to(shard, Input::Withdrawn(sessions)));
        }
        Input::Retracted { op, sessions } => {
            for (shard, sessions) in by_shard(&sessions, shards) {
                to(shard, Input::Retracted { op, sessions });
            }
        }
        Input::DatagramReceived { session, .. }
        | Input::ClientAck(session, _)
        | Input::PathResponse { session, .. }
        | Input::Serve { session, .. }
        | Input::SessionEnded { session, .. }
        | Input::Answer { session, .. }
        | Input::Page { session, .. }
        | Input::PageLater { session, .. } => to(shard_of(session, shards), input),
        // The shard of a new session remembers the address to which its ACCEPT_CONN goes. All other answers
        // to INITIATIONs are of no session, and go by the first shard.
        Input::AnswerTo { ref packets, .. } => {
            let accepted = packets.iter().find_map(|packet| match packet {
                ToClient::AcceptConn(accept) => Some(accept.session),
                _ => None,
            });
            to(accepted.map_or(0, |session| shard_of(session, shards)), input);
        }
        Input::Announce(_) | Input::AppliedDropped | Input::Silence | Input::Deadline => {
            (0..shards).for_each(|shard| to(shard, input.clone()));
        }
    }
}

/// The shards that own some of these sessions, each with its own in their order.
fn by_shard(sessions: &[SessionId], shards: usize) -> impl Iterator<Item = (usize, Vec<SessionId>)> {
    let mut of_shard: Vec<Vec<SessionId>> = vec![Vec::new(); shards];
    sessions.iter().for_each(|session| of_shard[shard_of(*session, shards)].push(*session));
    of_shard.into_iter().enumerate().filter(|(_, sessions)| !sessions.is_empty())
}

/// The sessions of one handler.
#[derive(Debug)]
pub struct Shard {
    intake: Intake,
    delivery: Delivery,
    /// Empty between two datagrams.
    taken: Taken,
}

impl Shard {
    /// Creates one of `shards` shards, without sessions, with secrets of its own that are drawn from `seed`.
    /// It serves its share of the sessions that the server may serve.
    pub fn new(config: &Config, handshakes: &HandshakeConfig, shards: usize, seed: [u8; 32]) -> Shard {
        let mut entropy = Entropy::new(seed);
        let responder = HandshakeServer::new(handshakes.clone(), entropy.bytes());
        let mut config = config.clone();
        config.limits.sessions_served = config.limits.sessions_served.div_ceil(shards);
        let delivery = Delivery::new(&config, handshakes.incarnation, entropy.bytes());
        Shard { intake: Intake::new(responder, Keyring::new(handshakes)), delivery, taken: Taken::default() }
    }

    /// Takes a datagram of a client. `ask` passes a request, with the address that it came from, to the
    /// replica thread, and returns false if it has no room: then a numbered request is answered Busy.
    ///
    /// # Errors
    /// The reason why the datagram, or the rest of it, was refused.
    pub fn receive(
        &mut self,
        now: Moment,
        from: SocketAddr,
        bytes: &[u8],
        ask: &mut impl FnMut(SocketAddr, engine::Input) -> bool,
        out: &mut Vec<Effect>,
    ) -> Result<(), RefusedDatagram> {
        let received = self.intake.receive(now, from, bytes, ask, &mut self.taken);
        for input in self.taken.heard.drain(..) {
            self.delivery.handle(now, input, out);
        }
        out.extend(self.taken.replies.drain(..).map(|(to, bytes)| Effect::Datagram { to, bytes }));
        received
    }

    /// Takes what the replica thread tells.
    pub fn tell(&mut self, now: Moment, told: Told, out: &mut Vec<Effect>) {
        match told {
            Told::Known { session, device, nonce, aead } => {
                self.intake.keyring.learn(session, device, nonce, aead);
            }
            Told::Gone(session) => self.intake.keyring.forget(session),
            Told::Delivery(input) => self.delivery.handle(now, input, out),
        }
    }

    /// Ends a turn: runs the deadlines that have come, and sends what the inputs of the turn leave to send.
    pub fn flush(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if self.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.delivery.handle(now, Input::Deadline, out);
        }
        self.delivery.flush(now, out);
    }

    /// Takes back the buffer of an [`Effect::Datagram`] that was sent, for another: with all of them handed
    /// back, datagrams cost no allocation.
    pub fn hand_back(&mut self, bytes: Vec<u8>) {
        self.delivery.hand_back(bytes);
    }

    /// The time at which [`Shard::flush`] is wanted at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.delivery.next_deadline()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use recado_proto::id::{Op, Seq, Topic};
    use recado_proto::packet::{Content, Notification, OptionalFields, SendAck};
    use recado_service::Stored;

    use super::*;

    fn sessions(ids: &[u64]) -> Vec<SessionId> {
        ids.iter().map(|id| SessionId(Op(*id))).collect()
    }

    /// What each of three shards is told.
    fn told(input: Input) -> BTreeMap<usize, Input> {
        let mut told = BTreeMap::new();
        distribute(Told::Delivery(input), 3, |shard, input| {
            let Told::Delivery(input) = input else { panic!("{input:?}") };
            assert!(told.insert(shard, input).is_none(), "told twice");
        });
        told
    }

    #[test]
    fn what_concerns_one_session_goes_to_its_shard() {
        for id in 0..9 {
            let session = SessionId(Op(id));
            let packet = ToClient::SendAck(SendAck { seq: Seq(1), op: Op(1), data: OptionalFields::NONE });
            let input = Input::Answer { session, packet };
            assert_eq!(told(input.clone()), BTreeMap::from([(shard_of(session, 3), input)]));
        }
    }

    #[test]
    fn a_notification_goes_to_the_shards_of_its_sessions_each_with_its_own() {
        let notification = Stored::new(&Notification {
            op: Op(9),
            topic: Topic::Feed("alice".parse().unwrap()),
            author: "alice".parse().unwrap(),
            unix_ms: 0,
            content: Content::of("hi"),
            options: OptionalFields::NONE,
        });
        let applied = |ids: &[u64]| Input::Applied {
            notification: notification.clone(),
            sessions: sessions(ids).into(),
        };
        let own = |shard| {
            let own: Vec<u64> = (1..=20).filter(|id| shard_of(SessionId(Op(*id)), 3) == shard).collect();
            (shard, applied(&own))
        };
        let all: Vec<u64> = (1..=20).collect();
        assert_eq!(told(applied(&all)), BTreeMap::from([own(0), own(1), own(2)]));
        assert_eq!(told(applied(&[])), BTreeMap::new());
        let shard = shard_of(SessionId(Op(4)), 3);
        let expected = BTreeMap::from([(shard, Input::Withdrawn(sessions(&[4])))]);
        assert_eq!(told(Input::Withdrawn(sessions(&[4]))), expected);
        let retracted = || Input::Retracted { op: Op(1), sessions: sessions(&[4]) };
        assert_eq!(told(retracted()), BTreeMap::from([(shard, retracted())]));
    }

    #[test]
    fn sessions_are_spread_whatever_number_of_ops_lies_between_them() {
        for shards in 2..=8 {
            for step in 1..=8 {
                let mut counts = vec![0; shards];
                (0..1_000).for_each(|n| counts[shard_of(SessionId(Op(100 + n * step)), shards)] += 1);
                let even = 1_000 / shards;
                let spread = counts.iter().all(|count| (even / 2..even * 2).contains(count));
                assert!(spread, "{step} ops apart: {counts:?}");
            }
        }
    }

    #[test]
    fn what_concerns_all_sessions_goes_to_every_shard() {
        assert_eq!(told(Input::Silence).len(), 3);
        assert_eq!(told(Input::AppliedDropped).len(), 3);
    }
}
