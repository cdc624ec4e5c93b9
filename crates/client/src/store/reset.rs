//! Reset: the devices of one installation forget what they keep, and its key stays.

use std::fs::File;
use std::path::{Path, PathBuf};

use recado_proto::id::{ClusterId, Name, Seq};

use super::files::{lock_slot, replace};
use super::outbox::{put_given, read_outbox};
use super::{CURSOR, OUTBOX, existing_key, installation, slots};
use crate::error::StoreError;
use crate::machine::Request;

/// The devices of one profile in one cluster on this machine, locked, before their files are reset.
///
/// A device whose files cannot be used, or which the servers have forgotten, begins anew with this: it has no
/// unanswered requests, and no cursor of its own. Where the servers still know it, it continues at the cursor
/// that they remember, and else it is a new device. The key stays, so the name does too. Requests without an
/// answer are given up: each may have been done, or may never be.
#[derive(Debug)]
pub struct DeviceReset {
    devices: Vec<Device>,
    unsent: Vec<Request>,
    unreadable: Vec<StoreError>,
}

#[derive(Debug)]
struct Device {
    dir: PathBuf,
    /// The highest number that it has given, as far as its files can be read.
    given: Seq,
    _lock: File,
}

impl DeviceReset {
    /// Locks and reads the devices of `profile` in `cluster` under `state`. Nothing is changed.
    ///
    /// # Errors
    /// [`StoreError`]: the installation has no key, or another process uses one of the devices.
    pub fn begin(state: &Path, cluster: ClusterId, profile: &Name) -> Result<DeviceReset, StoreError> {
        let installation = installation(state, cluster, profile);
        existing_key(&installation, cluster, profile)?;
        let mut reset = DeviceReset { devices: Vec::new(), unsent: Vec::new(), unreadable: Vec::new() };
        let has_files = |dir: &PathBuf| [OUTBOX, CURSOR].iter().any(|file| dir.join(file).exists());
        for dir in slots(&installation).filter(has_files) {
            let lock = lock_slot(&dir)?;
            let mut given = Seq(0);
            match read_outbox(&dir.join(OUTBOX)) {
                Ok(kept) => {
                    given = kept.given;
                    reset.unsent.extend(kept.unanswered.into_values().map(|one| one.request));
                }
                Err(error) => reset.unreadable.push(error),
            }
            reset.devices.push(Device { dir, given, _lock: lock });
        }
        Ok(reset)
    }

    /// The number of devices.
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// The requests without an answer, in the order of asking of each device. A reset gives them up.
    pub fn unsent(&self) -> &[Request] {
        &self.unsent
    }

    /// The reasons why outboxes cannot be read. Requests in them are given up too, and nobody knows which.
    pub fn unreadable(&self) -> &[StoreError] {
        &self.unreadable
    }

    /// Resets the devices, durably.
    ///
    /// # Errors
    /// [`StoreError::Io`]; devices before the one that it names are reset.
    pub fn finish(self) -> Result<(), StoreError> {
        for Device { dir, given, .. } in &self.devices {
            // The number stays: with a lower one the servers' would pass for that of a copy of these files.
            put_given(&dir.join(OUTBOX), *given)?;
            replace(&dir.join(CURSOR), b"")?;
        }
        Ok(())
    }
}
