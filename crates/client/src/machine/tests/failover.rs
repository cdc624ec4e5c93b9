//! The primary of a session: new views, silence and the search for it, keepalives.

use super::*;

#[test]
fn a_new_primary_gets_a_resume_and_then_the_unanswered_requests() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.input(say("two"));
    play.sent.clear();
    play.from(2, 2, 2, ToClient::Coordinator(coordinator(2, 2)));
    assert!(play.sent.iter().any(|(to, packet)| *to == 2 && matches!(packet, ToServer::Resume(_))));
    assert!(play.sends().is_empty(), "nothing before RESUME_OK");
    play.resumed(2, 2);
    assert_eq!(play.sends(), vec![(2, 5), (2, 6)]);
    assert!(play.events.iter().any(|event| matches!(event, Event::PrimaryChanged { .. })));
}

/// One primary may have room where another has none.
#[test]
fn a_new_primary_gets_all_requests_at_once_whatever_retry_ms_the_old_one_sent() {
    let mut play = Play::new();
    play.connect();
    (0..3).for_each(|_| play.input(say("x")));
    let busy = Refused::new(Code::NoQuorum, Answers::Request(Seq(5)), 900);
    play.from(3, 1, 3, ToClient::Error(busy));
    play.from(2, 2, 2, ToClient::Coordinator(coordinator(2, 2)));
    play.sent.clear();
    play.resumed(2, 2);
    assert_eq!(play.sends(), vec![(2, 5), (2, 6), (2, 7)]);
}

#[test]
fn a_packet_of_a_deposed_primary_is_ignored() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.from(2, 2, 2, ToClient::Coordinator(coordinator(2, 2)));
    play.from(3, 1, 3, ToClient::SendAck(SendAck { seq: Seq(5), op: Op(11), data: OptionalFields::NONE }));
    assert!(!play.events.iter().any(|event| matches!(event, Event::Answered { .. })));
}

#[test]
fn a_primarys_packet_of_an_earlier_view_is_ignored_though_it_leads_again() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.from(3, 4, 3, ToClient::Coordinator(coordinator(4, 3)));
    play.resumed(4, 3);
    let answered = |play: &Play| play.events.iter().any(|event| matches!(event, Event::Answered { .. }));
    let ack = ToClient::SendAck(SendAck { seq: Seq(5), op: Op(11), data: OptionalFields::NONE });
    play.from(3, 1, 3, ack.clone());
    assert!(!answered(&play));
    play.from(3, 4, 3, ack);
    assert!(answered(&play));
}

#[test]
fn any_packet_of_a_higher_view_names_its_primary() {
    let mut play = Play::new();
    play.connect();
    play.from(2, 4, 1, ToClient::Ping);
    let resumes = |play: &Play, node| play.sent_to(node, |packet| matches!(packet, ToServer::Resume(_))) > 0;
    assert!(resumes(&play, 1));
    play.from(2, 0, 0, ToClient::Coordinator(coordinator(5, 2)));
    assert!(resumes(&play, 2), "also from one that was in a lower one when it said so");
}

#[test]
fn only_the_primary_answers_a_request() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.events.clear();
    let ack = ToClient::SendAck(SendAck { seq: Seq(5), op: Op(11), data: OptionalFields::NONE });
    play.from(2, 1, 3, ack.clone());
    assert_eq!(play.events, []);
    play.from(3, 1, 3, ack);
    assert_eq!(play.events, [Event::Answered { seq: Seq(5), result: Ok(Op(11)) }]);
}

#[test]
fn a_restarted_primary_gets_a_resume_with_its_greeting_and_a_restarted_backup_does_not() {
    let mut play = Play::new();
    play.connect();
    play.restart(3);
    play.from(2, 4, 3, ToClient::Coordinator(coordinator(4, 3)));
    let resumes = |play: &Play, node| play.sent_to(node, |packet| matches!(packet, ToServer::Resume(_)));
    assert_eq!(resumes(&play, 3), 1, "{:?}", play.sent);
    play.restart(1);
    play.until(|play| play.sent_to(1, |packet| *packet == ToServer::keepalive()) > 0);
    assert_eq!(resumes(&play, 1), 0);
}

#[test]
fn only_packets_of_the_primary_in_its_view_show_that_it_is_alive() {
    for (node, round, primary) in [(2, 1, 3), (3, 0, 0)] {
        let mut play = Play::new();
        play.connect();
        play.pass(4_000);
        play.from(node, round, primary, ToClient::Ping);
        let waited = play.until(|play| play.events.contains(&Event::Searching));
        assert_eq!(
            waited,
            2 * KEEPALIVE_EVERY + QUIET_IDLE - Duration::from_secs(4),
            "{node} in view {round}"
        );
    }
}

#[test]
fn a_silent_primary_is_looked_for_at_every_server() {
    let mut play = Play::new();
    play.connect();
    play.input(say("one"));
    play.sent.clear();
    play.pass(400);
    let asked =
        |node| play.sent.iter().any(|(to, packet)| *to == node && matches!(packet, ToServer::Keepalive(_)));
    assert!(asked(1) && asked(2) && asked(3));
    assert!(play.events.contains(&Event::Searching));
}

#[test]
fn a_client_whose_place_went_to_another_resumes_after_retry_ms() {
    let mut play = Play::new();
    play.connect();
    let resumes = |play: &Play| play.sent.iter().filter(|(_, p)| matches!(p, ToServer::Resume(_))).count();
    let before = resumes(&play);
    let busy = Refused::new(Code::Busy, Answers::Session, 500);
    play.from(3, 1, 3, ToClient::Error(busy));
    play.pass(400);
    assert_eq!(resumes(&play), before);
    play.pass(300);
    assert!(resumes(&play) > before, "its stream is begun anew");
}

#[test]
fn a_client_answers_a_path_challenge_and_resumes_or_keeps_alive() {
    let mut play = Play::new();
    play.accept();
    play.sent.clear();
    let sent = |play: &mut Play| std::mem::take(&mut play.sent);
    play.from(3, 1, 3, ToClient::PathChallenge(77));
    assert!(
        matches!(&sent(&mut play)[..], [(3, ToServer::PathResponse(77)), (3, ToServer::Resume(_))]),
        "the primary that is to serve it"
    );
    play.from(2, 1, 3, ToClient::PathChallenge(78));
    assert_eq!(sent(&mut play), [(2, ToServer::PathResponse(78)), (2, ToServer::keepalive())]);
    play.resumed(1, 3);
    sent(&mut play);
    play.from(3, 1, 3, ToClient::PathChallenge(79));
    assert_eq!(sent(&mut play), [(3, ToServer::PathResponse(79)), (3, ToServer::keepalive())]);
    // A server that knows only an older view must be able to find the client, too.
    play.from(1, 0, 0, ToClient::PathChallenge(80));
    assert_eq!(sent(&mut play), [(1, ToServer::PathResponse(80)), (1, ToServer::keepalive())]);
}

#[test]
fn the_client_sends_every_server_keepalives_often_at_first_and_then_fewer_to_the_backups() {
    let mut play = Play::new();
    play.connect();
    play.pass(300);
    for node in 1..=3 {
        let alive = |(to, packet): &&(u16, ToServer)| *to == node && *packet == ToServer::keepalive();
        assert!(
            play.sent.iter().filter(alive).count() >= 2,
            "{node} may not have known the session at first"
        );
    }
    for turn in 0..400 {
        if turn == 200 {
            play.sent.clear();
        }
        play.pass(500);
        play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    }
    // The backups are silent here, so each KEEPALIVE to them is repeated with a new handshake.
    for (node, expected) in [(1, 4..=8), (2, 4..=8), (3, 49..=51)] {
        let times = play.sent_to(node, |packet| *packet == ToServer::keepalive());
        assert!(expected.contains(&times), "{times} to {node} in 100 s");
    }
    assert!(!play.events.contains(&Event::Searching));
}

/// What is looked for with a deadline of its own comes then, and not with whatever comes next.
#[test]
fn a_session_that_is_to_be_resumed_wakes_for_the_keepalive_for_resume_and_for_the_search() {
    let exactly = |wait: Duration| wait..wait + Duration::from_micros(1);
    type Come = fn(&Play) -> bool;
    let cases: [(Come, std::ops::Range<Duration>); 3] = [
        (|play| play.sent_to(2, |packet| *packet == ToServer::keepalive()) > 0, exactly(KEEPALIVE_FIRST)),
        (|play| play.sent_to(3, |packet| matches!(packet, ToServer::Resume(_))) > 0, about(100)),
        (|play| play.events.contains(&Event::Searching), exactly(QUIET)),
    ];
    for (come, expected) in cases {
        let mut play = Play::new();
        play.connect();
        play.from(3, 4, 3, ToClient::Coordinator(coordinator(4, 3)));
        play.sent.clear();
        let waited = play.until(come);
        assert!(expected.contains(&waited), "{waited:?}, not {expected:?}");
    }
}

#[test]
fn the_search_for_a_primary_begins_after_300_ms_of_debt_or_two_keepalives_of_silence() {
    for (asked, searched) in [(None, 4_500), (Some(1_000), 1_300), (Some(4_300), 4_500)] {
        let mut play = Play::new();
        play.connect();
        if let Some(asked) = asked {
            play.pass(asked);
            play.input(list(1));
        }
        let waited = play.until(|play| play.events.contains(&Event::Searching));
        assert_eq!(asked.unwrap_or(0) + waited.as_millis() as u64, searched, "asked after {asked:?}");
    }
}

#[test]
fn a_closed_port_of_the_primary_causes_queries_to_all_servers_and_delays_the_next_keepalive() {
    let mut play = Play::new();
    play.connect();
    play.pass(1_000);
    play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    let kept_alive = |play: &Play| play.sent_to(2, |packet| *packet == ToServer::keepalive()) > 0;
    let began = play.now;
    // Whose process is gone, and after how many microseconds that is said.
    for (node, after, asked) in [(2, 0, false), (3, 0, true), (3, 19_999, false), (3, 20_000, true)] {
        play.sent.clear();
        play.now = began + Duration::from_micros(after);
        play.input(Input::PortRefused(address(node)));
        assert_eq!(kept_alive(&play), asked, "{node} after {after}");
    }
    play.sent.clear();
    assert_eq!(
        play.until(|play| play.sent_to(3, |packet| *packet == ToServer::keepalive()) > 0),
        KEEPALIVE_EVERY
    );
}

#[test]
fn a_pause_is_counted_from_what_was_not_answered_first() {
    let mut play = Play::new();
    play.connect();
    let silent = play.until(|play| play.events.contains(&Event::Searching));
    play.pass(100);
    play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    play.resumed(1, 3);
    let pause = silent + Duration::from_millis(100) - KEEPALIVE_FIRST;
    assert_eq!(play.events.last(), Some(&Event::PrimaryFound { primary: address(3), pause }));
    play.sent.clear();
    play.from(3, 1, 3, ToClient::Ping);
    assert_eq!(play.sent, [], "it is found");
    let changed = |round, node, pause| {
        let (view, primary) = (View::new(round, NodeId(node)), address(node));
        Event::PrimaryChanged { view, primary, pause: Duration::from_millis(pause) }
    };
    // Nothing was asked of the old primary, so no answer of it was missed.
    for (round, node, quiet) in [(2, 2, 1_000), (3, 1, 700)] {
        play.pass(quiet);
        play.from(node, round, node, ToClient::Coordinator(coordinator(round, node)));
        play.pass(5);
        play.resumed(round, node);
        assert_eq!(play.events.last(), Some(&changed(round, node, 5)), "from RESUME on");
    }
    play.pass(290);
    play.from(1, 3, 1, ToClient::Ping);
    play.input(say("one"));
    play.pass(120);
    play.from(2, 4, 2, ToClient::Coordinator(coordinator(4, 2)));
    play.pass(30);
    play.resumed(4, 2);
    assert_eq!(play.events.last(), Some(&changed(4, 2, 150)));
}

#[test]
fn a_client_that_seldom_sends_keepalives_has_missed_nothing_before_the_next_one() {
    for (idle, missed) in [(24_000, 0), (26_000, 1_000)] {
        let mut play = Play::new();
        play.accept();
        play.resumed_with(1, 3, 25_000);
        // Every keepalive is answered until their interval is the longest.
        for _ in 0..40 {
            play.pass(1_000);
            play.from(3, 1, 3, ToClient::Ping);
        }
        play.sent.clear();
        play.until(|play| play.sent_to(3, |packet| *packet == ToServer::keepalive()) > 0);
        play.from(3, 1, 3, ToClient::Ping);
        play.pass(idle);
        play.from(2, 2, 2, ToClient::Coordinator(coordinator(2, 2)));
        play.resumed(2, 2);
        let Some(Event::PrimaryChanged { pause, .. }) = play.events.last() else {
            panic!("{:?}", play.events)
        };
        assert_eq!(*pause, Duration::from_millis(missed), "after {idle} ms");
    }
}

#[test]
fn a_server_silent_since_the_last_keepalive_gets_a_hello_with_the_next_one() {
    let mut play = Play::new();
    play.connect();
    play.pass(200);
    play.from(3, 1, 3, ToClient::Ping);
    play.from(1, 1, 3, ToClient::Ping);
    play.hellos.clear();
    play.sent.clear();
    play.until(|play| play.sent_to(1, |packet| *packet == ToServer::keepalive()) > 0);
    assert_eq!(play.hellos, [2]);
    // None of them has said anything since.
    play.sent.clear();
    play.hellos.clear();
    play.until(|play| play.sent_to(1, |packet| *packet == ToServer::keepalive()) > 0);
    assert_eq!(play.hellos, [1, 2, 3]);
}

#[test]
fn a_client_sends_keepalives_as_often_as_the_server_tells_it_within_bounds() {
    for (told, obeyed) in [(5_000, 5_000), (0, 1_000), (u32::MAX, 25_000)] {
        let mut play = Play::new();
        play.accept();
        play.resumed_with(1, 3, told);
        assert_keepalives(&mut play, obeyed);
    }
}

/// What RESUME_OK told may be long ago, when there were fewer sessions.
#[test]
fn the_primarys_answer_to_a_keepalive_tells_the_interval_of_the_next_ones() {
    let told = |ms| ToClient::Coordinator(coordinator(1, 3).with_keepalive(ms));
    let mut play = Play::new();
    play.connect();
    play.from(3, 1, 3, told(10_000));
    assert_keepalives(&mut play, 10_000);
    play.from(3, 1, 3, told(2_000));
    assert_keepalives(&mut play, 2_000);
    play.from(2, 1, 3, told(9_000));
    play.from(3, 0, 0, told(9_000));
    assert_keepalives(&mut play, 2_000);
}

#[test]
fn a_shorter_interval_that_is_told_is_no_reason_to_search() {
    let mut play = Play::new();
    play.accept();
    play.resumed_with(1, 3, 25_000);
    // Each KEEPALIVE is answered, and nothing else comes.
    let mut told = 25_000;
    for _ in 0..400 {
        let before = play.sent_to(3, |packet| *packet == ToServer::keepalive());
        play.pass(250);
        if play.sent_to(3, |packet| *packet == ToServer::keepalive()) > before {
            play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3).with_keepalive(told)));
            told = 2_000;
        }
    }
    assert!(!play.events.contains(&Event::Searching));
}

/// Asserts the interval of keepalives to the primary, which is heard, in ms. The first ones of a session come
/// sooner; and while the primary is heard, none is a search for it.
#[track_caller]
fn assert_keepalives(play: &mut Play, expected: u64) {
    let mut sent = Vec::new();
    while sent.len() < 12 {
        let before = play.sent_to(3, |packet| *packet == ToServer::keepalive());
        play.pass(500);
        play.from(3, 1, 3, ToClient::Ping);
        if play.sent_to(3, |packet| *packet == ToServer::keepalive()) > before {
            sent.push(play.now);
        }
    }
    let waited = sent[11].since(sent[10]).as_millis() as u64;
    assert!(waited.abs_diff(expected) <= 500, "{waited} ms, not {expected}");
}

#[test]
fn after_the_restart_of_a_server_every_server_is_told_within_a_second_where_the_client_is() {
    let mut play = Play::new();
    play.connect();
    for _ in 0..60 {
        play.pass(500);
        play.from(3, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    }
    let told = |play: &mut Play, restarted: bool| {
        play.sent.clear();
        let announced = coordinator(1, 3);
        let announced = if restarted { announced.with_restarted() } else { announced };
        play.from(3, 1, 3, ToClient::Coordinator(announced));
        play.pass(1_500);
        [1, 2].map(|node| play.sent_to(node, |packet| *packet == ToServer::keepalive()))
    };
    assert_eq!(told(&mut play, false), [0, 0], "they are told every 25 s");
    assert!(told(&mut play, true).iter().all(|times| *times >= 2), "one may be lost");
}
