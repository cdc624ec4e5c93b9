//! Durable files, which survive a power cut whole: those that `recadod init` makes and a client keeps.
//!
//! A file is durable when its bytes are, and its name in its directory is, and that directory's name in the
//! one above it, up to a directory that existed before.
//!
//! All of it belongs to its owner alone, whatever the umask: directories are created 0700 and files 0600.
//! [`make_private`] corrects what was created otherwise.
//!
//! Only regular files are opened. A symbolic link is not followed: its target belongs to somebody else, or
//! the link is lost with the next replacement. A pipe or a device could block the one that opens or reads
//! it for ever.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// The owner's permission bits: the mode of a directory. A file's mode has no right to execute.
const OWNER: u32 = 0o700;
/// The permission bits of group and others.
const OTHERS: u32 = 0o077;

/// Creates a directory, and the missing ones above it, durably.
///
/// # Errors
/// The system's error. The directories created by then stay.
pub fn make_dir(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !is_there(dir)).collect();
    DirBuilder::new().recursive(true).mode(OWNER).create(path)?;
    missing.into_iter().try_for_each(sync_name)
}

/// Creates a directory in an existing one, durably.
///
/// # Errors
/// The system's error, also if the directory exists or the one above it does not.
pub fn make_dir_in_place(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(OWNER).create(path)?;
    sync_name(path)
}

/// Returns true if the directory exists. The empty path is the working directory.
fn is_there(dir: &Path) -> bool {
    dir.as_os_str().is_empty() || dir.exists()
}

/// The path is not a regular file.
#[derive(Debug, thiserror::Error)]
#[error("{} is a link, a directory, a pipe or a device, and not a regular file", .0.display())]
pub struct NotRegular(PathBuf);

/// Opens a regular file with `options`.
///
/// # Errors
/// One for which [`is_not_regular`] is true, or the system's error.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    use rustix::io::Errno;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let not_regular = || io::Error::other(NotRegular(path.to_owned()));
    match options.custom_flags(flags.bits() as i32).open(path) {
        Ok(file) => {
            if file.metadata()?.is_file() {
                Ok(file)
            } else {
                Err(not_regular())
            }
        }
        // ELOOP means a symbolic link; ENXIO means a pipe that nobody reads, or a socket.
        Err(error)
            if [Errno::LOOP, Errno::NXIO]
                .map(|errno| Some(errno.raw_os_error()))
                .contains(&error.raw_os_error()) =>
        {
            Err(not_regular())
        }
        Err(error) => Err(error),
    }
}

/// Returns true if the error is [`open`]'s for a path that is not a regular file.
pub fn is_not_regular(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<NotRegular>())
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// Those of [`open`]; `InvalidData` if the file is longer.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, OpenOptions::new().read(true))?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(io::ErrorKind::InvalidData.into()) } else { Ok(bytes) }
}

/// Reads a UTF-8 text of at most `most` bytes.
///
/// # Errors
/// Those of [`read`]; `InvalidData` if the file is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Creates a new file, durably.
///
/// # Errors
/// The file exists already and is left alone, or the system's error, such as a full disk: there is no file
/// then, which would keep the next call from creating one.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written?;
    sync_name(path)
}

/// Replaces or creates a file, durably, and as a whole or not at all. The same name with the extension
/// `tmp` is used meanwhile.
///
/// # Errors
/// The system's error; the file is unchanged, unless it was the last step that failed.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("tmp");
    let mut file = open(&aside, OpenOptions::new().write(true).create(true).truncate(true).mode(0o600))?;
    // A file that an interrupted replacement left may have other permissions.
    remove_others(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    rename(&aside, path)
}

/// Renames a durable file, durably.
///
/// # Errors
/// The system's error; the file has its old name, unless it was the last step that failed.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_name(to)
}

/// Makes the existence of this name durable, by syncing its directory.
fn sync_name(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()?;
    #[cfg(test)]
    tests::SYNCED.with_borrow_mut(|synced| synced.push(dir.to_owned()));
    Ok(())
}

/// Returns true if the disk cannot read, or open, what it once stored: damage, as bit rot is. ext4 and xfs
/// report bad checksums of their own this way. A file that is too short has lost its end.
pub fn is_rot(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let system = [Errno::IO, Errno::UCLEAN, Errno::BADMSG].map(|errno| Some(errno.raw_os_error()));
    error.kind() == io::ErrorKind::UnexpectedEof || system.contains(&error.raw_os_error())
}

/// Others than the owner have access to a path, and that cannot be changed.
#[derive(Debug, thiserror::Error)]
#[error(
    "other users may access {path} (mode {mode:03o}), and this process cannot change that; run: chmod go= {path}"
)]
pub struct Exposed {
    /// The file or directory.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// The system's error.
    pub source: io::Error,
}

/// Removes the rights of everybody but the owner to a directory and the files in it. It leaves out the
/// directories in it, which are not ours (`lost+found`), and files that the disk cannot open for anybody.
/// Returns how many of them were not private.
///
/// # Errors
/// [`Exposed`]: a path belongs to somebody else, or the file system has no permissions.
pub fn make_private(dir: &Path) -> Result<usize, Exposed> {
    let unread = |source| Exposed { path: dir.to_owned(), mode: mode(dir).unwrap_or(0), source };
    // The directory comes first, so that nobody else has access to what is created in it from here on.
    let mut mended = usize::from(make_path_private(dir)?);
    for entry in fs::read_dir(dir).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        if entry.file_type().map_err(unread)?.is_file() {
            mended += usize::from(make_path_private(&entry.path())?);
        }
    }
    Ok(mended)
}

fn make_path_private(path: &Path) -> Result<bool, Exposed> {
    match remove_others(path) {
        Err(error) if is_rot(&error) => Ok(false),
        closed => {
            closed.map_err(|source| Exposed { path: path.to_owned(), mode: mode(path).unwrap_or(0), source })
        }
    }
}

/// Removes the rights of others to a path. Returns true if they had any.
fn remove_others(path: &Path) -> io::Result<bool> {
    let before = mode(path)?;
    if before & OTHERS == 0 {
        return Ok(false);
    }
    fs::set_permissions(path, Permissions::from_mode(before & OWNER))?;
    // Some file systems accept the change without an error and do nothing.
    if mode(path)? & OTHERS != 0 {
        return Err(io::Error::other("the file system keeps no permissions"));
    }
    Ok(true)
}

fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        /// The directories that this test synced; nothing else shows that before a power cut.
        pub(super) static SYNCED: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
    }

    fn pipe(path: &Path) {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();
    }

    fn synced() -> Vec<PathBuf> {
        SYNCED.take()
    }

    fn mode(path: &Path) -> u32 {
        super::mode(path).unwrap()
    }

    #[test]
    fn what_others_may_reach_is_theirs_no_longer_and_is_counted_once() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for (name, mode) in [("open", 0o666), ("read", 0o640), ("own", 0o600)] {
            fs::write(root.join(name), name).unwrap();
            fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(root.join("lost+found")).unwrap();
        fs::set_permissions(root.join("lost+found"), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(make_private(root).unwrap(), 3);
        assert_eq!(
            ["open", "read", "own", "lost+found"].map(|name| mode(&root.join(name))),
            [0o600, 0o600, 0o600, 0o755]
        );
        assert_eq!((mode(root), make_private(root).unwrap()), (0o700, 0));
    }

    #[test]
    fn what_cannot_be_made_private_is_named_with_the_command_that_mends_it() {
        // Nobody, not even root, can change the mode of a process's directory in /proc.
        let message = make_private(Path::new("/proc/self")).unwrap_err().to_string();
        assert!(message.contains("chmod go= /proc/self"), "{message}");
    }

    #[test]
    fn only_regular_files_are_opened_and_nothing_else_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let path = |name: &str| root.join(name);
        fs::write(path("file"), "text").unwrap();
        assert_eq!(read_text(&path("file"), 4).unwrap(), "text");
        assert_eq!(read_text(&path("file"), 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_text(&path("none"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
        pipe(&path("pipe"));
        fs::create_dir(path("folder")).unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("endless")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for name in ["pipe", "folder", "link", "endless", "socket"].map(path) {
            let refused = read_text(&name, 1 << 20).unwrap_err();
            assert!(is_not_regular(&refused), "{refused}");
            assert!(refused.to_string().starts_with(&name.display().to_string()), "{refused}");
            let written = open(&name, OpenOptions::new().read(true).write(true).create(true).truncate(true));
            assert!(written.is_err(), "{}", name.display());
            assert_eq!(fs::read(path("file")).unwrap(), b"text", "nothing is written by a link");
        }
        pipe(&path("new.tmp"));
        assert!(is_not_regular(&replace(&path("new.toml"), b"text").unwrap_err()));
    }

    #[test]
    fn every_directory_that_got_a_new_name_is_synced_and_no_other() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        make_dir(&root.join("a/b/c")).unwrap();
        assert_eq!(synced(), [root.join("a/b"), root.join("a"), root.to_owned()]);
        assert_eq!((mode(&root.join("a")), mode(&root.join("a/b/c"))), (0o700, 0o700));
        make_dir(&root.join("a/b/d")).unwrap();
        assert_eq!(synced(), [root.join("a/b")]);
        make_dir_in_place(&root.join("a/b/e")).unwrap();
        assert_eq!((synced(), mode(&root.join("a/b/e"))), (vec![root.join("a/b")], 0o700));
        assert!(
            make_dir_in_place(&root.join("a/b/e")).is_err() && make_dir_in_place(&root.join("x/y")).is_err()
        );
        assert!(!root.join("x").exists());
        make_dir(&root.join("a/b")).unwrap();
        assert_eq!(synced(), [] as [PathBuf; 0]);
    }

    #[test]
    fn a_file_is_durable_with_its_name_and_a_new_one_overwrites_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file.toml");
        create(&path, b"one").unwrap();
        assert_eq!((synced(), mode(&path)), (vec![root.path().to_owned()], 0o600));
        let refused = create(&path, b"two").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        fs::write(path.with_extension("tmp"), "interrupted").unwrap();
        fs::set_permissions(path.with_extension("tmp"), Permissions::from_mode(0o644)).unwrap();
        replace(&path, b"three").unwrap();
        assert_eq!((synced(), mode(&path)), (vec![root.path().to_owned()], 0o600));
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
