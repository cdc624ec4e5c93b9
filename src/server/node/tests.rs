//! Tests of a node whose clients, and what surrounds its log, the tests play. Most of them run over each log:
//! over the bully engine with its journal and peers, and over a vector.

/// Makes the named tests run over each log.
macro_rules! over_each_log {
    ($($test:ident,)*) => {
        mod over_the_bully_engine {
            $(#[test] fn $test() { super::$test::<super::Peers>() })*
        }
        mod over_a_vector {
            $(#[test] fn $test() { super::$test::<super::Alone>() })*
        }
    };
}

mod admin;
mod admission;
mod backlog;
mod charges;
mod forged;
mod housekeeping;
mod log_clock;
mod long_start;
mod members;
mod peers;
mod queries;
mod reserved;
mod retraction;
mod snapshots;
mod store;
mod unreliable_log;
mod vector_log;

use std::collections::BTreeMap;
use std::time::Duration;

use recado_proto::entry::{Entry, EntryKind};
use recado_proto::id::{ClusterId, DeviceId, DeviceKey, NodeId, SessionId};
use recado_proto::noise::{self, OPENING_LEN};
use recado_proto::packet::*;
use recado_proto::seal::Key;

use super::*;
use crate::config::{Cluster, Limits, Member, Preempt, Retention, Timing};
use crate::delivery::ReplyTo;
use crate::server::handshake::tests::handshake_config;

use members::Peers;
use vector_log::Alone;

const ME: NodeId = NodeId(2);

const RESUME: ToServer = ToServer::Resume(Resume {
    cursor: None,
    credit: 256,
    home: Home::PRIMARY,
    options: OptionalFields::NONE,
});

fn config() -> Config {
    let member = |id: u16| Member {
        id: NodeId(id),
        client: ([127, 0, 0, 1], 10_000 + id).into(),
        peer: ([127, 0, 0, 1], 11_000 + id).into(),
    };
    Config {
        cluster: Cluster { id: ClusterId(7), me: ME, members: (1..=3).map(member).collect() },
        timing: Timing::DEFAULT,
        preempt: Preempt::Graceful,
        limits: Limits::default(),
        retention: Retention::default(),
        admission: Default::default(),
        snapshot_every: Duration::from_secs(60),
        snapshot_bytes: 64 << 20,
        planted: Default::default(),
    }
}

/// An encoded command of this many bytes, at least 300. It changes nothing, because its session is unknown.
fn command_of(bytes: usize) -> std::sync::Arc<[u8]> {
    let with_body = |bytes: usize| {
        let body = "x".repeat(bytes);
        let content = Content::of(body);
        let topic = recado_proto::id::Topic::Channel("ops".parse().unwrap());
        let request = recado_proto::command::Request::Send { topic, content };
        let first = recado_proto::id::Seq(1);
        let (session, seq, answered_below) = (SessionId::default(), first, first);
        let (digest, may_make) = (0, false);
        let command = Command::Request {
            session,
            seq,
            answered_below,
            request,
            digest,
            may_make,
            options: OptionalFields::NONE,
        };
        codec::encode(&Stamped { unix_ms: 1, command })
    };
    let command = with_body(2 * bytes - with_body(bytes).len());
    assert_eq!(command.len(), bytes);
    command.into()
}

/// The sender of an INITIATION.
fn reply_to() -> ReplyTo {
    let reply = noise::Reply { opening: [0; OPENING_LEN], key: Key::new([0; 32]) };
    ReplyTo { to: ([127, 0, 0, 9], 4_000).into(), reply }
}

/// The session and the query of an answer that the delivery sends until it is acknowledged.
fn answered(input: &delivery::Input) -> Option<(SessionId, QueryId)> {
    let delivery::Input::Answer { session, packet } = input else { return None };
    match packet {
        ToClient::Answer(answer) if answer.is_tracked() => Some((*session, answer.id)),
        _ => None,
    }
}

/// The state of a peer's snapshot, which is read in small pieces.
fn open_whole(config: &Config, op: Op, view: View, bytes: &[u8]) -> Result<Service, SnapshotError> {
    let mut pieces = bytes.chunks(100);
    let opened =
        open_in_pieces::<std::convert::Infallible>(config, (op, view), bytes.len() as u64, |piece| {
            piece.extend_from_slice(pieces.next().unwrap_or_default());
            Ok(())
        });
    opened.unwrap_or_else(|never| match never {})
}

/// What surrounds the log of a server in a test.
trait Surroundings: Sized {
    type Log: OrderedLog;

    /// A server that has just started.
    fn rig() -> Rig<Self>;

    /// Performs an effect of the log. Returns the input that follows from it.
    fn perform(&mut self, clock: Clock, effect: LogEffect<Self>) -> Option<LogInput<Self>>;

    /// The snapshot of a peer that is whole with this effect: its transfer, op, view and bytes.
    fn whole(&mut self, _effect: &LogEffect<Self>) -> Option<(u64, Op, View, Vec<u8>)> {
        None
    }

    /// Makes the server primary.
    fn lead(rig: &mut Rig<Self>);

    /// Gives the log what it waits for.
    fn answer(rig: &mut Rig<Self>);
}

type LogInput<S> = <<S as Surroundings>::Log as OrderedLog>::Input;
type LogEffect<S> = <<S as Surroundings>::Log as OrderedLog>::Effect;

/// A server whose snapshots are durable at once, and whose clients acknowledge each answer to a query at
/// once, unless `awaits_acks` is set.
struct Rig<S: Surroundings> {
    node: Node<S::Log>,
    around: S,
    clock: Clock,
    awaits_acks: bool,
    snapshots: usize,
    delivered: Vec<delivery::Input>,
    /// Sessions whose clients may send.
    known: std::collections::BTreeSet<SessionId>,
    administered: Vec<(AdminChange, Op)>,
    /// Reported differences of the wall clock from the log's time.
    away: Vec<i64>,
    dropping: Vec<Dropping>,
    beyond: Vec<(SessionId, Op, Op)>,
    failed: Vec<UnreadableEntry>,
    refused: Vec<SnapshotError>,
    /// The number of states that are not used any more.
    discarded: usize,
}

impl<S: Surroundings> Rig<S> {
    /// The clock of a server that has just started.
    const START: Clock = Clock { now: Moment(1_000_000), unix_ms: 1 };

    /// A primary.
    fn leading() -> Rig<S> {
        let mut rig = S::rig();
        S::lead(&mut rig);
        rig
    }

    fn around(node: Node<S::Log>, around: S, effects: Vec<Effect<LogEffect<S>>>) -> Rig<S> {
        let (delivered, known, administered, away, beyond, failed, refused) = Default::default();
        let (clock, awaits_acks, snapshots) = (Self::START, false, 0);
        let mut rig = Rig {
            node,
            around,
            clock,
            awaits_acks,
            snapshots,
            delivered,
            known,
            administered,
            away,
            beyond,
            failed,
            refused,
            dropping: Vec::new(),
            discarded: 0,
        };
        rig.note(effects);
        let mut out = Vec::new();
        rig.node.apply(Self::START, &mut out);
        rig.note(out);
        rig
    }

    fn note(&mut self, effects: Vec<Effect<LogEffect<S>>>) {
        let mut waiting = std::collections::VecDeque::from(effects);
        while let Some(effect) = waiting.pop_front() {
            let mut out = Vec::new();
            match effect {
                Effect::Log(effect) => {
                    if let Some((transfer, op, view, bytes)) = S::whole(&mut self.around, &effect) {
                        let opened = open_whole(&self.node.config, op, view, &bytes);
                        let input = Input::SnapshotOpened { transfer, opened: opened.map(Box::new) };
                        self.node.handle(self.clock, input, &mut out);
                    }
                    if let Some(input) = self.around.perform(self.clock, effect) {
                        self.node.handle(self.clock, Input::Log(input), &mut out);
                        self.node.apply(self.clock, &mut out);
                    }
                }
                Effect::Snapshot(image) => {
                    self.snapshots += 1;
                    self.node.handle(self.clock, Input::SnapshotDone(image.op), &mut out);
                }
                Effect::Delivery(input) => {
                    if let Some((session, query)) = answered(&input).filter(|_| !self.awaits_acks) {
                        let done = Input::AnswerDone { session, query };
                        self.node.handle(self.clock, done, &mut out);
                    }
                    self.delivered.push(input);
                }
                Effect::SessionKnown { session, .. } => {
                    self.known.insert(session);
                }
                Effect::SessionGone(session) => assert!(self.known.remove(&session), "it was known"),
                Effect::Administered { change, op } => self.administered.push((change, op)),
                Effect::ClockAway(ms) => self.away.push(ms),
                Effect::Dropping(dropping) => self.dropping.push(dropping),
                Effect::BeyondEnd { session, cursor, applied } => {
                    self.beyond.push((session, cursor, applied));
                }
                Effect::SnapshotRefused(error) => self.refused.push(error),
                Effect::Discard(_) => self.discarded += 1,
                Effect::Stopped => {}
                Effect::Failed(entry) => self.failed.push(entry),
            }
            waiting.extend(out);
        }
    }

    fn input(&mut self, input: Input<LogInput<S>>) {
        let mut out = Vec::new();
        self.node.handle(self.clock, input, &mut out);
        self.node.apply(self.clock, &mut out);
        self.note(out);
    }

    /// The last op logged.
    fn last(&self) -> Op {
        self.node.log.status().last
    }

    fn flush(&mut self) {
        let mut out = Vec::new();
        self.node.flush(self.clock, &mut out);
        self.node.apply(self.clock, &mut out);
        self.note(out);
    }

    /// A client sends a packet on its session, or with session zero in a handshake, with the key that the
    /// packet names.
    fn client(&mut self, session: u64, packet: ToServer) {
        let key = match &packet {
            ToServer::Connect(connect) => connect.device.key,
            _ => DeviceKey([0; 32]),
        };
        match session {
            0 => self.input(Input::Initiation { reply_to: reply_to(), key, packet }),
            _ => self.input(Input::Client { session: SessionId(Op(session)), packet }),
        }
    }

    /// Advances time. The test fails if the server is due again and again at the same moment.
    fn pass(&mut self, time: Duration) {
        let end = self.clock.now + time;
        let mut turns = 0_u64;
        while let Some(at) = self.node.next_deadline().filter(|at| *at <= end) {
            turns += 1;
            assert!(turns < 10 + time.as_millis() as u64, "{turns} turns in {time:?}: it spins");
            self.clock.now = at.max(self.clock.now);
            self.clock.unix_ms += 1;
            self.input(Input::Deadline);
            self.flush();
        }
        self.clock.now = end;
    }

    /// Advances time while the log gets what it waits for.
    fn live(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(5) {
            self.pass(Duration::from_millis(5));
            S::answer(self);
        }
    }

    /// Opens a session that is confirmed and served.
    fn connect(&mut self, n: u8, profile: &str) -> SessionId {
        let session = self.initiation(n, n.into(), profile);
        self.client(session.0.0, RESUME);
        self.live(100);
        assert!(self.resumed(session), "it is served");
        session
    }

    fn resumed(&self, session: SessionId) -> bool {
        self.delivered.iter().any(|input| match input {
            delivery::Input::Answer { session: of, packet: ToClient::ResumeOk(_) } => *of == session,
            _ => false,
        })
    }

    /// Opens a pending session.
    fn initiation(&mut self, n: u8, nonce: u64, profile: &str) -> SessionId {
        self.delivered.clear();
        self.client(
            0,
            ToServer::Connect(Connect {
                device: DeviceId { key: DeviceKey([n; 32]), slot: 0 },
                profile: profile.parse().unwrap(),
                receives: true,
                nonce,
                fresh: true,
                code: None,
                invite: None,
                aeads: 0,
                options: OptionalFields::NONE,
            }),
        );
        self.live(100);
        let accepted = self.delivered.iter().find_map(|input| match input {
            delivery::Input::AnswerTo { packets, .. } => match &packets[..] {
                [ToClient::AcceptConn(accept)] => Some(accept.session),
                _ => None,
            },
            _ => None,
        });
        accepted.expect("it is let in")
    }
}
