//! Follows, and the sessions that a notification is for.

use super::*;

#[test]
fn follows_and_sends_are_refused_by_typed_codes() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    assert_eq!(log.follow(alice, feed("nobody")), Err(Code::UnknownProfile));
    assert_eq!(log.follow(alice, channel("ops")), Err(Code::UnknownChannel));
    assert_eq!(log.follow(alice, feed("alice")), Err(Code::Yourself));
    assert_eq!(log.unfollow(alice, inbox("alice")), Err(Code::Yourself));
    assert_eq!(log.follow(alice, inbox("bob")), Err(Code::NotAllowed));
    assert_eq!(log.unfollow(alice, feed("bob")), Err(Code::NotFollowing));
    assert!(log.follow(alice, feed("bob")).is_ok());
    assert_eq!(log.follow(alice, feed("bob")), Err(Code::AlreadyFollowing));
    assert_eq!(log.send(bob, feed("alice")), Err(Code::NotAllowed));
    assert_eq!(log.send(bob, inbox("nobody")), Err(Code::UnknownProfile));
    let long = Request::Send { topic: channel("ops"), content: content(&"x".repeat(Content::BODY_MAX + 1)) };
    assert_eq!(log.request(bob, long), Err(Code::TooLarge));
}

#[test]
fn a_profile_follows_as_many_topics_as_it_may_and_another_once_it_leaves_one() {
    let mut log = Log::with(Limits { follows: 2, ..Limits::default() });
    let alice = log.open("alice", 1);
    for (who, key) in [("bob", 2), ("carol", 3), ("dave", 4)] {
        log.open(who, key);
    }
    log.follow(alice, feed("bob")).unwrap();
    log.follow(alice, feed("carol")).unwrap();
    assert_eq!(log.follow(alice, feed("dave")), Err(Code::LimitReached));
    log.unfollow(alice, feed("bob")).unwrap();
    assert!(log.follow(alice, feed("dave")).is_ok());
}

#[test]
fn the_sessions_that_a_notification_is_for_are_ascending_whatever_their_profiles_are_called() {
    let mut log = Log::new();
    let [zoe, bob, alice] = [("zoe", 1), ("bob", 2), ("alice", 3)].map(|(who, key)| log.open(who, key));
    log.send(zoe, channel("ops")).unwrap();
    for session in [alice, bob] {
        log.follow(session, channel("ops")).unwrap();
    }
    assert_eq!(log.service.addressed(&channel("ops"))[..], [bob, alice], "fewer follow it than receive");
    log.follow(zoe, channel("ops")).unwrap();
    assert_eq!(log.service.addressed(&channel("ops"))[..], [zoe, bob, alice], "all that receive follow it");
}

#[test]
fn a_send_walks_the_followers_or_the_profiles_that_receive_whichever_are_fewer() {
    let mut log = Log::new();
    log.open("alice", 1);
    let (bob, carol) = (log.open("bob", 2), log.open("carol", 3));
    assert_eq!(log.service.fan_out(&feed("alice")), 0, "nobody has followed it yet");
    for session in [bob, carol] {
        log.follow(session, feed("alice")).unwrap();
    }
    assert_eq!(log.service.fan_out(&feed("alice")), 2, "three receive");
    for session in [bob, carol] {
        log.apply(Command::SessionClose { session });
    }
    assert_eq!(log.service.fan_out(&feed("alice")), 1, "one receives");
}

#[test]
fn a_channel_echoes_to_its_sender_and_an_inbox_shows_what_was_sent() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.send(alice, channel("ops")).unwrap();
    log.follow(alice, channel("ops")).unwrap();
    let echo = log.send(alice, channel("ops")).unwrap();
    let sent = log.send(alice, inbox("bob")).unwrap();
    assert_eq!(log.pending(alice), [echo]);
    assert_eq!(log.pending(bob), [sent]);
    let newest = HistoryRange::Before(Op(u64::MAX));
    assert_eq!(log.history("alice", Some(inbox("alice")), newest), Ok(vec![sent]));
    assert_eq!(log.history("alice", Some(inbox("bob")), newest), Err(Code::NotAllowed));
    assert_eq!(log.history("alice", None, newest), Ok(vec![echo]));
    log.apply(Command::Trim { topic: inbox("bob"), upto: sent });
    assert_eq!(log.history("alice", Some(inbox("alice")), newest), Ok(vec![]));
}

#[test]
fn a_follow_again_counts_from_its_own_op() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.follow(bob, feed("alice")).unwrap();
    log.send(alice, feed("alice")).unwrap();
    log.unfollow(bob, feed("alice")).unwrap();
    log.follow(bob, feed("alice")).unwrap();
    let later = log.send(alice, feed("alice")).unwrap();
    assert_eq!(log.pending(bob), [later]);
}

#[test]
fn whom_a_notification_is_for_follows_each_change() {
    let mut log = Log::new();
    let (alice, bob) = (log.open("alice", 1), log.open("bob", 2));
    let audience = |log: &Log| log.service.addressed(&feed("alice")).to_vec();
    log.send(alice, feed("alice")).unwrap();
    assert_eq!(audience(&log), []);
    log.follow(bob, feed("alice")).unwrap();
    assert_eq!(audience(&log), [bob]);
    let newer = log.open("bob", 2);
    assert_eq!(audience(&log), [newer], "it fences the other");
    log.send(alice, feed("alice")).unwrap();
    assert_eq!(audience(&log), [newer]);
    log.apply(Command::SessionClose { session: newer });
    assert_eq!(audience(&log), []);
}
