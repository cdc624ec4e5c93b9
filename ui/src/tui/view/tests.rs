//! Snapshots of the screen in different states, at four sizes.

use insta::assert_snapshot;
use ratatui::style::Color;
use recado_client::{
    Access, ClientError, Code, ConnectionEvent, ListItem, Listing, NodeId, Notification, Op, Request,
    RoleName, Topic, View,
};

use crate::tui::app::App;
use crate::tui::conversation::Conversation;
use crate::tui::event::{Event, Link, RequestId};
use crate::tui::samples::{
    app, at, came, connected, drawn, enter, link, name, notification, opened, past, press, pulse, text,
    type_in,
};
use crate::tui::theme::{Depth, Theme};

const SIZES: [(u16, u16); 4] = [(40, 12), (80, 24), (120, 40), (200, 60)];

/// The screen at all sizes.
fn screens(app: &mut App) -> String {
    let screens = SIZES.map(|(width, height)| format!("{width}x{height}\n{}\n", text(app, width, height)));
    screens.join("\n")
}

fn topic(text: &str) -> Topic {
    Topic::to_follow(text).unwrap()
}

fn with_title(mut one: Notification, title: &str, priority: u8, tags: &[&str]) -> Notification {
    one.content.title = Some(title.to_owned());
    one.content.priority = priority.try_into().unwrap();
    one.content.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    one
}

/// A week of notifications in several topics.
fn busy() -> App {
    let mut app = connected();
    let inbox = Topic::Inbox(name("alice"));
    let mut page = Vec::new();
    for day in 0..3 {
        let op = 1 + day * 1_440;
        page.push(notification(
            op,
            &topic("@bob"),
            "bob",
            "Good morning. Everything is up, nothing is on fire.",
        ));
        page.push(with_title(
            notification(
                op + 40,
                &topic("#ops"),
                "carol",
                "/var on db-2 is at 93 %.\nThe largest is the journal.",
            ),
            "Disk nearly full",
            4,
            &["disk", "db-2"],
        ));
        page.push(notification(op + 41, &inbox, "bob", "Do you look at it? See https://example.com/db-2"));
    }
    page.push(with_title(
        notification(5_000, &topic("#ops"), "carol", "No answer for 30 s."),
        "db-2 is down",
        5,
        &["db-2"],
    ));
    page.push(notification(5_002, &topic("#ops"), "alice", "On it."));
    past(&mut app, Conversation::All, page, true);
    came(&mut app, 300, notification(5_003, &topic("#deploys"), "dora", "Deployed build 1841 to staging."));
    came(&mut app, 301, notification(5_004, &topic("#ops"), "carol", "It is back."));
    app
}

#[test]
fn first_run() {
    let mut app = app(None);
    link(&mut app, 1, Link::Pulse(pulse(Some(RoleName::Primary))));
    type_in(&mut app, "alice");
    assert_snapshot!(screens(&mut app));
}

#[test]
fn looking_for_a_server() {
    let mut app = app(Some("alice"));
    link(&mut app, 1, Link::NoServer("no server answered within 0.5 s: tried 127.0.0.1:10097".to_owned()));
    assert_snapshot!(screens(&mut app));
}

#[test]
fn empty() {
    let mut app = connected();
    past(&mut app, Conversation::All, vec![], false);
    assert_snapshot!(screens(&mut app));
}

#[test]
fn busy_inbox() {
    let mut app = busy();
    app.log_at(&Conversation::All).seen_upto = Some(recado_client::Op(5_000));
    press(&mut app, "Tab");
    press(&mut app, "Up");
    assert_snapshot!(screens(&mut app));
}

#[test]
fn scripts_of_every_width_and_very_long_words() {
    let mut app = connected();
    let ops = topic("#ops");
    let texts = [
        "日本語のとても長い文章は、画面の幅に合わせて折り返されます。文字の幅は二桁です。".to_owned(),
        "👩‍👩‍👧‍👦 family, 🇧🇷 flag, e\u{301}t\u{e9}, Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!̿".to_owned(),
        "مرحبا بالعالم and שלום עולם in one line".to_owned(),
        format!("https://example.com/{}", "very/long/path/".repeat(12)),
        "x".repeat(230),
        "tabs\tand\u{1b}[31m escapes\u{1b}[0m \u{202e}reversed".to_owned(),
    ];
    let page = (1..).zip(texts).map(|(op, body)| notification(op, &ops, "bob", &body));
    past(&mut app, Conversation::All, page.collect(), false);
    type_in(&mut app, "日本語 and 👩‍👩‍👧‍👦");
    assert_snapshot!(screens(&mut app));
}

#[test]
fn switching_banner() {
    let mut app = busy();
    let pause = std::time::Duration::from_millis(143);
    link(&mut app, 302, Link::Connection(ConnectionEvent::Searching));
    enter(&mut app, "Written while nobody is primary");
    let searching = text(&mut app, 80, 24);
    for (width, height) in SIZES {
        let told = text(&mut app, width, height).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains("looking for the next"), "{width}x{height}");
    }
    let addr = "127.0.0.1:10098".parse().unwrap();
    let changed = ConnectionEvent::PrimaryChanged { view: View::new(5, NodeId(2)), addr, pause };
    link(&mut app, 302, Link::Connection(changed));
    assert_snapshot!(format!("while it is looked for, 80x24\n{searching}\n\n{}", screens(&mut app)));
}

#[test]
fn offline_with_queued_sends() {
    let mut app = busy();
    link(&mut app, 302, Link::Connection(ConnectionEvent::Searching));
    enter(&mut app, "/send #ops Still looking into it, more in an hour.");
    enter(&mut app, "/dm @nobody hello");
    enter(&mut app, "To everybody who follows me");
    link(&mut app, 303, Link::Settled(RequestId::Here(2), Err(Code::UnknownProfile)));
    app.update(at(330), Event::Tick);
    assert_snapshot!(screens(&mut app));
}

#[test]
fn session_of_an_unknown_device() {
    let mut app = busy();
    let dir = "/home/alice/.local/state/recado/7/alice/slot-0";
    link(&mut app, 302, Link::Ended(Box::new(ClientError::Forgotten(dir.into()))));
    assert_snapshot!(screens(&mut app));
}

#[test]
fn cluster_panel() {
    let mut app = busy();
    link(&mut app, 302, Link::Pulse(pulse(None)));
    link(&mut app, 303, Link::Pulse(pulse(Some(RoleName::Backup))));
    link(&mut app, 310, Link::Pulse(pulse(None)));
    app.update(at(340), Event::Tick);
    press(&mut app, "F2");
    assert_snapshot!(screens(&mut app));
}

#[test]
fn help() {
    let mut app = connected();
    press(&mut app, "F1");
    assert_snapshot!(screens(&mut app));
}

#[test]
fn search() {
    let mut app = busy();
    press(&mut app, "Ctrl+r");
    type_in(&mut app, "db-2");
    assert_snapshot!(screens(&mut app));
}

/// The longest name of a channel, and another one that differs from it in the end.
fn longest(last: &str) -> String {
    format!("{:~<127}{last}", "Builds.of.the-Mainline_")
}

/// A screen whose channels have the longest names.
fn with_long_names() -> App {
    let mut app = connected();
    let names = [longest("a"), longest("b")];
    let followed: Vec<Topic> = names.iter().map(|name| topic(&format!("#{name}"))).collect();
    let following = |topic: &Topic| ListItem::Following { topic: topic.clone(), since: Op(1) };
    link(&mut app, 0, Link::List(Listing::Following, Ok(followed.iter().map(following).collect())));
    let channels = names.iter().map(|name| ListItem::Channel {
        name: name.parse().unwrap(),
        followers: 3,
        last_op: Op(1),
        access: Access::Owned,
    });
    link(&mut app, 0, Link::List(Listing::Channels, Ok(channels.collect())));
    let [one, other] = [&followed[0], &followed[1]];
    let long = "No test of the last build failed, and none was left out.";
    let page = vec![
        notification(1, one, "bob", "short"),
        with_title(notification(2, one, "alice", long), "Mine", 5, &["build"]),
        notification(3, &topic("#ops"), "bob", "the usual name"),
        notification(4, other, &"n".repeat(32), long),
    ];
    past(&mut app, Conversation::All, page.clone(), false);
    past(&mut app, Conversation::Topic(one.clone()), page[..2].to_vec(), false);
    came(&mut app, 300, notification(5, other, "carol", "news"));
    app
}

#[test]
fn channels_with_the_longest_names() {
    let mut app = with_long_names();
    let everything = screens(&mut app);
    enter(&mut app, &format!("/go #{}", longest("a")));
    let there = screens(&mut app);
    assert_snapshot!(format!("{everything}\n\nin one of them\n{there}"));
}

#[test]
fn channels_with_the_longest_names_are_offered() {
    let mut app = with_long_names();
    type_in(&mut app, "/mute #B");
    let completions = [(40, 12), (80, 24), (200, 60)].map(|(width, height)| text(&mut app, width, height));
    press(&mut app, "Ctrl+u");
    press(&mut app, "Ctrl+p");
    type_in(&mut app, "#b");
    let palettes = [(40, 12), (80, 24)].map(|(width, height)| text(&mut app, width, height));
    assert_snapshot!(completions.into_iter().chain(palettes).collect::<Vec<_>>().join("\n--\n"));
}

#[test]
fn palette() {
    let mut app = busy();
    press(&mut app, "Ctrl+p");
    type_in(&mut app, "do");
    assert_snapshot!(screens(&mut app));
}

#[test]
fn a_command_with_its_completions() {
    let mut app = busy();
    type_in(&mut app, "/s");
    let names = text(&mut app, 80, 24);
    type_in(&mut app, "end #");
    assert_snapshot!(format!("{names}\n\n{}", text(&mut app, 80, 24)));
}

#[test]
fn a_long_notice_is_shown_to_its_end() {
    let mut app = connected();
    enter(&mut app, "/foo");
    for (width, height) in SIZES {
        let screen = text(&mut app, width, height);
        let told = screen.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains("To send it as text, begin with a space"), "{width}x{height}\n{screen}");
        assert!(screen.lines().last().unwrap().contains("connected"), "{screen}");
    }
    let screens = [(40, 12), (80, 24)].map(|(width, height)| text(&mut app, width, height));
    assert_snapshot!(screens.join("\n--\n"));
}

#[test]
fn confirmation_before_a_link_is_opened() {
    let mut app = busy();
    press(&mut app, "Tab");
    for _ in 0..4 {
        press(&mut app, "Up");
    }
    press(&mut app, "Ctrl+o");
    assert_snapshot!(text(&mut app, 80, 24));
}

#[test]
fn too_small() {
    let mut app = busy();
    let screens = [(39, 12), (40, 8), (12, 4)].map(|(width, height)| text(&mut app, width, height));
    assert_snapshot!(screens.join("\n--\n"));
    for width in 1..60 {
        for height in 1..16 {
            drawn(&mut app, width, height);
        }
    }
}

#[test]
fn no_color() {
    let mut app = busy();
    app.settings.theme = Theme::named("dark").unwrap().at(Depth::Mono);
    press(&mut app, "Tab");
    let backend = drawn(&mut app, 80, 24);
    for cell in backend.buffer().content() {
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
    }
    assert_snapshot!(format!("{:?}\n{}", backend.buffer(), screens(&mut app)));
}

#[test]
fn light_theme() {
    let mut app = busy();
    app.settings.theme = Theme::named("light").unwrap();
    let backend = drawn(&mut app, 80, 24);
    assert!(backend.buffer().content().iter().all(|cell| cell.bg != Color::Reset));
    assert_snapshot!(format!("{:?}\n{}", backend.buffer(), screens(&mut app)));
}

#[test]
fn ascii_symbols_draw_nothing_but_ascii() {
    let mut app = busy();
    app.settings.symbols = crate::tui::symbols::ASCII;
    app.settings.theme = Theme::named("dark").unwrap().at(Depth::Sixteen);
    enter(&mut app, "one on its way");
    for keys in [[].as_slice(), &["Tab", "Up"], &["F2"], &["F1"], &["Ctrl+p"]] {
        for key in keys {
            press(&mut app, key);
        }
        for (width, height) in SIZES {
            assert!(text(&mut app, width, height).is_ascii(), "{keys:?} at {width}x{height}");
        }
    }
}

#[test]
fn a_request_of_an_earlier_process_is_shown_until_it_is_settled() {
    let mut app = app(Some("alice"));
    let content = crate::tui::samples::content("left behind");
    link(&mut app, 1, opened(vec![(RequestId::Recovered(1), Request::Send { topic: None, content })]));
    assert!(text(&mut app, 80, 24).contains("left behind  queued"));
    link(&mut app, 2, crate::tui::samples::let_in());
    assert!(text(&mut app, 80, 24).contains("left behind  sending"));
    link(&mut app, 3, Link::Settled(RequestId::Recovered(1), Ok(recado_client::Op(77))));
    let settled = text(&mut app, 80, 24);
    assert!(settled.contains("left behind") && !settled.contains("sending"), "{settled}");
}
