//! How the packets of a turn share datagrams, how long these are, and when they are acknowledged.

use recado_proto::codec;
use recado_proto::entry::{Entry, EntryKind};
use recado_proto::{DATAGRAM_BASE, DATAGRAM_MAX};

use super::*;

const FIRST: (Op, Op) = (Op(1), Op(1));

/// ENTRIES of `size` bytes.
fn cast(size: usize) -> ToPeer {
    let view = View::new(1, NodeId(1));
    let of = |payload: usize| {
        let payload = vec![7; payload].into();
        let entries = vec![Entry { op: Op(1), view, kind: EntryKind::Command, payload }];
        let (fetch, prev_op, commit, members_op) = (None, Op::ZERO, Op::ZERO, Op::ZERO);
        ToPeer::Entries(Entries { view, fetch, prev_op, prev_view: View::ZERO, commit, entries, members_op })
    };
    let cast = (0..size).rev().map(of).find(|cast| codec::encoded_len(cast) <= size).unwrap();
    assert_eq!(codec::encoded_len(&cast), size);
    cast
}

/// The datagrams that one flush sends, each with its receiver.
fn flush(links: &mut PeerLinks, now: Moment) -> Vec<(NodeId, Vec<u8>)> {
    flush_and_tell(links, now, &mut Vec::new())
}

/// The same, with what is told of paths.
fn flush_and_tell(links: &mut PeerLinks, now: Moment, told: &mut Vec<PathState>) -> Vec<(NodeId, Vec<u8>)> {
    let (mut out, mut datagrams) = (Vec::new(), Vec::new());
    links.flush(now, View::ZERO, &mut out);
    for effect in out {
        match effect {
            Effect::Send { to, bytes } => datagrams.push((to, bytes)),
            Effect::Path { path, .. } => told.push(path),
            other => panic!("{other:?}"),
        }
    }
    datagrams
}

/// The lengths of the datagrams.
fn lengths(datagrams: &[(NodeId, Vec<u8>)]) -> Vec<usize> {
    datagrams.iter().map(|(_, bytes)| bytes.len()).collect()
}

/// A path between servers 1 and 2 that carries datagrams of so many bytes.
struct Path {
    pair: Pair,
    carries: usize,
    /// The first op of the next cast.
    next: u64,
    /// Ops of casts of server 1 that are believed lost.
    lost: Vec<u64>,
    /// What server 1 has told of it.
    told: Vec<PathState>,
}

impl Path {
    fn new(carries: usize) -> Path {
        Path { pair: Pair::met(), carries, next: 1, lost: Vec::new(), told: Vec::new() }
    }

    fn first(&mut self) -> &mut PeerLinks {
        self.pair.ends.get_mut(&1).unwrap()
    }

    /// Server 1 sends so many casts of 1,000 bytes, and the other acknowledges what arrives. Returns the
    /// lengths of the datagrams that carried the casts.
    fn cast(&mut self, count: u64) -> Vec<usize> {
        for op in self.next..self.next + count {
            self.first().send(NodeId(2), cast(1_000), Some((Op(op), Op(op))));
        }
        self.next += count;
        let now = self.pair.now;
        let mut told = std::mem::take(&mut self.told);
        let sent = flush_and_tell(self.first(), now, &mut told);
        self.told = told;
        self.arrive(2, &sent);
        self.pair.now = self.pair.now + ACK_DELAY;
        let acks = flush(self.pair.ends.get_mut(&2).unwrap(), self.pair.now);
        assert!(acks.iter().all(|(_, bytes)| bytes.len() <= DATAGRAM_BASE));
        self.arrive(1, &acks);
        let now = self.pair.now;
        let lost = self.first().losses(now);
        self.lost.extend(lost.iter().map(|(_, (first, _))| first.0));
        lengths(&sent)
    }

    fn arrive(&mut self, to: u16, datagrams: &[(NodeId, Vec<u8>)]) {
        let arrive = datagrams.iter().filter(|(_, bytes)| bytes.len() <= self.carries);
        arrive.for_each(|(_, bytes)| self.pair.hear(to, bytes));
    }

    fn packets_max(&self) -> usize {
        self.pair.ends[&1].packets_max(NodeId(2))
    }
}

#[test]
fn a_turn_sends_a_peer_what_is_small_in_one_datagram_and_entries_in_as_few_as_hold_them() {
    let turns: [(u64, &[usize], usize); 8] = [
        (0, &[], 0),
        (1, &[], 1),
        (60, &[], 1),
        (0, &[221; 5], 1),
        (0, &[221; 6], 2),
        (0, &[221; 10], 2),
        (60, &[221; 5], 2),
        (0, &[PACKETS_MAX, PACKETS_MAX, 30], 3),
    ];
    for (small, casts, datagrams) in turns {
        let mut pair = Pair::met();
        let links = pair.ends.get_mut(&1).unwrap();
        for size in casts {
            links.send(NodeId(2), cast(*size), Some(FIRST));
        }
        (0..small).for_each(|n| links.send(NodeId(2), packet(n), None));
        let sent = flush(links, pair.now);
        // A probe is no datagram of the turn's packets.
        let count = sent.iter().filter(|(_, bytes)| bytes.len() <= DATAGRAM_BASE).count();
        assert_eq!(count, datagrams, "{small} small packets, casts of {casts:?} bytes");
        sent.iter().for_each(|(_, bytes)| pair.hear(2, bytes));
        let heard = pair.heard.iter().map(|(_, packet)| packet).filter(|packet| **packet != ToPeer::Ping);
        let kinds: Vec<bool> = heard.map(|packet| matches!(packet, ToPeer::Entries(_))).collect();
        let expected = [vec![false; small as usize], vec![true; casts.len()]].concat();
        assert_eq!(kinds, expected, "the small ones first");
    }
}

#[test]
fn what_is_small_goes_to_every_peer_before_the_bulk_to_any_and_shares_no_datagram_with_it() {
    let (now, me) = (Moment(1_000_000), identity(1, 1));
    let member = |id| Member { id: NodeId(id), ..cluster(1).members[0] };
    let three = Cluster { members: (1..=3).map(member).collect(), ..cluster(1) };
    let mut links = PeerLinks::new(&three, &Timing::DEFAULT, me.clone(), &[], now);
    for id in [2, 3] {
        let peer = identity(id, 1);
        let key = peer.keys.peer_hello((NodeId(id), peer.boot_id), NodeId(1));
        let (class, node, incarnation) = (Class::PeerHello, Some(NodeId(id)), peer.incarnation);
        let envelope = Envelope { class, node, incarnation, number: 1, ..links.envelope };
        let hello = PeerHello::new(peer.boot_id, Some(me.boot_id)).seal(&key, &envelope);
        assert_eq!(links.open(now, View::ZERO, &hello, false, &mut Vec::new()), Ok(None));
        links.send(NodeId(id), cast(30), Some(FIRST));
        links.send(NodeId(id), packet(1), None);
    }
    let sent = flush(&mut links, now);
    let to: Vec<u16> = sent.iter().map(|(to, _)| to.0).collect();
    assert_eq!(to, [2, 3, 2, 3]);
    let [small, other, bulk, another] = lengths(&sent)[..] else { unreachable!() };
    assert!(small == other && bulk == another && small < bulk, "{:?}", lengths(&sent));
}

#[test]
fn the_loss_of_a_datagram_is_reported_with_the_ops_of_all_packets_in_it() {
    let mut pair = Pair::met();
    let links = pair.ends.get_mut(&1).unwrap();
    let ops = [(Op(1), Op(3)), (Op(4), Op(4)), (Op(9), Op(12))];
    ops.iter().for_each(|ops| links.send(NodeId(2), cast(100), Some(*ops)));
    links.send(NodeId(2), cast(100), None);
    assert_eq!(flush(links, pair.now).len(), 1);
    let lost = links.losses(pair.now + Duration::from_secs(5));
    assert_eq!(lost, ops.map(|ops| (NodeId(2), ops)));
}

#[test]
fn an_ack_of_entries_goes_by_itself_only_if_nothing_went_for_a_while() {
    for answered in [false, true] {
        let mut path = Path::new(DATAGRAM_MAX);
        path.first().send(NodeId(2), cast(100), Some(FIRST));
        let now = path.pair.now;
        let sent = flush(path.first(), now);
        path.arrive(2, &sent);
        let second = path.pair.ends.get_mut(&2).unwrap();
        assert_eq!(flush(second, now), [], "at once there may be more to say");
        assert_eq!(second.next_deadline(), Some(now + ACK_DELAY));
        if answered {
            second.send(NodeId(1), packet(1), None);
            assert_eq!(flush(second, now).len(), 1);
        }
        assert_eq!(flush(second, now + ACK_DELAY).len(), usize::from(!answered));
        assert_eq!(flush(second, now + ACK_DELAY * 2), []);
        assert_eq!(second.next_deadline(), None);
    }
}

/// Nothing but acks would go to and fro for ever.
#[test]
fn an_ack_is_not_acknowledged_by_itself() {
    let mut pair = Pair::met();
    pair.say(1, 1);
    pair.turn(&|_| false);
    let before = pair.sent.len();
    pair.pass(10);
    assert_eq!(pair.sent.len(), before);
}

#[test]
fn a_link_with_much_to_cast_finds_how_long_its_datagrams_may_be() {
    for (carries, found) in [(1_200, 1_200), (1_472, 1_452), (8_952, 8_952)] {
        let mut path = Path::new(carries);
        (0..12).for_each(|_| drop(path.cast(20)));
        assert_eq!(path.packets_max(), PACKETS_MAX + found - DATAGRAM_BASE);
        assert!(path.lost.is_empty(), "no probe makes anything count as lost");
        let (sent, casts) = (path.cast(40), path.packets_max() / 1_000);
        assert_eq!(sent.len(), 40_usize.div_ceil(casts), "as many as fit share one: {sent:?}");
    }
}

#[test]
fn what_is_small_goes_in_short_datagrams_on_any_path() {
    let mut path = Path::new(DATAGRAM_MAX);
    (0..12).for_each(|_| drop(path.cast(20)));
    (0..200).for_each(|n| path.first().send(NodeId(2), packet(u64::MAX - n), None));
    let now = path.pair.now;
    let sent = lengths(&flush(path.first(), now));
    assert!(sent.len() > 1 && sent.iter().all(|length| *length <= DATAGRAM_BASE), "{sent:?}");
}

#[test]
fn a_path_that_carries_less_than_before_is_noticed_and_everything_lost_is_reported() {
    let mut path = Path::new(DATAGRAM_MAX);
    (0..12).for_each(|_| drop(path.cast(20)));
    path.carries = 1_300;
    path.pair.heard.clear();
    let from = path.next;
    for _ in 0..40 {
        path.cast(8);
        path.pair.now = path.pair.now + BEAT;
    }
    assert_eq!(path.packets_max(), PACKETS_MAX);
    let last = path.cast(8);
    let longer = last.iter().filter(|length| **length > DATAGRAM_BASE).count();
    assert!(longer <= 1, "nothing but a probe: {last:?}");
    let arrived = path.pair.heard.iter().filter(|(to, packet)| *to == 2 && *packet == cast(1_000)).count();
    assert!(path.lost.iter().all(|op| *op >= from));
    assert_eq!(arrived + path.lost.len(), (path.next - from) as usize, "each once");
    assert!(path.lost.len() < 8 * 20, "{} lost", path.lost.len());
}

#[test]
fn the_datagrams_to_a_peer_that_starts_again_are_short_at_first() {
    let mut path = Path::new(DATAGRAM_MAX);
    (0..12).for_each(|_| drop(path.cast(20)));
    assert!(path.packets_max() > PACKETS_MAX);
    path.pair.start(2);
    path.pair.pass(2);
    assert!(path.pair.know_each_other());
    assert_eq!(path.packets_max(), PACKETS_MAX);
}

#[test]
fn what_a_search_has_found_is_told_with_the_probes_that_it_took_and_so_is_a_fall_back() {
    let found = |carries, sent, lost| PathState { carries, probes: ProbeCounts { sent, lost } };
    let mut path = Path::new(1_452);
    for _ in 0..40 {
        path.cast(6);
        path.pair.now = path.pair.now + BEAT;
    }
    // Two sizes are carried, and three probes of the third are lost.
    assert_eq!(path.told, [found(1_452, 5, 3)]);
    path.carries = DATAGRAM_BASE;
    for _ in 0..10 {
        path.cast(6);
        path.pair.now = path.pair.now + BEAT;
    }
    assert_eq!(path.told[1], found(DATAGRAM_BASE, 5, 3));
}
