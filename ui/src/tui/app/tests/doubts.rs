//! Texts and commands that may be meant otherwise, and the completion of commands.

use super::*;

#[test]
fn a_command_of_an_editor_is_sent_only_if_it_is_entered_twice() {
    for typed in [":q", ":wq", ":q!", ":help", ":e file"] {
        let mut app = connected();
        assert_eq!(request(&enter(&mut app, typed)), None);
        let told =
            format!("`{typed}` was not sent: /quit (or Ctrl+C) leaves, and / begins a command; Enter again");
        assert!(shows_at(&mut app, (140, 30), &told), "{}", text(&mut app, 140, 30));
        assert_eq!(request(&press(&mut app, "Enter")), Some(&send(None, typed)));
        assert_eq!(request(&enter(&mut app, typed)), None, "each time");
    }
    let mut app = connected();
    assert!(request(&enter(&mut app, ":q is how one leaves")).is_some());
}

#[test]
fn keys_of_an_editor_that_were_typed_in_the_list_are_sent_only_if_they_are_entered_twice() {
    for way in [&["Tab"][..], &["Tab", "Tab"], &["F1"], &["F2"], &["Tab", "Enter"]] {
        for typed in ["jj", "dd", "gg", "G", "ZZ", "u"] {
            let mut app = connected();
            past(&mut app, Conversation::All, vec![notification(5, &topic("#ops"), "bob", "x")], false);
            text(&mut app, 140, 30);
            way.iter().for_each(|key| drop(press(&mut app, key)));
            assert_eq!(request(&enter(&mut app, typed)), None, "{way:?} {typed}");
            let told =
                format!("`{typed}` was not sent: letters write here; arrows move, and F1 lists the keys");
            assert!(shows_at(&mut app, (140, 30), &told), "{}", text(&mut app, 140, 30));
            assert_eq!(request(&press(&mut app, "Enter")), Some(&send(None, typed)), "{way:?}");
            assert!(request(&enter(&mut app, typed)).is_some(), "it is begun in the line now");
        }
        let mut app = connected();
        text(&mut app, 140, 30);
        way.iter().for_each(|key| drop(press(&mut app, key)));
        assert!(request(&enter(&mut app, "good morning")).is_some(), "{way:?}");
    }
}

#[test]
fn a_line_end_makes_no_command_a_text_to_the_followers() {
    let to_dora = |body: &str| send(Some(Topic::Inbox(name("dora"))), body);
    // One line that was pasted with its end, several lines, and each way to begin another one.
    for (typed, keys, pasted, body) in [
        ("/dm @dora ", &[][..], "one word\n", "one word"),
        ("/dm @dora ", &[], "one\r\ntwo\r\n", "one\ntwo"),
        ("/dm @dora one", &["Ctrl+j"], "two", "one\ntwo"),
        ("/dm @dora one", &["Alt+Enter"], "", "one"),
        ("", &[], "/dm @dora one word\n", "one word"),
        ("/send @dora one", &["Alt+Enter"], "  two\n", "one\n  two"),
    ] {
        let mut app = connected();
        type_in(&mut app, typed);
        keys.iter().for_each(|key| drop(press(&mut app, key)));
        app.update(at(1), Event::Paste(pasted.to_owned()));
        assert_eq!(request(&press(&mut app, "Enter")), Some(&to_dora(body)), "{typed:?} {pasted:?}");
        assert!(app.compose.is_empty());
    }
    // The key that answers.
    let mut app = connected();
    past(&mut app, Conversation::All, vec![notification(5, &topic("#ops"), "dora", "x")], false);
    press(&mut app, "Tab");
    press(&mut app, "Ctrl+t");
    app.update(at(1), Event::Paste("one\ntwo".to_owned()));
    assert_eq!(request(&press(&mut app, "Enter")), Some(&to_dora("one\ntwo")));
    // What is no text, and what is mistyped, is not run and stays.
    for (pasted, told) in [
        ("/follow @dora\nand so on", "/follow takes one line, and this has 2"),
        ("/dmm @dora one\n", "there is no command /dmm"),
        ("/etc/hosts:\n127.0.0.1", "To send it as text, begin with a space"),
        (" /dm @dora one", "nothing stands before its /; Enter again sends it"),
        ("\n\n/dm @dora one\n", "nothing stands before its /; Enter again sends it"),
    ] {
        let mut app = connected();
        app.update(at(1), Event::Paste(pasted.to_owned()));
        assert_eq!(press(&mut app, "Enter"), [], "{pasted:?}");
        assert_eq!(app.compose.text(), pasted);
        let screen = text(&mut app, 140, 30);
        assert!(screen.contains(told), "{screen}");
        if pasted.trim().contains('\n') {
            assert!(!press(&mut app, "Ctrl+c").contains(&Effect::Quit), "a text may be part of it");
        }
    }
    let mut app = connected();
    assert_eq!(request(&enter(&mut app, " /etc is full")), Some(&send(None, "/etc is full")));
    assert_eq!(request(&enter(&mut app, "//dm is a command")), Some(&send(None, "/dm is a command")));
}

#[test]
fn a_text_to_the_followers_that_begins_with_a_name_asks_for_whom_it_is() {
    let bob = || Some(Topic::Inbox(name("bob")));
    for (typed, topic, body) in [
        ("@bob hi there", bob(), "hi there"),
        ("@bob: hi there", bob(), "hi there"),
        ("#ops hi", Some(topic("#ops")), "hi"),
        ("/send bob hi there", bob(), "hi there"),
        ("/send ops hi", Some(topic("#ops")), "hi"),
    ] {
        let as_it_is = typed.strip_prefix("/send ").unwrap_or(typed);
        let mut app = connected();
        let channels = app.channels.clone();
        assert_eq!(request(&enter(&mut app, typed)), None, "{typed}");
        assert!(shows(&mut app, "or to your followers?"), "{}", text(&mut app, 100, 30));
        // A list that comes meanwhile answers nothing.
        assert_eq!(request(&link(&mut app, 1, Link::List(Listing::Channels, Ok(vec![])))), None);
        assert!(shows(&mut app, "or to your followers?"), "{}", text(&mut app, 100, 30));
        assert_eq!(press(&mut app, "Esc"), []);
        assert_eq!(app.compose.text(), typed);
        app.channels = channels.clone();
        press(&mut app, "Enter");
        assert_eq!(request(&press(&mut app, "y")), Some(&send(topic, body)), "{typed}");
        assert!(app.compose.is_empty());
        enter(&mut app, typed);
        press(&mut app, "Down");
        assert_eq!(request(&press(&mut app, "Enter")), Some(&send(None, as_it_is)), "{typed}");
    }
    // A channel that is not known would be created, so the no is marked.
    let mut app = connected();
    enter(&mut app, "#rust is nice");
    assert!(shows(&mut app, "which creates it"));
    assert_eq!(request(&press(&mut app, "Enter")), None);
    // Nothing else is asked about, and nothing at a place whose prompt names it.
    app.compose.set("");
    for typed in ["@bob", "bob said so", "/send nobody said so", "#1! wins", "mail a@b c"] {
        assert!(request(&enter(&mut app, typed)).is_some(), "{typed}\n{}", text(&mut app, 100, 30));
    }
    app.go(place("#ops"));
    assert!(request(&enter(&mut app, "@bob look")).is_some());
}

#[test]
fn tab_goes_through_the_completions() {
    let mut app = connected();
    type_in(&mut app, "/go @");
    let mut seen = Vec::new();
    for _ in 0..4 {
        press(&mut app, "Tab");
        seen.push(app.compose.text());
        assert!(shows(&mut app, " @bob") && shows(&mut app, " @dora"), "{}", text(&mut app, 100, 30));
    }
    assert_eq!(seen, ["/go @bob ", "/go @carol ", "/go @dora ", "/go @bob "]);
    // The arrows go on from there, and Enter takes what is marked.
    press(&mut app, "Down");
    press(&mut app, "Enter");
    assert_eq!(app.here, place("@carol"));
    type_in(&mut app, "/se");
    press(&mut app, "Tab");
    press(&mut app, "Tab");
    assert_eq!(app.compose.text(), "/search ");
    press(&mut app, "Ctrl+u");
    // What is followed is offered as well, after any number of blanks.
    for (typed, completed) in [("/go  #de", "/go  #deploys "), ("/join #op", "/join #ops ")] {
        type_in(&mut app, typed);
        press(&mut app, "Tab");
        assert_eq!(app.compose.text(), completed);
        press(&mut app, "Ctrl+u");
    }
}

#[test]
fn looking_back_says_how_to_return() {
    let mut app = connected();
    let page = (1..80).map(|op| notification(op, &topic("#ops"), "bob", &format!("number {op}")));
    past(&mut app, Conversation::All, page.collect(), false);
    text(&mut app, 100, 30);
    for (key, returns) in [("Ctrl+End", true), ("End", true), ("Home", false)] {
        press(&mut app, "PgUp");
        assert!(shows(&mut app, "looking back (Ctrl+End: the newest)"), "{}", text(&mut app, 100, 30));
        press(&mut app, key);
        assert_eq!(!shows(&mut app, "looking back"), returns, "{key}");
    }
    type_in(&mut app, "a text has an end");
    press(&mut app, "End");
    assert!(shows(&mut app, "looking back"));
    press(&mut app, "Tab");
    assert!(shows(&mut app, "looking back (End: the newest)"));
}
