//! Paths to servers: greetings, restarts, several addresses, and forgeries.

use super::*;

#[test]
fn a_server_that_starts_again_is_greeted_again_and_goes_on_with_the_session() {
    let mut play = Play::new();
    play.connect();
    play.restart(3);
    play.input(say("one"));
    assert_eq!((play.unopened, play.sends()), (1, vec![]), "sealed for a server_boot that is over");
    play.hellos.clear();
    play.pass(700);
    assert!(play.hellos.contains(&3));
    assert!(play.sent.iter().any(|(to, packet)| *to == 3 && matches!(packet, ToServer::Keepalive(_))));
    play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    assert!(play.sent.iter().any(|(to, packet)| *to == 3 && matches!(packet, ToServer::Resume(_))));
    play.resumed(1, 3);
    assert!(play.sends().contains(&(3, 5)));
    let unopened = play.unopened;
    play.pass(3_000);
    assert_eq!(play.unopened, unopened, "nothing more is sealed for the old server_boot");
}

/// Returns true if server 3 got a packet of this kind since the last call.
fn probed(play: &mut Play, kind: fn(&ToServer) -> bool) -> bool {
    let found = play.sent.iter().any(|(to, packet)| *to == 3 && kind(packet));
    play.sent.clear();
    found
}

#[test]
fn a_server_that_starts_again_is_reached_though_a_forger_answers_each_hello_before_it_does() {
    for forged in 1..=3 {
        let mut play = Play::new();
        play.servers_by_id.get_mut(&3).unwrap().forged = forged;
        play.connect();
        for server_boot in 0..3 {
            play.restart(3);
            play.hellos.clear();
            while !probed(&mut play, |packet| matches!(packet, ToServer::Keepalive(_) | ToServer::Resume(_)))
            {
                play.pass(10);
                let hellos = play.hellos.iter().filter(|node| **node == 3).count();
                assert!(hellos <= 2, "{forged} lies, server_boot {server_boot}: {hellos} HELLOs in vain");
            }
            play.from(3, 1, 3, ToClient::PathChallenge(7));
            assert!(
                probed(&mut play, |packet| *packet == ToServer::PathResponse(7)),
                "{forged}, {server_boot}"
            );
            play.from(3, 2 + server_boot, 3, ToClient::Coordinator(coordinator(2 + server_boot, 3)));
            assert!(
                probed(&mut play, |packet| matches!(packet, ToServer::Resume(_))),
                "{forged}, {server_boot}"
            );
            play.resumed(2 + server_boot, 3);
            let unopened = play.unopened;
            play.input(say("on"));
            assert!(!play.sends().is_empty() && play.unopened == unopened, "{forged}, {server_boot}");
        }
    }
}

#[test]
fn forged_answers_of_a_server_take_nothing_from_an_established_session() {
    let mut play = Play::new();
    play.connect();
    play.servers_by_id.get_mut(&3).unwrap().forged = 4;
    // The server's datagrams are lost for a while.
    play.pass(5_000);
    assert!(play.hellos.contains(&3), "it is asked who it is");
    play.notify(10, 12);
    assert_eq!(play.delivered(), [12], "what it says still opens");
    play.resumed(1, 3);
    let unopened = play.unopened;
    play.sent.clear();
    play.input(say("on"));
    assert_eq!((play.sends(), play.unopened), (vec![(3, 5)], unopened), "and so does what it is told");
}

#[test]
fn recorded_packets_of_an_earlier_boot_do_not_bring_its_path_back() {
    let mut play = Play::new();
    play.connect();
    let old = play.servers_by_id[&3].handshake_config.clone();
    play.number += 1;
    let (secret, view) = (play.secret().unwrap(), View::new(1, NodeId(3)));
    let recorded: Vec<Vec<u8>> = (0..3)
        .map(|_| {
            play.number += 1;
            play.on_session(3, view, &ToClient::Coordinator(coordinator(1, 3)), &secret)
        })
        .collect();
    play.restart(3);
    play.pass(700);
    play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    play.resumed(1, 3);
    // An attacker answers each HELLO with the old boot id, and replays recorded datagrams of that boot.
    let mut out = Vec::new();
    play.machine.servers.hello(address(3), &mut play.machine.start.entropy, &mut out);
    let [Effect::Datagram { bytes: hello, .. }] = &out[..] else { panic!("{out:?}") };
    let from = ([127, 0, 0, 9], 4_000).into();
    let Some(HandshakeEvent::Retry(lie)) = HandshakeServer::new(old).receive(from, hello) else { panic!() };
    for bytes in [lie].into_iter().chain(recorded) {
        play.input(Input::Datagram { from: address(3), bytes });
    }
    let unopened = play.unopened;
    play.sent.clear();
    play.input(say("on"));
    assert_eq!((play.sends(), play.unopened), (vec![(3, 5)], unopened));
}

#[test]
fn a_late_packet_of_a_servers_earlier_boot_is_ignored() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    let ack = ToClient::SendAck(SendAck { seq: Seq(5), op: Op(11), data: OptionalFields::NONE });
    play.number += 1;
    let secret = play.secret().unwrap();
    let late = play.on_session(3, View::new(1, NodeId(3)), &ack, &secret);
    play.restart(3);
    play.pass(700);
    assert!(
        play.sent.iter().any(|(to, packet)| *to == 3 && matches!(packet, ToServer::Keepalive(_))),
        "greeted"
    );
    play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    play.input(Input::Datagram { from: address(3), bytes: late });
    assert!(!play.events.iter().any(|event| matches!(event, Event::Answered { .. })));
}

#[test]
fn a_datagram_of_a_server_counts_once() {
    let mut play = Play::new();
    play.connect();
    play.notify(10, 12);
    play.number += 1;
    let secret = play.secret().unwrap();
    let over = Refused::new(Code::Busy, Answers::Session, 0);
    let bytes = play.on_session(3, View::new(1, NodeId(3)), &ToClient::Error(over), &secret);
    for _ in 0..2 {
        play.input(Input::Datagram { from: address(3), bytes: bytes.clone() });
    }
    let heard = play.machine.heard;
    play.pass(1_000);
    play.input(Input::Datagram { from: address(3), bytes });
    assert_eq!(play.machine.heard, heard, "somebody says it again: the primary need not be alive");
}

/// A client that has sent its first HELLO, to server 1, and the RETRY that answers it.
fn greeted() -> (Play, Vec<u8>) {
    let mut play = Play::among(std::iter::empty());
    let mut server = HandshakeServer::new(handshake_config(1, 1));
    let mut out = Vec::new();
    play.now = play.machine.next_deadline().unwrap();
    play.machine.flush(play.now, &mut out);
    let [Effect::Datagram { bytes: hello, .. }] = &out[..] else { panic!("{out:?}") };
    let from = ([127, 0, 0, 9], 4_000).into();
    let Some(HandshakeEvent::Retry(retry)) = server.receive(from, hello) else { panic!("no RETRY") };
    (play, retry)
}

#[test]
fn only_the_answer_to_the_last_hello_is_a_greeting() {
    let (mut play, bytes) = greeted();
    let Ok((envelope, Handshake::Retry(retry))) = Handshake::read(&bytes) else { panic!("no RETRY") };

    let forged = handshake::Retry { echo: retry.echo ^ 1, ..retry };
    let mut input = |from, bytes| {
        let mut out = Vec::new();
        play.machine.handle(play.now, Input::Datagram { from, bytes }, &mut out);
        out.len()
    };
    assert_eq!(input(address(1), handshake::retry(&envelope, &forged)), 0);
    assert_eq!(input(address(2), bytes.clone()), 0, "from somebody who was not asked");
    assert_eq!(input(address(1), bytes.clone()), 1, "an INITIATION");
    assert_eq!(input(address(1), bytes), 0, "said again it is none");
}

#[test]
fn forged_answers_to_a_hello_before_and_after_the_true_one_cost_no_time() {
    for forged in [1, 2] {
        let mut play = Play::among(std::iter::empty());
        play.servers_by_id.insert(1, TestServer { forged, ..TestServer::new(handshake_config(1, 1)) });
        let began = play.now;
        assert_eq!(play.nonce, None, "its first HELLO was lost");
        while play.nonce.is_none() {
            play.pass(1);
        }
        // No longer than until a lost HELLO is sent again.
        let waited = play.now.since(began);
        assert!(waited <= 2 * ASK_AGAIN_MIN, "{waited:?} with {forged} forged before the true one");
    }
}

#[test]
fn answers_to_a_hello_are_forged_without_end_and_cost_a_few_initiations_each() {
    let (mut play, retry) = greeted();
    let mut out = Vec::new();
    for lie in 0..=255 {
        let bytes = forged_retry(&retry, lie);
        play.machine.handle(play.now, Input::Datagram { from: address(1), bytes }, &mut out);
    }
    assert!(out.len() <= 4, "{} datagrams", out.len());
}

#[test]
fn a_server_with_another_cluster_key_is_not_sent_an_initiation() {
    let stranger = HandshakeConfig { keys: ClusterKeys::new(&[1; 32]), ..handshake_config(1, 1) };
    let mut play = Play::among([stranger].into_iter());
    play.pass(5_000);
    assert!(play.sent.is_empty(), "{:?}", play.sent);
    assert!((3..20).contains(&play.hellos.len()), "{} hellos in five seconds", play.hellos.len());
}

#[test]
fn two_addresses_of_one_server_never_use_one_number_twice() {
    let (handshake_config, now, mut entropy) =
        (handshake_config(1, 1), Moment(1_000_000), Entropy::new([3; 32]));
    let cluster_key = noise::public(&handshake_config.keys.cluster_private());
    let identity = Identity { cluster: handshake_config.cluster, cluster_key, private: private() };
    let (near, far) = (address(1), address(4));
    let mut servers = Servers::new(&[near, far], identity);
    let mut server = HandshakeServer::new(handshake_config.clone());
    let secret = handshake_config.keys.session_secret(SESSION, device(), 1, Default::default());
    let (mut to_server, mut to_client) = (
        secret.of_session(Direction::ToServer, handshake_config.me, handshake_config.boot_id),
        secret.of_session(Direction::ToClient, handshake_config.me, handshake_config.boot_id),
    );
    // The packets sent to the server if it is on trial at this address; else none.
    let mut greet = |servers: &mut Servers, at| {
        let mut out = Vec::new();
        servers.check_boot(at, &mut entropy, &mut out);
        let hello = out.into_iter().find_map(|effect| match effect {
            Effect::Datagram { to, bytes } => Some((to, bytes)),
            Effect::Event(_) => None,
        });
        let Some((to, bytes)) = hello else { return Vec::new() };
        let Some(HandshakeEvent::Retry(bytes)) = server.receive(at, &bytes) else { panic!("no RETRY") };
        let Some(Received::Greeting { greeting, on_trial }) = servers.receive(now, to, &bytes) else {
            panic!("no greeting")
        };
        let mut out = Vec::new();
        if on_trial {
            servers.probe(now, at, &greeting, View::ZERO, &[ToServer::keepalive()], &mut out);
        }
        out
    };
    [near, far].into_iter().for_each(|at| drop(greet(&mut servers, at)));
    servers.open_session(now, SESSION, secret);
    let mut numbers = std::collections::BTreeSet::new();
    let mut count = |out: Vec<Effect>| -> Vec<SocketAddr> {
        let mut to_whom = Vec::new();
        for effect in out {
            let Effect::Datagram { to, bytes } = effect else { panic!("{effect:?}") };
            let number =
                envelope::open::<ToServer>(&mut to_server, &bytes).expect("for this server").envelope.number;
            assert!(numbers.insert(number), "{number} twice");
            to_whom.push(to);
        }
        to_whom
    };
    let say = |servers: &mut Servers| {
        let mut out = Vec::new();
        for at in [near, far] {
            servers.send(now, at, View::ZERO, &[ToServer::keepalive()], None, &mut out);
        }
        out
    };
    let mut number = 0;
    let mut answer = |servers: &mut Servers, from, largest| {
        number += 1;
        let envelope = Envelope {
            class: Class::Client,
            cluster: handshake_config.cluster,
            session: SESSION,
            node: Some(handshake_config.me),
            incarnation: handshake_config.incarnation,
            number,
        };
        let header =
            Header { ack: Some(envelope::Ack { largest, first: 0, further: Vec::new() }), view: View::ZERO };
        let bytes = envelope::seal(&mut to_client, &envelope, &header, &[]);
        servers.receive(now, from, &bytes).is_some()
    };
    assert_eq!(count(say(&mut servers)), [near, far], "both may be it");
    assert!(!answer(&mut servers, near, 9), "of what was never said");
    assert!(answer(&mut servers, far, 2));
    assert_eq!(count(say(&mut servers)), [far]);
    // After a datagram from there, the server stays there.
    assert_eq!(count(greet(&mut servers, near)), []);
    assert_eq!(servers.address_of(handshake_config.me), Some(far));
    // Once silent there, it is tried here, and moves here when it answers.
    assert_eq!(count(greet(&mut servers, far)), []);
    assert_eq!(count(greet(&mut servers, far)), []);
    assert_eq!(count(greet(&mut servers, near)), [near]);
    assert_eq!(count(say(&mut servers)), [near, far]);
    assert!(!answer(&mut servers, near, 3), "that was said before, at the other address");
    assert!(answer(&mut servers, near, 4));
    assert_eq!(count(say(&mut servers)), [near]);
    assert_eq!(servers.address_of(handshake_config.me), Some(near));
    // Silent there until it says a word, it stays there all the same.
    assert_eq!(count(greet(&mut servers, near)), []);
    assert_eq!(count(greet(&mut servers, near)), []);
    assert!(answer(&mut servers, near, 4));
    assert_eq!(count(greet(&mut servers, far)), []);
    servers.learn_all(&[(handshake_config.me, address(9))]);
    assert_eq!(servers.addresses(), [near, far], "it was heard at home");
}
