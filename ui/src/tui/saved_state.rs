//! State files of the screen: for each device the topics that are followed, read and muted; and which
//! cluster answered at which addresses, so that the screen can start without a server.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use recado_client::{ClusterId, Name, Op, Topic};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::private;

/// Saved state of one device's screen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedState {
    #[serde(default)]
    pub(crate) topics: Vec<KeptTopic>,
}

/// Saved state of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptTopic {
    pub(crate) topic: Topic,
    pub(crate) followed: bool,
    /// Everything up to this op is read.
    pub(crate) read: Op,
    /// The newest op that was counted, as unread or as read.
    pub(crate) newest: Op,
    pub(crate) unread: u64,
    pub(crate) muted: bool,
    /// The newest op that the user sent there, if it is a channel.
    #[serde(default)]
    pub(crate) wrote: Op,
}

/// The cluster that answered last at the addresses of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// The addresses, as configured.
    asked: Vec<SocketAddr>,
    pub(crate) cluster: ClusterId,
    /// Addresses of all servers of the cluster.
    pub(crate) servers: Vec<SocketAddr>,
}

#[derive(Default, Serialize, Deserialize)]
struct KnownFile {
    #[serde(default)]
    clusters: Vec<Known>,
}

/// Number of clusters that are kept. Beyond it the oldest is dropped.
const CLUSTERS_MAX: usize = 32;

/// The state files, in a directory below the state directory.
#[derive(Clone, Debug)]
pub(crate) struct Store(PathBuf);

impl Store {
    pub(crate) fn new(state: &Path) -> Store {
        Store(state.join("screen"))
    }

    /// Reads the saved state of a device's screen. A missing or damaged file yields the empty state: the
    /// file holds only counts and copies of what the servers know.
    pub(crate) fn read(&self, cluster: ClusterId, profile: &Name, slot: u8) -> SavedState {
        read(&self.path(cluster, profile, slot))
    }

    pub(crate) fn write(
        &self,
        cluster: ClusterId,
        profile: &Name,
        slot: u8,
        saved: &SavedState,
    ) -> io::Result<()> {
        write(&self.path(cluster, profile, slot), saved)
    }

    fn path(&self, cluster: ClusterId, profile: &Name, slot: u8) -> PathBuf {
        self.0.join(cluster.to_string()).join(profile.as_str()).join(format!("slot-{slot}.toml"))
    }

    /// The cluster that answered at these addresses.
    pub(crate) fn known(&self, asked: &[SocketAddr]) -> Option<Known> {
        let file: KnownFile = read(&self.0.join("clusters.toml"));
        file.clusters.into_iter().find(|known| known.asked == asked)
    }

    pub(crate) fn know(
        &self,
        asked: &[SocketAddr],
        cluster: ClusterId,
        servers: &[SocketAddr],
    ) -> io::Result<()> {
        let path = self.0.join("clusters.toml");
        let known = Known { asked: asked.to_vec(), cluster, servers: servers.to_vec() };
        let mut file: KnownFile = read(&path);
        if file.clusters.last() == Some(&known) {
            return Ok(());
        }
        file.clusters.retain(|other| other.asked != asked);
        file.clusters.push(known);
        let excess = file.clusters.len().saturating_sub(CLUSTERS_MAX);
        file.clusters.drain(..excess);
        write(&path, &file)
    }
}

/// What somebody has removed of the files of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    /// The key of the profile, which stands beside the devices.
    Key,
    /// The directory of the device alone, with what is not acknowledged.
    Device,
}

impl Removed {
    /// Looks for the files of the device in this directory. Whoever cannot look does not know.
    pub(crate) fn of(device: &Path) -> Option<Removed> {
        let is_gone = |path: &Path| matches!(path.try_exists(), Ok(false));
        if is_gone(&device.with_file_name("key")) {
            return Some(Removed::Key);
        }
        is_gone(device).then_some(Removed::Device)
    }
}

fn read<T: DeserializeOwned + Default>(path: &Path) -> T {
    // Reading a pipe would block the screen until somebody writes to it.
    if !fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
        return T::default();
    }
    fs::read_to_string(path).ok().and_then(|text| toml::from_str(&text).ok()).unwrap_or_default()
}

/// Replaces the file by a rename: a reader sees the old contents or the new ones, never a part.
fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let text = toml::to_string(value).map_err(io::Error::other)?;
    private::make_dir_of(path)?;
    let aside = path.with_extension("tmp");
    private::create(&aside)?.write_all(text.as_bytes())?;
    fs::rename(aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::samples::name;

    #[test]
    fn what_is_remembered_is_read_again_and_damage_is_as_good_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let topic = Topic::to_send("#ops").unwrap();
        let (read, newest, wrote) = (Op(1), Op(3), Op(2));
        let topic = KeptTopic { topic, followed: true, read, newest, unread: 2, muted: true, wrote };
        let longest = Topic::to_send(&format!("#{}", "A-_.~z09".repeat(16))).unwrap();
        let kept = SavedState { topics: vec![topic.clone(), KeptTopic { topic: longest, ..topic }] };
        store.write(ClusterId(7), &name("alice"), 0, &kept).unwrap();
        assert_eq!(store.read(ClusterId(7), &name("alice"), 0), kept);
        assert_eq!(store.read(ClusterId(7), &name("alice"), 1), SavedState::default());
        fs::write(store.path(ClusterId(7), &name("alice"), 0), "topics = 3").unwrap();
        assert_eq!(store.read(ClusterId(7), &name("alice"), 0), SavedState::default());
    }

    #[test]
    fn it_is_seen_whether_a_device_was_removed_or_the_key_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (slot, key) = (dir.path().join("alice/slot-0"), dir.path().join("alice/key"));
        fs::create_dir_all(&slot).unwrap();
        fs::write(&key, "x").unwrap();
        assert_eq!(Removed::of(&slot), None);
        fs::remove_dir_all(&slot).unwrap();
        assert_eq!(Removed::of(&slot), Some(Removed::Device));
        fs::create_dir_all(&slot).unwrap();
        fs::remove_file(&key).unwrap();
        assert_eq!(Removed::of(&slot), Some(Removed::Key));
        fs::remove_dir_all(dir.path().join("alice")).unwrap();
        assert_eq!(Removed::of(&slot), Some(Removed::Key));
    }

    #[test]
    fn a_cluster_is_known_by_the_addresses_that_led_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let [one, two]: [SocketAddr; 2] = ["127.0.0.1:1", "127.0.0.1:2"].map(|addr| addr.parse().unwrap());
        store.know(&[one], ClusterId(7), &[one, two]).unwrap();
        store.know(&[two], ClusterId(8), &[two]).unwrap();
        store.know(&[one], ClusterId(9), &[one]).unwrap();
        assert_eq!(store.known(&[one]).unwrap().cluster, ClusterId(9));
        assert_eq!(store.known(&[two]).unwrap().cluster, ClusterId(8));
        assert_eq!(store.known(&[two, one]), None);
    }
}
