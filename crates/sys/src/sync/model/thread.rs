//! Threads: std's, or shuttle's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Scheduler, key_of, turn};

pub struct Builder(std::thread::Builder);

#[derive(Debug)]
pub enum JoinHandle<T> {
    Real(std::thread::JoinHandle<T>),
    Model(shuttle::thread::JoinHandle<T>, Running),
}

/// State of a thread in the model, shared with its join handle.
#[derive(Clone)]
pub struct Running {
    turn: Arc<Scheduler>,
    over: Arc<AtomicBool>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Running {{ over: {:?} }}", self.over)
    }
}

/// Records the end of the thread when it is dropped.
struct Over(Running);

impl Drop for Over {
    fn drop(&mut self) {
        let Running { turn, over } = &self.0;
        turn.change(key_of(over), || {
            over.store(true, Ordering::Relaxed);
            turn.threads().running -= 1;
        });
        if !std::thread::panicking() {
            turn.let_time_pass();
        }
    }
}

impl Builder {
    pub fn new() -> Builder {
        Builder(std::thread::Builder::new())
    }

    pub fn name(self, name: String) -> Builder {
        Builder(self.0.name(name))
    }

    pub fn spawn<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        Ok(match turn() {
            None => JoinHandle::Real(self.0.spawn(work)?),
            Some(turn) => {
                turn.threads().running += 1;
                let running = Running { turn, over: Arc::default() };
                let over = Over(running.clone());
                let work = move || {
                    let _over = over;
                    work()
                };
                JoinHandle::Model(shuttle::thread::spawn(work), running)
            }
        })
    }
}

/// Returns true during a panic, but never in the model, where a panic ends the execution and not the process.
pub fn panicking() -> bool {
    turn().is_none() && std::thread::panicking()
}

pub fn park_timeout(patience: Duration) {
    match turn() {
        None => std::thread::park_timeout(patience),
        Some(turn) => {
            let _ = turn.when::<()>(&[], Some(patience), || None);
        }
    }
}

impl<T> JoinHandle<T> {
    pub fn join(self) -> std::thread::Result<T> {
        match self {
            JoinHandle::Real(handle) => handle.join(),
            JoinHandle::Model(handle, Running { turn, over }) => {
                let _ = turn.when(&[key_of(&over)], None, || over.load(Ordering::Relaxed).then_some(()));
                match std::thread::panicking() {
                    // A failed execution is being unwound.
                    true => Err(Box::new("its execution has failed")),
                    false => handle.join(),
                }
            }
        }
    }
}
