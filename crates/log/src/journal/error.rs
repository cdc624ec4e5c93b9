//! Errors of the journal. Each says whose fault it is and what state is left.

use std::fmt;
use std::io;

use recado_proto::entry::Unknown;
use recado_proto::id::{ClusterId, NodeId, Op};
pub(super) use recado_sys::durable::is_rot;

/// The operation on the disk that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoOp {
    /// Opening or locking the directory.
    OpenDirectory,
    /// Listing the directory.
    List,
    /// Making, renaming or removing a file, or syncing the directory.
    Directory,
    /// Reading a file.
    Read,
    /// Writing or growing a file.
    Write,
    /// fdatasync of a file.
    Sync,
}

impl fmt::Display for IoOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IoOp::OpenDirectory => "open or lock the directory",
            IoOp::List => "list the directory",
            IoOp::Directory => "create, rename or remove a file",
            IoOp::Read => "read a file",
            IoOp::Write => "write a file",
            IoOp::Sync => "sync a file",
        })
    }
}

/// The reason why the journal cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// An operation on the disk failed. The disk's fault; the journal is poisoned, the server ends.
    #[error("the disk failed: cannot {op}")]
    Io {
        /// The operation that failed.
        op: IoOp,
        /// The error of the system.
        source: io::Error,
    },
    /// This account may not write the directory, or the directory is mounted read-only. The operator's
    /// fault; at the start nothing changed, later the journal is poisoned.
    #[error(
        "this user may not read and write it or a file in it, or its disk is mounted read-only: give the user that runs \
         recadod all of it (ls -la shows whose each file is)"
    )]
    NotWritable(#[source] io::Error),
    /// The journal is poisoned: after an earlier error it does not know what is durable. The disk's fault;
    /// the server ends.
    #[error("the journal is unusable after an earlier disk error; restart the server")]
    Poisoned,
    /// No space. Nothing that was durable is broken; the server does not start, or stops in order.
    #[error("the disk is full; free space on it and restart the server")]
    Full,
    /// There is no directory. The operator's fault; nothing changed.
    #[error(
        "there is no such directory; `recadod init` creates it, and a server whose disk is lost starts on an empty one \
         that you create (mkdir)"
    )]
    Missing,
    /// The path is not a directory. The operator's fault; nothing changed.
    #[error(
        "that is a file, not a directory; `data` in recado.toml names the directory that `recadod init` created"
    )]
    NotADirectory,
    /// A name of the journal is not a regular file. The operator's fault; nothing changed.
    #[error(
        "{0:?} in it is a link, a directory or something else, and must be a regular file: put the file itself there (to \
         keep the data on another disk, move the whole directory and name it as `data` in recado.toml); nothing was changed"
    )]
    NotRegular(String),
    /// The directory has files of others, and no meta. The operator's fault; nothing changed.
    #[error(
        "it is not a data directory: {0:?} in it is not one of recado's files, and there is no meta. Name the directory \
         that `recadod init` made for this server as `data` in recado.toml; nothing was changed"
    )]
    Foreign(String),
    /// Another process holds the directory. The operator's fault; nothing changed.
    #[error("another recadod runs on this directory; stop it first")]
    Locked,
    /// `init` was called on a directory that has files. The operator's fault; nothing changed.
    #[error("the directory already has {0:?} in it; give `recadod init` an empty one")]
    NotEmpty(String),
    /// The directory belongs to another cluster. The operator's fault; nothing changed.
    #[error(
        "the directory belongs to cluster {found}, the configuration to {expected}; use the directory that was created with it"
    )]
    OtherCluster {
        /// The cluster in meta.
        found: ClusterId,
        /// The cluster in the config.
        expected: ClusterId,
    },
    /// The directory belongs to another server. The operator's fault; nothing changed.
    #[error(
        "the directory belongs to {found}, the configuration to {expected}; two servers' directories are mixed up"
    )]
    OtherNode {
        /// The server in meta.
        found: NodeId,
        /// The server in the config.
        expected: NodeId,
    },
    /// A file of the log was written by another server. The operator's fault; nothing changed.
    #[error(
        "{file} is of the log of {} of cluster {}, and the directory of {} of cluster {}: files of two directories are \
         mixed up. Put back this server's own files; or move the directory elsewhere, keep it, and start on an empty one: it fetches \
         everything from the others, if a majority of them has its data",
        found.1, found.0, expected.1, expected.0
    )]
    OtherLog {
        /// The file.
        file: String,
        /// Whose it is.
        found: (ClusterId, NodeId),
        /// Whose the directory is.
        expected: (ClusterId, NodeId),
    },
    /// A file with a good checksum is in another version of the format. The operator's fault; nothing
    /// changed.
    #[error(
        "{file} has version {found} of the format, and this recadod reads version {reads}: run the recadod that \
         wrote it; nothing was changed"
    )]
    OtherVersion {
        /// The name of the file.
        file: String,
        /// Its version.
        found: u8,
        /// The version that this program reads.
        reads: u8,
    },
    /// The directory is of another epoch or group than the first, its members are those of an entry in its
    /// log, or its log has records or entries of an unknown kind: this program follows none of these. The
    /// operator's fault; nothing changed.
    #[error(
        "a later version of recadod wrote this directory, and its cluster was restored, has changed its members, or \
         uses what this version cannot read; run that version; nothing was changed"
    )]
    Unsupported,
    /// The config lists other members. The operator's fault; nothing changed.
    #[error(
        "the directory's cluster has the members {found:?}, the configuration lists {expected:?}; `recadod init` fixes the \
         members: restore the list, or create a new cluster"
    )]
    OtherMembers {
        /// The members in meta.
        found: Vec<u16>,
        /// The members in the config.
        expected: Vec<u16>,
    },
    /// The log of a cluster's only server is damaged, and no other server has the entries. The disk's
    /// fault; nothing changed.
    #[error(
        "the disk has damaged ops {} to {}, and there is no other server to fetch them from: look at the directory \
         with `recadod inspect`, then put a copy of it in its place (what came after the copy is lost), or create a new \
         cluster with `recadod init` elsewhere (its clients start anew)",
        .0.first, .0.last
    )]
    Irreparable(Unknown),
    /// The directory of a cluster's only server is empty or unreadable, and there is no other server to
    /// learn from. The disk's fault; nothing changed.
    #[error(
        "the directory is empty or damaged, and there is no other server to learn from: put a copy of it in its place (what \
         came after the copy is lost), or create a new cluster with `recadod init` elsewhere (its clients start anew)"
    )]
    Forgotten,
    /// More members than meta can name. The operator's fault; nothing changed.
    #[error("{0} members; a cluster has at most {max}", max = recado_proto::id::MEMBERS_MAX)]
    TooManyMembers(usize),
    /// An entry leaves a hole, is at or below the newest snapshot, or is too long. The caller's fault;
    /// nothing was written.
    #[error("entry {op} does not fit a log that ends at {last}")]
    Misplaced {
        /// The entry.
        op: Op,
        /// The log's last op.
        last: Op,
    },
}

impl JournalError {
    /// Returns true if no start with this program and this configuration succeeds on the directory, however
    /// often it is tried: it is another's, or the only server of a cluster has lost what was in it.
    pub fn is_wrong_directory(&self) -> bool {
        match self {
            JournalError::Missing
            | JournalError::NotADirectory
            | JournalError::NotRegular(_)
            | JournalError::Foreign(_)
            | JournalError::OtherCluster { .. }
            | JournalError::OtherNode { .. }
            | JournalError::OtherLog { .. }
            | JournalError::OtherVersion { .. }
            | JournalError::Unsupported
            | JournalError::OtherMembers { .. }
            | JournalError::Irreparable(_)
            | JournalError::Forgotten => true,
            JournalError::Io { .. }
            | JournalError::NotWritable(_)
            | JournalError::Poisoned
            | JournalError::Full
            | JournalError::Locked
            | JournalError::NotEmpty(_)
            | JournalError::TooManyMembers(_)
            | JournalError::Misplaced { .. } => false,
        }
    }
}

/// Turns an [`io::Error`] into a [`JournalError`]: not allowed, no space, or the operation that failed.
pub(super) trait Trying<T> {
    fn during(self, op: IoOp) -> Result<T, JournalError>;
}

impl<T> Trying<T> for io::Result<T> {
    fn during(self, op: IoOp) -> Result<T, JournalError> {
        self.map_err(|source| error_of(op, source))
    }
}

pub(super) fn error_of(op: IoOp, source: io::Error) -> JournalError {
    match source.kind() {
        // Meta is opened for writing at the start, so this is the reason whatever the operation was.
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            JournalError::NotWritable(source)
        }
        _ if is_full(&source) => JournalError::Full,
        _ => JournalError::Io { op, source },
    }
}

/// Returns true if the disk, or the user's quota on it, has no space left.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use recado_proto::id::View;

    use super::*;

    #[test]
    fn a_directory_that_must_not_be_written_is_named_as_such() {
        let refused = |kind: io::ErrorKind| Err::<(), _>(io::Error::from(kind)).during(IoOp::Read);
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
            assert!(matches!(refused(kind), Err(JournalError::NotWritable(_))), "{kind}");
        }
        let rotten = refused(io::ErrorKind::UnexpectedEof);
        assert!(matches!(rotten, Err(JournalError::Io { op: IoOp::Read, .. })));
    }

    #[test]
    fn only_a_directory_on_which_no_start_ever_succeeds_is_the_wrong_one() {
        let lost = Unknown { first: Op(1), last: Op(2), view_max: View::ZERO };
        let wrong = [
            JournalError::Irreparable(lost),
            JournalError::Forgotten,
            JournalError::Missing,
            JournalError::NotADirectory,
            JournalError::Foreign("letter".into()),
            JournalError::OtherVersion { file: "meta".into(), found: 5, reads: 4 },
            JournalError::OtherNode { found: NodeId(1), expected: NodeId(2) },
            JournalError::OtherLog {
                file: "log.1".into(),
                found: (ClusterId(1), NodeId(1)),
                expected: (ClusterId(1), NodeId(2)),
            },
        ];
        let other = [
            JournalError::Io { op: IoOp::Sync, source: io::ErrorKind::Other.into() },
            JournalError::Poisoned,
            JournalError::Full,
            JournalError::Locked,
        ];
        assert!(wrong.iter().all(JournalError::is_wrong_directory));
        assert!(!other.iter().any(JournalError::is_wrong_directory));
    }
}
