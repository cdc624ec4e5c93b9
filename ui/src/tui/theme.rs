//! Themes: a style for each meaning, by name, for terminals with any number of colours.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use ratatui::style::{Color, Modifier, Style};
use serde::Deserialize;

/// Number of colours that the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// No colours, because of NO_COLOR or the user's setting.
    Mono,
    /// The sixteen colours that every terminal has.
    Sixteen,
    /// 256 colours or more.
    Many,
}

/// A style for each meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Theme {
    pub(crate) text: Style,
    /// Less important text: times, hints.
    pub(crate) dim: Style,
    pub(crate) title: Style,
    /// Keys, prompts, the place shown.
    pub(crate) accent: Style,
    /// The header and the status line.
    pub(crate) bar: Style,
    /// The list of places.
    pub(crate) side: Style,
    /// The selected item.
    pub(crate) selected: Style,
    pub(crate) unread: Style,
    /// Matches of a search.
    pub(crate) found: Style,
    pub(crate) popup: Style,
    /// The banner about the state of the session.
    pub(crate) banner: Style,
    pub(crate) good: Style,
    pub(crate) warn: Style,
    pub(crate) bad: Style,
    /// Styles of authors. The name of the author selects one.
    pub(crate) authors: Vec<Style>,
    /// True if backgrounds separate the parts of the screen. Otherwise characters do.
    pub(crate) has_backgrounds: bool,
}

/// Names of the built-in themes.
pub(crate) const NAMES: [&str; 3] = ["dark", "light", "contrast"];

impl Theme {
    /// A built-in theme.
    pub(crate) fn named(name: &str) -> Option<Theme> {
        let (base, parts): (Style, [&str; 15]) = match name {
            "dark" => (
                Style::new(),
                [
                    "",
                    "#7f8490",
                    "bold",
                    "#7aa2d6",
                    "#b4bac4 on #262a33",
                    "#b4bac4 on #1b1e25",
                    "on #2f3542",
                    "#e0b66c bold",
                    "#1b1e25 on #e0b66c",
                    "#d5d9e0 on #262a33",
                    "#dce8f6 on #2f4d73",
                    "#8fbf8f",
                    "#e0b66c",
                    "#e08080 bold",
                    "#8fb6e0, #9ec78a, #d8a9c8, #d6b27a, #86c5c2, #b7a6e3",
                ],
            ),
            "light" => (
                Style::new().fg(Color::Rgb(0x2b, 0x2f, 0x36)).bg(Color::Rgb(0xfb, 0xfb, 0xf9)),
                [
                    "",
                    "#777d88",
                    "bold",
                    "#1f5fa8",
                    "#3a3f48 on #e4e6ea",
                    "#3a3f48 on #eff0f2",
                    "on #d9e4f2",
                    "#9a5b00 bold",
                    "#2b2f36 on #ffd77a",
                    "#2b2f36 on #e9ebee",
                    "#ffffff on #1f5fa8",
                    "#2c7a3f",
                    "#9a5b00",
                    "#b3261e bold",
                    "#1f5fa8, #2c7a3f, #94358c, #8a5a00, #00706c, #5b46b0",
                ],
            ),
            "contrast" => (
                Style::new().fg(Color::White).bg(Color::Black),
                [
                    "",
                    "white",
                    "bold",
                    "lightcyan bold",
                    "black on white",
                    "white on black",
                    "black on lightyellow",
                    "lightyellow bold",
                    "black on lightgreen",
                    "white on black",
                    "black on lightyellow bold",
                    "lightgreen bold",
                    "lightyellow bold",
                    "lightred bold underlined",
                    "lightcyan, lightgreen, lightmagenta, lightyellow",
                ],
            ),
            _ => return None,
        };
        let style = |at: usize| base.patch(parse(parts[at]).unwrap_or_default());
        let authors = parts[14].split(',').map(|one| base.patch(parse(one).unwrap_or_default())).collect();
        Some(Theme {
            text: style(0),
            dim: style(1),
            title: style(2),
            accent: style(3),
            bar: style(4),
            side: style(5),
            selected: parse(parts[6]).unwrap_or_default(),
            unread: parse(parts[7]).unwrap_or_default(),
            found: parse(parts[8]).unwrap_or_default(),
            popup: style(9),
            banner: style(10),
            good: parse(parts[11]).unwrap_or_default(),
            warn: parse(parts[12]).unwrap_or_default(),
            bad: parse(parts[13]).unwrap_or_default(),
            authors,
            has_backgrounds: name != "contrast",
        })
    }

    /// The theme of this name: a file `NAME.toml` in `themes`, or a built-in one.
    ///
    /// # Errors
    /// A message: the wrong name or line, and the possible ones.
    pub(crate) fn load(name: &str, themes: &Path) -> Result<Theme, String> {
        let path = themes.join(format!("{name}.toml"));
        let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        match fs::read_to_string(&path) {
            Ok(text) if is_plain => {
                Theme::from_toml(&text).map_err(|error| format!("{}: {error}", path.display()))
            }
            _ => Theme::named(name).ok_or_else(|| {
                format!(
                    "there is no theme {name:?}; there are {}, and what you write to {}",
                    NAMES.join(", "),
                    themes.join("NAME.toml").display()
                )
            }),
        }
    }

    fn from_toml(text: &str) -> Result<Theme, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let base = file.base.as_deref().unwrap_or("dark");
        let mut theme = Theme::named(base).ok_or_else(|| format!("no built-in theme {base:?}"))?;
        let changes = [
            (&mut theme.text, file.text),
            (&mut theme.dim, file.dim),
            (&mut theme.title, file.title),
            (&mut theme.accent, file.accent),
            (&mut theme.bar, file.bar),
            (&mut theme.side, file.side),
            (&mut theme.selected, file.selected),
            (&mut theme.unread, file.unread),
            (&mut theme.found, file.found),
            (&mut theme.popup, file.popup),
            (&mut theme.banner, file.banner),
            (&mut theme.good, file.good),
            (&mut theme.warn, file.warn),
            (&mut theme.bad, file.bad),
        ];
        for (style, change) in changes {
            if let Some(change) = change {
                *style = parse(&change)?;
            }
        }
        if let Some(authors) = file.authors {
            theme.authors = authors.iter().map(|author| parse(author)).collect::<Result<_, _>>()?;
        }
        Ok(theme)
    }

    /// The theme as a terminal with these colours can show it.
    pub(crate) fn at(mut self, depth: Depth) -> Theme {
        if depth == Depth::Many {
            return self;
        }
        self.has_backgrounds = false;
        let mono = depth == Depth::Mono;
        let reversed = Style::new().add_modifier(Modifier::REVERSED);
        for (style, without) in [
            (&mut self.text, Style::new()),
            (&mut self.dim, Style::new().add_modifier(Modifier::DIM)),
            (&mut self.title, Style::new().add_modifier(Modifier::BOLD)),
            (&mut self.accent, Style::new().add_modifier(Modifier::BOLD)),
            (&mut self.bar, reversed),
            (&mut self.side, Style::new()),
            (&mut self.selected, reversed),
            (&mut self.unread, Style::new().add_modifier(Modifier::BOLD)),
            (&mut self.found, reversed.add_modifier(Modifier::UNDERLINED)),
            (&mut self.popup, Style::new()),
            (&mut self.banner, reversed),
            (&mut self.good, Style::new()),
            (&mut self.warn, Style::new().add_modifier(Modifier::BOLD)),
            (&mut self.bad, Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)),
        ] {
            *style = if mono { without } else { sixteen(*style, without) };
        }
        for author in &mut self.authors {
            let without = Style::new().add_modifier(Modifier::BOLD);
            *author = if mono { without } else { sixteen(*author, without) };
        }
        self
    }

    /// Style of an author. The same name always has the same style.
    pub(crate) fn author(&self, name: &str) -> Style {
        let sum = name.bytes().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        self.authors.get(sum % self.authors.len().max(1)).copied().unwrap_or(self.accent)
    }
}

/// Reduces a style to the terminal's own sixteen colours: a foreground becomes the nearest of them. A
/// background that is none of them makes the whole style that of a terminal without colours, `without`.
fn sixteen(style: Style, without: Style) -> Style {
    let own = |color: &Color| !matches!(color, Color::Rgb(..) | Color::Indexed(_));
    if style.bg.is_some_and(|color| !own(&color)) {
        return without;
    }
    let fg = style.fg.map(|color| match color {
        Color::Rgb(r, g, b) => nearest(r, g, b),
        Color::Indexed(_) => Color::Reset,
        other => other,
    });
    Style { fg, ..style }
}

fn nearest(r: u8, g: u8, b: u8) -> Color {
    let (high, low) = (r.max(g).max(b), r.min(g).min(b));
    if high - low < 32 {
        return if high > 160 { Color::Reset } else { Color::DarkGray };
    }
    let middle = u8::midpoint(high, low);
    match (r > middle, g > middle, b > middle) {
        (true, false, false) => Color::Red,
        (false, true, false) => Color::Green,
        (true, true, _) => Color::Yellow,
        (false, false, _) => Color::Blue,
        (true, false, true) => Color::Magenta,
        (false, true, true) => Color::Cyan,
    }
}

/// A theme's file. Missing styles are those of `base`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    base: Option<String>,
    text: Option<String>,
    dim: Option<String>,
    title: Option<String>,
    accent: Option<String>,
    bar: Option<String>,
    side: Option<String>,
    selected: Option<String>,
    unread: Option<String>,
    found: Option<String>,
    popup: Option<String>,
    banner: Option<String>,
    good: Option<String>,
    warn: Option<String>,
    bad: Option<String>,
    authors: Option<Vec<String>>,
}

/// Parses `FG on BG bold ...`. Any part may be missing; colours are names or `#rrggbb`.
fn parse(text: &str) -> Result<Style, String> {
    let mut style = Style::new();
    let mut background = false;
    for word in text.split_whitespace() {
        match word {
            "on" => background = true,
            "bold" => style = style.add_modifier(Modifier::BOLD),
            "dim" => style = style.add_modifier(Modifier::DIM),
            "italic" => style = style.add_modifier(Modifier::ITALIC),
            "underlined" => style = style.add_modifier(Modifier::UNDERLINED),
            "reversed" => style = style.add_modifier(Modifier::REVERSED),
            color => {
                let color = Color::from_str(color).map_err(|_| {
                    format!("{color:?} is no colour (red, lightblue, #rrggbb, ...) and none of on, bold, dim, italic, underlined, reversed")
                })?;
                style = if background { style.bg(color) } else { style.fg(color) };
            }
        }
    }
    Ok(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_style_is_written_in_words() {
        let style = parse("#102030 on lightblue bold").unwrap();
        assert_eq!((style.fg, style.bg), (Some(Color::Rgb(16, 32, 48)), Some(Color::LightBlue)));
        assert!(style.add_modifier.contains(Modifier::BOLD));
        assert!(parse("on purpleish").unwrap_err().contains("purpleish"));
    }

    #[test]
    fn a_file_changes_what_it_names_and_wins_over_a_built_in_theme() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("light.toml"), "base = \"dark\"\ndim = \"red\"\n").unwrap();
        let theme = Theme::load("light", dir.path()).unwrap();
        let dark = Theme::named("dark").unwrap();
        assert_eq!((theme.dim, theme.bar), (Style::new().red(), dark.bar));
        fs::write(dir.path().join("bad.toml"), "dimm = \"red\"\n").unwrap();
        assert!(Theme::load("bad", dir.path()).unwrap_err().contains("dimm"));
        assert!(Theme::load("none", dir.path()).unwrap_err().contains("dark, light, contrast"));
        assert!(Theme::load("../light", dir.path()).is_err());
    }

    #[test]
    fn every_built_in_theme_is_written_without_a_mistake_and_has_few_colours_where_there_are_few() {
        for name in NAMES {
            let theme = Theme::named(name).unwrap();
            assert_ne!((theme.dim, theme.banner), (Style::new(), Style::new()), "{name}");
            let Theme { dim, bar, selected, banner, bad, authors, .. } = theme.clone().at(Depth::Mono);
            let all = [dim, bar, selected, banner, bad].into_iter().chain(authors);
            assert!(all.clone().all(|style| style.fg.is_none() && style.bg.is_none()), "{name}");
            assert!(all.clone().all(|style| !style.add_modifier.is_empty()), "{name}");
            let Theme { dim, bar, authors, .. } = theme.at(Depth::Sixteen);
            let many = |style: &Style| matches!(style.fg, Some(Color::Rgb(..)));
            assert!(![dim, bar].iter().chain(&authors).any(many), "{name}");
        }
    }
}
