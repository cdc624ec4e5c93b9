//! The first line and the last: where one is, and how the connection is.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;
use recado::client::Topic;

use super::{ends, span};
use crate::tui::app::App;
use crate::tui::connection::{State, trip_in_words};
use crate::tui::event::server;
use crate::tui::keys::{Action, key_for};
use crate::tui::place::Place;
use crate::tui::wrap::{cut, width};

pub(super) fn header(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let theme = &app.settings.theme;
    frame.buffer_mut().set_style(area, theme.bar);
    let title = app.here.label(app.profile.as_ref());
    let mut left = vec![span(format!("  {title}"), theme.title)];
    left.push(span(format!("   {}", about(app)), Style::new()));
    let mut right = Vec::new();
    if let Some(me) = &app.profile {
        let account = app.account.as_ref().map(|account| format!(" on {account}")).unwrap_or_default();
        right.push(span(format!("@{me}{account} "), Style::new()));
    }
    frame.render_widget(ends(left, right, area.width), area);
}

/// What there is to say about the place at hand.
fn about(app: &App) -> String {
    let mut words = Vec::new();
    if let Place::Topic(topic) = &app.here {
        if let Topic::Channel(name) = topic
            && let Some((_, followers)) = app.channels.iter().find(|(channel, _)| channel == name)
        {
            words.push(crate::commands::counted(*followers, "follower"));
        }
        if !app.places.follows(topic) {
            words.push("not followed".to_owned());
        }
        if app.places.is_muted(topic) {
            words.push("muted".to_owned());
        }
    }
    let elsewhere = app.places.unread(&Place::All);
    if app.size.0 < super::SIDE_FROM && elsewhere > 0 {
        words.push(format!("{elsewhere} unread"));
    }
    if app.position.anchor.is_some() {
        words.push("looking back".to_owned());
    }
    words.join(", ")
}

pub(super) fn draw(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let theme = &app.settings.theme;
    frame.buffer_mut().set_style(area, theme.bar);
    let word = app.connection.word(app.now);
    let word_style = match app.connection.state {
        State::Connected => theme.good,
        State::Apart | State::Connecting { .. } | State::Searching { .. } => theme.warn,
        State::Over(_) => theme.bad,
    };
    let help = format!("{} help ", key_for(Action::Help));
    let waiting = app.outbox.unanswered();
    let mut right = Vec::new();
    if waiting > 0 {
        right.push(span(format!("{waiting} to send   "), theme.warn));
    }
    if area.width >= 80 || waiting == 0 {
        right.push(span(help, Style::new()));
    }
    let mut left = vec![span(format!("  {word}"), word_style)];
    let taken: usize = left.iter().chain(&right).map(|span| width(&span.content)).sum();
    let room = usize::from(area.width).saturating_sub(taken + 4);
    match &app.notice {
        Some(notice) => {
            let style = if notice.is_trouble { theme.bad } else { theme.accent };
            left.push(span(format!("   {}", cut(&notice.text, room)), style));
        }
        None => left.extend(details(app, room)),
    }
    frame.render_widget(ends(left, right, area.width), area);
}

/// About the primary, as much as there is room for.
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
