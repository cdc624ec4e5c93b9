//! Known clusters: those that were met and trusted, in `known-clusters.toml` of the state directory.
//!
//! The file is readable by its owner only and replaced as a whole (tmp, fsync, rename, fsync of the
//! directory). A writer holds `known-clusters.lock` from reading to replacing, so that two processes cannot
//! lose each other's changes; readers need no lock. A file that cannot be parsed is an error and never
//! treated as empty: a cluster forgotten by accident would be trusted anew.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use recado_proto::id::{ClusterId, ClusterKey, MEMBERS_MAX};
use recado_sys::sync;

use super::error::{ClientError, StoreError, StoreOp};
use super::format::{self, Unreadable};
use super::store::{at, make_dir, read_text, replace, unreadable, wait_for_lock};
use super::trust::{ClusterIdentity, TrustDecision, trust_decision};

/// Most addresses remembered of one cluster. A cluster has at most nine servers, and any of them is enough to
/// recognise its key; a further address is used without being remembered.
const ADDRESSES_MAX: usize = 64;

const FILE: &str = "known-clusters.toml";
const CURE: &str = "repair it, or delete it to forget every cluster: then compare their fingerprints with what \
                    `recadod fingerprint --config FILE` prints on their servers";
const LOCK: &str = "known-clusters.lock";
const HEAD: &str = "# The clusters this user trusts. `recado cluster list` shows them, `recado cluster forget`\n\
                    # removes one.\n\n";

/// A cluster that is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCluster {
    /// The cluster's id.
    pub cluster: ClusterId,
    /// The cluster's key.
    pub key: ClusterKey,
    /// When it was first trusted, in ms since 1970.
    pub since_unix_ms: u64,
    /// Addresses where the cluster was met. No address belongs to two clusters.
    pub addresses: Vec<SocketAddr>,
    /// The addresses of all servers, as the servers said. The cluster is also looked for there, when it is
    /// looked for at an address where it was met. An address in this list is no reason to trust a server that
    /// answers there.
    pub members: Vec<SocketAddr>,
}

impl KnownCluster {
    /// Returns true if `cluster_identity` names this cluster, with the same id and the same key.
    pub fn is(&self, cluster_identity: &ClusterIdentity) -> bool {
        (self.cluster, self.key) == (cluster_identity.cluster, cluster_identity.key)
    }
}

/// The file of the known clusters in one state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownClusters {
    state: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClustersFile {
    version: u32,
    /// Mandatory: a file without clusters says so (`cluster = []`), and an emptied file is damaged.
    cluster: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    key: String,
    since_unix_ms: u64,
    addresses: Vec<SocketAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    members: Vec<SocketAddr>,
}

impl KnownClusters {
    /// The known clusters of the state directory `state`, the one that [`Options::new`](super::Options::new)
    /// takes. Reads and creates nothing.
    pub fn under(state: impl Into<PathBuf>) -> KnownClusters {
        KnownClusters { state: state.into() }
    }

    /// Reads all of them, in the order in which they were met.
    ///
    /// # Errors
    /// [`StoreError`] naming the file and the cure.
    pub fn list(&self) -> Result<Vec<KnownCluster>, StoreError> {
        let path = self.state.join(FILE);
        let Some(text) = read_text(&path, CURE)? else { return Ok(Vec::new()) };
        let mode = fs::metadata(&path).map_err(at(StoreOp::Read, &path))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StoreError::Exposed { path, mode });
        }
        parse(&text).map_err(unreadable(&path, CURE))
    }

    /// Forgets the clusters for which `which` returns true, with all their addresses, and returns them. A
    /// forgotten cluster counts as new when it is met again.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is forgotten.
    pub fn forget(&self, which: impl Fn(&KnownCluster) -> bool) -> Result<Vec<KnownCluster>, StoreError> {
        self.change(|known| {
            let forgotten = known.extract_if(.., |one| which(one)).collect::<Vec<_>>();
            Ok((!forgotten.is_empty(), forgotten))
        })
    }

    /// Remembers a trusted cluster that has proved its key and was looked for at `servers`. On disk on
    /// return.
    pub(super) fn remember(
        &self,
        servers: &[SocketAddr],
        cluster_identity: &ClusterIdentity,
        unix_ms: u64,
    ) -> Result<(), ClientError> {
        self.change(|known| {
            // The file is read under the lock: another process may have met another cluster at these
            // addresses meanwhile.
            match trust_decision(known, servers, cluster_identity) {
                TrustDecision::Known => return Ok((false, ())),
                TrustDecision::Changed(addr, known) => {
                    return Err(ClientError::changed(addr, known, *cluster_identity));
                }
                TrustDecision::KnownElsewhere | TrustDecision::New => {}
            }
            let place = known.iter().position(|one| one.is(cluster_identity)).unwrap_or_else(|| {
                known.push(KnownCluster {
                    cluster: cluster_identity.cluster,
                    key: cluster_identity.key,
                    since_unix_ms: unix_ms,
                    addresses: Vec::new(),
                    members: Vec::new(),
                });
                known.len() - 1
            });
            let room = known[place].addresses.len() < ADDRESSES_MAX;
            if room {
                known[place].addresses.push(cluster_identity.addr);
            }
            Ok((room, ()))
        })
    }

    /// Remembers the addresses that an authenticated server of a known cluster gave for all servers. Does
    /// nothing for a cluster that is not known.
    pub(super) fn learn(
        &self,
        cluster_identity: &ClusterIdentity,
        members: &[SocketAddr],
    ) -> Result<(), StoreError> {
        let members = &members[..members.len().min(MEMBERS_MAX)];
        let is_news = |one: &KnownCluster| one.is(cluster_identity) && one.members != members;
        // Most often nothing is new, and then nothing is locked or written.
        if !self.list()?.iter().any(is_news) {
            return Ok(());
        }
        self.change(|known| {
            let news = known.iter_mut().find(|one| is_news(one));
            let differs = news.is_some();
            news.into_iter().for_each(|one| one.members = members.to_vec());
            Ok((differs, ()))
        })
    }

    /// Reads the file, calls `change`, which returns true if it has changed the list, and replaces the file
    /// if so; all under the lock.
    fn change<T, E: From<StoreError>>(
        &self,
        change: impl FnOnce(&mut Vec<KnownCluster>) -> Result<(bool, T), E>,
    ) -> Result<T, E> {
        make_dir(&self.state)?;
        // Another process holds the lock only while it writes one file.
        let (_lock, mut known) = sync::locked(|| wait_for_lock(&self.state.join(LOCK)), || self.list())?;
        let (differs, result) = change(&mut known)?;
        if differs {
            write(&self.state.join(FILE), &known)?;
        }
        Ok(result)
    }
}

fn write(path: &Path, known: &[KnownCluster]) -> Result<(), StoreError> {
    let entry = |one: &KnownCluster| Entry {
        id: one.cluster.to_string(),
        key: one.key.to_string(),
        since_unix_ms: one.since_unix_ms,
        addresses: one.addresses.clone(),
        members: one.members.clone(),
    };
    let file = ClustersFile { version: format::VERSION, cluster: known.iter().map(entry).collect() };
    let text = toml::to_string(&file).map_err(|error| at(StoreOp::Write, path)(io::Error::other(error)))?;
    replace(path, (HEAD.to_owned() + &text).as_bytes())
}

fn parse(text: &str) -> Result<Vec<KnownCluster>, Unreadable> {
    format::check_toml(text)?;
    parse_clusters(text).ok_or(Unreadable::Damaged)
}

fn parse_clusters(text: &str) -> Option<Vec<KnownCluster>> {
    let file: ClustersFile = toml::from_str(text).ok()?;
    let mut known: Vec<KnownCluster> = Vec::new();
    for entry in file.cluster {
        let one = KnownCluster {
            cluster: entry.id.parse().ok()?,
            key: entry.key.parse().ok()?,
            since_unix_ms: entry.since_unix_ms,
            addresses: entry.addresses,
            members: entry.members,
        };
        let taken = |addr| known.iter().any(|other| other.addresses.contains(addr));
        if one.addresses.iter().any(taken) {
            return None;
        }
        known.push(one);
    }
    Some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster_identity(port: u16, n: u8) -> ClusterIdentity {
        ClusterIdentity {
            addr: ([192, 0, 2, 1], port).into(),
            cluster: ClusterId(u64::from(n) << 60 | 1),
            key: ClusterKey([n; 32]),
        }
    }

    fn remember(known: &KnownClusters, port: u16, n: u8) -> Result<(), ClientError> {
        let cluster_identity = cluster_identity(port, n);
        known.remember(&[cluster_identity.addr], &cluster_identity, 1_000)
    }

    #[test]
    fn a_trusted_cluster_is_known_to_the_next_process_under_every_address() {
        let state = tempfile::tempdir().unwrap();
        let known = KnownClusters::under(state.path().join("not/there/yet"));
        assert_eq!(known.list().unwrap(), []);
        remember(&known, 1, 15).unwrap();
        remember(&known, 2, 15).unwrap();
        remember(&known, 2, 15).unwrap();
        remember(&known, 3, 7).unwrap();
        let list = KnownClusters::under(state.path().join("not/there/yet")).list().unwrap();
        let met = |n, ports: &[u16]| KnownCluster {
            cluster: cluster_identity(1, n).cluster,
            key: cluster_identity(1, n).key,
            since_unix_ms: 1_000,
            addresses: ports.iter().map(|port| cluster_identity(*port, n).addr).collect(),
            members: Vec::new(),
        };
        assert_eq!(list, [met(15, &[1, 2]), met(7, &[3])]);
    }

    #[test]
    fn a_state_directory_that_cannot_be_created_is_an_error_that_names_xdg_state_home() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let message =
            remember(&KnownClusters::under(file.path().join("state")), 1, 1).unwrap_err().to_string();
        assert!(message.contains("cannot create") && message.contains("XDG_STATE_HOME"), "{message}");
    }

    #[test]
    fn where_a_known_cluster_has_its_servers_is_remembered_and_of_another_nothing() {
        let state = tempfile::tempdir().unwrap();
        let known = KnownClusters::under(state.path());
        remember(&known, 1, 15).unwrap();
        let members = [cluster_identity(1, 15).addr, cluster_identity(2, 15).addr];
        for _ in 0..2 {
            known.learn(&cluster_identity(1, 15), &members).unwrap();
            known.learn(&cluster_identity(2, 7), &members).unwrap();
        }
        known.learn(&ClusterIdentity { key: ClusterKey([7; 32]), ..cluster_identity(1, 15) }, &[]).unwrap();
        let list = known.list().unwrap();
        assert_eq!((list.len(), &list[0].addresses[..]), (1, &members[..1]));
        assert_eq!(list[0].members, members);
    }

    #[test]
    fn another_key_is_refused_until_the_known_one_is_forgotten_with_all_its_addresses() {
        let state = tempfile::tempdir().unwrap();
        let known = KnownClusters::under(state.path());
        remember(&known, 1, 1).unwrap();
        remember(&known, 2, 1).unwrap();
        let before = known.list().unwrap();
        let refused = remember(&known, 2, 2).unwrap_err();
        assert!(matches!(&refused, ClientError::ClusterKeyChanged { addr, .. } if addr.port() == 2));
        let message = refused.to_string();
        assert!(message.contains("recado cluster forget 192.0.2.1:2"), "{message}");
        for key in [1, 2] {
            assert!(message.contains(&cluster_identity(1, key).key.fingerprint().to_string()), "{message}");
        }
        assert_eq!(known.list().unwrap(), before);

        let first = cluster_identity(1, 1).addr;
        assert_eq!(known.forget(|one| one.addresses.contains(&first)).unwrap(), before);
        assert_eq!(known.forget(|_| true).unwrap(), []);
        assert_eq!(known.list().unwrap(), [], "it knows nobody, which is no damage");
        remember(&known, 2, 2).unwrap();
    }

    #[test]
    fn the_file_of_known_clusters_is_private_and_its_damage_is_an_error() {
        let state = tempfile::tempdir().unwrap();
        let known = KnownClusters::under(state.path());
        remember(&known, 1, 1).unwrap();
        remember(&known, 3, 2).unwrap();
        let path = state.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            String::new(),
            HEAD.to_owned(),
            "[[cluster]".to_owned(),
            good[..good.len() - 5].to_owned(),
            good.replacen("id", "name", 1),
            good.replacen("0101", "01", 1),
            good.replacen("0101", "zz01", 1),
            good.replacen(":3", ":1", 1),
            good.clone() + "\nmore = 1\n",
        ] {
            assert_ne!(bad, good);
            fs::write(&path, &bad).unwrap();
            assert!(matches!(known.list(), Err(StoreError::Damaged { .. })), "{bad}");
            assert!(remember(&known, 2, 1).is_err(), "{bad}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad, "it is left as it is");
        }
        fs::write(&path, [0xff]).unwrap();
        assert!(matches!(known.list(), Err(StoreError::Damaged { .. })));
        fs::write(&path, good).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(known.list(), Err(StoreError::Exposed { mode: 0o644, .. })));
    }

    #[test]
    fn the_file_of_known_clusters_has_its_pinned_bytes_and_another_version_is_refused_and_not_touched() {
        let state = tempfile::tempdir().unwrap();
        let known = KnownClusters::under(state.path());
        remember(&known, 1, 1).unwrap();
        known.learn(&cluster_identity(1, 1), &[cluster_identity(2, 1).addr]).unwrap();
        let path = state.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        let body = "version = 1\n\n[[cluster]]\nid = \"1000000000000001\"\nkey = \"KEY\"\nsince_unix_ms = 1000\n\
                    addresses = [\"192.0.2.1:1\"]\nmembers = [\"192.0.2.1:2\"]\n";
        assert_eq!(text, HEAD.to_owned() + &body.replace("KEY", &"01".repeat(32)));
        let later = text.replace("version = 1", "version = 2\nlater = true");
        fs::write(&path, &later).unwrap();
        let refused = known.list();
        assert!(matches!(&refused, Err(StoreError::OtherVersion { found: 2, reads: 1, .. })), "{refused:?}");
        assert!(remember(&known, 2, 1).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), later);
    }

    #[test]
    fn a_crash_between_write_and_rename_leaves_what_was_known() {
        let state = tempfile::tempdir().unwrap();
        let known = KnownClusters::under(state.path());
        remember(&known, 1, 1).unwrap();
        let aside = state.path().join("known-clusters.tmp");
        fs::write(&aside, "[[clus").unwrap();
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(known.list().unwrap().len(), 1);
        remember(&known, 2, 2).unwrap();
        assert_eq!(known.list().unwrap().len(), 2);
    }

    #[test]
    fn two_at_once_lose_nothing_and_of_two_keys_for_one_address_one_wins() {
        let state = tempfile::tempdir().unwrap();
        let known = KnownClusters::under(state.path());
        let met = |n: u8| {
            let known = &known;
            move || (1..=20).filter(|port| remember(known, *port, n).is_ok()).count()
        };
        let (one, two) = std::thread::scope(|scope| {
            let (one, two) = (scope.spawn(met(1)), scope.spawn(met(2)));
            (one.join().unwrap(), two.join().unwrap())
        });
        assert_eq!(one + two, 20);
        let list = known.list().unwrap();
        assert_eq!(list.iter().map(|one| one.addresses.len()).sum::<usize>(), 20, "{list:?}");
    }
}
