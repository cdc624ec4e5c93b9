//! `recado info` and `recado claim`.

use recado_client::{
    Access, ChannelName, Client, DisplayName, ListItem, Listing, Name, Op, ProfileInfo, Topic,
};
use serde_json::{Value, json};

use super::Context;
use crate::exit::Failure;
use crate::text::clean_line;
use crate::wording::{access_in_words, described, named, role_in_words};

pub(super) fn info(context: &Context, whom: Option<Topic>) -> Result<(), Failure> {
    let client = context.connect_to_read()?;
    match whom {
        Some(Topic::Channel(name)) => channel(context, &client, &name),
        Some(Topic::Feed(name) | Topic::Inbox(name)) if name != *client.profile() => {
            let of = profile(context, &client, Some(name))?;
            Ok(context.out.put(object(&of), || lines(&of).join("\n"))?)
        }
        Some(Topic::Feed(_) | Topic::Inbox(_)) | None => oneself(context, &client),
    }
}

fn profile(context: &Context, client: &Client, name: Option<Name>) -> Result<ProfileInfo, Failure> {
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

/// Shows the user's own profile, and this device with its session.
fn oneself(context: &Context, client: &Client) -> Result<(), Failure> {
    let of = profile(context, client, None)?;
    let connection = client.connection();
    // The servers' cursor of this device, as `recado devices` shows it: a session that only asks is not
    // sent one.
    let own = context.list(client, Listing::Devices)?.into_iter().find_map(|item| match item {
        ListItem::Device { device, cursor, .. } if device == client.device() => Some(cursor),
        _ => None,
    });
    let cursor = client.cursor().max(own);
    let mut value = object(&of);
    let device = json!({
        "device": client.device().to_string(),
        "cursor": cursor.map(|op| op.0),
        "session": connection.map(|at| at.session.0.0),
        "cluster": client.cluster().to_string(),
        "fingerprint": client.cluster_key().fingerprint().to_string(),
        "view": connection.map(|at| at.view.to_string()),
        "primary": connection.map(|at| at.primary.to_string()),
        "files": client.device_dir().display().to_string(),
    });
    if let (Value::Object(value), Value::Object(device)) = (&mut value, device) {
        value.extend(device);
    }
    Ok(context.out.put(value, || {
        let read = cursor.map_or("nothing yet".to_owned(), |op| format!("up to op {op}"));
        let session = connection
            .map_or("none".to_owned(), |at| format!("{} with {} (view {})", at.session, at.primary, at.view));
        let mut lines = lines(&of);
        lines.extend([
            format!("  device     {}", client.device()),
            format!("  read       {read}"),
            format!("  session    {session}"),
            format!("  cluster    {}", client.cluster()),
            format!("  files      {}", client.device_dir().display()),
        ]);
        lines.join("\n")
    })?)
}

/// Shows a channel: who may use it, its followers and its members.
fn channel(context: &Context, client: &Client, name: &ChannelName) -> Result<(), Failure> {
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

/// Claims the name. It is no error if it is this machine's already, because scripts repeat the command.
pub(super) fn claim(context: &Context) -> Result<(), Failure> {
    let client = context.connect_to_claim()?;
    let profile = client.profile();
    let value = json!({"profile": profile.as_str(), "cluster": client.cluster().to_string()});
    Ok(context.out.put(value, || format!("@{profile} is yours on this machine"))?)
}
