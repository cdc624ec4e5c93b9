//! The stream of notifications, its cursor, and acknowledgements.

use super::*;

#[test]
fn no_step_of_a_stream_is_taken_before_the_session_is_served_nor_while_it_is_left() {
    for leaving in [false, true] {
        let mut play = Play::new();
        if leaving {
            play.connect();
            play.input(Input::Disconnect);
        } else {
            play.accept();
        }
        play.notify(0, 12);
        play.from(3, 1, 3, ToClient::Delivered(Delivered { prev: Op(0), item: Item::Gap { upto: Op(15) } }));
        assert_eq!(play.events, [], "leaving: {leaving}");
    }
}

#[test]
fn notifications_come_out_once_in_order_and_never_across_a_hole() {
    let mut play = Play::new();
    play.connect();
    play.notify(10, 12);
    play.notify(12, 12);
    play.notify(15, 19);
    assert_eq!(play.delivered(), vec![12], "19 waits for what lies between");
    play.notify(12, 15);
    play.notify(10, 12);
    assert_eq!(play.delivered(), vec![12, 15, 19]);
}

#[test]
fn only_what_the_application_took_moves_the_cursor() {
    let mut play = Play::new();
    play.connect();
    let upto = |play: &Play| {
        play.sent.iter().rev().find_map(|(_, packet)| match packet {
            ToServer::ClientAck(ack) => Some(ack.clone()),
            _ => None,
        })
    };
    play.notify(10, 12);
    play.pass(20);
    assert_eq!(upto(&play).map(|ack| (ack.upto.op().unwrap(), ack.held)), Some((Op(10), vec![Op(12)])));
    play.input(Input::Taken(Op(12)));
    play.pass(20);
    assert_eq!(upto(&play).map(|ack| (ack.upto.op().unwrap(), ack.held)), Some((Op(12), vec![])));
}

#[test]
fn a_notification_that_overtakes_the_resume_ok_is_not_lost() {
    let mut play = Play::new();
    play.connect();
    play.from(3, 4, 3, ToClient::Coordinator(coordinator(4, 3)));
    let delivered = Delivered { prev: Op(10), item: Item::Notification(notification(12)) };
    play.from(3, 4, 3, ToClient::Delivered(delivered));
    play.resumed(4, 3);
    assert_eq!(play.delivered(), vec![12]);
}

#[test]
fn each_keepalive_of_a_receiving_client_to_the_primary_repeats_its_cursor() {
    for receives in [true, false] {
        let mut play = Play::new();
        play.machine.inbox = Inbox::new(receives, PlantedBug::default());
        play.connect();
        play.notify(10, 12);
        play.input(Input::Taken(Op(12)));
        play.pass(100);
        // That ack was lost.
        play.sent.clear();
        play.pass(2_000);
        let ack = |(to, packet): &(u16, ToServer)| match packet {
            ToServer::ClientAck(ack) => Some((*to, ack.upto.op().unwrap())),
            _ => None,
        };
        let acks: BTreeSet<(u16, Op)> = play.sent.iter().filter_map(ack).collect();
        let expected = if receives { vec![(3, Op(12))] } else { Vec::new() };
        assert_eq!(acks.into_iter().collect::<Vec<_>>(), expected);
        assert!(play.sent_to(3, |packet| *packet == ToServer::keepalive()) > 0);
    }
}

#[test]
fn an_answer_is_acknowledged_soon_and_half_a_window_of_pieces_at_once_also_by_one_who_does_not_receive() {
    for receives in [true, false] {
        let mut play = Play::new();
        play.machine.inbox = Inbox::new(receives, PlantedBug::default());
        play.connect();
        // Between two keepalives, which acknowledge too.
        play.pass(400);
        let acks = |play: &Play| play.sent_to(3, |packet| matches!(packet, ToServer::ClientAck(_)));
        play.input(list(1));
        play.sent.clear();
        play.from(3, 1, 3, empty_page(1));
        assert_eq!(play.until(|play| acks(play) > 0), Duration::from_millis(10));
        play.sent.clear();
        let mut taken = 0;
        for piece in pieces(20_000) {
            taken += 1;
            play.from(3, 1, 3, ToClient::Fragment(piece));
            if acks(&play) > 0 {
                break;
            }
        }
        assert!((8..=9).contains(&taken), "acknowledged after {taken} pieces");
        // A piece that comes again is acknowledged again: the ack was lost.
        play.sent.clear();
        play.from(3, 1, 3, ToClient::Fragment(pieces(20_000).swap_remove(0)));
        assert_eq!(play.until(|play| acks(play) > 0), Duration::from_millis(10));
    }
}

#[test]
fn only_what_the_primary_of_the_highest_view_sends_is_acknowledged_soon() {
    let mut play = Play::new();
    play.connect();
    play.pass(400);
    play.sent.clear();
    play.from(2, 1, 3, ToClient::Fragment(pieces(3_000).swap_remove(0)));
    play.pass(20);
    assert_eq!(play.sent_to(2, |packet| matches!(packet, ToServer::ClientAck(_))), 0);
    assert_eq!(play.sent_to(3, |packet| matches!(packet, ToServer::ClientAck(_))), 0);
}

#[test]
fn many_datagrams_of_a_primary_are_acknowledged_at_once_also_by_a_client_that_does_not_receive() {
    let mut play = Play::new();
    play.machine.inbox = Inbox::new(false, PlantedBug::default());
    play.connect();
    let acks = |play: &Play| play.sent_to(3, |packet| matches!(packet, ToServer::ClientAck(_)));
    for number in 1..=4 * ACK_EVERY {
        play.from(3, 1, 3, ToClient::Ping);
        let least = number / (ACK_EVERY + 1);
        assert!(acks(&play) >= least as usize && acks(&play) <= 4, "{} after {number}", acks(&play));
    }
}

/// An ack names a bounded number of ranges.
#[test]
fn many_datagrams_of_one_turn_are_acknowledged_within_it() {
    let mut play = Play::new();
    play.connect();
    play.sent.clear();
    let secret = play.secret().unwrap();
    for _ in 0..2 * ACK_EVERY + 2 {
        play.number += 1;
        let bytes = play.on_session(3, View::new(1, NodeId(3)), &ToClient::Ping, &secret);
        let mut out = Vec::new();
        play.machine.handle(play.now, Input::Datagram { from: address(3), bytes }, &mut out);
        play.note(out);
    }
    assert_eq!(play.sent_to(3, |packet| matches!(packet, ToServer::ClientAck(_))), 2);
}

#[test]
fn a_new_primary_gets_the_cursor_at_once() {
    let mut play = Play::new();
    play.connect();
    play.notify(10, 12);
    play.input(Input::Taken(Op(12)));
    play.pass(100);
    play.from(2, 2, 2, ToClient::Coordinator(coordinator(2, 2)));
    play.sent.clear();
    play.resumed(2, 2);
    let upto = |(to, packet): &(u16, ToServer)| match packet {
        ToServer::ClientAck(ack) => Some((*to, ack.upto.op().unwrap())),
        _ => None,
    };
    assert_eq!(play.sent.iter().filter_map(upto).collect::<Vec<_>>(), [(2, Op(12))]);
}
