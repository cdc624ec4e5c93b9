//! Malformed datagrams against running servers: the servers count them and keep serving.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use recado_proto::envelope::{Class, Envelope, Header, OUTER_LEN, PACKETS_MAX, seal};
use recado_proto::handshake::{COOKIE_LEN, initiation};
use recado_proto::id::{ClusterId, Incarnation, NodeId, Op, SessionId};
use recado_proto::noise::INITIATION_OVERHEAD;
use recado_proto::packet::RefusedDatagram;
use recado_proto::seal::{Key, TAG_LEN};
use recado_proto::{DATAGRAM_BASE, DATAGRAM_MAX, version};

use crate::cluster::{Cluster, beside_other_clusters};
use crate::rng::Rng;
use crate::samples;

/// The number of datagrams in total, over the client and peer ports of all servers.
const DATAGRAMS: usize = 50_000;

/// The number of datagrams to one port between two STATUS queries. Every socket buffer has room for that
/// many.
const BATCH: usize = 24;

/// The limit for the growth of a server's resident memory during the test, in KiB.
pub(crate) const GROWTH_MAX_KIB: u64 = 16 * 1024;

/// The kinds of malformed datagrams.
pub(crate) const KINDS: [Kind; 6] = [
    Kind::Random,
    Kind::Truncated,
    Kind::BitFlipped,
    Kind::WrongVersion,
    Kind::Oversized,
    Kind::OtherCluster,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Random bytes, except the first, so that the reason of the refusal is known.
    Random,
    /// A valid datagram, truncated at a random length.
    Truncated,
    /// A valid datagram with one bit flipped after the outer header.
    BitFlipped,
    /// A valid datagram of a later protocol version.
    WrongVersion,
    /// A datagram longer than the protocol allows.
    Oversized,
    /// A valid datagram of another cluster.
    OtherCluster,
}

/// A port to send to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) node: NodeId,
    class: Class,
    pub(crate) to: SocketAddr,
    /// The server that a datagram between servers claims to come from.
    from: Option<NodeId>,
}

#[test]
fn fifty_thousand_bad_datagrams_are_counted_by_reason_and_harm_nobody() {
    let _shared = beside_other_clusters();
    let mut rng = crate::rng("bad input");

    let cluster = Cluster::steady(3);
    let primary = cluster.wait_primary();
    let before = Measure::of(&cluster);
    let sent = send_all(&cluster, &mut rng);

    cluster.wait_until("the counts of all that was refused", Duration::from_secs(10), |statuses| {
        let Some(counts) = statuses.iter().map(|status| Some(status.as_ref()?.refused.clone())).collect()
        else {
            return false;
        };
        enough(&sent, &before.counts, &counts_of(&cluster, counts))
    });
    let after = Measure::of(&cluster);
    for ((node, reason), number) in &sent {
        let counted = after.count(*node, *reason) - before.count(*node, *reason);
        assert!(counted <= *number, "{node} counted {counted} of {number} {reason:?}");
    }
    for node in cluster.nodes() {
        let (was, is) = (before.resident_kib[&node], after.resident_kib[&node]);
        eprintln!("{node}: {was} KiB resident before, {is} KiB after");
        assert!(is.saturating_sub(was) <= GROWTH_MAX_KIB, "{node} grew from {was} to {is} KiB");
    }
    assert_eq!(cluster.wait_ready(), primary, "bad input is no reason to elect");
    crate::load::round_trip(&cluster, "after-bad-input");
}

/// The counters of refused datagrams and the resident memory of each server.
#[derive(Debug)]
struct Measure {
    counts: Counts,
    resident_kib: BTreeMap<NodeId, u64>,
}

type Counts = BTreeMap<(NodeId, RefusedDatagram), u64>;

impl Measure {
    fn of(cluster: &Cluster) -> Measure {
        let counts =
            cluster.nodes().into_iter().map(|node| cluster.status(node).expect("it answers").refused);
        Measure {
            counts: counts_of(cluster, counts.collect()),
            resident_kib: cluster
                .nodes()
                .into_iter()
                .map(|node| (node, cluster.resident_kib(node)))
                .collect(),
        }
    }

    fn count(&self, node: NodeId, reason: RefusedDatagram) -> u64 {
        self.counts.get(&(node, reason)).copied().unwrap_or(0)
    }
}

fn counts_of(cluster: &Cluster, refused: Vec<Vec<(RefusedDatagram, u64)>>) -> Counts {
    let each = cluster.nodes().into_iter().zip(refused);
    each.flat_map(|(node, counts)| counts.into_iter().map(move |(reason, count)| ((node, reason), count)))
        .collect()
}

/// Returns true if nine of ten are counted. A socket buffer may overflow on a busy machine.
fn enough(sent: &Counts, before: &Counts, now: &Counts) -> bool {
    sent.iter().all(|(key, number)| {
        let count = |counts: &Counts| counts.get(key).copied().unwrap_or(0);
        count(now).saturating_sub(count(before)) * 10 >= number * 9
    })
}

/// Returns every port of every server, once for each class that the port takes.
pub(crate) fn targets(cluster: &Cluster) -> Vec<Target> {
    let nodes = cluster.nodes();
    let mut targets = Vec::new();
    for node in &nodes {
        let member = cluster.member(*node);
        let other = nodes.iter().copied().find(|other| other != node);
        targets.push(Target { node: *node, class: Class::Handshake, to: member.client, from: None });
        targets.push(Target { node: *node, class: Class::Client, to: member.client, from: None });
        targets.push(Target { node: *node, class: Class::Peer, to: member.peer, from: other });
    }
    targets
}

/// Sends all datagrams in batches and waits after each batch until the server answers a STATUS. Returns the
/// expected counts per server and reason.
fn send_all(cluster: &Cluster, rng: &mut Rng) -> Counts {
    let targets = targets(cluster);
    let packets = samples::encoded();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut sent = Counts::new();
    let mut left = DATAGRAMS;
    while left > 0 {
        let target = *rng.pick(&targets).expect("there are some");
        for _ in 0..BATCH.min(left) {
            let kind = *rng.pick(&KINDS).expect("there are some");
            let packet = rng.pick(&packets).expect("there are some");
            let (bytes, reason) = malform(rng, kind, cluster.id, target, packet);
            socket.send_to(&bytes, target.to).unwrap();
            *sent.entry((target.node, reason)).or_default() += 1;
            left -= 1;
        }
        let alive = cluster.poll(Duration::from_secs(10), || cluster.status(target.node).is_some());
        assert!(alive, "{} answers no more", target.node);
    }
    sent
}

/// Makes a malformed datagram, and the reason for which the server should refuse it.
pub(crate) fn malform(
    rng: &mut Rng,
    kind: Kind,
    cluster: ClusterId,
    target: Target,
    packet: &[u8],
) -> (Vec<u8>, RefusedDatagram) {
    let bytes_of = |rng: &mut Rng, length: u64| (0..length).map(|_| rng.next() as u8).collect::<Vec<u8>>();
    // A datagram as valid as it can be without a secret.
    let mut real = |cluster: ClusterId| match target.class {
        Class::Handshake => {
            let cookie = [rng.next() as u8; COOKIE_LEN];
            let message = bytes_of(rng, (DATAGRAM_BASE - OUTER_LEN - 1 - COOKIE_LEN) as u64);
            assert!(message.len() > INITIATION_OVERHEAD);
            initiation(&envelope(cluster, target), &cookie, &message)
        }
        _ => {
            let load = if packet.len() <= PACKETS_MAX { packet.to_vec() } else { Vec::new() };
            let mut keys = Key::new([1; 32]).into();
            seal(&mut keys, &envelope(cluster, target), &Header::default(), &[load])
        }
    };
    // The reason for which the server refuses it all the same.
    let unreal = match target.class {
        Class::Handshake => RefusedDatagram::Cookie,
        Class::Client => RefusedDatagram::Session,
        Class::Peer | Class::PeerHello => RefusedDatagram::Seal,
    };
    let mut bytes = real(if kind == Kind::OtherCluster { ClusterId(cluster.0 ^ 1 << 40) } else { cluster });
    match kind {
        Kind::Random => {
            let length = rng.range(0, DATAGRAM_BASE as u64);
            let mut bytes = bytes_of(rng, length);
            if let Some(first) = bytes.first_mut() {
                *first = 0xff;
            }
            let short = bytes.len() < OUTER_LEN + TAG_LEN;
            (bytes, if short { RefusedDatagram::Truncated } else { RefusedDatagram::Magic })
        }
        Kind::Truncated => {
            let length = rng.below(bytes.len() as u64) as usize;
            bytes.truncate(length);
            // An INITIATION that does not fill its datagram counts as truncated.
            let short = length < OUTER_LEN + TAG_LEN || target.class == Class::Handshake;
            (bytes, if short { RefusedDatagram::Truncated } else { unreal })
        }
        Kind::BitFlipped => {
            // The flipped bit is after the outer header and the kind of the handshake.
            let at = rng.range(OUTER_LEN as u64 + 1, bytes.len() as u64 - 1) as usize;
            bytes[at] ^= 1 << rng.below(8);
            (bytes, unreal)
        }
        Kind::WrongVersion => {
            // A probe of the path is well in any handshake.
            let other = bytes[2].wrapping_add(1 + rng.below(255) as u8);
            bytes[2] = if other == version::PROBE { 0 } else { other };
            (bytes, RefusedDatagram::Version)
        }
        Kind::Oversized => {
            let length = rng.range(DATAGRAM_MAX as u64 + 1, 2 * DATAGRAM_MAX as u64);
            bytes.resize(length as usize, 0);
            (bytes, RefusedDatagram::Oversized)
        }
        Kind::OtherCluster => (bytes, RefusedDatagram::Cluster),
    }
}

fn envelope(cluster: ClusterId, target: Target) -> Envelope {
    let session = if target.class == Class::Client { 1_000_000 } else { 0 };
    Envelope {
        class: target.class,
        cluster,
        session: SessionId(Op(session)),
        node: target.from,
        incarnation: Incarnation(u64::from(target.from.is_some())),
        number: 1,
    }
}
