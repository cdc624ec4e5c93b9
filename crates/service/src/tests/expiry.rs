//! Names that expire, and the names of channels that are gone.

use super::*;

#[test]
fn a_name_that_was_claimed_and_never_used_is_free_after_a_week_and_a_used_one_stays() {
    let mut log = Log::new();
    let squatter = log.open("squatter", 1);
    let users = ["sends", "follows", "returns", "followed", "gets"];
    let sessions: Vec<SessionId> = users.iter().zip(2..).map(|(who, key)| log.open(who, key)).collect();
    log.send(sessions[0], feed("sends")).unwrap();
    log.follow(sessions[1], feed("followed")).unwrap();
    log.enter("returns", device(4, 0), 99, false);
    log.send(sessions[0], inbox("gets")).unwrap();
    let listener = log.open("listener", 8);
    log.apply(Command::SessionClose { session: squatter });
    log.tidy_after(6);
    assert!(log.has_profile("squatter"), "not yet");
    log.apply(Command::Cursors(vec![(listener, Op(0))]));
    log.tidy_after(2);
    assert!(!log.has_profile("squatter"));
    for who in users.iter().chain(&["listener"]) {
        assert!(log.has_profile(who), "{who}");
    }
    let again = log.open("squatter", 20);
    assert!(log.service.session(again).is_some());
}

#[test]
fn a_name_that_was_used_once_stays_though_nobody_is_there_any_more() {
    let mut log = Log::new();
    let (sends, follows, makes) = (log.open("sends", 1), log.open("follows", 2), log.open("makes", 3));
    let refused = log.open("refused", 4);
    for (who, key) in [("returns", 5), ("followed", 6), ("gets", 7), ("member", 8), ("idle", 9)] {
        log.open(who, key);
    }
    log.send(sends, feed("sends")).unwrap();
    log.send(sends, inbox("gets")).unwrap();
    log.follow(follows, feed("followed")).unwrap();
    log.channel(makes, "ops", create(false)).unwrap();
    log.channel(makes, "ops", add("member", Role::Reader)).unwrap();
    log.enter("returns", device(5, 0), 99, false);
    assert_eq!(log.send(refused, feed("sends")), Err(Code::NotAllowed));
    let open: Vec<SessionId> = log.service.sessions().map(|(session, ..)| session).collect();
    for session in open {
        log.apply(Command::SessionClose { session });
    }
    log.tidy_after(8);
    for who in ["sends", "follows", "makes", "returns", "followed", "gets", "member"] {
        assert!(log.has_profile(who), "{who}");
    }
    for who in ["refused", "idle"] {
        assert!(!log.has_profile(who), "{who}");
    }
    assert_eq!(log.service.index, Index::of(&log.service.state));
}

#[test]
fn a_name_is_kept_for_a_week_from_when_somebody_was_there_last_and_while_somebody_comes_in() {
    let mut log = Log::new();
    let listener = log.open("listener", 8);
    for _ in 0..9 {
        log.unix_ms += DAY_MS;
        log.apply(Command::Cursors(vec![(listener, Op(0))]));
    }
    let seen_ms = log.service.clock_ms();
    log.apply(Command::SessionClose { session: listener });
    log.tidy_after(0);
    assert!(log.has_profile("listener"), "it was there a moment ago");
    let expired = |log: &Log, unix_ms| log.service.housekeeping(unix_ms, &Retention::default(), 100);
    assert_eq!(expired(&log, seen_ms + 7 * DAY_MS), []);
    let expire = expired(&log, seen_ms + 7 * DAY_MS + 1);
    assert!(matches!(expire[..], [Command::Expire(Claim::Profile { .. })]), "{expire:?}");

    log.unix_ms = seen_ms + 8 * DAY_MS;
    let out = log.connect("listener", device(8, 0), 99, false);
    let [Applied::SessionOpened { session, .. }] = out[..] else { panic!("{out:?}") };
    assert!(log.service.is_pending(session));
    assert_eq!(expired(&log, log.unix_ms), [], "it is coming in");
    expire.into_iter().for_each(|command| {
        log.apply(command);
    });
    log.apply(Command::SessionConfirm { session });
    assert!(log.service.session(session).is_some());
}

#[test]
fn what_was_claimed_anew_or_used_meanwhile_does_not_expire() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    log.apply(Command::SessionClose { session });
    log.unix_ms += 8 * DAY_MS;
    let expire = log.service.housekeeping(log.unix_ms, &Retention::default(), 100);
    assert_eq!(expire.len(), 1, "{expire:?}");
    log.enter("alice", device(1, 0), 99, false);
    for command in expire.clone() {
        log.apply(command);
    }
    assert!(log.has_profile("alice"), "she came back before it was applied");
    log.administer(AdminChange::RemoveProfile { name: name("alice") }).unwrap();
    let session = log.open("alice", 2);
    log.apply(Command::SessionClose { session });
    log.unix_ms += 8 * DAY_MS;
    for command in expire {
        log.apply(command);
    }
    assert!(log.has_profile("alice"), "that was another claim");
}

#[test]
fn a_name_that_somebody_wrote_to_before_its_expiry_was_applied_stays() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    log.apply(Command::SessionClose { session });
    log.unix_ms += 8 * DAY_MS;
    let expire = log.service.housekeeping(log.unix_ms, &Retention::default(), 100);
    assert!(matches!(expire[..], [Command::Expire(Claim::Profile { .. })]), "{expire:?}");
    let bob = log.open("bob", 2);
    log.send(bob, inbox("alice")).unwrap();
    for command in expire {
        log.apply(command);
    }
    assert!(log.has_profile("alice"));
}

#[test]
fn a_name_whose_only_session_was_never_confirmed_is_free_after_a_week() {
    let mut log = Log::new();
    log.connect("alice", device(1, 0), 7, true);
    log.tidy_after(1);
    assert_eq!(log.service.sessions().count(), 0, "it lapsed");
    log.tidy_after(5);
    assert!(log.has_profile("alice"), "not yet");
    log.tidy_after(2);
    assert!(!log.has_profile("alice"));
}

#[test]
fn a_channel_that_nobody_used_is_free_again() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let create = ChannelChange::Create { private: false };
    for which in ["unused", "used", "shared"] {
        log.channel(alice, which, create.clone()).unwrap();
    }
    log.open("bob", 2);
    log.send(alice, channel("used")).unwrap();
    let add = ChannelChange::Add { member: name("bob"), role: Role::Reader };
    log.channel(alice, "shared", add).unwrap();
    log.send(alice, channel("open")).unwrap();
    let (open, newest) = (channel("open"), log.service.applied());
    log.unix_ms += 8 * DAY_MS;
    log.apply(Command::Trim { topic: open, upto: newest });
    log.tidy_after(0);
    let there = |log: &Log, which: &str| log.service.state.topics.channels.contains_key(&channel_name(which));
    assert_eq!(
        ["unused", "open", "used", "shared"].map(|which| there(&log, which)),
        [false, false, true, true]
    );
    let alice = log.enter("alice", device(1, 0), 99, false);
    assert!(log.channel(alice, "unused", create).is_ok());
}

#[test]
fn an_open_channel_that_holds_nothing_is_free_as_soon_as_its_last_follower_is_gone() {
    for removed in [false, true] {
        let mut log = Log::new();
        let (alice, bob) = (log.open("alice", 1), log.open("bob", 2));
        let upto = log.send(alice, channel("ops")).unwrap();
        log.follow(bob, channel("ops")).unwrap();
        log.apply(Command::Trim { topic: channel("ops"), upto });
        let tidy = |log: &Log| log.service.housekeeping(log.unix_ms, &Retention::default(), 10);
        assert_eq!(tidy(&log), [], "bob follows it");
        if removed {
            log.administer(AdminChange::RemoveProfile { name: name("bob") }).unwrap();
        } else {
            log.unfollow(bob, channel("ops")).unwrap();
        }
        let expire = Command::Expire(Claim::Channel { name: channel_name("ops") });
        assert_eq!(tidy(&log), std::slice::from_ref(&expire), "removed: {removed}");
        log.apply(expire);
        assert_eq!(log.follow(alice, channel("ops")), Err(Code::UnknownChannel));
    }
}

#[test]
fn a_channel_whose_only_other_member_is_removed_is_free_after_a_week_without_use() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    log.open("bob", 2);
    log.channel(alice, "ops", create(false)).unwrap();
    let until_ms = log.service.clock_ms() + millis(Limits::default().unused);
    log.channel(alice, "ops", add("bob", Role::Reader)).unwrap();
    let tidy = |log: &Log, unix_ms| log.service.housekeeping(unix_ms, &Retention::default(), 10);
    assert!(!tidy(&log, until_ms + 1).iter().any(|command| matches!(command, Command::Expire(_))));
    log.administer(AdminChange::RemoveProfile { name: name("bob") }).unwrap();
    assert_eq!(tidy(&log, until_ms), []);
    assert_eq!(tidy(&log, until_ms + 1), [Command::Expire(Claim::Channel { name: channel_name("ops") })]);
}

/// After a private channel is gone, a notification to it creates no channel until its name is free.
fn nobody_reads_what_comes_late(gone: impl FnOnce(&mut Log, &[SessionId; 2])) {
    let mut log = Log::new();
    let sessions = [log.open("alice", 1), log.open("bob", 2)];
    log.channel(sessions[0], "diary", create(true)).unwrap();
    gone(&mut log, &sessions);
    assert!(log.service.state.topics.is_deleted(&channel_name("diary")), "it is gone");
    assert_eq!(log.service.index, Index::of(&log.service.state));
    let late = |log: &mut Log, days| {
        log.spend(days, &sessions);
        let newest = HistoryRange::Before(Op(u64::MAX));
        (log.send(sessions[0], channel("diary")), log.history("bob", Some(channel("diary")), newest))
    };
    for days in [0, 29] {
        assert_eq!(late(&mut log, days), (Err(Code::ChannelDeleted), Err(Code::ChannelDeleted)));
    }
    let (sent, read) = late(&mut log, 2);
    assert_eq!(read, Ok(vec![sent.unwrap()]), "as open as any channel that is not there");
    assert_eq!(log.service.index, Index::of(&log.service.state));
}

#[test]
fn a_late_text_to_a_private_channel_that_an_administrator_removed_opens_it_to_nobody() {
    nobody_reads_what_comes_late(|log, sessions| {
        log.send(sessions[0], channel("diary")).unwrap();
        log.administer(AdminChange::RemoveChannel { channel: channel_name("diary") }).unwrap();
    });
}

#[test]
fn the_first_text_to_a_private_channel_that_waited_too_long_opens_it_to_nobody() {
    nobody_reads_what_comes_late(|log, sessions| log.spend(7, sessions));
}

#[test]
fn the_name_of_a_deleted_channel_is_free_again_after_a_while_and_its_place_with_it() {
    let limits = Limits { channels: 1, ..Limits::default() };
    let mut log = Log::with(limits);
    let alice = log.open("alice", 1);
    log.channel(alice, "ops", create(true)).unwrap();
    log.channel(alice, "ops", ChannelChange::Delete).unwrap();
    assert_eq!(log.send(alice, channel("other")), Err(Code::LimitReached), "it takes a place");
    log.tidy_after(29);
    let alice = log.enter("alice", device(1, 0), 99, false);
    assert_eq!(log.channel(alice, "ops", create(true)), Err(Code::ChannelDeleted));
    let expire = Command::Expire(Claim::Deleted { name: channel_name("ops") });
    log.apply(expire.clone());
    assert_eq!(log.channel(alice, "ops", create(true)), Err(Code::ChannelDeleted), "apply looks again");
    assert_eq!(log.service.index, Index::of(&log.service.state));
    log.tidy_after(2);
    assert!(log.service.state.topics.owned.is_empty() && log.service.state.topics.makers.is_empty());
    assert_eq!(log.service.index, Index::of(&log.service.state));
    log.channel(alice, "ops", create(true)).unwrap();
    log.apply(expire);
    assert!(log.send(alice, channel("ops")).is_ok(), "that was another channel");
}

#[test]
fn the_name_of_a_deleted_channel_is_taken_to_the_last_millisecond_of_its_time() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    log.channel(session, "ops", create(true)).unwrap();
    log.channel(session, "ops", ChannelChange::Delete).unwrap();
    let until_ms = log.service.clock_ms() + millis(Limits::default().deleted);
    log.apply(Command::SessionClose { session });
    let tidy = |log: &Log, unix_ms| log.service.housekeeping(unix_ms, &Retention::default(), 10);
    let expire = Command::Expire(Claim::Deleted { name: channel_name("ops") });
    assert_eq!(tidy(&log, until_ms), []);
    assert!(tidy(&log, until_ms + 1).contains(&expire));
    log.unix_ms = until_ms - 1;
    for taken in [true, false] {
        log.apply(expire.clone());
        assert_eq!(
            log.service.state.topics.is_deleted(&channel_name("ops")),
            taken,
            "{}",
            log.service.clock_ms()
        );
    }
}
