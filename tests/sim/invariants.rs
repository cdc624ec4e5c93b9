//! Invariants that must hold after every single event, whatever fails.

use std::collections::{BTreeMap, BTreeSet};

use recado_proto::codec;
use recado_proto::command::{Command, Stamped};
use recado_proto::entry::{Entry, EntryKind};
use recado_proto::envelope::Opened;
use recado_proto::id::{Incarnation, NodeId, Op, SessionId, View};
use recado_proto::packet::{OptionalFields, Reply, RoleName, ToPeer};
use recado_service::{Service, State};

use crate::ledger::{Cursors, LogTime};
use crate::server::Server;

/// Everything seen so far that the next event is checked against.
#[derive(Default)]
pub struct Invariants {
    /// The one log: every entry that any server applied.
    ledger: BTreeMap<Op, Entry>,
    /// The state at every op at which a server was seen.
    states: BTreeMap<Op, State>,
    primaries: BTreeMap<View, NodeId>,
    /// The highest view that each server has promised in a delivered datagram, or has shown by leading in it.
    delivered_promises: BTreeMap<NodeId, View>,
    /// The incarnation in which a server last started without its disk's promises. No promise of an earlier
    /// one counts.
    learned: BTreeMap<NodeId, Incarnation>,
    /// The highest view each server was ever in.
    promised: BTreeMap<NodeId, View>,
    marks: BTreeMap<NodeId, Marks>,
    time: LogTime,
    /// The most that any wall clock was ever ahead of the correct time, in ms.
    skew_max: i64,
    pub cursors: Cursors,
    /// The highest op acknowledged to a client, and the highest that any server counted as committed.
    acked: Op,
    committed: Op,
}

#[derive(Clone, Copy, Default)]
struct Marks {
    boot: u32,
    view: View,
    commit: Op,
    applied: Op,
}

impl Marks {
    /// Checks the values against earlier ones of the same boot.
    fn after(self, before: Marks) -> Result<(), String> {
        if self.commit < before.commit || self.applied < before.applied || self.view < before.view {
            return Err(format!(
                "went back: commit {} to {}, applied {} to {}, view {} to {}",
                before.commit, self.commit, before.applied, self.applied, before.view, self.view
            ));
        }
        if self.applied > self.commit {
            return Err(format!("applied {} beyond its commit {}", self.applied, self.commit));
        }
        Ok(())
    }
}

impl Invariants {
    /// The highest op that any server applied.
    pub fn last(&self) -> Op {
        self.ledger.keys().next_back().copied().unwrap_or(Op::ZERO)
    }

    /// The one log: every entry that any server applied.
    pub fn ledger(&self) -> &BTreeMap<Op, Entry> {
        &self.ledger
    }

    /// The highest op that was acknowledged to a client.
    pub fn acked(&self) -> Op {
        self.acked
    }

    /// Checks a server after its step; `right_ms` is the correct wall-clock time.
    ///
    /// # Errors
    /// The violated invariant.
    pub fn after_step(&mut self, server: &mut Server, right_ms: u64) -> Result<(), String> {
        if let Some(owed) = server.began_to_vote() {
            let process = server.process.as_ref();
            let applied = process.map_or(Op::ZERO, |process| process.node.applied());
            // After a restart it may not know yet that the entries in its log are committed.
            let view = |log: &BTreeMap<Op, Entry>| log.get(&owed).map(|entry| entry.view);
            let written = process.and_then(|process| view(&process.log));
            let held = if written.is_some() && written == view(&self.ledger) { owed } else { applied };
            holds_what_it_owes(server.id, owed, held)?;
        }
        self.skew_max = self.skew_max.max(server.skew_ms);
        let Some(process) = server.process.as_ref().or(server.dead.as_ref()) else { return Ok(()) };
        let (id, node) = (server.id, &process.node);
        if node.role() == RoleName::Primary {
            self.one_primary_a_view(id, node.promised())?;
        }
        let before =
            self.marks.get(&id).copied().filter(|marks| marks.boot == process.boot).unwrap_or_default();
        let now = Marks {
            boot: process.boot,
            view: node.promised(),
            commit: node.commit(),
            applied: node.applied(),
        };
        now.after(before).map_err(|why| format!("{id} {why}"))?;
        self.marks.insert(id, now);
        let promised = self.promised.entry(id).or_default();
        *promised = now.view.max(*promised);
        if now.applied > before.applied {
            let latest_ms = right_ms.saturating_add_signed(self.skew_max);
            self.equal_content(id, &process.log, before.applied, now.applied, latest_ms)?;
            self.equal_state(id, node.service())?;
            if server.process.is_some() {
                let sessions = node.service().sessions().map(|(session, ..)| session);
                knows_its_sessions(id, &process.known, sessions)?;
            }
        }
        Ok(())
    }

    /// Checks a process after its start.
    ///
    /// # Errors
    /// The promise that it forgot.
    pub fn after_start(&mut self, server: &Server) -> Result<(), String> {
        let Some(process) = &server.process else { return Ok(()) };
        // A learner has no promise; it says so, and does not vote.
        if process.node.role() == RoleName::Learner {
            self.delivered_promises.remove(&server.id);
            self.learned.insert(server.id, server.incarnation());
            return Ok(());
        }
        let delivered = self.delivered_promises.get(&server.id).copied().unwrap_or_default();
        let promised = process.node.promised();
        if promised < delivered {
            return Err(format!("{} promised {delivered} and remembers {promised}", server.id));
        }
        Ok(())
    }

    /// Returns true if this server's datagrams may contain a promise that has not been delivered yet.
    pub fn may_reveal_promise(&self, from: NodeId) -> bool {
        let view = |of: &BTreeMap<NodeId, View>| of.get(&from).copied().unwrap_or_default();
        view(&self.delivered_promises) < view(&self.promised)
    }

    /// The directory of a server was restored from a copy, which may take back promises, as the fault model
    /// states.
    pub fn set_back(&mut self, server: NodeId) {
        self.delivered_promises.remove(&server);
    }

    /// A server received a datagram of another: the promises in it count as delivered.
    pub fn on_delivered(&mut self, opened: &Opened<ToPeer>) {
        let Some(from) = opened.envelope.node else { return };
        if self.learned.get(&from).is_some_and(|learned| opened.envelope.incarnation < *learned) {
            return;
        }
        for packet in &opened.packets {
            if let ToPeer::Reply(Reply::Promise(promise)) = packet {
                let delivered = self.delivered_promises.entry(from).or_default();
                *delivered = promise.view.max(*delivered);
            }
        }
    }

    /// Checks an acknowledgement to a client: the op is a request, and a majority holds it.
    ///
    /// # Errors
    /// The violated invariant.
    pub fn acknowledged<'a>(
        &mut self,
        op: Op,
        quorum: usize,
        servers: impl Iterator<Item = &'a Server>,
    ) -> Result<(), String> {
        let Some(entry) = self.ledger.get(&op) else {
            return Err(format!("op {op} was acknowledged, and no server has applied it"));
        };
        let request = entry.kind == EntryKind::Command
            && codec::decode::<Stamped>(&entry.payload)
                .is_ok_and(|stamped| matches!(stamped.command, Command::Request { .. }));
        if !request {
            return Err(format!("op {op} was acknowledged, and is no request"));
        }
        durable_on(op, entry.view, quorum, servers).map_err(|why| format!("{why}, was acknowledged"))?;
        self.acked = self.acked.max(op);
        Ok(())
    }

    /// Checks the entry at `op`, of `view`, that a server counts as committed: a majority holds it.
    ///
    /// # Errors
    /// The servers that hold it, if they are no majority.
    pub fn committed<'a>(
        &mut self,
        (op, view): (Op, View),
        quorum: usize,
        servers: impl Iterator<Item = &'a Server>,
    ) -> Result<(), String> {
        if op <= self.committed {
            return Ok(());
        }
        self.committed = op;
        durable_on(op, view, quorum, servers).map_err(|why| format!("{why}, was committed"))
    }

    fn one_primary_a_view(&mut self, id: NodeId, view: View) -> Result<(), String> {
        if view.primary() != Some(id) {
            return Err(format!("{id} is primary in view {view}"));
        }
        // A majority has promised it this view, so its own promise counts as delivered.
        let delivered = self.delivered_promises.entry(id).or_default();
        *delivered = view.max(*delivered);
        match *self.primaries.entry(view).or_insert(id) {
            first if first == id => Ok(()),
            first => Err(format!("{id} and {first} are both primary in view {view}")),
        }
    }

    fn equal_content(
        &mut self,
        id: NodeId,
        log: &BTreeMap<Op, Entry>,
        after: Op,
        upto: Op,
        latest_ms: u64,
    ) -> Result<(), String> {
        for (op, entry) in log.range(after.next()..=upto) {
            let Some(known) = self.ledger.get(op) else {
                self.ledger.insert(*op, entry.clone());
                self.read(entry, latest_ms)?;
                continue;
            };
            if known != entry {
                return Err(format!(
                    "{id} applied another op {op}: of view {} with {} bytes, elsewhere of view {} with {} bytes",
                    entry.view,
                    entry.payload.len(),
                    known.view,
                    known.payload.len()
                ));
            }
        }
        Ok(())
    }

    /// Reads an entry of the log that is seen for the first time.
    fn read(&mut self, entry: &Entry, latest_ms: u64) -> Result<(), String> {
        match entry.kind {
            EntryKind::ViewStart => return Ok(()),
            EntryKind::Members | EntryKind::Unknown(_) => {
                return Err(format!("op {} is {:?}, and no server proposes one", entry.op, entry.kind));
            }
            EntryKind::Command => {}
        }
        let stamped: Stamped = codec::decode(&entry.payload).map_err(|error| error.to_string())?;
        self.time.stamped(entry.op, stamped.unix_ms, latest_ms)?;
        if let Command::SessionOpen(asked) = stamped.command {
            self.cursors.asked_in(asked.device, entry.op);
        }
        Ok(())
    }

    fn equal_state(&mut self, id: NodeId, service: &Service) -> Result<(), String> {
        let (op, state) = (service.applied(), service.state());
        match self.states.get(&op) {
            Some(known) if *known != state => Err(format!("{id} has another state at op {op}")),
            Some(_) => Ok(()),
            None => {
                self.states.insert(op, state);
                for (session, device, ..) in service.sessions() {
                    if let Some(view) = service.session(session) {
                        self.cursors.stands(device, op, view.cursor)?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// Checks that a majority holds, or held before it lost its disk, the op of this view durably. What a server
/// fsynced as a learner does not count.
fn durable_on<'a>(
    op: Op,
    view: View,
    quorum: usize,
    servers: impl Iterator<Item = &'a Server>,
) -> Result<(), String> {
    let holds = |server: &&Server| server.held_upto >= op || server.held.contains(&(op, view));
    let holders: Vec<NodeId> = servers.filter(holds).map(|server| server.id).collect();
    if holders.len() >= quorum {
        return Ok(());
    }
    Err(format!("op {op} of view {view}, durable only on {holders:?}"))
}

/// Checks a server that lost its disk: it votes only once it holds everything that was acknowledged when it
/// became a learner.
pub fn holds_what_it_owes(id: NodeId, owed: Op, held: Op) -> Result<(), String> {
    if held >= owed {
        return Ok(());
    }
    Err(format!("{id} votes and holds up to {held}; {owed} was acknowledged before it lost its disk"))
}

/// Checks that a server can open the datagrams of the sessions in its state, and of no others.
fn knows_its_sessions(
    id: NodeId,
    known: &BTreeSet<SessionId>,
    sessions: impl Iterator<Item = SessionId>,
) -> Result<(), String> {
    let sessions: BTreeSet<SessionId> = sessions.collect();
    match known.symmetric_difference(&sessions).next() {
        None => Ok(()),
        Some(odd) if sessions.contains(odd) => {
            Err(format!("{id} does not know session {odd:?} of its state"))
        }
        Some(odd) => Err(format!("{id} still knows session {odd:?}, which is over")),
    }
}

#[cfg(test)]
mod tests {
    use recado::config::{Limits, PlantedBug};
    use recado_proto::command::Request;
    use recado_proto::envelope::{Class, Envelope, Header};
    use recado_proto::id::{Incarnation, NodeId, Seq, Topic};
    use recado_proto::packet::{FollowChange, Promise};

    use super::*;

    use crate::faults::Plan;
    use crate::population;
    use crate::rng::Rng;
    use crate::server::Step;

    const ME: NodeId = NodeId(1);
    const VIEW: View = View(1 << 16 | 1);
    const LATER: View = View(2 << 16 | 2);

    /// A running server: a voter, or one whose disk was lost.
    fn running(id: u16, wiped: bool) -> Server {
        let mut server = population::server(&Plan::quiet(), NodeId(id));
        if wiped {
            server.wipe();
        }
        let mut rng = Rng::seeded(1);
        let mut step = Step { now: 0, rng: &mut rng, out: Vec::new() };
        server.start(&mut step);
        assert_eq!(server.role(), Some(if wiped { RoleName::Learner } else { RoleName::Backup }));
        server
    }

    fn entry(op: u64, view: View, command: Option<Command>) -> Entry {
        let stamped = command.map(|command| codec::encode(&Stamped { unix_ms: 0, command }));
        let kind = if stamped.is_some() { EntryKind::Command } else { EntryKind::ViewStart };
        Entry { op: Op(op), view, kind, payload: stamped.unwrap_or_default().into() }
    }

    fn request() -> Option<Command> {
        let (session, seq, answered_below) = (SessionId(Op(1)), Seq(1), Seq(1));
        let topic = Topic::Channel(population::channel("ops"));
        let request = Request::Follow { topic, change: FollowChange::Add };
        Some(Command::Request {
            session,
            seq,
            answered_below,
            request,
            digest: 0,
            may_make: true,
            options: OptionalFields::NONE,
        })
    }

    #[test]
    fn an_op_that_is_committed_and_durable_on_no_majority_is_found() {
        let (mut one, mut two) = (running(1, false), running(2, false));
        one.holds([(Op(5), VIEW)]);
        let commits =
            |servers: [&Server; 3]| Invariants::default().committed((Op(5), VIEW), 2, servers.into_iter());
        let three = running(3, false);
        assert!(commits([&one, &two, &three]).unwrap_err().contains("durable only on [NodeId(1)]"));
        // The same op number in another view does not count.
        two.holds([(Op(5), LATER)]);
        assert!(commits([&one, &two, &three]).is_err());
        two.holds([(Op(5), VIEW)]);
        assert_eq!(commits([&one, &two, &three]), Ok(()));
    }

    #[test]
    fn what_a_learner_has_copied_counts_only_once_it_votes() {
        let mut voter = running(1, false);
        voter.holds([(Op(5), VIEW)]);
        let mut learner = running(2, true);
        learner.holds([(Op(5), VIEW)]);
        learner.holds_upto(Op(5));
        learner.must_hold_before_vote = Some(Op(5));
        assert_eq!(learner.began_to_vote(), None, "it learns");
        let commits = |learner: &Server| {
            Invariants::default().committed((Op(5), VIEW), 2, [&voter, learner].into_iter())
        };
        assert!(commits(&learner).unwrap_err().contains("durable only on [NodeId(1)]"));
        // After its vote: a voting process, with the entries that the learner copied.
        learner.process = running(2, false).process;
        assert_eq!(learner.began_to_vote(), Some(Op(5)), "once");
        assert_eq!(learner.began_to_vote(), None);
        assert_eq!(commits(&learner), Ok(()));
    }

    #[test]
    fn a_lost_disk_takes_along_what_was_copied_onto_it() {
        let mut learner = running(2, true);
        learner.holds([(Op(5), VIEW)]);
        learner.holds_upto(Op(5));
        learner.wipe();
        learner.process = running(2, false).process;
        learner.began_to_vote();
        assert!(durable_on(Op(5), VIEW, 1, [&learner].into_iter()).is_err());
    }

    #[test]
    fn an_acknowledgement_of_nothing_of_no_request_or_of_what_no_majority_has_is_found() {
        let mut one = running(1, false);
        one.holds([(Op(2), VIEW), (Op(3), VIEW)]);
        let mut seen = Invariants::default();
        let acks = |seen: &mut Invariants, op| seen.acknowledged(Op(op), 1, [&one].into_iter());
        assert!(acks(&mut seen, 2).unwrap_err().contains("no server has applied"));
        let log = [entry(2, VIEW, None), entry(3, VIEW, request()), entry(4, VIEW, request())];
        seen.ledger.extend(log.map(|entry| (entry.op, entry)));
        assert!(acks(&mut seen, 2).unwrap_err().contains("is no request"));
        assert_eq!(acks(&mut seen, 3), Ok(()));
        assert!(acks(&mut seen, 4).unwrap_err().contains("durable only on []"));
    }

    #[test]
    fn two_primaries_of_one_view_are_found_and_one_of_another_server_s_view() {
        let mut seen = Invariants::default();
        assert_eq!(seen.one_primary_a_view(ME, VIEW), Ok(()));
        assert!(seen.one_primary_a_view(NodeId(2), VIEW).unwrap_err().contains("is primary in view"));
        // This cannot happen by itself, because a view names its only possible primary.
        seen.primaries.insert(LATER, ME);
        assert!(seen.one_primary_a_view(NodeId(2), LATER).unwrap_err().contains("both primary"));
    }

    #[test]
    fn a_server_that_goes_back_or_ahead_of_its_commit_is_found() {
        let marks = |view, commit, applied| Marks { boot: 1, view, commit: Op(commit), applied: Op(applied) };
        let before = marks(VIEW, 5, 4);
        assert_eq!(marks(LATER, 6, 6).after(before), Ok(()));
        for back in [marks(View::ZERO, 5, 4), marks(VIEW, 4, 4), marks(VIEW, 5, 3)] {
            assert!(back.after(before).unwrap_err().contains("went back"));
        }
        assert!(marks(VIEW, 5, 6).after(before).unwrap_err().contains("beyond its commit"));
        // The check also runs after each step.
        let (mut seen, mut server) = (Invariants::default(), running(1, false));
        assert_eq!(seen.after_step(&mut server, 0), Ok(()));
        seen.marks.get_mut(&ME).unwrap().commit = Op(1);
        assert!(seen.after_step(&mut server, 0).unwrap_err().contains("went back"));
    }

    #[test]
    fn another_content_or_another_state_at_an_op_is_found() {
        let mut seen = Invariants::default();
        let log = |entry: Entry| BTreeMap::from([(entry.op, entry)]);
        let mut holds = |entry| seen.equal_content(ME, &log(entry), Op::ZERO, Op(1), 0);
        assert_eq!(holds(entry(1, VIEW, None)), Ok(()));
        assert_eq!(holds(entry(1, VIEW, None)), Ok(()));
        assert!(holds(entry(1, LATER, None)).unwrap_err().contains("another op 1"));
        assert!(holds(entry(1, VIEW, request())).unwrap_err().contains("another op 1"));

        let at_one = |unix_ms| {
            let mut service = Service::new(State::default(), Limits::default(), PlantedBug::default());
            let command = Command::SessionClose { session: SessionId(Op(9)) };
            service.apply(Op(1), Some(&Stamped { unix_ms, command }), &mut Vec::new());
            service
        };
        assert_eq!(seen.equal_state(ME, &at_one(5)), Ok(()));
        assert_eq!(seen.equal_state(NodeId(2), &at_one(5)), Ok(()));
        assert!(seen.equal_state(NodeId(2), &at_one(6)).unwrap_err().contains("another state at op 1"));
    }

    #[test]
    fn a_promise_that_was_sent_and_then_forgotten_is_found() {
        let (mut seen, server) = (Invariants::default(), running(1, false));
        assert_eq!(seen.after_start(&server), Ok(()));
        let promise = Promise {
            view: VIEW,
            last_view: View::ZERO,
            last_op: Op::ZERO,
            commit: Op::ZERO,
            index: Vec::new(),
            unknown: None,
            incarnations: Vec::new(),
            disk_ms: 0,
            members_op: Op::ZERO,
        };
        let envelope = Envelope {
            class: Class::Peer,
            cluster: population::CLUSTER,
            session: SessionId::default(),
            node: Some(ME),
            incarnation: Incarnation(1),
            number: 1,
        };
        let packets = vec![ToPeer::Reply(Reply::Promise(promise))];
        let mut opened = Opened { envelope, header: Header::default(), packets };
        seen.on_delivered(&opened);
        assert!(seen.after_start(&server).unwrap_err().contains("remembers"));
        // A learner has no promise, and does not vote.
        assert_eq!(seen.after_start(&running(1, true)), Ok(()));
        // What its lost disk had promised is delivered late, and what it promises itself counts again.
        opened.envelope.incarnation = Incarnation(0);
        seen.on_delivered(&opened);
        assert_eq!(seen.after_start(&server), Ok(()));
        opened.envelope.incarnation = Incarnation(1);
        seen.on_delivered(&opened);
        assert!(seen.after_start(&server).unwrap_err().contains("remembers"));
    }

    #[test]
    fn a_vote_before_what_was_acknowledged_is_held_is_found() {
        assert_eq!(holds_what_it_owes(ME, Op(5), Op(5)), Ok(()));
        assert!(holds_what_it_owes(ME, Op(5), Op(4)).is_err());
    }

    #[test]
    fn a_session_unknown_or_known_for_too_long_is_found() {
        let (one, two) = (SessionId(Op(1)), SessionId(Op(2)));
        let known = BTreeSet::from([one]);
        assert_eq!(knows_its_sessions(ME, &known, [one].into_iter()), Ok(()));
        let error = knows_its_sessions(ME, &known, [one, two].into_iter()).unwrap_err();
        assert!(error.contains("does not know"), "{error}");
        assert!(knows_its_sessions(ME, &known, [].into_iter()).unwrap_err().contains("still knows"));
    }
}
