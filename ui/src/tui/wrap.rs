//! Line wrapping by display width, at word boundaries where possible.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Width of `text` in columns.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// Wraps `text` into lines of at most `width` columns; the first line has at most `first`. Line ends of the
/// text are kept, tabs become spaces, and a word that is longer than a line is broken between graphemes.
pub(crate) fn wrap(text: &str, first: usize, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for part in text.split('\n') {
        let room = if lines.is_empty() { first } else { width };
        paragraph(part, room, width.max(1), &mut lines);
    }
    lines
}

fn paragraph(text: &str, first: usize, width: usize, lines: &mut Vec<String>) {
    let text = text.replace('\t', "    ");
    let mut line = String::new();
    let (mut used, mut room) = (0, first);
    let mut end_line = |line: &mut String| lines.push(std::mem::take(line).trim_end().to_owned());
    for word in words(&text) {
        let columns = self::width(word);
        if used + columns <= room {
            line.push_str(word);
            used += columns;
        } else if word.trim().is_empty() {
            // The blank at which the line breaks is dropped.
            end_line(&mut line);
            (used, room) = (0, width);
        } else if columns <= width {
            end_line(&mut line);
            room = width;
            line.push_str(word);
            used = columns;
        } else {
            for grapheme in word.graphemes(true) {
                let columns = self::width(grapheme);
                if used + columns > room && (used > 0 || room < width) {
                    end_line(&mut line);
                    (used, room) = (0, width);
                }
                line.push_str(grapheme);
                used += columns;
            }
        }
    }
    end_line(&mut line);
}

/// Splits a line where it may be broken: around blanks, and before and after wide letters, as is usual for
/// East Asian text. Punctuation next to a word, such as a full stop or a bracket, stays with the word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut begins = Vec::new();
    let mut before: Option<char> = None;
    for (at, piece) in text.split_word_bound_indices() {
        let blank = |c: char| c.is_whitespace();
        let wide = |c: char| c.is_alphanumeric() && c.width() == Some(2);
        let first = piece.chars().next();
        let apart = |one: char, other: char| blank(one) != blank(other) || wide(one) || wide(other);
        let stays = first.is_some_and(|c| !c.is_alphanumeric() && !blank(c));
        if before.zip(first).is_some_and(|(one, other)| apart(one, other) && (!stays || blank(one))) {
            begins.push(at);
        }
        before = piece.chars().last();
    }
    begins.push(text.len());
    let mut from = 0;
    begins.into_iter().map(move |to| {
        let word = &text[from..to];
        from = to;
        word
    })
}

/// The beginning of a line, at most `width` columns wide, with `..` where it was cut.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if self::width(text) <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for grapheme in text.graphemes(true) {
        let columns = self::width(grapheme);
        if used + columns + 2 > width {
            break;
        }
        out.push_str(grapheme);
        used += columns;
    }
    out.push_str(&".."[..2.min(width.saturating_sub(used))]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_whole_where_they_fit() {
        assert_eq!(wrap("one two three", 9, 9), ["one two", "three"]);
        assert_eq!(wrap("one two three", 4, 9), ["one", "two three"]);
        assert_eq!(wrap("a\n\nb", 9, 9), ["a", "", "b"]);
        assert_eq!(wrap("", 9, 9), [""]);
        assert_eq!(wrap("to staging.", 10, 10), ["to", "staging."]);
        assert_eq!(wrap("one (two) e.g. f", 9, 9), ["one (two)", "e.g. f"]);
    }

    #[test]
    fn width_counts_columns_and_graphemes_stay_whole() {
        assert_eq!(wrap("日本語テスト", 6, 6), ["日本語", "テスト"]);
        let family = "👨‍👩‍👧";
        for line in wrap(&family.repeat(5), 5, 5) {
            assert!(width(&line) <= 5 && line.len() % family.len() == 0, "{line:?}");
        }
    }

    #[test]
    fn a_word_longer_than_a_line_is_broken_and_nothing_is_lost() {
        let word = "x".repeat(100);
        let lines = wrap(&format!("a {word} b"), 10, 10);
        assert!(lines.iter().all(|line| width(line) <= 10), "{lines:?}");
        assert_eq!(lines.concat().replace(' ', "").len(), 102);
        assert!(!wrap("wide 日", 1, 1).is_empty(), "a glyph wider than the line ends all the same");
    }

    #[test]
    fn a_cut_text_ends_in_dots_within_the_width() {
        assert_eq!(cut("server", 6), "server");
        assert_eq!(cut("servers", 6), "serv..");
        assert_eq!(cut("日本語", 5), "日..");
        assert_eq!(cut("abc", 1), ".");
    }
}
