//! The addresses of a session, its packet numbers, and what is announced to it.

use recado_proto::noise::{OPENING_LEN, Reply};
use recado_proto::packet::AcceptConn;

use super::*;

#[test]
fn a_session_first_heard_is_only_asked_whether_it_is_there() {
    let mut play = Play::new();
    play.heard_from(home(), 1);
    play.serve(0, 256);
    play.page(0, vec![notification(1, 10)], false);
    play.applied(2);
    play.input(Input::Announce(coordinator(2)));
    play.input(Input::Answer {
        session: SESSION,
        packet: ToClient::SendAck(SendAck { seq: Default::default(), op: Op(1), data: OptionalFields::NONE }),
    });
    // Enough datagrams that an ack is due.
    (2..=40).for_each(|number| play.heard_from(home(), number));
    play.pass(Duration::from_secs(5));
    assert!(play.sent.is_empty(), "{:?}", play.sent);
    assert_eq!(play.challenges.len(), 40);
    assert!(play.challenges.iter().all(|(to, ..)| *to == home()));

    play.answer_challenge();
    assert_eq!(play.say(), Some(home()));
    play.serve(0, 256);
    play.page(0, vec![notification(1, 10)], false);
    assert_eq!(play.stream(), vec![(0, 1)]);
}

#[test]
fn a_session_first_heard_where_it_was_admitted_is_answered_at_once() {
    let accept = |session| {
        let reply = Reply { opening: [0; OPENING_LEN], key: Key::new([7; 32]) };
        let accept = AcceptConn {
            nonce: 1,
            session,
            coordinator: coordinator(1),
            secret: Key::new([7; 32]),
            aead: Default::default(),
            options: OptionalFields::NONE,
        };
        Input::AnswerTo {
            reply_to: ReplyTo { to: home(), reply },
            packets: vec![ToClient::AcceptConn(accept)],
        }
    };
    let admitted = || {
        let mut play = Play::new();
        play.delivery.handle(play.now, accept(SESSION), &mut Vec::new());
        play
    };
    let mut play = admitted();
    play.heard_from(home(), 1);
    assert_eq!((play.challenges.len(), &play.paths[..]), (0, &[home()][..]));
    assert_eq!(play.say(), Some(home()));
    play.heard_from(away(), 2);
    assert_eq!(play.say(), Some(home()), "another address is challenged");

    let mut play = admitted();
    play.heard_from(away(), 1);
    assert_eq!((play.challenges.len(), play.say()), (1, None), "elsewhere");
    play.heard_from(home(), 2);
    assert_eq!((play.challenges.len(), play.say()), (2, None), "only the first datagram");

    let ends: [&dyn Fn(&mut Play); 4] = [
        &|play| play.now = play.now + ADMITTED_FOR,
        &|play| play.input(Input::SessionEnded { session: SESSION, packets: Vec::new() }),
        &|play| play.input(Input::Silence),
        &|play| {
            for session in 6..6 + ADMITTED_MAX as u64 {
                play.delivery.handle(play.now, accept(SessionId(Op(session))), &mut Vec::new());
            }
        },
    ];
    for end in ends {
        let mut play = admitted();
        end(&mut play);
        play.heard_from(home(), 1);
        assert_eq!((play.challenges.len(), play.say()), (1, None));
    }

    // A CONNECT that is repeated while the session is in the table proves nothing for later.
    let mut play = admitted();
    play.heard_from(away(), 1);
    play.delivery.handle(play.now, accept(SESSION), &mut Vec::new());
    assert!(play.delivery.admitted.is_empty());
}

#[test]
fn a_challenge_is_never_longer_than_what_it_is_asked_upon() {
    let mut play = Play::new();
    // The longest header that a challenge can have: all integers of the ack have full width.
    play.delivery = Delivery::new(&config(), Incarnation(u64::from(u32::MAX)), [1; 32]);
    for (length, number) in (1..=LONG).zip(u64::MAX / 2..) {
        play.challenges.clear();
        play.heard_of(home(), number, length);
        assert!(play.challenges.iter().all(|(_, _, bytes)| *bytes <= length), "{:?}", play.challenges);
    }
    assert_eq!(play.challenges.len(), 1, "the longest was enough");
}

#[test]
fn every_word_that_may_be_the_first_is_long_enough_to_be_answered() {
    for first in [
        ToServer::keepalive(),
        ToServer::Resume(recado_proto::packet::Resume {
            cursor: None,
            credit: 0,
            home: Home::PRIMARY,
            options: OptionalFields::NONE,
        }),
    ] {
        let envelope = Envelope {
            class: Class::Client,
            cluster: ClusterId(7),
            session: SESSION,
            node: None,
            incarnation: Incarnation(0),
            number: 0,
        };
        let (mut play, mut datagrams) = (Play::new(), Vec::new());
        let packets = [first, ToServer::Padding];
        Link::new(envelope, keys()).transmit(play.now, View::ZERO, &packets, None, &mut datagrams);
        play.heard_of(home(), 1, datagrams[0].len());
        assert_eq!(play.challenges.len(), 1, "{packets:?}");
    }
}

#[test]
fn a_new_address_is_used_once_it_has_answered_and_the_old_one_until_then() {
    let mut play = Play::new();
    play.live(0, 256);
    play.heard_from(away(), 10);
    assert_eq!(play.say(), Some(home()));
    play.applied(1);
    assert_eq!(play.sent.pop().map(|(to, _)| to), Some(home()), "the stream too");
    play.answer_challenge();
    assert_eq!(play.say(), Some(away()));
    play.applied(2);
    assert_eq!(play.sent.pop().map(|(to, _)| to), Some(away()));
}

#[test]
fn only_the_token_from_the_address_that_was_asked_counts() {
    let mut play = Play::new();
    play.live(0, 256);
    play.heard_from(away(), 10);
    let (to, token, _) = play.challenges[0];
    assert_eq!(to, away());
    let elsewhere = ([127, 0, 0, 7], 4_000).into();
    for (from, said) in [(away(), token ^ 1), (away(), 0), (elsewhere, token), (home(), token)] {
        play.respond(from, said);
        assert_eq!(play.say(), Some(home()), "{said} from {from}");
    }
    assert_eq!(play.paths.last(), Some(&home()));
    play.respond(away(), token);
    assert_eq!(play.paths.last(), Some(&away()), "what it asks is charged there");
    assert_eq!(play.say(), Some(away()));
    // A challenge that was answered moves nothing a second time.
    play.heard_from(home(), 11);
    play.answer_challenge();
    assert_eq!(play.say(), Some(home()));
    play.respond(away(), token);
    assert_eq!(play.say(), Some(home()));
}

#[test]
fn an_address_that_is_tried_keeps_its_token_and_another_has_its_own() {
    let mut play = Play::new();
    let elsewhere = ([127, 0, 0, 7], 4_000).into();
    play.heard_from(away(), 1);
    play.heard_from(away(), 2);
    play.heard_from(elsewhere, 3);
    let tokens: Vec<u64> = play.challenges.iter().map(|(_, token, _)| *token).collect();
    assert_eq!(tokens[0], tokens[1], "an answer to either counts");
    assert_ne!(tokens[1], tokens[2]);
}

#[test]
fn only_the_highest_number_makes_an_address_a_new_one() {
    let mut play = Play::new();
    play.heard_from(home(), 5);
    play.answer_challenge();
    // A datagram that was held back and sent on from another address.
    play.heard_from(away(), 4);
    // A datagram that was replayed.
    play.heard_from(away(), 5);
    assert!(play.challenges.is_empty());
    play.heard_from(away(), 6);
    assert_eq!(play.challenges.len(), 1);
}

#[test]
fn a_higher_view_is_announced_to_who_was_heard_lately_and_a_lower_one_to_nobody() {
    let mut play = Play::new();
    play.heard();
    play.input(Input::Announce(coordinator(3)));
    let (to, opened) = play.sent.pop().unwrap();
    assert_eq!((to, opened.header.view), (home(), coordinator(3).view));
    play.input(Input::Announce(coordinator(2)));
    assert!(play.sent.is_empty());
    play.pass(Duration::from_secs(61));
    play.input(Input::Announce(coordinator(4)));
    assert!(play.sent.is_empty());
}

#[test]
fn the_last_words_are_sent_and_the_session_is_forgotten() {
    let mut play = Play::new();
    play.live(0, 256);
    play.input(Input::SessionEnded { session: SESSION, packets: vec![reply()] });
    assert_eq!(play.sent.pop().unwrap().1.packets, vec![reply()]);
    play.applied(1);
    play.input(Input::Answer { session: SESSION, packet: reply() });
    assert!(play.sent.is_empty());
}

#[test]
fn numbers_never_repeat_on_a_session_that_was_forgotten_nor_in_a_later_life() {
    let mut play = Play::new();
    let mut highest = 0;
    for _ in 0..5 {
        play.heard();
        play.input(Input::Answer { session: SESSION, packet: reply() });
        let number = play.sent.pop().unwrap().1.envelope.number;
        assert!(number > highest);
        highest = number;
        play.pass(Duration::from_secs(700));
        assert!(play.delivery.sessions.is_empty(), "forgotten");
    }
    play.delivery = Delivery::new(&config(), Incarnation(2), [2; 32]);
    play.heard();
    play.input(Input::Answer { session: SESSION, packet: reply() });
    assert!(play.sent.pop().unwrap().1.envelope.number > highest);
}

#[test]
fn a_datagram_that_came_before_is_refused_and_counted() {
    let mut delivery = Delivery::new(&config(), Incarnation(1), [1; 32]);
    let (now, mut out) = (Moment(1_000_000), Vec::new());
    let heard = first_heard(SESSION.0.0);
    delivery.handle(now, heard.clone(), &mut out);
    assert!(!out.contains(&Effect::Refused(RefusedDatagram::Repeated)));
    delivery.handle(now, heard, &mut out);
    assert!(out.contains(&Effect::Refused(RefusedDatagram::Repeated)));
}
