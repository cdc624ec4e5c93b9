//! An attacker that sees the datagrams to the servers and can send from their addresses, but has no key. It
//! answers each HELLO with forged RETRYs before the server answers, and once more after.

use recado_proto::envelope::Envelope;
use recado_proto::handshake::{self, Handshake, Retry};
use recado_proto::id::{BootId, Incarnation, NodeId};

use crate::faults::MS;
use crate::network::Micros;
use crate::rng::Rng;
use crate::tap;

/// The number of incarnations that forged RETRYs name; some are over and some are in the future.
const INCARNATIONS: u64 = 6;

/// The end of the attack, and the number of forged answers before the genuine one.
#[derive(Clone, Copy, Debug)]
pub struct RetryForger {
    pub until: Micros,
    pub before: u64,
}

impl RetryForger {
    /// Returns the forged answers to a HELLO on its way to `to`, each with its delay; none to other
    /// datagrams.
    pub fn answers(&self, now: Micros, rng: &mut Rng, to: NodeId, datagram: &[u8]) -> Vec<(Micros, Vec<u8>)> {
        if now >= self.until {
            return Vec::new();
        }
        let Ok((envelope, Handshake::Hello(echo))) = Handshake::read(datagram) else { return Vec::new() };
        let at = |nth: u64| if nth < self.before { nth } else { 3 * MS };
        (0..=self.before).map(|nth| (at(nth), lie(rng, to, &envelope, echo))).collect()
    }
}

fn lie(rng: &mut Rng, to: NodeId, hello: &Envelope, echo: u64) -> Vec<u8> {
    let other = NodeId(rng.range(1, 3) as u16);
    let incarnation = Incarnation(rng.range(1, INCARNATIONS));
    let (node, boot_id) = match rng.below(3) {
        0 => (to, tap::boot_id(to, incarnation)),
        1 => (other, tap::boot_id(other, incarnation)),
        _ => (to, BootId(drawn(rng))),
    };
    let retry = Retry { echo, cookie: drawn(rng), boot_id, cluster_key: tap::cluster_key() };
    handshake::retry(&Envelope { node: Some(node), incarnation, ..*hello }, &retry)
}

fn drawn(rng: &mut Rng) -> [u8; 16] {
    (u128::from(rng.next()) << 64 | u128::from(rng.next())).to_be_bytes()
}
