//! The choice of the log that a candidate leads with, among the promises of a majority.

use std::collections::BTreeMap;

use recado_proto::id::{NodeId, Op, View};
use recado_proto::packet::Promise;

use super::log::Log;

/// The result of choosing a log among the promises of a majority.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Lead with the log of the named server.
    Best(NodeId),
    /// Wait for one of these servers: an entry that may be committed is readable in no promised log, and
    /// one of them may have it.
    Wait(Vec<NodeId>),
}

/// Chooses the best log: the highest `(last_view, last_op)`.
///
/// An op that damage destroyed in one copy is settled if the best log covers it by view, or if a majority
/// of the promises comes from undamaged copies: every committed op is in one of those.
pub(super) fn choose(
    me: NodeId,
    members: &[NodeId],
    quorum: usize,
    promises: &BTreeMap<NodeId, Promise>,
) -> Choice {
    let rank = |id: &NodeId, promise: &Promise| (promise.last_view, promise.last_op, *id == me, *id);
    let Some((best_id, best)) = promises.iter().max_by_key(|(id, promise)| rank(id, promise)) else {
        return Choice::Wait(members.to_vec());
    };
    let clean = promises.values().filter(|promise| promise.unknown.is_none()).count();
    let settled = clean >= quorum
        || promises
            .values()
            .filter_map(|promise| promise.unknown)
            .all(|unknown| unknown.beyond(best.last_op, best.last_view).is_none());
    let commit = promises.values().map(|promise| promise.commit).max().unwrap_or_default();
    if settled && best.last_op >= commit {
        Choice::Best(*best_id)
    } else {
        Choice::Wait(members.iter().filter(|id| !promises.contains_key(id)).copied().collect())
    }
}

/// Returns `op` if the log that `index` describes has another entry there than this one.
pub(super) fn first_conflict(log: &Log, index: &[(View, Op)], op: Op) -> Option<Op> {
    let mine = log.view_at(op)?;
    let (theirs, _) = index.iter().rev().find(|(_, first)| *first <= op)?;
    (*theirs != mine).then_some(op)
}

#[cfg(test)]
mod tests {
    use recado_proto::entry::Unknown;

    use super::*;

    const ME: NodeId = NodeId(1);
    const ALL: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn promise(round: u64, last: u64, unknown: Option<(u64, u64)>) -> Promise {
        let view = View::new(round, NodeId(1));
        Promise {
            view: View::new(9, ME),
            last_view: view,
            last_op: Op(last),
            commit: Op::ZERO,
            index: Vec::new(),
            unknown: unknown.map(|(first, last)| Unknown {
                first: Op(first),
                last: Op(last),
                view_max: View::new(5, ME),
            }),
            incarnations: Vec::new(),
            disk_ms: 0,
            members_op: Op::ZERO,
        }
    }

    fn chosen(promises: &[(u16, Promise)]) -> Choice {
        let promises = promises.iter().map(|(id, promise)| (NodeId(*id), promise.clone())).collect();
        choose(ME, &ALL, 2, &promises)
    }

    #[test]
    fn the_higher_view_beats_the_longer_log() {
        let choice = chosen(&[(1, promise(4, 100, None)), (2, promise(5, 3, None))]);
        assert_eq!(choice, Choice::Best(NodeId(2)));
    }

    #[test]
    fn between_equal_logs_ones_own_is_taken() {
        let choice = chosen(&[(1, promise(5, 3, None)), (2, promise(5, 3, None))]);
        assert_eq!(choice, Choice::Best(ME));
    }

    #[test]
    fn what_damage_took_is_waited_for_until_a_clean_majority_lacks_it() {
        let (damaged, clean) = (promise(4, 3, Some((4, 6))), promise(4, 5, None));
        assert_eq!(chosen(&[(1, damaged.clone()), (2, clean.clone())]), Choice::Wait(vec![NodeId(3)]));
        let choice = chosen(&[(1, damaged), (2, clean.clone()), (3, clean)]);
        assert_eq!(choice, Choice::Best(NodeId(3)));
    }

    #[test]
    fn a_log_that_covers_the_damage_settles_it() {
        let choice = chosen(&[(1, promise(4, 3, Some((4, 6)))), (2, promise(5, 6, None))]);
        assert_eq!(choice, Choice::Best(NodeId(2)));
    }
}
