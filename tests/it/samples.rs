//! Samples of every packet and command, with every variant of every enum inside them.

use std::net::SocketAddr;
use std::sync::Arc;

use recado_proto::codec::encode;
use recado_proto::command::{Claim, Command, Request, SessionOpen};
use recado_proto::entry::{Entry, EntryKind, Unknown};
use recado_proto::id::{
    Admission, ChannelName, DeviceId, DeviceKey, Epoch, Incarnation, Name, NodeId, Op, Priority, Seq,
    SessionId, StoreKey, Topic, View,
};
use recado_proto::packet::*;
use recado_proto::seal::Key;

/// A set of which a sample of every variant is known.
pub(crate) trait Samples: Sized {
    /// The name of its golden files begins with this.
    const PREFIX: &'static str;
    /// The names of all variants, in the order of their tags.
    const KINDS: &'static [&'static str];

    /// The name of this variant.
    fn kind(&self) -> &'static str;

    /// Every variant, with every variant of the enums in it.
    fn samples() -> Vec<Self>;
}

/// Lists every variant once, so that a new variant without a sample does not compile or fails a test.
macro_rules! samples {
    ($of:ident from $samples:ident as $prefix:literal: $($variant:ident)*) => {
        impl Samples for $of {
            const PREFIX: &'static str = $prefix;
            const KINDS: &'static [&'static str] = &[$(stringify!($variant)),*];

            fn kind(&self) -> &'static str {
                match self {
                    $($of::$variant { .. } => stringify!($variant),)*
                }
            }

            fn samples() -> Vec<$of> {
                $samples()
            }
        }
    };
}

samples!(ToServer from to_server as "to_server_":
    Connect Resume Keepalive Disconnect ClientAck Follow Send Channel Keys Query
    Admin PathResponse Fragment Extension Padding Ping);

samples!(ToClient from to_client as "to_client_":
    AcceptConn RejectConn ResumeOk Coordinator Delivered SendAck Error Answer
    AdminOk PathChallenge Fragment Extension Padding Ping);

samples!(ToPeer from to_peer as "to_peer_":
    Heartbeat Election Reply Coordinator Transfer Learn LearnOk Entries EntriesAck Fetch SnapshotGet
    SnapshotChunk Fragment Extension Padding Ping);

samples!(Command from commands as "command_":
    SessionOpen SessionClose Request Cursors Trim SessionConfirm SessionLapse Administer
    Expire SessionsClose);

/// The encodings of all samples of packets.
pub(crate) fn encoded() -> Vec<Vec<u8>> {
    fn of<P: Packet + Samples>() -> impl Iterator<Item = Vec<u8>> {
        P::samples().into_iter().map(|packet| encode(&packet))
    }
    of::<ToServer>().chain(of::<ToClient>()).chain(of::<ToPeer>()).collect()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn ops() -> ChannelName {
    "ops".parse().unwrap()
}

fn extension(answers: Option<Answers>) -> Extension {
    Extension { kind: 300, answers, bytes: vec![0, 0xff] }
}

fn topics() -> [Topic; 3] {
    [Topic::Feed(name("alice")), Topic::Channel(ops()), Topic::Inbox(name("bob"))]
}

fn device() -> DeviceId {
    DeviceId { key: DeviceKey([0xd7; 32]), slot: 3 }
}

fn displayed(name: Option<&str>) -> ExtensionRequest {
    ExtensionRequest::Display { name: name.map(|name| name.parse().unwrap()) }
}

fn key() -> StoreKey {
    "#ops/on-call".parse().unwrap()
}

fn put(condition: Condition) -> ExtensionRequest {
    ExtensionRequest::Put { key: key(), value: "bob".into(), condition }
}

fn delete(at: Option<Op>) -> ExtensionRequest {
    ExtensionRequest::Delete { key: key(), at }
}

fn stored() -> StoredValue {
    StoredValue { value: Arc::new("bob".into()), timestamp: Op(300), author: name("alice") }
}

fn content() -> Content {
    Content {
        title: Some("Título".into()),
        priority: Priority::try_from(5).unwrap(),
        tags: vec!["disk".into(), "sda".into()],
        body: "nearly full".into(),
        extra: vec![("click".into(), b"https://example.org".to_vec()), ("icon".into(), vec![])],
    }
}

fn plain() -> Content {
    Content::of(Body::binary(vec![0xff, 0]))
}

fn notification(op: u64, topic: Topic) -> Arc<Notification> {
    Arc::new(Notification {
        op: Op(op),
        topic,
        author: name("carol"),
        unix_ms: 1_700_000_000_000 + op,
        content: if op.is_multiple_of(2) { content() } else { plain() },
        options: OptionalFields::NONE,
    })
}

fn coordinator() -> Coordinator {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    Coordinator::new(
        View::new(7, NodeId(3)),
        vec![
            (NodeId(1), address("127.0.0.1:10097")),
            (NodeId(2), address("[2001:db8::1]:10098")),
            (NodeId(3), address("10.1.2.3:10099")),
        ],
    )
}

fn status_of(role: RoleName) -> AnswerKind {
    AnswerKind::Status(Status {
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
        refused: RefusedDatagram::ALL
            .iter()
            .copied()
            .chain([RefusedDatagram::Unknown(63)])
            .zip(1..)
            .collect(),
    })
}

fn heartbeat(state: HeartbeatState) -> ToPeer {
    ToPeer::Heartbeat(Heartbeat {
        view: View::new(7, NodeId(3)),
        state,
        commit: Op(10),
        last: Op(12),
        beat: 300,
        leaving: true,
        members: 0x0123_4567_89ab_cdef,
        disk_ms: 300,
        members_op: Op(3),
        options: OptionalFields::NONE,
    })
}

fn replies() -> Vec<ToPeer> {
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
        members_op: Op(3),
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
    .map(ToPeer::Reply)
    .into()
}

fn entries(fetch: Option<QueryId>) -> ToPeer {
    let view = View::new(7, NodeId(3));
    ToPeer::Entries(Entries {
        view,
        fetch,
        prev_op: Op(8),
        prev_view: View::new(1, NodeId(1)),
        commit: Op(8),
        entries: vec![
            Entry { op: Op(9), view, kind: EntryKind::ViewStart, payload: Arc::new([]) },
            Entry { op: Op(10), view, kind: EntryKind::Command, payload: Arc::new([1, 2, 255]) },
            Entry { op: Op(11), view, kind: EntryKind::Members, payload: Arc::new([4, 5, 6]) },
            Entry { op: Op(12), view, kind: EntryKind::Unknown(300), payload: Arc::new([7]) },
        ],
        members_op: Op(3),
    })
}

fn list_page() -> AnswerKind {
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
        name: ops(),
        followers: 3,
        last_op: Op(300),
        access,
    }));
    for slots in [vec![0, 7], vec![]] {
        items.push(ListItem::Key { key: device().key, slots, last_seen_ms: 1_700_000_000_000 });
    }
    let display = "Alice B.".parse().unwrap();
    items.push(ListItem::Displayed { name: name("alice"), since: Op(300), display });
    items.push(ListItem::Stored { key: key(), timestamp: Op(300), bytes: 3, author: name("alice") });
    items.extend(ROLES_OF_MEMBERS.map(|role| ListItem::Member { name: name("bob"), role }));
    AnswerKind::List(ListPage { items, more: true })
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

fn options() -> OptionalFields {
    let field = |tag, bytes| OptionalField { tag, bytes };
    OptionalFields(vec![
        field(OptionalFields::EXPIRES, vec![1, 2]),
        field(OptionalFields::IDEMPOTENCY_KEY, vec![0xfe; 16]),
    ])
}

fn fragment() -> Fragment {
    Fragment { first: 0x21_0000_0003, offset: 1086, total: 1089, bytes: vec![9, 8, 7] }
}

fn to_server() -> Vec<ToServer> {
    let (seq, answered_below, nonce) = (Seq(4), Seq(2), 0xabcd);
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
        options: OptionalFields::NONE,
    };
    let follow = |topic, change| {
        ToServer::Follow(Follow { seq, answered_below, topic, change, nonce, options: OptionalFields::NONE })
    };
    let send = |topic, content| {
        ToServer::Send(Send { seq, answered_below, topic, content, nonce, options: OptionalFields::NONE })
    };
    let query = |kind| {
        let mut at_least = Position::of(Op(70_000));
        (at_least.group, at_least.epoch, at_least.generation) = (1, Epoch(300), 2);
        ToServer::Query(Query { id: query, at_least: Some(at_least), kind, options: options() })
    };
    let history = |topic, range| query(QueryKind::History(History { topic, range, limit: 20 }));
    let list = |what, after| query(QueryKind::List(List { what, after }));
    let [feed, channel, inbox] = topics();
    let mut all = vec![
        ToServer::Connect(connect.clone()),
        ToServer::Connect(Connect { fresh: true, code: Some(CODE_HASH), invite: Some(CODE_HASH), ..connect }),
        ToServer::Resume(Resume {
            cursor: Some(Position::of(Op(70_000))),
            credit: 256,
            home: Home::PRIMARY,
            options: OptionalFields::NONE,
        }),
        ToServer::Resume(Resume {
            cursor: None,
            credit: 0,
            home: Home::PRIMARY,
            options: OptionalFields::NONE,
        }),
        ToServer::keepalive(),
        ToServer::Keepalive(Keepalive {
            home: Home { server: Some(NodeId(2)), moves: 9 },
            options: options(),
        }),
        ToServer::Disconnect(Disconnect { upto: Position::of(Op(77)) }),
        ToServer::ClientAck(ClientAck {
            upto: Position::of(Op(300)),
            held: vec![Op(302), Op(u64::MAX)],
            credit: 254,
        }),
        follow(feed.clone(), FollowChange::Add),
        follow(channel.clone(), FollowChange::Remove),
        send(Some(feed.clone()), content()),
        send(Some(channel), plain()),
        send(Some(inbox.clone()), content()),
        send(None, plain()),
        query(QueryKind::Status),
        ToServer::Query(Query::new(QueryId(1), QueryKind::WhoAmI)),
        query(QueryKind::Info { profile: Some(name("bob")) }),
        query(QueryKind::Info { profile: None }),
        history(Some(feed), HistoryRange::Before(Op(u64::MAX))),
        history(None, HistoryRange::After(Op(5))),
        history(Some(inbox), HistoryRange::SinceMs(1_700_000_000_000)),
        list(Listing::Channels, Some("#ops".into())),
        ToServer::PathResponse(u64::MAX),
        ToServer::Fragment(fragment()),
        ToServer::Extension(extension(Some(Answers::Session))),
        ToServer::Extension(extension(Some(Answers::Request(seq)))),
        ToServer::Extension(extension(Some(Answers::Query(QueryId(300))))),
        ToServer::Extension(extension(None)),
        ToServer::Extension(Extension::of_request(seq, 0x0102, &ExtensionRequest::Retract { op: Op(300) })),
        ToServer::Extension(Extension::of_request(seq, 0x0102, &displayed(Some("Alice B.")))),
        ToServer::Extension(Extension::of_request(seq, 0x0102, &displayed(None))),
        ToServer::Extension(Extension::of_request(seq, 0x0102, &put(Condition::Always))),
        ToServer::Extension(Extension::of_request(seq, 0x0102, &put(Condition::At(Op(300))))),
        ToServer::Extension(Extension::of_request(seq, 0x0102, &delete(Some(Op(300))))),
        ToServer::Extension(Extension::of_request(seq, 0x0102, &delete(None))),
        ToServer::query(Query::new(QueryId(300), QueryKind::Get { key: key() })),
        query(QueryKind::Get { key: key() }),
        ToServer::Padding,
        ToServer::Ping,
    ];
    all.extend(changes().map(|change| {
        ToServer::Channel(Channel {
            seq,
            answered_below,
            channel: ops(),
            change,
            nonce,
            options: OptionalFields::NONE,
        })
    }));
    all.extend(key_changes().map(|change| {
        ToServer::Keys(Keys { seq, answered_below, change, nonce, options: OptionalFields::NONE })
    }));
    all.extend(admin_changes().map(|change| ToServer::Admin(Admin { query: QueryId(300), change })));
    let listings =
        [Listing::Following, Listing::Followers, Listing::Devices, Listing::Channels, Listing::People]
            .into_iter()
            .chain([Listing::Members(ops()), Listing::Keys, Listing::Stored { prefix: "#ops/".into() }]);
    all.extend(listings.map(|what| list(what, None)));
    all
}

fn to_client() -> Vec<ToClient> {
    let query = QueryId(0xfeed);
    let delivered = |item| ToClient::Delivered(Delivered { prev: Op(250), item });
    let refused = |code, answers| ToClient::Error(Refused::new(code, answers, 250));
    let answer = |kind| {
        ToClient::Answer(Answer {
            id: query,
            applied: Position::of(Op(400)),
            kind,
            options: OptionalFields::NONE,
        })
    };
    let [feed, channel, inbox] = topics();
    let mut all = vec![
        ToClient::AcceptConn(AcceptConn {
            nonce: 99,
            session: SessionId(Op(7)),
            coordinator: coordinator(),
            secret: Key::new([0x5e; 32]),
            aead: Default::default(),
            options: OptionalFields::NONE,
        }),
        ToClient::RejectConn(RejectConn::new(99, Code::NotYours, 0)),
        ToClient::RejectConn(RejectConn { data: options(), ..RejectConn::new(99, Code::TooManyNames, 300) }),
        ToClient::ResumeOk(ResumeOk {
            created_op: Op(4),
            last_seq: Seq(4),
            coordinator: coordinator(),
            cursor: Position::of(Op(6)),
            keepalive_ms: 2_000,
            options: OptionalFields::NONE,
        }),
        ToClient::Coordinator(coordinator()),
        ToClient::Coordinator(Coordinator::new(View::ZERO, vec![])),
        ToClient::Coordinator(Coordinator { roles: vec![0, 1], options: options(), ..coordinator() }),
        delivered(Item::Notification(notification(300, channel.clone()))),
        delivered(Item::Gap { upto: Op(299) }),
        ToClient::SendAck(SendAck { seq: Seq(4), op: Op(300), data: OptionalFields::NONE }),
        ToClient::SendAck(SendAck {
            seq: Seq(4),
            op: Op(300),
            data: OptionalFields::NONE.with(OptionalFields::MADE_CHANNEL, Vec::new()),
        }),
        refused(Code::Busy, Answers::Session),
        refused(Code::Busy, Answers::Query(query)),
        ToClient::Error(Refused { data: options(), ..Refused::new(Code::OtherEpoch, Answers::Session, 0) }),
        answer(AnswerKind::Info(Info {
            profile: name("bob"),
            since: Op(1),
            followers: 251,
            following: 2,
            devices: 3,
            sessions: 1,
            pending: 1 << 40,
        })),
        answer(AnswerKind::History(HistoryPage {
            notifications: vec![notification(1, feed), notification(2, channel), notification(300, inbox)],
            more: true,
            trimmed_upto: Op(0),
        })),
        answer(list_page()),
        answer(AnswerKind::WhoAmI(Some(name("alice")))),
        answer(AnswerKind::WhoAmI(None)),
        answer(AnswerKind::Value(Some(stored()))),
        answer(AnswerKind::Value(None)),
        ToClient::AdminOk(AdminOk::new(query, Op(300))),
        ToClient::AdminOk(AdminOk { data: options(), ..AdminOk::new(query, Op(300)) }),
        ToClient::PathChallenge(300),
        ToClient::Fragment(fragment()),
        ToClient::Extension(extension(None)),
        ToClient::Padding,
        ToClient::Ping,
    ];
    let codes = Code::ALL.iter().copied().chain([Code::Unknown(300)]);
    all.extend(codes.map(|code| refused(code, Answers::Request(Seq(4)))));
    let roles = RoleName::ALL.iter().copied().chain([RoleName::Unknown(300)]);
    all.extend(roles.map(|role| answer(status_of(role))));
    all
}

fn to_peer() -> Vec<ToPeer> {
    let view = View::new(7, NodeId(3));
    let query = QueryId(0xfeed);
    let mut all = vec![
        heartbeat(HeartbeatState::Backup),
        heartbeat(HeartbeatState::Opening),
        heartbeat(HeartbeatState::Active),
        heartbeat(HeartbeatState::Isolated),
        ToPeer::Election(Election::Probe { view, last: (view, Op(12)), disk_ms: 7 }),
        ToPeer::Election(Election::Prepare {
            view,
            progress: 3,
            waits_for: WaitsFor::Disk,
            disk_ms: 150,
            members_op: Op(3),
        }),
        ToPeer::Election(Election::Prepare {
            view,
            progress: 4,
            waits_for: WaitsFor::Promises,
            disk_ms: 0,
            members_op: Op(3),
        }),
        ToPeer::Election(Election::Prepare {
            view,
            progress: 5,
            waits_for: WaitsFor::Fetch(Op(9)),
            disk_ms: 1,
            members_op: Op(3),
        }),
        ToPeer::Coordinator(Coordinator::new(view, vec![])),
        ToPeer::Transfer(Transfer { view, last: Op(12) }),
        ToPeer::Learn(Learn { nonce: 1 << 63 }),
        ToPeer::LearnOk(LearnOk { nonce: 1 << 63, promised: view, active: Some(Op(300)) }),
        entries(None),
        entries(Some(query)),
        ToPeer::EntriesAck(EntriesAck {
            view,
            durable: Op(9),
            matched: Op(10),
            commit: Op(8),
            rejected: true,
        }),
        ToPeer::Fetch(Fetch { query, view, after: Op(9), upto: Op(12) }),
        ToPeer::SnapshotGet(SnapshotGet { op: Op(0), offset: 4096, blocks: 16 }),
        ToPeer::SnapshotChunk(SnapshotChunk {
            op: Op(10),
            view,
            offset: 4096,
            total: 4100,
            crc: 0xdead_beef,
            bytes: vec![0, 1, 254, 255],
        }),
        ToPeer::Fragment(fragment()),
        ToPeer::Extension(extension(None)),
        ToPeer::Padding,
        ToPeer::Ping,
    ];
    all.extend(replies());
    all
}

fn admin_changes() -> impl Iterator<Item = AdminChange> {
    let invite = |only| AdminChange::Invite { code: CODE_HASH, uses: 3, lasts_ms: 86_400_000, name: only };
    [
        AdminChange::Release { name: name("alice") },
        AdminChange::RemoveProfile { name: name("alice") },
        AdminChange::RemoveChannel { channel: ops() },
        invite(None),
        invite(Some(name("alice"))),
        AdminChange::Allow { key: device().key },
        AdminChange::Disallow { key: device().key },
    ]
    .into_iter()
}

fn commands() -> Vec<Command> {
    let [feed, channel, inbox] = topics();
    let request = |request| Command::Request {
        session: SessionId(Op(7)),
        seq: Seq(4),
        answered_below: Seq(2),
        request,
        digest: 0xd1_6e57,
        may_make: true,
        options: OptionalFields::NONE,
    };
    let with_options = |command| match command {
        Command::Request { session, seq, answered_below, request, digest, may_make, options: _ } => {
            Command::Request { session, seq, answered_below, request, digest, may_make, options: options() }
        }
        other => other,
    };
    let mut all = vec![
        with_options(request(Request::Send { topic: feed.clone(), content: plain() })),
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
            options: OptionalFields::NONE,
        }),
        Command::SessionConfirm { session: SessionId(Op(7)) },
        Command::SessionLapse { session: SessionId(Op(7)) },
        Command::SessionClose { session: SessionId(Op(7)) },
        request(Request::Follow { topic: feed.clone(), change: FollowChange::Add }),
        request(Request::Follow { topic: channel.clone(), change: FollowChange::Remove }),
        request(Request::Send { topic: inbox.clone(), content: content() }),
        request(Request::Send { topic: feed.clone(), content: plain() }),
        request(Request::Unsupported),
        request(Request::Retract { op: Op(300), topic: Some(channel.clone()) }),
        request(Request::Retract { op: Op(0), topic: None }),
        request(Request::Display { name: Some("Alice B.".parse().unwrap()) }),
        request(Request::Display { name: None }),
        request(Request::Put { key: key(), value: "bob".into(), condition: Condition::Absent }),
        request(Request::Put { key: key(), value: "bob".into(), condition: Condition::Present }),
        request(Request::Delete { key: key(), at: Some(Op(300)) }),
        Command::Cursors(vec![(SessionId(Op(7)), Op(300)), (SessionId(Op(70_000)), Op(0))]),
    ];
    all.extend(admin_changes().map(|change| Command::Administer(Admin { query: QueryId(300), change })));
    all.push(Command::Expire(Claim::Profile { name: name("alice"), created_op: Op(300) }));
    all.push(Command::Expire(Claim::Channel { name: ops() }));
    all.push(Command::Expire(Claim::Deleted { name: ops() }));
    all.push(Command::SessionsClose(vec![SessionId(Op(7)), SessionId(Op(70_000))]));
    all.extend(key_changes().map(|change| request(Request::Keys { change })));
    all.extend(changes().map(|change| request(Request::Channel { channel: ops(), change })));
    all.extend([feed, channel, inbox].map(|topic| Command::Trim { topic, upto: Op(300) }));
    all
}
