//! A key exchange that replaces X25519 in the simulation, where the arithmetic of the curve takes a quarter
//! of a run and decides nothing. A public key is a hash of its private key, and the shared secret is a hash
//! of both public keys. Both ends compute the same secret, as with X25519, but **it is not secret**: anybody
//! can compute it.
//!
//! It is compiled only with the feature `simulated-x25519`, which tests enable and no program does, and is
//! active only in a thread that calls [`simulate_x25519`]. Servers started by tests, and benches, use X25519.

use std::cell::Cell;

use blake2::{Blake2s256, Digest};
use snow::types::{Dh, Random};

thread_local! {
    static SIMULATED: Cell<bool> = const { Cell::new(false) };
}

/// Makes this thread use the stand-in from now on. Keys made before do not work with it.
pub fn simulate_x25519() {
    SIMULATED.set(true);
}

pub(super) fn at_work() -> bool {
    SIMULATED.get()
}

/// The public half of a private key.
pub(super) fn public(private: &[u8; 32]) -> [u8; 32] {
    Blake2s256::digest(private).into()
}

/// One end of an exchange.
#[derive(Default)]
pub(super) struct StandIn {
    private: [u8; 32],
    public: [u8; 32],
}

impl Dh for StandIn {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, private: &[u8]) {
        self.private.copy_from_slice(private);
        self.public = public(&self.private);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        rng.try_fill_bytes(&mut self.private)?;
        self.public = public(&self.private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.private
    }

    fn dh(&self, theirs: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let theirs: [u8; 32] = theirs.get(..32).and_then(|key| key.try_into().ok()).ok_or(snow::Error::Dh)?;
        let mut ends = [self.public, theirs];
        ends.sort_unstable();
        let shared = Blake2s256::digest(ends.as_flattened());
        out.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(&shared);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_share_one_key_and_a_third_another() {
        let end = |private| {
            let mut end = StandIn::default();
            end.set(&[private; 32]);
            end
        };
        let shared = |end: &StandIn, other: &StandIn| {
            let mut out = [0; 32];
            end.dh(other.pubkey(), &mut out).unwrap();
            out
        };
        let (one, other, third) = (end(3), end(4), end(5));
        assert_eq!(shared(&one, &other), shared(&other, &one));
        assert_ne!(shared(&one, &other), shared(&one, &third));
    }
}
