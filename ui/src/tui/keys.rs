//! Key bindings: one table that dispatches keys and is the help.
//!
//! A character without Ctrl or Alt is text wherever there is a text to type, so only the answers to a
//! question are characters. Letters with Alt are free as well: many terminals send Esc and a letter typed
//! soon after as the letter with Alt.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Part of the screen in which a binding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Everywhere,
    Writing,
    List,
    Places,
    /// Popups to read: help, the servers and others.
    Reading,
    /// Inputs of one line: a search, a name, a code, the palette.
    Asking,
    /// A question. It stays until it is answered.
    Question,
}

impl Scope {
    pub(crate) const ALL: [Scope; 7] = [
        Scope::Everywhere,
        Scope::Writing,
        Scope::List,
        Scope::Places,
        Scope::Reading,
        Scope::Asking,
        Scope::Question,
    ];

    pub(crate) fn heading(self) -> &'static str {
        match self {
            Scope::Everywhere => "Everywhere",
            Scope::Writing => "Writing",
            Scope::List => "In the notifications",
            Scope::Places => "In the list of places",
            Scope::Reading => "Reading this, or the servers",
            Scope::Asking => "Jumping, searching, naming",
            Scope::Question => "At a question",
        }
    }
}

/// Action of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Quit,
    Help,
    Servers,
    Palette,
    Repaint,
    Suspend,
    FocusNext,
    FocusBack,
    PlaceNext,
    PlaceBack,
    PlaceUnread,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Send,
    NewLine,
    Complete,
    EarlierText,
    LaterText,
    Leave,
    Command,
    Search,
    FoundBack,
    Open,
    Copy,
    Browse,
    Reply,
    Write,
    Mute,
    Accept,
    Yes,
    No,
}

/// A key with its modifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(KeyCode, KeyModifiers);

const fn key(code: KeyCode) -> Key {
    Key(code, KeyModifiers::NONE)
}

const fn char(c: char) -> Key {
    Key(KeyCode::Char(c), KeyModifiers::NONE)
}

const fn ctrl(c: char) -> Key {
    Key(KeyCode::Char(c), KeyModifiers::CONTROL)
}

const fn alt(code: KeyCode) -> Key {
    Key(code, KeyModifiers::ALT)
}

impl Key {
    fn is(&self, event: &KeyEvent) -> bool {
        // The character itself shows whether Shift was held.
        let modifiers = match event.code {
            KeyCode::Char(_) | KeyCode::BackTab => event.modifiers - KeyModifiers::SHIFT,
            _ => event.modifiers,
        };
        self.0 == event.code && self.1 == modifiers
    }

    /// Name of the key in the help.
    pub(crate) fn name(&self) -> String {
        let mut name = String::new();
        if self.1.contains(KeyModifiers::CONTROL) {
            name.push_str("Ctrl+");
        }
        if self.1.contains(KeyModifiers::ALT) {
            name.push_str("Alt+");
        }
        match self.0 {
            KeyCode::Char(' ') => name.push_str("Space"),
            KeyCode::Char(c) if self.1.is_empty() => name.push(c),
            KeyCode::Char(c) => name.push(c.to_ascii_uppercase()),
            KeyCode::F(n) => name.push_str(&format!("F{n}")),
            KeyCode::BackTab => name.push_str("Shift+Tab"),
            KeyCode::PageUp => name.push_str("PgUp"),
            KeyCode::PageDown => name.push_str("PgDn"),
            other => name.push_str(&other.to_string()),
        }
        name
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    pub(crate) scope: Scope,
    pub(crate) keys: &'static [Key],
    pub(crate) action: Action,
    pub(crate) help: &'static str,
}

const fn bind(scope: Scope, keys: &'static [Key], action: Action, help: &'static str) -> Binding {
    Binding { scope, keys, action, help }
}

use Scope::{Asking, Everywhere, List, Places, Question, Reading, Writing};

/// The table of all bindings. A binding of the current scope takes precedence over one of `Everywhere`;
/// within a scope the first binding of a key counts.
pub(crate) const TABLE: &[Binding] = &[
    bind(Everywhere, &[ctrl('c')], Action::Quit, "leave"),
    bind(Everywhere, &[key(KeyCode::F(1))], Action::Help, "this help"),
    bind(Everywhere, &[key(KeyCode::F(2))], Action::Servers, "the servers"),
    bind(Everywhere, &[ctrl('p')], Action::Palette, "jump to a topic or a person"),
    bind(Everywhere, &[key(KeyCode::Tab)], Action::FocusNext, "to the next part of the screen"),
    bind(Everywhere, &[key(KeyCode::BackTab)], Action::FocusBack, "to the part before"),
    bind(Everywhere, &[alt(KeyCode::Down)], Action::PlaceNext, "the next place in the list"),
    bind(Everywhere, &[alt(KeyCode::Up)], Action::PlaceBack, "the place before"),
    bind(Everywhere, &[alt(KeyCode::Right)], Action::PlaceUnread, "the next place with something unread"),
    bind(Everywhere, &[ctrl('r')], Action::Search, "search here, upwards; again: the next find"),
    bind(Everywhere, &[ctrl('x')], Action::Command, "a command; your text comes back after it"),
    bind(Everywhere, &[key(KeyCode::PageUp)], Action::PageUp, "a page back"),
    bind(Everywhere, &[key(KeyCode::PageDown)], Action::PageDown, "a page on"),
    bind(Everywhere, &[Key(KeyCode::End, KeyModifiers::CONTROL)], Action::Last, "to the newest"),
    bind(Everywhere, &[ctrl('l')], Action::Repaint, "draw everything again"),
    bind(Everywhere, &[ctrl('z')], Action::Suspend, "back to the shell; `fg` comes back here"),
    bind(Writing, &[key(KeyCode::Enter)], Action::Send, "send, or run a command"),
    bind(Writing, &[alt(KeyCode::Enter), ctrl('j')], Action::NewLine, "a new line"),
    bind(Writing, &[key(KeyCode::Tab)], Action::Complete, "complete a command (or the next part)"),
    bind(Writing, &[key(KeyCode::Up)], Action::EarlierText, "what was written before"),
    bind(Writing, &[key(KeyCode::Down)], Action::LaterText, "what was written after"),
    bind(Writing, &[key(KeyCode::Esc)], Action::Leave, "put a command away; Up brings it back"),
    bind(List, &[key(KeyCode::Up)], Action::Up, "up"),
    bind(List, &[key(KeyCode::Down)], Action::Down, "down"),
    bind(List, &[key(KeyCode::Home)], Action::First, "to the oldest fetched; again: older ones"),
    bind(List, &[key(KeyCode::End)], Action::Last, "to the newest"),
    bind(List, &[key(KeyCode::Enter)], Action::Open, "open the notification, with all its lines"),
    bind(List, &[ctrl('n')], Action::FoundBack, "the find before, downwards"),
    bind(List, &[ctrl('y')], Action::Copy, "copy the notification"),
    bind(List, &[ctrl('o')], Action::Browse, "open a link in it"),
    bind(List, &[ctrl('t')], Action::Reply, "write to its author"),
    bind(List, &[ctrl('s')], Action::Mute, "mute or unmute the topic"),
    bind(List, &[key(KeyCode::Esc)], Action::Leave, "to writing; a search ends"),
    bind(Places, &[key(KeyCode::Up)], Action::Up, "up"),
    bind(Places, &[key(KeyCode::Down)], Action::Down, "down"),
    bind(Places, &[key(KeyCode::Home)], Action::First, "the first"),
    bind(Places, &[key(KeyCode::End)], Action::Last, "the last"),
    bind(Places, &[key(KeyCode::Enter)], Action::Write, "write here"),
    bind(Places, &[ctrl('s')], Action::Mute, "mute or unmute the topic"),
    bind(Places, &[key(KeyCode::Esc)], Action::Leave, "to writing"),
    bind(Reading, &[key(KeyCode::Up)], Action::Up, "up"),
    bind(Reading, &[key(KeyCode::Down)], Action::Down, "down"),
    bind(Reading, &[key(KeyCode::PageUp), ctrl('u')], Action::PageUp, "a page back"),
    bind(Reading, &[key(KeyCode::PageDown), ctrl('d')], Action::PageDown, "a page on"),
    bind(Reading, &[key(KeyCode::Home)], Action::First, "to the beginning"),
    bind(Reading, &[key(KeyCode::End)], Action::Last, "to the end"),
    bind(Reading, &[key(KeyCode::Esc), key(KeyCode::Enter)], Action::Leave, "close it"),
    bind(Asking, &[key(KeyCode::Up), ctrl('k')], Action::Up, "up"),
    bind(Asking, &[key(KeyCode::Down), ctrl('n')], Action::Down, "down"),
    bind(Asking, &[key(KeyCode::Enter)], Action::Accept, "take it"),
    bind(Asking, &[key(KeyCode::Esc)], Action::Leave, "close it"),
    bind(Question, &[key(KeyCode::Enter)], Action::Accept, "take the answer that is marked"),
    bind(Question, &[key(KeyCode::Up), key(KeyCode::BackTab)], Action::Up, "the answer above"),
    bind(Question, &[key(KeyCode::Down), key(KeyCode::Tab)], Action::Down, "the answer below"),
    bind(
        Question,
        &[char('y')],
        Action::Yes,
        "yes: the first answer, whichever is marked; not within a second of other letters",
    ),
    bind(Question, &[key(KeyCode::Esc), char('n')], Action::No, "no"),
];

/// Action of this key in this scope.
pub(crate) fn lookup(scope: Scope, event: &KeyEvent) -> Option<Action> {
    let in_scope = |wanted: Scope| {
        TABLE.iter().find(|row| row.scope == wanted && row.keys.iter().any(|key| key.is(event)))
    };
    in_scope(scope).or_else(|| in_scope(Everywhere)).map(|row| row.action)
}

/// Name of the first key that has this action in this scope, for the mode line and the header.
pub(crate) fn key_in(scope: Scope, action: Action) -> Option<String> {
    let in_scope = |wanted: Scope| TABLE.iter().find(|row| row.scope == wanted && row.action == action);
    in_scope(scope).or_else(|| in_scope(Everywhere)).and_then(|row| row.keys.first()).map(Key::name)
}

/// Returns true if the key types a character, without Ctrl and Alt.
pub(crate) fn is_character(event: &KeyEvent) -> bool {
    matches!(event.code, KeyCode::Char(_)) && (event.modifiers - KeyModifiers::SHIFT).is_empty()
}

/// Returns true if the key is one of those with which a text is typed and ended.
pub(crate) fn is_typed_on(event: &KeyEvent) -> bool {
    is_character(event) || event.code == KeyCode::Enter
}

/// Name of the first key that has this action, for hints.
pub(crate) fn key_for(action: Action) -> String {
    TABLE
        .iter()
        .find(|row| row.action == action)
        .and_then(|row| row.keys.first())
        .map(Key::name)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode, modifiers: KeyModifiers) -> KeyEvent {
        KeyEvent::new(code, modifiers)
    }

    #[test]
    fn a_scope_wins_over_everywhere_and_shift_does_not_count_on_characters() {
        let tab = press(KeyCode::Tab, KeyModifiers::NONE);
        assert_eq!(lookup(Writing, &tab), Some(Action::Complete));
        assert_eq!(lookup(List, &tab), Some(Action::FocusNext));
        assert_eq!(lookup(Question, &press(KeyCode::Char('y'), KeyModifiers::SHIFT)), Some(Action::Yes));
        assert_eq!(lookup(Writing, &press(KeyCode::Char('g'), KeyModifiers::NONE)), None);
        for scope in Scope::ALL {
            assert_eq!(lookup(scope, &press(KeyCode::Char('c'), KeyModifiers::CONTROL)), Some(Action::Quit));
        }
    }

    #[test]
    fn no_character_is_a_command_where_a_text_can_be_typed() {
        for scope in Scope::ALL.into_iter().filter(|scope| *scope != Question) {
            for c in ' '..='~' {
                for modifiers in [KeyModifiers::NONE, KeyModifiers::SHIFT, KeyModifiers::ALT] {
                    assert_eq!(lookup(scope, &press(KeyCode::Char(c), modifiers)), None, "{scope:?} {c:?}");
                }
            }
        }
    }

    #[test]
    fn no_key_has_two_meanings_in_one_scope() {
        for (at, row) in TABLE.iter().enumerate() {
            for other in TABLE.iter().skip(at + 1).filter(|other| other.scope == row.scope) {
                let shared = row.keys.iter().find(|key| other.keys.contains(key));
                assert!(shared.is_none(), "{:?}: {:?} and {:?}", row.scope, row.action, other.action);
            }
        }
    }

    #[test]
    fn keys_are_named_as_people_say_them() {
        assert_eq!(key_for(Action::Quit), "Ctrl+C");
        assert_eq!(key_for(Action::NewLine), "Alt+Enter");
        assert_eq!(key_for(Action::PageUp), "PgUp");
        assert_eq!(key_for(Action::FoundBack), "Ctrl+N");
    }
}
