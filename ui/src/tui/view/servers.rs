//! State of the servers: the role of each, the changes of roles, and the rate of deliveries.

use std::time::Duration;

use ratatui::style::Style;
use ratatui::text::Line;
use recado_client::{NodeId, RoleName};

use super::{item::clock, span};
use crate::tui::app::App;
use crate::tui::cluster::Seen;
use crate::tui::connection::trip_in_words;

pub(super) fn lines(app: &App, columns: usize) -> Vec<Line<'static>> {
    let theme = &app.settings.theme;
    let mut lines = Vec::new();
    if app.cluster.servers.is_empty() {
        lines.push(Line::from(span("Connecting; no server has answered yet.", theme.dim)));
    } else {
        lines.push(Line::from(span(row(Row::heading(), columns), theme.dim)));
    }
    for (node, seen) in &app.cluster.servers {
        let style = match (seen.answers, seen.role) {
            (false, _) => theme.bad,
            (true, Some(RoleName::Primary)) => theme.good,
            (true, Some(RoleName::Backup)) => Style::new(),
            (true, _) => theme.warn,
        };
        lines.push(Line::from(span(row(Row::of(app, *node, seen), columns), style)));
    }
    lines.push(Line::default());
    lines.extend(deliveries(app, columns));
    lines.push(Line::default());
    lines.push(Line::from(span("What changed", theme.title)));
    for change in app.cluster.changes.iter().rev() {
        let what = match change.role {
            Some(role) => format!("is {} in view {}", role.as_str(), change.view),
            None => "stopped answering".to_owned(),
        };
        let at = clock(change.unix_ms, &app.settings.zone, "%H:%M:%S");
        lines.push(Line::from(vec![
            span(format!("  {at}  "), theme.dim),
            span(format!("{} {what}", change.node), Style::new()),
        ]));
    }
    lines
}

/// Cells of a server's row.
struct Row([String; 8]);

impl Row {
    fn heading() -> Row {
        Row(["server", "role", "heard", "applied", "behind", "view", "round trip", "address"]
            .map(str::to_owned))
    }

    fn of(app: &App, node: NodeId, seen: &Seen) -> Row {
        let behind = match app.cluster.behind(seen) {
            0 => "-".to_owned(),
            n => n.to_string(),
        };
        let role = match (seen.answers, seen.role) {
            (true, Some(role)) => role.as_str(),
            _ => "no answer",
        };
        let trip = seen.round_trip.map_or_else(|| "-".to_owned(), trip_in_words);
        let heard = seen.heard.map_or_else(|| "never".to_owned(), |at| ago(app, at));
        Row([
            node.to_string(),
            role.to_owned(),
            heard,
            seen.applied.to_string(),
            behind,
            seen.view.to_string(),
            trip,
            seen.addr.to_string(),
        ])
    }
}

fn ago(app: &App, heard: Duration) -> String {
    match app.now.since_start.saturating_sub(heard).as_secs() {
        0..=2 => "now".to_owned(),
        seconds @ 3..120 => format!("{seconds} s ago"),
        seconds => format!("{} min ago", seconds / 60),
    }
}

/// Formats the cells that fit, each in its column.
fn row(Row(cells): Row, columns: usize) -> String {
    let widths = [11, 11, 11, 10, 8, 8, 12, 22];
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        if line.len() + cell.len() > columns {
            break;
        }
        line.push_str(&format!("{cell:<width$}"));
    }
    line.trim_end().to_owned()
}

fn deliveries(app: &App, columns: usize) -> Vec<Line<'static>> {
    let theme = &app.settings.theme;
    let rates: Vec<u32> = app.cluster.rates().rev().take(columns.min(120)).collect();
    let most = rates.iter().copied().max().unwrap_or(0);
    let now = rates.first().copied().unwrap_or(0);
    let levels = app.settings.symbols.levels;
    let spark: String = rates
        .iter()
        .rev()
        .map(|rate| {
            let level = (*rate * 4).div_ceil(most.max(1)) as usize;
            levels[level.min(4)]
        })
        .collect();
    vec![
        Line::from(vec![
            span("Notifications a second", theme.title),
            span(format!("   now {now}, most {most} in {} s", rates.len()), theme.dim),
        ]),
        Line::from(span(spark, theme.accent)),
    ]
}
