//! Creates files that only their owner can read, regardless of the umask: they show what the user follows,
//! mutes and has read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Creates the directory of a file and its missing parents.
///
/// # Errors
/// An I/O error. Directories created before it remain.
pub(crate) fn make_dir_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| DirBuilder::new().recursive(true).mode(0o700).create(dir))
}

/// Creates a new file.
///
/// # Errors
/// The file exists, or another I/O error.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Replaces a file as a whole, or not at all. It keeps its permissions; the same name with `.new` at its end
/// is used meanwhile.
///
/// # Errors
/// An I/O error. The file is as it was.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    // A link stays a link.
    let (aside, path) = (Path::new(&aside), fs::canonicalize(path)?);
    let replaced = create(aside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::set_permissions(aside, fs::metadata(&path)?.permissions()))
        .and_then(|()| fs::rename(aside, &path));
    if replaced.is_err() {
        let _ = fs::remove_file(aside);
    }
    replaced
}

/// Creates a file, or truncates an existing one and removes the permissions of other users from it.
///
/// # Errors
/// An I/O error. An existing file may be empty then.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut permissions = file.metadata()?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(0o600);
        file.set_permissions(permissions)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn files_and_their_directories_are_their_users_alone_old_ones_too() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("a/b/new"), dir.path().join("a/b/old"));
        make_dir_of(&new).unwrap();
        create_new(&new).unwrap();
        assert!(create_new(&new).is_err());
        fs::write(&old, "text").unwrap();
        fs::set_permissions(&old, Permissions::from_mode(0o644)).unwrap();
        create(&old).unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir.path().join("a")), mode(&new), mode(&old)), (0o700, 0o600, 0o600));
    }
}
