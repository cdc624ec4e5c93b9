//! Log of the process: lines go to stderr through a queue ([`Lines`]), so that no thread waits for stderr.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::time::Duration;

use recado::config::file::LogFormat;
use recado::server::Lines;
use recado_sys::threads::spawn_named;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Capacity of the queue in bytes; as many more may be in the hands of the writing thread. A healthy server
/// logs a few hundred bytes a minute.
const BYTES_MAX: usize = 1 << 20;
/// The time that the end of the process waits for queued lines.
const END_PATIENCE: Duration = Duration::from_millis(500);
/// The target of the warning about lost lines. `RUST_LOG` does not filter it: only lines that it selected can
/// be lost.
const LOST: &str = "recadod::lost";

/// The queue of lines for stderr. Clones share it.
#[derive(Clone)]
pub(super) struct LogQueue(Lines);

impl LogQueue {
    /// Starts the writing thread. It runs until the process ends, so it is never joined.
    ///
    /// # Errors
    /// The system cannot start another thread.
    pub(super) fn start() -> io::Result<LogQueue> {
        LogQueue::start_on(io::stderr)
    }

    /// As [`LogQueue::start`], on another output than stderr.
    ///
    /// # Errors
    /// The same.
    pub(super) fn start_on<W: Write + 'static>(out: fn() -> W) -> io::Result<LogQueue> {
        let queue = LogQueue::new();
        let thread = queue.clone();
        spawn_named("log", move || {
            loop {
                let mut out = out();
                thread.write_some(&mut out);
                // Standard output may keep what ends without a line end.
                let _ = out.flush();
            }
        })?;
        Ok(queue)
    }

    fn new() -> LogQueue {
        LogQueue(Lines::new(BYTES_MAX))
    }

    fn write_some(&self, out: &mut impl Write) {
        self.0.write_some(out, |lost| {
            tracing::warn!(target: LOST, lost, "log lines were lost: their reader was too slow");
        });
    }

    /// Queues a line, with its line end, or counts it as lost. Never waits for the reader of stderr.
    pub(super) fn push(&self, line: &[u8]) {
        self.0.push(line);
    }

    /// Waits until all lines are written, at most half a second: the reader of stderr may have stalled.
    pub(super) fn flush(&self) {
        self.0.flush(END_PATIENCE);
    }

    /// Directs `tracing` into the queue, and panics, too, which would otherwise be written to stderr by the
    /// panicking thread. `RUST_LOG` selects what is logged; the default is `info` and above.
    pub(super) fn take_all(&self, format: LogFormat) {
        let selected = std::env::var_os("RUST_LOG").unwrap_or_default();
        let (filter, wrong) = match selected.to_string_lossy().parse::<Targets>() {
            Ok(filter) if !selected.is_empty() => (filter, None),
            Ok(_) => (Targets::new().with_default(LevelFilter::INFO), None),
            Err(error) => (Targets::new().with_default(LevelFilter::INFO), Some(error)),
        };
        let filter = filter.with_target(LOST, LevelFilter::WARN);
        let queue = self.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || Line(queue.clone()))
            .log_internal_errors(false);
        let lines = match format {
            LogFormat::Text => lines.with_target(false).with_ansi(io::stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(lines).init();
        if let Some(error) = wrong {
            tracing::warn!(%error, "RUST_LOG cannot be parsed: logging info and above");
        }
        let queue = self.clone();
        panic::set_hook(Box::new(move |panic| {
            log_panic(panic);
            queue.flush();
        }));
    }
}

/// A writer for one event: `tracing` writes each as a whole, in one call.
struct Line(LogQueue);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs a panic. A panic of any thread ends the process (`recado_sys::threads::spawn_named`).
fn log_panic(panic: &PanicHookInfo<'_>) {
    let cause = panic.payload_as_str().unwrap_or("of an unknown kind");
    let place = panic.location().map(tracing::field::display);
    let backtrace = Backtrace::capture();
    let captured = backtrace.status() == BacktraceStatus::Captured;
    let thread = std::thread::current();
    tracing::error!(
        thread = thread.name(),
        place,
        backtrace = captured.then(|| tracing::field::display(&backtrace)),
        "BUG: panic: {cause}; the process ends, the other servers continue"
    );
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    const LINE: [u8; 64] = [b'x'; 64];
    const ROOM: usize = BYTES_MAX / LINE.len();

    #[test]
    fn lines_beyond_the_bound_are_counted_and_reported_once_there_is_room() {
        let queue = LogQueue::new();
        (0..ROOM + 7).for_each(|_| queue.push(&LINE));
        let lines = queue.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || Line(lines.clone())).with_ansi(false).finish();
        let mut out = Vec::new();
        tracing::subscriber::with_default(subscriber, || {
            queue.write_some(&mut out);
            assert_eq!(out.len(), BYTES_MAX, "what was there before is not lost");
            queue.push(b"next\n");
            queue.write_some(&mut out);
        });
        let logged = String::from_utf8_lossy(&out[BYTES_MAX..]);
        assert!(logged.contains("log lines were lost") && logged.contains("lost=7"), "{logged}");
        assert!(logged.ends_with("next\n"), "{logged}");
    }

    /// Runs in a process of its own: see the next test.
    #[test]
    #[ignore = "ends its process"]
    fn panic_in_a_thread() {
        LogQueue::start().unwrap().take_all(LogFormat::Text);
        spawn_named("worker", || panic!("on purpose")).unwrap().join();
    }

    #[test]
    fn a_panic_ends_the_process_and_is_logged_if_somebody_reads() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "recadod::log::tests::panic_in_a_thread", "--ignored"]);
        child.env_remove("RUST_LOG").stdout(std::process::Stdio::null());
        let output = child.stderr(std::process::Stdio::piped()).output().unwrap();
        assert_eq!(output.status.signal(), Some(6), "{output:?}");
        let output = String::from_utf8(output.stderr).unwrap();
        assert!(output.contains("BUG: panic: on purpose") && output.contains("worker"), "{output}");

        let (_reader, stalled) = full_pipe();
        let mut child = child.stderr(stalled).spawn().unwrap();
        let (ended, end) = crossbeam::channel::bounded(1);
        let pid = Pid::from_child(&child);
        let waits = spawn_named("waits", move || ended.send(child.wait().unwrap()).unwrap()).unwrap();
        let end = end.recv_timeout(Duration::from_secs(60));
        let _ = kill_process(pid, Signal::KILL);
        waits.join();
        assert_eq!(end.expect("it ends although nobody reads").signal(), Some(6));
    }

    /// A pipe with no room left.
    fn full_pipe() -> (io::PipeReader, io::PipeWriter) {
        let (reader, mut writer) = io::pipe().unwrap();
        let flags = fcntl_getfl(&writer).unwrap();
        fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
        while writer.write(b"x").is_ok() {}
        fcntl_setfl(&writer, flags).unwrap();
        (reader, writer)
    }
}
