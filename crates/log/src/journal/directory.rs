//! The disk of a running server: a directory of the file system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};

use recado_sys::durable;

use super::error::{IoOp, JournalError, Trying, is_rot};
use super::{Disk, DiskFile, meta};

/// A directory of the file system. Its lock, if taken, is held until the last clone is dropped or the
/// process ends.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    handle: Arc<File>,
    writable: bool,
}

impl Directory {
    /// Opens an existing directory and locks it for this process.
    ///
    /// # Errors
    /// [`JournalError::Missing`], [`JournalError::NotADirectory`]; [`JournalError::Locked`] if another
    /// process holds the lock; otherwise the error of the system.
    pub fn lock(path: &Path) -> Result<Directory, JournalError> {
        let handle = open_existing(path)?;
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Directory { path: path.to_owned(), handle: Arc::new(handle), writable: true }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(JournalError::Locked),
            Err(errno) => Err(io::Error::from(errno)).during(IoOp::OpenDirectory),
        }
    }

    /// Returns true if another process holds the lock of the directory: a server runs on it. It takes the
    /// lock for a moment, shared with others that look, so that a server that starts just then finds it
    /// taken.
    ///
    /// # Errors
    /// [`JournalError::Missing`], [`JournalError::NotADirectory`]; otherwise the error of the system.
    pub(super) fn is_locked(path: &Path) -> Result<bool, JournalError> {
        let handle = open_existing(path)?;
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(io::Error::from(errno)).during(IoOp::OpenDirectory),
        }
    }

    /// Tells whether a process runs on a data directory, and else whether it has `meta`, and so a server's
    /// promises. Nothing in it is read.
    ///
    /// # Errors
    /// [`JournalError::Missing`], [`JournalError::NotADirectory`]; otherwise the error of the system.
    pub fn look(path: &Path) -> Result<Seen, JournalError> {
        if Directory::is_locked(path)? {
            return Ok(Seen::Locked);
        }
        let meta = fs::symlink_metadata(path.join(meta::NAME));
        let is_absent = meta.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        Ok(if is_absent { Seen::Empty } else { Seen::Kept })
    }

    /// Opens an existing directory for reading only. It takes no lock, so another process may hold it.
    ///
    /// # Errors
    /// [`JournalError::Missing`], [`JournalError::NotADirectory`]; otherwise the error of the system.
    pub(super) fn read_only(path: &Path) -> Result<Directory, JournalError> {
        let handle = open_existing(path)?;
        Ok(Directory { path: path.to_owned(), handle: Arc::new(handle), writable: false })
    }

    /// The names of the regular files, or of everything else. Names that are not UTF-8 are left out,
    /// because the journal never makes one.
    fn names(&self, regular: bool) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let is_file = match entry.file_type() {
                // A file whose inode is damaged counts as a file. It cannot be opened.
                Err(error) if is_rot(&error) => true,
                kind => kind?.is_file(),
            };
            if is_file == regular
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// What can be told of a data directory without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A process runs on it.
    Locked,
    /// None does, and it has a server's promises, damaged or not.
    Kept,
    /// None does, and it has none: a server begins on it as a learner.
    Empty,
}

fn open_existing(path: &Path) -> Result<File, JournalError> {
    let handle = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(JournalError::Missing),
        other => other.during(IoOp::OpenDirectory)?,
    };
    if handle.metadata().during(IoOp::OpenDirectory)?.is_dir() {
        Ok(handle)
    } else {
        Err(JournalError::NotADirectory)
    }
}

impl Disk for Directory {
    type File = DirectoryFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.names(true)
    }

    fn list_others(&self) -> io::Result<Vec<String>> {
        self.names(false)
    }

    fn open(&self, name: &str) -> io::Result<DirectoryFile> {
        let mut options = OpenOptions::new();
        let file = durable::open(&self.path.join(name), options.read(true).write(self.writable))?;
        Ok(DirectoryFile(file))
    }

    fn create(&self, name: &str) -> io::Result<DirectoryFile> {
        let mut options = OpenOptions::new();
        // Only the owner may read and write it, whatever the umask.
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = durable::open(&self.path.join(name), &mut options)?;
        Ok(DirectoryFile(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// A file in a [`Directory`].
#[derive(Debug)]
pub struct DirectoryFile(File);

impl DiskFile for DirectoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.0, rustix::fs::SeekFrom::Data(offset)) {
            Ok(at) => Ok(Some(at)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // The file system cannot report holes.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(Some(offset)),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        let now = DiskFile::len(self)?;
        if len <= now {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), now, len - now) {
            Ok(()) => Ok(()),
            // The file system cannot allocate, so a full disk shows at the write, which ends the process.
            Err(rustix::io::Errno::OPNOTSUPP) => self.0.set_len(len),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}
