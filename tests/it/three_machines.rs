//! A cluster on three machines, set up as docs/OPERATING.md describes. 127.0.0.2, .3 and .4 stand for the
//! machines, and each has its files in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster::{Cluster, beside_other_clusters, free_ports, succeeded};
use crate::load::round_trip;

#[test]
fn the_instructions_of_init_make_a_cluster_of_three_machines_that_fails_over() {
    let _shared = beside_other_clusters();
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    let hosts = ["127.0.0.2", "127.0.0.3", "127.0.0.4"];
    let port = free_ports(&hosts, 1);
    let mut init = Command::new(crate::recadod());
    init.args(["init", "--port", &port.to_string(), "--dir"]).arg(&files);
    for host in hosts {
        init.args(["--host", host]);
    }
    let output = succeeded(&init.output().unwrap());

    let made = homes(&output);
    assert_eq!(made.len(), hosts.len(), "{output}");
    let homes = made.iter().zip(hosts).map(|(from, host)| {
        let machine = dir.path().join(host);
        std::fs::create_dir(&machine).unwrap();
        succeeded(&Command::new("cp").arg("-pr").arg(from).arg(&machine).output().unwrap());
        let home = machine.join(from.file_name().expect("it has a name"));
        let config = home.join("recado.toml");
        let output =
            succeeded(&Command::new(crate::recadod()).arg("check-config").arg(config).output().unwrap());
        assert!(output.contains(host), "{output}");
        home
    });
    let homes: Vec<PathBuf> = homes.collect();
    // No server may depend on the place where the files were made.
    std::fs::remove_dir_all(&files).unwrap();

    let mut cluster = Cluster::of(dir, homes);
    cluster.start_all();
    let primary = cluster.wait_ready();
    round_trip(&cluster, "before");
    cluster.kill(primary);
    round_trip(&cluster, "while one machine is down");
    cluster.start(primary);
    cluster.wait_ready();
    round_trip(&cluster, "after");
}

/// Reads the folder of each server from the commands that init prints.
fn homes(told: &str) -> Vec<PathBuf> {
    told.lines()
        .filter_map(|line| line.trim().strip_prefix("recadod serve --config "))
        .map(|config| Path::new(config).parent().expect("a file lies somewhere").to_owned())
        .collect()
}
