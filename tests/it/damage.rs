//! Damage to the disk of a running server: the servers wait for the destroyed ops and never treat them as
//! absent (P1).

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use recado_client::{Client, Options, Queries as _};
use recado_log::journal;
use recado_proto::id::{NodeId, Op, Topic};
use recado_proto::packet::HistoryRange;

use crate::cluster::{Cluster, PATIENCE, beside_other_clusters, primary_of};
use crate::load::plain;

fn newest_log(cluster: &Cluster, node: NodeId) -> PathBuf {
    let data = cluster.config(node).with_file_name("data");
    let files = fs::read_dir(data).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.file_name().unwrap().to_string_lossy().starts_with("log.")).max().unwrap()
}

/// One of three servers is down, one loses the end of its newest log file after an orderly stop, and the only
/// server with the whole log dies. The other two must not lead without it.
#[test]
fn the_end_of_the_newest_log_file_is_missed_and_waited_for() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::steady(3);
    let [hurt, late, whole] = cluster.nodes()[..] else { panic!("three servers") };
    cluster.kill(late);
    let state = cluster.dir().join("state");
    let client = Client::connect(Options::new("alice".parse().unwrap(), cluster.addresses(), state)).unwrap();
    for text in 0..40 {
        client.send(None, plain(format!("{text}"))).unwrap().wait(PATIENCE).unwrap();
    }
    cluster.terminate(hurt);
    let file = newest_log(&cluster, hurt);
    let mut bytes = fs::read(&file).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used / 2..].fill(0);
    fs::write(&file, bytes).unwrap();
    let seen = journal::inspect(file.parent().unwrap()).unwrap();
    assert!(seen.damaged && seen.lost.is_some(), "{seen}");

    cluster.kill(whole);
    cluster.start(hurt);
    cluster.start(late);
    let waits = |cluster: &Cluster| {
        [hurt, late].into_iter().any(|node| cluster.log(node).contains("the election waits for one of these"))
    };
    assert!(cluster.poll(PATIENCE, || waits(&cluster)), "{}", cluster.log(hurt));
    assert!(primary_of(&cluster.statuses()).is_none(), "nobody leads without it");
    cluster.start(whole);
    cluster.wait_ready();
    let past = client
        .history(Some(Topic::Feed("alice".parse().unwrap())), HistoryRange::After(Op::ZERO), 100)
        .unwrap();
    let bodies: Vec<String> = past.notifications.iter().map(|found| found.content.body.to_string()).collect();
    assert_eq!(bodies, (0..40).map(|text| text.to_string()).collect::<Vec<_>>());
}

#[test]
fn the_only_server_of_a_cluster_whose_data_is_gone_or_damaged_ends_with_78_and_every_command_says_so() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::ready(1);
    let node = cluster.nodes()[0];
    cluster.terminate(node);
    let (data, config) = (cluster.data(node), cluster.config(node));
    let code = |command: &str, path: &Path| {
        let output = Command::new(crate::recadod()).arg(command).arg(path).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!((code("check-config", &config).0, code("inspect", &data).0), (Some(0), Some(0)));

    // The disk spoils what the mark in meta says was durable.
    let log = newest_log(&cluster, node);
    let mut bytes = fs::read(&log).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last] ^= 1;
    fs::write(&log, bytes).unwrap();
    for emptied in [false, true] {
        if emptied {
            fs::remove_dir_all(&data).unwrap();
            fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
        }
        assert_eq!(code("check-config", &config).0, Some(78), "emptied: {emptied}");
        let (doctors, told) = code("doctor", &config);
        assert!(doctors == Some(1) && told.contains("FAULT  data"), "emptied: {emptied}, {told}");
        assert_eq!(code("inspect", &data).0, Some(if emptied { 0 } else { 1 }));
        cluster.start(node);
        assert_eq!(cluster.exit(node).code(), Some(78), "emptied: {emptied}, {}", cluster.log(node));
    }
}
