//! Drafts: what is being written stays where, and for whom, it was begun.

use super::*;

fn inbox() -> Conversation {
    Conversation::Topic(Topic::Inbox(name("alice")))
}

fn private(op: u64, author: &str, body: &str) -> recado_client::Notification {
    notification(op, &Topic::Inbox(name("alice")), author, body)
}

fn to(who: &str, body: &str) -> Request {
    send(Some(Topic::Inbox(name(who))), body)
}

/// Alice's inbox, with something of bob, and then of carol.
fn with_an_inbox() -> App {
    let mut app = connected();
    app.go(inbox());
    past(&mut app, inbox(), vec![private(5, "bob", "from bob"), private(6, "carol", "from carol")], false);
    text(&mut app, 100, 30);
    app
}

#[test]
fn the_recipient_of_a_draft_in_the_inbox_is_fixed_with_its_first_letter() {
    let mut app = with_an_inbox();
    assert!(shows(&mut app, "to @carol's inbox"));
    type_in(&mut app, "the pass");
    came(&mut app, 1, private(7, "bob", "an arrival"));
    assert!(shows(&mut app, "to @carol's inbox"), "{}", text(&mut app, 100, 30));
    // Neither does another selection change it, nor what another place shows meanwhile.
    press(&mut app, "Tab");
    press(&mut app, "Alt+Up");
    assert_eq!(app.here, Conversation::All);
    press(&mut app, "Alt+Down");
    assert_eq!(app.here, inbox());
    type_in(&mut app, "word");
    assert!(shows(&mut app, "to @carol's inbox"));
    assert_eq!(request(&press(&mut app, "Enter")), Some(&to("carol", "the password")));
}

#[test]
fn the_recipient_of_a_conversation_in_the_inbox_stays_until_another_is_selected() {
    for typed in ["part one", "/dm @carol part one"] {
        let mut app = with_an_inbox();
        assert_eq!(request(&enter(&mut app, typed)), Some(&to("carol", "part one")), "{typed}");
        came(&mut app, 1, private(7, "bob", "before it is acknowledged"));
        assert!(shows(&mut app, "to @carol's inbox"), "{}", text(&mut app, 100, 30));
        link(&mut app, 2, Link::Settled(RequestId::Here(1), Ok(Op(8))));
        came(&mut app, 3, private(9, "bob", "and after it"));
        assert!(shows(&mut app, "to @carol's inbox"), "{}", text(&mut app, 100, 30));
        assert_eq!(request(&enter(&mut app, "part two")), Some(&to("carol", "part two")));
        // A refusal does not change it, nor does a text that is given up.
        link(&mut app, 4, Link::Settled(RequestId::Here(2), Err(Code::LimitReached)));
        type_in(&mut app, "x");
        press(&mut app, "Backspace");
        came(&mut app, 5, private(10, "bob", "and now"));
        assert_eq!(request(&enter(&mut app, "part three")), Some(&to("carol", "part three")));
        // Another one that is selected,
        press(&mut app, "Tab");
        assert!(shows(&mut app, "to @bob's inbox"), "{}", text(&mut app, 100, 30));
        assert_eq!(request(&enter(&mut app, "hello")), Some(&to("bob", "hello")));
        came(&mut app, 6, private(11, "carol", "an arrival"));
        assert_eq!(request(&enter(&mut app, "again")), Some(&to("bob", "again")));
        // and a place that is entered anew begin another.
        app.go(Conversation::All);
        app.go(inbox());
        assert!(shows(&mut app, "to @carol's inbox"), "{}", text(&mut app, 100, 30));
    }
}

#[test]
fn a_text_begun_at_a_selected_notification_is_for_its_author() {
    for first in ["h", "paste"] {
        let mut app = with_an_inbox();
        press(&mut app, "Tab");
        press(&mut app, "Up");
        assert!(shows(&mut app, "to @bob's inbox"));
        match first {
            "paste" => app.update(at(0), Event::Paste("h".to_owned())),
            letter => press(&mut app, letter),
        };
        assert!(shows(&mut app, "to @bob's inbox"), "{}", text(&mut app, 100, 30));
        came(&mut app, 1, private(7, "carol", "an arrival"));
        assert_eq!(request(&enter(&mut app, "i")), Some(&to("bob", "hi")), "{first}");
    }
}

#[test]
fn a_draft_that_is_cleared_is_for_nobody_any_more() {
    let mut app = with_an_inbox();
    type_in(&mut app, "x");
    press(&mut app, "Backspace");
    came(&mut app, 1, private(7, "bob", "an arrival"));
    assert_eq!(request(&enter(&mut app, "y")), Some(&to("bob", "y")));
}

#[test]
fn a_draft_stays_at_its_place() {
    let mut app = connected();
    text(&mut app, 100, 30);
    type_in(&mut app, "for my followers");
    enter_over(&mut app, "title Of all");
    for way in ["Alt+Down", "/go @bob", "wheel", "palette"] {
        app.go(Conversation::All);
        assert_eq!(app.compose.text(), "for my followers", "{way}");
        match way {
            "Alt+Down" => drop(press(&mut app, way)),
            "wheel" => wheel_over_places(&mut app),
            "palette" => {
                press(&mut app, "Ctrl+p");
                type_in(&mut app, "bob");
                press(&mut app, "Enter");
            }
            command => enter_over(&mut app, &command[1..]),
        }
        assert_ne!(app.here, Conversation::All, "{way}");
        assert!(app.compose.is_empty() && app.fields.is_empty(), "{way}: {}", app.compose.text());
        assert!(shows(&mut app, "draft"), "{way}\n{}", text(&mut app, 100, 30));
    }
    app.go(place("@bob"));
    assert_eq!(request(&enter(&mut app, "only bob")), Some(&to("bob", "only bob")));
    app.go(Conversation::All);
    let effects = press(&mut app, "Enter");
    let Some(Request::Send { topic: None, content }) = request(&effects) else { panic!("{effects:?}") };
    assert_eq!(
        (content.title.as_deref(), content.body.as_text().as_ref()),
        (Some("Of all"), "for my followers")
    );
    assert!(!shows(&mut app, "draft"));
}

/// Runs a command over the draft.
fn enter_over(app: &mut App, command: &str) {
    press(app, "Ctrl+x");
    enter(app, command);
}

fn wheel_over_places(app: &mut App) {
    use crossterm::event::{KeyModifiers, MouseEvent, MouseEventKind};
    let (kind, modifiers) = (MouseEventKind::ScrollDown, KeyModifiers::NONE);
    app.update(at(1), Event::Mouse(MouseEvent { kind, column: 3, row: 3, modifiers }));
}

#[test]
fn a_place_with_a_draft_stays_listed_and_no_draft_is_lost_without_a_word() {
    let mut app = connected();
    app.go(place("#zoo"));
    type_in(&mut app, "for the lions");
    app.go(Conversation::All);
    assert!(shows(&mut app, "#zoo"), "{}", text(&mut app, 100, 30));
    assert_eq!(press(&mut app, "Ctrl+c"), []);
    assert!(shows(&mut app, "Your text of 13 bytes is not sent"), "{}", text(&mut app, 100, 30));
    press(&mut app, "n");
    type_in(&mut app, "and another");
    press(&mut app, "Ctrl+c");
    assert!(shows(&mut app, "Your texts at 2 places are not sent"));
    assert!(press(&mut app, "Ctrl+c").contains(&Effect::Quit));
}

#[test]
fn a_text_that_was_sent_comes_back_only_for_those_who_got_it() {
    let mut app = connected();
    app.go(place("@bob"));
    enter(&mut app, "a secret");
    for (there, comes_back) in [
        (Conversation::All, ""),
        (place("#ops"), ""),
        (inbox(), "a secret"),
        (place("@carol"), ""),
        (place("@bob"), "a secret"),
    ] {
        app.go(there.clone());
        if there == inbox() {
            past(&mut app, inbox(), vec![private(5, "bob", "from bob")], false);
        }
        press(&mut app, "Up");
        assert_eq!(app.compose.text(), comes_back, "{there:?}");
        press(&mut app, "Ctrl+u");
        app.compose.set("");
    }
    // A command comes back anywhere, and what was written before it as well.
    app.go(Conversation::All);
    enter(&mut app, "for all");
    enter(&mut app, "/go #ops");
    enter(&mut app, "/go");
    for text in ["/go", "/go #ops", "for all", "for all"] {
        press(&mut app, "Up");
        assert_eq!(app.compose.text(), text);
    }
    for text in ["/go #ops", "/go", ""] {
        press(&mut app, "Down");
        assert_eq!(app.compose.text(), text);
    }
    app.go(place("#ops"));
    press(&mut app, "Up");
    press(&mut app, "Up");
    press(&mut app, "Up");
    assert_eq!(app.compose.text(), "/go #ops");
}

/// The ways to a place that wait for the servers, and what settles them well or badly.
type Answer = fn(&mut App, bool);

const MOVES: [(&str, &str, Answer); 4] = [
    ("/join #new", "joining #new", |app, well| {
        let result = if well { Ok(Op(50)) } else { Err(Code::NotAllowed) };
        link(app, 1, Link::Settled(RequestId::Here(1), result));
    }),
    ("/channel create #new", "joining #new", |app, well| {
        let result = if well { Ok(Op(50)) } else { Err(Code::NameTaken) };
        link(app, 1, Link::Settled(RequestId::Here(1), result));
        if well {
            assert_eq!(request(&press(app, "Enter")), None, "it is made, and not followed yet");
            link(app, 1, Link::Settled(RequestId::Here(2), Ok(Op(51))));
        }
    }),
    ("/join #new", "joining #new", |app, well| {
        match well {
            true => link(app, 1, Link::Settled(RequestId::Here(1), Err(Code::AlreadyFollowing))),
            false => link(app, 1, Link::NotTaken(RequestId::Here(1), "there is no session".to_owned())),
        };
    }),
    ("/go #new", "going to #new", |app, well| match well {
        true => drop(past(app, place("#new"), vec![], false)),
        false => {
            let range = HistoryRange::Before(Op(u64::MAX));
            link(app, 1, Link::Past(place("#new"), range, Err("there is no such channel".to_owned())));
        }
    }),
];

#[test]
fn a_text_begun_while_its_place_is_waited_for_is_held_and_goes_along() {
    for (command, waits, answer) in MOVES {
        let mut app = connected();
        enter(&mut app, command);
        assert!(shows(&mut app, &format!(" {waits} ... ")), "{}", text(&mut app, 100, 30));
        assert_eq!(request(&enter(&mut app, "a secret")), None, "{command}");
        assert_eq!((app.here.clone(), app.compose.text()), (Conversation::All, "a secret".to_owned()));
        assert!(shows(&mut app, "your text stays here until"), "{}", text(&mut app, 140, 30));
        answer(&mut app, true);
        assert_eq!(
            (app.here.clone(), app.compose.text()),
            (place("#new"), "a secret".to_owned()),
            "{command}"
        );
        assert!(shows(&mut app, "#new \u{276f} a secret") && !shows(&mut app, "until the servers"));
        app.channels.push(crate::tui::conversation::Channel {
            name: "new".parse().unwrap(),
            followers: 1,
            access: recado_client::Access::Open,
        });
        assert_eq!(request(&press(&mut app, "Enter")), Some(&send(Some(topic("#new")), "a secret")));
        app.go(Conversation::All);
        assert!(app.compose.is_empty() && !app.has_draft(&Conversation::All));
    }
}

#[test]
fn a_text_begun_for_a_place_that_is_refused_stays_and_is_not_sent_at_once() {
    for (command, _, answer) in MOVES {
        let mut app = connected();
        enter(&mut app, command);
        enter(&mut app, "a secret");
        answer(&mut app, false);
        assert_eq!((app.here.clone(), app.compose.text()), (Conversation::All, "a secret".to_owned()));
        assert!(shows(&mut app, "followers \u{276f} a secret"), "{command}\n{}", text(&mut app, 100, 30));
        assert_eq!(request(&press(&mut app, "Enter")), None, "{command}");
        let screen = text(&mut app, 140, 30);
        assert!(
            screen.contains("begun for #new, and this line goes to your followers; Enter again"),
            "{screen}"
        );
        assert_eq!(request(&press(&mut app, "Enter")), Some(&send(None, "a secret")));
        assert!(request(&enter(&mut app, "and another")).is_some());
    }
}

#[test]
fn a_text_begun_before_a_move_stays_where_it_was_begun() {
    for (command, _, answer) in MOVES {
        // No key was pressed since, or one was.
        for keys in [&[][..], &["!"]] {
            let mut app = connected();
            type_in(&mut app, "for all");
            enter_over(&mut app, &command[1..]);
            keys.iter().for_each(|key| drop(press(&mut app, key)));
            if !keys.is_empty() {
                assert_eq!(request(&press(&mut app, "Enter")), None, "{command}");
            } else if command.starts_with("/channel") {
                continue;
            }
            answer(&mut app, true);
            let there = if keys.is_empty() { place("#new") } else { Conversation::All };
            assert_eq!(app.here, there, "{command}");
            app.go(Conversation::All);
            assert!(app.compose.text().starts_with("for all"));
            assert_eq!(shows(&mut app, "/go #new shows it"), !keys.is_empty(), "{command}");
            assert!(request(&press(&mut app, "Enter")).is_some(), "it is for here");
        }
    }
}

#[test]
fn another_place_that_is_shown_meanwhile_ends_a_move() {
    for (command, waits, answer) in MOVES {
        let mut app = connected();
        enter(&mut app, command);
        press(&mut app, "Alt+Up");
        let there = app.here.clone();
        assert!(there != Conversation::All && !shows(&mut app, waits), "{command}");
        if !command.starts_with("/channel") {
            answer(&mut app, true);
            assert_eq!(app.here, there, "{command}");
        }
        app.go(place("#ops"));
        assert!(request(&enter(&mut app, "hello")).is_some());
    }
}
