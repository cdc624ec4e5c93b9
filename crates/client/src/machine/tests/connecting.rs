//! Opening a session: CONNECT, its acceptance or rejection, and the first RESUME.

use recado_proto::id::ClusterId;

use super::*;

#[test]
fn the_primary_is_found_from_any_one_address() {
    let mut play = Play::new();
    play.from(1, 0, 0, ToClient::Coordinator(coordinator(1, 3)));
    play.pass(300);
    assert!(play.sent.iter().any(|(to, packet)| *to == 3 && matches!(packet, ToServer::Connect(_))));
}

#[test]
fn a_client_goes_on_with_a_handshake_that_has_begun() {
    let (mut begun, mut entropy) = (HandshakeClient::default(), Entropy::new([3; 32]));
    let mut server = HandshakeServer::new(handshake_config(1, 1));
    // The HELLO of a client that does not know the cluster.
    let hello = begun.hello(ClusterId(0), &mut entropy);
    let Some(HandshakeEvent::Retry(retry)) = server.receive(([127, 0, 0, 9], 4_000).into(), &hello) else {
        panic!("no RETRY")
    };
    begun.take(Moment(1_000_000), &retry);
    let mut play = Play::begun(BTreeMap::from([(address(1), begun)]));
    assert!(matches!(&play.sent[..], [(1, ToServer::Connect(_))]), "{:?}", play.sent);
    assert_eq!(play.hellos, []);
    play.accept();
    play.resumed(1, 3);
    assert!(play.events.iter().any(|event| matches!(event, Event::Connected { .. })));
}

#[test]
fn a_session_that_servers_do_not_support_or_refuse_for_an_unknown_reason_ends_the_client_and_is_not_asked_for_again()
 {
    for code in [Code::Unsupported, Code::Unknown(300)] {
        let mut play = Play::new();
        play.accept();
        play.from(3, 1, 3, refused(code));
        assert_eq!(play.events, [Event::Ended(code)]);
        play.sent.clear();
        play.pass(5_000);
        assert_eq!(play.sent, []);
    }
}

#[test]
fn a_session_or_an_answer_of_another_log_is_not_taken_for_one_of_this_log() {
    for (group, epoch, generation) in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] {
        let mut elsewhere = Position::of(Op(11));
        (elsewhere.group, elsewhere.epoch, elsewhere.generation) = (group, Epoch(epoch), generation);
        let mut play = Play::new();
        play.connect();
        play.input(Input::Query(QueryId(1), Query::List { what: Listing::People, after: None }));
        let ToClient::Answer(answer) = empty_page(1) else { unreachable!() };
        play.from(3, 1, 3, ToClient::Answer(packet::Answer { applied: elsewhere, ..answer }));
        assert_eq!(play.events, [Event::Answer(QueryId(1), Answer::Refused(Code::OtherEpoch))]);

        let mut play = Play::new();
        play.accept();
        let resumed = ResumeOk {
            created_op: BORN,
            last_seq: Seq(4),
            coordinator: coordinator(1, 3),
            cursor: elsewhere,
            keepalive_ms: 2_000,
            options: OptionalFields::NONE,
        };
        play.from(3, 1, 3, ToClient::ResumeOk(resumed));
        assert_eq!(play.events, [Event::Ended(Code::OtherEpoch)]);
    }
}

#[test]
fn a_session_that_ends_before_it_is_served_is_requested_again_under_a_new_nonce() {
    let mut play = Play::new();
    play.accept();
    let first = play.nonce();
    let over = Refused::new(Code::SessionOver, Answers::Session, 0);
    play.from(3, 1, 3, ToClient::Error(over));
    play.pass(300);
    assert_ne!(play.nonce(), first, "under a nonce of its own");
    play.accept();
    play.resumed(1, 3);
    assert!(play.events.iter().any(|event| matches!(event, Event::Connected { .. })));
}

#[test]
fn a_session_that_is_not_served_yet_carries_only_resume_and_keepalive() {
    let mut play = Play::new();
    play.input(say("early"));
    play.events.clear();
    play.accept();
    let nonce = play.nonce();
    play.sent.clear();
    play.pass(5_000);
    // A session that may be over is asked for by the CONNECT that opened it, and by no fresh one.
    let said = |packet: &ToServer| match packet {
        ToServer::Resume(_) | ToServer::Keepalive(_) => true,
        ToServer::Connect(connect) => connect.nonce == nonce && !connect.fresh,
        _ => false,
    };
    assert!(play.sent.len() > 3 && play.sent.iter().all(|(_, packet)| said(packet)), "{:?}", play.sent);
    assert!(play.events.is_empty(), "{:?}", play.events);
    play.input(Input::Disconnect);
    assert_eq!(play.events, [Event::Disconnected]);
}

#[test]
fn a_pending_session_that_lapsed_unnoticed_is_requested_again() {
    let mut play = Play::new();
    play.accept();
    let first = play.nonce();
    play.pass(5_000);
    let lapsed = RejectConn::new(first, Code::SessionOver, 0);
    let bytes = play.answer(3, View::new(1, NodeId(3)), &ToClient::RejectConn(lapsed));
    play.input(Input::Datagram { from: address(3), bytes });
    play.pass(300);
    assert_ne!(play.nonce(), first);
}

#[test]
fn a_rejection_with_retry_ms_zero_is_not_retried_at_once() {
    let mut play = Play::new();
    let mut initiations = 0;
    let end = play.now + Duration::from_secs(1);
    while play.now < end {
        let reject = RejectConn::new(play.nonce(), Code::NotPrimary, 0);
        play.from(1, 0, 0, ToClient::RejectConn(reject));
        assert!(play.servers_by_id[&1].reply.is_none(), "asked again at once");
        initiations += 1;
    }
    assert!(initiations <= 101, "{initiations} in a second");
}

#[test]
fn a_new_client_waits_longer_after_each_busy() {
    let mut play = Play::new();
    let mut initiations = 0;
    let end = play.now + Duration::from_secs(2);
    while play.now < end {
        let reject = RejectConn::new(play.nonce(), Code::Busy, 10);
        play.from(1, 0, 0, ToClient::RejectConn(reject));
        initiations += 1;
    }
    assert!(initiations <= 8, "{initiations} in two seconds");
}

#[test]
fn a_session_that_was_never_served_is_requested_again_after_retry_ms_and_later_each_time() {
    let mut play = Play::new();
    let over = Refused::new(Code::SessionOver, Answers::Session, 30);
    play.accept();
    play.from(3, 1, 3, ToClient::Error(over));
    let retry = Duration::from_millis(30);
    assert_eq!(play.machine.next_deadline(), Some(play.now + retry));
    let mut longest = [Duration::ZERO; 6];
    for _ in 0..200 {
        play.machine.unserved = 0;
        for longest in &mut longest {
            play.machine.session = Some((SESSION, 1));
            play.machine.on_over(play.now, Code::SessionOver, retry, &mut Vec::new());
            let wait = play.machine.next_deadline().unwrap().since(play.now);
            assert!(wait >= retry);
            *longest = wait.max(*longest);
        }
    }
    // Of two copies of a device one has to come first: drawn from twice as much each time.
    for (wait, more) in longest.into_iter().zip([0, 200, 400, 800, 1_600, 1_600].map(Duration::from_millis)) {
        assert!((retry + more * 9 / 10..=retry + more).contains(&wait), "{wait:?} of {more:?}: {longest:?}");
    }
}

#[test]
fn only_an_accept_of_the_last_connect_in_no_lower_view_than_seen_counts() {
    let mut play = Play::new();
    play.from(1, 2, 2, ToClient::Coordinator(coordinator(2, 2)));
    let nonce = play.nonce();
    let secret = handshake_config(3, 1).keys.session_secret(SESSION, device(), nonce, Default::default());
    for (nonce, view, opens) in [(nonce + 1, (2, 2), false), (nonce, (1, 3), false), (nonce, (3, 3), true)] {
        let (session, coordinator) = (SESSION, coordinator(view.0, view.1));
        let accept = AcceptConn {
            nonce,
            session,
            coordinator,
            secret: secret.key().clone(),
            aead: Default::default(),
            options: OptionalFields::NONE,
        };
        play.from(1, 2, 2, ToClient::AcceptConn(accept));
        assert_eq!(play.machine.session.is_some(), opens, "nonce {nonce}, view {view:?}");
    }
    let resumes = [2, 3].map(|node| play.sent_to(node, |packet| matches!(packet, ToServer::Resume(_))) > 0);
    assert_eq!(resumes, [false, true], "it goes on with the primary that it was told");
}

#[test]
fn the_acceptance_of_a_client_names_the_other_servers() {
    let mut play = Play::new();
    let (nonce, coordinator) = (play.nonce(), coordinator(1, 1));
    let secret = handshake_config(1, 1).keys.session_secret(SESSION, device(), nonce, Default::default());
    play.from(
        1,
        1,
        1,
        ToClient::AcceptConn(AcceptConn {
            nonce,
            session: SESSION,
            coordinator,
            secret: secret.key().clone(),
            aead: Default::default(),
            options: OptionalFields::NONE,
        }),
    );
    assert!(play.hellos.contains(&2) && play.hellos.contains(&3), "{:?}", play.hellos);
}

#[test]
fn a_session_that_is_opened_after_another_begins_as_the_first_one_did() {
    // Before the keepalive of the first one would have been due, and when it is silent for long.
    for between in [300, 6_000] {
        let mut play = Play::new();
        play.accept();
        play.pass(3_000);
        let over = Refused::new(Code::SessionOver, Answers::Session, 0);
        play.from(3, 1, 3, ToClient::Error(over));
        play.pass(between);
        play.sent.clear();
        play.accept();
        let kept_alive = |play: &Play| play.sent_to(1, |packet| *packet == ToServer::keepalive()) > 0;
        assert!(kept_alive(&play), "at once, after {between} ms");
        play.sent.clear();
        assert_eq!(play.until(kept_alive), KEEPALIVE_FIRST, "after {between} ms");
    }
}

#[test]
fn a_client_rejected_for_a_transient_reason_connects_again_after_retry_ms() {
    let exactly = |ms| Duration::from_millis(ms)..Duration::from_micros(ms * 1_000 + 1);
    for (code, retry_ms, other, expected) in [
        (Code::NotPrimary, 30, 0, exactly(30)),
        (Code::NotPrimary, 900, 0, about(100)),
        (Code::Busy, 500, 0, exactly(500)),
        (Code::Busy, 10, 0, about(100)),
        (Code::NotPrimary, 30, 1, about(100)),
        (Code::WrongInvite, 30, 1, about(100)),
    ] {
        let mut play = Play::new();
        let reject = RejectConn::new(play.nonce() + other, code, retry_ms);
        play.from(1, 0, 0, ToClient::RejectConn(reject));
        let wait = play.machine.next_deadline().map(|at| at.since(play.now));
        assert!(wait.is_some_and(|wait| expected.contains(&wait)), "{code:?} {retry_ms} {other}: {wait:?}");
    }
}

#[test]
fn a_resume_ok_counts_once_and_only_from_the_primary_of_the_highest_view_and_for_that_view() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.sent.clear();
    play.resumed(1, 3);
    assert_eq!(play.sends(), [], "nothing was asked to go on");
    play.from(2, 2, 2, ToClient::Coordinator(coordinator(2, 2)));
    for (node, view, counts) in
        [(1, (2, 2), false), (2, (1, 3), false), (2, (3, 2), false), (2, (2, 2), true)]
    {
        let coordinator = coordinator(view.0, view.1);
        let resumed = ResumeOk {
            created_op: BORN,
            last_seq: Seq(4),
            coordinator,
            cursor: Position::of(Op(10)),
            keepalive_ms: 2_000,
            options: OptionalFields::NONE,
        };
        play.from(node, 2, 2, ToClient::ResumeOk(resumed));
        assert_eq!(!play.sends().is_empty(), counts, "{node} of view {view:?}");
    }
}

#[test]
fn a_client_tells_silence_from_long_datagrams_that_are_lost_and_from_a_primary_that_it_cannot_hear() {
    let mut play = Play::among(std::iter::empty());
    play.pass(2_000);
    assert_eq!(play.machine.obstacle(), Obstacle::Silence);

    // Every server answers HELLO, and the test no INITIATION.
    let mut play = Play::new();
    play.pass(2_000);
    assert_eq!(play.machine.obstacle(), Obstacle::Unproved(address(1)));

    play.from(1, 0, 0, ToClient::Coordinator(coordinator(0, 0)));
    assert_eq!(play.machine.obstacle(), Obstacle::NoPrimary);
    play.from(1, 4, 3, ToClient::Coordinator(coordinator(4, 3)));
    assert_eq!(play.machine.obstacle(), Obstacle::PrimaryUnheard { node: NodeId(3), addr: address(3) });
    play.from(3, 4, 3, ToClient::Coordinator(coordinator(4, 3)));
    assert_eq!(play.machine.obstacle(), Obstacle::NoPrimary, "it answers, and serves nobody yet");
}

#[test]
fn a_client_whose_sessions_are_taken_over_before_they_are_served_is_contested() {
    let mut play = Play::new();
    for told in [Obstacle::NoPrimary, Obstacle::Contested] {
        play.accept();
        assert_eq!(play.machine.obstacle(), Obstacle::NoPrimary);
        play.from(3, 1, 3, refused(Code::SessionOver));
        assert_eq!(play.machine.obstacle(), told, "one may have been confirmed too late");
        play.pass(300);
    }
}
