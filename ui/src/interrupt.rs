//! Signals that ask the program to end, for commands that have something to say or to finish first. The
//! program then dies of the signal.

use std::io::{self, Write};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::{flag, low_level};

/// The first SIGINT or SIGTERM since [`Interrupt::watch`]. A second signal ends the process at once.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Takes the signals from now on. Before, the first one ends the process.
    ///
    /// # Errors
    /// The system refuses the handlers.
    pub(crate) fn watch() -> io::Result<Interrupt> {
        let (number, second) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM] {
            // The handlers run in this order, so the first signal only sets the two flags.
            flag::register_conditional_default(signal, second.clone())?;
            flag::register(signal, second.clone())?;
            flag::register_usize(signal, number.clone(), signal.unsigned_abs() as usize)?;
        }
        Ok(Interrupt(number))
    }

    /// The number of the signal, if one has arrived.
    pub(crate) fn arrived(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            number => Some(u8::try_from(number).unwrap_or(u8::MAX)),
        }
    }
}

/// Makes a file beyond the limit of its size (`ulimit -f`) an error, as a full disk is, and no end of the
/// process.
///
/// # Errors
/// The system refuses the handler.
pub(crate) fn outlive_size_limit() -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
}

/// Ends the process by this signal, as if it had not been taken. A shell that runs the program in a loop ends
/// the loop only then; an exit code of 130 would be one more failure to it.
pub(crate) fn die_of(signal: u8) -> ! {
    let _ = io::stdout().flush();
    // It returns if the signal is blocked, for instance.
    let _ = low_level::emulate_default_handler(signal.into());
    process::exit(128 + i32::from(signal))
}
