//! Floods of the requests that cost the servers most, at rates that no honest client reaches. The servers
//! accept and keep none of them, answer with no more bytes than they received, hold no election, and keep
//! serving honest clients.
//!
//! The time that honest senders wait for acknowledgements is printed, with and without a flood. The rate of
//! each flood is printed too, because it depends on the machine.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{tick, unbounded};
use recado_client::machine::handshake::{HandshakeClient, Identity};
use recado_client::{Client, Receipt};
use recado_proto::DATAGRAM_BASE;
use recado_proto::entropy::Entropy;
use recado_proto::envelope::{Class, Envelope, OUTER_LEN};
use recado_proto::handshake::{COOKIE_LEN, hello, initiation};
use recado_proto::id::{ClusterId, Incarnation, Moment, NodeId, SessionId, View};
use recado_proto::noise;
use recado_proto::packet::{Query, QueryId, QueryKind, RefusedDatagram, ToServer};
use recado_proto::seal::{ClusterKeys, Key};
use recado_proto::version;
use recado_sys::clock::MachineClock;

use crate::bad_input::{GROWTH_MAX_KIB, KINDS, malform, targets};
use crate::cluster::{Cluster, PATIENCE, lock_out_other_clusters};
use crate::load::{connect, plain, round_trip};
use crate::rng::Rng;
use crate::samples;

/// The duration of a flood.
const LASTS: Duration = Duration::from_secs(3);

/// Handshakes a second: incomplete ones, or complete ones of no use.
const HANDSHAKES: u64 = 20_000;

/// Malformed datagrams a second.
const GARBAGE: u64 = 50_000;

/// The number of the attackers' sockets. All are in one network, which is not that of the honest clients
/// (127.0.0.0/24).
const SOCKETS: u8 = 8;

/// The handshake budget of one network: the burst, and the rate a second. Each handler has its own, and there
/// is one for two cores, eight at most.
fn of_a_network() -> (f64, f64) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let handlers = (cores / 2).clamp(1, 8) as f64;
    (handlers * 400.0, handlers * 200.0)
}

#[test]
fn floods_take_no_memory_no_answers_no_elections_and_no_clients() {
    let _alone = lock_out_other_clusters();
    let mut rng = crate::rng("floods");
    let cluster = Cluster::steady(3);
    let primary = cluster.wait_primary();
    let honest = connect(&cluster, &"sam".parse().unwrap(), false);
    let quiet = p99(&cluster, &honest, || {
        let end = cluster.clock().now() + LASTS;
        assert!(cluster.poll(2 * LASTS, || cluster.clock().now() >= end));
    });
    eprintln!("quiet: an honest sender waits {quiet:?} at p99");
    let before = State::of(&cluster);
    let mut stage = FloodTest { cluster: &cluster, honest: &honest, quiet, before };

    let clients: Vec<SocketAddr> = cluster.addresses();
    let hellos: Vec<Vec<u8>> = (0..64).map(|_| hello(&stranger(cluster.id), rng.next())).collect();
    let answered = stage.flood("handshakes begun", HANDSHAKES, |n, _| {
        (clients[n % clients.len()], hellos[n % hellos.len()].clone())
    });
    assert!(answered.datagrams_in > 0, "nobody who begins a handshake is answered");

    let initiations: Vec<Vec<u8>> = (0..64).map(|_| random_initiation(&mut rng, cluster.id)).collect();
    let ignored = stage.flood("initiations without a cookie", HANDSHAKES, |n, _| {
        (clients[n % clients.len()], initiations[n % initiations.len()].clone())
    });
    assert_eq!(ignored.datagrams_in, 0, "an INITIATION without a cookie is answered");

    // INITIATIONs with valid cookies, one for each socket: one network uses up its own budget, not that of
    // others.
    let sockets = attackers();
    let goal = cluster.member(primary).client;
    let initiations = initiations_with_cookies(&cluster, goal, &sockets);
    let of_budget = refused(&cluster, primary, RefusedDatagram::Budget);
    let newcomer = || {
        let name = "newcomer".parse().unwrap();
        let client = connect(&cluster, &name, true);
        let topic = recado_proto::id::Topic::Inbox(name);
        client.send(Some(topic), plain("let in".into())).unwrap().wait(PATIENCE).unwrap();
    };
    let let_in = stage.flood_from(&sockets, "initiations with cookies", HANDSHAKES, newcomer, |_, at| {
        (goal, initiations[at].clone())
    });
    let (burst, per_s) = of_a_network();
    let most = burst + per_s * (let_in.took.as_secs_f64() + 1.0);
    eprintln!(
        "{} of {} handshakes were answered, of at most {most}",
        let_in.datagrams_in, let_in.datagrams_out
    );
    assert!(let_in.datagrams_in as f64 <= most, "{} handshakes of one network", let_in.datagrams_in);
    assert!(refused(&cluster, primary, RefusedDatagram::Budget) > of_budget, "the budget was not reached");

    // A handshake of another version is told this one; nothing else of garbage is answered.
    let is_of_another_version = |(_, bytes): &(SocketAddr, Vec<u8>)| version::answer(bytes).is_some();
    let (other_versions, garbage): (Vec<_>, Vec<_>) =
        garbage(&cluster, &mut rng).into_iter().partition(is_of_another_version);
    let answered = stage.flood("handshakes of other versions", HANDSHAKES, |n, _| {
        other_versions[n % other_versions.len()].clone()
    });
    assert!(answered.datagrams_in > 0, "nobody of another version is answered");
    let ignored = stage.flood("garbage", GARBAGE, |n, _| garbage[n % garbage.len()].clone());
    assert_eq!(ignored.datagrams_in, 0, "garbage is answered");
    drop(honest);
    round_trip(&cluster, "after the floods");
}

/// Returns the outer header of a handshake, as a client sends it that knows only the cluster id.
fn stranger(cluster: ClusterId) -> Envelope {
    Envelope {
        class: Class::Handshake,
        cluster,
        session: SessionId::default(),
        node: None,
        incarnation: Incarnation(0),
        number: 0,
    }
}

fn random_initiation(rng: &mut Rng, cluster: ClusterId) -> Vec<u8> {
    let cookie: [u8; COOKIE_LEN] = std::array::from_fn(|_| rng.next() as u8);
    let message: Vec<u8> =
        (0..DATAGRAM_BASE - OUTER_LEN - 1 - COOKIE_LEN).map(|_| rng.next() as u8).collect();
    initiation(&stranger(cluster), &cookie, &message)
}

/// Makes for each socket a complete and valid INITIATION with a query that any client may ask.
fn initiations_with_cookies(cluster: &Cluster, server: SocketAddr, sockets: &[UdpSocket]) -> Vec<Vec<u8>> {
    let mut entropy = Entropy::new([9; 32]);
    let identity = Identity {
        cluster: cluster.id,
        cluster_key: noise::public(&ClusterKeys::new(cluster.secret()).cluster_private()),
        private: Key::new(entropy.bytes()),
    };
    let initiation = |socket: &UdpSocket| {
        let mut initiator = HandshakeClient::default();
        let mut bytes = [0; DATAGRAM_BASE];
        let greeted = cluster.poll(PATIENCE, || {
            socket.send_to(&initiator.hello(cluster.id, &mut entropy), server).unwrap();
            let came = socket.recv_from(&mut bytes).ok();
            came.is_some_and(|(length, _)| initiator.take(Moment(0), &bytes[..length]).is_some())
        });
        assert!(greeted, "{server} says hello to nobody");
        let status = ToServer::Query(Query::new(QueryId(1), QueryKind::Status));
        initiator.initiation(Moment(0), &identity, &status, &mut entropy).expect("it was greeted")
    };
    sockets.iter().map(initiation).collect()
}

/// Makes malformed datagrams of every kind for every port of every server.
fn garbage(cluster: &Cluster, rng: &mut Rng) -> Vec<(SocketAddr, Vec<u8>)> {
    let (targets, packets) = (targets(cluster), samples::encoded());
    let one = |_| {
        let target = *rng.pick(&targets).expect("there are some");
        let kind = *rng.pick(&KINDS).expect("there are some");
        let packet = rng.pick(&packets).expect("there are some");
        (target.to, malform(rng, kind, cluster.id, target, packet).0)
    };
    (0..4_096).map(one).collect()
}

fn attackers() -> Vec<UdpSocket> {
    let socket = |host| {
        let socket = UdpSocket::bind(format!("127.0.7.{host}:0")).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    (1..=SOCKETS).map(socket).collect()
}

fn refused(cluster: &Cluster, node: NodeId, reason: RefusedDatagram) -> u64 {
    let mut count = None;
    assert!(cluster.poll(PATIENCE, || {
        let status = cluster.status(node);
        count = status.map(|status| {
            status.refused.iter().find(|(counted, _)| *counted == reason).map_or(0, |(_, count)| *count)
        });
        count.is_some()
    }));
    count.expect("it answered")
}

/// The state that a flood must not change.
struct State {
    views: Vec<View>,
    resident_kib: BTreeMap<NodeId, u64>,
}

impl State {
    fn of(cluster: &Cluster) -> State {
        let mut views = Vec::new();
        let answered = cluster.poll(PATIENCE, || {
            let statuses = cluster.statuses();
            views = statuses.iter().flatten().map(|status| status.view).collect();
            views.len() == statuses.len()
        });
        assert!(answered, "not every server answers");
        let resident_kib = cluster.nodes().into_iter().map(|node| (node, cluster.resident_kib(node)));
        State { views, resident_kib: resident_kib.collect() }
    }
}

struct FloodTest<'a> {
    cluster: &'a Cluster,
    honest: &'a Client,
    quiet: Duration,
    before: State,
}

/// The traffic of a flood.
#[derive(Debug, Default)]
struct FloodTraffic {
    datagrams_out: u64,
    datagrams_in: u64,
    bytes_out: u64,
    bytes_in: u64,
    took: Duration,
}

impl FloodTest<'_> {
    fn flood(
        &mut self,
        what: &str,
        per_second: u64,
        datagram: impl FnMut(usize, usize) -> (SocketAddr, Vec<u8>),
    ) -> FloodTraffic {
        self.flood_from(&attackers(), what, per_second, || {}, datagram)
    }

    /// Sends the datagrams that `datagram` returns for their number and socket, while `meanwhile` runs. Then
    /// checks that the servers are in the state that every flood must leave unchanged.
    fn flood_from(
        &mut self,
        sockets: &[UdpSocket],
        what: &str,
        per_second: u64,
        meanwhile: impl FnOnce() + Send,
        mut datagram: impl FnMut(usize, usize) -> (SocketAddr, Vec<u8>),
    ) -> FloodTraffic {
        let cluster = self.cluster;
        let mut flooded = FloodTraffic::default();
        let latency = p99(cluster, self.honest, || {
            std::thread::scope(|scope| {
                let meanwhile = scope.spawn(meanwhile);
                flooded = send_at_rate(cluster.clock(), sockets, per_second, &mut datagram);
                meanwhile.join().unwrap();
            });
        });
        let rate = flooded.datagrams_out as f64 / flooded.took.as_secs_f64();
        let after = State::of(cluster);
        let grown = |node: &NodeId| after.resident_kib[node].saturating_sub(self.before.resident_kib[node]);
        let growth: BTreeMap<NodeId, u64> = cluster.nodes().iter().map(|node| (*node, grown(node))).collect();
        eprintln!(
            "{what}: {rate:.0}/s, {} bytes out, {} in; an honest sender waits {latency:?} at p99, {:?} in \
             quiet; KiB grown: {growth:?}",
            flooded.bytes_out, flooded.bytes_in, self.quiet
        );
        assert!(flooded.bytes_in <= flooded.bytes_out, "{what}: {flooded:?}");
        assert_eq!(after.views, self.before.views, "{what}: no reason to elect");
        for (node, grown) in growth {
            assert!(grown <= GROWTH_MAX_KIB, "{what}: {node} grew by {grown} KiB");
        }
        flooded
    }
}

/// Sends datagrams at this rate in bursts of a millisecond, as far as the machine can, and counts the
/// answers.
fn send_at_rate(
    clock: MachineClock,
    sockets: &[UdpSocket],
    per_second: u64,
    datagram: &mut impl FnMut(usize, usize) -> (SocketAddr, Vec<u8>),
) -> FloodTraffic {
    let mut flooded = FloodTraffic::default();
    let mut bytes = [0; 2 * DATAGRAM_BASE];
    let began = clock.now();
    let ticks = tick(Duration::from_millis(1));
    while flooded.took < LASTS {
        ticks.recv().expect("a tick never ends");
        flooded.took = clock.now().since(began);
        let due =
            (flooded.took.as_micros() as u64 * per_second / 1_000_000).saturating_sub(flooded.datagrams_out);
        // After a delay the sender does not catch up in one burst.
        for _ in 0..due.min(per_second / 100) {
            let at = flooded.datagrams_out as usize % sockets.len();
            let (to, load) = datagram(flooded.datagrams_out as usize, at);
            // A datagram that the system refuses counts as lost.
            if let Ok(sent) = sockets[at].send_to(&load, to) {
                flooded.bytes_out += sent as u64;
            }
            flooded.datagrams_out += 1;
        }
        for socket in sockets {
            while let Ok((length, _)) = socket.recv_from(&mut bytes) {
                flooded.bytes_in += length as u64;
                flooded.datagrams_in += 1;
            }
        }
    }
    flooded
}

/// Returns the 99th percentile of an honest sender's wait for an acknowledgement while `something` runs.
/// Every one of its requests is acknowledged.
fn p99(cluster: &Cluster, client: &Client, something: impl FnOnce()) -> Duration {
    let clock = cluster.clock();
    let over = AtomicBool::new(false);
    let (receipts, answers) = unbounded::<(Moment, Receipt)>();
    let mut waited: Vec<Duration> = std::thread::scope(|scope| {
        let over = &over;
        scope.spawn(move || {
            let ticks = tick(Duration::from_millis(10));
            while !over.load(Ordering::Relaxed) {
                ticks.recv().expect("a tick never ends");
                let receipt = client.send(None, plain("honest".into())).unwrap();
                receipts.send((clock.now(), receipt)).expect("who waits for the answers takes them all");
            }
        });
        let waiting = scope.spawn(move || {
            let wait = |(asked, receipt): (Moment, Receipt)| {
                receipt.wait(PATIENCE).unwrap();
                clock.now().since(asked)
            };
            answers.into_iter().map(wait).collect()
        });
        // The guard stops the sender thread also after a panic.
        let ends = Ends(over);
        something();
        drop(ends);
        waiting.join().unwrap()
    });
    waited.sort_unstable();
    waited[(waited.len() * 99).div_ceil(100) - 1]
}

/// Sets the flag when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
