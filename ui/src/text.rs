//! Others' text on this terminal: nothing in it may move the cursor, colour, ring or rename anything.

/// `text` without terminal escapes and control characters, other than line ends and tabs, and
/// without the marks that turn the direction of writing, which can make a line read as another.
///
/// Whole sequences go (ECMA-48: CSI to its final byte, string sequences to their terminator), so
/// that no `[31m` is left behind. A string sequence ends with the line at the latest: it can hide
/// its sender's own text, nothing more.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => match rest.next_if(|next| ('\u{20}'..='\u{7e}').contains(next)) {
                Some('[') => skip_csi(&mut rest),
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut rest),
                // An escape with intermediate bytes, as `ESC ( B`, ends with one that is none.
                Some(' '..='/') => {
                    while rest.next_if(|next| (' '..='/').contains(next)).is_some() {}
                    rest.next_if(|next| ('0'..='~').contains(next));
                }
                _ => {}
            },
            '\u{9b}' => skip_csi(&mut rest),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => skip_string(&mut rest),
            '\n' | '\t' => out.push(c),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            '\u{2028}' | '\u{2029}' => out.push('\n'),
            _ if c.is_control() => {}
            _ => out.push(c),
        }
    }
    out
}

/// [`clean`], in one line.
pub(crate) fn clean_line(text: &str) -> String {
    clean(text).replace(['\n', '\t'], " ")
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn skip_csi(rest: &mut Rest<'_>) {
    while rest.next_if(|next| (' '..='?').contains(next)).is_some() {}
    rest.next_if(|next| ('@'..='~').contains(next));
}

fn skip_string(rest: &mut Rest<'_>) {
    while let Some(c) = rest.next_if(|next| *next != '\n') {
        match c {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                rest.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_go_with_all_they_carry() {
        assert_eq!(clean("a\u{1b}[31;1mred\u{1b}[0m b"), "ared b");
        assert_eq!(clean("\u{1b}]0;title\u{7}x\u{1b}]8;;http://a\u{1b}\\link"), "xlink");
        assert_eq!(clean("\u{9b}2Jx\u{9d}0;t\u{9c}y"), "xy");
        assert_eq!(clean("\u{1b}(Bx\u{1b}cy\u{1b}7z"), "xyz");
    }

    #[test]
    fn an_unfinished_escape_hides_its_own_line_at_most() {
        assert_eq!(clean("x\u{1b}]0;never ended\nnext"), "x\nnext");
        assert_eq!(clean("x\u{1b}[31"), "x");
        assert_eq!(clean("x\u{1b}"), "x");
        assert_eq!(clean("x\u{1b}\ny"), "x\ny");
        assert_eq!(clean("\u{1b}[\u{1b}[31mred"), "red");
    }

    #[test]
    fn control_characters_and_direction_marks_go_and_lines_stay() {
        assert_eq!(clean("a\r\u{8}\u{0}\u{7f}b\u{85}\nc\td"), "ab\nc\td");
        assert_eq!(clean("user\u{202e}gpj.exe"), "usergpj.exe");
        assert_eq!(clean_line("two\nlines"), "two lines");
        assert_eq!(clean("ñandú ✓ 日本"), "ñandú ✓ 日本");
    }
}
