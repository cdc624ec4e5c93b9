//! What the monitor decides: which server is started, looked at, asked and killed, and when. Pure: time,
//! events in, effects out.
//!
//! A server is in one of these states. An arrow has its event.
//!
//! ```text
//!           time                     ready, lost            started
//!   Waits -------> Looked at ------------------> Started ------------> Runs <--+
//!     ^              |    | found running                                |      | answers
//!     |              |    +------------------------------------------>   |   ---+
//!     +--------------+ not usable now                                    |
//!     +------------------------------------------------------------------+ ended
//! ```
//!
//! *One copy.* A server is started only in answer to a look at its directory that found nobody there, and it
//! is looked at only while no process of it is known. So there is one process of it at most, and the lock of
//! the directory makes sure of it.
//!
//! *A hang* is [silence](Run::silent) for longer than [`Machine::patience`]: no answer of the server's socket
//! that shows a new turn of its replica thread. Silence counts what this monitor has seen of it: at each look
//! the time since the last one, at most [`ASK_EVERY`]. At a look that is [`LATE`] nothing is counted and
//! nobody killed, so a monitor that stood still itself blames nobody. A server that has not answered yet
//! since its start, or that was catching up when it last did, is not judged.
//!
//! *One at a time.* A server is killed for a hang only if the one that was killed last answers again and has
//! caught up, or [`TURN_MAX`] has passed. What makes all servers silent, a disk that they share, would
//! otherwise have all of them killed.

use std::collections::BTreeMap;
use std::time::Duration;

use recado_doctor::monitor::{Exit, Running, ServerView, State as Shown};
use recado_proto::id::{Clock, Moment, NodeId};

/// The interval at which a server is asked, and the most that one look adds to a silence.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(1);
/// A look so long after the one before is late.
const LATE: Duration = Duration::from_secs(2);
/// A server is silent for at least so many of its own fsyncs, before it hangs.
const HANG_FSYNCS: u32 = 4;
/// The interval at which a directory is looked at that cannot be used.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The pause before a server that has ended is started again, the first time. It doubles each time.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A server that ran for so long has the first pause again.
const HEALTHY: Duration = Duration::from_secs(60);
/// The longest time for which no other server is killed after one was.
const TURN_MAX: Duration = Duration::from_secs(60);
/// How long servers may take to stop in order.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How long killed servers are waited for at the end.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
/// EX_CONFIG of sysexits.h: a start does not help until a person has changed something.
const BAD_CONFIG: i32 = 78;

/// What was found at a server's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The server runs: its process is held, and is the one that was meant, by the time of its start.
    Runs {
        /// Its process.
        process: Running,
        /// True if it had caught up when it was last seen.
        was_ready: bool,
    },
    /// A process that cannot be told has the lock of the directory.
    Taken,
    /// Nobody runs on it, and its data are there.
    Ready,
    /// Nobody runs on it, and its data are lost: there is no directory, or no promise in it.
    Lost {
        /// The number of members of its cluster.
        members: usize,
    },
    /// It cannot be used now; why, and what a person can do.
    Unusable(String),
}

/// What a server has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The turns of its replica thread since its start.
    pub(super) turns: u64,
    /// It has no vote yet, or fetches what it lacks.
    pub(super) catches_up: bool,
    /// A recent slow fsync of its journal.
    pub(super) fsync: Duration,
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Code(i32),
    Signal(i32),
    /// It was started by another monitor.
    Unknown,
}

/// What happened to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// In answer to [`Effect::Look`].
    Found(Found),
    /// In answer to [`Effect::Start`].
    Started(Running),
    /// The same: it cannot be started, and why.
    NotStarted(String),
    /// Its process has answered.
    Answered(Answer),
    /// Its process has ended.
    Ended(Ended),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Look at the directory of a server; answer with [`Event::Found`].
    Look(NodeId),
    /// Start a server; answer with [`Event::Started`] or [`Event::NotStarted`].
    Start {
        /// The server.
        server: NodeId,
        /// True if its data directory is to be made first, empty.
        makes_data: bool,
    },
    /// Ask a server, unless a question to it is under way.
    Ask(NodeId),
    /// Ask a server's process to end.
    Stop(NodeId),
    /// Kill a server's process.
    Kill(NodeId),
    /// Tell people.
    Say(String),
}

/// A process of a server.
#[derive(Debug)]
struct Run {
    process: Running,
    since: Moment,
    /// It has answered, here or to an earlier monitor.
    has_answered: bool,
    turns: Option<u64>,
    catches_up: bool,
    fsync: Duration,
    /// How long it has been silent, as far as this monitor has looked.
    silent: Duration,
    next_ask: Moment,
    is_killed: bool,
}

#[derive(Debug)]
enum State {
    Waits { until: Moment },
    LookedAt,
    Lost { members: usize },
    Starts,
    Runs(Run),
    Stopped,
}

#[derive(Debug)]
struct Server {
    state: State,
    since_ms: u64,
    /// The pause after its next end.
    pause: Duration,
    /// It was started or found running.
    is_known: bool,
    /// It was looked at.
    is_seen: bool,
    is_lost: bool,
    learns: bool,
    restarts: u64,
    hangs: u64,
    exit: Option<Exit>,
    reason: Option<String>,
    due_ms: Option<u64>,
}

impl Server {
    /// It waits, and is looked at after `pause`.
    fn wait(&mut self, clock: Clock, pause: Duration) {
        if !matches!(self.state, State::Waits { .. } | State::LookedAt | State::Lost { .. }) {
            self.since_ms = clock.unix_ms;
        }
        self.due_ms = Some(clock.unix_ms.saturating_add(recado_proto::id::millis(pause)));
        self.state = State::Waits { until: clock.now + pause };
    }

    /// It has a process.
    fn run(&mut self, clock: Clock, process: Running, was_ready: bool) {
        self.since_ms = clock.unix_ms;
        (self.reason, self.due_ms, self.is_known) = (None, None, true);
        self.state = State::Runs(Run {
            process,
            since: clock.now,
            has_answered: was_ready,
            turns: None,
            catches_up: false,
            fsync: Duration::ZERO,
            silent: Duration::ZERO,
            next_ask: clock.now,
            is_killed: false,
        });
    }

    fn process(&self) -> Option<Running> {
        if let State::Runs(run) = &self.state { Some(run.process) } else { None }
    }

    fn shown(&self, stops: bool) -> Shown {
        match &self.state {
            State::Waits { .. } | State::LookedAt | State::Lost { .. } => Shown::Waits,
            State::Starts => Shown::Starts,
            State::Runs(_) if stops => Shown::Stops,
            State::Runs(run) if run.is_killed => Shown::Killed,
            State::Runs(run) if !run.has_answered => Shown::Starts,
            State::Runs(run) if run.catches_up => Shown::CatchesUp,
            State::Runs(_) => Shown::Runs,
            State::Stopped => Shown::Stopped,
        }
    }

    /// Tells why it waits, once for each reason.
    fn explain(&mut self, server: NodeId, reason: String, out: &mut Vec<Effect>) {
        if self.reason.as_ref() != Some(&reason) {
            out.push(Effect::Say(format!("{server} is not started: {reason}")));
            self.reason = Some(reason);
        }
    }
}

/// The server that was killed last for a hang, until others may be.
#[derive(Clone, Copy, Debug)]
struct Turn {
    server: NodeId,
    until: Moment,
}

/// The end of the monitor.
#[derive(Clone, Copy, Debug)]
struct Stopping {
    until: Moment,
    has_killed: bool,
}

/// The monitor of some servers of one machine.
#[derive(Debug)]
pub(super) struct Machine {
    hang: Duration,
    servers: BTreeMap<NodeId, Server>,
    turn: Option<Turn>,
    stopping: Option<Stopping>,
    looked: Moment,
}

impl Machine {
    /// Monitors these servers. Of each it is given whether it was still without a vote when an earlier
    /// monitor last saw it. A server hangs when it is silent for `hang` at least.
    pub(super) fn new(
        clock: Clock,
        servers: impl IntoIterator<Item = (NodeId, bool)>,
        hang: Duration,
    ) -> Machine {
        let server = |learns| Server {
            state: State::Waits { until: clock.now },
            since_ms: clock.unix_ms,
            pause: PAUSE,
            is_known: false,
            is_seen: false,
            is_lost: false,
            learns,
            restarts: 0,
            hangs: 0,
            exit: None,
            reason: None,
            due_ms: None,
        };
        let servers = servers.into_iter().map(|(id, learns)| (id, server(learns))).collect();
        Machine { hang, servers, turn: None, stopping: None, looked: clock.now }
    }

    /// Takes what happened to a server.
    pub(super) fn handle(&mut self, clock: Clock, id: NodeId, event: Event, out: &mut Vec<Effect>) {
        let is_stopping = self.stopping.is_some();
        let Some(server) = self.servers.get_mut(&id) else { return };
        match (event, &mut server.state) {
            (Event::Found(found), State::LookedAt) => {
                server.is_seen = true;
                self.on_found(clock, id, found, out);
            }
            (Event::Started(process), State::Starts) => {
                if server.is_known {
                    server.restarts += 1;
                    out.push(Effect::Say(format!("{id} runs again (pid {}).", process.pid)));
                }
                server.run(clock, process, false);
            }
            (Event::NotStarted(why), State::Starts) => {
                let pause = server.pause;
                server.pause = (pause * 2).min(PAUSE_MAX);
                server.explain(id, why, out);
                server.wait(clock, pause);
            }
            (Event::Answered(answer), State::Runs(run)) => {
                if run.turns.replace(answer.turns) != Some(answer.turns) {
                    run.silent = Duration::ZERO;
                }
                let before = (run.has_answered, run.catches_up);
                (run.has_answered, run.catches_up, run.fsync) = (true, answer.catches_up, answer.fsync);
                let is_killed = run.is_killed;
                if before != (true, answer.catches_up) {
                    server.since_ms = clock.unix_ms;
                }
                if !answer.catches_up {
                    server.learns = false;
                    self.turn = self.turn.filter(|turn| turn.server != id || is_killed);
                }
            }
            (Event::Ended(ended), State::Runs(_)) => self.on_ended(clock, id, ended, is_stopping, out),
            // Of a process or a look that is none of this state any more.
            _ => {}
        }
    }

    fn on_found(&mut self, clock: Clock, id: NodeId, found: Found, out: &mut Vec<Effect>) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        server.is_lost = matches!(found, Found::Lost { .. });
        match found {
            Found::Runs { process, was_ready } => {
                out.push(Effect::Say(format!("{id} runs already (pid {}); it is adopted.", process.pid)));
                server.run(clock, process, was_ready);
            }
            Found::Taken => {
                let why = "another process has the lock of its data directory, and does not say which it is; \
                           waiting for it to answer or to end";
                server.explain(id, why.to_owned(), out);
                server.wait(clock, LOOK_EVERY);
            }
            Found::Ready => {
                server.state = State::Starts;
                out.push(Effect::Start { server: id, makes_data: false });
            }
            // What becomes of it depends on the others, which are looked at first.
            Found::Lost { members } => server.state = State::Lost { members },
            Found::Unusable(why) => {
                server.explain(id, why, out);
                server.wait(clock, LOOK_EVERY);
            }
        }
    }

    fn on_ended(&mut self, clock: Clock, id: NodeId, ended: Ended, stops: bool, out: &mut Vec<Effect>) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        let State::Runs(run) = &server.state else { return };
        let (ran, pid) = (clock.now.since(run.since), run.process.pid);
        let how = match ended {
            Ended::Code(code) => format!("exit code {code}"),
            Ended::Signal(signal) => format!("signal {signal}"),
            Ended::Unknown => "unknown".to_owned(),
        };
        server.exit = Some(Exit { unix_ms: clock.unix_ms, how });
        if stops {
            (server.state, server.since_ms) = (State::Stopped, clock.unix_ms);
            return self.tell_if_stopped(out);
        }
        if ran >= HEALTHY {
            server.pause = PAUSE;
        }
        let mut pause = server.pause;
        if ended == Ended::Code(BAD_CONFIG) {
            pause = PAUSE_MAX;
            server.reason = Some(
                "its configuration or its data cannot be used (exit code 78); its log says why, and \
                 `recadod doctor` what to do"
                    .to_owned(),
            );
        }
        server.pause = (pause * 2).min(PAUSE_MAX);
        out.push(Effect::Say(format!("{id} (pid {pid}) exited; restarting it in {} s.", pause.as_secs())));
        server.wait(clock, pause);
    }

    /// Does what is due.
    pub(super) fn on_time(&mut self, clock: Clock, out: &mut Vec<Effect>) {
        let step = clock.now.since(self.looked);
        // The answers may be late too, so nobody is judged now.
        let is_late = step > LATE;
        let step = if is_late { Duration::ZERO } else { step.min(ASK_EVERY) };
        self.looked = clock.now;
        for (id, server) in &mut self.servers {
            match &mut server.state {
                State::Waits { until } if *until <= clock.now && self.stopping.is_none() => {
                    server.state = State::LookedAt;
                    out.push(Effect::Look(*id));
                }
                State::Runs(run) => {
                    run.silent += step;
                    if run.next_ask <= clock.now && self.stopping.is_none() {
                        run.next_ask = clock.now + ASK_EVERY;
                        out.push(Effect::Ask(*id));
                    }
                }
                _ => {}
            }
        }
        match self.stopping {
            None => {
                self.decide_about_lost(clock, out);
                if !is_late {
                    self.kill_one_that_hangs(clock, out);
                }
            }
            Some(stopping) => self.go_on_stopping(clock, stopping, out),
        }
    }

    /// A server whose data are lost begins anew as a learner, if enough others can tell what it promised.
    fn decide_about_lost(&mut self, clock: Clock, out: &mut Vec<Effect>) {
        if self.servers.values().any(|server| !server.is_seen || matches!(server.state, State::LookedAt)) {
            return;
        }
        let without_vote: Vec<NodeId> =
            self.servers.iter().filter(|(_, one)| one.is_lost || one.learns).map(|(id, _)| *id).collect();
        for (id, server) in &mut self.servers {
            let State::Lost { members } = server.state else { continue };
            let quorum = members / 2 + 1;
            let unable = without_vote.iter().filter(|other| *other != id).count();
            let others = members.saturating_sub(1 + unable);
            if others >= quorum {
                (server.is_lost, server.learns) = (false, true);
                server.state = State::Starts;
                out.push(Effect::Say(format!(
                    "{id}: its data are lost. It begins with none, learns from the other servers, and votes again \
                     when {quorum} of them have answered; keep them running."
                )));
                out.push(Effect::Start { server: *id, makes_data: true });
                continue;
            }
            let why = if members == 1 {
                "its data are lost, and no other server has a copy: put a copy of its data directory in its place, or \
                 make a new cluster, `recadod init`"
                    .to_owned()
            } else {
                format!(
                    "its data are lost, and with none it could not vote again: {quorum} other servers with a vote would \
                     have to tell what it promised, and there are at most {others}. If its disk can be mounted again, do \
                     that (its data as they were last, no older copy). Otherwise this version cannot bring it back: a \
                     new cluster is needed, `recadod init`"
                )
            };
            server.explain(*id, why, out);
            server.wait(clock, LOOK_EVERY);
        }
    }

    /// Silence from which on this server hangs.
    fn patience(&self, run: &Run) -> Duration {
        self.hang.max(run.fsync * HANG_FSYNCS)
    }

    fn kill_one_that_hangs(&mut self, clock: Clock, out: &mut Vec<Effect>) {
        self.turn = self.turn.filter(|turn| turn.until > clock.now);
        if self.turn.is_some() {
            return;
        }
        let hangs = |server: &Server| match &server.state {
            State::Runs(run) => {
                let is_judged = run.has_answered && !run.catches_up && !run.is_killed;
                (is_judged && run.silent > self.patience(run)).then_some(run.silent)
            }
            _ => None,
        };
        let longest = self.servers.iter().filter_map(|(id, server)| Some((hangs(server)?, *id))).max();
        let Some((silent, id)) = longest else { return };
        self.turn = Some(Turn { server: id, until: clock.now + TURN_MAX });
        let Some(server) = self.servers.get_mut(&id) else { return };
        let State::Runs(run) = &mut server.state else { return };
        run.is_killed = true;
        (server.hangs, server.since_ms) = (server.hangs + 1, clock.unix_ms);
        out.push(Effect::Say(format!(
            "{id} (pid {}) hangs: it has not answered for {} s. It is killed.",
            run.process.pid,
            silent.as_secs()
        )));
        out.push(Effect::Kill(id));
    }

    /// Stops all servers in order. A second call makes them end at once.
    pub(super) fn stop(&mut self, clock: Clock, out: &mut Vec<Effect>) {
        if self.stopping.is_none() {
            self.stopping = Some(Stopping { until: clock.now + STOP_WITHIN, has_killed: false });
        }
        for (id, server) in &mut self.servers {
            match &server.state {
                State::Runs(_) => out.push(Effect::Stop(*id)),
                _ => server.state = State::Stopped,
            }
            (server.since_ms, server.due_ms) = (clock.unix_ms, None);
        }
        self.tell_if_stopped(out);
    }

    fn go_on_stopping(&mut self, clock: Clock, stopping: Stopping, out: &mut Vec<Effect>) {
        if clock.now < stopping.until {
            return;
        }
        let until = clock.now + KILLED_WITHIN;
        for (id, server) in &mut self.servers {
            match &server.state {
                State::Runs(_) if !stopping.has_killed => out.push(Effect::Kill(*id)),
                // Killed and not ended: it waits for a disk in the kernel. It cannot be waited for.
                State::Runs(_) => server.state = State::Stopped,
                _ => {}
            }
        }
        if !stopping.has_killed {
            out.push(Effect::Say(format!(
                "Some servers did not stop within {} s and were killed. Nothing acknowledged is lost.",
                STOP_WITHIN.as_secs()
            )));
        }
        self.stopping = Some(Stopping { until, has_killed: true });
    }

    fn tell_if_stopped(&self, out: &mut Vec<Effect>) {
        if self.has_ended() && self.stopping.is_some_and(|stopping| !stopping.has_killed) {
            out.push(Effect::Say("All servers stopped.".to_owned()));
        }
    }

    /// Returns true if the monitor was stopped, and so are all its servers.
    pub(super) fn has_ended(&self) -> bool {
        self.stopping.is_some() && self.servers.values().all(|server| matches!(server.state, State::Stopped))
    }

    /// When [`Machine::on_time`] is due. None: only an event can change anything.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        if let Some(stopping) = self.stopping {
            return Some(stopping.until);
        }
        let due = |server: &Server| match &server.state {
            State::Waits { until } => Some(*until),
            State::Runs(run) => Some(run.next_ask),
            State::Lost { .. } => Some(self.looked),
            State::LookedAt | State::Starts | State::Stopped => None,
        };
        self.servers.values().filter_map(due).min()
    }

    /// What is told of each server. The mount of its data is known to who looks.
    pub(super) fn view(&self) -> Vec<ServerView> {
        let stops = self.stopping.is_some();
        let view = |(id, server): (&NodeId, &Server)| ServerView {
            id: id.0,
            state: server.shown(stops),
            since_unix_ms: server.since_ms,
            process: server.process(),
            restarts: server.restarts,
            hangs: server.hangs,
            exit: server.exit.clone(),
            reason: server.reason.clone(),
            due_unix_ms: server.due_ms,
            learns: server.learns,
            mount: None,
        };
        self.servers.iter().map(view).collect()
    }
}

#[cfg(test)]
mod tests;
