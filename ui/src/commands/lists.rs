//! `recado following`, `followers`, `channels`, `people` and `devices`: one line for each item.

use recado_client::{Access, ListItem, Listing};
use serde_json::json;

use super::Context;
use crate::exit::Failure;
use crate::print::{kind_of, nothing, rfc3339, when, written};

pub(super) fn run(context: &Context, what: Listing) -> Result<(), Failure> {
    let client = context.connect_to_read()?;
    let own = client.device();
    let items = client.list(what.clone())?;
    if items.is_empty() {
        nothing(match what {
            Listing::Following => "you follow nothing yet; run: recado follow @NAME",
            Listing::Followers => "nobody follows you yet",
            Listing::Channels => "there is no channel yet; the first notification sent to one creates it",
            _ => "there is nothing yet",
        });
    }
    for item in items {
        match item {
            ListItem::Following { topic, since } => {
                let value =
                    json!({"topic": written(&topic), "topic_kind": kind_of(&topic), "since_op": since.0});
                context.out.put(value, || written(&topic))?;
            }
            ListItem::Profile { name, since } => {
                let value = json!({"profile": name.as_str(), "since_op": since.0});
                context.out.put(value, || format!("@{name}"))?;
            }
            ListItem::Channel { name, followers, last_op, access } => {
                let access = match access {
                    Access::Open => "open",
                    Access::Owned => "owned",
                    Access::Private => "private",
                };
                let value = json!({
                    "channel": name.as_str(),
                    "followers": followers,
                    "last_op": last_op.0,
                    "access": access,
                });
                let human = || format!("#{name:<32} {access:<8} {}", counted(followers, "follower"));
                context.out.put(value, human)?;
            }
            // `recado channel members` and `recado device list` show these.
            ListItem::Member { .. } | ListItem::Key { .. } => {}
            ListItem::Device { device, cursor, session, last_seen_ms } => {
                let this = device == own;
                let value = json!({
                    "device": device.to_string(),
                    "this": this,
                    "cursor": cursor.0,
                    "session": session.map(|session| session.0.0),
                    "last_seen": rfc3339(last_seen_ms),
                    "last_seen_ms": last_seen_ms,
                });
                context.out.put(value, || {
                    let state = if session.is_some() { "connected" } else { "idle" };
                    let mark = if this { "  (this one)" } else { "" };
                    format!(
                        "{:<18} {state:<9}  read up to {cursor}  seen {}{mark}",
                        device.to_string(),
                        when(last_seen_ms)
                    )
                })?;
            }
        }
    }
    Ok(())
}

/// Formats a number with a noun, in the plural unless the number is 1.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}
