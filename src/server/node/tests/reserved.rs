//! What later versions may ask: it is refused by a code that says so, and never done in part.

use recado_proto::id::{Epoch, Seq};

use super::*;

over_each_log!(
    a_request_with_a_critical_field_is_refused_uses_its_number_and_those_behind_it_go_on,
    a_connect_with_a_critical_field_opens_no_session,
    another_home_and_another_epoch_are_refused_and_the_session_goes_on,
    a_query_is_answered_from_a_state_that_meets_its_token_or_refused,
    a_request_of_a_later_version_is_refused_uses_its_number_and_changes_no_other,
    an_extension_is_refused_if_it_is_a_query_and_stepped_over_if_it_needs_no_answer,
);

/// A field with this tag, which no server of this version honours.
fn field(tag: u16) -> OptionalFields {
    OptionalFields(vec![OptionalField { tag, bytes: vec![1] }])
}

/// A primary with a session.
fn rig<S: Surroundings>() -> (Rig<S>, SessionId) {
    let mut rig = Rig::<S>::leading();
    let session = rig.connect(1, "alice");
    rig.delivered.clear();
    (rig, session)
}

/// The refusals sent since the last call.
fn refusals<S: Surroundings>(rig: &mut Rig<S>) -> Vec<(Code, Answers)> {
    let packets = std::mem::take(&mut rig.delivered).into_iter().flat_map(|input| match input {
        delivery::Input::Answer { packet, .. } => vec![packet],
        delivery::Input::AnswerTo { packets, .. } => packets,
        _ => Vec::new(),
    });
    let refused = packets.filter_map(|packet| match packet {
        ToClient::Error(refused) => Some((refused.code, refused.answers)),
        ToClient::RejectConn(reject) => Some((reject.code, Answers::Session)),
        _ => None,
    });
    refused.collect()
}

fn send(seq: u64, options: OptionalFields) -> ToServer {
    let content = Content::of("up");
    let (seq, answered_below) = (Seq(seq), Seq(1));
    ToServer::Send(Send { seq, answered_below, topic: None, content, nonce: 0, options })
}

/// A CONNECT of bob's first device.
fn connect(options: OptionalFields) -> ToServer {
    ToServer::Connect(Connect {
        device: DeviceId { key: DeviceKey([2; 32]), slot: 0 },
        profile: "bob".parse().unwrap(),
        receives: true,
        nonce: 2,
        fresh: true,
        code: None,
        invite: None,
        aeads: 0,
        options,
    })
}

fn query(id: u64, at_least: Option<Position>, kind: QueryKind) -> ToServer {
    ToServer::Query(Query { at_least, ..Query::new(QueryId(id), kind) })
}

fn a_request_with_a_critical_field_is_refused_uses_its_number_and_those_behind_it_go_on<S: Surroundings>() {
    let (mut rig, session) = rig::<S>();
    rig.client(session.0.0, send(1, field(OptionalFields::DELIVER_AT)));
    rig.client(session.0.0, send(2, field(OptionalFields::EXPIRES)));
    rig.live(100);
    let answered = |packet: &ToClient| match packet {
        ToClient::SendAck(ack) => Some((ack.seq.0, None)),
        ToClient::Error(Refused { code, answers: Answers::Request(seq), .. }) => Some((seq.0, Some(*code))),
        _ => None,
    };
    let answers = rig.delivered.iter().filter_map(|input| match input {
        delivery::Input::Answer { packet, .. } => answered(packet),
        _ => None,
    });
    assert_eq!(answers.collect::<Vec<_>>(), [(1, Some(Code::Unsupported)), (2, None)]);
}

fn a_connect_with_a_critical_field_opens_no_session<S: Surroundings>() {
    let (mut rig, _) = rig::<S>();
    let before = rig.known.len();
    rig.client(0, connect(field(OptionalFields::ON_BEHALF_OF)));
    rig.live(100);
    assert_eq!(refusals(&mut rig), [(Code::Unsupported, Answers::Session)]);
    assert_eq!(rig.known.len(), before);
}

fn another_home_and_another_epoch_are_refused_and_the_session_goes_on<S: Surroundings>() {
    let (mut rig, session) = rig::<S>();
    let home = Home { server: Some(NodeId(1)), moves: 1 };
    rig.client(session.0.0, ToServer::Keepalive(Keepalive { home, options: OptionalFields::NONE }));
    let resume =
        |cursor, home| ToServer::Resume(Resume { cursor, credit: 1, home, options: OptionalFields::NONE });
    rig.client(session.0.0, resume(None, home));
    let mut elsewhere = Position::of(Op(1));
    elsewhere.epoch = Epoch(1);
    rig.client(session.0.0, resume(Some(elsewhere), Home::PRIMARY));
    let expected = [Code::Unsupported, Code::Unsupported, Code::OtherEpoch];
    assert_eq!(refusals(&mut rig), expected.map(|code| (code, Answers::Session)));
    rig.client(session.0.0, RESUME);
    assert!(rig.resumed(session));
}

fn a_query_is_answered_from_a_state_that_meets_its_token_or_refused<S: Surroundings>() {
    let (mut rig, session) = rig::<S>();
    let applied = rig.node.service.applied();
    let mut elsewhere = Position::of(applied);
    elsewhere.group = 1;
    let info = QueryKind::Info { profile: None };
    rig.client(session.0.0, query(1, Some(Position::of(applied)), info.clone()));
    let answered = |input: &delivery::Input| answered(input) == Some((session, QueryId(1)));
    assert!(rig.delivered.iter().any(answered), "its state is late enough");
    rig.client(session.0.0, query(3, Some(elsewhere), info.clone()));
    rig.client(0, query(6, None, info.clone()));
    let expected = [(Code::OtherEpoch, 3), (Code::UnknownDevice, 6)];
    assert_eq!(refusals(&mut rig), expected.map(|(code, id)| (code, Answers::Query(QueryId(id)))));
    rig.client(session.0.0, query(2, Some(Position::of(applied.next())), info));
    rig.pass(Duration::from_millis(50));
    let expected = [(Code::TryOtherServerOrLater, Answers::Query(QueryId(2)))];
    assert_eq!(refusals(&mut rig), expected);
}

fn extension(answers: Option<Answers>) -> ToServer {
    ToServer::Extension(Extension { kind: 300, answers, bytes: vec![7] })
}

fn a_request_of_a_later_version_is_refused_uses_its_number_and_changes_no_other<S: Surroundings>() {
    let (mut rig, session) = rig::<S>();
    let request = |seq| extension(Some(Answers::Request(Seq(seq))));
    // The second one waits for the first.
    rig.client(session.0.0, request(2));
    rig.client(session.0.0, send(1, OptionalFields::NONE));
    rig.live(100);
    assert_eq!(refusals(&mut rig), [(Code::Unsupported, Answers::Request(Seq(2)))]);
    // Sent again, it has the same answer, and another one under its number is told so.
    rig.client(session.0.0, request(2));
    rig.client(session.0.0, send(2, field(OptionalFields::EXPIRES)));
    let expected = [Code::Unsupported, Code::NumberTaken];
    assert_eq!(refusals(&mut rig), expected.map(|code| (code, Answers::Request(Seq(2)))));
    rig.client(session.0.0, send(3, field(OptionalFields::EXPIRES)));
    rig.live(100);
    let acked = rig.delivered.iter().any(|input| {
        matches!(input, delivery::Input::Answer { packet: ToClient::SendAck(ack), .. } if ack.seq == Seq(3))
    });
    assert!(acked, "those behind it go on");
}

fn an_extension_is_refused_if_it_is_a_query_and_stepped_over_if_it_needs_no_answer<S: Surroundings>() {
    let (mut rig, session) = rig::<S>();
    let last = rig.last();
    let query = Answers::Query(QueryId(9));
    for answers in [Some(query), None, Some(Answers::Session)] {
        rig.client(session.0.0, extension(answers));
        rig.client(0, extension(answers));
    }
    // A request has its number on a session alone.
    rig.client(0, extension(Some(Answers::Request(Seq(1)))));
    assert_eq!(refusals(&mut rig), [query, query].map(|answers| (Code::Unsupported, answers)));
    rig.live(100);
    assert_eq!(rig.last(), last, "none of them is logged");
}

/// Another version, which honours the fields, would apply another state.
#[test]
fn optional_fields_that_are_stepped_over_stay_out_of_the_log_and_an_entry_with_some_ends_the_server() {
    let (mut rig, session) = rig::<Alone>();
    rig.client(session.0.0, send(1, field(OptionalFields::EXPIRES)));
    rig.client(0, connect(field(OptionalFields::SESSION_EXPIRY)));
    rig.live(100);
    let logged = rig.node.log.commands();
    let unmarked = |options: &OptionalFields| *options == OptionalFields::NONE;
    let sent = |command: &&Command| matches!(command, Command::Request { options, .. } if unmarked(options));
    let opened =
        |command: &&Command| matches!(command, Command::SessionOpen(open) if unmarked(&open.options));
    assert_eq!((logged.iter().filter(sent).count(), logged.iter().filter(opened).count()), (1, 2));
    let Some(Command::Request { session, seq, answered_below, request, digest, may_make, .. }) =
        logged.iter().find(sent).cloned()
    else {
        panic!("{logged:?}")
    };
    let options = field(OptionalFields::EXPIRES);
    let later = Command::Request { session, seq, answered_below, request, digest, may_make, options };
    assert!(rig.failed.is_empty());
    rig.node.propose(rig.clock, later);
    rig.live(100);
    assert_eq!(rig.failed.len(), 1);
}
