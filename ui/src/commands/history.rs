//! `recado history`, and the past that `recado listen` shows first.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use recado_client::{Client, HistoryRange, Notification, Op, Topic};

use super::{Context, to_read};
use crate::cli::{History, Since};
use crate::exit::Failure;
use crate::print::nothing;

/// Default number of notifications to show.
const LAST: usize = 20;

/// Range of the newest notifications: every op is below this bound.
const NEWEST: HistoryRange = HistoryRange::Before(Op(u64::MAX));

pub(super) fn run(context: &Context, history: History) -> Result<(), Failure> {
    let client = context.connect()?;
    // `@name` is a feed here, also the user's own; `--inbox` selects the inbox.
    let topic = if history.inbox { Some(Topic::Inbox(client.profile().clone())) } else { history.topic };
    let (range, limit) = match (history.since, history.before) {
        (Some(since), _) => (after(since), history.last.unwrap_or(usize::MAX)),
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
    Ok(())
}

/// Returns the notifications that `listen --since` or `--last` shows first, of these topics, or of
/// everything followed if `topics` is empty.
pub(super) fn before_listening(
    client: &Client,
    topics: &[Topic],
    since: Option<Since>,
    last: Option<usize>,
) -> Result<Vec<Arc<Notification>>, Failure> {
    let (range, limit) = match (since, last) {
        (Some(since), _) => (after(since), usize::MAX),
        (None, Some(last)) => (NEWEST, last),
        (None, None) => return Ok(Vec::new()),
    };
    let mut past = Vec::new();
    if topics.is_empty() {
        past = client.history(None, range, limit)?.notifications;
    }
    for topic in topics {
        let topic = to_read(topic.clone(), client);
        let one = client.history(Some(topic.clone()), range, limit).map_err(Failure::about(Some(&topic)))?;
        past.extend(one.notifications);
    }
    past.sort_by_key(|notification| notification.op);
    past.dedup_by_key(|notification| notification.op);
    past.drain(..past.len().saturating_sub(limit));
    Ok(past)
}

fn after(since: Since) -> HistoryRange {
    match since {
        Since::Op(op) => HistoryRange::After(op),
        Since::Ago(ago) => {
            let now = Timestamp::now().as_millisecond();
            let since = Duration::from_millis(now.unsigned_abs()).saturating_sub(ago);
            HistoryRange::SinceMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        }
    }
}
