//! `recadod serve`: runs a server until a signal.

use std::env;
use std::io::{self, IsTerminal};
use std::path::Path;

use anyhow::{Context, Result};
use recado::config::file::LogFormat;
use recado::server::{Server, Stopper, spawn_named};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::check;

pub(super) fn run(file: &Path, log: Option<LogFormat>) -> Result<()> {
    let (checked, secret) = check::load(file)?;
    start_logging(log.unwrap_or(checked.log));
    // Before the server, so that no signal can end it without a hand-over.
    let signals = Signals::new([SIGTERM, SIGINT]).context("cannot take signals")?;
    let server = Server::start(checked.config, &secret, &checked.data)?;
    take_signals(signals, server.stopper()).context("cannot start the signal thread")?;
    server.wait()?;
    tracing::info!("stopped");
    Ok(())
}

/// The first signal asks the server to stop, handing over first; the second ends the process.
///
/// The thread lives until the process ends, so it is the one that nobody joins.
fn take_signals(mut signals: Signals, stopper: Stopper) -> io::Result<()> {
    spawn_named("signals", move || {
        let mut asked = false;
        for signal in signals.forever() {
            if asked {
                tracing::warn!(signal, "second signal: ends at once");
                std::process::exit(1);
            }
            tracing::info!(signal, "stopping; a second signal ends at once");
            asked = true;
            stopper.stop();
        }
    })
    .map(drop)
}

/// Lines to stderr. `RUST_LOG` says what is logged; without it, `info` and above.
///
/// A line that cannot be written is lost, and nobody is told: to whom? A full disk under the log, or a
/// reader of it that has gone away, must not end the server.
fn start_logging(format: LogFormat) {
    let info = || EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    // Not `from_env_lossy`, which tells on stderr what it leaves out, and panics if that is closed.
    let (filter, wrong) = match info().try_from_env() {
        Ok(filter) => (filter, None),
        Err(error) => (info().parse_lossy(""), Some(error)),
    };
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    match format {
        LogFormat::Text => lines.with_target(false).with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    if let Some(error) = wrong
        && env::var_os(EnvFilter::DEFAULT_ENV).is_some()
    {
        tracing::warn!(%error, "RUST_LOG cannot be understood: logging info and above");
    }
}
