//! `recadod check-config`: tells whether `serve` would accept a configuration file.

use std::path::Path;

use anyhow::{Context, Error, Result};
use recado::config::file::{ConfigError, ServerFile};
use recado::config::secret::ClusterSecret;
use recado::config::{Cluster, Config};
use recado::server::cluster_key;
use recado_log::journal::{self, Checked, Expected, MetaState};
use recado_sys::machine;

use super::inspect::Verdict;

/// Reads the file and what it names, the secret and the data directory; returns a summary, and whether the
/// data that `serve` would accept is damaged.
pub(super) fn run(file: &Path) -> Result<(String, Verdict)> {
    let (checked, secret) = load(file)?;
    let cluster = &checked.config.cluster;
    let expected = expected(&checked.config);
    let ids: Vec<String> = expected.members.iter().map(|id| id.0.to_string()).collect();
    let data = checked.data.display();
    let found = journal::check(&checked.data, &expected)
        .with_context(|| format!("{}: data directory {data}", file.display()))?;
    let at = cluster
        .member(cluster.me)
        .map_or(String::new(), |me| format!(", clients at {}, peers at {}", me.client, me.peer));
    let (word, verdict) = match found.is_damaged() {
        true => ("THE DATA IS DAMAGED, a server starts with it all the same", Verdict::Damaged),
        false => ("good", Verdict::Whole),
    };
    let text = format!(
        "{}: {word}\n  server   {} of [{}] of cluster {}{at}\n  data     {data}: {}{}\n  \
         settings {:016x}: cluster and addresses, timing.preset, new_names and [retention], four digits each; the same \
         on every server\n  key      fingerprint {}: the same on every server\n",
        file.display(),
        cluster.me,
        ids.join(" "),
        cluster.id,
        state(&found),
        exposed(&checked.data),
        checked.config.agreed(),
        cluster_key(&secret).fingerprint()
    );
    Ok((text, verdict))
}

/// What a start with this configuration expects of its data directory.
pub(super) fn expected(config: &Config) -> Expected {
    let Cluster { id, me, members } = &config.cluster;
    Expected { cluster: *id, node: *me, members: members.iter().map(|member| member.id).collect() }
}

/// The fingerprint that people compare when a client meets the cluster for the first time.
pub(super) fn fingerprint(file: &Path) -> Result<String> {
    let (checked, secret) = load(file)?;
    let key = cluster_key(&secret);
    let (id, fingerprint) = (checked.config.cluster.id, key.fingerprint());
    Ok(format!("cluster      {id}\nfingerprint  {fingerprint}\nkey          {key}\n"))
}

/// What is said of a data directory that other users may access.
fn exposed(data: &Path) -> String {
    let mode = machine::access(data).map_or(0, |access| access.mode);
    match mode & 0o077 {
        0 => String::new(),
        _ => format!("; mode {mode:03o}: other users may access it until the next start makes it 700"),
    }
}

/// A data directory on which a server starts, in words.
pub(super) fn state(found: &Checked) -> String {
    match &found.meta {
        MetaState::Absent if found.orphaned => {
            "META IS MISSING beside log files or snapshots, which the next start sets aside; the server learns from the \
             others before it votes"
                .to_owned()
        }
        MetaState::Absent => {
            "empty; the server learns from the others before it votes, and they must have their data"
                .to_owned()
        }
        MetaState::Rotten => "DAMAGED meta; the server learns from the others before it votes".to_owned(),
        MetaState::Good { voter, incarnation, whole, .. } => {
            let role = if *voter { "this server's, with a vote" } else { "this server's, still a learner" };
            let bad =
                if *whole { "" } else { "; ONE OF TWO SLOTS of meta is damaged, the next start repairs it" };
            let lost = found.lost.map_or(String::new(), |lost| {
                format!(
                    "; ops {} to {} ARE DAMAGED, the other servers have to send them",
                    lost.first, lost.last
                )
            });
            format!("{role}; starts so far: {incarnation}{bad}{lost}")
        }
    }
}

/// Reads the configuration and the secret that `serve` runs with, checked as far as possible without a start.
pub(super) fn load(file: &Path) -> Result<(ServerFile, ClusterSecret)> {
    let checked = ServerFile::read(file).map_err(|error| of(file, error))?;
    let secret = ClusterSecret::read(&checked.secret)?;
    Ok((checked, secret))
}

/// Adds the file's name to an error about a value, which does not have it.
fn of(file: &Path, error: ConfigError) -> Error {
    match error {
        ConfigError::Value { .. } => Error::new(error).context(file.display().to_string()),
        ConfigError::Unreadable { .. } | ConfigError::Syntax { .. } => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use recado_log::journal::{Directory, Journal, Options};
    use recado_proto::entry::{Entry, EntryKind};
    use recado_proto::id::{Op, View};

    use super::*;
    use crate::recadod::{exit_code, init, inspect, local_status, message};

    /// The files of a cluster of three.
    fn cluster() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        init::run(&dir.path().join("c"), &init::plan((Some(3), &[]), 10097).unwrap(), None).unwrap();
        dir
    }

    fn told(file: &Path) -> String {
        run(file).unwrap().0
    }

    #[test]
    fn a_good_file_is_named_with_its_server_and_addresses() {
        let dir = cluster();
        let file = dir.path().join("c/server-2/recado.toml");
        let output = told(&file);
        for part in [&file.display().to_string(), "server-2 of [1 2 3]", "127.0.0.1:10098", "127.0.0.1:11098"]
        {
            assert!(output.contains(part), "{part}: {output}");
        }
        assert!(output.contains("with a vote"), "{output}");
        fs::remove_file(dir.path().join("c/server-2/data/meta")).unwrap();
        assert!(told(&file).contains("they must have their data"));
    }

    #[test]
    fn what_must_be_configured_alike_is_shown_so_that_it_can_be_compared() {
        let dir = cluster();
        let settings = |server: u8| {
            let output = told(&dir.path().join(format!("c/server-{server}/recado.toml")));
            let line = output.lines().find_map(|line| line.trim().strip_prefix("settings "));
            line.unwrap().split(':').next().unwrap().to_owned()
        };
        assert_eq!(settings(1), settings(2));
        let file = dir.path().join("c/server-1/recado.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("\ncount = 10000\n", "\ncount = 2\n")).unwrap();
        let (one, two) = (settings(1), settings(2));
        assert!(one[..12] == two[..12] && one[12..] != two[12..], "{one} {two}");
    }

    #[test]
    fn what_serve_refuses_of_an_only_servers_data_is_refused_and_damage_that_others_mend_is_told() {
        for servers in [1, 3] {
            let dir = tempfile::tempdir().unwrap();
            init::run(&dir.path().join("c"), &init::plan((Some(servers), &[]), 10097).unwrap(), None)
                .unwrap();
            let file = dir.path().join("c/server-1/recado.toml");
            let (checked, _) = load(&file).unwrap();
            let (data, expected) = (&checked.data, expected(&checked.config));
            // As a start does it.
            let open = || Journal::open(Directory::lock(data).unwrap(), &expected, Options::default());
            let (mut journal, _) = open().unwrap();
            let entry =
                |op| Entry { op: Op(op), view: View(1), kind: EntryKind::Command, payload: [7; 9].into() };
            journal.append(&[entry(1), entry(2)], Op(0)).unwrap();
            journal.sync().unwrap();
            journal.mark().unwrap();
            assert!(told(&file).contains("with a vote"), "beside a server");
            drop(journal);
            assert!(told(&file).contains("with a vote"));
            let inspected = || inspect::run(data, false).unwrap();
            assert_eq!(inspected().1, inspect::Verdict::Whole);

            let log = data.join(format!("log.{:020}", 1));
            let len = fs::read(&log).unwrap().len();
            fs::write(&log, vec![0xff; len]).unwrap();
            assert_eq!(inspected().1, inspect::Verdict::Damaged);
            let refused = |what: &str| {
                let error = run(&file).unwrap_err();
                assert!(message(&error).contains(what), "{}", message(&error));
                let served = Error::new(open().err().unwrap());
                assert_eq!((exit_code(&error), exit_code(&served)), (78, 78), "{what}");
            };
            if servers > 1 {
                let told = told(&file);
                assert!(told.contains("ops 1 to 2 ARE DAMAGED, the other servers"), "{told}");
                let is_damaged = |what: &str| {
                    let (told, verdict) = run(&file).unwrap();
                    assert!(told.contains(what) && !told.contains(": good"), "{told}");
                    assert_eq!(verdict, Verdict::Damaged, "{told}");
                };
                is_damaged("ARE DAMAGED");
                fs::write(data.join("meta"), [0; 8192]).unwrap();
                is_damaged("DAMAGED meta");
                fs::remove_file(data.join("meta")).unwrap();
                is_damaged("META IS MISSING beside log files");
                fs::remove_file(&log).unwrap();
                assert_eq!(run(&file).unwrap().1, Verdict::Whole, "there is nothing to be damaged");
                continue;
            }
            refused("damaged ops 1 to 2");
            fs::remove_file(data.join("meta")).unwrap();
            assert_eq!(inspected().1, inspect::Verdict::Damaged, "a log that no meta speaks of");
            refused("empty or damaged");
            fs::remove_file(&log).unwrap();
            fs::remove_file(data.join("reserve")).unwrap();
            assert_eq!(inspected().1, inspect::Verdict::Whole, "there is nothing");
            refused("empty or damaged");
        }
    }

    #[test]
    fn data_that_other_users_may_access_is_told_with_what_the_next_start_does() {
        use std::os::unix::fs::PermissionsExt;
        let dir = cluster();
        let file = dir.path().join("c/server-1/recado.toml");
        assert!(!told(&file).contains("other users"));
        let data = dir.path().join("c/server-1/data");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(told(&file).contains("mode 755: other users may access it"));
    }

    #[test]
    fn all_servers_of_a_cluster_have_one_fingerprint_and_another_cluster_has_another() {
        let (dir, other) = (cluster(), cluster());
        let at = |dir: &tempfile::TempDir, server: u8| {
            let file = dir.path().join(format!("c/server-{server}/recado.toml"));
            let output = fingerprint(&file).unwrap();
            let digits =
                output.lines().find_map(|line| line.strip_prefix("fingerprint  ")).unwrap().to_owned();
            assert!(told(&file).contains(&digits), "check-config tells it too");
            digits
        };
        assert_eq!(at(&dir, 1), at(&dir, 2));
        assert_ne!(at(&dir, 1), at(&other, 1));
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused_with_the_command_that_mends_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = cluster();
        let secret = dir.path().join("c/server-1/cluster.secret");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
        let file = dir.path().join("c/server-1/recado.toml");
        for error in [load(&file).unwrap_err(), run(&file).unwrap_err(), fingerprint(&file).unwrap_err()] {
            assert!(
                message(&error).contains(&format!("chmod 600 {}", secret.display())),
                "{}",
                message(&error)
            );
            assert_eq!(exit_code(&error), 78);
        }
    }

    #[test]
    fn an_error_about_a_value_names_the_file() {
        let dir = cluster();
        let file = dir.path().join("c/server-1/recado.toml");
        let text = fs::read_to_string(&file).unwrap();
        for wrong in [text.replace("node = 1", "node = 7"), text.replace("node = 1", "node = ")] {
            fs::write(&file, wrong).unwrap();
            let error = run(&file).unwrap_err();
            let message = message(&error);
            assert!(
                message.contains("server-1/recado.toml") && !message.ends_with(char::is_whitespace),
                "{message:?}"
            );
            assert_eq!(exit_code(&error), 78);
        }
    }

    #[test]
    fn a_mistyped_data_directory_is_refused_whatever_it_names() {
        let dir = cluster();
        let file = dir.path().join("c/server-1/recado.toml");
        let text = fs::read_to_string(&file).unwrap();
        for data in ["..", ".", ""] {
            fs::write(&file, text.replace("\ndata = \"data\"\n", &format!("\ndata = \"{data}\"\n"))).unwrap();
            let error = run(&file).unwrap_err();
            assert!(message(&error).contains("not a data directory"), "{data:?}: {}", message(&error));
            assert_eq!(exit_code(&error), 78, "{data:?}");
        }
    }

    #[test]
    fn what_a_new_disk_has_and_a_killed_server_leaves_is_not_foreign() {
        let dir = cluster();
        let file = dir.path().join("c/server-1/recado.toml");
        let data = dir.path().join("c/server-1/data");
        fs::remove_file(data.join("meta")).unwrap();
        fs::create_dir(data.join("lost+found")).unwrap();
        fs::write(local_status::socket(&data), "").unwrap();
        assert!(told(&file).contains("empty; the server learns"), "{}", told(&file));
    }

    #[test]
    fn data_of_another_server_or_cluster_is_found_before_any_start() {
        let (dir, other) = (cluster(), cluster());
        let file = dir.path().join("c/server-1/recado.toml");
        let data = dir.path().join("c/server-1/data");
        for (from, what) in [
            (dir.path().join("c/server-2/data/meta"), "server-2"),
            (other.path().join("c/server-1/data/meta"), "cluster"),
        ] {
            fs::copy(from, data.join("meta")).unwrap();
            let error = run(&file).unwrap_err();
            assert!(
                message(&error).contains(what) && message(&error).contains("recado.toml"),
                "{}",
                message(&error)
            );
            assert_eq!(exit_code(&error), 78);
        }
        fs::remove_dir_all(&data).unwrap();
        let error = run(&file).unwrap_err();
        assert!(
            message(&error).contains("no such directory") && exit_code(&error) == 78,
            "{}",
            message(&error)
        );
    }
}
