//! The journal: log, snapshots and meta of one server. It is the only code that touches the files in a
//! server's data directory. It does so through the small traits [`Disk`] and [`DiskFile`], so that the
//! simulator runs this code on a disk that loses unsynced writes.
//!
//! Invariant: one owner, no threads, no locks; errors are never retried, because a retried fsync may report
//! success for data that it has dropped.
//!
//! | file | holds |
//! |---|---|
//! | `meta` | two slots: the directory's cluster and server, its promises, and the mark |
//! | `log.S` | a segment: records from serial S on |
//! | `snap.X` | the applied state at op X |
//! | `reserve` | space that is given back when the disk is full |
//! | `tmp.*` | being written; removed at the next start |
//! | `old.*` | set aside because it could not be trusted; removed once there are three good snapshots |
//!
//! All of them are regular files. If one of these names is a link, a folder or anything else, a start is
//! refused before anything is touched: a file behind a link would otherwise count as absent.
//!
//! # The log
//! Records are only appended. Each has a **serial**, dense in the directory. Each names the serial that was
//! **durable** when it was written, the op that was **committed** as far as its writer knew, and the last
//! (op, view) of the log including itself.
//!
//! *Superseding goes by file order*: an entry with `op <= last` supersedes from there, whatever its view
//! (DESIGN.md section 5). A candidate that held 9@v5, which never committed, may have to adopt a better log
//! with 9@v4, 10@v6.
//!
//! *A segment begins with a start record*: the (op, view) at which the log then ended, the last serial that
//! counts before it, and the ops that were lost by then. Every start of the server opens a new segment, so
//! a recovery never writes over existing bytes. The serials between the one that a start record names and
//! its own are void, so a record that a recovery cut stays cut.
//!
//! # Torn write or bit rot
//! The evidence of how much was durable must not be lost together with the data that it describes.
//! Therefore meta has a **mark**: the highest serial that this server's own completed fsyncs cover, the op
//! at which the log then ended, and the newest segment. The mark is written only after such an fsync: when
//! a segment begins (before anything is appended to it, and before an older one is removed), with each
//! promise, when idle, at an orderly end, and twice a second under load ([`Journal::needs_mark`]).
//!
//! Let D be the highest of the mark's serial and of the serials that valid records name durable. Recovery
//! follows the chain of serials from the last start record that the snapshot covers. If the chain ends at
//! or beyond D, the rest was never synced, so never acknowledged, and is cut. If it ends before D, bytes
//! that were once durable are damaged or missing: a sector, the end of a file, a file, or the whole log.
//! Then the ops certainly committed before the damage are known, and all ops above, up to the mark's op and
//! the highest op that any record names, are [`Unknown`], which is never the same as absent. Damage before
//! that start record is harmless. One case remains: records that were fsynced after the last mark, and that
//! no later record names durable, look torn if they are damaged.
//!
//! A file, a block or a slot that the disk cannot read or open any more (EIO, EUCLEAN, EBADMSG) counts as
//! damage, and a peer repairs it. A file that the disk cannot open can be neither renamed nor removed: it
//! stays in the directory and is never read. A `meta` that cannot be replaced for this reason ends every
//! start until fsck has repaired it. Other read errors end the start.
//!
//! # Meta
//! Two slots, a sector each, written in turn. Promise, incarnation, vote and the known boots of the
//! other servers are in both slots before a packet that depends on them is sent, so one bad slot loses
//! nothing: the other one is used, and a start writes both again before it sends anything. If neither can
//! be read, the promises are unknown, and the directory counts as empty.
//!
//! # Memory
//! Log files are read in blocks, and entries that the newest snapshot covers are not held. A start needs
//! memory for the state and for the log after it, whatever the length of the files.
//!
//! # Versions
//! Each file names its version, under a checksum that is at the same place in every version. A file of
//! another version is refused ([`JournalError::OtherVersion`]) before anything is touched. So is a directory
//! of this version in which a later program has written what this one does not follow
//! ([`JournalError::Unsupported`]): another group or epoch, a change of the members, a record or an entry of
//! an unknown kind.
//!
//! # A full disk
//! Space is allocated before anything is written to it. If that fails, the reserve is given back and the
//! append is refused with [`JournalError::Full`]: nothing was written and nothing is broken. Promises need
//! no new space and could still be written, but a promise covers every append before it. Therefore the
//! server makes none and stops in order; the other servers continue. It starts again only when there is
//! room for the reserve, a segment and a snapshot as large as the last, because a server that can write
//! nothing must not be elected. If space runs out in the middle of an operation (meta on a file system that
//! copies on write, a received snapshot whose segment finds no room), the journal is poisoned until a
//! restart.
//!
//! # Reading order
//! The types below; `format`, `meta` and `record` (the bytes of the files); `segment` and `scan` (a log file
//! as it is written and as it is read); `snapshot`; `receive` (that of a peer); `recovery` (the log that the
//! records of a directory give); `open` (a start); `log` (the running journal); then `directory` (the disk of
//! a running server), `inspect` and `error`.

mod directory;
mod error;
mod format;
mod inspect;
mod log;
mod meta;
mod open;
mod receive;
mod record;
mod recovery;
mod scan;
mod segment;
mod snapshot;
#[cfg(test)]
mod tests;

use std::io;

use recado_proto::entry::{Entry, Unknown};
use recado_proto::id::{ClusterId, Epoch, Incarnation, KnownBoot, NodeId, Op, View};
use recado_proto::members::default_tie_holder;
use recado_proto::planted::PlantedBug;

pub use directory::{Directory, DirectoryFile, Seen};
pub use error::{IoOp, JournalError};
pub use inspect::{Checked, Inspection, LogRange, MetaState, SnapshotRange, check, inspect, inspect_disk};
pub use log::{Journal, Removal, Removed, SNAPSHOTS_KEPT};
pub use open::check_ours;
pub use receive::{Receipt, ReceivedReading, ReceivedSnapshot};
pub use snapshot::{
    NewestReading, SNAPSHOT_PIECE, SnapshotFile, SnapshotJob, SnapshotPiece, SnapshotReading,
    SnapshotWritten, Unfinished,
};

/// A directory of files. Clones are handles on the same directory.
pub trait Disk: Clone + Send {
    /// The type of its files.
    type File: DiskFile;
    /// The names of the regular files there, ascending.
    fn list(&self) -> io::Result<Vec<String>>;
    /// The names of everything that is not a regular file, ascending.
    fn list_others(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Makes a file, or empties the file of that name.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Renames a file, and replaces the file that has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync(&self) -> io::Result<()>;
}

/// A file in a [`Disk`].
pub trait DiskFile: Send {
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Returns true if the length is zero.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads exactly `buffer.len()` bytes.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// The offset of the first bytes at or after `offset` that may not be zero; `None` if only zeros
    /// follow.
    fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
    /// Writes all of `bytes`. Not durable before [`DiskFile::sync`].
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Grows the file with zeros to `len`, so that later writes need no new blocks.
    fn allocate(&mut self, len: u64) -> io::Result<()>;
    /// Makes the content durable (fdatasync).
    fn sync(&mut self) -> io::Result<()>;
}

/// The identity of a directory, and the promises of its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The cluster that the directory belongs to.
    pub cluster: ClusterId,
    /// The server that the directory belongs to.
    pub node: NodeId,
    /// The epoch of the log in the directory.
    pub epoch: Epoch,
    /// The op of the entry that named the members; zero: the configuration named them.
    pub members_op: Op,
    /// The member that may go on alone if two are left.
    pub tie_holder: NodeId,
    /// All members, by id ascending.
    pub members: Vec<Member>,
    /// True if the server votes. A server that started without meta is a learner first.
    pub voter: bool,
    /// One more than at the start before. It begins at zero, or, in a directory that does not know its past,
    /// at [`Options::incarnation_floor`].
    pub incarnation: Incarnation,
    /// The promised view: the server accepts nothing below it.
    pub promised: View,
}

/// A member in meta. Its addresses are in the configuration, and in the log once an entry names the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// The incarnation with which it joined; zero: it is a member from the beginning.
    pub joined: Incarnation,
    /// The latest boot of it that is known here; zero and none of this server itself.
    pub known: KnownBoot,
}

impl Meta {
    /// The meta of a server that has never promised anything, in a cluster that is made with these members,
    /// ascending.
    pub fn new(cluster: ClusterId, node: NodeId, members: impl IntoIterator<Item = NodeId>) -> Meta {
        let member = |id| Member { id, joined: Incarnation(0), known: KnownBoot::default() };
        let members: Vec<Member> = members.into_iter().map(member).collect();
        Meta {
            cluster,
            node,
            epoch: Epoch::FIRST,
            members_op: Op::ZERO,
            tie_holder: default_tie_holder(members.iter().map(|member| member.id)),
            members,
            voter: true,
            incarnation: Incarnation(0),
            promised: View::ZERO,
        }
    }

    /// The ids of the members, ascending.
    pub(crate) fn member_ids(&self) -> impl Iterator<Item = NodeId> {
        self.members.iter().map(|member| member.id)
    }

    /// The latest known boot of each member that was heard of.
    pub fn known(&self) -> Vec<(NodeId, KnownBoot)> {
        let heard = self.members.iter().filter(|member| member.known != KnownBoot::default());
        heard.map(|member| (member.id, member.known)).collect()
    }
}

/// The mark: the records that were durable when meta was written. Damage to the log does not affect it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// All records up to this serial were durable; zero means none.
    pub serial: u64,
    /// The log's last op at that serial, or the last unknown op if that is higher.
    pub op: Op,
    /// The view of the log's last op at that serial.
    pub view: View,
    /// The first serial of the newest segment.
    pub segment: u64,
}

/// The identity that a starting server expects of its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The cluster in the configuration.
    pub cluster: ClusterId,
    /// The server in the configuration.
    pub node: NodeId,
    /// The ids of all members, ascending.
    pub members: Vec<NodeId>,
}

impl Expected {
    /// Returns true if no other server can bring back entries that this one has lost.
    fn is_alone(&self) -> bool {
        self.members.len() < 2
    }
}

/// The options for opening a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Log files grow in steps of this many bytes, and the reserve has this length. Not zero.
    pub step: u64,
    /// The least incarnation of a directory that does not know its past. Peers drop packets of an
    /// incarnation below the highest they know, so the caller passes a number that grows from one replaced
    /// disk to the next, such as the seconds since 1970.
    pub incarnation_floor: Incarnation,
    /// For the simulator only.
    pub planted: PlantedBug,
}

impl Default for Options {
    /// 4 MiB: a second of heavy traffic. Growing, which writes to the file system's own journal, is rare,
    /// and little space is lost at a restart.
    fn default() -> Self {
        Options { step: 4 * 1024 * 1024, incarnation_floor: Incarnation(0), planted: PlantedBug::default() }
    }
}

/// A snapshot that is stored. [`Journal::read_newest`] reads its state, which is opaque to the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// The last op in it.
    pub op: Op,
    /// That op's view.
    pub view: View,
}

/// The result of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The meta. Its incarnation is already counted up and durable.
    pub meta: Meta,
    /// The newest good snapshot, all of which was read and checked.
    pub snapshot: Option<StoredSnapshot>,
    /// The entries after the snapshot, without a hole.
    pub entries: Vec<Entry>,
    /// The highest op that was known to be committed.
    pub commit: Op,
    /// The ops after that which damage destroyed, if any.
    pub lost: Option<Unknown>,
}

/// The number in a name like `log.00000000000000000012`.
fn numbered(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    let number = (digits.len() == 20).then(|| digits.parse().ok()).flatten();
    // A server cannot live long enough to write so many records, so the journal did not make the file.
    number.filter(|number| *number < u64::MAX / 2)
}

/// Returns true if the journal uses this name for a file.
fn is_ours(name: &str) -> bool {
    let name = ["tmp.", log::ASIDE].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    [meta::NAME, log::RESERVE].contains(&name)
        || ["log.", "snap.", receive::RECEIVED].iter().any(|prefix| numbered(name, prefix).is_some())
}

fn log_name(first: u64) -> String {
    format!("log.{first:020}")
}

fn snapshot_name(number: u64) -> String {
    format!("snap.{number:020}")
}
