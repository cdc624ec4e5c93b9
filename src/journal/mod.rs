//! The journal: log, snapshots and meta of one server. The only code that touches files, behind
//! the small traits [`Disk`] and [`DiskFile`], so that the simulator runs this very code on a disk
//! that loses what was not synced.
//!
//! Invariant: one owner, no threads, no locks; errors are never retried (a retried fsync lies).
//!
//! | file | holds |
//! |---|---|
//! | `meta` | two slots: whose directory this is, what its server has promised, and what was durable |
//! | `log.S` | a segment: records from serial S on |
//! | `snap.X` | the applied state at op X |
//! | `reserve` | space given back when the disk is full |
//! | `tmp.*` | being written; removed at the next start |
//! | `old.*` | set aside because it could not be trusted; removed after three good snapshots |
//!
//! All of them are regular files. Where one of these names is a link, a folder or anything else, a start is refused
//! before anything is touched: what a file is behind a link would else count as absent.
//!
//! # The log
//! Records are only ever appended. Each has a **serial**, dense in the directory, and names the
//! serial that was **durable** when it was written, the op that was **committed** as far as its
//! writer knew, and the last (op, view) of the log including itself.
//!
//! *Superseding goes by file order*: an entry with `op <= last` supersedes from there, whatever its
//! view (DESIGN.md section 5): a candidate that held 9@v5, which never committed, may have to adopt a
//! better log with 9@v4, 10@v6.
//!
//! *A segment begins with a start record*: the (op, view) at which the log then stood, the last
//! serial that counts before it, and what was lost by then. Every start of the server opens a fresh
//! segment, so recovery never writes where something may stand, and whatever a recovery cut stays
//! cut: serials between the one a start record names and its own are void.
//!
//! # Torn or rotten
//! What says how much was durable must not share the fate of what it speaks of. So meta has a **mark**:
//! the highest serial that this server's own completed fsyncs cover, the op at which the log then ended,
//! and the segment it was in. It is written only after such an fsync: when a segment begins (before
//! anything is appended to it, and before an older one is removed), with each promise, when idle, at an
//! orderly end, and twice a second under load ([`Journal::needs_mark`]).
//!
//! Let D be the highest of the mark's serial and of those that live records name durable. The chain of
//! serials is followed from the last start record that the snapshot covers. If it ends at or beyond D, the
//! rest was never synced, so never acknowledged, and is cut. If it ends before D, bytes that were once
//! durable are damaged or missing, be it a sector, the end of a file, a file, or the whole log: what is
//! certainly committed before the damage is known, and everything above, up to the mark's op and any op
//! that a record speaks of, is [`Unknown`]: unknown, never absent. Damage before that start record is
//! harmless. The residue: what was fsynced after the last mark, and that no later record names durable,
//! looks torn if it is damaged.
//!
//! A file, a block or a slot that the disk cannot read or open any more (EIO, EUCLEAN, EBADMSG) is damage like
//! any other, and a peer repairs it. A file that it cannot open either cannot be renamed or removed: it stays
//! where it is, and is never read. Only a `meta` like that ends every start, since none can take its place:
//! fsck has to. Other errors of reading end the start.
//!
//! # Meta
//! Two slots, a sector each, written in turn. Promise, incarnation, vote and the incarnations known of the
//! other servers stand in both before anything that rests on them leaves, so one bad slot costs nothing: the
//! other serves, and a start writes both again before it says anything. If neither can be read, nobody
//! knows what was promised, and the directory counts as empty.
//!
//! # Memory
//! Log files are read in blocks, and what the newest snapshot covers is not held: a start needs the memory
//! of the state and of the log after it, whatever the files' lengths.
//!
//! # Versions
//! Each file names its version, under a checksum that stands in the same place in every version. One of
//! another version is refused ([`JournalError::OtherVersion`]) before anything is touched.
//!
//! # A full disk
//! Space is allocated before anything is written to it. If that fails, the reserve is given back and
//! the append is refused with [`JournalError::Full`]: nothing was written and nothing is broken.
//! Promises, which need no new space, could still be made; a server makes none, but stops in order,
//! because a promise stands behind every append before it. It starts again only when there is room for
//! the reserve, a segment and a snapshot as large as the last: a server that can write nothing must not be elected.
//! The others go on.
//! Where it fails in the middle of something (meta on a file system that copies on write, a received
//! snapshot whose segment finds no room) the journal takes nothing more, and only a restart sorts that out.

mod directory;
mod error;
mod format;
mod inspect;
mod log;
mod meta;
mod open;
mod record;
mod recovery;
mod scan;
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
    /// The names of the regular files there, ascending.
    fn list(&self) -> io::Result<Vec<String>>;
    /// The names of what else is there, ascending.
    fn list_others(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
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
    /// Where the next bytes that may not be zero begin, at or after `offset`; `None`: only zeros follow.
    fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
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
    /// The highest incarnation heard of, of each other member that was heard of.
    pub known: Vec<(NodeId, Incarnation)>,
}

impl Meta {
    /// The highest incarnation heard of this member; zero if none was.
    pub fn known_of(&self, member: NodeId) -> Incarnation {
        let known = self.known.iter().find(|(id, _)| *id == member);
        known.map_or(Incarnation(0), |(_, incarnation)| *incarnation)
    }
}

/// What was durable when meta was written: evidence that does not share the fate of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// All records up to this serial; zero: none.
    pub serial: u64,
    /// The log's last op there, or the last that was unknown by then.
    pub op: Op,
    /// The view of the log's last op there.
    pub view: View,
    /// The first serial of the newest segment.
    pub segment: u64,
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
    /// Up to here it was known to be committed.
    pub commit: Op,
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

/// Whether the journal gives a file this name.
fn is_ours(name: &str) -> bool {
    let name = ["tmp.", log::ASIDE].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    [meta::NAME, log::RESERVE].contains(&name)
        || ["log.", "snap."].iter().any(|prefix| numbered(name, prefix).is_some())
}

fn log_name(first: u64) -> String {
    format!("log.{first:020}")
}

fn snapshot_name(op: Op) -> String {
    format!("snap.{:020}", op.0)
}
