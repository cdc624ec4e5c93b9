//! `recado history`, and the past that `recado listen` shows first.

use std::sync::Arc;
use std::time::Duration;

use recado_client::{Client, HistoryRange, ListItem, Listing, Notification, Op, Past, Topic};

use super::{Context, to_read};
use crate::cli::{History, Since};
use crate::exit::Failure;
use crate::print::{note, nothing};

/// Default number of notifications to show.
const LAST: usize = 20;

/// Range of the newest notifications: every op is below this bound.
const NEWEST: HistoryRange = HistoryRange::Before(Op(u64::MAX));

pub(super) fn run(context: &Context, history: History) -> Result<(), Failure> {
    let client = context.connect_to_read()?;
    // `@name` is a feed here, also the user's own; `--inbox` selects the inbox.
    let topic = if history.inbox { Some(Topic::Inbox(client.profile().clone())) } else { history.topic };
    let (range, limit) = match (history.since, history.before) {
        (Some(since), _) => (after(&client, since)?, history.last.unwrap_or(usize::MAX)),
        (None, Some(op)) => (HistoryRange::Before(Op(op)), history.last.unwrap_or(LAST)),
        (None, None) => (NEWEST, history.last.unwrap_or(LAST)),
    };
    let past = client.history(topic.clone(), range, limit).map_err(Failure::about(topic.as_ref()))?;
    if past.notifications.is_empty() {
        nothing("no notifications in this range");
    }
    for notification in &past.notifications {
        context.out.notification(notification)?;
    }
    if let Some(upto) = dropped_before(range, &past) {
        note(format_args!("older notifications, up to op {upto}, were dropped; the retention keeps no more"));
    }
    Ok(())
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
    client: &Client,
    topics: &[Topic],
    since: Option<Since>,
    last: Option<usize>,
) -> Result<Vec<Arc<Notification>>, Failure> {
    let (range, limit) = match (since, last) {
        (Some(since), _) => (after(client, since)?, usize::MAX),
        (None, Some(last)) => (NEWEST, last),
        (None, None) => return Ok(Vec::new()),
    };
    let mut past = of_topics(client, topics, range, limit)?;
    past.drain(..past.len().saturating_sub(limit));
    let Some(first) = past.first().map(|first| first.op) else { return Ok(past) };
    let read = own_device(client)?.map(|(cursor, _)| cursor).max(client.cursor()).unwrap_or(Op::ZERO);
    if read.0 + 1 < first.0 {
        let unread = of_topics(client, topics, HistoryRange::After(read), usize::MAX)?;
        past = unread.into_iter().filter(|unread| unread.op < first).chain(past).collect();
    }
    Ok(past)
}

/// The notifications of these topics, or of everything followed, once each and in order.
fn of_topics(
    client: &Client,
    topics: &[Topic],
    range: HistoryRange,
    limit: usize,
) -> Result<Vec<Arc<Notification>>, Failure> {
    if topics.is_empty() {
        return Ok(client.history(None, range, limit)?.notifications);
    }
    let mut all = Vec::new();
    for topic in topics {
        let topic = to_read(topic.clone(), client);
        let one = client.history(Some(topic.clone()), range, limit).map_err(Failure::about(Some(&topic)))?;
        all.extend(one.notifications);
    }
    all.sort_by_key(|notification| notification.op);
    all.dedup_by_key(|notification| notification.op);
    Ok(all)
}

/// The range after a point in the past.
fn after(client: &Client, since: Since) -> Result<HistoryRange, Failure> {
    Ok(match since {
        Since::Op(op) => HistoryRange::After(op),
        Since::Ago(ago) => match own_device(client)? {
            Some((_, now_ms)) => HistoryRange::SinceMs(before(now_ms, ago)),
            None => return Err(Failure::Other("the servers do not know this device any more".to_owned())),
        },
    })
}

fn before(now_ms: u64, ago: Duration) -> u64 {
    now_ms.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))
}

/// This device's cursor, and when the servers saw it, by their clock: a moment ago, when the session was
/// opened. Notifications have times of that clock, so it says what "ago" means, whatever the clock here says.
fn own_device(client: &Client) -> Result<Option<(Op, u64)>, Failure> {
    Ok(client.list(Listing::Devices)?.into_iter().find_map(|item| match item {
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
