//! `recadod doctor`: examines the machine of a server, beside the server or before its first start.
//!
//! It changes no file and needs no server that runs; it binds each port of the server for a moment, to see
//! whether it is free. What can be seen from any machine (`recado doctor`), it looks at too, and compares it
//! with the configuration here.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Error;
use recado::config::Config;
use recado::config::file::{ConfigError, ServerFile};
use recado::config::secret::{ClusterSecret, SecretError};
use recado::server::cluster_key;
use recado_client::{Claim, Surveyed, survey};
use recado_doctor::cluster::{self, Expected, Own};
use recado_doctor::machine::{self, Need, Side};
use recado_doctor::{Finding, Report, Severity, observe};
use recado_log::journal::{self, Checked, JournalError, MetaState, SNAPSHOTS_KEPT};
use recado_sys::machine as sys;

use super::check;

/// How long the servers are asked at most.
const TIMEOUT: Duration = Duration::from_secs(4);
/// The room that a start needs beside the newest snapshot: the reserve and a log file.
const START: u64 = 2 * 4 * 1024 * 1024;

/// Prints the report of this machine. The exit code is 1 if there is a warning or a fault.
pub(super) fn run(file: &Path, data: Option<&Path>, as_json: bool) -> ExitCode {
    let report = Report(examine(file, data));
    let text = if as_json { report.to_json().to_string() } else { report.to_text(has_colours()) };
    let written = super::print(&mut io::stdout().lock(), &(text + "\n"));
    if let Err(error) = &written {
        let _ = writeln!(io::stderr(), "recadod: {}", super::message(error));
    }
    if written.is_err() || report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Returns true if standard output is a terminal that shows colours and whose user has not refused them.
fn has_colours() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !is_dumb && !is_unwanted
}

/// Returns true if this is the identity of the server of this configuration, and not of another one that has
/// its port. Without the secret the cluster's key cannot be compared.
fn is_own(claim: &Claim, config: &Config, secret: Option<&ClusterSecret>) -> bool {
    claim.node == config.cluster.me
        && claim.cluster == config.cluster.id
        && secret.is_none_or(|secret| claim.key == cluster_key(secret))
}

fn examine(file: &Path, data: Option<&Path>) -> Vec<Finding> {
    let subject = file.display().to_string();
    let checked = match ServerFile::read(file) {
        Ok(checked) => checked,
        Err(error) => {
            let cure = match &error {
                ConfigError::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    "name this server's file: recadod doctor FILE; recadod init writes one for each server"
                }
                ConfigError::Unreadable { .. } => "run the doctor as the server's user, or as root",
                ConfigError::Syntax { .. } | ConfigError::Value { .. } => {
                    "mend the line; recadod init writes a whole file"
                }
            };
            let why = (super::message(&Error::new(error)), cure);
            return vec![Finding::other(Severity::Fault, "config", &subject, "it cannot be used", why)];
        }
    };
    let (config, data) = (&checked.config, data.unwrap_or(&checked.data));
    let me = &config.cluster.me;
    let mut all = vec![Finding::ok("config", &subject, format!("{me} of cluster {}", config.cluster.id))];
    // The server runs as the owner of its data.
    let user = sys::access(data).ok().map(|access| access.owner);
    let (secret, found) = secret(&checked.secret, user);
    all.push(found);
    all.extend(directory(config, data));
    let (servers, found) = examine_servers(config, secret.as_ref());
    let own = config.cluster.member(*me);
    let process = own.and_then(|own| {
        let one = servers.iter().find(|one| one.addr == own.client)?;
        let is_own = is_own(one.claim.as_ref()?, config, secret.as_ref());
        one.told.as_ref().filter(|_| is_own).map(|told| told.status.pid)
    });
    if let Some(own) = own {
        all.extend(port(own.client, "clients", process.is_some()));
        all.extend(port(own.peer, "peers", process.is_some()));
        all.push(observe::buffer(own.client.ip()));
    }
    let subject = if process.is_some() { "the server" } else { "this user" };
    all.push(machine::open_files(subject, Side::Server, sys::open_files(process)));
    all.push(running(process));
    all.extend(found);
    all
}

/// Whether the server runs is no fault: the doctor is also for the time before the first start.
fn running(process: Option<u32>) -> Finding {
    let (check, subject) = ("server", "this server");
    match process {
        Some(pid) => Finding::ok(check, subject, format!("runs, process {pid}")).with("pid", pid),
        None => {
            let why = (
                "it is stopped, or does not answer",
                "systemctl start recadod; journalctl -u recadod says why it ended",
            );
            Finding::other(Severity::Note, check, subject, "does not run", why)
        }
    }
}

fn secret(path: &Path, user: Option<u32>) -> (Option<ClusterSecret>, Finding) {
    let subject = path.display().to_string();
    match ClusterSecret::read(path) {
        Ok(secret) => {
            let found = machine::private(&subject, Side::Server, &sys::access(path), user, Severity::Fault);
            let fingerprint = cluster_key(&secret).fingerprint().to_string();
            (Some(secret), found.with("fingerprint", fingerprint))
        }
        Err(error) => {
            let cure = match error {
                SecretError::Exposed { .. } => format!("run: chmod 600 {subject}"),
                _ => format!("copy cluster.secret from another server, then: chmod 600 {subject}"),
            };
            let why = (super::message(&Error::new(error)), cure);
            (None, Finding::other(Severity::Fault, "access", &subject, "the secret cannot be used", why))
        }
    }
}

/// The data directory: whose it is, what it holds, room and speed of its disk.
fn directory(config: &Config, data: &Path) -> Vec<Finding> {
    let subject = data.display().to_string();
    let access = sys::access(data);
    if access.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return vec![gone(&subject, config.cluster.members.len() == 1)];
    }
    // A start takes away what others may do, so it is no fault.
    let mut all = vec![machine::private(&subject, Side::Server, &access, None, Severity::Warning)];
    if !data.is_dir() {
        return all;
    }
    all.push(match journal::check(data, &check::expected(config)) {
        Ok(found) => holds(&subject, &found),
        Err(error) => {
            let cure = match error {
                JournalError::Irreparable(_) | JournalError::Forgotten => {
                    "put a copy of its data in its place, or make a new cluster elsewhere: recadod init"
                }
                JournalError::Io { .. } | JournalError::NotWritable(_) => {
                    "run the doctor as the server's user or as root; look at dmesg, and check the disk"
                }
                JournalError::Foreign(_) => "mend `data` in recado.toml",
                _ => "give each server its own `data`; recadod inspect shows it",
            };
            let why = (super::message(&Error::new(error)), cure);
            Finding::other(Severity::Fault, "data", &subject, "a server does not start with it", why)
        }
    });
    let need =
        Need { now: START + newest_snapshot(data), most: most(config), taken: sys::taken(data).unwrap_or(0) };
    all.extend(observe::disk(data, &subject, Side::Server, need));
    all
}

/// There is no data directory.
fn gone(subject: &str, is_alone: bool) -> Finding {
    let why = match is_alone {
        true => (
            "it was never made or put in its place, or its disk is not mounted",
            "mount its disk, or put the data that recadod init has made, or a copy of it, in its place"
                .to_owned(),
        ),
        false => (
            "it was never put in its place, its disk is not mounted, or the disk was lost",
            format!(
                "mount its disk, or put its data in its place; if they are lost, as the server's user: \
                 mkdir -m 700 {subject}, and start it while the other servers run"
            ),
        ),
    };
    Finding::other(Severity::Fault, "access", subject, "there is no such directory", why)
}

fn holds(subject: &str, found: &Checked) -> Finding {
    let (check, seen) = ("data", check::state(found));
    match &found.meta {
        MetaState::Good { .. } if found.lost.is_some() => {
            let cure = "keep the other servers running and start it; check the disk, and replace it";
            Finding::other(Severity::Warning, check, subject, seen, ("the disk has lost them", cure))
        }
        MetaState::Good { whole: true, voter: true, .. } => Finding::ok(check, subject, seen),
        MetaState::Good { voter: false, .. } => {
            let why = (
                "it has lost its promises: its disk was lost, or its directory was emptied",
                "keep the other servers running, with their data: it votes again when a majority of all servers, itself \
                 not counted, still votes and has answered it; with fewer, neither waiting nor a restart mends it",
            );
            Finding::other(Severity::Note, check, subject, seen, why)
        }
        MetaState::Good { .. } => {
            let why = ("the disk has damaged one of two", "check the disk; the next start mends it");
            Finding::other(Severity::Note, check, subject, seen, why)
        }
        MetaState::Absent | MetaState::Rotten => {
            let cause = match found.orphaned {
                true => "meta, and with it the promises, was lost, or left out when the directory was copied",
                false => "the directory is new, or its disk was lost",
            };
            let why = (
                cause,
                "if its data are elsewhere, put them back, meta too. Otherwise keep the other servers running, with their \
                 data, and start it: a majority of all servers, itself not counted, must still vote. In a cluster that is \
                 only just made, give each server the directory that recadod init made for it",
            );
            Finding::other(Severity::Warning, check, subject, seen, why)
        }
    }
}

/// The bytes that the data may come to take: the snapshots that are kept, one that is being written and one
/// that a peer sends, each of the largest state that this configuration allows; and the log of those kept.
/// Between two snapshots it has up to four times [`Config::snapshot_bytes`], while a peer reads one.
fn most(config: &Config) -> u64 {
    let Config { limits, retention, snapshot_bytes, .. } = config;
    let kept = SNAPSHOTS_KEPT as u64;
    let state = limits.state_bytes.min(limits.record_bytes.saturating_add(retention.all_bytes));
    let log = snapshot_bytes.saturating_mul(4 * kept);
    START.saturating_add(state.saturating_mul(kept + 2)).saturating_add(log)
}

/// The size of the newest snapshot; zero without one.
fn newest_snapshot(data: &Path) -> u64 {
    let entries = fs::read_dir(data).into_iter().flatten().flatten();
    let snapshots = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("snap."));
    let newest = snapshots.max_by_key(fs::DirEntry::file_name);
    newest.and_then(|entry| entry.metadata().ok()).map_or(0, |metadata| metadata.len())
}

fn port(addr: SocketAddr, whose: &str, runs: bool) -> Option<Finding> {
    let subject = format!("{addr} ({whose})");
    match sys::port(addr) {
        Ok(found) => Some(machine::port(&subject, found, runs)),
        Err(error) => {
            let why = (error.to_string(), "give this machine the address, or the cluster another");
            Some(Finding::other(Severity::Fault, "port", &subject, "it cannot be had", why))
        }
    }
}

/// All servers of the configuration, this one included. Without the secret nothing tells whether they are of
/// this cluster.
fn examine_servers(config: &Config, secret: Option<&ClusterSecret>) -> (Vec<Surveyed>, Vec<Finding>) {
    let given: Vec<SocketAddr> = config.cluster.members.iter().map(|member| member.client).collect();
    let expected = Expected {
        given: given.clone(),
        pinned: secret.map(cluster_key),
        known: Vec::new(),
        own: Some(Own { node: config.cluster.me, cluster: config.cluster.id, agreed: config.agreed() }),
    };
    match survey(&given, TIMEOUT) {
        Ok(found) => {
            let mut findings = cluster::findings(&found, &expected);
            findings.retain(|finding| secret.is_some() || finding.check != "cluster");
            (found, findings)
        }
        Err(error) => {
            let why = (error.to_string(), "look at the system's log, and at the limit of open files");
            (
                Vec::new(),
                vec![Finding::other(Severity::Fault, "udp", "all servers", "nobody can be asked", why)],
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use recado_proto::entry::{Entry, EntryKind};
    use recado_proto::id::{BootId, ClusterId, ClusterKey, NodeId, Op, View};

    use super::*;
    use crate::recadod::init;

    /// The files of a cluster of three, and the configuration of its first server.
    fn cluster() -> (tempfile::TempDir, PathBuf) {
        cluster_of(3)
    }

    fn cluster_of(servers: u16) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        init::run(&dir.path().join("c"), &init::plan((Some(servers), &[]), 10097).unwrap(), None).unwrap();
        let file = dir.path().join("c/server-1/recado.toml");
        (dir, file)
    }

    fn parts(file: &Path) -> (Config, PathBuf, PathBuf) {
        let ServerFile { config, data, secret, .. } = ServerFile::read(file).unwrap();
        (config, data, secret)
    }

    fn bad(findings: &[Finding], check: &str) -> Option<(Severity, String)> {
        let found = findings.iter().find(|found| found.check == check && found.severity != Severity::Ok)?;
        Some((found.severity, format!("{} {} {}", found.seen, found.cause, found.cure)))
    }

    #[test]
    fn the_files_that_init_makes_are_well() {
        let (_dir, file) = cluster();
        let (config, data, path) = parts(&file);
        let found = directory(&config, &data);
        for check in ["access", "data"] {
            assert_eq!(bad(&found, check), None, "{found:#?}");
        }
        let user = sys::access(&data).unwrap().owner;
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let (secret, found) = secret(&path, Some(user));
            assert!(secret.is_some() && found.severity == Severity::Ok, "{found:?}");
        }
    }

    #[test]
    fn a_server_of_another_id_cluster_or_key_is_not_this_one() {
        let (_dir, file) = cluster();
        let (config, _, path) = parts(&file);
        let secret = ClusterSecret::read(&path).unwrap();
        let me = Claim {
            node: config.cluster.me,
            boot_id: BootId([1; 16]),
            cluster: config.cluster.id,
            key: cluster_key(&secret),
        };
        assert!(is_own(&me, &config, Some(&secret)));
        let other = Claim { key: ClusterKey([9; 32]), ..me };
        assert!(!is_own(&other, &config, Some(&secret)) && is_own(&other, &config, None));
        for other in [
            Claim { node: NodeId(me.node.0 + 1), ..me },
            Claim { cluster: ClusterId(me.cluster.0 ^ 1), ..me },
        ] {
            assert!(!is_own(&other, &config, Some(&secret)), "{other:?}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_read_is_a_fault_that_names_the_line() {
        let (_dir, file) = cluster();
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("node = 1", "node = 7")).unwrap();
        let found = examine(&file, None);
        let (severity, told) = bad(&found, "config").unwrap();
        assert!(severity == Severity::Fault && told.contains('7') && found.len() == 1, "{found:?}");
    }

    #[test]
    fn a_secret_that_others_read_or_that_is_gone_is_a_fault_with_its_cure() {
        let (_dir, file) = cluster();
        let (_, _, path) = parts(&file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let found = [secret(&path, None).1];
        assert!(bad(&found, "access").unwrap().1.contains("chmod 600"), "{found:?}");
        fs::remove_file(&path).unwrap();
        let found = [secret(&path, None).1];
        assert!(bad(&found, "access").unwrap().1.contains("copy cluster.secret"), "{found:?}");
    }

    #[test]
    fn data_that_others_read_that_is_another_servers_or_empty_is_told() {
        let (dir, file) = cluster();
        let (config, data, _) = parts(&file);
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
        let (severity, told) = bad(&directory(&config, &data), "access").unwrap();
        assert!(severity == Severity::Warning && told.contains("chmod go="), "{told}");
        let other = dir.path().join("c/server-2/data");
        let (severity, told) = bad(&directory(&config, &other), "data").unwrap();
        assert!(severity == Severity::Fault && told.contains("server-2"), "{told}");
        fs::remove_file(data.join("meta")).unwrap();
        let (severity, told) = bad(&directory(&config, &data), "data").unwrap();
        assert!(severity == Severity::Warning && told.contains("other servers"), "{told}");
    }

    #[test]
    fn a_server_without_a_vote_is_not_said_to_be_mended_by_a_start() {
        let (_dir, file) = cluster();
        let (config, data, _) = parts(&file);
        let found = |voter, whole| {
            let MetaState::Good { cluster, node, members, incarnation, promised, mark, .. } =
                journal::check(&data, &check::expected(&config)).unwrap().meta
            else {
                panic!("a new directory")
            };
            let meta = MetaState::Good { whole, cluster, node, members, voter, incarnation, promised, mark };
            let found = holds("data", &Checked { meta, lost: None, orphaned: false });
            (found.severity, found.cure)
        };
        let (severity, cure) = found(false, true);
        assert!(severity == Severity::Note && cure.contains("a majority of all servers"), "{cure}");
        assert!(!cure.contains("next start"), "{cure}");
        assert!(found(true, false).1.contains("the next start mends it"));
        assert_eq!(found(true, true).0, Severity::Ok);
    }

    #[test]
    fn a_data_directory_that_is_gone_is_made_empty_where_other_servers_have_the_data_and_nowhere_else() {
        let (dir, file) = cluster();
        let (config, ..) = parts(&file);
        let none = dir.path().join("none");
        let (severity, told) = bad(&directory(&config, &none), "access").unwrap();
        assert!(severity == Severity::Fault && !told.contains("recadod init"), "{told}");
        assert!(told.contains(&format!("mkdir -m 700 {}", none.display())), "{told}");
        let (_dir, file) = cluster_of(1);
        let (config, ..) = parts(&file);
        let (severity, told) = bad(&directory(&config, &none), "access").unwrap();
        assert!(severity == Severity::Fault && !told.contains("mkdir"), "{told}");
    }

    #[test]
    fn data_on_which_the_only_server_of_a_cluster_does_not_start_is_a_fault() {
        let (_dir, file) = cluster_of(1);
        let (config, data, _) = parts(&file);
        assert_eq!(bad(&directory(&config, &data), "data"), None);
        fs::write(data.join("meta"), [0; 8192]).unwrap();
        let (severity, told) = bad(&directory(&config, &data), "data").unwrap();
        assert!(severity == Severity::Fault && told.contains("put a copy"), "{told}");
        assert!(!told.contains("its own `data`"), "{told}");
    }

    #[test]
    fn damage_that_the_other_servers_mend_is_a_warning() {
        let (_dir, file) = cluster();
        let (config, data, _) = parts(&file);
        let expected = check::expected(&config);
        let disk = journal::Directory::lock(&data).unwrap();
        let (mut journal, _) = journal::Journal::open(disk, &expected, Default::default()).unwrap();
        let entry = Entry { op: Op(1), view: View(1), kind: EntryKind::Command, payload: [7; 9].into() };
        journal.append(&[entry], Op(0)).unwrap();
        journal.sync().unwrap();
        journal.mark().unwrap();
        drop(journal);
        let log = data.join(format!("log.{:020}", 1));
        let len = fs::read(&log).unwrap().len();
        fs::write(&log, vec![0; len]).unwrap();
        let (severity, told) = bad(&directory(&config, &data), "data").unwrap();
        assert!(severity == Severity::Warning && told.contains("ops 1 to 1 ARE DAMAGED"), "{told}");
    }

    #[test]
    fn without_a_configuration_the_cure_is_to_name_one() {
        let dir = tempfile::tempdir().unwrap();
        let (severity, told) = bad(&examine(&dir.path().join("recado.toml"), None), "config").unwrap();
        assert!(severity == Severity::Fault && told.contains("recadod doctor FILE"), "{told}");
        assert!(!told.contains("mend the line"), "{told}");
    }

    #[test]
    fn the_room_that_may_be_needed_follows_the_configuration() {
        let (_dir, file) = cluster();
        let (config, data, _) = parts(&file);
        let mut small = config.clone();
        small.retention.all_bytes = 1 << 20;
        small.limits.record_bytes = 1 << 20;
        assert!(most(&small) < most(&config) && most(&config) > 5 * config.limits.state_bytes);
        fs::write(data.join("snap.00000000000000000007"), [0; 70]).unwrap();
        fs::write(data.join("snap.00000000000000000012"), [0; 12]).unwrap();
        assert_eq!(newest_snapshot(&data), 12);
    }
}
