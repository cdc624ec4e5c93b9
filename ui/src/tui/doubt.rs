//! Texts that are probably not meant as texts: they are sent only if they are entered twice.
//!
//! Most are keys of an editor or a pager. The screen has no letters as commands, so they become a text.

use super::command;

/// Letters that are commands of vim and of pagers, in either case. Without vowels but `u`, so that few words
/// consist of them.
const KEYS: &str = "bdghjklnpquvwxyz";

/// Commands of an editor that have one letter. Other letters behind a colon are faces.
const SHORT: [&str; 6] = ["b", "e", "n", "q", "w", "x"];

/// Ends of a text that were typed to leave an editor.
const LEAVING: [&str; 6] = [":q", ":q!", ":qa", ":wq", ":wq!", ":wqa"];

/// Why a text is doubted, with what its writer probably wanted. `None` if it is sent at once. `by_keys` is
/// true if it was begun where keys move through a list or a page.
pub(crate) fn doubt(text: &str, by_keys: bool) -> Option<String> {
    let line = text.trim();
    let last = line.rsplit('\n').next().unwrap_or_default();
    if is_of_editor(line) || LEAVING.iter().any(|end| last.ends_with(end)) {
        return Some(format!("`{last}` was not sent: /quit (or Ctrl+C) leaves, and / begins a command"));
    }
    if by_keys && is_keys(line) {
        return Some(format!(
            "`{line}` was not sent: letters write here; arrows move, and F1 lists the keys"
        ));
    }
    command::begins_with_command(text)
        .then(|| "not sent: a command is run only if nothing stands before its /".to_owned())
}

/// Returns true for a line as an editor takes it behind a colon: a command, and at most one argument.
fn is_of_editor(line: &str) -> bool {
    let Some(rest) = line.strip_prefix(':').filter(|_| !line.contains('\n')) else { return false };
    let mut words = rest.split(' ');
    let command = words.next().unwrap_or_default();
    let is_command = match command.strip_suffix('!').unwrap_or(command) {
        one if one.len() == 1 => SHORT.contains(&one),
        word if word.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) => {
            word.starts_with("s/") || word.chars().all(|c| c.is_ascii_alphanumeric())
        }
        word => word.starts_with('%'),
    };
    is_command && words.count() < 2
}

/// Returns true if a text consists of letters that are keys, and of counts before them.
fn is_keys(line: &str) -> bool {
    let is_key = |c: char| KEYS.contains(c.to_ascii_lowercase());
    line.contains(is_key) && line.chars().all(|c| is_key(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_an_editor_is_doubted_and_a_face_or_a_sentence_is_not() {
        for line in
            [":q", ":wq", ":q!", ":x", ":help", ":e file", ":set nu", ":%s/a/b/g", ":12", ":qa!", ":w "]
        {
            assert!(doubt(line, false).is_some_and(|why| why.contains("/quit")), "{line}");
        }
        for text in ["a text:wq", "two\nlines\n:q", "and now :q!"] {
            assert!(doubt(text, false).is_some_and(|why| why.contains("/quit")), "{text}");
        }
        for text in [
            ":q is how one leaves",
            ":)",
            ":D",
            ":p",
            ":3",
            ":o)",
            ":tada:",
            ": see below",
            "a:b",
            ":q\nand more",
        ] {
            assert_eq!(doubt(text, true), None, "{text}");
        }
    }

    #[test]
    fn keys_are_doubted_where_keys_move_and_words_never() {
        for keys in ["jj", "dd", "gg", "G", "u", "ZZ", "5j", "10G", "yyp", "k", "q", "n"] {
            assert!(doubt(keys, true).is_some_and(|why| why.contains("letters write")), "{keys}");
            assert_eq!(doubt(keys, false), None, "{keys}");
        }
        for text in ["yes", "no", "ok", "hello", "10", "thx all", "jj is another tool", "gg wp"] {
            assert_eq!(doubt(text, true), None, "{text}");
        }
    }
}
