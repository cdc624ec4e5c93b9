//! The obstacle to a session: what the client has seen so far of the servers that it asked.

use std::net::SocketAddr;

use recado_proto::id::NodeId;

use super::Machine;

/// The reason why no session is open yet, as far as the client can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Obstacle {
    /// No server has answered at all.
    #[default]
    Silence,
    /// This server answers a HELLO, and no server has answered an INITIATION, which is longer.
    Unproved(SocketAddr),
    /// Other servers name this one as primary, and it has not answered.
    PrimaryUnheard {
        /// Its id.
        node: NodeId,
        /// Its address.
        addr: SocketAddr,
    },
    /// The servers have opened sessions, and each was over before it was served: another client connects as
    /// the same device.
    Contested,
    /// Servers answer, and none of them serves.
    NoPrimary,
}

impl Machine {
    /// The obstacle so far. It tells nothing once a session is open.
    pub fn obstacle(&self) -> Obstacle {
        let unheard = |addr| !self.servers.has_heard(addr);
        let named = self.view.primary().and_then(|node| Some((node, self.servers.address_of(node)?)));
        match (self.servers.first_greeted(), named) {
            // A session may also be lost because its confirmation came late; that does not happen twice.
            _ if self.unserved > 1 => Obstacle::Contested,
            (None, _) => Obstacle::Silence,
            (Some(addr), _) if !self.servers.has_heard_any() => Obstacle::Unproved(addr),
            (_, Some((node, addr))) if unheard(addr) => Obstacle::PrimaryUnheard { node, addr },
            _ => Obstacle::NoPrimary,
        }
    }
}
