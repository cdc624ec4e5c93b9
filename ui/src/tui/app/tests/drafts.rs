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
fn a_channel_that_is_joined_is_not_shown_under_a_text_that_was_begun_meanwhile() {
    let mut app = connected();
    enter(&mut app, "/join #zoo");
    type_in(&mut app, "he");
    link(&mut app, 1, Link::Settled(RequestId::Here(1), Ok(Op(50))));
    assert_eq!((app.here.clone(), app.compose.text()), (Conversation::All, "he".to_owned()));
    assert!(shows(&mut app, "you follow #zoo; /go #zoo shows it"));
}
