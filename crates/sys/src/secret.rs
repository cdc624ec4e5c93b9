//! Cluster secret: 32 random bytes that `recadod init` draws and every server holds.
//!
//! Every key of the cluster is derived from it: the keys between servers, the cluster's key that clients know
//! it by, the secrets of sessions (DESIGN.md section 7). Anybody who has it can run a server of the cluster,
//! so a file that other users can read is refused.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use recado_proto::hex::{self, Hex};

/// The secret. It is never shown, not even by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret([u8; 32]);

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

/// The secret's file cannot be used. The administrator's fault; nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("cannot read the cluster's secret {path} (copy cluster.secret from another server)")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It does not hold a secret.
    #[error("{0} is not 64 hexadecimal digits; copy cluster.secret from another server")]
    Malformed(PathBuf),
    /// Other users may read it.
    #[error("{path} may be read by others (mode {mode:03o}); run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl ClusterSecret {
    /// A secret of these bytes, which must be random.
    pub fn new(random: [u8; 32]) -> ClusterSecret {
        ClusterSecret(random)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The content of its file: 64 hexadecimal digits and a line end.
    pub fn to_file(&self) -> String {
        format!("{}\n", Hex(&self.0))
    }

    /// Reads the file, which only its owner may have permission to read.
    ///
    /// # Errors
    /// [`SecretError`] naming the file and the cure.
    pub fn read(path: &Path) -> Result<ClusterSecret, SecretError> {
        let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(unreadable)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(SecretError::Exposed { path: path.to_owned(), mode });
            }
        }
        parse(text.trim()).ok_or_else(|| SecretError::Malformed(path.to_owned()))
    }
}

fn parse(digits: &str) -> Option<ClusterSecret> {
    hex::parse(digits).map(ClusterSecret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_its_file_and_is_not_shown() {
        let secret = ClusterSecret::new(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(parse(secret.to_file().trim()), Some(secret.clone()));
        assert_eq!(format!("{secret:?}"), "ClusterSecret(..)");
        assert_eq!(parse(&"g".repeat(64)), None);
        assert_eq!(parse("00"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.secret");
        fs::write(&path, ClusterSecret::new([9; 32]).to_file()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(ClusterSecret::read(&path), Err(SecretError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(ClusterSecret::read(&path).is_ok());
    }
}
