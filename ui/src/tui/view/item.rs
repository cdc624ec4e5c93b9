//! Rows of a notification: those above it (a new day, a gap, the marker of new ones), then its own.

use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use recado_client::{Content, Name, Notification, Op, Topic};

use super::span;
use crate::text::{clean_line, sanitize};
use crate::tui::app::App;
use crate::tui::conversation::Conversation;
use crate::tui::event::written;
use crate::tui::log::Log;
use crate::tui::outbox::Pending;
use crate::tui::symbols::Symbols;
use crate::tui::theme::Theme;
use crate::tui::wrap::{self, wrap};

/// Columns before a notification's text: the pointer, the time, spaces.
const INDENT: usize = 9;

/// Columns behind a destination: a space, the sign of a sent notification and that of its priority, each with
/// a space, and the space before the text.
const MARKS: usize = 1 + 3 + 1 + 4;

/// Columns behind an author: a space, the sign of a sent notification with a space, and the space before the
/// text.
const AUTHOR_MARKS: usize = 4;

/// Rows of a longer notification that the list shows. The last one says how many there are.
const FOLD: usize = 12;

/// Smallest room behind the author for a long text. With less, the text begins in the next row.
const ROOM_LEAST: usize = 16;

/// State that all rows of a list share.
pub(crate) struct Context<'a> {
    width: usize,
    theme: &'a Theme,
    symbols: Symbols,
    zone: &'a TimeZone,
    today: Option<Date>,
    me: Option<&'a Name>,
    /// True if the list has notifications of several topics.
    mixed: bool,
    is_inbox: bool,
    wanted: Option<String>,
    seen_upto: Option<Op>,
    gaps: &'a [(Op, Op)],
}

impl<'a> Context<'a> {
    /// Builds the context for the place shown, in `width` columns.
    pub(crate) fn new(app: &'a App, width: u16) -> Context<'a> {
        let zone = &app.settings.zone;
        Context {
            width: usize::from(width),
            theme: &app.settings.theme,
            symbols: app.settings.symbols,
            zone,
            today: date(app.now.unix_ms, zone),
            me: app.profile.as_ref(),
            mixed: app.here == Conversation::All,
            is_inbox: matches!(app.here, Conversation::Topic(Topic::Inbox(_))),
            wanted: app.wanted(),
            seen_upto: app.log(&app.here).and_then(|log| log.seen_upto),
            gaps: &app.gaps,
        }
    }
}

fn timestamp(unix_ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()
}

fn date(unix_ms: u64, zone: &TimeZone) -> Option<Date> {
    Some(timestamp(unix_ms)?.to_zoned(zone.clone()).date())
}

/// Formats a time in a time zone, or `?` if it is beyond the calendar.
pub(crate) fn clock(unix_ms: u64, zone: &TimeZone, form: &str) -> String {
    timestamp(unix_ms)
        .map_or_else(|| "?".to_owned(), |at| at.to_zoned(zone.clone()).strftime(form).to_string())
}

/// Height of the item at this index of the log, in rows.
pub(crate) fn height(context: &Context<'_>, log: &Log, at: usize) -> usize {
    rows(context, log, at).1.len()
}

/// Rows of an item, and the number of those that stand above the item's own.
pub(crate) fn rows(context: &Context<'_>, log: &Log, at: usize) -> (usize, Vec<Line<'static>>) {
    let Some(one) = log.get(at) else { return (0, vec![Line::default()]) };
    let before = at.checked_sub(1).and_then(|before| log.get(before));
    let mut rows = above(context, before, one, new_begins(context, log, at));
    let count = rows.len();
    rows.extend(notification(context, one));
    (count, rows)
}

fn above(
    context: &Context<'_>,
    before: Option<&Arc<Notification>>,
    one: &Notification,
    new_begins: bool,
) -> Vec<Line<'static>> {
    let theme = context.theme;
    let mut rows = Vec::new();
    let day = date(one.unix_ms, context.zone);
    if before.is_none_or(|before| date(before.unix_ms, context.zone) != day) {
        if before.is_some() {
            rows.push(Line::default());
        }
        let words = day.map(|day| day_in_words(day, context.today)).unwrap_or_default();
        rows.push(Line::from(span(format!("  {words}"), theme.dim.patch(theme.title))));
    }
    let since = before.map_or(Op::ZERO, |before| before.op);
    if context.gaps.iter().any(|(_, upto)| since <= *upto && *upto < one.op) && before.is_some() {
        rows.push(Line::from(span(
            "  older ones were dropped by the servers before you read them",
            theme.warn,
        )));
    }
    if new_begins {
        rows.push(Line::from(span("  new since you looked", theme.unread)));
    }
    rows
}

/// Returns true if the marker of new notifications stands above this item: it is the first of another
/// author since the user looked.
fn new_begins(context: &Context<'_>, log: &Log, at: usize) -> bool {
    let Some(seen) = context.seen_upto else { return false };
    let mine = |one: &Arc<Notification>| context.me == Some(&one.author);
    if log.get(at).is_none_or(|one| one.op <= seen || mine(one)) {
        return false;
    }
    let before = (0..at).rev().filter_map(|at| log.get(at)).find(|one| one.op <= seen || !mine(one));
    before.is_some_and(|before| before.op <= seen)
}

fn day_in_words(day: Date, today: Option<Date>) -> String {
    let written = day.strftime("%A %-d %B").to_string();
    match today {
        Some(today) if day == today => format!("Today, {written}"),
        Some(today) if today.checked_sub(1.day()).is_ok_and(|yesterday| day == yesterday) => {
            format!("Yesterday, {written}")
        }
        Some(today) if day.year() == today.year() => written,
        _ => day.strftime("%A %-d %B %Y").to_string(),
    }
}

fn notification(context: &Context<'_>, one: &Notification) -> Vec<Line<'static>> {
    let theme = context.theme;
    let mut head = vec![span(format!("  {}  ", clock(one.unix_ms, context.zone, "%H:%M")), theme.dim)];
    head.extend(author(context, &one.author, &one.topic));
    if context.me == Some(&one.author) {
        head.push(span(format!("{} ", context.symbols.sent), theme.good));
    }
    head.push(Span::raw(" "));
    content(context, head, &one.content)
}

/// Author of a notification, and its destination unless the place shown implies it, cut where it is longer
/// than the row. A space follows each.
fn author(context: &Context<'_>, author: &Name, topic: &Topic) -> Vec<Span<'static>> {
    let theme = context.theme;
    let room = context.width.saturating_sub(INDENT + AUTHOR_MARKS);
    let name = wrap::cut(&format!("@{author}"), room);
    let mut spans = vec![span(format!("{name} "), theme.author(author.as_str()))];
    let place = match topic {
        Topic::Channel(_) if context.mixed => Some(written(topic)),
        Topic::Inbox(to) if Some(to) != context.me => Some(format!("to @{to}")),
        Topic::Inbox(_) if context.mixed && !context.is_inbox => Some("to you".to_owned()),
        Topic::Channel(_) | Topic::Inbox(_) | Topic::Feed(_) => None,
    };
    let room = context.width.saturating_sub(INDENT + wrap::width(&spans[0].content) + MARKS);
    spans.extend(place.map(|place| span(format!("{} ", wrap::cut(&place, room)), theme.dim)));
    spans
}

/// Rows of a notification's content behind `head`, wrapped, with its title and tags.
fn content(context: &Context<'_>, head: Vec<Span<'static>>, content: &Content) -> Vec<Line<'static>> {
    let theme = context.theme;
    let width = context.width.saturating_sub(INDENT + 1).max(1);
    let mut rows = Rows { context, width, indent: INDENT, rows: Vec::new(), current: head };
    let priority = usize::from(u8::from(content.priority));
    let mark = context.symbols.priority[(priority - 1).min(4)];
    let mark_style = match priority {
        5 => theme.bad,
        4 => theme.warn,
        _ => theme.dim,
    };
    if !mark.is_empty() {
        rows.current.push(span(format!("{mark} "), mark_style));
    }
    let urgent = if priority == 5 { theme.bad } else { Style::new() };
    if let Some(title) = &content.title {
        rows.text(&clean_line(title), theme.title.patch(urgent), false);
        rows.end();
    }
    let body = sanitize(&content.body.as_text());
    let body = body.trim_end();
    if !body.is_empty() {
        rows.text(body, Style::new(), content.title.is_some());
    }
    for tag in &content.tags {
        rows.word(&format!(" [{}]", clean_line(tag)), theme.dim);
    }
    rows.end();
    fold(context, rows.rows)
}

/// Folds the rows of a long notification. The whole of it opens in a popup.
fn fold(context: &Context<'_>, mut rows: Vec<Line<'static>>) -> Vec<Line<'static>> {
    let lines = rows.len();
    if lines > FOLD {
        rows.truncate(FOLD - 1);
        let text = format!("{}... {lines} lines, Enter opens", " ".repeat(INDENT));
        rows.push(Line::from(span(wrap::cut(&text, context.width), context.theme.dim)));
    }
    rows
}

/// Rows of a text of the outbox, which is unacknowledged or refused.
pub(super) fn pending(context: &Context<'_>, pending: &Pending, state: &str) -> Vec<Line<'static>> {
    let theme = context.theme;
    let (word, style) = match &pending.refused {
        Some(why) => (format!("{} refused: {why}", context.symbols.refused), theme.bad),
        None => (state.to_owned(), theme.warn),
    };
    let mut head = vec![span(" ".repeat(INDENT), theme.dim)];
    if let Some(me) = context.me {
        let topic = pending.topic.clone().unwrap_or_else(|| Topic::Feed(me.clone()));
        head.extend(author(context, me, &topic));
        head.push(Span::raw(" "));
    }
    let mut rows = content(context, head, &pending.content);
    if let Some(last) = rows.last_mut() {
        let room = context.width.saturating_sub(last.width() + 1);
        if wrap::width(&word) + 2 <= room {
            last.push_span(span(format!("  {word}"), style));
        } else {
            // A reason is told whole.
            let room = context.width.saturating_sub(INDENT + 1).max(1);
            rows.extend(
                wrap(&word, room, room)
                    .into_iter()
                    .map(|text| Line::from(vec![span(" ".repeat(INDENT), theme.dim), span(text, style)])),
            );
        }
    }
    rows
}

/// Builder of rows.
struct Rows<'a> {
    context: &'a Context<'a>,
    width: usize,
    indent: usize,
    rows: Vec<Line<'static>>,
    /// The row that is not complete yet.
    current: Vec<Span<'static>>,
}

impl Rows<'_> {
    fn used(&self) -> usize {
        let columns: usize = self.current.iter().map(|span| wrap::width(&span.content)).sum();
        columns.saturating_sub(self.indent)
    }

    fn end(&mut self) {
        if !self.current.is_empty() {
            self.rows.push(Line::from(std::mem::take(&mut self.current)));
        }
    }

    fn begin(&mut self) {
        self.end();
        self.current.push(Span::raw(" ".repeat(self.indent)));
    }

    /// Adds a text of any length. It begins in the current row, unless `anew` is true or the row has too
    /// little room.
    fn text(&mut self, text: &str, style: Style, anew: bool) {
        if self.current.is_empty() {
            self.current.push(Span::raw(" ".repeat(self.indent)));
        }
        let mut first = self.width.saturating_sub(self.used());
        let long = wrap::width(text) > first || text.contains('\n');
        if (anew && self.used() > 0) || (long && first < ROOM_LEAST) {
            self.begin();
            first = self.width;
        }
        for (at, line) in wrap(text, first.max(1), self.width).into_iter().enumerate() {
            if at > 0 {
                self.begin();
            }
            self.found(&line, style);
        }
    }

    /// Adds a short word, which is not broken.
    fn word(&mut self, word: &str, style: Style) {
        if self.current.is_empty() || self.used() + wrap::width(word) > self.width {
            self.begin();
            self.current.push(span(wrap::cut(word.trim_start(), self.width), style));
        } else {
            self.current.push(span(word, style));
        }
    }

    /// Adds a line, and highlights the matches of the search.
    fn found(&mut self, line: &str, style: Style) {
        let lower = line.to_lowercase();
        let wanted = self.context.wanted.as_deref().filter(|_| lower.len() == line.len());
        let Some(wanted) = wanted else { return self.current.push(span(line, style)) };
        let mut rest = 0;
        for (at, _) in lower.match_indices(wanted) {
            let (Some(before), Some(found)) = (line.get(rest..at), line.get(at..at + wanted.len())) else {
                break;
            };
            self.current.push(span(before, style));
            self.current.push(span(found, style.patch(self.context.theme.found)));
            rest = at + wanted.len();
        }
        self.current.push(span(line.get(rest..).unwrap_or_default(), style));
    }
}
