//! Codes that people type. One lets a new installation into a profile: drawn on a device that is in, typed on
//! the new one. One of an invitation lets somebody claim a name: drawn by an administrator. The servers see
//! only a hash of either.

use std::fmt;
use std::str::FromStr;

use blake2::{Blake2s256, Digest};

use crate::id::Name;
use crate::wire::packet::CodeHash;

/// Crockford's alphabet: no letter that is read as another.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Characters of a code: 50 bits, of which the servers let nobody try more than five.
const LENGTH: usize = 10;

/// The code of an enrolment, good once and for ten minutes, or of an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnrolmentCode([u8; LENGTH]);

/// A text is no code. The caller's fault; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a code has ten letters and digits, as in 7K3Q9-0XWZP")]
pub struct EnrolmentCodeError;

impl EnrolmentCode {
    /// A code of this randomness.
    pub(super) fn of(random: [u8; LENGTH]) -> EnrolmentCode {
        EnrolmentCode(random.map(|byte| ALPHABET[usize::from(byte % 32)]))
    }

    /// What the servers get to see. Bound to the profile, so that a code of one says nothing of another.
    pub(super) fn hash(&self, profile: &Name) -> CodeHash {
        let mut hash = Blake2s256::new();
        hash.update(b"recado enrolment 1\0");
        hash.update(profile.as_str().as_bytes());
        hash.update([0]);
        hash.update(self.0);
        CodeHash(hash.finalize().into())
    }

    /// What the servers get to see of an invitation's. Nobody guesses one of a thousand in 50 bits at the rate
    /// at which a network may claim names.
    pub fn invite_hash(&self) -> CodeHash {
        let mut hash = Blake2s256::new();
        hash.update(b"recado invitation 1\0");
        hash.update(self.0);
        CodeHash(hash.finalize().into())
    }

    /// A new code, from the system's random numbers.
    ///
    /// # Errors
    /// The system has none.
    pub fn draw() -> std::io::Result<EnrolmentCode> {
        Ok(EnrolmentCode::of(crate::random::bytes()?))
    }
}

impl FromStr for EnrolmentCode {
    type Err = EnrolmentCodeError;

    /// As people type it: in any case, with or without what parts it, O for 0 and I or L for 1.
    fn from_str(text: &str) -> Result<EnrolmentCode, EnrolmentCodeError> {
        let mut code = [0; LENGTH];
        let mut at = 0;
        for typed in text.chars().filter(|c| !matches!(c, '-' | ' ')) {
            let letter = match typed.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            let known = ALPHABET.iter().find(|known| char::from(**known) == letter);
            *code.get_mut(at).ok_or(EnrolmentCodeError)? = *known.ok_or(EnrolmentCodeError)?;
            at += 1;
        }
        if at == LENGTH { Ok(EnrolmentCode(code)) } else { Err(EnrolmentCodeError) }
    }
}

impl fmt::Display for EnrolmentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, letter) in self.0.iter().enumerate() {
            let parting = if at == LENGTH / 2 { "-" } else { "" };
            write!(f, "{parting}{}", char::from(*letter))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let code: EnrolmentCode = "7K3Q9-01WZP".parse().unwrap();
        assert_eq!(code.to_string(), "7K3Q9-01WZP");
        for typed in ["7k3q9 olwzp", "7K3Q9OIWZP", " 7k3-q901w-zp"] {
            assert_eq!(typed.parse(), Ok(code), "{typed}");
        }
        for wrong in ["", "7K3Q9-01WZ", "7K3Q9-01WZPP", "7K3Q9-01WZU", "7K3Q9_01WZP"] {
            assert_eq!(wrong.parse::<EnrolmentCode>(), Err(EnrolmentCodeError), "{wrong}");
        }
    }

    #[test]
    fn every_drawn_code_can_be_typed_and_its_hash_is_bound_to_the_profile() {
        let code = EnrolmentCode::of([0, 31, 32, 63, 64, 200, 255, 7, 8, 9]);
        assert_eq!(code.to_string().parse(), Ok(code));
        let (alice, bob) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        assert_eq!(code.hash(&alice), code.hash(&alice));
        assert_ne!(code.hash(&alice), code.hash(&bob));
    }
}
