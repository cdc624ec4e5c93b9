//! What a device keeps on its disk, and what becomes of its requests and its stream when that fails.

use std::fs;
use std::time::Duration;

use recado::client::{
    Client, ClientError, ConnectionEvent, Content, HistoryRange, Op, Options, Priority, ReceiptError,
    StoreError, Topic,
};

use crate::cluster::{Cluster, PATIENCE, alone};

pub(crate) fn content(body: &str) -> Content {
    Content { title: None, priority: Priority::default(), tags: vec![], body: body.to_owned() }
}

/// What alice has told her followers.
pub(crate) fn bodies(client: &Client) -> Vec<String> {
    let feed = Topic::Feed("alice".parse().unwrap());
    let past = client.history(Some(feed), HistoryRange::After(Op::ZERO), usize::MAX).unwrap();
    past.notifications.iter().map(|one| one.content.body.clone()).collect()
}

#[test]
fn what_the_disk_does_not_take_is_said_to_be_not_sent_and_never_is() {
    let _alone = alone();
    let cluster = Cluster::ready(1);
    let state = tempfile::tempdir().unwrap();
    let options = Options::new("alice".parse().unwrap(), cluster.addresses(), state.path()).timeout(PATIENCE);
    let client = Client::connect(options.clone()).unwrap();
    client.send(None, content("one")).unwrap().wait(PATIENCE).unwrap();
    let aside = client.device_dir().join("state.tmp");
    // With it the last write ends.
    drop(client);
    // In the way of the next one, as a full disk would be.
    fs::create_dir(&aside).unwrap();
    let client = Client::connect(options.clone()).unwrap();
    let receipt = client.send(None, content("two")).unwrap();
    match receipt.wait(PATIENCE) {
        Err(ReceiptError::NotSent(why)) => {
            assert!(
                matches!(&*why, ClientError::Store(error) if matches!(**error, StoreError::Io { .. })),
                "{why:?}"
            );
            assert!(why.to_string().contains("state.toml"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    drop(client);
    fs::remove_dir(&aside).unwrap();
    let client = Client::connect(options).unwrap();
    assert!(client.carried().is_empty());
    client.send(None, content("three")).unwrap().wait(PATIENCE).unwrap();
    assert_eq!(bodies(&client), ["one", "three"]);
}

#[test]
fn a_cursor_beyond_the_log_loses_nothing_and_is_told() {
    let _alone = alone();
    let cluster = Cluster::ready(1);
    let state = tempfile::tempdir().unwrap();
    let options = Options::new("alice".parse().unwrap(), cluster.addresses(), state.path()).timeout(PATIENCE);
    let note = |client: &Client, body| {
        let to = Some(Topic::to_send("@alice").unwrap());
        client.send(to, content(body)).unwrap().wait(PATIENCE).unwrap()
    };
    let next = |client: &Client| {
        let incoming = client.notifications().recv_timeout(PATIENCE).unwrap();
        client.taken(incoming.upto()).unwrap();
        incoming.upto()
    };
    let client = Client::connect(options.clone()).unwrap();
    let one = note(&client, "one");
    assert_eq!(next(&client), one);
    drop(client);

    // As after the servers were restored from an older copy.
    let far = Op(1 << 40);
    let client = Client::connect(options.clone().cursor(far)).unwrap();
    let first = client.connection_events().recv_timeout(Duration::ZERO).unwrap();
    assert!(matches!(first, ConnectionEvent::SetBack { from, to } if from == far && to <= one), "{first:?}");
    let two = note(&client, "two");
    while next(&client) != two {}
    assert_eq!(client.cursor(), Some(two), "its file is as honest");
    drop(client);

    let client = Client::connect(options).unwrap();
    let three = note(&client, "three");
    assert_eq!(next(&client), three);
}
