//! Codes that people type. An enrolment code lets a new installation into a profile: it is drawn on a device
//! of the profile and typed on the new one. An invitation code lets a person claim a name: an administrator
//! draws it. The servers see only a hash of either.

use std::fmt;
use std::str::FromStr;

use blake2::{Blake2s256, Digest};

use recado_proto::id::Name;
use recado_proto::packet::CodeHash;

/// Crockford's base 32: it leaves out letters that look like another character.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Characters of a code: 50 bits. The servers accept at most five attempts to guess one.
const LENGTH: usize = 10;

/// A code of an enrolment, valid once and for ten minutes, or of an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnrolmentCode([u8; LENGTH]);

/// The text is not a code. The caller's fault; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a code has ten letters and digits, as in 7K3Q9-0XWZP")]
pub struct EnrolmentCodeError;

impl EnrolmentCode {
    /// The code for these random bytes.
    pub(super) fn of(random: [u8; LENGTH]) -> EnrolmentCode {
        EnrolmentCode(random.map(|byte| ALPHABET[usize::from(byte % 32)]))
    }

    /// The hash of an enrolment code that the servers see. It covers the profile, so that the hash for one
    /// profile cannot be used for another.
    pub fn hash(&self, profile: &Name) -> CodeHash {
        let mut hash = Blake2s256::new();
        hash.update(b"recado enrolment 1\0");
        hash.update(profile.as_str().as_bytes());
        hash.update([0]);
        hash.update(self.0);
        CodeHash(hash.finalize().into())
    }

    /// The hash of an invitation code that the servers see. With 50 bits, and at the rate at which a network
    /// may claim names, guessing any of a thousand open codes is infeasible.
    pub fn invite_hash(&self) -> CodeHash {
        let mut hash = Blake2s256::new();
        hash.update(b"recado invitation 1\0");
        hash.update(self.0);
        CodeHash(hash.finalize().into())
    }

    /// Draws a new code from the system's random numbers.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn draw() -> std::io::Result<EnrolmentCode> {
        Ok(EnrolmentCode::of(recado_sys::random::bytes()?))
    }
}

impl FromStr for EnrolmentCode {
    type Err = EnrolmentCodeError;

    /// Accepts a code as people type it: in any case, with or without separators, O for 0 and I or L for 1.
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
