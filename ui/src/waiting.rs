//! Waits that a person may find long: what is waited for is told after a second, on a terminal, and a signal
//! ends the program with a message.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use recado_client::{Op, Receipt, ReceiptError, Topic};

use crate::exit::Failure;
use crate::interrupt::{Interrupt, die_of};
use crate::print::note;
use crate::timer::Timer;

/// Interval at which a wait looks for a signal. Its end ends it at once.
const LOOK: Duration = Duration::from_millis(50);

/// Time after which a person is told what is waited for.
const TELL: Duration = Duration::from_secs(1);

/// True while the user is asked something: nothing else is told then.
static ASKING: AtomicBool = AtomicBool::new(false);

/// Time in which the user was asked, in ms.
static ASKED_MS: AtomicU64 = AtomicU64::new(0);

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
        let timer = &Timer::start();
        thread::scope(|scope| {
            let (done, ended) = mpsc::channel::<()>();
            thread::Builder::new().name("waiting".to_owned()).spawn_scoped(scope, move || {
                let mut telling = Telling::new(self.tells);
                while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    if let Some(signal) = interrupt.arrived() {
                        // The prompt and what is typed have no line end.
                        if ASKING.load(Ordering::Relaxed) && is_to_person() {
                            let _ = writeln!(io::stderr());
                        }
                        self.die(signal, timer.elapsed());
                    }
                    if !ASKING.load(Ordering::Relaxed) {
                        telling.at(timer.elapsed());
                    }
                }
            })?;
            let result = wait();
            // What was typed right after the signal is no answer.
            if let Some(signal) = interrupt.arrived() {
                self.die(signal, timer.elapsed());
            }
            drop(done);
            Ok(result)
        })
    }

    fn die(&self, signal: u8, after: Duration) -> ! {
        note(self.interrupted(after));
        die_of(signal)
    }

    fn interrupted(&self, after: Duration) -> String {
        format!("interrupted after {} s: {}", after.as_secs(), self.state)
    }
}

/// Waits for a receipt, at most `timeout`, and not longer than until a signal.
///
/// # Errors
/// [`Failure::Request`]; [`Failure::Signal`], of which nothing is printed yet.
pub(crate) fn for_receipt(
    receipt: &Receipt,
    timeout: Duration,
    topic: Option<&Topic>,
    interrupt: &Interrupt,
) -> Result<Op, Failure> {
    let mut left = timeout;
    let mut telling = Telling::new("sent, and waiting until a majority of the servers has it on disk");
    loop {
        telling.at(timeout - left);
        let signal = interrupt.arrived();
        let slice = if signal.is_some() { Duration::ZERO } else { left.min(LOOK) };
        match (receipt.wait(slice), signal) {
            (Err(ReceiptError::OutcomeUnknown), Some(signal)) => return Err(Failure::Signal(signal)),
            (Err(ReceiptError::OutcomeUnknown), None) if left > slice => left -= slice,
            (result, _) => {
                return result.map_err(|error| Failure::Request { error, topic: topic.cloned() });
            }
        }
    }
}

/// What a person is told of a wait, once.
struct Telling<'a> {
    tells: &'a str,
    told: bool,
}

impl Telling<'_> {
    fn new(tells: &str) -> Telling<'_> {
        Telling { tells, told: !is_to_person() }
    }

    /// Tells it, if the wait has lasted long enough and it is not told yet.
    fn at(&mut self, elapsed: Duration) {
        if !self.told && elapsed >= TELL {
            self.told = true;
            note(self.tells);
        }
    }
}

/// Returns true if a person reads the notes.
fn is_to_person() -> bool {
    io::stderr().is_terminal()
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

/// Asks the user, or waits for what the user types, while nothing else is told.
pub(crate) fn asking<T>(ask: impl FnOnce() -> T) -> T {
    ASKING.store(true, Ordering::Relaxed);
    let timer = Timer::start();
    let answer = ask();
    let ms = u64::try_from(timer.elapsed().as_millis()).unwrap_or(u64::MAX);
    ASKED_MS.fetch_add(ms, Ordering::Relaxed);
    ASKING.store(false, Ordering::Relaxed);
    answer
}

/// The time in which the user was asked, so far. It counts against no time-out.
pub(crate) fn asked() -> Duration {
    Duration::from_millis(ASKED_MS.load(Ordering::Relaxed))
}
