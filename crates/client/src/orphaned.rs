//! Unsent requests of a profile, in clusters that are not known any more.

use std::path::{Path, PathBuf};

use recado_proto::id::{ClusterId, Name};

use super::error::StoreError;
use super::keyfile::KeyFile;
use super::known::KnownClusters;
use super::machine::Request;
use super::store::{OUTBOX, SLOTS, installation, read_outbox};

/// Requests that no server has answered, kept for a cluster that is not known any more. They are not sent
/// unless the cluster is met again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphaned {
    /// The cluster.
    pub cluster: ClusterId,
    /// The requests.
    pub requests: Vec<Request>,
    /// The directory of the installation.
    pub dir: PathBuf,
}

impl Orphaned {
    /// The unsent requests that `profile`, connected to the cluster `now`, has under `state` for clusters
    /// that are not known there, ascending by cluster. A cluster created anew has a new id, and the old one
    /// is not known once it is forgotten.
    ///
    /// # Errors
    /// [`StoreError`] naming the file and the cure. Damaged devices are skipped: the error is reported when
    /// they are used.
    pub fn left(state: &Path, profile: &Name, now: ClusterId) -> Result<Vec<Orphaned>, StoreError> {
        let known = KnownClusters::under(state).list()?;
        let mut left = Vec::new();
        for cluster in KeyFile::clusters(state, profile)? {
            if cluster == now || known.iter().any(|one| one.cluster == cluster) {
                continue;
            }
            let dir = installation(state, cluster, profile);
            let of_slot = |slot| {
                let kept = read_outbox(&dir.join(format!("slot-{slot}")).join(OUTBOX));
                kept.map(|kept| kept.unanswered).unwrap_or_default()
            };
            let requests: Vec<Request> = (0..SLOTS).flat_map(of_slot).map(|(_, one)| one.request).collect();
            if !requests.is_empty() {
                left.push(Orphaned { cluster, requests, dir });
            }
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use recado_proto::id::{ClusterKey, Op, Seq, Topic};
    use recado_proto::packet::FollowChange;

    use super::*;
    use crate::machine::Numbered;
    use crate::store::Slot;
    use crate::trust::ClusterIdentity;

    #[test]
    fn requests_for_a_forgotten_cluster_are_reported_until_their_files_are_gone() {
        let state = tempfile::tempdir().unwrap();
        let alice: Name = "alice".parse().unwrap();
        let ask = Request::Follow { topic: Topic::to_follow("#ops").unwrap(), change: FollowChange::Add };
        let leave = |cluster, requests: u64| {
            let (_slot, mut outbox) = Slot::take(state.path(), ClusterId(cluster), &alice).unwrap();
            outbox.known(Op(3), Seq(0));
            for nonce in 1..=requests {
                outbox.asked(Numbered { seq: Seq(nonce), nonce, request: ask.clone() });
            }
            outbox.end_turn(Seq(0)).unwrap();
        };
        leave(1, 3);
        leave(2, 0);
        leave(3, 1);
        let left = |now| {
            let left = Orphaned::left(state.path(), &alice, ClusterId(now)).unwrap();
            left.into_iter().map(|one| (one.cluster.0, one.requests.len())).collect::<Vec<_>>()
        };
        assert_eq!(left(9), [(1, 3), (3, 1)]);
        assert_eq!(left(3), [(1, 3)], "what is of this cluster is on its way");
        let known = KnownClusters::under(state.path());
        let addr = ([127, 0, 0, 1], 1).into();
        known
            .remember(&[addr], &ClusterIdentity { addr, cluster: ClusterId(1), key: ClusterKey([1; 32]) }, 1)
            .unwrap();
        assert_eq!(left(3), [], "it is met again some day");
        let bob = "bob".parse().unwrap();
        assert_eq!(Orphaned::left(state.path(), &bob, ClusterId(9)).unwrap(), []);
    }
}
