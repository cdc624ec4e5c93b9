//! Queries: history, lists, and information about a profile.

use recado_proto::packet::Selection;

use super::*;
use crate::SelectedPage;

#[test]
fn a_device_that_ever_received_counts_for_what_is_unread_also_while_it_only_sends() {
    let mut log = Log::new();
    let behind = device(1, 0);
    let session = log.enter("alice", behind, 1, true);
    log.apply(Command::SessionClose { session });
    let ahead = log.enter("alice", device(1, 1), 2, true);
    let bob = log.open("bob", 2);
    log.send(bob, inbox("alice")).unwrap();
    let read = log.service.applied();
    log.apply(Command::Cursors(vec![(ahead, read)]));
    let (profile, invite, admission) = (name("alice"), None, Admission::Open);
    let (receives, nonce, fresh, code) = (false, 3, false, None);
    let open = SessionOpen {
        device: behind,
        profile,
        receives,
        nonce,
        fresh,
        code,
        invite,
        admission,
        aead: Default::default(),
        options: OptionalFields::NONE,
    };
    let out = log.apply(Command::SessionOpen(open));
    let [Applied::SessionOpened { session, .. }] = out[..] else { panic!("{out:?}") };
    log.apply(Command::SessionConfirm { session });
    assert!(!log.service.session(session).unwrap().receives);
    assert_eq!(log.service.info(&name("alice")).unwrap().pending, 1);
}

#[test]
fn history_pages_in_both_directions_and_by_time() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let sent: Vec<Op> = (0..5).map(|_| log.send(alice, feed("alice")).unwrap()).collect();
    let of = |range| log.history("alice", Some(feed("alice")), range).unwrap();
    assert_eq!(of(HistoryRange::Before(Op(u64::MAX))), sent[3..]);
    assert_eq!(of(HistoryRange::Before(sent[3])), sent[1..3]);
    assert_eq!(of(HistoryRange::After(sent[0])), sent[1..3]);
    assert_eq!(of(HistoryRange::SinceMs(log.unix_ms)), sent[4..]);
}

#[test]
fn a_history_of_several_topics_is_in_the_order_of_the_log_also_read_from_its_end() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.follow(bob, feed("alice")).unwrap();
    let round = [(alice, feed("alice")), (alice, inbox("bob")), (bob, inbox("alice"))];
    let mut send_round = || round.clone().map(|(by, to)| log.send(by, to).unwrap());
    let (older, newer) = (send_round(), send_round());
    let pages = |topic: Option<Topic>| {
        let last = log.history("bob", topic.clone(), HistoryRange::Before(Op(u64::MAX))).unwrap();
        let before = log.history("bob", topic, HistoryRange::Before(last[0])).unwrap();
        [before, last]
    };
    assert_eq!(pages(None), [older[..2].to_vec(), newer[..2].to_vec()], "what he follows");
    assert_eq!(pages(Some(inbox("bob"))), [older[1..].to_vec(), newer[1..].to_vec()], "and what he sent");
}

#[test]
fn an_answer_of_history_holds_as_many_bytes_as_it_may_and_no_more() {
    let half = History::BYTES_MAX / 2 - crate::state::REST as usize;
    for (beyond, fit) in [(0, 2), (1, 1)] {
        let mut log = Log::new();
        let alice = log.open("alice", 1);
        for bytes in [half, half + beyond] {
            let content = content(&"x".repeat(bytes));
            log.request(alice, Request::Send { topic: feed("alice"), content }).unwrap();
        }
        for range in [HistoryRange::After(Op::ZERO), HistoryRange::Before(Op(u64::MAX))] {
            let topic = Some(feed("alice"));
            let query = History { topic, range, limit: History::LIMIT_MAX };
            let answer = log.service.history(&name("alice"), &query, History::BYTES_MAX).unwrap();
            let told = (answer.notifications.len(), answer.more);
            assert_eq!(told, (fit, fit < 2), "{beyond} bytes beyond");
        }
    }
}

#[test]
fn an_answer_of_history_has_as_many_notifications_as_requested_and_at_least_one() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let most = History::LIMIT_MAX as usize;
    for _ in 0..=most {
        log.send(alice, feed("alice")).unwrap();
    }
    for (limit, count) in [(0, 1), (1, 1), (2, 2), (History::LIMIT_MAX, most), (u32::MAX, most)] {
        let (topic, range) = (Some(feed("alice")), HistoryRange::After(Op::ZERO));
        let query = History { topic, range, limit };
        let answer = log.service.history(&name("alice"), &query, History::BYTES_MAX).unwrap();
        assert_eq!((answer.notifications.len(), answer.more), (count, true), "limit {limit}");
    }
}

/// All pages of a selection from this range on, and their number.
fn selected(log: &Log, range: HistoryRange, limit: u32, selection: &Selection) -> (Vec<Op>, usize) {
    let (mut range, mut all, mut pages) = (range, Vec::new(), 0);
    loop {
        let query = History { topic: Some(feed("alice")), range, limit };
        let SelectedPage { page, reached, .. } =
            log.service.select(&name("bob"), &query, selection, History::BYTES_MAX).unwrap();
        pages += 1;
        all.extend(page.notifications.iter().map(|one| one.op));
        if !page.more {
            all.sort();
            return (all, pages);
        }
        let next = reached.expect("a page that has more says from where");
        range = match range {
            HistoryRange::Before(before) if next < before => HistoryRange::Before(next),
            HistoryRange::After(after) if next <= after => panic!("no progress at {next}"),
            HistoryRange::After(_) | HistoryRange::SinceMs(_) => HistoryRange::After(next),
            HistoryRange::Before(_) => panic!("no progress at {next}"),
        };
    }
}

#[test]
fn the_pages_of_a_selection_hold_all_that_it_asks_for_once_and_in_both_directions() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    log.open("bob", 2);
    let all: Vec<Op> = (0..2_500)
        .map(|n| {
            let mut content = content(if n % 700 == 3 { "Found IT" } else { "x" });
            content.priority = (1 + (n % 5) as u8).try_into().unwrap();
            log.request(alice, Request::Send { topic: feed("alice"), content }).unwrap()
        })
        .collect();
    let found: Vec<Op> = all.iter().copied().skip(3).step_by(700).collect();
    let text = Selection { text: Some("found it".to_owned()), ..Selection::default() };
    for range in [HistoryRange::Before(Op(u64::MAX)), HistoryRange::After(Op::ZERO), HistoryRange::SinceMs(0)]
    {
        assert_eq!(selected(&log, range, 256, &text), (found.clone(), 3), "a page looks at 1,024");
        assert_eq!(selected(&log, range, 1, &text).0, found);
        let ended = Selection { before: Some(found[2]), ..text.clone() };
        assert_eq!(selected(&log, range, 256, &ended).0, found[..2]);
        let urgent = Selection { least: Some(5.try_into().unwrap()), ..Selection::default() };
        assert_eq!(selected(&log, range, 100, &urgent).0.len(), 500);
        let first = Selection { before: Some(all[100]), ..Selection::default() };
        assert_eq!(selected(&log, range, 256, &first), (all[..100].to_vec(), 1), "the end costs no look");
    }
}

#[test]
fn a_page_of_a_selection_looks_at_so_many_bytes() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    log.open("bob", 2);
    for _ in 0..40 {
        let content = content(&"x".repeat(16 * 1024));
        log.request(alice, Request::Send { topic: feed("alice"), content }).unwrap();
    }
    let text = Selection { text: Some("y".to_owned()), ..Selection::default() };
    assert_eq!(selected(&log, HistoryRange::After(Op::ZERO), 256, &text), (Vec::new(), 3));
}

#[test]
fn lists_and_info_return_the_state() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    let since = log.follow(bob, feed("alice")).unwrap();
    log.send(alice, channel("ops")).unwrap();
    log.send(alice, feed("alice")).unwrap();
    let list = |what, after: Option<&str>| {
        let query = List { what, after: after.map(str::to_owned) };
        let (answer, _) = log.service.list(&name("alice"), &query, false).unwrap();
        answer.items.iter().map(|item| item.key()).collect::<Vec<_>>()
    };
    assert_eq!(list(Listing::People, None), ["alice", "bob"]);
    assert_eq!(list(Listing::People, Some("alice")), ["bob"]);
    assert_eq!(list(Listing::Followers, None), ["bob"]);
    assert_eq!(list(Listing::Channels, None), ["ops"]);
    assert_eq!(list(Listing::Devices, None).len(), 1);
    let info = log.service.info(&name("bob")).unwrap();
    assert_eq!((info.following, info.devices, info.sessions, info.pending), (1, 1, 1, 1));
    assert!(info.since < since);
    let followers = ["alice", "bob"].map(|who| log.service.info(&name(who)).unwrap().followers);
    assert_eq!(followers, [1, 0], "nobody ever followed bob");
    assert_eq!(["alice", "bob", "nobody"].map(|who| log.service.follows(&name(who))), [0, 1, 0]);
}

#[test]
fn a_profile_without_a_device_has_nothing_pending() {
    let mut log = Log::new();
    log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.send(bob, inbox("alice")).unwrap();
    let info = |log: &Log| {
        let info = log.service.info(&name("alice")).unwrap();
        (info.devices, info.sessions, info.pending)
    };
    assert_eq!(info(&log), (1, 1, 1));
    log.administer(AdminChange::Release { name: name("alice") }).unwrap();
    assert_eq!(info(&log), (0, 0, 0));
}

/// A service where alice follows this many channels, all of which she has made.
fn with_channels(count: usize) -> Log {
    let mut log = Log::with(Limits { channels_made: 1_000, channels_at_once: u32::MAX, ..Limits::default() });
    let alice = log.open("alice", 1);
    for n in 0..count {
        let room = channel(&format!("room{n:03}"));
        log.send(alice, room.clone()).unwrap();
        log.follow(alice, room).unwrap();
    }
    log
}

#[test]
fn a_page_of_a_list_has_as_many_items_as_allowed_and_states_whether_more_follow() {
    let most = List::ITEMS_MAX;
    for what in [Listing::Following, Listing::Channels] {
        let page = |log: &Log, after: Option<String>| {
            let query = List { what: what.clone(), after };
            let (answer, _) = log.service.list(&name("alice"), &query, false).unwrap();
            (answer.items.len(), answer.more, answer.items.last().map(ListItem::key))
        };
        let (count, more, _) = page(&with_channels(most), None);
        assert_eq!((count, more), (most, false), "{what:?}");
        let log = with_channels(most + 1);
        let (count, more, last) = page(&log, None);
        assert_eq!((count, more), (most, true), "{what:?}");
        let (count, more, _) = page(&log, last);
        assert_eq!((count, more), (1, false), "{what:?}");
    }
}

#[test]
fn a_page_of_channels_skips_no_channel_after_the_item_that_shows_that_more_follow() {
    let mut log = with_channels(List::ITEMS_MAX + 1);
    let bob = log.open("bob", 2);
    log.channel(bob, "secret", create(true)).unwrap();
    let passed_over = |after: Option<&str>| {
        let query = List { what: Listing::Channels, after: after.map(str::to_owned) };
        log.service.list(&name("alice"), &query, false).unwrap().1
    };
    assert_eq!(passed_over(None), 0);
    assert_eq!(passed_over(Some("room199")), 1, "the next page reaches it");
}

#[test]
fn a_list_goes_on_with_what_comes_after_the_item_that_was_last() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    for (who, key) in [("bob", 2), ("carol", 3)] {
        log.open(who, key);
        log.follow(alice, feed(who)).unwrap();
    }
    log.send(alice, channel("ops")).unwrap();
    log.follow(alice, channel("ops")).unwrap();
    for key in [4, 5] {
        log.keys(alice, KeyChange::Enrol { code: CODE }).unwrap();
        log.enrol("alice", key, CODE).unwrap();
    }
    for what in [Listing::Following, Listing::Devices, Listing::Keys, Listing::People] {
        let list = |after: Option<String>| {
            let query = List { what: what.clone(), after };
            let (answer, _) = log.service.list(&name("alice"), &query, false).unwrap();
            answer.items.iter().map(|item| item.key()).collect::<Vec<String>>()
        };
        let all = list(None);
        assert_eq!(all.len(), 3, "{what:?}");
        for (at, last) in all.iter().enumerate() {
            assert_eq!(list(Some(last.clone())), all[at + 1..], "{what:?} after {last}");
        }
    }
}

#[test]
fn channels_of_any_name_are_followed_and_read_and_differ_by_case() {
    let mut log = Log::new();
    let (alice, bob) = (log.open("alice", 1), log.open("bob", 2));
    let names = ["OPS", "Ops", "ops", "_", &longest(1), &longest(2)];
    for which in names {
        log.channel(alice, which, create(false)).unwrap();
        log.follow(bob, channel(which)).unwrap();
    }
    assert_eq!(log.channel(bob, &longest(1), create(false)), Err(Code::NameTaken));
    let sent = names.map(|which| log.send(alice, channel(which)).unwrap());
    assert_eq!(log.pending(bob), sent);
    for (which, op) in names.iter().zip(sent) {
        assert_eq!(log.history("bob", Some(channel(which)), HistoryRange::After(Op::ZERO)), Ok(vec![op]));
    }
    log.channel(alice, &longest(1), ChannelChange::Delete).unwrap();
    assert_eq!(log.send(bob, channel(&longest(1))), Err(Code::ChannelDeleted));
    log.administer(AdminChange::RemoveChannel { channel: channel_name("Ops") }).unwrap();
    let listed: Vec<String> = log.list("bob", Listing::Channels).unwrap().iter().map(ListItem::key).collect();
    assert_eq!(listed, ["OPS", &longest(2), "_", "ops"]);
    let state: State = codec::decode(&codec::encode(&log.service.state)).unwrap();
    assert_eq!(state, log.service.state);
}

/// The key of an item names the page after it, so it is in the bounds of a query.
#[test]
fn a_list_goes_on_after_the_longest_names_of_channels() {
    let most = List::ITEMS_MAX;
    let mut log = with_channels(0);
    let alice = log.enter("alice", device(1, 0), 9, false);
    for n in 0..most + 2 {
        log.send(alice, channel(&longest(n))).unwrap();
        log.follow(alice, channel(&longest(n))).unwrap();
    }
    for what in [Listing::Following, Listing::Channels] {
        let page = |after: Option<String>| {
            let query = Query::new(QueryId(1), QueryKind::List(List { what: what.clone(), after }));
            let asked = codec::encode(&ToServer::Query(query));
            let Ok((ToServer::Query(query), _)) = codec::decode_packet(&asked) else {
                panic!("out of bounds")
            };
            let QueryKind::List(list) = query.kind else { panic!("another query") };
            log.service.list(&name("alice"), &list, false).unwrap().0
        };
        let first = page(None);
        assert_eq!((first.items.len(), first.more), (most, true), "{what:?}");
        let second = page(first.items.last().map(ListItem::key));
        assert_eq!((second.items.len(), second.more), (2, false), "{what:?}");
        let answer = AnswerKind::List(first);
        assert!(encoded_answer(answer) <= codec::PACKET_MAX, "{what:?}");
    }
}

#[test]
fn the_largest_page_of_history_is_a_packet() {
    let mut log = Log::new();
    let author = "a".repeat(Name::LEN_MAX);
    let session = log.open(&author, 1);
    let room = channel(&longest(0));
    log.unix_ms = u64::from(u32::MAX) + 1;
    // The page is full by its bytes and by its number at once.
    let text = History::BYTES_MAX / History::LIMIT_MAX as usize - super::state::REST as usize;
    let mut content = content(&"x".repeat(text - Content::TAGS_MAX - 1));
    content.tags = vec!["t".to_owned(); Content::TAGS_MAX];
    content.title = Some("t".to_owned());
    for _ in 0..History::LIMIT_MAX {
        let request = Request::Send { topic: room.clone(), content: content.clone() };
        log.request(session, request).unwrap();
    }
    let query = History { topic: Some(room), range: HistoryRange::After(Op::ZERO), limit: u32::MAX };
    let mut page = log.service.history(&name(&author), &query, History::BYTES_MAX).unwrap();
    assert_eq!(page.notifications.len(), History::LIMIT_MAX as usize);
    for notification in &mut page.notifications {
        Arc::make_mut(notification).op.0 += u64::MAX / 2;
    }
    let bytes = encoded_answer(AnswerKind::History(page));
    assert!(bytes <= codec::PACKET_MAX, "{bytes}");
}

/// The bytes of the packet with this answer.
fn encoded_answer(kind: AnswerKind) -> usize {
    let answer = Answer {
        id: QueryId(u64::MAX),
        applied: Position::of(Op(u64::MAX)),
        kind,
        options: OptionalFields::NONE,
    };
    codec::encode(&ToClient::Answer(answer)).len()
}

#[test]
fn a_list_of_channels_counts_those_that_its_asker_may_not_see() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    log.open("bob", 2);
    for (which, private) in [("diary", true), ("news", false), ("team", true)] {
        log.channel(alice, which, create(private)).unwrap();
    }
    let passed_over = |asker: &str, what: Listing| {
        let query = List { what, after: None };
        let (answer, passed_over) = log.service.list(&name(asker), &query, false).unwrap();
        (answer.items.len(), passed_over)
    };
    assert_eq!(passed_over("bob", Listing::Channels), (1, 2));
    assert_eq!(passed_over("alice", Listing::Channels), (3, 0));
    assert_eq!(passed_over("bob", Listing::People), (2, 0));
}
