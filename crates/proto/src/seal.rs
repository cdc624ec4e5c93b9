//! The keys that datagrams are sealed with, and their derivation.
//!
//! ```text
//! cluster secret -+-> the cluster's own key pair, which clients pin         (handshake)
//!                 +-> administrator's key pair                              (handshake)
//!                 +-> session secret: session, device key, client    -> packet keys per direction and
//!                 |                   nonce, AEAD                         boot id of the server
//!                 +-> packet keys per pair of servers, direction, both boot ids and AEAD
//!                 '-> one key per server and boot id for its peer hellos
//! ```
//!
//! [`PacketKeys`] are a sequence of keys, each for some packet numbers. They seal with the [`Aead`] that both
//! ends have agreed on; a [`Key`] alone seals with ChaCha20-Poly1305. The packet number is the nonce. Keys
//! are derived by keyed BLAKE2s (RFC 7693) from their parent key, over a label and parts of fixed length.
//!
//! Invariant: no pair of key and number is used twice. A sender's numbers only grow during one run, and every
//! key is bound to the boot ids of the servers that use it ([`BootId`]), so neither a restart nor a restored
//! copy reuses a key. A client's keys are bound to its session, which is bound to the nonce of its CONNECT
//! (DESIGN.md section 7).

use std::fmt;

use blake2::Blake2sMac256;
use blake2::digest::Mac;

use super::codec::DecodeError;
use crate::id::{BootId, DeviceKey, NodeId, SessionId};

mod aead;
mod packet_keys;

use aead::Cipher;
pub use aead::{Aead, Ciphers};
pub use packet_keys::{PHASE_BITS, PacketKeys};

/// The bytes of the authentication tag that sealing appends.
pub const TAG_LEN: usize = 16;

/// A secret key. It is never shown, not even by `Debug`, and travels only inside sealed datagrams.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The direction of a session's datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to a server.
    ToServer,
    /// From a server to the client.
    ToClient,
}

impl Key {
    /// A key from these bytes, which must be secret and random.
    pub fn new(bytes: [u8; 32]) -> Key {
        Key(bytes)
    }

    /// The secret bytes. They may leave this machine only inside a sealed datagram.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives another key from this one, different for every label and parts. The parts have a fixed length
    /// under each label, so that their concatenation is unambiguous.
    fn derive(&self, label: &'static str, parts: &[&[u8]]) -> Key {
        Key(mac(&self.0, label, parts))
    }

    /// Seals `datagram` in place from `clear` on; the bytes before `clear` are authenticated. Appends the
    /// tag. The caller must not use a number twice with a key.
    pub fn seal(&self, number: u64, clear: usize, datagram: &mut Vec<u8>) {
        Cipher::seal(self.cipher(Aead::ChaCha20Poly1305).as_ref(), number, clear, datagram);
    }

    /// Opens a datagram sealed by [`Key::seal`] and returns the bytes after `clear`, without the tag.
    ///
    /// # Errors
    /// [`DecodeError::Seal`]: another key, another number, or changed on the way. [`DecodeError::Truncated`]:
    /// it is too short.
    pub fn open(&self, number: u64, clear: usize, datagram: &[u8]) -> Result<Vec<u8>, DecodeError> {
        Cipher::open(self.cipher(Aead::ChaCha20Poly1305).as_ref(), number, clear, datagram)
    }

    /// The cipher with this key. Never none, because the key has the right length.
    fn cipher(&self, aead: Aead) -> Option<Cipher> {
        Cipher::new(aead, &self.0)
    }
}

/// The secret of a session, from which the keys of its datagrams are derived. Every server with its log entry
/// can derive it, and the client receives it in ACCEPT_CONN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSecret {
    key: Key,
    aead: Aead,
    ciphers: Ciphers,
}

impl SessionSecret {
    /// The secret that came in an ACCEPT_CONN, with the AEAD chosen there.
    pub fn new(key: Key, aead: Aead, ciphers: Ciphers) -> SessionSecret {
        SessionSecret { key, aead, ciphers }
    }

    /// The secret as ACCEPT_CONN carries it.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Derives the keys of one direction between the session's client and one run of a server.
    pub fn of_session(&self, direction: Direction, server: NodeId, boot_id: BootId) -> PacketKeys {
        let label = match direction {
            Direction::ToServer => "session to server",
            Direction::ToClient => "session to client",
        };
        let secret = self.key.derive(label, &[&server.0.to_be_bytes(), &boot_id.0]);
        PacketKeys::new(secret, self.aead, self.ciphers)
    }
}

/// The keys derived from a cluster's secret, which every server has, and the ciphers of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterKeys {
    secret: Key,
    ciphers: Ciphers,
}

impl ClusterKeys {
    /// Derives from this cluster secret, for a server that has ChaCha20-Poly1305 alone.
    pub fn new(secret: &[u8; 32]) -> ClusterKeys {
        ClusterKeys { secret: Key(*secret), ciphers: Ciphers::default() }
    }

    /// The same keys for a server with these ciphers.
    pub fn with(self, ciphers: Ciphers) -> ClusterKeys {
        ClusterKeys { ciphers, ..self }
    }

    /// The ciphers of this server.
    pub fn ciphers(&self) -> Ciphers {
        self.ciphers
    }

    /// The private key of the cluster, whose public key clients pin.
    pub fn cluster_private(&self) -> Key {
        self.secret.derive("cluster key", &[])
    }

    /// The private key of the administrators, who hold the cluster secret.
    pub fn admin_private(&self) -> Key {
        self.secret.derive("administrator key", &[])
    }

    /// The secret of a session whose datagrams `aead` seals.
    pub fn session_secret(
        &self,
        session: SessionId,
        key: DeviceKey,
        nonce: u64,
        aead: Aead,
    ) -> SessionSecret {
        let parts = [&session.0.0.to_be_bytes()[..], &key.0, &nonce.to_be_bytes(), &[aead.tag()]];
        SessionSecret { key: self.secret.derive("session", &parts), aead, ciphers: self.ciphers }
    }

    /// The key of the peer hellos from one run of a server to another server, by which servers learn each
    /// other's boot id and ciphers.
    pub fn peer_hello(&self, from: (NodeId, BootId), to: NodeId) -> Key {
        let (node, boot_id) = from;
        let ends = [node.0.to_be_bytes(), to.0.to_be_bytes()].concat();
        self.secret.derive("peer hello", &[&ends, &boot_id.0])
    }

    /// The keys of the datagrams from one run of a server to one run of another. `offered` is what the other
    /// of the two offers in its peer hello; both choose alike ([`Ciphers::choose`]).
    pub fn peer(&self, from: (NodeId, BootId), to: (NodeId, BootId), offered: u8) -> PacketKeys {
        let ends = [from.0.0.to_be_bytes(), to.0.0.to_be_bytes()].concat();
        let aead = self.ciphers.choose(offered);
        let secret = self.secret.derive("peer", &[&ends, &from.1.0, &to.1.0, &[aead.tag()]]);
        PacketKeys::new(secret, aead, self.ciphers)
    }
}

/// The keyed digest of `parts` under `label`; only a holder of `key` can compute it.
pub fn mac(key: &[u8; 32], label: &'static str, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Blake2sMac256 as Mac>::new(key.into());
    mac.update(b"recado 1 ");
    mac.update(label.as_bytes());
    mac.update(&[0]);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Op;
    use proptest::prelude::*;

    const BOOT_ID: BootId = BootId([7; 16]);

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 8439 section 2.8.2 has another nonce layout. These bytes come from its key, plaintext and
    /// associated data under this protocol's nonces, computed once with an independent implementation.
    #[test]
    fn sealing_is_chacha20_poly1305_with_the_number_as_nonce() {
        let key = Key::new(std::array::from_fn(|i| 0x80 + i as u8));
        let head = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let text = b"Ladies and Gentlemen of the class of '99";
        let mut datagram = [&head[..], text].concat();
        key.seal(0x4041_4243_4445_4647, head.len(), &mut datagram);
        assert_eq!(hex(&datagram[head.len()..]), KNOWN);
        assert_eq!(key.open(0x4041_4243_4445_4647, head.len(), &datagram).unwrap(), text);
    }

    const KNOWN: &str = "a479cb54628946d6f4042a8e384ef4bd2fbc7330b8be55eb2d8dc18a\
                         aa51d66a8ec1f8d3619a258d5e6862a7773ac72eae2c90d278576f59";

    /// Computed with Python's hashlib.
    #[test]
    fn keys_are_derived_by_keyed_blake2s() {
        let secret = ClusterKeys::new(&[1; 32]).session_secret(
            SessionId(Op(5)),
            DeviceKey([2; 32]),
            9,
            Aead::default(),
        );
        assert_eq!(
            hex(secret.key().as_bytes()),
            "4f436ac1e885580c5c13153e7e10f180ce26040dc0dd906b9653861d2ea1ae31"
        );
    }

    #[test]
    fn every_key_differs_from_every_other() {
        let cluster = ClusterKeys::new(&[1; 32]);
        let session = cluster.session_secret(SessionId(Op(5)), DeviceKey([2; 32]), 9, Aead::default());
        let (one, two) = (NodeId(1), NodeId(2));
        let other = BootId([8; 16]);
        let secrets = [
            cluster.session_secret(SessionId(Op(6)), DeviceKey([2; 32]), 9, Aead::default()),
            cluster.session_secret(SessionId(Op(5)), DeviceKey([3; 32]), 9, Aead::default()),
            cluster.session_secret(SessionId(Op(5)), DeviceKey([2; 32]), 8, Aead::default()),
            cluster.session_secret(SessionId(Op(5)), DeviceKey([2; 32]), 9, Aead::Aes256Gcm),
        ];
        let aes = ClusterKeys::new(&[1; 32]).with(Ciphers { aes: true, ..Ciphers::default() });
        let of = |keys: PacketKeys, phase| keys.of_phase(phase);
        let keys = [
            cluster.cluster_private(),
            cluster.admin_private(),
            session.key().clone(),
            of(session.of_session(Direction::ToServer, one, BOOT_ID), 0),
            of(session.of_session(Direction::ToServer, one, BOOT_ID), 1),
            of(session.of_session(Direction::ToClient, one, BOOT_ID), 0),
            of(session.of_session(Direction::ToClient, two, BOOT_ID), 0),
            of(session.of_session(Direction::ToClient, one, other), 0),
            cluster.peer_hello((one, BOOT_ID), two),
            of(cluster.peer((one, BOOT_ID), (two, BOOT_ID), 0), 0),
            of(cluster.peer((two, BOOT_ID), (one, BOOT_ID), 0), 0),
            of(cluster.peer((one, BOOT_ID), (two, other), 0), 0),
            of(cluster.peer((one, other), (two, BOOT_ID), 0), 0),
            of(aes.peer((one, BOOT_ID), (two, BOOT_ID), 1), 0),
        ];
        let keys: Vec<_> = keys.into_iter().chain(secrets.map(|secret| secret.key().clone())).collect();
        for (at, key) in keys.iter().enumerate() {
            assert!(keys[at + 1..].iter().all(|later| later != key), "key {at}");
        }
        assert_eq!(format!("{:?}", session.key()), "Key(..)");
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_nothing_else_does(
            key: [u8; 32], number: u64, head in prop::collection::vec(any::<u8>(), 0..60),
            text in prop::collection::vec(any::<u8>(), 0..1100), at: prop::sample::Index, bit in 0..8u8,
        ) {
            let key = Key::new(key);
            let mut datagram = [&head[..], &text].concat();
            key.seal(number, head.len(), &mut datagram);
            prop_assert_eq!(datagram.len(), head.len() + text.len() + TAG_LEN);
            prop_assert_eq!(key.open(number, head.len(), &datagram), Ok(text));
            prop_assert_eq!(key.open(number ^ 1, head.len(), &datagram), Err(DecodeError::Seal));
            let at = at.index(datagram.len());
            datagram[at] ^= 1 << bit;
            prop_assert_eq!(key.open(number, head.len(), &datagram), Err(DecodeError::Seal));
        }
    }
}
