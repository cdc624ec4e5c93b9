//! A client that starts without a server: its requests wait on its disk and are sent once.

use std::time::Duration;

use recado_client::{Client, ClientError, NodeId, Op, Options, ReceiptError, Seq};

use crate::cluster::{Cluster, PATIENCE, beside_other_clusters};
use crate::device_files::{bodies, content, copy};

#[test]
fn requests_made_without_a_server_survive_the_client_and_arrive_once_and_in_order() {
    let _shared = beside_other_clusters();
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
    assert_eq!(receipts.each_ref().map(|receipt| receipt.seq()), [2, 3, 4].map(|seq| Some(Seq(seq))));
    for receipt in receipts {
        assert!(matches!(receipt.wait(Duration::ZERO), Err(ReceiptError::OutcomeUnknown)), "kept");
    }

    // Another run of the client without a server changes nothing.
    assert_eq!(Client::open(options.clone()).unwrap().recovered().len(), texts.len());

    cluster.start_all();
    let client = Client::open(options.clone()).unwrap();
    let ops: Vec<Op> =
        client.recovered().iter().map(|recovered| recovered.receipt.wait(PATIENCE).unwrap()).collect();
    assert!(ops.len() == texts.len() && ops.is_sorted(), "{ops:?}");
    drop(client);

    let client = Client::open(options).unwrap();
    assert!(client.recovered().is_empty());
    assert_eq!(bodies(&client), ["with a server", "first", "second", "third"]);
}

#[test]
fn what_waits_for_a_server_in_copies_of_the_files_too_is_done_once() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::ready(1);
    let [here, old, older] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let (addresses, id) = (cluster.addresses(), cluster.id);
    let open = |state: &tempfile::TempDir| {
        let options = Options::new("alice".parse().unwrap(), addresses.clone(), state.path());
        Client::open(options.timeout(PATIENCE).remembered(id)).unwrap()
    };
    let send = |client: &Client, text| client.send(None, content(text)).unwrap();
    let client = open(&here);
    send(&client, "with a server").wait(PATIENCE).unwrap();
    drop(client);
    cluster.kill(NodeId(1));
    let client = open(&here);
    let kept = send(&client, "kept");
    drop(client);
    assert!(matches!(kept.wait(Duration::ZERO), Err(ReceiptError::OutcomeUnknown)));
    copy(here.path(), old.path());
    copy(here.path(), older.path());
    cluster.start(NodeId(1));

    let recovered = |client: &Client| client.recovered()[0].receipt.wait(PATIENCE);
    let op = recovered(&open(&here)).unwrap();
    let client = open(&old);
    assert_eq!(recovered(&client).unwrap(), op, "answered as it was");
    assert_eq!(bodies(&client), ["with a server", "kept"]);
    send(&client, "another").wait(PATIENCE).unwrap();
    drop(client);

    // The servers do not keep the result of that request any more.
    let client = open(&older);
    let forgotten = recovered(&client);
    assert!(matches!(forgotten, Err(ReceiptError::Forgotten)), "{forgotten:?}");
    send(&client, "the last").wait(PATIENCE).unwrap();
    assert_eq!(bodies(&client), ["with a server", "kept", "another", "the last"]);
}

#[test]
fn a_client_without_a_server_and_without_a_known_cluster_can_save_nothing() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::init(1);
    let state = tempfile::tempdir().unwrap();
    let options = Options::new("alice".parse().unwrap(), cluster.addresses(), state.path());
    let opened = Client::open(options.timeout(Duration::from_millis(50)));
    assert!(matches!(opened, Err(ClientError::Unreachable { .. })), "{opened:?}");
}
