//! Files that a power cut leaves whole, and there: what `recadod init` makes and a client remembers.
//!
//! A file is durable when its bytes are, and its name is in its directory, and that directory's name in
//! the one above it, up to one that was there before.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Makes a directory, and those above it that are missing, all with these permission bits (before the
/// umask).
///
/// # Errors
/// The system's. What was made by then stays.
pub fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !is_there(dir)).collect();
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    missing.into_iter().try_for_each(sync_name)
}

/// The empty path is the working directory.
fn is_there(dir: &Path) -> bool {
    dir.as_os_str().is_empty() || dir.exists()
}

/// Makes a new file with these permission bits (before the umask) from its first moment on.
///
/// # Errors
/// There is one already: it is left alone. Else the system's.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_name(path)
}

/// Replaces a file, or makes it, whole or not at all. Only its owner may read it. Its name with the
/// extension `tmp` is used up meanwhile.
///
/// # Errors
/// The system's; the file is as it was, unless it was the last step that failed.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    thread_local! {
        /// The directories that this test made durable: nothing else shows before a power cut.
        pub(super) static SYNCED: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
    }

    fn synced() -> Vec<PathBuf> {
        SYNCED.take()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn every_directory_that_got_a_new_name_is_synced_and_no_other() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        make_dir(&root.join("a/b/c"), 0o700).unwrap();
        assert_eq!(synced(), [root.join("a/b"), root.join("a"), root.to_owned()]);
        assert_eq!((mode(&root.join("a")), mode(&root.join("a/b/c"))), (0o700, 0o700));
        make_dir(&root.join("a/b/d"), 0o700).unwrap();
        assert_eq!(synced(), [root.join("a/b")]);
        make_dir(&root.join("a/b"), 0o700).unwrap();
        assert_eq!(synced(), [] as [PathBuf; 0]);
    }

    #[test]
    fn a_file_is_durable_with_its_name_and_a_new_one_overwrites_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file.toml");
        create(&path, b"one", 0o600).unwrap();
        assert_eq!((synced(), mode(&path)), (vec![root.path().to_owned()], 0o600));
        let refused = create(&path, b"two", 0o600).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(&path, b"three").unwrap();
        assert_eq!((synced(), mode(&path)), (vec![root.path().to_owned()], 0o600));
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
