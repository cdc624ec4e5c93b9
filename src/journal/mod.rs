//! The journal: log, snapshots and meta of one server. The only code that touches files, behind
//! the small traits [`Disk`] and [`DiskFile`], so that the simulator runs this very code on a disk
//! that loses what was not synced.
//!
//! Invariant: one owner, no threads, no locks; errors are never retried (a retried fsync lies).
//!
//! | file | holds |
//! |---|---|
//! | `meta` | two slots: whose directory this is, and what its server has promised |
//! | `log.S` | a segment: records from serial S on |
//! | `snap.X` | the applied state at op X |
//! | `reserve` | space given back when the disk is full |
//! | `tmp.*` | being written; removed at the next start |
//! | `old.*` | set aside because it could not be trusted; removed after three good snapshots |
//!
//! # The log
//! Records are only ever appended. Each has a **serial**, dense in the directory, and names the
//! serial that was **durable** when it was written, the op that was **committed** as far as its
//! writer knew, and the last (op, view) of the log including itself.
//!
//! *Superseding goes by file order*: an entry with `op <= last` supersedes from there, whatever its
//! view. DESIGN.md section 5 says "and a higher view"; but a candidate that held 9@v5, which never
//! committed, may have to adopt a better log with 9@v4, 10@v6. File order is right in both cases.
//!
//! *A segment begins with a start record*: the (op, view) at which the log then stood, the last
//! serial that counts before it, and what was lost by then. Every start of the server opens a fresh
//! segment, so recovery never writes where something may stand, and whatever a recovery cut stays
//! cut: serials between the one a start record names and its own are void.
//!
//! # Torn or rotten
//! Let D be the highest durable serial that any live record names. The chain of serials is followed
//! from the last start record that the snapshot covers. If it ends at or beyond D, the rest was never
//! synced, so never acknowledged, and is cut. If it ends before D, bytes that were once durable are
//! damaged: of the log only what was certainly committed before the damage is known, and everything
//! above is [`Unknown`]: unknown, never absent. Damage before that start record is harmless. The residue:
//! a record that rots before any later record names it durable looks torn; a marker within a second
//! ([`Journal::needs_mark`]) bounds that window.
//!
//! # Meta
//! A slot is one sector of 512 bytes, which disks write whole or not at all. So a slot whose CRC
//! fails was not torn by a crash: it has rotted, may have held the newest promise, and the directory
//! counts as empty. Both slots are fsynced before a promise counts.
//!
//! # A full disk
//! Space is allocated before anything is written to it. If that fails, the reserve is given back and
//! the append is refused with [`JournalError::Full`]: nothing was written and nothing is broken.
//! Promises, which need no new space, could still be made; a server makes none, but stops in order,
//! because a promise stands behind every append before it. It starts again only when there is room for
//! the reserve and a segment: a server that can write nothing must not be elected. The others go on.

mod directory;
mod error;
mod inspect;
mod log;
mod meta;
mod open;
mod record;
mod recovery;
mod segment;
mod snapshot;
#[cfg(test)]
mod tests;

use std::io;

use crate::config::PlantedBug;
use crate::entry::{Entry, Unknown};
use crate::id::{ClusterId, Incarnation, NodeId, Op, View};

pub use directory::{Directory, DirectoryFile};
pub use error::{IoOp, JournalError};
pub use inspect::{Inspection, LogRange, MetaState, SnapshotRange, check, inspect, inspect_disk};
pub use log::Journal;
pub use snapshot::{SnapshotJob, SnapshotPiece, SnapshotWritten};

/// A directory. Clones are handles on the same one.
pub trait Disk: Clone + Send {
    /// Its files.
    type File: DiskFile;
    /// The names of the files there, ascending.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Makes a file (emptying one of that name).
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Renames, replacing.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync(&self) -> io::Result<()>;
}

/// A file of it.
pub trait DiskFile: Send {
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads exactly `buffer.len()` bytes.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes`. Not durable before [`DiskFile::sync`].
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Grows it with zeros to `len`, so that later writes need no new blocks.
    fn allocate(&mut self, len: u64) -> io::Result<()>;
    /// fdatasync.
    fn sync(&mut self) -> io::Result<()>;
}

/// What a directory is, and what its server has promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Of which server.
    pub node: NodeId,
    /// The ids of all members, ascending.
    pub members: Vec<NodeId>,
    /// Whether it votes; one that started without meta is a learner first.
    pub voter: bool,
    /// How often it has started.
    pub incarnation: Incarnation,
    /// It accepts nothing below.
    pub promised: View,
}

/// Whose directory a starting server expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Of which server.
    pub node: NodeId,
    /// The ids of all members, ascending.
    pub members: Vec<NodeId>,
}

impl Expected {
    /// Whether there is no other server to bring back what this one has lost.
    fn is_alone(&self) -> bool {
        self.members.len() < 2
    }
}

/// How a journal is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Log files grow in steps of so many bytes, and the reserve is as large. Not zero.
    pub step: u64,
    /// Where incarnations go on when the directory does not know its past: peers drop what comes
    /// from below the highest they know. The caller takes something that grows from one replaced
    /// disk to the next; the seconds since 1970 do.
    pub incarnation_floor: Incarnation,
    /// For the simulator only.
    pub planted: PlantedBug,
}

impl Default for Options {
    /// 4 MiB: a second of heavy traffic, so that growing (which touches the file system's own
    /// journal) is rare, and little to waste at a restart.
    fn default() -> Self {
        Options { step: 4 * 1024 * 1024, incarnation_floor: Incarnation(0), planted: PlantedBug::default() }
    }
}

/// A snapshot as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// The last op in it.
    pub op: Op,
    /// That op's view.
    pub view: View,
    /// The rest, opaque here.
    pub bytes: Vec<u8>,
}

/// What a start finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The meta, its incarnation already counted up and durable.
    pub meta: Meta,
    /// The newest good snapshot.
    pub snapshot: Option<StoredSnapshot>,
    /// The log after it, without a hole.
    pub entries: Vec<Entry>,
    /// What damage took after that, if any.
    pub lost: Option<Unknown>,
}

/// The number in a name like `log.00000000000000000012`.
fn numbered(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    let number = (digits.len() == 20).then(|| digits.parse().ok()).flatten();
    // No server lives to write so many records: that is no file of ours.
    number.filter(|number| *number < u64::MAX / 2)
}

fn log_name(first: u64) -> String {
    format!("log.{first:020}")
}

fn snapshot_name(op: Op) -> String {
    format!("snap.{:020}", op.0)
}
