//! Key file: an installation's key as a file that people move to another machine or keep as a backup.
//!
//! The holder of the key is the profile. An import is a **move**, not a second device: two installations with
//! one key have the same device ids, so they fence each other's sessions, and the outcome of a request that
//! one of them left unanswered can become unknown. For a second machine use enrolment.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

use recado_proto::hex::{self, Hex};
use recado_proto::id::{ClusterId, Name};
use recado_sys::durable;

use super::error::{StoreError, StoreOp};
use super::format::{self, Unreadable};
use super::store::{at, installation, put_key, read_key, unreadable};

/// The key of one profile in one cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile {
    cluster: ClusterId,
    profile: Name,
    secret: [u8; 32],
}

/// Shows the profile and the cluster, not the key.
impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyFile(@{} of {})", self.profile, self.cluster)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(rename = "version")]
    _version: u32,
    cluster: String,
    profile: Name,
    key: String,
}

impl KeyFile {
    /// The clusters in which an installation under `state` has a key of this profile, ascending.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the directory cannot be read.
    pub fn clusters(state: &Path, profile: &Name) -> Result<Vec<ClusterId>, StoreError> {
        let unreadable = |source| StoreError::Io { op: StoreOp::Read, path: state.to_owned(), source };
        let entries = match fs::read_dir(state) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut clusters = Vec::new();
        for entry in entries {
            let name = entry.map_err(unreadable)?.file_name();
            let cluster = name.to_str().and_then(|name| name.parse::<ClusterId>().ok());
            clusters.extend(cluster.filter(|id| installation(state, *id, profile).join("key").exists()));
        }
        clusters.sort_unstable();
        Ok(clusters)
    }

    /// The key of the installation under `state`.
    ///
    /// # Errors
    /// [`StoreError`]: there is none, or it cannot be read.
    pub fn export(state: &Path, cluster: ClusterId, profile: &Name) -> Result<KeyFile, StoreError> {
        let profile = profile.clone();
        match read_key(&installation(state, cluster, &profile))? {
            Some(secret) => Ok(KeyFile { cluster, profile, secret }),
            None => Err(StoreError::NoKey { cluster, profile }),
        }
    }

    /// Gives the installation under `state` this key.
    ///
    /// # Errors
    /// [`StoreError::OtherKey`] if it has another key and `force` is false; else the file that cannot be
    /// written.
    pub fn import(&self, state: &Path, force: bool) -> Result<(), StoreError> {
        put_key(&installation(state, self.cluster, &self.profile), &self.secret, force)
    }

    /// The cluster of the key.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The profile of the key.
    pub fn profile(&self) -> &Name {
        &self.profile
    }

    /// The file's content; secret.
    pub fn text(&self) -> String {
        format!(
            "# The key of @{} in cluster {}: anyone who has this file can act as @{}. Keep it secret.\n\
             # `recado key import FILE` moves it to another machine; use it on one machine at a time.\n\
             version = {}\ncluster = \"{}\"\nprofile = \"{}\"\nkey = \"{}\"\n",
            self.profile,
            self.cluster,
            self.profile,
            format::VERSION,
            self.cluster,
            self.profile,
            Hex(&self.secret)
        )
    }

    /// Writes [`KeyFile::text`] to a new file that only its owner may read. The file and its name are on disk
    /// on return.
    ///
    /// # Errors
    /// [`StoreError::Io`]: there is such a file already, or the system's error.
    pub fn write(&self, path: &Path) -> Result<(), StoreError> {
        durable::create(path, self.text().as_bytes()).map_err(at(StoreOp::Create, path))
    }

    /// Reads the text of the file at `path`, the output of [`KeyFile::text`].
    ///
    /// # Errors
    /// [`StoreError::OtherVersion`]; [`StoreError::Damaged`]: it is something else.
    pub fn parse(path: &Path, text: &str) -> Result<KeyFile, StoreError> {
        let key =
            format::check_toml(text).and_then(|()| KeyFile::parse_text(text).ok_or(Unreadable::Damaged));
        key.map_err(unreadable(path, "export the key again, with `recado key export`"))
    }

    fn parse_text(text: &str) -> Option<KeyFile> {
        let Text { cluster, profile, key, .. } = toml::from_str(text).ok()?;
        Some(KeyFile { cluster: cluster.parse().ok()?, profile, secret: hex::parse(&key)? })
    }
}

#[cfg(test)]
mod tests {
    use recado_proto::id::{Op, Seq};

    use super::*;
    use crate::store::Slot;

    fn alice() -> Name {
        "alice".parse().unwrap()
    }

    fn device(state: &Path) -> recado_proto::id::DeviceId {
        Slot::take(state, ClusterId(7), &alice()).unwrap().0.device()
    }

    #[test]
    fn an_exported_key_makes_another_installation_the_same() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(KeyFile::export(here.path(), ClusterId(7), &alice()).is_err());
        let device_here = device(here.path());
        assert_eq!(KeyFile::clusters(here.path(), &alice()).unwrap(), [ClusterId(7)]);
        let text = KeyFile::export(here.path(), ClusterId(7), &alice()).unwrap().text();
        let file = KeyFile::parse(Path::new("key"), &text).unwrap();
        assert!(!format!("{file:?}").contains(&Hex(&file.secret).to_string()), "it is not shown by chance");
        file.import(there.path(), false).unwrap();
        assert_eq!(device(there.path()), device_here);
        file.import(there.path(), false).unwrap();
    }

    #[test]
    fn another_key_is_overwritten_only_by_force_and_its_devices_go_with_it() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let device_here = device(here.path());
        let (slot, mut outbox) = Slot::take(there.path(), ClusterId(7), &alice()).unwrap();
        outbox.known(Op(3), Seq(0));
        outbox.end_turn(Seq(0)).unwrap();
        let file = KeyFile::export(here.path(), ClusterId(7), &alice()).unwrap();
        assert!(matches!(file.import(there.path(), false), Err(StoreError::OtherKey(_))));
        assert!(matches!(file.import(there.path(), true), Err(StoreError::InUse(_))));
        drop(slot);
        assert_ne!(device(there.path()), device_here);
        file.import(there.path(), true).unwrap();
        let (slot, outbox) = Slot::take(there.path(), ClusterId(7), &alice()).unwrap();
        assert_eq!(slot.device(), device_here);
        assert!(outbox.kept().created_op.is_none(), "what the other key's device kept is not this one's");
    }

    #[test]
    fn what_is_no_key_file_is_refused() {
        let parse = |text: &str| KeyFile::parse(Path::new("key"), text);
        for text in ["", "key = \"00\"", "version = 1\ncluster = \"7\"\nprofile = \"alice\"\nkey = \"00\"\n"]
        {
            assert!(matches!(parse(text), Err(StoreError::Damaged { .. })), "{text}");
        }
        let later = parse("version = 2\nlater = true\n");
        assert!(matches!(later, Err(StoreError::OtherVersion { found: 2, reads: 1, .. })), "{later:?}");
    }

    #[test]
    fn an_exported_key_has_its_pinned_text() {
        let file = KeyFile { cluster: ClusterId(7), profile: alice(), secret: [0x5e; 32] };
        let text = "# The key of @alice in cluster 0000000000000007: anyone who has this file can act as @alice. \
                    Keep it secret.\n\
                    # `recado key import FILE` moves it to another machine; use it on one machine at a time.\n\
                    version = 1\ncluster = \"0000000000000007\"\nprofile = \"alice\"\nkey = \"KEY\"\n";
        assert_eq!(file.text(), text.replace("KEY", &"5e".repeat(32)));
    }
}
