//! Tests of the links between two servers; the tests lose, keep and replay datagrams.

use recado_proto::id::ClusterId;
use recado_proto::packet::{Entries, Learn};

use super::*;
use crate::config::Member;

mod sharing;

/// Interval at which a server that is not known sends hellos.
const BEAT: Duration = Duration::from_millis(50);

fn cluster(me: u16) -> Cluster {
    let member = |id: u16| Member {
        id: NodeId(id),
        client: ([127, 0, 0, 1], 10_000 + id).into(),
        peer: ([127, 0, 0, 1], 11_000 + id).into(),
    };
    Cluster { id: ClusterId(7), me: NodeId(me), members: (1..=2).map(member).collect() }
}

/// The identity of server `me` in its boot with this incarnation.
fn identity(me: u16, incarnation: u64) -> Identity {
    let mut boot_id = [me as u8; 16];
    boot_id[8..].copy_from_slice(&incarnation.to_be_bytes());
    Identity {
        boot_id: BootId(boot_id),
        incarnation: Incarnation(incarnation),
        keys: ClusterKeys::new(&[0x5e; 32]),
    }
}

fn packet(n: u64) -> ToPeer {
    ToPeer::Learn(Learn { nonce: n })
}

/// Servers 1 and 2, and all datagrams that they ever sent, in order.
struct Pair {
    now: Moment,
    ends: BTreeMap<u16, PeerLinks>,
    incarnations: BTreeMap<u16, u64>,
    /// Receiver and bytes of each datagram.
    sent: Vec<(u16, Vec<u8>)>,
    /// Number of them that have arrived or are lost.
    arrived: usize,
    /// Receiver and packet, for each packet received.
    heard: Vec<(u16, ToPeer)>,
    /// Incarnations that a server reported as not later than those it had seen of its peer.
    stale: Vec<u64>,
    refused: Vec<RefusedDatagram>,
}

impl Pair {
    fn new() -> Pair {
        let (ends, incarnations, sent, heard, stale, refused) = Default::default();
        let now = Moment(1_000_000);
        let mut pair = Pair { now, ends, incarnations, sent, arrived: 0, heard, stale, refused };
        (1..=2).for_each(|node| pair.start(node));
        pair
    }

    /// Two servers whose links are established.
    fn met() -> Pair {
        let mut pair = Pair::new();
        pair.pass(2);
        assert!(pair.know_each_other());
        pair
    }

    /// Starts a server again, with the next incarnation.
    fn start(&mut self, node: u16) {
        let incarnation = self.incarnations.entry(node).or_default();
        *incarnation += 1;
        let identity = identity(node, *incarnation);
        let timing = Timing { heartbeat: BEAT, ..Timing::DEFAULT };
        let links = PeerLinks::new(&cluster(node), &timing, identity, &[], self.now);
        self.ends.insert(node, links);
    }

    /// Both servers send their queued packets. The network loses the datagrams whose index among all ever
    /// sent satisfies `lost`, and carries the others.
    fn turn(&mut self, lost: &dyn Fn(usize) -> bool) {
        for (node, links) in &mut self.ends {
            let mut out = Vec::new();
            links.flush(self.now, View::ZERO, &mut out);
            note(*node, out, &mut self.sent, &mut self.stale);
        }
        while let Some((to, bytes)) = self.sent.get(self.arrived).cloned() {
            self.arrived += 1;
            if !lost(self.arrived - 1) {
                self.hear(to, &bytes);
            }
        }
    }

    fn hear(&mut self, to: u16, bytes: &[u8]) {
        let Some(links) = self.ends.get_mut(&to) else { return };
        let mut out = Vec::new();
        match links.open(self.now, View::ZERO, bytes, false, &mut out) {
            Ok(said) => {
                let packets = said.into_iter().flat_map(|(_, _, packets)| packets);
                self.heard.extend(packets.map(|packet| (to, packet)));
            }
            Err(reason) => self.refused.push(reason),
        }
        note(to, out, &mut self.sent, &mut self.stale);
    }

    /// Runs this many heartbeats.
    fn pass(&mut self, beats: u32) {
        for _ in 0..beats {
            self.turn(&|_| false);
            self.now = self.now + BEAT;
        }
    }

    fn say(&mut self, from: u16, n: u64) {
        let links = self.ends.get_mut(&from).unwrap();
        links.send(NodeId(3 - from), packet(n), None);
    }

    fn known_boot(&self, node: u16) -> Option<BootId> {
        self.ends[&node].peers[&NodeId(3 - node)].current.as_ref().map(|current| current.boot_id)
    }

    fn know_each_other(&self) -> bool {
        let knows = |node: u16| {
            self.known_boot(node) == Some(identity(3 - node, self.incarnations[&(3 - node)]).boot_id)
        };
        knows(1) && knows(2)
    }

    /// Returns true if both servers know each other's current boot id and packets arrive in both directions.
    fn can_speak(&mut self) -> bool {
        self.heard.clear();
        self.say(1, 100);
        self.say(2, 200);
        self.turn(&|_| false);
        self.heard.sort_by_key(|(to, _)| *to);
        self.know_each_other() && self.heard == [(1, packet(200)), (2, packet(100))]
    }

    /// The datagrams of this class sent to a server so far.
    fn sent_to(&self, node: u16, class: Class) -> Vec<Vec<u8>> {
        let of_class = |bytes: &[u8]| Envelope::peek(bytes).unwrap().class == class;
        let sent = self.sent.iter().filter(|(to, bytes)| *to == node && of_class(bytes));
        sent.map(|(_, bytes)| bytes.clone()).collect()
    }
}

fn note(from: u16, out: Vec<Effect>, sent: &mut Vec<(u16, Vec<u8>)>, stale: &mut Vec<u64>) {
    for effect in out {
        match effect {
            Effect::Send { to, bytes } => {
                assert_eq!(to, NodeId(3 - from));
                sent.push((to.0, bytes));
            }
            Effect::StaleIncarnation { server, incarnation, .. } => {
                assert_eq!(server, NodeId(3 - from));
                stale.push(incarnation.0);
            }
            Effect::BootAdopted { .. } | Effect::Path { .. } => {}
            Effect::OtherEpoch { .. } => panic!("all are of the first epoch"),
        }
    }
}

#[test]
fn two_servers_learn_each_others_boot_id_before_they_exchange_packets() {
    let mut pair = Pair::new();
    pair.say(1, 5);
    assert_eq!(pair.ends[&1].room(NodeId(2)), 0, "nothing is sealed for a boot_id that is not known");
    pair.turn(&|_| false);
    assert!(pair.know_each_other());
    assert!(pair.heard.is_empty(), "what was said before is as good as lost");
    assert!(pair.sent.len() <= 6, "{} hellos", pair.sent.len());
    assert!(pair.can_speak());
    let hellos = pair.sent_to(1, Class::PeerHello).len() + pair.sent_to(2, Class::PeerHello).len();
    pair.pass(20);
    assert_eq!(pair.sent.len(), hellos + 2, "and no hello more");
    assert!(pair.refused.is_empty());
}

#[test]
fn whichever_hellos_are_lost_the_next_heartbeats_make_up_for_it() {
    for lost in 0..1_u32 << 8 {
        let mut pair = Pair::new();
        for _ in 0..10 {
            pair.turn(&|at| at < 8 && lost >> at & 1 == 1);
            pair.now = pair.now + BEAT;
        }
        assert!(pair.can_speak(), "lost {lost:#b}");
        // The same holds when one of them starts again.
        pair.start(2);
        let before = pair.sent.len();
        for _ in 0..10 {
            pair.say(1, 1);
            pair.turn(&|at| at >= before && at < before + 8 && lost >> (at - before) & 1 == 1);
            pair.now = pair.now + BEAT;
        }
        assert!(pair.can_speak(), "lost {lost:#b} after a restart");
    }
}

#[test]
fn a_server_alone_sends_one_hello_a_heartbeat() {
    let mut pair = Pair::new();
    pair.ends.remove(&2);
    for _ in 0..100 {
        pair.turn(&|_| false);
        pair.now = pair.now + BEAT / 10;
    }
    assert_eq!(pair.sent.len(), 10);
    assert!(pair.ends[&1].next_deadline() <= Some(pair.now + BEAT), "it wakes up for the next");
}

#[test]
fn one_that_starts_again_is_met_again_and_what_was_under_way_is_forgotten() {
    let mut pair = Pair::met();
    let mut out = Vec::new();
    let first = pair.ends.get_mut(&1).unwrap();
    first.send(NodeId(2), packet(1), Some((Op(1), Op(2))));
    first.flush(pair.now, View::ZERO, &mut out);
    assert_eq!(out.len(), 1);
    pair.start(2);
    pair.pass(2);
    assert!(pair.can_speak());
    pair.now = pair.now + Duration::from_secs(5);
    let now = pair.now;
    assert!(pair.ends.get_mut(&1).unwrap().losses(now).is_empty(), "it is for a boot_id that is over");
    assert!(pair.ends[&1].peers[&NodeId(2)].tracked.is_empty());
    (1..=2).for_each(|node| pair.start(node));
    pair.pass(2);
    assert!(pair.can_speak());
}

#[test]
fn a_loss_is_reported_once() {
    let mut pair = Pair::met();
    let mut out = Vec::new();
    let first = pair.ends.get_mut(&1).unwrap();
    first.send(NodeId(2), packet(1), Some((Op(1), Op(2))));
    first.flush(pair.now, View::ZERO, &mut out);
    let later = pair.now + Duration::from_secs(5);
    assert_eq!(first.losses(later), [(NodeId(2), (Op(1), Op(2)))]);
    assert!(first.losses(later).is_empty());
}

#[test]
fn datagrams_of_an_earlier_boot_of_either_server_do_not_open() {
    let mut pair = Pair::met();
    pair.say(1, 1);
    pair.say(2, 2);
    pair.turn(&|_| true);
    let [to_first, to_second] = [1, 2].map(|node| pair.sent_to(node, Class::Peer).remove(0));
    pair.start(2);
    for known in [false, true] {
        pair.refused.clear();
        pair.hear(2, &to_second);
        assert_eq!(pair.refused, [RefusedDatagram::Seal], "for its earlier boot_id");
        if known {
            pair.hear(1, &to_first);
            assert_eq!(pair.refused.len(), 2, "of its earlier boot_id");
        }
        pair.pass(2);
        assert!(pair.can_speak());
    }
    assert!(pair.heard.iter().all(|(_, said)| *said != packet(1) && *said != packet(2)));
}

#[test]
fn an_old_hello_of_an_earlier_boot_of_the_sender_changes_nothing() {
    let mut pair = Pair::met();
    let old = pair.sent_to(1, Class::PeerHello);
    pair.start(2);
    pair.pass(2);
    assert!(pair.can_speak());
    let knows_first = |hello: &&Vec<u8>| {
        let key = identity(2, 1).keys.peer_hello((NodeId(2), identity(2, 1).boot_id), NodeId(1));
        PeerHello::open(&key, hello).unwrap().yours.is_some()
    };
    let old = old.iter().filter(knows_first).collect::<Vec<_>>();
    assert!(!old.is_empty());
    let (before, sent) = (format!("{:?}", pair.ends[&1]), pair.sent.len());
    old.into_iter().for_each(|hello| pair.hear(1, hello));
    assert_eq!(format!("{:?}", pair.ends[&1]), before);
    assert_eq!(pair.sent.len(), sent, "nor is it answered");
    assert!(pair.stale.is_empty(), "nor is it reported as an old copy of the sender's directory");
    assert!(pair.can_speak());
}

#[test]
fn a_boot_that_was_never_current_is_reported_if_its_incarnation_is_not_later() {
    let mut pair = Pair::met();
    pair.start(2);
    pair.pass(2);
    let mine = BootId([9; 16]);
    for (incarnation, stale) in [(1, vec![1]), (2, vec![1, 2])] {
        let envelope = Envelope {
            class: Class::PeerHello,
            incarnation: Incarnation(incarnation),
            number: 1,
            ..pair.ends[&2].envelope
        };
        let key = identity(2, 1).keys.peer_hello((NodeId(2), mine), NodeId(1));
        let hello = PeerHello::new(mine, Some(identity(1, 1).boot_id));
        pair.hear(1, &hello.seal(&key, &envelope));
        assert_eq!(pair.stale, stale);
    }
    assert!(pair.can_speak());
}

#[test]
fn the_latest_of_the_senders_earlier_boots_are_remembered_and_no_more() {
    let mut pair = Pair::met();
    let first = pair.sent_to(1, Class::PeerHello);
    for _ in 0..EARLIER_MAX {
        pair.start(2);
        pair.pass(2);
        assert!(pair.know_each_other());
    }
    first.iter().for_each(|hello| pair.hear(1, hello));
    assert!(pair.stale.is_empty());
    pair.start(2);
    pair.pass(2);
    assert_eq!(pair.ends[&1].peers[&NodeId(2)].earlier.len(), EARLIER_MAX);
    first.iter().for_each(|hello| pair.hear(1, hello));
    assert!(!pair.stale.is_empty() && pair.stale.iter().all(|incarnation| *incarnation == 1));
    assert!(pair.can_speak());
}

#[test]
fn an_old_hello_to_an_earlier_boot_of_the_receiver_changes_nothing() {
    let mut pair = Pair::met();
    let old = pair.sent_to(1, Class::PeerHello);
    pair.start(1);
    // Server 1 does not know its peer again yet. The hellos echo an earlier boot of server 1, so their sender
    // may have ended.
    old.iter().for_each(|hello| pair.hear(1, hello));
    assert_eq!(pair.known_boot(1), None);
    pair.pass(2);
    assert!(pair.can_speak());

    let number = |pair: &Pair| pair.ends[&1].peers[&NodeId(2)].current.as_ref().unwrap().link.next_number();
    let (before, sent) = (number(&pair), pair.sent.len());
    old.iter().for_each(|hello| pair.hear(1, hello));
    assert_eq!(number(&pair), before, "the link goes on");
    let answers = &pair.sent[sent..];
    assert!(answers.len() <= old.len() && answers.iter().all(|(_, bytes)| bytes.len() <= old[0].len()));
    assert!(pair.can_speak());
}

/// Two boots have one incarnation if a directory was put back from a copy.
#[test]
fn a_boot_of_the_known_incarnation_is_adopted_only_with_the_known_boot_id() {
    let (now, ours, theirs) = (Moment(1_000_000), identity(1, 1), identity(2, 5));
    let known = |incarnation, boot_id| KnownBoot { incarnation: Incarnation(incarnation), boot_id };
    let boot = known(5, Some(theirs.boot_id));
    for (known, adopted) in [
        (KnownBoot::default(), true),
        (known(4, Some(BootId([9; 16]))), true),
        (known(5, None), true),
        (boot, true),
        (known(5, Some(BootId([9; 16]))), false),
        (known(6, None), false),
        (known(6, Some(theirs.boot_id)), false),
    ] {
        let timing = Timing { heartbeat: BEAT, ..Timing::DEFAULT };
        let mut links = PeerLinks::new(&cluster(1), &timing, ours.clone(), &[(NodeId(2), known)], now);
        let key = theirs.keys.peer_hello((NodeId(2), theirs.boot_id), NodeId(1));
        let (class, node, incarnation) = (Class::PeerHello, Some(NodeId(2)), theirs.incarnation);
        let envelope = Envelope { class, node, incarnation, number: 1, ..links.envelope };
        let hello = PeerHello::new(theirs.boot_id, Some(ours.boot_id)).seal(&key, &envelope);
        let mut out = Vec::new();
        assert_eq!(links.open(now, View::ZERO, &hello, false, &mut out), Ok(None));
        assert_eq!(links.peers[&NodeId(2)].current.is_some(), adopted, "{known:?}");
        assert_eq!(out.contains(&Effect::BootAdopted { peer: NodeId(2), boot }), adopted, "{known:?}");
        let (server, latest) = (NodeId(2), known.incarnation);
        let stale = Effect::StaleIncarnation { server, incarnation, latest };
        assert_eq!(out.contains(&stale), !adopted, "{known:?}");
        // The current boot is the only one of its incarnation, whatever was known.
        let mut out = Vec::new();
        let key = theirs.keys.peer_hello((NodeId(2), BootId([8; 16])), NodeId(1));
        let hello = PeerHello::new(BootId([8; 16]), Some(ours.boot_id)).seal(&key, &envelope);
        assert_eq!(links.open(now, View::ZERO, &hello, false, &mut out), Ok(None));
        assert!(matches!(out[..], [Effect::StaleIncarnation { .. }]), "{known:?}: {out:?}");
    }
}

#[test]
fn a_sender_with_another_cluster_secret_is_refused_and_costs_one_hello_a_heartbeat() {
    let mut pair = Pair::met();
    let stranger = ClusterKeys::new(&[1; 32]);
    let [first, second] = [1, 2].map(|node| identity(node, 1));
    let envelope = Envelope { incarnation: second.incarnation, ..pair.ends[&2].envelope };
    let mut keys = stranger.peer((NodeId(2), second.boot_id), (NodeId(1), first.boot_id), 0);
    let hello_key = stranger.peer_hello((NodeId(2), second.boot_id), NodeId(1));
    let hello = PeerHello::new(second.boot_id, Some(first.boot_id));
    let (before, forged) = (pair.sent.len(), 1_000);
    for number in 0..forged {
        let envelope = Envelope { number: 1_000 + number, ..envelope };
        pair.hear(1, &envelope::seal(&mut keys, &envelope, &Default::default(), &[]));
        // A hello under another cluster's key is not believed or answered either.
        let envelope = Envelope { class: Class::PeerHello, ..envelope };
        pair.hear(1, &hello.seal(&hello_key, &envelope));
        pair.now = pair.now + BEAT / 100;
    }
    assert_eq!(pair.refused, vec![RefusedDatagram::Seal; 2 * forged as usize]);
    let said = pair.sent.len() - before;
    assert!((1..=10).contains(&said), "{said} hellos in ten heartbeats");
    assert!(pair.can_speak());
}

/// A directory that was replaced by an old copy of it would otherwise be believed after a restart of this
/// server.
#[test]
fn a_boot_below_the_incarnation_known_at_the_start_is_reported_and_the_known_one_is_met() {
    let me = identity(1, 1);
    let known = [(NodeId(2), Incarnation(5).into())];
    let mut links = PeerLinks::new(&cluster(1), &Timing::DEFAULT, me.clone(), &known, Moment(1_000_000));
    // What follows from a hello of this boot of server 2, which knows this server, and if it is met then.
    let mut hear = |incarnation| {
        let second = identity(2, incarnation);
        let key = second.keys.peer_hello((NodeId(2), second.boot_id), NodeId(1));
        let (node, incarnation) = (Some(NodeId(2)), second.incarnation);
        let envelope = Envelope { class: Class::PeerHello, node, incarnation, number: 1, ..links.envelope };
        let hello = PeerHello::new(second.boot_id, Some(me.boot_id));
        let mut out = Vec::new();
        let opened = links.open(Moment(1_000_000), View::ZERO, &hello.seal(&key, &envelope), false, &mut out);
        assert_eq!(opened, Ok(None));
        (out, links.room(NodeId(2)) > 0)
    };
    let (server, latest) = (NodeId(2), Incarnation(5));
    let stale = Effect::StaleIncarnation { server, incarnation: Incarnation(4), latest };
    assert_eq!(hear(4), (vec![stale], false));
    let (answers, met) = hear(5);
    let [Effect::BootAdopted { peer: NodeId(2), .. }, Effect::Send { to: NodeId(2), .. }] = answers[..]
    else {
        panic!("{answers:?}")
    };
    assert!(met);
}

#[test]
fn a_datagram_counts_once_and_not_at_all_while_the_journal_is_behind() {
    let mut pair = Pair::met();
    let (view, op) = (View::ZERO, Op::ZERO);
    let cast = Entries {
        view,
        fetch: None,
        prev_op: op,
        prev_view: view,
        commit: op,
        entries: Vec::new(),
        members_op: Op::ZERO,
    };
    pair.ends.get_mut(&1).unwrap().send(NodeId(2), ToPeer::Entries(cast), None);
    pair.turn(&|_| true);
    let datagram = pair.sent_to(2, Class::Peer).remove(0);
    let now = pair.now;
    let second = pair.ends.get_mut(&2).unwrap();
    let mut open =
        |behind| second.open(now, View::ZERO, &datagram, behind, &mut Vec::new()).map(|said| said.is_some());
    assert_eq!(open(true), Err(RefusedDatagram::QueueFull));
    assert_eq!(open(false), Ok(true), "as if it had been lost on the way");
    assert_eq!(open(false), Err(RefusedDatagram::Repeated));
}

#[test]
fn an_acknowledgement_goes_within_a_turn_after_thirty_two_datagrams() {
    let mut pair = Pair::met();
    for n in 0..100 {
        pair.say(1, n);
        let links = pair.ends.get_mut(&1).unwrap();
        let mut out = Vec::new();
        links.flush(pair.now, View::ZERO, &mut out);
        note(1, out, &mut pair.sent, &mut pair.stale);
    }
    let before = pair.sent.len();
    let arriving = pair.sent[pair.arrived..].to_vec();
    for (to, bytes) in &arriving {
        pair.hear(*to, bytes);
    }
    assert_eq!((pair.heard.len(), pair.sent.len() - before), (100, 3));
}

#[test]
fn what_is_not_of_a_member_of_this_cluster_is_refused_by_reason() {
    let mut pair = Pair::met();
    let ours = pair.ends[&2].envelope;
    let sealed = |envelope: Envelope| {
        let mut keys = PacketKeys::from(recado_proto::seal::Key::new([1; 32]));
        envelope::seal(&mut keys, &envelope, &Default::default(), &[])
    };
    let cases = [
        (Envelope { cluster: ClusterId(8), ..ours }, RefusedDatagram::Cluster),
        (Envelope { node: Some(NodeId(9)), ..ours }, RefusedDatagram::Cluster),
        (Envelope { node: None, ..ours }, RefusedDatagram::Cluster),
        (Envelope { class: Class::Client, ..ours }, RefusedDatagram::Malformed),
        (Envelope { class: Class::PeerHello, ..ours }, RefusedDatagram::Truncated),
    ];
    let before = pair.sent.len();
    for (envelope, why) in cases {
        pair.refused.clear();
        pair.hear(1, &sealed(envelope));
        assert_eq!(pair.refused, [why], "{envelope:?}");
    }
    assert_eq!(pair.sent.len(), before, "nobody is answered");
}

/// Two epochs are two histories: entries of one must not go on in a log of the other.
#[test]
fn a_peer_whose_log_is_of_another_epoch_is_reported_and_never_met() {
    let (me, peer) = (identity(1, 1), identity(2, 1));
    let now = Moment(1_000_000);
    let mut links = PeerLinks::new(&cluster(1), &Timing::DEFAULT, me.clone(), &[], now);
    let key = peer.keys.peer_hello((NodeId(2), peer.boot_id), NodeId(1));
    let (node, incarnation) = (Some(NodeId(2)), peer.incarnation);
    let envelope = Envelope { class: Class::PeerHello, node, incarnation, number: 1, ..links.envelope };
    let mut hear = |epoch, yours| {
        let hello = PeerHello { epoch, ..PeerHello::new(peer.boot_id, yours) }.seal(&key, &envelope);
        let mut out = Vec::new();
        let opened = links.open(now, View::ZERO, &hello, false, &mut out);
        (opened, out, links.room(NodeId(2)) > 0)
    };
    let refused = Err(RefusedDatagram::Cluster);
    let (opened, out, met) = hear(Epoch(7), None);
    assert_eq!((opened, met), (refused.clone(), false));
    assert!(matches!(out[..], [Effect::Send { to: NodeId(2), .. }]), "it is told our boot id: {out:?}");
    let report = Effect::OtherEpoch { server: NodeId(2), epoch: Epoch(7) };
    assert_eq!(hear(Epoch(7), Some(me.boot_id)), (refused, vec![report], false));
    let (opened, _, met) = hear(Epoch::FIRST, Some(me.boot_id));
    assert_eq!((opened, met), (Ok(None), true), "once it has the same history");
}
