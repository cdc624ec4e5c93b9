//! Queue of log lines, which keeps threads from waiting for the reader of the log.
//!
//! A pipe that nobody reads, or a terminal that was stopped with Ctrl-S, blocks its writer, and must not
//! block a server. Its threads put their lines into a bounded queue, and a thread of its own writes them;
//! no wait for that thread is unbounded. Lines that find no room are dropped, counted, and reported as soon
//! as there is room again.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use recado_sys::sync::{Condvar, Mistake, Mutex, planted};

/// A bounded queue of log lines. Clones share it.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Maximum number of bytes that wait to be written.
    bytes_max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// Lines dropped since the last report.
    lost: u64,
    /// True while a thread has taken lines that it has not written yet.
    writing: bool,
}

impl Lines {
    /// Creates a queue for at most `bytes_max` bytes of lines; as much again may be in the process of being
    /// written.
    pub fn new(bytes_max: usize) -> Lines {
        Lines(Arc::new(Shared { bytes_max, state: Mutex::default(), changed: Condvar::new() }))
    }

    /// Queues a line, with its line end, or counts it as lost. Never waits for the reader.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.0.state.lock();
        if state.bytes.len() + line.len() > self.0.bytes_max {
            state.lost += u64::from(!planted(Mistake::LossIsForgotten));
            return;
        }
        state.bytes.extend_from_slice(line);
        self.0.changed.notify_all();
    }

    /// Waits for lines, and writes them. Before that it calls `tell_lost` with the number of lines dropped
    /// since the last call, if any; a line that `tell_lost` pushes stands right behind the lines taken
    /// here.
    ///
    /// Lines that cannot be written are lost without a report, because there is nowhere to report it. A
    /// full disk under the log, or a reader that has gone away, must not end the server.
    pub fn write_some(&self, out: &mut impl Write, tell_lost: impl FnOnce(u64)) {
        let mut state = self.0.state.lock();
        self.0.changed.wait_while(&mut state, |state| state.bytes.is_empty());
        state.writing = true;
        let bytes = std::mem::take(&mut state.bytes);
        let lost = std::mem::take(&mut state.lost);
        drop(state);
        if lost > 0 {
            tell_lost(lost);
        }
        let locked = planted(Mistake::WritesUnderLock).then(|| self.0.state.lock());
        let _ = out.write_all(&bytes);
        drop(locked);
        self.0.state.lock().writing = false;
        self.0.changed.notify_all();
    }

    /// Waits until all lines are written, at most for `patience`, because the reader may have stalled.
    pub fn flush(&self, patience: Duration) {
        let mut state = self.0.state.lock();
        let under_way = |state: &mut State| state.writing || !state.bytes.is_empty();
        self.0.changed.wait_while_for(&mut state, under_way, patience);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::PoisonError;
    use std::sync::atomic::{AtomicU64, Ordering};

    use recado_sys::sync::model::{TimeOuts, below, explore, now_us, seeds_to_find};
    use recado_sys::sync::thread::park_timeout;
    use recado_sys::threads::{Thread, spawn_named};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// Time for which the reader reads nothing.
    const STALL: Duration = Duration::from_secs(60);
    const PATIENCE: Duration = Duration::from_millis(500);
    /// Lines that each thread logs; together more than there is room for.
    const EACH: u8 = 4;

    fn queued(lines: &Lines) -> (usize, u64) {
        let state = lines.0.state.lock();
        (state.bytes.len(), state.lost)
    }

    /// A pipe whose reader stalls once, after `left` writes.
    #[derive(Clone)]
    struct Pipe {
        written: Arc<std::sync::Mutex<Vec<u8>>>,
        left: u64,
    }

    impl Pipe {
        fn written(&self) -> Vec<u8> {
            self.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.left == 0 {
                park_timeout(STALL);
            }
            self.left = self.left.wrapping_sub(1);
            self.written.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Checks that what began then, in virtual time, took no longer than `limit`.
    fn within(limit: Duration, began: Option<u64>) {
        let took = Duration::from_micros(now_us().unwrap() - began.unwrap());
        assert!(took <= limit, "it took {took:?}, and may take {limit:?}");
    }

    /// Three threads log more than there is room for, to a reader that stalls. Neither they nor the flush
    /// at the end wait for it. When it reads again, each line was written whole and in its order, or is
    /// counted as lost.
    fn reader_stalls() {
        let lines = Lines::new(3 * 4);
        let pipe = Pipe { written: Arc::default(), left: below(3) };
        let (pushed, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let push = {
            let (lines, pushed) = (lines.clone(), Arc::clone(&pushed));
            move |line: [u8; 4]| {
                pushed.fetch_add(1, Ordering::Relaxed);
                lines.push(&line);
            }
        };
        let (queue, told, mut out, tells) = (lines.clone(), Arc::clone(&lost), pipe.clone(), push.clone());
        let log = spawn_named("log", move || {
            while !out.written().ends_with(b"end\n") {
                queue.write_some(&mut out, |lost| {
                    told.fetch_add(lost, Ordering::Relaxed);
                    tells(*b"lost");
                });
            }
        });
        let began = now_us();
        let logging: Vec<Thread> = (0..3)
            .map(|thread| {
                let push = push.clone();
                let logs = move || (0..EACH).for_each(|line| push([b'.', thread, line, b'\n']));
                spawn_named("logs", logs).unwrap()
            })
            .collect();
        logging.into_iter().for_each(Thread::join);
        within(SECOND, began);
        let began = now_us();
        lines.flush(PATIENCE);
        within(PATIENCE + SECOND, began);

        lines.flush(STALL * 2);
        push(*b"end\n");
        log.unwrap().join();
        let written = pipe.written();
        let written: Vec<&[u8]> = written.chunks(4).collect();
        let all = written.len() as u64 + lost.load(Ordering::Relaxed);
        assert_eq!(all, pushed.load(Ordering::Relaxed), "{written:?}");
        for thread in 0..3 {
            let of = written.iter().filter(|line| line[..2] == [b'.', thread]).map(|line| line[2]);
            assert!(of.is_sorted_by(|before, after| before < after), "{written:?}");
        }
    }

    #[test]
    fn no_thread_waits_for_a_reader_that_stalls_and_every_line_is_written_or_counted() {
        explore(TimeOuts::Last, 200, reader_stalls);
        for mistake in [Mistake::WritesUnderLock, Mistake::LossIsForgotten] {
            let seed = seeds_to_find(mistake, TimeOuts::Last, 300, reader_stalls);
            eprintln!("{mistake:?} is found by seed {seed:?}");
            assert!(seed.is_some(), "{mistake:?}");
        }
    }

    #[test]
    fn the_end_waits_for_what_is_queued_and_not_for_a_reader_that_has_stalled() {
        let lines = Lines::new(64);
        lines.flush(PATIENCE);
        lines.push(&[b'x'; 64]);
        // No thread writes: the flush returns, and the line is still there.
        lines.flush(PATIENCE);
        assert_eq!(queued(&lines), (64, 0));

        let (reader, mut writer) = io::pipe().unwrap();
        let thread = lines.clone();
        let written = spawn_named("log", move || thread.write_some(&mut writer, |_| ())).unwrap();
        lines.flush(SECOND * 60);
        assert_eq!(queued(&lines), (0, 0));
        written.join();
        assert_eq!(io::read_to_string(reader).unwrap().len(), 64);
    }
}
