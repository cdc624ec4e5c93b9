//! Interleavings of the client's driver, and of two users of one directory, in the orders that `shuttle`
//! draws.

use std::path::PathBuf;

use recado_proto::noise;
use recado_sys::sync::Mistake;
use recado_sys::sync::channel::{TryRecvError, bounded};
use recado_sys::sync::model::{TimeOuts, explore, seeds_to_find};

use super::driver::{Command, Driver, PendingRequest};
use super::machine::{Numbered, Start};
use super::receipt;
use super::store::{Slot, read_outbox};
use super::*;

fn alice() -> Name {
    "alice".parse().unwrap()
}

fn send(body: usize) -> Request {
    let content = Content::of(body.to_string());
    Request::Send { topic: None, content }
}

/// A driver, with the application's ends of its channels.
struct Rig {
    asks: Sender<PendingRequest>,
    commands: Sender<Command>,
    driver: Thread,
    ending: Arc<Ending>,
    dir: PathBuf,
    _state: tempfile::TempDir,
}

impl Rig {
    fn new() -> Rig {
        let state = tempfile::tempdir().unwrap();
        let (slot, outbox) = Slot::take(state.path(), ClusterId(7), &alice()).unwrap();
        let (slot, ending) = (Arc::new(slot), Arc::new(Ending::default()));
        let nobody = ([127, 0, 0, 1], 1).into();
        let key = ClusterKey(noise::public(&recado_proto::seal::Key::new([9; 32])));
        let start = Start {
            handshakes: BTreeMap::new(),
            identity: Identity { cluster: ClusterId(7), cluster_key: key.0, private: slot.private().clone() },
            device: slot.device(),
            created_op: None,
            profile: alice(),
            code: None,
            invite: None,
            highest_seq: Some(Seq(0)),
            receives: true,
            cursor: None,
            outbox: Vec::new(),
            entropy: Entropy::new([1; 32]),
            ciphers: Default::default(),
            planted: PlantedBug::default(),
            servers: vec![nobody],
        };
        let signal = Signal::default();
        let (asks_in, asks) = signal.bounded(2);
        let (commands_in, commands) = signal.bounded(1);
        let (datagrams_in, datagrams) = signal.bounded(1);
        let (incoming, _incoming) = bounded(1);
        let (events, _events) = bounded(1);
        let (ready, _ready) = bounded(1);
        let driver = Driver {
            clock: MachineClock::start(),
            socket: Arc::new(handshake_query::bind(&start.servers, PATIENCE).unwrap()),
            slot: slot.clone(),
            trust: Trust::Pinned(key),
            cluster_identity: ClusterIdentity { addr: nobody, cluster: ClusterId(7), key },
            signal,
            requests: asks,
            commands,
            datagrams,
            incoming,
            events,
            obstacle: Default::default(),
            connection: Arc::default(),
            ending: ending.clone(),
            outbox,
            token: None,
            promises: BTreeMap::new(),
            ready,
        };
        let dir = slot.dir().to_owned();
        drop(slot);
        let driver = spawn_named("client", move || {
            driver.run(start);
            drop(datagrams_in);
        });
        Rig { asks: asks_in, commands: commands_in, driver: driver.unwrap(), ending, dir, _state: state }
    }
}

/// The requests that the next run of the device in `dir` would send.
fn saved(dir: &Path) -> Vec<Request> {
    read_outbox(&dir.join("outbox")).unwrap().numbered().map(|one| one.request).collect()
}

/// Asks three requests without any server, one thread waiting for each outcome, and ends the client at any
/// moment. Every wait ends, and every request asked before the end is kept.
fn requests() {
    let Rig { asks, commands, driver, ending, dir, _state } = Rig::new();
    let mut waits = Vec::new();
    let mut sent = Vec::new();
    for n in 0..3 {
        let (promise, receipt) = receipt::pair(ending.clone());
        asks.send(PendingRequest { request: send(n), promise }).unwrap();
        sent.push(receipt.clone());
        // Longer than any end takes.
        let waits_for = move || match receipt.wait(Duration::from_secs(3600)) {
            Err(ReceiptError::OutcomeUnknown) => {}
            other => panic!("{other:?}"),
        };
        waits.push(spawn_named("waits", waits_for).unwrap());
    }
    commands.send(Command::Disconnect).unwrap();
    waits.into_iter().for_each(Thread::join);
    driver.join();
    let saved = saved(&dir);
    for (n, receipt) in sent.iter().enumerate() {
        let result = receipt.wait(Duration::ZERO);
        assert!(matches!(result, Err(ReceiptError::OutcomeUnknown)), "{n}: {result:?}");
        assert!(saved.contains(&send(n)), "{n} is not saved: {saved:?}");
    }
}

#[test]
fn a_request_made_before_the_client_ends_is_saved_and_every_wait_ends() {
    explore(TimeOuts::Any, 40, requests);
    let found = seeds_to_find(Mistake::AskedIsLost, TimeOuts::Any, 60, requests);
    eprintln!("what was asked is lost: found by seed {found:?}");
    assert!(found.is_some());
}

#[test]
fn a_query_too_many_is_refused_and_those_before_it_stay_open() {
    let rig = Rig::new();
    let ask = |id| {
        let (answer_in, answer) = bounded(1);
        let query = Command::Query(QueryId(id), Query::Info { profile: None }, answer_in);
        rig.commands.send(query).unwrap();
        answer
    };
    let open: Vec<_> = (1..=64).map(ask).collect();
    assert_eq!(ask(65).recv(), Ok((QueryId(65), Answer::Refused(Code::Busy))));
    for (n, answer) in open.iter().enumerate() {
        assert_eq!(answer.try_recv(), Err(TryRecvError::Empty), "query {}", n + 1);
    }
    rig.commands.send(Command::Disconnect).unwrap();
    rig.driver.join();
}

/// Two users each take a device, add a request to those found in its file, and release the device.
fn two_users() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let take = |state: &tempfile::TempDir| Slot::take(state.path(), ClusterId(7), &alice()).unwrap();
    let users: Vec<Thread> = (0..2)
        .map(|user| {
            let state = state.clone();
            let uses = move || {
                for round in 0..2u64 {
                    let (slot, mut outbox) = take(&state);
                    outbox.asked(Numbered { seq: Seq(10 * round + user), nonce: 1, request: send(0) });
                    outbox.end_turn(Seq(0)).unwrap();
                    slot.save_cursor(Op(outbox.kept().unanswered.len() as u64)).unwrap();
                }
            };
            spawn_named("user", uses).unwrap()
        })
        .collect();
    users.into_iter().for_each(Thread::join);
    let (slots, keys): (Vec<_>, Vec<_>) = (0..2)
        .map(|_| take(&state))
        .map(|(slot, outbox)| {
            let requests = outbox.kept().unanswered.len();
            assert_eq!(slot.cursor().map_or(0, |op| op.0), requests as u64);
            let key = slot.device().key;
            ((slot, requests), key)
        })
        .unzip();
    assert_eq!(slots.iter().map(|(_, requests)| requests).sum::<usize>(), 4, "a request of one user is lost");
    assert_eq!(keys[0], keys[1], "two keys were made");
}

#[test]
fn two_users_of_one_directory_lose_nothing_of_each_other() {
    explore(TimeOuts::Any, 30, two_users);
    let found = seeds_to_find(Mistake::ReadBeforeLock, TimeOuts::Any, 100, two_users);
    eprintln!("read before the lock is held: found by seed {found:?}");
    assert!(found.is_some());
}

/// Two processes meet one cluster each.
fn two_meetings() {
    let state = Arc::new(tempfile::tempdir().unwrap());
    let users: Vec<Thread> = (1..=2u8)
        .map(|user| {
            let state = state.clone();
            let meets = move || {
                let addr = ([127, 0, 0, user], 1).into();
                let cluster_identity =
                    ClusterIdentity { addr, cluster: ClusterId(user.into()), key: ClusterKey([user; 32]) };
                KnownClusters::under(state.path()).remember(&[addr], &cluster_identity, 1).unwrap();
            };
            spawn_named("user", meets).unwrap()
        })
        .collect();
    users.into_iter().for_each(Thread::join);
    assert_eq!(KnownClusters::under(state.path()).list().unwrap().len(), 2, "a cluster is forgotten");
}

#[test]
fn two_processes_that_meet_clusters_at_the_same_time_remember_both() {
    explore(TimeOuts::Any, 30, two_meetings);
    let found = seeds_to_find(Mistake::ReadBeforeLock, TimeOuts::Any, 100, two_meetings);
    eprintln!("read before the lock is held: found by seed {found:?}");
    assert!(found.is_some());
}
