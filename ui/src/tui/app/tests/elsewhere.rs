//! What is done elsewhere: in another screen of the profile, or in a shell.

use recado_client::ListItem;

use super::*;

fn feed() -> Conversation {
    place("@alice")
}

fn newest(place: Conversation) -> Effect {
    Effect::History(place, HistoryRange::Before(Op(u64::MAX)))
}

fn lists_follows(effects: &[Effect]) -> bool {
    effects.contains(&Effect::List(Listing::Following))
}

fn mine(op: u64, body: &str) -> recado_client::Notification {
    notification(op, &topic("@alice"), "alice", body)
}

fn failed(app: &mut App, place: Conversation, why: &str) {
    let range = HistoryRange::Before(Op(u64::MAX));
    link(app, 1, Link::Past(place, range, Err(why.to_owned())));
}

#[test]
fn what_was_sent_from_elsewhere_is_there_when_its_place_is_opened_or_returned_to() {
    let mut app = connected();
    let inbox = Conversation::Topic(Topic::Inbox(name("alice")));
    past(&mut app, Conversation::All, vec![], false);
    past(&mut app, inbox.clone(), vec![], false);
    past(&mut app, feed(), vec![], false);
    app.update(at(10), Event::Tick);
    // Nothing is claimed before the servers have said so now.
    let effects = enter(&mut app, "/go @alice");
    assert!(effects.contains(&newest(feed())), "{effects:?}");
    assert!(shows(&mut app, "Fetching what there is"), "{}", text(&mut app, 100, 30));
    assert_eq!(enter(&mut app, "/go @alice"), [], "it is on its way");
    past(&mut app, feed(), vec![mine(50, "from the shell")], false);
    assert!(shows(&mut app, "from the shell"));
    app.go(Conversation::All);
    assert!(shows(&mut app, "from the shell"), "{}", text(&mut app, 100, 30));
    app.update(at(20), Event::Focus(false));
    let effects = app.update(at(20), Event::Focus(true));
    assert!(effects.contains(&newest(feed())) && effects.contains(&newest(inbox.clone())), "{effects:?}");
    assert!(!app.update(at(21), Event::Focus(true)).contains(&newest(feed())), "it is on its way");
    past(&mut app, feed(), vec![mine(50, "from the shell"), mine(51, "and another")], false);
    past(&mut app, inbox, vec![notification(52, &Topic::Inbox(name("bob")), "alice", "a word")], false);
    let screen = text(&mut app, 100, 30);
    assert!(screen.contains("and another") && screen.contains("a word"), "{screen}");
    assert_eq!(screen.matches("from the shell").count(), 1, "{screen}");
}

#[test]
fn what_others_sent_to_a_channel_that_is_not_followed_is_there_with_ones_own_text() {
    let mut app = connected();
    app.channels.push(crate::tui::conversation::Channel {
        name: "zoo".parse().unwrap(),
        followers: 1,
        access: recado_client::Access::Open,
    });
    app.go(place("#zoo"));
    let of = |op, author: &str, body: &str| notification(op, &topic("#zoo"), author, body);
    past(&mut app, place("#zoo"), vec![of(5, "bob", "the lions")], true);
    enter(&mut app, "and the tigers");
    let effects = link(&mut app, 1, Link::Settled(RequestId::Here(1), Ok(Op(50))));
    assert!(effects.contains(&newest(place("#zoo"))), "{effects:?}");
    assert!(shows(&mut app, "and the tigers"));
    let page =
        vec![of(5, "bob", "the lions"), of(7, "carol", "the bears"), of(50, "alice", "and the tigers")];
    past(&mut app, place("#zoo"), page, true);
    let ops = |app: &App| app.log(&place("#zoo")).unwrap().iter().map(|one| one.op.0).collect::<Vec<_>>();
    assert_eq!(ops(&app), [5, 7, 50]);
    // Two that are on their way, and more in between than a page has.
    enter(&mut app, "one");
    enter(&mut app, "two");
    link(&mut app, 1, Link::Settled(RequestId::Here(2), Ok(Op(900))));
    link(&mut app, 1, Link::Settled(RequestId::Here(3), Ok(Op(902))));
    past(&mut app, place("#zoo"), vec![of(899, "carol", "x"), of(900, "alice", "one")], true);
    let page = vec![of(900, "alice", "one"), of(901, "carol", "y"), of(902, "alice", "two")];
    past(&mut app, place("#zoo"), page, true);
    assert_eq!(ops(&app).last(), Some(&902));
    assert!(ops(&app).contains(&901) && !ops(&app).contains(&50), "no hole is hidden: {:?}", ops(&app));
    // A channel that is followed needs no request.
    app.go(place("#ops"));
    past(&mut app, place("#ops"), vec![], false);
    enter(&mut app, "here");
    let effects = link(&mut app, 1, Link::Settled(RequestId::Here(4), Ok(Op(950))));
    assert!(!effects.contains(&newest(place("#ops"))), "{effects:?}");
}

#[test]
fn that_nothing_was_sent_is_told_with_its_time() {
    let mut app = connected();
    app.go(feed());
    app.update(at(180), Event::Tick);
    past(&mut app, feed(), vec![], false);
    assert!(shows(&mut app, "Nothing had been sent here at 12:0"), "{}", text(&mut app, 100, 30));
    app.go(Conversation::All);
    app.update(at(190), Event::Tick);
    enter(&mut app, "/go @alice");
    failed(&mut app, feed(), "no answer in time");
    assert!(shows(&mut app, "could not be read: no answer in time"), "{}", text(&mut app, 100, 30));
}

#[test]
fn what_is_followed_elsewhere_becomes_a_place() {
    let mut app = connected();
    text(&mut app, 100, 30);
    app.update(at(5), Event::Tick);
    // With what comes of it,
    let effects = came(&mut app, 5, notification(50, &topic("#zoo"), "bob", "roar"));
    assert!(app.places.follows(&topic("#zoo")) && lists_follows(&effects));
    assert!(!lists_follows(&came(&mut app, 5, notification(51, &topic("#new"), "bob", "x"))), "once");
    // when the window gets the focus,
    app.update(at(20), Event::Focus(false));
    assert!(lists_follows(&app.update(at(20), Event::Focus(true))));
    assert!(!lists_follows(&app.update(at(21), Event::Focus(true))));
    // after a while if somebody looks, and with /connect.
    assert!(!lists_follows(&app.update(at(60), Event::Tick)));
    app.update(at(79), Event::Focus(true));
    let effects: Vec<Effect> = (80..200).flat_map(|second| app.update(at(second), Event::Tick)).collect();
    let asked = effects.iter().filter(|effect| **effect == Effect::List(Listing::Following)).count();
    assert_eq!(asked, 0, "it was asked at 79, and then nobody looked");
    assert!(lists_follows(&enter(&mut app, "/connect")));
    let following = |topics: &[&str]| {
        let item = |name: &&str| ListItem::Following { topic: topic(name), since: Op(1) };
        Link::List(Listing::Following, Ok(topics.iter().map(item).collect()))
    };
    link(&mut app, 201, following(&["@bob", "#far"]));
    let places: Vec<Conversation> = app.rows().into_iter().map(|(_, place)| place).collect();
    assert!(places.contains(&place("#far")) && !places.contains(&place("#zoo")), "{places:?}");
}

#[test]
fn a_place_that_there_is_not_is_told_and_not_shown() {
    for command in ["/go #nochan", "/history #nochan", "/go @nobody"] {
        let mut app = connected();
        let there = place(command.split(' ').nth(1).unwrap());
        assert_eq!(enter(&mut app, command), [newest(there.clone())]);
        assert_eq!(app.here, Conversation::All, "{command}");
        failed(&mut app, there.clone(), "there is no such thing; `recado channels` lists all channels");
        assert!(shows(&mut app, "there is no such thing; `/channels` lists"), "{}", text(&mut app, 140, 30));
        assert!(app.here == Conversation::All && !app.rows().iter().any(|(_, place)| *place == there));
        // One that there is, though no list has it, is shown as soon as that is known.
        enter(&mut app, command);
        past(&mut app, there.clone(), vec![], false);
        assert_eq!(app.here, there, "{command}");
        // But not over what is read meanwhile.
        app.go(Conversation::All);
        enter(&mut app, "/go #other");
        press(&mut app, "F1");
        past(&mut app, place("#other"), vec![], false);
        assert_eq!(app.here, Conversation::All);
        assert!(shows(&mut app, "#other is there; /go #other shows it"));
    }
    let mut app = connected();
    enter(&mut app, "/leave #nochan");
    link(&mut app, 1, Link::Settled(RequestId::Here(1), Err(Code::NotFollowing)));
    assert!(shows(&mut app, "you do not follow #nochan") && !shows(&mut app, "no longer"));
}

#[test]
fn a_channel_that_there_is_not_is_not_asked_about() {
    let mut app = connected();
    let members = Listing::Members("nothere".parse().unwrap());
    assert_eq!(enter(&mut app, "/channel delete #nothere"), [Effect::List(members.clone())]);
    link(&mut app, 1, Link::List(members, Err("there is no channel #nothere".to_owned())));
    assert!(shows(&mut app, "there is no channel #nothere") && app.popup.is_none());
}

#[test]
fn who_makes_a_channel_follows_it_and_is_there() {
    let mut app = connected();
    enter(&mut app, "/channel create #secret --private");
    let effects = link(&mut app, 1, Link::Settled(RequestId::Here(1), Ok(Op(50))));
    let follow = Request::Follow { topic: topic("#secret"), change: FollowChange::Add };
    assert_eq!(request(&effects), Some(&follow));
    link(&mut app, 1, Link::Settled(RequestId::Here(2), Ok(Op(51))));
    assert_eq!(app.here, place("#secret"));
    let private = ListItem::Channel {
        name: "secret".parse().unwrap(),
        followers: 1,
        last_op: Op(1),
        access: recado_client::Access::Private,
    };
    link(&mut app, 1, Link::List(Listing::Channels, Ok(vec![private])));
    let screen = text(&mut app, 100, 30);
    assert!(screen.contains("#secret   1 follower, private"), "{screen}");
    assert_eq!(screen.matches("private").count(), 2, "the place and the header\n{screen}");
    assert!(screen.contains("#secret is yours; only its members can follow and read it"), "{screen}");
    // A refusal leaves no trace for a later follow.
    app.go(Conversation::All);
    enter(&mut app, "/channel create #taken");
    link(&mut app, 2, Link::Settled(RequestId::Here(3), Err(Code::NameTaken)));
    enter(&mut app, "/follow #taken");
    link(&mut app, 2, Link::Settled(RequestId::Here(4), Ok(Op(60))));
    assert_eq!(app.here, Conversation::All);
}

#[test]
fn servers_of_another_cluster_at_the_addresses_are_told() {
    let mut app = connected();
    link(&mut app, 1, Link::Connection(recado_client::ConnectionEvent::Searching));
    link(&mut app, 1, Link::Pulse(vec![]));
    link(&mut app, 2, Link::Other("THE CLUSTER AT 127.0.0.1:1 IS NOT THE ONE IT WAS".to_owned()));
    app.update(at(94), Event::Tick);
    let screen = text(&mut app, 140, 30);
    assert!(screen.contains("IS NOT THE ONE IT WAS") && !screen.contains("no primary for"), "{screen}");
    assert!(screen.contains("saved for the old cluster"), "{screen}");
    link(&mut app, 95, Link::Pulse(crate::tui::samples::pulse(None)));
    assert!(shows(&mut app, "no primary for"), "{}", text(&mut app, 100, 30));
}
