//! The backup: hears the primary, takes its entries, acknowledges the ops that are durable and matched, and
//! suspects the primary when it is silent.

use std::time::Duration;

use recado_proto::entry::Entry;
use recado_proto::id::{Incarnation, Moment, NodeId, Op, View};
use recado_proto::packet::{Entries, EntriesAck, Heartbeat, HeartbeatState, OptionalFields, Reply, ToPeer};
use recado_proto::planted::Planted;

use super::detector::Verdict;
use super::{Cause, Effect, ReplicaManager, Report, Role};

/// Interval of the pings to a primary whose heartbeat is missing. A closed port refuses a ping at once.
const PING_EVERY: Duration = Duration::from_millis(5);

/// Most casts kept that arrived before their predecessors. One that does not fit is rejected and cast
/// again.
const EARLY_MAX: usize = 64;

/// The state of a backup.
///
/// What it knows of its primary outlives the role: a server that probes and one without a vote hear the
/// primary too (`InView`), and the detector keeps its measure of the heartbeats across elections.
#[derive(Debug)]
pub(super) struct Backup {
    next_ping: Moment,
}

impl Backup {
    pub(super) fn new(now: Moment) -> Backup {
        Backup { next_ping: now }
    }

    /// When a late primary is pinged next.
    pub(super) fn next_ping(&self) -> Moment {
        self.next_ping
    }

    /// The primary's port has refused a datagram. Another refusal would confirm that it is closed.
    pub(super) fn ping_now(&mut self, now: Moment) {
        self.next_ping = now;
    }
}

impl ReplicaManager {
    pub(super) fn on_heartbeat(
        &mut self,
        now: Moment,
        from: NodeId,
        incarnation: Incarnation,
        heartbeat: Heartbeat,
        out: &mut Vec<Effect>,
    ) {
        // A list of members that an entry named is another one than that of the configuration.
        if heartbeat.members != self.digest || heartbeat.members_op != Op::ZERO {
            return;
        }
        self.round_seen = self.round_seen.max(heartbeat.view.round());
        if heartbeat.state == HeartbeatState::Backup {
            return self.on_echo(now, from, heartbeat, out);
        }
        if !self.accept_view(now, from, incarnation, heartbeat.view, out) {
            return;
        }
        self.in_view.beat_heard = self.in_view.beat_heard.max(heartbeat.beat);
        self.in_view.told_last = heartbeat.last;
        if heartbeat.state == HeartbeatState::Isolated {
            // It is answered, so that it learns that its majority is back, but its heartbeat does not count
            // as hearing it.
            self.echo(now, from, out);
            self.acknowledge(false, out);
            return self.suspect(now, Cause::PrimaryIsolated, out);
        }
        self.hear_primary(now, out);
        if heartbeat.last < self.in_view.floor {
            self.contradict(heartbeat.view, heartbeat.last.next(), out);
        }
        if heartbeat.state == HeartbeatState::Active {
            self.led = Some(now);
            self.on_active(heartbeat.view, out);
        }
        let unmatched = self.planted.is(Planted::CommitBeyondMatched);
        self.commit_upto(
            heartbeat.commit.min(if unmatched { self.log.last() } else { self.in_view.matched }),
            out,
        );
        self.echo(now, from, out);
        // No progress for longer than any round trip and fsync should take: ask the primary to cast again.
        if heartbeat.last <= self.in_view.matched || self.in_view.last_progress.0 != self.in_view.matched {
            self.in_view.last_progress = (self.in_view.matched, now);
        }
        let stuck = now.since(self.in_view.last_progress.1) >= self.timing.suspect_min;
        if stuck {
            self.in_view.last_progress.1 = now;
        }
        self.acknowledge(stuck, out);
    }

    /// Tells the primary that its heartbeat was heard.
    fn echo(&self, now: Moment, to: NodeId, out: &mut Vec<Effect>) {
        let echo = self.heartbeat(now, HeartbeatState::Backup, self.in_view.beat_heard);
        self.send(to, ToPeer::Heartbeat(echo), out);
    }

    pub(super) fn heartbeat(&self, now: Moment, state: HeartbeatState, beat: u64) -> Heartbeat {
        Heartbeat {
            view: self.promised,
            state,
            commit: self.commit,
            last: self.log.last(),
            beat,
            leaving: self.stopping.is_some(),
            members: self.digest,
            disk_ms: self.pace.own_turn_ms(now),
            members_op: Op::ZERO,
            options: OptionalFields::NONE,
        }
    }

    /// Returns true if a packet of `view` from its primary may be accepted. Raises `promised` if `view` is
    /// higher, and refuses if it is lower.
    fn accept_view(
        &mut self,
        now: Moment,
        from: NodeId,
        incarnation: Incarnation,
        view: View,
        out: &mut Vec<Effect>,
    ) -> bool {
        if view.primary() != Some(from) || !self.may_promise(view) {
            return false;
        }
        if view < self.promised {
            // An active view is announced instead: after a Refuse the old primary would try to outbid it.
            if self.active >= self.promised {
                self.send(from, self.coordinator(), out);
            } else {
                self.send(from, ToPeer::Reply(Reply::Refuse { promised: self.promised }), out);
            }
            return false;
        }
        if view > self.promised {
            self.raise_promised(now, view, out);
            self.become_backup(now, Cause::HigherView, out);
        }
        match self.in_view.primary {
            Some(known) => incarnation == known,
            None => {
                self.in_view.primary = Some(incarnation);
                self.detector.restart(now);
                true
            }
        }
    }

    /// The primary of `promised`, once it was heard.
    pub(super) fn known_primary(&self) -> Option<NodeId> {
        self.in_view.primary.and(self.promised.primary())
    }

    /// The primary of `promised`, if this server follows it: none that it has contradicted, and after a
    /// contradiction only one whose entries it has compared with its own.
    pub(super) fn followed_primary(&self) -> Option<NodeId> {
        let contradicted = self.contradiction.is_some_and(|known| known.view == self.promised);
        let uncompared = self.contradiction.is_some() && !self.in_view.compared;
        self.known_primary().filter(|_| !contradicted && !uncompared)
    }

    /// The primary of `promised` was heard.
    fn hear_primary(&mut self, now: Moment, out: &mut Vec<Effect>) {
        self.detector.heard(now);
        self.in_view.waiting_for = None;
        if matches!(self.role, Role::Candidate(_)) {
            self.become_backup(now, Cause::HeardAgain, out);
            self.suspected_since = None;
        }
    }

    pub(super) fn on_coordinator(&mut self, now: Moment, view: View, out: &mut Vec<Effect>) {
        let Some(primary) = view.primary() else { return };
        let known = primary != self.me && self.members.contains(&primary);
        if view < self.promised || !known || !self.may_promise(view) {
            return;
        }
        if view > self.promised {
            self.raise_promised(now, view, out);
            self.become_backup(now, Cause::HigherView, out);
        }
        self.on_active(view, out);
    }

    pub(super) fn on_entries(
        &mut self,
        now: Moment,
        from: NodeId,
        incarnation: Incarnation,
        entries: Entries,
        out: &mut Vec<Effect>,
    ) {
        if entries.fetch.is_some() {
            return self.on_fetched(now, from, entries, out);
        }
        if !self.accept_view(now, from, incarnation, entries.view, out) {
            return;
        }
        self.hear_primary(now, out);
        if refuse_unfollowed(&entries, out) {
            return;
        }
        if !self.follows_log(&entries) {
            let kept = self.keep_early(entries);
            return self.acknowledge(!kept, out);
        }
        let last = self.log.last();
        self.merge_cast(now, entries, out);
        while let Some(next) = self.in_view.early.first_entry() {
            if *next.key() > self.in_view.matched {
                break;
            }
            let entries = next.remove();
            self.merge_cast(now, entries, out);
        }
        if self.log.last() == last || self.planted.is(Planted::AckOnReceipt) {
            self.acknowledge(false, out);
        }
    }

    /// Returns true if the entry before these is in this log and in the primary's.
    fn follows_log(&self, entries: &Entries) -> bool {
        entries.prev_op <= self.in_view.matched
            || self.log.view_at(entries.prev_op) == Some(entries.prev_view)
    }

    /// The first op that is committed here and has another view in these entries.
    fn conflicts_at(&self, entries: &Entries) -> Option<Op> {
        let before = (entries.prev_op, entries.prev_view);
        let told = std::iter::once(before).chain(entries.entries.iter().map(|entry| (entry.op, entry.view)));
        let mut known = told.filter(|(op, _)| *op <= self.commit);
        known.find(|(op, view)| self.log.view_at(*op).is_some_and(|mine| mine != *view)).map(|(op, _)| op)
    }

    /// Keeps a cast that arrived before its predecessors and returns true, if this log has joined the
    /// primary's log in this view, the cast is beyond its end, and there is room. Otherwise the primary
    /// must cast it again.
    fn keep_early(&mut self, entries: Entries) -> bool {
        let overtook = self.in_view.compared && entries.prev_op > self.log.last();
        if overtook && self.in_view.early.len() < EARLY_MAX {
            self.in_view.early.insert(entries.prev_op, entries);
            return true;
        }
        overtook && self.in_view.early.contains_key(&entries.prev_op)
    }

    fn merge_cast(&mut self, now: Moment, entries: Entries, out: &mut Vec<Effect>) {
        if let Some(op) = self.conflicts_at(&entries) {
            return self.contradict(entries.view, op, out);
        }
        self.in_view.compared = true;
        let end = self.merge(entries.prev_op, entries.view, entries.entries, out);
        if self.planted.is(Planted::RecastCuts) && end < self.log.last() && end > self.commit {
            self.log.cut_from(end.next());
            self.journaling.limit_durable(end);
            self.journaling.unjournaled.retain(|entry| entry.op <= end);
        }
        self.in_view.matched = self.in_view.matched.max(end);
        // The journal gets every entry before it is applied.
        self.journal_appended(now, out);
        self.commit_upto(entries.commit.min(self.in_view.matched), out);
    }

    /// Takes consecutive entries from `prev + 1` on. An entry already held with the same view is skipped;
    /// one with a different view replaces the held entry and everything after it. Returns the op up to
    /// which this log agrees with the sender's.
    pub(super) fn merge(&mut self, prev: Op, view: View, entries: Vec<Entry>, out: &mut Vec<Effect>) -> Op {
        let mut agreed = prev;
        for (expected, entry) in (prev.0 + 1..).zip(entries) {
            let fits = entry.op == Op(expected) && entry.view <= view;
            if !fits || entry.op > self.log.last().next() {
                return agreed;
            }
            let committed = entry.op <= self.commit;
            let op = entry.op;
            if !committed && self.log.view_at(op) != Some(entry.view) {
                let below = self.log.view_at(op.prev());
                if below.is_none_or(|below| below > entry.view) {
                    return agreed;
                }
                if op <= self.log.last() {
                    self.replace_from(op, out);
                }
                self.append(entry);
            }
            agreed = op;
        }
        agreed
    }

    /// Tells the primary of `promised` the ops that are durable and matched. A learner's copy does not
    /// count, because it may have broken a promise that it cannot remember.
    pub(super) fn acknowledge(&self, rejected: bool, out: &mut Vec<Effect>) {
        let Some(primary) = self.followed_primary() else { return };
        let durable = match self.role {
            Role::Learner(_) if !self.planted.is(Planted::LearnerCounts) => Op::ZERO,
            _ if self.planted.is(Planted::AckOnReceipt) => self.in_view.matched,
            _ if self.planted.is(Planted::AckUnmatched) => self.journaling.durable,
            _ => self.journaling.durable.min(self.in_view.matched),
        };
        let ack = EntriesAck {
            view: self.promised,
            durable,
            matched: self.in_view.matched,
            commit: self.commit,
            rejected,
        };
        self.send(primary, ToPeer::EntriesAck(ack), out);
    }

    pub(super) fn backup_on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if let Some(awaited) = self.in_view.waiting_for {
            if now >= self.waits_until(now, awaited) {
                self.suspect(now, Cause::TimedOut, out);
            }
            return;
        }
        let primary = self.known_primary();
        let cause = match self.detector.verdict(now) {
            Verdict::Alive => return,
            Verdict::Late => {
                if let (Some(primary), Role::Backup(backup)) = (primary, &mut self.role)
                    && now >= backup.next_ping
                {
                    backup.next_ping = now + PING_EVERY;
                    self.echo(now, primary, out);
                }
                return;
            }
            Verdict::Silent => Cause::TimedOut,
            Verdict::Refused => Cause::PortRefused,
        };
        if let Some(primary) = primary {
            self.pace.drop_report(primary);
        }
        self.suspect(now, cause, out);
    }
}

/// Returns true if this server takes nothing of the packet, and reports that: one of the entries is of a kind
/// that it does not follow. With a list of members in its log, for example, it would go on counting by the
/// old one. The packet's sender is one from which entries are taken.
pub(super) fn refuse_unfollowed(entries: &Entries, out: &mut Vec<Effect>) -> bool {
    let Some(entry) = entries.entries.iter().find(|entry| !entry.kind.is_followed()) else { return false };
    let (view, op, kind) = (entries.view, entry.op, entry.kind);
    out.push(Effect::Report(Report::EntryRefused { view, op, kind }));
    true
}
