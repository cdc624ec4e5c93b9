//! Notifications of the place shown, laid out from the lower edge upwards. Only visible items are laid out.

use std::ops::Range;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::Clear;

use super::item::{self, Context};
use super::span;
use crate::tui::app::{App, Focus};
use crate::tui::connection::OFFLINE;
use crate::tui::conversation::Conversation;
use crate::tui::log::Before;
use crate::tui::scroll::Anchor;
use crate::tui::wrap::wrap;

/// A row of the window, and the item that it belongs to. Texts of the outbox have no item.
struct Row {
    line: Line<'static>,
    item: Option<usize>,
    /// True if the row is part of the item itself, and not of the rows above it.
    own: bool,
}

pub(super) fn draw(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let theme = &app.settings.theme;
    let rows = window(app, area);
    if rows.is_empty() {
        return empty(app, frame, area);
    }
    let selected = app.position.selected.filter(|_| app.focus == Focus::List);
    let log = app.log(&app.here);
    let selected = selected.and_then(|op| log?.position(op).ok());
    let top = area.bottom() - u16::try_from(rows.len()).unwrap_or(area.height).min(area.height);
    let mut pointed = false;
    for (y, row) in (top..area.bottom()).zip(rows) {
        let at = Rect { y, height: 1, ..area };
        frame.render_widget(row.line, at);
        if row.own && row.item.is_some() && row.item == selected {
            frame.buffer_mut().set_style(at, theme.selected);
            if !pointed {
                frame.buffer_mut().set_string(area.x, y, app.settings.symbols.pointer, theme.accent);
                pointed = true;
            }
        }
    }
    let log_loads = log.is_some_and(|log| log.before == Before::Loading);
    if log_loads && app.anchor().is_some() {
        let text = "  fetching older ones";
        let at = Rect { height: 1, ..area };
        frame.render_widget(Clear, at);
        frame.buffer_mut().set_style(at, theme.text);
        frame.render_widget(Line::from(span(text, theme.dim)), at);
    }
}

/// Indices of the items of which at least one row is visible. Empty if there is none.
pub(crate) fn visible(app: &App) -> Range<usize> {
    let rows = window(app, super::areas(app).list);
    let mut items = rows.iter().filter(|row| row.own).filter_map(|row| row.item);
    match (items.next(), items.next_back()) {
        (Some(first), last) => first..last.unwrap_or(first) + 1,
        (None, _) => 0..0,
    }
}

/// Index of the item that this row of the screen belongs to.
pub(crate) fn item_at(app: &App, area: Rect, y: u16) -> Option<usize> {
    let rows = window(app, area);
    let from_below = usize::from(area.bottom().checked_sub(y + 1)?);
    rows.get(rows.len().checked_sub(from_below + 1)?)?.item
}

/// Visible rows, from the first to the last.
fn window(app: &App, area: Rect) -> Vec<Row> {
    let context = Context::new(app, area.width);
    let page = usize::from(area.height);
    let mut rows: Vec<Row> = Vec::new();
    let log = app.log(&app.here);
    let end = Anchor { item: log.map_or(0, |log| log.len()).saturating_sub(1), hidden: 0 };
    let anchor = app.anchor();
    if anchor.is_none() {
        let mut tail = tail(app, &context);
        tail.reverse();
        rows.extend(tail.into_iter().map(|line| Row { line, item: None, own: false }));
    }
    let anchor = anchor.unwrap_or(end);
    if let Some(log) = log.filter(|log| !log.is_empty()) {
        for at in (0..=anchor.item).rev() {
            if rows.len() >= page {
                break;
            }
            let (above, lines) = item::rows(&context, log, at);
            let hidden = if at == anchor.item { anchor.hidden } else { 0 };
            let shown = lines.len().saturating_sub(hidden);
            let lines = lines.into_iter().enumerate().take(shown).rev();
            rows.extend(lines.map(|(row, line)| Row { line, item: Some(at), own: row >= above }));
        }
    }
    rows.truncate(page);
    rows.reverse();
    rows
}

/// Rows of the outbox: unacknowledged and refused texts, below the notifications.
fn tail(app: &App, context: &Context<'_>) -> Vec<Line<'static>> {
    let Some(me) = &app.profile else { return Vec::new() };
    let state = if app.connection.is_served() { "sending" } else { "queued" };
    app.outbox.at(&app.here, me).flat_map(|pending| item::pending(context, pending, state)).collect()
}

/// Draws an explanation in place of an empty list.
fn empty(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let theme = &app.settings.theme;
    let log = app.log(&app.here);
    let waiting = log.is_none_or(|log| log.before != Before::Nothing || log.renewing > 0);
    let asked = log.is_some_and(|log| log.before == Before::Loading || log.renewing > 0);
    let mut paragraphs: Vec<(String, bool)> = Vec::new();
    let mut say = |text: &str, strong: bool| paragraphs.push((text.to_owned(), strong));
    match (&app.here, &app.profile) {
        (_, None) => {}
        // The banner says why there is nothing.
        _ if app.connection.is_over() => {}
        _ if app.cluster_id.is_none() => {
            say("Connecting", true);
            // A server has a moment to answer before this says that none does.
            let offline = app.connection_word() == OFFLINE;
            let why = app.no_server.clone().filter(|_| offline);
            say(&why.unwrap_or_else(|| app.servers_in_words()), false);
            say("A cluster on this machine starts with ./run.sh; this screen finds it by itself.", false);
        }
        _ if !asked && log.is_some_and(|log| log.failed.is_some()) => {
            let why = log.and_then(|log| log.failed.clone()).unwrap_or_default();
            say(&format!("What is here could not be read: {why}"), false);
        }
        _ if waiting && app.connection.is_served() => say("Fetching what there is", false),
        _ if waiting => say("Nothing is here yet; waiting for the servers.", false),
        (Conversation::All, Some(me)) => {
            say(&format!("You are @{me}, and nothing has come yet. Two things to do:"), true);
            say(
                "1  Follow somebody or something: write /follow @name or /follow #channel. Ctrl+P lists who and what there is.",
                false,
            );
            say(
                "2  Send something: write it below and press Enter; it goes to your followers. /send #hello Hello! creates a channel.",
                false,
            );
            say("For a demonstration, run `recado demo` in another terminal. F1 is help.", false);
        }
        (Conversation::Topic(_), _) => {
            let at = item::clock(log.map_or(0, |log| log.answered_ms), &app.settings.zone, "%H:%M");
            say(&format!("Nothing had been sent here at {at}, or nothing that is kept."), false);
        }
    }
    let width = usize::from(area.width.saturating_sub(4)).min(72);
    let mut lines = Vec::new();
    for (text, strong) in paragraphs {
        let style = if strong { theme.title } else { theme.dim };
        lines.extend(
            wrap(&text, width, width).into_iter().map(|line| Line::from(span(format!("  {line}"), style))),
        );
        lines.push(Line::default());
    }
    let top = area.y + area.height.saturating_sub(u16::try_from(lines.len()).unwrap_or(area.height)) / 3;
    for (y, line) in (top..area.bottom()).zip(lines) {
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
}
