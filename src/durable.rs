//! Files that a power cut leaves whole, and there: what `recadod init` makes and a client remembers.
//!
//! A file is durable when its bytes are, and its name is in its directory, and that directory's name in
//! the one above it, up to one that was there before.
//!
//! All of it is its owner's alone, whatever the umask: directories are made 0700 and files 0600, from their
//! first moment on. [`make_private`] mends what was made otherwise.
//!
//! Only regular files are opened. A link is not followed: what it leads to is another's, or is gone with the next
//! replacement. A pipe or a device could keep whoever opens or reads it waiting for ever.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Of a directory; of a file it is this without the right to enter.
const OWNER: u32 = 0o700;
/// What group and others may do.
const OTHERS: u32 = 0o077;

/// Makes a directory, and those above it that are missing.
///
/// # Errors
/// The system's. What was made by then stays.
pub fn make_dir(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !is_there(dir)).collect();
    DirBuilder::new().recursive(true).mode(OWNER).create(path)?;
    missing.into_iter().try_for_each(sync_name)
}

/// The empty path is the working directory.
fn is_there(dir: &Path) -> bool {
    dir.as_os_str().is_empty() || dir.exists()
}

/// Something else stands where a file is kept.
#[derive(Debug, thiserror::Error)]
#[error("{} is a link, a folder, a pipe or a device, and no file", .0.display())]
pub(crate) struct NotRegular(PathBuf);

/// Opens a file as `options` say, if it is a regular one.
///
/// # Errors
/// One that [`is_not_regular`]; the system's.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
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
        // A link, and a pipe that nobody reads, or a socket.
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

/// Whether it is [`open`]'s, for what is no regular file.
pub(crate) fn is_not_regular(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<NotRegular>())
}

/// Reads a text of at most so many bytes.
///
/// # Errors
/// As [`open`]'s; `InvalidData` if it is longer, or no text.
pub(crate) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    open(path, OpenOptions::new().read(true))?.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most { Err(io::ErrorKind::InvalidData.into()) } else { Ok(text) }
}

/// Makes a new file.
///
/// # Errors
/// There is one already: it is left alone. Else the system's.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_name(path)
}

/// Replaces a file, or makes it, whole or not at all. Its name with the extension `tmp` is used up
/// meanwhile.
///
/// # Errors
/// The system's; the file is as it was, unless it was the last step that failed.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("tmp");
    let mut file = open(&aside, OpenOptions::new().write(true).create(true).truncate(true).mode(0o600))?;
    // One that an interrupted replacement left may be of a time when it was made otherwise.
    close(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    rename(&aside, path)
}

/// Gives what is durable another name.
///
/// # Errors
/// The system's; it has the old name, unless it was the last step that failed.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_name(to)
}

/// Makes durable that there is something of this name.
fn sync_name(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()?;
    #[cfg(test)]
    tests::SYNCED.with_borrow_mut(|synced| synced.push(dir.to_owned()));
    Ok(())
}

/// Whether the disk cannot read, or open, what it once stored: damage, as rotten bytes are. ext4 and xfs say so
/// of bad checksums of their own; a file that is too short has lost its end.
pub(crate) fn is_rot(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let system = [Errno::IO, Errno::UCLEAN, Errno::BADMSG].map(|errno| Some(errno.raw_os_error()));
    error.kind() == io::ErrorKind::UnexpectedEof || system.contains(&error.raw_os_error())
}

/// Others than the owner can reach something, and that cannot be changed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} may be reached by others (mode {mode:03o}), and this cannot change it; run: chmod go= {path}"
)]
pub struct Exposed {
    /// Which file or directory.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// What the system said.
    pub source: io::Error,
}

/// Takes from everybody but the owner what rights they have to a directory and the files in it (not to
/// directories in it, which are not ours: `lost+found`; nor to what the disk cannot open for anybody). How many
/// of them were not private.
///
/// # Errors
/// [`Exposed`]: it belongs to somebody else, or the file system has no permissions.
pub fn make_private(dir: &Path) -> Result<usize, Exposed> {
    let unread = |source| Exposed { path: dir.to_owned(), mode: mode(dir).unwrap_or(0), source };
    // The directory first: what is made in it from now on is nobody else's.
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
    match close(path) {
        Err(error) if is_rot(&error) => Ok(false),
        closed => {
            closed.map_err(|source| Exposed { path: path.to_owned(), mode: mode(path).unwrap_or(0), source })
        }
    }
}

/// Whether others had rights to it; they have none now.
fn close(path: &Path) -> io::Result<bool> {
    let before = mode(path)?;
    if before & OTHERS == 0 {
        return Ok(false);
    }
    fs::set_permissions(path, Permissions::from_mode(before & OWNER))?;
    // Some file systems take it without a word and do nothing.
    if mode(path)? & OTHERS != 0 {
        return Err(io::Error::other("the file system keeps no permissions"));
    }
    Ok(true)
}

fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        /// The directories that this test made durable: nothing else shows before a power cut.
        pub(super) static SYNCED: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
    }

    /// Makes a pipe, which nobody writes to.
    pub(crate) fn pipe(path: &Path) {
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
        // Belongs to the system, or if the test runs as the system, lets nobody change it.
        let told = make_private(Path::new("/proc/self")).unwrap_err().to_string();
        assert!(told.contains("chmod go= /proc/self"), "{told}");
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
