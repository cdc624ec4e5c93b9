//! Channels, locks and conditions whose every step `shuttle` chooses.
//!
//! Outside an exploration they are the real ones. Inside, all channels share one lock and one condition (the
//! *turn*): what is tested is what threads do with channels, not how channels are made.

pub(crate) mod channel;
mod lock;
pub(crate) mod thread;

pub(crate) use self::lock::{Condvar, Mutex};

use std::cell::{Cell, RefCell};
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
