//! Requests: what `/send` takes and asks, fields of a text, channels and devices, and reasons of refusals.

use recado_client::{ChannelChange, Info, ListItem, ProfileInfo, Role};
use recado_proto::packet::KeyChange;

use super::*;
use crate::tui::samples::key;

fn list(app: &mut App, listing: Listing, items: Vec<ListItem>) -> Vec<Effect> {
    link(app, 1, Link::List(listing, Ok(items)))
}

#[test]
fn a_channel_that_is_not_known_is_made_only_after_a_yes() {
    let mut app = connected();
    let typo = || topic("#typo");
    let effects = enter(&mut app, "/send #typo hello");
    assert_eq!(effects, [Effect::List(Listing::Channels)]);
    assert!(shows(&mut app, "Create #typo?") && shows(&mut app, "only you can delete it"));
    assert_eq!(press(&mut app, "Esc"), []);
    assert_eq!(app.compose.text(), "/send #typo hello", "it stays, to be mended");
    press(&mut app, "Enter");
    assert_eq!(request(&press(&mut app, "Enter")), None, "the no is marked");
    assert_eq!(app.compose.text(), "/send #typo hello");
    press(&mut app, "Enter");
    assert_eq!(request(&press(&mut app, "y")), Some(&send(Some(typo()), "hello")));
    assert!(app.compose.is_empty());
    link(&mut app, 1, Link::Settled(RequestId::Here(1), Ok(Op(50))));
    link(&mut app, 1, Link::MadeChannel(typo()));
    assert!(shows(&mut app, "created #typo: there was no such channel"));
    assert_eq!(request(&enter(&mut app, "/send #typo again")), Some(&send(Some(typo()), "again")));
    // What is written at such a place goes there, too.
    app.go(place("#other"));
    assert_eq!(request(&enter(&mut app, "plain")), None);
    assert!(shows(&mut app, "Create #other?"));
    press(&mut app, "Esc");
    assert_eq!(app.compose.text(), "plain");
    // Somebody else has made one since, as the list says that was asked for with the question.
    enter(&mut app, "");
    assert!(shows(&mut app, "Create #other?"));
    let channel = |name: &str| ListItem::Channel {
        name: name.parse().unwrap(),
        followers: 1,
        last_op: Op(1),
        access: recado_client::Access::Open,
    };
    assert_eq!(request(&list(&mut app, Listing::Channels, vec![channel("another")])), None);
    assert!(shows(&mut app, "Create #other?"));
    let effects = list(&mut app, Listing::Channels, vec![channel("another"), channel("other")]);
    assert_eq!(request(&effects), Some(&send(Some(topic("#other")), "plain")));
    assert!(app.popup.is_none() && app.compose.is_empty());
    app.channels.clear();
    type_in(&mut app, "plain");
    // So does what comes from it.
    came(&mut app, 2, notification(60, &topic("#other"), "bob", "x"));
    assert_eq!(request(&press(&mut app, "Enter")), Some(&send(Some(topic("#other")), "plain")));
}

#[test]
fn where_no_channel_may_be_created_the_text_stays_and_one_that_is_there_is_sent_to() {
    let mut app = connected();
    app.may_create = false;
    assert_eq!(request(&enter(&mut app, "/send #typo hello")), None);
    assert!(shows(&mut app, "there is no channel #typo, and") && app.popup.is_none());
    assert_eq!(app.compose.text(), "/send #typo hello");
    press(&mut app, "Ctrl+u");
    assert_eq!(request(&enter(&mut app, "/send #ops hello")), Some(&send(Some(topic("#ops")), "hello")));
}

#[test]
fn send_takes_the_options_of_the_command_and_refuses_others() {
    let mut app = connected();
    let effects = enter(&mut app, "/send #ops --title \"Disk full\" --priority 5 --tag disk now or never");
    let Some(Request::Send { topic: to, content }) = request(&effects) else { panic!("{effects:?}") };
    assert_eq!(to, &Some(topic("#ops")));
    assert_eq!((content.title.as_deref(), u8::from(content.priority)), (Some("Disk full"), 5));
    assert_eq!(
        (content.tags.as_slice(), content.body.as_text().as_ref()),
        (&["disk".to_owned()][..], "now or never")
    );
    for (wrong, told) in [
        ("/send --urgent now", "there is no option --urgent"),
        ("/send now --priority 5", "--priority stands behind the text"),
        ("/send --priority 9 now", "1 (lowest) to 5 (highest)"),
        ("/send #no! such", "has '!'"),
    ] {
        assert_eq!(request(&enter(&mut app, wrong)), None, "{wrong}");
        assert!(shows(&mut app, told), "{wrong}\n{}", text(&mut app, 100, 30));
        assert_eq!(app.compose.text(), wrong);
        press(&mut app, "Esc");
    }
}

#[test]
fn title_priority_and_tags_go_with_the_next_text() {
    let mut app = connected();
    for command in ["/title Disk full", "/priority 4", "/tag disk db-2"] {
        assert_eq!(enter(&mut app, command), []);
    }
    assert!(shows(&mut app, "with title Disk full   priority 4   [disk]   [db-2]"));
    let effects = enter(&mut app, "93 %");
    let Some(Request::Send { content, .. }) = request(&effects) else { panic!("{effects:?}") };
    assert_eq!((content.title.as_deref(), content.tags.len()), (Some("Disk full"), 2));
    assert_eq!(request(&enter(&mut app, "plain again")), Some(&send(None, "plain again")));
    for command in ["/title x", "/tag a", "/title", "/tag"] {
        enter(&mut app, command);
    }
    assert!(app.fields.is_empty());
    enter(&mut app, &format!("/title {}", "x".repeat(1_025)));
    assert_eq!(request(&enter(&mut app, "hello")), None);
    assert!(shows(&mut app, "the title is too large: it has 1025 bytes"));
}

#[test]
fn a_channel_is_created_and_deleted_with_the_words_of_the_command() {
    let mut app = connected();
    let made =
        Request::Channel { channel: "new".parse().unwrap(), change: ChannelChange::Create { private: true } };
    assert_eq!(request(&enter(&mut app, "/channel create #new --private")), Some(&made));
    link(&mut app, 1, Link::Settled(RequestId::Here(1), Ok(Op(50))));
    assert!(shows(&mut app, "#new is yours; only its members can follow and read it"));
    let members = || Listing::Members("new".parse().unwrap());
    let owner = || ListItem::Member { name: name("alice"), role: Role::Owner };
    let delete = |app: &mut App| {
        assert_eq!(enter(app, "/channel delete #new"), [Effect::List(members())]);
        assert_eq!(list(app, members(), vec![owner()]), []);
    };
    delete(&mut app);
    assert!(shows(&mut app, "This deletes #new and its notifications for everyone"));
    assert_eq!(press(&mut app, "Esc"), []);
    let gone = Request::Channel { channel: "new".parse().unwrap(), change: ChannelChange::Delete };
    delete(&mut app);
    assert_eq!(request(&press(&mut app, "Enter")), None, "the no is marked");
    delete(&mut app);
    assert_eq!(request(&press(&mut app, "y")), Some(&gone));
    assert_eq!(
        enter(&mut app, "/channel members #new"),
        [Effect::List(Listing::Members("new".parse().unwrap()))]
    );
    list(&mut app, members(), vec![owner()]);
    assert!(shows(&mut app, "Members of #new") && shows(&mut app, "owner"));
}

#[test]
fn devices_are_listed_added_and_revoked() {
    let mut app = connected();
    assert_eq!(enter(&mut app, "/device list"), [Effect::List(Listing::Keys)]);
    let keys = || {
        vec![
            ListItem::Key { key: key(0xab), slots: vec![0], last_seen_ms: 1_772_452_800_000 },
            ListItem::Key { key: key(0xcd), slots: vec![], last_seen_ms: 0 },
        ]
    };
    list(&mut app, Listing::Keys, keys());
    assert!(
        shows(&mut app, "(this machine)") && shows(&mut app, "seen never"),
        "{}",
        text(&mut app, 100, 30)
    );
    press(&mut app, "Esc");
    for (beginning, told) in
        [("ab", "is the key of this machine"), ("cd", "y  Revoke it"), ("ee", "no key begins")]
    {
        enter(&mut app, &format!("/device remove {beginning}"));
        list(&mut app, Listing::Keys, keys());
        assert!(shows(&mut app, told), "{beginning}");
        if beginning == "cd" {
            let change = KeyChange::Revoke { key: key(0xcd) };
            assert_eq!(request(&press(&mut app, "y")), Some(&Request::Keys { change }));
        } else {
            press(&mut app, "Esc");
        }
    }
    assert_eq!(enter(&mut app, "/device add"), [Effect::Enrol]);
    link(&mut app, 2, Link::Enrolled(Ok("7K3Q9-01WZP".parse().unwrap())));
    assert!(shows(&mut app, "recado device enrol 7K3Q9-01WZP --as alice --server 127.0.0.1:10097"));
}

#[test]
fn the_inbox_and_its_history_are_reached_by_commands() {
    let mut app = connected();
    let inbox = Conversation::Topic(Topic::Inbox(name("alice")));
    for command in ["/inbox", "/history @alice"] {
        app.go(Conversation::All);
        let effects = enter(&mut app, command);
        assert_eq!(app.here, inbox, "{command}");
        assert!(app.log(&inbox).is_some(), "{effects:?}");
    }
    enter(&mut app, "/history @bob");
    assert_eq!(app.here, place("@bob"));
}

#[test]
fn a_refusal_stays_with_its_text_in_whole_and_names_the_owners() {
    let mut app = connected();
    enter(&mut app, "/dm @nobody hello");
    link(&mut app, 1, Link::Settled(RequestId::Here(1), Err(Code::UnknownProfile)));
    for size in [(100, 30), (40, 20)] {
        let screen = text(&mut app, size.0, size.1);
        let told = screen.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains("refused: there is no profile @nobody; `/people` lists"), "{screen}");
    }
    enter(&mut app, "/send #ops mine");
    let effects = link(&mut app, 2, Link::Settled(RequestId::Here(2), Err(Code::NotAllowed)));
    assert_eq!(effects, [Effect::List(Listing::Members("ops".parse().unwrap()))]);
    let owner = ListItem::Member { name: name("carol"), role: Role::Owner };
    list(&mut app, Listing::Members("ops".parse().unwrap()), vec![owner]);
    let told = text(&mut app, 140, 30);
    assert!(told.contains("refused: you must be a writer of #ops to do this; its owners: @carol"), "{told}");
    // Nothing but the command drops it.
    for key in ["Esc", "Tab", "Esc", "Esc"] {
        press(&mut app, key);
    }
    assert!(shows(&mut app, "refused: you must be"));
    enter(&mut app, "/clear");
    assert!(!shows(&mut app, "refused"));
}

#[test]
fn a_text_in_a_command_stays_if_it_cannot_be_sent() {
    let mut app = connected();
    link(&mut app, 1, Link::Ended(Box::new(ClientError::Ended(Code::Fenced))));
    for command in ["/send #ops not lost", "/dm @bob not lost", "/channel create #x"] {
        assert_eq!(enter(&mut app, command), []);
        assert_eq!(app.compose.text(), command);
        assert!(shows(&mut app, "there is no session") || shows(&mut app, "your text stays here"));
        press(&mut app, "Esc");
    }
    assert_eq!(enter(&mut app, "/info @bob"), []);
    assert!(shows(&mut app, "ended: no server can be asked now"));
}

#[test]
fn the_information_about_a_profile_has_its_display_name_beside_the_name() {
    let mut app = connected();
    let info = Info {
        profile: "bob".parse().unwrap(),
        since: Op(3),
        followers: 1,
        following: 2,
        devices: 1,
        sessions: 1,
        pending: 0,
    };
    let display = Some("Bob B.".parse().unwrap());
    let of = ProfileInfo { info, display, applied: Op(9) };
    link(&mut app, 1, Link::Info(Ok(of)));
    assert!(shows(&mut app, "@bob  Bob B."), "{}", text(&mut app, 100, 30));
}

#[test]
fn one_word_names_the_state_of_the_connection_and_no_start_says_that_nobody_answers() {
    let mut app = app(None);
    for (second, word, told) in [
        (0, "connecting", "Connecting to 127.0.0.1:10097"),
        (2, "connecting", "Connecting"),
        (6, "offline", "No server answers"),
    ] {
        link(&mut app, second, Link::Pulse(vec![]));
        assert!(shows(&mut app, word) && shows(&mut app, told), "{}", text(&mut app, 100, 30));
    }
    // Servers that answer are not offline, however long the user thinks about a name.
    link(&mut app, 7, Link::Pulse(crate::tui::samples::pulse(None)));
    app.update(at(60), Event::Tick);
    let screen = text(&mut app, 100, 30);
    assert!(screen.contains("  ready") && screen.contains("2 servers answer"), "{screen}");
    assert!(!screen.contains("connecting"), "{screen}");
    let mut app = crate::tui::samples::app(Some("alice"));
    let nobody = || Link::NoServer("no server answered within 0.5 s".to_owned());
    link(&mut app, 1, nobody());
    let screen = text(&mut app, 100, 30);
    assert!(screen.contains("connecting") && !screen.contains("no server"), "{screen}");
    link(&mut app, 6, nobody());
    let screen = text(&mut app, 100, 30);
    assert!(screen.contains("offline") && screen.contains("no server answered"), "{screen}");
    link(&mut app, 7, opened(vec![]));
    assert!(shows(&mut app, "connecting"));
    link(&mut app, 8, let_in());
    assert!(shows(&mut app, "connected"));
    link(&mut app, 9, Link::Connection(recado_client::ConnectionEvent::Searching));
    assert!(shows(&mut app, "connecting"));
}

#[test]
fn the_banner_keeps_its_meaning_at_every_width() {
    for (pause, told) in
        [(143, "server-2 is primary now; 143 ms without an answer"), (0, "server-2 is primary now")]
    {
        let mut app = connected();
        let (addr, pause) = ("127.0.0.1:10098".parse().unwrap(), std::time::Duration::from_millis(pause));
        let view = recado_client::View::new(5, recado_client::NodeId(2));
        let changed = recado_client::ConnectionEvent::PrimaryChanged { view, addr, pause };
        link(&mut app, 101, Link::Connection(changed));
        for (width, height) in [(40, 12), (80, 24), (100, 30)] {
            let screen = text(&mut app, width, height);
            let banner = super::super::view::areas(&app).banner.expect("there is one");
            let rows = screen.lines().skip(banner.y.into()).take(banner.height.into());
            let shown: Vec<&str> =
                rows.flat_map(|row| row.get(banner.x.into()..)).flat_map(str::split_whitespace).collect();
            assert!(shown.join(" ").contains(told), "{width}: {shown:?}\n{screen}");
        }
    }
}

#[test]
fn the_number_of_followers_is_asked_for_again_while_it_is_shown() {
    let mut app = connected();
    let asks = |effects: &[Effect]| effects.contains(&Effect::List(Listing::Channels));
    assert!(asks(&enter(&mut app, "/go #ops")));
    app.update(at(1), Event::Focus(true));
    assert!(!asks(&app.update(at(10), Event::Tick)));
    assert!(asks(&app.update(at(30), Event::Tick)));
    assert!(!asks(&app.update(at(31), Event::Tick)));
    assert!(!asks(&app.update(at(300), Event::Tick)), "nobody looks");
    app.go(Conversation::All);
    assert!(!asks(&enter(&mut app, "x")) && !asks(&app.update(at(400), Event::Tick)), "none is shown");
}

#[test]
fn what_was_sent_to_a_channel_that_is_not_followed_stands_in_everything_after_a_restart() {
    let mut app = connected();
    enter(&mut app, "/send #zoo for the lions");
    let effects = link(&mut app, 2, Link::Settled(RequestId::Here(1), Ok(Op(50))));
    assert!(shows(&mut app, "for the lions"), "{effects:?}");
    let saved = app.places.saved_state();

    let mut app = crate::tui::samples::app(Some("alice"));
    app.begin_effects();
    let Link::Opened(mut first) = opened(vec![]) else { panic!("it is one") };
    first.saved = saved;
    link(&mut app, 0, Link::Opened(first));
    let effects = link(&mut app, 0, let_in());
    let asked = |place| Effect::History(place, recado_client::HistoryRange::Before(Op(u64::MAX)));
    assert!(effects.contains(&asked(place("#zoo"))), "{effects:?}");
    past(&mut app, Conversation::All, vec![notification(5, &topic("#ops"), "bob", "in everything")], true);
    let own = |op, author: &str, body| notification(op, &topic("#zoo"), author, body);
    let page = vec![
        own(4, "alice", "before everything"),
        own(49, "carol", "not followed"),
        own(50, "alice", "for the lions"),
    ];
    past(&mut app, place("#zoo"), page, false);
    let screen = text(&mut app, 100, 30);
    assert!(screen.contains("for the lions") && screen.contains("in everything"), "{screen}");
    assert!(!screen.contains("not followed") && !screen.contains("before everything"), "{screen}");
}
