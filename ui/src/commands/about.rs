//! `recado info`, `recado whoami` and `recado claim`.

use recado_client::{ListItem, Listing, Name, Topic};
use serde_json::json;

use super::Context;
use super::lists::counted;
use crate::exit::Failure;

pub(super) fn info(context: &Context, name: Option<Name>) -> Result<(), Failure> {
    let client = context.connect_to_read()?;
    let topic = name.clone().map(Topic::Feed);
    let (info, applied) = client.info(name).map_err(Failure::about(topic.as_ref()))?;
    let value = json!({
        "profile": info.profile.as_str(),
        "since_op": info.since.0,
        "followers": info.followers,
        "following": info.following,
        "devices": info.devices,
        "sessions": info.sessions,
        "pending": info.pending,
        "applied": applied.0,
    });
    Ok(context.out.put(value, || {
        format!(
            "@{}\n  followers  {}\n  following  {}\n  devices    {}, {} connected\n  pending    {}",
            info.profile,
            info.followers,
            info.following,
            info.devices,
            info.sessions,
            counted(info.pending, "notification")
        )
    })?)
}

/// Claims the name. It is no error if it is this machine's already, because scripts repeat the command.
pub(super) fn claim(context: &Context) -> Result<(), Failure> {
    let client = context.connect_to_claim()?;
    let profile = client.profile();
    let value = json!({"profile": profile.as_str(), "cluster": client.cluster().to_string()});
    Ok(context.out.put(value, || format!("@{profile} is yours on this machine"))?)
}

pub(super) fn whoami(context: &Context) -> Result<(), Failure> {
    let client = context.connect_to_read()?;
    let connection = client.connection();
    // The servers' cursor of this device, as `recado devices` shows it: a session that only asks is not
    // sent one.
    let own = client.list(Listing::Devices)?.into_iter().find_map(|item| match item {
        ListItem::Device { device, cursor, .. } if device == client.device() => Some(cursor),
        _ => None,
    });
    let cursor = client.cursor().max(own);
    let value = json!({
        "profile": client.profile().as_str(),
        "device": client.device().to_string(),
        "cursor": cursor.map(|op| op.0),
        "session": connection.map(|at| at.session.0.0),
        "cluster": client.cluster().to_string(),
        "fingerprint": client.cluster_key().fingerprint().to_string(),
        "view": connection.map(|at| at.view.to_string()),
        "primary": connection.map(|at| at.primary.to_string()),
        "files": client.device_dir().display().to_string(),
    });
    Ok(context.out.put(value, || {
        let read = cursor.map_or("nothing yet".to_owned(), |op| format!("up to {op}"));
        let session = connection
            .map_or("none".to_owned(), |at| format!("{} with {} (view {})", at.session, at.primary, at.view));
        format!(
            "@{}\n  device   {}\n  read     {read}\n  session  {session}\n  cluster  {}\n  files    {}",
            client.profile(),
            client.device(),
            client.cluster(),
            client.device_dir().display()
        )
    })?)
}
