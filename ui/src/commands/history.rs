//! `recado history`, and the past that `recado listen` shows first.

use std::sync::Arc;
use std::time::Duration;

use recado_client::{
    Client, HistoryRange, ListItem, Listing, Notification, Op, Past, Queries as _, Selection, Topic,
};

use super::{Context, to_read};
use crate::cli::{History, Point};
use crate::exit::Failure;
use crate::print::{aside, note, when, written};

/// Default number of notifications to show.
const LAST: usize = 20;

/// Range of the newest notifications: every op is below this bound.
const NEWEST: HistoryRange = HistoryRange::Before(Op(u64::MAX));

pub(super) fn run(context: &Context, history: History) -> Result<(), Failure> {
    let reader = context.reader()?;
    let me = || reader.profile().clone();
    let topic = match history.topic {
        _ if history.inbox => Some(Topic::Inbox(me())),
        _ if history.feed => Some(Topic::Feed(me())),
        topic => topic.map(|topic| to_read(topic, reader.profile())),
    };
    let ask = |range, limit, selection: &Selection| {
        let past = context.ask(|| reader.search(topic.clone(), range, limit, selection))?;
        past.map_err(Failure::about(topic.as_ref()))
    };
    if let Some(empty) =
        history.since.zip(history.before).and_then(|(since, before)| backwards(since, before))
    {
        note(empty);
    }
    let end = match history.before {
        Some(Point::Op(op)) => Some(op),
        Some(Point::At(unix_ms)) => first_since(unix_ms, ask)?,
        Some(Point::Ago(ago)) => first_since(before(reader.servers_ms()?, ago), ask)?,
        None => None,
    };
    let range = match history.since {
        Some(since) => after(since, || Ok(reader.servers_ms()?))?,
        None => end.map_or(NEWEST, HistoryRange::Before),
    };
    let limit = history.last.unwrap_or(if history.since.is_some() { usize::MAX } else { LAST });
    let selection = Selection {
        author: history.author,
        text: history.text.map(|text| text.to_lowercase()),
        tags: history.tags,
        least: history.priority,
        before: end.filter(|_| history.since.is_some()),
    };
    let past = ask(range, limit, &selection)?;
    for notification in &past.notifications {
        context.out.notification(notification)?;
    }
    let (in_range, selects) = (history.since.is_some() || history.before.is_some(), selection.reads());
    if past.notifications.is_empty() && limit > 0 {
        let now_ms = match history.since {
            Some(Point::At(_)) => Some(reader.servers_ms()?),
            Some(Point::Op(_) | Point::Ago(_)) | None => None,
        };
        match history.since.and_then(|since| beyond(since, past.applied, now_ms)) {
            Some(future) => note(future),
            None => aside(nothing_found(topic.as_ref(), in_range, selects)),
        }
    }
    if let Some(upto) = dropped_before(range, &past) {
        note(format_args!("older notifications, up to op {upto}, were dropped; the retention keeps no more"));
    }
    context.note_age(&reader);
    Ok(())
}

/// The first notification at this time or later, with which `--before` ends; none if there is none yet.
fn first_since(
    unix_ms: u64,
    ask: impl Fn(HistoryRange, usize, &Selection) -> Result<Past, Failure>,
) -> Result<Option<Op>, Failure> {
    let past = ask(HistoryRange::SinceMs(unix_ms), 1, &Selection::default())?;
    Ok(past.notifications.first().map(|first| first.op))
}

/// Explains an empty result by what was asked for.
fn nothing_found(topic: Option<&Topic>, in_range: bool, selects: bool) -> String {
    let place = match topic {
        Some(topic @ Topic::Inbox(_)) => format!("in the inbox of {}", written(topic)),
        Some(topic) => format!("in {}", written(topic)),
        None => "in what you follow".to_owned(),
    };
    match (in_range, selects) {
        (_, true) => format!("no notification {place} matches"),
        (true, false) => format!("no notifications {place} in this range"),
        (false, false) if topic.is_none() => format!(
            "no notifications {place} yet; what you sent to your followers yourself: recado history --feed"
        ),
        (false, false) => format!("no notifications {place} yet"),
    }
}

/// What is wrong with a range whose beginning is not before its end, as far as they can be compared.
fn backwards(since: Point, before: Point) -> Option<String> {
    let is_backwards = match (since, before) {
        (Point::Op(since), Point::Op(before)) => since.0.saturating_add(1) >= before.0,
        (Point::At(since), Point::At(before)) => since >= before,
        (Point::Ago(since), Point::Ago(before)) => since <= before,
        _ => false,
    };
    is_backwards.then(|| "nothing lies between --since and --before: --since names the older end".to_owned())
}

/// What is wrong with a beginning that has not come yet: an op that the log does not have, or a time after
/// `now_ms`, by the servers' clock.
fn beyond(since: Point, applied: Op, now_ms: Option<u64>) -> Option<String> {
    match since {
        Point::Op(op) if op > applied => Some(format!(
            "there is no op {op} yet, the last one is {applied}; a time is written 10m, 14:30, 2026-09-01 or \
             \"$(date -Is)\""
        )),
        Point::At(unix_ms) if now_ms.is_some_and(|now_ms| now_ms < unix_ms) => {
            Some(format!("--since is in the future: by the servers' clock it is {} now", when(now_ms?)))
        }
        Point::Op(_) | Point::At(_) | Point::Ago(_) => None,
    }
}

/// The op up to which retention has dropped what the range asks for; none if it has dropped nothing of it, or
/// if more is to be shown first.
fn dropped_before(range: HistoryRange, past: &Past) -> Option<Op> {
    let is_asked_for = match range {
        HistoryRange::Before(before) => !past.more && past.trimmed_upto < before,
        HistoryRange::After(op) => op < past.trimmed_upto,
        // Times of what was dropped are not known any more.
        HistoryRange::SinceMs(_) => false,
    };
    Some(past.trimmed_upto).filter(|upto| *upto > Op::ZERO && is_asked_for)
}

/// Returns the notifications that `listen --since` or `--last` shows first, of these topics, or of
/// everything followed if `topics` is empty: those that the options ask for, and what is unread before them.
/// Without the latter, the stream would bring older notifications after newer ones.
pub(super) fn before_listening(
    context: &Context,
    client: &Client,
    topics: &[Topic],
    since: Option<Point>,
    last: Option<usize>,
) -> Result<Vec<Arc<Notification>>, Failure> {
    let (range, limit) = match (since, last) {
        (Some(since), _) => (after(since, || now_ms(context, client))?, usize::MAX),
        (None, Some(last)) => (NEWEST, last),
        (None, None) => return Ok(Vec::new()),
    };
    let mut past = of_topics(context, client, topics, range, limit)?;
    past.drain(..past.len().saturating_sub(limit));
    let Some(first) = past.first().map(|first| first.op) else { return Ok(past) };
    let read =
        own_device(context, client)?.map(|(cursor, _)| cursor).max(client.cursor()).unwrap_or(Op::ZERO);
    if read.0 + 1 < first.0 {
        let unread = of_topics(context, client, topics, HistoryRange::After(read), usize::MAX)?;
        past = unread.into_iter().filter(|unread| unread.op < first).chain(past).collect();
    }
    Ok(past)
}

/// The notifications of these topics, or of everything followed, once each and in order.
fn of_topics(
    context: &Context,
    client: &Client,
    topics: &[Topic],
    range: HistoryRange,
    limit: usize,
) -> Result<Vec<Arc<Notification>>, Failure> {
    if topics.is_empty() {
        return Ok(context.ask(|| client.history(None, range, limit))??.notifications);
    }
    let mut all = Vec::new();
    for topic in topics {
        let one = context.ask(|| client.history(Some(topic.clone()), range, limit))?;
        let one = one.map_err(Failure::about(Some(topic)))?;
        all.extend(one.notifications);
    }
    all.sort_by_key(|notification| notification.op);
    all.dedup_by_key(|notification| notification.op);
    Ok(all)
}

/// The range after a point in the past.
fn after(since: Point, now_ms: impl FnOnce() -> Result<u64, Failure>) -> Result<HistoryRange, Failure> {
    Ok(match since {
        Point::Op(op) => HistoryRange::After(op),
        Point::At(unix_ms) => HistoryRange::SinceMs(unix_ms),
        Point::Ago(ago) => HistoryRange::SinceMs(before(now_ms()?, ago)),
    })
}

/// The servers' time, which the notifications have, whatever the clock here says.
fn now_ms(context: &Context, client: &Client) -> Result<u64, Failure> {
    let own = own_device(context, client)?;
    own.map(|(_, now_ms)| now_ms)
        .ok_or_else(|| Failure::Other("the servers do not know this device any more".to_owned()))
}

fn before(now_ms: u64, ago: Duration) -> u64 {
    now_ms.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))
}

/// This device's cursor, and when the servers saw it, by their clock: a moment ago, when the session was
/// opened.
fn own_device(context: &Context, client: &Client) -> Result<Option<(Op, u64)>, Failure> {
    Ok(context.list(client, Listing::Devices)?.into_iter().find_map(|item| match item {
        ListItem::Device { device, cursor, last_seen_ms, .. } if device == client.device() => {
            Some((cursor, last_seen_ms))
        }
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ago_is_counted_back_from_the_servers_clock() {
        assert_eq!(before(1_790_000_000_000, Duration::from_secs(600)), 1_789_999_400_000);
        assert_eq!(before(5, Duration::MAX), 0);
    }

    #[test]
    fn an_empty_result_is_explained_by_what_was_asked() {
        let ops = Topic::to_follow("#ops").unwrap();
        assert_eq!(nothing_found(Some(&ops), false, false), "no notifications in #ops yet");
        assert!(nothing_found(None, true, false).contains("in this range"));
        assert!(!nothing_found(None, true, true).contains("range"));
    }

    #[test]
    fn who_follows_nothing_is_told_where_their_own_notifications_are() {
        assert!(nothing_found(None, false, false).contains("recado history --feed"));
        assert!(!nothing_found(Some(&Topic::to_follow("#ops").unwrap()), false, false).contains("--feed"));
    }

    #[test]
    fn a_range_that_can_hold_nothing_is_told() {
        let ago = |seconds| Point::Ago(Duration::from_secs(seconds));
        for (since, before, told) in [
            (Point::Op(Op(5)), Point::Op(Op(3)), true),
            (Point::Op(Op(5)), Point::Op(Op(6)), true),
            (Point::Op(Op(5)), Point::Op(Op(7)), false),
            (Point::At(2), Point::At(2), true),
            (Point::At(1), Point::At(2), false),
            (ago(60), ago(600), true),
            (ago(600), ago(60), false),
            (ago(60), Point::Op(Op(1)), false),
        ] {
            assert_eq!(backwards(since, before).is_some(), told, "{since:?} {before:?}");
        }
    }

    #[test]
    fn a_beginning_that_has_not_come_yet_is_told() {
        let told = beyond(Point::Op(Op(1_790_000_000)), Op(23), None).unwrap();
        assert!(told.contains("the last one is 23") && told.contains("date -Is"), "{told}");
        assert_eq!(beyond(Point::Op(Op(23)), Op(23), None), None);
        assert!(beyond(Point::At(2_000), Op(23), Some(1_000)).unwrap().contains("future"));
        assert_eq!(beyond(Point::At(1_000), Op(23), Some(2_000)), None);
    }

    #[test]
    fn what_retention_dropped_is_told_where_the_range_reaches_it() {
        let past = |more, trimmed| {
            let (notifications, trimmed_upto, applied) = (Vec::new(), Op(trimmed), Op(90));
            Past { notifications, more, trimmed_upto, applied }
        };
        assert_eq!(dropped_before(NEWEST, &past(false, 40)), Some(Op(40)));
        assert_eq!(dropped_before(NEWEST, &past(true, 40)), None, "the next page comes first");
        assert_eq!(dropped_before(NEWEST, &past(false, 0)), None, "nothing was dropped");
        assert_eq!(dropped_before(HistoryRange::After(Op(39)), &past(false, 40)), Some(Op(40)));
        assert_eq!(dropped_before(HistoryRange::After(Op(40)), &past(false, 40)), None);
        assert_eq!(dropped_before(HistoryRange::SinceMs(1), &past(false, 40)), None);
    }
}
