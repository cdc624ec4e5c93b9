//! What peers send: views, floods, another incarnation, and datagrams of those who are no members.

use recado_log::bully;
use recado_proto::codec::encode;
use recado_proto::envelope::{Envelope, PeerHello};
use recado_proto::id::Epoch;
use recado_proto::members::{self, Members};

use super::members::{cast, envelope_of, prepare};
use super::*;

#[test]
fn a_round_that_leaves_no_higher_one_is_not_believed() {
    let mut rig = Rig::new(true);
    for packet in [
        prepare(View::new(View::ROUND_MAX, NodeId(3)), 0),
        ToPeer::Coordinator(Coordinator::new(View::new(View::ROUND_MAX, NodeId(3)), Vec::new())),
        ToPeer::Election(Election::Probe {
            view: View::new(View::ROUND_MAX, NodeId(3)),
            last: (View::ZERO, Op::ZERO),
            disk_ms: 0,
        }),
    ] {
        rig.peer(3, vec![packet]);
    }
    assert_eq!(rig.node.promised(), View::ZERO);
    rig.lead();
}

#[test]
fn a_storm_of_views_does_not_outrun_the_disk() {
    let mut rig = Rig::new(true);
    rig.around.owes = true;
    for round in 1..=10_000 {
        let view = View::new(round, NodeId(3));
        rig.peer(3, vec![prepare(view, 0)]);
    }
    assert!(rig.around.promises <= 64, "{} promises wait for the disk", rig.around.promises);
    rig.around.owes = false;
    rig.input(Input::Log(bully::Input::Journaled(rig.around.written)));
    let view = View::new(20_000, NodeId(3));
    rig.peer(3, vec![prepare(view, 0)]);
    assert_eq!(rig.node.promised(), view);
}

#[test]
fn a_server_that_returns_in_an_earlier_incarnation_is_reported_and_ignored() {
    let mut rig = Rig::new(true);
    let hello = |rig: &mut Rig<Peers>, incarnation| {
        let reborn = handshake_config(1, 10 + incarnation);
        let hello = PeerHello::new(reborn.boot_id, Some(handshake_config(ME.0, 1).boot_id));
        let key = reborn.keys.peer_hello((NodeId(1), hello.mine), ME);
        let envelope = Envelope { incarnation: Incarnation(incarnation), ..envelope_of(NodeId(1)) };
        rig.datagram(hello.seal(&key, &envelope));
    };
    hello(&mut rig, 5);
    hello(&mut rig, 5);
    assert_eq!(rig.around.earlier, [], "its hello again is no earlier incarnation");
    hello(&mut rig, 4);
    assert_eq!(rig.around.earlier, [(1, 4, 5)]);
    hello(&mut rig, 6);
    assert_eq!(rig.around.earlier, [(1, 4, 5)]);
}

#[test]
fn a_flood_of_requests_is_not_answered_with_thousands_of_times_its_size() {
    let mut rig = Rig::new(true);
    let view = View::new(1, NodeId(3));
    let entries = |first: u64| {
        let entry = |op| Entry { op: Op(op), view, kind: EntryKind::Command, payload: vec![1; 1_000].into() };
        (first..first + 32).map(entry).collect()
    };
    for first in [1, 33, 65, 97, 129, 161, 193, 225] {
        let prev_view = if first == 1 { View::ZERO } else { view };
        rig.peer(3, vec![cast(view, (first - 1, prev_view), 0, entries(first))]);
    }
    rig.flush();
    rig.around.sent.clear();
    let fetch = Fetch { query: QueryId(1), view, after: Op::ZERO, upto: Op(u64::MAX) };
    for _ in 0..20 {
        rig.peer(3, vec![ToPeer::Fetch(fetch); 100]);
    }
    rig.flush();
    let bytes: usize = rig
        .around
        .sent
        .iter()
        .flat_map(|(_, opened)| &opened.packets)
        .map(|packet| encode(packet).len())
        .sum();
    assert!(bytes < 4 << 20, "{bytes} bytes of answers at once");
}

#[test]
fn an_entry_that_names_members_or_is_of_a_later_kind_is_not_taken_and_is_reported() {
    let view = View::new(1, NodeId(3));
    let (client, peer) = (([192, 0, 2, 1], 1).into(), ([192, 0, 2, 1], 2).into());
    let member = members::Member { id: NodeId(9), client, peer, joined: Incarnation(1), role: 0 };
    let members = Members { list: vec![member], tie_holder: NodeId(9), epoch: Epoch(5) };
    assert_eq!(members.check(), Ok(()));
    for kind in [EntryKind::Members, EntryKind::Unknown(3), EntryKind::Unknown(u16::MAX)] {
        let mut rig = Rig::new(true);
        let entries = vec![Entry { op: Op(1), view, kind, payload: encode(&members).into() }];
        rig.peer(3, vec![cast(view, (0, View::ZERO), 0, entries)]);
        rig.flush();
        assert_eq!((rig.last(), &rig.around.entries_refused[..]), (Op::ZERO, &[(view, Op(1), kind)][..]));
        assert_eq!(rig.around.refused, [], "the datagram around it is read");
    }
}

#[test]
fn a_command_that_cannot_be_read_ends_the_server_before_it_applies_anything_more() {
    let mut rig = Rig::new(true);
    let view = View::new(1, NodeId(3));
    let entry = |op: u64, payload| Entry { op: Op(op), view, kind: EntryKind::Command, payload };
    let of_a_later_version = [command_of(300).to_vec(), vec![7]].concat().into();
    let entries = vec![entry(1, command_of(300)), entry(2, of_a_later_version), entry(3, command_of(300))];
    rig.peer(3, vec![cast(view, (0, View::ZERO), 0, entries)]);
    rig.flush();
    assert!(rig.failed.is_empty(), "it is not committed");
    rig.peer(3, vec![cast(view, (3, view), 3, Vec::new())]);
    rig.flush();
    let cause = recado_proto::DecodeError::TrailingBytes;
    assert_eq!(rig.failed, [UnreadableEntry { op: Op(2), cause }]);
    rig.around.sent.clear();
    rig.pass(Duration::from_secs(5));
    assert_eq!((rig.node.applied(), rig.around.sent.len()), (Op(1), 0), "it does nothing more");
}

#[test]
fn what_is_not_a_members_is_refused_by_reason() {
    let mut rig = Rig::new(true);
    rig.peer(4, vec![ToPeer::Learn(Learn { nonce: 1 })]);
    rig.datagram(b"junk".to_vec());
    assert_eq!(rig.around.refused, [RefusedDatagram::Cluster, RefusedDatagram::Truncated]);
}

#[test]
fn a_promise_fits_a_packet_however_many_views_the_log_has() {
    let mut rig = Rig::new(true);
    let view = View::new(20_000, NodeId(3));
    let mut prev = View::ZERO;
    for op in 1..=16_000 {
        let prev_view = prev;
        prev = View::new(op, NodeId(3));
        let entry = Entry { op: Op(op), view: prev, kind: EntryKind::ViewStart, payload: [].into() };
        rig.peer(3, vec![cast(view, (op - 1, prev_view), 0, vec![entry])]);
    }
    rig.flush();
    assert_eq!(rig.last(), Op(16_000));
    rig.around.sent.clear();
    let view = View::new(20_001, NodeId(1));
    rig.peer(1, vec![prepare(view, 0)]);
    rig.flush();
    assert!(rig.around.sent.iter().any(|(to, _)| *to == NodeId(1)), "the promise is said");
}

#[test]
fn a_deposed_primary_voids_the_tickets_that_it_awaits() {
    let mut rig = Rig::new(true);
    rig.lead();
    let (now, log) = (rig.clock.now, &mut rig.node.log);
    let tickets = [1_u8, 2].map(|byte| log.propose([byte].into()).unwrap());
    let view = View::new(log.status().view.round() + 1, NodeId(3));
    let next = ToPeer::Coordinator(Coordinator::new(view, Vec::new()));
    for datagram in rig.sealed(3, &[next]) {
        rig.node.log.handle(now, bully::Input::Peer { datagram, behind: false });
    }
    let events = std::iter::from_fn(|| rig.node.log.poll(now));
    let events: Vec<bully::Event> = events.filter(|event| !matches!(event, Event::Effect(_))).collect();
    assert_eq!(events, [Event::Lost { from: tickets[0] }, Event::Deposed, Event::Active(view)]);
}
