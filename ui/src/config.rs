//! What holds unless it is typed: `$XDG_CONFIG_HOME/recado/config.toml`.
//!
//! ```toml
//! profile = "alice"
//! servers = ["a.example:10097", "b.example:10097"]
//! cluster_key = "5f..."    # 64 digits, as `recadod fingerprint` prints them: talk to this cluster only
//! ```
//!
//! The command line wins over the environment (RECADO_AS, RECADO_SERVERS, RECADO_CLUSTER_KEY,
//! RECADO_CONFIG), which wins
//! over the file. Without any, the servers are those of a local `./run.sh`.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use etcetera::base_strategy::Xdg;
use recado::client::{ClusterKey, ClusterKeyError, Name};
use serde::Deserialize;

use crate::cli::{self, Common};
use crate::exit::Failure;

/// The file.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    servers: Vec<String>,
    profile: Option<String>,
    cluster_key: Option<String>,
}

/// What a command runs with.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) servers: Vec<SocketAddr>,
    profile: Option<Name>,
    path: PathBuf,
    pub(crate) state: PathBuf,
    /// The only key to trust.
    pub(crate) cluster_key: Option<ClusterKey>,
}

impl Config {
    /// From the command line, the environment and the file.
    pub(crate) fn load(common: &Common) -> Result<Config, Failure> {
        let xdg =
            Xdg::new().map_err(|error| Failure::Usage(format!("no home directory: {error}; set HOME")))?;
        let (path, wanted) = match &common.config {
            Some(path) => (path.clone(), true),
            None => (xdg.config_dir().join("recado").join("config.toml"), false),
        };
        let file = read(&path, wanted)?;
        let wrong = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
        let profile = match (&common.profile, &file.profile) {
            (Some(profile), _) => Some(profile.clone()),
            (None, Some(text)) => Some(cli::profile(text).map_err(wrong)?),
            (None, None) => None,
        };
        let no_key = |error: ClusterKeyError| wrong(format!("cluster_key: {error}"));
        let cluster_key = match (common.cluster_key, &file.cluster_key) {
            (Some(key), _) => Some(key),
            (None, Some(text)) => Some(text.parse().map_err(no_key)?),
            (None, None) => None,
        };
        let servers = if !common.servers.is_empty() {
            cli::resolve(&common.servers).map_err(Failure::Usage)?
        } else if !file.servers.is_empty() {
            cli::resolve(&file.servers).map_err(wrong)?
        } else {
            cli::resolve(&cli::SERVERS.map(str::to_owned)).map_err(Failure::Usage)?
        };
        let state = xdg.state_dir().unwrap_or_else(|| xdg.data_dir()).join("recado");
        Ok(Config { servers, profile, path, state, cluster_key })
    }

    /// As whom to act.
    pub(crate) fn profile(&self) -> Result<Name, Failure> {
        self.profile.clone().ok_or_else(|| {
            Failure::Usage(format!(
                "as whom? give --as NAME, set RECADO_AS, or write profile = \"name\" into {}",
                self.path.display()
            ))
        })
    }
}

fn read(path: &Path, wanted: bool) -> Result<File, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text)
            .map_err(|error| Failure::Usage(format!("{}: {}", path.display(), error.to_string().trim_end()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !wanted => Ok(File::default()),
        Err(error) => Err(Failure::Usage(format!("cannot read {}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(config: PathBuf) -> Common {
        Common {
            profile: None,
            servers: vec![],
            timeout: None,
            json: false,
            accept_new: false,
            cluster_key: None,
            config: Some(config),
        }
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let key = |n: u8| ClusterKey([n; 32]);
        let text = "profile = \"alice\"\nservers = [\"127.0.0.1:7\"]\n".to_owned();
        fs::write(&path, format!("{text}cluster_key = \"{}\"\n", key(1))).unwrap();
        let config = Config::load(&common(path.clone())).unwrap();
        assert_eq!(config.profile().unwrap().as_str(), "alice");
        assert_eq!(config.servers, ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(config.cluster_key, Some(key(1)));
        let typed = Common {
            profile: Some("bob".parse().unwrap()),
            servers: vec!["127.0.0.1:8".into()],
            cluster_key: Some(key(2)),
            ..common(path)
        };
        let config = Config::load(&typed).unwrap();
        assert_eq!(config.profile().unwrap().as_str(), "bob");
        assert_eq!(config.servers, ["127.0.0.1:8".parse().unwrap()]);
        assert_eq!(config.cluster_key, Some(key(2)));
    }

    #[test]
    fn a_wrong_or_missing_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        assert!(Config::load(&common(path.clone())).unwrap_err().to_string().contains("config.toml"));
        fs::write(&path, "profil = \"alice\"\n").unwrap();
        assert!(Config::load(&common(path.clone())).unwrap_err().to_string().contains("profil"));
        fs::write(&path, "cluster_key = \"5f\"\n").unwrap();
        let told = Config::load(&common(path.clone())).unwrap_err().to_string();
        assert!(told.contains("cluster_key") && told.contains("64 hexadecimal digits"), "{told}");
        fs::write(&path, "profile = \"A\"\n").unwrap();
        assert!(matches!(Config::load(&common(path)), Err(Failure::Usage(_))));
    }

    #[test]
    fn without_anything_the_local_servers_are_meant_and_a_profile_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, "").unwrap();
        let config = Config::load(&common(path)).unwrap();
        assert_eq!(config.servers.len(), 3);
        assert!(config.profile().unwrap_err().to_string().contains("--as"));
    }
}
