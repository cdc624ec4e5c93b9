//! Texts that are longer than the screen or than a notification.

use super::*;

#[test]
fn a_pasted_text_that_is_too_long_is_cleared_with_one_key() {
    let mut app = connected();
    let lines = "a line of the log\n".repeat(1_500);
    app.update(at(1), Event::Paste(lines.clone()));
    assert_eq!(request(&press(&mut app, "Enter")), None);
    assert!(shows(&mut app, "the text is too large") && shows(&mut app, "Ctrl+U clears"));
    assert_eq!(app.compose.text(), lines, "it stays, to be shortened");
    assert!(shows(&mut app, "WRITING (1501 lines)"), "{}", text(&mut app, 100, 30));
    press(&mut app, "Ctrl+u");
    assert!(app.compose.is_empty());
    assert!(!shows(&mut app, "too large") && !shows(&mut app, "lines)"), "{}", text(&mut app, 100, 30));
    enter(&mut app, "/foo");
    press(&mut app, "Esc");
    assert!(!shows(&mut app, "no command"), "it was about what is gone");
    // A paste beyond all measure is not taken at all.
    type_in(&mut app, "draft");
    app.update(at(1), Event::Paste("x".repeat(1 << 20)));
    assert!(shows(&mut app, "not pasted: it has 1048576 bytes") && app.compose.text() == "draft");
}

#[test]
fn a_long_text_is_folded_and_opens_whole() {
    let mut app = connected();
    let body = (1..=214).map(|n| format!("line {n} of 214")).collect::<Vec<_>>().join("\n");
    let page = vec![
        notification(5, &topic("#ops"), "bob", "before"),
        notification(6, &topic("#ops"), "bob", &body),
        notification(7, &topic("#ops"), "bob", "after"),
    ];
    past(&mut app, Conversation::All, page, false);
    let screen = text(&mut app, 100, 30);
    assert!(screen.contains("... 214 lines, Enter opens") && screen.contains("line 11 of 214"), "{screen}");
    assert!(
        screen.contains("before") && screen.contains("after") && !screen.contains("line 12 of"),
        "{screen}"
    );
    for key in ["Tab", "Up", "Enter"] {
        press(&mut app, key);
    }
    assert!(shows(&mut app, "line 15 of 214") && shows(&mut app, "@bob to #ops"));
    press(&mut app, "End");
    assert!(shows(&mut app, "line 214 of 214"));
    press(&mut app, "Esc");
    // It scrolls as one item.
    for _ in 0..4 {
        press(&mut app, "PgUp");
        press(&mut app, "PgDn");
    }
    assert!(shows(&mut app, "after"));
}

#[test]
fn clusters_are_drawn_as_what_every_terminal_counts_alike() {
    let mut app = connected();
    let body = "flag 🇧🇷 family 👩‍👩‍👧‍👦 end";
    past(&mut app, Conversation::All, vec![notification(5, &topic("#ops"), "bob", body)], false);
    type_in(&mut app, "🇧🇷 mine");
    let screen = text(&mut app, 100, 30);
    assert!(screen.contains("flag BR family 👩 end") && screen.contains("BR mine"), "{screen}");
    press(&mut app, "Tab");
    assert_eq!(press(&mut app, "Ctrl+y"), [Effect::Copy(body.to_owned())]);
}
