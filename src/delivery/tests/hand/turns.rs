//! What the inputs of one turn have to do with each other.

use super::*;

/// The packets sent since the last call, by the datagrams they were in, with the view of its header.
fn datagrams(play: &mut Play) -> Vec<(View, Vec<ToClient>)> {
    play.sent.drain(..).map(|(_, opened)| (opened.header.view, opened.packets)).collect()
}

#[test]
fn what_a_turn_says_shares_a_datagram_with_its_notifications() {
    let mut play = Play::new();
    play.live(10, 256);
    play.sent.clear();
    let answer = Input::Answer { session: SESSION, packet: reply() };
    let applied = |op| Input::Applied { notification: notification(op, 10), sessions: [SESSION].into() };
    play.turn([applied(11), answer, applied(12)]);
    let sent = datagrams(&mut play);
    let [(_, packets)] = &sent[..] else { panic!("{} datagrams", sent.len()) };
    assert_eq!(packets.len(), 3);
    assert_eq!(packets[0], reply(), "what was said goes first");
}

#[test]
fn what_was_said_in_a_view_goes_out_in_that_view() {
    for ends in [None, Some(Input::Silence)] {
        let mut play = Play::new();
        play.live(10, 256);
        play.sent.clear();
        let answer = Input::Answer { session: SESSION, packet: reply() };
        play.turn([answer].into_iter().chain(ends).chain([Input::Announce(coordinator(2))]));
        let sent = datagrams(&mut play);
        let [(first, said), (second, _)] = &sent[..] else { panic!("{} datagrams", sent.len()) };
        assert_eq!((*first, &said[..]), (View::new(1, ME), &[reply()][..]));
        assert_eq!(*second, View::new(2, ME));
    }
}

#[test]
fn a_newcomer_in_the_turn_of_a_search_for_silent_sessions_keeps_its_place() {
    let mut play = Play::new();
    play.heard();
    play.now = play.now + Duration::from_secs(700);
    play.turn([first_heard(77), Input::Deadline]);
    assert!(!play.delivery.sessions.contains_key(&SESSION), "it was silent for long");
    assert!(play.delivery.sessions.contains_key(&SessionId(Op(77))));
}

#[test]
fn an_ack_does_not_wait_for_the_end_of_a_long_turn() {
    let mut play = Play::new();
    play.live(10, 256);
    play.sent.clear();
    let from = home();
    let heard = |number| Input::DatagramReceived {
        session: SESSION,
        from,
        number,
        ack: None,
        length: LONG,
        keys: keys(),
    };
    // Every second number is lost, and an ack has a bounded number of ranges.
    let numbers = (1..=100).map(|at| 1_000 + 2 * at);
    play.turn(numbers.map(heard));
    let acked = play.sent.iter().filter_map(|(_, opened)| opened.header.ack.as_ref()).count();
    assert_eq!(acked, 3, "one for each {}", recado_proto::link::ACK_EVERY);
}
