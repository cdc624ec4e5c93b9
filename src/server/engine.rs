//! The engine of this server's log, and the node over it. No other module chooses an engine.

use recado_log::bully::{self, Bully};
use recado_log::journal::Recovered;
use recado_proto::id::Clock;

use super::node::{self, Boot, SnapshotError};
use crate::config::Config;

pub use recado_log::bully::BootIdentity;

/// The node of this server.
pub type Node = node::Node<Bully>;

/// An input of the node.
pub type Input = node::Input<bully::Input>;

/// An effect of the node.
pub type Effect = node::Effect<bully::Effect>;

/// Reason why a server cannot start on what its journal holds. Our fault or the operator's; nothing was
/// changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The stored snapshot is not one that this server can have stored.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The entries after the snapshot are not contiguous: the journal's fault.
    #[error(transparent)]
    Log(#[from] bully::Hole),
}

/// Starts a server on what its journal holds.
///
/// # Errors
/// [`StartError`].
pub fn start(
    config: Config,
    recovered: Recovered,
    identity: BootIdentity,
    clock: Clock,
    out: &mut Vec<Effect>,
) -> Result<Node, StartError> {
    let service = node::restore(&config, recovered.snapshot.as_ref())?;
    let boot = Boot { incarnation: recovered.meta.incarnation, keys: identity.keys.clone(), service };
    let log = Bully::new(&config.log(), identity, recovered, clock.now)?;
    Ok(Node::new(config, boot, log, clock, out))
}
