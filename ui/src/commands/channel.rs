//! `recado channel`: channels with owners and members.

use recado::client::{ChannelChange, ListItem, Listing, Name, Role, Topic};
use serde_json::json;

use super::Context;
use crate::cli::Channel;
use crate::exit::{self, Failure};

pub(super) fn run(context: &Context, command: Channel) -> Result<(), Failure> {
    match command {
        Channel::Create { channel, private } => {
            let whose = if private { "only its members follow and read it" } else { "anyone reads it" };
            let told = format!("#{channel} is yours; {whose}");
            change(context, channel, ChannelChange::Create { private }, told)
        }
        Channel::Add { channel, member, role } => {
            let told = format!("@{member} is {} of #{channel}", word(role));
            change(context, channel, ChannelChange::Add { member, role }, told)
        }
        Channel::Remove { channel, member } => {
            let told = format!("@{member} is no member of #{channel} any more");
            change(context, channel, ChannelChange::Remove { member }, told)
        }
        Channel::Members { channel } => members(context, &channel),
        Channel::Delete { channel, yes: false } => Err(Failure::Usage(format!(
            "#{channel} would be gone for everybody, with all it holds; say --yes to delete it"
        ))),
        Channel::Delete { channel, yes: true } => {
            let told = format!("#{channel} is deleted");
            change(context, channel, ChannelChange::Delete, told)
        }
    }
}

fn change(context: &Context, channel: Name, change: ChannelChange, told: String) -> Result<(), Failure> {
    let client = context.connect()?;
    let topic = Topic::Channel(channel.clone());
    let receipt = client.change_channel(channel.clone(), change)?;
    let op = exit::wait(&receipt, context.timeout(), Some(&topic))?;
    Ok(context.out.put(json!({"channel": channel.as_str(), "op": op.0}), || told)?)
}

fn members(context: &Context, channel: &Name) -> Result<(), Failure> {
    let client = context.connect()?;
    let topic = Topic::Channel(channel.clone());
    let members = client.list(Listing::Members(channel.clone())).map_err(Failure::about(Some(&topic)))?;
    if members.is_empty() {
        eprintln!("recado: #{channel} is open: it has no members, anyone sends and reads");
    }
    for item in members {
        if let ListItem::Member { name, role } = item {
            let value = json!({"profile": name.as_str(), "role": word(role)});
            context.out.put(value, || format!("@{name:<32} {}", word(role)))?;
        }
    }
    Ok(())
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Reader => "reader",
        Role::Writer => "writer",
        Role::Owner => "owner",
    }
}
