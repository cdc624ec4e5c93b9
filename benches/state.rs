//! What the replicated state costs: `cargo bench --bench state` prints the time to apply a SEND, to find whom
//! it is for, and the memory of a notification, of a profile, and of a session at the primary.
//!
//! A plain program without a benchmark library. Times are of the fastest of several rounds, the least
//! disturbed one. Memory is what was asked of the allocator, and 16 bytes for each piece, as glibc's takes at
//! most. `cargo test` runs it with few sends and sessions.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench ends where it fails")]
#![allow(clippy::disallowed_methods, reason = "the servers' clock counts microseconds, too few for this")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering};
use std::time::Instant;

use recado::config::{Cluster, Config, Limits, Member};
use recado::delivery::Input;
use recado::server::handshake::HandshakeConfig;
use recado::server::shard::{Shard, Told};
use recado_proto::codec;
use recado_proto::command::{Command, Request, SessionOpen, Stamped};
use recado_proto::envelope::{self, Class, Envelope, Header};
use recado_proto::id::{
    Admission, BootId, ClusterId, DeviceId, DeviceKey, Incarnation, Moment, Name, NodeId, Op, Seq, SessionId,
    Topic, View,
};
use recado_proto::packet::{Content, Coordinator, FollowChange, OptionalFields, ToServer};
use recado_proto::planted::PlantedBug;
use recado_proto::seal::{ClusterKeys, Direction};
use recado_service::{Applied, Service, State};

/// An allocator that counts what is allocated.
struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);

/// What an allocation takes beside its bytes.
const PIECE: isize = 16;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as isize + PIECE, Ordering::Relaxed);
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize + PIECE, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CLUSTER: ClusterId = ClusterId(7);
const ME: NodeId = NodeId(3);
const BOOT_ID: BootId = BootId([3; 16]);
/// The bytes of each notification's text.
const TEXT: usize = 200;
/// The topics that each profile follows.
const FOLLOWS: u64 = 5;

/// How much is measured.
#[derive(Clone, Copy)]
struct Sizes {
    /// Sends in a round.
    sends: u64,
    rounds: usize,
    /// The inboxes that are sent to.
    topics: u64,
    /// The devices, of which each has a profile and a session of its own.
    sessions: u64,
}

fn main() {
    // `cargo bench` alone passes it.
    let sizes = if std::env::args().any(|argument| argument == "--bench") {
        Sizes { sends: 10_000, rounds: 10, topics: 10_000, sessions: 10_000 }
    } else {
        Sizes { sends: 100, rounds: 2, topics: 50, sessions: 50 }
    };
    for topics in [1, sizes.topics] {
        sends(topics, sizes);
    }
    sessions(sizes.sessions);
}

/// The bytes that `work` leaves allocated, and its result.
fn left_by<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let before = LIVE.load(Ordering::Relaxed);
    let result = work();
    ((LIVE.load(Ordering::Relaxed) - before) as f64, result)
}

/// A service with the log of a bench.
struct Log {
    service: Service,
    out: Vec<Applied>,
}

impl Log {
    fn new() -> Log {
        let limits = Limits::default();
        Log { service: Service::new(State::default(), limits, PlantedBug::default()), out: Vec::new() }
    }

    /// Applies a command as a server does: from its bytes.
    fn apply(&mut self, command: Command) -> Op {
        let op = self.service.applied().next();
        let stamped = Stamped { unix_ms: 1_800_000_000_000 + op.0, command };
        self.apply_bytes(&codec::encode(&stamped));
        op
    }

    fn apply_bytes(&mut self, bytes: &[u8]) {
        let stamped: Stamped = codec::decode(bytes).unwrap();
        self.out.clear();
        self.service.apply(self.service.applied().next(), Some(&stamped), &mut self.out);
    }

    /// Claims a profile and opens a session of its first device.
    fn session(&mut self, number: u64) -> SessionId {
        let open = SessionOpen {
            device: device(number),
            profile: profile(number),
            receives: true,
            nonce: number,
            fresh: true,
            code: None,
            invite: None,
            admission: Admission::Open,
            aead: Default::default(),
            options: OptionalFields::NONE,
        };
        let session = SessionId(self.apply(Command::SessionOpen(open)));
        self.apply(Command::SessionConfirm { session });
        session
    }

    fn request(&mut self, session: SessionId, seq: u64, request: Request) {
        self.apply(asked(session, seq, request));
        let answered = |one: &Applied| matches!(one, Applied::Answered { result: Ok(_), .. });
        assert!(self.out.iter().any(answered), "{:?}", self.out);
    }
}

fn asked(session: SessionId, seq: u64, request: Request) -> Command {
    let (answered_below, digest, may_make) = (Seq(seq), seq, true);
    Command::Request {
        session,
        seq: Seq(seq),
        answered_below,
        request,
        digest,
        may_make,
        options: OptionalFields::NONE,
    }
}

fn device(number: u64) -> DeviceId {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    DeviceId { key: DeviceKey(key), slot: 0 }
}

fn profile(number: u64) -> Name {
    format!("profile-{number}").parse().unwrap()
}

/// The time and memory of sends to so many inboxes in turn; if it is one, to the sender's feed.
fn sends(topics: u64, sizes: Sizes) {
    let mut log = Log::new();
    let session = log.session(0);
    (1..=topics).for_each(|number| {
        log.session(number);
    });
    let topic = |number| match topics {
        1 => Topic::Feed(profile(0)),
        _ => Topic::Inbox(profile(1 + number)),
    };
    let send = |to| Request::Send { topic: topic(to), content: Content::of("x".repeat(TEXT)) };
    let mut seq = 0;
    let (mut fastest, mut decoding) = (f64::INFINITY, f64::INFINITY);
    let (mut bytes, mut allocations) = (0.0, 0);
    for _ in 0..sizes.rounds {
        let mut entries = Vec::new();
        for _ in 0..sizes.sends {
            seq += 1;
            let command = asked(session, seq, send(seq % topics));
            entries.push(codec::encode(&Stamped { unix_ms: 1_800_000_000_000 + seq, command }));
        }
        let began = Instant::now();
        entries.iter().for_each(|entry| drop(codec::decode::<Stamped>(entry).unwrap()));
        decoding = decoding.min(began.elapsed().as_nanos() as f64 / sizes.sends as f64);
        let allocated = COUNT.load(Ordering::Relaxed);
        let (left, took) = left_by(|| {
            let began = Instant::now();
            entries.iter().for_each(|entry| log.apply_bytes(entry));
            began.elapsed()
        });
        fastest = fastest.min(took.as_nanos() as f64 / sizes.sends as f64);
        allocations = COUNT.load(Ordering::Relaxed) - allocated;
        // The last round makes no topic, and no list grows for the first time.
        bytes = left / sizes.sends as f64;
    }
    let answered = |one: &Applied| matches!(one, Applied::Answered { result: Ok(_), .. });
    assert!(log.out.iter().any(answered), "{:?}", log.out);
    println!(
        "a SEND of {TEXT} B to one of {topics} topics: {fastest:.0} ns to decode ({decoding:.0}) and apply, {bytes:.0} B \
         held, {:.1} allocations",
        allocations as f64 / sizes.sends as f64
    );
}

/// The memory of sessions that only listen, at their primary, and the time to find those of a topic.
fn sessions(count: u64) {
    let mut log = Log::new();
    log.session(0);
    let (state, ids) = left_by(|| (1..=count).map(|number| log.session(number)).collect::<Vec<_>>());
    let (follows, ()) = left_by(|| {
        for (number, session) in (1..).zip(&ids) {
            for seq in 1..=FOLLOWS {
                // The first is followed by all, and the others by a few each.
                let feed = if seq == 1 { 0 } else { 1 + (number + seq * count / 10) % count };
                let topic = Topic::Feed(profile(feed));
                log.request(*session, seq, Request::Follow { topic, change: FollowChange::Add });
            }
        }
    });
    let sessions = count as f64;
    println!("a profile with a device and a session: {:.0} B in the state", state / sessions);
    println!("{FOLLOWS} follows of it: {:.0} B", follows / sessions);

    let began = Instant::now();
    let found = log.service.addressed(&Topic::Feed(profile(0))).len() as f64;
    let each = began.elapsed().as_nanos() as f64 / found;
    println!("to find the sessions of a topic that {found} follow: {each:.0} ns each");

    let (served, _shard) = left_by(|| serve(&ids));
    println!("a session that is served and idle: {:.0} B in its shard", served / sessions);
}

/// A shard that serves these sessions.
fn serve(ids: &[SessionId]) -> Shard {
    let member =
        Member { id: ME, client: "127.0.0.1:1".parse().unwrap(), peer: "127.0.0.1:2".parse().unwrap() };
    let config = Config::default_for(Cluster { id: CLUSTER, me: ME, members: vec![member] });
    let keys = ClusterKeys::new(&[0x5e; 32]);
    let handshakes = HandshakeConfig {
        cluster: CLUSTER,
        me: ME,
        incarnation: Incarnation(1),
        boot_id: BOOT_ID,
        keys: keys.clone(),
        limits: config.limits,
    };
    let mut shard = Shard::new(&config, &handshakes, 1, [1; 32]);
    let (now, mut out) = (Moment(1_000_000), Vec::new());
    let coordinator = Coordinator::new(View::new(1, ME), Vec::new());
    shard.tell(now, Told::Delivery(Input::Announce(coordinator)), &mut out);
    for (number, session) in (1..).zip(ids) {
        let device = device(number).key;
        shard.tell(
            now,
            Told::Known { session: *session, device, nonce: number, aead: Default::default() },
            &mut out,
        );
        let secret = keys.session_secret(*session, device, number, Default::default());
        let envelope = Envelope {
            class: Class::Client,
            cluster: CLUSTER,
            session: *session,
            node: None,
            incarnation: Incarnation(0),
            number: 1,
        };
        let mut keys = secret.of_session(Direction::ToServer, ME, BOOT_ID);
        let packets = [codec::encode(&ToServer::Ping)];
        let datagram = envelope::seal(&mut keys, &envelope, &Header::default(), &packets);
        let from = SocketAddr::from(([127, (number >> 16) as u8, (number >> 8) as u8, number as u8], 4_000));
        shard.receive(now, from, &datagram, &mut |_, _| true, &mut out).unwrap();
        let serve = Input::Serve { session: *session, cursor: Op::ZERO, credit: Some(256) };
        shard.tell(now, Told::Delivery(serve), &mut out);
        let page = recado_service::Page::default();
        shard.flush(now, &mut out);
        let page = Input::Page { session: *session, after: Op::ZERO, page };
        shard.tell(now, Told::Delivery(page), &mut out);
        shard.flush(now, &mut out);
        out.clear();
    }
    shard
}
