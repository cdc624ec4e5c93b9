//! std's threads, or shuttle's.

use std::io;
use std::time::Duration;

use super::{step, turn};

pub(crate) struct Builder(std::thread::Builder);

#[derive(Debug)]
pub(crate) enum JoinHandle<T> {
    Real(std::thread::JoinHandle<T>),
    Model(shuttle::thread::JoinHandle<T>),
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder(std::thread::Builder::new())
    }

    pub(crate) fn name(self, name: String) -> Builder {
        Builder(self.0.name(name))
    }

    pub(crate) fn spawn<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        Ok(match turn() {
            None => JoinHandle::Real(self.0.spawn(work)?),
            Some(_) => JoinHandle::Model(shuttle::thread::spawn(work)),
        })
    }
}

/// In the model a panic ends the execution, and not the process.
pub(crate) fn panicking() -> bool {
    turn().is_none() && std::thread::panicking()
}

pub(crate) fn park_timeout(patience: Duration) {
    match turn() {
        None => std::thread::park_timeout(patience),
        Some(turn) => {
            turn.pass(Some(patience));
            step();
        }
    }
}

impl<T> JoinHandle<T> {
    pub(crate) fn join(self) -> std::thread::Result<T> {
        match self {
            JoinHandle::Real(handle) => handle.join(),
            JoinHandle::Model(handle) => handle.join(),
        }
    }
}
