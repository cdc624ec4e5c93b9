//! A few replicas on a perfect network: who leads them, and what they apply.

use super::*;

#[test]
fn the_highest_id_leads_a_new_cluster_and_everyone_applies_what_it_takes() {
    let mut world = World::new(3);
    world.run(SECOND);
    assert_eq!(world.primary(), Some(NodeId(3)));
    let op = world.propose("first");
    world.run(SECOND);
    assert!(world.applied.values().all(|applied| applied.contains(&op)));
    assert_eq!(world.applied.len(), 3);
}

#[test]
fn a_cluster_of_one_leads_itself() {
    let mut world = World::new(1);
    world.run(SECOND);
    assert_eq!(world.primary(), Some(NodeId(1)));
    let op = world.propose("alone");
    assert!(world.applied[&NodeId(1)].contains(&op));
}

#[test]
fn the_next_highest_takes_over_from_a_dead_primary_with_everything_it_had() {
    let mut world = World::new(3);
    world.run(SECOND);
    let op = world.propose("kept");
    world.replicas.remove(&NodeId(3));
    world.run(SECOND);
    assert_eq!(world.primary(), Some(NodeId(2)));
    assert!(world.applied[&NodeId(2)].contains(&op));
}

#[test]
fn a_candidate_gives_up_a_donor_that_cannot_read_its_snapshot_and_another_leads() {
    let (now, config) = (Moment(1_000_000), |id| config(id, 3));
    let view = View::new(1, NodeId(2));
    let entries: Vec<Entry> = (101..=105).map(|op| entry(op, 1, 2)).collect();
    let far = Boot { base: (view, Op(100)), entries, promised: view, commit: Op(105), ..boot() };
    let mut world = World { now, replicas: BTreeMap::new(), applied: BTreeMap::new(), stopped: Vec::new() };
    for (id, boot) in [(1, far.clone()), (2, far), (3, boot())] {
        let replica = ReplicaManager::new(&config(id), boot, id.into(), now, &mut Vec::new());
        world.replicas.insert(NodeId(id), replica);
    }
    world.run(SECOND * 10);
    assert_eq!(world.primary(), Some(NodeId(2)));
}

#[test]
fn without_a_majority_nobody_leads() {
    let mut world = World::new(3);
    world.run(SECOND);
    world.replicas.remove(&NodeId(3));
    world.replicas.remove(&NodeId(2));
    world.run(SECOND * 3);
    assert_eq!(world.primary(), None);
}

#[test]
fn a_primary_without_its_majority_is_isolated_and_takes_nothing() {
    let mut world = World::new(3);
    world.run(SECOND);
    world.replicas.remove(&NodeId(1));
    world.replicas.remove(&NodeId(2));
    world.run(SECOND * 3);
    let primary = world.replicas.get_mut(&NodeId(3)).expect("it runs");
    assert_eq!(primary.role(), RoleName::Isolated);
    assert_eq!(primary.propose([].into()), None);
}

#[test]
fn a_stopping_primary_hands_over_before_it_stops() {
    let mut world = World::new(3);
    world.run(SECOND);
    world.propose("one");
    world.feed(NodeId(3), Input::Stop);
    world.run(SECOND / 4);
    assert_eq!(world.primary(), Some(NodeId(2)));
    assert_eq!(world.stopped, vec![NodeId(3)]);
}

#[test]
fn a_returning_higher_id_is_handed_the_lead_after_ten_quiet_seconds() {
    let mut world = World::new(3);
    world.run(SECOND);
    let gone = world.replicas.remove(&NodeId(3)).expect("it runs");
    world.run(SECOND);
    world.propose("meanwhile");
    let entries = (1..=gone.last().0).filter_map(|op| gone.entry(Op(op)).cloned()).collect();
    let again = Boot { promised: gone.promised(), entries, ..boot() };
    let back = ReplicaManager::new(&config(3, 3), again, 7, world.now, &mut Vec::new());
    world.replicas.insert(NodeId(3), back);
    world.run(SECOND * 8);
    assert_eq!(world.primary(), Some(NodeId(2)), "it is watched first");
    world.run(SECOND * 5);
    assert_eq!(world.primary(), Some(NodeId(3)));
}
