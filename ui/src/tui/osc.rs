//! Escape sequences for desktop notifications: OSC 9 and OSC 777.

use super::settings::Desktop;
use super::wrap::cut;
use crate::text::clean_line;

/// Limits of a desktop notification's title and text, in columns.
const TITLE: usize = 80;
const BODY: usize = 200;

/// Escape sequence that shows a notification on the desktop; empty if the setting is off. Other users' text
/// can neither end this sequence nor begin another one, because control characters are removed and
/// semicolons replaced.
pub(crate) fn desktop(how: Desktop, title: &str, body: &str) -> String {
    let plain = |text: &str, width| cut(&clean_line(text).replace(';', ","), width);
    let (title, body) = (plain(title, TITLE), plain(body, BODY));
    match how {
        Desktop::Off => String::new(),
        Desktop::Osc9 => format!("\u{1b}]9;{title}: {body}\u{1b}\\"),
        Desktop::Osc777 => format!("\u{1b}]777;notify;{title};{body}\u{1b}\\"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_others_ends_the_sequence() {
        let shown = desktop(Desktop::Osc777, "a;b\u{1b}\\", "x\u{7}\n\u{9c}y");
        assert_eq!(shown, "\u{1b}]777;notify;a,b;x y\u{1b}\\");
        assert_eq!(desktop(Desktop::Osc9, "t", "b"), "\u{1b}]9;t: b\u{1b}\\");
        assert_eq!(desktop(Desktop::Off, "t", "b"), "");
    }
}
