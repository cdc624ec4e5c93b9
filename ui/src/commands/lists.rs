//! `recado following`, `followers`, `channels` and `people`: one line for each item.

use recado_client::{ListItem, Listing};
use serde_json::json;

use super::Context;
use crate::exit::Failure;
use crate::print::{aside, kind_of, when, written};
use crate::wording::{access_in_words, empty, listed};

pub(super) fn run(context: &Context, what: Listing) -> Result<(), Failure> {
    let reader = context.reader()?;
    let items = context.list(&reader, what.clone())?;
    if items.is_empty() {
        aside(empty(&what, "recado follow"));
    }
    for item in items {
        let value = match &item {
            ListItem::Following { topic, since } => {
                json!({"topic": written(topic), "topic_kind": kind_of(topic), "since_op": since.0})
            }
            ListItem::Profile { name, since } => {
                json!({"profile": name.as_str(), "since_op": since.0, "display": null})
            }
            ListItem::Displayed { name, since, display } => {
                json!({"profile": name.as_str(), "since_op": since.0, "display": display.as_str()})
            }
            ListItem::Channel { name, followers, last_op, access } => json!({
                "channel": name.as_str(),
                "followers": followers,
                "last_op": last_op.0,
                "access": access_in_words(*access),
            }),
            // `recado channel members`, `recado device list` and `recado keys` show these.
            ListItem::Member { .. }
            | ListItem::Key { .. }
            | ListItem::Device { .. }
            | ListItem::Stored { .. } => continue,
        };
        context.out.item(value, || listed(&item, None, when))?;
    }
    context.note_age(&reader);
    Ok(())
}
