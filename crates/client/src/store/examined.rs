//! What is kept of each profile on this machine, as far as it can be read. Nothing is changed.

use std::fs;
use std::path::{Path, PathBuf};

use recado_proto::id::{ClusterId, Name};

use super::outbox::read_outbox;
use super::{CURSOR, OUTBOX, existing_key, read_cursor, slots};
use crate::error::StoreError;

/// The files of one profile in one cluster on this machine.
#[derive(Debug)]
pub struct Installation {
    /// The cluster.
    pub cluster: ClusterId,
    /// The profile.
    pub profile: Name,
    /// The directory of the files.
    pub dir: PathBuf,
    /// The number of requests without an answer. A client that runs at the moment may wait for some.
    pub unanswered: usize,
    /// What cannot be read; commands fail with it when they use it.
    pub unreadable: Vec<StoreError>,
}

impl Installation {
    /// All installations under `state`, by cluster and name. What cannot be listed is left out: commands that
    /// use it say why.
    pub fn all(state: &Path) -> Vec<Installation> {
        let mut all = Vec::new();
        for (cluster, of_cluster) in named::<ClusterId>(state) {
            for (profile, dir) in named::<Name>(&of_cluster) {
                all.extend(Installation::of(cluster, profile, dir));
            }
        }
        all.sort_by(|one, other| (one.cluster, &one.profile).cmp(&(other.cluster, &other.profile)));
        all
    }

    /// None if nothing was ever done there.
    fn of(cluster: ClusterId, profile: Name, dir: PathBuf) -> Option<Installation> {
        let mut found = Installation { cluster, profile, dir, unanswered: 0, unreadable: Vec::new() };
        let mut devices = 0;
        for slot in slots(&found.dir).filter(|slot| slot.join(OUTBOX).exists()) {
            devices += 1;
            match read_outbox(&slot.join(OUTBOX)) {
                Ok(kept) => found.unanswered += kept.unanswered.len(),
                Err(error) => found.unreadable.push(error),
            }
            found.unreadable.extend(read_cursor(&slot.join(CURSOR)).err());
        }
        match existing_key(&found.dir, cluster, &found.profile) {
            Err(StoreError::NoKey { .. }) if devices == 0 => return None,
            key => found.unreadable.extend(key.err()),
        }
        Some(found)
    }
}

/// The entries of a directory whose names are of this kind.
fn named<T: std::str::FromStr>(dir: &Path) -> Vec<(T, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    named.collect()
}
