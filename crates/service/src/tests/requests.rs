//! Numbered requests: each is applied once, and its result is kept until it is answered.

use super::*;

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
        options: OptionalFields::NONE,
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
        options: OptionalFields::NONE,
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
        options: OptionalFields::NONE,
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
    log.apply(Command::Request {
        session,
        seq,
        answered_below,
        request,
        digest,
        may_make: true,
        options: OptionalFields::NONE,
    });
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
fn a_refused_request_leaves_no_trace_but_its_number() {
    let mut log = Log::new();
    let alice = log.open("alice", 1);
    let bob = log.open("bob", 2);
    log.channel(alice, "ops", create(true)).unwrap();
    let refused = [
        Request::Send { topic: channel("ops"), content: content("no") },
        Request::Send { topic: feed("alice"), content: content("no") },
        Request::Follow { topic: channel("ops"), change: FollowChange::Add },
        Request::Channel { channel: channel_name("ops"), change: add("bob", Role::Owner) },
        Request::Channel { channel: channel_name("ops"), change: ChannelChange::Delete },
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
