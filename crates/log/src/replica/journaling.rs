//! The tasks of the journal: which it was given, and what is durable once it has done them.

use recado_proto::entry::Entry;
use recado_proto::id::{Moment, Op, View};
use recado_proto::planted::Planted;

use super::{Effect, ReplicaManager, Role, Task};

/// The result of a journal task.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written {
    /// The log is durable up to this op.
    Upto(Op),
    /// This promise is durable.
    Promise(View),
    /// The vote is durable.
    Vote,
    /// These incarnations are durable.
    Known,
}

impl ReplicaManager {
    /// Promises that the journal was given and has not made durable yet.
    pub(super) fn promises_in_journal(&self) -> usize {
        self.in_journal.iter().filter(|(_, written)| matches!(written, Written::Promise(_))).count()
    }

    pub(super) fn journal(&mut self, now: Moment, task: Task, written: Written, out: &mut Vec<Effect>) {
        // A promise covers every append taken in before it, so those are written first.
        if !matches!(task, Task::Append { .. }) {
            self.journal_appended(now, out);
        }
        self.tickets += 1;
        self.in_journal.push_back((self.tickets, written));
        self.pace.task_given(now);
        out.push(Effect::Journal { ticket: self.tickets, task });
    }

    pub(super) fn journal_appended(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if self.unjournaled.is_empty() {
            return;
        }
        let entries = std::mem::take(&mut self.unjournaled);
        let upto = self.log.last();
        self.journal(now, Task::Append { entries, commit: self.commit }, Written::Upto(upto), out);
    }

    pub(super) fn append(&mut self, entry: Entry) {
        self.log.push(entry.clone());
        self.unjournaled.push(entry);
    }

    /// Drops `first` and everything after it, because the primary has another entry there.
    pub(super) fn replace_from(&mut self, first: Op, out: &mut Vec<Effect>) {
        self.report_overwritten(first, out);
        self.log.cut_from(first);
        if !self.planted.is(Planted::StaleCompletionCounts) {
            self.limit_durable(first.prev());
        }
    }

    /// Reports that the entries from `first` on are replaced, if they are durable.
    pub(super) fn report_overwritten(&self, first: Op, out: &mut Vec<Effect>) {
        if first <= self.durable {
            out.push(Effect::Overwritten { view: self.promised, first, last: self.durable });
        }
    }

    /// Entries on the disk beyond `upto` are not the entries of the log any more.
    pub(super) fn limit_durable(&mut self, upto: Op) {
        self.durable = self.durable.min(upto);
        for (_, written) in &mut self.in_journal {
            if let Written::Upto(last) = written {
                *last = (*last).min(upto);
            }
        }
    }

    pub(super) fn on_journaled(&mut self, now: Moment, ticket: u64, out: &mut Vec<Effect>) {
        let durable = self.durable;
        self.pace.turn_ended(now, self.tickets > ticket);
        while self.in_journal.front().is_some_and(|(first, _)| *first <= ticket) {
            let Some((_, written)) = self.in_journal.pop_front() else { break };
            match written {
                Written::Upto(last) => self.durable = self.durable.max(last),
                Written::Promise(view) => self.on_promise_durable(now, view, out),
                Written::Vote => self.on_vote_durable(now, out),
                Written::Known => {
                    // Incarnations given to the journal after this task become durable with their own task.
                    if !self.in_journal.iter().any(|(.., written)| matches!(written, Written::Known)) {
                        self.heard.iter_mut().for_each(|heard| heard.durable = heard.journaled);
                        self.answer_learners(out);
                    }
                }
            }
        }
        if self.durable > durable {
            match &self.role {
                Role::Primary(_) => self.count(now, out),
                Role::Learner(_) | Role::Backup | Role::Candidate(_) => self.acknowledge(false, out),
            }
        }
    }
}
