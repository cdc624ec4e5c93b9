//! What the device's files remember: unanswered requests, the cursor, and signs of copies.

use super::*;

#[test]
fn request_numbers_continue_from_the_files_and_none_is_sent_before_resume_ok() {
    let mut play = Play::new();
    play.input(say("early"));
    assert!(matches!(play.events[..], [Event::Numbered { seq: Seq(5), .. }]), "{:?}", play.events);
    play.events.clear();
    play.accept();
    assert!(play.events.is_empty(), "an older session may still take numbers");
    assert!(play.sends().is_empty());
    play.resumed(1, 3);
    assert!(matches!(play.events[..], [Event::Connected { last_seq: Seq(4), cursor: Op(10), .. }]));
    assert_eq!(play.sends(), vec![(3, 5)]);
}

/// The cursors of the RESUMEs sent, without consecutive duplicates.
fn resumed_from(play: &Play) -> Vec<Option<Op>> {
    let mut cursors: Vec<_> = play
        .sent
        .iter()
        .filter_map(|(_, packet)| match packet {
            ToServer::Resume(resume) => Some(resume.cursor.and_then(Position::op)),
            _ => None,
        })
        .collect();
    cursors.dedup();
    cursors
}

#[test]
fn a_cursor_that_is_none_of_the_log_is_given_up_for_what_the_servers_remember() {
    for code in [Code::BeyondEnd, Code::OtherEpoch] {
        let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
        let mut play = Play::remembering(handshake_configs, Some(Op(1_000)), Vec::new());
        play.accept();
        play.from(3, 1, 3, refused(code));
        assert_eq!(resumed_from(&play), [Some(Op(1_000)), None]);
        // A repetition changes nothing.
        let resumes = |packet: &ToServer| matches!(packet, ToServer::Resume(_));
        let before = play.sent_to(3, resumes);
        play.from(3, 1, 3, refused(code));
        assert_eq!(play.sent_to(3, resumes), before, "nobody asks as fast as he is refused");
        play.resumed(1, 3);
        let Event::Connected { cursor, lost, .. } = play.events[0] else { panic!("{:?}", play.events) };
        assert_eq!((cursor, lost), (Op(10), Some(Op(1_000))));
        play.notify(10, 11);
        assert_eq!(play.delivered(), [11]);
    }
}

fn unanswered(seq: u64) -> Numbered {
    Numbered { seq: Seq(seq), nonce: seq, request: Request::Send { topic: None, content: content("hello") } }
}

#[test]
fn a_number_that_no_other_can_follow_is_assigned_anew_and_the_loss_before_it_is_reported() {
    for (lowest, lost) in [(4, None), (5, None), (6, Some((6, 5)))] {
        let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
        let mut play = Play::remembering(handshake_configs, None, vec![unanswered(lowest)]);
        play.machine.start.created_op = Some(BORN);
        play.accept();
        play.resumed(1, 3);
        let set_back = Event::ServersSetBack { answered: Seq(5), last: Seq(4) };
        assert_eq!(play.events.contains(&set_back), lost.is_some(), "{:?}", play.events);
        let moved = play.events.iter().find_map(|event| match event {
            Event::Renumbered(moved) => Some((moved[0].0.0, moved[0].1.0)),
            _ => None,
        });
        assert_eq!(moved, lost, "lowest {lowest} after 4 were applied: {:?}", play.events);
    }
}

#[test]
fn a_cursor_of_a_log_that_the_servers_have_no_more_is_set_back_though_their_log_has_grown_past_it() {
    let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
    let mut play = Play::remembering(handshake_configs, Some(Op(50)), Vec::new());
    (play.machine.start.created_op, play.machine.start.highest_seq) = (Some(BORN), Some(Seq(9)));
    play.accept();
    play.resumed(1, 3);
    assert!(play.events.is_empty(), "what comes from there is of another history: {:?}", play.events);
    assert_eq!(resumed_from(&play), [Some(Op(50)), None]);
    play.resumed(1, 3);
    let Event::Connected { cursor, lost, .. } = play.events[0] else { panic!("{:?}", play.events) };
    assert_eq!((cursor, lost), (Op(10), Some(Op(50))));
    assert!(play.events.contains(&Event::ServersSetBack { answered: Seq(9), last: Seq(4) }));
}

#[test]
fn a_cursor_that_the_servers_remember_is_kept_though_they_lost_requests() {
    let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
    let mut play = Play::remembering(handshake_configs, Some(Op(10)), Vec::new());
    (play.machine.start.created_op, play.machine.start.highest_seq) = (Some(BORN), Some(Seq(9)));
    play.accept();
    play.resumed(1, 3);
    let [Event::Connected { cursor, lost, .. }, set_back] = &play.events[..] else {
        panic!("{:?}", play.events)
    };
    assert_eq!((*cursor, *lost), (Op(10), None));
    assert_eq!(*set_back, Event::ServersSetBack { answered: Seq(9), last: Seq(4) });
}

#[test]
fn what_a_removed_device_left_unanswered_is_not_done_again_by_the_one_that_is_let_in_after_it() {
    for (born, last_seq) in
        [None, Some(BORN), Some(Op(BORN.0 - 1))].into_iter().flat_map(|b| [(b, 0), (b, 5)])
    {
        let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
        let mut play = Play::remembering(handshake_configs, None, vec![unanswered(6)]);
        play.machine.start.created_op = born;
        // The request was asked by this process, so no server can have applied it.
        play.input(say("new"));
        play.accept();
        let coordinator = coordinator(1, 3);
        let resumed = ResumeOk {
            created_op: BORN,
            last_seq: Seq(last_seq),
            coordinator,
            cursor: Position::of(Op(10)),
            keepalive_ms: 2_000,
            options: OptionalFields::NONE,
        };
        play.from(3, 1, 3, ToClient::ResumeOk(resumed));
        play.pass(1);
        let another = born.is_some_and(|born| born != BORN);
        let forgotten = Event::Answered { seq: Seq(6), result: Err(Code::NumberForgotten) };
        assert_eq!(play.events.contains(&forgotten), another, "{born:?} {last_seq}: {:?}", play.events);
        let set_back = play.events.iter().any(|event| matches!(event, Event::ServersSetBack { .. }));
        assert_eq!(set_back, born == Some(BORN) && last_seq == 0, "{born:?} {last_seq}: {:?}", play.events);
        let sent: BTreeSet<u64> = play.sends().into_iter().map(|(_, seq)| seq).collect();
        assert_eq!(sent.len(), if another { 1 } else { 2 }, "{born:?} {last_seq}: {sent:?}");
    }
}

#[test]
fn a_copy_of_the_devices_files_is_noticed_by_its_numbers_and_by_what_it_read() {
    for (given, cursor, signs) in [
        (4, Some(Op(10)), vec![]),
        (4, None, vec![]),
        (3, None, vec![CopySign::Numbers { given: Seq(3), last: Seq(4) }]),
        (5, Some(Op(9)), vec![CopySign::Cursor { here: Op(9), read: Op(10) }]),
    ] {
        let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
        let mut play = Play::remembering(handshake_configs, cursor, Vec::new());
        play.machine.start.highest_seq = Some(Seq(given));
        play.accept();
        play.resumed(1, 3);
        let told: Vec<CopySign> = play
            .events
            .iter()
            .filter_map(|event| if let Event::Copied(sign) = event { Some(*sign) } else { None })
            .collect();
        assert_eq!(told, signs);
    }
}

#[test]
fn a_cursor_at_the_op_of_the_session_open_is_no_sign_of_a_copy() {
    let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
    let mut play = Play::remembering(handshake_configs, Some(Op(BORN.0 - 1)), Vec::new());
    play.machine.start.created_op = Some(BORN);
    play.accept();
    let resumed = ResumeOk {
        created_op: BORN,
        last_seq: Seq(4),
        coordinator: coordinator(1, 3),
        cursor: Position::of(BORN),
        keepalive_ms: 2_000,
        options: OptionalFields::NONE,
    };
    play.from(3, 1, 3, ToClient::ResumeOk(resumed));
    assert!(matches!(play.events[..], [Event::Connected { .. }]), "{:?}", play.events);
}

#[test]
fn what_was_never_applied_is_sent_once_more_under_another_number_and_what_nobody_remembers_is_not() {
    let handshake_configs = (1..=3).map(|node| handshake_config(node, 1));
    let mut play = Play::remembering(handshake_configs, None, vec![unanswered(3), unanswered(4)]);
    play.accept();
    play.resumed(1, 3);
    assert_eq!(play.sends(), [(3, 3), (3, 4)]);
    play.input(say("new"));
    let refuse = |seq, code| ToClient::Error(Refused::new(code, Answers::Request(Seq(seq)), 0));
    play.sent.clear();
    play.from(3, 1, 3, refuse(3, Code::NumberForgotten));
    play.from(3, 1, 3, refuse(4, Code::NumberTaken));
    play.from(3, 1, 3, refuse(4, Code::NumberTaken));
    let unknown = Event::Answered { seq: Seq(3), result: Err(Code::NumberForgotten) };
    assert!(play.events.contains(&unknown));
    let moved = |event: &&Event| matches!(event, Event::Renumbered(_));
    assert_eq!(
        play.events.iter().filter(moved).collect::<Vec<_>>(),
        [&Event::Renumbered(vec![(Seq(4), Seq(5)), (Seq(5), Seq(6))])]
    );
    assert_eq!(play.sends(), [(3, 5), (3, 6)], "in the order they were asked, once");
    let nonces = |(_, packet): &(u16, ToServer)| match packet {
        ToServer::Send(send) => Some(send.nonce),
        _ => None,
    };
    assert_eq!(play.sent.iter().find_map(nonces), Some(4), "it is the same request");
}

#[test]
fn the_loss_of_the_only_answered_request_is_reported() {
    for (given, lost) in [(0, None), (1, Some(1)), (2, Some(2))] {
        let mut play = Play::new();
        (play.machine.start.created_op, play.machine.start.highest_seq) = (Some(BORN), Some(Seq(given)));
        play.accept();
        let coordinator = coordinator(1, 3);
        let resumed = ResumeOk {
            created_op: BORN,
            last_seq: Seq(0),
            coordinator,
            cursor: Position::of(Op(10)),
            keepalive_ms: 2_000,
            options: OptionalFields::NONE,
        };
        play.from(3, 1, 3, ToClient::ResumeOk(resumed));
        let reported = play.events.iter().find_map(|event| match event {
            Event::ServersSetBack { answered, .. } => Some(answered.0),
            _ => None,
        });
        assert_eq!(reported, lost, "{:?}", play.events);
    }
}

#[test]
fn without_files_requests_are_taken_once_the_servers_have_told_the_last_number() {
    let mut play = Play::new();
    play.machine.start.highest_seq = None;
    let not_taken = |play: &mut Play| {
        assert!(!play.machine.has_room());
        play.input(say("early"));
        assert_eq!(play.events.pop(), Some(Event::NotTaken));
    };
    not_taken(&mut play);
    play.accept();
    // The process before this one has crashed. Its sends are in the log and not applied, and the primary
    // says nothing before it has applied what fences them. Other servers know who the primary is, no more.
    play.pass(200);
    play.from(1, 1, 3, ToClient::Coordinator(coordinator(1, 3)));
    not_taken(&mut play);
    let busy = Refused::new(Code::Busy, Answers::Session, 100);
    play.from(3, 1, 3, ToClient::Error(busy));
    not_taken(&mut play);
    assert!(play.sends().is_empty());
    play.resumed(1, 3);
    assert!(matches!(play.events[..], [Event::Connected { last_seq: Seq(4), .. }]), "{:?}", play.events);
    play.input(say("first"));
    assert_eq!(play.sends(), [(3, 5)], "no number of the former process, and no hole after it");
}
