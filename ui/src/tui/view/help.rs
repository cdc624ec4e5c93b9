//! Help screen, generated from the tables of keys and commands.

use ratatui::text::Line;

use super::span;
use crate::tui::app::App;
use crate::tui::command;
use crate::tui::keys::{self, Key, Scope};
use crate::tui::wrap::{width, wrap};

pub(super) fn lines(app: &App, columns: usize) -> Vec<Line<'static>> {
    let theme = &app.settings.theme;
    let mut lines = Vec::new();
    for scope in Scope::ALL {
        lines.push(Line::from(span(scope.heading(), theme.title)));
        for row in keys::TABLE.iter().filter(|row| row.scope == scope) {
            let keys: Vec<String> = row.keys.iter().map(Key::name).collect();
            entry(app, &mut lines, &keys.join(", "), row.help, columns);
        }
        lines.push(Line::default());
    }
    lines.push(Line::from(span("Commands: after / at the beginning of an empty text", theme.title)));
    for spec in command::TABLE {
        entry(app, &mut lines, format!("/{} {}", spec.name, spec.arguments).trim_end(), spec.help, columns);
    }
    lines.push(Line::default());
    lines
        .push(Line::from(span("A text that begins with / is sent with // or a space before it.", theme.dim)));
    lines
}

fn entry(app: &App, lines: &mut Vec<Line<'static>>, left: &str, right: &str, columns: usize) {
    let theme = &app.settings.theme;
    let indent = if columns < 60 { 14 } else { 34 };
    let room = columns.saturating_sub(indent).max(10);
    let mut texts = wrap(right, room, room).into_iter();
    let mut head = vec![span(format!("  {left}"), theme.accent)];
    let used = width(left) + 2;
    if used < indent {
        head.push(span(" ".repeat(indent - used), theme.text));
        head.push(span(texts.next().unwrap_or_default(), theme.dim));
    }
    lines.push(Line::from(head));
    lines.extend(texts.map(|text| Line::from(span(format!("{}{text}", " ".repeat(indent)), theme.dim))));
}
