//! Nonce check: no key seals two datagrams under one number.
//!
//! A key is bound to one session or pair of servers, a direction, and the boot id of each server in it. The
//! check is stricter: within one boot of the sender, no number occurs in two datagrams of one class and
//! session to one receiver, whatever the receiver's boot. So no key sees a number twice, provided that no two
//! boots have the same boot id; that is checked wherever a boot id is sent.

use std::collections::BTreeMap;

use recado_proto::envelope::{Class, Envelope, PeerHello};
use recado_proto::handshake::Handshake;
use recado_proto::id::{BootId, Incarnation, NodeId, SessionId};
use recado_proto::noise::OPENING_LEN;
use recado_proto::seal::TAG_LEN;

/// A server in one boot, as the outer header names it.
pub type Sender = (NodeId, Incarnation);

/// The sender and receiver of a sealed datagram, as far as the outer header and the wire show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sealing {
    class: Class,
    session: SessionId,
    /// A server; `None` for a client, whose sessions are its own.
    from: Option<Sender>,
    to: Option<NodeId>,
    number: u64,
}

/// All datagrams seen.
#[derive(Debug, Default)]
pub struct Nonces {
    seen: BTreeMap<Sealing, [u8; TAG_LEN]>,
    boot_ids: BTreeMap<BootId, Sender>,
    /// The datagrams of the answers of handshakes, by the second message, which has one key, and their
    /// number.
    answers: BTreeMap<([u8; OPENING_LEN], u64), [u8; TAG_LEN]>,
}

impl Nonces {
    /// Takes a datagram to a server; `to` is `None` for one to a client, which its session identifies.
    ///
    /// # Errors
    /// A number was seen before with other bytes, or a boot id in another process.
    pub fn sent(&mut self, to: Option<NodeId>, bytes: &[u8]) -> Result<(), String> {
        let Ok(envelope) = Envelope::peek(bytes) else { return Ok(()) };
        let from = envelope.node.map(|node| (node, envelope.incarnation));
        match envelope.class {
            Class::Handshake => return self.answers_once(envelope.number, bytes),
            Class::PeerHello => self.lives_once(from, bytes)?,
            Class::Client | Class::Peer => {}
        }
        let Envelope { class, session, number, .. } = envelope;
        let sealing = Sealing { class, session, from, to, number };
        // The tag identifies a datagram.
        let tag = bytes.last_chunk().copied().unwrap_or_default();
        match self.seen.insert(sealing, tag) {
            Some(before) if before != tag => Err(format!("a number sealed twice: {sealing:?}")),
            _ => Ok(()),
        }
    }

    /// A handshake has its own key for every answer, which may come in several datagrams.
    fn answers_once(&mut self, number: u64, bytes: &[u8]) -> Result<(), String> {
        let Ok((envelope, Handshake::Answer(opening))) = Handshake::read(bytes) else { return Ok(()) };
        let tag = bytes.last_chunk().copied().unwrap_or_default();
        match self.answers.insert((*opening, number), tag) {
            Some(before) if before != tag => {
                let (of, length) = (envelope.node, bytes.len());
                Err(format!("two answers sealed under number {number} of one key by {of:?}: {length} bytes"))
            }
            _ => Ok(()),
        }
    }

    fn lives_once(&mut self, from: Option<Sender>, hello: &[u8]) -> Result<(), String> {
        let (Some(from), Ok(boot_id)) = (from, PeerHello::peek(hello)) else { return Ok(()) };
        match self.boot_ids.insert(boot_id, from) {
            Some(before) if before != from => {
                Err(format!("{before:?} and {from:?} are one boot_id: {boot_id:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Returns the number of datagrams seen of a class.
    pub fn seen(&self, class: Class) -> usize {
        self.seen.keys().filter(|sealing| sealing.class == class).count()
    }

    /// Returns the number of boot ids seen.
    pub fn boot_ids(&self) -> usize {
        self.boot_ids.len()
    }
}

#[cfg(test)]
mod tests {
    use recado_proto::envelope::{Header, seal};
    use recado_proto::id::{ClusterId, Moment, View};
    use recado_proto::link::Link;
    use recado_proto::packet::ToClient;
    use recado_proto::seal::{Key, PacketKeys};

    use super::*;

    fn keys() -> PacketKeys {
        Key::new([1; 32]).into()
    }

    fn envelope(class: Class, incarnation: u64, number: u64) -> Envelope {
        Envelope {
            class,
            cluster: ClusterId(1),
            session: SessionId::default(),
            node: Some(NodeId(2)),
            incarnation: Incarnation(incarnation),
            number,
        }
    }

    #[test]
    fn a_number_that_seals_twice_is_found() {
        let datagram = |number, packets: &[Vec<u8>]| {
            seal(&mut keys(), &envelope(Class::Client, 3, number), &Header::default(), packets)
        };
        let mut nonces = Nonces::default();
        assert_eq!(nonces.sent(None, &datagram(1, &[])), Ok(()));
        // The same datagram twice is one sealing. Another number is another sealing.
        assert_eq!(nonces.sent(None, &datagram(1, &[])), Ok(()));
        assert_eq!(nonces.sent(None, &datagram(2, &[])), Ok(()));
        assert!(nonces.sent(None, &datagram(1, &[vec![0]])).is_err());
    }

    /// The datagrams that a server sends a backup from its first number on.
    fn first_words(incarnation: u64, words: u64) -> Vec<Vec<u8>> {
        let mut link = Link::new(envelope(Class::Peer, incarnation, 0), keys());
        let mut out = Vec::new();
        for word in 0..3 {
            link.transmit(Moment(0), View(4), &[ToClient::PathChallenge(words + word)], None, &mut out);
        }
        out
    }

    #[test]
    fn a_server_that_reuses_packet_numbers_under_its_old_incarnation_is_found() {
        let backup = Some(NodeId(1));
        let mut nonces = Nonces::default();
        let before_the_crash = first_words(7, 0);
        assert!(before_the_crash.iter().all(|bytes| nonces.sent(backup, bytes).is_ok()));
        let restarted_well = first_words(8, 100);
        assert!(restarted_well.iter().all(|bytes| nonces.sent(backup, bytes).is_ok()));
        let restarted_badly = first_words(7, 100);
        assert!(restarted_badly.iter().all(|bytes| nonces.sent(backup, bytes).is_err()));
    }

    #[test]
    fn two_processes_with_one_boot_id_are_found() {
        let hello = |boot_id, incarnation| {
            let hello = PeerHello::new(BootId([boot_id; 16]), None);
            hello.seal(&Key::new([1; 32]), &envelope(Class::PeerHello, incarnation, 1))
        };
        let mut nonces = Nonces::default();
        assert_eq!(nonces.sent(Some(NodeId(1)), &hello(5, 7)), Ok(()));
        assert_eq!(nonces.sent(Some(NodeId(1)), &hello(6, 8)), Ok(()));
        assert!(nonces.sent(Some(NodeId(1)), &hello(5, 9)).is_err());
        assert_eq!((nonces.seen(Class::PeerHello), nonces.boot_ids()), (2, 2));
    }
}
