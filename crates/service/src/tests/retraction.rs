//! Retraction of notifications, and display names.

use super::*;

/// The notices that a session's pending notifications are, with their ops.
fn notices(log: &Log, session: SessionId) -> Vec<(Op, Option<Notice>)> {
    let page = log.service.page(session, Op(0), 1_000, 1 << 20);
    let whole = page.notifications.iter().map(|one| one.notification().unwrap());
    whole.map(|one| (one.op, one.notice())).collect()
}

fn holds(log: &Log, text: &str) -> bool {
    let bytes = codec::encode(&log.service.state());
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn a_retracted_text_is_in_no_state_and_its_place_and_the_retraction_are() {
    let mut log = Log::new();
    let (alice, bob) = (log.open("alice", 1), log.open("bob", 2));
    for topic in [feed("alice"), channel("ops"), inbox("bob")] {
        let followed = topic == inbox("bob") || {
            let opened = log.send(alice, topic.clone()).is_ok();
            opened && log.follow(bob, topic.clone()).is_ok()
        };
        assert!(followed);
        let before = log.service.applied();
        let sent = log.send_text(alice, topic.clone(), "a secret").unwrap();
        let other = log.send_text(alice, topic.clone(), "no secret").unwrap();
        assert!(holds(&log, "a secret"));
        let retracted = log.retract(alice, sent).unwrap();
        assert!(!holds(&log, "a secret") && holds(&log, "no secret"), "{topic}");
        let wanted =
            [(sent, Some(Notice::Retracted)), (other, None), (retracted, Some(Notice::Retracts(sent)))];
        let mut told = notices(&log, bob);
        told.retain(|(op, _)| *op > before);
        assert_eq!(told, wanted, "{topic}");
        // Its author reads what it sent to others in its own inbox.
        let (asker, asked) = match &topic {
            Topic::Inbox(_) => (name("alice"), inbox("alice")),
            topic => (name("bob"), topic.clone()),
        };
        let query = History { topic: Some(asked), range: HistoryRange::After(before), limit: 9 };
        let page = log.service.history(&asker, &query, History::BYTES_MAX).unwrap().notifications;
        assert_eq!(page.iter().map(|one| (one.op, one.notice())).collect::<Vec<_>>(), wanted, "{topic}");
        assert!(page.iter().all(|one| one.topic == topic && one.author == name("alice")));
        assert_eq!(log.service.index, Index::of(&log.service.state));
        log.request(alice, Request::Retract { op: other, topic: Some(topic) }).unwrap();
    }
}

#[test]
fn a_retraction_asked_for_twice_is_done_once() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let sent = log.send(alice, channel("ops")).unwrap();
    let first = log.retract(alice, sent).unwrap();
    assert!(log.retract(alice, sent).is_ok());
    let all = HistoryRange::After(Op(0));
    assert_eq!(log.history("alice", Some(channel("ops")), all), Ok(vec![sent, first]));
    assert_eq!(log.retract(alice, first), Err(Code::UnknownNotification), "it has no text");
}

#[test]
fn only_the_author_and_the_owners_of_the_channel_retract() {
    let mut log = Log::new();
    let (alice, bob, carol) = (log.open("alice", 1), log.open("bob", 2), log.open("carol", 3));
    log.channel(alice, "ops", create(true)).unwrap();
    log.channel(alice, "ops", add("bob", Role::Writer)).unwrap();
    let by_bob = log.send(bob, channel("ops")).unwrap();
    let by_alice = log.send(alice, channel("ops")).unwrap();
    assert_eq!(log.retract(bob, by_alice), Err(Code::NotAllowed));
    assert_eq!(log.retract(carol, by_alice), Err(Code::UnknownNotification), "she may not know of it");
    log.channel(alice, "ops", remove("bob")).unwrap();
    log.retract(bob, by_bob).unwrap();
    let again = log.send(alice, channel("ops")).unwrap();
    log.channel(alice, "ops", add("bob", Role::Owner)).unwrap();
    log.retract(bob, again).unwrap();

    let to_carol = log.send(bob, inbox("carol")).unwrap();
    assert_eq!(log.retract(carol, to_carol), Err(Code::NotAllowed), "who gets it did not write it");
    assert_eq!(log.retract(alice, to_carol), Err(Code::UnknownNotification));
    let open = log.send(alice, channel("open")).unwrap();
    assert_eq!(log.retract(bob, open), Err(Code::NotAllowed));
    let to_all = log.send(alice, feed("alice")).unwrap();
    assert_eq!(log.retract(bob, to_all), Err(Code::NotAllowed), "he may read it, though he does not follow");
    assert_eq!(log.retract(bob, Op(1)), Err(Code::UnknownNotification), "no notification");
    assert_eq!(log.retract(bob, Op(u64::MAX)), Err(Code::UnknownNotification));
}

#[test]
fn who_claims_an_authors_name_later_is_not_the_author() {
    let mut log = Log::new();
    let (alice, bob) = (log.open("alice", 1), log.open("bob", 2));
    let sent = log.send(alice, channel("ops")).unwrap();
    log.follow(bob, channel("ops")).unwrap();
    log.administer(AdminChange::RemoveProfile { name: name("alice") }).unwrap();
    let another = log.open("alice", 3);
    assert_eq!(log.retract(another, sent), Err(Code::NotAllowed));
}

#[test]
fn what_retention_dropped_cannot_be_retracted_and_what_was_retracted_is_dropped_as_any_other() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let (one, two) = (log.send(alice, inbox("bob")), log.send(alice, channel("ops")).unwrap());
    assert_eq!(one, Err(Code::UnknownProfile));
    log.open("bob", 2);
    let one = log.send(alice, inbox("bob")).unwrap();
    let last = log.retract(alice, one).unwrap();
    log.apply(Command::Trim { topic: inbox("bob"), upto: last });
    assert!(log.service.state.profiles[&name("alice")].sent.is_empty());
    assert_eq!(log.retract(alice, one), Err(Code::UnknownNotification));
    log.apply(Command::Trim { topic: channel("ops"), upto: two });
    assert_eq!(log.retract(alice, two), Err(Code::UnknownNotification));
    assert_eq!(log.service.index, Index::of(&log.service.state));
}

#[test]
fn a_retraction_and_a_deletion_say_whose_packets_may_hold_the_texts() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let sent = log.send(alice, channel("ops")).unwrap();
    let mut asked = |request| {
        let seq = log.service.session(alice).unwrap().last_seq.next();
        let (may_make, options) = (true, OptionalFields::NONE);
        let (session, answered_below, digest) = (alice, seq, DIGEST);
        log.apply(Command::Request { session, seq, answered_below, request, digest, may_make, options })
    };
    let retraction = asked(Request::Retract { op: sent, topic: Some(channel("ops")) });
    let told = |out: &[Applied]| match out {
        [Applied::Retracted { topic, op }, Applied::Notified { .. }, Applied::Answered { .. }] => {
            (topic.clone(), *op) == (channel("ops"), sent)
        }
        [
            Applied::Withdrawn { .. },
            Applied::Emptied { topic },
            Applied::Notified { .. },
            Applied::Answered { .. },
        ] => *topic == channel("ops"),
        _ => false,
    };
    assert!(told(&retraction), "{retraction:?}");
    let deletion = asked(Request::Channel { channel: channel_name("ops"), change: ChannelChange::Delete });
    assert!(told(&deletion), "{deletion:?}");
}

#[test]
fn who_stops_following_has_nothing_of_the_topic_queued_that_could_be_retracted_unseen() {
    let mut log = Log::new();
    let (alice, bob) = (log.open("alice", 1), log.open("bob", 2));
    log.send(alice, channel("ops")).unwrap();
    log.follow(bob, channel("ops")).unwrap();
    let seq = log.service.session(bob).unwrap().last_seq.next();
    let request = Request::Follow { topic: channel("ops"), change: FollowChange::Remove };
    let (may_make, options) = (true, OptionalFields::NONE);
    let (session, answered_below, digest) = (bob, seq, DIGEST);
    let out =
        log.apply(Command::Request { session, seq, answered_below, request, digest, may_make, options });
    assert_eq!(out[0], Applied::Withdrawn { sessions: vec![bob] });
}

#[test]
fn a_display_name_stands_beside_the_name_until_it_is_changed_or_the_name_is_released() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    log.open("bob", 2);
    let display = |text: &str| Some(text.parse::<DisplayName>().unwrap());
    let set = |log: &mut Log, name| log.request(alice, Request::Display { name });
    let of_alice = |log: &Log| log.service.display(&name("alice")).cloned();
    set(&mut log, display("Alice B.")).unwrap();
    assert_eq!(of_alice(&log), display("Alice B."));
    let people = log.list("bob", Listing::People).unwrap();
    let [ListItem::Displayed { name: who, display: called, .. }, ListItem::Profile { name: bare, .. }] =
        &people[..]
    else {
        panic!("{people:?}")
    };
    assert_eq!((who, called.as_str(), bare), (&name("alice"), "Alice B.", &name("bob")));
    // A client that does not ask for display names reads none.
    let query = List { what: Listing::People, after: None };
    let (plain, _) = log.service.list(&name("bob"), &query, false).unwrap();
    assert!(plain.items.iter().all(|item| matches!(item, ListItem::Profile { .. })));
    set(&mut log, None).unwrap();
    assert_eq!(of_alice(&log), None);
    set(&mut log, display("Alice")).unwrap();
    log.administer(AdminChange::Release { name: name("alice") }).unwrap();
    assert_eq!(of_alice(&log), None, "the next one did not choose it");
}
