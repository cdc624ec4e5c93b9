//! The protocol as a transition system: election, promises, cast, commit, learner.
//!
//! Each [`Action`] names the function of `recado_log::replica` that it models. Simplifications only add
//! behaviours: a server may prepare at any moment (no clock, and outside of [`Scope::suspecting`] no probe),
//! every message may arrive at any later moment, any number of times, or never, and a restart is a crash
//! followed at once by a start.

use std::fmt;
use std::sync::Arc;

use recado_proto::id::{NodeId, View};
use stateright::{Model, Property};

/// An entry of the log: its view, and its command (0: the ViewStart). Its op is its position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    pub view: View,
    pub command: u8,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.command {
            0 => write!(f, "start {}", self.view),
            command => write!(f, "command {command} of {}", self.view),
        }
    }
}

pub type Log = Vec<Entry>;

fn last_view(log: &Log) -> View {
    log.last().map_or(View::ZERO, |entry| entry.view)
}

/// The last op at which both logs hold an entry of the same view (`Log::common`).
fn joint(one: &Log, other: &Log) -> usize {
    let same = |op: &usize| one[op - 1].view == other[op - 1].view;
    (1..=one.len().min(other.len())).rev().find(same).unwrap_or(0)
}

/// The state that survives a crash: exactly what an fsync has confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    pub voter: bool,
    pub promised: View,
    pub log: Log,
    /// The crash vector: the newest incarnation of each server that has asked with LEARN.
    pub known_incarnations: Vec<u8>,
}

/// The pending tasks of the journal, in order (`replica::Task`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    Append(usize, Entry),
    Promise(View),
    Vote(View),
    Incarnation(usize, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A server without a vote, and the commit that it must reach to get one.
    Learner(Option<usize>),
    Backup,
    Candidate,
    /// The op at which its view begins.
    Primary(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// The number of disks that this server has lost: the part of the incarnation that matters here.
    pub incarnation: u8,
    pub disk: Disk,
    pub tasks: Vec<Task>,
    pub role: Role,
    pub promised: View,
    pub log: Log,
    pub matched: usize,
    pub commit: usize,
    pub known_incarnations: Vec<u8>,
    /// The commit at the start of this boot. The keys of a boot open nothing that was sent before.
    pub commit_at_start: usize,
    pub suspects: bool,
}

impl Server {
    fn start(life: u8, born: usize, disk: Disk) -> Server {
        Server {
            incarnation: life,
            role: if disk.voter { Role::Backup } else { Role::Learner(None) },
            promised: disk.promised.max(last_view(&disk.log)),
            log: disk.log.clone(),
            known_incarnations: disk.known_incarnations.clone(),
            disk,
            tasks: Vec::new(),
            matched: 0,
            commit: 0,
            commit_at_start: born,
            suspects: false,
        }
    }

    /// The end of the fsynced prefix of the current log (`ReplicaManager::durable`).
    fn durable(&self) -> usize {
        self.log.iter().zip(&self.disk.log).take_while(|(memory, disk)| memory == disk).count()
    }

    pub fn votes(&self) -> bool {
        !matches!(self.role, Role::Learner(_))
    }

    fn append(&mut self, op: usize, entry: Entry) {
        self.log.truncate(op - 1);
        self.log.push(entry);
        self.tasks.push(Task::Append(op, entry));
    }

    /// `ReplicaManager::raise_promised`.
    fn raise_promised(&mut self, view: View, role: Role) {
        self.promised = view;
        self.matched = self.commit;
        self.tasks.push(Task::Promise(view));
        self.suspects = false;
        if self.votes() {
            self.role = role;
        }
    }
}

/// REPLY{Promise}.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Promise {
    pub view: View,
    pub from: usize,
    pub incarnation: u8,
    pub log: Log,
    pub known_incarnations: Vec<u8>,
}

/// Everything that the primary of a view has cast, and the commit that it has sent: ENTRIES and HEARTBEAT.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cast {
    pub view: View,
    pub log: Log,
    pub start: usize,
    pub commit: usize,
}

/// ENTRIES_ACK: the highest one of each incarnation and view.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ack {
    pub view: View,
    pub from: usize,
    pub incarnation: u8,
    pub durable: usize,
}

/// LEARN_OK.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LearnOk {
    pub from: usize,
    pub to: usize,
    pub incarnation: u8,
    pub promised: View,
    /// Its commit, if it is the active primary of `promised`.
    pub active: Option<usize>,
}

/// All messages ever sent. None is removed: a late, repeated or lost message is one that a server has not
/// taken yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Network {
    /// ELECTION{Prepare}.
    pub prepares: Vec<View>,
    pub promises: Vec<Promise>,
    pub casts: Vec<Cast>,
    pub acks: Vec<Ack>,
    pub learn_oks: Vec<LearnOk>,
    /// REPLY{Agree}: the pairs of servers that suspect together.
    pub agreed: Vec<(usize, usize)>,
}

fn insert<T: Ord>(set: &mut Vec<T>, item: T) {
    if let Err(at) = set.binary_search(&item) {
        set.insert(at, item);
    }
}

impl Network {
    pub fn cast(&self, view: View) -> Option<&Cast> {
        self.casts.iter().find(|cast| cast.view == view)
    }

    fn cast_mut(&mut self, view: View) -> Option<&mut Cast> {
        self.casts.iter_mut().find(|cast| cast.view == view)
    }
}

/// Global history that no server knows, for the properties.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// Every entry that a primary has counted as committed, and the view in which it did.
    pub committed: Vec<(Entry, View)>,
    /// True if a primary counted another entry as committed at the same op.
    pub changed: bool,
    /// True if a view was opened twice.
    pub reopened: bool,
    pub elections: u8,
    pub crashes: u8,
    pub wipes: u8,
    pub commands: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub servers: Vec<Arc<Server>>,
    pub network: Arc<Network>,
    pub history: History,
}

/// An error, as the production code could contain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// REPLY{Promise} leaves before the promise is durable.
    PromiseNotDurable,
    /// Promises and acknowledgements of an incarnation that is known to be over count.
    NoCrashVector,
    /// LEARN is answered before the new incarnation is durable at the server that answers.
    IncarnationsNotDurable,
    /// A promise does not contain the incarnations that its sender knows.
    IncarnationsNotSent,
    /// Entries of older views are committed by counting.
    CommitOlderView,
    /// The candidate skips the probe.
    NoProbe,
    /// The winner keeps its own log.
    KeepOwnLog,
    /// The longest log wins, whatever its view.
    LongestLogWins,
    /// An empty disk votes at once.
    LearnerVotesAtOnce,
    /// The commit to reach is that of any heartbeat, however old.
    LearnerTrustsOldHeartbeat,
    /// Durable entries are acknowledged, matched or not.
    AckUnmatched,
    /// Matched entries are acknowledged, durable or not.
    AckOnReceipt,
    /// A restarted primary continues in its view.
    RestartAsPrimary,
}

/// The bounds of a behaviour, and the mutation applied in it.
#[derive(Clone, Debug)]
pub struct Scope {
    pub servers: usize,
    /// The number of candidacies (PREPAREs of a new view).
    pub elections: u8,
    /// The highest round; the lowest is 1.
    pub rounds: u64,
    /// The number of crashes that keep the disk.
    pub crashes: u8,
    /// The number of crashes that lose the disk.
    pub wipes: u8,
    pub commands: u8,
    /// The servers that may ever become primary.
    pub candidates: Vec<usize>,
    /// The servers that may lose their disk.
    pub wiped: Vec<usize>,
    /// The servers that may crash without losing it.
    pub crashing: Vec<usize>,
    /// Pairs that never hear each other.
    pub cut: Vec<(usize, usize)>,
    /// If set, the probe is modelled, and only these servers ever suspect the primary.
    pub suspecting: Option<Vec<usize>>,
    /// True if backups learn the commit. Otherwise they only know less. Learners always learn it.
    pub telling: bool,
    /// True if it begins with the highest server as active primary of round 1, known to all.
    pub settled: bool,
    pub mutation: Option<Mutation>,
}

/// A step of one server.
#[derive(Clone, PartialEq, Eq)]
pub struct Action {
    at: usize,
    step: Step,
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server {}: {:?}", self.at + 1, self.step)
    }
}

/// A step of the protocol, with the function of `replica` that does it.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// `suspect`: a time-out.
    Suspect,
    /// `on_probe`: agrees with this server, since it suspects too.
    Agree(usize),
    /// `prepare`.
    Prepare(View),
    /// `on_prepare`, with a view above what it promised.
    Promise(View),
    /// `on_prepare`, with the view that it promised: repeats the promise with what is durable.
    PromiseAgain,
    /// `on_fetched`, for one entry, with these promises beside its own.
    Fetch(Vec<Voter>),
    /// `open`, with these promises beside its own.
    Open(Vec<Voter>),
    /// `propose` and `cast`.
    Propose,
    /// `on_entries`: matches the cast of this view, and takes its next entry.
    Accept(View),
    /// `on_heartbeat`: learns the commit.
    HearCommit,
    /// `count` and `try_activate`.
    Count,
    /// `on_journaled`: the oldest task is done.
    Fsync,
    /// `on_learn`: hears of the new incarnation of this server, and answers.
    Learn(usize),
    /// `on_learn_ok`: the commit to reach.
    Goal,
    /// `learner_on_time`: the commit is reached.
    Vote,
    /// The process dies and restarts.
    Crash,
    /// The process dies with its disk, and restarts on an empty one.
    Wipe,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |set: &[Voter]| {
            set.iter()
                .map(|voter| format!("{} (life {})", voter.0 + 1, voter.1))
                .collect::<Vec<_>>()
                .join(", ")
        };
        match self {
            Step::Suspect => write!(f, "suspects the primary"),
            Step::Agree(other) => write!(f, "agrees with server {}", other + 1),
            Step::Prepare(view) => write!(f, "prepares view {view}"),
            Step::Promise(view) => write!(f, "promises view {view}"),
            Step::PromiseAgain => write!(f, "says its promise again"),
            Step::Fetch(set) => write!(f, "fetches an entry, with the promise of {}", list(set)),
            Step::Open(set) => write!(f, "opens its view, with the promise of {}", list(set)),
            Step::Propose => write!(f, "takes a command"),
            Step::Accept(view) => write!(f, "accepts from the primary of view {view}"),
            Step::HearCommit => write!(f, "hears what is committed"),
            Step::Count => write!(f, "counts as committed what a majority holds"),
            Step::Fsync => write!(f, "has fsynced its oldest task"),
            Step::Learn(other) => write!(f, "is asked by the new life of server {}", other + 1),
            Step::Goal => write!(f, "hears the commit it has to reach"),
            Step::Vote => write!(f, "takes its vote back"),
            Step::Crash => write!(f, "crashes"),
            Step::Wipe => write!(f, "crashes and loses its disk"),
        }
    }
}

/// A server in one of its incarnations.
pub type Voter = (usize, u8);

impl Scope {
    fn quorum(&self) -> usize {
        self.servers / 2 + 1
    }

    fn makes(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    fn hears(&self, one: usize, other: usize) -> bool {
        one != other && !self.cut.contains(&(one, other)) && !self.cut.contains(&(other, one))
    }

    fn view(&self, round: u64, server: usize) -> View {
        View::new(round, NodeId(server as u16 + 1))
    }

    fn primary_of(&self, view: View) -> usize {
        view.primary().map_or(usize::MAX, |node| usize::from(node.0) - 1)
    }

    /// Returns the sets of other servers' promises of `view` that make a quorum with this server's own. No
    /// promise in them is of an incarnation known to be over: `try_open` after `forget_promise_of`.
    fn quorums<'a>(&self, state: &'a State, at: usize, view: View) -> Vec<Vec<&'a Promise>> {
        let mut sets: Vec<Vec<&Promise>> = vec![Vec::new()];
        let mut full = Vec::new();
        while let Some(set) = sets.pop() {
            if set.len() + 1 == self.quorum() {
                full.push(set);
                continue;
            }
            let next = set.last().map_or(0, |promise| promise.from + 1);
            for promise in &state.network.promises {
                if promise.view == view && promise.from >= next && self.hears(at, promise.from) {
                    let mut more = set.clone();
                    more.push(promise);
                    sets.push(more);
                }
            }
        }
        if !self.makes(Mutation::NoCrashVector) {
            let own = &state.servers[at].known_incarnations;
            full.retain(|set| {
                let told = set.iter().map(|promise| &promise.known_incarnations);
                let over = |promise: &&Promise| {
                    own[promise.from] > promise.incarnation
                        || told.clone().any(|lives| lives[promise.from] > promise.incarnation)
                };
                !set.iter().any(over)
            });
        }
        full
    }

    /// `choose`: the best log among the promises and its own.
    fn choose<'a>(&self, server: &'a Server, set: &[&'a Promise]) -> &'a Log {
        if self.makes(Mutation::KeepOwnLog) {
            return &server.log;
        }
        let rank = |log: &Log| match self.mutation {
            Some(Mutation::LongestLogWins) => (View::ZERO, log.len()),
            _ => (last_view(log), log.len()),
        };
        // Among equal logs the last one wins, which is its own.
        let logs = set.iter().map(|promise| &promise.log).chain([&server.log]);
        logs.max_by_key(|log| rank(log)).unwrap_or(&server.log)
    }

    fn promise(&self, at: usize, server: &Server) -> Promise {
        let told = !self.makes(Mutation::IncarnationsNotSent);
        Promise {
            view: server.promised,
            from: at,
            incarnation: server.incarnation,
            log: server.log.clone(),
            known_incarnations: if told { server.known_incarnations.clone() } else { vec![0; self.servers] },
        }
    }

    /// `acknowledge`: the part of the log that is durable and matched with the primary of the promised view.
    fn acknowledge(&self, at: usize, server: &Server, network: &mut Network) {
        let upto = match self.mutation {
            Some(Mutation::AckUnmatched) => server.durable(),
            Some(Mutation::AckOnReceipt) => server.matched,
            _ => server.durable().min(server.matched),
        };
        let view = server.promised;
        let follows = server.role == Role::Backup && network.cast(view).is_some();
        if !follows || upto == 0 || self.primary_of(view) == at {
            return;
        }
        let known = network
            .acks
            .iter_mut()
            .find(|ack| (ack.view, ack.from, ack.incarnation) == (view, at, server.incarnation));
        match known {
            Some(ack) => ack.durable = ack.durable.max(upto),
            None => insert(
                &mut network.acks,
                Ack { view, from: at, incarnation: server.incarnation, durable: upto },
            ),
        }
    }

    fn open(&self, server: &mut Server, network: &mut Network, history: &mut History) {
        let (view, start) = (server.promised, server.log.len() + 1);
        server.role = Role::Primary(start);
        server.matched = server.commit;
        server.append(start, Entry { view, command: 0 });
        history.reopened |= network.cast(view).is_some();
        network.casts.retain(|cast| cast.view != view);
        network.casts.push(Cast { view, log: server.log.clone(), start, commit: 0 });
        network.casts.sort_by_key(|cast| cast.view);
    }

    /// `count`: the op that a quorum holds durably, if it is of this view.
    fn counted(&self, state: &State, at: usize) -> Option<usize> {
        let server = &state.servers[at];
        let Role::Primary(start) = server.role else { return None };
        let mut durable = vec![0; self.servers];
        for ack in &state.network.acks {
            let over =
                ack.incarnation < server.known_incarnations[ack.from] && !self.makes(Mutation::NoCrashVector);
            if ack.view == server.promised && !over && self.hears(at, ack.from) {
                durable[ack.from] = durable[ack.from].max(ack.durable.min(server.log.len()));
            }
        }
        durable[at] = server.durable();
        durable.sort_unstable_by(|one, other| other.cmp(one));
        let op = durable[self.quorum() - 1];
        let counts = op >= start || self.makes(Mutation::CommitOlderView);
        (op > server.commit && counts).then_some(op)
    }

    /// The commit to reach, once a majority of the others has answered: what the active primary of the
    /// promised view had committed when it answered. From then on that primary counts no acknowledgement of
    /// the lost disk. The commit in an older heartbeat is no safe bound, because with such acknowledgements
    /// the primary may have committed more than that.
    fn goal(&self, state: &State, at: usize) -> Option<usize> {
        let server = &state.servers[at];
        let answers =
            state.network.learn_oks.iter().filter(|ok| (ok.to, ok.incarnation) == (at, server.incarnation));
        let floor = answers.clone().map(|ok| ok.promised).max()?;
        let answered = (0..self.servers).filter(|from| answers.clone().any(|ok| ok.from == *from)).count();
        if answered < self.quorum() || server.promised < floor {
            return None;
        }
        if self.makes(Mutation::LearnerTrustsOldHeartbeat) {
            let cast = state.network.cast(server.promised)?;
            // The oldest heartbeat that this boot can open: its keys open nothing that was sent before it.
            let told = cast.start.max(server.commit_at_start);
            return (told <= cast.commit).then_some(told);
        }
        answers.filter(|ok| ok.promised == server.promised).find_map(|ok| ok.active)
    }

    fn settled(&self) -> State {
        let view = self.view(1, self.servers - 1);
        let log = vec![Entry { view, command: 0 }];
        let mut state = self.fresh();
        for (at, server) in state.servers.iter_mut().enumerate() {
            let disk = Disk { promised: view, log: log.clone(), ..server.disk.clone() };
            let role = if at + 1 == self.servers { Role::Primary(1) } else { Role::Backup };
            *server = Arc::new(Server { role, matched: 1, commit: 1, ..Server::start(0, 0, disk) });
        }
        let network = Arc::make_mut(&mut state.network);
        network.casts.push(Cast { view, log: log.clone(), start: 1, commit: 1 });
        state.history.committed = vec![(log[0], view)];
        state
    }

    fn fresh(&self) -> State {
        let disk = Disk {
            voter: true,
            promised: View::ZERO,
            log: Vec::new(),
            known_incarnations: vec![0; self.servers],
        };
        State {
            servers: (0..self.servers).map(|_| Arc::new(Server::start(0, 0, disk.clone()))).collect(),
            network: Arc::default(),
            history: History::default(),
        }
    }

    fn steps_of(&self, state: &State, at: usize, steps: &mut Vec<Step>) {
        let (server, network, history) = (&state.servers[at], &state.network, &state.history);
        let promised = server.promised;
        if !server.tasks.is_empty() {
            steps.push(Step::Fsync);
        }
        if history.crashes < self.crashes && self.crashing.contains(&at) {
            steps.push(Step::Crash);
        }
        if history.wipes < self.wipes && self.wiped.contains(&at) {
            steps.push(Step::Wipe);
        }
        // The messages that a follower hears, whether it is a learner or not.
        for cast in &network.casts {
            let news = cast.view > promised || server.matched < cast.log.len();
            if cast.view >= promised && self.hears(at, self.primary_of(cast.view)) && news {
                steps.push(Step::Accept(cast.view));
            }
        }
        let told = network.cast(promised).map_or(0, |cast| cast.commit.min(server.matched));
        if server.commit < told && (self.telling || !server.votes()) {
            steps.push(Step::HearCommit);
        }
        if let Role::Learner(goal) = server.role {
            match goal {
                None if self.goal(state, at).is_some() => steps.push(Step::Goal),
                Some(goal)
                    if server.commit >= goal
                        && !server.tasks.iter().any(|task| matches!(task, Task::Vote(_))) =>
                {
                    steps.push(Step::Vote)
                }
                _ => {}
            }
            return;
        }
        for (other, learner) in state.servers.iter().enumerate() {
            let answer = |ok: &LearnOk| (ok.from, ok.to, ok.incarnation) == (at, other, learner.incarnation);
            let known = server.known_incarnations[other] == learner.incarnation;
            // A learner asks until it has its answers. The most important one is that of the active primary.
            let news = self.active(server).is_some()
                && !network
                    .learn_oks
                    .iter()
                    .any(|ok| answer(ok) && ok.promised == promised && ok.active.is_some());
            if !learner.votes()
                && self.hears(at, other)
                && (!known || (news && server.disk.known_incarnations[other] == learner.incarnation))
            {
                steps.push(Step::Learn(other));
            }
        }
        for view in &network.prepares {
            if *view > promised && self.hears(at, self.primary_of(*view)) {
                steps.push(Step::Promise(*view));
            }
        }
        let said = |promise: &Promise| {
            (promise.view, promise.from, promise.incarnation) == (promised, at, server.incarnation)
        };
        if server.disk.promised == promised
            && server.role == Role::Backup
            && self.hears(at, self.primary_of(promised))
            && network.prepares.contains(&promised)
            && !network.promises.iter().any(said)
        {
            steps.push(Step::PromiseAgain);
        }
        self.candidacies(state, at, steps);
        match server.role {
            Role::Candidate if server.disk.promised == promised => {
                for set in self.quorums(state, at, promised) {
                    let best = self.choose(server, &set);
                    let ids = set.iter().map(|promise| (promise.from, promise.incarnation)).collect();
                    let lacks = joint(&server.log, best) < best.len();
                    steps.push(if lacks { Step::Fetch(ids) } else { Step::Open(ids) });
                }
            }
            Role::Primary(start) => {
                if self.counted(state, at).is_some() {
                    steps.push(Step::Count);
                }
                if server.commit >= start && history.commands < self.commands {
                    steps.push(Step::Propose);
                }
            }
            _ => {}
        }
    }

    fn candidacies(&self, state: &State, at: usize, steps: &mut Vec<Step>) {
        let (server, network) = (&state.servers[at], &state.network);
        let mut may = state.history.elections < self.elections && self.candidates.contains(&at);
        if let Some(suspecting) = &self.suspecting {
            if suspecting.contains(&at) && !server.suspects && server.role == Role::Backup {
                steps.push(Step::Suspect);
            }
            for (other, candidate) in state.servers.iter().enumerate() {
                let both = self.hears(at, other) && server.suspects && candidate.suspects;
                if both && server.promised == candidate.promised && !network.agreed.contains(&(at, other)) {
                    steps.push(Step::Agree(other));
                }
            }
            let agreed = network.agreed.iter().filter(|(_, to)| *to == at).count();
            may &= server.suspects && (agreed + 1 >= self.quorum() || self.makes(Mutation::NoProbe));
        }
        if may {
            for round in server.promised.round() + 1..=self.rounds {
                steps.push(Step::Prepare(self.view(round, at)));
            }
        }
    }

    fn chosen<'a>(&self, state: &'a State, at: usize, ids: &[(usize, u8)]) -> Option<&'a Log> {
        let server = &state.servers[at];
        let sets = self.quorums(state, at, server.promised);
        let ids = |set: &Vec<&Promise>| {
            set.iter().map(|promise| (promise.from, promise.incarnation)).eq(ids.iter().copied())
        };
        sets.into_iter().find(ids).map(|set| self.choose(server, &set))
    }

    fn fsync(&self, at: usize, server: &mut Server, network: &mut Network) {
        match server.tasks.remove(0) {
            Task::Append(op, entry) => {
                server.disk.log.truncate(op - 1);
                server.disk.log.push(entry);
            }
            Task::Promise(view) => {
                server.disk.promised = server.disk.promised.max(view);
                let owed = view == server.promised && server.role == Role::Backup;
                if owed && self.primary_of(view) != at && network.prepares.contains(&view) {
                    insert(&mut network.promises, self.promise(at, server));
                }
            }
            Task::Vote(view) => {
                server.disk.voter = true;
                server.disk.promised = server.disk.promised.max(view);
                if !server.votes() {
                    server.role = Role::Backup;
                }
            }
            Task::Incarnation(other, life) => {
                server.disk.known_incarnations[other] = life;
                self.learn_ok(at, server, other, life, network);
            }
        }
        self.acknowledge(at, server, network);
    }

    fn learn_ok(&self, at: usize, server: &Server, other: usize, life: u8, network: &mut Network) {
        let (promised, active) = (server.promised, self.active(server));
        insert(&mut network.learn_oks, LearnOk { from: at, to: other, incarnation: life, promised, active });
    }

    /// Returns the commit of an active primary.
    fn active(&self, server: &Server) -> Option<usize> {
        matches!(server.role, Role::Primary(start) if server.commit >= start).then_some(server.commit)
    }

    fn accept(&self, at: usize, view: View, server: &mut Server, network: &mut Network) {
        if view > server.promised {
            server.raise_promised(view, Role::Backup);
        }
        server.suspects = false;
        if server.role == Role::Candidate {
            server.role = Role::Backup;
        }
        let Some(cast) = network.cast(view) else { return };
        server.matched = server.matched.max(joint(&server.log, &cast.log));
        if let Some(entry) = cast.log.get(server.matched).copied() {
            let op = server.matched + 1;
            if op > server.commit {
                server.append(op, entry);
            }
            server.matched = op;
        }
        self.acknowledge(at, server, network);
    }

    fn die(
        &self,
        at: usize,
        server: &Server,
        wipe: bool,
        network: &mut Network,
        history: &mut History,
    ) -> Server {
        if !wipe {
            history.crashes += 1;
            let mut again = Server::start(server.incarnation, server.commit_at_start, server.disk.clone());
            if self.makes(Mutation::RestartAsPrimary) && self.primary_of(again.promised) == at {
                self.open(&mut again, network, history);
            }
            return again;
        }
        history.wipes += 1;
        let born = network.casts.iter().map(|cast| cast.commit).max().unwrap_or_default();
        let disk = Disk {
            voter: self.makes(Mutation::LearnerVotesAtOnce),
            promised: View::ZERO,
            log: Vec::new(),
            known_incarnations: vec![0; self.servers],
        };
        Server::start(server.incarnation + 1, born, disk)
    }
}

impl Model for Scope {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![if self.settled { self.settled() } else { self.fresh() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.history.changed || state.history.reopened {
            return;
        }
        let mut steps = Vec::new();
        for at in 0..self.servers {
            self.steps_of(state, at, &mut steps);
            actions.extend(steps.drain(..).map(|step| Action { at, step }));
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        let State { servers, network, history } = &mut state;
        let network = Arc::make_mut(network);
        let at = action.at;
        let server = Arc::make_mut(&mut servers[at]);
        match action.step {
            Step::Suspect => server.suspects = true,
            Step::Agree(to) => insert(&mut network.agreed, (at, to)),
            Step::Prepare(view) => {
                history.elections += 1;
                server.raise_promised(view, Role::Candidate);
                insert(&mut network.prepares, view);
            }
            Step::Promise(view) => {
                server.raise_promised(view, Role::Backup);
                if self.makes(Mutation::PromiseNotDurable) {
                    insert(&mut network.promises, self.promise(at, server));
                }
            }
            Step::PromiseAgain => insert(&mut network.promises, self.promise(at, server)),
            Step::Fetch(ids) => {
                let best = self.chosen(before, at, &ids)?;
                let op = joint(&server.log, best) + 1;
                server.append(op, best[op - 1]);
            }
            Step::Open(_) => self.open(server, network, history),
            Step::Propose => {
                history.commands += 1;
                let entry = Entry { view: server.promised, command: history.commands };
                server.append(server.log.len() + 1, entry);
                network.cast_mut(server.promised)?.log.clone_from(&server.log);
            }
            Step::Accept(view) => self.accept(at, view, server, network),
            Step::HearCommit => {
                server.commit = network.cast(server.promised)?.commit.min(server.matched);
            }
            Step::Count => {
                let op = self.counted(before, at)?;
                server.commit = op;
                server.matched = op;
                network.cast_mut(server.promised)?.commit = op;
                for (known, entry) in history.committed.iter().zip(&server.log[..op]) {
                    history.changed |= known.0 != *entry;
                }
                let new = server.log[..op].iter().skip(history.committed.len());
                history.committed.extend(new.map(|entry| (*entry, server.promised)));
            }
            Step::Fsync => self.fsync(at, server, network),
            Step::Learn(other) => {
                let life = before.servers[other].incarnation;
                let known = server.known_incarnations[other] == life;
                server.known_incarnations[other] = life;
                if known || self.makes(Mutation::IncarnationsNotDurable) {
                    self.learn_ok(at, server, other, life, network);
                } else {
                    server.tasks.push(Task::Incarnation(other, life));
                }
            }
            Step::Goal => server.role = Role::Learner(self.goal(before, at)),
            Step::Vote => {
                server.tasks.push(Task::Vote(server.promised));
            }
            Step::Crash | Step::Wipe => {
                let wipe = matches!(action.step, Step::Wipe);
                *server = self.die(at, &before.servers[at], wipe, network, history);
            }
        }
        if history.crashes == self.crashes && history.wipes == self.wipes {
            // No state can be lost any more. The time of an fsync then only affects when the others hear of
            // it, and message delays cover that already.
            for (at, server) in servers.iter_mut().enumerate() {
                while !server.tasks.is_empty() {
                    self.fsync(at, Arc::make_mut(server), network);
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        crate::properties::all(self)
    }
}
