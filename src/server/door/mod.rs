//! The door: who of those without a session is listened to, and the keys of those with one.
//!
//! Whoever comes first says HELLO and is sent a RETRY, for which nothing is remembered. Its cookie,
//! sent back in a KNOCK, shows that the sender receives at its address; only then is the handshake
//! computed, and only within a budget. A KNOCK is answered by whoever knows the answer, later, once
//! ([`Caller`]). What comes on a session is opened by the [`Keyring`].
//!
//! Invariants: nothing is stored for an address before its cookie has come back; no answer is longer
//! than its question; what does not open is met with silence (DESIGN.md section 7).
//!
//! Pure: the handlers and the simulator drive it.

mod keyring;
#[cfg(test)]
pub(crate) mod tests;

use std::net::{IpAddr, SocketAddr};

use crate::config::Limits;
use crate::delivery::Caller;
use crate::entropy::Entropy;
use crate::fair::Network;
use crate::id::{BootId, ClusterId, DeviceKey, Incarnation, Moment, NodeId, SessionId};
use crate::wire::envelope::Class;
use crate::wire::handshake::{self, COOKIE_LEN, Cookie, Handshake, Retry};
use crate::wire::noise::{self, Prologue};
use crate::wire::packet::{Packet, RefusedDatagram};
use crate::wire::seal::{ClusterKeys, Key, mac};
use crate::wire::{DecodeError, Envelope};

use super::budget::{Budget, Budgets};

pub use keyring::Keyring;

/// How long a cookie is given out; it is good for as long again. A handshake takes a round trip.
const COOKIE_EPOCH_MICROS: u64 = 10_000_000;

/// Networks whose handshakes are counted at a time.
const NETWORKS_MAX: usize = 4_096;

/// Who it is that opens the door.
#[derive(Clone, Debug)]
pub struct Doorkeeper {
    /// The cluster.
    pub cluster: ClusterId,
    /// This server.
    pub me: NodeId,
    /// Its incarnation, for headers.
    pub incarnation: Incarnation,
    /// Its life.
    pub life: BootId,
    /// What comes from the cluster's secret.
    pub keys: ClusterKeys,
    /// How many handshakes it computes.
    pub limits: Limits,
}

/// What is to be done about a datagram of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it lives for one call")]
pub enum Visit {
    /// Send this back at once.
    Retry(Vec<u8>),
    /// Somebody knocked and is to be answered.
    Knock {
        /// How.
        caller: Caller,
        /// The key it has proved to hold, as far as nobody replays its words.
        key: DeviceKey,
        /// What it asks.
        packet: Packet,
    },
}

/// The door of one handler.
#[derive(Debug)]
pub struct Door {
    keeper: Doorkeeper,
    private: Key,
    public: [u8; 32],
    /// What cookies are made with.
    cookies: Key,
    entropy: Entropy,
    budget: Budget,
    budgets: Budgets<Network>,
}

impl Door {
    /// A door with secrets of its own from `seed`.
    pub fn new(keeper: Doorkeeper, seed: [u8; 32]) -> Door {
        let mut entropy = Entropy::new(seed);
        let private = keeper.keys.cluster_private();
        Door {
            public: noise::public(&private),
            private,
            cookies: Key::new(entropy.bytes()),
            entropy,
            budget: Budget::new(keeper.limits.handshakes),
            budgets: Budgets::new(keeper.limits.network_handshakes, NETWORKS_MAX),
            keeper,
        }
    }

    /// Takes a datagram of the class Handshake.
    ///
    /// # Errors
    /// Why it is met with silence; nothing changed but what the budgets have left.
    pub fn visit(
        &mut self,
        now: Moment,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<Visit, RefusedDatagram> {
        let (envelope, handshake) = Handshake::read(datagram).map_err(DecodeError::refused)?;
        let ours = envelope.cluster == self.keeper.cluster;
        match handshake {
            Handshake::Hello(echo) if ours || envelope.cluster == ClusterId(0) => {
                Ok(Visit::Retry(self.retry(now, from, echo)))
            }
            Handshake::Knock { cookie, message } if ours => self.knock(now, from, cookie, message),
            Handshake::Hello(_) | Handshake::Knock { .. } => Err(RefusedDatagram::Cluster),
            Handshake::Retry(_) | Handshake::Answer(_) => Err(RefusedDatagram::Malformed),
        }
    }

    fn retry(&self, now: Moment, from: SocketAddr, echo: u64) -> Vec<u8> {
        let envelope = Envelope {
            class: Class::Handshake,
            cluster: self.keeper.cluster,
            session: SessionId::default(),
            node: Some(self.keeper.me),
            incarnation: self.keeper.incarnation,
            number: 0,
        };
        let cookie = self.cookie(from, epoch(now));
        let retry = Retry { echo, cookie, life: self.keeper.life, cluster_key: self.public };
        handshake::retry(&envelope, &retry)
    }

    fn knock(
        &mut self,
        now: Moment,
        from: SocketAddr,
        cookie: Cookie,
        message: &[u8],
    ) -> Result<Visit, RefusedDatagram> {
        let epoch = epoch(now);
        if ![epoch, epoch.saturating_sub(1)].iter().any(|epoch| self.cookie(from, *epoch) == cookie) {
            return Err(RefusedDatagram::Cookie);
        }
        // The network first, so that one that asks for too much leaves the others theirs.
        self.budgets.take(now, &Network::of(from.ip()), 1).map_err(|_| RefusedDatagram::Budget)?;
        self.budget.take(now, 1).map_err(|_| RefusedDatagram::Budget)?;
        let prologue =
            Prologue { cluster: self.keeper.cluster, server: self.keeper.me, life: self.keeper.life };
        let (key, load, reply) = noise::answer(prologue, &self.private, message, &mut self.entropy)
            .map_err(DecodeError::refused)?;
        let mut packets = handshake::unload(&load).map_err(DecodeError::refused)?.into_iter();
        // One question, for there is one answer.
        match (packets.next(), packets.next()) {
            (Some(packet), None) => Ok(Visit::Knock { caller: Caller { to: from, reply }, key, packet }),
            _ => Err(RefusedDatagram::Malformed),
        }
    }

    /// What only this door can have sent to this address. Compared in plain time: whoever could
    /// measure that had to receive at the address to gain anything from it.
    fn cookie(&self, from: SocketAddr, epoch: u64) -> Cookie {
        let ip = match from.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let parts = [&ip.octets()[..], &from.port().to_be_bytes(), &epoch.to_be_bytes()];
        let mut cookie = [0; COOKIE_LEN];
        cookie.copy_from_slice(&mac(self.cookies.as_bytes(), "cookie", &parts)[..COOKIE_LEN]);
        cookie
    }
}

fn epoch(now: Moment) -> u64 {
    now.0 / COOKIE_EPOCH_MICROS
}
