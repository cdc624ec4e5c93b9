//! Somebody who sees what goes to the servers and can send as them, but has no key: each HELLO is answered
//! with lies before its server answers, and once more after.

use recado::id::{BootId, Incarnation, NodeId};
use recado::wire::envelope::Envelope;
use recado::wire::handshake::{self, Handshake, Retry};

use crate::faults::MS;
use crate::network::Micros;
use crate::rng::Rng;
use crate::tap;

/// A server names itself by one of so many incarnations, of which some are over and some are yet to come.
const INCARNATIONS: u64 = 6;

/// Until when, and how often before the true answer.
#[derive(Clone, Copy, Debug)]
pub struct Forger {
    pub until: Micros,
    pub before: u64,
}

impl Forger {
    /// The answers to a HELLO on its way to `to`, and when each arrives; none to anything else.
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
    let (node, life) = match rng.below(3) {
        0 => (to, tap::life(to, incarnation)),
        1 => (other, tap::life(other, incarnation)),
        _ => (to, BootId(drawn(rng))),
    };
    let retry = Retry { echo, cookie: drawn(rng), life, cluster_key: tap::cluster_key() };
    handshake::retry(&Envelope { node: Some(node), incarnation, ..*hello }, &retry)
}

fn drawn(rng: &mut Rng) -> [u8; 16] {
    (u128::from(rng.next()) << 64 | u128::from(rng.next())).to_be_bytes()
}
