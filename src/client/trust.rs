//! Whether the cluster that answers is the one that is meant.
//!
//! A server says which key its cluster has; the handshake proves that it holds it. Whether that key is
//! the right one no protocol can tell: somebody must have been told it, or have seen it before. So a key
//! is pinned, or trusted on first use and remembered ([`super::known`]), as ssh does.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::error::StoreError;
use super::known::{KnownCluster, KnownClusters};
use crate::id::{ClusterId, ClusterKey};

/// What a server says of its cluster, and has proved: it holds the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where it answered.
    pub addr: SocketAddr,
    /// Which cluster.
    pub cluster: ClusterId,
    /// The cluster's key.
    pub key: ClusterKey,
}

/// Decides about a cluster that was never met: true to trust it from now on, and remember it. Called on
/// the thread that connects, which waits for it however long it takes: time to ask somebody.
pub type Decide = Arc<dyn Fn(&Offer) -> bool + Send + Sync>;

/// Which clusters to talk to (DESIGN.md section 7).
#[derive(Clone)]
pub enum Trust {
    /// The one with this key, at whatever address. The known clusters are neither read nor changed: for
    /// programs that are told the key with their configuration.
    Pinned(ClusterKey),
    /// Those known from before, and of new ones those that `decide` takes. A key that is not the one
    /// known is refused without asking: only [`KnownClusters::forget`] makes it a new one.
    Known {
        /// The known ones.
        clusters: KnownClusters,
        /// Who decides about a new one.
        decide: Decide,
    },
}

impl Trust {
    /// Those known from before, and new ones only at loopback addresses, where nobody stands between.
    pub fn known(clusters: KnownClusters) -> Trust {
        Trust::asking(clusters, |offer| offer.addr.ip().is_loopback())
    }

    /// A cluster that is trusted already, though none of its servers was asked; none if it is not known.
    pub(super) fn remembered(
        &self,
        cluster: ClusterId,
        servers: &[SocketAddr],
    ) -> Result<Option<Offer>, StoreError> {
        let Some(addr) = servers.first().copied() else { return Ok(None) };
        let key = match self {
            Trust::Pinned(key) => Some(*key),
            Trust::Known { clusters, .. } => {
                clusters.list()?.into_iter().find(|known| known.cluster == cluster).map(|known| known.key)
            }
        };
        Ok(key.map(|key| Offer { addr, cluster, key }))
    }

    /// Those known from before, and of new ones those that `decide` takes; see [`Decide`].
    pub fn asking(clusters: KnownClusters, decide: impl Fn(&Offer) -> bool + Send + Sync + 'static) -> Trust {
        Trust::Known { clusters, decide: Arc::new(decide) }
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

/// How a cluster stands to those that are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Known, at this address.
    Known,
    /// Known, but not at this address.
    KnownElsewhere,
    /// Never met.
    New,
    /// At this address, one of those it was reached by, another one is known.
    Changed(SocketAddr, KnownCluster),
}

/// How the cluster that answered stands, when it was looked for at `servers`.
///
/// These are addresses of one cluster: any one is enough. So an address that is new is no way in for
/// another cluster, while one beside it is known; else whoever takes the port of a server that is down,
/// and answers first, would be met as if for the first time.
pub(super) fn standing(known: &[KnownCluster], servers: &[SocketAddr], offer: &Offer) -> Standing {
    let at = |addr: SocketAddr| known.iter().find(|one| one.addresses.contains(&addr));
    let here = at(offer.addr).map(|one| (offer.addr, one));
    let beside = || servers.iter().find_map(|addr| at(*addr).map(|one| (*addr, one)));
    match here.or_else(beside) {
        Some((addr, one)) if !one.is(offer) => Standing::Changed(addr, one.clone()),
        Some((addr, _)) if addr == offer.addr => Standing::Known,
        _ if known.iter().any(|one| one.is(offer)) => Standing::KnownElsewhere,
        // A device's files lie under the cluster's id, which anybody can claim.
        _ => match known.iter().find(|one| one.cluster == offer.cluster) {
            Some(one) => Standing::Changed(offer.addr, one.clone()),
            None => Standing::New,
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
        }
    }

    fn offer(from: u8, n: u8) -> Offer {
        Offer { addr: addr(from), cluster: ClusterId(n.into()), key: key(n) }
    }

    #[test]
    fn a_cluster_is_who_it_was_where_it_was_and_anything_else_is_told_apart() {
        let (one, two) = (known(1, &[11, 12]), known(2, &[21]));
        let changed = |at, one: &KnownCluster| Standing::Changed(addr(at), one.clone());
        let table: &[(&str, &[u8], Offer, Standing)] = &[
            ("its address, its key", &[11], offer(11, 1), Standing::Known),
            ("its other address, its key", &[11, 12], offer(12, 1), Standing::Known),
            ("its address, a new key", &[11], offer(11, 3), changed(11, &one)),
            ("its address, another known one's key", &[11], offer(11, 2), changed(11, &one)),
            ("a new address, its key", &[13], offer(13, 1), Standing::KnownElsewhere),
            ("a new address beside its own, its key", &[11, 13], offer(13, 1), Standing::KnownElsewhere),
            ("a new address beside its own, a new key", &[13, 12], offer(13, 3), changed(12, &one)),
            ("a new address beside its own, another's key", &[13, 11], offer(13, 2), changed(11, &one)),
            ("another one's address beside its own", &[11, 21], offer(21, 2), Standing::Known),
            ("a new address, a new key", &[13], offer(13, 3), Standing::New),
            ("new addresses, a new key", &[13, 14], offer(14, 3), Standing::New),
        ];
        for (what, servers, offer, expected) in table {
            let servers: Vec<_> = servers.iter().map(|last| addr(*last)).collect();
            let found = standing(&[one.clone(), two.clone()], &servers, offer);
            assert_eq!(&found, expected, "{what}");
        }
        let half = Offer { cluster: ClusterId(9), ..offer(11, 1) };
        assert_eq!(
            standing(std::slice::from_ref(&one), &[addr(11)], &half),
            changed(11, &one),
            "key without its id"
        );
        assert_eq!(standing(&[], &[addr(11)], &offer(11, 1)), Standing::New);
    }

    #[test]
    fn unless_told_a_new_cluster_is_trusted_on_loopback_only() {
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
            assert_eq!(decide(&Offer { addr: addr.parse().unwrap(), ..offer(1, 1) }), trusted, "{addr}");
        }
    }
}
