//! Prose is text wherever the focus is; the mode line says what the keys do.

use super::*;
use crate::tui::keys::Scope;

/// Something that can be muted, copied and opened, selected in the list of everything.
fn with_a_selection() -> App {
    let mut app = connected();
    let body = "see https://example.com/a";
    past(&mut app, Conversation::All, vec![notification(5, &topic("#ops"), "bob", body)], false);
    app
}

/// Every part of the screen that can have the focus without a question, and how it is reached.
const WAYS: [(&str, &[&str]); 7] = [
    ("writing", &[]),
    ("the list", &["Tab"]),
    ("the places", &["Tab", "Tab"]),
    ("after a search", &["Ctrl+r", "s", "e", "Enter"]),
    ("the help", &["F1"]),
    ("the servers", &["F2"]),
    ("a notification", &["Tab", "Enter"]),
];

#[test]
fn prose_typed_anywhere_is_the_text_and_nothing_else() {
    for (way, keys) in WAYS {
        for prose in ["my q", "yo: are you there? :q", "N/A, quit", "Good morning gg"] {
            let mut app = with_a_selection();
            text(&mut app, 100, 30);
            for key in keys {
                press(&mut app, key);
            }
            let mut effects = Vec::new();
            for c in prose.chars() {
                let key = crossterm::event::KeyEvent::from(crossterm::event::KeyCode::Char(c));
                effects.extend(app.update(app.now, Event::Key(key)));
            }
            effects.retain(|effect| *effect != Effect::Watch(false));
            assert_eq!(effects, [], "{way}");
            assert_eq!((app.compose.text().as_str(), app.focus), (prose, Focus::Writing), "{way}");
            assert!(app.popup.is_none() && !app.places.is_muted(&topic("#ops")), "{way}");
            assert_eq!(app.here, Conversation::All, "{way}");
        }
    }
}

#[test]
fn prose_typed_after_commands_that_show_the_list_is_the_text() {
    for command in ["/since 30d", "/search see", "/go #ops", "/history #ops"] {
        let mut app = with_a_selection();
        text(&mut app, 100, 30);
        enter(&mut app, command);
        type_in(&mut app, "my q");
        assert_eq!(app.compose.text(), "my q", "{command}");
        assert!(!app.places.is_muted(&topic("#ops")), "{command}");
    }
}

#[test]
fn a_letter_with_alt_as_after_a_quick_esc_does_nothing() {
    for (way, keys) in WAYS {
        for c in 'a'..='z' {
            let mut app = with_a_selection();
            text(&mut app, 100, 30);
            for key in keys {
                press(&mut app, key);
            }
            let here = app.here.clone();
            app.compose.paste("a draft");
            assert_eq!(press(&mut app, &format!("Alt+{c}")), [], "{way}: Alt+{c}");
            assert_eq!(app.compose.text(), "a draft", "{way}: Alt+{c}");
            assert!(app.here == here && !app.places.is_muted(&topic("#ops")), "{way}: Alt+{c}");
        }
    }
}

#[test]
fn esc_closes_what_is_open_goes_to_writing_and_keeps_the_text() {
    for (way, keys) in WAYS {
        let mut app = with_a_selection();
        text(&mut app, 100, 30);
        app.compose.paste("a draft");
        for key in keys {
            press(&mut app, key);
        }
        let was_read = app.popup.is_some();
        press(&mut app, "Esc");
        assert!(app.popup.is_none() && app.search.is_none(), "{way}");
        if !was_read {
            assert_eq!(app.focus, Focus::Writing, "{way}");
        }
        press(&mut app, "Esc");
        assert_eq!((app.compose.text().as_str(), app.focus), ("a draft", Focus::Writing), "{way}");
    }
}

#[test]
fn a_slash_begins_a_command_at_the_beginning_of_a_text_and_is_a_letter_elsewhere() {
    for (way, keys) in WAYS {
        let mut app = with_a_selection();
        text(&mut app, 100, 30);
        for key in keys {
            press(&mut app, key);
        }
        type_in(&mut app, "/mu");
        assert_eq!(app.compose.command().as_deref(), Some("mu"), "{way}");
        assert!(shows(&mut app, "COMMAND   Enter runs it"), "{way}\n{}", text(&mut app, 100, 30));
        press(&mut app, "Ctrl+u");
        type_in(&mut app, "and/or");
        assert!(app.compose.command().is_none(), "{way}");
    }
}

#[test]
fn the_mode_line_names_the_focus_and_keys_that_work() {
    for (keys, told) in [
        (&[][..], "WRITING   Enter sends   Tab notifications"),
        (&["Tab"], "LIST   letters write   Esc to writing   Enter opens   Ctrl+T answers"),
        (&["Tab", "Tab"], "PLACES   letters write   Esc to writing"),
        (&["Ctrl+r"], "SEARCH   Up next above"),
        (&["Ctrl+r", "s"], "SEARCH: 1 of 1   Up next above"),
        (&["Ctrl+r", "x", "x"], "SEARCH: nothing found"),
        (&["Ctrl+r", "s", "Enter"], "SEARCH: 1 of 1   letters write"),
        (&["F1"], "READING   letters go to your text   Esc closes"),
        (&["Ctrl+p"], "CHOOSING   letters narrow it   Enter goes there   Esc closes"),
        (&["Tab", "Ctrl+o"], "QUESTION   Enter takes the marked answer   Down next   y yes   Esc no"),
    ] {
        let mut app = with_a_selection();
        text(&mut app, 100, 30);
        for key in keys {
            press(&mut app, key);
        }
        for (width, height) in [(100, 30), (80, 24), (60, 14)] {
            let screen = text(&mut app, width, height);
            let line = screen.lines().nth(usize::from(height) - 2).unwrap_or_default();
            let most = line.trim().len().min(told.len());
            assert!(line.trim().starts_with(&told[..most.min(36)]), "{keys:?} {width}: {line}\n{screen}");
        }
        assert!(shows(&mut app, told), "{keys:?}\n{}", text(&mut app, 100, 30));
    }
    let mut first = app(None);
    assert!(shows(&mut first, "NAME   Enter takes it"), "{}", text(&mut first, 100, 30));
}

#[test]
fn a_command_over_a_draft_gives_the_draft_back() {
    let mut app = with_a_selection();
    type_in(&mut app, "half a sentence");
    press(&mut app, "Ctrl+x");
    enter(&mut app, "title Disk full");
    assert_eq!(app.compose.text(), "half a sentence");
    assert!(shows(&mut app, "with title Disk full"));
}

#[test]
fn ctrl_c_over_a_text_asks_and_the_text_stays_with_a_no() {
    let mut app = with_a_selection();
    type_in(&mut app, "half a sentence");
    assert_eq!(press(&mut app, "Ctrl+c"), []);
    assert!(shows(&mut app, "is not sent and would be lost"));
    assert_eq!(press(&mut app, "Esc"), []);
    assert_eq!(app.compose.text(), "half a sentence");
    // A command is no text, but the text that it put aside is.
    press(&mut app, "Ctrl+x");
    assert_eq!(enter(&mut app, "quit"), []);
    assert!(shows(&mut app, "would be lost"));
    assert!(press(&mut app, "Ctrl+c").contains(&Effect::Quit), "twice is an answer");
    let mut app = with_a_selection();
    type_in(&mut app, "/half a command");
    assert!(press(&mut app, "Ctrl+c").contains(&Effect::Quit));
}

#[test]
fn a_question_stays_until_it_is_answered_and_says_so() {
    let mut app = with_a_selection();
    type_in(&mut app, "not sent yet");
    press(&mut app, "Ctrl+c");
    assert!(
        shows(&mut app, "y  Leave without it") && shows(&mut app, "n  Stay"),
        "{}",
        text(&mut app, 100, 30)
    );
    for key in ["x", "!", "F1", "F2", "Ctrl+p", "Ctrl+r", "PgUp", "Alt+y"] {
        press(&mut app, key);
        assert_eq!((app.scope(), app.compose.text().as_str()), (Scope::Question, "not sent yet"), "{key}");
    }
    assert!(shows(&mut app, "answer the question first"));
    app.on_paste("y");
    assert_eq!((app.scope(), app.compose.text().as_str()), (Scope::Question, "not sent yet"));
    // A text that is typed on, with its Enter, does nothing, and moves no mark.
    let marked = |app: &App| match &app.popup {
        Some(Popup::Question(question)) => question.marked,
        other => panic!("{other:?}"),
    };
    type_in(&mut app, "jk my name is y");
    assert_eq!(press(&mut app, "Enter"), []);
    assert_eq!((app.scope(), app.compose.text().as_str()), (Scope::Question, "not sent yet"));
    assert_eq!(marked(&app), 0);
    // After a second without a key, a letter is an answer again.
    app.update(at(2), Event::Tick);
    assert!(press(&mut app, "y").contains(&Effect::Quit));
    press(&mut app, "Ctrl+c");
    for way in ["n", "Esc"] {
        assert_eq!(press(&mut app, way), [], "{way}");
        assert_eq!((app.scope(), app.compose.text().as_str()), (Scope::Writing, "not sent yet"), "{way}");
        press(&mut app, "Ctrl+c");
    }
    // Enter takes the answer that is marked.
    press(&mut app, "Down");
    assert_eq!(press(&mut app, "Enter"), []);
    assert_eq!(app.scope(), Scope::Writing);
    press(&mut app, "Ctrl+c");
    press(&mut app, "Down");
    press(&mut app, "Up");
    assert!(press(&mut app, "Enter").contains(&Effect::Quit));
}
