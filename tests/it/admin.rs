//! `recadod admin release`, with real servers: a name whose key is lost goes to whoever takes it next.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use recado::client::{Client, ClientError, Code, ConnectionEvent, Options};
use recado::id::Name;

use crate::cluster::{Cluster, PATIENCE, alone, succeeded};

/// One installation of a client: what it knows is in `state`.
fn installation(cluster: &Cluster, state: &str) -> Result<Client, ClientError> {
    let name: Name = "alice".parse().expect("a good name");
    Client::connect(Options::new(name, cluster.addresses(), cluster.dir().join(state)))
}

fn release(config: &Path, name: &str) -> Output {
    Command::new(crate::recadod()).args(["admin", "release", name, "--config"]).arg(config).output().unwrap()
}

#[test]
fn a_released_name_is_the_next_ones_and_the_old_device_is_told() {
    let _alone = alone();
    let cluster = Cluster::ready(3);
    let config = cluster.config(cluster.nodes()[0]);
    let old = installation(&cluster, "old").unwrap();
    let refused = installation(&cluster, "new").unwrap_err();
    assert!(matches!(refused, ClientError::NotYours { .. }), "{refused}");

    let unknown = release(&config, "@nobody");
    let told = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(1), "{told}");
    assert!(told.contains("@nobody") && told.contains("there is no such profile"), "{told}");
    let told = succeeded(&release(&config, "@alice"));
    assert!(told.contains("@alice is released"), "{told}");

    let events = old.connection_events();
    let ended = std::iter::from_fn(|| events.recv_timeout(PATIENCE).ok())
        .find_map(|event| if let ConnectionEvent::Ended(code) = event { Some(code) } else { None });
    assert!(matches!(ended, Some(Code::SessionOver | Code::UnknownDevice)), "{ended:?}");
    drop(old);
    let new = installation(&cluster, "new").unwrap();
    assert_eq!(new.info(None).unwrap().devices, 1, "the old one is forgotten");
    let refused = installation(&cluster, "old").unwrap_err();
    assert!(matches!(refused, ClientError::NotYours { .. } | ClientError::Forgotten(_)), "{refused}");
}

/// A server outlives the reader of its log, and a full disk under it.
#[test]
fn a_log_that_cannot_be_written_ends_no_server() {
    let _alone = alone();
    let mut cluster = Cluster::init(2);
    let nodes = cluster.nodes();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    cluster.start_logging_to(nodes[0], closed);
    cluster.start_logging_to(nodes[1], std::fs::File::options().write(true).open("/dev/full").unwrap());
    cluster.wait_ready();
    // Each of these is a line in a log: a server that came, and the end.
    for node in nodes {
        let took = cluster.terminate(node);
        assert!(took < Duration::from_secs(20), "{took:?}");
        cluster.start(node);
        cluster.wait_ready();
    }
}
