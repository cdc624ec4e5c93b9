//! Observations of this machine, and what is found in them.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use recado_sys::machine::{self as sys, Room};

use crate::bounded;
use crate::finding::{Finding, Severity};
use crate::machine::{self, Need, Side};

/// The number of syncs that are measured.
const SYNCS: usize = 20;
/// About how long they may take together, and how long they are waited for.
const SYNCS_WITHIN: Duration = Duration::from_millis(1000);
const SYNCS_PATIENCE: Duration = Duration::from_millis(2500);

/// What a client needs of its state directory's disk: keys, cursors, and a queue of texts.
const CLIENT_NOW: u64 = 4 << 20;
const CLIENT_MOST: u64 = 64 << 20;

/// The machine of a client: its directory `state`, which the first command makes, and what the system grants
/// a socket of the family of `ip`.
pub fn client(state: &Path, ip: IpAddr) -> Vec<Finding> {
    let side = Side::Client;
    let subject = state.display().to_string();
    let mut all = Vec::new();
    let there = match sys::access(state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            all.push(Finding::ok("access", &subject, "is made by the first command that needs it"));
            // Its disk is that of the directory above it which exists.
            state.ancestors().find(|dir| dir.is_dir())
        }
        access => {
            all.push(machine::private(&subject, side, &access, None, Severity::Warning));
            Some(state)
        }
    };
    if let Some(there) = there {
        let need = Need { now: CLIENT_NOW, most: CLIENT_MOST, taken: 0 };
        all.extend(disk(there, &subject, side, need));
    }
    all.push(machine::open_files("this user", side, sys::open_files(None)));
    all.push(buffer(ip));
    all
}

/// Room and speed of a directory's disk, of which a hanging one has none.
pub fn disk(dir: &Path, subject: &str, side: Side, need: Need) -> Vec<Finding> {
    type Observed = (io::Result<Room>, io::Result<Vec<Duration>>);
    let path = dir.to_owned();
    let observe: Box<dyn FnOnce() -> Observed + Send> =
        Box::new(move || (sys::room(&path), sys::sync_times(&path, SYNCS, SYNCS_WITHIN)));
    match bounded::all(SYNCS_PATIENCE, vec![observe]).pop().flatten() {
        Some((room, times)) => {
            vec![machine::disk(subject, side, &room, need), machine::sync_times(subject, side, Some(&times))]
        }
        None => vec![machine::sync_times(subject, side, None)],
    }
}

/// The receive buffer of a socket of this family.
pub fn buffer(ip: IpAddr) -> Finding {
    let subject = "this machine";
    match sys::receive_buffer(ip) {
        Ok(reported) => machine::receive_buffer(subject, reported, sys::receive_buffer_most()),
        Err(error) => {
            let why = (error.to_string(), "give this machine an address of that family");
            Finding::other(Severity::Fault, "buffer", subject, "there is no socket", why)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    #[test]
    fn a_client_that_has_never_run_is_well_and_nothing_is_made_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/recado");
        let found = client(&state, ANY);
        let access = found.iter().find(|finding| finding.check == "access").unwrap();
        assert_eq!(access.severity, Severity::Ok);
        for check in ["disk", "fsync", "files", "buffer"] {
            assert!(found.iter().any(|finding| finding.check == check), "{check}: {found:#?}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_state_directory_that_others_may_read_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = client(dir.path(), ANY);
        let access = found.iter().find(|finding| finding.check == "access").unwrap();
        assert!(access.severity == Severity::Warning && access.cure.contains("chmod go="), "{access:?}");
    }
}
