//! `recado following`, `followers`, `channels` and `people`: one line for each item.

use recado_client::{Access, ListItem, Listing};
use serde_json::json;

use super::Context;
use crate::exit::Failure;
use crate::print::{aside, kind_of, written};

pub(super) fn run(context: &Context, what: Listing) -> Result<(), Failure> {
    let client = context.connect_to_read()?;
    let items = context.list(&client, what.clone())?;
    if items.is_empty() {
        aside(match what {
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
                context.out.item(value, || written(&topic))?;
            }
            ListItem::Profile { name, since } => {
                let value = json!({"profile": name.as_str(), "since_op": since.0});
                context.out.item(value, || format!("@{name}"))?;
            }
            ListItem::Channel { name, followers, last_op, access } => {
                let access = word(access);
                let value = json!({
                    "channel": name.as_str(),
                    "followers": followers,
                    "last_op": last_op.0,
                    "access": access,
                });
                let human = || format!("#{name:<32} {access:<8} {}", counted(followers, "follower"));
                context.out.item(value, human)?;
            }
            // `recado channel members` and `recado device list` show these.
            ListItem::Member { .. } | ListItem::Key { .. } | ListItem::Device { .. } => {}
        }
    }
    Ok(())
}

/// Who may send to a channel and read it, in a word.
pub(super) fn word(access: Access) -> &'static str {
    match access {
        Access::Open => "open",
        Access::Owned => "owned",
        Access::Private => "private",
    }
}

/// Formats a number with a noun, in the plural unless the number is 1.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}
