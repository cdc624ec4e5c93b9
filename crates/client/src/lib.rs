//! The client: a pure machine, and the blocking [`Client`] that programs use.
//!
//! ```no_run
//! use std::time::Duration;
//! use recado_client::{Client, Content, Incoming, Options, Priority, Topic};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Any one server is enough. Using a name that nobody has claims it.
//! let servers = vec!["127.0.0.1:10097".parse()?];
//! let client = Client::connect(Options::new("alice".parse()?, servers, "/var/lib/my-program"))?;
//!
//! // `send` returns a receipt at once. Waiting on it tells when the servers hold the notification for good.
//! let content = Content {
//!     title: Some("Backup".into()),
//!     priority: Priority::default(),
//!     tags: vec![],
//!     body: "done in 41 s".into(),
//!     extra: vec![],
//! };
//! let receipt = client.send(Some(Topic::to_send("#ops")?), content)?;
//! println!("op {}", receipt.wait(Duration::from_secs(30))?);
//!
//! // Receives notifications to alice and to what she follows, once each and in order, through failovers.
//! client.follow(Topic::to_follow("#ops")?)?;
//! let notifications = client.notifications();
//! loop {
//!     let incoming = notifications.recv()?;
//!     if let Incoming::Notification(notification) = &incoming {
//!         println!("{}: {}", notification.author, notification.content.body);
//!     }
//!     // The cursor moves here. After a crash before this line the notification is delivered again.
//!     client.ack(incoming.upto())?;
//! }
//! # }
//! ```
//!
//! It may not know how servers replicate or what they store: it depends on `recado-proto` and `recado-sys`
//! alone, and knows a server by its packets. The machine is pure: no socket, file, thread or clock.
//!
//! Reading order: [`machine`] (the protocol), `driver` (threads and channels around it), `ending` (the reason
//! why it ended), `format` (the version of a file), `store` (a device's files), `orphaned` (unsent requests
//! in clusters that are not known any more), `trust` and `known` (which cluster is the right one),
//! `handshake_query` (datagrams without a session), `probe` (which cluster is at an address, and the servers'
//! status), `queries` (what a client and a reader ask alike), `reader` (queries to any of the servers),
//! `admin`, `enrolment` (codes that people type), `keyfile`, then [`Client`] with `options`,
//! `incoming`, `receipt` and `error`.

#![forbid(unsafe_code)]

mod admin;
mod driver;
mod ending;
mod enrolment;
mod error;
mod format;
mod handshake_query;
mod incoming;
#[cfg(test)]
mod interleavings;
mod keyfile;
mod known;
pub mod machine;
mod options;
mod orphaned;
mod probe;
mod queries;
mod reader;
mod receipt;
mod store;
mod survey;
mod trust;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recado_sys::sync::channel::{self, Receiver, RecvTimeoutError, SendTimeoutError};
use recado_sys::sync::signal::{Sender, Signal};
use recado_sys::sync::{self, BoundSocket, Mutex};

use recado_proto::entropy::Entropy;
use recado_proto::id::Moment;
use recado_proto::packet::{KeyChange, QueryId};
use recado_proto::planted::PlantedBug;
use recado_proto::seal::Ciphers;
use recado_sys::clock::MachineClock;
use recado_sys::cpu;
use recado_sys::random;
use recado_sys::threads::{Thread, spawn_named};

use self::driver::{Command, Driver, PendingRequest, RecvThread};
use self::ending::Ending;
use self::machine::handshake::Identity;
use self::machine::{Answer, Obstacle, Query, Start};
use self::probe::{Begun, Meeting};
use self::queries::Asks;
use self::store::{Slot, Token};

pub use recado_proto::id::{
    ChannelName, ClusterId, ClusterKey, ClusterKeyError, DeviceId, DeviceKey, Fingerprint, Name, NameError,
    NameKind, NodeId, Op, Priority, PriorityError, Seq, SessionId, StoreKey, Topic, View,
};
pub use recado_proto::packet::{
    Access, AdminChange, Body, ChannelChange, Code, Condition, Content, DisplayName, DisplayNameError,
    FollowChange, HistoryRange, Info, ListItem, Listing, Notice, Notification, RefusedDatagram, Role,
    RoleName, Selection, SelectionTooLong, Status, StoredValue,
};

pub use self::admin::administer;
pub use self::driver::Connection;
pub use self::enrolment::{EnrolmentCode, EnrolmentCodeError};
pub use self::error::{ClientError, StoreError, StoreOp, explain};
pub use self::incoming::{ConnectionEvent, Incoming, Notifications, ReceiveError};
pub use self::keyfile::KeyFile;
pub use self::known::{KnownCluster, KnownClusters};
pub use self::machine::reading::{Age, Consistency};
pub use self::machine::{CopySign, Request};
pub use self::options::{DeliveryMode, Options};
pub use self::orphaned::Orphaned;
pub use self::probe::{ServerStatus, identify, status};
pub use self::queries::{Got, Past, ProfileInfo, Queries};
pub use self::reader::Reader;
pub use self::receipt::{Receipt, ReceiptError};
pub use self::store::{DeviceReset, Installation};
pub use self::survey::{Claim, LENGTHS, Surveyed, Told, survey};
pub use self::trust::{ClusterIdentity, Decide, Remembered, Trust};

/// Capacity of the channel of datagrams between the two threads.
const DATAGRAMS: usize = 1024;
/// Capacity of the channel of requests that wait for room among the 256 unanswered.
const REQUESTS: usize = 256;
/// Capacity of the channel of commands to the machine's thread.
const COMMANDS: usize = 64;
/// Capacity of the channel of notifications to the application.
const INCOMING: usize = 1024;
/// Capacity of the channel of events to the application; when it is full, the newest event is dropped.
const EVENTS: usize = 64;
/// The receive time-out of the socket, and so the longest time until the receiving thread notices that it is
/// to end. A datagram that the client sends to itself wakes it at once.
const PATIENCE: Duration = Duration::from_millis(250);

/// Most servers asked for their status: more addresses than any cluster has.
const STATUS_MAX: usize = 32;

/// The time that [`Client::open`] looks for a server before it goes on without one.
const LOOK: Duration = Duration::from_millis(500);

/// A request that an earlier run of this device left unanswered and that this client settles. After a power
/// cut it may be one that was answered: it gets the same answer again.
#[derive(Clone, Debug)]
pub struct RecoveredRequest {
    /// The request.
    pub request: Request,
    /// Its receipt.
    pub receipt: Receipt,
}

/// A session with the cluster, kept through failovers.
///
/// Methods may be called from several threads. Dropping it ends the session, as [`Client::disconnect`] does;
/// requests that are unanswered then are settled by the device's next client.
#[derive(Debug)]
pub struct Client {
    requests: Sender<PendingRequest>,
    commands: Sender<Command>,
    notifications: Notifications,
    events: Receiver<ConnectionEvent>,
    connection: Arc<Mutex<Option<Connection>>>,
    obstacle: Arc<Mutex<Obstacle>>,
    ending: Arc<Ending>,
    recovered: Vec<RecoveredRequest>,
    cluster: ClusterId,
    cluster_key: ClusterKey,
    profile: Name,
    slot: Arc<Slot>,
    timeout: Duration,
    /// The op that admitted the device, of which an earlier client was told.
    admitted_by: Option<Op>,
    next_query: AtomicU64,
    threads: Threads,
}

/// The two threads of a client, and the means to end them.
#[derive(Debug)]
struct Threads {
    machine: Option<Thread>,
    inlet: Option<Thread>,
    /// Dropping it ends the receiving thread.
    stop: Option<channel::Sender<Infallible>>,
    socket: Arc<BoundSocket>,
}

impl Threads {
    /// Joins both threads. The machine's must have been asked to end, or have ended by itself.
    fn join(&mut self) {
        if let Some(machine) = self.machine.take() {
            machine.join();
        }
        self.stop = None;
        let mut own = self.socket.addr();
        own.set_ip(match own {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
        // The datagram wakes the receiving thread; if it is lost, the receive time-out does.
        let _ = self.socket.send(&[(own, Vec::new())]);
        if let Some(inlet) = self.inlet.take() {
            inlet.join();
        }
    }
}

impl Client {
    /// Connects as the profile and waits until the session is open. Claims the name if nobody has it. Learns
    /// the cluster from a server that answers; it must be trusted ([`Options::trust`]), then takes the first
    /// free device of this installation. Requests that the device left unanswered are sent again
    /// ([`Client::recovered`]).
    ///
    /// # Errors
    /// [`ClientError`]: no server answers in time, the cluster is not trusted, no primary admits the device,
    /// the session is refused, or the device's files cannot be used.
    pub fn connect(options: Options) -> Result<Client, ClientError> {
        let Meeting { cluster_identity, until, begun } =
            probe::meet(&options.servers, options.timeout, &options.trust)?;
        let (clock, timeout, coded) = (begun.clock, options.timeout, options.code.is_some());
        let (client, ready) = Client::start(begun, options, cluster_identity, until)?;
        match ready.recv_timeout(until.since(clock.now())) {
            Ok(()) => Ok(client),
            Err(RecvTimeoutError::Timeout) => Err(client.unopened(timeout)),
            // The client ended before the session was open.
            Err(RecvTimeoutError::Disconnected) => Err(match client.ending.error() {
                ClientError::Ended(Code::NotYours) => {
                    ClientError::NotYours { profile: client.profile.clone(), key: client.slot.key() }
                }
                ClientError::Ended(Code::KeyNotAllowed) => {
                    let (profile, key) = (client.profile.clone(), client.slot.device().key);
                    ClientError::KeyNotAllowed { profile, key }
                }
                ClientError::Ended(Code::UnknownProfile) if !coded => {
                    ClientError::NotClaimed { profile: client.profile.clone(), cluster: client.cluster }
                }
                ClientError::Ended(Code::WrongCode) if !coded => {
                    ClientError::NotYours { profile: client.profile.clone(), key: client.slot.key() }
                }
                ClientError::Ended(Code::UnknownProfile) => ClientError::NoSuchProfile {
                    profile: client.profile.clone(),
                    cluster: client.cluster,
                    addr: cluster_identity.addr,
                },
                ClientError::Ended(Code::LimitReached) => {
                    ClientError::NoPlace { profile: client.profile.clone() }
                }
                ClientError::Ended(code) => ClientError::Rejected(code),
                other => other,
            }),
        }
    }

    /// Connects as [`Client::connect`] does, but without waiting for the session: requests asked before it is
    /// open are kept in the device's files, in order, and sent once it is open. If the cluster is known from
    /// before ([`Options::remembered`]), no server needs to answer; servers are then looked for as long as it
    /// takes. [`Client::connection_events`] tells when the session is open, or why it never will be.
    ///
    /// If the files are an older copy, a request asked before the session is open may end as
    /// [`ReceiptError::Forgotten`]: the client cannot distinguish it from one that the other copy has sent.
    ///
    /// # Errors
    /// [`ClientError`]: no server answers and the cluster is not known, the cluster is not trusted, or the
    /// device's files cannot be used.
    pub fn open(options: Options) -> Result<Client, ClientError> {
        let remembered = match options.cluster {
            Some(cluster) => options.trust.remembered(cluster, &options.servers)?,
            None => None,
        };
        let patience = if remembered.is_some() { options.timeout.min(LOOK) } else { options.timeout };
        let (cluster_identity, begun) =
            match (probe::meet(&options.servers, patience, &options.trust), remembered) {
                (Ok(Meeting { cluster_identity, begun, .. }), _) => (cluster_identity, begun),
                // A server that stopped between its RETRY and its proof counts as no server. So does one that
                // is of another version: servers are upgraded one by one, and anybody can say so.
                (
                    Err(
                        ClientError::Unreachable { .. }
                        | ClientError::Unproved { .. }
                        | ClientError::OtherVersion { .. },
                    ),
                    Some(cluster_identity),
                ) => (cluster_identity, Begun::nothing(&options.trust.places(&options.servers)?)?),
                (Err(error), _) => return Err(error),
            };
        let until = begun.clock.now() + patience;
        Ok(Client::start(begun, options, cluster_identity, until)?.0)
    }

    /// The error of a session that was not opened in time.
    fn unopened(&self, waited: Duration) -> ClientError {
        match *self.obstacle.lock() {
            // A server has answered before the session was asked for.
            Obstacle::Silence | Obstacle::NoPrimary => ClientError::NoPrimary(waited),
            Obstacle::Unproved(server) => ClientError::Unproved { server, waited },
            Obstacle::PrimaryUnheard { node, addr } => ClientError::PrimaryUnheard { node, addr, waited },
            Obstacle::Contested => ClientError::Contested { dir: self.slot.dir().to_owned(), waited },
        }
    }

    /// Takes a device, waiting for a free one until `until` at most, and starts its threads, which go on with
    /// the handshakes that have begun. The receiver gets a message once the session is open.
    fn start(
        begun: Begun,
        options: Options,
        cluster_identity: ClusterIdentity,
        until: Moment,
    ) -> Result<(Client, Receiver<()>), ClientError> {
        let Begun { clock, mut socket, handshakes } = begun;
        socket.set_patience(PATIENCE);
        let Options { state, profile, .. } = &options;
        let cluster = cluster_identity.cluster;
        if !options.claims && options.code.is_none() {
            // Without a key nothing was ever done as this profile from here, and none is made to ask.
            let found = store::existing_key(&store::installation(state, cluster, profile), cluster, profile);
            found.map_err(|error| match error {
                StoreError::NoKey { cluster, profile } => ClientError::NotClaimed { profile, cluster },
                error => error.into(),
            })?;
        }
        let take = match options {
            Options { memory_only: true, .. } => Slot::take_without_files,
            Options { receives: false, .. } => Slot::take_to_send,
            _ => Slot::take,
        };
        let (slot, outbox) = store::once_free(clock, until, || take(state, cluster, profile))?;
        let slot = Arc::new(slot);
        let admitted_by = outbox.kept().created_op;
        // To the servers a CONNECT with an enrolment code means a profile that exists, and they ignore the
        // code if the key is the profile's already. So a code that nobody has keeps a name from being
        // claimed.
        let code = match options.code {
            None if admitted_by.is_none() && !options.claims => Some(EnrolmentCode::of(random::bytes()?)),
            code => code,
        };

        let token = match options.memory_only {
            true => None,
            false => Some(Token::open(&store::installation(state, cluster, profile))?),
        };
        let ending = Arc::new(Ending::default());
        let mut recovered = Vec::new();
        let mut promises = BTreeMap::new();
        for (seq, unanswered) in &outbox.kept().unanswered {
            let (promise, receipt) = receipt::pair(ending.clone());
            promise.numbered(*seq);
            promise.saved();
            recovered.push(RecoveredRequest { request: unanswered.request.clone(), receipt });
            promises.insert(*seq, promise);
        }
        let start = Start {
            identity: Identity {
                cluster: cluster_identity.cluster,
                cluster_key: cluster_identity.key.0,
                private: slot.private().clone(),
            },
            device: slot.device(),
            created_op: outbox.kept().created_op,
            profile: options.profile.clone(),
            code: code.map(|code| code.hash(&options.profile)),
            invite: options.invite.map(|code| code.invite_hash()),
            receives: options.receives,
            cursor: options.cursor.or_else(|| slot.cursor()),
            outbox: outbox.kept().numbered().collect(),
            highest_seq: outbox.has_file().then_some(outbox.kept().given),
            entropy: Entropy::new(random::bytes()?),
            ciphers: Ciphers { aes: cpu::has_aes(), ..Ciphers::default() },
            planted: PlantedBug::default(),
            servers: options.trust.places(&options.servers)?,
            handshakes,
        };

        let socket = Arc::new(socket);
        let (stop, stopped) = channel::bounded(0);
        let signal = Signal::default();
        let (datagrams_in, datagrams) = signal.bounded(DATAGRAMS);
        let (requests_in, requests) = signal.bounded(REQUESTS);
        let (commands_in, commands) = signal.bounded(COMMANDS);
        let (incoming_in, incoming) = channel::bounded(INCOMING);
        let (events_in, events) = channel::bounded(EVENTS);
        let (ready_in, ready) = channel::bounded(1);
        let connection = Arc::new(Mutex::new(None));
        let obstacle = Arc::new(Mutex::new(Obstacle::default()));
        let inlet = RecvThread { socket: socket.clone(), stop: stopped, datagrams: datagrams_in };
        let driver = Driver {
            clock,
            socket: socket.clone(),
            slot: slot.clone(),
            trust: options.trust,
            cluster_identity,
            signal,
            requests,
            commands,
            datagrams,
            incoming: incoming_in,
            events: events_in,
            connection: connection.clone(),
            obstacle: obstacle.clone(),
            ending: ending.clone(),
            outbox,
            token,
            promises,
            ready: ready_in,
        };
        let mut threads = Threads { machine: None, inlet: None, stop: Some(stop), socket };
        threads.inlet = Some(spawn_named("recado-recv", move || inlet.run())?);
        match spawn_named("recado-client", move || driver.run(start)) {
            Ok(machine) => threads.machine = Some(machine),
            Err(error) => {
                threads.join();
                return Err(error.into());
            }
        }
        let client = Client {
            requests: requests_in,
            notifications: Notifications {
                incoming,
                mode: options.mode,
                slot: slot.clone(),
                commands: commands_in.clone(),
                ending: ending.clone(),
            },
            commands: commands_in,
            events,
            connection,
            obstacle,
            ending,
            recovered,
            cluster: cluster_identity.cluster,
            cluster_key: cluster_identity.key,
            profile: options.profile,
            slot,
            timeout: options.timeout,
            admitted_by,
            next_query: AtomicU64::new(1),
            threads,
        };
        Ok((client, ready))
    }

    /// Starts to follow a feed or a channel. Notifications sent there after the follow's op are received.
    ///
    /// # Errors
    /// [`ClientError`]: no room for another request in time, or the client has ended.
    pub fn follow(&self, topic: Topic) -> Result<Receipt, ClientError> {
        self.request(Request::Follow { topic, change: FollowChange::Add })
    }

    /// Stops following.
    ///
    /// # Errors
    /// [`ClientError`]: no room for another request in time, or the client has ended.
    pub fn unfollow(&self, topic: Topic) -> Result<Receipt, ClientError> {
        self.request(Request::Follow { topic, change: FollowChange::Remove })
    }

    /// Sends a notification; without a topic, to the profile's own followers. Waits only for room among the
    /// unanswered requests. The request is retransmitted until it is answered, and applied at most once.
    ///
    /// # Errors
    /// [`ClientError`]: a part of the notification is too large, no room for another request in time, or the
    /// client has ended.
    pub fn send(&self, topic: Option<Topic>, content: Content) -> Result<Receipt, ClientError> {
        self.request(Request::Send { topic, content })
    }

    /// Takes the text of a notification away: of one that this profile has sent, or in a channel that it
    /// owns. The servers then hold its op, topic, author and time alone ([`Notice::Retracted`]), and all who
    /// receive the topic get a notification of its own that says so ([`Notice::Retracts`]), also those who
    /// have read the text. Who has it can keep it. Retracting it again changes nothing and is no error.
    ///
    /// # Errors
    /// [`ClientError`]: no room for another request in time, or the client has ended.
    pub fn retract(&self, op: Op) -> Result<Receipt, ClientError> {
        self.request(Request::Retract { op })
    }

    /// Gives the profile a display name, which stands beside its name, or takes it away.
    ///
    /// # Errors
    /// [`ClientError`]: no room for another request in time, or the client has ended.
    pub fn set_display_name(&self, name: Option<DisplayName>) -> Result<Receipt, ClientError> {
        self.request(Request::Display { name })
    }

    /// Gives a key of the store a value of at most 16 KiB. The op of the receipt is the timestamp of the
    /// value. A refusal for the condition is `KeyExists`, `UnknownKey` or `StaleTimestamp`, and
    /// [`Receipt::timestamp`] then tells the timestamp that the key has.
    ///
    /// # Errors
    /// [`ClientError`]: the value is too large, no room for another request in time, or the client has ended.
    pub fn put(&self, key: StoreKey, value: Body, condition: Condition) -> Result<Receipt, ClientError> {
        self.request(Request::Put { key, value, condition })
    }

    /// Takes the value of a key away, if it has one, and if it has this timestamp, where one is given.
    /// Refusals are those of [`Client::put`].
    ///
    /// # Errors
    /// [`ClientError`]: no room for another request in time, or the client has ended.
    pub fn delete(&self, key: StoreKey, at: Option<Op>) -> Result<Receipt, ClientError> {
        self.request(Request::Delete { key, at })
    }

    /// Creates a channel that belongs to this profile, changes the members of one it owns, or deletes one.
    ///
    /// # Errors
    /// [`ClientError`]: no room for another request in time, or the client has ended.
    pub fn change_channel(
        &self,
        channel: ChannelName,
        change: ChannelChange,
    ) -> Result<Receipt, ClientError> {
        self.request(Request::Channel { channel, change })
    }

    /// Opens an enrolment: an installation that connects with the code within ten minutes
    /// ([`Options::enrol`]) adds its key to the profile's. The code is valid once the receipt has an op, and
    /// replaces any code given before.
    ///
    /// # Errors
    /// [`ClientError`]: the system has no random numbers, no room for another request in time, or the client
    /// has ended.
    pub fn enrol(&self) -> Result<(EnrolmentCode, Receipt), ClientError> {
        let code = EnrolmentCode::of(random::bytes()?);
        let change = KeyChange::Enrol { code: code.hash(&self.profile) };
        Ok((code, self.request(Request::Keys { change })?))
    }

    /// Revokes a key of the profile: its devices are forgotten and their sessions end. If it is this
    /// installation's key, this client ends, too.
    ///
    /// # Errors
    /// [`ClientError`]: no room for another request in time, or the client has ended.
    pub fn revoke(&self, key: DeviceKey) -> Result<Receipt, ClientError> {
        self.request(Request::Keys { change: KeyChange::Revoke { key } })
    }

    /// Asks any numbered request, such as one that an earlier client left ([`Client::recovered`]).
    ///
    /// # Errors
    /// [`ClientError`]: a part of it is too large, no room for another request in time, or the client has
    /// ended.
    pub fn request(&self, request: Request) -> Result<Receipt, ClientError> {
        if let Request::Send { content, .. } = &request {
            if !content.within_limits() {
                return Err(ClientError::TooLarge);
            }
            if content.is_blank() {
                return Err(ClientError::Blank);
            }
        }
        if let Request::Put { value, .. } = &request
            && value.len() > StoredValue::LEN_MAX
        {
            return Err(ClientError::TooLarge);
        }
        let (promise, receipt) = receipt::pair(self.ending.clone());
        match self.requests.send_timeout(PendingRequest { request, promise }, self.timeout) {
            Ok(()) => Ok(receipt),
            Err(SendTimeoutError::Timeout(_)) => Err(ClientError::Full(self.timeout)),
            Err(SendTimeoutError::Disconnected(_)) => Err(self.ending.error()),
        }
    }

    /// The stream of this device's notifications. All receivers share it.
    pub fn notifications(&self) -> Notifications {
        self.notifications.clone()
    }

    /// The events of the connection. The channel holds 64 events; when it is full, the newest are dropped.
    pub fn connection_events(&self) -> sync::ProgramReceiver<ConnectionEvent> {
        sync::to_program(self.events.clone())
    }

    /// Tells the client that the application has finished with the stream up to `op`
    /// ([`DeliveryMode::AtLeastOnce`]). Call it at least every few dozen notifications: the servers send no
    /// more than 256 beyond it.
    ///
    /// # Errors
    /// [`ClientError::Store`]: the cursor could not be written and has not moved.
    pub fn ack(&self, op: Op) -> Result<(), ClientError> {
        incoming::take(&self.slot, &self.commands, op)
    }

    /// The device's cursor, as far as this machine knows: everything up to it was taken. For exactly-once
    /// processing, store [`Incoming::upto`] with the effect of the notification instead, and start the next
    /// client with [`Options::cursor`].
    pub fn cursor(&self) -> Option<Op> {
        self.slot.cursor()
    }

    /// The status of every server of the cluster, as the function [`status`] gives it without a session. Over
    /// the session it costs one datagram to and one from each server, and a handshake only with a server to
    /// which there is no path yet. Some of the servers' addresses are enough. Returns when all have answered,
    /// or after `timeout`. Ascending by id; empty if no server answers.
    ///
    /// # Errors
    /// [`ClientError`]: the client has ended.
    pub fn status(
        &self,
        servers: &[SocketAddr],
        timeout: Duration,
    ) -> Result<Vec<ServerStatus>, ClientError> {
        let clock = MachineClock::start();
        let (answer_in, answers) = channel::bounded(STATUS_MAX);
        let mut sent: BTreeMap<SocketAddr, (QueryId, Moment)> = BTreeMap::new();
        let mut found: BTreeMap<NodeId, ServerStatus> = BTreeMap::new();
        let mut next = servers.to_vec();
        while found.is_empty() || found.values().any(|server| server.answer.is_none()) {
            for server in next.drain(..) {
                if sent.len() < STATUS_MAX && !sent.contains_key(&server) {
                    let id = self.next_query();
                    sent.insert(server, (id, clock.now()));
                    self.command(Command::Query(id, Query::Status { server }, answer_in.clone()))?;
                }
            }
            let left = timeout.saturating_sub(clock.now().since(Moment(0)));
            let (id, status) = match answers.recv_timeout(left) {
                Ok((id, Answer::Status(status))) => (id, status),
                Ok(_) => continue,
                Err(_) => break,
            };
            for (node, addr) in status.members.iter().copied() {
                let unheard = ServerStatus { node, addr, answer: None, round_trip: None };
                found.entry(node).or_insert(unheard);
                next.push(addr);
            }
            let began = sent.values().find(|(query, _)| *query == id).map(|(_, began)| *began);
            if let Some(server) = found.get_mut(&status.node) {
                server.round_trip = began.map(|began| clock.now().since(began));
                server.answer = Some(status);
            }
        }
        for (id, _) in sent.into_values() {
            self.command(Command::GiveUp(id))?;
        }
        Ok(found.into_values().collect())
    }

    fn next_query(&self) -> QueryId {
        QueryId(self.next_query.fetch_add(1, Ordering::Relaxed))
    }

    fn command(&self, command: Command) -> Result<(), ClientError> {
        self.commands.send(command).map_err(|_| self.ending.error())
    }

    /// Requests that an earlier run of this device left unanswered, with receipts for their outcome.
    pub fn recovered(&self) -> &[RecoveredRequest] {
        &self.recovered
    }

    /// Returns true if another device of this installation, which no process uses, has unanswered requests:
    /// an earlier client that ran beside others has left them. A client that only [sends](Options::send_only)
    /// takes such a device first, and settles them.
    pub fn has_unsettled_neighbour(&self) -> bool {
        self.slot.has_unsettled_neighbour()
    }

    /// The session's id, view and primary; none before it is open.
    pub fn connection(&self) -> Option<Connection> {
        *self.connection.lock()
    }

    /// Returns true if this client has claimed its name: nobody had it. Asks the servers only if the device
    /// is new.
    ///
    /// # Errors
    /// [`ClientError`]: there was no answer in time.
    pub fn has_claimed(&self) -> Result<bool, ClientError> {
        if self.admitted_by.is_some() || !self.is_new_device() {
            return Ok(false);
        }
        // A profile begins at the op of the CONNECT that claimed its name, which admitted the device too.
        let since = self.info(None)?.info.since;
        Ok(self.connection().is_some_and(|connection| connection.created_op == since))
    }

    /// Returns true if the servers have admitted the device for this client: it is new, or had been removed.
    pub fn is_new_device(&self) -> bool {
        // The session of a device that was admitted earlier is a later one, also if its files do not tell.
        let is_new =
            |of: Connection| of.session.0 == of.created_op && Some(of.created_op) != self.admitted_by;
        self.connection().is_some_and(is_new)
    }

    /// Sets how long to wait for an answer and for room for one more request from now on, in place of
    /// [`Options::timeout`].
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The cluster that the client is connected to.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The key that this cluster has proved to hold.
    pub fn cluster_key(&self) -> ClusterKey {
        self.cluster_key
    }

    /// The profile that the client acts as.
    pub fn profile(&self) -> &Name {
        &self.profile
    }

    /// The device of this installation that the client uses.
    pub fn device(&self) -> DeviceId {
        self.slot.device()
    }

    /// The directory of the device's files ([`Options::memory_only`]: of its lock alone).
    pub fn device_dir(&self) -> &Path {
        self.slot.dir()
    }

    /// Ends the session. If it receives, waits until the servers know, at most half a second; a session that
    /// only sends has no cursor to keep. Unanswered requests are kept and settled by the device's next
    /// client.
    pub fn disconnect(self) {
        drop(self);
    }
}

impl Asks for Client {
    fn ask(&self, query: Query) -> Result<Answer, ClientError> {
        let id = self.next_query();
        let (answer_in, answer) = channel::bounded(1);
        self.command(Command::Query(id, query, answer_in))?;
        match answer.recv_timeout(self.timeout) {
            Ok((_, Answer::Refused(code))) => Err(ClientError::Refused(code)),
            Ok((_, answer)) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => {
                // Without this the machine would repeat the query for ever.
                self.command(Command::GiveUp(id))?;
                Err(ClientError::Timeout(self.timeout))
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.ending.error()),
        }
    }

    fn patience(&self) -> Duration {
        self.timeout
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A driver that has ended by itself does not need the command.
        let _ = self.commands.send(Command::Disconnect);
        self.threads.join();
    }
}
