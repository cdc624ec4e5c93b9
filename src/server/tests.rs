//! Tests with real servers in this process, on real sockets and real directories.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use recado_client::machine::handshake::{FromServer, HandshakeClient, Identity};
use recado_log::journal::Meta;
use recado_proto::entropy::Entropy;
use recado_proto::id::{ClusterId, Incarnation, NodeId, Op};
use recado_proto::noise;
use recado_proto::packet::{
    Answer, AnswerKind, Query, QueryId, QueryKind, RoleName, Status, ToClient, ToServer,
};
use recado_proto::seal::Key;

use super::*;
use crate::config::{Cluster, Preempt};

/// An address whose port was free a moment ago; members need theirs named before they start.
fn free() -> SocketAddr {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// The configurations of a cluster of `servers` servers.
fn cluster(servers: u16) -> Vec<Config> {
    let members: Vec<Member> =
        (1..=servers).map(|id| Member { id: NodeId(id), client: free(), peer: free() }).collect();
    let config = |id| Cluster { id: ClusterId(7), me: NodeId(id), members: members.clone() };
    (1..=servers).map(|id| Config::default_for(config(id))).collect()
}

fn alone() -> Config {
    cluster(1).swap_remove(0)
}

fn directory(config: &Config) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let members = config.cluster.members.iter().map(|member| member.id);
    let meta = Meta::new(config.cluster.id, config.cluster.me, members);
    Journal::init(&Directory::lock(dir.path()).unwrap(), &meta).unwrap();
    dir
}

fn secret() -> ClusterSecret {
    ClusterSecret::new([0x5e; 32])
}

fn start(config: Config, dir: &tempfile::TempDir) -> Result<Server, ServerError> {
    Server::start(config, &secret(), dir.path())
}

#[test]
fn a_directory_with_files_of_others_is_refused_and_nothing_in_it_is_changed() {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    let config = cluster(3).swap_remove(0);
    let dir = tempfile::tempdir().unwrap();
    let letter = dir.path().join("letter");
    fs::write(&letter, "dear").unwrap();
    for (path, mode) in [(dir.path(), 0o755), (letter.as_path(), 0o644)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let error = start(config.clone(), &dir).unwrap_err();
    assert!(
        matches!(&error, ServerError::Journal { source: JournalError::Foreign(name), .. } if name == "letter"),
        "{error:?}"
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(dir.path()), mode(&letter)), (0o755, 0o644));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    // The root of a new disk, and a data directory to which somebody has added a file.
    fs::remove_file(&letter).unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    let runs = |config: Config, dir: &tempfile::TempDir| {
        let server = start(config, dir).unwrap();
        server.stopper().stop();
        server.wait().unwrap();
    };
    runs(config, &dir);
    let config = alone();
    let own = directory(&config);
    fs::write(own.path().join("letter"), "dear").unwrap();
    runs(config, &own);
}

/// Asks for the status in handshakes until `wanted` is true of it.
fn status_until(server: SocketAddr, wanted: impl Fn(&Status) -> bool) -> Status {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let identity = Identity {
        cluster: ClusterId(7),
        cluster_key: noise::public(&ClusterKeys::new(secret().as_bytes()).cluster_private()),
        private: Key::new([1; 32]),
    };
    let (mut handshake_client, mut entropy) = (HandshakeClient::default(), Entropy::new([2; 32]));
    let clock = MachineClock::start();
    let mut buffer = [0; 1500];
    let mut last = None;
    // One query per read time-out, for ten seconds.
    for number in 0..500 {
        let query = ToServer::Query(Query::new(QueryId(number), QueryKind::Status));
        let initiation = handshake_client.initiation(clock.now(), &identity, &query, &mut entropy);
        let bytes = initiation.unwrap_or_else(|| handshake_client.hello(identity.cluster, &mut entropy));
        drop(socket.send_to(&bytes, server));
        while let Ok(len) = socket.recv(&mut buffer) {
            let Some(FromServer::Answer(opened)) = handshake_client.take(clock.now(), &buffer[..len]) else {
                continue;
            };
            for packet in opened.packets {
                if let ToClient::Answer(Answer { kind: AnswerKind::Status(status), .. }) = packet {
                    if wanted(&status) {
                        return status;
                    }
                    last = Some(status);
                }
            }
        }
    }
    panic!("no such status came; the last was {last:?}");
}

#[test]
fn a_server_alone_becomes_primary_answers_and_stops() {
    let config = alone();
    let dir = directory(&config);
    let server = start(config.clone(), &dir).unwrap();
    let status = status_until(server.member().client, |status| status.role == RoleName::Primary);
    assert_eq!((status.node, status.incarnation), (NodeId(1), Incarnation(1)));
    server.stopper().stop();
    server.wait().unwrap();

    let again = start(config, &dir).unwrap();
    let status = status_until(again.member().client, |status| status.role == RoleName::Primary);
    assert_eq!(status.incarnation, Incarnation(2));
    again.stopper().stop();
    again.wait().unwrap();
}

#[test]
fn a_single_server_that_has_lost_data_names_the_cure_and_does_not_start() {
    let config = alone();
    // Refused starts use nothing up and change no file, however often they are repeated.
    let files = |dir: &tempfile::TempDir| {
        let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
        files.sort();
        files
    };
    let refused = |dir: &tempfile::TempDir| {
        let before = files(dir);
        let Err(ServerError::Journal { source, .. }) = start(config.clone(), dir) else {
            panic!("it started");
        };
        let message = source.to_string();
        assert!(message.contains("put a copy") && message.contains("recadod init"), "{message}");
        assert!(files(dir) == before);
        source
    };
    assert!(matches!(refused(&tempfile::tempdir().unwrap()), JournalError::Forgotten));

    let dir = directory(&config);
    let server = start(config.clone(), &dir).unwrap();
    status_until(server.member().client, |status| status.role == RoleName::Primary);
    server.stopper().stop();
    server.wait().unwrap();
    // This damages the first record; the others follow it.
    let log = dir.path().join(format!("log.{:020}", 1));
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[..64].fill(0xff);
    std::fs::write(&log, bytes).unwrap();
    assert!(matches!(refused(&dir), JournalError::Irreparable(_)));
    assert!(recado_log::journal::inspect(dir.path()).unwrap().to_string().contains("no other server"));
    // A damaged meta is not made anew either.
    std::fs::write(dir.path().join("meta"), [0; 8192]).unwrap();
    assert!(matches!(refused(&dir), JournalError::Forgotten));
}

#[test]
fn of_three_one_leads_and_when_it_stops_another_does() {
    let mut configs = cluster(3);
    // With preemption, a server of a higher id that came late would soon lead, and the primary found before
    // would be none.
    configs.iter_mut().for_each(|config| config.preempt = Preempt::Off);
    let dirs: Vec<_> = configs.iter().map(directory).collect();
    let mut servers: Vec<Server> =
        configs.into_iter().zip(&dirs).map(|(config, dir)| start(config, dir).unwrap()).collect();
    // The view of a status may be one that was only promised. Each view that is served begins with an entry.
    let first = status_until(servers[0].member().client, |status| status.applied > Op::ZERO);
    let primary = first.view;
    let at = servers.iter().position(|server| Some(server.member().id) == primary.primary()).unwrap();
    status_until(servers[at].member().client, |status| status.role == RoleName::Primary);
    let old = servers.swap_remove(at);
    old.stopper().stop();
    old.wait().unwrap();
    let status = status_until(servers[0].member().client, |status| {
        status.applied > first.applied && status.view.primary() != primary.primary()
    });
    let new = servers.iter().find(|server| Some(server.member().id) == status.view.primary()).unwrap();
    status_until(new.member().client, |status| status.role == RoleName::Primary);
    for server in servers {
        server.stopper().stop();
        server.wait().unwrap();
    }
}

#[test]
fn junk_is_counted_by_reason_and_harms_nothing() {
    let config = alone();
    let dir = directory(&config);
    let server = start(config, &dir).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let Member { client, peer, .. } = server.member();
    for to in [client, peer] {
        for len in [0, 1, 60, 1200, 1201, 9000] {
            socket.send_to(&vec![0xab; len], to).unwrap();
        }
    }
    let status = status_until(client, |status| status.refused.iter().map(|(_, n)| n).sum::<u64>() == 12);
    use recado_proto::packet::RefusedDatagram::{Magic, Oversized, Truncated};
    assert_eq!(status.refused, [(Truncated, 4), (Oversized, 2), (Magic, 6)]);
    server.stopper().stop();
    server.wait().unwrap();
}

#[test]
fn an_address_that_this_machine_does_not_have_is_refused_with_cause_and_cure() {
    let mut config = alone();
    // TEST-NET-1: no machine has it.
    config.cluster.members[0].peer = "192.0.2.7:11097".parse().unwrap();
    let dir = directory(&config);
    let refused = start(config, &dir).unwrap_err();
    assert!(matches!(refused, ServerError::NotHere { key: "peer", .. }), "{refused:?}");
    let told = refused.to_string();
    assert!(told.contains("192.0.2.7:11097") && told.contains("`ip addr`"), "{told}");
    assert!(told.contains("`peer`") && !told.contains("os error"), "{told}");
}

#[test]
fn a_directory_in_use_and_a_port_in_use_are_refused() {
    let config = alone();
    let dir = directory(&config);
    let server = start(config.clone(), &dir).unwrap();
    let member = config.cluster.members[0];
    let refused = start(config.clone(), &dir).unwrap_err();
    assert!(matches!(refused, ServerError::InUse { addr, key: "client", .. } if addr == member.client));
    assert!(refused.to_string().contains("recadod running") && refused.to_string().contains("`client`"));
    let mut elsewhere = config;
    elsewhere.cluster.members[0] = alone().cluster.members[0];
    let refused = start(elsewhere, &dir);
    assert!(matches!(refused, Err(ServerError::Journal { source: JournalError::Locked, .. })), "{refused:?}");
    server.stopper().stop();
    server.wait().unwrap();
}
