//! Snapshots: when one is written and what is in it, and what a stored or received one must be.
//!
//! Nothing here changes the log or the service, and nothing knows how a snapshot is stored or sent.

use recado_log::ordered::OrderedLog;
use recado_proto::codec::{self, Undecoded};
use recado_proto::command::Stamped;
use recado_proto::id::{Clock, ClusterId, Epoch, Incarnation, Moment, Op, View, millis};
use recado_proto::members::{Member, Members, default_tie_holder};
use recado_service::{Service, State};

use crate::config::{self, Cluster, Config, Planted};

/// How many times [`Config::snapshot_bytes`] the log since the last snapshot may become outside the server's
/// turn. At that length another is begun all the same: the log stays bounded, whatever the clock says.
const LOG_FACTOR_OUTSIDE: u64 = 2;
/// The same while a peer reads a stored one, whatever it asks.
const LOG_FACTOR_READ: u64 = 4;

/// The content of a snapshot. The codec encodes it whole.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Image {
    /// The format of what follows: [`Image::FORMAT`]. It is read before anything else, so that another format
    /// is known as such.
    pub format: u16,
    /// The cluster.
    pub cluster: ClusterId,
    /// The op of the entry that named the members; zero: the configuration named them.
    pub members_op: Op,
    /// Its members, with the epoch of the log.
    pub members: Members,
    /// The last op applied.
    pub op: Op,
    /// That op's view.
    pub view: View,
    /// The service's state at `op`.
    pub state: State,
}

impl Image {
    /// The format that this version writes, and the only one that it reads. Any change of the fields of what
    /// is in an image needs another one, and so does a new kind of entries that leaves something in it.
    pub const FORMAT: u16 = 3;

    /// The image of what is applied now; none if the log has lost the view of the last op.
    fn of(config: &Config, log: &impl OrderedLog, service: &Service) -> Option<Image> {
        let mut op = service.applied();
        let mut state = service.state();
        if config.planted.is(Planted::SnapshotUncommitted) {
            (op, state) = uncommitted_state(config, log, op, state);
        }
        if config.planted.is(Planted::ResultsNotInSnapshot) {
            state = state.without_results();
        }
        let view = log.entry(op)?.view;
        let (format, cluster, members) = (Image::FORMAT, config.cluster.id, members(config));
        Some(Image { format, cluster, members_op: Op::ZERO, members, op, view, state })
    }

    /// Returns true if the snapshot is of this cluster with these members, in the first epoch. The addresses
    /// may differ, because each server's configuration names its own.
    fn is_of(&self, config: &Config) -> bool {
        let Members { list, tie_holder, epoch } = &self.members;
        let ids = || config.cluster.members.iter().map(|member| member.id);
        (self.cluster, self.members_op, *epoch) == (config.cluster.id, Op::ZERO, Epoch::FIRST)
            && list.iter().map(|member| member.id).eq(ids())
            && *tie_holder == default_tie_holder(ids())
    }
}

/// The members that the configuration names.
pub(super) fn members(config: &Config) -> Members {
    let joined = Incarnation(0);
    let list = config.cluster.members.iter().map(|config::Member { id, client, peer }| Member {
        id: *id,
        client: *client,
        peer: *peer,
        joined,
        role: 0,
    });
    let tie_holder = default_tie_holder(config.cluster.members.iter().map(|member| member.id));
    Members { list: list.collect(), tie_holder, epoch: Epoch::FIRST }
}

/// Planted bug: the state of a snapshot that includes uncommitted entries.
fn uncommitted_state(config: &Config, log: &impl OrderedLog, mut op: Op, state: State) -> (Op, State) {
    let mut ahead = Service::new(state, config.limits, config.planted);
    while let Some(entry) = log.entry(op.next()) {
        op = entry.op;
        let stamped: Option<Stamped> = codec::decode(&entry.payload).ok();
        ahead.apply(op, stamped.as_ref(), &mut Vec::new());
    }
    (op, ahead.state())
}

/// Reason why a snapshot is not taken. Our fault or the operator's; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Another version of the program has written the snapshot.
    #[error(
        "the snapshot at op {op} has format {found}, and this recadod reads format {reads}: run the recadod that wrote it",
        reads = Image::FORMAT
    )]
    OtherFormat {
        /// The snapshot's op.
        op: Op,
        /// Its format.
        found: u16,
    },
    /// The snapshot's checksum holds, but its content is not readable.
    #[error("the snapshot at op {0} is not readable: {1}")]
    Unreadable(Op, recado_proto::DecodeError),
    /// The snapshot is of another cluster or other members, or of an epoch or a list of members that this
    /// program does not follow.
    #[error(
        "the snapshot at op {0} is of another cluster, or of other members than the configuration names; is this the \
         right directory?"
    )]
    Foreign(Op),
    /// The snapshot holds the state of another op or view than its file says: our fault.
    #[error("the snapshot at op {0} holds another state than that of its op and view")]
    OtherState(Op),
}

/// The service of an empty log.
pub fn empty(config: &Config) -> Service {
    Service::new(State::default(), config.limits, config.planted)
}

/// Checks the format of a snapshot at `op` that begins with `start`.
///
/// # Errors
/// [`SnapshotError::OtherFormat`], or [`SnapshotError::Unreadable`], which more bytes may mend.
pub(super) fn check_format(op: Op, start: &[u8]) -> Result<(), SnapshotError> {
    match codec::decode_snapshot_start(start) {
        Ok(Image::FORMAT) => Ok(()),
        Ok(found) => Err(SnapshotError::OtherFormat { op, found }),
        Err(error) => Err(SnapshotError::Unreadable(op, error)),
    }
}

/// The service of a snapshot that is to be that of this op and view: the one that a server starts on, or one
/// that another server sent. It has `length` bytes, the checksum of which is right. `give` puts the next of
/// them into an empty buffer, and leaves it empty after the last ones, so that nobody holds all of them
/// beside the state. It takes long if the state is large: no node waits for it.
///
/// # Errors
/// That of `give`.
pub fn open_in_pieces<E>(
    config: &Config,
    (op, view): (Op, View),
    length: u64,
    mut give: impl FnMut(&mut Vec<u8>) -> Result<(), E>,
) -> Result<Result<Service, SnapshotError>, E> {
    let mut start = Vec::new();
    give(&mut start)?;
    if let Err(error) = check_format(op, &start) {
        return Ok(Err(error));
    }
    let decoded = codec::decode_snapshot_in_pieces(length, |piece| {
        // The first piece once, then the others.
        std::mem::swap(piece, &mut start);
        if piece.is_empty() { give(piece) } else { Ok(()) }
    });
    match decoded {
        Ok(image) => Ok(service_of(config, op, view, image)),
        Err(Undecoded::Refused(error)) => Ok(Err(SnapshotError::Unreadable(op, error))),
        Err(Undecoded::NotGiven(error)) => Err(error),
    }
}

/// The service of a decoded snapshot that is to be that of this op and view.
fn service_of(config: &Config, op: Op, view: View, image: Image) -> Result<Service, SnapshotError> {
    image.members.check().map_err(|error| SnapshotError::Unreadable(op, error))?;
    if !image.is_of(config) {
        return Err(SnapshotError::Foreign(op));
    }
    let service = Service::new(image.state, config.limits, config.planted);
    if (image.op, image.view, service.applied()) != (op, view, op) {
        return Err(SnapshotError::OtherState(op));
    }
    Ok(service)
}

/// What was written last, and what is being written.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// The op of the newest durable snapshot.
    newest: Op,
    /// The server's turn in which the last snapshot was begun, or in which the server started.
    turn: Option<u64>,
    /// Bytes that the log had taken when the last snapshot was begun.
    bytes: u64,
    /// True while one is being written.
    busy: bool,
}

impl Snapshots {
    /// The snapshots of a server that starts now with this newest one.
    pub(super) fn new(clock: Clock, config: &Config, newest: Op) -> Snapshots {
        Snapshots { newest, turn: own_turn(clock, config), bytes: 0, busy: false }
    }

    /// Begins a snapshot if one is due, if there is anything new and no other is being written. One is due
    /// when a turn of this server begins, and when the log since the last one is long.
    ///
    /// Outside its turn the server lets the log become [`LOG_FACTOR_OUTSIDE`] times as long: the servers
    /// apply the same log, and would otherwise write all at once. While a peer reads a stored snapshot, none
    /// is begun before the log is [`LOG_FACTOR_READ`] times as long. Each new one brings the removal of the
    /// one being read nearer, and of the log that the peer needs after it; a large one would never arrive.
    pub(super) fn begin(
        &mut self,
        clock: Clock,
        config: &Config,
        log: &impl OrderedLog,
        service: &Service,
    ) -> Option<Image> {
        let status = log.status();
        let turn = own_turn(clock, config);
        let (turn_begins, factor) = match turn {
            _ if is_fetched(status.fetched, clock.now, config) => (false, LOG_FACTOR_READ),
            Some(_) => (turn != self.turn, 1),
            None => (false, LOG_FACTOR_OUTSIDE),
        };
        let since_last = status.appended_bytes - self.bytes;
        let due = turn_begins || since_last >= config.snapshot_bytes.saturating_mul(factor);
        if !due || self.busy || service.applied() <= self.newest {
            return None;
        }
        self.turn = turn.or(self.turn);
        self.bytes = status.appended_bytes;
        let image = Image::of(config, log, service)?;
        self.busy = true;
        Some(image)
    }

    /// Records that the snapshot being written is durable. Returns the op of the one before it: the log
    /// after that is kept, so that a peer a little behind needs no snapshot.
    pub(super) fn on_done(&mut self, op: Op) -> Op {
        self.busy = false;
        let before = self.newest;
        self.newest = before.max(op);
        before
    }

    /// Records that a peer's snapshot has replaced the log, which has taken this many bytes.
    pub(super) fn on_installed(&mut self, op: Op, bytes: u64) {
        self.newest = op;
        self.bytes = bytes;
    }
}

/// The number of the turn that is under way, if it is this server's. In each [`Config::snapshot_every`] of
/// the wall clock every member has one turn, in the order of the members.
pub(super) fn own_turn(clock: Clock, config: &Config) -> Option<u64> {
    let Cluster { me, members, .. } = &config.cluster;
    let place = members.iter().position(|member| member.id == *me)? as u64;
    let (every, count) = (millis(config.snapshot_every), members.len() as u64);
    let turn = clock.unix_ms / (every / count).max(1);
    (turn % count == place).then_some(turn)
}

/// Returns true if a peer reads a stored snapshot, a piece of which was last read for one at `fetched`. A
/// receiver without progress for longer than this takes another snapshot.
fn is_fetched(fetched: Option<Moment>, now: Moment, config: &Config) -> bool {
    fetched.is_some_and(|fetched| now.since(fetched) <= config.timing.coordinator * 2)
}
