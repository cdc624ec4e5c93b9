//! Model of threads: channels, locks, condition variables, threads and sockets whose every step `shuttle`
//! chooses.
//!
//! Outside an exploration they are the real ones. Inside it, all of them wait in one place (the *turn*):
//! the tests are about how threads use channels, not about how channels are implemented.

pub mod channel;
mod lock;
mod socket;
pub mod thread;

pub use self::channel::to_program;
pub use self::lock::{Condvar, Mutex};
pub use self::socket::{BoundSocket, PeerSocket, Waker};

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use super::Mistake;

thread_local! {
    // All threads of an exploration are coroutines on the thread of its test.
    static TURN: RefCell<Option<Arc<Scheduler>>> = const { RefCell::new(None) };
    static MISTAKE: Cell<Option<Mistake>> = const { Cell::new(None) };
}

/// Returns true while a failed execution is unwound, in which no thread may wait or let others go on.
pub fn unwinds() -> bool {
    turn().is_some() && std::thread::panicking()
}

pub fn planted(mistake: Mistake) -> bool {
    MISTAKE.get() == Some(mistake)
}

/// Policy for when a wait with a time-out gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeOuts {
    /// At any moment: the thread that should have woken it may have been arbitrarily slow.
    Any,
    /// Never, so that a missing wake-up is a deadlock, which `shuttle` finds.
    Never,
    /// Only when no thread can go on without one, and then the earliest. A missing wake-up then costs time,
    /// which a scenario may bound.
    Last,
}

/// Runs `scenario` once per seed, each time in another order. A failure prints the seed;
/// `SHUTTLE_SEED=... cargo test --workspace --lib NAME` runs that seed alone, `SHUTTLE_SEEDS=...` sets the
/// number of seeds.
pub fn explore(time_outs: TimeOuts, seeds: u64, scenario: impl Fn() + Clone + Send + Sync + 'static) {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let (given, seeds) = (number("SHUTTLE_SEED"), number("SHUTTLE_SEEDS").unwrap_or(seeds));
    for seed in given.map_or(0..seeds, |seed| seed..seed + 1) {
        if let Err(panic) = run(time_outs, seed, scenario.clone()) {
            eprintln!("SHUTTLE_SEED={seed} plays the same order again");
            resume_unwind(panic);
        }
    }
}

/// Returns the first seed that finds a planted bug, of the first `seeds`.
pub fn seeds_to_find(
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
    config.max_steps = MaxSteps::FailAfter(400_000);
    let scenario = move || {
        TURN.set(Some(Arc::new(Scheduler::new(time_outs))));
        scenario();
    };
    // Half of the seeds switch threads rarely, which finds bugs that need one thread to be far behind.
    let ran = catch_unwind(AssertUnwindSafe(|| match seed % 2 {
        0 => Runner::new(RandomScheduler::new_from_seed(seed, 1), config).run(scenario),
        _ => Runner::new(PctScheduler::new_from_seed(seed, 3, 1), config).run(scenario),
    }));
    TURN.set(None);
    ran.map(drop)
}

/// A step at which any other thread may go on: a point where real code would wait for the disk.
pub fn step() {
    if TURN.with_borrow(Option::is_some) && !std::thread::panicking() {
        shuttle::thread::yield_now();
    }
}

pub fn flock(file: &std::fs::File) -> std::io::Result<()> {
    use rustix::fs::FlockOperation::{LockExclusive, NonBlockingLockExclusive};
    if TURN.with_borrow(Option::is_none) {
        return Ok(rustix::fs::flock(file, LockExclusive)?);
    }
    // All threads of the model run on one thread of the system, which must not block.
    while let Err(error) = rustix::fs::flock(file, NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(error.into());
        }
        step();
    }
    Ok(())
}

/// Does as without the model, except for a planted bug.
pub fn locked<L, T, E>(
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
pub fn now_us() -> Option<u64> {
    TURN.with_borrow(|turn| turn.as_ref().map(|turn| turn.now_us()))
}

/// Random bytes in the model, drawn from the seed, like the order of threads.
pub fn random<const N: usize>() -> Option<[u8; N]> {
    turn().map(|_| {
        let mut bytes = [0; N];
        shuttle::rand::thread_rng().fill(&mut bytes[..]);
        bytes
    })
}

/// A number below `bound`, drawn from the seed.
pub fn below(bound: u64) -> u64 {
    shuttle::rand::thread_rng().gen_range(0..bound)
}

/// Returns true if time-outs come in their order, so that virtual time tells how long something waited.
pub fn time_is_true() -> bool {
    turn().is_some_and(|turn| turn.time_outs == TimeOuts::Last)
}

fn turn() -> Option<Arc<Scheduler>> {
    TURN.with_borrow(Clone::clone)
}

/// State shared by all threads of one execution: the time, the ports, and the waiting threads.
///
/// All threads are coroutines on one thread of the system, and switch only at a step. So code between two
/// steps needs no lock; the locks here only satisfy the compiler.
pub struct Scheduler {
    point: shuttle::sync::Mutex<()>,
    now_us: AtomicU64,
    time_outs: TimeOuts,
    threads: std::sync::Mutex<Threads>,
    ports: std::sync::Mutex<socket::Ports>,
}

/// Address of an object that threads can wait for.
type Key = usize;

fn key_of<T>(thing: &Arc<T>) -> Key {
    Arc::as_ptr(thing).addr()
}

struct TimedOut;

/// Threads that run, and threads that wait.
struct Threads {
    running: usize,
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
}

struct Waiting {
    thread: shuttle::thread::Thread,
    on: Vec<Key>,
    /// Virtual time at which it gives up, in microseconds, if time-outs come in their order.
    until: Option<u64>,
}

impl Scheduler {
    fn new(time_outs: TimeOuts) -> Scheduler {
        Scheduler {
            point: shuttle::sync::Mutex::new(()),
            now_us: AtomicU64::new(1_000_000),
            time_outs,
            threads: std::sync::Mutex::new(Threads { running: 1, waiting: BTreeMap::new(), next: 0 }),
            ports: std::sync::Mutex::default(),
        }
    }

    fn threads(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        self.now_us.load(Ordering::Relaxed)
    }

    fn pass(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.now_us.fetch_add(us.min(1 << 40), Ordering::Relaxed);
    }

    /// A point at which any other thread may go on.
    fn point(&self) {
        drop(self.point.lock());
    }

    /// Number of times that a wait checks again before it times out; `None` if it waits to be woken.
    fn looks(&self, patience: Option<Duration>) -> Option<u32> {
        match (patience?, self.time_outs) {
            (Duration::ZERO, _) => Some(0),
            (_, TimeOuts::Never | TimeOuts::Last) => None,
            (_, TimeOuts::Any) => Some(shuttle::rand::thread_rng().gen_range(0..6)),
        }
    }

    /// Waits until `act` returns a result, which may happen after an object in `on` has changed.
    fn when<R>(
        &self,
        on: &[Key],
        patience: Option<Duration>,
        mut act: impl FnMut() -> Option<R>,
    ) -> Result<R, TimedOut> {
        // A failed execution is being unwound: nothing may wait.
        if std::thread::panicking() {
            return act().ok_or(TimedOut);
        }
        // Time passes even if there is always something to do.
        self.pass(match self.time_outs {
            TimeOuts::Any | TimeOuts::Never => Duration::from_micros(200),
            TimeOuts::Last => Duration::from_micros(10),
        });
        let mut left = self.looks(patience);
        let until = patience.filter(|_| self.time_outs == TimeOuts::Last).map(|patience| {
            self.now_us().saturating_add(u64::try_from(patience.as_micros()).unwrap_or(u64::MAX))
        });
        self.point();
        loop {
            if let Some(done) = act() {
                return Ok(done);
            }
            match &mut left {
                None if until.is_some_and(|until| until <= self.now_us()) => return Err(TimedOut),
                None => self.park(on, until),
                Some(0) => {
                    self.pass(patience.unwrap_or_default());
                    // A thread that only polls must not keep others from going on. Where time-outs come in
                    // their order, there is no such thread.
                    if self.time_outs != TimeOuts::Last {
                        shuttle::thread::yield_now();
                    }
                    return Err(TimedOut);
                }
                Some(left) => {
                    *left -= 1;
                    shuttle::thread::yield_now();
                }
            }
        }
    }

    fn park(&self, on: &[Key], until: Option<u64>) {
        let me = {
            let mut threads = self.threads();
            let me = threads.next;
            threads.next += 1;
            threads.running -= 1;
            let thread = shuttle::thread::current();
            threads.waiting.insert(me, Waiting { thread, on: on.to_vec(), until });
            me
        };
        self.let_time_pass();
        shuttle::thread::park();
        let mut threads = self.threads();
        if threads.waiting.remove(&me).is_some() {
            threads.running += 1;
        }
    }

    /// If no thread runs, advances time to the earliest time-out and wakes its thread. If no thread has a
    /// time-out, `shuttle` reports a deadlock.
    fn let_time_pass(&self) {
        let mut threads = self.threads();
        if threads.running > 0 {
            return;
        }
        let times = threads.waiting.iter().filter_map(|(at, waiting)| Some((waiting.until?, *at)));
        let Some((until, first)) = times.min() else { return };
        self.now_us.fetch_max(until, Ordering::Relaxed);
        let first = threads.waiting.remove(&first).map(|waiting| waiting.thread);
        threads.running += 1;
        drop(threads);
        first.iter().for_each(shuttle::thread::Thread::unpark);
    }

    /// Wakes the threads that wait for this object.
    fn wake(&self, on: Key) {
        if std::thread::panicking() {
            return;
        }
        let woken: Vec<Waiting> = {
            let mut threads = self.threads();
            let woken: Vec<_> =
                threads.waiting.extract_if(.., |_, waiting| waiting.on.contains(&on)).collect();
            threads.running += woken.len();
            woken.into_iter().map(|(_, waiting)| waiting).collect()
        };
        woken.iter().for_each(|waiting| waiting.thread.unpark());
    }

    /// Runs an action that does not wait, also while a failed execution is unwound, where nothing may wait.
    fn change(&self, on: Key, act: impl FnOnce()) {
        if std::thread::panicking() {
            return act();
        }
        self.point();
        act();
        self.wake(on);
    }
}
