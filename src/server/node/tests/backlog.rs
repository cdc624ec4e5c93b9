//! A long log is applied over several turns, and nothing waits for all of it.

use recado_log::journal::{Meta, Recovered};

use super::*;
use crate::server::engine::{self, BootIdentity};

const ENTRIES: u64 = 1_000;

#[test]
fn a_start_with_a_long_log_applies_a_part_of_it_each_turn() {
    let config = config();
    let most = u64::from(config.limits.applied_per_turn);
    let members = config.cluster.members.iter().map(|member| member.id);
    let meta = Meta { incarnation: Incarnation(1), ..Meta::new(ClusterId(7), ME, members) };
    let view = View::new(1, NodeId(1));
    let entry = |op| Entry { op: Op(op), view, kind: EntryKind::Command, payload: command_of(300) };
    let entries = (1..=ENTRIES).map(entry).collect();
    let recovered = Recovered { meta, snapshot: None, entries, commit: Op(ENTRIES), lost: None };
    let (id, keys) = (handshake_config(ME.0, 1).boot_id, handshake_config(ME.0, 1).keys);
    let mut out = Vec::new();
    let mut clock = Clock { now: Moment(0), unix_ms: 1 };
    let mut node =
        engine::start(config, recovered, BootIdentity { id, keys, seed: 1 }, clock, &mut out).unwrap();

    let mut applied = node.applied();
    assert!(applied.0 <= most, "{applied} at the start");
    while applied < Op(ENTRIES) {
        assert!(
            node.next_deadline().is_some_and(|due| due <= clock.now),
            "it goes on at once after {applied}"
        );
        clock.now = clock.now + Duration::from_millis(5);
        node.handle(clock, Input::Deadline, &mut out);
        node.flush(clock, &mut out);
        let before = std::mem::replace(&mut applied, node.applied());
        assert!((1..=most).contains(&(applied.0 - before.0)), "{before} to {applied} in a turn");
    }
    assert!(node.next_deadline().is_some_and(|due| due > clock.now), "nothing is left");
}
