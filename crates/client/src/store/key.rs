//! The key of an installation.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use recado_proto::hex::{self, Hex};
use recado_proto::seal::Key;
use recado_sys::random;

use super::files::{at, lock_slot, make_dir, read_text, replace, unreadable, wait_for_lock};
use super::{KEY, OUTBOX, slots};
use crate::error::{StoreError, StoreOp};
use crate::format::{self, Unreadable};

/// Reads the installation's private key. Creates one if it is missing, unless a device has been used with a
/// key before.
pub(super) fn device_key(installation: &Path) -> Result<Key, StoreError> {
    let lock_path = installation.join("lock");
    // A process that creates the key holds the lock for a moment.
    let _lock = wait_for_lock(&lock_path)?;
    let secret = match read_key(installation)? {
        Some(secret) => secret,
        None if slots(installation).any(|slot| slot.join(OUTBOX).exists()) => {
            return Err(StoreError::KeyMissing {
                key: installation.join(KEY),
                devices: installation.to_owned(),
            });
        }
        None => {
            let secret = random::bytes().map_err(at(StoreOp::Create, &installation.join(KEY)))?;
            write_key(installation, &secret)?;
            secret
        }
    };
    Ok(Key::new(secret))
}

/// An installation's secret key, if it has one.
pub(crate) fn read_key(installation: &Path) -> Result<Option<[u8; 32]>, StoreError> {
    let path = installation.join(KEY);
    let cure = "restore it from a copy: without it the profile is not yours";
    let Some(text) = read_text(&path, cure)? else { return Ok(None) };
    let mode = fs::metadata(&path).map_err(at(StoreOp::Read, &path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Exposed { path, mode });
    }
    let secret = format::read_line(&text).and_then(|secret| hex::parse(secret).ok_or(Unreadable::Damaged));
    secret.map(Some).map_err(unreadable(&path, cure))
}

/// Writes an installation's secret key, 0600.
fn write_key(installation: &Path, secret: &[u8; 32]) -> Result<(), StoreError> {
    replace(&installation.join(KEY), format::line(&Hex(secret).to_string()).as_bytes())
}

/// Gives an installation this key. If it has another one, only `force` replaces it; the devices of the old
/// key are removed, because their numbers mean nothing under the new one.
pub(crate) fn put_key(installation: &Path, secret: &[u8; 32], force: bool) -> Result<(), StoreError> {
    make_dir(installation)?;
    let lock_path = installation.join("lock");
    let _lock = wait_for_lock(&lock_path)?;
    match read_key(installation)? {
        Some(stored) if stored == *secret => return Ok(()),
        Some(_) if !force => return Err(StoreError::OtherKey(installation.join(KEY))),
        Some(_) => {
            let slots: Vec<PathBuf> = slots(installation).filter(|slot| slot.exists()).collect();
            let _locks = slots.iter().map(|slot| lock_slot(slot)).collect::<Result<Vec<_>, _>>()?;
            for slot in &slots {
                fs::remove_dir_all(slot).map_err(at(StoreOp::Write, slot))?;
            }
        }
        None => {}
    }
    write_key(installation, secret)
}
