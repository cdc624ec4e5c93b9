//! Replaces clusters of characters on whose width terminals disagree.
//!
//! Flags, families joined by U+200D, emoji with a skin tone or a variation selector, and keycaps take two
//! columns in the tables of this program. tmux and older terminals count their characters one by one, so
//! they draw the rest of the row elsewhere, and what is drawn there later leaves ghosts. A simpler text of
//! the same width, on which all agree, stands for each: the first person of the family, the letters of the
//! flag. Only the drawing changes, not the text that is sent or copied.

use ratatui::buffer::Buffer;
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// Replaces all such clusters of a drawing.
pub(super) fn simplify(buffer: &mut Buffer) {
    let width = usize::from(buffer.area.width);
    for at in 0..buffer.content.len() {
        // Most cells hold one letter.
        let symbol = buffer.content[at].symbol();
        if symbol.len() < 4 || !symbol.chars().any(is_disputed) {
            continue;
        }
        let columns = symbol.width();
        let simple = simple(symbol, columns);
        let row_end = (at / width + 1) * width;
        let mut cells = buffer.content[at..row_end.min(at + columns)].iter_mut();
        for grapheme in simple.graphemes(true) {
            let Some(cell) = cells.next() else { break };
            cell.set_symbol(grapheme);
            // The second column of a wide character.
            for _ in 1..grapheme.width() {
                cells.next();
            }
        }
        cells.for_each(|cell| {
            cell.set_symbol(" ");
        });
    }
}

/// Returns true if terminals disagree on the width of a cluster with this character.
fn is_disputed(c: char) -> bool {
    matches!(c, '\u{200d}' | '\u{fe0f}' | '\u{20e3}' | '\u{1f1e6}'..='\u{1f1ff}' | '\u{1f3fb}'..='\u{1f3ff}' | '\u{e0020}'..='\u{e007f}')
}

/// A text for this cluster, at most `columns` wide, without a disputed character.
fn simple(cluster: &str, columns: usize) -> String {
    let mut text = String::new();
    for c in cluster.chars() {
        let plain = match c {
            '\u{1f1e6}'..='\u{1f1ff}' => {
                char::from_u32(u32::from(c) - 0x1f1e6 + u32::from('A')).unwrap_or('?')
            }
            // Only the first of what is joined is drawn.
            '\u{200d}' => break,
            c if is_disputed(c) => continue,
            c => c,
        };
        let with = format!("{text}{plain}");
        if with.width() > columns {
            break;
        }
        text = with;
    }
    text
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    #[test]
    fn a_row_keeps_its_columns_and_has_nothing_that_terminals_count_differently() {
        for (text, shown) in [
            ("a🇧🇷b", "aBRb"),
            ("a👩‍👩‍👧‍👦b", "a👩b"),
            ("a👍🏽b", "a👍b"),
            ("a❤️b", "a❤ b"),
            ("a1️⃣b", "a1 b"),
            ("日本 e\u{301}", "日本 e\u{301}"),
        ] {
            let mut buffer = Buffer::empty(Rect::new(0, 0, 6, 1));
            buffer.set_string(0, 0, text, Style::new());
            simplify(&mut buffer);
            let mut row = String::new();
            let mut skip = 0;
            for cell in &buffer.content {
                if skip == 0 {
                    row.push_str(cell.symbol());
                    skip = cell.symbol().width();
                }
                skip -= 1;
            }
            assert_eq!(row.trim_end(), shown, "{text}");
            assert!(!row.chars().any(is_disputed), "{row:?}");
        }
    }
}
