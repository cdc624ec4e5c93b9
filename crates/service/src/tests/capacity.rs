//! The room for the state: the weight of each record, and what gives way in a full state.

use super::*;

/// Compares the encoded size of the largest of each part with its weight.
#[test]
fn nothing_takes_more_in_a_snapshot_than_it_weighs() {
    use crate::capacity::{
        ADMINISTERED, CHANNEL, KEY, MAKER, MEMBER, OWNED, PROFILE, all_retained, follow_bound, size_bound,
        value_bound,
    };
    use crate::state::{Administered, Device, Enrolment, Owned, Profile, Sent, Session, TopicState, Value};

    let long = |n: usize| name(&format!("{n:0>32}"));
    let long_channel = |n: usize| channel_name(&longest(n));
    let (op, outstanding) = (Op(u64::MAX), Limits::default().outstanding);
    let mut service = Service::new(State::default(), Limits::default(), PlantedBug::default());
    let empty = codec::encode(&service.state).len() as u64;
    let id = device(255, 255);
    let profile = |keys: usize, follows: usize| Profile {
        claimed_op: op,
        keys: vec![DeviceKey([255; 32]); keys],
        follows: (0..follows).map(|n| (Topic::Channel(long_channel(n)), op)).collect(),
        sent: imbl::Vector::new(),
        owns: u64::MAX,
        enrolment: Some(Enrolment { code: CodeHash([255; 32]), until_ms: u64::MAX, wrong: u32::MAX }),
        claimed_ms: u64::MAX,
        usage: crate::state::Usage::Used,
        channels_paid_ms: u64::MAX,
        display: Some("d".repeat(DisplayName::LEN_MAX).parse().unwrap()),
    };
    let topic = |retained: Vec<Stored>| TopicState {
        followers: imbl::OrdMap::new(),
        retained: retained.into_iter().collect(),
        bytes: u64::MAX,
        trimmed_upto: op,
        last_op: op,
    };

    let weighs = |what: &str, weight: u64, fill: &dyn Fn(&mut State)| {
        let mut state = State::default();
        fill(&mut state);
        let takes = codec::encode(&state).len() as u64 - empty;
        assert!(takes <= weight, "{what} takes {takes} and weighs {weight}");
        assert!(takes * 10 >= weight * 9, "{what} takes {takes} and weighs {weight}: dishonest");
    };
    let few = |keys: usize, follows: usize| {
        move |state: &mut State| {
            state.profiles.insert(long(0), profile(keys, follows));
            state.topics.feeds.insert(long(0), topic(Vec::new()));
            state.topics.inboxes.insert(long(0), topic(Vec::new()));
        }
    };
    weighs("a profile of many keys", PROFILE + 1_000 * KEY, &few(1_000, 0));
    weighs("a profile of many follows", PROFILE + 1_000 * follow_bound(&channel(&longest(0))), &|state| {
        few(0, 1_000)(state);
        for n in 0..1_000 {
            let followed = state.topics.feeds.get_mut(&long(0)).unwrap();
            followed.followers.insert(long(n), op);
        }
    });
    weighs("a hundred channels of many members", 100 * (CHANNEL + OWNED + MAKER + 10 * MEMBER), &|state| {
        for n in 0..100 {
            state.topics.makers.insert(long_channel(n), long(n));
            state.topics.channels.insert(long_channel(n), topic(Vec::new()));
            let members = (0..10).map(|n| (long(n), Role::Owner)).collect();
            let owned = Owned { private: true, members, created_ms: u64::MAX, deleted: true };
            state.topics.owned.insert(long_channel(n), owned);
        }
    });
    weighs("a hundred things that administrators asked", 100 * ADMINISTERED, &|state| {
        let asked = Administered { query: QueryId(u64::MAX), at_ms: u64::MAX, result: Ok(op) };
        state.administered = (0..100).map(|_| asked).collect();
    });
    for bytes in [0, 200, StoredValue::LEN_MAX] {
        let keys = |n: usize| format!("{n:k>256}").parse::<StoreKey>().unwrap();
        let value = Arc::new(recado_proto::packet::Body::text("v".repeat(bytes)));
        weighs(
            &format!("a hundred values of {bytes} bytes"),
            100 * value_bound(&keys(0), &value),
            &|state| {
                let value = || Value { value: Arc::clone(&value), timestamp: op, author: long(0) };
                state.values = (0..100).map(|n| (keys(n), value())).collect();
            },
        );
    }
    weighs("a device", service.device_weight(), &|state| {
        let last = (0..outstanding).map(|_| crate::state::Outcome { digest: u64::MAX, result: Ok(op) });
        let device = Device {
            profile: long(0),
            created_op: op,
            cursor: op,
            last_seq: Seq(u64::MAX),
            results: last.collect(),
            session: Some(SessionId(op)),
            pending: Some(SessionId(op)),
            recent_nonces: vec![u64::MAX; crate::sessions::RECENT_NONCES_MAX].into(),
            receives: true,
            last_seen_ms: u64::MAX,
        };
        state.devices.insert(id, device);
        for session in [op, op.prev()] {
            let open = Session {
                device: id,
                receives: true,
                nonce: u64::MAX,
                opened_ms: u64::MAX,
                aead: Default::default(),
            };
            state.sessions.insert(SessionId(session), open);
        }
    });

    let largest = Content {
        title: Some("t".repeat(Content::TITLE_MAX)),
        priority: Priority::default(),
        tags: vec!["t".repeat(Content::TAG_MAX); Content::TAGS_MAX],
        body: "b".repeat(Content::BODY_MAX).into(),
        extra: Vec::new(),
    };
    for content in [largest, content("")] {
        let of = |at: u64| Notification {
            op: Op(u64::MAX - at),
            topic: Topic::Inbox(long(0)),
            author: long(0),
            unix_ms: u64::MAX,
            content: content.clone(),
            options: OptionalFields::NONE,
        };
        let sent = |at: u64| Sent { op: Op(u64::MAX - at), to: long(0) };
        let held: Vec<Stored> = (0..100).map(|at| Stored::new(&of(at))).collect();
        let mut inbox = topic(Vec::new());
        inbox.bytes = 0;
        held.iter().for_each(|held| inbox.push(held.clone()));
        let weight = held.iter().map(|held| size_bound(&of(0).topic, held)).sum::<u64>();
        assert_eq!(all_retained(&of(0).topic, &inbox), weight);
        service.state = State::default();
        service.state.topics.inboxes.insert(long(0), inbox);
        let mut author = profile(0, 0);
        author.sent = (0..100).map(sent).collect();
        service.state.profiles.insert(long(0), author);
        let takes = codec::encode(&service.state).len() as u64 - empty;
        assert!(takes <= weight + PROFILE, "{takes} bytes weigh {weight}");

        let (of_channel, mut held) = (channel(&longest(0)), topic(Vec::new()));
        held.bytes = 0;
        let in_channel = |at| Arc::new(Notification { topic: of_channel.clone(), ..of(at) });
        (0..100).for_each(|at| held.push(Stored::new(&in_channel(at))));
        let weight = all_retained(&of_channel, &held);
        service.state = State::default();
        service.state.topics.channels.insert(long_channel(0), held);
        let takes = codec::encode(&service.state).len() as u64 - empty;
        assert!(takes <= weight + CHANNEL, "{takes} bytes in a channel weigh {weight}");
    }
}

/// Limits with room for this many short notifications beside the records of two profiles, and the weight of
/// one.
fn room_for(notifications: u64) -> (Limits, u64) {
    let limits = Limits { outstanding: 4, ..Limits::default() };
    let mut log = Log::with(limits);
    log.open("alice", 1);
    log.open("bobby", 2);
    let records = log.service.weight();
    let session = log.open("alice", 1);
    log.send(session, feed("alice")).unwrap();
    let one = log.service.weight() - records;
    (Limits { state_bytes: records + one * notifications, ..limits }, one)
}

#[test]
fn a_profile_that_fills_the_state_loses_its_own_notifications_first_and_all_can_send() {
    let (limits, _) = room_for(10);
    let mut log = Log::with(limits);
    let (alice, bobby) = (log.open("alice", 1), log.open("bobby", 2));
    let quiet: Vec<Op> = (0..3).map(|_| log.send(alice, feed("alice")).unwrap()).collect();
    let flood: Vec<Op> = (0..50).map(|_| log.send(bobby, feed("bobby")).unwrap()).collect();
    let held = |log: &Log, topic: Topic| {
        let held = &log.service.state.topics.get(&topic).unwrap().retained;
        held.iter().map(Stored::op).collect::<Vec<Op>>()
    };
    assert_eq!(held(&log, feed("alice")), quiet, "below an even share nothing is lost");
    assert_eq!(held(&log, feed("bobby")), flood[43..], "the flood lost its own, the oldest first");
    let more: Vec<Op> = (0..2).map(|_| log.send(alice, feed("alice")).unwrap()).collect();
    assert_eq!(held(&log, feed("alice"))[3..], more, "and whoever was quiet still sends");
    assert!(log.service.weight() <= limits.state_bytes);
}

#[test]
fn notifications_dropped_for_room_are_a_gap_for_readers_that_had_not_read_them() {
    let (limits, one) = room_for(6);
    let mut log = Log::with(Limits { state_bytes: limits.state_bytes + one, ..limits });
    let (alice, bobby) = (log.open("alice", 1), log.open("bobby", 2));
    log.follow(alice, feed("bobby")).unwrap();
    let sent: Vec<Op> = (0..20).map(|_| log.send(bobby, feed("bobby")).unwrap()).collect();
    let cursor = log.service.session(alice).unwrap().cursor;
    let page = log.service.page(alice, cursor, 100, 1 << 20);
    let got = ops(&page.notifications);
    assert!(!got.is_empty() && got.len() < 20, "some were dropped");
    assert_eq!(got, sent[20 - got.len()..]);
    assert_eq!(page.gap, Some(sent[20 - got.len() - 1]), "and the loss is told, up to the last one lost");
}

#[test]
fn when_records_have_their_part_of_the_room_new_ones_are_refused_and_the_old_go_on() {
    let mut log = Log::with(Limits::default());
    log.open("alice", 1);
    log.open("bobby", 2);
    let limits = Limits { record_bytes: log.service.records(), ..Limits::default() };
    let mut log = Log::with(limits);
    let alice = log.open("alice", 1);
    log.open("bobby", 2);
    let refused = log.connect("carol", device(3, 0), 9, true);
    assert!(matches!(refused[..], [Applied::SessionRefused { code: Code::LimitReached, .. }]), "{refused:?}");
    let full = Err(Code::LimitReached);
    assert_eq!(log.follow(alice, feed("bobby")), full);
    assert_eq!(log.send(alice, channel("ops")), full, "an open channel that is not there");
    assert_eq!(log.channel(alice, "team", ChannelChange::Create { private: false }), full);
    for _ in 0..300 {
        log.send(alice, feed("alice")).unwrap();
        log.send(alice, inbox("bobby")).unwrap();
    }
    assert_eq!(log.service.records(), limits.record_bytes, "what requests leave behind was paid for");
    let again = log.connect("alice", device(1, 0), 77, false);
    assert!(matches!(again[..], [Applied::SessionOpened { .. }]), "who is known is let in: {again:?}");
}

#[test]
fn each_member_of_a_channel_takes_a_part_of_the_room_for_records() {
    let with_a_channel = |limits: Limits| {
        let mut log = Log::with(limits);
        let alice = log.open("alice", 1);
        log.open("bobby", 2);
        log.open("carol", 3);
        log.channel(alice, "ops", create(false)).unwrap();
        (log, alice)
    };
    let (log, _) = with_a_channel(Limits::default());
    let record_bytes = log.service.records() + crate::capacity::MEMBER;
    let (mut log, alice) = with_a_channel(Limits { record_bytes, ..Limits::default() });
    log.channel(alice, "ops", add("bobby", Role::Reader)).unwrap();
    assert_eq!(log.service.records(), record_bytes);
    assert_eq!(log.channel(alice, "ops", add("carol", Role::Reader)), Err(Code::LimitReached));
    log.channel(alice, "ops", add("bobby", Role::Writer)).unwrap();
    log.channel(alice, "ops", remove("bobby")).unwrap();
    log.channel(alice, "ops", add("carol", Role::Reader)).unwrap();
}

#[test]
fn each_follow_takes_a_part_of_the_room_for_records() {
    let with_three = |limits: Limits| {
        let mut log = Log::with(limits);
        let alice = log.open("alice", 1);
        log.open("bobby", 2);
        log.open("carol", 3);
        (log, alice)
    };
    let (log, _) = with_three(Limits::default());
    let record_bytes = log.service.records() + crate::capacity::follow_bound(&feed("bobby"));
    let (mut log, alice) = with_three(Limits { record_bytes, ..Limits::default() });
    log.follow(alice, feed("bobby")).unwrap();
    assert_eq!(log.service.records(), record_bytes);
    assert_eq!(log.follow(alice, feed("carol")), Err(Code::LimitReached));
    log.unfollow(alice, feed("bobby")).unwrap();
    log.follow(alice, feed("carol")).unwrap();
}

#[test]
fn a_channel_is_created_only_where_all_its_records_have_room() {
    use crate::capacity::{CHANNEL, MAKER, MEMBER, OWNED};

    let mut log = Log::new();
    log.open("alice", 1);
    let whole = log.service.records() + CHANNEL + OWNED + MEMBER + MAKER;
    for (record_bytes, refused) in [(whole - 1, Some(Code::LimitReached)), (whole, None)] {
        let mut log = Log::with(Limits { record_bytes, ..Limits::default() });
        let alice = log.open("alice", 1);
        assert_eq!(log.channel(alice, "ops", create(false)).err(), refused, "{record_bytes} of {whole}");
        assert_eq!(log.service.records() == whole, refused.is_none());
    }
}

#[test]
fn the_result_of_an_admin_takes_its_room_in_a_full_state_from_the_oldest_notification() {
    let (limits, one) = room_for(3);
    let mut log = Log::with(limits);
    let alice = log.open("alice", 1);
    log.open("bobby", 2);
    let sent: Vec<Op> = (0..3).map(|_| log.send(alice, feed("alice")).unwrap()).collect();
    assert_eq!(log.service.weight(), limits.state_bytes, "it is full");
    let key = DeviceKey([9; 32]);
    assert_eq!(log.administer(AdminChange::Disallow { key }), Err(Code::KeyNotAllowed));
    let oldest = HistoryRange::After(Op::ZERO);
    assert_eq!(log.history("alice", Some(feed("alice")), oldest), Ok(sent[1..].to_vec()));
    assert_eq!(log.service.weight(), limits.state_bytes - one + crate::capacity::ADMINISTERED);
}
