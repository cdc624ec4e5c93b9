//! The time that a server's threads take for their work: the replica thread, and the handlers with their
//! shards.
//!
//! A thread works in turns, as the one that ships: it takes what waits for it, within the bounds of
//! [`places`], and what its work leaves to perform is performed when the time of the work has passed. What
//! comes meanwhile waits in a queue with as many places as the channel that ships, and the same policy when
//! it is full. Each thread has a core of its own.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use recado::server::engine::{Effect, Input};
use recado::server::places::{self, Network, Places};
use recado::server::shard::{self, Told, distribute, shard_for};
use recado_log::bully;
use recado_proto::id::{Clock, Moment};

use super::{Alarm, Output, SHARDS, Server, Step, Work};
use crate::coverage::Situation;

/// The time of each piece of work, in ns.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// A handler opens a client's datagram.
    pub opened: u64,
    /// A handler seals and sends a datagram.
    pub sealed: u64,
    /// A handler takes what it is told.
    pub told: u64,
    /// The replica thread takes a peer's datagram, or sends one.
    pub peer: u64,
    /// It takes a request, a page or a cursor.
    pub request: u64,
    /// It applies an entry.
    pub applied: u64,
}

/// The time of a turn without any work, in ns.
const TURN: u64 = 5_000;

/// A thread whose turn's work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The replica thread has handled its inputs: their effects are performed.
    Fed,
    /// It has applied what its turn may: the effects of that are performed, and the turn ends.
    Applied,
    /// The handler of this shard: its effects are performed, and its turn ends.
    Handled(usize),
}

/// The threads of a process, and what waits for each.
pub struct Threads {
    costs: Costs,
    /// The replica thread is in a turn, and what is to be performed after its inputs and after it has
    /// applied.
    replica_busy: bool,
    fed: VecDeque<Work>,
    applied: VecDeque<Work>,
    /// From the journal and the server's handle.
    internal: VecDeque<Input>,
    peers: VecDeque<Input>,
    from_delivery: VecDeque<Input>,
    requests: VecDeque<(Network, Input)>,
    places: Places,
    handlers: [Handler; SHARDS],
}

#[derive(Default)]
struct Handler {
    busy: bool,
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    told: VecDeque<Told>,
    /// Applied notifications were left out because it was told too much.
    missed: bool,
    effects: Vec<shard::Effect>,
}

impl Handler {
    /// Returns true if the channel has a place.
    fn has_room(&self) -> bool {
        self.told.len() < places::TOLD && !self.missed
    }
}

fn nanos(of: Duration) -> u64 {
    of.as_nanos() as u64
}

/// The time after `spent` ns of work.
fn after(clock: Clock, spent: u64) -> Clock {
    Clock { now: Moment(clock.now.0 + spent / 1_000), ..clock }
}

impl Threads {
    pub fn new(costs: Costs) -> Threads {
        Threads {
            costs,
            replica_busy: false,
            fed: VecDeque::new(),
            applied: VecDeque::new(),
            internal: VecDeque::new(),
            peers: VecDeque::new(),
            from_delivery: VecDeque::new(),
            requests: VecDeque::new(),
            places: Places::new(places::REQUESTS),
            handlers: Default::default(),
        }
    }

    pub fn replica_is_busy(&self) -> bool {
        self.replica_busy
    }

    pub fn handler_is_busy(&self, shard: usize) -> bool {
        self.handlers[shard].busy
    }

    /// Queues an input of the node that is no request.
    pub fn queue(&mut self, input: Input) -> bool {
        let (queue, most) = match &input {
            Input::Log(bully::Input::Peer { .. } | bully::Input::PortRefused(_)) => {
                (&mut self.peers, places::PEER_DATAGRAMS)
            }
            Input::WantPage { .. } | Input::Path { .. } | Input::Cursor(..) | Input::AnswerDone { .. } => {
                (&mut self.from_delivery, usize::MAX)
            }
            // The deadline is looked at in every turn.
            Input::Deadline => return true,
            _ => (&mut self.internal, usize::MAX),
        };
        let room = queue.len() < most;
        if room {
            queue.push_back(input);
        }
        room
    }

    /// Returns true if the replica thread takes requests and pages.
    fn delivery_is_clear(&self) -> bool {
        self.handlers.iter().all(Handler::has_room)
    }

    fn replica_has_work(&self) -> bool {
        let clear = self.delivery_is_clear();
        let inner = !self.internal.is_empty() || !self.peers.is_empty();
        inner || clear && (!self.from_delivery.is_empty() || !self.requests.is_empty())
    }

    fn handler_has_work(&self, shard: usize) -> bool {
        let handler = &self.handlers[shard];
        let clear = self.from_delivery.len() < places::FROM_DELIVERY;
        !handler.told.is_empty() || clear && !handler.datagrams.is_empty()
    }
}

impl Server {
    /// A datagram arrives on the client port: the listener gives it to its handler.
    pub(super) fn listen(&mut self, step: &mut Step, from: SocketAddr, bytes: &[u8]) {
        let Ok(shard) = shard_for(from, bytes, self.config.cluster.id, SHARDS) else { return };
        let Some(threads) = self.process.as_mut().and_then(|process| process.threads.as_mut()) else {
            return;
        };
        let handler = &mut threads.handlers[shard];
        if handler.datagrams.len() >= places::DATAGRAMS {
            return step.out.push(Output::Met(Situation::QueueFull));
        }
        handler.datagrams.push_back((from, bytes.to_vec()));
        self.begin_turns(step);
    }

    /// Queues what the replica thread tells the shards.
    pub(super) fn queue_told(&mut self, told: Told) {
        let Some(threads) = self.process.as_mut().and_then(|process| process.threads.as_mut()) else {
            return;
        };
        distribute(told, SHARDS, |shard, told| {
            let handler = &mut threads.handlers[shard];
            let left_out = matches!(told, Told::Delivery(recado::delivery::Input::Applied { .. }));
            if left_out && !handler.has_room() {
                handler.missed = true;
            } else {
                handler.told.push_back(told);
            }
        });
    }

    /// Begins the turns of the threads that have something to do and are in none.
    pub(super) fn begin_turns(&mut self, step: &mut Step) {
        let now = self.clock(step.now).now;
        let due = |deadline: Option<Moment>| deadline.is_some_and(|deadline| deadline <= now);
        let Some(process) = &self.process else { return };
        let Some(threads) = &process.threads else { return };
        let replica = threads.replica_has_work() || due(process.node.next_deadline());
        let replica = replica && !threads.replica_busy;
        let works = |shard: &usize| {
            let busy = threads.handlers[*shard].busy;
            !busy && (threads.handler_has_work(*shard) || due(process.shards[*shard].next_deadline()))
        };
        let handlers = (0..SHARDS).filter(works).collect::<Vec<_>>();
        if replica {
            self.begin_replica_turn(step);
        }
        handlers.into_iter().for_each(|shard| self.begin_handler_turn(step, shard));
    }

    /// A turn of the replica thread: see `recado::server::replica_thread`.
    fn begin_replica_turn(&mut self, step: &mut Step) {
        let clock = self.clock(step.now);
        let Some(process) = &mut self.process else { return };
        let (node, Some(threads)) = (&mut process.node, &mut process.threads) else { return };
        let (costs, clear) = (threads.costs, threads.delivery_is_clear());
        let mut effects = Vec::new();
        let mut spent = TURN;
        for input in threads.internal.drain(..) {
            node.handle(clock, input, &mut effects);
        }
        let heard = threads.peers.len().min(places::PEER_DATAGRAMS_PER_TURN);
        for input in threads.peers.drain(..heard) {
            spent += costs.peer;
            node.handle(clock, input, &mut effects);
        }
        let begun = spent;
        let goes_on = |taken: usize, spent: u64, most: Duration| {
            taken < places::PER_TURN && (taken == 0 || spent - begun < nanos(most))
        };
        let mut taken = 0;
        while clear
            && goes_on(taken, spent, places::TURN_MAX / 2)
            && let Some(input) = threads.from_delivery.pop_front()
        {
            (taken, spent) = (taken + 1, spent + costs.request);
            node.handle(clock, input, &mut effects);
        }
        taken = 0;
        while clear
            && goes_on(taken, spent, places::TURN_MAX)
            && let Some((network, input)) = threads.requests.pop_front()
        {
            threads.places.free(network);
            (taken, spent) = (taken + 1, spent + costs.request);
            node.handle(clock, input, &mut effects);
        }
        let clock = after(clock, spent);
        if node.next_deadline().is_some_and(|due| due <= clock.now) {
            node.handle(clock, Input::Deadline, &mut effects);
        }
        node.flush(clock, &mut effects);
        let sent = effects.iter().filter(|effect| matches!(effect, Effect::Log(bully::Effect::Peer { .. })));
        spent += sent.count() as u64 * costs.peer;
        let before = node.applied();
        let mut told = Vec::new();
        node.apply(after(clock, spent), &mut told);
        let whole = spent + (node.applied().0 - before.0) * costs.applied;
        threads.replica_busy = true;
        for effect in effects.iter().chain(&told) {
            match effect {
                Effect::SessionKnown { session, .. } => drop(process.known.insert(*session)),
                Effect::SessionGone(session) => drop(process.known.remove(session)),
                _ => {}
            }
        }
        let (fed, applied) = (self.taken_on(step, effects), self.taken_on(step, told));
        if let Some(threads) = self.process.as_mut().and_then(|process| process.threads.as_mut()) {
            (threads.fed, threads.applied) = (fed, applied);
        }
        step.out.push(Output::Later(spent.div_ceil(1_000), Alarm::Turn(Turn::Fed)));
        step.out.push(Output::Later(whole.div_ceil(1_000), Alarm::Turn(Turn::Applied)));
    }

    /// A turn of a handler: see `recado::server::handlers`.
    fn begin_handler_turn(&mut self, step: &mut Step, shard: usize) {
        let now = self.clock(step.now).now;
        let Some(process) = &mut self.process else { return };
        let (own, Some(threads)) = (&mut process.shards[shard], &mut process.threads) else { return };
        let Threads { costs, places, requests, handlers, from_delivery, .. } = threads;
        let handler = &mut handlers[shard];
        let mut effects = Vec::new();
        let mut spent = TURN;
        while spent < nanos(places::HANDLER_TURN_MAX)
            && let Some(told) = handler.told.pop_front()
        {
            spent += costs.told;
            own.tell(now, told, &mut effects);
        }
        let begun = spent;
        if std::mem::take(&mut handler.missed) {
            own.tell(now, Told::Delivery(recado::delivery::Input::AppliedDropped), &mut effects);
        }
        let mut refused = false;
        let mut ask = |from: SocketAddr, input| {
            let network = Network::of(from.ip());
            let taken = places.take(network);
            refused |= !taken;
            if taken {
                requests.push_back((network, input));
            }
            taken
        };
        let clear = from_delivery.len() < places::FROM_DELIVERY;
        let mut taken = 0;
        while clear
            && taken < places::DATAGRAMS_PER_TURN
            && (taken == 0 || spent - begun < nanos(places::HANDLER_TURN_MAX))
            && let Some((from, bytes)) = handler.datagrams.pop_front()
        {
            (taken, spent) = (taken + 1, spent + costs.opened);
            let _ = own.receive(now, from, &bytes, &mut ask, &mut effects);
        }
        own.flush(Moment(now.0 + spent / 1_000), &mut effects);
        let sealed = effects.iter().filter(|effect| matches!(effect, shard::Effect::Datagram { .. }));
        spent += sealed.count() as u64 * costs.sealed;
        handler.busy = true;
        handler.effects = effects;
        if refused {
            step.out.push(Output::Met(Situation::QueueFull));
        }
        step.out.push(Output::Later(spent.div_ceil(1_000), Alarm::Turn(Turn::Handled(shard))));
    }

    /// The time of a part of a turn has passed: performs what it has left to perform.
    pub(super) fn on_turn(&mut self, step: &mut Step, turn: Turn) {
        let Some(threads) = self.process.as_mut().and_then(|process| process.threads.as_mut()) else {
            return;
        };
        let work: VecDeque<Work> = match turn {
            Turn::Fed => std::mem::take(&mut threads.fed),
            Turn::Applied => {
                threads.replica_busy = false;
                std::mem::take(&mut threads.applied)
            }
            Turn::Handled(shard) => {
                let handler = &mut threads.handlers[shard];
                handler.busy = false;
                std::mem::take(&mut handler.effects).into_iter().map(Work::Delivery).collect()
            }
        };
        self.perform(step, work);
        self.begin_turns(step);
    }
}
