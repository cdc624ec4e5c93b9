//! `recado info` and `recado claim`.

use recado_client::{
    Access, ChannelName, DeviceId, DisplayName, ListItem, Listing, Name, Op, ProfileInfo, Queries as _,
    Reader, SessionId, Topic,
};
use serde_json::{Value, json};

use super::Context;
use crate::cli::Common;
use crate::exit::Failure;
use crate::text::clean_line;
use crate::wording::{access_in_words, described, named, role_in_words};

pub(super) fn info(context: &Context, whom: Option<Topic>) -> Result<(), Failure> {
    let reader = context.reader()?;
    match whom {
        Some(Topic::Channel(name)) => channel(context, &reader, &name)?,
        Some(Topic::Feed(name) | Topic::Inbox(name)) if name != *reader.profile() => {
            let of = profile(context, &reader, Some(name))?;
            context.out.put(object(&of), || lines(&of).join("\n"))?;
        }
        Some(Topic::Feed(_) | Topic::Inbox(_)) | None => oneself(context, &reader)?,
    }
    context.note_age(&reader);
    Ok(())
}

fn profile(context: &Context, client: &Reader, name: Option<Name>) -> Result<ProfileInfo, Failure> {
    let topic = name.clone().map(Topic::Feed);
    context.ask(|| client.info(name))?.map_err(Failure::about(topic.as_ref()))
}

fn object(ProfileInfo { info, display, applied }: &ProfileInfo) -> Value {
    json!({
        "profile": info.profile.as_str(),
        "display": display.as_ref().map(DisplayName::as_str),
        "since_op": info.since.0,
        "followers": info.followers,
        "following": info.following,
        "devices": info.devices,
        "sessions": info.sessions,
        "pending": info.pending,
        "applied": applied.0,
    })
}

fn lines(of: &ProfileInfo) -> Vec<String> {
    let described = described(&of.info).map(|line| format!("  {line}"));
    std::iter::once(named(of)).chain(described).collect()
}

/// Shows the user's own profile, and this machine with its devices.
fn oneself(context: &Context, reader: &Reader) -> Result<(), Failure> {
    let of = profile(context, reader, None)?;
    let devices: Vec<(DeviceId, Op, Option<SessionId>)> = context
        .list(reader, Listing::Devices)?
        .into_iter()
        .filter_map(|item| match item {
            ListItem::Device { device, cursor, session, .. } if device.key == reader.key() => {
                Some((device, cursor, session))
            }
            _ => None,
        })
        .collect();
    let read = devices.iter().map(|(_, cursor, _)| *cursor).max();
    let mut value = object(&of);
    let machine = json!({
        "key": reader.key().in_full(),
        "device": devices.first().map(|(device, ..)| device.to_string()),
        "cursor": read.map(|op| op.0),
        "session": devices.iter().find_map(|(_, _, session)| session.map(|session| session.0.0)),
        "cluster": reader.cluster().to_string(),
        "fingerprint": reader.cluster_key().fingerprint().to_string(),
        "files": reader.installation().display().to_string(),
    });
    if let (Value::Object(value), Value::Object(machine)) = (&mut value, machine) {
        value.extend(machine);
    }
    context.out.put(value, || {
        let mut lines = lines(&of);
        lines.push(format!("  machine    {}", reader.key()));
        for (device, cursor, session) in &devices {
            let state = session.map_or("idle".to_owned(), |session| format!("session {session}"));
            lines.push(format!("  device     {device}  read up to op {cursor}  {state}"));
        }
        lines.push(format!("  cluster    {}", reader.cluster()));
        lines.push(format!("  files      {}", reader.installation().display()));
        lines.join("\n")
    })?;
    Ok(())
}

/// Shows a channel: who may use it, its followers and its members.
fn channel(context: &Context, client: &Reader, name: &ChannelName) -> Result<(), Failure> {
    let topic = Topic::Channel(name.clone());
    // A channel that is unknown, deleted or not for the user has no members to list either, and the refusal
    // says which.
    let members = context.ask(|| client.list(Listing::Members(name.clone())))?;
    let members = members.map_err(Failure::about(Some(&topic)))?;
    let found = context.list(client, Listing::Channels)?.into_iter().find_map(|item| match item {
        ListItem::Channel { name: one, followers, last_op, access } if one == *name => {
            Some((followers, last_op, access))
        }
        _ => None,
    });
    let Some((followers, last_op, access)) = found else {
        return Err(Failure::Query { code: recado_client::Code::UnknownChannel, topic });
    };
    let members: Vec<(Name, &str)> = members
        .into_iter()
        .filter_map(|item| match item {
            ListItem::Member { name, role } => Some((name, role_in_words(role))),
            _ => None,
        })
        .collect();
    let value = json!({
        "channel": name.as_str(),
        "access": access_in_words(access),
        "followers": followers,
        "last_op": last_op.0,
        "members": members
            .iter()
            .map(|(name, role)| json!({"profile": name.as_str(), "role": role}))
            .collect::<Vec<_>>(),
    });
    Ok(context.out.put(value, || {
        let may = match access {
            Access::Open => "open: anyone can send to it and read it",
            Access::Owned => "owned: its writers send to it, anyone can read it",
            Access::Private => "private: only its members send to it and read it",
        };
        let newest = if last_op == Op::ZERO { "none yet".to_owned() } else { format!("op {last_op}") };
        let mut lines = vec![
            format!("#{name}"),
            format!("  access     {may}"),
            format!("  followers  {followers}"),
            format!("  newest     {newest}"),
        ];
        lines.extend(members.iter().map(|(name, role)| format!("  {role:<9}  @{name}")));
        lines.join("\n")
    })?)
}

/// Gives the profile a display name, or takes it away.
pub(super) fn rename(context: &Context, display: Option<DisplayName>) -> Result<(), Failure> {
    let client = context.connect_to_change()?;
    let op = context.wait(&client.set_display_name(display.clone())?, None)?;
    let profile = client.profile();
    let value = json!({
        "profile": profile.as_str(),
        "display": display.as_ref().map(DisplayName::as_str),
        "op": op.0,
    });
    context.out.done(op, value, || match display {
        Some(name) => format!("@{profile} is shown as {}", clean_line(name.as_str())),
        None => format!("@{profile} has no display name any more"),
    });
    Ok(())
}

/// The name that `claim` is given, if any.
///
/// # Errors
/// [`Failure::Usage`]: another one was given with --as.
pub(super) fn to_claim(common: &Common, name: Option<&Name>) -> Result<Option<Name>, Failure> {
    match (&common.profile, name) {
        (Some(typed), Some(name)) if common.typed_profile && typed != name => Err(Failure::Usage(format!(
            "--as {typed} and claim {name} are two names; a command claims one, so leave out the other"
        ))),
        _ => Ok(name.cloned()),
    }
}

/// Claims the name. It is no error if it is this machine's already, because scripts repeat the command.
pub(super) fn claim(context: &Context, name: Option<Name>) -> Result<(), Failure> {
    let client = context.connect_to_claim()?;
    let profile = client.profile();
    let value = json!({"profile": profile.as_str(), "cluster": client.cluster().to_string()});
    context.out.put(value, || format!("@{profile} is yours on this machine"))?;
    context.tell_how_to_keep(name.as_ref());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_after_claim_and_another_one_of_the_command_line_is_usage_and_of_the_environment_is_overridden()
    {
        let (alice, bob): (Name, Name) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let claimed = |typed_profile, name: Option<&Name>| {
            let common = Common { profile: Some(alice.clone()), typed_profile, ..Common::default() };
            to_claim(&common, name)
        };
        assert!(matches!(claimed(true, Some(&bob)), Err(Failure::Usage(_))));
        assert_eq!(claimed(true, Some(&alice)).unwrap(), Some(alice.clone()));
        assert_eq!(claimed(false, Some(&bob)).unwrap(), Some(bob.clone()));
        assert_eq!(claimed(true, None).unwrap(), None);
    }
}
