//! Tests with full disks: each server has a small file system of its own, where the test may mount one.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use recado_proto::id::NodeId;

use crate::cluster::{Cluster, lock_out_other_clusters, succeeded};
use crate::load::Load;
use crate::pauses::another_primary;
use crate::run::HEALED;

/// Room for a few segments and snapshots.
const SIZE: &str = "size=32m";

/// Data directories that are file systems of their own, until this is dropped.
struct Mounts(Vec<PathBuf>);

impl Mounts {
    /// Returns `None`, with a message, where the test may not mount.
    fn under(cluster: &Cluster) -> Option<Mounts> {
        let mut mounts = Mounts(Vec::new());
        for node in cluster.nodes() {
            let data = cluster.data(node);
            let made: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(&data)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .map(|path| (path.clone(), fs::read(path).unwrap()))
                .collect();
            let mounted =
                Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(&data).output();
            if !mounted.is_ok_and(|output| output.status.success()) {
                println!("LEFT OUT: this user may not mount a tmpfs, so no disk is really full here");
                return None;
            }
            mounts.0.push(data);
            for (path, bytes) in made {
                fs::write(path, bytes).unwrap();
            }
        }
        Some(mounts)
    }

    /// Uses up all free room.
    fn fill(cluster: &Cluster, node: NodeId) {
        let mut ballast = File::create(cluster.data(node).join("ballast")).unwrap();
        let zeros = [0; 4096];
        while ballast.write_all(&zeros).is_ok() {}
    }

    fn empty(cluster: &Cluster, node: NodeId) {
        fs::remove_file(cluster.data(node).join("ballast")).unwrap();
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for data in &self.0 {
            // The server may still run; the lazy unmount takes effect when it has ended.
            let unmounted = Command::new("umount").arg("-l").arg(data).output().unwrap();
            succeeded(&unmounted);
        }
    }
}

#[test]
fn servers_whose_disks_are_full_stop_in_order_and_nothing_is_lost() {
    let _alone = lock_out_other_clusters();
    let mut cluster = Cluster::init(3);
    let Some(_mounts) = Mounts::under(&cluster) else { return };
    cluster.start_all();
    let primary = cluster.wait_ready();
    let load = Load::start(&cluster, 2, 2, 200);

    Mounts::fill(&cluster, primary);
    ends(&mut cluster, primary);
    another_primary(&cluster, primary);
    // The start fails at once, and uses up no room however often it is tried.
    for _ in 0..2 {
        cluster.start(primary);
        ends(&mut cluster, primary);
    }
    Mounts::empty(&cluster, primary);
    cluster.start(primary);
    cluster.wait_ready_within(HEALED);

    let nodes = cluster.nodes();
    nodes.iter().for_each(|node| Mounts::fill(&cluster, *node));
    // Without a majority the last server receives no entries, so it need not notice.
    let full = |cluster: &Cluster, node: NodeId| cluster.log(node).contains("full");
    let noticed = cluster.poll(HEALED, || nodes.iter().filter(|node| full(&cluster, **node)).count() >= 2);
    assert!(noticed, "two of three servers whose disks are full do not notice");
    for node in nodes {
        Mounts::empty(&cluster, node);
        if cluster.wait_for_its_end(node, Duration::from_secs(10)).is_none() {
            cluster.kill(node);
        }
        cluster.start(node);
    }
    cluster.wait_ready_within(HEALED);
    load.finish(&cluster);
}

fn ends(cluster: &mut Cluster, node: NodeId) {
    let exit = cluster.exit(node);
    assert!(!exit.success(), "{node} ended for want of room, and says {exit}");
    assert!(cluster.log(node).contains("full"), "{node} does not say that its disk is full");
}
