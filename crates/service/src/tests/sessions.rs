//! Sessions: who is let in, what is confirmed, fenced, closed or lapses.

use super::*;

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
            options: OptionalFields::NONE,
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
        options: OptionalFields::NONE,
    });
    assert!(matches!(out[0], Applied::Notified { .. }));
    assert_eq!(log.service.addressed(&inbox("bob"))[..], []);
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

/// Many short programs on one machine must not end what another machine waits for.
#[test]
fn a_full_profile_forgets_a_device_of_the_installation_with_the_most_and_never_the_last_of_another() {
    let mut log = Log::with(Limits { devices: 4, ..Limits::default() });
    let first = log.open("alice", 1);
    log.keys(first, KeyChange::Enrol { code: CODE }).unwrap();
    log.enrol("alice", 2, CODE).unwrap();
    let near = [1, 2].map(|slot| log.enter("alice", device(1, slot), 3 + u64::from(slot), true));
    log.apply(Command::SessionClose { session: near[0] });
    let out = log.connect("alice", device(1, 3), 9, true);
    assert!(matches!(out[..], [Applied::SessionOpened { .. }]), "one of its own gives way");
    let known = |log: &Log, id| log.service.state.devices.contains_key(&id);
    assert!(known(&log, device(2, 0)) && !known(&log, device(1, 1)));
    log.enter("alice", device(1, 3), 10, true);
    let out = log.connect("alice", device(1, 4), 11, true);
    assert!(matches!(out[..], [Applied::SessionRefused { code: Code::LimitReached, .. }]));
    assert!(known(&log, device(2, 0)), "idle, and the last of its installation");
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
