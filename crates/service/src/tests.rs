//! Behaviours of the service.

use std::sync::Arc;

use recado_proto::codec;
use recado_proto::command::{Claim, Command, Request, SessionOpen, Stamped};
use recado_proto::id::{Admission, DeviceKey, OUTSTANDING_MAX, Priority, Topic, millis};
use recado_proto::packet::{
    Access, Admin, AdminChange, ChannelChange, CodeHash, Content, FollowChange, History, HistoryRange,
    KeyChange, List, ListItem, Listing, OptionalFields, QueryId, Role,
};

use super::*;
use crate::limits::Retention;

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
    Content {
        title: None,
        priority: Priority::default(),
        tags: Vec::new(),
        body: body.into(),
        extra: Vec::new(),
    }
}

/// The digest of every request that no test tells apart from another.
pub(super) const DIGEST: u64 = 7;

/// A service, and the log that a test appends to it.
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

    fn connect(&mut self, profile: &str, device: DeviceId, nonce: u64, fresh: bool) -> Vec<Applied> {
        self.connect_with(profile, device, nonce, fresh, None)
    }

    fn connect_with(
        &mut self,
        profile: &str,
        device: DeviceId,
        nonce: u64,
        fresh: bool,
        code: Option<CodeHash>,
    ) -> Vec<Applied> {
        let profile = name(profile);
        let (receives, invite, admission) = (true, None, Admission::Open);
        let open = SessionOpen {
            device,
            profile,
            receives,
            nonce,
            fresh,
            code,
            invite,
            admission,
            aead: Default::default(),
        };
        self.apply(Command::SessionOpen(open))
    }

    fn keys(&mut self, session: SessionId, change: KeyChange) -> Result<Op, Code> {
        self.request(session, Request::Keys { change })
    }

    /// The result of a CONNECT of a new key with this enrolment code.
    fn enrol(&mut self, profile: &str, key: u8, code: CodeHash) -> Result<(), Code> {
        let nonce = self.unix_ms;
        match self.connect_with(profile, device(key, 0), nonce, true, Some(code))[..] {
            [Applied::SessionOpened { .. }] => Ok(()),
            [Applied::SessionRefused { code, .. }] => Err(code),
            ref other => panic!("{other:?}"),
        }
    }

    /// Opens a session and confirms it.
    fn enter(&mut self, profile: &str, device: DeviceId, nonce: u64, fresh: bool) -> SessionId {
        match self.connect(profile, device, nonce, fresh).last() {
            Some(Applied::SessionOpened { session, .. }) => {
                let session = *session;
                self.apply(Command::SessionConfirm { session });
                session
            }
            other => panic!("not let in: {other:?}"),
        }
    }

    fn open(&mut self, profile: &str, key: u8) -> SessionId {
        self.enter(profile, device(key, 0), self.unix_ms, true)
    }

    fn request(&mut self, session: SessionId, request: Request) -> Result<Op, Code> {
        let seq = self.service.session(session).unwrap().last_seq.next();
        let out = self.apply(Command::Request {
            session,
            seq,
            answered_below: seq,
            request,
            digest: DIGEST,
            may_make: true,
        });
        let answer = out.iter().find_map(|one| match one {
            Applied::Answered { result, .. } => Some(*result),
            _ => None,
        });
        answer.unwrap_or_else(|| panic!("not answered: {out:?}"))
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

    fn channel(&mut self, session: SessionId, name_of: &str, change: ChannelChange) -> Result<Op, Code> {
        self.request(session, Request::Channel { channel: name(name_of), change })
    }

    fn list(&self, asker: &str, what: Listing) -> Result<Vec<ListItem>, Code> {
        let query = List { what, after: None };
        self.service.list(&name(asker), &query).map(|(answer, _)| answer.items)
    }

    fn pending(&self, session: SessionId) -> Vec<Op> {
        let cursor = self.service.session(session).unwrap().cursor;
        ops(&self.service.page(session, cursor, 1_000, 1 << 20).notifications)
    }

    fn history(&self, asker: &str, topic: Option<Topic>, range: HistoryRange) -> Result<Vec<Op>, Code> {
        let query = History { topic, range, limit: 2 };
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
fn a_repeated_connect_gets_its_session_pending_or_live() {
    let mut log = Log::new();
    let out = log.connect("alice", device(1, 0), 7, true);
    assert_eq!(log.connect("alice", device(1, 0), 7, true), out);
    log.apply(Command::SessionConfirm { session: SessionId(Op(1)) });
    assert_eq!(log.connect("alice", device(1, 0), 7, true), out);
    assert_eq!(log.apply(Command::SessionConfirm { session: SessionId(Op(1)) }), [], "live already");
    assert!(log.service.session(SessionId(Op(1))).is_some());
}

#[test]
fn a_newer_session_fences_the_older_when_it_is_confirmed_and_not_before() {
    let mut log = Log::new();
    let id = device(1, 0);
    let old = log.open("alice", 1);
    let out = log.connect("alice", id, 8, false);
    let [Applied::SessionOpened { session: new, .. }] = out[..] else { panic!("{out:?}") };
    assert!(log.send(old, feed("alice")).is_ok(), "the live session goes on");
    assert!(log.service.is_pending(new) && log.service.session(new).is_none());
    assert_eq!(log.service.standing(new, Seq(2), DIGEST), Standing::Refused(Code::SessionOver));
    let request = |session| {
        let request = Request::Send { topic: feed("alice"), content: content("text") };
        Command::Request {
            session,
            seq: Seq(2),
            answered_below: Seq(1),
            request,
            digest: DIGEST,
            may_make: true,
        }
    };
    assert_eq!(log.apply(request(new)), [], "a pending session takes no number");
    let out = log.apply(Command::SessionConfirm { session: new });
    let closed = Applied::SessionClosed { session: old, why: Code::Fenced };
    assert_eq!(out, [closed, Applied::SessionConfirmed { session: new }]);
    assert_eq!(log.service.standing(old, Seq(1), DIGEST), Standing::Refused(Code::SessionOver));
    assert_eq!(log.apply(request(old)), [], "nor does a fenced one");
    assert_eq!(log.service.standing(new, Seq(2), DIGEST), Standing::Ahead(1));
}

#[test]
fn a_late_connect_of_a_session_that_is_over_is_refused() {
    let mut log = Log::new();
    let id = device(1, 0);
    log.enter("alice", id, 1, true);
    let live = log.enter("alice", id, 2, false);
    let late = log.connect("alice", id, 1, false);
    assert_eq!(late, vec![Applied::SessionRefused { device: id, nonce: 1, code: Code::Fenced }]);
    assert_eq!(log.service.sessions().collect::<Vec<_>>(), [(live, id, 2, Aead::default())]);
}

#[test]
fn a_device_remembers_as_many_nonces_of_ended_sessions_as_it_may_and_forgets_the_oldest_first() {
    let most = crate::sessions::RECENT_NONCES_MAX as u64;
    let mut log = Log::new();
    let id = device(1, 0);
    let end_one = |log: &mut Log, nonce| {
        let session = log.enter("alice", id, nonce, true);
        log.apply(Command::SessionClose { session });
    };
    let is_over = |log: &mut Log, nonce| {
        let out = log.connect("alice", id, nonce, true);
        matches!(out[..], [Applied::SessionRefused { code: Code::SessionOver, .. }])
    };
    for nonce in 1..=most {
        end_one(&mut log, nonce);
    }
    for nonce in 1..=most {
        assert!(is_over(&mut log, nonce), "{nonce} of {most}");
    }
    end_one(&mut log, most + 1);
    for nonce in 2..=most + 1 {
        assert!(is_over(&mut log, nonce), "{nonce} after one more");
    }
    assert!(!is_over(&mut log, 1), "the oldest made room");
}

#[test]
fn a_device_of_one_profile_is_refused_as_any_other() {
    let mut log = Log::new();
    log.open("alice", 1);
    log.open("bob", 2);
    for (other, fresh) in [("bob", true), ("bob", false), ("carol", true), ("carol", false)] {
        let out = log.connect(other, device(1, 0), 90, fresh);
        assert!(
            matches!(out[..], [Applied::SessionRefused { code: Code::NotYours, .. }]),
            "{other}: {out:?}"
        );
    }
    assert!(!log.has_profile("carol"), "a refusal claims no name");
}

#[test]
fn a_pending_session_ends_by_a_newer_one_or_by_time_and_its_nonce_with_it() {
    let mut log = Log::new();
    let id = device(1, 0);
    log.connect("alice", id, 1, true);
    let replaced = SessionId(Op(1));
    let out = log.connect("alice", id, 2, true);
    assert_eq!(out[0], Applied::SessionClosed { session: replaced, why: Code::SessionOver });
    assert_eq!(log.apply(Command::SessionConfirm { session: replaced }), []);
    let session = SessionId(Op(2));
    let tidy =
        |log: &Log, after_ms| log.service.housekeeping(log.unix_ms + after_ms, &Retention::default(), 10);
    assert_eq!(tidy(&log, 59_000), []);
    assert_eq!(tidy(&log, 61_000), [Command::SessionLapse { session }]);
    assert_eq!(
        log.apply(Command::SessionLapse { session }),
        [Applied::SessionClosed { session, why: Code::SessionOver }]
    );
    for nonce in [1, 2] {
        let out = log.connect("alice", id, nonce, true);
        assert!(matches!(out[..], [Applied::SessionRefused { code: Code::SessionOver, .. }]));
    }
}

#[test]
fn a_session_that_was_confirmed_in_time_does_not_lapse() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    assert_eq!(log.apply(Command::SessionLapse { session }), []);
    assert!(log.service.session(session).is_some());
}

#[test]
fn a_pending_session_may_be_confirmed_to_the_last_millisecond_of_its_time() {
    let mut log = Log::new();
    log.connect("alice", device(1, 0), 7, true);
    let until_ms = log.service.clock_ms() + millis(Limits::default().session_pending);
    let tidy = |unix_ms| log.service.housekeeping(unix_ms, &Retention::default(), 10);
    assert_eq!(tidy(until_ms), []);
    assert_eq!(tidy(until_ms + 1), [Command::SessionLapse { session: SessionId(Op(1)) }]);
}

#[test]
fn a_session_is_idle_from_its_last_request_on_and_is_closed_a_millisecond_after_its_time() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    log.unix_ms += 1_000;
    log.send(session, feed("alice")).unwrap();
    let until_ms = log.service.clock_ms() + millis(Limits::default().session_idle);
    let tidy = |unix_ms| log.service.housekeeping(unix_ms, &Retention::default(), 10);
    assert_eq!(tidy(until_ms), []);
    assert_eq!(tidy(until_ms + 1), [Command::SessionClose { session }]);
}

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
    };
    let out = log.apply(Command::SessionOpen(open));
    let [Applied::SessionOpened { session, .. }] = out[..] else { panic!("{out:?}") };
    log.apply(Command::SessionConfirm { session });
    assert!(!log.service.session(session).unwrap().receives);
    assert_eq!(log.service.info(&name("alice")).unwrap().pending, 1);
}

#[test]
fn a_pending_session_counts_as_none() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    log.connect("bob", device(2, 0), 9, true);
    let info = log.service.info(&name("bob")).unwrap();
    assert_eq!((info.devices, info.sessions), (1, 0));
    let out = log.apply(Command::Request {
        session: alice,
        seq: Seq(1),
        answered_below: Seq(1),
        request: Request::Send { topic: inbox("bob"), content: content("hello") },
        digest: DIGEST,
        may_make: true,
    });
    assert!(matches!(&out[0], Applied::Notified { sessions, .. } if sessions.is_empty()));
}

#[test]
fn a_repeated_request_is_applied_once_and_its_result_kept_until_answered() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    let request = Request::Send { topic: feed("alice"), content: content("one") };
    let first = Command::Request {
        session,
        seq: Seq(1),
        answered_below: Seq(1),
        request: request.clone(),
        digest: DIGEST,
        may_make: true,
    };
    assert_eq!(log.apply(first.clone()).len(), 2);
    assert_eq!(log.apply(first), []);
    assert_eq!(log.service.standing(session, Seq(1), DIGEST), Standing::Answered(Ok(Op(3))));
    log.apply(Command::Request {
        session,
        seq: Seq(2),
        answered_below: Seq(2),
        request,
        digest: DIGEST + 1,
        may_make: true,
    });
    assert_eq!(log.service.standing(session, Seq(1), DIGEST), Standing::Forgotten);
    assert_eq!(log.service.standing(session, Seq(5), DIGEST), Standing::Ahead(3));
}

#[test]
fn a_result_is_returned_for_the_request_that_had_the_number_and_for_no_other() {
    let mut log = Log::new();
    let id = device(1, 0);
    let session = log.open("alice", 1);
    let text = |text: &str| Request::Send { topic: feed("alice"), content: content(text) };
    let ask = |session, seq, below, digest, what: &str| Command::Request {
        session,
        seq: Seq(seq),
        answered_below: Seq(below),
        request: text(what),
        digest,
        may_make: true,
    };
    log.apply(ask(session, 1, 1, 10, "one"));
    let copy = log.enter("alice", id, 9, false);
    assert_eq!(
        log.service.standing(copy, Seq(1), 10),
        Standing::Answered(Ok(Op(3))),
        "the copy's own repetition"
    );
    assert_eq!(log.service.standing(copy, Seq(1), 11), Standing::Taken);
    assert_eq!(
        log.apply(ask(copy, 1, 1, 11, "another one")),
        [],
        "it has no effect under a number that is taken"
    );
    // A service from a snapshot answers the same.
    let state = codec::decode(&codec::encode(&log.service.state())).unwrap();
    log.service = Service::new(state, Limits::default(), PlantedBug::default());
    assert_eq!(log.service.standing(copy, Seq(1), 11), Standing::Taken);
    // The request gets a new number, and a copy of the files that does not know it asks under the old one.
    log.apply(ask(copy, 2, 2, 11, "another one"));
    let again = log.service.standing(copy, Seq(1), 11);
    assert_eq!(again, log.service.standing(copy, Seq(2), 11));
    assert!(matches!(again, Standing::Answered(Ok(_))));
    log.apply(ask(copy, 3, 3, 12, "two"));
    assert_eq!(log.service.standing(copy, Seq(1), 10), Standing::Forgotten);
    assert_eq!(log.service.standing(copy, Seq(1), 11), Standing::Forgotten, "whoever asks");
}

/// Applies a request under this number, whose client has acknowledged no result, and returns its op.
fn ask(log: &mut Log, session: SessionId, seq: u64, digest: u64) -> Op {
    let request = Request::Send { topic: channel("ops"), content: content("text") };
    let (seq, answered_below) = (Seq(seq), Seq(1));
    log.apply(Command::Request { session, seq, answered_below, request, digest, may_make: true });
    log.service.applied()
}

#[test]
fn a_number_has_its_own_result_though_another_request_had_the_same_digest() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    let sent = [1, 2].map(|seq| ask(&mut log, session, seq, DIGEST));
    let standings = [1, 2].map(|seq| log.service.standing(session, Seq(seq), DIGEST));
    assert_eq!(standings, sent.map(|op| Standing::Answered(Ok(op))));
}

#[test]
fn a_device_keeps_as_many_results_as_it_may_have_requests_outstanding_and_forgets_the_oldest_first() {
    let mut log = Log::with(Limits { outstanding: 2, ..Limits::default() });
    let session = log.open("alice", 1);
    let standings = |log: &Log| [1, 2, 3].map(|seq| log.service.standing(session, Seq(seq), 10 + seq));
    let answered = |op| Standing::Answered(Ok(op));
    let (one, two) = (ask(&mut log, session, 1, 11), ask(&mut log, session, 2, 12));
    assert_eq!(standings(&log), [answered(one), answered(two), Standing::Ahead(1)]);
    let three = ask(&mut log, session, 3, 13);
    assert_eq!(standings(&log), [Standing::Forgotten, answered(two), answered(three)]);
}

#[test]
fn the_result_of_each_request_that_a_client_may_have_outstanding_is_kept_and_of_no_more() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    let last = OUTSTANDING_MAX as u64;
    let first = ask(&mut log, session, 1, 1);
    for seq in 2..=last {
        ask(&mut log, session, seq, seq);
    }
    assert_eq!(log.service.standing(session, Seq(1), 1), Standing::Answered(Ok(first)));
    ask(&mut log, session, last + 1, last + 1);
    assert_eq!(log.service.standing(session, Seq(1), 1), Standing::Forgotten);
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
    assert_eq!(log.service.addressed(&channel("ops")), [bob, alice], "fewer follow it than receive");
    log.follow(zoe, channel("ops")).unwrap();
    assert_eq!(log.service.addressed(&channel("ops")), [zoe, bob, alice], "all that receive follow it");
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

fn create(private: bool) -> ChannelChange {
    ChannelChange::Create { private }
}

fn add(member: &str, role: Role) -> ChannelChange {
    ChannelChange::Add { member: name(member), role }
}

fn remove(member: &str) -> ChannelChange {
    ChannelChange::Remove { member: name(member) }
}

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
    assert_eq!(log.list("bob", Listing::Members(name("ops"))), Err(Code::NotAllowed));
    assert_eq!(log.list("bob", Listing::Channels), Ok(vec![]));
    log.channel(alice, "ops", add("bob", Role::Reader)).unwrap();
    log.follow(bob, channel("ops")).unwrap();
    let seen = log.send(alice, channel("ops")).unwrap();
    assert_eq!(log.pending(bob), [seen]);
    let listed = log.list("bob", Listing::Channels).unwrap();
    assert!(matches!(listed[..], [ListItem::Channel { access: Access::Private, followers: 2, .. }]));
    let members = log.list("bob", Listing::Members(name("ops"))).unwrap();
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
    let request = Request::Channel { channel: name("ops"), change: remove("bob") };
    let out = log.apply(Command::Request {
        session: alice,
        seq,
        answered_below: seq,
        request,
        digest: DIGEST,
        may_make: true,
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
    assert_eq!(log.service.addressed(&channel("ops")), [], "what is sent later is not for bob");
    assert_eq!(log.service.records(), records);
    // Nobody but its owner is left, and nothing was ever sent to it.
    let until_ms = created_ms + millis(Limits::default().unused);
    let tidy = |unix_ms| log.service.housekeeping(unix_ms, &Retention::default(), 10);
    assert_eq!(tidy(until_ms), []);
    assert_eq!(tidy(until_ms + 1), [Command::Expire(Claim::Channel { name: name("ops") })]);
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
fn a_deleted_channel_is_gone_with_what_it_held_and_its_follows() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.channel(alice, "ops", create(false)).unwrap();
    log.follow(bob, channel("ops")).unwrap();
    log.send(alice, channel("ops")).unwrap();
    log.channel(alice, "ops", ChannelChange::Delete).unwrap();
    assert_eq!(log.pending(bob), []);
    assert_eq!(log.unfollow(bob, channel("ops")), Err(Code::NotFollowing));
    let newest = HistoryRange::Before(Op(u64::MAX));
    assert_eq!(log.history("bob", Some(channel("ops")), newest), Err(Code::ChannelDeleted));
    assert_eq!(log.service.index, Index::of(&log.service.state));
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
fn a_refused_request_leaves_no_trace_but_its_number() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.channel(alice, "ops", create(true)).unwrap();
    let refused = [
        Request::Send { topic: channel("ops"), content: content("no") },
        Request::Send { topic: feed("alice"), content: content("no") },
        Request::Follow { topic: channel("ops"), change: FollowChange::Add },
        Request::Channel { channel: name("ops"), change: add("bob", Role::Owner) },
        Request::Channel { channel: name("ops"), change: ChannelChange::Delete },
    ];
    let topics = log.service.state.topics.clone();
    let profiles = log.service.state.profiles.clone();
    let count = refused.len() as u64;
    for request in refused {
        assert!(log.request(bob, request).is_err());
    }
    assert_eq!((&log.service.state.topics, &log.service.state.profiles), (&topics, &profiles));
    assert_eq!(log.service.session(bob).unwrap().last_seq, Seq(count));
}

const CODE: CodeHash = CodeHash([7; 32]);
const WRONG: CodeHash = CodeHash([8; 32]);

fn revoke(key: u8) -> KeyChange {
    KeyChange::Revoke { key: DeviceKey([key; 32]) }
}

#[test]
fn a_code_lets_one_further_key_in_and_is_used_up() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    assert_eq!(log.enrol("alice", 2, CODE), Err(Code::WrongCode), "none is open");
    log.keys(alice, KeyChange::Enrol { code: CODE }).unwrap();
    assert_eq!(log.enrol("alice", 2, WRONG), Err(Code::WrongCode));
    assert_eq!(log.enrol("alice", 2, CODE), Ok(()));
    assert_eq!(log.enrol("alice", 3, CODE), Err(Code::WrongCode), "used");
    let again = log.connect("alice", device(2, 1), 99, true);
    assert!(matches!(again[..], [Applied::SessionOpened { .. }]), "the key is in without any code now");
    assert_eq!(log.enrol("nobody", 3, CODE), Err(Code::UnknownProfile), "a code claims no name");
    let keys = log.list("alice", Listing::Keys).unwrap();
    let slots: Vec<usize> = keys
        .iter()
        .map(|item| match item {
            ListItem::Key { slots, .. } => slots.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(slots, [1, 2]);
}

#[test]
fn a_key_without_a_device_is_listed_as_never_seen() {
    let mut log = Log::with(Limits { devices: 1, ..Limits::default() });
    let session = log.open("alice", 1);
    log.keys(session, KeyChange::Enrol { code: CODE }).unwrap();
    log.apply(Command::SessionClose { session });
    log.enrol("alice", 2, CODE).unwrap();
    let key = |key, slots, last_seen_ms| ListItem::Key { key: DeviceKey([key; 32]), slots, last_seen_ms };
    let listed = [key(1, vec![], 0), key(2, vec![0], log.service.clock_ms())];
    assert_eq!(log.list("alice", Listing::Keys).unwrap(), listed);
}

#[test]
fn an_enrolment_ends_by_time_by_five_wrong_codes_and_by_the_next_one() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let open = |log: &mut Log, code| log.keys(alice, KeyChange::Enrol { code }).unwrap();
    open(&mut log, CODE);
    log.unix_ms += 600_001;
    assert_eq!(log.enrol("alice", 2, CODE), Err(Code::WrongCode), "too old");
    open(&mut log, CODE);
    for _ in 0..5 {
        assert_eq!(log.enrol("alice", 2, WRONG), Err(Code::WrongCode));
    }
    assert_eq!(log.enrol("alice", 2, CODE), Err(Code::WrongCode), "tried too often");
    open(&mut log, WRONG);
    open(&mut log, CODE);
    assert_eq!(log.enrol("alice", 2, WRONG), Err(Code::WrongCode), "one at a time");
    for _ in 0..3 {
        assert_eq!(log.enrol("alice", 2, WRONG), Err(Code::WrongCode));
    }
    log.unix_ms += 590_000;
    assert_eq!(log.enrol("alice", 2, CODE), Ok(()), "the fifth try, in time");
}

#[test]
fn a_code_is_good_to_its_last_millisecond_and_no_longer() {
    for (late_ms, result) in [(0, Ok(())), (1, Err(Code::WrongCode))] {
        let mut log = Log::new();
        let alice = log.open("alice", 1);
        log.keys(alice, KeyChange::Enrol { code: CODE }).unwrap();
        let until_ms = log.service.clock_ms() + millis(Limits::default().enrolment);
        log.unix_ms = until_ms + late_ms - 1;
        assert_eq!(log.enrol("alice", 2, CODE), result);
        assert_eq!(log.service.clock_ms(), until_ms + late_ms);
    }
}

#[test]
fn a_code_lets_no_key_in_beyond_a_limit_that_was_lowered_since_it_was_made() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    log.keys(alice, KeyChange::Enrol { code: CODE }).unwrap();
    log.enrol("alice", 2, CODE).unwrap();
    log.keys(alice, KeyChange::Enrol { code: CODE }).unwrap();
    for (keys, result) in [(2, Err(Code::LimitReached)), (3, Ok(()))] {
        let limits = Limits { keys, ..Limits::default() };
        log.service = Service::new(log.service.state(), limits, PlantedBug::default());
        assert_eq!(log.enrol("alice", 3, CODE), result, "at most {keys} keys");
    }
}

#[test]
fn a_code_that_finds_no_place_for_its_device_is_not_used_up() {
    let mut log = Log::with(Limits { devices: 2, ..Limits::default() });
    let alice = log.open("alice", 1);
    let laptop = log.enter("alice", device(1, 1), 50, true);
    log.keys(alice, KeyChange::Enrol { code: CODE }).unwrap();
    let before = log.service.state.profiles.clone();
    assert_eq!(log.enrol("alice", 2, CODE), Err(Code::LimitReached), "both devices have a live session");
    assert_eq!(log.service.state.profiles, before, "neither the key is in nor the code used up");
    assert_eq!(log.enrol("alice", 2, WRONG), Err(Code::WrongCode), "a wrong code is told all the same");
    log.apply(Command::SessionClose { session: laptop });
    assert_eq!(log.enrol("alice", 2, CODE), Ok(()), "the idle device's place");
    assert_eq!(log.service.index, Index::of(&log.service.state));
}

/// Otherwise somebody with the right code could reset the count of wrong codes for a guesser.
#[test]
fn a_right_code_without_room_for_its_device_neither_counts_as_wrong_nor_resets_the_count() {
    let mut log = Log::with(Limits { devices: 2, ..Limits::default() });
    let alice = log.open("alice", 1);
    let laptop = log.enter("alice", device(1, 1), 50, true);
    log.keys(alice, KeyChange::Enrol { code: CODE }).unwrap();
    for wrong in 1..=4 {
        assert_eq!(log.enrol("alice", 2, WRONG), Err(Code::WrongCode));
        assert_eq!(log.enrol("alice", 2, CODE), Err(Code::LimitReached), "after {wrong} wrong ones");
    }
    assert_eq!(log.enrol("alice", 2, WRONG), Err(Code::WrongCode));
    log.apply(Command::SessionClose { session: laptop });
    assert_eq!(log.enrol("alice", 2, CODE), Err(Code::WrongCode), "the fifth wrong one ended the enrolment");
}

#[test]
fn a_revoked_key_has_no_device_and_no_session_and_the_last_one_stays() {
    let mut log = Log::with(Limits { keys: 2, ..Limits::default() });
    let alice = log.open("alice", 1);
    assert_eq!(log.keys(alice, revoke(1)), Err(Code::LastOne));
    log.keys(alice, KeyChange::Enrol { code: CODE }).unwrap();
    log.enrol("alice", 2, CODE).unwrap();
    assert_eq!(log.keys(alice, KeyChange::Enrol { code: CODE }), Err(Code::LimitReached));
    let laptop = log.enter("alice", device(2, 3), 50, true);
    assert_eq!(log.keys(alice, revoke(9)), Err(Code::UnknownDevice));
    // The session of the device that asks ends too; its answer comes first.
    let request = Request::Keys { change: revoke(2) };
    let out = log.apply(Command::Request {
        session: laptop,
        seq: Seq(1),
        answered_below: Seq(1),
        request,
        digest: DIGEST,
        may_make: true,
    });
    assert!(matches!(out[0], Applied::Answered { result: Ok(_), .. }), "{out:?}");
    assert_eq!(out[1..].iter().filter(|one| matches!(one, Applied::SessionClosed { .. })).count(), 2);
    assert!(log.service.session(alice).is_some() && log.service.session(laptop).is_none());
    let out = log.connect("alice", device(2, 3), 51, true);
    assert!(matches!(out[..], [Applied::SessionRefused { code: Code::NotYours, .. }]));
    assert_eq!(log.service.index, Index::of(&log.service.state));
}

#[test]
fn a_code_that_is_open_when_a_key_is_revoked_lets_nobody_in() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    log.keys(alice, KeyChange::Enrol { code: WRONG }).unwrap();
    log.enrol("alice", 2, WRONG).unwrap();
    let stolen = log.enter("alice", device(2, 0), 50, true);
    log.keys(stolen, KeyChange::Enrol { code: CODE }).unwrap();
    assert_eq!(log.keys(alice, revoke(9)), Err(Code::UnknownDevice));
    log.keys(alice, revoke(2)).unwrap();
    assert_eq!(log.enrol("alice", 3, CODE), Err(Code::WrongCode), "opened by a key that is out");
    log.keys(alice, KeyChange::Enrol { code: CODE }).unwrap();
    assert_eq!(log.enrol("alice", 3, CODE), Ok(()), "the next one");
}

#[test]
fn sessions_have_a_cap_and_a_full_one_is_refused() {
    let mut log = Log::with(Limits { sessions: 1, ..Limits::default() });
    let alice = log.open("alice", 1);
    let out = log.connect("bob", device(2, 0), 9, true);
    assert!(matches!(out[..], [Applied::SessionRefused { code: Code::LimitReached, .. }]));
    log.apply(Command::SessionClose { session: alice });
    log.open("bob", 2);
}

#[test]
fn a_device_that_is_known_is_refused_too_where_there_are_as_many_sessions_as_may_be() {
    let mut log = Log::with(Limits { sessions: 1, ..Limits::default() });
    let bob = log.open("bob", 2);
    log.apply(Command::SessionClose { session: bob });
    let alice = log.open("alice", 1);
    let out = log.connect("bob", device(2, 0), 90, false);
    assert!(matches!(out[..], [Applied::SessionRefused { code: Code::LimitReached, .. }]), "{out:?}");
    log.apply(Command::SessionClose { session: alice });
    let out = log.connect("bob", device(2, 0), 90, false);
    assert!(matches!(out[..], [Applied::SessionOpened { .. }]), "{out:?}");
}

#[test]
fn a_released_name_is_claimed_anew_with_what_it_follows_and_its_inbox() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.follow(alice, feed("bob")).unwrap();
    let kept = log.send(bob, inbox("alice")).unwrap();
    log.keys(alice, KeyChange::Enrol { code: CODE }).unwrap();
    let change = AdminChange::Release { name: name("alice") };
    let query = QueryId(1);
    let out = log.apply(Command::Administer(Admin { query, change: change.clone() }));
    let op = log.service.applied();
    let released = Applied::Administered { query, change, result: Ok(op) };
    assert_eq!(out, [Applied::SessionClosed { session: alice, why: Code::SessionOver }, released]);
    assert_eq!(log.enrol("alice", 4, CODE), Err(Code::WrongCode), "its enrolment is gone too");
    log.open("alice", 3);
    let newest = HistoryRange::Before(Op(u64::MAX));
    assert_eq!(log.history("alice", Some(inbox("alice")), newest), Ok(vec![kept]));
    assert_eq!(log.list("alice", Listing::Following).unwrap().len(), 1);
    let out = log.connect("alice", device(1, 0), 90, true);
    assert!(matches!(out[..], [Applied::SessionRefused { code: Code::NotYours, .. }]), "whoever was first");
    let change = AdminChange::Release { name: name("nobody") };
    let query = QueryId(2);
    let out = log.apply(Command::Administer(Admin { query, change: change.clone() }));
    let result = Err(Code::UnknownProfile);
    assert_eq!(out, [Applied::Administered { query, change, result }]);
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
            let answer = log.service.history(&name("alice"), &query).unwrap();
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
        let answer = log.service.history(&name("alice"), &query).unwrap();
        assert_eq!((answer.notifications.len(), answer.more), (count, true), "limit {limit}");
    }
}

#[test]
fn a_page_has_as_many_bytes_as_requested_and_at_least_one_notification() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    let sent: Vec<Op> = (0..3).map(|_| log.send(alice, inbox("bob")).unwrap()).collect();
    let one = log.service.state.topics.get(&inbox("bob")).unwrap().bytes as usize / 3;
    let cursor = log.service.session(bob).unwrap().cursor;
    for (bytes, fit) in [(0, 1), (2 * one - 1, 1), (2 * one, 2), (3 * one - 1, 2), (3 * one, 3)] {
        let page = log.service.page(bob, cursor, 10, bytes);
        let told = (ops(&page.notifications), page.more);
        assert_eq!(told, (sent[..fit].to_vec(), fit < 3), "{bytes} bytes");
    }
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
fn a_page_reports_a_loss_and_skips_nothing_of_other_topics_below_it() {
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
fn the_next_page_reports_a_loss_after_the_last_retained_notification() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.follow(bob, feed("alice")).unwrap();
    let kept = log.send(alice, inbox("bob")).unwrap();
    let lost = log.send(alice, feed("alice")).unwrap();
    log.apply(Command::Trim { topic: feed("alice"), upto: lost });
    let page = log.service.page(bob, kept.prev(), 10, 1 << 20);
    assert_eq!((page.gap, ops(&page.notifications), page.more), (None, vec![kept], true));
    let page = log.service.page(bob, kept, 10, 1 << 20);
    assert_eq!((page.gap, ops(&page.notifications), page.more), (Some(lost), vec![], false));
}

#[test]
fn a_page_from_the_beginning_of_the_log_reports_no_loss_where_there_was_none() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    assert_eq!(log.service.page(alice, Op::ZERO, 10, 1 << 20), Page::default());
}

#[test]
fn what_was_stamped_before_the_clock_was_set_ages_from_then() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    let ops = || channel("ops");
    let send = |log: &mut Log| log.send(session, ops()).unwrap();
    let unset = send(&mut log);
    let (set_ms, day_ms) = (EARLIEST_DATE_MS, 24 * 3600 * 1000);
    let tidy = |log: &Log, unix_ms: u64| {
        log.service.housekeeping(unix_ms, &Retention { age_ms: day_ms, ..Retention::default() }, 10)
    };
    let trim = |upto| vec![Command::Trim { topic: ops(), upto }];
    assert_eq!(tidy(&log, log.unix_ms + day_ms), [], "a day by the clock that was not set");
    assert_eq!(tidy(&log, log.unix_ms + day_ms + 1), trim(unset));
    assert_eq!(tidy(&log, set_ms), [], "when it is set, before the log says so");

    // The earliest stamp that is a date is the first one.
    log.unix_ms = set_ms - 1;
    let set = send(&mut log);
    let dated_ms = log.unix_ms;
    assert_eq!(dated_ms, set_ms);
    log.unix_ms += day_ms;
    assert_eq!(tidy(&log, dated_ms + day_ms), []);
    let young = send(&mut log);
    assert_eq!(tidy(&log, dated_ms + day_ms + 1), trim(set), "both are a day old");
    assert!(unset < set && set < young);
    // A restart from a snapshot.
    let state = log.service.state();
    let again = Service::new(state, Limits::default(), PlantedBug::default());
    let kept =
        again.housekeeping(dated_ms + day_ms, &Retention { age_ms: day_ms, ..Retention::default() }, 10);
    assert_eq!(kept, []);
}

#[test]
fn housekeeping_trims_by_each_limit_and_closes_what_is_idle() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let sent: Vec<Op> = (0..4).map(|_| log.send(alice, feed("alice")).unwrap()).collect();
    let now_ms = log.unix_ms;
    let all = Retention { count: 100, bytes: 1 << 20, age_ms: 1 << 30, all_bytes: u64::MAX };
    let trim = |upto| vec![Command::Trim { topic: feed("alice"), upto }];
    let tidy = |retention| log.service.housekeeping(now_ms, &retention, 10);
    assert_eq!(tidy(all), []);
    assert_eq!(tidy(Retention { count: 3, ..all }), trim(sent[0]));
    assert_eq!(tidy(Retention { bytes: 150, ..all }), trim(sent[1]));
    assert_eq!(tidy(Retention { age_ms: 1, ..all }), trim(sent[1]));
    let one = log.service.state.topics.get(&feed("alice")).unwrap().bytes / 4;
    assert_eq!(tidy(Retention { bytes: 4 * one, ..all }), []);
    assert_eq!(tidy(Retention { bytes: 4 * one - 1, ..all }), trim(sent[0]));
    assert_eq!(tidy(Retention { count: 3, bytes: 3 * one, ..all }), trim(sent[0]), "three are within both");
    let week_ms = 8 * 24 * 3600 * 1000;
    let closes = log.service.housekeeping(now_ms + week_ms, &Retention { age_ms: u64::MAX, ..all }, 10);
    assert_eq!(closes, [Command::SessionClose { session: alice }]);
}

#[test]
fn a_full_profile_forgets_its_oldest_idle_device_and_only_an_idle_one() {
    let mut log = Log::with(Limits { devices: 2, ..Limits::default() });
    let first = log.enter("alice", device(1, 0), 1, true);
    log.enter("alice", device(1, 1), 2, true);
    let out = log.connect("alice", device(1, 2), 3, true);
    assert!(matches!(out[..], [Applied::SessionRefused { code: Code::LimitReached, .. }]));
    log.apply(Command::SessionClose { session: first });
    let out = log.connect("alice", device(1, 2), 4, true);
    assert!(matches!(out[..], [Applied::SessionOpened { .. }]));
    let out = log.connect("alice", device(1, 0), 5, false);
    assert!(matches!(out[..], [Applied::SessionRefused { code: Code::UnknownDevice, .. }]));
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
        let (answer, _) = log.service.list(&name("alice"), &query).unwrap();
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
            let (answer, _) = log.service.list(&name("alice"), &query).unwrap();
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
        log.service.list(&name("alice"), &query).unwrap().1
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
            let (answer, _) = log.service.list(&name("alice"), &query).unwrap();
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
fn a_list_of_channels_counts_those_that_its_asker_may_not_see() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    log.open("bob", 2);
    for (which, private) in [("diary", true), ("news", false), ("team", true)] {
        log.channel(alice, which, create(private)).unwrap();
    }
    let passed_over = |asker: &str, what: Listing| {
        let query = List { what, after: None };
        let (answer, passed_over) = log.service.list(&name(asker), &query).unwrap();
        (answer.items.len(), passed_over)
    };
    assert_eq!(passed_over("bob", Listing::Channels), (1, 2));
    assert_eq!(passed_over("alice", Listing::Channels), (3, 0));
    assert_eq!(passed_over("bob", Listing::People), (2, 0));
}

#[test]
fn an_apply_that_is_not_deterministic_can_be_planted() {
    let planted = PlantedBug(Some(recado_proto::planted::Planted::ApplyNotDeterministic));
    let asked: [fn(&Service); 2] = [
        |service| {
            service.standing(SessionId(Op(1)), Seq(1), DIGEST);
        },
        |service| {
            service.page(SessionId(Op(1)), Op::ZERO, 1, 1);
        },
    ];
    for ask in asked {
        let mut one = Service::new(State::default(), Limits::default(), planted);
        let mut other = Service::new(State::default(), Limits::default(), planted);
        ask(&one);
        let command = Command::SessionClose { session: SessionId(Op(9)) };
        for service in [&mut one, &mut other] {
            service.apply(Op(1), Some(&Stamped { unix_ms: 5, command: command.clone() }), &mut Vec::new());
        }
        assert_ne!(one.state(), other.state());
    }
}

#[test]
fn duplicates_checked_only_against_committed_state_can_be_planted() {
    let mut log = Log::new();
    let planted = PlantedBug(Some(recado_proto::planted::Planted::DuplicatesOnlyCommitted));
    log.service = Service::new(State::default(), Limits::default(), planted);
    let session = log.open("alice", 1);
    let request = Request::Send { topic: feed("alice"), content: content("one") };
    let twice = Command::Request {
        session,
        seq: Seq(1),
        answered_below: Seq(1),
        request,
        digest: DIGEST,
        may_make: true,
    };
    assert_eq!(log.apply(twice.clone()).len(), 2);
    assert_eq!(log.apply(twice).len(), 2, "stored again");
}

#[test]
fn digests_that_are_missing_from_snapshots_can_be_planted() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    let sent = log.send(session, feed("alice")).unwrap();
    let standing = |planted| {
        let service = Service::new(log.service.state(), Limits::default(), planted);
        service.standing(session, Seq(1), DIGEST)
    };
    assert_eq!(standing(PlantedBug::default()), Standing::Answered(Ok(sent)));
    let planted = PlantedBug(Some(recado_proto::planted::Planted::DigestsNotInSnapshot));
    assert_eq!(standing(planted), Standing::Taken, "the request is not known again");
}

#[test]
fn a_trim_that_records_no_loss_can_be_planted() {
    for planted in [None, Some(recado_proto::planted::Planted::TrimForgotten)] {
        let mut log = Log::new();
        log.service = Service::new(State::default(), Limits::default(), PlantedBug(planted));
        let (alice, bob) = (log.open("alice", 1), log.open("bob", 2));
        let lost = log.send(alice, inbox("bob")).unwrap();
        log.apply(Command::Trim { topic: inbox("bob"), upto: lost });
        let cursor = log.service.session(bob).unwrap().cursor;
        let gap = log.service.page(bob, cursor, 10, 1 << 20).gap;
        assert_eq!(gap, planted.is_none().then_some(lost), "{planted:?}");
    }
}

/// Compares the encoded size of the largest of each part with its weight.
#[test]
fn nothing_takes_more_in_a_snapshot_than_it_weighs() {
    use crate::capacity::{
        ADMINISTERED, CHANNEL, FOLLOW, KEY, MAKER, MEMBER, OWNED, PROFILE, all_retained, size_bound,
    };
    use crate::state::{Administered, Device, Enrolment, Owned, Profile, Sent, Session, TopicState};

    let long = |n: usize| name(&format!("{n:0>32}"));
    let (op, outstanding) = (Op(u64::MAX), Limits::default().outstanding);
    let mut service = Service::new(State::default(), Limits::default(), PlantedBug::default());
    let empty = codec::encode(&service.state).len() as u64;
    let id = device(255, 255);
    let profile = |keys: usize, follows: usize| Profile {
        claimed_op: op,
        keys: vec![DeviceKey([255; 32]); keys],
        follows: (0..follows).map(|n| (Topic::Channel(long(n)), op)).collect(),
        sent: imbl::Vector::new(),
        owns: u64::MAX,
        enrolment: Some(Enrolment { code: CodeHash([255; 32]), until_ms: u64::MAX, wrong: u32::MAX }),
        claimed_ms: u64::MAX,
        usage: crate::state::Usage::Used,
        channels_paid_ms: u64::MAX,
    };
    let topic = |retained: Vec<Arc<Notification>>| TopicState {
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
    weighs("a profile of many follows", PROFILE + 1_000 * FOLLOW, &|state| {
        few(0, 1_000)(state);
        for n in 0..1_000 {
            let followed = state.topics.feeds.get_mut(&long(0)).unwrap();
            followed.followers.insert(long(n), op);
        }
    });
    weighs("a hundred channels of many members", 100 * (CHANNEL + OWNED + MAKER + 10 * MEMBER), &|state| {
        for n in 0..100 {
            state.topics.makers.insert(long(n), long(n));
            state.topics.channels.insert(long(n), topic(Vec::new()));
            let members = (0..10).map(|n| (long(n), Role::Owner)).collect();
            state.topics.owned.insert(long(n), Owned { private: true, members, created_ms: u64::MAX });
        }
    });
    weighs("a hundred things that administrators asked", 100 * ADMINISTERED, &|state| {
        let asked = Administered { query: QueryId(u64::MAX), at_ms: u64::MAX, result: Ok(op) };
        state.administered = (0..100).map(|_| asked).collect();
    });
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
        let held: Vec<Arc<Notification>> = (0..100).map(|at| Arc::new(of(at))).collect();
        let mut inbox = topic(Vec::new());
        inbox.bytes = 0;
        held.iter().for_each(|held| inbox.push(held.clone()));
        let weight = held.iter().map(|held| size_bound(held)).sum::<u64>();
        assert_eq!(all_retained(&inbox), weight);
        service.state = State::default();
        service.state.topics.inboxes.insert(long(0), inbox);
        let mut author = profile(0, 0);
        author.sent = (0..100).map(sent).collect();
        service.state.profiles.insert(long(0), author);
        let takes = codec::encode(&service.state).len() as u64 - empty;
        assert!(takes <= weight + PROFILE, "{takes} bytes weigh {weight}");
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
        held.iter().map(|held| held.op).collect::<Vec<Op>>()
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
    let record_bytes = log.service.records() + crate::capacity::FOLLOW;
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

#[test]
fn one_byte_beyond_the_room_of_all_topics_costs_the_largest_its_oldest_and_no_other_any() {
    let mut log = Log::new();
    let (alice, bobby) = (log.open("alice", 1), log.open("bobby", 2));
    let sent: Vec<Op> = (0..3).map(|_| log.send(bobby, feed("bobby")).unwrap()).collect();
    for _ in 0..2 {
        log.send(alice, feed("alice")).unwrap();
    }
    let retention = Retention { all_bytes: log.service.index.counted.retained - 1, ..Retention::default() };
    let trims = log.service.housekeeping(log.unix_ms, &retention, 10);
    assert_eq!(trims, [Command::Trim { topic: feed("bobby"), upto: sent[0] }]);
}

#[test]
fn beyond_the_room_of_all_topics_the_primary_trims_the_largest() {
    let mut log = Log::new();
    let (alice, bobby) = (log.open("alice", 1), log.open("bobby", 2));
    for _ in 0..10 {
        log.send(bobby, feed("bobby")).unwrap();
    }
    log.send(alice, feed("alice")).unwrap();
    let held = log.service.index.counted.retained;
    let retention = |all_bytes| Retention { all_bytes, ..Retention::default() };
    assert_eq!(log.service.housekeeping(log.unix_ms, &retention(held), 10), []);
    for _ in 0..10 {
        for command in log.service.housekeeping(log.unix_ms, &retention(held / 2), 10) {
            assert!(
                matches!(&command, Command::Trim { topic, .. } if *topic == feed("bobby")),
                "{command:?}"
            );
            log.apply(command);
        }
    }
    let left = log.service.index.counted.retained;
    assert!(left <= held / 2 && left > held / 4, "{left} of {held}");
}

#[test]
fn far_beyond_the_room_of_all_topics_those_at_least_half_as_large_as_the_largest_lose_half() {
    let mut log = Log::new();
    let [alice, bobby, _] = [("alice", 1, 10), ("bobby", 2, 5), ("carol", 3, 4)].map(|(who, key, count)| {
        let session = log.open(who, key);
        (0..count).map(|_| log.send(session, feed(who)).unwrap()).collect::<Vec<Op>>()
    });
    let trim = |who: &str, upto| Command::Trim { topic: feed(who), upto };
    let retention = Retention { all_bytes: 0, ..Retention::default() };
    let trims = log.service.housekeeping(log.unix_ms, &retention, 10);
    assert_eq!(trims, [trim("alice", alice[4]), trim("bobby", bobby[2])]);
}

#[test]
fn a_cursor_moves_forward_within_the_log_and_stays_where_it_was_for_any_other() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    let born = log.service.session(session).unwrap().cursor;
    log.send(session, inbox("alice")).unwrap();
    log.apply(Command::Cursors(vec![(session, Op(1 << 40))]));
    assert_eq!(log.service.session(session).unwrap().cursor, born, "beyond the end is nowhere");
    let end = log.service.applied();
    log.apply(Command::Cursors(vec![(session, end)]));
    log.apply(Command::Cursors(vec![(session, born)]));
    assert_eq!(log.service.session(session).unwrap().cursor, end);
}

#[test]
fn a_cursor_moves_to_the_last_op_of_the_log_and_not_to_the_one_after_it() {
    let mut log = Log::new();
    let session = log.open("alice", 1);
    // The command that moves it is the last op itself.
    let last = log.service.applied().next();
    log.apply(Command::Cursors(vec![(session, last)]));
    assert_eq!(log.service.session(session).unwrap().cursor, last);
    let beyond = last.next().next();
    log.apply(Command::Cursors(vec![(session, beyond)]));
    assert_eq!(log.service.session(session).unwrap().cursor, last);
}

// ---- names

const DAY_MS: u64 = 24 * 3_600 * 1_000;

impl Log {
    fn administer(&mut self, change: AdminChange) -> Result<Op, Code> {
        // Each ADMIN has another id.
        let query = QueryId(self.unix_ms);
        match self.apply(Command::Administer(Admin { query, change })).last() {
            Some(Applied::Administered { result, .. }) => *result,
            other => panic!("not answered: {other:?}"),
        }
    }

    /// The result of claiming a name under this setting.
    fn claim(
        &mut self,
        profile: &str,
        key: u8,
        admission: Admission,
        invite: Option<CodeHash>,
    ) -> Result<(), Code> {
        let (device, nonce) = (device(key, 0), self.unix_ms);
        let open = SessionOpen {
            device,
            profile: name(profile),
            receives: true,
            nonce,
            fresh: true,
            code: None,
            invite,
            admission,
            aead: Default::default(),
        };
        match self.apply(Command::SessionOpen(open))[..] {
            [.., Applied::SessionOpened { .. }] => Ok(()),
            [.., Applied::SessionRefused { code, .. }] => Err(code),
            ref other => panic!("{other:?}"),
        }
    }

    /// The clock advances by `days`, and the primary does its housekeeping.
    fn tidy_after(&mut self, days: u64) {
        self.unix_ms += days * DAY_MS;
        for command in self.service.housekeeping(self.unix_ms, &Retention::default(), 100) {
            self.apply(command);
        }
    }

    /// The clock advances day by day; each day these sessions are seen and the primary does its housekeeping.
    fn spend(&mut self, days: u64, sessions: &[SessionId]) {
        for _ in 0..days {
            self.apply(Command::Cursors(sessions.iter().map(|session| (*session, Op(0))).collect()));
            self.tidy_after(1);
        }
    }

    fn has_profile(&self, who: &str) -> bool {
        self.service.state.profiles.contains_key(&name(who))
    }
}

const INVITED: CodeHash = CodeHash([7; 32]);

fn invitation(uses: u32, only: Option<&str>) -> AdminChange {
    AdminChange::Invite { code: INVITED, uses, lasts_ms: DAY_MS, name: only.map(name) }
}

#[test]
fn an_invitation_lets_as_many_names_be_claimed_as_it_says_and_no_more() {
    let mut log = Log::new();
    log.open("early", 9);
    let invited = |log: &mut Log, who: &str, key| log.claim(who, key, Admission::Invite, Some(INVITED));
    assert_eq!(log.claim("alice", 1, Admission::Invite, None), Err(Code::InviteNeeded));
    assert_eq!(invited(&mut log, "alice", 1), Err(Code::WrongInvite));
    log.administer(invitation(2, None)).unwrap();
    assert_eq!(invited(&mut log, "alice", 1), Ok(()));
    assert_eq!(log.claim("alice", 1, Admission::Invite, None), Ok(()), "who has a name keeps it");
    assert_eq!(log.claim("early", 9, Admission::Invite, None), Ok(()), "also from before the setting");
    log.administer(invitation(2, None)).unwrap();
    assert_eq!(invited(&mut log, "bob", 2), Ok(()), "made again, it is the same");
    assert_eq!(invited(&mut log, "carol", 3), Err(Code::WrongInvite), "it is used up");
    assert_eq!(log.claim("carol", 3, Admission::Open, None), Ok(()));
}

#[test]
fn each_claim_takes_one_use_of_its_invitation() {
    for uses in 1..=4 {
        let mut log = Log::new();
        log.administer(invitation(uses, None)).unwrap();
        let claims = ["alice", "bob", "carol", "dave", "erin"].into_iter().zip(1..);
        let result = claims.map(|(who, key)| log.claim(who, key, Admission::Invite, Some(INVITED)));
        assert_eq!(result.filter(Result::is_ok).count(), uses as usize);
    }
}

#[test]
fn an_invitation_that_is_good_twice_is_found() {
    let planted = PlantedBug(Some(recado_proto::planted::Planted::InviteTwice));
    let mut log = Log::new();
    log.service = Service::new(State::default(), Limits::default(), planted);
    log.administer(invitation(1, None)).unwrap();
    let claims = [("alice", 1), ("bob", 2)];
    let let_in = claims.map(|(who, key)| log.claim(who, key, Admission::Invite, Some(INVITED)).is_ok());
    assert_eq!(let_in, [true, true], "the mistake shows where the test before forbids it");
}

#[test]
fn an_invitation_is_for_its_name_and_its_time() {
    let mut log = Log::new();
    log.administer(invitation(1, Some("alice"))).unwrap();
    assert_eq!(log.claim("mallory", 1, Admission::Invite, Some(INVITED)), Err(Code::WrongInvite));
    log.unix_ms += DAY_MS + 10;
    assert_eq!(log.claim("alice", 1, Admission::Invite, Some(INVITED)), Err(Code::WrongInvite));
    assert!(log.service.is_unclaimed(&name("alice")), "a refusal leaves no trace");
}

#[test]
fn an_invitation_is_good_to_its_last_millisecond_and_no_longer() {
    let mut log = Log::new();
    log.administer(invitation(2, None)).unwrap();
    let until_ms = log.service.clock_ms() + DAY_MS;
    log.unix_ms = until_ms - 1;
    assert_eq!(log.claim("alice", 1, Admission::Invite, Some(INVITED)), Ok(()));
    assert_eq!(log.service.clock_ms(), until_ms);
    assert_eq!(log.claim("bob", 2, Admission::Invite, Some(INVITED)), Err(Code::WrongInvite));
}

#[test]
fn invitations_and_allowed_keys_are_bounded_and_old_ones_make_room() {
    let mut log = Log::with(Limits { invites: 2, allowed: 1, ..Limits::default() });
    let invite =
        |code| AdminChange::Invite { code: CodeHash([code; 32]), uses: 1, lasts_ms: DAY_MS, name: None };
    log.administer(invite(1)).unwrap();
    let until_ms = log.service.clock_ms() + DAY_MS;
    log.administer(invite(2)).unwrap();
    assert_eq!(log.administer(invite(3)), Err(Code::LimitReached));
    log.unix_ms = until_ms - 1;
    assert_eq!(
        log.administer(invite(3)),
        Err(Code::LimitReached),
        "the first is good to its last millisecond"
    );
    assert_eq!(log.service.clock_ms(), until_ms);
    assert!(log.administer(invite(3)).is_ok());
    let allow = |key| AdminChange::Allow { key: DeviceKey([key; 32]) };
    log.administer(allow(1)).unwrap();
    assert!(log.administer(allow(1)).is_ok(), "once more is the same");
    assert_eq!(log.administer(allow(2)), Err(Code::LimitReached));
}

#[test]
fn profiles_have_a_limit_and_an_existing_profile_can_connect_beyond_it() {
    let mut log = Log::with(Limits { profiles: 2, ..Limits::default() });
    log.open("alice", 1);
    log.open("bob", 2);
    assert_eq!(log.claim("carol", 3, Admission::Open, None), Err(Code::LimitReached));
    assert!(!log.has_profile("carol"));
    let another = log.connect("alice", device(1, 1), 9, true);
    assert!(matches!(another[..], [Applied::SessionOpened { .. }]), "{another:?}");
    log.administer(AdminChange::RemoveProfile { name: name("bob") }).unwrap();
    assert_eq!(log.claim("carol", 3, Admission::Open, None), Ok(()), "a place is free");
}

#[test]
fn where_keys_are_allowed_only_they_claim_names() {
    let mut log = Log::new();
    let key = DeviceKey([1; 32]);
    assert_eq!(log.claim("alice", 1, Admission::Keys, None), Err(Code::KeyNotAllowed));
    log.administer(AdminChange::Allow { key }).unwrap();
    assert_eq!(log.claim("alice", 1, Admission::Keys, None), Ok(()));
    log.administer(AdminChange::Disallow { key }).unwrap();
    assert_eq!(log.claim("alice", 1, Admission::Keys, None), Ok(()), "it has the name");
    assert_eq!(log.claim("bob", 2, Admission::Keys, None), Err(Code::KeyNotAllowed));
    assert_eq!(log.administer(AdminChange::Disallow { key }), Err(Code::KeyNotAllowed));
}

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
    let there = |log: &Log, which: &str| log.service.state.topics.channels.contains_key(&name(which));
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
        let expire = Command::Expire(Claim::Channel { name: name("ops") });
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
    assert_eq!(tidy(&log, until_ms + 1), [Command::Expire(Claim::Channel { name: name("ops") })]);
}

/// After a private channel is gone, a notification to it creates no channel until its name is free.
fn nobody_reads_what_comes_late(gone: impl FnOnce(&mut Log, &[SessionId; 2])) {
    let mut log = Log::new();
    let sessions = [log.open("alice", 1), log.open("bob", 2)];
    log.channel(sessions[0], "diary", create(true)).unwrap();
    gone(&mut log, &sessions);
    assert!(!log.service.state.topics.channels.contains_key(&name("diary")), "it is gone");
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
        log.administer(AdminChange::RemoveChannel { channel: name("diary") }).unwrap();
    });
}

#[test]
fn the_first_text_to_a_private_channel_that_waited_too_long_opens_it_to_nobody() {
    nobody_reads_what_comes_late(|log, sessions| log.spend(7, sessions));
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
    let expire = Command::Expire(Claim::Deleted { name: name("ops") });
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
    let expire = Command::Expire(Claim::Deleted { name: name("ops") });
    assert_eq!(tidy(&log, until_ms), []);
    assert_eq!(tidy(&log, until_ms + 1), std::slice::from_ref(&expire));
    log.unix_ms = until_ms - 1;
    for taken in [true, false] {
        log.apply(expire.clone());
        assert_eq!(log.service.state.topics.is_deleted(&name("ops")), taken, "{}", log.service.clock_ms());
    }
}

#[test]
fn a_profile_that_may_have_made_one_channel_makes_one_and_the_next_when_that_is_gone() {
    let mut log = Log::with(Limits { channels_made: 1, ..Limits::default() });
    let alice = log.open("alice", 1);
    assert!(log.send(alice, channel("one")).is_ok());
    assert_eq!(log.send(alice, channel("two")), Err(Code::LimitReached));
    log.administer(AdminChange::RemoveChannel { channel: name("one") }).unwrap();
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
    log.administer(AdminChange::RemoveChannel { channel: name("deleted1-2") }).unwrap();
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
        let request =
            Command::Request { session: alice, seq, answered_below, request, digest: DIGEST, may_make };
        match log.apply(request).last() {
            Some(Applied::Answered { result, .. }) => result.err(),
            other => panic!("{other:?}"),
        }
    };
    let send = |to: &str| Request::Send { topic: channel(to), content: content("hello") };
    let make = Request::Channel { channel: name("anew"), change: create(false) };
    assert_eq!(ask(send("anew")), Some(Code::TooManyNames));
    assert_eq!(ask(make), Some(Code::TooManyNames));
    assert_eq!(ask(send("there")), None, "what is there goes on");
    assert_eq!(log.service.state.topics.channels.len(), 1);
}

#[test]
fn a_removed_profile_leaves_only_what_it_sent_to_others() {
    let mut log = Log::new();
    let (alice, bob) = (log.open("alice", 1), log.open("bob", 2));
    log.follow(alice, feed("bob")).unwrap();
    log.follow(bob, feed("alice")).unwrap();
    log.send(alice, feed("alice")).unwrap();
    log.send(bob, inbox("alice")).unwrap();
    let sent = log.send(alice, inbox("bob")).unwrap();
    log.channel(alice, "ops", ChannelChange::Create { private: true }).unwrap();
    let remove = AdminChange::RemoveProfile { name: name("alice") };
    assert!(log.administer(remove.clone()).is_ok());
    assert_eq!(log.administer(remove), Err(Code::UnknownProfile), "it is gone already");
    assert!(log.service.session(alice).is_none());
    assert_eq!(log.list("bob", Listing::Following), Ok(vec![]));
    assert_eq!(log.list("bob", Listing::Followers), Ok(vec![]));
    assert_eq!(log.pending(bob), [sent]);
    let range = HistoryRange::Before(Op(u64::MAX));
    assert_eq!(
        log.history("bob", Some(inbox("bob")), range),
        Ok(vec![sent]),
        "what she wrote to alice is gone"
    );
    let anew = log.open("alice", 3);
    assert_eq!(log.pending(anew), []);
    assert_eq!(log.list("alice", Listing::Following), Ok(vec![]));
    assert_eq!(log.send(anew, channel("ops")), Err(Code::NotAllowed), "no role came back with the name");
    assert_eq!(&log.service.index, &crate::index::Index::of(&log.service.state));
}

#[test]
fn channels_that_a_removed_profile_made_are_no_part_of_anybodys_share() {
    let mut log = Log::with(Limits { channels_made: 1, ..Limits::default() });
    let (alice, bob) = (log.open("alice", 1), log.open("bob", 2));
    log.send(alice, channel("one")).unwrap();
    log.send(bob, channel("two")).unwrap();
    log.administer(AdminChange::RemoveProfile { name: name("alice") }).unwrap();
    let anew = log.open("alice", 3);
    assert!(log.send(anew, channel("one")).is_ok(), "it is still there");
    assert!(log.send(anew, channel("three")).is_ok(), "whoever has the name now made none");
    assert_eq!(log.send(bob, channel("four")), Err(Code::LimitReached), "bob made his");
}

#[test]
fn a_removed_channel_is_free_also_after_it_was_deleted() {
    let mut log = Log::new();
    let (alice, bob) = (log.open("alice", 1), log.open("bob", 2));
    let remove = AdminChange::RemoveChannel { channel: name("ops") };
    assert_eq!(log.administer(remove.clone()), Err(Code::UnknownChannel));
    log.channel(alice, "ops", ChannelChange::Create { private: false }).unwrap();
    log.follow(bob, channel("ops")).unwrap();
    log.send(alice, channel("ops")).unwrap();
    log.administer(remove.clone()).unwrap();
    assert_eq!((log.pending(bob), log.list("bob", Listing::Following)), (vec![], Ok(vec![])));
    assert!(log.channel(bob, "ops", ChannelChange::Create { private: false }).is_ok(), "the name is free");
    log.channel(bob, "ops", ChannelChange::Delete).unwrap();
    assert_eq!(log.send(bob, channel("ops")), Err(Code::ChannelDeleted));
    log.administer(remove).unwrap();
    assert!(log.send(bob, channel("ops")).is_ok());
    assert_eq!(&log.service.index, &crate::index::Index::of(&log.service.state));
}

fn asked(query: u64, change: AdminChange) -> Command {
    Command::Administer(Admin { query: QueryId(query), change })
}

#[test]
fn an_administrators_change_is_applied_once_though_it_is_logged_twice() {
    let mut log = Log::new();
    let bob = log.open("bob", 2);
    log.open("alice", 1);
    let remove = || AdminChange::RemoveProfile { name: name("alice") };
    let all = [asked(7, remove()), asked(8, remove()), asked(9, invitation(1, None))];
    let ops = all.clone().map(|command| {
        log.apply(command);
        log.service.applied()
    });
    let results = [Ok(ops[0]), Err(Code::UnknownProfile), Ok(ops[2])];
    let told = |log: &Log| [7, 8, 9].map(|query| log.service.administered(QueryId(query)));
    assert_eq!(told(&log), results.map(Some));
    log.claim("carol", 3, Admission::Invite, Some(INVITED)).unwrap();
    log.open("alice", 4);
    let kept = log.send(bob, inbox("alice")).unwrap();

    // A service from a snapshot does not repeat them either.
    let state = codec::decode(&codec::encode(&log.service.state())).unwrap();
    log.service = Service::new(state, Limits::default(), PlantedBug::default());
    for again in all {
        assert_eq!(log.apply(again), [], "nothing comes of it");
    }
    assert_eq!(told(&log), results.map(Some));
    let newest = HistoryRange::Before(Op(u64::MAX));
    assert_eq!(log.history("alice", Some(inbox("alice")), newest), Ok(vec![kept]));
    let spent = log.claim("dave", 5, Admission::Invite, Some(INVITED));
    assert_eq!(spent, Err(Code::WrongInvite), "it is not made anew");
    log.administer(remove()).unwrap();
    assert!(!log.has_profile("alice"), "another question is done");
}

#[test]
fn an_administrators_change_is_forgotten_only_for_want_of_a_place_and_when_it_cannot_be_resent() {
    let limits = Limits { administered: 2, ..Limits::default() };
    let kept_ms = recado_proto::id::millis(limits.administered_for);
    let mut log = Log::with(limits);
    let allow = |query| asked(query, AdminChange::Allow { key: DeviceKey([query as u8; 32]) });
    let knows = |log: &Log| [1, 2, 3].map(|query| log.service.administered(QueryId(query)).is_some());
    log.apply(allow(1));
    let first_ms = log.service.clock_ms();
    log.apply(allow(2));
    let busy = |out: &[Applied]| matches!(out, [Applied::Administered { result: Err(Code::Busy), .. }]);
    log.unix_ms = first_ms + kept_ms - 1;
    assert!(busy(&log.apply(allow(3))), "the oldest may be said again to the last millisecond");
    assert_eq!(knows(&log), [true, true, false]);
    assert_eq!(log.service.state.admitted.keys.len(), 2, "and nothing was done");
    let out = log.apply(allow(3));
    assert!(matches!(out[..], [Applied::Administered { result: Ok(_), .. }]), "{out:?}");
    assert_eq!(knows(&log), [false, true, true]);
    log.tidy_after(1);
    assert_eq!(knows(&log), [false, true, true], "as long as there is room");
}

#[test]
fn an_administrators_change_that_is_applied_twice_is_found() {
    let planted = PlantedBug(Some(recado_proto::planted::Planted::AdministersTwice));
    let mut log = Log::new();
    log.service = Service::new(State::default(), Limits::default(), planted);
    let allow = asked(1, AdminChange::Allow { key: DeviceKey([1; 32]) });
    assert_eq!([log.apply(allow.clone()).len(), log.apply(allow).len()], [1, 1]);
}

/// Prints the cost on the replica thread of each kind of query and request, in the largest state that the
/// limits let one profile make. The charges in `src/server/cost.rs` are based on it.
#[test]
#[ignore = "measures, and takes a minute"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn what_requests_cost() {
    use std::time::Instant;

    let limits = Limits {
        channels_made: 10_000,
        channels_owned: 10_000,
        channels_at_once: u32::MAX,
        ..Limits::default()
    };
    let mut log = Log::with(limits);
    let wide = |n: u32, slot| {
        let mut key = [9; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        DeviceId { key: DeviceKey(key), slot }
    };
    let asker = log.open("asker", 1);
    let idle = log.open("idle", 2);
    for n in 0..9_000 {
        log.channel(asker, &format!("private{n}"), ChannelChange::Create { private: true }).unwrap();
    }
    for n in 0..1_000 {
        for _ in 0..20 {
            log.send(asker, channel(&format!("open{n}"))).unwrap();
        }
        log.follow(asker, channel(&format!("open{n}"))).unwrap();
    }
    for n in 0..20_000 {
        let follower = log.enter(&format!("follower{n}"), wide(n, 0), 7, true);
        if n < 10_000 {
            log.follow(follower, feed("idle")).unwrap();
        }
    }
    for slot in 1..16 {
        log.enter("asker", device(1, slot), u64::from(slot), true);
    }
    // The least of ten rounds, because other load on the machine only adds time; also relative to the first.
    let mut unit = None;
    let mut measure = |what: &str, times: u32, work: &mut dyn FnMut(&mut Log)| {
        let times = times / 10;
        let mut round = || {
            let began = Instant::now();
            for _ in 0..times {
                work(&mut log);
            }
            began.elapsed().as_secs_f64() * 1e6 / f64::from(times)
        };
        let least = (0..10).map(|_| round()).fold(f64::INFINITY, f64::min);
        eprintln!("{what:45} {least:>9.2} us {:>8.1}", least / *unit.get_or_insert(least));
    };
    let mut send = |bytes: usize| {
        let body = "x".repeat(bytes);
        measure(&format!("send {bytes} B to an inbox"), 1_000, &mut |log| {
            log.request(asker, Request::Send { topic: inbox("asker"), content: content(&body) }).unwrap();
        });
    };
    [10, 1_024, 16 * 1_024].into_iter().for_each(&mut send);
    let history = |topic, range, limit| History { topic, range, limit };
    let (who, bare) = (name("asker"), name("idle"));
    measure("a keepalive: the session's view", 20_000, &mut |log| drop(log.service.session(asker)));
    for limit in [1, 256] {
        let one = history(Some(channel("open1")), HistoryRange::Before(Op(u64::MAX)), limit);
        measure(&format!("history of a topic, {limit}"), 2_000, &mut |log| {
            drop(log.service.history(&who, &one))
        });
        let all = history(None, HistoryRange::Before(Op(u64::MAX)), limit);
        measure(&format!("history of 1,000 topics, {limit}"), 200, &mut |log| {
            drop(log.service.history(&who, &all))
        });
        let all = history(None, HistoryRange::SinceMs(1), limit);
        measure(&format!("the same since a time, {limit}"), 200, &mut |log| {
            drop(log.service.history(&who, &all))
        });
        measure(&format!("history of nothing, {limit}"), 2_000, &mut |log| {
            drop(log.service.history(&bare, &all))
        });
        measure(&format!("a page of 1,000 topics, {limit}"), 200, &mut |log| {
            drop(log.service.page(asker, Op::ZERO, limit as usize, 256 * 1024));
        });
    }
    let lists = [
        ("following, 1,000", Listing::Following),
        ("devices, 16", Listing::Devices),
        ("keys", Listing::Keys),
        ("followers, none", Listing::Followers),
        ("people, 200 of 20,002", Listing::People),
        ("channels, 200", Listing::Channels),
    ];
    for (what, listing) in lists {
        let list = List { what: listing, after: None };
        measure(&format!("list of {what}"), 200, &mut |log| drop(log.service.list(&who, &list)));
    }
    let list = List { what: Listing::Channels, after: Some("pa".into()) };
    measure("list of channels, 9,000 hidden from the asker", 100, &mut |log| {
        let (answer, passed_over) = log.service.list(&bare, &list).unwrap();
        assert_eq!((answer.items.len(), passed_over), (0, 9_000));
    });
    let list = List { what: Listing::Followers, after: None };
    measure("list of followers, 200 of 10,000", 200, &mut |log| drop(log.service.list(&bare, &list)));
    measure("info, 1,000 topics", 200, &mut |log| drop(log.service.info(&who)));
    measure("info, no topics", 2_000, &mut |log| drop(log.service.info(&bare)));
    measure("send to 10,000 sessions", 50, &mut |log| assert!(log.send(idle, feed("idle")).is_ok()));
    measure("follow and unfollow", 1_000, &mut |log| {
        log.follow(idle, feed("asker")).unwrap();
        log.unfollow(idle, feed("asker")).unwrap();
    });
}

#[test]
fn a_page_holds_as_many_notifications_as_it_is_asked_for_and_says_whether_more_follow() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.follow(bob, feed("alice")).unwrap();
    let before = log.service.applied();
    let sent: Vec<Op> = (0..3).map(|_| log.send(alice, feed("alice")).unwrap()).collect();
    let page = log.service.page(bob, before, 2, 1 << 20);
    assert_eq!((ops(&page.notifications), page.more), (sent[..2].to_vec(), true));
    let page = log.service.page(bob, before, 3, 1 << 20);
    assert_eq!((ops(&page.notifications), page.more), (sent, false));
}
