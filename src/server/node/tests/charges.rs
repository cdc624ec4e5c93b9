//! Budgets: what is refused beyond them, what is charged, and that nobody uses up those of another network.

use recado_proto::id::{Op, Seq, Topic};
use recado_proto::packet::ExtensionRequest;

use super::*;

over_each_log!(
    a_request_beyond_the_budget_gets_busy_and_retry_ms_and_takes_no_number,
    a_costly_query_takes_more_of_the_budget_than_a_ping,
    a_list_of_channels_is_paid_for_by_what_it_passed_over_and_a_short_one_is_not,
    a_retraction_is_paid_for_by_the_topics_that_were_searched,
    however_many_profiles_a_network_has_it_takes_no_more_of_the_writer_than_its_share,
    one_network_makes_so_many_channels_whatever_its_profiles_and_leaves_the_others_theirs,
    one_network_claims_so_many_names_an_hour_and_leaves_the_others_theirs,
);

fn a_request_beyond_the_budget_gets_busy_and_retry_ms_and_takes_no_number<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let session = rig.connect(1, "alice");
    let other = rig.connect(2, "bob");
    rig.delivered.clear();
    let rate = config().limits.session_requests;
    let ask = ToServer::Query(Query::new(QueryId(1), QueryKind::Info { profile: None }));
    for _ in 0..rate.burst + 100 {
        rig.client(session.0.0, ask.clone());
    }
    let busy = |input: &delivery::Input| match input {
        delivery::Input::Answer { packet: ToClient::Error(refused), .. } => refused.code == Code::Busy,
        _ => false,
    };
    assert_eq!(rig.delivered.iter().filter(|input| busy(input)).count(), 100);
    let before = rig.last();
    let topic = Topic::Feed("bob".parse().unwrap());
    let follow = Follow {
        seq: Seq(1),
        answered_below: Seq(1),
        topic,
        change: FollowChange::Add,
        nonce: 0,
        options: recado_proto::packet::OptionalFields::NONE,
    };
    rig.delivered.clear();
    rig.client(session.0.0, ToServer::Follow(follow.clone()));
    let [delivery::Input::Answer { packet: ToClient::Error(refused), .. }] = &rig.delivered[..] else {
        panic!("{:?}", rig.delivered)
    };
    assert_eq!((refused.code, refused.answers), (Code::Busy, Answers::Request(Seq(1))));
    assert!((1..=10).contains(&refused.retry_ms), "{refused:?}");
    assert_eq!(rig.last(), before);
    rig.delivered.clear();
    rig.client(other.0.0, ask);
    assert!(!rig.delivered.iter().any(busy), "nobody else is held up");
    rig.live(20);
    rig.client(session.0.0, ToServer::Follow(follow));
    assert!(rig.last() > before, "and after the wait it is taken");
}

fn a_costly_query_takes_more_of_the_budget_than_a_ping<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let session = rig.connect(1, "alice");
    let rate = config().limits.session_requests;
    let list =
        ToServer::Query(Query::new(QueryId(1), QueryKind::List(List { what: Listing::People, after: None })));
    let cost = crate::server::cost::list(&Listing::People, 0);
    assert!(cost > 10, "a page of 200 names");
    rig.delivered.clear();
    for _ in 0..rate.burst / cost + 50 {
        rig.client(session.0.0, list.clone());
    }
    let answered = rig
        .delivered
        .iter()
        .filter(|input| matches!(input, delivery::Input::Answer { packet: ToClient::Answer(_), .. }));
    assert_eq!(answered.count() as u32, rate.burst / cost);
}

/// Ten owners have fifty private channels each, and a session of another profile.
fn with_hidden_channels<S: Surroundings>() -> (Rig<S>, SessionId) {
    let mut rig = Rig::<S>::leading();
    let owners: Vec<SessionId> = (0..10).map(|n| rig.connect(n, &format!("owner{n}"))).collect();
    let asker = rig.connect(50, "asker");
    for session in owners.iter().chain([&asker]) {
        rig.input(Input::Path { session: *session, address: ([127, 0, 0, 1], 4_000).into() });
    }
    for seq in 1..=50 {
        for (n, session) in owners.iter().enumerate() {
            let channel = format!("hidden-{n}-{seq}").parse().unwrap();
            let change = ChannelChange::Create { private: true };
            let (seq, answered_below) = (Seq(seq), Seq(seq));
            let make = recado_proto::packet::Channel {
                seq,
                answered_below,
                channel,
                change,
                nonce: 1,
                options: recado_proto::packet::OptionalFields::NONE,
            };
            rig.client(session.0.0, ToServer::Channel(make));
        }
        rig.live(20);
    }
    (rig, asker)
}

fn a_list_of_channels_is_paid_for_by_what_it_passed_over_and_a_short_one_is_not<S: Surroundings>() {
    let (mut rig, asker) = with_hidden_channels::<S>();
    let answered = |rig: &mut Rig<S>, after: Option<&str>| {
        rig.live(5_000);
        rig.delivered.clear();
        let after = after.map(str::to_owned);
        let list =
            ToServer::Query(Query::new(QueryId(1), QueryKind::List(List { what: Listing::Channels, after })));
        (0..10_000).for_each(|_| rig.client(asker.0.0, list.clone()));
        let listed = |input: &&delivery::Input| {
            matches!(input, delivery::Input::Answer { packet: ToClient::Answer(_), .. })
        };
        rig.delivered.iter().filter(listed).count() as u32
    };
    let rate = config().limits.session_requests;
    let page = crate::server::cost::list(&Listing::Channels, 0);
    let passed_over = crate::server::cost::passed_over(500);
    assert!(passed_over > page / 2, "{passed_over}");
    // The last request is charged for its page before it runs, and for what it passes over afterwards, as
    // debt.
    assert_eq!(answered(&mut rig, None), (rate.burst - page) / (page + passed_over) + 1);
    assert_eq!(answered(&mut rig, Some("zz")), rate.burst / page);
}

fn a_retraction_is_paid_for_by_the_topics_that_were_searched<S: Surroundings>() {
    let (mut rig, asker) = with_hidden_channels::<S>();
    let info = ToServer::Query(Query::new(QueryId(1), QueryKind::Info { profile: None }));
    let rate = config().limits.session_requests;
    let mut answered_after = |retracted: Option<ToServer>| {
        rig.live(5_000);
        rig.delivered.clear();
        retracted.into_iter().for_each(|packet| rig.client(asker.0.0, packet));
        (0..rate.burst + 100).for_each(|_| rig.client(asker.0.0, info.clone()));
        let answered = |input: &&delivery::Input| {
            matches!(input, delivery::Input::Answer { packet: ToClient::Answer(_), .. })
        };
        rig.delivered.iter().filter(answered).count() as u32
    };
    let request = ExtensionRequest::Retract { op: Op(1) };
    let retract = ToServer::Extension(Extension::of_request(Seq(1), 7, &request));
    let searched = crate::server::cost::searched(500);
    assert!(searched > crate::server::cost::LEAST, "{searched}");
    assert_eq!(answered_after(None), rate.burst);
    assert_eq!(answered_after(Some(retract)), rate.burst - crate::server::cost::LEAST - searched);
}

fn however_many_profiles_a_network_has_it_takes_no_more_of_the_writer_than_its_share<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let crowd: Vec<SessionId> = (0..12).map(|n| rig.connect(n, &format!("crowd{n}"))).collect();
    let (other, unseen) = (rig.connect(50, "other"), rig.connect(51, "unseen"));
    let at = |network: u8| ([10, 0, network, 1], 4_000).into();
    for session in &crowd {
        rig.input(Input::Path { session: *session, address: at(1) });
    }
    rig.input(Input::Path { session: other, address: at(2) });
    let rate = config().limits.network_requests;
    let list =
        ToServer::Query(Query::new(QueryId(1), QueryKind::List(List { what: Listing::People, after: None })));
    let cost = crate::server::cost::list(&Listing::People, 0);
    let answered = |rig: &mut Rig<S>| {
        let listed = |input: &delivery::Input| {
            matches!(input, delivery::Input::Answer { packet: ToClient::Answer(_), .. })
        };
        std::mem::take(&mut rig.delivered).iter().filter(|input| listed(input)).count() as u32
    };
    rig.delivered.clear();
    let each = 60_000 / cost;
    for session in &crowd {
        (0..each).for_each(|_| rig.client(session.0.0, list.clone()));
    }
    assert_eq!(answered(&mut rig), rate.burst / cost, "12 profiles, each within its own budget");
    // A page is charged, and comes when there is budget again.
    let pages = |rig: &mut Rig<S>| {
        let page = |input: &delivery::Input| matches!(input, delivery::Input::Page { .. });
        std::mem::take(&mut rig.delivered).iter().filter(|input| page(input)).count()
    };
    let want = |session| Input::WantPage { session, after: Op::ZERO, limit: 256 };
    (0..cost).for_each(|_| rig.input(want(crowd[0])));
    let later = |input: &delivery::Input| matches!(input, delivery::Input::PageLater { wait, .. } if !wait.is_zero() && *wait < Duration::from_secs(1));
    assert!(rig.delivered.iter().any(later), "the others are told when");
    assert!(pages(&mut rig) < 2, "what the lists have left is less than two pages");
    rig.input(want(other));
    assert_eq!(pages(&mut rig), 1, "another network has its own");
    for session in [other, unseen] {
        rig.client(session.0.0, list.clone());
        assert_eq!(answered(&mut rig), 1);
    }
    rig.live(100);
    rig.delivered.clear();
    rig.input(want(crowd[0]));
    assert_eq!(pages(&mut rig), 1);
}

fn one_network_makes_so_many_channels_whatever_its_profiles_and_leaves_the_others_theirs<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let rate = config().limits.network_channels;
    let at_once = u64::from(rate.burst / Limits::NAME_COST);
    let profiles: Vec<SessionId> = (0..4).map(|n| rig.connect(n, &format!("maker{n}"))).collect();
    let other = rig.connect(50, "other");
    for session in &profiles {
        rig.input(Input::Path { session: *session, address: ([10, 0, 1, 1], 4_000).into() });
    }
    rig.input(Input::Path { session: other, address: ([10, 0, 2, 1], 4_000).into() });
    let make = |rig: &mut Rig<S>, session: SessionId, n: u64| {
        let topic = Some(Topic::Channel(format!("channel-{}-{n}", session.0.0).parse().unwrap()));
        let content = Content::of("text");
        let send = Send {
            seq: Seq(n),
            answered_below: Seq(n),
            topic,
            content,
            nonce: n,
            options: recado_proto::packet::OptionalFields::NONE,
        };
        rig.client(session.0.0, ToServer::Send(send));
    };
    for n in 1..=40 {
        profiles.iter().for_each(|session| make(&mut rig, *session, n));
        rig.live(20);
    }
    rig.live(200);
    let made = |rig: &Rig<S>| {
        let acked = |input: &&delivery::Input| {
            matches!(input, delivery::Input::Answer { packet: ToClient::SendAck(_), .. })
        };
        rig.delivered.iter().filter(acked).count() as u64
    };
    assert_eq!(made(&rig), at_once, "of 160 that were asked for");
    let refused = |input: &&delivery::Input| {
        matches!(input, delivery::Input::Answer { packet: ToClient::Error(refused), .. }
            if refused.code == Code::TooManyNames)
    };
    assert_eq!(rig.delivered.iter().filter(refused).count() as u64, 160 - at_once);
    make(&mut rig, other, 1);
    rig.live(200);
    assert_eq!(made(&rig), at_once + 1);
}

/// The answer to a client in this network that claims a name.
fn claim<S: Surroundings>(rig: &mut Rig<S>, network: u8, key: u8, profile: &str) -> Option<ToClient> {
    rig.delivered.clear();
    let mut reply_to = reply_to();
    reply_to.to = ([10, 0, network, 1], 4_000).into();
    let connect = Connect {
        device: DeviceId { key: DeviceKey([key; 32]), slot: 0 },
        profile: profile.parse().unwrap(),
        receives: true,
        nonce: u64::from(key),
        fresh: true,
        code: None,
        invite: None,
        aeads: 0,
        options: recado_proto::packet::OptionalFields::NONE,
    };
    rig.input(Input::Initiation { reply_to, key: connect.device.key, packet: ToServer::Connect(connect) });
    rig.live(100);
    rig.delivered.iter().find_map(|input| match input {
        delivery::Input::AnswerTo { packets, .. } => packets.first().cloned(),
        _ => None,
    })
}

fn one_network_claims_so_many_names_an_hour_and_leaves_the_others_theirs<S: Surroundings>() {
    let mut rig = Rig::<S>::leading();
    let is_in = |told: Option<ToClient>| matches!(told, Some(ToClient::AcceptConn(_)));
    let rate = config().limits.network_names;
    let at_once = (rate.burst / Limits::NAME_COST) as u8;
    for n in 0..at_once {
        assert!(is_in(claim(&mut rig, 1, n, &format!("name{n}"))), "{n}");
    }
    match claim(&mut rig, 1, at_once, "one-more") {
        Some(ToClient::RejectConn(reject)) => {
            assert_eq!(reject.code, Code::TooManyNames);
            assert!(reject.retry_ms > 60_000, "{reject:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(rig.node.service.is_unclaimed(&"one-more".parse().unwrap()), "nothing was logged");
    assert!(is_in(claim(&mut rig, 1, 0, "name0")), "who has a name comes in");
    assert!(is_in(claim(&mut rig, 2, 100, "one-more")), "and so does another network");
    for n in 101..200 {
        rig.initiation(n, u64::from(n), &format!("local{n}"));
    }
}
