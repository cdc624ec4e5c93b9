//! The stream of a session: the notifications of all topics it follows, merged in `op` order, and the gaps
//! that retention left in it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use imbl::Vector;

use recado_proto::id::{Name, Op, SessionId};

use super::state::{Profile, Sent, State, Topics, first};
use super::{Page, Service, Stored};

impl Service {
    /// The page of the notifications pending for `session` after `after`: at most `count` notifications and
    /// about `bytes` bytes, at least one notification if there is any. Empty for a session that does not
    /// receive.
    ///
    /// A gap precedes the notifications of its page, so a page ends where another gap may begin. Reading page
    /// by page therefore reports every loss before passing it, skips no notification that is held, and always
    /// advances: a dropped notification had an op of its own, so there is room for a gap where it was.
    pub fn page(&self, session: SessionId, after: Op, count: usize, bytes: usize) -> Page {
        self.reads.set(self.reads.get().wrapping_add(1));
        let Some((_, device)) = self.state.live(session).filter(|(open, _)| open.receives) else {
            return Page::default();
        };
        let Some(profile) = self.state.profiles.get(&device.profile) else { return Page::default() };

        let lost_upto = lost_upto(&self.state, &device.profile, profile, after);
        let sources = followed(&self.state, &device.profile, profile, after);
        let mut page = Page::default();
        let (mut at, mut weighs) = (after, 0);
        for notification in Merge::forward(sources) {
            let op = notification.op();
            if at.next() < op && at < lost_upto {
                if at != after {
                    page.more = true;
                    return page;
                }
                page.gap = Some(lost_upto.min(op.prev()));
            }
            weighs += notification.weight();
            if !page.notifications.is_empty() && (page.notifications.len() >= count || weighs > bytes as u64)
            {
                page.more = true;
                return page;
            }
            at = op;
            page.notifications.push(notification.clone());
        }
        if at < lost_upto {
            if at == after {
                page.gap = Some(lost_upto);
            } else {
                page.more = true;
            }
        }
        page
    }
}

/// The newest op that was dropped before a reader at `after` read it; zero if none was. A topic has lost
/// something iff `max(after, op of the follow) < trimmed_upto`.
pub(super) fn lost_upto(state: &State, name: &Name, profile: &Profile, after: Op) -> Op {
    let trimmed = profile.followed(name).filter_map(|(topic, since)| {
        let trimmed_upto = state.topics.get(&topic)?.trimmed_upto;
        (after.max(since) < trimmed_upto).then_some(trimmed_upto)
    });
    trimmed.max().unwrap_or(Op::ZERO)
}

/// The sources of a profile's stream after `after`, one of each topic, each from the op of its follow on.
pub(super) fn followed<'a>(
    state: &'a State,
    name: &Name,
    profile: &Profile,
    after: Op,
) -> Vec<MergeSource<'a>> {
    let sources = profile.followed(name).filter_map(|(topic, since)| {
        let retained = &state.topics.get(&topic)?.retained;
        retained.back().filter(|newest| newest.op() > after)?;
        Some(MergeSource::retained(retained).after(after.max(since)))
    });
    sources.collect()
}

/// A range of notifications in `op` order: part of a topic's notifications or of a profile's sent ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct MergeSource<'a> {
    source: Source<'a>,
    from: usize,
    to: usize,
}

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    Retained(&'a Vector<Stored>),
    Sent(&'a Vector<Sent>, &'a Topics),
}

impl<'a> MergeSource<'a> {
    /// All notifications that a topic holds.
    pub(super) fn retained(retained: &'a Vector<Stored>) -> MergeSource<'a> {
        MergeSource { source: Source::Retained(retained), from: 0, to: retained.len() }
    }

    /// All notifications that a profile sent to inboxes of others.
    pub(super) fn sent(sent: &'a Vector<Sent>, topics: &'a Topics) -> MergeSource<'a> {
        MergeSource { source: Source::Sent(sent, topics), from: 0, to: sent.len() }
    }

    /// Restricts the strand to ops above `op`.
    pub(super) fn after(mut self, op: Op) -> MergeSource<'a> {
        self.from = self.from.max(first(self.to, |at| self.op(at) > op));
        self
    }

    /// Restricts the strand to ops below `op`.
    pub(super) fn before(mut self, op: Op) -> MergeSource<'a> {
        self.to = first(self.to, |at| self.op(at) >= op).max(self.from);
        self
    }

    /// Restricts the strand to stamps at or after `unix_ms`.
    pub(super) fn since(mut self, unix_ms: u64) -> MergeSource<'a> {
        let reached = |at| self.get(at).is_some_and(|notification| notification.unix_ms() >= unix_ms);
        self.from = self.from.max(first(self.to, reached));
        self
    }

    pub(super) fn len(&self) -> usize {
        self.to - self.from
    }

    fn op(&self, at: usize) -> Op {
        match self.source {
            Source::Retained(retained) => retained.get(at).map(Stored::op),
            Source::Sent(sent, _) => sent.get(at).map(|sent| sent.op),
        }
        .unwrap_or(Op(u64::MAX))
    }

    fn get(&self, at: usize) -> Option<&'a Stored> {
        match self.source {
            Source::Retained(retained) => retained.get(at),
            Source::Sent(sent, topics) => topics.sent(sent.get(at)?),
        }
    }
}

/// Several sources merged into one, ascending or descending by op. Each step costs the logarithm of the
/// number of sources.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    sources: Vec<MergeSource<'a>>,
    /// The next notification of each strand that has one: its rank in the direction of the merge, and the
    /// strand's index.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    backward: bool,
}

impl<'a> Merge<'a> {
    /// Oldest first.
    pub(super) fn forward(sources: Vec<MergeSource<'a>>) -> Merge<'a> {
        Merge::new(sources, false)
    }

    /// Newest first.
    pub(super) fn backward(sources: Vec<MergeSource<'a>>) -> Merge<'a> {
        Merge::new(sources, true)
    }

    fn new(sources: Vec<MergeSource<'a>>, backward: bool) -> Merge<'a> {
        let mut merge = Merge { heads: BinaryHeap::with_capacity(sources.len()), sources, backward };
        for which in 0..merge.sources.len() {
            merge.push_head(which);
        }
        merge
    }

    fn push_head(&mut self, which: usize) {
        let source = &self.sources[which];
        if source.len() > 0 {
            let rank = if self.backward { !source.op(source.to - 1).0 } else { source.op(source.from).0 };
            self.heads.push(Reverse((rank, which)));
        }
    }
}

impl<'a> Iterator for Merge<'a> {
    type Item = &'a Stored;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Reverse((_, which)) = self.heads.pop()?;
            let source = &mut self.sources[which];
            let at = if self.backward {
                source.to -= 1;
                source.to
            } else {
                source.from += 1;
                source.from - 1
            };
            let notification = source.get(at);
            self.push_head(which);
            if notification.is_some() {
                return notification;
            }
        }
    }
}
