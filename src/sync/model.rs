//! Channels, locks and conditions whose every step `shuttle` chooses.
//!
//! Outside an exploration they are the real ones. Inside, all channels share one lock and one condition (the
//! *turn*): what is tested is what threads do with channels, not how channels are made.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use super::Mistake;

thread_local! {
    // All threads of an exploration are coroutines on the thread of its test.
    static TURN: RefCell<Option<Arc<Turn>>> = const { RefCell::new(None) };
    static MISTAKE: Cell<Option<Mistake>> = const { Cell::new(None) };
}

pub(crate) fn planted(mistake: Mistake) -> bool {
    MISTAKE.get() == Some(mistake)
}

/// When a wait with a time-out gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeOuts {
    /// At any moment: whoever should have woken it may have been arbitrarily slow.
    Any,
    /// Never, so that a wake-up that is missing is a deadlock, which `shuttle` finds.
    Never,
}

/// Runs `scenario` once a seed, each in an order of its own. A failure prints the seed;
/// `SHUTTLE_SEED=... cargo test NAME` plays that one alone.
pub(crate) fn explore(time_outs: TimeOuts, seeds: u64, scenario: impl Fn() + Clone + Send + Sync + 'static) {
    let given = std::env::var("SHUTTLE_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in given.map_or(0..seeds, |seed| seed..seed + 1) {
        if let Err(panic) = run(time_outs, seed, scenario.clone()) {
            eprintln!("SHUTTLE_SEED={seed} plays the same order again");
            resume_unwind(panic);
        }
    }
}

/// How many seeds it takes to find a planted mistake, up to `seeds`.
pub(crate) fn seeds_to_find(
    mistake: Mistake,
    time_outs: TimeOuts,
    seeds: u64,
    scenario: impl Fn() + Clone + Send + Sync + 'static,
) -> Option<u64> {
    (0..seeds).find(|seed| {
        MISTAKE.set(Some(mistake));
        let found = run(time_outs, *seed, scenario.clone()).is_err();
        MISTAKE.set(None);
        found
    })
}

fn run(
    time_outs: TimeOuts,
    seed: u64,
    scenario: impl Fn() + Send + Sync + 'static,
) -> std::thread::Result<()> {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(100_000);
    let scenario = move || {
        TURN.set(Some(Arc::new(Turn::new(time_outs))));
        scenario();
    };
    // Half of them with few changes of threads, which find what needs one thread to be far behind.
    let ran = catch_unwind(AssertUnwindSafe(|| match seed % 2 {
        0 => Runner::new(RandomScheduler::new_from_seed(seed, 1), config).run(scenario),
        _ => Runner::new(PctScheduler::new_from_seed(seed, 3, 1), config).run(scenario),
    }));
    TURN.set(None);
    ran.map(drop)
}

/// A step at which any other thread may go on: where the real thing would wait for the disk.
pub(crate) fn step() {
    if TURN.with_borrow(Option::is_some) {
        shuttle::thread::yield_now();
    }
}

pub(crate) fn flock(file: &std::fs::File) -> std::io::Result<()> {
    use rustix::fs::FlockOperation::{LockExclusive, NonBlockingLockExclusive};
    if TURN.with_borrow(Option::is_none) {
        return Ok(rustix::fs::flock(file, LockExclusive)?);
    }
    // All threads of the model are one of the system's, which must not wait.
    while let Err(error) = rustix::fs::flock(file, NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(error.into());
        }
        step();
    }
    Ok(())
}

/// As without the model, but for a mistake that is planted.
pub(crate) fn locked<L, T, E>(
    lock: impl FnOnce() -> Result<L, E>,
    read: impl FnOnce() -> Result<T, E>,
) -> Result<(L, T), E> {
    if planted(Mistake::ReadBeforeLock) {
        let early = read();
        step();
        return Ok((lock()?, early?));
    }
    let held = lock()?;
    Ok((held, read()?))
}

/// The virtual time, in microseconds.
pub(crate) fn now_us() -> Option<u64> {
    TURN.with_borrow(|turn| turn.as_ref().map(|turn| turn.now_us.load(Ordering::Relaxed)))
}

fn turn() -> Option<Arc<Turn>> {
    TURN.with_borrow(Clone::clone)
}

/// What all channels of one execution share.
pub(crate) struct Turn {
    lock: shuttle::sync::Mutex<()>,
    changed: shuttle::sync::Condvar,
    now_us: AtomicU64,
    time_outs: TimeOuts,
}

struct TimedOut;

/// How often a wait looks again before it times out; none if it never does.
fn looks(time_outs: TimeOuts, patience: Option<Duration>) -> Option<u32> {
    match (patience?, time_outs) {
        (Duration::ZERO, _) => Some(0),
        (_, TimeOuts::Never) => None,
        (_, TimeOuts::Any) => Some(shuttle::rand::thread_rng().gen_range(0..6)),
    }
}

impl Turn {
    fn new(time_outs: TimeOuts) -> Turn {
        let (lock, changed) = (shuttle::sync::Mutex::new(()), shuttle::sync::Condvar::new());
        Turn { lock, changed, now_us: AtomicU64::new(1_000_000), time_outs }
    }

    fn pass(&self, patience: Option<Duration>) {
        let us = u64::try_from(patience.unwrap_or_default().as_micros()).unwrap_or(u64::MAX);
        self.now_us.fetch_add(us.min(1 << 40), Ordering::Relaxed);
    }

    /// Waits until `act` does something, and wakes the others for what it did.
    fn when<R>(&self, patience: Option<Duration>, mut act: impl FnMut() -> Option<R>) -> Result<R, TimedOut> {
        // Time passes also while there is always something to do.
        self.pass(Some(Duration::from_micros(200)));
        let mut left = looks(self.time_outs, patience);
        let mut turn = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(done) = act() {
                self.changed.notify_all();
                return Ok(done);
            }
            match &mut left {
                None => turn = self.changed.wait(turn).unwrap_or_else(PoisonError::into_inner),
                Some(0) => {
                    self.pass(patience);
                    drop(turn);
                    // Whoever only looks keeps nobody else from going on.
                    shuttle::thread::yield_now();
                    return Err(TimedOut);
                }
                Some(left) => {
                    *left -= 1;
                    drop(turn);
                    shuttle::thread::yield_now();
                    turn = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Does something that needs no waiting; also while a failed execution is unwound, where nothing may wait.
    fn change(&self, act: impl FnOnce()) {
        if std::thread::panicking() {
            return act();
        }
        let _turn = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        act();
        self.changed.notify_all();
    }
}

/// crossbeam's channels, or the model's.
pub(crate) mod channel {
    use std::collections::VecDeque;

    use crossbeam::channel as real;
    pub(crate) use crossbeam::channel::{
        ReadyTimeoutError, RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError,
        TrySendError,
    };

    use super::*;

    struct Chan<T> {
        turn: Arc<Turn>,
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

    /// A sending end of the model, counted.
    pub(crate) struct Tx<T>(Arc<Chan<T>>);
    /// A receiving end, counted.
    pub struct Rx<T>(Arc<Chan<T>>);

    pub(crate) enum Sender<T> {
        Real(real::Sender<T>),
        Model(Tx<T>),
    }

    pub enum Receiver<T> {
        Real(real::Receiver<T>),
        Model(Rx<T>),
    }

    pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
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

    pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
        match turn() {
            None => {
                let (tx, rx) = real::unbounded();
                (Sender::Real(tx), Receiver::Real(rx))
            }
            Some(_) => bounded(usize::MAX),
        }
    }

    pub(crate) fn never<T>() -> Receiver<T> {
        match turn() {
            None => Receiver::Real(real::never()),
            Some(turn) => {
                // A sender that nobody has.
                let state = State { queue: VecDeque::new(), senders: 1, receivers: 1 };
                Receiver::Model(Rx(Arc::new(Chan { turn, capacity: 0, state: state.into() })))
            }
        }
    }

    impl<T> Tx<T> {
        /// What has no room comes back: for good if nobody can receive it.
        fn send(&self, value: T, patience: Option<Duration>) -> Result<(), SendTimeoutError<T>> {
            let mut value = Some(value);
            let sent = self.0.turn.when(patience, || {
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
                _ => Ok(()),
            }
        }
    }

    impl<T> Sender<T> {
        pub(crate) fn send(&self, value: T) -> Result<(), SendError<T>> {
            match self {
                Sender::Real(tx) => tx.send(value),
                Sender::Model(tx) => tx.send(value, None).map_err(|error| SendError(error.into_inner())),
            }
        }

        pub(crate) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
            match self {
                Sender::Real(tx) => tx.try_send(value),
                Sender::Model(tx) => tx.send(value, Some(Duration::ZERO)).map_err(|error| match error {
                    SendTimeoutError::Timeout(value) => TrySendError::Full(value),
                    SendTimeoutError::Disconnected(value) => TrySendError::Disconnected(value),
                }),
            }
        }

        pub(crate) fn send_timeout(&self, value: T, patience: Duration) -> Result<(), SendTimeoutError<T>> {
            match self {
                Sender::Real(tx) => tx.send_timeout(value, patience),
                Sender::Model(tx) => tx.send(value, Some(patience)),
            }
        }
    }

    impl<T> Rx<T> {
        fn recv(&self, patience: Option<Duration>) -> Result<T, RecvTimeoutError> {
            let received = self.0.turn.when(patience, || {
                self.0.state(|state| match state.queue.pop_front() {
                    Some(value) => Some(Ok(value)),
                    None if state.senders == 0 => Some(Err(RecvTimeoutError::Disconnected)),
                    None => None,
                })
            });
            received.unwrap_or(Err(RecvTimeoutError::Timeout))
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn recv(&self) -> Result<T, RecvError> {
            match self {
                Receiver::Real(rx) => rx.recv(),
                Receiver::Model(rx) => rx.recv(None).map_err(|_| RecvError),
            }
        }

        pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
            match self {
                Receiver::Real(rx) => rx.try_recv(),
                Receiver::Model(rx) => rx.recv(Some(Duration::ZERO)).map_err(|error| match error {
                    RecvTimeoutError::Timeout => TryRecvError::Empty,
                    RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
                }),
            }
        }

        pub(crate) fn recv_timeout(&self, patience: Duration) -> Result<T, RecvTimeoutError> {
            match self {
                Receiver::Real(rx) => rx.recv_timeout(patience),
                Receiver::Model(rx) => rx.recv(Some(patience)),
            }
        }

        pub(crate) fn len(&self) -> usize {
            match self {
                Receiver::Real(rx) => rx.len(),
                Receiver::Model(rx) => rx.0.state(|state| state.queue.len()),
            }
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.len() == 0
        }

        pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
            std::iter::from_fn(|| self.recv().ok())
        }

        pub(crate) fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
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
    pub(crate) struct Select<'a> {
        real: real::Select<'a>,
        model: Vec<&'a dyn Ready>,
    }

    trait Ready {
        fn is_ready(&self) -> bool;
        fn turn(&self) -> &Turn;
    }

    impl<T> Ready for Chan<T> {
        fn is_ready(&self) -> bool {
            self.state(|state| !state.queue.is_empty() || state.senders == 0)
        }

        fn turn(&self) -> &Turn {
            &self.turn
        }
    }

    impl<'a> Select<'a> {
        pub(crate) fn new() -> Select<'a> {
            Select { real: real::Select::new(), model: Vec::new() }
        }

        pub(crate) fn recv<T>(&mut self, receiver: &'a Receiver<T>) -> usize {
            match receiver {
                Receiver::Real(rx) => self.real.recv(rx),
                Receiver::Model(rx) => {
                    self.model.push(&*rx.0);
                    self.model.len() - 1
                }
            }
        }

        pub(crate) fn ready(&mut self) -> usize {
            match self.model.first() {
                None => self.real.ready(),
                Some(_) => self.model_ready(None).unwrap_or_default(),
            }
        }

        pub(crate) fn try_ready(&mut self) -> Result<usize, real::TryReadyError> {
            match self.model.first() {
                None => self.real.try_ready(),
                Some(_) => self.model_ready(Some(Duration::ZERO)).map_err(|TimedOut| real::TryReadyError),
            }
        }

        pub(crate) fn ready_timeout(&mut self, patience: Duration) -> Result<usize, ReadyTimeoutError> {
            match self.model.first() {
                None => self.real.ready_timeout(patience),
                Some(_) => self.model_ready(Some(patience)).map_err(|TimedOut| ReadyTimeoutError),
            }
        }

        fn model_ready(&self, patience: Option<Duration>) -> Result<usize, TimedOut> {
            self.model[0].turn().when(patience, || {
                let ready: Vec<usize> =
                    (0..self.model.len()).filter(|at| self.model[*at].is_ready()).collect();
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
            self.0.turn.change(|| self.0.state(|state| state.senders -= 1));
        }
    }

    impl<T> Drop for Rx<T> {
        fn drop(&mut self) {
            let mut queued = VecDeque::new();
            self.0.turn.change(|| {
                self.0.state(|state| {
                    state.receivers -= 1;
                    // As crossbeam does: what nobody can receive is dropped, and what waits on it wakes up.
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
}

/// std's threads, or shuttle's.
pub(crate) mod thread {
    use super::*;
    use std::io;

    pub(crate) struct Builder(std::thread::Builder);

    #[derive(Debug)]
    pub(crate) enum JoinHandle<T> {
        Real(std::thread::JoinHandle<T>),
        Model(shuttle::thread::JoinHandle<T>),
    }

    impl Builder {
        pub(crate) fn new() -> Builder {
            Builder(std::thread::Builder::new())
        }

        pub(crate) fn name(self, name: String) -> Builder {
            Builder(self.0.name(name))
        }

        pub(crate) fn spawn<T: Send + 'static>(
            self,
            work: impl FnOnce() -> T + Send + 'static,
        ) -> io::Result<JoinHandle<T>> {
            Ok(match turn() {
                None => JoinHandle::Real(self.0.spawn(work)?),
                Some(_) => JoinHandle::Model(shuttle::thread::spawn(work)),
            })
        }
    }

    /// In the model a panic ends the execution, and not the process.
    pub(crate) fn panicking() -> bool {
        turn().is_none() && std::thread::panicking()
    }

    pub(crate) fn park_timeout(patience: Duration) {
        match turn() {
            None => std::thread::park_timeout(patience),
            Some(turn) => {
                turn.pass(Some(patience));
                step();
            }
        }
    }

    impl<T> JoinHandle<T> {
        pub(crate) fn join(self) -> std::thread::Result<T> {
            match self {
                JoinHandle::Real(handle) => handle.join(),
                JoinHandle::Model(handle) => handle.join(),
            }
        }
    }
}

/// parking_lot's lock, or the model's.
pub(crate) enum Mutex<T> {
    Real(parking_lot::Mutex<T>),
    Model(shuttle::sync::Mutex<T>),
}

pub(crate) enum MutexGuard<'a, T> {
    Real(parking_lot::MutexGuard<'a, T>),
    /// None while a condition waits.
    Model(&'a shuttle::sync::Mutex<T>, Option<shuttle::sync::MutexGuard<'a, T>>),
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        match turn() {
            None => Mutex::Real(parking_lot::Mutex::new(value)),
            Some(_) => Mutex::Model(shuttle::sync::Mutex::new(value)),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        match self {
            Mutex::Real(lock) => MutexGuard::Real(lock.lock()),
            Mutex::Model(lock) => {
                MutexGuard::Model(lock, Some(lock.lock().unwrap_or_else(PoisonError::into_inner)))
            }
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex { .. }")
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            MutexGuard::Real(guard) => guard,
            MutexGuard::Model(_, guard) => guard.as_deref().expect("no condition waits"),
        }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match self {
            MutexGuard::Real(guard) => guard,
            MutexGuard::Model(_, guard) => guard.as_deref_mut().expect("no condition waits"),
        }
    }
}

/// parking_lot's condition, or the model's.
pub(crate) enum Condvar {
    Real(parking_lot::Condvar),
    Model(Arc<Turn>, shuttle::sync::Condvar),
}

impl Condvar {
    pub(crate) fn new() -> Condvar {
        match turn() {
            None => Condvar::Real(parking_lot::Condvar::new()),
            Some(turn) => Condvar::Model(turn, shuttle::sync::Condvar::new()),
        }
    }

    pub(crate) fn notify_all(&self) {
        match self {
            Condvar::Real(changed) => {
                changed.notify_all();
            }
            Condvar::Model(..) if std::thread::panicking() => {}
            Condvar::Model(_, changed) => changed.notify_all(),
        }
    }

    pub(crate) fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut condition: impl FnMut(&mut T) -> bool,
        patience: Duration,
    ) {
        match (self, guard) {
            (Condvar::Real(changed), MutexGuard::Real(guard)) => {
                changed.wait_while_for(guard, condition, patience);
            }
            (Condvar::Model(turn, changed), MutexGuard::Model(lock, slot)) => {
                let mut left = looks(turn.time_outs, Some(patience));
                while slot.as_deref_mut().is_some_and(&mut condition) {
                    let Some(guard) = slot.take() else { return };
                    let guard = match &mut left {
                        None => changed.wait(guard),
                        Some(0) => {
                            turn.pass(Some(patience));
                            drop(guard);
                            shuttle::thread::yield_now();
                            *slot = Some(lock.lock().unwrap_or_else(PoisonError::into_inner));
                            return;
                        }
                        Some(left) => {
                            *left -= 1;
                            drop(guard);
                            shuttle::thread::yield_now();
                            lock.lock()
                        }
                    };
                    *slot = Some(guard.unwrap_or_else(PoisonError::into_inner));
                }
            }
            _ => unreachable!("a lock and its condition are of one world"),
        }
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condvar { .. }")
    }
}
