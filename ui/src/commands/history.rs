//! `recado history`, and the past that `recado listen` shows first.

use std::sync::Arc;
use std::time::Duration;

use recado_client::{
    Client, HistoryRange, ListItem, Listing, Name, Notification, Op, Past, Priority, Queries as _, Reader,
    Topic,
};

use super::{Context, to_read};
use crate::cli::{History, Point};
use crate::exit::Failure;
use crate::print::{aside, note, when, written};

/// Default number of notifications to show.
const LAST: usize = 20;

/// Notifications asked for at a time while they are searched.
const PAGE: usize = 256;

/// Most notifications that a search looks at: the servers send each one, because they do not search.
const SEARCHED_MAX: usize = 10_000;

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
    let ask = |range, limit| {
        context.ask(|| reader.history(topic.clone(), range, limit))?.map_err(Failure::about(topic.as_ref()))
    };
    if let Some(empty) =
        history.since.zip(history.before).and_then(|(since, before)| backwards(since, before))
    {
        note(empty);
    }
    let end = history.before.map(|before| End::of(&reader, before)).transpose()?;
    let range = match (history.since, end) {
        (Some(since), _) => after(since, || Ok(reader.servers_ms()?))?,
        (None, Some(End::Op(op))) => HistoryRange::Before(op),
        // The first notification at this time or later is the bound.
        (None, Some(End::At(unix_ms))) => ask(HistoryRange::SinceMs(unix_ms), 1)?
            .notifications
            .first()
            .map_or(NEWEST, |first| HistoryRange::Before(first.op)),
        (None, None) => NEWEST,
    };
    let limit = history.last.unwrap_or(if history.since.is_some() { usize::MAX } else { LAST });
    let wanted = Wanted {
        end: end.filter(|_| history.since.is_some()),
        text: history.text.map(|text| text.to_lowercase()),
        author: history.author,
        tags: history.tags,
        priority: history.priority,
    };
    let found = if wanted.is_all() {
        let past = ask(range, limit)?;
        let dropped_before = dropped_before(range, &past);
        Found { dropped_before, shown: past.notifications, cut_short: None, applied: past.applied }
    } else {
        search(range, limit, &wanted, ask)?
    };
    for notification in &found.shown {
        context.out.notification(notification)?;
    }
    let (in_range, selects) = (history.since.is_some() || history.before.is_some(), wanted.selects());
    if found.shown.is_empty() && limit > 0 {
        let now_ms = match history.since {
            Some(Point::At(_)) => Some(reader.servers_ms()?),
            Some(Point::Op(_) | Point::Ago(_)) | None => None,
        };
        match history.since.and_then(|since| beyond(since, found.applied, now_ms)) {
            Some(future) => note(future),
            None => aside(nothing_found(topic.as_ref(), in_range, selects)),
        }
    }
    if let Some(message) = &found.cut_short {
        note(message);
    }
    if let Some(upto) = found.dropped_before {
        note(format_args!("older notifications, up to op {upto}, were dropped; the retention keeps no more"));
    }
    context.note_age(&reader);
    Ok(())
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

/// End of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Before this op.
    Op(Op),
    /// Before this time, in ms since 1970.
    At(u64),
}

impl End {
    fn of(reader: &Reader, before: Point) -> Result<End, Failure> {
        Ok(match before {
            Point::Op(op) => End::Op(op),
            Point::At(unix_ms) => End::At(unix_ms),
            Point::Ago(ago) => End::At(self::before(reader.servers_ms()?, ago)),
        })
    }

    fn is_before(self, notification: &Notification) -> bool {
        match self {
            End::Op(op) => notification.op < op,
            End::At(unix_ms) => notification.unix_ms < unix_ms,
        }
    }
}

/// What a search is for. The servers do not know of it.
struct Wanted {
    end: Option<End>,
    /// In lower case.
    text: Option<String>,
    author: Option<Name>,
    tags: Vec<String>,
    /// The lowest one.
    priority: Option<Priority>,
}

impl Wanted {
    fn is_all(&self) -> bool {
        self.end.is_none() && !self.selects()
    }

    /// Returns true if some notifications of the range are left out.
    fn selects(&self) -> bool {
        self.text.is_some() || self.author.is_some() || !self.tags.is_empty() || self.priority.is_some()
    }

    fn is(&self, notification: &Notification) -> bool {
        let content = &notification.content;
        let has_text = |text: &String| {
            content.body.as_text().to_lowercase().contains(text)
                || content.title.as_ref().is_some_and(|title| title.to_lowercase().contains(text))
        };
        self.text.as_ref().is_none_or(has_text)
            && self.author.as_ref().is_none_or(|author| *author == notification.author)
            && self.tags.iter().all(|tag| content.tags.contains(tag))
            && self.priority.is_none_or(|least| u8::from(content.priority) >= u8::from(least))
    }
}

/// Result of a query of the past.
struct Found {
    shown: Vec<Arc<Notification>>,
    /// The op up to which retention has dropped what was asked for.
    dropped_before: Option<Op>,
    /// Says how far the search went and how to go on, if it ended before the range did.
    cut_short: Option<String>,
    /// The last op that the server had which answered.
    applied: Op,
}

/// Looks at the notifications of a range, from its open end on, until `limit` are found, the range ends, or,
/// if not each of them is shown, [`SEARCHED_MAX`] were looked at.
fn search(
    range: HistoryRange,
    limit: usize,
    wanted: &Wanted,
    ask: impl Fn(HistoryRange, usize) -> Result<Past, Failure>,
) -> Result<Found, Failure> {
    let (mut shown, mut next, mut looked, mut applied) = (Vec::new(), range, 0, Op::ZERO);
    let is_backwards = matches!(range, HistoryRange::Before(_));
    while shown.len() < limit {
        if looked >= SEARCHED_MAX && wanted.selects() {
            let (how, option) = match next {
                HistoryRange::Before(op) => {
                    ("newest", format!("--before {op}, in place of yours if you gave one"))
                }
                HistoryRange::After(op) => ("oldest", format!("--since {op} in place of yours")),
                HistoryRange::SinceMs(_) => break,
            };
            let cut_short =
                format!("only the {how} {looked} notifications were searched; go on with {option}");
            return Ok(Found { shown, dropped_before: None, cut_short: Some(cut_short), applied });
        }
        let past = ask(next, PAGE)?;
        applied = past.applied;
        looked += past.notifications.len();
        let is_over = |one: &Arc<Notification>| wanted.end.is_some_and(|end| !end.is_before(one));
        let ended = past.notifications.iter().any(is_over);
        let all = past.notifications.iter().filter(|one| !is_over(one) && wanted.is(one)).cloned();
        if is_backwards {
            let some: Vec<_> = all.rev().take(limit - shown.len()).collect();
            shown.splice(0..0, some.into_iter().rev());
        } else {
            shown.extend(all.take(limit - shown.len()));
        }
        let ends = (past.notifications.first(), past.notifications.last());
        match ends {
            (Some(first), Some(last)) if past.more && !ended => {
                next =
                    if is_backwards { HistoryRange::Before(first.op) } else { HistoryRange::After(last.op) };
            }
            _ => {
                let dropped_before = dropped_before(range, &past);
                return Ok(Found { shown, dropped_before, cut_short: None, applied });
            }
        }
    }
    Ok(Found { shown, dropped_before: None, cut_short: None, applied })
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

    fn sent(op: u64, body: &str) -> Arc<Notification> {
        let mut one = crate::print::tests::notification(body);
        (one.op, one.unix_ms) = (Op(op), op * 1000);
        Arc::new(one)
    }

    /// A topic with these notifications, as the servers answer.
    fn topic(all: Vec<Arc<Notification>>) -> impl Fn(HistoryRange, usize) -> Result<Past, Failure> {
        move |range, limit| {
            let is_in = |one: &&Arc<Notification>| match range {
                HistoryRange::Before(op) => one.op < op,
                HistoryRange::After(op) => one.op > op,
                HistoryRange::SinceMs(ms) => one.unix_ms >= ms,
            };
            let mut some: Vec<_> = all.iter().filter(is_in).cloned().collect();
            let more = some.len() > limit;
            match range {
                HistoryRange::Before(_) => drop(some.drain(..some.len().saturating_sub(limit))),
                _ => some.truncate(limit),
            }
            Ok(Past { notifications: some, more, trimmed_upto: Op::ZERO, applied: Op(9) })
        }
    }

    fn wanted(text: &str) -> Wanted {
        let (end, author, tags, priority) = Default::default();
        Wanted { end, text: Some(text.to_owned()), author, tags, priority }
    }

    fn ops(found: &Found) -> Vec<u64> {
        found.shown.iter().map(|one| one.op.0).collect()
    }

    #[test]
    fn a_search_goes_over_pages_from_the_open_end_and_keeps_the_order() {
        let all = (1..=1000).map(|op| sent(op, if op % 300 == 0 { "Found IT" } else { "x" })).collect();
        let ask = topic(all);
        assert_eq!(ops(&search(NEWEST, 20, &wanted("found it"), &ask).unwrap()), [300, 600, 900]);
        assert_eq!(ops(&search(NEWEST, 2, &wanted("found it"), &ask).unwrap()), [600, 900]);
        let after = HistoryRange::After(Op(300));
        assert_eq!(ops(&search(after, 1, &wanted("found it"), &ask).unwrap()), [600]);
        let ended = Wanted { end: Some(End::At(900_000)), ..wanted("found it") };
        assert_eq!(ops(&search(HistoryRange::After(Op::ZERO), 20, &ended, &ask).unwrap()), [300, 600]);
        assert!(search(NEWEST, 20, &wanted("found it"), &ask).unwrap().cut_short.is_none());
    }

    #[test]
    fn a_search_is_bounded_and_tells_how_to_go_on() {
        let ask = topic((1..=15_000).map(|op| sent(op, "x")).collect());
        let found = search(NEWEST, 20, &wanted("y"), &ask).unwrap();
        let told = found.cut_short.unwrap();
        assert!(told.contains("newest 10240") && told.contains("--before 4761"), "{told}");
        let found = search(HistoryRange::After(Op(7)), 20, &wanted("y"), &ask).unwrap();
        assert!(found.cut_short.unwrap().contains("go on with --since 10247 in place of yours"));
    }

    #[test]
    fn a_range_without_a_filter_is_shown_to_its_end_however_long() {
        let ask = topic((1..=15_000).map(|op| sent(op, "x")).collect());
        let all = Wanted { end: Some(End::Op(Op(14_000))), text: None, ..wanted("") };
        let found = search(HistoryRange::After(Op(7)), usize::MAX, &all, &ask).unwrap();
        assert!(found.cut_short.is_none());
        assert_eq!((found.shown.len(), found.shown.last().unwrap().op), (13_992, Op(13_999)));
    }

    #[test]
    fn a_search_is_by_text_or_title_author_tags_and_priority() {
        let one = sent(1, "Disk FULL");
        let is = |wanted: Wanted| wanted.is(&one);
        assert!(is(wanted("full")) && !is(wanted("empty")));
        assert!(is(Wanted { author: Some("alice".parse().unwrap()), ..wanted("disk") }));
        assert!(!is(Wanted { author: Some("bob".parse().unwrap()), ..wanted("disk") }));
        assert!(is(Wanted { tags: vec!["disk".into()], ..wanted("disk") }));
        assert!(!is(Wanted { tags: vec!["disk".into(), "db".into()], ..wanted("disk") }));
        assert!(is(Wanted { priority: Some(Priority::try_from(5).unwrap()), ..wanted("disk") }));
        let mut low = one.as_ref().clone();
        low.content.priority = Priority::try_from(3).unwrap();
        low.content.title = Some("Title".into());
        assert!(!Wanted { priority: Some(Priority::try_from(4).unwrap()), ..wanted("disk") }.is(&low));
        assert!(wanted("title").is(&low));
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
