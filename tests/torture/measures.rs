//! Measurements of real processes on this machine. They are printed, never asserted.

use std::thread::available_parallelism;
use std::time::Duration;

use recado_proto::id::NodeId;

use crate::cluster::{Cluster, lock_out_other_clusters, primary_of};
use crate::disk::Disk;
use crate::ledger::DiskFaults;
use crate::load::Load;
use crate::network::{FaultMix, Network};
use crate::number;
use crate::pauses::{Window, report};
use crate::rng::Rng;

/// The deadline with the slowest disks.
const PATIENCE: Duration = Duration::from_secs(180);

/// Kills the primary several times, and prints the pauses that its clients saw.
fn pauses(what: &str, cluster: &mut Cluster) {
    cluster.wait_ready_within(PATIENCE);
    let load = Load::start(cluster, 2, 1, 40);
    let mut windows: Vec<Window> = Vec::new();
    for _ in 0..number("MEASURE_TIMES", 10) {
        let before = load.acknowledged();
        assert!(
            cluster.poll(PATIENCE, || load.acknowledged() > before + 10),
            "{what}: nothing is acknowledged"
        );
        let primary = cluster.wait_ready_within(PATIENCE);
        let began = cluster.clock().now();
        cluster.kill(primary);
        cluster.wait_until("another primary", PATIENCE, |statuses| {
            primary_of(statuses).is_some_and(|other| other.node != primary)
        });
        cluster.start(primary);
        cluster.wait_ready_within(PATIENCE);
        windows.push((began, cluster.clock().now()));
    }
    report(what, &windows, &load.finish(cluster));
}

#[test]
#[ignore = "prints measures; takes minutes"]
fn pause_by_fsync_latency() {
    let _alone = lock_out_other_clusters();
    for sync_ms in [1, 10, 100, 500, 2_000] {
        let mut cluster = Cluster::init(3);
        cluster.disable_preemption();
        let disks: Vec<Disk> =
            cluster.nodes().into_iter().map(|node| Disk::under(&mut cluster, node)).collect();
        disks.iter().for_each(|disk| disk.set(DiskFaults { sync_ms, ..DiskFaults::default() }));
        cluster.start_all();
        pauses(&format!("killed primary, every fsync {sync_ms} ms"), &mut cluster);
    }
}

#[test]
#[ignore = "prints measures; takes minutes"]
fn pause_by_loss() {
    let _alone = lock_out_other_clusters();
    for percent in [0, 10, 20] {
        let mut cluster = Cluster::init(3);
        cluster.disable_preemption();
        let network = Network::between(&mut cluster, Rng::seeded(percent));
        network.set(FaultMix { lost: 10 * percent, ..FaultMix::default() });
        cluster.start_all();
        let what = format!(
            "killed primary (time-out: no port is refused behind a relay), {percent} % of all datagrams lost"
        );
        pauses(&what, &mut cluster);
    }
}

#[test]
#[ignore = "prints a measure; takes MEASURE_MINUTES, five unless set"]
fn false_elections_with_two_busy_loops_a_core() {
    let _alone = lock_out_other_clusters();
    let cluster = Cluster::steady(3);
    let cores = available_parallelism().unwrap().get();
    let minutes = number("MEASURE_MINUTES", 5);
    // Separate processes, like other programs on the machine.
    let busy: Vec<Busy> = (0..2 * cores).map(|_| Busy::start()).collect();
    let load = Load::start(&cluster, 2, 1, 40);
    let mut views: Vec<(NodeId, u64)> = Vec::new();
    cluster.poll(Duration::from_secs(60 * minutes), || {
        if let Some(primary) = primary_of(&cluster.statuses()) {
            let now = (primary.node, primary.view.0);
            if views.last() != Some(&now) {
                views.push(now);
            }
        }
        false
    });
    drop(busy);
    load.finish(&cluster);
    let changes = views.len().saturating_sub(1);
    println!(
        "false elections: {changes} changes of view in {minutes} min with {} busy loops on {cores} cores, {:.1} an hour \
         (default timers)",
        2 * cores,
        changes as f64 * 60.0 / minutes as f64
    );
}

/// A process that computes without end.
struct Busy(std::process::Child);

impl Busy {
    fn start() -> Busy {
        Busy(std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
