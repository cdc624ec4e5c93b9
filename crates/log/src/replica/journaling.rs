//! The tasks of the journal: which it was given, and what is durable once it has done them.

use std::collections::VecDeque;

use recado_proto::entry::Entry;
use recado_proto::id::{Moment, Op, View};
use recado_proto::planted::Planted;

use super::{Effect, ReplicaManager, Report, Role, Task};

/// The result of a journal task.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written {
    /// The log is durable up to this op.
    Upto(Op),
    /// This promise is durable.
    Promise(View),
    /// The vote is durable.
    Vote,
    /// The known boots are durable.
    Known,
}

/// What the journal was given and has not done yet, and what is durable of the log.
#[derive(Debug)]
pub(super) struct Journaling {
    /// The number of the last task given.
    pub(super) tasks: u64,
    /// The tasks that are not done yet, and what each makes durable.
    under_way: VecDeque<(u64, Written)>,
    /// Entries of the log that no task has yet.
    pub(super) unjournaled: Vec<Entry>,
    /// The end of the prefix of the current log that is fsynced.
    pub(super) durable: Op,
}

impl Journaling {
    /// A journal at rest that holds the log up to `durable`.
    pub(super) fn new(durable: Op) -> Journaling {
        Journaling { tasks: 0, under_way: VecDeque::new(), unjournaled: Vec::new(), durable }
    }

    /// The number of the next task, which makes `written` durable.
    fn give(&mut self, written: Written) -> u64 {
        self.tasks += 1;
        self.under_way.push_back((self.tasks, written));
        self.tasks
    }

    /// Takes the oldest task off that is under way, if it is done with `number`.
    fn take_done(&mut self, number: u64) -> Option<Written> {
        self.under_way.pop_front_if(|(first, _)| *first <= number).map(|(_, written)| written)
    }

    /// Promises that are not durable yet.
    pub(super) fn promises(&self) -> usize {
        self.under_way.iter().filter(|(_, written)| matches!(written, Written::Promise(_))).count()
    }

    /// Returns true if known boots that the journal was given are not durable yet.
    fn writes_known(&self) -> bool {
        self.under_way.iter().any(|(_, written)| matches!(written, Written::Known))
    }

    /// Entries on the disk beyond `upto` are not the entries of the log any more.
    pub(super) fn limit_durable(&mut self, upto: Op) {
        self.durable = self.durable.min(upto);
        for (_, written) in &mut self.under_way {
            if let Written::Upto(last) = written {
                *last = (*last).min(upto);
            }
        }
    }
}

impl ReplicaManager {
    /// Gives the journal a task that makes `written` durable.
    pub(super) fn journal(&mut self, now: Moment, task: Task, written: Written, out: &mut Vec<Effect>) {
        // A promise covers every append taken in before it, so those are written first.
        if !matches!(task, Task::Append { .. }) {
            self.journal_appended(now, out);
        }
        let number = self.journaling.give(written);
        self.pace.task_given(now);
        out.push(Effect::Journal { number, task });
    }

    /// Gives the journal the entries that were appended since the last call.
    pub(super) fn journal_appended(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if self.journaling.unjournaled.is_empty() {
            return;
        }
        let entries = std::mem::take(&mut self.journaling.unjournaled);
        let upto = self.log.last();
        self.journal(now, Task::Append { entries, commit: self.commit }, Written::Upto(upto), out);
    }

    /// Appends an entry to the log. The journal gets it with the next task.
    pub(super) fn append(&mut self, entry: Entry) {
        self.log.push(entry.clone());
        self.journaling.unjournaled.push(entry);
    }

    /// Drops `first` and everything after it, because the primary has another entry there.
    pub(super) fn replace_from(&mut self, first: Op, out: &mut Vec<Effect>) {
        self.report_overwritten(first, out);
        self.log.cut_from(first);
        if !self.planted.is(Planted::StaleCompletionCounts) {
            self.journaling.limit_durable(first.prev());
        }
    }

    /// Reports that the entries from `first` on are replaced, if they are durable.
    pub(super) fn report_overwritten(&self, first: Op, out: &mut Vec<Effect>) {
        let last = self.journaling.durable;
        if first <= last {
            out.push(Effect::Report(Report::Overwritten { view: self.promised, first, last }));
        }
    }

    pub(super) fn on_journaled(&mut self, now: Moment, number: u64, out: &mut Vec<Effect>) {
        let durable = self.journaling.durable;
        self.pace.turn_ended(now, self.journaling.tasks > number);
        while let Some(written) = self.journaling.take_done(number) {
            match written {
                Written::Upto(last) => self.journaling.durable = self.journaling.durable.max(last),
                Written::Promise(view) => self.on_promise_durable(now, view, out),
                Written::Vote => self.on_vote_durable(now, out),
                Written::Known => {
                    // Incarnations given to the journal after this task become durable with their own task.
                    if !self.journaling.writes_known() {
                        self.peers.mark_durable();
                        self.answer_learners(out);
                    }
                }
            }
        }
        if self.journaling.durable > durable {
            match &self.role {
                Role::Primary(_) => self.count(now, out),
                Role::Learner(_) | Role::Backup(_) | Role::Candidate(_) => self.acknowledge(false, out),
            }
        }
    }
}
