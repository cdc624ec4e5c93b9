//! A second ordered log, in one process: a vector. By its seed it delays proposals, and if it is unreliable,
//! it also loses, doubles and reorders them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use recado_log::ordered::{Committed, Status};
use recado_proto::entropy::Entropy;

use super::*;

/// The longest time between two deadlines.
const IDLE: Duration = Duration::from_millis(40);

/// The longest delay of a proposal, in ms.
const DELAY_MAX_MS: u64 = 8;

/// The numbers of faults that a log has made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) lost: u32,
    pub(super) doubled: u32,
    pub(super) overtaken: u32,
}

/// A proposal that is not committed.
#[derive(Debug)]
struct Proposal {
    /// The time of its commit, once the log was flushed.
    due: Option<Moment>,
    payload: Arc<[u8]>,
    /// The ticket, until that is void.
    ticket: Option<Ticket>,
}

/// A log of one process, which leads from the start.
#[derive(Debug)]
pub(super) struct VectorLog {
    entries: Vec<Entry>,
    /// The number of entries that snapshots cover, which are not in `entries` any more.
    trimmed: u64,
    proposals: Vec<Proposal>,
    /// The tickets of committed entries that are not taken yet.
    committed: BTreeMap<Op, Ticket>,
    tickets: u64,
    events: VecDeque<Event<Infallible>>,
    now: Moment,
    appended_bytes: u64,
    stopped: bool,
    entropy: Entropy,
    unreliable: bool,
    pub(super) faults: Faults,
}

impl VectorLog {
    pub(super) fn new(seed: u64, unreliable: bool) -> VectorLog {
        let mut log = VectorLog {
            entries: Vec::new(),
            trimmed: 0,
            proposals: Vec::new(),
            committed: BTreeMap::new(),
            tickets: 0,
            events: VecDeque::new(),
            now: Moment(0),
            appended_bytes: 0,
            stopped: false,
            entropy: Entropy::from_number(seed),
            unreliable,
            faults: Faults::default(),
        };
        // An entry of its own, as each view of the bully engine begins with one.
        log.commit(Arc::default(), None);
        log.events.push_back(Event::Active(Self::view()));
        log
    }

    fn view() -> View {
        View::new(1, ME)
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.entropy.number() % below
    }

    /// Returns true for `percent` of the draws of an unreliable log.
    fn fails(&mut self, percent: u64) -> bool {
        self.unreliable && self.draw(100) < percent
    }

    /// The commands in the log.
    pub(super) fn commands(&self) -> Vec<Command> {
        let payloads = self.entries.iter().map(|entry| &entry.payload).filter(|payload| !payload.is_empty());
        payloads.map(|payload| codec::decode::<Stamped>(payload).unwrap().command).collect()
    }

    fn last(&self) -> Op {
        Op(self.trimmed + self.entries.len() as u64)
    }

    fn commit(&mut self, payload: Arc<[u8]>, ticket: Option<Ticket>) {
        let op = self.last().next();
        let kind = if payload.is_empty() { EntryKind::ViewStart } else { EntryKind::Command };
        self.entries.push(Entry { op, view: Self::view(), kind, payload });
        self.committed.extend(ticket.map(|ticket| (op, ticket)));
        self.events.push_back(Event::Committed(op));
    }

    /// Makes the tickets of these proposals and of all after them void.
    fn void_from(&mut self, index: usize) {
        let void: Vec<Ticket> =
            self.proposals[index..].iter_mut().filter_map(|one| one.ticket.take()).collect();
        if let Some(from) = void.first() {
            self.events.push_back(Event::Lost { from: *from });
        }
    }

    /// Commits the proposals that are due. If one overtakes others, the tickets of all are void, since they
    /// would come back in another order than they were given in.
    fn commit_due(&mut self) {
        loop {
            let dues = self.proposals.iter().enumerate().filter_map(|(at, one)| one.due.map(|due| (due, at)));
            let Some((_, at)) = dues.min().filter(|(due, _)| *due <= self.now) else { return };
            if self.fails(3) {
                self.faults.lost += 1;
                self.void_from(at);
                self.proposals.remove(at);
                continue;
            }
            if at > 0 {
                self.faults.overtaken += 1;
                self.void_from(0);
            }
            let Proposal { payload, ticket, .. } = self.proposals.remove(at);
            if self.fails(5) {
                self.faults.doubled += 1;
                let again = Proposal { due: None, payload: payload.clone(), ticket: None };
                self.proposals.push(again);
            }
            self.commit(payload, ticket);
        }
    }
}

impl OrderedLog for VectorLog {
    type Input = Infallible;
    type Effect = Infallible;

    fn advance(&mut self, now: Moment) {
        self.now = now;
        self.commit_due();
    }

    fn handle(&mut self, _: Moment, input: Infallible) {
        match input {}
    }

    fn settle(&mut self, _: Moment) {}

    fn propose(&mut self, payload: Arc<[u8]>) -> Option<Ticket> {
        if self.stopped {
            return None;
        }
        self.tickets += 1;
        self.appended_bytes += payload.len() as u64;
        let ticket = Ticket(self.tickets);
        self.proposals.push(Proposal { due: None, payload, ticket: Some(ticket) });
        Some(ticket)
    }

    fn flush(&mut self, now: Moment) {
        let mut earliest = self.proposals.iter().filter_map(|one| one.due).max().unwrap_or_default();
        for at in 0..self.proposals.len() {
            if self.proposals[at].due.is_some() {
                continue;
            }
            // Whole milliseconds, so that many proposals are due at the same time.
            let mut due = Moment((now.0 / 1_000 + 1 + self.draw(DELAY_MAX_MS)) * 1_000);
            if !self.fails(20) {
                due = due.max(earliest);
                earliest = due;
            }
            self.proposals[at].due = Some(due);
        }
    }

    fn confirm_lead(&mut self, _: Moment) {}

    fn install(&mut self, _: Moment, _: u64) -> bool {
        false
    }

    fn refuse_snapshot(&mut self, _: u64) -> bool {
        false
    }

    fn take(&mut self, applied: Op) -> Option<Committed> {
        let op = applied.next();
        let payload = self.entry(op)?.payload.clone();
        Some(Committed { op, payload, ticket: self.committed.remove(&op) })
    }

    fn trim(&mut self, op: Op, most: usize) -> bool {
        let covered = (op.0.saturating_sub(self.trimmed) as usize).min(self.entries.len());
        let dropped = covered.min(most);
        self.entries.drain(..dropped);
        self.trimmed += dropped as u64;
        dropped == covered
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.events.push_back(Event::Stopped);
    }

    fn poll(&mut self, _: Moment) -> Option<Event<Infallible>> {
        self.events.pop_front()
    }

    fn next_deadline(&self) -> Moment {
        let due = self.proposals.iter().filter_map(|one| one.due).min();
        due.map_or(self.now + IDLE, |due| due.min(self.now + IDLE))
    }

    fn status(&self) -> Status {
        let commit = self.last();
        Status {
            role: RoleName::Primary,
            view: Self::view(),
            active: Self::view(),
            accepts: !self.stopped,
            commit,
            last: Op(commit.0 + self.proposals.len() as u64),
            durable: commit,
            appended_bytes: self.appended_bytes,
            led: Some(self.now),
            fetched: None,
        }
    }

    fn catches_up(&self) -> bool {
        false
    }

    fn entry(&self, op: Op) -> Option<&Entry> {
        let at = op.0.checked_sub(self.trimmed + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }
}

/// The surroundings of a log that needs none.
pub(super) struct Alone;

impl Surroundings for Alone {
    type Log = VectorLog;

    fn rig() -> Rig<Alone> {
        let (node, effects) = node(config(), VectorLog::new(1, false), Rig::<Alone>::START);
        Rig::around(node, Alone, effects)
    }

    fn perform(&mut self, _: Clock, effect: Infallible) -> Option<Infallible> {
        match effect {}
    }

    fn lead(_: &mut Rig<Alone>) {}

    fn answer(rig: &mut Rig<Alone>) {
        rig.flush();
    }
}

/// A node over this log, with an empty state.
pub(super) fn node(
    config: Config,
    log: VectorLog,
    clock: Clock,
) -> (Node<VectorLog>, Vec<Effect<Infallible>>) {
    let service = empty(&config);
    let handshake_config = handshake_config(ME.0, 1);
    let boot = Boot { incarnation: handshake_config.incarnation, keys: handshake_config.keys, service };
    let mut effects = Vec::new();
    let node = Node::new(config, boot, log, clock, &mut effects);
    (node, effects)
}
