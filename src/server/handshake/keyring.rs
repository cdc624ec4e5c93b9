//! Keys of the sessions that are in the log, with a replay window for each.

use std::collections::BTreeMap;

use recado_proto::envelope::{self, Envelope, Opened};
use recado_proto::id::{BootId, DeviceKey, NodeId, SessionId};
use recado_proto::link::received::Received;
use recado_proto::packet::{RefusedDatagram, ToServer};
use recado_proto::seal::{Aead, ClusterKeys, Direction, PacketKeys};
use recado_proto::{Class, DecodeError};

use super::HandshakeConfig;

/// Keys of the sessions in this server's log, live or pending; as many as the service holds. The keys of a
/// session are derived when its first datagram arrives.
#[derive(Debug)]
pub struct Keyring {
    me: NodeId,
    boot_id: BootId,
    keys: ClusterKeys,
    sessions: BTreeMap<SessionId, SessionKeys>,
}

#[derive(Debug)]
struct SessionKeys {
    device: DeviceKey,
    nonce: u64,
    aead: Aead,
    active: Option<Box<ActiveKeys>>,
}

/// Keys and replay window of a session that has sent a datagram.
#[derive(Debug)]
struct ActiveKeys {
    receive: PacketKeys,
    send: PacketKeys,
    /// The replay window of `receive`.
    received: Received,
}

impl Keyring {
    /// Creates an empty keyring.
    pub fn new(handshake_config: &HandshakeConfig) -> Keyring {
        let HandshakeConfig { me, boot_id, keys, .. } = handshake_config.clone();
        Keyring { me, boot_id, keys, sessions: BTreeMap::new() }
    }

    /// Adds a session that is in the log.
    pub fn learn(&mut self, session: SessionId, device: DeviceKey, nonce: u64, aead: Aead) {
        let known = SessionKeys { device, nonce, aead, active: None };
        match self.sessions.get(&session) {
            // The session is known already; its replay window must not be reset.
            Some(before) if (before.device, before.nonce, before.aead) == (device, nonce, aead) => {}
            _ => drop(self.sessions.insert(session, known)),
        }
    }

    /// Removes a session that has ended.
    pub fn forget(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// Opens a datagram of a session. Returns its content and the keys that seal datagrams to the client.
    ///
    /// # Errors
    /// The reason why it was refused; nothing changed, but that the session's keys may have been derived.
    pub fn open(&mut self, datagram: &[u8]) -> Result<(Opened<ToServer>, PacketKeys), RefusedDatagram> {
        let envelope = Envelope::peek(datagram).map_err(DecodeError::refused)?;
        if envelope.class != Class::Client {
            return Err(RefusedDatagram::Malformed);
        }
        let known = self.sessions.get_mut(&envelope.session).ok_or(RefusedDatagram::Session)?;
        let heard = known.active.get_or_insert_with(|| {
            let secret = self.keys.session_secret(envelope.session, known.device, known.nonce, known.aead);
            Box::new(ActiveKeys {
                receive: secret.of_session(Direction::ToServer, self.me, self.boot_id),
                send: secret.of_session(Direction::ToClient, self.me, self.boot_id),
                received: Received::default(),
            })
        });
        let opened = envelope::open(&mut heard.receive, datagram).map_err(DecodeError::refused)?;
        if !heard.received.accept(envelope.number) {
            return Err(RefusedDatagram::Repeated);
        }
        Ok((opened, heard.send.clone()))
    }
}
