//! A client that starts without a server: what it is asked waits on its disk, and goes out once.

use std::time::Duration;

use recado::client::{Client, ClientError, Op, Options, ReceiptError};

use crate::cluster::{Cluster, PATIENCE, alone};
use crate::device_files::{bodies, content};

#[test]
fn what_is_asked_without_a_server_outlives_the_client_and_arrives_once_and_in_order() {
    let _alone = alone();
    let mut cluster = Cluster::ready(3);
    let state = tempfile::tempdir().unwrap();
    let options = || {
        let options = Options::new("alice".parse().unwrap(), cluster.addresses(), state.path());
        options.timeout(PATIENCE).remembered(cluster.id)
    };
    let client = Client::open(options()).unwrap();
    client.send(None, content("with a server")).unwrap().wait(PATIENCE).unwrap();
    drop(client);
    let options = options();
    cluster.kill_all();

    let client = Client::open(options.clone()).unwrap();
    let texts = ["first", "second", "third"];
    let receipts = texts.map(|text| client.send(None, content(text)).unwrap());
    drop(client);
    for receipt in receipts {
        assert!(matches!(receipt.wait(Duration::ZERO), Err(ReceiptError::OutcomeUnknown)), "kept");
        assert_eq!(receipt.seq(), None);
    }

    // Another life without a server changes nothing.
    assert_eq!(Client::open(options.clone()).unwrap().carried().len(), texts.len());

    cluster.start_all();
    let client = Client::open(options.clone()).unwrap();
    let ops: Vec<Op> =
        client.carried().iter().map(|carried| carried.receipt.wait(PATIENCE).unwrap()).collect();
    assert!(ops.len() == texts.len() && ops.is_sorted(), "{ops:?}");
    drop(client);

    let client = Client::open(options).unwrap();
    assert!(client.carried().is_empty());
    assert_eq!(bodies(&client), ["with a server", "first", "second", "third"]);
}

#[test]
fn without_a_server_and_without_a_cluster_to_remember_nothing_can_be_kept() {
    let _alone = alone();
    let cluster = Cluster::init(1);
    let state = tempfile::tempdir().unwrap();
    let options = Options::new("alice".parse().unwrap(), cluster.addresses(), state.path());
    let opened = Client::open(options.timeout(Duration::from_millis(50)));
    assert!(matches!(opened, Err(ClientError::Unreachable { .. })), "{opened:?}");
}
