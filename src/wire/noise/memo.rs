//! X25519 whose results are remembered: the simulation plays both ends of every handshake, and what one
//! end has computed the other need not compute again. Bytes are those of `snow`'s own X25519.
//!
//! Compiled only with the feature `remembered-x25519`, which tests enable and no program does, and at work
//! only in a thread that says so: a table of secrets has no place in a server, and what tests start as
//! servers, and what benches time, computes everything.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use snow::types::{Dh, Random};
use x25519_dalek::x25519;

/// Results kept a thread, of each kind. A full table is emptied: a run needs what it computed lately.
const KEPT: usize = 4_096;

thread_local! {
    static REMEMBERS: Cell<bool> = const { Cell::new(false) };
    static PUBLIC: RefCell<BTreeMap<[u8; 32], [u8; 32]>> = const { RefCell::new(BTreeMap::new()) };
    static SHARED: RefCell<BTreeMap<[[u8; 32]; 2], [u8; 32]>> = const { RefCell::new(BTreeMap::new()) };
}

/// From now on this thread remembers.
pub fn remember_x25519() {
    REMEMBERS.set(true);
}

pub(super) fn remembers() -> bool {
    REMEMBERS.get()
}

fn remember<K: Ord>(
    table: &RefCell<BTreeMap<K, [u8; 32]>>,
    key: K,
    compute: impl FnOnce() -> [u8; 32],
) -> [u8; 32] {
    if let Some(result) = table.borrow().get(&key) {
        return *result;
    }
    let result = compute();
    let mut table = table.borrow_mut();
    if table.len() >= KEPT {
        table.clear();
    }
    table.insert(key, result);
    result
}

/// The public half of a private key.
pub(super) fn public(private: &[u8; 32]) -> [u8; 32] {
    PUBLIC.with(|table| remember(table, *private, || super::derive_public(private)))
}

/// One end of an exchange.
#[derive(Default)]
pub(super) struct Remembered {
    private: [u8; 32],
    public: [u8; 32],
}

impl Dh for Remembered {
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
        // The same from either end, so that the end that comes second finds it.
        let mut ends = [self.public, theirs];
        ends.sort_unstable();
        let shared = SHARED.with(|table| remember(table, ends, || x25519(self.private, theirs)));
        out.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(&shared);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use snow::params::DHChoice;
    use snow::resolvers::{CryptoResolver, DefaultResolver};

    use super::*;

    #[test]
    fn what_is_remembered_is_what_snow_computes() {
        let end = |private: [u8; 32]| {
            let mut ours = Remembered::default();
            let mut theirs = DefaultResolver.resolve_dh(&DHChoice::Curve25519).unwrap();
            ours.set(&private);
            theirs.set(&private);
            assert_eq!(ours.pubkey(), theirs.pubkey());
            (ours, theirs)
        };
        let shared = |end: &dyn Dh, other: &[u8]| {
            let mut out = [0; 32];
            end.dh(other, &mut out).unwrap();
            out
        };
        let (one, one_of_snow) = end([3; 32]);
        let (other, other_of_snow) = end([4; 32]);
        let expected = shared(&*one_of_snow, other_of_snow.pubkey());
        for _ in 0..2 {
            assert_eq!(shared(&one, other.pubkey()), expected);
            assert_eq!(shared(&other, one.pubkey()), expected);
        }
    }
}
