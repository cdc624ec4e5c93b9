//! Waits that a person may find long: what is waited for is told after a second, on a terminal, and a signal
//! ends the program with a message.

use std::io::{self, IsTerminal};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::interrupt::Interrupt;
use crate::print::note;
use crate::timer::Timer;

/// Interval at which a wait looks for a signal. Its end ends it at once.
const LOOK: Duration = Duration::from_millis(50);

/// Time after which a person is told what is waited for.
const TELL: Duration = Duration::from_secs(1);

/// True while the user is asked something: nothing else is told then.
static ASKING: AtomicBool = AtomicBool::new(false);

/// What is waited for, in words.
pub(crate) struct Waiting<'a> {
    /// Follows "recado: ", after a second.
    pub(crate) tells: &'a str,
    /// Follows "recado: interrupted after N s: ".
    pub(crate) state: &'a str,
}

impl Waiting<'_> {
    /// Runs `wait`, which blocks and cannot be interrupted. A signal ends the program.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn on<T>(&self, interrupt: &Interrupt, wait: impl FnOnce() -> T) -> io::Result<T> {
        thread::scope(|scope| {
            let (done, ended) = mpsc::channel::<()>();
            thread::Builder::new().name("waiting".to_owned()).spawn_scoped(scope, move || {
                let timer = Timer::start();
                let mut told = !io::stderr().is_terminal();
                while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    if let Some(signal) = interrupt.arrived() {
                        note(self.interrupted(timer.elapsed()));
                        process::exit(128 + i32::from(signal));
                    }
                    if !told && timer.elapsed() >= TELL && !ASKING.load(Ordering::Relaxed) {
                        told = true;
                        note(self.tells);
                    }
                }
            })?;
            let result = wait();
            drop(done);
            Ok(result)
        })
    }

    fn interrupted(&self, after: Duration) -> String {
        format!("interrupted after {} s: {}", after.as_secs(), self.state)
    }
}

/// Waits for this time. Returns the signal that came before or during it.
pub(crate) fn pause(interrupt: &Interrupt, time: Duration) -> Option<u8> {
    let timer = Timer::start();
    let never = crossbeam::channel::never::<()>();
    loop {
        let left = timer.left(time);
        if let Some(signal) = interrupt.arrived() {
            return Some(signal);
        }
        if left.is_zero() {
            return None;
        }
        let _ = never.recv_timeout(left.min(LOOK));
    }
}

/// Asks the user, while nothing else is told.
pub(crate) fn asking<T>(ask: impl FnOnce() -> T) -> T {
    ASKING.store(true, Ordering::Relaxed);
    let answer = ask();
    ASKING.store(false, Ordering::Relaxed);
    answer
}
