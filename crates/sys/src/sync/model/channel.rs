//! Channels: crossbeam's, or the model's.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crossbeam::channel as real;
pub use crossbeam::channel::{
    ReadyTimeoutError, RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};

use shuttle::rand::Rng;

use super::{Key, Scheduler, TimedOut, key_of, turn};

struct Chan<T> {
    turn: Arc<Scheduler>,
    capacity: usize,
    state: std::sync::Mutex<State<T>>,
}

struct State<T> {
    queue: VecDeque<T>,
    senders: usize,
    receivers: usize,
}

impl<T> Chan<T> {
    fn state<R>(&self, act: impl FnOnce(&mut State<T>) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A sending end in the model; its channel counts it.
pub struct Tx<T>(Arc<Chan<T>>);
/// A receiving end in the model; its channel counts it.
pub struct Rx<T>(Arc<Chan<T>>);

pub enum Sender<T> {
    Real(real::Sender<T>),
    Model(Tx<T>),
}

pub enum Receiver<T> {
    Real(real::Receiver<T>),
    Model(Rx<T>),
}

/// # Panics
/// In an exploration: no program runs there.
pub fn to_program<T>(receiver: Receiver<T>) -> real::Receiver<T> {
    match &receiver {
        Receiver::Real(receiver) => receiver.clone(),
        Receiver::Model(_) => panic!("a program's channel in a model"),
    }
}

pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    match turn() {
        None => {
            let (tx, rx) = real::bounded(capacity);
            (Sender::Real(tx), Receiver::Real(rx))
        }
        Some(turn) => {
            let state = State { queue: VecDeque::new(), senders: 1, receivers: 1 };
            let chan = Arc::new(Chan { turn, capacity, state: state.into() });
            (Sender::Model(Tx(chan.clone())), Receiver::Model(Rx(chan)))
        }
    }
}

impl<T> Tx<T> {
    /// Sends a value. An error returns it: `Timeout` if there was no room, `Disconnected` if no receiver is
    /// left.
    fn send(&self, value: T, patience: Option<Duration>) -> Result<(), SendTimeoutError<T>> {
        let mut value = Some(value);
        let key = key_of(&self.0);
        let sent = self.0.turn.when(&[key], patience, || {
            self.0.state(|state| {
                if state.receivers == 0 {
                    return Some(false);
                }
                let value = (state.queue.len() < self.0.capacity).then(|| value.take()).flatten()?;
                state.queue.push_back(value);
                Some(true)
            })
        });
        match (sent, value) {
            (Ok(false), Some(value)) => Err(SendTimeoutError::Disconnected(value)),
            (Err(TimedOut), Some(value)) => Err(SendTimeoutError::Timeout(value)),
            _ => {
                self.0.turn.wake(key);
                Ok(())
            }
        }
    }
}

impl<T> Sender<T> {
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        match self {
            Sender::Real(tx) => tx.send(value),
            Sender::Model(tx) => tx.send(value, None).map_err(|error| SendError(error.into_inner())),
        }
    }

    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        match self {
            Sender::Real(tx) => tx.try_send(value),
            Sender::Model(tx) => tx.send(value, Some(Duration::ZERO)).map_err(|error| match error {
                SendTimeoutError::Timeout(value) => TrySendError::Full(value),
                SendTimeoutError::Disconnected(value) => TrySendError::Disconnected(value),
            }),
        }
    }

    pub fn send_timeout(&self, value: T, patience: Duration) -> Result<(), SendTimeoutError<T>> {
        match self {
            Sender::Real(tx) => tx.send_timeout(value, patience),
            Sender::Model(tx) => tx.send(value, Some(patience)),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Sender::Real(tx) => tx.len(),
            Sender::Model(Tx(chan)) => chan.state(|state| state.queue.len()),
        }
    }
}

impl<T> Rx<T> {
    fn recv(&self, patience: Option<Duration>) -> Result<T, RecvTimeoutError> {
        let key = key_of(&self.0);
        let received = self.0.turn.when(&[key], patience, || {
            self.0.state(|state| match state.queue.pop_front() {
                Some(value) => Some(Ok(value)),
                None if state.senders == 0 => Some(Err(RecvTimeoutError::Disconnected)),
                None => None,
            })
        });
        if let Ok(Ok(_)) = received {
            self.0.turn.wake(key);
        }
        received.unwrap_or(Err(RecvTimeoutError::Timeout))
    }
}

impl<T> Receiver<T> {
    pub fn recv(&self) -> Result<T, RecvError> {
        match self {
            Receiver::Real(rx) => rx.recv(),
            Receiver::Model(rx) => rx.recv(None).map_err(|_| RecvError),
        }
    }

    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match self {
            Receiver::Real(rx) => rx.try_recv(),
            Receiver::Model(rx) => rx.recv(Some(Duration::ZERO)).map_err(|error| match error {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            }),
        }
    }

    pub fn recv_timeout(&self, patience: Duration) -> Result<T, RecvTimeoutError> {
        match self {
            Receiver::Real(rx) => rx.recv_timeout(patience),
            Receiver::Model(rx) => rx.recv(Some(patience)),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Receiver::Real(rx) => rx.len(),
            Receiver::Model(rx) => rx.0.state(|state| state.queue.len()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.recv().ok())
    }

    pub fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.try_recv().ok())
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Box<dyn Iterator<Item = T> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

/// Waits on several receivers.
pub struct Select<'a> {
    real: real::Select<'a>,
    model: Vec<&'a dyn Ready>,
    on: Vec<Key>,
}

trait Ready {
    fn is_ready(&self) -> bool;
    fn turn(&self) -> &Scheduler;
}

impl<T> Ready for Chan<T> {
    fn is_ready(&self) -> bool {
        self.state(|state| !state.queue.is_empty() || state.senders == 0)
    }

    fn turn(&self) -> &Scheduler {
        &self.turn
    }
}

impl<'a> Select<'a> {
    pub fn new() -> Select<'a> {
        Select { real: real::Select::new(), model: Vec::new(), on: Vec::new() }
    }

    pub fn recv<T>(&mut self, receiver: &'a Receiver<T>) -> usize {
        match receiver {
            Receiver::Real(rx) => self.real.recv(rx),
            Receiver::Model(rx) => {
                self.model.push(&*rx.0);
                self.on.push(key_of(&rx.0));
                self.model.len() - 1
            }
        }
    }

    pub fn ready(&mut self) -> usize {
        match self.model.first() {
            None => self.real.ready(),
            Some(_) => self.model_ready(None).unwrap_or_default(),
        }
    }

    pub fn try_ready(&mut self) -> Result<usize, real::TryReadyError> {
        match self.model.first() {
            None => self.real.try_ready(),
            Some(_) => self.model_ready(Some(Duration::ZERO)).map_err(|TimedOut| real::TryReadyError),
        }
    }

    pub fn ready_timeout(&mut self, patience: Duration) -> Result<usize, ReadyTimeoutError> {
        match self.model.first() {
            None => self.real.ready_timeout(patience),
            Some(_) => self.model_ready(Some(patience)).map_err(|TimedOut| ReadyTimeoutError),
        }
    }

    fn model_ready(&self, patience: Option<Duration>) -> Result<usize, TimedOut> {
        self.model[0].turn().when(&self.on, patience, || {
            let ready: Vec<usize> = (0..self.model.len()).filter(|at| self.model[*at].is_ready()).collect();
            (!ready.is_empty()).then(|| ready[shuttle::rand::thread_rng().gen_range(0..ready.len())])
        })
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        match self {
            Sender::Real(tx) => Sender::Real(tx.clone()),
            Sender::Model(Tx(chan)) => {
                chan.state(|state| state.senders += 1);
                Sender::Model(Tx(chan.clone()))
            }
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        match self {
            Receiver::Real(rx) => Receiver::Real(rx.clone()),
            Receiver::Model(Rx(chan)) => {
                chan.state(|state| state.receivers += 1);
                Receiver::Model(Rx(chan.clone()))
            }
        }
    }
}

impl<T> Drop for Tx<T> {
    fn drop(&mut self) {
        self.0.turn.change(key_of(&self.0), || self.0.state(|state| state.senders -= 1));
    }
}

impl<T> Drop for Rx<T> {
    fn drop(&mut self) {
        let mut queued = VecDeque::new();
        self.0.turn.change(key_of(&self.0), || {
            self.0.state(|state| {
                state.receivers -= 1;
                // Values that nobody can receive are dropped, as crossbeam does, and waiting senders wake up.
                if state.receivers == 0 {
                    queued = std::mem::take(&mut state.queue);
                }
            });
        });
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender { .. }")
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver { .. }")
    }
}
