//! `recadod admin`: changes that only a holder of the cluster's secret may make.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use recado_client::{AdminChange, ClientError, Code, EnrolmentCode};
use recado_proto::id::{Admission, ChannelName, Name, NameError, Op, millis};

use super::{Admin, check};

/// The time-out of a change: longer than any election.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A name, with or without its @.
pub(super) fn name(text: &str) -> Result<Name, NameError> {
    text.strip_prefix('@').unwrap_or(text).parse()
}

/// The target of `admin remove`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Profile(Name),
    Channel(ChannelName),
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Named::Profile(name) => write!(f, "@{name}"),
            Named::Channel(name) => write!(f, "#{name}"),
        }
    }
}

/// Parses a profile with its @, or a channel with its #. The kind is never guessed, because a removal cannot
/// be undone.
pub(super) fn named(text: &str) -> Result<Named, String> {
    let named = match (text.strip_prefix('@'), text.strip_prefix('#')) {
        (Some(name), _) => name.parse().map(Named::Profile),
        (_, Some(name)) => name.parse().map(Named::Channel),
        (None, None) => return Err("use @NAME for a profile or '#NAME' for a channel".into()),
    };
    named.map_err(|error| error.to_string())
}

/// Parses how long an invitation is valid: at least a second, at most ten years.
pub(super) fn lasting(text: &str) -> Result<Duration, String> {
    const LONGEST_S: u64 = 3_650 * 24 * 3_600;
    let rule = || "a number with s, m, h or d, as in 24h, up to 3650d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(rule)?;
    let each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 24 * 3_600,
        _ => return Err(rule()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(each));
    let seconds = seconds.filter(|seconds| (1..=LONGEST_S).contains(seconds)).ok_or_else(rule)?;
    Ok(Duration::from_secs(seconds))
}

/// Makes the change that the command asks for, and returns the message for the user.
pub(super) fn run(command: Admin) -> Result<String> {
    match command {
        Admin::Release { name, config } => {
            let op = change(&config, AdminChange::Release { name: name.clone() })?
                .with_context(|| format!("cannot release @{name}"))?;
            Ok(format!(
                "@{name} is released (op {op}): the next device that connects with the name owns it\n"
            ))
        }
        Admin::Remove { what, config } => remove(&config, &what),
        Admin::Invite { uses, lasts, name, config } => {
            tell_if_useless(&config, Admission::Invite)?;
            let code = EnrolmentCode::draw().context("the system cannot provide random numbers")?;
            let lasts_ms = millis(lasts);
            let invite = AdminChange::Invite { code: code.invite_hash(), uses, lasts_ms, name };
            change(&config, invite)?.context("cannot create an invitation")?;
            Ok(format!("{code}\n"))
        }
        Admin::Allow { key, config } => {
            tell_if_useless(&config, Admission::Keys)?;
            change(&config, AdminChange::Allow { key })?.context("cannot allow the key")?;
            Ok(format!("{} may claim names\n", key.in_full()))
        }
        Admin::Disallow { key, config } => {
            match change(&config, AdminChange::Disallow { key })? {
                // The key may have been disallowed by an earlier command whose answer was lost.
                Ok(_) | Err(ClientError::Refused(Code::KeyNotAllowed)) => {}
                Err(error) => return Err(error).context("cannot disallow the key"),
            }
            Ok(format!("{} may claim no more names; it keeps those it has\n", key.in_full()))
        }
    }
}

/// Warns on standard error if the invitation, or the allowed key, currently lets nobody in. A failed write is
/// ignored.
fn tell_if_useless(file: &Path, kind: Admission) -> Result<()> {
    let (checked, _) = check::load(file)?;
    if let Some(why) = useless(kind, checked.config.admission) {
        let _ = writeln!(io::stderr(), "recadod: {}: {why}", file.display());
    }
    Ok(())
}

/// The reason why an invitation, or an allowed key, has no effect under the current setting `now`.
fn useless(kind: Admission, now: Admission) -> Option<&'static str> {
    match (kind, now) {
        (Admission::Invite, Admission::Invite)
        | (Admission::Keys, Admission::Keys)
        | (Admission::Open, _) => None,
        (Admission::Invite, Admission::Open) => {
            Some("new_names is \"open\", so anyone may claim a name, and no code is needed")
        }
        (Admission::Invite, Admission::Keys) => {
            Some("new_names is \"keys\", so the code has no effect: use `recadod admin allow`")
        }
        (Admission::Keys, Admission::Open) => {
            Some("new_names is \"open\", so anyone may claim a name, and no key has to be allowed")
        }
        (Admission::Keys, Admission::Invite) => {
            Some("new_names is \"invite\", so an allowed key has no effect: use `recadod admin invite`")
        }
    }
}

/// Removes a profile or a channel. A missing one counts as removed: by an earlier command whose answer was
/// lost.
fn remove(config: &Path, what: &Named) -> Result<String> {
    let removal = match what.clone() {
        Named::Profile(name) => AdminChange::RemoveProfile { name },
        Named::Channel(channel) => AdminChange::RemoveChannel { channel },
    };
    match change(config, removal)? {
        Ok(op) => Ok(match what {
            Named::Profile(_) => format!("{what} is removed (op {op}): its name is free\n"),
            Named::Channel(_) => format!(
                "{what} is removed (op {op}): its name is free; that of a private channel in 30 days, or when it is removed again\n"
            ),
        }),
        Err(ClientError::Refused(Code::UnknownProfile | Code::UnknownChannel)) => {
            Ok(format!("{what} does not exist: it was removed already, or never existed\n"))
        }
        Err(error) => Err(error).with_context(|| format!("cannot remove {what}")),
    }
}

/// Makes a change. The outer error is that of the file, the inner one that of the servers.
fn change(file: &Path, change: AdminChange) -> Result<Result<Op, ClientError>> {
    let (checked, secret) = check::load(file)?;
    let cluster = checked.config.cluster;
    let servers: Vec<_> = cluster.members.iter().map(|member| member.client).collect();
    Ok(recado_client::administer(&servers, cluster.id, &secret, change, TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_or_an_allowed_key_without_effect_is_reported_with_the_setting() {
        use Admission::{Invite, Keys, Open};
        assert_eq!((useless(Invite, Invite), useless(Keys, Keys)), (None, None));
        for (kind, now, word) in [
            (Invite, Open, "\"open\""),
            (Keys, Open, "\"open\""),
            (Invite, Keys, "admin allow"),
            (Keys, Invite, "admin invite"),
        ] {
            assert!(useless(kind, now).unwrap().contains(word), "{kind:?} while {now:?}");
        }
    }

    #[test]
    fn an_argument_names_a_profile_or_a_channel_and_a_time_has_a_unit() {
        assert_eq!(named("@alice"), Ok(Named::Profile("alice".parse().unwrap())));
        assert_eq!(named("#ops"), Ok(Named::Channel("ops".parse().unwrap())));
        let longest = format!("#{}", "A-_.~z09".repeat(16));
        assert_eq!(named(&longest).map(|named| named.to_string()), Ok(longest));
        for wrong in ["alice", "@", "#!", "@#ops", "@Alice", "#"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
        assert_eq!(lasting("90m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(lasting("7d"), Ok(Duration::from_secs(7 * 24 * 3_600)));
        for wrong in ["", "h", "24", "0h", "1w", "-1h", "99999999999999999999d", "4000d", "1\u{e9}"] {
            assert!(lasting(wrong).is_err(), "{wrong}");
        }
    }
}
