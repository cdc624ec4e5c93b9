//! Checks that no packet number is sealed twice under a key. Relays watch every wire of a running cluster,
//! whose servers are killed, restarted and handed over while clients send. The checker is the simulator's.

use std::sync::Arc;

use parking_lot::Mutex;
use recado_proto::envelope::Class;

use crate::cluster::{Cluster, PATIENCE, Port, lock_out_other_clusters, primary_of};
use crate::load::{Load, round_trip};
use crate::nonces::Nonces;
use crate::relay::{Direction, PassingDatagram};

const PER_SECOND: u32 = 200;

#[derive(Debug, Default)]
struct NonceWatch {
    nonces: Nonces,
    first_wrong: Option<String>,
}

impl NonceWatch {
    fn pass(&mut self, port: Port, passed: &PassingDatagram<'_>) {
        let to = (passed.way == Direction::ToServer).then_some(port.node());
        if let Err(wrong) = self.nonces.sent(to, passed.bytes) {
            self.first_wrong.get_or_insert(wrong);
        }
    }
}

#[test]
fn no_number_seals_twice_through_kills_restarts_and_failover() {
    let _alone = lock_out_other_clusters();
    let watch = Arc::new(Mutex::new(NonceWatch::default()));
    let watching = Arc::clone(&watch);
    let mut cluster = Cluster::relayed(3, move |port, passed| watching.lock().pass(port, passed));
    cluster.start_all();
    cluster.wait_ready();
    let load = Load::start(&cluster, 2, 2, PER_SECOND);
    for round in 0..3 {
        under_way(&cluster, &load);
        let primary = cluster.wait_ready();
        cluster.kill(primary);
        cluster.wait_until("another primary", PATIENCE, |statuses| {
            primary_of(statuses).is_some_and(|now| now.node != primary)
        });
        // The same devices, in new sessions.
        round_trip(&cluster, &format!("round {round}"));
        cluster.start(primary);
        cluster.wait_ready();
    }
    under_way(&cluster, &load);
    let primary = cluster.wait_ready();
    cluster.terminate(primary);
    cluster.start(primary);
    cluster.wait_ready();
    under_way(&cluster, &load);
    cluster.kill_all();
    cluster.start_all();
    cluster.wait_ready();
    under_way(&cluster, &load);
    load.finish(&cluster);

    let watch = watch.lock();
    let NonceWatch { nonces, first_wrong } = &*watch;
    let seen = [Class::Client, Class::Peer, Class::PeerHello].map(|class| nonces.seen(class));
    let boot_ids = nonces.boot_ids();
    eprintln!("{seen:?} datagrams of clients, peers and hellos of {boot_ids} boot_ids: no number twice");
    assert_eq!(first_wrong, &None);
    // Three boots at the start, three kills, one hand-over, and a restart of all three.
    assert_eq!(boot_ids, 3 + 3 + 1 + 3, "every life of a server says hello");
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

fn under_way(cluster: &Cluster, load: &Load) {
    let before = load.acknowledged();
    let moved = cluster.poll(PATIENCE, || load.acknowledged() >= before + u64::from(PER_SECOND) / 4);
    assert!(moved, "only {} sends were acknowledged in {PATIENCE:?}", load.acknowledged() - before);
}
