//! Texts that are probably not meant as texts: they are sent only if they are entered twice.

use super::command;

/// Why a text is doubted, with what its writer probably wanted. `None` if it is sent at once.
pub(crate) fn doubt(text: &str) -> Option<String> {
    let line = text.trim();
    if matches!(line, ":q" | ":q!" | ":wq" | ":wq!" | ":x") {
        return Some(format!("`{line}` was not sent: /quit (or Ctrl+C) leaves"));
    }
    command::begins_with_command(text)
        .then(|| "not sent: a command is run only if nothing stands before its /".to_owned())
}
