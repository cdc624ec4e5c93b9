//! Numbered requests on their way: sent again, in new packets, until they are answered.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Ask, Effect, Event};
use crate::id::{Moment, Op, Seq};
use crate::wire::packet::{Channel, Code, Follow, Keys, Packet, Send};

/// Requests without an answer at once: what the service keeps results of (DESIGN.md section 3).
const OUTSTANDING_MAX: usize = 256;

/// A request without an answer is sent again after the time-out of the link, but not sooner than
/// this: a commit takes a majority's fsync.
const AGAIN_MIN: Duration = Duration::from_millis(100);

/// The longest wait.
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// Whether a refusal passes: it took no number, and the same request may be taken in a moment.
pub(super) fn passes(code: Code) -> bool {
    match code {
        Code::Busy | Code::NoQuorum | Code::NotPrimary | Code::TooFarAhead => true,
        Code::UnknownProfile
        | Code::UnknownChannel
        | Code::ChannelDeleted
        | Code::InviteNeeded
        | Code::WrongInvite
        | Code::KeyNotAllowed
        | Code::TooManyNames
        | Code::UnknownDevice
        | Code::SessionOver
        | Code::NotYours
        | Code::NotAllowed
        | Code::AlreadyFollowing
        | Code::NotFollowing
        | Code::Yourself
        | Code::TooLarge
        | Code::LimitReached
        | Code::NameTaken
        | Code::NotMember
        | Code::LastOne
        | Code::WrongCode
        | Code::BeyondEnd => false,
    }
}

#[derive(Debug)]
struct Outstanding {
    ask: Ask,
    due: Moment,
    tries: u32,
    /// As it was when this was first sent: pieces of a large request sent again then fill the holes of
    /// the first ones, which are named after their content.
    answered_below: Option<Seq>,
}

impl Outstanding {
    fn new(ask: Ask, due: Moment) -> Outstanding {
        Outstanding { ask, due, tries: 0, answered_below: None }
    }
}

/// All that is not answered.
#[derive(Debug)]
pub(super) struct Outbox {
    /// The next number; none before the service has told where numbers go on.
    next: Option<Seq>,
    /// Asked before that.
    unnumbered: VecDeque<Ask>,
    outstanding: BTreeMap<Seq, Outstanding>,
    /// How often in a row the server said that it takes nothing now: then only the lowest number is
    /// sent, as a question, until one is answered ...
    closed: u32,
    /// ... and not before this.
    knock_at: Moment,
}

impl Outbox {
    /// With what an earlier life of the device left unanswered.
    pub(super) fn new(left: impl Iterator<Item = (Seq, Ask)>) -> Outbox {
        let outstanding = left.map(|(seq, ask)| (seq, Outstanding::new(ask, Moment(0)))).collect();
        Outbox { next: None, unnumbered: VecDeque::new(), outstanding, closed: 0, knock_at: Moment(0) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.outstanding.is_empty() && self.unnumbered.is_empty()
    }

    /// Whether another request would be taken.
    pub(super) fn has_room(&self) -> bool {
        self.span() + self.unnumbered.len() < OUTSTANDING_MAX
    }

    /// The application asks: numbered at once if numbers are known.
    pub(super) fn ask(&mut self, now: Moment, ask: Ask, out: &mut Vec<Effect>) {
        if !self.has_room() {
            return out.push(Effect::Event(Event::NotTaken));
        }
        self.unnumbered.push_back(ask);
        self.number(now, out);
    }

    /// From the lowest number without an answer to the highest given, answered ones between them
    /// included: the service keeps so many results from the lowest on, and none before them.
    fn span(&self) -> usize {
        let lowest = self.outstanding.first_key_value().map(|(seq, _)| seq.0);
        match (lowest, self.next) {
            (Some(lowest), Some(next)) => next.0.saturating_sub(lowest) as usize,
            _ => self.outstanding.len(),
        }
    }

    /// Whether the numbers without an answer can follow the last one that the service applied: below the
    /// lowest of them all were answered, so the service had them.
    pub(super) fn follows(&self, last: Seq) -> bool {
        self.outstanding.first_key_value().is_none_or(|(lowest, _)| *lowest <= last.next())
    }

    /// The service tells the last number that it applied.
    pub(super) fn begin(&mut self, now: Moment, last: Seq, out: &mut Vec<Effect>) {
        let highest = self.outstanding.last_key_value().map_or(last, |(seq, _)| last.max(*seq));
        self.next = Some(highest.next());
        self.number(now, out);
    }

    fn number(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some(mut next) = self.next else { return };
        for ask in self.unnumbered.drain(..) {
            self.outstanding.insert(next, Outstanding::new(ask, now));
            out.push(Effect::Event(Event::Numbered(next)));
            next = next.next();
        }
        self.next = Some(next);
    }

    /// The next request to send now, under its number as the token.
    pub(super) fn next_due(&mut self, now: Moment, rto: Duration) -> Option<(u64, Packet)> {
        let lowest = *self.outstanding.first_key_value()?.0;
        if self.closed > 0 && now < self.knock_at {
            return None;
        }
        let sendable = if self.closed > 0 { 1 } else { usize::MAX };
        let (seq, outstanding) =
            self.outstanding.iter_mut().take(sendable).find(|(_, outstanding)| outstanding.due <= now)?;
        let wait = rto.max(AGAIN_MIN) * (1 << outstanding.tries.min(4));
        outstanding.due = now + wait.min(AGAIN_MAX);
        outstanding.tries += 1;
        let seq = *seq;
        let answered_below = *outstanding.answered_below.get_or_insert(lowest);
        let packet = match outstanding.ask.clone() {
            Ask::Follow { topic, change } => Packet::Follow(Follow { seq, answered_below, topic, change }),
            Ask::Keys { change } => Packet::Keys(Keys { seq, answered_below, change }),
            Ask::Channel { channel, change } => {
                Packet::Channel(Channel { seq, answered_below, channel, change })
            }
            Ask::Send { topic, content } => Packet::Send(Send { seq, answered_below, topic, content }),
        };
        Some((seq.0, packet))
    }

    /// The datagram of this number is believed lost.
    pub(super) fn lost(&mut self, now: Moment, token: u64) {
        if let Some(outstanding) = self.outstanding.get_mut(&Seq(token)) {
            outstanding.due = now;
        }
    }

    /// A primary serves anew: everything goes to it at once, in order.
    pub(super) fn send_all(&mut self, now: Moment) {
        self.closed = 0;
        for outstanding in self.outstanding.values_mut() {
            (outstanding.due, outstanding.tries) = (now, 0);
        }
    }

    /// The server asks for patience: with this number, or with all of them.
    pub(super) fn refused(&mut self, now: Moment, seq: Seq, code: Code, wait: Duration) {
        let mut due = now + wait;
        // The refusals of one burst count once.
        if code != Code::TooFarAhead && now >= self.knock_at {
            self.knock_at = now + (wait * (1 << self.closed.min(4))).min(AGAIN_MAX);
            self.closed += 1;
        }
        if self.closed > 0 {
            due = self.knock_at;
        }
        if let Some(outstanding) = self.outstanding.get_mut(&seq) {
            outstanding.due = due;
        }
    }

    pub(super) fn answered(&mut self, seq: Seq, result: Result<Op, Code>, out: &mut Vec<Effect>) {
        if self.outstanding.remove(&seq).is_some() {
            self.closed = 0;
            out.push(Effect::Event(Event::Answered { seq, result }));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        if self.closed > 0 {
            return self.outstanding.values().next().map(|outstanding| outstanding.due.max(self.knock_at));
        }
        self.outstanding.values().map(|outstanding| outstanding.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Topic;
    use crate::wire::packet::FollowChange;

    #[test]
    fn one_request_without_an_answer_takes_the_room_of_all_behind_it() {
        let ask = || Ask::Follow { topic: Topic::to_follow("@bob").unwrap(), change: FollowChange::Add };
        let (mut outbox, mut out) = (Outbox::new([].into_iter()), Vec::new());
        outbox.begin(Moment(0), Seq(0), &mut out);
        let last = Seq(OUTSTANDING_MAX as u64);
        for _ in 0..last.0 {
            assert!(outbox.has_room());
            outbox.ask(Moment(0), ask(), &mut out);
        }
        for seq in (2..=last.0).map(Seq) {
            outbox.answered(seq, Ok(Op(1)), &mut out);
        }
        out.clear();
        assert!(!outbox.has_room());
        outbox.ask(Moment(0), ask(), &mut out);
        assert_eq!(out, [Effect::Event(Event::NotTaken)]);
        outbox.answered(Seq(1), Ok(Op(1)), &mut out);
        assert!(outbox.has_room());
    }
}
