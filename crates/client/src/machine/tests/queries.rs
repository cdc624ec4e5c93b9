//! Queries: asked again until they are answered, at the primary or at one server.

use super::*;

#[test]
fn a_primary_whose_name_is_forged_away_does_not_make_a_query_spin() {
    let mut play = Play::new();
    play.connect();
    let query = Query::List { what: recado_proto::packet::Listing::People, after: None };
    // The primary's address, under another server's id.
    let members = vec![(NodeId(9), address(3))];
    play.from(3, 1, 3, ToClient::Coordinator(Coordinator::new(View::new(1, NodeId(3)), members)));
    play.input(Input::Query(QueryId(1), query));
    assert_eq!(play.machine.primary(), None);
    let mut turns = 0;
    let end = play.now + Duration::from_secs(1);
    while let Some(at) = play.machine.next_deadline().filter(|at| *at <= end) {
        turns += 1;
        assert!(turns < 100, "it spins");
        play.now = at.max(play.now);
        play.flush();
    }
}

#[test]
fn an_abandoned_query_is_not_sent_again_and_frees_its_place() {
    let mut play = Play::new();
    play.connect();
    let asked = |play: &Play| play.sent.iter().filter(|(_, p)| matches!(p, ToServer::Query(_))).count();
    for query in 0..2 * QUERIES_MAX as u64 {
        play.input(Input::Query(QueryId(query), Query::Status { server: address(2) }));
        play.input(Input::GiveUp(QueryId(query)));
    }
    let busy = |event: &Event| matches!(event, Event::Answer(_, Answer::Refused(Code::Busy)));
    assert!(!play.events.iter().any(busy));
    let before = asked(&play);
    play.pass(5_000);
    assert_eq!(asked(&play), before);
    play.input(Input::Query(QueryId(1_000), Query::Status { server: address(2) }));
    play.pass(5_000);
    assert!(asked(&play) > before + 1, "one that is not given up is asked again");
}

#[test]
fn a_status_query_is_no_debt_of_the_primary_and_is_resent_on_time() {
    let mut play = Play::new();
    play.connect();
    play.pass(200);
    play.input(Input::Query(QueryId(1), status_of(2)));
    let asked = |play: &Play| play.sent_to(2, |packet| matches!(packet, ToServer::Query(_)));
    let (before, keepalives) = (asked(&play), play.sent.len());
    let waited = play.until(|play| asked(play) > before);
    assert!(about(100).contains(&waited), "{waited:?}: {:?}", &play.sent[keepalives..]);
    play.pass(QUIET.as_millis() as u64);
    assert!(!play.events.contains(&Event::Searching));
}

#[test]
fn a_query_about_a_server_takes_no_place_before_those_to_a_primary_that_refuses() {
    let mut play = Play::new();
    play.connect();
    play.input(Input::Query(QueryId(1), status_of(2)));
    play.input(list(2));
    play.input(list(3));
    let asked = |play: &Play| {
        let query = |(_, packet): &(u16, ToServer)| match packet {
            ToServer::Query(query) if query.kind != QueryKind::Status => Some(query.id.0),
            _ => None,
        };
        play.sent.iter().filter_map(query).collect::<Vec<u64>>()
    };
    assert_eq!(asked(&play), [2, 3]);
    let busy = Refused::new(Code::Busy, Answers::Query(QueryId(2)), 40);
    for wait in [40, 80] {
        play.sent.clear();
        play.from(3, 1, 3, ToClient::Error(busy.clone()));
        let waited = play.until(|play| !asked(play).is_empty());
        assert!(about(wait).contains(&waited), "{waited:?}");
        assert_eq!(asked(&play), [2], "the oldest of the primary's");
    }
}

#[test]
fn the_65th_query_in_flight_and_any_after_the_end_is_refused_as_busy() {
    let mut play = Play::new();
    let busy = |query| Event::Answer(QueryId(query), Answer::Refused(Code::Busy));
    (1..=64).for_each(|query| play.input(list(query)));
    assert_eq!(play.events, []);
    play.input(list(65));
    assert_eq!(play.events, [busy(65)]);
    play.input(Input::GiveUp(QueryId(3)));
    play.input(Input::Disconnect);
    play.input(list(66));
    assert_eq!(play.events, [busy(65), Event::Disconnected, busy(66)]);
}

#[test]
fn a_server_without_a_session_gets_its_status_query_in_an_initiation() {
    let mut play = Play::new();
    play.input(Input::Query(QueryId(1), status_of(2)));
    let asked = |play: &Play| {
        play.sent_to(2, |packet| {
            *packet == ToServer::Query(packet::Query::new(QueryId(1), QueryKind::Status))
        })
    };
    assert_eq!((&play.hellos[..], asked(&play)), (&[1, 2][..], 1), "as soon as it has greeted");
    let waited = play.until(|play| asked(play) == 2);
    assert!(about(100).contains(&waited), "{waited:?}");
    let status = Status {
        node: NodeId(2),
        role: RoleName::Backup,
        view: View::ZERO,
        applied: Op(1),
        durable: Op(1),
        lag: 0,
        pid: 7,
        incarnation: Incarnation(1),
        uptime_ms: 9,
        members: coordinator(1, 3).members,
        refused: Vec::new(),
    };
    (0..2).for_each(|_| play.from(2, 0, 0, answer_of(1, AnswerKind::Status(status.clone()))));
    assert_eq!(play.events, [Event::Answer(QueryId(1), Answer::Status(status))], "once");
    assert!(play.hellos.contains(&3), "others that it names are greeted too: {:?}", play.hellos);
}

#[test]
fn a_query_has_one_answer_and_an_unknown_query_has_none() {
    let mut play = Play::new();
    play.connect();
    play.input(list(1));
    play.input(list(2));
    [1, 1, 7].into_iter().for_each(|query| play.from(3, 1, 3, empty_page(query)));
    let refused = Refused::new(Code::NotAllowed, Answers::Query(QueryId(2)), 0);
    (0..2).for_each(|_| play.from(3, 1, 3, ToClient::Error(refused.clone())));
    let answers =
        [Answer::List(ListPage { items: Vec::new(), more: false }), Answer::Refused(Code::NotAllowed)];
    let expected = [1, 2].map(QueryId).into_iter().zip(answers).map(|(query, of)| Event::Answer(query, of));
    assert_eq!(play.events, expected.collect::<Vec<_>>());
}

#[test]
fn a_query_is_not_asked_again_while_pieces_come_but_for_a_second_at_most() {
    let asked = |play: &Play| play.sent_to(3, |packet| matches!(packet, ToServer::Query(_)));
    let mut play = Play::new();
    play.connect();
    play.input(list(1));
    for piece in pieces(60_000).into_iter().take(3) {
        play.from(3, 1, 3, ToClient::Fragment(piece));
        play.pass(20);
    }
    assert_eq!(asked(&play), 1);
    // The last piece came 20 ms ago.
    assert_eq!(play.until(|play| asked(play) == 2), Duration::from_millis(80));

    let mut play = Play::new();
    play.connect();
    play.input(list(1));
    let began = play.now;
    let mut pieces = pieces(60_000).into_iter();
    while asked(&play) == 1 {
        play.from(3, 1, 3, ToClient::Fragment(pieces.next().expect("it is asked again before")));
        play.pass(20);
    }
    assert_eq!(play.now.since(began), ASK_AGAIN_MAX, "they may be of a notification");
    // One that was refused is asked again when told.
    let busy = Refused::new(Code::Busy, Answers::Query(QueryId(1)), 40);
    play.from(3, 1, 3, ToClient::Error(busy));
    play.from(3, 1, 3, ToClient::Fragment(pieces.next().expect("another piece")));
    let waited = play.until(|play| asked(play) == 3);
    assert!(about(40).contains(&waited), "{waited:?}");
}
