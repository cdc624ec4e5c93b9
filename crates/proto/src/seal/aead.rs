//! The algorithms that seal datagrams, and the choice between them.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::{PHASE_BITS, TAG_LEN};
use crate::codec::DecodeError;
use crate::planted::PlantedBug;

/// An algorithm that seals datagrams. The keys of an algorithm are derived with its tag, so that no key is
/// used with two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Aead {
    /// ChaCha20-Poly1305 (RFC 8439), which every program has.
    #[default]
    ChaCha20Poly1305,
    /// AES-256-GCM (NIST SP 800-38D). Every program can open it; it is offered by those whose processor has
    /// instructions for it, where it is up to twice as fast.
    Aes256Gcm,
}

impl Aead {
    pub(super) fn tag(self) -> u8 {
        match self {
            Aead::ChaCha20Poly1305 => 0,
            Aead::Aes256Gcm => 1,
        }
    }
}

/// What a program seals with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ciphers {
    /// True if the processor has instructions for AES-GCM.
    pub aes: bool,
    /// The logarithm to base 2 of how many packet numbers a key is for: [`PHASE_BITS`] in every program, less
    /// in simulations. Both ends of a link have to agree.
    pub phase_bits: u32,
    /// A planted bug.
    pub planted: PlantedBug,
}

impl Default for Ciphers {
    fn default() -> Ciphers {
        Ciphers { aes: false, phase_bits: PHASE_BITS, planted: PlantedBug::default() }
    }
}

impl Ciphers {
    /// The bit of AES-256-GCM in an offer: bit `i` stands for tag `i + 1`.
    pub const OFFERS_AES: u8 = 1;

    /// The algorithms that this program offers beside ChaCha20-Poly1305.
    pub fn offered(self) -> u8 {
        if self.aes { Ciphers::OFFERS_AES } else { 0 }
    }

    /// The algorithm for a link to a program that offers these. Bits that are not known are ignored.
    pub fn choose(self, offered: u8) -> Aead {
        if self.offered() & offered & Ciphers::OFFERS_AES != 0 {
            Aead::Aes256Gcm
        } else {
            Aead::ChaCha20Poly1305
        }
    }
}

/// An algorithm with its key, expanded.
pub(super) struct Cipher(LessSafeKey);

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    /// None only for a key of the wrong length, which the types exclude.
    pub(super) fn new(aead: Aead, key: &[u8; 32]) -> Option<Cipher> {
        let algorithm = match aead {
            Aead::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Aead::Aes256Gcm => &AES_256_GCM,
        };
        UnboundKey::new(algorithm, key).ok().map(|key| Cipher(LessSafeKey::new(key)))
    }

    /// Seals `datagram` in place from `clear` on and appends the tag. It is cleared if that fails, so that
    /// nothing leaves unsealed; sealing fails only beyond 64 GiB.
    pub(super) fn seal(cipher: Option<&Cipher>, number: u64, clear: usize, datagram: &mut Vec<u8>) {
        let clear = clear.min(datagram.len());
        let (head, inside) = datagram.split_at_mut(clear);
        let tag = cipher.and_then(|cipher| {
            cipher.0.seal_in_place_separate_tag(nonce(number), Aad::from(&head), inside).ok()
        });
        match tag {
            Some(tag) => datagram.extend_from_slice(tag.as_ref()),
            None => datagram.clear(),
        }
    }

    /// Opens a datagram and returns the bytes after `clear`, without the tag.
    pub(super) fn open(
        cipher: Option<&Cipher>,
        number: u64,
        clear: usize,
        datagram: &[u8],
    ) -> Result<Vec<u8>, DecodeError> {
        let (head, rest) = datagram.split_at_checked(clear).ok_or(DecodeError::Truncated)?;
        let length = rest.len().checked_sub(TAG_LEN).ok_or(DecodeError::Truncated)?;
        let cipher = cipher.ok_or(DecodeError::Seal)?;
        let mut inside = rest.to_vec();
        let opened = cipher.0.open_in_place(nonce(number), Aad::from(head), &mut inside);
        opened.map_err(|_| DecodeError::Seal)?;
        inside.truncate(length);
        Ok(inside)
    }
}

/// The nonce of a packet number: 32 zero bits, then the number (RFC 8439 section 2.8 leaves its format to the
/// protocol).
fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}
