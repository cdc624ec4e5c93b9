//! The files of a device, and the effect on its requests and its stream when these files fail.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use recado_client::{
    Client, ClientError, Code, ConnectionEvent, Content, CopySign, HistoryRange, NodeId, Op, Options,
    Queries as _, ReceiptError, ReceiveError, Seq, StoreError, Topic,
};

use crate::cluster::{Cluster, PATIENCE, beside_other_clusters};

pub(crate) fn content(body: &str) -> Content {
    Content::of(body)
}

/// Returns the bodies of alice's feed.
pub(crate) fn bodies(client: &Client) -> Vec<String> {
    let feed = Topic::Feed("alice".parse().unwrap());
    let past = client.history(Some(feed), HistoryRange::After(Op::ZERO), usize::MAX).unwrap();
    past.notifications.iter().map(|one| one.content.body.to_string()).collect()
}

#[test]
fn a_request_that_cannot_be_saved_is_reported_as_not_sent_and_never_is() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let state = tempfile::tempdir().unwrap();
    let options = Options::new("alice".parse().unwrap(), cluster.addresses(), state.path()).timeout(PATIENCE);
    let client = Client::connect(options.clone()).unwrap();
    client.send(None, content("one")).unwrap().wait(PATIENCE).unwrap();
    let outbox = client.device_dir().join("outbox");
    // Dropping the client completes the last write.
    drop(client);
    // A torn end makes the next turn write the file whole, and a directory in the place of the temporary file
    // makes that fail, as a full disk would.
    OpenOptions::new().append(true).open(&outbox).unwrap().write_all(b"torn").unwrap();
    let aside = outbox.with_extension("tmp");
    fs::create_dir(&aside).unwrap();
    let client = Client::connect(options.clone()).unwrap();
    let receipt = client.send(None, content("two")).unwrap();
    match receipt.wait(PATIENCE) {
        Err(ReceiptError::NotSent(why)) => {
            assert!(
                matches!(&*why, ClientError::Store(error) if matches!(**error, StoreError::Io { .. })),
                "{why:?}"
            );
            assert!(why.to_string().contains("slot-0/outbox"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    drop(client);
    fs::remove_dir(&aside).unwrap();
    let client = Client::connect(options).unwrap();
    assert!(client.recovered().is_empty());
    client.send(None, content("three")).unwrap().wait(PATIENCE).unwrap();
    assert_eq!(bodies(&client), ["one", "three"]);
}

#[test]
fn a_cursor_beyond_the_log_loses_nothing_and_is_reported() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(1);
    let state = tempfile::tempdir().unwrap();
    let options = Options::new("alice".parse().unwrap(), cluster.addresses(), state.path()).timeout(PATIENCE);
    let note = |client: &Client, body| {
        let to = Some(Topic::to_send("@alice").unwrap());
        client.send(to, content(body)).unwrap().wait(PATIENCE).unwrap()
    };
    let next = |client: &Client| {
        let incoming = client.notifications().recv_timeout(PATIENCE).unwrap();
        client.ack(incoming.upto()).unwrap();
        incoming.upto()
    };
    let client = Client::connect(options.clone()).unwrap();
    let one = note(&client, "one");
    assert_eq!(next(&client), one);
    drop(client);

    // A cursor beyond the log, as after a restore of the servers from an older copy.
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

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let goal = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &goal);
        } else {
            fs::copy(entry.path(), goal).unwrap();
        }
    }
}

#[test]
fn a_device_that_exists_twice_loses_nothing_acknowledged_and_reports_it() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::ready(1);
    let [here, there, old, older] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let addresses = cluster.addresses();
    let connect = |state: &tempfile::TempDir| {
        let options = Options::new("alice".parse().unwrap(), addresses.clone(), state.path());
        Client::connect(options.timeout(PATIENCE)).unwrap()
    };
    let events = |client: &Client| client.connection_events().try_iter().collect::<Vec<_>>();
    let send = |client: &Client, text| client.send(None, content(text)).unwrap();
    let client = connect(&here);
    send(&client, "one").wait(PATIENCE).unwrap();
    // Dropping the client completes the last write, so no file is being replaced while the directory is
    // copied.
    drop(client);
    copy(here.path(), there.path());
    let client = connect(&here);
    // The request is numbered and in the device's file, and no server can take it.
    cluster.kill(NodeId(1));
    let unknown = send(&client, "two");
    assert!(matches!(unknown.wait(Duration::from_millis(300)), Err(ReceiptError::OutcomeUnknown)));
    assert_eq!(unknown.seq(), Some(Seq(2)));
    drop(client);
    copy(here.path(), old.path());
    copy(here.path(), older.path());
    cluster.start(NodeId(1));

    let twin = connect(&there);
    send(&twin, "three").wait(PATIENCE).unwrap();
    let client = connect(&here);
    let recovered = &client.recovered()[0].receipt;
    recovered.wait(PATIENCE).unwrap();
    assert_eq!(recovered.seq(), Some(Seq(3)), "its number was another's");
    assert!(events(&client).contains(&ConnectionEvent::Renumbered { requests: 1 }));
    assert_eq!(bodies(&client), ["one", "three", "two"]);
    let why = twin.notifications().recv_timeout(PATIENCE).unwrap_err();
    assert!(matches!(why, ReceiveError::Over(ClientError::Ended(Code::Fenced))), "{why}");
    assert!(why.to_string().contains("recado device add"), "{why}");
    drop((twin, client));

    // An older copy, in which the request still has its first number.
    let client = connect(&old);
    let numbers = CopySign::Numbers { given: Seq(2), last: Seq(3) };
    assert!(events(&client).contains(&ConnectionEvent::Copied(numbers)));
    client.recovered()[0].receipt.wait(PATIENCE).unwrap();
    send(&client, "four").wait(PATIENCE).unwrap();
    drop(client);
    let client = connect(&there);
    send(&client, "five").wait(PATIENCE).unwrap();
    assert_eq!(bodies(&client), ["one", "three", "two", "four", "five"]);
    drop(client);

    // A copy that is older than the results the servers keep: they cannot tell the outcome of its request.
    let client = connect(&older);
    let forgotten = client.recovered()[0].receipt.wait(PATIENCE);
    assert!(matches!(forgotten, Err(ReceiptError::Forgotten)), "{forgotten:?}");
    send(&client, "six").wait(PATIENCE).unwrap();
    assert_eq!(bodies(&client).last().unwrap(), "six", "and the device goes on");
    assert_eq!(bodies(&client).len(), 6);
}
