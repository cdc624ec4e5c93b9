//! The keys of a profile: enrolment by a code, and revocation.

use super::*;

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
        options: OptionalFields::NONE,
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
