//! Pages of the past, and what is shown from before the stream began.

use recado_client::{HistoryRange, Op, Past, Topic};

use super::{App, Conversation, Effect};
use crate::tui::log::{Before, Log};

impl App {
    /// Requests the newest notifications of a place, unless they are here or requested already.
    pub(super) fn need_past(&mut self, place: &Conversation) {
        let queried = self.cluster_id.is_some();
        let log = self.log_mut(place);
        if queried && log.before == Before::Unknown {
            log.before = Before::Loading;
            self.effects.push(Effect::History(place.clone(), HistoryRange::Before(Op(u64::MAX))));
        }
    }

    /// Requests notifications that are older than the oldest here.
    pub(super) fn need_older(&mut self, place: &Conversation) {
        let log = self.log_mut(place);
        if log.before == Before::More
            && let Some(oldest) = log.oldest().map(|oldest| oldest.op)
        {
            log.before = Before::Loading;
            self.effects.push(Effect::History(place.clone(), HistoryRange::Before(oldest)));
        }
    }

    pub(super) fn on_past(&mut self, place: &Conversation, range: HistoryRange, past: Result<Past, String>) {
        let log = self.log_mut(place);
        match past {
            Ok(past) => {
                log.prepend(past.notifications, past.more);
            }
            Err(why) => {
                let first = range == HistoryRange::Before(Op(u64::MAX));
                log.before = if first { Before::Unknown } else { Before::More };
                log.goal_ms = None;
                // What was asked for in passing is not missed.
                if *place == self.here || *place == Conversation::All {
                    self.trouble(format!("no history: {why}"));
                }
            }
        }
        self.merge_own();
        self.toward_goal(place);
        if let Some(search) = self.search.as_mut().filter(|_| *place == self.here) {
            search.is_stale();
        }
        if *place == self.here {
            self.after_move();
            if let (Conversation::Topic(topic), true) = (place, self.sees(place)) {
                self.read_here(&topic.clone());
            }
        }
    }

    /// Copies what the user sent to their feed, to an inbox or to a channel that is not followed into the
    /// list of everything, as far back as that list goes, because the stream does not carry it.
    pub(super) fn merge_own(&mut self) {
        let Some(me) = self.profile.clone() else { return };
        let all = self.log_mut(&Conversation::All);
        let from = match (all.before, all.oldest()) {
            (Before::Nothing, _) => Op::ZERO,
            (_, Some(oldest)) => oldest.op,
            (_, None) => return,
        };
        let mut own = Vec::new();
        let elsewhere = self.places.written_to().into_iter();
        for topic in [Topic::Feed(me.clone()), Topic::Inbox(me.clone())].into_iter().chain(elsewhere) {
            let others_too = !matches!(topic, Topic::Channel(_));
            let log = self.logs.get(&Conversation::Topic(topic));
            let newer = log.into_iter().flat_map(Log::iter).rev().take_while(|one| one.op >= from);
            own.extend(newer.filter(|one| others_too || one.author == me).cloned());
        }
        let all = self.log_mut(&Conversation::All);
        for notification in own {
            all.insert(notification);
        }
    }
}
