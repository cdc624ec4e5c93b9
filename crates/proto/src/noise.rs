//! The Noise handshake: the one file that names `snow`.
//!
//! The pattern is **IK** of the Noise protocol (revision 34, section 7.5),
//! `Noise_IK_25519_ChaChaPoly_BLAKE2s`. The client knows the cluster's key before it sends anything about
//! itself: it has pinned the key, or has received it in RETRY and asked its user. So its own key and its
//! CONNECT travel sealed in the first message. The server answers from that message alone and keeps no state;
//! its answer proves to the client that it holds the cluster's key.
//!
//! IK permits that a first message is replayed. That does no harm: the message is bound to one boot id of one
//! server by the prologue, and to an address for seconds by the cookie, and the session that it opens is
//! unusable, and fences none, until somebody proves to hold the session's secret. XX would cost another round
//! trip, and state at the server between its messages.
//!
//! The handshake yields one key, which seals the server's answer and is used once.

#[cfg(feature = "simulated-x25519")]
mod stand_in;
#[cfg(feature = "simulated-x25519")]
pub use stand_in::simulate_x25519;

use std::fmt;

use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use x25519_dalek::{PublicKey, StaticSecret};

use super::codec::DecodeError;
use super::seal::{Key, TAG_LEN};
use crate::entropy::Entropy;
use crate::id::{BootId, ClusterId, DeviceKey, NodeId};

/// The bytes of the first message beside its load: an ephemeral key, a sealed static key with its tag, and a
/// tag.
pub const INITIATION_OVERHEAD: usize = 32 + 32 + TAG_LEN + TAG_LEN;
/// The bytes of the second message, which has no load.
pub const OPENING_LEN: usize = 32 + TAG_LEN;

const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";

/// The public half of a private key.
pub fn public(private: &Key) -> [u8; 32] {
    #[cfg(feature = "simulated-x25519")]
    if stand_in::at_work() {
        return stand_in::public(private.as_bytes());
    }
    PublicKey::from(&StaticSecret::from(*private.as_bytes())).to_bytes()
}

/// The prologue, which both sides must agree on: one run of one server of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prologue {
    /// The cluster.
    pub cluster: ClusterId,
    /// The server.
    pub server: NodeId,
    /// The server's boot id.
    pub boot_id: BootId,
}

impl Prologue {
    fn bytes(self) -> Vec<u8> {
        [&b"recado 1"[..], &self.cluster.0.to_be_bytes(), &self.server.0.to_be_bytes(), &self.boot_id.0]
            .concat()
    }
}

/// The server's answer to a first message. It is used once, at any later time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The second handshake message.
    pub opening: [u8; OPENING_LEN],
    /// The key that seals the answer after it.
    pub key: Key,
}

/// The client's side of a handshake between the two messages.
pub struct Initiation(HandshakeState);

impl fmt::Debug for Initiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Initiation(..)")
    }
}

impl Initiation {
    /// Makes the first message, with `load`, for a holder of the cluster's key.
    ///
    /// # Errors
    /// [`DecodeError::Seal`]: the cluster's key is not a valid key. Nothing is sent.
    pub fn new(
        prologue: Prologue,
        cluster_key: &[u8; 32],
        private: &Key,
        load: &[u8],
        entropy: &mut Entropy,
    ) -> Result<(Initiation, Vec<u8>), DecodeError> {
        let mut begin = || -> Result<_, snow::Error> {
            let mut state = Builder::with_resolver(params()?, Seeded::from(entropy))
                .local_private_key(private.as_bytes())?
                .remote_public_key(cluster_key)?
                .prologue(&prologue.bytes())?
                .build_initiator()?;
            let mut message = vec![0; load.len() + INITIATION_OVERHEAD];
            let length = state.write_message(load, &mut message)?;
            message.truncate(length);
            Ok((Initiation(state), message))
        };
        begin().map_err(|_| DecodeError::Seal)
    }

    /// Reads the second message and returns the key of the answer after it. After a failure another answer
    /// may still be read; after a success none.
    ///
    /// # Errors
    /// [`DecodeError::Seal`]: its sender does not hold the cluster's key, or it does not answer this first
    /// message.
    pub fn read_response(&mut self, opening: &[u8]) -> Result<Key, DecodeError> {
        self.0.read_message(opening, &mut []).map_err(|_| DecodeError::Seal)?;
        Ok(Key::new(self.0.dangerously_get_raw_split().1))
    }
}

/// The server's side of a handshake, in one step: the client's key, the load, and the reply.
///
/// # Errors
/// [`DecodeError::Seal`]: the message was not made for this run of this server. The sender's fault.
pub fn answer(
    prologue: Prologue,
    cluster_private: &Key,
    message: &[u8],
    entropy: &mut Entropy,
) -> Result<(DeviceKey, Vec<u8>, Reply), DecodeError> {
    let mut respond = || -> Result<_, snow::Error> {
        let mut state = Builder::with_resolver(params()?, Seeded::from(entropy))
            .local_private_key(cluster_private.as_bytes())?
            .prologue(&prologue.bytes())?
            .build_responder()?;
        let mut load = vec![0; message.len()];
        let length = state.read_message(message, &mut load)?;
        load.truncate(length);
        let mut opening = [0; OPENING_LEN];
        state.write_message(&[], &mut opening)?;
        let device = state.get_remote_static().and_then(|key| key.try_into().ok()).map(DeviceKey);
        let key = Key::new(state.dangerously_get_raw_split().1);
        Ok((device, load, Reply { opening, key }))
    };
    let (device, load, reply) = respond().map_err(|_| DecodeError::Seal)?;
    Ok((device.ok_or(DecodeError::Seal)?, load, reply))
}

fn params() -> Result<NoiseParams, snow::Error> {
    PATTERN.parse()
}

/// The primitives of `snow`, with ephemeral keys from a given entropy: a pure module uses no global source of
/// randomness.
struct Seeded([u8; 32]);

impl Seeded {
    fn from(entropy: &mut Entropy) -> Box<Seeded> {
        Box::new(Seeded(entropy.bytes()))
    }
}

impl CryptoResolver for Seeded {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Seed(Entropy::new(self.0))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        #[cfg(feature = "simulated-x25519")]
        if stand_in::at_work() && matches!(choice, DHChoice::Curve25519) {
            return Some(Box::<stand_in::StandIn>::default());
        }
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct Seed(Entropy);

impl Random for Seed {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill(dest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROLOGUE: Prologue =
        Prologue { cluster: ClusterId(7), server: NodeId(2), boot_id: BootId([3; 16]) };

    fn initiation(
        prologue: Prologue,
        cluster_key: &[u8; 32],
        entropy: &mut Entropy,
    ) -> (Initiation, Vec<u8>) {
        Initiation::new(prologue, cluster_key, &Key::new([5; 32]), b"let me in", entropy).unwrap()
    }

    #[test]
    fn a_handshake_gives_both_sides_the_others_key_and_one_shared_key() {
        let cluster = Key::new([9; 32]);
        let mut entropy = Entropy::new([1; 32]);
        let (mut state, message) = initiation(PROLOGUE, &public(&cluster), &mut entropy);
        let (device, load, reply) = answer(PROLOGUE, &cluster, &message, &mut entropy).unwrap();
        assert_eq!(device, DeviceKey(public(&Key::new([5; 32]))));
        assert_eq!(load, b"let me in");
        assert_eq!(state.read_response(&reply.opening), Ok(reply.key));
    }

    #[test]
    fn another_cluster_server_or_boot_id_cannot_read_an_initiation() {
        let cluster = Key::new([9; 32]);
        let mut entropy = Entropy::new([1; 32]);
        let (_, message) = initiation(PROLOGUE, &public(&cluster), &mut entropy);
        let others = [
            (Prologue { cluster: ClusterId(8), ..PROLOGUE }, cluster.clone()),
            (Prologue { server: NodeId(1), ..PROLOGUE }, cluster.clone()),
            (Prologue { boot_id: BootId([4; 16]), ..PROLOGUE }, cluster),
            (PROLOGUE, Key::new([8; 32])),
        ];
        for (prologue, key) in others {
            assert_eq!(answer(prologue, &key, &message, &mut entropy), Err(DecodeError::Seal));
        }
    }

    #[test]
    fn a_forged_answer_changes_nothing_and_the_true_one_still_counts() {
        let cluster = Key::new([9; 32]);
        let mut entropy = Entropy::new([1; 32]);
        let (mut state, message) = initiation(PROLOGUE, &public(&cluster), &mut entropy);
        let (_, _, reply) = answer(PROLOGUE, &cluster, &message, &mut entropy).unwrap();
        let mut forged = reply.opening;
        forged[40] ^= 1;
        assert_eq!(state.read_response(&forged), Err(DecodeError::Seal));
        assert_eq!(state.read_response(&[]), Err(DecodeError::Seal));
        assert_eq!(state.read_response(&reply.opening), Ok(reply.key));
    }

    #[test]
    fn two_handshakes_share_no_key() {
        let cluster = Key::new([9; 32]);
        let mut entropy = Entropy::new([1; 32]);
        let (_, message) = initiation(PROLOGUE, &public(&cluster), &mut entropy);
        let (_, _, one) = answer(PROLOGUE, &cluster, &message, &mut entropy).unwrap();
        let (_, _, two) = answer(PROLOGUE, &cluster, &message, &mut entropy).unwrap();
        assert_ne!(one, two);
    }
}
