//! The blocking [`Reader`]: queries to any of the servers, without a session.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use recado_proto::entropy::Entropy;
use recado_proto::id::{ClusterId, ClusterKey, DeviceKey, Moment, Name};
use recado_proto::noise;
use recado_proto::packet::{self, AnswerKind, Code, OptionalFields, QueryId};
use recado_sys::clock::MachineClock;
use recado_sys::random;
use recado_sys::sync::{BoundSocket, Mutex};

use super::error::{ClientError, StoreError};
use super::handshake_query::{self, HandshakeQuery};
use super::machine::handshake::Identity;
use super::machine::handshakes::HandshakeClients;
use super::machine::reading::{self, Age, Consistency, Outcome, Reading};
use super::machine::{Answer, Query};
use super::options::Options;
use super::probe::{self, Begun, Meeting};
use super::queries::Asks;
use super::store::{self, Token};

/// How many round trips the time of a hedge is drawn from.
const ROUND_TRIPS: usize = 64;

/// Asks queries ([`Queries`](super::Queries)) of any of the servers, without a session: whichever server has
/// applied what this installation has seen may answer, also while there is no primary, and nothing is written
/// to the servers' log. It needs the installation's key, and no right to write.
///
/// Its methods may be called from several threads; they ask one after another.
#[derive(Debug)]
pub struct Reader {
    asking: Mutex<Asking>,
    clock: MachineClock,
    cluster: ClusterId,
    cluster_key: ClusterKey,
    /// A server that has answered.
    cluster_addr: SocketAddr,
    key: DeviceKey,
    profile: Name,
    installation: PathBuf,
    timeout: Duration,
    consistency: Consistency,
}

#[derive(Debug)]
struct Asking {
    socket: BoundSocket,
    clients: HandshakeClients,
    entropy: Entropy,
    token: Token,
    /// Of the last answers, the latest at the back.
    round_trips: Vec<Duration>,
    /// The greatest age of the answers so far.
    age: Option<Age>,
    /// The server of the last answer.
    answered_by: Option<SocketAddr>,
}

impl Reader {
    /// Finds the servers, as [`Client::connect`](super::Client::connect) does, and reads the installation's
    /// key. No session is opened, so it takes one round trip.
    ///
    /// # Errors
    /// [`ClientError`]: no server answers in time, the cluster is not trusted, or the profile has no key here
    /// ([`ClientError::NotClaimed`]).
    pub fn open(options: Options) -> Result<Reader, ClientError> {
        let Options { profile, servers, state, timeout, trust, .. } = options;
        let Meeting { cluster_identity, begun, .. } = probe::meet(&servers, timeout, &trust)?;
        let Begun { clock, socket, handshakes } = begun;
        let (cluster, cluster_key) = (cluster_identity.cluster, cluster_identity.key);
        let installation = store::installation(&state, cluster, &profile);
        let private = store::existing_key(&installation, cluster, &profile).map_err(|error| match error {
            StoreError::NoKey { cluster, profile } => ClientError::NotClaimed { profile, cluster },
            error => error.into(),
        })?;
        let key = DeviceKey(noise::public(&private));
        let identity = Identity { cluster, cluster_key: cluster_key.0, private };
        let places = trust.places(&servers)?;
        let clients =
            HandshakeClients::resuming(handshakes, &places, identity, Entropy::new(random::bytes()?));
        let asking = Asking {
            socket,
            clients,
            entropy: Entropy::new(random::bytes()?),
            token: Token::open(&installation)?,
            round_trips: Vec::new(),
            age: None,
            answered_by: None,
        };
        Ok(Reader {
            asking: Mutex::new(asking),
            clock,
            cluster,
            cluster_key,
            cluster_addr: cluster_identity.addr,
            key,
            profile,
            installation,
            timeout,
            consistency: Consistency::default(),
        })
    }

    /// Sets how late answers have to be; [`Consistency::Session`] by default.
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> Reader {
        self.consistency = consistency;
        self
    }

    /// Sets how long to wait for an answer from now on, in place of [`Options::timeout`].
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The cluster that is asked.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The key that this cluster has proved to hold.
    pub fn cluster_key(&self) -> ClusterKey {
        self.cluster_key
    }

    /// The profile that asks.
    pub fn profile(&self) -> &Name {
        &self.profile
    }

    /// The installation's key.
    pub fn key(&self) -> DeviceKey {
        self.key
    }

    /// The directory of the installation's files.
    pub fn installation(&self) -> &Path {
        &self.installation
    }

    /// The greatest age of the answers so far; none if all came from a primary that served. What was
    /// acknowledged in that time may be missing in them.
    pub fn age(&self) -> Option<Age> {
        self.asking.lock().age
    }

    /// The server that gave the last answer.
    pub fn answered_by(&self) -> Option<SocketAddr> {
        self.asking.lock().answered_by
    }

    /// The time by the clock of a server, in ms since 1970.
    ///
    /// # Errors
    /// [`ClientError`]: there was no answer in time.
    pub fn servers_ms(&self) -> Result<u64, ClientError> {
        let answer = self.exchange(&Query::Status { server: self.cluster_addr })?;
        let clock = answer.options.get(OptionalFields::WALL_CLOCK).and_then(|bytes| bytes.try_into().ok());
        clock.map(u64::from_be_bytes).ok_or(ClientError::Timeout(self.timeout))
    }

    fn exchange(&self, query: &Query) -> Result<packet::Answer, ClientError> {
        let mut asking = self.asking.lock();
        let Asking { socket, clients, entropy, token, round_trips, age, answered_by } = &mut *asking;
        let now = self.clock.now();
        let (id, seen) = (QueryId(entropy.number()), token.op());
        let query = reading::asked(query.packet(id), &self.profile, seen, self.consistency);
        let reading = Reading::new(clients, query, hedge(round_trips), now);
        let mut exchange = Exchange { reading, clients };
        let until = now.since(Moment(0)) + self.timeout;
        handshake_query::run_on(&mut exchange, socket, self.clock, until)?;
        let (answer, of, from) = match exchange.reading.outcome() {
            Outcome::Answer { answer, age, from } => (*answer, age, from),
            Outcome::Refused(Code::NotYours) => {
                let key = store::key_path(&self.installation);
                return Err(ClientError::NotYours { profile: self.profile.clone(), key });
            }
            Outcome::Refused(Code::UnknownDevice) => {
                return Err(ClientError::NobodyHas { profile: self.profile.clone() });
            }
            Outcome::Refused(code) => return Err(ClientError::Refused(code)),
            Outcome::Behind(applied) => {
                return Err(ClientError::Behind { seen, applied, token: token.path().to_owned() });
            }
            Outcome::Silence => return Err(ClientError::Timeout(self.timeout)),
        };
        if round_trips.len() >= ROUND_TRIPS {
            round_trips.remove(0);
        }
        round_trips.push(self.clock.now().since(now));
        *age = older(*age, of);
        *answered_by = Some(from);
        let applied = answer.applied.op().ok_or(ClientError::Refused(Code::OtherEpoch))?;
        // A status is of any state.
        if !matches!(answer.kind, AnswerKind::Status(_)) {
            token.raise(applied);
        }
        Ok(answer)
    }
}

/// A query under way, and the handshakes that carry it.
struct Exchange<'a> {
    reading: Reading,
    clients: &'a mut HandshakeClients,
}

impl HandshakeQuery for Exchange<'_> {
    fn ask_every(&self) -> Duration {
        reading::HEDGE_LEAST
    }

    fn datagrams(&mut self, now: Moment) -> Vec<(SocketAddr, Vec<u8>)> {
        self.reading.datagrams(now, self.clients)
    }

    fn take(&mut self, now: Moment, from: SocketAddr, datagram: &[u8]) -> bool {
        self.reading.take(now, from, datagram, self.clients)
    }

    fn is_over(&self, now: Moment) -> bool {
        self.reading.is_over(now)
    }
}

impl Asks for Reader {
    fn ask(&self, query: Query) -> Result<Answer, ClientError> {
        let answer = self.exchange(&query)?;
        Answer::of(answer).ok_or(ClientError::Timeout(self.timeout))
    }

    fn patience(&self) -> Duration {
        self.timeout
    }
}

/// The 95th percentile of these round trips.
fn hedge(round_trips: &[Duration]) -> Duration {
    let mut sorted = round_trips.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() * 95 / 100).copied().unwrap_or_default()
}

/// The greater of two ages; unknown is the greatest.
fn older(one: Option<Age>, other: Option<Age>) -> Option<Age> {
    match (one, other) {
        (Some(Age::Heard(one)), Some(Age::Heard(other))) => Some(Age::Heard(one.max(other))),
        (Some(Age::Unknown), _) | (_, Some(Age::Unknown)) => Some(Age::Unknown),
        (one, other) => one.or(other),
    }
}
