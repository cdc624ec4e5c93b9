//! Why a client ended: said once by its driver, before anything it held is let go.

use std::path::PathBuf;
use std::sync::Arc;

use crate::sync::Mutex;

use super::error::{ClientError, StoreError};
use crate::wire::packet::Code;

/// Why a client ended.
#[derive(Debug)]
pub(super) enum Cause {
    Disconnected,
    Ended(Code),
    Forgotten(PathBuf),
    Store(Arc<StoreError>),
}

/// Why the client ended, once it has.
#[derive(Debug, Default)]
pub(super) struct Ending(Mutex<Option<Cause>>);

impl Ending {
    pub(super) fn set(&self, cause: Cause) {
        self.0.lock().get_or_insert(cause);
    }

    /// What to tell the application, which has found its channel closed.
    pub(super) fn error(&self) -> ClientError {
        match &*self.0.lock() {
            None | Some(Cause::Disconnected) => ClientError::Disconnected,
            Some(Cause::Ended(code)) => ClientError::Ended(*code),
            Some(Cause::Forgotten(dir)) => ClientError::Forgotten(dir.clone()),
            Some(Cause::Store(error)) => ClientError::Store(error.clone()),
        }
    }
}
