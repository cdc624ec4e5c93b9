//! `recado device`: manages the machines that may act as a profile.

use recado_client::{Client, DeviceKey, DeviceReset, EnrolmentCode, ListItem, Listing};
use serde_json::json;

use super::key::{cluster_of, other};
use super::{Context, described};
use crate::cli::Device;
use crate::exit::Failure;
use crate::print::{note, rfc3339, when};
use crate::wording::{KEYS_MOST, counted, enrolling, listed};

pub(super) fn run(context: &Context, command: Device) -> Result<(), Failure> {
    match command {
        Device::Add => add(context),
        Device::Enrol { code } => enrol(context, code),
        Device::List => list(context),
        Device::Remove { key, yes } => remove(context, &key, yes),
        Device::Reset { cluster, yes } => reset(context, cluster.as_deref(), yes),
    }
}

fn add(context: &Context) -> Result<(), Failure> {
    let client = context.connect_to_change()?;
    let (code, receipt) = client.enrol()?;
    context.wait(&receipt, None).map_err(|failure| failure.limited(KEYS_MOST))?;
    let (profile, servers) = (client.profile(), context.config.servers()?);
    let value = json!({"code": code.to_string(), "profile": profile.as_str()});
    Ok(context.out.put(value, || {
        let command = enrolling(&code, profile, servers);
        format!("{code}\nOn the new machine, once, within 10 minutes:\n  {command}")
    })?)
}

fn enrol(context: &Context, code: EnrolmentCode) -> Result<(), Failure> {
    let client = context.connect_to_enrol(code)?;
    let (profile, key) = (client.profile(), client.device().key);
    let value = json!({"profile": profile.as_str(), "key": key.in_full()});
    let now = if client.is_new_device() { "now belongs" } else { "belonged" };
    let kept = if client.is_new_device() { "" } else { " already; the code was not used" };
    context.out.put(value, || format!("this machine {now} to @{profile}{kept}, with the key {key}"))?;
    context.tell_how_to_keep(None);
    Ok(())
}

/// Lists the keys, a machine each, and under each its devices: a command that runs at the same time as
/// another one is a device of its own.
fn list(context: &Context) -> Result<(), Failure> {
    let reader = context.reader()?;
    let own = reader.key();
    let devices = context.list(&reader, Listing::Devices)?;
    for item in context.list(&reader, Listing::Keys)? {
        if let ListItem::Key { key, slots, last_seen_ms } = &item {
            let is_its =
                |item: &&ListItem| matches!(item, ListItem::Device { device, .. } if device.key == *key);
            let its = || devices.iter().filter(is_its);
            let objects = its().filter_map(|item| match item {
                ListItem::Device { device, cursor, session, last_seen_ms } => Some(json!({
                    "device": device.to_string(),
                    "cursor": cursor.0,
                    "session": session.map(|session| session.0.0),
                    "last_seen": rfc3339(*last_seen_ms),
                    "last_seen_ms": last_seen_ms,
                })),
                _ => None,
            });
            let value = json!({
                "key": key.in_full(),
                "this": *key == own,
                "slots": slots,
                "last_seen": rfc3339(*last_seen_ms),
                "last_seen_ms": last_seen_ms,
                "devices": objects.collect::<Vec<_>>(),
            });
            context.out.item(value, || {
                let devices = its().map(|item| format!("  {}", listed(item, Some(own), when)));
                let machine = listed(&item, Some(own), when);
                std::iter::once(machine).chain(devices).collect::<Vec<_>>().join("\n")
            })?;
        }
    }
    context.note_age(&reader);
    Ok(())
}

fn remove(context: &Context, beginning: &str, yes: bool) -> Result<(), Failure> {
    let client = context.connect_to_change()?;
    let key = one_of(context, &client, beginning)?;
    if key == client.device().key && !yes {
        return Err(Failure::Usage(format!(
            "{key} is the key of this machine, which then can no longer act as @{}; confirm with --yes",
            client.profile()
        )));
    }
    let op = context.wait(&client.revoke(key)?, None)?;
    let value = json!({"key": key.in_full(), "op": op.0});
    context.out.done(op, value, || format!("{key} is revoked"));
    Ok(())
}

/// Resets the devices of this machine. It contacts no server.
fn reset(context: &Context, cluster: Option<&str>, yes: bool) -> Result<(), Failure> {
    let profile = context.config.profile()?;
    let cluster = cluster_of(context, &profile, cluster)?;
    let reset = DeviceReset::begin(&context.config.state, cluster, &profile).map_err(other)?;
    for request in reset.unsent() {
        note(format_args!("not sent, or not known to be: {}", described(request)));
    }
    for error in reset.unreadable() {
        note(error);
    }
    let unsent = reset.unsent().len();
    if unsent + reset.unreadable().len() > 0 && !yes {
        return Err(Failure::Usage(format!(
            "this drops what @{profile} has not sent from this machine, as listed above; confirm with --yes"
        )));
    }
    let devices = reset.devices();
    reset.finish().map_err(other)?;
    let value = json!({
        "profile": profile.as_str(),
        "cluster": cluster.to_string(),
        "devices": devices,
        "dropped": unsent,
    });
    Ok(context.out.put(value, || {
        let devices = counted(devices as u64, "device");
        format!("{devices} of @{profile} on this machine reset; the name and its key stay")
    })?)
}

/// Finds the only key of the profile that begins with `beginning`.
fn one_of(context: &Context, client: &Client, beginning: &str) -> Result<DeviceKey, Failure> {
    let beginning = beginning.to_ascii_lowercase();
    let keys = context.list(client, Listing::Keys)?.into_iter().filter_map(|item| match item {
        ListItem::Key { key, .. } if key.in_full().starts_with(&beginning) => Some(key),
        _ => None,
    });
    match keys.collect::<Vec<_>>()[..] {
        [key] => Ok(key),
        [] => {
            Err(Failure::Usage(format!("no key begins with {beginning:?}; `recado device list` shows them")))
        }
        _ => Err(Failure::Usage(format!("several keys begin with {beginning:?}; give more digits"))),
    }
}
