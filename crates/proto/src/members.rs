//! The list of members, as an entry of the log and a snapshot carry it.
//!
//! The members are those of the configuration, and no server proposes such an entry. A server that meets one
//! all the same refuses the packet or the directory that has it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::id::{Epoch, Incarnation, MEMBERS_MAX, NodeId};

/// A member of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id, from 1.
    pub id: NodeId,
    /// The address for clients; its port is not zero.
    pub client: SocketAddr,
    /// The address for the other members; its port is not zero.
    pub peer: SocketAddr,
    /// The incarnation with which it joined; zero: it is a member from the beginning.
    pub joined: Incarnation,
    /// What it is there for; zero: it has a vote. No other value is defined.
    pub role: u8,
}

/// The members of a cluster: the payload of an [`EntryKind::Members`](crate::entry::EntryKind::Members)
/// entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// 1 to [`MEMBERS_MAX`] members, by id ascending. No two have an id or an address in common.
    pub list: Vec<Member>,
    /// The member that may go on alone if two are left, one of the list.
    pub tie_holder: NodeId,
    /// The epoch that the list is of.
    pub epoch: Epoch,
}

/// The member that holds the tie unless a list names another: the one with the highest id.
pub fn default_tie_holder(ids: impl IntoIterator<Item = NodeId>) -> NodeId {
    ids.into_iter().max().unwrap_or(NodeId(0))
}

impl Members {
    /// Decodes the payload of an entry.
    ///
    /// # Errors
    /// [`DecodeError`]; the fault of the server that made the entry, nothing changed.
    pub fn decode(payload: &[u8]) -> Result<Members, DecodeError> {
        let members: Members = codec::decode(payload)?;
        members.check()?;
        Ok(members)
    }

    /// Checks the list against the bounds that its fields name.
    ///
    /// # Errors
    /// [`DecodeError::Bounds`].
    pub fn check(&self) -> Result<(), DecodeError> {
        let list = &self.list;
        let addresses = |member: &Member| [member.client, member.peer];
        let mut all: Vec<SocketAddr> = list.iter().take(MEMBERS_MAX).flat_map(addresses).collect();
        all.sort_unstable();
        let well = (1..=MEMBERS_MAX).contains(&list.len())
            && list.first().is_some_and(|first| first.id > NodeId(0))
            && list.iter().is_sorted_by(|one, next| one.id < next.id)
            && list.iter().any(|member| member.id == self.tie_holder)
            && all.iter().all(|address| address.port() > 0)
            && all.iter().is_sorted_by(|one, next| one < next);
        if well { Ok(()) } else { Err(DecodeError::Bounds) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex::Hex;

    fn member(id: u16) -> Member {
        Member {
            id: NodeId(id),
            client: ([192, 0, 2, 1], 10_000 + id).into(),
            peer: ([0x2001, 0xdb8, 0, 0, 0, 0, 0, id], 11_000).into(),
            joined: Incarnation(u64::from(id) - 1),
            role: 0,
        }
    }

    fn members(ids: &[u16]) -> Members {
        let list = ids.iter().map(|id| member(*id)).collect();
        Members { list, tie_holder: NodeId(2), epoch: Epoch(0x0102_0304_0506_0708) }
    }

    /// The bytes are in logs and snapshots, so they never change.
    #[test]
    fn a_list_has_its_pinned_bytes() {
        let members = members(&[1, 2]);
        let bytes = codec::encode(&members);
        assert_eq!(
            Hex(&bytes).to_string(),
            "020100c0000201fb11270120010db8000000000000000000000001fbf82a00000200c0000201fb12270120010db8000000\
             000000000000000002fbf82a010002fd0807060504030201"
        );
        assert_eq!(Members::decode(&bytes), Ok(members));
    }

    #[test]
    fn the_largest_list_is_decoded_and_what_is_out_of_bounds_is_refused() {
        let nine: Vec<u16> = (1..=9).collect();
        let of = |list: Vec<Member>| Members { list, ..members(&[1, 2]) };
        let port = |port: u16| Member { client: ([192, 0, 2, 1], port).into(), ..member(3) };
        for (what, members, good) in [
            ("nine members", members(&nine), true),
            ("ten members", members(&(1..=10).collect::<Vec<_>>()), false),
            ("no members", members(&[]), false),
            ("out of order", members(&[2, 1]), false),
            ("an id twice", members(&[1, 2, 2]), false),
            ("a tie holder that is no member", members(&[1, 3]), false),
            ("an id of zero", of(vec![Member { id: NodeId(0), ..member(1) }, member(2)]), false),
            ("a port of zero", of(vec![member(2), port(0)]), false),
            ("an address twice", of(vec![member(2), port(10_002)]), false),
            ("another address", of(vec![member(2), port(10_003)]), true),
        ] {
            let refused = Err(DecodeError::Bounds);
            let expected = if good { Ok(members.clone()) } else { refused };
            assert_eq!(Members::decode(&codec::encode(&members)), expected, "{what}");
        }
        let bytes = codec::encode(&members(&[1, 2]));
        for len in 0..bytes.len() {
            assert_eq!(Members::decode(&bytes[..len]), Err(DecodeError::Truncated), "{len} bytes");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Members::decode(&longer), Err(DecodeError::TrailingBytes));
    }
}
