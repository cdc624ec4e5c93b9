//! Queries that are asked again while the delivery sends their answers.

use super::*;

over_each_log!(
    a_query_does_not_run_again_while_its_answer_is_outstanding,
    a_refusal_is_no_answer_that_is_awaited,
    a_query_beyond_those_that_the_delivery_holds_runs_each_time,
    the_end_of_a_session_and_of_the_lead_end_its_outstanding_answers,
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
