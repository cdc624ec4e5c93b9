//! Popups: texts to read, the palette, questions, the first start, an invitation.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use super::{boxed, compose, ends, help, servers, span};
use crate::tui::app::{App, Popup, Question};
use crate::tui::connection::CONNECTING;
use crate::tui::input::Input;
use crate::tui::palette::Palette;
use crate::tui::wrap::{self, cut, wrap};

/// Largest size of a text to read, in columns and rows.
const READING: (u16, u16) = (96, 48);

pub(super) fn draw(app: &App, popup: &Popup, frame: &mut Frame<'_>) {
    match popup {
        Popup::Help { scroll } => read(app, frame, "Help", *scroll),
        Popup::Servers { scroll } => read(app, frame, "Servers", *scroll),
        Popup::Text { title, scroll, .. } => read(app, frame, title, *scroll),
        Popup::Palette(palette) => draw_palette(app, palette, frame),
        Popup::Question(question) => draw_question(app, question, frame),
        Popup::Welcome { input, wrong } => welcome(app, input, wrong.as_deref(), frame),
        Popup::Invitation { input, wrong } => invitation(app, input, wrong.as_deref(), frame),
    }
}

/// Lines of the text to read, in this many columns.
fn lines(app: &App, columns: usize) -> Vec<Line<'static>> {
    match &app.popup {
        Some(Popup::Help { .. }) => help::lines(app, columns),
        Some(Popup::Servers { .. }) => servers::lines(app, columns),
        Some(Popup::Text { lines, .. }) => {
            lines.iter().flat_map(|line| wrap(line, columns, columns)).map(Line::from).collect()
        }
        Some(Popup::Palette(_) | Popup::Question(_) | Popup::Welcome { .. } | Popup::Invitation { .. })
        | None => Vec::new(),
    }
}

fn reading_size(app: &App) -> (u16, u16) {
    let (width, height) = (app.size.0.saturating_sub(4), app.size.1.saturating_sub(5));
    (width.min(READING.0), height.min(READING.1))
}

/// Largest scroll position of the text.
pub(super) fn most_scroll(app: &App) -> usize {
    let (columns, rows) = reading_size(app);
    lines(app, columns.into()).len().saturating_sub(rows.into())
}

fn read(app: &App, frame: &mut Frame<'_>, title: &str, scroll: usize) {
    let (columns, rows) = reading_size(app);
    let lines = lines(app, columns.into());
    let fits = u16::try_from(lines.len()).unwrap_or(rows).min(rows);
    let more = lines.len().saturating_sub(usize::from(fits) + scroll);
    let title = match more {
        0 => title.to_owned(),
        _ => format!("{title}   {more} more lines below"),
    };
    let inner = boxed(app, frame, &title, columns, fits);
    for (y, line) in (inner.y..inner.bottom()).zip(lines.into_iter().skip(scroll)) {
        frame.render_widget(line, Rect { y, height: 1, ..inner });
    }
}

fn draw_palette(app: &App, palette: &Palette, frame: &mut Frame<'_>) {
    let theme = &app.settings.theme;
    let fits = palette.fits();
    let rows = app.size.1.saturating_sub(8).min(16);
    let inner = boxed(app, frame, palette.title, 56, rows + 2);
    let [line, list] = split(inner, 2);
    let prompt = format!("{} ", app.settings.symbols.pointer);
    frame.render_widget(Line::from(span(prompt, theme.accent)), line);
    compose::edit(
        frame,
        palette.input.area(),
        Rect { x: line.x + 2, width: line.width.saturating_sub(2), ..line },
        true,
    );
    if fits.is_empty() {
        let text = palette.none();
        return frame.render_widget(Line::from(span(text, theme.dim)), list);
    }
    let first = (palette.selected + 1).saturating_sub(usize::from(list.height));
    let shown = fits.into_iter().enumerate().skip(first);
    for (y, (at, fit)) in (list.y..list.bottom()).zip(shown) {
        let row = Rect { y, height: 1, ..list };
        let mut left = vec![span(" ", Style::new())];
        let note = format!("{} ", fit.choice.note);
        let room = usize::from(row.width).saturating_sub(2 + wrap::width(&note));
        for (letter, c) in cut(&fit.choice.label, room).chars().enumerate() {
            let found = u32::try_from(letter).is_ok_and(|letter| fit.letters.binary_search(&letter).is_ok());
            left.push(span(c.to_string(), if found { theme.accent } else { Style::new() }));
        }
        frame.render_widget(ends(left, vec![span(note, theme.dim)], row.width), row);
        if at == palette.selected {
            frame.buffer_mut().set_style(row, theme.selected);
        }
    }
}

fn split(area: Rect, first: u16) -> [Rect; 2] {
    let first = first.min(area.height);
    [Rect { height: first.min(1), ..area }, Rect { y: area.y + first, height: area.height - first, ..area }]
}

fn draw_question(app: &App, question: &Question, frame: &mut Frame<'_>) {
    let theme = &app.settings.theme;
    let columns = app.size.0.saturating_sub(8).min(76);
    let width = usize::from(columns);
    let mut text = if question.text.is_empty() { Vec::new() } else { wrap(&question.text, width, width) };
    if !text.is_empty() {
        text.push(String::new());
    }
    let answers = answers(app, question, width);
    let most = usize::from(app.size.1.saturating_sub(5));
    let rows = u16::try_from(text.len() + answers.len()).unwrap_or(u16::MAX);
    let inner = boxed(app, frame, &question.title, columns, rows.min(app.size.1.saturating_sub(5)));
    // The marked answer is visible, if need be in place of the text.
    let marked =
        answers.iter().rposition(|(_, at)| *at == question.marked).map_or(0, |row| text.len() + row + 1);
    let lines = text.into_iter().map(|line| (line, usize::MAX)).chain(answers);
    let skipped = marked.saturating_sub(most.min(inner.height.into()));
    for (y, (line, at)) in (inner.y..inner.bottom()).zip(lines.skip(skipped)) {
        let row = Rect { y, height: 1, ..inner };
        frame.render_widget(Line::from(line), row);
        if at == question.marked {
            frame.buffer_mut().set_style(row, theme.selected);
        }
    }
}

/// Rows of the answers, each with the index of its answer.
fn answers(app: &App, question: &Question, width: usize) -> Vec<(String, usize)> {
    let room = width.saturating_sub(6);
    let last = question.answers.len().saturating_sub(1);
    let mut rows = Vec::new();
    for (at, (words, _)) in question.answers.iter().enumerate() {
        let pointer = if at == question.marked { app.settings.symbols.pointer } else { " " };
        let key = match at {
            at if at == last => "n",
            0 => "y",
            _ => " ",
        };
        for (line, words) in wrap(words, room, room).into_iter().enumerate() {
            let before = if line == 0 { format!("{pointer} {key}  ") } else { " ".repeat(5) };
            rows.push((format!("{before}{words}"), at));
        }
    }
    rows
}

fn welcome(app: &App, input: &Input, wrong: Option<&str>, frame: &mut Frame<'_>) {
    let text = "recado sends and receives notifications. Choose the name others will know you by: 2 to 32 of a-z, 0-9, _ . -";
    let servers = match app.cluster.answering() {
        // A server has a moment to answer before this says that none does.
        0 if app.connection_word() == CONNECTING => {
            format!("Connecting to {}.", app.servers_in_words())
        }
        0 => format!("No server answers at {} yet; ./run.sh starts some.", app.servers_in_words()),
        1 => "One server answers.".to_owned(),
        n => format!("{n} servers answer."),
    };
    let below = wrong.ok_or(servers.as_str());
    draw_line(app, frame, "Welcome to recado", text, ("@ ", input), below);
}

fn invitation(app: &App, input: &Input, wrong: Option<&str>, frame: &mut Frame<'_>) {
    let name = app.profile.as_ref().map(|name| format!(" for @{name}")).unwrap_or_default();
    let text = "A new name needs an invitation code: recadod admin invite --config FILE";
    let below = wrong.ok_or("Enter continues, Esc cancels.");
    draw_line(app, frame, &format!("Invitation{name}"), text, ("code ", input), below);
}

/// Draws a popup with an input line behind its sign. `text` stands above it. Below it stands what was wrong
/// with the last input (`Ok`), or other information (`Err`).
fn draw_line(
    app: &App,
    frame: &mut Frame<'_>,
    title: &str,
    text: &str,
    (sign, input): (&'static str, &Input),
    below: Result<&str, &str>,
) {
    let theme = &app.settings.theme;
    let columns = app.size.0.saturating_sub(8).min(64);
    let width = usize::from(columns);
    let mut above = wrap(text, width, width);
    above.push(String::new());
    let (style, below) = match below {
        Ok(wrong) => (theme.bad, wrap(wrong, width, width)),
        Err(other) => (theme.dim, wrap(other, width, width)),
    };
    let rows = u16::try_from(above.len() + below.len() + 2).unwrap_or(8);
    let inner = boxed(app, frame, title, columns, rows);
    let mut y = inner.y;
    let put = |frame: &mut Frame<'_>, y: &mut u16, line: Line<'static>| {
        if *y < inner.bottom() {
            frame.render_widget(line, Rect { y: *y, height: 1, ..inner });
        }
        *y += 1;
    };
    // The input and a row below it are visible, if need be in place of the text.
    let skipped = (above.len() + 2).saturating_sub(inner.height.into());
    for line in above.into_iter().skip(skipped) {
        put(frame, &mut y, Line::from(line));
    }
    let before = u16::try_from(wrap::width(sign)).unwrap_or(0);
    let row = Rect { x: inner.x + before, y, width: inner.width.saturating_sub(before), height: 1 };
    put(frame, &mut y, Line::from(span(sign, theme.accent)));
    if row.y < inner.bottom() {
        compose::edit(frame, input.area(), row, true);
    }
    if y + u16::try_from(below.len()).unwrap_or(u16::MAX) < inner.bottom() {
        y += 1;
    }
    for line in below {
        put(frame, &mut y, Line::from(span(cut(&line, width), style)));
    }
}
