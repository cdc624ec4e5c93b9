//! Tests of `recadod admin` against running servers: a released name goes to the next client that claims it,
//! a removed name is free, and where names are not open to everybody, an invitation or an allowed key admits
//! a client.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use recado_client::{Client, ClientError, Code, ConnectionEvent, Options, Queries as _};
use recado_proto::id::Name;

use crate::cluster::{Cluster, PATIENCE, beside_other_clusters, succeeded};

/// Connects one installation of a client, which keeps its files in `state`.
fn installation(cluster: &Cluster, state: &str) -> Result<Client, ClientError> {
    let name: Name = "alice".parse().expect("a good name");
    Client::connect(Options::new(name, cluster.addresses(), cluster.dir().join(state)))
}

fn admin(config: &Path, args: &[&str]) -> Output {
    Command::new(crate::recadod()).arg("admin").args(args).arg("--config").arg(config).output().unwrap()
}

fn release(config: &Path, name: &str) -> Output {
    admin(config, &["release", name])
}

#[test]
fn a_released_name_belongs_to_the_next_device_and_the_old_one_gets_an_error() {
    let _shared = beside_other_clusters();
    let cluster = Cluster::ready(3);
    let config = cluster.config(cluster.nodes()[0]);
    let old = installation(&cluster, "old").unwrap();
    let refused = installation(&cluster, "new").unwrap_err();
    assert!(matches!(refused, ClientError::NotYours { .. }), "{refused}");

    let unknown = release(&config, "@nobody");
    let output = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(1), "{output}");
    assert!(output.contains("@nobody") && output.contains("there is no such profile"), "{output}");
    let output = succeeded(&release(&config, "@alice"));
    assert!(output.contains("@alice is released"), "{output}");

    let events = old.connection_events();
    let ended = std::iter::from_fn(|| events.recv_timeout(PATIENCE).ok())
        .find_map(|event| if let ConnectionEvent::Ended(code) = event { Some(code) } else { None });
    assert!(matches!(ended, Some(Code::SessionOver | Code::UnknownDevice)), "{ended:?}");
    drop(old);
    let new = installation(&cluster, "new").unwrap();
    assert_eq!(new.info(None).unwrap().info.devices, 1, "the old one is forgotten");
    let refused = installation(&cluster, "old").unwrap_err();
    assert!(matches!(refused, ClientError::NotYours { .. } | ClientError::Forgotten(_)), "{refused}");
}

#[test]
fn a_removed_name_is_free_and_a_second_removal_reports_that_also_after_a_failover() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::ready(3);
    let config = cluster.config(cluster.nodes()[0]);
    let old = installation(&cluster, "old").unwrap();
    let topic = recado_proto::id::Topic::to_send("#ops").unwrap();
    old.send(Some(topic), crate::load::plain("hello".into())).unwrap().wait(PATIENCE).unwrap();
    drop(old);
    let wrong = admin(&config, &["remove", "alice"]);
    assert_eq!(wrong.status.code(), Some(2), "neither a profile nor a channel");
    for what in ["@alice", "#ops"] {
        let output = succeeded(&admin(&config, &["remove", what]));
        assert!(output.contains(&format!("{what} is removed")), "{output}");
    }
    let primary = cluster.wait_primary();
    cluster.kill(primary);
    cluster.start(primary);
    cluster.wait_ready();
    for what in ["@alice", "#ops"] {
        let output = succeeded(&admin(&config, &["remove", what]));
        assert!(output.contains("removed already"), "{output}");
    }
    let new = installation(&cluster, "new").unwrap();
    assert_eq!(new.info(None).unwrap().info.devices, 1);
}

#[test]
fn where_names_are_not_for_anybody_a_code_or_an_allowed_key_gets_in() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::init(1);
    let node = cluster.nodes()[0];
    let config = cluster.config(node);
    let set = |from: &str, to: &str| {
        let text = std::fs::read_to_string(&config).unwrap();
        let line = |word: &str| format!("new_names = \"{word}\"");
        assert!(text.contains(&line(from)));
        std::fs::write(&config, text.replace(&line(from), &line(to))).unwrap();
    };
    let options = |cluster: &Cluster, name: &str| {
        Options::new(name.parse().unwrap(), cluster.addresses(), cluster.dir().join(name))
    };
    set("open", "invite");
    cluster.start(node);
    cluster.wait_ready();
    let refused = Client::connect(options(&cluster, "alice")).unwrap_err();
    assert!(matches!(refused, ClientError::Rejected(Code::InviteNeeded)), "{refused}");
    assert!(refused.to_string().contains("--invite CODE"), "{refused}");
    let output = succeeded(&admin(&config, &["invite", "--name", "@alice", "--for", "1h"]));
    let code: recado_client::EnrolmentCode = output.trim().parse().unwrap();
    let refused = Client::connect(options(&cluster, "mallory").invited(code)).unwrap_err();
    assert!(matches!(refused, ClientError::Rejected(Code::WrongInvite)), "{refused}");
    drop(Client::connect(options(&cluster, "alice").invited(code)).unwrap());
    drop(Client::connect(options(&cluster, "alice")).unwrap());

    cluster.terminate(node);
    set("invite", "keys");
    cluster.start(node);
    cluster.wait_ready();
    drop(Client::connect(options(&cluster, "alice")).unwrap());
    let refused = Client::connect(options(&cluster, "bob")).unwrap_err();
    let ClientError::KeyNotAllowed { key, .. } = &refused else { panic!("{refused}") };
    assert!(refused.to_string().contains(&format!("recadod admin allow {}", key.in_full())), "{refused}");
    succeeded(&admin(&config, &["allow", &key.in_full()]));
    drop(Client::connect(options(&cluster, "bob")).unwrap());
    for _ in 0..2 {
        succeeded(&admin(&config, &["disallow", &key.in_full()]));
    }
    drop(Client::connect(options(&cluster, "bob")).unwrap());
}

/// A server keeps running when the reader of its log closes the pipe, or when the log's disk is full.
#[test]
fn a_log_that_cannot_be_written_ends_no_server() {
    let _shared = beside_other_clusters();
    let mut cluster = Cluster::init(2);
    let nodes = cluster.nodes();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    cluster.start_logging_to(nodes[0], closed);
    cluster.start_logging_to(nodes[1], std::fs::File::options().write(true).open("/dev/full").unwrap());
    cluster.wait_ready();
    // Each of these writes a line to a log: a server joined, and a server stopped.
    for node in nodes {
        let took = cluster.terminate(node);
        assert!(took < Duration::from_secs(20), "{took:?}");
        cluster.start(node);
        cluster.wait_ready();
    }
}
