//! Reads environment variables for the options that the command line leaves out. An empty variable counts
//! as unset.

use std::ffi::OsString;

use crate::cli::{self, Common};
use crate::exit::Failure;

/// Profile to act as.
pub(crate) const AS: &str = "RECADO_AS";
/// Addresses of servers, separated by commas.
pub(crate) const SERVERS: &str = "RECADO_SERVERS";
/// Key of the only cluster to talk to.
pub(crate) const CLUSTER_KEY: &str = "RECADO_CLUSTER_KEY";
/// Path of the configuration file.
const CONFIG: &str = "RECADO_CONFIG";
/// Account of the configuration file.
const ACCOUNT: &str = "RECADO_ACCOUNT";

/// Takes each option from the command line, otherwise from its variable. This does not use clap's own
/// support of variables, because clap lists every variable that is set in the usage line of an error, as if
/// it were typed.
pub(crate) fn fill(common: Common, get: impl Fn(&str) -> Option<OsString>) -> Result<Common, Failure> {
    let get = |name| get(name).filter(|value| !value.is_empty());
    let text = |name| match get(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err(Failure::Usage(format!("{name} is not UTF-8"))),
    };
    let wrong = |name: &str, error: String| Failure::Usage(format!("{name}: {error}"));
    let (typed_profile, typed_servers) = (common.profile.is_some(), !common.servers.is_empty());
    let profile = match (common.profile, text(AS)?) {
        (None, Some(name)) => Some(cli::profile(&name).map_err(|error| wrong(AS, error))?),
        (typed, _) => typed,
    };
    let cluster_key = match (common.cluster_key, text(CLUSTER_KEY)?) {
        (None, Some(key)) => Some(
            key.parse()
                .map_err(|error: recado_client::ClusterKeyError| wrong(CLUSTER_KEY, error.to_string()))?,
        ),
        (typed, _) => typed,
    };
    let servers = match text(SERVERS)? {
        Some(servers) if common.servers.is_empty() => servers.split(',').map(str::to_owned).collect(),
        _ => common.servers,
    };
    let config = common.config.or_else(|| get(CONFIG).map(Into::into));
    let account = common.account.or(text(ACCOUNT)?);
    Ok(Common { profile, typed_profile, typed_servers, servers, cluster_key, config, account, ..common })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn filled(line: &str, variables: &[(&str, &str)]) -> Result<Common, Failure> {
        let common = Cli::try_parse_from(line.split(' ')).unwrap().common;
        fill(common, |name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn an_option_overrides_its_variable_and_an_empty_variable_counts_as_unset() {
        let set = [(AS, "@bob"), (SERVERS, "a:1,b"), (ACCOUNT, "work"), (CONFIG, "/c")];
        let common = filled("recado whoami", &set).unwrap();
        assert!(!common.typed_profile && !common.typed_servers);
        assert_eq!(common.profile.unwrap().as_str(), "bob");
        assert_eq!(common.servers, ["a:1", "b"]);
        assert_eq!((common.account.as_deref(), common.config), (Some("work"), Some("/c".into())));

        let common = filled("recado --as alice --server c:3 whoami", &set).unwrap();
        assert!(common.typed_profile && common.typed_servers);
        assert_eq!(
            (common.profile.unwrap().as_str(), &common.servers[..]),
            ("alice", &["c:3".to_owned()][..])
        );

        let common =
            filled("recado whoami", &[AS, SERVERS, CLUSTER_KEY, CONFIG, ACCOUNT].map(|n| (n, ""))).unwrap();
        assert!(common.profile.is_none() && common.servers.is_empty() && common.cluster_key.is_none());
        assert!(common.config.is_none() && common.account.is_none());
    }

    #[test]
    fn an_error_about_a_value_names_its_variable() {
        for name in [AS, CLUSTER_KEY] {
            let error = filled("recado whoami", &[(name, "Not One")]).unwrap_err();
            assert!(matches!(error, Failure::Usage(_)) && error.to_string().starts_with(name), "{error}");
        }
    }
}
