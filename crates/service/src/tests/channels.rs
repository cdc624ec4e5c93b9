//! Channels: roles, privacy, deletion, and how many a profile makes.

use super::*;

#[test]
fn an_owned_channel_is_read_by_anyone_and_written_by_writers_and_owners() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.channel(alice, "ops", create(false)).unwrap();
    assert_eq!(log.channel(bob, "ops", create(true)), Err(Code::NameTaken));
    let first = log.send(alice, channel("ops")).unwrap();
    assert_eq!(log.send(bob, channel("ops")), Err(Code::NotAllowed));
    assert!(log.follow(bob, channel("ops")).is_ok());
    let newest = HistoryRange::Before(Op(u64::MAX));
    assert_eq!(log.history("bob", Some(channel("ops")), newest), Ok(vec![first]));
    log.channel(alice, "ops", add("bob", Role::Reader)).unwrap();
    assert_eq!(log.send(bob, channel("ops")), Err(Code::NotAllowed));
    log.channel(alice, "ops", add("bob", Role::Writer)).unwrap();
    let by_bob = log.send(bob, channel("ops")).unwrap();
    log.channel(alice, "ops", remove("bob")).unwrap();
    assert_eq!(log.send(bob, channel("ops")), Err(Code::NotAllowed));
    assert_eq!(log.pending(bob), [by_bob], "anyone goes on to follow what is not private");
}

#[test]
fn the_first_notification_of_an_open_channel_makes_it_and_no_other_does() {
    let mut log = Log::new();
    let (alice, bob) = (log.open("alice", 1), log.open("bob", 2));
    let made = |log: &Log, topic: Topic, result| {
        log.service.made_channel(&Request::Send { topic, content: content("hello") }, result)
    };
    let first = log.send(alice, channel("ops")).unwrap();
    assert!(made(&log, channel("ops"), Ok(first)));
    let second = log.send(bob, channel("ops")).unwrap();
    assert!(!made(&log, channel("ops"), Ok(second)));
    assert!(made(&log, channel("ops"), Ok(first)), "the same request is answered alike");
    assert!(!made(&log, channel("ops"), Err(Code::NotAllowed)));
    log.channel(alice, "own", create(false)).unwrap();
    let sent = log.send(alice, channel("own")).unwrap();
    assert!(!made(&log, channel("own"), Ok(sent)), "it was made before");
    let feed = Topic::Feed(name("alice"));
    let sent = log.send(alice, feed.clone()).unwrap();
    assert!(!made(&log, feed, Ok(sent)));
}

#[test]
fn a_private_channel_is_seen_by_its_members_alone() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.channel(alice, "ops", create(true)).unwrap();
    log.follow(alice, channel("ops")).unwrap();
    log.send(alice, channel("ops")).unwrap();
    let newest = HistoryRange::Before(Op(u64::MAX));
    assert_eq!(log.follow(bob, channel("ops")), Err(Code::NotAllowed));
    assert_eq!(log.send(bob, channel("ops")), Err(Code::NotAllowed));
    assert_eq!(log.history("bob", Some(channel("ops")), newest), Err(Code::NotAllowed));
    assert_eq!(log.list("bob", Listing::Members(channel_name("ops"))), Err(Code::NotAllowed));
    assert_eq!(log.list("bob", Listing::Channels), Ok(vec![]));
    log.channel(alice, "ops", add("bob", Role::Reader)).unwrap();
    log.follow(bob, channel("ops")).unwrap();
    let seen = log.send(alice, channel("ops")).unwrap();
    assert_eq!(log.pending(bob), [seen]);
    let listed = log.list("bob", Listing::Channels).unwrap();
    assert!(matches!(listed[..], [ListItem::Channel { access: Access::Private, followers: 2, .. }]));
    let members = log.list("bob", Listing::Members(channel_name("ops"))).unwrap();
    let member = |who, role| ListItem::Member { name: name(who), role };
    assert_eq!(members, [member("alice", Role::Owner), member("bob", Role::Reader)]);
}

#[test]
fn a_removed_reader_stops_following_and_gets_nothing_that_is_under_way() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.channel(alice, "ops", create(true)).unwrap();
    log.channel(alice, "ops", add("bob", Role::Reader)).unwrap();
    log.follow(bob, channel("ops")).unwrap();
    log.send(alice, channel("ops")).unwrap();
    let seq = log.service.session(alice).unwrap().last_seq.next();
    let request = Request::Channel { channel: channel_name("ops"), change: remove("bob") };
    let out = log.apply(Command::Request {
        session: alice,
        seq,
        answered_below: seq,
        request,
        digest: DIGEST,
        may_make: true,
        options: OptionalFields::NONE,
    });
    assert_eq!(out[0], Applied::Withdrawn { sessions: vec![bob] });
    assert_eq!(log.pending(bob), []);
    assert_eq!(log.list("bob", Listing::Following), Ok(vec![]));
    log.channel(alice, "ops", add("bob", Role::Reader)).unwrap();
    assert_eq!(log.unfollow(bob, channel("ops")), Err(Code::NotFollowing), "nor again by itself");
}

#[test]
fn a_member_that_is_removed_from_a_private_channel_leaves_no_follower_no_record_and_no_use_of_it() {
    let mut log = Log::new();
    let (alice, bob) = (log.open("alice", 1), log.open("bob", 2));
    log.channel(alice, "ops", create(true)).unwrap();
    let (created_ms, records) = (log.service.clock_ms(), log.service.records());
    log.channel(alice, "ops", add("bob", Role::Reader)).unwrap();
    log.follow(bob, channel("ops")).unwrap();
    log.channel(alice, "ops", remove("bob")).unwrap();
    assert_eq!(log.service.addressed(&channel("ops"))[..], [], "what is sent later is not for bob");
    assert_eq!(log.service.records(), records);
    // Nobody but its owner is left, and nothing was ever sent to it.
    let until_ms = created_ms + millis(Limits::default().unused);
    let tidy = |unix_ms| log.service.housekeeping(unix_ms, &Retention::default(), 10);
    assert_eq!(tidy(until_ms), []);
    assert_eq!(tidy(until_ms + 1), [Command::Expire(Claim::Channel { name: channel_name("ops") })]);
}

#[test]
fn only_owners_change_a_channel_and_one_of_them_stays() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.send(alice, channel("open")).unwrap();
    assert_eq!(log.channel(alice, "open", add("bob", Role::Reader)), Err(Code::NotAllowed));
    assert_eq!(log.channel(alice, "nowhere", ChannelChange::Delete), Err(Code::UnknownChannel));
    log.channel(alice, "ops", create(false)).unwrap();
    assert_eq!(log.channel(alice, "ops", add("nobody", Role::Reader)), Err(Code::UnknownProfile));
    assert_eq!(log.channel(alice, "ops", remove("bob")), Err(Code::NotMember));
    log.channel(alice, "ops", add("bob", Role::Writer)).unwrap();
    for change in [add("bob", Role::Owner), remove("alice"), ChannelChange::Delete] {
        assert_eq!(log.channel(bob, "ops", change), Err(Code::NotAllowed));
    }
    assert_eq!(log.channel(alice, "ops", remove("alice")), Err(Code::LastOne));
    assert_eq!(log.channel(alice, "ops", add("alice", Role::Reader)), Err(Code::LastOne));
    log.channel(alice, "ops", add("bob", Role::Owner)).unwrap();
    log.channel(alice, "ops", add("alice", Role::Reader)).unwrap();
    log.channel(alice, "ops", remove("alice")).unwrap();
    log.channel(bob, "ops", ChannelChange::Delete).unwrap();
}

#[test]
fn the_name_of_a_deleted_channel_is_nobodys_so_that_a_late_text_opens_it_to_nobody() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.channel(alice, "board", create(true)).unwrap();
    log.channel(alice, "board", add("bob", Role::Writer)).unwrap();
    log.channel(alice, "board", ChannelChange::Delete).unwrap();
    assert_eq!(log.send(bob, channel("board")), Err(Code::ChannelDeleted));
    for again in [create(false), create(true)] {
        assert_eq!(log.channel(bob, "board", again), Err(Code::ChannelDeleted));
    }
    assert_eq!(log.channel(alice, "board", add("bob", Role::Owner)), Err(Code::ChannelDeleted));
    assert_eq!(log.follow(bob, channel("board")), Err(Code::ChannelDeleted));
    assert_eq!(log.service.index, Index::of(&log.service.state));
}

#[test]
fn a_deleted_channel_is_gone_with_what_it_held() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.channel(alice, "ops", create(false)).unwrap();
    log.follow(bob, channel("ops")).unwrap();
    log.send(alice, channel("ops")).unwrap();
    log.channel(alice, "ops", ChannelChange::Delete).unwrap();
    let newest = HistoryRange::Before(Op(u64::MAX));
    assert_eq!(log.history("bob", Some(channel("ops")), newest), Err(Code::ChannelDeleted));
    assert_eq!(log.list("bob", Listing::Channels), Ok(vec![]));
    assert_eq!(log.service.index, Index::of(&log.service.state));
}

#[test]
fn those_who_follow_a_channel_find_in_their_streams_that_it_was_deleted() {
    let mut log = Log::new();
    let (alice, bob) = (log.open("alice", 1), log.open("bob", 2));
    log.channel(alice, "ops", create(true)).unwrap();
    log.channel(alice, "ops", add("bob", Role::Reader)).unwrap();
    log.follow(bob, channel("ops")).unwrap();
    log.send(alice, channel("ops")).unwrap();
    let deleted = log.channel(alice, "ops", ChannelChange::Delete).unwrap();
    let page = log.service.page(bob, Op(0), 10, 1_000);
    assert_eq!((page.gap, ops(&page.notifications)), (None, vec![deleted]));
    let notice = page.notifications[0].notification().unwrap();
    assert_eq!((notice.notice(), &notice.topic), (Some(Notice::ChannelDeleted), &channel("ops")));
    assert_eq!(notice.author, name("alice"));
    assert_eq!(log.retract(alice, deleted), Err(Code::UnknownNotification));
    // Once the name is free the follow is gone with it, and another channel of the name shows nothing older.
    log.spend(31, &[alice, bob]);
    assert_eq!(log.unfollow(bob, channel("ops")), Err(Code::NotFollowing));
    let first = log.send(bob, channel("ops")).unwrap();
    let all = HistoryRange::After(Op(0));
    assert_eq!(log.history("bob", Some(channel("ops")), all), Ok(vec![first]));
    assert_eq!(log.service.index, Index::of(&log.service.state));
}

#[test]
fn the_follow_of_a_deleted_channel_may_be_ended() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    log.send(alice, channel("ops")).unwrap();
    log.follow(alice, channel("ops")).unwrap();
    log.channel(alice, "ops", ChannelChange::Delete).unwrap();
    assert!(log.unfollow(alice, channel("ops")).is_ok());
    assert_eq!(log.pending(alice), []);
}

#[test]
fn an_open_channel_is_deleted_by_the_profile_that_made_it_and_by_no_other() {
    let mut log = Log::new();
    let (alice, bob) = (log.open("alice", 1), log.open("bob", 2));
    log.send(alice, channel("ops")).unwrap();
    log.send(bob, channel("ops")).unwrap();
    assert_eq!(log.channel(bob, "ops", ChannelChange::Delete), Err(Code::NotAllowed));
    log.channel(alice, "ops", ChannelChange::Delete).unwrap();
    assert_eq!(log.channel(alice, "ops", ChannelChange::Delete), Err(Code::ChannelDeleted));
    assert_eq!(log.send(alice, channel("ops")), Err(Code::ChannelDeleted));
    assert_eq!(log.service.index, Index::of(&log.service.state));
    // Who claims the name of a maker that was removed is another one.
    log.send(bob, channel("news")).unwrap();
    log.send(alice, channel("news")).unwrap();
    log.administer(AdminChange::RemoveProfile { name: name("bob") }).unwrap();
    let another = log.open("bob", 3);
    assert_eq!(log.channel(another, "news", ChannelChange::Delete), Err(Code::NotAllowed));
}

#[test]
fn an_open_channel_stays_if_there_is_no_room_for_the_record_of_its_deletion() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let sent = log.send(alice, channel("ops")).unwrap();
    log.service.limits.record_bytes = log.service.records();
    assert_eq!(log.channel(alice, "ops", ChannelChange::Delete), Err(Code::LimitReached));
    let all = HistoryRange::After(Op(0));
    assert_eq!(log.history("alice", Some(channel("ops")), all), Ok(vec![sent]));
}

#[test]
fn members_and_owned_channels_have_their_caps() {
    let mut log = Log::with(Limits { members: 2, channels_owned: 1, ..Limits::default() });
    let alice = log.open("alice", 1);
    log.open("bob", 2);
    log.open("carol", 3);
    log.channel(alice, "ops", create(false)).unwrap();
    assert_eq!(log.channel(alice, "news", create(false)), Err(Code::LimitReached));
    log.channel(alice, "ops", add("bob", Role::Owner)).unwrap();
    assert_eq!(log.channel(alice, "ops", add("carol", Role::Reader)), Err(Code::LimitReached));
    log.channel(alice, "ops", ChannelChange::Delete).unwrap();
    assert!(log.channel(alice, "news", create(false)).is_ok());
}

#[test]
fn an_owner_that_leaves_or_becomes_a_reader_may_own_another_channel() {
    for change in [remove("alice"), add("alice", Role::Reader)] {
        let mut log = Log::with(Limits { channels_owned: 1, ..Limits::default() });
        let alice = log.open("alice", 1);
        log.open("bob", 2);
        log.channel(alice, "ops", create(false)).unwrap();
        log.channel(alice, "ops", add("bob", Role::Owner)).unwrap();
        assert_eq!(log.channel(alice, "news", create(false)), Err(Code::LimitReached));
        log.channel(alice, "ops", change).unwrap();
        assert!(log.channel(alice, "news", create(false)).is_ok());
    }
}

#[test]
fn a_profile_makes_so_many_channels_at_once_and_then_one_each_while() {
    let limits = Limits { channels_at_once: 2, ..Limits::default() };
    let mut log = Log::with(limits);
    let alice = log.open("alice", 1);
    log.send(alice, channel("one")).unwrap();
    let first_ms = log.service.clock_ms();
    log.unix_ms -= 1;
    log.channel(alice, "two", ChannelChange::Create { private: true }).unwrap();
    assert_eq!(log.service.clock_ms(), first_ms, "both in the same millisecond");
    assert_eq!(log.send(alice, channel("three")), Err(Code::TooManyNames));
    let create = ChannelChange::Create { private: true };
    assert_eq!(log.channel(alice, "three", create), Err(Code::TooManyNames));
    assert!(log.send(alice, channel("one")).is_ok(), "what is there goes on");
    log.unix_ms = first_ms + recado_proto::id::millis(limits.channel_every) - 2;
    assert_eq!(log.send(alice, channel("three")), Err(Code::TooManyNames), "a millisecond too early");
    assert!(log.send(alice, channel("three")).is_ok());
    assert_eq!(log.send(alice, channel("four")), Err(Code::TooManyNames));
}

#[test]
fn a_profile_that_may_have_made_one_channel_makes_one_and_the_next_when_that_is_gone() {
    let mut log = Log::with(Limits { channels_made: 1, ..Limits::default() });
    let alice = log.open("alice", 1);
    assert!(log.send(alice, channel("one")).is_ok());
    assert_eq!(log.send(alice, channel("two")), Err(Code::LimitReached));
    log.administer(AdminChange::RemoveChannel { channel: channel_name("one") }).unwrap();
    assert!(log.send(alice, channel("two")).is_ok());
}

#[test]
fn a_profile_has_a_share_of_all_channels_deleted_ones_included() {
    let limits = Limits {
        channels: 9,
        channels_made: 4,
        channels_at_once: u32::MAX,
        channels_owned: 100,
        ..Limits::default()
    };
    let mut log = Log::with(limits);
    let mut made = Vec::new();
    for who in 1..=3_u8 {
        let session = log.open(&format!("maker{who}"), who);
        let count = (0..12).take_while(|n| match n % 3 {
            0 => log.send(session, channel(&format!("open{who}-{n}"))).is_ok(),
            1 => log.channel(session, &format!("owned{who}-{n}"), create(true)).is_ok(),
            _ => {
                let which = format!("deleted{who}-{n}");
                log.channel(session, &which, create(true)).is_ok()
                    && log.channel(session, &which, ChannelChange::Delete).is_ok()
            }
        });
        made.push(count.count());
    }
    assert_eq!(made, [4, 4, 1], "each has its share, as long as there are any");
    log.administer(AdminChange::RemoveProfile { name: name("maker1") }).unwrap();
    log.administer(AdminChange::RemoveChannel { channel: channel_name("deleted1-2") }).unwrap();
    assert_eq!(log.service.index, Index::of(&log.service.state));
}

#[test]
fn a_request_whose_network_may_make_no_channel_is_refused_and_makes_none() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    log.send(alice, channel("there")).unwrap();
    let mut ask = |request: Request| {
        let seq = log.service.session(alice).unwrap().last_seq.next();
        let (answered_below, may_make) = (seq, false);
        let request = Command::Request {
            session: alice,
            seq,
            answered_below,
            request,
            digest: DIGEST,
            may_make,
            options: OptionalFields::NONE,
        };
        match log.apply(request).last() {
            Some(Applied::Answered { result, .. }) => result.err(),
            other => panic!("{other:?}"),
        }
    };
    let send = |to: &str| Request::Send { topic: channel(to), content: content("hello") };
    let make = Request::Channel { channel: channel_name("anew"), change: create(false) };
    assert_eq!(ask(send("anew")), Some(Code::TooManyNames));
    assert_eq!(ask(make), Some(Code::TooManyNames));
    assert_eq!(ask(send("there")), None, "what is there goes on");
    assert_eq!(log.service.state.topics.channels.len(), 1);
}
