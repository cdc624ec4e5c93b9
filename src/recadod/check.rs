//! `recadod check-config`: tells whether `serve` would accept a configuration file.

use std::path::Path;

use anyhow::{Context, Error, Result};
use recado::config::file::{ConfigError, ServerFile};
use recado::config::secret::ClusterSecret;
use recado::config::{Cluster, Config};
use recado::server::cluster_key;
use recado_log::journal::{self, Expected, MetaState};

/// Reads the file and what it names, the secret and the data directory; returns a summary.
pub(super) fn run(file: &Path) -> Result<String> {
    let (checked, secret) = load(file)?;
    let cluster = &checked.config.cluster;
    let expected = expected(&checked.config);
    let ids: Vec<String> = expected.members.iter().map(|id| id.0.to_string()).collect();
    let data = checked.data.display();
    let meta = journal::check(&checked.data, &expected)
        .with_context(|| format!("{}: data directory {data}", file.display()))?;
    let at = cluster
        .member(cluster.me)
        .map_or(String::new(), |me| format!(", clients at {}, peers at {}", me.client, me.peer));
    Ok(format!(
        "{}: good\n  server   {} of [{}] of cluster {}{at}\n  data     {data}: {}\n  key      fingerprint {}\n",
        file.display(),
        cluster.me,
        ids.join(" "),
        cluster.id,
        state(&meta, expected.members.len() == 1),
        cluster_key(&secret).fingerprint()
    ))
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

pub(super) fn state(meta: &MetaState, alone: bool) -> String {
    match meta {
        MetaState::Absent if alone => {
            "empty; there is no other server to learn from, so it will not start".to_owned()
        }
        MetaState::Rotten if alone => {
            "DAMAGED meta; there is no other server to learn from, so it will not start".to_owned()
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
            format!("{role}; starts so far: {incarnation}{bad}")
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

    use super::*;
    use crate::recadod::{exit_code, init, message};

    /// The files of a cluster of three.
    fn cluster() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        init::run(&dir.path().join("c"), &init::plan((Some(3), &[]), 10097).unwrap(), None).unwrap();
        dir
    }

    #[test]
    fn a_good_file_is_named_with_its_server_and_addresses() {
        let dir = cluster();
        let file = dir.path().join("c/server-2/recado.toml");
        let output = run(&file).unwrap();
        for part in [&file.display().to_string(), "server-2 of [1 2 3]", "127.0.0.1:10098", "127.0.0.1:11098"]
        {
            assert!(output.contains(part), "{part}: {output}");
        }
        assert!(output.contains("with a vote"), "{output}");
        fs::remove_file(dir.path().join("c/server-2/data/meta")).unwrap();
        assert!(run(&file).unwrap().contains("they must have their data"));
    }

    #[test]
    fn all_servers_of_a_cluster_have_one_fingerprint_and_another_cluster_has_another() {
        let (dir, other) = (cluster(), cluster());
        let at = |dir: &tempfile::TempDir, server: u8| {
            let file = dir.path().join(format!("c/server-{server}/recado.toml"));
            let output = fingerprint(&file).unwrap();
            let digits =
                output.lines().find_map(|line| line.strip_prefix("fingerprint  ")).unwrap().to_owned();
            assert!(run(&file).unwrap().contains(&digits), "check-config tells it too");
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
