//! Queries that are asked again while the delivery sends their answers.

use super::*;

over_each_log!(
    a_query_does_not_run_again_while_its_answer_is_outstanding,
    a_refusal_is_no_answer_that_is_awaited,
    a_query_beyond_those_that_the_delivery_holds_runs_each_time,
    the_end_of_a_session_and_of_the_lead_end_its_outstanding_answers,
    a_query_waits_for_the_state_that_its_token_names_and_no_longer_than_50_ms,
    the_holder_of_a_key_asks_without_a_session_as_one_of_its_profiles,
    a_server_that_does_not_lead_answers_and_says_how_old_the_answer_may_be,
    a_linearizable_query_is_answered_by_a_primary_that_a_majority_confirms,
    a_status_tells_the_logs_time_and_which_servers_are_ignored,
);

fn list(query: u64) -> ToServer {
    ToServer::Query(Query::new(QueryId(query), QueryKind::List(List { what: Listing::People, after: None })))
}

/// A primary with a session, whose client acknowledges no answer.
fn rig<S: Surroundings>() -> (Rig<S>, SessionId) {
    let mut rig = Rig::<S>::leading();
    let session = rig.connect(1, "alice");
    rig.awaits_acks = true;
    rig.delivered.clear();
    (rig, session)
}

/// How often a query of a session has run.
fn runs<S: Surroundings>(rig: &Rig<S>, session: SessionId, query: u64) -> usize {
    rig.delivered.iter().filter(|input| answered(input) == Some((session, QueryId(query)))).count()
}

fn a_query_does_not_run_again_while_its_answer_is_outstanding<S: Surroundings>() {
    let (mut rig, session) = rig::<S>();
    let other = rig.connect(2, "bob");
    rig.delivered.clear();
    (0..5).for_each(|_| rig.client(session.0.0, list(1)));
    assert_eq!(runs(&rig, session, 1), 1);
    rig.client(session.0.0, list(2));
    rig.client(other.0.0, list(1));
    assert_eq!((runs(&rig, session, 2), runs(&rig, other, 1)), (1, 1), "other queries");

    rig.input(Input::AnswerDone { session, query: QueryId(1) });
    [1, 2].into_iter().for_each(|query| rig.client(session.0.0, list(query)));
    rig.client(other.0.0, list(1));
    assert_eq!((runs(&rig, session, 1), runs(&rig, session, 2), runs(&rig, other, 1)), (2, 1, 1));
}

fn a_refusal_is_no_answer_that_is_awaited<S: Surroundings>() {
    let (mut rig, session) = rig::<S>();
    let members = Listing::Members("nowhere".parse().unwrap());
    let list = ToServer::Query(Query::new(QueryId(1), QueryKind::List(List { what: members, after: None })));
    (0..3).for_each(|_| rig.client(session.0.0, list.clone()));
    let refused = |input: &delivery::Input| {
        matches!(input, delivery::Input::Answer { packet: ToClient::Error(refused), .. }
            if refused.code == Code::UnknownChannel)
    };
    assert_eq!(rig.delivered.iter().filter(|input| refused(input)).count(), 3);
}

fn a_query_beyond_those_that_the_delivery_holds_runs_each_time<S: Surroundings>() {
    let (mut rig, session) = rig::<S>();
    let most = delivery::ANSWERS_MAX as u64;
    for _ in 0..2 {
        (1..=most + 1).for_each(|query| rig.client(session.0.0, list(query)));
    }
    assert!((1..=most).all(|query| runs(&rig, session, query) == 1));
    assert_eq!(runs(&rig, session, most + 1), 2);
    // The end of an answer that is not recorded changes nothing; that of another one makes room.
    rig.input(Input::AnswerDone { session, query: QueryId(most + 1) });
    rig.input(Input::AnswerDone { session, query: QueryId(1) });
    (0..2).for_each(|_| rig.client(session.0.0, list(most + 1)));
    assert_eq!((runs(&rig, session, most + 1), runs(&rig, session, 2)), (3, 1));
}

fn the_end_of_a_session_and_of_the_lead_end_its_outstanding_answers<S: Surroundings>() {
    let (mut rig, session) = rig::<S>();
    rig.client(session.0.0, list(1));
    assert!(rig.node.outstanding.contains(session, QueryId(1)));
    rig.client(session.0.0, ToServer::Disconnect(Disconnect { upto: Position::of(Op::ZERO) }));
    rig.live(200);
    assert!(!rig.node.outstanding.contains(session, QueryId(1)));

    let (mut rig, session) = self::rig::<S>();
    rig.client(session.0.0, list(1));
    rig.node.on_deposed();
    assert!(!rig.node.outstanding.contains(session, QueryId(1)));
}

fn asked(query: u64, at_least: Op, options: OptionalFields) -> ToServer {
    let kind = QueryKind::List(List { what: Listing::People, after: None });
    ToServer::Query(Query {
        at_least: Some(Position::of(at_least)),
        options,
        ..Query::new(QueryId(query), kind)
    })
}

fn consistency(byte: u8) -> OptionalFields {
    OptionalFields::NONE.with(OptionalFields::CONSISTENCY, vec![byte])
}

/// What was said to the last query of a session, or of a key.
fn said<S: Surroundings>(rig: &mut Rig<S>) -> Option<ToClient> {
    let packet = rig.delivered.iter().rev().find_map(|input| match input {
        delivery::Input::Answer { packet, .. } => Some(packet.clone()),
        delivery::Input::AnswerTo { packets, .. } => packets.first().cloned(),
        _ => None,
    });
    rig.delivered.clear();
    packet
}

fn refusal<S: Surroundings>(rig: &mut Rig<S>) -> Option<(Code, Option<u64>)> {
    match said(rig) {
        Some(ToClient::Error(refused)) => {
            let applied = refused.data.get(OptionalFields::APPLIED).map(|bytes| bytes.try_into().unwrap());
            Some((refused.code, applied.map(u64::from_be_bytes)))
        }
        _ => None,
    }
}

/// The age that the last answer names: none if it is of a primary, and none inside if it is not known.
fn age<S: Surroundings>(rig: &mut Rig<S>) -> Option<Option<u64>> {
    let Some(ToClient::Answer(answer)) = said(rig) else { panic!("no answer") };
    let bytes = answer.options.get(OptionalFields::AGE)?;
    Some(bytes.try_into().ok().map(u64::from_be_bytes))
}

fn by_key<S: Surroundings>(rig: &mut Rig<S>, key: u8, packet: ToServer) {
    rig.input(Input::Initiation { reply_to: reply_to(), key: DeviceKey([key; 32]), packet });
}

fn a_query_waits_for_the_state_that_its_token_names_and_no_longer_than_50_ms<S: Surroundings>() {
    let (mut rig, session) = rig::<S>();
    let next = rig.node.applied().next();
    rig.client(session.0.0, asked(1, next, OptionalFields::NONE));
    rig.client(session.0.0, asked(1, next, OptionalFields::NONE));
    assert_eq!(said(&mut rig), None, "it waits");
    rig.pass(Duration::from_millis(49));
    assert_eq!(said(&mut rig), None, "it waits still");
    rig.pass(Duration::from_millis(1));
    let applied = rig.node.applied();
    assert_eq!(refusal(&mut rig), Some((Code::TryOtherServerOrLater, Some(applied.0))));
    rig.pass(Duration::from_millis(100));
    assert_eq!(said(&mut rig), None, "it was refused once");

    rig.awaits_acks = false;
    let next = rig.node.applied().next();
    rig.client(session.0.0, asked(2, next, OptionalFields::NONE));
    rig.connect(2, "bob");
    assert!(rig.node.applied() >= next);
    assert!(!rig.node.waiting.contains(session, QueryId(2)), "it is answered as soon as it can be");
    rig.client(session.0.0, asked(3, Op(u64::MAX), consistency(0)));
    assert!(matches!(said(&mut rig), Some(ToClient::Answer(_))), "any state was asked for");
}

fn the_holder_of_a_key_asks_without_a_session_as_one_of_its_profiles<S: Surroundings>() {
    let (mut rig, _) = rig::<S>();
    let as_profile = |name: &str| OptionalFields::NONE.with(OptionalFields::PROFILE, name.into());
    rig.connect(2, "bob");
    rig.delivered.clear();
    for (key, options, wanted) in [
        (1, OptionalFields::NONE, None),
        (1, as_profile("alice"), None),
        (1, as_profile("bob"), Some(Code::NotYours)),
        (1, as_profile("nobody"), Some(Code::UnknownDevice)),
        (1, as_profile("No name"), Some(Code::UnknownDevice)),
        (9, OptionalFields::NONE, Some(Code::UnknownDevice)),
        (9, as_profile("alice"), Some(Code::NotYours)),
    ] {
        by_key(&mut rig, key, asked(1, Op::ZERO, options.clone()));
        match said(&mut rig) {
            Some(ToClient::Answer(_)) => assert_eq!(wanted, None, "{key} {options:?}"),
            Some(ToClient::Error(refused)) => assert_eq!(wanted, Some(refused.code), "{key} {options:?}"),
            other => panic!("{other:?}"),
        }
    }
    by_key(&mut rig, 2, ToServer::Query(Query::new(QueryId(2), QueryKind::WhoAmI)));
    let Some(ToClient::Answer(answer)) = said(&mut rig) else { panic!("no answer") };
    assert_eq!(answer.kind, AnswerKind::WhoAmI(Some("bob".parse().unwrap())));
}

fn a_server_that_does_not_lead_answers_and_says_how_old_the_answer_may_be<S: Surroundings>() {
    let (mut rig, session) = rig::<S>();
    rig.client(session.0.0, list(1));
    assert_eq!(age(&mut rig), None, "of the primary");
    rig.node.on_deposed();
    by_key(&mut rig, 1, asked(1, Op::ZERO, OptionalFields::NONE));
    assert!(age(&mut rig).is_some());
    rig.client(session.0.0, list(2));
    assert!(age(&mut rig).is_some(), "on a session too");
    rig.client(
        session.0.0,
        ToServer::Query(Query::new(
            QueryId(3),
            QueryKind::List(List { what: Listing::Members("nowhere".parse().unwrap()), after: None }),
        )),
    );
    let Some(ToClient::Error(refused)) = said(&mut rig) else { panic!("no refusal") };
    assert!(refused.code == Code::UnknownChannel && refused.data.get(OptionalFields::AGE).is_some());
    rig.client(999_999, list(1));
    rig.pass(Duration::from_millis(50));
    assert!(matches!(refusal(&mut rig), Some((Code::TryOtherServerOrLater, _))), "the session may be newer");
}

fn a_linearizable_query_is_answered_by_a_primary_that_a_majority_confirms<S: Surroundings>() {
    let (mut rig, session) = rig::<S>();
    rig.client(session.0.0, asked(1, Op::ZERO, consistency(1)));
    rig.flush();
    rig.live(100);
    assert!(rig.delivered.iter().any(|input| answered(input) == Some((session, QueryId(1)))));
    rig.delivered.clear();
    rig.client(session.0.0, asked(2, Op::ZERO, consistency(2)));
    assert_eq!(refusal(&mut rig).map(|(code, _)| code), Some(Code::Unsupported));
    rig.node.on_deposed();
    rig.client(session.0.0, asked(3, Op::ZERO, consistency(1)));
    rig.live(700);
    assert_eq!(refusal(&mut rig).map(|(code, _)| code), Some(Code::TryOtherServerOrLater));
}

#[test]
fn a_linearizable_query_waits_until_a_heartbeat_sent_after_it_is_echoed() {
    let (mut rig, session) = rig::<Peers>();
    rig.pass(Duration::from_millis(1));
    rig.delivered.clear();
    rig.client(session.0.0, asked(1, Op::ZERO, consistency(1)));
    rig.flush();
    rig.pass(Duration::from_millis(100));
    assert!(!rig.delivered.iter().any(|input| answered(input).is_some()), "nobody has confirmed it");
    rig.live(20);
    assert!(rig.delivered.iter().any(|input| answered(input) == Some((session, QueryId(1)))));
}

#[test]
fn a_server_that_has_heard_no_primary_for_ten_minutes_answers_nobody() {
    let (mut rig, _) = rig::<Peers>();
    rig.node.on_deposed();
    rig.delivered.clear();
    rig.pass(Duration::from_secs(599));
    by_key(&mut rig, 1, asked(1, Op::ZERO, OptionalFields::NONE));
    assert!(matches!(said(&mut rig), Some(ToClient::Answer(_))));
    rig.pass(Duration::from_secs(2));
    by_key(&mut rig, 1, asked(2, Op::ZERO, OptionalFields::NONE));
    assert_eq!(refusal(&mut rig).map(|(code, _)| code), Some(Code::NoQuorum));
}

fn a_status_tells_the_logs_time_and_which_servers_are_ignored<S: Surroundings>() {
    const TIME_MS: u64 = 1_800_000_000_000;
    const BEHIND_MS: u64 = 3 * 24 * 3_600_000;
    let mut rig = Rig::<S>::leading();
    rig.clock.unix_ms = TIME_MS;
    rig.live(2_000);
    // The clock was wrong until now.
    rig.clock.unix_ms -= BEHIND_MS;
    let mut told = |ignored: Vec<NodeId>| {
        rig.input(Input::Process { pid: 1, refused: vec![], ignored });
        rig.delivered.clear();
        rig.client(0, ToServer::Query(Query::new(QueryId(1), QueryKind::Status)));
        match said(&mut rig) {
            Some(ToClient::Answer(answer)) => answer.options,
            other => panic!("{other:?}"),
        }
    };
    let about = told(vec![]);
    let number = |tag| u64::from_be_bytes(about.get(tag).unwrap().try_into().unwrap());
    let (log_ms, wall_ms) = (number(OptionalFields::LOG_CLOCK), number(OptionalFields::WALL_CLOCK));
    assert!(log_ms.abs_diff(wall_ms + BEHIND_MS) < 2_000, "{log_ms} and {wall_ms}");
    assert_eq!(about.get(OptionalFields::IGNORED), None);
    let about = told(vec![NodeId(2), NodeId(0x102)]);
    assert_eq!(about.get(OptionalFields::IGNORED), Some(&[0, 2, 1, 2][..]));
}
