//! Log lines on their way to whoever reads them, which keep no thread waiting.
//!
//! A pipe that nobody reads, or a terminal that was stopped with Ctrl-S, blocks whoever writes to it. A
//! server must not stand still for that: its threads put their lines into a bounded queue, and a thread of
//! its own, which nobody waits for without bound, writes them. Lines that find no room are dropped,
//! counted, and told of as soon as there is room again.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::{Condvar, Mutex};

/// A bounded queue of log lines. Clones share it.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Bytes that wait to be written.
    bytes_max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// Lines dropped since it was last told.
    lost: u64,
    /// A thread has taken lines that it has not written yet.
    writing: bool,
}

impl Lines {
    /// A queue for lines of so many bytes together; as much again may be on its way.
    pub fn new(bytes_max: usize) -> Lines {
        Lines(Arc::new(Shared { bytes_max, state: Mutex::default(), changed: Condvar::new() }))
    }

    /// Queues a line, with its line end, or counts it as lost. Never waits for the reader.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.0.state.lock();
        if state.bytes.len() + line.len() > self.0.bytes_max {
            state.lost += 1;
            return;
        }
        state.bytes.extend_from_slice(line);
        self.0.changed.notify_all();
    }

    /// Waits for lines, and writes them. Before that `tell_lost` hears how many found no room since it last
    /// did, if any: a line that it pushes stands right behind those that were there then.
    ///
    /// Lines that cannot be written are lost, and nobody is told: to whom? A full disk under the log, or a
    /// reader of it that has gone away, must not end the server.
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
        let _ = out.write_all(&bytes);
        self.0.state.lock().writing = false;
        self.0.changed.notify_all();
    }

    /// Waits until all is written, or until the end of its patience: whoever reads may have stalled.
    pub fn flush(&self, patience: Duration) {
        let mut state = self.0.state.lock();
        let under_way = |state: &mut State| state.writing || !state.bytes.is_empty();
        self.0.changed.wait_while_for(&mut state, under_way, patience);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::server::spawn_named;

    const SECOND: Duration = Duration::from_secs(1);
    const PATIENCE: Duration = Duration::from_millis(500);

    fn queued(lines: &Lines) -> (usize, u64) {
        let state = lines.0.state.lock();
        (state.bytes.len(), state.lost)
    }

    #[test]
    fn the_end_waits_for_what_is_queued_and_not_for_a_reader_that_has_stalled() {
        let lines = Lines::new(64);
        lines.flush(PATIENCE);
        lines.push(&[b'x'; 64]);
        // Nobody writes: this returns, and the line is still there.
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
