//! Retention and the primary's other housekeeping. The limits here are the operator's and are applied from
//! time to time; the limits that hold at every op are in `capacity`.

use std::collections::BTreeSet;

use recado_proto::command::Command;
use recado_proto::id::{Op, Topic, millis};
use recado_proto::planted::Planted;

use super::Service;
use super::state::{EARLIEST_DATE_MS, TopicState, first};
use crate::limits::Retention;

/// The most notifications that one Trim drops: 1 to 2 ms, so that no turn of a server takes much longer. A
/// topic from which more is to be dropped gets several.
pub const TRIM_MOST: usize = 2_000;

impl Service {
    /// The housekeeping commands that the primary should log at `unix_ms`: ends of pending sessions that were
    /// not confirmed within `Limits::session_pending`, closes of sessions idle for longer than
    /// `Limits::session_idle`, expiries of names (see `expiry`), and trims by retention. At most `most`
    /// commands; the rest comes with the next call. Looks only at names, topics and sessions that are over a
    /// limit. (Devices beyond `Limits::devices` are forgotten by the SessionOpen that displaces them.)
    pub fn housekeeping(&self, unix_ms: u64, retention: &Retention, most: usize) -> Vec<Command> {
        let age_ms = self.age_ms(unix_ms);
        let idle_ms = millis(self.limits.session_idle);
        let closes = self
            .index
            .seen
            .iter()
            .take_while(|(seen_ms, _)| age_ms(*seen_ms) > idle_ms)
            .map(|(_, session)| Command::SessionClose { session: *session });

        let pending_ms = millis(self.limits.session_pending);
        let lapses = self
            .index
            .pending
            .iter()
            .take_while(|(opened_ms, _)| age_ms(*opened_ms) > pending_ms)
            .map(|(_, session)| Command::SessionLapse { session: *session });

        let too_many = self.index.counts.iter().rev().take_while(|(count, _)| *count > retention.count);
        let too_large = self.index.bytes.iter().rev().take_while(|(bytes, _)| *bytes > retention.bytes);
        let too_old = self.index.oldest.values().take_while(|topic| {
            let oldest = self.state.topics.get(topic).and_then(|topic_state| topic_state.retained.front());
            oldest.is_some_and(|oldest| age_ms(oldest.unix_ms()) > retention.age_ms)
        });
        // The limit of all topics together: the topics of at least half the largest one's weight give up to
        // half of theirs each, the largest first, until the sum is within it.
        let mut over = self.index.counted.retained.saturating_sub(retention.all_bytes);
        let half = self.index.bytes.last().map_or(0, |(most, _)| most.div_ceil(2));
        let largest = self.index.bytes.iter().rev().map_while(|(bytes, topic)| {
            let less = over.min(bytes.div_ceil(2));
            over -= less;
            (less > 0 && *bytes >= half).then_some((topic, retention.bytes.min(bytes - less)))
        });
        let each = too_many.chain(too_large).map(|(_, topic)| topic).chain(too_old);
        let mut seen = BTreeSet::new();
        let trims = largest
            .chain(each.map(|topic| (topic, retention.bytes)))
            .filter(|(topic, _)| seen.insert(*topic))
            .flat_map(|(topic, bytes)| {
                let retention = Retention { bytes, ..*retention };
                let trims = self.state.topics.get(topic).map(|held| trims(held, age_ms, retention));
                let trims = trims.into_iter().flatten();
                trims.map(|upto| Command::Trim { topic: topic.clone(), upto })
            });
        lapses.chain(closes).chain(self.expired(unix_ms)).chain(trims).take(most).collect()
    }

    /// How many notifications `topic` holds up to `upto`, and how many in all.
    pub fn retained(&self, topic: &Topic, upto: Op) -> (usize, usize) {
        self.state.topics.get(topic).map_or((0, 0), |held| {
            let all = held.retained.len();
            (first(all, |at| held.retained[at].op() > upto), all)
        })
    }

    /// The age at `unix_ms` of something with a given stamp, in ms. The age of a stamp from before the clock
    /// was set is counted from the first date in the log, or from `unix_ms` if the log has none yet.
    pub(super) fn age_ms(&self, unix_ms: u64) -> impl Fn(u64) -> u64 + Copy + use<> {
        let set_now = self.state.dated_ms == 0 && unix_ms >= EARLIEST_DATE_MS;
        let dated_ms = if set_now { unix_ms } else { self.state.dated_ms };
        move |stamp_ms: u64| unix_ms.saturating_sub(stamp_ms.max(dated_ms))
    }

    /// Drops the notifications that `topic` holds up to `upto`, also from their authors' lists of sent ones.
    pub(super) fn trim(&mut self, topic: &Topic, upto: Op) {
        let Some(topic_state) = self.state.topics.get_mut(topic) else { return };
        self.index.remove_topic(topic, topic_state);
        while let Some(dropped) = topic_state.drop_oldest(upto) {
            if let Topic::Inbox(_) = topic
                && let Some(author) = dropped.author()
                && let Some(author) = self.state.profiles.get_mut(&author)
                && let Ok(at) = author.sent.binary_search_by_key(&dropped.op(), |sent| sent.op)
            {
                author.sent.remove(at);
            }
        }
        if self.planted.is(Planted::TrimForgotten) {
            topic_state.trimmed_upto = Op::ZERO;
        }
        self.index.add_topic(topic, topic_state);
        self.note_channel(topic);
    }
}

/// The last ops of the trims after which the topic is within every limit again; none if it is. They are found
/// one by one, so that as many are looked at as are taken.
fn trims(topic: &TopicState, age_ms: impl Fn(u64) -> u64, retention: Retention) -> impl Iterator<Item = Op> {
    let retained = &topic.retained;
    let young = first(retained.len(), |at| age_ms(retained[at].unix_ms()) <= retention.age_ms);
    let count_max = usize::try_from(retention.count).unwrap_or(usize::MAX);
    let beyond = young.max(retained.len().saturating_sub(count_max));
    let (mut bytes, mut dropped) = (topic.bytes, 0);
    let mut too_many = retained.iter().map_while(move |oldest| {
        let drops = dropped < beyond || bytes > retention.bytes;
        dropped += 1;
        bytes -= if drops { oldest.weight() } else { 0 };
        drops.then(|| oldest.op())
    });
    std::iter::from_fn(move || too_many.by_ref().take(TRIM_MOST).last())
}
