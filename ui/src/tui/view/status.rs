//! Header and status line: the place shown, the state of the connection, and notices.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Clear;
use recado_client::{Access, Name};

use super::{ends, span};
use crate::tui::app::App;
use crate::tui::connection::{State, trip_in_words};
use crate::tui::conversation::Conversation;
use crate::tui::event::server;
use crate::tui::keys::{Action, Scope, key_for, key_in};
use crate::tui::wrap::{cut, width, wrap};
use crate::wording::access_in_words;

/// Columns of the title that the right end of the header never takes: those of a profile with its `@`.
const TITLE_LEAST: usize = 1 + Name::LEN_MAX;

/// Columns of the name of a place that what is said about it never takes.
const LABEL_LEAST: usize = 12;

pub(super) fn header(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let theme = &app.settings.theme;
    frame.buffer_mut().set_style(area, theme.bar);
    let me = app.profile.as_ref().map_or_else(String::new, |me| {
        let account = app.account.as_ref().map(|account| format!(" on {account}")).unwrap_or_default();
        format!("@{me}{account} ")
    });
    let label = app.here.label(app.profile.as_ref());
    // What is said about the place is cut before the name of the place is lost.
    let least = width(&label).min(LABEL_LEAST);
    let about = cut(&format!("   {}", about(app)), usize::from(area.width).saturating_sub(3 + least));
    let room = usize::from(area.width).saturating_sub(2 + width(&about));
    let beside_me = room.saturating_sub(width(&me) + 1);
    let room = if beside_me < TITLE_LEAST { room } else { beside_me };
    let title = cut(&label, room);
    let left = vec![span(format!("  {title}"), theme.title), span(about, Style::new())];
    frame.render_widget(ends(left, vec![span(me, Style::new())], area.width), area);
}

/// Facts about the place shown.
fn about(app: &App) -> String {
    let mut words = Vec::new();
    if let Conversation::Topic(topic) = &app.here {
        if let Some(channel) = app.channel(topic) {
            words.push(crate::wording::counted(channel.followers, "follower"));
            if channel.access == Access::Private {
                words.push(access_in_words(Access::Private).to_owned());
            }
        }
        if !app.places.follows(topic) {
            words.push("not followed".to_owned());
        }
        if app.places.is_muted(topic) {
            words.push("muted".to_owned());
        }
    }
    if app.size.0 < super::SIDE_FROM {
        let all = app.places.unread(&Conversation::All);
        let here = match &app.here {
            Conversation::Topic(topic) if !app.places.is_muted(topic) => app.places.unread(&app.here),
            Conversation::Topic(_) | Conversation::All => 0,
        };
        match (&app.here, all.saturating_sub(here)) {
            (_, 0) => {}
            (Conversation::All, all) => words.push(format!("{all} unread")),
            (Conversation::Topic(_), elsewhere) => words.push(format!("{elsewhere} unread elsewhere")),
        }
    }
    if app.position.anchor.is_some() {
        let scope = if app.scope() == Scope::List { Scope::List } else { Scope::Everywhere };
        let newest = key_in(scope, Action::Last).unwrap_or_default();
        words.push(format!("looking back ({newest}: the newest)"));
    }
    words.join(", ")
}

/// Largest number of rows of a notice that does not fit beside the state of the connection.
const NOTICE_ROWS: usize = 8;

/// Parts of the last line, and the number of columns that remain between them.
struct Parts {
    word: Span<'static>,
    right: Vec<Span<'static>>,
    room: usize,
}

fn parts(app: &App) -> Parts {
    let theme = &app.settings.theme;
    let columns = app.size.0;
    let word = app.connection_word();
    let word_style = match app.connection.state {
        State::Connected => theme.good,
        State::Connecting { .. } | State::Searching { .. } => theme.warn,
        State::Over(_) => theme.bad,
    };
    let help = format!("{} help ", key_for(Action::Help));
    let waiting = app.outbox.unanswered();
    let mut right = Vec::new();
    if waiting > 0 {
        right.push(span(format!("{waiting} to send   "), theme.warn));
    }
    if columns >= 80 || waiting == 0 {
        right.push(span(help, Style::new()));
    }
    let word = span(format!("  {word}"), word_style);
    let taken: usize = right.iter().chain([&word]).map(|span| width(&span.content)).sum();
    Parts { word, right, room: usize::from(columns).saturating_sub(taken + 4) }
}

/// Rows of a notice that does not fit beside the state of the connection. They stand above the last line.
/// The notice gets more than one row because its end may say what to do.
fn notice_rows(app: &App) -> Vec<String> {
    let Some(notice) = &app.notice else { return Vec::new() };
    if width(&notice.text) <= parts(app).room {
        return Vec::new();
    }
    let columns = usize::from(app.size.0).saturating_sub(4);
    let mut rows = wrap(&notice.text, columns, columns);
    if rows.len() > NOTICE_ROWS {
        let rest = rows.split_off(NOTICE_ROWS - 1).join(" ");
        rows.push(cut(&rest, columns));
    }
    rows
}

/// Draws what has the focus and what the keys do, as many of them as fit.
pub(super) fn mode(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let theme = &app.settings.theme;
    let mode = app.mode();
    let mut used = width(&mode.name) + 3;
    let mut spans = vec![span(format!("  {}", mode.name), theme.title.patch(theme.accent))];
    for (key, word) in mode.keys {
        used += width(&key) + width(word) + 4;
        if used > usize::from(area.width) {
            break;
        }
        spans.push(span(format!("   {key}"), theme.accent));
        spans.push(span(format!(" {word}"), theme.dim));
    }
    frame.render_widget(Clear, area);
    frame.buffer_mut().set_style(area, theme.text.patch(theme.side));
    frame.render_widget(Line::from(spans), area);
}

/// Height of the status lines, in rows.
pub(super) fn height(app: &App) -> u16 {
    u16::try_from(notice_rows(app).len()).unwrap_or(0) + 1
}

pub(super) fn draw(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let theme = &app.settings.theme;
    frame.buffer_mut().set_style(area, theme.bar);
    let Parts { word, right, room } = parts(app);
    let mut left = vec![word];
    let notice_style = |trouble: bool| if trouble { theme.bad } else { theme.accent };
    let above = notice_rows(app);
    match &app.notice {
        Some(notice) if above.is_empty() => {
            left.push(span(format!("   {}", notice.text), notice_style(notice.is_trouble)));
        }
        Some(notice) => {
            for (y, row) in (area.y..area.bottom()).zip(above) {
                let line = Line::from(span(format!("  {row}"), notice_style(notice.is_trouble)));
                frame.render_widget(line, Rect { y, height: 1, ..area });
            }
            left.extend(details(app, room));
        }
        None => left.extend(details(app, room)),
    }
    let last = Rect { y: area.bottom().saturating_sub(1), height: 1, ..area };
    frame.render_widget(ends(left, right, area.width), last);
}

/// Details of the primary, as many as fit.
fn details(app: &App, room: usize) -> Vec<Span<'static>> {
    let Some((view, addr)) = app.connection.primary else { return Vec::new() };
    let name = server(view, addr);
    let trip = app.connection.round_trip.map(trip_in_words);
    let address = addr.to_string();
    let parts = [Some(name), Some(address), Some(format!("view {view}")), trip];
    let mut spans = Vec::new();
    let mut used = 0;
    for part in parts.into_iter().flatten() {
        used += width(&part) + 3;
        if used > room {
            break;
        }
        spans.push(span(format!("   {part}"), Style::new()));
    }
    spans
}
