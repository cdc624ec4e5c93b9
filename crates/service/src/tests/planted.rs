//! Mistakes that are planted, so that other tests can show that they find them.

use super::*;

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
        options: OptionalFields::NONE,
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
fn an_administrators_change_that_is_applied_twice_is_found() {
    let planted = PlantedBug(Some(recado_proto::planted::Planted::AdministersTwice));
    let mut log = Log::new();
    log.service = Service::new(State::default(), Limits::default(), planted);
    let allow = asked(1, AdminChange::Allow { key: DeviceKey([1; 32]) });
    assert_eq!([log.apply(allow.clone()).len(), log.apply(allow).len()], [1, 1]);
}

#[test]
fn writes_of_the_store_that_go_wrong_can_be_planted() {
    use recado_proto::planted::Planted;

    for planted in [None, Some(Planted::StaleTimestampPasses), Some(Planted::DeletedValueStays)] {
        let mut log = Log::new();
        log.service = Service::new(State::default(), Limits::default(), PlantedBug(planted));
        let alice = log.open("alice", 1);
        let key = || "k".parse::<StoreKey>().unwrap();
        let put = |condition| Request::Put { key: key(), value: "x".into(), condition };
        let first = log.request(alice, put(Condition::Always)).unwrap();
        log.request(alice, put(Condition::Always)).unwrap();
        let stale = log.request(alice, put(Condition::At(first)));
        assert_eq!(stale.is_ok(), planted == Some(Planted::StaleTimestampPasses), "{planted:?}");
        log.request(alice, Request::Delete { key: key(), at: None }).unwrap();
        let stays = log.service.value(&name("alice"), &key()).unwrap().is_some();
        assert_eq!(stays, planted == Some(Planted::DeletedValueStays), "{planted:?}");
    }
}
