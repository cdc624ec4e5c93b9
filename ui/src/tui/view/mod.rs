//! View: draws the screen from its state alone. The same state draws the same screen.
//!
//! ```text
//! +------------------------------------------------+
//! | header: the place shown, the user's profile    |
//! | side      | banner, while there is one         |
//! |           | list                               |
//! |           |                                    |
//! |           +------------------------------------|
//! |           | suggestions, over the list         |
//! |           | compose: destination, and the text |
//! | mode: what has the focus, what the keys do     |
//! | status: state of the connection, notices       |
//! +------------------------------------------------+
//! ```
//!
//! `popup` and the files beside it draw the popups: help, servers, palette, questions.

mod clusters;
mod compose;
mod help;
pub(crate) mod item;
pub(crate) mod list;
mod popup;
mod servers;
pub(crate) mod side;
mod status;
#[cfg(test)]
mod tests;

use ratatui::Frame;
use ratatui::layout::{Alignment, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};
use unicode_width::UnicodeWidthStr;

pub(crate) use self::item::clock as time;
use super::app::App;
use super::wrap::wrap;

/// Smallest size at which the screen is drawn.
pub(crate) const SMALLEST: (u16, u16) = (40, 9);

/// Smallest width at which the list of places is shown.
const SIDE_FROM: u16 = 60;

/// Areas of the parts of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Areas {
    pub(crate) header: Rect,
    pub(crate) side: Option<Rect>,
    pub(crate) banner: Option<Rect>,
    pub(crate) list: Rect,
    pub(crate) compose: Rect,
    pub(crate) mode: Rect,
    pub(crate) status: Rect,
}

/// Computes the areas of the parts of the screen.
pub(crate) fn areas(app: &App) -> Areas {
    let (width, height) = (app.size.0.max(1), app.size.1.max(5));
    let side_width = match width {
        0..SIDE_FROM => 0,
        SIDE_FROM..100 => 20,
        100..160 => 26,
        _ => 32,
    };
    // However long the notice is, one row each remains for the list and for the compose line.
    let status_height = status::height(app).min(height - 4);
    let body = Rect::new(side_width, 1, width - side_width, height - 2 - status_height);
    let compose_height = compose::height(app, body.width).min(body.height / 3).max(1);
    let room = body.height.saturating_sub(compose_height + 1);
    let rows = banner(app, body.width).map_or(0, |lines| lines.len());
    let banner_height = u16::try_from(rows).unwrap_or(u16::MAX).min(room);
    let list_height = body.height.saturating_sub(compose_height + banner_height);
    Areas {
        header: Rect::new(0, 0, width, 1),
        side: (side_width > 0).then_some(Rect::new(0, 1, side_width, body.height)),
        banner: (banner_height > 0).then_some(Rect { height: banner_height, ..body }),
        list: Rect { y: body.y + banner_height, height: list_height, ..body },
        compose: Rect { y: body.bottom() - compose_height, height: compose_height, ..body },
        mode: Rect::new(0, body.bottom(), width, 1),
        status: Rect::new(0, height - status_height, width, status_height),
    }
}

/// Draws everything.
pub(crate) fn draw(app: &App, frame: &mut Frame<'_>) {
    let theme = &app.settings.theme;
    let whole = frame.area();
    frame.buffer_mut().set_style(whole, theme.text);
    if is_too_small(app) {
        return too_small(app, frame);
    }
    let areas = areas(app);
    status::header(app, frame, areas.header);
    if let Some(side) = areas.side {
        side::draw(app, frame, side);
    }
    if let (Some(area), Some(lines)) = (areas.banner, banner(app, areas.list.width)) {
        frame.buffer_mut().set_style(area, theme.banner);
        for (y, line) in (area.y..area.bottom()).zip(lines) {
            let line = Line::from(format!(" {line}")).style(theme.banner);
            frame.render_widget(line, Rect { y, height: 1, ..area });
        }
    }
    list::draw(app, frame, areas.list);
    compose::draw(app, frame, &areas);
    status::mode(app, frame, areas.mode);
    status::draw(app, frame, areas.status);
    if let Some(over) = &app.popup {
        popup::draw(app, over, frame);
        // The popup may cover the line, and its keys are others.
        status::mode(app, frame, areas.mode);
    }
    clusters::simplify(frame.buffer_mut());
}

/// Lines of the banner in this many columns, if there is one.
fn banner(app: &App, columns: u16) -> Option<Vec<String>> {
    let room = usize::from(columns).saturating_sub(2);
    Some(wrap(&app.banner()?, room, room))
}

/// Returns true if the compose line hides its beginning although there is room for it. This happens after
/// the terminal has grown or the text has become shorter.
pub(crate) fn hides_what_fits(app: &App) -> bool {
    app.compose.hidden_rows() > 0 && compose::is_scrolled_too_far(app, areas(app).compose)
}

/// Largest scroll position of a popup that shows text.
pub(crate) fn reading_rows(app: &App) -> usize {
    popup::most_scroll(app)
}

/// Returns true if nothing of the screen can be drawn. Then only the key that leaves works: the others would
/// act on what nobody sees.
pub(crate) fn is_too_small(app: &App) -> bool {
    app.size.0 < SMALLEST.0 || app.size.1 < SMALLEST.1
}

fn too_small(app: &App, frame: &mut Frame<'_>) {
    let (width, height) = app.size;
    let leaves = if app.asks_whether_to_leave() {
        "Your text is not sent and would be lost: Ctrl+C again leaves."
    } else {
        "Ctrl+C leaves; other keys do nothing."
    };
    let text = format!("Too small: {width}x{height}.\nrecado needs {}x{}.\n{leaves}", SMALLEST.0, SMALLEST.1);
    frame.render_widget(
        Paragraph::new(text).alignment(Alignment::Center).wrap(Wrap { trim: true }),
        frame.area(),
    );
}

/// Draws an empty box with a title in the middle of the screen, and returns the area inside it.
fn boxed(app: &App, frame: &mut Frame<'_>, title: &str, width: u16, height: u16) -> Rect {
    let theme = &app.settings.theme;
    let area = frame.area();
    // The state of the connection stays visible, and the mode line takes the place of the lowest blank row.
    let room = area.height.saturating_sub(1);
    let (width, height) = ((width + 4).min(area.width), (height + 4).min(room));
    let area = Rect::new(area.x + (area.width - width) / 2, area.y + (room - height) / 2, width, height);
    frame.render_widget(Clear, area);
    frame.buffer_mut().set_style(area, theme.text.patch(theme.popup));
    if !theme.has_backgrounds {
        frame.render_widget(Block::bordered().border_set(ASCII_BORDER), area);
    }
    let inner =
        Rect::new(area.x + 2, area.y + 1, area.width.saturating_sub(4), area.height.saturating_sub(2));
    let title = Line::from(Span::styled(title.to_owned(), theme.title.patch(theme.accent)));
    frame.render_widget(title, Rect { height: inner.height.min(1), ..inner });
    Rect { y: inner.y + 2.min(inner.height), height: inner.height.saturating_sub(2), ..inner }
}

const ASCII_BORDER: ratatui::symbols::border::Set<'static> = ratatui::symbols::border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// A line with parts at its left and right ends. The right part is left out if it does not fit.
fn ends(left: Vec<Span<'static>>, right: Vec<Span<'static>>, width: u16) -> Line<'static> {
    let wide = |spans: &[Span<'_>]| spans.iter().map(|span| span.content.width()).sum::<usize>();
    let room = usize::from(width).saturating_sub(wide(&left));
    let mut spans = left;
    if wide(&right) < room {
        spans.push(Span::raw(" ".repeat(room - wide(&right))));
        spans.extend(right);
    }
    Line::from(spans)
}

fn span(text: impl Into<String>, style: Style) -> Span<'static> {
    Span::styled(text.into(), style)
}
