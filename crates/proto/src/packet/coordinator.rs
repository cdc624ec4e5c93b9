//! COORDINATOR, which servers and clients receive.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{MEMBERS_MAX, NodeId, View};

/// COORDINATOR: to servers and to clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinator {
    /// The active view as far as the sender knows; [`View::ZERO`] if it knows none.
    pub view: View,
    /// The addresses of all servers for clients, by id; the primary is `view.primary()`.
    pub members: Vec<(NodeId, SocketAddr)>,
    /// What each server of `members` is there for, in their order; one that is left out is 0, a member with a
    /// vote. Clients of this version take every server alike.
    #[serde(with = "crate::bulk")]
    pub roles: Vec<u8>,
}

impl Coordinator {
    pub(super) fn is_bounded(&self) -> bool {
        self.members.len() <= MEMBERS_MAX && self.roles.len() <= self.members.len()
    }
}
