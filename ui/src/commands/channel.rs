//! `recado channel`: channels with owners and members.

use recado_client::{
    ChannelChange, ChannelName, Client, Code, ListItem, Listing, Name, Queries as _, ReceiptError, Role,
    Topic,
};
use serde_json::json;

use super::{Context, lists};
use crate::cli::Channel;
use crate::exit::Failure;
use crate::print::{note, when};
use crate::wording::{changed, empty, limits_of, listed, no_right, role_in_words};

pub(super) fn run(context: &Context, command: Channel) -> Result<(), Failure> {
    match command {
        Channel::List => lists::run(context, Listing::Channels),
        Channel::Create { channel, private } => change(context, channel, ChannelChange::Create { private }),
        Channel::Add { channel, member, role } => {
            change(context, channel, ChannelChange::Add { member, role })
        }
        Channel::Remove { channel, member } => change(context, channel, ChannelChange::Remove { member }),
        Channel::Members { channel } => members(context, &channel),
        Channel::Delete { channel, yes: false } => Err(unconfirmed(context, &channel)?),
        Channel::Delete { channel, yes: true } => change(context, channel, ChannelChange::Delete),
    }
}

/// Failure of `delete` without `--yes`: an owner is asked to add the flag, and others learn that only an
/// owner can delete the channel.
fn unconfirmed(context: &Context, channel: &ChannelName) -> Result<Failure, Failure> {
    let reader = context.reader()?;
    let topic = Topic::Channel(channel.clone());
    let members = context.ask(|| reader.list(Listing::Members(channel.clone())))?;
    let members = members.map_err(Failure::about(Some(&topic)))?;
    // An open channel has no members, and the servers know who made it.
    Ok(match members.is_empty() || is_owner(reader.profile(), &members) {
        true => Failure::Usage(format!(
            "this deletes #{channel} and its notifications for everyone; confirm with --yes"
        )),
        false => Failure::Refused(no_right(channel, "an owner", &members)),
    })
}

fn is_owner(me: &Name, members: &[ListItem]) -> bool {
    members.iter().any(|item| matches!(item, ListItem::Member { name, role: Role::Owner } if name == me))
}

fn change(context: &Context, channel: ChannelName, change: ChannelChange) -> Result<(), Failure> {
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
    let (most, done) = (limits_of(&change), changed(&channel, &change));
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
    context.out.done(op, json!({"channel": channel.as_str(), "op": op.0}), || done);
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

fn members(context: &Context, channel: &ChannelName) -> Result<(), Failure> {
    let reader = context.reader()?;
    let topic = Topic::Channel(channel.clone());
    let members = context.ask(|| reader.list(Listing::Members(channel.clone())))?;
    let members = members.map_err(Failure::about(Some(&topic)))?;
    if members.is_empty() {
        note(empty(&Listing::Members(channel.clone()), ""));
    }
    for item in members {
        if let ListItem::Member { name, role } = &item {
            let value = json!({"profile": name.as_str(), "role": role_in_words(*role)});
            context.out.item(value, || listed(&item, None, when))?;
        }
    }
    context.note_age(&reader);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_owner_owns_a_channel() {
        let member = |name: &str, role| ListItem::Member { name: name.parse().unwrap(), role };
        let members = [member("alice", Role::Owner), member("bob", Role::Writer)];
        for (me, owns) in [("alice", true), ("bob", false), ("carol", false)] {
            assert_eq!(is_owner(&me.parse().unwrap(), &members), owns, "{me}");
        }
    }
}
