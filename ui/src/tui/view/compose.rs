//! Compose line, the search line that takes its place, and the completions of a command.

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::text::Line;
use ratatui::widgets::Clear;
use ratatui_textarea::TextArea;
use recado_client::Topic;

use super::{Areas, span};
use crate::tui::app::{App, Focus, Target};
use crate::tui::event::written;
use crate::tui::input::{drawn_cursor, drawn_rows};
use crate::tui::wrap::{self, cut};

/// Largest height of the text, in rows.
const ROWS_MAX: u16 = 8;

/// Number of completions that are shown at once.
const SUGGESTED: usize = 8;

/// Prompt before the text.
fn prompt(app: &App) -> String {
    if app.compose.command().is_some() {
        return " ".to_owned();
    }
    if let Some(moving) = app.moving_in_words() {
        return format!(" {} ... ", cut(&moving, 28));
    }
    let to = match app.target() {
        _ if app.profile.is_none() => String::new(),
        Target::Topic(None) => "followers".to_owned(),
        // Text that is typed at another profile's feed goes to an inbox, so the prompt names the inbox.
        Target::Topic(Some(topic @ Topic::Inbox(_))) => format!("to {}'s inbox", cut(&written(&topic), 14)),
        Target::Topic(Some(topic)) => cut(&written(&topic), 20),
        Target::Nowhere(_) => "inbox".to_owned(),
    };
    format!(" {to} {} ", app.settings.symbols.pointer)
}

/// Rows that the text needs in `width` columns.
fn rows(app: &App, width: u16) -> u16 {
    let room = usize::from(width).saturating_sub(wrap::width(&prompt(app)) + 1).max(1);
    drawn_rows(app.compose.area(), u16::try_from(room).unwrap_or(u16::MAX))
}

/// Rows that the compose line gets.
pub(super) fn height(app: &App, width: u16) -> u16 {
    rows(app, width).clamp(1, ROWS_MAX) + fields_height(app)
}

/// Rows for the title, the priority and the tags, above the text.
fn fields_height(app: &App) -> u16 {
    u16::from(!app.fields.is_empty())
}

/// Returns true if rows are blank below the text while its beginning is scrolled out.
pub(super) fn is_scrolled_too_far(app: &App, area: Rect) -> bool {
    let hidden = app.compose.hidden_rows();
    let height = area.height.saturating_sub(fields_height(app)).max(1);
    hidden > 0 && hidden.saturating_add(height) > rows(app, area.width)
}

pub(super) fn draw(app: &App, frame: &mut Frame<'_>, areas: &Areas) {
    let theme = &app.settings.theme;
    let mut area = areas.compose;
    frame.buffer_mut().set_style(area, theme.side);
    if let Some(search) = app.search.as_ref().filter(|search| search.typing) {
        let prompt = " search ";
        frame.render_widget(Line::from(span(prompt, theme.accent)), area);
        let rest = behind(area, wrap::width(prompt));
        return edit(frame, search.input.area(), rest, true);
    }
    let fields_height = fields_height(app);
    if fields_height < area.height && fields_height > 0 {
        let text = cut(&format!(" with {}", app.fields.in_words()), usize::from(area.width));
        frame.render_widget(Line::from(span(text, theme.accent)), Rect { height: 1, ..area });
        area = Rect { y: area.y + 1, height: area.height - 1, ..area };
    }
    let prompt = prompt(app);
    // The cursor needs a column behind the last character.
    let area = Rect { width: area.width.saturating_sub(1), ..area };
    let has_focus = app.focus == Focus::Writing && app.popup.is_none();
    let style = if has_focus { theme.accent } else { theme.dim };
    frame.render_widget(Line::from(span(prompt.clone(), style)), area);
    let rest = behind(area, wrap::width(&prompt));
    edit(frame, app.compose.area(), rest, has_focus);
    if app.compose.is_empty() {
        let hint = match (has_focus, app.target()) {
            (_, Target::Nowhere(why)) => why,
            (true, _) => "write here; / for commands",
            (false, _) => "",
        };
        frame.render_widget(Line::from(span(cut(hint, usize::from(rest.width)), theme.dim)), rest);
    }
    if has_focus {
        suggestions(app, frame, areas.compose);
    }
}

fn behind(area: Rect, columns: usize) -> Rect {
    let columns = u16::try_from(columns).unwrap_or(area.width).min(area.width);
    Rect { x: area.x + columns, width: area.width - columns, ..area }
}

/// Draws a text, with the terminal's own cursor in it.
pub(super) fn edit(frame: &mut Frame<'_>, text: &TextArea<'static>, area: Rect, has_focus: bool) {
    frame.render_widget(text, area);
    if has_focus && !area.is_empty() {
        let ((row, column), (top, left)) = (drawn_cursor(text), text.scroll_offset());
        let x = column.saturating_sub(left.into()).min(usize::from(area.width));
        let y = row.saturating_sub(top.into()).min(usize::from(area.height - 1));
        let at = Position::new(area.x + x as u16, area.y + y as u16);
        frame.set_cursor_position(at);
    }
}

fn suggestions(app: &App, frame: &mut Frame<'_>, compose: Rect) {
    let Some(completion) = app.completions() else { return };
    let theme = &app.settings.theme;
    let chosen = app.completion.min(completion.choices.len().saturating_sub(1));
    let first = (chosen + 1).saturating_sub(SUGGESTED);
    let room = usize::from(compose.width).saturating_sub(2);
    let names = completion.choices.iter().map(|(name, _)| wrap::width(name)).max().unwrap_or(0).min(room);
    let mut lines: Vec<(Line<'static>, bool)> = Vec::new();
    for (at, (name, help)) in completion.choices.iter().enumerate().skip(first).take(SUGGESTED) {
        let name = cut(name, names);
        let pad = " ".repeat(names - wrap::width(&name) + 2);
        let spans = vec![span(format!(" {name}{pad}"), theme.accent), span(help.clone(), theme.dim)];
        lines.push((Line::from(spans), at == chosen));
    }
    if let Some(hint) = completion.hint {
        lines.push((Line::from(span(format!(" {hint}"), theme.dim)), false));
    }
    let rows = u16::try_from(lines.len()).unwrap_or(0).min(compose.y.saturating_sub(1));
    let area = Rect { y: compose.y - rows, height: rows, ..compose };
    frame.render_widget(Clear, area);
    frame.buffer_mut().set_style(area, theme.text.patch(theme.popup));
    for (y, (line, is_chosen)) in (area.y..area.bottom()).zip(lines) {
        let row = Rect { y, height: 1, ..area };
        frame.render_widget(line, row);
        if is_chosen {
            frame.buffer_mut().set_style(row, theme.selected);
        }
    }
}
