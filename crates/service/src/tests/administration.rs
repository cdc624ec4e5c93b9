//! Changes by an administrator: release, removal, and each change once.

use super::*;

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
    let remove = AdminChange::RemoveChannel { channel: channel_name("ops") };
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
    assert!(!log.has_profile("alice"), "another id is another change");
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
