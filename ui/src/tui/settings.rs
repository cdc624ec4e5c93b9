//! Settings of the screen's behaviour and looks, from the configuration and the command line.

use std::path::Path;

use jiff::tz::TimeZone;
use recado_client::Priority;
use serde::Deserialize;

use super::symbols::{ASCII, Symbols, UNICODE};
use super::theme::{Depth, Theme};

/// The `[screen]` table of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ScreenFile {
    pub(crate) theme: String,
    pub(crate) color: When,
    pub(crate) ascii: bool,
    pub(crate) mouse: bool,
    /// Lowest priority that rings the bell; 0 never rings it.
    pub(crate) bell: u8,
    pub(crate) desktop: Desktop,
    /// Lowest priority that is shown on the desktop.
    pub(crate) desktop_from: u8,
}

impl Default for ScreenFile {
    fn default() -> ScreenFile {
        ScreenFile {
            theme: "dark".to_owned(),
            color: When::Auto,
            ascii: false,
            mouse: true,
            bell: 4,
            desktop: Desktop::Off,
            desktop_from: 4,
        }
    }
}

impl ScreenFile {
    /// Checks what the parser does not: ranges, and the theme.
    ///
    /// # Errors
    /// A message: the value, and what it may be.
    pub(crate) fn check(&self, themes: &Path) -> Result<(), String> {
        if self.bell > 5 {
            return Err(format!("bell is a priority from 1 to 5, or 0 for never, not {}", self.bell));
        }
        if !(1..=5).contains(&self.desktop_from) {
            return Err(format!("desktop_from is a priority from 1 to 5, not {}", self.desktop_from));
        }
        Theme::load(&self.theme, themes).map(|_| ())
    }
}

/// Use of colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum When {
    /// Unless NO_COLOR is set
    #[default]
    Auto,
    Always,
    Never,
}

/// Form of desktop notifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Desktop {
    #[default]
    Off,
    /// The sequence of iTerm2, Windows Terminal, kitty, WezTerm, ghostty.
    Osc9,
    /// The sequence of urxvt, foot, WezTerm, ghostty; it carries a title.
    Osc777,
}

/// Effective settings of the screen.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) theme: Theme,
    pub(crate) depth: Depth,
    pub(crate) symbols: Symbols,
    pub(crate) mouse: bool,
    pub(crate) bell: u8,
    pub(crate) desktop: Desktop,
    pub(crate) desktop_from: u8,
    pub(crate) zone: TimeZone,
}

impl Settings {
    /// Builds the settings from the file, for a terminal with these colours.
    ///
    /// # Errors
    /// A message: a value is out of its range, the theme is unknown, or its file is wrong.
    pub(crate) fn new(file: &ScreenFile, depth: Depth, themes: &Path) -> Result<Settings, String> {
        file.check(themes)?;
        Ok(Settings {
            theme: Theme::load(&file.theme, themes)?.at(depth),
            depth,
            symbols: if file.ascii { ASCII } else { UNICODE },
            mouse: file.mouse,
            bell: file.bell,
            desktop: file.desktop,
            desktop_from: file.desktop_from,
            zone: TimeZone::system(),
        })
    }

    /// Returns true if a notification of this priority rings the bell.
    pub(crate) fn rings(&self, priority: Priority) -> bool {
        self.bell > 0 && u8::from(priority) >= self.bell
    }

    /// Returns true if a notification of this priority is shown on the desktop.
    pub(crate) fn shows(&self, priority: Priority) -> bool {
        self.desktop != Desktop::Off && u8::from(priority) >= self.desktop_from
    }
}

/// Colours of the terminal, from its environment variables.
pub(crate) fn depth(when: When, variable: impl Fn(&str) -> Option<String>) -> Depth {
    let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    match when {
        When::Never => Depth::Mono,
        When::Auto if set("NO_COLOR") => Depth::Mono,
        When::Auto | When::Always => {
            let term = variable("TERM").unwrap_or_default();
            if set("COLORTERM") || term.contains("256color") || term.contains("direct") {
                Depth::Many
            } else {
                Depth::Sixteen
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_wins_over_no_color() {
        let with = |name: &'static str, value: &'static str| {
            move |asked: &str| (asked == name).then(|| value.to_owned())
        };
        assert_eq!(depth(When::Auto, with("NO_COLOR", "1")), Depth::Mono);
        assert_eq!(depth(When::Auto, with("NO_COLOR", "")), Depth::Sixteen);
        assert_eq!(depth(When::Always, with("NO_COLOR", "1")), Depth::Sixteen);
        assert_eq!(depth(When::Auto, with("TERM", "xterm-256color")), Depth::Many);
        assert_eq!(depth(When::Never, with("COLORTERM", "truecolor")), Depth::Mono);
    }
}
