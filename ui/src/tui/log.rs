//! Log of a place: the notifications that the screen holds, in the order of their ops.

use std::collections::VecDeque;
use std::sync::Arc;

use recado_client::{Content, Notice, Notification, Op};

use crate::print::about_notice;

/// Limit of the notifications held for one place. Beyond it the oldest are dropped; scrolling back requests
/// them again.
const HELD_MAX: usize = 200_000;

/// State of the notifications before the oldest one held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Before {
    /// Not requested yet.
    #[default]
    Unknown,
    /// Requested.
    Loading,
    /// The servers have more.
    More,
    /// The servers have none, or keep none any more.
    Nothing,
}

/// Notifications of a place, ascending by op, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    items: VecDeque<Arc<Notification>>,
    pub(crate) before: Before,
    /// Number of unanswered requests for the newest notifications again.
    pub(crate) renewing: u32,
    /// Ops between which notifications may be missing: the newest held, and one of the user's own behind it
    /// that no stream carried. It ends with a page that reaches as far.
    apart: Option<(Op, Op)>,
    /// Time of the last answer about the newest notifications, in ms since 1970.
    pub(crate) answered_ms: u64,
    /// Why there was none to the last request, if there was none.
    pub(crate) failed: Option<String>,
    /// Notifications beyond this op arrived since the user last looked. The marker of new ones stands
    /// behind it.
    pub(crate) seen_upto: Option<Op>,
    /// Older notifications are requested until one from before this time (ms since 1970) is held.
    pub(crate) goal_ms: Option<u64>,
}

impl Log {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Arc<Notification>> {
        self.items.get(at)
    }

    pub(crate) fn oldest(&self) -> Option<&Arc<Notification>> {
        self.items.front()
    }

    pub(crate) fn newest(&self) -> Option<&Arc<Notification>> {
        self.items.back()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Notification>> {
        self.items.iter()
    }

    /// Index of this op, or as an error the index at which it would be inserted.
    pub(crate) fn position(&self, op: Op) -> Result<usize, usize> {
        self.items.binary_search_by_key(&op, |notification| notification.op)
    }

    /// Index of the first notification with a time at or after `unix_ms`.
    pub(crate) fn since(&self, unix_ms: u64) -> usize {
        self.items.partition_point(|notification| notification.unix_ms < unix_ms)
    }

    /// Inserts a notification. A notice is held with words in place of a text; that of a retraction takes the
    /// text away that is held. Returns true if it was not held yet.
    pub(crate) fn insert(&mut self, notification: Arc<Notification>) -> bool {
        let op = notification.op;
        if let Some(Notice::Retracts(retracted)) = notification.notice()
            && let Ok(at) = self.position(retracted)
        {
            self.items[at] = in_words(&self.items[at], Notice::Retracted);
        }
        let notification = match notification.notice() {
            Some(notice) => in_words(&notification, notice),
            None => notification,
        };
        if self.items.back().is_none_or(|newest| newest.op < op) {
            self.items.push_back(notification);
        } else if self.items.front().is_some_and(|oldest| op < oldest.op) {
            self.items.push_front(notification);
        } else {
            match self.position(op) {
                Ok(at) => {
                    if notification.notice() == Some(Notice::Retracted) {
                        self.items[at] = notification;
                    }
                    return false;
                }
                Err(at) => self.items.insert(at, notification),
            }
        }
        if self.items.len() > HELD_MAX {
            self.items.pop_front();
            self.before = Before::More;
        }
        true
    }

    /// Inserts a page of older notifications. `more` says whether the servers have more before them.
    pub(crate) fn prepend(&mut self, page: Vec<Arc<Notification>>, more: bool) {
        self.before = if more { Before::More } else { Before::Nothing };
        for notification in page.into_iter().rev() {
            self.insert(notification);
        }
    }

    /// Inserts a notification of the user before which others may be missing.
    pub(crate) fn insert_apart(&mut self, notification: Arc<Notification>) {
        let newest = self.newest().map_or(Op::ZERO, |newest| newest.op);
        let before = self.apart.map_or(newest, |(before, _)| before);
        self.apart = Some((before, notification.op));
        self.insert(notification);
    }

    /// Takes the newest page of a log that was requested before. If notifications between this log and the
    /// page are missing, the log begins anew with the page.
    pub(crate) fn renew(&mut self, page: Vec<Arc<Notification>>, more: bool) {
        let newest = self.apart.map(|(before, _)| before).or_else(|| Some(self.newest()?.op));
        let joins = page.first().is_none_or(|oldest| newest.is_some_and(|newest| oldest.op <= newest));
        let reached = page.last().map(|last| last.op);
        self.apart = self.apart.filter(|(_, own)| reached < Some(*own));
        if more && !joins {
            self.items.retain(|one| Some(one.op) > reached);
            return self.prepend(page, more);
        }
        if self.items.is_empty() {
            return self.prepend(page, more);
        }
        for notification in page {
            self.insert(notification);
        }
    }
}

/// A notification that says what a notice says, in place of any text.
fn in_words(of: &Notification, notice: Notice) -> Arc<Notification> {
    let content = Content::of(about_notice(notice));
    Arc::new(Notification { content, options: notice.options(), ..of.clone() })
}

#[cfg(test)]
mod tests {
    use recado_client::Topic;

    use super::*;
    use crate::tui::samples::notification;

    fn one(op: u64) -> Arc<Notification> {
        Arc::new(notification(op, &Topic::to_send("#ops").unwrap(), "bob", "x"))
    }

    #[test]
    fn whatever_the_order_of_coming_each_stands_once_and_in_order() {
        let mut log = Log::default();
        log.insert(one(10));
        log.prepend(vec![one(4), one(6), one(10)], true);
        assert!(log.insert(one(8)));
        assert!(!log.insert(one(6)));
        log.insert(one(12));
        assert_eq!(log.iter().map(|n| n.op.0).collect::<Vec<_>>(), [4, 6, 8, 10, 12]);
        assert_eq!(log.before, Before::More);
    }

    #[test]
    fn a_page_of_the_newest_joins_the_log_or_begins_it_anew() {
        let ops = |log: &Log| log.iter().map(|n| n.op.0).collect::<Vec<_>>();
        let mut log = Log::default();
        log.prepend(vec![one(4), one(6)], false);
        log.renew(vec![one(6), one(8)], true);
        assert_eq!((ops(&log), log.before), (vec![4, 6, 8], Before::Nothing));
        log.renew(vec![one(9)], false);
        assert_eq!((ops(&log), log.before), (vec![4, 6, 8, 9], Before::Nothing));
        log.renew(vec![one(20), one(21)], true);
        assert_eq!((ops(&log), log.before), (vec![20, 21], Before::More), "there may be others between");
        log.renew(vec![], false);
        assert_eq!(log.len(), 2);
    }

    #[test]
    fn behind_an_own_one_that_no_stream_carried_the_log_has_no_hole() {
        let ops = |log: &Log| log.iter().map(|n| n.op.0).collect::<Vec<_>>();
        let with_own = || {
            let mut log = Log::default();
            log.prepend(vec![one(4), one(6)], true);
            log.insert_apart(one(20));
            log.insert_apart(one(22));
            log
        };
        let mut log = with_own();
        log.renew(vec![one(6), one(8), one(20), one(22)], true);
        assert_eq!(ops(&log), [4, 6, 8, 20, 22]);
        let mut log = with_own();
        log.renew(vec![one(15), one(17), one(20), one(22)], true);
        assert_eq!(
            (ops(&log), log.before),
            (vec![15, 17, 20, 22], Before::More),
            "there are others before 15"
        );
        // An answer of before neither loses the own ones nor is the last word.
        let mut log = with_own();
        log.renew(vec![one(10), one(12)], true);
        assert_eq!(ops(&log), [10, 12, 20, 22]);
        log.renew(vec![one(12), one(14), one(20), one(22)], true);
        assert_eq!(ops(&log), [12, 14, 20, 22]);
        log.renew(vec![one(22), one(23)], true);
        assert_eq!(ops(&log), [12, 14, 20, 22, 23], "from then on it joins");
    }

    #[test]
    fn beyond_the_limit_the_oldest_go_and_can_be_fetched_again() {
        let mut log = Log { before: Before::Nothing, ..Log::default() };
        for op in 1..=HELD_MAX as u64 + 5 {
            log.insert(one(op));
        }
        assert_eq!((log.len(), log.oldest().unwrap().op, log.before), (HELD_MAX, Op(6), Before::More));
    }
}
