//! Samples of every packet and command, with every variant of every enum inside them.

use std::net::SocketAddr;
use std::sync::Arc;

use recado_proto::command::{Claim, Command, Request, SessionOpen};
use recado_proto::entry::{Entry, EntryKind, Unknown};
use recado_proto::id::{
    Admission, DeviceId, DeviceKey, Incarnation, Name, NodeId, Op, Priority, Seq, SessionId, Topic, View,
};
use recado_proto::packet::*;
use recado_proto::seal::Key;

/// Lists every variant once, so that a new variant without a sample does not compile or fails a test.
macro_rules! kinds {
    ($kinds:ident, $kind:ident, $of:ident: $($variant:ident)*) => {
        pub(crate) const $kinds: &[&str] = &[$(stringify!($variant)),*];
        pub(crate) fn $kind(value: &$of) -> &'static str {
            match value {
                $($of::$variant { .. } => stringify!($variant),)*
            }
        }
    };
}

kinds!(PACKETS, packet_kind, Packet:
    Connect Disconnect AcceptConn RejectConn Follow Send Notification Error Info RequestUserInfo
    Heartbeat Election Reply Coordinator SendAck ClientAck Entries EntriesAck Fetch SnapshotGet
    SnapshotChunk Resume ResumeOk Transfer Status StatusOk History List Fragment Keepalive HistoryOk
    ListOk Gap Learn LearnOk PathChallenge PathResponse Padding Channel Keys Admin AdminOk Ping);

kinds!(COMMANDS, command_kind, Command:
    SessionOpen SessionClose Request Cursors Trim SessionConfirm SessionLapse Administer
    Expire);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn topics() -> [Topic; 3] {
    [Topic::Feed(name("alice")), Topic::Channel(name("ops")), Topic::Inbox(name("bob"))]
}

fn device() -> DeviceId {
    DeviceId { key: DeviceKey([0xd7; 32]), slot: 3 }
}

fn content() -> Content {
    Content {
        title: Some("Título".into()),
        priority: Priority::try_from(5).unwrap(),
        tags: vec!["disk".into(), "sda".into()],
        body: "nearly full".into(),
    }
}

fn plain() -> Content {
    Content { title: None, priority: Priority::default(), tags: vec![], body: String::new() }
}

fn notification(op: u64, topic: Topic) -> Arc<Notification> {
    Arc::new(Notification {
        op: Op(op),
        topic,
        author: name("carol"),
        unix_ms: 1_700_000_000_000 + op,
        content: if op.is_multiple_of(2) { content() } else { plain() },
    })
}

fn coordinator() -> Coordinator {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    Coordinator {
        view: View::new(7, NodeId(3)),
        members: vec![
            (NodeId(1), address("127.0.0.1:10097")),
            (NodeId(2), address("[2001:db8::1]:10098")),
            (NodeId(3), address("10.1.2.3:10099")),
        ],
    }
}

const CODES: [Code; 28] = [
    Code::Busy,
    Code::NoQuorum,
    Code::NotPrimary,
    Code::UnknownProfile,
    Code::UnknownChannel,
    Code::UnknownDevice,
    Code::SessionOver,
    Code::NotYours,
    Code::NotAllowed,
    Code::AlreadyFollowing,
    Code::NotFollowing,
    Code::Yourself,
    Code::TooLarge,
    Code::LimitReached,
    Code::TooFarAhead,
    Code::NameTaken,
    Code::NotMember,
    Code::LastOne,
    Code::WrongCode,
    Code::BeyondEnd,
    Code::ChannelDeleted,
    Code::NumberTaken,
    Code::NumberForgotten,
    Code::Fenced,
    Code::InviteNeeded,
    Code::WrongInvite,
    Code::KeyNotAllowed,
    Code::TooManyNames,
];

const ROLES: [RoleName; 5] =
    [RoleName::Backup, RoleName::Candidate, RoleName::Primary, RoleName::Isolated, RoleName::Learner];

fn status_ok(role: RoleName) -> Packet {
    Packet::StatusOk(StatusOk {
        query: QueryId(1),
        node: NodeId(2),
        role,
        view: View::new(7, NodeId(3)),
        applied: Op(1000),
        durable: Op(1002),
        lag: 2,
        pid: 4321,
        incarnation: Incarnation(5),
        uptime_ms: 65_536,
        members: coordinator().members,
        refused: RefusedDatagram::ALL.iter().zip(1..).map(|(reason, count)| (*reason, count)).collect(),
    })
}

fn heartbeat(state: HeartbeatState) -> Packet {
    Packet::Heartbeat(Heartbeat {
        view: View::new(7, NodeId(3)),
        state,
        commit: Op(10),
        last: Op(12),
        beat: 300,
        promised: View::new(8, NodeId(1)),
        leaving: true,
        incarnation: Incarnation(5),
        members: 0x0123_4567_89ab_cdef,
        disk_ms: 300,
    })
}

fn replies() -> Vec<Packet> {
    let view = View::new(8, NodeId(2));
    let promise = Promise {
        view,
        last_view: View::new(7, NodeId(3)),
        last_op: Op(12),
        commit: Op(10),
        index: vec![(View::new(1, NodeId(1)), Op(1)), (View::new(7, NodeId(3)), Op(9))],
        unknown: None,
        incarnations: vec![(NodeId(1), Incarnation(5)), (NodeId(3), Incarnation(300))],
        disk_ms: 2_000,
    };
    let unknown = Some(Unknown { first: Op(4), last: Op(6), view_max: View::new(1, NodeId(1)) });
    [
        Reply::Agree { view, disk_ms: 1 },
        Reply::Alive { view, disk_ms: 70_000 },
        Reply::Bully { view, disk_ms: 0 },
        Reply::Promise(promise.clone()),
        Reply::Promise(Promise { unknown, ..promise }),
        Reply::Refuse { promised: view },
        Reply::Writing { view, disk_ms: 150 },
    ]
    .map(Packet::Reply)
    .into()
}

fn entries(fetch: Option<QueryId>) -> Packet {
    let view = View::new(7, NodeId(3));
    Packet::Entries(Entries {
        view,
        fetch,
        prev_op: Op(8),
        prev_view: View::new(1, NodeId(1)),
        commit: Op(8),
        entries: vec![
            Entry { op: Op(9), view, kind: EntryKind::ViewStart, payload: Arc::new([]) },
            Entry { op: Op(10), view, kind: EntryKind::Command, payload: Arc::new([1, 2, 255]) },
            Entry { op: Op(11), view, kind: EntryKind::Members, payload: Arc::new([4, 5, 6]) },
        ],
    })
}

fn list_ok() -> Packet {
    let following = topics().map(|topic| ListItem::Following { topic, since: Op(5) });
    let mut items = Vec::from(following);
    items.push(ListItem::Profile { name: name("alice"), since: Op(2) });
    items.push(ListItem::Device {
        device: device(),
        cursor: Op(9),
        session: Some(SessionId(Op(7))),
        last_seen_ms: 1_700_000_000_000,
    });
    items.push(ListItem::Device { device: device(), cursor: Op(0), session: None, last_seen_ms: 0 });
    items.extend([Access::Open, Access::Owned, Access::Private].map(|access| ListItem::Channel {
        name: name("ops"),
        followers: 3,
        last_op: Op(300),
        access,
    }));
    for slots in [vec![0, 7], vec![]] {
        items.push(ListItem::Key { key: device().key, slots, last_seen_ms: 1_700_000_000_000 });
    }
    items.extend(ROLES_OF_MEMBERS.map(|role| ListItem::Member { name: name("bob"), role }));
    Packet::ListOk(ListOk { query: QueryId(9), items, more: true, applied: Op(301) })
}

const CODE_HASH: CodeHash = CodeHash([0xc0; 32]);

fn key_changes() -> [KeyChange; 2] {
    [KeyChange::Enrol { code: CODE_HASH }, KeyChange::Revoke { key: device().key }]
}

const ROLES_OF_MEMBERS: [Role; 3] = [Role::Reader, Role::Writer, Role::Owner];

fn changes() -> impl Iterator<Item = ChannelChange> {
    let member = name("bob");
    let added = ROLES_OF_MEMBERS.map(|role| ChannelChange::Add { member: name("bob"), role });
    let create = |private| ChannelChange::Create { private };
    let other = [create(false), create(true), ChannelChange::Remove { member }, ChannelChange::Delete];
    added.into_iter().chain(other)
}

/// Returns every packet, with every variant of the enums in it.
pub(crate) fn packets() -> Vec<Packet> {
    let seq = Seq(4);
    let answered_below = Seq(2);
    let nonce = 0xabcd;
    let view = View::new(7, NodeId(3));
    let query = QueryId(0xfeed);
    let connect = Connect {
        device: device(),
        profile: name("alice"),
        receives: true,
        nonce: u64::MAX,
        fresh: false,
        code: None,
        invite: None,
        aeads: 0,
    };
    let follow = |topic, change| Packet::Follow(Follow { seq, answered_below, topic, change, nonce });
    let send = |topic, content| Packet::Send(Send { seq, answered_below, topic, content, nonce });
    let history = |topic, range| Packet::History(History { query, topic, range, limit: 20 });
    let refused = |code, answers| Packet::Error(Refused { code, answers, retry_ms: 250 });
    let [feed, channel, inbox] = topics();
    let mut all = vec![
        Packet::Connect(connect.clone()),
        Packet::Connect(Connect { fresh: true, code: Some(CODE_HASH), invite: Some(CODE_HASH), ..connect }),
        Packet::Disconnect(Disconnect { upto: Op(77) }),
        Packet::AcceptConn(AcceptConn {
            nonce: 99,
            session: SessionId(Op(7)),
            coordinator: coordinator(),
            secret: Key::new([0x5e; 32]),
            aead: Default::default(),
        }),
        Packet::PathChallenge(300),
        Packet::PathResponse(u64::MAX),
        Packet::Padding,
        Packet::Ping,
        Packet::RejectConn(RejectConn { nonce: 99, code: Code::NotYours, retry_ms: 0 }),
        follow(feed.clone(), FollowChange::Add),
        follow(channel.clone(), FollowChange::Remove),
        send(Some(feed.clone()), content()),
        send(Some(channel.clone()), plain()),
        send(Some(inbox.clone()), content()),
        send(None, plain()),
        Packet::Notification(Delivered { prev: Op(250), notification: notification(300, channel.clone()) }),
        refused(Code::Busy, Answers::Session),
        refused(Code::Busy, Answers::Query(query)),
    ];
    all.extend(CODES.map(|code| refused(code, Answers::Request(seq))));
    all.extend([
        Packet::Info(Info {
            query,
            profile: name("bob"),
            since: Op(1),
            followers: 251,
            following: 2,
            devices: 3,
            sessions: 1,
            pending: 1 << 40,
            applied: Op(400),
        }),
        Packet::RequestUserInfo(RequestUserInfo { query, profile: Some(name("bob")) }),
        Packet::RequestUserInfo(RequestUserInfo { query, profile: None }),
        heartbeat(HeartbeatState::Backup),
        heartbeat(HeartbeatState::Opening),
        heartbeat(HeartbeatState::Active),
        heartbeat(HeartbeatState::Isolated),
        Packet::Election(Election::Probe { view, last: (view, Op(12)), disk_ms: 7 }),
        Packet::Election(Election::Prepare { view, progress: 3, waits_for: WaitsFor::Disk, disk_ms: 150 }),
        Packet::Election(Election::Prepare { view, progress: 4, waits_for: WaitsFor::Promises, disk_ms: 0 }),
        Packet::Election(Election::Prepare {
            view,
            progress: 5,
            waits_for: WaitsFor::Fetch(Op(9)),
            disk_ms: 1,
        }),
    ]);
    all.extend(replies());
    all.extend([
        Packet::Coordinator(coordinator()),
        Packet::Coordinator(Coordinator { view: View::ZERO, members: vec![] }),
        Packet::SendAck(SendAck { seq, op: Op(300) }),
        Packet::ClientAck(ClientAck { upto: Op(300), held: vec![Op(302), Op(u64::MAX)], credit: 254 }),
        entries(None),
        entries(Some(query)),
        Packet::EntriesAck(EntriesAck {
            view,
            durable: Op(9),
            matched: Op(10),
            applied: Op(8),
            rejected: true,
        }),
        Packet::Fetch(Fetch { query, view, after: Op(9), upto: Op(12) }),
        Packet::SnapshotGet(SnapshotGet { op: Op(0), offset: 4096, chunks: 16 }),
        Packet::SnapshotChunk(SnapshotChunk {
            op: Op(10),
            view,
            offset: 4096,
            total: 4100,
            crc: 0xdead_beef,
            bytes: vec![0, 1, 254, 255],
        }),
        Packet::Resume(Resume { cursor: Some(Op(70_000)), credit: 256 }),
        Packet::Resume(Resume { cursor: None, credit: 0 }),
        Packet::ResumeOk(ResumeOk {
            created_op: Op(4),
            last_seq: seq,
            coordinator: coordinator(),
            cursor: Op(6),
        }),
        Packet::Transfer(Transfer { view, last: Op(12) }),
        Packet::Status(query),
    ]);
    all.extend(ROLES.map(status_ok));
    all.extend([
        history(Some(feed.clone()), HistoryRange::Before(Op(u64::MAX))),
        history(None, HistoryRange::After(Op(5))),
        history(Some(inbox.clone()), HistoryRange::SinceMs(1_700_000_000_000)),
    ]);
    let listings =
        [Listing::Following, Listing::Followers, Listing::Devices, Listing::Channels, Listing::People]
            .into_iter()
            .chain([Listing::Members(name("ops")), Listing::Keys]);
    all.extend(listings.map(|what| Packet::List(List { query, what, after: None })));
    all.extend([
        Packet::List(List { query, what: Listing::Channels, after: Some("#ops".into()) }),
        Packet::Fragment(Fragment { first: 0x21_0000_0003, offset: 1086, total: 1089, bytes: vec![9, 8, 7] }),
        Packet::Keepalive,
        Packet::HistoryOk(HistoryOk {
            query,
            notifications: vec![notification(1, feed), notification(2, channel), notification(300, inbox)],
            more: true,
            trimmed_upto: Op(0),
            applied: Op(400),
        }),
        list_ok(),
        Packet::Gap(Gap { prev: Op(3), upto: Op(250) }),
        Packet::Learn(Learn { nonce: 1 << 63 }),
        Packet::LearnOk(LearnOk { nonce: 1 << 63, promised: view, active: Some(Op(300)) }),
    ]);
    all.extend(key_changes().map(|change| Packet::Keys(Keys { seq, answered_below, change, nonce })));
    all.extend(admin_changes().map(|change| Packet::Admin(Admin { query, change })));
    all.push(Packet::AdminOk(AdminOk { query, op: Op(300) }));
    all.extend(
        changes().map(|change| {
            Packet::Channel(Channel { seq, answered_below, channel: name("ops"), change, nonce })
        }),
    );
    all
}

fn admin_changes() -> impl Iterator<Item = AdminChange> {
    let invite = |only| AdminChange::Invite { code: CODE_HASH, uses: 3, lasts_ms: 86_400_000, name: only };
    [
        AdminChange::Release { name: name("alice") },
        AdminChange::RemoveProfile { name: name("alice") },
        AdminChange::RemoveChannel { channel: name("ops") },
        invite(None),
        invite(Some(name("alice"))),
        AdminChange::Allow { key: device().key },
        AdminChange::Disallow { key: device().key },
    ]
    .into_iter()
}

/// Returns every command, with every variant of the enums in it.
pub(crate) fn commands() -> Vec<Command> {
    let [feed, channel, inbox] = topics();
    let request = |request| Command::Request {
        session: SessionId(Op(7)),
        seq: Seq(4),
        answered_below: Seq(2),
        request,
        digest: 0xd1_6e57,
        may_make: true,
    };
    let mut all = vec![
        Command::SessionOpen(SessionOpen {
            device: device(),
            profile: name("alice"),
            receives: true,
            nonce: u64::MAX,
            fresh: false,
            code: Some(CODE_HASH),
            invite: Some(CODE_HASH),
            admission: Admission::Keys,
            aead: Default::default(),
        }),
        Command::SessionConfirm { session: SessionId(Op(7)) },
        Command::SessionLapse { session: SessionId(Op(7)) },
        Command::SessionClose { session: SessionId(Op(7)) },
        request(Request::Follow { topic: feed.clone(), change: FollowChange::Add }),
        request(Request::Follow { topic: channel.clone(), change: FollowChange::Remove }),
        request(Request::Send { topic: inbox.clone(), content: content() }),
        request(Request::Send { topic: feed.clone(), content: plain() }),
        Command::Cursors(vec![(SessionId(Op(7)), Op(300)), (SessionId(Op(70_000)), Op(0))]),
    ];
    all.extend(admin_changes().map(|change| Command::Administer(Admin { query: QueryId(300), change })));
    all.push(Command::Expire(Claim::Profile { name: name("alice"), created_op: Op(300) }));
    all.push(Command::Expire(Claim::Channel { name: name("ops") }));
    all.push(Command::Expire(Claim::Deleted { name: name("ops") }));
    all.extend(key_changes().map(|change| request(Request::Keys { change })));
    all.extend(changes().map(|change| request(Request::Channel { channel: name("ops"), change })));
    all.extend([feed, channel, inbox].map(|topic| Command::Trim { topic, upto: Op(300) }));
    all
}
