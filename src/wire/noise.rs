//! The handshake: the one file that names `snow`.
//!
//! Pattern **IK** of the Noise protocol (revision 34, section 7.5), `Noise_IK_25519_ChaChaPoly_BLAKE2s`.
//! The client knows the cluster's key before it says anything of itself (it has pinned it, or was
//! told it by RETRY and asked its user), so its own key and its CONNECT travel sealed in the first message.
//! The server answers from that message alone, keeping nothing: the answer to it proves the cluster's key
//! to the client. What IK leaves open, that a first message can be replayed, does no harm: it is bound
//! to one life of one server by the prologue, to an address for seconds by a cookie, and the session that
//! it opens is of no use, and fences none, before somebody proves to hold its secret. XX would cost a
//! round trip more and state at the server between its messages.
//!
//! After the second message there is one key for the server's answer, used once.

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

/// Bytes of the first message beyond what it carries: an ephemeral key, a sealed key, a tag.
pub const KNOCK_OVERHEAD: usize = 32 + 32 + TAG_LEN + TAG_LEN;
/// Bytes of the second message, which carries nothing itself.
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

/// What both sides must agree on before they begin: which life of which server of which cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prologue {
    /// The cluster.
    pub cluster: ClusterId,
    /// The server.
    pub server: NodeId,
    /// Its life.
    pub life: BootId,
}

impl Prologue {
    fn bytes(self) -> Vec<u8> {
        [&b"recado 1"[..], &self.cluster.0.to_be_bytes(), &self.server.0.to_be_bytes(), &self.life.0].concat()
    }
}

/// What a server answers the first message with: once, whenever it is ready to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The second message.
    pub opening: [u8; OPENING_LEN],
    /// What the answer behind it is sealed with.
    pub key: Key,
}

/// A client's side between the two messages.
pub struct Knock(HandshakeState);

impl fmt::Debug for Knock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Knock(..)")
    }
}

impl Knock {
    /// Makes the first message, carrying `load`, for whoever holds the cluster's key.
    ///
    /// # Errors
    /// [`DecodeError::Seal`]: the cluster's key is no key. Nothing is sent.
    pub fn new(
        prologue: Prologue,
        cluster_key: &[u8; 32],
        private: &Key,
        load: &[u8],
        entropy: &mut Entropy,
    ) -> Result<(Knock, Vec<u8>), DecodeError> {
        let mut begin = || -> Result<_, snow::Error> {
            let mut state = Builder::with_resolver(params()?, Seeded::from(entropy))
                .local_private_key(private.as_bytes())?
                .remote_public_key(cluster_key)?
                .prologue(&prologue.bytes())?
                .build_initiator()?;
            let mut message = vec![0; load.len() + KNOCK_OVERHEAD];
            let length = state.write_message(load, &mut message)?;
            message.truncate(length);
            Ok((Knock(state), message))
        };
        begin().map_err(|_| DecodeError::Seal)
    }

    /// Reads the second message: the key of the answer behind it. After a failure another answer
    /// may still come; after a success none.
    ///
    /// # Errors
    /// [`DecodeError::Seal`]: it is not from the holder of the cluster's key, or not to this message.
    pub fn opened(&mut self, opening: &[u8]) -> Result<Key, DecodeError> {
        self.0.read_message(opening, &mut []).map_err(|_| DecodeError::Seal)?;
        Ok(Key::new(self.0.dangerously_get_raw_split().1))
    }
}

/// A server's side, in one step: who knocked, what it carried, and how to answer.
///
/// # Errors
/// [`DecodeError::Seal`]: it was not made for this life of this server. The sender's fault.
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

/// The primitives of `snow`, with ephemeral keys from our own entropy: a pure module draws on no
/// global source.
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

    const PROLOGUE: Prologue = Prologue { cluster: ClusterId(7), server: NodeId(2), life: BootId([3; 16]) };

    fn knock(prologue: Prologue, cluster_key: &[u8; 32], entropy: &mut Entropy) -> (Knock, Vec<u8>) {
        Knock::new(prologue, cluster_key, &Key::new([5; 32]), b"let me in", entropy).unwrap()
    }

    #[test]
    fn both_sides_learn_who_the_other_is_and_share_one_key() {
        let cluster = Key::new([9; 32]);
        let mut entropy = Entropy::new([1; 32]);
        let (mut state, message) = knock(PROLOGUE, &public(&cluster), &mut entropy);
        let (device, load, reply) = answer(PROLOGUE, &cluster, &message, &mut entropy).unwrap();
        assert_eq!(device, DeviceKey(public(&Key::new([5; 32]))));
        assert_eq!(load, b"let me in");
        assert_eq!(state.opened(&reply.opening), Ok(reply.key));
    }

    #[test]
    fn another_cluster_server_or_life_cannot_read_it() {
        let cluster = Key::new([9; 32]);
        let mut entropy = Entropy::new([1; 32]);
        let (_, message) = knock(PROLOGUE, &public(&cluster), &mut entropy);
        let others = [
            (Prologue { cluster: ClusterId(8), ..PROLOGUE }, cluster.clone()),
            (Prologue { server: NodeId(1), ..PROLOGUE }, cluster.clone()),
            (Prologue { life: BootId([4; 16]), ..PROLOGUE }, cluster),
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
        let (mut state, message) = knock(PROLOGUE, &public(&cluster), &mut entropy);
        let (_, _, reply) = answer(PROLOGUE, &cluster, &message, &mut entropy).unwrap();
        let mut forged = reply.opening;
        forged[40] ^= 1;
        assert_eq!(state.opened(&forged), Err(DecodeError::Seal));
        assert_eq!(state.opened(&[]), Err(DecodeError::Seal));
        assert_eq!(state.opened(&reply.opening), Ok(reply.key));
    }

    #[test]
    fn two_handshakes_share_no_key() {
        let cluster = Key::new([9; 32]);
        let mut entropy = Entropy::new([1; 32]);
        let (_, message) = knock(PROLOGUE, &public(&cluster), &mut entropy);
        let (_, _, one) = answer(PROLOGUE, &cluster, &message, &mut entropy).unwrap();
        let (_, _, two) = answer(PROLOGUE, &cluster, &message, &mut entropy).unwrap();
        assert_ne!(one, two);
    }
}
