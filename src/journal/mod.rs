//! The journal: log, snapshots and meta of one server. The only code that touches files, behind
//! the small traits [`Disk`] and [`DiskFile`], so that the simulator runs this very code on a disk
//! that loses what was not synced.
//!
//! Invariant: one owner, no threads, no locks; errors are never retried (a retried fsync lies).

use std::io;

use crate::entry::Entry;
use crate::id::{ClusterId, Incarnation, NodeId, Op, View};

/// A directory.
pub trait Disk: Send {
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

/// Ops that damage may have taken: unknown, never absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first op that may be lost.
    pub first: Op,
    /// The last one.
    pub last: Op,
    /// No lost entry is of a higher view.
    pub view_max: View,
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
    pub lost: Option<Lost>,
}
