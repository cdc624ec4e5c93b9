//! COORDINATOR, which servers and clients receive.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::OptionalFields;
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
    /// The optional fields.
    pub options: OptionalFields,
}

impl Coordinator {
    /// An announcement in which every member has a vote.
    pub const fn new(view: View, members: Vec<(NodeId, SocketAddr)>) -> Coordinator {
        Coordinator { view, members, roles: Vec::new(), options: OptionalFields::NONE }
    }

    /// It tells a client the interval of its keepalives, in ms.
    pub fn with_keepalive(mut self, ms: u32) -> Coordinator {
        self.options = self.options.with(OptionalFields::KEEPALIVE, ms.to_be_bytes().to_vec());
        self
    }

    /// The interval of keepalives that it tells, in ms; none also if the field has another length.
    pub fn keepalive_ms(&self) -> Option<u32> {
        let bytes = self.options.get(OptionalFields::KEEPALIVE)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    /// It tells a client that another server has started again.
    pub fn with_restarted(mut self) -> Coordinator {
        self.options = self.options.with(OptionalFields::RESTARTED, Vec::new());
        self
    }

    /// Returns true if it tells that another server has started again.
    pub fn tells_restart(&self) -> bool {
        self.options.get(OptionalFields::RESTARTED).is_some()
    }

    /// Checks the limits, also those of the optional fields of the packet that it is a part of: both lists
    /// together are bounded as one, so that ACCEPT_CONN fits into an ANSWER.
    pub(super) fn is_bounded_with(&self, options: &OptionalFields) -> bool {
        let (fields, bytes) = (self.options.0.len() + options.0.len(), self.options.size() + options.size());
        self.members.len() <= MEMBERS_MAX
            && self.roles.len() <= self.members.len()
            && self.options.is_bounded()
            && options.is_bounded()
            && fields <= OptionalFields::FIELDS_MAX
            && bytes <= OptionalFields::BYTES_MAX
    }
}
