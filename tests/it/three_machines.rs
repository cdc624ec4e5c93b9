//! Three machines, as the README takes a reader through them: each of 127.0.0.2, .3 and .4 is one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use crate::cluster::{Cluster, alone, free_ports, succeeded};
use crate::load::round_trip;

#[test]
fn what_init_says_takes_three_machines_to_a_cluster_that_fails_over() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    let hosts = ["127.0.0.2", "127.0.0.3", "127.0.0.4"];
    let port = free_ports(&hosts, 1);
    let mut init = Command::new(crate::recadod());
    init.args(["init", "--port", &port.to_string(), "--dir"]).arg(&files);
    for host in hosts {
        init.args(["--host", host]);
    }
    let told = succeeded(&init.output().unwrap());

    let copies = copies(&told);
    assert_eq!(copies.keys().map(String::as_str).collect::<Vec<_>>(), hosts, "{told}");
    let homes = copies.iter().map(|(host, (from, config))| {
        let machine = dir.path().join(host);
        std::fs::create_dir(&machine).unwrap();
        succeeded(&Command::new("cp").arg("-pr").arg(from).arg(&machine).output().unwrap());
        let config = machine.join(config);
        succeeded(&Command::new(crate::recadod()).arg("check-config").arg(&config).output().unwrap());
        config.parent().expect("a file lies somewhere").to_owned()
    });
    let homes: Vec<PathBuf> = homes.collect();
    // Nothing may hang on the place where the files were made.
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

/// What the output of init says to copy to each host, and the configuration file to serve there.
fn copies(told: &str) -> BTreeMap<String, (PathBuf, PathBuf)> {
    let mut copies = BTreeMap::new();
    let mut lines = told.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some((host, rest)) = line.split_once(": copy ") else { continue };
        let (from, _) = rest.split_once(" there").unwrap();
        let config = lines.next().and_then(|line| line.strip_prefix("recadod serve --config ")).unwrap();
        copies.insert(host.to_owned(), (from.into(), config.into()));
    }
    copies
}
