//! The end of a session: refusals, doubt whether it still exists, other versions, and DISCONNECT.

use super::*;

#[test]
fn a_log_that_ends_before_what_was_handed_out_or_another_one_ends_the_client() {
    for code in [Code::BeyondEnd, Code::OtherEpoch] {
        let mut play = Play::new();
        play.connect();
        play.from(3, 1, 3, refused(code));
        assert_eq!(play.events, [Event::Ended(code)]);
    }
}

#[test]
fn a_fenced_session_ends_for_good() {
    let mut play = Play::new();
    play.connect();
    let over = Refused::new(Code::SessionOver, Answers::Session, 0);
    play.from(3, 1, 3, ToClient::Error(over));
    assert!(play.events.contains(&Event::Ended(Code::SessionOver)));
    assert_eq!(play.machine.next_deadline(), None);
}

fn other_version(play: &Play) -> bool {
    play.events.iter().any(|event| matches!(event, Event::OtherVersion { version: 2, .. }))
}

#[test]
fn a_client_whose_servers_all_speak_another_version_ends_and_says_so() {
    for served in [false, true] {
        let mut play = Play::new();
        if served {
            play.connect();
        }
        play.servers_by_id.values_mut().for_each(|server_boot| server_boot.upgraded = true);
        let waited = play.until(other_version);
        assert!(waited >= OTHER_VERSION_AFTER && waited < 2 * OTHER_VERSION_AFTER, "{waited:?}");
        play.servers_by_id.values_mut().for_each(|server_boot| server_boot.upgraded = false);
        play.sent.clear();
        play.hellos.clear();
        play.pass(5_000);
        assert!(play.sent.is_empty() && play.hellos.is_empty(), "it has ended");
    }
}

/// Whoever sees a HELLO can forge a VERSION, as from two of the servers here.
#[test]
fn no_version_ends_a_client_that_searches_while_any_server_answers_in_this_one() {
    for served in [false, true] {
        let mut play = Play::new();
        match served {
            true => play.connect(),
            false => play.from(1, 0, 0, ToClient::Coordinator(coordinator(1, 3))),
        }
        for node in [1, 2] {
            play.servers_by_id.get_mut(&node).unwrap().upgraded = true;
        }
        play.pass(30_000);
        assert!(!other_version(&play));
        play.servers_by_id.get_mut(&3).unwrap().upgraded = true;
        play.until(other_version);
    }
}

/// A client that was served and then heard nothing on its session from servers that still send RETRY. It has
/// asked whether the session still exists.
fn doubting() -> Play {
    let mut play = Play::new();
    play.connect();
    let nonce = play.nonce();
    play.pass(30_000);
    let asked = |(to, packet): &(u16, ToServer)| match packet {
        ToServer::Connect(connect) => {
            assert_eq!((connect.nonce, connect.fresh), (nonce, false), "its own, and nobody new");
            Some(*to)
        }
        _ => None,
    };
    let asked: Vec<u16> = play.sent.iter().filter_map(asked).collect();
    assert!(asked.contains(&3) && asked.contains(&1), "{asked:?}");
    assert!(asked.len() <= 3 * 6, "a few times in half a minute: {asked:?}");
    play
}

#[test]
fn a_session_that_ended_while_its_client_was_away_is_known_to_be_over() {
    for code in [Code::SessionOver, Code::UnknownDevice, Code::NotYours] {
        let mut play = doubting();
        let (nonce, view) = (play.nonce(), View::new(1, NodeId(3)));
        let reject = |code| ToClient::RejectConn(RejectConn::new(nonce, code, 0));
        let busy = play.answer(3, view, &reject(Code::Busy));
        play.input(Input::Datagram { from: address(3), bytes: busy });
        assert!(
            !play.events.iter().any(|event| matches!(event, Event::Ended(_))),
            "not for a passing reason"
        );
        let other = ToClient::RejectConn(RejectConn::new(nonce + 1, code, 0));
        for packet in [other, reject(code)] {
            assert!(!play.events.contains(&Event::Ended(code)), "that was about another CONNECT");
            play.pass(DOUBT_EVERY.as_millis() as u64 + 1_000);
            let bytes = play.answer(3, view, &packet);
            play.input(Input::Datagram { from: address(3), bytes });
        }
        assert!(play.events.contains(&Event::Ended(code)));
        assert_eq!(play.machine.next_deadline(), None);
    }
}

#[test]
fn a_refusal_that_comes_after_its_connect_was_let_in_ends_nothing() {
    for code in [Code::KeyNotAllowed, Code::WrongInvite, Code::LimitReached] {
        let mut play = doubting();
        let late = RejectConn::new(play.nonce(), code, 0);
        let bytes = play.answer(3, View::new(1, NodeId(3)), &ToClient::RejectConn(late));
        play.input(Input::Datagram { from: address(3), bytes });
        assert!(!play.events.contains(&Event::Ended(code)));
        assert!(play.machine.next_deadline().is_some(), "it goes on");
    }
}

#[test]
fn a_session_that_still_is_goes_on_after_a_doubt() {
    let mut play = doubting();
    let (nonce, coordinator) = (play.nonce(), coordinator(2, 1));
    let secret = handshake_config(3, 1).keys.session_secret(SESSION, device(), nonce, Default::default());
    let accept = ToClient::AcceptConn(AcceptConn {
        nonce,
        session: SESSION,
        coordinator,
        secret: secret.key().clone(),
        aead: Default::default(),
        options: OptionalFields::NONE,
    });
    let bytes = play.answer(1, View::new(2, NodeId(1)), &accept);
    play.sent.clear();
    play.input(Input::Datagram { from: address(1), bytes });
    assert!(play.sent.iter().any(|(to, packet)| *to == 1 && matches!(packet, ToServer::Resume(_))));
    play.resumed(2, 1);
    assert!(matches!(play.events.last(), Some(Event::PrimaryChanged { .. })), "{:?}", play.events);
}

#[test]
fn a_session_is_over_if_the_connect_that_opened_it_has_opened_another_one() {
    let mut play = doubting();
    let (nonce, session) = (play.nonce(), SessionId(SESSION.0.next()));
    let secret = handshake_config(3, 1).keys.session_secret(session, device(), nonce, Default::default());
    let accept = ToClient::AcceptConn(AcceptConn {
        nonce,
        session,
        coordinator: coordinator(1, 3),
        secret: secret.key().clone(),
        aead: Default::default(),
        options: OptionalFields::NONE,
    });
    let bytes = play.answer(3, View::new(1, NodeId(3)), &accept);
    play.input(Input::Datagram { from: address(3), bytes });
    assert_eq!(play.events.last(), Some(&Event::Ended(Code::SessionOver)));
}

#[test]
fn a_client_that_only_sends_disconnects_once_and_does_not_wait() {
    let mut play = Play::new();
    play.connect();
    play.machine.inbox = Inbox::new(false, PlantedBug::default());
    play.input(Input::Disconnect);
    assert!(matches!(&play.sent[..], [(3, ToServer::Disconnect(_))]), "{:?}", play.sent);
    assert_eq!(play.events, [Event::Disconnected]);
    assert_eq!(play.machine.next_deadline(), None);
}

#[test]
fn what_is_asked_in_the_turn_of_the_end_is_sent_before_it_and_the_end_waits_for_the_answer() {
    let mut play = Play::new();
    play.connect();
    play.machine.inbox = Inbox::new(false, PlantedBug::default());
    play.sent.clear();
    let mut out = Vec::new();
    for input in [list_request(), Input::Disconnect] {
        play.machine.handle(play.now, input, &mut out);
    }
    play.machine.flush(play.now, &mut out);
    play.note(out);
    let sent: Vec<bool> = play.sent.iter().map(|(_, packet)| packet.seq().is_some()).collect();
    assert_eq!(sent, [true, false], "{:?}", play.sent);
    assert!(!play.events.contains(&Event::Disconnected), "the request may be lost");
}

fn list_request() -> Input {
    Input::Request(Request::Follow {
        topic: Topic::to_follow("@bob").unwrap(),
        change: recado_proto::packet::FollowChange::Add,
    })
}

#[test]
fn a_client_sends_disconnect_with_its_cursor_until_the_session_is_over() {
    let mut play = Play::new();
    play.connect();
    play.notify(10, 12);
    play.input(Input::Taken(Op(12)));
    play.sent.clear();
    play.input(Input::Disconnect);
    assert_eq!(play.sent, [(3, ToServer::Disconnect(Disconnect { upto: Position::of(Op(12)) }))]);
    assert_eq!(play.events.last(), Some(&Event::Notification(notification(12))));
    let over = Refused::new(Code::SessionOver, Answers::Session, 0);
    play.from(3, 1, 3, ToClient::Error(over));
    assert_eq!(play.events.last(), Some(&Event::Disconnected));
    assert_eq!(play.machine.next_deadline(), None);
}

#[test]
fn a_client_without_an_answer_ends_after_three_disconnects() {
    let mut play = Play::new();
    play.connect();
    play.input(Input::Disconnect);
    play.pass(5_000);
    let said = |(_, packet): &&(u16, ToServer)| matches!(packet, ToServer::Disconnect(_));
    assert_eq!(play.sent.iter().filter(said).count(), 3);
    assert_eq!(play.events, [Event::Disconnected]);
}

#[test]
fn a_client_waits_longer_after_each_disconnect_whatever_arrives_meanwhile() {
    let mut play = Play::new();
    play.connect();
    play.input(Input::Disconnect);
    let said = |play: &Play| play.sent_to(3, |packet| matches!(packet, ToServer::Disconnect(_)));
    for (times, wait) in [(2, 100), (3, 150)] {
        (0..5).for_each(|_| play.flush());
        assert_eq!(said(&play), times - 1);
        let waited = play.until(|play| said(play) == times);
        assert!(about(wait).contains(&waited), "{waited:?} before it is said for the {times}. time");
    }
    let waited = play.until(|play| play.events == [Event::Disconnected]);
    assert!(about(225).contains(&waited), "{waited:?}");
}

#[test]
fn a_silent_session_is_queried_after_three_seconds_and_every_five() {
    let mut play = Play::new();
    play.connect();
    play.pass(4_000);
    play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    let second = SESSION_QUERY_AFTER + DOUBT_EVERY;
    let micro = Duration::from_micros(1);
    let doubts = [SESSION_QUERY_AFTER - micro, SESSION_QUERY_AFTER, second - micro, second].map(|after| {
        let mut out = Vec::new();
        play.machine.doubt(play.now + after, &mut out);
        !out.is_empty()
    });
    assert_eq!(doubts, [false, true, false, true]);
}
