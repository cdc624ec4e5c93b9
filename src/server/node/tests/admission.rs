//! Sessions that are opened, confirmed, resumed and closed, and requests that wait for their turn.

use recado_proto::id::{Seq, Topic};

use super::*;
use crate::server::node::admission::keepalive_ms;

over_each_log!(
    a_session_is_opened_only_for_the_proved_key_and_its_secret_sent_to_that_sender,
    a_cursor_beyond_the_end_of_the_log_gets_an_error_and_is_not_served,
    a_keepalive_to_the_primary_is_answered_with_the_interval_of_the_next_ones,
    an_initiation_with_a_packet_of_a_session_has_no_effect,
    a_connect_replayed_by_somebody_else_ends_nothing_and_is_not_served,
    the_first_resume_confirms_a_session_once_and_fences_the_older,
    a_session_is_told_the_last_number_once_nothing_of_the_older_one_can_follow,
    a_flood_of_confirmations_from_one_network_leaves_room_for_others_and_is_itself_answered_in_the_end,
    requests_buffered_for_one_network_leave_room_for_those_of_others,
    a_repeated_disconnect_is_logged_once,
    requests_buffered_for_numbers_that_never_come_are_bounded_over_all_sessions,
);

fn a_session_is_opened_only_for_the_proved_key_and_its_secret_sent_to_that_sender<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let device = DeviceId { key: DeviceKey([1; 32]), slot: 0 };
    let profile = "alice".parse().unwrap();
    let packet = ToServer::Connect(Connect {
        device,
        profile,
        receives: true,
        nonce: 5,
        fresh: true,
        code: None,
        invite: None,
        aeads: 0,
        options: recado_proto::packet::OptionalFields::NONE,
    });
    let before = rig.last();
    let stranger = DeviceKey([2; 32]);
    rig.input(Input::Initiation { reply_to: reply_to(), key: stranger, packet: packet.clone() });
    assert_eq!(rig.last(), before);
    rig.delivered.clear();
    rig.input(Input::Initiation { reply_to: reply_to(), key: device.key, packet });
    rig.live(100);
    let [delivery::Input::AnswerTo { reply_to: to, packets }] = &rig.delivered[..] else {
        panic!("{:?}", rig.delivered)
    };
    let [ToClient::AcceptConn(accept)] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!(
        (to, &accept.secret),
        (
            &reply_to(),
            handshake_config(1, 1)
                .keys
                .session_secret(accept.session, device.key, 5, Default::default())
                .key()
        )
    );
}

fn a_cursor_beyond_the_end_of_the_log_gets_an_error_and_is_not_served<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let session = rig.connect(1, "alice");
    let end = rig.node.service.applied();
    let resume = |cursor: Op| {
        ToServer::Resume(Resume {
            cursor: Some(Position::of(cursor)),
            credit: 256,
            home: Home::PRIMARY,
            options: recado_proto::packet::OptionalFields::NONE,
        })
    };
    rig.delivered.clear();
    rig.client(session.0.0, resume(end.next()));
    let refused = Refused::new(Code::BeyondEnd, Answers::Session, 0);
    assert!(
        matches!(&rig.delivered[..], [delivery::Input::Answer { packet: ToClient::Error(told), .. }] if *told == refused),
        "{:?}",
        rig.delivered
    );
    assert_eq!(rig.beyond, [(session, end.next(), end)]);
    rig.delivered.clear();
    rig.client(session.0.0, resume(end));
    assert!(rig.resumed(session), "{:?}", rig.delivered);
}

fn a_keepalive_to_the_primary_is_answered_with_the_interval_of_the_next_ones<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let session = rig.connect(1, "alice");
    rig.delivered.clear();
    rig.client(session.0.0, ToServer::keepalive());
    let told = rig.delivered.iter().find_map(|input| match input {
        delivery::Input::Answer { packet: ToClient::Coordinator(coordinator), .. } => {
            coordinator.keepalive_ms()
        }
        _ => None,
    });
    assert_eq!(told, Some(2_000));
    let intervals = [0, 8_000, 8_004, 40_000, 100_000, 1_000_000, usize::MAX].map(keepalive_ms);
    assert_eq!(intervals, [2_000, 2_000, 2_001, 10_000, 25_000, 25_000, 25_000]);
}

fn an_initiation_with_a_packet_of_a_session_has_no_effect<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let session = rig.connect(1, "alice");
    let before = rig.last();
    rig.delivered.clear();
    for packet in
        [RESUME, ToServer::keepalive(), ToServer::Disconnect(Disconnect { upto: Position::of(Op::ZERO) })]
    {
        rig.client(0, packet);
    }
    assert!(rig.delivered.is_empty(), "{:?}", rig.delivered);
    assert_eq!(rig.last(), before);
    rig.client(0, ToServer::Query(Query::new(QueryId(1), QueryKind::Status)));
    assert!(matches!(&rig.delivered[..], [delivery::Input::AnswerTo { .. }]), "{:?}", rig.delivered);
    assert_eq!(rig.known.iter().copied().collect::<Vec<_>>(), [session]);
}

fn a_connect_replayed_by_somebody_else_ends_nothing_and_is_not_served<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let live = rig.connect(1, "alice");
    let other = rig.initiation(1, 77, "alice");
    assert_ne!(live, other);
    for packet in [
        ToServer::Query(Query::new(QueryId(1), QueryKind::Info { profile: None })),
        ToServer::Disconnect(Disconnect { upto: Position::of(Op::ZERO) }),
        ToServer::Follow(Follow {
            seq: Seq(1),
            answered_below: Seq(1),
            topic: Topic::Feed("bob".parse().unwrap()),
            change: FollowChange::Add,
            nonce: 0,
            options: recado_proto::packet::OptionalFields::NONE,
        }),
    ] {
        rig.delivered.clear();
        rig.client(other.0.0, packet);
        rig.live(100);
        assert!(rig.delivered.is_empty(), "{:?}", rig.delivered);
    }
    rig.client(live.0.0, ToServer::Query(Query::new(QueryId(1), QueryKind::Info { profile: None })));
    let [delivery::Input::Answer { packet: ToClient::Answer(answer), .. }] = &rig.delivered[..] else {
        panic!("{:?}", rig.delivered)
    };
    let AnswerKind::Info(info) = &answer.kind else { panic!("{answer:?}") };
    assert_eq!(info.sessions, 1, "the live one");
    assert_eq!(rig.known.iter().copied().collect::<Vec<_>>(), [live, other]);
}

fn the_first_resume_confirms_a_session_once_and_fences_the_older<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let old = rig.connect(1, "alice");
    let new = rig.initiation(1, 77, "alice");
    let before = rig.last();
    for _ in 0..100 {
        rig.client(new.0.0, RESUME);
    }
    assert_eq!(rig.last().0 - before.0, 1, "logged once, and silence until the commit");
    assert!(!rig.resumed(new));
    rig.live(100);
    assert!(rig.resumed(new));
    let over = |input: &delivery::Input| matches!(input, delivery::Input::SessionEnded { session, .. } if *session == old);
    assert!(rig.delivered.iter().any(over), "{:?}", rig.delivered);
    assert_eq!(rig.known.iter().copied().collect::<Vec<_>>(), [new]);
}

fn a_session_is_told_the_last_number_once_nothing_of_the_older_one_can_follow<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let old = rig.connect(1, "alice");
    let new = rig.initiation(1, 77, "alice");
    let send = |rig: &mut Rig<S>, seq| {
        let content = Content::of("of a process that crashes");
        let (seq, answered_below, options) = (Seq(seq), Seq(1), OptionalFields::NONE);
        rig.client(
            old.0.0,
            ToServer::Send(Send { seq, answered_below, topic: None, content, nonce: 1, options }),
        );
    };
    let told = |rig: &Rig<S>| {
        let mut told = rig.delivered.iter().filter_map(|input| match input {
            delivery::Input::Answer { session, packet: ToClient::ResumeOk(resumed) } if *session == new => {
                Some(resumed.last_seq)
            }
            _ => None,
        });
        told.next_back()
    };
    // In the log and not applied, when the next process of the device resumes.
    (1..=3).for_each(|seq| send(&mut rig, seq));
    rig.client(new.0.0, RESUME);
    assert_eq!(told(&rig), None, "not from a state without them");
    // In the log behind the confirmation.
    send(&mut rig, 4);
    rig.live(100);
    assert_eq!(told(&rig), Some(Seq(3)));
    send(&mut rig, 4);
    rig.client(new.0.0, RESUME);
    rig.live(100);
    assert_eq!(told(&rig), Some(Seq(3)), "the older session is fenced");
}

#[test]
fn a_server_that_does_not_lead_may_be_behind_and_tells_a_session_only_who_leads() {
    let (mut rig, session) = (Peers::rig(), SessionId(Op(7)));
    rig.client(session.0.0, RESUME);
    rig.live(100);
    let is_told = |input: &delivery::Input| {
        matches!(input, delivery::Input::Answer { packet: ToClient::Coordinator(_), .. })
    };
    assert!(!rig.resumed(session));
    assert!(rig.delivered.iter().any(is_told), "{:?}", rig.delivered);
}

/// Opens pending sessions, of sixteen devices per profile, whose clients have proved to be in this network.
fn pending_in<S: Surroundings>(rig: &mut Rig<S>, network: u8, profiles: u8) -> Vec<SessionId> {
    rig.delivered.clear();
    for profile in 0..profiles {
        for slot in 0..16 {
            let mut key = [profile; 32];
            key[0] = network;
            let connect = Connect {
                device: DeviceId { key: DeviceKey(key), slot },
                profile: format!("profile-{network}-{profile}").parse().unwrap(),
                receives: true,
                nonce: 1,
                fresh: true,
                code: None,
                invite: None,
                aeads: 0,
                options: recado_proto::packet::OptionalFields::NONE,
            };
            rig.client(0, ToServer::Connect(connect));
        }
        rig.live(20);
    }
    rig.live(100);
    let mut sessions = Vec::new();
    for input in &rig.delivered {
        if let delivery::Input::AnswerTo { packets, .. } = input
            && let [ToClient::AcceptConn(accept)] = &packets[..]
        {
            sessions.push(accept.session);
        }
    }
    assert_eq!(sessions.len(), 16 * usize::from(profiles));
    for session in &sessions {
        rig.input(Input::Path { session: *session, address: ([10, 0, network, 1], 4_000).into() });
    }
    sessions
}

fn a_flood_of_confirmations_from_one_network_leaves_room_for_others_and_is_itself_answered_in_the_end<
    S: Surroundings,
>() {
    let mut rig = Rig::<S>::leading();
    let (many, few) = (pending_in(&mut rig, 1, 70), pending_in(&mut rig, 2, 1));
    let mut unseen = vec![rig.initiation(250, 1, "unseen")];
    let own = pending_in(&mut rig, 3, 2);
    for session in &own {
        // The client is on the server's machine, so its profile is the holder.
        rig.input(Input::Path { session: *session, address: ([127, 0, 0, 1], 4_000).into() });
    }
    unseen.extend(own);
    rig.delivered.clear();
    let busy = |rig: &Rig<S>| {
        let busy = |input: &&delivery::Input| {
            matches!(input, delivery::Input::Answer { packet: ToClient::Error(refused), .. }
                if refused.code == Code::Busy)
        };
        rig.delivered.iter().filter(busy).count()
    };
    for session in &many {
        rig.client(session.0.0, RESUME);
    }
    assert_eq!((rig.node.under_way.confirming(), busy(&rig)), (1_024, many.len() - 1_024));
    for session in few.iter().chain(&unseen) {
        rig.client(session.0.0, RESUME);
    }
    assert_eq!((rig.node.under_way.confirming(), busy(&rig)), (1_024, many.len() - 1_024));
    rig.live(200);
    let answered =
        |rig: &Rig<S>, of: &[SessionId]| of.iter().filter(|session| rig.resumed(**session)).count();
    assert_eq!(answered(&rig, &few), few.len());
    assert_eq!(answered(&rig, &unseen), unseen.len());
    assert_eq!(answered(&rig, &many), 1_024 - few.len() - unseen.len());
    assert_eq!(rig.node.under_way.confirming(), 0);
    // Clients whose place was given away ask again, as do those that were answered Busy.
    for session in &many {
        rig.client(session.0.0, RESUME);
    }
    rig.live(200);
    assert_eq!(answered(&rig, &many), many.len());
}

fn requests_buffered_for_one_network_leave_room_for_those_of_others<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let (many, few) = (pending_in(&mut rig, 1, 5), pending_in(&mut rig, 2, 1)[0]);
    for session in many.iter().chain([&few]) {
        rig.client(session.0.0, RESUME);
    }
    rig.live(200);
    let send = |seq: u64| {
        let body = "x".to_owned();
        let content = Content::of(body);
        ToServer::Send(Send {
            seq: Seq(seq),
            answered_below: Seq(1),
            topic: None,
            content,
            nonce: seq,
            options: recado_proto::packet::OptionalFields::NONE,
        })
    };
    for session in &many {
        (2..2 + 64).for_each(|seq| rig.client(session.0.0, send(seq)));
    }
    assert_eq!(rig.node.under_way.buffered(), 4_096, "of 5,120");
    (2..=30).rev().for_each(|seq| rig.client(few.0.0, send(seq)));
    assert_eq!(rig.node.under_way.buffered(), 4_096);
    rig.delivered.clear();
    rig.client(few.0.0, send(1));
    assert_eq!(rig.node.under_way.buffered(), 4_096 - 29, "the first brings all the others with it");
    rig.live(200);
    let acked = rig.delivered.iter().filter(|input| {
        matches!(input, delivery::Input::Answer { session, packet: ToClient::SendAck(_) } if *session == few)
    });
    assert_eq!(acked.count(), 30);
}

fn a_repeated_disconnect_is_logged_once<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let session = rig.connect(1, "alice");
    let before = rig.last();
    for _ in 0..1_000 {
        rig.client(session.0.0, ToServer::Disconnect(Disconnect { upto: Position::of(Op(u64::MAX)) }));
    }
    assert_eq!(rig.last().0 - before.0, 2, "a cursor and the end");
}

fn requests_buffered_for_numbers_that_never_come_are_bounded_over_all_sessions<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let sessions: Vec<SessionId> = (0..80_u8).map(|n| rig.connect(n, &format!("profile-{n}"))).collect();
    let content = Content::of("x");
    for session in &sessions {
        for seq in 3..80 {
            let send = Send {
                seq: Seq(seq),
                answered_below: Seq(0),
                topic: None,
                content: content.clone(),
                nonce: 0,
                options: recado_proto::packet::OptionalFields::NONE,
            };
            rig.client(session.0.0, ToServer::Send(send));
        }
    }
    assert_eq!(rig.node.under_way.buffered(), 4_096);
    for session in &sessions {
        rig.client(session.0.0, ToServer::Disconnect(Disconnect { upto: Position::of(Op::ZERO) }));
    }
    rig.live(200);
    assert_eq!(rig.node.under_way.buffered(), 0, "what is over holds nothing");
}
