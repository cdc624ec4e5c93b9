//! `recadod serve`: runs a server until a signal.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use recado::config::file::LogFormat;
use recado::server::{Server, Stopper};
use recado_sys::threads::spawn_named;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::log::LogQueue;
use super::supervisor::Supervisor;
use super::{check, exit_code, local_status, message};

/// Runs the server and reports its end as the other commands do, but through the log queue: a stalled reader
/// of stderr must not keep the process alive, so that a supervisor can start the server again.
pub(super) fn run(file: &Path, format: Option<LogFormat>, log: &LogQueue) -> ExitCode {
    let code = match serve(file, format, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.push(format!("recadod: {}\n", message(&error)).as_bytes());
            ExitCode::from(exit_code(&error))
        }
    };
    log.flush();
    code
}

fn serve(file: &Path, format: Option<LogFormat>, log: &LogQueue) -> Result<()> {
    let (checked, secret) = check::load(file)?;
    log.take_all(format.unwrap_or(checked.log));
    // A file beyond the limit of its size is then an error like a full disk, and does not end the process.
    let over_the_limit = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGXFSZ, over_the_limit).context("cannot handle signals")?;
    // Installed before the server starts, so that no signal can end it without a hand-over.
    let signals = Signals::new(endings()).context("cannot handle signals")?;
    let data = checked.data;
    let server = Server::start(checked.config, &secret, &data)?;
    let supervisor = Supervisor::start().context("cannot start the thread that tells the supervisor")?;
    take_signals(signals, server.stopper(), supervisor.clone(), log.clone())
        .context("cannot start the signal thread")?;
    let _watch = supervisor.watch(server.pulse()).context("cannot start the watchdog's thread")?;
    // Without it the server runs as well, and a monitor cannot tell whether it hangs.
    if let Err(error) = local_status::answer(&data, server.pulse()) {
        tracing::warn!(%error, "no local status: `recadod monitor` cannot tell whether this server hangs");
    }
    let member = server.member();
    supervisor.ready(format!("{}, clients at {}, peers at {}", member.id, member.client, member.peer));
    let ended = server.wait();
    // Nobody else is on the directory while this process is. What is left here the next start replaces.
    let _ = fs::remove_file(local_status::socket(&data));
    supervisor.end();
    ended?;
    tracing::info!("stopped");
    Ok(())
}

/// The signals that ask for an orderly end. SIGHUP is one: a closing terminal sends it to the processes
/// started there, and the server has no configuration to reload. Under `nohup` it is ignored, and stays so.
pub(super) fn endings() -> Vec<i32> {
    // If the system does not say so, no signal counts as ignored.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut endings = vec![SIGTERM, SIGINT];
    endings.extend(Some(SIGHUP).filter(|signal| !is_ignored(*signal, &status)));
    endings
}

/// Returns true if a process with this `/proc/PID/status` ignores the signal.
fn is_ignored(signal: i32, status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// The first signal asks the server to stop, with a hand-over; the second one ends the process.
///
/// The thread runs until the process ends, so it is never joined.
fn take_signals(
    mut signals: Signals,
    stopper: Stopper,
    supervisor: Supervisor,
    log: LogQueue,
) -> io::Result<()> {
    spawn_named("signals", move || {
        let mut stopping = false;
        for signal in signals.forever() {
            if stopping {
                tracing::warn!(signal, "second signal: the process ends at once");
                log.flush();
                std::process::exit(1);
            }
            tracing::info!(signal, "stopping; a second signal ends the process at once");
            stopping = true;
            supervisor.stopping();
            stopper.stop();
        }
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_read_from_the_mask_and_without_a_mask_none_is_ignored() {
        let status = "Name:\trecadod\nSigBlk:\t0000000000004001\nSigIgn:\t0000000000001001\n";
        assert!(is_ignored(SIGHUP, status) && !is_ignored(SIGTERM, status));
        assert!(!is_ignored(SIGHUP, "") && !is_ignored(SIGHUP, "SigIgn:\tnone\n"));
    }
}
