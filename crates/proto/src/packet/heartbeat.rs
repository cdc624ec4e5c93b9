//! HEARTBEAT, which holds a view, and TRANSFER, which hands it over.

use serde::{Deserialize, Serialize};

use super::OptionalFields;
use crate::id::{Op, View};

/// HEARTBEAT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The highest view that the sender has promised; a primary's own.
    pub view: View,
    /// The sender's state: primary of that view or not, and whether that view is active.
    pub state: HeartbeatState,
    /// The sender's commit.
    pub commit: Op,
    /// The sender's last op.
    pub last: Op,
    /// A counter that the primary raises with each heartbeat; a backup echoes the highest one it heard.
    pub beat: u64,
    /// True if the sender is about to stop, and so is no target of a TRANSFER.
    pub leaving: bool,
    /// The digest of the sender's members list.
    pub members: u64,
    /// The slowest recent turn of the sender's journal, including the one under way, in ms.
    pub disk_ms: u32,
    /// The op of the sender's list of members; zero while the list is in the files alone.
    pub members_op: Op,
    /// The optional fields.
    pub options: OptionalFields,
}

/// The state of the sender of a HEARTBEAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeartbeatState {
    /// Not primary: this heartbeat is an echo.
    Backup,
    /// Primary of a view that is not active yet.
    Opening,
    /// Primary of an active view.
    Active,
    /// Primary without a majority; its heartbeats do not count as hearing from a primary.
    Isolated,
}

/// TRANSFER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The view of the primary that hands over.
    pub view: View,
    /// The primary's last op, which the target holds durably.
    pub last: Op,
}
