//! Interleaving tests of whole servers, on disks and a network in memory and with the smallest queues that
//! they run with, and of a client: all threads of all of them run in one drawn order.

use std::path::Path;

use recado_client::{
    Client, ClientError, Content, Incoming, Options as ClientOptions, Queries as _, ReceiptError, Trust,
};
use recado_proto::id::Topic;
use recado_sys::sync::model::time_is_true;

use super::*;
use crate::config::Preempt;

const SECOND: Duration = Duration::from_secs(1);
/// Notifications that an application sends at once; more than there are places for requests.
const SENT: u64 = 4;

/// The configurations of a cluster of `servers` servers.
fn configs(servers: u16) -> Vec<Config> {
    let addr = |node: u16, port| ([127, 0, 0, node as u8], port).into();
    let members: Vec<Member> = (1..=servers)
        .map(|node| Member { id: NodeId(node), client: addr(node, 1), peer: addr(node, 2) })
        .collect();
    let of = |node| Cluster { id: ClusterId(7), me: NodeId(node), members: members.clone() };
    let config = |node| Config { preempt: Preempt::Off, ..Config::default_for(of(node)) };
    (1..=servers).map(config).collect()
}

/// Starts a server on an empty disk.
fn start(config: &Config) -> (Server, SlowDisk) {
    start_with(config, 1)
}

/// As [`start`], with so many places for requests.
fn start_with(config: &Config, requests: usize) -> (Server, SlowDisk) {
    let (cluster, disk) = (&config.cluster, SlowDisk::default());
    let expected = || Expected {
        cluster: cluster.id,
        node: cluster.me,
        members: cluster.members.iter().map(|member| member.id).collect(),
    };
    Journal::init(&disk, &meta(expected())).unwrap();
    let options = Options { step: STEP, ..Options::default() };
    let (journal, recovered) = Journal::open(disk.clone(), &expected(), options).unwrap();
    let parts = Parts {
        data: "memory".into(),
        handshake_config: handshake_config(cluster.me.0, recovered.meta.incarnation.0),
        journal,
        recovered,
        ports: Ports::bind(cluster, *cluster.member(cluster.me).unwrap()).unwrap(),
        shared: Shared::new(),
        channels: Channels::new(&Capacities {
            internal: 1,
            from_delivery: 1,
            requests,
            work: 1,
            datagrams: 2,
            told: 1,
            handlers: 2,
        })
        .unwrap(),
    };
    (Server::run(config.clone(), parts).unwrap(), disk)
}

/// The last op that a server's disk would have in the log after a power cut.
fn durable_op(disk: &SlowDisk, config: &Config) -> u64 {
    let members = config.cluster.members.iter().map(|member| member.id).collect();
    let expected = Expected { cluster: ClusterId(7), node: config.cluster.me, members };
    let options = Options { step: STEP, ..Options::default() };
    let (_, recovered) = Journal::open(disk.after_a_power_cut(), &expected, options).unwrap();
    recovered.entries.last().map_or(0, |entry| entry.op.0)
}

fn options(configs: &[Config], state: &Path) -> ClientOptions {
    let servers = configs[0].cluster.members.iter().map(|member| member.client).collect();
    let key = cluster_key(&ClusterSecret::new([0x5e; 32]));
    ClientOptions::new("alice".parse().unwrap(), servers, state)
        .trust(Trust::Pinned(key))
        .timeout(Duration::from_secs(5))
}

fn content(body: &str) -> Content {
    Content::of(body)
}

fn now() -> u64 {
    now_us().expect("on virtual time")
}

/// Checks that what began then took no longer than `limit`.
fn within(limit: Duration, began: u64) {
    let took = Duration::from_micros(now() - began);
    assert!(took <= limit || !time_is_true(), "it took {took:?}, and may take {limit:?}");
}

/// Returns true if the client gave up because no server served it in time, for whatever reason.
fn is_without_server(error: &ClientError) -> bool {
    use ClientError::{NoPrimary, PrimaryUnheard, Unproved, Unreachable};
    matches!(error, Unreachable { .. } | NoPrimary(_) | PrimaryUnheard { .. } | Unproved { .. })
}

/// Waits for a random time below `within_ms` milliseconds.
fn some_time(within_ms: u64) {
    park_timeout(Duration::from_millis(below(within_ms)));
}

/// Runs an application that sends a few notifications to a server of one, all at once, and waits for each.
/// Every call returns, with an answer or an error that says why. Everything acknowledged is durable by
/// then. Returns the number acknowledged.
fn sends(config: Config, disk: SlowDisk, state: Arc<tempfile::TempDir>) -> u64 {
    let client = match Client::connect(options(std::slice::from_ref(&config), state.path())) {
        Ok(client) => client,
        Err(error) if is_without_server(&error) => return 0,
        Err(other) => panic!("{other:?}"),
    };
    let receipts: Vec<_> = (0..SENT).map(|n| client.send(None, content(&n.to_string())).unwrap()).collect();
    let (mut last, mut acknowledged) = (0, 0);
    for receipt in receipts {
        match receipt.wait(Duration::from_secs(4)) {
            Ok(op) => {
                let durable = durable_op(&disk, &config);
                assert!(op.0 <= durable, "{op} is acknowledged, and {durable} is durable");
                assert!(op.0 > last, "{op} after {last}");
                (last, acknowledged) = (op.0, acknowledged + 1);
            }
            Err(ReceiptError::OutcomeUnknown) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    client.disconnect();
    acknowledged
}

/// A server of one with a slow disk serves until all is acknowledged; then it is stopped.
fn serves() {
    let config = configs(1).swap_remove(0);
    let (server, disk) = start(&config);
    // With a disk that took no time, everything would be durable when an acknowledgement comes.
    disk.with(|inner| inner.sync_ms = 20);
    let began = now();
    let acknowledged = sends(config, disk, Arc::new(tempfile::tempdir().unwrap()));
    within(SECOND * 3, began);
    assert_eq!(acknowledged, SENT);
    end(server);
}

/// Everything that alice sends to herself is delivered to her once and in order, also while the delivery is
/// behind and is told only that it missed something.
fn delivers() {
    let config = configs(1).swap_remove(0);
    let (server, disk) = start_with(&config, SENT as usize);
    // A slow sync makes several durable at once, so that they are applied at once.
    disk.with(|inner| inner.sync_ms = 20);
    let state = tempfile::tempdir().unwrap();
    let client = Client::connect(options(&[config], state.path())).unwrap();
    let inbox = Topic::Inbox("alice".parse().unwrap());
    let notifications = client.notifications();
    let began = now();
    let receipts: Vec<_> =
        (0..SENT).map(|n| client.send(Some(inbox.clone()), content(&n.to_string())).unwrap()).collect();
    let mut sent: Vec<Op> = receipts.into_iter().map(|receipt| receipt.wait(SECOND * 3).unwrap()).collect();
    while !sent.is_empty() {
        match notifications.recv_timeout(SECOND * 3).unwrap() {
            Incoming::Notification(heard) => assert_eq!(heard.op, sent.remove(0)),
            other => panic!("{other:?}"),
        }
    }
    within(SECOND * 3, began);
    drop(client);
    end(server);
}

/// A server of one is stopped, twice, while a client connects, sends, or leaves.
fn stopped_twice() {
    let config = configs(1).swap_remove(0);
    let (server, disk) = start(&config);
    let stopper = server.stopper();
    let stopped = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let when = Arc::clone(&stopped);
    let signals = spawn_named("signals", move || {
        some_time(1500);
        when.store(now(), Ordering::Relaxed);
        stopper.stop();
        stopper.stop();
    });
    let state = Arc::new(tempfile::tempdir().unwrap());
    let sender = spawn_named("sender", move || {
        sends(config, disk, state);
    });
    server.wait().unwrap();
    within(SECOND, stopped.load(Ordering::Relaxed));
    signals.unwrap().join();
    sender.unwrap().join();
}

/// The disk of a server of one fails at some sync, or never.
fn disk_fails() {
    let config = configs(1).swap_remove(0);
    let (server, disk) = start(&config);
    disk.with(|inner| inner.failing = Some(below(10) as usize));
    let (stopper, state) = (server.stopper(), Arc::new(tempfile::tempdir().unwrap()));
    let seen = disk.clone();
    let sender = spawn_named("sender", move || {
        sends(config, seen, state);
        stopper.stop();
    });
    let ended = server.wait();
    let failed = disk.with(|inner| inner.failed);
    assert_eq!(ended.is_err(), failed.is_some(), "{ended:?}");
    if let Some(at) = failed {
        within(SECOND, at);
    }
    sender.unwrap().join();
}

/// The primary of three servers is stopped while a client sends. Another one leads, the notification is
/// acknowledged, and then the other two end at the same time.
fn hands_over() {
    let configs = configs(3);
    let (mut servers, disks): (Vec<_>, Vec<_>) = configs.iter().map(start).unzip();
    let state = tempfile::tempdir().unwrap();
    let client = Client::connect(options(&configs, state.path())).unwrap();
    let on_a_majority = |op: Op| {
        let have = disks.iter().zip(&configs).filter(|(disk, config)| durable_op(disk, config) >= op.0);
        assert!(have.count() >= 2, "{op} is acknowledged, and not on a majority");
    };
    on_a_majority(client.send(None, content("before")).unwrap().wait(Duration::from_secs(10)).unwrap());
    let primary = client.connection().unwrap().view.primary().unwrap();
    let old = servers.remove(servers.iter().position(|server| server.member().id == primary).unwrap());
    let stopper = old.stopper();
    let signals = spawn_named("signals", move || {
        some_time(50);
        stopper.stop();
    });
    let receipt = client.send(None, content("meanwhile")).unwrap();
    let began = now();
    old.wait().unwrap();
    within(SECOND * 3, began);
    on_a_majority(receipt.wait(Duration::from_secs(10)).unwrap());
    signals.unwrap().join();
    drop(client);
    let waits: Vec<_> = servers
        .into_iter()
        .map(|server| {
            server.stopper().stop();
            spawn_named("waits", move || server.wait().unwrap()).unwrap()
        })
        .collect();
    let began = now();
    waits.into_iter().for_each(Thread::join);
    within(SECOND * 5, began);
}

/// A client is closed while one thread waits for acknowledgements, one for notifications and one for an
/// outstanding answer of the servers: all of them soon return.
fn closed_in_the_middle() {
    let config = configs(1).swap_remove(0);
    let (server, _disk) = start(&config);
    let state = tempfile::tempdir().unwrap();
    let client = match Client::connect(options(&[config], state.path())) {
        Err(error) if is_without_server(&error) && !time_is_true() => {
            return end(server);
        }
        client => client.unwrap(),
    };
    let long = Duration::from_secs(60);
    let receipts: Vec<_> = (0..3).map(|n| client.send(None, content(&n.to_string())).unwrap()).collect();
    let notifications = client.notifications();
    let waits = spawn_named("waits", move || {
        for receipt in receipts {
            match receipt.wait(long) {
                Ok(_) | Err(ReceiptError::OutcomeUnknown) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    });
    let hears = spawn_named("hears", move || while notifications.recv().is_ok() {});
    if below(2) == 0 {
        match client.info(None) {
            Ok(_) | Err(ClientError::Timeout(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    some_time(20);
    let began = now();
    client.disconnect();
    waits.unwrap().join();
    hears.unwrap().join();
    within(SECOND, began);
    end(server);
}

fn end(server: Server) {
    server.stopper().stop();
    server.wait().unwrap();
}

/// Checks that the scenario holds in every order drawn, with time-outs in their order.
fn holds(seeds: u64, scenario: fn()) {
    explore(TimeOuts::Last, seeds, scenario);
}

/// Checks that a planted bug is found, and prints by which seed.
fn is_found(mistake: Mistake, scenario: fn()) {
    let seed = seeds_to_find(mistake, TimeOuts::Last, 300, scenario);
    eprintln!("{mistake:?} is found by seed {seed:?}");
    assert!(seed.is_some(), "{mistake:?}");
}

#[test]
fn a_server_acknowledges_what_is_durable_and_loses_no_completion() {
    holds(30, serves);
    is_found(Mistake::ToldBeforeSync, serves);
}

#[test]
fn a_delivery_that_is_behind_requests_the_ops_it_missed() {
    holds(30, delivers);
    is_found(Mistake::MissedIsNotSaid, delivers);
}

#[test]
fn a_server_that_is_stopped_ends_in_time_whatever_is_in_progress() {
    holds(30, stopped_twice);
    is_found(Mistake::ListensForEver, stopped_twice);
}

#[test]
fn a_server_whose_disk_fails_ends_all_threads_and_reports_the_error() {
    holds(30, disk_fails);
    is_found(Mistake::FailureIsNotTold, disk_fails);
}

#[test]
fn a_primary_that_is_stopped_hands_over_and_all_threads_end() {
    holds(10, hands_over);
    is_found(Mistake::QueuesSilently, hands_over);
}

#[test]
fn a_client_that_is_closed_in_the_middle_leaves_nobody_waiting() {
    holds(30, closed_in_the_middle);
    is_found(Mistake::EndIsNotTold, closed_in_the_middle);
}

#[test]
fn servers_and_clients_end_also_where_every_wait_may_give_up_at_any_moment() {
    for scenario in [stopped_twice, disk_fails, closed_in_the_middle] {
        explore(TimeOuts::Any, 10, scenario);
    }
}
