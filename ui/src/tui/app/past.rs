//! Pages of the past, and what is shown from before the stream began.

use recado_client::{HistoryRange, Name, Op, Past, Topic};

use super::{App, Conversation, Effect};
use crate::tui::event::written;
use crate::tui::log::{Before, Log};

/// Time for which the newest notifications of a place are not requested again, in ms.
const RENEWED_FOR_MS: u64 = 1_000;

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

    /// Requests the newest notifications of a place again, for what the stream does not carry: what the user
    /// sends from elsewhere to their feed, to an inbox, or to a channel that they do not follow.
    pub(super) fn renew_own(&mut self) {
        let Some(me) = self.profile.clone().filter(|_| self.connection.is_served()) else { return };
        let (feed, inbox) = (Topic::Feed(me.clone()), Topic::Inbox(me));
        let places = match &self.here {
            Conversation::All => vec![feed, inbox],
            Conversation::Topic(topic) if *topic == feed || *topic == inbox => vec![topic.clone()],
            Conversation::Topic(topic) if !self.places.follows(topic) => vec![topic.clone()],
            Conversation::Topic(_) => vec![],
        };
        let now_ms = self.now.unix_ms;
        for place in places.into_iter().map(Conversation::Topic) {
            let log = self.log_mut(&place);
            if log.renewing == 0 && now_ms.saturating_sub(log.answered_ms) >= RENEWED_FOR_MS {
                self.renew(place);
            }
        }
    }

    /// Requests the newest notifications of a place again, if they were fetched before.
    pub(super) fn renew(&mut self, place: Conversation) {
        let log = self.log_mut(&place);
        if log.answered_ms > 0 && log.before != Before::Unknown {
            log.renewing += 1;
            self.effects.push(Effect::History(place, HistoryRange::Before(Op(u64::MAX))));
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
        let going = self.take_visit(place);
        let newest = range == HistoryRange::Before(Op(u64::MAX));
        let now_ms = self.now.unix_ms;
        let log = self.log_mut(place);
        let renewed = newest && log.renewing > 0;
        log.renewing -= u32::from(renewed);
        match past {
            Ok(past) => {
                log.failed = None;
                if newest {
                    log.answered_ms = now_ms;
                }
                // A log that has begun anew meanwhile does not join an older page.
                let joins =
                    newest || log.oldest().is_none_or(|oldest| range == HistoryRange::Before(oldest.op));
                match renewed {
                    true => log.renew(past.notifications, past.more),
                    false if joins => log.prepend(past.notifications, past.more),
                    false => {}
                }
                if let Some(moved) = going
                    && !self.arrive(moved)
                    && let Conversation::Topic(topic) = place
                {
                    let name = written(topic);
                    self.notice(format!("{name} is there; /go {name} shows it"));
                }
            }
            Err(why) => {
                // There is no such place.
                if let Some(moved) = going {
                    self.logs.remove(place);
                    self.stay(moved);
                    return self.trouble(why);
                }
                if !renewed {
                    log.before = if newest { Before::Unknown } else { Before::More };
                }
                log.goal_ms = None;
                log.failed = Some(why.clone());
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

    /// Shows a place, once the servers have said that there is one.
    pub(super) fn visit(&mut self, place: Conversation) {
        let known = self.is_known(&place) || !self.connection.is_served();
        if known {
            return self.go(place);
        }
        self.need_past(&place);
        self.move_later(place, false);
    }

    /// Returns true if the servers have said that there is this place.
    fn is_known(&self, place: &Conversation) -> bool {
        let listed = match place {
            Conversation::All => true,
            Conversation::Topic(topic) => {
                let is_of = |name: &Name| self.people.contains(name);
                self.places.follows(topic)
                    || self.channel(topic).is_some()
                    || matches!(topic, Topic::Feed(name) | Topic::Inbox(name) if is_of(name))
            }
        };
        listed || self.log(place).is_some_and(|log| log.answered_ms > 0 || !log.is_empty())
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
