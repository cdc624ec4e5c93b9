//! Trust: decides whether the cluster that answers is the right one.
//!
//! A server claims a key for its cluster, and the handshake proves that it holds the key. No protocol can
//! tell whether the key is the right one: a person or a program must have been given it, or have seen it
//! before. So a key is pinned, or trusted on first use and remembered ([`super::known`]), as ssh does.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use recado_proto::id::{ClusterId, ClusterKey, MEMBERS_MAX};

use super::error::StoreError;
use super::known::{KnownCluster, KnownClusters};

/// A server's claim about its cluster. [`Decide`] and [`Remembered`] get only offers that are proved: the
/// server holds the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterIdentity {
    /// The server's address.
    pub addr: SocketAddr,
    /// The cluster.
    pub cluster: ClusterId,
    /// The cluster's key.
    pub key: ClusterKey,
}

/// Decides about a cluster that was never met: true to trust it from now on, and to remember it. Called on
/// the connecting thread, which waits for the decision however long it takes, so there is time to ask a
/// person.
pub type Decide = Arc<dyn Fn(&ClusterIdentity) -> bool + Send + Sync>;

/// Called with a new cluster once it is remembered.
pub type Remembered = Arc<dyn Fn(&ClusterIdentity) + Send + Sync>;

/// The clusters that are trusted (DESIGN.md section 7).
#[derive(Clone)]
pub enum Trust {
    /// The cluster with this key, at any address. The known clusters are neither read nor changed. For
    /// programs whose configuration has the key.
    Pinned(ClusterKey),
    /// The known clusters, and new ones that `decide` accepts. A known cluster that answers with another key
    /// is refused without asking: only [`KnownClusters::forget`] makes it a new one.
    Known {
        /// The known clusters.
        clusters: KnownClusters,
        /// Decides about a new one.
        decide: Decide,
        /// Called when a new one is remembered.
        remembered: Remembered,
    },
}

impl Trust {
    /// Trusts the known clusters, and new ones only at loopback addresses, where there is no man in the
    /// middle.
    pub fn known(clusters: KnownClusters) -> Trust {
        Trust::asking(clusters, |cluster_identity| cluster_identity.addr.ip().is_loopback(), |_| {})
    }

    /// The addresses to look for a cluster at, when these are given: these, and further addresses of the
    /// known cluster there.
    pub(super) fn places(&self, given: &[SocketAddr]) -> Result<Vec<SocketAddr>, StoreError> {
        let others = match self {
            Trust::Pinned(_) => None,
            Trust::Known { clusters, .. } => Others::of(&clusters.list()?, given),
        };
        Ok(others.map_or_else(|| given.to_vec(), |others| others.beside(given)))
    }

    /// Remembers where a cluster said that its servers are. The servers say it again in the next session, so
    /// a file that cannot be written is no error.
    pub(super) fn learn(&self, cluster_identity: &ClusterIdentity, members: &[SocketAddr]) {
        if let Trust::Known { clusters, .. } = self
            && let Err(error) = clusters.learn(cluster_identity, members)
        {
            tracing::debug!(%error, "remembering the servers");
        }
    }

    /// The offer of a cluster that is trusted already, though no server was asked; none if it is not known.
    pub(super) fn remembered(
        &self,
        cluster: ClusterId,
        servers: &[SocketAddr],
    ) -> Result<Option<ClusterIdentity>, StoreError> {
        let Some(addr) = servers.first().copied() else { return Ok(None) };
        let key = match self {
            Trust::Pinned(key) => Some(*key),
            Trust::Known { clusters, .. } => {
                clusters.list()?.into_iter().find(|known| known.cluster == cluster).map(|known| known.key)
            }
        };
        Ok(key.map(|key| ClusterIdentity { addr, cluster, key }))
    }

    /// Trusts the known clusters, and new ones that `decide` accepts; see [`Decide`]. `remembered` is called
    /// for each of these.
    pub fn asking(
        clusters: KnownClusters,
        decide: impl Fn(&ClusterIdentity) -> bool + Send + Sync + 'static,
        remembered: impl Fn(&ClusterIdentity) + Send + Sync + 'static,
    ) -> Trust {
        Trust::Known { clusters, decide: Arc::new(decide), remembered: Arc::new(remembered) }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trust::Pinned(key) => f.debug_tuple("Pinned").field(key).finish(),
            Trust::Known { clusters, .. } => f.debug_tuple("Known").field(clusters).finish(),
        }
    }
}

/// Further addresses of a known cluster, when it is looked for at addresses where it was met, or where it
/// said that it has servers: all servers that the user named may be down. An answer from a further address
/// counts only if it comes from this cluster. The cluster's claim that it has a server at an address does not
/// make the address known, so another cluster there raises no alarm, and is the one that is meant if it
/// answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Others {
    pub(super) cluster: KnownCluster,
    addrs: Vec<SocketAddr>,
    /// True if the cluster was met at one of the given addresses, and false if it only said that it has a
    /// server there.
    pub(super) was_met: bool,
}

impl Others {
    /// None if no known cluster was met at the given addresses, or more than one; and if none was, and none
    /// or more than one said that it has a server there.
    pub(super) fn of(known: &[KnownCluster], given: &[SocketAddr]) -> Option<Others> {
        let met = known.iter().filter(|one| given.iter().any(|addr| one.addresses.contains(addr)));
        let said = known.iter().filter(|one| given.iter().any(|addr| one.members.contains(addr)));
        let (mut met, mut said) = (met, said);
        let (one, was_met) = match (met.next(), met.next()) {
            (Some(one), None) => (one, true),
            (None, _) => (said.next().filter(|_| said.next().is_none())?, false),
            (Some(_), Some(_)) => return None,
        };
        let mut addrs = Vec::new();
        for addr in one.members.iter().chain(&one.addresses) {
            let of_another =
                known.iter().any(|other| other.cluster != one.cluster && other.addresses.contains(addr));
            // The socket has the address family of the first given address.
            let reachable = given.first().is_some_and(|first| first.is_ipv4() == addr.is_ipv4());
            if reachable && !of_another && !given.contains(addr) && !addrs.contains(addr) {
                addrs.push(*addr);
            }
        }
        addrs.truncate(MEMBERS_MAX);
        Some(Others { cluster: one.clone(), addrs, was_met })
    }

    /// The given addresses, then the further ones.
    pub(super) fn beside(&self, given: &[SocketAddr]) -> Vec<SocketAddr> {
        given.iter().chain(&self.addrs).copied().collect()
    }
}

/// The relation of a cluster to the known clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TrustDecision {
    /// Known, at this address.
    Known,
    /// Known, but met only at other addresses.
    KnownElsewhere,
    /// Not known.
    New,
    /// Another cluster is known at this address, which is one of those asked; or the cluster's id is known
    /// with another key.
    Changed(SocketAddr, KnownCluster),
}

/// The relation of the cluster that answered, when it was looked for at `servers`, to the known clusters.
///
/// All of `servers` are addresses of one cluster, any one of which is enough. If one of them is known,
/// another cluster at any of them is [`TrustDecision::Changed`], also at an address that is new. Otherwise an
/// attacker who takes the address of a server that is down, and answers first, would pass as a new cluster.
pub(super) fn trust_decision(
    known: &[KnownCluster],
    servers: &[SocketAddr],
    cluster_identity: &ClusterIdentity,
) -> TrustDecision {
    let at = |addr: SocketAddr| known.iter().find(|one| one.addresses.contains(&addr));
    let here = at(cluster_identity.addr).map(|one| (cluster_identity.addr, one));
    let beside = || servers.iter().find_map(|addr| at(*addr).map(|one| (*addr, one)));
    match here.or_else(beside) {
        Some((addr, one)) if !one.is(cluster_identity) => TrustDecision::Changed(addr, one.clone()),
        Some((addr, _)) if addr == cluster_identity.addr => TrustDecision::Known,
        _ if known.iter().any(|one| one.is(cluster_identity)) => TrustDecision::KnownElsewhere,
        // Anybody can claim a cluster id, and a device's files are stored under it.
        _ => match known.iter().find(|one| one.cluster == cluster_identity.cluster) {
            Some(one) => TrustDecision::Changed(cluster_identity.addr, one.clone()),
            None => TrustDecision::New,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 10097).into()
    }

    fn key(n: u8) -> ClusterKey {
        ClusterKey([n; 32])
    }

    fn known(n: u8, addresses: &[u8]) -> KnownCluster {
        KnownCluster {
            cluster: ClusterId(n.into()),
            key: key(n),
            since_unix_ms: 1,
            addresses: addresses.iter().map(|last| addr(*last)).collect(),
            members: Vec::new(),
        }
    }

    fn cluster_identity(from: u8, n: u8) -> ClusterIdentity {
        ClusterIdentity { addr: addr(from), cluster: ClusterId(n.into()), key: key(n) }
    }

    #[test]
    fn a_cluster_with_its_key_at_its_address_is_known_and_every_other_case_is_distinguished() {
        let (one, two) = (known(1, &[11, 12]), known(2, &[21]));
        let changed = |at, one: &KnownCluster| TrustDecision::Changed(addr(at), one.clone());
        let table: &[(&str, &[u8], ClusterIdentity, TrustDecision)] = &[
            ("its address, its key", &[11], cluster_identity(11, 1), TrustDecision::Known),
            ("its other address, its key", &[11, 12], cluster_identity(12, 1), TrustDecision::Known),
            ("its address, a new key", &[11], cluster_identity(11, 3), changed(11, &one)),
            ("its address, another known one's key", &[11], cluster_identity(11, 2), changed(11, &one)),
            ("a new address, its key", &[13], cluster_identity(13, 1), TrustDecision::KnownElsewhere),
            (
                "a new address beside its own, its key",
                &[11, 13],
                cluster_identity(13, 1),
                TrustDecision::KnownElsewhere,
            ),
            (
                "a new address beside its own, a new key",
                &[13, 12],
                cluster_identity(13, 3),
                changed(12, &one),
            ),
            (
                "a new address beside its own, another's key",
                &[13, 11],
                cluster_identity(13, 2),
                changed(11, &one),
            ),
            (
                "another one's address beside its own",
                &[11, 21],
                cluster_identity(21, 2),
                TrustDecision::Known,
            ),
            ("a new address, a new key", &[13], cluster_identity(13, 3), TrustDecision::New),
            ("new addresses, a new key", &[13, 14], cluster_identity(14, 3), TrustDecision::New),
        ];
        for (what, servers, cluster_identity, expected) in table {
            let servers: Vec<_> = servers.iter().map(|last| addr(*last)).collect();
            let found = trust_decision(&[one.clone(), two.clone()], &servers, cluster_identity);
            assert_eq!(&found, expected, "{what}");
        }
        let half = ClusterIdentity { cluster: ClusterId(9), ..cluster_identity(11, 1) };
        assert_eq!(
            trust_decision(std::slice::from_ref(&one), &[addr(11)], &half),
            changed(11, &one),
            "key without its id"
        );
        assert_eq!(trust_decision(&[], &[addr(11)], &cluster_identity(11, 1)), TrustDecision::New);
    }

    #[test]
    fn a_cluster_is_looked_for_where_its_servers_are_if_it_was_met_where_the_user_says() {
        let one = KnownCluster { members: [11, 13, 21].map(addr).to_vec(), ..known(1, &[11, 12]) };
        let two = known(2, &[21]);
        let beside = |given: &[u8]| {
            let given: Vec<_> = given.iter().map(|last| addr(*last)).collect();
            Others::of(&[one.clone(), two.clone()], &given).map(|others| others.beside(&given))
        };
        let addrs = |all: &[u8]| Some(all.iter().map(|last| addr(*last)).collect::<Vec<_>>());
        assert_eq!(beside(&[11]), addrs(&[11, 13, 12]), "but not where another was met");
        assert_eq!(beside(&[12, 99]), addrs(&[12, 99, 11, 13]));
        assert_eq!(beside(&[13]), addrs(&[13, 11, 12]), "it said that it has a server there");
        assert_eq!(beside(&[13, 21]), addrs(&[13, 21]), "another was met at one of them");
        assert_eq!(beside(&[99]), None);
        let of = |given: u8| Others::of(&[one.clone(), two.clone()], &[addr(given)]).unwrap().was_met;
        assert!(of(11) && !of(13));
        let three = KnownCluster { members: vec![addr(13)], ..known(3, &[31]) };
        assert_eq!(Others::of(&[one.clone(), three], &[addr(13)]), None, "which of the two?");
        assert_eq!(beside(&[11, 21]), None, "which of the two?");
    }

    #[test]
    fn a_new_cluster_is_trusted_by_default_on_loopback_only() {
        let Trust::Known { decide, .. } = Trust::known(KnownClusters::under("nowhere")) else {
            panic!("not the default")
        };
        for (addr, trusted) in [
            ("127.0.0.1:10097", true),
            ("127.9.9.9:1", true),
            ("[::1]:10097", true),
            ("192.0.2.1:10097", false),
            ("10.0.0.1:10097", false),
            ("[::ffff:192.0.2.1]:1", false),
        ] {
            assert_eq!(
                decide(&ClusterIdentity { addr: addr.parse().unwrap(), ..cluster_identity(1, 1) }),
                trusted,
                "{addr}"
            );
        }
    }
}
