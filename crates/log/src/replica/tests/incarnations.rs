//! Servers that lost their disks: learners, and what an earlier incarnation promised.

use super::*;

#[test]
fn a_server_on_an_empty_directory_neither_promises_nor_acknowledges() {
    let mut one = One::new(Boot { voter: false, ..boot() });
    assert_eq!(promises(&one.packet(2, prepare(View::new(1, NodeId(2))))), 0);
    assert_eq!(promises(&one.sync()), 0);
    let view = View::new(1, NodeId(3));
    one.packet(3, cast(view, 0, View::ZERO, 0, vec![entry(1, 1, 3)]));
    assert_eq!(acked(&one.sync()).map(|(durable, ..)| durable), Some(Op(0)));
}

#[test]
fn a_learner_aims_only_at_the_commit_of_an_active_primary() {
    let (mut one, answer) = learner();
    let view = View::new(4, NodeId(3));
    // A primary whose view is opening may have restarted, and not know of the 16 ops that it committed.
    for peer in [2, 3] {
        one.packet(peer, answer(None));
    }
    let members = digest(&[NodeId(1), NodeId(2), NodeId(3)]);
    one.packet(3, heartbeat(view, HeartbeatState::Opening, 0, members));
    one.sync();
    one.sync();
    assert_eq!(one.replica.role(), RoleName::Learner);

    one.packet(3, answer(Some(16)));
    one.sync();
    assert_eq!(one.replica.role(), RoleName::Learner, "it has yet to get there");
    one.packet(3, cast(view, 0, View::ZERO, 16, (1..=16).map(|op| entry(op, 4, 3)).collect()));
    one.sync();
    assert_eq!(one.replica.role(), RoleName::Backup);
}

#[test]
fn a_heartbeat_from_before_the_primary_knew_of_a_lost_disk_gives_no_vote() {
    let (mut one, answer) = learner();
    let view = View::new(4, NodeId(3));
    // Server 3 sent this before it heard of the new incarnation, and then committed op 17 with an
    // acknowledgement of the old one.
    let members = digest(&[NodeId(1), NodeId(2), NodeId(3)]);
    one.packet(2, answer(None));
    one.packet(3, answer(Some(17)));
    one.packet(3, heartbeat(view, HeartbeatState::Active, 16, members));
    one.packet(3, cast(view, 0, View::ZERO, 16, (1..=16).map(|op| entry(op, 4, 3)).collect()));
    one.sync();
    one.sync();
    assert_eq!(one.replica.role(), RoleName::Learner, "op 17 was committed with its lost disk");
    one.packet(3, cast(view, 16, view, 17, vec![entry(17, 4, 3)]));
    one.sync();
    one.sync();
    assert_eq!(one.replica.role(), RoleName::Backup);
}

#[test]
fn a_promise_of_an_earlier_incarnation_opens_no_view() {
    let mut one = One::new(boot());
    let view = one.prepare();
    one.packet(2, promise(view));
    one.packet_of_incarnation(2, 2, LEARN);
    one.sync();
    assert!(matches!(one.replica.role, Role::Candidate(_)));
    one.packet_of_incarnation(2, 2, promise(view));
    assert!(matches!(one.replica.role, Role::Primary(_)));
}

/// A candidate that is cut off from a server that lost its disk hears of its new incarnation from the
/// others.
#[test]
fn a_promise_counts_only_while_no_promise_names_a_later_incarnation() {
    let mut one = One::among(5, boot());
    let view = one.prepare();
    one.sync();
    one.packet(2, promise(view));
    one.packet(3, promise_with_incarnations(view, &[(2, 2)]));
    assert!(matches!(one.replica.role, Role::Candidate(_)), "of three promises one is forgotten");
    one.packet(2, promise(view));
    assert!(matches!(one.replica.role, Role::Candidate(_)), "that life is over");
    one.packet_of_incarnation(2, 2, promise(view));
    assert!(matches!(one.replica.role, Role::Primary(_)));
}

#[test]
fn a_promise_carries_the_known_incarnations() {
    let mut one = One::among(5, boot());
    one.packet_of_incarnation(4, 2, LEARN);
    one.packet(3, prepare(View::new(1, NodeId(3))));
    let carried = one.sync().into_iter().find_map(|effect| match effect {
        Effect::Send { packet: ToPeer::Reply(Reply::Promise(promise)), .. } => Some(promise.incarnations),
        _ => None,
    });
    assert_eq!(carried, Some(vec![(NodeId(2), Incarnation(4)), (NodeId(3), Incarnation(1))]));
}

#[test]
fn an_ack_of_an_earlier_incarnation_commits_nothing() {
    let mut one = One::new(boot());
    let view = one.prepare();
    one.sync();
    one.packet(2, promise(view));
    let ack = |durable| {
        let (durable, matched, applied) = (Op(durable), Op(1), Op(0));
        ToPeer::EntriesAck(EntriesAck { view, durable, matched, commit: applied, rejected: false })
    };
    one.packet(2, ack(1));
    one.packet_of_incarnation(2, 2, LEARN);
    one.sync();
    assert_eq!((one.replica.durable(), one.replica.commit()), (Op(1), Op(0)));
    one.packet_of_incarnation(2, 2, ack(1));
    assert_eq!(one.replica.commit(), Op(1));
}

/// The answer lets the learner vote again. The server that gave it must name that incarnation in every
/// later promise, or a promise of the learner's earlier incarnation might count.
fn answers_a_learner(planted: PlantedBug) -> bool {
    let now = Moment(1_000_000);
    let config = Config { planted, ..config(1, 3) };
    let mut one = One::of(ReplicaManager::new(&config, boot(), 1, now, &mut Vec::new()), now);
    let early = answered(&one.packet_of_incarnation(9, 2, ToPeer::Learn(Learn { nonce: 7 })));
    let known = one.replica.peers.incarnations();
    early.is_none() && known.is_empty() && answered(&one.sync()) == Some(NodeId(2))
}

#[test]
fn a_learner_is_answered_only_when_its_incarnation_is_durable() {
    assert!(answers_a_learner(PlantedBug::default()));
    assert!(!answers_a_learner(PlantedBug(Some(Planted::KnownNotDurable))), "the planted bug is found");
}

/// A copy of the learner's directory may count up to the same incarnation. This server must refuse it also
/// after a restart, so it has to know which boot it let vote.
#[test]
fn a_learner_is_answered_only_when_its_boot_id_is_durable_too() {
    let known = vec![(NodeId(2), Incarnation(5).into())];
    let mut one = One::new(Boot { known, ..boot() });
    let boot = KnownBoot { incarnation: Incarnation(5), boot_id: Some(BootId([7; 16])) };
    one.input(Input::BootAdopted { peer: NodeId(2), boot });
    assert_eq!(answered(&one.packet_of_incarnation(5, 2, LEARN)), None, "its incarnation alone is durable");
    assert_eq!(answered(&one.sync()), Some(NodeId(2)));
}

#[test]
fn known_incarnations_are_sent_after_a_restart_and_packets_of_earlier_ones_are_ignored() {
    let mut one = One::new(Boot { known: vec![(NodeId(2), Incarnation(9).into())], ..boot() });
    one.packet(3, prepare(View::new(2, NodeId(3))));
    let promised = one.sync().into_iter().find_map(|effect| match effect {
        Effect::Send { packet: ToPeer::Reply(Reply::Promise(promise)), .. } => Some(promise.incarnations),
        _ => None,
    });
    assert_eq!(promised, Some(vec![(NodeId(2), Incarnation(9)), (NodeId(3), Incarnation(1))]));
    assert_eq!(promises(&one.packet_of_incarnation(8, 2, prepare(View::new(3, NodeId(2))))), 0);
    assert_eq!(one.replica.promised(), View::new(2, NodeId(3)), "of an incarnation that is over");
}
