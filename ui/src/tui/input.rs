//! Text that is being typed: the compose line, which has several lines, and inputs of one line.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::Widget;
use ratatui_textarea::{CursorMove, TextArea, WrapMode};
use unicode_segmentation::UnicodeSegmentation;

use super::app::Target;
use super::{command, wrap};
use crate::text::{clean_line, sanitize};

/// Number of earlier texts that can be recalled.
const EARLIER_MAX: usize = 100;

/// Edits as a shell's line editor does. Returns true if the text changed.
fn edit(area: &mut TextArea<'static>, key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let alt = key.modifiers.contains(KeyModifiers::ALT);
    match key.code {
        // Many terminals send Esc and a letter typed soon after as the letter with Alt, so none deletes.
        KeyCode::Char(c) if alt && !matches!(c, 'b' | 'f') => false,
        KeyCode::Char('u') if control => area.delete_line_by_head(),
        KeyCode::Char('_' | '7') if control => area.undo(),
        // The editor gives these control characters a meaning that users do not expect.
        KeyCode::Char('m' | 'r') if control => false,
        KeyCode::Backspace | KeyCode::Delete | KeyCode::Left | KeyCode::Right if !control && !alt => {
            by_letter(area, key)
        }
        KeyCode::Char('h' | 'd' | 'b' | 'f') if control => by_letter(area, key),
        _ => area.input(key),
    }
}

/// Deletes a letter, or moves the cursor over it. The editor counts characters, and what people see as one
/// letter may be several of them: a flag, a family, an emoji with a skin tone.
fn by_letter(area: &mut TextArea<'static>, key: KeyEvent) -> bool {
    let back = matches!(key.code, KeyCode::Backspace | KeyCode::Left | KeyCode::Char('h' | 'b'));
    let (row, column) = (area.cursor().0, area.cursor().1);
    let (before, behind) = split_at(area.lines().get(row).map_or("", String::as_str), column);
    let letter = if back { before.graphemes(true).next_back() } else { behind.graphemes(true).next() };
    let characters = letter.map_or(1, |letter| letter.chars().count());
    let mut changed = false;
    for _ in 0..characters {
        changed |= area.input(key);
    }
    changed
}

/// Rows that a text takes in so many columns, as the editor draws it.
pub(crate) fn drawn_rows(text: &TextArea<'static>, columns: u16) -> u16 {
    if let [line] = text.lines()
        && line.is_ascii()
        && line.len() <= columns.into()
    {
        return 1;
    }
    let probe = area(&text.lines().join("\n"));
    let room = Rect::new(0, 0, columns, 1);
    probe.render(room, &mut Buffer::empty(room));
    u16::try_from(probe.screen_cursor().row + 1).unwrap_or(u16::MAX)
}

/// Splits a line before the character of this index.
fn split_at(line: &str, column: usize) -> (&str, &str) {
    let at = line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
    line.split_at(at)
}

/// Row and column of the cursor in the drawing, counted from its upper left corner. The editor counts the
/// columns of single characters; they are drawn as letters, which may have fewer.
pub(crate) fn drawn_cursor(area: &TextArea<'static>) -> (usize, usize) {
    let drawn = area.screen_cursor();
    let (row, column) = (area.cursor().0, area.cursor().1);
    let begin = area.screen_to_data(drawn.row, 0);
    let line = area.lines().get(row).map_or("", String::as_str);
    let (before, _) = split_at(line, column);
    let (_, shown) = split_at(before, if begin.0 == row { begin.1 } else { 0 });
    // A tab is as wide as the editor makes it.
    let columns = if shown.contains('\t') { drawn.col } else { wrap::width(shown) };
    (drawn.row, columns)
}

fn area(text: &str) -> TextArea<'static> {
    let mut area = TextArea::new(text.split('\n').map(str::to_owned).collect());
    area.set_cursor_line_style(ratatui::style::Style::new());
    // The terminal's cursor is drawn in its place.
    area.set_cursor_style(ratatui::style::Style::new());
    area.set_wrap_mode(WrapMode::WordOrGlyph);
    area.set_max_histories(200);
    area.move_cursor(CursorMove::Bottom);
    area.move_cursor(CursorMove::End);
    area
}

/// An earlier text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Earlier {
    text: String,
    /// For whom it was. It comes back only there, so that no key sends it to others. A command comes back
    /// anywhere: it says itself whom it concerns.
    to: Target,
}

impl Earlier {
    fn is_for(&self, to: &Target) -> bool {
        self.to == *to || command::typed(&self.text).is_some()
    }
}

/// The compose line: a draft, which may be a command, and the earlier texts.
#[derive(Clone, Debug)]
pub(crate) struct Compose {
    area: TextArea<'static>,
    earlier: Vec<Earlier>,
    /// Index of the earlier text that is shown, and the draft that it replaced.
    recalled: Option<(usize, String)>,
    /// The draft that was put aside when a command was begun.
    aside: Option<String>,
}

impl Default for Compose {
    fn default() -> Compose {
        Compose { area: area(""), earlier: Vec::new(), recalled: None, aside: None }
    }
}

impl Compose {
    pub(crate) fn area(&self) -> &TextArea<'static> {
        &self.area
    }

    pub(crate) fn text(&self) -> String {
        self.area.lines().join("\n")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.area.is_empty()
    }

    /// The command that is being typed, without its sign.
    pub(crate) fn command(&self) -> Option<String> {
        command::typed(&self.text()).map(str::to_owned)
    }

    /// The text that would be lost if the program ended now. A command of one line is none; the text behind
    /// it is.
    pub(crate) fn draft(&self) -> Option<String> {
        let text = self.text();
        let is_line = self.command().is_some() && !text.trim().contains('\n');
        let text = if is_line { self.aside.clone()? } else { text };
        (!text.trim().is_empty()).then_some(text)
    }

    /// Returns true if there is a text, also one behind a command.
    pub(crate) fn has_draft(&self) -> bool {
        let recalled = self.recalled.as_ref().is_some_and(|(_, draft)| !draft.is_empty());
        recalled || if self.command().is_some() { self.aside.is_some() } else { !self.is_empty() }
    }

    /// Handles a key without a binding.
    pub(crate) fn input(&mut self, key: KeyEvent) {
        let clears = key.code == KeyCode::Char('u') && key.modifiers.contains(KeyModifiers::CONTROL);
        let changed = if clears { self.clear_before() } else { edit(&mut self.area, key) };
        if changed {
            self.recalled = None;
        }
    }

    /// Clears everything before the cursor, in all lines, so that one key clears a text of any length.
    fn clear_before(&mut self) -> bool {
        if self.at_edge(true) {
            return self.area.delete_line_by_head();
        }
        self.area.start_selection();
        self.area.move_cursor(CursorMove::Top);
        self.area.move_cursor(CursorMove::Head);
        self.area.cut()
    }

    pub(crate) fn new_line(&mut self) {
        self.recalled = None;
        self.area.insert_newline();
    }

    /// Inserts pasted text, without the characters that a terminal might obey.
    pub(crate) fn paste(&mut self, text: &str) {
        self.recalled = None;
        self.area.insert_str(sanitize(&text.replace("\r\n", "\n").replace('\r', "\n")));
    }

    pub(crate) fn set(&mut self, text: &str) {
        self.area = area(text);
    }

    /// Takes the draft of the place that is left, and begins with that of the place that is shown. A command
    /// belongs to no place: it stays, over the other draft.
    pub(crate) fn exchange(&mut self, next: String) -> String {
        let recalled = self.recalled.take().map(|(_, draft)| draft);
        if self.command().is_some() {
            let aside = self.aside.take();
            self.aside = (!next.is_empty()).then_some(next);
            return recalled.or(aside).unwrap_or_default();
        }
        let left = recalled.unwrap_or_else(|| self.text());
        self.set(&next);
        left
    }

    /// Number of rows that were scrolled out at the top at the last drawing.
    pub(crate) fn hidden_rows(&self) -> u16 {
        self.area.scroll_offset().0
    }

    /// Makes the next drawing scroll anew: from the beginning, as far as the cursor needs.
    pub(crate) fn rescroll(&mut self) {
        let (row, column) = (self.area.cursor().0, self.area.cursor().1);
        self.area.scroll((-i16::MAX, 0));
        let to = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        self.area.move_cursor(CursorMove::Jump(to(row), to(column)));
    }

    /// Puts the draft aside and begins a command.
    pub(crate) fn begin_command(&mut self) {
        if self.command().is_none() {
            let draft = self.text();
            self.aside = (!draft.is_empty()).then_some(draft);
            self.set("/");
        }
    }

    /// Replaces the command's text from byte `from` on, and begins the next argument.
    pub(crate) fn complete(&mut self, from: usize, with: &str) {
        let text = self.text();
        let Some(kept) = text.get(..=from) else { return };
        self.set(&format!("{kept}{with} "));
    }

    /// Takes the text out, to be sent, run or put away, and restores the draft that was put aside. The
    /// earlier texts keep it, for this destination.
    pub(crate) fn take(&mut self, to: Target) -> String {
        let text = self.text();
        let one = Earlier { text: text.clone(), to };
        if !text.trim().is_empty() && self.earlier.last() != Some(&one) {
            self.earlier.push(one);
            if self.earlier.len() > EARLIER_MAX {
                self.earlier.remove(0);
            }
        }
        self.drop_text();
        text
    }

    /// Drops a command, and restores the draft that was put aside.
    fn drop_text(&mut self) {
        self.recalled = None;
        let draft = self.aside.take().unwrap_or_default();
        self.set(&draft);
    }

    /// Returns true if the cursor is in the first line of the text, or in the last one if `first` is false.
    pub(crate) fn at_edge(&self, first: bool) -> bool {
        let row = self.area.cursor().0;
        if first { row == 0 } else { row + 1 == self.area.lines().len() }
    }

    /// Returns true if an earlier text is shown, as it was.
    pub(crate) fn is_recalled(&self) -> bool {
        self.recalled.is_some()
    }

    /// Shows the text for this destination, or the command, that was written before the one shown.
    pub(crate) fn earlier(&mut self, to: &Target) {
        let shown = self.recalled.as_ref().map_or(self.earlier.len(), |(at, _)| *at);
        let before = self.earlier.iter().take(shown).rposition(|one| one.is_for(to));
        let Some((at, one)) = before.and_then(|at| Some((at, self.earlier.get(at)?.text.clone()))) else {
            return;
        };
        let draft = self.recalled.take().map_or_else(|| self.text(), |(_, draft)| draft);
        self.set(&one);
        self.recalled = Some((at, draft));
    }

    /// Shows the one that was written after the one shown, and the draft after the last.
    pub(crate) fn later(&mut self, to: &Target) {
        let Some((shown, draft)) = self.recalled.take() else { return };
        let mut after = self.earlier.iter().enumerate().skip(shown + 1);
        match after.find(|(_, one)| one.is_for(to)).map(|(at, one)| (at, one.text.clone())) {
            Some((at, text)) => {
                self.set(&text);
                self.recalled = Some((at, draft));
            }
            None => self.set(&draft),
        }
    }
}

/// An input of one line: a search, a name, a code.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    area: TextArea<'static>,
}

impl Default for Input {
    fn default() -> Input {
        let mut area = area("");
        area.set_wrap_mode(WrapMode::None);
        Input { area }
    }
}

impl Input {
    pub(crate) fn area(&self) -> &TextArea<'static> {
        &self.area
    }

    pub(crate) fn text(&self) -> String {
        self.area.lines().concat()
    }

    pub(crate) fn input(&mut self, key: KeyEvent) {
        if key.code != KeyCode::Enter {
            edit(&mut self.area, key);
        }
    }

    pub(crate) fn paste(&mut self, text: &str) {
        self.area.insert_str(clean_line(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(compose: &mut Compose, text: &str) {
        for c in text.chars() {
            compose.input(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE));
        }
    }

    fn control(c: char) -> KeyEvent {
        KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)
    }

    #[test]
    fn the_keys_of_a_shell_edit_the_line() {
        let mut compose = Compose::default();
        typed(&mut compose, "one two three");
        compose.input(control('w'));
        assert_eq!(compose.text(), "one two ");
        compose.input(control('a'));
        typed(&mut compose, "x");
        assert_eq!(compose.text(), "xone two ");
        compose.input(control('k'));
        assert_eq!(compose.text(), "x");
        compose.input(control('y'));
        assert_eq!(compose.text(), "xone two ");
        compose.input(control('u'));
        assert_eq!(compose.text(), "");
    }

    /// A family, a flag, a thumb with a skin tone, a heart with a variation selector, and an accent.
    const LETTERS: [&str; 5] = ["👩‍👩‍👧‍👦", "🇧🇷", "👍🏽", "❤\u{fe0f}", "e\u{301}"];

    #[test]
    fn backspace_and_the_arrows_take_whole_letters() {
        let press = |compose: &mut Compose, code| compose.input(KeyEvent::new(code, KeyModifiers::NONE));
        for letter in LETTERS {
            let mut compose = Compose::default();
            typed(&mut compose, &format!("a{letter}{letter}b"));
            for code in [KeyCode::Left, KeyCode::Left, KeyCode::Delete] {
                press(&mut compose, code);
            }
            assert_eq!(compose.text(), format!("a{letter}b"), "{letter}");
            press(&mut compose, KeyCode::Right);
            press(&mut compose, KeyCode::Backspace);
            press(&mut compose, KeyCode::Backspace);
            assert_eq!(compose.text(), "a", "{letter}");
        }
    }

    #[test]
    fn the_cursor_stands_where_the_letters_before_it_end() {
        let mut compose = Compose::default();
        typed(&mut compose, &LETTERS.concat());
        let area = Rect::new(0, 0, 20, 4);
        for text in [String::new(), format!(" {} {}", "x".repeat(10), LETTERS.concat())] {
            typed(&mut compose, &text);
            let mut buffer = Buffer::empty(area);
            compose.area().render(area, &mut buffer);
            let (row, column) = drawn_cursor(compose.area());
            let (mut drawn, mut at) = (String::new(), 0);
            while at < area.width {
                let symbol = buffer[(at, row as u16)].symbol();
                drawn.push_str(symbol);
                at += wrap::width(symbol) as u16;
            }
            assert_eq!(column, wrap::width(drawn.trim_end()), "{drawn:?} in row {row}");
        }
    }

    #[test]
    fn a_paste_keeps_its_lines_and_loses_its_escapes() {
        let mut compose = Compose::default();
        compose.paste("one\r\ntwo\u{1b}[31m");
        assert_eq!(compose.text(), "one\ntwo");
        let mut input = Input::default();
        input.paste("two\nlines");
        assert_eq!(input.text(), "two lines");
    }

    #[test]
    fn a_command_over_a_draft_gives_the_draft_back() {
        let mut compose = Compose::default();
        typed(&mut compose, "half a sentence");
        compose.begin_command();
        typed(&mut compose, "fol");
        assert_eq!(compose.command().as_deref(), Some("fol"));
        compose.complete(0, "follow");
        assert_eq!(compose.text(), "/follow ");
        typed(&mut compose, "@bob");
        assert_eq!(compose.take(to("#ops")), "/follow @bob");
        assert_eq!(compose.text(), "half a sentence");
    }

    fn to(who: &str) -> Target {
        Target::Topic(Some(recado_client::Topic::to_send(who).unwrap()))
    }

    #[test]
    fn what_was_written_comes_back_and_so_does_the_draft() {
        let mut compose = Compose::default();
        for text in ["one", "two"] {
            typed(&mut compose, text);
            compose.take(to("#ops"));
        }
        typed(&mut compose, "draft");
        compose.earlier(&to("#ops"));
        compose.earlier(&to("#ops"));
        assert_eq!(compose.text(), "one");
        compose.earlier(&to("#ops"));
        assert_eq!(compose.text(), "one");
        compose.later(&to("#ops"));
        assert_eq!(compose.text(), "two");
        compose.later(&to("#ops"));
        assert_eq!(compose.text(), "draft");
    }

    #[test]
    fn a_text_comes_back_only_for_whom_it_was_and_a_command_anywhere() {
        let mut compose = Compose::default();
        for (text, who) in [("secret", "@bob"), ("/go #ops", "@bob"), ("public", "#ops")] {
            typed(&mut compose, text);
            compose.take(to(who));
        }
        for (who, texts) in [("@bob", ["/go #ops", "secret"]), ("#ops", ["public", "/go #ops"])] {
            for text in texts {
                compose.earlier(&to(who));
                assert_eq!(compose.text(), text, "{who}");
            }
            compose.earlier(&to(who));
            assert_eq!(compose.text(), texts[1], "there is no more: {who}");
            compose.later(&to(who));
            assert_eq!(compose.text(), texts[0], "{who}");
            compose.later(&to(who));
            assert!(compose.is_empty());
        }
    }
}
