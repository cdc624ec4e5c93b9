//! Completes the words of a command line for the shell: besides commands and options, which clap knows, the
//! names of topics, profiles, servers and accounts.
//!
//! The script of `recado completions` runs `recado` with the words so far and RECADO_COMPLETE=SHELL. What the
//! servers know is asked for as the profile of that command line, with little patience and without a claim;
//! an unknown cluster is not trusted. Whatever fails, there are fewer completions, and no message.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use clap_complete::env::{Bash, CompleteEnv, Elvish, EnvCompleter, Fish, Powershell, Zsh};
use clap_complete::{ArgValueCompleter, CompletionCandidate, Shell};
use recado_client::{ListItem, Listing, Options, Queries as _, Reader, Trust};

use crate::cli::{Cli, Common};
use crate::config::{self, Config};
use crate::environment;
use crate::print::written;
use crate::servers;
use crate::timer::Timer;
use crate::trust::known;

/// Variable in which the script names the shell.
const SHELL: &str = "RECADO_COMPLETE";

/// Time in which the servers are found and asked. A person waits for it.
const PATIENCE: Duration = Duration::from_millis(500);

/// The part of it for names of servers: a resolver that is gone leaves time to ask those with addresses.
const LOOK_UP: Duration = Duration::from_millis(200);

/// Variable in which the script for bash names the word as it stands on the line. The word among the
/// arguments lacks the quote before it.
const WORD: &str = "RECADO_COMPLETE_WORD";

/// True if the shell inserts a completion as it is. The others put what needs it in quotes by themselves, and
/// bash after a quote inserts it into the quotes.
static INSERTS_AS_IT_IS: OnceLock<bool> = OnceLock::new();

/// Completes, if it is a shell that runs the program. Returns true if it is.
///
/// # Errors
/// The shell is unknown, or standard output cannot be written.
pub(crate) fn complete() -> Result<bool, clap::Error> {
    let Some(shell) = std::env::var_os(SHELL) else { return Ok(false) };
    let word = std::env::var_os(WORD).unwrap_or_default();
    let is_quoted = word.to_string_lossy().starts_with(['\'', '"']);
    let _ = INSERTS_AS_IT_IS.set(shell == "bash" && !is_quoted);
    let here = std::env::current_dir().ok();
    CompleteEnv::with_factory(Cli::command).var(SHELL).try_complete(std::env::args_os(), here.as_deref())
}

/// The script for a shell.
///
/// # Errors
/// None for the shells that clap names today.
pub(crate) fn script(shell: Shell) -> io::Result<Vec<u8>> {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Elvish => &Elvish,
        Shell::Fish => &Fish,
        Shell::PowerShell => &Powershell,
        Shell::Zsh => &Zsh,
        other => return Err(io::Error::other(format!("there is no script for {other}"))),
    };
    let mut script = Vec::new();
    // Found by its name, wherever it is installed.
    completer.write_registration(SHELL, "recado", "recado", "recado", &mut script)?;
    if let Shell::Bash = shell {
        let (before, after) =
            ("_CLAP_IFS=\"$IFS\"", format!("{WORD}=\"${{COMP_WORDS[COMP_CWORD]}}\" _CLAP_IFS=\"$IFS\""));
        script = String::from_utf8_lossy(&script).replace(before, &after).into_bytes();
    }
    script.extend_from_slice(match shell {
        // Bash would take `@alice` and `a.example:7` for two words.
        Shell::Bash => b"COMP_WORDBREAKS=${COMP_WORDBREAKS//[@:]/}\n",
        // The first completion loads the file, and is to complete, too.
        Shell::Zsh => {
            b"\nif [[ $funcstack[1] == _recado ]]; then _clap_dynamic_completer_recado \"$@\"; fi\n"
        }
        _ => b"",
    });
    Ok(script)
}

/// Topics that somebody may mean: all channels and all profiles.
pub(crate) fn topics() -> ArgValueCompleter {
    from_lists(&[Listing::Channels, Listing::People])
}

/// The topics that the profile follows.
pub(crate) fn followed() -> ArgValueCompleter {
    from_lists(&[Listing::Following])
}

pub(crate) fn channels() -> ArgValueCompleter {
    from_lists(&[Listing::Channels])
}

/// The keys of the store that begin as the word does.
pub(crate) fn keys() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let prefix = typed.to_string_lossy().trim_start_matches(['\'', '"', '\\']).to_owned();
        offered(typed, &listed(vec![Listing::Stored { prefix }]))
    })
}

pub(crate) fn people() -> ArgValueCompleter {
    from_lists(&[Listing::People])
}

fn from_lists(lists: &'static [Listing]) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| offered(typed, &listed(lists.to_vec())))
}

/// Profiles of which this machine has a key.
pub(crate) fn profiles() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        offered(typed, &config().map(|config| own_profiles(&config)).unwrap_or_default())
    })
}

/// Addresses of servers: those of the configuration, and those of the known clusters.
pub(crate) fn servers() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        // Not those that are typed: the last of them is the word to complete.
        let others = filled(Common { servers: Vec::new(), ..typed_options() });
        let Ok(config) = Config::load(&others) else { return Vec::new() };
        let clusters = known(&config).list().unwrap_or_default();
        let met = clusters.iter().flat_map(|one| one.addresses.iter().chain(&one.members));
        let names = config.written().iter().cloned().chain(met.map(ToString::to_string)).collect();
        offered(typed, &names)
    })
}

/// Accounts of the configuration file.
pub(crate) fn accounts() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        offered(typed, &config::accounts(&filled(typed_options())).into_iter().collect())
    })
}

/// The names that begin with what is typed, as the shell can insert them.
fn offered(typed: &OsStr, names: &BTreeSet<String>) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let as_it_is = INSERTS_AS_IT_IS.get().copied().unwrap_or(false);
    matching(typed, names, as_it_is).into_iter().map(CompletionCandidate::new).collect()
}

/// The names that begin with `typed`, which may have an opening quote, or lack its sign. To a shell, #
/// begins a comment, so where the shell inserts the name as it is, a channel is in quotes, unless there is
/// one already.
fn matching(typed: &str, names: &BTreeSet<String>, as_it_is: bool) -> Vec<String> {
    let quoted = typed.starts_with(['\'', '"']);
    let begun = typed.trim_start_matches(['\'', '"', '\\']);
    let with_sign = begun.starts_with(['@', '#']);
    let names = names.iter().filter(|name| {
        name.starts_with(begun) || (!with_sign && name.trim_start_matches(['@', '#']).starts_with(begun))
    });
    names
        .map(
            |name| {
                if as_it_is && !quoted && name.starts_with('#') { format!("'{name}'") } else { name.clone() }
            },
        )
        .collect()
}

/// The options of every command, as far as they are typed.
fn typed_options() -> Common {
    let words: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let typed = Cli::command().ignore_errors(true).try_get_matches_from(words).ok();
    typed.and_then(|matches| Common::from_arg_matches(&matches).ok()).unwrap_or_default()
}

/// These options, and the environment for what they leave out.
fn filled(typed: Common) -> Common {
    environment::fill(typed, |name| std::env::var_os(name)).unwrap_or_default()
}

fn config() -> Option<Config> {
    Config::load(&filled(typed_options())).ok()
}

/// The state directory has a directory for each cluster, and in it one for each profile.
fn own_profiles(config: &Config) -> BTreeSet<String> {
    let names_in = |dir: &std::path::Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let with_key = names_in(&config.state)
        .into_iter()
        .flat_map(|cluster| names_in(&cluster))
        .filter(|profile| profile.join("key").is_file());
    with_key.filter_map(|profile| Some(profile.file_name()?.to_str()?.to_owned())).collect()
}

/// The names in these lists of the servers, as far as they answer within [`PATIENCE`]. The thread that asks
/// ends with the process: finding servers and closing the session may take longer.
fn listed(lists: Vec<Listing>) -> BTreeSet<String> {
    let timer = Timer::start();
    let (found, all) = mpsc::channel();
    let asking = thread::Builder::new().name("completion".to_owned()).spawn(move || {
        let Some(client) = config().and_then(|config| reader(&config)) else { return };
        for list in lists {
            // Nobody waits for a list that is late.
            let _ = found.send(client.list(list).unwrap_or_default());
        }
        drop(found);
    });
    let mut names = BTreeSet::new();
    while asking.is_ok()
        && let Ok(items) = all.recv_timeout(timer.left(PATIENCE))
    {
        names.extend(items.into_iter().filter_map(|item| match item {
            ListItem::Following { topic, .. } => Some(written(&topic)),
            ListItem::Profile { name, .. } | ListItem::Displayed { name, .. } => Some(format!("@{name}")),
            ListItem::Channel { name, .. } => Some(format!("#{name}")),
            ListItem::Stored { key, .. } => Some(key.to_string()),
            ListItem::Member { .. } | ListItem::Device { .. } | ListItem::Key { .. } => None,
        }));
    }
    names
}

fn reader(config: &Config) -> Option<Reader> {
    let trust = match config.cluster_key {
        Some(key) => Trust::Pinned(key),
        None => Trust::asking(known(config), |_| false, |_| {}),
    };
    let servers = servers::resolve_within(LOOK_UP, config.written(), servers::look_up);
    let options = Options::new(config.profile().ok()?, servers, &config.state);
    Reader::open(options.trust(trust).timeout(PATIENCE)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_with_and_without_its_sign_and_the_quote_that_a_shell_needs() {
        let names = ["#ops", "#Ops", "@olga", "@bob"].map(str::to_owned).into();
        let bash = |typed| matching(typed, &names, true);
        assert_eq!(bash("#o"), ["'#ops'"]);
        assert_eq!(bash("\\#o"), ["'#ops'"]);
        assert_eq!(bash("'#o"), ["#ops"], "the quote is there already");
        assert_eq!(bash("o"), ["'#ops'", "@olga"]);
        assert_eq!(bash("@"), ["@bob", "@olga"]);
        assert_eq!(matching("#", &names, false), ["#Ops", "#ops"], "the shell quotes it");
    }

    #[test]
    fn every_shell_has_a_script_that_finds_recado_by_its_name() {
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let script = String::from_utf8(script(shell).unwrap()).unwrap();
            assert!(script.contains("recado") && script.contains(SHELL), "{shell}: {script}");
            assert!(!script.contains("/target/"), "{shell}: {script}");
            assert_eq!(script.matches(WORD).count(), usize::from(shell == Shell::Bash), "{shell}: {script}");
        }
    }
}
