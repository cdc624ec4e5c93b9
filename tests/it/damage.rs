//! Damage to the disk of a running server: the servers wait for the destroyed ops and never treat them as
//! absent (P1).

use std::fs;
use std::path::PathBuf;

use recado_client::{Client, Options, Queries as _};
use recado_log::journal;
use recado_proto::id::{NodeId, Op, Topic};
use recado_proto::packet::HistoryRange;

use crate::cluster::{Cluster, PATIENCE, lock_cluster_tests, primary_of};
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
    let _alone = lock_cluster_tests();
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
