//! List of places, with their unread counts.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;
use recado_client::Access;

use super::{ends, span};
use crate::tui::app::{App, Focus};
use crate::tui::conversation::Conversation;
use crate::tui::wrap::cut;

enum Row {
    Blank,
    Heading(&'static str),
    Place(Conversation),
}

fn rows(app: &App) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut group = None;
    for (of, place) in app.rows() {
        if group != Some(of) {
            if group.is_some() {
                rows.push(Row::Blank);
            }
            rows.extend(of.heading().map(Row::Heading));
            group = Some(of);
        }
        rows.push(Row::Place(place));
    }
    rows
}

/// Visible rows. The place shown is among them.
fn window(app: &App, area: Rect) -> Vec<Row> {
    let mut rows = rows(app);
    let height = usize::from(area.height);
    let here = rows.iter().position(|row| matches!(row, Row::Place(place) if *place == app.here));
    let skipped = here.map_or(0, |here| (here + 2).min(rows.len()).saturating_sub(height));
    rows.drain(..skipped);
    rows.truncate(height);
    rows
}

/// Place in this row of the screen.
pub(crate) fn place_at(app: &App, area: Rect, y: u16) -> Option<Conversation> {
    match window(app, area).into_iter().nth(usize::from(y.checked_sub(area.y)?))? {
        Row::Place(place) => Some(place),
        Row::Blank | Row::Heading(_) => None,
    }
}

pub(super) fn draw(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let theme = &app.settings.theme;
    frame.buffer_mut().set_style(area, theme.side);
    if !theme.has_backgrounds {
        for y in area.top()..area.bottom() {
            frame.buffer_mut().set_string(area.right() - 1, y, "|", theme.dim);
        }
    }
    let width = area.width - 1;
    for (y, row) in (area.y..area.bottom()).zip(window(app, area)) {
        let at = Rect { y, height: 1, width, ..area };
        match row {
            Row::Blank => {}
            Row::Heading(text) => {
                frame.render_widget(Line::from(span(format!("  {text}"), theme.dim)), at);
            }
            Row::Place(place) => {
                let is_here = place == app.here;
                if is_here {
                    let whole = Rect { width: if theme.has_backgrounds { area.width } else { width }, ..at };
                    frame.buffer_mut().set_style(whole, theme.selected);
                }
                frame.render_widget(line(app, &place, is_here, width), at);
            }
        }
    }
}

fn is_private(app: &App, place: &Conversation) -> bool {
    let channel = place.topic().and_then(|topic| app.channel(topic));
    channel.is_some_and(|channel| channel.access == Access::Private)
}

fn line(app: &App, place: &Conversation, is_here: bool, width: u16) -> Line<'static> {
    let theme = &app.settings.theme;
    let unread = app.places.unread(place);
    let muted = place.topic().is_some_and(|topic| app.places.is_muted(topic));
    let followed = place.topic().is_none_or(|topic| app.places.follows(topic));
    let count = match (unread, muted) {
        (0, _) if app.has_draft(place) => "draft".to_owned(),
        (0, true) => "muted".to_owned(),
        (0, false) if is_private(app, place) => "private".to_owned(),
        (0, false) => String::new(),
        (1_000.., _) => "999+".to_owned(),
        (n, true) => format!("({n})"),
        (n, false) => n.to_string(),
    };
    let style = match (muted || !followed, unread > 0) {
        (true, _) => theme.dim,
        (false, true) => theme.unread,
        (false, false) => ratatui::style::Style::new(),
    };
    let pointer = match (is_here, app.focus) {
        (true, Focus::Places) => app.settings.symbols.pointer,
        _ => " ",
    };
    let room = usize::from(width).saturating_sub(count.len() + 4);
    let label = cut(&place.label(app.profile.as_ref()), room);
    let count_style = if muted || unread == 0 { theme.dim } else { theme.unread };
    ends(
        vec![span(format!("{pointer} "), theme.accent), span(label, style)],
        vec![span(format!("{count} "), count_style)],
        width,
    )
}
