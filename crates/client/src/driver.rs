//! Driver of the client machine: the threads and channels around it.
//!
//! ```text
//!              1024 datagrams             ,--> incoming, 1024 ------> application
//! socket -> [recado-recv] -> [recado-client] --> events, 64 --------> application
//!                                  ^  ^-------- requests, 256 ------- application
//!                                  '------------- commands, 64 ------ application
//! ```
//!
//! | channel | when it is full |
//! |---|---|
//! | datagrams | dropped: servers retransmit |
//! | requests | the application waits, up to its time-out; they are taken while the machine has room |
//! | commands | the application waits, not for long: the machine's thread never blocks on another |
//! | incoming | held back, and no datagram is taken meanwhile; the credit granted bounds how much is held |
//! | events | the newest is dropped: events only report, and no state depends on them |
//!
//! A turn takes the inputs that have come, gives them to the machine, keeps the changes of the outbox (one
//! write for the whole turn, and at most one sync), and only then sends the datagrams.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use recado_sys::sync::channel::{Receiver, Sender, TryRecvError, TrySendError};
use recado_sys::sync::signal::{self, Signal};
use recado_sys::sync::{BoundSocket, Mistake, Mutex, planted};

use recado_proto::id::{Moment, Op, Seq, SessionId, View};
use recado_proto::packet::{Code, QueryId};
use recado_sys::clock::MachineClock;
use recado_sys::net::Inbox;

use super::ending::{Cause, Ending};
use super::incoming::{ConnectionEvent, Incoming};
use super::machine::{Answer, Effect, Event, Input, Machine, Numbered, Obstacle, Query, Request, Start};
use super::receipt::Promise;
use super::store::{NotKept, Outbox, Slot, Token};
use super::trust::{ClusterIdentity, Trust};

/// Most rounds of one turn; each takes one input of each channel.
const TURN_MAX: usize = 64;
/// The longest sleep of the machine's thread.
const IDLE: Duration = Duration::from_secs(1);
/// The longest sleep of the machine's thread while the application has no room for notifications, and the
/// pause of the receiving thread after a socket error.
const HELD_BACK: Duration = Duration::from_millis(5);
/// The longest wait for the servers' answer to DISCONNECT. Without an answer the session stays open until the
/// device's next session fences it.
const DISCONNECT_WAIT: Duration = Duration::from_millis(500);
/// The interval at which the token follows what was seen; it does so at the end too.
const RAISE_EVERY: Duration = Duration::from_secs(1);
/// Slots per receive; each takes as many datagrams as the system joins.
const BATCH: usize = 2;

/// A request on its way to the machine, with the driver's half of its receipt.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) request: Request,
    pub(super) promise: Promise,
}

/// Every other input of the application.
#[derive(Debug)]
pub(super) enum Command {
    /// A query, and the channel for its answer.
    Query(QueryId, Query, Sender<(QueryId, Answer)>),
    /// The application no longer waits for the answer.
    GiveUp(QueryId),
    /// The application has taken everything up to this op.
    Taken(Op),
    /// End the session and the threads.
    Disconnect,
}

/// The session's id, view and primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its id.
    pub session: SessionId,
    /// The view that serves it.
    pub view: View,
    /// The primary's address.
    pub primary: SocketAddr,
    /// The op that admitted the device.
    pub created_op: Op,
}

/// The receiving thread.
pub(super) struct RecvThread {
    pub(super) socket: Arc<BoundSocket>,
    /// The thread ends when this is closed.
    pub(super) stop: Receiver<Infallible>,
    pub(super) datagrams: signal::Sender<(SocketAddr, Vec<u8>)>,
}

impl RecvThread {
    /// Receives until `stop` is closed. Checks that after every batch, and at the latest after the socket's
    /// time-out.
    pub(super) fn run(self) {
        let mut inbox = Inbox::new(BATCH);
        while self.stop.try_recv() == Err(TryRecvError::Empty) {
            if let Err(error) = self.socket.receive(&mut inbox) {
                tracing::debug!(%error, "receiving");
                // An interface that is down may come back; the pause keeps the thread from spinning until
                // then.
                let _ = self.stop.recv_timeout(HELD_BACK);
                continue;
            }
            for (from, bytes) in inbox.datagrams() {
                match self.datagrams.try_queue((from, bytes.to_vec())) {
                    Ok(()) | Err(TrySendError::Full(_)) => {}
                    Err(TrySendError::Disconnected(_)) => return,
                }
            }
            if !self.datagrams.is_empty() {
                self.datagrams.wake();
            }
        }
    }
}

/// The thread that owns the machine.
pub(super) struct Driver {
    pub(super) clock: MachineClock,
    pub(super) socket: Arc<BoundSocket>,
    pub(super) slot: Arc<Slot>,
    /// The trust policy, which also remembers the cluster's members.
    pub(super) trust: Trust,
    /// The cluster of this client.
    pub(super) cluster_identity: ClusterIdentity,
    /// Set by the senders of the next three channels.
    pub(super) signal: Signal,
    pub(super) requests: Receiver<PendingRequest>,
    pub(super) commands: Receiver<Command>,
    pub(super) datagrams: Receiver<(SocketAddr, Vec<u8>)>,
    pub(super) incoming: Sender<Incoming>,
    pub(super) events: Sender<ConnectionEvent>,
    pub(super) connection: Arc<Mutex<Option<Connection>>>,
    /// Why no session is open, until one is.
    pub(super) obstacle: Arc<Mutex<Obstacle>>,
    pub(super) ending: Arc<Ending>,
    /// The unanswered requests, and the file that keeps them.
    pub(super) outbox: Outbox,
    /// The highest op seen; none if the client keeps no files.
    pub(super) token: Option<Token>,
    /// What waits for the answers to them.
    pub(super) promises: BTreeMap<Seq, Promise>,
    /// Sent once, when the session is open; closed without it if the client ends before.
    pub(super) ready: Sender<()>,
}

/// The results of one turn.
#[derive(Default)]
struct Turn {
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// True if the outbox has new requests.
    asked: bool,
    /// The request that the machine is being asked; the machine numbers it at once.
    pending: Option<PendingRequest>,
    /// True if the session has just been opened. `ready` is sent after the connection's events are queued.
    connected: bool,
    over: Option<Cause>,
}

/// State that is kept between turns.
#[derive(Default)]
struct UnderWay {
    held_back: VecDeque<Incoming>,
    /// The queries without an answer, each with the channel for it. The machine bounds them: it answers one
    /// too many with Busy at once.
    queries: BTreeMap<QueryId, Sender<(QueryId, Answer)>>,
    goodbye: Option<Moment>,
    /// When the token was raised last.
    raised: Moment,
}

impl Driver {
    /// Runs until the session is over, the application has disconnected, or the files fail. On return every
    /// promise and query is dropped, which wakes up their owners.
    pub(super) fn run(mut self, start: Start) {
        let mut effects = Vec::new();
        let mut turn = Turn::default();
        let mut under_way = UnderWay::default();
        let mut machine = Machine::new(self.clock.now(), start, &mut effects);
        self.perform(&mut effects, &mut turn, &mut under_way);
        loop {
            self.end_turn(&machine, &mut turn);
            if let Some(cause) = turn.over.take() {
                tracing::debug!(?cause, "the client ends");
                self.ending.set(cause);
                // Dropping a promise wakes its owner, and a channel keeps its content until its senders are
                // gone.
                while self.requests.try_recv().is_ok() {}
                self.raise_token(machine.token());
                return self.outbox.close();
            }
            self.hand_over(&mut under_way);
            let now = self.clock.now();
            if now.since(under_way.raised) >= RAISE_EVERY {
                under_way.raised = now;
                self.raise_token(machine.token());
            }
            self.wait(&mut machine, &mut effects, &mut turn, &mut under_way);
            machine.flush(self.clock.now(), &mut effects);
            self.perform(&mut effects, &mut turn, &mut under_way);
        }
    }

    fn raise_token(&mut self, seen: Op) {
        self.token.iter_mut().for_each(|token| token.raise(seen));
    }

    /// Waits for an input, then takes up to [`TURN_MAX`] that are ready.
    fn wait(
        &mut self,
        machine: &mut Machine,
        effects: &mut Vec<Effect>,
        turn: &mut Turn,
        under_way: &mut UnderWay,
    ) {
        let now = self.clock.now();
        if under_way.goodbye.is_some_and(|at| at <= now) {
            turn.over = Some(Cause::Disconnected);
            return;
        }
        // A deadline that is already due again must not keep out inputs that have come.
        let deadline = [machine.next_deadline(), under_way.goodbye].into_iter().flatten().min();
        let mut wait = deadline.map_or(IDLE, |deadline| deadline.since(now).min(IDLE));
        if !under_way.held_back.is_empty() {
            wait = wait.min(HELD_BACK);
        }
        self.signal.wait(wait, || {
            !self.commands.is_empty()
                || (machine.has_room() && !self.requests.is_empty())
                || (under_way.held_back.is_empty() && !self.datagrams.is_empty())
        });
        // Of each channel one input in turn, so that none of them keeps out the others.
        for _ in 0..TURN_MAX {
            let taken = self.take_one_of_each(machine, effects, turn, under_way);
            if !taken || turn.over.is_some() {
                return;
            }
        }
        self.signal.set_for_next_wait();
    }

    /// Takes one input of each channel that has one and may be read now. Returns false if none has.
    fn take_one_of_each(
        &mut self,
        machine: &mut Machine,
        effects: &mut Vec<Effect>,
        turn: &mut Turn,
        under_way: &mut UnderWay,
    ) -> bool {
        let mut taken = false;
        if under_way.held_back.is_empty() {
            match self.datagrams.try_recv() {
                Ok((from, bytes)) => {
                    machine.handle(self.clock.now(), Input::Datagram { from, bytes }, effects);
                    taken = true;
                }
                Err(TryRecvError::Empty) => {}
                // The receiving thread never ends before this one.
                Err(TryRecvError::Disconnected) => turn.over = Some(Cause::Disconnected),
            }
            self.perform(effects, turn, under_way);
            if turn.over.is_some() {
                return true;
            }
        }
        let command = match self.commands.try_recv() {
            Ok(command) => {
                taken = true;
                Some(command)
            }
            Err(TryRecvError::Empty) => None,
            // The application has dropped every handle.
            Err(TryRecvError::Disconnected) => Some(Command::Disconnect),
        };
        if let Some(command) = command {
            if matches!(command, Command::Disconnect) && !planted(Mistake::AskedIsLost) {
                self.take_what_was_asked(machine, effects, turn, under_way);
            }
            self.command(command, machine, effects, under_way);
            self.perform(effects, turn, under_way);
            if turn.over.is_some() {
                return true;
            }
        }
        if machine.has_room() {
            match self.requests.try_recv() {
                Ok(pending) => {
                    self.request(pending, machine, effects, turn);
                    taken = true;
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    self.command(Command::Disconnect, machine, effects, under_way);
                }
            }
            self.perform(effects, turn, under_way);
        }
        taken
    }

    /// Takes the requests that were asked before the end, so that they are kept like the others and none is
    /// lost between two channels.
    fn take_what_was_asked(
        &mut self,
        machine: &mut Machine,
        effects: &mut Vec<Effect>,
        turn: &mut Turn,
        under_way: &mut UnderWay,
    ) {
        while machine.has_room()
            && let Ok(pending) = self.requests.try_recv()
        {
            self.request(pending, machine, effects, turn);
            self.perform(effects, turn, under_way);
        }
    }

    fn command(
        &mut self,
        command: Command,
        machine: &mut Machine,
        effects: &mut Vec<Effect>,
        under_way: &mut UnderWay,
    ) {
        let now = self.clock.now();
        match command {
            Command::Query(id, query, answer) => {
                under_way.queries.insert(id, answer);
                machine.handle(now, Input::Query(id, query), effects);
            }
            Command::GiveUp(id) => {
                under_way.queries.remove(&id);
                machine.handle(now, Input::GiveUp(id), effects);
            }
            Command::Taken(op) => machine.handle(now, Input::Taken(op), effects),
            Command::Disconnect if under_way.goodbye.is_some() => {}
            Command::Disconnect => {
                under_way.goodbye = Some(now + DISCONNECT_WAIT);
                machine.handle(now, Input::Disconnect, effects);
            }
        }
    }

    /// Gives a request to the machine, which returns its number as an event.
    fn request(
        &mut self,
        pending: PendingRequest,
        machine: &mut Machine,
        effects: &mut Vec<Effect>,
        turn: &mut Turn,
    ) {
        let request = pending.request.clone();
        turn.pending = Some(pending);
        machine.handle(self.clock.now(), Input::Request(request), effects);
    }

    fn perform(&mut self, effects: &mut Vec<Effect>, turn: &mut Turn, under_way: &mut UnderWay) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Datagram { to, bytes } => turn.datagrams.push((to, bytes)),
                Effect::Event(event) => self.on_event(event, turn, under_way),
            }
        }
    }

    fn on_event(&mut self, event: Event, turn: &mut Turn, under_way: &mut UnderWay) {
        match event {
            Event::Connected {
                session,
                view,
                primary,
                created_op: born,
                last_seq,
                cursor,
                lost,
                members,
            } => {
                if let Some(lost) = lost {
                    if let Err(error) = self.slot.set_cursor(cursor) {
                        turn.over = Some(Cause::Store(Arc::new(error)));
                        return;
                    }
                    self.news(ConnectionEvent::SetBack { from: lost, to: cursor });
                }
                let kept = self.outbox.kept();
                if kept.created_op != Some(born) || kept.given != last_seq {
                    self.outbox.known(born, last_seq);
                }
                *self.connection.lock() = Some(Connection { session, view, primary, created_op: born });
                turn.connected = true;
                self.trust.learn(&self.cluster_identity, &members);
                self.news(ConnectionEvent::Connected { session, view, addr: primary });
            }
            Event::PrimaryChanged { view, primary, pause } => {
                if let Some(connection) = self.connection.lock().as_mut() {
                    (connection.view, connection.primary) = (view, primary);
                }
                self.news(ConnectionEvent::PrimaryChanged { view, addr: primary, pause });
            }
            Event::PrimaryFound { primary, pause } => {
                self.news(ConnectionEvent::PrimaryFound { addr: primary, pause });
            }
            Event::Searching => self.news(ConnectionEvent::Searching),
            Event::Ended(code) => {
                self.news(ConnectionEvent::Ended(code));
                let forgotten = code == Code::UnknownDevice;
                let dir = self.slot.dir().to_owned();
                turn.over = Some(if forgotten { Cause::Forgotten(dir) } else { Cause::Ended(code) });
            }
            Event::OtherVersion { server, version } => {
                turn.over = Some(Cause::OtherVersion { server, version });
            }
            Event::Disconnected => turn.over = Some(Cause::Disconnected),
            Event::Copied(sign) => self.news(ConnectionEvent::Copied(sign)),
            Event::ServersSetBack { answered, last } => {
                self.token.iter_mut().for_each(|token| token.set_back(Op::ZERO));
                self.news(ConnectionEvent::ServersSetBack { answered, last });
            }
            Event::Numbered { seq, nonce } => {
                if let Some(PendingRequest { request, promise }) = turn.pending.take() {
                    promise.numbered(seq);
                    self.promises.insert(seq, promise);
                    self.outbox.asked(Numbered { seq, nonce, request });
                    turn.asked = true;
                }
            }
            Event::Renumbered(moved) => {
                let moving = moved.iter().map(|(from, to)| (*to, self.promises.remove(from)));
                for (seq, promise) in moving.collect::<Vec<_>>() {
                    let Some(promise) = promise else { continue };
                    promise.numbered(seq);
                    self.promises.insert(seq, promise);
                }
                self.news(ConnectionEvent::Renumbered { requests: moved.len() });
                self.outbox.renumbered(moved);
            }
            // The promise is dropped without a number, which tells the application that the request was not
            // sent.
            Event::NotTaken => turn.pending = None,
            // The machine sends it again.
            Event::Deferred { .. } => {}
            Event::MadeChannel { seq } => {
                self.promises.get(&seq).into_iter().for_each(Promise::made_channel);
            }
            Event::Timestamp { seq, timestamp } => {
                self.promises.get(&seq).into_iter().for_each(|promise| promise.timestamp(timestamp));
            }
            Event::Answered { seq, result } => {
                if let Some(promise) = self.promises.remove(&seq) {
                    promise.settle(result);
                    self.outbox.answered(seq);
                }
            }
            Event::Answer(id, answer) => {
                if let Some(asker) = under_way.queries.remove(&id) {
                    // The application may have stopped waiting.
                    let _ = asker.try_send((id, answer));
                }
            }
            Event::Notification(notification) => {
                under_way.held_back.push_back(Incoming::Notification(notification));
            }
            Event::Gap { after, upto } => under_way.held_back.push_back(Incoming::Gap { after, upto }),
        }
    }

    fn news(&self, event: ConnectionEvent) {
        // The channel may be full: an application that does not read its events loses the newest.
        let _ = self.events.try_send(event);
    }

    /// Keeps what has changed in the outbox, then sends the datagrams.
    fn end_turn(&mut self, machine: &Machine, turn: &mut Turn) {
        if self.connection.lock().is_none() {
            *self.obstacle.lock() = machine.obstacle();
        }
        let kept = self.outbox.end_turn(machine.told_below());
        // What may be in the file may be sent by a later client.
        if std::mem::take(&mut turn.asked) && kept.as_ref().err().is_none_or(|failed| !failed.undone) {
            self.promises.values().for_each(Promise::saved);
        }
        if let Err(NotKept { error, .. }) = kept {
            // A request that is not kept must not be sent: a later run of the device would not know of it.
            turn.datagrams.clear();
            turn.over = Some(Cause::Store(Arc::new(error)));
        }
        if std::mem::take(&mut turn.connected) {
            let _ = self.ready.try_send(());
        }
        if !turn.datagrams.is_empty() {
            let report = self.socket.send(&turn.datagrams);
            if let Some(error) = report.last_error {
                // A datagram that cannot be sent counts as lost; the machine retransmits.
                tracing::debug!(failed = report.failed, %error, "sending");
            }
            turn.datagrams.clear();
        }
    }

    /// Passes held-back notifications to the application, as far as it has room.
    fn hand_over(&self, under_way: &mut UnderWay) {
        while let Some(incoming) = under_way.held_back.pop_front() {
            match self.incoming.try_send(incoming) {
                Ok(()) => {}
                Err(TrySendError::Full(incoming)) => return under_way.held_back.push_front(incoming),
                // The receiver is dropped. Without an `ack` the notification is delivered again to the
                // device's next client.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }
}
