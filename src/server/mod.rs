//! A running server: the threads and channels around the pure parts.
//!
//! ```text
//! client port -> listener -> 1024 datagrams each -> handlers -> client port
//!                                                   |      ^
//!                   1024 requests, 4096 from_delivery      | 4096 told each
//!                                                   v      |
//! peer port --------- socket's buffer ------------> replica -> one connected socket per peer
//!                                                   |      ^
//!                                         4096 work v      | 1024 internal
//!                                                   journal
//!                                          16 works v      | 1 finished
//!                                                   snapshot
//! ```
//!
//! | channel | policy when it is full |
//! |---|---|
//! | datagrams, to each handler | dropped and counted; clients retransmit |
//! | `requests` | no place for the network (`places`): dropped and counted; answered Busy if numbered |
//! | the peer port's buffer, 4 MiB or what the system grants | the system drops; peers retransmit |
//! | `from_delivery` | queued by the handler, which takes no datagrams meanwhile |
//! | told, to each handler | as `work`, `from_delivery` is not read; notifications become `AppliedDropped` |
//! | `work` | queued by the replica thread, which takes no requests and no peers' entries meanwhile |
//! | `internal` | the sender waits; the replica thread never blocks on a channel, so room comes soon |
//! | `snapshot_work`, works | never full: one snapshot is written and one received at a time |
//! | finished | the snapshot thread waits; the journal thread never waits for it |
//!
//! The replica thread blocks on nothing but its inputs, so the blocking sends form no cycle.
//!
//! **Shutdown.** [`Stopper::stop`] sends Stop to the node, which hands over if it is primary and then
//! emits Stopped. The replica thread ends and closes its channels. The journal thread finishes its queue, the
//! handlers send what they were told, and they end. The snapshot thread gives up what it is writing or
//! reading. The listener sees the stop flag and ends. [`Server::wait`] joins them all. A disk failure ends
//! the server at once, and so does a committed entry that the node cannot read; `wait` returns the error.
//!
//! Reading order: the pure parts [`node`] (with `cost`), [`engine`], which chooses its log, [`handshake`]
//! (with `budget`), `intake` and [`shard`]; then the threads from the ports inwards: `recv_loop` with
//! `listener`, `handlers`, [`places`], `request_channel`, `replica_thread` with `peer_port`,
//! `journal_thread`, `snapshot_thread`; `overflow_queue` and `delivery_sender`, by which the replica thread
//! sends; then `counters`, `log_throttle`, `outage` and `lines`.

pub mod budget;
mod cost;
mod counters;
mod delivery_sender;
pub mod engine;
mod handlers;
pub mod handshake;
mod intake;
mod journal_thread;
mod lines;
mod listener;
mod log_throttle;
pub mod node;
mod outage;
mod overflow_queue;
mod peer_port;
pub mod places;
mod recv_loop;
mod replica_thread;
mod request_channel;
pub mod shard;
mod snapshot_thread;

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;

pub use lines::Lines;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use recado_sys::sync::channel::{self, Receiver, Select, TryRecvError};
use recado_sys::sync::signal::{Sender, Signal, SocketSignal};
use recado_sys::sync::{BoundSocket, Mistake, PeerSocket, planted};

use recado_log::journal::{Directory, Disk, Expected, Journal, JournalError, Options, Recovered, check_ours};
use recado_proto::id::{BootId, ClusterId, ClusterKey, Incarnation, Moment, NodeId};
use recado_proto::noise;
use recado_proto::seal::{Ciphers, ClusterKeys};
use recado_sys::clock::MachineClock;
use recado_sys::cpu;
use recado_sys::durable;
use recado_sys::net::{NetError, NetOp};
use recado_sys::random;
use recado_sys::secret::ClusterSecret;
use recado_sys::threads::{Thread, spawn_named};

use self::counters::Counters;
use self::delivery_sender::DeliverySender;
use self::engine::{BootIdentity, Effect, Input};
use self::handlers::{Handler, NAMES, handlers};
use self::handshake::HandshakeConfig;
use self::journal_thread::{JournalThread, SNAPSHOT_WORK, Work};
use self::listener::{Listener, Received};
use self::log_throttle::LogThrottle;
use self::node::UnreadableEntry;
use self::overflow_queue::OverflowQueue;
use self::peer_port::PeerPort;
use self::replica_thread::{Ended, Inputs, ReplicaThread};
use self::request_channel::{RequestReceiver, RequestSender};
use self::shard::{Shard, Told, shard_of};
use self::snapshot_thread::SnapshotThread;
use crate::config::{Cluster, Config, Member};

/// Time-out of a listener's receive, after which it checks the stop flag.
const LISTEN_PATIENCE: Duration = Duration::from_millis(100);

/// Reason why a server did not start, or ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration's own member is missing from its list. The operator's fault; nothing changed.
    #[error("this server is not among the members of its own configuration")]
    NotAMember,
    /// Another program has this server's port. The operator's fault; nothing changed.
    #[error(
        "cannot bind {addr}: the address is in use already. Is another recadod running (`pgrep -a recadod` \
         shows it)? If another program has it, change `{key}` of the [[server]] with id = {} in the recado.toml \
         of every server",
        node.0
    )]
    InUse {
        /// The address in use.
        addr: SocketAddr,
        /// Its key in the configuration file.
        key: &'static str,
        /// The server that it belongs to.
        node: NodeId,
    },
    /// No interface of this machine has the server's address. The operator's fault; nothing changed.
    #[error(
        "cannot bind {addr}: this machine does not have that address (`ip addr` lists those that it has). Is this the \
         recado.toml of another machine's server, whose `node` is {}? Otherwise give the machine the address, or \
         change `{key}` of that [[server]] in the recado.toml of every server",
        node.0
    )]
    NotHere {
        /// The address.
        addr: SocketAddr,
        /// Its key in the configuration file.
        key: &'static str,
        /// The server that it belongs to.
        node: NodeId,
    },
    /// A socket could not be opened or configured.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The journal did not open, or failed. Everything it acknowledged is safe; the other servers go on.
    #[error("data directory {path}")]
    Journal {
        /// The data directory.
        path: PathBuf,
        /// The journal's error, which names the cure.
        source: JournalError,
    },
    /// The node cannot start on the content of the journal.
    #[error("data directory {path}")]
    Start {
        /// The data directory.
        path: PathBuf,
        /// The node's error.
        source: engine::StartError,
    },
    /// A later version of the program has logged a command that this one cannot read. Everything acknowledged
    /// is safe, and the other servers go on.
    #[error("data directory {path}")]
    Unreadable {
        /// The data directory.
        path: PathBuf,
        /// The entry.
        source: UnreadableEntry,
    },
    /// Other users have access to the data directory or a file in it. The operator's fault; nothing started.
    #[error("data directory")]
    Exposed(#[from] durable::Exposed),
    /// The system had no thread or no random bytes left.
    #[error("the system cannot start the server")]
    System(#[from] io::Error),
}

/// Outcome of a server's run.
enum Ending {
    Stopped,
    Unreadable(UnreadableEntry),
    Failed(JournalError),
}

/// Handle that asks a server to stop; any thread may hold one.
#[derive(Clone, Debug)]
pub struct Stopper(Sender<Input>);

impl Stopper {
    /// Makes the server hand over if it is the primary, and then end. Calling it again has no effect.
    pub fn stop(&self) {
        // The send fails if the server has ended already.
        let _ = self.0.send(Input::Stop);
    }
}

/// Tells whether a server is alive; any thread may hold one.
#[derive(Clone, Debug)]
pub struct Pulse {
    counters: Arc<Counters>,
    clock: MachineClock,
}

impl Pulse {
    /// The number of turns that the replica thread has taken. It grows at least once a second; if it does
    /// not, the server hangs.
    pub fn turns(&self) -> u64 {
        self.counters.turns_so_far()
    }

    /// Returns true if the server has no vote yet, or lacks much of what the others have and fetches it. A
    /// turn may then be a long one.
    pub fn catches_up(&self) -> bool {
        self.counters.catches_up()
    }

    /// How long a recent slow fsync of the journal took, or has taken so far.
    pub fn slow_fsync(&self) -> Duration {
        self.counters.slow_sync(self.clock.now())
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    member: Member,
    data: PathBuf,
    internal: Sender<Input>,
    counters: Arc<Counters>,
    clock: MachineClock,
    stop: Arc<AtomicBool>,
    stopped: Receiver<Ended>,
    failed: Receiver<JournalError>,
    threads: Vec<Thread>,
}

impl Server {
    /// Starts the server of `config` on the data directory `data`, which `recadod init` made (an
    /// empty one makes it a learner). It serves until it is stopped.
    ///
    /// # Errors
    /// [`ServerError`]; nothing keeps running.
    pub fn start(config: Config, secret: &ClusterSecret, data: &Path) -> Result<Server, ServerError> {
        let cluster = config.cluster.clone();
        let member = *cluster.member(cluster.me).ok_or(ServerError::NotAMember)?;
        // The ports are bound first, so that a second server on the same ports leaves the directory
        // untouched.
        let ports = Ports::bind(&cluster, member)?;
        let shared = Shared::new();
        let (journal, recovered) = recover(&cluster, data, shared.clock)?;
        log_start(member, secret, data, &recovered);

        let handshake_config = handshake_config(&config, secret, recovered.meta.incarnation)?;
        let parts = Parts {
            data: data.to_owned(),
            handshake_config,
            journal,
            recovered,
            ports,
            shared,
            channels: Channels::new(&Capacities::default())?,
        };
        Server::run(config, parts)
    }

    /// Starts the threads.
    fn run<D: Disk<File: 'static> + 'static>(config: Config, parts: Parts<D>) -> Result<Server, ServerError> {
        let Parts { data, handshake_config, journal, recovered, ports, shared, channels } = parts;
        let cluster = config.cluster.clone();
        let member = *cluster.member(cluster.me).ok_or(ServerError::NotAMember)?;
        let mut shards = Vec::new();
        let count = channels.handlers.len();
        for _ in 0..count {
            shards.push(Shard::new(&config, &handshake_config, count, random::bytes()?));
        }
        let seed = u64::from_le_bytes(random::bytes()?);
        let boot_id =
            BootIdentity { id: handshake_config.boot_id, keys: handshake_config.keys.clone(), seed };
        let mut effects = Vec::new();
        let config_of_snapshots = config.clone();
        let node = engine::restore(&config, &journal)
            .and_then(|service| {
                engine::start(config, recovered, service, boot_id, shared.clock.read(), &mut effects)
            })
            .map_err(|source| ServerError::Start { path: data.clone(), source })?;
        // There may be more sessions than places in the channels.
        let now = shared.clock.now();
        effects.retain(|effect| match effect {
            Effect::SessionKnown { session, device, nonce, aead } => {
                let known = Told::Known { session: *session, device: device.key, nonce: *nonce, aead: *aead };
                shards[shard_of(*session, count)].tell(now, known, &mut Vec::new());
                false
            }
            _ => true,
        });

        let (stopped, stopped_out) = channel::bounded(1);
        let (failed, failed_out) = channel::bounded(1);
        let mut server = Server {
            member,
            data,
            internal: channels.internal.0.clone(),
            counters: Arc::clone(&shared.counters),
            clock: shared.clock,
            stop: Arc::clone(&shared.stop),
            stopped: stopped_out,
            failed: failed_out,
            threads: Vec::new(),
        };
        let Ports { client, peer, peers } = ports;
        // The threads start from the disk outwards, so that nothing is received before it can be handled.
        server.spawn_journal(journal, config_of_snapshots, &channels, failed, &shared)?;
        let cluster_id = cluster.id;
        let replica = ReplicaThread {
            node,
            inputs: channels.inputs(),
            port: PeerPort::new(peer, cluster, Arc::clone(&shared.counters)),
            peers,
            journal: OverflowQueue::new(channels.work.0.clone()),
            delivery: DeliverySender::new(channels.handlers.iter().map(|handler| handler.told.0.clone())),
            counters: Arc::clone(&shared.counters),
            clock: shared.clock,
            stopped,
        };
        server.spawn("replica", move || replica.run(effects))?;
        server.spawn_clients(client, cluster_id, shards, &channels, &shared)?;
        Ok(server)
    }

    /// Starts the journal and snapshot threads.
    fn spawn_journal<D: Disk<File: 'static> + 'static>(
        &mut self,
        journal: Journal<D>,
        config: Config,
        channels: &Channels,
        failed: channel::Sender<JournalError>,
        shared: &Shared,
    ) -> io::Result<()> {
        let (snapshot_work, works) = channel::bounded(SNAPSHOT_WORK);
        let (finished, finished_out) = channels.journal.bounded(1);
        let clock = shared.clock;
        let snapshots = SnapshotThread { works, finished, config, clock };
        self.spawn("snapshot", move || snapshots.run())?;
        let journal = JournalThread {
            journal,
            signal: channels.journal.clone(),
            work: channels.work.1.clone(),
            news: channels.internal.0.clone(),
            snapshot_work,
            finished: finished_out,
            full: None,
            counters: Arc::clone(&shared.counters),
            clock,
            marked: Moment(0),
            unread: LogThrottle::default(),
        };
        self.spawn("journal", move || {
            if let Err(error) = journal.run() {
                // The channel has room for one message, and only this thread sends one.
                let _ = failed.try_send(error);
            }
        })
    }

    /// Starts the handlers, then the listener that dispatches to them.
    fn spawn_clients(
        &mut self,
        socket: Arc<BoundSocket>,
        cluster: ClusterId,
        shards: Vec<Shard>,
        channels: &Channels,
        shared: &Shared,
    ) -> io::Result<()> {
        for ((name, shard), own) in NAMES.into_iter().zip(shards).zip(&channels.handlers) {
            let handler = Handler {
                shard,
                signal: own.signal.clone(),
                datagrams: own.datagrams.1.clone(),
                told: own.told.1.clone(),
                requests: channels.requests.0.clone(),
                from_delivery: OverflowQueue::new(channels.from_delivery.0.clone()),
                socket: Arc::clone(&socket),
                counters: Arc::clone(&shared.counters),
                clock: shared.clock,
            };
            self.spawn(name, move || handler.run())?;
        }
        let listener = Listener {
            socket,
            cluster,
            handlers: channels.handlers.iter().map(|handler| handler.datagrams.0.clone()).collect(),
            counters: Arc::clone(&shared.counters),
            clock: shared.clock,
            stop: Arc::clone(&shared.stop),
        };
        self.spawn("listener", move || listener.run())
    }

    /// This server's entry in the list of members.
    pub fn member(&self) -> Member {
        self.member
    }

    /// A handle that asks this server to stop.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.internal.clone())
    }

    /// Tells from now on whether this server is alive.
    pub fn pulse(&self) -> Pulse {
        Pulse { counters: Arc::clone(&self.counters), clock: self.clock }
    }

    /// Waits until the server has stopped on request or has failed, and until all its threads have ended.
    ///
    /// # Errors
    /// The disk failed, or a committed entry is not readable by this version. Everything acknowledged is
    /// safe; the other servers go on.
    pub fn wait(mut self) -> Result<(), ServerError> {
        let mut select = Select::new();
        select.recv(&self.stopped);
        select.recv(&self.failed);
        select.ready();
        let ending = match (self.stopped.try_recv(), self.failed.try_recv()) {
            (_, Ok(error)) => Ending::Failed(error),
            (Ok(Err(entry)), Err(_)) => Ending::Unreadable(entry),
            (Ok(Ok(())), Err(_)) | (Err(TryRecvError::Empty), Err(_)) => Ending::Stopped,
            // The replica thread ended without reporting. It does so only if the journal thread has ended,
            // whose error decides.
            (Err(TryRecvError::Disconnected), Err(_)) => {
                self.failed.recv().map_or(Ending::Stopped, Ending::Failed)
            }
        };
        self.end();
        // The journal's last sync may have failed after the node had stopped.
        let late = self.failed.try_recv().ok();
        match (ending, late) {
            (Ending::Unreadable(source), _) => {
                Err(ServerError::Unreadable { path: self.data.clone(), source })
            }
            (Ending::Failed(source), _) | (Ending::Stopped, Some(source)) => {
                Err(ServerError::Journal { path: self.data.clone(), source })
            }
            (Ending::Stopped, None) => Ok(()),
        }
    }

    fn spawn(&mut self, name: &'static str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = spawn_named(name, work)?;
        self.threads.push(thread);
        Ok(())
    }

    /// Joins every thread.
    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // After a disk failure the replica thread may still run: it notices the end of the journal thread
        // only when it sends it work. The send fails if the replica thread has ended.
        if !planted(Mistake::FailureIsNotTold) {
            let _ = self.internal.send(Input::Stop);
        }
        for thread in self.threads.drain(..) {
            thread.join();
        }
    }
}

/// State that all threads share.
struct Shared {
    counters: Arc<Counters>,
    clock: MachineClock,
    stop: Arc<AtomicBool>,
}

impl Shared {
    fn new() -> Shared {
        Shared { counters: Arc::default(), clock: MachineClock::start(), stop: Arc::default() }
    }
}

/// Parts that a server is assembled from.
struct Parts<D: Disk> {
    data: PathBuf,
    handshake_config: HandshakeConfig,
    journal: Journal<D>,
    recovered: Recovered,
    ports: Ports,
    shared: Shared,
    channels: Channels,
}

/// The sockets of a server.
struct Ports {
    client: Arc<BoundSocket>,
    peer: BoundSocket,
    peers: BTreeMap<NodeId, PeerSocket>,
}

impl Ports {
    fn bind(cluster: &Cluster, member: Member) -> Result<Ports, ServerError> {
        let client = Arc::new(bind(member.id, member.client, "client")?);
        let peer = bind(member.id, member.peer, "peer")?;
        let mut peers = BTreeMap::new();
        for other in cluster.members.iter().filter(|other| other.id != cluster.me) {
            peers.insert(other.id, PeerSocket::connect(member.peer.ip(), other.peer)?);
        }
        Ok(Ports { client, peer, peers })
    }
}

type Channel<T> = (Sender<T>, Receiver<T>);

/// The places in each channel between the threads, and the number of handlers.
struct Capacities {
    internal: usize,
    from_delivery: usize,
    requests: usize,
    work: usize,
    datagrams: usize,
    told: usize,
    handlers: usize,
}

impl Default for Capacities {
    /// The table in the module documentation has the policies of the channels when they are full.
    fn default() -> Capacities {
        Capacities {
            internal: 1024,
            from_delivery: places::FROM_DELIVERY,
            requests: places::REQUESTS,
            work: 4096,
            datagrams: places::DATAGRAMS,
            told: places::TOLD,
            handlers: handlers(),
        }
    }
}

/// The channels between the threads. A channel closes when the threads that hold its ends have ended, so this
/// struct is dropped as soon as the threads run.
struct Channels {
    replica: SocketSignal,
    internal: Channel<Input>,
    from_delivery: Channel<Input>,
    requests: (RequestSender, RequestReceiver),
    journal: Signal,
    work: Channel<Work>,
    handlers: Vec<HandlerChannels>,
}

/// The channels to one handler.
struct HandlerChannels {
    signal: Signal,
    datagrams: Channel<Received>,
    told: Channel<Told>,
}

impl Channels {
    fn new(capacities: &Capacities) -> io::Result<Channels> {
        let (replica, journal) = (SocketSignal::new()?, Signal::default());
        let to_replica = replica.signal();
        let handler = |_| {
            let signal = Signal::default();
            let (datagrams, told) = (signal.bounded(capacities.datagrams), signal.bounded(capacities.told));
            HandlerChannels { signal, datagrams, told }
        };
        Ok(Channels {
            internal: to_replica.bounded(capacities.internal),
            from_delivery: to_replica.bounded(capacities.from_delivery),
            requests: request_channel::bounded_by_network(to_replica, capacities.requests),
            work: journal.bounded(capacities.work),
            handlers: (0..capacities.handlers).map(handler).collect(),
            replica,
            journal,
        })
    }

    /// The receiving ends of the replica thread.
    fn inputs(&self) -> Inputs {
        Inputs {
            signal: self.replica.clone(),
            internal: self.internal.1.clone(),
            from_delivery: self.from_delivery.1.clone(),
            requests: self.requests.1.clone(),
        }
    }
}

/// Locks the data directory, makes it private, and opens the journal.
fn recover(
    cluster: &Cluster,
    data: &Path,
    clock: MachineClock,
) -> Result<(Journal<Directory>, Recovered), ServerError> {
    let at = |source| ServerError::Journal { path: data.to_owned(), source };
    let disk = Directory::lock(data).map_err(at)?;
    check_ours(&disk).map_err(at)?;
    let mended = durable::make_private(data)?;
    if mended > 0 {
        tracing::warn!(data = %data.display(), mended, "other users had access to the data; they no longer have it");
    }
    let members = cluster.members.iter().map(|member| member.id).collect();
    let expected = Expected { cluster: cluster.id, node: cluster.me, members };
    // The wall clock in seconds is the floor, so that the incarnation also grows when a disk is replaced.
    // Restarts add one each, so they stay below the floor of a later replacement.
    let incarnation_floor = Incarnation(clock.read().unix_ms / 1000);
    let options = Options { incarnation_floor, ..Options::default() };
    Journal::open(disk, &expected, options).map_err(at)
}

/// Creates the identity and keys for handshakes with this run of the server, under a fresh boot id.
fn handshake_config(
    config: &Config,
    secret: &ClusterSecret,
    incarnation: Incarnation,
) -> io::Result<HandshakeConfig> {
    let ciphers = Ciphers { aes: cpu::has_aes(), planted: config.planted, ..Ciphers::default() };
    Ok(HandshakeConfig {
        cluster: config.cluster.id,
        me: config.cluster.me,
        incarnation,
        boot_id: BootId(random::bytes()?),
        keys: ClusterKeys::new(secret.as_bytes()).with(ciphers),
        limits: config.limits,
    })
}

/// Logs one line for the start, and one warning for each condition that needs attention.
fn log_start(member: Member, secret: &ClusterSecret, data: &Path, recovered: &Recovered) {
    let Recovered { meta, snapshot, entries, commit: _, lost } = recovered;
    tracing::info!(
        server = %member.id, cluster = %meta.cluster, client = %member.client, peer = %member.peer,
        data = %data.display(), incarnation = meta.incarnation.0, voter = meta.voter,
        promised = %meta.promised, snapshot = snapshot.as_ref().map_or(0, |snap| snap.op.0),
        entries = entries.len(), fingerprint = %cluster_key(secret).fingerprint(), "start"
    );
    if let Some(lost) = lost {
        tracing::warn!(
            first = %lost.first, last = %lost.last,
            "the log is damaged, check the disk: this server fetches what is missing from the other servers. Keep them \
             running; until enough servers run that have it, or a majority is undamaged, no server can become primary"
        );
    }
    if !meta.voter {
        tracing::warn!(
            "this server's promises are lost: it votes again when a majority of the servers, itself not counted, has \
             answered and it has caught up. Keep the others running"
        );
    }
}

/// Dropping a server asks it to stop and does not wait: its threads end on their own.
impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A closed channel means that the server has ended. A full one means that it is too busy to be
        // asked without waiting.
        let _ = self.internal.try_send(Input::Stop);
    }
}

/// The public key of the cluster with this secret, which clients pin.
pub fn cluster_key(secret: &ClusterSecret) -> ClusterKey {
    ClusterKey(noise::public(&ClusterKeys::new(secret.as_bytes()).cluster_private()))
}

/// Binds the address that the configuration has under `key`.
fn bind(node: NodeId, addr: SocketAddr, key: &'static str) -> Result<BoundSocket, ServerError> {
    let socket =
        BoundSocket::bind(addr, LISTEN_PATIENCE).map_err(|error| match (error.op, error.source.kind()) {
            (NetOp::Bind, io::ErrorKind::AddrInUse) => ServerError::InUse { addr, key, node },
            (NetOp::Bind, io::ErrorKind::AddrNotAvailable) => ServerError::NotHere { addr, key, node },
            _ => error.into(),
        })?;
    let buffers = socket.buffers();
    tracing::debug!(%addr, receive = buffers.receive, send = buffers.send, "{key} port bound");
    Ok(socket)
}
