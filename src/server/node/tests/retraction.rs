//! Retraction at the primary: where it looks for the notification, and whom it tells.

use recado_proto::id::{ChannelName, Op, Seq, SessionId, Topic};
use recado_proto::packet::{self, ChannelChange, ExtensionRequest, History, HistoryRange};

use super::*;

over_each_log!(
    a_retraction_reaches_whoever_may_be_sent_the_text,
    a_deletion_ends_the_answers_of_those_who_do_not_follow_too,
    a_stranger_retracts_nothing,
);

fn retract(seq: u64, op: Op) -> ToServer {
    ToServer::Extension(Extension::of_request(Seq(seq), 7, &ExtensionRequest::Retract { op }))
}

fn history(topic: Topic) -> ToServer {
    let history = History { topic: Some(topic), range: HistoryRange::After(Op(0)), limit: 9 };
    ToServer::Query(Query::new(QueryId(5), QueryKind::History(history)))
}

/// The op of the acknowledgement of this request.
fn acked<S: Surroundings>(rig: &Rig<S>, seq: u64) -> Option<Op> {
    rig.delivered.iter().find_map(|input| match input {
        delivery::Input::Answer { packet: ToClient::SendAck(ack), .. } if ack.seq == Seq(seq) => Some(ack.op),
        _ => None,
    })
}

/// Two sessions, alice's and bob's, and the op of a text to alice's feed.
fn rig<S: Surroundings>() -> (Rig<S>, [SessionId; 2], Op) {
    let mut rig = Rig::<S>::leading();
    let sessions = [rig.connect(1, "alice"), rig.connect(2, "bob")];
    let (seq, answered_below, options) = (Seq(1), Seq(1), OptionalFields::NONE);
    let content = Content::of("up");
    let send = Send { seq, answered_below, topic: None, content, nonce: 0, options };
    rig.client(sessions[0].0.0, ToServer::Send(send));
    rig.live(100);
    let sent = acked(&rig, 1).unwrap();
    (rig, sessions, sent)
}

fn a_retraction_reaches_whoever_may_be_sent_the_text<S: Surroundings>() {
    let (mut rig, [alice, bob], sent) = rig::<S>();
    rig.awaits_acks = true;
    let carol = rig.connect(3, "carol");
    rig.client(bob.0.0, history(Topic::Feed("alice".parse().unwrap())));
    rig.client(carol.0.0, history(Topic::Feed("bob".parse().unwrap())));
    rig.delivered.clear();
    rig.client(alice.0.0, retract(2, sent));
    rig.live(100);
    let told = rig.delivered.iter().find_map(|input| match input {
        delivery::Input::Retracted { op, sessions } => Some((*op, sessions.clone())),
        _ => None,
    });
    let why = "he does not follow her, and his answer may hold it; another's is of another topic";
    assert_eq!(told, Some((sent, vec![bob])), "{why}");
    let op = acked(&rig, 2).unwrap();
    rig.delivered.clear();
    rig.client(alice.0.0, retract(2, sent));
    assert_eq!(acked(&rig, 2), Some(op), "sent again, it has the same answer");
}

fn a_deletion_ends_the_answers_of_those_who_do_not_follow_too<S: Surroundings>() {
    let (mut rig, [alice, bob], _) = rig::<S>();
    let (nonce, options, channel) = (0, OptionalFields::NONE, "ops".parse::<ChannelName>().unwrap());
    let change = |seq, change| {
        let (seq, channel, options) = (Seq(seq), channel.clone(), options.clone());
        ToServer::Channel(packet::Channel { seq, answered_below: seq, channel, change, nonce, options })
    };
    rig.client(alice.0.0, change(2, ChannelChange::Create { private: false }));
    rig.live(100);
    rig.awaits_acks = true;
    rig.client(bob.0.0, history(Topic::Channel(channel.clone())));
    rig.delivered.clear();
    rig.client(alice.0.0, change(3, ChannelChange::Delete));
    rig.live(100);
    let withdrawn = |input: &delivery::Input| matches!(input, delivery::Input::Withdrawn(of) if *of == [bob]);
    assert!(rig.delivered.iter().any(withdrawn), "{:?}", rig.delivered);
}

fn a_stranger_retracts_nothing<S: Surroundings>() {
    let (mut rig, [_, bob], sent) = rig::<S>();
    let refused = |input: &delivery::Input| match input {
        delivery::Input::Answer { packet: ToClient::Error(refused), .. } => Some(refused.code),
        _ => None,
    };
    // No profile has sent that one.
    for (seq, op, why) in [(1, sent, Code::NotAllowed), (2, Op(1), Code::UnknownNotification)] {
        rig.delivered.clear();
        rig.client(bob.0.0, retract(seq, op));
        rig.live(100);
        assert_eq!(rig.delivered.iter().find_map(refused), Some(why));
    }
}
