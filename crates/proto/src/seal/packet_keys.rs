//! Keys of one direction of a link: one for each phase of packet numbers.
//!
//! An AEAD's key must not seal without bound: RFC 9001 section 6.6 allows AES-GCM 2^23 packets. So the
//! numbers are divided into phases of 2^22, and each phase has a key of its own. QUIC negotiates the change
//! with a bit in its header, because its numbers travel abridged; these travel whole, so the number alone
//! tells the key.
//!
//! A datagram with a forged number makes its receiver derive a key, which costs about as much as the attempt
//! to open it; only one that opens makes the receiver keep that key.

use super::aead::Cipher;
use super::{Aead, Ciphers, Key};
use crate::codec::DecodeError;
use crate::planted::Planted;

/// The logarithm to base 2 of how many packet numbers a key is for.
pub const PHASE_BITS: u32 = 22;

/// The keys of one direction of a link. The key of the phase used last is kept expanded (about 560 bytes).
#[derive(Debug)]
pub struct PacketKeys {
    secret: Key,
    aead: Aead,
    ciphers: Ciphers,
    last: Option<Box<Phase>>,
}

#[derive(Debug)]
struct Phase {
    index: u64,
    cipher: Option<Cipher>,
}

/// Two are equal if they seal alike, whichever key is expanded.
impl PartialEq for PacketKeys {
    fn eq(&self, other: &PacketKeys) -> bool {
        (&self.secret, self.aead, self.ciphers) == (&other.secret, other.aead, other.ciphers)
    }
}

impl Eq for PacketKeys {}

/// A clone expands its keys itself.
impl Clone for PacketKeys {
    fn clone(&self) -> PacketKeys {
        PacketKeys { secret: self.secret.clone(), last: None, ..*self }
    }
}

/// The keys of a link whose ends have agreed on nothing: ChaCha20-Poly1305.
impl From<Key> for PacketKeys {
    fn from(secret: Key) -> PacketKeys {
        PacketKeys::new(secret, Aead::default(), Ciphers::default())
    }
}

impl PacketKeys {
    /// The keys that are derived from `secret`, which nothing else is derived from.
    pub fn new(secret: Key, aead: Aead, ciphers: Ciphers) -> PacketKeys {
        PacketKeys { secret, aead, ciphers, last: None }
    }

    /// Seals `datagram` in place from `clear` on; the bytes before `clear` are authenticated. Appends the
    /// tag. The caller must not use a number twice.
    pub fn seal(&mut self, number: u64, clear: usize, datagram: &mut Vec<u8>) {
        let index = self.phase(number);
        let stale = self.ciphers.planted.is(Planted::KeyOutlivesPhase) && self.last.is_some();
        if !stale && self.last.as_ref().is_none_or(|phase| phase.index != index) {
            self.last = Some(Box::new(self.expand(index)));
        }
        let cipher = self.last.as_ref().and_then(|phase| phase.cipher.as_ref());
        Cipher::seal(cipher, number, clear, datagram);
    }

    /// Opens a datagram sealed by [`PacketKeys::seal`] and returns the bytes after `clear`, without the tag.
    ///
    /// # Errors
    /// [`DecodeError::Seal`]: another key, another number, or changed on the way. [`DecodeError::Truncated`]:
    /// it is too short. Nothing changed.
    pub fn open(&mut self, number: u64, clear: usize, datagram: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let index = self.phase(number);
        if let Some(phase) = self.last.as_ref().filter(|phase| phase.index == index) {
            return Cipher::open(phase.cipher.as_ref(), number, clear, datagram);
        }
        let phase = self.expand(index);
        let inside = Cipher::open(phase.cipher.as_ref(), number, clear, datagram)?;
        self.last = Some(Box::new(phase));
        Ok(inside)
    }

    fn phase(&self, number: u64) -> u64 {
        number >> self.ciphers.phase_bits.min(u64::BITS - 1)
    }

    /// The secret that the keys are derived from.
    pub fn secret(&self) -> &Key {
        &self.secret
    }

    /// The key of a phase.
    pub fn of_phase(&self, index: u64) -> Key {
        self.secret.derive("phase", &[&index.to_be_bytes()])
    }

    fn expand(&self, index: u64) -> Phase {
        Phase { index, cipher: self.of_phase(index).cipher(self.aead) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ciphers() -> Ciphers {
        Ciphers { aes: true, phase_bits: 4, ..Ciphers::default() }
    }

    fn keys(aead: Aead) -> PacketKeys {
        PacketKeys::new(Key::new([3; 32]), aead, ciphers())
    }

    fn aead() -> impl Strategy<Value = Aead> {
        prop_oneof![Just(Aead::ChaCha20Poly1305), Just(Aead::Aes256Gcm)]
    }

    fn sealed(keys: &mut PacketKeys, number: u64) -> Vec<u8> {
        let mut datagram = b"head and inside".to_vec();
        keys.seal(number, 4, &mut datagram);
        datagram
    }

    #[test]
    fn each_phase_has_a_key_of_its_own_and_the_number_tells_it() {
        for aead in [Aead::ChaCha20Poly1305, Aead::Aes256Gcm] {
            let (mut send, mut receive) = (keys(aead), keys(aead));
            for number in [0, 15, 16, 17, 15, 1_000, 3] {
                let datagram = sealed(&mut send, number);
                assert_eq!(receive.open(number, 4, &datagram).unwrap(), b" and inside", "{number}");
                let of_phase = send.of_phase(number / 16).cipher(aead);
                assert!(Cipher::open(of_phase.as_ref(), number, 4, &datagram).is_ok());
                let of_next = send.of_phase(number / 16 + 1).cipher(aead);
                assert_eq!(Cipher::open(of_next.as_ref(), number, 4, &datagram), Err(DecodeError::Seal));
            }
        }
    }

    #[test]
    fn a_forged_number_does_not_displace_the_key_in_use() {
        let (mut send, mut receive) = (keys(Aead::Aes256Gcm), keys(Aead::Aes256Gcm));
        receive.open(5, 4, &sealed(&mut send, 5)).unwrap();
        assert_eq!(receive.open(1 << 40, 4, &sealed(&mut send, 5)), Err(DecodeError::Seal));
        assert_eq!(receive.last.map(|phase| phase.index), Some(0));
    }

    #[test]
    fn the_two_algorithms_are_chosen_only_where_both_ends_have_them() {
        let (with, without) = (Ciphers { aes: true, ..Ciphers::default() }, Ciphers::default());
        assert_eq!(with.choose(with.offered()), Aead::Aes256Gcm);
        assert_eq!(with.choose(0xfe), Aead::ChaCha20Poly1305);
        assert_eq!(with.choose(without.offered()), Aead::ChaCha20Poly1305);
        assert_eq!(without.choose(with.offered()), Aead::ChaCha20Poly1305);
    }

    #[cfg(feature = "planted-bugs")]
    #[test]
    fn a_key_that_outlives_its_phase_is_found() {
        let planted = crate::planted::PlantedBug(Some(Planted::KeyOutlivesPhase));
        let stale = Ciphers { planted, ..ciphers() };
        let mut send = PacketKeys::new(Key::new([3; 32]), Aead::Aes256Gcm, stale);
        let mut receive = keys(Aead::Aes256Gcm);
        assert!(receive.open(15, 4, &sealed(&mut send, 15)).is_ok());
        assert_eq!(receive.open(16, 4, &sealed(&mut send, 16)), Err(DecodeError::Seal));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_nothing_else_does(
            aead in aead(), secret: [u8; 32], number: u64, at: prop::sample::Index, bit in 0..8u8,
            head in prop::collection::vec(any::<u8>(), 0..60),
            text in prop::collection::vec(any::<u8>(), 0..1100),
        ) {
            let mut keys = PacketKeys::new(Key::new(secret), aead, Ciphers::default());
            let mut datagram = [&head[..], &text].concat();
            keys.seal(number, head.len(), &mut datagram);
            prop_assert_eq!(keys.open(number, head.len(), &datagram), Ok(text));
            prop_assert_eq!(keys.open(number ^ 1, head.len(), &datagram), Err(DecodeError::Seal));
            let at = at.index(datagram.len());
            datagram[at] ^= 1 << bit;
            prop_assert_eq!(keys.open(number, head.len(), &datagram), Err(DecodeError::Seal));
        }
    }
}
