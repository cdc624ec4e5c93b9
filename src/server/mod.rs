//! Threads and channels around the pure parts.
//!
//! ```text
//!                    1024 each                 1024 requests                   4096 work
//! client port -> listener -> handler-1, -2 -----------------> replica -----------------> journal -> snapshot
//!                                |                             ^  |  ^                    |  ^ 1 begun |
//!                                | 4096 heard      4096 wants  |  |  '------ 1024 own ----'  '---------'
//!                                v                             |  |                            1 finished
//! client port <----------------- pending <---------------------'  |
//!                                ^----------- 4096 told ----------'
//!                                                                 '-> one connected socket per peer
//! peer port ---> peers ------ 4096 opened ---> replica
//! ```
//!
//! | channel | when it is full |
//! |---|---|
//! | datagrams, to each handler | dropped and counted; clients send again |
//! | requests | dropped and counted; a numbered request is answered Busy |
//! | heard | dropped and counted; clients send again |
//! | opened, from peers | dropped and counted; peers send again |
//! | wants | held back by the pending worker, which takes nothing heard meanwhile |
//! | told | held back by the replica thread, which takes no requests meanwhile; notifications are left out, and the delivery is told to ask for pages |
//! | work | held back by the replica thread, which takes no requests and no entries meanwhile |
//! | own | the sender waits: the replica thread waits for nobody, so it takes soon |
//! | begun | never full: the node has one snapshot under way at a time |
//! | finished | the snapshot thread waits; the journal thread waits for it never |
//!
//! The replica thread blocks on nothing but its inputs, so blocking sends form no circle.
//!
//! **Ending.** [`Stopper::stop`] asks the node, which hands over and says Stopped. The replica thread
//! ends, closing its channels: the journal thread finishes what is queued, the pending worker sends
//! what it was told, both end; the listeners see the flag and end, the handlers after them.
//! [`Server::wait`] joins them all. A failed disk ends the server at once and is returned.

pub mod budget;
mod clock;
mod counters;
pub mod door;
mod handlers;
mod held;
mod journal_thread;
mod listener;
pub mod node;
mod peer_listener;
mod pending_worker;
mod replica_thread;
mod seldom;
mod telling;
mod threads;

#[cfg(test)]
mod tests;

pub use clock::MachineClock;
pub use threads::{Thread, spawn_named};

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use self::counters::Counters;
use self::door::{Door, Doorkeeper, Keyring};
use self::handlers::{HANDLERS, Handler};
use self::held::Held;
use self::journal_thread::{JournalThread, write_snapshots};
use self::listener::Listener;
use self::node::{Input, Life, Node};
use self::peer_listener::PeerListener;
use self::pending_worker::PendingWorker;
use self::replica_thread::{Inputs, ReplicaThread};
use self::seldom::Seldom;
use self::telling::Telling;
use crate::config::secret::ClusterSecret;
use crate::config::{Config, Member};
use crate::delivery::Delivery;
use crate::id::{BootId, ClusterKey, Incarnation, NodeId};
use crate::journal::{Directory, Expected, Journal, JournalError, Options};
use crate::net::{BoundSocket, NetError, NetOp, PeerSocket};
use crate::random;
use crate::wire::noise;
use crate::wire::seal::ClusterKeys;

/// How long a listener waits for a datagram before it looks whether it should end.
const LISTEN_PATIENCE: Duration = Duration::from_millis(100);

/// Why a server did not start, or ended without being asked.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration's own member is missing from its list. The operator's; nothing changed.
    #[error("this server is not among the members of its own configuration")]
    NotAMember,
    /// Somebody has this server's port. The operator's; nothing changed.
    #[error(
        "cannot bind {addr}: the address is in use already. Is another recadod running (`pgrep -a recadod` \
         shows it)? If another program has it, change `{key}` of the [[server]] with id = {} in the recado.toml \
         of every server",
        node.0
    )]
    InUse {
        /// Which address.
        addr: SocketAddr,
        /// Its key in the configuration.
        key: &'static str,
        /// The server it belongs to.
        node: NodeId,
    },
    /// A socket could not be had.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The journal did not open, or failed. What it acknowledged is safe; the others go on.
    #[error("data directory {path}")]
    Journal {
        /// Which directory.
        path: PathBuf,
        /// What is wrong, and the cure.
        source: JournalError,
    },
    /// What the journal holds cannot be started on.
    #[error("data directory {path}")]
    Start {
        /// Which directory.
        path: PathBuf,
        /// What is wrong.
        source: node::StartError,
    },
    /// The system had no thread or no random bytes left.
    #[error("the system lets no server start")]
    System(#[from] io::Error),
}

/// How a running server ends.
enum Ending {
    Stopped,
    Failed(JournalError),
}

/// Asks a server to stop; any thread may hold one.
#[derive(Clone, Debug)]
pub struct Stopper(Sender<Input>);

impl Stopper {
    /// Hand over if this is the primary, then end. Asking twice changes nothing.
    pub fn stop(&self) {
        // A server that has ended needs no asking.
        let _ = self.0.send(Input::Stop);
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    member: Member,
    data: PathBuf,
    own: Sender<Input>,
    stop: Arc<AtomicBool>,
    stopped: Receiver<()>,
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
        let cluster = &config.cluster;
        let member = *cluster.member(cluster.me).ok_or(ServerError::NotAMember)?;

        // The ports first: a second server on the same ones then leaves the directory untouched.
        let client_port = Arc::new(bind(member.id, member.client, "client")?);
        let peer_port = bind(member.id, member.peer, "peer")?;
        let mut peer_sockets = BTreeMap::new();
        for peer in cluster.members.iter().filter(|peer| peer.id != cluster.me) {
            peer_sockets.insert(peer.id, PeerSocket::connect(member.peer.ip(), peer.peer)?);
        }

        let at = |source| ServerError::Journal { path: data.to_owned(), source };
        let disk = Directory::lock(data).map_err(at)?;
        let members = cluster.members.iter().map(|member| member.id).collect();
        let expected = Expected { cluster: cluster.id, node: cluster.me, members };
        let clock = MachineClock::start();
        // Seconds since 1970 grow from one replaced disk to the next, and leave room for every restart.
        let incarnation_floor = Incarnation(clock.read().unix_ms / 1000);
        let options = Options { incarnation_floor, ..Options::default() };
        let (journal, recovered) = Journal::open(disk, &expected, options).map_err(at)?;
        let meta = &recovered.meta;
        tracing::info!(
            server = %cluster.me, cluster = %cluster.id, client = %member.client, peer = %member.peer,
            data = %data.display(), incarnation = meta.incarnation.0, voter = meta.voter,
            promised = %meta.promised, snapshot = recovered.snapshot.as_ref().map_or(0, |snap| snap.op.0),
            entries = recovered.entries.len(), fingerprint = %cluster_key(secret).fingerprint(), "start"
        );
        if let Some(lost) = recovered.lost {
            tracing::warn!(first = %lost.first, last = %lost.last, "the log is damaged: repairing from peers");
        }

        let keys = ClusterKeys::new(secret.as_bytes());
        let life = BootId(random::bytes()?);
        let keeper = Doorkeeper {
            cluster: cluster.id,
            me: cluster.me,
            incarnation: meta.incarnation,
            life,
            keys: keys.clone(),
            limits: config.limits,
        };
        let delivery = Delivery::new(&config, meta.incarnation, random::bytes()?);
        let mut effects = Vec::new();
        let life = Life { id: life, keys, seed: u64::from_le_bytes(random::bytes()?) };
        let node = Node::new(config.clone(), recovered, life, clock.read(), &mut effects)
            .map_err(|source| ServerError::Start { path: data.to_owned(), source })?;

        // Capacities and what happens when they are reached: the table in this module's doc.
        let (own, own_inputs) = bounded(1024);
        let (opened, peer_inputs) = bounded(4096);
        let (wants, want_inputs) = bounded(4096);
        let (requests, request_inputs) = bounded(1024);
        let (work, work_inputs) = bounded(4096);
        let (begun, begun_inputs) = bounded(1);
        let (finished, finished_inputs) = bounded(1);
        let (heard, heard_inputs) = bounded(4096);
        let (told, told_inputs) = bounded(4096);
        let (stopped, stopped_inputs) = bounded(1);
        let (failed, failed_inputs) = bounded(1);

        let counters = Arc::new(Counters::default());
        let stop = Arc::new(AtomicBool::new(false));
        let mut server = Server {
            member,
            data: data.to_owned(),
            own: own.clone(),
            stop: Arc::clone(&stop),
            stopped: stopped_inputs,
            failed: failed_inputs,
            threads: Vec::new(),
        };

        // From the disk outwards, so that nothing is received before it can be handled.
        server.spawn("snapshot", move || write_snapshots(&begun_inputs, &finished))?;
        let journal = JournalThread {
            journal,
            work: work_inputs,
            news: own,
            begun,
            finished: finished_inputs,
            full: None,
            clock,
            unread: Seldom::default(),
        };
        server.spawn("journal", move || {
            if let Err(error) = journal.run() {
                // Room for one, and only this thread sends.
                let _ = failed.try_send(error);
            }
        })?;
        let pending = PendingWorker {
            delivery,
            heard: heard_inputs,
            told: told_inputs,
            wants: Held::new(wants),
            socket: Arc::clone(&client_port),
            counters: Arc::clone(&counters),
            clock,
        };
        server.spawn("pending", move || pending.run())?;
        let keyrings: Vec<_> = HANDLERS.iter().map(|_| Arc::new(Mutex::new(Keyring::new(&keeper)))).collect();
        let inputs =
            Inputs { own: own_inputs, peers: peer_inputs, wants: want_inputs, requests: request_inputs };
        let replica = ReplicaThread {
            node,
            inputs,
            peers: peer_sockets,
            journal: Held::new(work),
            delivery: Telling::new(told),
            keyrings: keyrings.clone(),
            counters: Arc::clone(&counters),
            clock,
            stopped,
        };
        server.spawn("replica", move || replica.run(effects))?;
        let cluster = config.cluster.clone();
        let peers = PeerListener {
            socket: peer_port,
            cluster,
            peers: opened,
            counters: Arc::clone(&counters),
            clock,
            stop: Arc::clone(&stop),
        };
        server.spawn("peers", move || peers.run())?;
        let mut lanes = Vec::with_capacity(HANDLERS.len());
        for (name, keyring) in HANDLERS.into_iter().zip(keyrings) {
            let (lane, datagrams) = bounded(1024);
            lanes.push(lane);
            let handler = Handler {
                datagrams,
                door: Door::new(keeper.clone(), random::bytes()?),
                keyring,
                socket: Arc::clone(&client_port),
                heard: heard.clone(),
                requests: requests.clone(),
                counters: Arc::clone(&counters),
                clock,
            };
            server.spawn(name, move || handler.run())?;
        }
        let listener = Listener {
            socket: client_port,
            cluster: config.cluster.id,
            handlers: lanes,
            counters,
            clock,
            stop,
        };
        server.spawn("listener", move || listener.run())?;
        Ok(server)
    }

    /// This server as all know it.
    pub fn member(&self) -> Member {
        self.member
    }

    /// Something that asks this server to stop.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.own.clone())
    }

    /// Waits until the server has stopped (somebody asked it to) or failed, and for all its threads.
    ///
    /// # Errors
    /// The disk failed. Its last acknowledgement holds; the other servers go on.
    pub fn wait(mut self) -> Result<(), ServerError> {
        let ending = crossbeam::channel::select! {
            // A sender that is gone without a word: its thread ended because the other one did.
            recv(self.stopped) -> stopped => match stopped {
                Ok(()) => Ending::Stopped,
                Err(_) => self.failed.recv().map_or(Ending::Stopped, Ending::Failed),
            },
            recv(self.failed) -> failed => match failed {
                Ok(error) => Ending::Failed(error),
                Err(_) => Ending::Stopped,
            },
        };
        self.end();
        // The journal's last sync may have failed after the node had stopped.
        let late = self.failed.try_recv().ok();
        match (ending, late) {
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
        // After a failure the replica thread may still run: it learns that the journal is gone only when
        // it has something to write. One that has ended needs no asking.
        let _ = self.own.send(Input::Stop);
        for thread in self.threads.drain(..) {
            thread.join();
        }
    }
}

/// A server that nobody waits for stops by itself; its threads end on their own.
impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Full or closed: then it is ending already, or too busy to be asked without waiting.
        let _ = self.own.try_send(Input::Stop);
    }
}

/// The key that clients know the cluster with this secret by.
pub fn cluster_key(secret: &ClusterSecret) -> ClusterKey {
    ClusterKey(noise::public(&ClusterKeys::new(secret.as_bytes()).cluster_private()))
}

/// Binds the address that stands under `key` in the configuration.
fn bind(node: NodeId, addr: SocketAddr, key: &'static str) -> Result<BoundSocket, ServerError> {
    let socket =
        BoundSocket::bind(addr, LISTEN_PATIENCE).map_err(|error| match (error.op, error.source.kind()) {
            (NetOp::Bind, io::ErrorKind::AddrInUse) => ServerError::InUse { addr, key, node },
            _ => error.into(),
        })?;
    let buffers = socket.buffers();
    tracing::debug!(%addr, receive = buffers.receive, send = buffers.send, "{key} port bound");
    Ok(socket)
}
