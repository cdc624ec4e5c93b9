//! The reason why a client ended: the driver sets it once, before it drops any channel.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use recado_sys::sync::Mutex;

use recado_proto::packet::Code;

use super::error::{ClientError, StoreError};

/// A reason why a client ended.
#[derive(Debug)]
pub(super) enum Cause {
    Disconnected,
    Ended(Code),
    Forgotten(PathBuf),
    OtherVersion { server: SocketAddr, version: u8 },
    Store(Arc<StoreError>),
}

/// The reason why the client ended, once it has.
#[derive(Debug, Default)]
pub(super) struct Ending(Mutex<Option<Cause>>);

impl Ending {
    pub(super) fn set(&self, cause: Cause) {
        self.0.lock().get_or_insert(cause);
    }

    /// Returns true if the client has ended. From then on it takes no request.
    pub(super) fn is_set(&self) -> bool {
        self.0.lock().is_some()
    }

    /// The error for an application that finds its channel closed.
    pub(super) fn error(&self) -> ClientError {
        match &*self.0.lock() {
            None | Some(Cause::Disconnected) => ClientError::Disconnected,
            Some(Cause::Ended(code)) => ClientError::Ended(*code),
            Some(Cause::Forgotten(dir)) => ClientError::Forgotten(dir.clone()),
            Some(Cause::OtherVersion { server, version }) => {
                ClientError::OtherVersion { server: *server, version: *version }
            }
            Some(Cause::Store(error)) => ClientError::Store(error.clone()),
        }
    }
}
