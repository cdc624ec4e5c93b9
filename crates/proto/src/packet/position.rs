//! Positions that a client keeps: of which log, and where in it.

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, NodeId, Op};

/// A position in a log, as a client keeps it: its cursor, or the token that its next query must meet.
///
/// An op alone says nothing once servers are restored from an older copy, or once there are several groups.
/// Today's servers are of one group and never restored in place: `group`, `epoch` and `generation` are zero,
/// and a position with others is refused with OtherEpoch.
///
/// Positions have no order: epochs are random, so none is later than another. Only ops of one log are
/// compared.
///
/// ```compile_fail
/// use recado_proto::id::Op;
/// use recado_proto::packet::Position;
/// assert!(Position::of(Op(1)) < Position::of(Op(2)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The group of servers.
    pub group: u16,
    /// The epoch of the log: another one after each restoration.
    pub epoch: Epoch,
    /// The generation of the group's ranges.
    pub generation: u32,
    /// The op. It is read by [`Position::op`] alone, so that nobody takes it for one of today's log unseen.
    op: Op,
}

impl Position {
    /// The position of an op in the log of today's servers.
    pub fn of(op: Op) -> Position {
        Position { op, ..Position::default() }
    }

    /// The op, if the position is of the log of today's servers.
    pub fn op(self) -> Option<Op> {
        (self == Position::of(self.op)).then_some(self.op)
    }
}

/// The server that delivers a session's stream and answers its queries. Today that is the primary, and a
/// packet that names another home is refused with Unsupported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The server; none: the primary, whichever it is.
    pub server: Option<NodeId>,
    /// A counter that the client raises each time it moves to another home.
    pub moves: u64,
}

impl Home {
    /// The primary, as long as no client moves.
    pub const PRIMARY: Home = Home { server: None, moves: 0 };
}
