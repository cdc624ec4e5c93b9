//! What the service does, by behaviour.

use std::sync::Arc;

use super::*;
use crate::config::Retention;
use crate::id::{DeviceKey, Priority, Topic};
use crate::wire::command::{Command, Request, Stamped};
use crate::wire::packet::{
    Content, FollowChange, History, HistoryRange, List, Listing, QueryId, RequestUserInfo,
};

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn feed(owner: &str) -> Topic {
    Topic::Feed(name(owner))
}

pub(super) fn inbox(owner: &str) -> Topic {
    Topic::Inbox(name(owner))
}

pub(super) fn channel(text: &str) -> Topic {
    Topic::Channel(name(text))
}

pub(super) fn device(key: u8, slot: u8) -> DeviceId {
    DeviceId { key: DeviceKey([key; 32]), slot }
}

pub(super) fn content(body: &str) -> Content {
    Content { title: None, priority: Priority::default(), tags: Vec::new(), body: body.to_owned() }
}

/// A service and the hand that feeds it the log.
pub(super) struct Log {
    pub(super) service: Service,
    pub(super) unix_ms: u64,
}

impl Log {
    fn new() -> Log {
        Log::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Log {
        Log { service: Service::new(State::default(), limits, PlantedBug::default()), unix_ms: 1_000 }
    }

    pub(super) fn apply(&mut self, command: Command) -> Vec<Applied> {
        self.unix_ms += 1;
        let mut out = Vec::new();
        let stamped = Stamped { unix_ms: self.unix_ms, command };
        self.service.apply(self.service.applied().next(), Some(&stamped), &mut out);
        out
    }

    fn connect(&mut self, profile: &str, id: DeviceId, nonce: u64, fresh: bool) -> Vec<Applied> {
        let profile = name(profile);
        self.apply(Command::SessionOpen { device: id, profile, receives: true, nonce, fresh })
    }

    fn open(&mut self, profile: &str, key: u8) -> SessionId {
        let nonce = self.unix_ms;
        match self.connect(profile, device(key, 0), nonce, true).last() {
            Some(Applied::SessionOpened { session, .. }) => *session,
            other => panic!("not let in: {other:?}"),
        }
    }

    fn request(&mut self, session: SessionId, request: Request) -> Result<Op, Code> {
        let seq = self.service.session(session).unwrap().last_seq.next();
        let out = self.apply(Command::Request { session, seq, answered_below: seq, request });
        match out.last() {
            Some(Applied::Answered { result, .. }) => *result,
            other => panic!("not answered: {other:?}"),
        }
    }

    fn follow(&mut self, session: SessionId, topic: Topic) -> Result<Op, Code> {
        self.request(session, Request::Follow { topic, change: FollowChange::Add })
    }

    fn unfollow(&mut self, session: SessionId, topic: Topic) -> Result<Op, Code> {
        self.request(session, Request::Follow { topic, change: FollowChange::Remove })
    }

    fn send(&mut self, session: SessionId, topic: Topic) -> Result<Op, Code> {
        self.request(session, Request::Send { topic, content: content("hello") })
    }

    fn pending(&self, session: SessionId) -> Vec<Op> {
        let cursor = self.service.session(session).unwrap().cursor;
        ops(&self.service.page(session, cursor, 1_000, 1 << 20).notifications)
    }

    fn history(&self, asker: &str, topic: Option<Topic>, range: HistoryRange) -> Result<Vec<Op>, Code> {
        let query = History { query: QueryId(1), topic, range, limit: 2 };
        self.service.history(&name(asker), &query).map(|answer| ops(&answer.notifications))
    }
}

pub(super) fn ops(notifications: &[Arc<Notification>]) -> Vec<Op> {
    notifications.iter().map(|notification| notification.op).collect()
}

#[test]
fn the_first_device_claims_a_name_and_another_key_is_refused() {
    let mut log = Log::new();
    log.open("alice", 1);
    let refused = log.connect("alice", device(2, 0), 9, true);
    assert!(matches!(refused[..], [Applied::SessionRefused { code: Code::NotYours, .. }]));
}

#[test]
fn a_forgotten_device_is_unknown_and_never_silently_restarted() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    log.apply(Command::SessionClose { session });
    for slot in 1..=Limits::default().devices as u8 {
        log.connect("alice", device(1, slot), u64::from(slot), true);
    }
    let out = log.connect("alice", device(1, 0), 9, false);
    assert!(matches!(out[..], [Applied::SessionRefused { code: Code::UnknownDevice, .. }]));
}

#[test]
fn a_repeated_connect_gets_its_session_and_a_newer_one_fences_it() {
    let mut log = Log::new();
    let out = log.connect("alice", device(1, 0), 7, true);
    assert_eq!(log.connect("alice", device(1, 0), 7, true), out);
    let old = SessionId(Op(1));
    let out = log.connect("alice", device(1, 0), 8, false);
    assert_eq!(out[0], Applied::SessionClosed { session: old });
    assert_eq!(log.service.standing(old, Seq(1)), Standing::Refused(Code::SessionOver));
    let request = Request::Send { topic: feed("alice"), content: content("old") };
    let late = Command::Request { session: old, seq: Seq(1), answered_below: Seq(1), request };
    assert_eq!(log.apply(late), [], "a fenced session takes no number");
    assert_eq!(log.service.standing(SessionId(Op(3)), Seq(1)), Standing::Ahead(1));
}

#[test]
fn a_late_connect_of_a_session_that_is_over_fences_nobody() {
    let mut log = Log::new();
    let id = device(1, 0);
    log.connect("alice", id, 1, true);
    let live = log.connect("alice", id, 2, false);
    let late = log.connect("alice", id, 1, false);
    assert_eq!(late, vec![Applied::SessionRefused { device: id, nonce: 1, code: Code::SessionOver }]);
    let again = log.connect("alice", id, 2, false);
    assert_eq!(live.last(), again.last());
}

#[test]
fn a_repeated_request_is_applied_once_and_its_result_kept_until_answered() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    let request = Request::Send { topic: feed("alice"), content: content("one") };
    let first = Command::Request { session, seq: Seq(1), answered_below: Seq(1), request: request.clone() };
    assert_eq!(log.apply(first.clone()).len(), 2);
    assert_eq!(log.apply(first), []);
    assert_eq!(log.service.standing(session, Seq(1)), Standing::Answered(Ok(Op(2))));
    log.apply(Command::Request { session, seq: Seq(2), answered_below: Seq(2), request });
    assert_eq!(log.service.standing(session, Seq(1)), Standing::Forgotten);
    assert_eq!(log.service.standing(session, Seq(5)), Standing::Ahead(3));
}

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
fn a_loss_is_told_and_what_other_topics_hold_below_it_is_not_skipped() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.follow(bob, feed("alice")).unwrap();
    let kept = log.send(alice, inbox("bob")).unwrap();
    let lost = log.send(alice, feed("alice")).unwrap();
    let next = log.send(alice, inbox("bob")).unwrap();
    log.apply(Command::Trim { topic: feed("alice"), upto: lost });
    let page = log.service.page(bob, kept.prev(), 10, 1 << 20);
    assert_eq!((page.gap, ops(&page.notifications), page.more), (None, vec![kept], true));
    let page = log.service.page(bob, kept, 10, 1 << 20);
    assert_eq!((page.gap, ops(&page.notifications), page.more), (Some(lost), vec![next], false));
}

#[test]
fn housekeeping_trims_by_each_limit_and_closes_what_is_idle() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let sent: Vec<Op> = (0..4).map(|_| log.send(alice, feed("alice")).unwrap()).collect();
    let now_ms = log.unix_ms;
    let all = Retention { count: 100, bytes: 1 << 20, age_ms: 1 << 30 };
    let trim = |upto| vec![Command::Trim { topic: feed("alice"), upto }];
    let tidy = |retention| log.service.housekeeping(now_ms, &retention, 10);
    assert_eq!(tidy(all), []);
    assert_eq!(tidy(Retention { count: 3, ..all }), trim(sent[0]));
    assert_eq!(tidy(Retention { bytes: 150, ..all }), trim(sent[1]));
    assert_eq!(tidy(Retention { age_ms: 1, ..all }), trim(sent[1]));
    let week_ms = 8 * 24 * 3600 * 1000;
    let closes = log.service.housekeeping(now_ms + week_ms, &Retention { age_ms: u64::MAX, ..all }, 10);
    assert_eq!(closes, [Command::SessionClose { session: alice }]);
}

#[test]
fn a_full_profile_forgets_its_oldest_idle_device_and_only_an_idle_one() {
    let mut log = Log::with(Limits { devices: 2, ..Limits::default() });
    log.connect("alice", device(1, 0), 1, true);
    log.connect("alice", device(1, 1), 2, true);
    let out = log.connect("alice", device(1, 2), 3, true);
    assert!(matches!(out[..], [Applied::SessionRefused { code: Code::LimitReached, .. }]));
    log.apply(Command::SessionClose { session: SessionId(Op(1)) });
    let out = log.connect("alice", device(1, 2), 4, true);
    assert!(matches!(out[..], [Applied::SessionOpened { .. }]));
    let out = log.connect("alice", device(1, 0), 5, false);
    assert!(matches!(out[..], [Applied::SessionRefused { code: Code::UnknownDevice, .. }]));
}

#[test]
fn lists_and_info_tell_what_there_is() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    let since = log.follow(bob, feed("alice")).unwrap();
    log.send(alice, channel("ops")).unwrap();
    log.send(alice, feed("alice")).unwrap();
    let list = |what, after: Option<&str>| {
        let query = List { query: QueryId(1), what, after: after.map(str::to_owned) };
        let answer = log.service.list(&name("alice"), &query).unwrap();
        answer.items.iter().map(|item| item.key()).collect::<Vec<_>>()
    };
    assert_eq!(list(Listing::People, None), ["alice", "bob"]);
    assert_eq!(list(Listing::People, Some("alice")), ["bob"]);
    assert_eq!(list(Listing::Followers, None), ["bob"]);
    assert_eq!(list(Listing::Channels, None), ["ops"]);
    assert_eq!(list(Listing::Devices, None).len(), 1);
    let query = RequestUserInfo { query: QueryId(1), profile: Some(name("bob")) };
    let info = log.service.info(&name("alice"), &query).unwrap();
    assert_eq!((info.following, info.devices, info.sessions, info.pending), (1, 1, 1, 1));
    assert!(info.since < since);
}

#[test]
fn an_apply_that_is_not_deterministic_can_be_planted() {
    let planted = PlantedBug(Some(crate::config::Planted::ApplyNotDeterministic));
    let mut one = Service::new(State::default(), Limits::default(), planted);
    let mut other = Service::new(State::default(), Limits::default(), planted);
    one.standing(SessionId(Op(1)), Seq(1));
    let command = Command::SessionClose { session: SessionId(Op(9)) };
    for service in [&mut one, &mut other] {
        service.apply(Op(1), Some(&Stamped { unix_ms: 5, command: command.clone() }), &mut Vec::new());
    }
    assert_ne!(one.state(), other.state());
}

#[test]
fn duplicates_checked_only_against_committed_state_can_be_planted() {
    let mut log = Log::new();
    let planted = PlantedBug(Some(crate::config::Planted::DuplicatesOnlyCommitted));
    log.service = Service::new(State::default(), Limits::default(), planted);
    let session = log.open("alice", 1);
    let request = Request::Send { topic: feed("alice"), content: content("one") };
    let twice = Command::Request { session, seq: Seq(1), answered_below: Seq(1), request };
    assert_eq!(log.apply(twice.clone()).len(), 2);
    assert_eq!(log.apply(twice).len(), 2, "stored again");
}
