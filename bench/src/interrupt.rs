//! Ctrl-C and SIGTERM end a measurement in order, so that the servers it has started end with it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::failure::Failure;

static ASKED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Notes the signals from here on; [`check`] reports them.
pub(crate) fn watch() -> Result<(), Failure> {
    let asked = ASKED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        let value = usize::try_from(signal).unwrap_or_default();
        signal_hook::flag::register_usize(signal, Arc::clone(asked), value)
            .map_err(Failure::io("watching for signals"))?;
    }
    Ok(())
}

/// Fails once a signal has asked the program to end.
pub(crate) fn check() -> Result<(), Failure> {
    match ASKED.get().map_or(0, |asked| asked.load(Ordering::Relaxed)) {
        0 => Ok(()),
        signal => Err(Failure::Signal(u8::try_from(signal).unwrap_or_default())),
    }
}
