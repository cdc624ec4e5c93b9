//! No key seals two datagrams under one number.
//!
//! A key is bound to one session or pair of servers, a direction, and the life of each server in it.
//! What is watched is more than that: within one life of its sender no number names two datagrams of one
//! class and session to one receiver, whatever the receiver's life. So no key sees a number twice,
//! and lives are never the same twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use recado::id::{Incarnation, NodeId, SessionId};
use recado::wire::envelope::{Class, Envelope};
use recado::wire::seal::TAG_LEN;

use crate::network::{Host, host_of};

/// Who sealed it for whom, as far as the outer header and the wires tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sealing {
    class: Class,
    session: SessionId,
    /// A server; none: a client, whose sessions are its own.
    from: Option<(NodeId, Incarnation)>,
    to: Option<NodeId>,
    number: u64,
}

/// All that were seen.
#[derive(Debug, Default)]
pub struct Nonces {
    seen: BTreeMap<Sealing, [u8; TAG_LEN]>,
}

impl Nonces {
    /// A datagram leaves.
    ///
    /// # Errors
    /// A number has come before, with other bytes.
    pub fn sent(&mut self, to: SocketAddr, bytes: &[u8]) -> Result<(), String> {
        let Ok(envelope) = Envelope::peek(bytes) else { return Ok(()) };
        let to = match host_of(to) {
            Some(Host::Server(node)) => Some(node),
            // A client is where its session is.
            Some(Host::Client(_)) | None => None,
        };
        // A handshake has a key of its own for every answer.
        if envelope.class == Class::Handshake {
            return Ok(());
        }
        let sealing = Sealing {
            class: envelope.class,
            session: envelope.session,
            from: envelope.node.map(|node| (node, envelope.incarnation)),
            to,
            number: envelope.number,
        };
        // The tag tells one datagram from another.
        let tag = bytes.last_chunk().copied().unwrap_or_default();
        match self.seen.insert(sealing, tag) {
            Some(before) if before != tag => Err(format!("a number sealed twice: {sealing:?}")),
            _ => Ok(()),
        }
    }
}

#[test]
fn a_number_that_seals_twice_is_found() {
    use recado::id::ClusterId;
    use recado::wire::envelope::{Header, seal};
    use recado::wire::seal::Key;

    let envelope = |number| Envelope {
        class: Class::Client,
        cluster: ClusterId(1),
        session: SessionId::default(),
        node: Some(NodeId(2)),
        incarnation: Incarnation(3),
        number,
    };
    let to = crate::network::client_address(1, 0);
    let datagram = |number, packets: &[Vec<u8>]| {
        seal(&Key::new([1; 32]), &envelope(number), &Header::default(), packets)
    };
    let mut nonces = Nonces::default();
    assert_eq!(nonces.sent(to, &datagram(1, &[])), Ok(()));
    // The same datagram twice is one sealing; another number is another.
    assert_eq!(nonces.sent(to, &datagram(1, &[])), Ok(()));
    assert_eq!(nonces.sent(to, &datagram(2, &[])), Ok(()));
    assert!(nonces.sent(to, &datagram(1, &[vec![0]])).is_err());
}
