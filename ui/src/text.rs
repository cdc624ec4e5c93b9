//! Sanitizes text of other users for a terminal: nothing in it can move the cursor, set colours, ring the
//! bell or rename the window.

/// Returns true if a terminal may act on `c` instead of displaying it: the control characters (C0, DEL,
/// C1), the line and paragraph separators, and the direction marks, which can make a line read as another.
pub(crate) fn is_terminal_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
}

/// Returns `text` without terminal escapes and without any other character for which
/// [`is_terminal_control`] is true, except line ends and tabs.
///
/// The whole sequence is removed (ECMA-48: CSI up to its final byte, string sequences up to their
/// terminator), so that no `[31m` is left behind. A string sequence ends with its line at the latest, so
/// that it hides only its own sender's text.
pub(crate) fn sanitize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => match rest.next_if(|next| ('\u{20}'..='\u{7e}').contains(next)) {
                Some('[') => skip_csi(&mut rest),
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut rest),
                // An escape with intermediate bytes, such as `ESC ( B`, ends with the first byte that is
                // not intermediate.
                Some(' '..='/') => {
                    while rest.next_if(|next| (' '..='/').contains(next)).is_some() {}
                    rest.next_if(|next| ('0'..='~').contains(next));
                }
                _ => {}
            },
            '\u{9b}' => skip_csi(&mut rest),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => skip_string(&mut rest),
            '\n' | '\t' => out.push(c),
            '\u{2028}' | '\u{2029}' => out.push('\n'),
            _ if is_terminal_control(c) => {}
            _ => out.push(c),
        }
    }
    out
}

/// Like [`sanitize`], with line ends and tabs replaced by spaces.
pub(crate) fn clean_line(text: &str) -> String {
    sanitize(text).replace(['\n', '\t'], " ")
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
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Generates text with many characters and sequences that terminals obey.
    pub(crate) fn hostile() -> impl Strategy<Value = String> {
        let obeyed = prop::sample::select(
            ('\u{0}'..='\u{9f}')
                .chain('\u{2000}'..='\u{206f}')
                .filter(|c| is_terminal_control(*c))
                .collect::<Vec<_>>(),
        );
        let escape =
            prop::sample::select(vec!["\u{1b}[31m", "\u{1b}]0;", "\u{1b}\\", "\u{9b}2J", "\r\n", "\n"]);
        let piece = prop_oneof![
            any::<char>().prop_map(String::from),
            "[ -~]",
            obeyed.prop_map(String::from),
            escape.prop_map(String::from)
        ];
        prop::collection::vec(piece, 0..64).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn nothing_a_terminal_obeys_is_left_but_line_ends_and_tabs(text in hostile()) {
            let cleaned = sanitize(&text);
            prop_assert!(!cleaned.chars().any(|c| is_terminal_control(c) && !matches!(c, '\n' | '\t')), "{:?}", cleaned);
            prop_assert!(!clean_line(&text).chars().any(is_terminal_control));
            // `sanitize` is idempotent: a removed sequence leaves no new escape behind.
            prop_assert_eq!(sanitize(&cleaned), cleaned);
        }

        #[test]
        fn what_no_terminal_obeys_stays_as_it_is(text: String) {
            let plain: String = text.chars().filter(|c| !is_terminal_control(*c)).collect();
            prop_assert_eq!(sanitize(&plain), plain);
        }
    }

    #[test]
    fn the_marks_that_turn_the_direction_of_writing_are_known() {
        for c in ('\u{202a}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}')
            .chain(['\u{61c}', '\u{200e}', '\u{200f}'])
        {
            assert!(is_terminal_control(c), "{c:?}");
        }
        assert!(['\u{1b}', '\u{7f}', '\u{9b}'].into_iter().all(is_terminal_control));
        // The zero width joiner joins letters and emoji.
        assert!(!is_terminal_control('\u{200d}'));
    }

    #[test]
    fn escapes_go_with_all_they_carry() {
        assert_eq!(sanitize("a\u{1b}[31;1mred\u{1b}[0m b"), "ared b");
        assert_eq!(sanitize("\u{1b}]0;title\u{7}x\u{1b}]8;;http://a\u{1b}\\link"), "xlink");
        assert_eq!(sanitize("\u{9b}2Jx\u{9d}0;t\u{9c}y"), "xy");
        assert_eq!(sanitize("\u{1b}(Bx\u{1b}cy\u{1b}7z"), "xyz");
    }

    #[test]
    fn an_unfinished_escape_hides_its_own_line_at_most() {
        assert_eq!(sanitize("x\u{1b}]0;never ended\nnext"), "x\nnext");
        assert_eq!(sanitize("x\u{1b}[31"), "x");
        assert_eq!(sanitize("x\u{1b}"), "x");
        assert_eq!(sanitize("x\u{1b}\ny"), "x\ny");
        assert_eq!(sanitize("\u{1b}[\u{1b}[31mred"), "red");
    }

    #[test]
    fn control_characters_and_direction_marks_go_and_lines_stay() {
        assert_eq!(sanitize("a\r\u{8}\u{0}\u{7f}b\u{85}\nc\td"), "ab\nc\td");
        assert_eq!(sanitize("user\u{202e}gpj.exe"), "usergpj.exe");
        assert_eq!(clean_line("two\nlines"), "two lines");
        assert_eq!(sanitize("ñandú ✓ 日本"), "ñandú ✓ 日本");
    }
}
