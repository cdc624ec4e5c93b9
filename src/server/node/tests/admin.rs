//! An administrator's changes: each is made once, answered each time, and only for the right key.

use super::*;

over_each_log!(
    a_repeated_release_is_applied_once_and_answered_each_time,
    an_administrators_change_before_a_change_of_primary_is_answered_and_not_logged_again,
    an_administrators_change_beyond_the_queue_gets_busy_and_retry_ms,
    a_release_under_another_key_has_no_effect,
);

fn a_repeated_release_is_applied_once_and_answered_each_time<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let session = rig.connect(1, "alice");
    let key = DeviceKey(noise::public(&handshake_config(ME.0, 1).keys.admin_private()));
    let ask = |rig: &mut Rig<S>, query, name: &str| {
        rig.delivered.clear();
        let change = AdminChange::Release { name: name.parse().unwrap() };
        let admin = Admin { query: QueryId(query), change };
        rig.input(Input::Initiation { reply_to: reply_to(), key, packet: ToServer::Admin(admin) });
    };
    let answers = |rig: &Rig<S>| -> Vec<ToClient> {
        let to_admin = |input: &delivery::Input| match input {
            delivery::Input::AnswerTo { packets, .. } => packets.clone(),
            _ => Vec::new(),
        };
        rig.delivered
            .iter()
            .flat_map(to_admin)
            .filter(|packet| !matches!(packet, ToClient::AcceptConn(_)))
            .collect()
    };
    ask(&mut rig, 1, "alice");
    ask(&mut rig, 1, "alice");
    assert_eq!(answers(&rig), [], "not before the commit");
    rig.live(100);
    let [ToClient::AdminOk(AdminOk { query: QueryId(1), op, .. })] = answers(&rig)[..] else {
        panic!("{:?}", rig.delivered)
    };
    let change = AdminChange::Release { name: "alice".parse().unwrap() };
    assert_eq!(rig.administered, [(change, op)]);
    assert!(rig.node.service.session(session).is_none());
    let claimed = rig.connect(2, "alice");
    ask(&mut rig, 1, "alice");
    assert_eq!(answers(&rig), [ToClient::AdminOk(AdminOk::new(QueryId(1), op))]);
    rig.live(100);
    assert!(rig.node.service.session(claimed).is_some(), "who has it now keeps it");
    ask(&mut rig, 2, "nobody");
    rig.live(100);
    let code = Code::UnknownProfile;
    let refused = Refused::new(code, Answers::Query(QueryId(2)), 0);
    assert_eq!(answers(&rig), [ToClient::Error(refused)]);
}

fn an_administrators_change_before_a_change_of_primary_is_answered_and_not_logged_again<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    rig.connect(1, "alice");
    let key = DeviceKey(noise::public(&handshake_config(ME.0, 1).keys.admin_private()));
    let change = AdminChange::RemoveProfile { name: "alice".parse().unwrap() };
    let admin = |query| ToServer::Admin(Admin { query: QueryId(query), change: change.clone() });
    let ask = |rig: &mut Rig<S>, query| {
        rig.delivered.clear();
        rig.input(Input::Initiation { reply_to: reply_to(), key, packet: admin(query) });
    };
    let is_done = |rig: &Rig<S>, query, op| {
        let ok = ToClient::AdminOk(AdminOk::new(QueryId(query), op));
        rig.delivered.iter().any(
            |input| matches!(input, delivery::Input::AnswerTo { packets, .. } if packets[..] == [ok.clone()]),
        )
    };
    ask(&mut rig, 1);
    rig.live(100);
    let (_, op) = rig.administered[0].clone();
    assert!(is_done(&rig, 1, op));
    let claimed = rig.connect(2, "alice");
    // State beside the log is discarded with the role.
    rig.node.on_deposed();
    rig.node.is_primary = true;
    let logged = rig.last();
    ask(&mut rig, 1);
    assert!(is_done(&rig, 1, op) && rig.last() == logged);
    assert!(rig.node.service.session(claimed).is_some());

    // The change was logged by a primary that then failed; its successor is asked for it before it is
    // committed.
    rig.node.propose(rig.clock, Command::Administer(Admin { query: QueryId(2), change: change.clone() }));
    ask(&mut rig, 2);
    assert_eq!(rig.last().0 - logged.0, 2);
    rig.live(100);
    assert!(is_done(&rig, 2, logged.next()) && rig.administered.len() == 2, "{:?}", rig.administered);
}

fn an_administrators_change_beyond_the_queue_gets_busy_and_retry_ms<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    rig.delivered.clear();
    let key = DeviceKey(noise::public(&handshake_config(ME.0, 1).keys.admin_private()));
    for query in 0..65 {
        let change = AdminChange::Allow { key: DeviceKey([query as u8; 32]) };
        let packet = ToServer::Admin(Admin { query: QueryId(query), change });
        rig.input(Input::Initiation { reply_to: reply_to(), key, packet });
    }
    let answers: Vec<_> = rig
        .delivered
        .iter()
        .filter_map(|input| match input {
            delivery::Input::AnswerTo { packets, .. } => Some(packets),
            _ => None,
        })
        .collect();
    let [packets] = &answers[..] else { panic!("{answers:?}") };
    let [ToClient::Error(refused)] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!((refused.code, refused.answers), (Code::Busy, Answers::Query(QueryId(64))));
    assert!(refused.retry_ms > 0, "it passes");
}

fn a_release_under_another_key_has_no_effect<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let session = rig.connect(1, "alice");
    rig.delivered.clear();
    let change = AdminChange::Release { name: "alice".parse().unwrap() };
    let packet = ToServer::Admin(Admin { query: QueryId(1), change });
    rig.input(Input::Initiation { reply_to: reply_to(), key: DeviceKey([1; 32]), packet: packet.clone() });
    rig.client(session.0.0, packet);
    rig.live(100);
    assert!(rig.administered.is_empty() && rig.node.service.session(session).is_some());
}
