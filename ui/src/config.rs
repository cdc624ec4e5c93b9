//! Configuration: `$XDG_CONFIG_HOME/recado/config.toml`, merged with the command line and the environment.
//!
//! ```toml
//! profile = "alice"
//! servers = ["a.example:10097", "b.example:10097"]
//! cluster_key = "5f..."    # 64 digits, as `recadod fingerprint` prints them: talk to this cluster only
//! ```
//!
//! The command line takes precedence over the environment (RECADO_AS, RECADO_SERVERS, RECADO_CLUSTER_KEY,
//! RECADO_ACCOUNT, RECADO_CONFIG), and the environment over the file. In the file, an account takes
//! precedence over the settings outside it. The default servers are those of a local `./run.sh`. `recado
//! config init` writes a sample that explains every setting.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use etcetera::base_strategy::Xdg;
use recado_client::{ClusterKey, ClusterKeyError, EnrolmentCode, Name};
use serde::Deserialize;

use crate::cli::{self, Common};
use crate::environment::SERVERS;
use crate::exit::Failure;
use crate::print::note;
use crate::private;
use crate::servers::{self, LOCAL};
use crate::tui::settings::ScreenFile;

/// Sample file: every setting with its default and an explanation.
const SAMPLE: &str = include_str!("sample.toml");

/// Contents of the configuration file.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    servers: Vec<String>,
    profile: Option<String>,
    cluster_key: Option<String>,
    claim: Option<bool>,
    create: Option<bool>,
    account: Option<String>,
    #[serde(default)]
    accounts: BTreeMap<String, Account>,
    #[serde(default)]
    screen: ScreenFile,
}

/// One of several profiles or clusters.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Account {
    #[serde(default)]
    servers: Vec<String>,
    profile: Option<String>,
    cluster_key: Option<String>,
}

/// Where the servers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    CommandLine,
    Environment,
    File,
    /// Nowhere: those of a local `./run.sh`.
    Default,
}

/// Effective configuration of a command.
#[derive(Debug)]
pub(crate) struct Config {
    /// The servers as they are written.
    written: Vec<String>,
    /// Where they are written.
    source: Source,
    /// Their addresses, once they are asked for.
    servers: OnceCell<Vec<SocketAddr>>,
    pub(crate) profile: Option<Name>,
    /// The profile in the file.
    kept: Option<String>,
    /// Name of the account, if one was chosen.
    pub(crate) account: Option<String>,
    pub(crate) screen: ScreenFile,
    /// The configuration file; it may not exist.
    pub(crate) path: PathBuf,
    /// Directory of the user's themes.
    pub(crate) themes: PathBuf,
    pub(crate) state: PathBuf,
    /// The only cluster key to trust, if one is pinned.
    pub(crate) cluster_key: Option<ClusterKey>,
    /// False if no command may claim a name.
    pub(crate) claims: bool,
    /// False if `send` may create no channel.
    pub(crate) creates: bool,
    /// Code of the invitation with which a new name is claimed.
    pub(crate) invite: Option<EnrolmentCode>,
}

impl Config {
    /// Reads the file and merges it with `common`, which holds the command line and the environment.
    pub(crate) fn load(common: &Common) -> Result<Config, Failure> {
        let xdg = xdg()?;
        let path = path(common)?;
        let file = read(&path, common.config.is_some())?;
        let wrong = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
        let account = common.account.clone().or(file.account);
        let chosen = match &account {
            None => Account::default(),
            Some(name) => file
                .accounts
                .into_iter()
                .find(|(one, _)| one == name)
                .map(|(_, account)| account)
                .ok_or_else(|| {
                    wrong(format!(
                        "there is no account {name:?}; write [accounts.{name}] with a profile and servers"
                    ))
                })?,
        };
        let (profile_in_file, servers) = (chosen.profile.or(file.profile), [chosen.servers, file.servers]);
        let configured = servers.into_iter().find(|servers| !servers.is_empty()).unwrap_or_default();
        let profile = match (&common.profile, &profile_in_file) {
            (Some(profile), _) => Some(profile.clone()),
            (None, Some(text)) => Some(cli::profile(text).map_err(wrong)?),
            (None, None) => None,
        };
        let configured_key = chosen.cluster_key.or(file.cluster_key);
        let no_key = |error: ClusterKeyError| wrong(format!("cluster_key: {error}"));
        let cluster_key = match (common.cluster_key, &configured_key) {
            (Some(key), _) => Some(key),
            (None, Some(text)) => Some(text.parse().map_err(no_key)?),
            (None, None) => None,
        };
        let (written, source) = match (&common.servers[..], configured) {
            ([], configured) if configured.is_empty() => (LOCAL.map(str::to_owned).to_vec(), Source::Default),
            ([], configured) => (configured, Source::File),
            (typed, _) if common.typed_servers => (typed.to_vec(), Source::CommandLine),
            (set, _) => (set.to_vec(), Source::Environment),
        };
        let claims = !common.no_claim && file.claim.unwrap_or(true);
        let creates = file.create.unwrap_or(true);
        let state = xdg.state_dir().unwrap_or_else(|| xdg.data_dir()).join("recado");
        let themes = xdg.config_dir().join("recado").join("themes");
        let (screen, invite, kept) = (file.screen, common.invite, profile_in_file);
        let servers = OnceCell::new();
        Ok(Config {
            written,
            source,
            servers,
            profile,
            kept,
            account,
            screen,
            path,
            themes,
            state,
            cluster_key,
            claims,
            creates,
            invite,
        })
    }

    /// The servers as they are written, or those of a local `./run.sh`.
    pub(crate) fn written(&self) -> &[String] {
        &self.written
    }

    /// The addresses of the servers. Names are resolved at the first call, so a command that needs no server
    /// needs no resolver. Entries that give no address are reported, and the others used.
    ///
    /// # Errors
    /// [`Failure::Usage`] or [`Failure::Unresolved`] if no entry gives an address.
    pub(crate) fn servers(&self) -> Result<&[SocketAddr], Failure> {
        if let Some(servers) = self.servers.get() {
            return Ok(servers);
        }
        let source = match self.source {
            Source::CommandLine => "--server: ".to_owned(),
            Source::Environment => format!("{SERVERS}: "),
            Source::File => format!("{}: ", self.path.display()),
            Source::Default => String::new(),
        };
        let resolved = servers::resolve(&self.written).map_err(|failure| match failure {
            Failure::Usage(what) => Failure::Usage(source.clone() + &what),
            failure => failure,
        })?;
        for unusable in &resolved.unusable {
            note(format_args!("{source}{unusable}; the other servers are asked"));
        }
        Ok(self.servers.get_or_init(|| resolved.addrs))
    }

    /// Returns true if the command line, the environment or the file names a server.
    pub(crate) fn names_servers(&self) -> bool {
        self.written != LOCAL
    }

    /// The profile to act as. It is a usage error if there is none.
    pub(crate) fn profile(&self) -> Result<Name, Failure> {
        self.profile.clone().ok_or_else(|| {
            Failure::Usage(format!(
                "no profile: recado does not know who you are here. Run `recado`, which asks once and keeps the name; or \
                 give --as NAME, set RECADO_AS, or write profile = \"NAME\" into {}",
                self.path.display()
            ))
        })
    }

    /// How to keep a name that was typed for one command, if the file has none.
    pub(crate) fn how_to_keep(&self, typed: &Name) -> Option<String> {
        if self.kept.is_some() {
            return None;
        }
        let how = match self.path.exists() {
            false => format!("run: recado --as {typed} config init"),
            true => format!("write this as the first line of {}: profile = \"{typed}\"", self.path.display()),
        };
        Some(format!("to be @{typed} in every command without --as, {how}"))
    }
}

fn xdg() -> Result<Xdg, Failure> {
    are_absolute(|name| std::env::var_os(name))?;
    Xdg::new().map_err(|error| Failure::Usage(format!("no home directory: {error}; set HOME")))
}

/// Refuses directories that depend on where a command is run: in each directory the user would be somebody
/// else. The standard (XDG Base Directory) has programs ignore a relative XDG_STATE_HOME, which would put the
/// keys where nobody looks for them.
fn are_absolute(get: impl Fn(&str) -> Option<OsString>) -> Result<(), Failure> {
    for name in ["HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"] {
        let value = get(name).filter(|value| !value.is_empty());
        if let Some(dir) = value.filter(|dir| !Path::new(dir).is_absolute()) {
            return Err(Failure::Usage(format!(
                "{name} is {dir:?}, which is not absolute: your key and configuration would depend on the directory in \
                 which a command runs; set {name} to a path that begins with /"
            )));
        }
    }
    Ok(())
}

/// Checks every value of the file, whether or not a command uses it, and returns the file's path.
pub(crate) fn check(common: &Common) -> Result<PathBuf, Failure> {
    let path = path(common)?;
    let file = read(&path, true)?;
    let accounts = file.accounts.keys().cloned().map(Some);
    for account in std::iter::once(common.account.clone()).chain(accounts) {
        let config = Config::load(&Common { account, config: Some(path.clone()), ..Common::default() })?;
        config.servers()?;
        let themes = config.screen.check(&config.themes);
        themes.map_err(|what| Failure::Usage(format!("{}: {what}", path.display())))?;
    }
    Ok(path)
}

/// Names of the accounts in the file. None if it cannot be read.
pub(crate) fn accounts(common: &Common) -> Vec<String> {
    let file = path(common).and_then(|path| read(&path, true));
    file.map(|file| file.accounts.into_keys().collect()).unwrap_or_default()
}

/// Path of the configuration file, which may not exist.
pub(crate) fn path(common: &Common) -> Result<PathBuf, Failure> {
    match &common.config {
        Some(path) => Ok(path.clone()),
        None => Ok(xdg()?.config_dir().join("recado").join("config.toml")),
    }
}

/// Writes the sample, with this profile if there is one. Fails if the file exists.
pub(crate) fn write_sample(path: &Path, profile: Option<&Name>) -> Result<(), Failure> {
    let text = profile.map_or(SAMPLE.to_owned(), sample_with);
    write_new(path, &text).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::Other(format!("{} exists already; it was left as it is", path.display()))
        }
        _ => cannot_write(path, &error),
    })
}

/// Stores the profile in the file: as its first line if the file exists, otherwise in a new sample.
pub(crate) fn keep_profile(path: &Path, profile: &Name) -> Result<(), Failure> {
    let line = format!("profile = \"{profile}\"");
    let done = match fs::read_to_string(path) {
        Ok(text) => private::replace(path, &format!("{line}\n{text}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_new(path, &sample_with(profile)),
        Err(error) => Err(error),
    };
    done.map_err(|error| cannot_write(path, &error))
}

fn sample_with(profile: &Name) -> String {
    SAMPLE.replace("#profile = \"alice\"", &format!("profile = \"{profile}\""))
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    private::make_dir_of(path)?;
    let written = private::create_new(path)?.write_all(text.as_bytes());
    // A file without its text would keep the next command from writing one.
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::Other(format!("cannot write {}: {error}", path.display()))
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
        Common { config: Some(config), ..Common::default() }
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
        assert_eq!(config.servers().unwrap(), ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(config.cluster_key, Some(key(1)));
        let typed = Common {
            profile: Some("bob".parse().unwrap()),
            servers: vec!["127.0.0.1:8".into()],
            cluster_key: Some(key(2)),
            ..common(path)
        };
        let config = Config::load(&typed).unwrap();
        assert_eq!(config.profile().unwrap().as_str(), "bob");
        assert_eq!(config.servers().unwrap(), ["127.0.0.1:8".parse().unwrap()]);
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
        let message = Config::load(&common(path.clone())).unwrap_err().to_string();
        assert!(message.contains("cluster_key") && message.contains("64 hexadecimal digits"), "{message}");
        fs::write(&path, "profile = \"A\"\n").unwrap();
        assert!(matches!(Config::load(&common(path)), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_check_reads_every_value_also_those_that_only_the_screen_uses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let checked = |text: &str| {
            fs::write(&path, text).unwrap();
            check(&common(path.clone()))
        };
        assert_eq!(checked(SAMPLE).unwrap(), path);
        for (text, word) in [
            ("[screen]\ntheme = \"drak\"", "drak"),
            ("[screen]\nbell = 9", "bell"),
            ("[screen]\ndesktop_from = 0", "desktop_from"),
            ("[screen]\nmouse = 1", "mouse"),
            ("[accounts.work]\nprofile = \"A\"", "\"A\""),
            ("[accounts.work]\nservers = [\"a:x\"]", "a:x"),
            ("claim = 3", "claim"),
        ] {
            let failure = checked(text).unwrap_err();
            assert!(matches!(failure, Failure::Usage(_)), "{text}: {failure}");
            let message = failure.to_string();
            assert!(message.contains(word) && message.contains("config.toml"), "{text}: {message}");
        }
        fs::remove_file(&path).unwrap();
        assert!(check(&common(path.clone())).is_err(), "there is nothing to check");
    }

    #[test]
    fn a_claim_is_forbidden_by_the_command_line_or_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let claims = |text: &str, no_claim| {
            fs::write(&path, text).unwrap();
            Config::load(&Common { no_claim, ..common(path.clone()) }).unwrap().claims
        };
        assert!(claims("", false) && claims("claim = true", false));
        assert!(!claims("claim = false", false) && !claims("", true) && !claims("claim = true", true));
    }

    #[test]
    fn a_channel_is_created_unless_the_file_forbids_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        for (text, creates) in [("", true), ("create = true", true), ("create = false", false)] {
            fs::write(&path, text).unwrap();
            assert_eq!(Config::load(&common(path.clone())).unwrap().creates, creates, "{text}");
        }
    }

    #[test]
    fn an_empty_configuration_means_the_local_servers_and_no_profile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, "").unwrap();
        let config = Config::load(&common(path)).unwrap();
        assert_eq!(config.servers().unwrap().len(), 3);
        let message = config.profile().unwrap_err().to_string();
        assert!(message.contains("--as") && message.contains("Run `recado`"), "{message}");
    }

    #[test]
    fn a_relative_home_is_refused_with_its_variable_and_the_cure() {
        let checked = |name: &str, value: &str| {
            are_absolute(|asked| (asked == name).then(|| value.into())).map_err(|failure| failure.to_string())
        };
        for name in ["HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"] {
            for good in ["/home/alice", ""] {
                assert_eq!(checked(name, good), Ok(()));
            }
            let message = checked(name, "home").unwrap_err();
            assert!(message.starts_with(name) && message.contains("begins with /"), "{message}");
        }
    }

    #[test]
    fn a_wrong_list_of_servers_is_told_with_where_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, "servers = [\"a b\"]").unwrap();
        let told = |servers: &[&str], typed_servers| {
            let servers = servers.iter().map(|server| (*server).to_owned()).collect();
            let config = Config::load(&Common { servers, typed_servers, ..common(path.clone()) }).unwrap();
            config.servers().unwrap_err().to_string()
        };
        assert!(told(&["a b"], true).starts_with("--server: "));
        assert!(told(&["a b"], false).starts_with("RECADO_SERVERS: "));
        assert!(told(&[], false).starts_with(&path.display().to_string()));
    }

    #[test]
    fn a_name_that_was_typed_is_kept_by_a_command_or_by_a_line_of_the_file_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let bob = "bob".parse().unwrap();
        let how = |text: Option<&str>| {
            text.iter().for_each(|text| fs::write(&path, text).unwrap());
            fs::exists(&path).unwrap().then(|| Config::load(&common(path.clone())).unwrap().how_to_keep(&bob))
        };
        assert_eq!(how(None), None);
        let told = how(Some("")).unwrap().unwrap();
        assert!(told.contains("first line of") && told.contains("profile = \"bob\""), "{told}");
        assert_eq!(how(Some("profile = \"alice\"")).unwrap(), None, "it is another one on purpose");
        let new = dir.path().join("new.toml");
        write_sample(&new, Some(&bob)).unwrap();
        assert_eq!(Config::load(&common(new)).unwrap().profile().unwrap(), bob);
    }

    #[test]
    fn an_account_is_taken_by_name_and_wins_over_what_stands_outside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let text = "profile = \"alice\"\naccount = \"home\"\n\
            [accounts.home]\nservers = [\"127.0.0.1:7\"]\n\
            [accounts.work]\nprofile = \"alice.w\"\nservers = [\"127.0.0.1:8\"]\n";
        fs::write(&path, text).unwrap();
        let load = |account: Option<&str>| {
            Config::load(&Common { account: account.map(str::to_owned), ..common(path.clone()) })
        };
        let home = load(None).unwrap();
        assert_eq!(home.profile().unwrap().as_str(), "alice");
        assert_eq!(home.servers().unwrap(), ["127.0.0.1:7".parse().unwrap()]);
        let work = load(Some("work")).unwrap();
        assert_eq!(work.profile().unwrap().as_str(), "alice.w");
        assert_eq!(work.servers().unwrap(), ["127.0.0.1:8".parse().unwrap()]);
        assert!(load(Some("club")).unwrap_err().to_string().contains("[accounts.club]"));
    }

    #[test]
    fn the_sample_is_valid_and_its_settings_are_the_defaults() {
        assert_eq!(toml::from_str::<File>(SAMPLE).unwrap(), File::default());
        let set: String = SAMPLE
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if setting.starts_with(|c: char| c != ' ') => format!("{setting}\n"),
                _ => String::new(),
            })
            .collect();
        let file: File = toml::from_str(&set).unwrap();
        assert_eq!(file.screen, ScreenFile::default());
        assert_eq!(file.servers, LOCAL);
        assert!(file.accounts.contains_key("work"));

        // Reads the names of all settings from serde's error for an unknown one.
        fn settings<T: serde::de::DeserializeOwned>() -> Vec<String> {
            let refused = toml::from_str::<T>("nothing_like_it = 1").err().unwrap().message().to_owned();
            let (_, expected) = refused.split_once("expected").unwrap();
            expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        }
        let set: toml::Table = toml::from_str(&set).unwrap();
        let (screen, account) = (&set["screen"], &set["accounts"]["work"]);
        let tables = [
            (settings::<File>(), set.clone()),
            (settings::<ScreenFile>(), screen.as_table().unwrap().clone()),
            (settings::<Account>(), account.as_table().unwrap().clone()),
        ];
        for (settings, table) in tables {
            assert!(settings.len() >= 3, "{settings:?}");
            for setting in settings {
                assert!(table.contains_key(&setting), "{setting} is not in the sample");
            }
        }
    }

    #[test]
    fn the_sample_never_replaces_a_file_and_a_name_is_kept_in_either() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recado").join("config.toml");
        keep_profile(&path, &"alice".parse().unwrap()).unwrap();
        assert_eq!(Config::load(&common(path.clone())).unwrap().profile().unwrap().as_str(), "alice");
        assert!(write_sample(&path, None).unwrap_err().to_string().contains("left as it is"));
        fs::write(&path, "[screen]\ntheme = \"light\"\n").unwrap();
        keep_profile(&path, &"bob".parse().unwrap()).unwrap();
        let config = Config::load(&common(path)).unwrap();
        assert_eq!((config.profile().unwrap().as_str(), config.screen.theme.as_str()), ("bob", "light"));
    }
}
