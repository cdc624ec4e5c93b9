//! Responder side of the client handshake, and the keys of sessions.
//!
//! A client first sends HELLO and gets a RETRY with a cookie; the server stores nothing for it. The cookie,
//! sent back in an INITIATION, proves that the client receives at its address. Only then is the handshake
//! computed, and only within a budget. The thread that has the answer to an INITIATION sends it later, once
//! ([`ReplyTo`]). Datagrams on a session are opened by the [`Keyring`].
//!
//! Invariants: nothing is stored for an address before its cookie is returned; no answer is longer than the
//! datagram it answers; a datagram that does not open gets no answer (DESIGN.md section 7).
//!
//! Pure: `intake.rs` drives it.

mod keyring;
#[cfg(test)]
pub(crate) mod tests;

use std::net::{IpAddr, SocketAddr};

use recado_proto::entropy::Entropy;
use recado_proto::envelope::Class;
use recado_proto::handshake::{self, COOKIE_LEN, Cookie, Handshake, Retry};
use recado_proto::id::{BootId, ClusterId, DeviceKey, Incarnation, Moment, NodeId, SessionId};
use recado_proto::noise::{self, Prologue};
use recado_proto::packet::{RefusedDatagram, ToServer};
use recado_proto::seal::{ClusterKeys, Key, mac};
use recado_proto::{DecodeError, Envelope};

use crate::config::Limits;
use crate::delivery::ReplyTo;
use crate::fair::Network;
use crate::server::budget::{Budget, Budgets};

pub use keyring::Keyring;

/// Time during which a cookie is given out, in microseconds; it is valid for as long again. A handshake
/// takes one round trip.
const COOKIE_EPOCH_MICROS: u64 = 10_000_000;

/// Maximum number of networks whose handshakes are counted at a time.
const NETWORKS_MAX: usize = 4_096;

/// Identity, keys and limits with which a server answers handshakes.
#[derive(Clone, Debug)]
pub struct HandshakeConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// This server.
    pub me: NodeId,
    /// Its incarnation, for outer headers.
    pub incarnation: Incarnation,
    /// Its boot id.
    pub boot_id: BootId,
    /// Keys derived from the cluster's secret.
    pub keys: ClusterKeys,
    /// Limits, which bound the handshakes that it computes.
    pub limits: Limits,
}

/// Outcome of a handshake datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it lives for one call")]
pub enum HandshakeEvent {
    /// Send this RETRY back at once.
    Retry(Vec<u8>),
    /// A valid initiation, which is to be answered.
    Initiation {
        /// Address and keys for the answer.
        reply_to: ReplyTo,
        /// The device key that the client has proved to hold, unless this is a replay.
        key: DeviceKey,
        /// The packet that the initiation carries.
        packet: ToServer,
    },
}

/// Handshake responder of one handler.
#[derive(Debug)]
pub struct HandshakeServer {
    config: HandshakeConfig,
    private: Key,
    public: [u8; 32],
    /// The key that cookies are computed with.
    cookies: Key,
    entropy: Entropy,
    budget: Budget,
    budgets: Budgets<Network>,
}

impl HandshakeServer {
    /// Creates a responder with secrets of its own, drawn from `seed`.
    pub fn new(handshake_config: HandshakeConfig, seed: [u8; 32]) -> HandshakeServer {
        let mut entropy = Entropy::new(seed);
        let private = handshake_config.keys.cluster_private();
        HandshakeServer {
            public: noise::public(&private),
            private,
            cookies: Key::new(entropy.bytes()),
            entropy,
            budget: Budget::new(handshake_config.limits.handshakes),
            budgets: Budgets::new(handshake_config.limits.network_handshakes, NETWORKS_MAX),
            config: handshake_config,
        }
    }

    /// Handles a datagram of the class Handshake.
    ///
    /// # Errors
    /// The reason why it gets no answer; nothing changed except the budgets.
    pub fn receive(
        &mut self,
        now: Moment,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<HandshakeEvent, RefusedDatagram> {
        let (envelope, handshake) = Handshake::read(datagram).map_err(DecodeError::refused)?;
        let ours = envelope.cluster == self.config.cluster;
        match handshake {
            Handshake::Hello(echo) if ours || envelope.cluster == ClusterId(0) => {
                Ok(HandshakeEvent::Retry(self.retry(now, from, echo)))
            }
            Handshake::Initiation { cookie, message } if ours => {
                self.on_initiation(now, from, cookie, message)
            }
            Handshake::Hello(_) | Handshake::Initiation { .. } => Err(RefusedDatagram::Cluster),
            Handshake::Retry(_) | Handshake::Answer(_) => Err(RefusedDatagram::Malformed),
        }
    }

    fn retry(&self, now: Moment, from: SocketAddr, echo: u64) -> Vec<u8> {
        let envelope = Envelope {
            class: Class::Handshake,
            cluster: self.config.cluster,
            session: SessionId::default(),
            node: Some(self.config.me),
            incarnation: self.config.incarnation,
            number: 0,
        };
        let cookie = self.cookie(from, epoch(now));
        let retry = Retry { echo, cookie, boot_id: self.config.boot_id, cluster_key: self.public };
        handshake::retry(&envelope, &retry)
    }

    fn on_initiation(
        &mut self,
        now: Moment,
        from: SocketAddr,
        cookie: Cookie,
        message: &[u8],
    ) -> Result<HandshakeEvent, RefusedDatagram> {
        let epoch = epoch(now);
        if ![epoch, epoch.saturating_sub(1)].iter().any(|epoch| self.cookie(from, *epoch) == cookie) {
            return Err(RefusedDatagram::Cookie);
        }
        // The network's budget comes first, so that a network beyond it takes nothing from the budget of all.
        self.budgets.take(now, &Network::of(from.ip()), 1).map_err(|_| RefusedDatagram::Budget)?;
        self.budget.take(now, 1).map_err(|_| RefusedDatagram::Budget)?;
        let prologue =
            Prologue { cluster: self.config.cluster, server: self.config.me, boot_id: self.config.boot_id };
        let (key, load, reply) = noise::answer(prologue, &self.private, message, &mut self.entropy)
            .map_err(DecodeError::refused)?;
        let mut packets = handshake::unload(&load).map_err(DecodeError::refused)?.into_iter();
        // Exactly one packet, because there is one answer.
        match (packets.next(), packets.next()) {
            (Some(packet), None) => {
                Ok(HandshakeEvent::Initiation { reply_to: ReplyTo { to: from, reply }, key, packet })
            }
            _ => Err(RefusedDatagram::Malformed),
        }
    }

    /// The cookie of an address in an epoch, which only this responder can compute. The comparison is not
    /// constant-time: to profit from its timing, an attacker would have to receive at the address, where
    /// the cookie is sent anyway.
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
