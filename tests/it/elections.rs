//! Running servers without a client: election, failover and rejoin.

use rustix::process::Signal;

use crate::cluster::{Cluster, PATIENCE, lock_out_other_clusters, primary_of};

#[test]
fn three_servers_elect_the_highest_and_survive_its_death() {
    let _alone = lock_out_other_clusters();
    let mut cluster = Cluster::ready(3);
    let first = cluster.wait_primary();
    cluster.kill(first);
    let second = cluster.wait_primary();
    assert_ne!(first, second);
    cluster.start(first);
    cluster.wait_ready();
}

#[test]
fn a_stopped_primary_is_replaced_and_comes_back_as_a_backup() {
    let _alone = lock_out_other_clusters();
    let cluster = Cluster::ready(3);
    let first = cluster.wait_primary();
    cluster.signal(first, Signal::STOP);
    cluster.wait_until("another primary", PATIENCE, |statuses| {
        primary_of(statuses).is_some_and(|primary| primary.node != first)
    });
    cluster.signal(first, Signal::CONT);
    cluster.wait_ready();
}

#[test]
fn a_terminated_primary_hands_over_and_ends_well() {
    let _alone = lock_out_other_clusters();
    let mut cluster = Cluster::ready(3);
    let first = cluster.wait_primary();
    let took = cluster.terminate(first);
    eprintln!("SIGTERM of the primary: ended after {took:?}");
    assert!(cluster.log(first).contains("stopped"));
    assert_ne!(cluster.wait_primary(), first);
}

#[test]
fn an_idle_server_holds_little_memory() {
    let _alone = lock_out_other_clusters();
    let cluster = Cluster::ready(3);
    for node in cluster.nodes() {
        let resident = cluster.resident_kib(node);
        eprintln!("idle {node}: {:.1} MiB resident", resident as f64 / 1024.0);
        assert!(resident < 32 * 1024, "a server at rest holds {resident} KiB");
    }
}
