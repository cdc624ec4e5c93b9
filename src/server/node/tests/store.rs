//! The store at a server: what the answers to writes tell, and reads on a session and without one.

use recado_proto::id::{Op, Seq, SessionId, StoreKey};
use recado_proto::packet::{Condition, ExtensionRequest, StoredValue};

use super::*;

over_each_log!(
    a_write_is_acknowledged_with_its_timestamp_and_done_once,
    a_refused_write_tells_the_timestamp_that_the_key_has_when_it_is_answered,
    a_value_is_read_on_a_session_and_without_one_and_never_below_the_token,
);

fn key() -> StoreKey {
    "k".parse().unwrap()
}

fn put(seq: u64, value: &str, condition: Condition) -> ToServer {
    let put = ExtensionRequest::Put { key: key(), value: value.into(), condition };
    ToServer::Extension(Extension::of_request(Seq(seq), seq, &put))
}

fn get(query: u64, at_least: Op) -> ToServer {
    let kind = QueryKind::Get { key: key() };
    ToServer::query(Query { at_least: Some(Position::of(at_least)), ..Query::new(QueryId(query), kind) })
}

/// The last thing that a session, or the holder of a key, was told.
fn said<S: Surroundings>(rig: &mut Rig<S>) -> ToClient {
    let packet = rig.delivered.iter().rev().find_map(|input| match input {
        delivery::Input::Answer { packet, .. } => Some(packet.clone()),
        delivery::Input::AnswerTo { packets, .. } => packets.first().cloned(),
        _ => None,
    });
    rig.delivered.clear();
    packet.expect("an answer")
}

fn write<S: Surroundings>(rig: &mut Rig<S>, by: SessionId, packet: ToServer) -> ToClient {
    rig.client(by.0.0, packet);
    rig.live(100);
    said(rig)
}

fn acked(packet: ToClient) -> Op {
    match packet {
        ToClient::SendAck(ack) => ack.op,
        other => panic!("{other:?}"),
    }
}

/// The code, and the timestamp and the applied op that it tells.
fn refused(packet: ToClient) -> (Code, Option<Op>, Option<Op>) {
    let ToClient::Error(refused) = packet else { panic!("{packet:?}") };
    let op = |tag| refused.data.get(tag).map(|bytes| Op(u64::from_be_bytes(bytes.try_into().unwrap())));
    (refused.code, op(OptionalFields::TIMESTAMP), op(OptionalFields::APPLIED))
}

fn value(packet: ToClient) -> Option<(String, Op)> {
    let ToClient::Answer(Answer { kind: AnswerKind::Value(value), .. }) = packet else {
        panic!("{packet:?}")
    };
    value.map(|StoredValue { value, timestamp, .. }| (value.to_string(), timestamp))
}

fn a_write_is_acknowledged_with_its_timestamp_and_done_once<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let alice = rig.connect(1, "alice");
    let first = acked(write(&mut rig, alice, put(1, "one", Condition::Absent)));
    let second = acked(write(&mut rig, alice, put(2, "two", Condition::At(first))));
    assert!(second > first);
    // Done again it would be refused, since the key has a value.
    assert_eq!(acked(write(&mut rig, alice, put(1, "one", Condition::Absent))), first);
    assert_eq!(value(write(&mut rig, alice, get(1, second))), Some(("two".into(), second)));
}

fn a_refused_write_tells_the_timestamp_that_the_key_has_when_it_is_answered<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let alice = rig.connect(1, "alice");
    let missing = refused(write(&mut rig, alice, put(1, "x", Condition::Present)));
    assert_eq!((missing.0, missing.1), (Code::UnknownKey, None));
    let first = acked(write(&mut rig, alice, put(2, "one", Condition::Always)));
    let (code, timestamp, applied) = refused(write(&mut rig, alice, put(3, "x", Condition::Absent)));
    assert_eq!((code, timestamp), (Code::KeyExists, Some(first)));
    assert!(applied.unwrap() > first, "the refusal is of that state");
    let second = acked(write(&mut rig, alice, put(4, "two", Condition::Always)));
    let again = refused(write(&mut rig, alice, put(3, "x", Condition::Absent)));
    assert_eq!((again.0, again.1), (Code::KeyExists, Some(second)), "the same refusal, told as of now");
    let again = refused(write(&mut rig, alice, put(1, "x", Condition::Present)));
    assert_eq!((again.0, again.1), (Code::UnknownKey, Some(second)));
}

fn a_value_is_read_on_a_session_and_without_one_and_never_below_the_token<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let alice = rig.connect(1, "alice");
    assert_eq!(value(write(&mut rig, alice, get(1, Op::ZERO))), None);
    let op = acked(write(&mut rig, alice, put(1, "one", Condition::Always)));
    let one = Some(("one".to_owned(), op));
    assert_eq!(value(write(&mut rig, alice, get(2, op))), one);
    let key = DeviceKey([1; 32]);
    let ask = |rig: &mut Rig<S>, at_least| {
        let packet = get(3, at_least);
        rig.input(Input::Initiation { reply_to: reply_to(), key, packet });
        rig.live(100);
        said(rig)
    };
    assert_eq!(value(ask(&mut rig, op)), one);
    let beyond = Op(rig.last().0 + 100);
    assert_eq!(refused(ask(&mut rig, beyond)).0, Code::TryOtherServerOrLater);
    rig.input(Input::Initiation { reply_to: reply_to(), key: DeviceKey([9; 32]), packet: get(4, op) });
    assert_eq!(refused(said(&mut rig)).0, Code::UnknownDevice, "a key that nobody has");
}
