//! The engine of this server's log, and the node over it: how they start, and the state that they go on with
//! after a peer's snapshot. No other module chooses an engine.

use std::io;

use recado_log::bully::{self, Bully};
use recado_log::journal::{Disk, IoOp, Journal, JournalError, ReceivedSnapshot, Recovered};
use recado_proto::id::Clock;
use recado_service::Service;

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
    /// The stored snapshot was read and checked before, and the disk cannot read it again.
    #[error("the newest snapshot cannot be read: {0}")]
    Unread(#[from] JournalError),
    /// The entries after the snapshot are not contiguous: the journal's fault.
    #[error(transparent)]
    Log(#[from] bully::Hole),
}

/// The state of the newest snapshot of a journal, read and decoded in pieces; that of an empty log if there
/// is none.
///
/// # Errors
/// [`StartError`].
pub fn restore<D: Disk>(config: &Config, journal: &Journal<D>) -> Result<Service, StartError> {
    let Some(mut newest) = journal.read_newest()? else { return Ok(node::empty(config)) };
    let (at, length) = ((newest.op(), newest.view()), newest.len());
    let opened = node::open_in_pieces(config, at, length, |piece| newest.read_piece(piece));
    Ok(opened.map_err(|source| JournalError::Io { op: IoOp::Read, source })??)
}

/// Starts a server on what its journal holds, with the state of its snapshot.
///
/// # Errors
/// [`StartError`].
pub fn start(
    config: Config,
    recovered: Recovered,
    service: Service,
    identity: BootIdentity,
    clock: Clock,
    out: &mut Vec<Effect>,
) -> Result<Node, StartError> {
    let boot = Boot { incarnation: recovered.meta.incarnation, keys: identity.keys.clone(), service };
    let log = Bully::new(&config.log(), identity, recovered, clock.now)?;
    Ok(Node::new(config, boot, log, clock, out))
}

/// The state of a snapshot that a peer sent, or the reason why it is not taken. It is read twice, in pieces:
/// once to see that it reads as it was written, because the lengths in it are trusted then, and once to be
/// decoded. `goes_on` is called after each piece, and may end this with an error.
///
/// # Errors
/// That of the disk, or of `goes_on`; or the snapshot does not read as it was written.
pub fn open_received<D: Disk>(
    config: &Config,
    received: &ReceivedSnapshot<D>,
    mut goes_on: impl FnMut() -> io::Result<()>,
) -> io::Result<Result<Box<Service>, SnapshotError>> {
    let (mut checked, mut piece) = (received.read(), Vec::new());
    loop {
        checked.read_piece(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        goes_on()?;
    }
    drop(piece);
    let mut reading = received.read();
    let opened = node::open_in_pieces(config, (received.op(), received.view()), received.len(), |piece| {
        goes_on()?;
        reading.read_piece(piece)
    })?;
    goes_on()?;
    Ok(opened.map(Box::new))
}
