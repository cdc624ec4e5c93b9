//! The main promise on real processes, sockets and disks: servers die, stop and restart under load, and no
//! acknowledged notification is lost, repeated or out of order (P1, P2).
//!
//! The pauses are printed, never asserted.

use rustix::process::Signal;

use crate::cluster::{Cluster, PATIENCE, lock_out_other_clusters};
use crate::load::Load;
use crate::pauses::{Window, another_primary, report};

const SENDERS: u8 = 4;
const LISTENERS: u8 = 8;
const PER_SECOND: u32 = 1_000;

#[test]
fn nothing_is_lost_repeated_or_reordered_while_the_primary_is_killed_20_times() {
    kill_the_primary(20);
}

#[test]
#[ignore = "takes minutes"]
fn nothing_is_lost_repeated_or_reordered_while_the_primary_is_killed_200_times() {
    kill_the_primary(200);
}

fn kill_the_primary(times: usize) {
    let _alone = lock_out_other_clusters();
    let mut cluster = Cluster::ready(3);
    let load = Load::start(&cluster, SENDERS, LISTENERS, PER_SECOND);
    let windows = (0..times).map(|_| {
        under_way(&cluster, &load);
        let primary = cluster.wait_ready();
        let began = cluster.clock().now();
        cluster.kill(primary);
        another_primary(&cluster, primary);
        cluster.start(primary);
        cluster.wait_ready();
        (began, cluster.clock().now())
    });
    let windows: Vec<Window> = windows.collect();
    report("killed primary (refused port)", &windows, &load.finish(&cluster));
}

#[test]
fn nothing_is_lost_repeated_or_reordered_while_the_primary_is_stopped_and_continued() {
    let _alone = lock_out_other_clusters();
    let cluster = Cluster::ready(3);
    let load = Load::start(&cluster, SENDERS, LISTENERS, PER_SECOND);
    let windows = (0..10).map(|_| {
        under_way(&cluster, &load);
        let primary = cluster.wait_ready();
        let began = cluster.clock().now();
        cluster.signal(primary, Signal::STOP);
        another_primary(&cluster, primary);
        cluster.signal(primary, Signal::CONT);
        cluster.wait_ready();
        (began, cluster.clock().now())
    });
    let windows: Vec<Window> = windows.collect();
    report("stopped primary (time-out)", &windows, &load.finish(&cluster));
}

#[test]
fn no_request_fails_while_the_servers_are_restarted_one_after_another() {
    let _alone = lock_out_other_clusters();
    let mut cluster = Cluster::ready(3);
    let load = Load::start(&cluster, SENDERS, LISTENERS, PER_SECOND);
    let mut windows = Vec::new();
    let mut endings = Vec::new();
    for _ in 0..2 {
        // Each round stops the current primary too, so each round has a hand-over.
        for node in cluster.nodes() {
            under_way(&cluster, &load);
            let handed_over = cluster.wait_ready() == node;
            let began = cluster.clock().now();
            let took = cluster.terminate(node);
            cluster.start(node);
            cluster.wait_ready();
            if handed_over {
                windows.push((began, cluster.clock().now()));
                endings.push(took);
            }
        }
    }
    // A request that is refused or not answered fails the test in the load's own threads.
    let outcome = load.finish(&cluster);
    eprintln!("SIGTERM of the primary: ended after {endings:?}");
    report("hand-over (SIGTERM)", &windows, &outcome);
}

#[test]
fn nothing_is_lost_repeated_or_reordered_when_all_servers_are_killed_at_once() {
    let _alone = lock_out_other_clusters();
    let mut cluster = Cluster::ready(3);
    let load = Load::start(&cluster, SENDERS, LISTENERS, PER_SECOND);
    let mut windows = Vec::new();
    for _ in 0..3 {
        under_way(&cluster, &load);
        let began = cluster.clock().now();
        cluster.kill_all();
        cluster.start_all();
        cluster.wait_ready();
        windows.push((began, cluster.clock().now()));
    }
    report("all killed at once and restarted", &windows, &load.finish(&cluster));
}

/// Waits until a quarter of a second's worth of sends has been acknowledged.
fn under_way(cluster: &Cluster, load: &Load) {
    let before = load.acknowledged();
    let moved = cluster.poll(PATIENCE, || load.acknowledged() >= before + u64::from(PER_SECOND) / 4);
    assert!(moved, "only {} sends were acknowledged in {PATIENCE:?}", load.acknowledged() - before);
}
