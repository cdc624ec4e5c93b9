//! `recado channel`: channels with owners and members.

use recado_client::{
    ChannelChange, ChannelName, Client, Code, ListItem, Listing, Name, ReceiptError, Role, Topic,
};
use serde_json::json;

use super::{Context, lists};
use crate::cli::Channel;
use crate::exit::Failure;
use crate::print::note;

pub(super) fn run(context: &Context, command: Channel) -> Result<(), Failure> {
    match command {
        Channel::List => lists::run(context, Listing::Channels),
        Channel::Create { channel, private } => {
            let whose =
                if private { "only its members can follow and read it" } else { "anyone can read it" };
            let message = format!("#{channel} is yours; {whose}");
            change(context, channel, ChannelChange::Create { private }, message)
        }
        Channel::Add { channel, member, role } => {
            let message = format!("@{member} is {} of #{channel}", role_word(role));
            change(context, channel, ChannelChange::Add { member, role }, message)
        }
        Channel::Remove { channel, member } => {
            let message = format!("@{member} is no longer a member of #{channel}");
            change(context, channel, ChannelChange::Remove { member }, message)
        }
        Channel::Members { channel } => members(context, &channel),
        Channel::Delete { channel, yes: false } => Err(unconfirmed(context, &channel)?),
        Channel::Delete { channel, yes: true } => {
            let message = format!("#{channel} is deleted");
            change(context, channel, ChannelChange::Delete, message)
        }
    }
}

/// Failure of `delete` without `--yes`: an owner is asked to add the flag, and others learn that only an
/// owner can delete the channel.
fn unconfirmed(context: &Context, channel: &ChannelName) -> Result<Failure, Failure> {
    let client = context.connect_to_read()?;
    let topic = Topic::Channel(channel.clone());
    let members = context.ask(|| client.list(Listing::Members(channel.clone())))?;
    let members = members.map_err(Failure::about(Some(&topic)))?;
    Ok(match is_owner(client.profile(), &members) {
        true => Failure::Usage(format!(
            "this deletes #{channel} and its notifications for everyone; confirm with --yes"
        )),
        false => Failure::Refused(no_right(channel, "an owner", &members)),
    })
}

fn is_owner(me: &Name, members: &[ListItem]) -> bool {
    members.iter().any(|item| matches!(item, ListItem::Member { name, role: Role::Owner } if name == me))
}

fn change(
    context: &Context,
    channel: ChannelName,
    change: ChannelChange,
    message: String,
) -> Result<(), Failure> {
    let client = match change {
        ChannelChange::Create { .. } => context.connect_to_claim()?,
        ChannelChange::Add { .. } | ChannelChange::Remove { .. } | ChannelChange::Delete => {
            context.connect_to_change()?
        }
    };
    let topic = Topic::Channel(channel.clone());
    let member = match &change {
        ChannelChange::Add { member, .. } | ChannelChange::Remove { member } => Some(member.clone()),
        ChannelChange::Create { .. } | ChannelChange::Delete => None,
    };
    let most = match &change {
        ChannelChange::Create { .. } => {
            "no further channel can be made: you own or have made as many as one profile may, or the cluster has as many \
             as it may (limits `channels_owned`, `channels_made`, `channels`)"
        }
        _ => {
            "the channel has as many members as it may, or the new owner owns as many channels as one profile may (limits \
             `members`, `channels_owned`)"
        }
    };
    let receipt = client.change_channel(channel.clone(), change)?;
    let result = context.wait(&receipt, Some(&topic)).map_err(|failure| failure.limited(most));
    let op = result.map_err(|failure| match (failure, member) {
        // These codes concern the member, not the channel.
        (
            Failure::Request {
                error: error @ ReceiptError::Refused(Code::UnknownProfile | Code::NotMember),
                ..
            },
            Some(member),
        ) => Failure::Request { error, topic: Some(Topic::Feed(member)) },
        (failure, _) => explained(&client, failure, "an owner"),
    })?;
    context.out.done(op, json!({"channel": channel.as_str(), "op": op.0}), || message);
    Ok(())
}

/// Explains a refusal for a missing right: it names the role `who` that the request needs in the channel,
/// and the owners who can grant it. The failure is unchanged, and [`Failure`] words it, if the user may not
/// list the members.
pub(super) fn explained(client: &Client, failure: Failure, who: &str) -> Failure {
    let Failure::Request {
        error: ReceiptError::Refused(Code::NotAllowed),
        topic: Some(Topic::Channel(channel)),
    } = &failure
    else {
        return failure;
    };
    match client.list(Listing::Members(channel.clone())) {
        Ok(members) => Failure::Refused(no_right(channel, who, &members)),
        Err(_) => failure,
    }
}

fn no_right(channel: &ChannelName, who: &str, members: &[ListItem]) -> String {
    let owners: Vec<String> = members
        .iter()
        .filter_map(|item| match item {
            ListItem::Member { name, role: Role::Owner } => Some(format!("@{name}")),
            _ => None,
        })
        .collect();
    match &owners[..] {
        [] => format!(
            "#{channel} is open, so it has no owners: anyone can send to it and read it, and nobody can change or delete it"
        ),
        owners => format!("you must be {who} of #{channel} to do this; its owners: {}", owners.join(", ")),
    }
}

fn members(context: &Context, channel: &ChannelName) -> Result<(), Failure> {
    let client = context.connect_to_read()?;
    let topic = Topic::Channel(channel.clone());
    let members = context.ask(|| client.list(Listing::Members(channel.clone())))?;
    let members = members.map_err(Failure::about(Some(&topic)))?;
    if members.is_empty() {
        note(format_args!("#{channel} is open: it has no members, and anyone can send to it and read it"));
    }
    for item in members {
        if let ListItem::Member { name, role } = item {
            let value = json!({"profile": name.as_str(), "role": role_word(role)});
            context.out.item(value, || format!("@{name:<32} {}", role_word(role)))?;
        }
    }
    Ok(())
}

pub(super) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Reader => "reader",
        Role::Writer => "writer",
        Role::Owner => "owner",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_a_missing_right_names_the_owners_or_that_there_are_none() {
        let channel: ChannelName = "ops".parse().unwrap();
        let member = |name: &str, role| ListItem::Member { name: name.parse().unwrap(), role };
        let members = [member("alice", Role::Owner), member("bob", Role::Writer)];
        let message = no_right(&channel, "a writer", &members);
        assert!(message.contains("a writer of #ops") && message.contains("@alice"), "{message}");
        assert!(!message.contains("@bob"), "{message}");
        assert!(no_right(&channel, "an owner", &[]).contains("no owners"));
        for (me, owns) in [("alice", true), ("bob", false), ("carol", false)] {
            assert_eq!(is_owner(&me.parse().unwrap(), &members), owns, "{me}");
        }
    }
}
